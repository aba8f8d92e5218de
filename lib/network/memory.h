/* memory.h - what a pass will take, before it runs. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_MEMORY_H
#define RZ_MEMORY_H

#include "model.h"

/* A gray film's pass looks at the whole parameter: not at the table and the head, nor the blocks after those that a
 * vector depends on, nor what texts or films of colour alone go through. */
bool rz_net_reads(const rz_model *m, const rz_param *p);
/* Memory of a pass of one film, about: what the network's layers ask of the arena, which holds up to twice as much. */
uint64_t rz_net_film_bytes(const rz_model *m);
/* The same of a training step there and back: n_films, and n_rows of all prompts that go through the decoder at once.
 */
uint64_t rz_net_step_bytes(const rz_model *m, size_t n_films, size_t n_rows, bool recompute);

#endif
