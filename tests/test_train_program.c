/* test_train_program.c - radz-train as its users meet it: Ctrl-C, rows that cannot be used, every objective.
 * SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "formats.h"
#include "train_fixture.h"

enum { MAX_WORDS = 64 };

static train_env e;
static radz_error err;

/* ---- Running ---------------------------------------------------------------------------------------------------- */

static const char *path_of(const char *name)
{
    return fixture_path(e.dir, name);
}

/* radz-train into e.dir/out with options, as words with spaces between; what it says goes to e.dir/said. */
static pid_t start(const char *out, const char *options)
{
    const char *words[MAX_WORDS] = {fixture_program("radz-train"),
                                    "--threads",
                                    "1",
                                    "--model",
                                    e.model,
                                    "--manifest",
                                    e.manifest,
                                    "--diseases",
                                    e.diseases,
                                    "--label-map",
                                    e.label_map,
                                    "--out",
                                    path_of(out)};
    char *copy = strdup(options), *rest = NULL;
    size_t n = 13;
    for (char *w = strtok_r(copy, " ", &rest); w; w = strtok_r(NULL, " ", &rest)) {
        assert_true(n + 1 < MAX_WORDS);
        words[n++] = w;
    }
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        int said = open(path_of("said"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(said, 1), dup2(said, 2);
        alarm(120);
        execv(words[0], (char *const *)(uintptr_t)words);
        _exit(127);
    }
    free(copy);
    return pid;
}

static int end(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status)) fail_msg("ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

static void said(const char *text)
{
    char *all = fixture_read(path_of("said"), NULL);
    if (!strstr(all, text)) fail_msg("'%s' not in: %s", text, all);
    free(all);
}

static void run(int status, const char *out, const char *options)
{
    int got = end(start(out, options));
    if (got == status) return;
    fail_msg("%s: exit %d, not %d: %s", options, got, status, fixture_read(path_of("said"), NULL));
}

static void same(const char *a, const char *b, const char *name)
{
    size_t n, m;
    char *x = fixture_read(fixture_path(path_of(a), name), &n), *y = fixture_read(fixture_path(path_of(b), name), &m);
    if (n != m || memcmp(x, y, n) != 0) fail_msg("%s of %s and %s differ", name, a, b);
    free(x), free(y);
}

static bool is_there(const char *out, const char *name)
{
    return rz_path_exists(fixture_path(path_of(out), name));
}

static char *report(const char *out)
{
    return fixture_read(fixture_path(path_of(out), "train.json"), NULL);
}

/* ---- Ctrl-C -------------------------------------------------------------------------------------------------------
 */

static void wait_for(const char *file, int n_lines)
{
    const struct timespec pause = {0, 2000000};
    for (int tries = 0; tries < 20000; tries++) {
        int n = 0;
        char *text = rz_path_exists(file) ? fixture_read(file, NULL) : strdup("");
        for (const char *c = text; *c; c++) n += *c == '\n';
        free(text);
        if (n >= n_lines) return;
        nanosleep(&pause, NULL);
    }
    fail_msg("no %d lines in %s", n_lines, file);
}

static void interrupted(int signal_number)
{
    static const char options[] = "--epochs 200 --batch 4 --lora-rank 2 --lora-alpha 4 --lora-dropout 0.3";
    char again[256];
    int before;
    snprintf(again, sizeof again, "%s --resume", options);
    run(0, "whole", options);
    pid_t pid = start("parts", options);
    wait_for(fixture_path(path_of("parts"), "train.jsonl"), 3);
    kill(pid, signal_number);
    assert_int_equal(end(pid), 130);
    said("stopped after step "), said("; checkpoint in "), said("The same command with --resume goes on from there.");
    assert_false(is_there("parts", "adapter_config.json")); /* it validates at the end: there is no model yet */
    char *log = fixture_read(fixture_path(path_of("parts"), "train.jsonl"), NULL);
    assert_true(sscanf(strrchr(log, '{'), "{\"step\":%d", &before) == 1 && before >= 3 && before < 800);
    free(log);
    run(0, "parts", again);
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors",
                                        "radz.safetensors",    "anchors.safetensors",
                                        "radz.json",           "train.jsonl"};
    for (size_t i = 0; i < RZ_COUNT(files) - 1; i++) same("whole", "parts", files[i]);
    fixture_remove(path_of("whole")), fixture_remove(path_of("parts"));
}

static void ctrl_c_saves_and_says_how_to_go_on(void **state)
{
    (void)state;
    interrupted(SIGINT);
    interrupted(SIGTERM);
}

/* ---- Rows that cannot be used --------------------------------------------------------------------------------------
 */

static void bad_rows_are_reported_by_line_and_counted(void **state)
{
    (void)state;
    fixture_write_text(path_of("film2.png"), "no film");
    fixture_write_text(e.manifest, "path,labels\n"
                                   "film0.png,Normal\n"
                                   "film1.png\n"
                                   "film2.png,Normal\n"
                                   "film3.png,Ill\n"
                                   "nothing.png,Ill\n"
                                   "film4.png,Normal,x\n"
                                   ",Ill\n");
    run(0, "out", "--epochs 4 --batch 2 --lora-rank 0 --validate-every 1");
    said("index.csv: line 3: 1 fields"), said("index.csv: line 7: 3 fields"), said("index.csv:8: empty path");
    said("manifest: 4 rows to train on, 0 to validate on, 0 without a known label, 3 malformed");
    said("manifest line 4 left out: "), said("manifest line 6 left out: ");
    char *json = report("out");
    assert_non_null(strstr(json, "\"unreadable\":2,\"malformed\":3"));
    free(json);
}

static void bad_rows_stop_where_asked(void **state)
{
    (void)state;
    fixture_write_text(e.manifest, "path,labels\nfilm0.png,Normal\nfilm1.png\n");
    run(1, "out", "--epochs 1 --batch 2 --stop-on-bad-row");
    said("line 3: 1 fields, expected 2");
    fixture_write_text(e.manifest, "path,labels\nfilm0.png,Normal\nnothing.png,Ill\n");
    run(1, "out", "--epochs 1 --batch 2 --stop-on-bad-row");
    said("manifest line 3: ");
    assert_false(is_there("out", "model.safetensors"));
    fixture_write_text(e.manifest, "path,labels\nnothing.png,Ill\n");
    run(1, "out", "--epochs 1 --batch 2");
}

/* ---- Objectives
 * ------------------------------------------------------------------------------------------------------ */

/* The label that the model in `out` finds most likely for a film. */
static void expect_label(const char *out, const char *film, const char *label)
{
    radz_model *model;
    radz_session *session = NULL;
    radz_result *result = NULL;
    radz_status st = radz_model_open(NULL, path_of(out), NULL, &model, &err);
    if (!st) st = radz_session_open(model, NULL, &session, &err);
    if (!st) st = radz_classify_file(session, NULL, path_of(film), &result, &err);
    if (st) fail_msg("%s", err.message);
    size_t best = 0;
    for (size_t i = 1; i < radz_result_count(result); i++)
        if (radz_result_probability(result, i) > radz_result_probability(result, best)) best = i;
    if (label && strcmp(radz_result_label(result, best), label) != 0)
        fail_msg("%s: %s is %s", out, film, radz_result_label(result, best));
    radz_result_close(result), radz_session_close(session), radz_model_close(model);
}

/* Stopped in the middle and gone on with. */
static void in_two_parts(const char *out, const char *parts, const char *options, const char *const *files)
{
    char more[512];
    snprintf(more, sizeof more, "%s --stop-after 2", options);
    run(0, parts, more);
    snprintf(more, sizeof more, "%s --resume", options);
    run(0, parts, more);
    for (size_t i = 0; files[i]; i++) same(out, parts, files[i]);
}

static void a_head_is_trained(void **state)
{
    (void)state;
    static const char options[] =
        "--objective classify --train none --lora-rank 0 --lr 0.5 --epochs 20 --batch 8 --no-augment";
    static const char *const files[] = {"model.safetensors", "radz.safetensors", "radz.json", NULL};
    run(0, "out", options);
    expect_label("out", "film19.png", "Ill");
    in_two_parts("out", "parts", options, files);
    in_two_parts("out", "again", options, files);
}

static void a_head_is_trained_with_an_adapter(void **state)
{
    (void)state;
    static const char options[] = "--objective classify --lora-rank 2 --lora-alpha 4 --lora-dropout 0.1 --lr 0.1 "
                                  "--epochs 20 --batch 8 --no-augment";
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors", "radz.safetensors",
                                        "radz.json", NULL};
    run(0, "out", options);
    assert_false(is_there("out", "model.safetensors"));
    expect_label("out", "film19.png", "Ill");
    in_two_parts("out", "parts", options, files);
}

/* Seeded and stratified: of every label set at least a row stays. */
static void a_head_is_trained_on_a_share_of_the_labels(void **state)
{
    (void)state;
    static const struct {
        const char *fraction;
        int n_train;
    } shares[] = {{"0.01", 2}, {"0.1", 2}, {"0.5", 8}, {"1", 16}};
    for (size_t i = 0; i < RZ_COUNT(shares); i++) {
        char options[256], out[16], want[64];
        snprintf(out, sizeof out, "share%zu", i);
        snprintf(options, sizeof options,
                 "--objective classify --train none --lora-rank 0 --lr 0.5 --epochs 40 --batch 4 --no-augment "
                 "--label-fraction %s",
                 shares[i].fraction);
        run(0, out, options);
        char *json = report(out);
        snprintf(want, sizeof want, "\"train\":%d,", shares[i].n_train);
        if (!strstr(json, want)) fail_msg("%s: not %s", json, want);
        free(json);
        expect_label(out, "film19.png", shares[i].n_train > 2 ? "Ill" : NULL);
    }
}

static void write_answers(void)
{
    rz_str s = {0};
    rz_str_puts(&s, "path,labels,split,prompt,answer\n");
    for (int i = 0; i < TRAIN_FILMS; i++)
        rz_str_printf(&s, "film%d.png,%s,%s,Is it bright?,%s\n", i, i % 2 ? "Ill" : "Normal", i < 16 ? "train" : "val",
                      i % 2 ? "yes it is" : "no");
    fixture_write_text(e.manifest, s.data);
    rz_str_free(&s);
}

/* The share of the bits that an answer costs: exp(-mean loss) of the first and last validation in the log. */
static void learned(const char *out)
{
    double first = -1, last = -1, auc;
    char *log = fixture_read(fixture_path(path_of(out), "train.jsonl"), NULL), *rest = NULL;
    for (char *line = strtok_r(log, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *at = strstr(line, "\"event\":\"validation\",\"auc\":");
        if (!at) continue;
        at += strlen("\"event\":\"validation\",\"auc\":");
        assert_true(rz_parse_double(at, strcspn(at, ","), &auc));
        if (first < 0) first = auc;
        last = auc;
    }
    if (!(first > 0 && last > first)) fail_msg("%s: likelihood of the answers %g, then %g", out, first, last);
    free(log);
}

static void answers_are_trained(void **state)
{
    (void)state;
    static const char *const adapter[] = {"adapter_config.json", "adapter_model.safetensors", NULL},
                             *const whole[] = {"model.safetensors", "config.json", NULL};
    write_answers();
    static const char lora[] = "--objective generate --lora-rank 2 --lora-alpha 4 --lora-dropout 0.1 --lr 0.05 "
                               "--epochs 4 --batch 4 --validate-every 4 --no-augment",
                      all[] = "--objective generate --lora-rank 0 --lr 0.005 --epochs 4 --batch 4 --validate-every 4";
    run(0, "out", lora);
    learned("out");
    in_two_parts("out", "parts", lora, adapter);
    run(0, "all", all);
    learned("all");
    in_two_parts("all", "all_parts", all, whole);
    static const char *const outs[] = {"out", "all"};
    for (size_t i = 0; i < RZ_COUNT(outs); i++) {
        radz_model *model;
        radz_session *session = NULL;
        char *text = NULL;
        radz_status st = radz_model_open(NULL, path_of(outs[i]), NULL, &model, &err);
        if (!st) st = radz_session_open(model, NULL, &session, &err);
        if (!st) st = radz_generate(session, NULL, "Is it bright?", NULL, &text, &err);
        if (st) fail_msg("%s: %s", outs[i], err.message);
        radz_text_free(text), radz_session_close(session), radz_model_close(model);
    }
}

/* ---- Data
 * ------------------------------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    (void)state;
    struct stat st;
    if (!getenv("TMPDIR") && !stat("/dev/shm", &st) && !access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 1);
    train_env_open(&e);
    fixture_model(e.model, 7);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    train_env_close(&e);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(ctrl_c_saves_and_says_how_to_go_on),
        TEST(bad_rows_are_reported_by_line_and_counted),
        TEST(bad_rows_stop_where_asked),
        TEST(a_head_is_trained),
        TEST(a_head_is_trained_with_an_adapter),
        TEST(a_head_is_trained_on_a_share_of_the_labels),
        TEST(answers_are_trained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
