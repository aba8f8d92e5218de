/* outputs.h - what goes into the archive beside a film. SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef RADZ_ORTHANC_OUTPUTS_H
#define RADZ_ORTHANC_OUTPUTS_H

#include "plugin.h"

typedef struct film_parts {
    const char *instance;
    const void *file; /* the film as DICOM */
    size_t n_file;
    const radz_image *image;
    const radz_result *result;
    json_t *patches; /* label -> side * side numbers */
} film_parts;

/* Report and heat maps as the configuration asks; outputs: an object that says where they are. Stored twice they
 * replace themselves: their UIDs follow from the film and the model. */
radz_status outputs_store(const film_parts *parts, json_t **outputs, radz_error *err);

#endif
