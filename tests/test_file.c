/* Reading regular files and writing whole files or nothing. SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "failing_host.h"
#include "scratch.h"

static char path[4096];

static const char *in_scratch(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", scratch_dir(), name);
    return path;
}

static int make_scratch(void **state)
{
    (void)state;
    return scratch_make() ? 0 : -1;
}

static int remove_scratch(void **state)
{
    (void)state;
    scratch_remove();
    return 0;
}

static void check_content(const char *name, const char *text)
{
    rz_file f;
    radz_error err;
    if (rz_file_open(NULL, in_scratch(name), RZ_FILE_READ, 1 << 20, &f, &err)) fail_msg("%s", err.message);
    assert_int_equal(f.size, strlen(text));
    assert_memory_equal(f.data, text, f.size);
    rz_file_close(&f);
}

static int count_entries(void)
{
    DIR *d = opendir(scratch_dir());
    int n = 0;
    while (readdir(d)) n++;
    closedir(d);
    return n - 2;
}

/* ---- Reading ---------------------------------------------------------------------------- */

static void both_modes_give_the_bytes(void **state)
{
    (void)state;
    static uint8_t bytes[100000];
    radz_error err;
    rz_rng r;
    rz_rng_seed(&r, 1, 1);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)rz_rng_u64(&r);
    scratch_write("data", bytes, sizeof bytes);
    for (int mode = RZ_FILE_READ; mode <= RZ_FILE_MAP; mode++) {
        rz_file f;
        assert_int_equal(rz_file_open(NULL, in_scratch("data"), (rz_file_mode)mode, sizeof bytes, &f, &err), RADZ_OK);
        assert_int_equal(f.size, sizeof bytes);
        assert_memory_equal(f.data, bytes, sizeof bytes);
        rz_file_close(&f);
        assert_null(f.data);
        rz_file_close(&f);
    }
}

static void empty_file_is_a_file(void **state)
{
    (void)state;
    radz_error err;
    scratch_write("empty", "", 0);
    for (int mode = RZ_FILE_READ; mode <= RZ_FILE_MAP; mode++) {
        rz_file f;
        assert_int_equal(rz_file_open(NULL, in_scratch("empty"), (rz_file_mode)mode, 0, &f, &err), RADZ_OK);
        assert_int_equal(f.size, 0);
        assert_non_null(f.data);
        rz_file_close(&f);
    }
}

static void expect_refused(const char *file, size_t max_bytes, radz_status code, const char *words)
{
    for (int mode = RZ_FILE_READ; mode <= RZ_FILE_MAP; mode++) {
        rz_file f;
        radz_error err;
        assert_int_equal(rz_file_open(NULL, file, (rz_file_mode)mode, max_bytes, &f, &err), code);
        if (!strstr(err.message, words) || !strstr(err.message, file)) fail_msg("%s", err.message);
        assert_null(f.data);
        assert_int_equal(f.size, 0);
        rz_file_close(&f);
    }
}

static void only_regular_files(void **state)
{
    (void)state;
    expect_refused(in_scratch("nothing"), 100, RADZ_E_IO, "no such file");
    expect_refused(scratch_dir(), 100, RADZ_E_IO, "is a directory");
    expect_refused("/dev/zero", 100, RADZ_E_IO, "is a pipe or device");
    scratch_write("eleven", "hello world", 11);
    expect_refused(in_scratch("eleven"), 10, RADZ_E_LIMIT, "11 bytes, at most 10");
    /* Must not wait for a writer, who never comes. */
    assert_int_equal(mkfifo(in_scratch("fifo"), 0600), 0);
    expect_refused(path, 100, RADZ_E_IO, "is a pipe or device");
    expect_refused(in_scratch("eleven/x"), 100, RADZ_E_IO, "not a directory");
}

static void pointers_of_git_are_named(void **state)
{
    (void)state;
    static const char text[] = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
    scratch_write("model.safetensors", text, sizeof text - 1);
    expect_refused(in_scratch("model.safetensors"), 4096, RADZ_E_FORMAT, "'git lfs pull'");
    scratch_write("words", text, 30);
    rz_file f;
    assert_int_equal(rz_file_open(NULL, in_scratch("words"), RZ_FILE_MAP, 4096, &f, NULL), RADZ_OK);
    rz_file_close(&f);
}

static void no_descriptor_is_left(void **state)
{
    (void)state;
    int before = dup(0);
    close(before);
    only_regular_files(NULL);
    int after = dup(0);
    close(after);
    assert_int_equal(before, after);
}

/* ---- Paths ------------------------------------------------------------------------------ */

static void paths_are_joined(void **state)
{
    (void)state;
    static const char *const cases[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"},
                                           {"a", "/b", "/b"}, {"/", "b", "/b"},   {"a/b", "c/d", "a/b/c/d"}};
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        char *joined = rz_path_join(NULL, cases[i][0], cases[i][1]);
        assert_string_equal(joined, cases[i][2]);
        rz_free(NULL, joined);
    }
}

static void folders_are_made(void **state)
{
    (void)state;
    radz_error err;
    assert_int_equal(rz_mkdir_p(in_scratch("a/b//c/"), &err), RADZ_OK);
    assert_true(rz_path_exists(in_scratch("a/b/c")));
    assert_int_equal(rz_mkdir_p(in_scratch("a/b/c"), &err), RADZ_OK);
    assert_int_equal(rz_mkdir_p("/", &err), RADZ_OK);
    rmdir(in_scratch("a/b/c"));
    rmdir(in_scratch("a/b"));
    rmdir(in_scratch("a"));
    scratch_write("file", "x", 1);
    assert_int_equal(rz_mkdir_p(in_scratch("file/d"), &err), RADZ_E_IO);
    assert_int_equal(rz_mkdir_p(in_scratch("file"), &err), RADZ_E_IO);
    assert_int_equal(rz_mkdir_p("", &err), RADZ_E_ARGUMENT);
    assert_false(rz_path_exists(in_scratch("nothing")));
}

/* ---- Writing ------------------------------------------------------------------------------ */

static void commit_replaces_abort_does_not(void **state)
{
    (void)state;
    radz_error err;
    rz_writer *w;
    scratch_write("f", "old", 3);
    assert_int_equal(rz_writer_open(NULL, in_scratch("f"), &w, &err), RADZ_OK);
    assert_int_equal(rz_writer_put(w, "never seen", 10, &err), RADZ_OK);
    check_content("f", "old");
    rz_writer_abort(w);
    check_content("f", "old");
    assert_int_equal(count_entries(), 1);
    assert_int_equal(rz_writer_open(NULL, in_scratch("f"), &w, &err), RADZ_OK);
    assert_int_equal(rz_writer_put(w, "ne", 2, &err), RADZ_OK);
    assert_int_equal(rz_writer_put(w, "w", 1, &err), RADZ_OK);
    check_content("f", "old");
    assert_int_equal(rz_writer_commit(w, &err), RADZ_OK);
    check_content("f", "new");
    assert_int_equal(count_entries(), 1);
    rz_writer_abort(NULL);
}

static void large_pieces_keep_their_order(void **state)
{
    (void)state;
    enum { N = 300000 };
    radz_error err;
    rz_writer *w;
    rz_file f;
    rz_rng r;
    uint8_t *bytes = malloc(N);
    rz_rng_seed(&r, 5, 5);
    for (size_t i = 0; i < N; i++) bytes[i] = (uint8_t)rz_rng_u64(&r);
    assert_int_equal(rz_writer_open(NULL, in_scratch("big"), &w, &err), RADZ_OK);
    for (size_t done = 0; done < N;) {
        size_t n = rz_rng_below(&r, 3) ? rz_rng_below(&r, 1000) : rz_rng_below(&r, 100000);
        if (n > N - done) n = N - done;
        assert_int_equal(rz_writer_put(w, bytes + done, n, &err), RADZ_OK);
        done += n;
    }
    assert_int_equal(rz_writer_commit(w, &err), RADZ_OK);
    assert_int_equal(rz_file_open(NULL, in_scratch("big"), RZ_FILE_MAP, N, &f, &err), RADZ_OK);
    assert_int_equal(f.size, N);
    assert_memory_equal(f.data, bytes, N);
    rz_file_close(&f);
    free(bytes);
}

static void umask_is_honoured_and_kept(void **state)
{
    (void)state;
    struct stat st;
    mode_t before = umask(027);
    scratch_write("f", "x", 1);
    assert_int_equal(umask(before), 027);
    assert_int_equal(stat(in_scratch("f"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
}

static void two_writers_at_once(void **state)
{
    (void)state;
    radz_error err;
    rz_writer *a, *b;
    assert_int_equal(rz_writer_open(NULL, in_scratch("f"), &a, &err), RADZ_OK);
    assert_int_equal(rz_writer_open(NULL, in_scratch("f"), &b, &err), RADZ_OK);
    assert_int_equal(rz_writer_put(a, "first", 5, &err), RADZ_OK);
    assert_int_equal(rz_writer_put(b, "second", 6, &err), RADZ_OK);
    assert_int_equal(rz_writer_commit(b, &err), RADZ_OK);
    assert_int_equal(rz_writer_commit(a, &err), RADZ_OK);
    check_content("f", "first");
    assert_int_equal(count_entries(), 1);
}

static void only_regular_files_are_replaced(void **state)
{
    (void)state;
    radz_error err;
    assert_int_equal(rz_write_file(NULL, scratch_dir(), "x", 1, &err), RADZ_E_IO);
    assert_int_equal(rz_write_file(NULL, "/dev/null", "x", 1, &err), RADZ_E_IO);
    assert_int_equal(mkfifo(in_scratch("fifo"), 0600), 0);
    assert_int_equal(rz_write_file(NULL, path, "x", 1, &err), RADZ_E_IO);
    assert_non_null(strstr(err.message, "is a pipe or device"));
    assert_int_equal(rz_write_file(NULL, in_scratch("no/such/folder"), "x", 1, &err), RADZ_E_IO);
    assert_non_null(strstr(err.message, "no such file or directory"));
    assert_int_equal(count_entries(), 1);
}

/* In a child: a file-size limit is the one write error that needs no special file system. */
static int write_past_the_limit(void)
{
    static char bytes[300000];
    radz_error err;
    rz_writer *w;
    struct rlimit limit = {100000, 100000};
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit)) return 10;
    if (rz_write_file(NULL, in_scratch("f"), bytes, sizeof bytes, &err) != RADZ_E_IO) return 11;
    if (!strstr(err.message, "file too large")) return 12;
    if (rz_writer_open(NULL, path, &w, &err)) return 13;
    if (rz_writer_put(w, bytes, sizeof bytes, &err) != RADZ_E_IO) return 14;
    if (rz_writer_put(w, bytes, 1, &err) != RADZ_E_IO) return 15;
    if (rz_writer_commit(w, &err) != RADZ_E_IO) return 16; /* and not a file with a hole in it */
    /* What fails only when the buffer is flushed, in commit. */
    limit.rlim_cur = 10;
    if (setrlimit(RLIMIT_FSIZE, &limit)) return 17;
    return rz_write_file(NULL, path, bytes, 100, &err) == RADZ_E_IO ? 0 : 18;
}

static void failed_write_keeps_the_old_file(void **state)
{
    (void)state;
    scratch_write("f", "old", 3);
    pid_t child = fork();
    if (!child) _exit(write_past_the_limit());
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    check_content("f", "old");
    assert_int_equal(count_entries(), 1);
}

/* A child that is killed in the middle of writing leaves its temporary file; one that lives keeps its own. */
static void files_of_dead_writers_are_removed(void **state)
{
    (void)state;
    radz_error err;
    rz_writer *alive;
    int status;
    pid_t child = fork();
    if (!child) {
        rz_writer *w;
        if (rz_writer_open(NULL, in_scratch("f"), &w, &err) || rz_writer_put(w, "half", 4, &err)) _exit(1);
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(rz_writer_open(NULL, in_scratch("f"), &alive, &err), RADZ_OK);
    scratch_write(".radz-my-notes.tmp", "mine", 4);
    scratch_write("0123456789abcdef.tmp", "mine", 4);
    assert_int_equal(count_entries(), 4);
    assert_int_equal(rz_folder_tidy(NULL, scratch_dir()), 1);
    assert_int_equal(count_entries(), 3);
    assert_int_equal(rz_writer_put(alive, "whole", 5, &err), RADZ_OK);
    assert_int_equal(rz_writer_commit(alive, &err), RADZ_OK);
    check_content("f", "whole");
    assert_int_equal(rz_folder_tidy(NULL, scratch_dir()), 0);
    assert_int_equal(rz_folder_tidy(NULL, in_scratch("nowhere")), 0);
}

static radz_status read_and_write(const rz_host *host, void *arg)
{
    rz_file f;
    (void)arg;
    radz_status status = rz_file_open(host, in_scratch("in"), RZ_FILE_READ, 100, &f, NULL);
    if (!status) status = rz_write_file(host, in_scratch("out"), f.data, f.size, NULL);
    rz_file_close(&f);
    return status;
}

static void memory_runs_out(void **state)
{
    (void)state;
    scratch_write("in", "content", 7);
    failing_host_try_all(read_and_write, NULL);
    check_content("out", "content");
    assert_int_equal(count_entries(), 2);
}

int main(void)
{
#define IN_SCRATCH(test) cmocka_unit_test_setup_teardown(test, make_scratch, remove_scratch)
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(both_modes_give_the_bytes),
        IN_SCRATCH(empty_file_is_a_file),
        IN_SCRATCH(only_regular_files),
        IN_SCRATCH(pointers_of_git_are_named),
        IN_SCRATCH(no_descriptor_is_left),
        IN_SCRATCH(paths_are_joined),
        IN_SCRATCH(folders_are_made),
        IN_SCRATCH(commit_replaces_abort_does_not),
        IN_SCRATCH(large_pieces_keep_their_order),
        IN_SCRATCH(umask_is_honoured_and_kept),
        IN_SCRATCH(two_writers_at_once),
        IN_SCRATCH(only_regular_files_are_replaced),
        IN_SCRATCH(failed_write_keeps_the_old_file),
        IN_SCRATCH(files_of_dead_writers_are_removed),
        IN_SCRATCH(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
