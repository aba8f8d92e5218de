/* test_methods.c - likelihood, hidden states and answers against transformers, whole passes and by hand.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "decoder.h"
#include "failing_host.h"
#include "fixture.h"
#include "methods.h"
#include "ops.h"

#define DIR "tests/parity/llava_tiny"
#define DIR_STORIES "tests/data/stories260K"
enum { N = 5, VOCAB = 352, MAX_ROWS = 256 };

static const char *const labels[N] = {"Pleural Effusion", "Edema", "a", "Pneumonia in the right lower lobe",
                                      "No Finding"};
static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

static void near(double got, double want, double tolerance, const char *what)
{
    if (!(fabs(got - want) <= tolerance * fmax(1, fabs(want)))) fail_msg("%s: %.9g, expected %.9g", what, got, want);
}

static const rz_st_tensor *tensor(rz_st *st, const char *name)
{
    const rz_st_tensor *t = rz_st_find(st, name);
    if (!t) fail_msg("no tensor %s", name);
    return t;
}

/* ---- The network ---- */

typedef struct world {
    rz_device *dev;
    rz_stream *s;
    rz_model *m;
    rz_net net;
    rz_st *st;
    rz_prompt prompt, answers[N];
    rz_item shared;
} world;

static rz_prompt read_ids(rz_st *st, const char *name)
{
    const rz_st_tensor *t = tensor(st, name);
    rz_prompt p = {malloc(t->n_bytes), t->n_elements};
    assert_non_null(p.ids);
    memcpy(p.ids, t->data, t->n_bytes);
    return p;
}

static void open_world(world *w, const char *kernels)
{
    rz_device_options o = {"cpu", kernels, "own", 2};
    *w = (world){0};
    radz_status status = rz_device_open(NULL, &o, &w->dev, &err);
    if (status == RADZ_E_DEVICE) skip();
    ok(status);
    ok(rz_stream_open(w->dev, &w->s, &err));
    ok(rz_model_load(NULL, w->dev, DIR, RZ_MODEL_INFER, 0, &w->m, &err));
    ok(rz_st_open(NULL, "tests/parity/methods.safetensors", RZ_FILE_READ, &w->st, &err));
    w->net = (rz_net){.model = w->m, .s = w->s};
    w->prompt = read_ids(w->st, "prompt");
    for (int i = 0; i < N; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d.ids", i);
        w->answers[i] = read_ids(w->st, name);
    }
    float *pixels = malloc(tensor(w->st, "pixels")->n_bytes);
    assert_non_null(pixels);
    ok(rz_st_to_f32(tensor(w->st, "pixels"), pixels, &err));
    w->shared = (rz_item){.kind = RZ_ITEM_IMAGE, .pixels = pixels, .prompt = &w->prompt};
}

static void close_world(world *w)
{
    free((void *)(uintptr_t)w->shared.pixels);
    free(w->prompt.ids);
    for (int i = 0; i < N; i++) free(w->answers[i].ids);
    rz_st_close(w->st);
    rz_model_unload(w->m);
    rz_stream_close(w->s);
    rz_device_close(w->dev);
}

/* Log-probability of the answer from one pass over prompt and answer, without a cache. */
static double whole_pass(world *w, const rz_prompt *answer)
{
    int32_t ids[MAX_ROWS];
    static float logits[MAX_ROWS * VOCAB];
    rz_prompt p = {ids, w->prompt.n + answer->n};
    rz_item item = {.kind = RZ_ITEM_IMAGE, .pixels = w->shared.pixels, .prompt = &p};
    double sum = 0;
    assert_true(p.n <= MAX_ROWS && w->m->cfg.text.vocab == VOCAB);
    memcpy(ids, w->prompt.ids, w->prompt.n * sizeof *ids);
    memcpy(ids + w->prompt.n, answer->ids, answer->n * sizeof *ids);
    rz_mark mark = rz_arena_mark(w->s);
    float *h = rz_encode_rows(&w->net, &item, 1, w->m->cfg.text.layers, NULL);
    rz_download(w->s, logits, rz_decoder_logits(&w->net, h, p.n), p.n * VOCAB * sizeof *logits);
    ok(rz_stream_sync(w->s, &err));
    rz_arena_release(w->s, mark);
    for (size_t k = 0; k < answer->n; k++) {
        const float *row = logits + (w->prompt.n + k - 1) * VOCAB;
        double max = -INFINITY, total = 0;
        for (size_t i = 0; i < VOCAB; i++) max = fmax(max, (double)row[i]);
        for (size_t i = 0; i < VOCAB; i++) total += exp((double)row[i] - max);
        sum += (double)row[answer->ids[k]] - max - log(total);
    }
    return sum;
}

static void test_likelihood(void **state)
{
    world w;
    open_world(&w, *state);
    const float *want = (const void *)tensor(w.st, "film.sum")->data;
    double sums[N], alone;
    ok(rz_answer_likelihoods(&w.net, &w.shared, w.answers, N, sums, &err));
    for (int i = 0; i < N; i++) {
        near(sums[i], (double)want[i], 1e-5, labels[i]);
        alone = whole_pass(&w, &w.answers[i]);
        assert_memory_equal(&alone, &sums[i], sizeof alone);
        ok(rz_answer_likelihoods(&w.net, &w.shared, &w.answers[i], 1, &alone, &err));
        assert_memory_equal(&alone, &sums[i], sizeof alone);
    }
    close_world(&w);
}

/* More names than go through at once: the branches are used again. */
static void test_many(void **state)
{
    (void)state;
    enum { MANY = 37 };
    world w;
    open_world(&w, "auto");
    rz_prompt answers[MANY];
    double few[N], many[MANY];
    for (int i = 0; i < MANY; i++) answers[i] = w.answers[i * 3 % N];
    ok(rz_answer_likelihoods(&w.net, &w.shared, w.answers, N, few, &err));
    ok(rz_answer_likelihoods(&w.net, &w.shared, answers, MANY, many, &err));
    for (int i = 0; i < MANY; i++) assert_memory_equal(&many[i], &few[i * 3 % N], sizeof *few);
    close_world(&w);
}

/* ---- What it costs ---- */

static size_t n_gated, n_patchify;
static void (*real_gated)(rz_stream *s, rz_act_kind kind, float *y, const float *gate, const float *up, size_t n);
static void (*real_patchify)(rz_stream *s, float *y, const float *pixels, size_t n, size_t channels, size_t size,
                             size_t patch);

static void count_gated(rz_stream *s, rz_act_kind kind, float *y, const float *gate, const float *up, size_t n)
{
    n_gated += n;
    real_gated(s, kind, y, gate, up, n);
}

static void count_patchify(rz_stream *s, float *y, const float *pixels, size_t n, size_t channels, size_t size,
                           size_t patch)
{
    n_patchify += n;
    real_patchify(s, y, pixels, n, channels, size, patch);
}

/* Film and question go through the network once, however many names are asked about; of a name every token but the
 * last: the last predicts nothing that is asked for. */
static void test_rows(void **state)
{
    (void)state;
    enum { MANY = 37 };
    world w;
    open_world(&w, "auto");
    rz_prompt answers[MANY];
    double sums[MANY];
    size_t rows = w.prompt.n;
    real_gated = w.dev->ops.gated, w.dev->ops.gated = count_gated;
    real_patchify = w.dev->ops.patchify, w.dev->ops.patchify = count_patchify;
    n_gated = n_patchify = 0;
    for (int i = 0; i < MANY; i++) {
        answers[i] = w.answers[i % N];
        rows += answers[i].n - 1;
    }
    ok(rz_answer_likelihoods(&w.net, &w.shared, answers, MANY, sums, &err));
    const rz_text_config *t = &w.m->cfg.text;
    assert_int_equal(n_gated, rows * t->layers * t->intermediate);
    assert_int_equal(n_patchify, 1);
    assert_true(rows < MANY * w.prompt.n / 2); /* what it would be without the branches, and more */
    close_world(&w);
}

/* ---- The public function ---- */

typedef struct maker {
    radz_runtime *runtime;
    radz_model *model;
    radz_session *session;
    radz_image *film; /* of one grey */
} maker;

static void open_maker(maker *k, const char *dir)
{
    static uint8_t gray[32 * 32];
    memset(gray, 128, sizeof gray);
    ok(radz_runtime_create(NULL, &k->runtime, &err));
    ok(radz_model_open(k->runtime, dir, NULL, &k->model, &err));
    ok(radz_session_open(k->model, NULL, &k->session, &err));
    ok(radz_image_from_pixels(k->runtime, gray, RADZ_PIXELS_GRAY8, 32, 32, 32, &k->film, &err));
}

static void close_maker(maker *k)
{
    radz_image_close(k->film);
    radz_session_close(k->session);
    radz_model_close(k->model);
    radz_runtime_close(k->runtime);
}

static void against(maker *k, bool film, const radz_method_options *o, const char *name)
{
    rz_st *st;
    double got[N];
    char *text;
    ok(rz_st_open(NULL, "tests/parity/methods.safetensors", RZ_FILE_READ, &st, &err));
    ok(radz_method_scores(k->session, film ? k->film : NULL, labels, N, o, got, &text, &err));
    for (int i = 0; i < N; i++)
        near(got[i], (double)((const float *)(const void *)tensor(st, name)->data)[i], 1e-5, labels[i]);
    assert_string_equal(text, "");
    radz_text_free(text);
    rz_st_close(st);
}

static void test_public(void **state)
{
    (void)state;
    maker k;
    radz_method_options o;
    open_maker(&k, DIR);
    radz_method_options_init(&o);
    assert_int_equal(o.method, RADZ_METHOD_LIKELIHOOD);
    o.chat_template = "plain";
    against(&k, false, &o, "text.sum");
    o.per_token = 1;
    against(&k, false, &o, "text.mean");
    radz_method_options_init(&o);
    o.method = RADZ_METHOD_HIDDEN;
    against(&k, true, &o, "hidden.gray");
    close_maker(&k);
}

/* The answer of a model that babbles: its text is what generating gives, and so are the names in it. */
static void test_answer(void **state)
{
    (void)state;
    maker k;
    radz_method_options o;
    radz_generate_options g;
    const char *const words[] = {"Lily", "there was", "elephant"};
    double found[3];
    char *text, *want;
    open_maker(&k, DIR_STORIES);
    radz_method_options_init(&o);
    radz_generate_options_init(&g);
    o.max_tokens = g.max_tokens = 40;
    for (int m = RADZ_METHOD_OPTIONS; m <= RADZ_METHOD_COT; m++) {
        o.method = (radz_method)m;
        o.prompt = "Once upon a time";
        ok(radz_method_scores(k.session, NULL, words, 3, &o, found, &text, &err));
        ok(radz_generate(k.session, NULL, o.prompt, &g, &want, &err));
        assert_string_equal(text, want);
        for (int i = 0; i < 3; i++)
            if (found[i] != (strstr(want, words[i]) != NULL)) fail_msg("'%s' in '%s'", words[i], want);
        radz_text_free(text);
        radz_text_free(want);
        o.prompt = "{classes}";
        ok(radz_method_scores(k.session, NULL, words, 3, &o, found, &text, &err));
        ok(radz_generate(k.session, NULL, "Lily, there was, elephant", &g, &want, &err));
        assert_string_equal(text, want);
        radz_text_free(text);
        radz_text_free(want);
    }
    close_maker(&k);
}

static char *written(rz_st *st, const char *name)
{
    const rz_st_tensor *t = tensor(st, name);
    char *text = strndup((const char *)t->data, t->n_bytes);
    assert_non_null(text);
    return text;
}

/* Asked about a film, the model writes what transformers' generate has it write. */
static void test_answer_transformers(void **state)
{
    (void)state;
    static const char *const words[N] = {"chestH", "chest", "CHESTH", "Hing", "ing"};
    static const char *const answers[] = {"options.answer", "cot.answer", "words.answer"};
    maker k;
    rz_st *st;
    open_maker(&k, DIR);
    ok(rz_st_open(NULL, "tests/parity/methods.safetensors", RZ_FILE_READ, &st, &err));
    for (int i = 0; i < 3; i++) {
        radz_method_options o;
        double found[N];
        char *text, *want = written(st, answers[i]);
        radz_method_options_init(&o);
        o.method = i == 1 ? RADZ_METHOD_COT : RADZ_METHOD_OPTIONS;
        o.chat_template = "plain", o.max_tokens = 24;
        if (i == 2) o.prompt = "What disease is indicated by the chest X-ray?";
        ok(radz_method_scores(k.session, k.film, i == 2 ? words : labels, N, &o, found, &text, &err));
        assert_string_equal(text, want);
        for (int c = 0; c < N; c++) assert_true(found[c] == (i == 2 && c == 0)); /* what it names; once, not twice */
        radz_text_free(text);
        free(want);
    }
    rz_st_close(st);
    close_maker(&k);
}

static void test_names(void **state)
{
    (void)state;
    const char *const names[] = {"Effusion", "Pleural Effusion", "Pleural_Thickening", "Mass", "Edema"};
    const struct {
        const char *text;
        double want[5];
    } cases[] = {{"", {0, 0, 0, 0, 0}},
                 {"pleural effusion.", {0, 1, 0, 0, 0}},
                 {"Effusion; PLEURAL\nEFFUSION", {1, 1, 0, 0, 0}},
                 {"a massive effusion", {1, 0, 0, 0, 0}},
                 {"pleural thickening, mass", {0, 0, 1, 1, 0}},
                 {"(edema)", {0, 0, 0, 0, 1}},
                 {"\xc3\xb6"
                  "edema effusions",
                  {0, 0, 0, 0, 0}}};
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        double found[5];
        ok(rz_find_names(NULL, cases[i].text, names, 5, found, &err));
        for (int c = 0; c < 5; c++)
            if (found[c] != cases[i].want[c]) fail_msg("'%s': %s: %g", cases[i].text, names[c], found[c]);
    }
}

static void refused(maker *k, const radz_method_options *o, size_t n, radz_status want, const char *words)
{
    double scores[N];
    char *text = (char *)"";
    radz_status status = radz_method_scores(k->session, NULL, labels, n, o, scores, &text, &err);
    if (status != want || !strstr(err.message, words))
        fail_msg("status %d, not %d: %s", (int)status, (int)want, status ? err.message : "");
    assert_null(text);
}

static void test_refused(void **state)
{
    (void)state;
    maker k;
    radz_method_options o;
    open_maker(&k, DIR);
    radz_method_options_init(&o);
    refused(&k, &o, 0, RADZ_E_ARGUMENT, "at least one class");
    o.per_token = 2;
    refused(&k, &o, N, RADZ_E_ARGUMENT, "per_token");
    radz_method_options_init(&o);
    o.method = (radz_method)4;
    refused(&k, &o, N, RADZ_E_ARGUMENT, "method");
    o.method = RADZ_METHOD_HIDDEN;
    refused(&k, &o, N, RADZ_E_ARGUMENT, "expected a film");
    radz_method_options_init(&o);
    o.chat_template = "alpaca";
    refused(&k, &o, N, RADZ_E_ARGUMENT, "alpaca");
    close_maker(&k);
}

/* A model that was trained for vectors alone. */
static void test_no_writer(void **state)
{
    (void)state;
    maker k;
    radz_method_options o;
    char *dir = fixture_temp_dir();
    fixture_model(dir, 1);
    char *json = fixture_read(fixture_path(dir, "radz.json"), NULL), *brace = strchr(json, '{'), more[8192];
    assert_non_null(brace);
    snprintf(more, sizeof more, "{\"can_write\": false, %s", brace + 1);
    fixture_write_text(fixture_path(dir, "radz.json"), more);
    free(json);
    open_maker(&k, dir);
    radz_method_options_init(&o);
    for (int m = RADZ_METHOD_OPTIONS; m <= RADZ_METHOD_COT; m++) {
        o.method = (radz_method)m;
        refused(&k, &o, N, RADZ_E_MISMATCH, "the model cannot write");
    }
    close_maker(&k);
    fixture_remove(dir);
    free(dir);
}

/* ---- Memory ---- */

static radz_status scores_with(const rz_host *host, void *arg)
{
    rz_device_options o = {"cpu", "auto", "own", 1};
    radz_method_options method = rz_method_defaults();
    uint8_t gray[4] = {0};
    rz_device *dev = NULL;
    rz_stream *s = NULL;
    rz_model *m = NULL;
    rz_film film = {.path = NULL};
    rz_str text = {.host = host};
    double scores[2];
    method.method = *(const radz_method *)arg, method.max_tokens = 2;
    radz_status status = rz_device_open(host, &o, &dev, &err);
    if (!status) status = rz_stream_open(dev, &s, &err);
    if (!status) status = rz_model_load(host, dev, DIR, RZ_MODEL_INFER, 0, &m, &err);
    if (!status) status = rz_film_from_pixels(host, gray, RADZ_PIXELS_GRAY8, 2, 2, 2, &film, &err);
    rz_net net = {.model = m, .s = s};
    if (!status) status = rz_method_scores(&net, &film, labels, 2, &method, scores, &text, &err);
    rz_str_free(&text);
    rz_film_free(host, &film);
    rz_model_unload(m);
    rz_stream_close(s);
    rz_device_close(dev);
    return status;
}

static void test_memory(void **state)
{
    (void)state;
    for (radz_method m = RADZ_METHOD_LIKELIHOOD; m <= RADZ_METHOD_OPTIONS; m++) failing_host_try_all(scores_with, &m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_likelihood, (void *)(uintptr_t) "portable"),
        cmocka_unit_test_prestate(test_likelihood, (void *)(uintptr_t) "avx2"),
        cmocka_unit_test_prestate(test_likelihood, (void *)(uintptr_t) "avx512"),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_public),
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_answer_transformers),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_writer),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
