/* dicom_report.h - a result as DICOM objects: structured report, heat map, presentation state.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_DICOM_REPORT_H
#define RZ_DICOM_REPORT_H

#include "dicom_write.h"
#include "heatmap.h"
#include "result.h"

/* ---- Codes of classes (dicom_codes.c) ---------------------------------------------------- */

typedef struct rz_code {
    const char *value, *scheme, *meaning;
} rz_code;

/* A class with its code; texts live as long as the table. */
typedef struct rz_code_entry {
    const char *label;
    rz_code code;
    double threshold; /* NaN: none */
} rz_code_entry;

typedef struct rz_codes {
    json_t *file; /* NULL: none */
} rz_codes;

radz_status rz_codes_open(const rz_host *host, const char *path, rz_codes *codes, radz_error *err) RZ_CHECK;
void rz_codes_close(rz_codes *codes); /* safe on a zeroed one */
/* The file's entry, else that of the table that ships, in any case; false: neither. */
bool rz_codes_find(const rz_codes *codes, const char *label, rz_code_entry *entry);
/* The table that ships, in the order of models/labels.json; NULL past the last. */
const rz_code_entry *rz_codes_built_in(size_t i);

/* ---- Objects ----------------------------------------------------------------------------- */

typedef enum rz_object_kind { RZ_OBJECT_SR, RZ_OBJECT_SC, RZ_OBJECT_GSPS } rz_object_kind;

/* A DICOM object, whole. */
typedef struct rz_object {
    rz_str file;
    const char *class_uid; /* static */
    char series_uid[65], instance_uid[65];
} rz_object;
void rz_object_free(rz_object *o); /* safe on a zeroed one */

/* What an object is about. label and map (height, width) are those of a heat map; NULL for a report. */
typedef struct rz_object_ask {
    const rz_host *host;
    const rz_film *film; /* with its source */
    const rz_result *result;
    const char *label;
    const float *map;
    const radz_dicom_options *options;
} rz_object_ask;
radz_status rz_object_build(const rz_object_ask *ask, rz_object_kind kind, rz_object *out, radz_error *err) RZ_CHECK;

/* ---- Inside ------------------------------------------------------------------------------------ */

/* An object under way. */
typedef struct rz_object_work {
    const rz_object_ask *ask;
    const rz_dicom *source;
    rz_codes codes;
    rz_dicom_out out;
    rz_object *object;
    char date[9], time[7];
    char class_uid[65], instance_uid[65], series_uid[65], study_uid[65]; /* of the film */
    size_t shown; /* of the result's classes, the map's; their number where there is none */
} rz_object_work;

/* Code sequence with one item. */
void rz_put_code(rz_dicom_out *o, uint32_t tag, rz_code code);
/* ReferencedSOPSequence and the like: the film, its first frame. */
void rz_put_film(rz_object_work *w, uint32_t sequence, const rz_code *purpose);
/* The code of a class, one of our own where there is none; own: room for it. */
rz_code rz_class_code(const rz_object_work *w, const char *label, char own[17]);
/* Probability from which a class is called present; NaN: none. */
double rz_class_threshold(const rz_object_work *w, size_t class);
/* "Effusion 34.2 %, gradient map" */
void rz_put_finding(const rz_object_work *w, rz_str *s);
const char *rz_manufacturer(const rz_object_work *w);

void rz_sr_put(rz_object_work *w);
radz_status rz_sc_put(rz_object_work *w, radz_error *err) RZ_CHECK;
radz_status rz_gsps_put(rz_object_work *w, radz_error *err) RZ_CHECK;

#endif
