/* test_tokenizer_json.c - tokenizer.json: ids and texts equal those of the tokenizers package (goldens of
 * tests/data/make_json_golden.py); files that are damaged or of another kind are refused. SPDX-License-Identifier:
 * Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "failing_host.h"
#include "fixture.h"
#include "formats.h"
#include "golden_tokens.h"
#include "mutate.h"
#include "scratch.h"

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
                     20);
    assert_true(n_lines >= 10000);
}

/* ---- Helpers ---- */

static rz_tokenizer *parse(const char *text)
{
    rz_tokenizer *tok;
    ok(rz_tokenizer_parse(NULL, (const uint8_t *)text, strlen(text), "x.json", &tok, &err));
    return tok;
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
        {MODEL("\"a\":0,\"b\":2147483648", "") "}", RADZ_E_FORMAT, "id is 2147483648, expected an integer in 0..1"},
        {MODEL("\"a\":0.0", "") "}", RADZ_E_FORMAT, "id is -1"},
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
        {AB ",\"added_tokens\":[{\"id\":-1,\"content\":\"x\"}]}", RADZ_E_FORMAT, "id"},
        {AB ",\"added_tokens\":[{\"id\":2147483648,\"content\":\"x\"}]}", RADZ_E_FORMAT, "id"},
        {AB ",\"added_tokens\":[{\"id\":3,\"content\":\"x\"},{\"id\":4,\"content\":\"x\"}]}", RADZ_E_FORMAT,
         "tokens 3 and 4 have the same text"},
        {AB ",\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",3],\"sep\":[\"a\",0]}}", RADZ_E_FORMAT,
         "post_processor: expected a token and its id"},
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

/* {"model":...,key:{"type":"Sequence",list:[{"type":"Sequence",list:[... */
static radz_status parse_nested(const char *key, const char *list, size_t depth)
{
    rz_str s = {0};
    rz_tokenizer *tok;
    rz_str_printf(&s, AB ",\"%s\":", key);
    for (size_t i = 0; i < depth; i++) rz_str_printf(&s, "{\"type\":\"Sequence\",\"%s\":[", list);
    for (size_t i = 0; i < depth; i++) rz_str_puts(&s, "]}");
    rz_str_puts(&s, "}");
    assert_false(s.failed);
    radz_status status = rz_tokenizer_parse(NULL, (const uint8_t *)s.data, s.len, "deep.json", &tok, &err);
    assert_true(!status == !!tok);
    rz_tokenizer_close(tok);
    rz_str_free(&s);
    return status;
}

static void test_depth(void **state)
{
    static const char *const parts[][2] = {{"normalizer", "normalizers"},
                                           {"pre_tokenizer", "pretokenizers"},
                                           {"decoder", "decoders"},
                                           {"post_processor", "processors"}};
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(parts); i++) {
        ok(parse_nested(parts[i][0], parts[i][1], 3));
        assert_int_equal(parse_nested(parts[i][0], parts[i][1], 100000), RADZ_E_LIMIT);
        assert_non_null(strstr(err.message, "deep.json"));
    }
}

/* ---- Long texts ---- */

static void check_long(const char *file, size_t n, char c)
{
    rz_tokenizer *tok = parse(file);
    char *text = malloc(n);
    int32_t *ids;
    size_t n_ids;
    rz_str back = {0};
    assert_non_null(text);
    memset(text, c, n);
    ok(rz_tokenizer_encode(tok, text, n, &ids, &n_ids, &err));
    assert_true(n_ids >= n / 4 && n_ids <= n / 4 + 1); /* "aaaa" and perhaps a prefix */
    ok(rz_tokenizer_decode(tok, ids, n_ids, &back, &err));
    assert_int_equal(back.len, n);
    assert_memory_equal(back.data, text, n);
    rz_str_free(&back);
    rz_free(NULL, ids);
    free(text);
    rz_tokenizer_close(tok);
}

#define AAAA "\"_\":0,\"a\":1,\"aa\":2,\"aaaa\":3"

/* One word without an end: a search that starts anew at each letter would take hours. */
static void test_one_letter(void **state)
{
    (void)state;
    check_long(
        MODEL(AAAA, "\"a a\",\"aa aa\"") ",\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                                         "\"decoder\":{\"type\":\"ByteLevel\"}}",
        1u << 20, 'a');
    check_long(MODEL(AAAA, "\"a a\",\"aa aa\"") ",\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"_\"},\"decoder\":{"
                                                "\"type\":\"Strip\",\"content\":\"_\",\"start\":1,\"stop\":0}}",
               1u << 20, 'a');
}

/* ---- Memory runs out ---- */

static radz_status open_and_use(const rz_host *host, void *dir)
{
    static const char text[] = "abba <t>  a\xff\xcc\x81 ab";
    rz_tokenizer *tok;
    int32_t *ids = NULL;
    size_t n_ids;
    rz_str s = {.host = host};
    RZ_TRY(rz_tokenizer_open(host, fixture_path(dir, "tokenizer.json"), &tok, &err));
    radz_status status = rz_tokenizer_encode(tok, text, sizeof text - 1, &ids, &n_ids, &err);
    if (!status) status = rz_tokenizer_decode(tok, ids, n_ids, &s, &err);
    rz_free(host, ids);
    rz_str_free(&s);
    rz_tokenizer_close(tok);
    return status;
}

static void test_memory(void **state)
{
    char *dir = fixture_temp_dir();
    (void)state;
    fixture_write_text(fixture_path(dir, "tokenizer.json"), small);
    fixture_write_text(fixture_path(dir, "tokenizer_config.json"), "{\"add_bos_token\":true,\"bos_token\":\"<t>\"}");
    failing_host_try_all(open_and_use, dir);
    fixture_remove(dir);
    free(dir);
}

/* ---- tokenizer_config.json ---- */

static void test_config(void **state)
{
    static const struct {
        const char *text;
        int bos, eos;
        const char *refused;
    } cases[] = {
        {NULL, 2, -1, NULL},
        {"{}", 2, -1, NULL},
        {"{\"add_bos_token\":false}", -1, -1, NULL},
        {"{\"add_bos_token\":true,\"bos_token\":\"b\",\"eos_token\":\"a\"}", 1, 0, NULL},
        {"{\"add_bos_token\":true,\"bos_token\":{\"content\":\"a\"},\"eos_token\":{\"content\":\"none\"}}", 0, -1,
         NULL},
        {"{\"add_bos_token\":true,\"bos_token\":\"none\"}", 0, 0, "bos_token: the tokenizer has no such token"},
        {"{\"add_bos_token\":null,\"model_max_length\":1000000000000000019884624838656}", 2, -1, NULL},
        {"{\"add_bos_token\":1}", 0, 0, "add_bos_token"},
        {"{\"add_bos_token\":", 0, 0, "tokenizer_config.json"},
    };
    static const char file[] =
        "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0,\"b\":1,\"<s>\":2},\"merges\":[]}}";
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        rz_tokenizer *tok;
        const char *dir = scratch_make();
        scratch_write("tokenizer.json", file, sizeof file - 1);
        if (cases[i].text) scratch_write("tokenizer_config.json", cases[i].text, strlen(cases[i].text));
        radz_status status = rz_tokenizer_open(NULL, fixture_path(dir, "tokenizer.json"), &tok, &err);
        if (cases[i].refused) {
            assert_int_equal(status, RADZ_E_FORMAT);
            assert_non_null(strstr(err.message, cases[i].refused));
        } else {
            ok(status);
            assert_int_equal(rz_tokenizer_bos(tok), cases[i].bos);
            assert_int_equal(rz_tokenizer_eos(tok), cases[i].eos);
        }
        rz_tokenizer_close(tok);
        scratch_remove();
    }
}

/* ---- A model that has only a tokenizer.json ---- */

/* The fixture's tokenizer.model in the other format. */
static void write_as_json(const char *from, const char *to)
{
    rz_tokenizer *tok;
    rz_str s = {0};
    ok(rz_tokenizer_open(NULL, from, &tok, &err));
    rz_str_puts(
        &s,
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]},\"model\":{\"type\":\"BPE\","
        "\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,\"merges\":[\"t h\",\"h e\",\"i n\",\"i s\","
        "\"c h\",\"\\u2581 t\",\"\\u2581t he\",\"\\u2581 is\"],\"vocab\":{");
    for (size_t i = 0; i < rz_tokenizer_size(tok); i++) {
        const char *piece = rz_tokenizer_piece(tok, (int32_t)i);
        rz_str_puts(&s, i ? "," : "");
        rz_str_put_json(&s, piece, strlen(piece));
        rz_str_printf(&s, ":%zu", i);
    }
    rz_str_puts(&s, "}}}");
    assert_false(s.failed);
    fixture_write(to, s.data, s.len);
    rz_str_free(&s);
    rz_tokenizer_close(tok);
}

static void embed(const char *dir, float *out)
{
    static const char *const text = "the chest is in No Finding: 12%";
    radz_model *model;
    radz_session *session;
    ok(radz_model_open(NULL, dir, NULL, &model, &err));
    ok(radz_session_open(model, NULL, &session, &err));
    assert_int_equal(radz_embed_dim(model, NULL), 8);
    ok(radz_embed_texts(session, &text, 1, NULL, out, &err));
    radz_session_close(session);
    radz_model_close(model);
}

static void test_model(void **state)
{
    char *dir = fixture_temp_dir();
    float with_model[8], with_json[8];
    (void)state;
    fixture_model(dir, 5);
    embed(dir, with_model);
    write_as_json(fixture_path(dir, "tokenizer.model"), fixture_path(dir, "tokenizer.json"));
    fixture_remove(fixture_path(dir, "tokenizer.model"));
    embed(dir, with_json);
    assert_memory_equal(with_model, with_json, sizeof with_model);
    fixture_remove(dir);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden), cmocka_unit_test(test_bad_files),  cmocka_unit_test(test_damage),
        cmocka_unit_test(test_depth),  cmocka_unit_test(test_one_letter), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_config), cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
