/* test_reuse.c - what a pass leaves out changes no bit: rows nobody asks for, rows of words and films that an earlier
 * pass has seen. Every kind of position and mask (tests/parity/variants), with activations of float and of bfloat16.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "encode.h"
#include "fixture.h"
#include "ops.h"
#include "precision.h"
#include "reuse.h"

enum { WORDS = 11, MAX_ROWS = 200, MAX_ITEMS = 4 };

static const char *const dirs[] = {
    "tests/parity/llava_tiny",           "tests/parity/variants/rope_linear", "tests/parity/variants/rope_dynamic",
    "tests/parity/variants/rope_llama3", "tests/parity/variants/window",      "tests/parity/variants/features_full",
    "tests/parity/variants/text_llama",
};

static radz_error err;
static rz_device *dev;
static rz_model *m;
static rz_stream *s;
static int32_t ids[MAX_ITEMS][MAX_ROWS];
static rz_prompt prompts[MAX_ITEMS];
static float *pixels[MAX_ITEMS];
static rz_item items[MAX_ITEMS];

static void ok(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

static bool half; /* activations of bfloat16 */

static int with_float(void **state)
{
    (void)state;
    half = false;
    return 0;
}

static int with_half(void **state)
{
    (void)state;
    half = true;
    return 0;
}

static void open_as(const char *dir, const char *weights, int threads)
{
    rz_source from = {.dir = dir};
    ok(rz_device_open(NULL, &(rz_device_options){.device = fixture_device(), .n_threads = threads}, &dev, &err));
    dev->is_half = half;
    ok(rz_precision_parse(weights, 0, NULL, &from.precision, &err));
    ok(rz_model_load_from(NULL, dev, &from, RZ_MODEL_INFER, 0, &m, &err));
    ok(rz_stream_open(dev, &s, &err));
}

static void open_model(const char *dir, int threads)
{
    open_as(dir, half ? "bf16" : NULL, threads);
}

static void close_model(void)
{
    rz_stream_close(s);
    rz_model_unload(m);
    rz_device_close(dev);
    for (size_t i = 0; i < MAX_ITEMS; i++) free(pixels[i]), pixels[i] = NULL;
}

static size_t film_floats(void)
{
    return m->cfg.vision.channels * m->cfg.vision.image_size * m->cfg.vision.image_size;
}

/* Item i: constant words, a film where `film` is not 0, words that depend on `words`, special tokens where there are
 * such. */
static void make_item(size_t i, int film, int words, size_t n_words)
{
    size_t n = 0, special = m->cfg.radz.n_image_tokens;
    const size_t vocab = m->cfg.text.vocab;
    for (size_t k = 0; k < WORDS; k++) ids[i][n++] = (int32_t)(3 + 5 * k);
    for (size_t k = 0; film && k < m->cfg.image_rows; k++) ids[i][n++] = RZ_ID_IMAGE;
    for (size_t k = 0; k < n_words; k++) ids[i][n++] = (int32_t)((7 + (size_t)words * 31 + 13 * k) % (vocab - 1));
    for (size_t k = 0; k < special; k++) ids[i][n++] = (int32_t)(vocab + k);
    assert_in_range(n, 1, MAX_ROWS);
    prompts[i] = (rz_prompt){ids[i], n};
    items[i] = (rz_item){.kind = film ? RZ_ITEM_IMAGE : RZ_ITEM_TEXT, .prompt = &prompts[i]};
    if (!film) return;
    pixels[i] = realloc(pixels[i], film_floats() * sizeof(float));
    assert_non_null(pixels[i]);
    for (size_t k = 0; k < film_floats(); k++)
        pixels[i][k] = (float)(((uint32_t)k + (uint32_t)film * 77) * 2654435761u >> 8) * 0x1p-23f - 1.0f;
    items[i].pixels = pixels[i];
}

/* Vectors of the first n items, malloc'ed. */
static float *vectors(rz_reuse *reuse, size_t n, rz_rows rows, size_t n_blocks)
{
    rz_net net = {.model = m, .s = s, .reuse = reuse};
    const rz_pick pick = {.rows = rows, .n_blocks = n_blocks, .raw = true};
    const size_t n_floats = n * m->cfg.text.hidden;
    float *out = calloc(n_floats, sizeof *out);
    rz_mark mark = rz_arena_mark(s);
    assert_non_null(out);
    const float *v = rz_encode_pick(&net, items, n, &pick);
    if (!rz_stream_failed(s)) rz_download(s, out, v, n_floats * sizeof *out);
    rz_arena_release(s, mark);
    ok(rz_stream_sync(s, &err));
    return out;
}

/* The same from every row of every layer. */
static float *expected(size_t n, rz_rows rows, size_t n_blocks)
{
    rz_net net = {.model = m, .s = s};
    const size_t c = m->cfg.text.hidden, vocab = m->cfg.text.vocab;
    float *out = calloc(n * c, sizeof *out), *stats;
    rz_mark mark = rz_arena_mark(s);
    const float *h = rz_encode_rows(&net, items, n, n_blocks, NULL);
    size_t total = 0;
    for (size_t i = 0; i < n; i++) total += prompts[i].n;
    assert_non_null(out);
    if (n_blocks == m->cfg.text.layers) h = rz_norm_forward(&net, &m->decoder_norm, m->cfg.text.eps, h, total, &stats);
    for (size_t i = 0, first = 0; i < n; first += prompts[i++].n) {
        int32_t at[MAX_ROWS], k = 0, start[2] = {0};
        for (size_t t = 0; t < prompts[i].n; t++)
            if (rows == RZ_ROWS_LAST ? t + 1 == prompts[i].n : (size_t)(uint32_t)prompts[i].ids[t] - vocab < vocab)
                at[k++] = (int32_t)(first + t);
        start[1] = k;
        float *mean = rz_arena_f32(s, 1, c), *unit = rz_arena_f32(s, 1, c);
        rz_pool_mean(s, mean, h, rz_arena_i32(s, at, (size_t)k), rz_arena_i32(s, start, 2), 1, c);
        rz_l2norm(s, unit, rz_arena_f32(s, 1, 1), mean, 1, c);
        rz_download(s, out + i * c, unit, c * sizeof *out);
    }
    rz_arena_release(s, mark);
    ok(rz_stream_sync(s, &err));
    return out;
}

/* n unit vectors of c numbers. */
static void expect_near(const float *a, const float *b, size_t n, size_t c, double least, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t k = 0; k < c; k++) sum += (double)a[i * c + k] * (double)b[i * c + k];
        if (!(sum >= least)) fail_msg("%s: item %zu: cosine %.7f, expected %.7f", what, i, sum, least);
    }
}

/* The same bits; where cuBLAS multiplies, whose sums depend on how many rows there are, as good as the same. */
static void expect_same(float *a, float *b, size_t n, const char *what)
{
    if (!fixture_on_cpu()) expect_near(a, b, n, m->cfg.text.hidden, half ? .998 : .9999, what);
    for (size_t i = 0; i < n * m->cfg.text.hidden && fixture_on_cpu(); i++)
        if (memcmp(&a[i], &b[i], sizeof *a)) fail_msg("%s: number %zu: %a, expected %a", what, i, a[i], b[i]);
    free(a);
    free(b);
}

static void test_rows_nobody_wants(void **state)
{
    (void)state;
    for (size_t d = 0; d < RZ_COUNT(dirs); d++)
        for (int threads = 1; threads <= 2; threads++) {
            open_model(dirs[d], threads);
            const bool special = m->special != NULL;
            for (size_t i = 0; i < MAX_ITEMS; i++) make_item(i, m->cfg.has_vision && i % 2, (int)i, 5 + 9 * i);
            for (size_t n_blocks = 1; n_blocks <= m->cfg.text.layers; n_blocks++) {
                expect_same(vectors(NULL, MAX_ITEMS, RZ_ROWS_LAST, n_blocks),
                            expected(MAX_ITEMS, RZ_ROWS_LAST, n_blocks), MAX_ITEMS, dirs[d]);
                if (special)
                    expect_same(vectors(NULL, MAX_ITEMS, RZ_ROWS_SPECIAL, n_blocks),
                                expected(MAX_ITEMS, RZ_ROWS_SPECIAL, n_blocks), MAX_ITEMS, dirs[d]);
            }
            close_model();
        }
}

/* Global vectors with and without the local ones, which need every row. */
static void test_global_alone(void **state)
{
    (void)state;
    open_model(dirs[0], 1);
    for (size_t i = 0; i < MAX_ITEMS; i++) make_item(i, i % 2 == 0, (int)i, 3 + i);
    rz_net net = {.model = m, .s = s};
    float *all, *local, *alone, a[MAX_ITEMS * 16], b[MAX_ITEMS * 16];
    assert_int_equal(m->cfg.radz.dim, 16);
    rz_mark mark = rz_arena_mark(s);
    rz_encode(&net, items, MAX_ITEMS, &all, &local, NULL);
    rz_download(s, a, all, sizeof a);
    rz_encode(&net, items, MAX_ITEMS, &alone, NULL, NULL);
    rz_download(s, b, alone, sizeof b);
    rz_arena_release(s, mark);
    ok(rz_stream_sync(s, &err));
    if (fixture_on_cpu()) assert_memory_equal(a, b, sizeof a);
    expect_near(a, b, MAX_ITEMS, 16, half ? .998 : .9999, dirs[0]);
    close_model();
}

/* How many rows of item 0 an earlier pass knows. */
static size_t known(rz_reuse *r, size_t n_blocks)
{
    rz_reuse_prompt p = {&prompts[0], items[0].pixels, film_floats(), 1};
    rz_reuse_plan plan = rz_reuse_begin(r, &p, 1, n_blocks);
    rz_reuse_end(r, false);
    return plan.n_before;
}

static void same_with(rz_reuse *r, const char *dir)
{
    const size_t n = m->cfg.text.layers - 1;
    expect_same(vectors(r, 1, RZ_ROWS_LAST, n), expected(1, RZ_ROWS_LAST, n), 1, dir);
}

static void test_same_film(void **state)
{
    (void)state;
    for (size_t d = 0; d < RZ_COUNT(dirs); d++) {
        rz_reuse *r;
        open_model(dirs[d], 2);
        ok(rz_reuse_open(m, true, &r, &err));
        const size_t n = m->cfg.text.layers - 1, to_film = WORDS + m->cfg.image_rows;
        const bool dynamic = m->cfg.text.rope.kind == RZ_ROPE_DYNAMIC;
        for (int k = 0; m->cfg.has_vision && k < 6; k++) {
            make_item(0, 1 + k / 3, k, 4 + 2 * (size_t)k);
            if (k % 3 && !dynamic) assert_int_equal(known(r, n), to_film);
            if (!(k % 3)) assert_in_range(known(r, n), 0, WORDS); /* another film */
            same_with(r, dirs[d]);
            assert_true(rz_reuse_bytes(r) > 0 || dynamic);
        }
        rz_reuse_close(r);
        close_model();
    }
}

static void test_constant_words(void **state)
{
    (void)state;
    for (size_t d = 0; d < RZ_COUNT(dirs); d++) {
        rz_reuse *r;
        open_model(dirs[d], 1);
        ok(rz_reuse_open(m, false, &r, &err));
        const size_t n = m->cfg.text.layers - 1;
        const bool dynamic = m->cfg.text.rope.kind == RZ_ROPE_DYNAMIC;
        for (size_t i = 0; i < MAX_ITEMS; i++) make_item(i, m->cfg.has_vision && i % 2, (int)i, 5 + 9 * i);
        for (int k = 0; k < 3; k++) {
            float *got = vectors(r, MAX_ITEMS, RZ_ROWS_LAST, n);
            expect_same(got, expected(MAX_ITEMS, RZ_ROWS_LAST, n), MAX_ITEMS, dirs[d]);
            make_item(0, 0, 40 + k, 9);
            assert_int_equal(known(r, n), dynamic ? 0 : WORDS);
            make_item(0, 0, 0, 5);
        }
        make_item(0, 0, 9, 20);
        ids[0][2]++; /* another beginning: too short to be of use */
        assert_int_equal(known(r, n), 0);
        same_with(r, dirs[d]);
        same_with(r, dirs[d]);
        rz_reuse_close(r);
        close_model();
    }
}

/* A pass that failed leaves nothing behind. */
static void test_after_failure(void **state)
{
    rz_reuse *r;
    (void)state;
    open_model(dirs[0], 1);
    ok(rz_reuse_open(m, true, &r, &err));
    make_item(0, 1, 1, 9);
    rz_net net = {.model = m, .s = s, .reuse = r};
    const rz_pick pick = {.rows = RZ_ROWS_LAST, .n_blocks = 3, .raw = true};
    ids[0][WORDS + m->cfg.image_rows] = 1 << 28; /* no such token */
    rz_mark mark = rz_arena_mark(s);
    rz_encode_pick(&net, items, 1, &pick);
    rz_arena_release(s, mark);
    assert_int_equal(rz_stream_sync(s, &err), RADZ_E_INTERNAL);
    make_item(0, 1, 1, 9);
    assert_int_equal(known(r, 3), 0);
    same_with(r, dirs[0]);
    rz_reuse_close(r);
    close_model();
}

/* ---- Activations of bfloat16 beside those of float ---- */

/* Vectors of all items, one after another or together. */
static float *four_vectors(const char *dir, const char *weights, bool as_half, bool together)
{
    float *out;
    half = as_half;
    open_as(dir, weights, 2);
    const size_t n_blocks = m->cfg.text.layers - 1, c = m->cfg.text.hidden;
    for (size_t i = 0; i < MAX_ITEMS; i++) make_item(i, m->cfg.has_vision ? (int)i : 0, (int)i, 5 + 9 * i);
    if (together) {
        out = vectors(NULL, MAX_ITEMS, RZ_ROWS_LAST, n_blocks);
        close_model();
        return out;
    }
    out = calloc(MAX_ITEMS * c, sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < MAX_ITEMS; i++) {
        items[0] = items[i];
        float *one = vectors(NULL, 1, RZ_ROWS_LAST, n_blocks);
        memcpy(out + i * c, one, c * sizeof *out);
        free(one);
    }
    close_model();
    return out;
}

/* As near to floats as the rounding of products alone is: trained weights hardly move, those at random more. Alone or
 * in a batch it is the same. */
static void test_half_is_near(void **state)
{
    static const char *const types[] = {"bf16", "int8", "int4/32"}; /* floats beside integers are rounded to 8 bits */
    static const double least[] = {.998, .995, .99};
    (void)state;
    for (size_t d = 0; d <= RZ_COUNT(dirs); d++)
        for (size_t t = 0; t < RZ_COUNT(types); t++) {
            const char *dir = d < RZ_COUNT(dirs) ? dirs[d] : "models/radz-tiny", *weights = types[t];
            float *want = four_vectors(dir, weights, false, true), *got = four_vectors(dir, weights, true, true);
            float *alone = four_vectors(dir, weights, true, false);
            open_as(dir, weights, 1);
            const size_t c = m->cfg.text.hidden;
            const rz_decoder_block *b = m->decoder;
            if (b->gate.w->owned && m->precision.type == RZ_WEIGHTS_BF16 &&
                b->gate.w->n % 32 == 0) /* one product for both */
                assert_ptr_equal(b->up.w->w.data, (const uint8_t *)b->gate.w->w.data + 2 * b->gate.w->n);
            expect_near(got, want, MAX_ITEMS, c, d < RZ_COUNT(dirs) ? least[t] : .9998, dir);
            assert_memory_not_equal(got, want, c * sizeof *got);
            expect_same(got, alone, MAX_ITEMS, dir);
            close_model();
            free(want);
        }
}

/* ---- Through the public API ---- */

static void embed(radz_session *session, const radz_image *image, const char *prompt, float *out)
{
    radz_embed_options o;
    radz_embed_options_init(&o);
    o.image_prompt = prompt;
    ok(radz_embed_images(session, &image, 1, &o, out, &err));
}

static void test_prompts_on_a_film(void **state)
{
    static const char *const asked[] = {"<image>\nIs there an effusion?", "<image>\nAnd now?", NULL};
    radz_runtime_options on_cpu;
    radz_runtime *runtime;
    radz_model *model;
    radz_session *plain, *keeping;
    radz_session_options so;
    radz_image *image;
    size_t n;
    float a[16], b[16], own[16];
    (void)state;
    radz_session_options_init(&so);
    so.keep_film = 1;
    uint8_t *png = fixture_png_bytes(40, 30, 1, 5, &n);
    radz_runtime_options_init(&on_cpu);
    on_cpu.device = "cpu";
    ok(radz_runtime_create(&on_cpu, &runtime, &err));
    ok(radz_model_open(runtime, dirs[0], NULL, &model, &err));
    radz_runtime_close(runtime);
    ok(radz_session_open(model, NULL, &plain, &err));
    ok(radz_session_open(model, &so, &keeping, &err));
    ok(radz_image_open_memory(NULL, png, n, &image, &err));
    ok(radz_embed_images(plain, (const radz_image *const *)&image, 1, NULL, own, &err));
    for (size_t i = 0; i < 2 * RZ_COUNT(asked); i++) {
        const char *prompt = asked[i % RZ_COUNT(asked)];
        embed(plain, image, prompt, a);
        embed(keeping, image, prompt, b);
        assert_memory_equal(a, b, sizeof a);
        assert_int_equal(!memcmp(a, own, sizeof a), prompt == NULL);
    }
    static const char *const wrong[] = {"no place", "<image> and <image>", "<image>\xff"};
    for (size_t i = 0; i < RZ_COUNT(wrong); i++) {
        radz_embed_options o;
        radz_embed_options_init(&o);
        o.image_prompt = wrong[i];
        assert_int_equal(radz_embed_images(plain, (const radz_image *const *)&image, 1, &o, a, &err), RADZ_E_ARGUMENT);
        assert_true(isnan(a[0]));
    }
    so.keep_film = 2;
    radz_session *none;
    assert_int_equal(radz_session_open(model, &so, &none, &err), RADZ_E_ARGUMENT);
    radz_image_close(image);
    radz_session_close(plain);
    radz_session_close(keeping);
    radz_model_close(model);
    free(png);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_rows_nobody_wants, with_float),
        cmocka_unit_test_setup(test_rows_nobody_wants, with_half),
        cmocka_unit_test_setup(test_global_alone, with_float),
        cmocka_unit_test_setup(test_global_alone, with_half),
        cmocka_unit_test_setup(test_same_film, with_float),
        cmocka_unit_test_setup(test_same_film, with_half),
        cmocka_unit_test_setup(test_constant_words, with_float),
        cmocka_unit_test_setup(test_constant_words, with_half),
        cmocka_unit_test_setup(test_after_failure, with_float),
        cmocka_unit_test(test_half_is_near),
        cmocka_unit_test(test_prompts_on_a_film),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
