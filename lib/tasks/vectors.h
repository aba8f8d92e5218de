/* vectors.h - vectors with names to a file. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_VECTORS_H
#define RZ_VECTORS_H

#include "base.h"

/* (n, dim) to x.npy and, with names, x.names.json; or to x.safetensors: "embeddings", names in its metadata. */
radz_status rz_vectors_save(const rz_host *host, const char *path, const char *const *names, const float *vectors,
                            size_t n, size_t dim, radz_error *err) RZ_CHECK;

#endif
