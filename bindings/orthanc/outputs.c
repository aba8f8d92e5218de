/* outputs.c - structured report, heat maps and their outlines as DICOM, made by the library and given to the archive as
 * if they had been sent to it. SPDX-License-Identifier: GPL-3.0-or-later */
#include "outputs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef radz_status (*build_map)(const radz_image *, const radz_result *, const char *, const float *,
                                 const radz_dicom_options *, radz_dicom **, radz_error *);

int outputs_read_patches(json_t *patches, const char *label, float *values, size_t n)
{
    json_t *list = json_object_get(patches, label);
    if (json_array_size(list) != n) return 0;
    for (size_t i = 0; i < n; i++) {
        json_t *v = json_array_get(list, i);
        values[i] = json_is_number(v) ? (float)json_number_value(v) : NAN;
    }
    return 1;
}

/* ---- Into the archive --------------------------------------------------------------------------------------- */

static radz_status fail(radz_error *err, radz_status code, const char *what)
{
    err->code = code;
    strncpy(err->message, what, sizeof err->message - 1);
    return code;
}

/* Takes the object. label: NULL for a report. */
static radz_status put(radz_dicom *object, json_t *list, const char *label, radz_error *err)
{
    json_t *answer = NULL;
    const int failed = rest_post("/instances", radz_dicom_bytes(object), radz_dicom_size(object), &answer);
    const char *status = json_string_value(json_object_get(answer, "Status"));
    const int kept = !failed && status && (!strcmp(status, "Success") || !strcmp(status, "AlreadyStored"));
    if (kept)
        json_array_append_new(list, json_pack("{s:O, s:O, s:s, s:s*}", "instance", json_object_get(answer, "ID"),
                                              "series", json_object_get(answer, "ParentSeries"), "sop",
                                              radz_dicom_instance_uid(object), "label", label));
    radz_dicom_close(object);
    json_decref(answer);
    return kept ? RADZ_OK : fail(err, RADZ_E_IO, "the archive does not take the report");
}

/* ---- Making them -------------------------------------------------------------------------------------------- */

static radz_status put_report(const film_parts *p, const radz_dicom_options *o, json_t *list, radz_error *err)
{
    radz_dicom *object;
    const radz_status code = radz_dicom_build_sr(p->image, p->result, o, &object, err);
    return code ? code : put(object, list, NULL, err);
}

static radz_status put_map(const film_parts *p, build_map build, const char *label, const radz_dicom_options *o,
                           json_t *list, radz_error *err)
{
    const size_t side = radz_heatmap_side(engine.model);
    const size_t n = radz_image_width(p->image) * radz_image_height(p->image);
    float *patches = calloc(side * side + 1, sizeof *patches), *map = calloc(n, sizeof *map);
    radz_dicom *object = NULL;
    radz_status code = patches && map ? RADZ_OK : fail(err, RADZ_E_MEMORY, "out of memory");
    if (!code && !outputs_read_patches(p->patches, label, patches, side * side))
        code = fail(err, RADZ_E_INTERNAL, "a heat map is missing");
    if (!code) code = radz_heatmap_expand(engine.model, p->image, patches, map, err);
    if (!code) code = build(p->image, p->result, label, map, o, &object, err);
    free(patches), free(map);
    if (code == RADZ_E_UNSUPPORTED) return RADZ_OK; /* a colour film has no presentation state */
    return code ? code : put(object, list, label, err);
}

static radz_status put_maps(const film_parts *p, build_map build, const radz_dicom_options *o, json_t *list,
                            radz_error *err)
{
    radz_status code = RADZ_OK;
    for (size_t i = 0; i < p->n_found && !code; i++) code = put_map(p, build, p->found[i], o, list, err);
    return code;
}

/* Thresholds of every class: the report calls a finding present where the page does. */
static size_t fill_thresholds(const film_parts *p, const char **labels, double *values, size_t most)
{
    size_t n = 0;
    for (; n < most && n < radz_result_count(p->result); n++) {
        labels[n] = radz_result_label(p->result, n);
        values[n] = config_threshold(labels[n], radz_result_threshold(p->result, n));
    }
    return n;
}

static radz_status put_all(const film_parts *p, const radz_dicom_options *o, json_t *outputs, radz_error *err)
{
    json_t *sr = json_array(), *sc = json_array(), *gsps = json_array();
    json_object_set_new(outputs, "SR", sr);
    json_object_set_new(outputs, "SC", sc);
    json_object_set_new(outputs, "GSPS", gsps);
    radz_status code = config.sr ? put_report(p, o, sr, err) : RADZ_OK;
    if (!code && config.sc) code = put_maps(p, radz_dicom_build_sc, o, sc, err);
    if (!code && config.gsps) code = put_maps(p, radz_dicom_build_gsps, o, gsps, err);
    return code;
}

json_t *outputs_store(const film_parts *p, radz_error *err)
{
    json_t *outputs = json_object();
    const size_t n = radz_result_count(p->result);
    const char **labels = calloc(n + 1, sizeof *labels);
    double *values = calloc(n + 1, sizeof *values);
    radz_dicom_options o;
    radz_dicom_options_init(&o);
    o.labels = config.labels, o.map_method = "gradient", o.key = engine.key;
    if (labels && values) {
        o.threshold_labels = labels, o.thresholds = values, o.n_thresholds = fill_thresholds(p, labels, values, n);
        if (put_all(p, &o, outputs, err) == RADZ_OK) err->code = RADZ_OK;
    } else {
        fail(err, RADZ_E_MEMORY, "out of memory");
    }
    free(labels), free(values);
    return outputs;
}
