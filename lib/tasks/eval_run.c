/* eval_run.c - an evaluation from options to report: methods, thresholds, calibration, tables.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "eval.h"

/* ---- What is asked for ---- */

static const struct {
    const char *name, *where;
    radz_threshold_rule rule;
} threshold_names[] = {
    {"validation", "validation", RADZ_THRESHOLD_MAX_F1},
    {"validation-max-f1", "validation", RADZ_THRESHOLD_MAX_F1},
    {"validation-youden", "validation", RADZ_THRESHOLD_YOUDEN},
    {"validation-mcc", "validation", RADZ_THRESHOLD_MCC},
    {"test-max-f1", "test", RADZ_THRESHOLD_MAX_F1},
    {"test-youden", "test", RADZ_THRESHOLD_YOUDEN},
    {"test-mcc", "test", RADZ_THRESHOLD_MCC},
    {"youden", "test", RADZ_THRESHOLD_YOUDEN},
    {"mcc", "test", RADZ_THRESHOLD_MCC},
    {"fixed", "fixed", RADZ_THRESHOLD_FIXED},
    {"calibration", "calibration", RADZ_THRESHOLD_FIXED},
};

const char *rz_eval_threshold_name(const rz_eval *e)
{
    if (e->rule == RADZ_THRESHOLD_MAX_F1 && strcmp(e->threshold_where, "validation") == 0) return "validation-max-f1";
    for (size_t i = 0; i < RZ_COUNT(threshold_names); i++)
        if (threshold_names[i].rule == e->rule && strcmp(threshold_names[i].where, e->threshold_where) == 0)
            return threshold_names[i].name;
    return e->threshold_where;
}

static radz_status pick_threshold(rz_eval *e, radz_error *err)
{
    size_t i = 0;
    while (i < RZ_COUNT(threshold_names) && strcmp(threshold_names[i].name, e->o->threshold) != 0) i++;
    if (i == RZ_COUNT(threshold_names))
        return rz_fail(err, RADZ_E_ARGUMENT,
                       "threshold: '%s': expected fixed, validation, validation-youden, validation-mcc, test-max-f1, "
                       "test-youden, test-mcc or calibration",
                       e->o->threshold);
    e->threshold_where = threshold_names[i].where, e->rule = threshold_names[i].rule;
    if (e->data.n_evaluated < e->data.n || strcmp(e->threshold_where, "validation") != 0) return RADZ_OK;
    if (strcmp(e->o->threshold, "validation") != 0)
        return rz_fail(err, RADZ_E_ARGUMENT, "threshold %s: there are no validation films", e->o->threshold);
    e->threshold_where = "fixed", e->rule = RADZ_THRESHOLD_FIXED;
    e->threshold_note = "there are no validation films to choose it on";
    return RADZ_OK;
}

static radz_status pick_calibration(rz_eval *e, radz_error *err)
{
    const char *name = e->o->calibrate;
    e->calibrate = strcmp(name, "platt") == 0      ? RZ_CALIBRATE_PLATT
                   : strcmp(name, "isotonic") == 0 ? RZ_CALIBRATE_ISOTONIC
                                                   : RZ_CALIBRATE_NONE;
    if (e->calibrate == RZ_CALIBRATE_NONE && strcmp(name, "none") != 0)
        return rz_fail(err, RADZ_E_ARGUMENT, "calibrate: '%s': expected none, platt or isotonic", name);
    if (e->calibrate && e->o->score.calibration)
        return rz_fail(err, RADZ_E_ARGUMENT, "calibrate: a calibration file is given as well");
    if (e->calibrate && e->data.n_evaluated == e->data.n)
        return rz_fail(err, RADZ_E_ARGUMENT, "calibrate %s: there are no validation films", name);
    return RADZ_OK;
}

/* Column c of the films of these rows that could be read: scores and truth, packed. */
typedef struct column {
    double *scores, *margins;
    signed char *truth;
    size_t *rows;
    size_t n;
} column;

static void take_column(const rz_eval *e, const rz_eval_method *m, const size_t *rows, size_t n, size_t c, column *out)
{
    out->n = 0;
    for (size_t k = 0; k < n; k++) {
        size_t at = rows[k] * e->data.n_classes + c;
        out->scores[out->n] = m->probability[at];
        out->margins[out->n] = m->margin[at];
        out->rows[out->n] = rows[k];
        out->truth[out->n++] = e->data.truth[at];
    }
}

static radz_status open_column(const rz_host *host, size_t n, column *c, radz_error *err)
{
    c->scores = rz_calloc(host, n, sizeof(double));
    c->margins = rz_calloc(host, n, sizeof(double));
    c->truth = rz_calloc(host, n, 1);
    c->rows = rz_calloc(host, n, sizeof(size_t));
    return c->scores && c->margins && c->truth && c->rows ? RADZ_OK : RZ_NO_MEMORY(err, "scores of a class");
}

static void close_column(const rz_host *host, column *c)
{
    rz_free(host, c->scores);
    rz_free(host, c->margins);
    rz_free(host, c->truth);
    rz_free(host, c->rows);
}

/* ---- Validation films: calibration and thresholds ---- */

static radz_status calibrate_class(rz_eval *e, rz_eval_method *m, const size_t *rows, size_t n, size_t c, column *col,
                                   radz_error *err)
{
    const size_t n_classes = e->data.n_classes;
    rz_ranked r;
    take_column(e, m, rows, n, c, col);
    RZ_TRY(rz_calibrate(e->host, e->calibrate, col->margins, col->truth, col->n, &m->scorer->calibrators[c], err));
    for (size_t i = 0; i < e->data.n; i++)
        if (e->films.state[i] == RZ_FILM_DONE)
            m->probability[i * n_classes + c] = rz_calibrated(&m->scorer->calibrators[c], m->margin[i * n_classes + c]);
    if (rz_calibrator_is_flat(&m->scorer->calibrators[c])) return RADZ_OK; /* no threshold parts these films */
    take_column(e, m, rows, n, c, col);
    RZ_TRY(rz_rank(e->host, col->scores, col->truth, col->n, &r, err));
    m->scorer->calibrators[c].threshold =
        rz_find_threshold(&r, e->rule == RADZ_THRESHOLD_FIXED ? RADZ_THRESHOLD_MAX_F1 : e->rule);
    rz_ranked_free(&r);
    return RADZ_OK;
}

static radz_status set_threshold(const rz_eval *e, rz_eval_method *m, const size_t *rows, size_t n, size_t c,
                                 column *col, radz_error *err)
{
    rz_ranked r;
    m->thresholds[c] = NAN;
    if (rz_score_is_answer(m->scorer->kind)) {
        m->thresholds[c] = 0.5;
        return RADZ_OK;
    }
    if (strcmp(e->threshold_where, "fixed") == 0) m->thresholds[c] = e->o->fixed_threshold;
    if (strcmp(e->threshold_where, "calibration") == 0 && m->scorer->calibrators)
        m->thresholds[c] = m->scorer->calibrators[c].threshold;
    if (strcmp(e->threshold_where, "validation") != 0) return RADZ_OK;
    take_column(e, m, rows, n, c, col);
    RZ_TRY(rz_rank(e->host, col->scores, col->truth, col->n, &r, err));
    m->thresholds[c] = rz_find_threshold(&r, e->rule);
    rz_ranked_free(&r);
    return RADZ_OK;
}

static radz_status use_validation(rz_eval *e, rz_eval_method *m, const size_t *rows, size_t n, column *col,
                                  radz_error *err)
{
    const size_t n_classes = e->data.n_classes;
    m->thresholds = rz_calloc(e->host, n_classes, sizeof(double));
    if (!m->thresholds) return RZ_NO_MEMORY(err, "thresholds");
    if (e->calibrate && !rz_score_is_answer(m->scorer->kind)) {
        m->scorer->calibrators = rz_calloc(e->host, n_classes, sizeof(rz_calibrator));
        if (!m->scorer->calibrators) return RZ_NO_MEMORY(err, "calibration");
        m->scorer->calibration = e->calibrate;
        for (size_t c = 0; c < n_classes; c++) RZ_TRY(calibrate_class(e, m, rows, n, c, col, err));
    }
    for (size_t c = 0; c < n_classes; c++) RZ_TRY(set_threshold(e, m, rows, n, c, col, err));
    return RADZ_OK;
}

/* ---- Tables ---- */

static const char *note_of(const radz_metrics *m, double threshold)
{
    if (!m->n_positive && !m->n_negative) return "no film of this set says whether it is there";
    if (!m->n_positive) return "no positive film: AUC is undefined";
    if (!m->n_negative) return "no negative film: AUC is undefined";
    return isnan(threshold) ? "no threshold: the validation films lack one outcome" : NULL;
}

typedef struct table_work {
    rz_ranked *ranked; /* (n_classes) */
    double *thresholds;
    radz_metrics *points, *low, *high; /* (n_classes + 1) */
    size_t *groups;                    /* patients, by number */
    column col;
} table_work;

static radz_status measure_class(const rz_eval *e, const rz_eval_method *m, rz_eval_table *t, table_work *w, size_t c,
                                 radz_error *err)
{
    radz_metrics_options o = {sizeof o, 0, e->o->strict, e->o->both_classes, e->o->n_bins, 0, 0, 0};
    take_column(e, m, t->rows, t->n_films, c, &w->col);
    RZ_TRY(rz_rank(e->host, w->col.scores, w->col.truth, w->col.n, &w->ranked[c], err));
    const bool chosen_here = strcmp(e->threshold_where, "test") == 0 && !rz_score_is_answer(m->scorer->kind);
    o.threshold = chosen_here ? rz_find_threshold(&w->ranked[c], e->rule) : m->thresholds[c];
    w->thresholds[c] = o.threshold;
    rz_measure(&w->ranked[c], NULL, &o, &t->cells[c].m);
    t->cells[c].note = note_of(&t->cells[c].m, o.threshold);
    return RADZ_OK;
}

static void macro_of(const rz_eval *e, rz_eval_table *t, table_work *w)
{
    size_t n = 0;
    for (size_t c = 0; c < e->data.n_classes; c++)
        if (e->in_macro[c]) w->points[n++] = t->cells[c].m;
    rz_macro(w->points, n, &t->cells[e->data.n_classes].m, &t->n_defined);
    for (size_t c = 0; c < e->data.n_classes; c++) {
        const radz_metrics *m = &t->cells[c].m;
        if (e->in_macro[c] && m->n_positive && m->n_negative && isnan(w->thresholds[c]))
            t->cells[e->data.n_classes].note =
                "figures at thresholds are undefined, as a class has none: the validation "
                "films lack one of its outcomes";
    }
    if (!t->n_defined) t->cells[e->data.n_classes].note = "no class has both outcomes";
}

static radz_status intervals(const rz_eval *e, const rz_eval_method *m, rz_eval_table *t, table_work *w,
                             radz_error *err)
{
    radz_metrics_options o = {
        sizeof o, 0, e->o->strict, e->o->both_classes, e->o->n_bins, e->o->n_rounds, e->o->confidence, e->o->seed};
    rz_bootstrap b = {.host = e->host,
                      .pool = rz_device_pool(m->arm->of.net->model->dev),
                      .ranked = w->ranked,
                      .thresholds = w->thresholds,
                      .in_macro = e->in_macro,
                      .n_classes = e->data.n_classes,
                      .groups = w->groups,
                      .n_films = t->n_films,
                      .n_groups = t->n_patients,
                      .options = &o};
    if (!o.n_rounds) return RADZ_OK;
    RZ_TRY(rz_bootstrap_run(&b, w->low, w->high, e->n_methods > 1 ? &t->rounds : NULL, err));
    for (size_t c = 0; c <= e->data.n_classes; c++) t->cells[c].low = w->low[c], t->cells[c].high = w->high[c];
    return RADZ_OK;
}

static radz_status fill_table(const rz_eval *e, const rz_eval_method *m, rz_eval_table *t, table_work *w,
                              radz_error *err)
{
    for (size_t i = 0; i < t->n_films; i++) w->groups[i] = e->data.rows[t->rows[i]].patient;
    RZ_TRY(rz_number_groups(e->host, w->groups, t->n_films, w->groups, &t->n_patients, err));
    for (size_t c = 0; c < e->data.n_classes; c++) RZ_TRY(measure_class(e, m, t, w, c, err));
    macro_of(e, t, w);
    return intervals(e, m, t, w, err);
}

static radz_status open_table(const rz_eval *e, size_t set, rz_eval_table *t, radz_error *err)
{
    t->set = set == RZ_EVAL_NONE ? NULL : e->data.sets.items[set];
    t->cells = rz_calloc(e->host, e->data.n_classes + 1, sizeof *t->cells);
    t->rows = rz_calloc(e->host, e->data.n, sizeof *t->rows);
    if (!t->cells || !t->rows) return RZ_NO_MEMORY(err, "table");
    for (size_t i = 0; i < e->data.n; i++)
        if (!e->data.rows[i].validation && e->films.state[i] == RZ_FILM_DONE &&
            (set == RZ_EVAL_NONE || e->data.rows[i].set == set))
            t->rows[t->n_films++] = i;
    for (size_t c = 0; c <= e->data.n_classes; c++)
        for (int k = 0; k < 2; k++) {
            radz_metrics *x = k ? &t->cells[c].low : &t->cells[c].high;
            x->auc = x->auprc = x->f1 = x->accuracy = x->mcc = x->sensitivity = x->specificity = NAN;
            x->precision = x->brier = x->ece = NAN;
        }
    return RADZ_OK;
}

static radz_status run_table(const rz_eval *e, const rz_eval_method *m, rz_eval_table *t, radz_error *err)
{
    const size_t n = e->data.n_classes;
    table_work w = {0};
    w.ranked = rz_calloc(e->host, n, sizeof *w.ranked);
    w.thresholds = rz_calloc(e->host, n, sizeof *w.thresholds);
    w.points = rz_calloc(e->host, n + 1, sizeof *w.points);
    w.low = rz_calloc(e->host, n + 1, sizeof *w.low);
    w.high = rz_calloc(e->host, n + 1, sizeof *w.high);
    w.groups = rz_calloc(e->host, t->n_films, sizeof *w.groups);
    bool good = w.ranked && w.thresholds && w.points && w.low && w.high && w.groups;
    radz_status status = good ? open_column(e->host, t->n_films, &w.col, err) : RZ_NO_MEMORY(err, "table");
    if (!status) status = fill_table(e, m, t, &w, err);
    for (size_t c = 0; w.ranked && c < n; c++) rz_ranked_free(&w.ranked[c]);
    close_column(e->host, &w.col);
    rz_free(e->host, w.ranked);
    rz_free(e->host, w.thresholds);
    rz_free(e->host, w.points);
    rz_free(e->host, w.low);
    rz_free(e->host, w.high);
    rz_free(e->host, w.groups);
    return status;
}

static radz_status make_tables(const rz_eval *e, rz_eval_method *m, radz_error *err)
{
    m->tables = rz_calloc(e->host, e->data.sets.n + 1, sizeof *m->tables);
    if (!m->tables) return RZ_NO_MEMORY(err, "tables");
    for (size_t set = 0; set <= e->data.sets.n; set++) {
        bool all = set == e->data.sets.n;
        if (!all && e->data.sets.n == 1) continue;
        rz_eval_table *t = &m->tables[m->n_tables++];
        RZ_TRY(open_table(e, all ? RZ_EVAL_NONE : set, t, err));
        RZ_TRY(run_table(e, m, t, err));
    }
    return RADZ_OK;
}

static radz_status run_method(rz_eval *e, rz_eval_method *m, radz_error *err)
{
    column col = {0};
    size_t *rows = rz_calloc(e->host, e->data.n, sizeof *rows), n = 0;
    for (size_t i = 0; rows && i < e->data.n; i++)
        if (e->data.rows[i].validation && e->films.state[i] == RZ_FILM_DONE) rows[n++] = i;
    radz_status status = rows ? RADZ_OK : RZ_NO_MEMORY(err, "rows");
    if (!status) status = open_column(e->host, n, &col, err);
    if (!status) status = use_validation(e, m, rows, n, &col, err);
    close_column(e->host, &col);
    rz_free(e->host, rows);
    return status ? status : make_tables(e, m, err);
}

/* ---- All of it ---- */

static radz_status check_shards(const radz_eval_options *o, radz_error *err)
{
    if (o->n_shards < 0 || (o->n_shards && !o->merge && (o->shard < 1 || o->shard > o->n_shards)))
        return rz_fail(err, RADZ_E_ARGUMENT, "shard: expected 1..n_shards");
    if (o->merge && !o->n_shards) return rz_fail(err, RADZ_E_ARGUMENT, "merge: expected the number of shards");
    if (o->n_shards && o->cache_dir && !*o->cache_dir)
        return rz_fail(err, RADZ_E_ARGUMENT, "shard: shards meet in the cache: expected a cache_dir");
    return RADZ_OK;
}

radz_status rz_eval_tell(const rz_eval *e, const char *stage, size_t done, size_t n, radz_error *err)
{
    const radz_eval_progress p = {.struct_size = sizeof p,
                                  .n_done = e->films.n * e->n_arms,
                                  .n_films = e->films.n * e->n_arms,
                                  .n_failed = e->films.n_failed,
                                  .n_cached = e->films.n_cached,
                                  .seconds_left = NAN,
                                  .stage = stage,
                                  .stage_done = done,
                                  .stage_n = n};
    if (!e->o->progress_fn || !e->o->progress_fn(&p, e->o->user)) return RADZ_OK;
    return rz_fail(err, RADZ_E_CANCELLED, "radz_evaluate: cancelled after %zu of %zu %s", done, n, stage);
}

/* One name, one model: rows of the report are told apart by it. Classes are the same in the same order, or a column of
 * the truth would mean two things. */
static radz_status check_models(const rz_eval_model *models, size_t n, radz_error *err)
{
    const rz_bank *first = models[0].bank;
    for (size_t i = 0; i < n; i++) {
        const rz_bank *bank = models[i].bank;
        RZ_TRY(rz_bank_require_model(bank, models[i].net->model, err));
        for (size_t k = 0; k < i; k++)
            if (strcmp(models[k].name, models[i].name) == 0)
                return rz_fail(err, RADZ_E_ARGUMENT, "two models are called %s: expected a name for each",
                               models[i].name);
        bool same = bank->n == first->n && bank->reference == first->reference;
        for (size_t c = 0; same && c < bank->n; c++) same = strcmp(bank->labels[c], first->labels[c]) == 0;
        if (!same)
            return rz_fail(err, RADZ_E_MISMATCH, "model %s: its bank has other classes than that of %s", models[i].name,
                           models[0].name);
    }
    return RADZ_OK;
}

static radz_status open_arms(rz_eval *e, const rz_eval_model *models, size_t n, radz_error *err)
{
    e->arms = rz_calloc(e->host, n, sizeof *e->arms);
    if (!e->arms) return RZ_NO_MEMORY(err, "models");
    e->n_arms = n;
    for (size_t i = 0; i < n; i++) e->arms[i].e = e, e->arms[i].of = models[i];
    if (!(e->in_macro = rz_calloc(e->host, e->bank->n, 1))) return RZ_NO_MEMORY(err, "classes");
    for (size_t c = 0; c < e->bank->n; c++)
        e->in_macro[c] = e->o->macro_reference || c != e->bank->reference || e->bank->n == 1;
    return RADZ_OK;
}

/* The films of a shard, seen by every model, or of all shards. */
static radz_status run_shard(rz_eval *e, radz_error *err)
{
    const rz_eval_wanted **wanted = rz_calloc(e->host, e->n_arms, sizeof *wanted);
    radz_status status = wanted ? RADZ_OK : RZ_NO_MEMORY(err, "shard");
    for (size_t i = 0; i < e->n_arms && wanted; i++) wanted[i] = &e->arms[i].wanted;
    for (size_t i = 0; i < e->n_arms && !status && !e->o->merge; i++) {
        e->films.pass = i;
        status = rz_eval_films_run(e->arms[i].of.net, e->o, &e->data, wanted[i], NULL, &e->films, err);
    }
    if (!status)
        status = e->o->merge ? rz_eval_shards_list(wanted, e->n_arms, e->o, &e->data, &e->films, err)
                             : rz_eval_shard_save(&e->films, wanted, e->n_arms, e->o, &e->data, err);
    rz_free(e->host, (void *)wanted);
    return status;
}

static radz_status measure(rz_eval *e, radz_error *err)
{
    RZ_TRY(rz_eval_score(e, err));
    for (size_t i = 0; i < e->n_methods; i++) {
        RZ_TRY(rz_eval_tell(e, "figures", i, e->n_methods, err));
        RZ_TRY(run_method(e, &e->methods[i], err));
        RZ_TRY(rz_eval_compare(e, i, err));
    }
    for (size_t i = 0; i < e->n_arms; i++) RZ_TRY(rz_eval_boxes_run(e, &e->arms[i], err));
    return rz_eval_write(e, err);
}

static radz_status evaluate(rz_eval *e, const rz_eval_model *models, size_t n, radz_error *err)
{
    const radz_eval_options *o = e->o;
    RZ_TRY(check_shards(o, err));
    RZ_TRY(open_arms(e, models, n, err));
    RZ_TRY(rz_eval_data_open(e->host, o, e->bank, &e->data, err));
    RZ_TRY(pick_threshold(e, err));
    RZ_TRY(pick_calibration(e, err));
    RZ_TRY(rz_eval_methods_open(e, err));
    RZ_TRY(rz_mkdir_p(o->out_dir, err));
    RZ_TRY(rz_eval_films_open(e->host, e->data.n, &e->films, err));
    e->films.n_passes = n;
    if (o->n_shards) RZ_TRY(run_shard(e, err));
    return o->n_shards && !o->merge ? RADZ_OK : measure(e, err);
}

static void close_eval(rz_eval *e)
{
    rz_eval_methods_close(e);
    for (size_t i = 0; i < e->n_arms; i++) rz_eval_boxes_close(e->host, &e->arms[i].boxes);
    rz_free(e->host, e->arms);
    rz_free(e->host, e->in_macro);
    rz_eval_films_close(&e->films);
    rz_eval_data_close(&e->data);
}

radz_status rz_evaluate(const rz_eval_model *models, size_t n, const radz_eval_options *o, radz_error *err)
{
    RZ_TRY(check_models(models, n, err));
    rz_eval e = {.host = models[0].bank->host, .bank = models[0].bank, .o = o};
    radz_status status = evaluate(&e, models, n, err);
    close_eval(&e);
    return status;
}
