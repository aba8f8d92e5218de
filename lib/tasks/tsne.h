/* tsne.h - vectors on a plane, near ones near. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_TSNE_H
#define RZ_TSNE_H

#include "base.h"

/* Exact t-SNE (van der Maaten and Hinton 2008) of n vectors (n, dim), row i at vectors + rows[i] * dim: perplexity 30
 * or a third of n, 500 steps, the same picture for the same seed. xy: (n, 2). */
radz_status rz_tsne(const rz_host *host, const float *vectors, size_t dim, const size_t *rows, size_t n, uint64_t seed,
                    double *xy, radz_error *err) RZ_CHECK;

#endif
