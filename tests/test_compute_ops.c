/* test_compute_ops.c - every op on rows, of every kernel set: forward against the formula in double precision,
 * backward against central differences of that formula; the same bits for any number of threads and wherever an
 * element lies. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "compute_help.h"
#include "cpu.h"

#define RZ_W 4
#include "vec.h"

/* float arithmetic over up to 100 terms, against values of size 1 */
#define TOL 2e-6

static const size_t ROWS[] = {1, 3, 7, 33}, COLS[] = {1, 2, 7, 16, 33, 100};

/* What an op's loss needs: sum over the outputs of g * f(x, ...), all in double. */
struct ctx {
    size_t rows, cols;
    double *x, *w, *b, *g;
    int kind;
    double eps;
};

/* Runs a check for every kernel set and every size of at most `most` elements: differences of a loss over all of
 * them take time that grows with the square. */
static void every_size(size_t most, void (*check)(rz_stream *s, const char *set, size_t rows, size_t cols))
{
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 2);
        for (size_t i = 0; i < RZ_COUNT(ROWS) * RZ_COUNT(COLS); i++) {
            const size_t rows = ROWS[i % RZ_COUNT(ROWS)], cols = COLS[i / RZ_COUNT(ROWS)];
            if (rows * cols <= most) check(s, *set, rows, cols);
        }
        compute_close(s);
    }
}

/* got - before, for ops that add. */
static void subtract(float *got, const float *before, size_t n)
{
    for (size_t i = 0; i < n; i++) got[i] -= before[i];
}

/* ---- Activations ------------------------------------------------------------------------ */

static const rz_act_kind KINDS[] = {RZ_ACT_QUICK_GELU, RZ_ACT_GELU, RZ_ACT_GELU_TANH, RZ_ACT_SILU, RZ_ACT_RELU};

static double act_loss(void *arg)
{
    const struct ctx *t = arg;
    double sum = 0;
    for (size_t i = 0; i < t->cols; i++) sum += t->g[i] * act_ref(t->kind, t->x[i]) * (t->w ? t->w[i] : 1);
    return sum;
}

/* Every float from -110 to 110 in small steps: relative to |x|, since y is near x or near 0. */
static void activations_match_double(void **state)
{
    (void)state;
    enum { N = 88001 };
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    for (int i = 0; i < N; i++) x[i] = (float)(i - N / 2) / 400;
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 1);
        for (size_t k = 0; k < RZ_COUNT(KINDS); k++) {
            rz_act(s, KINDS[k], y, x, N);
            for (int i = 0; i < N; i++) {
                double want = act_ref(KINDS[k], (double)x[i]), size = fmin(fabs((double)x[i]), 8 * fabs(want) + 1e-3);
                if (!(fabs((double)y[i] - want) <= 3e-7 * size + 1e-37))
                    fail_msg("%s: activation %d of %.9g is %.9g, expected %.9g", *set, (int)KINDS[k], (double)x[i],
                             (double)y[i], want);
            }
            float in[] = {NAN, 0, 1e30f, INFINITY}, out[4];
            rz_act(s, KINDS[k], out, in, 4);
            assert_true(isnan(out[0]) && out[1] == 0 && out[2] == 1e30f && out[3] == INFINITY);
        }
        compute_close(s);
    }
    free(x);
    free(y);
}

/* In units of the last place of the result, denormal results included. */
static void exponential_is_accurate(void **state)
{
    (void)state;
    for (float x = -103.9f; x < 88.72f; x += 1.0f / 1024) {
        double want = exp((double)x), ulp = ldexp(1, (int)fmax(floor(log2(want)), -126) - 23);
        float got = v_exp(v_set(x))[0];
        if (!(fabs((double)got - want) <= 1.5 * ulp))
            fail_msg("exp(%.9g) is %.9g, expected %.9g", (double)x, (double)got, want);
    }
    assert_true(v_exp(v_set(0))[1] == 1 && v_exp(v_set(-INFINITY))[1] == 0 && v_exp(v_set(88.73f))[1] == INFINITY);
    assert_true(isnan(v_exp(v_set(NAN))[3]));
}

static void check_act_bwd(rz_stream *s, const char *set, size_t rows, size_t cols)
{
    const size_t n = rows * cols;
    float *x = random_floats(n, 1), *dy = random_floats(n, 2), *up = random_floats(n, 3), *dx = zero_floats(n);
    float *dup = zero_floats(n), *y = zero_floats(n);
    for (size_t i = 0; i < n; i++) x[i] = 5 * x[i] + (fabsf(x[i]) < 1e-3f ? 0.1f : 0); /* away from relu's corner */
    struct ctx t = {.cols = n, .x = to_double(x, n), .g = to_double(dy, n)};
    for (size_t k = 0; k < RZ_COUNT(KINDS); k++) {
        t.kind = (int)KINDS[k];
        t.w = NULL;
        rz_act_bwd(s, KINDS[k], dx, dy, x, n);
        assert_gradient(set, act_loss, &t, t.x, dx, n);
        t.w = to_double(up, n);
        rz_gated(s, KINDS[k], y, x, up, n);
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += t.g[i] * (double)y[i];
        assert_true(fabs(sum - act_loss(&t)) <= TOL * (double)n * 5);
        rz_gated_bwd(s, KINDS[k], dx, dup, dy, x, up, n);
        assert_gradient(set, act_loss, &t, t.x, dx, n);
        assert_gradient(set, act_loss, &t, t.w, dup, n);
        free(t.w);
    }
    free(x), free(dy), free(up), free(dx), free(dup), free(y), free(t.x), free(t.g);
}
static void activation_gradients(void **state)
{
    (void)state;
    every_size(120, check_act_bwd);
}

/* An element's value does not depend on its place in the array: vectors and tails are the same code. */
static void activations_do_not_depend_on_position(void **state)
{
    (void)state;
    enum { N = 67 };
    float *x = random_floats(N, 1), y[N], z[N];
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 1);
        for (size_t k = 0; k < RZ_COUNT(KINDS); k++) {
            rz_act(s, KINDS[k], y, x, N);
            for (size_t i = 0; i < N; i++) rz_act(s, KINDS[k], z + i, x + i, 1);
            assert_same_bits(*set, z, y, N);
        }
        compute_close(s);
    }
    free(x);
}

/* ---- Norms ----------------------------------------------------------------------------------- */

/* y row by row in double: LayerNorm with b, RMSNorm without; loss = sum g y. */
static void norm_ref(const struct ctx *t, double *y)
{
    for (size_t r = 0; r < t->rows; r++) {
        const double *x = t->x + r * t->cols;
        double mean = 0, square = 0;
        for (size_t c = 0; t->b && c < t->cols; c++) mean += x[c] / (double)t->cols;
        for (size_t c = 0; c < t->cols; c++) square += (x[c] - mean) * (x[c] - mean) / (double)t->cols;
        for (size_t c = 0; c < t->cols; c++)
            y[r * t->cols + c] = (x[c] - mean) / sqrt(square + t->eps) * t->w[c] + (t->b ? t->b[c] : 0);
    }
}
static double norm_loss(void *arg)
{
    const struct ctx *t = arg;
    const size_t n = t->rows * t->cols;
    double sum = 0, *y = malloc(n * sizeof *y);
    norm_ref(t, y);
    for (size_t i = 0; i < n; i++) sum += t->g[i] * y[i];
    free(y);
    return sum;
}

static void check_norm(rz_stream *s, const char *set, size_t rows, size_t cols, bool layer)
{
    const size_t n = rows * cols;
    float *x = random_floats(n, 1), *w = random_floats(cols, 2), *b = random_floats(cols, 3), *dy = random_floats(n, 4);
    float *y = zero_floats(n), *stats = zero_floats(2 * rows), *dx = random_floats(n, 5), *dw = random_floats(cols, 6);
    float *db = random_floats(cols, 7), *dx0 = random_floats(n, 5), *dw0 = random_floats(cols, 6);
    float *db0 = random_floats(cols, 7);
    struct ctx t = {
        rows, cols, to_double(x, n), to_double(w, cols), layer ? to_double(b, cols) : NULL, to_double(dy, n), 0, 0.01};
    double *want = malloc(n * sizeof *want);
    norm_ref(&t, want);
    if (layer) {
        rz_layernorm(s, y, stats, x, w, b, 0.01f, rows, cols);
        rz_layernorm_bwd(s, dx, dw, db, dy, x, stats, w, rows, cols);
        rz_layernorm_bwd(s, dx0, NULL, NULL, dy, x, stats, w, rows, cols);
        subtract(db, db0, cols);
        assert_gradient(set, norm_loss, &t, t.b, db, cols);
    } else {
        rz_rmsnorm(s, y, stats, x, w, 0.01f, rows, cols);
        rz_rmsnorm_bwd(s, dx, dw, dy, x, stats, w, rows, cols);
        rz_rmsnorm_bwd(s, dx0, NULL, dy, x, stats, w, rows, cols);
    }
    assert_near(set, y, want, n, TOL, 1);
    assert_same_bits("frozen weights", dx0, dx, n);
    free(dx0);
    dx0 = random_floats(n, 5);
    subtract(dx, dx0, n);
    subtract(dw, dw0, cols);
    assert_gradient(set, norm_loss, &t, t.x, dx, n);
    assert_gradient(set, norm_loss, &t, t.w, dw, cols);
    if (layer) rz_layernorm(s, x, NULL, x, w, b, 0.01f, rows, cols); /* in place */
    if (!layer) rz_rmsnorm(s, x, NULL, x, w, 0.01f, rows, cols);
    assert_same_bits("in place", x, y, n);
    free(x), free(w), free(b), free(dy), free(y), free(stats), free(dx), free(dw), free(db), free(dx0), free(dw0);
    free(db0), free(t.x), free(t.w), free(t.b), free(t.g), free(want);
}
static void check_layernorm(rz_stream *s, const char *set, size_t rows, size_t cols)
{
    check_norm(s, set, rows, cols, true);
}
static void check_rmsnorm(rz_stream *s, const char *set, size_t rows, size_t cols)
{
    check_norm(s, set, rows, cols, false);
}
static void layernorm(void **state)
{
    (void)state;
    every_size(310, check_layernorm);
}
static void rmsnorm(void **state)
{
    (void)state;
    every_size(310, check_rmsnorm);
}

/* ---- Softmax cross-entropy ----------------------------------------------------------------------- */

/* x: logits, w: targets, b: which columns count (NULL: all), g: one weight per row. */
static double xent_row_ref(const struct ctx *t, size_t r)
{
    const double *x = t->x + r * t->cols, *y = t->w + r * t->cols, *keep = t->b ? t->b + r * t->cols : NULL;
    double sum = 0, loss = 0;
    for (size_t c = 0; c < t->cols; c++)
        if (!keep || keep[c] != 0) sum += exp(x[c]);
    for (size_t c = 0; c < t->cols; c++)
        if (y[c] != 0) loss += y[c] * (log(sum) - x[c]);
    return loss;
}
static double xent_loss(void *arg)
{
    const struct ctx *t = arg;
    double sum = 0;
    for (size_t r = 0; r < t->rows; r++) sum += 0.7 * xent_row_ref(t, r);
    return sum;
}

static void check_xent_keep(rz_stream *s, const char *set, size_t rows, size_t cols, bool some)
{
    const size_t n = rows * cols;
    float *x = random_floats(n, 1), *y = random_floats(n, 2), *keep = zero_floats(n), *loss = zero_floats(rows);
    float *dx = random_floats(n, 3);
    for (size_t r = 0; r < rows; r++) {
        float total = 0;
        for (size_t c = 0; c < cols; c++) {
            size_t i = r * cols + c;
            x[i] *= 8;
            keep[i] = !some || c == r % cols || (i * 7) % 3 ? 1 : 0;
            y[i] = keep[i] != 0 && (c == r % cols || c % 2) ? fabsf(y[i]) + 0.01f : 0;
            total += y[i];
        }
        for (size_t c = 0; c < cols; c++) y[r * cols + c] = r % 5 == 4 ? 0 : y[r * cols + c] / total;
    }
    struct ctx t = {.rows = rows, .cols = cols, .x = to_double(x, n), .w = to_double(y, n)};
    t.b = some ? to_double(keep, n) : NULL;
    double *want = malloc(rows * sizeof *want);
    for (size_t r = 0; r < rows; r++) want[r] = xent_row_ref(&t, r);
    rz_softmax_xent(s, loss, dx, x, y, some ? keep : NULL, 0.7f, rows, cols);
    assert_near(set, loss, want, rows, TOL, 1);
    assert_gradient(set, xent_loss, &t, t.x, dx, n);
    rz_softmax_xent(s, loss, NULL, x, y, some ? keep : NULL, 0.7f, rows, cols);
    assert_near(set, loss, want, rows, TOL, 1);
    rz_softmax_xent(s, loss, x, x, y, some ? keep : NULL, 0.7f, rows, cols);
    assert_same_bits("in place", x, dx, n);
    free(x), free(y), free(keep), free(loss), free(dx), free(t.x), free(t.w), free(t.b), free(want);
}
static void check_xent(rz_stream *s, const char *set, size_t rows, size_t cols)
{
    check_xent_keep(s, set, rows, cols, false);
    check_xent_keep(s, set, rows, cols, true);
}
static void softmax_xent(void **state)
{
    (void)state;
    every_size(310, check_xent);
}

static void softmax_xent_of_extreme_logits(void **state)
{
    (void)state;
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 1);
        float x[] = {1e4f, -1e4f, 0, 3, NAN, 1}, y[] = {0, 1, 0, 1, 0, 0}, loss[2], dx[6];
        rz_softmax_xent(s, loss, dx, x, y, NULL, 1, 2, 3);
        assert_true(loss[0] == 2e4f && dx[0] == 1 && dx[1] == -1 && dx[2] == 0);
        assert_true(isnan(loss[1]) && isnan(dx[3]));
        compute_close(s);
    }
}

/* ---- Unit vectors ---------------------------------------------------------------------------------- */

static double l2_loss(void *arg)
{
    const struct ctx *t = arg;
    double sum = 0;
    for (size_t r = 0; r < t->rows; r++) {
        double square = 0;
        for (size_t c = 0; c < t->cols; c++) square += t->x[r * t->cols + c] * t->x[r * t->cols + c];
        for (size_t c = 0; c < t->cols; c++)
            sum += t->g[r * t->cols + c] * t->x[r * t->cols + c] / fmax(sqrt(square), 1e-12);
    }
    return sum;
}
static void check_l2(rz_stream *s, const char *set, size_t rows, size_t cols)
{
    const size_t n = rows * cols;
    float *x = random_floats(n, 1), *dy = random_floats(n, 2), *y = zero_floats(n), *norm = zero_floats(rows);
    float *dx = zero_floats(n);
    for (size_t r = 0; r < rows; r++) x[r * cols] += x[r * cols] < 0 ? -1 : 1; /* no tiny vectors */
    struct ctx t = {.rows = rows, .cols = cols, .x = to_double(x, n), .g = to_double(dy, n)};
    rz_l2norm(s, y, norm, x, rows, cols);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += t.g[i] * (double)y[i];
    assert_true(fabs(sum - l2_loss(&t)) <= TOL * (double)n);
    rz_l2norm_bwd(s, dx, dy, y, norm, rows, cols);
    assert_gradient(set, l2_loss, &t, t.x, dx, n);
    free(x), free(dy), free(y), free(norm), free(dx), free(t.x), free(t.g);
}
static void unit_vectors(void **state)
{
    (void)state;
    every_size(310, check_l2);
    rz_stream *s = compute_open(NULL, "portable", 1);
    float x[4] = {0, 0, NAN, 1}, y[4], norm[2], dx[4] = {0}, dy[4] = {1e-12f, 0, 1, 1};
    rz_l2norm(s, y, norm, x, 2, 2);
    assert_true(y[0] == 0 && y[1] == 0 && norm[0] == 0 && isnan(y[2]) && isnan(y[3]) && isnan(norm[1]));
    rz_l2norm_bwd(s, dx, dy, y, norm, 1, 2);
    assert_true(dx[0] == 1 && dx[1] == 0);
    compute_close(s);
}

/* ---- Rows --------------------------------------------------------------------------------------------- */

static void simple_rows(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, "portable", 2);
    float y[6] = {1, 2, 3, 4, 5, 6}, b[3] = {10, 20, 30}, db[3] = {100, 0, 0};
    rz_add_bias(s, y, b, 2, 3);
    const float biased[6] = {11, 22, 33, 14, 25, 36};
    assert_memory_equal(y, biased, sizeof y);
    rz_add_bias_bwd(s, db, y, 2, 3);
    assert_true(db[0] == 125 && db[1] == 47 && db[2] == 69);
    rz_scale(s, y, 2, 6);
    rz_add(s, y, y, 3);
    float sum[2];
    rz_sum(s, sum, b, b + 1, 2);
    assert_true(sum[0] == 30 && sum[1] == 50);
    rz_sum(s, sum, b, sum, 2);
    assert_true(sum[0] == 40 && sum[1] == 70);
    assert_true(y[0] == 44 && y[2] == 132 && y[3] == 28);
    rz_fill(s, y, 7, 5);
    assert_true(y[4] == 7 && y[5] == 72);
    rz_copy(s, y, b, sizeof b);
    assert_true(y[2] == 30 && y[3] == 7);
    compute_close(s);
}

static void gathers_and_scatters(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, "portable", 2);
    const float table[] = {0, 1, -1, 10, 11, -1, 20, 21, -1}; /* 3 x 2, ld 3 */
    const uint16_t bf16[] = {0x3f80, 0xbf00}, f16[] = {0x3c00, 0xb800, 0x0001, 0x7c00};
    const int32_t ids[] = {2, 0, 2};
    float y[6], d[6] = {0};
    rz_gather(s, y, rz_mat_f32(table, 3), ids, 3, 2);
    const float want[] = {20, 21, 0, 1, 20, 21};
    assert_memory_equal(y, want, sizeof y);
    rz_gather_bwd(s, d, ids, y, 3, 2);
    const float grad[] = {0, 1, 0, 0, 40, 42};
    assert_memory_equal(d, grad, sizeof d);
    rz_gather(s, y, (rz_mat){.data = bf16, .dtype = RZ_BF16, .ld = 1}, (int32_t[]){1, 0}, 2, 1);
    assert_true(y[0] == -0.5f && y[1] == 1);
    rz_gather(s, y, (rz_mat){.data = f16, .dtype = RZ_F16, .ld = 4}, (int32_t[]){0}, 1, 4);
    assert_true(y[0] == 1 && y[1] == -0.5f && y[2] == 0x1p-24f && y[3] == INFINITY);

    float dst[9] = {0};
    rz_copy_rows(s, dst, 3, (int32_t[]){2, 0}, table, 3, NULL, 2, 2);
    const float copied[] = {10, 11, 0, 0, 0, 0, 0, 1, 0};
    assert_memory_equal(dst, copied, sizeof dst);
    rz_add_rows(s, dst, 3, (int32_t[]){0, 0}, table, 3, (int32_t[]){1, 2}, 2, 3);
    assert_true(dst[0] == 40 && dst[1] == 43 && dst[2] == -2 && dst[7] == 1);
    compute_close(s);
}

/* More rows than one block of a GPU looks at, few destinations: the same sums, in order. */
static void many_rows_go_to_few(void **state)
{
    (void)state;
    enum { N = 1300, WIDTH = 9, FEW = 37, GROUPS = 3 };
    const int32_t start[GROUPS + 1] = {0, 1100, 1100, N};
    rz_stream *s = compute_open(NULL, "portable", 2);
    float *x = random_floats(N * WIDTH, 1), got[FEW * WIDTH] = {0}, want[FEW * WIDTH] = {0}, sums[WIDTH] = {0};
    float pooled[FEW * WIDTH] = {0}, shares[FEW * WIDTH] = {0};
    double columns[WIDTH] = {0};
    int32_t ids[N];
    for (size_t i = 0; i < N; i++) {
        ids[i] = i < 1100 ? (int32_t)(i * 7 % (FEW - 1)) : FEW - 1; /* the last one's rows are all at the end */
        const size_t group = i < 1100 ? 0 : 2, n = i < 1100 ? 1100 : N - 1100;
        for (size_t c = 0; c < WIDTH; c++) {
            want[(size_t)ids[i] * WIDTH + c] += x[i * WIDTH + c];
            shares[(size_t)ids[i] * WIDTH + c] += x[group * WIDTH + c] * (1.0f / (float)n);
            columns[c] += (double)x[i * WIDTH + c];
        }
    }
    rz_gather_bwd(s, got, ids, x, N, WIDTH);
    assert_same_bits("rows", got, want, FEW * WIDTH);
    rz_pool_mean_bwd(s, pooled, x, ids, start, GROUPS, WIDTH);
    assert_same_bits("shares", pooled, shares, FEW * WIDTH);
    rz_add_bias_bwd(s, sums, x, N, WIDTH);
    assert_near("columns", sums, columns, WIDTH, 2e-6, 1);
    compute_close(s);
    free(x);
}

static void every_half_is_widened_exactly(void **state)
{
    (void)state;
    static uint16_t h[65536];
    static float y[65536];
    for (size_t i = 0; i < 65536; i++) h[i] = (uint16_t)i;
    rz_cpu_widen(y, (rz_mat){.data = h, .dtype = RZ_F16, .ld = 1}, 0, 65536);
    for (size_t i = 0; i < 65536; i++) {
        int exponent = (int)(i >> 10 & 31), mantissa = (int)(i & 0x3ff);
        double v = exponent == 31 ? (mantissa ? (double)NAN : (double)INFINITY)
                   : exponent     ? ldexp(1024 + mantissa, exponent - 25)
                                  : ldexp(mantissa, -24);
        if (i & 0x8000) v = -v;
        assert_true(isnan(v) ? isnan(y[i]) : (double)y[i] == v && !signbit(y[i]) == !signbit(v));
    }
    rz_cpu_widen(y, (rz_mat){.data = h, .dtype = RZ_BF16, .ld = 1}, 1, 65535);
    for (uint32_t i = 0; i < 65535; i++) {
        uint32_t bits = (i + 1) << 16;
        assert_memory_equal(&bits, &y[i], 4);
    }
}

static void pools_means(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, "portable", 2);
    const float x[] = {1, 2, 3, 4, 5, 6};
    const int32_t rows[] = {0, 2, 1, 1}, start[] = {0, 2, 2, 4};
    float y[6], dx[6] = {0};
    rz_pool_mean(s, y, x, rows, start, 3, 2);
    const float want[] = {3, 4, 0, 0, 3, 4};
    assert_memory_equal(y, want, sizeof y);
    rz_pool_mean_bwd(s, dx, y, rows, start, 3, 2);
    const float grad[] = {1.5f, 2, 3, 4, 1.5f, 2};
    assert_memory_equal(dx, grad, sizeof dx);
    compute_close(s);
}

static void cuts_patches(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, "portable", 2);
    enum { N = 2, C = 3, SIZE = 6, P = 3, SIDE = SIZE / P };
    float x[N * C * SIZE * SIZE], y[N * C * SIZE * SIZE];
    for (size_t i = 0; i < RZ_COUNT(x); i++) x[i] = (float)i;
    rz_patchify(s, y, x, N, C, SIZE, P);
    size_t at = 0;
    for (size_t n = 0; n < N; n++)
        for (size_t patch = 0; patch < SIDE * SIDE; patch++)
            for (size_t c = 0; c < C; c++)
                for (size_t r = 0; r < P; r++)
                    for (size_t col = 0; col < P; col++, at++) {
                        size_t row = patch / SIDE * P + r, column = patch % SIDE * P + col;
                        assert_true(y[at] == (float)(((n * C + c) * SIZE + row) * SIZE + column));
                    }
    compute_close(s);
}

static void sums_in_double(void **state)
{
    (void)state;
    enum { N = 20001 };
    rz_stream *s = compute_open(NULL, "portable", 2);
    float *x = random_floats(N, 1), *y = random_floats(N, 2);
    double square = 0, dot = 0;
    for (size_t i = 0; i < N; i++) {
        square += (double)x[i] * (double)x[i];
        dot += (double)x[i] * (double)y[i];
    }
    assert_true(fabs(rz_sumsq(s, x, N) - square) < 1e-9 && fabs(rz_dot(s, x, y, N) - dot) < 1e-9);
    assert_true(rz_sumsq(s, x, 0) == 0 && fabs(rz_dot(s, x, y, 1) - (double)x[0] * (double)y[0]) < 1e-15);
    x[17] = NAN;
    assert_true(isnan(rz_sumsq(s, x, N)));
    compute_close(s);
    free(x), free(y);
}

/* The share that is dropped, what is left of the rest, and that a mask is one of its key: rows in another order, fewer
 * columns, in place, other thread counts. */
static void dropout(void **state)
{
    (void)state;
    enum { N_KEYS = 400, WIDTH = 251 };
    const float p = 0.3f, keep = 1.0f / (1.0f - 0.3f);
    rz_stream *s = compute_open(NULL, "portable", 3), *one = compute_open(NULL, "portable", 1);
    float *x = random_floats(N_KEYS * WIDTH, 1), *y = zero_floats(N_KEYS * WIDTH), *z = zero_floats(N_KEYS * WIDTH);
    uint64_t keys[N_KEYS], back[N_KEYS];
    size_t dropped = 0, same_as_next = 0;
    for (size_t r = 0; r < N_KEYS; r++) keys[r] = back[N_KEYS - 1 - r] = 1000 + r;
    rz_dropout(s, y, x, p, 7, keys, N_KEYS, WIDTH);
    for (size_t i = 0; i < N_KEYS * WIDTH; i++) {
        if (y[i] == 0)
            dropped++;
        else
            assert_true(y[i] == x[i] * keep);
        same_as_next += i + WIDTH < N_KEYS * WIDTH && (y[i] == 0) == (y[i + WIDTH] == 0);
    }
    const double n = N_KEYS * WIDTH;
    assert_true(fabs((double)dropped / n - 0.3) < 5 * sqrt(0.3 * 0.7 / n));
    assert_true(fabs((double)same_as_next / n - (0.3 * 0.3 + 0.7 * 0.7)) < 0.01);
    for (size_t r = 0; r < N_KEYS; r++) memcpy(z + r * WIDTH, x + (N_KEYS - 1 - r) * WIDTH, WIDTH * sizeof *x);
    rz_dropout(one, z, z, p, 7, back, N_KEYS, WIDTH);
    for (size_t r = 0; r < N_KEYS; r++) assert_same_bits("row", z + r * WIDTH, y + (N_KEYS - 1 - r) * WIDTH, WIDTH);
    rz_dropout(s, z, x, p, 7, keys, 1, WIDTH - 1);
    assert_same_bits("fewer columns", z, y, WIDTH - 1);
    rz_dropout(s, z, x, p, 8, keys, N_KEYS, WIDTH);
    assert_true(memcmp(z, y, N_KEYS * WIDTH * sizeof *y) != 0);
    rz_dropout(s, z, x, 0, 7, keys, N_KEYS, WIDTH);
    assert_same_bits("p = 0", z, x, N_KEYS * WIDTH);
    compute_close(s), compute_close(one);
    free(x), free(y), free(z);
}

typedef struct dropout_job {
    rz_stream *s;
    const uint64_t *keys;
    double x[24], w[24];
} dropout_job;

static double dropout_loss(void *arg)
{
    dropout_job *j = arg;
    float x[24], y[24];
    double loss = 0;
    for (size_t i = 0; i < 24; i++) x[i] = (float)j->x[i];
    rz_dropout(j->s, y, x, 0.4f, 3, j->keys, 4, 6);
    for (size_t i = 0; i < 24; i++) loss += j->w[i] * (double)y[i];
    return loss;
}

/* The op is its own backward. The loss is linear, so wide differences are exact and float's rounding does not show. */
static void dropout_gradient(void **state)
{
    (void)state;
    const uint64_t keys[4] = {5, 6, 5, 9};
    float *w = random_floats(24, 2), dx[24];
    dropout_job j = {.s = compute_open(NULL, "portable", 1), .keys = keys};
    for (size_t i = 0; i < 24; i++) j.w[i] = (double)w[i];
    rz_dropout(j.s, dx, w, 0.4f, 3, keys, 4, 6);
    for (size_t i = 0; i < 24; i++) {
        j.x[i] = 1;
        double up = dropout_loss(&j);
        j.x[i] = -1;
        double down = dropout_loss(&j);
        j.x[i] = 0;
        assert_true(fabs((up - down) / 2 - (double)dx[i]) < 1e-6);
    }
    compute_close(j.s);
    free(w);
}

static void rounds_to_bf16(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, "portable", 2);
    const uint32_t bits[] = {0x3f800000, 0x3f808000, 0x3f818000, 0x3f808001,
                             0x7f7fffff, 0x7f800000, 0x7f800001, 0x80000000};
    const uint16_t want[] = {0x3f80, 0x3f80, 0x3f82, 0x3f81, 0x7f80, 0x7f80, 0x7fc0, 0x8000};
    float x[RZ_COUNT(bits)];
    uint16_t y[RZ_COUNT(bits)];
    memcpy(x, bits, sizeof x);
    rz_to_bf16(s, y, x, RZ_COUNT(bits));
    assert_memory_equal(y, want, sizeof y);
    compute_close(s);
}

/* Ten steps against the update rule in double precision. */
static void adamw(void **state)
{
    (void)state;
    enum { N = 37 };
    rz_stream *s = compute_open(NULL, "portable", 2);
    float *w = random_floats(N, 1), *m = zero_floats(N), *v = zero_floats(N);
    double *rw = to_double(w, N), rm[N] = {0}, rv[N] = {0};
    for (int step = 1; step <= 10; step++) {
        float *g = random_floats(N, (uint64_t)step + 10);
        rz_adamw o = {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.1f};
        o.grad_scale = 0.5f;
        o.step = step;
        rz_adamw_step(s, &o, &(rz_adamw_slot){w, m, v, g, NULL, N, true}, 1);
        for (int i = 0; i < N; i++) {
            double grad = (double)g[i] * 0.5;
            rw[i] *= 1 - 0.01 * 0.1;
            rm[i] = 0.9 * rm[i] + 0.1 * grad;
            rv[i] = 0.999 * rv[i] + 0.001 * grad * grad;
            rw[i] -= 0.01 * (rm[i] / (1 - pow(0.9, step))) / (sqrt(rv[i] / (1 - pow(0.999, step))) + 1e-8);
        }
        free(g);
    }
    assert_near("w", w, rw, N, 3e-6, 1);
    assert_near("m", m, rm, N, 1e-6, 1e-3);
    assert_near("v", v, rv, N, 3e-5, 1e-6); /* 1 - 0.999f is off by 1.3e-5 */
    compute_close(s);
    free(w), free(m), free(v), free(rw);
}

enum { N_SLOTS = 150, SLOT_FLOATS = 12000 };

/* Weights, moments and gradients of N_SLOTS arrays after a step of all at once or of each alone, and the halves of the
 * large one, in device memory; back in `floats` and `half`. */
static void step_of_many(rz_stream *s, bool at_once, float *floats, uint16_t *half)
{
    static const size_t sizes[] = {1, 0, 7, 64, 5};
    const rz_adamw o = {0.01f, 0.9f, 0.999f, 1e-8f, 0.1f, 0.5f, 2};
    const size_t n_bytes = 4 * SLOT_FLOATS * sizeof(float);
    float *x = rz_arena_bytes(s, n_bytes);
    uint16_t *h = rz_arena_bytes(s, SLOT_FLOATS * sizeof *h);
    rz_upload(s, x, floats, n_bytes);
    rz_upload(s, h, half, SLOT_FLOATS * sizeof *h);
    rz_adamw_slot slots[N_SLOTS];
    for (size_t i = 0, at = 0; i < N_SLOTS; at += slots[i].n + i % 3, i++) {
        slots[i] = (rz_adamw_slot){.w = x + at, .n = i == 66 ? 8195 : sizes[i % 5], .decay = i % 2};
        slots[i].m = slots[i].w + SLOT_FLOATS, slots[i].v = slots[i].m + SLOT_FLOATS,
        slots[i].g = slots[i].v + SLOT_FLOATS;
        if (i == 66) slots[i].half = h + 1;
    }
    for (size_t i = 0; i < N_SLOTS; i += at_once ? N_SLOTS : 1) rz_adamw_step(s, &o, slots + i, at_once ? N_SLOTS : 1);
    rz_download(s, floats, x, n_bytes);
    rz_download(s, half, h, SLOT_FLOATS * sizeof *h);
}

static void adamw_of_many(void **state)
{
    (void)state;
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 2);
        float *before = random_floats(4 * SLOT_FLOATS, 1), *all = zero_floats(4 * SLOT_FLOATS);
        float *alone = zero_floats(4 * SLOT_FLOATS);
        uint16_t half[SLOT_FLOATS] = {0}, half_alone[SLOT_FLOATS] = {0};
        for (size_t i = 0; i < 4 * SLOT_FLOATS; i++) all[i] = alone[i] = before[i] = fabsf(before[i]);
        step_of_many(s, true, all, half);
        step_of_many(s, false, alone, half_alone);
        assert_same_bits(*set, all, alone, 4 * SLOT_FLOATS);
        assert_memory_equal(half, half_alone, sizeof half);
        size_t changed = 0, n_half = 0;
        for (size_t i = 0; i < SLOT_FLOATS; i++) changed += all[i] != before[i], n_half += half[i] != 0;
        assert_true(changed > 8195 + 140 * 15 && changed < SLOT_FLOATS && n_half == 8195 && half[0] == 0);
        compute_close(s);
        free(before), free(all), free(alone);
    }
}

/* ---- Threads ---------------------------------------------------------------------------------------------- */

enum { BIG_ROWS = 1500, BIG_COLS = 200, BIG = BIG_ROWS * BIG_COLS, RESULTS = 9 };

/* Results of the ops that sum or split, on enough data to be split, one after another in `out`. */
static void run_all(const char *set, int threads, float *out)
{
    rz_stream *s = compute_open(NULL, set, threads);
    float *x = random_floats(BIG, 1), *dy = random_floats(BIG, 2), *w = random_floats(BIG_COLS, 3);
    float *stats = zero_floats(2 * BIG_ROWS), *dx = zero_floats(BIG), *dw = zero_floats(2 * BIG_COLS);
    int32_t *ids = malloc(BIG_ROWS * sizeof *ids);
    for (int i = 0; i < BIG_ROWS; i++) ids[i] = i * 7 % 100; /* collide */
    rz_layernorm(s, out, stats, x, w, w, 1e-5f, BIG_ROWS, BIG_COLS);
    rz_layernorm_bwd(s, dx, dw, dw + BIG_COLS, dy, x, stats, w, BIG_ROWS, BIG_COLS);
    rz_rmsnorm(s, out + BIG, stats, x, w, 1e-5f, BIG_ROWS, BIG_COLS);
    rz_rmsnorm_bwd(s, dx, dw, dy, x, stats, w, BIG_ROWS, BIG_COLS);
    rz_add_bias_bwd(s, dw, dy, BIG_ROWS, BIG_COLS);
    memcpy(out + 2 * BIG, dx, BIG * sizeof *dx);
    memcpy(out + 3 * BIG, dw, 2 * BIG_COLS * sizeof *dw);
    rz_act_bwd(s, RZ_ACT_GELU, out + 4 * BIG, dy, x, BIG);
    rz_gather_bwd(s, out + 5 * BIG, ids, dy, BIG_ROWS, BIG_COLS);
    rz_pool_mean_bwd(s, out + 6 * BIG, dy, ids, (int32_t[]){0, 1000, BIG_ROWS}, 2, BIG_COLS);
    rz_softmax_xent(s, stats, out + 7 * BIG, x, dy, NULL, 1, BIG_ROWS, BIG_COLS);
    double sum = rz_sumsq(s, x, BIG);
    memcpy(out + 8 * BIG, &sum, sizeof sum);
    compute_close(s);
    free(x), free(dy), free(w), free(stats), free(dx), free(dw), free(ids);
}

static void bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    for (const char *const *set = compute_sets(); *set; set++) {
        float *want = zero_floats(RESULTS * BIG);
        run_all(*set, 1, want);
        for (int threads = 2; threads <= 8; threads += threads < 3 ? 1 : 5) {
            float *got = zero_floats(RESULTS * BIG);
            run_all(*set, threads, got);
            assert_same_bits(*set, got, want, RESULTS * BIG);
            free(got);
        }
        free(want);
    }
}

/* ---- Resize ---- */

enum { TAPS = 24, OUTPUTS = 9, SAMPLES = 64, LINES = RZ_RESAMPLE_LINES };

/* The formula, sample by sample, of weights that are whole again. */
static int resampled(const rz_resample *r, const int16_t *x, size_t o, size_t l)
{
    int64_t sum = (int64_t)r->pad[l] * r->total[o] + (1 << (RZ_RESAMPLE_BITS - 1));
    for (size_t t = 0; t < TAPS; t++) {
        const size_t i = r->start[o] + t, at = o * TAPS + t;
        sum += x[(i / 2 * LINES + l) * 2 + i % 2] * ((int64_t)r->high[at] * (1 << RZ_RESAMPLE_SPLIT) + r->low[at]);
    }
    sum >>= RZ_RESAMPLE_BITS;
    return sum < 0 ? 0 : sum > 255 ? 255 : (int)sum;
}

/* Edges that overshoot on both sides, different padding in every line. */
static void resample_is_exact(void **state)
{
    (void)state;
    int16_t x[SAMPLES * LINES], high[OUTPUTS * TAPS], low[OUTPUTS * TAPS];
    size_t start[OUTPUTS];
    int32_t total[OUTPUTS] = {0};
    rz_resample r = {TAPS, start, high, low, total, {0}};
    uint16_t out[OUTPUTS][LINES];
    for (int l = 0; l < LINES; l++) r.pad[l] = 17 * l;
    for (size_t i = 0; i < RZ_COUNT(x); i++) x[i] = (int16_t)((i / 7 * 37 % 2 ? 255 : 0) - r.pad[i / 2 % LINES]);
    for (size_t i = 0; i < RZ_COUNT(high); i++) {
        high[i] = (int16_t)((int)(i * 131 % 401) - 200), low[i] = (int16_t)((int)(i * 977 % 2048) - 1024);
        total[i / TAPS] += high[i] * (1 << RZ_RESAMPLE_SPLIT) + low[i];
    }
    for (size_t o = 0; o < OUTPUTS; o++) start[o] = 4 * o;
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 1);
        const bool host = rz_device_is_host(s->dev);
        if (host) s->dev->kernels->resample(&r, x, 0, OUTPUTS, out[0], LINES);
        compute_close(s);
        if (!host) continue;
        for (size_t o = 0; o < OUTPUTS; o++)
            for (size_t l = 0; l < LINES; l++) assert_int_equal(out[o][l], resampled(&r, x, o, l));
    }
    memset(out, 0, sizeof out);
    rz_resample_lines(&r, x, 2, 4, out[0], LINES);
    for (size_t l = 0; l < LINES; l++) assert_int_equal(out[1][l], resampled(&r, x, 3, l));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_match_double),
        cmocka_unit_test(exponential_is_accurate),
        cmocka_unit_test(activation_gradients),
        cmocka_unit_test(activations_do_not_depend_on_position),
        cmocka_unit_test(layernorm),
        cmocka_unit_test(rmsnorm),
        cmocka_unit_test(softmax_xent),
        cmocka_unit_test(softmax_xent_of_extreme_logits),
        cmocka_unit_test(unit_vectors),
        cmocka_unit_test(simple_rows),
        cmocka_unit_test(gathers_and_scatters),
        cmocka_unit_test(many_rows_go_to_few),
        cmocka_unit_test(every_half_is_widened_exactly),
        cmocka_unit_test(pools_means),
        cmocka_unit_test(cuts_patches),
        cmocka_unit_test(sums_in_double),
        cmocka_unit_test(dropout),
        cmocka_unit_test(dropout_gradient),
        cmocka_unit_test(rounds_to_bf16),
        cmocka_unit_test(adamw),
        cmocka_unit_test(adamw_of_many),
        cmocka_unit_test(resample_is_exact),
        cmocka_unit_test(bits_do_not_depend_on_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
