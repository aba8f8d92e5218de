/* heatmap.c - a film's heat map for a class of a bank: what is asked for, patches, pixels.
 * SPDX-License-Identifier: Apache-2.0 */
#include "heatmap.h"

#include "preprocess.h"
#include "saliency.h"

/* ---- What is asked for ---- */

static radz_status check_options(const rz_config *cfg, const radz_heatmap_options *o, rz_saliency *heat,
                                 radz_error *err)
{
    rz_pick pick;
    radz_embed_options at;
    radz_embed_options_init(&at);
    at.layer = o->layer;
    RZ_TRY(rz_embed_pick(cfg, &at, &pick, err));
    if ((int)o->method < RADZ_HEATMAP_SIMILARITY || o->method > RADZ_HEATMAP_GRADIENT)
        return rz_fail(err, RADZ_E_ARGUMENT, "method: expected SIMILARITY (0), ATTENTION (1) or GRADIENT (2), got %d",
                       (int)o->method);
    if (o->contrast != 0 && o->contrast != 1)
        return rz_fail(err, RADZ_E_ARGUMENT, "contrast: expected 0 or 1, got %d", o->contrast);
    if (o->mean != 0 && o->mean != 1) return rz_fail(err, RADZ_E_ARGUMENT, "mean: expected 0 or 1, got %d", o->mean);
    if (o->method == RADZ_HEATMAP_ATTENTION && pick.n_blocks == 0)
        return rz_fail(err, RADZ_E_ARGUMENT, "layer: %d is the decoder's input: no block has attended", o->layer);
    if (o->first_block < 0 || (o->first_block && (size_t)o->first_block >= pick.n_blocks))
        return rz_fail(err, RADZ_E_ARGUMENT, "first_block: expected 0..%zu, got %d",
                       pick.n_blocks ? pick.n_blocks - 1 : 0, o->first_block);
    static const rz_saliency_method methods[] = {RZ_SALIENCY_SIMILARITY, RZ_SALIENCY_ATTENTION, RZ_SALIENCY_GRADIENT};
    *heat = (rz_saliency){.method = methods[o->method],
                          .rows = pick.rows,
                          .n_blocks = pick.n_blocks,
                          .first_block = (size_t)o->first_block,
                          .mean = o->mean};
    return RADZ_OK;
}

/* The anchor of a class, or what tells it from the reference; from rz_malloc. */
static float *make_direction(const rz_bank *bank, size_t class_index, bool contrast, radz_error *err)
{
    const float *anchor = bank->anchors + class_index * bank->dim;
    contrast = contrast && bank->reference < bank->n && bank->reference != class_index;
    float *d = rz_calloc(bank->host, bank->dim, sizeof *d);
    if (!d) {
        (void)RZ_NO_MEMORY(err, "direction of a heat map");
        return NULL;
    }
    for (size_t i = 0; i < bank->dim; i++)
        d[i] = contrast ? anchor[i] - bank->anchors[bank->reference * bank->dim + i] : anchor[i];
    return d;
}

/* ---- Patches ---- */

/* What the tower sees; from rz_malloc. */
static radz_status make_pixels(const rz_config *cfg, const rz_film *film, float **pixels, radz_error *err)
{
    const size_t side = cfg->vision.image_size;
    *pixels = rz_calloc(cfg->host, 3 * side * side, sizeof **pixels);
    if (!*pixels) return RZ_NO_MEMORY(err, "preprocessed film");
    radz_error why;
    radz_status status = rz_preprocess(cfg->host, &cfg->preprocess, side, &film->pixels, *pixels, &why);
    if (status == RADZ_OK) return RADZ_OK;
    rz_free(cfg->host, *pixels);
    *pixels = NULL;
    return rz_fail(err, status, "%s: %s", film->path ? film->path : "film", why.message);
}

static radz_status run_map(const rz_net *net, const rz_film *film, const rz_saliency *heat, float *patches,
                           radz_error *err)
{
    const rz_config *cfg = &net->model->cfg;
    const size_t n = rz_patch_side(cfg) * rz_patch_side(cfg);
    rz_prompt prompt = {0};
    float *pixels = NULL;
    RZ_TRY(rz_prompt_image(cfg->host, net->model, &prompt, err));
    radz_status status = make_pixels(cfg, film, &pixels, err);
    if (status == RADZ_OK) {
        const rz_item item = {.kind = RZ_ITEM_IMAGE, .pixels = pixels, .prompt = &prompt};
        rz_saliency_map(net, &item, heat, patches);
        status = rz_stream_sync(net->s, err);
    }
    rz_free(cfg->host, pixels);
    rz_prompt_free(cfg->host, &prompt);
    for (size_t i = 0; i < n && status == RADZ_OK; i++)
        if (!isfinite(patches[i]))
            status = rz_fail(err, RADZ_E_FORMAT,
                             "the heat map has a number that is not finite: the model's weights "
                             "are damaged");
    return status;
}

static radz_status run_towards(const rz_net *net, const rz_film *film, const float *direction,
                               const radz_heatmap_options *options, float *patches, radz_error *err)
{
    rz_saliency heat;
    RZ_TRY(rz_model_require_films(net->model, err));
    RZ_TRY(check_options(&net->model->cfg, options, &heat, err));
    heat.direction = direction;
    return run_map(net, film, &heat, patches, err);
}

static radz_status patches_of(const rz_net *net, const rz_bank *bank, const rz_film *film, const char *label,
                              const radz_heatmap_options *options, float *patches, radz_error *err)
{
    size_t class_index;
    RZ_TRY(rz_bank_require_model(bank, net->model, err));
    RZ_TRY(rz_bank_find(bank, label, &class_index, err));
    float *direction = make_direction(bank, class_index, options->contrast, err);
    if (!direction) return RADZ_E_MEMORY;
    const radz_status status = run_towards(net, film, direction, options, patches, err);
    rz_free(bank->host, direction);
    return status;
}

/* NaN where it failed; of a gradient, nothing that speaks against the class. */
static void finish(const rz_config *cfg, const radz_heatmap_options *options, radz_status status, float *patches)
{
    const size_t n = rz_patch_side(cfg) * rz_patch_side(cfg);
    for (size_t i = 0; i < n; i++) {
        if (status != RADZ_OK) patches[i] = NAN;
        if (options->method == RADZ_HEATMAP_GRADIENT && patches[i] < 0) patches[i] = 0;
    }
}

radz_status rz_heatmap_patches(const rz_net *net, const rz_bank *bank, const rz_film *film, const char *label,
                               const radz_heatmap_options *options, float *patches, radz_error *err)
{
    const radz_status status = patches_of(net, bank, film, label, options, patches, err);
    finish(&net->model->cfg, options, status, patches);
    return status;
}

radz_status rz_heatmap_towards(const rz_net *net, const rz_film *film, const float *direction,
                               const radz_heatmap_options *options, float *patches, radz_error *err)
{
    const radz_status status = run_towards(net, film, direction, options, patches, err);
    finish(&net->model->cfg, options, status, patches);
    return status;
}

/* ---- Pixels ---- */

/* Where one pixel of an axis lies between two patches: value = (1 - part) of `low` + part of the next one. */
typedef struct between {
    uint32_t low, high;
    float part;
    bool inside;
} between;

static between *lay_axis(const rz_config *cfg, size_t n_px, double scale, double shift)
{
    const double size = (double)cfg->vision.image_size, last = (double)rz_patch_side(cfg) - 1;
    between *b = rz_calloc(cfg->host, n_px, sizeof *b);
    for (size_t i = 0; b && i < n_px; i++) {
        const double at = ((double)i + .5) * scale + shift; /* on the tower's square */
        double patch = at / (double)cfg->vision.patch - .5; /* between centres of patches */
        patch = patch < 0 ? 0 : patch > last ? last : patch;
        b[i].inside = at >= 0 && at <= size;
        b[i].low = (uint32_t)patch;
        b[i].high = b[i].low + (b[i].low < (uint32_t)last);
        b[i].part = (float)(patch - b[i].low);
    }
    return b;
}

static void fill_map(const between *x, const between *y, size_t width, size_t height, size_t side, const float *patches,
                     float *map)
{
    for (size_t j = 0; j < height; j++) {
        const float *above = patches + y[j].low * side, *below = patches + y[j].high * side;
        for (size_t i = 0; i < width; i++) {
            const between *b = &x[i];
            const float top = above[b->low] + b->part * (above[b->high] - above[b->low]);
            const float bottom = below[b->low] + b->part * (below[b->high] - below[b->low]);
            map[j * width + i] = b->inside && y[j].inside ? top + y[j].part * (bottom - top) : NAN;
        }
    }
}

radz_status rz_heatmap_expand(const rz_config *cfg, size_t width_px, size_t height_px, const float *patches, float *map,
                              radz_error *err)
{
    rz_placement at;
    RZ_TRY(rz_preprocess_place(&cfg->preprocess, cfg->vision.image_size, width_px, height_px, &at, err));
    between *x = lay_axis(cfg, width_px, at.x_scale, at.x_shift);
    between *y = lay_axis(cfg, height_px, at.y_scale, at.y_shift);
    if (x && y) fill_map(x, y, width_px, height_px, rz_patch_side(cfg), patches, map);
    const radz_status status = x && y ? RADZ_OK : RZ_NO_MEMORY(err, "pixels of a heat map");
    rz_free(cfg->host, x);
    rz_free(cfg->host, y);
    return status;
}
