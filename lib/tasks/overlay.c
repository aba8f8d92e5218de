/* overlay.c - a heat map in colours over the gray film, with a scale.
 * SPDX-License-Identifier: Apache-2.0 */
#include "glyphs.h"
#include "heatmap.h"

/* ---- Colours ---- */

/* From black over red and orange to pale yellow, lighter at every step: the order of heat needs no legend, and survives
 * a gray printer and colour-blind eyes. */
static const double control[][3] = {{20, 0, 10},    {115, 10, 35},  {200, 45, 20},
                                    {245, 130, 20}, {255, 205, 70}, {255, 250, 195}};

static void color_of(double t, double rgb[3])
{
    const double at = t * (RZ_COUNT(control) - 1);
    const size_t i = at >= RZ_COUNT(control) - 1 ? RZ_COUNT(control) - 2 : (size_t)at;
    for (size_t c = 0; c < 3; c++) rgb[c] = control[i][c] + (at - (double)i) * (control[i + 1][c] - control[i][c]);
}

static uint8_t level(double v)
{
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v + .5);
}

const char *rz_heatmap_colors(void)
{
    return "#14000a,#730a23,#c82d14,#f58214,#ffcd46,#fffac3"; /* control[] */
}

/* Colour for t over gray; t below 0: gray alone. */
static void blend(double gray, double t, double opacity, uint8_t *rgb)
{
    double color[3] = {0};
    if (t >= 0) color_of(t, color);
    const double share = t >= 0 ? opacity * t * (2 - t) : 0; /* no edge where the heat begins */
    for (size_t c = 0; c < 3; c++) rgb[c] = level(gray + share * (color[c] - gray));
}

/* ---- Canvas ---- */

typedef struct canvas {
    uint8_t *rgb;
    size_t width, height;
} canvas;

static void fill(canvas *to, size_t x, size_t y, size_t w, size_t h, uint8_t gray)
{
    for (size_t j = y; j < y + h && j < to->height; j++)
        for (size_t i = x; i < x + w && i < to->width; i++) memset(to->rgb + 3 * (j * to->width + i), gray, 3);
}

/* ---- Texts ---- */

enum { MAX_NUMBER = 12, CELL_W = RZ_GLYPH_W + 1, LINE_H = RZ_GLYPH_H + 4 };

static void draw_char(canvas *to, size_t x, size_t y, size_t zoom, char c)
{
    const uint8_t *rows = rz_glyph(c);
    for (size_t j = 0; j < RZ_GLYPH_H; j++)
        for (size_t i = 0; i < RZ_GLYPH_W; i++)
            if (rows[j] >> (RZ_GLYPH_W - 1 - i) & 1) fill(to, x + i * zoom, y + j * zoom, zoom, zoom, 235);
}

/* Where the line that begins at text ends: at its end, or before the last space that leaves it at most `most` long. */
static size_t line_length(const char *text, size_t most)
{
    const size_t n = strcspn(text, "\n");
    if (n <= most) return n;
    for (size_t i = most; i > 0; i--)
        if (text[i] == ' ') return i;
    return most;
}

/* Draws the text between x and the canvas's right edge, or (to NULL) only counts its lines. */
static size_t draw_text(canvas *to, size_t x, size_t y, size_t width, size_t zoom, const char *text)
{
    const size_t most = width / (CELL_W * zoom) ? width / (CELL_W * zoom) : 1;
    size_t n_lines = 0;
    for (; *text; n_lines++) {
        const size_t n = line_length(text, most);
        for (size_t i = 0; i < n && to; i++)
            draw_char(to, x + i * CELL_W * zoom, y + n_lines * LINE_H * zoom, zoom, text[i]);
        text += n;
        while (*text == ' ') text++;
        if (*text == '\n') text++;
    }
    return n_lines;
}

/* Three significant digits. */
static void write_number(const rz_host *host, double v, char text[MAX_NUMBER])
{
    rz_str s = {.host = host};
    double scale = 1;
    for (int i = 0; i < 300 && v != 0 && fabs(v) * scale < 100; i++) scale *= 10;
    for (int i = 0; i < 300 && fabs(v) * scale >= 1000; i++) scale /= 10;
    rz_str_put_double(&s, scale >= 1 ? round(v * scale) / scale : round(v * scale) * round(1 / scale));
    size_t n = s.failed ? 0 : s.len < MAX_NUMBER ? s.len : MAX_NUMBER - 1;
    if (n) memcpy(text, s.data, n);
    text[n] = 0;
    rz_str_free(&s);
}

/* ---- The picture ---- */

typedef struct drawing {
    const rz_host *host;
    const rz_pixels *film;
    const float *map;
    double low, high, opacity;
    double black, white; /* samples of the film that are shown so */
    size_t zoom;         /* pixels per pixel of the film */
    size_t text;         /* pixels per pixel of a glyph */
    size_t top;          /* rows above the film, for the banner */
    canvas to;
} drawing;

static double gray_at(const rz_pixels *p, size_t i)
{
    double v[3] = {0};
    for (int c = 0; c < p->channels; c++) {
        const size_t at = i * (size_t)p->channels + (size_t)c;
        v[c] = p->bits == 16 ? ((const uint16_t *)p->data)[at] : ((const uint8_t *)p->data)[at];
    }
    return p->channels == 1 ? v[0] : .299 * v[0] + .587 * v[1] + .114 * v[2];
}

/* A film of 12 bits in 16 would be black: its own range is shown. */
static void find_range(drawing *d)
{
    const size_t n = d->film->width_px * d->film->height_px;
    d->black = 0, d->white = 255;
    if (d->film->bits == 8) return;
    d->black = 65535, d->white = 0;
    for (size_t i = 0; i < n; i++) {
        const double v = gray_at(d->film, i);
        d->black = v < d->black ? v : d->black;
        d->white = v > d->white ? v : d->white;
    }
    if (d->white <= d->black) d->white = d->black + 1;
}

static void find_ends(drawing *d, const radz_heatmap_picture *p)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < d->film->width_px * d->film->height_px; i++) {
        const double v = (double)d->map[i];
        if (!isfinite(v)) continue;
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    d->low = isnan(p->low) ? low : p->low;
    d->high = isnan(p->high) ? high : p->high;
}

static double heat_of(const drawing *d, double v)
{
    if (!isfinite(v)) return -1;
    const double t = d->high > d->low ? (v - d->low) / (d->high - d->low) : 0;
    return t < 0 ? 0 : t > 1 ? 1 : t;
}

static void draw_film(drawing *d)
{
    const size_t width = d->film->width_px * d->zoom, height = d->film->height_px * d->zoom;
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++) {
            const size_t i = y / d->zoom * d->film->width_px + x / d->zoom;
            const double gray = 255 * (gray_at(d->film, i) - d->black) / (d->white - d->black);
            blend(gray, heat_of(d, (double)d->map[i]), d->opacity, d->to.rgb + 3 * ((y + d->top) * d->to.width + x));
        }
}

/* The scale stands right of the film: colours as they lie over a middle gray, numbers at both ends and between. */
static void draw_scale(drawing *d)
{
    const size_t unit = d->text, left = d->film->width_px * d->zoom + 6 * unit, bar = 10 * unit;
    const size_t top = d->top + 8 * unit, height = d->to.height - top - 8 * unit;
    for (size_t j = 0; j < height; j++)
        for (size_t i = 0; i < bar; i++) {
            const double t = height > 1 ? 1 - (double)j / (double)(height - 1) : 0;
            blend(150, t, d->opacity, d->to.rgb + 3 * ((top + j) * d->to.width + left + i));
        }
    for (int k = 0; k <= 4; k++) {
        char text[MAX_NUMBER];
        const size_t y = top + (size_t)((double)(height - 1) * (4 - k) / 4 + .5);
        fill(&d->to, left + bar - 3 * unit, y, 3 * unit, unit, 24); /* outside it would read as a minus */
        write_number(d->host, d->low + (d->high - d->low) * k / 4, text);
        for (size_t i = 0; text[i]; i++)
            draw_char(&d->to, left + bar + 4 * unit + i * CELL_W * unit, y - 3 * unit, unit, text[i]);
    }
}

static void draw_gray(const drawing *d, uint8_t *to)
{
    for (size_t i = 0; i < d->film->width_px * d->film->height_px; i++)
        to[i] = level(255 * (gray_at(d->film, i) - d->black) / (d->white - d->black));
}

radz_status rz_heatmap_thumb(const rz_host *host, const rz_pixels *film, const float *map, double *low, double *high,
                             rz_pixels *out, radz_error *err)
{
    const radz_heatmap_picture whole = {.low = NAN, .high = NAN};
    drawing d = {.host = host, .film = film, .map = map, .opacity = .6, .zoom = 1};
    find_range(&d);
    RZ_TRY(rz_pixels_alloc(host, film->width_px, film->height_px, map ? 3 : 1, 8, "raw", "thumbnail", out, err));
    if (!map) {
        draw_gray(&d, out->data);
        return RADZ_OK;
    }
    find_ends(&d, &whole);
    d.to = (canvas){out->data, film->width_px, film->height_px};
    draw_film(&d);
    *low = d.low, *high = d.high;
    return RADZ_OK;
}

enum { SCALE_UNITS = 6 + 10 + 5 + 9 * CELL_W + 2, MIN_SIDE = 512, MIN_HEIGHT_UNITS = 72 };

/* The canvas fits the film, its scale and the banner; its size and that of its parts. */
static void lay_out(drawing *d, const char *banner)
{
    const size_t w = d->film->width_px, h = d->film->height_px, longest = w > h ? w : h;
    d->zoom = longest < MIN_SIDE ? (MIN_SIDE + longest - 1) / longest : 1;
    d->text = 1 + longest * d->zoom / 700;
    d->to.width = w * d->zoom + SCALE_UNITS * d->text;
    const size_t margin = 4 * d->text, n_lines = draw_text(NULL, 0, 0, d->to.width - 2 * margin, d->text, banner);
    d->top = n_lines ? n_lines * LINE_H * d->text + margin : 0;
    d->to.height = d->top + (h * d->zoom > MIN_HEIGHT_UNITS * d->text ? h * d->zoom : MIN_HEIGHT_UNITS * d->text);
}

radz_status rz_heatmap_draw(const rz_host *host, const rz_pixels *film, const float *map,
                            const radz_heatmap_picture *picture, const char *banner, rz_pixels *out, radz_error *err)
{
    drawing d = {.host = host, .film = film, .map = map, .opacity = picture->opacity};
    find_ends(&d, picture);
    if (!isfinite(d.low) || !isfinite(d.high) || d.low > d.high)
        return rz_fail(err, RADZ_E_ARGUMENT, "heat map: expected finite numbers, low not above high");
    find_range(&d);
    lay_out(&d, banner);
    RZ_TRY(rz_pixels_alloc(host, d.to.width, d.to.height, 3, 8, "raw", "heat map", out, err));
    d.to.rgb = out->data;
    fill(&d.to, 0, 0, d.to.width, d.to.height, 24);
    draw_text(&d.to, 4 * d.text, 4 * d.text, d.to.width - 8 * d.text, d.text, banner);
    draw_film(&d);
    draw_scale(&d);
    return RADZ_OK;
}
