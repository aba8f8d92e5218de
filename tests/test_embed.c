/* test_embed.c - embeddings by feature and layer against transformers' hidden states (tests/parity/llava_tiny), their
 * options, and vectors in files. SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "fixture.h"
#include "formats.h"
#include "scratch.h"

#define DIR_TINY "tests/parity/llava_tiny"
enum { HIDDEN = 24, DIM = 16, LAYERS = 4, N_SPECIAL = 8 /* at the end of a text's prompt */ };

static radz_error err;
static radz_model *model;
static radz_session *session;
static rz_st *want;
static char *dir;

static void ok(radz_status status)
{
    if (status != RADZ_OK) fail_msg("%s: %s", radz_status_name(status), err.message);
}

static void refused(radz_status status, radz_status expected, const char *words)
{
    if (status != expected || !strstr(err.message, words))
        fail_msg("status %d '%s', expected %d '%s'", (int)status, err.message, (int)expected, words);
}

static int setup(void **state)
{
    (void)state;
    dir = fixture_temp_dir();
    ok(radz_model_open(NULL, DIR_TINY, NULL, &model, &err));
    ok(radz_session_open(model, NULL, &session, &err));
    ok(rz_st_open(NULL, DIR_TINY "/expected.safetensors", RZ_FILE_READ, &want, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    radz_session_close(session);
    radz_model_close(model);
    rz_st_close(want);
    fixture_remove(dir);
    free(dir);
    return 0;
}

/* ---- Against transformers ---- */

/* Mean of the rows that `feature` names, scaled to length 1. */
static void expect_rows(const float *h, size_t rows, radz_feature feature, double out[HIDDEN])
{
    size_t first = feature == RADZ_FEATURE_GLOBAL ? rows - N_SPECIAL : feature == RADZ_FEATURE_LAST ? rows - 1 : 0;
    size_t end = feature == RADZ_FEATURE_LOCAL ? rows - N_SPECIAL : rows;
    double sum = 0;
    for (size_t c = 0; c < HIDDEN; c++) {
        out[c] = 0;
        for (size_t r = first; r < end; r++) out[c] += h[r * HIDDEN + c];
        sum += out[c] * out[c];
    }
    for (size_t c = 0; c < HIDDEN; c++) out[c] /= sqrt(sum);
}

static void check_text(const char *name, const char *text, int state, int layer)
{
    char key[64];
    snprintf(key, sizeof key, "%s.hidden_states.%d", name, state);
    const rz_st_tensor *t = rz_st_find(want, key);
    float *h = calloc(t->n_elements, sizeof *h), got[HIDDEN];
    double expected[HIDDEN];
    ok(rz_st_to_f32(t, h, &err));
    for (int f = 0; f < 4; f++) {
        const radz_embed_options o = {.struct_size = sizeof o, .feature = (radz_feature)f, .layer = layer, .raw = 1};
        expect_rows(h, t->n_elements / HIDDEN, (radz_feature)f, expected);
        ok(radz_embed_texts(session, &text, 1, &o, got, &err));
        for (size_t c = 0; c < HIDDEN; c++)
            if (!(fabs(got[c] - expected[c]) <= 2e-5))
                fail_msg("%s, feature %d, layer %d [%zu]: %.8g, expected %.8g", name, f, layer, c, (double)got[c],
                         expected[c]);
    }
    free(h);
}

static void test_hidden_states(void **state)
{
    (void)state;
    static const char *const names[] = {"txt0", "txt1"};
    for (size_t i = 0; i < RZ_COUNT(names); i++) {
        char key[64];
        snprintf(key, sizeof key, "%s.text", names[i]);
        const rz_st_tensor *t = rz_st_find(want, key);
        char *text = rz_strndup(NULL, (const char *)t->data, t->n_elements);
        for (int k = 0; k <= LAYERS; k++) {
            check_text(names[i], text, k, k - LAYERS - 1);
            if (k) check_text(names[i], text, k, k);
        }
        check_text(names[i], text, LAYERS - 1, 0); /* the model's own is -2 */
        rz_free(NULL, text);
    }
}

/* ---- Gray films ---- */

enum { SIDE = 40, N_GRAY = 3 };

static radz_image *film_of(int i, radz_pixel_format format)
{
    static uint8_t pixels[3 * SIDE * SIDE];
    radz_image *film;
    const int channels = format == RADZ_PIXELS_GRAY8 ? 1 : 3;
    for (int p = 0; p < channels * SIDE * SIDE; p++)
        pixels[p] = (uint8_t)(128 + 100 * sin(p / channels * .01 * (i + 1)) * cos(p / channels % SIDE * .2));
    ok(radz_image_from_pixels(NULL, pixels, format, SIDE, SIDE, SIDE * (size_t)channels, &film, &err));
    return film;
}

/* Through weights summed over channels that are normalised each in its own way: the vector of the same film in colour,
 * whose pixels and vectors are transformers'. */
static void test_gray(void **state)
{
    (void)state;
    radz_image *films[2 * N_GRAY];
    float alone[2 * N_GRAY][DIM], together[2 * N_GRAY][DIM];
    for (int i = 0; i < 2 * N_GRAY; i++) {
        films[i] = film_of(i / 2, i % 2 ? RADZ_PIXELS_RGB8 : RADZ_PIXELS_GRAY8);
        ok(radz_embed_images(session, (const radz_image *const *)&films[i], 1, NULL, alone[i], &err));
    }
    for (int i = 0; i < 2 * N_GRAY; i += 2)
        for (size_t c = 0; c < DIM; c++)
            if (!(fabsf(alone[i][c] - alone[i + 1][c]) < 5e-6f))
                fail_msg("film %d [%zu]: %.8g, in colour %.8g", i / 2, c, (double)alone[i][c], (double)alone[i + 1][c]);
    ok(radz_embed_images(session, (const radz_image *const *)films, 2 * N_GRAY, NULL, together[0], &err));
    assert_memory_equal(together, alone, sizeof alone);
    for (int i = 0; i < 2 * N_GRAY; i++) radz_image_close(films[i]);
}

/* ---- Options ---- */

static void test_dimensions(void **state)
{
    (void)state;
    radz_embed_options o;
    radz_embed_options_init(&o);
    assert_int_equal(o.struct_size, sizeof o);
    assert_int_equal(radz_embed_dim(model, NULL), DIM);
    assert_int_equal(radz_embed_dim(model, &o), DIM);
    o.raw = 1;
    assert_int_equal(radz_embed_dim(model, &o), HIDDEN);
    assert_int_equal(radz_embed_dim(NULL, &o), 0);
    o.layer = LAYERS + 1;
    assert_int_equal(radz_embed_dim(model, &o), 0);
    radz_embed_options_init(NULL);
}

static void test_bad_options(void **state)
{
    (void)state;
    static const struct {
        radz_embed_options o;
        const char *words;
    } cases[] = {{{sizeof(radz_embed_options), (radz_feature)4, 0, 0, NULL}, "feature"},
                 {{sizeof(radz_embed_options), (radz_feature)-1, 0, 0, NULL}, "feature"},
                 {{sizeof(radz_embed_options), RADZ_FEATURE_GLOBAL, LAYERS + 1, 0, NULL}, "layer"},
                 {{sizeof(radz_embed_options), RADZ_FEATURE_GLOBAL, -LAYERS - 2, 0, NULL}, "layer"},
                 {{sizeof(radz_embed_options), RADZ_FEATURE_GLOBAL, INT32_MIN, 0, NULL}, "layer"},
                 {{sizeof(radz_embed_options), RADZ_FEATURE_GLOBAL, 0, 2, NULL}, "raw"},
                 {{0, RADZ_FEATURE_GLOBAL, 0, 0, NULL}, "struct_size"},
                 {{sizeof(radz_embed_options) + 1, RADZ_FEATURE_GLOBAL, 0, 0, NULL}, "struct_size"}};
    const char *text = "a";
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        float v[HIDDEN] = {0};
        refused(radz_embed_texts(session, &text, 1, &cases[i].o, v, &err), RADZ_E_ARGUMENT, cases[i].words);
        assert_non_null(strstr(err.message, "radz_embed_texts"));
        assert_int_equal(radz_embed_dim(model, &cases[i].o), 0);
        for (size_t k = 0; k < HIDDEN; k++) assert_true(v[k] == 0); /* a caller who goes by that has no room */
    }
}

/* A caller of an older libradz, whose struct ended after `feature` and padding. */
static void test_shorter_options(void **state)
{
    (void)state;
    struct {
        size_t struct_size;
        radz_feature feature;
        int layer;
    } old = {sizeof old, RADZ_FEATURE_ALL, -3};
    const radz_embed_options full = {.struct_size = sizeof full, .feature = RADZ_FEATURE_ALL, .layer = -3};
    const char *text = "clear lungs";
    float a[DIM], b[DIM];
    ok(radz_embed_texts(session, &text, 1, (const radz_embed_options *)(const void *)&old, a, &err));
    ok(radz_embed_texts(session, &text, 1, &full, b, &err));
    assert_memory_equal(a, b, sizeof a);
}

/* ---- A model that was never trained as a LLaVA-RadZ ---- */

static void test_untrained(void **state)
{
    (void)state;
    static const char *const files[] = {"config.json", "preprocessor_config.json", "tokenizer.model",
                                        "model.safetensors"};
    radz_model *m;
    radz_session *s;
    radz_image *film;
    radz_bank *bank;
    radz_result *r;
    float vectors[2][HIDDEN];
    const char *texts[] = {"a", "b"};
    const radz_embed_options last = {.struct_size = sizeof last, .feature = RADZ_FEATURE_LAST, .raw = 1};
    scratch_make();
    for (size_t i = 0; i < RZ_COUNT(files); i++) scratch_copy(DIR_TINY, files[i], NULL, NULL);
    ok(radz_model_open(NULL, scratch_dir(), NULL, &m, &err));
    ok(radz_session_open(m, NULL, &s, &err));
    assert_int_equal(radz_model_embedding_dim(m), HIDDEN);
    ok(radz_embed_texts(s, texts, 2, NULL, vectors[0], &err));
    float same[2][HIDDEN];
    ok(radz_embed_texts(s, texts, 2, &last, same[0], &err));
    assert_memory_equal(vectors, same, sizeof same);
    void *black = calloc(100, 100);
    ok(radz_image_from_pixels(NULL, black, RADZ_PIXELS_GRAY8, 100, 100, 100, &film, &err));
    ok(radz_bank_build(s, (radz_bank_entry[]){{"No Finding", NULL}, {"Mass", NULL}}, 2, &bank, &err));
    ok(radz_classify(s, bank, film, &r, &err));
    assert_non_null(strstr(radz_result_warning(r, 0), "not trained"));
    radz_result_close(r);
    ok(radz_classify(s, NULL, film, &r, &err)); /* the directory has no bank either */
    assert_int_equal(radz_result_count(r), 14);
    radz_result_close(r);
    free(black);
    radz_bank_close(bank), radz_image_close(film), radz_session_close(s), radz_model_close(m);
    scratch_remove();
}

/* ---- Files ---- */

static const float some[6] = {1, 0, -0.5f, 0.25f, 3, 1e-30f};

static void test_npy(void **state)
{
    (void)state;
    static const char header[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }";
    const char *names[] = {"a.png", "he said \"no\"\n", "\xff"}, *path = fixture_path(dir, "v.npy");
    size_t n;
    ok(radz_vectors_save(path, names, some, 3, 2, &err));
    char *bytes = fixture_read(path, &n);
    assert_int_equal(n, 128 + sizeof some);
    assert_memory_equal(bytes, "\x93NUMPY\x01\x00\x76\x00", 10);
    assert_memory_equal(bytes + 10, header, strlen(header));
    assert_int_equal(bytes[127], '\n');
    assert_memory_equal(bytes + 128, some, sizeof some);
    free(bytes);
    bytes = fixture_read(fixture_path(dir, "v.names.json"), NULL);
    assert_string_equal(bytes, "[\"a.png\",\"he said \\\"no\\\"\\n\",\"\xef\xbf\xbd\"]\n");
    free(bytes);
    ok(radz_vectors_save(fixture_path(dir, "w.npy"), NULL, some, 1, 6, &err));
    assert_false(rz_path_exists(fixture_path(dir, "w.names.json")));
}

static void test_safetensors(void **state)
{
    (void)state;
    const char *names[] = {"x", "y"}, *path = fixture_path(dir, "v.safetensors");
    rz_st *st;
    ok(radz_vectors_save(path, names, some, 2, 3, &err));
    ok(rz_st_open(NULL, path, RZ_FILE_READ, &st, &err));
    const rz_st_tensor *t = rz_st_find(st, "embeddings");
    assert_true(t && t->n_dims == 2 && t->dims[0] == 2 && t->dims[1] == 3);
    assert_string_equal(t->dtype, "F32");
    assert_memory_equal(t->data, some, sizeof some);
    assert_string_equal(rz_st_metadata(st, "names"), "[\"x\",\"y\"]");
    rz_st_close(st);
}

static void test_bad_files(void **state)
{
    (void)state;
    const char *names[] = {"x", NULL};
    refused(radz_vectors_save(NULL, NULL, some, 1, 2, &err), RADZ_E_ARGUMENT, "path is NULL");
    refused(radz_vectors_save("v.npy", NULL, NULL, 1, 2, &err), RADZ_E_ARGUMENT, "vectors is NULL");
    refused(radz_vectors_save("v.npy", names, some, 2, 2, &err), RADZ_E_ARGUMENT, "names[1]");
    refused(radz_vectors_save("v.csv", NULL, some, 1, 2, &err), RADZ_E_ARGUMENT, ".npy or .safetensors");
    refused(radz_vectors_save(".npy", NULL, some, 1, 2, &err), RADZ_E_ARGUMENT, ".npy or .safetensors");
    refused(radz_vectors_save("v.npy", NULL, some, 0, 2, &err), RADZ_E_ARGUMENT, "0 vectors");
    refused(radz_vectors_save("v.npy", NULL, some, SIZE_MAX, 2, &err), RADZ_E_ARGUMENT, "cannot write");
    refused(radz_vectors_save("/nowhere/v.npy", NULL, some, 1, 2, &err), RADZ_E_IO, "/nowhere");
    refused(radz_vectors_save("/nowhere/v.safetensors", NULL, some, 1, 2, &err), RADZ_E_IO, "/nowhere");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hidden_states),
        cmocka_unit_test(test_gray),
        cmocka_unit_test(test_dimensions),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_shorter_options),
        cmocka_unit_test(test_untrained),
        cmocka_unit_test(test_npy),
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
