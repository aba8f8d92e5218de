/* cpu_rows.c - ops that move, add and pool rows; plain C, the same for every kernel set. Rows that may collide
 * (scatter, column sums) are split by columns, so that each sum has one order for any number of threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"

/* Arguments of one op, for the functions that work on a part of it. */
struct job {
    float *y;
    const float *x;
    const int32_t *y_rows, *x_rows, *start;
    size_t y_ld, x_ld, n, cols;
    float a;
    rz_mat table;
    float *norm;
    const float *dy, *len;
    uint16_t *halves;
    uint64_t seed;
    const uint64_t *keys;
};

/* ---- Flat arrays --------------------------------------------------------------------- */

static void fill_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    float *y = j->y;
    for (size_t i = begin; i < end; i++) y[i] = j->a;
}
static void cpu_fill(rz_stream *s, float *y, float value, size_t n)
{
    rz_cpu_split(s, n, 1, fill_part, &(struct job){.y = y, .a = value});
}

static void sum_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    float *y = j->y;
    const float *a = j->x, *b = j->dy;
    for (size_t i = begin; i < end; i++) y[i] = a[i] + b[i];
}
static void cpu_sum(rz_stream *s, float *y, const float *a, const float *b, size_t n)
{
    rz_cpu_split(s, n, 1, sum_part, &(struct job){.y = y, .x = a, .dy = b});
}

static void scale_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    float *y = j->y;
    for (size_t i = begin; i < end; i++) y[i] *= j->a;
}
static void cpu_scale(rz_stream *s, float *y, float a, size_t n)
{
    rz_cpu_split(s, n, 1, scale_part, &(struct job){.y = y, .a = a});
}

void rz_cpu_round_bf16(uint16_t *restrict y, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
        y[i] = (uint16_t)((nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    }
}
static void to_bf16_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    rz_cpu_round_bf16(j->halves + begin, j->x + begin, end - begin);
}
static void cpu_to_bf16(rz_stream *s, uint16_t *y, const float *x, size_t n)
{
    rz_cpu_split(s, n, 1, to_bf16_part, &(struct job){.halves = y, .x = x});
}

/* ---- Dropout --------------------------------------------------------------------------- */

static uint64_t mix64(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* One number of a counter-based generator decides on two columns. */
static void dropout_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);
    const uint32_t drop_below = (uint32_t)((double)j->a * 4294967296.0);
    const float keep = 1.0f / (1.0f - j->a);
    for (size_t r = begin; r < end; r++) {
        const float *x = j->x + r * j->cols;
        float *y = j->y + r * j->cols;
        uint64_t row = mix64(j->seed + step) ^ mix64(j->keys[r] + 2 * step);
        for (size_t c = 0; c < j->cols; c += 2) {
            uint64_t h = mix64(row + (c + 1) * step);
            y[c] = (uint32_t)h < drop_below ? 0 : x[c] * keep;
            if (c + 1 < j->cols) y[c + 1] = (uint32_t)(h >> 32) < drop_below ? 0 : x[c + 1] * keep;
        }
    }
}
static void cpu_dropout(rz_stream *s, float *y, const float *x, float p, uint64_t seed, const uint64_t *keys,
                        size_t rows, size_t cols)
{
    rz_cpu_split(s, rows, 4 * cols, dropout_part,
                 &(struct job){.y = y, .x = x, .a = p, .seed = seed, .keys = keys, .cols = cols});
}

/* ---- Bias ------------------------------------------------------------------------------ */

static void add_bias_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    for (size_t r = begin; r < end; r++) {
        float *y = j->y + r * j->cols;
        for (size_t c = 0; c < j->cols; c++) y[c] += j->x[c];
    }
}
static void cpu_add_bias(rz_stream *s, float *y, const float *b, size_t rows, size_t cols)
{
    rz_cpu_split(s, rows, cols, add_bias_part, &(struct job){.y = y, .x = b, .cols = cols});
}

enum { SUM_COLS = 32, SUM_ROWS = 64 };

/* Column sums: SUM_ROWS rows in float, those in double. */
static void add_bias_bwd_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    for (size_t c0 = begin * SUM_COLS; c0 < end * SUM_COLS && c0 < j->cols; c0 += SUM_COLS) {
        size_t n = j->cols - c0 < SUM_COLS ? j->cols - c0 : SUM_COLS;
        double total[SUM_COLS] = {0};
        for (size_t r = 0; r < j->n;) {
            float sum[SUM_COLS] = {0};
            for (size_t last = r + SUM_ROWS; r < last && r < j->n; r++)
                for (size_t c = 0; c < n; c++) sum[c] += j->x[r * j->cols + c0 + c];
            for (size_t c = 0; c < n; c++) total[c] += (double)sum[c];
        }
        for (size_t c = 0; c < n; c++) j->y[c0 + c] += (float)total[c];
    }
}
static void cpu_add_bias_bwd(rz_stream *s, float *db, const float *dy, size_t rows, size_t cols)
{
    rz_cpu_split(s, (cols + SUM_COLS - 1) / SUM_COLS, rows * SUM_COLS, add_bias_bwd_part,
                 &(struct job){.y = db, .x = dy, .n = rows, .cols = cols});
}

/* ---- Rows by index ------------------------------------------------------------------------ */

static inline size_t row_at(const int32_t *rows, size_t i)
{
    return rows ? (size_t)rows[i] : i;
}

static float half_to_float(uint16_t h)
{
    uint32_t bits = (uint32_t)(h & 0x7fff) << 13;
    float f;
    memcpy(&f, &bits, 4);
    f *= 0x1p112f; /* moves the exponent, denormals too */
    memcpy(&bits, &f, 4);
    if ((h & 0x7c00) == 0x7c00) bits |= 0x7f800000;
    bits |= (uint32_t)(h & 0x8000) << 16;
    memcpy(&f, &bits, 4);
    return f;
}

static float scale_at(rz_mat x, size_t i)
{
    float f;
    if (x.scale_dtype == RZ_F32)
        memcpy(&f, (const char *)x.scale + 4 * i, sizeof f);
    else
        rz_cpu_widen(&f, (rz_mat){.data = x.scale, .dtype = x.scale_dtype, .ld = 1}, i, 1);
    return f;
}

/* Within one row. */
static void widen_integers(float *restrict y, rz_mat x, size_t offset, size_t n)
{
    const size_t col = offset % x.ld, start = offset - col, first = offset / x.ld * rz_mat_groups(x);
    const int8_t *q8 = x.data;
    const uint8_t *q4 = x.data;
    for (size_t c = col, end; c < col + n; c = end) {
        const float scale = scale_at(x, first + c / x.group);
        end = (c / x.group + 1) * x.group;
        if (end > col + n) end = col + n;
        if (x.dtype == RZ_I8)
            for (size_t i = c; i < end; i++) y[i - col] = (float)q8[start + i] * scale;
        else
            for (size_t i = c; i < end; i++)
                y[i - col] = (float)((q4[(start + i) / 2] >> (i & 1 ? 4 : 0) & 15) - 8) * scale;
    }
}

void rz_cpu_widen(float *restrict y, rz_mat x, size_t offset, size_t n)
{
    if (!rz_dtype_is_float(x.dtype)) {
        widen_integers(y, x, offset, n);
        return;
    }
    const uint16_t *h = (const uint16_t *)x.data + (x.dtype == RZ_F32 ? 0 : offset);
    if (x.dtype == RZ_F32) {
        memcpy(y, (const float *)x.data + offset, n * sizeof *y);
    } else if (x.dtype == RZ_BF16) {
        for (size_t i = 0; i < n; i++) {
            uint32_t bits = (uint32_t)h[i] << 16;
            memcpy(&y[i], &bits, 4);
        }
    } else {
        for (size_t i = 0; i < n; i++) y[i] = half_to_float(h[i]);
    }
}

static void gather_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    for (size_t r = begin; r < end; r++)
        rz_cpu_widen(j->y + r * j->cols, j->table, (size_t)j->x_rows[r] * j->table.ld, j->cols);
}
static void cpu_gather(rz_stream *s, float *y, rz_mat table, const int32_t *ids, size_t rows, size_t cols)
{
    rz_cpu_split(s, rows, cols, gather_part, &(struct job){.y = y, .table = table, .x_rows = ids, .cols = cols});
}

static struct job rows_job(float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
                           const int32_t *src_rows, size_t n, size_t cols)
{
    return (struct job){.y = dst,
                        .x = src,
                        .y_rows = dst_rows,
                        .x_rows = src_rows,
                        .y_ld = dst_ld,
                        .x_ld = src_ld,
                        .n = n,
                        .cols = cols};
}

static void copy_rows_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    for (size_t i = begin; i < end; i++)
        memmove(j->y + row_at(j->y_rows, i) * j->y_ld, j->x + row_at(j->x_rows, i) * j->x_ld, j->cols * sizeof(float));
}
static void cpu_copy_rows(rz_stream *s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src,
                          size_t src_ld, const int32_t *src_rows, size_t n, size_t cols)
{
    struct job j = rows_job(dst, dst_ld, dst_rows, src, src_ld, src_rows, n, cols);
    rz_cpu_split(s, n, cols, copy_rows_part, &j);
}

static void add_rows_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    for (size_t i = 0; i < j->n; i++) {
        float *y = j->y + row_at(j->y_rows, i) * j->y_ld;
        const float *x = j->x + row_at(j->x_rows, i) * j->x_ld;
        for (size_t c = begin; c < end; c++) y[c] += x[c];
    }
}
static void cpu_add_rows(rz_stream *s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src,
                         size_t src_ld, const int32_t *src_rows, size_t n, size_t cols)
{
    struct job j = rows_job(dst, dst_ld, dst_rows, src, src_ld, src_rows, n, cols);
    rz_cpu_split(s, cols, n, add_rows_part, &j);
}

/* ---- Pooling --------------------------------------------------------------------------------- */

static void pool_mean_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    for (size_t g = begin; g < end; g++) {
        float *y = j->y + g * j->cols;
        int32_t n = j->start[g + 1] - j->start[g];
        memset(y, 0, j->cols * sizeof *y);
        for (int32_t i = j->start[g]; i < j->start[g + 1]; i++) {
            const float *x = j->x + (size_t)j->x_rows[i] * j->cols;
            for (size_t c = 0; c < j->cols; c++) y[c] += x[c];
        }
        for (size_t c = 0; n > 0 && c < j->cols; c++) y[c] /= (float)n;
    }
}
static void cpu_pool_mean(rz_stream *s, float *y, const float *x, const int32_t *rows, const int32_t *start,
                          size_t n_groups, size_t cols)
{
    size_t n_rows = (size_t)(start[n_groups] - start[0]);
    rz_cpu_split(s, n_groups, (n_rows / n_groups + 1) * cols, pool_mean_part,
                 &(struct job){.y = y, .x = x, .x_rows = rows, .start = start, .cols = cols});
}

/* Columns [begin, end) of every group: a row may be in several groups. */
static void pool_mean_bwd_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    for (size_t g = 0; g < j->n; g++) {
        const float *dy = j->x + g * j->cols;
        float share = 1.0f / (float)(j->start[g + 1] - j->start[g]);
        for (int32_t i = j->start[g]; i < j->start[g + 1]; i++) {
            float *dx = j->y + (size_t)j->x_rows[i] * j->cols;
            for (size_t c = begin; c < end; c++) dx[c] += dy[c] * share;
        }
    }
}
static void cpu_pool_mean_bwd(rz_stream *s, float *dx, const float *dy, const int32_t *rows, const int32_t *start,
                              size_t n_groups, size_t cols)
{
    rz_cpu_split(s, cols, (size_t)(start[n_groups] - start[0]), pool_mean_bwd_part,
                 &(struct job){.y = dx, .x = dy, .x_rows = rows, .start = start, .n = n_groups, .cols = cols});
}

/* ---- Unit vectors ------------------------------------------------------------------------------- */

static const float MIN_NORM = 1e-12f;

static void l2norm_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    for (size_t r = begin; r < end; r++) {
        const float *x = j->x + r * j->cols;
        double sum = 0;
        for (size_t c = 0; c < j->cols; c++) sum += (double)x[c] * (double)x[c];
        float norm = (float)sqrt(sum), by = norm < MIN_NORM ? MIN_NORM : norm;
        for (size_t c = 0; c < j->cols; c++) j->y[r * j->cols + c] = x[c] / by;
        if (j->norm) j->norm[r] = norm;
    }
}
static void cpu_l2norm(rz_stream *s, float *y, float *norm, const float *x, size_t rows, size_t cols)
{
    rz_cpu_split(s, rows, 4 * cols, l2norm_part, &(struct job){.y = y, .x = x, .norm = norm, .cols = cols});
}

/* dx += (dy - y (y . dy)) / |x|; a vector shorter than MIN_NORM was divided by a constant. */
static void l2norm_bwd_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    for (size_t r = begin; r < end; r++) {
        const float *y = j->x + r * j->cols, *dy = j->dy + r * j->cols;
        bool tiny = j->len[r] < MIN_NORM;
        float inv = 1.0f / (tiny ? MIN_NORM : j->len[r]);
        double dot = 0;
        for (size_t c = 0; c < j->cols; c++) dot += (double)y[c] * (double)dy[c];
        float along = tiny ? 0 : (float)dot;
        for (size_t c = 0; c < j->cols; c++) j->y[r * j->cols + c] += (dy[c] - y[c] * along) * inv;
    }
}
static void cpu_l2norm_bwd(rz_stream *s, float *dx, const float *dy, const float *y, const float *norm, size_t rows,
                           size_t cols)
{
    rz_cpu_split(s, rows, 4 * cols, l2norm_bwd_part,
                 &(struct job){.y = dx, .x = y, .dy = dy, .len = norm, .cols = cols});
}

void rz_cpu_rows_ops(struct rz_ops *ops)
{
    ops->fill = cpu_fill;
    ops->sum = cpu_sum;
    ops->scale = cpu_scale;
    ops->add_bias = cpu_add_bias;
    ops->add_bias_bwd = cpu_add_bias_bwd;
    ops->dropout = cpu_dropout;
    ops->to_bf16 = cpu_to_bf16;
    ops->gather = cpu_gather;
    ops->copy_rows = cpu_copy_rows;
    ops->add_rows = cpu_add_rows;
    ops->pool_mean = cpu_pool_mean;
    ops->pool_mean_bwd = cpu_pool_mean_bwd;
    ops->l2norm = cpu_l2norm;
    ops->l2norm_bwd = cpu_l2norm_bwd;
}
