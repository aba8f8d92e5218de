/* test_precision.c - weights as other numbers, made when a model is opened: near the stored ones, the same bits for any
 * number of threads, another hash of the same family, a bank of which any member may use.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "failing_host.h"
#include "fixture.h"
#include "handles.h"
#include "precision.h"

#define TINY "models/radz-tiny"
#define FILM "examples/data/nih_00006759_001.jpg"
enum { MAX_DIM = 1024 };

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

static void refused(radz_status got, radz_status status, const char *says)
{
    if (got != status || !strstr(err.message, says))
        fail_msg("status %d '%s', expected %d '%s'", (int)got, err.message, (int)status, says);
}

static radz_model *open_as(const char *dir, const char *weights, const char *keep, int threads)
{
    radz_runtime_options r;
    radz_model_options o;
    radz_runtime *runtime;
    radz_model *m;
    radz_runtime_options_init(&r);
    r.n_threads = threads;
    ok(radz_runtime_create(&r, &runtime, &err));
    radz_model_options_init(&o);
    o.weights = weights, o.keep_weights = keep;
    ok(radz_model_open(runtime, dir, &o, &m, &err));
    radz_runtime_close(runtime);
    return m;
}

static size_t vector_of(radz_model *m, float *out)
{
    radz_session *s;
    radz_image *film;
    ok(radz_session_open(m, NULL, &s, &err));
    ok(radz_image_open(NULL, FILM, &film, &err));
    const radz_image *films[] = {film};
    ok(radz_embed_images(s, films, 1, NULL, out, &err));
    radz_image_close(film), radz_session_close(s);
    return radz_model_embedding_dim(m);
}

static double cosine(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* The trained model that ships: it is trained weights that rounding must not hurt. */
static void vectors_stay_near(void **state)
{
    (void)state;
    static const struct {
        const char *weights;
        double least;
    } types[] = {{"bf16", .9999}, {"int8", .999}, {"int8/32", .999}, {"int4", .995}, {"int4/32", .995}};
    static float want[MAX_DIM], got[MAX_DIM], again[MAX_DIM];
    radz_model *m = open_as(TINY, NULL, NULL, 2);
    const size_t n = vector_of(m, want);
    char stored[65];
    snprintf(stored, sizeof stored, "%s", radz_model_hash(m));
    assert_string_equal(radz_model_family(m), stored);
    radz_model_close(m);
    for (size_t i = 0; i < RZ_COUNT(types); i++) {
        radz_model_info info;
        m = open_as(TINY, types[i].weights, NULL, 1);
        vector_of(m, got);
        assert_string_equal(radz_model_family(m), stored);
        assert_string_not_equal(radz_model_hash(m), stored);
        radz_model_info_init(&info);
        ok(radz_model_get_info(m, &info, &err));
        assert_int_equal(strncmp(info.weights, types[i].weights, 4), 0);
        assert_int_equal(strncmp(info.dtype, types[i].weights, 3), 0); /* int4 leaves the tower, most of it, int8 */
        radz_model_close(m);
        m = open_as(TINY, types[i].weights, NULL, 3);
        vector_of(m, again);
        radz_model_close(m);
        assert_memory_equal(got, again, n * sizeof *got);
        if (cosine(got, want, n) < types[i].least || !memcmp(got, want, n * sizeof *got))
            fail_msg("%s: cosine %.6f", types[i].weights, cosine(got, want, n));
    }
}

static void floats_are_the_stored_numbers(void **state)
{
    (void)state;
    static float want[MAX_DIM], got[MAX_DIM];
    radz_model *m = open_as(TINY, NULL, NULL, 2);
    const size_t n = vector_of(m, want);
    radz_model_close(m);
    m = open_as(TINY, "f32", NULL, 2);
    vector_of(m, got);
    radz_model_close(m);
    assert_memory_equal(got, want, n * sizeof *got);
    m = open_as(TINY, "int8", "*", 2); /* all is left as stored */
    vector_of(m, got);
    radz_model_close(m);
    assert_memory_equal(got, want, n * sizeof *got);
}

/* ---- Which stay -------------------------------------------------------------------------------- */

static void parts_are_kept(void **state)
{
    (void)state;
    static const struct {
        const char *keep, *name;
        bool kept;
    } cases[] = {
        {"embeddings", "language_model.model.embed_tokens.weight", true},
        {"embeddings", "language_model.lm_head.weight", false},
        {"tower,lm_head", "language_model.lm_head.weight", true},
        {"tower,lm_head", "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", true},
        {"projector", "multi_modal_projector.linear_1.weight", true},
        {"heads", "gamma_img.linear_1.weight", true},
        {"first", "language_model.model.layers.0.mlp.up_proj.weight", true},
        {"first", "language_model.model.layers.1.mlp.up_proj.weight", false},
        {"last", "language_model.model.layers.2.mlp.up_proj.weight", true},
        {"last", "language_model.model.layers.3.mlp.up_proj.weight", false},
        {"*.down_proj.*", "language_model.model.layers.3.mlp.down_proj.weight", true},
        {"*.down_proj", "language_model.model.layers.3.mlp.down_proj.weight", false},
        {"*layers.*.mlp*t", "language_model.model.layers.3.mlp.down_proj.weight", true},
        {"*", "language_model.model.layers.3.mlp.down_proj.weight", true},
        {"", "language_model.model.layers.3.mlp.down_proj.weight", false},
        {",,", "language_model.model.layers.3.mlp.down_proj.weight", false},
    };
    rz_config cfg = {.text = {.layers = 4}, .radz = {.layer = -2}};
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        const rz_precision p = {RZ_WEIGHTS_INT8, 128, cases[i].keep};
        const rz_weights_type want = cases[i].kept ? RZ_WEIGHTS_STORED : RZ_WEIGHTS_INT8;
        if (rz_precision_becomes(&p, &cfg, cases[i].name) != want)
            fail_msg("'%s' and %s", cases[i].keep, cases[i].name);
    }
}

/* Four bits for most, eight or none for some: the first word that fits decides. */
static void parts_are_kept_in_eight_bits(void **state)
{
    (void)state;
    static const struct {
        const char *keep, *name;
        rz_weights_type becomes;
    } cases[] = {
        {"heads,tower=int8", "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", RZ_WEIGHTS_INT8},
        {"heads,tower=int8", "gamma_img.linear_1.weight", RZ_WEIGHTS_STORED},
        {"heads,tower=int8", "multi_modal_projector.linear_1.weight", RZ_WEIGHTS_INT4},
        {"first,*.up_proj.*=int8", "language_model.model.layers.0.mlp.up_proj.weight", RZ_WEIGHTS_STORED},
        {"first,*.up_proj.*=int8", "language_model.model.layers.1.mlp.up_proj.weight", RZ_WEIGHTS_INT8},
        {"*.up_proj.*=int8,first", "language_model.model.layers.0.mlp.up_proj.weight", RZ_WEIGHTS_INT8},
        {"=int8,", "language_model.model.layers.0.mlp.up_proj.weight", RZ_WEIGHTS_INT4},
        {"*=int8", "language_model.model.layers.0.mlp.up_proj.weight", RZ_WEIGHTS_INT8},
    };
    rz_config cfg = {.text = {.layers = 4}, .radz = {.layer = -2}};
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        rz_precision p;
        ok(rz_precision_parse("int4", 0, cases[i].keep, &p, &err));
        if (rz_precision_becomes(&p, &cfg, cases[i].name) != cases[i].becomes)
            fail_msg("'%s' and %s", cases[i].keep, cases[i].name);
    }
}

/* Lists that differ in their last word are two models, however long they are. */
static void long_lists_differ(void **state)
{
    (void)state;
    char keep[400], said[2][500];
    for (size_t i = 0; i < RZ_COUNT(said); i++) {
        rz_precision p;
        rz_str s = {0};
        snprintf(keep, sizeof keep, "%0300d,%s", 0, i ? "first" : "last");
        ok(rz_precision_parse("int4", 0, keep, &p, &err));
        rz_precision_text(&p, &s);
        snprintf(said[i], sizeof said[i], "%s", s.data);
        rz_str_free(&s);
    }
    assert_string_not_equal(said[0], said[1]);
}

/* int4 that keeps everything in eight bits is int8 by another name. */
static void eight_bits_are_those_of_int8(void **state)
{
    (void)state;
    static float want[MAX_DIM], got[MAX_DIM];
    radz_model *m = open_as(TINY, "int8", "heads", 2);
    const size_t n = vector_of(m, want);
    radz_model_close(m);
    m = open_as(TINY, "int4", "heads,*=int8", 2);
    vector_of(m, got);
    radz_model_close(m);
    assert_memory_equal(got, want, n * sizeof *got);
}

static void bad_types(void **state)
{
    (void)state;
    static const char *const bad[] = {"int2", "int8/", "int8/16", "int8/33", "bf16/32", "INT8", "int8/-32", "int4/256"};
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        radz_model *m = (void *)16;
        radz_model_options o;
        radz_model_options_init(&o);
        o.weights = bad[i];
        refused(radz_model_open(NULL, TINY, &o, &m, &err), RADZ_E_ARGUMENT, "expected");
        assert_null(m);
    }
    static const char *const bad_keep[][2] = {{"int4", "tower=int4"},   {"int4", "tower=int8x"},
                                              {"int4", "heads,tower="}, {"int4", "a=int8=int8"},
                                              {"int8", "tower=int8"},   {"bf16", "heads,tower=int8"}};
    for (size_t i = 0; i < RZ_COUNT(bad_keep); i++) {
        rz_precision p;
        refused(rz_precision_parse(bad_keep[i][0], 0, bad_keep[i][1], &p, &err), RADZ_E_ARGUMENT, "kept weights '");
    }
}

/* ---- Banks ----------------------------------------------------------------------------------------- */

/* Of the model's own bank and any member of the family; not of other weights. */
static void banks_serve_the_family(void **state)
{
    (void)state;
    char *dir = fixture_temp_dir();
    const char *path = fixture_path(dir, "bank.safetensors");
    radz_model *exact = open_as(TINY, NULL, NULL, 1), *small = open_as(TINY, "int8", NULL, 1),
               *other = open_as(TINY, "int4", NULL, 1);
    radz_session *s;
    radz_bank *bank, *b;
    radz_result *r;
    ok(radz_bank_open(small, NULL, &bank, &err)); /* made by the model as it is stored */
    assert_string_equal(radz_bank_model_hash(bank), radz_model_hash(exact));
    ok(radz_session_open(small, NULL, &s, &err));
    ok(radz_classify_file(s, bank, FILM, &r, &err));
    char said[120], *json;
    snprintf(said, sizeof said, "\"made_with\":\"%s\"", radz_model_hash(exact));
    ok(radz_result_json(r, NULL, &json, &err));
    assert_non_null(strstr(json, said));
    assert_non_null(strstr(json, "\"weights\":\"int8, groups of 128"));
    radz_text_free(json), radz_result_close(r), radz_bank_close(bank);
    ok(radz_bank_build(s, &(radz_bank_entry){"Edema", "Water in the lung."}, 1, &bank, &err));
    ok(radz_bank_save(bank, path, &err));
    radz_bank_close(bank);
    radz_model *const all[] = {exact, small, other};
    for (size_t i = 0; i < RZ_COUNT(all); i++) {
        ok(radz_bank_open(all[i], path, &b, &err));
        assert_string_equal(radz_bank_model_hash(b), radz_model_hash(small));
        radz_bank_close(b);
    }
    fixture_model(dir, 1);
    radz_model *stranger = open_as(dir, NULL, NULL, 1);
    refused(radz_bank_open(stranger, path, &b, &err), RADZ_E_MISMATCH, "made by another model");
    radz_session_close(s), radz_model_close(exact), radz_model_close(small), radz_model_close(other);
    radz_model_close(stranger);
    fixture_remove(dir);
    free(dir);
}

/* ---- What can go wrong -------------------------------------------------------------------------------- */

static radz_status load_converted(const rz_host *host, void *dir)
{
    rz_device *dev;
    rz_model *m = NULL;
    rz_source from = {.dir = dir};
    RZ_TRY(rz_precision_parse("int4/32", 0, "", &from.precision, &err));
    RZ_TRY(rz_device_open(host, &(rz_device_options){.device = "cpu", .n_threads = 2}, &dev, &err));
    const radz_status status = rz_model_load_from(host, dev, &from, RZ_MODEL_INFER, 0, &m, &err);
    rz_model_unload(m);
    rz_device_close(dev);
    return status;
}

static void memory_runs_out(void **state)
{
    (void)state;
    char *dir = fixture_temp_dir();
    fixture_model(dir, 3);
    failing_host_try_all(load_converted, dir);
    fixture_remove(dir);
    free(dir);
}

/* A weight that is no number is named, and becomes no integer. */
static void numbers_must_be_finite(void **state)
{
    (void)state;
    char *dir = fixture_temp_dir();
    rz_st *st;
    size_t n;
    fixture_model(dir, 3);
    const char *path = fixture_path(dir, "model.safetensors");
    ok(rz_st_open(NULL, path, RZ_FILE_READ, &st, &err));
    const rz_st_tensor *t = rz_st_find(st, "language_model.model.layers.0.mlp.up_proj.weight");
    assert_non_null(t);
    assert_string_equal(t->dtype, "F32");
    const size_t at = (size_t)(t->data - rz_st_bytes(st, &n)) + 4 * ((size_t)t->dims[1] + 2);
    rz_st_close(st);
    char *bytes = fixture_read(path, &n);
    memcpy(bytes + at, &(float){INFINITY}, 4);
    fixture_write(path, bytes, n);
    radz_model_options o;
    radz_model_options_init(&o);
    o.weights = "int8";
    radz_model *m;
    refused(radz_model_open(NULL, dir, &o, &m, &err), RADZ_E_FORMAT, "up_proj.weight': row 1 has a number that is not");
    free(bytes);
    fixture_remove(dir);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_stay_near),
        cmocka_unit_test(floats_are_the_stored_numbers),
        cmocka_unit_test(parts_are_kept),
        cmocka_unit_test(bad_types),
        cmocka_unit_test(banks_serve_the_family),
        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(numbers_must_be_finite),
        cmocka_unit_test(parts_are_kept_in_eight_bits),
        cmocka_unit_test(eight_bits_are_those_of_int8),
        cmocka_unit_test(long_lists_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
