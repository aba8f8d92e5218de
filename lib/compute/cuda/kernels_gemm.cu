/* kernels_gemm.cu - what matrix products need around cuBLAS: numbers of other types, beta alone, a bias.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels.cuh"

enum { F32, F16, BF16, I8, I4 }; /* the numbers of rz_dtype */
enum { EIGHT = 8 };              /* columns of a thread */

/* A part of a matrix: `rows` rows from `row` on, `cols` columns from `col` on. */
struct part {
    const void *x, *scale;
    size_t ld, groups;
    int dtype, scale_dtype, shift; /* shift: of a column to its group */
};

RZ_DEVICE float scale_of(const part &p, size_t r, size_t c)
{
    const size_t i = r * p.groups + (c >> p.shift);
    return p.scale_dtype == BF16 ? rz_bf16_to_float(((const uint16_t *)p.scale)[i]) : ((const float *)p.scale)[i];
}

RZ_DEVICE float number(const part &p, size_t r, size_t c)
{
    const size_t i = r * p.ld + c;
    switch (p.dtype) {
    case F32:
        return ((const float *)p.x)[i];
    case F16:
        return rz_f16_to_float(((const uint16_t *)p.x)[i]);
    case BF16:
        return rz_bf16_to_float(((const uint16_t *)p.x)[i]);
    case I8:
        return (float)((const int8_t *)p.x)[i] * scale_of(p, r, c);
    default:
        return (float)((((const uint8_t *)p.x)[i / 2] >> (i % 2 * 4) & 15) - 8) * scale_of(p, r, c);
    }
}

RZ_DEVICE void halves(float *v, uint32_t pair, int dtype)
{
    v[0] = dtype == BF16 ? rz_low_bf16(pair) : rz_f16_to_float((uint16_t)pair);
    v[1] = dtype == BF16 ? rz_high_bf16(pair) : rz_f16_to_float((uint16_t)(pair >> 16));
}
RZ_DEVICE void bytes(float *v, uint32_t four, float scale)
{
    for (int j = 0; j < 4; j++) v[j] = (float)(int8_t)(four >> (8 * j)) * scale;
}

/* Eight neighbours from an aligned place on, one group's. */
RZ_DEVICE void eight(float *v, const part &p, size_t r, size_t c)
{
    const size_t i = r * p.ld + c;
    if (p.dtype == F32) {
        const float4 a = ((const float4 *)p.x)[i / 4], b = ((const float4 *)p.x)[i / 4 + 1];
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    } else if (p.dtype == F16 || p.dtype == BF16) {
        const uint4 a = ((const uint4 *)p.x)[i / EIGHT];
        halves(v, a.x, p.dtype), halves(v + 2, a.y, p.dtype), halves(v + 4, a.z, p.dtype), halves(v + 6, a.w, p.dtype);
    } else if (p.dtype == I8) {
        const uint2 a = ((const uint2 *)p.x)[i / EIGHT];
        const float scale = scale_of(p, r, c);
        bytes(v, a.x, scale), bytes(v + 4, a.y, scale);
    } else {
        const uint32_t a = ((const uint32_t *)p.x)[i / EIGHT];
        const float scale = scale_of(p, r, c);
        for (int j = 0; j < EIGHT; j++) v[j] = (float)((int)(a >> (4 * j) & 15) - 8) * scale;
    }
}

RZ_DEVICE void put_eight(float *y, const float *v)
{
    ((float4 *)y)[0] = make_float4(v[0], v[1], v[2], v[3]);
    ((float4 *)y)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
RZ_DEVICE void put_eight(uint16_t *y, const float *v)
{
    *(uint4 *)y = make_uint4(rz_pack_bf16(v[0], v[1]), rz_pack_bf16(v[2], v[3]), rz_pack_bf16(v[4], v[5]),
                             rz_pack_bf16(v[6], v[7]));
}
RZ_DEVICE void put(float *y, float v)
{
    *y = v;
}
RZ_DEVICE void put(uint16_t *y, float v)
{
    *y = rz_float_to_bf16(v);
}

/* y (rows, cols) = the part of x. A block is 32 x 8: so many eights of columns, rows. wide: all is aligned. */
template <typename T>
RZ_DEVICE void convert(T *y, size_t ldy, const part &p, size_t row, size_t col, size_t rows, size_t cols, int wide)
{
    const size_t c = EIGHT * ((size_t)blockIdx.x * blockDim.x + threadIdx.x);
    if (c >= cols) return;
    const size_t left = cols - c;
    for (size_t r = (size_t)blockIdx.y * blockDim.y + threadIdx.y; r < rows; r += (size_t)gridDim.y * blockDim.y) {
        if (wide && left >= EIGHT) {
            float v[EIGHT];
            eight(v, p, row + r, col + c);
            put_eight(y + r * ldy + c, v);
        } else {
            for (size_t j = 0; j < EIGHT && j < left; j++) put(y + r * ldy + c + j, number(p, row + r, col + c + j));
        }
    }
}

extern "C" __global__ void rz_k_gemm_widen(float *y, size_t ldy, const void *x, size_t ld, int dtype, const void *scale,
                                           int scale_dtype, size_t groups, int shift, size_t row, size_t col,
                                           size_t rows, size_t cols, int wide)
{
    const part p = {x, scale, ld, groups, dtype, scale_dtype, shift};
    convert(y, ldy, p, row, col, rows, cols, wide);
}
extern "C" __global__ void rz_k_gemm_round(uint16_t *y, size_t ldy, const void *x, size_t ld, int dtype,
                                           const void *scale, int scale_dtype, size_t groups, int shift, size_t row,
                                           size_t col, size_t rows, size_t cols, int wide)
{
    const part p = {x, scale, ld, groups, dtype, scale_dtype, shift};
    convert(y, ldy, p, row, col, rows, cols, wide);
}

/* C (m,n) = beta C; beta 0: C is not read. One column to a thread, as in those that follow. */
extern "C" __global__ void rz_k_gemm_beta(float *c, size_t ldc, float beta, size_t m, size_t n)
{
    const size_t j = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= n) return;
    for (size_t i = (size_t)blockIdx.y * blockDim.y + threadIdx.y; i < m; i += (size_t)gridDim.y * blockDim.y)
        c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
}

/* Every row of y = the bias, rounded: the product is added to it. */
extern "C" __global__ void rz_k_gemm_bias(uint16_t *y, size_t ldy, const float *bias, size_t m, size_t n)
{
    const size_t j = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= n) return;
    const uint16_t b = rz_float_to_bf16(bias[j]);
    for (size_t i = (size_t)blockIdx.y * blockDim.y + threadIdx.y; i < m; i += (size_t)gridDim.y * blockDim.y)
        y[i * ldy + j] = b;
}
extern "C" __global__ void rz_k_gemm_bias_add(float *h, size_t ldh, const float *bias, size_t m, size_t n)
{
    const size_t j = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= n) return;
    for (size_t i = (size_t)blockIdx.y * blockDim.y + threadIdx.y; i < m; i += (size_t)gridDim.y * blockDim.y)
        h[i * ldh + j] += bias[j];
}
