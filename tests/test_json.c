/* test_json.c - strict JSON and typed members. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "comma_locale.h"
#include "fixture.h"
#include "formats.h"
#include "mutate.h"

#define B(s) s, sizeof s - 1

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

static json_t *parse(const char *text)
{
    json_t *j;
    ok(rz_json_parse(text, strlen(text), "config.json", &j, &err));
    return j;
}

static void test_bad_text(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        radz_status code;
        const char *message;
    } bad[] = {
        {B(""), RADZ_E_FORMAT, "config.json: line 1"},
        {B("{"), RADZ_E_FORMAT, "config.json: line 1"},
        {B("{}\n x"), RADZ_E_FORMAT, "config.json: line 2"},
        {B("{\"a\":1,\"a\":2}"), RADZ_E_FORMAT, "duplicate"},
        {B("{\"a\":NaN}"), RADZ_E_FORMAT, "config.json: line 1"},
        {B("{\"a\":Infinity}"), RADZ_E_FORMAT, "config.json: line 1"},
        {B("{\"a\":1e999}"), RADZ_E_FORMAT, "overflow"},
        {B("{\"a\":01}"), RADZ_E_FORMAT, "config.json: line 1"},
        {B("{\"a\":'b'}"), RADZ_E_FORMAT, "config.json: line 1"},
        {B("{\"a\":\"\xff\"}"), RADZ_E_FORMAT, "config.json: line 1"},
        {B("{\"a\":\"\\u0000\"}"), RADZ_E_FORMAT, "config.json: line 1"},
        {B("{\"a\":\"\0\"}"), RADZ_E_FORMAT, "NUL byte at offset 6"},
        {B("{}\0"), RADZ_E_FORMAT, "NUL byte at offset 2"},
        {B("\xef\xbb\xbf{}"), RADZ_E_FORMAT, "byte-order mark"},
    };
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        json_t *j = (json_t *)&err;
        radz_status status = rz_json_parse(bad[i].text, bad[i].n, "config.json", &j, &err);
        assert_null(j);
        if (status != bad[i].code || !strstr(err.message, bad[i].message))
            fail_msg("%zu: status %d, \"%s\", expected \"%s\"", i, (int)status, err.message, bad[i].message);
        assert_null(strstr(err.message, "near"));
    }
}

static void test_depth(void **state)
{
    enum { N = 100000 };
    char *text = malloc(2 * N);
    json_t *j;
    (void)state;
    assert_non_null(text);
    memset(text, '[', N);
    memset(text + N, ']', N);
    ok(rz_json_parse(text + N - 64, 128, "x", &j, &err));
    json_decref(j);
    assert_int_equal(rz_json_parse(text + N - 65, 130, "x", &j, &err), RADZ_E_LIMIT);
    assert_int_equal(rz_json_parse(text, 2 * N, "x", &j, &err), RADZ_E_LIMIT);
    assert_int_equal(rz_json_parse(text, N, "x", &j, &err), RADZ_E_LIMIT);
    free(text);
    json_decref(parse("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[\"]"));
}

static void test_members(void **state)
{
    json_t *j = parse("{\"i\":5,\"big\":9223372036854775807,\"d\":1e-06,\"b\":true,\"s\":\"x\",\"n\":null,\"o\":{},"
                      "\"huge\":1000000000000000019884624838656,\"low\":-99999999999999999999}");
    int64_t i = -1;
    double d = -1;
    bool b = false;
    const char *s = "kept";
    (void)state;
    ok(rz_json_int(j, "c", "i", 0, 5, &i, &err));
    assert_int_equal(i, 5);
    ok(rz_json_int(j, "c", "big", 0, INT64_MAX, &i, &err));
    assert_true(i == INT64_MAX);
    ok(rz_json_double(j, "c", "d", 0, 1, &d, &err));
    assert_true(d == 1e-06);
    ok(rz_json_double(j, "c", "i", 0, 10, &d, &err));
    assert_true(d == 5.0);
    ok(rz_json_double(j, "c", "huge", 0, 1e31, &d, &err)); /* what transformers writes for no limit */
    assert_true(d == 1e30);
    ok(rz_json_double(j, "c", "low", -1e31, 0, &d, &err));
    assert_true(d == -1e20);
    assert_int_equal(rz_json_int(j, "c", "huge", 0, INT64_MAX, &i, &err), RADZ_E_FORMAT);
    ok(rz_json_bool(j, "c", "b", &b, &err));
    assert_true(b);
    ok(rz_json_int(j, "c", "n", 0, 1, &i, &err)); /* null and absent leave the default */
    ok(rz_json_int(j, "c", "none", 0, 1, &i, &err));
    assert_true(i == INT64_MAX);
    ok(rz_json_string(j, "c", "none", &s, &err));
    assert_string_equal(s, "kept");
    ok(rz_json_string(j, "c", "s", &s, &err));
    assert_string_equal(s, "x");
    json_decref(j);
}

static void expect(radz_status status, const char *message)
{
    assert_int_equal(status, RADZ_E_FORMAT);
    assert_string_equal(err.message, message);
}

static void test_messages(void **state)
{
    json_t *j = parse("{\"i\":70000,\"r\":1.5,\"s\":\"x\",\"a\":[]}");
    int64_t i = 7;
    double d = 7;
    bool b = false;
    const char *s = NULL;
    (void)state;
    expect(rz_json_int(j, "config.json: text_config", "i", 1, 65536, &i, &err),
           "config.json: text_config.i: expected an integer in 1..65536, found 70000");
    expect(rz_json_int(j, "config.json", "s", 1, 65536, &i, &err),
           "config.json: s: expected an integer in 1..65536, found a string");
    expect(rz_json_int(j, "config.json", "r", 1, 2, &i, &err),
           "config.json: r: expected an integer in 1..2, found a number");
    expect(rz_json_double(j, "config.json", "r", 0, 1, &d, &err),
           "config.json: r: expected a number in 0..1, found 1.5");
    expect(rz_json_double(j, "config.json", "s", 0, 1, &d, &err), "config.json: s: expected a number, found a string");
    expect(rz_json_bool(j, "config.json", "i", &b, &err), "config.json: i: expected true or false, found an integer");
    expect(rz_json_string(j, "config.json", "a", &s, &err), "config.json: a: expected a string, found an array");
    expect(rz_json_string(json_object_get(j, "a"), "config.json: a", "x", &s, &err),
           "config.json: a: expected an object, found an array");
    expect(rz_json_string(NULL, "config.json: a", "x", &s, &err), "config.json: a: expected an object, found nothing");
    assert_true(i == 7 && d == 7.0 && !s);
    json_decref(j);
}

static void test_other_locale(void **state)
{
    double d = 0;
    (void)state;
    if (!comma_locale_enter()) skip();
    json_t *j = parse("{\"eps\":1e-06,\"half\":0.5}");
    ok(rz_json_double(j, "c", "eps", 0, 1, &d, &err));
    assert_true(d == 1e-06);
    ok(rz_json_double(j, "c", "half", 0, 1, &d, &err));
    assert_true(d == 0.5);
    json_decref(j);
    comma_locale_leave();
}

static void test_load(void **state)
{
    char *dir = fixture_temp_dir();
    const char *path = fixture_path(dir, "c.json");
    json_t *j;
    (void)state;
    fixture_write_text(path, "{\"a\":1}");
    ok(rz_json_load(NULL, path, 7, &j, &err));
    json_decref(j);
    assert_int_equal(rz_json_load(NULL, path, 6, &j, &err), RADZ_E_LIMIT);
    assert_null(j);
    assert_int_equal(rz_json_load(NULL, fixture_path(dir, "none"), 6, &j, &err), RADZ_E_IO);
    fixture_remove(dir);
    free(dir);
}

static radz_status read_and_use(const uint8_t *bytes, size_t n, radz_error *e)
{
    json_t *j;
    RZ_TRY(rz_json_parse((const char *)bytes, n, "damaged", &j, e));
    json_decref(j);
    return RADZ_OK;
}

static void test_damage(void **state)
{
    static const char text[] = "{\"a\":[1,-2.5e3,true,null],\"b\\u00e9\":{\"c\":\"\xc3\xa9 \\\" \\\\\"}}\n";
    (void)state;
    ok(read_and_use((const uint8_t *)text, sizeof text - 1, &err));
    assert_true(mutate_all((const uint8_t *)text, sizeof text - 1, sizeof text, read_and_use) > sizeof text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_text),     cmocka_unit_test(test_depth), cmocka_unit_test(test_members),
        cmocka_unit_test(test_messages),     cmocka_unit_test(test_load),  cmocka_unit_test(test_damage),
        cmocka_unit_test(test_other_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
