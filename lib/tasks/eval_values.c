/* eval_values.c - what a film is asked for: vectors, logits of the head, likelihoods, answers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "eval.h"

#define VERSION "1" /* of how questions are asked: another one leaves answers in caches alone */

static const char *const kind_names[RZ_VALUE_KINDS] = {"global",     "local",   "hidden", "head",
                                                       "likelihood", "options", "cot"};

/* ---- Wanted ---- */

static radz_status copy_labels(rz_eval_wanted *w, const rz_bank *bank, radz_error *err)
{
    w->labels = rz_calloc(w->host, bank->n, sizeof *w->labels);
    if (!w->labels) return RZ_NO_MEMORY(err, "names of the classes");
    w->n_classes = bank->n;
    for (size_t c = 0; c < bank->n; c++) {
        if (!(w->labels[c] = rz_strdup(w->host, bank->labels[c]))) return RZ_NO_MEMORY(err, "names of the classes");
        for (char *p = w->labels[c]; *p; p++)
            if (*p == '_') *p = ' ';
    }
    return RADZ_OK;
}

static void put_text(rz_str *s, const char *text)
{
    rz_str_puts(s, ",");
    rz_str_put_json(s, text ? text : "", text ? strlen(text) : 0);
}

/* Answers to another question are not these. */
static radz_status name_question(rz_eval_wanted *w, int kind, radz_error *err)
{
    const radz_method_options *o = &w->question[kind];
    rz_str s = {.host = w->host};
    rz_sha256 h;
    char hash[65];
    rz_str_printf(&s, "%s,%d,%d", VERSION, (int)o->method, rz_method_max_tokens(o));
    put_text(&s, rz_method_question(o));
    put_text(&s, o->method == RADZ_METHOD_LIKELIHOOD ? rz_method_prefix(o) : "");
    put_text(&s, o->chat_template);
    put_text(&s, o->system);
    for (size_t c = 0; c < w->n_classes; c++) put_text(&s, w->labels[c]);
    if (s.failed) {
        rz_str_free(&s);
        return RZ_NO_MEMORY(err, "question");
    }
    rz_sha256_init(&h);
    rz_sha256_put(&h, s.data, s.len);
    rz_sha256_hex(&h, hash);
    rz_str_free(&s);
    hash[24] = 0;
    memcpy(w->name[kind], kind_names[kind], strlen(kind_names[kind]));
    w->name[kind][strlen(kind_names[kind])] = '-';
    memcpy(w->name[kind] + strlen(kind_names[kind]) + 1, hash, 25);
    return RADZ_OK;
}

static radz_status open_questions(rz_eval_wanted *w, const rz_bank *bank, const radz_method_options *writing,
                                  radz_error *err)
{
    static const radz_method methods[] = {RADZ_METHOD_LIKELIHOOD, RADZ_METHOD_OPTIONS, RADZ_METHOD_COT};
    if (!(w->kinds >> RZ_VALUE_LIKELIHOOD)) return RADZ_OK;
    RZ_TRY(copy_labels(w, bank, err));
    for (int k = RZ_VALUE_LIKELIHOOD; k < RZ_VALUE_KINDS; k++) {
        if (!(w->kinds >> k & 1)) continue;
        w->question[k] = writing ? *writing : rz_method_defaults();
        w->question[k].method = methods[k - RZ_VALUE_LIKELIHOOD], w->question[k].per_token = 0;
        RZ_TRY(name_question(w, k, err));
    }
    return RADZ_OK;
}

radz_status rz_eval_wanted_open(const rz_model *m, const rz_bank *bank, const radz_method_options *writing,
                                unsigned kinds, rz_eval_wanted *out, radz_error *err)
{
    const size_t dims[RZ_VALUE_KINDS] = {
        m->cfg.radz.dim, m->cfg.radz.dim, m->cfg.text.hidden, m->cfg.radz.n_classes, 2 * bank->n, bank->n, bank->n};
    *out = (rz_eval_wanted){.host = m->cfg.host, .model = m, .kinds = kinds};
    for (int k = 0; k < RZ_VALUE_KINDS; k++) {
        out->dim[k] = dims[k];
        memcpy(out->name[k], kind_names[k], strlen(kind_names[k]));
    }
    radz_status status = open_questions(out, bank, writing, err);
    if (status) rz_eval_wanted_close(out);
    return status;
}

void rz_eval_wanted_close(rz_eval_wanted *w)
{
    for (size_t c = 0; w->labels && c < w->n_classes; c++) rz_free(w->host, w->labels[c]);
    rz_free(w->host, w->labels);
    *w = (rz_eval_wanted){0};
}

void rz_eval_device(const rz_model *m, char out[64])
{
    const char *name = rz_device_name(m->dev), *end = strrchr(name, ',');
    size_t n = end ? (size_t)(end - name) : strlen(name);
    n = n > 62 ? 62 : n;
    memcpy(out, name, n);
    if (end) out[n++] = ')';
    out[n] = 0;
}

/* ---- Of one film ---- */

radz_status rz_eval_values_open(const rz_eval_wanted *w, rz_eval_values *out, radz_error *err)
{
    *out = (rz_eval_values){0};
    for (int k = 0; k < RZ_VALUE_KINDS; k++) {
        out->text[k].host = w->host;
        if (!(w->kinds >> k & 1)) continue;
        if (!(out->v[k] = rz_calloc(w->host, w->dim[k], sizeof(float)))) {
            rz_eval_values_close(w->host, out);
            return RZ_NO_MEMORY(err, "numbers of a film");
        }
    }
    return RADZ_OK;
}

void rz_eval_values_close(const rz_host *host, rz_eval_values *v)
{
    for (int k = 0; k < RZ_VALUE_KINDS; k++) {
        rz_free(host, v->v[k]);
        rz_str_free(&v->text[k]);
    }
    *v = (rz_eval_values){0};
}

bool rz_eval_values_good(const rz_eval_wanted *w, const rz_eval_values *v, int kind)
{
    const float *x = v->v[kind];
    double sum = 0;
    for (size_t i = 0; i < w->dim[kind]; i++) {
        if (!isfinite(x[i])) return false;
        sum += (double)x[i] * x[i];
        if (kind == RZ_VALUE_LIKELIHOOD && i >= w->n_classes && !(x[i] >= 1)) return false;
        if (kind > RZ_VALUE_LIKELIHOOD && x[i] != 0 && x[i] != 1) return false;
    }
    return kind > RZ_VALUE_HIDDEN || fabs(sum - 1) < 1e-3;
}

radz_status rz_eval_ask(const rz_net *net, const rz_eval_wanted *w, const rz_item *film, int kind, rz_eval_values *v,
                        radz_error *err)
{
    const size_t n = w->n_classes;
    double *scores = rz_calloc(w->host, n, sizeof *scores);
    size_t *n_tokens = rz_calloc(w->host, n, sizeof *n_tokens);
    rz_str_free(&v->text[kind]);
    v->text[kind] = (rz_str){.host = w->host};
    radz_status status =
        scores && n_tokens
            ? rz_method_scores_pixels(net, film, (const char *const *)w->labels, n, &w->question[kind], scores,
                                      kind == RZ_VALUE_LIKELIHOOD ? n_tokens : NULL, &v->text[kind], err)
            : RZ_NO_MEMORY(err, "question");
    for (size_t c = 0; c < n && !status; c++) {
        v->v[kind][c] = (float)scores[c];
        if (kind == RZ_VALUE_LIKELIHOOD) v->v[kind][n + c] = (float)n_tokens[c];
    }
    rz_free(w->host, scores);
    rz_free(w->host, n_tokens);
    return status;
}
