/* save.c - a model, or the LoRA it was trained with, to files. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "model.h"
#include "weights.h"

static void put_float(void *out, size_t i, bool bf16, float v)
{
    uint16_t half = rz_f32_to_bf16(v);
    memcpy((uint8_t *)out + (bf16 ? 2 : 4) * i, bf16 ? (void *)&half : (void *)&v, bf16 ? 2 : 4);
}

static float get_integer(const rz_mat *w, size_t i)
{
    const size_t g = i / w->ld * rz_mat_groups(*w) + i % w->ld / w->group;
    const uint8_t *q = w->data;
    const int v = w->dtype == RZ_I8 ? (int8_t)q[i] : (q[i / 2] >> (i & 1 ? 4 : 0) & 15) - 8;
    float scale;
    uint16_t half;
    if (w->scale_dtype == RZ_F32) {
        memcpy(&scale, (const uint8_t *)w->scale + 4 * g, sizeof scale);
    } else {
        memcpy(&half, (const uint8_t *)w->scale + 2 * g, sizeof half);
        scale = rz_bf16_to_f32(half);
    }
    return (float)v * scale;
}

static float get_float(const rz_mat *w, size_t i)
{
    float v;
    uint16_t half;
    if (!rz_dtype_is_float(w->dtype)) return get_integer(w, i);
    if (w->dtype == RZ_F32) {
        memcpy(&v, (const uint8_t *)w->data + 4 * i, sizeof v);
        return v;
    }
    memcpy(&half, (const uint8_t *)w->data + 2 * i, sizeof half);
    return w->dtype == RZ_BF16 ? rz_bf16_to_f32(half) : rz_f16_to_f32(half);
}

static const rz_lowrank *pair_of(const rz_model *m, const rz_param *p)
{
    for (size_t i = 0; i < m->n_pairs; i++)
        if (m->pairs[i].base == p) return &m->pairs[i];
    return NULL;
}

/* Rows that are in memory at once as floats: about 4 MiB of them. */
static size_t chunk_rows(size_t rows, size_t cols)
{
    size_t n = ((size_t)1 << 20) / (cols ? cols : 1);
    return n < 1 ? 1 : n < rows ? n : rows;
}

/* Rows from `first` on as they are, in host memory. */
static rz_mat fetch_rows(rz_stream *s, const rz_mat *w, size_t first, size_t n)
{
    const size_t skip = rz_dtype_bytes(w->dtype, first * w->ld), n_bytes = rz_dtype_bytes(w->dtype, n * w->ld);
    const size_t scale = rz_dtype_bytes(w->scale_dtype, rz_mat_groups(*w)); /* of a row */
    uint8_t *data = rz_arena_host(s, n_bytes, 1), *scales = scale ? rz_arena_host(s, n, scale) : NULL;
    rz_mat rows = *w;
    rows.data = data, rows.scale = scales;
    if (rz_stream_failed(s)) return rows;
    rz_download(s, data, (const uint8_t *)w->data + skip, n_bytes);
    if (scale) rz_download(s, scales, (const uint8_t *)w->scale + first * scale, n * scale);
    return rows;
}

/* w + scale B A, as a loader of the adapter would add it. */
static void add_pair(rz_stream *s, const rz_lowrank *l, size_t first, size_t n, size_t cols, float *w)
{
    const size_t r = l->a->dims[0];
    float *sum = rz_arena_f32(s, n, cols);
    rz_upload(s, sum, w, n * cols * sizeof *w);
    rz_gemm(s, false, false, n, cols, r, l->scale, rz_mat_f32((const float *)l->b->w.data + first * r, r), l->a->w,
            1.0f, sum, cols);
    rz_download(s, w, sum, n * cols * sizeof *w);
}

/* Rows from `first` on. */
static void get_rows(rz_stream *s, const rz_param *p, const rz_lowrank *l, size_t first, size_t n, float *out)
{
    const size_t cols = p->n / p->dims[0];
    const rz_mark mark = rz_arena_mark(s);
    const rz_mat rows = fetch_rows(s, &p->w, first, n);
    for (size_t i = 0; i < n * cols && !rz_stream_failed(s); i++) out[i] = get_float(&rows, i);
    if (l) add_pair(s, l, first, n, cols, out);
    rz_arena_release(s, mark);
}

/* A parameter's values in the dtype to write, a few rows at a time. */
static radz_status put_param(const rz_model *m, const rz_param *p, bool bf16, rz_writer *w, radz_error *err)
{
    const size_t rows = p->dims[0], cols = p->n / rows, step = chunk_rows(rows, cols);
    float *values = rz_malloc(m->cfg.host, step * cols * sizeof *values);
    rz_stream *s = NULL;
    radz_status status = values ? rz_stream_open(m->dev, &s, err) : RZ_NO_MEMORY(err, p->name);
    for (size_t i = 0; i < rows && !status; i += step) {
        const size_t n = rows - i < step ? rows - i : step;
        get_rows(s, p, pair_of(m, p), i, n, values);
        status = rz_stream_sync(s, err);
        /* in place: what is written never lies behind what is still to be read */
        for (size_t k = 0; bf16 && k < n * cols; k++) put_float(values, k, bf16, values[k]);
        if (!status) status = rz_writer_put(w, values, n * cols * (bf16 ? 2 : 4), err);
    }
    if (s) rz_stream_close(s);
    rz_free(m->cfg.host, values);
    return status;
}

/* ---- Files of parameters ------------------------------------------------------------------- */

typedef enum part { MODEL, RADZ, ADAPTER } part;

static part part_of(const rz_param *p)
{
    return p->radz ? RADZ : p->adapter ? ADAPTER : MODEL;
}

/* Module names of the class that a checkpoint is loaded as: transformers' LLaVA keeps its decoder in
 * model.language_model, a text model or the LLaVA authors' own in model. */
static void module_prefix(const rz_model *m, char *out, size_t size)
{
    snprintf(out, size, m->cfg.has_vision && !m->cfg.original ? "model.language_model." : "model.");
}

/* peft's name of a parameter of an adapter. */
static char *adapter_name(const rz_model *m, const rz_param *p)
{
    static const char ours[] = "language_model.model.";
    char prefix[32];
    rz_str s = {.host = m->cfg.host};
    module_prefix(m, prefix, sizeof prefix);
    rz_str_printf(&s, "base_model.model.%s%s", prefix, p->name + sizeof ours - 1);
    if (!s.failed) return s.data;
    rz_str_free(&s);
    return NULL;
}

typedef struct out_list {
    const rz_model *m;
    rz_st_out *out;
    const rz_param **params; /* of each */
    size_t n;
} out_list;

static void out_free(out_list *l)
{
    for (size_t i = 0; l->out && i < l->n; i++) rz_free(l->m->cfg.host, (void *)(uintptr_t)l->out[i].name);
    rz_free(l->m->cfg.host, l->out);
    rz_free(l->m->cfg.host, l->params);
}

static radz_status out_add(out_list *l, const rz_param *p, bool bf16, radz_error *err)
{
    const rz_model *m = l->m;
    rz_st_out *o = &l->out[l->n];
    l->params[l->n++] = p;
    bf16 &= p != m->log_tau;
    *o = (rz_st_out){.dtype = bf16 ? "BF16" : "F32", .n_dims = p->n_dims};
    for (size_t d = 0; d < p->n_dims; d++) o->dims[d] = p->dims[d];
    o->name = p->adapter ? adapter_name(m, p) : rz_strdup(m->cfg.host, p->name);
    return o->name ? RADZ_OK : RZ_NO_MEMORY(err, p->name);
}

static radz_status put_out(void *user, size_t i, rz_writer *w, radz_error *err)
{
    const out_list *l = user;
    return put_param(l->m, l->params[i], !strcmp(l->out[i].dtype, "BF16"), w, err);
}

/* What one save has in common. */
typedef struct save {
    const rz_model *m;
    const char *dir, *dtype, *id;
} save;

static radz_status save_file(const save *s, const char *name, part which, radz_error *err)
{
    const rz_model *m = s->m;
    const rz_host *host = m->cfg.host;
    const char *metadata[] = {"format", "pt", "writer", "libradz", s->id ? RZ_SAVE_ID : NULL, s->id, NULL};
    out_list l = {m, rz_calloc(host, m->n_params, sizeof *l.out), rz_calloc(host, m->n_params, sizeof *l.params), 0};
    char *path = rz_path_join(host, s->dir, name);
    radz_status status = l.out && l.params && path ? RADZ_OK : RZ_NO_MEMORY(err, name);
    for (size_t i = 0; i < m->n_params && !status; i++)
        if (part_of(&m->params[i]) == which) status = out_add(&l, &m->params[i], !strcmp(s->dtype, "BF16"), err);
    if (!status && l.n) status = rz_st_write_with(host, path, l.out, l.n, metadata, put_out, &l, err);
    out_free(&l);
    rz_free(host, path);
    return status;
}

static radz_status check_save(const save *s, radz_error *err)
{
    if (strcmp(s->dtype, "F32") && strcmp(s->dtype, "BF16"))
        return rz_fail(err, RADZ_E_ARGUMENT, "dtype '%s' cannot be written (F32, BF16)", s->dtype);
    return RADZ_OK;
}

radz_status rz_model_save(const rz_model *m, const char *dir, const char *dtype, const char *save_id, radz_error *err)
{
    const save s = {m, dir, dtype, save_id};
    RZ_TRY(check_save(&s, err));
    RZ_TRY(save_file(&s, "model.safetensors", MODEL, err));
    return save_file(&s, "radz.safetensors", RADZ, err);
}

/* ---- adapter_config.json ---------------------------------------------------------------------- */

/* "self_attn.q_proj" of "language_model.model.layers.3.self_attn.q_proj.lora_A.weight" */
static void module_of(const rz_param *a, char *out, size_t size)
{
    const char *at = strstr(a->name, ".layers.") + strlen(".layers.");
    at = strchr(at, '.') + 1;
    const char *end = strstr(at, ".lora_A");
    snprintf(out, size, "%.*s", (int)(end - at), at);
}

/* Dots are any character in a pattern. */
static void put_escaped(rz_str *s, const char *name)
{
    for (; *name; name++) {
        if (*name == '.') rz_str_puts(s, "\\\\");
        rz_str_put(s, name, 1);
    }
}

/* A pattern for the whole path: names alone would fit layers of the tower too, and blocks that were not trained. Every
 * block has the same pairs, block after block. */
static void put_targets(const rz_model *m, rz_str *s)
{
    const size_t n_blocks = m->setup.all_blocks ? m->cfg.text.layers : rz_config_decoder_blocks(&m->cfg);
    char prefix[32], module[64];
    module_prefix(m, prefix, sizeof prefix);
    rz_str_puts(s, "\"");
    put_escaped(s, prefix);
    put_escaped(s, "layers.");
    for (size_t i = 0; i < n_blocks; i++) rz_str_printf(s, "%s%zu", i ? "|" : "(", i);
    put_escaped(s, ").");
    for (size_t i = 0; i < m->n_pairs / n_blocks; i++) {
        module_of(m->pairs[i].a, module, sizeof module);
        rz_str_puts(s, i ? "|" : "(");
        put_escaped(s, module);
    }
    rz_str_puts(s, ")\"");
}

static void put_config(const rz_model *m, const char *base, rz_str *s)
{
    const rz_train_setup *t = &m->setup;
    rz_str_put_text(s, "{\n  \"alpha_pattern\": {},\n  \"auto_mapping\": null,\n  \"base_model_name_or_path\": ", base);
    rz_str_puts(s, ",\n  \"bias\": \"none\",\n  \"exclude_modules\": null,\n  \"fan_in_fan_out\": false,\n"
                   "  \"inference_mode\": true,\n  \"init_lora_weights\": true,\n  \"layers_pattern\": null,\n"
                   "  \"layers_to_transform\": null,\n  \"lora_alpha\": ");
    rz_str_put_double(s, t->lora_alpha);
    rz_str_put_number(s, ",\n  \"lora_bias\": false,\n  \"lora_dropout\": ", t->lora_dropout);
    rz_str_printf(s,
                  ",\n  \"modules_to_save\": null,\n  \"peft_type\": \"LORA\",\n  \"r\": %zu,\n"
                  "  \"rank_pattern\": {},\n  \"revision\": null,\n  \"target_modules\": ",
                  t->lora_rank);
    put_targets(m, s);
    rz_str_printf(s, ",\n  \"task_type\": null,\n  \"use_dora\": false,\n  \"use_rslora\": %s\n}\n",
                  t->lora_rslora ? "true" : "false");
}

/* A configuration of another run's says things that are not true of these weights: it goes before they come. */
static radz_status drop_other_config(const rz_host *host, const char *path, const rz_str *config, radz_error *err)
{
    rz_file old = {0};
    if (!rz_path_exists(path)) return RADZ_OK;
    RZ_TRY(rz_file_open(host, path, RZ_FILE_READ, SIZE_MAX, &old, err));
    const bool same = old.size == config->len && !memcmp(old.data, config->data, old.size);
    rz_file_close(&old);
    return same ? RADZ_OK : rz_file_remove(host, path, err);
}

/* The configuration comes last: without it the rest is no adapter. */
static radz_status save_adapter(const save *s, const char *path, const rz_str *config, radz_error *err)
{
    const rz_host *host = s->m->cfg.host;
    RZ_TRY(drop_other_config(host, path, config, err));
    RZ_TRY(save_file(s, "adapter_model.safetensors", ADAPTER, err));
    RZ_TRY(save_file(s, "radz.safetensors", RADZ, err));
    return rz_write_file(host, path, config->data, config->len, err);
}

radz_status rz_model_save_adapter(const rz_model *m, const char *dir, const char *base, const char *dtype,
                                  const char *save_id, radz_error *err)
{
    const save s = {m, dir, dtype, save_id};
    RZ_TRY(check_save(&s, err));
    if (!m->n_pairs) return rz_fail(err, RADZ_E_STATE, "the model was trained without LoRA: there is no adapter");
    rz_str config = {.host = m->cfg.host};
    char *path = rz_path_join(m->cfg.host, dir, "adapter_config.json");
    put_config(m, base, &config);
    radz_status status =
        path && !config.failed ? save_adapter(&s, path, &config, err) : RZ_NO_MEMORY(err, "adapter_config.json");
    rz_free(m->cfg.host, path);
    rz_str_free(&config);
    return status;
}
