/* eval_embed.c - every film read once, one batch being read while the network works on the one before.
 * SPDX-License-Identifier: Apache-2.0 */
#include "background.h"
#include "eval.h"
#include "preprocess.h"

enum { MAX_BATCH = 16, PART_FILMS = 256 };
#define MAX_ROWS 4096
#define PART_SECONDS 60

/* Films that are being read, or that the network works on. */
typedef struct batch {
    struct work *work;
    size_t rows[MAX_BATCH], n;
    float *pixels; /* (MAX_BATCH, floats_each) */
    bool ready[MAX_BATCH];
    radz_status status[MAX_BATCH];
    radz_error why[MAX_BATCH];
} batch;

typedef struct work {
    const rz_net *net;
    const radz_eval_options *o;
    const rz_eval_data *data;
    rz_eval_films *films;
    rz_store *cache;
    rz_prompt prompt;
    size_t floats_each, per_batch, next;
    batch batches[2];
    float *scratch[2]; /* (MAX_BATCH, K): global and local of a pass */
    size_t unsaved[PART_FILMS], n_unsaved;
    double saved_at, started_at;
    size_t n_wanted, n_done;
} work;

/* ---- Reading ---- */

static radz_status read_film(work *w, batch *b, size_t k)
{
    const rz_config *cfg = &w->net->model->cfg;
    const size_t row = b->rows[k];
    const char *path = w->data->rows[row].path;
    rz_eval_films *f = w->films;
    rz_file file;
    rz_pixels pixels;
    rz_sha256 h;
    RZ_TRY(rz_file_open(cfg->host, path, RZ_FILE_READ, RZ_FILM_MAX_BYTES, &file, &b->why[k]));
    rz_sha256_init(&h);
    rz_sha256_put(&h, file.data, file.size);
    rz_sha256_hex(&h, f->sha256[row]);
    b->ready[k] = rz_store_get(w->cache, f, row);
    radz_status status = RADZ_OK;
    if (!b->ready[k]) {
        status = rz_pixels_decode(cfg->host, file.data, file.size, path, &pixels, &b->why[k]);
        if (!status) {
            status = rz_preprocess(cfg->host, &cfg->preprocess, cfg->vision.image_size, &pixels,
                                   b->pixels + k * w->floats_each, &b->why[k]);
            rz_pixels_free(cfg->host, &pixels);
        }
    }
    rz_file_close(&file);
    return status;
}

static void read_one(void *arg, size_t k)
{
    batch *b = arg;
    b->status[k] = read_film(b->work, b, k);
}

static void read_batch(void *arg)
{
    batch *b = arg;
    rz_pool_run(rz_device_pool(b->work->net->model->dev), b->n, read_one, b);
}

static void next_batch(work *w, batch *b)
{
    b->work = w;
    b->n = 0;
    for (; w->next < w->films->n && b->n < w->per_batch; w->next++) {
        bool mine = !w->o->n_shards || w->next % (size_t)w->o->n_shards == (size_t)w->o->shard - 1;
        if (mine) b->rows[b->n++] = w->next;
    }
    memset(b->ready, 0, sizeof b->ready);
}

/* ---- The network ---- */

static radz_status encode(work *w, const rz_item *items, const size_t *rows, size_t n, radz_error *err)
{
    rz_eval_films *f = w->films;
    rz_stream *s = w->net->s;
    rz_net pass = *w->net;
    float *out[2] = {NULL, NULL};
    pass.keep = false;
    rz_mark mark = rz_arena_mark(s);
    rz_encode(&pass, items, n, f->vectors[RZ_VECTOR_GLOBAL] ? &out[0] : NULL,
              f->vectors[RZ_VECTOR_LOCAL] ? &out[1] : NULL, NULL);
    for (int k = 0; k < 2; k++)
        if (out[k] && !rz_stream_failed(s)) rz_download(s, w->scratch[k], out[k], n * f->dim[k] * sizeof(float));
    radz_status status = rz_stream_sync(s, err);
    rz_arena_release(s, mark);
    for (int k = 0; k < 2 && !status; k++)
        for (size_t i = 0; out[k] && i < n; i++)
            memcpy(f->vectors[k] + rows[i] * f->dim[k], w->scratch[k] + i * f->dim[k], f->dim[k] * sizeof(float));
    return status;
}

static radz_status encode_hidden(work *w, const rz_item *items, const size_t *rows, size_t n, radz_error *err)
{
    rz_eval_films *f = w->films;
    rz_stream *s = w->net->s;
    rz_net pass = *w->net;
    const rz_pick pick = {RZ_ROWS_OTHER, rz_config_decoder_blocks(&w->net->model->cfg), true};
    const size_t dim = f->dim[RZ_VECTOR_HIDDEN];
    pass.keep = false;
    rz_mark mark = rz_arena_mark(s);
    float *v = rz_encode_pick(&pass, items, n, &pick);
    for (size_t i = 0; i < n && !rz_stream_failed(s); i++)
        rz_download(s, f->vectors[RZ_VECTOR_HIDDEN] + rows[i] * dim, v + i * dim, dim * sizeof(float));
    radz_status status = rz_stream_sync(s, err);
    rz_arena_release(s, mark);
    return status;
}

static bool all_unit(const rz_eval_films *f, size_t row)
{
    for (int k = 0; k < RZ_VECTOR_KINDS; k++) {
        double sum = 0;
        for (size_t i = 0; f->vectors[k] && i < f->dim[k]; i++)
            sum += (double)f->vectors[k][row * f->dim[k] + i] * f->vectors[k][row * f->dim[k] + i];
        if (f->vectors[k] && !(fabs(sum - 1) < 1e-3)) return false;
    }
    return true;
}

static radz_status mark_failed(rz_eval_films *f, size_t row, const char *why, radz_error *err)
{
    f->state[row] = RZ_FILM_FAILED;
    f->n_failed++;
    f->why[row] = rz_strdup(f->host, why);
    return f->why[row] ? RADZ_OK : RZ_NO_MEMORY(err, "message of a film");
}

static radz_status save_part(work *w, radz_error *err)
{
    radz_status status = rz_store_put(w->cache, w->films, w->unsaved, w->n_unsaved, err);
    w->n_unsaved = 0;
    w->saved_at = rz_seconds();
    return status;
}

/* Films of a batch that were not in the cache. */
static radz_status embed_batch(work *w, batch *b, radz_error *err)
{
    rz_item items[MAX_BATCH];
    size_t rows[MAX_BATCH], n = 0;
    for (size_t k = 0; k < b->n; k++) {
        if (b->status[k] || b->ready[k]) continue;
        rows[n] = b->rows[k];
        items[n++] = (rz_item){.kind = RZ_ITEM_IMAGE, .pixels = b->pixels + k * w->floats_each, .prompt = &w->prompt};
    }
    if (!n) return RADZ_OK;
    if (w->films->vectors[0] || w->films->vectors[1]) RZ_TRY(encode(w, items, rows, n, err));
    if (w->films->vectors[RZ_VECTOR_HIDDEN]) RZ_TRY(encode_hidden(w, items, rows, n, err));
    for (size_t i = 0; i < n; i++) {
        if (!all_unit(w->films, rows[i]))
            return rz_fail(err, RADZ_E_FORMAT,
                           "the model gives a vector that is not a finite unit vector: its weights are damaged");
        w->unsaved[w->n_unsaved++] = rows[i];
        w->films->n_embedded++;
        if (w->n_unsaved == PART_FILMS) RZ_TRY(save_part(w, err));
    }
    return rz_seconds() - w->saved_at > PART_SECONDS ? save_part(w, err) : RADZ_OK;
}

static radz_status tell(work *w, radz_error *err)
{
    const rz_eval_films *f = w->films;
    double spent = rz_seconds() - w->started_at;
    radz_eval_progress p = {
        sizeof p,    w->n_done,   w->n_wanted,
        f->n_failed, f->n_cached, w->n_done ? spent / (double)w->n_done * (double)(w->n_wanted - w->n_done) : NAN};
    if (!w->o->progress_fn || !w->o->progress_fn(&p, w->o->user)) return RADZ_OK;
    return rz_fail(err, RADZ_E_CANCELLED, "radz_evaluate: cancelled after %zu of %zu films", w->n_done, w->n_wanted);
}

static radz_status finish_batch(work *w, batch *b, radz_error *err)
{
    rz_eval_films *f = w->films;
    RZ_TRY(embed_batch(w, b, err));
    for (size_t k = 0; k < b->n; k++) {
        if (b->status[k] == RADZ_E_MEMORY) return RZ_NO_MEMORY(err, "film");
        if (b->status[k]) {
            RZ_TRY(mark_failed(f, b->rows[k], b->why[k].message, err));
            continue;
        }
        f->state[b->rows[k]] = RZ_FILM_DONE;
        f->n_cached += b->ready[k];
    }
    w->n_done += b->n;
    return tell(w, err);
}

static radz_status run(work *w, radz_error *err)
{
    rz_background reading = {0};
    batch *now = &w->batches[0], *later = &w->batches[1];
    radz_status status = RADZ_OK;
    next_batch(w, now);
    read_batch(now);
    while (now->n && !status) {
        next_batch(w, later);
        rz_background_start(&reading, read_batch, later);
        status = finish_batch(w, now, err);
        rz_background_wait(&reading);
        batch *swap = now;
        now = later, later = swap;
    }
    radz_status saved = save_part(w, status ? NULL : err);
    return status ? status : saved;
}

/* ---- Opening ---- */

static radz_status open_films(const rz_model *m, size_t n, unsigned wanted, rz_eval_films *f, radz_error *err)
{
    *f = (rz_eval_films){.host = m->cfg.host, .n = n};
    f->dim[0] = f->dim[1] = m->cfg.radz.dim, f->dim[RZ_VECTOR_HIDDEN] = m->cfg.text.hidden;
    f->state = rz_calloc(f->host, n, 1);
    f->sha256 = rz_calloc(f->host, n, sizeof *f->sha256);
    f->why = rz_calloc(f->host, n, sizeof *f->why);
    bool good = f->state && f->sha256 && f->why;
    for (int k = 0; k < RZ_VECTOR_KINDS && good; k++)
        if (wanted >> k & 1) good = (f->vectors[k] = rz_calloc(f->host, n, f->dim[k] * sizeof(float))) != NULL;
    return good ? RADZ_OK : RZ_NO_MEMORY(err, "vectors of the films");
}

void rz_eval_films_close(rz_eval_films *f)
{
    for (size_t i = 0; f->why && i < f->n; i++) rz_free(f->host, f->why[i]);
    for (int k = 0; k < RZ_VECTOR_KINDS; k++) rz_free(f->host, f->vectors[k]);
    rz_free(f->host, f->state);
    rz_free(f->host, f->sha256);
    rz_free(f->host, f->why);
    *f = (rz_eval_films){0};
}

static radz_status open_work(work *w, radz_error *err)
{
    const rz_config *cfg = &w->net->model->cfg;
    w->floats_each = 3 * cfg->vision.image_size * cfg->vision.image_size;
    RZ_TRY(rz_prompt_image(cfg->host, w->net->model, &w->prompt, err));
    w->per_batch = MAX_ROWS / (w->prompt.n ? w->prompt.n : 1);
    w->per_batch = w->per_batch < 1 ? 1 : w->per_batch > MAX_BATCH ? MAX_BATCH : w->per_batch;
    for (int i = 0; i < 2; i++) {
        w->batches[i].pixels = rz_calloc(cfg->host, w->per_batch, w->floats_each * sizeof(float));
        w->scratch[i] = rz_calloc(cfg->host, w->per_batch, cfg->radz.dim * sizeof(float));
        if (!w->batches[i].pixels || !w->scratch[i]) return RZ_NO_MEMORY(err, "batch of films");
    }
    for (size_t i = 0; i < w->films->n; i++)
        w->n_wanted += !w->o->n_shards || i % (size_t)w->o->n_shards == (size_t)w->o->shard - 1;
    w->saved_at = w->started_at = rz_seconds();
    return RADZ_OK;
}

static radz_status embed_all(work *w, radz_error *err)
{
    const rz_host *host = w->net->model->cfg.host;
    char *own = NULL;
    const char *dir = w->o->cache_dir;
    if (!dir && !(dir = own = rz_path_join(host, w->o->out_dir, "cache")))
        return RZ_NO_MEMORY(err, "path of the cache");
    radz_status status = rz_store_open(w->net->model, *dir ? dir : NULL, &w->cache, err);
    if (!status) status = open_work(w, err);
    if (!status) status = run(w, err);
    for (int i = 0; i < 2; i++) rz_free(host, w->batches[i].pixels), rz_free(host, w->scratch[i]);
    rz_prompt_free(host, &w->prompt);
    rz_store_close(w->cache);
    rz_free(host, own);
    return status;
}

radz_status rz_eval_films_open(const rz_net *net, const radz_eval_options *o, const rz_eval_data *data, unsigned wanted,
                               rz_eval_films *out, radz_error *err)
{
    const rz_host *host = net->model->cfg.host;
    *out = (rz_eval_films){0};
    RZ_TRY(rz_model_require_films(net->model, err));
    radz_status status = open_films(net->model, data->n, wanted, out, err);
    work *w = status ? NULL : rz_calloc(host, 1, sizeof *w);
    if (!status && !w) status = RZ_NO_MEMORY(err, "evaluation");
    if (!status) {
        w->net = net, w->o = o, w->data = data, w->films = out;
        status = embed_all(w, err);
    }
    rz_free(host, w);
    if (status) rz_eval_films_close(out);
    return status;
}

/* ---- Shards ---- */

static char *shard_path(const rz_host *host, const radz_eval_options *o, int shard)
{
    rz_str s = {.host = host};
    rz_str_printf(&s, "%s/shard-%d-of-%d.json", o->out_dir, shard, o->n_shards);
    if (!s.failed) return s.data;
    rz_str_free(&s);
    return NULL;
}

/* Which run a shard is part of: all of it must be the same in every shard. */
static radz_status run_hash(const rz_model *m, const radz_eval_options *o, const rz_eval_data *d, char hash[65],
                            radz_error *err)
{
    rz_str s = {.host = m->cfg.host};
    rz_sha256 h;
    rz_str_printf(&s, "%s %s %s %s %d %zu %zu ", m->hash, rz_device_kernels(m->dev), d->manifest_hash,
                  d->validation_hash, o->n_shards, d->n, d->n_evaluated);
    for (size_t i = 0; i < d->n; i++) rz_str_printf(&s, "%zu%s", d->rows[i].line, d->rows[i].validation ? "v" : " ");
    if (s.failed) {
        rz_str_free(&s);
        return RZ_NO_MEMORY(err, "shard");
    }
    rz_sha256_init(&h);
    rz_sha256_put(&h, s.data, s.len);
    rz_sha256_hex(&h, hash);
    rz_str_free(&s);
    return RADZ_OK;
}

radz_status rz_eval_shard_save(const rz_eval_films *f, const rz_model *m, const radz_eval_options *o,
                               const rz_eval_data *data, radz_error *err)
{
    rz_str s = {.host = f->host};
    char run_of[65];
    RZ_TRY(run_hash(m, o, data, run_of, err));
    rz_str_printf(&s, "{\"schema\":\"radz.shard/1\",\"run\":\"%s\",\"films\":[\n", run_of);
    const char *between = "";
    for (size_t i = 0; i < f->n; i++) {
        if (f->state[i] == RZ_FILM_TODO) continue;
        rz_str_printf(&s, "%s[%zu,\"%s\",", between, i, f->sha256[i]);
        if (f->why[i])
            rz_str_put_json(&s, f->why[i], strlen(f->why[i]));
        else
            rz_str_puts(&s, "null");
        rz_str_puts(&s, "]");
        between = ",\n";
    }
    rz_str_puts(&s, "]}\n");
    char *path = shard_path(f->host, o, o->shard);
    radz_status status =
        s.failed || !path ? RZ_NO_MEMORY(err, "shard") : rz_write_file(f->host, path, s.data, s.len, err);
    rz_free(f->host, path);
    rz_str_free(&s);
    return status;
}

static radz_status take_film(const json_t *item, const rz_store *cache, rz_eval_films *f, const char *path,
                             radz_error *err)
{
    size_t i = (size_t)json_integer_value(json_array_get(item, 0));
    const char *hash = json_string_value(json_array_get(item, 1)), *why = json_string_value(json_array_get(item, 2));
    if (!json_is_integer(json_array_get(item, 0)) || i >= f->n || !hash || strlen(hash) > 64)
        return rz_fail(err, RADZ_E_FORMAT, "%s: expected [row, hash, message]", path);
    if (f->state[i] != RZ_FILM_TODO) return rz_fail(err, RADZ_E_FORMAT, "%s: row %zu comes twice", path, i);
    memcpy(f->sha256[i], hash, strlen(hash) + 1);
    if (why) return mark_failed(f, i, why, err);
    if (!rz_store_get(cache, f, i))
        return rz_fail(err, RADZ_E_MISMATCH, "%s: the cache has no vectors of film %.12s", path, hash);
    f->state[i] = RZ_FILM_DONE;
    f->n_cached++;
    return RADZ_OK;
}

static radz_status load_shard(const char *path, const char *run_of, const rz_store *cache, rz_eval_films *f,
                              radz_error *err)
{
    json_t *o = NULL;
    const char *run_text = "";
    RZ_TRY(rz_json_load(f->host, path, (size_t)1 << 30, &o, err));
    radz_status status = rz_json_string(o, path, "run", &run_text, err);
    if (!status && strcmp(run_text, run_of) != 0)
        status = rz_fail(err, RADZ_E_MISMATCH, "%s: of another model, manifest or number of shards", path);
    const json_t *films = json_object_get(o, "films");
    for (size_t k = 0; k < json_array_size(films) && !status; k++)
        status = take_film(json_array_get(films, k), cache, f, path, err);
    json_decref(o);
    return status;
}

static radz_status load_shards(const rz_model *m, const radz_eval_options *o, const rz_eval_data *data,
                               const rz_store *cache, rz_eval_films *f, radz_error *err)
{
    char run_of[65];
    RZ_TRY(run_hash(m, o, data, run_of, err));
    for (int shard = 1; shard <= o->n_shards; shard++) {
        char *path = shard_path(f->host, o, shard);
        radz_status status = path ? load_shard(path, run_of, cache, f, err) : RZ_NO_MEMORY(err, "shard");
        rz_free(f->host, path);
        RZ_TRY(status);
    }
    for (size_t i = 0; i < f->n; i++)
        if (f->state[i] == RZ_FILM_TODO)
            return rz_fail(err, RADZ_E_FORMAT, "%s: the shards lack row %zu", o->out_dir, i);
    return RADZ_OK;
}

radz_status rz_eval_shards_load(const rz_model *m, const radz_eval_options *o, const rz_eval_data *data,
                                unsigned wanted, rz_eval_films *out, radz_error *err)
{
    rz_store *cache = NULL;
    char *own = NULL;
    const char *dir = o->cache_dir;
    if (!dir && !(dir = own = rz_path_join(m->cfg.host, o->out_dir, "cache"))) return RZ_NO_MEMORY(err, "shard");
    *out = (rz_eval_films){0};
    radz_status status = rz_store_open(m, dir, &cache, err);
    if (!status) status = open_films(m, data->n, wanted, out, err);
    if (!status) status = load_shards(m, o, data, cache, out, err);
    rz_store_close(cache);
    rz_free(m->cfg.host, own);
    if (status) rz_eval_films_close(out);
    return status;
}
