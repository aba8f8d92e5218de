/* packed.h - weights of a small model once more, as the device's products take them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_PACKED_H
#define RZ_PACKED_H

#include "model.h"

/* Packs the matrices that a film's and a text's pass multiply by, where all of them together stay small; a large model
 * is left as it is, and so is one on a device of bfloat16. After every other change of the weights. */
radz_status rz_model_pack(rz_model *m, radz_error *err) RZ_CHECK;

#endif
