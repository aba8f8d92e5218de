/* The library's threads: every index once, many callers, signals, forks. SPDX-License-Identifier: Apache-2.0 */
#include "pool.h"

#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "failing_host.h"

static rz_pool *make_pool(int n_threads)
{
    rz_pool *pool;
    radz_error err;
    if (rz_pool_create(NULL, n_threads, &pool, &err)) fail_msg("%s", err.message);
    assert_int_equal(rz_pool_threads(pool), n_threads);
    return pool;
}

static void count_call(void *arg, size_t i)
{
    atomic_fetch_add_explicit((atomic_int *)arg + i, 1, memory_order_relaxed);
}

static void every_index_once(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 3, 7, 1000};
    for (int n_threads = 1; n_threads <= 9; n_threads += 2) {
        rz_pool *pool = make_pool(n_threads);
        for (int round = 0; round < 200; round++) {
            size_t n = sizes[round % (int)RZ_COUNT(sizes)];
            atomic_int calls[1001] = {0};
            rz_pool_run(pool, n, count_call, calls);
            for (size_t i = 0; i < 1001; i++) assert_int_equal(calls[i], i < n);
        }
        rz_pool_destroy(pool);
    }
}

/* Plain memory written by tasks must be seen by the caller, and the other way round: ThreadSanitizer looks. */
static void fill_square(void *arg, size_t i)
{
    long *v = arg;
    v[i] = v[i] * v[i];
}

typedef struct caller {
    rz_pool *pool;
    size_t n;
    bool right;
} caller;

static void *call_often(void *arg)
{
    caller *c = arg;
    c->right = true;
    for (int round = 0; round < 300; round++) {
        long v[64];
        for (size_t i = 0; i < c->n; i++) v[i] = (long)i + round;
        rz_pool_run(c->pool, c->n, fill_square, v);
        for (size_t i = 0; i < c->n; i++) c->right &= v[i] == ((long)i + round) * ((long)i + round);
    }
    return NULL;
}

static void many_callers(void **state)
{
    (void)state;
    rz_pool *pool = make_pool(4);
    pthread_t threads[8];
    caller callers[8];
    for (size_t i = 0; i < 8; i++) {
        callers[i] = (caller){pool, 2 + 8 * i, false};
        assert_int_equal(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
    }
    for (size_t i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        assert_true(callers[i].right);
    }
    rz_pool_destroy(pool);
}

typedef struct nested {
    rz_pool *pool;
    atomic_int calls;
    pthread_t outer[4];
    atomic_bool moved;
} nested;

static void inner_task(void *arg, size_t i)
{
    nested *n = arg;
    bool known = false;
    (void)i;
    for (int k = 0; k < 4; k++) known |= pthread_equal(n->outer[k], pthread_self());
    if (!known) atomic_store(&n->moved, true);
    atomic_fetch_add(&n->calls, 1);
}

static void outer_task(void *arg, size_t i)
{
    nested *all = arg, one = {.pool = all->pool};
    for (int k = 0; k < 4; k++) one.outer[k] = pthread_self();
    (void)i;
    rz_pool_run(all->pool, 10, inner_task, &one);
    if (one.moved) atomic_store(&all->moved, true);
    atomic_fetch_add(&all->calls, one.calls);
}

static void a_task_may_run_tasks(void **state)
{
    (void)state;
    nested all = {.pool = make_pool(4)};
    rz_pool_run(all.pool, 50, outer_task, &all);
    assert_int_equal(all.calls, 500);
    assert_false(all.moved);
    rz_pool_destroy(all.pool);
}

/* Two tasks that wait for each other: one of them is on a worker for sure. */
typedef struct meeting {
    atomic_int here;
    pthread_t caller;
    sigset_t worker_mask;
    int rounding[2];
} meeting;

static void meet(void *arg, size_t i)
{
    meeting *m = arg;
    atomic_fetch_add(&m->here, 1);
    while (atomic_load(&m->here) < 2) usleep(100);
    m->rounding[i] = fegetround();
    if (!pthread_equal(pthread_self(), m->caller)) pthread_sigmask(SIG_SETMASK, NULL, &m->worker_mask);
}

static void signals_go_to_the_host(void **state)
{
    (void)state;
    static const int asynchronous[] = {SIGINT, SIGTERM, SIGHUP, SIGALRM, SIGUSR1, SIGCHLD, SIGPIPE, SIGPROF, SIGWINCH};
    sigset_t before, after;
    meeting m = {.caller = pthread_self()};
    sigemptyset(&m.worker_mask);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    rz_pool *pool = make_pool(2);
    rz_pool_run(pool, 2, meet, &m);
    rz_pool_destroy(pool);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (size_t i = 0; i < RZ_COUNT(asynchronous); i++) {
        assert_int_equal(sigismember(&m.worker_mask, asynchronous[i]), 1);
        assert_int_equal(sigismember(&before, asynchronous[i]), sigismember(&after, asynchronous[i]));
    }
}

static void workers_round_as_the_caller_does(void **state)
{
    (void)state;
    static const int modes[] = {FE_UPWARD, FE_TONEAREST, FE_DOWNWARD};
    rz_pool *pool = make_pool(2);
    for (size_t k = 0; k < RZ_COUNT(modes); k++) {
        meeting m = {.caller = pthread_self()};
        fesetround(modes[k]);
        rz_pool_run(pool, 2, meet, &m);
        int mine = fegetround();
        fesetround(FE_TONEAREST);
        assert_int_equal(mine, modes[k]);
        assert_int_equal(m.rounding[0], modes[k]);
        assert_int_equal(m.rounding[1], modes[k]);
    }
    rz_pool_destroy(pool);
}

static void forked_child_works_alone(void **state)
{
    (void)state;
    rz_pool *pool = make_pool(4);
    atomic_int calls[100] = {0};
    rz_pool_run(pool, 100, count_call, calls);
    pid_t child = fork();
    if (!child) {
        bool right = true;
        rz_pool_run(pool, 100, count_call, calls);
        for (int i = 0; i < 100; i++) right &= calls[i] == 2;
        rz_pool_destroy(pool);
        _exit(right ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    rz_pool_run(pool, 100, count_call, calls);
    for (int i = 0; i < 100; i++) assert_int_equal(calls[i], 2);
    rz_pool_destroy(pool);
}

static void odd_arguments(void **state)
{
    (void)state;
    static const int wrong[] = {0, -1, 1025, -2147483647};
    for (size_t i = 0; i < RZ_COUNT(wrong); i++) {
        rz_pool *pool = (rz_pool *)&pool;
        radz_error err;
        assert_int_equal(rz_pool_create(NULL, wrong[i], &pool, &err), RADZ_E_ARGUMENT);
        assert_null(pool);
    }
    rz_pool_destroy(NULL);
    atomic_int calls[3] = {0};
    rz_pool_run(NULL, 3, count_call, calls);
    assert_int_equal(calls[0] + calls[1] + calls[2], 3);
}

/* Started and stopped at once, with and without work between. */
static void pools_come_and_go(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        rz_pool *pool = make_pool(1 + i % 6);
        atomic_int calls[5] = {0};
        if (i % 3) rz_pool_run(pool, 5, count_call, calls);
        rz_pool_destroy(pool);
    }
}

static radz_status come_and_go(const rz_host *host, void *arg)
{
    rz_pool *pool;
    (void)arg;
    RZ_TRY(rz_pool_create(host, 3, &pool, NULL));
    rz_pool_destroy(pool);
    return RADZ_OK;
}

static void memory_runs_out(void **state)
{
    (void)state;
    failing_host_try_all(come_and_go, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_once),
        cmocka_unit_test(many_callers),
        cmocka_unit_test(a_task_may_run_tasks),
        cmocka_unit_test(signals_go_to_the_host),
        cmocka_unit_test(workers_round_as_the_caller_does),
        cmocka_unit_test(forked_child_works_alone),
        cmocka_unit_test(odd_arguments),
        cmocka_unit_test(pools_come_and_go),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
