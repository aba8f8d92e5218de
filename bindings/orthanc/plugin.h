/* plugin.h - the parts of the Orthanc plugin and what they promise each other.
 *
 *   watch (new films) -> job (one film) -> film (classify, heat maps, report) -> rest (the archive)
 *                           |                  |
 *   routes (HTTP) ----------+------------------+--> engine (model, sessions)
 *
 * Nothing here logs or answers with what identifies a patient: Orthanc's own identifiers only.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef RADZ_ORTHANC_PLUGIN_H
#define RADZ_ORTHANC_PLUGIN_H

#include <jansson.h>
#include <orthanc/OrthancCPlugin.h>
#include <radz.h>
#include <stdatomic.h>
#include <stddef.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum {
    RESULT_ATTACHMENT = 4210, /* user-defined content type of an instance: the result as JSON */
    WATCH_PROPERTY = 4210     /* global property: how far the archive's changes have been seen to */
};

/* ---- say: log, text, counts -------------------------------------------------------------------------- */

extern OrthancPluginContext *orthanc;

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* printf into fresh memory; NULL: none. */
char *print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* For /radz/status and Orthanc's metrics. */
typedef struct counts {
    unsigned long films, failed, findings;
    double last_seconds;
} counts;
void count_film(int failed, unsigned long findings, double seconds);
counts count_read(void);

/* ---- config: "Radz" in Orthanc's configuration ------------------------------------------------------ */

typedef struct settings {
    json_t *all; /* holds the texts below */
    const char *model, *bank, *labels, *weights;
    int memory;         /* of the weights in MiB, the rest is read again and again; 0: all of them */
    json_t *modalities; /* array: films that are looked at on arrival */
    json_t *thresholds; /* object: label -> probability from which a finding is called present */
    int threads, jobs;  /* of the library; films at once */
    int automatic, backlog;
    int strict; /* films whose own DICOM tags speak against them are refused */
    int sr, sc, gsps;
    int heatmaps;     /* findings of one film that get a heat map in the archive, at most */
    double threshold; /* of labels that have none of their own; NaN: not given */
    json_t *table;    /* what `labels` holds; NULL: none */
} settings;
extern settings config;

/* Unknown or misshapen entries: 0, and *problem (freed by the caller) says which. */
int config_read(char **problem);
void config_free(void);
/* Probability from which a finding is called present. calibrated: the bank's own, NaN where it has none. */
double config_threshold(const char *label, double calibrated);
/* What of the configuration a result depends on, as text (freed by the caller). */
char *config_text(void);

/* ---- engine: the model ------------------------------------------------------------------------------ */

typedef struct engine_state {
    radz_model *model;
    radz_bank *bank;
    char *error;  /* why there is no model; NULL: there is one */
    char key[65]; /* of results: what the model, the bank and the settings are */
} engine_state;
extern engine_state engine;

void engine_open(void);
/* Cancels what runs and lets nobody in. */
void engine_stop(void);
int engine_stopping(void);
void engine_close(void);
/* A session for this thread alone; its calls end when *cancel (may be NULL) is set. Waits for one, not longer than
 * `seconds` where that is not 0. NULL: none, cancelled, stopping, or there is no model. */
radz_session *engine_take(const atomic_int *cancel, int seconds);
void engine_give(radz_session *session);
/* After a `cancel` has been set: who waits looks at it. */
void engine_wake(void);

/* ---- rest: Orthanc's own interface ------------------------------------------------------------------- */

/* NULL: not there, or not JSON. */
json_t *rest_get(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* 0: done; answer may be NULL. */
int rest_post(const char *uri, const void *body, size_t n, json_t **answer);
int rest_put(const char *uri, const void *body, size_t n);

/* ---- film: one film's work, in steps between which it can be cancelled -------------------------------- */

typedef struct film film;

/* *cancel ends the running step between two layers of the network. NULL: no memory. */
film *film_open(const char *instance, const atomic_int *cancel);
void film_close(film *f);
enum { FILM_DONE, FILM_MORE, FILM_FAILED, FILM_STOPPED };
int film_step(film *f);
float film_progress(const film *f);
/* Why it failed, one line. */
const char *film_problem(const film *f);
/* 1: no film, but what this plugin has put into the archive. */
int film_is_output(const char *instance);
/* Patches of a heat map that no job has made, side * side numbers. */
radz_status film_map(const char *instance, const char *label, float *patches, radz_error *err);
/* The stored result, NULL: none. current: 0 where another model, bank or setting made it. */
json_t *film_result(const char *instance, int *current);

/* ---- job: films as jobs of Orthanc -------------------------------------------------------------------- */

void job_register(void);
/* A job for the film, the one that is at work on it where there is one: its identifier. 0: refused. seq: of the change,
 * 0: none. */
enum { JOB_ID = 64 };
int job_ask(const char *instance, int priority, json_int_t seq, char id[JOB_ID]);
/* Ends the threads of all jobs. */
void job_end_all(void);
/* Films that jobs hold now, waiting ones too. */
size_t job_count(void);
/* The smallest change that a job still works for; 0: none. */
json_int_t job_first_change(void);

/* ---- watch: films that arrive --------------------------------------------------------------------------- */

void watch_start(void);
void watch_wake(void);
void watch_stop(void);

/* ---- routes: HTTP ------------------------------------------------------------------------------------------ */

void routes_register(void);

#endif
