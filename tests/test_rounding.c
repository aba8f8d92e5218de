/* test_rounding.c - matrices in four bits for the rows that they meet: beside GPTQ as its paper writes it, in double
 * with the inverse; beside plain rounding; the same bits for any number of threads. SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "formats.h"
#include "rounding.h"

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

/* Rows x that lie close to a space of a few dimensions, as those of a network do; column 3 is always zero. */
static void fill(float *x, size_t rows, size_t n, float *w, size_t out, uint64_t seed)
{
    enum { DIMS = 6 };
    rz_rng r;
    rz_rng_seed(&r, seed, 0);
    float *basis = malloc(DIMS * n * sizeof *basis);
    for (size_t i = 0; i < DIMS * n; i++) basis[i] = (float)rz_rng_normal(&r);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < n; j++) x[i * n + j] = .3f * (float)rz_rng_normal(&r);
    for (size_t i = 0; i < rows; i++)
        for (size_t d = 0; d < DIMS; d++) {
            const float a = (float)rz_rng_normal(&r);
            for (size_t j = 0; j < n; j++) x[i * n + j] += a * basis[d * n + j];
        }
    for (size_t i = 0; i < rows; i++) x[i * n + 3] = 0;
    for (size_t i = 0; i < out * n; i++) w[i] = .02f * (float)rz_rng_normal(&r);
    free(basis);
}

typedef struct integers {
    uint8_t *codes;
    uint16_t *scale;
    size_t rows, n, group, groups;
} integers;

static integers new_integers(size_t rows, size_t n, size_t group)
{
    const size_t groups = (n + group - 1) / group;
    return (integers){calloc(rows, n / 2), calloc(rows * groups, sizeof(uint16_t)), rows, n, group, groups};
}

static void free_integers(integers *q)
{
    free(q->codes);
    free(q->scale);
}

static int code(const integers *q, size_t row, size_t col)
{
    return (q->codes[(row * q->n + col) / 2] >> (col % 2 ? 4 : 0) & 15) - 8;
}

static double value(const integers *q, size_t row, size_t col)
{
    return code(q, row, col) * (double)rz_bf16_to_f32(q->scale[row * q->groups + col / q->group]);
}

static radz_status round_for(const char *kernels, int threads, const float *x, size_t rows, const float *w, size_t out,
                             size_t n, integers *q)
{
    rz_device *dev;
    rz_stream *s;
    const rz_device_options o = {.device = "cpu", .kernels = kernels, .n_threads = threads};
    float *r = malloc(n * n * sizeof *r), *left = malloc(out * n * sizeof *left);
    memcpy(left, w, out * n * sizeof *left);
    ok(rz_device_open(NULL, &o, &dev, &err));
    ok(rz_stream_open(dev, &s, &err));
    rz_rounding_factor(s, r, x, rows, n);
    rz_rounding_apply(s, left, r, out, n, q->group, q->codes, q->scale);
    const radz_status status = rz_stream_sync(s, &err);
    for (size_t i = 0; i < out * n && !status; i++)
        if (fabs((double)w[i] - left[i] - value(q, i / n, i % n)) > 1e-5) fail_msg("w is not what is left of it");
    rz_stream_close(s);
    rz_device_close(dev);
    free(r), free(left);
    return status;
}

/* ---- The paper's way ------------------------------------------------------------------------------------ */

/* a (n, n), symmetric and positive, becomes its inverse: Gauss-Jordan. */
static void invert(double *a, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        const double pivot = 1 / a[k * n + k];
        a[k * n + k] = 1;
        for (size_t j = 0; j < n; j++) a[k * n + j] *= pivot;
        for (size_t i = 0; i < n; i++) {
            const double f = a[i * n + k];
            if (i == k) continue;
            a[i * n + k] = 0;
            for (size_t j = 0; j < n; j++) a[i * n + j] -= f * a[k * n + j];
        }
    }
}

static double *damped_moments(const float *x, size_t rows, size_t n)
{
    double *h = calloc(n * n, sizeof *h), trace = 0;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) h[i * n + j] += (double)x[r * n + i] * x[r * n + j];
    for (size_t i = 0; i < n; i++) trace += h[i * n + i];
    for (size_t i = 0; i < n; i++) h[i * n + i] += .01 * trace / (double)n;
    return h;
}

/* Column 0 is rounded, all others take what makes up for it, and column 0 leaves the problem: the inverse of the rest
 * follows from that of the whole. Optimal Brain Quantization in a fixed order. */
static void reference(const float *x, size_t rows, const float *w, size_t out, size_t n, integers *q)
{
    double *inverse = damped_moments(x, rows, n), *left = malloc(out * n * sizeof *left);
    invert(inverse, n);
    for (size_t i = 0; i < out * n; i++) left[i] = w[i];
    for (size_t c = 0; c < n; c++) {
        const double pivot = inverse[c * n + c];
        for (size_t i = 0; i < out; i++) {
            double *row = left + i * n;
            uint16_t *scale = q->scale + i * q->groups + c / q->group;
            if (c % q->group == 0) {
                float group[128];
                const size_t size = n - c < q->group ? n - c : q->group;
                for (size_t j = 0; j < size; j++) group[j] = (float)row[c + j];
                *scale = rz_f32_to_bf16(rz_quantise_scale4(group, size));
            }
            const int v = rz_quantise_nibble((float)row[c], rz_bf16_to_f32(*scale));
            const double error = (row[c] - v * (double)rz_bf16_to_f32(*scale)) / pivot;
            for (size_t j = c; j < n; j++) row[j] -= error * inverse[c * n + j];
            q->codes[(i * n + c) / 2] |= (uint8_t)((v + 8) << (c % 2 ? 4 : 0));
        }
        for (size_t i = c + 1; i < n; i++) {
            const double f = inverse[i * n + c] / pivot;
            for (size_t j = c; j < n; j++) inverse[i * n + j] -= f * inverse[c * n + j];
        }
    }
    free(inverse), free(left);
}

/* What the integers change in the products with the rows: the sum of squares. */
static double harm(const integers *q, const float *w, const float *x, size_t rows)
{
    double sum = 0;
    for (size_t i = 0; i < q->rows; i++)
        for (size_t r = 0; r < rows; r++) {
            double y = 0;
            for (size_t j = 0; j < q->n; j++) y += (w[i * q->n + j] - value(q, i, j)) * x[r * q->n + j];
            sum += y * y;
        }
    return sum;
}

static const struct {
    size_t rows, n, out, group;
} shapes[] = {{400, 64, 40, 32}, {300, 128, 33, 128}, {700, 300, 17, 128}, {500, 290, 20, 64},
              {90, 200, 20, 32}, {5, 130, 9, 128},    {40, 8, 3, 128}};

static void as_the_paper(void **state)
{
    (void)state;
    for (size_t k = 0; k < RZ_COUNT(shapes); k++) {
        const size_t rows = shapes[k].rows, n = shapes[k].n, out = shapes[k].out;
        float *x = malloc(rows * n * sizeof *x), *w = malloc(out * n * sizeof *w);
        integers a = new_integers(out, n, shapes[k].group), b = new_integers(out, n, shapes[k].group);
        size_t same = 0;
        fill(x, rows, n, w, out, 7 + k);
        ok(round_for("auto", 2, x, rows, w, out, n, &a));
        reference(x, rows, w, out, n, &b);
        for (size_t i = 0; i < out * n; i++) same += code(&a, i / n, i % n) == code(&b, i / n, i % n);
        /* a number halfway between two goes either way, and all behind it follow */
        if (same < out * n * 19 / 20) fail_msg("shape %zu: %zu of %zu integers are the paper's", k, same, out * n);
        const double mine = harm(&a, w, x, rows), theirs = harm(&b, w, x, rows);
        if (!(fabs(mine - theirs) <= .03 * theirs)) fail_msg("shape %zu: harm %g, the paper's %g", k, mine, theirs);
        free(x), free(w), free_integers(&a), free_integers(&b);
    }
}

static void round_plainly(const float *w, integers *q)
{
    for (size_t i = 0; i < q->rows; i++)
        rz_quantise_row(w + i * q->n, q->n, 4, q->group, q->codes + i * q->n / 2, q->scale + i * q->groups);
}

/* A third of plain rounding's harm at most; with rows that say nothing, plain rounding itself. */
static void beside_plain_rounding(void **state)
{
    (void)state;
    for (size_t k = 0; k < RZ_COUNT(shapes); k++) {
        const size_t rows = shapes[k].rows, n = shapes[k].n, out = shapes[k].out;
        float *x = malloc(rows * n * sizeof *x), *w = malloc(out * n * sizeof *w);
        integers a = new_integers(out, n, shapes[k].group), b = new_integers(out, n, shapes[k].group);
        fill(x, rows, n, w, out, 100 + k);
        ok(round_for("auto", 1, x, rows, w, out, n, &a));
        round_plainly(w, &b);
        const double mine = harm(&a, w, x, rows), plain = harm(&b, w, x, rows);
        if (!(mine < plain * (n < 32 ? 1 : .34))) fail_msg("shape %zu: harm %g, plain %g", k, mine, plain);
        memset(x, 0, rows * n * sizeof *x);
        ok(round_for("auto", 1, x, rows, w, out, n, &a));
        assert_memory_equal(a.codes, b.codes, out * n / 2);
        assert_memory_equal(a.scale, b.scale, out * a.groups * sizeof *a.scale);
        free(x), free(w), free_integers(&a), free_integers(&b);
    }
}

static void same_bits_for_any_threads(void **state)
{
    (void)state;
    enum { ROWS = 600, N = 520, OUT = 130 };
    float *x = malloc(sizeof(float[ROWS * N])), *w = malloc(sizeof(float[OUT * N]));
    fill(x, ROWS, N, w, OUT, 1);
    const char *kernels;
    for (size_t k = 0; (kernels = rz_kernels_available(k)); k++) {
        integers one = new_integers(OUT, N, 128);
        ok(round_for(kernels, 1, x, ROWS, w, OUT, N, &one));
        for (int threads = 2; threads <= 5; threads += 3) {
            integers q = new_integers(OUT, N, 128);
            ok(round_for(kernels, threads, x, ROWS, w, OUT, N, &q));
            assert_memory_equal(q.codes, one.codes, OUT * N / 2);
            assert_memory_equal(q.scale, one.scale, OUT * q.groups * sizeof *q.scale);
            free_integers(&q);
        }
        free_integers(&one);
    }
    free(x), free(w);
}

/* One direction that outshines all others by far more than floats can hold beside it. */
static void nearly_singular(void **state)
{
    (void)state;
    enum { ROWS = 50, N = 384, OUT = 12 };
    static float x[ROWS * N], w[OUT * N];
    integers a = new_integers(OUT, N, 128), b = new_integers(OUT, N, 128);
    fill(x, ROWS, N, w, OUT, 2);
    for (size_t i = 0; i < ROWS * N; i++) x[i] = 1000 + 1e-3f * x[i];
    ok(round_for("auto", 2, x, ROWS, w, OUT, N, &a));
    round_plainly(w, &b);
    assert_true(harm(&a, w, x, ROWS) < .05 * harm(&b, w, x, ROWS));
    free_integers(&a), free_integers(&b);
}

static void numbers_that_are_not_finite(void **state)
{
    (void)state;
    enum { ROWS = 8, N = 40, OUT = 4 };
    static float x[ROWS * N], w[OUT * N];
    const float bad[] = {NAN, INFINITY, 1e30f};
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        integers q = new_integers(OUT, N, 32);
        fill(x, ROWS, N, w, OUT, 3);
        x[5 * N + 6] = bad[i];
        assert_int_equal(round_for("auto", 2, x, ROWS, w, OUT, N, &q), RADZ_E_FORMAT);
        assert_non_null(strstr(err.message, "not finite"));
        free_integers(&q);
    }
    assert_int_equal(rz_quantise_nibble(NAN, 1), 0);
    assert_int_equal(rz_quantise_nibble(INFINITY, 1), 7);
    assert_int_equal(rz_quantise_nibble(-1e30f, 1), -8);
    assert_int_equal(rz_quantise_nibble(5, 0), 0);
    assert_int_equal(rz_quantise_nibble(-2.6f, -.5f), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_the_paper),
        cmocka_unit_test(beside_plain_rounding),
        cmocka_unit_test(same_bits_for_any_threads),
        cmocka_unit_test(nearly_singular),
        cmocka_unit_test(numbers_that_are_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
