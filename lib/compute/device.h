/* device.h - the compute seam: a device, its memory, streams of work, and every op the
 * network uses, once per device. Nothing here knows what a decoder is.
 *
 * Conventions
 *   - Matrices are row-major. (R, C) in a comment is rows, columns. Sizes are size_t.
 *   - Pointers to data are device addresses (on the CPU: plain memory). Activations, norms and
 *     biases are float; big weights may be F32, BF16, F16, or integers with scales (rz_mat).
 *   - Ops return nothing: the first failure is kept in the stream, ops after it do nothing, and
 *     rz_stream_sync reports it. So a forward pass reads like its formula.
 *   - Backward ops ADD into gradients named d<x> unless the comment says "=".
 *   - Every result is bit-identical for any thread count, and every row's result is independent
 *     of the rows beside it (fixed reduction order), except with the OpenBLAS gemm and on a GPU,
 *     where cuBLAS multiplies: the same bits from run to run, other ones with other rows beside.
 *   - Sizes of zero are no-ops.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_DEVICE_H
#define RZ_DEVICE_H

#include "base.h"
#include "pool.h"

typedef enum rz_dtype { RZ_F32 = 0, RZ_F16 = 1, RZ_BF16 = 2, RZ_I8 = 3, RZ_I4 = 4 } rz_dtype;
/* Bytes of n elements; n is even for I4, which lies two to a byte. */
static inline size_t rz_dtype_bytes(rz_dtype t, size_t n)
{
    return t == RZ_F32 ? 4 * n : t == RZ_I8 ? n : t == RZ_I4 ? n / 2 : 2 * n;
}
static inline bool rz_dtype_is_float(rz_dtype t)
{
    return t <= RZ_BF16;
}

typedef struct rz_device rz_device;
typedef struct rz_stream rz_stream;

/* ---- Device --------------------------------------------------------------------- */

typedef struct rz_device_options {
    const char *device;  /* "auto", "cpu", "cuda", "cuda:1": another GPU than the first */
    const char *kernels; /* "auto", "portable", "avx2", "avx512" */
    const char *gemm;    /* "auto", "own", "openblas" */
    int n_threads;       /* 0: online cores */
} rz_device_options;

/* NULL options or NULL / "" fields: "auto". What was asked for by name and cannot be had is RADZ_E_DEVICE
 * (known, but missing here) or RADZ_E_ARGUMENT (unknown name). */
radz_status rz_device_open(const rz_host *host, const rz_device_options *options, rz_device **dev,
                           radz_error *err) RZ_CHECK;
void rz_device_close(rz_device *dev);
const char *rz_device_name(const rz_device *dev);    /* "cpu (avx2, own gemm, 2 threads)" */
const char *rz_device_kernels(const rz_device *dev); /* "avx2" */
/* What multiplies by each type of weights: "f32 avx2 vfmadd 6x16, ..." */
const char *rz_device_products(const rz_device *dev);
/* The i-th kernel set that this CPU can run, best first; NULL past the last. */
const char *rz_kernels_available(size_t i);
rz_pool *rz_device_pool(rz_device *dev); /* host threads, for decoding images and the like */
/* True where device pointers are ordinary memory, so that mapped weights need no upload. */
bool rz_device_is_host(const rz_device *dev);
/* True where inference gains from activations of bfloat16 (rz_half_*), if the weights ask for products of bfloat16. */
bool rz_device_is_half(const rz_device *dev);
/* 64-byte aligned, not zeroed. */
radz_status rz_device_alloc(rz_device *dev, size_t n_bytes, void **p, radz_error *err) RZ_CHECK;
void rz_device_free(rz_device *dev, void *p);
/* Bytes of a device's own memory; false: it is the host's, or nobody knows. */
bool rz_device_memory(rz_device *dev, size_t *n_free, size_t *n_all);

/* ---- Stream: one caller's queue, scratch arena and error ---------------------------- */

radz_status rz_stream_open(rz_device *dev, rz_stream **s, radz_error *err) RZ_CHECK;
void rz_stream_close(rz_stream *s);
rz_device *rz_stream_device(const rz_stream *s);
/* Waits; returns the first failure since the last sync and clears it. */
radz_status rz_stream_sync(rz_stream *s, radz_error *err) RZ_CHECK;
/* The i-th of the streams for passes that run side by side, each on a thread of its own; NULL, recorded: no memory. It
 * belongs to s and stays for the next time. */
rz_stream *rz_stream_beside(rz_stream *s, size_t i);
/* Records a failure (the first one stays). rz_stream_failed: is there one? */
void rz_stream_fail(rz_stream *s, radz_status code, const char *fmt, ...) RZ_PRINTF(3, 4);
bool rz_stream_failed(const rz_stream *s);

/* Arena: device memory that lives until its mark is released; 64-byte aligned, not zeroed. Memory stays
 * with the stream for the next pass. NULL on failure (recorded: ops that follow do nothing). */
typedef struct rz_mark {
    size_t chunk, used;           /* device memory */
    size_t host_chunk, host_used; /* host memory */
} rz_mark;
void *rz_arena_bytes(rz_stream *s, size_t n_bytes);
float *rz_arena_f32(rz_stream *s, size_t rows, size_t cols); /* checked product */
float *rz_arena_zeros(rz_stream *s, size_t rows, size_t cols);
int32_t *rz_arena_i32(rz_stream *s, const int32_t *host, size_t n); /* uploads */
void *rz_arena_host(rz_stream *s, size_t n, size_t item_size);      /* zeroed HOST memory with the same lifetime */
rz_mark rz_arena_mark(rz_stream *s);
void rz_arena_release(rz_stream *s, rz_mark m);
size_t rz_arena_peak(const rz_stream *s);    /* bytes held */
size_t rz_arena_touched(const rz_stream *s); /* those of them that have been in use: host memory that is resident */

/* ---- Data movement -------------------------------------------------------------------- */

void rz_upload(rz_stream *s, void *dst, const void *host, size_t n_bytes);   /* host memory may be reused at once */
void rz_download(rz_stream *s, void *host, const void *src, size_t n_bytes); /* complete on return */
void rz_copy(rz_stream *s, void *dst, const void *src, size_t n_bytes);
void rz_fill(rz_stream *s, float *y, float value, size_t n);

/* ---- Matrix product --------------------------------------------------------------------- */

/* I8 and I4 are symmetric integers: element (r, c) is its integer times scale[r * groups + c / group], groups =
 * ceil(ld / group); the last group of a row may be short. I4: two to a byte, the element of even c in the low half,
 * each plus 8; ld is even. */
typedef struct rz_mat {
    const void *data;
    rz_dtype dtype;
    size_t ld;            /* elements from one row to the next; of I8 and I4 all of them */
    const void *scale;    /* I8, I4 */
    rz_dtype scale_dtype; /* F32 or BF16 */
    size_t group;         /* RZ_GROUP_MIN .. RZ_GROUP_MAX, a power of two */
    rz_dtype compute;     /* BF16: a linear layer with these weights is a product of bfloat16, see rz_gemm; else F32 */
    const void *packed;   /* the same once more, by rz_mat_pack; NULL: not */
} rz_mat;
enum { RZ_GROUP_MIN = 32, RZ_GROUP_MAX = 128 };
static inline rz_mat rz_mat_f32(const float *p, size_t ld)
{
    return (rz_mat){.data = p, .dtype = RZ_F32, .ld = ld};
}
static inline size_t rz_mat_groups(rz_mat x)
{
    return x.group ? (x.ld + x.group - 1) / x.group : 0;
}
/* Memory of that many rows, scales and all. */
static inline size_t rz_mat_bytes(rz_mat x, size_t rows)
{
    return rz_dtype_bytes(x.dtype, rows * x.ld) + rz_dtype_bytes(x.scale_dtype, rows * rz_mat_groups(x));
}

/* Weights (rows, ld) of a linear layer packed as the device's product takes them, so that not every product has to: how
 * many bytes that are; 0: this device gains nothing by it. to: memory of that size, 64-byte aligned, which w.packed may
 * point to from then on; NULL: only the bytes are wanted. No result changes by a bit. */
size_t rz_mat_pack(rz_device *dev, rz_mat w, size_t rows, void *to);

/* C (m,n) = beta C + alpha op(A) op(B); op(X) = X or its transpose. op(A) is (m,k), op(B) is (k,n):
 * A is stored (m,k) or, with ta, (k,m); B is stored (k,n) or, with tb, (n,k). Either may be F32, F16, BF16, I8, I4 and
 * is widened to float; sums are float. A linear layer y = x W^T is (ta=0, A=x, tb=1, B=W): there, with W of integers,
 * the floats of x are rounded to 8 bits too, per row and group of W's, so that a group's sum is an exact integer.
 * Where W asks for it (compute BF16, whatever its type), elements of x and of W are rounded to bfloat16, nearest even,
 * instead; products and sums are float. A kernel set may add neighbours along K in pairs and take numbers below 2^-126
 * for zero, so that sets differ by no more than 2^-22 sqrt(k) + 2^-23 of sum |x w|; each gives the same bits for any
 * batch and threads.
 * On a GPU that multiplies bfloat16 (rz_device_is_half) every product is rounded so whose B asks for it, the backward's
 * too (ta, tb), and B of integers is taken for one that asks: there is no rounding to 8 bits. An older GPU (capability
 * below 8.0) multiplies the floats as they are instead. Floats are never TF32. */
void rz_gemm(rz_stream *s, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b, float beta,
             float *c, size_t ldc);

/* ---- Rows --------------------------------------------------------------------------------- */

void rz_sum(rz_stream *s, float *y, const float *a, const float *b, size_t n);      /* y = a + b; y may be a or b */
void rz_add(rz_stream *s, float *y, const float *x, size_t n);                      /* y += x */
void rz_scale(rz_stream *s, float *y, float a, size_t n);                           /* y *= a */
void rz_add_bias(rz_stream *s, float *y, const float *b, size_t rows, size_t cols); /* y[r][c] += b[c] */
void rz_add_bias_bwd(rz_stream *s, float *db, const float *dy, size_t rows, size_t cols); /* db[c] += sum_r */
/* y = x / (1 - p) where the mask keeps an element, else 0; also its own backward. y may be x. The mask is a function of
 * (seed, keys[r], column) alone: rows with one key have one mask, in any batch and on any device. keys: device (rows);
 * 0 <= p < 1. */
void rz_dropout(rz_stream *s, float *y, const float *x, float p, uint64_t seed, const uint64_t *keys, size_t rows,
                size_t cols);
/* y = x rounded to bfloat16, nearest even. */
void rz_to_bf16(rz_stream *s, uint16_t *y, const float *x, size_t n);
/* y[r] = table[ids[r]]; ids are device int32, 0 <= id < n_table (checked by the caller). */
void rz_gather(rz_stream *s, float *y, rz_mat table, const int32_t *ids, size_t rows, size_t cols);
/* dtable[ids[r]] += dy[r], rows in order; also the way to scatter: dst must then be zeroed by the caller. */
void rz_gather_bwd(rz_stream *s, float *dtable, const int32_t *ids, const float *dy, size_t rows, size_t cols);
/* dst[dst_rows[i]] = src[src_rows[i]], i < n; NULL rows = i itself. Strides in floats. */
void rz_copy_rows(rz_stream *s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
                  const int32_t *src_rows, size_t n, size_t cols);
/* dst[dst_rows[i]] += src[src_rows[i]], i in order. */
void rz_add_rows(rz_stream *s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
                 const int32_t *src_rows, size_t n, size_t cols);
/* Mean of chosen rows: y[g] = mean of x[rows[i]] for i in [start[g], start[g+1]); an empty group gives 0.
 * start: n_groups + 1 device int32; rows: device int32. */
void rz_pool_mean(rz_stream *s, float *y, const float *x, const int32_t *rows, const int32_t *start, size_t n_groups,
                  size_t cols);
void rz_pool_mean_bwd(rz_stream *s, float *dx, const float *dy, const int32_t *rows, const int32_t *start,
                      size_t n_groups, size_t cols);
/* y[r] = x[r] / max(|x[r]|, 1e-12); norm[r] = |x[r]|. */
void rz_l2norm(rz_stream *s, float *y, float *norm, const float *x, size_t rows, size_t cols);
void rz_l2norm_bwd(rz_stream *s, float *dx, const float *dy, const float *y, const float *norm, size_t rows,
                   size_t cols);

/* ---- Norms ------------------------------------------------------------------------------------ */

/* stats: (rows, 2) mean and 1/std, kept for the backward. Biased variance, as PyTorch. x may alias y. */
void rz_layernorm(rz_stream *s, float *y, float *stats, const float *x, const float *w, const float *b, float eps,
                  size_t rows, size_t cols);
/* dw, db may be NULL (frozen). */
void rz_layernorm_bwd(rz_stream *s, float *dx, float *dw, float *db, const float *dy, const float *x,
                      const float *stats, const float *w, size_t rows, size_t cols);
/* y = x * rstd * w, rstd[r] = 1/sqrt(mean(x^2) + eps). */
void rz_rmsnorm(rz_stream *s, float *y, float *rstd, const float *x, const float *w, float eps, size_t rows,
                size_t cols);
void rz_rmsnorm_bwd(rz_stream *s, float *dx, float *dw, const float *dy, const float *x, const float *rstd,
                    const float *w, size_t rows, size_t cols);

/* ---- Activations -------------------------------------------------------------------------------- */

typedef enum rz_act_kind { RZ_ACT_QUICK_GELU, RZ_ACT_GELU, RZ_ACT_GELU_TANH, RZ_ACT_SILU, RZ_ACT_RELU } rz_act_kind;
void rz_act(rz_stream *s, rz_act_kind kind, float *y, const float *x, size_t n);
void rz_act_bwd(rz_stream *s, rz_act_kind kind, float *dx, const float *dy, const float *x, size_t n); /* dx = */
/* y = act(gate) * up */
void rz_gated(rz_stream *s, rz_act_kind kind, float *y, const float *gate, const float *up, size_t n);
void rz_gated_bwd(rz_stream *s, rz_act_kind kind, float *dgate, float *dup, const float *dy, const float *gate,
                  const float *up, size_t n); /* dgate =, dup = */

/* ---- Attention -------------------------------------------------------------------------------------- */

/* Rotate-half RoPE in place: x (rows, n_heads * head_dim), ld floats between rows. angle = pos[r] * inv_freq[i],
 * pair (i, i + head_dim/2), computed in float as transformers does; cos and sin scaled by `scale`. inverse: the
 * backward. pos: device int32 (rows); inv_freq: device float (head_dim/2). */
void rz_rope(rz_stream *s, float *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale, size_t rows,
             size_t n_heads, size_t head_dim, bool inverse);

/* Sequences of different length lie one after another without padding: rows start[i] .. start[i+1]-1. */
typedef struct rz_ragged {
    size_t n;                 /* sequences */
    const int32_t *start;     /* n + 1, host memory */
    const int32_t *start_dev; /* the same on the device */
} rz_ragged;

typedef struct rz_attn {
    rz_ragged q_seq, kv_seq; /* same n; query i of a sequence with Q queries and T keys sees keys j <= i + T - Q */
    size_t n_heads, n_kv_heads, head_dim; /* query head h reads kv head h / (n_heads / n_kv_heads) */
    size_t q_ld, kv_ld, out_ld;           /* floats between rows of q; of k and v; of out */
    float scale;                          /* usually 1/sqrt(head_dim) */
    bool causal;
    size_t window; /* causal only: at most this many keys back, itself included; 0: all */
} rz_attn;
/* out = softmax(scale q k^T + mask) v. lse (q rows, n_heads): log of the softmax's denominator, kept for the
 * backward; may be NULL. */
void rz_attention(rz_stream *s, const rz_attn *a, float *out, float *lse, const float *q, const float *k,
                  const float *v);
/* dq, dk, dv have the strides of q, k, v and are added into. out and lse are the forward's. */
void rz_attention_bwd(rz_stream *s, const rz_attn *a, float *dq, float *dk, float *dv, const float *dout,
                      const float *out, const float *lse, const float *q, const float *k, const float *v);

/* ---- Activations of bfloat16 ------------------------------------------------------------------------------ */

/* For inference where weights ask for products of bfloat16: what lies between two products is bfloat16 (nearest even)
 * in uint16_t, computed in float inside an op; the residual stream stays float. Strides count elements. */

/* y = x W^T + bias; y (m, n), x (m, k), W (n, k) of any type, its elements rounded to bfloat16; bias float or NULL.
 * With a bias, it and the product may each be rounded before they are added. */
void rz_half_linear(rz_stream *s, uint16_t *y, size_t ldy, const uint16_t *x, size_t ldx, rz_mat w, const float *bias,
                    size_t m, size_t n, size_t k);
/* h += x W^T + bias; h float. */
void rz_half_linear_add(rz_stream *s, float *h, size_t ldh, const uint16_t *x, size_t ldx, rz_mat w, const float *bias,
                        size_t m, size_t n, size_t k);
/* LayerNorm; RMSNorm where b is NULL. */
void rz_half_norm(rz_stream *s, uint16_t *y, const float *x, const float *w, const float *b, float eps, size_t rows,
                  size_t cols);
/* As rz_rope, forward. */
void rz_half_rope(rz_stream *s, uint16_t *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale,
                  size_t rows, size_t n_heads, size_t head_dim);
/* As rz_attention. Probabilities may be rounded to bfloat16 before they meet v. */
void rz_half_attention(rz_stream *s, const rz_attn *a, uint16_t *out, const uint16_t *q, const uint16_t *k,
                       const uint16_t *v);
/* y may be x. */
void rz_half_act(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *x, size_t n);
/* y (rows, cols) = act(gate) * up; gate and up have ld elements from row to row. y may be gate where ld is cols. */
void rz_half_gated(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *gate, const uint16_t *up, size_t ld,
                   size_t rows, size_t cols);
void rz_half_to_f32(rz_stream *s, float *y, const uint16_t *x, size_t n);

/* ---- Images ------------------------------------------------------------------------------------------ */

/* Non-overlapping patches as rows: y (n * (size/patch)^2, channels * patch * patch) from pixels (n, channels, size,
 * size); columns ordered channel, row, column, as a convolution kernel (out, channels, patch, patch) is flattened. */
void rz_patchify(rz_stream *s, float *y, const float *pixels, size_t n, size_t channels, size_t size, size_t patch);

enum {
    RZ_RESAMPLE_BITS = 22,  /* fraction bits of a filter's weights */
    RZ_RESAMPLE_SPLIT = 11, /* a weight is high * 2^11 + low, so that both halves have 16 bits */
    RZ_RESAMPLE_LINES = 16  /* that are filtered at once */
};
/* A filter along lines of 8-bit samples: output o is made of n_taps (even) samples from start[o] (even) on. pad[l] was
 * taken off the samples of line l; total[o]: the sum of all weights, those over padding too. */
typedef struct rz_resample {
    size_t n_taps;
    const size_t *start;
    const int16_t *high, *low; /* row by row */
    const int32_t *total;
    int32_t pad[RZ_RESAMPLE_LINES];
} rz_resample;
/* Outputs [o0, o1) of RZ_RESAMPLE_LINES lines, rounded, 0..255. Two neighbours of a line lie side by side, then those
 * of the next line: sample i of line l is x[(i / 2 * RZ_RESAMPLE_LINES + l) * 2 + i % 2]. The first output of line l
 * goes to out[l], the next one `stride` further on. On the host, with the best instructions there are: exact with any.
 */
void rz_resample_lines(const rz_resample *r, const int16_t *x, size_t o0, size_t o1, uint16_t *out, size_t stride);

/* ---- Losses and optimiser -------------------------------------------------------------------------------- */

/* Softmax cross-entropy with soft targets. logits, targets (rows, cols), targets' rows sum to 1 (or 0: the row is
 * skipped: loss 0, gradient 0). keep (rows, cols), may be NULL: 0 removes that column from the row's softmax.
 * loss[r] = -sum_c t log softmax; dlogits[r][c] = weight * (softmax - t). dlogits may be NULL, may alias logits. */
void rz_softmax_xent(rz_stream *s, float *loss, float *dlogits, const float *logits, const float *targets,
                     const float *keep, float weight, size_t rows, size_t cols);
/* Sum of squares in double, in a fixed order; to host memory, complete on return. */
double rz_sumsq(rz_stream *s, const float *x, size_t n);
/* Dot product in double, likewise. */
double rz_dot(rz_stream *s, const float *x, const float *y, size_t n);

typedef struct rz_adamw {
    float lr, beta1, beta2, eps, weight_decay;
    float grad_scale; /* the gradient is multiplied by this first (clipping) */
    int64_t step;     /* 1 for the first: bias correction */
} rz_adamw;
/* One array of n weights, its moments and its gradient. */
typedef struct rz_adamw_slot {
    float *w, *m, *v;
    const float *g;
    uint16_t *half; /* gets the new w rounded to bfloat16; may be NULL */
    size_t n;
    bool decay; /* weight decay applies */
} rz_adamw_slot;
/* As torch.optim.AdamW, for every slot: w *= 1 - lr wd; m, v updated; w -= lr/(1-b1^t) m / (sqrt(v/(1-b2^t)) + eps).
 * slots: host memory. */
void rz_adamw_step(rz_stream *s, const rz_adamw *o, const rz_adamw_slot *slots, size_t n_slots);

#endif
