/* kernels_gemm.h - the GEMM tile: MR rows by two vectors of C stay in registers while K runs. Every element of C is one
 * chain of TILE_DOT in the order of K, in whatever tile it lies. Part of kernels.h, and of the files that have a
 * TILE_DOT of their own. SPDX-License-Identifier: Apache-2.0 */

/* c + a b: lane by lane, or of pairs of numbers in a lane. */
#ifndef TILE_DOT
#define TILE_DOT v_fma
#endif

/* alpha x + beta c; with beta 0 c is not read. */
INLINE vf blend(vf x, float alpha, float beta, const float *c, size_t n)
{
    x *= v_set(alpha);
    if (beta != 0) x += v_set(beta) * v_load_n(c, n);
    return x;
}

/* Stores a tile that hangs over the right edge of C. */
static __attribute__((noinline)) void store_edge(const float *tile, size_t m, size_t n, float alpha, float beta,
                                                 float *c, size_t ldc)
{
    for (size_t i = 0; i < m; i++, tile += NR, c += ldc)
        for (size_t j = 0; j < n; j += W) v_store_n(c + j, blend(v_load(tile + j), alpha, beta, c + j, n - j), n - j);
}

/* Accumulators are named variables, not an array, so that every compiler keeps them in registers. */
#define TILE_FETCH(r)                                                                                                  \
    __builtin_prefetch(c + r * ldc);                                                                                   \
    __builtin_prefetch(c + r * ldc + NR - 1);
#define TILE_ZERO(r) vf x##r = {0}, y##r = {0};
/* Row r of A: rows lie `row` floats apart. Three share a pointer, which is what an address can be made of. */
#define TILE_A_0 a0[0]
#define TILE_A_1 a0[row]
#define TILE_A_2 a0[2 * row]
#define TILE_A_3 a3[0]
#define TILE_A_4 a3[row]
#define TILE_A_5 a3[2 * row]
#define TILE_A_6 a6[0]
#define TILE_A_7 a6[row]
#define TILE_A_8 a6[2 * row]
#define TILE_A_9 a9[0]
#define TILE_A_10 a9[row]
#define TILE_A_11 a9[2 * row]
#define TILE_STEP(r)                                                                                                   \
    {                                                                                                                  \
        vf ar = v_set(TILE_A_##r);                                                                                     \
        x##r = TILE_DOT(ar, b0, x##r);                                                                                 \
        y##r = TILE_DOT(ar, b1, y##r);                                                                                 \
    }
#define TILE_STORE(r)                                                                                                  \
    v_store(c + r * ldc, blend(x##r, alpha, beta, c + r * ldc, W));                                                    \
    v_store(c + r * ldc + W, blend(y##r, alpha, beta, c + r * ldc + W, W));
#define TILE_SPILL(r)                                                                                                  \
    v_store(edge + r * NR, x##r);                                                                                      \
    v_store(edge + r * NR + W, y##r);

#define TILE(ROWS)                                                                                                     \
    static void tile_##ROWS(size_t n, size_t kc, float alpha, const float *a0, size_t row, size_t step,                \
                            const float *restrict b, float beta, float *restrict c, size_t ldc)                        \
    {                                                                                                                  \
        const float *a3 = a0 + 3 * row, *a6 = a0 + 6 * row, *a9 = a0 + 9 * row;                                        \
        FORGET(a3);                                                                                                    \
        FORGET(a6);                                                                                                    \
        FORGET(a9);                                                                                                    \
        ROWS_##ROWS(TILE_FETCH) ROWS_##ROWS(TILE_ZERO) for (size_t p = 0; p < kc; p++, b += NR)                        \
        {                                                                                                              \
            vf b0 = v_load(b), b1 = v_load(b + W);                                                                     \
            ROWS_##ROWS(TILE_STEP) a0 += step, a3 += step, a6 += step, a9 += step;                                     \
        }                                                                                                              \
        FORGET(ldc);                                                                                                   \
        if (n >= NR) {                                                                                                 \
            ROWS_##ROWS(TILE_STORE)                                                                                    \
        } else {                                                                                                       \
            float edge[MR * NR];                                                                                       \
            ROWS_##ROWS(TILE_SPILL) store_edge(edge, ROWS, n, alpha, beta, c, ldc);                                    \
        }                                                                                                              \
    }

typedef void tile_fn(size_t n, size_t kc, float alpha, const float *a, size_t row, size_t step, const float *b,
                     float beta, float *c, size_t ldc);
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
#if MR == 12
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)
static tile_fn *const tiles[MR + 1] = {NULL,   tile_1, tile_2, tile_3,  tile_4,  tile_5, tile_6,
                                       tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};
#else
static tile_fn *const tiles[MR + 1] = {NULL, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
#endif

/* Panels of B stream from the L2 cache past a tile of A. */
INLINE void each_tile(size_t m, size_t n, size_t kc, float alpha, const float *a, size_t stride, size_t row,
                      size_t step, struct rz_packed b, float beta, float *c, size_t ldc)
{
    for (size_t i = 0; i < m; i += MR, a += stride) {
        const float *panel = b.data;
        for (size_t j = 0; j < n; j += NR, panel += b.stride)
            tiles[m - i < MR ? m - i : MR](n - j, kc, alpha, a, row, step, panel, beta, c + i * ldc + j, ldc);
    }
}

static void gemm_block(size_t m, size_t n, size_t kc, float alpha, struct rz_packed a, struct rz_packed b, float beta,
                       float *c, size_t ldc)
{
    each_tile(m, n, kc, alpha, a.data, a.stride, 1, MR, b, beta, c, ldc);
}

static void gemm_rows(size_t m, size_t n, size_t kc, float alpha, const float *a, size_t lda, struct rz_packed b,
                      float beta, float *c, size_t ldc)
{
    each_tile(m, n, kc, alpha, a, MR * lda, lda, 1, b, beta, c, ldc);
}
