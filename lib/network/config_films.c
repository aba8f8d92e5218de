/* config_films.c - preprocessor_config.json or its like in processor_config.json: what becomes of a film before the
 * tower sees it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config_read.h"

static radz_status read_means(const json_t *obj, const char *where, const char *key, float out[3], radz_error *err)
{
    const json_t *a = json_object_get(obj, key);
    if (!a || json_is_null(a)) return RADZ_OK;
    for (size_t i = 0; i < 3; i++) {
        const json_t *v = json_array_get(a, i);
        double x = json_is_number(v) ? json_number_value(v) : NAN;
        if (json_array_size(a) != 3 || !(x >= -1e6 && x <= 1e6))
            return rz_fail(err, RADZ_E_FORMAT, "%s: %s: expected three numbers", where, key);
        out[i] = (float)x;
    }
    return RADZ_OK;
}

/* "size": 336, {"shortest_edge": 336} or {"height": 336, "width": 336} */
static radz_status read_sides(const json_t *obj, const char *where, const char *key, size_t *width, size_t *height,
                              radz_error *err)
{
    const json_t *v = json_object_get(obj, key);
    if (!v || json_is_null(v)) return RADZ_OK;
    if (json_is_object(v)) {
        *width = *height = 0;
        RZ_TRY(rz_read_size(v, where, "shortest_edge", 1, 8192, width, err));
        *height = *width;
        RZ_TRY(rz_read_size(v, where, "width", 1, 8192, width, err));
        RZ_TRY(rz_read_size(v, where, "height", 1, 8192, height, err));
    } else {
        RZ_TRY(rz_read_size(obj, where, key, 1, 8192, width, err));
        *height = *width;
    }
    if (!*width || !*height)
        return rz_fail(err, RADZ_E_FORMAT, "%s: %s: expected shortest_edge, or width and height", where, key);
    return RADZ_OK;
}

static radz_status check_preprocess(const rz_config *cfg, size_t size_w, size_t size_h, bool exact, radz_error *err)
{
    const rz_preprocess_config *p = &cfg->preprocess;
    const char *where = cfg->films_from;
    size_t want = cfg->vision.image_size, w = p->crop ? p->crop_width : size_w, h = p->crop ? p->crop_height : size_h;
    if (w != want || h != want)
        return rz_fail(err, RADZ_E_MISMATCH, "%s: films become %zu x %zu, the tower takes %zu x %zu", where, w, h, want,
                       want);
    if (size_w < want)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: size: shortest_edge %zu is smaller than the tower's %zu", where,
                       size_w, want);
    if (!p->resize || !(p->crop || p->pad_to_square))
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: expected do_resize, and do_center_crop or padding to a square",
                       where);
    if (exact && !p->pad_to_square)
        return rz_fail(err, RADZ_E_UNSUPPORTED,
                       "%s: size: width and height would distort the film; "
                       "expected shortest_edge",
                       where);
    for (int c = 0; c < 3; c++)
        if (!(p->std[c] > 0)) return rz_fail(err, RADZ_E_FORMAT, "%s: image_std: expected numbers above 0", where);
    return RADZ_OK;
}

static radz_status read_preprocess(const json_t *root, rz_config *cfg, radz_error *err)
{
    const char *where = cfg->films_from;
    rz_preprocess_config *p = &cfg->preprocess;
    size_t w = p->shortest_edge, h = w;
    bool normalise = true, rescale = true;
    int64_t resample = 3;
    const json_t *size = json_object_get(root, "size");
    bool exact = json_is_object(size) && !json_object_get(size, "shortest_edge");
    RZ_TRY(rz_json_bool(root, where, "do_pad", &p->pad_to_square, err));
    RZ_TRY(rz_json_bool(root, where, "do_resize", &p->resize, err));
    RZ_TRY(rz_json_bool(root, where, "do_center_crop", &p->crop, err));
    RZ_TRY(rz_json_bool(root, where, "do_rescale", &rescale, err));
    RZ_TRY(rz_json_bool(root, where, "do_normalize", &normalise, err));
    RZ_TRY(rz_json_int(root, where, "resample", 0, 5, &resample, err));
    if (resample != 3)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: resample %d is not supported, only 3 (bicubic)", where,
                       (int)resample);
    RZ_TRY(read_sides(root, where, "size", &w, &h, err));
    if (w != h) return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: size %zu x %zu is not square", where, w, h);
    p->shortest_edge = w;
    RZ_TRY(read_sides(root, where, "crop_size", &p->crop_width, &p->crop_height, err));
    RZ_TRY(rz_read_float(root, where, "rescale_factor", 0.0, 1e6, &p->rescale, err));
    if (!rescale) p->rescale = 1.0f;
    RZ_TRY(read_means(root, where, "image_mean", p->mean, err));
    RZ_TRY(read_means(root, where, "image_std", p->std, err));
    for (int c = 0; c < 3 && !normalise; c++) p->mean[c] = 0.0f, p->std[c] = 1.0f;
    return check_preprocess(cfg, w, h, exact, err);
}

static radz_status read_own_file(const json_t *root, rz_config *cfg, radz_error *err)
{
    cfg->films_from = "preprocessor_config.json";
    return read_preprocess(root, cfg, err);
}

/* The file is older than these settings in it. */
static radz_status read_nested(const json_t *root, rz_config *cfg, radz_error *err)
{
    const json_t *settings = json_object_get(root, "image_processor");
    if (!settings || json_is_null(settings)) return RADZ_OK;
    cfg->films_from = "processor_config.json: image_processor";
    if (!json_is_object(settings)) return rz_fail(err, RADZ_E_FORMAT, "%s: expected an object", cfg->films_from);
    return read_preprocess(settings, cfg, err);
}

radz_status rz_read_films(rz_config *cfg, const char *dir, radz_error *err)
{
    RZ_TRY(rz_read_json_file(cfg, dir, "processor_config.json", false, read_nested, err));
    if (cfg->films_from) return RADZ_OK;
    return rz_read_json_file(cfg, dir, "preprocessor_config.json", false, read_own_file, err);
}
