/* test_metrics.c - every metric against scikit-learn. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auc_golden.h"
#include "failing_host.h"
#include "metrics.h"
#include "metrics_golden.h"

#define N_CASES RZ_COUNT(metrics_cases)

/* ---- AUC alone ---- */

static void equals_scikit_learn(void **state)
{
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(auc_cases); i++) {
        double auc = 0;
        assert_int_equal(rz_auc(NULL, auc_cases[i].scores, auc_cases[i].truth, auc_cases[i].n, &auc, NULL), RADZ_OK);
        if (fabs(auc - auc_cases[i].auc) > 1e-12) fail_msg("case %zu: %.17g, expected %.17g", i, auc, auc_cases[i].auc);
    }
}

static void does_not_depend_on_order(void **state)
{
    (void)state;
    double scores[60], auc;
    uint8_t truth[60];
    for (size_t i = 0; i < RZ_COUNT(auc_cases); i++) {
        size_t n = auc_cases[i].n;
        for (size_t j = 0; j < n; j++)
            scores[j] = auc_cases[i].scores[n - 1 - j], truth[j] = auc_cases[i].truth[n - 1 - j];
        assert_int_equal(rz_auc(NULL, scores, truth, n, &auc, NULL), RADZ_OK);
        assert_true(fabs(auc - auc_cases[i].auc) <= 1e-12);
    }
}

static void is_nan_where_undefined(void **state)
{
    (void)state;
    double scores[] = {1, 2, 3}, broken[] = {1, NAN, 3}, auc = 0;
    uint8_t none[] = {0, 0, 0}, all[] = {1, 1, 1}, some[] = {0, 1, 1};
    assert_int_equal(rz_auc(NULL, scores, none, 3, &auc, NULL), RADZ_OK);
    assert_true(isnan(auc));
    assert_int_equal(rz_auc(NULL, scores, all, 3, &auc, NULL), RADZ_OK);
    assert_true(isnan(auc));
    assert_int_equal(rz_auc(NULL, broken, some, 3, &auc, NULL), RADZ_OK);
    assert_true(isnan(auc));
    assert_int_equal(rz_auc(NULL, scores, some, 0, &auc, NULL), RADZ_OK);
    assert_true(isnan(auc));
}

/* ---- All of them ---- */

static void same(const char *what, size_t i, double got, double expected)
{
    if (isnan(expected) ? isnan(got) : fabs(got - expected) <= 1e-12 || got == expected) return;
    fail_msg("case %zu: %s: %.17g, expected %.17g", i, what, got, expected);
}

static void same_figures(size_t i, const radz_metrics *m, const golden_figures *g)
{
    same("auc", i, m->auc, g->auc);
    same("auprc", i, m->auprc, g->auprc);
    same("f1", i, m->f1, g->f1);
    same("accuracy", i, m->accuracy, g->accuracy);
    same("mcc", i, m->mcc, g->mcc);
    same("sensitivity", i, m->sensitivity, g->sensitivity);
    same("specificity", i, m->specificity, g->specificity);
    same("precision", i, m->precision, g->precision);
    same("brier", i, m->brier, g->brier);
    same("ece", i, m->ece, g->ece);
}

static void metrics_equal_scikit_learn(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const struct metrics_case *c = &metrics_cases[i];
        radz_metrics_options o;
        radz_metrics m;
        radz_metrics_options_init(&o);
        radz_metrics_init(&m);
        assert_int_equal(radz_metrics_measure(c->scores, c->truth, c->n, &o, &m, NULL), RADZ_OK);
        same_figures(i, &m, &c->at_half);
        o.strict = 1;
        assert_int_equal(radz_metrics_measure(c->scores, c->truth, c->n, &o, &m, NULL), RADZ_OK);
        same_figures(i, &m, &c->above_half);
        o.both_classes = 1;
        assert_int_equal(radz_metrics_measure(c->scores, c->truth, c->n, &o, &m, NULL), RADZ_OK);
        same("f1 of both", i, m.f1, c->above_half.f1_both);
        size_t n_known = 0;
        for (size_t k = 0; k < c->n; k++) n_known += c->truth[k] >= 0;
        assert_int_equal(m.n_positive + m.n_negative, n_known);
    }
}

static void thresholds_are_the_best(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const struct metrics_case *c = &metrics_cases[i];
        double f1, youden, mcc;
        assert_int_equal(radz_metrics_find_threshold(c->scores, c->truth, c->n, RADZ_THRESHOLD_MAX_F1, &f1, NULL), 0);
        assert_int_equal(radz_metrics_find_threshold(c->scores, c->truth, c->n, RADZ_THRESHOLD_YOUDEN, &youden, NULL),
                         0);
        assert_int_equal(radz_metrics_find_threshold(c->scores, c->truth, c->n, RADZ_THRESHOLD_MCC, &mcc, NULL), 0);
        same("max f1", i, f1, c->max_f1);
        same("youden", i, youden, c->youden);
        same("mcc", i, mcc, c->mcc);
    }
}

static void curves_equal_scikit_learn(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const struct metrics_case *c = &metrics_cases[i];
        double x[61], y[61], t[61];
        size_t n;
        assert_int_equal(radz_metrics_curve(c->scores, c->truth, c->n, RADZ_CURVE_ROC, x, y, t, &n, NULL), RADZ_OK);
        assert_int_equal(n, c->n_roc);
        for (size_t k = 0; k < n; k++) same("roc x", i, x[k], c->roc[k].x), same("roc y", i, y[k], c->roc[k].y);
        assert_int_equal(radz_metrics_curve(c->scores, c->truth, c->n, RADZ_CURVE_PR, x, y, t, &n, NULL), RADZ_OK);
        assert_int_equal(n, c->n_pr);
        for (size_t k = 0; k < n; k++) {
            same("pr x", i, x[k], c->pr[k].x), same("pr y", i, y[k], c->pr[k].y);
            same("pr threshold", i, t[k], c->thresholds[k]);
        }
    }
}

static void bootstrap_equals_scikit_learn_on_the_same_draws(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const struct metrics_case *c = &metrics_cases[i];
        radz_metrics_options o;
        radz_metrics low, high;
        radz_metrics_options_init(&o);
        radz_metrics_init(&low), radz_metrics_init(&high);
        o.n_rounds = GOLDEN_ROUNDS, o.seed = GOLDEN_SEED;
        assert_int_equal(radz_metrics_bootstrap(c->scores, c->truth, c->groups, c->n, &o, &low, &high, NULL), RADZ_OK);
        same_figures(i, &low, &c->low);
        same_figures(i, &high, &c->high);
    }
}

static void bootstrap_has_the_same_bits_with_threads(void **state)
{
    (void)state;
    const struct metrics_case *c = &metrics_cases[3];
    const double half = 0.5;
    const uint8_t counts = 1;
    radz_metrics_options o;
    radz_metrics low[2][2] = {{{0}}}, high[2][2] = {{{0}}};
    rz_ranked r;
    rz_pool *pool;
    size_t groups[60];
    radz_metrics_options_init(&o);
    rz_bootstrap b = {.ranked = &r, .thresholds = &half, .in_macro = &counts, .n_classes = 1, .n_films = c->n};
    b.groups = groups, b.options = &o;
    assert_int_equal(rz_number_groups(NULL, c->groups, c->n, groups, &b.n_groups, NULL), RADZ_OK);
    assert_int_equal(rz_rank(NULL, c->scores, c->truth, c->n, &r, NULL), RADZ_OK);
    assert_int_equal(rz_pool_create(NULL, 3, &pool, NULL), RADZ_OK);
    assert_int_equal(rz_bootstrap_run(&b, low[0], high[0], NULL, NULL), RADZ_OK);
    b.pool = pool;
    assert_int_equal(rz_bootstrap_run(&b, low[1], high[1], NULL, NULL), RADZ_OK);
    assert_memory_equal(low[0], low[1], sizeof low[0]);
    assert_memory_equal(high[0], high[1], sizeof high[0]);
    assert_true(low[0][0].auc < high[0][0].auc);
    assert_true(low[0][0].auc == low[0][1].auc); /* the mean of one class */
    rz_pool_destroy(pool);
    rz_ranked_free(&r);
}

static void macro_names_what_is_undefined(void **state)
{
    (void)state;
    radz_metrics m[3] = {{.n_positive = 2, .n_negative = 3, .auc = 0.5, .f1 = 0.25},
                         {.n_positive = 0, .n_negative = 5, .auc = NAN, .f1 = 0},
                         {.n_positive = 1, .n_negative = 4, .auc = 1, .f1 = 0.75}},
                 mean;
    size_t n;
    rz_macro(m, 3, &mean, &n);
    assert_int_equal(n, 2);
    assert_true(mean.auc == 0.75 && mean.f1 == 0.5);
    rz_macro(m + 1, 1, &mean, &n);
    assert_int_equal(n, 0);
    assert_true(isnan(mean.auc) && isnan(mean.f1));
}

static void wrong_arguments(void **state)
{
    (void)state;
    radz_metrics m;
    radz_error err;
    radz_metrics_options o;
    const double scores[] = {0.5, NAN};
    const signed char truth[] = {1, 0}, unknown[] = {1, -1};
    double t;
    radz_metrics_init(&m);
    radz_metrics_options_init(&o);
    assert_int_equal(radz_metrics_measure(scores, truth, 2, NULL, &m, &err), RADZ_E_ARGUMENT);
    assert_true(isnan(m.auc) && isnan(m.f1));
    assert_int_equal(radz_metrics_measure(scores, unknown, 2, NULL, &m, &err), RADZ_OK);
    assert_int_equal(radz_metrics_measure(NULL, truth, 2, NULL, &m, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_metrics_measure(scores, truth, 2, NULL, NULL, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_metrics_find_threshold(scores, unknown, 2, RADZ_THRESHOLD_FIXED, &t, &err), RADZ_E_ARGUMENT);
    o.n_bins = 0;
    assert_int_equal(radz_metrics_measure(scores, unknown, 2, &o, &m, &err), RADZ_E_ARGUMENT);
    o.n_bins = 10, o.confidence = 1;
    assert_int_equal(radz_metrics_measure(scores, unknown, 2, &o, &m, &err), RADZ_E_ARGUMENT);
}

static radz_status everything(const rz_host *host, void *arg)
{
    const struct metrics_case *c = arg;
    const double half = 0.5;
    const uint8_t counts = 1;
    radz_metrics_options o;
    radz_metrics low[2], high[2];
    rz_ranked r = {0};
    size_t groups[60];
    radz_error err;
    radz_metrics_options_init(&o);
    o.n_rounds = 3;
    rz_bootstrap b = {.host = host, .ranked = &r, .thresholds = &half, .in_macro = &counts, .n_classes = 1};
    b.n_films = c->n, b.groups = groups, b.options = &o;
    RZ_TRY(rz_number_groups(host, c->groups, c->n, groups, &b.n_groups, &err));
    RZ_TRY(rz_rank(host, c->scores, c->truth, c->n, &r, &err));
    radz_status status = rz_bootstrap_run(&b, low, high, NULL, &err);
    rz_ranked_free(&r);
    return status;
}

static void memory_runs_out(void **state)
{
    (void)state;
    failing_host_try_all(everything, (void *)&metrics_cases[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_scikit_learn),
        cmocka_unit_test(does_not_depend_on_order),
        cmocka_unit_test(is_nan_where_undefined),
        cmocka_unit_test(metrics_equal_scikit_learn),
        cmocka_unit_test(thresholds_are_the_best),
        cmocka_unit_test(curves_equal_scikit_learn),
        cmocka_unit_test(bootstrap_equals_scikit_learn_on_the_same_draws),
        cmocka_unit_test(bootstrap_has_the_same_bits_with_threads),
        cmocka_unit_test(macro_names_what_is_undefined),
        cmocka_unit_test(wrong_arguments),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
