/* pool.c - worker threads that help whoever has work. SPDX-License-Identifier: Apache-2.0
 *
 * A job lives on its caller's stack and in the pool's list. Workers join it under the mutex and take indices
 * from it by an atomic counter; the caller takes part, unlinks the job and waits until the last helper left. */
#include "pool.h"

#include <fenv.h>
#include <pthread.h>
#ifdef __linux__
#include <sched.h>
#endif
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

typedef struct job {
    struct job *next_job, *prev_job;
    void (*fn)(void *arg, size_t i);
    void *arg;
    size_t n;
    atomic_size_t next;    /* first index nobody took */
    atomic_size_t helpers; /* workers inside; changed under the mutex only */
    bool waiting;          /* the caller sleeps on pool->left */
    int cpu;               /* that the caller was on; -1: not known */
    fenv_t fenv;           /* the caller's rounding and flush modes, so that every index computes alike */
} job;

struct rz_pool {
    const rz_host *host;
    pid_t pid;
    int n_workers;
    pthread_mutex_t mutex;
    pthread_cond_t work, left;
    job *first, *last;
    int sleepers;
    bool stop;
    atomic_uint ticket; /* grows with every job: what spinning workers look at */
    pthread_t threads[];
};

static _Thread_local bool inside_task;

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Spins for about 20 us while *value == old: operations of a network follow each other faster than a
 * sleeping thread wakes up. */
static bool spin_ticket(atomic_uint *value, unsigned old)
{
    double end = rz_seconds() + 20e-6;
    do {
        for (int i = 0; i < 16; i++, relax())
            if (atomic_load_explicit(value, memory_order_relaxed) != old) return true;
    } while (rz_seconds() < end);
    return false;
}

static bool spin_helpers(atomic_size_t *value)
{
    double end = rz_seconds() + 20e-6;
    do {
        for (int i = 0; i < 16; i++, relax())
            if (!atomic_load_explicit(value, memory_order_acquire)) return true;
    } while (rz_seconds() < end);
    return false;
}

static bool has_work(job *j)
{
    return atomic_load_explicit(&j->next, memory_order_relaxed) < j->n;
}

static void take_indices(job *j)
{
    inside_task = true;
    while (has_work(j)) {
        size_t i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
        if (i < j->n) j->fn(j->arg, i);
    }
    inside_task = false;
}

static int current_cpu(void)
{
#ifdef __linux__
    return sched_getcpu();
#else
    return -1;
#endif
}

/* A worker is often woken on the very CPU that its caller keeps busy, and left waiting there for milliseconds beside an
 * idle one. So it keeps off the CPU of the caller that it helped last, wherever else it was allowed to run. */
struct places {
#ifdef __linux__
    cpu_set_t allowed, ours; /* ours: what we made of it */
#endif
    int avoided; /* -1: none */
};

static void avoid_cpu(struct places *p, int cpu)
{
#ifdef __linux__
    cpu_set_t now;
    if (cpu < 0 || cpu >= CPU_SETSIZE || cpu == p->avoided || sched_getaffinity(0, sizeof now, &now)) return;
    if (p->avoided < 0 || !CPU_EQUAL(&now, &p->ours)) p->allowed = now; /* as it was, or the host's wish since */
    p->ours = p->allowed;
    CPU_CLR(cpu, &p->ours);
    p->avoided = cpu;
    if (CPU_COUNT(&p->ours) == 0 || sched_setaffinity(0, sizeof p->ours, &p->ours)) p->ours = now;
#else
    (void)p, (void)cpu;
#endif
}

/* With the mutex held on entry and on return. */
static void help(rz_pool *pool, job *j, struct places *places)
{
    atomic_fetch_add_explicit(&j->helpers, 1, memory_order_relaxed);
    pthread_mutex_unlock(&pool->mutex);
    avoid_cpu(places, j->cpu);
    fesetenv(&j->fenv);
    take_indices(j);
    pthread_mutex_lock(&pool->mutex);
    bool wake = j->waiting;
    /* After this the job may be gone: its caller looks at helpers without the mutex. */
    atomic_fetch_sub_explicit(&j->helpers, 1, memory_order_release);
    if (wake) pthread_cond_broadcast(&pool->left);
}

static job *find_work(rz_pool *pool)
{
    job *j = pool->first;
    while (j && !has_work(j)) j = j->next_job;
    return j;
}

static void *worker(void *arg)
{
    rz_pool *pool = arg;
    struct places places = {.avoided = -1};
#ifdef __linux__
    pthread_setname_np(pthread_self(), "radz");
#endif
    pthread_mutex_lock(&pool->mutex);
    while (!pool->stop) {
        job *j = find_work(pool);
        if (j) {
            help(pool, j, &places);
            continue;
        }
        unsigned seen = atomic_load_explicit(&pool->ticket, memory_order_relaxed);
        pthread_mutex_unlock(&pool->mutex);
        bool changed = spin_ticket(&pool->ticket, seen);
        pthread_mutex_lock(&pool->mutex);
        if (changed) continue;
        pool->sleepers++;
        while (!pool->stop && atomic_load_explicit(&pool->ticket, memory_order_relaxed) == seen)
            pthread_cond_wait(&pool->work, &pool->mutex);
        pool->sleepers--;
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static void link_job(rz_pool *pool, job *j)
{
    pthread_mutex_lock(&pool->mutex);
    j->prev_job = pool->last;
    *(pool->last ? &pool->last->next_job : &pool->first) = j;
    pool->last = j;
    atomic_fetch_add_explicit(&pool->ticket, 1, memory_order_relaxed);
    if (pool->sleepers && j->n == 2)
        pthread_cond_signal(&pool->work);
    else if (pool->sleepers)
        pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
}

static void unlink_job(rz_pool *pool, job *j)
{
    pthread_mutex_lock(&pool->mutex);
    *(j->prev_job ? &j->prev_job->next_job : &pool->first) = j->next_job;
    *(j->next_job ? &j->next_job->prev_job : &pool->last) = j->prev_job;
    pthread_mutex_unlock(&pool->mutex);
}

static void wait_helpers(rz_pool *pool, job *j)
{
    if (spin_helpers(&j->helpers)) return;
    pthread_mutex_lock(&pool->mutex);
    j->waiting = true;
    while (atomic_load_explicit(&j->helpers, memory_order_acquire)) pthread_cond_wait(&pool->left, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

void rz_pool_run(rz_pool *pool, size_t n, void (*fn)(void *arg, size_t i), void *arg)
{
    if (n < 2 || inside_task || !pool || pool->n_workers == 0 || getpid() != pool->pid) {
        for (size_t i = 0; i < n; i++) fn(arg, i);
        return;
    }
    job j = {.fn = fn, .arg = arg, .n = n, .cpu = current_cpu()};
    fegetenv(&j.fenv);
    link_job(pool, &j);
    take_indices(&j);
    unlink_job(pool, &j);
    wait_helpers(pool, &j);
}

/* Asynchronous signals belong to the host's threads. Those a thread causes itself stay as the host set them. */
static void worker_signals(sigset_t *set)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    sigfillset(set);
    for (size_t i = 0; i < RZ_COUNT(own); i++) sigdelset(set, own[i]);
}

static void start_workers(rz_pool *pool, int n)
{
    sigset_t blocked, before;
    worker_signals(&blocked);
    if (pthread_sigmask(SIG_SETMASK, &blocked, &before)) return;
    while (pool->n_workers < n && !pthread_create(&pool->threads[pool->n_workers], NULL, worker, pool))
        pool->n_workers++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pool->n_workers < n)
        rz_log(pool->host, RADZ_LOG_WARNING, "the system refused a thread: %d instead of %d", pool->n_workers + 1,
               n + 1);
}

radz_status rz_pool_create(const rz_host *host, int n_threads, rz_pool **out, radz_error *err)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > 1024)
        return rz_fail(err, RADZ_E_ARGUMENT, "threads: %d is not between 1 and 1024", n_threads);
    rz_pool *pool = rz_calloc(host, 1, sizeof *pool + (size_t)n_threads * sizeof pool->threads[0]);
    if (!pool) return RZ_NO_MEMORY(err, "thread pool");
    pool->host = host;
    pool->pid = getpid();
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->left, NULL);
    start_workers(pool, n_threads - 1);
    *out = pool;
    return RADZ_OK;
}

static void stop_workers(rz_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->stop = true;
    atomic_fetch_add_explicit(&pool->ticket, 1, memory_order_relaxed);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->n_workers; i++) pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->left);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
}

void rz_pool_destroy(rz_pool *pool)
{
    if (!pool) return;
    /* A forked child has no workers, and the mutex may be held by a thread that does not exist here. */
    if (pool->pid == getpid()) stop_workers(pool);
    rz_free(pool->host, pool);
}

bool rz_pool_inside(void)
{
    return inside_task;
}

int rz_pool_threads(const rz_pool *pool)
{
    return pool ? pool->n_workers + 1 : 1;
}
