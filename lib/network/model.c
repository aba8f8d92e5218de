/* model.c - the list of a model's parameters, and how they are loaded, made at random and saved.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model.h"

#include <stdarg.h>
#include <stdio.h>

#include "initial.h"
#include "lora.h"
#include "pager.h"
#include "precision.h"
#include "rope.h"
#include "tensors.h"
#include "weights.h"

/* ---- The list of parameters -------------------------------------------------------- */

typedef struct builder {
    rz_model *m;
    size_t cap;
    rz_init_kind *init; /* per parameter */
    bool *optional;
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
    b->init[m->n_params] = init;
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
        d->o = add_linear(b, "self_attn.o_proj", c, q, t->attention_bias, RZ_INIT_RESIDUAL);
        d->post = add_norm(b, "post_attention_layernorm", c, false);
        d->gate = add_linear(b, "mlp.gate_proj", t->intermediate, c, t->mlp_bias, RZ_INIT_LINEAR);
        d->up = add_linear(b, "mlp.up_proj", t->intermediate, c, t->mlp_bias, RZ_INIT_LINEAR);
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
    if (!b->failed) b->optional[m->n_params - 1] = true;
    if (!r->n_classes) return;
    m->classifier = add_linear(b, "classifier", r->n_classes, r->dim, true, RZ_INIT_ZERO);
    for (size_t i = 1; i <= 2 && !b->failed; i++) {
        m->params[m->n_params - i].as_float = true;
        m->params[m->n_params - i].fresh = r->new_head;
    }
}

/* ---- LoRA ---- */

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

static radz_status list_params(builder *b, radz_error *err)
{
    rz_model *m = b->m;
    const rz_host *host = m->cfg.host;
    b->cap = 64 + 16 * m->cfg.vision.layers + (16 + 14) * m->cfg.text.layers;
    m->pairs = rz_calloc(host, 7 * m->cfg.text.layers, sizeof *m->pairs);
    m->params = rz_calloc(host, b->cap, sizeof *m->params);
    m->tower = rz_calloc(host, m->cfg.vision.layers + 1, sizeof *m->tower);
    m->decoder = rz_calloc(host, m->cfg.text.layers + 1, sizeof *m->decoder);
    b->init = rz_calloc(host, b->cap, sizeof *b->init);
    b->optional = rz_calloc(host, b->cap, sizeof *b->optional);
    if (!m->pairs || !m->params || !m->tower || !m->decoder || !b->init || !b->optional)
        return RZ_NO_MEMORY(err, "list of parameters");
    if (m->cfg.has_vision) list_tower(b);
    list_decoder(b);
    if (m->cfg.radz.n_image_tokens) list_radz(b);
    if (m->setup.lora_rank) list_lora(b);
    return b->failed ? RZ_NO_MEMORY(err, "list of parameters") : RADZ_OK;
}

/* ---- Filling them ---------------------------------------------------------------------- */

/* *where: device memory with a copy, *owned once it is there. */
static radz_status copy_to_device(rz_model *m, const void *host_data, size_t n_bytes, const void **where, bool *owned,
                                  radz_error *err)
{
    void *dst = NULL;
    RZ_TRY(rz_device_alloc(m->dev, n_bytes, &dst, err));
    *where = dst;
    *owned = true;
    if (rz_device_is_host(m->dev)) {
        memcpy(dst, host_data, n_bytes);
        return RADZ_OK;
    }
    rz_stream *s = NULL;
    RZ_TRY(rz_stream_open(m->dev, &s, err));
    rz_upload(s, dst, host_data, n_bytes);
    radz_status status = rz_stream_sync(s, err);
    rz_stream_close(s);
    return status;
}

static radz_status to_device(rz_model *m, rz_param *p, const void *host_data, size_t n_bytes, radz_error *err)
{
    return copy_to_device(m, host_data, n_bytes, &p->w.data, &p->owned, err);
}

static bool adapter_changes(const rz_model *m, const rz_param *p)
{
    return m->lora && (rz_lora_changes(m->lora, p->name) ||
                       (p == m->lm_head && m->cfg.text.tied && rz_lora_changes(m->lora, m->embed->name)));
}

static radz_status merge(const rz_model *m, const rz_param *p, float *w, radz_error *err)
{
    RZ_TRY(rz_lora_merge(m->lora, rz_device_pool(m->dev), p, p->name, w, err));
    return p == m->lm_head && m->cfg.text.tied ? rz_lora_merge_tied(m->lora, p, m->embed->name, w, err) : RADZ_OK;
}

bool rz_model_merges(const rz_model *m, const rz_param *p)
{
    return adapter_changes(m, p);
}

radz_status rz_model_read_float(const rz_model *m, const rz_param *p, const rz_st_tensor *t, float **out,
                                radz_error *err)
{
    float *f = *out = rz_malloc(m->cfg.host, p->n * sizeof *f);
    if (!f) return RZ_NO_MEMORY(err, p->name);
    RZ_TRY(rz_tensor_to_f32(m, t, f, err));
    return adapter_changes(m, p) ? merge(m, p, f, err) : RADZ_OK;
}

static radz_status fill_float(rz_model *m, rz_param *p, const rz_st_tensor *t, radz_error *err)
{
    float *f = NULL;
    radz_status status = rz_model_read_float(m, p, t, &f, err);
    if (!status) status = to_device(m, p, f, p->n * sizeof *f, err);
    p->w.dtype = RZ_F32;
    rz_free(m->cfg.host, f);
    return status;
}

/* Room for a matrix of other numbers, where the device has it. */
static radz_status alloc_matrix(rz_model *m, rz_param *p, radz_error *err)
{
    void *data = NULL, *scale = NULL;
    if (!rz_device_is_host(m->dev))
        return rz_fail(err, RADZ_E_UNSUPPORTED, "weights cannot be converted while they are loaded to this device");
    RZ_TRY(rz_device_alloc(m->dev, rz_dtype_bytes(p->w.dtype, p->n), &data, err));
    p->w.data = data, p->owned = true;
    if (rz_dtype_is_float(p->w.dtype)) return RADZ_OK;
    RZ_TRY(rz_device_alloc(m->dev, p->dims[0] * rz_mat_groups(p->w) * sizeof(uint16_t), &scale, err));
    p->w.scale = scale, p->scale_owned = true;
    return RADZ_OK;
}

/* As other numbers than the files have. */
static radz_status fill_converted(rz_model *m, rz_param *p, const rz_st_tensor *t, rz_dtype dtype, radz_error *err)
{
    float *f = NULL;
    rz_quantised q;
    rz_matrix_source from = {.name = p->name, .rows = p->dims[0], .cols = p->dims[1], .tensor = t};
    p->w.dtype = dtype;
    if (!rz_dtype_is_float(dtype)) p->w.group = m->precision.group, p->w.scale_dtype = RZ_BF16;
    radz_status status = alloc_matrix(m, p, err);
    if (!status && adapter_changes(m, p)) {
        status = rz_model_read_float(m, p, t, &f, err);
        from.floats = f;
    } else if (!status && rz_st_is_quantised(t)) {
        status = rz_tensor_quantised(m, t, &q, err);
        from.q = &q;
    }
    if (!status)
        status = rz_precision_convert(m->cfg.host, rz_device_pool(m->dev), &from, 0, from.rows, dtype, p->w.group,
                                      (void *)(uintptr_t)p->w.data, (uint16_t *)(uintptr_t)p->w.scale, err);
    rz_free(m->cfg.host, f);
    return status;
}

static bool in_place(const rz_model *m, const void *data, size_t align)
{
    return rz_device_is_host(m->dev) && (uintptr_t)data % align == 0;
}

/* Integers and their scales. */
static radz_status fill_quantised(rz_model *m, rz_param *p, const rz_st_tensor *t, radz_error *err)
{
    rz_quantised q;
    RZ_TRY(rz_tensor_quantised(m, t, &q, err));
    const bool f32 = q.scale->dtype[0] == 'F';
    p->w.dtype = q.bits == 8 ? RZ_I8 : RZ_I4;
    p->w.scale_dtype = f32 ? RZ_F32 : RZ_BF16;
    p->w.group = q.group;
    p->w.data = t->data, p->w.scale = q.scale->data;
    if (!in_place(m, t->data, 1)) RZ_TRY(to_device(m, p, t->data, t->n_bytes, err));
    if (in_place(m, q.scale->data, f32 ? 4 : 2)) return RADZ_OK;
    return copy_to_device(m, q.scale->data, q.scale->n_bytes, &p->w.scale, &p->scale_owned, err);
}

/* Mapped in place where the device can read it there. */
static radz_status fill_as_stored(rz_model *m, rz_param *p, const rz_st_tensor *t, radz_error *err)
{
    static const char *const names[] = {[RZ_F32] = "F32", [RZ_F16] = "F16", [RZ_BF16] = "BF16"};
    size_t dtype = 0;
    if (rz_st_is_quantised(t)) return fill_quantised(m, p, t, err);
    while (dtype < RZ_COUNT(names) && strcmp(t->dtype, names[dtype])) dtype++;
    if (dtype == RZ_COUNT(names))
        return rz_fail(err, RADZ_E_UNSUPPORTED, "tensor '%s': dtype %s is not supported (F32, F16, BF16, I8, U8)",
                       t->name, t->dtype);
    p->w.dtype = (rz_dtype)dtype;
    if (!in_place(m, t->data, rz_dtype_bytes(p->w.dtype, 1))) return to_device(m, p, t->data, t->n_bytes, err);
    p->w.data = t->data;
    return RADZ_OK;
}

static radz_status init_param(rz_model *m, rz_param *p, rz_init_kind kind, uint64_t seed, radz_error *err)
{
    float *f = rz_malloc(m->cfg.host, p->n * sizeof *f);
    if (!f) return RZ_NO_MEMORY(err, p->name);
    radz_status status = RADZ_OK;
    if (p->fresh)
        status = rz_initial_part(m, p, seed, f, err);
    else
        rz_initial_random(m, p, kind, seed, f);
    p->w.dtype = RZ_F32;
    if (!status) status = to_device(m, p, f, p->n * sizeof *f, err);
    rz_free(m->cfg.host, f);
    return status;
}

static radz_status load_param(rz_model *m, rz_param *p, bool as_float, radz_error *err)
{
    const rz_st_tensor *t = rz_tensor_of(m, p);
    rz_dtype dtype = RZ_F32, compute;
    bool converts;
    if (!t) return init_param(m, p, RZ_INIT_ZERO, 0, err); /* optional: the others have been checked */
    if (as_float) return fill_float(m, p, t, err);
    const bool merged = adapter_changes(m, p);
    RZ_TRY(rz_precision_of(&m->precision, &m->cfg, p->name, t, merged, &dtype, &compute, &converts, err));
    p->w.compute = compute;
    if ((converts || merged) && m->streamed)
        return rz_fail(
            err, RADZ_E_UNSUPPORTED,
            "tensor '%s': weights that are read as they are needed cannot be changed first: write them so with "
            "radz-quantize",
            p->name);
    if (converts) return fill_converted(m, p, t, dtype, err);
    return merged ? fill_float(m, p, t, err) : fill_as_stored(m, p, t, err);
}

static radz_status fill_params(const builder *b, rz_model_mode mode, uint64_t seed, radz_error *err)
{
    rz_model *m = b->m;
    for (size_t i = 0; i < m->n_params; i++) {
        rz_param *p = &m->params[i];
        if (mode == RZ_MODEL_INIT || p->fresh)
            RZ_TRY(init_param(m, p, b->init[i], seed, err));
        else
            RZ_TRY(load_param(m, p, p->as_float || p->trained, err));
    }
    m->lora_merged = m->lora != NULL;
    m->cfg.text.tied &= !m->lm_head;
    return RADZ_OK;
}

static bool in_part(const rz_param *p, const char *prefix)
{
    return !strncmp(p->name, prefix, strlen(prefix));
}

/* What training changes, and what has to be made for it. A checkpoint without special rows was never trained for this;
 * settings of the caller's may ask for parts that no file has. */
static void choose_trained(rz_model *m, const rz_source *src, rz_model_mode mode)
{
    const rz_train_setup *t = &m->setup;
    const bool from_files = mode == RZ_MODEL_TRAIN;
    const bool make = from_files && src->new_radz && m->special && (src->settings || !rz_tensor_of(m, m->special));
    size_t n_new = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        rz_param *p = &m->params[i];
        p->trained = p->radz || p->adapter || (t->tower && in_part(p, "vision_tower.")) ||
                     (t->projector && in_part(p, "multi_modal_projector.")) ||
                     (t->decoder && in_part(p, "language_model."));
        if (p == m->special && m->cfg.radz.append_to_train) p->trained = false;
        p->fresh |= make && p->radz && !rz_tensor_fits(m, p);
        n_new += p->fresh && p->radz && p != m->log_tau;
    }
    if (n_new)
        rz_log(m->cfg.host, RADZ_LOG_INFO, "%s: %zu tensors of radz.safetensors are made anew, as the settings ask for",
               src->dir, n_new);
}

/* A damaged log_tau would turn every probability into NaN. */
static radz_status check_tau(const rz_model *m, const char *dir, radz_error *err)
{
    double tau = rz_model_tau(m);
    if (tau >= 1e-4 && tau <= 100.0) return RADZ_OK;
    return rz_fail(err, RADZ_E_FORMAT, "%s: tensor 'log_tau': expected the logarithm of a number in 1/10000..100", dir);
}

static radz_status make_inv_freq(rz_model *m, radz_error *err)
{
    float freq[RZ_MAX_HEAD_DIM / 2];
    rz_param p = {.n = m->cfg.text.head_dim / 2};
    rz_rope_frequencies(&m->cfg.text, 0, freq);
    radz_status status = to_device(m, &p, freq, p.n * sizeof *freq, err);
    m->inv_freq = (float *)(uintptr_t)p.w.data;
    return status;
}

/* ---- The directory -------------------------------------------------------------------------- */

static radz_status hash_small_file(const rz_host *host, const char *dir, const char *name, rz_sha256 *h,
                                   radz_error *err)
{
    char *path = rz_path_join(host, dir, name);
    rz_file f = {0};
    radz_status status = path ? RADZ_OK : RZ_NO_MEMORY(err, name);
    if (!status && rz_path_exists(path)) status = rz_file_open(host, path, RZ_FILE_READ, 64u << 20, &f, err);
    if (!status) {
        uint64_t size = f.data ? f.size : UINT64_MAX; /* an absent file is not an empty one */
        rz_sha256_put(h, &size, sizeof size);
        if (f.data) rz_sha256_put(h, f.data, f.size);
        rz_file_close(&f);
    }
    rz_free(host, path);
    return status;
}

/* Whatever of a directory changes a vector and is no weight. */
static radz_status hash_settings(const rz_host *host, const char *dir, bool tok_is_json, rz_sha256 *h, radz_error *err)
{
    static const char *const files[] = {"config.json",     "preprocessor_config.json", "radz.json",
                                        "tokenizer.model", "tokenizer.json",           "tokenizer_config.json"};
    const size_t n = RZ_COUNT(files) - (tok_is_json ? 0 : 2);
    for (size_t i = 0; i < n; i++) RZ_TRY(hash_small_file(host, dir, files[i], h, err));
    return RADZ_OK;
}

radz_status rz_model_settings_hash(const rz_host *host, const char *dir, bool tok_is_json, char hex[65],
                                   radz_error *err)
{
    rz_sha256 h;
    rz_sha256_init(&h);
    RZ_TRY(hash_settings(host, dir, tok_is_json, &h, err));
    rz_sha256_hex(&h, hex);
    return RADZ_OK;
}

/* The files say which model they were made from, and nothing else has been changed since. */
static radz_status find_family(rz_model *m, const char *dir, radz_error *err)
{
    const char *source = rz_weights_metadata(m->files, RZ_SOURCE_HASH),
               *settings = rz_weights_metadata(m->files, RZ_SOURCE_SETTINGS);
    char now[65];
    memcpy(m->family, m->hash, sizeof m->family);
    if (!source || !settings || strlen(source) != 64 || m->lora) return RADZ_OK;
    if (m->tower_files) {
        const char *tower = rz_weights_metadata(m->tower_files, RZ_SOURCE_HASH);
        if (!tower || strcmp(tower, source)) return RADZ_OK;
    }
    RZ_TRY(rz_model_settings_hash(m->cfg.host, dir, m->tok_is_json, now, err));
    if (!strcmp(now, settings)) memcpy(m->family, source, 65);
    return RADZ_OK;
}

/* Other numbers are another model. */
static radz_status hash_precision(rz_model *m, radz_error *err)
{
    rz_str text = {.host = m->cfg.host};
    rz_sha256 h;
    if (m->precision.type == RZ_WEIGHTS_STORED) return RADZ_OK;
    rz_precision_text(&m->precision, &text);
    rz_sha256_init(&h);
    rz_sha256_put(&h, m->hash, 64);
    if (!text.failed) rz_sha256_put(&h, text.data, text.len);
    const radz_status status = text.failed ? RZ_NO_MEMORY(err, "hash") : RADZ_OK;
    rz_str_free(&text);
    if (!status) rz_sha256_hex(&h, m->hash);
    return status;
}

/* Everything that changes a vector. */
static radz_status hash_model(rz_model *m, const char *dir, radz_error *err)
{
    const rz_host *host = m->cfg.host;
    rz_sha256 h;
    rz_sha256_init(&h);
    RZ_TRY(hash_settings(host, dir, m->tok_is_json, &h, err));
    rz_weights_hash(m->files, &h);
    if (m->radz_files) {
        rz_sha256_put(&h, "radz", 4);
        RZ_TRY(hash_small_file(host, m->radz_dir, "radz.json", &h, err));
        rz_weights_hash(m->radz_files, &h);
    }
    if (m->tower_files) {
        rz_sha256_put(&h, "tower", 5);
        RZ_TRY(hash_small_file(host, m->cfg.vision_dir, "config.json", &h, err));
        RZ_TRY(hash_small_file(host, m->cfg.vision_dir, "preprocessor_config.json", &h, err));
        rz_weights_hash(m->tower_files, &h);
    }
    if (m->lora) {
        rz_sha256_put(&h, "adapter", 7);
        rz_lora_hash(m->lora, &h);
    }
    rz_sha256_hex(&h, m->hash);
    RZ_TRY(find_family(m, dir, err));
    return hash_precision(m, err);
}

/* *tok stays NULL where there is no such file. */
static radz_status open_tokenizer(rz_model *m, const char *dir, const char *name, radz_error *err)
{
    char *path = rz_path_join(m->cfg.host, dir, name);
    if (!path) return RZ_NO_MEMORY(err, "tokenizer");
    radz_status status = RADZ_OK;
    if (rz_path_exists(path)) status = rz_tokenizer_open(m->cfg.host, path, &m->tok, err);
    /* a tokenizer.json may have added tokens without a row: they are refused where a prompt has them */
    if (!status && m->tok && !m->tok_is_json && rz_tokenizer_size(m->tok) > m->cfg.text.vocab)
        status = rz_fail(err, RADZ_E_MISMATCH, "%s: %zu pieces, but config.json says vocab_size %zu", path,
                         rz_tokenizer_size(m->tok), m->cfg.text.vocab);
    rz_free(m->cfg.host, path);
    return status;
}

static radz_status load_tokenizer(rz_model *m, const char *dir, radz_error *err)
{
    RZ_TRY(open_tokenizer(m, dir, "tokenizer.model", err));
    if (m->tok) return RADZ_OK;
    m->tok_is_json = true;
    RZ_TRY(open_tokenizer(m, dir, "tokenizer.json", err));
    m->tok_is_json = m->tok != NULL;
    return RADZ_OK;
}

static bool training(rz_model_mode mode)
{
    return mode == RZ_MODEL_TRAIN || mode == RZ_MODEL_INIT;
}

/* True when every number is copied, so that the files may be closed. */
static bool copies_all(const rz_model *m, rz_model_mode mode)
{
    return training(mode) && m->setup.tower && m->setup.projector && m->setup.decoder;
}

static rz_file_mode file_mode(const rz_model *m, rz_model_mode mode)
{
    return mode == RZ_MODEL_READ || copies_all(m, mode) ? RZ_FILE_READ : RZ_FILE_MAP;
}

/* An adapter that libradz wrote has the special rows and heads beside it. */
static radz_status open_radz_files(rz_model *m, const char *dir, rz_file_mode how, radz_error *err)
{
    char *path = NULL;
    RZ_TRY(rz_config_file(m->cfg.host, dir, "radz.safetensors", &path, err));
    rz_free(m->cfg.host, path);
    if (!path) return RADZ_OK;
    RZ_TRY(rz_weights_open_file(m->cfg.host, dir, "radz.safetensors", how, (rz_weights **)&m->radz_files, err));
    return rz_lora_same_save(m->lora, m->radz_files, err);
}

static radz_status open_files(rz_model *m, const rz_source *src, rz_model_mode mode, radz_error *err)
{
    const rz_host *host = m->cfg.host;
    rz_file_mode how = file_mode(m, mode);
    if (mode == RZ_MODEL_INIT) return RADZ_OK;
    RZ_TRY(rz_weights_open(host, src->dir, how, (rz_weights **)&m->files, err));
    if (m->cfg.vision_dir) RZ_TRY(rz_weights_open(host, m->cfg.vision_dir, how, (rz_weights **)&m->tower_files, err));
    return m->lora ? open_radz_files(m, src->adapter_dir, how, err) : RADZ_OK;
}

static radz_status fill_all(builder *b, const rz_source *src, rz_model_mode mode, uint64_t seed, radz_error *err)
{
    const radz_status status = fill_params(b, mode, seed, err);
    if (status && mode != RZ_MODEL_INIT) rz_fail_prefix(err, status, "%s", src->dir);
    RZ_TRY(status);
    RZ_TRY(rz_tensors_of_adapter(b->m, err));
    RZ_TRY(make_inv_freq(b->m, err));
    return check_tau(b->m, src->dir, err);
}

static radz_status load_all(rz_model *m, const rz_source *src, rz_model_mode mode, uint64_t seed, radz_error *err)
{
    builder b = {.m = m};
    rz_file_mode how = file_mode(m, mode);
    radz_status status = RADZ_OK;
    if (src->adapter_dir && mode != RZ_MODEL_INIT)
        status = rz_lora_open(m->cfg.host, src->adapter_dir, how, (rz_lora **)&m->lora, err);
    if (!status) status = list_params(&b, err);
    if (!status) status = load_tokenizer(m, src->dir, err);
    if (!status) status = open_files(m, src, mode, err);
    if (!status && training(mode)) choose_trained(m, src, mode);
    if (!status && mode != RZ_MODEL_INIT) status = rz_tensors_check(m, src->dir, b.optional, err);
    if (!status && !src->list_only) status = fill_all(&b, src, mode, seed, err);
    if (!status && (mode == RZ_MODEL_INFER || mode == RZ_MODEL_READ)) status = hash_model(m, src->dir, err);
    if (!status) status = rz_tensors_left_over(m, src->dir, err);
    if (!status && src->memory_bytes) status = rz_paging_open(m, src->memory_bytes, err);
    rz_free(m->cfg.host, b.init);
    rz_free(m->cfg.host, b.optional);
    return status;
}

static void close_files(rz_model *m)
{
    rz_weights_close(m->files);
    rz_weights_close(m->tower_files);
    rz_weights_close(m->radz_files);
    rz_lora_close(m->lora);
    rz_free(m->cfg.host, m->unused); /* names in those files */
    m->files = m->tower_files = m->radz_files = m->lora = m->unused = NULL;
    m->n_unused = 0;
}

/* A directory that holds an adapter and no weights stands for its base with the adapter. */
static radz_status find_parts(rz_model *m, const rz_host *host, rz_source *src, radz_error *err)
{
    char *config = NULL, *radz = NULL;
    if (!src->adapter_dir && !rz_weights_exist(host, src->dir)) {
        RZ_TRY(rz_config_file(host, src->dir, "adapter_config.json", &config, err));
        rz_free(host, config);
    }
    if (config) {
        RZ_TRY(rz_lora_base(host, src->dir, &m->base_dir, err));
        src->adapter_dir = src->dir, src->dir = m->base_dir;
    } else if (!(m->base_dir = rz_strdup(host, src->dir)))
        return RZ_NO_MEMORY(err, "model");
    if (src->adapter_dir) RZ_TRY(rz_config_file(host, src->adapter_dir, "radz.json", &radz, err));
    m->radz_dir = rz_strdup(host, radz ? src->adapter_dir : src->dir);
    rz_free(host, radz);
    return m->radz_dir ? RADZ_OK : RZ_NO_MEMORY(err, "model");
}

static radz_status load_model(rz_model *m, const rz_host *host, const rz_source *src, rz_model_mode mode, uint64_t seed,
                              radz_error *err)
{
    rz_source from = *src;
    if (mode == RZ_MODEL_INIT) from.tower = RZ_TOWER_CHECKPOINT; /* random as everything else */
    if (src->precision.type != RZ_WEIGHTS_STORED) {
        m->precision = src->precision;
        if (!(m->precision.keep = rz_strdup(host, src->precision.keep))) return RZ_NO_MEMORY(err, "model");
    }
    m->streamed = src->memory_bytes != 0;
    RZ_TRY(find_parts(m, host, &from, err));
    radz_status status = rz_config_load_from(host, &from, &m->cfg, err);
    m->cfg.host = host;
    RZ_TRY(status);
    RZ_TRY(load_all(m, &from, mode, seed, err));
    if (copies_all(m, mode)) close_files(m);
    m->setup.lora_targets = NULL; /* the caller's */
    return RADZ_OK;
}

static radz_status load_with(const rz_host *host, rz_device *dev, const rz_source *src, const rz_train_setup *setup,
                             rz_model_mode mode, uint64_t seed, rz_model **model, radz_error *err)
{
    *model = NULL;
    rz_model *m = rz_calloc(host, 1, sizeof *m);
    if (!m) return RZ_NO_MEMORY(err, "model");
    m->dev = dev, m->cfg.host = host, m->setup = *setup;
    radz_status status = load_model(m, host, src, mode, seed, err);
    if (status)
        rz_model_unload(m);
    else
        *model = m;
    return status;
}

radz_status rz_model_load_from(const rz_host *host, rz_device *dev, const rz_source *src, rz_model_mode mode,
                               uint64_t seed, rz_model **model, radz_error *err)
{
    const bool all = training(mode);
    const rz_train_setup setup = {.tower = all, .projector = all, .decoder = all};
    return load_with(host, dev, src, &setup, mode, seed, model, err);
}

radz_status rz_model_load(const rz_host *host, rz_device *dev, const char *dir, rz_model_mode mode, uint64_t seed,
                          rz_model **model, radz_error *err)
{
    return rz_model_load_from(host, dev, &(rz_source){.dir = dir}, mode, seed, model, err);
}

static radz_status has_weights(const rz_host *host, const char *dir, bool *yes, radz_error *err)
{
    char *adapter = NULL;
    RZ_TRY(rz_config_file(host, dir, "adapter_config.json", &adapter, err));
    rz_free(host, adapter);
    *yes = adapter || rz_weights_exist(host, dir);
    return RADZ_OK;
}

radz_status rz_model_load_train(const rz_host *host, rz_device *dev, const rz_source *src, const rz_train_setup *setup,
                                uint64_t seed, rz_model **model, radz_error *err)
{
    rz_source from = *src;
    bool weights = false;
    *model = NULL;
    from.new_radz = !setup->all_blocks; /* answers need neither special rows nor heads */
    RZ_TRY(has_weights(host, src->dir, &weights, err));
    return load_with(host, dev, &from, setup, weights ? RZ_MODEL_TRAIN : RZ_MODEL_INIT, seed, model, err);
}

void rz_model_unload(rz_model *m)
{
    if (!m) return;
    const rz_host *host = m->cfg.host;
    for (size_t i = 0; i < m->n_params; i++) {
        if (m->params[i].owned) rz_device_free(m->dev, (void *)(uintptr_t)m->params[i].w.data);
        if (m->params[i].scale_owned) rz_device_free(m->dev, (void *)(uintptr_t)m->params[i].w.scale);
        if (m->params[i].grad) rz_device_free(m->dev, m->params[i].grad);
        rz_free(host, m->params[i].name);
    }
    if (m->inv_freq) rz_device_free(m->dev, m->inv_freq);
    rz_paging_close(m->paging);
    close_files(m);
    rz_tokenizer_close(m->tok);
    rz_free(host, m->params);
    rz_free(host, m->tower);
    rz_free(host, m->decoder);
    rz_free(host, m->pairs);
    rz_free(host, m->base_dir);
    rz_free(host, m->radz_dir);
    rz_free(host, (void *)(uintptr_t)m->precision.keep);
    rz_config_free(&m->cfg);
    rz_free(host, m);
}

bool rz_model_has_weights(const char *dir)
{
    return rz_weights_exist(NULL, dir);
}

double rz_model_tau(const rz_model *m)
{
    float log_tau = 0;
    if (!m->log_tau || !rz_device_is_host(m->dev)) return m->cfg.radz.tau;
    memcpy(&log_tau, m->log_tau->w.data, sizeof log_tau);
    return exp((double)log_tau);
}

const char *rz_model_missing(const rz_model *m)
{
    return !m->cfg.has_vision ? "vision tower"
           : !m->special      ? "radz.json with its special tokens; train it with radz-train first"
           : !m->tok          ? "tokenizer.model or tokenizer.json"
                              : NULL;
}

static radz_status require(bool there, const char *what, radz_error *err)
{
    return there ? RADZ_OK : rz_fail(err, RADZ_E_MISMATCH, "the model cannot make vectors: it has no %s", what);
}

radz_status rz_model_require_radz(const rz_model *m, radz_error *err)
{
    const char *missing = rz_model_missing(m);
    return require(!missing, missing, err);
}

radz_status rz_model_require_texts(const rz_model *m, radz_error *err)
{
    return require(m->tok, "tokenizer.model or tokenizer.json", err);
}

radz_status rz_model_require_films(const rz_model *m, radz_error *err)
{
    RZ_TRY(require(m->cfg.has_vision, "vision tower", err));
    return rz_model_require_texts(m, err);
}

radz_status rz_model_require_writing(const rz_model *m, radz_error *err)
{
    if (!m->tok)
        return rz_fail(err, RADZ_E_MISMATCH, "the model cannot write: it has no tokenizer.model or tokenizer.json");
    if (m->cfg.radz.cannot_write)
        return rz_fail(err, RADZ_E_MISMATCH,
                       "the model cannot write: it was trained for vectors only (radz.json: can_write)");
    return RADZ_OK;
}

uint64_t rz_model_file_bytes(const rz_model *m)
{
    uint64_t n = m->files ? rz_weights_bytes(m->files) : 0;
    if (m->tower_files) n += rz_weights_bytes(m->tower_files);
    return m->lora ? n + rz_lora_bytes(m->lora) : n;
}
