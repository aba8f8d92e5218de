/* describe.c - DKAM: the model describes diseases in its own words, and whether it can.
 * SPDX-License-Identifier: Apache-2.0 */
#include "describe.h"

#include "generate.h"
#include "next_token.h"

#define KEY "{disease}"
#define AT_ONCE 8 /* descriptions that are written together */
#define HINT "; give descriptions in a file of 'label: description' lines"

static const char k_prompt[] =
    "You are a senior radiologist. Describe " KEY " in three short parts. First, the disease: what it is. Second, the "
    "imaging: what it looks like on a chest X-ray. Third, the clinical presentation: what the patient complains of. "
    "Write plain sentences.";

radz_describe_options rz_describe_defaults(void)
{
    return (radz_describe_options){
        .struct_size = sizeof(radz_describe_options), .max_tokens = 256, .temperature = 0.2, .top_p = 1};
}

/* ---- Whether a model can write ---- */

/* -log p of token `id` after logits of the one before. */
static double surprise(const float *logits, size_t n, int32_t id)
{
    double max = logits[0], sum = 0;
    for (size_t i = 1; i < n; i++) max = fmax(max, (double)logits[i]);
    for (size_t i = 0; i < n; i++) sum += exp((double)logits[i] - max);
    // cppcheck-suppress invalidFunctionArg ; the sum has the largest term, exp(0), in it
    return max + log(sum) - (double)logits[id];
}

static radz_status mean_surprise(const rz_net *net, const rz_prompt *p, double *mean, radz_error *err)
{
    const size_t vocab = net->model->cfg.text.vocab;
    const rz_item item = {.prompt = p};
    rz_cache *cache = NULL;
    float *host = rz_malloc(net->model->cfg.host, p->n * vocab * sizeof *host);
    radz_status status = host ? rz_cache_open(net->model, 1, p->n, &cache, err) : RZ_NO_MEMORY(err, "logits");
    if (!status) {
        rz_mark mark = rz_arena_mark(net->s);
        float *logits = rz_next_logits(net, &item, 1, cache, true);
        if (!rz_stream_failed(net->s)) rz_download(net->s, host, logits, p->n * vocab * sizeof *host);
        rz_arena_release(net->s, mark);
        status = rz_stream_sync(net->s, err);
    }
    *mean = 0;
    for (size_t i = 1; i < p->n && !status; i++)
        *mean += surprise(host + (i - 1) * vocab, vocab, p->ids[i]) / (double)(p->n - 1);
    rz_cache_close(cache);
    rz_free(net->model->cfg.host, host);
    return status;
}

radz_status rz_check_writing(const rz_net *net, radz_error *err)
{
    static const char sentence[] =
        "The lungs are two organs in the chest that take in air, and the heart is between them.";
    rz_prompt_list l = {.host = net->model->cfg.host, .m = net->model};
    rz_prompt p = {0};
    double mean = 0;
    RZ_TRY(rz_model_require_writing(net->model, err));
    radz_status status = rz_prompt_put_bos(&l, err);
    if (!status) status = rz_prompt_put_text(&l, sentence, strlen(sentence), err);
    RZ_TRY(rz_prompt_finish(&l, status, "sentence", &p, err));
    if (p.n > 1) status = mean_surprise(net, &p, &mean, err);
    rz_prompt_free(net->model->cfg.host, &p);
    RZ_TRY(status);
    if (mean < 0.9 * log((double)net->model->cfg.text.vocab)) return RADZ_OK;
    return rz_fail(err, RADZ_E_MISMATCH, "the model cannot write: it predicts a plain sentence no better than chance");
}

/* ---- A description ---- */

static bool ends_sentence(const rz_str *s, size_t i)
{
    return strchr(".!?", s->data[i]) && (i + 1 == s->len || s->data[i + 1] == ' ');
}

void rz_description_tidy(rz_str *s)
{
    size_t n = 0, last = 0;
    for (size_t i = 0; i < s->len; i++) {
        bool space = (unsigned char)s->data[i] <= ' ' || s->data[i] == 0x7f;
        if (space && (!n || s->data[n - 1] == ' ')) continue;
        s->data[n++] = space ? ' ' : s->data[i];
    }
    if (n && s->data[n - 1] == ' ') n--;
    s->len = n;
    for (size_t i = 0; i < n; i++)
        if (ends_sentence(s, i)) last = i + 1;
    if (last > n / 2) s->len = last;
    if (s->data) s->data[s->len] = 0;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char)c >= 0x80;
}

typedef struct words {
    size_t n, distinct, letters, others; /* of the first MAX_WORDS words */
} words;

enum { MAX_WORDS = 256, MIN_LETTERS = 20 };

static words count_words(const char *text)
{
    const char *at[MAX_WORDS];
    size_t len[MAX_WORDS];
    words w = {0};
    while (w.n < MAX_WORDS && *(text += strspn(text, " "))) {
        bool known = false;
        at[w.n] = text, len[w.n] = strcspn(text, " ");
        for (size_t i = 0; i < len[w.n]; i++) *(is_letter(text[i]) ? &w.letters : &w.others) += 1;
        for (size_t i = 0; i < w.n && !known; i++) known = len[i] == len[w.n] && !memcmp(at[i], text, len[i]);
        w.distinct += !known;
        text += len[w.n++];
    }
    return w;
}

const char *rz_description_fault(const char *text)
{
    const words w = count_words(text);
    if (w.letters < MIN_LETTERS) return "hardly a word";
    if (w.letters < 2 * w.others) return "more signs than letters";
    if (w.n >= 10 && w.distinct * 5 < w.n) return "the same words again and again";
    return NULL;
}

/* The reference class is no disease. */
static void put_prompt(rz_str *s, const char *pattern, const char *label)
{
    const char *name = rz_label_is_reference(label) ? "a normal chest X-ray without any disease" : label, *at;
    for (; (at = strstr(pattern, KEY)); pattern = at + strlen(KEY)) {
        rz_str_put(s, pattern, (size_t)(at - pattern));
        rz_str_puts(s, name);
    }
    rz_str_puts(s, pattern);
}

/* ---- All of them ---- */

typedef struct chunk {
    size_t n, at[AT_ONCE]; /* entries */
    rz_str prompts[AT_ONCE], texts[AT_ONCE];
} chunk;

static radz_generate_options as_generate(const radz_describe_options *o)
{
    radz_generate_options g = rz_generate_defaults();
    g.max_tokens = o->max_tokens, g.temperature = o->temperature, g.top_p = o->top_p, g.seed = o->seed;
    g.chat_template = o->chat_template, g.system = o->system;
    return g;
}

static radz_status write_chunk(const rz_net *net, chunk *c, radz_bank_entry *entries, const radz_describe_options *o,
                               radz_error *err)
{
    const radz_generate_options g = as_generate(o);
    rz_question questions[AT_ONCE] = {{0}};
    for (size_t i = 0; i < c->n; i++) {
        put_prompt(&c->prompts[i], o->prompt ? o->prompt : k_prompt, entries[c->at[i]].label);
        if (c->prompts[i].failed) return RZ_NO_MEMORY(err, "prompt");
        questions[i].text = c->prompts[i].data;
    }
    RZ_TRY(rz_generate(net, questions, c->n, &g, c->texts, err));
    for (size_t i = 0; i < c->n; i++) {
        const char *label = entries[c->at[i]].label, *fault;
        rz_description_tidy(&c->texts[i]);
        if ((fault = rz_description_fault(c->texts[i].data)))
            return rz_fail(err, RADZ_E_MISMATCH, "'%s': the model wrote no description (%s)" HINT, label, fault);
        entries[c->at[i]].description = c->texts[i].data;
        c->texts[i].data = NULL; /* the entry has it now */
        if (o->done_fn && o->done_fn(label, entries[c->at[i]].description, o->user))
            return rz_fail(err, RADZ_E_CANCELLED, "cancelled by the caller");
    }
    return RADZ_OK;
}

/* Gives every entry without a description one from rz_malloc, and says so in written. */
static radz_status write_all(const rz_net *net, radz_bank_entry *entries, size_t n, const radz_describe_options *o,
                             bool *written, radz_error *err)
{
    const rz_host *host = net->model->cfg.host;
    radz_status status = RADZ_OK;
    for (size_t i = 0; i < n && !status;) {
        chunk c = {0};
        for (; i < n && c.n < AT_ONCE; i++) {
            if (entries[i].description) continue;
            c.prompts[c.n].host = c.texts[c.n].host = host;
            written[i] = true;
            c.at[c.n++] = i;
        }
        if (c.n) status = write_chunk(net, &c, entries, o, err);
        for (size_t k = 0; k < c.n; k++) {
            rz_str_free(&c.prompts[k]);
            rz_str_free(&c.texts[k]);
        }
    }
    return status;
}

static void put_setting(rz_str *s, const char *key, const char *text)
{
    rz_str_printf(s, ",\"%s\":", key);
    if (text)
        rz_str_put_json(s, text, strlen(text));
    else
        rz_str_puts(s, "null");
}

static radz_status put_writer(rz_bank *b, const radz_describe_options *o, const bool *written, radz_error *err)
{
    rz_str s = {.host = b->host};
    rz_str_put_number(&s, "{\"temperature\":", o->temperature);
    rz_str_put_number(&s, ",\"top_p\":", o->top_p);
    rz_str_printf(&s, ",\"seed\":%llu,\"max_tokens\":%d", (unsigned long long)o->seed, o->max_tokens);
    put_setting(&s, "prompt", o->prompt ? o->prompt : k_prompt);
    put_setting(&s, "template", o->chat_template ? o->chat_template : "auto");
    put_setting(&s, "system", o->system);
    rz_str_puts(&s, "}");
    radz_status status = s.failed ? RZ_NO_MEMORY(err, "anchor bank") : rz_bank_set_writer(b, s.data, written, err);
    rz_str_free(&s);
    return status;
}

static radz_status check_labels(const radz_bank_entry *entries, size_t n, size_t *n_missing, radz_error *err)
{
    *n_missing = 0;
    for (size_t i = 0; i < n; i++) {
        if (!entries[i].label) return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: entry %zu: label is NULL", i + 1);
        *n_missing += !entries[i].description;
    }
    return RADZ_OK;
}

static radz_status describe(const rz_net *net, radz_bank_entry *all, size_t n, const radz_describe_options *o,
                            bool *written, rz_bank **bank, radz_error *err)
{
    radz_error why;
    radz_status can = rz_check_writing(net, &why);
    if (can) return rz_fail(err, can, "%s%s", why.message, can == RADZ_E_MISMATCH ? HINT : "");
    RZ_TRY(write_all(net, all, n, o, written, err));
    RZ_TRY(rz_bank_build(net, all, n, bank, err));
    radz_status status = put_writer(*bank, o, written, err);
    if (status) rz_bank_free(*bank);
    if (status) *bank = NULL;
    return status;
}

radz_status rz_bank_describe(const rz_net *net, const radz_bank_entry *entries, size_t n,
                             const radz_describe_options *o, rz_bank **bank, radz_error *err)
{
    const rz_host *host = net->model->cfg.host;
    size_t n_missing;
    *bank = NULL;
    RZ_TRY(check_labels(entries, n, &n_missing, err));
    if (!n_missing) return rz_bank_build(net, entries, n, bank, err);
    RZ_TRY(rz_bank_check_entries(host, entries, n, err));
    if (o->prompt && !strstr(o->prompt, KEY))
        return rz_fail(err, RADZ_E_ARGUMENT, "prompt: expected " KEY " where the name of the disease goes");
    radz_bank_entry *all = rz_calloc(host, n, sizeof *all);
    bool *written = rz_calloc(host, n, sizeof *written);
    radz_status status = all && written ? RADZ_OK : RZ_NO_MEMORY(err, "descriptions");
    if (!status) memcpy(all, entries, n * sizeof *all);
    if (!status) status = describe(net, all, n, o, written, bank, err);
    for (size_t i = 0; all && written && i < n; i++)
        if (written[i]) rz_free(host, (void *)(uintptr_t)all[i].description);
    rz_free(host, all);
    rz_free(host, written);
    return status;
}
