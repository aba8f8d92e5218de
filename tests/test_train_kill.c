/* test_train_kill.c - radz-train killed at its system calls, by strace, or refused one of them: what is on the disk is
 * the old or the new, and --resume ends as if nothing had been. SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "train_fixture.h"

#define CALLS "openat,write,fsync,rename,unlink,mkdir"
enum { MAX_WORDS = 48, MAX_KILLS = 400, MAX_FILES = 32 };

static train_env e;
static radz_error err;
static const char *const *how; /* options of the run that is killed */

/* ---- Running ---------------------------------------------------------------------------------------------- */

typedef struct words {
    const char *w[MAX_WORDS];
    size_t n;
} words;

static void add(words *x, const char *word)
{
    assert_true(x->n + 1 < MAX_WORDS);
    x->w[x->n++] = word;
    x->w[x->n] = NULL;
}

/* Its wait status; what it says goes to e.dir/said. */
static int spawn(const words *x)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        int out = open(fixture_path(e.dir, "said"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(out, 1), dup2(out, 2);
        alarm(120);
        execvp(x->w[0], (char *const *)(uintptr_t)x->w);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static bool strace_works(void)
{
    words x = {{"strace", "-o", "/dev/null", "-e", "trace=none", "true"}, 6};
    return spawn(&x) == 0;
}

/* radz-train on its way to the 4th step into `out`. */
static void add_run(words *x, const char *out)
{
    const char *const common[] = {fixture_program("radz-train"),
                                  "--quiet",
                                  "--threads",
                                  "1",
                                  "--validate-every",
                                  "2",
                                  "--checkpoint-every",
                                  "1",
                                  "--epochs",
                                  "2",
                                  "--batch",
                                  "4",
                                  "--model",
                                  e.model,
                                  "--manifest",
                                  e.manifest,
                                  "--diseases",
                                  e.diseases,
                                  "--out",
                                  out};
    for (size_t i = 0; i < RZ_COUNT(common); i++) add(x, common[i]);
    for (size_t i = 0; how[i]; i++) add(x, how[i]);
}

static void must_end_well(const words *x, const char *when)
{
    if (spawn(x) == 0) return;
    fail_msg("%s: %s", when, fixture_read(fixture_path(e.dir, "said"), NULL));
}

static void run_to(const char *out, const char *more, const char *argument)
{
    words x = {0};
    add_run(&x, out);
    if (more) add(&x, more);
    if (argument) add(&x, argument);
    must_end_well(&x, out);
}

/* ---- Folders ------------------------------------------------------------------------------------------------ */

static void copy_folder(const char *from, const char *to)
{
    words x = {{"cp", "-r", from, to}, 4};
    fixture_remove(to);
    must_end_well(&x, "cp");
}

static bool same_file(const char *a, const char *b, const char *name)
{
    size_t n = 0, m = 0;
    if (!rz_path_exists(fixture_path(a, name)) || !rz_path_exists(fixture_path(b, name))) return false;
    char *x = fixture_read(fixture_path(a, name), &n), *y = fixture_read(fixture_path(b, name), &m);
    bool same = n == m && !memcmp(x, y, n);
    free(x), free(y);
    return same;
}

/* Calls look for every file of `dir`; temporary ones that a kill has left are nobody's. */
static void each_file(const char *dir, void (*look)(const char *name))
{
    struct dirent *d;
    DIR *all = opendir(dir);
    assert_non_null(all);
    while ((d = readdir(all)))
        if (d->d_type == DT_REG && d->d_name[0] != '.' && !strstr(d->d_name, ".new")) look(d->d_name);
    closedir(all);
}

static char *whole, *start, *late, *trace;
static int now; /* the kill */

/* train.json has the time that a run took; the log is at any point between the two. */
static bool has_a_time(const char *name)
{
    return !strcmp(name, "train.json") || !strcmp(name, "train.jsonl");
}

static void is_old_or_new(const char *name)
{
    if (!has_a_time(name) && !same_file(late, start, name) && !same_file(late, whole, name))
        fail_msg("kill %d: %s is neither the old nor the new", now, name);
}

static void is_new(const char *name)
{
    if (strcmp(name, "train.json") && !same_file(late, whole, name))
        fail_msg("kill %d: %s is not as in an unbroken run", now, name);
}

static void is_new_but_for_the_log(const char *name)
{
    if (!has_a_time(name)) is_new(name);
}

/* What a killed save began is gone with the next run. */
static void no_leftovers(const char *dir)
{
    struct dirent *d;
    DIR *all = opendir(dir);
    assert_non_null(all);
    while ((d = readdir(all)))
        if (!strncmp(d->d_name, ".radz-", 6)) fail_msg("kill %d: %s/%s is left", now, dir, d->d_name);
    closedir(all);
}

static void ends_as_if_nothing_had_been(void)
{
    run_to(late, "--resume", NULL);
    each_file(whole, is_new);
    no_leftovers(late);
    char *checkpoint = strdup(fixture_path(late, "checkpoint"));
    no_leftovers(checkpoint);
    free(checkpoint);
}

/* The weights are of one step, those of radz.safetensors of another: each export writes them in this order. */
static bool mixed(const char *weights)
{
    return same_file(late, whole, weights) && same_file(late, start, "radz.safetensors");
}

static int n_mixed;

/* The model is the old, the new, or says that its files are of both. */
static void opens_or_says_why(void)
{
    radz_model *model;
    radz_status st = radz_model_open(NULL, late, NULL, &model, &err);
    radz_model_close(model);
    const bool bad = mixed("adapter_model.safetensors") || mixed("model.safetensors");
    n_mixed += bad;
    if (!bad && !st) return;
    if (!bad || st != RADZ_E_MISMATCH || !strstr(err.message, "is of another save than"))
        fail_msg("kill %d: %s", now, st ? err.message : "files of two saves open together");
}

/* ---- Where to kill ---------------------------------------------------------------------------------------------- */

typedef struct kill_point {
    char call[16];
    int n;      /* the how manieth of its kind, in the thread that saves */
    bool saves; /* of the output folder, and not to read */
} kill_point;

static kill_point points[MAX_KILLS];
static size_t n_points;

/* "PID call(arguments) = result" of the first thread. */
static void read_line(const char *line, long *first, int counts[], const char *const calls[])
{
    char call[16], *rest;
    long pid = strtol(line, &rest, 10);
    if (sscanf(rest, " %15[a-z0-9](", call) != 1) return;
    if (!*first) *first = pid;
    if (pid != *first) return;
    size_t k = 0;
    while (calls[k] && strcmp(calls[k], call)) k++;
    if (!calls[k]) return;
    counts[k]++;
    bool reads = !strcmp(call, "openat") && !strstr(line, "O_CREAT");
    if (reads || !strstr(line, late)) return;
    assert_true(n_points < MAX_KILLS);
    points[n_points].n = counts[k];
    snprintf(points[n_points++].call, sizeof call, "%s", call);
}

static void add_strace(words *x, const char *inject)
{
    add(x, "strace"), add(x, "-f"), add(x, "-y"), add(x, "-o"), add(x, trace);
    add(x, "-e"), add(x, inject ? inject : "trace=" CALLS);
}

/* Takes down the calls of a run that nobody disturbs. */
static void find_points(void)
{
    static const char *const calls[] = {"openat", "write", "fsync", "rename", "unlink", "mkdir", NULL};
    int counts[RZ_COUNT(calls)] = {0};
    words x = {0};
    long first = 0;
    char line[4096];
    n_points = 0;
    copy_folder(start, late);
    add_strace(&x, NULL);
    add_run(&x, late), add(&x, "--resume");
    must_end_well(&x, "strace");
    FILE *f = fopen(trace, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) read_line(line, &first, counts, calls);
    fclose(f);
}

static void kill_at(const kill_point *p)
{
    char inject[64];
    words x = {0};
    snprintf(inject, sizeof inject, "inject=%s:signal=SIGKILL:when=%d", p->call, p->n);
    copy_folder(start, late);
    add_strace(&x, inject);
    add_run(&x, late), add(&x, "--resume");
    int status = spawn(&x);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("%s %d: not killed: status %d", p->call, p->n, status);
}

/* ---- The tests --------------------------------------------------------------------------------------------------- */

/* Every call of a run from step 2 on: settings, log, exports, checkpoints, report. RADZ_EVERY_CALL: all of them, else
 * as many as a test has time for. */
static void kill_everywhere(const char *const *options, size_t stride)
{
    if (!strace_works()) {
        print_message("no strace, or it may not trace: not killed anywhere\n");
        skip();
    }
    how = options;
    run_to(whole, NULL, NULL);
    run_to(start, "--stop-after", "2");
    find_points();
    each_file(whole, is_new); /* late: resumed, not killed */
    if (getenv("RADZ_EVERY_CALL")) stride = 1;
    size_t n_killed = 0;
    n_mixed = 0;
    for (size_t i = 0; i < n_points; i += stride, n_killed++) {
        now = (int)i;
        kill_at(&points[i]);
        each_file(late, is_old_or_new);
        opens_or_says_why();
        ends_as_if_nothing_had_been();
    }
    print_message("killed at %zu of %zu calls\n", n_killed, n_points);
    assert_true(n_killed > 10 && n_mixed > 0);
}

static const char *const lora[] = {"--lora-rank", "2", "--lora-alpha", "4", "--lora-dropout", "0.3", NULL};

static void an_adapter(void **state)
{
    (void)state;
    kill_everywhere(lora, 1);
}

static void whole_weights(void **state)
{
    (void)state;
    static const char *const all[] = {"--lora-rank", "0", NULL};
    kill_everywhere(all, 2);
}

/* ---- A disk that refuses ---------------------------------------------------------------------------------------- */

/* The run that could not go on says so in one line. */
static void must_say(int status, const char *what, const char *why)
{
    char *said = fixture_read(fixture_path(e.dir, "said"), NULL);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 1) fail_msg("%s: status %d: %s", what, status, said);
    if (!strstr(said, why)) fail_msg("%s: expected '%s': %s", what, why, said);
    free(said);
}

/* Call p of the run fails: false where it goes on, because it was one for the log. */
static bool refuse_at(const kill_point *p, const char *error, const char *why)
{
    char inject[80];
    words x = {0};
    snprintf(inject, sizeof inject, "inject=%s:error=%s:when=%d", p->call, error, p->n);
    copy_folder(start, late);
    add_strace(&x, inject);
    add_run(&x, late), add(&x, "--resume");
    int status = spawn(&x);
    if (status == 0) return false;
    must_say(status, inject, why);
    return true;
}

/* Every call of an export or a checkpoint is refused once: the run ends with a line that says why, the old files or the
 * new are there, and the next run goes on from them. */
static void calls_that_are_refused(void **state)
{
    (void)state;
    static const char *const errors[][3] = {
        {"openat", "ENOSPC", "no space left"}, {"write", "ENOSPC", "no space left"},
        {"write", "EIO", "input/output"},      {"fsync", "EIO", "input/output"},
        {"rename", "EROFS", "read-only"},      {"mkdir", "ENOSPC", "no space left"}};
    size_t n_refused = 0;
    if (!strace_works()) skip();
    how = lora;
    run_to(whole, NULL, NULL);
    run_to(start, "--stop-after", "2");
    find_points();
    const size_t stride = getenv("RADZ_EVERY_CALL") ? 1 : 3;
    for (size_t k = 0; k < RZ_COUNT(errors); k++)
        for (size_t i = 0; i < n_points; i += stride) {
            if (strcmp(points[i].call, errors[k][0])) continue;
            now = (int)i;
            if (!refuse_at(&points[i], errors[k][1], errors[k][2])) {
                each_file(whole, is_new_but_for_the_log);
                continue;
            }
            n_refused++;
            each_file(late, is_old_or_new);
            opens_or_says_why();
            no_leftovers(late);
            ends_as_if_nothing_had_been();
        }
    print_message("refused %zu calls\n", n_refused);
    assert_true(n_refused > 6);
}

/* A disk of 1 MB that is full but for less than a checkpoint, and then has room again. */
static void a_full_disk(void **state)
{
    (void)state;
    words x = {0};
    how = lora;
    run_to(whole, NULL, NULL);
    run_to(start, "--stop-after", "2");
    fixture_remove(late);
    assert_int_equal(mkdir(late, 0700), 0);
    if (mount("radz", late, "tmpfs", 0, "size=1m")) skip();
    const char *const copy[] = {"cp", "-r", fixture_path(start, "."), late};
    for (size_t i = 0; i < RZ_COUNT(copy); i++) add(&x, copy[i]);
    must_end_well(&x, "cp");
    struct statvfs room;
    char *filler = strdup(fixture_path(late, "filler"));
    assert_int_equal(statvfs(late, &room), 0);
    int fd = open(filler, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(posix_fallocate(fd, 0, (off_t)((room.f_bavail - 2) * room.f_bsize)), 0);
    close(fd);
    words run = {0};
    add_run(&run, late), add(&run, "--resume");
    must_say(spawn(&run), "full disk", "no space left");
    each_file(start, is_old_or_new);
    no_leftovers(late);
    assert_int_equal(unlink(filler), 0);
    free(filler);
    ends_as_if_nothing_had_been();
    assert_int_equal(umount(late), 0);
}

/* ---- A log that cannot be written ---------------------------------------------------------------------------- */

/* What the log has is what it had, and what it has beyond that is as in an unbroken run. */
static void check_log(const char *what)
{
    size_t n_old, n_now, n_whole;
    char *was = fixture_read(fixture_path(start, "train.jsonl"), &n_old);
    char *is = fixture_read(fixture_path(late, "train.jsonl"), &n_now);
    char *all = fixture_read(fixture_path(whole, "train.jsonl"), &n_whole);
    if (n_now < n_old || memcmp(was, is, n_old) != 0) fail_msg("%s: lines of before are lost", what);
    if (n_now > n_whole || memcmp(is, all, n_now) != 0) fail_msg("%s: other lines than in an unbroken run", what);
    free(was), free(is), free(all);
}

static void log_refused(const char *file, const char *inject)
{
    words x = {{"strace", "-f", "-o", trace, "-P", fixture_path(late, file), "-e", inject}, 8};
    copy_folder(start, late);
    add_run(&x, late), add(&x, "--resume");
    must_end_well(&x, inject);
    char *said = fixture_read(fixture_path(e.dir, "said"), NULL);
    if (!strstr(said, "training goes on without")) fail_msg("%s of %s: no warning", inject, file);
    free(said);
    check_log(inject);
    is_new("adapter_model.safetensors"), is_new("radz.safetensors");
}

static void a_log_that_cannot_be_written_is_not_lost(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"train.jsonl.new", "inject=openat:error=ENOSPC"}, {"train.jsonl.new", "inject=write:error=ENOSPC"},
        {"train.jsonl.new", "inject=write:error=EIO"},     {"train.jsonl.new", "inject=fsync:error=EIO"},
        {"train.jsonl.new", "inject=rename:error=EACCES"}, {"train.jsonl", "inject=read:error=EIO"},
        {"train.jsonl", "inject=write:error=ENOSPC"},      {"train.jsonl", "inject=write:error=EIO:when=2"},
        {"train.jsonl", "inject=fsync:error=EIO:when=1"}};
    if (!strace_works()) skip();
    how = lora;
    run_to(whole, NULL, NULL);
    run_to(start, "--stop-after", "2");
    for (size_t i = 0; i < RZ_COUNT(cases); i++) log_refused(cases[i][0], cases[i][1]);
}

/* ---- Data ---------------------------------------------------------------------------------------------------------
 */

/* Every validation film is ill: without an AUC each validation writes the model. */
static void write_rows(void)
{
    rz_str s = {0};
    rz_str_puts(&s, "path,labels,split\n");
    for (int i = 0; i < 10; i++)
        rz_str_printf(&s, "film%d.png,%s,%s\n", i, i % 2 || i > 7 ? "Ill" : "No Finding", i < 8 ? "train" : "val");
    fixture_write_text(e.manifest, s.data);
    rz_str_free(&s);
}

static int set_up(void **state)
{
    (void)state;
    struct stat st;
    if (!getenv("TMPDIR") && !stat("/dev/shm", &st) && !access("/dev/shm", W_OK))
        setenv("TMPDIR", "/dev/shm", 1); /* hundreds of fsyncs */
    /* what leaks when killed is nobody's, and leaks cannot be looked for under strace */
    setenv("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1", 1);
    train_env_open(&e);
    fixture_model(e.model, 5);
    write_rows();
    whole = strdup(fixture_path(e.dir, "whole")), start = strdup(fixture_path(e.dir, "start"));
    late = strdup(fixture_path(e.dir, "late")), trace = strdup(fixture_path(e.dir, "trace"));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(whole), free(start), free(late), free(trace);
    train_env_close(&e);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(an_adapter), TEST(whole_weights), TEST(calls_that_are_refused),
                                       TEST(a_full_disk), TEST(a_log_that_cannot_be_written_is_not_lost)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
