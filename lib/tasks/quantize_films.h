/* quantize_films.h - a model's matrices in four bits that suit films and texts: some are sent through the model, and
 * every matrix is rounded for the rows that reach it through those before it, as they have become.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_QUANTIZE_FILMS_H
#define RZ_QUANTIZE_FILMS_H

#include "embed.h"
#include "quantize.h"

/* What is sent: films, ready for the model, and texts, which are the caller's. */
typedef struct rz_fit_inputs {
    rz_film *films;
    const char *const *texts;
    size_t n_films, n_texts;
    char sha256[65]; /* over all of them */
} rz_fit_inputs;
radz_status rz_fit_open_inputs(const rz_host *host, const rz_model *m, const rz_quantize *options, rz_fit_inputs *out,
                               radz_error *err) RZ_CHECK;
void rz_fit_close_inputs(const rz_host *host, rz_fit_inputs *f); /* safe on a zeroed one */

typedef struct rz_fit rz_fit;
typedef struct rz_fit_work {
    const rz_model *list;  /* the model, of which no weight need be in memory */
    const rz_source *from; /* the same */
    const rz_precision *precision;
    const rz_fit_inputs *inputs;
    const char *path; /* of a file for what they become, which is gone from the folder when this returns */
    /* Told after every matrix how many bytes of weights it was made from; else than RADZ_OK stops. */
    radz_status (*done_fn)(void *user, uint64_t n_bytes, radz_error *err);
    void *user;
} rz_fit_work;
/* Bytes of the weights that done_fn will be told of, or somewhat more. */
uint64_t rz_fit_bytes(const rz_fit_work *work);
radz_status rz_fit_weights(const rz_host *host, rz_device *dev, const rz_fit_work *work, rz_fit **fit,
                           radz_error *err) RZ_CHECK;
/* What parameter p of the list has become: integers as rz_quantise_row makes them; data NULL: nothing has reached it.
 */
rz_mat rz_fit_matrix(const rz_fit *fit, const rz_param *p);
/* n bytes at `data` of a matrix need not stay in memory. */
void rz_fit_forget(const rz_fit *fit, const void *data, size_t n);
void rz_fit_close(rz_fit *fit); /* NULL is fine */

#endif
