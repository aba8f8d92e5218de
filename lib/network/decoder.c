/* decoder.c - the LLaMA / Mistral decoder with grouped-query attention, forward and backward.
 * SPDX-License-Identifier: Apache-2.0 */
#include "decoder.h"

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
};

/* Rows of sequence i that were there before. */
static size_t rows_before(const rz_cache *cache, size_t i)
{
    return cache ? cache->len[i] : 0;
}

static size_t rows_in_all(rz_ragged seq, const rz_cache *cache, size_t i)
{
    return rows_before(cache, i) + (size_t)(seq.start[i + 1] - seq.start[i]);
}

static int32_t *row_positions(const rz_net *net, rz_ragged seq, const rz_cache *cache)
{
    size_t rows = (size_t)seq.start[seq.n];
    int32_t *pos = rz_arena_host(net->s, rows, sizeof *pos);
    if (!pos) return NULL;
    for (size_t i = 0; i < seq.n; i++)
        for (int32_t r = seq.start[i]; r < seq.start[i + 1]; r++)
            pos[r] = (int32_t)rows_before(cache, i) + r - seq.start[i];
    return rz_arena_i32(net->s, pos, rows);
}

static rz_attn decoder_attention(const rz_net *net, rz_ragged seq)
{
    const rz_text_config *t = &net->model->cfg.text;
    return rz_self_attention(seq, t->heads, t->kv_heads, t->head_dim, true, t->window);
}

/* Prompts longer than training's rotate more slowly under dynamic RoPE; each by its own length, so that an item's
 * result does not depend on what it shares a batch with. */
static const float **row_frequencies(const rz_net *net, rz_ragged seq, const rz_cache *cache)
{
    const rz_text_config *t = &net->model->cfg.text;
    bool depends = false;
    for (size_t i = 0; i < seq.n; i++) depends |= rz_rope_depends(t, rows_in_all(seq, cache, i));
    if (!depends) return NULL;
    const float **freqs = rz_arena_host(net->s, seq.n, sizeof *freqs);
    float *host = rz_arena_host(net->s, t->head_dim / 2, sizeof *host);
    for (size_t i = 0; freqs && host && i < seq.n; i++) {
        float *freq = rz_arena_f32(net->s, 1, t->head_dim / 2);
        rz_rope_frequencies(t, rows_in_all(seq, cache, i), host);
        rz_upload(net->s, freq, host, t->head_dim / 2 * sizeof *host);
        freqs[i] = freq;
    }
    return freqs;
}

static void rope_rows(const rz_net *net, const int32_t *positions, const float *freq, float *q, float *k, size_t rows,
                      bool inverse)
{
    const rz_text_config *t = &net->model->cfg.text;
    rz_rope(net->s, q, t->heads * t->head_dim, positions, freq, 1.0f, rows, t->heads, t->head_dim, inverse);
    rz_rope(net->s, k, t->kv_heads * t->head_dim, positions, freq, 1.0f, rows, t->kv_heads, t->head_dim, inverse);
}

static void rope(const rz_net *net, const rz_decoder_acts *a, float *q, float *k, bool inverse)
{
    const rz_text_config *t = &net->model->cfg.text;
    const rz_ragged *seq = &a->seq;
    if (rz_stream_failed(net->s)) return;
    if (!a->freqs) rope_rows(net, a->positions, net->model->inv_freq, q, k, (size_t)seq->start[seq->n], inverse);
    for (size_t i = 0; a->freqs && i < seq->n; i++) {
        size_t first = (size_t)seq->start[i], n = (size_t)seq->start[i + 1] - first;
        rope_rows(net, a->positions + first, a->freqs[i], q + first * t->heads * t->head_dim,
                  k + first * t->kv_heads * t->head_dim, n, inverse);
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
        size_t first = (size_t)at->q_seq.start[i], before = rows_before(d->cache, i);
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

/* All of a block but its last product. */
static void block_inside(const rz_net *net, const rz_decoder_block *b, const rz_attn *at, const rz_decoder_acts *d,
                         float *h, block_acts *a)
{
    const rz_text_config *t = &net->model->cfg.text;
    size_t rows = (size_t)at->q_seq.start[at->q_seq.n], c = t->hidden;
    a->h = h;
    a->n1 = rz_norm_forward(net, &b->in, t->eps, h, rows, &a->stats1);
    a->q = rz_linear_forward(net, &b->q, a->n1, rows);
    a->k = rz_linear_forward(net, &b->k, a->n1, rows);
    a->v = rz_linear_forward(net, &b->v, a->n1, rows);
    rope(net, d, a->q, a->k, false);
    a->att = rz_arena_f32(net->s, rows, t->heads * t->head_dim);
    a->lse = net->keep ? rz_arena_f32(net->s, rows, t->heads) : NULL;
    if (d->cache)
        attend_with_cache(net, at, d, (size_t)(b - net->model->decoder), a);
    else
        rz_attention(net->s, at, a->att, a->lse, a->q, a->k, a->v);
    a->mid = rz_residual(net, h, rz_linear_forward(net, &b->o, a->att, rows), rows * c);
    a->n2 = rz_norm_forward(net, &b->post, t->eps, a->mid, rows, &a->stats2);
    a->gate = rz_linear_forward(net, &b->gate, a->n2, rows);
    a->up = rz_linear_forward(net, &b->up, a->n2, rows);
    a->act = rz_arena_f32(net->s, rows, t->intermediate);
    rz_gated(net->s, t->act, a->act, a->gate, a->up, rows * t->intermediate);
}

static float *block_forward(const rz_net *net, const rz_decoder_block *b, const rz_attn *at, const rz_decoder_acts *d,
                            float *h, block_acts *a)
{
    size_t rows = (size_t)at->q_seq.start[at->q_seq.n];
    block_inside(net, b, at, d, h, a);
    return rz_residual(net, a->mid, rz_linear_forward(net, &b->down, a->act, rows), rows * net->model->cfg.text.hidden);
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
    float *datt = rz_arena_f32(net->s, rows, at->q_ld), *dq = rz_arena_zeros(net->s, rows, at->q_ld);
    float *dk = rz_arena_zeros(net->s, rows, at->kv_ld), *dv = rz_arena_zeros(net->s, rows, at->kv_ld);
    float *dn = rz_arena_f32(net->s, rows, t->hidden);
    rz_linear_backward(net, &b->o, 0.0f, datt, dh, a->att, rows);
    rz_attention_bwd(net->s, at, dq, dk, dv, datt, a->att, a->lse, a->q, a->k, a->v);
    rope(net, d, dq, dk, true);
    rz_linear_backward(net, &b->q, 0.0f, dn, dq, a->n1, rows);
    rz_linear_backward(net, &b->k, 1.0f, dn, dk, a->n1, rows);
    rz_linear_backward(net, &b->v, 1.0f, dn, dv, a->n1, rows);
    rz_norm_backward(net, &b->in, dh, dn, a->h, a->stats1, rows);
}

static float *run_blocks(const rz_net *net, float *x, rz_ragged seq, size_t n_blocks, const rz_cache *cache,
                         rz_decoder_acts **acts)
{
    rz_decoder_acts *a = rz_arena_host(net->s, 1, sizeof *a);
    block_acts *blocks = rz_arena_host(net->s, n_blocks + 1, sizeof *blocks);
    if (!a || !blocks || rz_stream_failed(net->s)) return NULL;
    *a = (rz_decoder_acts){.n_blocks = n_blocks,
                           .seq = seq,
                           .positions = row_positions(net, seq, cache),
                           .row_keys = net->row_keys,
                           .freqs = row_frequencies(net, seq, cache),
                           .blocks = blocks,
                           .cache = cache};
    rz_attn at = decoder_attention(net, seq);
    for (size_t i = 0; i < n_blocks; i++) {
        rz_mark m = rz_arena_mark(net->s);
        const rz_decoder_block *b = &net->model->decoder[i];
        x = net->keep && net->recompute ? block_forward_light(net, b, &at, a, x, &blocks[i])
                                        : block_forward(net, b, &at, a, x, &blocks[i]);
        if (!net->keep) rz_arena_release(net->s, m);
        rz_net_poll(net);
    }
    if (acts) *acts = a;
    return x;
}

float *rz_decoder_forward(const rz_net *net, float *x, rz_ragged seq, size_t n_blocks, rz_decoder_acts **acts)
{
    return run_blocks(net, x, seq, n_blocks, NULL, acts);
}

float *rz_decoder_extend(const rz_net *net, float *x, rz_ragged seq, rz_cache *cache)
{
    rz_net pass = *net;
    pass.keep = false;
    bool fits = seq.n == cache->n;
    for (size_t i = 0; fits && i < seq.n; i++) fits = rows_in_all(seq, cache, i) <= cache->room;
    if (!fits) {
        rz_stream_fail(net->s, RADZ_E_INTERNAL, "the rows do not fit the cache: %zu sequences, at most %zu rows",
                       cache->n, cache->room);
        return NULL;
    }
    x = run_blocks(&pass, x, seq, cache->layers, cache, NULL);
    for (size_t i = 0; i < seq.n; i++) cache->len[i] = rows_in_all(seq, cache, i);
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
        if (!acts.n1) block_inside(net, b, &at, a, acts.h, &acts);
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
