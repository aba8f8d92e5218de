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
    rz_html_put_comparison(s, e);
    for (size_t i = 0; i < e->n_methods; i++) RZ_TRY(rz_html_put_method(s, e, i, w, err));
    RZ_TRY(rz_html_put_boxes(s, e, err));
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
