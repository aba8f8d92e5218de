/* Public: heat maps.
 * SPDX-License-Identifier: Apache-2.0 */
#include "handles.h"
#include "heatmap.h"
#include "saliency.h"

void radz_heatmap_options_init_sized(radz_heatmap_options *options, size_t struct_size)
{
    const radz_heatmap_options defaults = {
        .struct_size = sizeof defaults, .method = RADZ_HEATMAP_GRADIENT, .contrast = 1};
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

void radz_heatmap_picture_init_sized(radz_heatmap_picture *picture, size_t struct_size)
{
    const radz_heatmap_picture defaults = {
        .struct_size = sizeof defaults, .low = (double)NAN, .high = (double)NAN, .opacity = 0.6};
    rz_options_give(picture, struct_size, &defaults, sizeof defaults);
}

void radz_heatmap_score_init_sized(radz_heatmap_score *score, size_t struct_size)
{
    const radz_heatmap_score empty = {.struct_size = sizeof empty};
    rz_options_give(score, struct_size, &empty, sizeof empty);
}

size_t radz_heatmap_side(const radz_model *model)
{
    return model ? rz_patch_side(&model->net->cfg) : 0;
}

/* ---- Maps ---- */

static void fill_nan(float *map, size_t n)
{
    for (size_t i = 0; map && i < n; i++) map[i] = NAN;
}

static size_t count_patches(const radz_session *s)
{
    return s ? radz_heatmap_side(s->model) * radz_heatmap_side(s->model) : 0;
}

static size_t count_pixels(const radz_image *image)
{
    return image ? image->film.pixels.width_px * image->film.pixels.height_px : 0;
}

radz_status radz_heatmap_patches(radz_session *session, const radz_bank *bank, const radz_image *image,
                                 const char *label, const radz_heatmap_options *options, float *patches,
                                 radz_error *err)
{
    RZ_NEED(patches);
    RZ_LIVE(session);
    fill_nan(patches, count_patches(session));
    RZ_LIVE_OR_NULL(bank);
    RZ_LIVE(image);
    RZ_NEED(label);
    radz_heatmap_options o;
    const rz_bank *used;
    radz_heatmap_options_init(&o);
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    RZ_TRY(rz_session_bank(session, bank, &used, err));
    return rz_heatmap_patches(&session->net, used, &image->film, label, &o, patches, err);
}

radz_status radz_heatmap_expand(const radz_model *model, const radz_image *image, const float *patches, float *map,
                                radz_error *err)
{
    RZ_NEED(map);
    RZ_LIVE(image);
    fill_nan(map, count_pixels(image));
    RZ_LIVE(model);
    RZ_NEED(patches);
    RZ_TRY(rz_model_require_films(model->net, err));
    const rz_pixels *film = &image->film.pixels;
    return rz_heatmap_expand(&model->net->cfg, film->width_px, film->height_px, patches, map, err);
}

radz_status radz_heatmap(radz_session *session, const radz_bank *bank, const radz_image *image, const char *label,
                         const radz_heatmap_options *options, float *map, radz_error *err)
{
    RZ_NEED(map);
    RZ_LIVE(image);
    fill_nan(map, count_pixels(image));
    RZ_LIVE(session);
    RZ_TRY(rz_model_require_films(session->model->net, err));
    const rz_host *host = &session->model->runtime->host;
    float *patches = rz_calloc(host, count_patches(session), sizeof *patches);
    if (!patches) return RZ_NO_MEMORY(err, "heat map");
    radz_status status = radz_heatmap_patches(session, bank, image, label, options, patches, err);
    if (status == RADZ_OK) status = radz_heatmap_expand(session->model, image, patches, map, err);
    rz_free(host, patches);
    return status;
}

/* ---- Pictures ---- */

static radz_status save_picture(const rz_host *host, const char *path, const rz_pixels *drawn, const char *title,
                                radz_error *err)
{
    const char *text[] = {"Software", "libradz", "Disclaimer", radz_disclaimer(), title ? "Title" : NULL, title, NULL};
    rz_str bytes = {.host = host};
    radz_status status = rz_png_encode(host, drawn, text, &bytes, err);
    if (status == RADZ_OK) status = rz_write_file(host, path, bytes.data, bytes.len, err);
    rz_str_free(&bytes);
    return status;
}

radz_status radz_heatmap_save_png(const char *path, const radz_image *image, const float *map,
                                  const radz_heatmap_picture *picture, radz_error *err)
{
    RZ_NEED(path);
    RZ_LIVE(image);
    RZ_NEED(map);
    radz_heatmap_picture p;
    radz_heatmap_picture_init(&p);
    RZ_TRY(rz_options_take(&p, sizeof p, picture, __func__, err));
    if (!(p.opacity >= 0 && p.opacity <= 1))
        return rz_fail(err, RADZ_E_ARGUMENT, "%s: opacity: expected a number in 0..1", __func__);
    const rz_host *host = rz_runtime_host(image->runtime);
    rz_pixels drawn = {0};
    RZ_TRY(rz_heatmap_draw(host, &image->film.pixels, map, &p, "", &drawn, err));
    const radz_status status = save_picture(host, path, &drawn, p.title, err);
    rz_pixels_free(host, &drawn);
    return status;
}

/* ---- How far to trust them ---- */

radz_status radz_heatmap_pointing(const float *map, size_t width_px, size_t height_px, const radz_box *boxes,
                                  size_t n_boxes, int *hit, double *share, radz_error *err)
{
    bool inside = false;
    if (hit) *hit = 0;
    if (share) *share = NAN;
    RZ_NEED(map);
    RZ_NEED(hit);
    if (n_boxes) RZ_NEED(boxes);
    if (!n_boxes || !width_px || !height_px)
        return rz_fail(err, RADZ_E_ARGUMENT, "%s: expected a film and at least one box", __func__);
    RZ_TRY(rz_heatmap_pointing(map, width_px, height_px, boxes, n_boxes, &inside, share, err));
    *hit = inside;
    return RADZ_OK;
}

static const double nothing = (double)NAN;

radz_status radz_heatmap_measure(radz_session *session, const radz_bank *bank, const radz_image *image,
                                 const char *label, const float *patches, size_t n_steps, radz_heatmap_score *score,
                                 double *curves, radz_error *err)
{
    radz_heatmap_score s = {sizeof s, nothing, nothing, nothing, nothing};
    const rz_bank *used;
    RZ_NEED(score);
    RZ_TRY(rz_struct_size_check(score->struct_size, __func__, "score", err));
    rz_options_give(score, score->struct_size, &s, sizeof s);
    RZ_LIVE(session);
    RZ_LIVE_OR_NULL(bank);
    RZ_LIVE(image);
    RZ_NEED(label);
    RZ_NEED(patches);
    const size_t n_curves = n_steps <= count_patches(session) ? 2 * (n_steps + 1) : 0;
    RZ_TRY(rz_session_bank(session, bank, &used, err));
    const radz_status status =
        rz_heatmap_measure(&session->net, used, &image->film, label, patches, n_steps, &s, curves, err);
    for (size_t i = 0; status != RADZ_OK && curves && i < n_curves; i++) curves[i] = NAN;
    if (status == RADZ_OK) rz_options_give(score, score->struct_size, &s, sizeof s);
    return status;
}
