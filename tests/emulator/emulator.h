/* emulator.h - the words of CUDA C++ that the kernels of lib/compute/cuda use, for g++: a thread of a block is a fiber
 * of engine.cpp. Included by kernels.cuh where RZ_EMULATOR is defined. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_EMULATOR_H
#define RZ_EMULATOR_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
/* Static in a function without saying so, and together in one place that the engine can find and fill. */
#define __shared__ thread_local

struct uint3 {
    unsigned x, y, z;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline float2 make_float2(float x, float y)
{
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

/* ---- Where a thread is, and waiting (engine.cpp) ------------------------------------------- */

extern uint3 threadIdx, blockIdx, blockDim, gridDim;

void *rz_emulator_shared(void); /* the block's dynamic shared memory */
void __syncthreads(void);
/* Waits until all 32 lanes of the warp have called it; then their bytes (128 at most) can be read with
 * rz_emulator_lane, until the next collective. */
void rz_emulator_exchange(const void *mine, size_t bytes);
const void *rz_emulator_lane(unsigned lane);
unsigned rz_emulator_lane_id(void);
/* An asynchronous copy of `present` bytes, zeros up to `size`: done when its thread calls rz_emulator_copy_now. */
void rz_emulator_copy_later(void *dst, const void *src, size_t present, size_t size);
void rz_emulator_copy_now(void);
/* Ends the process with one line that names kernel, block and thread. */
void rz_emulator_abort(const char *what) __attribute__((noreturn));

static inline void rz_emulator_full(unsigned mask)
{
    if (mask != 0xffffffffu) rz_emulator_abort("a warp collective without all 32 lanes");
}

static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    rz_emulator_full(mask);
    rz_emulator_exchange(nullptr, 0);
}

/* Lane `from` of the own group of `width`; the own value where there is no such lane. */
template <class T> static inline T rz_emulator_take(unsigned mask, T mine, int from, int width, bool wrap)
{
    rz_emulator_full(mask);
    rz_emulator_exchange(&mine, sizeof mine);
    const int lane = (int)rz_emulator_lane_id(), base = lane & ~(width - 1);
    if (wrap) from = base + (from & (width - 1));
    if (from < base || from >= base + width) return mine;
    memcpy(&mine, rz_emulator_lane((unsigned)from), sizeof mine);
    return mine;
}
template <class T> static inline T __shfl_sync(unsigned mask, T x, int lane, int width = 32)
{
    return rz_emulator_take(mask, x, lane, width, true);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T x, int bits, int width = 32)
{
    return rz_emulator_take(mask, x, (int)rz_emulator_lane_id() ^ bits, width, false);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32)
{
    return rz_emulator_take(mask, x, (int)(rz_emulator_lane_id() + by), width, false);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32)
{
    return rz_emulator_take(mask, x, (int)rz_emulator_lane_id() - (int)by, width, false);
}
static inline unsigned __ballot_sync(unsigned mask, int yes)
{
    rz_emulator_full(mask);
    const unsigned char mine = yes != 0;
    unsigned all = 0;
    rz_emulator_exchange(&mine, 1);
    for (unsigned i = 0; i < 32; i++) all |= (unsigned)*(const unsigned char *)rz_emulator_lane(i) << i;
    return all;
}
static inline int __any_sync(unsigned mask, int yes)
{
    return __ballot_sync(mask, yes) != 0;
}
static inline int __all_sync(unsigned mask, int yes)
{
    return __ballot_sync(mask, yes) == 0xffffffffu;
}

/* ---- Arithmetic -------------------------------------------------------------------------------- */

#define __expf expf /* the C library has functions of these names, which it does not declare for all to call */
#define __logf logf
#define __powf powf
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline float __fdividef(float x, float y)
{
    return x / y;
}
template <class T> static inline T __ldg(const T *p)
{
    return *p;
}
template <class A, class B> static inline typename std::common_type<A, B>::type min(A a, B b)
{
    return b < a ? b : a;
}
template <class A, class B> static inline typename std::common_type<A, B>::type max(A a, B b)
{
    return a < b ? b : a;
}

#endif
