/* kernels.h - the single-threaded kernels, written once. kernels_portable.c, kernels_avx2.c and kernels_avx512.c
 * include it with RZ_W (floats per vector), RZ_MR (rows of a GEMM tile), RZ_KERNELS (name of the table) and
 * RZ_KERNELS_NAME. SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"
#include "vec.h"

#include "kernels_tile.h"
#include "kernels_pack.h"
#include "kernels_gemm.h"
#include "kernels_attention.h"
#include "kernels_rows.h"
#include "kernels_int.h"
#include "kernels_resample.h"

ALL_ROWS(EACH_PAIRS)
TILE_TABLE(pairs)
INT_BLOCK(pairs)
#if W > 4 /* narrower ones have no instruction for it */
ALL_ROWS(EACH_NARROW)
TILE_TABLE(narrow)
INT_BLOCK(narrow)
#define INT4 INT4_NARROW
#else
#define INT4 INT4_PAIRS
#endif
#define INT8_PAIRS                                                                                                     \
    {                                                                                                                  \
        RZ_KERNELS_NAME " pmaddwd", MR, NR, 2, 0, pack_weights_pairs, pack_rows_pairs8, pairs_block                    \
    }
#define INT4_PAIRS                                                                                                     \
    {                                                                                                                  \
        RZ_KERNELS_NAME " pmaddwd", MR, NR, 2, 0, pack_weights_pairs, pack_rows_pairs4, pairs_block                    \
    }
#define INT4_NARROW                                                                                                    \
    {                                                                                                                  \
        RZ_KERNELS_NAME " pmaddubsw", MR, NR, 4, 8, pack_weights_quads, pack_rows_quads4, narrow_block                 \
    }

#if W > 4
#define FLOAT_NAME " vfmadd"
#else
#define FLOAT_NAME
#endif

const struct rz_kernels RZ_KERNELS = {
    .name = RZ_KERNELS_NAME,
    .f32 = {RZ_KERNELS_NAME FLOAT_NAME, MR, NR, 1, W == 16 ? 768 : 384, pack, gemm_block, gemm_rows},
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
    .resample = resample,
    .int8 = INT8_PAIRS,
    .int4 = INT4,
};
