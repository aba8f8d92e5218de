/* cpu_int.c - matrix product with weights of 8- or 4-bit integers: rows of A are rounded to 8 bits and packed once, a
 * task packs its columns of B. An element of C is a chain of groups along K, in order, whatever the shape and the
 * number of threads. SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"

enum {
    ROWS_AT_ONCE = 1536, /* of A that are packed ahead */
    BLOCK_ROWS = 192,    /* rows of A in turn while a panel of B stays near */
    BLOCK_DEPTH = 4096,  /* K that is packed of B at once: the less often C is added to, the better, ... */
    BLOCK_WORK = 8192,   /* ... times panels, so that they stay in the L2 cache; ... */
    MIN_PANELS = 2,      /* ... so many of them, though, ... */
    MAX_PANELS = 8,      /* ... and no more */
    LEAST_ROWS = 96,     /* of a task, where rows are shared out too */
    PACK_DEPTH = 2048,   /* of a panel of A that one task packs */
};

struct product {
    const struct rz_int_kernels *k;
    rz_mat a, b;
    float alpha, beta, *c;
    size_t m, n, ldc;
    size_t row0; /* first of the rows in work */
    size_t groups, lanes, last_lanes;
    size_t at_once, panels;   /* groups, and panels of B, that a task packs */
    size_t a_group, a_stride; /* floats */
    size_t row_tasks, task_rows;
    float *packed;      /* A */
    const float *ready; /* B, packed once for all, panel by panel; NULL: it is not */
};

static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}
static inline size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* Tasks that pack one panel of A. */
static size_t pack_tasks(const struct product *p)
{
    return ceil_div(p->groups * p->b.group, PACK_DEPTH);
}

static void pack_task(void *arg, size_t i, float *scratch)
{
    const struct product *p = arg;
    (void)scratch;
    const size_t mr = p->k->mr, parts = pack_tasks(p), t = i / parts, depth = p->b.ld, row = p->row0 + t * mr;
    const size_t first = i % parts * (PACK_DEPTH / p->b.group);
    for (size_t g = first; g < min_size(p->groups, first + PACK_DEPTH / p->b.group); g++) {
        const size_t at = g * p->b.group;
        p->k->pack_rows(p->packed + t * p->a_stride + g * p->a_group, (const float *)p->a.data + row * p->a.ld + at,
                        p->a.ld, min_size(mr, p->m - t * mr), min_size(p->b.group, depth - at), p->alpha, p->k->offset);
    }
}

/* Floats of so many groups of a panel of B. */
static size_t b_floats(const struct product *p, size_t groups)
{
    return groups * (1 + p->lanes) * p->k->nr;
}

/* Groups [g, g + n) of a task's columns, packed in panels that are so many floats apart, times its rows. */
static void multiply(const struct product *p, size_t row, size_t rows, size_t col, size_t cols, size_t g, size_t n,
                     const float *packed, size_t panel)
{
    const size_t mr = p->k->mr, nr = p->k->nr;
    struct rz_int_block b = {.groups = n, .lanes = p->lanes, .a_stride = p->a_stride, .a_group = p->a_group};
    b.last_lanes = g + n == p->groups ? p->last_lanes : p->lanes;
    b.ldc = p->ldc, b.beta = g ? 1 : p->beta;
    for (size_t i = 0; i < rows; i += BLOCK_ROWS)
        for (size_t j = 0; j < cols; j += nr) {
            b.m = min_size(BLOCK_ROWS, rows - i), b.n = min_size(nr, cols - j);
            b.a = p->packed + (row + i) / mr * p->a_stride + g * p->a_group;
            b.b = packed + j / nr * panel;
            b.c = p->c + (p->row0 + row + i) * p->ldc + col + j;
            p->k->block(&b);
        }
}

static void tile_task(void *arg, size_t i, float *scratch)
{
    const struct product *p = arg;
    const size_t nr = p->k->nr, col = i / p->row_tasks * p->panels * nr;
    const size_t cols = min_size(p->panels * nr, p->n - col);
    const size_t row = i % p->row_tasks * p->task_rows, rows = min_size(p->task_rows, p->m - row);
    for (size_t g = 0, n; g < p->groups; g += n) {
        n = min_size(p->at_once, p->groups - g);
        for (size_t j = 0; j < cols && !p->ready; j += nr)
            p->k->pack_weights(scratch + j / nr * b_floats(p, n), p->b, col + j, min_size(nr, cols - j), g, n);
        if (p->ready)
            multiply(p, row, rows, col, cols, g, n, p->ready + col / nr * b_floats(p, p->groups) + b_floats(p, g),
                     b_floats(p, p->groups));
        else
            multiply(p, row, rows, col, cols, g, n, scratch, b_floats(p, n));
    }
}

/* Rows are shared out where the columns alone do not keep the threads busy. A task's rows are whole panels. */
static size_t cut_tasks(struct product *p, size_t threads)
{
    const size_t col_tasks = ceil_div(p->n, p->panels * p->k->nr), mr = p->k->mr;
    const size_t wanted = threads > 1 && col_tasks < 4 * threads ? ceil_div(4 * threads, col_tasks) : 1;
    p->row_tasks = min_size(wanted, ceil_div(p->m, LEAST_ROWS));
    p->task_rows = ceil_div(ceil_div(p->m, p->row_tasks), mr) * mr;
    p->row_tasks = ceil_div(p->m, p->task_rows);
    return p->row_tasks * col_tasks;
}

/* Of a group of n integers. */
static size_t lanes_of(const struct rz_int_kernels *k, rz_dtype type, size_t n)
{
    const size_t per_word = type == RZ_I8 ? 4 : 8;
    return ceil_div(n, per_word) * (per_word / k->per_lane);
}

/* What follows from the weights alone. */
static struct product product_with(const rz_device *dev, rz_mat b)
{
    struct product p = {.k = b.dtype == RZ_I8 ? dev->int8 : dev->int4, .b = b, .ready = b.packed};
    p.groups = rz_mat_groups(b);
    p.lanes = lanes_of(p.k, b.dtype, min_size(b.group, b.ld));
    p.last_lanes = lanes_of(p.k, b.dtype, b.ld - (p.groups - 1) * b.group);
    p.at_once = min_size(p.groups, BLOCK_DEPTH / b.group);
    p.panels = min_size(MAX_PANELS, BLOCK_WORK / (p.at_once * b.group));
    p.panels = p.panels > MIN_PANELS ? p.panels : MIN_PANELS;
    p.a_group = (2 + p.lanes) * p.k->mr;
    p.a_stride = p.groups * p.a_group;
    return p;
}

size_t rz_cpu_pack_int(rz_device *dev, rz_mat w, size_t rows, float *to)
{
    const struct product p = product_with(dev, w);
    const size_t nr = p.k->nr, panel = b_floats(&p, p.groups);
    for (size_t j = 0; to && j < rows; j += nr, to += panel)
        for (size_t g = 0; g < p.groups; g += p.at_once)
            p.k->pack_weights(to + b_floats(&p, g), w, j, min_size(nr, rows - j), g, min_size(p.at_once, p.groups - g));
    return ceil_div(rows, nr) * panel * sizeof *to;
}

void rz_cpu_gemm_int(rz_stream *s, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b, float beta, float *c,
                     size_t ldc)
{
    struct product p = product_with(s->dev, b);
    const size_t mr = p.k->mr, threads = rz_cpu_threads_for(s, (double)m * (double)n * (double)k / 4);
    rz_mark mark = rz_arena_mark(s);
    p.a = a, p.alpha = alpha, p.beta = beta;
    p.c = c, p.n = n, p.ldc = ldc;
    p.packed = rz_arena_f32(s, ceil_div(min_size(m, ROWS_AT_ONCE), mr), p.a_stride);
    for (; p.row0 < m && !rz_stream_failed(s); p.row0 += ROWS_AT_ONCE) {
        p.m = min_size(ROWS_AT_ONCE, m - p.row0);
        rz_cpu_tasks(s, ceil_div(p.m, mr) * pack_tasks(&p), threads, 0, pack_task, &p);
        rz_cpu_tasks(s, cut_tasks(&p, threads), threads, p.ready ? 0 : p.panels * b_floats(&p, p.at_once), tile_task,
                     &p);
    }
    if (!rz_stream_failed(s)) rz_arena_release(s, mark);
}
