/* classes.h - a linear head over X_g for classes by name: sigmoid per class, several may be true at once.
 *
 * radz.json: "classes": [names]; radz.safetensors: classifier.weight (classes, dim) and classifier.bias.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_CLASSES_H
#define RZ_CLASSES_H

#include "layers.h"

/* radz.json's list, if it has one. */
radz_status rz_classes_read(const json_t *radz, rz_config *cfg, radz_error *err) RZ_CHECK;
/* The same classes in the same order keep their weights; others start anew, at zero. */
radz_status rz_classes_choose(rz_config *cfg, const rz_name_list *wanted, radz_error *err) RZ_CHECK;
void rz_classes_free(rz_config *cfg);

/* x (n, radz.dim) -> logits (n, classes), in the arena. */
float *rz_classes_forward(const rz_net *net, const float *x, size_t n);

typedef struct rz_classes_input {
    const float *x; /* (n, radz.dim), device */
    size_t n;
    const float *truth, *keep; /* (n, classes), host: 1 = has the class; 0 in keep = not known, left out */
    bool train_head;           /* the head's own gradients are added where it has some */
} rz_classes_input;

/* Sigmoid cross-entropy, mean over all that is known (0 where nothing is). dx (n, radz.dim) is added into; NULL:
 * forward only. Syncs the stream. */
radz_status rz_classes_loss(const rz_net *net, const rz_classes_input *in, float *dx, double *loss,
                            radz_error *err) RZ_CHECK;

#endif
