/* films.h - the films of a dataset, read when first wanted and kept while there is room.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_FILMS_H
#define RZ_FILMS_H

#include "augment.h"
#include "dataset.h"

typedef struct rz_films {
    const rz_host *host;
    const rz_dataset *ds;
    const rz_preprocess_config *cfg;
    size_t size; /* pixels of a side */
    rz_pool *pool;
    rz_thumb *thumbs; /* by row; data NULL: not in memory */
    uint8_t *bad;     /* by row: 1 cannot be used */
    size_t n, n_bad, n_bytes;
    size_t max_bytes; /* that rz_films_trim leaves */
    bool stop_on_bad; /* a row that cannot be used is an error with its line */
} rz_films;

radz_status rz_films_open(const rz_host *host, const rz_dataset *ds, const rz_model *model, rz_films *out,
                          radz_error *err) RZ_CHECK;
void rz_films_close(rz_films *f); /* safe on a zeroed one */
/* After it, every row of `rows` is in memory or marked bad. A film that cannot be read is logged with its line of
 * the manifest; only a failed allocation fails the call. */
radz_status rz_films_load(rz_films *f, const size_t *rows, size_t n, radz_error *err) RZ_CHECK;
/* Lets go of as many of these rows as it takes to be within max_bytes. */
void rz_films_trim(rz_films *f, const size_t *rows, size_t n);
/* Logs, or fails with stop_on_bad. A row that is marked already: nothing. */
radz_status rz_films_mark_bad(rz_films *f, size_t row, const char *why, radz_error *err) RZ_CHECK;
/* Reads what is missing; what cannot be read is left for rz_films_load to find. */
void rz_films_warm(rz_films *f, const size_t *rows, size_t n);

#endif
