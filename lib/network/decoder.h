/* decoder.h - LLaMA / Mistral. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_DECODER_H
#define RZ_DECODER_H

#include "cache.h"
#include "layers.h"

typedef struct rz_decoder_acts rz_decoder_acts;

/* x (rows, hidden): input embeddings of the sequences in seq, one after another, positions from 0 in each. Result:
 * hidden_states[n_blocks] before the final norm. x may be overwritten. acts: set when net->keep, else may be NULL. */
float *rz_decoder_forward(const rz_net *net, float *x, rz_ragged seq, size_t n_blocks, rz_decoder_acts **acts);
/* A forward pass that leaves out what is known or not asked for. */
typedef struct rz_shortcut {
    const rz_cache *before; /* keys and values of the n_before rows that precede every sequence; NULL: none */
    size_t n_before;
    rz_cache *store; /* gets those of the first n_store rows of sequence 0, rows before included; NULL: nothing does */
    size_t n_store;
    const int32_t *last; /* of each sequence only so many rows at its end are wanted; NULL: all */
} rz_shortcut;
/* As rz_decoder_forward, the same bits in the rows that are wanted; in the others whatever an earlier block gave. Not
 * where RoPE depends on the length of the prompt (rz_rope_depends) and there are rows before. */
float *rz_decoder_shortcut(const rz_net *net, float *x, rz_ragged seq, size_t n_blocks, const rz_shortcut *cut);
/* All blocks, forward only: each sequence's rows follow those that the cache holds of it, and are added to it. */
float *rz_decoder_extend(const rz_net *net, float *x, rz_ragged seq, rz_cache *cache);
/* dh: in, the gradient of the result; out, of x. */
void rz_decoder_backward(const rz_net *net, const rz_decoder_acts *acts, float *dh);
/* What attention of one block worked on, after RoPE, of a pass with net->keep: q, k (rows, ld), lse (rows, heads). */
typedef struct rz_block_attention {
    rz_attn at;
    const float *q, *k, *lse;
} rz_block_attention;
rz_block_attention rz_decoder_attention(const rz_net *net, const rz_decoder_acts *acts, size_t block);
/* Logits (rows, vocab) of the output of all blocks: final norm, LM head. */
float *rz_decoder_logits(const rz_net *net, const float *h, size_t rows);

#endif
