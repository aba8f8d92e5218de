/* memory.c - what a pass will take: the buffers that tower.c, projector.c, encode.c and decoder.c ask for, counted.
 * SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"

#include <stdlib.h>

#include "tower.h"

bool rz_net_reads(const rz_model *m, const rz_param *p)
{
    const char *const parts[] = {"language_model.model.layers.", "vision_tower.vision_model.encoder.layers."};
    const size_t used[] = {rz_config_decoder_blocks(&m->cfg), rz_config_tower_blocks(&m->cfg)};
    if (p == m->embed || p == m->lm_head || !strncmp(p->name, "gamma_txt", 9) || !strncmp(p->name, "gamma_dis", 9))
        return false;
    if (p == m->patch && m->gray.w) return false;
    for (size_t i = 0; i < RZ_COUNT(parts); i++) {
        const size_t n = strlen(parts[i]);
        if (!strncmp(p->name, parts[i], n) && strtoul(p->name + n, NULL, 10) >= used[i]) return false;
    }
    return true;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* ---- One film ---- */

/* Buffers of one tower block, all rows of one film. */
static size_t tower_floats(const rz_config *cfg)
{
    const rz_vision_config *v = &cfg->vision;
    size_t rows = rz_tower_rows(cfg), pixels = v->channels * v->image_size * v->image_size;
    return 2 * pixels + rows * (11 * v->hidden + v->intermediate);
}

/* The same of one decoder block; `rows` of a film's prompt. */
static size_t decoder_floats(const rz_config *cfg, size_t rows)
{
    const rz_text_config *t = &cfg->text;
    return rows * (6 * t->hidden + 2 * t->heads * t->head_dim + 2 * t->kv_heads * t->head_dim + 2 * t->intermediate);
}

uint64_t rz_net_film_bytes(const rz_model *m)
{
    const rz_config *cfg = &m->cfg;
    const size_t words = 64; /* of the prompt */
    size_t rows = words + cfg->image_rows + cfg->radz.n_image_tokens;
    /* Several feature layers: their rows side by side, kept while the tower goes on. */
    size_t wide = cfg->n_feature_layers > 1 ? cfg->image_rows * cfg->n_feature_layers * cfg->vision.hidden : 0;
    size_t image = cfg->has_vision ? tower_floats(cfg) + wide + cfg->image_rows * 4 * cfg->text.hidden : 0;
    size_t decoder = decoder_floats(cfg, rows), heads = rows * cfg->radz.gamma_hidden;
    return (uint64_t)(image + (decoder > heads ? decoder : heads)) * sizeof(float);
}

/* ---- A training step ---- */

/* Floats of a part of the network: those that stay from the forward to the backward pass, those of one block on top of
 * them while it runs forward, and backward. */
typedef struct part {
    double kept, forward, backward;
} part;

/* Of one film. Where the tower is not trained, nothing stays but its input and what it gives. */
static part tower_part(const rz_model *m, bool recompute)
{
    const rz_vision_config *v = &m->cfg.vision;
    const double rows = (double)rz_tower_rows(&m->cfg), c = (double)v->hidden, wide = (double)v->intermediate;
    const double pixels = (double)(v->channels * v->image_size * v->image_size), heads = (double)v->heads;
    const double inside = rows * (8 * c + 2 * wide + heads), whole = rows * (10 * c + 2 * wide + heads);
    const double blocks = (double)rz_config_tower_blocks(&m->cfg);
    part p = {.kept = 2 * pixels + 3 * rows * c + (double)(m->cfg.image_rows * m->cfg.n_feature_layers) * c};
    p.forward = rows * (8 * c + wide);
    if (!m->setup.tower) return p;
    p.kept += blocks * (recompute ? rows * c : whole);
    if (!recompute) p.forward = 0;
    p.backward = rows * (6 * c + wide) + (recompute ? inside : 0);
    return p;
}

/* What LoRA on a layer of `in` columns has in its hands for one row, backward. */
static double lora_floats(const rz_train_setup *s, double in)
{
    return s->lora_rank ? 2.0 * (double)s->lora_rank + (s->lora_dropout > 0 ? 2 * in : 0) : 0;
}

/* Of one row of a prompt. */
static part decoder_part(const rz_model *m, bool recompute)
{
    const rz_text_config *t = &m->cfg.text;
    const double c = (double)t->hidden, wide = (double)t->intermediate, heads = (double)t->heads;
    const double q = (double)(t->heads * t->head_dim), kv = (double)(t->kv_heads * t->head_dim);
    const double inside = 4 * c + 2 * q + 2 * kv + 3 * wide + heads, whole = inside + 2 * c;
    const double blocks = (double)(m->setup.all_blocks ? t->layers : rz_config_decoder_blocks(&m->cfg));
    const double mlp = 3 * wide + c + lora_floats(&m->setup, wide);
    const double attention = 3 * wide + 2 * c + 2 * q + 2 * kv + lora_floats(&m->setup, larger(c, q));
    part p = {.kept = 2 * c + blocks * (recompute ? c : whole)};
    if (recompute) p.forward = inside - wide;
    p.backward = c + larger(mlp, attention) + (recompute ? inside : 0);
    return p;
}

uint64_t rz_net_step_bytes(const rz_model *m, size_t n_films, size_t n_rows, bool recompute)
{
    const rz_config *cfg = &m->cfg;
    const double films = (double)n_films, rows = (double)n_rows, image = films * (double)cfg->image_rows;
    const double c = (double)cfg->text.hidden, features = (double)(cfg->n_feature_layers * cfg->vision.hidden);
    const part tower = cfg->has_vision ? tower_part(m, recompute) : (part){0}, decoder = decoder_part(m, recompute);
    const double before = films * tower.kept, between = cfg->has_vision ? 3 * image * c : 0;
    const double all = before + between + rows * decoder.kept;
    /* the gradient of the decoder's input rows lies beside those of the tower */
    const bool goes_on = m->setup.tower || m->setup.projector;
    const double after = rows * c + image * (2 * c + features) + films * tower.backward;
    double most = larger(before + films * tower.forward, all + rows * larger(decoder.forward, decoder.backward));
    if (goes_on) most = larger(most, all + after);
    return (uint64_t)(most * sizeof(float));
}
