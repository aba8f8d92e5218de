/* tower.c - CLIP's vision transformer, forward and backward.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tower.h"

#include "half.h"

typedef struct block_acts {
    float *h, *n1, *stats1, *q, *k, *v, *att, *lse; /* attention half */
    float *mid, *n2, *stats2, *fc1, *act;           /* MLP half */
} block_acts;

/* The rows that a branch of a block is added to, scaled; without `part` all of them, as they are. */
typedef struct path {
    bool part;
    float scale;
    const int32_t *rows; /* device */
    size_t n;
} path;

enum { ATTENTION, MLP, N_BRANCHES };

struct rz_tower_acts {
    size_t n, n_blocks;
    path (*paths)[N_BRANCHES]; /* of each block */
    float *patches;            /* (n * P, channels * patch^2), where they are kept */
    float *embedded, *stats;   /* (n * rows, hidden): before the first norm, and its stats */
    int32_t *patch_rows;       /* which of the n * rows rows each patch becomes */
    int32_t *class_rows, *zeros;
    int32_t *positions; /* row -> row of the position table */
    int32_t *kept_rows; /* rows that reach the projector */
    size_t n_kept;
    rz_ragged seq;
    block_acts *blocks;
};

size_t rz_tower_rows(const rz_config *cfg)
{
    size_t side = cfg->vision.image_size / cfg->vision.patch;
    return side * side + 1;
}

static void make_indices(const rz_net *net, rz_tower_acts *a, size_t rows)
{
    size_t n = a->n, total = n * rows;
    int32_t *patch_rows = rz_arena_host(net->s, total, sizeof(int32_t));
    int32_t *positions = rz_arena_host(net->s, total, sizeof(int32_t));
    int32_t *class_rows = rz_arena_host(net->s, n, sizeof(int32_t));
    int32_t *zeros = rz_arena_host(net->s, n, sizeof(int32_t));
    int32_t *start = rz_arena_host(net->s, n + 1, sizeof(int32_t));
    if (rz_stream_failed(net->s)) return;
    for (size_t i = 0, p = 0; i < n; i++) {
        class_rows[i] = start[i] = (int32_t)(i * rows);
        for (size_t r = 0; r < rows; r++) {
            positions[i * rows + r] = (int32_t)r;
            if (r > 0) patch_rows[p++] = (int32_t)(i * rows + r);
        }
    }
    start[n] = (int32_t)total;
    a->patch_rows = rz_arena_i32(net->s, patch_rows, n * (rows - 1));
    a->class_rows = rz_arena_i32(net->s, class_rows, n);
    a->zeros = rz_arena_i32(net->s, zeros, n);
    a->positions = rz_arena_i32(net->s, positions, total);
    a->seq = (rz_ragged){n, start, rz_arena_i32(net->s, start, n + 1)};
}

/* ---- Stochastic depth: a film goes past a branch at random, more often past later ones ---- */

static double drop_rate(const rz_net *net, size_t block, size_t n_blocks)
{
    return n_blocks > 1 ? net->drop_path * (double)block / (double)(n_blocks - 1) : net->drop_path;
}

/* A function of the step's seed, the film's key, block and branch. */
static bool takes_branch(const rz_net *net, size_t film, size_t branch, double rate)
{
    rz_rng r;
    rz_rng_seed(&r, net->dropout_seed + (uint64_t)branch, net->film_keys[film]);
    return rz_rng_uniform(&r) >= rate;
}

static path draw_path(const rz_net *net, const rz_tower_acts *a, size_t rows, size_t branch, double rate)
{
    path p = {.part = true, .scale = (float)(1 / (1 - rate))};
    int32_t *kept = rz_arena_host(net->s, a->n * rows, sizeof *kept);
    for (size_t i = 0; i < a->n && kept; i++) {
        if (!takes_branch(net, i, branch, rate)) continue;
        for (size_t r = 0; r < rows; r++) kept[p.n++] = (int32_t)(i * rows + r);
    }
    p.rows = rz_arena_i32(net->s, kept, p.n);
    return p;
}

static void draw_paths(const rz_net *net, rz_tower_acts *a, size_t rows)
{
    a->paths = rz_arena_host(net->s, a->n_blocks + 1, sizeof *a->paths);
    for (size_t i = 0; i < a->n_blocks && a->paths && net->film_keys; i++) {
        double rate = drop_rate(net, i, a->n_blocks);
        for (size_t k = 0; k < N_BRANCHES && rate > 0; k++)
            a->paths[i][k] = draw_path(net, a, rows, N_BRANCHES * i + k, rate);
    }
}

/* h + branch, where the path says so; the branch is not needed any more. */
static float *add_branch(const rz_net *net, float *h, float *branch, const path *p, size_t rows)
{
    size_t c = net->model->cfg.vision.hidden;
    if (!p->part) return rz_residual(net, h, branch, rows * c);
    float *sum = net->keep ? rz_arena_f32(net->s, rows, c) : h;
    if (net->keep) rz_copy(net->s, sum, h, rows * c * sizeof *h);
    rz_scale(net->s, branch, p->scale, rows * c);
    rz_add_rows(net->s, sum, c, p->rows, branch, c, p->rows, p->n, c);
    return sum;
}

/* The branch's share of the gradient dh of the sum. */
static const float *into_branch(const rz_net *net, const float *dh, const path *p, size_t rows)
{
    size_t c = net->model->cfg.vision.hidden;
    if (!p->part) return dh;
    float *d = rz_arena_zeros(net->s, rows, c);
    rz_copy_rows(net->s, d, c, p->rows, dh, c, p->rows, p->n, c);
    rz_scale(net->s, d, p->scale, rows * c);
    return d;
}

/* ---- Blocks ---- */

/* Adds the patches through the convolution; films of one kind that follow each other at once. */
static void add_patches(const rz_net *net, rz_tower_acts *a, const float *pixels, float *x)
{
    const rz_model *m = net->model;
    const rz_vision_config *v = &m->cfg.vision;
    const size_t c = v->hidden, per_film = rz_tower_rows(&m->cfg) - 1;
    const bool *gray = net->gray_films;
    for (size_t i = 0, run; i < a->n; i += run) {
        for (run = 1; i + run < a->n && (!gray || gray[i + run] == gray[i]); run++) {}
        const bool one = gray && gray[i];
        const rz_linear conv = one ? m->gray : (rz_linear){m->patch, NULL, NULL};
        const size_t channels = one ? 1 : v->channels, n = run * per_film;
        a->patches = rz_arena_f32(net->s, n, channels * v->patch * v->patch);
        rz_patchify(net->s, a->patches, pixels, run, channels, v->image_size, v->patch);
        rz_add_rows(net->s, x, c, a->patch_rows + i * per_film, rz_linear_forward(net, &conv, a->patches, n), c, NULL,
                    n, c);
        pixels += run * channels * v->image_size * v->image_size;
    }
}

/* Patches, class row in front, positions added, first norm: hidden_states[0]. */
static float *embed(const rz_net *net, rz_tower_acts *a, const float *pixels)
{
    const rz_model *m = net->model;
    const rz_vision_config *v = &m->cfg.vision;
    size_t rows = rz_tower_rows(&m->cfg), c = v->hidden;
    float *x = a->embedded = rz_arena_f32(net->s, a->n * rows, c);
    rz_copy_rows(net->s, x, c, NULL, m->positions->w.data, c, a->positions, a->n * rows, c);
    add_patches(net, a, pixels, x);
    rz_add_rows(net->s, x, c, a->class_rows, m->class_row->w.data, c, a->zeros, a->n, c);
    return rz_norm_forward(net, &m->tower_pre, v->eps, x, a->n * rows, &a->stats);
}

static void embed_backward(const rz_net *net, const rz_tower_acts *a, const float *dh)
{
    const rz_model *m = net->model;
    size_t rows = rz_tower_rows(&m->cfg), n_patches = a->n * (rows - 1), c = m->cfg.vision.hidden;
    float *dx = rz_arena_zeros(net->s, a->n * rows, c);
    rz_norm_backward(net, &m->tower_pre, dx, dh, a->embedded, a->stats, a->n * rows);
    if (m->positions->grad) rz_add_rows(net->s, m->positions->grad, c, a->positions, dx, c, NULL, a->n * rows, c);
    if (m->class_row->grad) rz_add_rows(net->s, m->class_row->grad, c, a->zeros, dx, c, a->class_rows, a->n, c);
    float *dpatch = rz_arena_f32(net->s, n_patches, c);
    rz_copy_rows(net->s, dpatch, c, NULL, dx, c, a->patch_rows, n_patches, c);
    rz_linear conv = {m->patch, NULL, NULL};
    rz_linear_backward(net, &conv, 0.0f, NULL, dpatch, a->patches, n_patches);
}

/* h + attention(norm(h)), then MLP(norm(.)) but for its last product */
static void block_inside(const rz_net *net, const rz_tower_block *b, const rz_attn *at, const path *paths, float *h,
                         block_acts *a)
{
    const rz_vision_config *v = &net->model->cfg.vision;
    size_t rows = (size_t)at->q_seq.start[at->q_seq.n], c = v->hidden;
    a->h = h;
    a->n1 = rz_norm_forward(net, &b->ln1, v->eps, h, rows, &a->stats1);
    a->q = rz_linear_forward(net, &b->q, a->n1, rows);
    a->k = rz_linear_forward(net, &b->k, a->n1, rows);
    a->v = rz_linear_forward(net, &b->v, a->n1, rows);
    a->att = rz_arena_f32(net->s, rows, c);
    a->lse = net->keep ? rz_arena_f32(net->s, rows, v->heads) : NULL;
    rz_attention(net->s, at, a->att, a->lse, a->q, a->k, a->v);
    a->mid = add_branch(net, h, rz_linear_forward(net, &b->o, a->att, rows), &paths[ATTENTION], rows);
    a->n2 = rz_norm_forward(net, &b->ln2, v->eps, a->mid, rows, &a->stats2);
    a->fc1 = rz_linear_forward(net, &b->fc1, a->n2, rows);
    a->act = net->keep ? rz_arena_f32(net->s, rows, v->intermediate) : a->fc1;
    rz_act(net->s, v->act, a->act, a->fc1, rows * v->intermediate);
}

static float *block_forward(const rz_net *net, const rz_tower_block *b, const rz_attn *at, const path *paths, float *h,
                            block_acts *a)
{
    size_t rows = (size_t)at->q_seq.start[at->q_seq.n];
    block_inside(net, b, at, paths, h, a);
    return add_branch(net, a->mid, rz_linear_forward(net, &b->fc2, a->act, rows), &paths[MLP], rows);
}

/* The same, of which only the input is kept. */
static float *block_forward_light(const rz_net *net, const rz_tower_block *b, const rz_attn *at, const path *paths,
                                  float *h, block_acts *a)
{
    size_t n = (size_t)at->q_seq.start[at->q_seq.n] * net->model->cfg.vision.hidden;
    float *y = rz_arena_f32(net->s, 1, n);
    rz_net light = *net;
    light.keep = false;
    rz_mark m = rz_arena_mark(net->s);
    rz_copy(net->s, y, h, n * sizeof *y);
    block_forward(&light, b, at, paths, y, a); /* in place */
    rz_arena_release(net->s, m);
    *a = (block_acts){.h = h};
    return y;
}

static bool is_half(const rz_net *net, const rz_tower_block *b)
{
    const rz_linear *const layers[] = {&b->q, &b->k, &b->v, &b->o, &b->fc1, &b->fc2};
    return rz_half_fits(net, layers, RZ_COUNT(layers));
}

/* The same with activations of bfloat16. */
static float *block_forward_half(const rz_net *net, const rz_tower_block *b, const rz_attn *at, float *h)
{
    const rz_vision_config *v = &net->model->cfg.vision;
    const size_t rows = (size_t)at->q_seq.start[at->q_seq.n];
    const rz_linear *const qkv[] = {&b->q, &b->k, &b->v}, *const fc1 = &b->fc1;
    const uint16_t *n = rz_half_norm_forward(net, &b->ln1, v->eps, h, rows), *q = rz_half_linears(net, qkv, 3, n, rows);
    uint16_t *att = rz_half_rows(net, rows, v->hidden);
    rz_attn beside = *at;
    beside.q_ld = beside.kv_ld = 3 * v->hidden;
    if (q) rz_half_attention(net->s, &beside, att, q, q + v->hidden, q + 2 * v->hidden);
    rz_half_residual(net, &b->o, h, att, rows);
    n = rz_half_norm_forward(net, &b->ln2, v->eps, h, rows);
    uint16_t *wide = rz_half_linears(net, &fc1, 1, n, rows);
    rz_half_act(net->s, v->act, wide, wide, rows * v->intermediate);
    rz_half_residual(net, &b->fc2, h, wide, rows);
    return h;
}

/* dh: in, the gradient of the block's result; out, of its input. */
static void block_backward(const rz_net *net, const rz_tower_block *b, const rz_attn *at, const path *paths, float *dh,
                           const block_acts *a)
{
    const rz_vision_config *v = &net->model->cfg.vision;
    size_t rows = (size_t)at->q_seq.start[at->q_seq.n], c = v->hidden;
    float *dact = rz_arena_f32(net->s, rows, v->intermediate), *dn = rz_arena_f32(net->s, rows, c);
    rz_linear_backward(net, &b->fc2, 0.0f, dact, into_branch(net, dh, &paths[MLP], rows), a->act, rows);
    rz_act_bwd(net->s, v->act, dact, dact, a->fc1, rows * v->intermediate);
    rz_linear_backward(net, &b->fc1, 0.0f, dn, dact, a->n2, rows);
    rz_norm_backward(net, &b->ln2, dh, dn, a->mid, a->stats2, rows);

    float *datt = rz_arena_f32(net->s, rows, c);
    const rz_qkv d = rz_qkv_zeros(net, at, rows);
    rz_linear_backward(net, &b->o, 0.0f, datt, into_branch(net, dh, &paths[ATTENTION], rows), a->att, rows);
    rz_attention_bwd(net->s, at, d.q, d.k, d.v, datt, a->att, a->lse, a->q, a->k, a->v);
    rz_linear_backward(net, &b->q, 0.0f, dn, d.q, a->n1, rows);
    rz_linear_backward(net, &b->k, 1.0f, dn, d.k, a->n1, rows);
    rz_linear_backward(net, &b->v, 1.0f, dn, d.v, a->n1, rows);
    rz_norm_backward(net, &b->ln1, dh, dn, a->h, a->stats1, rows);
}

static rz_attn tower_attention(const rz_net *net, const rz_tower_acts *a)
{
    const rz_vision_config *v = &net->model->cfg.vision;
    return rz_self_attention(a->seq, v->heads, v->heads, v->hidden / v->heads, false, 0);
}

/* Rows of the tower that reach the decoder: all but the class row, unless the config keeps it. */
static void keep_rows(const rz_net *net, rz_tower_acts *a)
{
    const rz_config *cfg = &net->model->cfg;
    size_t all = rz_tower_rows(cfg), kept = cfg->image_rows, k = 0;
    int32_t *rows = rz_arena_host(net->s, a->n * kept, sizeof *rows);
    if (!rows) return;
    for (size_t i = 0; i < a->n; i++)
        for (size_t r = all - kept; r < all; r++) rows[k++] = (int32_t)(i * all + r);
    a->n_kept = k;
    a->kept_rows = rz_arena_i32(net->s, rows, k);
}

/* Puts hidden_states[blocks] into its columns of the features; layers may come in any order, and twice. */
static void put_features(const rz_net *net, const rz_tower_acts *a, size_t blocks, float *features, const float *h)
{
    const rz_config *cfg = &net->model->cfg;
    size_t c = cfg->vision.hidden, n = cfg->n_feature_layers;
    for (size_t i = 0; features && i < n; i++)
        if (rz_config_feature_blocks(cfg, i) == blocks)
            rz_copy_rows(net->s, features + i * c, n * c, NULL, h, c, a->kept_rows, a->n_kept, c);
}

static float *forward(const rz_net *net, const float *pixels, rz_tower_acts *a, float *features)
{
    float *h = embed(net, a, pixels);
    rz_attn at = tower_attention(net, a);
    put_features(net, a, 0, features, h);
    for (size_t i = 0; i < a->n_blocks; i++) {
        rz_mark m = rz_arena_mark(net->s);
        const rz_tower_block *b = &net->model->tower[i];
        if (is_half(net, b))
            h = block_forward_half(net, b, &at, h);
        else if (net->keep && net->recompute)
            h = block_forward_light(net, b, &at, a->paths[i], h, &a->blocks[i]);
        else
            h = block_forward(net, b, &at, a->paths[i], h, &a->blocks[i]);
        if (!net->keep) rz_arena_release(net->s, m);
        put_features(net, a, i + 1, features, h);
        rz_net_poll(net);
    }
    return h;
}

static rz_tower_acts *begin(const rz_net *net, size_t n, size_t n_blocks)
{
    rz_tower_acts *a = rz_arena_host(net->s, 1, sizeof *a);
    block_acts *blocks = rz_arena_host(net->s, n_blocks + 1, sizeof *blocks);
    if (!a || !blocks) return NULL;
    a->n = n, a->n_blocks = n_blocks, a->blocks = blocks;
    make_indices(net, a, rz_tower_rows(&net->model->cfg));
    draw_paths(net, a, rz_tower_rows(&net->model->cfg));
    return rz_stream_failed(net->s) ? NULL : a;
}

float *rz_tower_forward(const rz_net *net, const float *pixels, size_t n, size_t n_blocks, rz_tower_acts **acts)
{
    rz_tower_acts *a = begin(net, n, n_blocks);
    if (acts) *acts = a;
    return a ? forward(net, pixels, a, NULL) : NULL;
}

float *rz_tower_features(const rz_net *net, const float *pixels, size_t n, rz_tower_acts **acts)
{
    const rz_config *cfg = &net->model->cfg;
    float *features = rz_arena_f32(net->s, n * cfg->image_rows, cfg->n_feature_layers * cfg->vision.hidden);
    rz_tower_acts *a = begin(net, n, rz_config_tower_blocks(cfg));
    if (acts) *acts = a;
    if (!a) return NULL;
    keep_rows(net, a);
    if (rz_stream_failed(net->s)) return NULL;
    forward(net, pixels, a, features);
    return features;
}

/* put_features' other way: dh += the columns' gradient. */
static void take_features(const rz_net *net, const rz_tower_acts *a, size_t blocks, float *dh, const float *dfeatures)
{
    const rz_config *cfg = &net->model->cfg;
    size_t c = cfg->vision.hidden, n = cfg->n_feature_layers;
    for (size_t i = 0; i < n; i++)
        if (rz_config_feature_blocks(cfg, i) == blocks)
            rz_add_rows(net->s, dh, c, a->kept_rows, dfeatures + i * c, n * c, NULL, a->n_kept, c);
}

void rz_tower_backward(const rz_net *net, const rz_tower_acts *a, const float *dfeatures)
{
    if (rz_stream_failed(net->s)) return;
    rz_attn at = tower_attention(net, a);
    rz_net full = *net;
    full.keep = true;
    float *dh = rz_arena_zeros(net->s, a->n * rz_tower_rows(&net->model->cfg), net->model->cfg.vision.hidden);
    for (size_t i = a->n_blocks; i-- > 0;) {
        rz_mark m = rz_arena_mark(net->s);
        take_features(net, a, i + 1, dh, dfeatures);
        const rz_tower_block *b = &net->model->tower[i];
        block_acts acts = a->blocks[i];
        if (!acts.n1) block_inside(&full, b, &at, a->paths[i], acts.h, &acts);
        block_backward(net, b, &at, a->paths[i], dh, &acts);
        rz_arena_release(net->s, m);
        rz_net_poll(net);
    }
    take_features(net, a, 0, dh, dfeatures);
    rz_mark m = rz_arena_mark(net->s);
    embed_backward(net, a, dh);
    rz_arena_release(net->s, m);
}
