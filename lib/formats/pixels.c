/* pixels.c - memory for decoded films. SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"

radz_status rz_pixels_alloc(const rz_host *host, size_t width_px, size_t height_px, int channels, int bits,
                            const char *format, const char *what, rz_pixels *out, radz_error *err)
{
    memset(out, 0, sizeof *out);
    if (width_px == 0 || height_px == 0)
        return rz_fail(err, RADZ_E_FORMAT, "%s: a picture of %zu x %zu pixels has no content", what, width_px,
                       height_px);
    if (width_px > RZ_IMAGE_MAX_SIDE || height_px > RZ_IMAGE_MAX_SIDE || width_px * height_px > RZ_IMAGE_MAX_PIXELS)
        return rz_fail(err, RADZ_E_LIMIT, "%s: %zu x %zu pixels are over the limit of %u a side and %u in all", what,
                       width_px, height_px, RZ_IMAGE_MAX_SIDE, RZ_IMAGE_MAX_PIXELS);
    /* At most 1e8 * 3 * 2 bytes: this fits everywhere. */
    out->data = rz_malloc(host, width_px * height_px * (size_t)channels * (size_t)(bits / 8));
    if (!out->data) return RZ_NO_MEMORY(err, "the pixels of a film");
    out->width_px = width_px;
    out->height_px = height_px;
    out->channels = channels;
    out->bits = bits;
    out->format = format;
    return RADZ_OK;
}

unsigned rz_pixels_notes(const rz_pixels *p)
{
    const size_t n_samples = p->width_px * p->height_px * (size_t)p->channels;
    const size_t one = (size_t)p->channels * (size_t)(p->bits / 8), all = one * p->width_px * p->height_px;
    const uint8_t *bytes = p->data;
    unsigned notes = !memcmp(bytes, bytes + one, all - one) ? RZ_NOTE_BLANK : 0; /* each pixel is like the next */
    const uint16_t *wide = p->bits == 16 ? p->data : NULL;
    size_t i = 0;
    while (wide && i < n_samples && wide[i] < 4096) i++;
    if (wide && i == n_samples && !notes) notes |= RZ_NOTE_DARK;
    return notes;
}

void rz_pixels_free(const rz_host *host, rz_pixels *p)
{
    if (p->data) rz_free(host, p->data);
    memset(p, 0, sizeof *p);
}
