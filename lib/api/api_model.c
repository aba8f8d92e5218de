/* Public: model and session.
 * SPDX-License-Identifier: Apache-2.0 */
#include "handles.h"
#include "memory.h"
#include "lora.h"
#include "pager.h"
#include "precision.h"
#include "reuse.h"

/* ---- Model ---- */

void radz_model_options_init_sized(radz_model_options *options, size_t struct_size)
{
    const radz_model_options defaults = {.struct_size = sizeof defaults, .use_mmap = 1};
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

/* Last component of a path: "a/b/" -> "b". */
static char *dir_name(const rz_host *host, const char *dir)
{
    size_t end = strlen(dir);
    while (end > 1 && dir[end - 1] == '/') end--;
    size_t start = end;
    while (start > 0 && dir[start - 1] != '/') start--;
    return rz_strndup(host, dir + start, end - start);
}

static void model_free(radz_model *m)
{
    radz_runtime *rt = m->runtime;
    rz_model_unload(m->net);
    rz_free(&rt->host, m->name);
    rz_free(&rt->host, m->weights);
    rz_free(&rt->host, m);
    radz_runtime_close(rt);
}

radz_status rz_tower_source_of(radz_vision_source given, const char *function, rz_tower_source *out, radz_error *err)
{
    switch (given) {
    case RADZ_VISION_AUTO:
        *out = RZ_TOWER_AUTO;
        return RADZ_OK;
    case RADZ_VISION_CHECKPOINT:
        *out = RZ_TOWER_CHECKPOINT;
        return RADZ_OK;
    case RADZ_VISION_EXTERNAL:
        *out = RZ_TOWER_EXTERNAL;
        return RADZ_OK;
    }
    return rz_fail(err, RADZ_E_ARGUMENT, "%s: vision_source %d is not known", function, (int)given);
}

/* On a GPU, beside a film's own memory: the workspace of products. */
enum { BESIDE_FILM = 64 << 20 };

/* Loads it there, and says RADZ_E_MEMORY too where a film would find no room beside it. */
static radz_status load_on(radz_model *m, rz_device *dev, const rz_source *source, rz_model_mode mode, radz_error *err)
{
    size_t n_free, n_all;
    RZ_TRY(rz_model_load_from(&m->runtime->host, dev, source, mode, 0, &m->net, err));
    const uint64_t film = rz_net_film_bytes(m->net) + BESIDE_FILM;
    if (!rz_device_memory(dev, &n_free, &n_all) || n_free >= film) return RADZ_OK;
    rz_model_unload(m->net);
    m->net = NULL;
    return rz_fail(err, RADZ_E_MEMORY, "out of memory: the model leaves %zu bytes of the GPU's %zu, a film needs %llu",
                   n_free, n_all, (unsigned long long)film);
}

static radz_status load(radz_model *m, const rz_source *source, rz_model_mode mode, radz_error *err)
{
    rz_device *cpu;
    radz_error why = {0};
    radz_status status = load_on(m, m->runtime->dev, source, mode, &why);
    const bool is_large = status == RADZ_E_MEMORY || (status && source->memory_bytes); /* streamed: on the CPU alone */
    if (is_large && rz_runtime_fall_back(m->runtime, why.message, &cpu)) status = load_on(m, cpu, source, mode, &why);
    if (status && err) *err = why;
    return status;
}

static radz_status model_fill(radz_model *m, const char *dir, const radz_model_options *o, radz_error *err)
{
    const rz_host *host = &m->runtime->host;
    m->name = dir_name(host, dir);
    if (!m->name) return RZ_NO_MEMORY(err, "model");
    rz_source source = {.dir = dir, .vision_dir = o->vision_dir, .adapter_dir = o->adapter_dir};
    RZ_TRY(rz_tower_source_of(o->vision_source, "radz_model_open", &source.tower, err));
    source.memory_bytes = o->memory_bytes;
    if (o->memory_bytes && !o->use_mmap)
        return rz_fail(err, RADZ_E_ARGUMENT, "radz_model_open: memory_bytes and use_mmap 0 do not go together");
    RZ_TRY(rz_precision_parse(o->weights, 0, o->keep_weights, &source.precision, err));
    RZ_TRY(load(m, &source, o->use_mmap ? RZ_MODEL_INFER : RZ_MODEL_READ, err));
    if (m->net->lora) {
        rz_sha256 hash;
        rz_sha256_init(&hash);
        rz_lora_hash(m->net->lora, &hash);
        rz_sha256_hex(&hash, m->adapter_hash);
    }
    rz_str text = {.host = host};
    rz_precision_text(&m->net->precision, &text);
    m->weights = text.data;
    return text.failed ? RZ_NO_MEMORY(err, "model") : RADZ_OK;
}

radz_status radz_model_open(radz_runtime *runtime, const char *dir, const radz_model_options *options,
                            radz_model **model, radz_error *err)
{
    if (model) *model = NULL;
    RZ_NEED(model);
    RZ_NEED(dir);
    RZ_LIVE_OR_NULL(runtime);
    radz_model_options o;
    radz_model_options_init(&o);
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    radz_runtime *rt = NULL;
    RZ_TRY(rz_runtime_share(runtime, &rt, err));
    radz_model *m = rz_calloc(&rt->host, 1, sizeof *m);
    if (!m) {
        radz_runtime_close(rt);
        return RZ_NO_MEMORY(err, "model");
    }
    rz_handle_init(&m->h);
    m->runtime = rt;
    radz_status status = model_fill(m, dir, &o, err);
    if (status != RADZ_OK) {
        model_free(m);
        return status;
    }
    *model = m;
    return RADZ_OK;
}

void radz_model_close(radz_model *model)
{
    if (model && rz_handle_drop(&model->h)) model_free(model);
}

size_t radz_model_embedding_dim(const radz_model *model)
{
    return model ? model->net->cfg.radz.dim : 0;
}
const char *radz_model_hash(const radz_model *model)
{
    return model ? model->net->hash : NULL;
}
const char *radz_model_family(const radz_model *model)
{
    return model ? model->net->family : NULL;
}
const char *radz_model_name(const radz_model *model)
{
    return model ? model->name : NULL;
}
const char *radz_model_device(const radz_model *model)
{
    return model ? rz_device_name(model->net->dev) : NULL;
}

/* ---- What a model is ---- */

void radz_model_info_init_sized(radz_model_info *info, size_t struct_size)
{
    const radz_model_info defaults = {.struct_size = sizeof defaults};
    rz_options_give(info, struct_size, &defaults, sizeof defaults);
}

/* Parameters by dtype, and their memory. */
static void count_weights(const rz_model *m, radz_model_info *info)
{
    static const char *const names[] = {
        [RZ_F32] = "f32", [RZ_F16] = "f16", [RZ_BF16] = "bf16", [RZ_I8] = "int8", [RZ_I4] = "int4"};
    uint64_t count[RZ_COUNT(names)] = {0};
    size_t most = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        const rz_param *p = &m->params[i];
        if (!p->w.data) continue;
        count[p->w.dtype] += p->n;
        info->n_parameters += p->n;
        info->weight_bytes += rz_mat_bytes(p->w, p->n / p->w.ld);
    }
    for (size_t i = 1; i < RZ_COUNT(names); i++)
        if (count[i] > count[most]) most = i;
    info->dtype = names[most];
}

static void fill_vision(const rz_config *cfg, radz_model_info *info)
{
    const rz_vision_config *v = &cfg->vision;
    if (!cfg->has_vision) return;
    info->tower_source = cfg->vision_dir ? cfg->vision_dir : "model";
    info->vision_hidden = v->hidden, info->vision_intermediate = v->intermediate;
    info->vision_layers = v->layers, info->vision_heads = v->heads;
    info->image_size_px = v->image_size, info->patch_px = v->patch;
    info->image_rows = cfg->image_rows;
    info->feature_layer = cfg->feature_layers[0];
}

static void fill_text(const rz_config *cfg, radz_model_info *info)
{
    const rz_text_config *t = &cfg->text;
    info->text_hidden = t->hidden, info->text_intermediate = t->intermediate;
    info->text_layers = t->layers, info->text_heads = t->heads, info->text_kv_heads = t->kv_heads;
    info->head_dim = t->head_dim;
    info->vocab = t->vocab, info->max_positions = t->max_positions, info->window = t->window;
    info->embedding_dim = cfg->radz.dim;
    info->n_image_tokens = cfg->radz.n_image_tokens, info->n_text_tokens = cfg->radz.n_text_tokens;
    info->layer = cfg->radz.layer;
    info->n_head_classes = cfg->radz.n_classes;
}

static void fill_adapter(const radz_model *model, radz_model_info *info)
{
    const rz_lora *lora = model->net->lora;
    if (!lora) return;
    info->adapter = rz_lora_dir(lora);
    info->adapter_hash = model->adapter_hash;
    info->adapter_rank = rz_lora_rank(lora);
}

static void fill_info(const radz_model *model, radz_model_info *info)
{
    const rz_model *m = model->net;
    count_weights(m, info);
    fill_vision(&m->cfg, info);
    fill_text(&m->cfg, info);
    fill_adapter(model, info);
    info->tokenizer = m->tok ? rz_tokenizer_name(m->tok) : NULL;
    info->tokenizer_hash = m->tok ? rz_tokenizer_hash(m->tok) : NULL;
    info->missing = rz_model_missing(m);
    info->n_unused_tensors = m->n_unused;
    info->unused_tensor = m->n_unused ? m->unused[0] : NULL;
    info->file_bytes = rz_model_file_bytes(m);
    info->film_bytes = rz_net_film_bytes(m);
    info->tau = rz_model_tau(m, NULL);
    info->weights = model->weights;
    info->streamed_bytes = rz_paging_film_bytes(m->paging);
    info->peak_bytes = rz_model_peak_bytes(m);
}

radz_status radz_model_get_info(const radz_model *model, radz_model_info *info, radz_error *err)
{
    radz_model_info all;
    RZ_NEED(info);
    RZ_LIVE(model);
    RZ_TRY(rz_struct_size_check(info->struct_size, __func__, "info", err));
    radz_model_info_init(&all);
    fill_info(model, &all);
    rz_options_give(info, info->struct_size, &all, sizeof all);
    return RADZ_OK;
}

const char *radz_model_unused_tensor(const radz_model *model, size_t i)
{
    return model && i < model->net->n_unused ? model->net->unused[i] : NULL;
}

/* ---- Session ---- */

void radz_session_options_init_sized(radz_session_options *options, size_t struct_size)
{
    const radz_session_options defaults = {.struct_size = sizeof defaults};
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

radz_status radz_session_open(radz_model *model, const radz_session_options *options, radz_session **session,
                              radz_error *err)
{
    if (session) *session = NULL;
    RZ_NEED(session);
    RZ_LIVE(model);
    radz_session_options o;
    radz_session_options_init(&o);
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    if (o.keep_film != 0 && o.keep_film != 1)
        return rz_fail(err, RADZ_E_ARGUMENT, "radz_session_open: keep_film: expected 0 or 1, got %d", o.keep_film);
    if (o.strict != 0 && o.strict != 1)
        return rz_fail(err, RADZ_E_ARGUMENT, "radz_session_open: strict: expected 0 or 1, got %d", o.strict);
    const rz_host *host = &model->runtime->host;
    radz_session *s = rz_calloc(host, 1, sizeof *s);
    if (!s) return RZ_NO_MEMORY(err, "session");
    rz_handle_init(&s->h);
    s->net = (rz_net){.model = model->net, .cancel_fn = o.cancel_fn, .user = o.user};
    radz_status status = rz_stream_open(model->net->dev, &s->net.s, err);
    if (!status && (status = rz_reuse_open(model->net, o.keep_film, &s->net.reuse, err))) rz_stream_close(s->net.s);
    if (!status && (status = rz_pager_open(model->net, &s->net.pager, err))) {
        rz_reuse_close(s->net.reuse);
        rz_stream_close(s->net.s);
    }
    if (status != RADZ_OK) {
        rz_free(host, s);
        return status;
    }
    rz_handle_hold(&model->h);
    s->model = model;
    s->strict = o.strict;
    *session = s;
    return RADZ_OK;
}

void radz_session_close(radz_session *session)
{
    if (!session || !rz_handle_drop(&session->h)) return;
    radz_model *model = session->model;
    rz_pager_close(session->net.pager);
    rz_reuse_close(session->net.reuse);
    rz_stream_close(session->net.s);
    rz_bank_free(session->own_bank);
    rz_free(&model->runtime->host, session);
    radz_model_close(model);
}

size_t radz_session_bytes(const radz_session *session)
{
    if (!session) return 0;
    return rz_arena_peak(session->net.s) + rz_reuse_bytes(session->net.reuse) +
           (size_t)rz_paging_ring_bytes(session->net.model->paging);
}
