/* reuse.h - what one pass leaves for the next: keys and values of the first rows of prompts. Of a film, so that another
 * prompt on it costs only its own words; and of the words that every prompt begins with.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_REUSE_H
#define RZ_REUSE_H

#include "cache.h"
#include "prompt.h"

typedef struct rz_reuse rz_reuse; /* belongs to one stream */

/* films: keep the rows of the last film that came alone. */
radz_status rz_reuse_open(const rz_model *m, bool films, rz_reuse **reuse, radz_error *err) RZ_CHECK;
void rz_reuse_close(rz_reuse *reuse); /* NULL is fine */
size_t rz_reuse_bytes(const rz_reuse *reuse);

/* One prompt of a pass. */
typedef struct rz_reuse_prompt {
    const rz_prompt *prompt;
    const float *pixels; /* of its film; NULL: none */
    size_t n_floats;
    size_t n_wanted; /* rows at its end that have to run */
} rz_reuse_prompt;

/* What a pass of n prompts through n_blocks may leave out, and what it should leave behind. */
typedef struct rz_reuse_plan {
    const rz_cache *before; /* NULL: nothing is known */
    size_t n_before;        /* rows that each prompt begins with and that need not run */
    rz_cache *store;        /* NULL: nothing is to be kept */
    size_t n_store;         /* first rows of prompt 0 */
} rz_reuse_plan;
rz_reuse_plan rz_reuse_begin(rz_reuse *r, const rz_reuse_prompt *prompts, size_t n, size_t n_blocks);
/* The pass has been queued; done: nothing failed, plan->store holds what it was asked to. */
void rz_reuse_end(rz_reuse *r, bool done);

#endif
