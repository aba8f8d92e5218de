/* dicom_fixture.h - DICOM films of 4 x 3 pixels, made byte by byte. SPDX-License-Identifier: Apache-2.0 */
#ifndef DICOM_FIXTURE_H
#define DICOM_FIXTURE_H

#include "dicom.h"

#define NAME "Doe^Jane" /* the patient of every film: no message, log or result may have it */
#define IMPLICIT "1.2.840.10008.1.2"
#define EXPLICIT "1.2.840.10008.1.2.1"
#define DEFLATED "1.2.840.10008.1.2.1.99"
#define BIG "1.2.840.10008.1.2.2"
#define RLE "1.2.840.10008.1.2.5"

typedef struct dicom_file {
    uint8_t bytes[16384];
    size_t n;
    bool implicit, big;
} dicom_file;

void dicom_put(dicom_file *f, const void *p, size_t n);
void dicom_put_number(dicom_file *f, uint32_t v, size_t n); /* in the file's byte order */
void dicom_element(dicom_file *f, uint32_t tag, const char *vr, const void *value, size_t n);
void dicom_text(dicom_file *f, uint32_t tag, const char *vr, const char *value);
void dicom_number(dicom_file *f, uint32_t tag, unsigned v); /* US */

/* What a test changes about a film of 4 x 3 pixels of 12 bits; NULL and 0: as it is, or not there. */
typedef struct dicom_film {
    const char *syntax, *photometric, *view, *intent, *burned, *modality, *part, *slope, *intercept, *center, *width,
        *function, *frames;
    unsigned stored, high, is_signed, rows;
    const uint16_t *words;
    size_t n_words;
    bool no_pixels, rle;
    bool identified; /* has patient, study, series and instance */
    const char *charset, *name, *study, *age, *zone;
    uint32_t without; /* an element that it lacks all the same */
    bool voi_table;   /* VOI LUT: 4096 entries, upside down */
    bool rgb;         /* 8 bits */
} dicom_film;

extern const uint16_t dicom_ramp[12]; /* the words of a film */
dicom_file dicom_make(dicom_film m);

#endif
