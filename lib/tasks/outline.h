/* outline.h - lines around what is hot in a map. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_OUTLINE_H
#define RZ_OUTLINE_H

#include "base.h"

/* Closed line: its first point comes again as its last. */
typedef struct rz_line {
    float *xy; /* n pairs */
    size_t n;
    double area; /* that it encloses, pixels */
} rz_line;

typedef struct rz_outline {
    const rz_host *host;
    rz_line *lines; /* the largest first */
    size_t n;
} rz_outline;

enum { RZ_OUTLINE_MAX_POINTS = 4000 }; /* of a line */

/* Where the map (height, width) crosses `level`, in pixels from the corner of the film; NaN counts as cold. At most
 * max_lines, the others, the smallest, are left out. */
radz_status rz_outline_trace(const rz_host *host, const float *map, size_t width, size_t height, double level,
                             size_t max_lines, rz_outline *out, radz_error *err) RZ_CHECK;
void rz_outline_free(rz_outline *o); /* safe on a zeroed one */

#endif
