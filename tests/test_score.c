/* test_score.c - cosines, probabilities, order, and the JSON of a result.
 * SPDX-License-Identifier: Apache-2.0 */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "formats.h"
#include "result.h"

static radz_error err;

static void ok(radz_status status)
{
    if (status != RADZ_OK) fail_msg("%s: %s", radz_status_name(status), err.message);
}

/* A bank of n two-dimensional anchors at these angles (degrees). */
static char *labels[8];
static float anchors[8][2];
static rz_bank make_bank(size_t n, const double *degrees, const char *const *names)
{
    rz_bank b = {.n = n, .dim = 2, .reference = n, .labels = labels, .anchors = &anchors[0][0]};
    for (size_t i = 0; i < n; i++) {
        labels[i] = (char *)(uintptr_t)names[i];
        anchors[i][0] = (float)cos(degrees[i] * M_PI / 180);
        anchors[i][1] = (float)sin(degrees[i] * M_PI / 180);
        if (b.reference == n && rz_label_is_reference(names[i])) b.reference = i;
    }
    return b;
}

static const float east[2] = {1, 0};

/* ---- Scores ---- */

static void test_reference_class(void **state)
{
    (void)state;
    const double at[] = {60, 30, 90};
    const char *names[] = {"Edema", "Mass", "no finding"};
    rz_bank b = make_bank(3, at, names);
    rz_score s[3];
    ok(rz_score_film(&b, east, 0.5, s, &err));
    assert_int_equal(s[0].i, 1);
    assert_int_equal(s[1].i, 0);
    assert_int_equal(s[2].i, 2);
    double mass = sqrt(3) / 2, edema = 0.5;
    assert_true(fabs(s[0].similarity - mass) < 1e-6);
    assert_true(fabs(s[0].probability - 1 / (1 + exp(-mass / 0.5))) < 1e-6);
    assert_true(fabs(s[1].probability - 1 / (1 + exp(-edema / 0.5))) < 1e-6);
    assert_true(fabs(s[2].probability - 1 / (1 + exp(mass / 0.5) + exp(edema / 0.5))) < 1e-6);
}

static void test_exclusive_classes(void **state)
{
    (void)state;
    const double at[] = {0, 180, 60};
    const char *names[] = {"a", "b", "c"};
    rz_bank b = make_bank(3, at, names);
    rz_score s[3];
    ok(rz_score_film(&b, east, 0.05, s, &err));
    assert_true(fabs(s[0].probability + s[1].probability + s[2].probability - 1) < 1e-12);
    assert_int_equal(s[0].i, 0);
    assert_int_equal(s[1].i, 2);
    assert_true(fabs(s[1].probability / s[0].probability - exp(-0.5 / 0.05)) < 1e-6);
    assert_true(s[2].probability > 0 && s[2].probability < 1e-15);
    assert_true(s[0].similarity <= 1 && s[2].similarity >= -1);
}

static void test_ties_keep_the_bank_order(void **state)
{
    (void)state;
    const double at[] = {40, 10, 40, 10, 10};
    const char *names[] = {"a", "b", "c", "d", "e"};
    rz_bank b = make_bank(5, at, names);
    const size_t want[] = {1, 3, 4, 0, 2};
    rz_score s[5];
    ok(rz_score_film(&b, east, 0.05, s, &err));
    for (size_t i = 0; i < 5; i++) assert_int_equal(s[i].i, want[i]);
}

/* Probabilities of 1 - 1e-20 are equal as doubles; the similarity still tells the findings apart. */
static void test_saturated_probabilities_go_by_similarity(void **state)
{
    (void)state;
    const double at[] = {180, 20, 10};
    const char *names[] = {"Normal", "a", "b"};
    rz_bank b = make_bank(3, at, names);
    rz_score s[3];
    ok(rz_score_film(&b, east, 0.01, s, &err));
    assert_true(s[0].probability == 1 && s[1].probability == 1);
    assert_int_equal(s[0].i, 2);
    assert_int_equal(s[1].i, 1);
}

static void test_nan_is_no_score(void **state)
{
    (void)state;
    const double at[] = {0, 90};
    const char *names[] = {"No Finding", "Edema"};
    rz_bank b = make_bank(2, at, names);
    rz_score s[2];
    const float bad[][2] = {{NAN, 0}, {INFINITY, 0}, {0, 0}};
    for (size_t i = 0; i < RZ_COUNT(bad); i++)
        assert_int_equal(rz_score_film(&b, bad[i], 0.05, s, &err), RADZ_E_INTERNAL);
    anchors[1][0] = NAN;
    assert_int_equal(rz_score_film(&b, east, 0.05, s, &err), RADZ_E_INTERNAL);
    const double taus[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < RZ_COUNT(taus); i++)
        assert_int_equal(rz_score_film(&b, east, taus[i], s, &err), RADZ_E_FORMAT);
}

static void test_reference_names(void **state)
{
    (void)state;
    const char *yes[] = {"No Finding", "no finding", "NO FINDING", "Normal", "normal"};
    const char *no[] = {"", "No", "No Findings", "Abnormal", "normal ", "Nofinding"};
    for (size_t i = 0; i < RZ_COUNT(yes); i++) assert_true(rz_label_is_reference(yes[i]));
    for (size_t i = 0; i < RZ_COUNT(no); i++) assert_false(rz_label_is_reference(no[i]));
}

/* ---- JSON ---- */

static json_t *parse(const rz_str *s)
{
    json_t *root = NULL;
    assert_false(s->failed);
    assert_null(memchr(s->data, '\n', s->len));
    ok(rz_json_parse(s->data, s->len, "result", &root, &err));
    return root;
}

static void check_keys(const json_t *obj, const char *const *keys, size_t n)
{
    size_t i = 0;
    const char *key;
    json_t *value;
    assert_int_equal(json_object_size(obj), n);
    json_object_foreach((json_t *)(uintptr_t)obj, key, value) assert_string_equal(key, keys[i++]);
}

static rz_result sample_result(rz_score *scores)
{
    static char provenance[] = "{\"library\":\"libradz\"}", warning[] = "line\nbreak", path[] = "a \"film\".png";
    static char *names[2], *warnings[] = {warning};
    static char first[] = "Edema", second[] = "\xc3\x9c"
                                              "bel\t\xff";
    names[0] = first, names[1] = second;
    return (rz_result){.n = 2,
                       .scores = scores,
                       .labels = names,
                       .path = path,
                       .sha256 = "00ff",
                       .width_px = 640,
                       .height_px = 480,
                       .provenance = provenance,
                       .warnings = warnings,
                       .n_warnings = 1};
}

static void test_json_of_a_result(void **state)
{
    (void)state;
    static const char *const keys[] = {"schema", "input", "scores", "provenance", "warnings"};
    static const char *const input_keys[] = {"path", "sha256", "width_px", "height_px"};
    static const char *const score_keys[] = {"label", "probability", "similarity", "threshold"};
    rz_score scores[2] = {{1, 0.1, 0.75, 0, 0.5}, {0, -0.25, 1e-17, 0, NAN}};
    rz_result r = sample_result(scores);
    rz_str s = {0};
    rz_result_put_json(&s, &r, NULL);
    json_t *root = parse(&s), *input = json_object_get(root, "input"), *list = json_object_get(root, "scores");
    check_keys(root, keys, 5);
    check_keys(input, input_keys, 4);
    assert_string_equal(json_string_value(json_object_get(root, "schema")), "radz.result/1");
    assert_string_equal(json_string_value(json_object_get(input, "path")), "a \"film\".png");
    assert_int_equal(json_integer_value(json_object_get(input, "width_px")), 640);
    assert_int_equal(json_array_size(list), 2);
    for (size_t i = 0; i < 2; i++) {
        json_t *one = json_array_get(list, i);
        check_keys(one, score_keys, 4);
        assert_true(json_number_value(json_object_get(one, "probability")) == scores[i].probability);
        assert_true(json_number_value(json_object_get(one, "similarity")) == scores[i].similarity);
        assert_true(i ? json_is_null(json_object_get(one, "threshold"))
                      : json_number_value(json_object_get(one, "threshold")) == 0.5);
    }
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "label")), "\xc3\x9c"
                                                                                              "bel\t\xef\xbf\xbd");
    json_decref(root);
    rz_str_free(&s);
}

static void test_json_path_of_the_caller_wins(void **state)
{
    (void)state;
    rz_score scores[2] = {{.i = 0}};
    rz_result r = sample_result(scores);
    rz_str s = {0};
    rz_result_put_json(&s, &r, "other");
    assert_non_null(strstr(s.data, "\"path\":\"other\""));
    rz_str_free(&s);
    r.path = NULL;
    rz_str none = {0};
    rz_result_put_json(&none, &r, NULL);
    assert_non_null(strstr(none.data, "\"path\":null"));
    rz_str_free(&none);
}

static void test_json_of_an_error(void **state)
{
    (void)state;
    static const char *const keys[] = {"schema", "input", "error", "provenance", "warnings"};
    radz_error e = {RADZ_E_FORMAT, "x.png: not a \"film\""};
    rz_str s = {0};
    rz_error_put_json(&s, &e, "x.png");
    json_t *root = parse(&s), *error = json_object_get(root, "error");
    check_keys(root, keys, 5);
    assert_string_equal(json_string_value(json_object_get(error, "code")), "format");
    assert_string_equal(json_string_value(json_object_get(error, "message")), e.message);
    assert_true(json_is_null(json_object_get(json_object_get(root, "input"), "sha256")));
    json_decref(root);
    rz_str_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_class),
        cmocka_unit_test(test_exclusive_classes),
        cmocka_unit_test(test_ties_keep_the_bank_order),
        cmocka_unit_test(test_saturated_probabilities_go_by_similarity),
        cmocka_unit_test(test_nan_is_no_score),
        cmocka_unit_test(test_reference_names),
        cmocka_unit_test(test_json_of_a_result),
        cmocka_unit_test(test_json_path_of_the_caller_wins),
        cmocka_unit_test(test_json_of_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
