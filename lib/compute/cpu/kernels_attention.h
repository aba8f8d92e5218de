/* kernels_attention.h - softmax attention of one head of one sequence, as small matrix products over packed
 * keys and values; memory grows with the sequence, never with its square. Part of kernels.h.
 * SPDX-License-Identifier: Apache-2.0 */

enum { BWD_ROWS = 48 }; /* queries per step of the backward: a multiple of every MR */

INLINE size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

/* Cuts n floats from the scratch memory. */
INLINE float *take(float **scratch, size_t n)
{
    float *p = *scratch;
    *scratch += round_up(n, 16);
    return p;
}

/* Floats from one query's scores to the next, an odd number of cache lines: MR rows that are read side by side then do
 * not fall on each other in the cache. */
INLINE size_t score_ld(size_t n_kv)
{
    return round_up(n_kv, 2 * LINE) + LINE;
}

static size_t attention_scratch(const rz_attn *a, size_t n_q, size_t n_kv, bool backward)
{
    size_t hd = a->head_dim, hd_pad = round_up(hd, NR), kv_pad = round_up(n_kv, NR), slack = 16 * 16;
    size_t rows = n_q < BWD_ROWS ? round_up(n_q, MR) : BWD_ROWS;
    if (!backward) return hd * kv_pad + n_kv * hd_pad + MR * (hd + score_ld(n_kv)) + slack;
    return 2 * hd * kv_pad + n_kv * hd_pad + rows * (2 * hd + 2 * hd_pad + 2 * kv_pad + round_up(n_kv, MR)) + slack;
}

/* Keys that query i may see: [lo, hi). */
struct span {
    size_t lo, hi;
};
static struct span visible(const struct rz_attn_task *t, size_t i)
{
    if (!t->a->causal) return (struct span){0, t->n_kv};
    size_t hi = i + 1 + t->n_kv > t->n_q ? i + 1 + t->n_kv - t->n_q : 0;
    size_t window = t->a->window;
    return (struct span){window && hi > window ? hi - window : 0, hi};
}

/* Keys that queries [i, i + n) see, widened to whole panels on the left. */
static struct span visible_rows(const struct rz_attn_task *t, size_t i, size_t n)
{
    struct span first = visible(t, i), last = visible(t, i + n - 1);
    return (struct span){first.lo / NR * NR, last.hi};
}

/* Lanes of keys j .. j + W - 1 that are in v. */
INLINE vi span_mask(struct span v, size_t j)
{
    vi at = v_lanes() + (int32_t)j;
    return (at >= (int32_t)v.lo) & (at < (int32_t)v.hi);
}
/* All lanes, so that no mask is needed? */
INLINE bool span_covers(struct span v, size_t j)
{
    return j >= v.lo && j + W <= v.hi;
}

/* e^(x - max) where key j is visible and 0 elsewhere, for j in [begin, end), both multiples of W. The sum's lanes
 * depend on j alone, not on where the row begins. */
static float softmax_row(float *x, size_t begin, size_t end, struct span v, float *max)
{
    vf m = v_set(-INFINITY), sum = {0};
    const size_t from = v.lo / W * W;
    for (size_t j = from; j < v.hi; j += W)
        m = v_max(span_covers(v, j) ? v_load(x + j) : v_select(span_mask(v, j), v_load(x + j), m), m);
    *max = v_max1(m);
    const vf top = v_set(*max);
    for (size_t j = begin; j < end; j += W) {
        vf e = {0};
        if (span_covers(v, j))
            e = v_exp(v_load(x + j) - top);
        else if (j >= from && j < v.hi)
            e = (vf)((vi)v_exp(v_load(x + j) - top) & span_mask(v, j));
        sum += e;
        v_store(x + j, e);
    }
    return v_sum(sum);
}

/* ---- Forward ---------------------------------------------------------------------------- */

struct attn_fwd {
    float *k, *v; /* packed: keys as columns, values as rows */
    float *q, *s;
    size_t ld; /* of s */
};

/* MR queries of head h from query i on. */
static void attention_tile(const struct rz_attn_task *t, const struct attn_fwd *f, size_t h, size_t i, size_t n)
{
    const rz_attn *a = t->a;
    const size_t hd = a->head_dim, n_kv = t->n_kv;
    const struct span all = visible_rows(t, i, n);
    const size_t end = round_up(all.hi, NR), depth = all.hi - all.lo;
    float *y = t->y + i * a->out_ld + h * hd, sum[MR], max[MR];
    pack(f->q, MR, rz_mat_f32(t->q, a->q_ld), false, i * a->q_ld + h * hd, n, hd);
    gemm_block(n, end - all.lo, hd, a->scale, (struct rz_packed){f->q, MR * hd},
               (struct rz_packed){f->k + all.lo * hd, NR * hd}, 0, f->s + all.lo, f->ld);
    for (size_t r = 0; r < n; r++) sum[r] = softmax_row(f->s + r * f->ld, all.lo, end, visible(t, i + r), &max[r]);
    gemm_rows(n, hd, depth, 1, f->s + all.lo, f->ld, (struct rz_packed){f->v + all.lo * NR, NR * n_kv}, 0, y,
              a->out_ld);
    for (size_t r = 0; r < n; r++, y += a->out_ld) {
        float scale = sum[r] == 0 ? 0 : 1 / sum[r]; /* 0: no key is visible */
        for (size_t c = 0; c < hd; c++) y[c] *= scale;
        if (t->y_lse) t->y_lse[(i + r) * a->n_heads + h] = max[r] + logf(sum[r]);
    }
}

static void attention(const struct rz_attn_task *t, float *scratch)
{
    const rz_attn *a = t->a;
    const size_t hd = a->head_dim, group = a->n_heads / a->n_kv_heads;
    struct attn_fwd f = {.ld = score_ld(t->n_kv)};
    f.k = take(&scratch, hd * round_up(t->n_kv, NR));
    f.v = take(&scratch, t->n_kv * round_up(hd, NR));
    f.q = take(&scratch, MR * hd);
    f.s = take(&scratch, MR * f.ld);
    pack(f.k, NR, rz_mat_f32(t->k, a->kv_ld), false, t->kv_head * hd, t->n_kv, hd);
    pack(f.v, NR, rz_mat_f32(t->v, a->kv_ld), true, t->kv_head * hd, hd, t->n_kv);
    for (size_t h = t->kv_head * group; h < (t->kv_head + 1) * group; h++)
        for (size_t i = t->q_begin; i < t->q_end; i += MR)
            attention_tile(t, &f, h, i, t->q_end - i < MR ? t->q_end - i : MR);
}

/* ---- Backward ------------------------------------------------------------------------------
 * P = exp(scale q k^T - lse);  dV = P^T dO;  dP = dO V^T;  dS = scale P (dP - rowsum(dO O));
 * dQ = dS K;  dK = dS^T Q. */

struct attn_bwd {
    float *k, *k_rows, *v;            /* keys as columns and as rows, values as columns */
    float *q, *q_rows, *go, *go_rows; /* a block's queries and output gradients, both ways */
    float *s, *ds, *packed;
    size_t ld; /* of s and ds */
};

/* s and ds of one query: P and dS, zero where it sees nothing, for keys [begin, end). */
static void attention_bwd_row(const struct rz_attn_task *t, size_t h, size_t i, float *s, float *ds, size_t begin,
                              size_t end)
{
    const rz_attn *a = t->a;
    const float *o = t->out + i * a->out_ld + h * a->head_dim, *go = t->dout + i * a->out_ld + h * a->head_dim;
    const struct span see = visible(t, i);
    const vf lse = v_set(t->lse[i * a->n_heads + h]);
    vf acc = {0};
    for (size_t c = 0; c < a->head_dim; c += W)
        acc = v_fma(v_load_n(o + c, a->head_dim - c), v_load_n(go + c, a->head_dim - c), acc);
    const vf d = v_set(v_sum(acc)), scale = v_set(a->scale);
    for (size_t j = begin; j < end; j += W) {
        vf p = {0}, g = {0};
        if (j + W > see.lo && j < see.hi) {
            p = v_exp(v_load(s + j) - lse);
            g = p * (v_load(ds + j) - d) * scale;
        }
        if (!span_covers(see, j)) {
            p = (vf)((vi)p & span_mask(see, j));
            g = (vf)((vi)g & span_mask(see, j));
        }
        v_store(s + j, p);
        v_store(ds + j, g);
    }
}

/* y (keys, hd) += x^T g: x is (queries, keys) of this block, g its queries' packed rows. */
static void attention_bwd_keys(const struct rz_attn_task *t, const struct attn_bwd *f, const float *x, const float *g,
                               size_t i, size_t n, struct span all, float *y)
{
    const rz_attn *a = t->a;
    const size_t hd = a->head_dim;
    pack(f->packed, MR, rz_mat_f32(x, f->ld), true, all.lo, all.hi - all.lo, n);
    for (size_t j = all.lo; j < all.hi; j += MR) {
        size_t keys = all.hi - j < MR ? all.hi - j : MR, skip = 0;
        if (a->causal && j + t->n_q > t->n_kv + i) skip = j + t->n_q - t->n_kv - i; /* queries before key j */
        gemm_block(keys, hd, n - skip, 1, (struct rz_packed){f->packed + (j - all.lo) * n + skip * MR, MR * n},
                   (struct rz_packed){g + skip * NR, NR * n}, 1, y + j * a->kv_ld, a->kv_ld);
    }
}

/* Up to BWD_ROWS queries of head h from query i on. */
static void attention_bwd_block(const struct rz_attn_task *t, const struct attn_bwd *f, size_t h, size_t i, size_t n)
{
    const rz_attn *a = t->a;
    const size_t hd = a->head_dim, at_q = i * a->q_ld + h * hd, at_o = i * a->out_ld + h * hd;
    const struct span all = visible_rows(t, i, n);
    const rz_mat q = rz_mat_f32(t->q, a->q_ld), go = rz_mat_f32(t->dout, a->out_ld);
    pack(f->q, MR, q, false, at_q, n, hd);
    pack(f->q_rows, NR, q, true, at_q, hd, n);
    pack(f->go, MR, go, false, at_o, n, hd);
    pack(f->go_rows, NR, go, true, at_o, hd, n);
    for (size_t r = 0; r < n; r += MR) {
        const size_t rows = n - r < MR ? n - r : MR;
        const struct span see = visible_rows(t, i + r, rows);
        const size_t width = round_up(see.hi, NR) - see.lo, depth = see.hi - see.lo;
        float *s = f->s + r * f->ld, *ds = f->ds + r * f->ld;
        gemm_block(rows, width, hd, a->scale, (struct rz_packed){f->q + r * hd, MR * hd},
                   (struct rz_packed){f->k + see.lo * hd, NR * hd}, 0, s + see.lo, f->ld);
        gemm_block(rows, width, hd, 1, (struct rz_packed){f->go + r * hd, MR * hd},
                   (struct rz_packed){f->v + see.lo * hd, NR * hd}, 0, ds + see.lo, f->ld);
        for (size_t m = 0; m < rows; m++)
            attention_bwd_row(t, h, i + r + m, s + m * f->ld, ds + m * f->ld, all.lo, round_up(all.hi, NR));
        pack(f->packed, MR, rz_mat_f32(ds, f->ld), false, see.lo, rows, depth);
        gemm_block(rows, hd, depth, 1, (struct rz_packed){f->packed, MR * depth},
                   (struct rz_packed){f->k_rows + see.lo * NR, NR * t->n_kv}, 1, t->dq + at_q + r * a->q_ld, a->q_ld);
    }
    attention_bwd_keys(t, f, f->s, f->go_rows, i, n, all, t->dv + t->kv_head * hd);
    attention_bwd_keys(t, f, f->ds, f->q_rows, i, n, all, t->dk + t->kv_head * hd);
}

static void attention_bwd(const struct rz_attn_task *t, float *scratch)
{
    const rz_attn *a = t->a;
    const size_t hd = a->head_dim, hd_pad = round_up(hd, NR), group = a->n_heads / a->n_kv_heads;
    const size_t rows = t->n_q < BWD_ROWS ? round_up(t->n_q, MR) : BWD_ROWS;
    const rz_mat k = rz_mat_f32(t->k, a->kv_ld), v = rz_mat_f32(t->v, a->kv_ld);
    struct attn_bwd f = {.ld = round_up(t->n_kv, NR)};
    f.k = take(&scratch, hd * f.ld);
    f.v = take(&scratch, hd * f.ld);
    f.k_rows = take(&scratch, t->n_kv * hd_pad);
    f.q = take(&scratch, rows * hd);
    f.go = take(&scratch, rows * hd);
    f.q_rows = take(&scratch, rows * hd_pad);
    f.go_rows = take(&scratch, rows * hd_pad);
    f.s = take(&scratch, rows * f.ld);
    f.ds = take(&scratch, rows * f.ld);
    f.packed = take(&scratch, rows * round_up(t->n_kv, MR));
    pack(f.k, NR, k, false, t->kv_head * hd, t->n_kv, hd);
    pack(f.v, NR, v, false, t->kv_head * hd, t->n_kv, hd);
    pack(f.k_rows, NR, k, true, t->kv_head * hd, hd, t->n_kv);
    for (size_t h = t->kv_head * group; h < (t->kv_head + 1) * group; h++)
        for (size_t i = 0; i < t->n_q; i += BWD_ROWS)
            attention_bwd_block(t, &f, h, i, t->n_q - i < BWD_ROWS ? t->n_q - i : BWD_ROWS);
}
