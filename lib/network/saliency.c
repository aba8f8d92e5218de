/* saliency.c - which patches of a film speak for a class: similarity, attention, gradient.
 * SPDX-License-Identifier: Apache-2.0 */
#include "saliency.h"

#include "heads.h"

/* One film's pass through the decoder. */
typedef struct look {
    const rz_net *net;
    const rz_saliency *heat;
    const rz_prompt *prompt;
    size_t n_rows, n_patches;
    int32_t *patches; /* (n_patches) rows of the patches */
    int32_t *readers; /* (n_readers) rows that make the film's vector */
    size_t n_readers;
    rz_encode_view view;
    float *h, *normed, *stats; /* normed: after the final norm where all blocks ran, else h */
} look;

size_t rz_patch_side(const rz_config *cfg)
{
    return cfg->has_vision ? cfg->vision.image_size / cfg->vision.patch : 0;
}

/* A class row, where the config keeps it, comes before the patches. */
static bool find_rows(look *l)
{
    const rz_config *cfg = &l->net->model->cfg;
    const size_t n = l->n_rows, side = rz_patch_side(cfg);
    size_t n_image = 0, n_class = cfg->image_rows - side * side;
    l->patches = rz_arena_host(l->net->s, side * side, sizeof *l->patches);
    l->readers = rz_arena_host(l->net->s, n, sizeof *l->readers);
    if (!l->patches || !l->readers) return false;
    for (size_t t = 0; t < n; t++) {
        const int32_t id = l->prompt->ids[t];
        if (id == RZ_ID_IMAGE && n_image++ >= n_class && l->n_patches < side * side)
            l->patches[l->n_patches++] = (int32_t)t;
        if (l->heat->rows == RZ_ROWS_SPECIAL ? rz_prompt_is_global(l->net->model, l->prompt, true, t) : t + 1 == n)
            l->readers[l->n_readers++] = (int32_t)t;
    }
    if (l->n_patches == side * side && l->n_readers) return true;
    rz_stream_fail(l->net->s, RADZ_E_INTERNAL, "heat map: %zu rows of patches and %zu that read them, expected %zu",
                   l->n_patches, l->n_readers, side * side);
    return false;
}

static void final_norm(look *l)
{
    const rz_model *m = l->net->model;
    l->normed = l->h;
    if (l->heat->n_blocks == m->cfg.text.layers)
        l->normed = rz_norm_forward(l->net, &m->decoder_norm, m->cfg.text.eps, l->h, l->n_rows, &l->stats);
}

/* ---- Similarity ---- */

/* Every patch a group of its own. */
static rz_groups single_rows(const look *l)
{
    const size_t n = l->n_patches;
    int32_t *start = rz_arena_host(l->net->s, n + 1, sizeof *start);
    for (size_t i = 0; start && i <= n; i++) start[i] = (int32_t)i;
    if (rz_stream_failed(l->net->s)) return (rz_groups){0};
    return (rz_groups){n, n, rz_arena_i32(l->net->s, l->patches, n), rz_arena_i32(l->net->s, start, n + 1)};
}

static void similarity(look *l, float *map)
{
    const size_t dim = l->net->model->cfg.radz.dim;
    rz_head_acts acts;
    final_norm(l);
    rz_groups g = single_rows(l);
    float *host = rz_arena_host(l->net->s, l->n_patches * dim, sizeof *host);
    if (rz_stream_failed(l->net->s)) return;
    const float *unit = rz_head_forward(l->net, &l->net->model->gamma_img, l->normed, g, &acts);
    if (rz_stream_failed(l->net->s)) return;
    rz_download(l->net->s, host, unit, l->n_patches * dim * sizeof *host);
    for (size_t p = 0; p < l->n_patches; p++) {
        double sum = 0;
        for (size_t i = 0; i < dim; i++) sum += (double)host[p * dim + i] * l->heat->direction[i];
        map[p] = (float)sum;
    }
}

/* ---- Attention ---- */

/* Probabilities of one block, heads averaged: the kernels keep none, but scores and log-sum-exp give them back. */
typedef struct attention {
    size_t n, n_heads, window;
    float *scores, *lse; /* (n, n) of one head, (n, n_heads); host */
    double *mean;        /* (n, n) */
    size_t head;
} attention;

static void add_row(void *arg, size_t i)
{
    attention *a = arg;
    const size_t first = a->window && i + 1 > a->window ? i + 1 - a->window : 0;
    const float *scores = a->scores + i * a->n;
    double *mean = a->mean + i * a->n, lse = a->lse[i * a->n_heads + a->head];
    for (size_t j = first; j <= i; j++) mean[j] += exp((double)scores[j] - lse) / (double)a->n_heads;
}

static void block_attention(const look *l, size_t block, attention *a)
{
    const rz_net *net = l->net;
    const rz_block_attention b = rz_decoder_attention(net, l->view.decoder, block);
    const size_t n = a->n, group = b.at.n_heads / b.at.n_kv_heads, d = b.at.head_dim;
    rz_mark m = rz_arena_mark(net->s);
    float *scores = rz_arena_f32(net->s, n, n);
    if (rz_stream_failed(net->s)) return;
    a->window = b.at.window;
    memset(a->mean, 0, n * n * sizeof *a->mean);
    rz_download(net->s, a->lse, b.lse, n * a->n_heads * sizeof *a->lse);
    for (a->head = 0; a->head < a->n_heads; a->head++) {
        rz_gemm(net->s, false, true, n, n, d, b.at.scale, rz_mat_f32(b.q + a->head * d, b.at.q_ld),
                rz_mat_f32(b.k + a->head / group * d, b.at.kv_ld), 0.0f, scores, n);
        if (rz_stream_failed(net->s)) return;
        rz_download(net->s, a->scores, scores, n * n * sizeof *scores);
        rz_pool_run(rz_device_pool(rz_stream_device(net->s)), n, add_row, a);
    }
    rz_arena_release(net->s, m);
    rz_net_poll(net);
}

/* r = r (A + I) / 2 for one row of the rollout, from the last block down: cheaper than whole matrices. */
static void roll(const attention *a, const double *r, double *out)
{
    for (size_t j = 0; j < a->n; j++) out[j] = r[j] / 2;
    for (size_t i = 0; i < a->n; i++) {
        if (r[i] == 0) continue;
        for (size_t j = 0; j <= i; j++) out[j] += r[i] * a->mean[i * a->n + j] / 2;
    }
}

static void attention_map(look *l, float *map)
{
    const rz_saliency *heat = l->heat;
    const size_t n = l->n_rows, n_heads = l->net->model->cfg.text.heads;
    rz_stream *s = l->net->s;
    attention a = {.n = n, .n_heads = n_heads};
    a.scores = rz_arena_host(s, n * n, sizeof *a.scores);
    a.lse = rz_arena_host(s, n * n_heads, sizeof *a.lse);
    a.mean = rz_arena_host(s, n * n, sizeof *a.mean);
    double *r = rz_arena_host(s, n, sizeof *r), *other = rz_arena_host(s, n, sizeof *r), *swap; /* the readers' row */
    if (rz_stream_failed(s)) return;
    for (size_t i = 0; i < l->n_readers && !heat->mean; i++) r[l->readers[i]] = 1.0 / (double)l->n_readers;
    for (size_t b = heat->n_blocks; b-- > heat->first_block;) {
        block_attention(l, b, &a);
        if (rz_stream_failed(s)) return;
        if (heat->mean) {
            const double share = 1.0 / (double)(l->n_readers * (heat->n_blocks - heat->first_block));
            for (size_t i = 0; i < l->n_readers; i++)
                for (size_t j = 0; j < n; j++) r[j] += share * a.mean[(size_t)l->readers[i] * n + j];
        } else {
            roll(&a, r, other);
            swap = r, r = other, other = swap;
        }
    }
    for (size_t p = 0; p < l->n_patches; p++) map[p] = (float)r[l->patches[p]];
}

/* ---- Gradient ---- */

/* Gradient of the score at the decoder's input rows. */
static float *input_gradient(look *l)
{
    const rz_net *net = l->net;
    const rz_config *cfg = &net->model->cfg;
    const int32_t start[2] = {0, (int32_t)l->n_readers};
    rz_head_acts acts;
    float *dh = rz_arena_zeros(net->s, l->n_rows, cfg->text.hidden), *dnormed = dh;
    float *direction = rz_arena_f32(net->s, 1, cfg->radz.dim);
    rz_groups g = {1, l->n_readers, rz_arena_i32(net->s, l->readers, l->n_readers), rz_arena_i32(net->s, start, 2)};
    final_norm(l);
    if (l->stats) dnormed = rz_arena_zeros(net->s, l->n_rows, cfg->text.hidden);
    if (rz_stream_failed(net->s)) return NULL;
    rz_upload(net->s, direction, l->heat->direction, cfg->radz.dim * sizeof *direction);
    rz_head_forward(net, &net->model->gamma_img, l->normed, g, &acts);
    rz_head_backward(net, &acts, dnormed, direction);
    if (l->stats) rz_norm_backward(net, &net->model->decoder_norm, dh, dnormed, l->h, l->stats, l->n_rows);
    rz_decoder_backward(net, l->view.decoder, dh);
    return dh;
}

static void gradient(look *l, float *map)
{
    const size_t c = l->net->model->cfg.text.hidden, n = l->n_rows * c;
    float *dx = input_gradient(l);
    float *host_x = rz_arena_host(l->net->s, n, sizeof *host_x),
          *host_dx = rz_arena_host(l->net->s, n, sizeof *host_dx);
    if (rz_stream_failed(l->net->s)) return;
    rz_download(l->net->s, host_x, l->view.input, n * sizeof *host_x);
    rz_download(l->net->s, host_dx, dx, n * sizeof *host_dx);
    for (size_t p = 0; p < l->n_patches; p++) {
        const size_t at = (size_t)l->patches[p] * c;
        double sum = 0;
        for (size_t i = 0; i < c; i++) sum += (double)host_x[at + i] * host_dx[at + i];
        map[p] = (float)sum;
    }
}

void rz_saliency_map(const rz_net *net, const rz_item *film, const rz_saliency *heat, float *map)
{
    rz_net pass = *net; /* gradients stop at activations: no parameter of an opened model has one */
    pass.dropout_seed = 0;
    pass.keep = heat->method != RZ_SALIENCY_SIMILARITY;
    look l = {.net = &pass, .heat = heat, .prompt = film->prompt, .n_rows = film->prompt->n};
    rz_mark m = rz_arena_mark(net->s);
    if (find_rows(&l))
        l.h = pass.keep ? rz_encode_look(&pass, film, 1, heat->n_blocks, &l.view)
                        : rz_encode_rows(&pass, film, 1, heat->n_blocks, NULL);
    if (!rz_stream_failed(net->s)) {
        if (heat->method == RZ_SALIENCY_SIMILARITY)
            similarity(&l, map);
        else if (heat->method == RZ_SALIENCY_ATTENTION)
            attention_map(&l, map);
        else
            gradient(&l, map);
    }
    rz_arena_release(net->s, m);
}
