/* test_api.c - the public functions: argument checks, failures that leave nothing behind, ownership, fork, threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "fixture.h"
#include "radz.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
/* A handle that no function may leave behind. */
#define JUNK ((void *)16)

static radz_error err;
static char *dir, *model_dir, *film, *bank_file;
static radz_runtime *runtime;
static radz_model *model;
static radz_session *session;
static radz_bank *bank;
static radz_image *image;
static const radz_bank_entry entries[] = {
    {"Effusion", "Fluid around the lung."}, {"No Finding", "Clear lungs."}, {"Mass", NULL}};

static void ok(radz_status status)
{
    if (status != RADZ_OK) fail_msg("%s: %s", radz_status_name(status), err.message);
}

static void refused(radz_status status, radz_status want, const char *words)
{
    if (status != want) fail_msg("status %d, not %d: %s", (int)status, (int)want, status ? err.message : "");
    assert_int_equal(err.code, want);
    if (!strstr(err.message, words)) fail_msg("'%s' not in '%s'", words, err.message);
    memset(&err, 0, sizeof err);
}

static int setup(void **state)
{
    (void)state;
    radz_runtime_options o;
    dir = fixture_temp_dir();
    model_dir = strdup(fixture_path(dir, "tiny"));
    film = strdup(fixture_path(dir, "film.png"));
    bank_file = strdup(fixture_path(model_dir, "anchors.safetensors"));
    assert_int_equal(mkdir(model_dir, 0700), 0);
    fixture_model(model_dir, 7);
    fixture_png(film, 100, 80, 1, 1);
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = 2;
    ok(radz_runtime_create(&o, &runtime, &err));
    ok(radz_model_open(runtime, model_dir, NULL, &model, &err));
    ok(radz_session_open(model, NULL, &session, &err));
    ok(radz_bank_build(session, entries, 3, &bank, &err));
    ok(radz_bank_save(bank, bank_file, &err));
    ok(radz_image_open(runtime, film, &image, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    radz_image_close(image);
    radz_bank_close(bank);
    radz_session_close(session);
    radz_model_close(model);
    radz_runtime_close(runtime);
    fixture_remove(dir);
    free(dir), free(model_dir), free(film), free(bank_file);
    return 0;
}

/* ---- Static facts ---- */

static void test_names(void **state)
{
    (void)state;
    char want[32];
    snprintf(want, sizeof want, "%d.%d.%d", RADZ_VERSION_MAJOR, RADZ_VERSION_MINOR, RADZ_VERSION_PATCH);
    assert_string_equal(radz_version(), want);
    assert_non_null(strstr(radz_disclaimer(), "Research use only"));
    assert_string_equal(radz_status_name(RADZ_OK), "ok");
    assert_string_equal(radz_status_name(RADZ_E_FORMAT), "format");
    assert_string_equal(radz_status_name(RADZ_E_INTERNAL), "internal");
    assert_string_equal(radz_status_name((radz_status)99), "unknown");
    assert_string_equal(radz_status_name((radz_status)-1), "unknown");
}

static void test_closing_null(void **state)
{
    (void)state;
    radz_runtime_close(NULL);
    radz_model_close(NULL);
    radz_session_close(NULL);
    radz_image_close(NULL);
    radz_bank_close(NULL);
    radz_result_close(NULL);
    radz_text_free(NULL);
    radz_runtime_options_init((radz_runtime_options *)NULL);
    radz_model_options_init_sized(NULL, 8);
}

/* A program built against an older, shorter header, and one against a newer. */
static void test_options_of_another_header(void **state)
{
    (void)state;
    struct {
        radz_model_options options;
        unsigned char behind[16];
    } m;
    memset(&m, 0xAA, sizeof m);
    radz_model_options_init_sized(&m.options, offsetof(radz_model_options, vision_dir));
    assert_int_equal(m.options.struct_size, offsetof(radz_model_options, vision_dir));
    assert_int_equal(m.options.use_mmap, 1);
    for (const unsigned char *p = (unsigned char *)&m.options.vision_dir; p < m.behind + sizeof m.behind; p++)
        assert_int_equal(*p, 0xAA);
    radz_model_options_init_sized(&m.options, sizeof m);
    assert_int_equal(m.options.struct_size, sizeof m);
    for (size_t i = 0; i < sizeof m.behind; i++) assert_int_equal(m.behind[i], 0);
}

static void test_asking_null(void **state)
{
    (void)state;
    assert_null(radz_runtime_device(NULL));
    assert_int_equal(radz_model_embedding_dim(NULL), 0);
    assert_null(radz_model_hash(NULL));
    assert_null(radz_model_name(NULL));
    assert_null(radz_model_device(NULL));
    assert_int_equal(radz_image_width(NULL), 0);
    assert_int_equal(radz_image_height(NULL), 0);
    assert_null(radz_image_sha256(NULL));
    assert_int_equal(radz_bank_count(NULL), 0);
    assert_null(radz_bank_label(NULL, 0));
    assert_null(radz_bank_description(NULL, 0));
    assert_null(radz_bank_anchor(NULL, 0));
    assert_null(radz_bank_hash(NULL));
    assert_int_equal(radz_result_count(NULL), 0);
    assert_null(radz_result_label(NULL, 0));
    assert_true(isnan(radz_result_probability(NULL, 0)));
    assert_true(isnan(radz_result_similarity(NULL, 0)));
    assert_int_equal(radz_result_warning_count(NULL), 0);
    assert_null(radz_result_warning(NULL, 0));
}

static void test_getters(void **state)
{
    (void)state;
    assert_int_equal(radz_model_embedding_dim(model), 8);
    assert_int_equal(strlen(radz_model_hash(model)), 64);
    assert_string_equal(radz_model_name(model), "tiny");
    assert_string_equal(radz_model_device(model), radz_runtime_device(runtime));
    assert_int_equal(radz_image_width(image), 100);
    assert_int_equal(radz_image_height(image), 80);
    assert_int_equal(radz_bank_count(bank), 3);
    assert_string_equal(radz_bank_label(bank, 1), "No Finding");
    assert_string_equal(radz_bank_description(bank, 2), "This is a chest X-ray showing Mass.");
    assert_null(radz_bank_label(bank, 3));
    assert_null(radz_bank_description(bank, 3));
    assert_null(radz_bank_anchor(bank, SIZE_MAX));
    double sum = 0;
    for (int i = 0; i < 8; i++) sum += radz_bank_anchor(bank, 2)[i] * radz_bank_anchor(bank, 2)[i];
    assert_true(fabs(sum - 1) < 1e-5);
}

/* ---- NULL arguments: the error names the parameter, outputs are NULL ---- */

#define REFUSED_NULL(call, name) refused((call), RADZ_E_ARGUMENT, name " is NULL")

static void test_null_runtime_model_session(void **state)
{
    (void)state;
    radz_model *m = JUNK;
    radz_session *s = JUNK;
    REFUSED_NULL(radz_runtime_create(NULL, NULL, &err), "runtime");
    REFUSED_NULL(radz_model_open(runtime, model_dir, NULL, NULL, &err), "model");
    REFUSED_NULL(radz_model_open(runtime, NULL, NULL, &m, &err), "dir");
    assert_null(m);
    REFUSED_NULL(radz_session_open(model, NULL, NULL, &err), "session");
    REFUSED_NULL(radz_session_open(NULL, NULL, &s, &err), "model");
    assert_null(s);
    assert_int_equal(radz_session_open(NULL, NULL, &s, NULL), RADZ_E_ARGUMENT);
}

static void test_null_images(void **state)
{
    (void)state;
    radz_image *im = JUNK;
    REFUSED_NULL(radz_image_open(runtime, film, NULL, &err), "image");
    REFUSED_NULL(radz_image_open(runtime, NULL, &im, &err), "path");
    assert_null(im);
    im = JUNK;
    REFUSED_NULL(radz_image_open_memory(runtime, "x", 1, NULL, &err), "image");
    REFUSED_NULL(radz_image_open_memory(runtime, NULL, 1, &im, &err), "bytes");
    assert_null(im);
    im = JUNK;
    REFUSED_NULL(radz_image_from_pixels(NULL, "x", RADZ_PIXELS_GRAY8, 1, 1, 1, NULL, &err), "image");
    REFUSED_NULL(radz_image_from_pixels(NULL, NULL, RADZ_PIXELS_GRAY8, 1, 1, 1, &im, &err), "pixels");
    assert_null(im);
}

static void assert_nan(float *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_true(isnan(v[i]));
        v[i] = 0;
    }
}

static void test_null_embeddings(void **state)
{
    (void)state;
    float v[16] = {0};
    const radz_image *images[2] = {image, NULL};
    const char *texts[2] = {"a", NULL};
    REFUSED_NULL(radz_embed_images(NULL, images, 1, NULL, v, &err), "session");
    REFUSED_NULL(radz_embed_images(session, NULL, 2, NULL, v, &err), "images");
    assert_nan(v, 16);
    REFUSED_NULL(radz_embed_images(session, images, 2, NULL, v, &err), "images[1]");
    assert_nan(v, 16);
    REFUSED_NULL(radz_embed_images(session, images, 1, NULL, NULL, &err), "out");
    refused(radz_embed_images(
                session, images, 1,
                &(radz_embed_options){.struct_size = sizeof(radz_embed_options), .feature = (radz_feature)4}, v, &err),
            RADZ_E_ARGUMENT, "feature");
    for (size_t i = 0; i < 16; i++) assert_true(v[i] == 0); /* radz_embed_dim is 0: there is no room */
    REFUSED_NULL(radz_embed_texts(NULL, texts, 1, NULL, v, &err), "session");
    REFUSED_NULL(radz_embed_texts(session, NULL, 2, NULL, v, &err), "texts");
    assert_nan(v, 16);
    REFUSED_NULL(radz_embed_texts(session, texts, 2, NULL, v, &err), "texts[1]");
    assert_nan(v, 16);
    REFUSED_NULL(radz_embed_texts(session, texts, 1, NULL, NULL, &err), "out");
    ok(radz_embed_images(session, NULL, 0, NULL, NULL, &err));
    ok(radz_embed_texts(session, NULL, 0, NULL, NULL, &err));
}

static void test_null_banks(void **state)
{
    (void)state;
    radz_bank *b = JUNK;
    REFUSED_NULL(radz_bank_build(session, entries, 3, NULL, &err), "bank");
    REFUSED_NULL(radz_bank_build(NULL, entries, 3, &b, &err), "session");
    assert_null(b);
    REFUSED_NULL(radz_bank_build(session, NULL, 3, &b, &err), "entries");
    REFUSED_NULL(radz_bank_build_file(session, "x", NULL, &err), "bank");
    REFUSED_NULL(radz_bank_build_file(NULL, "x", &b, &err), "session");
    REFUSED_NULL(radz_bank_build_file(session, NULL, &b, &err), "path");
    b = JUNK;
    REFUSED_NULL(radz_bank_open(NULL, NULL, &b, &err), "model");
    assert_null(b);
    REFUSED_NULL(radz_bank_open(model, NULL, NULL, &err), "bank");
    REFUSED_NULL(radz_bank_save(NULL, "x", &err), "bank");
    REFUSED_NULL(radz_bank_save(bank, NULL, &err), "path");
}

static void test_null_classification(void **state)
{
    (void)state;
    radz_result *r = JUNK, *two[2] = {JUNK, JUNK};
    const radz_image *images[2] = {image, NULL};
    char *json = JUNK;
    REFUSED_NULL(radz_classify(NULL, bank, image, &r, &err), "session");
    assert_null(r);
    r = JUNK;
    REFUSED_NULL(radz_classify(session, bank, NULL, &r, &err), "image");
    assert_null(r);
    REFUSED_NULL(radz_classify(session, bank, image, NULL, &err), "result");
    r = JUNK;
    REFUSED_NULL(radz_classify_file(session, bank, NULL, &r, &err), "path");
    assert_null(r);
    REFUSED_NULL(radz_classify_file(NULL, bank, film, &r, &err), "session");
    REFUSED_NULL(radz_classify_file(session, bank, film, NULL, &err), "result");
    REFUSED_NULL(radz_classify_batch(session, bank, images, 2, two, &err), "images[1]");
    assert_true(!two[0] && !two[1]);
    REFUSED_NULL(radz_classify_batch(session, bank, NULL, 2, two, &err), "images");
    REFUSED_NULL(radz_classify_batch(session, bank, images, 2, NULL, &err), "results");
    REFUSED_NULL(radz_classify_batch(NULL, bank, images, 1, two, &err), "session");
    REFUSED_NULL(radz_result_json(NULL, NULL, &json, &err), "result");
    assert_null(json);
    json = JUNK;
    REFUSED_NULL(radz_error_json(NULL, NULL, &json, &err), "error");
    assert_null(json);
    REFUSED_NULL(radz_error_json(&err, NULL, NULL, &err), "json");
    ok(radz_classify_batch(session, bank, NULL, 0, NULL, &err));
}

/* ---- Options ---- */

static void *some_malloc(size_t n, void *user)
{
    (void)user;
    return malloc(n);
}

static void test_runtime_options(void **state)
{
    (void)state;
    radz_runtime *r = JUNK;
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    assert_int_equal(o.struct_size, sizeof o);
    const int bad[] = {-1, 1025, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < COUNT(bad); i++) {
        o.n_threads = bad[i];
        refused(radz_runtime_create(&o, &r, &err), RADZ_E_ARGUMENT, "n_threads");
        assert_null(r);
    }
    o.n_threads = 1;
    o.malloc_fn = some_malloc;
    refused(radz_runtime_create(&o, &r, &err), RADZ_E_ARGUMENT, "all three or none");
    o.malloc_fn = NULL;
    o.device = "toaster";
    refused(radz_runtime_create(&o, &r, &err), RADZ_E_ARGUMENT, "toaster");
    o.device = "cpu", o.kernels = "sse9";
    refused(radz_runtime_create(&o, &r, &err), RADZ_E_ARGUMENT, "sse9");
    o.kernels = NULL, o.gemm = "";
    ok(radz_runtime_create(&o, &r, &err));
    radz_runtime_close(r);
}

/* Structs of an older caller (short), of a newer one (long), and memory that was never initialised. */
static void test_struct_sizes(void **state)
{
    (void)state;
    struct {
        radz_runtime_options o;
        size_t news[2];
    } next;
    radz_runtime *r;
    memset(&next, 0, sizeof next);
    radz_runtime_options_init(&next.o);
    next.o.n_threads = 1;
    next.o.struct_size = sizeof next;
    ok(radz_runtime_create(&next.o, &r, &err));
    radz_runtime_close(r);
    next.news[1] = 1;
    refused(radz_runtime_create(&next.o, &r, &err), RADZ_E_UNSUPPORTED, "does not know");
    assert_null(r);
    next.o.struct_size = offsetof(radz_runtime_options, n_threads);
    next.o.n_threads = -5; /* an older caller has no such field */
    ok(radz_runtime_create(&next.o, &r, &err));
    radz_runtime_close(r);
    const size_t bad[] = {0, 1, 7, sizeof(void *) + 1, 1 << 20, SIZE_MAX};
    for (size_t i = 0; i < COUNT(bad); i++) {
        radz_model *m = JUNK;
        radz_session *s = JUNK;
        radz_model_options mo = {.struct_size = bad[i]};
        radz_session_options so = {.struct_size = bad[i]};
        next.o.struct_size = bad[i];
        refused(radz_runtime_create(&next.o, &r, &err), RADZ_E_ARGUMENT, "struct_size");
        refused(radz_model_open(runtime, model_dir, &mo, &m, &err), RADZ_E_ARGUMENT, "struct_size");
        refused(radz_session_open(model, &so, &s, &err), RADZ_E_ARGUMENT, "struct_size");
        assert_true(!r && !m && !s);
    }
}

static int stop(void *user)
{
    ++*(int *)user;
    return 1;
}

static void test_cancel(void **state)
{
    (void)state;
    int calls = 0;
    radz_session_options o;
    radz_session *s;
    radz_result *r = JUNK;
    radz_session_options_init(&o);
    o.cancel_fn = stop, o.user = &calls;
    ok(radz_session_open(model, &o, &s, &err));
    assert_int_equal(radz_classify(s, bank, image, &r, &err), RADZ_E_CANCELLED);
    assert_null(r);
    assert_true(calls > 0);
    radz_session_close(s);
}

/* ---- Things that are not there ---- */

static void test_missing_files(void **state)
{
    (void)state;
    radz_model *m = JUNK;
    radz_image *im = JUNK;
    radz_bank *b = JUNK;
    radz_result *r = JUNK;
    const char *nowhere = fixture_path(dir, "nowhere");
    refused(radz_model_open(NULL, nowhere, NULL, &m, &err), RADZ_E_IO, "config.json");
    assert_null(m);
    refused(radz_image_open(NULL, nowhere, &im, &err), RADZ_E_IO, "nowhere");
    assert_null(im);
    assert_int_equal(radz_image_open(NULL, dir, &im, &err), RADZ_E_IO);
    refused(radz_bank_open(model, nowhere, &b, &err), RADZ_E_IO, "nowhere");
    assert_null(b);
    refused(radz_bank_build_file(session, nowhere, &b, &err), RADZ_E_IO, "nowhere");
    refused(radz_bank_save(bank, fixture_path(nowhere, "b"), &err), RADZ_E_IO, "nowhere");
    refused(radz_classify_file(session, bank, nowhere, &r, &err), RADZ_E_IO, "nowhere");
    assert_null(r);
}

static void test_bad_images(void **state)
{
    (void)state;
    radz_image *im = JUNK;
    refused(radz_image_open_memory(runtime, "", 0, &im, &err), RADZ_E_FORMAT, "memory");
    assert_null(im);
    refused(radz_image_open_memory(runtime, "GIF89a..", 8, &im, &err), RADZ_E_UNSUPPORTED, "memory");
    refused(radz_image_from_pixels(NULL, "", RADZ_PIXELS_GRAY8, 0, 1, 1, &im, &err), RADZ_E_ARGUMENT, "0 x 1");
    refused(radz_image_from_pixels(NULL, "", RADZ_PIXELS_GRAY8, 1, SIZE_MAX, 1, &im, &err), RADZ_E_ARGUMENT, "1 x ");
    refused(radz_image_from_pixels(NULL, "", RADZ_PIXELS_GRAY8, 60000, 60000, 60000, &im, &err), RADZ_E_LIMIT,
            "60000 x 60000");
    refused(radz_image_from_pixels(NULL, "", RADZ_PIXELS_RGB8, 10, 1, 29, &im, &err), RADZ_E_ARGUMENT, "stride");
    refused(radz_image_from_pixels(NULL, "", (radz_pixel_format)3, 1, 1, 1, &im, &err), RADZ_E_ARGUMENT, "format");
    assert_null(im);
}

/* ---- Classification ---- */

static void test_classify(void **state)
{
    (void)state;
    radz_result *r, *own, *file, *batch[3];
    const radz_image *images[3] = {image, image, image};
    ok(radz_classify(session, bank, image, &r, &err));
    ok(radz_classify(session, NULL, image, &own, &err));
    ok(radz_classify_file(session, bank, film, &file, &err));
    ok(radz_classify_batch(session, bank, images, 3, batch, &err));
    assert_int_equal(radz_result_count(r), 3);
    for (size_t i = 0; i < 3; i++) {
        const radz_result *all[] = {own, file, batch[0], batch[1], batch[2]};
        double p = radz_result_probability(r, i);
        assert_true(p >= 0 && p <= 1 && fabs(radz_result_similarity(r, i)) <= 1);
        assert_true(i == 0 || p <= radz_result_probability(r, i - 1));
        for (size_t k = 0; k < COUNT(all); k++) {
            assert_string_equal(radz_result_label(all[k], i), radz_result_label(r, i));
            assert_true(radz_result_probability(all[k], i) == p);
        }
    }
    assert_null(radz_result_label(r, 3));
    assert_true(isnan(radz_result_probability(r, 3)) && isnan(radz_result_similarity(r, 3)));
    assert_string_equal(radz_result_warning(r, 0), "probabilities are not calibrated");
    assert_null(radz_result_warning(r, radz_result_warning_count(r)));
    radz_result_close(r), radz_result_close(own), radz_result_close(file);
    for (int i = 0; i < 3; i++) radz_result_close(batch[i]);
}

static bool warns(const radz_result *r, const char *word)
{
    for (size_t i = 0; i < radz_result_warning_count(r); i++)
        if (strstr(radz_result_warning(r, i), word)) return true;
    return false;
}

static void test_warnings(void **state)
{
    (void)state;
    static uint8_t gray[300 * 300], red[3 * 100 * 100];
    for (size_t i = 0; i < sizeof gray; i++) gray[i] = (uint8_t)(i * 7 / 300);
    for (size_t i = 0; i < sizeof red; i++) red[i] = i % 3 ? (uint8_t)(i % 50) : 200;
    const struct {
        const void *pixels;
        radz_pixel_format format;
        size_t width, height;
        const char *word;
    } cases[] = {{gray, RADZ_PIXELS_GRAY8, 300, 300, NULL},
                 {gray, RADZ_PIXELS_GRAY8, 63, 100, "very small"},
                 {gray, RADZ_PIXELS_GRAY8, 64, 300, "three times"},
                 {red, RADZ_PIXELS_RGB8, 100, 100, "in colour"},
                 {calloc(100, 100), RADZ_PIXELS_GRAY8, 100, 100, "blank"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        radz_image *im;
        radz_result *r;
        size_t stride = cases[i].width * (cases[i].format == RADZ_PIXELS_RGB8 ? 3 : 1);
        ok(radz_image_from_pixels(runtime, cases[i].pixels, cases[i].format, cases[i].width, cases[i].height, stride,
                                  &im, &err));
        ok(radz_classify(session, bank, im, &r, &err));
        for (size_t k = 0; k < COUNT(cases); k++)
            if (cases[k].word) assert_int_equal(warns(r, cases[k].word), k == i);
        radz_result_close(r);
        radz_image_close(im);
    }
    free((void *)(uintptr_t)cases[4].pixels);
}

static void test_json(void **state)
{
    (void)state;
    static const char *const parts[] = {"{\"schema\":\"radz.result/1\",\"input\":{\"path\":\"x\",\"sha256\":\"",
                                        "\"width_px\":100,\"height_px\":80}",
                                        "\"provenance\":{\"library\":\"libradz\",\"version\":\"",
                                        "\"model\":{\"name\":\"tiny\",\"hash\":\"",
                                        "\"bank\":{\"hash\":\"",
                                        "\"score\":\"img_anchor\",\"tau\":0.0",
                                        "\"reference\":\"No Finding\"",
                                        "\"preprocess\":{",
                                        "\"disclaimer\":\"Research use only. Not for diagnosis.\"}",
                                        "\"warnings\":[\"probabilities are not calibrated\"]}"};
    radz_result *r;
    char *json, *again;
    const char *old = setlocale(LC_ALL, "de_DE.UTF-8"); /* where it is installed, "0,5" would show */
    ok(radz_classify(session, bank, image, &r, &err));
    ok(radz_result_json(r, "x", &json, &err));
    ok(radz_result_json(r, NULL, &again, &err));
    for (size_t i = 0; i < COUNT(parts); i++)
        if (!strstr(json, parts[i])) fail_msg("%s not in %s", parts[i], json);
    assert_non_null(strstr(json, radz_image_sha256(image)));
    assert_non_null(strstr(again, "film.png\",\"sha256\""));
    radz_result_close(r);
    radz_text_free(json);
    radz_text_free(again);
    if (old) setlocale(LC_ALL, "C");
}

static void test_hash_of_the_film(void **state)
{
    (void)state;
    radz_image *im;
    ok(radz_image_from_pixels(NULL, "abcX", RADZ_PIXELS_GRAY8, 3, 1, 4, &im, &err));
    assert_string_equal(radz_image_sha256(im), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    radz_image_close(im);
}

/* What one would draw: 16 bits stay 16, padding between rows does not. */
static void test_pixels_of_the_film(void **state)
{
    (void)state;
    static const uint16_t deep[] = {0, 1, 99, 65535, 256, 99};
    static const uint16_t packed[] = {0, 1, 65535, 256};
    radz_image *im;
    ok(radz_image_from_pixels(NULL, deep, RADZ_PIXELS_GRAY16, 2, 2, 6, &im, &err));
    assert_int_equal(radz_image_channels(im), 1);
    assert_int_equal(radz_image_bits(im), 16);
    assert_memory_equal(radz_image_pixels(im), packed, sizeof packed);
    radz_image_close(im);
    ok(radz_image_from_pixels(NULL, "RGBrgb", RADZ_PIXELS_RGB8, 2, 1, 6, &im, &err));
    assert_int_equal(radz_image_channels(im), 3);
    assert_int_equal(radz_image_bits(im), 8);
    assert_memory_equal(radz_image_pixels(im), "RGBrgb", 6);
    radz_image_close(im);
    assert_null(radz_image_pixels(NULL));
    assert_int_equal(radz_image_channels(NULL) + radz_image_bits(NULL), 0);
}

/* What is wrong with pixels that no file describes: every result says it, strict or not. */
static void test_pixels_with_nothing_to_see(void **state)
{
    (void)state;
    static const uint16_t unscaled[] = {0, 1, 4095, 17}, scaled[] = {0, 1, 4096, 17}, white[] = {9, 9, 9, 9};
    const struct {
        const void *pixels;
        radz_pixel_format format;
        const char *says; /* NULL: nothing */
    } cases[] = {{unscaled, RADZ_PIXELS_GRAY16, "less than a sixteenth"},
                 {scaled, RADZ_PIXELS_GRAY16, NULL},
                 {white, RADZ_PIXELS_GRAY16, "nothing to see"},
                 {"ab\0\0cd", RADZ_PIXELS_GRAY8, NULL},
                 {"aaaaaaaa", RADZ_PIXELS_GRAY8, "nothing to see"},
                 {"abcabcabcabc", RADZ_PIXELS_RGB8, "nothing to see"},
                 {"abcabcabcabd", RADZ_PIXELS_RGB8, NULL}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        radz_image *im;
        radz_result *r = NULL;
        const size_t row = cases[i].format == RADZ_PIXELS_GRAY8 ? 2 : cases[i].format == RADZ_PIXELS_GRAY16 ? 4 : 6;
        ok(radz_image_from_pixels(NULL, cases[i].pixels, cases[i].format, 2, 2, row, &im, &err));
        assert_int_equal(radz_image_warning_count(im), cases[i].says != NULL);
        if (cases[i].says) assert_non_null(strstr(radz_image_warning(im, 0), cases[i].says));
        ok(radz_classify(session, bank, im, &r, &err));
        size_t n = 0;
        for (size_t k = 0; cases[i].says && k < radz_result_warning_count(r); k++)
            n += strstr(radz_result_warning(r, k), cases[i].says) != NULL;
        assert_int_equal(n, cases[i].says != NULL);
        radz_result_close(r);
        radz_image_close(im);
    }
}

/* ---- The same bits alone, in a batch, with other threads ---- */

enum { N_FILMS = 21 }; /* more than one pass */

static void test_batch_invariance(void **state)
{
    (void)state;
    radz_image *images[N_FILMS];
    const char *texts[N_FILMS];
    static const char *const words[] = {"Edema.", "a small effusion on the left, and no pneumothorax", "", "x y"};
    float all[N_FILMS][8], one[8];
    radz_embed_options o;
    radz_embed_options_init(&o);
    for (size_t i = 0; i < N_FILMS; i++) {
        size_t n;
        uint8_t *png = fixture_png_bytes(40 + 7 * i, 90 - 3 * i, i % 2 ? 3 : 1, i, &n);
        ok(radz_image_open_memory(runtime, png, n, &images[i], &err));
        free(png);
        texts[i] = words[i % COUNT(words)];
    }
    for (int f = 0; f < 4; f++) {
        o.feature = (radz_feature)f;
        ok(radz_embed_images(session, (const radz_image *const *)images, N_FILMS, &o, all[0], &err));
        for (size_t i = 0; i < N_FILMS; i++) {
            ok(radz_embed_images(session, (const radz_image *const *)&images[i], 1, &o, one, &err));
            assert_memory_equal(one, all[i], sizeof one);
            assert_true(i == 0 || memcmp(all[i], all[0], sizeof one) != 0);
        }
        ok(radz_embed_texts(session, texts, N_FILMS, &o, all[0], &err));
        for (size_t i = 0; i < N_FILMS; i++) {
            ok(radz_embed_texts(session, &texts[i], 1, &o, one, &err));
            assert_memory_equal(one, all[i], sizeof one);
        }
    }
    for (size_t i = 0; i < N_FILMS; i++) radz_image_close(images[i]);
}

typedef struct worker {
    pthread_t thread;
    radz_status status;
    float vectors[8][8];
} worker;

static void *work(void *arg)
{
    worker *w = arg;
    radz_session *s;
    w->status = radz_session_open(model, NULL, &s, NULL);
    for (int i = 0; i < 8 && !w->status; i++) {
        const radz_image *im = image;
        w->status = radz_embed_images(s, &im, 1, NULL, w->vectors[i], NULL);
        if (!w->status) {
            radz_result *r;
            w->status = radz_classify(s, bank, image, &r, NULL);
            radz_result_close(r);
        }
    }
    radz_session_close(s);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    worker w[4];
    float want[8];
    const radz_image *im = image;
    ok(radz_embed_images(session, &im, 1, NULL, want, &err));
    for (size_t i = 0; i < COUNT(w); i++) assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    for (size_t i = 0; i < COUNT(w); i++) {
        pthread_join(w[i].thread, NULL);
        assert_int_equal(w[i].status, RADZ_OK);
        for (int k = 0; k < 8; k++) assert_memory_equal(w[i].vectors[k], want, sizeof want);
    }
}

static void test_thread_counts(void **state)
{
    (void)state;
    float want[8], got[8];
    const radz_image *im = image;
    ok(radz_embed_images(session, &im, 1, NULL, want, &err));
    for (int n = 1; n <= 5; n += 2) {
        radz_runtime_options o;
        radz_runtime *r;
        radz_model *m;
        radz_session *s;
        radz_runtime_options_init(&o);
        o.device = "cpu", o.n_threads = n;
        ok(radz_runtime_create(&o, &r, &err));
        ok(radz_model_open(r, model_dir, &(radz_model_options){.struct_size = sizeof(radz_model_options)}, &m, &err));
        ok(radz_session_open(m, NULL, &s, &err));
        ok(radz_embed_images(s, &im, 1, NULL, got, &err));
        assert_memory_equal(want, got, sizeof got);
        radz_session_close(s), radz_model_close(m), radz_runtime_close(r);
    }
}

/* ---- Ownership ---- */

/* Everything is closed in the wrong order while the rest is still used. */
static void test_close_order(void **state)
{
    (void)state;
    radz_model *m;
    radz_session *s;
    radz_bank *b;
    radz_image *im;
    radz_result *r;
    char *json;
    radz_runtime *rt;
    ok(radz_runtime_create(NULL, &rt, &err));
    ok(radz_image_open(rt, film, &im, &err));
    ok(radz_model_open(rt, model_dir, NULL, &m, &err));
    radz_runtime_close(rt);
    ok(radz_session_open(m, NULL, &s, &err));
    ok(radz_bank_open(m, NULL, &b, &err));
    radz_model_close(m);
    ok(radz_classify(s, b, im, &r, &err));
    radz_session_close(s);
    radz_image_close(im);
    assert_int_equal(radz_bank_count(b), 3);
    radz_bank_close(b);
    ok(radz_result_json(r, NULL, &json, &err));
    radz_result_close(r);
    assert_non_null(strstr(json, "No Finding"));
    radz_text_free(json);
}

static void test_bank_of_another_model(void **state)
{
    (void)state;
    const char *path = fixture_path(dir, "tiny2");
    radz_model *m;
    radz_session *s;
    radz_result *r = JUNK;
    radz_bank *b = JUNK;
    assert_int_equal(mkdir(path, 0700), 0);
    fixture_model(path, 8);
    ok(radz_model_open(runtime, path, NULL, &m, &err));
    ok(radz_session_open(m, NULL, &s, &err));
    assert_string_not_equal(radz_model_hash(m), radz_model_hash(model));
    refused(radz_classify(s, bank, image, &r, &err), RADZ_E_MISMATCH, "another model");
    assert_null(r);
    refused(radz_bank_open(m, bank_file, &b, &err), RADZ_E_MISMATCH, "another model");
    assert_null(b);
    refused(radz_classify(s, NULL, image, &r, &err), RADZ_E_IO, "anchors.safetensors");
    radz_session_close(s);
    radz_model_close(m);
}

/* ---- Fork ---- */

static int in_child(void)
{
    radz_result *r = JUNK;
    radz_model *m = JUNK;
    radz_bank *b = JUNK;
    radz_image *im = JUNK;
    float v[8] = {0};
    const radz_image *images[1] = {image};
    int wrong = 0;
    wrong += radz_classify(session, bank, image, &r, NULL) != RADZ_E_STATE || r;
    wrong += radz_model_open(runtime, model_dir, NULL, &m, NULL) != RADZ_E_STATE || m;
    wrong += radz_bank_open(model, NULL, &b, NULL) != RADZ_E_STATE || b;
    wrong += radz_bank_save(bank, "x", NULL) != RADZ_E_STATE;
    wrong += radz_image_open(runtime, film, &im, NULL) != RADZ_E_STATE || im;
    wrong += radz_embed_images(session, images, 1, NULL, v, NULL) != RADZ_E_STATE || !isnan(v[0]);
    radz_session_close(session);
    radz_model_close(model);
    radz_bank_close(bank);
    radz_image_close(image);
    radz_runtime_close(runtime);
    return wrong;
}

static void test_fork(void **state)
{
    (void)state;
    int status;
    radz_result *r;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        _exit(in_child());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    ok(radz_classify(session, bank, image, &r, &err)); /* the parent goes on */
    radz_result_close(r);
}

/* ---- Memory that runs out ---- */

typedef struct budget {
    long left;     /* allocations that still work */
    bool once;     /* only one fails */
    long n_blocks; /* alive */
    pthread_mutex_t lock;
} budget;

static bool spend(budget *b)
{
    pthread_mutex_lock(&b->lock);
    bool good = b->left > 0 || (b->once && b->left < 0);
    b->left--;
    b->n_blocks += good;
    pthread_mutex_unlock(&b->lock);
    return good;
}

static void *limited_malloc(size_t n, void *user)
{
    return spend(user) ? malloc(n) : NULL;
}

static void limited_free(void *p, void *user)
{
    budget *b = user;
    pthread_mutex_lock(&b->lock);
    b->n_blocks -= p != NULL;
    pthread_mutex_unlock(&b->lock);
    free(p);
}

static void *limited_realloc(void *p, size_t n, void *user)
{
    budget *b = user;
    if (!spend(b)) return NULL;
    pthread_mutex_lock(&b->lock);
    b->n_blocks -= p != NULL; /* one block goes, one comes */
    pthread_mutex_unlock(&b->lock);
    return realloc(p, n);
}

/* The whole path; every handle that was opened is closed. */
static radz_status whole_path(budget *b)
{
    radz_runtime *rt = NULL;
    radz_model *m = NULL;
    radz_session *s = NULL;
    radz_bank *built = NULL, *loaded = NULL;
    radz_result *r = NULL;
    char *json = NULL;
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = 2;
    o.malloc_fn = limited_malloc, o.realloc_fn = limited_realloc, o.free_fn = limited_free, o.user = b;
    radz_status status = radz_runtime_create(&o, &rt, &err);
    if (!status) status = radz_model_open(rt, model_dir, NULL, &m, &err);
    if (!status) status = radz_session_open(m, NULL, &s, &err);
    if (!status) status = radz_bank_build(s, entries, 3, &built, &err);
    if (!status) status = radz_bank_save(built, fixture_path(dir, "saved"), &err);
    if (!status) status = radz_bank_open(m, NULL, &loaded, &err);
    if (!status) status = radz_classify_file(s, loaded, film, &r, &err);
    if (!status) status = radz_result_json(r, NULL, &json, &err);
    radz_text_free(json);
    radz_result_close(r), radz_bank_close(loaded), radz_bank_close(built);
    radz_session_close(s), radz_model_close(m), radz_runtime_close(rt);
    return status;
}

static void fail_every_allocation(bool once)
{
    budget b = {.once = once, .lock = PTHREAD_MUTEX_INITIALIZER};
    radz_status status = RADZ_E_MEMORY;
    long n = 0;
    for (; n < 100000; n++) {
        b.left = n;
        status = whole_path(&b);
        if (b.n_blocks) fail_msg("allocation %ld fails: %ld blocks are lost (%s)", n, b.n_blocks, err.message);
        if (b.left >= 0) break; /* nothing failed any more */
        /* Where something else can take the place of the memory, the path may succeed all the same. */
        if (status && status != RADZ_E_MEMORY) fail_msg("allocation %ld fails: %d, %s", n, (int)status, err.message);
    }
    ok(status);
    assert_true(n > 50);
}

static void test_allocation_fails_once(void **state)
{
    (void)state;
    fail_every_allocation(true);
}

static void test_allocation_fails_from_then_on(void **state)
{
    (void)state;
    fail_every_allocation(false);
}

/* ---- The host's log ---- */

static void count_lines(radz_log_level level, const char *message, void *user)
{
    (void)level;
    assert_null(strchr(message, '\n'));
    __atomic_fetch_add((int *)user, 1, __ATOMIC_RELAXED);
}

static void test_log(void **state)
{
    (void)state;
    int n = 0;
    radz_runtime_options o;
    radz_runtime *r;
    radz_runtime_options_init(&o);
    o.log_fn = count_lines, o.user = &n;
    ok(radz_runtime_create(&o, &r, &err));
    assert_true(n > 0);
    radz_runtime_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_closing_null),
        cmocka_unit_test(test_asking_null),
        cmocka_unit_test(test_options_of_another_header),
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_null_runtime_model_session),
        cmocka_unit_test(test_null_images),
        cmocka_unit_test(test_null_embeddings),
        cmocka_unit_test(test_null_banks),
        cmocka_unit_test(test_null_classification),
        cmocka_unit_test(test_runtime_options),
        cmocka_unit_test(test_struct_sizes),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_bad_images),
        cmocka_unit_test(test_classify),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_hash_of_the_film),
        cmocka_unit_test(test_pixels_of_the_film),
        cmocka_unit_test(test_pixels_with_nothing_to_see),
        cmocka_unit_test(test_batch_invariance),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_thread_counts),
        cmocka_unit_test(test_close_order),
        cmocka_unit_test(test_bank_of_another_model),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_allocation_fails_once),
        cmocka_unit_test(test_allocation_fails_from_then_on),
        cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
