/* eval_boxes.c - heat maps of films on which somebody has drawn where a finding is: the pointing game, deletion and
 * insertion, each beside patches in random order. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "eval.h"
#include "heatmap.h"
#include "modeldir.h"
#include "saliency.h"

#define MAX_CSV_BYTES ((size_t)1 << 28)

const char *rz_map_name(int map)
{
    static const char *const names[RZ_MAPS] = {"similarity", "attention", "gradient", "random"};
    return names[map];
}

/* ---- The file ---- */

typedef struct drawn {
    size_t row, c, line;
    radz_box box;
    double film_width, film_height;
} drawn;

typedef struct box_file {
    const rz_eval *e;
    rz_eval_boxes *out;
    rz_csv *csv, *map;
    int path, label, number[6]; /* columns; number: x, y, width, height, film_width, film_height */
    rz_names whole, ends;       /* paths of the films, and what follows their last '/' */
    size_t *by_whole, *by_end;  /* rows; by_end RZ_EVAL_NONE: of several films */
    drawn *boxes;
    size_t n;
} box_file;

static int column_of(const rz_csv *csv, const char *const *names)
{
    int c = -1;
    for (; *names && c < 0; names++) c = rz_csv_column(csv, *names);
    return c;
}

/* Names of our own and those of ChestX-ray14's BBox_List_2017.csv, whose header has "Bbox [x,y,w,h]" in four cells. */
static radz_status find_columns(box_file *f, radz_error *err)
{
    static const char *const path[] = {"path", "Path", "Image Index", NULL};
    static const char *const label[] = {"class", "label", "Finding Label", NULL};
    static const char *const number[6][4] = {{"x", "Bbox [x", NULL},      {"y", NULL},          {"width", "w", NULL},
                                             {"height", "h", "h]", NULL}, {"film_width", NULL}, {"film_height", NULL}};
    f->path = column_of(f->csv, path), f->label = column_of(f->csv, label);
    bool good = f->path >= 0 && f->label >= 0;
    for (int k = 0; k < 6; k++) {
        f->number[k] = column_of(f->csv, number[k]);
        good = good && (k > 3 || f->number[k] >= 0);
    }
    if (good) return RADZ_OK;
    return rz_fail(err, RADZ_E_FORMAT, "%s: expected a header with the columns path, class, x, y, width and height",
                   f->e->o->boxes);
}

static radz_status index_films(box_file *f, radz_error *err)
{
    const rz_eval_data *d = &f->e->data;
    f->by_whole = rz_calloc(d->host, d->n, sizeof *f->by_whole);
    f->by_end = rz_calloc(d->host, d->n, sizeof *f->by_end);
    if (!f->by_whole || !f->by_end) return RZ_NO_MEMORY(err, "films with boxes");
    for (size_t i = 0; i < d->n; i++) {
        const char *slash = strrchr(d->rows[i].shown, '/');
        size_t id, before = f->whole.n;
        if (d->rows[i].validation) continue;
        RZ_TRY(rz_names_add(d->host, &f->whole, d->rows[i].shown, &id, err));
        if (id == before) f->by_whole[id] = i;
        before = f->ends.n;
        RZ_TRY(rz_names_add(d->host, &f->ends, slash ? slash + 1 : d->rows[i].shown, &id, err));
        f->by_end[id] = id == before ? i : RZ_EVAL_NONE;
    }
    return RADZ_OK;
}

static size_t find_film(const box_file *f, const char *path)
{
    size_t id = rz_names_find(&f->whole, path);
    if (id < f->whole.n) return f->by_whole[id];
    id = strchr(path, '/') ? f->ends.n : rz_names_find(&f->ends, path);
    return id < f->ends.n ? f->by_end[id] : RZ_EVAL_NONE;
}

static radz_status take_numbers(const box_file *f, size_t i, double v[6], radz_error *err)
{
    bool good = true;
    for (int k = 0; k < 6; k++) {
        const char *text = rz_csv_get(f->csv, i, f->number[k]);
        v[k] = 0;
        if (k > 3 && !*text) continue;
        good = good && rz_parse_double(text, strlen(text), &v[k]) && fabs(v[k]) < 1e7;
    }
    if (good && v[2] > 0 && v[3] > 0 && (v[4] > 0) == (v[5] > 0) && v[4] >= 0 && v[5] >= 0) return RADZ_OK;
    return rz_fail(err, RADZ_E_FORMAT, "%s: line %zu: expected numbers of pixels, width and height above 0",
                   f->e->o->boxes, rz_csv_line(f->csv, i));
}

static radz_status take_box(box_file *f, size_t i, radz_error *err)
{
    const rz_eval *e = f->e;
    double v[6];
    RZ_TRY(take_numbers(f, i, v, err));
    const size_t row = find_film(f, rz_csv_get(f->csv, i, f->path));
    if (row == RZ_EVAL_NONE) {
        f->out->n_other_films++;
        return RADZ_OK;
    }
    const char *set = e->data.sets.items[e->data.rows[row].set];
    const size_t c = rz_eval_class(e->bank, rz_eval_mapped(f->map, rz_csv_get(f->csv, i, f->label), set));
    if (c == RZ_EVAL_NONE) {
        f->out->n_other_classes++;
        return RADZ_OK;
    }
    f->boxes[f->n++] = (drawn){row, c, i, {v[0], v[1], v[2], v[3]}, v[4], v[5]};
    return RADZ_OK;
}

static int by_place(const void *pa, const void *pb)
{
    const drawn *a = pa, *b = pb;
    if (a->row != b->row) return a->row > b->row ? 1 : -1;
    if (a->c != b->c) return a->c > b->c ? 1 : -1;
    return a->line > b->line ? 1 : a->line < b->line ? -1 : 0;
}

/* Boxes of one film and class side by side are one place. */
static radz_status make_places(const box_file *f, radz_error *err)
{
    rz_eval_boxes *out = f->out;
    out->places = rz_calloc(f->e->host, f->n ? f->n : 1, sizeof *out->places);
    if (!out->places) return RZ_NO_MEMORY(err, "films with boxes");
    if (f->n) qsort(f->boxes, f->n, sizeof *f->boxes, by_place);
    for (size_t i = 0, n; i < f->n; i += n) {
        const drawn *first = &f->boxes[i];
        for (n = 1; i + n < f->n && first[n].row == first->row && first[n].c == first->c;) n++;
        rz_eval_place *p = &out->places[out->n++];
        *p = (rz_eval_place){first->row,         first->c, NULL, n,   first->film_width,
                             first->film_height, {{0}},    NAN,  NAN, NULL};
        for (int k = 0; k < RZ_MAPS * RZ_MAP_FIGURES; k++) p->figures[k / RZ_MAP_FIGURES][k % RZ_MAP_FIGURES] = NAN;
        if (!(p->boxes = rz_calloc(f->e->host, n, sizeof *p->boxes))) return RZ_NO_MEMORY(err, "boxes");
        for (size_t k = 0; k < n; k++) p->boxes[k] = first[k].box;
    }
    out->n_boxes = f->n;
    return RADZ_OK;
}

static radz_status read_file(box_file *f, radz_error *err)
{
    const rz_eval *e = f->e;
    RZ_TRY(rz_file_hash(e->host, e->o->boxes, f->out->hash, err));
    RZ_TRY(rz_csv_open(e->host, e->o->boxes, MAX_CSV_BYTES, &f->csv, err));
    RZ_TRY(rz_eval_map_open(e->host, e->o, &f->map, err));
    RZ_TRY(find_columns(f, err));
    RZ_TRY(index_films(f, err));
    const size_t n = rz_csv_rows(f->csv);
    if (!(f->boxes = rz_calloc(e->host, n ? n : 1, sizeof *f->boxes))) return RZ_NO_MEMORY(err, "boxes");
    for (size_t i = 0; i < n; i++) RZ_TRY(take_box(f, i, err));
    return make_places(f, err);
}

static radz_status read_boxes(const rz_eval *e, rz_eval_boxes *out, radz_error *err)
{
    box_file f = {.e = e, .out = out};
    radz_status status = read_file(&f, err);
    if (f.csv) rz_csv_close(f.csv);
    if (f.map) rz_csv_close(f.map);
    rz_names_free(e->host, &f.whole);
    rz_names_free(e->host, &f.ends);
    rz_free(e->host, f.by_whole);
    rz_free(e->host, f.by_end);
    rz_free(e->host, f.boxes);
    return status;
}

/* ---- One film ---- */

static radz_status place_boxes(rz_eval_place *p, const rz_pixels *film, radz_error *err)
{
    const double w = (double)film->width_px, h = (double)film->height_px;
    const double sx = p->film_width > 0 ? w / p->film_width : 1, sy = p->film_height > 0 ? h / p->film_height : 1;
    for (size_t i = 0; i < p->n_boxes; i++) {
        radz_box *b = &p->boxes[i];
        *b = (radz_box){b->x * sx, b->y * sy, b->width * sx, b->height * sy};
        if (b->x < -1 || b->y < -1 || b->x + b->width > w + 1 || b->y + b->height > h + 1)
            return rz_fail(err, RADZ_E_FORMAT,
                           "a box reaches out of the film's %zu x %zu pixels: was it drawn at another size? See "
                           "film_width and film_height",
                           film->width_px, film->height_px);
    }
    return RADZ_OK;
}

typedef struct maps {
    const rz_eval *e;
    const rz_eval_arm *arm;
    rz_film film;
    size_t open_row; /* the film's; RZ_EVAL_NONE: none is open */
    float *patches;  /* (side, side) */
    float *map;      /* (height, width) of the film */
} maps;

static radz_status fill_patches(const maps *m, const rz_eval_place *p, int kind, radz_error *err)
{
    const rz_eval_model *of = &m->arm->of;
    const size_t side = rz_patch_side(&of->net->model->cfg);
    static const radz_heatmap_method methods[] = {RADZ_HEATMAP_SIMILARITY, RADZ_HEATMAP_ATTENTION,
                                                  RADZ_HEATMAP_GRADIENT};
    if (kind != RZ_MAP_RANDOM) {
        const radz_heatmap_options o = {.struct_size = sizeof o, .method = methods[kind], .contrast = 1};
        return rz_heatmap_patches(of->net, of->bank, &m->film, of->bank->labels[p->c], &o, m->patches, err);
    }
    rz_rng rng;
    rz_rng_seed(&rng, m->e->o->seed, 0xB0C5 + p->row * m->e->data.n_classes + p->c);
    for (size_t i = 0; i < side * side; i++) m->patches[i] = (float)rz_rng_below(&rng, 1 << 24);
    return RADZ_OK;
}

static radz_status measure_map(const maps *m, rz_eval_place *p, int kind, radz_error *err)
{
    const rz_eval_model *of = &m->arm->of;
    const rz_config *cfg = &of->net->model->cfg;
    const rz_pixels *film = &m->film.pixels;
    const size_t n_patches = rz_patch_side(cfg) * rz_patch_side(cfg), steps = m->e->o->n_box_steps;
    double *figures = p->figures[kind];
    radz_heatmap_score score;
    bool hit;
    RZ_TRY(fill_patches(m, p, kind, err));
    RZ_TRY(rz_heatmap_expand(cfg, film->width_px, film->height_px, m->patches, m->map, err));
    RZ_TRY(rz_heatmap_pointing(m->map, film->width_px, film->height_px, p->boxes, p->n_boxes, &hit,
                               &figures[RZ_MAP_SHARE], err));
    figures[RZ_MAP_HIT] = hit;
    if (!steps) return RADZ_OK;
    RZ_TRY(rz_heatmap_measure(of->net, of->bank, &m->film, of->bank->labels[p->c], m->patches,
                              steps < n_patches ? steps : n_patches, &score, NULL, err));
    figures[RZ_MAP_DELETION] = score.deletion, figures[RZ_MAP_INSERTION] = score.insertion;
    p->film = score.film, p->painted = score.painted;
    return RADZ_OK;
}

static radz_status open_film(maps *m, size_t row, radz_error *err)
{
    if (m->open_row == row) return RADZ_OK;
    if (m->open_row != RZ_EVAL_NONE) rz_film_free(m->e->host, &m->film);
    rz_free(m->e->host, m->map);
    m->map = NULL, m->open_row = RZ_EVAL_NONE;
    RZ_TRY(rz_film_open(m->e->host, m->e->data.rows[row].path, &m->film, err));
    m->open_row = row;
    m->map = rz_calloc(m->e->host, m->film.pixels.width_px, m->film.pixels.height_px * sizeof *m->map);
    return m->map ? RADZ_OK : RZ_NO_MEMORY(err, "heat map");
}

static radz_status measure_place(maps *m, rz_eval_place *p, radz_error *err)
{
    if (m->e->films.state[p->row] != RZ_FILM_DONE)
        return rz_fail(err, RADZ_E_FORMAT, "%s", m->e->films.why[p->row] ? m->e->films.why[p->row] : "not read");
    RZ_TRY(open_film(m, p->row, err));
    RZ_TRY(place_boxes(p, &m->film.pixels, err));
    for (int kind = 0; kind < RZ_MAPS; kind++) RZ_TRY(measure_map(m, p, kind, err));
    return RADZ_OK;
}

/* What is wrong with one film stops nothing. */
static radz_status measure_all(maps *m, rz_eval_boxes *b, radz_error *err)
{
    for (size_t i = 0; i < b->n; i++) {
        rz_eval_place *p = &b->places[i];
        radz_error why;
        RZ_TRY(rz_eval_tell(m->e, "boxes", i, b->n, err));
        radz_status status = measure_place(m, p, &why);
        if (status == RADZ_OK) continue;
        if (status == RADZ_E_MEMORY || status == RADZ_E_CANCELLED || status == RADZ_E_DEVICE) {
            if (err) *err = why;
            return status;
        }
        if (!(p->why = rz_strdup(m->e->host, why.message))) return RZ_NO_MEMORY(err, "message of a film");
        b->n_failed++;
    }
    return RADZ_OK;
}

/* ---- Means ---- */

/* Means of the places with these weights (NULL: each once). */
static void mean_of(rz_eval_place *const *places, size_t n, const uint32_t *weights,
                    double out[RZ_MAPS][RZ_MAP_FIGURES])
{
    double total = 0;
    memset(out, 0, RZ_MAPS * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        const double w = weights ? weights[i] : 1;
        if (w == 0) continue;
        total += w;
        for (int m = 0; m < RZ_MAPS; m++)
            for (int k = 0; k < RZ_MAP_FIGURES; k++) out[m][k] += w * places[i]->figures[m][k];
    }
    for (int m = 0; m < RZ_MAPS; m++)
        for (int k = 0; k < RZ_MAP_FIGURES; k++) out[m][k] = total > 0 ? out[m][k] / total : NAN;
}

typedef struct mean_work {
    rz_eval_place **places; /* (n) */
    size_t *groups;         /* patients, by number */
    uint32_t *drawn, *weights;
    double *rounds; /* (RZ_MAPS * RZ_MAP_FIGURES, n_rounds) */
} mean_work;

static void draw_means(const rz_eval *e, const mean_work *w, rz_eval_mean *out)
{
    const size_t n_rounds = e->o->n_rounds;
    double means[RZ_MAPS][RZ_MAP_FIGURES];
    for (size_t round = 0; round < n_rounds; round++) {
        rz_draw_films(e->o->seed, round, w->groups, out->n, w->drawn, out->n_patients, w->weights);
        mean_of(w->places, out->n, w->weights, means);
        for (size_t k = 0; k < RZ_MAPS * RZ_MAP_FIGURES; k++)
            w->rounds[k * n_rounds + round] = means[k / RZ_MAP_FIGURES][k % RZ_MAP_FIGURES];
    }
    for (size_t k = 0; k < RZ_MAPS * RZ_MAP_FIGURES; k++)
        rz_interval(w->rounds + k * n_rounds, n_rounds, e->o->confidence,
                    &out->low[k / RZ_MAP_FIGURES][k % RZ_MAP_FIGURES],
                    &out->high[k / RZ_MAP_FIGURES][k % RZ_MAP_FIGURES]);
}

/* c: the class, or n_classes for all. */
static radz_status take_mean(const rz_eval *e, const rz_eval_boxes *b, size_t c, mean_work *w, radz_error *err)
{
    rz_eval_mean *out = &b->means[c];
    for (size_t i = 0; i < b->n; i++) {
        rz_eval_place *p = &b->places[i];
        if (p->why || (c < e->data.n_classes && p->c != c)) continue;
        w->groups[out->n] = e->data.rows[p->row].patient;
        w->places[out->n++] = p;
    }
    if (!out->n) return RADZ_OK;
    RZ_TRY(rz_number_groups(e->host, w->groups, out->n, w->groups, &out->n_patients, err));
    mean_of(w->places, out->n, NULL, out->value);
    draw_means(e, w, out);
    return RADZ_OK;
}

static radz_status take_means(const rz_eval *e, rz_eval_boxes *b, radz_error *err)
{
    const size_t n = b->n;
    mean_work w = {rz_calloc(e->host, n, sizeof *w.places), rz_calloc(e->host, n, sizeof *w.groups),
                   rz_calloc(e->host, n, sizeof *w.drawn), rz_calloc(e->host, n, sizeof *w.weights), NULL};
    w.rounds = rz_calloc(e->host, e->o->n_rounds ? e->o->n_rounds : 1, RZ_MAPS * RZ_MAP_FIGURES * sizeof *w.rounds);
    b->means = rz_calloc(e->host, e->data.n_classes + 1, sizeof *b->means);
    const bool good = w.places && w.groups && w.drawn && w.weights && w.rounds && b->means;
    radz_status status = good ? RADZ_OK : RZ_NO_MEMORY(err, "means of the boxes");
    for (size_t c = 0; c <= e->data.n_classes && !status; c++) status = take_mean(e, b, c, &w, err);
    rz_free(e->host, w.places);
    rz_free(e->host, w.groups);
    rz_free(e->host, w.drawn);
    rz_free(e->host, w.weights);
    rz_free(e->host, w.rounds);
    return status;
}

/* ---- All of it ---- */

radz_status rz_eval_boxes_run(rz_eval *e, rz_eval_arm *arm, radz_error *err)
{
    rz_eval_boxes *b = &arm->boxes;
    if (!e->o->boxes) return RADZ_OK;
    RZ_TRY(read_boxes(e, b, err));
    if (!b->n)
        return rz_fail(err, RADZ_E_FORMAT, "%s: no box of a film that is evaluated and a class of the bank",
                       e->o->boxes);
    const size_t side = rz_patch_side(&arm->of.net->model->cfg);
    maps m = {.e = e, .arm = arm, .open_row = RZ_EVAL_NONE};
    m.patches = rz_calloc(e->host, side, side * sizeof *m.patches);
    radz_status status = m.patches ? measure_all(&m, b, err) : RZ_NO_MEMORY(err, "heat map");
    if (m.open_row != RZ_EVAL_NONE) rz_film_free(e->host, &m.film);
    rz_free(e->host, m.map);
    rz_free(e->host, m.patches);
    return status ? status : take_means(e, b, err);
}

void rz_eval_boxes_close(const rz_host *host, rz_eval_boxes *b)
{
    for (size_t i = 0; b->places && i < b->n; i++) {
        rz_free(host, b->places[i].boxes);
        rz_free(host, b->places[i].why);
    }
    rz_free(host, b->places);
    rz_free(host, b->means);
    *b = (rz_eval_boxes){0};
}

/* ---- The report ---- */

static const char *const figure_names[RZ_MAP_FIGURES] = {"hit", "chance", "deletion", "insertion"};

static void put_mean(rz_str *s, const rz_eval *e, const rz_eval_mean *m, int map, const char *label)
{
    rz_str_put_text(s, "{\"class\":", label);
    rz_str_printf(s, ",\"n\":%zu,\"n_patients\":%zu", m->n, m->n_patients);
    for (int k = 0; k < RZ_MAP_FIGURES; k++) {
        rz_str_printf(s, ",\"%s\":", figure_names[k]);
        rz_str_put_double(s, m->value[map][k]);
        if (!e->o->n_rounds) continue;
        rz_str_printf(s, ",\"%s_interval\":[", figure_names[k]);
        rz_str_put_double(s, m->low[map][k]);
        rz_str_put_number(s, ",", m->high[map][k]);
        rz_str_puts(s, "]");
    }
    rz_str_puts(s, "}");
}

static void put_maps(rz_str *s, const rz_eval *e, const rz_eval_boxes *b)
{
    for (int map = 0; map < RZ_MAPS; map++) {
        rz_str_printf(s, "%s{\"map\":\"%s\",\"all\":", map ? ",\n" : "\n", rz_map_name(map));
        put_mean(s, e, &b->means[e->data.n_classes], map, "all");
        rz_str_puts(s, ",\"classes\":[");
        const char *between = "";
        for (size_t c = 0; c < e->data.n_classes; c++) {
            if (!b->means[c].n) continue;
            rz_str_puts(s, between);
            put_mean(s, e, &b->means[c], map, e->bank->labels[c]);
            between = ",";
        }
        rz_str_puts(s, "]}");
    }
}

static void put_failed(rz_str *s, const rz_eval *e, const rz_eval_boxes *b)
{
    const char *between = "";
    for (size_t i = 0; i < b->n; i++) {
        const rz_eval_place *p = &b->places[i];
        if (!p->why) continue;
        rz_str_printf(s, "%s{\"line\":%zu", between, e->data.rows[p->row].line);
        rz_str_put_text(s, ",\"class\":", e->bank->labels[p->c]);
        rz_str_put_text(s, ",\"message\":", p->why);
        rz_str_puts(s, "}");
        between = ",";
    }
}

void rz_eval_boxes_put_json(rz_str *s, const rz_eval *e)
{
    rz_str_puts(s, "[");
    for (size_t i = 0; i < e->n_arms && e->o->boxes; i++) {
        const rz_eval_arm *arm = &e->arms[i];
        const rz_eval_boxes *b = &arm->boxes;
        rz_str_put_text(s, i ? ",\n{\"model\":" : "{\"model\":", arm->of.name);
        rz_str_put_text(s, ",\"boxes_hash\":", b->hash);
        rz_str_printf(s,
                      ",\"n_boxes\":%zu,\"n_boxes_of_other_films\":%zu,\"n_boxes_of_other_classes\":%zu,\"steps\":%zu,"
                      "\"n_failed\":%zu,\"failed\":[",
                      b->n_boxes, b->n_other_films, b->n_other_classes, e->o->n_box_steps, b->n_failed);
        put_failed(s, e, b);
        rz_str_puts(s, "],\"maps\":[");
        put_maps(s, e, b);
        rz_str_puts(s, "]}");
    }
    rz_str_puts(s, "]");
}

void rz_eval_boxes_put_csv(rz_str *s, const rz_eval *e)
{
    rz_str_puts(s, "model,map,class,n,n_patients");
    for (int k = 0; k < RZ_MAP_FIGURES; k++)
        rz_str_printf(s, ",%s,%s_low,%s_high", figure_names[k], figure_names[k], figure_names[k]);
    rz_str_puts(s, "\r\n");
    for (size_t i = 0; i < e->n_arms; i++)
        for (int map = 0; map < RZ_MAPS; map++)
            for (size_t c = 0; c <= e->data.n_classes; c++) {
                const rz_eval_mean *m = &e->arms[i].boxes.means[c];
                if (!m->n) continue;
                rz_eval_put_csv_text(s, e->arms[i].of.name);
                rz_str_printf(s, ",%s,", rz_map_name(map));
                rz_eval_put_csv_text(s, c < e->data.n_classes ? e->bank->labels[c] : "(all)");
                rz_str_printf(s, ",%zu,%zu", m->n, m->n_patients);
                for (int k = 0; k < RZ_MAP_FIGURES; k++) {
                    rz_eval_put_csv_number(s, m->value[map][k]);
                    rz_eval_put_csv_number(s, e->o->n_rounds ? m->low[map][k] : NAN);
                    rz_eval_put_csv_number(s, e->o->n_rounds ? m->high[map][k] : NAN);
                }
                rz_str_puts(s, "\r\n");
            }
}

static void put_place(rz_str *s, const rz_eval_arm *arm, const rz_eval_place *p, int map)
{
    const rz_eval *e = arm->e;
    rz_eval_put_csv_text(s, arm->of.name);
    rz_str_printf(s, ",%s,", rz_map_name(map));
    rz_eval_put_csv_text(s, e->bank->labels[p->c]);
    rz_str_printf(s, ",%zu,", e->data.rows[p->row].line);
    rz_eval_put_csv_text(s, e->data.rows[p->row].shown);
    rz_str_printf(s, ",%zu", p->n_boxes);
    rz_eval_put_csv_number(s, p->film);
    rz_eval_put_csv_number(s, p->painted);
    for (int k = 0; k < RZ_MAP_FIGURES; k++) rz_eval_put_csv_number(s, p->figures[map][k]);
    rz_str_puts(s, ",");
    rz_eval_put_csv_text(s, p->why ? p->why : "");
    rz_str_puts(s, "\r\n");
}

void rz_eval_boxes_put_films_csv(rz_str *s, const rz_eval *e)
{
    rz_str_puts(s, "model,map,class,line,path,n_boxes,probability,probability_painted,hit,chance,deletion,insertion,"
                   "note\r\n");
    for (size_t i = 0; i < e->n_arms; i++)
        for (size_t k = 0; k < e->arms[i].boxes.n; k++)
            for (int map = 0; map < RZ_MAPS; map++) put_place(s, &e->arms[i], &e->arms[i].boxes.places[k], map);
}
