/* op_times.h - where the time goes: every op of a device waited for and counted. For one program each.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_OP_TIMES_H
#define RZ_OP_TIMES_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "ops.h"

enum { MAX_LINES = 128 };
static struct line {
    char name[64];
    size_t n;
    double seconds;
} lines[MAX_LINES];
static size_t n_lines;
static pthread_mutex_t lines_lock = PTHREAD_MUTEX_INITIALIZER; /* films may go through the network side by side */
static struct rz_ops real;                                     /* the device's own table */

static void add_to_line(const char *full, double seconds)
{
    size_t i = 0;
    while (i < n_lines && strcmp(lines[i].name, full)) i++;
    if (i == MAX_LINES) return;
    if (i == n_lines) snprintf(lines[n_lines++].name, sizeof lines[i].name, "%s", full);
    lines[i].n++, lines[i].seconds += seconds;
}

static void note(rz_stream *s, double begin, const char *name, size_t n, size_t k)
{
    char full[64];
    real.sync(s);
    const double seconds = rz_seconds() - begin;
    if (n)
        snprintf(full, sizeof full, "%s %zu x %zu", name, n, k);
    else
        snprintf(full, sizeof full, "%s", name);
    pthread_mutex_lock(&lines_lock);
    add_to_line(full, seconds);
    pthread_mutex_unlock(&lines_lock);
}

#define TIMED(op, n, k, params, args)                                                                                  \
    static void timed_##op params                                                                                      \
    {                                                                                                                  \
        const double begin = rz_seconds();                                                                             \
        real.op args;                                                                                                  \
        note(s, begin, #op, n, k);                                                                                     \
    }
TIMED(half_linear, n, k,
      (rz_stream * s, uint16_t *y, size_t ldy, const uint16_t *x, size_t ldx, rz_mat w, const float *bias, size_t m,
       size_t n, size_t k),
      (s, y, ldy, x, ldx, w, bias, m, n, k))
TIMED(half_linear_add, n, k,
      (rz_stream * s, float *h, size_t ldh, const uint16_t *x, size_t ldx, rz_mat w, const float *bias, size_t m,
       size_t n, size_t k),
      (s, h, ldh, x, ldx, w, bias, m, n, k))
TIMED(half_norm, rows, cols,
      (rz_stream * s, uint16_t *y, const float *x, const float *w, const float *b, float eps, size_t rows, size_t cols),
      (s, y, x, w, b, eps, rows, cols))
TIMED(half_rope, 0, 0,
      (rz_stream * s, uint16_t *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale, size_t rows,
       size_t n_heads, size_t head_dim),
      (s, x, ld, pos, inv_freq, scale, rows, n_heads, head_dim))
TIMED(half_attention, a->n_heads, a->head_dim,
      (rz_stream * s, const rz_attn *a, uint16_t *out, const uint16_t *q, const uint16_t *k, const uint16_t *v),
      (s, a, out, q, k, v))
TIMED(half_act, 0, 0, (rz_stream * s, rz_act_kind kind, uint16_t *y, const uint16_t *x, size_t n), (s, kind, y, x, n))
TIMED(half_gated, 0, 0,
      (rz_stream * s, rz_act_kind kind, uint16_t *y, const uint16_t *gate, const uint16_t *up, size_t ld, size_t rows,
       size_t cols),
      (s, kind, y, gate, up, ld, rows, cols))
TIMED(half_to_f32, 0, 0, (rz_stream * s, float *y, const uint16_t *x, size_t n), (s, y, x, n))
TIMED(gemm, n, k,
      (rz_stream * s, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b, float beta,
       float *c, size_t ldc),
      (s, ta, tb, m, n, k, alpha, a, b, beta, c, ldc))
TIMED(copy, 0, 0, (rz_stream * s, void *dst, const void *src, size_t n_bytes), (s, dst, src, n_bytes))
TIMED(copy_rows, 0, 0,
      (rz_stream * s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
       const int32_t *src_rows, size_t n, size_t cols),
      (s, dst, dst_ld, dst_rows, src, src_ld, src_rows, n, cols))
TIMED(add_rows, 0, 0,
      (rz_stream * s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
       const int32_t *src_rows, size_t n, size_t cols),
      (s, dst, dst_ld, dst_rows, src, src_ld, src_rows, n, cols))
TIMED(add_bias, 0, 0, (rz_stream * s, float *y, const float *b, size_t rows, size_t cols), (s, y, b, rows, cols))
TIMED(sum, 0, 0, (rz_stream * s, float *y, const float *a, const float *b, size_t n), (s, y, a, b, n))
TIMED(fill, 0, 0, (rz_stream * s, float *y, float value, size_t n), (s, y, value, n))
TIMED(scale, 0, 0, (rz_stream * s, float *y, float a, size_t n), (s, y, a, n))
TIMED(to_bf16, 0, 0, (rz_stream * s, uint16_t *y, const float *x, size_t n), (s, y, x, n))
TIMED(gather, 0, 0, (rz_stream * s, float *y, rz_mat table, const int32_t *ids, size_t rows, size_t cols),
      (s, y, table, ids, rows, cols))
TIMED(act, 0, 0, (rz_stream * s, rz_act_kind kind, float *y, const float *x, size_t n), (s, kind, y, x, n))
TIMED(attention, a->n_heads, a->head_dim,
      (rz_stream * s, const rz_attn *a, float *out, float *lse, const float *q, const float *k, const float *v),
      (s, a, out, lse, q, k, v))
TIMED(upload, 0, 0, (rz_stream * s, void *dst, const void *host, size_t n_bytes), (s, dst, host, n_bytes))
TIMED(rmsnorm, 0, 0,
      (rz_stream * s, float *y, float *rstd, const float *x, const float *w, float eps, size_t rows, size_t cols),
      (s, y, rstd, x, w, eps, rows, cols))
TIMED(layernorm, 0, 0,
      (rz_stream * s, float *y, float *stats, const float *x, const float *w, const float *b, float eps, size_t rows,
       size_t cols),
      (s, y, stats, x, w, b, eps, rows, cols))

/* What training adds. */
TIMED(add_bias_bwd, rows, cols, (rz_stream * s, float *db, const float *dy, size_t rows, size_t cols),
      (s, db, dy, rows, cols))
TIMED(dropout, 0, 0,
      (rz_stream * s, float *y, const float *x, float p, uint64_t seed, const uint64_t *keys, size_t rows, size_t cols),
      (s, y, x, p, seed, keys, rows, cols))
TIMED(pool_mean, 0, 0,
      (rz_stream * s, float *y, const float *x, const int32_t *rows, const int32_t *start, size_t n_groups,
       size_t cols),
      (s, y, x, rows, start, n_groups, cols))
TIMED(pool_mean_bwd, 0, 0,
      (rz_stream * s, float *dx, const float *dy, const int32_t *rows, const int32_t *start, size_t n_groups,
       size_t cols),
      (s, dx, dy, rows, start, n_groups, cols))
TIMED(l2norm, 0, 0, (rz_stream * s, float *y, float *norm, const float *x, size_t rows, size_t cols),
      (s, y, norm, x, rows, cols))
TIMED(l2norm_bwd, 0, 0,
      (rz_stream * s, float *dx, const float *dy, const float *y, const float *norm, size_t rows, size_t cols),
      (s, dx, dy, y, norm, rows, cols))
TIMED(rmsnorm_bwd, rows, cols,
      (rz_stream * s, float *dx, float *dw, const float *dy, const float *x, const float *rstd, const float *w,
       size_t rows, size_t cols),
      (s, dx, dw, dy, x, rstd, w, rows, cols))
TIMED(layernorm_bwd, rows, cols,
      (rz_stream * s, float *dx, float *dw, float *db, const float *dy, const float *x, const float *stats,
       const float *w, size_t rows, size_t cols),
      (s, dx, dw, db, dy, x, stats, w, rows, cols))
TIMED(act_bwd, 0, 0, (rz_stream * s, rz_act_kind kind, float *dx, const float *dy, const float *x, size_t n),
      (s, kind, dx, dy, x, n))
TIMED(gated, 0, 0, (rz_stream * s, rz_act_kind kind, float *y, const float *gate, const float *up, size_t n),
      (s, kind, y, gate, up, n))
TIMED(gated_bwd, 0, 0,
      (rz_stream * s, rz_act_kind kind, float *dgate, float *dup, const float *dy, const float *gate, const float *up,
       size_t n),
      (s, kind, dgate, dup, dy, gate, up, n))
TIMED(rope, 0, 0,
      (rz_stream * s, float *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale, size_t rows,
       size_t n_heads, size_t head_dim, bool inverse),
      (s, x, ld, pos, inv_freq, scale, rows, n_heads, head_dim, inverse))
TIMED(attention_bwd, a->n_heads, a->head_dim,
      (rz_stream * s, const rz_attn *a, float *dq, float *dk, float *dv, const float *dout, const float *out,
       const float *lse, const float *q, const float *k, const float *v),
      (s, a, dq, dk, dv, dout, out, lse, q, k, v))
TIMED(patchify, 0, 0,
      (rz_stream * s, float *y, const float *pixels, size_t n, size_t channels, size_t size, size_t patch),
      (s, y, pixels, n, channels, size, patch))
TIMED(softmax_xent, 0, 0,
      (rz_stream * s, float *loss, float *dlogits, const float *logits, const float *targets, const float *keep,
       float weight, size_t rows, size_t cols),
      (s, loss, dlogits, logits, targets, keep, weight, rows, cols))
TIMED(adamw_step, 0, 0, (rz_stream * s, const rz_adamw *o, const rz_adamw_slot *slots, size_t n_slots),
      (s, o, slots, n_slots))
TIMED(download, 0, 0, (rz_stream * s, void *host, const void *src, size_t n_bytes), (s, host, src, n_bytes))
static double timed_dot(rz_stream *s, const float *x, const float *y, size_t n)
{
    const double begin = rz_seconds(), sum = real.dot(s, x, y, n);
    note(s, begin, "dot", 0, 0);
    return sum;
}

static int by_seconds(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

/* From here on. */
static void op_times_watch(rz_device *dev)
{
    real = dev->ops;
#define SWAP(op) dev->ops.op = timed_##op
    SWAP(half_linear), SWAP(half_linear_add), SWAP(half_norm), SWAP(half_rope), SWAP(half_attention), SWAP(half_act),
        SWAP(half_gated), SWAP(half_to_f32), SWAP(gemm), SWAP(copy), SWAP(copy_rows), SWAP(add_rows), SWAP(add_bias),
        SWAP(sum), SWAP(fill), SWAP(scale), SWAP(to_bf16), SWAP(gather), SWAP(act), SWAP(attention), SWAP(upload),
        SWAP(rmsnorm), SWAP(layernorm), SWAP(add_bias_bwd), SWAP(dropout), SWAP(pool_mean), SWAP(pool_mean_bwd),
        SWAP(l2norm), SWAP(l2norm_bwd), SWAP(rmsnorm_bwd), SWAP(layernorm_bwd), SWAP(act_bwd), SWAP(gated),
        SWAP(gated_bwd), SWAP(rope), SWAP(attention_bwd), SWAP(patchify), SWAP(softmax_xent), SWAP(adamw_step),
        SWAP(download), SWAP(dot);
#undef SWAP
}

/* The ops since then, the longest first; the device is as before. */
static void op_times_tell(rz_device *dev, double whole)
{
    double sum = 0;
    dev->ops = real;
    qsort(lines, n_lines, sizeof *lines, by_seconds);
    for (size_t i = 0; i < n_lines; i++) {
        sum += lines[i].seconds;
        printf("    %8.3f ms %5zu calls  %s\n", 1e3 * lines[i].seconds, lines[i].n, lines[i].name);
    }
    printf("    %8.3f ms of %.3f in these ops, each waited for\n", 1e3 * sum, 1e3 * whole);
    n_lines = 0;
    memset(lines, 0, sizeof lines);
}

#endif
