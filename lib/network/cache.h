/* cache.h - keys and values of the rows that went through the decoder, so that the rows after them need not run them
 * again. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_CACHE_H
#define RZ_CACHE_H

#include "model.h"

typedef struct rz_cache {
    rz_device *dev;
    const rz_host *host;
    size_t n, room;    /* sequences; rows that each may have */
    size_t *len;       /* rows of each so far. To go back to its first rows, set it lower. */
    size_t layers, ld; /* floats of a row: kv_heads * head_dim */
    float *rows;       /* device: (layers, n, keys and values, room, ld) */
} rz_cache;

/* Room for n sequences of at most `room` rows. */
radz_status rz_cache_open(const rz_model *m, size_t n, size_t room, rz_cache **cache, radz_error *err) RZ_CHECK;
void rz_cache_close(rz_cache *cache); /* NULL is fine */
/* Row 0 of a sequence in a block, room rows, ld floats apart. */
float *rz_cache_keys(const rz_cache *c, size_t block, size_t sequence);
float *rz_cache_values(const rz_cache *c, size_t block, size_t sequence);
/* Sequence `to` becomes what `from` is. */
void rz_cache_copy(rz_stream *s, rz_cache *c, size_t to, size_t from);

#endif
