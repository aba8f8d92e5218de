/* tower_shape.h - a vision tower's sizes from its tensors. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_TOWER_SHAPE_H
#define RZ_TOWER_SHAPE_H

#include "config.h"

/* Fills *v from the tower in the weight files of dir, heads as CLIP's: 64 columns each; the rest is CLIP's too. Leaves
 * it as it is where dir has no weights or they no tower. */
radz_status rz_tower_shape(const rz_host *host, const char *dir, rz_vision_config *v, radz_error *err) RZ_CHECK;

#endif
