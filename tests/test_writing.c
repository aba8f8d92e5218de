/* test_writing.c - radz-generate, and radz-bank where a model writes or reads many descriptions, as their users meet
 * them. SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "fixture.h"
#include "formats.h"
#include "run_program.h"

#define STORIES "tests/data/stories260K" /* writes, if not about diseases */
#define TINY "models/radz-tiny"
#define FILM "examples/data/nih_00006759_001.jpg"
#define ENTITIES "tests/data/entities75.txt"
#define ASK "--prompt", "Once upon a time there was {disease}", "--max-tokens", "60", "--seed", "2"

static radz_error err;
static char *dir, *generate, *bank, *classify, *saved;

#define RUN(program, ...) run_program((const char *const[]){program, __VA_ARGS__, NULL}, NULL, TO_FILE)

static int setup(void **state)
{
    (void)state;
    run_folder = dir = fixture_temp_dir();
    generate = strdup(fixture_program("radz-generate"));
    bank = strdup(fixture_program("radz-bank"));
    classify = strdup(fixture_program("radz-classify"));
    saved = strdup(fixture_path(dir, "saved.safetensors"));
    setenv("RADZ_MODEL", STORIES, 1);
    setenv("LC_ALL", "C", 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(dir);
    free(dir), free(generate), free(bank), free(classify), free(saved);
    return 0;
}

/* ---- radz-generate ---- */

static void test_help_and_version(void **state)
{
    (void)state;
    static const char *const options[] = {"--help", "--version"};
    for (size_t i = 0; i < 2; i++) {
        const char *const argv[] = {generate, options[i], NULL};
        run r = run_program(argv, NULL, TO_FILE);
        run_expect(&r, 0, i ? radz_version() : "usage: radz-generate", NULL);
        assert_string_equal(r.err, "");
        run_done(&r);
        r = run_program(argv, NULL, TO_FULL);
        run_expect(&r, 1, NULL, "cannot write to standard output");
        run_done(&r);
        r = run_program(argv, NULL, TO_NOTHING);
        run_expect(&r, 1, NULL, "standard output is closed");
        run_done(&r);
    }
}

static void test_wrong_usage(void **state)
{
    (void)state;
    static const struct {
        const char *args[6], *words;
    } cases[] = {
        {{"--bogus"}, "unknown option --bogus"},
        {{"Once"}, "unexpected argument Once: the prompt goes after --prompt"},
        {{"--prompt"}, "--prompt needs a value"},
        {{"--prompt", "a", "--prompt", "b"}, "--prompt is given twice"},
        {{"--prompt", "a", "--temperature", "-1"}, "--temperature"},
        {{"--prompt", "a", "--temperature", "nan"}, "--temperature"},
        {{"--prompt", "a", "--top-p", "2"}, "--top-p"},
        {{"--prompt", "a", "--top-p", "0"}, "top_p"},
        {{"--prompt", "a", "--max-tokens", "0"}, "--max-tokens"},
        {{"--prompt", "a", "--seed", "-1"}, "--seed"},
        {{"--prompt", "a", "--seed", "18446744073709551616"}, "--seed"},
        {{"--prompt", "a", "--stop", ""}, "--stop needs a value"},
        {{"--prompt", "a", "--template", "alpaca"}, "--template: expected one of auto|plain|vicuna_v1"},
        {{"--prompt", "a", "--template", "chatml"}, "tokenizer has no <|im_end|>"},
        {{"--prompt", "a", "--model", "/nowhere"}, "/nowhere"},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        const char *argv[8] = {generate};
        for (size_t k = 0; k < 6 && cases[i].args[k]; k++) argv[k + 1] = cases[i].args[k];
        run r = run_program(argv, NULL, TO_FILE);
        run_expect(&r, 2, NULL, cases[i].words);
        assert_string_equal(r.out, "");
        run_done(&r);
    }
}

/* What is printed is the answer, whole; what is said about it goes elsewhere. */
static void test_answer(void **state)
{
    (void)state;
    char *story = fixture_read(STORIES "/greedy256.txt", NULL);
    fixture_write_text(fixture_path(dir, "empty"), "\r\n\n");
    run r = run_program((const char *const[]){generate, NULL}, fixture_path(dir, "empty"), TO_FILE);
    run_expect(&r, 0, NULL, "256 tokens after a prompt of 1, cut at the longest length. Research use only");
    assert_string_equal(r.out, story);
    run_done(&r);
    fixture_write_text(fixture_path(dir, "prompt"), "Once upon a time\n");
    r = run_program((const char *const[]){generate, "--quiet", NULL}, fixture_path(dir, "prompt"), TO_FILE);
    run_expect(&r, 0, ", there was a little girl named Lily.", NULL);
    assert_string_equal(r.err, "");
    run done = RUN(generate, "--quiet", "--prompt", "Once upon a time", "--threads", "1");
    assert_string_equal(done.out, r.out);
    run_done(&done);
    run_done(&r);
    free(story);
}

static void test_stop(void **state)
{
    (void)state;
    run r = RUN(generate, "--prompt", "Once upon a time", "--stop", "never", "--stop=outside i");
    run_expect(&r, 0, NULL, "tokens after a prompt of 5. Research");
    assert_string_equal(r.out, ", there was a little girl named Lily. She loved to play \n");
    run_done(&r);
}

static void test_seed(void **state)
{
    (void)state;
    static const char *const seeds[] = {"3", "3", "18446744073709551615"};
    run r[3];
    for (size_t i = 0; i < 3; i++) {
        r[i] = RUN(generate, "--prompt", "Once", "--temperature", "1", "--top-p", ".95", "--max-tokens", "60", "--seed",
                   seeds[i], "--threads", i ? "2" : "1");
        run_expect(&r[i], 0, NULL, NULL);
    }
    assert_string_equal(r[0].out, r[1].out);
    assert_string_not_equal(r[0].out, r[2].out);
    for (size_t i = 0; i < 3; i++) run_done(&r[i]);
}

static void test_bad_input(void **state)
{
    (void)state;
    char *broken = strdup(fixture_path(dir, "broken.png")), *nul = strdup(fixture_path(dir, "nul"));
    fixture_write_text(broken, "not a film");
    fixture_write(nul, "a\0b", 3);
    run r = run_program((const char *const[]){generate, NULL}, nul, TO_FILE);
    run_expect(&r, 2, NULL, "standard input: holds a NUL byte");
    run_done(&r);
    r = run_program((const char *const[]){generate, NULL}, dir, TO_FILE);
    run_expect(&r, 2, NULL, "standard input: ");
    run_done(&r);
    r = RUN(generate, "--prompt", "a", "--image", FILM); /* reads no films */
    run_expect(&r, 1, NULL, "no vision tower");
    run_done(&r);
    r = RUN(generate, "--prompt", "a", "--model", TINY, "--image", broken);
    run_expect(&r, 1, NULL, "broken.png");
    run_done(&r);
    r = RUN(generate, "--prompt", "a", "--model", TINY, "--image", "/nowhere.png");
    run_expect(&r, 1, NULL, "/nowhere.png");
    run_done(&r);
    r = RUN(generate, "--prompt", "a", "--model", "tests/parity/variants/defaults");
    run_expect(&r, 1, NULL, "cannot write: it has no tokenizer");
    run_done(&r);
    char *text = calloc(1, 5001);
    assert_non_null(text);
    memset(text, 'q', 5000);
    r = RUN(generate, "--prompt", text);
    run_expect(&r, 2, NULL, "the model takes at most 512");
    run_done(&r);
    free(text), free(broken), free(nul);
}

/* A film in the prompt takes its rows. radz-tiny was trained for vectors alone and says so; random weights write. */
static void test_film(void **state)
{
    (void)state;
    run tiny = RUN(generate, "--model", TINY, "--prompt", "What is it?", "--image", FILM);
    run_expect(&tiny, 1, NULL, "the model cannot write");
    run_done(&tiny);
    char *model = fixture_temp_dir();
    fixture_model(model, 1);
    run bare = RUN(generate, "--model", model, "--max-tokens", "3", "--prompt", "What is it?");
    run film = RUN(generate, "--model", model, "--max-tokens", "3", "--prompt", "What is it?", "--image", FILM);
    int n_bare = 0, n_film = 0;
    run_expect(&bare, 0, NULL, "after a prompt of ");
    run_expect(&film, 0, NULL, "after a prompt of ");
    sscanf(strstr(bare.err, "prompt of "), "prompt of %d", &n_bare);
    sscanf(strstr(film.err, "prompt of "), "prompt of %d", &n_film);
    assert_true(n_bare > 3 && n_film > n_bare + 4);
    run_done(&bare);
    run_done(&film);
    fixture_remove(model);
    free(model);
}

static void test_broken_output(void **state)
{
    (void)state;
    const char *const argv[] = {generate, "--prompt", "Once", NULL};
    run r = run_program(argv, NULL, TO_FULL);
    run_expect(&r, 1, NULL, "cannot write to standard output: No space left");
    run_done(&r);
    r = run_program(argv, NULL, TO_NOTHING);
    run_expect(&r, 1, NULL, "standard output is closed");
    run_done(&r);
}

/* Ctrl-C while it writes: it ends there, as a shell expects of it, and what was written is there. The pipe has no room
 * for the whole story, so it cannot be done too early. */
static void test_interrupted(void **state)
{
    (void)state;
    enum { ROOM = 24 };
    static char fill[1 << 16];
    int ends[2], size, status, n = 0;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    size = fcntl(ends[1], F_SETPIPE_SZ, 4096);
    assert_true(size >= 4096 && (size_t)size <= sizeof fill);
    assert_int_equal(write(ends[1], fill, (size_t)size - ROOM), size - ROOM);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], 1);
        dup2(open("/dev/null", O_RDWR), 2);
        alarm(120);
        execl(generate, generate, "--quiet", "--prompt", "Once upon a time", (char *)NULL);
        _exit(127);
    }
    do {
        usleep(1000);
        assert_int_equal(ioctl(ends[0], FIONREAD, &n), 0);
    } while (n <= size - ROOM && waitpid(pid, &status, WNOHANG) == 0);
    assert_int_equal(kill(pid, SIGINT), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    assert_int_equal(ioctl(ends[0], FIONREAD, &n), 0);
    assert_int_equal(read(ends[0], fill, (size_t)n), n);
    n -= size - ROOM;
    assert_true(n > 0 && n <= ROOM);
    assert_memory_equal(fill + size - ROOM, ", there was a little girl", (size_t)n);
    close(ends[0]), close(ends[1]);
}

/* ---- radz-bank: the model writes ---- */

static json_t *listed(const char *path)
{
    json_t *root;
    run r = RUN(bank, "list", "--json", "--bank", path);
    run_expect(&r, 0, NULL, NULL);
    if (rz_json_parse(r.out, r.n_out, "stdout", &root, &err)) fail_msg("%s: %s", err.message, r.out);
    run_done(&r);
    return root;
}

static const char *class_text(const json_t *root, size_t i, const char *key)
{
    return json_string_value(json_object_get(json_array_get(json_object_get(root, "classes"), i), key));
}

static bool class_written(const json_t *root, size_t i)
{
    return json_is_true(json_object_get(json_array_get(json_object_get(root, "classes"), i), "written"));
}

/* The lines that describe prints are a file for build. */
static void test_describe(void **state)
{
    (void)state;
    char *list = strdup(fixture_path(dir, "described.txt")), *again = strdup(fixture_path(dir, "again.safetensors"));
    run r = RUN(bank, "describe", "--out", saved, ASK, "a dog", "a cat");
    run_expect(&r, 0, "a dog: ", NULL);
    fixture_write_text(list, r.out);
    json_t *root = listed(saved), *copy;
    char line[1024];
    snprintf(line, sizeof line, "\na cat: %s\n", class_text(root, 1, "description"));
    run_expect(&r, 0, line, NULL);
    assert_true(class_written(root, 0) && class_written(root, 1));
    json_t *writer = json_object_get(root, "writer");
    assert_int_equal(json_integer_value(json_object_get(writer, "seed")), 2);
    assert_int_equal(json_integer_value(json_object_get(writer, "max_tokens")), 60);
    run_done(&r);

    r = RUN(bank, "describe", ASK, "a cat"); /* alone, and kept nowhere */
    assert_string_equal(r.out, line + 1);
    run_done(&r);
    r = RUN(bank, "build", "--diseases", list, "--out", again);
    run_expect(&r, 0, "2 classes", NULL);
    assert_string_equal(r.err, ""); /* nothing had to be written */
    run_done(&r);
    copy = listed(again);
    assert_false(class_written(copy, 0));
    assert_string_equal(class_text(copy, 0, "description"), class_text(root, 0, "description"));
    json_decref(copy);
    json_decref(root);
    free(list), free(again);
}

static void test_build_and_edit(void **state)
{
    (void)state;
    char *list = strdup(fixture_path(dir, "names.txt")), *edited = strdup(fixture_path(dir, "edited.safetensors"));
    fixture_write_text(list, "# one to write, one that is there\na dog\na bird: It can fly.\nNo Finding: Nothing.\n");
    run r = RUN(bank, "build", "--diseases", list, "--out", saved, ASK);
    run_expect(&r, 0, "3 classes, bank ", "a dog: ");
    assert_null(strstr(r.err, "a bird"));
    run_done(&r);
    json_t *before = listed(saved), *after;
    assert_true(class_written(before, 0) && !class_written(before, 1) && !class_written(before, 2));
    assert_string_equal(class_text(before, 1, "description"), "It can fly.");

    r = RUN(bank, "edit", "--bank", saved, "--out", edited, "--label", "A DOG", "--description", "It barks.");
    run_expect(&r, 0, "3 classes", NULL);
    run_done(&r);
    after = listed(edited);
    assert_string_equal(class_text(after, 0, "description"), "It barks.");
    assert_false(class_written(after, 0));
    json_t *a = json_array_get(json_object_get(before, "classes"), 1);
    assert_true(json_equal(a, json_array_get(json_object_get(after, "classes"), 1)));
    assert_string_not_equal(json_string_value(json_object_get(before, "hash")),
                            json_string_value(json_object_get(after, "hash")));
    json_decref(after);
    json_decref(before);
    r = RUN(bank, "verify", "--rebuild", "--bank", edited);
    run_expect(&r, 0, "anchors: as this model makes them", NULL);
    run_done(&r);
    free(list), free(edited);
}

static void test_bank_refusals(void **state)
{
    (void)state;
    char *list = strdup(fixture_path(dir, "bad.txt"));
    const struct {
        const char *args[12], *words;
        int status;
    } cases[] = {
        {{"describe"}, "no class given", 2},
        {{"describe", "a", "--prompt", "no place"}, "{disease}", 2},
        {{"describe", "a dog", "A Dog"}, "comes twice", 2},
        {{"describe", "a dog", "--max-tokens", "2"}, "'a dog'", 1},
        {{"describe", "a dog", "--model", TINY}, "cannot write", 1},
        {{"build", "--out", saved, "--diseases", list}, "bad.txt: line 2: description is empty", 1},
        {{"build", "--out", "/nowhere/b", "a"}, "/nowhere", 1},
        {{"edit", "--bank", saved, "--label", "a cow"}, "--label and --description", 2},
        {{"edit", "--bank", saved, "--label", "a cow", "--description", "It moos."}, "no class 'a cow'", 2},
        {{"edit", "--bank", saved, "--label", "a dog", "--description", " "}, "description is empty", 2},
        {{"edit", "--bank", saved, "--label", "a dog", "--description", "x", "--model", TINY}, "another model", 1},
        {{"edit", "--label", "a dog", "--description", "x"}, "--out or --bank", 2},
    };
    fixture_write_text(list, "a: b\nc:\n");
    run r = RUN(bank, "build", "--out", saved, "a dog: It barks.", "No Finding");
    run_expect(&r, 0, NULL, NULL);
    run_done(&r);
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        const char *argv[14] = {bank};
        for (size_t k = 0; k < 12 && cases[i].args[k]; k++) argv[k + 1] = cases[i].args[k];
        r = run_program(argv, NULL, TO_FILE);
        run_expect(&r, cases[i].status, NULL, cases[i].words);
        assert_string_equal(r.out, "");
        run_done(&r);
    }
    r = run_program((const char *const[]){bank, "describe", ASK, "a dog", NULL}, NULL, TO_FULL);
    run_expect(&r, 1, NULL, NULL);
    run_done(&r);
    free(list);
}

/* ---- radz-bank: many classes ---- */

static void test_entities(void **state)
{
    (void)state;
    enum { N = 75 };
    setenv("RADZ_MODEL", TINY, 1);
    run r = RUN(bank, "build", "--diseases", ENTITIES, "--out", saved);
    run_expect(&r, 0, "75 classes, bank ", NULL);
    run_done(&r);
    r = RUN(bank, "verify", "--rebuild", "--bank", saved);
    run_expect(&r, 0, "75 classes of ", NULL);
    run_done(&r);
    json_t *root = listed(saved), *result;
    assert_string_equal(json_string_value(json_object_get(root, "reference")), "Normal");
    for (size_t i = 0; i < N; i++) assert_true(class_text(root, i, "label") && class_text(root, i, "description"));
    json_decref(root);

    r = RUN(classify, "--bank", saved, "--json", "--quiet", FILM);
    run_expect(&r, 0, NULL, NULL);
    if (rz_json_parse(r.out, r.n_out, "stdout", &result, &err)) fail_msg("%s: %s", err.message, r.out);
    json_t *scores = json_object_get(result, "scores");
    assert_int_equal(json_array_size(scores), N);
    double last = 1;
    for (size_t i = 0; i < N; i++) {
        const json_t *s = json_array_get(scores, i);
        double p = json_real_value(json_object_get(s, "probability")),
               c = json_real_value(json_object_get(s, "similarity"));
        assert_true(p >= 0 && p <= last && c > -1 && c < 1);
        last = p;
    }
    json_decref(result);
    run_done(&r);
    setenv("RADZ_MODEL", STORIES, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help_and_version),
        cmocka_unit_test(test_wrong_usage),
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_film),
        cmocka_unit_test(test_broken_output),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_build_and_edit),
        cmocka_unit_test(test_bank_refusals),
        cmocka_unit_test(test_entities),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
