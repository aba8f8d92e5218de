/* eval_pictures.c - films of the report, small, with what the model looked at.
 * SPDX-License-Identifier: Apache-2.0 */
#include "eval_html.h"
#include "heatmap.h"
#include "preprocess.h"
#include "saliency.h"

enum { THUMB_SIDE = 176, QUALITY = 84 };

/* ---- Pictures in the page ---- */

static void put_base64(rz_str *s, const uint8_t *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=',
                        i + 2 < n ? digits[v & 63] : '='};
        rz_str_put(s, four, 4);
    }
}

/* A film at the page's size. */
typedef struct thumb {
    const rz_host *host;
    rz_film film;    /* as it came */
    rz_pixels small; /* the same, THUMB_SIDE along its longer side */
} thumb;

static radz_status open_thumb(const rz_host *host, const char *path, thumb *t, radz_error *err)
{
    *t = (thumb){.host = host};
    RZ_TRY(rz_film_open(host, path, &t->film, err));
    const size_t w = t->film.pixels.width_px, h = t->film.pixels.height_px, longest = w > h ? w : h;
    const size_t to_w = w * THUMB_SIDE / longest, to_h = h * THUMB_SIDE / longest;
    radz_status status = rz_resize_bicubic(host, &t->film.pixels, to_w ? to_w : 1, to_h ? to_h : 1, &t->small, err);
    if (status) rz_film_free(host, &t->film);
    return status;
}

static void close_thumb(thumb *t)
{
    rz_film_free(t->host, &t->film);
    rz_pixels_free(t->host, &t->small);
}

/* boxes: in the film's own pixels. */
static void put_boxes(rz_str *s, const thumb *t, const radz_box *boxes, size_t n)
{
    const double sx = (double)t->small.width_px / (double)t->film.pixels.width_px;
    const double sy = (double)t->small.height_px / (double)t->film.pixels.height_px;
    for (size_t i = 0; i < n; i++) {
        const double v[4] = {boxes[i].x * sx, boxes[i].y * sy, boxes[i].width * sx, boxes[i].height * sy};
        static const char *const names[4] = {"x", "y", "width", "height"};
        rz_str_puts(s, "<rect class=box");
        for (int k = 0; k < 4; k++) {
            rz_str_printf(s, " %s=", names[k]);
            rz_html_put_fixed(s, v[k], 1);
        }
        rz_str_puts(s, " />");
    }
}

/* With a map of the small film's size (NULL: the film alone). The numbers at its ends go to low and high. */
static radz_status put_picture(rz_str *s, const thumb *t, const float *map, const radz_box *boxes, size_t n_boxes,
                               const char *says, double *low, double *high, radz_error *err)
{
    rz_pixels drawn = {0};
    rz_str jpeg = {.host = t->host};
    const size_t w = t->small.width_px, h = t->small.height_px;
    RZ_TRY(rz_heatmap_thumb(t->host, &t->small, map, low, high, &drawn, err));
    radz_status status = rz_jpeg_encode(&drawn, QUALITY, &jpeg, err);
    if (status == RADZ_OK) {
        rz_str_printf(s,
                      "<svg class=film width=%zu height=%zu viewBox=\"0 0 %zu %zu\" role=img aria-label=\"%s\"><image "
                      "width=%zu height=%zu href=\"data:image/jpeg;base64,",
                      w, h, w, h, says, w, h);
        put_base64(s, (const uint8_t *)jpeg.data, jpeg.len);
        rz_str_puts(s, "\"/>");
        put_boxes(s, t, boxes, n_boxes);
        rz_str_puts(s, "</svg>");
    }
    rz_pixels_free(t->host, &drawn);
    rz_str_free(&jpeg);
    return status;
}

/* ---- What a score is measured along ---- */

static void add_class(const rz_scorer *s, size_t c, double weight, double *to)
{
    for (size_t i = 0; i < s->dim; i++) {
        double v = 0;
        if (s->kind == RADZ_SCORE_IMG_ANCHOR) v = (double)s->anchors[c * s->dim + i];
        if (s->kind == RADZ_SCORE_IMG_TEXT) v = (double)s->texts[c * s->dim + i];
        if (s->kind == RADZ_SCORE_POS_NEG) v = (double)s->texts[c * s->dim + i] - (double)s->negatives[c * s->dim + i];
        for (size_t d = 0; d < s->n && s->kind == RADZ_SCORE_FUSED; d++)
            v += s->text_anchors[c * s->n + d] * (double)s->anchors[d * s->dim + i] / (double)s->n;
        to[i] += weight * v;
    }
}

/* The score of class c is a film's vector times this: less the reference's where that is what it is compared with, less
 * the others' mean among exclusive classes. NULL without an error: the score has no direction. */
static radz_status direction_of(const rz_scorer *s, size_t c, float **out, radz_error *err)
{
    *out = NULL;
    if (s->kind >= RADZ_SCORE_HIDDEN) return RADZ_OK;
    double *sum = rz_calloc(s->host, s->dim, sizeof *sum);
    *out = rz_calloc(s->host, s->dim, sizeof **out);
    if (!sum || !*out) {
        rz_free(s->host, sum);
        return RZ_NO_MEMORY(err, "direction of a heat map");
    }
    add_class(s, c, 1, sum);
    if (s->classes == RADZ_CLASSES_REFERENCE && c != s->reference) add_class(s, s->reference, -1, sum);
    for (size_t k = 0; k < s->n && s->classes == RADZ_CLASSES_EXCLUSIVE && s->n > 1; k++)
        if (k != c) add_class(s, k, -1 / (double)(s->n - 1), sum);
    for (size_t i = 0; i < s->dim; i++) (*out)[i] = (float)sum[i];
    rz_free(s->host, sum);
    return RADZ_OK;
}

/* ---- Films that went best and worst ---- */

typedef struct gallery {
    rz_str *s;
    const rz_eval *e;
    const rz_eval_method *m;
    const rz_eval_table *t; /* of all films */
    size_t c;
    float *direction; /* NULL: no heat maps */
    float *patches;   /* (side, side) */
    float *map;       /* (THUMB_SIDE, THUMB_SIDE) at most */
} gallery;

static radz_status put_heatmap(const gallery *g, const thumb *t, radz_error *err)
{
    const radz_heatmap_options o = {.struct_size = sizeof o, .method = RADZ_HEATMAP_GRADIENT};
    const rz_net *net = g->m->arm->of.net;
    double low = 0, high = 0;
    RZ_TRY(rz_heatmap_towards(net, &t->film, g->direction, &o, g->patches, err));
    RZ_TRY(rz_heatmap_expand(&net->model->cfg, t->small.width_px, t->small.height_px, g->patches, g->map, err));
    return put_picture(g->s, t, g->map, NULL, 0, "heat map", &low, &high, err);
}

static radz_status put_pictures(const gallery *g, const char *path, radz_error *err)
{
    thumb t;
    RZ_TRY(open_thumb(g->e->host, path, &t, err));
    radz_status status = put_picture(g->s, &t, NULL, NULL, 0, "film", NULL, NULL, err);
    if (!status && g->direction) status = put_heatmap(g, &t, err);
    close_thumb(&t);
    return status;
}

/* A film that is gone by now has no picture. */
static radz_status put_example(const gallery *g, const rz_scored *item, radz_error *err)
{
    const rz_eval_row *row = &g->e->data.rows[g->t->rows[item->film]];
    const double threshold = g->t->cells[g->c].m.threshold;
    radz_error why;
    rz_str_puts(g->s, "<figure class=example><div class=pair>");
    radz_status status = put_pictures(g, row->path, &why);
    if (status == RADZ_E_MEMORY || status == RADZ_E_CANCELLED || status == RADZ_E_DEVICE) {
        if (err) *err = why;
        return status;
    }
    if (status) rz_str_puts(g->s, "<small>no picture: the film could not be read again</small>");
    rz_str_puts(g->s, "</div><figcaption>");
    rz_html_put_safe(g->s, row->shown);
    rz_str_puts(g->s, "<br>p = ");
    rz_html_put_fixed(g->s, item->score, 3);
    if (!isnan(threshold)) {
        const bool called = g->e->o->strict ? item->score > threshold : item->score >= threshold;
        rz_str_printf(g->s, ", called %s", called ? "positive" : "negative");
    }
    rz_str_puts(g->s, "</figcaption></figure>\n");
    return RADZ_OK;
}

static radz_status put_row(const gallery *g, const rz_ranked *r, int kind, radz_error *err)
{
    static const char *const titles[] = {"Positive, scored highest", "Positive, scored lowest",
                                         "Negative, scored highest"};
    size_t n = 0;
    rz_str_printf(g->s, "<h4>%s</h4><div class=row>", titles[kind]);
    for (size_t i = 0; i < r->n && n < g->e->o->n_examples; i++) {
        const rz_scored *item = &r->items[kind != 1 ? r->n - 1 - i : i];
        if (item->truth != (kind != 2)) continue;
        RZ_TRY(put_example(g, item, err));
        n++;
    }
    rz_str_puts(g->s, "</div>");
    return RADZ_OK;
}

static radz_status put_class(gallery *g, const rz_ranked *r, bool open, radz_error *err)
{
    radz_status status = RADZ_OK;
    if (!g->e->o->no_heatmaps) RZ_TRY(direction_of(g->m->scorer, g->c, &g->direction, err));
    rz_str_printf(g->s, "<details%s><summary>", open ? " open" : "");
    rz_html_put_safe(g->s, g->e->bank->labels[g->c]);
    rz_str_printf(g->s, " <small>%zu positive, %zu negative</small></summary>", r->n_pos, r->n - r->n_pos);
    for (int kind = 0; kind < 3 && !status; kind++) status = put_row(g, r, kind, err);
    rz_str_puts(g->s, "</details>\n");
    rz_free(g->e->host, g->direction);
    g->direction = NULL;
    return status;
}

static radz_status put_classes(gallery *g, rz_html_scratch *w, radz_error *err)
{
    bool open = true; /* the first finding is */
    for (size_t c = 0; c < g->e->data.n_classes; c++) {
        g->c = c;
        RZ_TRY(rz_eval_tell(g->e, "pictures", c, g->e->data.n_classes, err));
        RZ_TRY(rz_html_rank(g->e, g->m, g->t, c, w, err));
        radz_status status = RADZ_OK;
        if (rz_ranked_both(&w->ranked)) {
            const bool finding = c != g->e->bank->reference;
            status = put_class(g, &w->ranked, open && finding, err);
            open = open && !finding;
        }
        rz_ranked_free(&w->ranked);
        RZ_TRY(status);
    }
    return RADZ_OK;
}

static void put_scale(rz_str *s)
{
    rz_str_printf(s,
                  "<p class=scale><span>least</span><i style=\"background:linear-gradient(90deg,%s)\"></i><span>most "
                  "heat of each film</span></p>",
                  rz_heatmap_colors());
}

radz_status rz_html_put_examples(rz_str *s, const rz_eval *e, const rz_eval_method *m, rz_html_scratch *w,
                                 radz_error *err)
{
    const size_t side = rz_patch_side(&m->arm->of.net->model->cfg);
    gallery g = {.s = s, .e = e, .m = m, .t = &m->tables[m->n_tables - 1]};
    rz_str_puts(s, "<h3>");
    rz_html_put_row_name(s, m);
    rz_str_puts(s, "</h3>");
    if (m->scorer->kind >= RADZ_SCORE_HIDDEN) {
        rz_str_puts(s, "<p>This method has no heat map.</p>");
    } else if (!e->o->no_heatmaps) {
        rz_str_puts(s,
                    "<p>Beside each film: where the gradient of the class's score at the decoder's input rows, times "
                    "these rows, is above 0. A picture of the model's workings, not of a disease.</p>");
        put_scale(s);
    }
    g.patches = rz_calloc(e->host, side, side * sizeof *g.patches);
    g.map = rz_calloc(e->host, THUMB_SIDE, THUMB_SIDE * sizeof *g.map);
    radz_status status = g.patches && g.map ? put_classes(&g, w, err) : RZ_NO_MEMORY(err, "heat maps");
    rz_free(e->host, g.patches);
    rz_free(e->host, g.map);
    return status;
}

/* ---- Films with boxes ---- */

typedef struct boxed {
    rz_str *s;
    const rz_eval_arm *arm;
    float *patches, *map;
} boxed;

static radz_status put_map(const boxed *b, const thumb *t, const rz_eval_place *p, int kind, radz_error *err)
{
    static const radz_heatmap_method methods[] = {RADZ_HEATMAP_SIMILARITY, RADZ_HEATMAP_ATTENTION,
                                                  RADZ_HEATMAP_GRADIENT};
    const rz_eval_model *of = &b->arm->of;
    const radz_heatmap_options o = {.struct_size = sizeof o, .method = methods[kind], .contrast = 1};
    double low = 0, high = 0;
    RZ_TRY(rz_heatmap_patches(of->net, of->bank, &t->film, of->bank->labels[p->c], &o, b->patches, err));
    RZ_TRY(rz_heatmap_expand(&of->net->model->cfg, t->small.width_px, t->small.height_px, b->patches, b->map, err));
    rz_str_puts(b->s, "<figure class=map>");
    RZ_TRY(put_picture(b->s, t, b->map, p->boxes, p->n_boxes, rz_map_name(kind), &low, &high, err));
    rz_str_printf(b->s, "<figcaption>%s: %s<br>del. ", rz_map_name(kind),
                  p->figures[kind][RZ_MAP_HIT] > 0 ? "hit" : "miss");
    rz_html_put_fixed(b->s, p->figures[kind][RZ_MAP_DELETION], 2);
    rz_str_puts(b->s, ", ins. ");
    rz_html_put_fixed(b->s, p->figures[kind][RZ_MAP_INSERTION], 2);
    rz_str_puts(b->s, "</figcaption></figure>");
    return RADZ_OK;
}

static radz_status put_place(const boxed *b, const rz_eval_place *p, radz_error *err)
{
    const rz_eval *e = b->arm->e;
    thumb t;
    RZ_TRY(open_thumb(e->host, e->data.rows[p->row].path, &t, err));
    rz_str_puts(b->s, "<figure class=boxed><div class=pair><figure class=map>");
    radz_status status = put_picture(b->s, &t, NULL, p->boxes, p->n_boxes, "film with boxes", NULL, NULL, err);
    rz_str_puts(b->s, "<figcaption>film</figcaption></figure>");
    for (int kind = 0; kind < RZ_MAP_RANDOM && !status; kind++) status = put_map(b, &t, p, kind, err);
    rz_str_puts(b->s, "</div><figcaption>");
    rz_html_put_safe(b->s, e->bank->labels[p->c]);
    rz_str_puts(b->s, ", ");
    rz_html_put_safe(b->s, e->data.rows[p->row].shown);
    rz_str_puts(b->s, "</figcaption></figure>\n");
    close_thumb(&t);
    return status;
}

static radz_status put_places(const boxed *b, radz_error *err)
{
    const rz_eval_boxes *all = &b->arm->boxes;
    for (size_t c = 0; c < b->arm->e->data.n_classes; c++)
        for (size_t i = 0, n = 0; i < all->n && n < b->arm->e->o->n_examples; i++) {
            if (all->places[i].c != c || all->places[i].why) continue;
            RZ_TRY(put_place(b, &all->places[i], err));
            n++;
        }
    return RADZ_OK;
}

radz_status rz_html_put_boxed(rz_str *s, const rz_eval_arm *arm, radz_error *err)
{
    const rz_host *host = arm->e->host;
    const size_t side = rz_patch_side(&arm->of.net->model->cfg);
    if (!arm->e->o->n_examples) return RADZ_OK;
    boxed b = {s, arm, rz_calloc(host, side, side * sizeof(float)),
               rz_calloc(host, THUMB_SIDE, THUMB_SIDE * sizeof(float))};
    rz_str_puts(s, "<details><summary>Films with boxes and their heat maps</summary>");
    put_scale(s);
    radz_status status = b.patches && b.map ? put_places(&b, err) : RZ_NO_MEMORY(err, "heat maps");
    rz_str_puts(s, "</details>\n");
    rz_free(host, b.patches);
    rz_free(host, b.map);
    return status;
}
