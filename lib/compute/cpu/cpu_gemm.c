/* cpu_gemm.c - matrix product: packs operands into panels, hands tiles of C to threads. Whatever the shape and the
 * number of threads, an element of C is the same sum: blocks along K of the kernels' depth, in order, each one chain.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"

enum {
    B_LANES = 3 << 15,      /* of B that a task packs at once: they stay in the L2 cache; ... */
    MIN_PANELS = 2,         /* ... so many panels, though, ... */
    MAX_PANELS = 8,         /* ... and no more */
    ROWS_AT_ONCE = 1536,    /* of A that are packed ahead at most, ... */
    A_LANES = 5 << 19,      /* ... and about so many lanes: they stay in the last cache */
    BLOCK_ROWS = 192,       /* rows of A that stay in the L2 cache while the panels of B pass */
    LEAST_ROWS = 96,        /* of a task, where rows are shared out too */
    PACK_TILES = 8,         /* panels of A that one task packs */
    SHORT_LANES = 768,      /* of rows that need no panels */
    TURNED_ROWS = 8,        /* of A, from which on B's columns are multiplied as they lie */
    LARGE_FLOATS = 1 << 20, /* of a C that no cache keeps until it is wanted */
};

struct gemm {
    const struct rz_gemm_kernels *k;
    bool ta, tb;
    bool by_rows; /* A is multiplied row by row, not panel by panel; */
    bool as_is;   /* its rows need no packing either */
    bool turned;  /* B's columns need none: they are multiplied as they lie, into C turned */
    rz_mat a, b;
    float alpha, beta, *c;
    size_t n, ldc;
    const float *ready; /* B packed once for all; NULL: it is not */
    size_t ready_panel; /* floats from one of its panels to the next */
    /* the part in work: rows [m0, m0 + m) of A, K [k0, k0 + kg) */
    size_t m0, m, k0, kg;
    size_t panels, row_tasks, task_rows; /* of a task: `panels` panels of B, task_rows rows of A */
    float *packed;                       /* A: blocks of K one after another; within a block, panels */
};

/* Rows of a panel of A. */
static inline size_t side_of(const struct gemm *g)
{
    return g->turned ? g->k->side : g->k->mr;
}
static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}
static inline size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}
static inline size_t round_up(size_t n, size_t step)
{
    return ceil_div(n, step) * step;
}

/* Where panel `i` of A begins in the block of K from p on, which is kc deep. */
static float *packed_a(const struct gemm *g, size_t p, size_t kc, size_t i)
{
    const size_t side = side_of(g);
    return g->packed + p / g->k->per_lane * round_up(g->m, side) + i * side * ceil_div(kc, g->k->per_lane);
}

/* Panels of A that one task packs. */
static size_t pack_tiles(const struct gemm *g)
{
    return g->turned ? 2 : PACK_TILES;
}

static void pack_task(void *arg, size_t i, float *scratch)
{
    const struct gemm *g = arg;
    (void)scratch;
    const size_t side = side_of(g), tiles = pack_tiles(g), per_block = ceil_div(ceil_div(g->m, side), tiles);
    const size_t p = i / per_block * g->k->depth, first = i % per_block * tiles, row = g->m0 + first * side;
    const size_t kc = min_size(g->k->depth, g->kg - p), rows = min_size(tiles * side, g->m - first * side);
    const size_t at = g->k0 + p;
    g->k->pack(packed_a(g, p, kc, first), g->by_rows ? 1 : side, g->a, g->ta,
               g->ta ? at * g->a.ld + row : row * g->a.ld + at, rows, kc);
}

/* One block of K of a task: its columns packed times its rows. */
static void multiply(const struct gemm *g, size_t row, size_t rows, size_t col, size_t cols, size_t p,
                     struct rz_packed b)
{
    const size_t mr = g->k->mr, kc = min_size(g->k->depth, g->kg - p), lanes = ceil_div(kc, g->k->per_lane);
    const float beta = g->k0 + p ? 1 : g->beta;
    for (size_t i = 0; i < rows; i += BLOCK_ROWS) {
        const size_t n = min_size(BLOCK_ROWS, rows - i), at = g->m0 + row + i;
        float *c = g->c + at * g->ldc + col;
        const float *a = g->as_is ? (const float *)g->a.data + at * g->a.ld : packed_a(g, p, kc, (row + i) / mr);
        if (g->by_rows)
            g->k->rows(n, cols, lanes, g->alpha, a, g->as_is ? g->a.ld : lanes, b, beta, c, g->ldc);
        else
            g->k->block(n, cols, lanes, g->alpha, (struct rz_packed){a, mr * lanes}, b, beta, c, g->ldc);
    }
}

static void tile_task(void *arg, size_t i, float *scratch)
{
    const struct gemm *g = arg;
    const size_t nr = g->k->nr, col = i / g->row_tasks * g->panels * nr, cols = min_size(g->panels * nr, g->n - col);
    const size_t row = i % g->row_tasks * g->task_rows, rows = min_size(g->task_rows, g->m - row);
    for (size_t p = 0; p < g->kg; p += g->k->depth) {
        const size_t at = g->k0 + p, kc = min_size(g->k->depth, g->kg - p), per_lane = g->k->per_lane;
        struct rz_packed b = {scratch, nr * ceil_div(kc, per_lane)};
        if (g->ready)
            b = (struct rz_packed){g->ready + col / nr * g->ready_panel + at / per_lane * nr, g->ready_panel};
        else
            g->k->pack(scratch, nr, g->b, !g->tb, g->tb ? col * g->b.ld + at : at * g->b.ld + col, cols, kc);
        multiply(g, row, rows, col, cols, p, b);
    }
}

/* A task's part of T: `cols` rows. */
static void multiply_turned(const struct gemm *g, size_t row, size_t rows, size_t p, const float *b, size_t ldb,
                            size_t cols, float *t, size_t ldt)
{
    const size_t side = g->k->side, kc = min_size(g->k->depth, g->kg - p), lanes = ceil_div(kc, g->k->per_lane);
    for (size_t i = 0; i < rows; i += BLOCK_ROWS)
        g->k->turned(min_size(BLOCK_ROWS, rows - i), cols, lanes, g->alpha,
                     (struct rz_packed){packed_a(g, p, kc, (row + i) / side), side * lanes}, b, ldb,
                     g->k0 + p ? 1 : g->beta, t + i, ldt);
}

static void turned_task(void *arg, size_t i, float *t)
{
    const struct gemm *g = arg;
    const size_t wide = g->panels * g->k->nr, col = i / g->row_tasks * wide, cols = min_size(wide, g->n - col);
    const size_t row = i % g->row_tasks * g->task_rows, rows = min_size(g->task_rows, g->m - row);
    const size_t ldt = round_up(g->task_rows, g->k->side), ldb = g->b.ld / g->k->per_lane;
    const float *b = (const float *)g->b.data + col * ldb;
    float *c = g->c + (g->m0 + row) * g->ldc + col;
    if (g->k0 || g->beta != 0) g->k->turn(t, ldt, c, g->ldc, rows, cols, false);
    for (size_t p = 0; p < g->kg; p += g->k->depth)
        multiply_turned(g, row, rows, p, b + (g->k0 + p) / g->k->per_lane, ldb, cols, t, ldt);
    g->k->turn(c, g->ldc, t, ldt, cols, rows, g->m * g->n >= LARGE_FLOATS);
}

/* Panels of B that a task takes at most. */
static size_t most_panels(const struct gemm *g)
{
    if (g->turned) return 1; /* nothing is packed for a task; small ones keep no thread waiting for the last */
    const size_t fit = B_LANES / (g->k->nr * ceil_div(min_size(g->k->depth, g->kg), g->k->per_lane));
    return fit < MIN_PANELS ? MIN_PANELS : min_size(MAX_PANELS, fit);
}

/* Columns first; rows are shared out too where the columns alone do not keep the threads busy. */
static size_t cut_tasks(struct gemm *g, size_t threads)
{
    const size_t all = ceil_div(g->n, g->k->nr), side = side_of(g);
    g->panels = threads > 1 && g->m < 4 * LEAST_ROWS ? ceil_div(all, 4 * threads) : all;
    g->panels = min_size(g->panels, most_panels(g));
    const size_t col_tasks = ceil_div(all, g->panels);
    const size_t wanted = threads > 1 && col_tasks < 4 * threads ? ceil_div(4 * threads, col_tasks) : 1;
    g->row_tasks = min_size(wanted, ceil_div(g->m, LEAST_ROWS));
    g->task_rows = round_up(ceil_div(g->m, g->row_tasks), side);
    g->row_tasks = ceil_div(g->m, g->task_rows);
    return g->row_tasks * col_tasks;
}

/* ---- Packed once for all: panel by panel, the blocks of K one after another ---- */

/* Whose packing it is; NULL: nobody's (integers: cpu_int.c). */
static const struct rz_gemm_kernels *packed_by(const rz_device *dev, rz_mat w)
{
    if (w.compute == RZ_BF16 && dev->bf16) return dev->bf16;
    return rz_dtype_is_float(w.dtype) && (w.compute != RZ_BF16 || w.dtype == RZ_BF16) ? &dev->kernels->f32 : NULL;
}

size_t rz_cpu_pack(rz_device *dev, rz_mat w, size_t rows, void *to)
{
    const struct rz_gemm_kernels *k = packed_by(dev, w);
    if (!k) return w.compute == RZ_BF16 ? 0 : rz_cpu_pack_int(dev, w, rows, to);
    float *panel = to;
    const size_t floats = k->nr * ceil_div(w.ld, k->per_lane);
    for (size_t j = 0; panel && j < rows; j += k->nr, panel += floats)
        for (size_t p = 0; p < w.ld; p += k->depth)
            k->pack(panel + p / k->per_lane * k->nr, k->nr, w, false, j * w.ld + p, min_size(k->nr, rows - j),
                    min_size(k->depth, w.ld - p));
    return ceil_div(rows, k->nr) * floats * sizeof *panel;
}

/* Short rows: what a tile needs of them stays in the L1 cache as they lie, and making panels of them costs a tenth of
 * the product. One block of K alone, so that a row as it is or rounded is whole. */
static bool by_rows(const struct rz_gemm_kernels *k, bool ta, rz_mat a, size_t depth)
{
    const bool plain = a.dtype == RZ_F32 || k->per_lane == 2;
    return k->rows && !ta && plain && depth <= k->depth && ceil_div(a.ld, k->per_lane) <= SHORT_LANES;
}

/* Columns of B that are lanes as they lie: then packing them is work for nothing, but where few rows leave most of a
 * vector empty. */
static bool turned(const struct rz_gemm_kernels *k, size_t m, rz_mat b, size_t depth)
{
    const bool lanes = k->per_lane == 1
                           ? b.dtype == RZ_F32
                           : b.dtype == RZ_BF16 && !((depth | b.ld) & 1) && !((uintptr_t)b.data % sizeof(float));
    return k->turned && lanes && m >= TURNED_ROWS;
}

void rz_cpu_gemm_packed(rz_stream *s, const struct rz_gemm_kernels *k, bool ta, bool tb, const size_t size[3],
                        float alpha, rz_mat a, rz_mat b, float beta, float *c, size_t ldc)
{
    const size_t m = size[0], n = size[1], depth = size[2];
    struct gemm g = {.k = k, .ta = ta, .tb = tb, .a = a, .b = b, .alpha = alpha, .beta = beta, .c = c};
    const size_t threads = rz_cpu_threads_for(s, (double)m * (double)n * (double)depth / 4);
    g.n = n, g.ldc = ldc;
    if (tb && depth == b.ld && k == packed_by(s->dev, b)) g.ready = b.packed;
    g.ready_panel = k->nr * ceil_div(depth, k->per_lane);
    g.turned = !ta && tb && !g.ready && turned(k, m, b, depth);
    g.by_rows = !g.turned && by_rows(k, ta, a, depth);
    const size_t m_max = round_up(min_size(m, ROWS_AT_ONCE), side_of(&g));
    const size_t k_max = min_size(depth, round_up(A_LANES * k->per_lane / m_max + 1, k->depth));
    g.as_is = g.by_rows && a.dtype == RZ_F32 && k->per_lane == 1;
    rz_mark mark = rz_arena_mark(s);
    if (!g.as_is) g.packed = rz_arena_f32(s, m_max, ceil_div(k_max, k->per_lane));
    for (g.m0 = 0; g.m0 < m; g.m0 += ROWS_AT_ONCE)
        for (g.k0 = 0; g.k0 < depth; g.k0 += k_max) {
            if (rz_stream_failed(s)) return;
            g.m = min_size(ROWS_AT_ONCE, m - g.m0), g.kg = min_size(k_max, depth - g.k0);
            const size_t n_tasks = cut_tasks(&g, threads), blocks = ceil_div(g.kg, k->depth);
            if (!g.as_is)
                rz_cpu_tasks(s, blocks * ceil_div(ceil_div(g.m, side_of(&g)), pack_tiles(&g)), threads, 0, pack_task,
                             &g);
            const size_t wide = g.panels * k->nr;
            size_t scratch = wide * ceil_div(min_size(k->depth, g.kg), k->per_lane);
            if (g.ready) scratch = 0;
            if (g.turned) scratch = wide * round_up(g.task_rows, k->side);
            rz_cpu_tasks(s, n_tasks, threads, scratch, g.turned ? turned_task : tile_task, &g);
        }
    if (!rz_stream_failed(s)) rz_arena_release(s, mark);
}

static void scale_rows(float *c, size_t ldc, size_t m, size_t n, float beta)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
}

void rz_cpu_gemm(rz_stream *s, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b,
                 float beta, float *c, size_t ldc)
{
    const bool layer = !ta && tb, linear = layer && a.dtype == RZ_F32;
    if (k == 0)
        scale_rows(c, ldc, m, n, beta);
    else if (layer && b.compute == RZ_BF16 && (linear || a.dtype == RZ_BF16))
        rz_cpu_gemm_bf16(s, m, n, k, alpha, a, b, beta, c, ldc);
    else if (linear && !rz_dtype_is_float(b.dtype) && k == b.ld)
        rz_cpu_gemm_int(s, m, n, k, alpha, a, b, beta, c, ldc);
    else
        rz_cpu_gemm_packed(s, &s->dev->kernels->f32, ta, tb, (const size_t[]){m, n, k}, alpha, a, b, beta, c, ldc);
}
