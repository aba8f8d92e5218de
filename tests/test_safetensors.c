/* test_safetensors.c - what is read is what was written, and nothing else is read. Files that the Python package wrote
 * are tests/data/stories260K and tests/parity. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "failing_host.h"
#include "fixture.h"
#include "formats.h"
#include "mutate.h"

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

/* Length, header and n_data bytes 0, 1, 2... */
static uint8_t *file_of(const char *header, size_t n_header, size_t n_data, size_t *n)
{
    uint8_t *bytes = malloc(8 + n_header + n_data);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)n_header >> 8 * i);
    memcpy(bytes + 8, header, n_header);
    for (size_t i = 0; i < n_data; i++) bytes[8 + n_header + i] = (uint8_t)i;
    *n = 8 + n_header + n_data;
    return bytes;
}

static void refuse_bytes(const uint8_t *bytes, size_t n, radz_status code, const char *message)
{
    rz_st *st = (rz_st *)&err;
    radz_status status = rz_st_parse(NULL, bytes, n, "x.safetensors", &st, &err);
    assert_null(st);
    if (status != code || !strstr(err.message, message) || strncmp(err.message, "x.safetensors: ", 15) != 0)
        fail_msg("status %d, \"%s\", expected %d, \"%s\"", (int)status, err.message, (int)code, message);
}

static void refuse_header(const char *header, size_t n_header, size_t n_data, radz_status code, const char *message)
{
    size_t n;
    uint8_t *bytes = file_of(header, n_header, n_data, &n);
    refuse_bytes(bytes, n, code, message);
    free(bytes);
}

#define T(name, dtype, shape, offsets)                                                                                 \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define TRILLION "1000000000000"

static void test_bad_headers(void **state)
{
    static const struct {
        const char *header;
        size_t n_data;
        radz_status code;
        const char *message;
    } bad[] = {
        {"[]", 0, RADZ_E_FORMAT, "expected '{'"},
        {" {}", 0, RADZ_E_FORMAT, "expected '{'"},
        {"{} x", 0, RADZ_E_FORMAT, "only spaces"},
        {"{}", 1, RADZ_E_FORMAT, "1 bytes after the last tensor"},
        {"{\"a\"}", 0, RADZ_E_FORMAT, "expected ':'"},
        {"{\"a\":1}", 0, RADZ_E_FORMAT, "expected '{'"},
        {"{\"a\":{}}", 0, RADZ_E_FORMAT, "expected a string"},
        {"{" T("a", "F32", "[1]", "[0,4]") ",}", 4, RADZ_E_FORMAT, "expected a string"},
        {"{" T("a", "F32", "[1]", "[0,4]"), 4, RADZ_E_FORMAT, "expected ',' or '}'"},
        {"{" T("a", "F32", "[1]", "[0,4]") "," T("a", "F32", "[1]", "[4,8]") "}", 8, RADZ_E_FORMAT, "tensor 'a' twice"},
        {"{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[2,6]") "}", 6, RADZ_E_FORMAT, "overlap"},
        {"{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[0,4]") "}", 4, RADZ_E_FORMAT, "overlap"},
        {"{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[1]", "[5,9]") "}", 9, RADZ_E_FORMAT, "hole"},
        {"{" T("a", "F32", "[1]", "[1,5]") "}", 5, RADZ_E_FORMAT, "hole"},
        {"{" T("a", "F32", "[1]", "[0,4]") "}", 5, RADZ_E_FORMAT, "1 bytes after"},
        {"{" T("a", "F32", "[1]", "[0,4]") "}", 3, RADZ_E_FORMAT, "does not lie in the 3 bytes"},
        {"{" T("a", "F32", "[1]", "[4,0]") "}", 4, RADZ_E_FORMAT, "does not lie"},
        {"{" T("a", "F32", "[2]", "[0,4]") "}", 4, RADZ_E_FORMAT, "span of 4 bytes, expected 8"},
        {"{" T("a", "F16", "[2,3]", "[0,4]") "}", 4, RADZ_E_FORMAT, "expected 12"},
        {"{" T("a", "F4", "[1]", "[0,4]") "}", 4, RADZ_E_UNSUPPORTED, "tensor 'a': dtype 'F4'"},
        {"{" T("a", "F32", "[-1]", "[0,4]") "}", 4, RADZ_E_FORMAT, "whole number"},
        {"{" T("a", "F32", "[1.0]", "[0,4]") "}", 4, RADZ_E_FORMAT, "whole number"},
        {"{" T("a", "F32", "[1e0]", "[0,4]") "}", 4, RADZ_E_FORMAT, "whole number"},
        {"{" T("a", "F32", "[01]", "[0,4]") "}", 4, RADZ_E_FORMAT, "whole number"},
        {"{" T("a", "F32", "[1]", "[0,18446744073709551616]") "}", 4, RADZ_E_FORMAT, "below 2^63"},
        {"{" T("a", "F32", "[1]", "[0,9223372036854775808]") "}", 4, RADZ_E_FORMAT, "below 2^63"},
        {"{" T("a", "F32", "[1]", "[0,-4]") "}", 4, RADZ_E_FORMAT, "whole number"},
        {"{" T("a", "F32", "[1]", "[0,4,8]") "}", 4, RADZ_E_LIMIT, "more than 2 numbers"},
        {"{" T("a", "F32", "[1]", "[0]") "}", 4, RADZ_E_FORMAT, "two data_offsets"},
        {"{" T("a", "F32", "[1]", "[]") "}", 4, RADZ_E_FORMAT, "two data_offsets"},
        {"{" T("a", "U8", "[" TRILLION "," TRILLION "]", "[0,4]") "}", 4, RADZ_E_FORMAT, "shape overflows"},
        {"{" T("a", "F64", "[4611686018427387904]", "[0,4]") "}", 4, RADZ_E_FORMAT, "shape overflows"},
        {"{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, RADZ_E_LIMIT, "more than 8"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, RADZ_E_FORMAT, "expected dtype, shape and data_offsets"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", 1, RADZ_E_FORMAT, "once each"},
        {"{\"a\":{\"dtype\":\"U8\",\"more\":[1]}}", 1, RADZ_E_FORMAT, "once each"},
        {"{" T("a\\u0000b", "U8", "[1]", "[0,1]") "}", 1, RADZ_E_FORMAT, "NUL"},
        {"{" T("a\xff", "U8", "[1]", "[0,1]") "}", 1, RADZ_E_FORMAT, "valid UTF-8"},
        {"{" T("a\\ud800", "U8", "[1]", "[0,1]") "}", 1, RADZ_E_FORMAT, "valid escape"},
        {"{" T("a\\q", "U8", "[1]", "[0,1]") "}", 1, RADZ_E_FORMAT, "valid escape"},
        {"{" T("a\nb", "U8", "[1]", "[0,1]") "}", 1, RADZ_E_FORMAT, "control character"},
        {"{\"__metadata__\":{\"a\":1}}", 0, RADZ_E_FORMAT, "expected a string"},
        {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, RADZ_E_FORMAT, "metadata key 'a' twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, RADZ_E_FORMAT, "twice"},
    };
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(bad); i++)
        refuse_header(bad[i].header, strlen(bad[i].header), bad[i].n_data, bad[i].code, bad[i].message);
    refuse_header("{\"a\0b\":{}}", 10, 0, RADZ_E_FORMAT, "control character");
}

static void test_bad_lengths(void **state)
{
    static const struct {
        uint64_t length;
        radz_status code;
    } bad[] = {{0, RADZ_E_FORMAT},        {1, RADZ_E_FORMAT},         {3, RADZ_E_FORMAT},
               {100000001, RADZ_E_LIMIT}, {100000000, RADZ_E_FORMAT}, {1ull << 63, RADZ_E_LIMIT},
               {UINT64_MAX, RADZ_E_LIMIT}};
    uint8_t bytes[10] = {0, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        for (int b = 0; b < 8; b++) bytes[b] = (uint8_t)(bad[i].length >> 8 * b);
        refuse_bytes(bytes, sizeof bytes, bad[i].code, "header of");
    }
    for (size_t n = 0; n < 8; n++) refuse_bytes(bytes, n, RADZ_E_FORMAT, "too short");
}

/* No recursion, so no depth can hurt. */
static void test_deep_nesting(void **state)
{
    size_t n = 100000;
    char *header = malloc(n + 5);
    (void)state;
    assert_non_null(header);
    memcpy(header, "{\"a\":", 5);
    memset(header + 5, '[', n);
    refuse_header(header, n + 5, 0, RADZ_E_FORMAT, "expected '{'");
    memset(header + 5, '{', n);
    refuse_header(header, n + 5, 0, RADZ_E_FORMAT, "expected a string");
    free(header);
}

static void test_reads(void **state)
{
    /* Header order is not data order; odd sizes leave b and c unaligned; e and s are empty and a scalar. */
    static const char header[] = "{\"__metadata__\":{\"z\":\"1\",\"k\\u00e9y\":\"v\\n\\u20ac\\ud83d\\ude00\"}, " T(
        "c", "F16", "[2,1]", "[7,11]") " ," T("a", "U8", "[3]",
                                              "[0,3]") "," T("b", "F32", "[1]",
                                                             "[3,7]") "," T("e", "I64", "[0,5]",
                                                                            "[7,7]") "," T("s", "BF16", "[]",
                                                                                           "[11,13]") "}   ";
    static const char *const order[] = {"a", "b", "e", "c", "s"};
    const char *value;
    size_t n;
    rz_st *st;
    uint8_t *bytes = file_of(header, sizeof header - 1, 13, &n);
    (void)state;
    ok(rz_st_parse(NULL, bytes, n, "x", &st, &err));
    assert_int_equal(rz_st_count(st), 5);
    for (size_t i = 0; i < 5; i++) assert_string_equal(rz_st_at(st, i)->name, order[i]);
    for (size_t i = 0; i < 5; i++) assert_ptr_equal(rz_st_find(st, order[i]), rz_st_at(st, i));
    assert_null(rz_st_at(st, 5));
    assert_null(rz_st_find(st, "d"));
    assert_null(rz_st_find(st, "__metadata__"));
    const rz_st_tensor *c = rz_st_find(st, "c"), *e = rz_st_find(st, "e"), *s = rz_st_find(st, "s");
    assert_true(c->n_dims == 2 && c->dims[0] == 2 && c->dims[1] == 1 && c->n_elements == 2 && c->n_bytes == 4);
    assert_true(c->data[0] == 7 && c->data[3] == 10);
    assert_true(e->n_dims == 2 && e->n_elements == 0 && e->n_bytes == 0);
    assert_true(s->n_dims == 0 && s->n_elements == 1 && s->n_bytes == 2 && s->data[1] == 12);
    assert_string_equal(c->dtype, "F16");
    assert_int_equal(rz_st_metadata_count(st), 2);
    assert_string_equal(rz_st_metadata_at(st, 0, &value), "z");
    assert_string_equal(rz_st_metadata(st, "k\xc3\xa9y"), "v\n\xe2\x82\xac\xf0\x9f\x98\x80");
    assert_null(rz_st_metadata(st, "no"));
    assert_null(rz_st_metadata_at(st, 2, &value));
    assert_ptr_equal(rz_st_bytes(st, &n), bytes);
    rz_st_close(st);
    rz_st_close(NULL);
    free(bytes);
}

static void test_million_tensors(void **state)
{
    enum { N = 1000000 };
    char name[16], entry[96];
    rz_str header = {0};
    rz_st *st;
    size_t n;
    (void)state;
    rz_str_puts(&header, "{");
    for (unsigned i = 0; i < N; i++) {
        unsigned scrambled = i * 7u % N;
        int k = snprintf(entry, sizeof entry, "%s\"t%u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%u,%u]}",
                         i ? "," : "", scrambled, scrambled, scrambled + 1);
        rz_str_put(&header, entry, (size_t)k);
    }
    rz_str_puts(&header, "}");
    assert_false(header.failed);
    uint8_t *bytes = file_of(header.data, header.len, N, &n);
    rz_str_free(&header);
    ok(rz_st_parse(NULL, bytes, n, "x", &st, &err));
    assert_int_equal(rz_st_count(st), N);
    for (unsigned i = 0; i < N; i += 9973) {
        snprintf(name, sizeof name, "t%u", i);
        assert_ptr_equal(rz_st_find(st, name), rz_st_at(st, i));
        assert_int_equal(*rz_st_at(st, i)->data, i & 255);
    }
    rz_st_close(st);
    free(bytes);
}

static const float f32[] = {1.0f, -2.5f, 3.25f};
static const uint16_t bf16[] = {0x3F80, 0xC020};
static const uint8_t u8[] = {1, 2, 3, 4, 5};
static const int64_t i64[] = {-1, 1ll << 40};
static const rz_st_out outs[] = {
    {"a.u8", "U8", 1, {5}, u8},    {"b \"quoted\" \xc3\xa9", "F32", 2, {3, 1}, f32},
    {"c", "BF16", 1, {2}, bf16},   {"d", "I64", 1, {2}, i64},
    {"e", "F32", 2, {0, 7}, NULL}, {"f", "F32", 0, {0}, f32},
};
static const char *const metadata[] = {"format", "pt", "note", "one\n\"two\"", NULL};

static void check_outs(const rz_st *st)
{
    size_t n;
    const uint8_t *bytes = rz_st_bytes(st, &n);
    assert_int_equal(rz_st_count(st), RZ_COUNT(outs));
    for (size_t i = 0; i < RZ_COUNT(outs); i++) {
        const rz_st_tensor *t = rz_st_find(st, outs[i].name);
        assert_non_null(t);
        assert_string_equal(t->dtype, outs[i].dtype);
        assert_int_equal(t->n_dims, outs[i].n_dims);
        for (size_t k = 0; k < t->n_dims; k++) assert_int_equal(t->dims[k], outs[i].dims[k]);
        if (t->n_bytes) assert_memory_equal(t->data, outs[i].data, t->n_bytes);
        if (t->n_elements) assert_int_equal((size_t)(t->data - bytes) % (t->n_bytes / t->n_elements), 0);
    }
    assert_int_equal((size_t)(rz_st_at(st, 0)->data - bytes) % 64, 0);
    assert_string_equal(rz_st_metadata(st, "note"), "one\n\"two\"");
}

static void test_writes(void **state)
{
    char *dir = fixture_temp_dir();
    const char *path = fixture_path(dir, "x.safetensors");
    rz_str s = {0};
    rz_st *st;
    (void)state;
    ok(rz_st_write(NULL, path, outs, RZ_COUNT(outs), metadata, &err));
    for (int mode = 0; mode < 2; mode++) {
        ok(rz_st_open(NULL, path, mode ? RZ_FILE_MAP : RZ_FILE_READ, &st, &err));
        check_outs(st);
        size_t n;
        const uint8_t *bytes = rz_st_bytes(st, &n);
        rz_str_free(&s);
        ok(rz_st_encode(&s, outs, RZ_COUNT(outs), metadata, &err));
        assert_int_equal(s.len, n);
        assert_memory_equal(s.data, bytes, n);
        rz_st_close(st);
    }
    rz_str_free(&s);
    ok(rz_st_encode(&s, NULL, 0, NULL, &err));
    ok(rz_st_parse(NULL, (const uint8_t *)s.data, s.len, "empty", &st, &err));
    assert_int_equal(rz_st_count(st), 0);
    rz_st_close(st);
    rz_str_free(&s);
    fixture_remove(dir);
    free(dir);
}

/* A byte at a time, *short_by of them missing. */
static radz_status put_bytes(void *user, size_t i, rz_writer *w, radz_error *e)
{
    size_t n = !strcmp(outs[i].dtype, "U8") || !strcmp(outs[i].dtype, "BF16") ? 1 : 4;
    if (!strcmp(outs[i].dtype, "BF16")) n = 2;
    if (!strcmp(outs[i].dtype, "I64")) n = 8;
    for (size_t k = 0; k < outs[i].n_dims; k++) n *= outs[i].dims[k];
    for (size_t k = *(size_t *)user; k < n; k++) RZ_TRY(rz_writer_put(w, (const uint8_t *)outs[i].data + k, 1, e));
    return RADZ_OK;
}

static void test_writes_piecemeal(void **state)
{
    char *dir = fixture_temp_dir();
    const char *path = fixture_path(dir, "x.safetensors");
    size_t short_by = 0;
    rz_str s = {0};
    rz_st *st;
    (void)state;
    ok(rz_st_encode(&s, outs, RZ_COUNT(outs), metadata, &err));
    ok(rz_st_write_with(NULL, path, outs, RZ_COUNT(outs), metadata, put_bytes, &short_by, &err));
    ok(rz_st_open(NULL, path, RZ_FILE_READ, &st, &err));
    size_t n;
    const uint8_t *bytes = rz_st_bytes(st, &n);
    assert_int_equal(s.len, n);
    assert_memory_equal(s.data, bytes, n);
    rz_st_close(st);
    short_by = 1;
    assert_int_equal(rz_st_write_with(NULL, path, outs, RZ_COUNT(outs), metadata, put_bytes, &short_by, &err),
                     RADZ_E_INTERNAL);
    rz_str_free(&s);
    fixture_remove(dir);
    free(dir);
}

static void test_refuses_to_write(void **state)
{
    static const rz_st_out bad[][2] = {
        {{"a", "U8", 1, {5}, u8}, {"a", "U8", 1, {5}, u8}},
        {{"a", "U8", 1, {5}, u8}, {"__metadata__", "U8", 1, {5}, u8}},
        {{"a", "U8", 1, {5}, u8}, {"b", "Q4", 1, {5}, u8}},
        {{"a", "U8", 1, {5}, u8}, {"b", "U8", 1, {5}, NULL}},
        {{"a", "U8", 1, {5}, u8}, {"b\xff", "U8", 1, {5}, u8}},
        {{"a", "U8", 1, {5}, u8}, {"b", "F32", 2, {1ull << 62, 4}, u8}},
        {{"a", "U8", 1, {5}, u8}, {"b", "F32", 9, {1}, u8}},
    };
    char *dir = fixture_temp_dir();
    const char *path = fixture_path(dir, "x.safetensors");
    (void)state;
    fixture_write_text(path, "old");
    for (size_t i = 0; i < RZ_COUNT(bad); i++)
        assert_int_equal(rz_st_write(NULL, path, bad[i], 2, NULL, &err), RADZ_E_ARGUMENT);
    char *text = fixture_read(path, NULL);
    assert_string_equal(text, "old");
    free(text);
    assert_int_equal(rz_st_write(NULL, fixture_path(dir, "no/x"), outs, 1, NULL, &err), RADZ_E_IO);
    rz_st *st;
    assert_int_equal(rz_st_open(NULL, dir, RZ_FILE_MAP, &st, &err), RADZ_E_IO);
    assert_int_equal(rz_st_open(NULL, "/dev/zero", RZ_FILE_MAP, &st, &err), RADZ_E_IO);
    assert_int_equal(rz_st_open(NULL, fixture_path(dir, "none"), RZ_FILE_READ, &st, &err), RADZ_E_IO);
    fixture_remove(dir);
    free(dir);
}

static void test_python_file(void **state)
{
    rz_st *st;
    (void)state;
    ok(rz_st_open(NULL, "tests/data/stories260K/model.safetensors", RZ_FILE_MAP, &st, &err));
    assert_int_equal(rz_st_count(st), 47);
    assert_string_equal(rz_st_metadata(st, "format"), "pt");
    const rz_st_tensor *t = rz_st_find(st, "model.layers.4.mlp.down_proj.weight");
    assert_true(t && t->n_dims == 2 && t->dims[0] == 64 && t->dims[1] == 172);
    float *values = malloc(t->n_bytes);
    ok(rz_st_to_f32(t, values, &err));
    for (size_t i = 0; i < t->n_elements; i++) assert_true(fabsf(values[i]) < 10);
    free(values);
    rz_st_close(st);
}

static radz_status read_and_use(const uint8_t *bytes, size_t n, radz_error *e)
{
    rz_st *st;
    static volatile unsigned sum; /* every byte is really read */
    radz_status status = rz_st_parse(NULL, bytes, n, "damaged", &st, e);
    for (size_t i = 0; status == RADZ_OK && i < rz_st_count(st); i++) {
        const rz_st_tensor *t = rz_st_at(st, i);
        for (size_t k = 0; k < t->n_bytes; k++) sum = sum + t->data[k];
        assert_ptr_equal(rz_st_find(st, t->name), t);
    }
    rz_st_close(st);
    return status;
}

static void test_damage(void **state)
{
    rz_str s = {0};
    (void)state;
    ok(rz_st_encode(&s, outs, RZ_COUNT(outs), metadata, &err));
    assert_true(mutate_all((const uint8_t *)s.data, s.len, s.len, read_and_use) > s.len);
    rz_str_free(&s);
}

static radz_status write_and_read(const rz_host *host, void *arg)
{
    const char *path = arg;
    rz_str s = {.host = host};
    rz_st *st = NULL;
    radz_status status = rz_st_encode(&s, outs, RZ_COUNT(outs), metadata, &err);
    if (status == RADZ_OK) status = rz_st_parse(host, (const uint8_t *)s.data, s.len, "x", &st, &err);
    rz_st_close(st);
    rz_str_free(&s);
    if (status == RADZ_OK) status = rz_st_write(host, path, outs, RZ_COUNT(outs), metadata, &err);
    if (status == RADZ_OK) status = rz_st_open(host, path, RZ_FILE_READ, &st, &err);
    if (status == RADZ_OK) rz_st_close(st);
    return status;
}

static void test_memory_runs_out(void **state)
{
    char *dir = fixture_temp_dir();
    (void)state;
    failing_host_try_all(write_and_read, (void *)(uintptr_t)fixture_path(dir, "x.safetensors"));
    fixture_remove(dir);
    free(dir);
}

/* ---- Elements ---- */

static void test_half_floats(void **state)
{
    static const struct {
        float f;
        uint16_t half, brain;
    } known[] = {{0.0f, 0, 0},
                 {-0.0f, 0x8000, 0x8000},
                 {1.0f, 0x3C00, 0x3F80},
                 {65504.0f, 0x7BFF, 0x4780},
                 {65520.0f, 0x7C00, 0x4780},
                 {0x1p-24f, 0x0001, 0x3380},
                 {0x1p-25f, 0x0000, 0x3300}, /* a tie goes to even */
                 {0x1.8p-25f, 0x0001, 0x3340},
                 {0x1.8p-24f, 0x0002, 0x33C0},
                 {1.0f + 0x1p-11f, 0x3C00, 0x3F80},
                 {1.0f + 0x3p-11f, 0x3C02, 0x3F80},
                 {1.0f + 0x1p-8f, 0x3C04, 0x3F80},
                 {1.0f + 0x3p-8f, 0x3C0C, 0x3F82},
                 {INFINITY, 0x7C00, 0x7F80},
                 {-1e30f, 0xFC00, 0xF14A},
                 {3.4e38f, 0x7C00, 0x7F80}};
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(known); i++) {
        assert_int_equal(rz_f32_to_f16(known[i].f), known[i].half);
        assert_int_equal(rz_f32_to_bf16(known[i].f), known[i].brain);
    }
    for (uint32_t v = 0; v < 65536; v++) { /* every value survives the way there and back */
        float h = rz_f16_to_f32((uint16_t)v), b = rz_bf16_to_f32((uint16_t)v);
        if (isnan(h))
            assert_true(isnan(rz_f16_to_f32(rz_f32_to_f16(h))));
        else
            assert_int_equal(rz_f32_to_f16(h), v);
        if (isnan(b))
            assert_true(isnan(rz_bf16_to_f32(rz_f32_to_bf16(b))));
        else
            assert_int_equal(rz_f32_to_bf16(b), v);
    }
    assert_true(isnan(rz_bf16_to_f32(rz_f32_to_bf16(NAN))));
}

static void test_to_f32(void **state)
{
    static const uint8_t odd[] = {0xFF, 0x00, 0x3C, 0x80, 0x3F};
    rz_st_tensor t = {.name = "x", .dtype = "F16", .n_elements = 1, .n_bytes = 2, .data = odd + 1};
    float v;
    (void)state;
    ok(rz_st_to_f32(&t, &v, &err));
    assert_true(v == 1.0f);
    memcpy(t.dtype, "BF16", 5);
    t.data = odd + 3;
    ok(rz_st_to_f32(&t, &v, &err));
    assert_true(v == 1.0f);
    memcpy(t.dtype, "I64", 4);
    assert_int_equal(rz_st_to_f32(&t, &v, &err), RADZ_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "'x'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_headers),      cmocka_unit_test(test_bad_lengths),
        cmocka_unit_test(test_deep_nesting),     cmocka_unit_test(test_reads),
        cmocka_unit_test(test_million_tensors),  cmocka_unit_test(test_writes),
        cmocka_unit_test(test_refuses_to_write), cmocka_unit_test(test_writes_piecemeal),
        cmocka_unit_test(test_python_file),      cmocka_unit_test(test_damage),
        cmocka_unit_test(test_memory_runs_out),  cmocka_unit_test(test_half_floats),
        cmocka_unit_test(test_to_f32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
