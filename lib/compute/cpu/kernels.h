/* kernels.h - the single-threaded kernels, written once. kernels_portable.c, kernels_avx2.c and kernels_avx512.c
 * include it with RZ_W (floats per vector), RZ_MR (rows of a GEMM tile), RZ_KERNELS (name of the table) and
 * RZ_KERNELS_NAME. SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"
#include "vec.h"

#include "kernels_gemm.h"
#include "kernels_attention.h"
#include "kernels_rows.h"

const struct rz_kernels RZ_KERNELS = {
    .name = RZ_KERNELS_NAME,
    .mr = MR,
    .nr = NR,
    .pack = pack,
    .gemm_block = gemm_block,
    .attention_scratch = attention_scratch,
    .attention = attention,
    .attention_bwd = attention_bwd,
    .act = act,
    .act_bwd = act_bwd,
    .gated = gated,
    .gated_bwd = gated_bwd,
    .layernorm = layernorm,
    .layernorm_dx = layernorm_dx,
    .rmsnorm = rmsnorm,
    .rmsnorm_dx = rmsnorm_dx,
    .norm_sums = norm_sums,
    .softmax_xent = softmax_xent,
    .adamw = adamw,
};
