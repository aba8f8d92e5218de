/* test_weights.c - weight files that do not fit the configuration or each other.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "encode.h"
#include "failing_host.h"
#include "fixture.h"
#include "scratch.h"

#define DIR_TINY "tests/parity/llava_tiny"

static radz_error err;

static void copy_all(const char *but)
{
    static const char *const files[] = {"config.json",      "preprocessor_config.json", "radz.json",
                                        "radz.safetensors", "tokenizer.model",          "model.safetensors"};
    scratch_make();
    for (size_t i = 0; i < RZ_COUNT(files); i++)
        if (strcmp(files[i], but)) scratch_copy(DIR_TINY, files[i], NULL, NULL);
}

/* Loading must fail so, in every mode that reads weights. */
static void refused(radz_status status, const char *says)
{
    for (int mode = RZ_MODEL_INFER; mode <= RZ_MODEL_TRAIN; mode++) {
        rz_model *m = (rz_model *)&err;
        radz_status got = rz_model_load(NULL, scratch_device, scratch_dir(), (rz_model_mode)mode, 0, &m, &err);
        assert_null(m);
        if (got != status || !strstr(err.message, says))
            fail_msg("status %d '%s', expected %d '%s'", (int)got, err.message, (int)status, says);
    }
}

static void refused_to_train(radz_status status, const char *says)
{
    rz_model *m = (rz_model *)&err;
    const rz_train_setup setup = {.decoder = true};
    const radz_status got =
        rz_model_load_train(NULL, scratch_device, &(rz_source){.dir = scratch_dir()}, &setup, 0, &m, &err);
    assert_null(m);
    if (got != status || !strstr(err.message, says))
        fail_msg("status %d '%s', expected %d '%s'", (int)got, err.message, (int)status, says);
}

static char *load_hash(void)
{
    rz_model *m;
    if (rz_model_load(NULL, scratch_device, scratch_dir(), RZ_MODEL_READ, 0, &m, &err)) fail_msg("%s", err.message);
    char *hash = rz_strdup(NULL, m->hash);
    assert_int_equal(strlen(hash), 64);
    rz_model_unload(m);
    return hash;
}

/* ---- Configuration and weights disagree: the tensor is named --------------------------------------- */

static void test_disagree(void **state)
{
    (void)state;
    static const struct {
        const char *file, *from, *to, *says;
    } cases[] = {
        {"config.json", "\"intermediate_size\": 40", "\"intermediate_size\": 44",
         "12 tensors have other shapes than the configuration: 'language_model.model.layers.0.mlp.gate_proj.weight': "
         "shape 40x24, expected 44x24; '"},
        {"config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5",
         "9 tensors are missing: 'language_model.model.layers.4.input_layernorm.weight', "},
        {"config.json", "\"vocab_size\": 352", "\"vocab_size\": 353", "embed_tokens.weight': shape 352x24"},
        {"config.json", "\"patch_size\": 8", "\"patch_size\": 16",
         "patch_embedding.weight': shape 24x3x8x8, expected 24x3x16x16"},
        {"config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "k_proj.weight': shape 16x24"},
        {"config.json", "\"multimodal_projector_bias\": true,",
         "\"multimodal_projector_bias\": true, \"mlp_bias\": true,", NULL},
        {"config.json", "\"head_dim\": 8,", "\"head_dim\": 8, \"mlp_bias\": true,", NULL}, /* Mistral has no such key */
        {"config.json", "\"model_type\": \"mistral\"", "\"model_type\": \"llama\", \"mlp_bias\": true",
         "12 tensors are missing: 'language_model.model.layers.0.mlp.gate_proj.bias', "},
        {"radz.json", "\"<TxtCls7>\"", "\"<TxtCls7>\", \"<TxtCls8>\"",
         "special_tokens.weight': shape 12x24, expected 13x24"},
        {"radz.json", "\"dim\": 16", "\"dim\": 8", "gamma_img.linear_2.weight': shape 16x20, expected 8x20"},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        copy_all(cases[i].file);
        scratch_copy(DIR_TINY, cases[i].file, cases[i].from, cases[i].to);
        if (cases[i].says)
            refused(RADZ_E_MISMATCH, cases[i].says);
        else
            rz_free(NULL, load_hash()); /* a key of another object changes nothing */
        scratch_remove();
    }
}

/* Integers of other programs are called so; a key of theirs beside floats is one that was left over. */
static void test_other_integers(void **state)
{
    (void)state;
#define BY(method) "\"dtype\": \"float32\", \"quantization_config\": {\"quant_method\": \"" method "\"}"
    const char *const dtype = "\"dtype\": \"float32\",\n  \"image_seq";
    copy_all("config.json");
    scratch_copy(DIR_TINY, "config.json", dtype, BY("gptq") ",\n  \"image_seq");
    rz_free(NULL, load_hash());
    scratch_remove();
    copy_all("config.json");
    scratch_copy(DIR_TINY, "config.json", dtype, BY("gptq") ",\n  \"image_seq");
    scratch_copy(scratch_dir(), "config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5");
    refused(RADZ_E_UNSUPPORTED, "weights as 'gptq' makes them");
    scratch_remove();
    copy_all("config.json");
    scratch_copy(DIR_TINY, "config.json", dtype, BY("libradz") ",\n  \"image_seq");
    scratch_copy(scratch_dir(), "config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5");
    refused(RADZ_E_MISMATCH, "tensors are missing");
    scratch_remove();
#undef BY
}

/* ---- All that is wrong is named ------------------------------------------------------------------- */

/* The tiny model's tensors from `first` on up to `end` as a file. */
static void write_shard(const char *name, size_t first, size_t end)
{
    rz_st *st;
    if (rz_st_open(NULL, DIR_TINY "/model.safetensors", RZ_FILE_READ, &st, &err)) fail_msg("%s", err.message);
    rz_st_out *out = calloc(rz_st_count(st), sizeof *out);
    size_t n = 0;
    for (size_t i = first; i < end && i < rz_st_count(st); i++) {
        const rz_st_tensor *t = rz_st_at(st, i);
        out[n] = (rz_st_out){t->name, t->dtype, t->n_dims, {0}, t->data};
        memcpy(out[n++].dims, t->dims, sizeof t->dims);
    }
    char *to = rz_path_join(NULL, scratch_dir(), name);
    if (rz_st_write(NULL, to, out, n, NULL, &err)) fail_msg("%s", err.message);
    rz_free(NULL, to);
    free(out);
    rz_st_close(st);
}

typedef struct log_book {
    rz_str lines[RADZ_LOG_WARNING + 1];
} log_book;

static void keep_line(radz_log_level level, const char *message, void *user)
{
    rz_str *s = &((log_book *)user)->lines[level];
    rz_str_printf(s, "%s\n", message);
}

/* The word as often as `n` says. */
static void expect_times(const char *text, const char *word, size_t n)
{
    size_t found = 0;
    for (const char *at = text; at && (at = strstr(at, word)); at++) found++;
    if (found != n) fail_msg("'%s' %zu times, expected %zu: %s", word, found, n, text ? text : "");
}

/* Loads what lies in the scratch folder with a log; the number of tensors that the error names. */
static size_t load_and_log(log_book *book)
{
    rz_host host = {.log_fn = keep_line, .user = book};
    rz_model *m;
    size_t named = 0;
    memset(&err, 0, sizeof err);
    if (!rz_model_load(&host, scratch_device, scratch_dir(), RZ_MODEL_READ, 0, &m, &err)) err.message[0] = 0;
    for (const char *at = err.message; (at = strchr(at, '\'')) && (at = strchr(at + 1, '\'')); at++) named++;
    rz_model_unload(m);
    return named;
}

static void free_lines(log_book *book)
{
    for (size_t i = 0; i < RZ_COUNT(book->lines); i++) rz_str_free(&book->lines[i]);
}

static void test_many_missing(void **state)
{
    (void)state;
    log_book book = {0};
    char more[40];
    copy_all("model.safetensors");
    write_shard("model.safetensors", 0, 1);
    size_t named = load_and_log(&book);
    assert_true(named >= 4);
    assert_non_null(strstr(err.message, ": 97 tensors are missing: 'vision_tower.vision_model.embeddings.class_emb"));
    snprintf(more, sizeof more, "' and %zu more", 97 - named);
    assert_string_equal(err.message + strlen(err.message) - strlen(more), more);
    expect_times(book.lines[RADZ_LOG_WARNING].data, "is missing\n", 97);
    write_shard("model.safetensors", 2, SIZE_MAX);
    assert_int_equal(load_and_log(&book), 2);
    assert_non_null(strstr(err.message, ": 2 tensors are missing: 'language_model.model.embed_tokens.weight', "
                                        "'language_model.lm_head.weight'"));
    assert_int_equal(err.message[strlen(err.message) - 1], '\'');
    scratch_remove();
    free_lines(&book);
}

static void test_many_of_other_shape(void **state)
{
    (void)state;
    log_book book = {0};
    copy_all("config.json");
    scratch_copy(DIR_TINY, "config.json", "\"intermediate_size\": 40", "\"intermediate_size\": 44");
    size_t named = load_and_log(&book);
    assert_true(named >= 2 && named < 12);
    expect_times(book.lines[RADZ_LOG_WARNING].data, "from the configuration\n", 12);
    expect_times(book.lines[RADZ_LOG_WARNING].data, "down_proj.weight': shape 24x40, expected 24x44", 4);
    scratch_remove();
    free_lines(&book);
}

/* The message keeps its line whatever the folder is called. */
static void test_long_folder(void **state)
{
    (void)state;
    for (size_t depth = 0; depth < 5; depth++) {
        rz_str path = {0};
        rz_model *m;
        copy_all("model.safetensors");
        write_shard("model.safetensors", 0, 1);
        rz_str_puts(&path, scratch_dir());
        for (size_t i = 0; i < 60 * depth + 38; i++) rz_str_puts(&path, "/.");
        assert_int_equal(rz_model_load(NULL, scratch_device, path.data, RZ_MODEL_READ, 0, &m, &err), RADZ_E_MISMATCH);
        assert_non_null(strstr(err.message, depth < 4 ? "97 tensors are missing: '" : "/."));
        assert_non_null(strstr(err.message, depth < 3 ? " more" : "..."));
        rz_str_free(&path);
        scratch_remove();
    }
}

static void test_left_over(void **state)
{
    (void)state;
    log_book book = {0};
    rz_model *m;
    copy_all("config.json");
    scratch_copy(DIR_TINY, "config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3");
    load_and_log(&book);
    expect_times(book.lines[RADZ_LOG_WARNING].data, "9 tensors are not used, 'language_model.model.layers.3.", 1);
    expect_times(book.lines[RADZ_LOG_INFO].data, "tensor 'language_model.model.layers.3.", 9);
    if (rz_model_load(NULL, scratch_device, scratch_dir(), RZ_MODEL_INFER, 0, &m, &err)) fail_msg("%s", err.message);
    assert_int_equal(m->n_unused, 9);
    for (size_t i = 0; i < 9; i++) assert_non_null(strstr(m->unused[i], "language_model.model.layers.3."));
    rz_model_unload(m);
    scratch_remove();
    free_lines(&book);
}

static void test_missing_files(void **state)
{
    (void)state;
    copy_all("model.safetensors");
    refused(RADZ_E_IO, "model.safetensors");
    assert_false(rz_model_has_weights(scratch_dir()));
    scratch_write("llava-q4.gguf", "GGUF", 4);
    refused(RADZ_E_UNSUPPORTED, "llava-q4.gguf: GGUF is not supported");
    assert_int_equal(remove(fixture_path(scratch_dir(), "llava-q4.gguf")), 0);
    scratch_write("model-00001-of-00002.safetensors", "", 0);
    refused(RADZ_E_FORMAT, "model-00001-of-00002.safetensors: a part of a model, but model.safetensors.index.json is");
    refused_to_train(RADZ_E_FORMAT, "model-00001-of-00002.safetensors: a part of a model");
    scratch_write("pytorch_model.bin", "PK", 2);
    refused(RADZ_E_UNSUPPORTED, ": weights in pytorch_model.bin are not supported");
    refused_to_train(RADZ_E_UNSUPPORTED, "pytorch_model.bin");
    scratch_remove();
    copy_all("radz.safetensors");
    refused(RADZ_E_MISMATCH, ": 19 tensors are missing: 'special_tokens.weight', 'gamma_");
    assert_true(rz_model_has_weights(scratch_dir()));
    scratch_remove();
}

/* A tokenizer with more pieces than the table has rows */
static void test_tokenizer_too_large(void **state)
{
    (void)state;
    copy_all("config.json");
    scratch_copy(DIR_TINY, "config.json", "\"vocab_size\": 352", "\"vocab_size\": 339");
    refused(RADZ_E_MISMATCH, "340 pieces");
    scratch_remove();
}

/* ---- Single tensors ----------------------------------------------------------------------------------- */

/* Writes the tiny model's file `name`, one tensor changed: other data and dtype, or left out where dtype is NULL. */
static void write_changed(const char *name, const char *tensor, const char *dtype, const void *data)
{
    rz_st *st;
    rz_str path = {0};
    rz_str_printf(&path, "%s/%s", DIR_TINY, name);
    if (rz_st_open(NULL, path.data, RZ_FILE_READ, &st, &err)) fail_msg("%s", err.message);
    rz_st_out *out = calloc(rz_st_count(st), sizeof *out);
    size_t n = 0;
    for (size_t i = 0; i < rz_st_count(st); i++) {
        const rz_st_tensor *t = rz_st_at(st, i);
        bool changed = !strcmp(t->name, tensor);
        if (changed && !dtype) continue;
        out[n] = (rz_st_out){t->name, changed ? dtype : t->dtype, t->n_dims, {0}, changed ? data : t->data};
        memcpy(out[n++].dims, t->dims, sizeof t->dims);
    }
    char *to = rz_path_join(NULL, scratch_dir(), name);
    if (rz_st_write(NULL, to, out, n, NULL, &err)) fail_msg("%s", err.message);
    rz_free(NULL, to);
    free(out);
    rz_st_close(st);
    rz_str_free(&path);
}

static void test_tensors(void **state)
{
    (void)state;
    static const float taus[] = {NAN, INFINITY, 90.0f, -90.0f};
    static const int64_t integers[24];
    for (size_t i = 0; i < RZ_COUNT(taus); i++) {
        copy_all("radz.safetensors");
        write_changed("radz.safetensors", "log_tau", "F32", &taus[i]);
        refused(RADZ_E_FORMAT, "'log_tau'");
        scratch_remove();
    }
    copy_all("radz.safetensors"); /* no log_tau: radz.json's tau */
    write_changed("radz.safetensors", "log_tau", NULL, NULL);
    rz_model *m;
    if (rz_model_load(NULL, scratch_device, scratch_dir(), RZ_MODEL_READ, 0, &m, &err)) fail_msg("%s", err.message);
    assert_true(fabs(rz_model_tau(m, NULL) - 0.05) < 1e-7);
    rz_model_unload(m);
    scratch_remove();
    copy_all("model.safetensors");
    write_changed("model.safetensors", "language_model.model.norm.weight", "I64", integers);
    refused(RADZ_E_UNSUPPORTED, "language_model.model.norm.weight");
    scratch_remove();
}

/* ---- Shards ---------------------------------------------------------------------------------------------- */

static void write_index(const char *first, const char *second)
{
    rz_str s = {0};
    rz_str_printf(&s, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {\"a\": %s, \"b\": %s}}", first, second);
    scratch_write("model.safetensors.index.json", s.data, s.len);
    rz_str_free(&s);
}

static void test_shards(void **state)
{
    (void)state;
    copy_all("model.safetensors");
    write_shard("model-00001-of-00002.safetensors", 0, 40);
    write_shard("model-00002-of-00002.safetensors", 40, SIZE_MAX);
    write_index("\"model-00001-of-00002.safetensors\"", "\"model-00002-of-00002.safetensors\"");
    assert_true(rz_model_has_weights(scratch_dir()));
    char *whole = load_hash();
    rz_free(NULL, whole);

    write_shard("model-00002-of-00002.safetensors", 41, SIZE_MAX); /* one tensor lost */
    refused(RADZ_E_MISMATCH, "is missing");
    write_shard("model-00002-of-00002.safetensors", 39, SIZE_MAX); /* one twice */
    refused(RADZ_E_FORMAT, "is in another file");
    write_index("\"model-00001-of-00002.safetensors\"", "\"model-00003-of-00002.safetensors\"");
    refused(RADZ_E_IO, "model-00003-of-00002.safetensors");
    scratch_remove();
}

static void test_shard_names(void **state)
{
    (void)state;
    static const char *const names[] = {"\"../model.safetensors\"",
                                        "\"/etc/passwd\"",
                                        "\"a/b.safetensors\"",
                                        "\"\"",
                                        "\".\"",
                                        "\"..\"",
                                        "3",
                                        "null",
                                        "{}"};
    for (size_t i = 0; i < RZ_COUNT(names); i++) {
        copy_all("model.safetensors");
        write_index(names[i], names[i]);
        refused(RADZ_E_FORMAT, "weight_map");
        scratch_remove();
    }
    copy_all("model.safetensors");
    scratch_write("model.safetensors.index.json", "{}", 2);
    refused(RADZ_E_FORMAT, "weight_map: expected an object");
    scratch_remove();
}

/* The hash stands for everything that changes a vector, and for nothing else. */
static void test_hash(void **state)
{
    (void)state;
    copy_all("");
    char *base = load_hash(), *again = load_hash();
    assert_string_equal(base, again);
    rz_free(NULL, again);
    scratch_write("README.md", "x", 1);
    again = load_hash();
    assert_string_equal(base, again);
    rz_free(NULL, again);
    scratch_write("processor_config.json", "{}", 2);
    again = load_hash();
    assert_string_not_equal(base, again);
    rz_free(NULL, again);
    assert_int_equal(unlink(fixture_path(scratch_dir(), "processor_config.json")), 0);
    scratch_copy(DIR_TINY, "radz.json", "This is", "Here is");
    again = load_hash();
    assert_string_not_equal(base, again);
    rz_free(NULL, again);
    scratch_copy(DIR_TINY, "radz.json", NULL, NULL);
    static const float log_tau = -3;
    write_changed("radz.safetensors", "log_tau", "F32", &log_tau);
    again = load_hash();
    assert_string_not_equal(base, again);
    rz_free(NULL, again);
    rz_free(NULL, base);
    scratch_remove();
}

/* ---- Memory runs out ------------------------------------------------------------------------------------------ */

/* Device, model, both kinds of prompt, one pass forward. */
static radz_status whole_way(const rz_host *host, void *arg)
{
    (void)arg;
    rz_device_options o = {"cpu", "auto", "own", 1};
    rz_device *d = NULL;
    rz_stream *s = NULL;
    rz_model *m = NULL;
    rz_prompt image = {0}, text = {0};
    static const float pixels[3 * 32 * 32];
    float *global = NULL, *local = NULL, out[16];
    radz_status status = rz_device_open(host, &o, &d, &err);
    if (!status) status = rz_stream_open(d, &s, &err);
    if (!status) status = rz_model_load(host, d, DIR_TINY, RZ_MODEL_READ, 0, &m, &err);
    if (!status) status = rz_prompt_image(host, m, &image, &err);
    if (!status) status = rz_prompt_text(host, m, "No finding.", &text, &err);
    if (!status) {
        rz_net net = {.model = m, .s = s};
        rz_item items[] = {{.pixels = pixels, .prompt = &image}, {.kind = RZ_ITEM_TEXT, .prompt = &text}};
        rz_encode(&net, items, 2, &global, &local, NULL);
        if (!rz_stream_failed(s)) rz_download(s, out, global, sizeof out);
        status = rz_stream_sync(s, &err);
    }
    rz_prompt_free(host, &image);
    rz_prompt_free(host, &text);
    rz_model_unload(m);
    if (s) rz_stream_close(s);
    if (d) rz_device_close(d);
    return status;
}

static void test_memory(void **state)
{
    (void)state;
    failing_host_try_all(whole_way, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disagree),      cmocka_unit_test(test_other_integers),
        cmocka_unit_test(test_many_missing),  cmocka_unit_test(test_many_of_other_shape),
        cmocka_unit_test(test_long_folder),   cmocka_unit_test(test_left_over),
        cmocka_unit_test(test_missing_files), cmocka_unit_test(test_tokenizer_too_large),
        cmocka_unit_test(test_tensors),       cmocka_unit_test(test_shards),
        cmocka_unit_test(test_shard_names),   cmocka_unit_test(test_hash),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, scratch_open_device, scratch_close_device);
}
