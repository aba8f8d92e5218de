/* Public: metrics.
 * SPDX-License-Identifier: Apache-2.0 */
#include "handles.h"
#include "metrics.h"

void radz_metrics_options_init_sized(radz_metrics_options *options, size_t struct_size)
{
    const radz_metrics_options defaults = {
        .struct_size = sizeof defaults, .threshold = 0.5, .n_bins = 10, .n_rounds = 1000, .confidence = 0.95};
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

void radz_metrics_init_sized(radz_metrics *metrics, size_t struct_size)
{
    const radz_metrics empty = {.struct_size = sizeof empty};
    rz_options_give(metrics, struct_size, &empty, sizeof empty);
}

static radz_status take_options(radz_metrics_options *o, const radz_metrics_options *options, const char *function,
                                radz_error *err)
{
    radz_metrics_options_init(o);
    RZ_TRY(rz_options_take(o, sizeof *o, options, function, err));
    if (o->n_bins < 1 || o->n_bins > 1000)
        return rz_fail(err, RADZ_E_ARGUMENT, "%s: n_bins: expected 1..1000, got %zu", function, o->n_bins);
    if (!(o->confidence > 0 && o->confidence < 1))
        return rz_fail(err, RADZ_E_ARGUMENT, "%s: confidence: expected a number between 0 and 1", function);
    return RADZ_OK;
}

static radz_status rank(const double *scores, const signed char *truth, size_t n, const char *function, rz_ranked *r,
                        radz_error *err)
{
    *r = (rz_ranked){0};
    if (n && (!scores || !truth)) return rz_fail(err, RADZ_E_ARGUMENT, "%s: scores or truth is NULL", function);
    return rz_rank(NULL, scores, truth, n, r, err);
}

static void all_nan(radz_metrics *m)
{
    *m = (radz_metrics){.auc = NAN, .auprc = NAN, .threshold = NAN, .f1 = NAN, .accuracy = NAN, .mcc = NAN};
    m->sensitivity = m->specificity = m->precision = m->brier = m->ece = NAN;
}

static radz_status metrics_check(const radz_metrics *m, const char *function, radz_error *err)
{
    if (!m) return rz_fail(err, RADZ_E_ARGUMENT, "%s: metrics is NULL", function);
    return rz_struct_size_check(m->struct_size, function, "metrics", err);
}

/* As much as the caller's struct has room for. */
static void give(radz_metrics *to, const radz_metrics *from)
{
    rz_options_give(to, to->struct_size, from, sizeof *from);
}

radz_status radz_metrics_measure(const double *scores, const signed char *truth, size_t n,
                                 const radz_metrics_options *options, radz_metrics *metrics, radz_error *err)
{
    radz_metrics_options o;
    radz_metrics m;
    rz_ranked r;
    RZ_TRY(metrics_check(metrics, __func__, err));
    all_nan(&m);
    give(metrics, &m);
    RZ_TRY(take_options(&o, options, __func__, err));
    RZ_TRY(rank(scores, truth, n, __func__, &r, err));
    rz_measure(&r, NULL, &o, &m);
    rz_ranked_free(&r);
    give(metrics, &m);
    return RADZ_OK;
}

radz_status radz_metrics_find_threshold(const double *scores, const signed char *truth, size_t n,
                                        radz_threshold_rule rule, double *threshold, radz_error *err)
{
    rz_ranked r;
    RZ_NEED(threshold);
    *threshold = NAN;
    if (rule != RADZ_THRESHOLD_MAX_F1 && rule != RADZ_THRESHOLD_YOUDEN && rule != RADZ_THRESHOLD_MCC)
        return rz_fail(err, RADZ_E_ARGUMENT, "%s: rule: expected MAX_F1 (1), YOUDEN (2) or MCC (3), got %d", __func__,
                       (int)rule);
    RZ_TRY(rank(scores, truth, n, __func__, &r, err));
    *threshold = rz_find_threshold(&r, rule);
    rz_ranked_free(&r);
    return RADZ_OK;
}

static radz_status bootstrap(const rz_ranked *r, const size_t *groups, size_t n, const radz_metrics_options *o,
                             radz_metrics *low, radz_metrics *high, radz_error *err)
{
    static const uint8_t counts = 1;
    rz_bootstrap b = {.ranked = r, .thresholds = &o->threshold, .in_macro = &counts, .n_classes = 1, .n_films = n};
    size_t *numbered = rz_calloc(NULL, n, sizeof *numbered);
    if (!numbered) return RZ_NO_MEMORY(err, "groups of films");
    b.groups = numbered, b.options = o;
    radz_status status = rz_number_groups(NULL, groups, n, numbered, &b.n_groups, err);
    if (status == RADZ_OK) status = rz_bootstrap_run(&b, low, high, NULL, err);
    rz_free(NULL, numbered);
    return status;
}

radz_status radz_metrics_bootstrap(const double *scores, const signed char *truth, const size_t *groups, size_t n,
                                   const radz_metrics_options *options, radz_metrics *low, radz_metrics *high,
                                   radz_error *err)
{
    radz_metrics_options o;
    radz_metrics lows[2], highs[2];
    rz_ranked r;
    RZ_TRY(metrics_check(low, __func__, err));
    RZ_TRY(metrics_check(high, __func__, err));
    all_nan(&lows[0]);
    give(low, &lows[0]);
    give(high, &lows[0]);
    RZ_TRY(take_options(&o, options, __func__, err));
    RZ_TRY(rank(scores, truth, n, __func__, &r, err));
    rz_measure(&r, NULL, &o, &lows[0]);
    highs[0] = lows[0];
    radz_status status = bootstrap(&r, groups, n, &o, lows, highs, err);
    rz_ranked_free(&r);
    if (status == RADZ_OK) give(low, &lows[0]), give(high, &highs[0]);
    return status;
}

radz_status radz_metrics_curve(const double *scores, const signed char *truth, size_t n, radz_curve curve, double *x,
                               double *y, double *thresholds, size_t *n_points, radz_error *err)
{
    rz_ranked r;
    RZ_NEED(n_points);
    *n_points = 0;
    RZ_NEED(x);
    RZ_NEED(y);
    RZ_NEED(thresholds);
    if (curve != RADZ_CURVE_ROC && curve != RADZ_CURVE_PR)
        return rz_fail(err, RADZ_E_ARGUMENT, "%s: curve: expected ROC (0) or PR (1), got %d", __func__, (int)curve);
    RZ_TRY(rank(scores, truth, n, __func__, &r, err));
    *n_points = rz_curve(&r, curve, x, y, thresholds);
    rz_ranked_free(&r);
    return RADZ_OK;
}
