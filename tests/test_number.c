/* Numbers to decimal text and back, against the C library's own conversions. SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "comma_locale.h"

static bool same_bits(double a, double b)
{
    return !memcmp(&a, &b, sizeof a);
}

static double any_double(rz_rng *r)
{
    for (;;) {
        uint64_t bits = rz_rng_u64(r);
        double v;
        memcpy(&v, &bits, sizeof v);
        if (isfinite(v)) return v;
    }
}

/* The fewest significant digits that bring v back, by trying. */
static int fewest_digits(double v)
{
    char text[64];
    for (int n = 1; n < 17; n++) {
        snprintf(text, sizeof text, "%.*e", n - 1, v);
        if (same_bits(strtod(text, NULL), v)) return n;
    }
    return 17;
}

/* Digits of text without the zeros at both ends, up to the exponent. */
static int significant_digits(const char *text)
{
    int n = 0, zeros = 0;
    for (; *text && *text != 'e'; text++) {
        if (*text < '0' || *text > '9' || (*text == '0' && !n)) continue;
        zeros = *text == '0' ? zeros + 1 : 0;
        n++;
    }
    return n - zeros;
}

static void check_round_trip(double v)
{
    double back;
    rz_str s = {0};
    rz_str_put_double(&s, v);
    assert_false(s.failed);
    if (!rz_parse_double(s.data, s.len, &back) || !same_bits(back, v) || !same_bits(strtod(s.data, NULL), v))
        fail_msg("%.17g became %s", v, s.data);
    if (v != 0 && significant_digits(s.data) > fewest_digits(v)) fail_msg("%.17g: %s is not the shortest", v, s.data);
    rz_str_free(&s);
}

static void printed_forms(void **state)
{
    (void)state;
    static const struct {
        double v;
        const char *text;
    } cases[] = {
        {0, "0"},
        {-0.0, "-0.0"},
        {1, "1"},
        {-2.5, "-2.5"},
        {0.1, "0.1"},
        {100, "100"},
        {123456.789, "123456.789"},
        {1e-5, "0.00001"},
        {1e-6, "1e-6"},
        {1.5e-7, "1.5e-7"},
        {1e16, "10000000000000000"},
        {1e17, "1e17"},
        {1e23, "1e23"},
        {9007199254740993.0, "9007199254740992"},
        {5e-324, "5e-324"},
        {1.7976931348623157e308, "1.7976931348623157e308"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {INFINITY, "null"},
        {-INFINITY, "null"},
        {NAN, "null"},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        rz_str s = {0};
        rz_str_put_double(&s, cases[i].v);
        assert_string_equal(s.data, cases[i].text);
        rz_str_free(&s);
    }
}

static void random_bits_come_back(void **state)
{
    (void)state;
    rz_rng r;
    rz_rng_seed(&r, 1, 1);
    for (int i = 0; i < 10000; i++) check_round_trip(any_double(&r));
}

static void friendly_numbers_come_back(void **state)
{
    (void)state;
    for (int i = -2000; i < 2000; i++) {
        check_round_trip(i / 1000.0);
        check_round_trip(ldexp(1, i / 2));
        check_round_trip(nextafter(ldexp(1, i / 2), 0));
        check_round_trip((float)i / 7);
    }
    for (int e = -323; e < 309; e++) {
        char text[16];
        snprintf(text, sizeof text, "1e%d", e);
        check_round_trip(strtod(text, NULL));
    }
}

/* Reads as strtod does, infinity being out of range here. */
static void check_parse(const char *text)
{
    double expected = strtod(text, NULL), got = 0;
    bool ok = rz_parse_double(text, strlen(text), &got);
    if (isfinite(expected) ? !ok || !same_bits(got, expected) : ok) fail_msg("%s: %.17g", text, got);
}

static void any_number_of_digits_is_read(void **state)
{
    (void)state;
    char text[1200];
    rz_rng r;
    rz_rng_seed(&r, 2, 1);
    for (int i = 0; i < 10000; i++) {
        snprintf(text, sizeof text, "%.*e", (int)rz_rng_below(&r, 40), any_double(&r));
        check_parse(text);
    }
    for (int i = 0; i < 300; i++) {
        size_t n = 1 + rz_rng_below(&r, 1100);
        for (size_t k = 0; k < n; k++) text[k] = (char)('0' + rz_rng_below(&r, 10));
        text[rz_rng_below(&r, n)] = n > 1 ? '.' : '7';
        snprintf(text + n, sizeof text - n, "e%d", (int)rz_rng_below(&r, 700) - 400);
        check_parse(text);
    }
}

/* Exactly halfway between two doubles, and a last digit above or below. */
static void ties_go_to_even(void **state)
{
    (void)state;
    rz_rng r;
    char text[1200];
    rz_rng_seed(&r, 3, 1);
    for (int i = 0; i < 300; i++) {
        double v = fabs(any_double(&r)), up = nextafter(v, INFINITY);
        if (i % 3 == 0) v = ldexp((double)rz_rng_below(&r, 4096), -1074), up = nextafter(v, 1);
        if (isinf(up)) continue;
        long double middle = ((long double)v + up) / 2;
        snprintf(text, sizeof text, "%.1100Le", middle);
        check_parse(text);
        strchr(text, 'e')[-1] = '1';
        check_parse(text);
    }
    check_parse("9007199254740993");
    check_parse("9007199254740993.00000000000000000000000000000000000000000000000000000000000000000001");
    check_parse("2.4703282292062327208299439634110864618253e-324");
    check_parse("2.4703282292062328e-324");
    check_parse("1.7976931348623158e308");
    check_parse("1.7976931348623159e308");
}

static void odd_but_valid_numbers(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "+1",    "1.",     ".5",     "-.5e1", "0e99999999999999999999", "00001", "1E+5",  "1e-99999999999",
        "1e400", "-1e999", "0.0000", "-0",    "1e00000000000000000001", "3.",    "1e-400"};
    for (size_t i = 0; i < RZ_COUNT(texts); i++) check_parse(texts[i]);
    /* A million zeros and an exponent that takes them back. */
    rz_str s = {0};
    double v;
    rz_str_puts(&s, "0.");
    for (int i = 0; i < 1000000; i++) rz_str_put(&s, "0", 1);
    rz_str_puts(&s, "25e1000001");
    assert_true(rz_parse_double(s.data, s.len, &v) && v == 2.5);
    rz_str_free(&s);
}

static void what_is_no_number(void **state)
{
    (void)state;
    static const char *const texts[] = {"",    " 1", "1 ",    "0x10", "inf",      "nan", "1,5",   "1e",
                                        "1e+", "e5", ".",     "-",    "+",        "--1", "1.2.3", "1e5.",
                                        "1_0", "1f", "1e5e5", "-.",   "\xD9\xA1", "1\n"};
    double d;
    int64_t v;
    for (size_t i = 0; i < RZ_COUNT(texts); i++) {
        if (rz_parse_double(texts[i], strlen(texts[i]), &d)) fail_msg("'%s' was taken", texts[i]);
        if (rz_parse_int64(texts[i], strlen(texts[i]), &v)) fail_msg("'%s' was taken", texts[i]);
    }
    assert_false(rz_parse_double("1\0002", 3, &d));
    assert_true(rz_parse_double("12345", 2, &d) && d == 12);
}

static void integers_to_the_limits(void **state)
{
    (void)state;
    int64_t v = 5;
    assert_true(rz_parse_int64("9223372036854775807", 19, &v) && v == INT64_MAX);
    assert_true(rz_parse_int64("-9223372036854775808", 20, &v) && v == INT64_MIN);
    assert_true(rz_parse_int64("-0", 2, &v) && v == 0);
    assert_true(rz_parse_int64("+0012", 5, &v) && v == 12);
    assert_false(rz_parse_int64("9223372036854775808", 19, &v));
    assert_false(rz_parse_int64("-9223372036854775809", 20, &v));
    assert_false(rz_parse_int64("99999999999999999999999", 23, &v));
    assert_int_equal(v, 12);
}

static void locale_does_not_matter(void **state)
{
    (void)state;
    if (!comma_locale_enter()) skip();
    double v = 0;
    rz_str s = {0};
    bool ok = rz_parse_double("0.5", 3, &v), comma = rz_parse_double("0,5", 3, &v);
    rz_str_put_double(&s, 0.5);
    comma_locale_leave();
    assert_true(ok && v == 0.5 && !comma);
    assert_string_equal(s.data, "0.5");
    rz_str_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(printed_forms),
        cmocka_unit_test(random_bits_come_back),
        cmocka_unit_test(friendly_numbers_come_back),
        cmocka_unit_test(any_number_of_digits_is_read),
        cmocka_unit_test(ties_go_to_even),
        cmocka_unit_test(odd_but_valid_numbers),
        cmocka_unit_test(what_is_no_number),
        cmocka_unit_test(integers_to_the_limits),
        cmocka_unit_test(locale_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
