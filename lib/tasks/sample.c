/* sample.c - which token comes next: greedy, temperature, top-p. SPDX-License-Identifier: Apache-2.0 */
#include "sample.h"

#include <stdlib.h>

static int most_likely_first(const void *pa, const void *pb)
{
    const rz_likely *a = pa, *b = pb;
    return a->p != b->p ? (a->p < b->p ? 1 : -1) : (a->id > b->id) - (a->id < b->id);
}

int32_t rz_sample(const float *logits, size_t n, double temperature, double top_p, rz_rng *rng, rz_likely *room)
{
    size_t best = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(logits[i])) return -1;
        if (logits[i] > logits[best]) best = i;
    }
    if (!n || !isfinite(logits[best])) return -1;
    if (temperature == 0) return (int32_t)best;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        room[i] = (rz_likely){exp(((double)logits[i] - (double)logits[best]) / temperature), (int32_t)i};
        sum += room[i].p;
    }
    if (top_p < 1) {
        double wanted = top_p * sum;
        qsort(room, n, sizeof *room, most_likely_first);
        sum = 0;
        for (size_t i = 0; i < n && sum < wanted; i++) {
            sum += room[i].p;
            if (sum >= wanted) n = i + 1;
        }
    }
    double at = rz_rng_uniform(rng) * sum;
    size_t i = 0;
    while (i + 1 < n && at >= room[i].p) at -= room[i++].p;
    return room[i].id;
}
