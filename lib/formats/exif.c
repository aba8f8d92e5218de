/* exif.c - the orientation in an EXIF block. SPDX-License-Identifier: Apache-2.0 */
#include "exif.h"

#include <string.h>

static unsigned read_u16(const uint8_t *p, bool big)
{
    return big ? (unsigned)p[0] << 8 | p[1] : (unsigned)p[1] << 8 | p[0];
}

static uint32_t read_u32(const uint8_t *p, bool big)
{
    return big ? read_u16(p, big) << 16 | read_u16(p + 2, big) : read_u16(p + 2, big) << 16 | read_u16(p, big);
}

/* Tag 0x0112 of the first directory. */
int rz_exif_orientation(const uint8_t *tiff, size_t n)
{
    if (n < 8 || (memcmp(tiff, "II*\0", 4) && memcmp(tiff, "MM\0*", 4))) return 1;
    const bool big = tiff[0] == 'M';
    const size_t at = read_u32(tiff + 4, big);
    if (at > n - 2) return 1;
    const size_t n_entries = read_u16(tiff + at, big);
    for (size_t i = 0; i < n_entries && n - at - 2 >= 12 * (i + 1); i++) {
        const uint8_t *entry = tiff + at + 2 + 12 * i;
        if (read_u16(entry, big) != 0x0112 || read_u32(entry + 4, big) != 1) continue;
        const unsigned type = read_u16(entry + 2, big);
        const uint32_t value = type == 3 ? read_u16(entry + 8, big) : type == 4 ? read_u32(entry + 8, big) : 1;
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

rz_placement rz_exif_place(int orientation, size_t width, size_t height)
{
    const ptrdiff_t w = (ptrdiff_t)width, h = (ptrdiff_t)height;
    switch (orientation) {
    case 2:
        return (rz_placement){false, w - 1, -1, w};
    case 3:
        return (rz_placement){false, w * h - 1, -1, -w};
    case 4:
        return (rz_placement){false, w * (h - 1), 1, -w};
    case 5:
        return (rz_placement){true, 0, h, 1};
    case 6:
        return (rz_placement){true, h - 1, h, -1};
    case 7:
        return (rz_placement){true, w * h - 1, -h, -1};
    case 8:
        return (rz_placement){true, h * (w - 1), -h, 1};
    default:
        return (rz_placement){false, 0, 1, w};
    }
}
