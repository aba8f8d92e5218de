/* heatmap.h - heat maps of films for the classes of a bank, on the film's own pixels, and how far to trust them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_TASKS_HEATMAP_H
#define RZ_TASKS_HEATMAP_H

#include "bank.h"
#include "embed.h"

/* RADZ_E_ARGUMENT where the options ask for something this model or bank does not have. patches (side, side), host
 * memory; filled with NaN on failure. */
radz_status rz_heatmap_patches(const rz_net *net, const rz_bank *bank, const rz_film *film, const char *label,
                               const radz_heatmap_options *options, float *patches, radz_error *err) RZ_CHECK;
/* The same for any direction (radz.dim) that a film's global vector is measured along; of the options, contrast is not
 * read. */
radz_status rz_heatmap_towards(const rz_net *net, const rz_film *film, const float *direction,
                               const radz_heatmap_options *options, float *patches, radz_error *err) RZ_CHECK;
/* From patches to pixels: map (height, width), NaN where a pixel is cropped away. */
radz_status rz_heatmap_expand(const rz_config *cfg, size_t width_px, size_t height_px, const float *patches, float *map,
                              radz_error *err) RZ_CHECK;
/* score and curves as in radz_heatmap_measure. */
radz_status rz_heatmap_measure(const rz_net *net, const rz_bank *bank, const rz_film *film, const char *label,
                               const float *patches, size_t n_steps, radz_heatmap_score *score, double *curves,
                               radz_error *err) RZ_CHECK;
radz_status rz_heatmap_pointing(const float *map, size_t width_px, size_t height_px, const radz_box *boxes,
                                size_t n_boxes, bool *hit, double *share, radz_error *err) RZ_CHECK;

/* The map in colours over the film, with its scale; pixels of the caller. banner: words above the film, "" for none. */
radz_status rz_heatmap_draw(const rz_host *host, const rz_pixels *film, const float *map,
                            const radz_heatmap_picture *picture, const char *banner, rz_pixels *out,
                            radz_error *err) RZ_CHECK;
/* The film alone, gray, 8 bits, as dark and bright as rz_heatmap_draw shows it; with a map (NULL: none) its colours
 * over it, RGB, from the map's least to its greatest number, which go to low and high (may be NULL without a map). */
radz_status rz_heatmap_thumb(const rz_host *host, const rz_pixels *film, const float *map, double *low, double *high,
                             rz_pixels *out, radz_error *err) RZ_CHECK;
/* The colours as a list for CSS, coldest first; static storage. */
const char *rz_heatmap_colors(void);

#endif
