/* films.c - the films of a dataset, read when first wanted and kept while there is room.
 * SPDX-License-Identifier: Apache-2.0 */
#include "films.h"

radz_status rz_films_open(const rz_host *host, const rz_dataset *ds, const rz_model *model, rz_films *out,
                          radz_error *err)
{
    *out = (rz_films){.host = host, .ds = ds, .cfg = &model->cfg.preprocess, .size = model->cfg.vision.image_size};
    out->pool = rz_device_pool(model->dev), out->n = ds->n_train + ds->n_val, out->max_bytes = SIZE_MAX;
    out->thumbs = rz_calloc(host, out->n, sizeof *out->thumbs);
    out->bad = rz_calloc(host, out->n, 1);
    if (out->thumbs && out->bad) return RADZ_OK;
    rz_films_close(out);
    return RZ_NO_MEMORY(err, "films of the manifest");
}

void rz_films_close(rz_films *f)
{
    for (size_t i = 0; f->thumbs && i < f->n; i++) rz_thumb_free(f->host, &f->thumbs[i]);
    rz_free(f->host, f->thumbs);
    rz_free(f->host, f->bad);
    memset(f, 0, sizeof *f);
}

radz_status rz_films_mark_bad(rz_films *f, size_t row, const char *why, radz_error *err)
{
    if (f->bad[row]) return RADZ_OK;
    if (f->stop_on_bad) return rz_fail(err, RADZ_E_FORMAT, "manifest line %zu: %s", f->ds->rows[row].line, why);
    f->bad[row] = 1;
    f->n_bad++;
    rz_log(f->host, RADZ_LOG_WARNING, "manifest line %zu left out: %s", f->ds->rows[row].line, why);
    return RADZ_OK;
}

typedef struct load_job {
    rz_films *f;
    size_t *rows;
    radz_error *errors;
} load_job;

static void load_one(void *arg, size_t i)
{
    load_job *job = arg;
    rz_films *f = job->f;
    size_t row = job->rows[i];
    job->errors[i].code =
        rz_thumb_open(f->host, f->cfg, f->size, f->ds->rows[row].path, &f->thumbs[row], &job->errors[i]);
}

/* Rows that must be read, each once. */
static size_t missing(const rz_films *f, const size_t *rows, size_t n, size_t *out)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        bool skip = f->bad[rows[i]] || f->thumbs[rows[i]].data;
        for (size_t j = 0; j < count && !skip; j++) skip = out[j] == rows[i];
        if (!skip) out[count++] = rows[i];
    }
    return count;
}

static radz_status load_missing(load_job *job, size_t n, radz_error *err)
{
    rz_films *f = job->f;
    radz_status st = RADZ_OK;
    rz_pool_run(f->pool, n, load_one, job);
    for (size_t i = 0; i < n; i++) {
        if (job->errors[i].code == RADZ_OK)
            f->n_bytes += rz_thumb_bytes(&f->thumbs[job->rows[i]]);
        else if (job->errors[i].code == RADZ_E_MEMORY)
            st = rz_fail(err, RADZ_E_MEMORY, "%s", job->errors[i].message);
        else if (!st)
            st = rz_films_mark_bad(f, job->rows[i], job->errors[i].message, err);
    }
    return st;
}

void rz_films_warm(rz_films *f, const size_t *rows, size_t n)
{
    load_job job = {.f = f, .rows = rz_calloc(f->host, n, sizeof *job.rows)};
    size_t n_missing = job.rows ? missing(f, rows, n, job.rows) : 0;
    if (n_missing) job.errors = rz_calloc(f->host, n_missing, sizeof *job.errors);
    if (job.errors) rz_pool_run(f->pool, n_missing, load_one, &job);
    for (size_t i = 0; i < n_missing && job.errors; i++)
        if (job.errors[i].code == RADZ_OK) f->n_bytes += rz_thumb_bytes(&f->thumbs[job.rows[i]]);
    rz_free(f->host, job.errors);
    rz_free(f->host, job.rows);
}

radz_status rz_films_load(rz_films *f, const size_t *rows, size_t n, radz_error *err)
{
    load_job job = {.f = f, .rows = rz_calloc(f->host, n, sizeof *job.rows)};
    if (!job.rows) return RZ_NO_MEMORY(err, "films of a batch");
    size_t n_missing = missing(f, rows, n, job.rows);
    radz_status st = RADZ_OK;
    if (n_missing) {
        job.errors = rz_calloc(f->host, n_missing, sizeof *job.errors);
        st = job.errors ? load_missing(&job, n_missing, err) : RZ_NO_MEMORY(err, "films of a batch");
    }
    rz_free(f->host, job.errors);
    rz_free(f->host, job.rows);
    return st;
}

void rz_films_trim(rz_films *f, const size_t *rows, size_t n)
{
    for (size_t i = 0; i < n && f->n_bytes > f->max_bytes; i++) {
        rz_thumb *thumb = &f->thumbs[rows[i]];
        if (!thumb->data) continue;
        f->n_bytes -= rz_thumb_bytes(thumb);
        rz_thumb_free(f->host, thumb);
    }
}
