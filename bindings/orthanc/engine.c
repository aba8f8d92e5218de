/* engine.c - the model, and a session for each film that is worked on at once.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

engine_state engine;

static radz_runtime *runtime;
static radz_session *sessions[64];
static int n_free;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t freed = PTHREAD_COND_INITIALIZER;
static atomic_int stopping;

static void on_log(radz_log_level level, const char *message, void *user)
{
    (void)user;
    if (level >= RADZ_LOG_WARNING) log_warning("%s", message);
}

static int is_cancelled(void *user)
{
    (void)user;
    return atomic_load(&stopping);
}

static int open_sessions(radz_error *err)
{
    radz_session_options o;
    radz_session_options_init(&o);
    o.cancel_fn = is_cancelled;
    for (; n_free < config.jobs; n_free++)
        if (radz_session_open(engine.model, &o, &sessions[n_free], err)) return 0;
    return 1;
}

/* What a result depends on: where one of these changes, films are looked at again. FNV-1a is enough to tell two
 * settings of one archive apart; model and bank are named by their SHA-256. */
static void make_key(void)
{
    char *options = json_dumps(config.all, JSON_SORT_KEYS | JSON_COMPACT);
    char *all = print("%s %s %s", radz_model_hash(engine.model), radz_bank_hash(engine.bank), options ? options : "");
    uint64_t h[2] = {14695981039346656037u, 0x9ae16a3b2f90404fu};
    for (const char *p = all ? all : ""; *p; p++)
        for (int i = 0; i < 2; i++) h[i] = (h[i] ^ (unsigned char)*p) * 1099511628211u;
    char *text = print("%016llx%016llx", (unsigned long long)h[0], (unsigned long long)h[1]);
    strncpy(engine.key, text ? text : "0", sizeof engine.key - 1);
    free(text), free(all), free(options);
}

void engine_open(void)
{
    radz_error err;
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    o.n_threads = config.threads, o.log_fn = on_log;
    if (!config.model) {
        engine.error = print("the configuration names no model: \"Radz\": {\"Model\": \"directory\"}");
    } else if (radz_runtime_create(&o, &runtime, &err) ||
               radz_model_open(runtime, config.model, NULL, &engine.model, &err) ||
               radz_bank_open(engine.model, config.bank, &engine.bank, &err) || !open_sessions(&err)) {
        engine.error = print("%s", err.message);
    } else {
        make_key();
    }
    if (engine.error) log_error("radz: films are not classified: %s", engine.error);
}

void engine_stop(void)
{
    pthread_mutex_lock(&lock);
    atomic_store(&stopping, 1);
    pthread_cond_broadcast(&freed);
    pthread_mutex_unlock(&lock);
}

int engine_stopping(void)
{
    return atomic_load(&stopping);
}

void engine_close(void)
{
    while (n_free) radz_session_close(sessions[--n_free]);
    radz_bank_close(engine.bank);
    radz_model_close(engine.model);
    radz_runtime_close(runtime);
    free(engine.error);
    memset(&engine, 0, sizeof engine);
    runtime = NULL;
}

radz_session *engine_take(void)
{
    if (engine.error) return NULL;
    radz_session *s = NULL;
    pthread_mutex_lock(&lock);
    while (!n_free && !atomic_load(&stopping)) pthread_cond_wait(&freed, &lock);
    if (!atomic_load(&stopping)) s = sessions[--n_free];
    pthread_mutex_unlock(&lock);
    return s;
}

void engine_give(radz_session *session)
{
    if (!session) return;
    pthread_mutex_lock(&lock);
    sessions[n_free++] = session;
    pthread_cond_signal(&freed);
    pthread_mutex_unlock(&lock);
}
