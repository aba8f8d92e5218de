/* gray.h - patches of gray films: three channels of the same numbers need the sum of three channels' weights alone.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_GRAY_H
#define RZ_GRAY_H

#include "model.h"

/* Makes m->gray of weights that do not change, on the CPU; elsewhere it stays as it is, and so do films. */
radz_status rz_model_add_gray(rz_model *m, radz_error *err) RZ_CHECK;
void rz_model_free_gray(rz_model *m);
size_t rz_model_gray_bytes(const rz_model *m);
/* Planes of its pixels that this model has to see: one of a gray film. */
size_t rz_model_planes(const rz_model *m, const rz_pixels *film);
/* rz_preprocess_on for this model: out is (rz_model_planes, image_size, image_size). pool NULL: on this thread. */
radz_status rz_model_preprocess(const rz_model *m, rz_pool *pool, const rz_pixels *film, float *out,
                                radz_error *err) RZ_CHECK;

#endif
