/* job.c - a film as a job of Orthanc: progress, cancelling, going on after a restart.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

#define JOB_TYPE "RadzClassify"

typedef struct work {
    struct work *next;
    char instance[64];
    char *content, *serialized; /* JSON, for Orthanc */
    film *film;
    json_int_t seq;
    int ended; /* guarded by `lock`: it holds nothing back any more */
    _Atomic float progress;
} work;

static work *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void end_work(work *w)
{
    pthread_mutex_lock(&lock);
    w->ended = 1;
    pthread_mutex_unlock(&lock);
    watch_wake();
}

/* ---- What Orthanc calls ------------------------------------------------------------------------------ */

static void job_finalize(void *job)
{
    work *w = job;
    pthread_mutex_lock(&lock);
    work **p = &all;
    while (*p && *p != w) p = &(*p)->next;
    if (*p) *p = w->next;
    pthread_mutex_unlock(&lock);
    film_close(w->film);
    free(w->content), free(w->serialized), free(w);
    watch_wake();
}

static float job_progress(void *job)
{
    return atomic_load(&((work *)job)->progress);
}

static const char *job_content(void *job)
{
    return ((work *)job)->content;
}

static const char *job_serialized(void *job)
{
    return ((work *)job)->serialized;
}

static OrthancPluginJobStepStatus job_step(void *job)
{
    work *w = job;
    if (!w->film) w->film = film_open(w->instance);
    if (!w->film) return OrthancPluginJobStepStatus_Failure;
    int status = film_step(w->film);
    atomic_store(&w->progress, film_progress(w->film));
    switch (status) {
    case FILM_DONE:
        return OrthancPluginJobStepStatus_Success;
    case FILM_FAILED:
        return OrthancPluginJobStepStatus_Failure;
    default:
        return OrthancPluginJobStepStatus_Continue; /* stopping: Orthanc keeps it for its next start */
    }
}

static OrthancPluginErrorCode job_stop(void *job, OrthancPluginJobStopReason reason)
{
    work *w = job;
    if (reason != OrthancPluginJobStopReason_Paused) end_work(w);
    film_close(w->film);
    w->film = NULL;
    return OrthancPluginErrorCode_Success;
}

static OrthancPluginErrorCode job_reset(void *job)
{
    work *w = job;
    film_close(w->film);
    w->film = NULL;
    pthread_mutex_lock(&lock);
    w->ended = 0;
    pthread_mutex_unlock(&lock);
    return OrthancPluginErrorCode_Success;
}

/* ---- Making one ----------------------------------------------------------------------------------------- */

static OrthancPluginJob *make_job(const char *instance, json_int_t seq)
{
    work *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    strncpy(w->instance, instance, sizeof w->instance - 1);
    w->seq = seq;
    w->content = print("{\"Instance\":\"%s\"}", w->instance);
    w->serialized = print("{\"Instance\":\"%s\",\"Change\":%lld}", w->instance, (long long)seq);
    OrthancPluginJob *job = NULL;
    if (w->content && w->serialized)
        job = OrthancPluginCreateJob(orthanc, w, job_finalize, JOB_TYPE, job_progress, job_content, job_serialized,
                                     job_step, job_stop, job_reset);
    if (!job) {
        free(w->content), free(w->serialized), free(w);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    w->next = all, all = w;
    pthread_mutex_unlock(&lock);
    return job;
}

/* Orthanc's identifiers are hexadecimal digits and hyphens: anything else is not put into a path or into JSON. */
static int is_identifier(const char *text)
{
    return text && *text && strlen(text) < 64 && text[strspn(text, "0123456789abcdef-")] == 0;
}

char *job_submit(const char *instance, int priority, json_int_t seq)
{
    OrthancPluginJob *job = is_identifier(instance) ? make_job(instance, seq) : NULL;
    if (!job) return NULL;
    char *id = OrthancPluginSubmitJob(orthanc, job, priority);
    if (!id) OrthancPluginFreeJob(orthanc, job);
    return id;
}

static OrthancPluginJob *unserialize(const char *type, const char *serialized)
{
    if (strcmp(type, JOB_TYPE) != 0) return NULL;
    json_t *json = json_loads(serialized, 0, NULL);
    const char *instance = json_string_value(json_object_get(json, "Instance"));
    json_int_t seq = json_integer_value(json_object_get(json, "Change"));
    OrthancPluginJob *job = is_identifier(instance) ? make_job(instance, seq) : NULL;
    json_decref(json);
    return job;
}

void job_register(void)
{
    OrthancPluginRegisterJobsUnserializer(orthanc, unserialize);
}

/* ---- Looking at them ------------------------------------------------------------------------------------- */

size_t job_count(void)
{
    size_t n = 0;
    pthread_mutex_lock(&lock);
    for (work *w = all; w; w = w->next) n += !w->ended;
    pthread_mutex_unlock(&lock);
    return n;
}

int job_has(const char *instance)
{
    int found = 0;
    pthread_mutex_lock(&lock);
    for (work *w = all; w && !found; w = w->next) found = !w->ended && strcmp(w->instance, instance) == 0;
    pthread_mutex_unlock(&lock);
    return found;
}

json_int_t job_first_change(void)
{
    json_int_t first = 0;
    pthread_mutex_lock(&lock);
    for (work *w = all; w; w = w->next)
        if (!w->ended && w->seq && (!first || w->seq < first)) first = w->seq;
    pthread_mutex_unlock(&lock);
    return first;
}
