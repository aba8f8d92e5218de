/* test_programs.c - radz-embed, radz-bank and radz-info as their users meet them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "fixture.h"
#include "formats.h"
#include "run_program.h"

static radz_error err;
static char *dir, *model, *film, *broken, *embed, *bank, *info, *saved;

#define RUN(program, ...) run_program((const char *const[]){program, __VA_ARGS__, NULL}, NULL, TO_FILE)

static char *program(const char *name)
{
    return strdup(fixture_program(name));
}

static int setup(void **state)
{
    (void)state;
    run_folder = dir = fixture_temp_dir();
    embed = program("radz-embed"), bank = program("radz-bank"), info = program("radz-info");
    model = strdup(fixture_path(dir, "model"));
    film = strdup(fixture_path(dir, "film.png"));
    broken = strdup(fixture_path(dir, "broken.png"));
    saved = strdup(fixture_path(dir, "saved.safetensors"));
    assert_int_equal(mkdir(model, 0700), 0);
    fixture_model(model, 3);
    fixture_png(film, 120, 100, 1, 1);
    fixture_write_text(broken, "not a film");
    setenv("RADZ_MODEL", model, 1);
    setenv("LC_ALL", "C", 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(dir);
    free(dir), free(model), free(film), free(broken), free(saved), free(embed), free(bank), free(info);
    return 0;
}

/* ---- All of them ---- */

static void test_help_and_version(void **state)
{
    (void)state;
    const char *programs[] = {embed, bank, info};
    for (size_t i = 0; i < RZ_COUNT(programs); i++) {
        run r = RUN(programs[i], "--help");
        run_expect(&r, 0, "usage: radz-", NULL);
        run_expect(&r, 0, "NOT FOR DIAGNOSIS", NULL);
        run_done(&r);
        r = RUN(programs[i], "--version");
        run_expect(&r, 0, radz_version(), NULL);
        run_done(&r);
        r = RUN(programs[i], "--bogus");
        run_expect(&r, 2, NULL, "unknown option --bogus");
        run_done(&r);
        r = run_program((const char *const[]){programs[i], "--help", NULL}, NULL, TO_FULL);
        run_expect(&r, 1, NULL, "cannot write to standard output");
        run_done(&r);
        r = run_program((const char *const[]){programs[i], "--help", NULL}, NULL, TO_NOTHING);
        run_expect(&r, 1, NULL, "standard output is closed");
        run_done(&r);
    }
}

static void test_wrong_usage(void **state)
{
    (void)state;
    const struct {
        const char *args[8], *words;
    } cases[] = {
        {{embed, film}, "--out is missing"},
        {{embed, "--out", "x.npy"}, "no film and no text"},
        {{embed, "--out", "x.csv", film}, ".npy or .safetensors"},
        {{embed, "--out", "x.npy", "--feature", "best", film}, "--feature"},
        {{embed, "--out", "x.npy", "--layer", "two", film}, "--layer"},
        {{embed, "--out", "x.npy", "--layer", "99", film}, "layer"},
        {{embed, "--out", "x.npy", "--threads", "-1", film}, "--threads"},
        {{embed, "--out", "x.npy", "--out=y.npy", film}, "--out is given twice"},
        {{embed, "--out", "x.npy", "--text"}, "--text needs a value"},
        {{embed, "--out", "x.npy", "--texts", "/nowhere"}, "/nowhere"},
        {{embed, "--out", "x.npy", "-", "-"}, "only once"},
        {{embed, "--out", "x.npy", "--model", "/nowhere", film}, "/nowhere"},
        {{bank, NULL}, "no command"},
        {{bank, "polish"}, "unknown command polish"},
        {{bank, "build", "a"}, "--out is missing"},
        {{bank, "build", "--out", "x"}, "no class given"},
        {{bank, "build", "--out", "x", "--diseases", "f", "a"}, "--diseases"},
        {{bank, "build", "--out", "x", "--diseases", "/nowhere"}, "/nowhere"},
        {{bank, "build", "--out", "x", "--bank", "y", "a"}, "--bank"},
        {{bank, "add", "a"}, "--out or --bank"},
        {{bank, "remove", "--bank", "b"}, "no class given"},
        {{bank, "list", "a"}, "takes no names"},
        {{bank, "list", "--out", "x"}, "--out"},
        {{bank, "list", "--rebuild"}, "--rebuild"},
        {{bank, "verify", "--json"}, "--json"},
        {{bank, "list", "--bank", "/nowhere"}, "/nowhere"},
        {{info, "a", "b"}, "one directory"},
        {{info, "/nowhere"}, "/nowhere"},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        run r = run_program(cases[i].args, NULL, TO_FILE);
        run_expect(&r, 2, NULL, cases[i].words);
        assert_string_equal(r.out, "");
        run_done(&r);
    }
}

/* ---- radz-embed ---- */

static void test_embed(void **state)
{
    (void)state;
    const char *out = fixture_path(dir, "v.safetensors"), *lines = fixture_path(dir, "lines.txt");
    rz_st *st;
    fixture_write_text(lines, "first\r\n\nsecond");
    run r = RUN(embed, "--out", out, "--text", "one", "--texts", lines, "--text", "two", film, broken, film);
    run_expect(&r, 1, NULL, "broken.png");
    run_expect(&r, 1, NULL, "6 vectors of 8 numbers");
    run_done(&r);
    if (rz_st_open(NULL, out, RZ_FILE_READ, &st, &err)) fail_msg("%s", err.message);
    const rz_st_tensor *t = rz_st_find(st, "embeddings");
    assert_true(t && t->dims[0] == 6 && t->dims[1] == 8);
    assert_memory_equal(t->data, t->data + 8 * sizeof(float), 8 * sizeof(float)); /* the same film */
    json_t *names;
    const char *text = rz_st_metadata(st, "names"), *want[] = {film, film, "one", "two", "first", "second"};
    assert_int_equal(rz_json_parse(text, strlen(text), "names", &names, &err), 0);
    assert_int_equal(json_array_size(names), 6);
    for (size_t i = 0; i < 6; i++) assert_string_equal(json_string_value(json_array_get(names, i)), want[i]);
    json_decref(names);
    rz_st_close(st);
}

static void test_embed_options(void **state)
{
    (void)state;
    const char *out = fixture_path(dir, "v.npy");
    run r = RUN(embed, "--out", out, "--raw", "--layer", "-1", "--feature=last", "--quiet", film);
    run_expect(&r, 0, NULL, NULL);
    assert_string_equal(r.err, "");
    run_done(&r);
    size_t n;
    char *bytes = fixture_read(out, &n);
    assert_non_null(strstr(bytes + 10, "'shape': (1, 16)"));
    assert_int_equal(n, 128 + 16 * sizeof(float));
    free(bytes);
    assert_true(rz_path_exists(fixture_path(dir, "v.names.json")));
}

static void test_embed_nothing(void **state)
{
    (void)state;
    const char *out = fixture_path(dir, "none.npy");
    run r = RUN(embed, "--out", out, broken);
    run_expect(&r, 1, NULL, "nothing to write");
    assert_false(rz_path_exists(out));
    run_done(&r);
    r = RUN(embed, "--out", "/nowhere/v.npy", film);
    run_expect(&r, 1, NULL, "/nowhere");
    run_done(&r);
}

/* ---- radz-bank ---- */

static void test_bank(void **state)
{
    (void)state;
    run r = RUN(bank, "build", "--out", saved, "Effusion: fluid around the lung", "No Finding", "Mass");
    run_expect(&r, 0, "3 classes", NULL);
    run_done(&r);
    r = RUN(bank, "add", "--bank", saved, "Edema: water, and some more words that will not fit in the column");
    run_expect(&r, 0, "4 classes", NULL);
    run_done(&r);
    r = RUN(bank, "add", "--bank", saved, "edema");
    run_expect(&r, 2, NULL, "comes twice");
    run_done(&r);
    r = RUN(bank, "remove", "--bank", saved, "MASS");
    run_expect(&r, 0, "3 classes", NULL);
    run_done(&r);
    r = RUN(bank, "remove", "--bank", saved, "Mass");
    run_expect(&r, 2, NULL, "no class 'Mass'");
    run_done(&r);
    r = RUN(bank, "list", "--bank", saved);
    run_expect(&r, 0, "No Finding      1.000  This is a chest X-ray", NULL);
    run_expect(&r, 0, "water, and some more words that will not ...\n", NULL);
    run_done(&r);
    r = RUN(bank, "verify", "--rebuild", "--bank", saved);
    run_expect(&r, 0, "whole, 3 classes of 8 numbers, made by this model (model)", NULL);
    run_expect(&r, 0, "anchors: as this model makes them", NULL);
    run_done(&r);
}

static void test_bank_json(void **state)
{
    (void)state;
    json_t *root;
    run r = RUN(bank, "build", "--out", saved, "A \"quoted\" one: x", "\xc3\x9c\x62\x65l");
    run_expect(&r, 0, "2 classes", NULL);
    run_done(&r);
    r = RUN(bank, "list", "--json", "--bank", saved);
    if (rz_json_parse(r.out, r.n_out, "stdout", &root, &err)) fail_msg("%s: %s", err.message, r.out);
    assert_true(json_is_null(json_object_get(root, "reference")));
    json_t *classes = json_object_get(root, "classes"), *first = json_array_get(classes, 0);
    assert_int_equal(json_array_size(classes), 2);
    assert_string_equal(json_string_value(json_object_get(first, "label")), "A \"quoted\" one");
    assert_true(json_is_null(json_object_get(first, "cosine_to_reference")));
    json_decref(root);
    run_done(&r);
}

static void test_bad_banks(void **state)
{
    (void)state;
    char *other = strdup(fixture_path(dir, "other")); /* more paths follow than fixture_path keeps */
    const char *bad = fixture_path(dir, "bad.safetensors");
    size_t n;
    run r = RUN(bank, "build", "--out", saved, "a", "b");
    run_done(&r);
    char *bytes = fixture_read(saved, &n);
    bytes[n - 1] ^= 1;
    fixture_write(bad, bytes, n);
    free(bytes);
    r = RUN(bank, "verify", "--bank", bad);
    run_expect(&r, 1, NULL, "damaged");
    run_done(&r);
    assert_int_equal(mkdir(other, 0700), 0);
    fixture_model(other, 4);
    r = RUN(bank, "verify", "--bank", saved, "--model", other);
    run_expect(&r, 1, NULL, "another model");
    run_done(&r);
    free(other);
    r = RUN(bank, "add", "--bank", saved, "--out", "/nowhere/b", "c");
    run_expect(&r, 1, NULL, "/nowhere");
    run_done(&r);
}

/* ---- radz-info ---- */

static void test_info(void **state)
{
    (void)state;
    static const char *const words[] = {
        "model       model", "16 x 16 pixels",    "sentencepiece-bpe",   "in f32", "bank        none", "cpu (",
        "portable",          "Research use only", "2 + 2 special tokens"};
    run r = RUN(info, model);
    for (size_t i = 0; i < RZ_COUNT(words); i++) run_expect(&r, 0, words[i], NULL);
    assert_null(strstr(r.out, "missing"));
    run_done(&r);
    remove(fixture_path(model, "radz.json"));
    r = RUN(info, "--device=cpu"); /* from the environment */
    run_expect(&r, 0, "missing     radz.json", NULL);
    run_expect(&r, 0, "left over   ", NULL);
    run_expect(&r, 0, "\n            special_tokens.weight\n", NULL);
    run_done(&r);
    fixture_model(model, 3);
}

static void test_info_json(void **state)
{
    (void)state;
    json_t *root;
    run r = RUN(info, "--json", "--threads", "1", model);
    if (rz_json_parse(r.out, r.n_out, "stdout", &root, &err)) fail_msg("%s: %s", err.message, r.out);
    assert_string_equal(json_string_value(json_object_get(root, "schema")), "radz.info/1");
    assert_string_equal(json_string_value(json_object_get(root, "name")), "model");
    assert_int_equal(strlen(json_string_value(json_object_get(root, "hash"))), 64);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "decoder"), "vocab")), 328);
    assert_true(json_integer_value(json_object_get(root, "film_bytes")) > 0);
    assert_true(json_is_null(json_object_get(root, "missing")));
    assert_true(json_array_size(json_object_get(root, "kernels_available")) >= 1);
    json_decref(root);
    run_done(&r);
}

/* The options of a model that open_engine passes on, seen through radz-info. */
static void test_model_options(void **state)
{
    (void)state;
    static const char base[] = "tests/parity/variants/lora_base", adapter[] = "tests/parity/variants/lora_base/list";
    static const char external[] = "tests/parity/variants/external";
    run r = RUN(info, "--adapter", adapter, "--read-weights", base);
    run_expect(&r, 0, "adapter     tests/parity/variants/lora_base/list\n  rank      ", NULL);
    run_done(&r);
    r = RUN(info, "--model", external, "--vision-source=external", "--json");
    run_expect(&r, 0, "vision_tower", NULL);
    run_expect(&r, 0, "\"adapter\":null", NULL);
    run_done(&r);
    r = RUN(info, "--vision-source", "external", base);
    run_expect(&r, 2, NULL, "vision");
    run_done(&r);
    r = RUN(info, "--vision-source", "mine", base);
    run_expect(&r, 2, NULL, "--vision-source: expected one of auto|checkpoint|external, got mine");
    run_done(&r);
    r = RUN(info, "--adapter", "/nowhere", base);
    run_expect(&r, 2, NULL, "/nowhere");
    run_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help_and_version), cmocka_unit_test(test_wrong_usage),   cmocka_unit_test(test_embed),
        cmocka_unit_test(test_embed_options),    cmocka_unit_test(test_embed_nothing), cmocka_unit_test(test_bank),
        cmocka_unit_test(test_bank_json),        cmocka_unit_test(test_bad_banks),     cmocka_unit_test(test_info),
        cmocka_unit_test(test_info_json),        cmocka_unit_test(test_model_options),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
