/* engine.c - the model, and a session for each film that is worked on at once.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "plugin.h"

engine_state engine;

typedef struct slot {
    radz_session *session;
    const atomic_int *_Atomic cancel; /* of who has the session */
    int taken;
} slot;

static radz_runtime *runtime;
static slot slots[64];
static int n_slots;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t freed = PTHREAD_COND_INITIALIZER;
static atomic_int stopping;

static void on_log(radz_log_level level, const char *message, void *user)
{
    (void)user;
    if (level >= RADZ_LOG_WARNING) log_warning("%s", message);
}

static int is_set(const atomic_int *flag)
{
    return atomic_load(&stopping) || (flag && atomic_load(flag));
}

/* Asked between the layers of the network. */
static int is_cancelled(void *user)
{
    return is_set(atomic_load(&((slot *)user)->cancel));
}

static int open_sessions(radz_error *err)
{
    radz_session_options o;
    radz_session_options_init(&o);
    o.cancel_fn = is_cancelled, o.strict = config.strict;
    for (; n_slots < config.jobs; n_slots++) {
        o.user = &slots[n_slots];
        if (radz_session_open(engine.model, &o, &slots[n_slots].session, err)) return 0;
    }
    return 1;
}

static uint64_t fnv(uint64_t hash, const char *text)
{
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    return hash;
}

/* What a result depends on: where one of these changes, films are looked at again when asked. FNV-1a is enough to tell
 * two settings of one archive apart; model and bank are named by their SHA-256. */
static void make_key(void)
{
    char *options = config_text();
    char *all = print("%s %s %s %s", radz_version(), radz_model_hash(engine.model), radz_bank_hash(engine.bank),
                      options ? options : "");
    const char *text = all ? all : "";
    char *key = print("%016llx%016llx", (unsigned long long)fnv(14695981039346656037u, text),
                      (unsigned long long)fnv(0x9ae16a3b2f90404fu, text));
    strncpy(engine.key, key ? key : "0", sizeof engine.key - 1);
    free(key), free(all), free(options);
}

void engine_open(void)
{
    radz_error err;
    radz_runtime_options o;
    radz_model_options m;
    radz_model_options_init(&m);
    m.weights = config.weights, m.memory_bytes = (uint64_t)config.memory << 20;
    radz_runtime_options_init(&o);
    o.n_threads = config.threads, o.log_fn = on_log;
    if (!config.model) {
        engine.error = print("the configuration names no model: \"Radz\": {\"Model\": \"directory\"}");
    } else if (radz_runtime_create(&o, &runtime, &err) ||
               radz_model_open(runtime, config.model, &m, &engine.model, &err) ||
               radz_bank_open(engine.model, config.bank, &engine.bank, &err) || !open_sessions(&err)) {
        engine.error = print("%s", err.message);
    } else {
        make_key();
    }
    if (engine.error) log_error("radz: films are not classified: %s", engine.error);
}

void engine_wake(void)
{
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&freed);
    pthread_mutex_unlock(&lock);
}

void engine_stop(void)
{
    atomic_store(&stopping, 1);
    engine_wake();
}

int engine_stopping(void)
{
    return atomic_load(&stopping);
}

void engine_close(void)
{
    while (n_slots) radz_session_close(slots[--n_slots].session);
    radz_bank_close(engine.bank);
    radz_model_close(engine.model);
    radz_runtime_close(runtime);
    free(engine.error);
    memset(&engine, 0, sizeof engine);
    runtime = NULL;
}

static slot *find_free(void)
{
    for (int i = 0; i < n_slots; i++)
        if (!slots[i].taken) return &slots[i];
    return NULL;
}

radz_session *engine_take(const atomic_int *cancel, int seconds)
{
    slot *s = NULL;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds ? seconds : 1 << 30;
    if (engine.error) return NULL;
    pthread_mutex_lock(&lock);
    while (!is_set(cancel) && !(s = find_free()))
        if (pthread_cond_timedwait(&freed, &lock, &until)) break;
    if (s) {
        s->taken = 1;
        atomic_store(&s->cancel, cancel);
    }
    pthread_mutex_unlock(&lock);
    return s ? s->session : NULL;
}

void engine_give(radz_session *session)
{
    if (!session) return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_slots; i++) {
        if (slots[i].session != session) continue;
        slots[i].taken = 0;
        atomic_store(&slots[i].cancel, NULL);
    }
    pthread_cond_signal(&freed);
    pthread_mutex_unlock(&lock);
}
