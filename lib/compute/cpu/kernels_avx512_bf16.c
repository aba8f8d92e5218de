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

enum { DEPTH = 768, STEP = 64 }; /* numbers that are rounded at a time, of each row of a panel */

/* n numbers of x from `offset` on, rounded, to y; a zero after an odd one. */
static void round_numbers(uint16_t *restrict y, rz_mat x, size_t offset, size_t n)
{
    float row[STEP];
    const float *f = x.dtype == RZ_F32 ? (const float *)x.data + offset : row;
    if (x.dtype != RZ_F32) rz_cpu_widen(row, x, offset, n);
    for (size_t i = 0; i < n; i += W) {
        const __mmask16 in = n - i < W ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
        const __m256i halves = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(in, f + i));
        _mm256_mask_storeu_epi16(y + i, (__mmask16)(in | in << 1), halves);
    }
}

/* One panel of `count` <= tile rows. */
static void pack_rounded(float *dst, size_t tile, rz_mat x, size_t offset, size_t count, size_t kc)
{
    float lanes[NR * STEP / 2];
    for (size_t p = 0; p < kc; p += STEP, dst += tile * STEP / 2) {
        const size_t n = kc - p < STEP ? kc - p : STEP;
        for (size_t i = 0; i < count; i++)
            round_numbers((uint16_t *)(void *)(lanes + i * STEP / 2), x, offset + i * x.ld + p, n);
        interleave(dst, tile, lanes, STEP / 2, count, (n + 1) / 2);
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
            interleave(dst, tile, (const float *)(const void *)(h + offset), x.ld / 2, n, kc / 2);
        else
            pack_rounded(dst, tile, x, offset, n, kc);
    }
}

const struct rz_gemm_kernels rz_kernels_avx512_bf16 = {"avx512 vdpbf16ps", MR, NR, 2, DEPTH, pack_pairs, gemm_block};
#else
typedef int rz_kernels_avx512_bf16_unused;
#endif
