/* test_heatmap.c - heat maps: the three methods against PyTorch and finite differences, the way from patches to the
 * film's pixels, the picture, pointing, deletion and insertion. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "decoder.h"
#include "encode.h"
#include "failing_host.h"
#include "fixture.h"
#include "formats.h"
#include "heads.h"
#include "heatmap.h"
#include "model.h"
#include "preprocess.h"
#include "saliency.h"
#include "scratch.h"

#define TINY "tests/parity/llava_tiny"
#define WANT "tests/parity/heatmaps.safetensors"
#define TOL 1e-4

enum { N = 16, DIM = 16, PIXELS = 3 * 32 * 32 };

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

/* ---- The network's maps against PyTorch ------------------------------------------------------ */

typedef struct world {
    rz_device *dev;
    rz_stream *s;
    rz_model *m;
    rz_st *want, *llava;
    rz_net net;
    float pixels[2 * PIXELS], anchor[DIM], contrast[DIM];
    rz_prompt prompt;
} world;

static void take(const rz_st *st, const char *name, float *out, size_t n)
{
    const rz_st_tensor *t = rz_st_find(st, name);
    if (!t) fail_msg("the fixture has no tensor '%s'", name);
    assert_int_equal(t->n_elements, n);
    ok(rz_st_to_f32(t, out, &err));
}

static void open_world(world *w, const char *dir, int n_threads)
{
    rz_device_options o = {.device = "cpu", .n_threads = n_threads};
    float reference[DIM];
    *w = (world){0};
    ok(rz_device_open(NULL, &o, &w->dev, &err));
    ok(rz_stream_open(w->dev, &w->s, &err));
    ok(rz_model_load(NULL, w->dev, dir, RZ_MODEL_INFER, 0, &w->m, &err));
    ok(rz_st_open(NULL, WANT, RZ_FILE_READ, &w->want, &err));
    ok(rz_st_open(NULL, TINY "/expected.safetensors", RZ_FILE_READ, &w->llava, &err));
    ok(rz_prompt_image(NULL, w->m, &w->prompt, &err));
    w->net = (rz_net){.model = w->m, .s = w->s};
    take(w->llava, "pixels", w->pixels, 2 * PIXELS);
    take(w->want, "anchor", w->anchor, DIM);
    take(w->want, "reference", reference, DIM);
    for (size_t i = 0; i < DIM; i++) w->contrast[i] = w->anchor[i] - reference[i];
}

static void close_world(world *w)
{
    rz_prompt_free(NULL, &w->prompt);
    rz_st_close(w->want);
    rz_st_close(w->llava);
    rz_model_unload(w->m);
    rz_stream_close(w->s);
    rz_device_close(w->dev);
}

static void map_of(world *w, size_t film, const rz_saliency *what, float *map)
{
    const rz_item item = {.kind = RZ_ITEM_IMAGE, .pixels = w->pixels + film * PIXELS, .prompt = &w->prompt};
    rz_saliency_map(&w->net, &item, what, map);
    ok(rz_stream_sync(w->s, &err));
}

static void expect_map(world *w, const char *name, size_t film, const rz_saliency *what)
{
    float got[N], want[N];
    double scale = 0;
    take(w->want, name, want, N);
    map_of(w, film, what, got);
    for (size_t i = 0; i < N; i++) scale = fmax(scale, fabs((double)want[i]));
    assert_true(scale > 0);
    for (size_t i = 0; i < N; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= TOL * scale))
            fail_msg("%s[%zu]: %.9g, expected %.9g", name, i, (double)got[i], (double)want[i]);
}

/* Every map of one film of the fixture; blocks: 3 for the model's layer, 4 with the final norm. */
static void expect_film(world *w, const char *kind, size_t film, size_t blocks)
{
    char name[100];
    for (int contrast = 0; contrast < 2; contrast++)
        for (int gradient = 0; gradient < 2; gradient++) {
            rz_saliency s = {gradient ? RZ_SALIENCY_GRADIENT : RZ_SALIENCY_SIMILARITY,
                             RZ_ROWS_SPECIAL,
                             blocks,
                             0,
                             0,
                             contrast ? w->contrast : w->anchor};
            snprintf(name, sizeof name, "%s%zu.%s%s%s", kind, film, blocks == 4 ? "last." : "",
                     contrast ? "contrast." : "", gradient ? "gradient" : "similarity");
            expect_map(w, name, film, &s);
        }
    for (size_t first = 0; first < 2; first++)
        for (int mean = 0; mean < 2; mean++) {
            rz_saliency s = {RZ_SALIENCY_ATTENTION, RZ_ROWS_SPECIAL, blocks, first, mean, NULL};
            snprintf(name, sizeof name, "%s%zu.%s%s.%zu", kind, film, blocks == 4 ? "last." : "",
                     mean ? "mean" : "rollout", first);
            expect_map(w, name, film, &s);
        }
}

static void test_pytorch(void **state)
{
    world w;
    (void)state;
    open_world(&w, TINY, 2);
    for (size_t film = 0; film < 2; film++)
        for (size_t blocks = 3; blocks <= 4; blocks++) expect_film(&w, "img", film, blocks);
    close_world(&w);
}

/* LLaVA's "full": the class row lies before the patches and must not be taken for one. */
static void test_class_row(void **state)
{
    static const char *const files[] = {"model.safetensors", "radz.safetensors", "radz.json", "tokenizer.model",
                                        "preprocessor_config.json"};
    world w;
    (void)state;
    scratch_make();
    scratch_copy(TINY, "config.json", "\"vision_feature_select_strategy\": \"default\"",
                 "\"vision_feature_select_strategy\": \"full\"");
    for (size_t i = 0; i < RZ_COUNT(files); i++) scratch_copy(TINY, files[i], NULL, NULL);
    open_world(&w, scratch_dir(), 1);
    assert_int_equal(w.m->cfg.image_rows, N + 1);
    for (size_t film = 0; film < 2; film++) expect_film(&w, "full", film, 3);
    close_world(&w);
    scratch_remove();
}

/* The score when the row of one patch is multiplied by 1 + e: its derivative at e = 0 is gradient times input. */
static double score_scaled(world *w, size_t patch, float e)
{
    const size_t c = w->m->cfg.text.hidden, blocks = 3, n = w->prompt.n;
    const rz_item item = {.kind = RZ_ITEM_IMAGE, .pixels = w->pixels, .prompt = &w->prompt};
    int32_t start[2] = {0, (int32_t)n}, rows[4], group[2] = {0, 4};
    float unit[DIM];
    size_t at = 0;
    rz_head_acts acts;
    double score = 0;
    rz_mark m = rz_arena_mark(w->s);
    float *x = rz_encode_rows(&w->net, &item, 1, 0, NULL);
    while (w->prompt.ids[at] != RZ_ID_IMAGE) at++;
    for (size_t i = 0; i < c; i++) x[(at + patch) * c + i] *= 1 + e; /* on the CPU */
    rz_ragged seq = {1, start, rz_arena_i32(w->s, start, 2)};
    const float *h = rz_decoder_forward(&w->net, x, seq, blocks, NULL);
    for (int i = 0; i < 4; i++) rows[i] = (int32_t)n - 4 + i;
    rz_groups g = {1, 4, rz_arena_i32(w->s, rows, 4), rz_arena_i32(w->s, group, 2)};
    rz_download(w->s, unit, rz_head_forward(&w->net, &w->m->gamma_img, h, g, &acts), sizeof unit);
    rz_arena_release(w->s, m);
    ok(rz_stream_sync(w->s, &err));
    for (size_t i = 0; i < DIM; i++) score += (double)unit[i] * (double)w->anchor[i];
    return score;
}

static void test_finite_differences(void **state)
{
    world w;
    float map[N];
    double scale = 0;
    const rz_saliency gradient = {RZ_SALIENCY_GRADIENT, RZ_ROWS_SPECIAL, 3, 0, 0, NULL};
    (void)state;
    open_world(&w, TINY, 1);
    rz_saliency s = gradient;
    s.direction = w.anchor;
    map_of(&w, 0, &s, map);
    for (size_t i = 0; i < N; i++) scale = fmax(scale, fabs((double)map[i]));
    for (size_t p = 0; p < N; p++) {
        const double e = 1.0 / 64;
        const double slope = (score_scaled(&w, p, (float)e) - score_scaled(&w, p, (float)-e)) / (2 * e);
        if (!(fabs(slope - (double)map[p]) < 2e-3 * scale))
            fail_msg("patch %zu: %.9g, differences say %.9g", p, (double)map[p], slope);
    }
    close_world(&w);
}

static void test_threads(void **state)
{
    world one, two;
    float a[N], b[N];
    (void)state;
    open_world(&one, TINY, 1);
    open_world(&two, TINY, 2);
    for (int method = 0; method < 3; method++) {
        rz_saliency s = {(rz_saliency_method)method, RZ_ROWS_SPECIAL, 3, 0, 0, one.anchor};
        map_of(&one, 1, &s, a);
        map_of(&two, 1, &s, b);
        assert_memory_equal(a, b, sizeof a);
    }
    close_world(&one);
    close_world(&two);
}

/* ---- Towers of which several layers are read ------------------------------------------------------- */

/* The projector's first layer for features [a, b] side by side: its weights for one of them, nothing for the other. */
static float *widen(const rz_st_tensor *t, size_t place)
{
    const size_t rows = t->dims[0], cols = t->dims[1];
    const float *from = (const float *)(const void *)t->data;
    float *wide = calloc(rows * cols, 2 * sizeof *wide);
    assert_non_null(wide);
    for (size_t i = 0; i < rows; i++) memcpy(wide + (2 * i + place) * cols, from + i * cols, cols * sizeof *wide);
    return wide;
}

static void write_widened(const char *dir, size_t place)
{
    rz_st *st;
    ok(rz_st_open(NULL, TINY "/model.safetensors", RZ_FILE_READ, &st, &err));
    const size_t n = rz_st_count(st);
    rz_st_out *out = calloc(n, sizeof *out);
    float *wide = NULL;
    assert_non_null(out);
    for (size_t i = 0; i < n; i++) {
        const rz_st_tensor *t = rz_st_at(st, i);
        out[i] = (rz_st_out){.name = t->name, .dtype = t->dtype, .n_dims = t->n_dims, .data = t->data};
        memcpy(out[i].dims, t->dims, t->n_dims * sizeof *t->dims);
        if (strcmp(t->name, "multi_modal_projector.linear_1.weight") != 0) continue;
        out[i].data = wide = widen(t, place), out[i].dims[1] *= 2;
    }
    assert_non_null(wide);
    ok(rz_st_write(NULL, fixture_path(dir, "model.safetensors"), out, n, NULL, &err));
    free(wide);
    free(out);
    rz_st_close(st);
}

static void copy_tiny(const char *dir, const char *layers)
{
    static const char *const names[] = {"config.json", "preprocessor_config.json", "radz.json", "radz.safetensors",
                                        "tokenizer.model"};
    for (size_t i = 0; i < RZ_COUNT(names); i++) {
        size_t n;
        char *bytes = fixture_read(fixture_path(TINY, names[i]), &n), *at = i ? NULL : strstr(bytes, "_layer\": -2");
        if (i) {
            fixture_write(fixture_path(dir, names[i]), bytes, n);
        } else {
            rz_str s = {.host = NULL};
            assert_non_null(at);
            rz_str_put(&s, bytes, (size_t)(at - bytes));
            rz_str_printf(&s, "_layer\": %s%s", layers, at + strlen("_layer\": -2"));
            fixture_write_text(fixture_path(dir, names[i]), s.data);
            rz_str_free(&s);
        }
        free(bytes);
    }
}

/* Two layers of which the projector reads one give the maps of that one. */
static void test_several_tower_layers(void **state)
{
    static const char *const layers[] = {"[-2, 0]", "[-1, -2]"};
    (void)state;
    world one, two;
    open_world(&one, TINY, 1);
    for (size_t place = 0; place < 2; place++) {
        char *dir = fixture_temp_dir();
        copy_tiny(dir, layers[place]);
        write_widened(dir, place);
        open_world(&two, dir, 1);
        assert_int_equal(two.m->cfg.n_feature_layers, 2);
        for (int method = 0; method < 3; method++) {
            float a[N], b[N];
            double scale = 0;
            const rz_saliency s = {(rz_saliency_method)method, RZ_ROWS_SPECIAL, 3, 0, 0, one.anchor};
            map_of(&one, 1, &s, a);
            map_of(&two, 1, &s, b);
            for (size_t i = 0; i < N; i++) scale = fmax(scale, fabs((double)a[i]));
            for (size_t i = 0; i < N; i++) assert_true(fabs((double)a[i] - (double)b[i]) <= 1e-5 * scale);
        }
        close_world(&two);
        fixture_remove(dir);
        free(dir);
    }
    close_world(&one);
}

/* ---- From patches to pixels ---------------------------------------------------------------------- */

/* A white square of 7 / 10 of a patch, at the centre of patch (px, py) of what the tower sees, drawn on a film of any
 * shape: preprocessing must put it in that patch, and the expanded map must be greatest inside the square. */
static void check_square(bool pad, size_t width, size_t height, size_t px, size_t py)
{
    enum { SIZE = 64, PATCH = 8, SIDE = 8 };
    rz_config cfg = {.has_vision = true};
    cfg.vision = (rz_vision_config){.image_size = SIZE, .patch = PATCH, .channels = 3};
    cfg.preprocess = (rz_preprocess_config){pad, true, true, SIZE, SIZE, SIZE, 1, {0}, {1, 1, 1}};
    rz_placement at;
    rz_pixels film;
    ok(rz_preprocess_place(&cfg.preprocess, SIZE, width, height, &at, &err));
    ok(rz_pixels_alloc(NULL, width, height, 1, 8, "raw", "test", &film, &err));
    uint8_t *data = film.data;
    memset(data, 0, width * height);
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++) {
            const double u = ((double)x + .5) * at.x_scale + at.x_shift, v = ((double)y + .5) * at.y_scale + at.y_shift;
            if (fabs(u / PATCH - (double)px - .5) < .35 && fabs(v / PATCH - (double)py - .5) < .35)
                data[y * width + x] = 255;
        }
    float *seen = calloc(3 * SIZE * SIZE, sizeof *seen), *map = calloc(width * height, sizeof *map);
    float patches[SIDE * SIDE] = {0};
    assert_true(seen && map);
    ok(rz_preprocess(NULL, &cfg.preprocess, SIZE, &film, seen, &err));
    for (size_t y = 0; y < SIZE; y++)
        for (size_t x = 0; x < SIZE; x++) patches[y / PATCH * SIDE + x / PATCH] += seen[y * SIZE + x];
    ok(rz_heatmap_expand(&cfg, width, height, patches, map, &err));
    float best = -INFINITY, inside = -INFINITY; /* corners are flat: the square is as hot as anything */
    double total = 0;
    for (size_t i = 0; i < SIDE * SIDE; i++) total += fabs((double)patches[i]);
    for (size_t i = 0; i < width * height; i++) {
        if (map[i] > best) best = map[i];
        if (map[i] > inside && data[i] == 255) inside = map[i];
    }
    assert_true((double)patches[py * SIDE + px] > .9 * total); /* preprocessing and the placement agree */
    if (!(inside == best))
        fail_msg("%zu x %zu, patch (%zu, %zu): %g in the square, %g elsewhere", width, height, px, py, (double)inside,
                 (double)best);
    free(seen);
    free(map);
    rz_pixels_free(NULL, &film);
}

static void test_square(void **state)
{
    (void)state;
    check_square(true, 201, 97, 1, 3);
    check_square(true, 97, 201, 4, 6);
    check_square(true, 64, 64, 0, 7);
    check_square(true, 1000, 311, 7, 4);
    check_square(false, 201, 97, 1, 3);
    check_square(false, 97, 201, 4, 6);
    check_square(false, 640, 637, 0, 0);
    check_square(false, 64, 65, 7, 7);
}

/* The exact numbers between centres, the flat rims, and what is cropped away. */
static void test_expand_numbers(void **state)
{
    enum { SIZE = 16, SIDE = 2 };
    rz_config cfg = {.has_vision = true};
    cfg.vision = (rz_vision_config){.image_size = SIZE, .patch = 8, .channels = 3};
    cfg.preprocess = (rz_preprocess_config){false, true, true, SIZE, SIZE, SIZE, 1, {0}, {1, 1, 1}};
    const float patches[] = {0, 1, 2, 3};
    float map[16 * 24];
    (void)state;
    ok(rz_heatmap_expand(&cfg, 16, 16, patches, map, &err));
    for (int y = 0; y < 16; y++)
        for (int x = 0; x < 16; x++) {
            const double u = fmin(fmax((x + .5 - 4) / 8, 0), 1), v = fmin(fmax((y + .5 - 4) / 8, 0), 1);
            assert_true(fabs((double)map[y * 16 + x] - (u + 2 * v)) < 1e-6);
        }
    ok(rz_heatmap_expand(&cfg, 24, 16, patches, map, &err)); /* the middle 16 columns are seen */
    for (int x = 0; x < 24; x++) assert_int_equal(isnan(map[x]) != 0, x < 4 || x >= 20);
    assert_true(map[4] == 0 && map[19] == 1);
    cfg.preprocess.pad_to_square = true;
    ok(rz_heatmap_expand(&cfg, 24, 16, patches, map, &err)); /* rows 4 .. 19 of 24, 3 film pixels to 2 */
    for (int y = 0; y < 16; y++)
        for (int x = 0; x < 24; x++) {
            const double u = fmin(fmax(((x + .5) / 1.5 - 4) / 8, 0), 1);
            const double v = fmin(fmax(((y + 4.5) / 1.5 - 4) / 8, 0), 1);
            assert_true(fabs((double)map[y * 24 + x] - (u + 2 * v)) < 1e-6);
        }
}

/* ---- The public functions -------------------------------------------------------------------------- */

typedef struct public_world {
    char *dir;
    radz_runtime *runtime;
    radz_model *model;
    radz_session *session;
    radz_bank *bank;
    radz_image *image;
} public_world;

static const radz_bank_entry classes[] = {{"No Finding", NULL}, {"Edema", NULL}, {"Mass", "a round shadow"}};

static radz_status open_public(public_world *w, const rz_host *host, const char *dir)
{
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    o.n_threads = 1;
    o.device = "cpu";
    if (host) o.malloc_fn = host->malloc_fn, o.realloc_fn = host->realloc_fn, o.free_fn = host->free_fn;
    if (host) o.user = host->user;
    RZ_TRY(radz_runtime_create(&o, &w->runtime, &err));
    RZ_TRY(radz_model_open(w->runtime, dir, NULL, &w->model, &err));
    RZ_TRY(radz_session_open(w->model, NULL, &w->session, &err));
    RZ_TRY(radz_bank_build(w->session, classes, RZ_COUNT(classes), &w->bank, &err));
    return radz_image_open(w->runtime, fixture_path(dir, "film.png"), &w->image, &err);
}

static void close_public(public_world *w)
{
    radz_image_close(w->image);
    radz_bank_close(w->bank);
    radz_session_close(w->session);
    radz_model_close(w->model);
    radz_runtime_close(w->runtime);
}

static int make_public(void **state)
{
    public_world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->dir = fixture_temp_dir();
    fixture_model(w->dir, 5);
    fixture_png(fixture_path(w->dir, "film.png"), 50, 33, 1, 9);
    ok(open_public(w, NULL, w->dir));
    *state = w;
    return 0;
}

static int end_public(void **state)
{
    public_world *w = *state;
    close_public(w);
    fixture_remove(w->dir);
    free(w->dir);
    free(w);
    return 0;
}

static void test_public(void **state)
{
    public_world *w = *state;
    radz_heatmap_options o;
    float patches[4], map[50 * 33], again[50 * 33];
    assert_int_equal(radz_heatmap_side(w->model), 2);
    assert_int_equal(radz_heatmap_side(NULL), 0);
    radz_heatmap_options_init(&o);
    assert_int_equal(o.method, RADZ_HEATMAP_GRADIENT);
    for (int method = 0; method < 3; method++) {
        o.method = (radz_heatmap_method)method;
        ok(radz_heatmap_patches(w->session, w->bank, w->image, "edema", &o, patches, &err));
        ok(radz_heatmap_expand(w->model, w->image, patches, map, &err));
        ok(radz_heatmap(w->session, w->bank, w->image, "Edema", &o, again, &err));
        assert_memory_equal(map, again, sizeof map);
        for (size_t i = 0; i < 4; i++) assert_true(method == RADZ_HEATMAP_SIMILARITY || patches[i] >= 0);
        if (method == RADZ_HEATMAP_SIMILARITY)
            for (size_t i = 0; i < 4; i++) assert_true(fabs((double)patches[i]) <= 2.0001);
    }
    /* Contrast, the default: the difference of two similarities; the reference class has no other. */
    float edema[4], none[4], same[4];
    assert_int_equal(o.contrast, 1);
    o.method = RADZ_HEATMAP_SIMILARITY, o.contrast = 0;
    ok(radz_heatmap_patches(w->session, w->bank, w->image, "Edema", &o, edema, &err));
    ok(radz_heatmap_patches(w->session, w->bank, w->image, "No Finding", &o, none, &err));
    o.contrast = 1;
    ok(radz_heatmap_patches(w->session, w->bank, w->image, "No Finding", &o, same, &err));
    assert_memory_equal(same, none, sizeof same);
    ok(radz_heatmap_patches(w->session, w->bank, w->image, "Edema", &o, patches, &err));
    for (size_t i = 0; i < 4; i++) assert_true(fabs((double)patches[i] - ((double)edema[i] - (double)none[i])) < 1e-6);
}

/* Cancelled when it has been asked so often. */
typedef struct patience {
    int asked, left;
} patience;

static int had_enough(void *user)
{
    patience *p = user;
    return p->asked++ >= p->left;
}

static void test_cancel(void **state)
{
    public_world *w = *state;
    patience p = {0, 0};
    radz_session_options so;
    radz_session *session;
    radz_session_options_init(&so);
    so.cancel_fn = had_enough, so.user = &p;
    ok(radz_session_open(w->model, &so, &session, &err));
    for (int method = 0; method < 3; method++) {
        float want[4], got[4];
        radz_heatmap_options o;
        radz_heatmap_options_init(&o);
        o.method = (radz_heatmap_method)method;
        ok(radz_heatmap_patches(w->session, w->bank, w->image, "Edema", &o, want, &err));
        p = (patience){0, 1 << 20};
        ok(radz_heatmap_patches(session, w->bank, w->image, "Edema", &o, got, &err));
        const int n = p.asked;
        assert_true(n >= (method == RADZ_HEATMAP_SIMILARITY ? 2 : 3)); /* between layers; of attention, and back, too */
        for (int left = 0; left < n; left++) {
            p = (patience){0, left};
            assert_int_equal(radz_heatmap_patches(session, w->bank, w->image, "Edema", &o, got, &err),
                             RADZ_E_CANCELLED);
            for (size_t i = 0; i < 4; i++) assert_true(isnan(got[i]));
        }
        p = (patience){0, 1 << 20};
        ok(radz_heatmap_patches(session, w->bank, w->image, "Edema", &o, got, &err));
        assert_memory_equal(got, want, sizeof got);
    }
    radz_session_close(session);
}

static void refuse(public_world *w, const radz_heatmap_options *o, const char *label, const char *word)
{
    float patches[4] = {1, 1, 1, 1};
    assert_int_equal(radz_heatmap_patches(w->session, w->bank, w->image, label, o, patches, &err), RADZ_E_ARGUMENT);
    if (!strstr(err.message, word)) fail_msg("'%s' does not name '%s'", err.message, word);
    for (size_t i = 0; i < 4; i++) assert_true(isnan(patches[i]));
}

static void test_bad_arguments(void **state)
{
    public_world *w = *state;
    radz_heatmap_options o;
    float patches[4], map[50 * 33];
    radz_heatmap_options_init(&o);
    refuse(w, &o, "Pneumonia", "Pneumonia");
    refuse(w, &o, NULL, "label");
#define BAD(field, value, word)                                                                                        \
    do {                                                                                                               \
        radz_heatmap_options bad = o;                                                                                  \
        bad.field = (value);                                                                                           \
        refuse(w, &bad, "Edema", word);                                                                                \
    } while (0)
    BAD(method, (radz_heatmap_method)3, "method");
    BAD(method, (radz_heatmap_method)-1, "method");
    BAD(layer, 3, "layer");
    BAD(layer, -4, "layer");
    BAD(contrast, 2, "contrast");
    BAD(mean, -1, "mean");
    BAD(first_block, -1, "first_block");
    BAD(first_block, 1, "first_block"); /* layer -2 of two blocks: one block runs */
    BAD(struct_size, 7, "struct_size");
    o.method = RADZ_HEATMAP_ATTENTION, o.layer = -3;
    refuse(w, &o, "Edema", "layer");
    assert_int_equal(radz_heatmap(NULL, NULL, w->image, "Edema", NULL, map, &err), RADZ_E_ARGUMENT);
    assert_true(isnan(map[0]) && isnan(map[50 * 33 - 1]));
    assert_int_equal(radz_heatmap(w->session, NULL, NULL, "Edema", NULL, map, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_heatmap(w->session, NULL, w->image, "Edema", NULL, NULL, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_heatmap_expand(NULL, w->image, patches, map, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_heatmap_expand(w->model, w->image, NULL, map, &err), RADZ_E_ARGUMENT);
}

/* ---- The picture ------------------------------------------------------------------------------------- */

static void decode(const char *path, rz_pixels *out)
{
    size_t n;
    char *bytes = fixture_read(path, &n);
    ok(rz_png_decode(NULL, (const uint8_t *)bytes, n, path, out, &err));
    free(bytes);
}

static const uint8_t *pixel(const rz_pixels *p, size_t x, size_t y)
{
    return (const uint8_t *)p->data + 3 * (y * p->width_px + x);
}

static int lightness(const uint8_t *rgb)
{
    return rgb[0] + rgb[1] + rgb[2];
}

static void test_picture(void **state)
{
    public_world *w = *state;
    enum { W = 600, H = 300 };
    uint8_t *gray = malloc(W * H);
    float *map = malloc(W * H * sizeof *map);
    radz_image *image;
    rz_pixels got;
    assert_true(gray && map);
    memset(gray, 90, W * H);
    for (size_t i = 0; i < W * H; i++) map[i] = i % W < 10 ? NAN : (float)(i % W);
    ok(radz_image_from_pixels(w->runtime, gray, RADZ_PIXELS_GRAY8, W, H, W, &image, &err));
    const char *path = fixture_path(w->dir, "map.png");
    radz_heatmap_picture p;
    radz_heatmap_picture_init(&p);
    p.title = "Edema, na\xc3\xafve";
    ok(radz_heatmap_save_png(path, image, map, &p, &err));
    decode(path, &got);
    assert_true(got.channels == 3 && got.width_px > W && got.height_px == H);
    for (int c = 0; c < 3; c++) assert_int_equal(pixel(&got, 3, 7)[c], 90); /* NaN: the film alone */
    for (size_t x = 40; x < W; x += 40)                                     /* hotter is redder */
        assert_true(pixel(&got, x, 9)[0] - pixel(&got, x, 9)[2] >=
                    pixel(&got, x - 40, 9)[0] - pixel(&got, x - 40, 9)[2] - 60);
    assert_true(pixel(&got, W - 1, 5)[0] > 150);
    rz_pixels_free(NULL, &got);
    radz_image_close(image);
    /* Over black, lightness rises all the way. */
    memset(gray, 0, W * H);
    ok(radz_image_from_pixels(w->runtime, gray, RADZ_PIXELS_GRAY8, W, H, W, &image, &err));
    p.opacity = 1, p.low = 0, p.high = 100;
    for (size_t i = 0; i < W * H; i++) map[i] = (float)(100 * (i % W)) / W;
    ok(radz_heatmap_save_png(path, image, map, &p, &err));
    decode(path, &got);
    for (size_t x = 20; x < W; x += 20) assert_true(lightness(pixel(&got, x, 9)) > lightness(pixel(&got, x - 20, 9)));
    rz_pixels_free(NULL, &got);
    radz_image_close(image);
    free(gray);
    free(map);
}

static void test_picture_refusals(void **state)
{
    public_world *w = *state;
    float map[50 * 33];
    struct stat st;
    radz_heatmap_picture p;
    for (size_t i = 0; i < RZ_COUNT(map); i++) map[i] = NAN;
    const char *path = fixture_path(w->dir, "none.png");
    assert_int_equal(radz_heatmap_save_png(path, w->image, map, NULL, &err), RADZ_E_ARGUMENT);
    map[0] = 1;
    radz_heatmap_picture_init(&p);
    p.opacity = 1.5;
    assert_int_equal(radz_heatmap_save_png(path, w->image, map, &p, &err), RADZ_E_ARGUMENT);
    p.opacity = .5, p.low = 3, p.high = 2;
    assert_int_equal(radz_heatmap_save_png(path, w->image, map, &p, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_heatmap_save_png(NULL, w->image, map, NULL, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_heatmap_save_png(path, NULL, map, NULL, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_heatmap_save_png(path, w->image, NULL, NULL, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_heatmap_save_png(fixture_path(w->dir, "no/such.png"), w->image, map, NULL, &err), RADZ_E_IO);
    assert_int_not_equal(stat(path, &st), 0);
    ok(radz_heatmap_save_png(path, w->image, map, NULL, &err)); /* one number, all the same: still a picture */
}

/* 12 bits in 16: the film's own range is shown, not black. */
static void test_picture_depth(void **state)
{
    public_world *w = *state;
    uint16_t gray[64 * 64];
    float map[64 * 64];
    radz_image *image;
    rz_pixels got;
    for (size_t i = 0; i < RZ_COUNT(gray); i++) gray[i] = (uint16_t)(i % 64 * 65), map[i] = NAN;
    map[0] = 1;
    ok(radz_image_from_pixels(w->runtime, gray, RADZ_PIXELS_GRAY16, 64, 64, 128, &image, &err));
    const char *path = fixture_path(w->dir, "deep.png");
    ok(radz_heatmap_save_png(path, image, map, NULL, &err));
    decode(path, &got);
    assert_true(got.width_px > 512 && got.height_px == 512); /* a small film is drawn larger */
    assert_int_equal(pixel(&got, 511, 100)[0], 255);
    assert_int_equal(pixel(&got, 0, 100)[0], 0);
    rz_pixels_free(NULL, &got);
    radz_image_close(image);
}

/* ---- Pointing, deletion, insertion ---------------------------------------------------------------------- */

static void test_pointing(void **state)
{
    float map[6 * 4] = {0};
    const radz_box boxes[] = {{0, 0, 1, 1}, {4, 2, 2, 1}};
    int hit;
    double share;
    (void)state;
    map[2 * 6 + 4] = 3, map[3] = NAN;
    ok(radz_heatmap_pointing(map, 6, 4, boxes, 2, &hit, &share, &err));
    assert_int_equal(hit, 1);
    assert_true(fabs(share - 3.0 / 24) < 1e-12);
    ok(radz_heatmap_pointing(map, 6, 4, boxes, 1, &hit, NULL, &err));
    assert_int_equal(hit, 0);
    map[0] = 3; /* two greatest */
    ok(radz_heatmap_pointing(map, 6, 4, boxes, 1, &hit, NULL, &err));
    assert_int_equal(hit, 1);
    assert_int_equal(radz_heatmap_pointing(map, 6, 4, boxes, 0, &hit, &share, &err), RADZ_E_ARGUMENT);
    assert_true(isnan(share));
    assert_int_equal(radz_heatmap_pointing(map, 6, 4, &(radz_box){0, 0, 0, 1}, 1, &hit, NULL, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_heatmap_pointing(map, 6, 4, &(radz_box){(double)NAN, 0, 1, 1}, 1, &hit, NULL, &err),
                     RADZ_E_ARGUMENT);
    assert_int_equal(radz_heatmap_pointing(NULL, 6, 4, boxes, 1, &hit, NULL, &err), RADZ_E_ARGUMENT);
    for (size_t i = 0; i < RZ_COUNT(map); i++) map[i] = NAN;
    assert_int_equal(radz_heatmap_pointing(map, 6, 4, boxes, 1, &hit, NULL, &err), RADZ_E_ARGUMENT);
}

static double probability_of(const public_world *w, const char *label)
{
    radz_result *r;
    double p = (double)NAN;
    ok(radz_classify(w->session, w->bank, w->image, &r, &err));
    for (size_t i = 0; i < radz_result_count(r); i++)
        if (strcmp(radz_result_label(r, i), label) == 0) p = radz_result_probability(r, i);
    radz_result_close(r);
    return p;
}

static void test_measure(void **state)
{
    public_world *w = *state;
    radz_heatmap_score s, all;
    const float patches[] = {1, 4, (float)NAN, 2}, order[] = {3, 4, 1, 3.5f};
    double curves[10], same[10], coarse[4];
    radz_heatmap_score_init(&s);
    radz_heatmap_score_init(&all);
    ok(radz_heatmap_measure(w->session, w->bank, w->image, "Edema", patches, 4, &s, curves, &err));
    assert_true(curves[0] == probability_of(w, "Edema") && s.film == curves[0] && s.painted == curves[4]);
    assert_true(curves[5] == curves[4] && curves[9] == curves[0]); /* insertion goes the other way */
    assert_true(fabs(s.deletion - (curves[0] / 2 + curves[1] + curves[2] + curves[3] + curves[4] / 2) / 4) < 1e-12);
    assert_true(fabs(s.insertion - (curves[5] / 2 + curves[6] + curves[7] + curves[8] + curves[9] / 2) / 4) < 1e-12);
    ok(radz_heatmap_measure(w->session, w->bank, w->image, "Edema", order, 4, &all, same, &err));
    assert_memory_equal(curves, same, sizeof curves); /* the same order of patches, NaN last */
    ok(radz_heatmap_measure(w->session, w->bank, w->image, "Edema", patches, 1, &s, coarse, &err));
    assert_true(coarse[0] == curves[0] && coarse[1] == curves[4]);
    ok(radz_heatmap_measure(w->session, w->bank, w->image, "Edema", patches, 4, &s, NULL, &err));
    assert_true(s.deletion == all.deletion && s.insertion == all.insertion);
    for (size_t bad = 0; bad <= 5; bad += 5) {
        assert_int_equal(radz_heatmap_measure(w->session, w->bank, w->image, "Edema", patches, bad, &s, NULL, &err),
                         RADZ_E_ARGUMENT);
        assert_true(isnan(s.deletion) && isnan(s.insertion) && isnan(s.film) && isnan(s.painted));
    }
    assert_int_equal(radz_heatmap_measure(w->session, w->bank, w->image, "Gout", patches, 4, &s, curves, &err),
                     RADZ_E_ARGUMENT);
    assert_true(isnan(curves[0]) && isnan(curves[9]));
}

/* The score is better for the right order than for its reverse: one patch alone carries the film's picture. */
static void test_measure_tells(void **state)
{
    public_world *w = *state;
    radz_heatmap_score best, worst, s;
    double curves[10], drop[4];
    float patches[4], reverse[4];
    radz_heatmap_score_init(&best);
    radz_heatmap_score_init(&worst);
    radz_heatmap_score_init(&s);
    for (size_t p = 0; p < 4; p++) { /* what painting one patch does */
        float only[4] = {0};
        only[p] = 1;
        ok(radz_heatmap_measure(w->session, w->bank, w->image, "Mass", only, 4, &s, curves, &err));
        drop[p] = curves[0] - curves[1];
    }
    for (size_t p = 0; p < 4; p++) patches[p] = (float)drop[p], reverse[p] = -patches[p];
    ok(radz_heatmap_measure(w->session, w->bank, w->image, "Mass", patches, 4, &best, NULL, &err));
    ok(radz_heatmap_measure(w->session, w->bank, w->image, "Mass", reverse, 4, &worst, NULL, &err));
    assert_true(best.deletion < worst.deletion);
}

/* ---- Memory ------------------------------------------------------------------------------------------------ */

static radz_status everything(const rz_host *host, void *arg)
{
    const char *dir = arg;
    public_world w = {0};
    float patches[4], map[50 * 33];
    radz_heatmap_score score;
    radz_heatmap_options o;
    radz_heatmap_score_init(&score);
    radz_heatmap_options_init(&o);
    radz_status status = open_public(&w, host, dir);
    for (int method = 0; method < 3 && status == RADZ_OK; method++) {
        o.method = (radz_heatmap_method)method;
        status = radz_heatmap(w.session, w.bank, w.image, "Edema", &o, map, &err);
    }
    memset(patches, 0, sizeof patches);
    if (status == RADZ_OK)
        status = radz_heatmap_measure(w.session, w.bank, w.image, "Edema", patches, 2, &score, NULL, &err);
    if (status == RADZ_OK) status = radz_heatmap_save_png(fixture_path(dir, "memory.png"), w.image, map, NULL, &err);
    close_public(&w);
    return status;
}

static void test_memory(void **state)
{
    public_world *w = *state;
    failing_host_try_all(everything, w->dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pytorch),
        cmocka_unit_test(test_class_row),
        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_several_tower_layers),
        cmocka_unit_test(test_square),
        cmocka_unit_test(test_expand_numbers),
        cmocka_unit_test(test_pointing),
        cmocka_unit_test_setup_teardown(test_public, make_public, end_public),
        cmocka_unit_test_setup_teardown(test_cancel, make_public, end_public),
        cmocka_unit_test_setup_teardown(test_bad_arguments, make_public, end_public),
        cmocka_unit_test_setup_teardown(test_picture, make_public, end_public),
        cmocka_unit_test_setup_teardown(test_picture_refusals, make_public, end_public),
        cmocka_unit_test_setup_teardown(test_picture_depth, make_public, end_public),
        cmocka_unit_test_setup_teardown(test_measure, make_public, end_public),
        cmocka_unit_test_setup_teardown(test_measure_tells, make_public, end_public),
        cmocka_unit_test_setup_teardown(test_memory, make_public, end_public),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
