/* test_compute_linear.c - the ops that are linear, of every kernel set: forward against the formula in double
 * precision, what the network uses as their backward against central differences of that formula.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "compute_help.h"

#define TOL 2e-6

enum { MOST = 600 };

/* An op y = f(x, w) with its indices; the loss is the sum of g y. */
typedef struct problem {
    size_t rows, cols, out_rows, n; /* of x; of y; n: of an op's own */
    double *x, *w, *g;
    const int32_t *ids, *start, *to;
    void (*forward)(const struct problem *p, double *y);
    size_t n_out;
} problem;

static double loss(void *arg)
{
    const problem *p = arg;
    double y[MOST] = {0}, sum = 0;
    assert_true(p->n_out <= MOST);
    p->forward(p, y);
    for (size_t i = 0; i < p->n_out; i++) sum += p->g[i] * y[i];
    return sum;
}

/* The op's y, the gradient of x and, where there is one, that of w. */
static void check(const char *set, problem *p, const float *y, const float *dx, size_t n_x, const float *dw, size_t n_w)
{
    double want[MOST] = {0};
    p->forward(p, want);
    assert_near(set, y, want, p->n_out, TOL, 1);
    if (dx) assert_gradient(set, loss, p, p->x, dx, n_x);
    if (dw) assert_gradient(set, loss, p, p->w, dw, n_w);
}

static void on_every_set(void (*test)(rz_stream *s, const char *set))
{
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 2);
        test(s, *set);
        compute_close(s);
    }
}

/* ---- Biases --------------------------------------------------------------------------------- */

static void bias_forward(const problem *p, double *y)
{
    for (size_t i = 0; i < p->rows * p->cols; i++) y[i] = p->x[i] + p->w[i % p->cols];
}

static void bias_on(rz_stream *s, const char *set)
{
    for (size_t cols = 1; cols <= 33; cols += 16)
        for (size_t rows = 1; rows <= 9; rows += 4) {
            const size_t n = rows * cols;
            float *x = random_floats(n, 1), *b = random_floats(cols, 2), *dy = random_floats(n, 3);
            float *db = random_floats(cols, 4), *before = random_floats(cols, 4);
            problem p = {.rows = rows, .cols = cols, .n_out = n, .forward = bias_forward};
            p.x = to_double(x, n), p.w = to_double(b, cols), p.g = to_double(dy, n);
            rz_add_bias(s, x, b, rows, cols);
            rz_add_bias_bwd(s, db, dy, rows, cols);
            for (size_t c = 0; c < cols; c++) db[c] -= before[c];
            check(set, &p, x, dy, n, db, cols); /* dx is dy */
            free(x), free(b), free(dy), free(db), free(before), free(p.x), free(p.w), free(p.g);
        }
}

static void biases(void **state)
{
    (void)state;
    on_every_set(bias_on);
}

static void scale_forward(const problem *p, double *y)
{
    for (size_t i = 0; i < p->cols; i++) y[i] = (p->x[i] + p->w[i]) * 0.75;
}

static void sum_on(rz_stream *s, const char *set)
{
    enum { N = 67 };
    float *x = random_floats(N, 1), *w = random_floats(N, 2), *dy = random_floats(N, 3);
    problem p = {.cols = N, .n_out = N, .forward = scale_forward};
    p.x = to_double(x, N), p.w = to_double(w, N), p.g = to_double(dy, N);
    rz_add(s, x, w, N);
    rz_scale(s, x, 0.75f, N);
    rz_scale(s, dy, 0.75f, N); /* its own backward; add's is the identity, twice */
    check(set, &p, x, dy, N, dy, N);
    free(x), free(w), free(dy), free(p.x), free(p.w), free(p.g);
}

static void sums_and_scales(void **state)
{
    (void)state;
    on_every_set(sum_on);
}

/* ---- Rows by index ----------------------------------------------------------------------------- */

static void gather_forward(const problem *p, double *y)
{
    for (size_t r = 0; r < p->out_rows; r++)
        for (size_t c = 0; c < p->cols; c++) y[r * p->cols + c] = p->x[(size_t)p->ids[r] * p->cols + c];
}

/* The same row more than once. */
static void gather_on(rz_stream *s, const char *set)
{
    static const int32_t ids[] = {2, 0, 2, 4, 2};
    for (size_t cols = 1; cols <= 33; cols += 16) {
        const size_t n = 5 * cols;
        float *table = random_floats(n, 1), *dy = random_floats(n, 2), *y = zero_floats(n);
        float *d = random_floats(n, 3), *before = random_floats(n, 3);
        problem p = {.rows = 5, .cols = cols, .out_rows = 5, .ids = ids, .n_out = n, .forward = gather_forward};
        p.x = to_double(table, n), p.g = to_double(dy, n);
        rz_gather(s, y, rz_mat_f32(table, cols), ids, 5, cols);
        rz_gather_bwd(s, d, ids, dy, 5, cols);
        for (size_t i = 0; i < n; i++) d[i] -= before[i];
        check(set, &p, y, d, n, NULL, 0);
        free(table), free(dy), free(y), free(d), free(before), free(p.x), free(p.g);
    }
}

static void gathers(void **state)
{
    (void)state;
    on_every_set(gather_on);
}

/* x is what is there before, w what is added to its rows `to`. */
static void add_rows_forward(const problem *p, double *y)
{
    for (size_t i = 0; i < p->rows * p->cols; i++) y[i] = p->x[i];
    for (size_t i = 0; i < p->n; i++)
        for (size_t c = 0; c < p->cols; c++) y[(size_t)p->to[i] * p->cols + c] += p->w[(size_t)p->ids[i] * p->cols + c];
}

/* Its backward is itself with source and target changed over. */
static void add_rows_on(rz_stream *s, const char *set)
{
    static const int32_t to[] = {3, 1, 3}, from[] = {0, 2, 2};
    for (size_t cols = 1; cols <= 33; cols += 16) {
        const size_t n = 4 * cols;
        float *y = random_floats(n, 1), *w = random_floats(n, 2), *dy = random_floats(n, 3), *dw = zero_floats(n);
        problem p = {.rows = 4, .cols = cols, .n = 3, .to = to, .ids = from, .n_out = n, .forward = add_rows_forward};
        p.x = to_double(y, n), p.w = to_double(w, n), p.g = to_double(dy, n);
        rz_add_rows(s, y, cols, to, w, cols, from, 3, cols);
        rz_add_rows(s, dw, cols, from, dy, cols, to, 3, cols);
        check(set, &p, y, dy, n, dw, n);
        free(y), free(w), free(dy), free(dw), free(p.x), free(p.w), free(p.g);
    }
}

static void copy_rows_forward(const problem *p, double *y)
{
    for (size_t i = 0; i < p->n; i++)
        for (size_t c = 0; c < p->cols; c++) y[(size_t)p->to[i] * p->cols + c] = p->x[(size_t)p->ids[i] * p->cols + c];
}

/* As the network splices rows: each source once; backward is the copy back. */
static void copy_rows_on(rz_stream *s, const char *set)
{
    static const int32_t to[] = {3, 1, 0}, from[] = {0, 3, 2};
    for (size_t cols = 1; cols <= 33; cols += 16) {
        const size_t n = 4 * cols;
        float *x = random_floats(n, 1), *dy = random_floats(n, 2), *y = zero_floats(n), *dx = zero_floats(n);
        problem p = {.rows = 4, .cols = cols, .n = 3, .to = to, .ids = from, .n_out = n, .forward = copy_rows_forward};
        p.x = to_double(x, n), p.g = to_double(dy, n);
        rz_copy_rows(s, y, cols, to, x, cols, from, 3, cols);
        rz_copy_rows(s, dx, cols, from, dy, cols, to, 3, cols);
        check(set, &p, y, dx, n, NULL, 0);
        free(x), free(dy), free(y), free(dx), free(p.x), free(p.g);
    }
}

static void rows_by_index(void **state)
{
    (void)state;
    on_every_set(add_rows_on);
    on_every_set(copy_rows_on);
}

static void pool_forward(const problem *p, double *y)
{
    for (size_t g = 0; g < p->out_rows; g++)
        for (int32_t i = p->start[g]; i < p->start[g + 1]; i++)
            for (size_t c = 0; c < p->cols; c++)
                y[g * p->cols + c] += p->x[(size_t)p->ids[i] * p->cols + c] / (double)(p->start[g + 1] - p->start[g]);
}

/* A group of one, of none, a row in two groups and twice in one. */
static void pool_on(rz_stream *s, const char *set)
{
    static const int32_t rows[] = {3, 0, 1, 2, 4, 4, 1}, start[] = {0, 1, 1, 4, 7};
    for (size_t cols = 1; cols <= 33; cols += 16) {
        const size_t n = 5 * cols, n_y = 4 * cols;
        float *x = random_floats(n, 1), *dy = random_floats(n_y, 2), *y = zero_floats(n_y);
        float *dx = random_floats(n, 3), *before = random_floats(n, 3);
        problem p = {.rows = 5, .cols = cols, .out_rows = 4, .n_out = n_y, .forward = pool_forward};
        p.ids = rows, p.start = start, p.x = to_double(x, n), p.g = to_double(dy, n_y);
        rz_pool_mean(s, y, x, rows, start, 4, cols);
        rz_pool_mean_bwd(s, dx, dy, rows, start, 4, cols);
        for (size_t i = 0; i < n; i++) dx[i] -= before[i];
        check(set, &p, y, dx, n, NULL, 0);
        free(x), free(dy), free(y), free(dx), free(before), free(p.x), free(p.g);
    }
}

static void pooled_means(void **state)
{
    (void)state;
    on_every_set(pool_on);
}

/* ---- RoPE ---------------------------------------------------------------------------------------- */

/* n heads of cols / n numbers; w: the frequencies; ids: positions. */
static void rope_forward(const problem *p, double *y)
{
    const size_t hd = p->cols / p->n;
    for (size_t r = 0; r < p->rows; r++)
        for (size_t h = 0; h < p->n; h++)
            for (size_t i = 0; i < hd / 2; i++) {
                const size_t a = r * p->cols + h * hd + i, b = a + hd / 2;
                const double angle = (double)((float)p->ids[r] * (float)p->w[i]);
                y[a] = 1.25 * (p->x[a] * cos(angle) - p->x[b] * sin(angle));
                y[b] = 1.25 * (p->x[b] * cos(angle) + p->x[a] * sin(angle));
            }
}

static void rope_on(rz_stream *s, const char *set)
{
    static const int32_t pos[] = {0, 1, 7, 300};
    for (size_t hd = 2; hd <= 34; hd += 16) {
        const size_t cols = 3 * hd, n = 4 * cols;
        float *x = random_floats(n, 1), *dy = random_floats(n, 2), *freq = random_floats(hd / 2, 3);
        problem p = {.rows = 4, .cols = cols, .n = 3, .ids = pos, .n_out = n, .forward = rope_forward};
        p.x = to_double(x, n), p.w = to_double(freq, hd / 2), p.g = to_double(dy, n);
        rz_rope(s, x, cols, pos, freq, 1.25f, 4, 3, hd, false);
        rz_rope(s, dy, cols, pos, freq, 1.25f, 4, 3, hd, true);
        check(set, &p, x, dy, n, NULL, 0);
        free(x), free(dy), free(freq), free(p.x), free(p.w), free(p.g);
    }
}

static void rotations(void **state)
{
    (void)state;
    on_every_set(rope_on);
}

/* ---- Linear layers and patches ---------------------------------------------------------------------- */

/* y (rows, n) = x (rows, cols) w^T, w (n, cols). */
static void linear_forward(const problem *p, double *y)
{
    for (size_t r = 0; r < p->rows; r++)
        for (size_t o = 0; o < p->n; o++)
            for (size_t c = 0; c < p->cols; c++) y[r * p->n + o] += p->x[r * p->cols + c] * p->w[o * p->cols + c];
}

static void linear_on(rz_stream *s, const char *set)
{
    for (size_t rows = 1; rows <= 13; rows += 6)
        for (size_t out = 1; out <= 17; out += 8) {
            const size_t cols = 11, n_y = rows * out;
            float *x = random_floats(rows * cols, 1), *w = random_floats(out * cols, 2), *dy = random_floats(n_y, 3);
            float *y = zero_floats(n_y), *dx = zero_floats(rows * cols), *dw = zero_floats(out * cols);
            problem p = {.rows = rows, .cols = cols, .n = out, .n_out = n_y, .forward = linear_forward};
            p.x = to_double(x, rows * cols), p.w = to_double(w, out * cols), p.g = to_double(dy, n_y);
            const rz_mat mx = rz_mat_f32(x, cols), mw = rz_mat_f32(w, cols), mdy = rz_mat_f32(dy, out);
            rz_gemm(s, false, true, rows, out, cols, 1, mx, mw, 0, y, out);
            rz_gemm(s, false, false, rows, cols, out, 1, mdy, mw, 0, dx, cols);
            rz_gemm(s, true, false, out, cols, rows, 1, mdy, mx, 0, dw, cols);
            check(set, &p, y, dx, rows * cols, dw, out * cols);
            free(x), free(w), free(dy), free(y), free(dx), free(dw), free(p.x), free(p.w), free(p.g);
        }
}

static void linear_layers(void **state)
{
    (void)state;
    on_every_set(linear_on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(biases),        cmocka_unit_test(sums_and_scales), cmocka_unit_test(gathers),
        cmocka_unit_test(rows_by_index), cmocka_unit_test(pooled_means),    cmocka_unit_test(rotations),
        cmocka_unit_test(linear_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
