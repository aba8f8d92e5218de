/* cpu.h - inside the CPU device: the kernel sets (one per instruction set, all compiled from the same source,
 * kernels.h) and the helpers that spread work over threads. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_CPU_H
#define RZ_CPU_H

#include "ops.h"

/* Where a packed operand lies and how: panels of `tile` rows (A) or columns (B), `stride` floats apart. */
struct rz_packed {
    const float *data;
    size_t stride;
};

/* Products of one type of numbers: tiles of mr rows of A by nr columns of B, made of 32-bit lanes that hold per_lane
 * neighbours along K. Sums run over `depth` numbers of K, then C is added to: part of the summation order. */
struct rz_gemm_kernels {
    const char *name;
    size_t mr, nr, per_lane, depth;
    /* Packs `count` rows of op(A) (columns of op(B)), kc deep, into panels of `tile` lanes, the last one padded with
     * zeros: element (p, i) of a panel in lane [p / per_lane * tile + i]. Element (i, p) is x[i * ld + p], or x[p * ld
     * + i] if by_k. `offset`: first element of x. */
    void (*pack)(float *dst, size_t tile, rz_mat x, bool by_k, size_t offset, size_t count, size_t kc);
    /* C (m,n) = beta C + alpha A B of packed panels, so many lanes deep; m <= rows of A's panels. */
    void (*block)(size_t m, size_t n, size_t lanes, float alpha, struct rz_packed a, struct rz_packed b, float beta,
                  float *c, size_t ldc);
    /* The same with rows of A that lie one after another, lda lanes apart; packing with tile 1 makes such rows. */
    void (*rows)(size_t m, size_t n, size_t lanes, float alpha, const float *a, size_t lda, struct rz_packed b,
                 float beta, float *c, size_t ldc);
    /* The same lying on its side: T (n,m) = beta T + alpha B^T A^T. Columns of B are lanes as they lie, one after
     * another, ldb lanes apart; panels of A have `side` rows. Rows of T take whole vectors. NULL: there is none. */
    size_t side;
    void (*turned)(size_t m, size_t n, size_t lanes, float alpha, struct rz_packed a, const float *b, size_t ldb,
                   float beta, float *t, size_t ldt);
    /* y (cols,rows) = x^T; `past`: past the caches, where that can be done. */
    void (*turn)(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t cols, bool past);
};

/* Tiles of an integer product, a few groups deep: panels of A (mr rows each, a_stride floats apart) times one panel of
 * B (n <= nr columns), added to beta C. A group of A: mr scales, mr sums to start with, then rows of mr lanes. B: nr
 * scales of each group, then rows of nr lanes of all groups. A lane is 32 bits: numbers along K. */
struct rz_int_block {
    size_t m, n, groups;
    size_t lanes, last_lanes; /* of a group; of the last one here */
    const float *a, *b;
    size_t a_stride, a_group; /* floats from one panel, from one group to the next */
    float *c, beta;           /* beta 0: c is not read */
    size_t ldc;
};

/* Products with weights of one integer type. */
struct rz_int_kernels {
    const char *name;
    size_t mr, nr;
    size_t per_lane; /* integers in a lane: 2 or 4 */
    int32_t offset;  /* what the packed weights have more than their integers */
    /* Groups [g, g + n) of `cols` <= nr rows of x, from row j on. */
    void (*pack_weights)(float *dst, rz_mat x, size_t j, size_t cols, size_t g, size_t n);
    /* n floats of `rows` <= mr rows of x, ld floats apart, rounded; alpha goes into the scales. */
    void (*pack_rows)(float *dst, const float *x, size_t ld, size_t rows, size_t n, float alpha, int32_t offset);
    void (*block)(const struct rz_int_block *t);
};

/* One head of one sequence. q, k, v, ... point at the sequence's first row, column 0 of the matrix. */
struct rz_attn_task {
    const rz_attn *a;
    size_t n_q, n_kv, kv_head;
    size_t q_begin, q_end; /* queries of this task */
    const float *q, *k, *v, *out, *lse, *dout;
    float *y, *y_lse;    /* forward's results */
    float *dq, *dk, *dv; /* backward's */
};

struct rz_adamw_task {
    float *w, *m, *v;
    const float *g;
    float grad_scale, beta1, beta2, eps;
    float decay, step_size, inv_root_c2; /* 1 - lr wd; lr / (1 - beta1^t); 1 / sqrt(1 - beta2^t) */
};

enum { RZ_SUM_COLS = 32 }; /* columns that are summed at once */

/* Single-threaded kernels of one instruction set. Rows are independent of each other. */
struct rz_kernels {
    const char *name;
    struct rz_gemm_kernels f32;

    size_t (*attention_scratch)(const rz_attn *a, size_t n_q, size_t n_kv, bool backward); /* floats */
    void (*attention)(const struct rz_attn_task *t, float *scratch);
    void (*attention_bwd)(const struct rz_attn_task *t, float *scratch);

    void (*act)(rz_act_kind kind, float *y, const float *x, size_t n);
    void (*act_bwd)(rz_act_kind kind, float *dx, const float *dy, const float *x, size_t n);
    void (*gated)(rz_act_kind kind, float *y, const float *gate, const float *up, size_t n);
    void (*gated_bwd)(rz_act_kind kind, float *dgate, float *dup, const float *dy, const float *gate, const float *up,
                      size_t n);
    void (*layernorm)(float *y, float *stats, const float *x, const float *w, const float *b, float eps, size_t rows,
                      size_t cols);
    void (*layernorm_dx)(float *dx, const float *dy, const float *x, const float *stats, const float *w, size_t rows,
                         size_t cols);
    void (*rmsnorm)(float *y, float *rstd, const float *x, const float *w, float eps, size_t rows, size_t cols);
    void (*rmsnorm_dx)(float *dx, const float *dy, const float *x, const float *rstd, const float *w, size_t rows,
                       size_t cols);
    /* sum_w (n) += dy xhat, sum_b (n) += dy over rows in order, n <= RZ_SUM_COLS columns of matrices with cols columns.
     * stats: mean and 1/std of each row, or 1/std alone unless centered. */
    void (*norm_sums)(float *sum_w, float *sum_b, const float *dy, const float *x, const float *stats, bool centered,
                      size_t rows, size_t cols, size_t n);
    void (*softmax_xent)(float *loss, float *dlogits, const float *logits, const float *targets, const float *keep,
                         float weight, size_t rows, size_t cols);
    void (*adamw)(const struct rz_adamw_task *t, size_t begin, size_t end);

    void (*resample)(const rz_resample *r, const int16_t *x, size_t o0, size_t o1, uint16_t *out, size_t stride);

    struct rz_int_kernels int8, int4;
};

extern const struct rz_kernels rz_kernels_portable;
#ifdef __x86_64__
extern const struct rz_kernels rz_kernels_avx2;
extern const struct rz_kernels rz_kernels_avx512;
/* With instructions for bytes: int8 and int4. */
extern const struct rz_int_kernels rz_kernels_avxvnni[2], rz_kernels_avx512_vnni[2];
/* With instructions for bfloat16: x W^T alone, numbers of any type rounded as they are packed. */
extern const struct rz_gemm_kernels rz_kernels_avx512_bf16;
#endif

/* ---- Threads (cpu.c) -------------------------------------------------------------- */

/* fn(arg, begin, end) over chunks of [0, n) that together cover it once. unit_work: about how many simple
 * operations one item takes; little work stays on the calling thread. */
void rz_cpu_split(rz_stream *s, size_t n, size_t unit_work, void (*fn)(void *arg, size_t begin, size_t end), void *arg);
/* fn(arg, i, scratch) for 0 <= i < n, with scratch_floats floats for as long as the call lasts; no more than
 * `threads` at once. Fails the stream when there is no memory. */
void rz_cpu_tasks(rz_stream *s, size_t n, size_t threads, size_t scratch_floats,
                  void (*fn)(void *arg, size_t i, float *scratch), void *arg);
/* How many threads `work` simple operations are worth, 1 .. the pool's. */
size_t rz_cpu_threads_for(const rz_stream *s, double work);

/* ---- Ops ------------------------------------------------------------------------------ */

void rz_cpu_gemm(rz_stream *s, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b,
                 float beta, float *c, size_t ldc);
/* The same with given kernels; size: m, n, k. */
void rz_cpu_gemm_packed(rz_stream *s, const struct rz_gemm_kernels *k, bool ta, bool tb, const size_t size[3],
                        float alpha, rz_mat a, rz_mat b, float beta, float *c, size_t ldc);
size_t rz_cpu_pack(rz_device *dev, rz_mat w, size_t rows, void *to);
size_t rz_cpu_pack_int(rz_device *dev, rz_mat w, size_t rows, float *to);
/* C = beta C + alpha A B^T with B (n, k) of integers, A rounded to 8 bits per row and group of B's. */
void rz_cpu_gemm_int(rz_stream *s, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b, float beta, float *c,
                     size_t ldc);
/* C = beta C + alpha A B^T with B (n, k); A and B rounded to bfloat16. */
void rz_cpu_gemm_bf16(rz_stream *s, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b, float beta, float *c,
                      size_t ldc);
void rz_cpu_attention(rz_stream *s, const rz_attn *a, float *out, float *lse, const float *q, const float *k,
                      const float *v);
void rz_cpu_attention_bwd(rz_stream *s, const rz_attn *a, float *dq, float *dk, float *dv, const float *dout,
                          const float *out, const float *lse, const float *q, const float *k, const float *v);
void rz_cpu_rope(rz_stream *s, float *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale, size_t rows,
                 size_t n_heads, size_t head_dim, bool inverse);
/* n floats of x from element `offset` on; of integers, within one row. */
void rz_cpu_widen(float *y, rz_mat x, size_t offset, size_t n);
/* y = x rounded to bfloat16, nearest even; NaN stays NaN. */
void rz_cpu_round_bf16(uint16_t *y, const float *x, size_t n);

/* Puts the ops of cpu_rows.c and cpu_math.c into a table. */
void rz_cpu_rows_ops(struct rz_ops *ops);
void rz_cpu_math_ops(struct rz_ops *ops);
void rz_cpu_half_ops(struct rz_ops *ops);

/* openblas.c: loads the library on first use. */
radz_status rz_openblas_load(radz_error *err) RZ_CHECK;
bool rz_openblas_has_bf16(void); /* once it is loaded */
void rz_cpu_gemm_openblas(rz_stream *s, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b,
                          float beta, float *c, size_t ldc);

#endif
