/* dicom_frame.c - the first frame of a DICOM file, as stored: native, or fragments for the decoder of their transfer
 * syntax. SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

/* ---- Transfer syntaxes ----------------------------------------------------------------------- */

typedef radz_status (*decoder)(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err);

static radz_status decode_jpeg(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err)
{
    return rz_jpeg_is_own(bytes, n) ? rz_jpeg_own_decode(bytes, n, f, err) : rz_jpeg_frame_decode(bytes, n, f, err);
}

static const struct {
    const char *uid, *name;
    decoder decode; /* NULL: native */
} syntaxes[] = {
    {"1.2.840.10008.1.2", "implicit little endian", NULL},
    {"1.2.840.10008.1.2.1", "explicit little endian", NULL},
    {"1.2.840.10008.1.2.1.99", "deflated explicit little endian", NULL},
    {"1.2.840.10008.1.2.2", "explicit big endian", NULL},
    {"1.2.840.10008.1.2.5", "RLE", rz_rle_decode},
    {"1.2.840.10008.1.2.4.50", "JPEG baseline", decode_jpeg},
    {"1.2.840.10008.1.2.4.51", "JPEG extended", decode_jpeg},
    {"1.2.840.10008.1.2.4.57", "JPEG lossless", decode_jpeg},
    {"1.2.840.10008.1.2.4.70", "JPEG lossless", decode_jpeg},
#ifdef RZ_HAVE_CHARLS
    {"1.2.840.10008.1.2.4.80", "JPEG-LS lossless", rz_jpegls_decode},
    {"1.2.840.10008.1.2.4.81", "JPEG-LS near lossless", rz_jpegls_decode},
#endif
#ifdef RZ_HAVE_OPENJP2
    {"1.2.840.10008.1.2.4.90", "JPEG 2000 lossless", rz_jpeg2000_decode},
    {"1.2.840.10008.1.2.4.91", "JPEG 2000", rz_jpeg2000_decode},
#endif
};

/* Names of what is not read here, for people who must convert it. */
static const char *name_of(const char *uid)
{
    static const struct {
        const char *begin, *name;
    } known[] = {{"1.2.840.10008.1.2.4.8", "JPEG-LS"},  {"1.2.840.10008.1.2.4.9", "JPEG 2000"},
                 {"1.2.840.10008.1.2.4.10", "MPEG"},    {"1.2.840.10008.1.2.4.20", "High-Throughput JPEG 2000"},
                 {"1.2.840.10008.1.2.4.11", "JPEG XL"}, {"1.2.840.10008.1.2.4.5", "JPEG"},
                 {"1.2.840.10008.1.2.4.6", "JPEG"},     {"1.2.840.10008.1.2.8", "deflated frames"}};
    for (size_t i = 0; i < RZ_COUNT(known); i++)
        if (!strncmp(uid, known[i].begin, strlen(known[i].begin))) return known[i].name;
    return "not known here";
}

static radz_status find_decoder(const rz_dicom *d, decoder *out, radz_error *err)
{
    for (size_t i = 0; i < RZ_COUNT(syntaxes); i++) {
        *out = syntaxes[i].decode;
        if (!strcmp(d->syntax, syntaxes[i].uid)) return RADZ_OK;
    }
    const bool dcmtk =
        !strncmp(d->syntax, "1.2.840.10008.1.2.4.5", 21) || !strncmp(d->syntax, "1.2.840.10008.1.2.4.6", 21);
    return rz_fail(
        err, RADZ_E_UNSUPPORTED,
        "%s: dicom: transfer syntax %s (%s) is not read by this build; convert the file with: %s FILE NEW.dcm", d->what,
        d->syntax, name_of(d->syntax), dcmtk ? "dcmdjpeg" : "gdcmconv --raw");
}

/* ---- Native ------------------------------------------------------------------------------------ */

/* Y Y Cb Cr for two pixels. */
static void spread_422(const uint8_t *from, size_t n_pixels, uint16_t *to)
{
    for (size_t i = 0; i < n_pixels; i++) {
        const uint8_t *pair = from + i / 2 * 4;
        to[3 * i] = pair[i & 1];
        to[3 * i + 1] = pair[2];
        to[3 * i + 2] = pair[3];
    }
}

/* Sample i of the frame, in the order of the file. */
static unsigned word_at(const rz_dicom *d, const rz_dicom_element *e, unsigned allocated, size_t i)
{
    if (allocated == 16) return rz_dicom_u16(d, e, i);
    /* Words of two samples, swapped with the rest of a big-endian file. */
    const bool swapped = d->big && !memcmp(e->vr, "OW", 2) && (i ^ 1) < e->length;
    return e->value[swapped ? i ^ 1 : i];
}

static radz_status copy_native(const rz_dicom *d, const rz_dicom_header *h, const rz_dicom_element *e, rz_frame *f,
                               radz_error *err)
{
    const size_t n_pixels = h->width * h->height, n = n_pixels * h->channels;
    const bool halved = h->photometric == RZ_YBR_FULL_422;
    const size_t n_bytes = halved ? (n_pixels + 1) / 2 * 4 : n * (h->allocated / 8);
    if (halved && (h->allocated != 8 || h->width % 2))
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: dicom: YBR_FULL_422 of %u bits and %zu columns", d->what,
                       h->allocated, h->width);
    if (e->length < n_bytes)
        return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: truncated or corrupt: %zu of %zu bytes of pixel data", d->what,
                       e->length, n_bytes);
    if (halved)
        spread_422(e->value, n_pixels, f->samples);
    else if (!h->planar)
        for (size_t i = 0; i < n; i++) f->samples[i] = (uint16_t)word_at(d, e, h->allocated, i);
    else
        for (size_t i = 0; i < n; i++)
            f->samples[i % n_pixels * h->channels + i / n_pixels] = (uint16_t)word_at(d, e, h->allocated, i);
    return RADZ_OK;
}

/* ---- Fragments ------------------------------------------------------------------------------------ */

/* The fragments behind the element, the first of which is the offset table. */
static size_t count_fragments(const rz_dicom *d, const rz_dicom_element *e)
{
    size_t n = 0;
    for (const rz_dicom_element *f = e + 1; f < d->elements + d->n && f->depth == 1; f++) n++;
    return n;
}

static uint32_t offset_at(const rz_dicom_element *table, size_t i)
{
    const uint8_t *p = table->value + 4 * i;
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static bool begins_frame(const rz_dicom_element *f)
{
    return f->length > 3 && ((f->value[0] == 0xff && f->value[1] == 0xd8 && f->value[2] == 0xff) ||
                             (f->value[0] == 0xff && f->value[1] == 0x4f && f->value[2] == 0xff));
}

/* How many of the n fragments are the first frame: by the offset table, else by count, else by what they begin with. */
static size_t first_frame(const rz_dicom *d, const rz_dicom_header *h, const rz_dicom_element *table, size_t n)
{
    const rz_dicom_element *fragments = table + 1;
    if (h->n_frames == 1) return n;
    if (n == h->n_frames || !strcmp(d->syntax, "1.2.840.10008.1.2.5")) return 1;
    if (table->length >= 8) {
        const uint32_t next = offset_at(table, 1);
        for (size_t i = 1; i < n; i++)
            if ((size_t)(fragments[i].value - fragments[0].value) == next) return i;
    }
    size_t i = 1;
    while (i < n && !begins_frame(&fragments[i])) i++;
    return i;
}

static radz_status decode_fragments(const rz_dicom *d, const rz_dicom_header *h, const rz_dicom_element *e,
                                    decoder decode, rz_frame *f, radz_error *err)
{
    const size_t n_items = count_fragments(d, e);
    if (n_items < 2) return rz_frame_damaged(f, "pixel data", "no fragment", err);
    const size_t n = first_frame(d, h, e + 1, n_items - 1);
    if (n == 1) return decode(e[2].value, e[2].length, f, err);
    size_t n_bytes = 0, at = 0;
    for (size_t i = 0; i < n; i++) n_bytes += e[2 + i].length; /* all in one file: no overflow */
    uint8_t *joined = rz_malloc(d->host, n_bytes);
    if (!joined) return RZ_NO_MEMORY(err, "fragments of a DICOM file");
    for (size_t i = 0; i < n; at += e[2 + i].length, i++)
        if (e[2 + i].length) memcpy(joined + at, e[2 + i].value, e[2 + i].length);
    const radz_status status = decode(joined, n_bytes, f, err);
    rz_free(d->host, joined);
    return status;
}

/* ---- Either ------------------------------------------------------------------------------------------- */

/* A short file that claims a large film is refused before memory is asked for. What compresses far (RLE 64 to 1, the
 * JPEG kinds more where a film is blank) gets the benefit of the doubt up to four million pixels. */
static bool is_plausible(const rz_dicom *d, const rz_dicom_header *h, const rz_dicom_element *e, bool native)
{
    size_t n_bytes = e->length;
    const size_t n_samples = h->width * h->height * h->channels;
    for (const rz_dicom_element *f = e + 1; f < d->elements + d->n && f->depth == 1; f++) n_bytes += f->length;
    if (native) return n_bytes >= n_samples / 2;
    return n_samples <= 4u << 20 || n_samples / 2000 <= n_bytes;
}

radz_status rz_dicom_frame(const rz_dicom *d, const rz_dicom_header *h, rz_pixels *film, bool *is_rgb, radz_error *err)
{
    const rz_dicom_element *e = rz_dicom_find(d, RZ_TAG_PIXEL_DATA);
    decoder decode = NULL;
    *film = (rz_pixels){0};
    RZ_TRY(find_decoder(d, &decode, err));
    if (!e)
        return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: no pixel data (7fe0,0010): not a picture, or cut off", d->what);
    if (e->encapsulated != (decode != NULL))
        return rz_fail(err, RADZ_E_FORMAT,
                       "%s: dicom: truncated or corrupt: pixel data in another way than transfer "
                       "syntax %s says",
                       d->what, d->syntax);
    const bool within = h->width && h->height && h->width * h->height <= RZ_IMAGE_MAX_PIXELS;
    if (within && !is_plausible(d, h, e, !decode))
        return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: truncated or corrupt: pixel data too short for %zu x %zu pixels",
                       d->what, h->width, h->height);
    RZ_TRY(rz_pixels_alloc(d->host, h->width, h->height, (int)h->channels, 16, "dicom", d->what, film, err));
    rz_frame f = {.host = d->host, .what = d->what, .header = h, .samples = film->data};
    const radz_status status = decode ? decode_fragments(d, h, e, decode, &f, err) : copy_native(d, h, e, &f, err);
    *is_rgb = f.is_rgb;
    if (status != RADZ_OK) rz_pixels_free(d->host, film);
    return status;
}
