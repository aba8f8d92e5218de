/* film.c - one film: read, classified, a heat map of every finding, a report for the archive, and the result beside it.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "outputs.h"
#include "plugin.h"

struct film {
    char instance[64];
    int stage; /* 0: look for a result; 1: classify; 2 .. 1 + classes: heat maps; then outputs */
    OrthancPluginMemoryBuffer file;
    radz_image *image;
    radz_result *result;
    json_t *patches; /* label -> numbers, side * side, row after row */
    double started;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

film *film_open(const char *instance)
{
    film *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    strncpy(f->instance, instance, sizeof f->instance - 1);
    return f;
}

void film_close(film *f)
{
    if (!f) return;
    if (f->file.data) OrthancPluginFreeMemoryBuffer(orthanc, &f->file);
    radz_image_close(f->image);
    radz_result_close(f->result);
    json_decref(f->patches);
    free(f);
}

float film_progress(const film *f)
{
    size_t n = engine.bank ? radz_bank_count(engine.bank) + 3 : 1;
    return f->stage >= (int)n ? 1.0f : (float)f->stage / (float)n;
}

json_t *film_result(const char *instance, int *current)
{
    json_t *result = rest_get("/instances/%s/attachments/%d/data", instance, RESULT_ATTACHMENT);
    const char *key = json_string_value(json_object_get(result, "key"));
    *current = key && strcmp(key, engine.key) == 0;
    return result;
}

/* ---- The result ------------------------------------------------------------------------------------------- */

static int attach(const film *f, json_t *document)
{
    char *text = json_dumps(document, JSON_COMPACT), *uri;
    uri = print("/instances/%s/attachments/%d", f->instance, RESULT_ATTACHMENT);
    int failed = !text || !uri || rest_put(uri, text, strlen(text));
    free(text), free(uri);
    return failed;
}

static json_t *parse_line(char *line)
{
    json_t *json = line ? json_loads(line, 0, NULL) : NULL;
    radz_text_free(line);
    return json;
}

/* A film that cannot be read is a result too: it is not tried again until something changes. */
static int fail_film(film *f, const radz_error *error)
{
    if (error->code == RADZ_E_CANCELLED || engine_stopping()) return FILM_STOPPED;
    log_warning("radz: instance %s: %s", f->instance, error->message);
    char *line = NULL;
    if (radz_error_json(error, NULL, &line, NULL)) line = NULL;
    json_t *result = parse_line(line);
    json_t *document = json_pack("{s:s, s:s, s:s, s:o?}", "schema", "radz.orthanc/1", "key", engine.key, "instance",
                                 f->instance, "result", result);
    if (document && attach(f, document)) log_warning("radz: instance %s: the result cannot be stored", f->instance);
    json_decref(document);
    count_film(1, 0, 0);
    return FILM_FAILED;
}

static unsigned long count_findings(const radz_result *result)
{
    unsigned long n = 0;
    for (size_t i = 0; i < radz_result_count(result); i++) {
        const char *label = radz_result_label(result, i);
        size_t reference = radz_bank_reference(engine.bank);
        int is_reference =
            reference < radz_bank_count(engine.bank) && strcmp(label, radz_bank_label(engine.bank, reference)) == 0;
        n += !is_reference && radz_result_probability(result, i) >= config_threshold(label);
    }
    return n;
}

/* ---- Steps -------------------------------------------------------------------------------------------------- */

static int find_result(film *f)
{
    int current, done;
    json_t *old = film_result(f->instance, &current);
    done = old && current && !json_object_get(json_object_get(old, "result"), "error");
    json_decref(old);
    f->stage = 1;
    f->started = now();
    return done ? FILM_DONE : FILM_MORE;
}

static int classify(film *f)
{
    radz_error err = {.code = RADZ_E_IO, .message = "the archive does not give the instance's file"};
    radz_session *session = engine_take();
    if (!session) return engine_stopping() ? FILM_STOPPED : FILM_FAILED;
    radz_status code = OrthancPluginGetDicomForInstance(orthanc, &f->file, f->instance) ? RADZ_E_IO : RADZ_OK;
    if (!code) code = radz_image_open_memory(NULL, f->file.data, f->file.size, &f->image, &err);
    if (!code) code = radz_classify(session, engine.bank, f->image, &f->result, &err);
    engine_give(session);
    if (code) return fail_film(f, &err);
    f->patches = json_object();
    f->stage = 2;
    return FILM_MORE;
}

static json_t *numbers(const float *values, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, isfinite(values[i]) ? json_real(values[i]) : json_null());
    return list;
}

static int map_next(film *f)
{
    size_t side = radz_heatmap_side(engine.model), i = (size_t)f->stage - 2;
    const char *label = radz_bank_label(engine.bank, i);
    radz_error err = {.code = RADZ_E_MEMORY, .message = "out of memory"};
    float *patches = calloc(side * side + 1, sizeof *patches);
    radz_session *session = patches ? engine_take() : NULL;
    radz_status code = !patches ? RADZ_E_MEMORY : !session ? RADZ_E_CANCELLED : RADZ_OK;
    if (!code) code = radz_heatmap_patches(session, engine.bank, f->image, label, NULL, patches, &err);
    engine_give(session);
    if (!code) json_object_set_new(f->patches, label, numbers(patches, side * side));
    free(patches);
    if (code == RADZ_E_CANCELLED) return FILM_STOPPED;
    if (code) return fail_film(f, &err);
    f->stage++;
    return FILM_MORE;
}

static int store(film *f)
{
    radz_error err;
    json_t *outputs = NULL;
    const film_parts parts = {.instance = f->instance,
                              .file = f->file.data,
                              .n_file = f->file.size,
                              .image = f->image,
                              .result = f->result,
                              .patches = f->patches};
    if (outputs_store(&parts, &outputs, &err)) return fail_film(f, &err);
    char *line = NULL;
    if (radz_result_json(f->result, NULL, &line, NULL)) line = NULL;
    json_t *result = parse_line(line);
    json_t *document =
        json_pack("{s:s, s:s, s:s, s:o?, s:{s:i, s:s, s:O}, s:o?}", "schema", "radz.orthanc/1", "key", engine.key,
                  "instance", f->instance, "result", result, "heatmaps", "side", (int)radz_heatmap_side(engine.model),
                  "method", "gradient", "patches", f->patches, "outputs", outputs);
    int failed = !document || attach(f, document);
    json_decref(document);
    if (failed) {
        log_warning("radz: instance %s: the result cannot be stored", f->instance);
        return FILM_FAILED;
    }
    count_film(0, count_findings(f->result), now() - f->started);
    f->stage++;
    return FILM_DONE;
}

int film_step(film *f)
{
    if (engine_stopping()) return FILM_STOPPED;
    if (engine.error) return FILM_FAILED;
    if (f->stage == 0) return find_result(f);
    if (f->stage == 1) return classify(f);
    if ((size_t)f->stage < 2 + radz_bank_count(engine.bank)) return map_next(f);
    return store(f);
}
