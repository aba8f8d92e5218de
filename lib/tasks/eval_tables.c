/* eval_tables.c - the tables of report.html. SPDX-License-Identifier: Apache-2.0 */
#include "eval_html.h"

static void put(rz_str *s, const char *text)
{
    rz_str_puts(s, text);
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

static void put_methods(rz_str *s, const rz_eval *e)
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

void rz_html_put_comparison(rz_str *s, const rz_eval *e)
{
    put_methods(s, e);
    put_sets(s, e);
    put_classes(s, e);
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

radz_status rz_html_put_method(rz_str *s, const rz_eval *e, size_t i, rz_html_scratch *w, radz_error *err)
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

radz_status rz_html_put_boxes(rz_str *s, const rz_eval *e, radz_error *err)
{
    if (!e->o->boxes) return RADZ_OK;
    put(s, "<h2 id=boxes>Heat maps against boxes</h2><p>Hit: the hottest pixel lies in a box (pointing game); chance: "
           "the share of the film that boxes cover. Deletion: the class's probability while the hottest patches are "
           "painted over, mean over the steps (low is good); insertion: while they are put back (high is good). A map "
           "that does no better than random patches says nothing.</p>");
    for (size_t i = 0; i < e->n_arms; i++) RZ_TRY(put_boxes_of(s, &e->arms[i], err));
    return RADZ_OK;
}
