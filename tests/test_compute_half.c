/* test_compute_half.c - ops on activations of bfloat16, of every kernel set and of RADZ_TEST_DEVICE, against their
 * formulas in double precision on the same numbers; odd sizes, strides with others between rows, in place.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "compute_help.h"
#include "formats.h"

/* Of a result that is rounded to 8 bits; sums of float before it lose far less. */
#define HALF_ULP 0x1.02p-8

static const size_t ROWS[] = {1, 3, 70}, COLS[] = {1, 2, 7, 8, 24, 100, 520, 4104};

static double wide(uint16_t x)
{
    return (double)rz_bf16_to_f32(x);
}

/* want, give or take `slack` before it was rounded. */
static void near(const char *what, size_t i, uint16_t got, double want, double slack)
{
    if (!(fabs(wide(got) - want) <= HALF_ULP * fabs(want) + slack))
        fail_msg("%s: element %zu is %.9g, expected %.9g", what, i, wide(got), want);
}

static void each_size(void (*check)(rz_stream *s, const char *set, size_t rows, size_t cols))
{
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 2);
        for (size_t i = 0; i < RZ_COUNT(ROWS) * RZ_COUNT(COLS); i++)
            check(s, *set, ROWS[i % RZ_COUNT(ROWS)], COLS[i / RZ_COUNT(ROWS)]);
        compute_close(s);
    }
}

/* ---- Activations ---- */

static void check_act(rz_stream *s, const char *set, size_t rows, size_t cols)
{
    const size_t n = rows * cols;
    for (int kind = 0; kind <= RZ_ACT_RELU; kind++) {
        uint16_t *x = random_half(n, 1, 9), *y = random_half(n, 2, 1);
        rz_half_act(s, (rz_act_kind)kind, y, x, n);
        assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
        for (size_t i = 0; i < n; i++) near(set, i, y[i], act_ref(kind, wide(x[i])), 1e-6);
        rz_half_act(s, (rz_act_kind)kind, x, x, n);
        assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
        assert_memory_equal(x, y, n * sizeof *x);
        free(x), free(y);
    }
}

static void activations(void **state)
{
    (void)state;
    each_size(check_act);
}

static void check_gated(rz_stream *s, const char *set, size_t rows, size_t cols)
{
    for (size_t pad = 0; pad < 3; pad++) { /* gate | up side by side, also at odd places */
        const size_t ld = 2 * cols + pad * (pad == 1 ? 8 : 3);
        uint16_t *x = random_half(rows * ld, 3, 5), *y = random_half(rows * cols, 4, 1);
        rz_half_gated(s, RZ_ACT_SILU, y, x, x + cols, ld, rows, cols);
        assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
        for (size_t i = 0; i < rows * cols; i++) {
            const uint16_t *at = x + i / cols * ld + i % cols;
            near(set, i, y[i], act_ref(RZ_ACT_SILU, wide(at[0])) * wide(at[cols]), 1e-6);
        }
        free(x), free(y);
    }
    uint16_t *gate = random_half(rows * cols, 5, 5), *up = random_half(rows * cols, 6, 5);
    uint16_t *y = random_half(rows * cols, 7, 1);
    rz_half_gated(s, RZ_ACT_GELU, y, gate, up, cols, rows, cols);
    rz_half_gated(s, RZ_ACT_GELU, gate, gate, up, cols, rows, cols);
    assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
    assert_memory_equal(gate, y, rows * cols * sizeof *y);
    free(gate), free(up), free(y);
}

static void gated(void **state)
{
    (void)state;
    each_size(check_gated);
}

static void check_widened(rz_stream *s, const char *set, size_t rows, size_t cols)
{
    const size_t n = rows * cols;
    uint16_t *x = random_half(n, 8, 100);
    float *y = random_floats(n, 9);
    (void)set;
    rz_half_to_f32(s, y, x, n);
    assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
    for (size_t i = 0; i < n; i++) assert_true(y[i] == rz_bf16_to_f32(x[i]));
    free(x), free(y);
}

static void widened(void **state)
{
    (void)state;
    each_size(check_widened);
}

/* ---- Norms ---- */

static void check_norm(rz_stream *s, const char *set, size_t rows, size_t cols)
{
    float *x = random_floats(rows * cols, 10), *w = random_floats(cols, 11), *b = random_floats(cols, 12);
    uint16_t *y = random_half(rows * cols, 13, 1);
    for (size_t i = 0; i < rows * cols; i++) x[i] = 3 * x[i] + 2;
    for (int layer = 0; layer < 2; layer++) {
        rz_half_norm(s, y, x, w, layer ? b : NULL, 1e-5f, rows, cols);
        assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
        for (size_t r = 0; r < rows; r++) {
            const float *row = x + r * cols;
            double mean = 0, square = 0;
            for (size_t c = 0; c < cols && layer; c++) mean += (double)row[c] / (double)cols;
            for (size_t c = 0; c < cols; c++) square += pow((double)row[c] - mean, 2) / (double)cols;
            const double rstd = 1 / sqrt(square + (double)1e-5f);
            for (size_t c = 0; c < cols; c++) {
                const double want = ((double)row[c] - mean) * rstd * (double)w[c] + (layer ? (double)b[c] : 0);
                near(set, r * cols + c, y[r * cols + c], want, cols == 1 && layer ? 1e-3 : 1e-5);
            }
        }
    }
    free(x), free(w), free(b), free(y);
}

static void norms(void **state)
{
    (void)state;
    each_size(check_norm);
}

/* ---- RoPE ---- */

static void check_rope(rz_stream *s, const char *set, size_t heads, size_t head_dim, size_t pad)
{
    enum { N = 5 };
    const size_t cols = heads * head_dim, ld = cols + pad, half = head_dim / 2;
    const int32_t pos[N] = {0, 1, 7, 577, 3000};
    float *freq = random_floats(half, 14);
    uint16_t *x = random_half(N * ld, 15, 1), *y = malloc(N * ld * sizeof *y);
    for (size_t i = 0; i < half; i++) freq[i] = powf(10000, -(float)i / (float)half);
    memcpy(y, x, N * ld * sizeof *y);
    rz_half_rope(s, y, ld, pos, freq, 0.5f, N, heads, head_dim);
    assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
    for (size_t i = 0; i < N * ld; i++) {
        const size_t r = i / ld, c = i % ld, k = c % head_dim;
        if (c >= cols) {
            assert_int_equal(y[i], x[i]);
            continue;
        }
        const float angle = (float)pos[r] * freq[k % half];
        const double a = wide(x[i]), other = wide(x[k < half ? i + half : i - half]);
        const double want = a * cos((double)angle) + (k < half ? -other : other) * sin((double)angle);
        near(set, i, y[i], 0.5 * want, 1e-6);
    }
    free(freq), free(x), free(y);
}

static void rope(void **state)
{
    static const size_t dims[] = {2, 4, 16, 32, 36, 64, 128, 256};
    (void)state;
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 2);
        for (size_t i = 0; i < RZ_COUNT(dims); i++)
            for (size_t heads = 1; heads <= 40; heads = 3 * heads + 1)
                for (size_t pad = 0; pad <= 16; pad = 2 * pad + 4) check_rope(s, *set, heads, dims[i], pad);
        compute_close(s);
    }
}

/* ---- Linear layers ---- */

/* Weights of random bits; integers have a scale of 1/64 for every group. */
static rz_mat weights(rz_dtype type, size_t n, size_t k)
{
    const size_t n_bytes = rz_dtype_bytes(type, n * k), group = 32, groups = (k + group - 1) / group;
    float *x = random_floats(n * k, 16);
    uint8_t *data = malloc(n_bytes);
    for (size_t i = 0; i < n * k; i++) {
        const uint16_t h = rz_f32_to_bf16(x[i]);
        if (type == RZ_F32) memcpy(data + 4 * i, &x[i], 4);
        if (type == RZ_BF16) memcpy(data + 2 * i, &h, 2);
        if (!rz_dtype_is_float(type)) data[rz_dtype_bytes(type, i & ~(size_t)1)] = (uint8_t)(int)(x[i] * 128);
        if (type == RZ_I8) data[i] = (uint8_t)(int8_t)(x[i] * 127);
    }
    free(x);
    rz_mat w = {.data = data, .dtype = type, .ld = k, .compute = RZ_BF16};
    if (rz_dtype_is_float(type)) return w;
    float *scale = malloc(n * groups * sizeof *scale);
    for (size_t i = 0; i < n * groups; i++) scale[i] = 1.0f / 64;
    w.scale = scale, w.group = group;
    return w;
}

static void check_linear(rz_stream *s, const char *set, rz_dtype type, size_t m, size_t n, size_t k, bool has_bias)
{
    const size_t ldx = k + 8, ldy = n + 24;
    rz_mat w = weights(type, n, k);
    uint16_t *x = random_half(m * ldx, 17, 1), *y = random_half(m * ldy, 18, 1), *old = random_half(m * ldy, 18, 1);
    float *h = random_floats(m * ldy, 19), *sum = random_floats(m * ldy, 19), *bias = random_floats(n, 20);
    float *row = zero_floats(k);
    rz_half_linear(s, y, ldy, x, ldx, w, has_bias ? bias : NULL, m, n, k);
    rz_half_linear_add(s, sum, ldy, x, ldx, w, has_bias ? bias : NULL, m, n, k);
    assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
    for (size_t j = 0; j < ldy; j++) {
        if (j < n) rz_cpu_widen(row, w, j * k, k);
        for (size_t i = 0; i < m; i++) {
            double want = j < n && has_bias ? (double)bias[j] : 0, size = 0;
            if (j >= n) {
                assert_int_equal(y[i * ldy + j], old[i * ldy + j]);
                assert_true(sum[i * ldy + j] == h[i * ldy + j]);
                continue;
            }
            for (size_t q = 0; q < k; q++) {
                const double product = wide(x[i * ldx + q]) * wide(rz_f32_to_bf16(row[q]));
                want += product, size += fabs(product);
            }
            /* with a bias both parts may have been rounded before the sum */
            const double parts = has_bias ? fabs((double)bias[j]) + fabs(want - (double)bias[j]) : 0;
            const double slack = 2e-6 * (size + 1) + HALF_ULP * parts;
            near(set, i * ldy + j, y[i * ldy + j], want, slack);
            const double got = (double)sum[i * ldy + j] - (double)h[i * ldy + j];
            if (!(fabs(got - want) <= 4e-6 * (size + 1))) fail_msg("%s: sum %.9g, expected %.9g", set, got, want);
        }
    }
    free((void *)(uintptr_t)w.data), free((void *)(uintptr_t)w.scale);
    free(x), free(y), free(old), free(h), free(sum), free(bias), free(row);
}

static void linear(void **state)
{
    static const rz_dtype types[] = {RZ_F32, RZ_BF16, RZ_I8, RZ_I4};
    static const size_t sizes[][3] = {{1, 5, 8}, {3, 24, 64}, {17, 40, 136}, {65, 130, 320}};
    (void)state;
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 2);
        for (size_t t = 0; t < RZ_COUNT(types); t++)
            for (size_t i = 0; i < RZ_COUNT(sizes); i++)
                check_linear(s, *set, types[t], sizes[i][0], sizes[i][1], sizes[i][2], (i + t) % 2 == 0);
        compute_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations), cmocka_unit_test(gated), cmocka_unit_test(widened),
        cmocka_unit_test(norms),       cmocka_unit_test(rope),  cmocka_unit_test(linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
