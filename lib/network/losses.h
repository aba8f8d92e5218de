/* losses.h - Eq. 6 to 15 on unit vectors. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_LOSSES_H
#define RZ_LOSSES_H

#include "device.h"

/* Which vectors L_CA pairs: X_g with Y_l and X_l with Y_g (Eq. 7, 8); X_g with Y_g; X_l with Y_l. */
typedef enum rz_features { RZ_FEATURES_CROSS, RZ_FEATURES_GLOBAL, RZ_FEATURES_LOCAL } rz_features;

typedef struct rz_loss_input {
    size_t b, n_classes, dim;
    const float *xg, *xl, *yg, *yl; /* (b, dim): image global, local; text global, local. Device. */
    const float *d;                 /* (n_classes, dim): anchors */
    const float *targets;      /* (b, n_classes) device: soft targets of L_CG, rows sum to 1 (0: row has no class) */
    const float *keep;         /* (b, b) device: 0 = not a negative of each other; NULL: all. Diagonal is 1. */
    const float *keep_classes; /* (b, n_classes) device: 0 = class unknown for this film, left out of its softmax;
                                  NULL: all */
    double tau, lambda;
    rz_features features;
} rz_loss_input;
typedef struct rz_loss_grads {
    float *dxg, *dxl, *dyg, *dyl, *dd; /* as above, added into; device; all or none NULL */
    double dlog_tau;                   /* = dL / d log tau */
} rz_loss_grads;
typedef struct rz_loss_output {
    double loss, ca, cg;
} rz_loss_output;

/* L_CA = 1/2 [L(X_g,Y_l) + L(X_l,Y_g)], L(a,b) = 1/2 [CE(a b^T/tau) + CE(b a^T/tau)], mean over the batch;
 * with one kind of features L_CA is L(X_g,Y_g) or L(X_l,Y_l);
 * L_CG = 1/2 [CE(X_g D^T/tau) + CE(Y_g D^T/tau)], mean over the rows that have a class;
 * L = lambda L_CA + (1 - lambda) L_CG. grads may be NULL. Syncs the stream. */
radz_status rz_losses(rz_stream *s, const rz_loss_input *in, rz_loss_grads *grads, rz_loss_output *out,
                      radz_error *err) RZ_CHECK;

#endif
