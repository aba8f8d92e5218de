/* kernels_gemm.h - packing and the GEMM tile: MR rows by two vectors of C stay in registers while K runs.
 * Every element of C is one chain of multiply-adds in the order of K, in whatever tile it lies.
 * Part of kernels.h. SPDX-License-Identifier: Apache-2.0 */

#define MR RZ_MR
#define NR (2 * W)
enum {
    PACK_STEP = 64,  /* half-precision rows are widened this many elements at a time */
    LINE = 16,       /* floats in a cache line */
    PACK_GROUP = 8,  /* panels that are packed side by side, so that rows are read in whole cache lines */
    ROWS_AHEAD = 12, /* how far ahead such rows are fetched: strides defeat the processor's own prefetching */
};

/* ---- Packing ------------------------------------------------------------------------- */

typedef float v4f __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef double v2d __attribute__((vector_size(16)));
typedef double double_mem __attribute__((aligned(4), may_alias));
typedef float v4f_mem __attribute__((vector_size(16), aligned(4), may_alias));
#ifdef __clang__
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (v4i){i, j, k, l})
#endif

/* y[p * tile + i] = x[i * ld + p], 4 by 4. */
INLINE void transpose4(float *y, size_t tile, const float *x, size_t ld)
{
    v4f a = *(const v4f_mem *)x, b = *(const v4f_mem *)(x + ld);
    v4f c = *(const v4f_mem *)(x + 2 * ld), d = *(const v4f_mem *)(x + 3 * ld);
    v4f ab0 = SHUFFLE4(a, b, 0, 4, 1, 5), ab1 = SHUFFLE4(a, b, 2, 6, 3, 7);
    v4f cd0 = SHUFFLE4(c, d, 0, 4, 1, 5), cd1 = SHUFFLE4(c, d, 2, 6, 3, 7);
    *(v4f_mem *)y = SHUFFLE4(ab0, cd0, 0, 1, 4, 5);
    *(v4f_mem *)(y + tile) = SHUFFLE4(ab0, cd0, 2, 3, 6, 7);
    *(v4f_mem *)(y + 2 * tile) = SHUFFLE4(ab1, cd1, 0, 1, 4, 5);
    *(v4f_mem *)(y + 3 * tile) = SHUFFLE4(ab1, cd1, 2, 3, 6, 7);
}

/* The same for a pair of rows, 4 columns. */
INLINE void transpose2(float *y, size_t tile, const float *x, size_t ld)
{
    v4f a = *(const v4f_mem *)x, b = *(const v4f_mem *)(x + ld);
    v2d lo = (v2d)SHUFFLE4(a, b, 0, 4, 1, 5), hi = (v2d)SHUFFLE4(a, b, 2, 6, 3, 7);
    *(double_mem *)y = lo[0]; /* two floats each */
    *(double_mem *)(y + tile) = lo[1];
    *(double_mem *)(y + 2 * tile) = hi[0];
    *(double_mem *)(y + 3 * tile) = hi[1];
}

/* One panel from rows of x: y[p * tile + i] = x[i * ld + p], i < n <= tile; zeros for the other i. */
static void interleave(float *restrict y, size_t tile, const float *restrict x, size_t ld, size_t n, size_t kc)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        size_t p = 0;
        for (; p + LINE <= kc; p += LINE) {
            for (size_t r = i + tile; r < i + tile + 4; r++) __builtin_prefetch(x + r * ld + p); /* the next panel's */
            for (size_t q = p; q < p + LINE; q += 4) transpose4(y + q * tile + i, tile, x + i * ld + q, ld);
        }
        for (; p + 4 <= kc; p += 4) transpose4(y + p * tile + i, tile, x + i * ld + p, ld);
        for (; p < kc; p++)
            for (size_t j = i; j < i + 4; j++) y[p * tile + j] = x[j * ld + p];
    }
    for (; i + 2 <= n; i += 2) {
        size_t p = 0;
        for (; p + LINE <= kc; p += LINE) {
            __builtin_prefetch(x + (i + tile) * ld + p);
            __builtin_prefetch(x + (i + tile + 1) * ld + p);
            for (size_t q = p; q < p + LINE; q += 4) transpose2(y + q * tile + i, tile, x + i * ld + q, ld);
        }
        for (; p + 4 <= kc; p += 4) transpose2(y + p * tile + i, tile, x + i * ld + p, ld);
        for (; p < kc; p++) {
            y[p * tile + i] = x[i * ld + p];
            y[p * tile + i + 1] = x[(i + 1) * ld + p];
        }
    }
    for (; i < tile; i++)
        for (size_t p = 0; p < kc; p++) y[p * tile + i] = i < n ? x[i * ld + p] : 0;
}

/* The same from F16 or BF16 rows. */
static void interleave_wide(float *y, size_t tile, rz_mat x, size_t offset, size_t n, size_t kc)
{
    float row[NR * PACK_STEP];
    for (size_t p = 0; p < kc; p += PACK_STEP) {
        size_t step = kc - p < PACK_STEP ? kc - p : PACK_STEP;
        for (size_t i = 0; i < n; i++) rz_cpu_widen(row + i * PACK_STEP, x, offset + i * x.ld + p, step);
        interleave(y + p * tile, tile, row, PACK_STEP, n, step);
    }
}

/* One panel from columns of x: y[p * tile + i] = x[p * ld + i]. */
INLINE void gather_columns(float *restrict y, size_t tile, rz_mat x, size_t offset, size_t n, size_t kc)
{
    const float *f = x.dtype == RZ_F32 ? (const float *)x.data + offset : NULL;
    for (size_t p = 0; p < kc; p++, y += tile) {
        if (!f)
            rz_cpu_widen(y, x, offset + p * x.ld, n);
        else if (n == tile)
            memcpy(y, f + p * x.ld, tile * sizeof *y);
        else
            memcpy(y, f + p * x.ld, n * sizeof *y);
        if (n < tile) memset(y + n, 0, (tile - n) * sizeof *y);
    }
}

/* Full panels side by side from columns of x, row by row. A store may reach past its row of a panel: the next row's
 * store, which follows, puts that right. */
INLINE void gather_panels(float *restrict y, size_t tile, const float *restrict x, size_t ld, size_t panels, size_t kc)
{
    const size_t step = tile * kc;
    for (size_t p = 0; p + 1 < kc; p++, x += ld, y += tile) {
        for (size_t c = 0; c < panels * tile; c += LINE) __builtin_prefetch(x + ROWS_AHEAD * ld + c);
        for (size_t i = 0; i < panels; i++)
            for (size_t c = 0; c < tile; c += W) v_store(y + i * step + c, v_load(x + i * tile + c));
    }
    for (size_t i = 0; i < panels; i++) memcpy(y + i * step, x + i * tile, tile * sizeof *y);
}

INLINE void pack_columns(float *dst, size_t tile, rz_mat x, size_t offset, size_t count, size_t kc)
{
    for (size_t i = 0, n; i < count; i += n) {
        size_t panels = (count - i) / tile;
        if (x.dtype == RZ_F32 && panels) {
            panels = panels < PACK_GROUP ? panels : PACK_GROUP;
            gather_panels(dst + i * kc, tile, (const float *)x.data + offset + i, x.ld, panels, kc);
            n = panels * tile;
        } else {
            n = count - i < tile ? count - i : tile;
            gather_columns(dst + i * kc, tile, x, offset + i, n, kc);
        }
    }
}

static void pack(float *dst, size_t tile, rz_mat x, bool by_k, size_t offset, size_t count, size_t kc)
{
    if (by_k && tile == NR) {
        pack_columns(dst, NR, x, offset, count, kc);
        return;
    }
    if (by_k && tile == MR) {
        pack_columns(dst, MR, x, offset, count, kc);
        return;
    }
    for (size_t i = 0; i < count; i += tile, dst += tile * kc) {
        size_t n = count - i < tile ? count - i : tile;
        if (x.dtype == RZ_F32)
            interleave(dst, tile, (const float *)x.data + offset + i * x.ld, x.ld, n, kc);
        else
            interleave_wide(dst, tile, x, offset + i * x.ld, n, kc);
    }
}

/* ---- Tiles ------------------------------------------------------------------------------ */

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
#define TILE_STEP(r)                                                                                                   \
    {                                                                                                                  \
        vf ar = v_set(a[r]);                                                                                           \
        x##r = v_fma(ar, b0, x##r);                                                                                    \
        y##r = v_fma(ar, b1, y##r);                                                                                    \
    }
#define TILE_STORE(r)                                                                                                  \
    v_store(c + r * ldc, blend(x##r, alpha, beta, c + r * ldc, W));                                                    \
    v_store(c + r * ldc + W, blend(y##r, alpha, beta, c + r * ldc + W, W));
#define TILE_SPILL(r)                                                                                                  \
    v_store(edge + r * NR, x##r);                                                                                      \
    v_store(edge + r * NR + W, y##r);

#define TILE(ROWS)                                                                                                     \
    static void tile_##ROWS(size_t n, size_t kc, float alpha, const float *restrict a, const float *restrict b,        \
                            float beta, float *restrict c, size_t ldc)                                                 \
    {                                                                                                                  \
        ROWS_##ROWS(TILE_FETCH) ROWS_##ROWS(TILE_ZERO) for (size_t p = 0; p < kc; p++, a += MR, b += NR)               \
        {                                                                                                              \
            vf b0 = v_load(b), b1 = v_load(b + W);                                                                     \
            ROWS_##ROWS(TILE_STEP)                                                                                     \
        }                                                                                                              \
        if (n >= NR) {                                                                                                 \
            ROWS_##ROWS(TILE_STORE)                                                                                    \
        } else {                                                                                                       \
            float edge[MR * NR];                                                                                       \
            ROWS_##ROWS(TILE_SPILL) store_edge(edge, ROWS, n, alpha, beta, c, ldc);                                    \
        }                                                                                                              \
    }

#define ROWS_1(F) F(0)
#define ROWS_2(F) ROWS_1(F) F(1)
#define ROWS_3(F) ROWS_2(F) F(2)
#define ROWS_4(F) ROWS_3(F) F(3)
#define ROWS_5(F) ROWS_4(F) F(4)
#define ROWS_6(F) ROWS_5(F) F(5)
#define ROWS_7(F) ROWS_6(F) F(6)
#define ROWS_8(F) ROWS_7(F) F(7)
#define ROWS_9(F) ROWS_8(F) F(8)
#define ROWS_10(F) ROWS_9(F) F(9)
#define ROWS_11(F) ROWS_10(F) F(10)
#define ROWS_12(F) ROWS_11(F) F(11)

typedef void tile_fn(size_t n, size_t kc, float alpha, const float *a, const float *b, float beta, float *c,
                     size_t ldc);
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

static void gemm_block(size_t m, size_t n, size_t kc, float alpha, struct rz_packed a, struct rz_packed b, float beta,
                       float *c, size_t ldc)
{
    for (size_t j = 0; j < n; j += NR, b.data += b.stride) {
        const float *panel = a.data;
        for (size_t i = 0; i < m; i += MR, panel += a.stride)
            tiles[m - i < MR ? m - i : MR](n - j, kc, alpha, panel, b.data, beta, c + i * ldc + j, ldc);
    }
}
