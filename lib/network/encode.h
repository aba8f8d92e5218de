/* encode.h - the network in one call: films and texts in, unit vectors out, and back again.
 *
 *   pixels -> tower -> projector --\
 *   ids ----> embedding rows -------+-> decoder blocks -> pooled rows -> gamma -> unit vectors
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_ENCODE_H
#define RZ_ENCODE_H

#include "layers.h"
#include "prompt.h"

typedef enum rz_item_kind { RZ_ITEM_IMAGE, RZ_ITEM_TEXT, RZ_ITEM_DISEASE } rz_item_kind; /* picks gamma */

typedef struct rz_item {
    rz_item_kind kind;
    const float *pixels; /* RZ_ITEM_IMAGE: (3, image_size, image_size), host; else NULL */
    const rz_prompt *prompt;
} rz_item;

typedef struct rz_encoding rz_encoding; /* activations, in the arena */

/* global and local (n, K): unit vectors of the special rows and of all other rows; device memory in the
 * arena, either may be NULL when not wanted. The caller brackets the pass with rz_arena_mark / _release and asks
 * rz_stream_sync. acts: for the backward, may be NULL when !net->keep. Items of all kinds may be mixed; every
 * item's result is independent of the others. */
void rz_encode(const rz_net *net, const rz_item *items, size_t n, float **global, float **local, rz_encoding **acts);
/* dglobal, dlocal (n, K), either may be NULL. Adds into the grads of the model's parameters that have one. */
void rz_encode_backward(const rz_net *net, rz_encoding *acts, const float *dglobal, const float *dlocal);

#endif
