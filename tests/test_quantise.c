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
    y.mat = (rz_mat){y.q, bits == 8 ? RZ_I8 : RZ_I4, cols, y.scale, RZ_BF16, group, RZ_F32, NULL};
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

/* ---- Integer products ---- */

struct int_shape {
    size_t m, n, k, group, pad;
    rz_dtype type, scale_type;
    float alpha, beta;
    int threads;
};

/* A matrix of any bytes, -128 among them, with scales. */
static rz_mat random_integers(const struct int_shape *p, uint64_t seed)
{
    const size_t n_bytes = p->n * (p->type == RZ_I8 ? p->k : p->k / 2),
                 n_scales = p->n * ((p->k + p->group - 1) / p->group);
    uint8_t *q = malloc(n_bytes);
    float *scale = random_floats(n_scales, seed);
    rz_rng r;
    rz_rng_seed(&r, seed, n_bytes);
    for (size_t i = 0; i < n_bytes; i++) q[i] = i % 7 ? (uint8_t)(256 * rz_rng_uniform(&r)) : 0x80;
    for (size_t i = 0; i < n_scales && p->scale_type == RZ_BF16; i++) ((uint16_t *)scale)[i] = rz_f32_to_bf16(scale[i]);
    return (rz_mat){q, p->type, p->k, scale, p->scale_type, p->group, RZ_F32, NULL};
}

/* A row and group of x rounded; its scale. */
static float round_plainly(const float *x, size_t n, int *q)
{
    float most = 0, bad = 0;
    for (size_t i = 0; i < n; i++) bad += x[i] * 0, most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    for (size_t i = 0; i < n; i++) q[i] = bad == 0 && most > 1e-30f ? (int)rintf(x[i] * (127.0f / most)) : 0;
    return most > 1e-30f ? most / 127.0f + bad : bad;
}

static int integer_at(rz_mat b, size_t i)
{
    const uint8_t *q = b.data;
    return b.dtype == RZ_I8 ? (int8_t)q[i] : (q[i / 2] >> (i & 1 ? 4 : 0) & 15) - 8;
}

/* What rz_gemm must give, to the bit. */
static void multiply_plainly(const struct int_shape *p, const float *a, rz_mat b, float *c, size_t ldc)
{
    const size_t groups = rz_mat_groups(b);
    int q[128];
    for (size_t i = 0; i < p->m; i++) {
        for (size_t j = 0; j < p->n; j++) c[i * ldc + j] = p->beta == 0 ? 0 : p->beta * c[i * ldc + j];
        for (size_t g = 0; g < groups; g++) {
            const size_t at = g * b.group, n = p->k - at < b.group ? p->k - at : b.group;
            const float scale = p->alpha * round_plainly(a + i * p->k + at, n, q);
            for (size_t j = 0; j < p->n; j++) {
                int sum = 0;
                for (size_t d = 0; d < n; d++) sum += q[d] * integer_at(b, j * p->k + at + d);
                const size_t s = j * groups + g;
                const float w = b.scale_dtype == RZ_F32 ? ((const float *)b.scale)[s]
                                                        : rz_bf16_to_f32(((const uint16_t *)b.scale)[s]);
                c[i * ldc + j] += (float)sum * (scale * w);
            }
        }
    }
}

/* Every kernel that can run here, and those of wider vectors than there are. */
static const struct rz_int_kernels *int_kernels(size_t i, rz_dtype type, const char **name)
{
    static const char *const names[] = {"portable", "wide", "avx2", "avx512", "wide vnni", "auto"};
    for (size_t k = 0; k < RZ_COUNT(names); k++) {
        const struct rz_int_kernels *found = NULL;
        rz_device_options o = {.kernels = names[k], .n_threads = 1};
        rz_device *dev = NULL;
        const bool int8 = type == RZ_I8;
        if (!strcmp(names[k], "wide")) found = int8 ? &rz_kernels_wide.int8 : &rz_kernels_wide.int4;
        if (!strcmp(names[k], "wide vnni")) found = &rz_kernels_wide_vnni[!int8];
        if (!found && !rz_device_open(NULL, &o, &dev, NULL)) found = int8 ? dev->int8 : dev->int4;
        rz_device_close(dev);
        *name = names[k];
        if (found && !i--) return found;
    }
    return NULL;
}

/* Weights that were packed before give the same bits. */
static void check_packed(rz_stream *s, const struct int_shape *p, const float *a, rz_mat b, const float *before,
                         const float *want, size_t ldc)
{
    rz_device *dev = rz_stream_device(s);
    void *packed;
    float *c = malloc(p->m * ldc * sizeof *c);
    assert_int_equal(rz_device_alloc(dev, rz_mat_pack(dev, b, p->n, NULL), &packed, NULL), RADZ_OK);
    rz_mat_pack(dev, b, p->n, packed);
    rz_mat ready = b;
    ready.packed = packed;
    memcpy(c, before, p->m * ldc * sizeof *c);
    rz_gemm(s, false, true, p->m, p->n, p->k, p->alpha, rz_mat_f32(a, p->k), ready, p->beta, c, ldc);
    assert_same_bits("packed before", c, want, p->m * ldc);
    rz_device_free(dev, packed);
    free(c);
}

static void check_int_product(const struct int_shape *p)
{
    const size_t ldc = p->n + p->pad, n_c = p->m * ldc;
    const struct rz_int_kernels *kernels;
    const char *name;
    rz_mat b = random_integers(p, p->k);
    float *a = random_floats(p->m * p->k, 1), *want = random_floats(n_c, 3), *before = random_floats(n_c, 3);
    for (size_t i = 0; i < p->m * p->k; i++) a[i] *= i % 11 ? 1 : 1e-3f; /* halves, too: what rounds to even */
    multiply_plainly(p, a, b, want, ldc);
    for (size_t i = 0; (kernels = int_kernels(i, p->type, &name)); i++) {
        rz_stream *s = compute_open(NULL, "portable", p->threads);
        rz_stream_device(s)->int8 = rz_stream_device(s)->int4 = kernels;
        float *c = malloc(n_c * sizeof *c);
        memcpy(c, before, n_c * sizeof *c);
        rz_gemm(s, false, true, p->m, p->n, p->k, p->alpha, rz_mat_f32(a, p->k), b, p->beta, c, ldc);
        check_packed(s, p, a, b, before, c, ldc);
        compute_close(s);
        if (memcmp(c, want, n_c * sizeof *c)) {
            char what[200];
            snprintf(what, sizeof what, "%s (%s) %zux%zux%zu type %d group %zu beta %g threads %d", name, kernels->name,
                     p->m, p->n, p->k, (int)p->type, p->group, (double)p->beta, p->threads);
            assert_same_bits(what, c, want, n_c);
        }
        free(c);
    }
    free((void *)(uintptr_t)b.data);
    free((void *)(uintptr_t)b.scale);
    free(a);
    free(want);
    free(before);
}

static void integer_products(void **state)
{
    (void)state;
    static const size_t ms[] = {1, 5, 6, 7, 13, 100}, ns[] = {1, 15, 16, 17, 33, 70},
                        ks[] = {2, 30, 32, 34, 96, 128, 130, 192, 520};
    static const float scales[][2] = {{1, 0}, {1, 1}, {-0.5f, 0}, {2, 0.25f}};
    for (size_t i = 0; i < RZ_COUNT(ms) * RZ_COUNT(ks); i++) {
        struct int_shape p = {.m = ms[i % RZ_COUNT(ms)], .pad = i % 3};
        p.n = ns[(i / 3 + i) % RZ_COUNT(ns)];
        p.k = ks[i / RZ_COUNT(ms)];
        p.group = (size_t)32 << i % 3;
        p.scale_type = i & 1 ? RZ_BF16 : RZ_F32;
        p.alpha = scales[i / 2 % 4][0], p.beta = scales[i / 2 % 4][1];
        p.threads = 1 + (int)(i % 4);
        for (int t = RZ_I8; t <= RZ_I4; t++) {
            p.type = (rz_dtype)t;
            check_int_product(&p);
        }
    }
}

/* More rows than are packed at once, more of B than a task takes, rows shared out. */
static void large_integer_products(void **state)
{
    (void)state;
    check_int_product(&(struct int_shape){1600, 20, 160, 128, 0, RZ_I8, RZ_BF16, 1, 0, 3});
    check_int_product(&(struct int_shape){1600, 20, 160, 32, 0, RZ_I4, RZ_BF16, 1, 0, 3});
    check_int_product(&(struct int_shape){210, 150, 1100, 128, 1, RZ_I8, RZ_BF16, 1, 1, 2});
    check_int_product(&(struct int_shape){210, 530, 1100, 64, 1, RZ_I4, RZ_F32, 1, 1, 2});
    check_int_product(&(struct int_shape){1, 700, 129, 128, 1, RZ_I8, RZ_F32, 1, 1, 4}); /* odd */
    check_int_product(&(struct int_shape){3, 9, 33, 32, 1, RZ_I8, RZ_F32, 1, 1, 4});
}

/* 127 times -128, over and over; and activations that are nothing, tiny, huge. */
static void integer_extremes(void **state)
{
    (void)state;
    enum { M = 4, N = 3, K = 128 };
    const struct rz_int_kernels *kernels;
    const char *name;
    float a[M * K], c[M * N], scale[N] = {1, 1, 1};
    for (size_t i = 0; i < K; i++) a[i] = 127, a[K + i] = 0, a[2 * K + i] = 1e-35f, a[3 * K + i] = -1e34f;
    for (int t = RZ_I8; t <= RZ_I4; t++)
        for (size_t i = 0; (kernels = int_kernels(i, (rz_dtype)t, &name)); i++) {
            uint8_t q[N * K];
            for (size_t j = 0; j < N * K; j++)
                q[j] = t == RZ_I8 ? (uint8_t[]){0x80, 0x7f, 0}[j / K] : 0x0f * (j < K / 2);
            rz_stream *s = compute_open(NULL, "portable", 1);
            rz_stream_device(s)->int8 = rz_stream_device(s)->int4 = kernels;
            rz_gemm(s, false, true, M, N, K, 1, rz_mat_f32(a, K),
                    (rz_mat){q, (rz_dtype)t, K, scale, RZ_F32, 128, RZ_F32, NULL}, 0, c, N);
            compute_close(s);
            const float want[] = {t == RZ_I8 ? -128 * 127 * 128 : 127 * 64 * (7 - 8),
                                  t == RZ_I8 ? 127 * 127 * 128 : 127 * 128 * -8};
            if (c[0] != want[0] || c[1] != want[1]) fail_msg("%s: %g %g", name, (double)c[0], (double)c[1]);
            for (size_t j = N; j < 3 * N; j++)
                if (c[j] != 0) fail_msg("%s: %g from nothing", name, (double)c[j]);
            if (!isfinite(c[3 * N + 2])) fail_msg("%s: %g", name, (double)c[3 * N + 2]);
        }
}

/* A row with NaN or infinity is NaN, and no other. */
static void nan_stays_in_its_row(void **state)
{
    (void)state;
    enum { M = 14, N = 40, K = 160 };
    const struct rz_int_kernels *kernels;
    const char *name;
    const struct int_shape p = {M, N, K, 128, 0, RZ_I8, RZ_F32, 1, 0, 2};
    rz_mat b = random_integers(&p, 1);
    float *a = random_floats(M * K, 1), c[M * N];
    a[3 * K + 159] = NAN;
    a[7 * K] = -INFINITY;
    for (size_t i = 0; (kernels = int_kernels(i, RZ_I8, &name)); i++) {
        rz_stream *s = compute_open(NULL, "portable", 2);
        rz_stream_device(s)->int8 = kernels;
        rz_gemm(s, false, true, M, N, K, 1, rz_mat_f32(a, K), b, 0, c, N);
        compute_close(s);
        for (size_t j = 0; j < M * N; j++)
            if ((isnan(c[j]) != 0) != (j / N == 3 || j / N == 7))
                fail_msg("%s: element %zu is %g", name, j, (double)c[j]);
    }
    free((void *)(uintptr_t)b.data);
    free((void *)(uintptr_t)b.scale);
    free(a);
}

/* ---- Files ---- */

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
        cmocka_unit_test(integer_products),
        cmocka_unit_test(large_integer_products),
        cmocka_unit_test(integer_extremes),
        cmocka_unit_test(nan_stays_in_its_row),
        cmocka_unit_test(bad_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
