/* quantize_films.c - a model's matrices in four bits that suit films and texts. One pass of all of them: before each
 * product, its matrix becomes what it will be in the files, and the product is made with that.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quantize_films.h"

#include "encode.h"
#include "fill.h"
#include "precision.h"
#include "rounding.h"
#include "tensors.h"

enum { ALIGN = 64 };

struct rz_fit {
    const rz_host *host;
    const rz_model *list;
    rz_file file;
    size_t *at; /* where in it the integers of each parameter begin, plus one; 0: it has none */
    size_t group;
};

/* ---- Inputs -------------------------------------------------------------------------------------- */

static radz_status open_films(const rz_host *host, const rz_model *m, const rz_quantize *o, rz_fit_inputs *out,
                              radz_error *err)
{
    out->films = rz_calloc(host, o->n_films, sizeof *out->films);
    if (!out->films) return RZ_NO_MEMORY(err, "films");
    for (; out->n_films < o->n_films; out->n_films++) {
        rz_film *film = &out->films[out->n_films];
        RZ_TRY(rz_film_open(host, o->films[out->n_films], film, err));
        const radz_status status = rz_film_prepare(m, film, err);
        if (status) rz_film_free(host, film);
        RZ_TRY(status);
    }
    return RADZ_OK;
}

radz_status rz_fit_open_inputs(const rz_host *host, const rz_model *m, const rz_quantize *o, rz_fit_inputs *out,
                               radz_error *err)
{
    rz_sha256 s;
    rz_sha256_init(&s);
    *out = (rz_fit_inputs){.texts = o->texts, .n_texts = o->n_texts};
    RZ_TRY(open_films(host, m, o, out, err));
    for (size_t i = 0; i < o->n_films; i++) rz_sha256_put(&s, out->films[i].sha256, sizeof out->films[i].sha256);
    for (size_t i = 0; i < o->n_texts; i++) rz_sha256_put(&s, o->texts[i], strlen(o->texts[i]) + 1);
    rz_sha256_hex(&s, out->sha256);
    return RADZ_OK;
}

void rz_fit_close_inputs(const rz_host *host, rz_fit_inputs *f)
{
    for (size_t i = 0; i < f->n_films; i++) rz_film_free(host, &f->films[i]);
    rz_free(host, f->films);
    *f = (rz_fit_inputs){0};
}

/* ---- One matrix -------------------------------------------------------------------------------------- */

typedef struct pass {
    const rz_host *host;
    const rz_fit_work *work;
    rz_model *m;
    rz_stream *s;
    rz_fit *fit;
    rz_writer *w;
    uint8_t *now; /* the matrix that was asked for last: scales, then integers */
    size_t now_bytes;
    float *r; /* rz_rounding_factor of the rows that reach `of` and the layers beside it */
    size_t r_floats;
    const rz_param *of;
} pass;

/* The first of the layers that read the same rows. */
static const rz_param *first_of(const rz_param *p)
{
    while (p->behind) p = p->behind;
    return p;
}

/* What p of the list becomes; false: it stays. */
static bool becomes(const rz_fit_work *k, const rz_param *p, rz_dtype *dtype)
{
    const rz_st_tensor *t = rz_tensor_of(k->list, p);
    rz_dtype compute;
    bool converts = false;
    if (!t || p->as_float) return false;
    const bool merged = rz_model_merges(k->list, p);
    return !rz_precision_of(k->precision, &k->list->cfg, p->name, t, merged, dtype, &compute, &converts, NULL) &&
           converts && !rz_dtype_is_float(*dtype);
}

static radz_status make_room(const pass *p, float **r, size_t *have, size_t n, radz_error *err)
{
    void *more = NULL;
    size_t bytes;
    if (n <= *have) return RADZ_OK;
    if (!rz_size_mul(n, sizeof **r, &bytes)) return RZ_NO_MEMORY(err, "second moments of a matrix");
    rz_device_free(p->m->dev, *r);
    *r = NULL, *have = 0;
    RZ_TRY(rz_device_alloc(p->m->dev, bytes, &more, err));
    *r = more, *have = n;
    return RADZ_OK;
}

/* Four bits, for the rows x. */
static radz_status fit_matrix(pass *p, const rz_param *param, const rz_matrix_source *from, const float *x, size_t rows,
                              uint8_t *codes, uint16_t *scale, radz_error *err)
{
    const size_t n = from->cols;
    if (p->of != first_of(param)) {
        size_t floats;
        if (!rz_size_mul(n, n, &floats)) floats = SIZE_MAX;
        RZ_TRY(make_room(p, &p->r, &p->r_floats, floats, err));
        rz_rounding_factor(p->s, p->r, x, rows, n);
        p->of = first_of(param);
    }
    const rz_mark mark = rz_arena_mark(p->s);
    float *w = rz_arena_f32(p->s, from->rows, n);
    RZ_TRY(rz_stream_sync(p->s, err));
    RZ_TRY(rz_precision_convert(p->host, rz_device_pool(p->m->dev), from, 0, from->rows, RZ_F32, 0, w, NULL, err));
    rz_rounding_apply(p->s, w, p->r, from->rows, n, p->work->precision->group, codes, scale);
    rz_arena_release(p->s, mark);
    return rz_stream_sync(p->s, err);
}

static radz_status store(pass *p, size_t i, const rz_mat *w, size_t n_bytes, radz_error *err)
{
    static const uint8_t zeros[ALIGN];
    p->fit->at[i] = (size_t)rz_writer_bytes(p->w) + 1;
    RZ_TRY(rz_writer_put(p->w, w->scale, n_bytes, err));
    return rz_writer_put(p->w, zeros, (ALIGN - n_bytes % ALIGN) % ALIGN, err);
}

/* Memory of the scales, at the end of which the integers begin aligned. */
static size_t scale_bytes(const rz_mat *w, size_t rows)
{
    return (rows * rz_mat_groups(*w) * sizeof(uint16_t) + ALIGN - 1) / ALIGN * ALIGN;
}

/* Parameter i as integers, into p->now. */
static radz_status make_matrix(pass *p, size_t i, rz_dtype dtype, const float *x, size_t rows, rz_mat *w,
                               radz_error *err)
{
    const rz_param *param = &p->m->params[i];
    rz_matrix_source from = {.name = param->name, .rows = param->dims[0], .cols = param->dims[1]};
    from.tensor = rz_tensor_of(p->m, param);
    if (rz_model_merges(p->work->list, &p->work->list->params[i])) from.floats = param->w.data;
    *w = (rz_mat){.dtype = dtype, .ld = from.cols, .scale_dtype = RZ_BF16, .group = p->work->precision->group};
    const size_t before = scale_bytes(w, from.rows), all = before + rz_dtype_bytes(dtype, param->n);
    if (all > p->now_bytes) {
        uint8_t *more = rz_realloc(p->host, p->now, all, 1);
        if (!more) return RZ_NO_MEMORY(err, param->name);
        p->now = more, p->now_bytes = all;
    }
    memset(p->now, 0, before);
    w->scale = p->now, w->data = p->now + before;
    if (dtype == RZ_I4) {
        RZ_TRY(fit_matrix(p, param, &from, x, rows, p->now + before, (uint16_t *)(void *)p->now, err));
        return store(p, i, w, all, err);
    }
    return rz_precision_convert(p->host, rz_device_pool(p->m->dev), &from, 0, from.rows, dtype, w->group,
                                p->now + before, (uint16_t *)(void *)p->now, err);
}

/* What rz_net asks. */
static rz_mat matrix_of(void *user, const rz_linear *l, const float *x, size_t rows)
{
    pass *p = user;
    rz_mat w = l->w->w;
    rz_dtype dtype;
    radz_error err;
    if (!l->w->name) return w; /* made of others, in no file */
    const size_t i = (size_t)(l->w - p->m->params);
    if (!becomes(p->work, &p->work->list->params[i], &dtype)) return w;
    radz_status status = make_matrix(p, i, dtype, x, rows, &w, &err);
    if (!status) status = p->work->done_fn(p->work->user, rz_tensor_of(p->m, l->w)->n_bytes, &err);
    if (status) rz_stream_fail(p->s, status, "%s", err.message);
    return w;
}

/* ---- All of them ---------------------------------------------------------------------------------------- */

uint64_t rz_fit_bytes(const rz_fit_work *k)
{
    uint64_t n = 0;
    rz_dtype dtype;
    for (size_t i = 0; i < k->list->n_params; i++) {
        const rz_param *p = &k->list->params[i];
        if (p != k->list->lm_head && p != k->list->embed && becomes(k, p, &dtype))
            n += rz_tensor_of(k->list, p)->n_bytes;
    }
    return n;
}

/* The items of all inputs; prompts has room for one of all films, then of each text. */
static radz_status list_items(const pass *p, rz_prompt *prompts, rz_item *items, radz_error *err)
{
    const rz_fit_inputs *in = p->work->inputs;
    if (in->n_films) RZ_TRY(rz_prompt_image(p->host, p->m, prompts, err));
    for (size_t i = 0; i < in->n_films; i++)
        items[i] = (rz_item){
            .kind = RZ_ITEM_IMAGE, .pixels = in->films[i].input, .gray = in->films[i].gray, .prompt = prompts};
    items += in->n_films;
    for (size_t i = 0; i < in->n_texts; i++) {
        RZ_TRY(rz_prompt_text(p->host, p->m, in->texts[i], prompts + 1 + i, err));
        items[i] = (rz_item){.kind = RZ_ITEM_TEXT, .prompt = prompts + 1 + i};
    }
    return RADZ_OK;
}

/* Every decoder block runs on every row: what writes or looks into the last ones is rounded for them too. */
static radz_status send_inputs(pass *p, radz_error *err)
{
    const rz_fit_inputs *in = p->work->inputs;
    const rz_net net = {.model = p->m, .s = p->s, .matrix_fn = matrix_of, .matrix_user = p};
    const size_t n = in->n_films + in->n_texts;
    rz_prompt *prompts = rz_calloc(p->host, 1 + in->n_texts, sizeof *prompts);
    rz_item *items = rz_calloc(p->host, n, sizeof *items);
    radz_status status = prompts && items ? list_items(p, prompts, items, err) : RZ_NO_MEMORY(err, "films and texts");
    if (!status) {
        rz_encode_rows(&net, items, n, p->m->cfg.text.layers, NULL);
        status = rz_stream_sync(p->s, err);
    }
    for (size_t i = 0; prompts && i < 1 + in->n_texts; i++) rz_prompt_free(p->host, &prompts[i]);
    rz_free(p->host, prompts);
    rz_free(p->host, items);
    return status;
}

static radz_status open_result(pass *p, radz_error *err)
{
    radz_status status = rz_writer_commit(p->w, err);
    p->w = NULL;
    if (!status) status = rz_file_open(p->host, p->work->path, RZ_FILE_MAP, SIZE_MAX, &p->fit->file, err);
    const radz_status gone = rz_file_remove(p->host, p->work->path, status ? NULL : err);
    return status ? status : gone;
}

radz_status rz_fit_weights(const rz_host *host, rz_device *dev, const rz_fit_work *work, rz_fit **fit, radz_error *err)
{
    pass p = {.host = host, .work = work};
    p.fit = *fit = rz_calloc(host, 1, sizeof **fit);
    if (!p.fit) return RZ_NO_MEMORY(err, "matrices");
    *p.fit = (rz_fit){.host = host, .list = work->list, .group = work->precision->group};
    p.fit->at = rz_calloc(host, work->list->n_params + 1, sizeof *p.fit->at);
    radz_status status = p.fit->at ? RADZ_OK : RZ_NO_MEMORY(err, "matrices");
    if (!status) status = rz_model_load_from(host, dev, work->from, RZ_MODEL_INFER, 0, &p.m, err);
    if (!status) status = rz_stream_open(dev, &p.s, err);
    if (!status) status = rz_writer_open(host, work->path, &p.w, err);
    if (!status) status = send_inputs(&p, err);
    if (!status) status = open_result(&p, err);
    rz_writer_abort(p.w);
    if (p.r) rz_device_free(dev, p.r);
    rz_free(host, p.now);
    rz_stream_close(p.s);
    rz_model_unload(p.m);
    if (!status) return RADZ_OK;
    rz_fit_close(p.fit);
    *fit = NULL;
    return status;
}

rz_mat rz_fit_matrix(const rz_fit *fit, const rz_param *p)
{
    const size_t at = fit->at[p - fit->list->params];
    rz_mat w = {.dtype = RZ_I4, .ld = p->dims[1], .scale_dtype = RZ_BF16, .group = fit->group};
    if (!at) return (rz_mat){0};
    w.scale = fit->file.data + at - 1;
    w.data = fit->file.data + at - 1 + scale_bytes(&w, p->dims[0]);
    return w;
}

void rz_fit_forget(const rz_fit *fit, const void *data, size_t n)
{
    rz_file_forget(&fit->file, (size_t)((const uint8_t *)data - fit->file.data), n);
}

void rz_fit_close(rz_fit *fit)
{
    if (!fit) return;
    rz_file_close(&fit->file);
    rz_free(fit->host, fit->at);
    rz_free(fit->host, fit);
}
