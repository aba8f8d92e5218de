/* eval_method.c - which methods are run, and every film's scores by each of them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "describe.h"
#include "eval.h"

/* ---- What is asked for ---- */

static radz_status find_kind(const rz_eval *e, const char *name, size_t n, unsigned *kind, radz_error *err)
{
    const bool fused = e->net->model->cfg.radz.fused_score && e->o->score.score == RADZ_SCORE_IMG_ANCHOR;
    *kind = fused ? RADZ_SCORE_FUSED : e->o->score.score;
    if (n == 5 && strncmp(name, "embed", n) == 0) return RADZ_OK;
    for (*kind = 0; rz_score_name(*kind); ++*kind)
        if (strlen(rz_score_name(*kind)) == n && strncmp(rz_score_name(*kind), name, n) == 0) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT,
                   "method '%.*s': expected embed, img_anchor, img_text, fused, pos_neg_pair, hidden, likelihood, "
                   "likelihood_mean, options, cot or head",
                   (int)n, name);
}

/* The head's classes by the bank's; the reference class need not be there. */
static radz_status match_head(rz_eval *e, radz_error *err)
{
    const rz_config *cfg = &e->net->model->cfg;
    if (!cfg->radz.n_classes || !e->net->model->classifier.w)
        return rz_fail(err, RADZ_E_MISMATCH, "the model has no linear head: see radz-train --objective classify");
    e->head_class = rz_calloc(e->host, e->bank->n, sizeof *e->head_class);
    if (!e->head_class) return RZ_NO_MEMORY(err, "classes of the head");
    for (size_t c = 0; c < e->bank->n; c++) {
        e->head_class[c] = RZ_EVAL_NONE;
        for (size_t h = 0; h < cfg->radz.n_classes; h++)
            if (strcmp(cfg->radz.classes[h], e->bank->labels[c]) == 0) e->head_class[c] = h;
        if (e->head_class[c] == RZ_EVAL_NONE && c != e->bank->reference)
            return rz_fail(err, RADZ_E_MISMATCH, "the model's linear head has no class %s", e->bank->labels[c]);
    }
    return RADZ_OK;
}

/* Can this model run it at all? */
static radz_status check_kind(rz_eval *e, unsigned kind, radz_error *err)
{
    if (kind == RZ_SCORE_HEAD) return match_head(e, err);
    if (rz_score_is_answer(kind)) return rz_check_writing(e->net, err);
    return rz_model_require_texts(e->net->model, err);
}

static radz_status open_scorer(const rz_eval *e, unsigned kind, rz_scorer **out, radz_error *err)
{
    radz_score_options o = e->o->score;
    if (kind > RADZ_SCORE_HIDDEN) return rz_scorer_open_given(e->net, e->bank, kind, &o, out, err);
    o.score = (radz_score_kind)kind;
    if (kind == RADZ_SCORE_HIDDEN) o.feature = RADZ_SCORE_GLOBAL;
    if (kind != RADZ_SCORE_POS_NEG) o.n_negatives = 0;
    RZ_TRY(rz_scorer_open(e->net, e->bank, &o, out, err));
    if (strcmp(e->o->calibrate, "none") != 0) rz_scorer_uncalibrate(*out); /* the bank's: it is fitted anew */
    return RADZ_OK;
}

static radz_status leave_out(rz_eval *e, unsigned kind, const radz_error *why, radz_error *err)
{
    rz_eval_absent *a = &e->absent[e->n_absent++];
    a->name = rz_strdup(e->host, rz_score_name(kind));
    a->why = rz_strdup(e->host, why->message);
    return a->name && a->why ? RADZ_OK : RZ_NO_MEMORY(err, "methods");
}

static radz_status open_method(rz_eval *e, unsigned kind, radz_error *err)
{
    rz_eval_method *m = &e->methods[e->n_methods];
    radz_error why;
    for (size_t i = 0; i < e->n_methods; i++)
        if (e->methods[i].scorer->kind == kind)
            return rz_fail(err, RADZ_E_ARGUMENT, "method %s comes twice", rz_score_name(kind));
    radz_status status = check_kind(e, kind, &why);
    if (status == RADZ_E_MISMATCH && e->o->leave_out) return leave_out(e, kind, &why, err);
    if (status) return rz_fail(err, status, "method %s: %s", rz_score_name(kind), why.message);
    RZ_TRY(open_scorer(e, kind, &m->scorer, err));
    m->name = rz_score_name(kind);
    e->n_methods++;
    return RADZ_OK;
}

/* What a method reads of a film. */
static unsigned kinds_of(const rz_scorer *s)
{
    static const int by_score[RZ_SCORE_KINDS] = {[RADZ_SCORE_HIDDEN] = RZ_VALUE_HIDDEN,
                                                 [RZ_SCORE_LIKELIHOOD] = RZ_VALUE_LIKELIHOOD,
                                                 [RZ_SCORE_LIKELIHOOD_MEAN] = RZ_VALUE_LIKELIHOOD,
                                                 [RZ_SCORE_OPTIONS] = RZ_VALUE_OPTIONS,
                                                 [RZ_SCORE_COT] = RZ_VALUE_COT,
                                                 [RZ_SCORE_HEAD] = RZ_VALUE_HEAD};
    if (s->kind >= RADZ_SCORE_HIDDEN) return 1u << by_score[s->kind];
    return (rz_scorer_needs_global(s) ? 1u << RZ_VALUE_GLOBAL : 0) |
           (rz_scorer_needs_local(s) ? 1u << RZ_VALUE_LOCAL : 0);
}

static radz_status open_all(rz_eval *e, radz_error *err)
{
    for (const char *s = e->o->methods;;) {
        size_t len = strcspn(s, ",");
        unsigned kind;
        RZ_TRY(find_kind(e, s, len, &kind, err));
        RZ_TRY(open_method(e, kind, err));
        if (!s[len]) break;
        s += len + 1;
    }
    if (e->n_methods) return RADZ_OK;
    return rz_fail(err, RADZ_E_MISMATCH, "this model can run none of the methods: %s: %s", e->absent[0].name,
                   e->absent[0].why);
}

radz_status rz_eval_methods_open(rz_eval *e, radz_error *err)
{
    size_t n = 1;
    unsigned kinds = 0;
    for (const char *s = e->o->methods; *s; s++) n += *s == ',';
    e->methods = rz_calloc(e->host, n, sizeof *e->methods);
    e->absent = rz_calloc(e->host, n, sizeof *e->absent);
    if (!e->methods || !e->absent) return RZ_NO_MEMORY(err, "methods");
    RZ_TRY(open_all(e, err));
    for (size_t i = 0; i < e->n_methods; i++) kinds |= kinds_of(e->methods[i].scorer);
    return rz_eval_wanted_open(e->net->model, e->bank, e->o->writing, kinds, &e->wanted, err);
}

static void close_method(const rz_host *host, rz_eval_method *m)
{
    for (size_t t = 0; t < m->n_tables; t++) {
        rz_free(host, m->tables[t].cells);
        rz_free(host, m->tables[t].rows);
    }
    rz_free(host, m->tables);
    rz_free(host, m->probability);
    rz_free(host, m->similarity);
    rz_free(host, m->margin);
    rz_free(host, m->thresholds);
    rz_scorer_close(m->scorer);
}

void rz_eval_methods_close(rz_eval *e)
{
    for (size_t i = 0; i < e->n_methods; i++) close_method(e->host, &e->methods[i]);
    for (size_t i = 0; i < e->n_absent; i++) {
        rz_free(e->host, e->absent[i].name);
        rz_free(e->host, e->absent[i].why);
    }
    rz_free(e->host, e->methods);
    rz_free(e->host, e->absent);
    rz_free(e->host, e->head_class);
    rz_free(e->host, e->picture);
    rz_free(e->host, e->picture_rows);
    rz_free(e->host, e->in_picture);
    rz_str_free(&e->answers);
    rz_writer_abort(e->answers_file);
    rz_eval_wanted_close(&e->wanted);
}

/* ---- One film ---- */

static void take_logits(const rz_eval *e, const float *logits, rz_score *out)
{
    double top = -INFINITY;
    for (size_t c = 0; c < e->bank->n; c++) {
        if (e->head_class[c] == RZ_EVAL_NONE) continue;
        out[c].similarity = (double)logits[e->head_class[c]];
        if (out[c].similarity > top) top = out[c].similarity;
    }
    for (size_t c = 0; c < e->bank->n; c++) /* the reference: none of the others */
        if (e->head_class[c] == RZ_EVAL_NONE) out[c].similarity = -top;
}

static radz_status score_film(const rz_eval *e, const rz_eval_method *m, const rz_eval_values *v, rz_score *out,
                              radz_error *err)
{
    const rz_scorer *s = m->scorer;
    const size_t n = s->n;
    if (s->kind < RADZ_SCORE_HIDDEN) return rz_scorer_film(s, v->v[RZ_VALUE_GLOBAL], v->v[RZ_VALUE_LOCAL], out, err);
    if (s->kind == RADZ_SCORE_HIDDEN) return rz_scorer_film(s, v->v[RZ_VALUE_HIDDEN], NULL, out, err);
    if (s->kind == RZ_SCORE_HEAD) {
        take_logits(e, v->v[RZ_VALUE_HEAD], out);
        return rz_scorer_given(s, out, err);
    }
    const float *x = v->v[s->kind == RZ_SCORE_OPTIONS ? RZ_VALUE_OPTIONS
                          : s->kind == RZ_SCORE_COT   ? RZ_VALUE_COT
                                                      : RZ_VALUE_LIKELIHOOD];
    for (size_t c = 0; c < n; c++) {
        out[c].similarity = (double)x[c];
        if (s->kind == RZ_SCORE_LIKELIHOOD_MEAN) out[c].similarity /= (double)x[n + c];
    }
    return rz_scorer_given(s, out, err);
}

/* Answers go to their file as they come: they are too long to be kept. */
static radz_status put_answers(rz_eval *e, size_t row, const rz_eval_values *v, radz_error *err)
{
    rz_str *s = &e->answers;
    for (int k = RZ_VALUE_OPTIONS; k < RZ_VALUE_KINDS && e->answers_file; k++) {
        if (!(e->wanted.kinds >> k & 1)) continue;
        rz_str_printf(s, "%s,%zu,", k == RZ_VALUE_COT ? "cot" : "options", e->data.rows[row].line);
        rz_eval_put_csv_text(s, e->data.rows[row].shown);
        rz_str_printf(s, ",%s,", v->sha256);
        rz_eval_put_csv_text(s, v->text[k].data ? v->text[k].data : "");
        rz_str_puts(s, "\r\n");
    }
    if (s->failed) return RZ_NO_MEMORY(err, "answers");
    if (s->len < 1 << 16) return RADZ_OK;
    const size_t n = s->len;
    s->len = 0;
    return rz_writer_put(e->answers_file, s->data, n, err);
}

static radz_status take_film(void *arg, size_t row, const rz_eval_values *v, radz_error *err)
{
    rz_eval *e = arg;
    const size_t n = e->bank->n;
    rz_score *out = rz_calloc(e->host, n, sizeof *out);
    radz_status status = out ? RADZ_OK : RZ_NO_MEMORY(err, "scores");
    for (size_t i = 0; i < e->n_methods && !status; i++) {
        rz_eval_method *m = &e->methods[i];
        status = score_film(e, m, v, out, err);
        for (size_t c = 0; c < n && !status; c++) {
            m->margin[row * n + c] = out[c].margin;
            m->probability[row * n + c] = out[c].probability;
            if (m->similarity) m->similarity[row * n + c] = out[c].similarity;
        }
    }
    rz_free(e->host, out);
    if (e->in_picture && e->in_picture[row]) {
        const size_t dim = e->wanted.dim[e->picture_kind];
        memcpy(e->picture + e->n_picture * dim, v->v[e->picture_kind], dim * sizeof(float));
        e->picture_rows[e->n_picture++] = row;
    }
    return status ? status : put_answers(e, row, v, err);
}

/* ---- All of them ---- */

static radz_status open_scores(const rz_eval *e, rz_eval_method *m, radz_error *err)
{
    size_t all;
    if (!rz_size_mul(e->data.n, e->bank->n, &all)) return rz_fail(err, RADZ_E_LIMIT, "too many films and classes");
    m->probability = rz_calloc(e->host, all, sizeof(double));
    m->margin = rz_calloc(e->host, all, sizeof(double));
    if (e->o->write_scores) m->similarity = rz_calloc(e->host, all, sizeof(double));
    if (!m->probability || !m->margin || (e->o->write_scores && !m->similarity)) return RZ_NO_MEMORY(err, "scores");
    for (size_t i = 0; i < all; i++) {
        m->probability[i] = m->margin[i] = NAN;
        if (m->similarity) m->similarity[i] = NAN;
    }
    return RADZ_OK;
}

/* Evenly over the films that are evaluated: the same ones in one piece and in shards. */
static radz_status open_picture(rz_eval *e, radz_error *err)
{
    const size_t all = e->data.n_evaluated, n = all < e->o->n_tsne ? all : e->o->n_tsne;
    e->picture_kind = RZ_VALUE_GLOBAL;
    while (e->picture_kind <= RZ_VALUE_HIDDEN && !(e->wanted.kinds >> e->picture_kind & 1)) e->picture_kind++;
    if (e->picture_kind > RZ_VALUE_HIDDEN || n < 3) return RADZ_OK;
    e->in_picture = rz_calloc(e->host, e->data.n, 1);
    e->picture_rows = rz_calloc(e->host, n, sizeof *e->picture_rows);
    e->picture = rz_calloc(e->host, n, e->wanted.dim[e->picture_kind] * sizeof(float));
    if (!e->in_picture || !e->picture_rows || !e->picture) return RZ_NO_MEMORY(err, "t-SNE");
    for (size_t i = 0, seen = 0, taken = 0; i < e->data.n && taken < n; i++) {
        if (e->data.rows[i].validation || seen++ != taken * all / n) continue;
        e->in_picture[i] = 1;
        taken++;
    }
    return RADZ_OK;
}

static radz_status open_answers(rz_eval *e, radz_error *err)
{
    e->answers.host = e->host;
    if (!(e->wanted.kinds >> RZ_VALUE_OPTIONS)) return RADZ_OK;
    char *path = rz_path_join(e->host, e->o->out_dir, "answers.csv");
    radz_status status =
        path ? rz_writer_open(e->host, path, &e->answers_file, err) : RZ_NO_MEMORY(err, "path of the answers");
    rz_free(e->host, path);
    rz_str_puts(&e->answers, "method,line,path,sha256,answer\r\n");
    return status;
}

static radz_status close_answers(rz_eval *e, radz_error *err)
{
    if (!e->answers_file) return RADZ_OK;
    RZ_TRY(rz_writer_put(e->answers_file, e->answers.data, e->answers.len, err));
    rz_writer *w = e->answers_file;
    e->answers_file = NULL;
    return rz_writer_commit(w, err);
}

radz_status rz_eval_score(rz_eval *e, radz_error *err)
{
    const rz_eval_taker taker = {take_film, e};
    for (size_t i = 0; i < e->n_methods; i++) RZ_TRY(open_scores(e, &e->methods[i], err));
    RZ_TRY(open_picture(e, err));
    RZ_TRY(open_answers(e, err));
    if (e->o->merge)
        RZ_TRY(rz_eval_shards_load(&e->wanted, e->o, &e->data, &taker, &e->films, err));
    else
        RZ_TRY(rz_eval_films_run(e->net, e->o, &e->data, &e->wanted, &taker, &e->films, err));
    return close_answers(e, err);
}
