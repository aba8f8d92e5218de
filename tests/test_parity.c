/* test_parity.c - every stage of the network against PyTorch + transformers (tests/parity/README.md).
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "bank.h"
#include "compute_help.h"
#include "decoder.h"
#include "encode.h"
#include "fixture.h"
#include "heads.h"
#include "losses.h"
#include "optimizer.h"
#include "projector.h"
#include "score.h"
#include "scratch.h"
#include "tower.h"

#define DIR_TINY "tests/parity/llava_tiny"
#define STAGE_TOL 1e-5 /* of the largest magnitude in the tensor */
#define GRAD_TOL 1e-4

enum { N_ITEMS = 5, N_STATES = 5, LAYER = 3, HIDDEN = 24, DIM = 16, PIXELS = 3 * 32 * 32 };
static const char *const item_names[N_ITEMS] = {"img0", "img1", "txt0", "txt1", "dis0"};
static const rz_item_kind item_kinds[N_ITEMS] = {RZ_ITEM_IMAGE, RZ_ITEM_IMAGE, RZ_ITEM_TEXT, RZ_ITEM_TEXT,
                                                 RZ_ITEM_DISEASE};

/* ---- What a test works with --------------------------------------------------------- */

typedef struct world {
    rz_device *dev;
    rz_stream *s;
    rz_model *m;
    rz_st *want;
    rz_net net;
} world;

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

/* kernels: a kernel set by name, "wide" (AVX-512's logic for any CPU) or "openblas". Skips where this machine lacks it.
 * A GPU is in the place of the portable ones. */
static rz_device *open_device(const char *kernels)
{
    const bool cpu = fixture_on_cpu(), blas = !strcmp(kernels, "openblas"), wide = !strcmp(kernels, "wide");
    rz_device_options o = {"cpu", blas ? "auto" : wide ? "portable" : kernels, blas ? "openblas" : "own", 2};
    if (!cpu) o = (rz_device_options){.device = fixture_device(), .n_threads = 2};
    rz_device *dev = NULL;
    radz_status status = rz_device_open(NULL, &o, &dev, &err);
    if (status == RADZ_E_DEVICE && cpu) skip();
    ok(status);
    if (wide) dev->kernels = &rz_kernels_wide;
    return dev;
}

static void open_world(world *w, const char *kernels, const char *dir, rz_model_mode mode, const char *want)
{
    *w = (world){0};
    w->dev = open_device(kernels);
    ok(rz_stream_open(w->dev, &w->s, &err));
    ok(rz_model_load(NULL, w->dev, dir, mode, 1, &w->m, &err));
    ok(rz_st_open(NULL, want, RZ_FILE_READ, &w->want, &err));
    w->net = (rz_net){.model = w->m, .s = w->s, .keep = mode == RZ_MODEL_TRAIN};
}

static void close_world(world *w)
{
    rz_model_unload(w->m);
    rz_st_close(w->want);
    rz_stream_close(w->s);
    rz_device_close(w->dev);
}

#define WORLD(w, kernels) open_world(&(w), (kernels), DIR_TINY, RZ_MODEL_INFER, DIR_TINY "/expected.safetensors")

__attribute__((format(printf, 2, 3))) static const rz_st_tensor *tensor(const world *w, const char *fmt, ...)
{
    char name[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const rz_st_tensor *t = rz_st_find(w->want, name);
    if (!t) fail_msg("the fixture has no tensor '%s'", name);
    return t;
}

/* A fixture's floats on the device. */
static float *upload(const world *w, const rz_st_tensor *t)
{
    float *host = malloc(t->n_elements * sizeof *host), *p = rz_arena_f32(w->s, 1, t->n_elements);
    assert_non_null(host);
    ok(rz_st_to_f32(t, host, &err));
    rz_upload(w->s, p, host, t->n_elements * sizeof *host);
    free(host);
    return p;
}

static double largest(const float *x, size_t n)
{
    double max = 0;
    for (size_t i = 0; i < n; i++) max = fmax(max, fabs((double)x[i]));
    return max;
}

/* got against want[0..n), host memory; NaN never passes. */
static void near_host(const char *what, const float *got, const float *want, size_t n, double tolerance, double scale)
{
    for (size_t i = 0; i < n; i++) {
        double diff = fabs((double)got[i] - (double)want[i]);
        if (!(diff <= tolerance * scale))
            fail_msg("%s[%zu]: %.9g, expected %.9g (off by %.2g of %.3g)", what, i, (double)got[i], (double)want[i],
                     diff / scale, scale);
    }
}

/* Device floats against rows from `skip_rows` on of a fixture tensor. */
static void near_part(const world *w, const float *got, const rz_st_tensor *t, size_t first, size_t n, double tolerance)
{
    float *want = malloc(t->n_elements * sizeof *want), *host = malloc(n * sizeof *host);
    assert_true(want && host && first + n <= t->n_elements);
    ok(rz_st_to_f32(t, want, &err));
    rz_download(w->s, host, got, n * sizeof *host);
    ok(rz_stream_sync(w->s, &err));
    near_host(t->name, host, want + first, n, tolerance, largest(want, t->n_elements));
    free(want);
    free(host);
}

/* The same of floats in host memory. */
static void near_tensor(const float *got, const rz_st_tensor *t, double tolerance)
{
    float *want = malloc(t->n_elements * sizeof *want);
    assert_non_null(want);
    ok(rz_st_to_f32(t, want, &err));
    near_host(t->name, got, want, t->n_elements, tolerance, largest(want, t->n_elements));
    free(want);
}

static void near(const world *w, const float *got, const rz_st_tensor *t, double tolerance)
{
    near_part(w, got, t, 0, t->n_elements, tolerance);
}

/* Prompts of the fixture. */
typedef struct batch {
    size_t n;
    rz_item items[12];
    rz_prompt prompts[12];
    float *pixels;
} batch;

static void batch_put(const world *w, batch *b, const char *name, rz_item_kind kind, size_t film)
{
    const rz_st_tensor *t = tensor(w, "%s.ids", name);
    rz_prompt *p = &b->prompts[b->n];
    assert_string_equal(t->dtype, "I32");
    p->n = t->n_elements;
    p->ids = malloc(t->n_bytes);
    assert_non_null(p->ids);
    memcpy(p->ids, t->data, t->n_bytes);
    b->items[b->n++] =
        (rz_item){.kind = kind, .pixels = kind == RZ_ITEM_IMAGE ? b->pixels + film * PIXELS : NULL, .prompt = p};
}

static void batch_pixels(const world *w, batch *b)
{
    const rz_st_tensor *t = tensor(w, "pixels");
    *b = (batch){.pixels = malloc(t->n_elements * sizeof(float))};
    assert_non_null(b->pixels);
    ok(rz_st_to_f32(t, b->pixels, &err));
}

static void batch_items(const world *w, batch *b)
{
    batch_pixels(w, b);
    for (size_t i = 0; i < N_ITEMS; i++) batch_put(w, b, item_names[i], item_kinds[i], i);
}

static void batch_free(batch *b)
{
    for (size_t i = 0; i < b->n; i++) free(b->prompts[i].ids);
    free(b->pixels);
}

/* ---- Stages, each on the oracle's own input --------------------------------------------- */

static void test_tower(void **state)
{
    world w;
    WORLD(w, *state);
    float *pixels = upload(&w, tensor(&w, "pixels"));
    for (size_t blocks = 0; blocks <= 3; blocks++) {
        float *h = rz_tower_forward(&w.net, pixels, 2, blocks, NULL);
        near(&w, h, tensor(&w, "tower.hidden_states.%zu", blocks), STAGE_TOL);
    }
    close_world(&w);
}

static void test_projector(void **state)
{
    world w;
    WORLD(w, *state);
    rz_projector_acts acts;
    float *h = upload(&w, tensor(&w, "tower.hidden_states.2"));
    const rz_st_tensor *want = tensor(&w, "projector");
    for (size_t film = 0; film < 2; film++) { /* the class row is dropped */
        float *y = rz_projector_forward(&w.net, h + (film * 17 + 1) * HIDDEN, 16, &acts);
        near_part(&w, y, want, film * 16 * HIDDEN, 16 * HIDDEN, STAGE_TOL);
    }
    close_world(&w);
}

/* The five prompts' rows one after another, as hidden_states[state]. */
static float *ragged(const world *w, size_t state, int32_t *start, rz_ragged *seq)
{
    for (size_t i = 0; i < N_ITEMS; i++)
        start[i + 1] = start[i] + (int32_t)tensor(w, "%s.ids", item_names[i])->n_elements;
    float *x = rz_arena_f32(w->s, (size_t)start[N_ITEMS], HIDDEN);
    for (size_t i = 0; i < N_ITEMS; i++) {
        const rz_st_tensor *t = tensor(w, "%s.hidden_states.%zu", item_names[i], state);
        rz_copy(w->s, x + (size_t)start[i] * HIDDEN, upload(w, t), t->n_elements * sizeof *x);
    }
    *seq = (rz_ragged){N_ITEMS, start, rz_arena_i32(w->s, start, N_ITEMS + 1)};
    return x;
}

static void test_decoder(void **state)
{
    world w;
    WORLD(w, *state);
    int32_t start[N_ITEMS + 1] = {0};
    rz_ragged seq;
    for (size_t blocks = 1; blocks < N_STATES; blocks++) {
        float *x = ragged(&w, 0, start, &seq), *h = rz_decoder_forward(&w.net, x, seq, blocks, NULL);
        for (size_t i = 0; i < N_ITEMS; i++) {
            if (blocks == N_STATES - 1) {
                const float *last = h + ((size_t)start[i + 1] - 1) * HIDDEN;
                near(&w, rz_decoder_logits(&w.net, last, 1), tensor(&w, "%s.logits", item_names[i]), STAGE_TOL);
            } else
                near(&w, h + (size_t)start[i] * HIDDEN, tensor(&w, "%s.hidden_states.%zu", item_names[i], blocks),
                     STAGE_TOL);
        }
    }
    close_world(&w);
}

static const rz_head *head_of(const rz_model *m, rz_item_kind kind)
{
    return kind == RZ_ITEM_IMAGE ? &m->gamma_img : kind == RZ_ITEM_TEXT ? &m->gamma_txt : &m->gamma_dis;
}

/* Group 0: the special rows, group 1: all others. */
static rz_groups split_rows(const world *w, const rz_st_tensor *ids)
{
    int32_t rows[256], start[3] = {0};
    assert_true(ids->n_elements <= RZ_COUNT(rows));
    for (int g = 0; g < 2; g++) {
        start[g + 1] = start[g];
        for (size_t i = 0; i < ids->n_elements; i++) {
            int32_t id;
            memcpy(&id, ids->data + 4 * i, 4);
            if ((id >= (int32_t)w->m->cfg.text.vocab) == !g) rows[start[g + 1]++] = (int32_t)i;
        }
    }
    return (rz_groups){2, ids->n_elements, rz_arena_i32(w->s, rows, ids->n_elements), rz_arena_i32(w->s, start, 3)};
}

static void test_heads(void **state)
{
    world w;
    WORLD(w, *state);
    for (int swapped = 0; swapped < 2; swapped++)
        for (size_t i = 0; i < N_ITEMS; i++) {
            const char *pool = swapped ? "mlp_then_mean" : "mean_then_mlp", *name = item_names[i];
            float *h = upload(&w, tensor(&w, "%s.hidden_states.%d", name, LAYER));
            rz_head_acts a;
            w.m->cfg.radz.mlp_then_mean = swapped;
            float *unit =
                rz_head_forward(&w.net, head_of(w.m, item_kinds[i]), h, split_rows(&w, tensor(&w, "%s.ids", name)), &a);
            if (!swapped) near(&w, a.x, tensor(&w, "%s.pooled", name), STAGE_TOL);
            near(&w, a.out, tensor(&w, "%s.gamma.%s", name, pool), STAGE_TOL);
            near(&w, unit, tensor(&w, "%s.unit.%s", name, pool), STAGE_TOL);
        }
    close_world(&w);
}

/* ---- The whole way ------------------------------------------------------------------------- */

/* Vectors of the five items against "<prefix><item>.unit<suffix>". */
static void check_vectors(world *w, const char *prefix, const char *suffix)
{
    batch b;
    float *global, *local;
    size_t dim = w->m->cfg.radz.dim;
    batch_items(w, &b);
    rz_mark mark = rz_arena_mark(w->s);
    rz_encode(&w->net, b.items, b.n, &global, &local, NULL);
    ok(rz_stream_sync(w->s, &err));
    for (size_t i = 0; i < N_ITEMS; i++) {
        const rz_st_tensor *t = tensor(w, "%s%s.unit%s", prefix, item_names[i], suffix);
        assert_int_equal(t->n_elements, 2 * dim);
        near_part(w, global + i * dim, t, 0, dim, STAGE_TOL);
        near_part(w, local + i * dim, t, dim, dim, STAGE_TOL);
    }
    rz_arena_release(w->s, mark);
    batch_free(&b);
}

static void test_encode(void **state)
{
    world w;
    WORLD(w, *state);
    check_vectors(&w, "", ".mean_then_mlp");
    w.m->cfg.radz.mlp_then_mean = true;
    check_vectors(&w, "", ".mlp_then_mean");
    close_world(&w);
}

/* An item alone has the bits it has in a batch, with one feature asked for or both; cuBLAS sums as it likes. */
static void test_alone(void **state)
{
    world w;
    WORLD(w, *state);
    batch b;
    float *global, *local, *one, all[2][N_ITEMS * DIM], alone[DIM];
    batch_items(&w, &b);
    rz_encode(&w.net, b.items, b.n, &global, &local, NULL);
    rz_download(w.s, all[0], global, sizeof all[0]);
    rz_download(w.s, all[1], local, sizeof all[1]);
    for (size_t i = 0; i < N_ITEMS; i++)
        for (int feature = 0; feature < 2; feature++) {
            rz_encode(&w.net, &b.items[i], 1, feature ? NULL : &one, feature ? &one : NULL, NULL);
            rz_download(w.s, alone, one, sizeof alone);
            ok(rz_stream_sync(w.s, &err));
            if (fixture_on_cpu()) assert_memory_equal(alone, all[feature] + i * DIM, sizeof alone);
            near_host(item_names[i], alone, all[feature] + i * DIM, DIM, STAGE_TOL, 1);
        }
    batch_free(&b);
    close_world(&w);
}

static void test_prompts(void **state)
{
    world w;
    WORLD(w, *state);
    for (size_t i = 0; i < N_ITEMS; i++) {
        const rz_st_tensor *ids = tensor(&w, "%s.ids", item_names[i]);
        rz_prompt p;
        if (item_kinds[i] == RZ_ITEM_IMAGE)
            ok(rz_prompt_image(NULL, w.m, &p, &err));
        else {
            const rz_st_tensor *t = tensor(&w, "%s.text", item_names[i]);
            char *text = rz_strndup(NULL, (const char *)t->data, t->n_elements);
            ok(rz_prompt_text(NULL, w.m, text, &p, &err));
            rz_free(NULL, text);
        }
        assert_int_equal(p.n, ids->n_elements);
        assert_memory_equal(p.ids, ids->data, ids->n_bytes);
        rz_prompt_free(NULL, &p);
    }
    const char *labels[] = {"pleural effusion"};
    char *text = rz_prompt_label_text(NULL, w.m, labels, 1);
    const rz_st_tensor *t = tensor(&w, "txt0.text");
    assert_int_equal(strlen(text), t->n_elements);
    assert_memory_equal(text, t->data, t->n_elements);
    rz_free(NULL, text);
    close_world(&w);
}

/* What a user writes is text: no token is special, no place is an image's. Too long is an error, never a cut. */
static void test_text_is_text(void **state)
{
    world w;
    WORLD(w, *state);
    const int32_t vocab = (int32_t)w.m->cfg.text.vocab;
    rz_prompt p;
    ok(rz_prompt_text(NULL, w.m, "<image> <ImgCls0><TxtCls1></s>{text} <unk>", &p, &err));
    for (size_t i = 0; i < p.n; i++) {
        if (i + 8 < p.n)
            assert_in_range(p.ids[i], i ? 3 : 1, vocab - 1);
        else
            assert_int_equal(p.ids[i], vocab + 4 + (int32_t)(i + 8 - p.n));
    }
    rz_prompt_free(NULL, &p);
    char longer[4096];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_int_equal(rz_prompt_text(NULL, w.m, longer, &p, &err), RADZ_E_LIMIT);
    assert_non_null(strstr(err.message, "at most 256"));
    assert_null(p.ids);
    close_world(&w);
}

static int countdown(void *user)
{
    int *left = user;
    return (*left)-- <= 0;
}

/* Stopped at any of the asked places, the next pass is as if nothing had been. */
static void test_cancel(void **state)
{
    world w;
    WORLD(w, *state);
    batch b;
    float *global;
    batch_items(&w, &b);
    radz_status status = RADZ_E_CANCELLED;
    int asked = 0;
    for (; status; asked++) {
        int left = asked;
        w.net.cancel_fn = countdown, w.net.user = &left;
        rz_mark mark = rz_arena_mark(w.s);
        rz_encode(&w.net, b.items, b.n, &global, NULL, NULL);
        status = rz_stream_sync(w.s, &err);
        rz_arena_release(w.s, mark);
        if (status) assert_int_equal(status, RADZ_E_CANCELLED);
    }
    assert_int_equal(asked - 1, 2 + 3); /* after every block of tower and decoder */
    w.net.cancel_fn = NULL;
    check_vectors(&w, "", ".mean_then_mlp");
    batch_free(&b);
    close_world(&w);
}

/* ---- Other files with the same weights -------------------------------------------------------- */

/* How a layout calls the five parts; the projector's layers are numbered or named. */
typedef struct layout {
    const char *name, *decoder, *lm_head, *tower, *projector[2];
} layout;
static const layout layouts[] = {
    {"original",
     "model.",
     "lm_head.",
     "model.vision_tower.vision_tower.vision_model.",
     {"model.mm_projector.0.", "model.mm_projector.2."}},
    {"Hugging Face <= 4.51",
     "language_model.model.",
     "language_model.lm_head.",
     "vision_tower.vision_model.",
     {"multi_modal_projector.linear_1.", "multi_modal_projector.linear_2."}},
    {"Hugging Face >= 4.52",
     "model.language_model.",
     "lm_head.",
     "model.vision_tower.",
     {"model.multi_modal_projector.linear_1.", "model.multi_modal_projector.linear_2."}},
    {"Hugging Face >= 4.52, tower's inner name kept",
     "model.language_model.",
     "lm_head.",
     "model.vision_tower.vision_model.",
     {"model.multi_modal_projector.linear_1.", "model.multi_modal_projector.linear_2."}},
};
/* As transformers 5 writes it: neither of the three. */
static const layout fixture_layout = {"transformers 5",
                                      "language_model.model.",
                                      "language_model.lm_head.",
                                      "vision_tower.",
                                      {"multi_modal_projector.linear_1.", "multi_modal_projector.linear_2."}};

static char *rename_tensor(const layout *to, const char *name)
{
    const layout *f = &fixture_layout;
    const char *pairs[][2] = {{f->decoder, to->decoder},
                              {f->lm_head, to->lm_head},
                              {f->tower, to->tower},
                              {f->projector[0], to->projector[0]},
                              {f->projector[1], to->projector[1]}};
    rz_str s = {0};
    for (size_t i = 0; i < RZ_COUNT(pairs); i++)
        if (!strncmp(name, pairs[i][0], strlen(pairs[i][0]))) {
            rz_str_puts(&s, pairs[i][1]);
            rz_str_puts(&s, name + strlen(pairs[i][0]));
            return s.data;
        }
    fail_msg("no part of the network is called '%s'", name);
    return NULL;
}

static void *convert(const rz_st_tensor *t, const char *dtype)
{
    float *f = malloc(t->n_elements * sizeof *f);
    uint16_t *half = malloc(t->n_elements * sizeof *half);
    assert_true(f && half);
    ok(rz_st_to_f32(t, f, &err));
    for (size_t i = 0; i < t->n_elements; i++)
        half[i] = !strcmp(dtype, "BF16") ? rz_f32_to_bf16(f[i]) : rz_f32_to_f16(f[i]);
    if (!strcmp(dtype, "F32")) {
        free(half);
        return f;
    }
    free(f);
    return half;
}

static void write_weights(const char *dir, const layout *to, const char *dtype)
{
    rz_st *st;
    ok(rz_st_open(NULL, DIR_TINY "/model.safetensors", RZ_FILE_READ, &st, &err));
    size_t n = rz_st_count(st);
    rz_st_out *out = calloc(n, sizeof *out);
    for (size_t i = 0; i < n; i++) {
        const rz_st_tensor *t = rz_st_at(st, i);
        out[i] = (rz_st_out){rename_tensor(to, t->name), dtype, t->n_dims, {0}, convert(t, dtype)};
        memcpy(out[i].dims, t->dims, sizeof out[i].dims);
    }
    char *path = rz_path_join(NULL, dir, "model.safetensors");
    ok(rz_st_write(NULL, path, out, n, NULL, &err));
    rz_free(NULL, path);
    for (size_t i = 0; i < n; i++) {
        rz_free(NULL, (char *)out[i].name);
        free((void *)out[i].data);
    }
    free(out);
    rz_st_close(st);
}

/* Everything but weights and radz.json. */
static void make_scratch(void)
{
    static const char *const files[] = {"config.json", "preprocessor_config.json", "radz.safetensors",
                                        "tokenizer.model"};
    scratch_make();
    for (size_t i = 0; i < RZ_COUNT(files); i++) scratch_copy(DIR_TINY, files[i], NULL, NULL);
}

static void check_scratch(const char *kernels, rz_model_mode mode, const char *prefix, const char *suffix)
{
    world w;
    open_world(&w, kernels, scratch_dir(), mode, DIR_TINY "/expected.safetensors");
    check_vectors(&w, prefix, suffix);
    close_world(&w);
}

static void test_layouts(void **state)
{
    rz_device_close(open_device(*state)); /* skips before anything is written */
    for (size_t i = 0; i < RZ_COUNT(layouts); i++) {
        make_scratch();
        scratch_copy(DIR_TINY, "radz.json", NULL, NULL);
        write_weights(scratch_dir(), &layouts[i], "F32");
        check_scratch(*state, RZ_MODEL_INFER, "", ".mean_then_mlp");
        check_scratch(*state, RZ_MODEL_TRAIN, "", ".mean_then_mlp");
        scratch_remove();
    }
}

static void test_pool_settings(void **state)
{
    rz_device_close(open_device(*state));
    make_scratch();
    write_weights(scratch_dir(), &fixture_layout, "F32");
    scratch_copy(DIR_TINY, "radz.json", "mean_then_mlp", "mlp_then_mean");
    check_scratch(*state, RZ_MODEL_READ, "", ".mlp_then_mean");
    scratch_copy(DIR_TINY, "radz.json", "\"mlp\"", "\"identity\"");
    check_scratch(*state, RZ_MODEL_READ, "", ".identity");
    scratch_remove();
}

static void test_half_weights(void **state)
{
    static const char *const dtypes[][2] = {{"BF16", "bf16."}, {"F16", "f16."}};
    rz_device_close(open_device(*state));
    for (size_t i = 0; i < RZ_COUNT(dtypes); i++) {
        make_scratch();
        scratch_copy(DIR_TINY, "radz.json", NULL, NULL);
        write_weights(scratch_dir(), &fixture_layout, dtypes[i][0]);
        for (int mode = RZ_MODEL_INFER; mode <= RZ_MODEL_TRAIN; mode++)
            check_scratch(*state, (rz_model_mode)mode, dtypes[i][1], "");
        scratch_remove();
    }
}

static void test_save(void **state)
{
    world w;
    rz_device_close(open_device(*state));
    make_scratch();
    scratch_copy(DIR_TINY, "radz.json", NULL, NULL);
    open_world(&w, *state, DIR_TINY, RZ_MODEL_TRAIN, DIR_TINY "/expected.safetensors");
    ok(rz_model_save(w.m, scratch_dir(), "F32", NULL, &err));
    close_world(&w);
    check_scratch(*state, RZ_MODEL_INFER, "", ".mean_then_mlp");
    scratch_remove();
}

/* ---- Training ------------------------------------------------------------------------------------ */

enum { B = 3, N_CLASSES = 4 };

static void training_batch(const world *w, batch *b)
{
    char name[16];
    static const char *const kinds[] = {"img", "txt", "dis"};
    batch_pixels(w, b);
    for (int k = 0; k < 3; k++)
        for (size_t i = 0; i < (k == 2 ? N_CLASSES : B); i++) {
            snprintf(name, sizeof name, "%s%zu", kinds[k], i);
            batch_put(w, b, name, (rz_item_kind)k, i);
        }
}

/* L_CG's targets as the authors' code has them: row i is of class i. */
static void targets_by_row(const world *w, rz_loss_input *in)
{
    float eye[B * N_CLASSES] = {0}, *targets = rz_arena_f32(w->s, B, N_CLASSES);
    for (size_t i = 0; i < B; i++) eye[i * N_CLASSES + i] = 1;
    rz_upload(w->s, targets, eye, sizeof eye);
    in->targets = targets, in->keep = in->keep_classes = NULL;
}

/* Forward, loss and backward of the batch; gradients are added. */
static rz_loss_output pass(const world *w, const batch *b)
{
    const size_t dim = w->m->cfg.radz.dim;
    rz_mark mark = rz_arena_mark(w->s);
    float *global, *local;
    rz_encoding *acts;
    rz_loss_output out;
    rz_encode(&w->net, b->items, b->n, &global, &local, &acts);
    float *dglobal = rz_arena_zeros(w->s, b->n, dim), *dlocal = rz_arena_zeros(w->s, b->n, dim);
    rz_loss_input in = {.b = B,
                        .n_classes = N_CLASSES,
                        .dim = dim,
                        .xg = global,
                        .xl = local,
                        .yg = global + B * dim,
                        .yl = local + B * dim,
                        .d = global + 2 * B * dim,
                        .targets = upload(w, tensor(w, "targets")),
                        .keep = upload(w, tensor(w, "keep")),
                        .keep_classes = upload(w, tensor(w, "keep_classes")),
                        .tau = rz_model_tau(w->m, w->s),
                        .lambda = w->m->cfg.radz.lambda};
    if (w->m->cfg.radz.embedding_anchors) targets_by_row(w, &in);
    rz_loss_grads g = {dglobal, dlocal, dglobal + B * dim, dlocal + B * dim, dglobal + 2 * B * dim, 0};
    ok(rz_losses(w->s, &in, &g, &out, &err));
    rz_encode_backward(&w->net, acts, dglobal, dlocal);
    float dlog_tau = (float)g.dlog_tau, *up = rz_arena_f32(w->s, 1, 1);
    rz_upload(w->s, up, &dlog_tau, sizeof dlog_tau);
    rz_add(w->s, w->m->log_tau->grad, up, 1);
    ok(rz_stream_sync(w->s, &err));
    rz_arena_release(w->s, mark);
    return out;
}

/* Every parameter gets a gradient, also those that no vector depends on. */
static void open_training(world *w, const char *kernels)
{
    open_world(w, kernels, DIR_TINY, RZ_MODEL_TRAIN, DIR_TINY "/grads.safetensors");
    for (size_t i = 0; i < w->m->n_params; i++) {
        rz_param *p = &w->m->params[i];
        void *grad;
        ok(rz_device_alloc(w->dev, p->n * sizeof *p->grad, &grad, &err));
        p->grad = grad; /* freed with the model */
        rz_fill(w->s, p->grad, 0.0f, p->n);
    }
}

static void near_losses(const world *w, size_t step, rz_loss_output got)
{
    float host[30];
    const double three[] = {got.loss, got.ca, got.cg};
    const rz_st_tensor *t = tensor(w, "losses");
    assert_int_equal(t->n_elements, RZ_COUNT(host));
    ok(rz_st_to_f32(t, host, &err));
    for (size_t i = 0; i < 3; i++) {
        float value = (float)three[i];
        near_host("losses", &value, &host[step * 3 + i], 1, GRAD_TOL, fabs((double)host[step * 3 + i]));
    }
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* Every gradient. Parameters behind the chosen layer have none in PyTorch: zero here. A key bias shifts all scores of
 * a query alike, so its gradient is zero but for rounding: held to 1e-6 of the model's gradients. */
static void test_gradients(void **state)
{
    world w;
    batch b;
    size_t n_compared = 0, n_fixture = 0;
    open_training(&w, *state);
    training_batch(&w, &b);
    near_losses(&w, 0, pass(&w, &b));
    for (size_t i = 0; i < w.m->n_params; i++) {
        const rz_param *p = &w.m->params[i];
        char name[200];
        snprintf(name, sizeof name, "grad.%s", p->name);
        const rz_st_tensor *t = rz_st_find(w.want, name);
        if (t && !ends_with(name, "k_proj.bias")) {
            assert_int_equal(t->n_elements, p->n);
            near(&w, p->grad, t, GRAD_TOL);
        } else {
            float *host = malloc(p->n * sizeof *host);
            rz_download(w.s, host, p->grad, p->n * sizeof *host);
            if (largest(host, p->n) > (t ? 1e-6 : 0.0)) fail_msg("%s: gradient is not zero", p->name);
            free(host);
        }
        n_compared += t != NULL;
    }
    for (size_t i = 0; i < rz_st_count(w.want); i++) n_fixture += !strncmp(rz_st_at(w.want, i)->name, "grad.", 5);
    assert_int_equal(n_compared, n_fixture);
    batch_free(&b);
    close_world(&w);
}

static void adamw(const world *w, int64_t step, float **moments)
{
    const rz_adamw o = {1e-3f, .9f, .999f, 1e-8f, .01f, 1.0f, step};
    for (size_t i = 0; i < w->m->n_params; i++) {
        rz_param *p = &w->m->params[i];
        float *data = (float *)(uintptr_t)p->w.data;
        const rz_adamw_slot slot = {data, moments[i], moments[i] + p->n, p->grad, NULL, p->n, true};
        rz_adamw_step(w->s, &o, &slot, 1);
        rz_fill(w->s, p->grad, 0.0f, p->n);
    }
}

static void test_ten_steps(void **state)
{
    world w;
    batch b;
    size_t n_compared = 0;
    open_training(&w, *state);
    training_batch(&w, &b);
    float **moments = calloc(w.m->n_params, sizeof *moments);
    for (size_t i = 0; i < w.m->n_params; i++) moments[i] = rz_arena_zeros(w.s, 2, w.m->params[i].n);
    for (size_t step = 0; step < 10; step++) {
        near_losses(&w, step, pass(&w, &b));
        adamw(&w, (int64_t)step + 1, moments);
    }
    for (size_t i = 0; i < w.m->n_params; i++) {
        char name[200];
        snprintf(name, sizeof name, "after.%s", w.m->params[i].name);
        const rz_st_tensor *t = rz_st_find(w.want, name);
        if (!t) continue;
        n_compared++;
        near(&w, w.m->params[i].w.data, t, GRAD_TOL);
    }
    assert_int_equal(n_compared, 14);
    free(moments);
    batch_free(&b);
    close_world(&w);
}

/* ---- Training a part of the model, against PyTorch and peft (make_training.py) --------------------------- */

typedef struct recipe {
    const char *name;
    rz_train_setup setup;
    bool bf16_files, learn_tau, mlp_then_mean, recompute, half;
    const char *gamma, *vectors; /* in place of what radz.json says */
    double tolerance;            /* 0: GRAD_TOL */
} recipe;

static const recipe recipes[] = {
    {.name = "lora", .setup = {.lora_rank = 4, .lora_alpha = 8}},
    {.name = "lora_rs_projector",
     .setup =
         {.projector = true, .lora_rank = 3, .lora_alpha = 6, .lora_rslora = true, .lora_targets = "q_proj,v_proj"}},
    {.name = "lora_bf16", .setup = {.lora_rank = 4, .lora_alpha = 8}, .bf16_files = true, .recompute = true},
    {.name = "tau_mlp_first",
     .setup = {.tower = true, .projector = true, .decoder = true},
     .learn_tau = true,
     .mlp_then_mean = true},
    {.name = "identity", .setup = {.tower = true, .projector = true, .decoder = true}, .gamma = "identity"},
    /* a master's last bit can decide which bfloat16 it becomes */
    {.name = "half", .setup = {.tower = true, .projector = true, .decoder = true}, .half = true, .tolerance = 2e-3},
    {.name = "refcode", .setup = {.lora_rank = 4, .lora_alpha = 8}, .mlp_then_mean = true, .vectors = "refcode"},
};

/* The tiny model with its weights in bf16. */
static void write_half(rz_device *dev)
{
    static const char *const files[] = {"config.json", "preprocessor_config.json", "radz.json", "tokenizer.model"};
    rz_model *m;
    scratch_make();
    for (size_t i = 0; i < RZ_COUNT(files); i++) scratch_copy(DIR_TINY, files[i], NULL, NULL);
    ok(rz_model_load(NULL, dev, DIR_TINY, RZ_MODEL_READ, 0, &m, &err));
    ok(rz_model_save(m, scratch_dir(), "BF16", NULL, &err));
    rz_model_unload(m);
}

static const rz_st_tensor *of_recipe(const rz_st *st, const char *prefix, const char *name)
{
    char full[200];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return rz_st_find(st, full);
}

static void open_recipe(world *w, const recipe *r, const char *kernels, const rz_st *st, rz_optimizer *o)
{
    *w = (world){0};
    w->dev = open_device(kernels);
    char settings[300];
    if (r->bf16_files)
        write_half(w->dev);
    else if (r->gamma) {
        snprintf(settings, sizeof settings, "%s/radz.json", scratch_make());
        scratch_copy(DIR_TINY, "radz.json", "\"mlp\"", "\"identity\"");
    }
    const rz_source source = {
        .dir = r->bf16_files ? scratch_dir() : DIR_TINY, .settings = r->gamma ? settings : NULL, .vectors = r->vectors};
    ok(rz_stream_open(w->dev, &w->s, &err));
    ok(rz_model_load_train(NULL, w->dev, &source, &r->setup, 1, &w->m, &err));
    ok(rz_st_open(NULL, DIR_TINY "/grads.safetensors", RZ_FILE_READ, &w->want, &err));
    w->net = (rz_net){.model = w->m, .s = w->s, .keep = true, .recompute = r->recompute};
    w->m->cfg.radz.mlp_then_mean = r->mlp_then_mean;
    for (size_t i = 0; i < w->m->n_params; i++) {
        const rz_param *p = &w->m->params[i];
        assert_true(p->trained || !rz_device_is_host(w->dev) || p->n_dims < 2 || !p->owned || p == w->m->positions ||
                    p == w->m->special);
        if (p->adapter) {
            const rz_st_tensor *t = of_recipe(st, "start.", p->name);
            assert_non_null(t);
            rz_copy(w->s, (float *)(uintptr_t)p->w.data, upload(w, t), p->n * sizeof(float));
        }
    }
    ok(rz_optimizer_open(NULL, w->m, w->s, r->learn_tau, r->half, o, &err));
}

static rz_loss_output recipe_pass(const world *w, const batch *b)
{
    float *kept = w->m->log_tau->grad;
    const rz_mark mark = rz_arena_mark(w->s);
    if (!kept)
        w->m->log_tau->grad = rz_arena_zeros(w->s, 1, 1); /* tau is fixed: pass() adds its gradient all the same */
    rz_loss_output out = pass(w, b);
    w->m->log_tau->grad = kept;
    rz_arena_release(w->s, mark);
    return out;
}

static void check_recipe_gradients(const world *w, const rz_optimizer *o, const rz_st *st, double tolerance)
{
    size_t n_fixture = 0;
    for (size_t i = 0; i < o->n_slots; i++) {
        const rz_param *p = o->slots[i].p;
        const rz_st_tensor *t = of_recipe(st, "grad.", p->name);
        if (!t) fail_msg("%s: trained here, not by PyTorch", p->name);
        if (ends_with(p->name, "k_proj.bias")) continue;
        assert_int_equal(t->n_elements, p->n);
        near(w, p->grad, t, tolerance);
    }
    for (size_t i = 0; i < rz_st_count(st); i++) n_fixture += !strncmp(rz_st_at(st, i)->name, "grad.", 5);
    assert_int_equal(o->n_slots, n_fixture);
}

static void near_trace(const rz_st *st, size_t step, rz_loss_output got, double tolerance)
{
    float want[30], three[3] = {(float)got.loss, (float)got.ca, (float)got.cg};
    ok(rz_st_to_f32(rz_st_find(st, "losses"), want, &err));
    for (size_t i = 0; i < 3; i++)
        near_host("losses", &three[i], &want[step * 3 + i], 1, tolerance, fabs((double)want[step * 3 + i]));
}

/* The text of a fixture, with an end. */
static char *fixture_text(const world *w, const char *name, size_t i)
{
    const rz_st_tensor *t = tensor(w, "%s%zu.text", name, i);
    char *text = malloc(t->n_bytes + 1);
    assert_non_null(text);
    memcpy(text, t->data, t->n_bytes);
    text[t->n_bytes] = '\0';
    return text;
}

/* Where anchors come from the embedding table, a disease is its description's own tokens. */
static void disease_items(const world *w, batch *b)
{
    for (size_t i = 0; i < N_CLASSES; i++) {
        rz_prompt *p = &b->prompts[2 * B + i], theirs = *p;
        char *text = fixture_text(w, "dis", i);
        ok(rz_prompt_disease(NULL, w->m, text, true, p, &err));
        assert_true(p->n < theirs.n);
        free(theirs.ids), free(text);
    }
}

/* The model as it is now scores films as the authors' code does. */
static void check_fused(const world *w, const rz_st *st)
{
    static const radz_bank_entry labels[N_CLASSES] = {
        {"No Finding", 0}, {"Pneumonia", 0}, {"Effusion", 0}, {"Mass", 0}};
    const size_t dim = w->m->cfg.radz.dim;
    radz_bank_entry entries[N_CLASSES];
    char *texts[N_CLASSES];
    for (size_t i = 0; i < N_CLASSES; i++)
        entries[i] = (radz_bank_entry){labels[i].label, texts[i] = fixture_text(w, "dis", i)};
    const rz_net net = {.model = w->m, .s = w->s};
    rz_bank *bank;
    ok(rz_bank_build(&net, entries, N_CLASSES, &bank, &err));
    near_tensor(bank->anchors, of_recipe(st, "", "anchors"), GRAD_TOL);
    near_tensor(bank->texts, of_recipe(st, "", "texts"), GRAD_TOL);

    rz_st *films;
    ok(rz_st_open(NULL, DIR_TINY "/expected.safetensors", RZ_FILE_READ, &films, &err));
    float *pixels = malloc(2 * PIXELS * sizeof *pixels), probability[2 * N_CLASSES], want[2 * N_CLASSES];
    ok(rz_st_to_f32(rz_st_find(films, "pixels"), pixels, &err));
    rz_prompt prompt;
    ok(rz_prompt_image(NULL, w->m, &prompt, &err));
    const rz_item items[2] = {{.pixels = pixels, .prompt = &prompt}, {.pixels = pixels + PIXELS, .prompt = &prompt}};
    const rz_pick own = {.rows = RZ_ROWS_SPECIAL, .n_blocks = rz_config_decoder_blocks(&w->m->cfg)};
    float *v = rz_encode_pick(&net, items, 2, &own), *host = malloc(2 * dim * sizeof *host);
    near(w, v, of_recipe(st, "", "films"), GRAD_TOL);
    rz_download(w->s, host, v, 2 * dim * sizeof *host);
    for (size_t i = 0; i < 2; i++) {
        rz_score scores[N_CLASSES];
        ok(rz_score_film(bank, host + i * dim, rz_model_tau(w->m, w->s), scores, &err));
        for (size_t k = 0; k < N_CLASSES; k++) probability[i * N_CLASSES + scores[k].i] = (float)scores[k].probability;
    }
    ok(rz_st_to_f32(of_recipe(st, "", "probability"), want, &err));
    near_host("probability", probability, want, RZ_COUNT(want), 1e-3, 1);
    for (size_t i = 0; i < N_CLASSES; i++) free(texts[i]);
    free(pixels), free(host);
    rz_prompt_free(NULL, &prompt);
    rz_st_close(films);
    rz_bank_free(bank);
}

static void run_recipe(const recipe *r, const char *kernels)
{
    world w;
    batch b;
    rz_st *st;
    rz_optimizer o;
    char path[100];
    size_t n_after = 0;
    snprintf(path, sizeof path, "tests/parity/training/%s.safetensors", r->name);
    ok(rz_st_open(NULL, path, RZ_FILE_READ, &st, &err));
    const double tolerance = r->tolerance > 0 ? r->tolerance : GRAD_TOL;
    open_recipe(&w, r, kernels, st, &o);
    training_batch(&w, &b);
    if (w.m->cfg.radz.embedding_anchors) disease_items(&w, &b);
    for (int64_t step = 1; step <= 10; step++) {
        const rz_adamw adam = {.lr = 1e-3f, .beta1 = .9f, .beta2 = .999f, .eps = 1e-8f, .step = step};
        double norm;
        rz_optimizer_zero(&o, w.s);
        near_trace(st, (size_t)step - 1, recipe_pass(&w, &b), tolerance);
        if (step == 1) check_recipe_gradients(&w, &o, st, tolerance);
        ok(rz_optimizer_step(&o, w.s, adam, 0, &norm, &err));
    }
    for (size_t i = 0; i < o.n_slots; i++) {
        const rz_st_tensor *t = of_recipe(st, "after.", o.slots[i].p->name);
        n_after += t != NULL;
        if (t) near(&w, o.slots[i].w, t, tolerance);
    }
    if (w.m->cfg.radz.fused_score) check_fused(&w, st);
    assert_true(n_after >= 1);
    rz_optimizer_close(&o);
    batch_free(&b);
    rz_st_close(st);
    close_world(&w);
    if (r->bf16_files || r->gamma) scratch_remove();
}

static void test_recipes(void **state)
{
    for (size_t i = 0; i < RZ_COUNT(recipes); i++)
        if (!fixture_quick() || i % 3 == 2) run_recipe(&recipes[i], *state);
}

/* Bits of all gradients and bytes of the arena for one pass. */
static float *one_pass(const char *kernels, bool recompute, size_t *n, size_t *bytes)
{
    world w;
    batch b;
    rz_optimizer o;
    rz_st *st;
    const recipe r = {.name = "", .setup = recipes[3].setup, .recompute = recompute};
    ok(rz_st_open(NULL, "tests/parity/training/lora.safetensors", RZ_FILE_READ, &st, &err));
    open_recipe(&w, &r, kernels, st, &o);
    training_batch(&w, &b);
    recipe_pass(&w, &b);
    float *grads = malloc(o.n_floats * sizeof *grads);
    assert_non_null(grads);
    rz_download(w.s, grads, o.grad, o.n_floats * sizeof *grads);
    ok(rz_stream_sync(w.s, &err));
    *n = o.n_floats, *bytes = rz_arena_peak(w.s);
    rz_optimizer_close(&o);
    batch_free(&b);
    rz_st_close(st);
    close_world(&w);
    return grads;
}

static void test_recompute(void **state)
{
    size_t n, again_n, bytes, again_bytes;
    float *grads = one_pass(*state, false, &n, &bytes), *again = one_pass(*state, true, &again_n, &again_bytes);
    assert_int_equal(n, again_n);
    assert_memory_equal(grads, again, n * sizeof *grads);
    if (again_bytes >= bytes && fixture_on_cpu()) /* a GPU's memory is taken in larger pieces */
        fail_msg("%zu bytes of activations, %zu with recompute", bytes, again_bytes);
    free(grads), free(again);
}

/* Masks, rows without a class and lambda, on given unit vectors. */
static void test_losses(void **state)
{
    static const struct {
        const char *name;
        bool masked;
        double lambda;
    } cases[] = {{"plain", false, .5}, {"masked", true, .3}};
    static const char *const sides[] = {"xg", "xl", "yg", "yl", "d"};
    world w = {0};
    w.dev = open_device(*state);
    ok(rz_stream_open(w.dev, &w.s, &err));
    ok(rz_st_open(NULL, DIR_TINY "/grads.safetensors", RZ_FILE_READ, &w.want, &err));
    const float *x[5];
    for (size_t i = 0; i < 5; i++) x[i] = upload(&w, tensor(&w, "case.%s", sides[i]));
    for (size_t c = 0; c < RZ_COUNT(cases); c++) {
        float *d[5];
        for (size_t i = 0; i < 5; i++) d[i] = rz_arena_zeros(w.s, 5, DIM);
        rz_loss_input in = {5,
                            3,
                            DIM,
                            x[0],
                            x[1],
                            x[2],
                            x[3],
                            x[4],
                            upload(&w, tensor(&w, "case.targets")),
                            NULL,
                            NULL,
                            .11,
                            cases[c].lambda,
                            RZ_FEATURES_CROSS};
        if (cases[c].masked) {
            in.keep = upload(&w, tensor(&w, "case.keep"));
            in.keep_classes = upload(&w, tensor(&w, "case.keep_classes"));
        }
        rz_loss_grads g = {d[0], d[1], d[2], d[3], d[4], 0};
        rz_loss_output out, again;
        ok(rz_losses(w.s, &in, &g, &out, &err));
        ok(rz_losses(w.s, &in, NULL, &again, &err));
        assert_memory_equal(&out, &again, sizeof out);
        float want[3], three[] = {(float)out.loss, (float)out.ca, (float)out.cg}, dtau = (float)g.dlog_tau;
        ok(rz_st_to_f32(tensor(&w, "case.%s.losses", cases[c].name), want, &err));
        near_host("losses", three, want, 3, STAGE_TOL, largest(want, 3));
        ok(rz_st_to_f32(tensor(&w, "case.%s.dlog_tau", cases[c].name), want, &err));
        near_host("dlog_tau", &dtau, want, 1, STAGE_TOL, fabs((double)want[0]));
        for (size_t i = 0; i < 5; i++) near(&w, d[i], tensor(&w, "case.%s.d%s", cases[c].name, sides[i]), STAGE_TOL);
    }
    close_world(&w);
}

/* ---- Every test on every kernel set ----------------------------------------------------------------- */

#define ON(kernels)                                                                                                    \
    {"tower, " kernels, test_tower, NULL, NULL, (void *)(uintptr_t)kernels},                                           \
        {"projector, " kernels, test_projector, NULL, NULL, (void *)(uintptr_t)kernels},                               \
        {"decoder, " kernels, test_decoder, NULL, NULL, (void *)(uintptr_t)kernels},                                   \
        {"heads, " kernels, test_heads, NULL, NULL, (void *)(uintptr_t)kernels},                                       \
        {"encode, " kernels, test_encode, NULL, NULL, (void *)(uintptr_t)kernels},                                     \
        {"layouts, " kernels, test_layouts, NULL, NULL, (void *)(uintptr_t)kernels},                                   \
        {"half weights, " kernels, test_half_weights, NULL, NULL, (void *)(uintptr_t)kernels},                         \
        {"losses, " kernels, test_losses, NULL, NULL, (void *)(uintptr_t)kernels},                                     \
        {"parts of the model, " kernels, test_recipes, NULL, NULL, (void *)(uintptr_t)kernels},                        \
        {"gradients, " kernels, test_gradients, NULL, NULL, (void *)(uintptr_t)kernels},                               \
    {                                                                                                                  \
        "ten steps, " kernels, test_ten_steps, NULL, NULL, (void *)(uintptr_t)kernels                                  \
    }
#define ALONE(kernels)                                                                                                 \
    {                                                                                                                  \
        "alone as in a batch, " kernels, test_alone, NULL, NULL, (void *)(uintptr_t)kernels                            \
    }
#define ONCE(name, f)                                                                                                  \
    {                                                                                                                  \
        name, f, NULL, NULL, (void *)(uintptr_t) "auto"                                                                \
    }

#define EVERYWHERE                                                                                                     \
    ONCE("prompts", test_prompts), ONCE("text is text", test_text_is_text), ONCE("cancel", test_cancel),               \
        ONCE("recompute", test_recompute), ONCE("pool settings", test_pool_settings), ONCE("save and load", test_save)

int main(void)
{
    const struct CMUnitTest on_gpu[] = {ON("portable"), ALONE("portable"), EVERYWHERE};
    const struct CMUnitTest tests[] = {
        ON("portable"),    ON("avx2"),    ON("wide"),    ON("avx512"),    ON("openblas"),
        ALONE("portable"), ALONE("avx2"), ALONE("wide"), ALONE("avx512"), EVERYWHERE,
    };
    if (!fixture_on_cpu()) return cmocka_run_group_tests(on_gpu, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
