/* test_info.c - what a model says about itself, kernel sets, and editing and scoring with a bank: public functions.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fixture.h"
#include "radz.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static radz_error err;
static char *dir;
static radz_model *model;
static radz_session *session;
static radz_bank *bank;
static const radz_bank_entry entries[] = {
    {"Effusion", "Fluid around the lung."}, {"No Finding", "Clear lungs."}, {"Mass", NULL}};

static void ok(radz_status status)
{
    if (status != RADZ_OK) fail_msg("%s: %s", radz_status_name(status), err.message);
}

static void refused(radz_status status, radz_status want, const char *words)
{
    if (status != want || !strstr(err.message, words))
        fail_msg("status %d '%s', expected %d '%s'", (int)status, err.message, (int)want, words);
}

static int setup(void **state)
{
    (void)state;
    dir = fixture_temp_dir();
    fixture_model(dir, 5);
    ok(radz_model_open(NULL, dir, NULL, &model, &err));
    ok(radz_session_open(model, NULL, &session, &err));
    ok(radz_bank_build(session, entries, 3, &bank, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    radz_bank_close(bank);
    radz_session_close(session);
    radz_model_close(model);
    fixture_remove(dir);
    free(dir);
    return 0;
}

/* ---- What a model is ---- */

static void test_info(void **state)
{
    (void)state;
    radz_model_info m;
    radz_model_info_init(&m);
    ok(radz_model_get_info(model, &m, &err));
    assert_int_equal(m.struct_size, sizeof m);
    assert_string_equal(m.dtype, "f32");
    assert_string_equal(m.tower_source, "model");
    assert_string_equal(m.tokenizer, "sentencepiece-bpe");
    assert_int_equal(strlen(m.tokenizer_hash), 64);
    assert_null(m.missing);
    assert_null(m.unused_tensor);
    assert_int_equal(m.n_unused_tensors, 0);
    assert_null(radz_model_unused_tensor(model, 0));
    assert_null(radz_model_unused_tensor(NULL, 0));
    assert_int_equal(m.weight_bytes, 4 * m.n_parameters);
    assert_true(m.file_bytes > m.weight_bytes && m.file_bytes < 2 * m.weight_bytes + 65536);
    assert_int_equal(m.vision_hidden, 16);
    assert_int_equal(m.image_size_px, 16);
    assert_int_equal(m.image_rows, 4);
    assert_int_equal(m.text_heads, 4);
    assert_int_equal(m.text_kv_heads, 2);
    assert_int_equal(m.head_dim, 4);
    assert_int_equal(m.vocab, 328);
    assert_int_equal(m.max_positions, 512);
    assert_int_equal(m.embedding_dim, 8);
    assert_int_equal(m.n_image_tokens + m.n_text_tokens, 4);
    assert_int_equal(m.layer, -2);
    assert_int_equal(m.feature_layer, -2);
    assert_true(fabs(m.tau - 0.05) < 1e-6);
}

/* Without radz.json the tensors of radz.safetensors have no place. */
static void test_unused_tensors(void **state)
{
    (void)state;
    char *plain = fixture_temp_dir();
    radz_model *other;
    radz_model_info m;
    size_t n = 0, special = 0;
    fixture_model(plain, 5);
    assert_int_equal(remove(fixture_path(plain, "radz.json")), 0);
    ok(radz_model_open(NULL, plain, NULL, &other, &err));
    radz_model_info_init(&m);
    ok(radz_model_get_info(other, &m, &err));
    for (const char *name; (name = radz_model_unused_tensor(other, n)); n++) {
        special += !strcmp(name, "special_tokens.weight") || !strcmp(name, "log_tau");
        for (size_t i = 0; i < n; i++) assert_string_not_equal(name, radz_model_unused_tensor(other, i));
    }
    assert_int_equal(n, m.n_unused_tensors);
    assert_int_equal(special, 2);
    assert_string_equal(m.unused_tensor, radz_model_unused_tensor(other, 0));
    assert_null(radz_model_unused_tensor(other, SIZE_MAX));
    radz_model_close(other);
    fixture_remove(plain);
    free(plain);
}

static void test_info_of_other_sizes(void **state)
{
    (void)state;
    struct {
        radz_model_info m;
        size_t news[2];
    } next;
    memset(&next, 0xff, sizeof next);
    next.m.struct_size = sizeof next;
    ok(radz_model_get_info(model, &next.m, &err));
    assert_int_equal(next.m.vocab, 328);
    assert_true(next.news[0] == 0 && next.news[1] == 0);
    memset(&next, 0xff, sizeof next);
    next.m.struct_size = offsetof(radz_model_info, tokenizer);
    ok(radz_model_get_info(model, &next.m, &err));
    assert_string_equal(next.m.dtype, "f32");
    assert_true(next.m.vocab == SIZE_MAX); /* an older caller's struct ends before it */
    const size_t bad[] = {0, 1, 9, 1 << 20, SIZE_MAX};
    for (size_t i = 0; i < COUNT(bad); i++) {
        next.m.struct_size = bad[i];
        refused(radz_model_get_info(model, &next.m, &err), RADZ_E_ARGUMENT, "struct_size");
    }
    refused(radz_model_get_info(model, NULL, &err), RADZ_E_ARGUMENT, "info is NULL");
    radz_model_info_init(&next.m);
    refused(radz_model_get_info(NULL, &next.m, &err), RADZ_E_ARGUMENT, "model is NULL");
    radz_model_info_init(NULL);
}

/* The formula's memory against what a session holds after a film, on a network large enough for the arena's steps
 * not to matter. */
static void test_memory_of_a_film(void **state)
{
    (void)state;
    static const char *const edits[][2] = {{"\"hidden_size\":16", "\"hidden_size\":64"},
                                           {"\"intermediate_size\":24", "\"intermediate_size\":256"},
                                           {"\"image_size\":16", "\"image_size\":224"},
                                           {"_embeddings\":512", "_embeddings\":1024"}};
    char *big = fixture_temp_dir(), *text;
    fixture_model_files(big);
    text = fixture_read(fixture_path(big, "config.json"), NULL);
    for (size_t i = 0; i < COUNT(edits); i++)
        for (char *at; (at = strstr(text, edits[i][0]));) {
            char *longer = calloc(1, strlen(text) + 32);
            memcpy(longer, text, (size_t)(at - text));
            strcat(strcat(longer, edits[i][1]), at + strlen(edits[i][0]));
            free(text);
            text = longer;
        }
    fixture_write_text(fixture_path(big, "config.json"), text);
    free(text);
    remove(fixture_path(big, "preprocessor_config.json")); /* it speaks of 16 pixels */
    fixture_weights(big, 1);
    radz_model *m;
    radz_session *s;
    radz_image *film;
    radz_model_info info;
    float v[8];
    uint8_t *pixels = calloc(300, 3 * 300); /* of a film in colour: a gray one takes less on the CPU */
    ok(radz_model_open(NULL, big, NULL, &m, &err));
    ok(radz_session_open(m, NULL, &s, &err));
    ok(radz_image_from_pixels(NULL, pixels, RADZ_PIXELS_RGB8, 300, 300, 3 * 300, &film, &err));
    const radz_image *films[] = {film};
    radz_model_info_init(&info);
    ok(radz_model_get_info(m, &info, &err));
    ok(radz_embed_images(s, films, 1, NULL, v, &err));
    double ratio = (double)radz_session_bytes(s) / (double)info.film_bytes;
    if (!(ratio > 0.6 && ratio < 3)) fail_msg("held %.2f of the formula's %.0f", ratio, (double)info.film_bytes);
    assert_int_equal(radz_session_bytes(NULL), 0);
    radz_image_close(film), radz_session_close(s), radz_model_close(m);
    free(pixels);
    fixture_remove(big);
    free(big);
}

static void test_kernels(void **state)
{
    (void)state;
    size_t n = 0, found = 0;
    radz_runtime *r;
    ok(radz_runtime_create(NULL, &r, &err));
    while (radz_kernels_available(n)) n++;
    assert_true(n >= 1 && n <= 3);
    assert_string_equal(radz_kernels_available(n - 1), "portable");
    assert_null(radz_kernels_available(SIZE_MAX));
    for (size_t i = 0; i < n; i++) found += strcmp(radz_kernels_available(i), radz_runtime_kernels(r)) == 0;
    assert_int_equal(found, 1);
    assert_string_equal(radz_runtime_kernels(r), radz_kernels_available(0)); /* auto takes the best */
    assert_null(radz_runtime_kernels(NULL));
    static const char *const types[] = {"f32 ", ", bf16 ", ", int8 ", ", int4 "};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        assert_non_null(strstr(radz_runtime_products(r), types[i]));
    assert_null(radz_runtime_products(NULL));
    radz_runtime_close(r);
}

/* ---- Banks with and without classes ---- */

static void test_with(void **state)
{
    (void)state;
    const radz_bank_entry more[] = {{"Edema", "Water in the lung."}, {"Nodule", NULL}};
    radz_bank *wider, *whole;
    ok(radz_bank_with(session, bank, more, 2, &wider, &err));
    assert_int_equal(radz_bank_count(bank), 3);
    assert_int_equal(radz_bank_count(wider), 5);
    assert_int_equal(radz_bank_reference(wider), 1);
    assert_int_equal(radz_bank_dim(wider), 8);
    assert_string_equal(radz_bank_model_hash(wider), radz_model_hash(model));
    assert_string_not_equal(radz_bank_hash(wider), radz_bank_hash(bank));
    const radz_bank_entry all[] = {entries[0], entries[1], entries[2], more[0], more[1]};
    ok(radz_bank_build(session, all, 5, &whole, &err));
    assert_string_equal(radz_bank_hash(wider), radz_bank_hash(whole)); /* the same bank as built at once */
    radz_bank_close(wider), radz_bank_close(whole);
}

static void test_bad_with(void **state)
{
    (void)state;
    radz_bank *b = (void *)16;
    refused(radz_bank_with(session, bank, &(radz_bank_entry){"mass", NULL}, 1, &b, &err), RADZ_E_ARGUMENT,
            "comes twice");
    assert_null(b);
    refused(radz_bank_with(session, bank, &(radz_bank_entry){" ", NULL}, 1, &b, &err), RADZ_E_ARGUMENT, "empty");
    refused(radz_bank_with(session, bank, entries, 0, &b, &err), RADZ_E_ARGUMENT, "no class");
    refused(radz_bank_with(session, bank, entries, 65534, &b, &err), RADZ_E_LIMIT, "at most");
    refused(radz_bank_with(NULL, bank, entries, 1, &b, &err), RADZ_E_ARGUMENT, "session is NULL");
    refused(radz_bank_with(session, NULL, entries, 1, &b, &err), RADZ_E_ARGUMENT, "bank is NULL");
    refused(radz_bank_with(session, bank, NULL, 1, &b, &err), RADZ_E_ARGUMENT, "entries is NULL");
    refused(radz_bank_with(session, bank, entries, 1, NULL, &err), RADZ_E_ARGUMENT, "out is NULL");
}

static void test_without(void **state)
{
    (void)state;
    const char *const gone[] = {"no finding", "No Finding"}; /* twice is once */
    radz_bank *less, *built, *b = (void *)16;
    ok(radz_bank_without(bank, gone, 2, &less, &err));
    assert_int_equal(radz_bank_count(less), 2);
    assert_int_equal(radz_bank_reference(less), 2);
    assert_string_equal(radz_bank_label(less, 1), "Mass");
    assert_memory_equal(radz_bank_anchor(less, 1), radz_bank_anchor(bank, 2), 8 * sizeof(float));
    ok(radz_bank_build(session, (radz_bank_entry[]){entries[0], entries[2]}, 2, &built, &err));
    assert_string_equal(radz_bank_hash(less), radz_bank_hash(built));
    const char *const others[] = {"Effusion", "Mass"}, *unknown = "Masses", *none = NULL;
    refused(radz_bank_without(less, others, 2, &b, &err), RADZ_E_ARGUMENT, "no class would be left");
    assert_null(b);
    refused(radz_bank_without(less, &unknown, 1, &b, &err), RADZ_E_ARGUMENT, "no class 'Masses'");
    refused(radz_bank_without(less, &none, 1, &b, &err), RADZ_E_ARGUMENT, "no class");
    refused(radz_bank_without(less, NULL, 1, &b, &err), RADZ_E_ARGUMENT, "labels is NULL");
    radz_bank_close(less), radz_bank_close(built);
}

static void test_score(void **state)
{
    (void)state;
    float v[2][8];
    double got[2][3];
    radz_result *r;
    radz_image *film;
    uint8_t pixels[100 * 100];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 3 / 100);
    ok(radz_image_from_pixels(NULL, pixels, RADZ_PIXELS_GRAY8, 100, 100, 100, &film, &err));
    const radz_image *films[] = {film};
    ok(radz_embed_images(session, films, 1, NULL, v[0], &err));
    for (size_t i = 0; i < 8; i++) v[1][i] = -2 * v[0][i];
    ok(radz_bank_score(bank, v[0], 2, got[0], &err));
    ok(radz_classify(session, bank, film, &r, &err));
    for (size_t i = 0; i < 3; i++) {
        assert_true(fabs(got[1][i] + got[0][i]) < 1e-12);
        for (size_t k = 0; k < 3; k++)
            if (strcmp(radz_result_label(r, k), radz_bank_label(bank, i)) == 0)
                assert_true(got[0][i] == radz_result_similarity(r, k));
    }
    v[1][3] = NAN;
    refused(radz_bank_score(bank, v[0], 2, got[0], &err), RADZ_E_ARGUMENT, "vector 1");
    for (size_t i = 0; i < 6; i++) assert_true(isnan(got[i / 3][i % 3]));
    memset(v, 0, sizeof v);
    refused(radz_bank_score(bank, v[0], 1, got[0], &err), RADZ_E_ARGUMENT, "vector 0");
    refused(radz_bank_score(NULL, v[0], 1, got[0], &err), RADZ_E_ARGUMENT, "bank is NULL");
    refused(radz_bank_score(bank, NULL, 1, got[0], &err), RADZ_E_ARGUMENT, "vectors is NULL");
    refused(radz_bank_score(bank, v[0], 1, NULL, &err), RADZ_E_ARGUMENT, "out is NULL");
    ok(radz_bank_score(bank, NULL, 0, NULL, &err));
    radz_result_close(r), radz_image_close(film);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_unused_tensors),
        cmocka_unit_test(test_info_of_other_sizes),
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_memory_of_a_film),
        cmocka_unit_test(test_with),
        cmocka_unit_test(test_bad_with),
        cmocka_unit_test(test_without),
        cmocka_unit_test(test_score),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
