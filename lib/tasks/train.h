/* train.h - training a LLaVA-RadZ from a manifest of films. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_TRAIN_H
#define RZ_TRAIN_H

#include "device.h"

typedef struct rz_trainer rz_trainer;

/* Reads everything that can be wrong before the first step: options, manifest, diseases, model, the output directory,
 * the checkpoint to go on from. Strings are copied; host and dev must outlive the trainer. */
radz_status rz_trainer_open(const rz_host *host, rz_device *dev, const radz_train_options *options, rz_trainer **out,
                            radz_error *err) RZ_CHECK;
radz_status rz_trainer_run(rz_trainer *t, radz_error *err) RZ_CHECK;
/* measure: one step forward and back, whose results are thrown away. */
radz_status rz_trainer_plan(rz_trainer *t, bool measure, radz_train_plan *plan, radz_error *err) RZ_CHECK;
void rz_trainer_close(rz_trainer *t); /* NULL is fine */

#endif
