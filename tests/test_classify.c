/* test_classify.c - many films by path: each as it is alone, in order, whatever fails on the way.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base.h"
#include "failing_host.h"
#include "fixture.h"

enum { N = 41 }; /* three batches, the last not full */

static radz_error err;
static char *dir, *model_dir, *paths[N];

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

static bool is_bad(size_t i)
{
    return i == 0 || i == 17 || i == 18 || i == N - 1;
}

/* Films of all shapes; four cannot be read. */
static int setup(void **state)
{
    (void)state;
    char name[32];
    dir = fixture_temp_dir();
    model_dir = strdup(fixture_path(dir, "model"));
    assert_int_equal(mkdir(model_dir, 0700), 0);
    fixture_model(model_dir, 3);
    for (size_t i = 0; i < N; i++) {
        snprintf(name, sizeof name, "film%02zu.png", i);
        paths[i] = strdup(fixture_path(dir, name));
        if (!is_bad(i))
            fixture_png(paths[i], 20 + 13 * (i % 7), 30 + 7 * (i % 5), i % 3 ? 1 : 3, i);
        else if (i != 17) /* 17: there is none */
            fixture_write_text(paths[i], "not a film");
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < N; i++) free(paths[i]);
    fixture_remove(dir);
    free(dir), free(model_dir);
    return 0;
}

typedef struct world {
    radz_runtime *runtime;
    radz_model *model;
    radz_session *session;
    radz_bank *bank;
} world;

static const radz_bank_entry entries[] = {{"No Finding", NULL}, {"Edema", "water"}, {"Mass", "a mass"}};

static radz_status try_open(world *w, const radz_runtime_options *o, const radz_session_options *so)
{
    *w = (world){0};
    RZ_TRY(radz_runtime_create(o, &w->runtime, &err));
    RZ_TRY(radz_model_open(w->runtime, model_dir, NULL, &w->model, &err));
    RZ_TRY(radz_session_open(w->model, so, &w->session, &err));
    return radz_bank_build(w->session, entries, RZ_COUNT(entries), &w->bank, &err);
}

static void open_world(world *w, int n_threads)
{
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    o.n_threads = n_threads;
    ok(try_open(w, &o, NULL));
}

static void close_world(world *w)
{
    radz_bank_close(w->bank);
    radz_session_close(w->session);
    radz_model_close(w->model);
    radz_runtime_close(w->runtime);
}

/* ---- In order, the same bits ---- */

typedef struct heard {
    char *lines[N]; /* JSON, of the result or the failure */
    size_t n, stop_at;
    world *also; /* asked for something else meanwhile */
} heard;

static char *line_of(const radz_result *result, const radz_error *why, const char *path)
{
    char *json;
    ok(result ? radz_result_json(result, path, &json, &err) : radz_error_json(why, path, &json, &err));
    return json;
}

static int hear(size_t i, radz_result *result, const radz_error *why, void *user)
{
    heard *h = user;
    assert_int_equal(i, h->n);
    assert_true(!result == is_bad(i) && !why != is_bad(i));
    h->lines[h->n++] = line_of(result, why, paths[i]);
    if (h->also && result) {
        float v[8];
        ok(radz_embed_texts(h->also->session, (const char *const[]){"a text"}, 1, NULL, v, &err));
    }
    radz_result_close(result);
    return h->n == h->stop_at;
}

static void forget(heard *h)
{
    for (size_t i = 0; i < h->n; i++) radz_text_free(h->lines[i]);
}

static void test_as_alone(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= 4; n_threads++) {
        world w;
        heard h = {.n = 0};
        open_world(&w, n_threads);
        h.also = n_threads == 2 ? &w : NULL;
        ok(radz_classify_files(w.session, w.bank, (const char *const *)paths, N, hear, &h, &err));
        assert_int_equal(h.n, N);
        for (size_t i = 0; i < N; i++) {
            radz_result *alone;
            radz_error why;
            radz_status status = radz_classify_file(w.session, w.bank, paths[i], &alone, &why);
            assert_int_equal(status != RADZ_OK, is_bad(i));
            char *line = line_of(alone, &why, paths[i]);
            assert_string_equal(line, h.lines[i]);
            radz_text_free(line);
            radz_result_close(alone);
        }
        forget(&h);
        close_world(&w);
    }
}

static void test_result_of_a_film(void **state)
{
    (void)state;
    world w;
    radz_result *r;
    radz_image *image;
    open_world(&w, 1);
    ok(radz_classify_file(w.session, w.bank, paths[1], &r, &err));
    ok(radz_image_open(w.runtime, paths[1], &image, &err));
    assert_int_equal(radz_result_width(r), radz_image_width(image));
    assert_int_equal(radz_result_height(r), radz_image_height(image));
    assert_string_equal(radz_result_sha256(r), radz_image_sha256(image));
    assert_true(!radz_result_width(NULL) && !radz_result_height(NULL) && !radz_result_sha256(NULL));
    radz_image_close(image);
    radz_result_close(r);
    close_world(&w);
}

/* ---- Stopped ---- */

static void test_stopped(void **state)
{
    (void)state;
    static const size_t stops[] = {1, 2, 16, 17, 30, N};
    world w;
    open_world(&w, 2);
    for (size_t i = 0; i < RZ_COUNT(stops); i++) {
        heard h = {.stop_at = stops[i]};
        assert_int_equal(radz_classify_files(w.session, w.bank, (const char *const *)paths, N, hear, &h, &err),
                         RADZ_E_CANCELLED);
        assert_int_equal(h.n, stops[i]);
        forget(&h);
    }
    close_world(&w);
}

/* What the session's hook is asked with: how often it says no, on which thread alone. */
typedef struct patience {
    int left;
    pthread_t thread;
    bool elsewhere;
} patience;

static int cancel(void *user)
{
    patience *p = user;
    p->elsewhere |= !pthread_equal(pthread_self(), p->thread);
    return --p->left < 0;
}

/* The session's own hook, asked between layers: no film is told of after it. How often it is asked is nobody's
 * promise: films go through the network side by side, and the caller's thread alone asks. */
static void test_cancelled(void **state)
{
    (void)state;
    radz_status status = RADZ_E_CANCELLED;
    for (int at = 0; status; at++) {
        radz_runtime_options o;
        radz_session_options so;
        world w;
        heard h = {.n = 0};
        patience p = {1 << 30, pthread_self(), false};
        radz_runtime_options_init(&o);
        radz_session_options_init(&so);
        o.n_threads = 2, so.cancel_fn = cancel, so.user = &p;
        ok(try_open(&w, &o, &so));
        p.left = at;
        status = radz_classify_files(w.session, w.bank, (const char *const *)paths, N, hear, &h, &err);
        assert_true(status ? status == RADZ_E_CANCELLED && h.n % 16 == 0 : h.n == N);
        assert_false(p.elsewhere);
        forget(&h);
        close_world(&w);
        assert_true(at < 1000);
    }
}

static int never(size_t i, radz_result *result, const radz_error *why, void *user)
{
    (void)result, (void)why, (void)user;
    fail_msg("film %zu was told of", i);
    return 1;
}

static void test_refused(void **state)
{
    (void)state;
    world w, other;
    const char *const holes[] = {paths[1], NULL};
    open_world(&w, 1);
    ok(radz_classify_files(w.session, w.bank, NULL, 0, never, NULL, &err));
    assert_int_equal(radz_classify_files(w.session, w.bank, NULL, 1, never, NULL, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_classify_files(w.session, w.bank, holes, 2, never, NULL, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_classify_files(w.session, w.bank, holes, 1, NULL, NULL, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_classify_files(NULL, w.bank, holes, 1, never, NULL, &err), RADZ_E_ARGUMENT);
    fixture_weights(model_dir, 4);
    open_world(&other, 1);
    assert_int_equal(radz_classify_files(other.session, w.bank, holes, 1, never, NULL, &err), RADZ_E_MISMATCH);
    close_world(&other);
    fixture_weights(model_dir, 3);
    close_world(&w);
}

/* ---- Memory runs out ---- */

static int count_one(size_t i, radz_result *result, const radz_error *why, void *user)
{
    radz_status *status = user;
    (void)i;
    assert_true(!result == (why != NULL));
    if (why && !*status) *status = why->code, err = *why;
    radz_result_close(result);
    return 0;
}

static radz_status run_on(const rz_host *host, void *arg)
{
    radz_runtime_options o;
    world w;
    radz_status told = RADZ_OK;
    (void)arg;
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = 1;
    o.malloc_fn = host->malloc_fn, o.realloc_fn = host->realloc_fn, o.free_fn = host->free_fn, o.user = host->user;
    radz_status status = try_open(&w, &o, NULL);
    if (!status)
        status = radz_classify_files(w.session, w.bank, (const char *const *)paths + 1, 3, count_one, &told, &err);
    close_world(&w);
    return status ? status : told;
}

/* A batch that there is no memory for is done film by film, so one failure may go by unseen. */
static void test_memory(void **state)
{
    (void)state;
    for (int on = 0; on < 2; on++) {
        failing_host f = {.fail_at = 0, .from_then_on = on};
        rz_host host = failing_hooks(&f);
        do {
            atomic_store(&f.calls, 0);
            f.fail_at++;
            radz_status status = run_on(&host, NULL);
            if (status && status != RADZ_E_MEMORY) fail_msg("allocation %ld: %d %s", f.fail_at, status, err.message);
            if (atomic_load(&f.live)) fail_msg("allocation %ld: %ld blocks left", f.fail_at, atomic_load(&f.live));
        } while (atomic_load(&f.calls) >= f.fail_at);
        assert_true(f.fail_at > 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_as_alone), cmocka_unit_test(test_result_of_a_film),
                                       cmocka_unit_test(test_stopped),  cmocka_unit_test(test_cancelled),
                                       cmocka_unit_test(test_refused),  cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
