/* classify.c - films by path: read and preprocessed beside the network, which works on those before.
 * SPDX-License-Identifier: Apache-2.0 */
#include "result.h"
#include "worker.h"

enum { MAX_BATCH = 16 };
#define MAX_ROWS 4096

/* Films that are being read, or that the network works on. */
typedef struct batch {
    size_t first, n; /* of the paths */
    rz_film films[MAX_BATCH];
    radz_status status[MAX_BATCH];
    radz_error why[MAX_BATCH];
} batch;

typedef struct work {
    const rz_classifier *by;
    const char *const *paths;
    size_t n, per_batch, next;
    batch batches[2], *later; /* later: what the worker reads */
    rz_result_fn fn;
    void *user;
} work;

/* ---- Reading ---- */

static void read_one(void *arg, size_t k)
{
    work *w = arg;
    batch *b = w->later;
    const rz_model *m = w->by->net->model;
    b->status[k] = rz_film_open(m->cfg.host, w->paths[b->first + k], &b->films[k], &b->why[k]);
    if (!b->status[k] && w->by->strict)
        b->status[k] = rz_notes_check(b->films[k].pixels.notes, w->paths[b->first + k], &b->why[k]);
    if (!b->status[k]) b->status[k] = rz_film_prepare(m, &b->films[k], &b->why[k]);
}

static void read_batch(void *arg)
{
    work *w = arg;
    rz_pool_run(rz_device_pool(w->by->net->model->dev), w->later->n, read_one, w);
}

static void start_reading(work *w, rz_worker *worker, batch *b)
{
    b->first = w->next;
    b->n = w->n - w->next < w->per_batch ? w->n - w->next : w->per_batch;
    w->next += b->n;
    w->later = b;
    if (b->n) rz_worker_start(worker);
}

static void empty(const work *w, batch *b)
{
    for (size_t k = 0; k < b->n; k++) rz_film_free(w->by->net->model->cfg.host, &b->films[k]);
    b->n = 0;
}

/* ---- The network ---- */

static radz_status classify(const work *w, const rz_film *const *films, size_t n, rz_result **results, radz_error *err)
{
    return rz_classify(w->by->net, w->by->model_name, w->by->bank, films, n, results, err);
}

/* Those that could be read, in one batch; where that fails one after another, so that only the bad one does. */
static radz_status classify_batch(const work *w, batch *b, rz_result **results, radz_error *err)
{
    const rz_film *films[MAX_BATCH];
    rz_result *found[MAX_BATCH];
    size_t places[MAX_BATCH], n = 0;
    radz_error why;
    for (size_t k = 0; k < b->n; k++)
        if (!b->status[k]) films[n] = &b->films[k], places[n++] = k;
    radz_status status = n ? classify(w, films, n, found, &why) : RADZ_OK;
    for (size_t i = 0; i < n && status != RADZ_E_CANCELLED; i++) {
        const size_t k = places[i];
        if (status)
            b->status[k] = classify(w, &films[i], 1, &results[k], &b->why[k]);
        else
            results[k] = found[i];
        if (b->status[k] == RADZ_E_CANCELLED) status = RADZ_E_CANCELLED, why = b->why[k];
    }
    return status == RADZ_E_CANCELLED ? rz_fail(err, status, "%s", why.message) : RADZ_OK;
}

/* Tells of each; a result is the listener's. */
static radz_status finish_batch(const work *w, batch *b, radz_error *err)
{
    rz_result *results[MAX_BATCH] = {NULL};
    radz_status status = classify_batch(w, b, results, err);
    for (size_t k = 0; k < b->n; k++) {
        if (status)
            rz_result_free(results[k]);
        else if (w->fn(b->first + k, results[k], b->status[k] ? &b->why[k] : NULL, w->user))
            status = rz_fail(err, RADZ_E_CANCELLED, "cancelled by the caller after %zu of %zu films", b->first + k + 1,
                             w->n);
    }
    return status;
}

static radz_status run(work *w, rz_worker *worker, radz_error *err)
{
    batch *now = &w->batches[0], *later = &w->batches[1];
    radz_status status = RADZ_OK;
    for (start_reading(w, worker, now); now->n && !status;) {
        rz_worker_wait(worker);
        start_reading(w, worker, later);
        status = finish_batch(w, now, err);
        empty(w, now);
        batch *swap = now;
        now = later, later = swap;
    }
    rz_worker_wait(worker);
    empty(w, now);
    return status;
}

/* ---- Opening ---- */

/* What would fail for every film fails before the first. */
static radz_status check(const rz_classifier *by, size_t *per_batch, radz_error *err)
{
    const rz_model *m = by->net->model;
    rz_prompt prompt;
    RZ_TRY(rz_model_require_films(m, err));
    if (by->bank) RZ_TRY(rz_bank_require_model(by->bank, m, err));
    RZ_TRY(rz_prompt_image(m->cfg.host, m, &prompt, err));
    const size_t n = MAX_ROWS / (prompt.n ? prompt.n : 1);
    *per_batch = n < 1 ? 1 : n > MAX_BATCH ? MAX_BATCH : n;
    rz_prompt_free(m->cfg.host, &prompt);
    return RADZ_OK;
}

radz_status rz_classify_files(const rz_classifier *by, const char *const *paths, size_t n, rz_result_fn fn, void *user,
                              radz_error *err)
{
    const rz_host *host = by->net->model->cfg.host;
    rz_worker *worker = NULL;
    size_t per_batch;
    RZ_TRY(check(by, &per_batch, err));
    work *w = rz_calloc(host, 1, sizeof *w);
    if (!w) return RZ_NO_MEMORY(err, "batches of films");
    w->by = by, w->paths = paths, w->n = n, w->per_batch = per_batch, w->fn = fn, w->user = user;
    radz_status status = rz_worker_open(host, read_batch, w, &worker, err);
    if (!status) status = run(w, worker, err);
    rz_worker_close(worker);
    rz_free(host, w);
    return status;
}
