/* test_bank.c - description files, building a bank, and its file under every kind of damage.
 * SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "bank.h"
#include "embed.h"
#include "fixture.h"

static radz_error err;
static char *dir; /* of two models and everything written here */
static rz_device *dev;
static rz_model *model, *other;
static rz_net net, other_net;

static void ok(radz_status status)
{
    if (status != RADZ_OK) fail_msg("%s: %s", radz_status_name(status), err.message);
}

static void refused(radz_status status, radz_status want, const char *words)
{
    if (status != want) fail_msg("status %d, not %d: %s", (int)status, (int)want, status ? err.message : "");
    if (!strstr(err.message, words)) fail_msg("'%s' not in '%s'", words, err.message);
}

static void open_model(const char *name, uint64_t seed, rz_model **m, rz_net *n)
{
    const char *path = fixture_path(dir, name);
    ok(rz_mkdir_p(path, &err));
    fixture_model(path, seed);
    ok(rz_model_load(NULL, dev, path, RZ_MODEL_INFER, 0, m, &err));
    *n = (rz_net){.model = *m};
    ok(rz_stream_open(dev, &n->s, &err));
}

static int setup(void **state)
{
    (void)state;
    rz_device_options cpu = {.device = "cpu", .n_threads = 2};
    dir = fixture_temp_dir();
    ok(rz_device_open(NULL, &cpu, &dev, &err));
    open_model("one", 1, &model, &net);
    open_model("two", 2, &other, &other_net);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rz_stream_close(net.s);
    rz_stream_close(other_net.s);
    rz_model_unload(model);
    rz_model_unload(other);
    rz_device_close(dev);
    fixture_remove(dir);
    free(dir);
    return 0;
}

/* ---- Description files ---- */

static radz_status parse(const char *text, rz_bank_list *list)
{
    return rz_bank_list_parse(NULL, text, strlen(text), "list.txt", list, &err);
}

static void test_description_file(void **state)
{
    (void)state;
    rz_bank_list l;
    ok(parse("\xef\xbb\xbf# comment\r\n\r\nEdema: fluid: in the lungs \r\n  No Finding :\tclear\n\n#x:y\n\xc3\x9c: u",
             &l));
    assert_int_equal(l.n, 3);
    assert_string_equal(l.entries[0].label, "Edema");
    assert_string_equal(l.entries[0].description, "fluid: in the lungs");
    assert_string_equal(l.entries[1].label, "No Finding");
    assert_string_equal(l.entries[1].description, "clear");
    assert_string_equal(l.entries[2].label, "\xc3\x9c");
    rz_bank_list_free(NULL, &l);
}

static void test_bad_description_files(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "no 'label: description' line"},
        {"# only\n", "no 'label: description' line"},
        {"a: b\nno colon\n", "line 2: expected"},
        {"a: b\n\n : x\n", "line 3: label is empty"},
        {"a: b\nc:  \n", "line 2: description is empty"},
        {"a: b\nc: d\n A : e\n", "line 3: label 'A' comes twice"},
        {"a\x01: b\n", "line 1: label holds a control character"},
        {"a: b\nc: \xff\n", "line 2: not UTF-8"},
    };
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        rz_bank_list l;
        refused(parse(bad[i].text, &l), RADZ_E_FORMAT, bad[i].words);
        assert_null(l.entries);
    }
    rz_bank_list l;
    refused(rz_bank_list_parse(NULL, "a: b\0", 6, "list.txt", &l, &err), RADZ_E_FORMAT, "NUL");
}

/* ---- Building ---- */

static const radz_bank_entry entries[] = {
    {"Effusion", "Fluid around the lung."}, {"No Finding", "Clear lungs."}, {"Mass", NULL}};

static rz_bank *build(void)
{
    rz_bank *b;
    ok(rz_bank_build(&net, entries, 3, &b, &err));
    return b;
}

static void test_build(void **state)
{
    (void)state;
    rz_bank *b = build();
    const rz_pick own = rz_embed_own(&net.model->cfg);
    assert_int_equal(b->n, 3);
    assert_int_equal(b->reference, 1);
    assert_string_equal(b->descriptions[2], "This is a chest X-ray showing Mass.");
    for (size_t i = 0; i < 3; i++) {
        float alone[8];
        const char *text = b->descriptions[i];
        ok(rz_embed_texts(&net, RZ_ITEM_DISEASE, &text, 1, &own, alone, &err));
        assert_memory_equal(alone, b->anchors + 8 * i, sizeof alone);
    }
    rz_bank_free(b);
}

static void test_bad_entries(void **state)
{
    (void)state;
    rz_bank *b = (rz_bank *)&b;
    const radz_bank_entry empty[] = {{"", "x"}}, twice[] = {{"a", "x"}, {"A", "y"}}, none[] = {{NULL, "x"}},
                          blank[] = {{"a", " "}};
    refused(rz_bank_build(&net, empty, 1, &b, &err), RADZ_E_ARGUMENT, "entry 1: label is empty");
    assert_null(b);
    refused(rz_bank_build(&net, twice, 2, &b, &err), RADZ_E_ARGUMENT, "label 'A' comes twice");
    refused(rz_bank_build(&net, none, 1, &b, &err), RADZ_E_ARGUMENT, "label is NULL");
    refused(rz_bank_build(&net, blank, 1, &b, &err), RADZ_E_ARGUMENT, "description is empty");
    refused(rz_bank_build(&net, entries, 0, &b, &err), RADZ_E_ARGUMENT, "classes, got 0");
    char *long_text = calloc(1, 5000);
    memset(long_text, 'x', 4999);
    refused(rz_bank_build(&net, &(radz_bank_entry){"a", long_text}, 1, &b, &err), RADZ_E_LIMIT, "rows");
    free(long_text);
}

/* ---- The file ---- */

static const char *save(void)
{
    rz_bank *b = build();
    const char *path = fixture_path(dir, "bank.safetensors");
    ok(rz_bank_save(b, path, &err));
    rz_bank_free(b);
    return path;
}

static void test_round_trip(void **state)
{
    (void)state;
    rz_bank *a = build(), *b;
    const char *path = save();
    ok(rz_bank_open(model, path, &b, &err));
    assert_string_equal(a->hash, b->hash);
    assert_int_equal(b->n, 3);
    assert_int_equal(b->reference, 1);
    assert_memory_equal(a->anchors, b->anchors, 3 * 8 * sizeof(float));
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(a->labels[i], b->labels[i]);
        assert_string_equal(a->descriptions[i], b->descriptions[i]);
    }
    size_t n;
    char *bytes = fixture_read(path, &n), digits[65];
    rz_sha256 h;
    rz_sha256_init(&h);
    rz_sha256_put(&h, bytes, n);
    rz_sha256_hex(&h, digits);
    assert_string_equal(digits, b->hash);
    free(bytes);
    rz_bank_free(a);
    rz_bank_free(b);
}

static void test_every_bit_flip(void **state)
{
    (void)state;
    const char *path = save();
    size_t n;
    char *bytes = fixture_read(path, &n);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    for (size_t i = 0; i < 8 * n; i++) {
        char flipped = (char)(bytes[i / 8] ^ (1 << i % 8));
        rz_bank *b = (rz_bank *)&b;
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)(i / 8)), 1);
        radz_status status = rz_bank_open(model, path, &b, &err);
        if (status != RADZ_E_FORMAT || b) fail_msg("byte %zu, bit %zu: status %d", i / 8, i % 8, (int)status);
        assert_int_equal(pwrite(fd, &bytes[i / 8], 1, (off_t)(i / 8)), 1);
    }
    close(fd);
    free(bytes);
}

static void test_every_truncation(void **state)
{
    (void)state;
    const char *path = save();
    size_t n;
    char *bytes = fixture_read(path, &n);
    bytes = realloc(bytes, n + 8);
    rz_bank *b;
    for (size_t i = 0; i < n; i++) {
        fixture_write(path, bytes, i);
        if (rz_bank_open(model, path, &b, &err) != RADZ_E_FORMAT) fail_msg("%zu bytes are accepted", i);
    }
    memset(bytes + n, 0, 8);
    fixture_write(path, bytes, n + 8);
    refused(rz_bank_open(model, path, &b, &err), RADZ_E_FORMAT, "damaged");
    free(bytes);
}

static void test_other_model(void **state)
{
    (void)state;
    rz_bank *b;
    const char *path = save();
    refused(rz_bank_open(other, path, &b, &err), RADZ_E_MISMATCH, "made by another model: hash ");
    assert_null(b);
    char mine[13];
    memcpy(mine, model->hash, 12), mine[12] = 0;
    assert_non_null(strstr(err.message, mine));
}

/* Writes file `name` of a model folder again, `from` in it become `to`; or, where `from` is NULL, with `to` behind it.
 */
static void change_file(const char *folder, const char *name, const char *from, const char *to, size_t n_to)
{
    size_t n;
    const char *path = fixture_path(folder, name);
    char *bytes = fixture_read(path, &n), *at = from ? strstr(bytes, from) : bytes + n;
    assert_non_null(at);
    const size_t before = (size_t)(at - bytes), skip = from ? strlen(from) : 0;
    rz_str s = {0};
    rz_str_put(&s, bytes, before);
    rz_str_put(&s, to, n_to);
    rz_str_put(&s, at + skip, n - before - skip);
    fixture_write(path, s.data, s.len);
    rz_str_free(&s);
    free(bytes);
}

/* What the message names, of a model that differs from the bank's in one thing; and nothing else. */
static void test_what_differs(void **state)
{
    (void)state;
    static const struct {
        const char *file, *from, *to;
        size_t n_to;
        const char *words, *unlike;
    } cases[] = {
        {"radz.json", "\"layer\":-2", "\"layer\":-3", 10, "; layer -2, not -3: build", "pooling"},
        {"radz.json", "mean_then_mlp", "mlp_then_mean", 13, "; pooling mean_then_mlp, not mlp_then_mean: build",
         "layer"},
        {"tokenizer.model", NULL, "\xf8\x3e\1", 3, "; tokenizer ", "layer"}, /* a field that nobody reads */
        {"model.safetensors", NULL, "", 0, "; other weights or settings: build", "tokenizer"},
    };
    char *path = strdup(fixture_path(dir, "bank-of-one")); /* more paths follow than fixture_path keeps */
    char *folder = strdup(fixture_path(dir, "changed"));
    rz_bank *made, *b;
    ok(rz_bank_build(&net, entries, 3, &made, &err));
    ok(rz_bank_save(made, path, &err));
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        rz_model *changed;
        ok(rz_mkdir_p(folder, &err));
        fixture_model(folder, cases[i].n_to ? 1 : 3);
        change_file(folder, cases[i].file, cases[i].from, cases[i].to, cases[i].n_to);
        ok(rz_model_load(NULL, dev, folder, RZ_MODEL_INFER, 0, &changed, &err));
        for (int open = 0; open < 2; open++) {
            refused(open ? rz_bank_open(changed, path, &b, &err) : rz_bank_require_model(made, changed, &err),
                    RADZ_E_MISMATCH, cases[i].words);
            assert_null(strstr(err.message, cases[i].unlike));
            assert_non_null(strstr(err.message, "made by another model: hash "));
        }
        rz_model_unload(changed);
    }
    rz_bank_free(made);
    free(folder), free(path);
}

static void test_no_bank(void **state)
{
    (void)state;
    rz_bank *b;
    assert_int_equal(rz_bank_open(model, fixture_path(dir, "missing"), &b, &err), RADZ_E_IO);
    refused(rz_bank_open(model, fixture_path(dir, "one/model.safetensors"), &b, &err), RADZ_E_FORMAT,
            "not an anchor bank");
}

/* ---- Files with a right check sum and wrong contents: what a hostile writer would make ---- */

typedef struct forged {
    const char *schema, *labels, *descriptions;
    float anchors[16];
    uint64_t rows, cols;
} forged;

static void forge(const forged *f, const char *path)
{
    static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
    const char *metadata[] = {"schema",       f->schema,       "model",  model->hash, "labels", f->labels,
                              "descriptions", f->descriptions, "sha256", zeros,       NULL};
    rz_st_out t = {.name = "anchors", .dtype = "F32", .n_dims = 2, .dims = {f->rows, f->cols}, .data = f->anchors};
    rz_str s = {0};
    ok(rz_st_encode(&s, &t, 1, metadata, &err));
    char digits[65], *at = strstr(s.data + 8, zeros);
    rz_sha256 h;
    rz_sha256_init(&h);
    rz_sha256_put(&h, s.data, s.len);
    rz_sha256_hex(&h, digits);
    memcpy(at, digits, 64);
    fixture_write(path, s.data, s.len);
    rz_str_free(&s);
}

static void test_forged_files(void **state)
{
    (void)state;
    const forged good = {"radz.bank/1", "[\"a\",\"b\"]", "[\"x\",\"y\"]", {1, [8] = 1}, 2, 8};
    const char *path = fixture_path(dir, "forged");
    rz_bank *b;
    forge(&good, path);
    ok(rz_bank_open(model, path, &b, &err));
    rz_bank_free(b);
    forged f[9];
    for (size_t i = 0; i < RZ_COUNT(f); i++) f[i] = good;
    f[0].schema = "radz.bank/2";
    f[1].schema = "other";
    f[2].anchors[8] = NAN;
    f[3].anchors[8] = 0;
    f[4].anchors[8] = 0.5f;
    f[5].labels = "[\"a\",\"a\"]";
    f[6].labels = "[\"a\",\"\"]";
    f[7].labels = "[\"a\"]";
    f[8].descriptions = "[1,2]";
    const char *words[] = {"schema radz.bank/2",     "expected schema",    "'b': expected a finite",
                           "'b': expected a finite", "length 1",           "comes twice",
                           "label is empty",         "expected 2 strings", "expected 2 strings"};
    for (size_t i = 0; i < RZ_COUNT(f); i++) {
        forge(&f[i], path);
        refused(rz_bank_open(model, path, &b, &err), i ? RADZ_E_FORMAT : RADZ_E_UNSUPPORTED, words[i]);
    }
    forged narrow = good;
    narrow.cols = 4;
    forge(&narrow, path);
    refused(rz_bank_open(model, path, &b, &err), RADZ_E_FORMAT, "expected one tensor 'anchors'");
}

static void test_bank_of_a_model_folder(void **state)
{
    (void)state;
    rz_bank *b;
    char before[65];
    memcpy(before, model->hash, 65);
    const char *one = fixture_path(dir, "one"), *path = fixture_path(one, RZ_BANK_FILE);
    ok(rz_bank_write_own(&net, one, entries, 3, &err));
    ok(rz_bank_open(model, path, &b, &err)); /* the bank does not change the hash of the model */
    rz_bank_free(b);
    rz_model *again;
    ok(rz_model_load(NULL, dev, one, RZ_MODEL_READ, 0, &again, &err));
    assert_string_equal(again->hash, before);
    rz_model_unload(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_description_file),
        cmocka_unit_test(test_bad_description_files),
        cmocka_unit_test(test_build),
        cmocka_unit_test(test_bad_entries),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_bit_flip),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_other_model),
        cmocka_unit_test(test_what_differs),
        cmocka_unit_test(test_no_bank),
        cmocka_unit_test(test_forged_files),
        cmocka_unit_test(test_bank_of_a_model_folder),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
