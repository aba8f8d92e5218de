/* Public: results as DICOM objects.
 * SPDX-License-Identifier: Apache-2.0 */
#include "dicom_report.h"
#include "handles.h"

struct radz_dicom {
    rz_handle h;
    radz_runtime *runtime; /* held; NULL: none */
    rz_object object;
};

void radz_dicom_options_init_sized(radz_dicom_options *options, size_t struct_size)
{
    const radz_dicom_options defaults = {.struct_size = sizeof defaults, .threshold = (double)NAN, .outline = .5};
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

/* ---- Building ---- */

static radz_status build(rz_object_ask *ask, rz_object_kind kind, radz_runtime *runtime, radz_dicom **dicom,
                         radz_error *err)
{
    radz_dicom *d = rz_calloc(ask->host, 1, sizeof *d);
    if (!d) return RZ_NO_MEMORY(err, "a DICOM object");
    rz_handle_init(&d->h);
    if (runtime) rz_handle_hold(&runtime->h);
    d->runtime = runtime;
    const radz_status status = rz_object_build(ask, kind, &d->object, err);
    if (status != RADZ_OK)
        radz_dicom_close(d);
    else
        *dicom = d;
    return status;
}

/* What every kind is made of, checked. label and map: NULL for a report. */
static radz_status begin(const radz_image *image, const radz_result *result, const radz_dicom_options *options,
                         const char *function, radz_dicom_options *o, rz_object_ask *ask, radz_error *err)
{
    RZ_TRY(rz_handle_check(image ? &image->h : NULL, function, "image", err));
    RZ_TRY(rz_handle_check(result ? &result->h : NULL, function, "result", err));
    radz_dicom_options_init(o);
    RZ_TRY(rz_options_take(o, sizeof *o, options, function, err));
    *ask = (rz_object_ask){rz_runtime_host(image->runtime), &image->film, result->result, NULL, NULL, o};
    return RADZ_OK;
}

radz_status radz_dicom_build_sr(const radz_image *image, const radz_result *result, const radz_dicom_options *options,
                                radz_dicom **dicom, radz_error *err)
{
    radz_dicom_options o;
    rz_object_ask ask;
    if (dicom) *dicom = NULL;
    RZ_NEED(dicom);
    RZ_TRY(begin(image, result, options, __func__, &o, &ask, err));
    return build(&ask, RZ_OBJECT_SR, image->runtime, dicom, err);
}

static radz_status build_map(const radz_image *image, const radz_result *result, const char *label, const float *map,
                             const radz_dicom_options *options, rz_object_kind kind, const char *function,
                             radz_dicom **dicom, radz_error *err)
{
    radz_dicom_options o;
    rz_object_ask ask;
    RZ_TRY(begin(image, result, options, function, &o, &ask, err));
    ask.label = label, ask.map = map;
    return build(&ask, kind, image->runtime, dicom, err);
}

radz_status radz_dicom_build_sc(const radz_image *image, const radz_result *result, const char *label, const float *map,
                                const radz_dicom_options *options, radz_dicom **dicom, radz_error *err)
{
    if (dicom) *dicom = NULL;
    RZ_NEED(dicom);
    RZ_NEED(label);
    RZ_NEED(map);
    return build_map(image, result, label, map, options, RZ_OBJECT_SC, __func__, dicom, err);
}

radz_status radz_dicom_build_gsps(const radz_image *image, const radz_result *result, const char *label,
                                  const float *map, const radz_dicom_options *options, radz_dicom **dicom,
                                  radz_error *err)
{
    if (dicom) *dicom = NULL;
    RZ_NEED(dicom);
    RZ_NEED(label);
    RZ_NEED(map);
    return build_map(image, result, label, map, options, RZ_OBJECT_GSPS, __func__, dicom, err);
}

void radz_dicom_close(radz_dicom *dicom)
{
    if (!dicom || !rz_handle_drop(&dicom->h)) return;
    radz_runtime *rt = dicom->runtime;
    rz_object_free(&dicom->object);
    rz_free(rz_runtime_host(rt), dicom);
    radz_runtime_close(rt);
}

/* ---- Looking at it ---- */

const void *radz_dicom_bytes(const radz_dicom *dicom)
{
    return dicom ? dicom->object.file.data : NULL;
}

size_t radz_dicom_size(const radz_dicom *dicom)
{
    return dicom ? dicom->object.file.len : 0;
}

const char *radz_dicom_class_uid(const radz_dicom *dicom)
{
    return dicom ? dicom->object.class_uid : NULL;
}

const char *radz_dicom_series_uid(const radz_dicom *dicom)
{
    return dicom ? dicom->object.series_uid : NULL;
}

const char *radz_dicom_instance_uid(const radz_dicom *dicom)
{
    return dicom ? dicom->object.instance_uid : NULL;
}

radz_status radz_dicom_save(const radz_dicom *dicom, const char *path, radz_error *err)
{
    RZ_LIVE(dicom);
    RZ_NEED(path);
    return rz_write_file(rz_runtime_host(dicom->runtime), path, dicom->object.file.data, dicom->object.file.len, err);
}
