/* test_quantise.c - integers with scales: how far a number may move, what files of them are refused, that every reader
 * sees the same numbers, and a model of them beside the model they were made from. SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "compute_help.h"
#include "formats.h"

static radz_error err;

/* A matrix quantised, as the compute layer and as the files see it. */
struct quantised {
    uint8_t *q;
    uint16_t *scale;
    rz_st_tensor t, ts;
    rz_mat mat;
    float *value; /* (rows, cols), read by rz_quantised_row */
};

static struct quantised quantise(const float *x, size_t rows, size_t cols, int bits, size_t group)
{
    const size_t groups = (cols + group - 1) / group, row_bytes = bits == 8 ? cols : cols / 2;
    struct quantised y = {
        malloc(rows * row_bytes),           malloc(rows * groups * 2), {.name = "w"}, {.name = "w_scale"}, {0},
        malloc(rows * cols * sizeof(float))};
    for (size_t r = 0; r < rows; r++)
        rz_quantise_row(x + r * cols, cols, bits, group, y.q + r * row_bytes, y.scale + r * groups);
    y.t.n_dims = y.ts.n_dims = 2;
    y.t.dims[0] = y.ts.dims[0] = rows;
    y.t.dims[1] = row_bytes, y.ts.dims[1] = groups;
    y.t.n_elements = y.t.n_bytes = rows * row_bytes;
    y.t.data = y.q, y.ts.data = (const uint8_t *)y.scale;
    strcpy(y.t.dtype, bits == 8 ? "I8" : "U8");
    strcpy(y.ts.dtype, "BF16");
    rz_quantised q;
    if (rz_quantised_of(&y.t, &y.ts, &q, &err)) fail_msg("%s", err.message);
    assert_int_equal(q.bits, bits);
    assert_true(q.cols == cols && (q.group == group || (cols <= q.group && cols <= group)));
    for (size_t r = 0; r < rows; r++) rz_quantised_row(&q, r, y.value + r * cols);
    y.mat = (rz_mat){y.q, bits == 8 ? RZ_I8 : RZ_I4, cols, y.scale, RZ_BF16, group};
    return y;
}

static void quantised_free(struct quantised *q)
{
    free(q->q);
    free(q->scale);
    free(q->value);
}

static const size_t COLS[] = {2, 30, 32, 34, 64, 126, 128, 130, 192, 300};

/* Half a step of the group's own, and what rounding the scale to bfloat16 may cost at the ends. */
static void numbers_stay_near(void **state)
{
    (void)state;
    for (int bits = 4; bits <= 8; bits += 4)
        for (size_t group = 32; group <= 128; group *= 2)
            for (size_t i = 0; i < RZ_COUNT(COLS); i++) {
                const size_t rows = 5, cols = COLS[i];
                float *x = random_floats(rows * cols, i);
                for (size_t c = 0; c < cols; c++) x[c] *= 1e-20f, x[cols + c] *= 1e20f, x[2 * cols + c] = 0;
                struct quantised y = quantise(x, rows, cols, bits, group);
                for (size_t k = 0; k < rows * cols; k++) {
                    const size_t r = k / cols, g = k % cols / group * group;
                    float most = 0;
                    for (size_t c = g; c < cols && c < g + group; c++) most = fmaxf(most, fabsf(x[r * cols + c]));
                    /* 4 bits: the extremes may be cut for the others' sake */
                    const float step = most / (bits == 8 ? 127 : 7), room = bits == 8 ? 0.51f + 127.0f / 256 : 2.2f;
                    if (!(fabsf(y.value[k] - x[k]) <= room * step))
                        fail_msg("%d bits, group %zu: %g became %g", bits, group, (double)x[k], (double)y.value[k]);
                }
                quantised_free(&y);
                free(x);
            }
}

/* Integers times a power of two come back as they are. */
static void what_fits_is_kept(void **state)
{
    (void)state;
    float x[256];
    for (int i = 0; i < 256; i++) x[i] = (float)(i % 255 - 127) / 64;
    struct quantised y = quantise(x, 1, 256, 8, 128);
    assert_memory_equal(x + 128, y.value + 128, 127 * sizeof *x); /* 1 .. 127 */
    quantised_free(&y);
    for (int i = 0; i < 256; i++) x[i] = (float)(i % 16 - 8) / 4 * (i & 128 ? -1 : 1);
    y = quantise(x, 2, 128, 4, 32);
    assert_memory_equal(x, y.value, sizeof x); /* -8 .. 7, and with the scale negative -7 .. 8 */
    quantised_free(&y);
}

static void widening_is_the_files_reading(void **state)
{
    (void)state;
    float got[300];
    for (int bits = 4; bits <= 8; bits += 4)
        for (size_t i = 0; i < RZ_COUNT(COLS); i++) {
            const size_t rows = 3, cols = COLS[i];
            float *x = random_floats(rows * cols, i);
            struct quantised y = quantise(x, rows, cols, bits, 32 << i % 3);
            for (size_t r = 0; r < rows; r++)
                for (size_t from = 0; from < cols; from += 1 + cols / 5) {
                    rz_cpu_widen(got, y.mat, r * cols + from, cols - from);
                    assert_same_bits("widen", got, y.value + r * cols + from, cols - from);
                }
            quantised_free(&y);
            free(x);
        }
}

/* A product that wants floats (the backward pass) has the bits of a product with the numbers as floats. */
static void float_products(void **state)
{
    (void)state;
    enum { M = 37, N = 192, K = 70 };
    float *a = random_floats(M * K, 1), *x = random_floats(N * K, 2), *got = zero_floats(M * N),
          *want = zero_floats(M * N);
    for (const char *const *set = compute_sets(); *set; set++)
        for (int bits = 4; bits <= 8; bits += 4) {
            struct quantised y = quantise(x, K, N, bits, 128);
            rz_stream *s = compute_open(NULL, *set, 2);
            rz_gemm(s, false, false, M, N, K, 1, rz_mat_f32(a, K), y.mat, 0, got, N);
            rz_gemm(s, false, false, M, N, K, 1, rz_mat_f32(a, K), rz_mat_f32(y.value, N), 0, want, N);
            compute_close(s);
            assert_same_bits(*set, got, want, M * N);
            quantised_free(&y);
        }
    free(a);
    free(x);
    free(got);
    free(want);
}

static void refused(const rz_st_tensor *t, const rz_st_tensor *scale, radz_status status, const char *says)
{
    rz_quantised q;
    radz_status got = rz_quantised_of(t, scale, &q, &err);
    if (got != status || !strstr(err.message, says))
        fail_msg("status %d '%s', expected %d '%s'", (int)got, err.message, (int)status, says);
}

static void bad_tensors(void **state)
{
    (void)state;
    float *x = random_floats(4 * 192, 1);
    struct quantised y = quantise(x, 4, 192, 8, 128);
    rz_st_tensor t = y.t, ts = y.ts;
    refused(&t, NULL, RADZ_E_UNSUPPORTED, "tensor 'w': integers (I8), but there is no tensor 'w_scale'");
    strcpy(ts.dtype, "F16");
    refused(&t, &ts, RADZ_E_UNSUPPORTED, "tensor 'w_scale': dtype F16, expected F32 or BF16");
    ts = y.ts, ts.dims[1] = 4;
    refused(&t, &ts, RADZ_E_MISMATCH, "tensor 'w_scale': expected shape 4x2, 4x3 or 4x6");
    ts = y.ts, ts.dims[0] = 3;
    refused(&t, &ts, RADZ_E_MISMATCH, "tensor 'w_scale'");
    ts = y.ts, ts.n_dims = 1;
    refused(&t, &ts, RADZ_E_MISMATCH, "tensor 'w_scale'");
    t.n_dims = 1;
    refused(&t, &y.ts, RADZ_E_UNSUPPORTED, "tensor 'w': integers (I8) are supported in matrices only");
    quantised_free(&y);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_stay_near),
        cmocka_unit_test(what_fits_is_kept),
        cmocka_unit_test(widening_is_the_files_reading),
        cmocka_unit_test(float_products),
        cmocka_unit_test(bad_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
