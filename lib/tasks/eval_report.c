/* eval_report.c - report.json, report.csv, scores.csv, calibration files.
 * SPDX-License-Identifier: Apache-2.0 */
#include "eval.h"
#include "lora.h"
#include "result.h"

/* ---- JSON ---- */

static void put_cell(rz_str *s, const rz_eval *e, const char *label, const rz_eval_cell *c)
{
    rz_str_put_text(s, "{\"class\":", label);
    rz_str_printf(s, ",\"n_positive\":%zu,\"n_negative\":%zu,\"tp\":%zu,\"fp\":%zu,\"tn\":%zu,\"fn\":%zu",
                  c->m.n_positive, c->m.n_negative, c->m.tp, c->m.fp, c->m.tn, c->m.fn);
    rz_str_put_number(s, ",\"threshold\":", c->m.threshold);
    for (size_t k = 0; k < RZ_N_FIGURES; k++) {
        rz_str_printf(s, ",\"%s\":", rz_figure_name(k));
        rz_str_put_double(s, rz_figure_of(&c->m, k));
        if (!e->o->n_rounds) continue;
        rz_str_printf(s, ",\"%s_interval\":[", rz_figure_name(k));
        rz_str_put_double(s, rz_figure_of(&c->low, k));
        rz_str_put_number(s, ",", rz_figure_of(&c->high, k));
        rz_str_puts(s, "]");
    }
    if (c->note) rz_str_put_text(s, ",\"note\":", c->note);
    rz_str_puts(s, "}");
}

static void put_difference(rz_str *s, const rz_difference *d)
{
    rz_str_put_number(s, "{\"value\":", d->value);
    rz_str_put_number(s, ",\"interval\":[", d->low);
    rz_str_put_number(s, ",", d->high);
    rz_str_put_number(s, "],\"share_above_0\":", d->above);
    rz_str_puts(s, "}");
}

/* Less the first method's. */
static void put_differences(rz_str *s, const rz_eval *e, const rz_eval_table *t)
{
    if (!t->macro) return;
    rz_str_puts(s, ",\n\"less_first\":{\"macro\":{");
    for (size_t k = 0; k < RZ_N_FIGURES; k++) {
        rz_str_printf(s, "%s\"%s\":", k ? "," : "", rz_figure_name(k));
        put_difference(s, &t->macro[k]);
    }
    rz_str_puts(s, "},\"auc\":{");
    for (size_t c = 0; c < e->data.n_classes; c++) {
        rz_str_put_text(s, c ? "," : "", e->bank->labels[c]);
        rz_str_puts(s, ":");
        put_difference(s, &t->auc[c]);
    }
    rz_str_puts(s, "}}");
}

static void put_table(rz_str *s, const rz_eval *e, const rz_eval_table *t)
{
    rz_str_put_text(s, "{\"set\":", t->set);
    rz_str_printf(s, ",\"n_films\":%zu,\"n_patients\":%zu,\"n_classes_in_macro\":%zu,\"macro\":", t->n_films,
                  t->n_patients, t->n_defined);
    put_cell(s, e, "macro", &t->cells[e->data.n_classes]);
    rz_str_puts(s, ",\"classes\":[\n");
    for (size_t c = 0; c < e->data.n_classes; c++) {
        if (c) rz_str_puts(s, ",\n");
        put_cell(s, e, e->bank->labels[c], &t->cells[c]);
    }
    rz_str_puts(s, "]");
    put_differences(s, e, t);
    rz_str_puts(s, "}");
}

static void put_texts(rz_str *s, const char *before, char *const *texts, size_t n)
{
    rz_str_puts(s, before);
    for (size_t i = 0; i < n; i++) rz_str_put_text(s, i ? "," : "", texts[i]);
    rz_str_puts(s, "]");
}

const char *rz_eval_feature(const rz_scorer *s)
{
    static const char *const others[RZ_SCORE_KINDS] = {
        [RADZ_SCORE_HIDDEN] = "mean of all rows",
        [RZ_SCORE_LIKELIHOOD] = "log-probability of the name, sum over its tokens",
        [RZ_SCORE_LIKELIHOOD_MEAN] = "log-probability of the name, mean over its tokens",
        [RZ_SCORE_OPTIONS] = "names in the answer",
        [RZ_SCORE_COT] = "names in the answer",
        [RZ_SCORE_HEAD] = "linear head over the global vector"};
    return others[s->kind] ? others[s->kind] : rz_feature_name(s->feature);
}

static void put_question(rz_str *s, const rz_eval_wanted *w, const rz_scorer *c)
{
    const int kind = c->kind == RZ_SCORE_OPTIONS ? RZ_VALUE_OPTIONS
                     : c->kind == RZ_SCORE_COT   ? RZ_VALUE_COT
                                                 : RZ_VALUE_LIKELIHOOD;
    const radz_method_options *o = &w->question[kind];
    if (c->kind <= RADZ_SCORE_HIDDEN || c->kind == RZ_SCORE_HEAD) return;
    rz_str_put_text(s, ",\"question\":{\"text\":", rz_method_question(o));
    if (kind == RZ_VALUE_LIKELIHOOD) rz_str_put_text(s, ",\"prefix\":", rz_method_prefix(o));
    if (kind != RZ_VALUE_LIKELIHOOD) rz_str_printf(s, ",\"max_tokens\":%d", rz_method_max_tokens(o));
    rz_str_put_text(s, ",\"chat_template\":", o->chat_template ? o->chat_template : "auto");
    rz_str_put_text(s, ",\"system\":", o->system);
    rz_str_put_text(s, ",\"hash\":", strchr(w->name[kind], '-') + 1);
    rz_str_puts(s, "}");
}

static void put_method(rz_str *s, const rz_eval *e, const rz_eval_method *m)
{
    const rz_scorer *c = m->scorer;
    rz_str_put_text(s, "{\"method\":", m->name);
    rz_str_put_text(s, ",\"model\":", m->arm->of.name);
    rz_str_put_text(s, ",\"feature\":", rz_eval_feature(c));
    rz_str_put_text(s, ",\"classes\":", rz_classes_name(c->classes));
    rz_str_put_number(s, ",\"tau\":", c->tau);
    put_texts(s, ",\"templates\":[", c->templates, c->n_templates);
    put_texts(s, ",\"negatives\":[", c->negative_templates, c->n_negatives);
    rz_str_put_text(s, ",\"calibration\":", rz_calibration_name(c->calibration));
    if (rz_score_is_answer(c->kind)) rz_str_puts(s, ",\"threshold_source\":\"answer\"");
    put_question(s, &m->arm->wanted, c);
    rz_str_puts(s, ",\"tables\":[\n");
    for (size_t t = 0; t < m->n_tables; t++) {
        if (t) rz_str_puts(s, ",\n");
        put_table(s, e, &m->tables[t]);
    }
    rz_str_puts(s, "]}");
}

static void put_adapter(rz_str *s, const rz_model *m)
{
    rz_sha256 h;
    char hash[65];
    if (m->lora) {
        rz_sha256_init(&h);
        rz_lora_hash(m->lora, &h);
        rz_sha256_hex(&h, hash);
    }
    rz_str_put_text(s, ",\"adapter\":", m->lora ? hash : NULL);
}

static void put_preprocessing(rz_str *s, const rz_model *m)
{
    rz_str settings = {.host = s->host};
    rz_sha256 h;
    char hash[65] = "";
    rz_preprocess_put_json(&settings, &m->cfg);
    if (settings.failed) {
        s->failed = true;
    } else {
        rz_sha256_init(&h);
        rz_sha256_put(&h, settings.data, settings.len);
        rz_sha256_hex(&h, hash);
        rz_str_put_text(s, ",\n\"preprocessing\":{\"hash\":", hash);
        rz_str_puts(s, ",\"settings\":");
        rz_str_put(s, settings.data, settings.len);
        rz_str_puts(s, "}");
    }
    rz_str_free(&settings);
}

/* All that a model's scores depend on. */
static void put_model(rz_str *s, const rz_eval_model *of)
{
    const rz_model *m = of->net->model;
    char device[64];
    rz_str_put_text(s, "\"model\":{\"name\":", of->name);
    rz_str_put_text(s, ",\"hash\":", m->hash);
    rz_precision_put_json(s, m);
    put_adapter(s, m);
    rz_str_put_text(s, ",\"tower\":", m->cfg.vision_dir ? "external" : "checkpoint");
    rz_str_printf(s, ",\"layer\":%d", m->cfg.radz.layer);
    rz_eval_device(m, device);
    rz_str_put_text(s, "},\n\"device\":", device);
    rz_str_put_text(s, ",\n\"bank\":{\"hash\":", of->bank->hash);
    rz_str_put_text(s, "},\n\"tokenizer\":{\"hash\":", m->tok ? rz_tokenizer_hash(m->tok) : NULL);
    rz_str_puts(s, "}");
    put_preprocessing(s, m);
}

static void put_stamp(rz_str *s, const rz_eval *e)
{
    rz_str_put_text(s, "\"library\":\"libradz\",\"version\":", radz_version());
    rz_str_puts(s, ",\n");
    put_model(s, &e->arms[0].of);
    rz_str_puts(s, ",\n\"others\":[");
    for (size_t i = 1; i < e->n_arms; i++) {
        rz_str_puts(s, i > 1 ? ",\n{" : "\n{");
        put_model(s, &e->arms[i].of);
        rz_str_puts(s, "}");
    }
    rz_str_put_text(s, "],\n\"manifest\":{\"hash\":", e->data.manifest_hash);
    rz_str_put_text(s, ",\"split\":", e->data.split ? e->data.split : "all");
    rz_str_put_text(s, ",\"sets\":", e->o->sets ? e->o->sets : "all");
    rz_str_put_text(s, "},\n\"label_map\":{\"hash\":", *e->data.map_hash ? e->data.map_hash : NULL);
    rz_str_put_text(s, "},\n\"validation\":{\"manifest_hash\":", e->o->validation ? e->data.validation_hash : NULL);
    rz_str_printf(s, ",\"n_films\":%zu,\"n_patients_shared_with_evaluated\":%zu}", e->data.n - e->data.n_evaluated,
                  e->data.n_shared_patients);
}

static void put_protocol(rz_str *s, const rz_eval *e)
{
    const radz_eval_options *o = e->o;
    rz_str_put_text(s, ",\n\"protocol\":{\"threshold_source\":", rz_eval_threshold_name(e));
    if (e->threshold_note) rz_str_put_text(s, ",\"threshold_note\":", e->threshold_note);
    rz_str_put_text(s, ",\"comparison\":", o->strict ? ">" : ">=");
    rz_str_put_text(s, ",\"f1_over\":", o->both_classes ? "both classes" : "positive class");
    rz_str_printf(s, ",\"macro_includes_reference\":%s", o->macro_reference ? "true" : "false");
    rz_str_put_text(s, ",\"uncertain\":", o->uncertain);
    rz_str_printf(s, ",\"calibration_bins\":%zu,\"bootstrap\":{\"rounds\":%zu,\"unit\":\"patient\",\"seed\":%llu",
                  o->n_bins, o->n_rounds, (unsigned long long)o->seed);
    rz_str_put_number(s, ",\"confidence\":", o->confidence);
    rz_str_puts(s, "}}");
}

static void put_films(rz_str *s, const rz_eval *e)
{
    const rz_eval_data *d = &e->data;
    const char *between = "";
    rz_str_printf(s, ",\n\"films\":{\"n\":%zu,\"n_failed\":%zu,\"failed\":[", d->n, e->films.n_failed);
    for (size_t i = 0; i < d->n; i++) {
        if (e->films.state[i] != RZ_FILM_FAILED) continue;
        rz_str_printf(s, "%s\n{\"line\":%zu,\"manifest\":\"%s\"", between, d->rows[i].line,
                      d->rows[i].second_file ? "validation" : "evaluated");
        rz_str_put_text(s, ",\"path\":", d->rows[i].shown);
        rz_str_put_text(s, ",\"message\":", e->films.why[i]);
        rz_str_puts(s, "}");
        between = ",";
    }
    rz_str_puts(s, "],\"labels_without_a_class\":{");
    for (size_t i = 0; i < d->labels.n; i++) {
        rz_str_put_text(s, i ? "," : "", d->labels.items[i]);
        rz_str_printf(s, ":%zu", d->label_rows[i]);
    }
    rz_str_puts(s, "}}");
}

static void put_report(rz_str *s, const rz_eval *e)
{
    rz_str_puts(s, "{\"schema\":\"radz.eval/1\",\n");
    put_stamp(s, e);
    put_protocol(s, e);
    put_films(s, e);
    rz_str_puts(s, ",\n\"methods\":[\n");
    for (size_t i = 0; i < e->n_methods; i++) {
        if (i) rz_str_puts(s, ",\n");
        put_method(s, e, &e->methods[i]);
    }
    rz_str_puts(s, "],\n\"left_out\":[");
    for (size_t i = 0; i < e->n_absent; i++) {
        rz_str_put_text(s, i ? ",{\"method\":" : "{\"method\":", e->absent[i].name);
        rz_str_put_text(s, ",\"model\":", e->absent[i].arm->of.name);
        rz_str_put_text(s, ",\"reason\":", e->absent[i].why);
        rz_str_puts(s, "}");
    }
    rz_str_puts(s, "],\n\"heatmaps\":");
    rz_eval_boxes_put_json(s, e);
    rz_str_put_text(s, ",\n\"disclaimer\":", radz_disclaimer());
    rz_str_puts(s, "}\n");
}

/* ---- CSV ---- */

void rz_eval_put_csv_text(rz_str *s, const char *text)
{
    if (!text[strcspn(text, ",\"\r\n;\t")]) {
        rz_str_puts(s, text);
        return;
    }
    rz_str_puts(s, "\"");
    for (; *text; text++) {
        if (*text == '"') rz_str_puts(s, "\"");
        rz_str_put(s, text, 1);
    }
    rz_str_puts(s, "\"");
}

void rz_eval_put_csv_number(rz_str *s, double v)
{
    rz_str_puts(s, ",");
    if (!isnan(v)) rz_str_put_double(s, v);
}

static void csv_row(rz_str *s, const rz_eval *e, const rz_eval_method *m, const rz_eval_table *t, size_t c)
{
    const rz_eval_cell *cell = &t->cells[c];
    rz_eval_put_csv_text(s, m->arm->of.name);
    rz_str_printf(s, ",%s,", m->name);
    rz_eval_put_csv_text(s, t->set ? t->set : "(all)");
    rz_str_puts(s, ",");
    rz_eval_put_csv_text(s, c < e->data.n_classes ? e->bank->labels[c] : "(macro)");
    rz_str_printf(s, ",%zu,%zu,%zu,%zu", t->n_films, t->n_patients, cell->m.n_positive, cell->m.n_negative);
    for (size_t k = 0; k < RZ_N_FIGURES; k++) {
        rz_eval_put_csv_number(s, rz_figure_of(&cell->m, k));
        rz_eval_put_csv_number(s, rz_figure_of(&cell->low, k));
        rz_eval_put_csv_number(s, rz_figure_of(&cell->high, k));
    }
    const rz_difference none = {NAN, NAN, NAN, NAN};
    const rz_difference *auc = !t->auc ? &none : c < e->data.n_classes ? &t->auc[c] : &t->macro[0];
    rz_eval_put_csv_number(s, auc->value);
    rz_eval_put_csv_number(s, auc->low);
    rz_eval_put_csv_number(s, auc->high);
    rz_eval_put_csv_number(s, cell->m.threshold);
    rz_str_printf(s, ",%s,%zu,%zu,%zu,%zu,", rz_eval_threshold_name(e), cell->m.tp, cell->m.fp, cell->m.tn, cell->m.fn);
    rz_eval_put_csv_text(s, cell->note ? cell->note : "");
    rz_str_puts(s, "\r\n");
}

static void put_csv(rz_str *s, const rz_eval *e)
{
    rz_str_puts(s, "model,method,set,class,n_films,n_patients,n_positive,n_negative");
    for (size_t k = 0; k < RZ_N_FIGURES; k++)
        rz_str_printf(s, ",%s,%s_low,%s_high", rz_figure_name(k), rz_figure_name(k), rz_figure_name(k));
    rz_str_puts(
        s, ",auc_less_first,auc_less_first_low,auc_less_first_high,threshold,threshold_source,tp,fp,tn,fn,note\r\n");
    for (size_t i = 0; i < e->n_methods; i++)
        for (size_t t = 0; t < e->methods[i].n_tables; t++)
            for (size_t c = 0; c <= e->data.n_classes; c++) csv_row(s, e, &e->methods[i], &e->methods[i].tables[t], c);
}

/* ---- Files ---- */

static radz_status write_text(const rz_eval *e, const char *name, rz_str *s, radz_error *err)
{
    char *path = rz_path_join(e->host, e->o->out_dir, name);
    radz_status status =
        s->failed || !path ? RZ_NO_MEMORY(err, name) : rz_write_file(e->host, path, s->data, s->len, err);
    rz_free(e->host, path);
    rz_str_free(s);
    return status;
}

static void put_film_scores(rz_str *s, const rz_eval *e, const rz_eval_method *m, size_t r)
{
    const rz_eval_data *d = &e->data;
    for (size_t c = 0; c < d->n_classes; c++) {
        rz_eval_put_csv_text(s, m->arm->of.name);
        rz_str_printf(s, ",%s,%zu,", m->name, d->rows[r].line);
        rz_eval_put_csv_text(s, d->rows[r].shown);
        rz_str_printf(s, ",%s,", e->films.sha256[r]);
        rz_eval_put_csv_text(s, d->sets.items[d->rows[r].set]);
        rz_str_printf(s, ",%s,", d->rows[r].validation ? "validation" : "evaluated");
        rz_eval_put_csv_text(s, e->bank->labels[c]);
        signed char truth = d->truth[r * d->n_classes + c];
        rz_str_puts(s, truth < 0 ? "," : truth ? ",1" : ",0");
        rz_eval_put_csv_number(s, m->similarity[r * d->n_classes + c]);
        rz_eval_put_csv_number(s, m->probability[r * d->n_classes + c]);
        rz_str_puts(s, "\r\n");
    }
}

/* Row by row: there may be many. */
static radz_status put_scores(const rz_eval *e, rz_writer *w, radz_error *err)
{
    rz_str s = {.host = e->host};
    radz_status status = RADZ_OK;
    rz_str_puts(&s, "model,method,line,path,sha256,set,part,class,truth,similarity,probability\r\n");
    for (size_t i = 0; i < e->n_methods; i++)
        for (size_t r = 0; r < e->data.n && !status; r++) {
            if (e->films.state[r] == RZ_FILM_DONE) put_film_scores(&s, e, &e->methods[i], r);
            if (s.len < 1 << 16 && !s.failed) continue;
            status = s.failed ? RZ_NO_MEMORY(err, "scores") : rz_writer_put(w, s.data, s.len, err);
            s.len = 0;
        }
    if (!status) status = s.failed ? RZ_NO_MEMORY(err, "scores") : rz_writer_put(w, s.data, s.len, err);
    rz_str_free(&s);
    return status;
}

static radz_status write_scores(const rz_eval *e, radz_error *err)
{
    rz_writer *w = NULL;
    char *path = rz_path_join(e->host, e->o->out_dir, "scores.csv");
    radz_status status = path ? rz_writer_open(e->host, path, &w, err) : RZ_NO_MEMORY(err, "scores");
    rz_free(e->host, path);
    if (!status) status = put_scores(e, w, err);
    if (!status) return rz_writer_commit(w, err);
    rz_writer_abort(w);
    return status;
}

/* Which films a calibration was fitted on: "240 films: val of index.csv (nih512,nih224)". */
static void put_fitted_on(rz_str *s, const rz_eval *e)
{
    const char *path = e->o->validation ? e->o->validation : e->o->manifest, *slash = strrchr(path, '/');
    size_t n = 0;
    for (size_t i = 0; i < e->data.n; i++) n += e->data.rows[i].validation && e->films.state[i] == RZ_FILM_DONE;
    rz_str_printf(s, "%zu films: ", n);
    if (!e->o->validation) { /* another manifest gives all its rows */
        rz_str_puts(s, e->o->validation_split);
        rz_str_puts(s, " of ");
    }
    rz_str_puts(s, slash ? slash + 1 : path);
    if (e->o->sets) {
        rz_str_puts(s, " (");
        rz_str_puts(s, e->o->sets);
        rz_str_puts(s, ")");
    }
}

static const char *calibration_rule(const rz_eval *e)
{
    return e->rule == RADZ_THRESHOLD_YOUDEN ? "youden" : e->rule == RADZ_THRESHOLD_MCC ? "mcc" : "max-f1";
}

/* Letters, digits and what else a file name may hold anywhere; two models' names are told apart by a number that the
 * rest of the name gives. */
static void put_file_part(rz_str *s, const char *name)
{
    uint32_t sum = 0;
    bool plain = true;
    for (const char *p = name; *p; p++) {
        const bool good = (*p >= '0' && *p <= '9') || ((*p | 32) >= 'a' && (*p | 32) <= 'z') || *p == '-' || *p == '_';
        rz_str_put(s, good ? p : "_", 1);
        plain = plain && good;
        sum = 31 * sum + (unsigned char)*p;
    }
    if (!plain) rz_str_printf(s, "-%08lx", (unsigned long)sum);
    rz_str_puts(s, "-");
}

static radz_status write_calibration(const rz_eval *e, const rz_eval_method *m, radz_error *err)
{
    rz_str s = {.host = e->host}, name = {.host = e->host}, films = {.host = e->host};
    put_fitted_on(&films, e);
    rz_calibration_put_json(&s, m->scorer, e->o->validation ? e->data.validation_hash : e->data.manifest_hash,
                            films.failed ? "" : films.data, calibration_rule(e));
    rz_str_free(&films);
    rz_str_puts(&name, "calibration-");
    if (m->arm->e->n_arms > 1) put_file_part(&name, m->arm->of.name);
    rz_str_printf(&name, "%s.json", m->name);
    radz_status status = RADZ_OK;
    if (name.failed) {
        rz_str_free(&s);
        status = RZ_NO_MEMORY(err, "calibration");
    } else {
        status = write_text(e, name.data, &s, err);
    }
    rz_str_free(&name);
    return status;
}

static radz_status write_boxes(const rz_eval *e, radz_error *err)
{
    rz_str s = {.host = e->host}, films = {.host = e->host};
    rz_eval_boxes_put_csv(&s, e);
    RZ_TRY(write_text(e, "heatmaps.csv", &s, err));
    rz_eval_boxes_put_films_csv(&films, e);
    return write_text(e, "heatmaps-films.csv", &films, err);
}

radz_status rz_eval_write(const rz_eval *e, radz_error *err)
{
    rz_str s = {.host = e->host};
    for (size_t i = 0; i < e->n_methods && e->calibrate; i++)
        if (e->methods[i].scorer->calibrators) RZ_TRY(write_calibration(e, &e->methods[i], err));
    put_csv(&s, e);
    RZ_TRY(write_text(e, "report.csv", &s, err));
    s = (rz_str){.host = e->host};
    if (e->o->write_scores) RZ_TRY(write_scores(e, err));
    if (e->o->boxes) RZ_TRY(write_boxes(e, err));
    radz_status status = rz_eval_put_html(&s, e, err);
    if (status) rz_str_free(&s);
    RZ_TRY(status);
    RZ_TRY(write_text(e, "report.html", &s, err));
    s = (rz_str){.host = e->host};
    put_report(&s, e);
    return write_text(e, "report.json", &s, err);
}
