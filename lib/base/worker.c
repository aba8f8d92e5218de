/* worker.c - one thread that does one job at a time beside its owner. SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include <pthread.h>
#include <signal.h>

struct rz_worker {
    const rz_host *host;
    void (*fn)(void *arg);
    void *arg;
    bool has_thread, busy, stop;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread;
};

static void *work(void *arg)
{
    rz_worker *w = arg;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        while (!w->busy && !w->stop) pthread_cond_wait(&w->changed, &w->mutex);
        if (!w->busy) break;
        pthread_mutex_unlock(&w->mutex);
        w->fn(w->arg);
        pthread_mutex_lock(&w->mutex);
        w->busy = false;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

static bool start_thread(rz_worker *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed;
}

radz_status rz_worker_open(const rz_host *host, void (*fn)(void *arg), void *arg, rz_worker **out, radz_error *err)
{
    *out = NULL;
    rz_worker *w = rz_calloc(host, 1, sizeof *w);
    if (!w) return RZ_NO_MEMORY(err, "worker thread");
    w->host = host, w->fn = fn, w->arg = arg;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->has_thread = start_thread(w);
    *out = w;
    return RADZ_OK;
}

void rz_worker_close(rz_worker *w)
{
    if (!w) return;
    rz_worker_wait(w);
    if (w->has_thread) {
        pthread_mutex_lock(&w->mutex);
        w->stop = true;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->mutex);
        pthread_join(w->thread, NULL);
    }
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->mutex);
    rz_free(w->host, w);
}

void rz_worker_start(rz_worker *w)
{
    pthread_mutex_lock(&w->mutex);
    w->busy = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

void rz_worker_wait(rz_worker *w)
{
    if (!w) return;
    if (!w->has_thread) {
        if (w->busy) w->fn(w->arg);
        w->busy = false;
        return;
    }
    pthread_mutex_lock(&w->mutex);
    while (w->busy) pthread_cond_wait(&w->changed, &w->mutex);
    pthread_mutex_unlock(&w->mutex);
}
