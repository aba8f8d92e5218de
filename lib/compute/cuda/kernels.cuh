/* kernels.cuh - what the kernels of the CUDA device share. They are compiled twice: by nvcc for GPUs, and by g++ with
 * RZ_EMULATOR for the emulator of the tests, whose emulator.h gives the words of CUDA C++ that are used (__global__,
 * threadIdx, __syncthreads, __shfl_*_sync with all 32 lanes, float4, ...). What only a GPU has stands here, each in one
 * small function with a twin in plain C++. Compiled without contraction: fmaf is written where it is meant.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_KERNELS_CUH
#define RZ_KERNELS_CUH

#ifdef RZ_EMULATOR
#include "emulator.h"
#endif
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define RZ_DEVICE static __device__ __forceinline__
#define RZ_WARP 32
#define RZ_ALL_LANES 0xffffffffu

/* The block's dynamic shared memory, aligned to 16 bytes: RZ_SHARED(float, tile); */
#ifdef RZ_EMULATOR
#define RZ_SHARED(type, name) type *const name = (type *)rz_emulator_shared()
#else
extern __shared__ __align__(16) unsigned char rz_dynamic_shared[];
#define RZ_SHARED(type, name) type *const name = (type *)rz_dynamic_shared
#endif

/* ---- Bits and types ------------------------------------------------------------------------ */

RZ_DEVICE uint32_t rz_bits(float x)
{
#ifdef RZ_EMULATOR
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
#else
    return __float_as_uint(x);
#endif
}
RZ_DEVICE float rz_from_bits(uint32_t u)
{
#ifdef RZ_EMULATOR
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
#else
    return __uint_as_float(u);
#endif
}

RZ_DEVICE float rz_bf16_to_float(uint16_t h)
{
    return rz_from_bits((uint32_t)h << 16);
}
/* Nearest even; NaN stays NaN, with the bits that the CPU gives it. */
RZ_DEVICE uint16_t rz_float_to_bf16(float x)
{
    const uint32_t bits = rz_bits(x);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return (uint16_t)((nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
/* Two at once, `low` in the low half; a NaN is some NaN. */
RZ_DEVICE uint32_t rz_pack_bf16(float low, float high)
{
#if !defined(RZ_EMULATOR) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t d;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
    return d;
#else
    return (uint32_t)rz_float_to_bf16(high) << 16 | rz_float_to_bf16(low);
#endif
}
RZ_DEVICE float rz_low_bf16(uint32_t pair)
{
    return rz_from_bits(pair << 16);
}
RZ_DEVICE float rz_high_bf16(uint32_t pair)
{
    return rz_from_bits(pair & 0xffff0000u);
}

RZ_DEVICE float rz_f16_to_float(uint16_t h)
{
    float f = rz_from_bits((uint32_t)(h & 0x7fff) << 13) * 0x1p112f; /* moves the exponent, denormals too */
    uint32_t bits = rz_bits(f);
    if ((h & 0x7c00) == 0x7c00) bits |= 0x7f800000u;
    return rz_from_bits(bits | (uint32_t)(h & 0x8000) << 16);
}

/* 2^x to 22 bits, subnormals taken for zero. */
RZ_DEVICE float rz_exp2(float x)
{
#ifdef RZ_EMULATOR
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

/* May n items of `size` bytes from p on be read 16 bytes at a time? */
RZ_DEVICE bool rz_in_sixteens(const void *p, size_t n, size_t size)
{
    return (((size_t)p | n * size) & 15) == 0;
}

/* Four floats. WIDE: p is aligned to 16 bytes and n is at least 4; else the first n of them, zeros after them. */
struct rz_quad {
    float v[4];
};
template <bool WIDE> RZ_DEVICE rz_quad rz_load4(const float *p, size_t n)
{
    rz_quad q;
    if (WIDE) {
        const float4 f = *(const float4 *)p;
        q.v[0] = f.x, q.v[1] = f.y, q.v[2] = f.z, q.v[3] = f.w;
    } else {
        for (unsigned k = 0; k < 4; k++) q.v[k] = k < n ? p[k] : 0;
    }
    return q;
}
template <bool WIDE> RZ_DEVICE void rz_store4(float *p, rz_quad q, size_t n)
{
    if (WIDE)
        *(float4 *)p = make_float4(q.v[0], q.v[1], q.v[2], q.v[3]);
    else
        for (unsigned k = 0; k < 4; k++)
            if (k < n) p[k] = q.v[k];
}

RZ_DEVICE unsigned rz_popcount(uint32_t x)
{
#ifdef RZ_EMULATOR
    return (unsigned)__builtin_popcount(x);
#else
    return (unsigned)__popc(x);
#endif
}

/* ---- Sums and maxima: the same bits in every thread, in an order that the block's size alone decides ------------ */

RZ_DEVICE float rz_warp_sum(float x)
{
    for (int i = RZ_WARP / 2; i > 0; i /= 2) x += __shfl_xor_sync(RZ_ALL_LANES, x, i);
    return x;
}
RZ_DEVICE double rz_warp_sum(double x)
{
    for (int i = RZ_WARP / 2; i > 0; i /= 2) x += __shfl_xor_sync(RZ_ALL_LANES, x, i);
    return x;
}
/* NaN is passed over, as fmaxf does. */
RZ_DEVICE float rz_warp_max(float x)
{
    for (int i = RZ_WARP / 2; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(RZ_ALL_LANES, x, i));
    return x;
}

/* Over a block of one dimension, a multiple of 32 threads, all of which call; part: RZ_WARP places of shared memory,
 * which may be used again by the next call. */
template <typename T> RZ_DEVICE T rz_block_sum(T x, T *part)
{
    const unsigned lane = threadIdx.x % RZ_WARP, warps = blockDim.x / RZ_WARP;
    x = rz_warp_sum(x);
    if (warps == 1) return x;
    __syncthreads(); /* part may still be read */
    if (lane == 0) part[threadIdx.x / RZ_WARP] = x;
    __syncthreads();
    return rz_warp_sum(lane < warps ? part[lane] : (T)0);
}
RZ_DEVICE float rz_block_max(float x, float *part)
{
    const unsigned lane = threadIdx.x % RZ_WARP, warps = blockDim.x / RZ_WARP;
    x = rz_warp_max(x);
    if (warps == 1) return x;
    __syncthreads();
    if (lane == 0) part[threadIdx.x / RZ_WARP] = x;
    __syncthreads();
    return rz_warp_max(lane < warps ? part[lane] : -INFINITY);
}

/* Is x true in any thread of the block? All call; a barrier. */
RZ_DEVICE bool rz_block_any(bool x)
{
#ifdef RZ_EMULATOR
    __shared__ int any;
    __syncthreads();
    if (threadIdx.x + threadIdx.y == 0) any = 0;
    __syncthreads();
    if (x) any = 1;
    __syncthreads();
    return any != 0;
#else
    return __syncthreads_or(x) != 0;
#endif
}

/* ---- Activations: the numbers of rz_act_kind, the formulas of the CPU's kernels_rows.h ------------------------- */

#define RZ_TANH_A 1.5957691216f /* 2 sqrt(2 / pi): gelu_tanh(x) = x sigmoid(A (x + B x^3)) */
#define RZ_TANH_B 0.044715f
#define RZ_QUICK 1.702f
#define RZ_INV_SQRT_2PI 0.39894228040f

RZ_DEVICE float rz_sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* Normal distribution: e^(-x^2/2) to *e, the probability of being below x returned. P as in the CPU's vec.h. */
RZ_DEVICE float rz_normal_cdf(float x, float *e)
{
    const float a = fabsf(x), t = 1.0f / fmaf(a, 0.26f, 1.0f);
    float p = 0.033925845766134444f;
    p = fmaf(p, t, -0.17051679352448446f);
    p = fmaf(p, t, 0.29097721640565055f);
    p = fmaf(p, t, -0.20080392808738168f);
    p = fmaf(p, t, 0.2001108295979197f);
    p = fmaf(p, t, 0.03121159280490904f);
    p = fmaf(p, t, 0.10948003985088772f);
    p = fmaf(p, t, 0.10171580322892171f);
    p = fmaf(p, t, 0.1039065604026469f);
    p = fmaf(p, t, -7.163727381270801e-06f);
    *e = expf(-0.5f * (a * a));
    const float tail = p * *e;
    return x < 0 ? tail : 1.0f - tail;
}

enum { RZ_KIND_QUICK_GELU, RZ_KIND_GELU, RZ_KIND_GELU_TANH, RZ_KIND_SILU, RZ_KIND_RELU };

/* The activation of x returned, its derivative to *d. */
RZ_DEVICE float rz_act_both(int kind, float x, float *d)
{
    float u = x, du = 1.0f, s;
    if (kind == RZ_KIND_RELU) {
        *d = x > 0 ? 1.0f : 0.0f * x; /* NaN stays */
        return x < 0 ? 0.0f : x;
    }
    if (kind == RZ_KIND_GELU) {
        s = rz_normal_cdf(x, &u);
        *d = fmaf(x * u, RZ_INV_SQRT_2PI, s);
        return x * s;
    }
    if (kind == RZ_KIND_GELU_TANH) {
        u = RZ_TANH_A * (x * fmaf(RZ_TANH_B * x, x, 1.0f));
        du = RZ_TANH_A * fmaf(3 * RZ_TANH_B * x, x, 1.0f);
    } else if (kind == RZ_KIND_QUICK_GELU) {
        u = RZ_QUICK * x;
        du = RZ_QUICK;
    }
    s = rz_sigmoid(u);
    *d = s + x * du * (s * (1.0f - s));
    return x * s;
}
RZ_DEVICE float rz_act_of(int kind, float x)
{
    float d;
    return rz_act_both(kind, x, &d);
}

/* ---- Shared memory by its own addresses; copies into it that run by themselves ---------------------------------- */

/* Is it compiled for compute capability 8.0, or the emulator? */
#if defined(RZ_EMULATOR) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800)
#define RZ_HAS_MMA 1
#else
#define RZ_HAS_MMA 0
#endif

/* In the emulator: bytes from the beginning of the dynamic shared memory. */
RZ_DEVICE uint32_t rz_shared_at(const void *p)
{
#ifdef RZ_EMULATOR
    return (uint32_t)((const char *)p - (const char *)rz_emulator_shared());
#else
    return (uint32_t)__cvta_generic_to_shared(p);
#endif
}

/* 4 or 16 bytes into shared memory, both sides aligned to as many; zeros, and nothing is read, unless `present`. There
 * after this thread's rz_async_wait, and for others after a barrier behind that. */
template <int BYTES> RZ_DEVICE void rz_async(void *to, const void *from, bool present)
{
#if defined(RZ_EMULATOR)
    rz_emulator_copy_later(to, from, present ? BYTES : 0, BYTES);
#elif RZ_HAS_MMA
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(rz_shared_at(to)), "l"(from), "n"(BYTES),
                 "r"(present ? BYTES : 0)
                 : "memory");
#else
    for (int i = 0; i < BYTES / 4; i++) ((uint32_t *)to)[i] = present ? ((const uint32_t *)from)[i] : 0;
#endif
}
RZ_DEVICE void rz_async_wait(void)
{
#if defined(RZ_EMULATOR)
    rz_emulator_copy_now();
#elif RZ_HAS_MMA
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

#if RZ_HAS_MMA
/* The same of 16 bytes that no other block of the multiprocessor will want; `to` as of rz_shared_at. */
RZ_DEVICE void rz_async_16(uint32_t to, const void *from, bool present)
{
#ifdef RZ_EMULATOR
    rz_async<16>((char *)rz_emulator_shared() + to, from, present);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(present ? 16 : 0)
                 : "memory");
#endif
}

/* ---- Matrix units, for a warp; all lanes call ------------------------------------------------------------------- */

/* Four 8 x 8 matrices of bfloat16: lane l gives the place of row l % 8 (16 bytes) of matrix l / 8, and gets of each
 * matrix row l / 4 at columns 2 (l % 4) + {0, 1}; with `turned` column l / 4 at these rows. */
template <bool turned> RZ_DEVICE void rz_load_matrices(uint32_t d[4], uint32_t at)
{
#ifdef RZ_EMULATOR
    const unsigned lane = threadIdx.x % RZ_WARP, high = lane / 4, low = lane % 4 * 2;
    rz_emulator_exchange(&at, sizeof at);
    for (unsigned m = 0; m < 4; m++) {
        uint16_t x[2];
        for (unsigned i = 0; i < 2; i++) {
            const unsigned row = turned ? low + i : high, column = turned ? high : low + i;
            const uint32_t from = *(const uint32_t *)rz_emulator_lane(8 * m + row);
            memcpy(&x[i], (const char *)rz_emulator_shared() + from + 2 * column, sizeof x[i]);
        }
        d[m] = (uint32_t)x[1] << 16 | x[0];
    }
#else
    if (turned)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                     : "r"(at));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                     : "r"(at));
#endif
}

/* d += a b; a (16, 16) and b (16, 8) of bfloat16, d (16, 8) of float, in the registers of PTX's mma.m16n8k16: lane l
 * holds of a rows l / 4 and l / 4 + 8 at columns 2 (l % 4) + {0, 1} (a[0], a[1]) and + 8 (a[2], a[3]); of b column
 * l / 4 at rows 2 (l % 4) + {0, 1} (b[0]) and + 8 (b[1]); of d rows l / 4 and l / 4 + 8 at columns
 * 2 (l % 4) + {0, 1}. */
RZ_DEVICE void rz_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef RZ_EMULATOR
    const unsigned lane = threadIdx.x % RZ_WARP, row = lane / 4, col = lane % 4 * 2;
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    rz_emulator_exchange(mine, sizeof mine);
    for (unsigned k = 0; k < 8; k++) { /* pairs of columns of a */
        const uint32_t *const x = (const uint32_t *)rz_emulator_lane(row * 4 + k % 4) + k / 4 * 2;
        for (unsigned i = 0; i < 4; i++) {
            const uint32_t w = ((const uint32_t *)rz_emulator_lane((col + i % 2) * 4 + k % 4))[4 + k / 4];
            d[i] += rz_low_bf16(x[i / 2]) * rz_low_bf16(w) + rz_high_bf16(x[i / 2]) * rz_high_bf16(w);
        }
    }
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
#endif

#endif
