/* film.c - one film: read, classified, heat maps of what was found, reports for the archive, and the result beside it.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "outputs.h"
#include "plugin.h"

enum { MOST_MAPS = 100 };

struct film {
    char instance[64];
    const atomic_int *cancel;
    enum { LOOK, CLASSIFY, MAPS, STORE } stage;
    radz_image *image;
    radz_result *result;
    const char *found[MOST_MAPS]; /* findings that get a heat map, best first; texts of result */
    size_t n_found, n_mapped;
    json_t *patches; /* label -> numbers, side * side, row after row */
    double started;
    char problem[512];
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

film *film_open(const char *instance, const atomic_int *cancel)
{
    film *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    strncpy(f->instance, instance, sizeof f->instance - 1);
    f->cancel = cancel;
    return f;
}

void film_close(film *f)
{
    if (!f) return;
    radz_image_close(f->image);
    radz_result_close(f->result);
    json_decref(f->patches);
    free(f);
}

float film_progress(const film *f)
{
    const size_t done = (size_t)f->stage + f->n_mapped;
    return (float)done / (float)(STORE + 1 + f->n_found);
}

const char *film_problem(const film *f)
{
    return f->problem;
}

/* ---- What the archive has --------------------------------------------------------------------------------- */

json_t *film_result(const char *instance, int *current)
{
    json_t *result = rest_get("/instances/%s/attachments/%d/data", instance, RESULT_ATTACHMENT);
    const char *key = json_string_value(json_object_get(result, "key"));
    *current = key && strcmp(key, engine.key) == 0;
    return result;
}

int film_is_output(const char *instance)
{
    json_t *tags = rest_get("/instances/%s/simplified-tags", instance);
    const char *maker = json_string_value(json_object_get(tags, "ManufacturerModelName"));
    const int is = maker && strncmp(maker, "libradz", 7) == 0;
    json_decref(tags);
    return is;
}

static radz_status read_film(const char *instance, radz_image **image, radz_error *err)
{
    OrthancPluginMemoryBuffer file = {0};
    *image = NULL;
    if (OrthancPluginGetDicomForInstance(orthanc, &file, instance)) {
        *err = (radz_error){RADZ_E_IO, "the archive does not give the instance's file"};
        return RADZ_E_IO;
    }
    const radz_status code = radz_image_open_memory(NULL, file.data, file.size, image, err);
    OrthancPluginFreeMemoryBuffer(orthanc, &file);
    return code;
}

/* ---- The result ------------------------------------------------------------------------------------------- */

static int attach(const film *f, json_t *document)
{
    char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;
    char *uri = print("/instances/%s/attachments/%d", f->instance, RESULT_ATTACHMENT);
    const int failed = !text || !uri || rest_put(uri, text, strlen(text));
    if (failed) log_warning("radz: instance %s: the result cannot be stored", f->instance);
    free(text), free(uri);
    return failed;
}

static json_t *parse_line(char *line)
{
    json_t *json = line ? json_loads(line, 0, NULL) : NULL;
    radz_text_free(line);
    return json;
}

/* A film that cannot be read is a result too: it is not tried again until it is asked for or something changes. */
static int fail_film(film *f, const radz_error *error)
{
    if (error->code == RADZ_E_CANCELLED || engine_stopping()) return FILM_STOPPED;
    log_warning("radz: instance %s: %s", f->instance, error->message);
    strncpy(f->problem, error->message, sizeof f->problem - 1);
    char *line = NULL;
    if (radz_error_json(error, NULL, &line, NULL)) line = NULL;
    json_t *document = json_pack("{s:s, s:s, s:s, s:o?}", "schema", "radz.orthanc/1", "key", engine.key, "instance",
                                 f->instance, "result", parse_line(line));
    attach(f, document);
    json_decref(document);
    count_film(1, 0, 0);
    return FILM_FAILED;
}

static int is_reference(const char *label)
{
    const char *reference = radz_bank_label(engine.bank, radz_bank_reference(engine.bank));
    return reference && strcmp(label, reference) == 0;
}

static double threshold_of(const film *f, size_t i)
{
    return config_threshold(radz_result_label(f->result, i), radz_result_threshold(f->result, i));
}

static json_t *thresholds_of(const film *f)
{
    json_t *all = json_object();
    for (size_t i = 0; i < radz_result_count(f->result); i++)
        json_object_set_new(all, radz_result_label(f->result, i), json_real(threshold_of(f, i)));
    return all;
}

/* Findings over their threshold, best first. */
static size_t find_findings(const film *f, const char **labels, size_t most)
{
    size_t n = 0;
    for (size_t i = 0; i < radz_result_count(f->result) && n < most; i++) {
        const char *label = radz_result_label(f->result, i);
        if (!is_reference(label) && radz_result_probability(f->result, i) >= threshold_of(f, i)) labels[n++] = label;
    }
    return n;
}

/* ---- Steps -------------------------------------------------------------------------------------------------- */

static int is_done(json_t *result, int current)
{
    return result && current && !json_object_get(json_object_get(result, "result"), "error") &&
           !json_object_get(json_object_get(result, "outputs"), "error");
}

static int look(film *f)
{
    int current;
    if (film_is_output(f->instance)) {
        strcpy(f->problem, "this is an output of radz, no film");
        return FILM_FAILED;
    }
    json_t *old = film_result(f->instance, &current);
    const int done = is_done(old, current);
    json_decref(old);
    f->stage = CLASSIFY;
    f->started = now();
    return done ? FILM_DONE : FILM_MORE;
}

static int classify(film *f)
{
    radz_error err = {.code = RADZ_E_CANCELLED};
    radz_session *session = engine_take(f->cancel, 0);
    if (!session) return FILM_STOPPED;
    radz_status code = read_film(f->instance, &f->image, &err);
    if (!code) code = radz_classify(session, engine.bank, f->image, &f->result, &err);
    engine_give(session);
    if (code) return fail_film(f, &err);
    f->patches = json_object();
    f->n_found = find_findings(f, f->found, (size_t)config.heatmaps);
    f->stage = f->n_found ? MAPS : STORE;
    return FILM_MORE;
}

static json_t *numbers(const float *values, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, isfinite(values[i]) ? json_real(values[i]) : json_null());
    return list;
}

static radz_status make_map(const radz_image *image, const char *label, const atomic_int *cancel, int seconds,
                            float *patches, radz_error *err)
{
    *err = (radz_error){RADZ_E_CANCELLED, "the server is busy"};
    radz_session *session = engine_take(cancel, seconds);
    if (!session) return RADZ_E_CANCELLED;
    const radz_status code = radz_heatmap_patches(session, engine.bank, image, label, NULL, patches, err);
    engine_give(session);
    return code;
}

radz_status film_map(const char *instance, const char *label, float *patches, radz_error *err)
{
    enum { WAIT_SECONDS = 10 };
    radz_image *image;
    radz_status code = read_film(instance, &image, err);
    if (!code) code = make_map(image, label, NULL, WAIT_SECONDS, patches, err);
    radz_image_close(image);
    return code;
}

static int map_next(film *f)
{
    const size_t side = radz_heatmap_side(engine.model);
    const char *label = f->found[f->n_mapped];
    radz_error err = {RADZ_E_MEMORY, "out of memory"};
    float *patches = calloc(side * side + 1, sizeof *patches);
    const radz_status code = patches ? make_map(f->image, label, f->cancel, 0, patches, &err) : RADZ_E_MEMORY;
    if (!code) json_object_set_new(f->patches, label, numbers(patches, side * side));
    free(patches);
    if (code) return fail_film(f, &err);
    if (++f->n_mapped == f->n_found) f->stage = STORE;
    return FILM_MORE;
}

static json_t *describe_film(const film *f, json_t *outputs)
{
    char *line = NULL;
    if (radz_result_json(f->result, NULL, &line, NULL)) line = NULL;
    return json_pack("{s:s, s:s, s:s, s:o?, s:o, s:{s:i, s:s, s:O}, s:o?}", "schema", "radz.orthanc/1", "key",
                     engine.key, "instance", f->instance, "result", parse_line(line), "thresholds", thresholds_of(f),
                     "heatmaps", "side", (int)radz_heatmap_side(engine.model), "method", "gradient", "patches",
                     f->patches, "outputs", outputs);
}

/* The scores are kept even where a report cannot be. */
static int store(film *f)
{
    radz_error err = {.code = RADZ_OK};
    const film_parts parts = {f->instance, f->image, f->result, f->found, f->n_found, f->patches};
    json_t *outputs = outputs_store(&parts, &err);
    if (err.code) json_object_set_new(outputs, "error", json_string(err.message));
    json_t *document = describe_film(f, outputs);
    const int lost = attach(f, document);
    json_decref(document);
    if (err.code) log_warning("radz: instance %s: %s", f->instance, err.message);
    strncpy(f->problem, err.code ? err.message : "the result cannot be stored", sizeof f->problem - 1);
    const char *labels[MOST_MAPS];
    count_film(err.code || lost, find_findings(f, labels, MOST_MAPS), now() - f->started);
    return err.code || lost ? FILM_FAILED : FILM_DONE;
}

int film_step(film *f)
{
    static int (*const steps[])(film *) = {[LOOK] = look, [CLASSIFY] = classify, [MAPS] = map_next, [STORE] = store};
    if (engine_stopping() || atomic_load(f->cancel)) return FILM_STOPPED;
    if (!engine.error) return steps[f->stage](f);
    strncpy(f->problem, engine.error, sizeof f->problem - 1);
    return FILM_FAILED;
}
