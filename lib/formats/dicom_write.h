/* dicom_write.h - DICOM objects in memory: elements in, a part 10 file out. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_DICOM_WRITE_H
#define RZ_DICOM_WRITE_H

#include "dicom.h"

/* How texts of ours are written in a data set whose SpecificCharacterSet is another's. What it lacks becomes '?'. */
typedef enum rz_dicom_charset { RZ_CHARSET_ASCII, RZ_CHARSET_LATIN1, RZ_CHARSET_UTF8 } rz_dicom_charset;

enum { RZ_DICOM_OUT_ELEMENTS = 128, RZ_DICOM_OUT_DEPTH = 24 };

/* A data set under way. Elements of the data set itself may come in any order; those of an item in the order of their
 * tags. Failures are kept and said by rz_dicom_finish. */
typedef struct rz_dicom_out {
    rz_str bytes; /* elements as they came; its host is the writer's */
    rz_dicom_charset charset;
    struct rz_dicom_place {
        uint32_t tag;
        size_t at, n;
    } places[RZ_DICOM_OUT_ELEMENTS]; /* of the data set's own elements */
    size_t n_places;
    size_t open[RZ_DICOM_OUT_DEPTH]; /* where the lengths of open sequences and items are */
    size_t depth;
    bool beyond_ascii; /* a text of ours went in that is not ASCII */
    bool too_large;    /* an element with more bytes than it can have, or too many of them: a defect of ours */
} rz_dicom_out;

/* Padded to an even length: UI and OB with 0, else with a space. */
void rz_dicom_put(rz_dicom_out *o, uint32_t tag, const char *vr, const void *value, size_t n);
/* UTF-8 in the data set's characters; LO, SH and ST are cut to their length, '\' (which parts values) and control
 * characters become '/' and ' ' but in ST, LT and UT. NULL: no value. */
void rz_dicom_put_text(rz_dicom_out *o, uint32_t tag, const char *vr, const char *text);
void rz_dicom_put_u16(rz_dicom_out *o, uint32_t tag, unsigned v);
void rz_dicom_put_i32s(rz_dicom_out *o, uint32_t tag, const int32_t *v, size_t n); /* SL */
void rz_dicom_put_floats(rz_dicom_out *o, uint32_t tag, const float *v, size_t n); /* FL */
void rz_dicom_put_double(rz_dicom_out *o, uint32_t tag, double v);                 /* FD */
void rz_dicom_put_decimal(rz_dicom_out *o, uint32_t tag, double v);                /* DS, at most 16 characters */
void rz_dicom_put_integer(rz_dicom_out *o, uint32_t tag, long long v);             /* IS */
/* A sequence, or an item of the open sequence; each is closed by rz_dicom_end. */
void rz_dicom_begin(rz_dicom_out *o, uint32_t tag);
void rz_dicom_begin_item(rz_dicom_out *o);
void rz_dicom_end(rz_dicom_out *o);
/* An element of a source, as it lies there but for the byte order. */
void rz_dicom_put_copy(rz_dicom_out *o, const rz_dicom *source, uint32_t tag);

/* The whole file; `o` is freed whatever happens. */
radz_status rz_dicom_finish(rz_dicom_out *o, const char *class_uid, const char *instance_uid, rz_str *file,
                            radz_error *err) RZ_CHECK;

/* 2.25.N, N a UUID of kind 8 made of the text's sha256: the same text, the same UID. */
void rz_dicom_make_uid(const char *text, size_t n, char uid[65]);

/* ---- The film that an object belongs to (dicom_source.c) --------------------------------------------- */

/* What objects about a film need of its file: patient, study, reference, gray tables. Keeps a copy. Of what is missing
 * nothing is said here. */
radz_status rz_dicom_source_read(const rz_host *host, const uint8_t *bytes, size_t n, rz_dicom *out,
                                 radz_error *err) RZ_CHECK;
/* Value representation of an element that sources keep; NULL: they do not. */
const char *rz_dicom_source_vr(uint32_t tag);
/* Every element of patient and study that it has, but for the UID, and empty ones where a data set must have them. A
 * date, time, number or code that is none is left out. */
void rz_dicom_source_put(const rz_dicom *source, rz_dicom_out *o);
rz_dicom_charset rz_dicom_source_charset(const rz_dicom *source);

#endif
