/* batch.c - the next films and texts of a training run. SPDX-License-Identifier: Apache-2.0 */
#include "trainer.h"

#define AUGMENT_SEED UINT64_C(0x6175676d656e7421)

radz_status rz_batch_open(rz_trainer *t, radz_error *err)
{
    rz_batch *b = &t->batch;
    size_t n = t->b, n_pixels = 3 * t->films.size * t->films.size, n_items;
    if (!rz_size_add(2 * n, t->n_classes, &n_items)) return RZ_NO_MEMORY(err, "batch");
    b->rows = rz_calloc(t->host, n, sizeof *b->rows);
    b->draws = rz_calloc(t->host, n, sizeof *b->draws);
    b->pixels = rz_calloc(t->host, n, n_pixels * sizeof *b->pixels);
    b->items = rz_calloc(t->host, n_items, sizeof *b->items);
    b->text_rows = rz_calloc(t->host, n, sizeof *b->text_rows);
    b->text_item = rz_calloc(t->host, t->ds.texts.n, sizeof *b->text_item);
    b->targets = rz_calloc(t->host, n, t->n_classes * sizeof *b->targets);
    b->keep = rz_calloc(t->host, n, n * sizeof *b->keep);
    b->keep_classes = rz_calloc(t->host, n, t->n_classes * sizeof *b->keep_classes);
    bool ok = b->rows && b->draws && b->pixels && b->items && b->text_rows && b->text_item && b->targets && b->keep &&
              b->keep_classes;
    return ok ? RADZ_OK : RZ_NO_MEMORY(err, "batch");
}

void rz_batch_close(rz_trainer *t)
{
    rz_batch *b = &t->batch;
    void *const parts[] = {b->rows,      b->draws,   b->pixels, b->items,       b->text_rows,
                           b->text_item, b->targets, b->keep,   b->keep_classes};
    for (size_t i = 0; i < RZ_COUNT(parts); i++) rz_free(t->host, parts[i]);
    memset(b, 0, sizeof *b);
}

/* The next row that is not known to be bad, into place i. */
static radz_status draw_row(rz_trainer *t, size_t i, radz_error *err)
{
    size_t n_bad = 0;
    for (size_t r = 0; r < t->ds.n_train && t->films.n_bad; r++) n_bad += t->films.bad[r];
    if (n_bad == t->ds.n_train)
        return rz_fail(err, RADZ_E_IO, "%s: none of the %zu training films could be used, '%s' for one", t->o.manifest,
                       t->ds.n_train, t->ds.rows[0].path);
    do {
        t->batch.draws[i] = t->state.draw++;
        t->batch.rows[i] = rz_sampler_draw(&t->sampler, t->batch.draws[i]);
    } while (t->films.bad[t->batch.rows[i]]);
    return RADZ_OK;
}

/* Rows whose films turn out to be unreadable are replaced by the next ones, until all are there. */
static radz_status draw_rows(rz_trainer *t, radz_error *err)
{
    for (size_t i = 0; i < t->b; i++) RZ_TRY(draw_row(t, i, err));
    for (bool complete = false; !complete;) {
        complete = true;
        RZ_TRY(rz_films_load(&t->films, t->batch.rows, t->b, err));
        for (size_t i = 0; i < t->b; i++) {
            if (!t->films.bad[t->batch.rows[i]]) continue;
            RZ_TRY(draw_row(t, i, err));
            complete = false;
        }
    }
    return RADZ_OK;
}

static void fill_film(void *arg, size_t i)
{
    rz_trainer *t = arg;
    const rz_thumb *thumb = &t->films.thumbs[t->batch.rows[i]];
    float *pixels = t->batch.pixels + i * 3 * thumb->size * thumb->size;
    if (t->o.augment) {
        rz_rng rng;
        rz_rng_seed(&rng, t->o.seed ^ AUGMENT_SEED, (uint64_t)t->batch.draws[i]);
        rz_augment(t->films.cfg, thumb, &rng, pixels);
    } else {
        rz_thumb_pixels(t->films.cfg, thumb, pixels);
    }
}

radz_status rz_batch_next(rz_trainer *t, radz_error *err)
{
    rz_batch *b = &t->batch;
    size_t n_pixels = 3 * t->films.size * t->films.size;
    RZ_TRY(draw_rows(t, err));
    rz_pool_run(rz_device_pool(t->dev), t->b, fill_film, t);
    rz_films_trim(&t->films, b->rows, t->b);
    for (size_t i = 0; i < t->b; i++)
        b->items[i] = (rz_item){.kind = RZ_ITEM_IMAGE, .pixels = b->pixels + i * n_pixels, .prompt = &t->image_prompt};
    b->n_items = t->b;
    t->objective->items(t, b);
    for (size_t i = 0; i < b->n_items; i++) b->items[i].key = i;
    return RADZ_OK;
}
