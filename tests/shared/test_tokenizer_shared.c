/* test_tokenizer_shared.c - the goldens of others, which do not lie in this repository: mistral-common's sample
 * conversation and ggml's vectors for LLaMA-2. SHARED names the folder, ../shared by default.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "fixture.h"
#include "formats.h"

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

static const char *in_shared(const char *name)
{
    const char *root = getenv("SHARED");
    return fixture_path(root ? root : "../shared", fixture_path("data/tokenizers", name));
}

/* ids[*at..] must begin with the ids of text, then `end` unless it is -1; *at moves past them. */
static void check_chunk(const rz_tokenizer *tok, const char *text, int32_t end, const json_t *ids, size_t *at)
{
    int32_t *got;
    size_t n;
    ok(rz_tokenizer_encode(tok, text, strlen(text), &got, &n, &err));
    for (size_t i = 0; i < n; i++) assert_int_equal(got[i], json_integer_value(json_array_get(ids, (*at)++)));
    if (end >= 0) assert_int_equal(end, json_integer_value(json_array_get(ids, (*at)++)));
    rz_free(NULL, got);
}

static void test_mistral_conversation(void **state)
{
    rz_tokenizer *tok;
    json_t *sample, *tokens, *message;
    size_t i, at = 1;
    (void)state;
    ok(rz_tokenizer_open(NULL, in_shared("mistral_v1_tokenizer.model"), &tok, &err));
    ok(rz_json_load(NULL, in_shared("mistral_v1_golden/no_tools__sample.json"), 1 << 20, &sample, &err));
    ok(rz_json_load(NULL, in_shared("mistral_v1_golden/no_tools__tokens_v1.json"), 1 << 20, &tokens, &err));
    const json_t *ids = json_object_get(tokens, "tokens");
    assert_int_equal(rz_tokenizer_bos(tok), json_integer_value(json_array_get(ids, 0)));
    json_array_foreach(json_object_get(sample, "messages"), i, message)
    {
        rz_str s = {0};
        bool user = strcmp(json_string_value(json_object_get(message, "role")), "user") == 0;
        rz_str_printf(&s, user ? "[INST] %s [/INST]" : "%s", json_string_value(json_object_get(message, "content")));
        check_chunk(tok, s.data, user ? -1 : rz_tokenizer_eos(tok), ids, &at);
        rz_str_free(&s);
    }
    assert_int_equal(at, json_array_size(ids));
    json_decref(sample);
    json_decref(tokens);
    rz_tokenizer_close(tok);
}

static void check_llama2_vectors(const char *name)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    rz_tokenizer *tok;
    size_t checked = 0;
    ok(rz_tokenizer_open(NULL, in_shared(name), &tok, &err));
    char *in = fixture_read(in_shared("ggml-vocab-llama-spm.gguf.inp"), NULL);
    char *out = fixture_read(in_shared("ggml-vocab-llama-spm.gguf.out"), NULL);
    char *want = out;
    for (char *text = in, *end; (end = strstr(text, separator)); text = end + sizeof separator - 1) {
        int32_t *ids;
        size_t n;
        ok(rz_tokenizer_encode(tok, text, (size_t)(end - text), &ids, &n, &err));
        for (size_t i = 0; i < n; i++) assert_int_equal(ids[i], strtol(want, &want, 10));
        while (*want == ' ') want++;
        if (*want != '\n') fail_msg("text %zu: more ids are expected than %zu", checked, n);
        want++;
        rz_free(NULL, ids);
        checked++;
    }
    assert_int_equal(checked, 46);
    free(in);
    free(out);
    rz_tokenizer_close(tok);
}

static void test_llama2_model(void **state)
{
    (void)state;
    check_llama2_vectors("llama2_tokenizer.model");
}

static void test_llama2_json(void **state)
{
    (void)state;
    check_llama2_vectors("llama2_hf_tokenizer.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistral_conversation),
        cmocka_unit_test(test_llama2_model),
        cmocka_unit_test(test_llama2_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
