/* decoder.c - the LLaMA / Mistral decoder with grouped-query attention, forward and backward.
 * SPDX-License-Identifier: Apache-2.0 */
#include "decoder.h"

#include "half.h"
#include "rope.h"

typedef struct block_acts {
    float *h, *n1, *stats1, *q, *k, *v, *att, *lse; /* attention half; q and k after RoPE */
    float *mid, *n2, *stats2, *gate, *up, *act;     /* MLP half */
} block_acts;

struct rz_decoder_acts {
    size_t n_blocks;
    rz_ragged seq;
    int32_t *positions; /* of each row in its sequence */
    const uint64_t *row_keys;
    const float **freqs; /* RoPE frequencies of each sequence; NULL: the model's for all */
    block_acts *blocks;
    const rz_cache *cache; /* rows before these; NULL: there are none */
    rz_shortcut cut;
    rz_ragged joined; /* of cut.before: sequences with the rows before them */
    /* The rows of the last block that are wanted: sequences, which of all rows they are, positions. */
    rz_ragged wanted;
    const int32_t *wanted_rows, *wanted_positions;
};

/* Rows of sequence i that were there before. */
static size_t rows_before(const rz_decoder_acts *a, size_t i)
{
    return a->cache ? a->cache->len[i] : a->cut.n_before;
}

static size_t rows_in_all(const rz_decoder_acts *a, size_t i)
{
    return rows_before(a, i) + (size_t)(a->seq.start[i + 1] - a->seq.start[i]);
}

static int32_t *row_positions(const rz_net *net, const rz_decoder_acts *a)
{
    const rz_ragged seq = a->seq;
    size_t rows = (size_t)seq.start[seq.n];
    int32_t *pos = rz_arena_host(net->s, rows, sizeof *pos);
    if (!pos) return NULL;
    for (size_t i = 0; i < seq.n; i++)
        for (int32_t r = seq.start[i]; r < seq.start[i + 1]; r++)
            pos[r] = (int32_t)rows_before(a, i) + r - seq.start[i];
    return rz_arena_i32(net->s, pos, rows);
}

static rz_attn decoder_attention(const rz_net *net, rz_ragged seq)
{
    const rz_text_config *t = &net->model->cfg.text;
    return rz_self_attention(seq, t->heads, t->kv_heads, t->head_dim, true, t->window);
}

/* Prompts longer than training's rotate more slowly under dynamic RoPE; each by its own length, so that an item's
 * result does not depend on what it shares a batch with. */
static const float **row_frequencies(const rz_net *net, const rz_decoder_acts *a)
{
    const rz_text_config *t = &net->model->cfg.text;
    const size_t n = a->seq.n;
    bool depends = false;
    for (size_t i = 0; i < n; i++) depends |= rz_rope_depends(t, rows_in_all(a, i));
    if (!depends) return NULL;
    const float **freqs = rz_arena_host(net->s, n, sizeof *freqs);
    float *host = rz_arena_host(net->s, t->head_dim / 2, sizeof *host);
    for (size_t i = 0; freqs && host && i < n; i++) {
        float *freq = rz_arena_f32(net->s, 1, t->head_dim / 2);
        rz_rope_frequencies(t, rows_in_all(a, i), host);
        rz_upload(net->s, freq, host, t->head_dim / 2 * sizeof *host);
        freqs[i] = freq;
    }
    return freqs;
}

/* x (rows of seq, heads * head_dim) */
static void rope(const rz_net *net, rz_ragged seq, const int32_t *positions, const float **freqs, float *x,
                 size_t heads, bool inverse)
{
    const size_t head_dim = net->model->cfg.text.head_dim, ld = heads * head_dim;
    if (rz_stream_failed(net->s)) return;
    if (!freqs)
        rz_rope(net->s, x, ld, positions, net->model->inv_freq, 1.0f, (size_t)seq.start[seq.n], heads, head_dim,
                inverse);
    for (size_t i = 0; freqs && i < seq.n; i++) {
        size_t first = (size_t)seq.start[i], n = (size_t)seq.start[i + 1] - first;
        rz_rope(net->s, x + first * ld, ld, positions + first, freqs[i], 1.0f, n, heads, head_dim, inverse);
    }
}

static rz_ragged one_sequence(const rz_net *net, size_t rows)
{
    int32_t *start = rz_arena_host(net->s, 2, sizeof *start);
    if (start) start[1] = (int32_t)rows;
    return (rz_ragged){1, start, rz_arena_i32(net->s, start, 2)};
}

/* Keys and values go behind those of the rows before, and all of them are seen. */
static void attend_with_cache(const rz_net *net, const rz_attn *at, const rz_decoder_acts *d, size_t block,
                              const block_acts *a)
{
    const size_t ld = at->kv_ld;
    for (size_t i = 0; i < at->q_seq.n && !rz_stream_failed(net->s); i++) {
        size_t first = (size_t)at->q_seq.start[i], before = rows_before(d, i);
        size_t n = (size_t)at->q_seq.start[i + 1] - first;
        float *k = rz_cache_keys(d->cache, block, i), *v = rz_cache_values(d->cache, block, i);
        rz_copy(net->s, k + before * ld, a->k + first * ld, n * ld * sizeof *k);
        rz_copy(net->s, v + before * ld, a->v + first * ld, n * ld * sizeof *v);
        rz_attn one = *at;
        one.q_seq = one_sequence(net, n);
        one.kv_seq = one_sequence(net, before + n);
        if (!rz_stream_failed(net->s))
            rz_attention(net->s, &one, a->att + first * at->out_ld, NULL, a->q + first * at->q_ld, k, v);
    }
}

/* The keys, or the values, of each sequence behind those of the rows that precede it. */
static const float *join(const rz_net *net, const rz_decoder_acts *d, const float *before, const float *rows, size_t ld)
{
    float *all = rz_arena_f32(net->s, (size_t)d->joined.start[d->joined.n], ld);
    for (size_t i = 0; i < d->seq.n && all; i++) {
        const size_t first = (size_t)d->seq.start[i], n = (size_t)d->seq.start[i + 1] - first;
        float *to = all + (size_t)d->joined.start[i] * ld;
        rz_copy(net->s, to, before, d->cut.n_before * ld * sizeof *all);
        rz_copy(net->s, to + d->cut.n_before * ld, rows + first * ld, n * ld * sizeof *all);
    }
    return all;
}

/* Keys and values of sequence 0 stay for later prompts that begin with the same rows. */
static void store(const rz_net *net, const rz_decoder_acts *d, size_t block, const block_acts *a, size_t ld)
{
    const rz_shortcut *cut = &d->cut;
    const size_t n_new = cut->n_store - cut->n_before;
    if (!cut->store || cut->n_store <= cut->n_before) return;
    rz_copy(net->s, rz_cache_keys(cut->store, block, 0) + cut->n_before * ld, a->k, n_new * ld * sizeof(float));
    rz_copy(net->s, rz_cache_values(cut->store, block, 0) + cut->n_before * ld, a->v, n_new * ld * sizeof(float));
}

static void attend(const rz_net *net, size_t block, const rz_attn *at, const rz_decoder_acts *d, const block_acts *a)
{
    const float *k = a->k, *v = a->v;
    rz_attn joined = *at;
    store(net, d, block, a, at->kv_ld);
    if (d->cache) {
        attend_with_cache(net, at, d, block, a);
        return;
    }
    if (d->cut.before) {
        k = join(net, d, rz_cache_keys(d->cut.before, block, 0), k, at->kv_ld);
        v = join(net, d, rz_cache_values(d->cut.before, block, 0), v, at->kv_ld);
        joined.kv_seq = d->joined;
    }
    if (!rz_stream_failed(net->s)) rz_attention(net->s, &joined, a->att, a->lse, a->q, k, v);
}

static float *pick_rows(const rz_net *net, const float *x, const int32_t *rows, size_t n, size_t cols)
{
    float *y = rz_arena_f32(net->s, n, cols);
    rz_copy_rows(net->s, y, cols, NULL, x, cols, rows, n, cols);
    return y;
}

/* All of a block but its last product. `picked`: of d->wanted alone, which at->q_seq then is; every row has its keys
 * and values. */
static void block_inside(const rz_net *net, const rz_decoder_block *b, const rz_attn *at, const rz_decoder_acts *d,
                         bool picked, float *h, block_acts *a)
{
    const rz_text_config *t = &net->model->cfg.text;
    size_t all = (size_t)d->seq.start[d->seq.n], rows = (size_t)at->q_seq.start[at->q_seq.n], c = t->hidden;
    a->h = h;
    a->n1 = rz_norm_forward(net, &b->in, t->eps, h, all, &a->stats1);
    a->k = rz_linear_forward(net, &b->k, a->n1, all);
    a->v = rz_linear_forward(net, &b->v, a->n1, all);
    const float *n1 = picked ? pick_rows(net, a->n1, d->wanted_rows, rows, c) : a->n1;
    if (picked) h = pick_rows(net, h, d->wanted_rows, rows, c);
    a->q = rz_linear_forward(net, &b->q, n1, rows);
    rope(net, at->q_seq, picked ? d->wanted_positions : d->positions, d->freqs, a->q, t->heads, false);
    rope(net, d->seq, d->positions, d->freqs, a->k, t->kv_heads, false);
    a->att = rz_arena_f32(net->s, rows, t->heads * t->head_dim);
    a->lse = net->keep ? rz_arena_f32(net->s, rows, t->heads) : NULL;
    attend(net, (size_t)(b - net->model->decoder), at, d, a);
    a->mid = rz_residual(net, h, rz_linear_forward(net, &b->o, a->att, rows), rows * c);
    a->n2 = rz_norm_forward(net, &b->post, t->eps, a->mid, rows, &a->stats2);
    a->gate = rz_linear_forward(net, &b->gate, a->n2, rows);
    a->up = rz_linear_forward(net, &b->up, a->n2, rows);
    a->act = net->keep ? rz_arena_f32(net->s, rows, t->intermediate) : a->gate;
    rz_gated(net->s, t->act, a->act, a->gate, a->up, rows * t->intermediate);
}

static float *block_forward(const rz_net *net, const rz_decoder_block *b, const rz_attn *at, const rz_decoder_acts *d,
                            float *h, block_acts *a)
{
    size_t rows = (size_t)at->q_seq.start[at->q_seq.n];
    block_inside(net, b, at, d, false, h, a);
    return rz_residual(net, a->mid, rz_linear_forward(net, &b->down, a->act, rows), rows * net->model->cfg.text.hidden);
}

/* The same for the rows that are wanted; in place. */
static float *block_forward_picked(const rz_net *net, const rz_decoder_block *b, const rz_attn *at,
                                   const rz_decoder_acts *d, float *h, block_acts *a)
{
    const size_t rows = (size_t)d->wanted.start[d->wanted.n], c = net->model->cfg.text.hidden;
    rz_attn some = *at;
    some.q_seq = d->wanted;
    block_inside(net, b, &some, d, true, h, a);
    const float *y = rz_residual(net, a->mid, rz_linear_forward(net, &b->down, a->act, rows), rows * c);
    rz_copy_rows(net->s, h, c, d->wanted_rows, y, c, NULL, rows, c);
    return h;
}

/* The same, of which only the input is kept. */
static float *block_forward_light(const rz_net *net, const rz_decoder_block *b, const rz_attn *at,
                                  const rz_decoder_acts *d, float *h, block_acts *a)
{
    size_t n = (size_t)at->q_seq.start[at->q_seq.n] * net->model->cfg.text.hidden;
    float *y = rz_arena_f32(net->s, 1, n);
    rz_net light = *net;
    light.keep = false;
    rz_mark m = rz_arena_mark(net->s);
    rz_copy(net->s, y, h, n * sizeof *y);
    block_forward(&light, b, at, d, y, a); /* in place */
    rz_arena_release(net->s, m);
    *a = (block_acts){.h = h};
    return y;
}

/* ---- Activations of bfloat16 ---- */

static bool is_half(const rz_net *net, const rz_decoder_block *b, const rz_decoder_acts *d)
{
    const rz_linear *const layers[] = {&b->q, &b->k, &b->v, &b->o, &b->gate, &b->up, &b->down};
    return !d->cache && rz_half_fits(net, layers, RZ_COUNT(layers));
}

/* q, k or v of a block: rows of a buffer that has others beside it. */
typedef struct columns {
    uint16_t *x;
    size_t ld;
} columns;

static void rope_half(const rz_net *net, rz_ragged seq, const int32_t *positions, const float **freqs, columns c,
                      size_t heads)
{
    const size_t head_dim = net->model->cfg.text.head_dim;
    if (rz_stream_failed(net->s)) return;
    if (!freqs)
        rz_half_rope(net->s, c.x, c.ld, positions, net->model->inv_freq, 1.0f, (size_t)seq.start[seq.n], heads,
                     head_dim);
    for (size_t i = 0; freqs && i < seq.n; i++) {
        size_t first = (size_t)seq.start[i], n = (size_t)seq.start[i + 1] - first;
        rz_half_rope(net->s, c.x + first * c.ld, c.ld, positions + first, freqs[i], 1.0f, n, heads, head_dim);
    }
}

/* As `join`; what is known is kept as floats, which hold the same numbers. */
static columns join_half(const rz_net *net, const rz_decoder_acts *d, const float *before, columns rows, size_t n_cols)
{
    const size_t known = d->cut.n_before * n_cols;
    uint16_t *all = rz_half_rows(net, (size_t)d->joined.start[d->joined.n], n_cols);
    for (size_t i = 0; i < d->seq.n && all; i++) {
        const size_t first = (size_t)d->seq.start[i], n = (size_t)d->seq.start[i + 1] - first;
        uint16_t *to = all + (size_t)d->joined.start[i] * n_cols;
        rz_to_bf16(net->s, to, before, known);
        rz_half_columns(net, to + known, n_cols, rows.x + first * rows.ld, rows.ld, n, n_cols);
    }
    return (columns){all, n_cols};
}

static void store_half(const rz_net *net, const rz_decoder_acts *d, float *to, columns rows, size_t n_cols)
{
    const size_t n = d->cut.n_store - d->cut.n_before;
    uint16_t *packed = rz_half_rows(net, n, n_cols);
    rz_half_columns(net, packed, n_cols, rows.x, rows.ld, n, n_cols);
    rz_half_to_f32(net->s, to + d->cut.n_before * n_cols, packed, n * n_cols);
}

static uint16_t *attend_half(const rz_net *net, size_t block, const rz_attn *at, const rz_decoder_acts *d, columns q,
                             columns k, columns v)
{
    const rz_shortcut *cut = &d->cut;
    const size_t n_cols = at->kv_ld;
    uint16_t *out = rz_half_rows(net, (size_t)at->q_seq.start[at->q_seq.n], at->out_ld);
    rz_attn beside = *at;
    if (rz_stream_failed(net->s)) return NULL;
    if (cut->store && cut->n_store > cut->n_before) {
        store_half(net, d, rz_cache_keys(cut->store, block, 0), k, n_cols);
        store_half(net, d, rz_cache_values(cut->store, block, 0), v, n_cols);
    }
    if (cut->before) {
        k = join_half(net, d, rz_cache_keys(cut->before, block, 0), k, n_cols);
        v = join_half(net, d, rz_cache_values(cut->before, block, 0), v, n_cols);
        beside.kv_seq = d->joined;
    }
    beside.q_ld = q.ld, beside.kv_ld = k.ld;
    rz_half_attention(net->s, &beside, out, q.x, k.x, v.x);
    return out;
}

/* What attention adds to the rows x: all of them, or those of d->wanted, which were picked from h. */
static void attention_half(const rz_net *net, const rz_decoder_block *b, const rz_decoder_acts *d, bool picked,
                           const float *h, float *x)
{
    const rz_text_config *t = &net->model->cfg.text;
    const rz_linear *const layers[] = {&b->q, &b->k, &b->v};
    const size_t all = (size_t)d->seq.start[d->seq.n], nq = t->heads * t->head_dim, nkv = t->kv_heads * t->head_dim;
    const size_t ld = picked ? 2 * nkv : nq + 2 * nkv;
    rz_attn at = decoder_attention(net, d->seq);
    const uint16_t *n = rz_half_norm_forward(net, &b->in, t->eps, h, all);
    uint16_t *y = rz_half_linears(net, picked ? layers + 1 : layers, picked ? 2 : 3, n, all);
    if (!y) return;
    columns q = {y, ld}, k = {picked ? y : y + nq, ld}, v = {k.x + nkv, ld};
    if (picked) {
        at.q_seq = d->wanted;
        const size_t rows = (size_t)d->wanted.start[d->wanted.n];
        n = rz_half_norm_forward(net, &b->in, t->eps, x, rows);
        q = (columns){rz_half_linears(net, layers, 1, n, rows), nq};
        rope_half(net, d->wanted, d->wanted_positions, d->freqs, q, t->heads);
        rope_half(net, d->seq, d->positions, d->freqs, k, t->kv_heads);
    } else
        rope_half(net, d->seq, d->positions, d->freqs, q, t->heads + t->kv_heads); /* k's heads lie behind q's */
    const uint16_t *att = attend_half(net, (size_t)(b - net->model->decoder), &at, d, q, k, v);
    rz_half_residual(net, &b->o, x, att, (size_t)at.q_seq.start[at.q_seq.n]);
}

/* A block in place; `picked` as in block_inside: the other rows stay as they are. */
static float *block_forward_half(const rz_net *net, const rz_decoder_block *b, const rz_decoder_acts *d, bool picked,
                                 float *h)
{
    const rz_text_config *t = &net->model->cfg.text;
    const rz_ragged seq = picked ? d->wanted : d->seq;
    const size_t rows = (size_t)seq.start[seq.n], c = t->hidden, wide = t->intermediate;
    const rz_linear *const gate_up[] = {&b->gate, &b->up};
    float *x = picked ? pick_rows(net, h, d->wanted_rows, rows, c) : h;
    attention_half(net, b, d, picked, h, x);
    const uint16_t *n = rz_half_norm_forward(net, &b->post, t->eps, x, rows);
    const uint16_t *gate = rz_half_linears(net, gate_up, 2, n, rows);
    uint16_t *act = rz_half_rows(net, rows, wide);
    if (gate) rz_half_gated(net->s, t->act, act, gate, gate + wide, 2 * wide, rows, wide);
    rz_half_residual(net, &b->down, x, act, rows);
    if (picked) rz_copy_rows(net->s, h, c, d->wanted_rows, x, c, NULL, rows, c);
    return h;
}

/* ---- Backward ---- */

static void mlp_backward(const rz_net *net, const rz_decoder_block *b, size_t rows, float *dh, const block_acts *a)
{
    const rz_text_config *t = &net->model->cfg.text;
    size_t wide = t->intermediate;
    float *dact = rz_arena_f32(net->s, rows, wide), *dgate = rz_arena_f32(net->s, rows, wide);
    float *dup = rz_arena_f32(net->s, rows, wide), *dn = rz_arena_f32(net->s, rows, t->hidden);
    rz_linear_backward(net, &b->down, 0.0f, dact, dh, a->act, rows);
    rz_gated_bwd(net->s, t->act, dgate, dup, dact, a->gate, a->up, rows * wide);
    rz_linear_backward(net, &b->gate, 0.0f, dn, dgate, a->n2, rows);
    rz_linear_backward(net, &b->up, 1.0f, dn, dup, a->n2, rows);
    rz_norm_backward(net, &b->post, dh, dn, a->mid, a->stats2, rows);
}

static void attention_backward(const rz_net *net, const rz_decoder_block *b, const rz_attn *at,
                               const rz_decoder_acts *d, float *dh, const block_acts *a)
{
    const rz_text_config *t = &net->model->cfg.text;
    size_t rows = (size_t)at->q_seq.start[at->q_seq.n];
    float *datt = rz_arena_f32(net->s, rows, at->q_ld);
    const rz_qkv dx = rz_qkv_zeros(net, at, rows);
    float *dn = rz_arena_f32(net->s, rows, t->hidden);
    rz_linear_backward(net, &b->o, 0.0f, datt, dh, a->att, rows);
    rz_attention_bwd(net->s, at, dx.q, dx.k, dx.v, datt, a->att, a->lse, a->q, a->k, a->v);
    rope(net, d->seq, d->positions, d->freqs, dx.q, t->heads, true);
    rope(net, d->seq, d->positions, d->freqs, dx.k, t->kv_heads, true);
    rz_linear_backward(net, &b->q, 0.0f, dn, dx.q, a->n1, rows);
    rz_linear_backward(net, &b->k, 1.0f, dn, dx.k, a->n1, rows);
    rz_linear_backward(net, &b->v, 1.0f, dn, dx.v, a->n1, rows);
    rz_norm_backward(net, &b->in, dh, dn, a->h, a->stats1, rows);
}

/* Sequences of len(i) rows each. */
static rz_ragged ragged_of(const rz_net *net, const int32_t *len, size_t n)
{
    int32_t *start = rz_arena_host(net->s, n + 1, sizeof *start);
    for (size_t i = 0; start && i < n; i++) start[i + 1] = start[i] + len[i];
    return (rz_ragged){n, start, start ? rz_arena_i32(net->s, start, n + 1) : NULL};
}

static void list_joined(const rz_net *net, rz_decoder_acts *a)
{
    int32_t *len = rz_arena_host(net->s, a->seq.n, sizeof *len);
    for (size_t i = 0; len && i < a->seq.n; i++) len[i] = (int32_t)rows_in_all(a, i);
    if (len) a->joined = ragged_of(net, len, a->seq.n);
}

static void list_wanted(const rz_net *net, rz_decoder_acts *a)
{
    const rz_ragged seq = a->seq;
    a->wanted = ragged_of(net, a->cut.last, seq.n);
    if (!a->wanted.start) return;
    const size_t n = (size_t)a->wanted.start[seq.n];
    int32_t *rows = rz_arena_host(net->s, n, sizeof *rows), *positions = rz_arena_host(net->s, n, sizeof *positions);
    if (!rows || !positions) return;
    for (size_t i = 0, k = 0; i < seq.n; i++)
        for (int32_t r = seq.start[i + 1] - a->cut.last[i]; r < seq.start[i + 1]; r++, k++)
            rows[k] = r, positions[k] = (int32_t)rows_before(a, i) + r - seq.start[i];
    a->wanted_rows = rz_arena_i32(net->s, rows, n);
    a->wanted_positions = rz_arena_i32(net->s, positions, n);
}

static rz_decoder_acts *begin(const rz_net *net, rz_ragged seq, size_t n_blocks, const rz_cache *cache,
                              const rz_shortcut *cut)
{
    rz_decoder_acts *a = rz_arena_host(net->s, 1, sizeof *a);
    block_acts *blocks = rz_arena_host(net->s, n_blocks + 1, sizeof *blocks);
    if (!a || !blocks || rz_stream_failed(net->s)) return NULL;
    *a = (rz_decoder_acts){
        .n_blocks = n_blocks, .seq = seq, .row_keys = net->row_keys, .blocks = blocks, .cache = cache, .cut = *cut};
    a->positions = row_positions(net, a);
    a->freqs = row_frequencies(net, a);
    if (cut->before) list_joined(net, a);
    if (cut->last) list_wanted(net, a);
    return rz_stream_failed(net->s) ? NULL : a;
}

static float *run_blocks(const rz_net *net, float *x, rz_ragged seq, size_t n_blocks, const rz_cache *cache,
                         const rz_shortcut *cut, rz_decoder_acts **acts)
{
    rz_decoder_acts *a = begin(net, seq, n_blocks, cache, cut);
    if (!a) return NULL;
    rz_attn at = decoder_attention(net, seq);
    for (size_t i = 0; i < n_blocks; i++) {
        rz_mark m = rz_arena_mark(net->s);
        const rz_decoder_block *b = &net->model->decoder[i];
        const bool picked = cut->last && i + 1 == n_blocks;
        if (is_half(net, b, a))
            x = block_forward_half(net, b, a, picked, x);
        else if (picked)
            x = block_forward_picked(net, b, &at, a, x, &a->blocks[i]);
        else if (net->keep && net->recompute)
            x = block_forward_light(net, b, &at, a, x, &a->blocks[i]);
        else
            x = block_forward(net, b, &at, a, x, &a->blocks[i]);
        if (!net->keep) rz_arena_release(net->s, m);
        rz_net_poll(net);
    }
    if (acts) *acts = a;
    return x;
}

float *rz_decoder_shortcut(const rz_net *net, float *x, rz_ragged seq, size_t n_blocks, const rz_shortcut *cut)
{
    rz_net pass = *net;
    pass.keep = false;
    return run_blocks(&pass, x, seq, n_blocks, NULL, cut, NULL);
}

float *rz_decoder_forward(const rz_net *net, float *x, rz_ragged seq, size_t n_blocks, rz_decoder_acts **acts)
{
    return run_blocks(net, x, seq, n_blocks, NULL, &(rz_shortcut){0}, acts);
}

float *rz_decoder_extend(const rz_net *net, float *x, rz_ragged seq, rz_cache *cache)
{
    rz_net pass = *net;
    pass.keep = false;
    bool fits = seq.n == cache->n;
    for (size_t i = 0; fits && i < seq.n; i++)
        fits = cache->len[i] + (size_t)(seq.start[i + 1] - seq.start[i]) <= cache->room;
    if (!fits) {
        rz_stream_fail(net->s, RADZ_E_INTERNAL, "the rows do not fit the cache: %zu sequences, at most %zu rows",
                       cache->n, cache->room);
        return NULL;
    }
    x = run_blocks(&pass, x, seq, cache->layers, cache, &(rz_shortcut){0}, NULL);
    for (size_t i = 0; i < seq.n; i++) cache->len[i] += (size_t)(seq.start[i + 1] - seq.start[i]);
    return x;
}

void rz_decoder_backward(const rz_net *net, const rz_decoder_acts *a, float *dh)
{
    if (rz_stream_failed(net->s)) return;
    rz_net pass = *net;
    pass.row_keys = a->row_keys, pass.keep = true;
    net = &pass;
    rz_attn at = decoder_attention(net, a->seq);
    for (size_t i = a->n_blocks; i-- > 0;) {
        rz_mark m = rz_arena_mark(net->s);
        const rz_decoder_block *b = &net->model->decoder[i];
        block_acts acts = a->blocks[i];
        if (!acts.n1) block_inside(net, b, &at, a, false, acts.h, &acts);
        mlp_backward(net, b, (size_t)a->seq.start[a->seq.n], dh, &acts);
        attention_backward(net, b, &at, a, dh, &acts);
        rz_arena_release(net->s, m);
        rz_net_poll(net);
    }
}

rz_block_attention rz_decoder_attention(const rz_net *net, const rz_decoder_acts *acts, size_t block)
{
    const block_acts *a = &acts->blocks[block];
    return (rz_block_attention){decoder_attention(net, acts->seq), a->q, a->k, a->lse};
}

float *rz_decoder_logits(const rz_net *net, const float *h, size_t rows)
{
    const rz_model *m = net->model;
    float *stats, *n = rz_norm_forward(net, &m->decoder_norm, m->cfg.text.eps, h, rows, &stats);
    rz_linear head = {m->cfg.text.tied ? m->embed : m->lm_head, NULL, NULL};
    return rz_linear_forward(net, &head, n, rows);
}
