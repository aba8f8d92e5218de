/* outline.c - marching squares: the line between nodes above a level and those below, on a grid that is coarse enough
 * for lines with few points. SPDX-License-Identifier: Apache-2.0 */
#include "outline.h"

#include <stdlib.h>

enum { MAX_NODES = 160 }; /* along the longer side */

/* Sides of a cell, in the order that makes the opposite of i (i + 2) % 4. */
enum { TOP, RIGHT, BOTTOM, LEFT };

/* A ring of cold nodes lies around those of the film, so that every line closes. */
typedef struct grid {
    const float *map;
    size_t width, height; /* of the map */
    size_t columns, rows; /* nodes with the ring */
    double step_x, step_y, level;
    uint8_t *seen; /* by cell: sides that a line has come in through */
} grid;

/* ---- Nodes ---- */

static size_t pixel_of(size_t node, double step, size_t n)
{
    const size_t i = (size_t)((double)(node - 1) * step);
    return i < n ? i : n - 1;
}

/* Above 0: hot. */
static double heat(const grid *g, size_t x, size_t y)
{
    if (x == 0 || y == 0 || x + 1 == g->columns || y + 1 == g->rows) return -1e-9;
    const size_t px = pixel_of(x, g->step_x, g->width), py = pixel_of(y, g->step_y, g->height);
    const double v = (double)g->map[py * g->width + px] - g->level;
    return isfinite(v) ? v : -1e-9;
}

/* The ring lies on the film's edge. */
static double place(size_t node, size_t last, double step, size_t n)
{
    if (node == 0 || node == last) return node ? (double)n : 0;
    return (double)pixel_of(node, step, n) + .5;
}

/* ---- Cells ---- */

static bool is_hot(const grid *g, size_t x, size_t y)
{
    return heat(g, x, y) >= 0;
}

/* Lines keep what is hot at their right hand. Sides of cell (x, y) that one comes in through, as bits. */
static unsigned ways_in(const grid *g, size_t x, size_t y)
{
    const bool tl = is_hot(g, x, y), tr = is_hot(g, x + 1, y), bl = is_hot(g, x, y + 1), br = is_hot(g, x + 1, y + 1);
    return (unsigned)(tl && !tr) << TOP | (unsigned)(tr && !br) << RIGHT | (unsigned)(br && !bl) << BOTTOM |
           (unsigned)(bl && !tl) << LEFT;
}

/* Where the line that comes in through `side` leaves: through the first side behind it, clockwise from the hot corner,
 * between whose ends the heat changes the other way. */
static int way_out(const grid *g, size_t x, size_t y, int side)
{
    const bool hot[4] = {is_hot(g, x, y), is_hot(g, x + 1, y), is_hot(g, x + 1, y + 1), is_hot(g, x, y + 1)};
    for (int i = 3; i > 0; i--) { /* counter-clockwise: hot corners that touch only at a point stay apart */
        const int s = (side + i) % 4;
        if (!hot[s] && hot[(s + 1) % 4]) return s;
    }
    return side;
}

/* Where the level is crossed on that side of the cell. */
static void crossing(const grid *g, size_t x, size_t y, int side, float xy[2])
{
    const size_t x0 = x + (side == RIGHT), y0 = y + (side == BOTTOM);
    const size_t x1 = x0 + (side == TOP || side == BOTTOM), y1 = y0 + (side == LEFT || side == RIGHT);
    const double a = heat(g, x0, y0), b = heat(g, x1, y1), t = a == b ? .5 : a / (a - b);
    const double ax = place(x0, g->columns - 1, g->step_x, g->width),
                 bx = place(x1, g->columns - 1, g->step_x, g->width);
    const double ay = place(y0, g->rows - 1, g->step_y, g->height), by = place(y1, g->rows - 1, g->step_y, g->height);
    xy[0] = (float)(ax + t * (bx - ax)), xy[1] = (float)(ay + t * (by - ay));
}

/* ---- Lines ---- */

static bool add_point(const rz_host *host, rz_line *line, size_t *cap, const float xy[2])
{
    if (line->n == *cap) {
        const size_t more = *cap ? 2 * *cap : 64;
        float *p = rz_realloc(host, line->xy, more, 2 * sizeof *p);
        if (!p) return false;
        line->xy = p;
        *cap = more;
    }
    memcpy(line->xy + 2 * line->n++, xy, 2 * sizeof *xy);
    return true;
}

static bool follow(const rz_host *host, grid *g, size_t x, size_t y, int side, rz_line *line)
{
    const size_t x0 = x, y0 = y, n_cells = g->columns - 1;
    const int side0 = side;
    size_t cap = 0;
    float xy[2];
    crossing(g, x, y, side, xy);
    if (!add_point(host, line, &cap, xy)) return false;
    do {
        g->seen[y * n_cells + x] |= (uint8_t)(1u << side);
        const int out = way_out(g, x, y, side);
        crossing(g, x, y, out, xy);
        if (!add_point(host, line, &cap, xy)) return false;
        x = out == RIGHT ? x + 1 : out == LEFT ? x - 1 : x;
        y = out == BOTTOM ? y + 1 : out == TOP ? y - 1 : y;
        side = (out + 2) % 4;
    } while (x != x0 || y != y0 || side != side0);
    return true;
}

/* Every second point, as often as it takes. */
static void thin(rz_line *line)
{
    while (line->n > RZ_OUTLINE_MAX_POINTS) {
        size_t n = 0;
        for (size_t i = 0; i + 1 < line->n; i += 2, n++)
            memmove(line->xy + 2 * n, line->xy + 2 * i, 2 * sizeof *line->xy);
        memcpy(line->xy + 2 * n++, line->xy, 2 * sizeof *line->xy);
        line->n = n;
    }
}

static void measure(rz_line *line)
{
    double twice = 0;
    for (size_t i = 0; i + 1 < line->n; i++) {
        const float *p = line->xy + 2 * i;
        twice += (double)p[0] * (double)p[3] - (double)p[2] * (double)p[1];
    }
    line->area = fabs(twice) / 2;
}

static int by_area(const void *a, const void *b)
{
    const rz_line *x = a, *y = b;
    return (x->area < y->area) - (x->area > y->area);
}

/* Puts the line in, or in the place of the smallest where there is no more room. */
static void take_line(rz_outline *o, size_t max_lines, rz_line *line)
{
    if (o->n == max_lines) {
        qsort(o->lines, o->n, sizeof *o->lines, by_area);
        rz_line *last = &o->lines[o->n - 1], swap = *last;
        if (line->area > last->area) *last = *line, *line = swap;
        rz_free(o->host, line->xy);
        return;
    }
    o->lines[o->n++] = *line;
}

static bool trace_all(grid *g, size_t max_lines, rz_outline *o)
{
    for (size_t y = 0; y + 1 < g->rows; y++)
        for (size_t x = 0; x + 1 < g->columns; x++) {
            const unsigned ways = ways_in(g, x, y);
            for (int side = TOP; side <= LEFT; side++) {
                rz_line line = {0};
                if (!(ways >> side & 1) || g->seen[y * (g->columns - 1) + x] >> side & 1) continue;
                if (!follow(o->host, g, x, y, side, &line)) {
                    rz_free(o->host, line.xy);
                    return false;
                }
                thin(&line);
                measure(&line);
                take_line(o, max_lines, &line);
            }
        }
    qsort(o->lines, o->n, sizeof *o->lines, by_area);
    return true;
}

radz_status rz_outline_trace(const rz_host *host, const float *map, size_t width, size_t height, double level,
                             size_t max_lines, rz_outline *out, radz_error *err)
{
    const size_t longest = width > height ? width : height;
    const double step = longest > MAX_NODES ? (double)longest / MAX_NODES : 1;
    grid g = {.map = map, .width = width, .height = height, .level = level, .step_x = step, .step_y = step};
    g.columns = (size_t)ceil((double)width / step) + 2;
    g.rows = (size_t)ceil((double)height / step) + 2;
    *out = (rz_outline){.host = host};
    g.seen = rz_calloc(host, g.columns - 1, g.rows - 1);
    out->lines = rz_calloc(host, max_lines, sizeof *out->lines);
    const bool good = g.seen && out->lines && trace_all(&g, max_lines, out);
    rz_free(host, g.seen);
    if (good) return RADZ_OK;
    rz_outline_free(out);
    return RZ_NO_MEMORY(err, "the outline of a heat map");
}

void rz_outline_free(rz_outline *o)
{
    for (size_t i = 0; i < o->n; i++) rz_free(o->host, o->lines[i].xy);
    rz_free(o->host, o->lines);
    *o = (rz_outline){0};
}
