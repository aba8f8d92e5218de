/* heatscore.c - how far to trust a heat map: the pointing game, deletion and insertion.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "gray.h"
#include "heatmap.h"
#include "saliency.h"
#include "score.h"

/* ---- Pointing game ---- */

static bool in_box(const radz_box *b, double x, double y)
{
    return x >= b->x && x < b->x + b->width && y >= b->y && y < b->y + b->height;
}

static bool in_any_box(const radz_box *boxes, size_t n, size_t x, size_t y)
{
    for (size_t i = 0; i < n; i++)
        if (in_box(&boxes[i], (double)x + .5, (double)y + .5)) return true;
    return false;
}

radz_status rz_heatmap_pointing(const float *map, size_t width_px, size_t height_px, const radz_box *boxes,
                                size_t n_boxes, bool *hit, double *share, radz_error *err)
{
    for (size_t i = 0; i < n_boxes; i++) {
        const radz_box *b = &boxes[i];
        if (!isfinite(b->x) || !isfinite(b->y) || !(b->width > 0) || !(b->height > 0) || !isfinite(b->x + b->width) ||
            !isfinite(b->y + b->height))
            return rz_fail(err, RADZ_E_ARGUMENT, "box %zu: expected finite numbers, width and height above 0", i);
    }
    float greatest = -INFINITY;
    size_t n_covered = 0;
    *hit = false;
    for (size_t y = 0; y < height_px; y++)
        for (size_t x = 0; x < width_px; x++) {
            const float v = map[y * width_px + x];
            const bool inside = in_any_box(boxes, n_boxes, x, y);
            n_covered += inside;
            if (v > greatest) greatest = v, *hit = inside;
            if (v == greatest) *hit |= inside;
        }
    if (share) *share = (double)n_covered / ((double)width_px * (double)height_px);
    if (greatest > -INFINITY) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT, "map: expected at least one finite number");
}

/* ---- Deletion and insertion ---- */

enum { AT_ONCE = 8 }; /* films that go through the network together */

typedef struct ranked {
    float value;
    size_t patch;
} ranked;

static int by_heat(const void *pa, const void *pb)
{
    const ranked *a = pa, *b = pb;
    const bool a_nan = isnan(a->value), b_nan = isnan(b->value);
    if (a_nan != b_nan) return a_nan ? 1 : -1;
    if (!a_nan && a->value != b->value) return a->value > b->value ? -1 : 1;
    return a->patch < b->patch ? -1 : a->patch > b->patch;
}

typedef struct measure {
    const rz_net *net;
    const rz_bank *bank;
    size_t class_index, n_steps, side, n_planes, floats_each;
    rz_prompt prompt;
    ranked *order;   /* (side * side), hottest first */
    float *film;     /* what the tower sees, (n_planes, size, size) */
    float color[3];  /* of painted patches */
    float *variants; /* (AT_ONCE) films */
    float *vectors;  /* (AT_ONCE, dim) */
    rz_score *scores;
} measure;

static void mean_color(measure *m)
{
    const size_t n = m->floats_each / m->n_planes;
    for (size_t c = 0; c < m->n_planes; c++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += (double)m->film[c * n + i];
        m->color[c] = (float)(sum / (double)n);
    }
}

static void copy_patch(const measure *m, size_t patch, bool paint, float *to)
{
    const rz_vision_config *v = &m->net->model->cfg.vision;
    const size_t y0 = patch / m->side * v->patch, x0 = patch % m->side * v->patch;
    for (size_t c = 0; c < m->n_planes; c++)
        for (size_t y = y0; y < y0 + v->patch; y++) {
            const size_t at = (c * v->image_size + y) * v->image_size + x0;
            for (size_t x = 0; x < v->patch; x++) to[at + x] = paint ? m->color[c] : m->film[at + x];
        }
}

/* The film of one step: the n hottest patches painted, or only they not painted. */
static void make_variant(const measure *m, size_t step, bool insert, float *to)
{
    const size_t n_patches = m->side * m->side, n = n_patches * step / m->n_steps;
    for (size_t i = 0; i < n_patches; i++) copy_patch(m, m->order[i].patch, (i < n) != insert, to);
}

static radz_status probability_of(measure *m, const float *vector, double *out, radz_error *err)
{
    RZ_TRY(rz_score_film(m->bank, vector, rz_model_tau(m->net->model, m->net->s), m->scores, err));
    for (size_t i = 0; i < m->bank->n; i++)
        if (m->scores[i].i == m->class_index) *out = m->scores[i].probability;
    return RADZ_OK;
}

static radz_status run_variants(measure *m, size_t n, double *out, radz_error *err)
{
    const rz_pick own = rz_embed_own(&m->net->model->cfg);
    rz_item items[AT_ONCE];
    rz_net pass = *m->net;
    pass.keep = false;
    for (size_t i = 0; i < n; i++) {
        items[i] = (rz_item){.kind = RZ_ITEM_IMAGE, .pixels = m->variants + i * m->floats_each, .prompt = &m->prompt};
        items[i].gray = m->n_planes == 1;
    }
    rz_mark mark = rz_arena_mark(pass.s);
    const float *v = rz_encode_pick(&pass, items, n, &own);
    if (!rz_stream_failed(pass.s)) rz_download(pass.s, m->vectors, v, n * m->bank->dim * sizeof *v);
    rz_arena_release(pass.s, mark);
    RZ_TRY(rz_stream_sync(pass.s, err));
    for (size_t i = 0; i < n; i++) RZ_TRY(probability_of(m, m->vectors + i * m->bank->dim, &out[i], err));
    return RADZ_OK;
}

static radz_status run_curve(measure *m, bool insert, double *curve, radz_error *err)
{
    for (size_t first = 0; first <= m->n_steps; first += AT_ONCE) {
        const size_t left = m->n_steps + 1 - first, n = left < AT_ONCE ? left : AT_ONCE;
        for (size_t i = 0; i < n; i++) make_variant(m, first + i, insert, m->variants + i * m->floats_each);
        RZ_TRY(run_variants(m, n, curve + first, err));
    }
    return RADZ_OK;
}

static double area(const double *curve, size_t n_steps)
{
    double sum = (curve[0] + curve[n_steps]) / 2;
    for (size_t i = 1; i < n_steps; i++) sum += curve[i];
    return sum / (double)n_steps;
}

static radz_status run_both(measure *m, const rz_film *film, const float *patches, radz_heatmap_score *score,
                            double *curves, radz_error *err)
{
    const rz_config *cfg = &m->net->model->cfg;
    const size_t n = m->side * m->side;
    RZ_TRY(rz_prompt_image(cfg->host, m->net->model, &m->prompt, err));
    RZ_TRY(rz_model_preprocess(m->net->model, NULL, &film->pixels, m->film, err));
    mean_color(m);
    for (size_t i = 0; i < n; i++) m->order[i] = (ranked){patches[i], i};
    qsort(m->order, n, sizeof *m->order, by_heat);
    for (size_t i = 0; i < AT_ONCE; i++) /* a tower's edge that no patch covers stays */
        memcpy(m->variants + i * m->floats_each, m->film, m->floats_each * sizeof *m->film);
    RZ_TRY(run_curve(m, false, curves, err));
    RZ_TRY(run_curve(m, true, curves + m->n_steps + 1, err));
    score->deletion = area(curves, m->n_steps);
    score->insertion = area(curves + m->n_steps + 1, m->n_steps);
    score->film = curves[0];
    score->painted = curves[m->n_steps];
    return RADZ_OK;
}

/* Memory, then the curves; `own` where the caller wants none. */
static radz_status measure_film(measure *m, const rz_film *film, const float *patches, radz_heatmap_score *score,
                                double *curves, radz_error *err)
{
    const rz_host *host = m->net->model->cfg.host;
    double *own = curves ? NULL : rz_calloc(host, 2 * (m->n_steps + 1), sizeof *own);
    m->order = rz_calloc(host, m->side * m->side, sizeof *m->order);
    m->film = rz_calloc(host, m->floats_each, sizeof *m->film);
    m->variants = rz_calloc(host, AT_ONCE * m->floats_each, sizeof *m->variants);
    m->vectors = rz_calloc(host, AT_ONCE * m->bank->dim, sizeof *m->vectors);
    m->scores = rz_calloc(host, m->bank->n, sizeof *m->scores);
    const bool ok = (curves || own) && m->order && m->film && m->variants && m->vectors && m->scores;
    radz_status status = ok ? run_both(m, film, patches, score, curves ? curves : own, err)
                            : RZ_NO_MEMORY(err, "deletion and insertion");
    rz_free(host, own);
    rz_free(host, m->order);
    rz_free(host, m->film);
    rz_free(host, m->variants);
    rz_free(host, m->vectors);
    rz_free(host, m->scores);
    rz_prompt_free(host, &m->prompt);
    return status;
}

radz_status rz_heatmap_measure(const rz_net *net, const rz_bank *bank, const rz_film *film, const char *label,
                               const float *patches, size_t n_steps, radz_heatmap_score *score, double *curves,
                               radz_error *err)
{
    const rz_config *cfg = &net->model->cfg;
    measure m = {.net = net, .bank = bank, .n_steps = n_steps, .side = rz_patch_side(cfg)};
    RZ_TRY(rz_model_require_films(net->model, err));
    RZ_TRY(rz_bank_require_model(bank, net->model, err));
    RZ_TRY(rz_bank_find(bank, label, &m.class_index, err));
    if (n_steps < 1 || n_steps > m.side * m.side)
        return rz_fail(err, RADZ_E_ARGUMENT, "n_steps: expected 1..%zu, got %zu", m.side * m.side, n_steps);
    m.n_planes = rz_model_planes(net->model, &film->pixels);
    m.floats_each = m.n_planes * cfg->vision.image_size * cfg->vision.image_size;
    return measure_film(&m, film, patches, score, curves, err);
}
