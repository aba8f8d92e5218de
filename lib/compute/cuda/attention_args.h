/* attention_args.h - what the host gives the kernels of attention. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_ATTENTION_ARGS_H
#define RZ_ATTENTION_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Attention takes one at a time of: a tile of rows, a head, a sequence, and, where heads are wide, a part of a head's
 * columns. A tile of the plain kernels; of queries and of keys with matrix units; columns a plain kernel may hold. */
enum { RZ_TILE = 64, RZ_TILE_THREADS = 256, RZ_MMA_KEYS = 64, RZ_MMA_THREADS = 128, RZ_MMA_ALIGN = 512 };

/* rz_attn and the pointers of an op, all on the device. q, k, v, out: float or bfloat16, as the kernel says. */
struct rz_attention_args {
    const int32_t *q_start, *kv_start;
    size_t n_heads, n_kv_heads, head_dim, q_ld, kv_ld, out_ld, window;
    float scale;
    bool causal;
    const void *q, *k, *v;
    void *out;
    float *lse;
    /* The backward's: delta (q rows, n_heads) is the sum of dout out over a head's columns. */
    const float *dout;
    float *dq, *dk, *dv, *delta;
};

#endif
