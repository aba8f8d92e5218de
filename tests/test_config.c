/* test_config.c - config.json, preprocessor_config.json and radz.json: defaults, and refusals as data.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "comma_locale.h"
#include "config.h"
#include "scratch.h"

#define DIR_TINY "tests/parity/llava_tiny"

static radz_error err;

static radz_status load(rz_config *cfg)
{
    memset(&err, 0, sizeof err);
    radz_status status = rz_config_load(NULL, scratch_dir(), cfg, &err);
    if (status) assert_int_equal(status, err.code);
    return status;
}

static void load_ok(rz_config *cfg)
{
    if (load(cfg)) fail_msg("%s", err.message);
}

/* ---- The tiny model's own files ---------------------------------------------------------- */

static void test_tiny(void **state)
{
    (void)state;
    rz_config cfg;
    if (rz_config_load(NULL, DIR_TINY, &cfg, &err)) fail_msg("%s", err.message);
    assert_true(cfg.has_vision);
    assert_int_equal(cfg.vision.hidden, 24);
    assert_int_equal(cfg.vision.intermediate, 48);
    assert_int_equal(cfg.vision.layers, 3);
    assert_int_equal(cfg.vision.heads, 4);
    assert_int_equal(cfg.vision.image_size, 32);
    assert_int_equal(cfg.vision.patch, 8);
    assert_int_equal(cfg.vision.act, RZ_ACT_QUICK_GELU);
    assert_int_equal(cfg.text.hidden, 24);
    assert_int_equal(cfg.text.head_dim, 8);
    assert_int_equal(cfg.text.heads, 6);
    assert_int_equal(cfg.text.kv_heads, 2);
    assert_int_equal(cfg.text.window, 0);
    assert_int_equal(cfg.text.max_positions, 256);
    assert_true(cfg.text.rope.theta == 10000.0);
    assert_true(cfg.text.eps == 1e-5f);
    assert_false(cfg.text.tied);
    assert_int_equal(cfg.image_rows, 16);
    assert_int_equal(rz_config_decoder_blocks(&cfg), 3);
    assert_int_equal(rz_config_tower_blocks(&cfg), 2);
    assert_int_equal(cfg.radz.n_image_tokens, 4);
    assert_int_equal(cfg.radz.n_text_tokens, 8);
    assert_int_equal(cfg.radz.gamma, RZ_GAMMA_MLP);
    assert_int_equal(cfg.radz.gamma_hidden, 20);
    assert_int_equal(cfg.radz.dim, 16);
    rz_config_free(&cfg);
    rz_config_free(&cfg);
}

/* ---- One change to the tiny model's files, and the answer ------------------------------------ */

typedef struct change {
    const char *file, *from, *to;
    radz_status status;
    const char *says; /* in the message */
} change;

#define CONFIG "config.json"
#define RADZ "radz.json"
#define PREP "preprocessor_config.json"
#define TEXT_HIDDEN "\"hidden_size\": 24,\n    \"initializer_range\": 0.02,\n    \"intermediate_size\": 40"
#define TEXT_HIDDEN_IS(v) "\"hidden_size\": " v ", \"intermediate_size\": 40"
#define ROPE "\"rope_type\": \"default\""

static const change refused[] = {
    {CONFIG, TEXT_HIDDEN, TEXT_HIDDEN_IS("0"), RADZ_E_FORMAT, "text_config.hidden_size: expected an integer in 1.."},
    {CONFIG, TEXT_HIDDEN, TEXT_HIDDEN_IS("-1"), RADZ_E_FORMAT, "text_config.hidden_size"},
    {CONFIG, TEXT_HIDDEN, TEXT_HIDDEN_IS("2147483648"), RADZ_E_FORMAT, "text_config.hidden_size"},
    {CONFIG, TEXT_HIDDEN, TEXT_HIDDEN_IS("18446744073709551617"), RADZ_E_FORMAT, "config.json"},
    {CONFIG, TEXT_HIDDEN, TEXT_HIDDEN_IS("24.5"), RADZ_E_FORMAT, "text_config.hidden_size"},
    {CONFIG, TEXT_HIDDEN, TEXT_HIDDEN_IS("\"24\""), RADZ_E_FORMAT, "found a string"},
    {CONFIG, TEXT_HIDDEN, TEXT_HIDDEN_IS("NaN"), RADZ_E_FORMAT, "expected valid JSON"},
    {CONFIG, TEXT_HIDDEN, TEXT_HIDDEN_IS("24, \"hidden_size\": 24"), RADZ_E_FORMAT, "expected valid JSON"},
    {CONFIG, "\"head_dim\": 8,", "\"head_dim\": 0,", RADZ_E_FORMAT, "text_config.head_dim"},
    {CONFIG, "\"head_dim\": 8,", "\"head_dim\": 7,", RADZ_E_FORMAT, "head_dim 7: expected an even number in 2..4096"},
    {CONFIG, "\"head_dim\": 8,", "\"head_dim\": 8192,", RADZ_E_FORMAT, "head_dim: expected an integer in 1..4096"},
    {CONFIG, "\"num_attention_heads\": 6", "\"num_attention_heads\": 0", RADZ_E_FORMAT, "num_attention_heads"},
    {CONFIG, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4", RADZ_E_FORMAT,
     "num_attention_heads 6 is no multiple of num_key_value_heads 4"},
    {CONFIG, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 0", RADZ_E_FORMAT, "num_key_value_heads"},
    {CONFIG, "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 1000000000", RADZ_E_FORMAT, "num_hidden_layers"},
    {CONFIG, "\"vocab_size\": 352", "\"vocab_size\": 0", RADZ_E_FORMAT, "vocab_size"},
    {CONFIG, "\"max_position_embeddings\": 256", "\"max_position_embeddings\": -5", RADZ_E_FORMAT,
     "max_position_embeddings"},
    {CONFIG, "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1", RADZ_E_FORMAT, "rms_norm_eps"},
    {CONFIG, "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 1e999", RADZ_E_FORMAT, "config.json"},
    {CONFIG, "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": Infinity", RADZ_E_FORMAT, "expected valid JSON"},
    {CONFIG, "\"rope_theta\": 10000.0", "\"rope_theta\": 0", RADZ_E_FORMAT, "rope_theta"},
    {CONFIG, ROPE, "\"rope_type\": \"yarn\"", RADZ_E_UNSUPPORTED, "'yarn'"},
    {CONFIG, ROPE, "\"rope_type\": 3", RADZ_E_FORMAT, "rope_type"},
    {CONFIG, "\"sliding_window\": null", "\"rope_scaling\": {\"type\": \"longrope\", \"factor\": 2.0}",
     RADZ_E_UNSUPPORTED, "'longrope'"},
    {CONFIG, ROPE, "\"rope_type\": \"linear\"", RADZ_E_FORMAT, "rope_parameters: factor is missing"},
    {CONFIG, ROPE, "\"rope_type\": \"dynamic\", \"factor\": -2", RADZ_E_FORMAT, "factor"},
    {CONFIG, ROPE, "\"rope_type\": \"llama3\", \"factor\": 8", RADZ_E_FORMAT, "low_freq_factor is missing"},
    {CONFIG, ROPE, "\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4",
     RADZ_E_FORMAT, "low_freq_factor: expected less"},
    {CONFIG, ROPE, "\"partial_rotary_factor\": 0.5", RADZ_E_UNSUPPORTED, "partial_rotary_factor"},
    {CONFIG, "\"sliding_window\": null", "\"sliding_window\": 0", RADZ_E_FORMAT, "sliding_window"},
    {CONFIG, "\"hidden_act\": \"silu\"", "\"hidden_act\": \"mish\"", RADZ_E_UNSUPPORTED, "'mish'"},
    {CONFIG, "\"hidden_act\": \"quick_gelu\"", "\"hidden_act\": \"gelu_10\"", RADZ_E_UNSUPPORTED, "'gelu_10'"},
    {CONFIG, "\"model_type\": \"mistral\"", "\"model_type\": \"qwen2\"", RADZ_E_UNSUPPORTED, "'qwen2'"},
    {CONFIG, "\"model_type\": \"llava\"", "\"model_type\": \"bert\"", RADZ_E_UNSUPPORTED, "'bert'"},
    {CONFIG, "\"model_type\": \"llava\"", "\"other\": 1", RADZ_E_FORMAT, "model_type is missing"},
    {CONFIG, "\"model_type\": \"clip_vision_model\"", "\"model_type\": \"siglip_vision_model\"", RADZ_E_UNSUPPORTED,
     "'siglip_vision_model'"},
    {CONFIG, "\"patch_size\": 8", "\"patch_size\": 0", RADZ_E_FORMAT, "patch_size"},
    {CONFIG, "\"patch_size\": 8", "\"patch_size\": 33", RADZ_E_FORMAT, "patch_size 33 is larger than image_size 32"},
    {CONFIG, "\"image_size\": 32", "\"image_size\": 1000000000", RADZ_E_FORMAT, "image_size"},
    {CONFIG, "\"num_channels\": 3", "\"num_channels\": 1", RADZ_E_FORMAT, "num_channels"},
    {CONFIG, "\"num_attention_heads\": 4", "\"num_attention_heads\": 5", RADZ_E_FORMAT,
     "hidden_size 24 is no multiple of num_attention_heads 5"},
    {CONFIG, "\"vision_feature_layer\": -2", "\"vision_feature_layer\": -5", RADZ_E_FORMAT, "vision_feature_layer"},
    {CONFIG, "\"vision_feature_layer\": -2", "\"vision_feature_layer\": 4", RADZ_E_FORMAT, "vision_feature_layer"},
    {CONFIG, "\"vision_feature_layer\": -2", "\"vision_feature_layer\": [-2, -5]", RADZ_E_FORMAT,
     "vision_feature_layer: expected integers in -4..3"},
    {CONFIG, "\"vision_feature_layer\": -2", "\"vision_feature_layer\": []", RADZ_E_FORMAT, "expected 1 to 64 layers"},
    {CONFIG, "\"vision_feature_layer\": -2", "\"vision_feature_layer\": [\"last\"]", RADZ_E_FORMAT,
     "vision_feature_layer"},
    {CONFIG, "\"default\"\n}", "\"cls\"\n}", RADZ_E_UNSUPPORTED, "'cls'"},
    {CONFIG, "\"model_type\": \"llava\"", "\"model_type\": \"llava\", \"image_aspect_ratio\": \"anyres\"",
     RADZ_E_UNSUPPORTED, "image_aspect_ratio 'anyres'"},
    {CONFIG, "\"projector_hidden_act\": \"gelu\"", "\"projector_hidden_act\": 1", RADZ_E_FORMAT,
     "projector_hidden_act"},
    {CONFIG, "\"vision_config\": {", "\"vision_config\": 7, \"other\": {", RADZ_E_FORMAT, "vision_config"},
    {CONFIG, "\"text_config\": {", "\"text_config\": [], \"other\": {", RADZ_E_FORMAT, "text_config"},
    {CONFIG, "{\n  \"arch", "\xef\xbb\xbf{\n  \"arch", RADZ_E_FORMAT, "byte-order mark"},
    {CONFIG, "{\n  \"arch", "[\n  \"arch", RADZ_E_FORMAT, "config.json"},
    {RADZ, "radz.model/1", "radz.model/2", RADZ_E_UNSUPPORTED, "'radz.model/2'"},
    {RADZ, "\"layer\": -2", "\"layer\": -1", RADZ_E_UNSUPPORTED, "after the final norm"},
    {RADZ, "\"layer\": -2", "\"layer\": 4", RADZ_E_UNSUPPORTED, "after the final norm"},
    {RADZ, "\"layer\": -2", "\"layer\": -6", RADZ_E_FORMAT, "layer"},
    {RADZ, "\"type\": \"mlp\"", "\"type\": \"conv\"", RADZ_E_UNSUPPORTED, "'conv'"},
    {RADZ, "\"dim\": 16", "\"dim\": 0", RADZ_E_FORMAT, "dim"},
    {RADZ, "\"mean_then_mlp\"", "\"last\"", RADZ_E_UNSUPPORTED, "'last'"},
    {RADZ, "\"tau\": 0.05", "\"tau\": 0", RADZ_E_FORMAT, "tau"},
    {RADZ, "\"lambda\": 0.5", "\"lambda\": 1.5", RADZ_E_FORMAT, "lambda"},
    {RADZ, "<image>", "<picture>", RADZ_E_FORMAT, "<image>"},
    {RADZ, "<image>", "<image><image>", RADZ_E_FORMAT, "<image>"},
    {RADZ, "{text}", "", RADZ_E_FORMAT, "{text}"},
    {RADZ, "{labels}", "", RADZ_E_FORMAT, "{labels}"},
    {RADZ, "\"special_tokens\": {", "\"special_tokens\": 4, \"other\": {", RADZ_E_FORMAT, "special_tokens"},
    {RADZ, "\"prompts\": {", "\"prompts\": \"x\", \"other\": {", RADZ_E_FORMAT, "prompts"},
    {PREP, "\"resample\": 3", "\"resample\": 2", RADZ_E_UNSUPPORTED, "resample"},
    {PREP, "\"shortest_edge\": 32", "\"shortest_edge\": 0", RADZ_E_FORMAT, "shortest_edge"},
    {PREP, "\"shortest_edge\": 32", "\"longest_edge\": 32", RADZ_E_FORMAT, "shortest_edge"},
    {PREP, "\"shortest_edge\": 32", "\"shortest_edge\": 31", RADZ_E_UNSUPPORTED, "shortest_edge 31"},
    {PREP, "\"height\": 32", "\"height\": 31", RADZ_E_MISMATCH, "the tower takes 32 x 32"},
    {PREP, "0.48145466", "null", RADZ_E_FORMAT, "image_mean: expected three numbers"},
    {PREP, "0.26862954", "0", RADZ_E_FORMAT, "image_std"},
};

static void test_refused(void **state)
{
    (void)state;
    static const char *const files[] = {CONFIG, RADZ, PREP};
    for (size_t i = 0; i < RZ_COUNT(refused); i++) {
        const change *c = &refused[i];
        rz_config cfg;
        scratch_make();
        for (size_t f = 0; f < RZ_COUNT(files); f++) {
            bool changed = !strcmp(files[f], c->file);
            scratch_copy(DIR_TINY, files[f], changed ? c->from : NULL, c->to);
        }
        radz_status status = load(&cfg);
        if (status != c->status || !strstr(err.message, c->says) || !strstr(err.message, c->file))
            fail_msg("case %zu (%s): status %d '%s', expected %d '%s'", i, c->to, (int)status, err.message,
                     (int)c->status, c->says);
        assert_null(cfg.radz.image_prompt);
        scratch_remove();
    }
}

/* ---- Whole files -------------------------------------------------------------------------------- */

static void put(const char *name, const char *text)
{
    scratch_write(name, text, strlen(text));
}

/* Only what has no default is written: the rest is transformers' (LlamaConfig, MistralConfig, CLIPVisionConfig). */
static void test_defaults_llava(void **state)
{
    (void)state;
    rz_config cfg;
    scratch_make();
    put(CONFIG, "{\"model_type\": \"llava\", \"text_config\": {}}");
    load_ok(&cfg);
    assert_int_equal(cfg.text.hidden, 4096);
    assert_int_equal(cfg.text.intermediate, 11008);
    assert_int_equal(cfg.text.kv_heads, 32);
    assert_int_equal(cfg.text.head_dim, 128);
    assert_int_equal(cfg.text.max_positions, 2048);
    assert_true(cfg.text.eps == 1e-6f && cfg.text.rope.theta == 1e4);
    assert_int_equal(cfg.vision.hidden, 1024); /* LLaVA's own default tower */
    assert_int_equal(cfg.vision.layers, 24);
    assert_int_equal(cfg.image_rows, 576);
    assert_int_equal(cfg.preprocess.shortest_edge, 336);
    assert_int_equal(cfg.n_feature_layers, 1);
    assert_int_equal(cfg.feature_layers[0], -2);
    assert_true(cfg.projector_bias);
    assert_int_equal(cfg.radz.n_image_tokens, 0); /* no radz.json */
    rz_config_free(&cfg);
    put(CONFIG, "{\"model_type\": \"llava\", \"vision_config\": {}, \"text_config\": {\"model_type\": \"mistral\"},"
                " \"vision_feature_select_strategy\": \"full\"}");
    load_ok(&cfg);
    assert_int_equal(cfg.text.intermediate, 14336);
    assert_int_equal(cfg.text.kv_heads, 8);
    assert_int_equal(cfg.text.window, 4096);
    assert_int_equal(cfg.text.max_positions, 131072);
    assert_int_equal(cfg.vision.hidden, 768);
    assert_int_equal(cfg.image_rows, 7 * 7 + 1);
    rz_config_free(&cfg);
    scratch_remove();
}

/* LLaVA-Med v1.5 as its authors publish it (models.md's numbers), with no vision_config. */
static void test_original(void **state)
{
    (void)state;
    rz_config cfg;
    scratch_make();
    put(CONFIG, "{\"architectures\": [\"LlavaMistralForCausalLM\"], \"model_type\": \"llava_mistral\","
                "\"hidden_size\": 4096, \"intermediate_size\": 14336, \"num_hidden_layers\": 32,"
                "\"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"vocab_size\": 32000,"
                "\"rms_norm_eps\": 1e-05, \"rope_theta\": 1000000.0, \"sliding_window\": null,"
                "\"max_position_embeddings\": 32768, \"hidden_act\": \"silu\", \"tie_word_embeddings\": false,"
                "\"mm_vision_tower\": \"openai/clip-vit-large-patch14-336\", \"mm_projector_type\": \"mlp2x_gelu\","
                "\"mm_hidden_size\": 1024, \"mm_vision_select_layer\": -2, \"mm_vision_select_feature\": \"patch\","
                "\"image_aspect_ratio\": \"pad\"}");
    load_ok(&cfg);
    assert_true(cfg.has_vision && cfg.preprocess.pad_to_square && !cfg.keep_class_row);
    assert_int_equal(cfg.vision.hidden, 1024);
    assert_int_equal(cfg.image_rows, 576);
    assert_int_equal(cfg.text.window, 0);
    assert_true(cfg.text.rope.theta == 1e6);
    assert_int_equal(rz_config_tower_blocks(&cfg), 23);
    rz_config_free(&cfg);
    scratch_remove();
}

static void test_text_only(void **state)
{
    (void)state;
    rz_config cfg;
    scratch_make();
    put(CONFIG, "{\"model_type\": \"llama\", \"hidden_size\": 64, \"num_attention_heads\": 8,"
                "\"num_key_value_heads\": null, \"rope_scaling\": null, \"tie_word_embeddings\": true}");
    load_ok(&cfg);
    assert_false(cfg.has_vision);
    assert_true(cfg.text.tied);
    assert_int_equal(cfg.text.kv_heads, 8);
    assert_int_equal(cfg.text.head_dim, 8);
    rz_config_free(&cfg);
    put(CONFIG, "{\"model_type\": \"llama\", \"hidden_size\": 64, \"num_attention_heads\": 6}");
    assert_int_equal(load(&cfg), RADZ_E_FORMAT);
    assert_non_null(strstr(err.message, "hidden_size 64 is no multiple of num_attention_heads 6"));
    put(CONFIG, "{\"model_type\": \"llama\", \"hidden_size\": 1048576, \"num_attention_heads\": 1}");
    assert_int_equal(load(&cfg), RADZ_E_FORMAT);
    assert_non_null(strstr(err.message, "head_dim 1048576: expected an even number in 2..4096"));
    /* A window, Mistral's None for kv heads, old and new places of rope_theta */
    put(CONFIG, "{\"model_type\": \"mistral\", \"num_key_value_heads\": null, \"sliding_window\": 128,"
                "\"rope_theta\": 500000}");
    load_ok(&cfg);
    assert_int_equal(cfg.text.kv_heads, 32);
    assert_int_equal(cfg.text.window, 128);
    assert_true(cfg.text.rope.theta == 5e5);
    rz_config_free(&cfg);
    scratch_remove();
}

/* transformers ties when either of the two says so. */
static void test_tied(void **state)
{
    (void)state;
    rz_config cfg;
    for (int i = 0; i < 4; i++) {
        rz_str s = {0};
        rz_str_printf(&s, "{\"model_type\": \"llava\", \"tie_word_embeddings\": %s, ", i & 1 ? "true" : "false");
        rz_str_printf(&s, "\"text_config\": {\"tie_word_embeddings\": %s}}", i & 2 ? "true" : "false");
        scratch_make();
        put(CONFIG, s.data);
        load_ok(&cfg);
        assert_int_equal(cfg.text.tied, i != 0);
        rz_config_free(&cfg);
        scratch_remove();
        rz_str_free(&s);
    }
}

/* radz.json with the least it can hold; everything else is the paper's. */
static void test_radz_defaults(void **state)
{
    (void)state;
    rz_config cfg;
    scratch_make();
    scratch_copy(DIR_TINY, CONFIG, NULL, NULL);
    put(RADZ, "{\"schema\": \"radz.model/1\", \"special_tokens\": {\"image\": [\"<I>\"], \"text\": [\"<T>\"]}}");
    load_ok(&cfg);
    assert_int_equal(cfg.radz.layer, -2);
    assert_int_equal(cfg.radz.gamma, RZ_GAMMA_IDENTITY);
    assert_int_equal(cfg.radz.dim, 24);
    assert_false(cfg.radz.mlp_then_mean);
    assert_true(cfg.radz.tau == 0.05 && cfg.radz.lambda == 0.5);
    assert_string_equal(cfg.radz.text_prompt, "{text}\nWhat disease is described in this text?");
    rz_config_free(&cfg);
    scratch_remove();
}

/* What transformers 5 saves of a LlavaProcessor: in one file, which goes before the older one where both are there. */
static void test_processor(void **state)
{
    (void)state;
    rz_config cfg;
    scratch_make();
    scratch_copy(DIR_TINY, CONFIG, NULL, NULL);
    put("processor_config.json",
        "{\"image_processor\": {\"size\": {\"shortest_edge\": 40}, \"image_mean\": [0.5, 0.25, 0],"
        "\"image_std\": [1, 2, 3]}, \"patch_size\": 8, \"processor_class\": \"LlavaProcessor\"}");
    for (int both = 0; both < 2; both++) {
        if (both) scratch_copy(DIR_TINY, PREP, NULL, NULL);
        load_ok(&cfg);
        assert_int_equal(cfg.preprocess.shortest_edge, 40);
        assert_true(cfg.preprocess.mean[1] == 0.25f && cfg.preprocess.std[2] == 3.0f);
        rz_config_free(&cfg);
    }
    put("processor_config.json", "{\"image_processor\": null, \"patch_size\": 8}"); /* transformers 4 */
    load_ok(&cfg);
    assert_int_equal(cfg.preprocess.shortest_edge, 32);
    rz_config_free(&cfg);
    put("processor_config.json", "{\"image_processor\": {\"resample\": 2}}");
    assert_int_equal(load(&cfg), RADZ_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "processor_config.json: image_processor: resample 2 is not supported"));
    put("processor_config.json", "{\"image_processor\": 3}");
    assert_int_equal(load(&cfg), RADZ_E_FORMAT);
    assert_non_null(strstr(err.message, "processor_config.json: image_processor: expected an object"));
    scratch_remove();
}

static void test_whole_files(void **state)
{
    (void)state;
    rz_config cfg;
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "null",
                                      "[]",
                                      "3",
                                      "{}",
                                      "\"model_type\"",
                                      "{\"model_type\": 1}",
                                      "{\"model_type\": \"llava\"} x",
                                      "{'model_type': 'llava'}"};
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        scratch_make();
        put(CONFIG, bad[i]);
        if (load(&cfg) != RADZ_E_FORMAT || !strstr(err.message, CONFIG)) fail_msg("case %zu: %s", i, err.message);
        scratch_remove();
    }
    scratch_make();
    assert_int_equal(load(&cfg), RADZ_E_IO); /* no config.json */
    assert_non_null(strstr(err.message, CONFIG));
    rz_str deep = {0};
    for (int i = 0; i < 100000; i++) rz_str_puts(&deep, "{\"a\":");
    put(CONFIG, deep.data);
    assert_int_equal(load(&cfg), RADZ_E_LIMIT);
    rz_str_free(&deep);
    scratch_remove();
}

/* The same bits whatever the host's locale: ',' as decimal point must not matter. */
static void test_locale(void **state)
{
    (void)state;
    rz_config cfg;
    if (!comma_locale_enter()) skip();
    scratch_make();
    put(CONFIG, "{\"model_type\": \"llama\", \"rms_norm_eps\": 1e-06, \"rope_theta\": 12345.5}");
    radz_status status = load(&cfg);
    comma_locale_leave();
    assert_int_equal(status, RADZ_OK);
    assert_true(cfg.text.eps == 1e-6f);
    assert_true(cfg.text.rope.theta == 12345.5);
    rz_config_free(&cfg);
    scratch_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),          cmocka_unit_test(test_refused),   cmocka_unit_test(test_defaults_llava),
        cmocka_unit_test(test_original),      cmocka_unit_test(test_text_only), cmocka_unit_test(test_tied),
        cmocka_unit_test(test_radz_defaults), cmocka_unit_test(test_processor), cmocka_unit_test(test_whole_files),
        cmocka_unit_test(test_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
