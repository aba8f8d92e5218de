/* test_describe.c - the model describes diseases itself, and a bank remembers it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "describe.h"
#include "failing_host.h"
#include "fixture.h"

#define DIR_STORIES "tests/data/stories260K" /* writes, if not about diseases */

static radz_error err;
static radz_model *model;
static radz_session *session;
static radz_describe_options ask;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

static int setup(void **state)
{
    (void)state;
    ok(radz_model_open(NULL, DIR_STORIES, NULL, &model, &err));
    ok(radz_session_open(model, NULL, &session, &err));
    radz_describe_options_init(&ask);
    ask.prompt = "Once upon a time there was {disease}";
    ask.max_tokens = 60, ask.seed = 2;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    radz_session_close(session);
    radz_model_close(model);
    return 0;
}

static radz_bank *described(const radz_bank_entry *entries, size_t n)
{
    radz_bank *bank;
    ok(radz_bank_describe(session, entries, n, &ask, &bank, &err));
    assert_int_equal(radz_bank_count(bank), n);
    return bank;
}

static void same_class(const radz_bank *a, size_t i, const radz_bank *b, size_t k)
{
    assert_string_equal(radz_bank_label(a, i), radz_bank_label(b, k));
    assert_string_equal(radz_bank_description(a, i), radz_bank_description(b, k));
    assert_int_equal(radz_bank_is_written(a, i), radz_bank_is_written(b, k));
    assert_memory_equal(radz_bank_anchor(a, i), radz_bank_anchor(b, k), radz_bank_dim(a) * sizeof(float));
}

/* Written and given descriptions in one bank; a text depends on nothing but its label. */
static void test_describe(void **state)
{
    (void)state;
    enum { N = 11 }; /* more than are written at once */
    radz_bank_entry entries[N];
    char labels[N][8];
    for (size_t i = 0; i < N; i++) {
        memcpy(labels[i], "a cat ?", 8);
        labels[i][6] = (char)('a' + i);
        entries[i] = (radz_bank_entry){labels[i], i == 4 ? "A given text." : NULL};
    }
    radz_bank *all = described(entries, N), *one = described(entries + 9, 1), *given = NULL;
    for (size_t i = 0; i < N; i++) assert_int_equal(radz_bank_is_written(all, i), i != 4);
    assert_int_equal(radz_bank_is_written(all, N), 0);
    same_class(all, 9, one, 0);
    assert_string_equal(radz_bank_description(all, 4), "A given text.");
    assert_non_null(strstr(radz_bank_writer(all), "\"seed\":2"));
    assert_non_null(strstr(radz_bank_writer(all), "\"temperature\":0.2"));
    assert_non_null(strstr(radz_bank_writer(all), "there was {disease}"));

    /* the anchor is that of the text, whoever wrote it */
    const radz_bank_entry again = {labels[9], radz_bank_description(all, 9)};
    ok(radz_bank_build(session, &again, 1, &given, &err));
    assert_memory_equal(radz_bank_anchor(given, 0), radz_bank_anchor(all, 9), radz_bank_dim(all) * sizeof(float));
    assert_int_equal(radz_bank_is_written(given, 0), 0);
    assert_null(radz_bank_writer(given));
    radz_bank_close(given);

    /* nothing to write: no writer, and the bytes of an ordinary bank */
    ok(radz_bank_describe(session, &again, 1, &ask, &given, &err));
    assert_null(radz_bank_writer(given));
    radz_bank_close(given);
    radz_bank_close(all);
    radz_bank_close(one);
}

static void test_file(void **state)
{
    (void)state;
    char *dir = fixture_temp_dir();
    const char *list = fixture_path(dir, "list.txt"), *path = fixture_path(dir, "bank.safetensors");
    radz_bank *bank, *read, *edited;
    fixture_write_text(list, "# names\na dog\na bird : It can fly.\n\nNo Finding\n");
    assert_int_equal(radz_bank_build_file(session, list, &bank, &err), RADZ_E_FORMAT); /* as ever */
    ok(radz_bank_describe_file(session, list, &ask, &bank, &err));
    assert_int_equal(radz_bank_count(bank), 3);
    assert_int_equal(radz_bank_reference(bank), 2);
    ok(radz_bank_save(bank, path, &err));
    ok(radz_bank_open(model, path, &read, &err));
    for (size_t i = 0; i < 3; i++) same_class(bank, i, read, i);
    assert_string_equal(radz_bank_writer(read), radz_bank_writer(bank));
    assert_string_equal(radz_bank_hash(read), radz_bank_hash(bank));

    ok(radz_bank_edit(session, read, "A DOG", "It barks.", &edited, &err));
    assert_string_equal(radz_bank_label(edited, 0), "a dog");
    assert_string_equal(radz_bank_description(edited, 0), "It barks.");
    assert_int_equal(radz_bank_is_written(edited, 0), 0);
    assert_int_equal(radz_bank_reference(edited), 2);
    for (size_t i = 1; i < 3; i++) same_class(edited, i, bank, i);
    assert_string_not_equal(radz_bank_hash(edited), radz_bank_hash(bank));
    assert_true(memcmp(radz_bank_anchor(edited, 0), radz_bank_anchor(bank, 0), radz_bank_dim(bank) * sizeof(float)));
    radz_bank_close(edited);
    assert_int_equal(radz_bank_edit(session, read, "a cow", "It moos.", &edited, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_bank_edit(session, read, "a dog", " ", &edited, &err), RADZ_E_ARGUMENT);
    assert_null(edited);

    /* without what was written, a bank has no writer in its file */
    ok(radz_bank_without(read, (const char *const[]){"a dog", "no finding"}, 2, &edited, &err));
    const radz_bank_entry bird = {"a bird", "It can fly."};
    radz_bank *plain;
    ok(radz_bank_build(session, &bird, 1, &plain, &err));
    assert_string_equal(radz_bank_hash(edited), radz_bank_hash(plain));
    radz_bank_close(plain);
    radz_bank_close(edited);
    radz_bank_close(bank);
    radz_bank_close(read);
    fixture_remove(dir);
    free(dir);
}

static int stop_at_once(const char *label, const char *description, void *user)
{
    assert_string_equal(label, "a dog");
    assert_true(strlen(description) > 20);
    ++*(int *)user;
    return 1;
}

static void test_refused(void **state)
{
    (void)state;
    const radz_bank_entry dog = {"a dog", NULL}, twice[2] = {dog, dog};
    radz_bank *bank;
    radz_describe_options o = ask;
    int calls = 0;
    o.prompt = "no place";
    assert_int_equal(radz_bank_describe(session, &dog, 1, &o, &bank, &err), RADZ_E_ARGUMENT);
    assert_non_null(strstr(err.message, "{disease}"));
    o = ask, o.temperature = NAN;
    assert_int_equal(radz_bank_describe(session, &dog, 1, &o, &bank, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_bank_describe(session, twice, 2, &ask, &bank, &err), RADZ_E_ARGUMENT);
    o = ask, o.max_tokens = 2; /* hardly a word */
    assert_int_equal(radz_bank_describe(session, &dog, 1, &o, &bank, &err), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "'a dog'"));
    o = ask, o.done_fn = stop_at_once, o.user = &calls;
    assert_int_equal(radz_bank_describe(session, &dog, 1, &o, &bank, &err), RADZ_E_CANCELLED);
    assert_int_equal(calls, 1);
    assert_null(bank);
}

/* ---- Memory runs out ------------------------------------------------------------------------------- */

static radz_status open_on(const rz_host *host, radz_runtime **rt, radz_model **m, radz_session **s)
{
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = 1;
    o.malloc_fn = host->malloc_fn, o.realloc_fn = host->realloc_fn, o.free_fn = host->free_fn, o.user = host->user;
    RZ_TRY(radz_runtime_create(&o, rt, &err));
    RZ_TRY(radz_model_open(*rt, DIR_STORIES, NULL, m, &err));
    return radz_session_open(*m, NULL, s, &err);
}

static radz_status generate_on(radz_session *s)
{
    const char *const stops[] = {"zzz never"};
    radz_generate_options o;
    char *text;
    radz_generate_options_init(&o);
    o.max_tokens = 3, o.stop = stops, o.n_stop = 1, o.temperature = 1, o.system = "Be brief.";
    radz_status status = radz_generate(s, NULL, "Once", &o, &text, &err);
    assert_int_equal(!text, status != RADZ_OK);
    radz_text_free(text);
    return status;
}

static radz_status describe_on(radz_session *s)
{
    const radz_bank_entry entries[] = {{"a dog", NULL}, {"a cat", "It purrs."}};
    radz_describe_options o = ask;
    radz_bank *bank;
    o.max_tokens = 12;
    radz_status status = radz_bank_describe(s, entries, 2, &o, &bank, &err);
    assert_int_equal(!bank, status != RADZ_OK);
    radz_bank_close(bank);
    return status;
}

static radz_status write_on(const rz_host *host, void *arg)
{
    radz_status (*const *work)(radz_session *) = arg;
    radz_runtime *rt = NULL;
    radz_model *m = NULL;
    radz_session *s = NULL;
    radz_status status = open_on(host, &rt, &m, &s);
    if (!status) status = (*work)(s);
    radz_session_close(s), radz_model_close(m), radz_runtime_close(rt);
    return status;
}

static void test_memory(void **state)
{
    (void)state;
    radz_status (*const works[])(radz_session *) = {generate_on, describe_on};
    for (size_t i = 0; i < 2; i++) failing_host_try_all(write_on, (void *)(uintptr_t)&works[i]);
}

/* Random weights, and weights trained for vectors only, are told from a model that writes. */
static void test_cannot_write(void **state)
{
    (void)state;
    const radz_bank_entry dog = {"a dog", NULL};
    char *dir = fixture_temp_dir();
    const char *const dirs[] = {dir, "models/radz-tiny"};
    fixture_model(dir, 3);
    for (size_t i = 0; i < 2; i++) {
        radz_model *m;
        radz_session *s;
        radz_bank *bank;
        ok(radz_model_open(NULL, dirs[i], NULL, &m, &err));
        ok(radz_session_open(m, NULL, &s, &err));
        assert_int_equal(radz_bank_describe(s, &dog, 1, NULL, &bank, &err), RADZ_E_MISMATCH);
        assert_non_null(strstr(err.message, "cannot write"));
        assert_null(bank);
        radz_session_close(s);
        radz_model_close(m);
    }
    fixture_remove(dir);
    free(dir);
}

static void tidy(const char *text, const char *want)
{
    rz_str s = {0};
    rz_str_puts(&s, text);
    rz_description_tidy(&s);
    assert_string_equal(s.data, want);
    assert_int_equal(s.len, strlen(want));
    rz_str_free(&s);
}

static void test_tidy(void **state)
{
    (void)state;
    tidy("", "");
    tidy(" \n ", "");
    tidy("\n a \t b\r\n\nc. ", "a b c.");
    tidy("One sentence. And then it is cut", "One sentence. And then it is cut"); /* less than half would be left */
    tidy("One long sentence. And a half", "One long sentence.");
    tidy("Size 3.5 cm of it! And", "Size 3.5 cm of it!");
    assert_null(rz_description_fault("Collapse of a part of the lung that has lost its air."));
    assert_string_equal(rz_description_fault(""), "hardly a word");
    assert_string_equal(rz_description_fault("]]]];;;;]]]]]]]]]]]]]]]]]"), "hardly a word");
    assert_string_equal(rz_description_fault("abcdefghijklmnopqrstuvwxyz ;;;;;;;;;;;;;;;"), "more signs than letters");
    assert_string_equal(rz_description_fault("lung lung lung lung lung lung lung lung lung lung lung"),
                        "the same words again and again");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_describe), cmocka_unit_test(test_file),
                                       cmocka_unit_test(test_refused),  cmocka_unit_test(test_cannot_write),
                                       cmocka_unit_test(test_memory),   cmocka_unit_test(test_tidy)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
