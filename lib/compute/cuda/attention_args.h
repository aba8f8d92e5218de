/* attention_args.h - what the host gives the kernels of attention. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_ATTENTION_ARGS_H
#define RZ_ATTENTION_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A block takes a tile of queries, or of keys, and a part of a head's columns. Plain kernels: so many rows, threads,
 * bytes of shared memory; that of bfloat16 so many columns. With matrix units: keys at a time, threads, alignment of
 * the shared memory. */
enum { RZ_TILE = 64, RZ_TILE_THREADS = 256, RZ_TILE_SHARED = 54272, RZ_HALF_COLUMNS = 64 };
enum { RZ_MMA_KEYS = 64, RZ_MMA_THREADS = 128, RZ_MMA_ALIGN = 512 };

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
