/* methods.c - likelihood of class names, hidden states, and answers in which classes are named.
 * SPDX-License-Identifier: Apache-2.0 */
#include "methods.h"

#include "chat.h"
#include "generate.h"
#include "next_token.h"

#define BRANCHES 16 /* class names that go through the decoder together */
#define KEY "{classes}"

static const char ask_film[] = "What disease is indicated by the chest X-ray?";
static const char ask_options[] = "Which findings does the chest X-ray show? Choose from " KEY ".";
static const char ask_cot[] =
    "Which findings does the chest X-ray show? Choose from " KEY ". Let's think step by step.";

radz_method_options rz_method_defaults(void)
{
    return (radz_method_options){.struct_size = sizeof(radz_method_options), .method = RADZ_METHOD_LIKELIHOOD};
}

const char *rz_method_question(const radz_method_options *o)
{
    if (o->prompt) return o->prompt;
    return o->method == RADZ_METHOD_OPTIONS ? ask_options : o->method == RADZ_METHOD_COT ? ask_cot : ask_film;
}

const char *rz_method_prefix(const radz_method_options *o)
{
    return o->prefix ? o->prefix : "This is a chest X-ray showing";
}

int rz_method_max_tokens(const radz_method_options *o)
{
    if (o->method != RADZ_METHOD_OPTIONS && o->method != RADZ_METHOD_COT) return 0;
    return o->max_tokens ? o->max_tokens : o->method == RADZ_METHOD_COT ? 256 : 64;
}

/* ---- Likelihood ---- */

/* Class names that branch off behind the shared rows. Sequence 0 of the cache holds those alone. */
typedef struct tree {
    const rz_net *net;
    const rz_host *host;
    rz_cache *cache;
    rz_item items[1 + BRANCHES];
    rz_prompt parts[1 + BRANCHES];
    float *first, *rows; /* logits after the shared rows; after every row of the branches */
} tree;

static double log_probability(const float *logits, size_t n, int32_t id)
{
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) max = fmax(max, (double)logits[i]);
    for (size_t i = 0; i < n; i++) sum += exp((double)logits[i] - max);
    // cppcheck-suppress invalidFunctionArg ; the sum has the largest term, exp(0), in it
    return (double)logits[id] - max - log(sum);
}

static radz_status run_rows(tree *t, bool every_row, size_t n_rows, float *out, radz_error *err)
{
    rz_stream *s = t->net->s;
    rz_mark mark = rz_arena_mark(s);
    float *logits = rz_next_logits(t->net, t->items, t->cache->n, t->cache, every_row);
    if (!rz_stream_failed(s)) rz_download(s, out, logits, n_rows * t->net->model->cfg.text.vocab * sizeof *out);
    rz_arena_release(s, mark);
    return rz_stream_sync(s, err);
}

static radz_status run_shared(tree *t, const rz_item *shared, radz_error *err)
{
    for (size_t i = 0; i < t->cache->n; i++) t->items[i] = (rz_item){.kind = RZ_ITEM_TEXT, .prompt = &t->parts[i]};
    t->items[0] = *shared;
    RZ_TRY(run_rows(t, false, t->cache->n, t->first, err));
    t->items[0] = (rz_item){.kind = RZ_ITEM_TEXT, .prompt = &t->parts[0]};
    return RADZ_OK;
}

/* The last token of an answer predicts nothing that is asked for: it does not run. */
static radz_status run_branches(tree *t, const rz_prompt *answers, size_t n, double *sums, radz_error *err)
{
    const size_t vocab = t->net->model->cfg.text.vocab;
    size_t n_rows = 0;
    for (size_t i = 0; i < t->cache->n - 1; i++) {
        rz_prompt *part = &t->parts[i + 1];
        *part = i < n ? (rz_prompt){answers[i].ids, answers[i].n - 1} : (rz_prompt){NULL, 0};
        n_rows += part->n;
        rz_cache_copy(t->net->s, t->cache, i + 1, 0);
    }
    if (n_rows) RZ_TRY(run_rows(t, true, n_rows, t->rows, err));
    const float *row = t->rows;
    for (size_t i = 0; i < n; i++) {
        sums[i] = log_probability(t->first, vocab, answers[i].ids[0]);
        for (size_t k = 1; k < answers[i].n; k++, row += vocab)
            sums[i] += log_probability(row, vocab, answers[i].ids[k]);
        if (!isfinite(sums[i]))
            return rz_fail(err, RADZ_E_FORMAT, "the model gives logits that are not finite: its weights are damaged");
    }
    return RADZ_OK;
}

radz_status rz_answer_likelihoods(const rz_net *net, const rz_item *shared, const rz_prompt *answers, size_t n,
                                  double *sums, radz_error *err)
{
    const size_t vocab = net->model->cfg.text.vocab, n_branches = n < BRANCHES ? n : BRANCHES;
    size_t longest = 1, n_floats;
    if (!n) return RADZ_OK;
    for (size_t i = 0; i < n; i++) longest = answers[i].n > longest ? answers[i].n : longest;
    if (shared->prompt->n + longest > net->model->cfg.text.max_positions)
        return rz_fail(err, RADZ_E_LIMIT, "prompt and class name: %zu rows, the model takes at most %zu",
                       shared->prompt->n + longest, net->model->cfg.text.max_positions);
    if (!rz_size_mul(n_branches * longest, vocab * sizeof(float), &n_floats))
        return rz_fail(err, RADZ_E_LIMIT, "class names: too many tokens");
    tree t = {.net = net, .host = net->model->cfg.host};
    t.first = rz_calloc(t.host, 1 + n_branches, vocab * sizeof *t.first);
    t.rows = rz_calloc(t.host, n_branches * longest, vocab * sizeof *t.rows);
    radz_status status = t.first && t.rows ? RADZ_OK : RZ_NO_MEMORY(err, "logits");
    if (!status) status = rz_cache_open(net->model, 1 + n_branches, shared->prompt->n + longest, &t.cache, err);
    if (!status) status = run_shared(&t, shared, err);
    for (size_t i = 0; i < n && !status; i += n_branches)
        status = run_branches(&t, answers + i, n - i < n_branches ? n - i : n_branches, sums + i, err);
    rz_cache_close(t.cache);
    rz_free(t.host, t.first);
    rz_free(t.host, t.rows);
    return status;
}

/* "prefix name" in tokens, for each class: names are tokenised as they stand in the sentence. */
static radz_status read_answers(const rz_model *m, const char *prefix, const char *const *labels, size_t n,
                                rz_prompt *answers, radz_error *err)
{
    for (size_t i = 0; i < n; i++) {
        rz_prompt_list l = {.host = m->cfg.host, .m = m};
        rz_str s = {.host = m->cfg.host};
        rz_str_puts(&s, prefix);
        if (*prefix) rz_str_puts(&s, " ");
        rz_str_puts(&s, labels[i]);
        radz_status status = s.failed ? RZ_NO_MEMORY(err, "class name") : RADZ_OK;
        if (!status) status = rz_prompt_put_text(&l, s.data, s.len, err);
        rz_str_free(&s);
        RZ_TRY(rz_prompt_finish(&l, status, labels[i], &answers[i], err));
    }
    return RADZ_OK;
}

/* Tokens that every answer and the prefix by itself begin with; they belong to the shared rows. One is left of each. */
static radz_status count_common(const rz_model *m, const char *prefix, const rz_prompt *answers, size_t n,
                                size_t *common, radz_error *err)
{
    rz_prompt_list l = {.host = m->cfg.host, .m = m};
    rz_prompt p;
    RZ_TRY(rz_prompt_finish(&l, rz_prompt_put_text(&l, prefix, strlen(prefix), err), "prefix", &p, err));
    *common = p.n;
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < *common && k + 1 < answers[i].n && answers[i].ids[k] == p.ids[k]) k++;
        *common = k;
    }
    rz_prompt_free(m->cfg.host, &p);
    return RADZ_OK;
}

static radz_status append(const rz_host *host, rz_prompt *p, const int32_t *ids, size_t n, radz_error *err)
{
    int32_t *grown = rz_realloc(host, p->ids, p->n + n, sizeof *grown);
    if (!grown) return RZ_NO_MEMORY(err, "prompt");
    if (n) memcpy(grown + p->n, ids, n * sizeof *ids);
    *p = (rz_prompt){grown, p->n + n};
    return RADZ_OK;
}

static radz_status score_answers(const rz_net *net, const rz_item *film, const radz_method_options *o,
                                 const rz_prompt *answers, rz_prompt *branches, size_t n, size_t common, double *scores,
                                 radz_error *err)
{
    const rz_model *m = net->model;
    const rz_chat chat = {o->chat_template, o->system, rz_method_question(o), film->pixels != NULL};
    rz_prompt p;
    int32_t end;
    RZ_TRY(rz_chat_prompt(m, &chat, &p, &end, err));
    radz_status status = append(m->cfg.host, &p, answers[0].ids, common, err);
    const rz_item shared = {.kind = RZ_ITEM_IMAGE, .pixels = film->pixels, .gray = film->gray, .prompt = &p};
    for (size_t i = 0; i < n; i++) branches[i] = (rz_prompt){answers[i].ids + common, answers[i].n - common};
    if (!status) status = rz_answer_likelihoods(net, &shared, branches, n, scores, err);
    for (size_t i = 0; i < n && !status && o->per_token; i++) scores[i] /= (double)branches[i].n;
    rz_prompt_free(m->cfg.host, &p);
    return status;
}

static radz_status likelihood(const rz_net *net, const rz_item *film, const char *const *labels, size_t n,
                              const radz_method_options *o, double *scores, size_t *n_tokens, radz_error *err)
{
    const rz_host *host = net->model->cfg.host;
    const char *prefix = rz_method_prefix(o);
    rz_prompt *answers = rz_calloc(host, n, sizeof *answers), *branches = rz_calloc(host, n, sizeof *branches);
    size_t common = 0;
    radz_status status = answers && branches ? RADZ_OK : RZ_NO_MEMORY(err, "class names");
    if (!status) status = read_answers(net->model, prefix, labels, n, answers, err);
    if (!status) status = count_common(net->model, prefix, answers, n, &common, err);
    if (!status) status = score_answers(net, film, o, answers, branches, n, common, scores, err);
    for (size_t i = 0; n_tokens && !status && i < n; i++) n_tokens[i] = branches[i].n;
    for (size_t i = 0; answers && i < n; i++) rz_prompt_free(host, &answers[i]);
    rz_free(host, answers);
    rz_free(host, branches);
    return status;
}

/* ---- Hidden states ---- */

static radz_status embed_labels(const rz_net *net, const char *const *labels, size_t n, const rz_pick *pick,
                                float *vectors, radz_error *err)
{
    const rz_host *host = net->model->cfg.host;
    const size_t dim = rz_embed_dim(&net->model->cfg, pick);
    radz_status status = RADZ_OK;
    for (size_t i = 0; i < n && !status; i++) {
        char *text = rz_prompt_label_text(host, net->model, &labels[i], 1);
        const char *const texts[] = {text};
        status = text ? rz_embed_texts(net, RZ_ITEM_TEXT, texts, 1, pick, vectors + i * dim, err)
                      : RZ_NO_MEMORY(err, "text of a class");
        rz_free(host, text);
    }
    return status;
}

/* Special tokens come last and no row before them sees them: the others are as they would be without. */
static radz_status hidden(const rz_net *net, const rz_film *film, const char *const *labels, size_t n, double *scores,
                          radz_error *err)
{
    const rz_config *cfg = &net->model->cfg;
    /* as RADZ_SCORE_HIDDEN */
    const rz_pick pick = {.rows = RZ_ROWS_OTHER, .n_blocks = rz_config_decoder_blocks(cfg), .raw = true};
    const size_t dim = rz_embed_dim(cfg, &pick);
    if (!film) return rz_fail(err, RADZ_E_ARGUMENT, "method hidden: expected a film");
    float *v = rz_calloc(cfg->host, n + 1, dim * sizeof *v);
    radz_status status = v ? rz_embed_films(net, &film, 1, &pick, v, err) : RZ_NO_MEMORY(err, "vectors");
    if (!status) status = embed_labels(net, labels, n, &pick, v + dim, err);
    for (size_t i = 0; i < n && !status; i++) {
        scores[i] = 0;
        for (size_t k = 0; k < dim; k++) scores[i] += (double)v[k] * (double)v[(i + 1) * dim + k];
    }
    rz_free(cfg->host, v);
    return status;
}

/* ---- Answers ---- */

static char folded(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c == '_' || c == '\n' || c == '\t' || c == '\r' ? ' ' : c;
}

static bool in_word(char c)
{
    c = folded(c);
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (unsigned char)c >= 0x80;
}

static bool stands_at(const char *text, size_t n, size_t at, const char *label, size_t len)
{
    if (len > n - at || (at && in_word(text[at - 1])) || (at + len < n && in_word(text[at + len]))) return false;
    for (size_t i = 0; i < len; i++)
        if (folded(text[at + i]) != folded(label[i])) return false;
    return true;
}

/* Takes every place of the label in text out of it. */
static bool take_label(char *text, size_t n, const char *label)
{
    const size_t len = strlen(label);
    bool found = false;
    for (size_t at = 0; len && at + len <= n; at++) {
        if (!stands_at(text, n, at, label, len)) continue;
        memset(text + at, '\x01', len);
        found = true;
    }
    return found;
}

radz_status rz_find_names(const rz_host *host, const char *text, const char *const *labels, size_t n, double *found,
                          radz_error *err)
{
    const size_t len = strlen(text);
    char *rest = rz_strdup(host, text);
    if (!rest) return RZ_NO_MEMORY(err, "answer");
    for (size_t i = 0; i < n; i++) found[i] = -1;
    for (size_t left = n; left; left--) {
        size_t best = n;
        for (size_t i = 0; i < n; i++)
            if (found[i] < 0 && (best == n || strlen(labels[i]) > strlen(labels[best]))) best = i;
        found[best] = take_label(rest, len, labels[best]);
    }
    rz_free(host, rest);
    return RADZ_OK;
}

static void put_question(rz_str *s, const char *pattern, const char *const *labels, size_t n)
{
    const char *at = strstr(pattern, KEY);
    rz_str_put(s, pattern, at ? (size_t)(at - pattern) : strlen(pattern));
    for (size_t i = 0; at && i < n; i++) {
        if (i) rz_str_puts(s, ", ");
        rz_str_puts(s, labels[i]);
    }
    if (at) rz_str_puts(s, at + strlen(KEY));
}

static radz_status answer(const rz_net *net, const rz_item *film, const char *const *labels, size_t n,
                          const radz_method_options *o, double *scores, rz_str *text, radz_error *err)
{
    radz_generate_options g = rz_generate_defaults();
    rz_str question = {.host = net->model->cfg.host};
    RZ_TRY(rz_model_require_writing(net->model, err));
    g.max_tokens = rz_method_max_tokens(o);
    g.chat_template = o->chat_template, g.system = o->system;
    put_question(&question, rz_method_question(o), labels, n);
    const rz_question q = {.text = question.data, .pixels = film->pixels, .gray = film->gray};
    radz_status status = question.failed ? RZ_NO_MEMORY(err, "prompt") : rz_generate(net, &q, 1, &g, text, err);
    rz_str_free(&question);
    return status ? status : rz_find_names(net->model->cfg.host, text->data, labels, n, scores, err);
}

/* ---- All of them ---- */

static radz_status check_options(const rz_net *net, const char *const *labels, size_t n, const radz_method_options *o,
                                 radz_error *err)
{
    if ((int)o->method < RADZ_METHOD_LIKELIHOOD || o->method > RADZ_METHOD_COT)
        return rz_fail(err, RADZ_E_ARGUMENT,
                       "method: expected LIKELIHOOD (0), HIDDEN (1), OPTIONS (2) or COT (3), got %d", (int)o->method);
    if (o->per_token != 0 && o->per_token != 1)
        return rz_fail(err, RADZ_E_ARGUMENT, "per_token: expected 0 or 1, got %d", o->per_token);
    if (!n) return rz_fail(err, RADZ_E_ARGUMENT, "expected at least one class");
    for (size_t i = 0; i < n; i++)
        if (!labels[i] || !*labels[i]) return rz_fail(err, RADZ_E_ARGUMENT, "class %zu has no name", i + 1);
    return rz_model_require_texts(net->model, err);
}

radz_status rz_method_scores_pixels(const rz_net *net, const rz_item *film, const char *const *labels, size_t n,
                                    const radz_method_options *o, double *scores, size_t *n_tokens, rz_str *text,
                                    radz_error *err)
{
    rz_str_puts(text, "");
    radz_status status = check_options(net, labels, n, o, err);
    if (!status && o->method == RADZ_METHOD_HIDDEN) status = rz_fail(err, RADZ_E_INTERNAL, "method hidden: no film");
    if (!status)
        status = o->method == RADZ_METHOD_LIKELIHOOD ? likelihood(net, film, labels, n, o, scores, n_tokens, err)
                                                     : answer(net, film, labels, n, o, scores, text, err);
    for (size_t i = 0; i < n && status; i++) scores[i] = NAN;
    return status;
}

radz_status rz_method_scores(const rz_net *net, const rz_film *film, const char *const *labels, size_t n,
                             const radz_method_options *o, double *scores, rz_str *text, radz_error *err)
{
    float *pixels = NULL;
    rz_str_puts(text, "");
    radz_status status = check_options(net, labels, n, o, err);
    if (!status && o->method == RADZ_METHOD_HIDDEN) {
        status = hidden(net, film, labels, n, scores, err);
    } else if (!status) {
        rz_item seen = {0};
        if (film) status = rz_film_input(net->model, film, &pixels, &seen.gray, err);
        seen.pixels = pixels;
        if (!status) status = rz_method_scores_pixels(net, &seen, labels, n, o, scores, NULL, text, err);
        rz_free(net->model->cfg.host, pixels);
    }
    for (size_t i = 0; i < n && status; i++) scores[i] = NAN;
    return status;
}
