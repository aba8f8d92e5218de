/* augment.h - training films: kept small in memory, varied anew at every draw. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_AUGMENT_H
#define RZ_AUGMENT_H

#include "preprocess.h"

/* A film at the tower's size in 8-bit levels: what the preprocessing gave, before normalisation. */
typedef struct rz_thumb {
    size_t size;   /* pixels, square */
    size_t planes; /* 1: the three are equal; 3 */
    uint8_t *data; /* (planes, size, size); NULL: not loaded */
} rz_thumb;

/* Reads and preprocesses a film. Safe on several threads. */
radz_status rz_thumb_open(const rz_host *host, const rz_preprocess_config *cfg, size_t size, const char *path,
                          rz_thumb *out, radz_error *err) RZ_CHECK;
void rz_thumb_free(const rz_host *host, rz_thumb *thumb); /* safe on a zeroed one */
static inline size_t rz_thumb_bytes(const rz_thumb *t)
{
    return t->planes * t->size * t->size;
}

/* out (3, size, size): the tower's input, as it is. */
void rz_thumb_pixels(const rz_preprocess_config *cfg, const rz_thumb *thumb, float *out);
/* The same after a random rotation, scale, shift, contrast, brightness and gamma; strong: larger ones, and up to three
 * rectangles are covered. Never mirrored: the heart is on the left. rng decides everything. */
void rz_augment(const rz_preprocess_config *cfg, const rz_thumb *thumb, bool strong, rz_rng *rng, float *out);

#endif
