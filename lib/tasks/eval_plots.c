/* eval_plots.c - the report's curves and clouds, as SVG. SPDX-License-Identifier: Apache-2.0 */
#include "eval_html.h"
#include "tsne.h"

/* ---- Figures: 0..1 on both axes is 30..290 across and 270..10 down ---- */

static void put_point(rz_str *s, double x, double y)
{
    rz_html_put_fixed(s, 30 + 260 * x, 1);
    rz_str_puts(s, ",");
    rz_html_put_fixed(s, 270 - 260 * y, 1);
    rz_str_puts(s, " ");
}

static void begin_plot(rz_str *s, const char *title, const char *x, const char *y)
{
    rz_str_printf(s,
                  "<figure><svg viewBox=\"0 0 300 300\" role=img aria-label=\"%s\"><path class=grid d=\""
                  "M30,205H290M30,140H290M30,75H290M95,10V270M160,10V270M225,10V270\"/><rect class=frame x=30 y=10 "
                  "width=260 height=260 /><text x=26 y=274 text-anchor=end>0</text><text x=30 y=284 "
                  "text-anchor=middle>0</text><text x=160 y=284 text-anchor=middle>0.5</text><text x=288 y=284 "
                  "text-anchor=middle>1</text><text x=26 y=144 text-anchor=end>0.5</text><text x=26 y=18 "
                  "text-anchor=end>1</text><text x=225 y=297 text-anchor=middle>%s</text><text x=10 y=75 "
                  "transform=\"rotate(-90 10 75)\" text-anchor=middle>%s</text>",
                  title, x, y);
}

static void begin_line(rz_str *s, size_t c)
{
    rz_str_printf(s, "<polyline stroke=\"%s\"%s points=\"", rz_html_color(c),
                  c >= RZ_HTML_COLORS ? " stroke-dasharray=\"5 2\"" : "");
}

/* What a pointer over the line, or a screen reader, says. */
static void end_line(rz_str *s, const char *label, const char *figure, double value)
{
    rz_str_puts(s, "\"><title>");
    rz_html_put_safe(s, label);
    rz_str_printf(s, ": %s ", figure);
    rz_html_put_fixed(s, value, 3);
    rz_str_puts(s, "</title></polyline>");
}

/* Every point that moves the line by half a pixel. */
static void put_curve(rz_str *s, const rz_html_scratch *w, radz_curve kind)
{
    size_t n = rz_curve(&w->ranked, kind, w->x, w->y, w->t), last = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && i + 1 < n && fabs(w->x[i] - w->x[last]) + fabs(w->y[i] - w->y[last]) < 0.002) continue;
        put_point(s, w->x[i], w->y[i]);
        last = i;
    }
}

static void put_reliability(rz_str *s, const rz_ranked *r, size_t n_bins)
{
    for (size_t bin = 0, i = 0; bin < n_bins; bin++) {
        double p = 0, y = 0, n = 0, edge = (double)(bin + 1) / (double)n_bins;
        for (; i < r->n && (r->items[i].score <= edge || bin + 1 == n_bins); i++)
            p += r->items[i].score, y += r->items[i].truth, n++;
        if (n > 0) put_point(s, p / n, y / n);
    }
}

static void put_line(rz_str *s, const rz_eval *e, const rz_eval_table *t, size_t c, int kind, const rz_html_scratch *w)
{
    const radz_metrics *m = &t->cells[c].m;
    begin_line(s, c);
    if (kind < 2)
        put_curve(s, w, (radz_curve)kind);
    else
        put_reliability(s, &w->ranked, e->o->n_bins);
    end_line(s, e->bank->labels[c],
             kind == 0   ? "AUC"
             : kind == 1 ? "AUPRC"
                         : "calibration error",
             kind == 0   ? m->auc
             : kind == 1 ? m->auprc
                         : m->ece);
}

static void put_class_key(rz_str *s, const rz_eval *e, const rz_eval_table *t)
{
    rz_str_puts(s, "<p class=key>");
    for (size_t c = 0; c < e->data.n_classes; c++) {
        if (!t->cells[c].m.n_positive || !t->cells[c].m.n_negative) continue;
        rz_str_printf(s, "<span><i style=\"background:%s\"></i>", rz_html_color(c));
        rz_html_put_safe(s, e->bank->labels[c]);
        rz_str_puts(s, c >= RZ_HTML_COLORS ? " (dashed) " : " ");
        rz_html_put_fixed(s, t->cells[c].m.auc, 3);
        rz_str_puts(s, "</span>");
    }
    rz_str_puts(s, "</p><p><small>Numbers: AUC. A class with one outcome only has no line.</small></p>\n");
}

radz_status rz_html_put_plots(rz_str *s, const rz_eval *e, const rz_eval_method *m, const rz_eval_table *t,
                              rz_html_scratch *w, radz_error *err)
{
    static const char *const texts[3][3] = {{"ROC", "1 - specificity", "sensitivity"},
                                            {"Precision and recall", "recall", "precision"},
                                            {"Reliability", "probability said", "share positive"}};
    rz_str_puts(s, "<h3>Curves</h3><div class=plots>");
    for (int k = 0; k < 3; k++) {
        begin_plot(s, texts[k][0], texts[k][1], texts[k][2]);
        if (k != 1) rz_str_puts(s, "<path class=chance d=\"M30,270L290,10\"/>");
        for (size_t c = 0; c < e->data.n_classes; c++) {
            RZ_TRY(rz_html_rank(e, m, t, c, w, err));
            if (rz_ranked_both(&w->ranked)) put_line(s, e, t, c, k, w);
            rz_ranked_free(&w->ranked);
        }
        rz_str_printf(s, "</svg><figcaption>%s</figcaption></figure>\n", texts[k][0]);
    }
    rz_str_puts(s, "</div>");
    put_class_key(s, e, t);
    return RADZ_OK;
}

/* ---- t-SNE ---- */

/* The first finding that is there; the reference class only where no other is. */
static size_t first_label(const rz_eval *e, size_t row)
{
    size_t found = e->data.n_classes;
    for (size_t c = e->data.n_classes; c--;)
        if (e->data.truth[row * e->data.n_classes + c] == 1 && (c != e->bank->reference || found == e->data.n_classes))
            found = c;
    return found;
}

static void put_circles(rz_str *s, const rz_eval_arm *arm, const double *xy, size_t n)
{
    double low[2] = {INFINITY, INFINITY}, size = 1e-9;
    for (size_t i = 0; i < 2 * n; i++)
        if (xy[i] < low[i % 2]) low[i % 2] = xy[i];
    for (size_t i = 0; i < 2 * n; i++)
        if (xy[i] - low[i % 2] > size) size = xy[i] - low[i % 2];
    for (size_t i = 0; i < n; i++) {
        const size_t c = first_label(arm->e, arm->picture_rows[i]);
        rz_str_puts(s, "<circle r=3.5 cx=");
        rz_html_put_fixed(s, 10 + 580 * (xy[2 * i] - low[0]) / size, 1);
        rz_str_puts(s, " cy=");
        rz_html_put_fixed(s, 10 + 580 * (xy[2 * i + 1] - low[1]) / size, 1);
        rz_str_printf(s, " fill=\"%s\"/>", c < arm->e->data.n_classes ? rz_html_color(c) : "#b8c2cc");
    }
}

static void put_cloud_key(rz_str *s, const rz_eval_arm *arm, size_t n)
{
    const rz_eval *e = arm->e;
    rz_str_puts(s, "<p class=key>");
    for (size_t c = 0; c <= e->data.n_classes; c++) {
        size_t used = 0;
        for (size_t i = 0; i < n; i++) used += first_label(e, arm->picture_rows[i]) == c;
        if (!used) continue;
        rz_str_printf(s, "<span><i style=\"background:%s\"></i>", c < e->data.n_classes ? rz_html_color(c) : "#b8c2cc");
        rz_html_put_safe(s, c < e->data.n_classes ? e->bank->labels[c] : "none of the classes");
        rz_str_printf(s, " (%zu)</span>", used);
    }
    rz_str_puts(s, "</p>\n");
}

static void put_cloud(rz_str *s, const rz_eval_arm *arm, const double *xy, size_t n)
{
    static const char *const kinds[] = {"global", "local", "hidden"};
    if (arm->e->n_arms > 1) {
        rz_str_puts(s, "<h3>");
        rz_html_put_safe(s, arm->of.name);
        rz_str_puts(s, "</h3>");
    }
    rz_str_puts(s, "<figure class=cloud><svg viewBox=\"0 0 600 600\" role=img aria-label=\"t-SNE of image vectors\">");
    put_circles(s, arm, xy, n);
    rz_str_printf(s,
                  "</svg><figcaption>t-SNE (exact, perplexity 30, seed %llu) of the %s vectors of %zu of %zu films, "
                  "coloured by their first finding.</figcaption></figure>",
                  (unsigned long long)arm->e->o->seed, kinds[arm->picture_kind], n, arm->e->data.n_evaluated);
    put_cloud_key(s, arm, n);
}

radz_status rz_html_put_cloud(rz_str *s, const rz_eval_arm *arm, radz_error *err)
{
    const rz_host *host = arm->e->host;
    const size_t n = arm->n_picture;
    if (n < 3) return RADZ_OK;
    size_t *order = rz_calloc(host, n, sizeof *order);
    double *xy = rz_calloc(host, n, 2 * sizeof *xy);
    radz_status status = order && xy ? RADZ_OK : RZ_NO_MEMORY(err, "t-SNE");
    for (size_t i = 0; order && i < n; i++) order[i] = i;
    if (!status)
        status = rz_tsne(host, arm->picture, arm->wanted.dim[arm->picture_kind], order, n, arm->e->o->seed, xy, err);
    if (!status) put_cloud(s, arm, xy, n);
    rz_free(host, order);
    rz_free(host, xy);
    return status;
}
