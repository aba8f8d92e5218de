/* test_compute_gemm.c - the matrix product of every kernel set: against double precision, in every layout and
 * type, at the edges of tiles; the same bits whatever the threads and the rows beside.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "compute_help.h"

/* A matrix (rows, cols) with room after each row that nobody may write, and exactly as long as it must be. */
struct matrix {
    rz_mat m;
    void *data;
    double *value; /* (rows, cols) */
};

static uint16_t to_half(float f, rz_dtype t)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if (t == RZ_BF16) return (uint16_t)(bits >> 16);
    int exponent = (int)(bits >> 23 & 255) - 127 + 15; /* |f| <= 1: no overflow; tiny ones become denormal or 0 */
    uint32_t sign = bits >> 16 & 0x8000, mantissa = (bits & 0x7fffff) | 0x800000;
    if (exponent >= 1) return (uint16_t)(sign | (uint32_t)exponent << 10 | (mantissa >> 13 & 0x3ff));
    return (uint16_t)(sign | (exponent < -10 ? 0 : mantissa >> (14 - exponent)));
}
static double half_value(uint16_t h, rz_dtype t)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    if (t == RZ_BF16) return (double)f;
    int exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    double v = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h & 0x8000 ? -v : v;
}

static struct matrix matrix_make(size_t rows, size_t cols, size_t ld, rz_dtype t, uint64_t seed)
{
    size_t n = rows ? (rows - 1) * ld + cols : 0;
    struct matrix x = {.data = malloc(rz_dtype_bytes(t, n) + 1), .value = malloc((rows * cols + 1) * sizeof(double))};
    float *f = random_floats(n, seed);
    if (t == RZ_F32) memcpy(x.data, f, n * sizeof *f);
    for (size_t i = 0; i < n; i++) {
        if (t != RZ_F32) ((uint16_t *)x.data)[i] = to_half(i % 5 ? f[i] : f[i] * 1e-5f, t);
        if (i % ld < cols)
            x.value[i / ld * cols + i % ld] = t == RZ_F32 ? (double)f[i] : half_value(((uint16_t *)x.data)[i], t);
    }
    free(f);
    x.m = (rz_mat){.data = x.data, .dtype = t, .ld = ld};
    return x;
}
static void matrix_free(struct matrix *x)
{
    free(x->data);
    free(x->value);
}

struct shape {
    size_t m, n, k;
    bool ta, tb;
    rz_dtype at, bt;
    float alpha, beta;
    size_t pad; /* of every ld */
};

static void check_product(rz_stream *s, const char *what, const struct shape *p)
{
    const size_t ldc = p->n + p->pad;
    struct matrix a = matrix_make(p->ta ? p->k : p->m, p->ta ? p->m : p->k, (p->ta ? p->m : p->k) + p->pad, p->at, 1);
    struct matrix b = matrix_make(p->tb ? p->n : p->k, p->tb ? p->k : p->n, (p->tb ? p->k : p->n) + p->pad, p->bt, 2);
    size_t n_c = (p->m - 1) * ldc + p->n;
    float *c = random_floats(n_c, 3), *before = random_floats(n_c, 3);
    if (p->beta == 0)
        for (size_t i = 0; i < n_c; i++) c[i] = before[i] = NAN; /* must not be read */
    rz_gemm(s, p->ta, p->tb, p->m, p->n, p->k, p->alpha, a.m, b.m, p->beta, c, ldc);
    assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
    for (size_t i = 0; i < p->m; i++) {
        for (size_t j = 0; j < p->n; j++) {
            double want = 0, size = 2;
            for (size_t q = 0; q < p->k; q++) {
                double av = a.value[p->ta ? q * p->m + i : i * p->k + q];
                double bv = b.value[p->tb ? j * p->k + q : q * p->n + j];
                want += av * bv;
                size += fabs(av * bv);
            }
            want *= (double)p->alpha;
            if (p->beta != 0) want += (double)p->beta * (double)before[i * ldc + j];
            if (!(fabs((double)c[i * ldc + j] - want) <=
                  2e-7 * size * (1 + fabs((double)p->alpha)))) /* float sums of up to 531 terms */
                fail_msg("%s %zux%zux%zu ta=%d tb=%d types %d %d alpha %g beta %g: C[%zu][%zu] is %.9g, expected %.9g",
                         what, p->m, p->n, p->k, p->ta, p->tb, p->at, p->bt, (double)p->alpha, (double)p->beta, i, j,
                         (double)c[i * ldc + j], want);
        }
        if (i + 1 < p->m) assert_memory_equal(c + i * ldc + p->n, before + i * ldc + p->n, p->pad * sizeof *c);
    }
    matrix_free(&a);
    matrix_free(&b);
    free(c);
    free(before);
}

static const size_t SIZES[] = {1, 5, 7, 16, 33, 49};

static void check_stream(rz_stream *s, const char *name)
{
    static const float scales[][2] = {{1, 0}, {1, 1}, {-0.5f, 0}, {2, 0.25f}};
    for (int layout = 0; layout < 4; layout++)
        for (size_t i = 0; i < RZ_COUNT(SIZES) * RZ_COUNT(SIZES); i++) {
            struct shape p = {.m = SIZES[i % RZ_COUNT(SIZES)], .n = SIZES[i / RZ_COUNT(SIZES)]};
            p.k = SIZES[(i * 5 + 3) % RZ_COUNT(SIZES)];
            p.ta = layout & 1;
            p.tb = layout & 2;
            p.alpha = scales[i % 4][0];
            p.beta = scales[i % 4][1];
            p.pad = i % 3;
            p.at = (rz_dtype)(i % 3);
            p.bt = (rz_dtype)(i / 3 % 3);
            check_product(s, name, &p);
        }
    for (int types = 0; types < 36; types++) { /* over blocks of K, and many rows */
        struct shape p = {types & 1 ? 70 : 20, 37, 531, types & 2, types & 1, RZ_F32, RZ_F32, 1, 0.5f, 3};
        p.at = (rz_dtype)(types / 4 % 3);
        p.bt = (rz_dtype)(types / 12);
        check_product(s, name, &p);
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

/* More of B than is packed at once, in both directions. */
static void large_products_match_double(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, "auto", 2);
    check_product(s, "large", &(struct shape){34, 4100, 500, false, true, RZ_F32, RZ_F32, 1, 0.5f, 0});
    compute_close(s);
}

static void openblas_matches_double(void **state)
{
    (void)state;
    rz_device_options o = {.gemm = "openblas", .n_threads = 1};
    rz_device *dev;
    rz_stream *s;
    radz_error err = {0};
    radz_status status = rz_device_open(NULL, &o, &dev, &err);
    if (status != RADZ_OK) {
        assert_int_equal(status, RADZ_E_DEVICE);
        assert_non_null(strstr(err.message, "libopenblas"));
        skip();
    }
    assert_int_equal(rz_stream_open(dev, &s, NULL), RADZ_OK);
    check_stream(s, "openblas");
    float *a = random_floats(12, 1), c[4];
    rz_gemm(s, false, false, 2, 2, 3, 1, rz_mat_f32(a, 2), rz_mat_f32(a, 2), 0, c, 2); /* rows overlap: lda < k */
    assert_int_equal(rz_stream_sync(s, NULL), RADZ_E_LIMIT);
    free(a);
    compute_close(s);
}

/* The same product, C only, from a stream of its own. */
static float *product(const char *set, int threads, bool ta, bool tb, size_t m, size_t n, size_t k, const float *a,
                      const float *b)
{
    rz_stream *s = compute_open(NULL, set, threads);
    float *c = zero_floats(m * n);
    rz_gemm(s, ta, tb, m, n, k, 1, rz_mat_f32(a, ta ? m : k), rz_mat_f32(b, tb ? k : n), 1, c, n);
    compute_close(s);
    return c;
}

static void bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{300, 131, 600}, {9, 700, 517},  {1000, 48, 96},
                                       {130, 5000, 33}, {64, 40, 9000}, {40, 4200, 800}};
    for (const char *const *set = compute_sets(); *set; set++)
        for (size_t i = 0; i < RZ_COUNT(shapes); i++) {
            const size_t m = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
            float *a = random_floats(m * k, 1), *b = random_floats(n * k, 2);
            float *want = product(*set, 1, i & 1, !(i & 1), m, n, k, a, b);
            for (int threads = 2; threads <= 8; threads += threads < 3 ? 1 : 5) {
                float *got = product(*set, threads, i & 1, !(i & 1), m, n, k, a, b);
                assert_same_bits(*set, got, want, m * n);
                free(got);
            }
            free(a);
            free(b);
            free(want);
        }
}

/* Rows [from, from + rows) of the product alone have the bits they have among all the others; columns likewise. */
static void bits_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    enum { M = 203, N = 75, K = 333 };
    float *a = random_floats(M * K, 1), *b = random_floats(N * K, 2);
    for (const char *const *set = compute_sets(); *set; set++) {
        float *want = product(*set, 2, false, true, M, N, K, a, b);
        for (size_t rows = 1; rows <= M; rows = rows * 2 + 1)
            for (size_t from = 0; from + rows <= M; from += 41) {
                float *got = product(*set, 1, false, true, rows, N, K, a + from * K, b);
                assert_same_products(*set, got, want + from * N, rows * N);
                free(got);
            }
        for (size_t from = 0; from < N; from += 11) {
            float *got = product(*set, 1, false, true, M, 1, K, a, b + from * K);
            for (size_t i = 0; i < M; i++) assert_same_products(*set, got + i, want + i * N + from, 1);
            free(got);
        }
        free(want);
    }
    free(a);
    free(b);
}

/* Weights of 16 bits: rows alone, as few as they are, have the bits they have among the others; and wherever the
 * weights begin (an odd place is packed another way). */
static void half_weights_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    enum { M = 100, N = 75, K = 1602 };
    float *a = random_floats(M * K, 1), *want = zero_floats(M * N), *got = zero_floats(M * N);
    for (int type = RZ_F16; type <= RZ_BF16; type++) {
        struct matrix b = matrix_make(N, K, K, (rz_dtype)type, 2);
        uint16_t *moved = malloc(2 * (N * (K + 1) + 1));
        for (size_t i = 0; i < N; i++) memcpy(moved + 1 + i * (K + 1), (uint16_t *)b.data + i * K, 2 * K);
        const rz_mat odd = {.data = moved + 1, .dtype = (rz_dtype)type, .ld = K + 1};
        for (const char *const *set = compute_sets(); *set; set++) {
            rz_stream *s = compute_open(NULL, *set, 3);
            rz_gemm(s, false, true, M, N, K, 1, rz_mat_f32(a, K), b.m, 0, want, N);
            for (size_t rows = 1, from; rows <= M; rows += 1 + rows / 2) {
                from = M - rows;
                rz_gemm(s, false, true, rows, N, K, 1, rz_mat_f32(a + from * K, K), rows % 2 ? odd : b.m, 0, got, N);
                assert_same_products(*set, got, want + from * N, rows * N);
            }
            compute_close(s);
        }
        free(moved);
        matrix_free(&b);
    }
    free(a);
    free(want);
    free(got);
}

static void nan_stays_in_its_row_and_column(void **state)
{
    (void)state;
    enum { M = 40, N = 37, K = 19 };
    for (const char *const *set = compute_sets(); *set; set++) {
        float *a = random_floats(M * K, 1), *b = random_floats(N * K, 2);
        a[13 * K + 4] = NAN;
        b[5 * K + 1] = INFINITY;
        float *c = product(*set, 1, false, true, M, N, K, a, b);
        for (size_t i = 0; i < M; i++)
            for (size_t j = 0; j < N; j++) {
                assert_int_equal(isnan(c[i * N + j]) != 0, i == 13);
                if (i != 13) assert_int_equal(isinf(c[i * N + j]) != 0, j == 5);
            }
        free(a);
        free(b);
        free(c);
    }
}

static void empty_products(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, "portable", 1);
    float c[2] = {3, NAN};
    rz_gemm(s, false, false, 1, 1, 0, 1, rz_mat_f32(NULL, 0), rz_mat_f32(NULL, 1), 2, c, 1);
    rz_gemm(s, false, false, 1, 1, 0, 1, rz_mat_f32(NULL, 0), rz_mat_f32(NULL, 1), 0, c + 1, 1);
    rz_gemm(s, false, false, 0, 1, 1, 1, rz_mat_f32(NULL, 1), rz_mat_f32(NULL, 1), 0, NULL, 1);
    assert_true(c[0] == 6 && c[1] == 0);
    compute_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_match_double),           cmocka_unit_test(large_products_match_double),
        cmocka_unit_test(openblas_matches_double),         cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(bits_do_not_depend_on_the_batch), cmocka_unit_test(half_weights_do_not_depend_on_the_batch),
        cmocka_unit_test(nan_stays_in_its_row_and_column), cmocka_unit_test(empty_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
