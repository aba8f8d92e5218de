/* layers.c - linear layers, norms and residuals on named parameters.
 * SPDX-License-Identifier: Apache-2.0 */
#include "layers.h"

#include "pager.h"

void rz_net_poll(const rz_net *net)
{
    if (net->cancel_fn && !rz_stream_failed(net->s) && net->cancel_fn(net->user))
        rz_stream_fail(net->s, RADZ_E_CANCELLED, "cancelled by the caller");
}

/* A matrix in a product beside those of a layer of bfloat16. A GPU rounds it too: such products are many times faster
 * there. The CPU gains less and keeps the floats. */
static rz_mat beside(const rz_net *net, const rz_linear *l, rz_mat x)
{
    if (rz_device_is_half(rz_stream_device(net->s))) x.compute = l->w->w.compute;
    return x;
}

/* ---- LoRA: nothing is kept but x, which the layer keeps anyway ---- */

static bool drops(const rz_net *net, const rz_lowrank *l)
{
    return l->dropout > 0 && net->dropout_seed && net->row_keys;
}

/* x, or what dropout leaves of it: the same in the forward and in the backward pass. */
static const float *dropped(const rz_net *net, const rz_lowrank *l, const float *x, size_t rows, size_t cols)
{
    if (!drops(net, l)) return x;
    float *y = rz_arena_f32(net->s, rows, cols);
    rz_dropout(net->s, y, x, l->dropout, net->dropout_seed + l->module, net->row_keys, rows, cols);
    return y;
}

/* dropout(x) A^T */
static float *into_rank(const rz_net *net, const rz_linear *layer, const float *x, size_t rows)
{
    const rz_lowrank *l = layer->lora;
    size_t r = l->a->dims[0], in = l->a->dims[1];
    float *u = rz_arena_f32(net->s, rows, r);
    rz_gemm(net->s, false, true, rows, r, in, 1.0f, rz_mat_f32(x, in), beside(net, layer, l->a->w), 0.0f, u, r);
    return u;
}

static void lowrank_forward(const rz_net *net, const rz_linear *layer, float *y, const float *x, size_t rows)
{
    const rz_lowrank *l = layer->lora;
    size_t r = l->a->dims[0], in = l->a->dims[1], out = l->b->dims[0];
    rz_mark m = rz_arena_mark(net->s);
    float *u = into_rank(net, layer, dropped(net, l, x, rows, in), rows);
    rz_gemm(net->s, false, true, rows, out, r, l->scale, rz_mat_f32(u, r), beside(net, layer, l->b->w), 1.0f, y, out);
    rz_arena_release(net->s, m);
}

static void lowrank_dx(const rz_net *net, const rz_linear *layer, float *dx, const float *du, size_t rows)
{
    const rz_lowrank *l = layer->lora;
    size_t r = l->a->dims[0], in = l->a->dims[1];
    float *part = drops(net, l) ? rz_arena_f32(net->s, rows, in) : NULL;
    rz_gemm(net->s, false, false, rows, in, r, 1.0f, rz_mat_f32(du, r), beside(net, layer, l->a->w), part ? 0.0f : 1.0f,
            part ? part : dx, in);
    if (!part) return;
    rz_dropout(net->s, part, part, l->dropout, net->dropout_seed + l->module, net->row_keys, rows, in);
    rz_add(net->s, dx, part, rows * in);
}

static void lowrank_backward(const rz_net *net, const rz_linear *layer, float *dx, const float *dy, const float *x,
                             size_t rows)
{
    const rz_lowrank *l = layer->lora;
    size_t r = l->a->dims[0], in = l->a->dims[1], out = l->b->dims[0];
    rz_mark m = rz_arena_mark(net->s);
    float *du = rz_arena_f32(net->s, rows, r);
    rz_gemm(net->s, false, false, rows, r, out, l->scale, rz_mat_f32(dy, out), beside(net, layer, l->b->w), 0.0f, du,
            r);
    if (dx) lowrank_dx(net, layer, dx, du, rows);
    if (l->a->grad) {
        x = dropped(net, l, x, rows, in);
        float *u = into_rank(net, layer, x, rows);
        rz_gemm(net->s, true, false, out, r, rows, l->scale, rz_mat_f32(dy, out), beside(net, layer, rz_mat_f32(u, r)),
                1.0f, l->b->grad, r);
        rz_gemm(net->s, true, false, r, in, rows, 1.0f, rz_mat_f32(du, r), beside(net, layer, rz_mat_f32(x, in)), 1.0f,
                l->a->grad, in);
    }
    rz_arena_release(net->s, m);
}

float *rz_linear_forward(const rz_net *net, const rz_linear *l, const float *x, size_t rows)
{
    size_t out = l->w->dims[0], in = l->w->n / out;
    float *y = rz_arena_f32(net->s, rows, out);
    rz_mat w;
    if (net->matrix_fn && !rz_stream_failed(net->s)) {
        w = net->matrix_fn(net->matrix_user, l, x, rows);
        rz_gemm(net->s, false, true, rows, out, in, 1.0f, rz_mat_f32(x, in), w, 0.0f, y, out);
    }
    for (size_t r = 0, n; !net->matrix_fn && r < out && (n = rz_pager_rows(net->pager, net->s, l->w, r, &w)); r += n)
        rz_gemm(net->s, false, true, rows, n, in, 1.0f, rz_mat_f32(x, in), w, 0.0f, y ? y + r : NULL, out);
    if (l->b) rz_add_bias(net->s, y, l->b->w.data, rows, out);
    if (l->lora) lowrank_forward(net, l, y, x, rows);
    return y;
}

void rz_linear_backward(const rz_net *net, const rz_linear *l, float beta, float *dx, const float *dy, const float *x,
                        size_t rows)
{
    size_t out = l->w->dims[0], in = l->w->n / out;
    rz_mat w;
    for (size_t r = 0, n; dx && r < out && (n = rz_pager_rows(net->pager, net->s, l->w, r, &w)); r += n)
        rz_gemm(net->s, false, false, rows, in, n, 1.0f, rz_mat_f32(dy ? dy + r : NULL, out), w, r ? 1.0f : beta, dx,
                in);
    if (l->w->grad)
        rz_gemm(net->s, true, false, out, in, rows, 1.0f, rz_mat_f32(dy, out), beside(net, l, rz_mat_f32(x, in)), 1.0f,
                l->w->grad, in);
    if (l->b && l->b->grad) rz_add_bias_bwd(net->s, l->b->grad, dy, rows, out);
    if (l->lora) lowrank_backward(net, l, dx, dy, x, rows);
}

float *rz_norm_forward(const rz_net *net, const rz_norm *n, float eps, const float *x, size_t rows, float **stats)
{
    size_t cols = n->w->n;
    float *y = rz_arena_f32(net->s, rows, cols);
    *stats = rz_arena_f32(net->s, rows, n->b ? 2 : 1);
    if (n->b)
        rz_layernorm(net->s, y, *stats, x, n->w->w.data, n->b->w.data, eps, rows, cols);
    else
        rz_rmsnorm(net->s, y, *stats, x, n->w->w.data, eps, rows, cols);
    return y;
}

void rz_norm_backward(const rz_net *net, const rz_norm *n, float *dx, const float *dy, const float *x,
                      const float *stats, size_t rows)
{
    size_t cols = n->w->n;
    if (n->b)
        rz_layernorm_bwd(net->s, dx, n->w->grad, n->b->grad, dy, x, stats, n->w->w.data, rows, cols);
    else
        rz_rmsnorm_bwd(net->s, dx, n->w->grad, dy, x, stats, n->w->w.data, rows, cols);
}

float *rz_residual(const rz_net *net, float *h, const float *delta, size_t n)
{
    float *sum = net->keep ? rz_arena_f32(net->s, 1, n) : h;
    rz_sum(net->s, sum, h, delta, n);
    return sum;
}

rz_qkv rz_qkv_zeros(const rz_net *net, const rz_attn *at, size_t rows)
{
    float *q = rz_arena_zeros(net->s, rows, at->q_ld + 2 * at->kv_ld);
    if (!q) return (rz_qkv){0};
    float *k = q + rows * at->q_ld;
    return (rz_qkv){q, k, k + rows * at->kv_ld};
}

rz_attn rz_self_attention(rz_ragged seq, size_t heads, size_t kv_heads, size_t head_dim, bool causal, size_t window)
{
    return (rz_attn){.q_seq = seq,
                     .kv_seq = seq,
                     .n_heads = heads,
                     .n_kv_heads = kv_heads,
                     .head_dim = head_dim,
                     .q_ld = heads * head_dim,
                     .kv_ld = kv_heads * head_dim,
                     .out_ld = heads * head_dim,
                     .scale = 1.0f / sqrtf((float)head_dim),
                     .causal = causal,
                     .window = window};
}
