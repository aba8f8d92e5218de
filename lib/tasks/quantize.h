/* quantize.h - a model directory with other weights, file by file in little memory. SPDX-License-Identifier: Apache-2.0
 */
#ifndef RZ_QUANTIZE_H
#define RZ_QUANTIZE_H

#include "model.h"

typedef struct rz_quantize {
    rz_precision precision;
    const char *vision_dir, *adapter_dir;    /* NULL: none */
    const char *const *films, *const *texts; /* that matrices of int4 are rounded for, see quantize_films.h */
    size_t n_films, n_texts;
    rz_tower_source tower;
    int (*progress_fn)(const radz_quantize_progress *progress, void *user); /* may be NULL */
    void *user;
} rz_quantize;

/* See radz_model_quantize. */
radz_status rz_quantize_model(const rz_host *host, rz_device *dev, const char *from, const char *to,
                              const rz_quantize *options, radz_error *err) RZ_CHECK;

#endif
