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
    if (!strcmp(kind, "png"))
        RZ_TRY(rz_png_decode(host, bytes, n, what, out, err));
    else if (!strcmp(kind, "jpeg"))
        RZ_TRY(rz_jpeg_decode(host, bytes, n, what, out, err));
    else if (!strcmp(kind, "dicom"))
        RZ_TRY(rz_dicom_decode(host, bytes, n, what, out, err));
    else
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: this is a %s file, expected PNG, JPEG or DICOM", what, kind);
    out->notes |= rz_pixels_notes(out);
    return RADZ_OK;
}
