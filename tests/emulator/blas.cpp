/* blas.cpp - cuBLAS as far as libradz asks for it: plain loops, sums of float.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "machine.h"

#define API extern "C" EMULATOR_EXPORT int
#define FAST __attribute__((target_clones("default", "arch=haswell"), optimize("O3")))

namespace
{

enum { OK = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { F32 = 0, F16 = 2, BF16 = 14, COMPUTE_32F = 68 };
const uint64_t ALIVE = 0x600dc0de600dc0deu;

struct handle {
    uint64_t alive;
    void *stream;
    bool placed; /* has a workspace */
};

struct matrix {
    const void *data;
    int type, ld;
    bool transposed;
};

struct product {
    int m, n, k;
    float alpha, beta;
    matrix a, b;
    void *c;
    int c_type, ldc;
};

size_t type_size(int type)
{
    return type == F32 ? 4 : 2;
}

float half_to_float(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
    uint32_t bits = rest << 13;
    float f;
    memcpy(&f, &bits, 4);
    f *= 0x1p112f;
    memcpy(&bits, &f, 4);
    bits |= sign | (rest >= 0x7c00 ? 0x7f800000u : 0);
    memcpy(&f, &bits, 4);
    return f;
}

float load(const void *p, int type, size_t i)
{
    if (type == F32) return ((const float *)p)[i];
    const uint16_t h = ((const uint16_t *)p)[i];
    if (type == F16) return half_to_float(h);
    const uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

void store(void *p, int type, size_t i, float x)
{
    if (type == F32) {
        ((float *)p)[i] = x;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = x != x ? bits | 0x400000u : bits + 0x7fff + (bits >> 16 & 1);
    ((uint16_t *)p)[i] = (uint16_t)(bits >> 16);
}

/* op(X) as floats, column after column: (rows, cols). */
std::vector<float> widen(const matrix &x, int rows, int cols)
{
    std::vector<float> y((size_t)rows * (size_t)cols);
    for (int c = 0; c < cols; c++)
        for (int r = 0; r < rows; r++)
            y[(size_t)c * (size_t)rows + (size_t)r] =
                load(x.data, x.type,
                     x.transposed ? (size_t)r * (size_t)x.ld + (size_t)c : (size_t)c * (size_t)x.ld + (size_t)r);
    return y;
}

/* y += a x */
FAST void add_scaled(float *y, float a, const float *x, int n)
{
    for (int i = 0; i < n; i++) y[i] += a * x[i];
}

int multiply(const product &p)
{
    const std::vector<float> a = widen(p.a, p.m, p.k), b = widen(p.b, p.k, p.n);
    std::vector<float> sum((size_t)p.m);
    for (int j = 0; j < p.n; j++) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int q = 0; q < p.k; q++)
            add_scaled(sum.data(), b[(size_t)j * (size_t)p.k + (size_t)q], &a[(size_t)q * (size_t)p.m], p.m);
        for (int i = 0; i < p.m; i++) {
            const size_t at = (size_t)j * (size_t)p.ldc + (size_t)i;
            const float before = p.beta != 0 ? p.beta * load(p.c, p.c_type, at) : 0;
            store(p.c, p.c_type, at, p.alpha * sum[(size_t)i] + before);
        }
    }
    return EMULATED_OK;
}

/* Its columns, all in one allocation? */
bool lies_there(const void *p, int type, int ld, int rows, int cols)
{
    const size_t n = ((size_t)cols - 1) * (size_t)ld + (size_t)rows;
    return ld >= rows && (uintptr_t)p % type_size(type) == 0 && emulator_is_device(p, n * type_size(type));
}
bool known(int type)
{
    return type == F32 || type == F16 || type == BF16;
}

int refuse(int result, const char *what)
{
    emulator_say("cublas: %s", what);
    return result;
}

} // namespace

API cublasCreate_v2(handle **h)
{
    if (int result = emulator_injected("cublasCreate_v2", NOT_INITIALIZED)) return result;
    *h = new handle{ALIVE, nullptr, false};
    return OK;
}
API cublasDestroy_v2(handle *h)
{
    if (!h || h->alive != ALIVE) return refuse(NOT_INITIALIZED, "no such handle");
    h->alive = 0;
    delete h;
    return OK;
}
API cublasGetVersion_v2(handle *, int *version)
{
    *version = 130000;
    return OK;
}
API cublasSetStream_v2(handle *h, void *stream)
{
    if (!emulator_is_stream(stream)) return refuse(INVALID_VALUE, "no such stream");
    h->stream = stream;
    h->placed = false; /* as cuBLAS does */
    return OK;
}
API cublasSetWorkspace_v2(handle *h, void *p, size_t n_bytes)
{
    if (n_bytes && ((uintptr_t)p % 256 || !emulator_is_device(p, n_bytes)))
        return refuse(INVALID_VALUE, "workspace is not aligned device memory");
    h->placed = true;
    return OK;
}
API cublasSetMathMode(handle *, int)
{
    return OK;
}

API cublasGemmEx(handle *h, int ta, int tb, int m, int n, int k, const float *alpha, const void *a, int a_type, int lda,
                 const void *b, int b_type, int ldb, const float *beta, void *c, int c_type, int ldc, int compute, int)
{
    if (!h || h->alive != ALIVE) return refuse(NOT_INITIALIZED, "no such handle");
    if (!h->placed) return refuse(EXECUTION_FAILED, "a product without a workspace of the caller's");
    if (int result = emulator_injected("cublasGemmEx", EXECUTION_FAILED)) return result;
    if (m < 0 || n < 0 || k < 0 || (ta | tb) & ~1)
        return refuse(INVALID_VALUE, "a size below zero, or an odd transpose");
    if (compute != COMPUTE_32F || !known(a_type) || a_type != b_type || (c_type != F32 && c_type != a_type) ||
        c_type == F16)
        return refuse(NOT_SUPPORTED, "types that cuBLAS does not multiply");
    if (m == 0 || n == 0) return OK;
    if (!lies_there(c, c_type, ldc, m, n) || (k && (!lies_there(a, a_type, lda, ta ? k : m, ta ? m : k) ||
                                                    !lies_there(b, b_type, ldb, tb ? n : k, tb ? k : n))))
        return refuse(INVALID_VALUE, "a matrix that does not lie in device memory, or whose rows overlap");
    const product p = {m, n, k, *alpha, *beta, {a, a_type, lda, ta != 0}, {b, b_type, ldb, tb != 0}, c, c_type, ldc};
    return emulator_enqueue(h->stream, [=] { return multiply(p); }) ? EXECUTION_FAILED : OK;
}
