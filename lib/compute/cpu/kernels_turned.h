/* kernels_turned.h - the GEMM tile lying on its side: eight columns of B, read as they lie, by up to three vectors of
 * rows of A. What it makes is C turned. The sums are those of kernels_gemm.h, to the bit. Part of the files that
 * include that one. SPDX-License-Identifier: Apache-2.0 */

#define TURNED_ZERO_1(r) vf x##r = {0};
#define TURNED_ZERO_2(r) TURNED_ZERO_1(r) vf y##r = {0};
#define TURNED_ZERO_3(r) TURNED_ZERO_2(r) vf z##r = {0};
#define TURNED_DOT_1(r) x##r = TILE_DOT(br, v0, x##r);
#define TURNED_DOT_2(r) TURNED_DOT_1(r) y##r = TILE_DOT(br, v1, y##r);
#define TURNED_DOT_3(r) TURNED_DOT_2(r) z##r = TILE_DOT(br, v2, z##r);
#define TURNED_STORE_1(r) turned_store(t + r * ldt, x##r, alpha, beta);
#define TURNED_STORE_2(r) TURNED_STORE_1(r) turned_store(t + r * ldt + W, y##r, alpha, beta);
#define TURNED_STORE_3(r) TURNED_STORE_2(r) turned_store(t + r * ldt + 2 * W, z##r, alpha, beta);

#define TURNED_FETCH_1(r) __builtin_prefetch(t + r * ldt);
#define TURNED_FETCH_2(r) TURNED_FETCH_1(r) __builtin_prefetch(t + r * ldt + W);
#define TURNED_FETCH_3(r) TURNED_FETCH_2(r) __builtin_prefetch(t + r * ldt + 2 * W);

INLINE void turned_store(float *t, vf x, float alpha, float beta)
{
    v_store(t, blend(x, alpha, beta, t, W));
}

/* Column r of B: they lie `row` floats apart, three share a pointer. */
#define TURNED_B_0 b0[0]
#define TURNED_B_1 b0[row]
#define TURNED_B_2 b0[2 * row]
#define TURNED_B_3 b3[0]
#define TURNED_B_4 b3[row]
#define TURNED_B_5 b3[2 * row]
#define TURNED_B_6 b6[0]
#define TURNED_B_7 b6[row]
#define TURNED_STEP_1(r)                                                                                               \
    {                                                                                                                  \
        const vf br = v_set(TURNED_B_##r);                                                                             \
        TURNED_DOT_1(r)                                                                                                \
    }
#define TURNED_STEP_2(r)                                                                                               \
    {                                                                                                                  \
        const vf br = v_set(TURNED_B_##r);                                                                             \
        TURNED_DOT_2(r)                                                                                                \
    }
#define TURNED_STEP_3(r)                                                                                               \
    {                                                                                                                  \
        const vf br = v_set(TURNED_B_##r);                                                                             \
        TURNED_DOT_3(r)                                                                                                \
    }
#define TURNED_LOAD_1 const vf v0 = v_load(a);
#define TURNED_LOAD_2 TURNED_LOAD_1 const vf v1 = v_load(a + W);
#define TURNED_LOAD_3 TURNED_LOAD_2 const vf v2 = v_load(a + 2 * W);

#define TURNED(COLS, VECTORS)                                                                                          \
    static void turned_##COLS##_##VECTORS(size_t kc, float alpha, const float *restrict a, const float *b0,            \
                                          size_t row, float beta, float *restrict t, size_t ldt)                       \
    {                                                                                                                  \
        const float *b3 = b0 + 3 * row, *b6 = b0 + 6 * row;                                                            \
        FORGET(b3);                                                                                                    \
        FORGET(b6);                                                                                                    \
        ROWS_##COLS(TURNED_FETCH_##VECTORS)                                                                            \
            ROWS_##COLS(TURNED_ZERO_##VECTORS) for (size_t p = 0; p < kc; p++, a += SIDE, b0++, b3++, b6++){           \
                TURNED_LOAD_##VECTORS ROWS_##COLS(TURNED_STEP_##VECTORS)} FORGET(ldt);                                 \
        ROWS_##COLS(TURNED_STORE_##VECTORS)                                                                            \
    }
TURNED(1, 1)
TURNED(1, 2)
TURNED(1, 3)
TURNED(8, 1)
TURNED(8, 2)
TURNED(8, 3)

typedef void turned_fn(size_t kc, float alpha, const float *a, const float *b, size_t row, float beta, float *t,
                       size_t ldt);
static turned_fn *const turned_tiles[2][SIDE / W] = {{turned_1_1, turned_1_2, turned_1_3},
                                                     {turned_8_1, turned_8_2, turned_8_3}};

/* Panels of A stream from the L2 cache past eight columns of B. */
static void gemm_turned(size_t m, size_t n, size_t kc, float alpha, struct rz_packed a, const float *b, size_t ldb,
                        float beta, float *t, size_t ldt)
{
    for (size_t j = 0, cols; j < n; j += cols) {
        const bool whole = n - j >= 8;
        const float *panel = a.data;
        cols = whole ? 8 : 1;
        for (size_t i = 0; i < m; i += SIDE, panel += a.stride) {
            const size_t vectors = m - i < SIDE ? (m - i + W - 1) / W : SIDE / W;
            turned_tiles[whole][vectors - 1](kc, alpha, panel, b + j * ldb, ldb, beta, t + j * ldt + i, ldt);
        }
    }
}

/* A block of 16 by 16, or what there is of it at the edge. */
INLINE void turn_block(float *restrict y, size_t ldy, const float *restrict x, size_t ldx, size_t rows, size_t cols,
                       bool past)
{
    if (rows >= W && cols >= W) {
        transpose16(y, ldy, x, ldx, past);
        return;
    }
    for (size_t i = 0; i < cols && i < W; i++)
        for (size_t j = 0; j < rows && j < W; j++) y[i * ldy + j] = x[j * ldx + i];
}

static void turn(float *restrict y, size_t ldy, const float *restrict x, size_t ldx, size_t rows, size_t cols,
                 bool past)
{
    past = past && ldy % LINE == 0 && (uintptr_t)y % (LINE * sizeof *y) == 0;
    for (size_t i = 0; i < cols; i += W)
        for (size_t j = 0; j < rows; j += W) {
            float *to = y + i * ldy + j;
            if (past)
                turn_block(to, ldy, x + j * ldx + i, ldx, rows - j, cols - i, true);
            else
                turn_block(to, ldy, x + j * ldx + i, ldx, rows - j, cols - i, false);
        }
    if (past) _mm_sfence();
}
