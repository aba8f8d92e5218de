/* dicom_codecs.c - frames that other libraries decode: JPEG of 8 bits, JPEG-LS (charls), JPEG 2000 (openjp2), the last
 * two where the build found them. SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

#ifdef RZ_HAVE_CHARLS
#include <charls/charls.h>
#endif
#ifdef RZ_HAVE_OPENJP2
#include <openjpeg.h>
#endif

radz_status rz_frame_damaged(const rz_frame *f, const char *kind, const char *why, radz_error *err)
{
    return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: %s: truncated or corrupt: %s", f->what, kind, why);
}

/* ---- JPEG ------------------------------------------------------------------------------------ */

radz_status rz_jpeg_frame_decode(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err)
{
    const rz_dicom_header *h = f->header;
    const bool rgb = h->photometric == RZ_RGB;
    rz_pixels film;
    RZ_TRY(rz_jpeg_decode_stored(f->host, bytes, n, rgb, f->what, &film, err));
    const bool fits = film.width_px == h->width && film.height_px == h->height && film.channels == (int)h->channels;
    const uint8_t *from = film.data;
    for (size_t i = 0; fits && i < h->width * h->height * h->channels; i++) f->samples[i] = from[i];
    rz_pixels_free(f->host, &film);
    f->is_rgb = true;
    return fits ? RADZ_OK : rz_frame_damaged(f, "JPEG", "another shape than the header says", err);
}

/* ---- JPEG-LS ---------------------------------------------------------------------------------- */

#ifdef RZ_HAVE_CHARLS
typedef struct ls_shape {
    charls_frame_info frame;
    charls_interleave_mode interleave;
    size_t n_bytes;
} ls_shape;

/* True when every call succeeded and the shape is the header's. */
static bool ls_open(charls_jpegls_decoder *c, const uint8_t *bytes, size_t n, const rz_dicom_header *h, ls_shape *s)
{
    if (charls_jpegls_decoder_set_source_buffer(c, bytes, n) || charls_jpegls_decoder_read_header(c) ||
        charls_jpegls_decoder_get_frame_info(c, &s->frame) ||
        charls_jpegls_decoder_get_interleave_mode(c, &s->interleave))
        return false;
    if (s->frame.width != h->width || s->frame.height != h->height || s->frame.component_count != (int)h->channels ||
        s->frame.bits_per_sample < 2 || s->frame.bits_per_sample > (int)h->allocated)
        return false;
    const size_t sample = s->frame.bits_per_sample > 8 ? 2 : 1;
    return !charls_jpegls_decoder_get_destination_size(c, 0, &s->n_bytes) &&
           s->n_bytes == h->width * h->height * h->channels * sample;
}

static void ls_spread(const ls_shape *s, const uint8_t *from, const rz_dicom_header *h, uint16_t *to)
{
    const size_t n_pixels = h->width * h->height, n = n_pixels * h->channels;
    const bool planes = s->interleave == CHARLS_INTERLEAVE_MODE_NONE;
    for (size_t i = 0; i < n; i++) {
        uint16_t v = from[i];
        if (s->frame.bits_per_sample > 8) memcpy(&v, from + 2 * i, 2);
        to[planes ? i % n_pixels * h->channels + i / n_pixels : i] = v;
    }
}

radz_status rz_jpegls_decode(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err)
{
    ls_shape s;
    charls_jpegls_decoder *c = charls_jpegls_decoder_create();
    if (!c) return RZ_NO_MEMORY(err, "JPEG-LS");
    const bool opened = ls_open(c, bytes, n, f->header, &s);
    uint8_t *out = opened ? rz_malloc(f->host, s.n_bytes) : NULL;
    const bool decoded = out && !charls_jpegls_decoder_decode_to_buffer(c, out, s.n_bytes, 0);
    charls_jpegls_decoder_destroy(c);
    if (decoded) ls_spread(&s, out, f->header, f->samples);
    if (out) rz_free(f->host, out);
    if (opened && !out) return RZ_NO_MEMORY(err, "a JPEG-LS frame");
    return decoded ? RADZ_OK : rz_frame_damaged(f, "JPEG-LS", opened ? "coded data" : "header, or another shape", err);
}
#endif

/* ---- JPEG 2000 ---------------------------------------------------------------------------------- */

#ifdef RZ_HAVE_OPENJP2
typedef struct span {
    const uint8_t *bytes;
    size_t n, at;
} span;

static OPJ_SIZE_T j2k_read(void *to, OPJ_SIZE_T n, void *user)
{
    span *s = user;
    const size_t left = s->n - s->at;
    if (!left) return (OPJ_SIZE_T)-1;
    if (n > left) n = left;
    memcpy(to, s->bytes + s->at, n);
    s->at += n;
    return n;
}

static OPJ_OFF_T j2k_skip(OPJ_OFF_T n, void *user)
{
    span *s = user;
    if (n < 0) return -1;
    const size_t left = s->n - s->at, step = (uint64_t)n < left ? (size_t)n : left;
    s->at += step;
    return step ? (OPJ_OFF_T)step : -1;
}

static OPJ_BOOL j2k_seek(OPJ_OFF_T to, void *user)
{
    span *s = user;
    if (to < 0 || (uint64_t)to > s->n) return OPJ_FALSE;
    s->at = (size_t)to;
    return OPJ_TRUE;
}

static opj_stream_t *j2k_stream(span *s)
{
    opj_stream_t *stream = opj_stream_create(1 << 16, OPJ_TRUE);
    if (!stream) return NULL;
    opj_stream_set_read_function(stream, j2k_read);
    opj_stream_set_skip_function(stream, j2k_skip);
    opj_stream_set_seek_function(stream, j2k_seek);
    opj_stream_set_user_data(stream, s, NULL);
    opj_stream_set_user_data_length(stream, s->n);
    return stream;
}

static bool j2k_fits(const opj_image_t *image, const rz_dicom_header *h)
{
    if (image->numcomps != h->channels) return false;
    for (size_t c = 0; c < h->channels; c++) {
        const opj_image_comp_t *p = &image->comps[c];
        if (p->w != h->width || p->h != h->height || p->dx != 1 || p->dy != 1 || p->prec > h->allocated) return false;
    }
    return true;
}

static void j2k_spread(const opj_image_t *image, const rz_dicom_header *h, uint16_t *to)
{
    for (size_t c = 0; c < h->channels; c++)
        for (size_t i = 0; i < h->width * h->height; i++) to[i * h->channels + c] = (uint16_t)image->comps[c].data[i];
}

/* NULL: all done. */
static const char *j2k_decode(opj_codec_t *codec, opj_stream_t *stream, opj_image_t **image, rz_frame *f)
{
    opj_dparameters_t parameters;
    opj_set_default_decoder_parameters(&parameters);
    if (!opj_setup_decoder(codec, &parameters) || !opj_read_header(stream, codec, image)) return "header";
    if (!j2k_fits(*image, f->header)) return "another shape than the header says";
    if (!opj_decode(codec, stream, *image) || !opj_end_decompress(codec, stream)) return "coded data";
    for (size_t c = 0; c < f->header->channels; c++)
        if (!(*image)->comps[c].data) return "a component is missing";
    if (!j2k_fits(*image, f->header)) return "another shape than the header says";
    j2k_spread(*image, f->header, f->samples);
    return NULL;
}

radz_status rz_jpeg2000_decode(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err)
{
    span s = {bytes, n, 0};
    const bool boxed = n >= 12 && !memcmp(bytes, "\0\0\0\x0cjP  ", 8);
    opj_codec_t *codec = opj_create_decompress(boxed ? OPJ_CODEC_JP2 : OPJ_CODEC_J2K);
    opj_stream_t *stream = j2k_stream(&s);
    opj_image_t *image = NULL;
    const char *why = codec && stream ? j2k_decode(codec, stream, &image, f) : NULL;
    const bool no_memory = !codec || !stream;
    if (image) opj_image_destroy(image);
    if (stream) opj_stream_destroy(stream);
    if (codec) opj_destroy_codec(codec);
    f->is_rgb = f->header->photometric == RZ_YBR_TRANSFORMED;
    if (no_memory) return RZ_NO_MEMORY(err, "JPEG 2000");
    return why ? rz_frame_damaged(f, "JPEG 2000", why, err) : RADZ_OK;
}
#endif
