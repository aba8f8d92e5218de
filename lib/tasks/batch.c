/* batch.c - the next films and texts of a training run. While the network computes, a thread of its own reads, decodes
 * and varies the films that the next batch will probably ask for; what it has ready is used where it is what was asked
 * for, so that no result depends on it. SPDX-License-Identifier: Apache-2.0 */
#include "trainer.h"

#define AUGMENT_SEED UINT64_C(0x6175676d656e7421)

/* ---- Pixels -------------------------------------------------------------------------------------- */

typedef struct fill_job {
    const rz_trainer *t;
    const size_t *rows;
    const int64_t *draws;
    float *pixels;
    uint8_t *done; /* where it is set there is nothing to do; NULL: nowhere */
} fill_job;

static void fill_film(void *arg, size_t i)
{
    const fill_job *job = arg;
    const rz_trainer *t = job->t;
    const rz_thumb *thumb = &t->films.thumbs[job->rows[i]];
    if (!thumb->data || (job->done && job->done[i])) return;
    float *pixels = job->pixels + i * 3 * thumb->size * thumb->size;
    if (t->o.augment) {
        rz_rng rng;
        rz_rng_seed(&rng, t->o.seed ^ AUGMENT_SEED, (uint64_t)job->draws[i]);
        rz_augment(t->films.cfg, thumb, t->o.augment > 1, &rng, pixels);
    } else {
        rz_thumb_pixels(t->films.cfg, thumb, pixels);
    }
    if (job->done) job->done[i] = 1;
}

/* ---- Films of the next batch, ahead of time --------------------------------------------------------- */

/* On the thread; failures are left to whoever asks for the film. */
static void prepare(void *arg)
{
    rz_trainer *t = arg;
    rz_ahead *a = &t->ahead;
    rz_films_warm(&t->films, a->rows, a->n);
    fill_job job = {t, a->rows, a->draws, a->pixels, a->done};
    rz_pool_run(rz_device_pool(t->dev), a->n, fill_film, &job);
}

static void start_ahead(rz_trainer *t)
{
    rz_ahead *a = &t->ahead;
    size_t first = rz_comm_share(&t->comm, t->b, &a->n);
    for (size_t i = 0; i < a->n; i++) {
        a->draws[i] = t->state.draw + (int64_t)(first + i);
        a->rows[i] = rz_sampler_draw(&t->sampler, a->draws[i]);
        a->done[i] = 0;
    }
    rz_worker_start(a->worker);
}

/* True when place i of this process's films was prepared: it has the same row, varied by the same draw. */
static bool prepared(const rz_ahead *a, const rz_batch *b, size_t first, size_t i)
{
    return i < a->n && a->done[i] && a->rows[i] == b->rows[first + i] && a->draws[i] == b->draws[first + i];
}

/* Pixels of this process's films. */
static void fill_films(rz_trainer *t, rz_batch *b)
{
    rz_ahead *a = &t->ahead;
    size_t n, first = rz_comm_share(&t->comm, t->b, &n), n_pixels = 3 * t->films.size * t->films.size, n_same = 0;
    for (size_t i = 0; i < n; i++) n_same += a->done[i] = prepared(a, b, first, i);
    a->n = 0;
    if (n_same) { /* the others are done again in what was prepared */
        float *pixels = b->pixels;
        b->pixels = a->pixels, a->pixels = pixels;
    }
    fill_job job = {t, b->rows + first, b->draws + first, b->pixels, a->done};
    rz_pool_run(rz_device_pool(t->dev), n, fill_film, &job);
    for (size_t i = 0; i < t->b; i++) {
        bool mine = i >= first && i < first + n;
        b->items[i] = (rz_item){.kind = RZ_ITEM_IMAGE, .prompt = &t->image_prompt};
        b->items[i].pixels = b->pixels + (mine ? i - first : 0) * n_pixels; /* another's is never looked at */
    }
}

/* ---- Rows --------------------------------------------------------------------------------------------- */

/* The next row that is not known to be bad, into place i. */
static radz_status draw_row(rz_trainer *t, rz_batch *b, size_t i, radz_error *err)
{
    size_t n_bad = 0;
    for (size_t r = 0; r < t->ds.n_train && t->films.n_bad; r++) n_bad += t->films.bad[r];
    if (n_bad == t->ds.n_train)
        return rz_fail(err, RADZ_E_IO, "%s: none of the %zu training films could be used, '%s' for one", t->o.manifest,
                       t->ds.n_train, t->ds.rows[0].path);
    do {
        b->draws[i] = t->state.draw++;
        b->rows[i] = rz_sampler_draw(&t->sampler, b->draws[i]);
    } while (t->films.bad[b->rows[i]]);
    return RADZ_OK;
}

/* Every process learns which of the batch's films another could not read. */
static radz_status exchange_bad(rz_trainer *t, rz_batch *b, radz_error *err)
{
    for (size_t i = 0; i < t->b; i++) b->bad[i] = t->films.bad[b->rows[i]];
    RZ_TRY(rz_comm_agree(&t->comm, err));
    RZ_TRY(rz_comm_any(&t->comm, b->bad, t->b, err));
    for (size_t i = 0; i < t->b; i++)
        if (b->bad[i]) RZ_TRY(rz_films_mark_bad(&t->films, b->rows[i], "another process could not read it", err));
    return RADZ_OK;
}

/* Rows whose films turn out to be unreadable are replaced by the next ones, until all are there. */
static radz_status draw_rows(rz_trainer *t, rz_batch *b, radz_error *err)
{
    size_t n, first = rz_comm_share(&t->comm, t->b, &n);
    for (size_t i = 0; i < t->b; i++) RZ_TRY(draw_row(t, b, i, err));
    for (bool complete = false; !complete;) {
        complete = true;
        RZ_TRY(rz_films_load(&t->films, b->rows + first, n, err));
        RZ_TRY(exchange_bad(t, b, err));
        for (size_t i = 0; i < t->b; i++) {
            if (!b->bad[i]) continue;
            RZ_TRY(draw_row(t, b, i, err));
            complete = false;
        }
    }
    return RADZ_OK;
}

radz_status rz_batch_next(rz_trainer *t, bool more, radz_error *err)
{
    rz_batch *b = &t->batch;
    size_t n, first = rz_comm_share(&t->comm, t->b, &n);
    rz_batch_wait(t);
    RZ_TRY(draw_rows(t, b, err));
    fill_films(t, b);
    rz_films_trim(&t->films, b->rows + first, n);
    b->n_items = t->b;
    t->objective->items(t, b);
    for (size_t i = 0; i < b->n_items; i++) b->items[i].key = i;
    if (more) start_ahead(t);
    return RADZ_OK;
}

/* ---- Memory ---------------------------------------------------------------------------------------------- */

static bool open_ahead(rz_trainer *t, size_t n, size_t n_pixels)
{
    rz_ahead *a = &t->ahead;
    a->rows = rz_calloc(t->host, n, sizeof *a->rows);
    a->draws = rz_calloc(t->host, n, sizeof *a->draws);
    a->done = rz_calloc(t->host, n, sizeof *a->done);
    a->pixels = rz_calloc(t->host, n, n_pixels * sizeof *a->pixels);
    return a->rows && a->draws && a->done && a->pixels;
}

radz_status rz_batch_open(rz_trainer *t, radz_error *err)
{
    rz_batch *b = &t->batch;
    size_t n = t->b, n_pixels = 3 * t->films.size * t->films.size, n_items, n_mine;
    rz_comm_share(&t->comm, n, &n_mine);
    if (!n_mine) n_mine = 1;
    if (!rz_size_add(2 * n, t->n_classes, &n_items)) return RZ_NO_MEMORY(err, "batch");
    b->rows = rz_calloc(t->host, n, sizeof *b->rows);
    b->draws = rz_calloc(t->host, n, sizeof *b->draws);
    b->bad = rz_calloc(t->host, n, sizeof *b->bad);
    b->pixels = rz_calloc(t->host, n_mine, n_pixels * sizeof *b->pixels);
    b->items = rz_calloc(t->host, n_items, sizeof *b->items);
    b->text_rows = rz_calloc(t->host, n, sizeof *b->text_rows);
    b->text_item = rz_calloc(t->host, t->ds.texts.n, sizeof *b->text_item);
    b->targets = rz_calloc(t->host, n, t->n_classes * sizeof *b->targets);
    b->keep = rz_calloc(t->host, n, n * sizeof *b->keep);
    b->keep_classes = rz_calloc(t->host, n, t->n_classes * sizeof *b->keep_classes);
    bool ok = b->rows && b->draws && b->bad && b->pixels && b->items && b->text_rows && b->text_item && b->targets &&
              b->keep && b->keep_classes && open_ahead(t, n_mine, n_pixels);
    return ok ? rz_worker_open(t->host, prepare, t, &t->ahead.worker, err) : RZ_NO_MEMORY(err, "batch");
}

void rz_batch_wait(rz_trainer *t)
{
    rz_worker_wait(t->ahead.worker);
}

void rz_batch_close(rz_trainer *t)
{
    rz_batch *b = &t->batch;
    rz_ahead *a = &t->ahead;
    rz_worker_close(a->worker);
    void *const parts[] = {b->rows, b->draws, b->pixels,       b->items, b->text_rows, b->text_item, b->targets,
                           b->keep, b->bad,   b->keep_classes, a->rows,  a->draws,     a->done,      a->pixels};
    for (size_t i = 0; i < RZ_COUNT(parts); i++) rz_free(t->host, parts[i]);
    memset(b, 0, sizeof *b);
    memset(a, 0, sizeof *a);
}
