/* preprocess.c - a decoded film to the tower's input: pad, bicubic resize, crop, rescale, normalise.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The resize is PIL's: antialiased bicubic in two passes, both rounded to the sample depth. Only what the crop
 * keeps is computed. Padding is never stored: a pass runs over samples minus the padding colour, and the padding's own
 * share of each sum is a constant known beforehand. So a film of 1 x 65500 pixels costs no more than its pixels. */
#include "preprocess.h"

#include "device.h"

#define PRECISION RZ_RESAMPLE_BITS
#define LOW (1 << RZ_RESAMPLE_SPLIT)
#define LINES RZ_RESAMPLE_LINES /* that go through a pass together */
#define LANES 8                 /* taps are filled up with zeros to a multiple of this */
#define N_PARTS 4               /* of a pass, for as many threads */
#define BLOCK_BYTES (32u << 20) /* most memory for the picture between the passes */

/* ---- One axis --------------------------------------------------------------------------- */

/* An axis of the resize: from n_padded samples (image samples [pad, pad + n_image), padding around them) to n_resized,
 * of which outputs [first, first + n_out) are wanted. */
typedef struct span {
    size_t n_image, pad, n_padded, n_resized, first, n_out;
} span;

/* The filter of every wanted output: taps start[o] .. start[o] + n_taps over image samples, weights row by row. 8-bit
 * films use high and low and total (the sum over padding too), 16-bit ones real. */
typedef struct filter {
    const rz_host *host;
    size_t n_taps, line; /* line: samples a padded line buffer needs */
    size_t lit, dark;    /* outputs [lit, dark) see image samples, the others nothing but padding */
    size_t *start;
    int16_t *high, *low;
    int32_t *total;
    double *real;
} filter;

static void filter_free(filter *f)
{
    rz_free(f->host, f->start);
    rz_free(f->host, f->high);
    rz_free(f->host, f->low);
    rz_free(f->host, f->total);
    rz_free(f->host, f->real);
}

/* Keys' cubic with a = -1/2 */
static double cubic(double x)
{
    if (x < 0) x = -x;
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    if (x < 2) return ((-.5 * x + 2.5) * x - 4) * x + 2;
    return 0;
}

/* Samples [*from, *to) of the padded axis that output o (counted from the whole resized axis) is made of. */
static double reach_of(const span *s, size_t o, size_t *from, size_t *to)
{
    const double scale = (double)s->n_padded / (double)s->n_resized;
    const double reach = 2 * (scale < 1 ? 1 : scale), center = ((double)o + .5) * scale;
    const double low = center - reach + .5, high = center + reach + .5;
    *from = low < 0 ? 0 : (size_t)low;
    *to = high > (double)s->n_padded ? s->n_padded : (size_t)high;
    return center;
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Weights of one output over its whole reach, summing to 1. */
static void weigh(const span *s, double center, size_t from, size_t to, double *w)
{
    const double scale = (double)s->n_padded / (double)s->n_resized, shrink = 1 / (scale < 1 ? 1 : scale);
    double sum = 0;
    for (size_t i = from; i < to; i++) {
        w[i - from] = cubic(((double)i - center + .5) * shrink);
        sum += w[i - from];
    }
    if (sum != 0)
        for (size_t i = 0; i < to - from; i++) w[i] /= sum;
}

/* Weights over image samples into row o of the filter. */
static void store_weights(filter *f, const span *s, size_t o, size_t from, size_t to, const double *w)
{
    const size_t begin = s->pad, end = s->pad + s->n_image;
    const size_t a = from < begin ? begin : from > end ? end : from, b = to > end ? end : to;
    const size_t odd = f->real ? 0 : (a - begin) % 2; /* 8-bit samples are taken in pairs */
    f->start[o] = a - begin - odd;
    if (from >= end) f->dark = f->dark < o ? f->dark : o;
    if (to <= begin) f->lit = o + 1;
    if (f->real) {
        for (size_t i = a; i < b; i++) f->real[o * f->n_taps + i - a] = w[i - from];
        return;
    }
    for (size_t i = from; i < to; i++) {
        const double fixed = w[i - from] * (1 << PRECISION);
        const int32_t k = (int32_t)(fixed < 0 ? fixed - .5 : fixed + .5);
        f->total[o] += k;
        if (i < a || i >= b) continue;
        /* low in [-LOW / 2, LOW / 2): never larger than k itself, so sums of it cannot overflow */
        const int32_t high = (k + LOW / 2) >> RZ_RESAMPLE_SPLIT;
        f->high[o * f->n_taps + odd + i - a] = (int16_t)high;
        f->low[o * f->n_taps + odd + i - a] = (int16_t)(k - high * LOW);
    }
}

/* f->host is set. On failure the caller frees f. */
static radz_status filter_make(const span *s, int bits, filter *f, radz_error *err)
{
    const rz_host *host = f->host;
    size_t reach = 0, from, to;
    for (size_t o = 0; o < s->n_out; o++) {
        reach_of(s, s->first + o, &from, &to);
        if (to - from > reach) reach = to - from;
    }
    f->n_taps = round_up((reach < s->n_image ? reach : s->n_image) + (bits == 8), LANES);
    f->line = s->n_image + f->n_taps;
    f->dark = s->n_out;
    double *w = rz_calloc(host, reach, sizeof *w);
    f->start = rz_calloc(host, s->n_out, sizeof *f->start);
    bool ok = w && f->start;
    size_t n_weights;
    if (!rz_size_mul(s->n_out, f->n_taps, &n_weights)) ok = false;
    if (ok && bits == 16) ok = (f->real = rz_calloc(host, n_weights, sizeof *f->real)) != NULL;
    if (ok && bits == 8) {
        f->high = rz_calloc(host, n_weights, sizeof *f->high);
        f->low = rz_calloc(host, n_weights, sizeof *f->low);
        f->total = rz_calloc(host, s->n_out, sizeof *f->total);
        ok = f->high && f->low && f->total;
    }
    for (size_t o = 0; ok && o < s->n_out; o++) {
        const double center = reach_of(s, s->first + o, &from, &to);
        weigh(s, center, from, to, w);
        store_weights(f, s, o, from, to, w);
    }
    rz_free(host, w);
    return ok ? RADZ_OK : RZ_NO_MEMORY(err, "the weights of a resize");
}

/* ---- Lines ------------------------------------------------------------------------------------ */

/* Samples of up to LINES lines, what padding has there taken off: 8-bit ones as rz_resample_lines takes them, the
 * others (double) of one line after another, `ld` apart. n_taps more may be read than were loaded: their weights are
 * zero. */
typedef struct lines {
    void *data;
    size_t ld;
    int32_t pad[LINES];
} lines;

static double dot16(const double *x, const double *w, size_t n)
{
    double s[4] = {0};
    for (size_t i = 0; i < n; i += 4)
        for (size_t j = 0; j < 4; j++) s[j] += x[i + j] * w[i + j];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

/* Outputs [o0, o1) of n lines; those of a line lie `stride` apart, those of LINES lines side by side. */
static void filter_lines(const filter *f, const lines *x, size_t n, size_t o0, size_t o1, uint16_t *out, size_t stride)
{
    if (!f->real) {
        rz_resample r = {f->n_taps, f->start, f->high, f->low, f->total, {0}};
        memcpy(r.pad, x->pad, sizeof r.pad);
        rz_resample_lines(&r, x->data, o0, o1, out, stride);
        return;
    }
    for (size_t o = o0; o < o1; o++, out += stride)
        for (size_t l = 0; l < n; l++) {
            const double *line = (const double *)x->data + l * x->ld;
            const double v = x->pad[l] + .5 + dot16(line + f->start[o], f->real + o * f->n_taps, f->n_taps);
            out[l] = v < 0 ? 0 : v >= 65535 ? 65535 : (uint16_t)v;
        }
}

/* n samples p, `step` apart, become line l. */
#define LOAD_PAIRS(p, step)                                                                                            \
    {                                                                                                                  \
        int16_t *restrict to = (int16_t *)x->data + 2 * l;                                                             \
        for (size_t i = 0; i + 1 < n; i += 2, to += 2 * LINES)                                                         \
            to[0] = (int16_t)((p)[i * (step)] - pad), to[1] = (int16_t)((p)[(i + 1) * (step)] - pad);                  \
        if (n % 2) to[0] = (int16_t)((p)[(n - 1) * (step)] - pad), to[1] = 0;                                          \
    }

/* One channel of row `index`, or of column `index` when upright is set. */
static void load_film(const rz_pixels *film, bool upright, size_t index, size_t c, lines *x, size_t l)
{
    const size_t row = film->width_px * (size_t)film->channels, pixel = (size_t)film->channels;
    const size_t n = upright ? film->height_px : film->width_px, step = upright ? row : pixel;
    const size_t at = index * (upright ? pixel : row) + c;
    const int pad = x->pad[l];
    if (film->bits == 8) {
        const uint8_t *p = (const uint8_t *)film->data + at;
        LOAD_PAIRS(p, step)
    } else {
        const uint16_t *p = (const uint16_t *)film->data + at;
        double *to = (double *)x->data + l * x->ld;
        for (size_t i = 0; i < n; i++) to[i] = p[i * step] - pad;
    }
}

static void load_between(const uint16_t *p, size_t n, int bits, lines *x, size_t l)
{
    const int pad = x->pad[l];
    if (bits == 8) {
        LOAD_PAIRS(p, 1)
    } else {
        double *to = (double *)x->data + l * x->ld;
        for (size_t i = 0; i < n; i++) to[i] = p[i] - pad;
    }
}

/* A line of nothing but padding. */
static void load_padding(size_t n, int bits, lines *x, size_t l)
{
    if (bits == 8)
        for (size_t i = 0; i < n; i += 2) memset((int16_t *)x->data + (i * LINES + 2 * l), 0, 2 * sizeof(int16_t));
    else
        memset((double *)x->data + l * x->ld, 0, n * sizeof(double));
}

/* ---- Both passes ------------------------------------------------------------------------------ */

typedef struct resize {
    const rz_pixels *film;
    bool upright;             /* the first pass runs along columns, the second along rows; else the other way round */
    filter first, second;     /* of the two passes */
    size_t n_first, n_second; /* outputs of either */
    size_t skip, n_lines;     /* lines of the film that the wanted outputs are made of */
    size_t block, stride;     /* outputs of the first pass at a time, samples from one to the next */
    uint16_t *between;        /* (block, stride): transposed, so that the second pass reads along memory too */
    rz_pool *pool;
    lines line[N_PARTS];
    uint16_t *result[N_PARTS]; /* of LINES lines of the second pass */
} resize;

static void resize_free(resize *r)
{
    const rz_host *host = r->first.host;
    filter_free(&r->first);
    filter_free(&r->second);
    rz_free(host, r->between);
    for (size_t i = 0; i < N_PARTS; i++) rz_free(host, r->line[i].data), rz_free(host, r->result[i]);
}

/* Which axis goes first shows where a sharp edge overshoots and is clamped. PIL 13 takes the height first when that
 * shrinks by more than twice what the width does (older ones never); a chest film is not that tall. */
static bool height_first(const span *x, const span *y)
{
    return y->n_padded > y->n_resized &&
           (double)y->n_padded - (double)y->n_resized > 2 * ((double)x->n_padded - (double)x->n_resized);
}

/* The lines between the passes: how many, how far apart, in blocks of what size. */
static radz_status make_lines(resize *r, size_t n_image, radz_error *err)
{
    const rz_host *host = r->first.host;
    const size_t end = r->second.start[r->n_second - 1] + r->second.n_taps;
    r->skip = r->second.start[0];
    r->n_lines = (end < n_image ? end : n_image) - r->skip;
    for (size_t o = 0; o < r->n_second; o++) r->second.start[o] -= r->skip;
    /* An odd number of cache lines: neighbours then do not fall on each other in the cache. */
    r->stride = (r->n_lines / 32 | 1) * 32 + 32 * 2;
    const size_t fit = BLOCK_BYTES / (r->stride * sizeof *r->between);
    r->block = fit < 1 ? 1 : fit < r->n_first ? fit : r->n_first;
    const size_t n_line = r->first.line > r->second.line ? r->first.line : r->second.line;
    r->between = rz_malloc(host, r->block * r->stride * sizeof *r->between);
    bool ok = r->between != NULL;
    for (size_t i = 0; ok && i < N_PARTS; i++) {
        r->line[i].ld = n_line;
        r->line[i].data = rz_calloc(host, n_line, LINES * (r->film->bits == 8 ? sizeof(int16_t) : sizeof(double)));
        r->result[i] = rz_calloc(host, r->n_second, LINES * sizeof *r->result[i]);
        ok = r->line[i].data && r->result[i];
    }
    return ok ? RADZ_OK : RZ_NO_MEMORY(err, "the lines of a resize");
}

static radz_status resize_make(const rz_host *host, rz_pool *pool, const rz_pixels *film, const span *x, const span *y,
                               resize *r, radz_error *err)
{
    const bool upright = height_first(x, y);
    const span *first = upright ? y : x, *second = upright ? x : y;
    *r = (resize){.film = film, .pool = pool, .upright = upright, .n_first = first->n_out, .n_second = second->n_out};
    r->first.host = r->second.host = host;
    radz_status status = filter_make(first, film->bits, &r->first, err);
    if (status == RADZ_OK) status = filter_make(second, film->bits, &r->second, err);
    if (status == RADZ_OK) status = make_lines(r, second->n_image, err);
    if (status != RADZ_OK) resize_free(r);
    return status;
}

/* One channel, outputs [o0, o1) of the first pass. */
typedef struct sink sink;
typedef struct pass {
    resize *r;
    size_t c, o0, o1;
    int pad;
    const sink *to;
} pass;

/* Which of n lines a part takes: whole groups of LINES, from *begin to what is returned. */
static size_t share_of(size_t n, size_t part, size_t *begin)
{
    const size_t groups = (n + LINES - 1) / LINES, end = groups * (part + 1) / N_PARTS * LINES;
    *begin = groups * part / N_PARTS * LINES;
    return end < n ? end : n;
}

/* Its share of the film's lines, into r->between. */
static void first_pass(void *user, size_t part)
{
    const pass *p = user;
    resize *r = p->r;
    lines *x = &r->line[part];
    const size_t from = p->o0 < r->first.lit ? r->first.lit : p->o0, to = p->o1 > r->first.dark ? r->first.dark : p->o1;
    size_t i, end = share_of(r->n_lines, part, &i);
    if (from >= to) return;
    for (size_t l = 0; l < LINES; l++) x->pad[l] = p->pad;
    for (; i < end; i += LINES) {
        const size_t n = end - i < LINES ? end - i : LINES;
        for (size_t l = 0; l < n; l++) load_film(r->film, r->upright, r->skip + i + l, p->c, x, l);
        filter_lines(&r->first, x, n, from, to, r->between + (from - p->o0) * r->stride + i, r->stride);
    }
}

/* What the first pass makes of a line of padding. */
static int filter_padding(const filter *f, size_t o, int pad)
{
    if (f->real) return pad;
    const int32_t v = (pad * f->total[o] + (1 << (PRECISION - 1))) >> PRECISION;
    return v < 0 ? 0 : v > 255 ? 255 : v;
}

/* Where results go: handed over in lines, n_lines from number `index` on, along x or, if upright, along y: n values
 * each, those of LINES lines side by side. */
struct sink {
    void (*put)(const sink *to, size_t index, size_t n_lines, bool upright, const uint16_t *values, size_t n);
    const rz_preprocess_config *cfg;
    size_t size, left, top, c0, c1; /* tower: where the picture begins, channels that these values are for */
    double rescale;
    const float *levels; /* what 8-bit values of each channel become; NULL: to be computed */
    float *out;
    const rz_pixels *picture; /* rz_resize_bicubic */
};

/* Line o of the second pass, the l-th of x; r->between begins with output o0 of the first pass. */
static void load_second(const resize *r, size_t o, size_t o0, int pad, lines *x, size_t l)
{
    x->pad[l] = filter_padding(&r->first, o, pad);
    if (o >= r->first.lit && o < r->first.dark)
        load_between(r->between + (o - o0) * r->stride, r->n_lines, r->film->bits, x, l);
    else
        load_padding(r->n_lines, r->film->bits, x, l);
}

static void second_pass(void *user, size_t part)
{
    const pass *p = user;
    resize *r = p->r;
    size_t i, end = share_of(p->o1 - p->o0, part, &i);
    for (; i < end; i += LINES) {
        const size_t n = end - i < LINES ? end - i : LINES, o = p->o0 + i;
        for (size_t l = 0; l < n; l++) load_second(r, o + l, p->o0, p->pad, &r->line[part], l);
        filter_lines(&r->second, &r->line[part], n, 0, r->n_second, r->result[part], LINES);
        p->to->put(p->to, o, n, r->upright, r->result[part], r->n_second);
    }
}

static void resize_channel(resize *r, size_t c, int pad, const sink *to)
{
    for (size_t o0 = 0; o0 < r->n_first; o0 += r->block) {
        const size_t o1 = o0 + r->block < r->n_first ? o0 + r->block : r->n_first;
        pass p = {r, c, o0, o1, pad, to};
        rz_pool_run(r->pool, N_PARTS, first_pass, &p);
        rz_pool_run(r->pool, N_PARTS, second_pass, &p);
    }
}

/* ---- rz_resize_bicubic --------------------------------------------------------------------------- */

static void put_picture(const sink *to, size_t index, size_t n_lines, bool upright, const uint16_t *values, size_t n)
{
    const size_t pixel = (size_t)to->picture->channels, row = to->picture->width_px * pixel;
    const size_t step = upright ? pixel : row, line = upright ? row : pixel;
    for (size_t i = 0; i < n; i++, values += LINES)
        for (size_t l = 0; l < n_lines; l++) {
            const size_t at = (index + l) * line + i * step + to->c0;
            if (to->picture->bits == 8)
                ((uint8_t *)to->picture->data)[at] = (uint8_t)values[l];
            else
                ((uint16_t *)to->picture->data)[at] = values[l];
        }
}

radz_status rz_resize_bicubic(const rz_host *host, const rz_pixels *src, size_t dst_w, size_t dst_h, rz_pixels *out,
                              radz_error *err)
{
    const span x = {src->width_px, 0, src->width_px, dst_w, 0, dst_w};
    const span y = {src->height_px, 0, src->height_px, dst_h, 0, dst_h};
    RZ_TRY(rz_pixels_alloc(host, dst_w, dst_h, src->channels, src->bits, src->format, "resize", out, err));
    resize r;
    const radz_status status = resize_make(host, NULL, src, &x, &y, &r, err);
    if (status != RADZ_OK) {
        rz_pixels_free(host, out);
        return status;
    }
    for (size_t c = 0; c < (size_t)src->channels; c++)
        resize_channel(&r, c, 0, &(sink){.put = put_picture, .picture = out, .c0 = c});
    resize_free(&r);
    return RADZ_OK;
}

enum { N_LEVELS = 256 };

/* ---- rz_preprocess ---------------------------------------------------------------------------------- */

static float normalise(const sink *to, size_t c, unsigned value)
{
    return ((float)(value * to->rescale) - to->cfg->mean[c]) / to->cfg->std[c];
}

static void put_tower(const sink *to, size_t index, size_t n_lines, bool upright, const uint16_t *values, size_t n)
{
    const size_t x = to->left + (upright ? 0 : index), y = to->top + (upright ? index : 0);
    const size_t step = upright ? 1 : to->size, line = upright ? to->size : 1;
    for (size_t c = to->c0; c < to->c1; c++) {
        const float *levels = to->levels ? to->levels + c * N_LEVELS : NULL;
        const uint16_t *v = values;
        float *out = to->out + (c * to->size + y) * to->size + x;
        for (size_t i = 0; i < n; i++, v += LINES, out += step)
            for (size_t l = 0; l < n_lines; l++) out[l * line] = levels ? levels[v[l]] : normalise(to, c, v[l]);
    }
}

/* Where a crop smaller or larger than the picture begins; *place: where the picture begins in the crop's result. */
static void crop_axis(span *s, size_t crop, size_t *place)
{
    *place = 0;
    s->first = 0;
    s->n_out = s->n_resized;
    if (crop <= s->n_resized) {
        s->first = (s->n_resized - crop) / 2;
        s->n_out = crop;
    } else {
        *place = (crop - s->n_resized + 1) / 2;
    }
}

/* The plan of both axes: padding, resize, crop, as CLIPImageProcessor computes sizes. */
static radz_status plan(const rz_preprocess_config *cfg, size_t size, const rz_pixels *film, span *x, span *y,
                        size_t *left, size_t *top, radz_error *err)
{
    const size_t w = film->width_px, h = film->height_px, longest = w > h ? w : h;
    const size_t edge = cfg->shortest_edge;
    *x = (span){.n_image = w, .n_padded = w};
    *y = (span){.n_image = h, .n_padded = h};
    if (cfg->pad_to_square) {
        *x = (span){w, (longest - w) / 2, longest, 0, 0, 0};
        *y = (span){h, (longest - h) / 2, longest, 0, 0, 0};
    }
    x->n_resized = x->n_padded;
    y->n_resized = y->n_padded;
    if (cfg->resize) {
        if (edge < 1 || edge > 65536)
            return rz_fail(err, RADZ_E_LIMIT, "preprocessing: shortest edge %zu, expected 1..65536", edge);
        const bool upright = x->n_padded <= y->n_padded;
        x->n_resized = upright ? edge : edge * x->n_padded / y->n_padded;
        y->n_resized = upright ? edge * y->n_padded / x->n_padded : edge;
    }
    const size_t want_w = cfg->crop ? cfg->crop_width : x->n_resized;
    const size_t want_h = cfg->crop ? cfg->crop_height : y->n_resized;
    if (want_w != size || want_h != size)
        return rz_fail(err, RADZ_E_MISMATCH, "preprocessing gives %zu x %zu pixels, the vision tower takes %zu x %zu",
                       want_w, want_h, size, size);
    crop_axis(x, want_w, left);
    crop_axis(y, want_h, top);
    return RADZ_OK;
}

/* int(255 * mean) of the padding, in the film's depth. */
static int pad_color(const rz_preprocess_config *cfg, const rz_pixels *film, size_t c)
{
    if (!cfg->pad_to_square || film->width_px == film->height_px) return 0;
    const float v = 255 * cfg->mean[c];
    const int level = !(v > 0) ? 0 : v > 255 ? 255 : (int)v;
    return film->bits == 8 ? level : level * 257;
}

bool rz_preprocess_is_gray(const rz_preprocess_config *cfg, const rz_pixels *film)
{
    const int pad = pad_color(cfg, film, 0);
    return film->channels == 1 && pad == pad_color(cfg, film, 1) && pad == pad_color(cfg, film, 2);
}

/* A gray film is resized once where one padding color does for all channels. */
static void run_channels(resize *r, sink *to, size_t n_planes)
{
    const rz_pixels *film = r->film;
    const size_t n = rz_preprocess_is_gray(to->cfg, film) ? n_planes : 1;
    for (size_t c = 0; c < n_planes; c += n) {
        to->c0 = c;
        to->c1 = c + n;
        resize_channel(r, film->channels == 1 ? 0 : c, pad_color(to->cfg, film, c), to);
    }
}

radz_status rz_preprocess(const rz_host *host, const rz_preprocess_config *cfg, size_t image_size,
                          const rz_pixels *film, float *out, radz_error *err)
{
    return rz_preprocess_on(NULL, host, cfg, image_size, film, 3, out, err);
}

radz_status rz_preprocess_on(rz_pool *pool, const rz_host *host, const rz_preprocess_config *cfg, size_t image_size,
                             const rz_pixels *film, size_t n_planes, float *out, radz_error *err)
{
    span x, y;
    resize r;
    float levels[3 * N_LEVELS];
    sink to = {.put = put_tower, .cfg = cfg, .out = out, .size = image_size};
    /* A 16-bit film's white is 65535 = 255 * 257. */
    to.rescale = film->bits == 8 ? (double)cfg->rescale : (double)cfg->rescale / 257;
    RZ_TRY(plan(cfg, image_size, film, &x, &y, &to.left, &to.top, err));
    RZ_TRY(resize_make(host, pool, film, &x, &y, &r, err));
    if (x.n_out < image_size || y.n_out < image_size)
        for (size_t c = 0; c < n_planes; c++)
            for (size_t i = 0; i < image_size * image_size; i++)
                out[c * image_size * image_size + i] = normalise(&to, c, 0);
    if (film->bits == 8) {
        for (size_t c = 0; c < n_planes; c++)
            for (unsigned v = 0; v < N_LEVELS; v++) levels[c * N_LEVELS + v] = normalise(&to, c, v);
        to.levels = levels;
    }
    run_channels(&r, &to, n_planes);
    resize_free(&r);
    return RADZ_OK;
}

radz_status rz_preprocess_place(const rz_preprocess_config *cfg, size_t image_size, size_t width_px, size_t height_px,
                                rz_placement *out, radz_error *err)
{
    const rz_pixels film = {.width_px = width_px, .height_px = height_px};
    span x, y;
    size_t left = 0, top = 0;
    RZ_TRY(plan(cfg, image_size, &film, &x, &y, &left, &top, err));
    out->x_scale = (double)x.n_resized / (double)x.n_padded;
    out->y_scale = (double)y.n_resized / (double)y.n_padded;
    out->x_shift = (double)x.pad * out->x_scale - (double)x.first + (double)left;
    out->y_shift = (double)y.pad * out->y_scale - (double)y.first + (double)top;
    return RADZ_OK;
}
