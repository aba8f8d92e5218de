/* kernels_avx512_bf16.c - products of bfloat16 for x86-64 with AVX-512 BF16: a lane is a pair of neighbours along K.
 * SPDX-License-Identifier: Apache-2.0 */
#ifdef __x86_64__
#define RZ_W 16
#define RZ_MR 12
#include "cpu.h"
#include "vec.h"

/* c + the products of the pairs, the second first; numbers below 2^-126 count as zero. */
INLINE vf dot_pairs(vf a, vf b, vf c)
{
    return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
}
#define TILE_DOT dot_pairs
#include "kernels_tile.h"
#include "kernels_gemm.h"
#include "kernels_turned.h"

enum {
    DEPTH = 2048,
    STEP = 64,       /* numbers that are rounded at a time, of each row of a panel; */
    LONG_STEP = 512, /* of more rows than memory is read ahead of at once */
};

static inline __mmask16 first16(size_t n)
{
    return n < 16 ? (__mmask16)((1u << n) - 1) : 0xffff;
}

/* 4-bit integers of one group, from an even one on: the 16 numbers that they may be, then one of them for each. */
static void round_int4(uint16_t *restrict y, const uint8_t *restrict q, size_t n, float scale)
{
    const __m512 all = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i halves = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(all, _mm512_set1_ps(scale)));
    const __m512i table = _mm512_broadcast_i64x4(halves); /* twice: five bits of an index count */
    for (size_t i = 0; i < n; i += 32) {
        const __m512i b = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first16((n - i + 1) / 2), q + i / 2));
        const __m512i index = _mm512_or_si512(b, _mm512_slli_epi32(b, 12));
        const __mmask32 in = n - i < 32 ? (1u << (n - i)) - 1 : 0xffffffff;
        _mm512_mask_storeu_epi16(y + i, in, _mm512_permutexvar_epi16(index, table));
    }
}

static void round_int8(uint16_t *restrict y, const int8_t *restrict q, size_t n, float scale)
{
    for (size_t i = 0; i < n; i += W) {
        const __mmask16 in = first16(n - i);
        const __m512 f = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(in, q + i)));
        _mm256_mask_storeu_epi16(y + i, in, (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(f, _mm512_set1_ps(scale))));
    }
}

/* Integers from `offset` on, within one row. */
static void round_integers(uint16_t *restrict y, rz_mat x, size_t offset, size_t n)
{
    const size_t start = offset % x.ld, scales = offset / x.ld * rz_mat_groups(x);
    for (size_t c = start, step; c < start + n; c += step, offset += step, y += step) {
        const size_t left = start + n - c, to_end = x.group - c % x.group;
        const float scale = int_scale(x, scales + c / x.group);
        step = left < to_end ? left : to_end;
        if (x.dtype == RZ_I4)
            round_int4(y, (const uint8_t *)x.data + offset / 2, step, scale);
        else
            round_int8(y, (const int8_t *)x.data + offset, step, scale);
    }
}

/* n numbers of x from `offset` on (an even one of 4-bit integers), rounded, to y; a zero after an odd one. */
static void round_numbers(uint16_t *restrict y, rz_mat x, size_t offset, size_t n)
{
    float row[LONG_STEP];
    const float *f = x.dtype == RZ_F32 ? (const float *)x.data + offset : row;
    if (!rz_dtype_is_float(x.dtype)) {
        round_integers(y, x, offset, n);
        if (n % 2) y[n] = 0;
        return;
    }
    if (x.dtype != RZ_F32) rz_cpu_widen(row, x, offset, n);
    for (size_t i = 0; i < n; i += W) {
        const __m256i halves = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(first16(n - i), f + i));
        _mm256_mask_storeu_epi16(y + i, first16(n - i + n % 2), halves);
    }
}

/* One panel of `count` <= tile rows; a single row needs no interleaving. */
static void pack_rounded(float *dst, size_t tile, rz_mat x, size_t offset, size_t count, size_t kc)
{
    float lanes[SIDE * LONG_STEP / 2];
    const size_t step = tile == SIDE ? LONG_STEP : STEP, ahead = tile == SIDE ? 1 : tile;
    for (size_t p = 0; p < kc; p += step, dst += tile * step / 2) {
        const size_t n = kc - p < step ? kc - p : step;
        for (size_t i = 0; i < count; i++) {
            fetch(x, offset + (i + ahead) * x.ld + p, n); /* the next row, or the next panel's */
            round_numbers((uint16_t *)(void *)(tile == 1 ? dst : lanes + i * step / 2), x, offset + i * x.ld + p, n);
        }
        if (tile == 1) continue;
        interleave(dst, tile, lanes, step / 2, count, (n + 1) / 2, 0);
    }
}

static void pack_pairs(float *dst, size_t tile, rz_mat x, bool by_k, size_t offset, size_t count, size_t kc)
{
    (void)by_k;
    const uint16_t *h = x.data;
    const bool whole = x.dtype == RZ_BF16 && !((kc | x.ld | offset) & 1) && !((uintptr_t)h & 3);
    for (size_t i = 0; i < count; i += tile, offset += tile * x.ld, dst += tile * ((kc + 1) / 2)) {
        const size_t n = count - i < tile ? count - i : tile;
        if (whole)
            interleave(dst, tile, (const float *)(const void *)(h + offset), x.ld / 2, n, kc / 2, tile * x.ld / 2);
        else
            pack_rounded(dst, tile, x, offset, n, kc);
    }
}

const struct rz_gemm_kernels rz_kernels_avx512_bf16 = {
    "avx512 vdpbf16ps", MR, NR, 2, DEPTH, pack_pairs, gemm_block, gemm_rows, SIDE, gemm_turned, turn};
#else
typedef int rz_kernels_avx512_bf16_unused;
#endif
