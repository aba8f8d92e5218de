/* test_hostile_integers.c - weights of integers that somebody prepared: scales that are no numbers, or none that a
 * quantiser writes; scales of other shapes and types, or of nobody. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fixture.h"
#include "formats.h"

#define WEIGHT "language_model.model.layers.0.mlp.down_proj.weight"

enum { DIM = 8 };

static radz_error err;
static char *plain, *dir; /* a model, and its integers */
static char *whole;       /* model.safetensors of dir as it was written */
static size_t n_whole;

static void ok(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

static int setup(void **state)
{
    (void)state;
    plain = fixture_temp_dir();
    fixture_wide_model(plain, 5);
    dir = strdup(fixture_path(plain, "integers"));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(plain);
    free(plain), free(dir), free(whole);
    return 0;
}

static void make_integers(const char *type)
{
    radz_quantize_options o;
    radz_quantize_options_init(&o);
    fixture_remove(dir);
    o.type = type, o.keep = "";
    ok(radz_model_quantize(NULL, plain, dir, &o, &err));
    free(whole);
    whole = fixture_read(fixture_path(dir, "model.safetensors"), &n_whole);
}

/* ---- Asking the model --------------------------------------------------------------------------------- */

typedef enum how { MAPPED, READ, STREAMED, AS_FLOATS, N_HOW } how;
static const char *const how_names[] = {"mapped", "read", "streamed", "as floats"};

static radz_status embed(radz_runtime *rt, how h, float v[DIM])
{
    static const char *const text = "Effusion.";
    radz_model_options o;
    radz_model *m = NULL;
    radz_session *s = NULL;
    radz_model_options_init(&o);
    if (h == READ) o.use_mmap = 0;
    if (h == STREAMED) o.memory_bytes = (uint64_t)1 << 28;
    if (h == AS_FLOATS) o.weights = "f32", o.keep_weights = "";
    radz_status status = radz_model_open(rt, dir, &o, &m, &err);
    if (!status) status = radz_session_open(m, NULL, &s, &err);
    if (!status) status = radz_embed_texts(s, &text, 1, NULL, v, &err);
    radz_session_close(s), radz_model_close(m);
    return status;
}

static radz_runtime *kernels(size_t i)
{
    radz_runtime_options o;
    radz_runtime *rt = NULL;
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = 2;
    if (!(o.kernels = radz_kernels_available(i))) return NULL;
    ok(radz_runtime_create(&o, &rt, &err));
    return rt;
}

/* ---- Scales that are no numbers --------------------------------------------------------------------------- */

/* The file with value in the place of every step-th scale of a matrix. */
static void put_scales(const char *weight, uint16_t value, size_t step)
{
    char name[128], *bytes = malloc(n_whole);
    rz_st *st;
    size_t n;
    memcpy(bytes, whole, n_whole);
    fixture_write(fixture_path(dir, "model.safetensors"), whole, n_whole);
    snprintf(name, sizeof name, "%s_scale", weight);
    ok(rz_st_open(NULL, fixture_path(dir, "model.safetensors"), RZ_FILE_READ, &st, &err));
    const rz_st_tensor *t = rz_st_find(st, name);
    if (!t) fail_msg("no %s", name);
    assert_string_equal(t->dtype, "BF16");
    const size_t at = (size_t)(t->data - rz_st_bytes(st, &n));
    for (size_t i = 0; i < t->n_bytes / 2; i += step) memcpy(bytes + at + 2 * i, &value, 2);
    rz_st_close(st);
    fixture_write(fixture_path(dir, "model.safetensors"), bytes, n_whole);
    free(bytes);
}

/* Damaged is a failure with NaN for a vector; odd is a vector of length 1, the same whichever way the weights come. */
static void check_scales(const char *what, bool damaged)
{
    radz_runtime *rt;
    for (size_t i = 0; (rt = kernels(i)); i++) {
        float first[DIM];
        for (how h = 0; h < N_HOW; h++) {
            float v[DIM] = {0};
            double length = 0;
            const radz_status status = embed(rt, h, v);
            const char *says =
                h == AS_FLOATS ? WEIGHT "': row 0 has a number that is not finite" : "weights are damaged";
            if (status != (damaged ? RADZ_E_FORMAT : RADZ_OK) || (damaged && !strstr(err.message, says)))
                fail_msg("%s, %s, %s: status %d '%s'", what, radz_runtime_kernels(rt), how_names[h], (int)status,
                         status ? err.message : "");
            if (damaged && h == AS_FLOATS) continue; /* it did not open */
            for (size_t k = 0; k < DIM; k++) {
                if (damaged != (bool)isnan(v[k])) fail_msg("%s, %s: %g", what, how_names[h], (double)v[k]);
                length += (double)v[k] * (double)v[k];
            }
            if (damaged) continue;
            assert_true(fabs(length - 1) < 1e-5);
            if (h == MAPPED) memcpy(first, v, sizeof v);
            if (h != AS_FLOATS) assert_memory_equal(v, first, sizeof v);
        }
        radz_runtime_close(rt);
    }
}

static void scales(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        uint16_t bf16;
        bool damaged;
    } cases[] = {
        {"NaN", 0x7fc0, true},         {"signalling NaN", 0xff81, true},
        {"infinity", 0x7f80, true},    {"-infinity", 0xff80, true},
        {"the largest", 0x7f7f, true}, {"negative", 0xbc00, false},
        {"zero", 0x0000, false},       {"-0", 0x8000, false},
        {"subnormal", 0x0001, false},
    };
    static const char *const types[] = {"int8", "int4/32"};
    for (size_t t = 0; t < RZ_COUNT(types); t++) {
        make_integers(types[t]);
        for (size_t i = 0; i < RZ_COUNT(cases); i++)
            for (size_t step = 1; step < 8; step += 6) {
                char what[64];
                snprintf(what, sizeof what, "%s: %s in every scale of %zu", types[t], cases[i].what, step);
                put_scales(WEIGHT, cases[i].bf16, step);
                check_scales(what, cases[i].damaged);
            }
    }
}

/* ---- Scales that do not fit ---------------------------------------------------------------------------------- */

static uint64_t header_bytes(const char *file)
{
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | (uint8_t)file[i];
    return n;
}

/* In the file's header; the data stay. */
static void edit_header(void (*edit)(json_t *header))
{
    const uint64_t head = header_bytes(whole);
    json_t *header;
    ok(rz_json_parse(whole + 8, head, "header", &header, &err));
    edit(header);
    char *text = json_dumps(header, JSON_COMPACT);
    const uint64_t len = strlen(text);
    rz_str out = {0};
    for (int i = 0; i < 8; i++) rz_str_put(&out, &(uint8_t){(uint8_t)(len >> 8 * i)}, 1);
    rz_str_puts(&out, text);
    rz_str_put(&out, whole + 8 + head, n_whole - 8 - head);
    fixture_write(fixture_path(dir, "model.safetensors"), out.data, out.len);
    rz_str_free(&out);
    json_decref(header);
    free(text);
}

static json_t *scale_of(json_t *header)
{
    return json_object_get(header, WEIGHT "_scale");
}

static void set_type(json_t *tensor, const char *dtype)
{
    json_object_set_new(tensor, "dtype", json_string(dtype));
}

static void shape(json_t *tensor, json_int_t rows, json_int_t cols, json_int_t deep)
{
    json_t *list = json_array();
    json_array_append_new(list, json_integer(rows));
    if (cols) json_array_append_new(list, json_integer(cols));
    if (deep) json_array_append_new(list, json_integer(deep));
    json_object_set_new(tensor, "shape", list);
}

/* 16 rows of 3000 columns: 24 groups of 128. */
static void nobodys(json_t *h)
{
    json_object_set(h, "somebody.else_scale", scale_of(h));
    json_object_del(h, WEIGHT "_scale");
}
static void turned(json_t *h)
{
    shape(scale_of(h), 24, 16, 0);
}
static void deep(json_t *h)
{
    shape(scale_of(h), 16, 12, 2);
}
static void flat(json_t *h)
{
    shape(scale_of(h), 16 * 24, 0, 0);
}
static void too_few(json_t *h)
{
    shape(scale_of(h), 8, 48, 0);
}
static void halves(json_t *h)
{
    set_type(scale_of(h), "F16");
}
static void counts(json_t *h)
{
    set_type(scale_of(h), "I16");
}
static void bytes_for_scales(json_t *h)
{
    set_type(scale_of(h), "I8");
    shape(scale_of(h), 16, 48, 0);
}
static void wide(json_t *h)
{
    set_type(scale_of(h), "F32"); /* twice the bytes that there are */
}
static void floats(json_t *h)
{
    set_type(scale_of(h), "F32");
    shape(scale_of(h), 16, 12, 0);
}
static void packed(json_t *h)
{
    set_type(json_object_get(h, WEIGHT), "U8");
}
static void no_integers(json_t *h)
{
    set_type(json_object_get(h, WEIGHT), "F8_E4M3");
}
static void other_shape(json_t *h)
{
    shape(json_object_get(h, WEIGHT), 3000, 16, 0);
}

static void scales_that_do_not_fit(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        void (*edit)(json_t *header);
        radz_status status;
        const char *says;
    } cases[] = {
        {"nobody's", nobodys, RADZ_E_UNSUPPORTED, "there is no tensor"},
        {"turned", turned, RADZ_E_MISMATCH, "a scale per group of 128, 64 or 32"},
        {"deep", deep, RADZ_E_MISMATCH, "a scale per group"},
        {"flat", flat, RADZ_E_MISMATCH, "a scale per group"},
        {"too few", too_few, RADZ_E_MISMATCH, "a scale per group"},
        {"halves", halves, RADZ_E_UNSUPPORTED, "expected F32 or BF16"},
        {"counts", counts, RADZ_E_UNSUPPORTED, "expected F32 or BF16"},
        {"bytes", bytes_for_scales, RADZ_E_UNSUPPORTED, "expected F32 or BF16"},
        {"too wide", wide, RADZ_E_FORMAT, WEIGHT "_scale"},
        {"floats", floats, RADZ_E_MISMATCH, "a scale per group"},
        {"packed", packed, RADZ_E_MISMATCH, WEIGHT},
        {"no integers", no_integers, RADZ_E_UNSUPPORTED, WEIGHT},
        {"another shape", other_shape, RADZ_E_MISMATCH, WEIGHT},
    };
    make_integers("int8");
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        edit_header(cases[i].edit);
        for (how h = 0; h < N_HOW; h++) {
            float v[DIM];
            const radz_status status = embed(NULL, h, v);
            if (status != cases[i].status || !strstr(err.message, cases[i].says))
                fail_msg("%s, %s: status %d '%s', expected %d '%s'", cases[i].what, how_names[h], (int)status,
                         status ? err.message : "", (int)cases[i].status, cases[i].says);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales),
        cmocka_unit_test(scales_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
