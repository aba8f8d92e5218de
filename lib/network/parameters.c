/* parameters.c - every parameter of a model: name, shape, and where the network finds it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "parameters.h"

#include <stdarg.h>
#include <stdio.h>

#include "lora.h"

typedef struct builder {
    rz_model *m;
    rz_param_notes *notes;
    size_t cap;
    bool radz, adapter; /* parameters that follow belong to radz.safetensors, to LoRA */
    char prefix[128];
    bool failed;
} builder;

static void set_prefix(builder *b, const char *fmt, ...) RZ_PRINTF(2, 3);
static void set_prefix(builder *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(b->prefix, sizeof b->prefix, fmt, ap);
    va_end(ap);
}

/* Appends a parameter of up to four dimensions (0 ends them). */
static rz_param *add(builder *b, const char *name, const char *suffix, rz_init_kind init, const size_t dims[4])
{
    rz_model *m = b->m;
    char full[256];
    int len = snprintf(full, sizeof full, "%s%s%s", b->prefix, name, suffix);
    if (b->failed || m->n_params == b->cap || len < 0 || (size_t)len >= sizeof full) {
        b->failed = true;
        return NULL;
    }
    rz_param *p = &m->params[m->n_params];
    p->name = rz_strdup(m->cfg.host, full);
    p->radz = b->radz, p->adapter = p->fresh = b->adapter;
    p->n = 1;
    b->failed |= !p->name;
    for (p->n_dims = 0; p->n_dims < 4 && dims[p->n_dims]; p->n_dims++) {
        p->dims[p->n_dims] = dims[p->n_dims];
        b->failed |= !rz_size_mul(p->n, dims[p->n_dims], &p->n);
    }
    p->w.ld = p->n / p->dims[0];
    b->notes->init[m->n_params] = init;
    p->as_float = p->n_dims < 2;
    m->n_params++;
    return p;
}

static rz_param *add_vector(builder *b, const char *name, const char *suffix, rz_init_kind init, size_t n)
{
    return add(b, name, suffix, init, (size_t[4]){n});
}

static rz_param *add_rows(builder *b, const char *name, size_t rows, size_t cols)
{
    return add(b, name, "", RZ_INIT_ROWS, (size_t[4]){rows, cols});
}

static rz_linear add_linear(builder *b, const char *name, size_t out, size_t in, bool bias, rz_init_kind init)
{
    rz_linear l = {add(b, name, ".weight", init, (size_t[4]){out, in}), NULL, NULL};
    if (bias) l.b = add_vector(b, name, ".bias", RZ_INIT_ZERO, out);
    return l;
}

/* Layers that read the same rows. */
static void join(const builder *b, const rz_linear *const *layers, size_t n)
{
    for (size_t i = 1; i < n && !b->failed; i++) {
        layers[i]->w->behind = layers[i - 1]->w;
        layers[0]->w->n_behind += layers[i]->w->n;
        if (!layers[0]->b) continue;
        layers[i]->b->behind = layers[i - 1]->b;
        layers[0]->b->n_behind += layers[i]->b->n;
    }
}

static rz_norm add_norm(builder *b, const char *name, size_t n, bool bias)
{
    rz_norm norm = {add_vector(b, name, ".weight", RZ_INIT_ONE, n), NULL};
    if (bias) norm.b = add_vector(b, name, ".bias", RZ_INIT_ZERO, n);
    return norm;
}

/* Tables whose rows are added or copied as they are, not multiplied. */
static void keep_float(builder *b)
{
    if (!b->failed) b->m->params[b->m->n_params - 1].as_float = true;
}

static void list_tower(builder *b)
{
    rz_model *m = b->m;
    const rz_vision_config *v = &m->cfg.vision;
    size_t side = v->image_size / v->patch, c = v->hidden;
    set_prefix(b, "vision_tower.vision_model.");
    m->class_row = add_vector(b, "embeddings.class_embedding", "", RZ_INIT_ROWS, c);
    m->patch = add(b, "embeddings.patch_embedding.weight", "", RZ_INIT_LINEAR,
                   (size_t[4]){c, v->channels, v->patch, v->patch});
    m->positions = add_rows(b, "embeddings.position_embedding.weight", side * side + 1, c);
    keep_float(b);
    m->tower_pre = add_norm(b, "pre_layrnorm", c, true);
    for (size_t i = 0; i < v->layers; i++) {
        rz_tower_block *t = &m->tower[i];
        set_prefix(b, "vision_tower.vision_model.encoder.layers.%zu.", i);
        t->ln1 = add_norm(b, "layer_norm1", c, true);
        t->q = add_linear(b, "self_attn.q_proj", c, c, true, RZ_INIT_LINEAR);
        t->k = add_linear(b, "self_attn.k_proj", c, c, true, RZ_INIT_LINEAR);
        t->v = add_linear(b, "self_attn.v_proj", c, c, true, RZ_INIT_LINEAR);
        join(b, (const rz_linear *const[]){&t->q, &t->k, &t->v}, 3);
        t->o = add_linear(b, "self_attn.out_proj", c, c, true, RZ_INIT_RESIDUAL);
        t->ln2 = add_norm(b, "layer_norm2", c, true);
        t->fc1 = add_linear(b, "mlp.fc1", v->intermediate, c, true, RZ_INIT_LINEAR);
        t->fc2 = add_linear(b, "mlp.fc2", c, v->intermediate, true, RZ_INIT_RESIDUAL);
    }
    set_prefix(b, "vision_tower.vision_model.");
    m->tower_post = add_norm(b, "post_layernorm", c, true);
    set_prefix(b, "multi_modal_projector.");
    m->projector[0] = add_linear(b, "linear_1", m->cfg.text.hidden, m->cfg.n_feature_layers * c, m->cfg.projector_bias,
                                 RZ_INIT_LINEAR);
    m->projector[1] =
        add_linear(b, "linear_2", m->cfg.text.hidden, m->cfg.text.hidden, m->cfg.projector_bias, RZ_INIT_LINEAR);
}

static void list_decoder(builder *b)
{
    rz_model *m = b->m;
    const rz_text_config *t = &m->cfg.text;
    size_t c = t->hidden, q = t->heads * t->head_dim, kv = t->kv_heads * t->head_dim;
    set_prefix(b, "language_model.model.");
    m->embed = add_rows(b, "embed_tokens.weight", t->vocab, c);
    for (size_t i = 0; i < t->layers; i++) {
        rz_decoder_block *d = &m->decoder[i];
        set_prefix(b, "language_model.model.layers.%zu.", i);
        d->in = add_norm(b, "input_layernorm", c, false);
        d->q = add_linear(b, "self_attn.q_proj", q, c, t->attention_bias, RZ_INIT_LINEAR);
        d->k = add_linear(b, "self_attn.k_proj", kv, c, t->attention_bias, RZ_INIT_LINEAR);
        d->v = add_linear(b, "self_attn.v_proj", kv, c, t->attention_bias, RZ_INIT_LINEAR);
        join(b, (const rz_linear *const[]){&d->q, &d->k, &d->v}, 3);
        d->o = add_linear(b, "self_attn.o_proj", c, q, t->attention_bias, RZ_INIT_RESIDUAL);
        d->post = add_norm(b, "post_attention_layernorm", c, false);
        d->gate = add_linear(b, "mlp.gate_proj", t->intermediate, c, t->mlp_bias, RZ_INIT_LINEAR);
        d->up = add_linear(b, "mlp.up_proj", t->intermediate, c, t->mlp_bias, RZ_INIT_LINEAR);
        join(b, (const rz_linear *const[]){&d->gate, &d->up}, 2);
        d->down = add_linear(b, "mlp.down_proj", c, t->intermediate, t->mlp_bias, RZ_INIT_RESIDUAL);
    }
    set_prefix(b, "language_model.");
    m->decoder_norm = add_norm(b, "model.norm", c, false);
    /* An adapter of a tied table is not one of the head: the head gets a place of its own. */
    if (!t->tied || (m->lora && !rz_lora_ties(m->lora)))
        m->lm_head = add_linear(b, "lm_head", t->vocab, c, false, RZ_INIT_LINEAR).w;
}

static rz_head list_head(builder *b, const char *name)
{
    const rz_radz_config *r = &b->m->cfg.radz;
    size_t c = b->m->cfg.text.hidden;
    rz_head h = {0};
    if (r->gamma == RZ_GAMMA_IDENTITY) return h;
    set_prefix(b, "%s.", name);
    h.norm = add_norm(b, "norm", c, true);
    h.l1 = add_linear(b, "linear_1", r->gamma_hidden, c, true, RZ_INIT_LINEAR);
    h.l2 = add_linear(b, "linear_2", r->dim, r->gamma_hidden, true, RZ_INIT_LINEAR);
    return h;
}

static void list_radz(builder *b)
{
    rz_model *m = b->m;
    const rz_radz_config *r = &m->cfg.radz;
    b->radz = true;
    set_prefix(b, "%s", "");
    m->special = add_rows(b, "special_tokens.weight", r->n_image_tokens + r->n_text_tokens, m->cfg.text.hidden);
    keep_float(b);
    m->gamma_img = list_head(b, "gamma_img");
    m->gamma_txt = list_head(b, "gamma_txt");
    m->gamma_dis = list_head(b, "gamma_dis");
    set_prefix(b, "%s", "");
    m->log_tau = add_vector(b, "log_tau", "", RZ_INIT_ZERO, 1);
    if (!b->failed) b->notes->optional[m->n_params - 1] = true;
    if (!r->n_classes) return;
    m->classifier = add_linear(b, "classifier", r->n_classes, r->dim, true, RZ_INIT_ZERO);
    for (size_t i = 1; i <= 2 && !b->failed; i++) {
        m->params[m->n_params - i].as_float = true;
        m->params[m->n_params - i].fresh = r->new_head;
    }
}

/* True when name is one of a comma-separated list; NULL is all. */
static bool in_list(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
        if (!strncmp(at, name, n) && (at[n] == ',' || !at[n])) return true;
    return !list;
}

static void add_pair(builder *b, const char *name, rz_linear *l)
{
    rz_model *m = b->m;
    const rz_train_setup *t = &m->setup;
    const char *last = strchr(name, '.') + 1;
    if (!in_list(t->lora_targets, last) || b->failed) return;
    size_t r = t->lora_rank, in = l->w->dims[1], out = l->w->dims[0];
    rz_lowrank *pair = &m->pairs[m->n_pairs++];
    double scale = t->lora_alpha / (t->lora_rslora ? sqrt((double)r) : (double)r);
    *pair = (rz_lowrank){.base = l->w, .scale = (float)scale, .dropout = (float)t->lora_dropout, .module = m->n_pairs};
    pair->a = add(b, name, ".lora_A.weight", RZ_INIT_ZERO, (size_t[4]){r, in});
    keep_float(b);
    pair->b = add(b, name, ".lora_B.weight", RZ_INIT_ZERO, (size_t[4]){out, r});
    keep_float(b);
    l->lora = pair;
}

/* In the blocks that the loss depends on. */
static void list_lora(builder *b)
{
    rz_model *m = b->m;
    size_t n = m->setup.all_blocks ? m->cfg.text.layers : rz_config_decoder_blocks(&m->cfg);
    b->radz = false, b->adapter = true;
    for (size_t i = 0; i < n; i++) {
        rz_decoder_block *d = &m->decoder[i];
        set_prefix(b, "language_model.model.layers.%zu.", i);
        add_pair(b, "self_attn.q_proj", &d->q);
        add_pair(b, "self_attn.k_proj", &d->k);
        add_pair(b, "self_attn.v_proj", &d->v);
        add_pair(b, "self_attn.o_proj", &d->o);
        add_pair(b, "mlp.gate_proj", &d->gate);
        add_pair(b, "mlp.up_proj", &d->up);
        add_pair(b, "mlp.down_proj", &d->down);
    }
}

radz_status rz_params_list(rz_model *m, rz_param_notes *notes, radz_error *err)
{
    builder list = {.m = m, .notes = notes}, *b = &list;
    const rz_host *host = m->cfg.host;
    b->cap = 64 + 16 * m->cfg.vision.layers + (16 + 14) * m->cfg.text.layers;
    m->pairs = rz_calloc(host, 7 * m->cfg.text.layers, sizeof *m->pairs);
    m->params = rz_calloc(host, b->cap, sizeof *m->params);
    m->tower = rz_calloc(host, m->cfg.vision.layers + 1, sizeof *m->tower);
    m->decoder = rz_calloc(host, m->cfg.text.layers + 1, sizeof *m->decoder);
    b->notes->init = rz_calloc(host, b->cap, sizeof *b->notes->init);
    b->notes->optional = rz_calloc(host, b->cap, sizeof *b->notes->optional);
    if (!m->pairs || !m->params || !m->tower || !m->decoder || !b->notes->init || !b->notes->optional)
        return RZ_NO_MEMORY(err, "list of parameters");
    if (m->cfg.has_vision) list_tower(b);
    list_decoder(b);
    if (m->cfg.radz.n_image_tokens) list_radz(b);
    if (m->setup.lora_rank) list_lora(b);
    return b->failed ? RZ_NO_MEMORY(err, "list of parameters") : RADZ_OK;
}

void rz_param_notes_free(const rz_host *host, rz_param_notes *notes)
{
    rz_free(host, notes->init);
    rz_free(host, notes->optional);
}
