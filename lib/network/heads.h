/* heads.h - pooling, gamma and the unit sphere (Eq. 4, 5 and 11).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_HEADS_H
#define RZ_HEADS_H

#include "layers.h"

/* Which rows of h make which vector: vector g is the mean over rows[start[g]] .. rows[start[g+1]-1]. */
typedef struct rz_groups {
    size_t n, n_rows;
    const int32_t *rows, *start; /* device */
} rz_groups;

typedef struct rz_head_acts {
    const rz_head *head;
    rz_groups groups;
    float *x;                          /* gamma's input: pooled vectors or chosen rows */
    float *n, *stats, *l1, *act, *out; /* gamma */
    float *unit, *norm;
    int32_t *iota; /* mlp_then_mean: rows of `out` */
} rz_head_acts;

/* h (any rows, text.hidden) -> unit vectors (groups.n, dim). */
float *rz_head_forward(const rz_net *net, const rz_head *head, const float *h, rz_groups groups, rz_head_acts *acts);
/* dunit (groups.n, dim); dh is added into. */
void rz_head_backward(const rz_net *net, const rz_head_acts *acts, float *dh, const float *dunit);

#endif
