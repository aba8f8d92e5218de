/* augment.c - training films: kept small in memory, varied anew at every draw. SPDX-License-Identifier: Apache-2.0 */
#include "augment.h"

#define FILM_MAX_BYTES ((size_t)512 << 20)

/* ---- Small films ------------------------------------------------------------------------ */

/* The level a normalised value came from. */
static uint8_t level_of(const rz_preprocess_config *cfg, size_t plane, float v)
{
    float level = (v * cfg->std[plane] + cfg->mean[plane]) / cfg->rescale;
    return level <= 0 ? 0 : level >= 255 ? 255 : (uint8_t)(level + 0.5f);
}

static radz_status thumb_fill(const rz_host *host, const rz_preprocess_config *cfg, const float *pixels, rz_thumb *out,
                              radz_error *err)
{
    size_t n = out->size * out->size;
    uint8_t *levels = rz_malloc(host, 3 * n);
    if (!levels) return RZ_NO_MEMORY(err, "film");
    for (size_t i = 0; i < 3 * n; i++) levels[i] = level_of(cfg, i / n, pixels[i]);
    bool gray = memcmp(levels, levels + n, n) == 0 && memcmp(levels, levels + 2 * n, n) == 0;
    out->planes = gray ? 1 : 3;
    uint8_t *fit = gray ? rz_realloc(host, levels, n, 1) : NULL;
    out->data = fit ? fit : levels;
    return RADZ_OK;
}

static radz_status thumb_decode(const rz_host *host, const rz_preprocess_config *cfg, const rz_file *f,
                                const char *path, rz_thumb *out, radz_error *err)
{
    rz_pixels film;
    RZ_TRY(rz_pixels_decode(host, f->data, f->size, path, &film, err));
    float *pixels = rz_calloc(host, 3 * out->size * out->size, sizeof *pixels);
    radz_status st = pixels ? rz_preprocess(host, cfg, out->size, &film, pixels, err) : RZ_NO_MEMORY(err, "film");
    rz_pixels_free(host, &film);
    if (!st) st = thumb_fill(host, cfg, pixels, out, err);
    rz_free(host, pixels);
    return st;
}

radz_status rz_thumb_open(const rz_host *host, const rz_preprocess_config *cfg, size_t size, const char *path,
                          rz_thumb *out, radz_error *err)
{
    *out = (rz_thumb){.size = size};
    rz_file f = {0};
    RZ_TRY(rz_file_open(host, path, RZ_FILE_READ, FILM_MAX_BYTES, &f, err));
    radz_status st = thumb_decode(host, cfg, &f, path, out, err);
    rz_file_close(&f);
    return st;
}

void rz_thumb_free(const rz_host *host, rz_thumb *thumb)
{
    rz_free(host, thumb->data);
    thumb->data = NULL;
}

/* ---- To the tower's input ------------------------------------------------------------------ */

/* Same arithmetic as rz_preprocess. */
static float normalised(const rz_preprocess_config *cfg, size_t plane, float level)
{
    return ((float)(level * (double)cfg->rescale) - cfg->mean[plane]) / cfg->std[plane];
}

void rz_thumb_pixels(const rz_preprocess_config *cfg, const rz_thumb *thumb, float *out)
{
    size_t n = thumb->size * thumb->size;
    for (size_t c = 0; c < 3; c++) {
        float table[256];
        for (int v = 0; v < 256; v++) table[v] = normalised(cfg, c, (float)v);
        const uint8_t *plane = thumb->data + (thumb->planes == 3 ? c * n : 0);
        for (size_t i = 0; i < n; i++) out[c * n + i] = table[plane[i]];
    }
}

/* ---- Augmentation ---------------------------------------------------------------------------- */

typedef struct warp {
    float ax, ay, bx, by, x0, y0; /* source x = x0 + ax * x + ay * y, likewise y */
    float tone[256];              /* level -> level */
    float outside;                /* level beyond the film's edge */
} warp;

static float between(rz_rng *rng, double low, double high)
{
    return (float)(low + (high - low) * rz_rng_uniform(rng));
}

/* How far a film may be varied. */
typedef struct range {
    double degrees, smallest, largest, shift, contrast, brightness, gamma; /* shift: share of the side; levels */
} range;
static const range LIGHT = {7, 0.88, 1.1, 0.05, 0.15, 15, 0.2}, STRONG = {12, 0.75, 1.4, 0.12, 0.4, 30, 0.5};

/* A third of the films is squeezed in one direction as well: some sets were stretched to squares, and at inference a
 * film that is not square is padded, not stretched. */
static void draw_warp(const rz_preprocess_config *cfg, const range *r, rz_rng *rng, size_t size, warp *w)
{
    float angle = between(rng, -r->degrees, r->degrees) * 0.017453293f, scale = between(rng, r->smallest, r->largest);
    float squeeze = between(rng, 0.68, 1), which = between(rng, 0, 1);
    float scale_x = which < 0.1f ? scale * squeeze : scale, scale_y = which > 0.75f ? scale * squeeze : scale;
    float shift_x = between(rng, -r->shift, r->shift), shift_y = between(rng, -r->shift, r->shift);
    float contrast = between(rng, 1 - r->contrast, 1 + r->contrast);
    float brightness = between(rng, -r->brightness, r->brightness), gamma = between(rng, -r->gamma, r->gamma);
    float cosine = cosf(angle), sine = sinf(angle), centre = ((float)size - 1) / 2;
    *w = (warp){.ax = cosine / scale_x, .ay = -sine / scale_x, .bx = sine / scale_y, .by = cosine / scale_y};
    w->x0 = centre * (1 - w->ax - w->ay) - shift_x * (float)size;
    w->y0 = centre * (1 - w->bx - w->by) - shift_y * (float)size;
    w->outside = rz_rng_uniform(rng) < 0.5 ? 0 : (float)(int)(255 * cfg->mean[0]); /* collimator or padding */
    for (int v = 0; v < 256; v++) {
        float level = 255 * powf((float)v / 255, expf(gamma));
        level = (level - 128) * contrast + 128 + brightness;
        w->tone[v] = level < 0 ? 0 : level > 255 ? 255 : level;
    }
}

/* Bilinear. */
static float sample(const warp *w, const uint8_t *plane, ptrdiff_t size, float x, float y)
{
    if (x <= -1 || y <= -1 || x >= (float)size || y >= (float)size) return w->outside;
    ptrdiff_t xi = (ptrdiff_t)(x + 1) - 1, yi = (ptrdiff_t)(y + 1) - 1;
    float fx = x - (float)xi, fy = y - (float)yi, v[2][2];
    for (int j = 0; j < 2; j++)
        for (int i = 0; i < 2; i++) {
            bool inside = xi + i >= 0 && xi + i < size && yi + j >= 0 && yi + j < size;
            v[j][i] = inside ? w->tone[plane[(yi + j) * size + xi + i]] : w->outside;
        }
    float top = v[0][0] + fx * (v[0][1] - v[0][0]), bottom = v[1][0] + fx * (v[1][1] - v[1][0]);
    return top + fy * (bottom - top);
}

static void warp_plane(const warp *w, const uint8_t *plane, size_t size, float *out)
{
    for (size_t y = 0; y < size; y++)
        for (size_t x = 0; x < size; x++) {
            float sx = w->x0 + w->ax * (float)x + w->ay * (float)y, sy = w->y0 + w->bx * (float)x + w->by * (float)y;
            out[y * size + x] = sample(w, plane, (ptrdiff_t)size, sx, sy);
        }
}

/* Covers a rectangle of up to 0.35 of each side with one level. */
static void cover(rz_rng *rng, size_t size, float *planes)
{
    double side = (double)size;
    size_t h = (size_t)(side * between(rng, 0.08, 0.35)), w = (size_t)(side * between(rng, 0.08, 0.35));
    size_t top = (size_t)(between(rng, 0, 1) * (double)(size - h)),
           left = (size_t)(between(rng, 0, 1) * (double)(size - w));
    float level = between(rng, 0, 255);
    for (size_t c = 0; c < 3; c++)
        for (size_t y = top; y < top + h; y++)
            for (size_t x = left; x < left + w; x++) planes[(c * size + y) * size + x] = level;
}

void rz_augment(const rz_preprocess_config *cfg, const rz_thumb *thumb, bool strong, rz_rng *rng, float *out)
{
    warp w;
    draw_warp(cfg, strong ? &STRONG : &LIGHT, rng, thumb->size, &w);
    size_t n = thumb->size * thumb->size;
    for (size_t c = 0; c < 3; c++) {
        float *plane = out + c * n;
        if (c < thumb->planes)
            warp_plane(&w, thumb->data + c * n, thumb->size, plane);
        else
            memcpy(plane, out, n * sizeof *plane);
    }
    for (int i = strong ? (int)between(rng, 0, 4) : 0; i > 0; i--) cover(rng, thumb->size, out);
    for (size_t c = 0; c < 3; c++)
        for (size_t i = 0; i < n; i++) out[c * n + i] = normalised(cfg, c, out[c * n + i]);
}
