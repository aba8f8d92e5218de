/* Errors, memory hooks, text, hashes and random numbers. SPDX-License-Identifier: Apache-2.0 */
#include "hash_blocks.h"

#include <errno.h>
#include <fenv.h>
#include <limits.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "failing_host.h"

/* ---- Errors --------------------------------------------------------------------------- */

static void error_is_one_line(void **state)
{
    (void)state;
    radz_error err;
    assert_int_equal(rz_fail(&err, RADZ_E_FORMAT, "a\nb\tc\x7f: %s %d %zu", "x\ry", -3, (size_t)7), RADZ_E_FORMAT);
    assert_int_equal(err.code, RADZ_E_FORMAT);
    assert_string_equal(err.message, "a?b?c?: x?y -3 7");
    assert_int_equal(rz_fail(NULL, RADZ_E_LIMIT, "nobody listens"), RADZ_E_LIMIT);
}

static void long_error_ends_in_dots(void **state)
{
    (void)state;
    radz_error err;
    char text[2000];
    memset(text, 'a', sizeof text);
    text[1999] = 0;
    rz_fail(&err, RADZ_E_IO, "%s", text);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_string_equal(err.message + strlen(err.message) - 4, "a...");
    for (size_t shift = 0; shift < 2; shift++) {
        text[0] = 'a';
        for (size_t i = shift; i + 2 < sizeof text; i += 2) memcpy(text + i, "\xC3\xA4", 2);
        rz_fail(&err, RADZ_E_IO, "%s", text);
        assert_true(rz_utf8_valid(err.message, strlen(err.message)));
        assert_non_null(strstr(err.message, "..."));
    }
}

static void text_of_full_length_is_whole(void **state)
{
    (void)state;
    radz_error err;
    char text[sizeof err.message];
    memset(text, 'b', sizeof text);
    text[sizeof text - 1] = 0;
    rz_fail(&err, RADZ_E_IO, "%s", text);
    assert_string_equal(err.message, text);
}

static void error_prefix_and_errno(void **state)
{
    (void)state;
    radz_error err;
    assert_int_equal(rz_fail_errno(&err, ENOENT, "cannot open", "a/b.png"), RADZ_E_IO);
    assert_string_equal(err.message, "a/b.png: cannot open: no such file or directory");
    assert_int_equal(rz_fail_prefix(&err, RADZ_E_INTERNAL, "row %d", 12), RADZ_E_IO);
    assert_string_equal(err.message, "row 12: a/b.png: cannot open: no such file or directory");
    assert_int_equal(rz_fail_prefix(NULL, RADZ_E_INTERNAL, "row"), RADZ_E_INTERNAL);
    assert_int_equal(rz_fail_errno(&err, ENOMEM, "cannot map", "x"), RADZ_E_MEMORY);
    rz_fail_errno(&err, 12345, "cannot map", "x");
    assert_string_equal(err.message, "x: cannot map: system error 12345");
    rz_fail(&err, RADZ_E_IO, "again: %s", err.message);
    assert_string_equal(err.message, "again: x: cannot map: system error 12345");
}

/* ---- Memory ----------------------------------------------------------------------------- */

static void sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    failing_host f = {0};
    rz_host host = failing_hooks(&f);
    const rz_host *hosts[] = {NULL, &host};
    for (int i = 0; i < 2; i++) {
        assert_null(rz_calloc(hosts[i], SIZE_MAX / 2, 3));
        assert_null(rz_realloc(hosts[i], NULL, SIZE_MAX / 4 + 2, 4));
        assert_null(rz_malloc(hosts[i], SIZE_MAX));
        void *p = rz_malloc(hosts[i], 0);
        assert_non_null(p);
        p = rz_realloc(hosts[i], p, 0, 8);
        assert_non_null(p);
        rz_free(hosts[i], p);
        unsigned char *zeros = rz_calloc(hosts[i], 10, 10);
        for (int k = 0; k < 100; k++) assert_int_equal(zeros[k], 0);
        rz_free(hosts[i], zeros);
        rz_free(hosts[i], NULL);
    }
    assert_int_equal(f.live, 0);
}

static void strings_are_copied(void **state)
{
    (void)state;
    char *a = rz_strdup(NULL, "hello"), *b = rz_strndup(NULL, "hello", 3), *c = rz_strndup(NULL, "hi", 30);
    assert_string_equal(a, "hello");
    assert_string_equal(b, "hel");
    assert_string_equal(c, "hi");
    rz_free(NULL, a);
    rz_free(NULL, b);
    rz_free(NULL, c);
}

static void keep_line(radz_log_level level, const char *line, void *user)
{
    rz_str_printf(user, "%d %s", (int)level, line);
}

static void log_goes_to_the_host_only(void **state)
{
    (void)state;
    rz_str got = {0};
    rz_host host = {.log_fn = keep_line, .user = &got};
    rz_log(&host, RADZ_LOG_WARNING, "two\nlines %d", 5);
    assert_string_equal(got.data, "2 two?lines 5");
    rz_log(NULL, RADZ_LOG_WARNING, "silence");
    rz_str_free(&got);
}

/* ---- Text ------------------------------------------------------------------------------- */

static void strings_grow(void **state)
{
    (void)state;
    rz_str s = {0};
    for (int i = 0; i < 1000; i++) rz_str_printf(&s, "%04d", i);
    assert_int_equal(s.len, 4000);
    assert_memory_equal(s.data + 4 * 517, "0517", 4);
    assert_int_equal(s.data[4000], 0);
    rz_str_put(&s, "\0x", 2);
    assert_int_equal(s.len, 4002);
    rz_str_put(&s, NULL, 0);
    assert_false(s.failed);
    rz_str_put(&s, "x", SIZE_MAX - 5);
    assert_true(s.failed);
    rz_str_puts(&s, "ignored");
    assert_int_equal(s.len, 4002);
    rz_str_free(&s);
}

static void json_text_is_escaped(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        size_t n;
        const char *out;
    } cases[] = {
        {"plain", 5, "\"plain\""},
        {"a\"b\\c/", 6, "\"a\\\"b\\\\c/\""},
        {"\b\f\n\r\t", 5, "\"\\b\\f\\n\\r\\t\""},
        {"\0\x01\x1f\x7f", 4, "\"\\u0000\\u0001\\u001f\\u007f\""},
        {"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80", 9, "\"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\""},
        {"a\xFFz\xC3", 4, "\"a\xEF\xBF\xBDz\xEF\xBF\xBD\""},
        {"\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        rz_str s = {0};
        rz_str_put_json(&s, cases[i].in, cases[i].n);
        assert_string_equal(s.data, cases[i].out);
        rz_str_free(&s);
    }
    rz_str s = {0};
    rz_str_put_text(&s, "{\"a\":", "\"");
    rz_str_put_text(&s, ",\"b\":", NULL);
    rz_str_put_number(&s, ",\"c\":", 0.5);
    rz_str_put_number(&s, ",\"d\":", NAN);
    assert_string_equal(s.data, "{\"a\":\"\\\"\",\"b\":null,\"c\":0.5,\"d\":null");
    rz_str_free(&s);
}

static void utf8_is_checked(void **state)
{
    (void)state;
    uint32_t c = 0;
    assert_int_equal(rz_utf8_next("A", 1, &c), 1);
    assert_int_equal(c, 'A');
    assert_int_equal(rz_utf8_next("\xC2\x80", 2, &c), 2);
    assert_int_equal(c, 0x80);
    assert_int_equal(rz_utf8_next("\xEF\xBF\xBF", 3, &c), 3);
    assert_int_equal(c, 0xFFFF);
    assert_int_equal(rz_utf8_next("\xF4\x8F\xBF\xBF", 4, &c), 4);
    assert_int_equal(c, 0x10FFFF);
    static const char *const bad[] = {"\x80",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xE0\x9F\xBF",
                                      "\xED\xA0\x80",
                                      "\xED\xBF\xBF",
                                      "\xF0\x8F\xBF\xBF",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xC3(",
                                      "\xE2\x82",
                                      "\xF0\x9F\x98",
                                      "\xFF"};
    for (size_t i = 0; i < RZ_COUNT(bad); i++) assert_int_equal(rz_utf8_next(bad[i], strlen(bad[i]), &c), 0);
    assert_int_equal(rz_utf8_next("", 0, &c), 0);
    assert_int_equal(rz_utf8_next("\xC3\xA4", 1, &c), 0);
    assert_true(rz_utf8_valid("a\0b", 3));
    assert_false(rz_utf8_valid("ab\xC3", 3));
}

/* ---- Hashes: the examples of FIPS 180-2 and of NIST's SHAVS ------------------------------ */

static void sha256_known_answers(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hex;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqr"
         "stu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        rz_sha256 h;
        char hex[65];
        rz_sha256_init(&h);
        rz_sha256_put(&h, cases[i].text, strlen(cases[i].text));
        rz_sha256_hex(&h, hex);
        assert_string_equal(hex, cases[i].hex);
    }
}

/* The processor's instructions against plain C; where it has none, nothing is compared. */
static void sha256_by_instructions(void **state)
{
    (void)state;
    if (!rz_has_shani()) skip();
#ifdef __x86_64__
    uint8_t blocks[7 * 64];
    uint32_t want[8], got[8];
    rz_rng r;
    rz_rng_seed(&r, 5, 5);
    for (size_t n = 0; n <= 7; n++) {
        for (size_t i = 0; i < 64 * n; i++) blocks[i] = (uint8_t)(256 * rz_rng_uniform(&r));
        for (size_t i = 0; i < 8; i++) want[i] = got[i] = (uint32_t)(0x1p32 * rz_rng_uniform(&r));
        rz_sha256_plain(want, blocks, n);
        rz_sha256_shani(got, blocks, n);
        assert_memory_equal(got, want, sizeof want);
    }
#endif
}

static void sha256_in_pieces(void **state)
{
    (void)state;
    char a[1000], hex[65];
    memset(a, 'a', sizeof a);
    for (size_t piece = 1; piece <= 1000; piece += 37) {
        rz_sha256 h;
        rz_sha256_init(&h);
        for (size_t done = 0; done < 1000000;) {
            size_t n = 1000000 - done < piece ? 1000000 - done : piece;
            rz_sha256_put(&h, a, n);
            done += n;
        }
        rz_sha256_hex(&h, hex);
        assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}

/* Every length around the block boundaries gives what pieces of one byte give. */
static void sha256_padding(void **state)
{
    (void)state;
    uint8_t bytes[200];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7);
    for (size_t n = 0; n <= sizeof bytes; n++) {
        rz_sha256 one, many;
        char a[65], b[65];
        rz_sha256_init(&one);
        rz_sha256_init(&many);
        rz_sha256_put(&one, bytes, n);
        for (size_t i = 0; i < n; i++) rz_sha256_put(&many, bytes + i, 1);
        rz_sha256_hex(&one, a);
        rz_sha256_hex(&many, b);
        assert_string_equal(a, b);
    }
}

/* ---- Random numbers ---------------------------------------------------------------------- */

/* First outputs of the published xoshiro256** for the state 1, 2, 3, 4. */
static void xoshiro_known_answers(void **state)
{
    (void)state;
    static const uint64_t expected[] = {11520u,
                                        0u,
                                        1509978240u,
                                        1215971899390074240u,
                                        1216172134540287360u,
                                        607988272756665600u,
                                        16172922978634559625u,
                                        8476171486693032832u,
                                        10595114339597558777u,
                                        2904607092377533576u};
    rz_rng r = {{1, 2, 3, 4}};
    for (size_t i = 0; i < RZ_COUNT(expected); i++) assert_true(rz_rng_u64(&r) == expected[i]);
}

/* The same on every machine, for ever: a checkpoint resumes by it. */
static void seeds_are_frozen(void **state)
{
    (void)state;
    rz_rng r;
    rz_rng_seed(&r, 42, 7);
    assert_true(rz_rng_u64(&r) == 9201022012157996780u);
    assert_true(rz_rng_u64(&r) == 2022035845949107267u);
    assert_true(rz_rng_u64(&r) == 12812200783166202390u);
    assert_true(fabs(rz_rng_normal(&r) - -0.668315021395447) < 1e-14);
    assert_true(rz_rng_uniform(&r) == 0x1.56773f9572696p-1);
}

static void streams_differ(void **state)
{
    (void)state;
    uint64_t first[400];
    rz_rng r;
    for (uint64_t i = 0; i < 400; i++) {
        rz_rng_seed(&r, i / 20, i % 20);
        first[i] = rz_rng_u64(&r);
        for (uint64_t k = 0; k < i; k++) assert_true(first[k] != first[i]);
    }
}

static void random_numbers_are_spread_right(void **state)
{
    (void)state;
    enum { N = 100000 };
    rz_rng r;
    size_t count[7] = {0};
    double sum = 0, sum2 = 0, sum4 = 0, uniform = 0;
    rz_rng_seed(&r, 1, 1);
    for (int i = 0; i < N; i++) {
        uint64_t k = rz_rng_below(&r, 7);
        assert_true(k < 7);
        count[k]++;
        double u = rz_rng_uniform(&r), z = rz_rng_normal(&r);
        assert_true(u >= 0 && u < 1);
        uniform += u;
        sum += z, sum2 += z * z, sum4 += z * z * z * z;
    }
    for (int k = 0; k < 7; k++) assert_true(fabs((double)count[k] - N / 7.0) < 500); /* 5 sigma = 553 */
    assert_true(fabs(uniform / N - 0.5) < 0.005);
    assert_true(fabs(sum / N) < 0.016 && fabs(sum2 / N - 1) < 0.023 && fabs(sum4 / N - 3) < 0.16);
    assert_true(rz_rng_below(&r, 1) == 0);
    for (int i = 0; i < 100; i++) assert_true(rz_rng_below(&r, UINT64_C(3) << 62) < UINT64_C(3) << 62);
}

/* Box and Muller with libm's functions gives the same up to rounding. */
static void normal_matches_libm(void **state)
{
    (void)state;
    rz_rng r, copy;
    rz_rng_seed(&r, 3, 3);
    for (int i = 0; i < 20000; i++) {
        copy = r;
        double u = 1 - rz_rng_uniform(&copy), v = rz_rng_uniform(&copy);
        double expected = sqrt(-2 * log(u)) * cos(2 * M_PI * v);
        assert_true(fabs(rz_rng_normal(&r) - expected) < 1e-14 * (1 + fabs(expected)));
    }
}

/* ---- Memory that runs out; the host's state ------------------------------------------------- */

static radz_status fill_strings(const rz_host *host, void *arg)
{
    (void)arg;
    rz_str s = {.host = host};
    for (int i = 0; i < 300; i++) {
        rz_str_puts(&s, "0123456789");
        rz_str_put_double(&s, 0.1 * i);
        rz_str_put_json(&s, "\n\"", 2);
        rz_str_printf(&s, "%s%d", "abc", i);
    }
    char *a = rz_strdup(host, "x"), *b = rz_path_join(host, "dir", "name");
    void *c = rz_calloc(host, 3, 5);
    bool failed = s.failed || !a || !b || !c;
    rz_free(host, a);
    rz_free(host, b);
    rz_free(host, c);
    rz_str_free(&s);
    return failed ? RADZ_E_MEMORY : RADZ_OK;
}

static void memory_runs_out(void **state)
{
    (void)state;
    failing_host_try_all(fill_strings, NULL);
}

static void host_state_is_left_alone(void **state)
{
    (void)state;
    rz_rng r;
    radz_error err;
    double d;
    char hex[65];
    rz_sha256 h;
    char *locale = strdup(setlocale(LC_ALL, NULL));
    assert_int_equal(fesetround(FE_UPWARD), 0);
    feclearexcept(FE_ALL_EXCEPT);
    assert_int_equal(fill_strings(NULL, NULL), RADZ_OK);
    rz_parse_double("1e-310", 6, &d);
    rz_fail(&err, RADZ_E_IO, "x");
    rz_rng_seed(&r, 1, 2);
    rz_sha256_init(&h);
    rz_sha256_hex(&h, hex);
    assert_int_equal(fegetround(), FE_UPWARD);
    assert_int_equal(fesetround(FE_TONEAREST), 0);
    assert_string_equal(setlocale(LC_ALL, NULL), locale);
    free(locale);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_is_one_line),
        cmocka_unit_test(long_error_ends_in_dots),
        cmocka_unit_test(text_of_full_length_is_whole),
        cmocka_unit_test(error_prefix_and_errno),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(strings_are_copied),
        cmocka_unit_test(log_goes_to_the_host_only),
        cmocka_unit_test(strings_grow),
        cmocka_unit_test(json_text_is_escaped),
        cmocka_unit_test(utf8_is_checked),
        cmocka_unit_test(sha256_known_answers),
        cmocka_unit_test(sha256_by_instructions),
        cmocka_unit_test(sha256_in_pieces),
        cmocka_unit_test(sha256_padding),
        cmocka_unit_test(xoshiro_known_answers),
        cmocka_unit_test(seeds_are_frozen),
        cmocka_unit_test(streams_differ),
        cmocka_unit_test(random_numbers_are_spread_right),
        cmocka_unit_test(normal_matches_libm),
        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(host_state_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
