/* dicom_color.c - palettes, RGB and YBR of DICOM films, in place. SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

static double clamp(double v, double most)
{
    return v < 0 ? 0 : v > most ? most : v;
}

/* PS3.3 C.7.6.3.1.2, full range; `white` is the largest sample. */
static void ybr_to_rgb(uint16_t *p, double white)
{
    const double half = (white + 1) / 2, y = p[0], b = p[1] - half, r = p[2] - half;
    p[0] = (uint16_t)(clamp(y + 1.402 * r, white) + .5);
    p[1] = (uint16_t)(clamp(y - .344136 * b - .714136 * r, white) + .5);
    p[2] = (uint16_t)(clamp(y + 1.772 * b, white) + .5);
}

/* Samples of at most 8 bits become bytes where they are: writing never overtakes reading. */
static void narrow(rz_pixels *film, size_t n)
{
    const uint16_t *from = film->data;
    uint8_t *to = film->data;
    for (size_t i = 0; i < n; i++) to[i] = (uint8_t)from[i];
    film->bits = 8;
}

static radz_status true_color(const rz_dicom_header *h, bool is_rgb, rz_pixels *film)
{
    const size_t n = film->width_px * film->height_px * 3;
    const unsigned shift = h->high + 1 - h->stored, white = (1u << h->stored) - 1;
    const bool ybr = !is_rgb && (h->photometric == RZ_YBR_FULL || h->photometric == RZ_YBR_FULL_422);
    uint16_t *p = film->data;
    for (size_t i = 0; i < n; i++) p[i] = (uint16_t)(p[i] >> shift & white);
    for (size_t i = 0; ybr && i < n; i += 3) ybr_to_rgb(p + i, white);
    const unsigned full = h->allocated == 8 ? 255 : 65535;
    for (size_t i = 0; white != full && i < n; i++) p[i] = (uint16_t)((p[i] * (uint64_t)full + white / 2) / white);
    if (h->allocated == 8) narrow(film, n);
    return RADZ_OK;
}

static radz_status read_palette(const rz_dicom *d, rz_dicom_lut luts[3], radz_error *err)
{
    static const char *const names[] = {"red palette", "green palette", "blue palette"};
    for (uint16_t c = 0; c < 3; c++) {
        if (rz_dicom_find(d, RZ_TAG(0x0028, 0x1221u + c)) && !rz_dicom_find(d, RZ_TAG(0x0028, 0x1201u + c)))
            return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: dicom: %s: segmented, expected a plain table", d->what,
                           names[c]);
        RZ_TRY(rz_dicom_lut_read(d, rz_dicom_find(d, RZ_TAG(0x0028, 0x1101u + c)),
                                 rz_dicom_find(d, RZ_TAG(0x0028, 0x1201u + c)), false, names[c], &luts[c], err));
    }
    return RADZ_OK;
}

static radz_status palette(const rz_dicom *d, const rz_dicom_header *h, rz_pixels *film, radz_error *err)
{
    rz_dicom_lut luts[3];
    rz_pixels rgb;
    RZ_TRY(read_palette(d, luts, err));
    RZ_TRY(rz_pixels_alloc(d->host, film->width_px, film->height_px, 3, 8, "dicom", d->what, &rgb, err));
    const unsigned shift = h->high + 1 - h->stored, mask = (1u << h->stored) - 1;
    const uint16_t *from = film->data;
    uint8_t *to = rgb.data;
    for (size_t i = 0; i < film->width_px * film->height_px; i++)
        for (size_t c = 0; c < 3; c++)
            to[3 * i + c] = (uint8_t)(rz_dicom_lut_at(&luts[c], from[i] >> shift & mask) >> (luts[c].bits - 8));
    rz_pixels_free(d->host, film);
    *film = rgb;
    return RADZ_OK;
}

radz_status rz_dicom_color(const rz_dicom *d, const rz_dicom_header *h, bool is_rgb, rz_pixels *film, radz_error *err)
{
    return h->photometric == RZ_PALETTE ? palette(d, h, film, err) : true_color(h, is_rgb, film);
}
