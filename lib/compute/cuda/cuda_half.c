/* cuda_half.c - activations of bfloat16: the launches of kernels_half.cu. SPDX-License-Identifier: Apache-2.0 */
#include "cuda.h"

/* As in kernels_half.cu. */
enum { EIGHT = 8, KEPT = 2, THREADS = 256, WARP = 32 };
enum { GRID_Y = 65535, MAX_BLOCK = 1024 };
enum { ROPE_THREADS = 128 }; /* of a row: each makes its sines once, for several heads */

static size_t pieces(size_t n, size_t piece)
{
    return n / piece + (n % piece != 0);
}
static unsigned at_most(size_t n, size_t limit)
{
    return (unsigned)(n < limit ? n : limit);
}

/* Eight columns to a thread; rows of few columns share a block. */
static void launch_table(rz_stream *s, enum rz_cuda_kernel k, size_t rows, size_t cols, void **args)
{
    unsigned x = 1;
    while (x < THREADS && x < pieces(cols, EIGHT)) x *= 2;
    const rz_cuda_dim block = {x, THREADS / x, 1};
    const rz_cuda_dim grid = {at_most(pieces(cols, EIGHT * (size_t)x), INT32_MAX),
                              at_most(pieces(rows, block.y), GRID_Y), 1};
    rz_cuda_launch(s, k, grid, block, 0, args);
}

static void half_act(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *x, size_t n)
{
    int k = (int)kind;
    launch_table(s, RZ_K_half_act, 1, n, RZ_CUDA_ARGS(&k, &y, &x, &n));
}

static void half_gated(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *gate, const uint16_t *up, size_t ld,
                       size_t rows, size_t cols)
{
    int k = (int)kind;
    launch_table(s, RZ_K_half_gated, rows, cols, RZ_CUDA_ARGS(&k, &y, &gate, &up, &ld, &rows, &cols));
}

static void half_to_f32(rz_stream *s, float *y, const uint16_t *x, size_t n)
{
    launch_table(s, RZ_K_half_to_f32, 1, n, RZ_CUDA_ARGS(&y, &x, &n));
}

static void half_norm(rz_stream *s, uint16_t *y, const float *x, const float *w, const float *b, float eps, size_t rows,
                      size_t cols)
{
    const size_t threads = pieces(pieces(cols, EIGHT * KEPT), WARP) * WARP;
    rz_cuda_launch(s, RZ_K_half_norm, (rz_cuda_dim){at_most(rows, INT32_MAX), 1, 1},
                   (rz_cuda_dim){at_most(threads, MAX_BLOCK), 1, 1}, 0,
                   RZ_CUDA_ARGS(&y, &x, &w, &b, &eps, &rows, &cols));
}

static void half_rope(rz_stream *s, uint16_t *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale,
                      size_t rows, size_t n_heads, size_t head_dim)
{
    size_t half = head_dim / 2;
    const unsigned across = at_most(pieces(half, EIGHT), ROPE_THREADS);
    const rz_cuda_dim block = {across, at_most(n_heads, ROPE_THREADS / across), 1};
    rz_cuda_launch(s, RZ_K_half_rope, (rz_cuda_dim){at_most(rows, INT32_MAX), 1, 1}, block, 0,
                   RZ_CUDA_ARGS(&x, &ld, &pos, &inv_freq, &scale, &rows, &n_heads, &half));
}

void rz_cuda_half_ops(struct rz_ops *ops)
{
    ops->half_norm = half_norm;
    ops->half_rope = half_rope;
    ops->half_act = half_act;
    ops->half_gated = half_gated;
    ops->half_to_f32 = half_to_f32;
}
