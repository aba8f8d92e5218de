/* rope.h - rotation frequencies of rotary positions. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_ROPE_H
#define RZ_ROPE_H

#include "config.h"

/* freq[head_dim / 2] for a prompt of n_rows; only the dynamic kind asks how long it is. */
void rz_rope_frequencies(const rz_text_config *t, size_t n_rows, float *freq);
/* True when a prompt of n_rows has frequencies of its own. */
bool rz_rope_depends(const rz_text_config *t, size_t n_rows);

#endif
