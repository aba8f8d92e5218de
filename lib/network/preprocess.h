/* preprocess.h - a decoded film to the tower's input, as CLIPImageProcessor does it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_PREPROCESS_H
#define RZ_PREPROCESS_H

#include "config.h"
#include "pool.h"

/* out: (channels = 3, image_size, image_size) floats, host memory. Pad to square with int(255 * mean), shortest edge
 * bicubic (a = -0.5, support scaled with the ratio, both passes rounded to the sample depth, as PIL), centre crop,
 * rescale, normalise. Result within one grey level of PIL before normalisation; 16-bit samples keep their depth
 * through the resize. */
radz_status rz_preprocess(const rz_host *host, const rz_preprocess_config *cfg, size_t image_size,
                          const rz_pixels *film, float *out, radz_error *err) RZ_CHECK;
/* The same with a pool's threads; the same bits for any number of them. NULL: on this thread. n_planes: 3, or 1: the
 * first alone. */
radz_status rz_preprocess_on(rz_pool *pool, const rz_host *host, const rz_preprocess_config *cfg, size_t image_size,
                             const rz_pixels *film, size_t n_planes, float *out, radz_error *err) RZ_CHECK;
/* True where the three planes are the same numbers before they are normalised. */
bool rz_preprocess_is_gray(const rz_preprocess_config *cfg, const rz_pixels *film);

/* Where rz_preprocess puts a film of that size: pixel (x, y) of the film, counted from pixel corners, lies at
 * (x_scale * x + x_shift, y_scale * y + y_shift) of the tower's image_size x image_size; outside of it: cropped away.
 */
typedef struct rz_placement {
    double x_scale, x_shift, y_scale, y_shift;
} rz_placement;
radz_status rz_preprocess_place(const rz_preprocess_config *cfg, size_t image_size, size_t width_px, size_t height_px,
                                rz_placement *out, radz_error *err) RZ_CHECK;

/* The resize alone: PIL's Image.resize((dst_w, dst_h), BICUBIC); new pixels in *out. */
radz_status rz_resize_bicubic(const rz_host *host, const rz_pixels *src, size_t dst_w, size_t dst_h, rz_pixels *out,
                              radz_error *err) RZ_CHECK;

#endif
