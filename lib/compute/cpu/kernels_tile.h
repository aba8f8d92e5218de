/* kernels_tile.h - what the products of every type share: the size of a tile, panels made from rows, macros that repeat
 * a line for each row of a tile. Part of kernels.h. SPDX-License-Identifier: Apache-2.0 */

#define MR RZ_MR
#define NR (2 * W)
#define SIDE (3 * W) /* rows of A beside each other in a turned tile */
enum { LINE = 16 };  /* floats in a cache line */

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

#if W == 16 && defined(__AVX512F__)
INLINE void store16(float *y, __m512 x, bool past)
{
    if (past)
        _mm512_stream_ps(y, x);
    else
        _mm512_storeu_ps(y, x);
}

/* 16 by 16; `past` the caches, in whole lines. */
INLINE void transpose16(float *y, size_t tile, const float *x, size_t ld, bool past)
{
    __m512 r[16], t[16];
    for (int i = 0; i < 16; i++, x += ld) r[i] = _mm512_loadu_ps(x);
    for (int i = 0; i < 16; i += 2) { /* pairs of rows, then fours, within each 128 bits */
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = (__m512)_mm512_unpacklo_pd((__m512d)t[i + j], (__m512d)t[i + j + 2]);
            r[i + 2 * j + 1] = (__m512)_mm512_unpackhi_pd((__m512d)t[i + j], (__m512d)t[i + j + 2]);
        }
    for (int j = 0; j < 4; j++) { /* column 4 l + j of rows 4 i .. 4 i + 3 is in lane l of r[4 i + j] */
        const __m512 a = _mm512_shuffle_f32x4(r[j], r[4 + j], 0x88),
                     b = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0x88);
        const __m512 c = _mm512_shuffle_f32x4(r[j], r[4 + j], 0xdd),
                     d = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0xdd);
        store16(y + (size_t)j * tile, _mm512_shuffle_f32x4(a, b, 0x88), past);
        store16(y + (size_t)(4 + j) * tile, _mm512_shuffle_f32x4(c, d, 0x88), past);
        store16(y + (size_t)(8 + j) * tile, _mm512_shuffle_f32x4(a, b, 0xdd), past);
        store16(y + (size_t)(12 + j) * tile, _mm512_shuffle_f32x4(c, d, 0xdd), past);
    }
}
#endif

/* One panel from rows of x: y[p * tile + i] = x[i * ld + p], i < n <= tile; zeros for the other i of NR and SIDE,
 * of MR rows nobody reads more than there are. What lies `ahead` floats further on is fetched meanwhile. */
static void interleave(float *restrict y, size_t tile, const float *restrict x, size_t ld, size_t n, size_t kc,
                       size_t ahead)
{
    size_t i = 0;
#if W == 16 && defined(__AVX512F__)
    for (; i + 16 <= n; i += 16) {
        size_t p = 0;
        for (; p + LINE <= kc; p += LINE) {
            for (size_t r = i; r < i + 16; r++) __builtin_prefetch(x + r * ld + p + ahead, 0, 2);
            transpose16(y + p * tile + i, tile, x + i * ld + p, ld, false);
        }
        for (; p < kc; p++)
            for (size_t j = i; j < i + 16; j++) y[p * tile + j] = x[j * ld + p];
    }
#endif
    for (; i + 4 <= n; i += 4) {
        size_t p = 0;
        for (; p + LINE <= kc; p += LINE) {
            for (size_t r = i; r < i + 4; r++) __builtin_prefetch(x + r * ld + p + ahead);
            for (size_t q = p; q < p + LINE; q += 4) transpose4(y + q * tile + i, tile, x + i * ld + q, ld);
        }
        for (; p + 4 <= kc; p += 4) transpose4(y + p * tile + i, tile, x + i * ld + p, ld);
        for (; p < kc; p++)
            for (size_t j = i; j < i + 4; j++) y[p * tile + j] = x[j * ld + p];
    }
    for (; i + 2 <= n; i += 2) {
        size_t p = 0;
        for (; p + LINE <= kc; p += LINE) {
            __builtin_prefetch(x + i * ld + p + ahead);
            __builtin_prefetch(x + (i + 1) * ld + p + ahead);
            for (size_t q = p; q < p + LINE; q += 4) transpose2(y + q * tile + i, tile, x + i * ld + q, ld);
        }
        for (; p + 4 <= kc; p += 4) transpose2(y + p * tile + i, tile, x + i * ld + p, ld);
        for (; p < kc; p++) {
            y[p * tile + i] = x[i * ld + p];
            y[p * tile + i + 1] = x[(i + 1) * ld + p];
        }
    }
    for (; i < n; i++)
        for (size_t p = 0; p < kc; p++) y[p * tile + i] = x[i * ld + p];
    for (size_t p = 0; i < tile && tile >= NR && p < kc; p++) memset(y + p * tile + i, 0, (tile - i) * sizeof *y);
}

/* Fetches n elements of x from `offset` on. */
INLINE void fetch(rz_mat x, size_t offset, size_t n)
{
    const char *bytes = (const char *)x.data + rz_dtype_bytes(x.dtype, offset);
    for (size_t i = 0; i < rz_dtype_bytes(x.dtype, n); i += 4 * LINE) __builtin_prefetch(bytes + i, 0, 2);
}

/* The i-th scale of a matrix of integers. */
INLINE float int_scale(rz_mat x, size_t i)
{
    float f;
    if (x.scale_dtype == RZ_F32) {
        memcpy(&f, (const char *)x.scale + 4 * i, sizeof f);
        return f;
    }
    uint32_t bits = (uint32_t)((const uint16_t *)x.scale)[i] << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Addresses made of x before are made anew after this, not kept where the sums should be. */
#define FORGET(x) __asm__ volatile("" : "+r"(x))

/* ---- Rows of a tile: named variables, not arrays, so that every compiler keeps them in registers ---- */

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
