/* tower.h - CLIP's vision transformer. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_TOWER_H
#define RZ_TOWER_H

#include "layers.h"

typedef struct rz_tower_acts rz_tower_acts;

/* pixels (n, channels, image_size, image_size), device, of net->gray_films one channel -> hidden_states[n_blocks]: (n *
 * rows, hidden) with rows = patches + 1, the class row first; [0] is after pre_layrnorm. acts: set when net->keep, may
 * be NULL else. */
float *rz_tower_forward(const rz_net *net, const float *pixels, size_t n, size_t n_blocks, rz_tower_acts **acts);
/* What the projector reads: the rows of every layer of cfg.feature_layers side by side, without the class row unless
 * the config keeps it: (n * image_rows, n_feature_layers * hidden). */
float *rz_tower_features(const rz_net *net, const float *pixels, size_t n, rz_tower_acts **acts);
/* dfeatures: gradient of rz_tower_features' result. */
void rz_tower_backward(const rz_net *net, const rz_tower_acts *acts, const float *dfeatures);
size_t rz_tower_rows(const rz_config *cfg); /* rows of one image, class row included */

#endif
