/* kernels_half.cu - activations of bfloat16: eight to 16 bytes, computed as floats. The CPU's cpu_half.c says what they
 * compute. All of them wait for memory: a thread reads 16 bytes at a time where pointers and strides allow it, and a
 * row of a norm is read once. SPDX-License-Identifier: Apache-2.0 */
#include "kernels.cuh"

enum { EIGHT = 8 };

struct octet {
    float v[EIGHT];
};

/* The first `left` of eight numbers, the rest 0; WIDE: all eight, and 16 bytes at a time. */
template <bool WIDE> RZ_DEVICE octet load8(const uint16_t *p, size_t left)
{
    octet q = {{0, 0, 0, 0, 0, 0, 0, 0}};
    if (WIDE) {
        const uint4 w = *(const uint4 *)p;
        const uint32_t pairs[] = {w.x, w.y, w.z, w.w};
        for (int k = 0; k < EIGHT / 2; k++) q.v[2 * k] = rz_low_bf16(pairs[k]), q.v[2 * k + 1] = rz_high_bf16(pairs[k]);
    } else {
        for (size_t k = 0; k < EIGHT && k < left; k++) q.v[k] = rz_bf16_to_float(p[k]);
    }
    return q;
}
template <bool WIDE> RZ_DEVICE octet load8(const float *p, size_t left)
{
    octet q = {{0, 0, 0, 0, 0, 0, 0, 0}};
    if (WIDE) {
        const float4 a = *(const float4 *)p, b = *(const float4 *)(p + 4);
        q = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
    } else {
        for (size_t k = 0; k < EIGHT && k < left; k++) q.v[k] = p[k];
    }
    return q;
}
template <bool WIDE> RZ_DEVICE void store8(uint16_t *p, const octet &q, size_t left)
{
    if (WIDE)
        *(uint4 *)p = make_uint4(rz_pack_bf16(q.v[0], q.v[1]), rz_pack_bf16(q.v[2], q.v[3]),
                                 rz_pack_bf16(q.v[4], q.v[5]), rz_pack_bf16(q.v[6], q.v[7]));
    else
        for (size_t k = 0; k < EIGHT && k < left; k++) p[k] = rz_float_to_bf16(q.v[k]);
}
template <bool WIDE> RZ_DEVICE void store8(float *p, const octet &q, size_t left)
{
    if (WIDE) {
        *(float4 *)p = make_float4(q.v[0], q.v[1], q.v[2], q.v[3]);
        *(float4 *)(p + 4) = make_float4(q.v[4], q.v[5], q.v[6], q.v[7]);
    } else {
        for (size_t k = 0; k < EIGHT && k < left; k++) p[k] = q.v[k];
    }
}

RZ_DEVICE bool aligned(const void *a, const void *b, const void *c = NULL, const void *d = NULL)
{
    return (((size_t)a | (size_t)b | (size_t)c | (size_t)d) & 15) == 0;
}

/* ---- Flat arrays and tables: blocks of 256 threads (x, y); threads of x take eight columns each ------------------ */

template <typename F> RZ_DEVICE void each_eight(size_t rows, size_t cols, F f)
{
    const size_t first = EIGHT * ((size_t)blockIdx.x * blockDim.x + threadIdx.x);
    const size_t step = EIGHT * (size_t)gridDim.x * blockDim.x;
    for (size_t r = (size_t)blockIdx.y * blockDim.y + threadIdx.y; r < rows; r += (size_t)gridDim.y * blockDim.y)
        for (size_t c = first; c < cols; c += step) f(r, c, cols - c);
}

template <int KIND, bool WIDE> RZ_DEVICE void act(uint16_t *y, const uint16_t *x, size_t n)
{
    each_eight(1, n, [=](size_t, size_t i, size_t left) {
        octet q = load8<WIDE>(x + i, left);
        for (int k = 0; k < EIGHT; k++) q.v[k] = rz_act_of(KIND, q.v[k]);
        store8<WIDE>(y + i, q, left);
    });
}

template <int KIND, bool WIDE>
RZ_DEVICE void gated(uint16_t *y, const uint16_t *gate, const uint16_t *up, size_t ld, size_t rows, size_t cols)
{
    each_eight(rows, cols, [=](size_t r, size_t c, size_t left) {
        octet q = load8<WIDE>(gate + r * ld + c, left);
        const octet u = load8<WIDE>(up + r * ld + c, left);
        for (int k = 0; k < EIGHT; k++) q.v[k] = rz_act_of(KIND, q.v[k]) * u.v[k];
        store8<WIDE>(y + r * cols + c, q, left);
    });
}

/* f<kind, wide>(...) with constants. */
#define EACH_KIND(kind, wide, f, ...)                                                                                  \
    do {                                                                                                               \
        if (kind == RZ_KIND_QUICK_GELU) f<RZ_KIND_QUICK_GELU, wide>(__VA_ARGS__);                                      \
        if (kind == RZ_KIND_GELU) f<RZ_KIND_GELU, wide>(__VA_ARGS__);                                                  \
        if (kind == RZ_KIND_GELU_TANH) f<RZ_KIND_GELU_TANH, wide>(__VA_ARGS__);                                        \
        if (kind == RZ_KIND_SILU) f<RZ_KIND_SILU, wide>(__VA_ARGS__);                                                  \
        if (kind == RZ_KIND_RELU) f<RZ_KIND_RELU, wide>(__VA_ARGS__);                                                  \
    } while (0)

extern "C" __global__ void rz_k_half_act(int kind, uint16_t *y, const uint16_t *x, size_t n)
{
    if (aligned(y, x) && n % EIGHT == 0)
        EACH_KIND(kind, true, act, y, x, n);
    else
        EACH_KIND(kind, false, act, y, x, n);
}

extern "C" __global__ void rz_k_half_gated(int kind, uint16_t *y, const uint16_t *gate, const uint16_t *up, size_t ld,
                                           size_t rows, size_t cols)
{
    if (aligned(y, gate, up) && (ld | cols) % EIGHT == 0)
        EACH_KIND(kind, true, gated, y, gate, up, ld, rows, cols);
    else
        EACH_KIND(kind, false, gated, y, gate, up, ld, rows, cols);
}

template <bool WIDE> RZ_DEVICE void to_f32(float *y, const uint16_t *x, size_t n)
{
    each_eight(1, n, [=](size_t, size_t i, size_t left) { store8<WIDE>(y + i, load8<WIDE>(x + i, left), left); });
}
extern "C" __global__ void rz_k_half_to_f32(float *y, const uint16_t *x, size_t n)
{
    if (aligned(y, x) && n % EIGHT == 0)
        to_f32<true>(y, x, n);
    else
        to_f32<false>(y, x, n);
}

/* ---- Norms: a block for each row, of a size that the columns alone decide --------------------------------------- */

enum { KEPT = 2 }; /* octets of a thread that stay in registers; of a wider row the rest is read again */

/* f(numbers, column, how many of them there are) for every octet of this thread. */
template <bool WIDE, typename F> RZ_DEVICE void each_of_row(const octet kept[KEPT], const float *x, size_t cols, F f)
{
    size_t c = EIGHT * (size_t)threadIdx.x;
    for (int k = 0; k < KEPT; k++, c += EIGHT * (size_t)blockDim.x)
        if (c < cols) f(kept[k], c, cols - c);
    for (; c < cols; c += EIGHT * (size_t)blockDim.x) f(load8<WIDE>(x + c, cols - c), c, cols - c);
}

template <bool WIDE>
RZ_DEVICE void norm(uint16_t *y, const float *x, const float *w, const float *b, float eps, size_t cols)
{
    __shared__ float part[RZ_WARP];
    octet kept[KEPT];
    float mean = 0, sum = 0, squares = 0;
    for (int k = 0; k < KEPT; k++) {
        const size_t c = EIGHT * ((size_t)threadIdx.x + (size_t)k * blockDim.x);
        if (c < cols) kept[k] = load8<WIDE>(x + c, cols - c);
    }
    if (b) {
        each_of_row<WIDE>(kept, x, cols, [&](const octet &q, size_t, size_t) {
            for (int k = 0; k < EIGHT; k++) sum += q.v[k];
        });
        mean = rz_block_sum(sum, part) / (float)cols;
    }
    each_of_row<WIDE>(kept, x, cols, [&](const octet &q, size_t, size_t left) {
        for (size_t k = 0; k < EIGHT; k++) {
            const float d = WIDE || k < left ? q.v[k] - mean : 0;
            squares += d * d;
        }
    });
    const float rstd = 1.0f / sqrtf(rz_block_sum(squares, part) / (float)cols + eps);
    each_of_row<WIDE>(kept, x, cols, [&](const octet &q, size_t c, size_t left) {
        const octet scale = load8<WIDE>(w + c, left);
        octet shift = {{0, 0, 0, 0, 0, 0, 0, 0}}, out;
        if (b) shift = load8<WIDE>(b + c, left);
        for (int k = 0; k < EIGHT; k++) out.v[k] = fmaf((q.v[k] - mean) * rstd, scale.v[k], shift.v[k]);
        store8<WIDE>(y + c, out, left);
    });
}

extern "C" __global__ void rz_k_half_norm(uint16_t *y, const float *x, const float *w, const float *b, float eps,
                                          size_t rows, size_t cols)
{
    const bool wide = aligned(x, w, b, y) && cols % EIGHT == 0;
    for (size_t r = blockIdx.x; r < rows; r += gridDim.x)
        if (wide)
            norm<true>(y + r * cols, x + r * cols, w, b, eps, cols);
        else
            norm<false>(y + r * cols, x + r * cols, w, b, eps, cols);
}

/* ---- RoPE: a block for each row; threads of x have eight pairs each, of every blockDim.y-th head ----------------- */

template <bool WIDE>
RZ_DEVICE void rope(uint16_t *x, float pos, const float *inv_freq, float scale, size_t n_heads, size_t half)
{
    for (size_t i = EIGHT * (size_t)threadIdx.x; i < half; i += EIGHT * (size_t)blockDim.x) {
        const octet freq = load8<false>(inv_freq + i, half - i);
        octet c, s;
        for (int k = 0; k < EIGHT; k++) {
            sincosf(pos * freq.v[k], &s.v[k], &c.v[k]);
            s.v[k] *= scale, c.v[k] *= scale;
        }
        for (size_t h = threadIdx.y; h < n_heads; h += blockDim.y) {
            uint16_t *low = x + h * 2 * half + i, *high = low + half;
            const octet a = load8<WIDE>(low, half - i), b = load8<WIDE>(high, half - i);
            octet first, second;
            for (int k = 0; k < EIGHT; k++) {
                first.v[k] = a.v[k] * c.v[k] - b.v[k] * s.v[k];
                second.v[k] = b.v[k] * c.v[k] + a.v[k] * s.v[k];
            }
            store8<WIDE>(low, first, half - i);
            store8<WIDE>(high, second, half - i);
        }
    }
}

extern "C" __global__ void rz_k_half_rope(uint16_t *x, size_t ld, const int32_t *pos, const float *inv_freq,
                                          float scale, size_t rows, size_t n_heads, size_t half)
{
    const bool wide = aligned(x, NULL) && (ld | half) % EIGHT == 0;
    for (size_t r = blockIdx.x; r < rows; r += gridDim.x)
        if (wide)
            rope<true>(x + r * ld, (float)pos[r], inv_freq, scale, n_heads, half);
        else
            rope<false>(x + r * ld, (float)pos[r], inv_freq, scale, n_heads, half);
}
