/* fill.h - the numbers of a model's parameters. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_FILL_H
#define RZ_FILL_H

#include "parameters.h"

/* Fills every parameter of the list, and m->inv_freq: on the device, mapped in place where it can be. dir: for errors.
 */
radz_status rz_model_fill(rz_model *m, const rz_param_notes *notes, const char *dir, rz_model_mode mode, uint64_t seed,
                          radz_error *err) RZ_CHECK;
/* The adapter changes the parameter; its numbers as floats from tensor t, the adapter's part added: rz_free, also after
 * a failure. */
bool rz_model_merges(const rz_model *model, const rz_param *p);
radz_status rz_model_read_float(const rz_model *model, const rz_param *p, const rz_st_tensor *t, float **out,
                                radz_error *err) RZ_CHECK;

#endif
