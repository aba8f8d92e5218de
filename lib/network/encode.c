/* encode.c - the network in one call: films and texts in, unit vectors out, and back again.
 *
 * All prompts of a call lie one after another in one matrix of rows; each row is a token, a special token or a row of
 * an image. Index lists say which is which, so that there is no padding and no mask. Diseases that are read from the
 * embedding table alone (radz.anchors "embedding") have no rows there.
 * SPDX-License-Identifier: Apache-2.0 */
#include "encode.h"

#include <pthread.h>
#include <stdatomic.h>

#include "decoder.h"
#include "heads.h"
#include "pager.h"
#include "projector.h"
#include "reuse.h"
#include "tower.h"

/* Rows of one origin: where they lie in the matrix, and what they are there (ids, or rows of a table). */
typedef struct row_list {
    size_t n;
    int32_t *at, *what;         /* host */
    int32_t *at_dev, *what_dev; /* device */
} row_list;

/* Vectors of one kind of item and one feature. */
typedef struct vector_list {
    size_t n;
    int32_t *items, *items_dev; /* row of the result each belongs to */
    rz_groups groups;
    rz_head_acts head;
    const int32_t *ids; /* device: groups are of these rows of the embedding table; NULL: of rows of the decoder */
} vector_list;

enum { N_KINDS = 3, GLOBAL = 0, LOCAL = 1 };

struct rz_encoding {
    size_t n, n_images, n_rows;
    rz_ragged seq;
    row_list tokens, specials, image_rows;
    const uint64_t *row_keys; /* NULL: no dropout */
    rz_tower_acts *tower;
    rz_projector_acts projector;
    rz_decoder_acts *decoder;
    vector_list vectors[N_KINDS][2];
    bool wanted[2];
};

static const rz_head *head_of(const rz_model *m, int kind)
{
    return kind == RZ_ITEM_IMAGE ? &m->gamma_img : kind == RZ_ITEM_TEXT ? &m->gamma_txt : &m->gamma_dis;
}

/* Its vector is made of rows of the embedding table. */
static bool from_table(const rz_model *m, const rz_item *item)
{
    return item->kind == RZ_ITEM_DISEASE && m->cfg.radz.embedding_anchors;
}

static bool any_from_table(const rz_model *m, const rz_item *items, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++) any |= from_table(m, &items[i]);
    return any;
}

/* Rows of an item that run through the decoder. */
static size_t rows_of(const rz_model *m, const rz_item *item)
{
    return from_table(m, item) ? 0 : item->prompt->n;
}

/* ---- Laying out the rows --------------------------------------------------------- */

static bool count_rows(const rz_net *net, const rz_item *items, size_t n, rz_encoding *e)
{
    const rz_config *cfg = &net->model->cfg;
    size_t vocab = cfg->text.vocab, n_ids = vocab + cfg->radz.n_image_tokens + cfg->radz.n_text_tokens;
    for (size_t i = 0; i < n; i++) {
        size_t n_image = 0;
        for (size_t t = 0; t < items[i].prompt->n; t++) {
            int32_t id = items[i].prompt->ids[t];
            if (id == RZ_ID_IMAGE)
                n_image++;
            else if (id < 0 || (size_t)id >= n_ids) {
                rz_stream_fail(net->s, RADZ_E_INTERNAL, "item %zu: token id %d is outside 0..%zu", i, (int)id,
                               n_ids - 1);
                return false;
            } else if (!from_table(net->model, &items[i]))
                *((size_t)id < vocab ? &e->tokens.n : &e->specials.n) += 1;
            else if ((size_t)id >= vocab) {
                rz_stream_fail(net->s, RADZ_E_INTERNAL, "item %zu: a special token has no row in the table", i);
                return false;
            }
        }
        if (n_image != (items[i].pixels ? cfg->image_rows : 0)) {
            rz_stream_fail(net->s, RADZ_E_INTERNAL, "item %zu: %zu places for image rows, expected %zu", i, n_image,
                           items[i].pixels ? cfg->image_rows : 0);
            return false;
        }
        e->image_rows.n += n_image;
        e->n_images += items[i].pixels != NULL;
        e->n_rows += rows_of(net->model, &items[i]);
    }
    if (e->n_rows > INT32_MAX) {
        rz_stream_fail(net->s, RADZ_E_LIMIT, "one pass of %zu rows, at most %d fit", e->n_rows, (int)INT32_MAX);
        return false;
    }
    return true;
}

static void list_alloc(const rz_net *net, row_list *l)
{
    l->at = rz_arena_host(net->s, l->n, sizeof *l->at);
    l->what = rz_arena_host(net->s, l->n, sizeof *l->what);
    l->n = 0;
}

static void list_put(row_list *l, size_t at, size_t what)
{
    l->at[l->n] = (int32_t)at;
    l->what[l->n++] = (int32_t)what;
}

static void list_upload(const rz_net *net, row_list *l)
{
    l->at_dev = rz_arena_i32(net->s, l->at, l->n);
    l->what_dev = rz_arena_i32(net->s, l->what, l->n);
}

static void lay_out(const rz_net *net, const rz_item *items, size_t n, rz_encoding *e)
{
    size_t vocab = net->model->cfg.text.vocab, row = 0;
    int32_t *start = rz_arena_host(net->s, n + 1, sizeof *start);
    list_alloc(net, &e->tokens);
    list_alloc(net, &e->specials);
    list_alloc(net, &e->image_rows);
    if (rz_stream_failed(net->s)) return;
    for (size_t i = 0; i < n; i++) {
        start[i] = (int32_t)row;
        for (size_t t = 0; t < rows_of(net->model, &items[i]); t++, row++) {
            int32_t id = items[i].prompt->ids[t];
            if (id == RZ_ID_IMAGE)
                list_put(&e->image_rows, row, e->image_rows.n);
            else if ((size_t)id < vocab)
                list_put(&e->tokens, row, (size_t)id);
            else
                list_put(&e->specials, row, (size_t)id - vocab);
        }
    }
    start[n] = (int32_t)row;
    e->seq = (rz_ragged){n, start, rz_arena_i32(net->s, start, n + 1)};
    list_upload(net, &e->tokens);
    list_upload(net, &e->specials);
    list_upload(net, &e->image_rows);
}

/* A key for every row, of its item and its place there. */
static void key_rows(const rz_net *net, const rz_item *items, rz_encoding *e)
{
    uint64_t *keys = rz_arena_host(net->s, e->n_rows, sizeof *keys);
    void *dev = rz_arena_bytes(net->s, e->n_rows * sizeof *keys);
    if (!keys || !dev) return;
    for (size_t i = 0, row = 0; i < e->n; i++)
        for (size_t t = 0; t < rows_of(net->model, &items[i]); t++)
            keys[row++] = items[i].key * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)t;
    rz_upload(net->s, dev, keys, e->n_rows * sizeof *keys);
    e->row_keys = dev;
}

static bool is_picked(const rz_model *m, const rz_item *item, rz_rows rows, size_t t)
{
    const rz_prompt *p = item->prompt;
    if (rows == RZ_ROWS_ALL || rows == RZ_ROWS_LAST) return rows == RZ_ROWS_ALL || t + 1 == p->n;
    return rz_prompt_is_global(m, p, item->kind == RZ_ITEM_IMAGE, t) == (rows == RZ_ROWS_SPECIAL);
}

/* The diseases' groups: every token of each. */
static void group_table(const rz_net *net, const rz_item *items, const rz_encoding *e, vector_list *v)
{
    size_t n_ids = 0;
    for (size_t i = 0; i < e->n; i++) n_ids += from_table(net->model, &items[i]) ? items[i].prompt->n : 0;
    int32_t *ids = rz_arena_host(net->s, n_ids, sizeof *ids), *rows = rz_arena_host(net->s, n_ids, sizeof *rows);
    int32_t *start = rz_arena_host(net->s, e->n + 1, sizeof *start);
    v->items = rz_arena_host(net->s, e->n, sizeof *v->items);
    if (rz_stream_failed(net->s)) return;
    for (size_t i = 0, k = 0; i < e->n; i++) {
        if (!from_table(net->model, &items[i])) continue;
        memcpy(ids + k, items[i].prompt->ids, items[i].prompt->n * sizeof *ids);
        k += items[i].prompt->n;
        v->items[v->n++] = (int32_t)i;
        start[v->n] = (int32_t)k;
    }
    for (size_t k = 0; k < n_ids; k++) rows[k] = (int32_t)k;
    v->groups = (rz_groups){v->n, n_ids, rz_arena_i32(net->s, rows, n_ids), rz_arena_i32(net->s, start, v->n + 1)};
    v->items_dev = rz_arena_i32(net->s, v->items, v->n);
    v->ids = rz_arena_i32(net->s, ids, n_ids);
}

/* Groups of rows: per item of `kind` the rows that were asked for. */
static void group_rows(const rz_net *net, const rz_item *items, rz_encoding *e, int kind, rz_rows which, vector_list *v)
{
    size_t n_rows = 0;
    if (kind == RZ_ITEM_DISEASE && any_from_table(net->model, items, e->n)) {
        group_table(net, items, e, v);
        return;
    }
    int32_t *rows = rz_arena_host(net->s, e->n_rows, sizeof *rows);
    int32_t *start = rz_arena_host(net->s, e->n + 1, sizeof *start);
    v->items = rz_arena_host(net->s, e->n, sizeof *v->items);
    if (rz_stream_failed(net->s)) return;
    for (size_t i = 0; i < e->n; i++) {
        if ((int)items[i].kind != kind) continue;
        for (size_t t = 0; t < items[i].prompt->n; t++)
            if (is_picked(net->model, &items[i], which, t)) rows[n_rows++] = e->seq.start[i] + (int32_t)t;
        v->items[v->n++] = (int32_t)i;
        start[v->n] = (int32_t)n_rows;
    }
    if (!v->n) return;
    v->groups = (rz_groups){v->n, n_rows, rz_arena_i32(net->s, rows, n_rows), rz_arena_i32(net->s, start, v->n + 1)};
    v->items_dev = rz_arena_i32(net->s, v->items, v->n);
}

/* ---- Images ------------------------------------------------------------------------ */

/* Floats of an item's pixels; 0: it has none. */
static size_t floats_of(const rz_net *net, const rz_item *item)
{
    const rz_vision_config *v = &net->model->cfg.vision;
    const size_t plane = v->image_size * v->image_size;
    return !item->pixels ? 0 : item->gray ? plane : v->channels * plane;
}

/* The films one after another: where they are, on a device that reads there, or a copy. */
static const float *upload_pixels(const rz_net *net, const rz_item *items, size_t n)
{
    size_t all = 0;
    for (size_t i = 0; i < n; i++) all += floats_of(net, &items[i]);
    float *pixels = NULL;
    for (size_t i = 0, at = 0; i < n && at < all;) {
        size_t run = i, floats = 0; /* films that lie one after another go at once */
        do floats += floats_of(net, &items[run++]);
        while (run < n && floats && items[run].pixels == items[i].pixels + floats);
        if (floats == all && rz_device_is_host(net->model->dev)) return items[i].pixels;
        if (!pixels && !(pixels = rz_arena_f32(net->s, 1, all))) return NULL;
        rz_upload(net->s, pixels + at, items[i].pixels, floats * sizeof *pixels);
        at += floats, i = run;
    }
    return pixels;
}

/* NULL: none is. */
static const bool *gray_films(const rz_net *net, const rz_item *items, size_t n, size_t n_images)
{
    bool any = false, *gray = rz_arena_host(net->s, n_images, sizeof *gray);
    for (size_t i = 0, k = 0; i < n && gray; i++)
        if (items[i].pixels) any |= gray[k++] = items[i].gray;
    return any ? gray : NULL;
}

/* NULL: no film takes a shorter path. */
static const uint64_t *film_keys(const rz_net *net, const rz_item *items, size_t n, size_t n_images)
{
    if (!net->drop_path || !net->dropout_seed || !net->model->setup.tower) return NULL;
    uint64_t *keys = rz_arena_host(net->s, n_images, sizeof *keys);
    for (size_t i = 0, k = 0; i < n && keys; i++)
        if (items[i].pixels) keys[k++] = items[i].key;
    return keys;
}

static float *image_forward(const rz_net *net, const rz_item *items, size_t n, rz_encoding *e)
{
    rz_net frozen = *net;
    frozen.keep = net->keep && net->model->setup.tower; /* no gradient goes into a tower that stays as it is */
    frozen.film_keys = film_keys(net, items, n, e->n_images);
    frozen.gray_films = gray_films(net, items, n, e->n_images);
    const float *pixels = upload_pixels(net, items, n);
    float *x = rz_tower_features(&frozen, pixels, e->n_images, &e->tower);
    return rz_projector_forward(net, x, e->n_images * net->model->cfg.image_rows, &e->projector);
}

static void image_backward(const rz_net *net, const rz_encoding *e, const float *drows)
{
    const rz_train_setup *t = &net->model->setup;
    if (!t->tower && !t->projector) return;
    float *dfeatures = rz_projector_backward(net, &e->projector, drows);
    if (t->tower) rz_tower_backward(net, e->tower, dfeatures);
}

/* ---- Input rows of the decoder ------------------------------------------------------- */

/* y (n, text.hidden): rows of the embedding table. Of a table in a file, those alone are read. */
static void gather_tokens(const rz_net *net, float *y, const int32_t *ids, size_t n)
{
    const rz_param *p = net->model->embed;
    rz_mat table = p->w;
    if (net->pager && n && rz_paging_has(net->model->paging, p) && !rz_stream_failed(net->s)) {
        int32_t *order = rz_arena_host(net->s, n, sizeof *order);
        table = rz_pager_pick(net->pager, net->s, p, ids, n);
        for (size_t i = 0; order && i < n; i++) order[i] = (int32_t)i;
        ids = rz_arena_i32(net->s, order, n);
    }
    rz_gather(net->s, y, table, ids, n, net->model->cfg.text.hidden);
}

static float *splice_forward(const rz_net *net, const rz_encoding *e, const float *image_rows)
{
    const rz_model *m = net->model;
    size_t c = m->cfg.text.hidden;
    float *x = rz_arena_f32(net->s, e->n_rows, c), *tokens = rz_arena_f32(net->s, e->tokens.n, c);
    gather_tokens(net, tokens, e->tokens.what_dev, e->tokens.n);
    rz_copy_rows(net->s, x, c, e->tokens.at_dev, tokens, c, NULL, e->tokens.n, c);
    if (e->specials.n)
        rz_copy_rows(net->s, x, c, e->specials.at_dev, m->special->w.data, c, e->specials.what_dev, e->specials.n, c);
    if (image_rows) rz_copy_rows(net->s, x, c, e->image_rows.at_dev, image_rows, c, NULL, e->image_rows.n, c);
    return x;
}

/* Returns the gradient of the image rows. */
static float *splice_backward(const rz_net *net, const rz_encoding *e, const float *dx)
{
    const rz_model *m = net->model;
    size_t c = m->cfg.text.hidden;
    if (m->embed->grad) {
        float *dtokens = rz_arena_f32(net->s, e->tokens.n, c);
        rz_copy_rows(net->s, dtokens, c, NULL, dx, c, e->tokens.at_dev, e->tokens.n, c);
        rz_gather_bwd(net->s, m->embed->grad, e->tokens.what_dev, dtokens, e->tokens.n, c);
    }
    if (e->specials.n && m->special->grad)
        rz_add_rows(net->s, m->special->grad, c, e->specials.what_dev, dx, c, e->specials.at_dev, e->specials.n, c);
    if (!e->n_images) return NULL;
    float *dimage = rz_arena_f32(net->s, e->image_rows.n, c);
    rz_copy_rows(net->s, dimage, c, NULL, dx, c, e->image_rows.at_dev, e->image_rows.n, c);
    return dimage;
}

/* ---- Vectors ---------------------------------------------------------------------------- */

/* Rows that the groups of v are of: h, or those of the embedding table. */
static const float *source_rows(const rz_net *net, const vector_list *v, const float *h)
{
    const rz_model *m = net->model;
    if (!v->ids) return h;
    float *rows = rz_arena_f32(net->s, v->groups.n_rows, m->cfg.text.hidden);
    gather_tokens(net, rows, v->ids, v->groups.n_rows);
    return rows;
}

static void source_backward(const rz_net *net, const vector_list *v, float *dh, const float *dunit)
{
    const rz_model *m = net->model;
    float *drows = v->ids ? rz_arena_zeros(net->s, v->groups.n_rows, m->cfg.text.hidden) : dh;
    rz_head_backward(net, &v->head, drows, dunit);
    if (v->ids && m->embed->grad)
        rz_gather_bwd(net->s, m->embed->grad, v->ids, drows, v->groups.n_rows, m->cfg.text.hidden);
}

static void vectors_forward(const rz_net *net, rz_encoding *e, const float *h, int feature, float *out)
{
    size_t dim = net->model->cfg.radz.dim;
    for (int kind = 0; kind < N_KINDS; kind++) {
        vector_list *v = &e->vectors[kind][feature];
        if (!v->n) continue;
        const float *rows = source_rows(net, v, h);
        float *unit = rz_head_forward(net, head_of(net->model, kind), rows, v->groups, &v->head);
        rz_copy_rows(net->s, out, dim, v->items_dev, unit, dim, NULL, v->n, dim);
    }
}

static void vectors_backward(const rz_net *net, const rz_encoding *e, float *dh, int feature, const float *dout)
{
    size_t dim = net->model->cfg.radz.dim;
    for (int kind = 0; kind < N_KINDS; kind++) {
        const vector_list *v = &e->vectors[kind][feature];
        if (!v->n) continue;
        float *dunit = rz_arena_f32(net->s, v->n, dim);
        rz_copy_rows(net->s, dunit, dim, NULL, dout, dim, v->items_dev, v->n, dim);
        source_backward(net, v, dh, dunit);
    }
}

/* Lays out the rows of all items. */
static bool begin(const rz_net *net, const rz_item *items, size_t n, rz_encoding *e)
{
    e->n = n;
    if (!count_rows(net, items, n, e)) return false;
    lay_out(net, items, n, e);
    if (net->dropout_seed && !rz_stream_failed(net->s)) key_rows(net, items, e);
    return !rz_stream_failed(net->s);
}

static float *input_rows(const rz_net *net, const rz_item *items, size_t n, rz_encoding *e)
{
    float *image_rows = e->n_images ? image_forward(net, items, n, e) : NULL;
    return splice_forward(net, e, image_rows);
}

float *rz_encode_inputs(const rz_net *net, const rz_item *items, size_t n, rz_ragged *seq)
{
    rz_net pass = *net;
    pass.keep = false;
    rz_encoding *e = rz_arena_host(net->s, 1, sizeof *e);
    if (!e || !begin(&pass, items, n, e)) return NULL;
    *seq = e->seq;
    return input_rows(&pass, items, n, e);
}

/* ---- What need not run --------------------------------------------------------------------- */

/* Rows from the first one that is wanted on; at least one. */
static size_t rows_wanted(const rz_net *net, const rz_item *item, rz_rows which)
{
    const rz_prompt *p = item->prompt;
    for (size_t t = 0; t < p->n; t++)
        if (is_picked(net->model, item, which, t)) return p->n - t;
    return p->n ? 1 : 0;
}

/* *items become what is left of them. False: nothing can be said, for want of memory. */
static bool leave_out(const rz_net *net, const rz_item **items, size_t n, size_t n_blocks, const int32_t *wanted,
                      rz_shortcut *cut)
{
    rz_reuse_prompt *prompts = rz_arena_host(net->s, n, sizeof *prompts);
    rz_item *rest = rz_arena_host(net->s, n, sizeof *rest);
    rz_prompt *tails = rz_arena_host(net->s, n, sizeof *tails);
    if (!prompts || !rest || !tails) return false;
    for (size_t i = 0; i < n; i++)
        prompts[i] =
            (rz_reuse_prompt){(*items)[i].prompt, (*items)[i].pixels, floats_of(net, &(*items)[i]), (size_t)wanted[i]};
    const rz_reuse_plan plan = rz_reuse_begin(net->reuse, prompts, n, n_blocks);
    cut->before = plan.before, cut->n_before = plan.n_before;
    cut->store = plan.store, cut->n_store = plan.n_store;
    for (size_t i = 0; i < n; i++) {
        const rz_prompt *p = (*items)[i].prompt;
        size_t n_image = 0;
        tails[i] = (rz_prompt){p->ids + plan.n_before, p->n - plan.n_before};
        for (size_t t = 0; t < tails[i].n; t++) n_image += tails[i].ids[t] == RZ_ID_IMAGE;
        rest[i] = (*items)[i];
        rest[i].prompt = &tails[i];
        if (!n_image) rest[i].pixels = NULL;
    }
    *items = rest;
    return true;
}

/* What a pass for rows `which` may leave out; *items change to what is left. */
static rz_shortcut shorten(const rz_net *net, const rz_item **items, size_t n, size_t n_blocks, rz_rows which)
{
    rz_shortcut cut = {0};
    size_t rows = 0, wanted = 0;
    int32_t *last = rz_arena_host(net->s, n, sizeof *last);
    if (!last || any_from_table(net->model, *items, n)) return cut;
    for (size_t i = 0; i < n; i++) {
        last[i] = (int32_t)rows_wanted(net, &(*items)[i], which);
        wanted += (size_t)last[i], rows += (*items)[i].prompt->n;
    }
    if (n_blocks && wanted < rows) cut.last = last;
    if (net->reuse) leave_out(net, items, n, n_blocks, last, &cut);
    return cut;
}

/* All rows after n_blocks of the decoder. */
static float *hidden_states(const rz_net *net, const rz_item *items, size_t n, rz_encoding *e, size_t n_blocks)
{
    if (!e->n_rows) return NULL; /* nothing but diseases from the table */
    float *x = input_rows(net, items, n, e);
    rz_net pass = *net;
    pass.row_keys = e->row_keys;
    return rz_decoder_forward(&pass, x, e->seq, n_blocks, &e->decoder);
}

/* The same where only rows `which` are wanted: the others need not be right. */
static float *shortened_states(const rz_net *net, const rz_item *items, size_t n, rz_encoding *e, size_t n_blocks,
                               const rz_shortcut *cut)
{
    if (!e->n_rows) return NULL;
    float *x = input_rows(net, items, n, e);
    return x ? rz_decoder_shortcut(net, x, e->seq, n_blocks, cut) : NULL;
}

void rz_encode(const rz_net *net, const rz_item *items, size_t n, float **global, float **local, rz_encoding **acts)
{
    const rz_config *cfg = &net->model->cfg;
    const size_t n_blocks = rz_config_decoder_blocks(cfg);
    rz_shortcut cut = {0};
    float **out[2] = {global, local};
    rz_encoding *e = rz_arena_host(net->s, 1, sizeof *e);
    if (acts) *acts = e;
    for (int f = 0; f < 2; f++)
        if (out[f]) *out[f] = rz_arena_f32(net->s, n, cfg->radz.dim);
    if (rz_stream_failed(net->s) || !n) return;
    rz_mark m = rz_arena_mark(net->s);
    if (!net->keep && !local) cut = shorten(net, &items, n, n_blocks, RZ_ROWS_SPECIAL);
    if (!begin(net, items, n, e)) return;
    for (int f = 0; f < 2; f++) {
        e->wanted[f] = out[f] != NULL;
        for (int kind = 0; kind < N_KINDS && out[f] && !rz_stream_failed(net->s); kind++)
            group_rows(net, items, e, kind, f == GLOBAL ? RZ_ROWS_SPECIAL : RZ_ROWS_OTHER, &e->vectors[kind][f]);
    }
    if (rz_stream_failed(net->s)) return;

    float *h;
    if (!net->keep && !local)
        h = shortened_states(net, items, n, e, n_blocks, &cut);
    else
        h = hidden_states(net, items, n, e, n_blocks);
    for (int f = 0; f < 2; f++)
        if (out[f]) vectors_forward(net, e, h, f, *out[f]);
    if (!net->keep && net->reuse) rz_reuse_end(net->reuse, !rz_stream_failed(net->s));
    if (!net->keep) rz_arena_release(net->s, m);
}

/* Mean rows on the unit sphere, without gamma. */
static float *raw_forward(const rz_net *net, const float *h, rz_groups g)
{
    size_t c = net->model->cfg.text.hidden;
    float *mean = rz_arena_f32(net->s, g.n, c), *unit = rz_arena_f32(net->s, g.n, c);
    rz_pool_mean(net->s, mean, h, g.rows, g.start, g.n, c);
    rz_l2norm(net->s, unit, rz_arena_f32(net->s, g.n, 1), mean, g.n, c);
    return unit;
}

/* One vector per item, of its rows in h. */
static void pick_vectors(const rz_net *net, const rz_item *items, rz_encoding *e, const rz_pick *pick, const float *h,
                         float *out)
{
    const size_t dim = pick->raw ? net->model->cfg.text.hidden : net->model->cfg.radz.dim;
    for (int kind = 0; kind < N_KINDS && !rz_stream_failed(net->s); kind++) {
        vector_list *v = &e->vectors[kind][GLOBAL];
        group_rows(net, items, e, kind, pick->rows, v);
        if (!v->n || rz_stream_failed(net->s)) continue;
        const float *rows = source_rows(net, v, h);
        float *unit = pick->raw ? raw_forward(net, rows, v->groups)
                                : rz_head_forward(net, head_of(net->model, kind), rows, v->groups, &v->head);
        rz_copy_rows(net->s, out, dim, v->items_dev, unit, dim, NULL, v->n, dim);
    }
}

/* Vectors of items that are what `shorten` left of them. */
static void encode_some(const rz_net *net, const rz_item *items, size_t n, const rz_pick *pick, const rz_shortcut *cut,
                        float *out)
{
    rz_encoding *e = rz_arena_host(net->s, 1, sizeof *e);
    float *stats;
    if (!e || !begin(net, items, n, e)) return;
    float *h = shortened_states(net, items, n, e, pick->n_blocks, cut);
    if (pick->n_blocks == net->model->cfg.text.layers && h)
        h = rz_norm_forward(net, &net->model->decoder_norm, net->model->cfg.text.eps, h, e->n_rows, &stats);
    pick_vectors(net, items, e, pick, h, out);
}

/* ---- Side by side ---------------------------------------------------------------------------
 * A small model's films go through the whole network on a thread each, a few at a time: no thread waits for another
 * between layers, and what a layer leaves is still in its cache for the next. */

enum { TOGETHER = 4 }; /* items at a time: their rows fill the tiles of the products */

typedef struct side_by_side {
    const rz_net *net;
    const rz_item *items;
    size_t n, n_groups, dim;
    const rz_pick *pick;
    const rz_shortcut *cut;
    float *out;
    pthread_t caller;
    atomic_size_t next; /* group */
    atomic_bool cancelled;
} side_by_side;

/* The caller's hook is called on the caller's thread alone. */
static int is_cancelled(void *user)
{
    side_by_side *j = user;
    if (pthread_equal(pthread_self(), j->caller) && j->net->cancel_fn(j->net->user)) atomic_store(&j->cancelled, true);
    return atomic_load(&j->cancelled);
}

static rz_shortcut cut_from(const rz_shortcut *cut, size_t first)
{
    rz_shortcut part = *cut;
    if (part.last) part.last += first;
    if (first) part.store = NULL; /* it keeps rows of the first item */
    return part;
}

static void encode_group(const side_by_side *j, const rz_net *net, size_t g)
{
    const size_t first = j->n * g / j->n_groups, end = j->n * (g + 1) / j->n_groups;
    const rz_shortcut cut = cut_from(j->cut, first);
    rz_mark m = rz_arena_mark(net->s);
    encode_some(net, j->items + first, end - first, j->pick, &cut, j->out + first * j->dim);
    rz_arena_release(net->s, m);
}

static void encode_groups(void *arg, size_t i)
{
    side_by_side *j = arg;
    rz_net net = *j->net;
    net.s = rz_stream_beside(j->net->s, i); /* there since before */
    if (net.cancel_fn) net.cancel_fn = is_cancelled, net.user = j;
    for (size_t g; (g = atomic_fetch_add(&j->next, 1)) < j->n_groups;) {
        encode_group(j, &net, g);
        if (rz_stream_failed(net.s)) atomic_store(&j->next, j->n_groups); /* the others need not go on */
    }
}

/* How many of n items: as many as leave no thread without. */
static size_t items_beside(const rz_net *net, size_t n)
{
    const size_t threads = (size_t)rz_pool_threads(rz_device_pool(net->model->dev));
    const bool small = net->model->packed && !net->pager;
    return small && threads > 1 && !rz_pool_inside() ? n / threads * threads : 0;
}

static void encode_beside(const rz_net *net, const rz_item *items, size_t n, const rz_pick *pick,
                          const rz_shortcut *cut, size_t dim, float *out)
{
    rz_pool *pool = rz_device_pool(net->model->dev);
    const size_t threads = (size_t)rz_pool_threads(pool), each = n / threads;
    side_by_side j = {.net = net, .items = items, .n = n, .dim = dim, .pick = pick, .cut = cut, .out = out};
    j.n_groups = threads * ((each + TOGETHER - 1) / TOGETHER);
    j.caller = pthread_self();
    radz_error err;
    if (!rz_stream_beside(net->s, threads - 1)) return;
    rz_pool_run(pool, threads, encode_groups, &j);
    for (size_t i = 0; i < threads; i++)
        if (rz_stream_sync(rz_stream_beside(net->s, i), &err)) rz_stream_fail(net->s, err.code, "%s", err.message);
}

float *rz_encode_pick(const rz_net *net, const rz_item *items, size_t n, const rz_pick *pick)
{
    const size_t dim = pick->raw ? net->model->cfg.text.hidden : net->model->cfg.radz.dim;
    float *out = rz_arena_f32(net->s, n, dim);
    if (rz_stream_failed(net->s) || !n) return out;
    rz_mark m = rz_arena_mark(net->s);
    const rz_shortcut cut = shorten(net, &items, n, pick->n_blocks, pick->rows);
    const size_t beside = items_beside(net, n);
    if (beside && !rz_stream_failed(net->s)) encode_beside(net, items, beside, pick, &cut, dim, out);
    if (beside < n) {
        const rz_shortcut rest = cut_from(&cut, beside);
        encode_some(net, items + beside, n - beside, pick, &rest, out + beside * dim);
    }
    if (net->reuse) rz_reuse_end(net->reuse, !rz_stream_failed(net->s));
    rz_arena_release(net->s, m);
    return out;
}

float *rz_encode_rows(const rz_net *net, const rz_item *items, size_t n, size_t n_blocks, rz_encoding **acts)
{
    rz_encoding *e = rz_arena_host(net->s, 1, sizeof *e);
    if (acts) *acts = e;
    if (rz_stream_failed(net->s) || !n || !begin(net, items, n, e)) return NULL;
    return hidden_states(net, items, n, e, n_blocks);
}

float *rz_encode_look(const rz_net *net, const rz_item *items, size_t n, size_t n_blocks, rz_encode_view *view)
{
    rz_encoding *e = rz_arena_host(net->s, 1, sizeof *e);
    rz_decoder_acts *acts = NULL;
    rz_net pass = *net;
    *view = (rz_encode_view){0};
    if (rz_stream_failed(net->s) || !begin(net, items, n, e)) return NULL;
    pass.keep = false;
    float *image_rows = e->n_images ? image_forward(&pass, items, n, e) : NULL;
    view->input = splice_forward(&pass, e, image_rows);
    pass.keep = true;
    float *h = rz_decoder_forward(&pass, view->input, e->seq, n_blocks, &acts);
    view->decoder = acts;
    return h;
}

void rz_encode_rows_backward(const rz_net *net, const rz_encoding *e, float *dh)
{
    if (rz_stream_failed(net->s) || !e->n_rows) return;
    rz_decoder_backward(net, e->decoder, dh);
    float *dimage = splice_backward(net, e, dh);
    if (dimage) image_backward(net, e, dimage);
}

void rz_encode_backward(const rz_net *net, rz_encoding *e, const float *dglobal, const float *dlocal)
{
    if (rz_stream_failed(net->s) || !e->n) return;
    const float *dout[2] = {dglobal, dlocal};
    rz_mark m = rz_arena_mark(net->s);
    float *dh = rz_arena_zeros(net->s, e->n_rows, net->model->cfg.text.hidden);
    for (int f = 0; f < 2; f++)
        if (dout[f] && e->wanted[f]) vectors_backward(net, e, dh, f, dout[f]);
    rz_encode_rows_backward(net, e, dh);
    rz_arena_release(net->s, m);
}
