/* eval_html.c - report.html: one file for a browser, no network, no scripts. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "eval.h"
#include "preprocess.h"
#include "tsne.h"

static const char style[] =
    "<style>:root{--line:#d8dee6;--ink:#1c2733;--soft:#5c6b7a;--a:#1f5fa8}*{box-sizing:border-box}"
    "body{margin:0 auto;max-width:1180px;padding:16px;font:15px/1.45 system-ui,sans-serif;color:var(--ink);"
    "background:#fff;overflow-wrap:anywhere}h1{font-size:1.5em;margin:.2em 0}h2{margin:1.6em 0 .3em;border-bottom:2px "
    "solid var(--a)}h3{margin:1.2em 0 .3em}p{max-width:75ch}.wide{overflow-x:auto}"
    "table{border-collapse:collapse;font-size:.88em;white-space:nowrap}"
    "th,td{padding:3px 9px;text-align:right;border-bottom:1px solid var(--line)}"
    "th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}"
    "tr.macro td{font-weight:600;border-top:2px solid var(--ink)}small{color:var(--soft)}"
    ".grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(290px,1fr));gap:14px}"
    "figure{margin:0}figcaption{font-size:.85em;color:var(--soft)}svg{width:100%;height:auto;display:block}"
    "svg text{font:11px system-ui,sans-serif;fill:#5c6b7a}.warn{background:#fff4d6;padding:8px 12px;border-radius:4px}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:2px "
    "14px;font-size:.88em}dt{color:var(--soft)}dd{margin:0}"
    "ol{padding-left:1.4em}li{margin:.3em 0}summary{cursor:pointer;padding:4px "
    "0}@media(max-width:600px){dl{display:block}dd{margin:0 0 6px}}.key{display:flex;flex-wrap:wrap;gap:2px 14px;"
    "font-size:.85em}.key i{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:5px}</style>\n";

static const char *const colours[] = {"#1f5fa8", "#d1495b", "#2e8b57", "#e08e0b", "#7b4fa3", "#128a9c", "#a05a2c",
                                      "#d957a8", "#6b8e23", "#4b5d73", "#c0392b", "#3ba7e0", "#8c7a00", "#5a5ad1"};

static void put(rz_str *s, const char *text)
{
    rz_str_puts(s, text);
}

/* Anything from files: no markup gets through. */
static void put_safe(rz_str *s, const char *text)
{
    for (; *text; text++) {
        const char *as = *text == '<'   ? "&lt;"
                         : *text == '>' ? "&gt;"
                         : *text == '&' ? "&amp;"
                         : *text == '"' ? "&quot;"
                                        : NULL;
        if (as)
            put(s, as);
        else
            rz_str_put(s, text, 1);
    }
}

/* With so many digits after the point. */
static void put_fixed(rz_str *s, double v, int digits)
{
    long long scale = 1, n;
    if (!isfinite(v) || fabs(v) > 1e9) {
        put(s, "&ndash;");
        return;
    }
    for (int i = 0; i < digits; i++) scale *= 10;
    n = llround(fabs(v) * (double)scale);
    if (v < 0 && n) put(s, "-");
    rz_str_printf(s, "%lld.", n / scale);
    for (long long rest = n % scale, d = scale / 10; d; d /= 10) rz_str_printf(s, "%lld", rest / d % 10);
}

/* ---- Tables ---- */

static void put_value(rz_str *s, double v, double low, double high)
{
    put(s, "<td>");
    put_fixed(s, v, 3);
    if (!isnan(low)) {
        put(s, " <small>");
        put_fixed(s, low, 2);
        put(s, "&ndash;");
        put_fixed(s, high, 2);
        put(s, "</small>");
    }
    put(s, "</td>");
}

static void put_row(rz_str *s, const rz_eval *e, const char *name, const rz_eval_cell *c, bool macro)
{
    const radz_metrics *m = &c->m;
    bool defined = macro || (m->n_positive && m->n_negative);
    put(s, macro ? "<tr class=macro><td>" : "<tr><td>");
    put_safe(s, name);
    rz_str_printf(s, "</td><td>%zu</td><td>%zu</td>", m->n_positive, m->n_negative);
    if (!defined) {
        put(s, "<td colspan=10 style=\"text-align:left\"><small>");
        put_safe(s, c->note ? c->note : "");
        put(s, "</small></td></tr>\n");
        return;
    }
    (void)e;
    put_value(s, m->auc, c->low.auc, c->high.auc);
    put_value(s, m->auprc, c->low.auprc, c->high.auprc);
    put_value(s, m->f1, c->low.f1, c->high.f1);
    put_value(s, m->accuracy, c->low.accuracy, c->high.accuracy);
    put_value(s, m->mcc, NAN, NAN);
    put_value(s, m->sensitivity, NAN, NAN);
    put_value(s, m->specificity, NAN, NAN);
    put_value(s, m->brier, NAN, NAN);
    put_value(s, m->ece, NAN, NAN);
    put_value(s, m->threshold, NAN, NAN);
    put(s, "</tr>\n");
}

static void put_table(rz_str *s, const rz_eval *e, const rz_eval_table *t)
{
    put(s, "<h3>");
    put_safe(s, t->set ? (*t->set ? t->set : "films of no set") : "All films");
    rz_str_printf(s, "</h3><p>%zu films of %zu patients; mean over the classes with both outcomes: %zu.</p>",
                  t->n_films, t->n_patients, t->n_defined);
    put(s,
        "<div class=wide><table><tr><th>Class</th><th>Pos.</th><th>Neg.</th><th>AUC</th><th>AUPRC</th><th>F1</th>"
        "<th>Accuracy</th><th>MCC</th><th>Sens.</th><th>Spec.</th><th>Brier</th><th>ECE</th><th>Threshold</th></tr>\n");
    for (size_t c = 0; c < e->data.n_classes; c++) put_row(s, e, e->bank->labels[c], &t->cells[c], false);
    put_row(s, e, "Macro mean", &t->cells[e->data.n_classes], true);
    put(s, "</table></div>\n");
}

static void put_confusion(rz_str *s, const rz_eval *e, const rz_eval_table *t)
{
    put(s, "<h3>Confusion at the thresholds</h3><div class=wide><table><tr><th>Class</th><th>True pos.</th><th>False "
           "neg.</th><th>False pos.</th><th>True neg.</th></tr>\n");
    for (size_t c = 0; c < e->data.n_classes; c++) {
        const radz_metrics *m = &t->cells[c].m;
        if (!m->n_positive || !m->n_negative) continue;
        put(s, "<tr><td>");
        put_safe(s, e->bank->labels[c]);
        rz_str_printf(s, "</td><td>%zu</td><td>%zu</td><td>%zu</td><td>%zu</td></tr>\n", m->tp, m->fn, m->fp, m->tn);
    }
    put(s, "</table></div>\n");
}

/* ---- Figures: 0..1 on both axes is 30..290 across and 270..10 down ---- */

static void put_point(rz_str *s, double x, double y)
{
    put_fixed(s, 30 + 260 * x, 1);
    put(s, ",");
    put_fixed(s, 270 - 260 * y, 1);
    put(s, " ");
}

static void begin_plot(rz_str *s, const char *x, const char *y)
{
    put(s, "<figure><svg viewBox=\"0 0 300 300\" role=img><rect x=30 y=10 width=260 height=260 fill=none "
           "stroke=\"#d8dee6\"/><text x=26 y=282 text-anchor=end>0</text><text x=290 y=284 text-anchor=end>1</text>"
           "<text x=24 y=18 text-anchor=end>1</text>");
    rz_str_printf(s,
                  "<text x=160 y=292 text-anchor=middle>%s</text><text x=14 y=140 transform=\"rotate(-90 14 140)\" "
                  "text-anchor=middle>%s</text>",
                  x, y);
}

typedef struct scratch {
    double *scores, *x, *y, *t;
    signed char *truth;
    rz_ranked ranked;
} scratch;

static radz_status rank_class(const rz_eval *e, const rz_eval_method *m, const rz_eval_table *t, size_t c, scratch *w,
                              radz_error *err)
{
    for (size_t i = 0; i < t->n_films; i++) {
        w->scores[i] = m->probability[t->rows[i] * e->data.n_classes + c];
        w->truth[i] = e->data.truth[t->rows[i] * e->data.n_classes + c];
    }
    return rz_rank(e->host, w->scores, w->truth, t->n_films, &w->ranked, err);
}

/* Every point that moves the line by half a pixel. */
static void put_curve(rz_str *s, const scratch *w, radz_curve kind, const char *colour)
{
    size_t n = rz_curve(&w->ranked, kind, w->x, w->y, w->t), last = 0;
    rz_str_printf(s, "<polyline fill=none stroke=\"%s\" stroke-width=1.4 points=\"", colour);
    for (size_t i = 0; i < n; i++) {
        if (i && i + 1 < n && fabs(w->x[i] - w->x[last]) + fabs(w->y[i] - w->y[last]) < 0.002) continue;
        put_point(s, w->x[i], w->y[i]);
        last = i;
    }
    put(s, "\"/>");
}

static void put_reliability(rz_str *s, const scratch *w, size_t n_bins, const char *colour)
{
    const rz_ranked *r = &w->ranked;
    rz_str_printf(s, "<polyline fill=none stroke=\"%s\" stroke-width=1.4 points=\"", colour);
    for (size_t bin = 0, i = 0; bin < n_bins; bin++) {
        double p = 0, y = 0, n = 0, edge = (double)(bin + 1) / (double)n_bins;
        for (; i < r->n && (r->items[i].score <= edge || bin + 1 == n_bins); i++)
            p += r->items[i].score, y += r->items[i].truth, n++;
        if (n) put_point(s, p / n, y / n);
    }
    put(s, "\"/>");
}

static radz_status put_plots(rz_str *s, const rz_eval *e, const rz_eval_method *m, const rz_eval_table *t, scratch *w,
                             radz_error *err)
{
    static const char *const titles[] = {"ROC", "Precision and recall", "Reliability"};
    put(s, "<h3>Curves</h3><div class=grid>");
    for (int k = 0; k < 3; k++) {
        begin_plot(s,
                   k == 0   ? "1 - specificity"
                   : k == 1 ? "recall"
                            : "probability said",
                   k == 0   ? "sensitivity"
                   : k == 1 ? "precision"
                            : "share that is positive");
        if (k != 1) put(s, "<path d=\"M30,270L290,10\" stroke=\"#9aa7b4\" stroke-dasharray=\"3 4\"/>");
        for (size_t c = 0; c < e->data.n_classes; c++) {
            RZ_TRY(rank_class(e, m, t, c, w, err));
            const char *colour = colours[c % RZ_COUNT(colours)];
            if (rz_ranked_both(&w->ranked) && k < 2) put_curve(s, w, (radz_curve)k, colour);
            if (rz_ranked_both(&w->ranked) && k == 2) put_reliability(s, w, e->o->n_bins, colour);
            rz_ranked_free(&w->ranked);
        }
        rz_str_printf(s, "</svg><figcaption>%s</figcaption></figure>\n", titles[k]);
    }
    put(s, "</div><p class=key>");
    for (size_t c = 0; c < e->data.n_classes; c++) {
        if (!t->cells[c].m.n_positive || !t->cells[c].m.n_negative) continue;
        rz_str_printf(s, "<span><i style=\"background:%s\"></i>", colours[c % RZ_COUNT(colours)]);
        put_safe(s, e->bank->labels[c]);
        put(s, "</span>");
    }
    put(s, "</p>\n");
    return RADZ_OK;
}

static size_t first_label(const rz_eval *e, size_t row)
{
    size_t found = e->data.n_classes;
    for (size_t c = e->data.n_classes; c--;)
        if (e->data.truth[row * e->data.n_classes + c] == 1 && (c != e->bank->reference || found == e->data.n_classes))
            found = c;
    return found;
}

static void put_cloud(rz_str *s, const rz_eval *e, const size_t *rows, size_t n, const double *xy)
{
    double low[2] = {INFINITY, INFINITY}, size = 1e-9;
    for (size_t i = 0; i < 2 * n; i++)
        if (xy[i] < low[i % 2]) low[i % 2] = xy[i];
    for (size_t i = 0; i < 2 * n; i++)
        if (xy[i] - low[i % 2] > size) size = xy[i] - low[i % 2];
    put(s, "<h2>Image vectors</h2><figure style=\"max-width:640px\"><svg viewBox=\"0 0 600 600\" role=img>");
    for (size_t i = 0; i < n; i++) {
        size_t c = first_label(e, rows[i]);
        put(s, "<circle r=3.5 fill-opacity=.75 cx=");
        put_fixed(s, 10 + 580 * (xy[2 * i] - low[0]) / size, 1);
        put(s, " cy=");
        put_fixed(s, 10 + 580 * (xy[2 * i + 1] - low[1]) / size, 1);
        rz_str_printf(s, " fill=\"%s\"/>", c < e->data.n_classes ? colours[c % RZ_COUNT(colours)] : "#b8c2cc");
    }
    rz_str_printf(s,
                  "</svg><figcaption>t-SNE (exact, perplexity 30, seed %llu) of %zu films, coloured by their first "
                  "finding; gray: none of the classes.</figcaption></figure><p class=key>",
                  (unsigned long long)e->o->seed, n);
    for (size_t c = 0; c < e->data.n_classes; c++) {
        size_t used = 0;
        for (size_t i = 0; i < n; i++) used += first_label(e, rows[i]) == c;
        if (!used) continue;
        rz_str_printf(s, "<span><i style=\"background:%s\"></i>", colours[c % RZ_COUNT(colours)]);
        put_safe(s, e->bank->labels[c]);
        rz_str_printf(s, " (%zu)</span>", used);
    }
    put(s, "</p>\n");
}

static radz_status put_tsne(rz_str *s, const rz_eval *e, radz_error *err)
{
    const size_t n = e->n_picture;
    if (n < 3) return RADZ_OK;
    size_t *order = rz_calloc(e->host, n, sizeof *order);
    double *xy = rz_calloc(e->host, n, 2 * sizeof *xy);
    radz_status status = order && xy ? RADZ_OK : RZ_NO_MEMORY(err, "t-SNE");
    for (size_t i = 0; order && i < n; i++) order[i] = i;
    if (!status) status = rz_tsne(e->host, e->picture, e->wanted.dim[e->picture_kind], order, n, e->o->seed, xy, err);
    if (!status) put_cloud(s, e, e->picture_rows, n, xy);
    rz_free(e->host, order);
    rz_free(e->host, xy);
    return status;
}

/* ---- Films that went best and worst ---- */

#define THUMB_SIDE 112

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

/* Gray, 8 bits, in place: a thumbnail needs no more. */
static void make_gray(rz_pixels *p)
{
    const size_t n = p->width_px * p->height_px, channels = (size_t)p->channels;
    uint8_t *out = p->data;
    for (size_t i = 0; i < n; i++)
        out[i] = p->bits == 16 ? (uint8_t)(((const uint16_t *)p->data)[i * channels] >> 8)
                               : ((const uint8_t *)p->data)[i * channels];
    p->channels = 1, p->bits = 8;
}

/* A film that is gone by now has no picture; memory that runs out is found at the end, in the page's own text. */
static void put_thumb(rz_str *s, const rz_eval *e, const char *path)
{
    rz_film film;
    rz_pixels small = {0};
    rz_str png = {.host = e->host};
    if (rz_film_open(e->host, path, &film, NULL)) return;
    const size_t w = film.pixels.width_px, h = film.pixels.height_px, longest = w > h ? w : h;
    size_t to_w = w * THUMB_SIDE / longest, to_h = h * THUMB_SIDE / longest;
    to_w = to_w ? to_w : 1, to_h = to_h ? to_h : 1;
    radz_status status = rz_resize_bicubic(e->host, &film.pixels, to_w, to_h, &small, NULL);
    rz_film_free(e->host, &film);
    if (status) return;
    make_gray(&small);
    if (rz_png_encode(e->host, &small, NULL, &png, NULL) == RADZ_OK && !png.failed) {
        rz_str_printf(s, "<img width=%zu height=%zu alt=\"film\" src=\"data:image/png;base64,", to_w, to_h);
        put_base64(s, (const uint8_t *)png.data, png.len);
        put(s, "\"><br>");
    }
    rz_str_free(&png);
    rz_pixels_free(e->host, &small);
}

static void put_example(rz_str *s, const rz_eval *e, const rz_scored *item, const rz_eval_table *t)
{
    const rz_eval_row *row = &e->data.rows[t->rows[item->film]];
    put(s, "<li>");
    put_thumb(s, e, row->path);
    put_safe(s, row->shown);
    put(s, " <small>");
    put_fixed(s, item->score, 3);
    put(s, "</small></li>");
}

static radz_status put_examples(rz_str *s, const rz_eval *e, const rz_eval_method *m, const rz_eval_table *t,
                                scratch *w, radz_error *err)
{
    static const char *const titles[] = {"Missed: positive, lowest", "False alarm: negative, highest",
                                         "Found: positive, highest"};
    put(s, "<h3>Films that went worst and best</h3>");
    for (size_t c = 0; c < e->data.n_classes && e->o->n_examples; c++) {
        RZ_TRY(rank_class(e, m, t, c, w, err));
        const rz_ranked *r = &w->ranked;
        if (rz_ranked_both(r)) {
            put(s, "<details><summary>");
            put_safe(s, e->bank->labels[c]);
            put(s, "</summary><div class=grid>");
            for (int k = 0; k < 3; k++) {
                size_t n = 0;
                rz_str_printf(s, "<div><b>%s</b><ol>", titles[k]);
                for (size_t i = 0; i < r->n && n < e->o->n_examples; i++) {
                    const rz_scored *item = &r->items[k ? r->n - 1 - i : i];
                    if (item->truth != (k != 1)) continue;
                    put_example(s, e, item, t);
                    n++;
                }
                put(s, "</ol></div>");
            }
            put(s, "</div></details>\n");
        }
        rz_ranked_free(&w->ranked);
    }
    return RADZ_OK;
}

/* ---- The page ---- */

static void put_fact(rz_str *s, const char *name, const char *text)
{
    rz_str_printf(s, "<dt>%s</dt><dd>", name);
    put_safe(s, text ? text : "none");
    put(s, "</dd>\n");
}

static void put_head(rz_str *s, const rz_eval *e)
{
    put(s, "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width,"
           "initial-scale=1\"><title>Evaluation of ");
    put_safe(s, e->model_name);
    put(s, "</title>\n");
    put(s, style);
    put(s, "<h1>Evaluation of ");
    put_safe(s, e->model_name);
    rz_str_printf(s, "</h1><p class=warn>%s</p>\n<dl>", radz_disclaimer());
    put_fact(s, "Library", radz_version());
    put_fact(s, "Kernels", rz_device_kernels(e->net->model->dev));
    put_fact(s, "Model", e->net->model->hash);
    put_fact(s, "Bank", e->bank->hash);
    put_fact(s, "Manifest", e->data.manifest_hash);
    put_fact(s, "Split", e->data.split ? e->data.split : "all");
    put_fact(s, "Thresholds", rz_eval_threshold_name(e));
    if (e->threshold_note) put_fact(s, "", e->threshold_note);
    put_fact(s, "Positive at", e->o->strict ? "score > threshold" : "score >= threshold");
    rz_str_printf(s,
                  "<dt>Intervals</dt><dd>%zu bootstrap rounds by patient, seed %llu</dd><dt>Films</dt><dd>%zu "
                  "evaluated, %zu for validation, %zu could not be read</dd></dl>\n",
                  e->o->n_rounds, (unsigned long long)e->o->seed, e->data.n_evaluated, e->data.n - e->data.n_evaluated,
                  e->films.n_failed);
    if (e->data.n_shared_patients)
        rz_str_printf(s, "<p class=warn>%zu patients have films on both sides: evaluated and validation.</p>\n",
                      e->data.n_shared_patients);
}

static void put_failures(rz_str *s, const rz_eval *e)
{
    size_t n = 0;
    if (!e->films.n_failed) return;
    put(s, "<h2>Films that could not be read</h2><ol>");
    for (size_t i = 0; i < e->data.n && n < 50; i++) {
        if (e->films.state[i] != RZ_FILM_FAILED) continue;
        rz_str_printf(s, "<li>line %zu: ", e->data.rows[i].line);
        put_safe(s, e->films.why[i]);
        put(s, "</li>\n");
        n++;
    }
    put(s, n < e->films.n_failed ? "</ol><p>The others are in report.json.</p>" : "</ol>\n");
}

static radz_status put_method(rz_str *s, const rz_eval *e, const rz_eval_method *m, scratch *w, radz_error *err)
{
    const rz_eval_table *all = &m->tables[m->n_tables - 1];
    rz_str_printf(s, "<h2>%s</h2><p>Feature %s, classes %s, calibration %s, tau ", m->name, rz_eval_feature(m->scorer),
                  rz_classes_name(m->scorer->classes), rz_calibration_name(m->scorer->calibration));
    put_fixed(s, m->scorer->tau, 4);
    put(s, ".</p>\n");
    for (size_t t = m->n_tables; t--;) put_table(s, e, &m->tables[t]);
    RZ_TRY(put_plots(s, e, m, all, w, err));
    put_confusion(s, e, all);
    return put_examples(s, e, m, all, w, err);
}

static radz_status open_scratch(const rz_eval *e, scratch *w, radz_error *err)
{
    const size_t n = e->data.n + 1;
    w->scores = rz_calloc(e->host, n, sizeof(double));
    w->x = rz_calloc(e->host, n, sizeof(double));
    w->y = rz_calloc(e->host, n, sizeof(double));
    w->t = rz_calloc(e->host, n, sizeof(double));
    w->truth = rz_calloc(e->host, n, 1);
    return w->scores && w->x && w->y && w->t && w->truth ? RADZ_OK : RZ_NO_MEMORY(err, "figures");
}

radz_status rz_eval_put_html(rz_str *s, const rz_eval *e, radz_error *err)
{
    scratch w = {0};
    put_head(s, e);
    radz_status status = open_scratch(e, &w, err);
    for (size_t i = 0; i < e->n_methods && !status; i++) status = put_method(s, e, &e->methods[i], &w, err);
    if (!status) status = put_tsne(s, e, err);
    if (!status) put_failures(s, e);
    rz_free(e->host, w.scores);
    rz_free(e->host, w.x);
    rz_free(e->host, w.y);
    rz_free(e->host, w.t);
    rz_free(e->host, w.truth);
    return status;
}
