/* next_token.c - logits of the next token. SPDX-License-Identifier: Apache-2.0 */
#include "next_token.h"

#include "decoder.h"

/* The last row of each sequence that has one, as a matrix; *at: which sequences those are. */
static float *last_rows(const rz_net *net, const float *h, rz_ragged seq, size_t *n_rows, int32_t **at)
{
    const size_t c = net->model->cfg.text.hidden;
    int32_t *rows = rz_arena_host(net->s, seq.n, sizeof *rows), *which = rz_arena_host(net->s, seq.n, sizeof *which);
    size_t n = 0;
    for (size_t i = 0; rows && which && i < seq.n; i++)
        if (seq.start[i + 1] > seq.start[i]) which[n] = (int32_t)i, rows[n++] = seq.start[i + 1] - 1;
    float *last = rz_arena_f32(net->s, n, c);
    *at = rz_arena_i32(net->s, which, n);
    rz_copy_rows(net->s, last, c, NULL, h, c, rz_arena_i32(net->s, rows, n), n, c);
    *n_rows = n;
    return last;
}

float *rz_next_logits(const rz_net *net, const rz_item *items, size_t n, rz_cache *cache, bool every_row)
{
    const size_t vocab = net->model->cfg.text.vocab;
    size_t n_rows = every_row ? 0 : n;
    for (size_t i = 0; every_row && i < n; i++) n_rows += items[i].prompt->n;
    float *out = rz_arena_zeros(net->s, n_rows, vocab);
    rz_mark m = rz_arena_mark(net->s);
    rz_ragged seq;
    float *x = rz_encode_inputs(net, items, n, &seq);
    float *h = x ? rz_decoder_extend(net, x, seq, cache) : NULL;
    if (!h || rz_stream_failed(net->s)) return out;
    if (every_row) {
        rz_copy(net->s, out, rz_decoder_logits(net, h, n_rows), n_rows * vocab * sizeof *out);
    } else {
        int32_t *at;
        float *last = last_rows(net, h, seq, &n_rows, &at);
        rz_copy_rows(net->s, out, vocab, at, rz_decoder_logits(net, last, n_rows), vocab, NULL, n_rows, vocab);
    }
    rz_arena_release(net->s, m);
    return out;
}
