/* kernels_gemm.h - packing and the GEMM tile: MR rows by two vectors of C stay in registers while K runs.
 * Every element of C is one chain of multiply-adds in the order of K, in whatever tile it lies.
 * Part of kernels.h. SPDX-License-Identifier: Apache-2.0 */

enum {
    PACK_STEP = 64,  /* half-precision rows are widened this many elements at a time */
    PACK_GROUP = 8,  /* panels that are packed side by side, so that rows are read in whole cache lines */
    ROWS_AHEAD = 12, /* how far ahead such rows are fetched: strides defeat the processor's own prefetching */
};

/* ---- Packing ------------------------------------------------------------------------- */

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
