/* exif.h - how a picture is to be turned. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_EXIF_H
#define RZ_EXIF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Orientation of a TIFF block, 1..8; 1 (upright) when it is not there or makes no sense. */
int rz_exif_orientation(const uint8_t *tiff, size_t n);

/* Where sample (x, y) of the stored picture goes: first + x * dx + y * dy, in pixels of the upright one. */
typedef struct rz_placement {
    bool swap; /* width and height change places */
    ptrdiff_t first, dx, dy;
} rz_placement;
rz_placement rz_exif_place(int orientation, size_t width, size_t height);

#endif
