/* Films and texts to unit vectors in host memory, chunk by chunk.
 * SPDX-License-Identifier: Apache-2.0 */
#include "embed.h"

#include "dicom_write.h"
#include "gray.h"
#include "memory.h"

/* One pass takes at most so many items and decoder rows, which bounds memory whatever n is. */
enum {
    HOST_ITEMS = 16, /* films of a pass of the CPU, or texts of any, ... */
    MAX_ROWS = 4096, /* ... which together have no more rows */
    MAX_ITEMS = 32,  /* films of a pass of a GPU */
    MAX_ROUND = 1024 /* films whose vectors wait on the device */
};
#define MAX_SAMPLES 262144

/* ---- Films ---- */

/* Kept beside the pixels, so that a result can be filed where the film came from. */
static radz_status keep_source(const rz_host *host, const void *bytes, size_t n, rz_film *film, radz_error *err)
{
    if (strcmp(film->pixels.format, "dicom")) return RADZ_OK;
    film->source = rz_calloc(host, 1, sizeof *film->source);
    if (!film->source) return RZ_NO_MEMORY(err, "the identification of a film");
    return rz_dicom_source_read(host, bytes, n, film->source, err);
}

static void film_hash(rz_film *film, const void *bytes, size_t n)
{
    rz_sha256 s;
    rz_sha256_init(&s);
    rz_sha256_put(&s, bytes, n);
    rz_sha256_hex(&s, film->sha256);
}

radz_status rz_film_decode(const rz_host *host, const void *bytes, size_t n, const char *what, rz_film *out,
                           radz_error *err)
{
    memset(out, 0, sizeof *out);
    if (n > RZ_FILM_MAX_BYTES)
        return rz_fail(err, RADZ_E_LIMIT, "%s: %zu bytes: a film may have at most %zu", what, n, RZ_FILM_MAX_BYTES);
    RZ_TRY(rz_pixels_decode(host, bytes, n, what, &out->pixels, err));
    film_hash(out, bytes, n);
    const radz_status status = keep_source(host, bytes, n, out, err);
    if (status != RADZ_OK) rz_film_free(host, out);
    return status;
}

radz_status rz_film_open(const rz_host *host, const char *path, rz_film *out, radz_error *err)
{
    rz_file file;
    memset(out, 0, sizeof *out);
    RZ_TRY(rz_file_open(host, path, RZ_FILE_READ, RZ_FILM_MAX_BYTES, &file, err));
    radz_status status = rz_film_decode(host, file.data, file.size, path, out, err);
    rz_file_close(&file);
    if (status != RADZ_OK) return status;
    out->path = rz_strdup(host, path);
    if (out->path) return RADZ_OK;
    rz_film_free(host, out);
    return RZ_NO_MEMORY(err, "path of a film");
}

static radz_status check_pixels(size_t width, size_t height, size_t row_bytes, size_t stride, radz_error *err)
{
    if (width < 1 || height < 1 || width > RZ_IMAGE_MAX_SIDE || height > RZ_IMAGE_MAX_SIDE)
        return rz_fail(err, RADZ_E_ARGUMENT, "pixels: %zu x %zu: expected sides of 1..%u", width, height,
                       RZ_IMAGE_MAX_SIDE);
    if (width * height > RZ_IMAGE_MAX_PIXELS)
        return rz_fail(err, RADZ_E_LIMIT, "pixels: %zu x %zu: more than %u pixels", width, height, RZ_IMAGE_MAX_PIXELS);
    size_t span;
    if (stride < row_bytes || !rz_size_mul(stride, height, &span))
        return rz_fail(err, RADZ_E_ARGUMENT, "pixels: stride_bytes: a row has %zu bytes, got a stride of %zu",
                       row_bytes, stride);
    return RADZ_OK;
}

radz_status rz_film_from_pixels(const rz_host *host, const void *pixels, radz_pixel_format format, size_t width_px,
                                size_t height_px, size_t stride_bytes, rz_film *out, radz_error *err)
{
    memset(out, 0, sizeof *out);
    if (format != RADZ_PIXELS_GRAY8 && format != RADZ_PIXELS_GRAY16 && format != RADZ_PIXELS_RGB8)
        return rz_fail(err, RADZ_E_ARGUMENT, "pixels: format: expected GRAY8 (0), GRAY16 (1) or RGB8 (2), got %d",
                       (int)format);
    rz_pixels p = {.width_px = width_px, .height_px = height_px, .format = "raw"};
    p.channels = format == RADZ_PIXELS_RGB8 ? 3 : 1;
    p.bits = format == RADZ_PIXELS_GRAY16 ? 16 : 8;
    size_t row_bytes = 0;
    if (!rz_size_mul(width_px, (size_t)(p.channels * p.bits / 8), &row_bytes)) row_bytes = SIZE_MAX;
    RZ_TRY(check_pixels(width_px, height_px, row_bytes, stride_bytes, err));
    p.data = rz_malloc(host, row_bytes * height_px);
    if (!p.data) return RZ_NO_MEMORY(err, "pixels");
    for (size_t y = 0; y < height_px; y++)
        memcpy((uint8_t *)p.data + y * row_bytes, (const uint8_t *)pixels + y * stride_bytes, row_bytes);
    out->pixels = p;
    out->pixels.notes = rz_pixels_notes(&p);
    film_hash(out, p.data, row_bytes * height_px);
    return RADZ_OK;
}

void rz_film_free(const rz_host *host, rz_film *film)
{
    rz_pixels_free(host, &film->pixels);
    if (film->source) rz_dicom_free(film->source);
    rz_free(host, film->source);
    rz_free(host, film->path);
    rz_free(host, film->input);
    memset(film, 0, sizeof *film);
}

radz_status rz_film_input(const rz_model *m, const rz_film *film, float **pixels, bool *gray, radz_error *err)
{
    const rz_config *cfg = &m->cfg;
    const size_t size = cfg->vision.image_size, n = rz_model_planes(m, &film->pixels);
    if (!cfg->has_vision) return rz_fail(err, RADZ_E_MISMATCH, "the model cannot read films: it has no vision tower");
    *pixels = rz_malloc(cfg->host, n * size * size * sizeof **pixels);
    if (!*pixels) return RZ_NO_MEMORY(err, "preprocessed film");
    *gray = n == 1;
    radz_status status = rz_model_preprocess(m, NULL, &film->pixels, *pixels, err);
    return status ? rz_fail_prefix(err, status, "%s", film->path ? film->path : "film") : RADZ_OK;
}

static double sample(const rz_pixels *p, size_t i)
{
    return p->bits == 16 ? ((const uint16_t *)p->data)[i] / 65535.0 : ((const uint8_t *)p->data)[i] / 255.0;
}

/* Looks at evenly spread pixels: a quarter million says as much as a hundred. */
rz_film_look rz_film_look_at(const rz_film *film)
{
    const rz_pixels *p = &film->pixels;
    const size_t n = p->width_px * p->height_px, step = n / MAX_SAMPLES + 1;
    rz_film_look look = {0, 1, 0};
    size_t seen = 0;
    for (size_t i = 0; i < n; i += step, seen++) {
        double low = 1, high = 0;
        for (int c = 0; c < p->channels; c++) {
            double v = sample(p, i * (size_t)p->channels + (size_t)c);
            low = v < low ? v : low;
            high = v > high ? v : high;
        }
        look.spread += high - low;
        look.low = low < look.low ? low : look.low;
        look.high = high > look.high ? high : look.high;
    }
    if (seen) look.spread /= (double)seen;
    return look;
}

radz_status rz_film_prepare(const rz_model *m, rz_film *film, radz_error *err)
{
    if (film->input) return RADZ_OK;
    film->look = rz_film_look_at(film);
    radz_status status = rz_film_input(m, film, &film->input, &film->gray, err);
    if (status) {
        rz_free(m->cfg.host, film->input);
        film->input = NULL;
        return status;
    }
    rz_free(m->cfg.host, film->pixels.data);
    film->pixels.data = NULL;
    return RADZ_OK;
}

/* ---- What is asked for ---- */

/* Without special tokens the last row, which has seen all the others, stands for them. */
static rz_rows rows_of(const rz_config *cfg, radz_feature feature)
{
    static const rz_rows rows[] = {RZ_ROWS_SPECIAL, RZ_ROWS_OTHER, RZ_ROWS_LAST, RZ_ROWS_ALL};
    return feature == RADZ_FEATURE_GLOBAL && !cfg->radz.n_image_tokens ? RZ_ROWS_LAST : rows[feature];
}

rz_pick rz_embed_own(const rz_config *cfg)
{
    return (rz_pick){.rows = rows_of(cfg, RADZ_FEATURE_GLOBAL), .n_blocks = rz_config_decoder_blocks(cfg)};
}

radz_status rz_embed_pick(const rz_config *cfg, const radz_embed_options *o, rz_pick *pick, radz_error *err)
{
    const long n = (long)cfg->text.layers;
    *pick = rz_embed_own(cfg);
    if (!o) return RADZ_OK;
    if ((int)o->feature < RADZ_FEATURE_GLOBAL || o->feature > RADZ_FEATURE_ALL)
        return rz_fail(err, RADZ_E_ARGUMENT, "feature: expected GLOBAL (0), LOCAL (1), LAST (2) or ALL (3), got %d",
                       (int)o->feature);
    if (o->layer < -n - 1 || o->layer > n)
        return rz_fail(err, RADZ_E_ARGUMENT, "layer: this model has hidden states %ld..%ld, got %d", -n - 1, n,
                       o->layer);
    if (o->raw != 0 && o->raw != 1) return rz_fail(err, RADZ_E_ARGUMENT, "raw: expected 0 or 1, got %d", o->raw);
    pick->rows = rows_of(cfg, o->feature);
    if (o->layer) pick->n_blocks = (size_t)(o->layer > 0 ? o->layer : n + 1 + o->layer);
    pick->raw = o->raw;
    pick->image_prompt = o->image_prompt;
    return RADZ_OK;
}

size_t rz_embed_dim(const rz_config *cfg, const rz_pick *pick)
{
    return pick->raw ? cfg->text.hidden : cfg->radz.dim;
}

/* ---- One pass ---- */

/* The promise of radz.h: unit length, every number finite. Damaged weights must not become a score. */
static radz_status check_vectors(const float *v, size_t n, size_t dim, radz_error *err)
{
    for (size_t i = 0; i < n; i++, v += dim) {
        double sum = 0;
        for (size_t j = 0; j < dim; j++) sum += (double)v[j] * v[j];
        if (!(fabs(sum - 1) < 1e-3))
            return rz_fail(err, RADZ_E_FORMAT,
                           "the model gives a vector that is not a finite unit vector: its weights are damaged");
    }
    return RADZ_OK;
}

/* Vectors of one pass, to device memory. */
static void encode(const rz_net *net, const rz_item *items, size_t n, const rz_pick *pick, float *to)
{
    rz_net pass = *net;
    pass.keep = false;
    rz_mark mark = rz_arena_mark(net->s);
    const float *v = rz_encode_pick(&pass, items, n, pick);
    if (!rz_stream_failed(net->s)) rz_copy(net->s, to, v, n * rz_embed_dim(&net->model->cfg, pick) * sizeof *to);
    rz_arena_release(net->s, mark);
}

static radz_status fetch(const rz_net *net, const float *v, size_t n, size_t dim, float *out, radz_error *err)
{
    rz_download(net->s, out, v, n * dim * sizeof *out);
    RZ_TRY(rz_stream_sync(net->s, err));
    return check_vectors(out, n, dim, err);
}

/* The same in one: to host memory. */
static radz_status encode_here(const rz_net *net, const rz_item *items, size_t n, const rz_pick *pick, float *out,
                               radz_error *err)
{
    const size_t dim = rz_embed_dim(&net->model->cfg, pick);
    rz_mark mark = rz_arena_mark(net->s);
    float *v = rz_arena_f32(net->s, n, dim);
    encode(net, items, n, pick, v);
    radz_status status = fetch(net, v, n, dim, out, err);
    rz_arena_release(net->s, mark);
    return status;
}

/* Nothing of a batch that failed is left to be read. */
static radz_status or_nan(radz_status status, const rz_net *net, size_t n, const rz_pick *pick, float *out)
{
    const size_t n_floats = n * rz_embed_dim(&net->model->cfg, pick);
    if (status != RADZ_OK)
        for (size_t i = 0; i < n_floats; i++) out[i] = NAN;
    return status;
}

/* ---- Films to vectors ---- */

typedef struct film_chunk {
    const rz_net *net;
    const rz_film *const *films;
    float *pixels;        /* those that are not prepared, one after another */
    float *at[MAX_ITEMS]; /* of each film; NULL: it was prepared before */
    radz_status status[MAX_ITEMS];
    radz_error err[MAX_ITEMS];
} film_chunk;

static void preprocess_one(void *arg, size_t i)
{
    film_chunk *c = arg;
    const rz_model *m = c->net->model;
    c->status[i] = RADZ_OK;
    if (!c->at[i]) return;
    c->status[i] = rz_model_preprocess(m, rz_device_pool(m->dev), &c->films[i]->pixels, c->at[i], &c->err[i]);
}

static radz_status preprocess(film_chunk *c, size_t n, radz_error *err)
{
    rz_pool_run(rz_device_pool(c->net->model->dev), n, preprocess_one, c);
    for (size_t i = 0; i < n; i++) {
        if (c->status[i] == RADZ_OK) continue;
        const char *path = c->films[i]->path;
        return rz_fail(err, c->status[i], "%s: %s", path ? path : "film", c->err[i].message);
    }
    return RADZ_OK;
}

static radz_status embed_chunk(film_chunk *c, const rz_prompt *prompt, size_t n, const rz_pick *pick, float *to,
                               radz_error *err)
{
    const rz_model *m = c->net->model;
    const size_t plane = m->cfg.vision.image_size * m->cfg.vision.image_size;
    rz_item items[MAX_ITEMS];
    float *next = c->pixels;
    for (size_t i = 0; i < n; i++) {
        const rz_film *film = c->films[i];
        const size_t n_planes = rz_model_planes(m, &film->pixels);
        c->at[i] = film->input ? NULL : next;
        items[i] = (rz_item){.kind = RZ_ITEM_IMAGE, .pixels = next, .gray = n_planes == 1, .prompt = prompt};
        if (film->input)
            items[i].pixels = film->input, items[i].gray = film->gray;
        else
            next += n_planes * plane;
    }
    RZ_TRY(preprocess(c, n, err));
    encode(c->net, items, n, pick, to);
    return RADZ_OK;
}

/* Planes of pixels that any of the films has; 0: all were prepared before. */
static size_t most_planes(const film_chunk *c, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t planes = c->films[i]->input ? 0 : rz_model_planes(c->net->model, &c->films[i]->pixels);
        most = planes > most ? planes : most;
    }
    return most;
}

/* As many films to a pass as gain from it: on a GPU more, where its memory has room. */
static size_t films_to_a_pass(const rz_net *net, size_t rows_each, size_t n)
{
    size_t left, all, fit = MAX_ROWS / (rows_each ? rows_each : 1), most = HOST_ITEMS;
    if (n < 2) return n; /* the driver need not be asked */
    if (rz_device_memory(net->model->dev, &left, &all)) {
        fit = (left + rz_arena_peak(net->s)) / (3 * (size_t)rz_net_film_bytes(net->model) + 1);
        most = MAX_ITEMS;
    }
    if (most > n) most = n;
    return fit < 1 ? 1 : fit > most ? most : fit;
}

/* The films of c: nothing waits for the device before the last pass, so that it computes while the next films are
 * prepared. */
static radz_status embed_round(film_chunk *c, const rz_prompt *prompt, size_t n, size_t per_pass, const rz_pick *pick,
                               float *out, radz_error *err)
{
    const size_t dim = rz_embed_dim(&c->net->model->cfg, pick);
    rz_stream *s = c->net->s;
    rz_mark mark = rz_arena_mark(s);
    float *v = rz_arena_f32(s, n, dim);
    radz_status status = RADZ_OK;
    for (size_t i = 0, k; i < n && !status && !rz_stream_failed(s); i += k, c->films += k) {
        k = n - i < per_pass ? n - i : per_pass;
        status = embed_chunk(c, prompt, k, pick, v + i * dim, err);
    }
    /* after a failure too: what is under way ends before its memory is used again */
    const radz_status last = status ? rz_stream_sync(s, NULL) : fetch(c->net, v, n, dim, out, err);
    rz_arena_release(s, mark);
    return status ? status : last;
}

static radz_status embed_films(const rz_net *net, const rz_prompt *prompt, const rz_film *const *films, size_t n,
                               const rz_pick *pick, float *out, radz_error *err)
{
    const rz_config *cfg = &net->model->cfg;
    const size_t per_pass = films_to_a_pass(net, prompt->n, n);
    film_chunk *c = rz_malloc(cfg->host, sizeof *c);
    if (!c) return RZ_NO_MEMORY(err, "batch of films");
    c->net = net, c->films = films;
    const size_t planes = per_pass * most_planes(c, n), plane = cfg->vision.image_size * cfg->vision.image_size;
    /* on the host in the arena, which keeps its pages: malloc gave them back and took them anew with every call */
    const bool here = rz_device_is_host(net->model->dev);
    const rz_mark mark = rz_arena_mark(net->s);
    c->pixels = here ? rz_arena_f32(net->s, planes, plane) : rz_malloc(cfg->host, planes * plane * sizeof *c->pixels);
    radz_status status = here ? rz_stream_sync(net->s, err) : RADZ_OK;
    if (!status && planes && !c->pixels) status = RZ_NO_MEMORY(err, "preprocessed films");
    for (size_t i = 0, k; i < n && status == RADZ_OK; i += k) {
        k = n - i < MAX_ROUND ? n - i : MAX_ROUND;
        status = embed_round(c, prompt, k, per_pass, pick, out + i * rz_embed_dim(cfg, pick), err);
    }
    if (!here) rz_free(cfg->host, c->pixels);
    rz_arena_release(net->s, mark);
    rz_free(cfg->host, c);
    return status;
}

radz_status rz_embed_films(const rz_net *net, const rz_film *const *films, size_t n, const rz_pick *pick, float *out,
                           radz_error *err)
{
    RZ_TRY(rz_model_require_films(net->model, err));
    if (n == 0) return RADZ_OK;
    rz_prompt prompt = {0};
    radz_status status = rz_prompt_image_as(net->model->cfg.host, net->model, pick->image_prompt, &prompt, err);
    if (status == RADZ_OK) status = embed_films(net, &prompt, films, n, pick, out, err);
    rz_prompt_free(net->model->cfg.host, &prompt);
    return or_nan(status, net, n, pick, out);
}

/* ---- Texts to vectors ---- */

/* Takes texts until the chunk is full; *used of them went in. */
static radz_status embed_some_texts(const rz_net *net, rz_item_kind kind, const char *const *texts, size_t n,
                                    const rz_pick *pick, float *out, size_t *used, radz_error *err)
{
    const rz_host *host = net->model->cfg.host;
    rz_prompt prompts[HOST_ITEMS] = {{0}};
    rz_item items[HOST_ITEMS];
    size_t k = 0, rows = 0;
    radz_status status = RADZ_OK;
    while (k < n && k < HOST_ITEMS && rows < MAX_ROWS && status == RADZ_OK) {
        status = kind == RZ_ITEM_DISEASE ? rz_prompt_disease(host, net->model, texts[k], false, &prompts[k], err)
                                         : rz_prompt_text(host, net->model, texts[k], &prompts[k], err);
        items[k] = (rz_item){.kind = kind, .prompt = &prompts[k]};
        rows += prompts[k].n;
        k++;
    }
    if (status == RADZ_OK) status = encode_here(net, items, k, pick, out, err);
    for (size_t i = 0; i < k; i++) rz_prompt_free(host, &prompts[i]);
    *used = k;
    return status;
}

radz_status rz_embed_texts(const rz_net *net, rz_item_kind kind, const char *const *texts, size_t n,
                           const rz_pick *pick, float *out, radz_error *err)
{
    RZ_TRY(rz_model_require_texts(net->model, err));
    const size_t dim = rz_embed_dim(&net->model->cfg, pick);
    radz_status status = RADZ_OK;
    for (size_t i = 0, used = 0; i < n && status == RADZ_OK; i += used)
        status = embed_some_texts(net, kind, texts + i, n - i, pick, out + i * dim, &used, err);
    return or_nan(status, net, n, pick, out);
}
