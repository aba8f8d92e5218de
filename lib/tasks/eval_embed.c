/* eval_embed.c - every film read once, one batch being read while the network works on the one before.
 * SPDX-License-Identifier: Apache-2.0 */
#include "classes.h"
#include "eval.h"
#include "gray.h"
#include "worker.h"

enum { MAX_BATCH = 16, PART_FILMS = 256 };
#define MAX_ROWS 4096
#define PART_SECONDS 60
#define ENCODED (1u << RZ_VALUE_GLOBAL | 1u << RZ_VALUE_LOCAL | 1u << RZ_VALUE_HEAD)

/* Films that are being read, or that the network works on. */
typedef struct batch {
    struct work *work;
    size_t rows[MAX_BATCH], n;
    float *pixels;        /* (MAX_BATCH, floats_each) */
    bool gray[MAX_BATCH]; /* the first plane alone is there */
    rz_eval_values values[MAX_BATCH];
    radz_status status[MAX_BATCH];
    radz_error why[MAX_BATCH];
} batch;

typedef struct work {
    const rz_net *net;
    const radz_eval_options *o;
    const rz_eval_data *data;
    const rz_eval_wanted *wanted;
    const rz_eval_taker *taker; /* NULL: nobody asks */
    rz_eval_films *films;
    rz_store *cache;
    rz_prompt prompt;
    size_t floats_each, per_batch, next;
    batch batches[2], *later; /* later: the one that is read while the network works on the other */
    rz_worker *reader;
    rz_eval_values unsaved[PART_FILMS];
    size_t n_unsaved;
    unsigned unsaved_kinds; /* of all of them */
    double saved_at, started_at;
    size_t n_wanted, n_done;
} work;

/* ---- Reading ---- */

static radz_status read_film(work *w, batch *b, size_t k)
{
    const rz_config *cfg = &w->net->model->cfg;
    const char *path = w->data->rows[b->rows[k]].path;
    rz_eval_values *v = &b->values[k];
    rz_file file;
    rz_pixels pixels;
    rz_sha256 h;
    v->have = 0;
    RZ_TRY(rz_file_open(cfg->host, path, RZ_FILE_READ, RZ_FILM_MAX_BYTES, &file, &b->why[k]));
    rz_sha256_init(&h);
    rz_sha256_put(&h, file.data, file.size);
    rz_sha256_hex(&h, v->sha256);
    radz_status status = rz_store_get(w->cache, w->wanted, v, &b->why[k]);
    if (!status && v->have != w->wanted->kinds) {
        status = rz_pixels_decode(cfg->host, file.data, file.size, path, &pixels, &b->why[k]);
        if (!status) {
            b->gray[k] = rz_model_planes(w->net->model, &pixels) == 1;
            status = rz_model_preprocess(w->net->model, NULL, &pixels, b->pixels + k * w->floats_each, &b->why[k]);
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

static void read_batch(work *w, batch *b)
{
    rz_pool_run(rz_device_pool(w->net->model->dev), b->n, read_one, b);
}

static void read_later(void *arg)
{
    work *w = arg;
    read_batch(w, w->later);
}

static bool is_mine(const work *w, size_t row)
{
    const radz_eval_options *o = w->o;
    if (w->films->state[row] == RZ_FILM_FAILED) return false; /* of another model */
    return !o->n_shards || row % (size_t)o->n_shards == (size_t)o->shard - 1;
}

static void next_batch(work *w, batch *b)
{
    b->work = w;
    b->n = 0;
    for (; w->next < w->films->n && b->n < w->per_batch; w->next++)
        if (is_mine(w, w->next)) b->rows[b->n++] = w->next;
}

/* ---- The network ---- */

static rz_item film_of(const batch *b, size_t k)
{
    const work *w = b->work;
    return (rz_item){
        .kind = RZ_ITEM_IMAGE, .pixels = b->pixels + k * w->floats_each, .gray = b->gray[k], .prompt = &w->prompt};
}

/* Films of a batch that lack one of these kinds. */
static size_t list_missing(const work *w, batch *b, unsigned kinds, rz_item *items, rz_eval_values **values)
{
    size_t n = 0;
    for (size_t k = 0; k < b->n; k++) {
        if (b->status[k] || !(w->wanted->kinds & kinds & ~b->values[k].have)) continue;
        values[n] = &b->values[k];
        items[n++] = film_of(b, k);
    }
    return n;
}

static void download(const work *w, const float *from, int kind, rz_eval_values **values, size_t n)
{
    rz_stream *s = w->net->s;
    const size_t dim = w->wanted->dim[kind];
    for (size_t i = 0; i < n && !rz_stream_failed(s); i++)
        rz_download(s, values[i]->v[kind], from + i * dim, dim * sizeof *from);
}

static radz_status encode(const work *w, const rz_item *items, rz_eval_values **values, size_t n, radz_error *err)
{
    const unsigned kinds = w->wanted->kinds;
    const bool head = kinds >> RZ_VALUE_HEAD & 1, global = kinds >> RZ_VALUE_GLOBAL & 1;
    rz_stream *s = w->net->s;
    rz_net pass = *w->net;
    float *x = NULL, *local = NULL;
    pass.keep = false;
    rz_mark mark = rz_arena_mark(s);
    rz_encode(&pass, items, n, head || global ? &x : NULL, kinds >> RZ_VALUE_LOCAL & 1 ? &local : NULL, NULL);
    if (global) download(w, x, RZ_VALUE_GLOBAL, values, n);
    if (local) download(w, local, RZ_VALUE_LOCAL, values, n);
    if (head && !rz_stream_failed(s)) download(w, rz_classes_forward(&pass, x, n), RZ_VALUE_HEAD, values, n);
    radz_status status = rz_stream_sync(s, err);
    rz_arena_release(s, mark);
    return status;
}

static radz_status encode_hidden(const work *w, const rz_item *items, rz_eval_values **values, size_t n,
                                 radz_error *err)
{
    rz_stream *s = w->net->s;
    rz_net pass = *w->net;
    const rz_pick pick = {
        .rows = RZ_ROWS_OTHER, .n_blocks = rz_config_decoder_blocks(&w->net->model->cfg), .raw = true};
    pass.keep = false;
    rz_mark mark = rz_arena_mark(s);
    download(w, rz_encode_pick(&pass, items, n, &pick), RZ_VALUE_HIDDEN, values, n);
    radz_status status = rz_stream_sync(s, err);
    rz_arena_release(s, mark);
    return status;
}

/* What the network says of many films at once. */
static radz_status encode_batch(work *w, batch *b, radz_error *err)
{
    rz_item items[MAX_BATCH];
    rz_eval_values *values[MAX_BATCH];
    size_t n = list_missing(w, b, ENCODED, items, values);
    if (n) RZ_TRY(encode(w, items, values, n, err));
    n = list_missing(w, b, 1u << RZ_VALUE_HIDDEN, items, values);
    return n ? encode_hidden(w, items, values, n, err) : RADZ_OK;
}

/* ---- The cache ---- */

static radz_status save_part(work *w, radz_error *err)
{
    radz_status status = rz_store_put(w->cache, w->wanted, w->unsaved_kinds, w->unsaved, w->n_unsaved, err);
    w->n_unsaved = 0;
    w->saved_at = rz_seconds();
    return status;
}

/* Keeps v for the next part, and gives its place something to write over. */
static radz_status keep_unsaved(work *w, rz_eval_values *v, unsigned kinds, radz_error *err)
{
    if (w->n_unsaved == PART_FILMS || (w->n_unsaved && w->unsaved_kinds != kinds)) RZ_TRY(save_part(w, err));
    rz_eval_values *place = &w->unsaved[w->n_unsaved];
    rz_eval_values swap = *place;
    *place = *v, *v = swap;
    w->unsaved_kinds = kinds;
    w->n_unsaved++;
    return rz_seconds() - w->saved_at > PART_SECONDS ? save_part(w, err) : RADZ_OK;
}

/* ---- A batch ---- */

radz_status rz_eval_films_fail(rz_eval_films *f, size_t row, const char *why, radz_error *err)
{
    f->state[row] = RZ_FILM_FAILED;
    f->n_failed++;
    f->why[row] = rz_strdup(f->host, why);
    return f->why[row] ? RADZ_OK : RZ_NO_MEMORY(err, "message of a film");
}

static radz_status tell(work *w, radz_error *err)
{
    const rz_eval_films *f = w->films;
    const double spent = rz_seconds() - w->started_at;
    const size_t all = w->n_wanted * f->n_passes, done = w->n_wanted * f->pass + w->n_done;
    const radz_eval_progress p = {.struct_size = sizeof p,
                                  .n_done = done,
                                  .n_films = all,
                                  .n_failed = f->n_failed,
                                  .n_cached = f->n_cached,
                                  .seconds_left = w->n_done ? spent / (double)w->n_done * (double)(all - done) : NAN,
                                  .stage = "films",
                                  .stage_done = done,
                                  .stage_n = all};
    if (!w->o->progress_fn || !w->o->progress_fn(&p, w->o->user)) return RADZ_OK;
    return rz_fail(err, RADZ_E_CANCELLED, "radz_evaluate: cancelled after %zu of %zu films", done, all);
}

static radz_status ask_film(const work *w, const rz_item *film, rz_eval_values *v, radz_error *err)
{
    for (int k = RZ_VALUE_LIKELIHOOD; k < RZ_VALUE_KINDS; k++)
        if ((w->wanted->kinds & ~v->have) >> k & 1) RZ_TRY(rz_eval_ask(w->net, w->wanted, film, k, v, err));
    for (int k = 0; k < RZ_VALUE_KINDS; k++)
        if (w->wanted->kinds >> k & 1 && !rz_eval_values_good(w->wanted, v, k))
            return rz_fail(err, RADZ_E_FORMAT,
                           "the model gives %s that is not finite or not of length 1: its weights are damaged",
                           k <= RZ_VALUE_HIDDEN ? "a vector" : "a number");
    return RADZ_OK;
}

static radz_status finish_film(work *w, batch *b, size_t k, radz_error *err)
{
    rz_eval_films *f = w->films;
    rz_eval_values *v = &b->values[k];
    const size_t row = b->rows[k];
    if (b->status[k] == RADZ_E_MEMORY) return RZ_NO_MEMORY(err, "film");
    if (b->status[k]) return rz_eval_films_fail(f, row, b->why[k].message, err);
    const unsigned missing = w->wanted->kinds & ~v->have;
    const rz_item film = film_of(b, k);
    if (missing) RZ_TRY(ask_film(w, &film, v, err));
    if (w->taker) RZ_TRY(w->taker->take(w->taker->arg, row, v, err));
    memcpy(f->sha256[row], v->sha256, sizeof v->sha256);
    f->state[row] = RZ_FILM_DONE;
    f->n_cached += !missing;
    if (!missing) return RADZ_OK;
    RZ_TRY(keep_unsaved(w, v, missing, err));
    return missing >> RZ_VALUE_LIKELIHOOD && k + 1 < b->n ? tell(w, err) : RADZ_OK; /* such a film takes its time */
}

static radz_status finish_batch(work *w, batch *b, radz_error *err)
{
    RZ_TRY(encode_batch(w, b, err));
    for (size_t k = 0; k < b->n; k++, w->n_done++) RZ_TRY(finish_film(w, b, k, err));
    return tell(w, err);
}

static radz_status run(work *w, radz_error *err)
{
    batch *now = &w->batches[0];
    radz_status status = RADZ_OK;
    w->later = &w->batches[1];
    next_batch(w, now);
    read_batch(w, now);
    while (now->n && !status) {
        next_batch(w, w->later);
        rz_worker_start(w->reader);
        status = finish_batch(w, now, err);
        rz_worker_wait(w->reader);
        batch *swap = now;
        now = w->later, w->later = swap;
    }
    radz_status saved = save_part(w, status ? NULL : err);
    return status ? status : saved;
}

/* ---- Opening ---- */

radz_status rz_eval_films_open(const rz_host *host, size_t n, rz_eval_films *f, radz_error *err)
{
    *f = (rz_eval_films){.host = host, .n = n, .n_passes = 1};
    f->state = rz_calloc(host, n, 1);
    f->sha256 = rz_calloc(host, n, sizeof *f->sha256);
    f->why = rz_calloc(host, n, sizeof *f->why);
    if (f->state && f->sha256 && f->why) return RADZ_OK;
    rz_eval_films_close(f);
    return RZ_NO_MEMORY(err, "list of the films");
}

void rz_eval_films_close(rz_eval_films *f)
{
    for (size_t i = 0; f->why && i < f->n; i++) rz_free(f->host, f->why[i]);
    rz_free(f->host, f->state);
    rz_free(f->host, f->sha256);
    rz_free(f->host, f->why);
    *f = (rz_eval_films){0};
}

static radz_status open_work(work *w, radz_error *err)
{
    const rz_config *cfg = &w->net->model->cfg;
    w->floats_each = 3 * cfg->vision.image_size * cfg->vision.image_size;
    RZ_TRY(rz_store_open(w->net->model, w->o, &w->cache, err));
    RZ_TRY(rz_prompt_image(cfg->host, w->net->model, &w->prompt, err));
    w->per_batch = MAX_ROWS / (w->prompt.n ? w->prompt.n : 1);
    w->per_batch = w->per_batch < 1 ? 1 : w->per_batch > MAX_BATCH ? MAX_BATCH : w->per_batch;
    for (int i = 0; i < 2; i++) {
        batch *b = &w->batches[i];
        b->pixels = rz_calloc(cfg->host, w->per_batch, w->floats_each * sizeof(float));
        if (!b->pixels) return RZ_NO_MEMORY(err, "batch of films");
        for (size_t k = 0; k < w->per_batch; k++) RZ_TRY(rz_eval_values_open(w->wanted, &b->values[k], err));
    }
    for (size_t k = 0; k < PART_FILMS; k++) RZ_TRY(rz_eval_values_open(w->wanted, &w->unsaved[k], err));
    for (size_t i = 0; i < w->films->n; i++) w->n_wanted += is_mine(w, i);
    RZ_TRY(rz_worker_open(cfg->host, read_later, w, &w->reader, err));
    w->saved_at = w->started_at = rz_seconds();
    return RADZ_OK;
}

static void close_work(work *w)
{
    const rz_host *host = w->net->model->cfg.host;
    rz_worker_close(w->reader);
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < MAX_BATCH; k++) rz_eval_values_close(host, &w->batches[i].values[k]);
        rz_free(host, w->batches[i].pixels);
    }
    for (size_t k = 0; k < PART_FILMS; k++) rz_eval_values_close(host, &w->unsaved[k]);
    rz_prompt_free(host, &w->prompt);
    rz_store_close(w->cache);
    rz_free(host, w);
}

radz_status rz_eval_films_run(const rz_net *net, const radz_eval_options *o, const rz_eval_data *data,
                              const rz_eval_wanted *wanted, const rz_eval_taker *taker, rz_eval_films *f,
                              radz_error *err)
{
    RZ_TRY(rz_model_require_films(net->model, err));
    work *w = rz_calloc(net->model->cfg.host, 1, sizeof *w);
    if (!w) return RZ_NO_MEMORY(err, "evaluation");
    w->net = net, w->o = o, w->data = data, w->wanted = wanted, w->taker = taker, w->films = f;
    radz_status status = open_work(w, err);
    if (!status) status = run(w, err);
    close_work(w);
    return status;
}
