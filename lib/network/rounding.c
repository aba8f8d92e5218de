/* rounding.c - a matrix in four bits for the rows that it is multiplied with.
 *
 * What rounding leaves of a row w of the matrix, d = w - q, changes its products with the rows x by the squares
 * d (x^T x) d^T = |d R|^2, where R R^T = x^T x and R is upper: the sum over columns j of (sum over i <= j of d_i
 * R_ij)^2. Each of these has one d_j more than the one before, so that columns are rounded in order, each as near as it
 * can to what makes its square zero. That is GPTQ without an inverse: there, columns behind are corrected ahead of
 * time. SPDX-License-Identifier: Apache-2.0 */
#include "rounding.h"

#include "formats.h"

#define DAMPING .01 /* of the mean diagonal, added to it */

enum { BLOCK = RZ_GROUP_MAX, TASK_ROWS = 16 };

static void run(rz_stream *s, size_t n_tasks, void (*fn)(void *arg, size_t i), void *arg)
{
    if (!rz_stream_failed(s)) rz_pool_run(rz_device_pool(rz_stream_device(s)), n_tasks, fn, arg);
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- Factor ------------------------------------------------------------------------------------------ */

typedef struct factor {
    float *r;
    size_t n;
    double least; /* no pivot of x^T x + damping is smaller, but for rounding */
    /* the block in work: columns [at, at + size) */
    size_t at, size;
    float turned[BLOCK * BLOCK], inverse[BLOCK]; /* its triangle transposed, and 1 / its diagonal */
} factor;

/* The sum of the products of two rows of the block, from column k on. */
static double dot(const float *a, const float *b, size_t k, size_t n)
{
    double sum = 0;
    for (; k < n; k++) sum += (double)a[k] * b[k];
    return sum;
}

/* The triangle on the diagonal, its columns from the last to the first. */
static void factor_triangle(factor *f)
{
    float *r = f->r + f->at * f->n + f->at;
    for (size_t j = f->size; j-- > 0;) {
        const float *row = r + j * f->n;
        const double square = row[j] - dot(row, row, j + 1, f->size),
                     pivot = sqrt(square > f->least ? square : f->least);
        for (size_t i = 0; i < j; i++) {
            float *to = r + i * f->n;
            to[j] = (float)((to[j] - dot(to, row, j + 1, f->size)) / pivot);
        }
        r[j * f->n + j] = (float)pivot;
        f->inverse[j] = (float)(1 / pivot);
    }
    for (size_t i = 0; i < f->size; i++)
        for (size_t j = i; j < f->size; j++) f->turned[j * BLOCK + i] = r[i * f->n + j];
}

/* Some rows above the triangle T: what is there becomes that times T^-T. */
static void factor_above(void *arg, size_t task)
{
    const factor *f = arg;
    const size_t first = task * TASK_ROWS, n = min_size(TASK_ROWS, f->at - first);
    for (size_t i = first; i < first + n; i++) {
        float *row = f->r + i * f->n + f->at;
        for (size_t j = f->size; j-- > 0;) {
            const float *column = f->turned + j * BLOCK, x = row[j] *= f->inverse[j];
            for (size_t k = 0; k < j; k++) row[k] -= x * column[k];
        }
    }
}

/* What is added to the diagonal; 0: it is not finite. */
static double damp(rz_stream *s, float *r, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += r[i * n + i];
    const double more = sum > 0 ? DAMPING * sum / (double)n : 1;
    if (!isfinite(sum)) {
        rz_stream_fail(s, RADZ_E_FORMAT, "the films give numbers that are not finite: the weights are damaged");
        return 0;
    }
    for (size_t i = 0; i < n; i++) r[i * n + i] += (float)more;
    return more;
}

void rz_rounding_factor(rz_stream *s, float *r, const float *x, size_t rows, size_t n)
{
    const rz_mark mark = rz_arena_mark(s);
    factor *f = rz_arena_host(s, 1, sizeof *f);
    rz_gemm(s, true, false, n, n, rows, 1, rz_mat_f32(x, n), rz_mat_f32(x, n), 0, r, n);
    if (f && !rz_stream_failed(s)) *f = (factor){.r = r, .n = n, .least = damp(s, r, n)};
    for (size_t end = n; end > 0 && !rz_stream_failed(s); end = f->at) {
        f->size = (end - 1) % BLOCK + 1, f->at = end - f->size;
        float *block = r + f->at;
        rz_gemm(s, false, true, end, f->size, n - end, -1, rz_mat_f32(r + end, n), rz_mat_f32(r + f->at * n + end, n),
                1, block, n);
        factor_triangle(f);
        run(s, (f->at + TASK_ROWS - 1) / TASK_ROWS, factor_above, f);
    }
    rz_arena_release(s, mark);
}

/* ---- Rounding ------------------------------------------------------------------------------------------ */

typedef struct rounding {
    float *w;
    const float *r;
    size_t rows, n, group;
    uint8_t *codes;
    uint16_t *scale;
    /* the block in work: columns [at, at + size), and what those before have made of its sums (rows, size) */
    size_t at, size;
    float *sums;
} rounding;

/* y += a x */
static void add(float *y, float a, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] += a * x[i];
}

/* A group's scale: of what its columns would be if none of them were rounded. sums is of the group. */
static float find_scale(const rounding *o, const float *w, const float *sums, size_t at, size_t n)
{
    float wanted[BLOCK], left[BLOCK];
    memcpy(left, sums, n * sizeof *left);
    for (size_t j = 0; j < n; j++) {
        const float *r = o->r + (at + j) * o->n + at + j, d = -left[j] / *r;
        wanted[j] = w[j] - d;
        add(left + j + 1, d, r + 1, n - j - 1);
    }
    return rz_quantise_scale4(wanted, n);
}

/* One row of a group: w becomes what is left of it; sums of the columns behind, too, up to the block's end. */
static void round_group(const rounding *o, float *w, float *sums, size_t at, size_t n, float scale, uint8_t *codes)
{
    for (size_t j = 0; j < n; j++) {
        const float *r = o->r + (at + j) * o->n + at + j;
        const int q = rz_quantise_nibble(w[j] + sums[j] / *r, scale);
        w[j] -= (float)q * scale;
        add(sums + j + 1, w[j], r + 1, o->at + o->size - at - j - 1);
        codes[j / 2] = (uint8_t)(j % 2 ? codes[j / 2] | (q + 8) << 4 : q + 8);
    }
}

static void round_rows(void *arg, size_t task)
{
    const rounding *o = arg;
    const size_t first = task * TASK_ROWS, n = min_size(TASK_ROWS, o->rows - first);
    const size_t groups = (o->n + o->group - 1) / o->group, end = o->at + o->size;
    for (size_t i = first; i < first + n; i++)
        for (size_t g = o->at; g < end; g += o->group) {
            const size_t size = min_size(o->group, end - g);
            float *w = o->w + i * o->n + g, *sums = o->sums + i * o->size + g - o->at;
            const uint16_t half = rz_f32_to_bf16(find_scale(o, w, sums, g, size));
            o->scale[i * groups + g / o->group] = half;
            round_group(o, w, sums, g, size, rz_bf16_to_f32(half), o->codes + (i * o->n + g) / 2);
        }
}

void rz_rounding_apply(rz_stream *s, float *w, const float *r, size_t rows, size_t n, size_t group, uint8_t *codes,
                       uint16_t *scale)
{
    const rz_mark mark = rz_arena_mark(s);
    rounding o = {.w = w, .r = r, .rows = rows, .n = n, .group = group, .codes = codes, .scale = scale};
    o.sums = rz_arena_f32(s, rows, min_size(n, BLOCK));
    for (; o.at < n && !rz_stream_failed(s); o.at += o.size) {
        o.size = min_size(BLOCK, n - o.at);
        rz_gemm(s, false, false, rows, o.size, o.at, 1, rz_mat_f32(w, n), rz_mat_f32(r + o.at, n), 0, o.sums, o.size);
        run(s, (rows + TASK_ROWS - 1) / TASK_ROWS, round_rows, &o);
    }
    rz_arena_release(s, mark);
}
