/* dicom.h - DICOM: a file's elements, its first frame, and from there to a film. Everything read is untrusted.
 * No message and no text that leaves this folder holds a value of a file, but for identifiers and code strings.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_DICOM_H
#define RZ_DICOM_H

#include "formats.h"

#define RZ_TAG(group, element) ((uint32_t)(group) << 16 | (element))
#define RZ_TAG_ITEM RZ_TAG(0xfffe, 0xe000)
#define RZ_TAG_PIXEL_DATA RZ_TAG(0x7fe0, 0x0010)

enum { RZ_DICOM_MAX_DEPTH = 64, RZ_DICOM_MAX_ELEMENTS = 200000, RZ_DICOM_MAX_INFLATED = 256 << 20 };

/* ---- Elements (dicom_parse.c) ----------------------------------------------------------- */

typedef struct rz_dicom_element {
    uint32_t tag;
    char vr[2];           /* zeros: implicit */
    uint8_t depth;        /* 0: the data set; an item lies one deeper than its sequence, its elements two */
    bool encapsulated;    /* pixel data as fragments: items behind this element */
    const uint8_t *value; /* into the file, or into what was inflated; any alignment */
    size_t length;        /* 0 for sequences, whose items follow */
} rz_dicom_element;

/* A data set up to and with its pixel data; points into the bytes it was read from, which outlive it. */
typedef struct rz_dicom {
    const rz_host *host;
    const char *what;   /* begins messages */
    char syntax[65];    /* transfer syntax, digits and dots; "": not said */
    bool implicit, big; /* how the data set is written */
    uint8_t *inflated;
    rz_dicom_element *elements;
    size_t n, cap;
} rz_dicom;

/* True when bytes begin as a DICOM file does: with a preamble, or without one. */
bool rz_dicom_is(const uint8_t *bytes, size_t n);
radz_status rz_dicom_parse(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_dicom *out,
                           radz_error *err) RZ_CHECK;
void rz_dicom_free(rz_dicom *d); /* safe on a zeroed one */

/* ---- Values (dicom_value.c) -------------------------------------------------------------- */

/* Of the data set itself; NULL: not there. */
const rz_dicom_element *rz_dicom_find(const rz_dicom *d, uint32_t tag);
/* Of the first item of a sequence of the data set; NULL: not there. */
const rz_dicom_element *rz_dicom_find_in(const rz_dicom *d, uint32_t sequence, uint32_t tag);
/* The i-th 16-bit value. */
unsigned rz_dicom_u16(const rz_dicom *d, const rz_dicom_element *e, size_t i);
/* The i-th of the values that '\' parts, without its padding; false: not there or longer than cap - 1. */
bool rz_dicom_text(const rz_dicom_element *e, size_t i, char *to, size_t cap);
/* The first value where it is a code string (A-Z, 0-9, space, '_'; small letters, which some makers write, become
 * capitals) or an identifier (0-9, '.'), else "". */
void rz_dicom_code(const rz_dicom *d, uint32_t tag, char to[17]);
void rz_dicom_uid(const rz_dicom *d, uint32_t tag, char to[65]);
/* One 16-bit number. An element that is empty or not there leaves *out untouched: fine unless it is required. */
radz_status rz_dicom_get_u16(const rz_dicom *d, uint32_t tag, const char *name, bool required, unsigned *out,
                             radz_error *err) RZ_CHECK;
/* The first decimal number of an element, in any locale; *found says whether it is there and not empty. */
radz_status rz_dicom_get_decimal(const rz_dicom *d, uint32_t tag, const char *name, double *out, bool *found,
                                 radz_error *err) RZ_CHECK;

/* ---- The film's header (dicom_header.c) ------------------------------------------------- */

typedef enum rz_photometric {
    RZ_MONOCHROME1,
    RZ_MONOCHROME2,
    RZ_PALETTE,
    RZ_RGB,
    RZ_YBR_FULL,
    RZ_YBR_FULL_422,
    RZ_YBR_TRANSFORMED, /* YBR_ICT, YBR_RCT: JPEG 2000 undoes it */
} rz_photometric;

typedef struct rz_dicom_header {
    size_t width, height, n_frames;
    unsigned channels, allocated, stored, high;
    bool is_signed, planar;
    rz_photometric photometric;
    unsigned notes; /* RZ_NOTE_... */
} rz_dicom_header;
radz_status rz_dicom_header_read(const rz_dicom *d, rz_dicom_header *h, radz_error *err) RZ_CHECK;

/* ---- The first frame (dicom_frame.c; decoders in dicom_rle.c, jpeg_own.c, dicom_codecs.c) ---- */

/* Words as stored, one per sample, interleaved, in film->data (16 bits). *is_rgb: the decoder made RGB of YBR. */
radz_status rz_dicom_frame(const rz_dicom *d, const rz_dicom_header *h, rz_pixels *film, bool *is_rgb,
                           radz_error *err) RZ_CHECK;

/* What a decoder fills. */
typedef struct rz_frame {
    const rz_host *host;
    const char *what;
    const rz_dicom_header *header;
    uint16_t *samples; /* (height, width, channels) */
    bool is_rgb;
} rz_frame;
radz_status rz_rle_decode(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err) RZ_CHECK;
/* JPEG lossless (process 14, any predictor) and sequential of 12 bits. */
radz_status rz_jpeg_own_decode(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err) RZ_CHECK;
bool rz_jpeg_is_own(const uint8_t *bytes, size_t n); /* what libjpeg does not read */
radz_status rz_jpeg_frame_decode(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err) RZ_CHECK;
radz_status rz_jpegls_decode(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err) RZ_CHECK;
radz_status rz_jpeg2000_decode(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err) RZ_CHECK;
/* RADZ_E_FORMAT, in the words of every decoder of frames. */
radz_status rz_frame_damaged(const rz_frame *f, const char *kind, const char *why, radz_error *err);

/* ---- From stored words to a film (dicom_tone.c, dicom_color.c), in place ------------------------- */

radz_status rz_dicom_tone(const rz_dicom *d, rz_dicom_header *h, rz_pixels *film, radz_error *err) RZ_CHECK;
radz_status rz_dicom_color(const rz_dicom *d, const rz_dicom_header *h, bool is_rgb, rz_pixels *film,
                           radz_error *err) RZ_CHECK;
/* A look-up table of the data set (palette) or of the first item of a sequence. */
typedef struct rz_dicom_lut {
    size_t n;
    int first;
    unsigned bits;
    const uint8_t *data;
    bool wide; /* 16 bits each */
    bool big;
} rz_dicom_lut;
radz_status rz_dicom_lut_read(const rz_dicom *d, const rz_dicom_element *descriptor, const rz_dicom_element *data,
                              bool is_signed, const char *name, rz_dicom_lut *lut, radz_error *err) RZ_CHECK;
unsigned rz_dicom_lut_at(const rz_dicom_lut *lut, double index); /* ends hold beyond the ends */

#endif
