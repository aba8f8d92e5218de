/* initial.h - numbers of parameters that no file holds. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_INITIAL_H
#define RZ_INITIAL_H

#include "model.h"

/* How a parameter starts when a model is made from nothing. */
typedef enum rz_init_kind { RZ_INIT_ZERO, RZ_INIT_ONE, RZ_INIT_ROWS, RZ_INIT_LINEAR, RZ_INIT_RESIDUAL } rz_init_kind;

/* A whole model from nothing: out[p->n], host memory. */
void rz_initial_random(const rz_model *m, const rz_param *p, rz_init_kind kind, uint64_t seed, float *out);
/* New parts of a model that exists: special rows as other rows of the embedding table are (mean and spread by column,
 * which must be loaded), layers as PyTorch makes them, LoRA as peft does: A Kaiming-uniform, B zero. */
radz_status rz_initial_part(const rz_model *m, const rz_param *p, uint64_t seed, float *out, radz_error *err) RZ_CHECK;

#endif
