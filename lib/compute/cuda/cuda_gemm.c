/* cuda_gemm.c - matrix products: cuBLAS multiplies floats, numbers of bfloat16 or of half precision; every other pair
 * of types is converted first, in parts where it is large. Row-major C = A B is column-major C^T = B^T A^T.
 * SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>

#include "driver.h"

enum {
    WORKSPACE = 32 << 20, /* bytes of cuBLAS, as much as it likes on a large GPU */
    PART = 32 << 20,      /* numbers of B that are converted at once, ... */
    PART_STEP = 256,      /* ... in columns of C */
    BLOCK_X = 32,
    BLOCK_Y = 8,
    EIGHT = 8,     /* as in kernels_gemm.cu */
    GRID_Y = 4096, /* blocks that are enough */
};

struct product {
    bool ta, tb;
    size_t m, n, k;
    float alpha, beta;
    rz_mat a, b;
    void *c;
    rz_dtype c_type;
    size_t ldc;
};

/* ---- cuBLAS ------------------------------------------------------------------------------- */

static bool blas_ok(rz_stream *s, int status, const char *what)
{
    static const char *const names[] = {
        [1] = "not initialized", [3] = "out of memory",     [7] = "invalid value",   [8] = "architecture",
        [11] = "memory",         [13] = "execution failed", [14] = "internal error", [15] = "not supported"};
    if (status == 0) return true;
    const char *name = (unsigned)status < RZ_COUNT(names) && names[status] ? names[status] : "unknown";
    rz_stream_fail(s, status == 3 ? RADZ_E_MEMORY : RADZ_E_DEVICE, "GPU: cuBLAS, %s: %s (%d)", what, name, status);
    return false;
}

/* The stream's handle, made at its first product. */
static cublas_handle handle(rz_stream *s)
{
    const struct rz_cublas *blas = rz_cuda_of(s)->blas;
    struct rz_cuda_stream *q = s->impl;
    radz_error err;
    if (q->blas) return q->blas;
    if (!q->workspace && rz_device_alloc(s->dev, WORKSPACE, &q->workspace, &err) != RADZ_OK) {
        rz_stream_fail(s, err.code, "workspace of cuBLAS: %s", err.message);
        return NULL;
    }
    if (!blas_ok(s, blas->create(&q->blas), "start")) return q->blas = NULL;
    if (blas_ok(s, blas->set_stream(q->blas, q->stream), "stream") &&
        blas_ok(s, blas->set_workspace(q->blas, q->workspace, WORKSPACE), "workspace") &&
        blas_ok(s, blas->set_math(q->blas, CUBLAS_REDUCE_IN_COMPUTE_TYPE), "math mode"))
        return q->blas;
    blas->destroy(q->blas);
    return q->blas = NULL;
}

static int blas_type(rz_dtype t)
{
    return t == RZ_F32 ? CUBLAS_F32 : t == RZ_F16 ? CUBLAS_F16 : CUBLAS_BF16;
}

/* Both operands of one type of floats. */
static void multiply(rz_stream *s, const struct product *p)
{
    const struct rz_cuda *c = rz_cuda_of(s);
    const size_t largest[] = {p->m, p->n, p->k, p->a.ld, p->b.ld, p->ldc};
    for (size_t i = 0; i < RZ_COUNT(largest); i++)
        if (largest[i] > INT_MAX) {
            rz_stream_fail(s, RADZ_E_LIMIT, "matrix product %zu x %zu x %zu is too large for cuBLAS", p->m, p->n, p->k);
            return;
        }
    rz_cuda_enter(c);
    const cublas_handle h = handle(s);
    if (h) {
        ((struct rz_cuda_stream *)s->impl)->last = RZ_N_CUDA_KERNELS;
        blas_ok(s,
                c->blas->gemm(h, p->tb ? CUBLAS_OP_T : CUBLAS_OP_N, p->ta ? CUBLAS_OP_T : CUBLAS_OP_N, (int)p->n,
                              (int)p->m, (int)p->k, &p->alpha, p->b.data, blas_type(p->b.dtype), (int)p->b.ld,
                              p->a.data, blas_type(p->a.dtype), (int)p->a.ld, &p->beta, p->c, blas_type(p->c_type),
                              (int)p->ldc, CUBLAS_COMPUTE_32F, CUBLAS_ALGORITHM_DEFAULT),
                "product");
    }
    rz_cuda_leave(c);
}

/* ---- Conversion --------------------------------------------------------------------------------- */

/* Blocks for a table of so many rows and columns, `per` columns to a thread. */
static rz_cuda_dim table_grid(size_t rows, size_t cols, size_t per)
{
    const size_t x = (cols + BLOCK_X * per - 1) / (BLOCK_X * per), y = (rows + BLOCK_Y - 1) / BLOCK_Y;
    return (rz_cuda_dim){(unsigned)x, (unsigned)(y < GRID_Y ? y : GRID_Y), 1};
}

static int log2_of(size_t group)
{
    int n = 0;
    while (group >> n > 1) n++;
    return n;
}

/* Rows [row, row + rows), columns [col, col + cols) of x into y, rows of ldy floats or numbers of bfloat16. */
static void convert(rz_stream *s, rz_dtype to, void *y, size_t ldy, rz_mat x, size_t row, size_t col, size_t rows,
                    size_t cols)
{
    size_t groups = rz_mat_groups(x);
    int dtype = (int)x.dtype, scale_dtype = (int)x.scale_dtype, shift = log2_of(x.group);
    int wide = ((uintptr_t)x.data | (uintptr_t)y) % 16 == 0 && (x.ld | ldy | col) % EIGHT == 0;
    rz_cuda_launch(s, to == RZ_F32 ? RZ_K_gemm_widen : RZ_K_gemm_round, table_grid(rows, cols, EIGHT),
                   (rz_cuda_dim){BLOCK_X, BLOCK_Y, 1}, 0,
                   RZ_CUDA_ARGS(&y, &ldy, &x.data, &x.ld, &dtype, &x.scale, &scale_dtype, &groups, &shift, &row, &col,
                                &rows, &cols, &wide));
}

/* Part of an operand as numbers of that type: as it is, or in the arena; data NULL: no memory, recorded. */
static rz_mat operand(rz_stream *s, rz_dtype to, rz_mat x, size_t row, size_t col, size_t rows, size_t cols)
{
    if (x.dtype == to) {
        x.data = (const uint8_t *)x.data + rz_dtype_bytes(to, row * x.ld + col);
        return x;
    }
    size_t n;
    void *y = rz_size_mul(rows, cols, &n) && n <= SIZE_MAX / 4 ? rz_arena_bytes(s, rz_dtype_bytes(to, n)) : NULL;
    if (!y) rz_stream_fail(s, RADZ_E_LIMIT, "matrix product: %zu x %zu numbers overflow", rows, cols);
    if (y) convert(s, to, y, cols, x, row, col, rows, cols);
    return (rz_mat){.data = y, .dtype = to, .ld = cols};
}

/* Columns of C at a time, so that what B's conversion needs stays small. */
static void multiply_as(rz_stream *s, rz_dtype type, const struct product *whole)
{
    const size_t n = whole->n, fit = PART / whole->k / PART_STEP * PART_STEP;
    const size_t step = whole->b.dtype == type ? n : fit ? fit : PART_STEP;
    const rz_mark mark = rz_arena_mark(s);
    struct product p = *whole;
    p.a = operand(s, type, whole->a, 0, 0, p.ta ? p.k : p.m, p.ta ? p.m : p.k);
    for (size_t j = 0; j < n && !rz_stream_failed(s); j += step) {
        const rz_mark part = rz_arena_mark(s);
        p.n = n - j < step ? n - j : step;
        p.b = operand(s, type, whole->b, p.tb ? j : 0, p.tb ? 0 : j, p.tb ? p.n : p.k, p.tb ? p.k : p.n);
        p.c = (uint8_t *)whole->c + rz_dtype_bytes(p.c_type, j);
        if (p.a.data && p.b.data) multiply(s, &p);
        rz_arena_release(s, part);
    }
    rz_arena_release(s, mark);
}

/* ---- Ops ---------------------------------------------------------------------------------------------- */

/* A product is one of bfloat16 where B asks for it or is of integers; other pairs of types are multiplied as floats
 * unless cuBLAS takes both as they are. */
static rz_dtype type_of(const rz_stream *s, rz_mat a, rz_mat b)
{
    const bool half = s->dev->is_half, wide = a.dtype == RZ_F32 || a.dtype == RZ_BF16;
    if (half && wide && (b.compute == RZ_BF16 || !rz_dtype_is_float(b.dtype))) return RZ_BF16;
    if (a.dtype == b.dtype && (a.dtype == RZ_F16 || (half && a.dtype == RZ_BF16))) return a.dtype;
    return RZ_F32;
}

static void gemm(rz_stream *s, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b,
                 float beta, float *c, size_t ldc)
{
    const struct product p = {ta, tb, m, n, k, alpha, beta, a, b, c, RZ_F32, ldc};
    if (k)
        multiply_as(s, type_of(s, a, b), &p);
    else
        rz_cuda_launch(s, RZ_K_gemm_beta, table_grid(m, n, 1), (rz_cuda_dim){BLOCK_X, BLOCK_Y, 1}, 0,
                       RZ_CUDA_ARGS(&c, &ldc, &beta, &m, &n));
}

/* On a GPU whose tensor cores know no bfloat16: through floats. */
static void linear_of_floats(rz_stream *s, const struct product *p, const float *bias)
{
    const rz_mark mark = rz_arena_mark(s);
    struct product f = *p;
    float *sum = rz_arena_f32(s, p->m, p->n);
    if (!sum) return;
    f.c = sum, f.c_type = RZ_F32, f.ldc = p->n, f.beta = 0;
    multiply_as(s, RZ_F32, &f);
    if (bias) s->dev->ops.add_bias(s, sum, bias, p->m, p->n);
    convert(s, RZ_BF16, p->c, p->ldc, rz_mat_f32(sum, p->n), 0, 0, p->m, p->n);
    rz_arena_release(s, mark);
}

static void half_linear(rz_stream *s, uint16_t *y, size_t ldy, const uint16_t *x, size_t ldx, rz_mat w,
                        const float *bias, size_t m, size_t n, size_t k)
{
    const rz_mat a = {.data = x, .dtype = RZ_BF16, .ld = ldx};
    const struct product p = {false, true, m, n, k, 1, bias ? 1 : 0, a, w, y, RZ_BF16, ldy};
    if (!s->dev->is_half) {
        linear_of_floats(s, &p, bias);
        return;
    }
    if (bias)
        rz_cuda_launch(s, RZ_K_gemm_bias, table_grid(m, n, 1), (rz_cuda_dim){BLOCK_X, BLOCK_Y, 1}, 0,
                       RZ_CUDA_ARGS(&y, &ldy, &bias, &m, &n));
    multiply_as(s, RZ_BF16, &p);
}

static void half_linear_add(rz_stream *s, float *h, size_t ldh, const uint16_t *x, size_t ldx, rz_mat w,
                            const float *bias, size_t m, size_t n, size_t k)
{
    const rz_mat a = {.data = x, .dtype = RZ_BF16, .ld = ldx};
    const struct product p = {false, true, m, n, k, 1, 1, a, w, h, RZ_F32, ldh};
    if (bias)
        rz_cuda_launch(s, RZ_K_gemm_bias_add, table_grid(m, n, 1), (rz_cuda_dim){BLOCK_X, BLOCK_Y, 1}, 0,
                       RZ_CUDA_ARGS(&h, &ldh, &bias, &m, &n));
    multiply_as(s, s->dev->is_half ? RZ_BF16 : RZ_F32, &p);
}

void rz_cuda_gemm_ops(struct rz_ops *ops)
{
    ops->gemm = gemm;
    ops->half_linear = half_linear;
    ops->half_linear_add = half_linear_add;
}
