/* host_ops.c - see host_ops.h. SPDX-License-Identifier: Apache-2.0 */
#include "host_ops.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ops.h"

enum { MOST = 12, GUARD = 256, ALIGN = 64 };

static struct rz_ops inner; /* the device's own: one device for all tests */

/* ---- Which addresses are the device's ------------------------------------------------------ */

static struct range {
    uint8_t *p;
    size_t n;
} * ranges;
static size_t n_ranges;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *host_alloc(rz_device *dev, size_t n_bytes)
{
    void *p = inner.alloc(dev, n_bytes);
    if (!p) return NULL;
    pthread_mutex_lock(&lock);
    struct range *more = realloc(ranges, (n_ranges + 1) * sizeof *ranges);
    assert_non_null(more);
    ranges = more;
    ranges[n_ranges++] = (struct range){p, n_bytes};
    pthread_mutex_unlock(&lock);
    return p;
}

static void host_free(rz_device *dev, void *p)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_ranges; i++)
        if (ranges[i].p == p) ranges[i--] = ranges[--n_ranges];
    if (n_ranges == 0) {
        free(ranges);
        ranges = NULL;
    }
    pthread_mutex_unlock(&lock);
    inner.free(dev, p);
}

static bool on_device(const void *p)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_ranges && !found; i++)
        found = (const uint8_t *)p >= ranges[i].p && (const uint8_t *)p <= ranges[i].p + ranges[i].n;
    pthread_mutex_unlock(&lock);
    return found;
}

/* ---- Staging: what an op reads and writes of host memory lies on the device while it runs ------------- */

struct operand {
    uint8_t *host;
    size_t n;
    bool written;
    void *variable; /* that holds the address */
};

/* Operands that overlap are one piece: guard, bytes, guard; as far off from ALIGN as on the host. */
struct piece {
    uint8_t *host, *image, *device;
    size_t n;
};

struct stage {
    rz_stream *s;
    struct operand operands[MOST];
    struct piece pieces[MOST];
    size_t n_operands, n_pieces;
    rz_mark mark;
};

static void take(struct stage *t, void *variable, size_t n_bytes, bool written)
{
    uint8_t *p;
    memcpy(&p, variable, sizeof p);
    if (!p || n_bytes == 0 || on_device(p)) return;
    assert_true(t->n_operands < MOST);
    t->operands[t->n_operands++] = (struct operand){p, n_bytes, written, variable};
}

static bool touch(const uint8_t *a, size_t n_a, const uint8_t *b, size_t n_b)
{
    return a < b + n_b && b < a + n_a;
}

static void add_piece(struct stage *t, uint8_t *host, size_t n)
{
    for (size_t i = 0; i < t->n_pieces; i++) {
        struct piece *p = &t->pieces[i];
        if (!touch(host, n, p->host, p->n)) continue;
        uint8_t *end = host + n > p->host + p->n ? host + n : p->host + p->n;
        host = host < p->host ? host : p->host;
        n = (size_t)(end - host);
        *p = t->pieces[--t->n_pieces];
        add_piece(t, host, n); /* which may touch others now */
        return;
    }
    t->pieces[t->n_pieces++] = (struct piece){.host = host, .n = n};
}

static size_t before(const struct piece *p)
{
    return GUARD + (uintptr_t)p->host % ALIGN;
}
static size_t image_size(const struct piece *p)
{
    return before(p) + p->n + GUARD;
}

static void upload_piece(struct stage *t, struct piece *p)
{
    p->image = malloc(image_size(p));
    memset(p->image, 0xff, image_size(p)); /* NaN, where an op reads too far */
    memcpy(p->image + before(p), p->host, p->n);
    p->device = rz_arena_bytes(t->s, image_size(p));
    if (p->device) inner.upload(t->s, p->device, p->image, image_size(p));
}

static void redirect(struct stage *t, const struct operand *o)
{
    for (size_t i = 0; i < t->n_pieces; i++) {
        const struct piece *p = &t->pieces[i];
        if (!touch(o->host, o->n, p->host, p->n)) continue;
        const uint8_t *there = p->device + before(p) + (o->host - p->host);
        memcpy(o->variable, &there, sizeof there);
    }
}

static bool begin(struct stage *t)
{
    t->mark = rz_arena_mark(t->s);
    for (size_t i = 0; i < t->n_operands; i++) add_piece(t, t->operands[i].host, t->operands[i].n);
    for (size_t i = 0; i < t->n_pieces; i++) upload_piece(t, &t->pieces[i]);
    for (size_t i = 0; i < t->n_operands; i++) redirect(t, &t->operands[i]);
    return !rz_stream_failed(t->s);
}

static void check_guards(const char *op, const struct piece *p)
{
    for (size_t i = 0; i < image_size(p); i++)
        if ((i < before(p) || i >= before(p) + p->n) && p->image[i] != 0xff)
            fail_msg("%s wrote byte %td of %zu", op, (ptrdiff_t)i - (ptrdiff_t)before(p), p->n);
}

/* What was written goes back; what was only read must be as before. */
static void give_back(const char *op, const struct operand *o, const struct piece *p)
{
    const uint8_t *now = p->image + before(p) + (o->host - p->host);
    if (o->written)
        memcpy(o->host, now, o->n);
    else if (memcmp(o->host, now, o->n) != 0)
        fail_msg("%s wrote to what it may only read", op);
}

static void finish(struct stage *t, const char *op)
{
    for (size_t i = 0; i < t->n_pieces && !rz_stream_failed(t->s); i++) {
        struct piece *p = &t->pieces[i];
        inner.download(t->s, p->image, p->device, image_size(p));
        if (!rz_stream_failed(t->s)) check_guards(op, p);
    }
    for (int written = 1; written >= 0 && !rz_stream_failed(t->s); written--) /* a buffer may be both */
        for (size_t i = 0; i < t->n_operands; i++)
            for (size_t j = 0; j < t->n_pieces && t->operands[i].written == written; j++)
                if (touch(t->operands[i].host, t->operands[i].n, t->pieces[j].host, t->pieces[j].n))
                    give_back(op, &t->operands[i], &t->pieces[j]);
    for (size_t i = 0; i < t->n_pieces; i++) free(t->pieces[i].image);
    rz_arena_release(t->s, t->mark);
}

#define STAGE struct stage t = {.s = s}
#define IN(p, n) take(&t, &(p), (n) * sizeof *(p), false)
#define OUT(p, n) take(&t, &(p), (n) * sizeof *(p), true)
#define RUN(op, ...)                                                                                                   \
    do {                                                                                                               \
        if (begin(&t)) inner.op(s, __VA_ARGS__);                                                                       \
        finish(&t, #op);                                                                                               \
    } while (0)

/* Elements from the first row's first to the last row's last. */
static size_t spread(size_t rows, size_t ld, size_t cols)
{
    return rows ? (rows - 1) * ld + cols : 0;
}

/* Rows that indices reach: of NULL, n. On the device only what they point into is there too. */
static size_t reach(const int32_t *ids, size_t n)
{
    int32_t most = -1;
    if (!ids) return n;
    if (on_device(ids)) return 0;
    for (size_t i = 0; i < n; i++) most = ids[i] > most ? ids[i] : most;
    return (size_t)(most + 1);
}

static void take_matrix(struct stage *t, rz_mat *m, size_t rows, size_t cols)
{
    const bool is_float = rz_dtype_is_float(m->dtype);
    take(t, &m->data, rz_dtype_bytes(m->dtype, is_float ? spread(rows, m->ld, cols) : rows * m->ld), false);
    if (!is_float) take(t, &m->scale, rz_dtype_bytes(m->scale_dtype, rows * rz_mat_groups(*m)), false);
}

/* ---- The ops ------------------------------------------------------------------------------------------------ */

static void host_upload(rz_stream *s, void *dst, const void *host, size_t n_bytes)
{
    STAGE;
    take(&t, &dst, n_bytes, true);
    RUN(upload, dst, host, n_bytes);
}
static void host_download(rz_stream *s, void *host, const void *src, size_t n_bytes)
{
    STAGE;
    take(&t, &src, n_bytes, false);
    RUN(download, host, src, n_bytes);
}
static void host_copy(rz_stream *s, void *dst, const void *src, size_t n_bytes)
{
    STAGE;
    take(&t, &dst, n_bytes, true);
    take(&t, &src, n_bytes, false);
    RUN(copy, dst, src, n_bytes);
}
static void host_fill(rz_stream *s, float *y, float value, size_t n)
{
    STAGE;
    OUT(y, n);
    RUN(fill, y, value, n);
}
static void host_gemm(rz_stream *s, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b,
                      float beta, float *c, size_t ldc)
{
    STAGE;
    take_matrix(&t, &a, ta ? k : m, ta ? m : k);
    take_matrix(&t, &b, tb ? n : k, tb ? k : n);
    OUT(c, spread(m, ldc, n));
    RUN(gemm, ta, tb, m, n, k, alpha, a, b, beta, c, ldc);
}
static void host_sum(rz_stream *s, float *y, const float *a, const float *b, size_t n)
{
    STAGE;
    OUT(y, n);
    IN(a, n);
    IN(b, n);
    RUN(sum, y, a, b, n);
}
static void host_scale(rz_stream *s, float *y, float a, size_t n)
{
    STAGE;
    OUT(y, n);
    RUN(scale, y, a, n);
}
static void host_add_bias(rz_stream *s, float *y, const float *b, size_t rows, size_t cols)
{
    STAGE;
    OUT(y, rows * cols);
    IN(b, cols);
    RUN(add_bias, y, b, rows, cols);
}
static void host_add_bias_bwd(rz_stream *s, float *db, const float *dy, size_t rows, size_t cols)
{
    STAGE;
    OUT(db, cols);
    IN(dy, rows * cols);
    RUN(add_bias_bwd, db, dy, rows, cols);
}
static void host_dropout(rz_stream *s, float *y, const float *x, float p, uint64_t seed, const uint64_t *keys,
                         size_t rows, size_t cols)
{
    STAGE;
    OUT(y, rows * cols);
    IN(x, rows * cols);
    IN(keys, rows);
    RUN(dropout, y, x, p, seed, keys, rows, cols);
}
static void host_to_bf16(rz_stream *s, uint16_t *y, const float *x, size_t n)
{
    STAGE;
    OUT(y, n);
    IN(x, n);
    RUN(to_bf16, y, x, n);
}
static void host_gather(rz_stream *s, float *y, rz_mat table, const int32_t *ids, size_t rows, size_t cols)
{
    STAGE;
    OUT(y, rows * cols);
    take_matrix(&t, &table, reach(ids, rows), cols);
    IN(ids, rows);
    RUN(gather, y, table, ids, rows, cols);
}
#define HOST_ROWS(op)                                                                                                  \
    static void host_##op(rz_stream *s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src,          \
                          size_t src_ld, const int32_t *src_rows, size_t n, size_t cols)                               \
    {                                                                                                                  \
        STAGE;                                                                                                         \
        OUT(dst, spread(reach(dst_rows, n), dst_ld, cols));                                                            \
        IN(src, spread(reach(src_rows, n), src_ld, cols));                                                             \
        IN(dst_rows, n);                                                                                               \
        IN(src_rows, n);                                                                                               \
        RUN(op, dst, dst_ld, dst_rows, src, src_ld, src_rows, n, cols);                                                \
    }
HOST_ROWS(copy_rows)
HOST_ROWS(add_rows)
static void host_pool_mean(rz_stream *s, float *y, const float *x, const int32_t *rows, const int32_t *start,
                           size_t n_groups, size_t cols)
{
    STAGE;
    const size_t n = on_device(start) ? 0 : (size_t)start[n_groups];
    OUT(y, n_groups * cols);
    IN(x, reach(rows, n) * cols);
    IN(rows, n);
    IN(start, n_groups + 1);
    RUN(pool_mean, y, x, rows, start, n_groups, cols);
}
static void host_pool_mean_bwd(rz_stream *s, float *dx, const float *dy, const int32_t *rows, const int32_t *start,
                               size_t n_groups, size_t cols)
{
    STAGE;
    const size_t n = on_device(start) ? 0 : (size_t)start[n_groups];
    OUT(dx, reach(rows, n) * cols);
    IN(dy, n_groups * cols);
    IN(rows, n);
    IN(start, n_groups + 1);
    RUN(pool_mean_bwd, dx, dy, rows, start, n_groups, cols);
}
static void host_l2norm(rz_stream *s, float *y, float *norm, const float *x, size_t rows, size_t cols)
{
    STAGE;
    OUT(y, rows * cols);
    OUT(norm, rows);
    IN(x, rows * cols);
    RUN(l2norm, y, norm, x, rows, cols);
}
static void host_l2norm_bwd(rz_stream *s, float *dx, const float *dy, const float *y, const float *norm, size_t rows,
                            size_t cols)
{
    STAGE;
    OUT(dx, rows * cols);
    IN(dy, rows * cols);
    IN(y, rows * cols);
    IN(norm, rows);
    RUN(l2norm_bwd, dx, dy, y, norm, rows, cols);
}
static void host_layernorm(rz_stream *s, float *y, float *stats, const float *x, const float *w, const float *b,
                           float eps, size_t rows, size_t cols)
{
    STAGE;
    OUT(y, rows * cols);
    OUT(stats, 2 * rows);
    IN(x, rows * cols);
    IN(w, cols);
    IN(b, cols);
    RUN(layernorm, y, stats, x, w, b, eps, rows, cols);
}
static void host_layernorm_bwd(rz_stream *s, float *dx, float *dw, float *db, const float *dy, const float *x,
                               const float *stats, const float *w, size_t rows, size_t cols)
{
    STAGE;
    OUT(dx, rows * cols);
    OUT(dw, cols);
    OUT(db, cols);
    IN(dy, rows * cols);
    IN(x, rows * cols);
    IN(stats, 2 * rows);
    IN(w, cols);
    RUN(layernorm_bwd, dx, dw, db, dy, x, stats, w, rows, cols);
}
static void host_rmsnorm(rz_stream *s, float *y, float *rstd, const float *x, const float *w, float eps, size_t rows,
                         size_t cols)
{
    STAGE;
    OUT(y, rows * cols);
    OUT(rstd, rows);
    IN(x, rows * cols);
    IN(w, cols);
    RUN(rmsnorm, y, rstd, x, w, eps, rows, cols);
}
static void host_rmsnorm_bwd(rz_stream *s, float *dx, float *dw, const float *dy, const float *x, const float *rstd,
                             const float *w, size_t rows, size_t cols)
{
    STAGE;
    OUT(dx, rows * cols);
    OUT(dw, cols);
    IN(dy, rows * cols);
    IN(x, rows * cols);
    IN(rstd, rows);
    IN(w, cols);
    RUN(rmsnorm_bwd, dx, dw, dy, x, rstd, w, rows, cols);
}
static void host_act(rz_stream *s, rz_act_kind kind, float *y, const float *x, size_t n)
{
    STAGE;
    OUT(y, n);
    IN(x, n);
    RUN(act, kind, y, x, n);
}
static void host_act_bwd(rz_stream *s, rz_act_kind kind, float *dx, const float *dy, const float *x, size_t n)
{
    STAGE;
    OUT(dx, n);
    IN(dy, n);
    IN(x, n);
    RUN(act_bwd, kind, dx, dy, x, n);
}
static void host_gated(rz_stream *s, rz_act_kind kind, float *y, const float *gate, const float *up, size_t n)
{
    STAGE;
    OUT(y, n);
    IN(gate, n);
    IN(up, n);
    RUN(gated, kind, y, gate, up, n);
}
static void host_gated_bwd(rz_stream *s, rz_act_kind kind, float *dgate, float *dup, const float *dy, const float *gate,
                           const float *up, size_t n)
{
    STAGE;
    OUT(dgate, n);
    OUT(dup, n);
    IN(dy, n);
    IN(gate, n);
    IN(up, n);
    RUN(gated_bwd, kind, dgate, dup, dy, gate, up, n);
}
static void host_rope(rz_stream *s, float *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale,
                      size_t rows, size_t n_heads, size_t head_dim, bool inverse)
{
    STAGE;
    OUT(x, spread(rows, ld, n_heads * head_dim));
    IN(pos, rows);
    IN(inv_freq, head_dim / 2);
    RUN(rope, x, ld, pos, inv_freq, scale, rows, n_heads, head_dim, inverse);
}
/* A copy of what is asked for, and how many elements its matrices have. */
#define ATTENTION                                                                                                      \
    rz_attn b = *a;                                                                                                    \
    const size_t n_rows = (size_t)a->q_seq.start[a->q_seq.n], n_keys = (size_t)a->kv_seq.start[a->kv_seq.n];           \
    const size_t n_q = spread(n_rows, a->q_ld, a->n_heads * a->head_dim), n_lse = n_rows * a->n_heads;                 \
    const size_t n_out = spread(n_rows, a->out_ld, a->n_heads * a->head_dim);                                          \
    const size_t n_k = spread(n_keys, a->kv_ld, a->n_kv_heads * a->head_dim);                                          \
    (void)n_lse;                                                                                                       \
    IN(b.q_seq.start_dev, a->q_seq.n + 1);                                                                             \
    IN(b.kv_seq.start_dev, a->q_seq.n + 1)
static void host_attention(rz_stream *s, const rz_attn *a, float *out, float *lse, const float *q, const float *k,
                           const float *v)
{
    STAGE;
    ATTENTION;
    OUT(out, n_out);
    OUT(lse, n_lse);
    IN(q, n_q);
    IN(k, n_k);
    IN(v, n_k);
    RUN(attention, &b, out, lse, q, k, v);
}
static void host_attention_bwd(rz_stream *s, const rz_attn *a, float *dq, float *dk, float *dv, const float *dout,
                               const float *out, const float *lse, const float *q, const float *k, const float *v)
{
    STAGE;
    ATTENTION;
    OUT(dq, n_q);
    OUT(dk, n_k);
    OUT(dv, n_k);
    IN(dout, n_out);
    IN(out, n_out);
    IN(lse, n_lse);
    IN(q, n_q);
    IN(k, n_k);
    IN(v, n_k);
    RUN(attention_bwd, &b, dq, dk, dv, dout, out, lse, q, k, v);
}
static void host_half_linear(rz_stream *s, uint16_t *y, size_t ldy, const uint16_t *x, size_t ldx, rz_mat w,
                             const float *bias, size_t m, size_t n, size_t k)
{
    STAGE;
    OUT(y, spread(m, ldy, n));
    IN(x, spread(m, ldx, k));
    take_matrix(&t, &w, n, k);
    IN(bias, n);
    RUN(half_linear, y, ldy, x, ldx, w, bias, m, n, k);
}
static void host_half_linear_add(rz_stream *s, float *h, size_t ldh, const uint16_t *x, size_t ldx, rz_mat w,
                                 const float *bias, size_t m, size_t n, size_t k)
{
    STAGE;
    OUT(h, spread(m, ldh, n));
    IN(x, spread(m, ldx, k));
    take_matrix(&t, &w, n, k);
    IN(bias, n);
    RUN(half_linear_add, h, ldh, x, ldx, w, bias, m, n, k);
}
static void host_half_norm(rz_stream *s, uint16_t *y, const float *x, const float *w, const float *b, float eps,
                           size_t rows, size_t cols)
{
    STAGE;
    OUT(y, rows * cols);
    IN(x, rows * cols);
    IN(w, cols);
    IN(b, cols);
    RUN(half_norm, y, x, w, b, eps, rows, cols);
}
static void host_half_rope(rz_stream *s, uint16_t *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale,
                           size_t rows, size_t n_heads, size_t head_dim)
{
    STAGE;
    OUT(x, spread(rows, ld, n_heads * head_dim));
    IN(pos, rows);
    IN(inv_freq, head_dim / 2);
    RUN(half_rope, x, ld, pos, inv_freq, scale, rows, n_heads, head_dim);
}
static void host_half_attention(rz_stream *s, const rz_attn *a, uint16_t *out, const uint16_t *q, const uint16_t *k,
                                const uint16_t *v)
{
    STAGE;
    ATTENTION;
    OUT(out, n_out);
    IN(q, n_q);
    IN(k, n_k);
    IN(v, n_k);
    RUN(half_attention, &b, out, q, k, v);
}
static void host_half_act(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *x, size_t n)
{
    STAGE;
    OUT(y, n);
    IN(x, n);
    RUN(half_act, kind, y, x, n);
}
static void host_half_gated(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *gate, const uint16_t *up,
                            size_t ld, size_t rows, size_t cols)
{
    STAGE;
    OUT(y, rows * cols);
    IN(gate, spread(rows, ld, cols));
    IN(up, spread(rows, ld, cols));
    RUN(half_gated, kind, y, gate, up, ld, rows, cols);
}
static void host_half_to_f32(rz_stream *s, float *y, const uint16_t *x, size_t n)
{
    STAGE;
    OUT(y, n);
    IN(x, n);
    RUN(half_to_f32, y, x, n);
}
static void host_patchify(rz_stream *s, float *y, const float *pixels, size_t n, size_t channels, size_t size,
                          size_t patch)
{
    STAGE;
    const size_t side = size / patch, in = n * channels * size * size;
    OUT(y, n * side * side * channels * patch * patch);
    IN(pixels, in);
    RUN(patchify, y, pixels, n, channels, size, patch);
}
static void host_softmax_xent(rz_stream *s, float *loss, float *dlogits, const float *logits, const float *targets,
                              const float *keep, float weight, size_t rows, size_t cols)
{
    STAGE;
    OUT(loss, rows);
    OUT(dlogits, rows * cols);
    IN(logits, rows * cols);
    IN(targets, rows * cols);
    IN(keep, rows * cols);
    RUN(softmax_xent, loss, dlogits, logits, targets, keep, weight, rows, cols);
}
/* As they are where the first lies on the device, else one by one. */
static void host_adamw_step(rz_stream *s, const rz_adamw *o, const rz_adamw_slot *slots, size_t n_slots)
{
    if (on_device(slots->w)) {
        inner.adamw_step(s, o, slots, n_slots);
        return;
    }
    for (size_t i = 0; i < n_slots; i++) {
        STAGE;
        rz_adamw_slot x = slots[i];
        OUT(x.w, x.n);
        OUT(x.m, x.n);
        OUT(x.v, x.n);
        OUT(x.half, x.n);
        IN(x.g, x.n);
        RUN(adamw_step, o, &x, 1);
    }
}
static double host_dot(rz_stream *s, const float *x, const float *y, size_t n)
{
    STAGE;
    double sum = (double)NAN;
    IN(x, n);
    IN(y, n);
    if (begin(&t)) sum = inner.dot(s, x, y, n);
    finish(&t, "dot");
    return sum;
}

void host_ops(rz_device *dev)
{
    if (dev->is_host) return;
    inner = dev->ops;
    dev->ops.alloc = host_alloc, dev->ops.free = host_free, dev->ops.dot = host_dot;
#define TAKE(op) dev->ops.op = host_##op
    TAKE(upload), TAKE(download), TAKE(copy), TAKE(fill), TAKE(gemm);
    TAKE(sum), TAKE(scale), TAKE(add_bias), TAKE(add_bias_bwd), TAKE(dropout);
    TAKE(to_bf16), TAKE(gather), TAKE(copy_rows), TAKE(add_rows), TAKE(pool_mean);
    TAKE(pool_mean_bwd), TAKE(l2norm), TAKE(l2norm_bwd), TAKE(layernorm), TAKE(layernorm_bwd);
    TAKE(rmsnorm), TAKE(rmsnorm_bwd), TAKE(act), TAKE(act_bwd), TAKE(gated);
    TAKE(gated_bwd), TAKE(rope), TAKE(attention), TAKE(attention_bwd), TAKE(half_linear);
    TAKE(half_linear_add), TAKE(half_norm), TAKE(half_rope), TAKE(half_attention), TAKE(half_act);
    TAKE(half_gated), TAKE(half_to_f32), TAKE(patchify), TAKE(softmax_xent), TAKE(adamw_step);
}
