/* sampler.h - which training row comes next. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_SAMPLER_H
#define RZ_SAMPLER_H

#include "dataset.h"

/* A function of (seed, draw number) only, so a resumed run needs no state but the number. An epoch is as many
 * draws as there are training rows; each epoch's order is drawn afresh. Balanced: a (set, label set) of n rows
 * weighs sqrt(n) instead of n; set_weights ("nih=2,toy=0.5") multiplies the weights of the rows of a set, or of a
 * group of sets; a row appears floor or ceil of its expected number of times. */
typedef struct rz_sampler {
    const rz_host *host;
    size_t n;
    uint64_t seed;
    int64_t epoch;     /* of `order`; -1: none yet */
    uint32_t *order;   /* rows of the epoch */
    uint32_t *shuffle; /* scratch */
    double *weights;   /* of the rows; the mean is 1 */
} rz_sampler;

radz_status rz_sampler_init(const rz_host *host, const rz_dataset *ds, bool balance, const char *set_weights,
                            uint64_t seed, rz_sampler *out, radz_error *err) RZ_CHECK;
void rz_sampler_free(rz_sampler *s); /* safe on a zeroed one */
size_t rz_sampler_draw(rz_sampler *s, int64_t draw);

#endif
