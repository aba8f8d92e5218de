/* optimizer.c - AdamW over the parameters that the vectors depend on. SPDX-License-Identifier: Apache-2.0 */
#include "optimizer.h"

#define SLOT_ALIGN ((size_t)16) /* floats: 64 bytes */

static bool owns_norm(const rz_norm *n, const rz_param *p)
{
    return p == n->w || p == n->b;
}
static bool owns_linear(const rz_linear *l, const rz_param *p)
{
    return p == l->w || p == l->b;
}

static bool in_decoder_block(const rz_decoder_block *b, const rz_param *p)
{
    return owns_norm(&b->in, p) || owns_norm(&b->post, p) || owns_linear(&b->q, p) || owns_linear(&b->k, p) ||
           owns_linear(&b->v, p) || owns_linear(&b->o, p) || owns_linear(&b->gate, p) || owns_linear(&b->up, p) ||
           owns_linear(&b->down, p);
}

static bool in_tower_block(const rz_tower_block *b, const rz_param *p)
{
    return owns_norm(&b->ln1, p) || owns_norm(&b->ln2, p) || owns_linear(&b->q, p) || owns_linear(&b->k, p) ||
           owns_linear(&b->v, p) || owns_linear(&b->o, p) || owns_linear(&b->fc1, p) || owns_linear(&b->fc2, p);
}

static bool in_head(const rz_head *h, const rz_param *p)
{
    return owns_norm(&h->norm, p) || owns_linear(&h->l1, p) || owns_linear(&h->l2, p);
}

/* Of radz.safetensors: what the loss has nothing to do with. With a linear head and nothing else to train, X_g stays.
 */
static bool unused_radz(const rz_model *m, const rz_param *p)
{
    const rz_train_setup *t = &m->setup;
    const bool frozen = t->classes && !t->tower && !t->projector && !t->decoder && !t->lora_rank;
    if (t->all_blocks) return p->radz;
    if (owns_linear(&m->classifier, p)) return !t->classes;
    if (p == m->log_tau || in_head(&m->gamma_txt, p) || in_head(&m->gamma_dis, p)) return t->classes;
    return p->radz && frozen;
}

/* True for what lies behind the layers that the loss is read from. */
static bool unused(const rz_model *m, const rz_param *p)
{
    const bool all = m->setup.all_blocks;
    if (p->radz && unused_radz(m, p)) return true;
    if (owns_norm(&m->tower_post, p)) return true;
    if (!all && ((p == m->lm_head && p != m->embed) || owns_norm(&m->decoder_norm, p))) return true;
    for (size_t i = all ? m->cfg.text.layers : rz_config_decoder_blocks(&m->cfg); i < m->cfg.text.layers; i++)
        if (in_decoder_block(&m->decoder[i], p)) return true;
    for (size_t i = rz_config_tower_blocks(&m->cfg); m->cfg.has_vision && i < m->cfg.vision.layers; i++)
        if (in_tower_block(&m->tower[i], p)) return true;
    return false;
}

static bool decays(const rz_model *m, const rz_param *p)
{
    return p->n_dims >= 2 && p != m->special && p != m->positions && p != m->class_row && p != m->log_tau;
}

static radz_status choose_slots(rz_model *model, bool learn_tau, rz_optimizer *o, radz_error *err)
{
    o->slots = rz_calloc(o->host, model->n_params ? model->n_params : 1, sizeof *o->slots);
    if (!o->slots) return RZ_NO_MEMORY(err, "optimiser");
    for (size_t i = 0; i < model->n_params; i++) {
        rz_param *p = &model->params[i];
        if (!p->w.data || !p->trained || unused(model, p) || (p == model->log_tau && !learn_tau)) continue;
        if (p->w.dtype != RZ_F32)
            return rz_fail(err, RADZ_E_INTERNAL, "parameter '%s' was not loaded for training", p->name);
        o->slots[o->n_slots++] = (rz_slot){p, p->grad, (float *)p->w.data, false, o->n_floats, decays(model, p)};
        size_t n = (p->n + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
        if (!rz_size_add(o->n_floats, n, &o->n_floats)) return RZ_NO_MEMORY(err, "optimiser");
    }
    o->log_tau = learn_tau ? model->log_tau : NULL;
    return RADZ_OK;
}

static radz_status allocate(rz_optimizer *o, rz_stream *s, radz_error *err)
{
    size_t n_bytes;
    void *p;
    if (!rz_size_mul(o->n_floats, 3 * sizeof(float), &n_bytes)) return RZ_NO_MEMORY(err, "optimiser");
    RZ_TRY(rz_device_alloc(o->dev, n_bytes, &p, err));
    o->grad = p, o->m = o->grad + o->n_floats, o->v = o->m + o->n_floats;
    rz_fill(s, o->grad, 0, 3 * o->n_floats);
    for (size_t i = 0; i < o->n_slots; i++) o->slots[i].p->grad = o->grad + o->slots[i].offset;
    return rz_stream_sync(s, err);
}

static bool may_be_half(const rz_model *m, const rz_param *p)
{
    return p->n_dims >= 2 && !p->radz && !p->adapter && p != m->positions;
}

static radz_status make_half(rz_optimizer *o, rz_stream *s, rz_slot *slot, radz_error *err)
{
    void *half = NULL;
    RZ_TRY(rz_device_alloc(o->dev, slot->p->n * sizeof(uint16_t), &half, err));
    slot->half = true; /* the floats are the slot's now */
    slot->p->w = (rz_mat){.data = half, .dtype = RZ_BF16, .ld = slot->p->w.ld};
    rz_to_bf16(s, half, slot->w, slot->p->n);
    return RADZ_OK;
}

radz_status rz_optimizer_open(const rz_host *host, rz_model *model, rz_stream *s, bool learn_tau, bool bf16,
                              rz_optimizer *out, radz_error *err)
{
    *out = (rz_optimizer){.host = host, .dev = model->dev};
    radz_status st = choose_slots(model, learn_tau, out, err);
    if (!st) st = allocate(out, s, err);
    for (size_t i = 0; i < out->n_slots && bf16 && !st; i++)
        if (may_be_half(model, out->slots[i].p)) st = make_half(out, s, &out->slots[i], err);
    if (!st) st = rz_stream_sync(s, err);
    if (st) rz_optimizer_close(out);
    return st;
}

void rz_optimizer_close(rz_optimizer *o)
{
    for (size_t i = 0; o->grad && i < o->n_slots; i++) {
        o->slots[i].p->grad = o->slots[i].old_grad;
        if (o->slots[i].half) rz_device_free(o->dev, o->slots[i].w);
    }
    if (o->grad) rz_device_free(o->dev, o->grad);
    if (o->average) rz_device_free(o->dev, o->average);
    rz_free(o->host, o->slots);
    memset(o, 0, sizeof *o);
}

void rz_optimizer_zero(rz_optimizer *o, rz_stream *s)
{
    rz_fill(s, o->grad, 0, o->n_floats);
}

void rz_optimizer_put(rz_optimizer *o, rz_stream *s)
{
    for (size_t i = 0; i < o->n_slots; i++)
        if (o->slots[i].half)
            rz_to_bf16(s, (uint16_t *)(uintptr_t)o->slots[i].p->w.data, o->slots[i].w, o->slots[i].p->n);
}

/* ---- The weights' average ---------------------------------------------------------------------------- */

/* All weights in one piece of the arena, as the average lies. */
static float *gather_weights(const rz_optimizer *o, rz_stream *s)
{
    float *all = rz_arena_zeros(s, 1, o->n_floats);
    for (size_t i = 0; i < o->n_slots && all; i++)
        rz_copy(s, all + o->slots[i].offset, o->slots[i].w, o->slots[i].p->n * sizeof *all);
    return all;
}

radz_status rz_optimizer_average_open(rz_optimizer *o, rz_stream *s, radz_error *err)
{
    size_t n_bytes = o->n_floats * sizeof(float);
    void *p;
    RZ_TRY(rz_device_alloc(o->dev, n_bytes ? n_bytes : 1, &p, err));
    o->average = p;
    rz_mark mark = rz_arena_mark(s);
    float *all = gather_weights(o, s);
    if (all) rz_copy(s, o->average, all, n_bytes);
    radz_status st = rz_stream_sync(s, err);
    rz_arena_release(s, mark);
    return st;
}

void rz_optimizer_average(rz_optimizer *o, rz_stream *s, double decay, int64_t step)
{
    if (!o->average || step % RZ_AVERAGE_EVERY) return;
    double n = (double)(step / RZ_AVERAGE_EVERY), young = (1 + n) / (10 + n), a = pow(decay, RZ_AVERAGE_EVERY);
    if (young < a) a = young;
    rz_mark mark = rz_arena_mark(s);
    float *all = gather_weights(o, s);
    if (all) {
        rz_scale(s, all, (float)(1 - a), o->n_floats);
        rz_scale(s, o->average, (float)a, o->n_floats);
        rz_add(s, o->average, all, o->n_floats);
    }
    rz_arena_release(s, mark);
}

void rz_optimizer_swap(rz_optimizer *o, rz_stream *s)
{
    if (!o->average) return;
    rz_mark mark = rz_arena_mark(s);
    float *all = gather_weights(o, s);
    for (size_t i = 0; i < o->n_slots && all; i++)
        rz_copy(s, o->slots[i].w, o->average + o->slots[i].offset, o->slots[i].p->n * sizeof *all);
    if (all) rz_copy(s, o->average, all, o->n_floats * sizeof *all);
    rz_arena_release(s, mark);
    rz_optimizer_put(o, s);
}

/* ---- Steps ------------------------------------------------------------------------------------------- */

void rz_set_tau(rz_param *log_tau, rz_stream *s, double tau)
{
    float value = (float)log(tau);
    rz_upload(s, (void *)log_tau->w.data, &value, sizeof value);
}

static void clamp_tau(const rz_optimizer *o, rz_stream *s)
{
    float value = 0;
    rz_download(s, &value, o->log_tau->w.data, sizeof value);
    if (value < logf((float)RZ_TAU_MIN)) rz_set_tau(o->log_tau, s, RZ_TAU_MIN);
    if (value > logf((float)RZ_TAU_MAX)) rz_set_tau(o->log_tau, s, RZ_TAU_MAX);
}

static void move_weights(const rz_optimizer *o, rz_stream *s, const rz_adamw *adam)
{
    const rz_mark mark = rz_arena_mark(s);
    rz_adamw_slot *slots = rz_arena_host(s, o->n_slots, sizeof *slots);
    for (size_t i = 0; i < o->n_slots && slots; i++) {
        const rz_slot *from = &o->slots[i];
        slots[i] = (rz_adamw_slot){.w = from->w,
                                   .m = o->m + from->offset,
                                   .v = o->v + from->offset,
                                   .g = from->p->grad,
                                   .half = from->half ? (uint16_t *)(uintptr_t)from->p->w.data : NULL,
                                   .n = from->p->n,
                                   .decay = from->decay};
    }
    if (slots) rz_adamw_step(s, adam, slots, o->n_slots);
    rz_arena_release(s, mark);
}

radz_status rz_optimizer_step(rz_optimizer *o, rz_stream *s, rz_adamw adam, double clip_norm, double *norm,
                              radz_error *err)
{
    *norm = sqrt(rz_sumsq(s, o->grad, o->n_floats));
    RZ_TRY(rz_stream_sync(s, err));
    if (!isfinite(*norm))
        return rz_fail(err, RADZ_E_STATE, "step %lld: the gradient is not finite: the training diverged",
                       (long long)adam.step);
    adam.grad_scale = clip_norm > 0 && *norm > clip_norm ? (float)(clip_norm / *norm) : 1.0f;
    move_weights(o, s, &adam);
    if (o->log_tau) clamp_tau(o, s);
    return rz_stream_sync(s, err);
}

double rz_learning_rate(double lr, double warmup_fraction, int64_t step, int64_t n_steps)
{
    double warmup = ceil(warmup_fraction * (double)n_steps), done = (double)(step - 1);
    if (done < warmup) return lr * (done + 1) / warmup;
    double rest = (double)n_steps - warmup;
    return 0.5 * lr * (1 + cos(3.14159265358979323846 * (done - warmup) / (rest > 0 ? rest : 1)));
}
