/* projector.h - tower rows to decoder rows. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_PROJECTOR_H
#define RZ_PROJECTOR_H

#include "layers.h"

typedef struct rz_projector_acts {
    size_t rows;
    float *x, *l1, *act;
} rz_projector_acts;

/* x (rows, n_feature_layers * vision.hidden) -> linear_2(act(linear_1(x))): (rows, text.hidden) */
float *rz_projector_forward(const rz_net *net, float *x, size_t rows, rz_projector_acts *acts);
/* Returns dx, of x's shape. */
float *rz_projector_backward(const rz_net *net, const rz_projector_acts *acts, const float *dy);

#endif
