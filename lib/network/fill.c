/* fill.c - the numbers of a model's parameters: mapped, read, converted or made at random.
 * SPDX-License-Identifier: Apache-2.0 */
#include "fill.h"

#include "lora.h"
#include "precision.h"
#include "rope.h"
#include "tensors.h"
#include "weights.h"

#define PART_BYTES ((size_t)32 << 20) /* of converted weights on their way to a device */
#define ROOM_ALIGN 64                 /* what lies behind is aligned as a beginning is */

/* Room for n_bytes of p's numbers, whose type is known: behind those that they belong behind, where they can lie. */
static radz_status make_room(rz_model *m, rz_param *p, size_t n_bytes, radz_error *err)
{
    const rz_param *before = p->behind;
    void *data = NULL;
    if (before && before->room >= n_bytes && before->w.dtype == p->w.dtype) {
        p->w.data = (const uint8_t *)before->w.data + rz_dtype_bytes(before->w.dtype, before->n);
        p->room = before->room - n_bytes;
        return RADZ_OK;
    }
    if (rz_device_is_half(m->dev) && !p->trained && n_bytes % ROOM_ALIGN == 0)
        p->room = rz_dtype_bytes(p->w.dtype, p->n_behind);
    RZ_TRY(rz_device_alloc(m->dev, n_bytes + p->room, &data, err));
    p->w.data = data, p->owned = true;
    return RADZ_OK;
}

static radz_status to_device(rz_model *m, rz_param *p, const void *host_data, size_t n_bytes, radz_error *err)
{
    RZ_TRY(make_room(m, p, n_bytes, err));
    rz_upload(m->filling, (void *)(uintptr_t)p->w.data, host_data, n_bytes);
    return RADZ_OK;
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

/* Room for a matrix of other numbers. */
static radz_status alloc_matrix(rz_model *m, rz_param *p, radz_error *err)
{
    void *scale = NULL;
    RZ_TRY(make_room(m, p, rz_dtype_bytes(p->w.dtype, p->n), err));
    if (rz_dtype_is_float(p->w.dtype)) return RADZ_OK;
    RZ_TRY(rz_device_alloc(m->dev, p->dims[0] * rz_mat_groups(p->w) * sizeof(uint16_t), &scale, err));
    p->w.scale = scale, p->scale_owned = true;
    return RADZ_OK;
}

/* Rows into p, whose memory is there: at once, or where the device's memory is its own, part by part. */
static radz_status convert(rz_model *m, const rz_param *p, const rz_matrix_source *from, radz_error *err)
{
    const bool direct = rz_device_is_host(m->dev);
    const size_t row = rz_dtype_bytes(p->w.dtype, from->cols), scales = rz_mat_groups(p->w) * sizeof(uint16_t);
    const size_t step = direct || PART_BYTES / row >= from->rows ? from->rows : PART_BYTES / row + 1;
    uint8_t *data = (uint8_t *)(uintptr_t)p->w.data, *scale = (uint8_t *)(uintptr_t)p->w.scale;
    uint8_t *part = direct ? NULL : rz_malloc(m->cfg.host, step * (row + scales));
    radz_status status = direct || part ? RADZ_OK : RZ_NO_MEMORY(err, p->name);
    for (size_t r = 0, n; r < from->rows && !status; r += n) {
        n = from->rows - r < step ? from->rows - r : step;
        uint8_t *to = direct ? data : part + step * scales, *to_scale = direct ? scale : part;
        status = rz_precision_convert(m->cfg.host, rz_device_pool(m->dev), from, r, n, p->w.dtype, p->w.group, to,
                                      (uint16_t *)(void *)to_scale, err);
        if (direct || status) continue;
        rz_upload(m->filling, data + r * row, to, n * row);
        if (scales) rz_upload(m->filling, scale + r * scales, to_scale, n * scales);
    }
    rz_free(m->cfg.host, part);
    return status;
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
    if (!status) status = convert(m, p, &from, err);
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
    void *scale = NULL;
    RZ_TRY(rz_device_alloc(m->dev, q.scale->n_bytes, &scale, err));
    p->w.scale = scale, p->scale_owned = true;
    rz_upload(m->filling, scale, q.scale->data, q.scale->n_bytes);
    return RADZ_OK;
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
    p->w.compute = m->setup.half_products && p->n_dims == 2 ? RZ_BF16 : compute;
    if ((converts || merged) && m->streamed)
        return rz_fail(
            err, RADZ_E_UNSUPPORTED,
            "tensor '%s': weights that are read as they are needed cannot be changed first: write them so with "
            "radz-quantize",
            p->name);
    if (converts) return fill_converted(m, p, t, dtype, err);
    return merged ? fill_float(m, p, t, err) : fill_as_stored(m, p, t, err);
}

/* What has gone to a device's own memory need not stay in the host's. */
static void forget_files(const rz_model *m)
{
    rz_weights *const all[] = {m->files, m->radz_files, m->tower_files};
    for (size_t i = 0; i < RZ_COUNT(all); i++)
        if (all[i]) rz_weights_forget(all[i]);
}

static radz_status fill_params(rz_model *m, const rz_param_notes *notes, rz_model_mode mode, uint64_t seed,
                               radz_error *err)
{
    size_t n_bytes = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        rz_param *p = &m->params[i];
        if (mode == RZ_MODEL_INIT || p->fresh)
            RZ_TRY(init_param(m, p, notes->init[i], seed, err));
        else
            RZ_TRY(load_param(m, p, p->as_float || p->trained, err));
        n_bytes += rz_mat_bytes(p->w, p->dims[0]);
        if (rz_device_is_host(m->dev) || n_bytes < PART_BYTES) continue;
        forget_files(m);
        n_bytes = 0;
    }
    m->lora_merged = m->lora != NULL;
    m->cfg.text.tied &= !m->lm_head;
    return RADZ_OK;
}

/* A damaged log_tau would turn every probability into NaN. */
static radz_status read_tau(rz_model *m, const char *dir, radz_error *err)
{
    float log_tau = 0;
    if (m->log_tau) rz_download(m->filling, &log_tau, m->log_tau->w.data, sizeof log_tau);
    RZ_TRY(rz_stream_sync(m->filling, err));
    m->tau = m->log_tau ? exp((double)log_tau) : m->cfg.radz.tau;
    if (m->tau >= 1e-4 && m->tau <= 100.0) return RADZ_OK;
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

static radz_status fill(rz_model *m, const rz_param_notes *notes, const char *dir, rz_model_mode mode, uint64_t seed,
                        radz_error *err)
{
    const radz_status status = fill_params(m, notes, mode, seed, err);
    if (status && mode != RZ_MODEL_INIT) rz_fail_prefix(err, status, "%s", dir);
    RZ_TRY(status);
    RZ_TRY(rz_tensors_of_adapter(m, err));
    RZ_TRY(make_inv_freq(m, err));
    return read_tau(m, dir, err);
}

radz_status rz_model_fill(rz_model *m, const rz_param_notes *notes, const char *dir, rz_model_mode mode, uint64_t seed,
                          radz_error *err)
{
    RZ_TRY(rz_stream_open(m->dev, &m->filling, err));
    const radz_status status = fill(m, notes, dir, mode, seed, err);
    rz_stream_close(m->filling);
    m->filling = NULL;
    return status;
}
