/* test_streams.c - weights that are read as they are needed, in hard times: several sessions at once, no thread to be
 * had, disks that fail, are slow or give little at a time. SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <errno.h>
#include <glob.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base.h"
#include "fixture.h"
#include "run_program.h"

enum { DIM = 8, SIDE = 2, N_SESSIONS = 5 };

static radz_error err;
static char *dir;
static uint64_t least; /* bytes that the model runs in */

/* ---- What the system gives ------------------------------------------------------------------------------ */

static atomic_int threads_left = 1 << 30;

/* This program's pthread_create is asked first. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return atomic_fetch_sub(&threads_left, 1) > 0 ? real(thread, attr, start, arg) : EAGAIN;
}

static atomic_int reads_until = 1 << 30, reads_fail; /* after so many, so many fail with `fault` */
static atomic_int fault;                             /* errno; 0: they give a few bytes only */

ssize_t pread(int fd, void *to, size_t n, off_t at)
{
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pread");
    if (atomic_fetch_sub(&reads_until, 1) > 0 || atomic_fetch_sub(&reads_fail, 1) <= 0) return real(fd, to, n, at);
    if (!fault) return real(fd, to, n < 512 ? n : 512, at);
    errno = fault;
    return -1;
}

static void break_reads(int after, int times, int how)
{
    fault = how;
    reads_fail = times;
    reads_until = after;
}

static void mend_reads(void)
{
    break_reads(1 << 30, 0, 0);
}

/* ---- The model -------------------------------------------------------------------------------------------- */

static void ok(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

static radz_status open_model(radz_runtime *rt, uint64_t memory, radz_model **m)
{
    radz_model_options o;
    radz_model_options_init(&o);
    o.memory_bytes = memory;
    return radz_model_open(rt, dir, &o, m, &err);
}

static int setup(void **state)
{
    (void)state;
    radz_model *m;
    run_folder = dir = fixture_temp_dir();
    fixture_wide_model(dir, 11);
    assert_int_equal(open_model(NULL, 1, &m), RADZ_E_LIMIT);
    least = strtoull(strstr(err.message, "takes") + 5, NULL, 10);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(dir);
    free(dir);
    return 0;
}

/* What session i is asked, and its answers. */
typedef struct answers {
    float film[DIM], texts[2 * DIM], map[SIDE * SIDE];
} answers;

static radz_status ask(radz_session *s, size_t i, answers *a, radz_error *e)
{
    const char *const texts[] = {i % 2 ? "Effusion." : "This is a chest X-ray showing a mass.", "Nothing"};
    static const radz_bank_entry entries[] = {{"Mass", "A mass."}, {"Normal", "Nothing."}};
    radz_image *film = NULL;
    radz_bank *bank = NULL;
    size_t n;
    uint8_t *png = fixture_png_bytes(40 + i, 30, 1, i, &n);
    radz_status status = radz_image_open_memory(NULL, png, n, &film, e);
    const radz_image *films[] = {film};
    free(png);
    if (!status) status = radz_embed_images(s, films, 1, NULL, a->film, e);
    if (!status) status = radz_embed_texts(s, texts, 2, NULL, a->texts, e);
    if (!status) status = radz_bank_build(s, entries, 2, &bank, e);
    if (!status) status = radz_heatmap_patches(s, bank, film, "Mass", NULL, a->map, e);
    radz_bank_close(bank), radz_image_close(film);
    return status;
}

static void wanted(answers a[N_SESSIONS])
{
    radz_model *m;
    radz_session *s;
    ok(open_model(NULL, 0, &m));
    ok(radz_session_open(m, NULL, &s, &err));
    for (size_t i = 0; i < N_SESSIONS; i++) ok(ask(s, i, &a[i], &err));
    radz_session_close(s), radz_model_close(m);
}

/* ---- At once ----------------------------------------------------------------------------------------------- */

static atomic_long in_use, most;

static void count(long n)
{
    const long now = atomic_fetch_add(&in_use, n) + n;
    for (long before = most; now > before && !atomic_compare_exchange_weak(&most, &before, now);) continue;
}

static void *counted_realloc(void *p, size_t n, void *user)
{
    (void)user;
    const long before = p ? (long)malloc_usable_size(p) : 0;
    void *q = realloc(p, n);
    if (q) count((long)malloc_usable_size(q) - before);
    return q;
}

static void *counted_malloc(size_t n, void *user)
{
    return counted_realloc(NULL, n, user);
}

static void counted_free(void *p, void *user)
{
    (void)user;
    count(-(p ? (long)malloc_usable_size(p) : 0));
    free(p);
}

typedef struct worker {
    radz_model *m;
    size_t i;
    answers got[2];
    radz_status status;
    radz_error err;
    pthread_t thread;
} worker;

static void *run_session(void *arg)
{
    worker *w = arg;
    radz_session *s = NULL;
    w->status = radz_session_open(w->m, NULL, &s, &w->err);
    for (int k = 0; k < 2 && !w->status; k++) w->status = ask(s, w->i, &w->got[k], &w->err);
    radz_session_close(s);
    return NULL;
}

/* Bytes that n sessions at once add to an open model, at most; their answers are those of a resident model. */
static long run_sessions(radz_model *m, size_t n, const answers *want)
{
    static worker w[N_SESSIONS];
    const long before = in_use;
    most = before;
    for (size_t i = 0; i < n; i++) {
        w[i] = (worker){.m = m, .i = i};
        assert_int_equal(pthread_create(&w[i].thread, NULL, run_session, &w[i]), 0);
    }
    for (size_t i = 0; i < n; i++) pthread_join(w[i].thread, NULL);
    for (size_t i = 0; i < n; i++) {
        if (w[i].status) fail_msg("session %zu: %s", i, w[i].err.message);
        for (int k = 0; k < 2; k++) assert_memory_equal(&w[i].got[k], &want[i], sizeof want[i]);
    }
    return most - before;
}

static void several_sessions(void **state)
{
    (void)state;
    static answers want[N_SESSIONS];
    const uint64_t room = (uint64_t)1 << 20;
    radz_runtime_options o;
    radz_runtime *rt;
    radz_model *m;
    wanted(want);
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = 2;
    o.malloc_fn = counted_malloc, o.realloc_fn = counted_realloc, o.free_fn = counted_free;
    ok(radz_runtime_create(&o, &rt, &err));
    ok(open_model(rt, least + room, &m));
    const long one = run_sessions(m, 1, want);
    assert_true(one > (long)room); /* the ring at least */
    for (int k = 0; k < 3; k++) {
        const long all = run_sessions(m, N_SESSIONS, want);
        if (all > N_SESSIONS * one + one / 4)
            fail_msg("%d sessions took %ld bytes, one took %ld", N_SESSIONS, all, one);
    }
    radz_model_close(m), radz_runtime_close(rt);
    assert_int_equal(in_use, 0);
}

/* ---- No threads ---------------------------------------------------------------------------------------------- */

static void no_thread_to_be_had(void **state)
{
    (void)state;
    static answers want[N_SESSIONS];
    radz_runtime_options o;
    radz_runtime *rt;
    radz_model *m;
    radz_session *s;
    wanted(want);
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = 1;
    ok(radz_runtime_create(&o, &rt, &err));
    for (uint64_t more = 0; more < 2; more++) { /* pieces of a matrix, whole matrices */
        ok(open_model(rt, least + (more << 22), &m));
        threads_left = 0;
        ok(radz_session_open(m, NULL, &s, &err));
        assert_true(threads_left < 0);
        threads_left = 1 << 30;
        for (size_t i = 0; i < N_SESSIONS; i++) {
            answers got;
            ok(ask(s, i, &got, &err));
            assert_memory_equal(&got, &want[i], sizeof got);
        }
        break_reads(0, 1 << 20, EIO); /* the thread that computes is the one that reads */
        answers got;
        assert_int_equal(ask(s, 0, &got, &err), RADZ_E_IO);
        mend_reads();
        ok(ask(s, 0, &got, &err));
        assert_memory_equal(&got, &want[0], sizeof got);
        radz_session_close(s), radz_model_close(m);
    }
    radz_runtime_close(rt);
}

/* ---- Disks ------------------------------------------------------------------------------------------------------ */

/* From the k-th read on everything fails: one line that names the file and the reason, NaN for a vector, and the
 * session works again with the disk. */
static void reads_that_fail(void **state)
{
    (void)state;
    static answers want[N_SESSIONS];
    static const int faults[] = {EIO, ENXIO, ESTALE};
    radz_model *m;
    radz_session *s;
    answers got;
    int n_failed = 0;
    wanted(want);
    ok(open_model(NULL, least, &m));
    ok(radz_session_open(m, NULL, &s, &err));
    for (int after = 0; after < 40; after += 3) {
        const char *const text = "Effusion.";
        const int how = faults[after / 3 % (int)RZ_COUNT(faults)];
        float v[DIM] = {0};
        break_reads(after, 1 << 20, how);
        radz_status status = radz_embed_texts(s, &text, 1, NULL, v, &err);
        mend_reads();
        if (status) {
            n_failed++;
            if (status != RADZ_E_IO || !strstr(err.message, ".safetensors: cannot read: ") ||
                (how == EIO && !strstr(err.message, "input/output error")) || strchr(err.message, '\n'))
                fail_msg("after %d reads: status %d '%s'", after, (int)status, err.message);
            for (size_t k = 0; k < DIM; k++) assert_true(isnan(v[k]));
        }
        ok(ask(s, 1, &got, &err));
        assert_memory_equal(&got, &want[1], sizeof got);
    }
    assert_true(n_failed >= 5);
    radz_session_close(s), radz_model_close(m);
}

/* A read that is interrupted is made again, one that gives little goes on; neither is seen outside. */
static void reads_that_falter(void **state)
{
    (void)state;
    static answers want[N_SESSIONS];
    static const int faults[] = {EINTR, 0};
    radz_model *m;
    radz_session *s;
    answers got;
    wanted(want);
    ok(open_model(NULL, least, &m));
    for (size_t k = 0; k < RZ_COUNT(faults); k++)
        for (int after = 0; after < 6; after += 2) {
            ok(radz_session_open(m, NULL, &s, &err));
            break_reads(after, 300, faults[k]);
            ok(ask(s, 2, &got, &err));
            mend_reads();
            assert_memory_equal(&got, &want[2], sizeof got);
            radz_session_close(s);
        }
    radz_model_close(m);
}

/* ---- As its users meet it --------------------------------------------------------------------------------------- */

static void pictures_of_a_streamed_model(void **state)
{
    (void)state;
    char *maps[2], *film = strdup(fixture_path(dir, "film.png")), memory[32],
                   *program = strdup(fixture_program("radz-classify"));
    fixture_png(film, 60, 50, 1, 4);
    snprintf(memory, sizeof memory, "%lluK", (unsigned long long)(least / 1024 + 64));
    for (int i = 0; i < 2; i++) {
        maps[i] = strdup(fixture_path(dir, i ? "streamed" : "resident"));
        const char *const argv[] = {program,     "--quiet",
                                    "--model",   dir,
                                    "--classes", "No Finding,Mass",
                                    "--heatmap", maps[i],
                                    film,        i ? "--memory" : NULL,
                                    memory,      NULL};
        run r = run_program(argv, NULL, TO_FILE);
        run_expect(&r, 0, "Mass", NULL);
        run_done(&r);
    }
    glob_t found;
    assert_int_equal(glob(fixture_path(maps[0], "*"), 0, NULL, &found), 0);
    assert_int_equal(fixture_count_files(maps[1]), found.gl_pathc);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        size_t n[2];
        char *one = fixture_read(found.gl_pathv[i], &n[0]),
             *other = fixture_read(fixture_path(maps[1], strrchr(found.gl_pathv[i], '/') + 1), &n[1]);
        assert_int_equal(n[0], n[1]);
        assert_memory_equal(one, other, n[0]);
        free(one), free(other);
    }
    globfree(&found);
    free(maps[0]), free(maps[1]), free(film), free(program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_sessions),
        cmocka_unit_test(no_thread_to_be_had),
        cmocka_unit_test(reads_that_fail),
        cmocka_unit_test(reads_that_falter),
        cmocka_unit_test(pictures_of_a_streamed_model),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
