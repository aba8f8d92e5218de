/* job.c - a film as a job of Orthanc: progress, cancelling, going on after a restart. The film is worked on in a thread
 * of its own, which a step of the job only looks at: so Orthanc can cancel or pause in the middle of a long pass.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "plugin.h"

#define JOB_TYPE "RadzClassify"

enum { LOOK_NANOSECONDS = 100000000 };

typedef struct work {
    struct work *next;
    unsigned long serial;
    char instance[64];
    char *content, *problem;             /* JSON, for Orthanc; problem: the content from when it failed */
    char *serialized, *serialized_ended; /* the list of jobs keeps those that have ended, too */
    _Atomic float progress;
    atomic_int cancel;
    pthread_t thread; /* of job_step, job_stop: Orthanc calls one at a time */
    int has_thread;
    /* Guarded by `lock`. */
    char id[JOB_ID];
    json_int_t seq;
    int ended; /* it holds nothing back any more */
    int finished, status;
} work;

static work *all;
static unsigned long last_serial;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, asking = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t finished = PTHREAD_COND_INITIALIZER;

static void set_ended(work *w, int ended)
{
    pthread_mutex_lock(&lock);
    w->ended = ended;
    pthread_mutex_unlock(&lock);
    watch_wake();
}

static void free_work(work *w)
{
    free(w->content), free(w->problem), free(w->serialized), free(w->serialized_ended);
    free(w);
}

/* ---- The film's thread ------------------------------------------------------------------------------- */

static void tell_problem(work *w, const char *problem)
{
    json_t *content = json_pack("{s:s, s:s}", "Instance", w->instance, "Error", problem);
    free(w->problem);
    w->problem = content ? json_dumps(content, JSON_COMPACT) : NULL;
    json_decref(content);
}

static void *work_on(void *argument)
{
    work *w = argument;
    film *f = film_open(w->instance, &w->cancel);
    int status = f ? FILM_MORE : FILM_FAILED;
    while (status == FILM_MORE) {
        status = film_step(f);
        atomic_store(&w->progress, film_progress(f));
    }
    if (status == FILM_FAILED) tell_problem(w, f ? film_problem(f) : "out of memory");
    film_close(f);
    pthread_mutex_lock(&lock);
    w->finished = 1, w->status = status;
    pthread_cond_broadcast(&finished);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void join(work *w)
{
    if (w->has_thread) pthread_join(w->thread, NULL);
    w->has_thread = 0;
}

static void end_thread(work *w)
{
    atomic_store(&w->cancel, 1);
    engine_wake();
    join(w);
    atomic_store(&w->cancel, 0);
}

/* What has become of it after a moment. */
static int look_at(work *w)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_NANOSECONDS;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&lock);
    while (!w->finished)
        if (pthread_cond_timedwait(&finished, &lock, &until)) break;
    const int status = w->finished ? w->status : FILM_MORE;
    pthread_mutex_unlock(&lock);
    return status;
}

/* ---- What Orthanc calls ------------------------------------------------------------------------------ */

static void job_finalize(void *job)
{
    work *w = job;
    end_thread(w);
    pthread_mutex_lock(&lock);
    work **p = &all;
    while (*p && *p != w) p = &(*p)->next;
    if (*p) *p = w->next;
    pthread_mutex_unlock(&lock);
    free_work(w);
    watch_wake();
}

static float job_progress(void *job)
{
    return atomic_load(&((work *)job)->progress);
}

static int has_failed(work *w)
{
    pthread_mutex_lock(&lock);
    const int failed = w->finished && w->status == FILM_FAILED;
    pthread_mutex_unlock(&lock);
    return failed;
}

static const char *job_content(void *job)
{
    work *w = job;
    return has_failed(w) && w->problem ? w->problem : w->content;
}

static const char *job_serialized(void *job)
{
    work *w = job;
    pthread_mutex_lock(&lock);
    const int ended = w->ended;
    pthread_mutex_unlock(&lock);
    return ended ? w->serialized_ended : w->serialized;
}

static OrthancPluginJobStepStatus job_step(void *job)
{
    work *w = job;
    if (!w->has_thread) {
        w->finished = 0;
        w->has_thread = pthread_create(&w->thread, NULL, work_on, w) == 0;
        if (!w->has_thread) return OrthancPluginJobStepStatus_Failure;
    }
    const int status = look_at(w);
    if (status == FILM_MORE) return OrthancPluginJobStepStatus_Continue;
    join(w);
    if (status == FILM_DONE) return OrthancPluginJobStepStatus_Success;
    if (status == FILM_FAILED) return OrthancPluginJobStepStatus_Failure;
    nanosleep(&(struct timespec){.tv_nsec = LOOK_NANOSECONDS}, NULL);
    return OrthancPluginJobStepStatus_Continue; /* stopping: Orthanc keeps it for its next start */
}

static OrthancPluginErrorCode job_stop(void *job, OrthancPluginJobStopReason reason)
{
    end_thread(job);
    if (reason != OrthancPluginJobStopReason_Paused) set_ended(job, 1);
    return OrthancPluginErrorCode_Success;
}

static OrthancPluginErrorCode job_reset(void *job)
{
    work *w = job;
    end_thread(w);
    w->finished = 0;
    atomic_store(&w->progress, 0);
    set_ended(w, 0);
    return OrthancPluginErrorCode_Success;
}

/* ---- Making one ----------------------------------------------------------------------------------------- */

static void enlist(work *w)
{
    pthread_mutex_lock(&lock);
    w->serial = ++last_serial;
    w->next = all, all = w;
    pthread_mutex_unlock(&lock);
}

static int write_texts(work *w)
{
    w->content = print("{\"Instance\":\"%s\"}", w->instance);
    w->serialized = print("{\"Instance\":\"%s\",\"Change\":%lld}", w->instance, (long long)w->seq);
    w->serialized_ended = print("{\"Instance\":\"%s\",\"Ended\":true}", w->instance);
    return w->content && w->serialized && w->serialized_ended;
}

static OrthancPluginJob *make_job(const char *instance, json_int_t seq, int ended, unsigned long *serial)
{
    work *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    strncpy(w->instance, instance, sizeof w->instance - 1);
    w->seq = seq, w->ended = ended;
    OrthancPluginJob *job = NULL;
    if (write_texts(w))
        job = OrthancPluginCreateJob(orthanc, w, job_finalize, JOB_TYPE, job_progress, job_content, job_serialized,
                                     job_step, job_stop, job_reset);
    if (!job) {
        free_work(w);
        return NULL;
    }
    enlist(w);
    *serial = w->serial;
    return job;
}

/* Orthanc's identifiers are hexadecimal digits and hyphens: anything else is not put into a path or into JSON. */
static int is_identifier(const char *text)
{
    return text && *text && strlen(text) < 64 && text[strspn(text, "0123456789abcdef-")] == 0;
}

/* The job that is at work on a film answers for the change too. */
static int find_job(const char *instance, json_int_t seq, char id[JOB_ID])
{
    int found = 0;
    pthread_mutex_lock(&lock);
    for (work *w = all; w && !found; w = w->next) {
        found = !w->ended && strcmp(w->instance, instance) == 0;
        if (found && seq && (!w->seq || seq < w->seq)) w->seq = seq;
        if (found) memcpy(id, w->id, JOB_ID);
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static void set_id(unsigned long serial, const char *id)
{
    pthread_mutex_lock(&lock);
    for (work *w = all; w; w = w->next)
        if (w->serial == serial) strncpy(w->id, id, JOB_ID - 1);
    pthread_mutex_unlock(&lock);
}

static int submit(const char *instance, int priority, json_int_t seq, char id[JOB_ID])
{
    unsigned long serial = 0;
    OrthancPluginJob *job = make_job(instance, seq, 0, &serial);
    if (!job) return 0;
    char *given = OrthancPluginSubmitJob(orthanc, job, priority);
    if (!given) {
        OrthancPluginFreeJob(orthanc, job);
        return 0;
    }
    strncpy(id, given, JOB_ID - 1);
    set_id(serial, given);
    OrthancPluginFreeString(orthanc, given);
    return 1;
}

/* Only Orthanc knows the identifier of a job from before its start. */
static void look_up_id(const char *instance, char id[JOB_ID])
{
    json_t *jobs = rest_get("/jobs?expand"), *job;
    size_t i;
    json_array_foreach(jobs, i, job)
    {
        const char *state = json_string_value(json_object_get(job, "State"));
        const char *about = json_string_value(json_object_get(json_object_get(job, "Content"), "Instance"));
        const char *given = json_string_value(json_object_get(job, "ID"));
        const int active = state && strcmp(state, "Success") != 0 && strcmp(state, "Failure") != 0;
        if (active && about && given && strcmp(about, instance) == 0) strncpy(id, given, JOB_ID - 1);
    }
    json_decref(jobs);
}

int job_ask(const char *instance, int priority, json_int_t seq, char id[JOB_ID])
{
    memset(id, 0, JOB_ID);
    if (!is_identifier(instance)) return 0;
    pthread_mutex_lock(&asking); /* one film, one job, however many ask at once */
    const int done = find_job(instance, seq, id) || submit(instance, priority, seq, id);
    if (done && !*id) look_up_id(instance, id);
    pthread_mutex_unlock(&asking);
    return done;
}

static OrthancPluginJob *unserialize(const char *type, const char *serialized)
{
    unsigned long serial;
    if (strcmp(type, JOB_TYPE) != 0) return NULL;
    json_t *json = json_loads(serialized, 0, NULL);
    const char *instance = json_string_value(json_object_get(json, "Instance"));
    const json_int_t seq = json_integer_value(json_object_get(json, "Change"));
    const int ended = json_is_true(json_object_get(json, "Ended"));
    OrthancPluginJob *job = is_identifier(instance) ? make_job(instance, seq, ended, &serial) : NULL;
    json_decref(json);
    return job;
}

void job_register(void)
{
    OrthancPluginRegisterJobsUnserializer(orthanc, unserialize);
}

void job_end_all(void)
{
    for (work *w = all; w; w = w->next) end_thread(w); /* Orthanc's own threads have ended */
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

json_int_t job_first_change(void)
{
    json_int_t first = 0;
    pthread_mutex_lock(&lock);
    for (work *w = all; w; w = w->next)
        if (!w->ended && w->seq && (!first || w->seq < first)) first = w->seq;
    pthread_mutex_unlock(&lock);
    return first;
}
