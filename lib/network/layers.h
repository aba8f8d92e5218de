/* layers.h - one pass of the network, and the layers every stage is made of.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_LAYERS_H
#define RZ_LAYERS_H

#include "model.h"

/* One pass of the network: whose weights, who computes, what is kept. */
typedef struct rz_net {
    const rz_model *model;
    rz_stream *s;
    bool keep;                    /* keep activations for the backward; they live in the stream's arena */
    bool recompute;               /* keep only the blocks' inputs; the backward pass makes the rest again */
    uint64_t dropout_seed;        /* training: one number for all passes of a step; 0: no dropout */
    const uint64_t *row_keys;     /* device; set by rz_encode where there is dropout */
    double drop_path;             /* with dropout_seed: share of films that the last tower block's branches leave out */
    const uint64_t *film_keys;    /* host; set by rz_encode where there is drop_path */
    const bool *gray_films;       /* host, of each film: its first plane alone is there; set by rz_encode; NULL: none */
    struct rz_pager *pager;       /* of a model larger than memory (pager.h); NULL: it is in memory */
    struct rz_reuse *reuse;       /* what earlier passes left (reuse.h); NULL: nothing */
    int (*cancel_fn)(void *user); /* asked between blocks; may be NULL */
    void *user;
    /* Asked before the product of every linear layer with x (rows, in): the matrix to multiply with in place of its
     * own, good until it is asked again. NULL: they multiply with their own. For the CPU, forward. */
    rz_mat (*matrix_fn)(void *matrix_user, const rz_linear *l, const float *x, size_t rows);
    void *matrix_user;
} rz_net;

/* Records RADZ_E_CANCELLED when the caller asks to stop. */
void rz_net_poll(const rz_net *net);

/* y = x W^T + b: x (rows, in), result (rows, out) in the arena. */
float *rz_linear_forward(const rz_net *net, const rz_linear *l, const float *x, size_t rows);
/* dx = beta dx + dy W (dx NULL: not wanted); dW, db added where trained. */
void rz_linear_backward(const rz_net *net, const rz_linear *l, float beta, float *dx, const float *dy, const float *x,
                        size_t rows);

/* LayerNorm or, where the norm has no bias, RMSNorm. *stats is kept for the backward. */
float *rz_norm_forward(const rz_net *net, const rz_norm *n, float eps, const float *x, size_t rows, float **stats);
/* dx is added into. */
void rz_norm_backward(const rz_net *net, const rz_norm *n, float *dx, const float *dy, const float *x,
                      const float *stats, size_t rows);

/* h + delta: in place, or into a new buffer where activations are kept. */
float *rz_residual(const rz_net *net, float *h, const float *delta, size_t n);

/* Zeros for the gradients of the rows' q, k and v; NULL on failure. */
typedef struct rz_qkv {
    float *q, *k, *v;
} rz_qkv;
rz_qkv rz_qkv_zeros(const rz_net *net, const rz_attn *at, size_t rows);

/* Vision and text blocks differ in norms, masks and MLPs; their attention is one thing. q, k, v are (rows, heads *
 * head_dim) and (rows, kv_heads * head_dim), one after another. */
rz_attn rz_self_attention(rz_ragged seq, size_t heads, size_t kv_heads, size_t head_dim, bool causal, size_t window);

#endif
