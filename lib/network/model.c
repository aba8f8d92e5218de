/* model.c - a model directory opened: its files, its tokenizer, its adapter, what training changes of it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model.h"

#include "fill.h"
#include "gray.h"
#include "lora.h"
#include "model_hash.h"
#include "packed.h"
#include "pager.h"
#include "tensors.h"
#include "weights.h"

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

static radz_status load_all(rz_model *m, const rz_source *src, rz_model_mode mode, uint64_t seed, radz_error *err)
{
    rz_param_notes notes = {0};
    rz_file_mode how = file_mode(m, mode);
    radz_status status = RADZ_OK;
    if (src->adapter_dir && mode != RZ_MODEL_INIT)
        status = rz_lora_open(m->cfg.host, src->adapter_dir, how, (rz_lora **)&m->lora, err);
    if (!status) status = rz_params_list(m, &notes, err);
    if (!status) status = load_tokenizer(m, src->dir, err);
    if (!status) status = open_files(m, src, mode, err);
    if (!status && training(mode)) choose_trained(m, src, mode);
    if (!status && mode != RZ_MODEL_INIT) status = rz_tensors_check(m, src->dir, notes.optional, err);
    if (!status && !src->list_only) status = rz_model_fill(m, &notes, src->dir, mode, seed, err);
    if (!status && (mode == RZ_MODEL_INFER || mode == RZ_MODEL_READ)) status = rz_model_hash(m, src->dir, err);
    if (!status) status = rz_tensors_left_over(m, src->dir, err);
    const bool fixed = !training(mode) && !src->list_only; /* its weights stay as they are */
    if (!status && fixed) status = rz_model_add_gray(m, err);
    if (!status && src->memory_bytes)
        status = rz_paging_open(m, src->memory_bytes, err);
    else if (!status && fixed)
        status = rz_model_pack(m, err);
    rz_param_notes_free(m->cfg.host, &notes);
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
    if (m->streamed && !rz_device_is_host(m->dev))
        return rz_fail(err, RADZ_E_UNSUPPORTED,
                       "memory_bytes: weights are read as they are needed on the CPU alone: this device holds all of "
                       "them, or fewer bits of each (weights)");
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
    return *yes ? RADZ_OK : rz_weights_refuse_others(host, dir, err); /* not to train from random ones unnoticed */
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
    rz_model_free_gray(m);
    if (m->inv_freq) rz_device_free(m->dev, m->inv_freq);
    if (m->packed) rz_device_free(m->dev, m->packed);
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

double rz_model_tau(const rz_model *m, rz_stream *s)
{
    float log_tau = NAN;
    if (!m->log_tau || !m->log_tau->trained) return m->tau;
    rz_download(s, &log_tau, m->log_tau->w.data, sizeof log_tau);
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
