/* test_adapter.c - regular expressions, adapters that are refused, where a vision tower comes from.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "failing_host.h"
#include "model.h"
#include "regex.h"
#include "scratch.h"

#define ROOT "tests/parity/variants/"
#define ADAPTER ROOT "lora_base/list"

static radz_error err;

/* ---- Regular expressions: the answers are those of Python's re ------------------------------ */

static void test_regex(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool whole, part;
    } cases[] = {
        {"q_proj", "model.layers.0.q_proj", false, true},
        {".*q_proj", "model.layers.0.q_proj", true, true},
        {"q_proj|v_proj", "x.v_proj", false, true},
        {"layers\\.[02]\\.mlp", "a.layers.2.mlp", false, true},
        {"layers\\.[02]\\.mlp", "a.layers.1.mlp", false, false},
        {"(a|b)+\\d{2,3}", "abba12", true, true},
        {"(a|b)+\\d{2,3}", "abba1234", false, false},
        {"(?:x{2}){1,2}?", "xxxx", true, true},
        {"(?:x{2}){1,2}?", "xxx", false, false},
        {"(?P<n>[^.]*)\\.w", "abc.w", true, true},
        {"^a$", "a", true, true},
        {"^b", "a.b", false, false},
        {"\\bb", "a.b", false, true},
        {"[a-c\\]]*", "ab]c", true, true},
        {"a{,2}", "aa", true, true},
        {"a{x}", "a{x}", true, true},
        {"", "", true, true},
        {"(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false, false},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++)
        for (int part = 0; part < 2; part++) {
            bool got = false;
            const char *t = cases[i].text;
            uint64_t steps = 10000;
            assert_int_equal(rz_regex_match(NULL, cases[i].pattern, t, strlen(t), part, &steps, &got, &err), RADZ_OK);
            assert_true(steps > 0 && steps < 10000);
            if (got != (part ? cases[i].part : cases[i].whole)) fail_msg("'%s' on '%s'", cases[i].pattern, t);
        }
}

static void test_regex_refused(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        radz_status status;
    } cases[] = {{"(a", RADZ_E_FORMAT},
                 {"a)", RADZ_E_FORMAT},
                 {"[a", RADZ_E_FORMAT},
                 {"*a", RADZ_E_FORMAT},
                 {"a\\", RADZ_E_FORMAT},
                 {"a{3,2}", RADZ_E_FORMAT},
                 {"(?!a)b", RADZ_E_UNSUPPORTED},
                 {"(a)\\1", RADZ_E_UNSUPPORTED},
                 {"(?i)a", RADZ_E_UNSUPPORTED},
                 {"a{2000}", RADZ_E_LIMIT},
                 {"((a{900}){900}){900}", RADZ_E_LIMIT}};
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        bool got = true;
        uint64_t steps = 10000;
        radz_status status = rz_regex_match(NULL, cases[i].pattern, "a", 1, false, &steps, &got, &err);
        if (status != cases[i].status || got) fail_msg("'%s': %d %s", cases[i].pattern, (int)status, err.message);
    }
}

/* ---- Adapters ---------------------------------------------------------------------------------- */

static radz_status load(const char *base, const char *adapter, const char *vision, rz_tower_source tower, char hash[65])
{
    rz_source source = {.dir = base, .adapter_dir = adapter, .vision_dir = vision, .tower = tower};
    rz_model *m = NULL;
    radz_status status = rz_model_load_from(NULL, scratch_device, &source, RZ_MODEL_READ, 0, &m, &err);
    if (hash && m) memcpy(hash, m->hash, 65);
    assert_true((m != NULL) == (status == RADZ_OK));
    rz_model_unload(m);
    return status;
}

static void test_adapter_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        radz_status status;
        const char *says;
    } cases[] = {
        {"\"use_dora\": false", "\"use_dora\": true", RADZ_E_UNSUPPORTED, "use_dora is not supported"},
        {"\"use_dora\": false", "\"some_day\": 3", RADZ_E_UNSUPPORTED, "some_day is not supported"},
        {"\"use_dora\": false", "\"some_day\": null", RADZ_OK, ""},
        {"\"lora_bias\": false", "\"lora_bias\": true", RADZ_E_UNSUPPORTED, "lora_bias"},
        {"\"layer_replication\": null", "\"layer_replication\": [[0, 1]]", RADZ_E_UNSUPPORTED, "layer_replication"},
        {"\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa\"", RADZ_E_UNSUPPORTED, "'pissa'"},
        {"\"peft_type\": \"LORA\"", "\"peft_type\": \"IA3\"", RADZ_E_UNSUPPORTED, "'IA3'"},
        {"\"bias\": \"none\"", "\"bias\": \"some\"", RADZ_E_UNSUPPORTED, "'some'"},
        {"\"r\": 4", "\"r\": 5", RADZ_E_MISMATCH, "does not fit rank 5"},
        {"\"r\": 4", "\"r\": \"4\"", RADZ_E_FORMAT, "r: expected"},
        {"\"alpha_pattern\": {}", "\"alpha_pattern\": {\"q_(\": 3}", RADZ_E_FORMAT, "expected ')'"},
        {"\"q_proj\"", "\"gate_proj\"", RADZ_OK, ""}, /* tensors of q_proj are then not used, as in peft */
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        scratch_make();
        scratch_copy(ADAPTER, "adapter_model.safetensors", NULL, NULL);
        scratch_copy(ADAPTER, "adapter_config.json", cases[i].from, cases[i].to);
        radz_status status = load(ROOT "lora_base", scratch_dir(), NULL, RZ_TOWER_AUTO, NULL);
        if (status != cases[i].status || (status && !strstr(err.message, cases[i].says)))
            fail_msg("%s: status %d '%s'", cases[i].to, (int)status, err.message);
        scratch_remove();
    }
}

/* "KEY": OLD becomes n patterns, each of which costs as much as one may, or a list of n names. */
static radz_status load_many(const char *old, const char *key, size_t n, bool list)
{
    const size_t room = n * 3100 + 100;
    char *text = malloc(room), *at = text;
    assert_non_null(text);
    at += sprintf(at, "\"%s\": %c", key, list ? '[' : '{');
    for (size_t i = 0; i < n && list; i++) at += sprintf(at, "%s%s", i ? "," : "", i % 2 ? "\"a\"" : "\"q_proj\"");
    for (size_t i = 0; i < n && !list; i++) {
        at += sprintf(at, "%s\"%zu|", i ? "," : "", i);
        for (size_t k = 0; k < 1000; k++) at += sprintf(at, ".*");
        at += sprintf(at, "!\": 3");
    }
    sprintf(at, "%c", list ? ']' : '}');
    scratch_make();
    scratch_copy(ADAPTER, "adapter_model.safetensors", NULL, NULL);
    scratch_copy(ADAPTER, "adapter_config.json", old, text);
    free(text);
    radz_status status = load(ROOT "lora_base", scratch_dir(), NULL, RZ_TOWER_AUTO, NULL);
    scratch_remove();
    return status;
}

/* The product of patterns, modules and the patterns' own length is bounded, not only each. */
static void test_adapter_of_much_work(void **state)
{
    (void)state;
    assert_int_equal(load_many("\"rank_pattern\": {}", "rank_pattern", 1, false), RADZ_OK);
    assert_int_equal(load_many("\"rank_pattern\": {}", "rank_pattern", 1000, false), RADZ_E_LIMIT);
    assert_non_null(strstr(err.message, "too much work"));
    assert_int_equal(load_many("\"rank_pattern\": {}", "rank_pattern", 1025, false), RADZ_E_LIMIT);
    assert_non_null(strstr(err.message, "more than 1024 patterns"));
    assert_int_equal(load_many("\"exclude_modules\": null", "exclude_modules", 1, true), RADZ_OK);
}

static void test_adapter_of_another(void **state)
{
    (void)state;
    assert_int_equal(load(ROOT "lora_text", ADAPTER, NULL, RZ_TOWER_AUTO, NULL), RADZ_E_MISMATCH);
    const char *first =
        strstr(err.message, " tensors belong to no part of the model: 'base_model.model.model.vision_tower.");
    assert_non_null(first); /* as many names as fit on the line */
    assert_non_null(strstr(first, "', 'base_model.model.model.vision_tower."));
    assert_non_null(strstr(first, " more"));
    assert_int_equal(load(ROOT "lora_base", ROOT "nothing", NULL, RZ_TOWER_AUTO, NULL), RADZ_E_IO);
    assert_non_null(strstr(err.message, "adapter_config.json"));
}

static void test_hash(void **state)
{
    (void)state;
    char plain[65], with[65], other[65];
    assert_int_equal(load(ROOT "lora_base", NULL, NULL, RZ_TOWER_AUTO, plain), RADZ_OK);
    assert_int_equal(load(ROOT "lora_base", ADAPTER, NULL, RZ_TOWER_AUTO, with), RADZ_OK);
    assert_int_equal(load(ROOT "lora_base", NULL, ROOT "external/vision_tower", RZ_TOWER_AUTO, other), RADZ_OK);
    assert_string_not_equal(plain, with);
    assert_string_not_equal(plain, other);
}

/* ---- Towers -------------------------------------------------------------------------------------- */

static void test_tower(void **state)
{
    (void)state;
    const char *tower = ROOT "external/vision_tower";
    char a[65], b[65];
    assert_int_equal(load(ROOT "external", NULL, NULL, RZ_TOWER_EXTERNAL, a), RADZ_OK);
    assert_int_equal(load(ROOT "external", NULL, tower, RZ_TOWER_AUTO, b), RADZ_OK);
    assert_string_equal(a, b);
    /* Asked for what is not there */
    assert_int_equal(load(ROOT "external", NULL, NULL, RZ_TOWER_CHECKPOINT, NULL), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, ".class_embedding', '"));
    assert_int_equal(load(ROOT "lora_base", NULL, NULL, RZ_TOWER_EXTERNAL, NULL), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "/vision_tower, or give"));
    assert_int_equal(load(ROOT "lora_text", NULL, tower, RZ_TOWER_AUTO, NULL), RADZ_E_ARGUMENT);
    assert_int_equal(load(ROOT "external", NULL, ROOT "lora_text", RZ_TOWER_AUTO, NULL), RADZ_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "'llama'"));
    /* A name leads nowhere but into the model's directory */
    scratch_make();
    scratch_copy(ROOT "external", "model.safetensors", NULL, NULL);
    scratch_copy(ROOT "external", "config.json", "openai/clip-vit-large-patch14-336",
                 "../tests/parity/variants/external/vision_tower");
    assert_int_equal(load(scratch_dir(), NULL, NULL, RZ_TOWER_AUTO, NULL), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "no vision tower: put config.json"));
    scratch_remove();
}

/* The authors' layout has a name for its tower and no sizes: they come from the tensors (test_variants: the numbers).
 */
static void test_undescribed_tower(void **state)
{
    (void)state;
    const char *model = ROOT "undescribed";
    char inside[65], beside[65];
    assert_int_equal(load(model, NULL, NULL, RZ_TOWER_AUTO, inside), RADZ_OK);
    scratch_make(); /* a tower without config.json */
    scratch_copy(model, "model.safetensors", NULL, NULL);
    assert_int_equal(load(model, NULL, scratch_dir(), RZ_TOWER_AUTO, beside), RADZ_OK);
    assert_string_not_equal(inside, beside);
    scratch_remove();
    scratch_make(); /* 16 columns are no whole number of CLIP's heads */
    scratch_copy(ROOT "external/vision_tower", "model.safetensors", NULL, NULL);
    assert_int_equal(load(ROOT "external", NULL, scratch_dir(), RZ_TOWER_AUTO, NULL), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "16 wide is no multiple of CLIP's 64 per head"));
    scratch_copy(ROOT "text_mistral", "model.safetensors", NULL, NULL); /* no tower at all */
    assert_int_equal(load(ROOT "external", NULL, scratch_dir(), RZ_TOWER_AUTO, NULL), RADZ_E_IO);
    scratch_remove();
}

/* ---- Memory runs out --------------------------------------------------------------------------------- */

static radz_status load_with(const rz_host *host, void *arg)
{
    rz_model *m = NULL;
    radz_status status = rz_model_load_from(host, scratch_device, arg, RZ_MODEL_READ, 0, &m, &err);
    rz_model_unload(m);
    return status;
}

static void test_memory(void **state)
{
    (void)state;
    failing_host_try_all(load_with, &(rz_source){.dir = ROOT "lora_text", .adapter_dir = ROOT "lora_text/layers"});
    failing_host_try_all(load_with, &(rz_source){.dir = ROOT "external_clip"});
    failing_host_try_all(load_with, &(rz_source){.dir = ROOT "undescribed"});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_regex),
                                       cmocka_unit_test(test_regex_refused),
                                       cmocka_unit_test(test_adapter_refused),
                                       cmocka_unit_test(test_adapter_of_much_work),
                                       cmocka_unit_test(test_adapter_of_another),
                                       cmocka_unit_test(test_hash),
                                       cmocka_unit_test(test_tower),
                                       cmocka_unit_test(test_undescribed_tower),
                                       cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, scratch_open_device, scratch_close_device);
}
