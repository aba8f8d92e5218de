/* eval_html.c - report.html: one file for a browser, no network, no scripts. SPDX-License-Identifier: Apache-2.0 */
#include "eval_html.h"

#include <stdlib.h>

#include "lora.h"
#include "result.h"

static const char style[] =
    "<style>:root{color-scheme:light dark;--bg:#fff;--line:#d8dee6;--ink:#1c2733;--soft:#57677a;--a:#1f5fa8;"
    "--warn:#fff4d6;--good:#1f5fa822}"
    "@media(prefers-color-scheme:dark){:root{--bg:#12181f;--line:#334052;--ink:#e4e9ef;--soft:#9fb0c3;--a:#7db4f0;"
    "--warn:#3d3212;--good:#7db4f033}}"
    "*{box-sizing:border-box}html{scroll-behavior:smooth}"
    "body{margin:0 auto;max-width:1240px;padding:16px;font:15px/1.5 system-ui,sans-serif;color:var(--ink);"
    "background:var(--bg);overflow-wrap:anywhere}h1{font-size:1.55em;margin:.2em 0}"
    "h2{margin:2em 0 .3em;padding-bottom:3px;border-bottom:2px solid var(--a)}h3{margin:1.4em 0 .3em}"
    "h4{margin:.9em 0 .3em;font-size:.95em}p{max-width:78ch}a{color:var(--a)}"
    "nav{display:flex;flex-wrap:wrap;gap:4px 16px;padding:8px 0}"
    ".wide{overflow-x:auto;max-width:100%}.wide:focus-visible{outline:2px solid var(--a)}"
    "table{border-collapse:collapse;font-size:.84em;white-space:nowrap;font-variant-numeric:tabular-nums}"
    ".cap{color:var(--soft);font-size:.84em;margin:.4em 0;max-width:110ch}"
    "th,td{padding:3px 7px;text-align:right;border-bottom:1px solid var(--line)}"
    "th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--bg)}th,td{overflow-wrap:"
    "normal}"
    "thead th{border-bottom:2px solid var(--line)}th "
    "small{display:block;font-weight:400}th.set{text-align:center;border-left:1px solid var(--line)}"
    "tr.macro td,tr.macro th{font-weight:600;border-top:2px solid var(--ink)}tbody th{font-weight:400}"
    "td.left{text-align:left}small,figcaption{color:var(--soft)}td small{display:block;font-size:.82em}"
    "b.best{background:var(--good);border-radius:3px;padding:0 3px}"
    ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(290px,100%),1fr));gap:14px}"
    ".row{display:flex;flex-wrap:wrap;gap:12px}.pair{display:flex;gap:4px;flex-wrap:wrap;align-items:flex-start}"
    "figure{margin:0}figcaption{font-size:.82em}.plots svg,.cloud svg{width:100%;height:auto;display:block}"
    ".cloud{max-width:640px}.example{max-width:356px}.map figcaption{max-width:176px}.boxed{margin:10px 0}"
    "svg.film{display:block;background:#000;max-width:100%;height:auto}"
    "svg text{font:11px system-ui,sans-serif;fill:var(--soft)}svg .grid{stroke:var(--line);stroke-width:.5}"
    "svg .frame{fill:none;stroke:var(--line)}svg .chance{stroke:var(--soft);stroke-dasharray:3 4}"
    "svg polyline{fill:none;stroke-width:1.5}svg circle{fill-opacity:.75}"
    "svg .box{fill:none;stroke:#37e0ff;stroke-width:1.5}"
    ".warn{background:var(--warn);padding:8px 12px;border-radius:4px}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;font-size:.88em}dt{color:var(--soft)}"
    "dd{margin:0}dl code{font-size:.92em}ol{padding-left:1.6em}li{margin:.2em 0}summary{cursor:pointer;padding:5px 0}"
    ".key{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.85em;max-width:none}"
    ".key i{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:5px}"
    ".scale{display:flex;gap:8px;align-items:center;font-size:.85em}.scale i{width:120px;height:10px}"
    "@media(max-width:600px){body{padding:10px}dl{display:block}dd{margin:0 0 6px}"
    "th,td{padding:3px 6px}th:first-child,td:first-child{max-width:38vw;min-width:6em;white-space:normal}}"
    "@media print{body{max-width:none;font-size:11px;padding:0}nav{display:none}details::details-content{"
    "content-visibility:visible;display:block;height:auto}.wide{overflow:visible}table{font-size:.72em}"
    "th,td{padding:2px "
    "4px}.plots{grid-template-columns:repeat(3,1fr)}figure,tr{break-inside:avoid}h2,h3,h4{break-after:avoid}}</"
    "style>\n";

const char *rz_html_color(size_t i)
{
    static const char *const colors[RZ_HTML_COLORS] = {"#1f77d0", "#d1495b", "#2e8b57", "#e08e0b", "#8a5cc2",
                                                       "#128a9c", "#a9653a", "#d957a8", "#7a9a1f", "#6d7f96",
                                                       "#c0392b", "#3ba7e0", "#a08c00", "#5a5ad1"};
    return colors[i % RZ_HTML_COLORS];
}

static void put(rz_str *s, const char *text)
{
    rz_str_puts(s, text);
}

void rz_html_put_safe(rz_str *s, const char *text)
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

void rz_html_put_fixed(rz_str *s, double v, int digits)
{
    long long scale = 1, n;
    if (!isfinite(v) || fabs(v) > 1e9) {
        put(s, "&ndash;");
        return;
    }
    for (int i = 0; i < digits; i++) scale *= 10;
    n = llround(fabs(v) * (double)scale);
    if (v < 0 && n) put(s, "-");
    rz_str_printf(s, digits ? "%lld." : "%lld", n / scale);
    for (long long rest = n % scale, d = scale / 10; d; d /= 10) rz_str_printf(s, "%lld", rest / d % 10);
}

radz_status rz_html_rank(const rz_eval *e, const rz_eval_method *m, const rz_eval_table *t, size_t c,
                         rz_html_scratch *w, radz_error *err)
{
    for (size_t i = 0; i < t->n_films; i++) {
        w->scores[i] = m->probability[t->rows[i] * e->data.n_classes + c];
        w->truth[i] = e->data.truth[t->rows[i] * e->data.n_classes + c];
    }
    return rz_rank(e->host, w->scores, w->truth, t->n_films, &w->ranked, err);
}

void rz_html_put_row_name(rz_str *s, const rz_eval_method *m)
{
    if (m->arm->e->n_arms > 1) {
        rz_html_put_safe(s, m->arm->of.name);
        put(s, ": ");
    }
    put(s, m->name);
}

static const rz_eval_table *all_films(const rz_eval_method *m)
{
    return &m->tables[m->n_tables - 1];
}

/* ---- Cells ---- */

static void put_interval(rz_str *s, double low, double high, int digits)
{
    if (isnan(low)) return;
    put(s, "<small>");
    rz_html_put_fixed(s, low, digits);
    put(s, low < 0 || high < 0 ? " to " : "&ndash;");
    rz_html_put_fixed(s, high, digits);
    put(s, "</small>");
}

static void put_value(rz_str *s, double v, double low, double high, bool best)
{
    put(s, best ? "<td><b class=best>" : "<td>");
    rz_html_put_fixed(s, v, 3);
    if (best) put(s, "</b>");
    put_interval(s, low, high, 3);
    put(s, "</td>");
}

static void put_plus_minus(rz_str *s, const rz_difference *d)
{
    const bool sure = d && (d->low > 0 || d->high < 0);
    put(s, "<td>");
    if (!d) {
        put(s, "<small>the first row</small></td>");
        return;
    }
    if (sure) put(s, "<b>");
    if (d->value > 0) put(s, "+");
    rz_html_put_fixed(s, d->value, 3);
    if (sure) put(s, "</b>");
    put_interval(s, d->low, d->high, 3);
    put(s, "</td>");
}

/* A table that is wider than a telephone is moved in its own frame, also by keys. */
static void begin_table(rz_str *s, const char *label)
{
    rz_str_printf(s, "<div class=wide tabindex=0 role=region aria-label=\"%s\"><table>", label);
}

static void end_table(rz_str *s)
{
    put(s, "</tbody></table></div>\n");
}

/* ---- Methods beside each other: the paper's tables ---- */

enum { N_SHOWN = 9 };
static const struct {
    size_t figure; /* as rz_figure_name counts */
    const char *title;
    int better; /* the highest (1) or lowest (-1) is marked */
} shown[N_SHOWN] = {{0, "AUC", 1},   {1, "AUPRC", 1}, {2, "F1", 1},     {3, "Accuracy", 1}, {4, "MCC", 1},
                    {5, "Sens.", 0}, {6, "Spec.", 0}, {8, "Brier", -1}, {9, "ECE", -1}};

static double macro_figure(const rz_eval *e, const rz_eval_table *t, size_t figure)
{
    return rz_figure_of(&t->cells[e->data.n_classes].m, figure);
}

static bool is_best(const rz_eval *e, size_t method, size_t table, size_t figure, int better)
{
    const double v = macro_figure(e, &e->methods[method].tables[table], figure);
    if (e->n_methods < 2 || !better || isnan(v)) return false;
    for (size_t i = 0; i < e->n_methods; i++)
        if ((macro_figure(e, &e->methods[i].tables[table], figure) - v) * better > 0) return false;
    return true;
}

static void put_row_head(rz_str *s, const rz_eval_method *m)
{
    put(s, "<tr><th scope=row>");
    if (m->arm->e->n_arms > 1) {
        rz_html_put_safe(s, m->arm->of.name);
        put(s, "<br>");
    }
    rz_str_printf(s, "%s</th>", m->name);
}

static void put_comparison_row(rz_str *s, const rz_eval *e, size_t i)
{
    const rz_eval_method *m = &e->methods[i];
    const rz_eval_table *t = all_films(m);
    const rz_eval_cell *macro = &t->cells[e->data.n_classes];
    put_row_head(s, m);
    for (size_t k = 0; k < N_SHOWN; k++)
        put_value(s, rz_figure_of(&macro->m, shown[k].figure), rz_figure_of(&macro->low, shown[k].figure),
                  rz_figure_of(&macro->high, shown[k].figure),
                  is_best(e, i, m->n_tables - 1, shown[k].figure, shown[k].better));
    for (size_t k = 0; k < 4 && e->n_methods > 1 && e->o->n_rounds; k++) {
        if (k == 1) continue;
        if (!i && k) {
            put(s, "<td></td>");
            continue;
        }
        put_plus_minus(s, t->macro ? &t->macro[k] : NULL);
    }
    put(s, "</tr>\n");
}

static void put_comparison(rz_str *s, const rz_eval *e)
{
    const rz_eval_table *t = all_films(&e->methods[0]);
    const bool differ = e->n_methods > 1 && e->o->n_rounds;
    put(s, "<h2 id=comparison>Methods</h2>");
    rz_str_printf(s, "<p class=cap>All %zu films of %zu patients. Means over the %zu classes with both outcomes",
                  t->n_films, t->n_patients, t->n_defined);
    if (e->bank->reference < e->bank->n && e->bank->n > 1)
        put(s, e->o->macro_reference ? ", the reference class among them" : ", without the reference class");
    put(s, ".");
    if (e->o->n_rounds) {
        put(s, " Small: ");
        rz_html_put_fixed(s, 100 * e->o->confidence, 0);
        put(s, "&#8239;% intervals, drawn by patient.");
    }
    if (differ) put(s, " Differences are to the first row, on the same draws; bold where the interval leaves 0 out.");
    put(s, "</p>");
    begin_table(s, "Methods and figures");
    put(s, "<thead><tr><th scope=col>Method</th>");
    for (size_t k = 0; k < N_SHOWN; k++) rz_str_printf(s, "<th scope=col>%s</th>", shown[k].title);
    if (differ)
        put(s, "<th scope=col>&Delta; AUC</th><th scope=col>&Delta; F1</th><th scope=col>&Delta; Accuracy</th>");
    put(s, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < e->n_methods; i++) put_comparison_row(s, e, i);
    end_table(s);
    if (t->n_defined && t->cells[e->data.n_classes].note) {
        put(s, "<p class=cap>A dash: ");
        rz_html_put_safe(s, t->cells[e->data.n_classes].note);
        put(s, ".</p>");
    }
}

/* Table 2: AUC, F1 and accuracy of every method on every set. */
static void put_sets(rz_str *s, const rz_eval *e)
{
    const size_t n = e->methods[0].n_tables;
    if (n < 2) return;
    put(s, "<h3>By set</h3>");
    begin_table(s, "Methods by set");
    put(s, "<thead><tr><td></td>");
    for (size_t t = 0; t + 1 < n; t++) {
        const rz_eval_table *table = &e->methods[0].tables[t];
        put(s, "<th class=set scope=colgroup colspan=3>");
        rz_html_put_safe(s, *table->set ? table->set : "(no set)");
        rz_str_printf(s, "<small>%zu films, %zu classes</small></th>", table->n_films, table->n_defined);
    }
    put(s, "</tr><tr><th scope=col>Method</th>");
    for (size_t t = 0; t + 1 < n; t++) put(s, "<th scope=col>AUC</th><th scope=col>F1</th><th scope=col>Acc.</th>");
    put(s, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < e->n_methods; i++) {
        put_row_head(s, &e->methods[i]);
        for (size_t t = 0; t + 1 < n; t++)
            for (size_t k = 0; k < 4; k++) {
                const rz_eval_cell *c = &e->methods[i].tables[t].cells[e->data.n_classes];
                if (k != 1)
                    put_value(s, rz_figure_of(&c->m, k), rz_figure_of(&c->low, k), rz_figure_of(&c->high, k),
                              is_best(e, i, t, k, 1));
            }
        put(s, "</tr>\n");
    }
    end_table(s);
}

static void put_classes(rz_str *s, const rz_eval *e)
{
    if (e->n_methods < 2) return;
    put(s, "<h3>AUC by class</h3>");
    begin_table(s, "AUC by class and method");
    put(s, "<thead><tr><th scope=col>Class</th>");
    for (size_t i = 0; i < e->n_methods; i++) {
        put(s, "<th scope=col>");
        if (e->n_arms > 1) {
            rz_html_put_safe(s, e->methods[i].arm->of.name);
            put(s, "<br>");
        }
        rz_str_printf(s, "%s</th>", e->methods[i].name);
    }
    put(s, "</tr></thead><tbody>\n");
    for (size_t c = 0; c < e->data.n_classes; c++) {
        const radz_metrics *first = &all_films(&e->methods[0])->cells[c].m;
        if (!first->n_positive || !first->n_negative) continue;
        put(s, "<tr><th scope=row>");
        rz_html_put_safe(s, e->bank->labels[c]);
        put(s, "</th>");
        for (size_t i = 0; i < e->n_methods; i++) {
            const rz_eval_cell *cell = &all_films(&e->methods[i])->cells[c];
            put_value(s, cell->m.auc, cell->low.auc, cell->high.auc, false);
        }
        put(s, "</tr>\n");
    }
    end_table(s);
}

/* ---- One method ---- */

static void put_row(rz_str *s, const char *name, const rz_eval_cell *c, bool macro)
{
    const radz_metrics *m = &c->m;
    put(s, macro ? "<tr class=macro><th scope=row>" : "<tr><th scope=row>");
    rz_html_put_safe(s, name);
    rz_str_printf(s, "</th><td>%zu</td><td>%zu</td>", m->n_positive, m->n_negative);
    if (!macro && (!m->n_positive || !m->n_negative)) {
        rz_str_printf(s, "<td colspan=%d class=left><small>", N_SHOWN + 1);
        rz_html_put_safe(s, c->note ? c->note : "");
        put(s, "</small></td></tr>\n");
        return;
    }
    for (size_t k = 0; k < N_SHOWN; k++) {
        const bool narrow = shown[k].figure < 4;
        put_value(s, rz_figure_of(m, shown[k].figure), narrow ? rz_figure_of(&c->low, shown[k].figure) : NAN,
                  narrow ? rz_figure_of(&c->high, shown[k].figure) : NAN, false);
    }
    put_value(s, m->threshold, NAN, NAN, false);
    put(s, "</tr>\n");
}

static bool is_known(const rz_eval_cell *c)
{
    return c->m.n_positive + c->m.n_negative > 0;
}

static void put_unknown(rz_str *s, const rz_eval *e, const rz_eval_table *t)
{
    const char *between = "<p class=cap>No film of these says whether it is there: ";
    for (size_t c = 0; c < e->data.n_classes; c++) {
        if (is_known(&t->cells[c])) continue;
        put(s, between);
        rz_html_put_safe(s, e->bank->labels[c]);
        between = ", ";
    }
    if (*between == ',') put(s, ".</p>");
}

static void put_table(rz_str *s, const rz_eval *e, const rz_eval_table *t)
{
    put(s, "<h3>");
    rz_html_put_safe(s, t->set ? (*t->set ? t->set : "films of no set") : "All films");
    put(s, "</h3>");
    rz_str_printf(s, "<p class=cap>%zu films of %zu patients; the mean is over %zu classes.</p>", t->n_films,
                  t->n_patients, t->n_defined);
    begin_table(s, "Figures by class");
    put(s, "<thead><tr><th scope=col>Class</th><th scope=col>Pos.</th><th scope=col>Neg.</th>");
    for (size_t k = 0; k < N_SHOWN; k++) rz_str_printf(s, "<th scope=col>%s</th>", shown[k].title);
    put(s, "<th scope=col>Threshold</th></tr></thead><tbody>\n");
    for (size_t c = 0; c < e->data.n_classes; c++)
        if (is_known(&t->cells[c])) put_row(s, e->bank->labels[c], &t->cells[c], false);
    put_row(s, "Macro mean", &t->cells[e->data.n_classes], true);
    end_table(s);
    put_unknown(s, e, t);
    if (t->cells[e->data.n_classes].note) {
        put(s, "<p class=cap>Macro mean: ");
        rz_html_put_safe(s, t->cells[e->data.n_classes].note);
        put(s, ".</p>");
    }
}

/* A count, and as shade what share of its outcome it is. */
static void put_count(rz_str *s, size_t n, size_t of)
{
    const double share = of ? (double)n / (double)of : 0;
    rz_str_printf(s, "<td style=\"background:rgb(31 95 168 / %lld%%)\">%zu <small>", llround(40 * share), n);
    rz_html_put_fixed(s, 100 * share, 1);
    put(s, "&#8239;%</small></td>");
}

static void put_confusion(rz_str *s, const rz_eval *e, const rz_eval_table *t)
{
    put(s, "<h3>Confusion at the thresholds</h3>");
    put(s, "<p class=cap>Shares are of the films with that outcome.</p>");
    begin_table(s, "Confusion by class");
    put(s, "<thead><tr><th scope=col>Class</th>"
           "<th scope=col>True positive</th><th scope=col>False negative</th><th scope=col>False positive</th>"
           "<th scope=col>True negative</th></tr></thead><tbody>\n");
    for (size_t c = 0; c < e->data.n_classes; c++) {
        const radz_metrics *m = &t->cells[c].m;
        if (!m->n_positive || !m->n_negative || isnan(m->threshold)) continue;
        put(s, "<tr><th scope=row>");
        rz_html_put_safe(s, e->bank->labels[c]);
        put(s, "</th>");
        put_count(s, m->tp, m->n_positive);
        put_count(s, m->fn, m->n_positive);
        put_count(s, m->fp, m->n_negative);
        put_count(s, m->tn, m->n_negative);
        put(s, "</tr>\n");
    }
    end_table(s);
}

static radz_status put_method(rz_str *s, const rz_eval *e, size_t i, rz_html_scratch *w, radz_error *err)
{
    const rz_eval_method *m = &e->methods[i];
    rz_str_printf(s, "<section id=m%zu><h2>", i);
    rz_html_put_row_name(s, m);
    rz_str_printf(s, "</h2><p>Feature: %s. Classes: %s. Calibration: %s. Tau: ", rz_eval_feature(m->scorer),
                  rz_classes_name(m->scorer->classes), rz_calibration_name(m->scorer->calibration));
    rz_html_put_fixed(s, m->scorer->tau, 4);
    rz_str_printf(s, ". Thresholds: %s.</p>\n",
                  rz_score_is_answer(m->scorer->kind) ? "none, an answer is yes or no" : rz_eval_threshold_name(e));
    put_table(s, e, all_films(m));
    if (m->n_tables > 1) {
        rz_str_printf(s, "<details><summary>Each of the %zu sets</summary>", m->n_tables - 1);
        for (size_t t = 0; t + 1 < m->n_tables; t++) put_table(s, e, &m->tables[t]);
        put(s, "</details>\n");
    }
    RZ_TRY(rz_html_put_plots(s, e, m, all_films(m), w, err));
    put_confusion(s, e, all_films(m));
    put(s, "</section>\n");
    return RADZ_OK;
}

/* ---- Boxes ---- */

static void put_map_row(rz_str *s, const rz_eval *e, const rz_eval_mean *m, int map, const char *label)
{
    static const int order[RZ_MAP_FIGURES] = {RZ_MAP_HIT, RZ_MAP_SHARE, RZ_MAP_DELETION, RZ_MAP_INSERTION};
    put(s, map ? "<tr><th scope=row>" : "<tr class=macro><th scope=row>");
    rz_html_put_safe(s, map ? "" : label);
    rz_str_printf(s, "</th><td>%s</td><td>%zu</td>", rz_map_name(map), m->n);
    for (int k = 0; k < RZ_MAP_FIGURES; k++) {
        const bool interval = e->o->n_rounds && order[k] != RZ_MAP_SHARE;
        put_value(s, m->value[map][order[k]], interval ? m->low[map][order[k]] : NAN,
                  interval ? m->high[map][order[k]] : NAN, false);
    }
    put(s, "</tr>\n");
}

static radz_status put_boxes_of(rz_str *s, const rz_eval_arm *arm, radz_error *err)
{
    const rz_eval *e = arm->e;
    const rz_eval_boxes *b = &arm->boxes;
    if (e->n_arms > 1) {
        put(s, "<h3>");
        rz_html_put_safe(s, arm->of.name);
        put(s, "</h3>");
    }
    rz_str_printf(
        s,
        "<p class=cap>%zu boxes, %zu films and classes (%zu could not be measured). Left out: %zu boxes of films "
        "that are not evaluated, %zu of classes that the bank has not.</p>",
        b->n_boxes, b->n, b->n_failed, b->n_other_films, b->n_other_classes);
    begin_table(s, "Heat maps against boxes");
    put(s, "<thead><tr><th scope=col>Class</th><th scope=col>Heat map</th><th scope=col>n</th><th scope=col>Hit</th>"
           "<th scope=col>Chance</th><th scope=col>Deletion</th><th scope=col>Insertion</th></tr></thead><tbody>\n");
    for (size_t k = 0; k <= e->data.n_classes; k++) {
        const size_t c = k ? k - 1 : e->data.n_classes; /* all of them first */
        if (!b->means[c].n) continue;
        for (int map = 0; map < RZ_MAPS; map++) put_map_row(s, e, &b->means[c], map, k ? e->bank->labels[c] : "All");
    }
    end_table(s);
    return rz_html_put_boxed(s, arm, err);
}

static radz_status put_boxes(rz_str *s, const rz_eval *e, radz_error *err)
{
    if (!e->o->boxes) return RADZ_OK;
    put(s, "<h2 id=boxes>Heat maps against boxes</h2><p>Hit: the hottest pixel lies in a box (pointing game); chance: "
           "the share of the film that boxes cover. Deletion: the class's probability while the hottest patches are "
           "painted over, mean over the steps (low is good); insertion: while they are put back (high is good). A map "
           "that does no better than random patches says nothing.</p>");
    for (size_t i = 0; i < e->n_arms; i++) RZ_TRY(put_boxes_of(s, &e->arms[i], err));
    return RADZ_OK;
}

/* ---- Films ---- */

/* The method of a model whose films are shown: the first that has a direction to draw. */
static const rz_eval_method *shown_method(const rz_eval *e, const rz_eval_arm *arm)
{
    for (size_t i = 0; i < arm->n_methods; i++)
        if (e->methods[arm->first_method + i].scorer->kind < RADZ_SCORE_HIDDEN)
            return &e->methods[arm->first_method + i];
    return &e->methods[arm->first_method];
}

static radz_status put_films(rz_str *s, const rz_eval *e, rz_html_scratch *w, radz_error *err)
{
    if (!e->o->n_examples) return RADZ_OK;
    put(s, "<h2 id=films>Films that went best and worst</h2>");
    for (size_t i = 0; i < e->n_arms; i++) RZ_TRY(rz_html_put_examples(s, e, shown_method(e, &e->arms[i]), w, err));
    return RADZ_OK;
}

static radz_status put_clouds(rz_str *s, const rz_eval *e, radz_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < e->n_arms; i++) n += e->arms[i].n_picture >= 3;
    if (n) put(s, "<h2 id=vectors>Image vectors</h2>");
    for (size_t i = 0; i < e->n_arms; i++) RZ_TRY(rz_html_put_cloud(s, &e->arms[i], err));
    return RADZ_OK;
}

static void put_failures(rz_str *s, const rz_eval *e)
{
    size_t n = 0;
    if (!e->films.n_failed) return;
    rz_str_printf(s, "<h2 id=failed>Films that could not be read</h2><p>%zu; they are in no figure.</p><ol>",
                  e->films.n_failed);
    for (size_t i = 0; i < e->data.n && n < 50; i++) {
        if (e->films.state[i] != RZ_FILM_FAILED) continue;
        rz_str_printf(s, "<li>line %zu: ", e->data.rows[i].line);
        rz_html_put_safe(s, e->films.why[i]);
        put(s, "</li>\n");
        n++;
    }
    put(s, n < e->films.n_failed ? "</ol><p>The others are in report.json.</p>" : "</ol>\n");
}

static void put_foreign_labels(rz_str *s, const rz_eval *e)
{
    if (!e->data.labels.n) return;
    put(s, "<h3>Labels that no class stands for</h3><p class=key>");
    for (size_t i = 0; i < e->data.labels.n; i++) {
        put(s, "<span>");
        rz_html_put_safe(s, e->data.labels.items[i]);
        rz_str_printf(s, " (%zu)</span>", e->data.label_rows[i]);
    }
    put(s, "</p>\n");
}

/* ---- What was done ---- */

static void put_fact(rz_str *s, const char *name, const char *text)
{
    rz_str_printf(s, "<dt>%s</dt><dd>", name);
    rz_html_put_safe(s, text ? text : "none");
    put(s, "</dd>\n");
}

static void put_hash(rz_str *s, const char *name, const char *hash)
{
    rz_str_printf(s, "<dt>%s</dt><dd><code>%s</code></dd>\n", name, hash && *hash ? hash : "none");
}

static void put_model(rz_str *s, const rz_eval_model *of)
{
    const rz_model *m = of->net->model;
    rz_str settings = {.host = s->host};
    rz_sha256 h;
    char hash[65] = "", device[64];
    put(s, "<h3>Model ");
    rz_html_put_safe(s, of->name);
    put(s, "</h3><dl>");
    put_hash(s, "Model", m->hash);
    if (m->lora) {
        rz_sha256_init(&h);
        rz_lora_hash(m->lora, &h);
        rz_sha256_hex(&h, hash);
    }
    put_hash(s, "Adapter", hash);
    put_hash(s, "Bank", of->bank->hash);
    put_hash(s, "Tokenizer", m->tok ? rz_tokenizer_hash(m->tok) : NULL);
    rz_preprocess_put_json(&settings, &m->cfg);
    rz_sha256_init(&h);
    if (!settings.failed) rz_sha256_put(&h, settings.data, settings.len);
    rz_sha256_hex(&h, hash);
    s->failed = s->failed || settings.failed;
    rz_str_free(&settings);
    put_hash(s, "Preprocessing", hash);
    rz_eval_device(m, device);
    put_fact(s, "Device", device);
    put_fact(s, "Vision tower", m->cfg.vision_dir ? "external" : "of the checkpoint");
    rz_str_printf(s, "<dt>Layer</dt><dd>%d</dd></dl>\n", m->cfg.radz.layer);
}

static void put_protocol(rz_str *s, const rz_eval *e)
{
    const radz_eval_options *o = e->o;
    put(s, "<h2 id=protocol>Protocol and stamps</h2><dl>");
    put_fact(s, "Library", radz_version());
    put_hash(s, "Manifest", e->data.manifest_hash);
    put_fact(s, "Split", e->data.split ? e->data.split : "all");
    put_fact(s, "Sets", o->sets ? o->sets : "all");
    put_hash(s, "Label map", e->data.map_hash);
    if (o->validation) put_hash(s, "Validation manifest", e->data.validation_hash);
    if (o->boxes) put_hash(s, "Boxes", e->arms[0].boxes.hash);
    put_fact(s, "Threshold source", rz_eval_threshold_name(e));
    if (e->threshold_note) put_fact(s, "", e->threshold_note);
    put_fact(s, "Positive at", o->strict ? "score > threshold" : "score >= threshold");
    put_fact(s, "F1 over", o->both_classes ? "both classes" : "the positive class");
    put_fact(s, "Uncertain labels", o->uncertain);
    rz_str_printf(
        s,
        "<dt>Calibration error</dt><dd>%zu bins of equal width</dd><dt>Intervals</dt><dd>%zu bootstrap rounds "
        "by patient, seed %llu</dd><dt>Films</dt><dd>%zu evaluated, %zu for validation, %zu could not be "
        "read</dd></dl>\n",
        o->n_bins, o->n_rounds, (unsigned long long)o->seed, e->data.n_evaluated, e->data.n - e->data.n_evaluated,
        e->films.n_failed);
    for (size_t i = 0; i < e->n_arms; i++) put_model(s, &e->arms[i].of);
    put_foreign_labels(s, e);
    for (size_t i = 0; i < e->n_absent; i++) {
        put(s, i ? "<li>" : "<h3>Methods left out</h3><ul><li>");
        rz_html_put_safe(s, e->absent[i].arm->of.name);
        rz_str_printf(s, ", %s: ", e->absent[i].name);
        rz_html_put_safe(s, e->absent[i].why);
        put(s, i + 1 < e->n_absent ? "</li>" : "</li></ul>\n");
    }
}

/* ---- The page ---- */

static void put_title(rz_str *s, const rz_eval *e)
{
    put(s, "Evaluation of ");
    for (size_t i = 0; i < e->n_arms; i++) {
        if (i) put(s, i + 1 < e->n_arms ? ", " : " and ");
        rz_html_put_safe(s, e->arms[i].of.name);
    }
}

static void put_contents(rz_str *s, const rz_eval *e)
{
    put(s, "<nav aria-label=Contents><a href=\"#comparison\">Methods</a>");
    for (size_t i = 0; i < e->n_methods; i++) {
        rz_str_printf(s, "<a href=\"#m%zu\">", i);
        rz_html_put_row_name(s, &e->methods[i]);
        put(s, "</a>");
    }
    if (e->o->boxes) put(s, "<a href=\"#boxes\">Boxes</a>");
    if (e->o->n_examples) put(s, "<a href=\"#films\">Films</a>");
    if (e->arms[0].n_picture >= 3) put(s, "<a href=\"#vectors\">Image vectors</a>");
    if (e->films.n_failed) put(s, "<a href=\"#failed\">Failed films</a>");
    put(s, "<a href=\"#protocol\">Protocol and stamps</a></nav>\n");
}

static void put_head(rz_str *s, const rz_eval *e)
{
    put(s, "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width,"
           "initial-scale=1\"><title>");
    put_title(s, e);
    put(s, "</title>\n");
    put(s, style);
    put(s, "<h1>");
    put_title(s, e);
    rz_str_printf(s, "</h1><p class=warn>%s</p>\n", radz_disclaimer());
    rz_str_printf(s, "<p>%zu films evaluated (split ", e->data.n_evaluated);
    rz_html_put_safe(s, e->data.split ? e->data.split : "all");
    rz_str_printf(s, "), %zu for validation, <b>%zu could not be read</b>. Thresholds: <b>%s</b>",
                  e->data.n - e->data.n_evaluated, e->films.n_failed, rz_eval_threshold_name(e));
    if (strcmp(e->threshold_where, "test") == 0)
        put(s, ", chosen on the films that are evaluated, as published: F1 and accuracy are optimistic");
    put(s, ".</p>\n");
    if (e->data.n_shared_patients)
        rz_str_printf(s, "<p class=warn>%zu patients have films on both sides: evaluated and validation.</p>\n",
                      e->data.n_shared_patients);
    put_contents(s, e);
}

static radz_status open_scratch(const rz_eval *e, rz_html_scratch *w, radz_error *err)
{
    const size_t n = e->data.n + 1;
    w->host = e->host;
    w->scores = rz_calloc(e->host, n, sizeof(double));
    w->x = rz_calloc(e->host, n, sizeof(double));
    w->y = rz_calloc(e->host, n, sizeof(double));
    w->t = rz_calloc(e->host, n, sizeof(double));
    w->truth = rz_calloc(e->host, n, 1);
    return w->scores && w->x && w->y && w->t && w->truth ? RADZ_OK : RZ_NO_MEMORY(err, "figures");
}

static radz_status put_page(rz_str *s, const rz_eval *e, rz_html_scratch *w, radz_error *err)
{
    put_head(s, e);
    put(s, "<main>");
    put_comparison(s, e);
    put_sets(s, e);
    put_classes(s, e);
    for (size_t i = 0; i < e->n_methods; i++) RZ_TRY(put_method(s, e, i, w, err));
    RZ_TRY(put_boxes(s, e, err));
    RZ_TRY(put_films(s, e, w, err));
    RZ_TRY(put_clouds(s, e, err));
    put_failures(s, e);
    put_protocol(s, e);
    put(s, "</main></html>\n");
    return RADZ_OK;
}

radz_status rz_eval_put_html(rz_str *s, const rz_eval *e, radz_error *err)
{
    rz_html_scratch w = {.host = e->host};
    radz_status status = open_scratch(e, &w, err);
    if (!status) status = put_page(s, e, &w, err);
    rz_free(e->host, w.scores);
    rz_free(e->host, w.x);
    rz_free(e->host, w.y);
    rz_free(e->host, w.t);
    rz_free(e->host, w.truth);
    return status;
}
