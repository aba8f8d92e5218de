/* test_compute_bf16.c - linear layers whose weights ask for products of bfloat16: every kernel set against sums in
 * double of numbers rounded here, for weights of every type; the same bits whatever the threads and the rows beside.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "compute_help.h"
#include "formats.h"

struct shape {
    size_t m, n, k, pad; /* pad: of a's rows and c's */
    rz_dtype type;       /* of the weights */
    size_t group;
    float alpha, beta;
    int threads;
};

/* To 8 significant bits by arithmetic alone. */
static double rounded(float x)
{
    int exponent;
    const double part = frexp((double)x, &exponent);
    return ldexp(rint(part * 256), exponent - 8);
}

static size_t row_ld(const struct shape *p)
{
    return rz_dtype_is_float(p->type) ? p->k + p->pad : p->k;
}

/* Weights of random bits (floats between -2 and 2), exactly as much memory as they need. */
static rz_mat weights(const struct shape *p, uint64_t seed)
{
    const size_t ld = row_ld(p), n = (p->n - 1) * ld + p->k;
    const size_t groups = p->group ? (p->k + p->group - 1) / p->group : 0;
    float *x = random_floats(n, seed);
    uint8_t *data = malloc(rz_dtype_bytes(p->type, n));
    for (size_t i = 0; i < n; i++) {
        if (p->type == RZ_F32) memcpy(data + 4 * i, x + i, 4);
        if (p->type == RZ_BF16) ((uint16_t *)(void *)data)[i] = rz_f32_to_bf16(x[i]);
        if (p->type == RZ_F16) ((uint16_t *)(void *)data)[i] = (uint16_t)(x[i] * 1000) & 0xbfff;
        if (p->type == RZ_I8 || (p->type == RZ_I4 && i % 2 == 0))
            data[rz_dtype_bytes(p->type, i)] = (uint8_t)(int)(x[i] * 128);
    }
    free(x);
    return (rz_mat){.data = data,
                    .dtype = p->type,
                    .ld = ld,
                    .scale = groups ? random_floats(p->n * groups, 7) : NULL,
                    .scale_dtype = RZ_F32,
                    .group = p->group,
                    .compute = RZ_BF16};
}

static void weights_free(rz_mat w)
{
    free((void *)(uintptr_t)w.data);
    free((void *)(uintptr_t)w.scale);
}

static void check_product(rz_stream *s, const char *set, const struct shape *p)
{
    const size_t lda = p->k + p->pad, ldc = p->n + p->pad;
    rz_mat w = weights(p, 2);
    float *a = random_floats((p->m - 1) * lda + p->k, 1), *row = zero_floats(p->k);
    float *c = random_floats(p->m * ldc, 3), *before = random_floats(p->m * ldc, 3);
    for (size_t i = 0; p->beta == 0 && i < p->m * ldc; i++) c[i] = before[i] = NAN; /* must not be read */
    rz_gemm(s, false, true, p->m, p->n, p->k, p->alpha, rz_mat_f32(a, lda), w, p->beta, c, ldc);
    assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
    for (size_t j = 0; j < p->n; j++) {
        rz_cpu_widen(row, w, j * w.ld, p->k);
        for (size_t i = 0; i < p->m; i++) {
            double want = 0, size = 0;
            for (size_t q = 0; q < p->k; q++) {
                const double product = rounded(a[i * lda + q]) * rounded(row[q]);
                want += product, size += fabs(product);
            }
            want *= (double)p->alpha;
            const double old = p->beta == 0 ? 0 : (double)p->beta * (double)before[i * ldc + j];
            const double room = fabs((double)p->alpha) * (0x1p-22 * sqrt((double)p->k) + 0x1p-23) * size;
            if (!(fabs((double)c[i * ldc + j] - want - old) <= room / 2 + 0x1p-22 * (fabs(want) + fabs(old)) + 1e-35))
                fail_msg("%s %zux%zux%zu type %d: C[%zu][%zu] is %.9g, expected %.9g", set, p->m, p->n, p->k, p->type,
                         i, j, (double)c[i * ldc + j], want + old);
        }
    }
    for (size_t i = 0; i < p->m; i++)
        assert_memory_equal(c + i * ldc + p->n, before + i * ldc + p->n, p->pad * sizeof *c);
    weights_free(w);
    free(a);
    free(row);
    free(c);
    free(before);
}

static void check_stream(rz_stream *s, const char *set)
{
    static const size_t ms[] = {1, 5, 6, 7, 13, 40}, ns[] = {1, 15, 31, 33, 64, 65, 130},
                        ks[] = {1, 2, 3, 31, 64, 130, 531};
    static const float scales[][2] = {{1, 0}, {1, 1}, {-0.5f, 0}, {2, 0.25f}};
    static const rz_dtype types[] = {RZ_BF16, RZ_I4, RZ_F32, RZ_I8, RZ_F16};
    for (size_t i = 0; i < RZ_COUNT(ms) * RZ_COUNT(ks) * RZ_COUNT(types); i++) {
        struct shape p = {.type = types[i % RZ_COUNT(types)], .pad = i % 4, .m = ms[i % RZ_COUNT(ms)]};
        p.k = ks[i / RZ_COUNT(ms) % RZ_COUNT(ks)];
        p.n = ns[i / 2 % RZ_COUNT(ns)];
        if (p.type == RZ_I4) p.k += p.k & 1;
        if (!rz_dtype_is_float(p.type)) p.group = (size_t)32 << i % 3;
        p.alpha = scales[i / 2 % 4][0], p.beta = scales[i / 2 % 4][1];
        check_product(s, set, &p);
    }
}

static void products_match_double(void **state)
{
    (void)state;
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 2);
        check_stream(s, *set);
        compute_close(s);
    }
}

/* More of everything than is packed at once. */
static void large_products_match_double(void **state)
{
    (void)state;
    static const struct shape shapes[] = {{210, 270, 1100, 1, RZ_BF16, 0, 1, 1, 2},
                                          {34, 2100, 2300, 0, RZ_F32, 0, 1, 0, 2},
                                          {210, 530, 1100, 0, RZ_I4, 128, 1, 0, 2},
                                          {700, 70, 300, 0, RZ_BF16, 0, 1, 0, 3},
                                          {1540, 17, 4500, 0, RZ_BF16, 0, -2, 0, 2}};
    for (size_t i = 0; i < RZ_COUNT(shapes); i++) {
        rz_stream *s = compute_open(NULL, "auto", shapes[i].threads);
        check_product(s, "large", &shapes[i]);
        compute_close(s);
    }
}

static void openblas_matches_double(void **state)
{
    (void)state;
    rz_device_options o = {.gemm = "openblas", .n_threads = 1};
    rz_device *dev;
    rz_stream *s;
    if (rz_device_open(NULL, &o, &dev, NULL) != RADZ_OK) skip();
    assert_int_equal(rz_stream_open(dev, &s, NULL), RADZ_OK);
    check_stream(s, "openblas");
    compute_close(s);
}

/* Rows [row, row + m) of a product of shape p, from a stream of its own. */
static float *product(const char *set, const struct shape *p, const float *a, rz_mat w)
{
    rz_stream *s = compute_open(NULL, set, p->threads);
    float *c = zero_floats(p->m * p->n);
    rz_gemm(s, false, true, p->m, p->n, p->k, 1, rz_mat_f32(a, p->k), w, 1, c, p->n);
    compute_close(s);
    return c;
}

static void bits_do_not_depend_on_threads_and_batch(void **state)
{
    (void)state;
    static const rz_dtype types[] = {RZ_BF16, RZ_I4, RZ_F32};
    for (const char *const *set = compute_sets(); *set; set++)
        for (size_t t = 0; t < RZ_COUNT(types); t++) {
            struct shape p = {.m = 203, .n = 331, .k = 700, .type = types[t], .threads = 1};
            p.group = rz_dtype_is_float(p.type) ? 0 : 64;
            float *a = random_floats(p.m * p.k, 1);
            rz_mat w = weights(&p, 2);
            float *want = product(*set, &p, a, w);
            for (p.threads = 2; p.threads <= 8; p.threads += 3) {
                float *got = product(*set, &p, a, w);
                assert_same_bits(*set, got, want, p.m * p.n);
                free(got);
            }
            for (size_t rows = 1; rows < 203; rows = rows * 3 + 1) {
                p.m = rows, p.threads = 2;
                float *got = product(*set, &p, a + (203 - rows) * p.k, w);
                assert_same_products(*set, got, want + (203 - rows) * p.n, rows * p.n);
                free(got);
            }
            weights_free(w);
            free(a);
            free(want);
        }
}

/* Large results are stored past the caches, where they lie in whole lines. */
static void where_the_result_lies_changes_nothing(void **state)
{
    (void)state;
    const struct shape p = {.m = 521, .n = 2064, .k = 66, .type = RZ_BF16, .threads = 2};
    const size_t n = p.m * p.n;
    float *a = random_floats(p.m * p.k, 1), *c[2];
    rz_mat w = weights(&p, 2);
    rz_stream *s = compute_open(NULL, "auto", p.threads);
    for (size_t i = 0; i < RZ_COUNT(c); i++) {
        assert_int_equal(posix_memalign((void **)&c[i], 64, (n + i) * sizeof(float)), 0);
        rz_gemm(s, false, true, p.m, p.n, p.k, 1, rz_mat_f32(a, p.k), w, 0, c[i] + i, p.n);
    }
    compute_close(s);
    assert_same_bits("auto", c[1] + 1, c[0], n);
    weights_free(w);
    free(a), free(c[0]), free(c[1]);
}

static void nan_stays_in_its_row_and_column(void **state)
{
    (void)state;
    const struct shape p = {.m = 40, .n = 37, .k = 19, .type = RZ_F32, .threads = 1};
    for (const char *const *set = compute_sets(); *set; set++) {
        float *a = random_floats(p.m * p.k, 1);
        rz_mat w = weights(&p, 2);
        uint32_t nan = 0x7fffffff; /* all ones: adding to it would make it a number */
        memcpy(a + 13 * p.k + 4, &nan, 4);
        ((float *)(uintptr_t)w.data)[5 * p.k + 1] = INFINITY;
        float *c = product(*set, &p, a, w);
        for (size_t i = 0; i < p.m; i++)
            for (size_t j = 0; j < p.n; j++) {
                assert_int_equal(isnan(c[i * p.n + j]) != 0, i == 13);
                if (i != 13) assert_int_equal(isinf(c[i * p.n + j]) != 0, j == 5);
            }
        weights_free(w);
        free(a);
        free(c);
    }
}

/* Weights that were packed before give the same bits, whatever product they ask for; in another product they are as if
 * they had not been. */
static void packed_weights_change_nothing(void **state)
{
    (void)state;
    static const rz_dtype types[] = {RZ_F32, RZ_F16, RZ_BF16, RZ_I8, RZ_I4};
    for (const char *const *set = compute_sets(); *set; set++)
        for (size_t i = 0; i < 2 * RZ_COUNT(types); i++) {
            struct shape p = {.m = i % 3 ? 1 : 57, .n = 131, .k = 2306, .type = types[i / 2], .alpha = 1};
            p.group = rz_dtype_is_float(p.type) ? 0 : 64;
            const size_t n_a = p.m * (p.k > p.n ? p.k : p.n), n_c = n_a;
            float *a = random_floats(n_a, 1), *want = zero_floats(n_c), *got = zero_floats(n_c);
            rz_mat w = weights(&p, 2), ready;
            w.compute = i % 2 ? RZ_BF16 : RZ_F32, ready = w;
            rz_stream *s = compute_open(NULL, *set, 2);
            rz_device *dev = rz_stream_device(s);
            void *packed = NULL;
            const size_t n_bytes = rz_mat_pack(dev, w, p.n, NULL);
            if (n_bytes) assert_int_equal(rz_device_alloc(dev, n_bytes, &packed, NULL), RADZ_OK);
            assert_true(n_bytes || w.compute == RZ_BF16 || !dev->ops.pack);
            if (n_bytes) rz_mat_pack(dev, w, p.n, packed);
            ready.packed = packed;
            rz_gemm(s, false, true, p.m, p.n, p.k, 1, rz_mat_f32(a, p.k), w, 0, want, p.n);
            rz_gemm(s, false, true, p.m, p.n, p.k, 1, rz_mat_f32(a, p.k), ready, 0, got, p.n);
            assert_same_bits(*set, got, want, p.m * p.n);
            rz_gemm(s, false, false, p.m, p.k, p.n, 1, rz_mat_f32(a, p.n), w, 0, want, p.k);
            rz_gemm(s, false, false, p.m, p.k, p.n, 1, rz_mat_f32(a, p.n), ready, 0, got, p.k);
            assert_same_bits(*set, got, want, p.m * p.k);
            if (packed) rz_device_free(dev, packed);
            compute_close(s);
            weights_free(w);
            free(a), free(want), free(got);
        }
}

/* What is no linear layer of floats stays what it was: the backward pass, empty sums. */
/* dx = dy W of rounded numbers, as a GPU has it. */
static void rounded_backward(const struct shape *p, float *dx, const float *dy, rz_mat w)
{
    float *row = zero_floats(p->k);
    for (size_t i = 0; i < p->m; i++)
        for (size_t q = 0; q < p->k; q++) {
            double sum = 0;
            for (size_t j = 0; j < p->n; j++) {
                rz_cpu_widen(row, w, j * w.ld, p->k);
                sum += rounded(dy[i * p->n + j]) * rounded(row[q]);
            }
            dx[i * p->k + q] = (float)sum;
        }
    free(row);
}

static void others_are_exact(void **state)
{
    (void)state;
    const struct shape p = {.m = 7, .n = 33, .k = 40, .type = RZ_BF16, .threads = 1};
    for (const char *const *set = compute_sets(); *set; set++) {
        float *a = random_floats(p.m * p.n, 1), *got = zero_floats(p.m * p.k), *want = zero_floats(p.m * p.k);
        rz_mat w = weights(&p, 2), exact = w;
        exact.compute = RZ_F32;
        rz_stream *s = compute_open(NULL, *set, 1);
        rz_gemm(s, false, false, p.m, p.k, p.n, 1, rz_mat_f32(a, p.n), w, 0, got, p.k);
        rz_gemm(s, false, false, p.m, p.k, p.n, 1, rz_mat_f32(a, p.n), exact, 0, want, p.k);
        if (rz_device_is_half(rz_stream_device(s))) rounded_backward(&p, want, a, w);
        assert_same_products(*set, got, want, p.m * p.k);
        want[0] = 3;
        rz_gemm(s, false, true, 1, 1, 0, 1, rz_mat_f32(a, 1), w, 2, want, 1);
        assert_true(want[0] == 6);
        rz_gemm(s, false, true, 0, 1, 1, 1, rz_mat_f32(a, 1), w, 2, NULL, 1);
        compute_close(s);
        weights_free(w);
        free(a);
        free(got);
        free(want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_match_double),           cmocka_unit_test(large_products_match_double),
        cmocka_unit_test(openblas_matches_double),         cmocka_unit_test(bits_do_not_depend_on_threads_and_batch),
        cmocka_unit_test(nan_stays_in_its_row_and_column), cmocka_unit_test(others_are_exact),
        cmocka_unit_test(packed_weights_change_nothing),   cmocka_unit_test(where_the_result_lies_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
