/* encode.h - the network in one call: films and texts in, unit vectors out, and back again.
 *
 *   pixels -> tower -> projector --\
 *   ids ----> embedding rows -------+-> decoder blocks -> pooled rows -> gamma -> unit vectors
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_ENCODE_H
#define RZ_ENCODE_H

#include "decoder.h"
#include "prompt.h"

typedef enum rz_item_kind { RZ_ITEM_IMAGE, RZ_ITEM_TEXT, RZ_ITEM_DISEASE } rz_item_kind; /* picks gamma */

typedef struct rz_item {
    rz_item_kind kind;
    const float *pixels; /* RZ_ITEM_IMAGE: (3, image_size, image_size), host; else NULL */
    const rz_prompt *prompt;
    uint64_t key; /* training: rows of items with one key and one place in it have one dropout mask */
    bool gray;    /* pixels: the first plane alone, for which the model has weights (gray.h); not to train with */
} rz_item;

/* Which rows of which layer become an item's vector. */
typedef enum rz_rows { RZ_ROWS_SPECIAL, RZ_ROWS_OTHER, RZ_ROWS_LAST, RZ_ROWS_ALL } rz_rows;
typedef struct rz_pick {
    rz_rows rows;
    size_t n_blocks;          /* decoder blocks that run; all of them: the final norm too */
    const char *image_prompt; /* of films, in place of the model's own; NULL: that. For who makes the items */
    bool raw;                 /* the mean row itself, text.hidden floats; else through gamma, radz.dim floats */
} rz_pick;

typedef struct rz_encoding rz_encoding; /* activations, in the arena */

/* global and local (n, K): unit vectors of the special rows and of all other rows; device memory in the
 * arena, either may be NULL when not wanted. The caller brackets the pass with rz_arena_mark / _release and asks
 * rz_stream_sync. acts: for the backward, may be NULL when !net->keep. Items of all kinds may be mixed; every
 * item's result is independent of the others. */
void rz_encode(const rz_net *net, const rz_item *items, size_t n, float **global, float **local, rz_encoding **acts);
/* One unit vector per item, (n, text.hidden or radz.dim), in the arena as above; forward only. With the model's own
 * layer, rows SPECIAL or OTHER and gamma these are the bits of `global` and `local`. */
float *rz_encode_pick(const rz_net *net, const rz_item *items, size_t n, const rz_pick *pick);
/* What the vectors are made of: every row of every item, one item after another, after n_blocks of the decoder and
 * before the final norm (rows, text.hidden), in the arena; NULL on failure. */
float *rz_encode_rows(const rz_net *net, const rz_item *items, size_t n, size_t n_blocks, rz_encoding **acts);
/* dh: the gradient of those rows; becomes the gradient of the decoder's input. */
void rz_encode_rows_backward(const rz_net *net, const rz_encoding *acts, float *dh);
/* Input rows of the decoder for all items, one after another, films through tower and projector: (seq->start[n],
 * text.hidden) in the arena; NULL on failure. Forward only. */
float *rz_encode_inputs(const rz_net *net, const rz_item *items, size_t n, rz_ragged *seq);
/* The same pass for somebody who looks into the decoder, whatever net->keep: its activations stay, the tower's do not.
 */
typedef struct rz_encode_view {
    const rz_decoder_acts *decoder;
    float *input; /* of the decoder (rows, text.hidden) */
} rz_encode_view;
float *rz_encode_look(const rz_net *net, const rz_item *items, size_t n, size_t n_blocks, rz_encode_view *view);
/* dglobal, dlocal (n, K), either may be NULL. Adds into the grads of the model's parameters that have one. */
void rz_encode_backward(const rz_net *net, rz_encoding *acts, const float *dglobal, const float *dlocal);

#endif
