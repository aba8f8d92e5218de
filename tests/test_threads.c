/* test_threads.c - one model, many threads, every kernel set of this CPU: the same bits as one session with one item
 * at a time. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "fixture.h"
#include "radz.h"

enum { N_THREADS = 16, N_FILMS = 17, N_TEXTS = 4, N_ITEMS = N_FILMS + N_TEXTS, DIM = 8, N_FEATURES = 4 };

static radz_error err;
static char *dir;
static radz_image *films[N_FILMS];
static const char *const texts[N_TEXTS] = {"Edema.", "a small effusion on the left, and no pneumothorax", "", "x y"};

/* What one session gives for one item at a time. */
typedef struct vectors {
    float v[N_FEATURES][N_ITEMS][DIM];
} vectors;

typedef struct job {
    pthread_t thread;
    radz_model *model;
    size_t batch; /* films and texts per call */
    vectors got;
    radz_status status;
    radz_error err;
} job;

static void ok(radz_status status)
{
    if (status != RADZ_OK) fail_msg("%s: %s", radz_status_name(status), err.message);
}

static int setup(void **state)
{
    (void)state;
    dir = fixture_temp_dir();
    fixture_model(dir, 11);
    for (size_t i = 0; i < N_FILMS; i++) {
        size_t n;
        uint8_t *png = fixture_png_bytes(64 + 9 * (i % 5), 90 - 5 * (i % 5), i % 2 ? 3 : 1, i, &n);
        ok(radz_image_open_memory(NULL, png, n, &films[i], &err));
        free(png);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FILMS; i++) radz_image_close(films[i]);
    fixture_remove(dir);
    free(dir);
    return 0;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static radz_status embed(radz_session *s, int feature, size_t batch, float v[N_ITEMS][DIM], radz_error *e)
{
    radz_embed_options o;
    radz_status status = RADZ_OK;
    radz_embed_options_init(&o);
    o.feature = (radz_feature)feature;
    for (size_t i = 0; i < N_FILMS && !status; i += batch)
        status = radz_embed_images(s, (const radz_image *const *)films + i, least(batch, N_FILMS - i), &o, v[i], e);
    for (size_t i = 0; i < N_TEXTS && !status; i += batch)
        status = radz_embed_texts(s, texts + i, least(batch, N_TEXTS - i), &o, v[N_FILMS + i], e);
    return status;
}

static void *work(void *arg)
{
    job *j = arg;
    radz_session *s;
    j->status = radz_session_open(j->model, NULL, &s, &j->err);
    for (int f = 0; f < N_FEATURES && !j->status; f++) j->status = embed(s, f, j->batch, j->got.v[f], &j->err);
    radz_session_close(s);
    return NULL;
}

static radz_model *open_model(const char *kernels, int n_threads)
{
    radz_runtime_options o;
    radz_runtime *r;
    radz_model *m;
    radz_runtime_options_init(&o);
    o.device = "cpu", o.kernels = kernels, o.n_threads = n_threads;
    ok(radz_runtime_create(&o, &r, &err));
    assert_string_equal(radz_runtime_kernels(r), kernels);
    ok(radz_model_open(r, dir, NULL, &m, &err));
    radz_runtime_close(r);
    return m;
}

static void check_kernels(const char *kernels)
{
    job alone = {.model = open_model(kernels, 1), .batch = 1}, *jobs = calloc(N_THREADS, sizeof *jobs);
    assert_non_null(jobs);
    work(&alone);
    if (alone.status) fail_msg("%s", alone.err.message);
    radz_model *shared = open_model(kernels, 3);
    for (size_t i = 0; i < N_THREADS; i++) {
        jobs[i].model = shared;
        jobs[i].batch = 1 + i % N_FILMS;
        assert_int_equal(pthread_create(&jobs[i].thread, NULL, work, &jobs[i]), 0);
    }
    for (size_t i = 0; i < N_THREADS; i++) pthread_join(jobs[i].thread, NULL);
    for (size_t i = 0; i < N_THREADS; i++) {
        if (jobs[i].status) fail_msg("%s", jobs[i].err.message);
        assert_memory_equal(&jobs[i].got, &alone.got, sizeof alone.got);
    }
    radz_model_close(shared);
    radz_model_close(alone.model);
    free(jobs);
}

static void test_every_kernel_set(void **state)
{
    (void)state;
    size_t n = 0;
    for (; radz_kernels_available(n); n++) check_kernels(radz_kernels_available(n));
    assert_true(n >= 1);
    assert_string_equal(radz_kernels_available(n - 1), "portable");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_kernel_set)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
