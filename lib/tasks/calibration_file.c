/* calibration_file.c - what was fitted per class, beside the bank or in it: radz.calibration/1.
 * SPDX-License-Identifier: Apache-2.0 */
#include "scorer.h"

#define SCHEMA "radz.calibration/1"
#define MAX_POINTS 10000000

static void put_numbers(rz_str *s, const char *before, const double *v, size_t n)
{
    rz_str_puts(s, before);
    for (size_t i = 0; i < n; i++) rz_str_put_number(s, i ? "," : "[", v[i]);
    rz_str_puts(s, n ? "]" : "[]");
}

static void put_class(rz_str *s, const char *label, const rz_calibrator *c)
{
    rz_str_put_text(s, "{\"label\":", label);
    rz_str_put_text(s, ",\"kind\":", rz_calibration_name(c->kind));
    if (c->kind == RZ_CALIBRATE_PLATT) rz_str_put_number(s, ",\"a\":", c->a), rz_str_put_number(s, ",\"b\":", c->b);
    if (c->kind == RZ_CALIBRATE_ISOTONIC) {
        put_numbers(s, ",\"x\":", c->x, c->n);
        put_numbers(s, ",\"y\":", c->y, c->n);
    }
    rz_str_put_number(s, ",\"threshold\":", c->threshold);
    rz_str_printf(s, ",\"n_positive\":%zu,\"n_negative\":%zu}", c->n_positive, c->n_negative);
}

static void put_templates(rz_str *s, const char *before, char *const *templates, size_t n)
{
    rz_str_puts(s, before);
    for (size_t i = 0; i < n; i++) rz_str_put_text(s, i ? "," : "", templates[i]);
    rz_str_puts(s, "]");
}

void rz_calibration_put_json(rz_str *out, const rz_scorer *s, const char *source, const char *films, const char *rule)
{
    rz_str_put_text(out, "{\"schema\":", SCHEMA);
    rz_str_put_text(out, ",\"library\":", radz_version());
    rz_str_put_text(out, ",\"model\":", s->model_hash);
    rz_str_put_text(out, ",\"bank\":", s->bank_hash);
    rz_str_put_text(out, ",\"score\":", rz_score_name(s->kind));
    rz_str_put_text(out, ",\"feature\":", rz_feature_name(s->feature));
    rz_str_put_text(out, ",\"classes\":", rz_classes_name(s->classes));
    rz_str_put_number(out, ",\"tau\":", s->tau);
    put_templates(out, ",\"templates\":[", s->templates, s->n_templates);
    put_templates(out, ",\"negatives\":[", s->negative_templates, s->n_negatives);
    rz_str_put_text(out, ",\"source\":", source);
    rz_str_put_text(out, ",\"films\":", films);
    rz_str_put_text(out, ",\"threshold_rule\":", rule);
    rz_str_puts(out, ",\"labels\":[\n");
    for (size_t c = 0; c < s->n; c++) {
        if (c) rz_str_puts(out, ",\n");
        put_class(out, s->labels[c], &s->calibrators[c]);
    }
    rz_str_puts(out, "]}\n");
}

/* ---- Reading ---- */

static radz_status must_be(const json_t *o, const char *path, const char *key, const char *expected, radz_error *err)
{
    const char *text = NULL;
    RZ_TRY(rz_json_string(o, path, key, &text, err));
    if (text && strcmp(text, expected) == 0) return RADZ_OK;
    return rz_fail(err, RADZ_E_MISMATCH, "%s: %s: fitted for %.40s, this is %.40s", path, key, text ? text : "(none)",
                   expected);
}

static radz_status check_owner(const rz_scorer *s, const json_t *o, const char *path, radz_error *err)
{
    const char *schema = NULL;
    double tau = NAN;
    RZ_TRY(rz_json_string(o, path, "schema", &schema, err));
    if (!schema || strcmp(schema, SCHEMA) != 0)
        return rz_fail(err, RADZ_E_FORMAT, "%s: not a calibration: expected schema %s", path, SCHEMA);
    RZ_TRY(must_be(o, path, "model", s->model_hash, err));
    RZ_TRY(must_be(o, path, "bank", s->bank_hash, err));
    RZ_TRY(must_be(o, path, "score", rz_score_name(s->kind), err));
    RZ_TRY(must_be(o, path, "feature", rz_feature_name(s->feature), err));
    RZ_TRY(must_be(o, path, "classes", rz_classes_name(s->classes), err));
    RZ_TRY(rz_json_double(o, path, "tau", 0, 1e300, &tau, err));
    if (tau == s->tau) return RADZ_OK;
    return rz_fail(err, RADZ_E_MISMATCH, "%s: tau: fitted for another temperature", path);
}

static radz_status check_templates(const json_t *o, const char *path, const char *key, char *const *templates, size_t n,
                                   radz_error *err)
{
    const json_t *list = json_object_get(o, key);
    bool same = json_is_array(list) && json_array_size(list) == n;
    for (size_t i = 0; same && i < n; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        same = text && strcmp(text, templates[i]) == 0;
    }
    return same ? RADZ_OK : rz_fail(err, RADZ_E_MISMATCH, "%s: %s: fitted for other texts", path, key);
}

static radz_status load_points(const rz_host *host, const json_t *o, const char *path, rz_calibrator *c,
                               radz_error *err)
{
    const json_t *x = json_object_get(o, "x"), *y = json_object_get(o, "y");
    size_t n = json_array_size(x);
    if (n < 1 || n > MAX_POINTS || json_array_size(y) != n)
        return rz_fail(err, RADZ_E_FORMAT, "%s: x and y: expected two lists of one length", path);
    c->x = rz_calloc(host, n, sizeof *c->x);
    c->y = rz_calloc(host, n, sizeof *c->y);
    if (!c->x || !c->y) return RZ_NO_MEMORY(err, "calibration");
    c->n = n;
    for (size_t i = 0; i < n; i++) {
        c->x[i] = json_number_value(json_array_get(x, i));
        c->y[i] = json_number_value(json_array_get(y, i));
        bool good = json_is_number(json_array_get(x, i)) && json_is_number(json_array_get(y, i)) && c->y[i] >= 0 &&
                    c->y[i] <= 1 && (!i || c->x[i] > c->x[i - 1]);
        if (!good) return rz_fail(err, RADZ_E_FORMAT, "%s: x must rise and y lie in 0..1", path);
    }
    return RADZ_OK;
}

static radz_status load_class(const rz_host *host, const json_t *o, const char *path, const char *label,
                              rz_calibrator *c, radz_error *err)
{
    const char *kind = "";
    *c = (rz_calibrator){.threshold = NAN};
    RZ_TRY(must_be(o, path, "label", label, err));
    RZ_TRY(rz_json_string(o, path, "kind", &kind, err));
    RZ_TRY(rz_json_double(o, path, "threshold", 0, 1, &c->threshold, err));
    if (strcmp(kind, "none") == 0) return RADZ_OK;
    if (strcmp(kind, "platt") == 0) {
        c->kind = RZ_CALIBRATE_PLATT;
        c->a = c->b = NAN;
        RZ_TRY(rz_json_double(o, path, "a", -1e300, 1e300, &c->a, err));
        RZ_TRY(rz_json_double(o, path, "b", -1e300, 1e300, &c->b, err));
        if (isnan(c->a) || isnan(c->b)) return rz_fail(err, RADZ_E_FORMAT, "%s: '%s': no a or b", path, label);
        return RADZ_OK;
    }
    if (strcmp(kind, "isotonic") != 0)
        return rz_fail(err, RADZ_E_FORMAT, "%s: '%s': expected kind none, platt or isotonic", path, label);
    c->kind = RZ_CALIBRATE_ISOTONIC;
    return load_points(host, o, path, c, err);
}

radz_status rz_calibration_take(rz_scorer *s, const json_t *o, const char *path, radz_error *err)
{
    RZ_TRY(check_owner(s, o, path, err));
    RZ_TRY(check_templates(o, path, "templates", s->templates, s->n_templates, err));
    RZ_TRY(check_templates(o, path, "negatives", s->negative_templates, s->n_negatives, err));
    const json_t *labels = json_object_get(o, "labels");
    if (!json_is_array(labels) || json_array_size(labels) != s->n)
        return rz_fail(err, RADZ_E_FORMAT, "%s: labels: expected %zu classes", path, s->n);
    s->calibrators = rz_calloc(s->host, s->n, sizeof *s->calibrators);
    if (!s->calibrators) return RZ_NO_MEMORY(err, "calibration");
    for (size_t c = 0; c < s->n; c++) {
        RZ_TRY(load_class(s->host, json_array_get(labels, c), path, s->labels[c], &s->calibrators[c], err));
        if (s->calibrators[c].kind) s->calibration = s->calibrators[c].kind;
    }
    return RADZ_OK;
}

radz_status rz_calibration_load(rz_scorer *s, const char *path, radz_error *err)
{
    json_t *o = NULL;
    RZ_TRY(rz_json_load(s->host, path, RZ_CALIBRATION_MAX_BYTES, &o, err));
    radz_status status = rz_calibration_take(s, o, path, err);
    json_decref(o);
    return status;
}

radz_status rz_calibration_parse(rz_scorer *s, const char *text, const char *what, radz_error *err)
{
    json_t *o = NULL;
    RZ_TRY(rz_json_parse(text, strlen(text), what, &o, err));
    radz_status status = rz_calibration_take(s, o, what, err);
    json_decref(o);
    return status;
}
