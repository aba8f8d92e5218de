/* sample.h - which token comes next. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_SAMPLE_H
#define RZ_SAMPLE_H

#include "base.h"

typedef struct rz_likely {
    double p;
    int32_t id;
} rz_likely;

/* temperature 0: the first of the most likely; else one drawn from softmax(logits / temperature), of the fewest most
 * likely whose shares add up to top_p. room: n places, not used with temperature 0. -1: no logit is finite, or one is
 * no number. */
int32_t rz_sample(const float *logits, size_t n, double temperature, double top_p, rz_rng *rng, rz_likely *room);

#endif
