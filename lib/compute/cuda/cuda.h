/* cuda.h - what the files of the CUDA device share. The driver and cuBLAS are opened at run time, so their types are
 * declared here, as far as they are used, and nothing of CUDA is needed to compile this.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_CUDA_H
#define RZ_CUDA_H

#include "ops.h"

/* ---- Kernels: extern "C" __global__ functions "rz_k_<name>" of the .cu files, by area ------------------- */

/* clang-format off */
#define RZ_CUDA_ROWS(X)                                                                                        \
    X(fill) X(sum) X(scale) X(to_bf16) X(adamw_step) X(act) X(act_bwd) X(gated) X(gated_bwd) X(add_bias)       \
    X(add_bias_bwd) X(dropout) X(gather) X(copy_rows) X(add_rows) X(add_rows_to) X(pool_mean)                  \
    X(pool_mean_bwd) X(patchify) X(rope) X(layernorm) X(layernorm_bwd) X(rmsnorm) X(rmsnorm_bwd) X(l2norm)     \
    X(l2norm_bwd) X(softmax_xent) X(dot)
#define RZ_CUDA_ATTENTION(X)                                                                                   \
    X(attention_32) X(attention_64) X(attention_128) X(attention_half) X(attention_queries_32)                 \
    X(attention_queries_64) X(attention_queries_128) X(attention_keys_32) X(attention_keys_64)                 \
    X(attention_keys_128) X(attention_mma_32) X(attention_mma_64) X(attention_mma_128)                         \
    X(attention_mma_32_few) X(attention_mma_64_few) X(attention_mma_128_few) X(attention_mma_256_few)
#define RZ_CUDA_HALF(X) X(half_act) X(half_gated) X(half_to_f32) X(half_norm) X(half_rope)
#define RZ_CUDA_GEMM(X) X(gemm_widen) X(gemm_round) X(gemm_beta) X(gemm_bias) X(gemm_bias_add)
#define RZ_CUDA_KERNELS(X) RZ_CUDA_ROWS(X) RZ_CUDA_ATTENTION(X) RZ_CUDA_HALF(X) RZ_CUDA_GEMM(X)
/* clang-format on */
#define RZ_CUDA_ID(name) RZ_K_##name,
enum rz_cuda_kernel { RZ_CUDA_KERNELS(RZ_CUDA_ID) RZ_N_CUDA_KERNELS };

typedef struct rz_cuda_dim {
    unsigned x, y, z;
} rz_cuda_dim;

/* Puts a kernel into the stream; a failure is recorded in it. args: addresses of the kernel's arguments, in order:
 * RZ_CUDA_ARGS(&y, &x, &n). shared_bytes: dynamic shared memory, up to rz_cuda_max_shared less the static. */
#define RZ_CUDA_ARGS(...) ((void *[]){__VA_ARGS__})
void rz_cuda_launch(rz_stream *s, enum rz_cuda_kernel k, rz_cuda_dim grid, rz_cuda_dim block, size_t shared_bytes,
                    void **args);
int rz_cuda_capability(const rz_stream *s); /* 90 for 9.0 */
int rz_cuda_multiprocessors(const rz_stream *s);
size_t rz_cuda_max_shared(const rz_stream *s); /* bytes that a block may ask for */

/* Each area fills its part of the table (cuda_rows.c, cuda_attention.c, cuda_half.c, cuda_gemm.c). */
void rz_cuda_rows_ops(struct rz_ops *ops);
void rz_cuda_attention_ops(struct rz_ops *ops);
void rz_cuda_half_ops(struct rz_ops *ops);
void rz_cuda_gemm_ops(struct rz_ops *ops);

#endif
