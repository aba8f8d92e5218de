/* test_csv.c - tables as people send them; what is ragged or no text is refused with its line.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "failing_host.h"
#include "fixture.h"
#include "formats.h"
#include "mutate.h"

#define B(s) s, sizeof s - 1

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

/* The whole table as one text: fields in <>, rows ended by their line number. */
static rz_str flatten(const rz_csv *csv, int columns)
{
    rz_str s = {0};
    for (size_t row = 0; row < rz_csv_rows(csv); row++) {
        for (int c = 0; c < columns; c++) rz_str_printf(&s, "<%s>", rz_csv_get(csv, row, c));
        rz_str_printf(&s, "%zu ", rz_csv_line(csv, row));
    }
    if (!s.data) rz_str_puts(&s, "");
    return s;
}

static void test_good(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        const char *want;
    } good[] = {
        {B("a,b\n"), ""},
        {B("a,b"), ""},
        {B("a,b\n1,2\n3,4\n"), "<1><2>2 <3><4>3 "},
        {B("a,b\r\n1,2\r\n3,4"), "<1><2>2 <3><4>3 "},
        {B("\xef\xbb\xbf"
           "a,b\n1,2\r"),
         "<1><2>2 "},
        {B("a,b\n1,\n,2\n,\n"), "<1><>2 <><2>3 <><>4 "},
        {B("a,b\n,"), "<><>2 "},
        {B("a,b\n\n\r\n1,2\n\n"), "<1><2>4 "},
        {B("\n\na,b\n1,2\n"), "<1><2>4 "},
        {B("a,b\n\"1,\"\"x\"\"\",\"two\nlines\r\n\"\n3,4\n"), "<1,\"x\"><two\nlines\r\n>2 <3><4>5 "},
        {B("a,b\n\"\",\"\"\n"), "<><>2 "},
        {B("a,b\n5\" wide, \"2\n"), "<5\" wide>< \"2>2 "},
        {B("\"a\",\"b\"\n1,2\n"), "<1><2>2 "},
        {B("a;b\n1,5;2\n"), "<1,5><2>2 "},
        {B("\"a,x\";b\n1;2\n"), "<1><2>2 "},
        {B("a\tb\n1;1\t2\n"), "<1;1><2>2 "},
        {B("a,b;c\n1,2;3\n"), "<1><2;3>2 "},
        {B("a,b\n\xc3\xa9,\xf0\x9f\xab\x81\n"), "<\xc3\xa9><\xf0\x9f\xab\x81>2 "},
    };
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(good); i++) {
        rz_csv *csv;
        char *copy = malloc(good[i].n);
        assert_non_null(copy);
        memcpy(copy, good[i].text, good[i].n);
        ok(rz_csv_parse(NULL, copy, good[i].n, "x.csv", &csv, &err));
        free(copy);
        rz_str s = flatten(csv, 2);
        if (strcmp(s.data, good[i].want) != 0) fail_msg("%zu: %s, expected %s", i, s.data, good[i].want);
        rz_str_free(&s);
        rz_csv_close(csv);
    }
}

static void test_bad(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        const char *message;
    } bad[] = {
        {B(""), "x.csv: empty"},
        {B("\n\n"), "x.csv: empty"},
        {B("\xef\xbb\xbf"), "x.csv: empty"},
        {B("a,b\n1\n"), "x.csv: line 2: 1 fields, expected 2"},
        {B("a,b\n1,2\n\"x\ny\",2\n1,2,3\n"), "x.csv: line 5: 3 fields, expected 2"},
        {B("a,b\n1,\"2\n3,4\n"), "x.csv: line 2: a quoted field is never closed"},
        {B("a,b\n1,\"2\"x\n"), "x.csv: line 2: text after a closing quote"},
        {B("a,b\n1,2\r3,4\n"), "x.csv: line 2: carriage return"},
        {B("a,b\n1,2\n1,\0\n"), "x.csv: line 3: NUL byte"},
        {B("a,b\n1,2\n\n1,\xff\n"), "x.csv: line 4: not UTF-8"},
        {B("\xff\xfe"
           "a\0,\0"),
         "x.csv: line 1: not UTF-8"},
        {B("a,b,a\n"), "x.csv: line 1: columns 1 and 3 have the same name"},
    };
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        rz_csv *csv = (rz_csv *)&err;
        radz_status status = rz_csv_parse(NULL, bad[i].text, bad[i].n, "x.csv", &csv, &err);
        assert_null(csv);
        if (status != RADZ_E_FORMAT || strncmp(err.message, bad[i].message, strlen(bad[i].message)) != 0)
            fail_msg("%zu: status %d, \"%s\", expected \"%s\"", i, (int)status, err.message, bad[i].message);
    }
    rz_str wide = {0};
    rz_csv *csv;
    for (int i = 0; i < 5000; i++) rz_str_puts(&wide, ",");
    assert_int_equal(rz_csv_parse(NULL, wide.data, wide.len, "x", &csv, &err), RADZ_E_LIMIT);
    rz_str_free(&wide);
}

static void test_columns(void **state)
{
    static const char text[] = " path ,labels,,\na,b,c,d\n";
    rz_csv *csv;
    (void)state;
    ok(rz_csv_parse(NULL, text, sizeof text - 1, "x", &csv, &err));
    assert_int_equal(rz_csv_rows(csv), 1);
    assert_int_equal(rz_csv_column(csv, "path"), 0);
    assert_int_equal(rz_csv_column(csv, "labels"), 1);
    assert_int_equal(rz_csv_column(csv, "Path"), -1);
    assert_string_equal(rz_csv_get(csv, 0, 0), "a");
    assert_string_equal(rz_csv_get(csv, 0, rz_csv_column(csv, "none")), "");
    assert_string_equal(rz_csv_get(csv, 0, 4), "");
    assert_string_equal(rz_csv_get(csv, 1, 0), "");
    assert_int_equal(rz_csv_line(csv, 1), 0);
    rz_csv_close(csv);
    rz_csv_close(NULL);
}

static void test_files(void **state)
{
    char *dir = fixture_temp_dir();
    const char *path = fixture_path(dir, "t.csv");
    rz_csv *csv;
    (void)state;
    fixture_write_text(path, "a,b\n1,2\n");
    ok(rz_csv_open(NULL, path, 8, &csv, &err));
    assert_string_equal(rz_csv_get(csv, 0, 1), "2");
    rz_csv_close(csv);
    assert_int_equal(rz_csv_open(NULL, path, 7, &csv, &err), RADZ_E_LIMIT);
    assert_null(csv);
    assert_int_equal(rz_csv_open(NULL, dir, 100, &csv, &err), RADZ_E_IO);
    assert_int_equal(rz_csv_open(NULL, fixture_path(dir, "none"), 100, &csv, &err), RADZ_E_IO);
    fixture_remove(dir);
    free(dir);
}

/* One line of many megabytes, one field of many megabytes: no more than a copy of the file. */
static void test_long_lines(void **state)
{
    enum { N = 1 << 24 };
    char *text = malloc(N);
    rz_csv *csv;
    (void)state;
    assert_non_null(text);
    memset(text, 'x', N);
    ok(rz_csv_parse(NULL, text, N, "x", &csv, &err));
    assert_int_equal(rz_csv_rows(csv), 0);
    rz_csv_close(csv);
    memcpy(text, "a\n\"", 3);
    assert_int_equal(rz_csv_parse(NULL, text, N, "x", &csv, &err), RADZ_E_FORMAT);
    text[N - 1] = '"';
    ok(rz_csv_parse(NULL, text, N, "x", &csv, &err));
    assert_int_equal(strlen(rz_csv_get(csv, 0, 0)), N - 4);
    rz_csv_close(csv);
    free(text);
}

static const char table[] = "\xef\xbb\xbfpath,\"la\"\"bels\"\r\na.png,\"x,\ny\"\r\n\r\nb.png,\xc3\xa9\n";

static radz_status read_and_use(const uint8_t *bytes, size_t n, radz_error *e)
{
    rz_csv *csv;
    RZ_TRY(rz_csv_parse(NULL, (const char *)bytes, n, "damaged", &csv, e));
    rz_str s = flatten(csv, 4);
    rz_str_free(&s);
    rz_csv_close(csv);
    return RADZ_OK;
}

static void test_damage(void **state)
{
    (void)state;
    ok(read_and_use((const uint8_t *)table, sizeof table - 1, &err));
    assert_true(mutate_all((const uint8_t *)table, sizeof table - 1, sizeof table, read_and_use) > sizeof table);
}

static radz_status read_once(const rz_host *host, void *arg)
{
    rz_csv *csv;
    (void)arg;
    RZ_TRY(rz_csv_parse(host, table, sizeof table - 1, "x", &csv, &err));
    rz_csv_close(csv);
    return RADZ_OK;
}

static void test_memory_runs_out(void **state)
{
    (void)state;
    failing_host_try_all(read_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
