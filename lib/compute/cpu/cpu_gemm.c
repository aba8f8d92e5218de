/* cpu_gemm.c - matrix product: packs operands into panels, hands tiles of C to threads. Whatever the shape and the
 * number of threads, an element of C is the same sum: blocks of RZ_GEMM_KC along K, in order, each one chain.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"

enum {
    KC = RZ_GEMM_KC,
    MAX_M = 192,        /* rows of A that a task packs: stays in the L2 cache */
    MAX_N = 4096,       /* columns packed at once ... */
    B_FLOATS = 1 << 20, /* ... and about how many floats of B */
    FEW_ROWS = 32,      /* up to so many rows, B is not packed ahead but panel by panel as it is used */
    PANELS_PER_TASK = 4,
};

struct gemm {
    const struct rz_kernels *k;
    bool ta, tb;
    rz_mat a, b;
    float alpha, beta, *c;
    size_t m, n, depth, ldc;
    /* the part in work: columns [n0, n0 + nc), K [k0, k0 + kg) */
    size_t n0, nc, k0, kg, panels;
    size_t mc, m_tasks, part, n_tasks; /* tiles of C: mc rows, `part` panels */
    float *packed;                     /* B, or all of A when there are few rows */
};

static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}
static inline size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static void pack_a(const struct gemm *g, float *dst, size_t i, size_t rows, size_t p, size_t kc)
{
    g->k->pack(dst, g->k->mr, g->a, g->ta, g->ta ? p * g->a.ld + i : i * g->a.ld + p, rows, kc);
}
static void pack_b(const struct gemm *g, float *dst, size_t j, size_t cols, size_t p, size_t kc)
{
    g->k->pack(dst, g->k->nr, g->b, !g->tb, g->tb ? j * g->b.ld + p : p * g->b.ld + j, cols, kc);
}

/* ---- Many rows: B is packed once, each task packs its rows of A ------------------------- */

/* Packed B: blocks of K one after another; within a block, panels. */
static void pack_b_task(void *arg, size_t i, float *scratch)
{
    const struct gemm *g = arg;
    (void)scratch;
    const size_t nr = g->k->nr, per_block = ceil_div(g->panels, PANELS_PER_TASK);
    const size_t p = i / per_block * KC, first = i % per_block * PANELS_PER_TASK;
    const size_t kc = min_size(KC, g->kg - p), cols = min_size(PANELS_PER_TASK * nr, g->nc - first * nr);
    pack_b(g, g->packed + (p * g->panels + first * kc) * nr, g->n0 + first * nr, cols, g->k0 + p, kc);
}

static void tile_task(void *arg, size_t i, float *scratch)
{
    const struct gemm *g = arg;
    const size_t nr = g->k->nr, mr = g->k->mr;
    const size_t row = i / g->n_tasks * g->mc, rows = min_size(g->mc, g->m - row);
    const size_t first = i % g->n_tasks * g->part;
    const size_t cols = min_size(g->part * nr, g->nc - first * nr);
    float *c = g->c + row * g->ldc + g->n0 + first * nr;
    for (size_t p = 0; p < g->kg; p += KC) {
        const size_t kc = min_size(KC, g->kg - p);
        pack_a(g, scratch, row, rows, g->k0 + p, kc);
        g->k->gemm_block(rows, cols, kc, g->alpha, (struct rz_packed){scratch, mr * kc},
                         (struct rz_packed){g->packed + (p * g->panels + first * kc) * nr, nr * kc},
                         g->k0 + p ? 1 : g->beta, c, g->ldc);
    }
}

/* Cuts C into tasks: enough for every thread, rows first. */
static void cut_tiles(struct gemm *g, size_t threads)
{
    const size_t mr = g->k->mr;
    g->mc = min_size(MAX_M, ceil_div(ceil_div(g->m, threads), mr) * mr);
    g->m_tasks = ceil_div(g->m, g->mc);
    g->n_tasks = min_size(g->panels, g->m_tasks >= threads ? 1 : ceil_div(threads, g->m_tasks));
    g->part = ceil_div(g->panels, g->n_tasks);
    g->n_tasks = ceil_div(g->panels, g->part);
}

static void gemm_many_rows(rz_stream *s, struct gemm *g, size_t threads)
{
    const size_t nr = g->k->nr, n_max = min_size(g->n, MAX_N);
    const size_t k_max = min_size(g->depth, ceil_div(B_FLOATS / n_max + 1, KC) * KC);
    rz_mark mark = rz_arena_mark(s);
    g->packed = rz_arena_f32(s, k_max, ceil_div(n_max, nr) * nr);
    if (!g->packed) return;
    for (g->n0 = 0; g->n0 < g->n; g->n0 += MAX_N)
        for (g->k0 = 0; g->k0 < g->depth; g->k0 += k_max) {
            g->nc = min_size(n_max, g->n - g->n0);
            g->kg = min_size(k_max, g->depth - g->k0);
            g->panels = ceil_div(g->nc, nr);
            cut_tiles(g, threads);
            rz_cpu_tasks(s, ceil_div(g->kg, KC) * ceil_div(g->panels, PANELS_PER_TASK), threads, 0, pack_b_task, g);
            rz_cpu_tasks(s, g->m_tasks * g->n_tasks, threads, g->mc * min_size(KC, g->kg), tile_task, g);
            if (rz_stream_failed(s)) return;
        }
    rz_arena_release(s, mark);
}

/* ---- Few rows: A is packed once, B a panel at a time ---------------------------------------- */

static void panel_task(void *arg, size_t i, float *scratch)
{
    const struct gemm *g = arg;
    const size_t nr = g->k->nr, a_rows = ceil_div(g->m, g->k->mr) * g->k->mr;
    const size_t end = min_size(g->n, (i + 1) * PANELS_PER_TASK * nr);
    for (size_t j = i * PANELS_PER_TASK * nr; j < end; j += nr)
        for (size_t p = 0; p < g->depth; p += KC) {
            const size_t kc = min_size(KC, g->depth - p), cols = min_size(nr, end - j);
            pack_b(g, scratch, j, cols, p, kc);
            g->k->gemm_block(g->m, cols, kc, g->alpha, (struct rz_packed){g->packed + p * a_rows, g->k->mr * kc},
                             (struct rz_packed){scratch, 0}, p ? 1 : g->beta, g->c + j, g->ldc);
        }
}

static void gemm_few_rows(rz_stream *s, struct gemm *g, size_t threads)
{
    const size_t a_rows = ceil_div(g->m, g->k->mr) * g->k->mr;
    rz_mark mark = rz_arena_mark(s);
    g->packed = rz_arena_f32(s, a_rows, g->depth);
    if (!g->packed) return;
    for (size_t p = 0; p < g->depth; p += KC) pack_a(g, g->packed + p * a_rows, 0, g->m, p, min_size(KC, g->depth - p));
    rz_cpu_tasks(s, ceil_div(g->n, PANELS_PER_TASK * g->k->nr), threads, g->k->nr * KC, panel_task, g);
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
    if (b.compute == RZ_BF16 && !ta && tb && a.dtype == RZ_F32 && k > 0) {
        rz_cpu_gemm_bf16(s, m, n, k, alpha, a, b, beta, c, ldc);
        return;
    }
    if (!rz_dtype_is_float(b.dtype) && !ta && tb && a.dtype == RZ_F32 && k == b.ld) {
        rz_cpu_gemm_int(s, m, n, k, alpha, a, b, beta, c, ldc);
        return;
    }
    struct gemm g = {.k = s->dev->kernels, .ta = ta, .tb = tb, .a = a, .b = b, .alpha = alpha, .beta = beta, .c = c};
    g.m = m;
    g.n = n;
    g.depth = k;
    g.ldc = ldc;
    const size_t threads = rz_cpu_threads_for(s, (double)m * (double)n * (double)k / 4);
    if (k == 0)
        scale_rows(c, ldc, m, n, beta);
    else if (m <= FEW_ROWS)
        gemm_few_rows(s, &g, threads);
    else
        gemm_many_rows(s, &g, threads);
}
