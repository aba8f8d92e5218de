/* stream.c - a stream's error and arena, and the ops: each checks the stream and calls the device's table.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "ops.h"

/* GPU_: on a device whose allocations are slow, and wait for all that runs. */
enum { ALIGN = 64, FIRST_CHUNK = 1 << 20, MAX_STEP = 64 << 20, HOST_SHARE = 16 };
enum { GPU_FIRST_CHUNK = 32 << 20, GPU_MAX_STEP = 1 << 30 };

radz_status rz_stream_open(rz_device *dev, rz_stream **s, radz_error *err)
{
    *s = rz_calloc(dev->host, 1, sizeof **s);
    if (!*s) return RZ_NO_MEMORY(err, "stream");
    (*s)->dev = dev;
    (*s)->pid = getpid();
    (*s)->host.on_host = true;
    if (!dev->ops.open_stream || dev->ops.open_stream(*s, err)) return RADZ_OK;
    rz_stream_close(*s);
    *s = NULL;
    return err ? err->code : RADZ_E_DEVICE;
}

static bool on_gpu(const rz_stream *s, const struct rz_arena *a)
{
    return !a->on_host && !s->dev->is_host;
}

static void *chunk_alloc(rz_stream *s, const struct rz_arena *a, size_t n)
{
    return a->on_host ? rz_malloc(s->dev->host, n) : s->dev->ops.alloc(s->dev, n);
}

static void chunk_free(rz_stream *s, const struct rz_arena *a, struct rz_chunk *c)
{
    if (a->on_host)
        rz_free(s->dev->host, c->data);
    else
        rz_device_free(s->dev, c->data);
    *c = (struct rz_chunk){0};
}

static void arena_free(rz_stream *s, struct rz_arena *a)
{
    for (size_t i = 0; i < a->n_chunks; i++) chunk_free(s, a, &a->chunks[i]);
    rz_free(s->dev->host, a->chunks);
}

void rz_stream_close(rz_stream *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n_beside; i++) rz_stream_close(s->beside[i]);
    rz_free(s->dev->host, s->beside);
    if (s->dev->ops.close_stream) s->dev->ops.close_stream(s);
    arena_free(s, &s->device);
    arena_free(s, &s->host);
    rz_free(s->dev->host, s);
}

rz_device *rz_stream_device(const rz_stream *s)
{
    return s->dev;
}
bool rz_stream_failed(const rz_stream *s)
{
    return s->err.code != RADZ_OK;
}

void rz_stream_fail(rz_stream *s, radz_status code, const char *fmt, ...)
{
    if (s->err.code != RADZ_OK) return;
    char text[sizeof s->err.message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    rz_fail(&s->err, code, "%s", text);
}

rz_stream *rz_stream_beside(rz_stream *s, size_t i)
{
    while (s->n_beside <= i && !rz_stream_failed(s)) {
        rz_stream **all = rz_realloc(s->dev->host, s->beside, s->n_beside + 1, sizeof *all);
        if (all) s->beside = all;
        if (!all || rz_stream_open(s->dev, &all[s->n_beside], NULL))
            rz_stream_fail(s, RADZ_E_MEMORY, "out of memory: a stream beside others");
        else
            s->n_beside++;
    }
    return i < s->n_beside ? s->beside[i] : NULL;
}

/* May ops run on it? A forked child has the memory, but neither the threads nor the device. */
static bool ready(rz_stream *s)
{
    if (s->pid != getpid()) rz_stream_fail(s, RADZ_E_STATE, "opened before fork(): open it again in the child");
    return s->err.code == RADZ_OK;
}

radz_status rz_stream_sync(rz_stream *s, radz_error *err)
{
    if (ready(s)) s->dev->ops.sync(s);
    radz_status code = s->err.code;
    if (code != RADZ_OK && err) *err = s->err;
    s->err.code = RADZ_OK;
    return code;
}

/* ---- Arenas: device memory for data, host memory for what describes it ------------------ */

static size_t arena_size(const struct rz_arena *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n_chunks; i++) n += a->chunks[i].size;
    return n;
}

/* How large a new chunk is best: doubling keeps the list short. */
static size_t chunk_step(const rz_stream *s, const struct rz_arena *a)
{
    const bool gpu = on_gpu(s, a);
    const size_t least = gpu ? GPU_FIRST_CHUNK : FIRST_CHUNK, most = gpu ? GPU_MAX_STEP : MAX_STEP;
    const size_t have = arena_size(a), step = have < least ? least : have > most ? most : have;
    return a->on_host ? step / HOST_SHARE : step;
}

/* Makes chunk i hold at least n bytes. Chunks from i on hold nothing that is in use. */
static bool chunk_reserve(rz_stream *s, struct rz_arena *a, size_t i, size_t n)
{
    if (i == a->n_chunks) {
        struct rz_chunk *chunks = rz_realloc(s->dev->host, a->chunks, i + 1, sizeof *chunks);
        if (!chunks) return false;
        chunks[i] = (struct rz_chunk){0};
        a->chunks = chunks;
        a->n_chunks++;
    }
    struct rz_chunk *c = &a->chunks[i];
    if (c->size >= n) return true;
    chunk_free(s, a, c);
    const size_t step = chunk_step(s, a), size = n > step ? n : step;
    if ((c->data = chunk_alloc(s, a, size)))
        c->size = size;
    else if (on_gpu(s, a) && (c->data = chunk_alloc(s, a, n)))
        c->size = n; /* memory is short there, and others want it too */
    return c->data != NULL;
}

static void *arena_bytes(rz_stream *s, struct rz_arena *a, size_t n_bytes)
{
    if (!ready(s)) return NULL;
    size_t n;
    if (!rz_size_add(n_bytes, n_bytes ? ALIGN - 1 : ALIGN, &n)) {
        rz_stream_fail(s, RADZ_E_LIMIT, "scratch memory: size overflows");
        return NULL;
    }
    n &= ~(size_t)(ALIGN - 1);
    size_t i = a->current;
    if (i < a->n_chunks && a->chunks[i].size - a->used < n && a->used > 0) i++;
    if (!chunk_reserve(s, a, i, n)) {
        size_t n_free, n_all;
        if (!on_gpu(s, a) || !rz_device_memory(s->dev, &n_free, &n_all))
            rz_stream_fail(s, RADZ_E_MEMORY, "out of memory: %zu bytes of scratch memory", n_bytes);
        else
            rz_stream_fail(s, RADZ_E_MEMORY,
                           "out of memory: %zu bytes of scratch memory on the GPU, %zu of %zu are free", n_bytes,
                           n_free, n_all);
        return NULL;
    }
    if (i != a->current) a->used = 0;
    a->current = i;
    struct rz_chunk *c = &a->chunks[i];
    void *p = c->data + a->used;
    a->used += n;
    if (a->used > c->most) c->most = a->used;
    return p;
}

void *rz_arena_bytes(rz_stream *s, size_t n_bytes)
{
    return arena_bytes(s, &s->device, n_bytes);
}

void *rz_arena_host(rz_stream *s, size_t n, size_t item_size)
{
    size_t n_bytes;
    if (!rz_size_mul(n, item_size, &n_bytes)) {
        rz_stream_fail(s, RADZ_E_LIMIT, "scratch memory: %zu items of %zu bytes overflow", n, item_size);
        return NULL;
    }
    void *p = arena_bytes(s, &s->host, n_bytes);
    if (p) memset(p, 0, n_bytes);
    return p;
}

float *rz_arena_f32(rz_stream *s, size_t rows, size_t cols)
{
    size_t n;
    if (!rz_size_mul(rows, cols, &n) || !rz_size_mul(n, sizeof(float), &n)) {
        rz_stream_fail(s, RADZ_E_LIMIT, "scratch memory: %zu x %zu floats overflow", rows, cols);
        return NULL;
    }
    return rz_arena_bytes(s, n);
}

float *rz_arena_zeros(rz_stream *s, size_t rows, size_t cols)
{
    float *p = rz_arena_f32(s, rows, cols);
    if (p) rz_fill(s, p, 0, rows * cols);
    return p;
}

int32_t *rz_arena_i32(rz_stream *s, const int32_t *host, size_t n)
{
    size_t n_bytes;
    if (!rz_size_mul(n, sizeof *host, &n_bytes)) {
        rz_stream_fail(s, RADZ_E_LIMIT, "scratch memory: %zu indices overflow", n);
        return NULL;
    }
    int32_t *p = rz_arena_bytes(s, n_bytes);
    if (p) rz_upload(s, p, host, n_bytes);
    return p;
}

rz_mark rz_arena_mark(rz_stream *s)
{
    return (rz_mark){s->device.current, s->device.used, s->host.current, s->host.used};
}

void rz_arena_release(rz_stream *s, rz_mark m)
{
    s->device.current = m.chunk;
    s->device.used = m.used;
    s->host.current = m.host_chunk;
    s->host.used = m.host_used;
}

size_t rz_arena_peak(const rz_stream *s)
{
    size_t n = arena_size(&s->device) + arena_size(&s->host);
    for (size_t i = 0; i < s->n_beside; i++) n += rz_arena_peak(s->beside[i]);
    return n;
}

static size_t arena_touched(const struct rz_arena *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n_chunks; i++) n += a->chunks[i].most;
    return n;
}

size_t rz_arena_touched(const rz_stream *s)
{
    size_t n = arena_touched(&s->device) + arena_touched(&s->host);
    for (size_t i = 0; i < s->n_beside; i++) n += rz_arena_touched(s->beside[i]);
    return n;
}

/* ---- Ops ------------------------------------------------------------------------------ */

/* Runs an op of the table unless its size is zero or the stream has failed. */
#define RUN(size, op, ...)                                                                                             \
    do {                                                                                                               \
        if ((size) != 0 && ready(s)) s->dev->ops.op(s, __VA_ARGS__);                                                   \
    } while (0)

void rz_upload(rz_stream *s, void *dst, const void *host, size_t n_bytes)
{
    RUN(n_bytes, upload, dst, host, n_bytes);
}
void rz_download(rz_stream *s, void *host, const void *src, size_t n_bytes)
{
    RUN(n_bytes, download, host, src, n_bytes);
}
void rz_copy(rz_stream *s, void *dst, const void *src, size_t n_bytes)
{
    RUN(n_bytes, copy, dst, src, n_bytes);
}
void rz_fill(rz_stream *s, float *y, float value, size_t n)
{
    RUN(n, fill, y, value, n);
}

void rz_gemm(rz_stream *s, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b, float beta,
             float *c, size_t ldc)
{
    RUN(m && n, gemm, ta, tb, m, n, k, alpha, a, b, beta, c, ldc);
}

void rz_sum(rz_stream *s, float *y, const float *a, const float *b, size_t n)
{
    RUN(n, sum, y, a, b, n);
}
void rz_add(rz_stream *s, float *y, const float *x, size_t n)
{
    rz_sum(s, y, y, x, n);
}
void rz_scale(rz_stream *s, float *y, float a, size_t n)
{
    RUN(n, scale, y, a, n);
}
void rz_add_bias(rz_stream *s, float *y, const float *b, size_t rows, size_t cols)
{
    RUN(rows && cols, add_bias, y, b, rows, cols);
}
void rz_add_bias_bwd(rz_stream *s, float *db, const float *dy, size_t rows, size_t cols)
{
    RUN(rows && cols, add_bias_bwd, db, dy, rows, cols);
}
void rz_dropout(rz_stream *s, float *y, const float *x, float p, uint64_t seed, const uint64_t *keys, size_t rows,
                size_t cols)
{
    RUN(rows && cols, dropout, y, x, p, seed, keys, rows, cols);
}
void rz_to_bf16(rz_stream *s, uint16_t *y, const float *x, size_t n)
{
    RUN(n, to_bf16, y, x, n);
}
void rz_gather(rz_stream *s, float *y, rz_mat table, const int32_t *ids, size_t rows, size_t cols)
{
    RUN(rows && cols, gather, y, table, ids, rows, cols);
}
void rz_gather_bwd(rz_stream *s, float *dtable, const int32_t *ids, const float *dy, size_t rows, size_t cols)
{
    rz_add_rows(s, dtable, cols, ids, dy, cols, NULL, rows, cols);
}
void rz_copy_rows(rz_stream *s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
                  const int32_t *src_rows, size_t n, size_t cols)
{
    RUN(n && cols, copy_rows, dst, dst_ld, dst_rows, src, src_ld, src_rows, n, cols);
}
void rz_add_rows(rz_stream *s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
                 const int32_t *src_rows, size_t n, size_t cols)
{
    RUN(n && cols, add_rows, dst, dst_ld, dst_rows, src, src_ld, src_rows, n, cols);
}
void rz_pool_mean(rz_stream *s, float *y, const float *x, const int32_t *rows, const int32_t *start, size_t n_groups,
                  size_t cols)
{
    RUN(n_groups && cols, pool_mean, y, x, rows, start, n_groups, cols);
}
void rz_pool_mean_bwd(rz_stream *s, float *dx, const float *dy, const int32_t *rows, const int32_t *start,
                      size_t n_groups, size_t cols)
{
    RUN(n_groups && cols, pool_mean_bwd, dx, dy, rows, start, n_groups, cols);
}
void rz_l2norm(rz_stream *s, float *y, float *norm, const float *x, size_t rows, size_t cols)
{
    RUN(rows && cols, l2norm, y, norm, x, rows, cols);
}
void rz_l2norm_bwd(rz_stream *s, float *dx, const float *dy, const float *y, const float *norm, size_t rows,
                   size_t cols)
{
    RUN(rows && cols, l2norm_bwd, dx, dy, y, norm, rows, cols);
}

void rz_layernorm(rz_stream *s, float *y, float *stats, const float *x, const float *w, const float *b, float eps,
                  size_t rows, size_t cols)
{
    RUN(rows && cols, layernorm, y, stats, x, w, b, eps, rows, cols);
}
void rz_layernorm_bwd(rz_stream *s, float *dx, float *dw, float *db, const float *dy, const float *x,
                      const float *stats, const float *w, size_t rows, size_t cols)
{
    RUN(rows && cols, layernorm_bwd, dx, dw, db, dy, x, stats, w, rows, cols);
}
void rz_rmsnorm(rz_stream *s, float *y, float *rstd, const float *x, const float *w, float eps, size_t rows,
                size_t cols)
{
    RUN(rows && cols, rmsnorm, y, rstd, x, w, eps, rows, cols);
}
void rz_rmsnorm_bwd(rz_stream *s, float *dx, float *dw, const float *dy, const float *x, const float *rstd,
                    const float *w, size_t rows, size_t cols)
{
    RUN(rows && cols, rmsnorm_bwd, dx, dw, dy, x, rstd, w, rows, cols);
}

void rz_act(rz_stream *s, rz_act_kind kind, float *y, const float *x, size_t n)
{
    RUN(n, act, kind, y, x, n);
}
void rz_act_bwd(rz_stream *s, rz_act_kind kind, float *dx, const float *dy, const float *x, size_t n)
{
    RUN(n, act_bwd, kind, dx, dy, x, n);
}
void rz_gated(rz_stream *s, rz_act_kind kind, float *y, const float *gate, const float *up, size_t n)
{
    RUN(n, gated, kind, y, gate, up, n);
}
void rz_gated_bwd(rz_stream *s, rz_act_kind kind, float *dgate, float *dup, const float *dy, const float *gate,
                  const float *up, size_t n)
{
    RUN(n, gated_bwd, kind, dgate, dup, dy, gate, up, n);
}

void rz_rope(rz_stream *s, float *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale, size_t rows,
             size_t n_heads, size_t head_dim, bool inverse)
{
    RUN(rows && n_heads && head_dim, rope, x, ld, pos, inv_freq, scale, rows, n_heads, head_dim, inverse);
}

static bool attn_empty(const rz_attn *a)
{
    return a->q_seq.n == 0 || a->n_heads == 0 || a->n_kv_heads == 0 || a->head_dim == 0;
}
void rz_attention(rz_stream *s, const rz_attn *a, float *out, float *lse, const float *q, const float *k,
                  const float *v)
{
    RUN(!attn_empty(a), attention, a, out, lse, q, k, v);
}
void rz_attention_bwd(rz_stream *s, const rz_attn *a, float *dq, float *dk, float *dv, const float *dout,
                      const float *out, const float *lse, const float *q, const float *k, const float *v)
{
    RUN(!attn_empty(a), attention_bwd, a, dq, dk, dv, dout, out, lse, q, k, v);
}

void rz_half_linear(rz_stream *s, uint16_t *y, size_t ldy, const uint16_t *x, size_t ldx, rz_mat w, const float *bias,
                    size_t m, size_t n, size_t k)
{
    RUN(m && n && k, half_linear, y, ldy, x, ldx, w, bias, m, n, k);
}
void rz_half_linear_add(rz_stream *s, float *h, size_t ldh, const uint16_t *x, size_t ldx, rz_mat w, const float *bias,
                        size_t m, size_t n, size_t k)
{
    RUN(m && n && k, half_linear_add, h, ldh, x, ldx, w, bias, m, n, k);
}
void rz_half_norm(rz_stream *s, uint16_t *y, const float *x, const float *w, const float *b, float eps, size_t rows,
                  size_t cols)
{
    RUN(rows && cols, half_norm, y, x, w, b, eps, rows, cols);
}
void rz_half_rope(rz_stream *s, uint16_t *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale,
                  size_t rows, size_t n_heads, size_t head_dim)
{
    RUN(rows && n_heads && head_dim, half_rope, x, ld, pos, inv_freq, scale, rows, n_heads, head_dim);
}
void rz_half_attention(rz_stream *s, const rz_attn *a, uint16_t *out, const uint16_t *q, const uint16_t *k,
                       const uint16_t *v)
{
    RUN(!attn_empty(a), half_attention, a, out, q, k, v);
}
void rz_half_act(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *x, size_t n)
{
    RUN(n, half_act, kind, y, x, n);
}
void rz_half_gated(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *gate, const uint16_t *up, size_t ld,
                   size_t rows, size_t cols)
{
    RUN(rows && cols, half_gated, kind, y, gate, up, ld, rows, cols);
}
void rz_half_to_f32(rz_stream *s, float *y, const uint16_t *x, size_t n)
{
    RUN(n, half_to_f32, y, x, n);
}

void rz_patchify(rz_stream *s, float *y, const float *pixels, size_t n, size_t channels, size_t size, size_t patch)
{
    RUN(n && channels && patch && size >= patch, patchify, y, pixels, n, channels, size, patch);
}

void rz_softmax_xent(rz_stream *s, float *loss, float *dlogits, const float *logits, const float *targets,
                     const float *keep, float weight, size_t rows, size_t cols)
{
    RUN(rows && cols, softmax_xent, loss, dlogits, logits, targets, keep, weight, rows, cols);
}

double rz_dot(rz_stream *s, const float *x, const float *y, size_t n)
{
    if (n == 0) return 0;
    return ready(s) ? s->dev->ops.dot(s, x, y, n) : (double)NAN;
}
double rz_sumsq(rz_stream *s, const float *x, size_t n)
{
    return rz_dot(s, x, x, n);
}

void rz_adamw_step(rz_stream *s, const rz_adamw *o, const rz_adamw_slot *slots, size_t n_slots)
{
    RUN(n_slots, adamw_step, o, slots, n_slots);
}
