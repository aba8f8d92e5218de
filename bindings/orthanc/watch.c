/* watch.c - films that arrive, by way of Orthanc's own list of changes: what is written down there survives a kill, and
 * what this plugin has seen of it is kept beside it. SPDX-License-Identifier: GPL-3.0-or-later */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "plugin.h"

static pthread_t thread;
static int running, stopping, woken;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

/* 0: it is time to end. */
static int wait_for_news(int seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    pthread_mutex_lock(&lock);
    while (!woken && !stopping)
        if (pthread_cond_timedwait(&wake, &lock, &until)) break;
    woken = 0;
    int go_on = !stopping;
    pthread_mutex_unlock(&lock);
    return go_on;
}

void watch_wake(void)
{
    pthread_mutex_lock(&lock);
    woken = 1;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

/* ---- How far it has come -------------------------------------------------------------------------------- */

static json_int_t last_change(void)
{
    json_t *json = rest_get("/changes?last");
    json_int_t last = json_integer_value(json_object_get(json, "Last"));
    json_decref(json);
    return last;
}

/* On its first start it leaves alone what the archive has held before, unless asked to look at it. */
static json_int_t read_position(void)
{
    char *text = OrthancPluginGetGlobalProperty(orthanc, WATCH_PROPERTY, "");
    json_int_t seq = text && *text ? strtoll(text, NULL, 10) : config.backlog ? 0 : last_change();
    OrthancPluginFreeString(orthanc, text);
    return seq;
}

/* Films whose jobs have not ended are looked at again after a restart. */
static void save_position(json_int_t seen)
{
    static json_int_t saved = -1;
    json_int_t first = job_first_change(), safe = first && first <= seen ? first - 1 : seen;
    if (safe == saved) return;
    char text[24];
    json_int_t v = safe;
    size_t at = sizeof text;
    text[--at] = 0;
    do text[--at] = (char)('0' + v % 10);
    while ((v /= 10) > 0 && at > 0);
    if (!OrthancPluginSetGlobalProperty(orthanc, WATCH_PROPERTY, text + at)) saved = safe;
}

/* ---- Films ------------------------------------------------------------------------------------------------ */

static int is_wanted_modality(const char *modality)
{
    json_t *each;
    size_t i;
    if (!modality) return 0;
    if (!config.modalities) return strcmp(modality, "CR") == 0 || strcmp(modality, "DX") == 0;
    json_array_foreach(config.modalities, i, each) if (strcmp(json_string_value(each), modality) == 0) return 1;
    return 0;
}

static int is_film(const char *instance)
{
    json_t *tags = rest_get("/instances/%s/simplified-tags", instance);
    int is = is_wanted_modality(json_string_value(json_object_get(tags, "Modality")));
    json_decref(tags);
    return is && !film_is_output(instance);
}

static void consider(const char *instance, json_int_t seq)
{
    int current;
    char id[JOB_ID];
    if (!is_film(instance)) return;
    json_t *result = film_result(instance, &current);
    json_decref(result);
    if (result && current) return;
    /* Below what people ask for: an archive sends and receives first. */
    if (!job_ask(instance, -10, seq, id)) log_warning("radz: no job could be made for instance %s", instance);
}

/* 0: it is time to end. A few jobs ahead are enough: the rest waits in Orthanc's list of changes. */
static int wait_for_room(json_int_t seen)
{
    while (job_count() >= 2 * (size_t)config.jobs) {
        save_position(seen);
        if (!wait_for_news(2)) return 0;
    }
    return 1;
}

/* The changes after `seq`; where it has come to. */
static json_int_t read_changes(json_int_t seq, int *more)
{
    json_t *page = rest_get("/changes?since=%lld&limit=100", (long long)seq), *change;
    size_t i;
    *more = page && !json_is_true(json_object_get(page, "Done"));
    json_array_foreach(json_object_get(page, "Changes"), i, change)
    {
        const char *type = json_string_value(json_object_get(change, "ChangeType"));
        const char *id = json_string_value(json_object_get(change, "ID"));
        if (!wait_for_room(seq)) break;
        seq = json_integer_value(json_object_get(change, "Seq"));
        if (type && id && strcmp(type, "NewInstance") == 0) consider(id, seq);
    }
    json_decref(page);
    return seq;
}

static void *watch(void *unused)
{
    (void)unused;
    json_int_t seq = read_position();
    int more = 1;
    while (more ? !engine_stopping() : wait_for_news(5)) {
        seq = read_changes(seq, &more);
        save_position(seq);
    }
    return NULL;
}

void watch_start(void)
{
    if (engine.error || !config.automatic || running) return;
    running = pthread_create(&thread, NULL, watch, NULL) == 0;
    if (!running) log_error("radz: films that arrive are not looked at: no thread could be started");
}

void watch_stop(void)
{
    pthread_mutex_lock(&lock);
    stopping = 1;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
    if (running) pthread_join(thread, NULL);
    running = 0;
}
