/* image.c - what kind of picture bytes are, and the decoder for it. SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

/* A signature some bytes into a file. */
typedef struct magic {
    size_t offset, length;
    const char *bytes;
    const char *name;
} magic;

/* Order matters: a DICOM file may carry another format's signature in its 128-byte preamble. */
static const magic known[] = {
    {128, 4, "DICM", "dicom"},
    {0, 8, "\x89PNG\r\n\x1a\n", "png"},
    {0, 4, "\xff\xd8\xff\xf7", "JPEG-LS"},
    {0, 3, "\xff\xd8\xff", "jpeg"},
    {8, 4, "WEBP", "WEBP"},
    {0, 4, "II*\0", "TIFF"},
    {0, 4, "MM\0*", "TIFF"},
    {0, 4, "II+\0", "TIFF"},
    {0, 4, "MM\0+", "TIFF"},
    {0, 5, "GIF87", "GIF"},
    {0, 5, "GIF89", "GIF"},
    {0, 5, "%PDF-", "PDF"},
    {0, 8, "\0\0\0\x0cjP  ", "JPEG 2000"},
    {0, 4, "\xff\x4f\xff\x51", "JPEG 2000"},
    {0, 8, "\0\0\0\x0cJXL ", "JPEG XL"},
    {4, 7, "ftyphei", "HEIF"},
    {4, 7, "ftyphev", "HEIF"},
    {4, 8, "ftypmif1", "HEIF"},
    {4, 8, "ftypmsf1", "HEIF"},
    {4, 8, "ftypavif", "AVIF"},
};

static const char *kind_of(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < RZ_COUNT(known); i++) {
        const magic *m = &known[i];
        if (n >= m->offset + m->length && !memcmp(bytes + m->offset, m->bytes, m->length)) return m->name;
    }
    /* Two letters are little to go by, so the reserved zeros of the header count too. */
    if (n >= 26 && !memcmp(bytes, "BM", 2) && !memcmp(bytes + 6, "\0\0\0\0", 4)) return "BMP";
    return rz_dicom_is(bytes, n) ? "dicom" : NULL;
}

radz_status rz_pixels_decode(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_pixels *out,
                             radz_error *err)
{
    memset(out, 0, sizeof *out);
    if (n == 0) return rz_fail(err, RADZ_E_FORMAT, "%s: empty, expected a PNG, JPEG or DICOM picture", what);
    const char *kind = kind_of(bytes, n);
    if (!kind)
        return rz_fail(err, RADZ_E_FORMAT, "%s: not a picture of a known kind, expected PNG, JPEG or DICOM", what);
    if (!strcmp(kind, "png")) return rz_png_decode(host, bytes, n, what, out, err);
    if (!strcmp(kind, "jpeg")) return rz_jpeg_decode(host, bytes, n, what, out, err);
    if (!strcmp(kind, "dicom")) return rz_dicom_decode(host, bytes, n, what, out, err);
    return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: this is a %s file, expected PNG, JPEG or DICOM", what, kind);
}

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

void rz_pixels_free(const rz_host *host, rz_pixels *p)
{
    if (p->data) rz_free(host, p->data);
    memset(p, 0, sizeof *p);
}
