/* embed.h - films and texts to unit vectors in host memory, any number of them, in bounded memory.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_EMBED_H
#define RZ_EMBED_H

#include "encode.h"

/* What a glance at a film tells. */
typedef struct rz_film_look {
    double spread;    /* mean of max(R,G,B) - min(R,G,B), 0..1 */
    double low, high; /* darkest and brightest sample, 0..1 */
} rz_film_look;

/* A film as it came in. */
typedef struct rz_film {
    rz_pixels pixels;        /* data NULL: prepared */
    float *input;            /* as the tower of the model it was prepared for takes it; NULL: not prepared */
    bool gray;               /* the first plane of `input` alone is there */
    rz_film_look look;       /* of a prepared one */
    char sha256[65];         /* of the file's bytes, or of the pixels given */
    char *path;              /* NULL: from memory */
    struct rz_dicom *source; /* patient, study and reference of a DICOM file; NULL: another kind of film */
} rz_film;

#define RZ_FILM_MAX_BYTES ((size_t)512 << 20) /* largest file that is read */

radz_status rz_film_open(const rz_host *host, const char *path, rz_film *out, radz_error *err) RZ_CHECK;
radz_status rz_film_decode(const rz_host *host, const void *bytes, size_t n, const char *what, rz_film *out,
                           radz_error *err) RZ_CHECK;
/* Rows of `width * channels * bits / 8` bytes, stride apart, are copied. */
radz_status rz_film_from_pixels(const rz_host *host, const void *pixels, radz_pixel_format format, size_t width_px,
                                size_t height_px, size_t stride_bytes, rz_film *out, radz_error *err) RZ_CHECK;
/* Pixels as the tower takes them (gray: as rz_item's); *pixels, from rz_malloc, is the caller's whatever happens. */
radz_status rz_film_input(const rz_model *m, const rz_film *film, float **pixels, bool *gray, radz_error *err) RZ_CHECK;
void rz_film_free(const rz_host *host, rz_film *film);
rz_film_look rz_film_look_at(const rz_film *film);
/* Preprocesses for this model and lets the pixels go: what is left is enough for rz_embed_films and rz_classify. */
radz_status rz_film_prepare(const rz_model *m, rz_film *film, radz_error *err) RZ_CHECK;

/* What the options ask of this model; NULL: the defaults. */
radz_status rz_embed_pick(const rz_config *cfg, const radz_embed_options *options, rz_pick *pick,
                          radz_error *err) RZ_CHECK;
/* X_g or D with the model's own layer: what everything is scored with. */
rz_pick rz_embed_own(const rz_config *cfg);
size_t rz_embed_dim(const rz_config *cfg, const rz_pick *pick); /* floats per vector */

/* out (n, rz_embed_dim), host memory; filled with NaN on failure. A vector is the same bits alone or in a batch, and
 * every number in it is finite. net->keep is ignored. */
radz_status rz_embed_films(const rz_net *net, const rz_film *const *films, size_t n, const rz_pick *pick, float *out,
                           radz_error *err) RZ_CHECK;
/* kind: RZ_ITEM_TEXT (gamma_txt) or RZ_ITEM_DISEASE (gamma_dis). */
radz_status rz_embed_texts(const rz_net *net, rz_item_kind kind, const char *const *texts, size_t n,
                           const rz_pick *pick, float *out, radz_error *err) RZ_CHECK;

#endif
