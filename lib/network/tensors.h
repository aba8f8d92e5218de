/* tensors.h - which tensor of the files each parameter of a model takes. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_TENSORS_H
#define RZ_TENSORS_H

#include "model.h"

/* The adapter's own tensor, else the checkpoint's; NULL: neither has one. */
const rz_st_tensor *rz_tensor_of(const rz_model *m, const rz_param *p);
/* t, which rz_tensor_of gave, as integers with scales. */
radz_status rz_tensor_quantised(const rz_model *m, const rz_st_tensor *t, rz_quantised *out, radz_error *err) RZ_CHECK;
/* t as floats, whatever it holds. */
radz_status rz_tensor_to_f32(const rz_model *m, const rz_st_tensor *t, float *out, radz_error *err) RZ_CHECK;
/* There is one, and it has the parameter's shape. */
bool rz_tensor_fits(const rz_model *m, const rz_param *p);
/* Every parameter that is not optional or made anew has a tensor, and every tensor its parameter's shape. The error
 * names as many of the others as fit on its line, the log all of them. */
radz_status rz_tensors_check(const rz_model *m, const char *dir, const bool *optional, radz_error *err) RZ_CHECK;
/* Every tensor of the adapter has found its place, once every parameter has been filled; names those that have not. */
radz_status rz_tensors_of_adapter(const rz_model *m, radz_error *err) RZ_CHECK;
/* Fills m->unused, once every parameter has asked for its tensor, and logs it. */
radz_status rz_tensors_left_over(rz_model *m, const char *dir, radz_error *err) RZ_CHECK;

#endif
