/* eval_method.c - which methods are run, and every film's scores by each of them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "describe.h"
#include "eval.h"

/* ---- What is asked for ---- */

static radz_status find_kind(const rz_eval_arm *arm, const char *name, size_t n, unsigned *kind, radz_error *err)
{
    const unsigned own = arm->e->o->score.score;
    const bool fused = arm->of.net->model->cfg.radz.fused_score && own == RADZ_SCORE_IMG_ANCHOR;
    *kind = fused ? RADZ_SCORE_FUSED : own;
    if (n == 5 && strncmp(name, "embed", n) == 0) return RADZ_OK;
    for (*kind = 0; rz_score_name(*kind); ++*kind)
        if (strlen(rz_score_name(*kind)) == n && strncmp(rz_score_name(*kind), name, n) == 0) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT,
                   "method '%.*s': expected embed, img_anchor, img_text, fused, pos_neg_pair, hidden, likelihood, "
                   "likelihood_mean, options, cot or head",
                   (int)n, name);
}

/* The head's classes by the bank's; the reference class need not be there. */
static radz_status match_head(rz_eval_arm *arm, radz_error *err)
{
    const rz_model *m = arm->of.net->model;
    const rz_bank *bank = arm->of.bank;
    if (!m->cfg.radz.n_classes || !m->classifier.w)
        return rz_fail(err, RADZ_E_MISMATCH, "the model has no linear head: see radz-train --objective classify");
    arm->head_class = rz_calloc(bank->host, bank->n, sizeof *arm->head_class);
    if (!arm->head_class) return RZ_NO_MEMORY(err, "classes of the head");
    for (size_t c = 0; c < bank->n; c++) {
        arm->head_class[c] = RZ_EVAL_NONE;
        for (size_t h = 0; h < m->cfg.radz.n_classes; h++)
            if (strcmp(m->cfg.radz.classes[h], bank->labels[c]) == 0) arm->head_class[c] = h;
        if (arm->head_class[c] == RZ_EVAL_NONE && c != bank->reference)
            return rz_fail(err, RADZ_E_MISMATCH, "the model's linear head has no class %s", bank->labels[c]);
    }
    return RADZ_OK;
}

/* Can this model run it at all? */
static radz_status check_kind(rz_eval_arm *arm, unsigned kind, radz_error *err)
{
    if (kind == RZ_SCORE_HEAD) return match_head(arm, err);
    if (rz_score_is_answer(kind)) return rz_check_writing(arm->of.net, err);
    return rz_model_require_texts(arm->of.net->model, err);
}

static radz_status open_scorer(const rz_eval_arm *arm, unsigned kind, rz_scorer **out, radz_error *err)
{
    radz_score_options o = arm->e->o->score;
    if (kind > RADZ_SCORE_HIDDEN) return rz_scorer_open_given(arm->of.net, arm->of.bank, kind, &o, out, err);
    o.score = (radz_score_kind)kind;
    if (kind == RADZ_SCORE_HIDDEN) o.feature = RADZ_SCORE_GLOBAL;
    if (kind != RADZ_SCORE_POS_NEG) o.n_negatives = 0;
    RZ_TRY(rz_scorer_open(arm->of.net, arm->of.bank, &o, out, err));
    if (strcmp(arm->e->o->calibrate, "none") != 0) rz_scorer_uncalibrate(*out); /* the bank's: it is fitted anew */
    return RADZ_OK;
}

static radz_status leave_out(rz_eval_arm *arm, unsigned kind, const radz_error *why, radz_error *err)
{
    rz_eval *e = arm->e;
    rz_eval_absent *a = &e->absent[e->n_absent++];
    a->arm = arm;
    a->name = rz_strdup(e->host, rz_score_name(kind));
    a->why = rz_strdup(e->host, why->message);
    return a->name && a->why ? RADZ_OK : RZ_NO_MEMORY(err, "methods");
}

static radz_status open_method(rz_eval_arm *arm, unsigned kind, radz_error *err)
{
    rz_eval *e = arm->e;
    rz_eval_method *m = &e->methods[e->n_methods];
    radz_error why;
    for (size_t i = arm->first_method; i < e->n_methods; i++)
        if (e->methods[i].scorer->kind == kind)
            return rz_fail(err, RADZ_E_ARGUMENT, "method %s comes twice", rz_score_name(kind));
    radz_status status = check_kind(arm, kind, &why);
    if (status == RADZ_E_MISMATCH && e->o->leave_out) return leave_out(arm, kind, &why, err);
    if (status) return rz_fail(err, status, "method %s: %s", rz_score_name(kind), why.message);
    RZ_TRY(open_scorer(arm, kind, &m->scorer, err));
    m->name = rz_score_name(kind);
    m->arm = arm;
    e->n_methods++, arm->n_methods++;
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

static radz_status open_arm(rz_eval_arm *arm, radz_error *err)
{
    const rz_eval *e = arm->e;
    unsigned kinds = 0;
    arm->first_method = e->n_methods;
    for (const char *s = e->o->methods;;) {
        size_t len = strcspn(s, ",");
        unsigned kind;
        RZ_TRY(find_kind(arm, s, len, &kind, err));
        RZ_TRY(open_method(arm, kind, err));
        if (!s[len]) break;
        s += len + 1;
    }
    if (!arm->n_methods) {
        const rz_eval_absent *a = &e->absent[e->n_absent - 1];
        return rz_fail(err, RADZ_E_MISMATCH, "model %s can run none of the methods: %s: %s", arm->of.name, a->name,
                       a->why);
    }
    for (size_t i = 0; i < arm->n_methods; i++) kinds |= kinds_of(e->methods[arm->first_method + i].scorer);
    return rz_eval_wanted_open(arm->of.net->model, arm->of.bank, e->o->writing, kinds, &arm->wanted, err);
}

radz_status rz_eval_methods_open(rz_eval *e, radz_error *err)
{
    size_t n = 1;
    for (const char *s = e->o->methods; *s; s++) n += *s == ',';
    e->methods = rz_calloc(e->host, n, e->n_arms * sizeof *e->methods);
    e->absent = rz_calloc(e->host, n, e->n_arms * sizeof *e->absent);
    if (!e->methods || !e->absent) return RZ_NO_MEMORY(err, "methods");
    for (size_t i = 0; i < e->n_arms; i++) RZ_TRY(open_arm(&e->arms[i], err));
    return RADZ_OK;
}

static void close_method(const rz_host *host, rz_eval_method *m)
{
    for (size_t t = 0; t < m->n_tables; t++) {
        rz_free(host, m->tables[t].cells);
        rz_free(host, m->tables[t].rows);
        rz_free(host, m->tables[t].macro);
        rz_free(host, m->tables[t].auc);
        rz_rounds_free(&m->tables[t].rounds);
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
    for (size_t i = 0; i < e->n_arms; i++) {
        rz_eval_arm *arm = &e->arms[i];
        rz_free(e->host, arm->head_class);
        rz_free(e->host, arm->picture);
        rz_free(e->host, arm->picture_rows);
        rz_free(e->host, arm->in_picture);
        rz_eval_wanted_close(&arm->wanted);
    }
    rz_str_free(&e->answers);
    rz_writer_abort(e->answers_file);
}

/* ---- One film ---- */

static void take_logits(const rz_eval_arm *arm, const float *logits, rz_score *out)
{
    const size_t n = arm->of.bank->n;
    double top = -INFINITY;
    for (size_t c = 0; c < n; c++) {
        if (arm->head_class[c] == RZ_EVAL_NONE) continue;
        out[c].similarity = (double)logits[arm->head_class[c]];
        if (out[c].similarity > top) top = out[c].similarity;
    }
    for (size_t c = 0; c < n; c++) /* the reference: none of the others */
        if (arm->head_class[c] == RZ_EVAL_NONE) out[c].similarity = -top;
}

static radz_status score_film(const rz_eval_method *m, const rz_eval_values *v, rz_score *out, radz_error *err)
{
    const rz_scorer *s = m->scorer;
    const size_t n = s->n;
    if (s->kind < RADZ_SCORE_HIDDEN) return rz_scorer_film(s, v->v[RZ_VALUE_GLOBAL], v->v[RZ_VALUE_LOCAL], out, err);
    if (s->kind == RADZ_SCORE_HIDDEN) return rz_scorer_film(s, v->v[RZ_VALUE_HIDDEN], NULL, out, err);
    if (s->kind == RZ_SCORE_HEAD) {
        take_logits(m->arm, v->v[RZ_VALUE_HEAD], out);
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
static radz_status put_answers(const rz_eval_arm *arm, size_t row, const rz_eval_values *v, radz_error *err)
{
    rz_eval *e = arm->e;
    rz_str *s = &e->answers;
    for (int k = RZ_VALUE_OPTIONS; k < RZ_VALUE_KINDS && e->answers_file; k++) {
        if (!(arm->wanted.kinds >> k & 1)) continue;
        rz_eval_put_csv_text(s, arm->of.name);
        rz_str_printf(s, ",%s,%zu,", k == RZ_VALUE_COT ? "cot" : "options", e->data.rows[row].line);
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
    rz_eval_arm *arm = arg;
    const rz_eval *e = arm->e;
    const size_t n = arm->of.bank->n;
    rz_score *out = rz_calloc(e->host, n, sizeof *out);
    radz_status status = out ? RADZ_OK : RZ_NO_MEMORY(err, "scores");
    for (size_t i = 0; i < arm->n_methods && !status; i++) {
        rz_eval_method *m = &e->methods[arm->first_method + i];
        status = score_film(m, v, out, err);
        for (size_t c = 0; c < n && !status; c++) {
            m->margin[row * n + c] = out[c].margin;
            m->probability[row * n + c] = out[c].probability;
            if (m->similarity) m->similarity[row * n + c] = out[c].similarity;
        }
    }
    rz_free(e->host, out);
    if (arm->in_picture && arm->in_picture[row]) {
        const size_t dim = arm->wanted.dim[arm->picture_kind];
        memcpy(arm->picture + arm->n_picture * dim, v->v[arm->picture_kind], dim * sizeof(float));
        arm->picture_rows[arm->n_picture++] = row;
    }
    return status ? status : put_answers(arm, row, v, err);
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
static radz_status open_picture(rz_eval_arm *arm, radz_error *err)
{
    const rz_eval *e = arm->e;
    const size_t all = e->data.n_evaluated, n = all < e->o->n_tsne ? all : e->o->n_tsne;
    arm->picture_kind = RZ_VALUE_GLOBAL;
    while (arm->picture_kind <= RZ_VALUE_HIDDEN && !(arm->wanted.kinds >> arm->picture_kind & 1)) arm->picture_kind++;
    if (arm->picture_kind > RZ_VALUE_HIDDEN || n < 3) return RADZ_OK;
    arm->in_picture = rz_calloc(e->host, e->data.n, 1);
    arm->picture_rows = rz_calloc(e->host, n, sizeof *arm->picture_rows);
    arm->picture = rz_calloc(e->host, n, arm->wanted.dim[arm->picture_kind] * sizeof(float));
    if (!arm->in_picture || !arm->picture_rows || !arm->picture) return RZ_NO_MEMORY(err, "t-SNE");
    for (size_t i = 0, seen = 0, taken = 0; i < e->data.n && taken < n; i++) {
        if (e->data.rows[i].validation || seen++ != taken * all / n) continue;
        arm->in_picture[i] = 1;
        taken++;
    }
    return RADZ_OK;
}

static radz_status open_answers(rz_eval *e, radz_error *err)
{
    bool any = false;
    e->answers.host = e->host;
    for (size_t i = 0; i < e->n_arms; i++) any = any || e->arms[i].wanted.kinds >> RZ_VALUE_OPTIONS;
    if (!any) return RADZ_OK;
    char *path = rz_path_join(e->host, e->o->out_dir, "answers.csv");
    radz_status status =
        path ? rz_writer_open(e->host, path, &e->answers_file, err) : RZ_NO_MEMORY(err, "path of the answers");
    rz_free(e->host, path);
    rz_str_puts(&e->answers, "model,method,line,path,sha256,answer\r\n");
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

static radz_status score_arm(rz_eval *e, rz_eval_arm *arm, radz_error *err)
{
    const rz_eval_taker taker = {take_film, arm};
    RZ_TRY(open_picture(arm, err));
    if (e->o->merge) return rz_eval_shards_take(&arm->wanted, e->o, &taker, &e->films, err);
    return rz_eval_films_run(arm->of.net, e->o, &e->data, &arm->wanted, &taker, &e->films, err);
}

radz_status rz_eval_score(rz_eval *e, radz_error *err)
{
    for (size_t i = 0; i < e->n_methods; i++) RZ_TRY(open_scores(e, &e->methods[i], err));
    RZ_TRY(open_answers(e, err));
    for (size_t i = 0; i < e->n_arms; i++) {
        e->films.pass = i;
        RZ_TRY(score_arm(e, &e->arms[i], err));
    }
    return close_answers(e, err);
}
