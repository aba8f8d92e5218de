/* test_metrics.c - AUC against scikit-learn. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auc_golden.h"
#include "metrics.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_scikit_learn),
        cmocka_unit_test(does_not_depend_on_order),
        cmocka_unit_test(is_nan_where_undefined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
