/* test_tokenizer_json.c - tokenizer.json: ids and texts equal those of the tokenizers package (goldens of
 * tests/data/make_json_golden.py); files that are damaged or of another kind are refused. SPDX-License-Identifier:
 * Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "formats.h"
#include "golden_tokens.h"
#include "mutate.h"

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

/* ---- Against tokenizers and sentencepiece ---- */

static void test_golden(void **state)
{
    size_t n_lines;
    (void)state;
    assert_int_equal(golden_tokens_check_corpus("tests/data/json_golden.gz", "tests/data/corpus.gz",
                                                "tests/data/mistral_v1/tokenizer.model", &n_lines),
                     17);
    assert_true(n_lines >= 10000);
}

/* ---- Files that are not ---- */

#define MODEL(vocab, merges) "{\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}"
#define AB MODEL("\"a\":0,\"b\":1,\"ab\":2", "\"a b\"")

static void test_bad_files(void **state)
{
    static const struct {
        const char *text;
        radz_status code;
        const char *message;
    } bad[] = {
        {"{}", RADZ_E_FORMAT, "model: expected an object"},
        {"{\"model\":{\"type\":\"Unigram\"}}", RADZ_E_UNSUPPORTED, "'Unigram' is not supported"},
        {MODEL("", "") "}", RADZ_E_FORMAT, "vocab"},
        {MODEL("\"a\":1", "") "}", RADZ_E_FORMAT, "id is 1"},
        {MODEL("\"a\":-1", "") "}", RADZ_E_FORMAT, "id is -1"},
        {MODEL("\"a\":4294967296", "") "}", RADZ_E_FORMAT, "id is 4294967296"},
        {MODEL("\"a\":0,\"b\":0", "") "}", RADZ_E_FORMAT, "two tokens have the id 0"},
        {MODEL("\"a\":0,\"a\":1", "") "}", RADZ_E_FORMAT, "duplicate"},
        {MODEL("\"a\":0", "\"a c\"") "}", RADZ_E_FORMAT, "merges[0]: its right token is not in the vocabulary"},
        {MODEL("\"a\":0", "[\"a\",\"a\"]") "}", RADZ_E_FORMAT, "merges[0]: what it makes"},
        {MODEL("\"a\":0", "\"a\"") "}", RADZ_E_FORMAT, "merges[0]: expected two tokens"},
        {AB ",\"normalizer\":{\"type\":\"Lowercase\"}}", RADZ_E_UNSUPPORTED, "normalizer: 'Lowercase'"},
        {AB ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"x+\"}}}",
         RADZ_E_UNSUPPORTED, "pre_tokenizer: 'x+'"},
        {AB ",\"decoder\":{\"type\":\"CTC\"}}", RADZ_E_UNSUPPORTED, "decoder: 'CTC'"},
        {AB ",\"added_tokens\":[{\"id\":9,\"content\":\"x\"}]}", RADZ_E_FORMAT, "has the id 9, its place is 3"},
        {AB ",\"added_tokens\":[{\"id\":0,\"content\":\"a\"},{\"id\":0,\"content\":\"a\"}]}", RADZ_E_FORMAT,
         "two tokens"},
    };
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        rz_tokenizer *tok;
        radz_status status =
            rz_tokenizer_parse(NULL, (const uint8_t *)bad[i].text, strlen(bad[i].text), "x.json", &tok, &err);
        assert_null(tok);
        if (status != bad[i].code || !strstr(err.message, bad[i].message) || strncmp(err.message, "x.json: ", 8) != 0)
            fail_msg("%zu: status %d, \"%s\", expected \"%s\"", i, (int)status, err.message, bad[i].message);
    }
}

static const char small[] =
    "{\"added_tokens\":[{\"id\":3,\"content\":\"<t>\",\"rstrip\":true}],\"normalizer\":{\"type\":\"NFC\"},"
    "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\"},\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"a\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}";

static radz_status read_and_use(const uint8_t *bytes, size_t n, radz_error *e)
{
    static const char text[] = "abba <t>  a\xff\xcc\x81 ab";
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
    (void)state;
    ok(read_and_use((const uint8_t *)small, sizeof small - 1, &err));
    assert_true(mutate_all((const uint8_t *)small, sizeof small - 1, sizeof small, read_and_use) > sizeof small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
