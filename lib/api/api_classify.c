/* Public: classification, results and their JSON.
 * SPDX-License-Identifier: Apache-2.0 */
#include "handles.h"

/* ---- Classification ---- */

/* A handle for a result, which it owns; NULL: memory ran out and the result is gone. */
static radz_result *wrap(radz_runtime *rt, rz_result *raw)
{
    radz_result *r = rz_calloc(&rt->host, 1, sizeof *r);
    if (!r) {
        rz_result_free(raw);
        return NULL;
    }
    rz_handle_init(&r->h);
    rz_handle_hold(&rt->h);
    r->runtime = rt;
    r->result = raw;
    return r;
}

/* Wraps n results into handles; on failure every result is freed and every place is NULL. */
static radz_status wrap_results(radz_runtime *rt, rz_result **raw, size_t n, radz_result **results, radz_error *err)
{
    size_t k = 0;
    while (k < n && (results[k] = wrap(rt, raw[k]))) k++;
    if (k == n) return RADZ_OK;
    for (size_t i = k + 1; i < n; i++) rz_result_free(raw[i]);
    for (size_t i = 0; i < k; i++) {
        radz_result_close(results[i]);
        results[i] = NULL;
    }
    return RZ_NO_MEMORY(err, "result");
}

/* The bank that is used: the caller's, the session's own, or NULL for the linear head. */
static radz_status find_bank(radz_session *session, const radz_bank *bank, const rz_bank **used, radz_error *err)
{
    *used = NULL;
    if (!bank && session->model->net->cfg.radz.n_classes) return RADZ_OK;
    return rz_session_bank(session, bank, used, err);
}

static radz_status classify_films(radz_session *session, const radz_bank *bank, const rz_film *const *films, size_t n,
                                  radz_result **results, radz_error *err)
{
    const radz_model *model = session->model;
    const rz_host *host = &model->runtime->host;
    const rz_bank *used;
    for (size_t i = 0; i < n && session->strict; i++)
        RZ_TRY(rz_notes_check(films[i]->pixels.notes, films[i]->path ? films[i]->path : "film", err));
    RZ_TRY(find_bank(session, bank, &used, err));
    rz_result **raw = rz_calloc(host, n, sizeof *raw);
    if (!raw) return RZ_NO_MEMORY(err, "results");
    radz_status status = rz_classify(&session->net, model->name, used, films, n, raw, err);
    if (status == RADZ_OK) status = wrap_results(model->runtime, raw, n, results, err);
    rz_free(host, raw);
    return status;
}

radz_status radz_classify(radz_session *session, const radz_bank *bank, const radz_image *image, radz_result **result,
                          radz_error *err)
{
    if (result) *result = NULL;
    RZ_NEED(result);
    RZ_LIVE(session);
    RZ_LIVE_OR_NULL(bank);
    RZ_LIVE(image);
    const rz_film *film = &image->film;
    return classify_films(session, bank, &film, 1, result, err);
}

radz_status radz_classify_file(radz_session *session, const radz_bank *bank, const char *path, radz_result **result,
                               radz_error *err)
{
    if (result) *result = NULL;
    RZ_NEED(result);
    RZ_LIVE(session);
    RZ_LIVE_OR_NULL(bank);
    RZ_NEED(path);
    radz_image *image = NULL;
    RZ_TRY(radz_image_open(session->model->runtime, path, &image, err));
    radz_status status = radz_classify(session, bank, image, result, err);
    radz_image_close(image);
    return status;
}

radz_status radz_classify_batch(radz_session *session, const radz_bank *bank, const radz_image *const *images, size_t n,
                                radz_result **results, radz_error *err)
{
    for (size_t i = 0; results && i < n; i++) results[i] = NULL;
    RZ_LIVE(session);
    RZ_LIVE_OR_NULL(bank);
    if (n == 0) return RADZ_OK;
    RZ_NEED(images);
    RZ_NEED(results);
    const rz_host *host = &session->model->runtime->host;
    const rz_film **films = NULL;
    RZ_TRY(rz_images_films(host, images, n, __func__, &films, err));
    radz_status status = classify_films(session, bank, films, n, results, err);
    rz_free(host, films);
    return status;
}

typedef struct listener {
    radz_runtime *runtime;
    int (*film_fn)(size_t i, radz_result *result, const radz_error *error, void *user);
    void *user;
} listener;

static int on_result(size_t i, rz_result *raw, const radz_error *why, void *user)
{
    const listener *l = user;
    radz_error no_memory;
    radz_result *result = raw ? wrap(l->runtime, raw) : NULL;
    if (raw && !result) {
        (void)RZ_NO_MEMORY(&no_memory, "result");
        why = &no_memory;
    }
    return l->film_fn(i, result, why, l->user);
}

radz_status radz_classify_files(radz_session *session, const radz_bank *bank, const char *const *paths, size_t n,
                                int (*film_fn)(size_t i, radz_result *result, const radz_error *error, void *user),
                                void *user, radz_error *err)
{
    RZ_LIVE(session);
    RZ_LIVE_OR_NULL(bank);
    RZ_NEED(film_fn);
    if (n == 0) return RADZ_OK;
    RZ_NEED(paths);
    for (size_t i = 0; i < n; i++)
        if (!paths[i]) return rz_fail(err, RADZ_E_ARGUMENT, "%s: paths[%zu] is NULL", __func__, i);
    rz_classifier by = {.net = &session->net, .model_name = session->model->name, .strict = session->strict};
    RZ_TRY(find_bank(session, bank, &by.bank, err));
    listener l = {session->model->runtime, film_fn, user};
    return rz_classify_files(&by, paths, n, on_result, &l, err);
}

/* ---- Results ---- */

void radz_result_close(radz_result *result)
{
    if (!result || !rz_handle_drop(&result->h)) return;
    radz_runtime *rt = result->runtime;
    rz_result_free(result->result);
    rz_free(&rt->host, result);
    radz_runtime_close(rt);
}

size_t radz_result_count(const radz_result *result)
{
    return result ? result->result->n : 0;
}

const char *radz_result_label(const radz_result *result, size_t i)
{
    return i < radz_result_count(result) ? result->result->labels[i] : NULL;
}

double radz_result_probability(const radz_result *result, size_t i)
{
    return i < radz_result_count(result) ? result->result->scores[i].probability : NAN;
}

double radz_result_similarity(const radz_result *result, size_t i)
{
    return i < radz_result_count(result) ? result->result->scores[i].similarity : NAN;
}

double radz_result_threshold(const radz_result *result, size_t i)
{
    return i < radz_result_count(result) ? result->result->scores[i].threshold : NAN;
}

size_t radz_result_width(const radz_result *result)
{
    return result ? result->result->width_px : 0;
}

size_t radz_result_height(const radz_result *result)
{
    return result ? result->result->height_px : 0;
}

const char *radz_result_sha256(const radz_result *result)
{
    return result ? result->result->sha256 : NULL;
}

size_t radz_result_warning_count(const radz_result *result)
{
    return result ? result->result->n_warnings : 0;
}

const char *radz_result_warning(const radz_result *result, size_t i)
{
    return i < radz_result_warning_count(result) ? result->result->warnings[i] : NULL;
}

/* ---- Text that belongs to the caller ---- */

/* Lies before the text: radz_text_free is told nothing else, and the runtime may be gone by then. */
typedef union text_owner {
    rz_host host;
    max_align_t align;
} text_owner;

radz_status rz_text_out(const rz_host *host, rz_str *s, char **text, radz_error *err)
{
    text_owner *o = s->failed ? NULL : rz_malloc(host, sizeof *o + s->len + 1);
    if (o) {
        o->host = host ? *host : (rz_host){0};
        *text = (char *)(o + 1);
        memcpy(*text, s->data, s->len);
        (*text)[s->len] = 0;
    }
    rz_str_free(s);
    return o ? RADZ_OK : RZ_NO_MEMORY(err, "text");
}

void radz_text_free(char *text)
{
    if (!text) return;
    text_owner *o = (text_owner *)text - 1;
    rz_host host = o->host;
    rz_free(&host, o);
}

radz_status radz_result_json(const radz_result *result, const char *path, char **json, radz_error *err)
{
    if (json) *json = NULL;
    RZ_NEED(json);
    RZ_LIVE(result);
    rz_str s = {.host = &result->runtime->host};
    rz_result_put_json(&s, result->result, path);
    return rz_text_out(s.host, &s, json, err);
}

radz_status radz_error_json(const radz_error *error, const char *path, char **json, radz_error *err)
{
    if (json) *json = NULL;
    RZ_NEED(json);
    RZ_NEED(error);
    rz_str s = {0};
    rz_error_put_json(&s, error, path);
    return rz_text_out(NULL, &s, json, err);
}
