/* generate.c - the model writes: prompts in one pass, then a token at a time for all that are not done.
 * SPDX-License-Identifier: Apache-2.0 */
#include "generate.h"

#include "chat.h"
#include "next_token.h"
#include "sample.h"

#define MAX_TOKENS (1 << 20)
#define REPLACEMENT "\xef\xbf\xbd"

typedef struct answer {
    rz_prompt prompt;
    float *pixels;
    int32_t *ids, end; /* chosen so far, without those that are no text; what ends it besides the model's own */
    size_t n_ids, n_tokens, sent;
    rz_str *text; /* of ids; its first `sent` bytes stay */
    rz_rng rng;
    const char *finished; /* NULL: goes on */
} answer;

typedef struct writer {
    const rz_net *net;
    const rz_model *m;
    const rz_host *host;
    const radz_generate_options *o;
    answer *answers;
    size_t n, max_prompt, n_ids; /* ids that the tokenizer and the model both have */
    rz_item *items;
    rz_prompt *steps;
    float *logits;
    rz_likely *likely;
    rz_cache *cache;
} writer;

radz_generate_options rz_generate_defaults(void)
{
    return (radz_generate_options){.struct_size = sizeof(radz_generate_options), .max_tokens = 256, .top_p = 1};
}

static radz_status check_options(const radz_generate_options *o, radz_error *err)
{
    if (o->max_tokens < 1 || o->max_tokens > MAX_TOKENS)
        return rz_fail(err, RADZ_E_ARGUMENT, "max_tokens: expected 1 to %d, got %d", MAX_TOKENS, o->max_tokens);
    if (!(o->temperature >= 0 && o->temperature <= 1000))
        return rz_fail(err, RADZ_E_ARGUMENT, "temperature: expected 0 to 1000");
    if (!(o->top_p > 0 && o->top_p <= 1))
        return rz_fail(err, RADZ_E_ARGUMENT, "top_p: expected more than 0, at most 1");
    if (o->n_stop && !o->stop) return rz_fail(err, RADZ_E_ARGUMENT, "stop is NULL, but n_stop is %zu", o->n_stop);
    for (size_t i = 0; i < o->n_stop; i++)
        if (!o->stop[i] || !*o->stop[i]) return rz_fail(err, RADZ_E_ARGUMENT, "stop string %zu is empty", i + 1);
    return RADZ_OK;
}

/* ---- The text so far ---- */

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Bytes of s without what may be the beginning of a character: each stray byte decodes to U+FFFD. */
static size_t whole_characters(const rz_str *s)
{
    size_t n = s->len, k = strlen(REPLACEMENT);
    while (n >= k && memcmp(s->data + n - k, REPLACEMENT, k) == 0) n -= k;
    return n;
}

/* A text for C holds no NUL; a model of single bytes may write one. */
static void replace_nul(rz_str *s)
{
    rz_str out = {.host = s->host};
    if (s->failed || !memchr(s->data, 0, s->len)) return;
    for (size_t at = 0, n; at < s->len; at += n + 1) {
        n = strnlen(s->data + at, s->len - at);
        rz_str_put(&out, s->data + at, n);
        if (at + n < s->len) rz_str_puts(&out, REPLACEMENT);
    }
    rz_str_free(s);
    *s = out;
}

/* Where the first stop string begins in s[0..n), at or after `from`; n: nowhere. */
static size_t find_stop(const radz_generate_options *o, const char *s, size_t from, size_t n)
{
    size_t first = n;
    for (size_t i = 0; i < o->n_stop; i++) {
        const char *at = n > from ? memmem(s + from, n - from, o->stop[i], strlen(o->stop[i])) : NULL;
        if (at && (size_t)(at - s) < first) first = (size_t)(at - s);
    }
    return first;
}

/* Bytes of s[0..n) that cannot become part of a stop string; at least `from`. */
static size_t without_stop_begun(const radz_generate_options *o, const char *s, size_t from, size_t n)
{
    for (size_t at = from; at < n; at++)
        for (size_t i = 0; i < o->n_stop; i++)
            if (strlen(o->stop[i]) > n - at && memcmp(s + at, o->stop[i], n - at) == 0) return at;
    return n;
}

/* Decodes the tokens, looks for stop strings. *ready: bytes that may be shown. */
static radz_status read_text(const writer *w, answer *a, size_t *ready, radz_error *err)
{
    rz_str *s = a->text;
    size_t before = a->sent;
    s->len = 0;
    rz_str_puts(s, "");
    RZ_TRY(rz_tokenizer_decode(w->m->tok, a->ids, a->n_ids, s, err));
    replace_nul(s);
    if (s->failed) return RZ_NO_MEMORY(err, "text");
    if (before > s->len) before = s->len;
    size_t n = a->finished ? s->len : max_size(whole_characters(s), before);
    size_t stop = find_stop(w->o, s->data, before, n);
    if (stop < n) {
        a->finished = "stop";
        s->len = n = stop;
        s->data[n] = 0;
    }
    *ready = a->finished ? n : without_stop_begun(w->o, s->data, before, n);
    return RADZ_OK;
}

/* Tells the caller what is new. */
static radz_status tell(const writer *w, answer *a, int32_t token, size_t ready, radz_error *err)
{
    char *data = a->text->data;
    if (!w->o->token_fn || a != w->answers) {
        a->sent = ready;
        return RADZ_OK;
    }
    const char kept = data[ready];
    data[ready] = 0;
    const radz_generate_progress p = {sizeof p,   data + a->sent, token, (int64_t)a->n_tokens, (int64_t)a->prompt.n,
                                      a->finished};
    int stop = w->o->token_fn(&p, w->o->user);
    data[ready] = kept;
    a->sent = ready;
    return stop ? rz_fail(err, RADZ_E_CANCELLED, "cancelled by the caller") : RADZ_OK;
}

/* ---- A step ---- */

static bool ends(const writer *w, const answer *a, int32_t id)
{
    const rz_text_config *t = &w->m->cfg.text;
    bool is_end = id == a->end || id == rz_tokenizer_eos(w->m->tok);
    for (size_t i = 0; i < t->n_eos; i++) is_end |= id == t->eos[i];
    return is_end;
}

static radz_status take_token(writer *w, answer *a, const float *logits, radz_error *err)
{
    int32_t id = rz_sample(logits, w->n_ids, w->o->temperature, w->o->top_p, &a->rng, w->likely);
    size_t ready = 0;
    if (id < 0)
        return rz_fail(err, RADZ_E_FORMAT, "the model gives logits that are not finite: its weights are damaged");
    a->n_tokens++;
    if (ends(w, a, id))
        a->finished = "end";
    else if (a->n_tokens == (size_t)w->o->max_tokens || a->prompt.n + a->n_tokens >= w->m->cfg.text.max_positions)
        a->finished = "length";
    bool is_text = !rz_tokenizer_is_control(w->m->tok, id) && !(a->finished && *a->finished == 'e');
    if (is_text) a->ids[a->n_ids++] = id;
    w->steps[a - w->answers].ids[0] = id;
    RZ_TRY(read_text(w, a, &ready, err));
    return tell(w, a, id, ready, err);
}

/* Runs the items, downloads the logits, takes a token for each answer that goes on. */
static radz_status step(writer *w, bool *done, radz_error *err)
{
    const size_t vocab = w->m->cfg.text.vocab;
    rz_stream *s = w->net->s;
    rz_mark mark = rz_arena_mark(s);
    float *logits = rz_next_logits(w->net, w->items, w->n, w->cache, false);
    if (!rz_stream_failed(s)) rz_download(s, w->logits, logits, w->n * vocab * sizeof *logits);
    rz_arena_release(s, mark);
    RZ_TRY(rz_stream_sync(s, err));
    *done = true;
    for (size_t i = 0; i < w->n; i++) {
        answer *a = &w->answers[i];
        if (!a->finished) RZ_TRY(take_token(w, a, w->logits + i * vocab, err));
        w->steps[i].n = !a->finished;
        w->items[i] = (rz_item){.kind = RZ_ITEM_TEXT, .prompt = &w->steps[i]};
        *done &= a->finished != NULL;
    }
    return RADZ_OK;
}

/* ---- Beginning and end ---- */

static radz_status begin_answer(writer *w, size_t i, const rz_question *q, rz_str *text, radz_error *err)
{
    answer *a = &w->answers[i];
    const rz_chat chat = {w->o->chat_template, w->o->system, q->text, q->film || q->pixels};
    a->text = text;
    rz_rng_seed(&a->rng, w->o->seed, 0);
    bool gray = q->gray;
    if (q->film) RZ_TRY(rz_film_input(w->m, q->film, &a->pixels, &gray, err));
    RZ_TRY(rz_chat_prompt(w->m, &chat, &a->prompt, &a->end, err));
    if (a->prompt.n >= w->m->cfg.text.max_positions)
        return rz_fail(err, RADZ_E_LIMIT, "prompt: %zu rows leave no room for an answer, the model takes at most %zu",
                       a->prompt.n, w->m->cfg.text.max_positions);
    a->ids = rz_malloc(w->host, ((size_t)w->o->max_tokens + 1) * sizeof *a->ids);
    w->steps[i].ids = rz_malloc(w->host, sizeof *w->steps[i].ids);
    if (!a->ids || !w->steps[i].ids) return RZ_NO_MEMORY(err, "tokens");
    w->items[i] = (rz_item){.kind = RZ_ITEM_IMAGE, .pixels = q->film ? a->pixels : q->pixels, .prompt = &a->prompt};
    w->items[i].gray = gray;
    w->max_prompt = max_size(w->max_prompt, a->prompt.n);
    return RADZ_OK;
}

static radz_status begin(writer *w, const rz_question *questions, rz_str *answers, radz_error *err)
{
    const rz_text_config *t = &w->m->cfg.text;
    const size_t n = w->n, size = rz_tokenizer_size(w->m->tok);
    w->n_ids = size < t->vocab ? size : t->vocab;
    w->answers = rz_calloc(w->host, n, sizeof *w->answers);
    w->items = rz_calloc(w->host, n, sizeof *w->items);
    w->steps = rz_calloc(w->host, n, sizeof *w->steps);
    w->logits = rz_calloc(w->host, n, t->vocab * sizeof *w->logits);
    w->likely = rz_calloc(w->host, w->n_ids, sizeof *w->likely);
    if (!w->answers || !w->items || !w->steps || !w->logits || !w->likely) return RZ_NO_MEMORY(err, "answers");
    for (size_t i = 0; i < n; i++) RZ_TRY(begin_answer(w, i, &questions[i], &answers[i], err));
    size_t room = w->max_prompt + (size_t)w->o->max_tokens;
    return rz_cache_open(w->m, n, room < t->max_positions ? room : t->max_positions, &w->cache, err);
}

static void end(writer *w)
{
    for (size_t i = 0; i < w->n; i++) {
        if (w->answers) {
            rz_prompt_free(w->host, &w->answers[i].prompt);
            rz_free(w->host, w->answers[i].pixels);
            rz_free(w->host, w->answers[i].ids);
        }
        if (w->steps) rz_free(w->host, w->steps[i].ids);
    }
    rz_cache_close(w->cache);
    void *const parts[] = {w->answers, w->items, w->steps, w->logits, w->likely};
    for (size_t i = 0; i < RZ_COUNT(parts); i++) rz_free(w->host, parts[i]);
}

radz_status rz_generate(const rz_net *net, const rz_question *questions, size_t n, const radz_generate_options *options,
                        rz_str *answers, radz_error *err)
{
    RZ_TRY(check_options(options, err));
    RZ_TRY(rz_model_require_writing(net->model, err));
    if (!n) return RADZ_OK;
    writer w = {.net = net, .m = net->model, .host = net->model->cfg.host, .o = options, .n = n};
    radz_status status = begin(&w, questions, answers, err);
    for (bool done = false; !status && !done;) status = step(&w, &done, err);
    end(&w);
    return status;
}
