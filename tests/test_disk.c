/* test_disk.c - saving while the disk fails: every system call of a save killed, refused, cut short or interrupted, one
 * after another. The calls are replaced in this program. SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "bank.h"
#include "disk_faults.h"
#include "fixture.h"
#include "scratch.h"

/* ---- What is saved -------------------------------------------------------------------------------------- */

static radz_error err;
static rz_device *dev;
static rz_model *models[2]; /* other weights, same shapes */
static rz_bank *banks[2];

static const char *path_of(const char *name)
{
    return fixture_path(scratch_dir(), name);
}

/* fixture_path forgets. */
static char *keep(const char *path)
{
    char *copy = strdup(path);
    assert_non_null(copy);
    return copy;
}

static void good(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

static void open_model(int i)
{
    static const radz_bank_entry entries[][2] = {{{"Edema", "Fluid."}, {"No Finding", "Nothing."}},
                                                 {{"Mass", "A mass."}, {"Normal", NULL}}};
    char *dir = keep(path_of(i ? "two" : "one"));
    rz_net net = {0};
    assert_int_equal(mkdir(dir, 0700), 0);
    fixture_model(dir, 5 + (uint64_t)i);
    good(rz_model_load(NULL, dev, dir, RZ_MODEL_READ, 0, &models[i], &err));
    net.model = models[i];
    good(rz_stream_open(dev, &net.s, &err));
    good(rz_bank_build(&net, entries[i], 2, &banks[i], &err));
    rz_stream_close(net.s);
    free(dir);
}

static int setup(void **state)
{
    (void)state;
    rz_device_options o = {"cpu", "auto", "own", 1};
    scratch_make();
    good(rz_device_open(NULL, &o, &dev, &err));
    for (int i = 0; i < 2; i++) open_model(i);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        rz_bank_free(banks[i]);
        rz_model_unload(models[i]);
    }
    rz_device_close(dev);
    scratch_remove();
    return 0;
}

static radz_status save_bytes(const char *dir, int i)
{
    static char bytes[2][150000];
    memset(bytes[i], 'a' + i, sizeof bytes[i]);
    return rz_write_file(NULL, fixture_path(dir, "bytes"), bytes[i], sizeof bytes[i], &err);
}

static radz_status save_bank(const char *dir, int i)
{
    return rz_bank_save(banks[i], fixture_path(dir, "bank"), &err);
}

static radz_status save_model(const char *dir, int i)
{
    return rz_model_save(models[i], dir, "F32", NULL, &err);
}

static const struct saver {
    const char *name;
    radz_status (*save)(const char *dir, int i);
    const char *files[2];
} savers[] = {
    {"bytes", save_bytes, {"bytes"}},
    {"bank", save_bank, {"bank"}},
    {"model", save_model, {"model.safetensors", "radz.safetensors"}},
};

/* ---- Looking at what is left ------------------------------------------------------------------------------ */

/* Which of both is on disk, -1 for anything else. */
static int which(const struct saver *s, const char *dir, int file, char *const want[2][2], const size_t n[2][2])
{
    size_t have;
    char *bytes = fixture_read(fixture_path(dir, s->files[file]), &have);
    int is = -1;
    for (int i = 0; i < 2; i++)
        if (have == n[i][file] && !memcmp(bytes, want[i][file], have)) is = i;
    free(bytes);
    return is;
}

static int count_temps(const char *dir, bool sweep)
{
    DIR *d = opendir(dir);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (!strncmp(e->d_name, ".radz-", 6)) {
            n++;
            if (sweep) unlink(fixture_path(dir, e->d_name));
        }
    closedir(d);
    return n;
}

static int next_descriptor(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

typedef struct stage {
    const struct saver *s;
    char *dir;
    char *want[2][2];
    size_t n[2][2];
} stage;

/* The folder with the old file in it, and what both look like. */
static stage set_stage(const struct saver *s)
{
    stage st = {.s = s, .dir = keep(path_of("saves"))};
    good(rz_mkdir_p(st.dir, &err));
    for (int i = 1; i >= 0; i--) {
        good(s->save(st.dir, i));
        for (int f = 0; f < 2 && s->files[f]; f++)
            st.want[i][f] = fixture_read(fixture_path(st.dir, s->files[f]), &st.n[i][f]);
    }
    return st;
}

static void strike_stage(stage *st)
{
    for (int i = 0; i < 2; i++)
        for (int f = 0; f < 2; f++) free(st->want[i][f]);
    fixture_remove(st->dir);
    free(st->dir);
}

static int is_on_disk(const stage *st, int file)
{
    return which(st->s, st->dir, file, st->want, st->n);
}

/* ---- SIGKILL at every call ----------------------------------------------------------------------------------- */

/* Saves the new one over the old one in a child that dies at call `at`; false when it had no such call. */
static bool die_at(const stage *st, fault what, int at)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        plan.what = what, plan.at = at, plan.calls = 0;
        _exit(st->s->save(st->dir, 1) ? 1 : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return true;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return false;
}

static void test_killed(void **state)
{
    (void)state;
    for (size_t k = 0; k < RZ_COUNT(savers); k++)
        for (fault what = KILL_BEFORE; what <= KILL_AFTER; what++) {
            stage st = set_stage(&savers[k]);
            int at = 1, n_old = 0;
            for (; die_at(&st, what, at); at++) {
                for (int f = 0; f < 2 && savers[k].files[f]; f++) {
                    int is = is_on_disk(&st, f);
                    if (is < 0)
                        fail_msg("%s: killed at call %d: %s is damaged", savers[k].name, at, savers[k].files[f]);
                    n_old += !is;
                }
                count_temps(st.dir, true);
                good(savers[k].save(st.dir, 0)); /* and the next one works */
            }
            assert_true(at > 5 && n_old > 3);
            strike_stage(&st);
        }
}

/* ---- Calls that fail --------------------------------------------------------------------------------------------- */

/* What must come of it: errors that are for ever fail the save and leave the old file. */
static void check_failure(const stage *st, int at, radz_status status)
{
    /* Once renamed a file is new, whatever becomes of the folder; one that only closes badly is not wrong either. */
    for (int f = 0; f < 2 && st->s->files[f]; f++)
        if (is_on_disk(st, f) < 0) fail_msg("call %d (%s): %s is damaged", at, plan.hit, st->s->files[f]);
    if (count_temps(st->dir, true)) fail_msg("call %d (%s): a temporary file is left", at, plan.hit);
    if (status && (status != RADZ_E_IO || err.code != status || !err.message[0] || strchr(err.message, '\n')))
        fail_msg("call %d (%s): status %d, '%s'", at, plan.hit, (int)status, err.message);
    bool matters = strcmp(plan.hit, "close") && strcmp(plan.hit, "open");
    if (!status && matters) fail_msg("call %d (%s): not noticed", at, plan.hit);
}

/* Returns false when the save had no such call. */
static bool fail_at(const stage *st, fault what, int errnum, int at)
{
    int descriptor = next_descriptor();
    plan.what = what, plan.errnum = errnum, plan.at = at, plan.calls = 0, plan.hit = NULL;
    radz_status status = st->s->save(st->dir, 1);
    plan.what = NONE;
    if (next_descriptor() != descriptor) fail_msg("call %d (%s): a descriptor is left", at, plan.hit);
    if (!plan.hit) {
        good(status);
        return false;
    }
    bool transient = what == SHORT || (errnum == EINTR && (!strcmp(plan.hit, "write") || !strcmp(plan.hit, "open")));
    if (transient) {
        if (status) fail_msg("call %d (%s): %s", at, plan.hit, err.message);
        for (int f = 0; f < 2 && st->s->files[f]; f++) assert_int_equal(is_on_disk(st, f), 1);
    } else if (errnum != EINTR) {
        check_failure(st, at, status);
    }
    return true;
}

static void test_failing_calls(void **state)
{
    (void)state;
    static const struct {
        fault what;
        int errnum;
    } faults[] = {{ERROR, ENOSPC}, {ERROR, EIO}, {ERROR, EDQUOT}, {ERROR, EINTR}, {SHORT, 0}};
    for (size_t k = 0; k < RZ_COUNT(savers); k++)
        for (size_t i = 0; i < RZ_COUNT(faults); i++) {
            stage st = set_stage(&savers[k]);
            int at = 1;
            for (; fail_at(&st, faults[i].what, faults[i].errnum, at); at++) {
                count_temps(st.dir, true);
                good(savers[k].save(st.dir, 0));
            }
            assert_true(at > 5);
            strike_stage(&st);
        }
}

/* ---- Real disks
 * ------------------------------------------------------------------------------------------------------ */

/* Runs work in a child of its own; its exit status. 77: cannot be tried here. */
static int in_child(int (*work)(const char *dir), const char *dir)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) _exit(work(dir));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) skip();
    return WEXITSTATUS(status);
}

/* A tmpfs with room for one file of 150000 bytes but not for its successor beside it. */
static int fill_disk(const char *dir)
{
    static char old[150000], new[150000];
    if (mount("radz", dir, "tmpfs", 0, "size=204800")) return 77;
    int wrong = 0;
    memset(old, 'o', sizeof old), memset(new, 'n', sizeof new);
    const char *path = fixture_path(dir, "f");
    wrong |= rz_write_file(NULL, path, old, sizeof old, &err) != RADZ_OK;
    wrong |= 2 * (rz_write_file(NULL, path, new, sizeof new, &err) != RADZ_E_IO);
    wrong |= 4 * !strstr(err.message, "no space left");
    rz_file f;
    wrong |= 8 * (rz_file_open(NULL, path, RZ_FILE_READ, 1 << 20, &f, &err) || f.size != sizeof old ||
                  memcmp(f.data, old, sizeof old));
    rz_file_close(&f);
    wrong |= 16 * count_temps(dir, false);
    umount(dir);
    return wrong;
}

static void test_full_disk(void **state)
{
    (void)state;
    char *dir = keep(path_of("full"));
    good(rz_mkdir_p(dir, &err));
    int wrong = in_child(fill_disk, dir);
    free(dir);
    assert_int_equal(wrong, 0);
}

/* Root may write everywhere, so the child is somebody else. */
static int write_as_nobody(const char *dir)
{
    if (!geteuid() && (setgid(65534) || setuid(65534))) return 77;
    int wrong = save_bytes(dir, 1) != RADZ_E_IO || !strstr(err.message, "permission denied");
    wrong |= 2 * (save_bank(dir, 1) != RADZ_E_IO);
    wrong |= 4 * (save_model(dir, 1) != RADZ_E_IO);
    return wrong;
}

static void test_read_only_folder(void **state)
{
    (void)state;
    stage st = set_stage(&savers[0]);
    chmod(scratch_dir(), 0755), chmod(st.dir, 0555);
    assert_int_equal(in_child(write_as_nobody, st.dir), 0);
    chmod(st.dir, 0755);
    assert_int_equal(is_on_disk(&st, 0), 0);
    strike_stage(&st);
}

/* ---- Over a file in use, and two at once
 * ----------------------------------------------------------------------------------- */

static void test_save_over_the_mapped_source(void **state)
{
    (void)state;
    char *dir = keep(path_of("one")), *copy = keep(path_of("copy")), hash[65];
    rz_model *mapped, *again;
    good(rz_model_load(NULL, dev, dir, RZ_MODEL_INFER, 0, &mapped, &err));
    memcpy(hash, mapped->hash, sizeof hash);
    good(rz_model_save(mapped, dir, "F32", NULL, &err));
    good(rz_model_load(NULL, dev, dir, RZ_MODEL_READ, 0, &again, &err));
    assert_string_equal(again->hash, hash);
    rz_model_unload(again);
    good(rz_model_save(models[1], dir, "F32", NULL, &err)); /* other weights: the open model keeps its own */
    good(rz_mkdir_p(copy, &err));
    good(rz_model_save(mapped, copy, "F32", NULL, &err));
    good(rz_model_save(models[0], dir, "F32", NULL, &err));
    size_t n, m;
    char *a = fixture_read(fixture_path(dir, "model.safetensors"), &n),
         *b = fixture_read(fixture_path(copy, "model.safetensors"), &m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    free(a), free(b), free(dir), free(copy);
    rz_model_unload(mapped);
}

/* Two processes save their bank to one path; whoever looks sees one of both, whole. */
static void test_two_writers(void **state)
{
    (void)state;
    stage st = set_stage(&savers[1]);
    pid_t pids[2];
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i]) continue;
        for (int k = 0; k < 60; k++)
            if (save_bank(st.dir, i)) _exit(1);
        _exit(0);
    }
    for (int k = 0; k < 200; k++)
        if (is_on_disk(&st, 0) < 0) fail_msg("a mixture is on disk");
    for (int i = 0; i < 2; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    int is = is_on_disk(&st, 0);
    assert_true(is >= 0);
    rz_bank *b;
    good(rz_bank_open(models[is], fixture_path(st.dir, "bank"), &b, &err));
    rz_bank_free(b);
    assert_int_equal(count_temps(st.dir, false), 0);
    strike_stage(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed),      cmocka_unit_test(test_failing_calls),
        cmocka_unit_test(test_full_disk),   cmocka_unit_test(test_read_only_folder),
        cmocka_unit_test(test_two_writers), cmocka_unit_test(test_save_over_the_mapped_source),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
