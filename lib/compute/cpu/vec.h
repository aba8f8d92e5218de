/* vec.h - RZ_W floats at a time, with the vector extensions of gcc and clang. Included by kernels.h, once per
 * kernel set, each with its own width; nothing here depends on the instruction set except the spelling of FMA.
 * A lane's result never depends on the other lanes. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_VEC_H
#define RZ_VEC_H

#include "base.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

#define W RZ_W
#define INLINE static inline __attribute__((always_inline, unused))

#pragma GCC diagnostic ignored "-Wpsabi" /* everything that passes vectors is inlined */

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef float vf_mem __attribute__((vector_size(4 * W), aligned(4), may_alias));

INLINE vf v_set(float x)
{
    return x - (vf){0};
} /* minus: keeps -0 */
INLINE vf v_load(const float *p)
{
    return *(const vf_mem *)p;
}
INLINE void v_store(float *p, vf v)
{
    *(vf_mem *)p = v;
}

/* The first n lanes (n may exceed W), zeros after them. */
INLINE vf v_load_n(const float *p, size_t n)
{
    if (n >= W) return v_load(p);
    vf v = {0};
    memcpy(&v, p, n * sizeof *p);
    return v;
}
INLINE void v_store_n(float *p, vf v, size_t n)
{
    if (n >= W)
        v_store(p, v);
    else
        memcpy(p, &v, n * sizeof *p);
}

INLINE vf v_fma(vf a, vf b, vf c)
{
#if W == 16 && defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif W == 8 && defined(__FMA__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* mask ? a : b, lane by lane; a mask is what a comparison gives. */
INLINE vf v_select(vi mask, vf a, vf b)
{
#if W == 8 && defined(__FMA__)
    return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#else
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
#endif
}
/* a > b ? a : b and a < b ? a : b: where either is NaN, b. */
INLINE vf v_max(vf a, vf b)
{
#if W == 16 && defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif W == 8 && defined(__FMA__)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return v_select(a > b, a, b);
#endif
}
INLINE vf v_min(vf a, vf b)
{
#if W == 16 && defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif W == 8 && defined(__FMA__)
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return v_select(a < b, a, b);
#endif
}
INLINE vf v_abs(vf a)
{
    return (vf)((vi)a & 0x7fffffff);
}

INLINE vf v_sqrt(vf a)
{
#if W == 16 && defined(__AVX512F__)
    return (vf)_mm512_sqrt_ps((__m512)a);
#elif W == 8 && defined(__FMA__)
    return (vf)_mm256_sqrt_ps((__m256)a);
#else
    for (int i = 0; i < W; i++) a[i] = sqrtf(a[i]);
    return a;
#endif
}

/* Lane numbers 0, 1, 2, ... */
INLINE vi v_lanes(void)
{
    vi v;
    for (int i = 0; i < W; i++) v[i] = i;
    return v;
}
/* v with the lanes from n on set to zero. */
INLINE vf v_keep(vf v, size_t n)
{
    if (n >= W) return v;
    return (vf)((vi)v & (v_lanes() < (int32_t)n));
}

/* Sum of the lanes, by halves: a fixed order. */
INLINE float v_sum(vf v)
{
    for (int h = W / 2; h > 0; h /= 2)
        for (int i = 0; i < h; i++) v[i] += v[i + h];
    return v[0];
}
INLINE float v_max1(vf v)
{
    for (int h = W / 2; h > 0; h /= 2)
        for (int i = 0; i < h; i++) v[i] = v[i] > v[i + h] ? v[i] : v[i + h];
    return v[0];
}

/* e^x within 1.5 ulp, denormal results included; NaN stays NaN, overflow gives infinity. */
INLINE vf v_exp(vf x)
{
    x = v_max(v_set(-104.0f), v_min(v_set(89.0f), x));
    const vf magic = v_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    vf shifted = v_fma(x, v_set(1.44269504f), magic);
    vf n = shifted - magic;
    vi ni = (vi)((vu)shifted - (vu)magic);
    vf r = v_fma(n, v_set(-0.693359375f), x); /* ln 2 in two parts, the first with few bits */
    r = v_fma(n, v_set(2.12194440e-4f), r);
    vf p = v_set(1.98412698e-4f); /* Taylor: 1/7! ... */
    p = v_fma(p, r, v_set(1.38888889e-3f));
    p = v_fma(p, r, v_set(8.33333333e-3f));
    p = v_fma(p, r, v_set(4.16666667e-2f));
    p = v_fma(p, r, v_set(1.66666667e-1f));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(p, r * r, r) + 1.0f;
    vi half = ni >> 1; /* 2^n in two steps: n = 128 and denormals come out right */
    vf s1 = (vf)((vu)(half + 127) << 23);
    vf s2 = (vf)((vu)(ni - half + 127) << 23);
    return p * s1 * s2;
}

INLINE vf v_sigmoid(vf x)
{
    return 1.0f / (1.0f + v_exp(-x));
}

/* Normal distribution: the density's e^(-x^2/2) to *e, the probability of being below x returned.
 * Tail(a) = e^(-a^2/2) P(1 / (1 + 0.26 a)) for a >= 0; P fitted by this project (relative error 1e-8 on [0, 14]). */
INLINE vf v_normal_cdf(vf x, vf *e)
{
    vf a = v_abs(x);
    vf t = 1.0f / v_fma(a, v_set(0.26f), v_set(1.0f));
    vf p = v_set(0.033925845766134444f);
    p = v_fma(p, t, v_set(-0.17051679352448446f));
    p = v_fma(p, t, v_set(0.29097721640565055f));
    p = v_fma(p, t, v_set(-0.20080392808738168f));
    p = v_fma(p, t, v_set(0.2001108295979197f));
    p = v_fma(p, t, v_set(0.03121159280490904f));
    p = v_fma(p, t, v_set(0.10948003985088772f));
    p = v_fma(p, t, v_set(0.10171580322892171f));
    p = v_fma(p, t, v_set(0.1039065604026469f));
    p = v_fma(p, t, v_set(-7.163727381270801e-06f));
    *e = v_exp(-0.5f * (a * a));
    vf tail = p * *e;
    return v_select(x < (vf){0}, tail, 1.0f - tail);
}

#endif
