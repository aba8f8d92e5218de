/* outputs.h - what goes into the archive beside a film. SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef RADZ_ORTHANC_OUTPUTS_H
#define RADZ_ORTHANC_OUTPUTS_H

#include "plugin.h"

typedef struct film_parts {
    const char *instance;
    const radz_image *image;
    const radz_result *result;
    const char *const *found; /* findings with a heat map, best first */
    size_t n_found;
    json_t *patches; /* of their maps: label -> side * side numbers */
} film_parts;

/* Report and heat maps as the configuration asks. An object that says where in the archive they are: "SR", "SC" and
 * "GSPS", each a list of {"instance", "series", "sop", "label"}; with err->code set what was stored before it failed.
 * Made again they replace themselves: their UIDs follow from the film, the model and the configuration. */
json_t *outputs_store(const film_parts *parts, radz_error *err);

/* Patches of a map as the result keeps them; 0: there is none. */
int outputs_read_patches(json_t *patches, const char *label, float *values, size_t n);

#endif
