/* test_generate.c - the model writes: cached steps against whole passes, golden texts, sampling, stop strings.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "decoder.h"
#include "fixture.h"
#include "next_token.h"
#include "sample.h"

#define DIR_STORIES "tests/data/stories260K"
#define DIR_LLAVA "tests/parity/llava_tiny"
#define VARIANT(name) "tests/parity/variants/" name

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

/* ---- The network: with a cache and without ---------------------------------------------------- */

enum { N_ITEMS = 3, MAX_ROWS = 64 };

typedef struct world {
    rz_device *dev;
    rz_stream *s;
    rz_model *m;
    rz_net net;
    rz_prompt prompts[N_ITEMS];
    rz_item items[N_ITEMS];
    int32_t ids[N_ITEMS][MAX_ROWS];
    float *pixels;
} world;

/* Prompts of different length; the last begins with a film where the model reads films. */
static void make_items(world *w, size_t n_rows)
{
    const rz_config *cfg = &w->m->cfg;
    const size_t n_pixels = 3 * cfg->vision.image_size * cfg->vision.image_size;
    rz_rng r;
    rz_rng_seed(&r, 5, 0);
    w->pixels = calloc(n_pixels + 1, sizeof *w->pixels);
    assert_non_null(w->pixels);
    for (size_t i = 0; i < n_pixels; i++) w->pixels[i] = (float)rz_rng_normal(&r);
    for (size_t i = 0; i < N_ITEMS; i++) {
        bool film = cfg->has_vision && i == N_ITEMS - 1;
        size_t n = n_rows + 5 * i, n_image = film ? cfg->image_rows : 0;
        assert_true(n + n_image + 2 <= MAX_ROWS && n + n_image <= cfg->text.max_positions);
        for (size_t t = 0; t < n + n_image; t++)
            w->ids[i][t] = t >= 1 && t < 1 + n_image ? RZ_ID_IMAGE : (int32_t)rz_rng_below(&r, cfg->text.vocab);
        w->prompts[i] = (rz_prompt){w->ids[i], n + n_image};
        w->items[i] = (rz_item){.pixels = film ? w->pixels : NULL, .prompt = &w->prompts[i]};
    }
}

static void open_world(world *w, const char *kernels, const char *dir, size_t n_rows)
{
    rz_device_options o = {"cpu", kernels, "own", 2};
    *w = (world){0};
    radz_status status = rz_device_open(NULL, &o, &w->dev, &err);
    if (status == RADZ_E_DEVICE) skip();
    ok(status);
    ok(rz_stream_open(w->dev, &w->s, &err));
    ok(rz_model_load(NULL, w->dev, dir, RZ_MODEL_INFER, 0, &w->m, &err));
    w->net = (rz_net){.model = w->m, .s = w->s};
    make_items(w, n_rows);
}

static void close_world(world *w)
{
    free(w->pixels);
    rz_model_unload(w->m);
    rz_stream_close(w->s);
    rz_device_close(w->dev);
}

/* Logits after every row of one item, in one pass without a cache; malloc'ed. */
static float *whole_pass(world *w, const rz_item *item)
{
    const rz_text_config *t = &w->m->cfg.text;
    const size_t n = item->prompt->n * t->vocab;
    float *out = malloc(n * sizeof *out);
    assert_non_null(out);
    rz_mark mark = rz_arena_mark(w->s);
    float *h = rz_encode_rows(&w->net, item, 1, t->layers, NULL);
    rz_download(w->s, out, rz_decoder_logits(&w->net, h, item->prompt->n), n * sizeof *out);
    ok(rz_stream_sync(w->s, &err));
    rz_arena_release(w->s, mark);
    return out;
}

/* Runs rows [from[i], to[i]) of each item; logits after the last (n, vocab), or after each of them, into out. */
static void run_rows(world *w, rz_cache *cache, const size_t *from, const size_t *to, bool every_row, float *out)
{
    const size_t vocab = w->m->cfg.text.vocab;
    rz_prompt parts[N_ITEMS];
    rz_item items[N_ITEMS];
    size_t n_rows = 0;
    for (size_t i = 0; i < N_ITEMS; i++) {
        parts[i] = (rz_prompt){w->ids[i] + from[i], to[i] - from[i]};
        items[i] = (rz_item){.pixels = from[i] ? NULL : w->items[i].pixels, .prompt = &parts[i]};
        n_rows += every_row ? parts[i].n : 1;
    }
    rz_mark mark = rz_arena_mark(w->s);
    float *logits = rz_next_logits(&w->net, items, N_ITEMS, cache, every_row);
    if (!rz_stream_failed(w->s)) rz_download(w->s, out, logits, n_rows * vocab * sizeof *out);
    ok(rz_stream_sync(w->s, &err));
    rz_arena_release(w->s, mark);
}

/* The same bits. (Not so dynamic RoPE past its training length, which keeps cached keys as they were turned.) */
static void same_row(const world *w, const char *dir, size_t item, size_t row, const float *got, const float *whole)
{
    const size_t vocab = w->m->cfg.text.vocab;
    if (memcmp(got, whole + row * vocab, vocab * sizeof *got) != 0)
        fail_msg("%s: item %zu: the logits after row %zu differ: %.9g, expected %.9g", dir, item, row, (double)got[0],
                 (double)whole[row * vocab]);
}

static void check_cache(const char *kernels, const char *dir, size_t n_rows)
{
    world w;
    open_world(&w, kernels, dir, n_rows);
    const size_t vocab = w.m->cfg.text.vocab;
    float *whole[N_ITEMS], *out = malloc(N_ITEMS * MAX_ROWS * vocab * sizeof *out);
    size_t from[N_ITEMS] = {0}, to[N_ITEMS], first[N_ITEMS];
    rz_cache *cache;
    assert_non_null(out);
    for (size_t i = 0; i < N_ITEMS; i++) whole[i] = whole_pass(&w, &w.items[i]);
    ok(rz_cache_open(w.m, N_ITEMS, MAX_ROWS, &cache, &err));

    /* the film's rows and a few more in one pass, then one row at a time; items end one after another */
    for (size_t i = 0; i < N_ITEMS; i++) first[i] = to[i] = w.prompts[i].n - n_rows + 3 - 5 * i + i;
    run_rows(&w, cache, from, to, false, out);
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < N_ITEMS; i++) {
            if (to[i] > from[i]) same_row(&w, dir, i, to[i] - 1, out + i * vocab, whole[i]);
            from[i] = to[i];
            if (to[i] < w.prompts[i].n) to[i]++;
            more |= to[i] > from[i];
        }
        if (more) run_rows(&w, cache, from, to, false, out);
    }

    /* back to the first rows, and the rest at once with all its logits */
    for (size_t i = 0; i < N_ITEMS; i++) cache->len[i] = from[i] = first[i];
    run_rows(&w, cache, from, to, true, out);
    size_t row = 0;
    for (size_t i = 0; i < N_ITEMS; i++)
        for (size_t t = from[i]; t < to[i]; t++) same_row(&w, dir, i, t, out + row++ * vocab, whole[i]);

    for (size_t i = 0; i < N_ITEMS; i++) free(whole[i]);
    rz_cache_close(cache);
    free(out);
    close_world(&w);
}

static void test_cache(void **state)
{
    static const struct {
        const char *dir;
        size_t n_rows;
    } models[] = {{DIR_STORIES, 40},
                  {DIR_LLAVA, 20},
                  {VARIANT("window"), 20},
                  {VARIANT("text_mistral"), 20},
                  {VARIANT("text_llama"), 20},
                  {VARIANT("rope_linear"), 20},
                  {VARIANT("rope_llama3"), 20},
                  {VARIANT("features_full"), 20}};
    for (size_t i = 0; i < RZ_COUNT(models); i++) check_cache(*state, models[i].dir, models[i].n_rows);
}

/* Greedy tokens of one checkpoint and prompt against transformers'. */
static void check_greedy(rz_device *dev, rz_stream *s, const char *variant, const char *prompt, char *want)
{
    char dir[128], path[160], key[16];
    snprintf(dir, sizeof dir, "tests/parity/variants/%s", variant);
    snprintf(path, sizeof path, "%s/expected.safetensors", dir);
    snprintf(key, sizeof key, "%s.ids", prompt);
    rz_model *m;
    rz_st *st;
    rz_cache *cache;
    ok(rz_model_load(NULL, dev, dir, RZ_MODEL_INFER, 0, &m, &err));
    ok(rz_st_open(NULL, path, RZ_FILE_READ, &st, &err));
    const rz_st_tensor *ids = rz_st_find(st, key), *film = rz_st_find(st, "pixels");
    int32_t rows[MAX_ROWS], next;
    float *pixels = malloc(film ? film->n_bytes : 1), logits[256];
    const size_t vocab = m->cfg.text.vocab;
    assert_true(ids && pixels && ids->n_elements <= MAX_ROWS && vocab <= RZ_COUNT(logits));
    memcpy(rows, ids->data, ids->n_bytes);
    if (film) ok(rz_st_to_f32(film, pixels, &err));
    rz_prompt p = {rows, ids->n_elements};
    rz_item item = {.pixels = film ? pixels : NULL, .prompt = &p};
    rz_net net = {.model = m, .s = s};
    ok(rz_cache_open(m, 1, MAX_ROWS, &cache, &err));
    size_t n = 0;
    for (char *word = strtok(want, " \n"); word; word = strtok(NULL, " \n"), n++) {
        rz_mark mark = rz_arena_mark(s);
        rz_download(s, logits, rz_next_logits(&net, &item, 1, cache, false), vocab * sizeof *logits);
        ok(rz_stream_sync(s, &err));
        rz_arena_release(s, mark);
        next = rz_sample(logits, vocab, 0, 1, NULL, NULL);
        if (next != atoi(word)) fail_msg("%s %s: token %zu: %d, expected %s", variant, prompt, n, (int)next, word);
        p = (rz_prompt){&next, 1};
        item.pixels = NULL;
    }
    assert_true(n >= 12);
    free(pixels);
    rz_cache_close(cache);
    rz_st_close(st);
    rz_model_unload(m);
}

/* tests/parity/greedy.txt: all RoPE kinds, windows, grouped heads, tied heads, films. */
static void test_greedy(void **state)
{
    rz_device_options o = {"cpu", *state, "own", 2};
    rz_device *dev;
    rz_stream *s;
    radz_status status = rz_device_open(NULL, &o, &dev, &err);
    if (status == RADZ_E_DEVICE) skip();
    ok(status);
    ok(rz_stream_open(dev, &s, &err));
    char *text = fixture_read("tests/parity/greedy.txt", NULL);
    size_t n_lines = 0;
    for (char *line = text, *end; *line; line = end + 1, n_lines++) {
        char variant[64], prompt[8];
        int used = 0;
        end = strchr(line, '\n');
        assert_non_null(end);
        *end = 0;
        assert_int_equal(sscanf(line, "%63s %7s %n", variant, prompt, &used), 2);
        check_greedy(dev, s, variant, prompt, line + used);
    }
    assert_true(n_lines >= 28);
    free(text);
    rz_stream_close(s);
    rz_device_close(dev);
}

/* A sequence copied goes on as the one it came from. */
static void test_cache_copy(void **state)
{
    (void)state;
    world w;
    open_world(&w, "auto", DIR_STORIES, 20);
    const size_t vocab = w.m->cfg.text.vocab;
    float *out = malloc(N_ITEMS * vocab * sizeof *out), *whole = whole_pass(&w, &w.items[2]);
    size_t from[N_ITEMS] = {0}, to[N_ITEMS] = {1, 2, 7};
    rz_cache *cache;
    assert_non_null(out);
    ok(rz_cache_open(w.m, N_ITEMS, MAX_ROWS, &cache, &err));
    run_rows(&w, cache, from, to, false, out);
    for (size_t i = 0; i < 2; i++) {
        rz_cache_copy(w.s, cache, i, 2);
        memcpy(w.ids[i], w.ids[2], sizeof w.ids[i]);
    }
    for (size_t i = 0; i < N_ITEMS; i++) from[i] = 7, to[i] = 9;
    run_rows(&w, cache, from, to, false, out);
    for (size_t i = 0; i < N_ITEMS; i++) same_row(&w, DIR_STORIES, i, 8, out + i * vocab, whole);
    rz_cache_close(cache);
    free(whole);
    free(out);
    close_world(&w);
}

static void test_cache_full(void **state)
{
    (void)state;
    world w;
    open_world(&w, "auto", DIR_STORIES, 20);
    rz_cache *cache;
    ok(rz_cache_open(w.m, N_ITEMS, 10, &cache, &err));
    rz_next_logits(&w.net, w.items, N_ITEMS, cache, false);
    assert_int_equal(rz_stream_sync(w.s, &err), RADZ_E_INTERNAL);
    rz_cache_close(cache);
    assert_int_equal(rz_cache_open(w.m, SIZE_MAX / 2, 10, &cache, &err), RADZ_E_LIMIT);
    assert_null(cache);
    close_world(&w);
}

/* ---- The public function ------------------------------------------------------------------------- */

typedef struct maker {
    radz_runtime *runtime;
    radz_model *model;
    radz_session *session;
} maker;

static void open_maker(maker *k, const char *dir, int n_threads)
{
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    o.n_threads = n_threads;
    ok(radz_runtime_create(&o, &k->runtime, &err));
    ok(radz_model_open(k->runtime, dir, NULL, &k->model, &err));
    ok(radz_session_open(k->model, NULL, &k->session, &err));
}

static void close_maker(maker *k)
{
    radz_session_close(k->session);
    radz_model_close(k->model);
    radz_runtime_close(k->runtime);
}

static void test_story(void **state)
{
    (void)state;
    char *want = fixture_read(DIR_STORIES "/greedy256.txt", NULL), *text;
    want[strcspn(want, "\n") ? strlen(want) - 1 : 0] = 0; /* the file ends a line */
    for (int n_threads = 1; n_threads <= 2; n_threads++) {
        maker k;
        radz_generate_options o;
        open_maker(&k, DIR_STORIES, n_threads);
        radz_generate_options_init(&o);
        ok(radz_generate(k.session, NULL, "", &o, &text, &err));
        assert_string_equal(text, want);
        radz_text_free(text);
        close_maker(&k);
    }
    free(want);
}

/* ---- What a caller may ask for -------------------------------------------------------------------- */

typedef struct heard {
    rz_str text;
    int64_t n_calls, stop_at;
    char finished[16];
} heard;

static int hear(const radz_generate_progress *p, void *user)
{
    heard *h = user;
    assert_true(p->struct_size == sizeof *p && p->n_prompt > 0);
    assert_int_equal(p->n_tokens, ++h->n_calls);
    assert_true(rz_utf8_valid(p->text, strlen(p->text)));
    assert_int_equal(h->finished[0], 0); /* nothing after the end */
    rz_str_puts(&h->text, p->text);
    if (p->finished) snprintf(h->finished, sizeof h->finished, "%s", p->finished);
    return h->n_calls == h->stop_at;
}

/* The answer; what was heard on the way must be the same. */
static char *answer(maker *k, const char *prompt, const radz_generate_options *o, const char *finished)
{
    char *text;
    heard h = {0};
    radz_generate_options listening = *o;
    listening.token_fn = hear, listening.user = &h;
    ok(radz_generate(k->session, NULL, prompt, &listening, &text, &err));
    assert_string_equal(h.text.data, text);
    assert_string_equal(h.finished, finished);
    rz_str_free(&h.text);
    return text;
}

static void test_stop(void **state)
{
    (void)state;
    maker k;
    radz_generate_options o;
    open_maker(&k, DIR_STORIES, 1);
    radz_generate_options_init(&o);
    o.max_tokens = 40;
    char *whole = answer(&k, "", &o, "length");
    /* each piece of the story as a stop string, most of which straddle tokens */
    for (size_t at = 1; at + 6 < strlen(whole); at += 7) {
        char stop[7] = "";
        memcpy(stop, whole + at, 6);
        const char *const stops[] = {"zzz never", stop};
        o.stop = stops, o.n_stop = 2;
        char *text = answer(&k, "", &o, "stop");
        assert_int_equal(strlen(text), strstr(whole, stop) - whole);
        assert_memory_equal(text, whole, strlen(text));
        radz_text_free(text);
    }
    /* one that begins at the end but does not come */
    char begun[16];
    snprintf(begun, sizeof begun, "%szz", whole + strlen(whole) - 2);
    o.stop = (const char *const[]){begun}, o.n_stop = 1;
    char *text = answer(&k, "", &o, "length");
    assert_string_equal(text, whole);
    radz_text_free(text);
    radz_text_free(whole);
    close_maker(&k);
}

/* Characters of two to four bytes, but for U+FFFD. */
static size_t long_characters(const char *s)
{
    size_t n = 0, left = strlen(s), k;
    uint32_t code;
    for (; left && (k = rz_utf8_next(s, left, &code)); s += k, left -= k) n += k > 1 && code != 0xfffd;
    return n;
}

/* A model that draws nearly any token, most of them single bytes: where these make a character, the listener gets it
 * whole, never a part (hear() looks at every piece), and all pieces are the answer. */
static void test_characters(void **state)
{
    (void)state;
    maker k;
    size_t n = 0;
    open_maker(&k, DIR_LLAVA, 1);
    for (uint64_t seed = 0; seed < 40; seed++) {
        radz_generate_options o;
        heard h = {0};
        char *text;
        radz_generate_options_init(&o);
        o.max_tokens = 60, o.temperature = 100, o.seed = seed, o.chat_template = "plain";
        o.token_fn = hear, o.user = &h;
        ok(radz_generate(k.session, NULL, "a", &o, &text, &err));
        assert_string_equal(h.text.data, text);
        n += long_characters(text);
        rz_str_free(&h.text);
        radz_text_free(text);
    }
    assert_true(n >= 10);
    close_maker(&k);
}

static void test_draw(void **state)
{
    (void)state;
    char *texts[4];
    for (size_t i = 0; i < 4; i++) { /* one thread, two, and another seed */
        maker k;
        radz_generate_options o;
        open_maker(&k, DIR_STORIES, i == 1 ? 2 : 1);
        radz_generate_options_init(&o);
        o.max_tokens = 50, o.temperature = 1, o.top_p = i < 3 ? 0.9 : 1e-9, o.seed = i == 2 ? 8 : 7;
        texts[i] = answer(&k, "Once", &o, "length");
        close_maker(&k);
    }
    assert_string_equal(texts[0], texts[1]);
    assert_string_not_equal(texts[0], texts[2]);
    maker k;
    radz_generate_options o;
    open_maker(&k, DIR_STORIES, 1);
    radz_generate_options_init(&o);
    o.max_tokens = 50;
    char *greedy = answer(&k, "Once", &o, "length");
    assert_string_equal(texts[3], greedy); /* a share that only the most likely one has */
    radz_text_free(greedy);
    close_maker(&k);
    for (size_t i = 0; i < 4; i++) radz_text_free(texts[i]);
}

static void refused(maker *k, const char *prompt, const radz_generate_options *o, radz_status want, const char *words)
{
    char *text = (char *)"";
    radz_status status = radz_generate(k->session, NULL, prompt, o, &text, &err);
    if (status != want || !strstr(err.message, words))
        fail_msg("status %d, not %d: %s", (int)status, (int)want, status ? err.message : "");
    assert_null(text);
}

static void test_refused(void **state)
{
    (void)state;
    maker k;
    radz_generate_options o;
    open_maker(&k, DIR_STORIES, 1);
#define WITH(field, value, words)                                                                                      \
    do {                                                                                                               \
        radz_generate_options_init(&o);                                                                                \
        o.field = value;                                                                                               \
        refused(&k, "a", &o, RADZ_E_ARGUMENT, words);                                                                  \
    } while (0)
    WITH(max_tokens, 0, "max_tokens");
    WITH(max_tokens, (1 << 20) + 1, "max_tokens");
    WITH(temperature, -1, "temperature");
    WITH(temperature, NAN, "temperature");
    WITH(top_p, 0, "top_p");
    WITH(top_p, 1.5, "top_p");
    WITH(n_stop, 1, "stop is NULL");
    WITH(chat_template, "alpaca", "'alpaca' is not known");
    WITH(chat_template, "chatml", "<|im_end|>");
    radz_generate_options_init(&o);
    o.stop = (const char *const[]){"a", ""}, o.n_stop = 2;
    refused(&k, "a", &o, RADZ_E_ARGUMENT, "stop string 2 is empty");
    refused(&k, NULL, NULL, RADZ_E_ARGUMENT, "prompt is NULL");
    heard h = {.stop_at = 3};
    radz_generate_options_init(&o);
    o.token_fn = hear, o.user = &h;
    refused(&k, "a", &o, RADZ_E_CANCELLED, "cancelled");
    assert_int_equal(h.n_calls, 3);
    rz_str_free(&h.text);
    char *long_prompt = calloc(1, 4097);
    assert_non_null(long_prompt);
    memset(long_prompt, 'q', 4096);
    refused(&k, long_prompt, NULL, RADZ_E_LIMIT, "rows");
    free(long_prompt);
    close_maker(&k);
}

/* The longest text that the model takes ends an answer too. */
static void test_context(void **state)
{
    (void)state;
    maker k;
    radz_generate_options o;
    open_maker(&k, DIR_STORIES, 1);
    radz_generate_options_init(&o);
    o.max_tokens = 100000, o.temperature = 1, o.seed = 3;
    heard h = {0};
    char *text;
    o.token_fn = hear, o.user = &h;
    ok(radz_generate(k.session, NULL, "", &o, &text, &err));
    radz_model_info info;
    radz_model_info_init(&info);
    ok(radz_model_get_info(k.model, &info, &err));
    if (!strcmp(h.finished, "length"))
        assert_int_equal(h.n_calls + 1, info.max_positions);
    else
        assert_true(h.n_calls < (int64_t)info.max_positions);
    rz_str_free(&h.text);
    radz_text_free(text);
    close_maker(&k);
}

/* ---- Sampling -------------------------------------------------------------------------------------- */

static void test_sample(void **state)
{
    (void)state;
    enum { N = 5, DRAWS = 40000 };
    const float logits[N] = {1, 3, 2, 3, -INFINITY}, broken[2] = {0, NAN}, nothing[2] = {-INFINITY, -INFINITY};
    rz_likely room[N];
    rz_rng r;
    assert_int_equal(rz_sample(logits, N, 0, 1, NULL, NULL), 1); /* the first of equals */
    assert_int_equal(rz_sample(broken, 2, 0, 1, NULL, NULL), -1);
    assert_int_equal(rz_sample(nothing, 2, 0, 1, NULL, NULL), -1);
    const struct {
        double temperature, top_p;
        bool in[N];
    } cases[] = {{1, 1, {1, 1, 1, 1, 0}},   {2, 1, {1, 1, 1, 1, 0}},    {1, 0.5, {0, 1, 0, 1, 0}},
                 {1, 0.9, {0, 1, 1, 1, 0}}, {1, 0.01, {0, 1, 0, 0, 0}}, {0.01, 1, {0, 1, 0, 1, 0}}};
    for (size_t c = 0; c < RZ_COUNT(cases); c++) {
        size_t count[N] = {0};
        double sum = 0;
        rz_rng_seed(&r, 11, c);
        for (size_t i = 0; i < N; i++)
            if (cases[c].in[i]) sum += exp((double)logits[i] / cases[c].temperature);
        for (size_t i = 0; i < DRAWS; i++)
            count[rz_sample(logits, N, cases[c].temperature, cases[c].top_p, &r, room)]++;
        for (size_t i = 0; i < N; i++) {
            double p = cases[c].in[i] ? exp((double)logits[i] / cases[c].temperature) / sum : 0;
            double off = fabs((double)count[i] / DRAWS - p), sd = sqrt(p * (1 - p) / DRAWS);
            if (!(off <= 5 * sd)) fail_msg("case %zu, token %zu: %zu of %d, expected %.4f", c, i, count[i], DRAWS, p);
        }
    }
}

#define ON(kernels)                                                                                                    \
    {"cache, " kernels, test_cache, NULL, NULL, (void *)(uintptr_t)kernels},                                           \
    {                                                                                                                  \
        "greedy, " kernels, test_greedy, NULL, NULL, (void *)(uintptr_t)kernels                                        \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {ON("portable"),
                                       ON("avx2"),
                                       ON("avx512"),
                                       cmocka_unit_test(test_cache_copy),
                                       cmocka_unit_test(test_cache_full),
                                       cmocka_unit_test(test_story),
                                       cmocka_unit_test(test_stop),
                                       cmocka_unit_test(test_characters),
                                       cmocka_unit_test(test_draw),
                                       cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_context),
                                       cmocka_unit_test(test_sample)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
