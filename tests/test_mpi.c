/* test_mpi.c - radz-train in two processes under mpirun: one process's losses and weights. Skipped without an MPI.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "formats.h"
#include "run_program.h"
#include "sanitized.h"
#include "train_fixture.h"

enum { STEPS = 6 };
#define SIX_STEPS "--epochs 2.5 "

static train_env e;
static const char *why_not;

/* An MPI keeps memory and talks from threads that sanitizers do not know. */
static const char *find_obstacle(void)
{
#if SANITIZED
    return "a sanitizer would complain of the MPI";
#endif
    if (system("command -v mpirun >/dev/null 2>&1")) return "there is no mpirun";
    if (access(fixture_program("../radz-mpi.so"), R_OK)) return "radz-mpi.so is not built: there was no mpicc";
    return NULL;
}

static int set_up(void **state)
{
    (void)state;
    train_env_open(&e);
    run_folder = e.dir;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    train_env_close(&e);
    return 0;
}

/* radz-train, n of it under mpirun (0: alone), into the folder `out` of the fixture. */
static run train_with(int n, const char *out, const char *more, const char *before)
{
    rz_str s = {0};
    rz_str_printf(&s, "%s ", before);
    if (n) rz_str_printf(&s, "mpirun -n %d ", n);
    rz_str_printf(&s,
                  "'%s' --model '%s' --manifest '%s' --diseases '%s' --label-map '%s' --out '%s/%s' --threads 1 "
                  "--batch 7 --lr 5e-4 --seed 3 %s",
                  fixture_program("radz-train"), e.model, e.manifest, e.diseases, e.label_map, e.dir, out, more);
    assert_false(s.failed);
    const char *argv[] = {"/bin/sh", "-c", s.data, NULL};
    run r = run_program(argv, NULL, TO_FILE);
    rz_str_free(&s);
    return r;
}

static void train(int n, const char *out, const char *more)
{
    run r = train_with(n, out, more, "exec");
    run_expect(&r, 0, NULL, NULL);
    run_done(&r);
}

static char *in(const char *folder, const char *name, size_t *n)
{
    char part[256];
    snprintf(part, sizeof part, "%s/%s", folder, name);
    return fixture_read(fixture_path(e.dir, part), n);
}

/* One number of every step in the log, in order; how many. */
static size_t read_log(const char *folder, const char *key, double *values)
{
    char *log = in(folder, "train.jsonl", NULL);
    size_t n = 0;
    for (const char *p = log; (p = strstr(p, key)) && n < STEPS; n++) values[n] = atof(p += strlen(key));
    free(log);
    return n;
}

static void same_log(const char *a, const char *b, const char *key)
{
    double x[STEPS], y[STEPS];
    assert_int_equal(read_log(a, key, x), STEPS);
    assert_int_equal(read_log(b, key, y), STEPS);
    for (int i = 0; i < STEPS; i++)
        if (!(fabs(x[i] - y[i]) <= 1e-5 * fabs(x[i]))) fail_msg("step %d: %s%.9g and %.9g", i + 1, key, x[i], y[i]);
}

static void same_file(const char *a, const char *b, const char *name)
{
    size_t n, m;
    char *x = in(a, name, &n), *y = in(b, name, &m);
    if (n != m || memcmp(x, y, n) != 0) fail_msg("%s of %s and of %s differ", name, a, b);
    free(x), free(y);
}

/* ---- Tests ---------------------------------------------------------------------------------------------- */

/* Losses and the gradient's length of every step: what a wrong gather, sum or average would change. */
static void two_processes_train_as_one(void **state)
{
    (void)state;
    if (why_not) skip();
    train(0, "one", SIX_STEPS);
    train(2, "two", SIX_STEPS);
    same_log("one", "two", "\"loss\":");
    same_log("one", "two", "\"loss_ca\":");
    same_log("one", "two", "\"grad_norm\":");
    train(3, "three", SIX_STEPS "--micro-batch 2");
    same_log("one", "three", "\"loss\":");
    same_log("one", "three", "\"grad_norm\":");
}

static void two_processes_go_on_to_the_same_bits(void **state)
{
    (void)state;
    if (why_not) skip();
    train(2, "whole", SIX_STEPS);
    train(2, "parts", SIX_STEPS "--stop-after 2");
    train(2, "parts", SIX_STEPS "--resume");
    same_file("whole", "parts", "model.safetensors");
    same_file("whole", "parts", "radz.safetensors");
    same_log("whole", "parts", "\"loss\":");
}

/* mpirun passes SIGUSR1 on and lets everyone finish: one saves, all leave, nobody hangs. */
static void a_signal_saves_and_the_run_goes_on(void **state)
{
    (void)state;
    if (why_not) skip();
    train(2, "quiet", "--epochs 60");
    rz_str s = {0};
    rz_str_printf(&s,
                  "log='%s/broken/train.jsonl'; (i=0; until [ -s \"$log\" ] || [ $i -gt 600 ]; do sleep .05; "
                  "i=$((i + 1)); done; kill -USR1 $$) & exec",
                  e.dir);
    run r = train_with(2, "broken", "--epochs 60", s.data);
    rz_str_free(&s);
    run_expect(&r, 130, NULL, "--resume goes on from there");
    run_done(&r);
    train(2, "broken", "--epochs 60 --resume");
    same_file("quiet", "broken", "model.safetensors");
}

static size_t count(const char *text, const char *words)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, words)); p++) n++;
    return n;
}

static void a_failure_is_said_once_and_ends_all(void **state)
{
    (void)state;
    if (why_not) skip();
    fixture_remove(e.diseases);
    run r = train_with(2, "failed", SIX_STEPS, "exec");
    if (r.status == 0) fail_msg("a run without descriptions ended well");
    if (count(r.err, "diseases.txt:") != 1) fail_msg("said %zu times: %s", count(r.err, "diseases.txt:"), r.err);
    run_done(&r);
}

static void one_of_several_alone_is_refused(void **state)
{
    (void)state;
    if (why_not) skip();
    run r = train_with(0, "alone", SIX_STEPS, "PMI_SIZE=2");
    run_expect(&r, 1, NULL, "finds this process alone");
    run_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(two_processes_train_as_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(two_processes_go_on_to_the_same_bits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_signal_saves_and_the_run_goes_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failure_is_said_once_and_ends_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_of_several_alone_is_refused, set_up, tear_down),
    };
    why_not = find_obstacle();
    if (why_not) print_message("not in several processes: %s\n", why_not);
    run_allow_mpi();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
