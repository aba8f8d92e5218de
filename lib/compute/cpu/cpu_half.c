/* cpu_half.c - activations of bfloat16: widened, the op for floats, rounded. What other devices are compared with; the
 * CPU itself gains nothing from it. SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"

/* The same numbers as floats, in the arena; NULL: no memory, recorded. Strides stay. */
static float *widened(rz_stream *s, const uint16_t *x, size_t n)
{
    float *y = rz_arena_f32(s, 1, n);
    if (y) s->dev->ops.half_to_f32(s, y, x, n);
    return y;
}

static void half_to_f32(rz_stream *s, float *y, const uint16_t *x, size_t n)
{
    (void)s;
    rz_cpu_widen(y, (rz_mat){.data = x, .dtype = RZ_BF16, .ld = n}, 0, n);
}

/* y = x W^T + bias as floats, added to what is there or in its place. */
static void linear(rz_stream *s, float beta, float *y, size_t ldy, const uint16_t *x, size_t ldx, rz_mat w,
                   const float *bias, size_t m, size_t n, size_t k)
{
    w.compute = RZ_BF16;
    s->dev->ops.gemm(s, false, true, m, n, k, 1.0f, (rz_mat){.data = x, .dtype = RZ_BF16, .ld = ldx}, w, beta, y, ldy);
    for (size_t r = 0; bias && r < m; r++) s->dev->ops.sum(s, y + r * ldy, y + r * ldy, bias, n);
}

static void half_linear(rz_stream *s, uint16_t *y, size_t ldy, const uint16_t *x, size_t ldx, rz_mat w,
                        const float *bias, size_t m, size_t n, size_t k)
{
    const rz_mark mark = rz_arena_mark(s);
    float *f = rz_arena_f32(s, m, n);
    if (!f) return;
    linear(s, 0, f, n, x, ldx, w, bias, m, n, k);
    for (size_t r = 0; r < m && !rz_stream_failed(s); r++) rz_cpu_round_bf16(y + r * ldy, f + r * n, n);
    rz_arena_release(s, mark);
}

static void half_linear_add(rz_stream *s, float *h, size_t ldh, const uint16_t *x, size_t ldx, rz_mat w,
                            const float *bias, size_t m, size_t n, size_t k)
{
    linear(s, 1, h, ldh, x, ldx, w, bias, m, n, k);
}

static void half_norm(rz_stream *s, uint16_t *y, const float *x, const float *w, const float *b, float eps, size_t rows,
                      size_t cols)
{
    const rz_mark mark = rz_arena_mark(s);
    float *f = rz_arena_f32(s, rows, cols), *stats = rz_arena_f32(s, rows, 2);
    if (!f || !stats) return;
    if (b)
        s->dev->ops.layernorm(s, f, stats, x, w, b, eps, rows, cols);
    else
        s->dev->ops.rmsnorm(s, f, stats, x, w, eps, rows, cols);
    rz_cpu_round_bf16(y, f, rows * cols);
    rz_arena_release(s, mark);
}

static void half_rope(rz_stream *s, uint16_t *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale,
                      size_t rows, size_t n_heads, size_t head_dim)
{
    const size_t cols = n_heads * head_dim;
    const rz_mark mark = rz_arena_mark(s);
    float *f = rz_arena_f32(s, rows, cols);
    if (!f) return;
    for (size_t r = 0; r < rows; r++) half_to_f32(s, f + r * cols, x + r * ld, cols);
    s->dev->ops.rope(s, f, cols, pos, inv_freq, scale, rows, n_heads, head_dim, false);
    for (size_t r = 0; r < rows; r++) rz_cpu_round_bf16(x + r * ld, f + r * cols, cols);
    rz_arena_release(s, mark);
}

/* Elements from the first to the last of `rows` rows. */
static size_t span(size_t rows, size_t ld, size_t cols)
{
    return rows ? (rows - 1) * ld + cols : 0;
}

static void half_attention(rz_stream *s, const rz_attn *a, uint16_t *out, const uint16_t *q, const uint16_t *k,
                           const uint16_t *v)
{
    const size_t nq = (size_t)a->q_seq.start[a->q_seq.n], nkv = (size_t)a->kv_seq.start[a->kv_seq.n];
    const size_t cols = a->n_heads * a->head_dim, kv_span = span(nkv, a->kv_ld, a->n_kv_heads * a->head_dim);
    const rz_mark mark = rz_arena_mark(s);
    rz_attn own = *a;
    own.out_ld = cols;
    const float *fq = widened(s, q, span(nq, a->q_ld, cols)), *fk = widened(s, k, kv_span),
                *fv = widened(s, v, kv_span);
    float *f = rz_arena_f32(s, nq, cols);
    if (!fq || !fk || !fv || !f) return;
    s->dev->ops.attention(s, &own, f, NULL, fq, fk, fv);
    for (size_t r = 0; r < nq && !rz_stream_failed(s); r++) rz_cpu_round_bf16(out + r * a->out_ld, f + r * cols, cols);
    rz_arena_release(s, mark);
}

static void half_act(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *x, size_t n)
{
    const rz_mark mark = rz_arena_mark(s);
    float *f = widened(s, x, n);
    if (!f) return;
    s->dev->ops.act(s, kind, f, f, n);
    rz_cpu_round_bf16(y, f, n);
    rz_arena_release(s, mark);
}

static void half_gated(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *gate, const uint16_t *up, size_t ld,
                       size_t rows, size_t cols)
{
    const rz_mark mark = rz_arena_mark(s);
    float *g = rz_arena_f32(s, 1, cols), *u = rz_arena_f32(s, 1, cols);
    for (size_t r = 0; g && u && r < rows; r++) {
        half_to_f32(s, g, gate + r * ld, cols);
        half_to_f32(s, u, up + r * ld, cols);
        s->dev->ops.gated(s, kind, g, g, u, cols);
        rz_cpu_round_bf16(y + r * cols, g, cols);
    }
    rz_arena_release(s, mark);
}

void rz_cpu_half_ops(struct rz_ops *ops)
{
    ops->half_linear = half_linear;
    ops->half_linear_add = half_linear_add;
    ops->half_norm = half_norm;
    ops->half_rope = half_rope;
    ops->half_attention = half_attention;
    ops->half_act = half_act;
    ops->half_gated = half_gated;
    ops->half_to_f32 = half_to_f32;
}
