/* test_tokenizer.c - ids and texts equal those of the sentencepiece package (goldens of
 * tests/data/make_tokenizer_golden.py); models that are damaged or of another kind are refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "failing_host.h"
#include "fixture.h"
#include "formats.h"
#include "golden_tokens.h"
#include "mutate.h"

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

/* ---- Against sentencepiece ---- */

static void test_mistral(void **state)
{
    (void)state;
    assert_int_equal(golden_tokens_check("tests/data/mistral_v1/golden.gz", "tests/data/mistral_v1/tokenizer.model"),
                     3627);
}

static void test_variants(void **state)
{
    (void)state;
    assert_int_equal(golden_tokens_check("tests/data/variants.gz", NULL), 16 * 117);
}

static void test_stories(void **state)
{
    rz_tokenizer *tok;
    rz_str s = {0};
    int32_t ids[257], *again;
    size_t n = 0, n_again;
    (void)state;
    char *text = fixture_read("tests/data/stories260K/greedy256.txt", NULL);
    char *numbers = fixture_read("tests/data/stories260K/greedy256.ids.txt", NULL);
    for (char *p = numbers, *end; n < 257; n++, p = end) ids[n] = (int32_t)strtol(p, &end, 10);
    ok(rz_tokenizer_open(NULL, "tests/data/stories260K/tokenizer.model", &tok, &err));
    assert_int_equal(rz_tokenizer_size(tok), 512);
    ok(rz_tokenizer_decode(tok, ids, n, &s, &err));
    assert_memory_equal(s.data, text, s.len);
    assert_true(s.len >= strlen(text) - 1);
    ok(rz_tokenizer_encode(tok, s.data, s.len, &again, &n_again, &err));
    assert_int_equal(again[0], ids[1]);
    rz_free(NULL, again);
    rz_str_free(&s);
    rz_tokenizer_close(tok);
    free(text);
    free(numbers);
}

static void test_facts(void **state)
{
    rz_tokenizer *tok;
    rz_str s = {0};
    const int32_t bad[] = {0, 32000}, negative[] = {-1};
    (void)state;
    ok(rz_tokenizer_open(NULL, "tests/data/mistral_v1/tokenizer.model", &tok, &err));
    assert_int_equal(rz_tokenizer_size(tok), 32000);
    assert_int_equal(rz_tokenizer_bos(tok), 1);
    assert_int_equal(rz_tokenizer_eos(tok), 2);
    assert_string_equal(rz_tokenizer_piece(tok, 3), "<0x00>");
    assert_string_equal(rz_tokenizer_piece(tok, 259), "\xe2\x96\x81\xe2\x96\x81");
    assert_null(rz_tokenizer_piece(tok, 32000));
    assert_null(rz_tokenizer_piece(tok, -1));
    assert_string_equal(rz_tokenizer_hash(tok), "dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055");
    assert_int_equal(rz_tokenizer_decode(tok, bad, 2, &s, &err), RADZ_E_ARGUMENT);
    assert_string_equal(err.message, "token id 32000, expected 0 to 31999");
    assert_int_equal(rz_tokenizer_decode(tok, negative, 1, &s, &err), RADZ_E_ARGUMENT);
    rz_str_free(&s);
    rz_tokenizer_close(tok);
    rz_tokenizer_close(NULL);
}

/* A megabyte without a word's end takes as long as a megabyte of words: quadratic time would be hours. */
static void test_long(void **state)
{
    static const char *const units[] = {"a", " ", "\xff", "\xf0\x9f\xab\x81"};
    enum { BYTES = 1 << 20 };
    rz_tokenizer *tok;
    char *text = malloc(BYTES);
    (void)state;
    assert_non_null(text);
    ok(rz_tokenizer_open(NULL, "tests/data/mistral_v1/tokenizer.model", &tok, &err));
    for (size_t k = 0; k < RZ_COUNT(units); k++) {
        rz_str s = {0};
        int32_t *ids;
        size_t n, len = strlen(units[k]);
        for (size_t i = 0; i < BYTES; i++) text[i] = units[k][i % len];
        ok(rz_tokenizer_encode(tok, text, BYTES, &ids, &n, &err));
        ok(rz_tokenizer_decode(tok, ids, n, &s, &err));
        assert_int_equal(s.len, k == 2 ? 3 * BYTES : BYTES);
        if (k != 2) assert_memory_equal(s.data, text, BYTES);
        rz_free(NULL, ids);
        rz_str_free(&s);
    }
    free(text);
    int32_t *ids;
    size_t n;
    assert_int_equal(rz_tokenizer_encode(tok, "", (size_t)1 << 31, &ids, &n, &err), RADZ_E_LIMIT);
    assert_null(ids);
    rz_tokenizer_close(tok);
}

/* ---- Models that are not ---- */

#define PIECE(n, text, tail) "\x0a" n "\x0a" text tail
#define UNK "\x0a\x09\x0a\x05<unk>\x18\x02"
#define BPE "\x12\x02\x18\x02" /* trainer_spec.model_type = BPE */
#define B(s) s, sizeof s - 1

static void test_bad_models(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        radz_status code;
        const char *message;
    } bad[] = {
        {B(""), RADZ_E_FORMAT, "empty"},
        {B(BPE), RADZ_E_FORMAT, "no pieces"},
        {B(UNK), RADZ_E_UNSUPPORTED, "type unigram"}, /* the default of the format */
        {B(UNK "\x12\x02\x18\x01"), RADZ_E_UNSUPPORTED, "type unigram"},
        {B(UNK "\x12\x02\x18\x03"), RADZ_E_UNSUPPORTED, "type word"},
        {B(UNK "\x12\x02\x18\x63"), RADZ_E_UNSUPPORTED, "type unknown"},
        {B(UNK BPE "\x1a\x0d\x0a\x08nmt_nfkc\x12\x01x"), RADZ_E_UNSUPPORTED, "normalizer 'nmt_nfkc'"},
        {B(UNK BPE "\x2a\x03\x12\x01x"), RADZ_E_UNSUPPORTED, "denormalizer"},
        {B(UNK UNK BPE), RADZ_E_FORMAT, "same text"},
        {B(UNK "\x0a\x05\x0a\x01x\x18\x02" BPE), RADZ_E_FORMAT, "both the unknown piece"},
        {B("\x0a\x03\x0a\x01x" BPE), RADZ_E_FORMAT, "no piece is the unknown piece"},
        {B(UNK "\x0a\x02\x0a" BPE), RADZ_E_FORMAT, "longer than what holds it"},
        {B(UNK "\x0a\x02\x0a\x00" BPE), RADZ_E_FORMAT, "piece 1: expected 1 to"},
        {B(UNK "\x0a\x03\x0a\x01\x00" BPE), RADZ_E_FORMAT, "piece 1: expected 1 to"},
        {B(UNK "\x0a\x03\x0a\x01\xff" BPE), RADZ_E_FORMAT, "piece 1: expected 1 to"},
        {B(UNK "\x0a\x05\x0a\x01x\x18\x07" BPE), RADZ_E_FORMAT, "piece 1: type 7"},
        {B(UNK "\x0a\x08\x0a\x01x\x15\x00\x00\xc0\x7f" BPE), RADZ_E_FORMAT, "not a number"},
        {B(UNK "\x0a\x05\x0a\x01x\x10\x00" BPE), RADZ_E_FORMAT, "wrong type"},
        {B(UNK "\x0a\x0a\x0a\x06<0x41>\x18\x06" BPE), RADZ_E_FORMAT, "without byte_fallback"},
        {B(UNK "\x0a\x0a\x0a\x06<0x4a>\x18\x06\x12\x05\x18\x02\x98\x02\x01"), RADZ_E_FORMAT, "not <0x00> to <0xFF>"},
        {B(UNK "\x12\x05\x18\x02\x98\x02\x01"), RADZ_E_FORMAT, "<0x00> is missing"},
        {B(UNK BPE "\x0b"), RADZ_E_FORMAT, "wire type"}, /* group */
        {B(UNK BPE "\x0f"), RADZ_E_FORMAT, "wire type"},
        {B(UNK BPE "\x00\x00"), RADZ_E_FORMAT, "field number"},
        {B(UNK BPE "\x08\x01"), RADZ_E_FORMAT, "wrong type"},
        {B(UNK BPE "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), RADZ_E_FORMAT, "longer than what holds it"},
        {B(UNK BPE "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), RADZ_E_FORMAT, "more than 64 bits"},
        {B(UNK BPE "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), RADZ_E_FORMAT, "more than 64 bits"},
        {B(UNK BPE "\x0a\x80"), RADZ_E_FORMAT, "cut short"},
        {B(UNK BPE "\x31\x00"), RADZ_E_FORMAT, "cut short"},
    };
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        rz_tokenizer *tok = (rz_tokenizer *)&err;
        radz_status status = rz_tokenizer_parse(NULL, (const uint8_t *)bad[i].bytes, bad[i].n, "x.model", &tok, &err);
        assert_null(tok);
        if (status != bad[i].code || !strstr(err.message, bad[i].message) || strncmp(err.message, "x.model: ", 9) != 0)
            fail_msg("%zu: status %d, \"%s\", expected \"%s\"", i, (int)status, err.message, bad[i].message);
    }
}

/* Fields that nobody knows and the smallest model that there is. */
static void test_smallest_model(void **state)
{
    static const char bytes[] = UNK BPE "\x38\x05\x31\x01\x02\x03\x04\x05\x06\x07\x08\x3d\x01\x02\x03\x04\x1a\x00";
    rz_tokenizer *tok;
    int32_t *ids;
    size_t n;
    (void)state;
    ok(rz_tokenizer_parse(NULL, (const uint8_t *)bytes, sizeof bytes - 1, "x", &tok, &err));
    assert_int_equal(rz_tokenizer_size(tok), 1);
    assert_int_equal(rz_tokenizer_bos(tok), -1);
    ok(rz_tokenizer_encode(tok, "two words", 9, &ids, &n, &err));
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], 0);
    rz_free(NULL, ids);
    ok(rz_tokenizer_encode(tok, "", 0, &ids, &n, &err));
    assert_int_equal(n, 0);
    assert_non_null(ids);
    rz_free(NULL, ids);
    rz_tokenizer_close(tok);
}

/* unk, two letters, their union, a control piece, an unused union, a user-defined symbol. */
static const char small[] = UNK "\x0a\x08\x0a\x01x\x15\x00\x00\x80\xbf"
                                "\x0a\x08\x0a\x01y\x15\x00\x00\x00\xc0"
                                "\x0a\x09\x0a\x02xy\x15\x00\x00\x80\xbf"
                                "\x0a\x07\x0a\x03<s>\x18\x03"
                                "\x0a\x07\x0a\x03xyx\x18\x05"
                                "\x0a\x06\x0a\x02qq\x18\x04"
                                "\x12\x07\x18\x02\xf2\x02\x02(s"
                                "\x1a\x0e\x0a\x08identity\x18\x01\x20\x00";

static radz_status read_and_use(const uint8_t *bytes, size_t n, radz_error *e)
{
    static const char text[] = "xyx <s>qqxy \xff\xe2\x96\x81zxxy";
    rz_tokenizer *tok;
    int32_t *ids;
    size_t n_ids;
    rz_str s = {0};
    RZ_TRY(rz_tokenizer_parse(NULL, bytes, n, "damaged", &tok, e));
    ok(rz_tokenizer_encode(tok, text, sizeof text - 1, &ids, &n_ids, &err));
    ok(rz_tokenizer_decode(tok, ids, n_ids, &s, &err));
    rz_free(NULL, ids);
    rz_str_free(&s);
    rz_tokenizer_close(tok);
    return RADZ_OK;
}

static void test_damage(void **state)
{
    size_t n;
    (void)state;
    ok(read_and_use((const uint8_t *)small, sizeof small - 1, &err));
    assert_true(mutate_all((const uint8_t *)small, sizeof small - 1, sizeof small, read_and_use) > sizeof small);
    char *real = fixture_read("tests/data/stories260K/tokenizer.model", &n);
    assert_true(mutate_all((const uint8_t *)real, n, 300, read_and_use) > 300);
    free(real);
}

static radz_status open_and_encode(const rz_host *host, void *arg)
{
    static const char text[] = "xyx qqxy unknown letters of many kinds xxxyyyxyxyxy";
    rz_tokenizer *tok;
    int32_t *ids;
    size_t n;
    (void)arg;
    RZ_TRY(rz_tokenizer_parse(host, (const uint8_t *)small, sizeof small - 1, "x", &tok, &err));
    radz_status status = rz_tokenizer_encode(tok, text, sizeof text - 1, &ids, &n, &err);
    rz_str s = {.host = host};
    if (status == RADZ_OK) status = rz_tokenizer_decode(tok, ids, n, &s, &err);
    rz_str_free(&s);
    rz_free(host, ids);
    rz_tokenizer_close(tok);
    return status;
}

static void test_memory_runs_out(void **state)
{
    (void)state;
    failing_host_try_all(open_and_encode, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistral),        cmocka_unit_test(test_variants), cmocka_unit_test(test_stories),
        cmocka_unit_test(test_facts),          cmocka_unit_test(test_long),     cmocka_unit_test(test_bad_models),
        cmocka_unit_test(test_smallest_model), cmocka_unit_test(test_damage),   cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
