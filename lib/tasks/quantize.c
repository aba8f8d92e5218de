/* quantize.c - a model directory with other weights. Settings come first, so that the weights can say which they belong
 * to; the index of several files comes last. SPDX-License-Identifier: Apache-2.0 */
#include "quantize.h"

#include <stdio.h>
#include <stdlib.h>

#include "fill.h"
#include "lora.h"
#include "model_hash.h"
#include "modeldir.h"
#include "precision.h"
#include "quantize_films.h"
#include "tensors.h"
#include "weights.h"

#define PIECE_BYTES ((size_t)4 << 20)
#define WEIGHTS_KEY "weights"
#define INDEX_NAME "model.safetensors.index.json"
#define FITTED_NAME ".radz-fitted.tmp" /* as sweep() knows it */

typedef struct job {
    const rz_host *host;
    rz_device *dev;
    rz_source source;
    rz_model *m; /* its list of parameters; no weight is in memory */
    const rz_quantize *o;
    const char *from, *to;
    char settings[65];
    rz_str weights;     /* what they become, in words */
    json_t *map;        /* of the index */
    uint64_t n_written; /* of the tensors in it */
    rz_fit_inputs inputs;
    rz_fit *fit; /* what they make of matrices; NULL: nothing, or not yet */
    /* progress */
    radz_quantize_progress progress;
    double started;
    uint64_t n_fit_bytes, n_fitted_bytes; /* of its n_bytes and n_done_bytes: those that the films pass */
} job;

/* ---- Progress ------------------------------------------------------------------------------------ */

/* Of n_all bytes, n_done are done since j->started. */
static radz_status tell(job *j, uint64_t n_done, uint64_t n_all, radz_error *err)
{
    radz_quantize_progress *p = &j->progress;
    p->seconds_left = n_done ? (rz_seconds() - j->started) / (double)n_done * (double)(n_all - n_done) : NAN;
    if (j->o->progress_fn && j->o->progress_fn(p, j->o->user))
        return rz_fail(err, RADZ_E_CANCELLED, "%s: cancelled by the caller", j->to);
    return RADZ_OK;
}

static radz_status advance(job *j, uint64_t n_bytes, bool reused, radz_error *err)
{
    radz_quantize_progress *p = &j->progress;
    p->n_done_bytes += n_bytes;
    if (reused) p->n_reused_bytes += n_bytes;
    const uint64_t others = p->n_reused_bytes + j->n_fitted_bytes;
    return tell(j, p->n_done_bytes - others, p->n_bytes - others, err);
}

/* ---- Films and texts ----------------------------------------------------------------------------------------- */

static radz_status matrix_fitted(void *user, uint64_t n_bytes, radz_error *err)
{
    job *j = user;
    j->n_fitted_bytes += n_bytes, j->progress.n_done_bytes += n_bytes;
    return tell(j, j->n_fitted_bytes, j->n_fit_bytes, err);
}

/* Before the first file that has to be written. */
static radz_status fit(job *j, radz_error *err)
{
    char *path = rz_path_join(j->host, j->to, FITTED_NAME);
    const rz_fit_work work = {.list = j->m,
                              .from = &j->source,
                              .precision = &j->o->precision,
                              .inputs = &j->inputs,
                              .path = path,
                              .done_fn = matrix_fitted,
                              .user = j};
    if (!path) return RZ_NO_MEMORY(err, FITTED_NAME);
    const char *file = j->progress.file;
    j->n_fit_bytes = rz_fit_bytes(&work);
    j->progress.n_bytes += j->n_fit_bytes, j->progress.file = path;
    j->started = rz_seconds();
    const radz_status status = rz_fit_weights(j->host, j->dev, &work, &j->fit, err);
    /* blocks of the tower that nothing depends on have not been passed */
    j->progress.n_done_bytes += j->n_fit_bytes - j->n_fitted_bytes, j->n_fitted_bytes = j->n_fit_bytes;
    j->progress.file = file;
    j->started = rz_seconds();
    rz_free(j->host, path);
    return status;
}

static bool has_inputs(const rz_quantize *o)
{
    return o->n_films + o->n_texts > 0;
}

static radz_status open_inputs(job *j, radz_error *err)
{
    const rz_quantize *o = j->o;
    if (!has_inputs(o)) return RADZ_OK;
    if (o->precision.type != RZ_WEIGHTS_INT4)
        return rz_fail(err, RADZ_E_ARGUMENT, "films or texts to round for: int4 alone is rounded for any");
    RZ_TRY(rz_model_require_texts(j->m, err));
    if (o->n_films) RZ_TRY(rz_model_require_films(j->m, err));
    RZ_TRY(rz_fit_open_inputs(j->host, j->m, o, &j->inputs, err));
    rz_str_printf(&j->weights, "; rounded for %zu films and %zu texts, %s", o->n_films, o->n_texts, j->inputs.sha256);
    return RADZ_OK;
}

/* ---- One file of weights ----------------------------------------------------------------------------- */

/* A tensor of the new file. */
typedef struct out_tensor {
    const rz_st_tensor *t; /* where its numbers come from */
    const rz_param *p;     /* NULL: copied */
    bool converts, is_scale, merged;
    rz_dtype dtype;
} out_tensor;

typedef struct out_file {
    job *j;
    const rz_st *st;
    rz_st_out *out;
    out_tensor *of;
    char **scale_names;
    size_t n;
    /* the matrix whose scales are known */
    const rz_st_tensor *scaled;
    uint16_t *scale;
} out_file;

static size_t groups_of(const job *j, const rz_param *p)
{
    return (p->dims[1] + j->o->precision.group - 1) / j->o->precision.group;
}

static const char *dtype_name(rz_dtype t)
{
    static const char *const names[] = {
        [RZ_F32] = "F32", [RZ_F16] = "F16", [RZ_BF16] = "BF16", [RZ_I8] = "I8", [RZ_I4] = "U8"};
    return names[t];
}

static radz_status add_tensor(out_file *f, const rz_st_tensor *t, const out_tensor *as, radz_error *err)
{
    rz_st_out *o = &f->out[f->n];
    f->of[f->n] = *as;
    *o = (rz_st_out){.name = t->name, .dtype = as->p ? dtype_name(as->dtype) : t->dtype, .n_dims = t->n_dims};
    for (size_t d = 0; d < t->n_dims; d++) o->dims[d] = t->dims[d];
    if (as->p && as->dtype == RZ_I4) o->dims[1] /= 2;
    f->n++;
    if (!as->p || rz_dtype_is_float(as->dtype)) return RADZ_OK;
    rz_st_out *s = &f->out[f->n];
    rz_str name = {.host = f->j->host};
    rz_str_printf(&name, "%s_scale", t->name);
    f->scale_names[f->n] = name.data;
    f->of[f->n] = *as, f->of[f->n].is_scale = true;
    *s = (rz_st_out){.name = name.data, .dtype = "BF16", .n_dims = 2, .dims = {as->p->dims[0], groups_of(f->j, as->p)}};
    f->n++;
    return name.failed ? RZ_NO_MEMORY(err, t->name) : RADZ_OK;
}

/* The parameter that takes this tensor of these files; NULL: none. */
static const rz_param *param_of(const job *j, rz_weights *files, const rz_st_tensor *t)
{
    for (size_t i = 0; i < j->m->n_params; i++) {
        const rz_param *p = &j->m->params[i];
        const bool tower = !strncmp(p->name, "vision_tower.", 13);
        if (files != (tower && j->m->tower_files ? j->m->tower_files : j->m->files) && files != j->m->radz_files)
            continue;
        if (rz_weights_find(files, p->name) == t) return p;
    }
    return NULL;
}

/* What becomes of a tensor of the files. */
static radz_status decide(const job *j, rz_weights *files, const rz_st_tensor *t, out_tensor *as, radz_error *err)
{
    rz_dtype compute;
    const rz_param *p = param_of(j, files, t);
    *as = (out_tensor){.t = t};
    if (!p) return RADZ_OK;
    as->merged = rz_model_merges(j->m, p);
    if (!p->radz) as->t = rz_tensor_of(j->m, p);
    if (p->as_float) { /* tables that are never multiplied */
        as->dtype = RZ_F32;
        as->p = as->merged || as->t != t ? p : NULL;
        return RADZ_OK;
    }
    RZ_TRY(rz_precision_of(&j->o->precision, &j->m->cfg, p->name, as->t, as->merged, &as->dtype, &compute,
                           &as->converts, err));
    if (as->converts || as->merged || as->t != t) as->p = p;
    if (as->p && !as->converts && (!rz_dtype_is_float(as->dtype) || as->dtype == RZ_F16)) as->dtype = RZ_BF16;
    return RADZ_OK;
}

static radz_status list_tensors(out_file *f, rz_weights *files, radz_error *err)
{
    const size_t n = rz_st_count(f->st);
    const rz_host *host = f->j->host;
    f->out = rz_calloc(host, 2 * n + 1, sizeof *f->out);
    f->of = rz_calloc(host, 2 * n + 1, sizeof *f->of);
    f->scale_names = rz_calloc(host, 2 * n + 1, sizeof *f->scale_names);
    if (!f->out || !f->of || !f->scale_names) return RZ_NO_MEMORY(err, "list of tensors");
    for (size_t i = 0; i < n; i++) {
        out_tensor as;
        RZ_TRY(decide(f->j, files, rz_st_at(f->st, i), &as, err));
        RZ_TRY(add_tensor(f, rz_st_at(f->st, i), &as, err));
    }
    return RADZ_OK;
}

static void out_close(out_file *f)
{
    for (size_t i = 0; f->scale_names && i < f->n; i++) rz_free(f->j->host, f->scale_names[i]);
    rz_free(f->j->host, f->scale_names);
    rz_free(f->j->host, f->out);
    rz_free(f->j->host, f->of);
    rz_free(f->j->host, f->scale);
}

/* Bytes of the file go as they are, their memory given back behind them. */
static radz_status put_stored(out_file *f, const rz_st_tensor *t, rz_writer *w, radz_error *err)
{
    for (size_t at = 0; at < t->n_bytes; at += PIECE_BYTES) {
        const size_t n = t->n_bytes - at < PIECE_BYTES ? t->n_bytes - at : PIECE_BYTES;
        RZ_TRY(rz_writer_put(w, t->data + at, n, err));
        rz_st_forget(f->st, t->data + at, n);
        RZ_TRY(advance(f->j, n, false, err));
    }
    return RADZ_OK;
}

/* Some rows at a time into w; NULL: for their scales alone. */
static radz_status put_rows(out_file *f, const out_tensor *o, const rz_matrix_source *from, rz_writer *w,
                            radz_error *err)
{
    job *j = f->j;
    const bool integers = !rz_dtype_is_float(o->dtype);
    const size_t rows = from->rows, cols = from->cols, each = rz_dtype_bytes(o->dtype, cols);
    const size_t step = 1 + (PIECE_BYTES / sizeof(float) - 1) / cols, tensor_row = o->t->n_bytes / rows;
    uint8_t *piece = rz_malloc(j->host, step * each);
    radz_status status = piece ? RADZ_OK : RZ_NO_MEMORY(err, from->name);
    for (size_t r = 0; r < rows && !status; r += step) {
        const size_t n = rows - r < step ? rows - r : step;
        status = rz_precision_convert(j->host, rz_device_pool(j->dev), from, r, n, o->dtype, j->o->precision.group,
                                      piece, integers ? f->scale + r * groups_of(j, o->p) : NULL, err);
        if (!status && w) status = rz_writer_put(w, piece, n * each, err);
        rz_st_forget(f->st, o->t->data + r * tensor_row, n * tensor_row);
        if (!status && w) status = advance(j, n * tensor_row, false, err);
    }
    rz_free(j->host, piece);
    return status;
}

static radz_status put_converted(out_file *f, const out_tensor *o, rz_writer *w, radz_error *err)
{
    const rz_param *p = o->p;
    float *floats = NULL;
    rz_matrix_source from = {.name = o->t->name, .rows = p->dims[0], .cols = p->n / p->dims[0], .tensor = o->t};
    if (!rz_dtype_is_float(o->dtype)) {
        rz_free(f->j->host, f->scale);
        f->scaled = o->t;
        f->scale = rz_calloc(f->j->host, p->dims[0] * groups_of(f->j, p), sizeof *f->scale);
        if (!f->scale) return RZ_NO_MEMORY(err, p->name);
    }
    radz_status status = RADZ_OK;
    if (o->merged) status = rz_model_read_float(f->j->m, p, o->t, &floats, err);
    from.floats = floats;
    if (!status) status = put_rows(f, o, &from, w, err);
    rz_free(f->j->host, floats);
    return status;
}

static radz_status put_scale(out_file *f, const out_tensor *o, rz_writer *w, radz_error *err)
{
    if (f->scaled != o->t) RZ_TRY(put_converted(f, o, NULL, err)); /* scales come first in this file */
    return rz_writer_put(w, f->scale, o->p->dims[0] * groups_of(f->j, o->p) * sizeof *f->scale, err);
}

/* What the films have made of it. */
static radz_status put_fitted(out_file *f, const out_tensor *o, const rz_mat *m, rz_writer *w, radz_error *err)
{
    const uint8_t *data = m->data;
    const size_t all = rz_dtype_bytes(m->dtype, o->p->n), tensor = o->t->n_bytes;
    if (o->is_scale) return rz_writer_put(w, m->scale, rz_dtype_bytes(RZ_BF16, o->p->dims[0] * rz_mat_groups(*m)), err);
    for (size_t at = 0, n; at < all; at += n) {
        n = all - at < PIECE_BYTES ? all - at : PIECE_BYTES;
        RZ_TRY(rz_writer_put(w, data + at, n, err));
        rz_fit_forget(f->j->fit, data + at, n);
        RZ_TRY(advance(f->j, (uint64_t)(at + n) * tensor / all - (uint64_t)at * tensor / all, false, err));
    }
    return RADZ_OK;
}

static radz_status put_tensor(void *user, size_t i, rz_writer *w, radz_error *err)
{
    out_file *f = user;
    const out_tensor *o = &f->of[i];
    if (!o->p) return put_stored(f, o->t, w, err);
    const bool may_fit = f->j->fit && o->dtype == RZ_I4;
    const rz_mat fitted = may_fit ? rz_fit_matrix(f->j->fit, o->p) : (rz_mat){0};
    if (fitted.data) return put_fitted(f, o, &fitted, w, err);
    return o->is_scale ? put_scale(f, o, w, err) : put_converted(f, o, w, err);
}

/* ---- Files that an earlier run has left ---------------------------------------------------------------- */

static bool says(const rz_st *st, const char *key, const char *value)
{
    const char *found = rz_st_metadata(st, key);
    return found && !strcmp(found, value);
}

/* *there: it is, and is what would be written. */
static radz_status is_done(const job *j, const char *path, bool *there, radz_error *err)
{
    rz_st *st = NULL;
    *there = false;
    if (!rz_path_exists(path)) return RADZ_OK;
    const radz_status status = rz_st_open(j->host, path, RZ_FILE_MAP, &st, NULL);
    *there = !status && says(st, RZ_SOURCE_HASH, j->m->hash) && says(st, RZ_SOURCE_SETTINGS, j->settings) &&
             says(st, WEIGHTS_KEY, j->weights.data);
    rz_st_close(st);
    if (*there || status == RADZ_E_MEMORY) return status ? RZ_NO_MEMORY(err, path) : RADZ_OK;
    return rz_fail(
        err, RADZ_E_STATE,
        "%s: is there already and was made from another model or otherwise: take another folder, or remove it", path);
}

static bool ours(const char *key)
{
    return !strcmp(key, RZ_SOURCE_HASH) || !strcmp(key, RZ_SOURCE_SETTINGS) || !strcmp(key, WEIGHTS_KEY);
}

static radz_status write_file(out_file *f, const char *path, radz_error *err)
{
    const job *j = f->j;
    const size_t n = rz_st_metadata_count(f->st);
    const char **metadata = rz_calloc(j->host, 2 * n + 7, sizeof *metadata);
    size_t k = 0;
    if (!metadata) return RZ_NO_MEMORY(err, path);
    for (size_t i = 0; i < n; i++) {
        const char *value, *key = rz_st_metadata_at(f->st, i, &value);
        if (!ours(key)) metadata[k++] = key, metadata[k++] = value;
    }
    metadata[k++] = RZ_SOURCE_HASH, metadata[k++] = j->m->hash;
    metadata[k++] = RZ_SOURCE_SETTINGS, metadata[k++] = j->settings;
    metadata[k++] = WEIGHTS_KEY, metadata[k] = j->weights.data;
    const radz_status status = rz_st_write_with(j->host, path, f->out, f->n, metadata, put_tensor, f, err);
    rz_free(j->host, (void *)metadata);
    return status;
}

static size_t out_bytes(const job *j, const out_tensor *o)
{
    if (!o->p) return o->t->n_bytes;
    if (o->is_scale) return o->p->dims[0] * groups_of(j, o->p) * sizeof(uint16_t);
    return rz_dtype_bytes(o->dtype, o->p->n);
}

static radz_status note_index(out_file *f, const char *name, radz_error *err)
{
    for (size_t i = 0; i < f->n; i++) {
        f->j->n_written += out_bytes(f->j, &f->of[i]);
        if (json_object_set_new(f->j->map, f->out[i].name, json_string(name))) return RZ_NO_MEMORY(err, INDEX_NAME);
    }
    return RADZ_OK;
}

static uint64_t bytes_of(const rz_st *st)
{
    uint64_t n = 0;
    for (size_t i = 0; i < rz_st_count(st); i++) n += rz_st_at(st, i)->n_bytes;
    return n;
}

static radz_status convert_file(job *j, rz_weights *files, const rz_st *st, const char *dir, const char *name,
                                bool in_index, radz_error *err)
{
    out_file f = {.j = j, .st = st};
    bool done = false;
    char *path = rz_path_join(j->host, dir, name);
    radz_status status = path ? list_tensors(&f, files, err) : RZ_NO_MEMORY(err, name);
    j->progress.file = path;
    if (!status) status = is_done(j, path, &done, err);
    if (!status && !done && has_inputs(j->o) && !j->fit) status = fit(j, err);
    if (!status && !done) status = write_file(&f, path, err);
    if (!status && done) status = advance(j, bytes_of(st), true, err);
    if (!status && in_index) status = note_index(&f, name, err);
    j->progress.file = NULL;
    out_close(&f);
    rz_free(j->host, path);
    return status;
}

/* Every file of a collection but that of the special rows, which `radz` says. */
static radz_status convert_files(job *j, rz_weights *files, const char *dir, bool radz, bool in_index, radz_error *err)
{
    const rz_st *st;
    const char *name;
    for (size_t i = 0; (st = rz_weights_file(files, i, &name)); i++) {
        const bool is_radz = !strcmp(name, "radz.safetensors");
        if (!is_radz || radz) RZ_TRY(convert_file(j, files, st, dir, name, in_index && !is_radz, err));
    }
    return RADZ_OK;
}

/* ---- The files beside the weights ------------------------------------------------------------------------ */

static bool ends(const char *s, const char *with)
{
    const size_t n = strlen(s), k = strlen(with);
    return n >= k && !strcmp(s + n - k, with);
}

/* Weights in another form say nothing of these; and of hidden files nobody knows what they are. */
static bool is_copied(const char *name)
{
    static const char *const left[] = {".bin",     ".pt",   ".pth",        ".gguf", ".h5",
                                       ".msgpack", ".onnx", ".index.json", ".tmp"};
    for (size_t i = 0; i < RZ_COUNT(left); i++)
        if (ends(name, left[i])) return false;
    if (name[0] == '.' || !strncmp(name, "adapter_", 8)) return false;
    return !ends(name, ".safetensors") || !strcmp(name, "anchors.safetensors");
}

static radz_status copy_file(const rz_host *host, const char *path, const char *to, radz_error *err)
{
    rz_file f;
    rz_writer *w = NULL;
    RZ_TRY(rz_file_open(host, path, RZ_FILE_READ, (size_t)1 << 30, &f, err));
    radz_status status = rz_writer_open(host, to, &w, err);
    if (!status) status = rz_writer_put(w, f.data, f.size, err);
    if (!status)
        status = rz_writer_commit(w, err);
    else
        rz_writer_abort(w);
    rz_file_close(&f);
    return status;
}

/* from/name to to/name, where it is a regular file. */
static radz_status copy_member(const job *j, const char *from, const char *to, const char *name, radz_error *err)
{
    char *path = rz_path_join(j->host, from, name), *copy = rz_path_join(j->host, to, name);
    radz_status status = path && copy ? RADZ_OK : RZ_NO_MEMORY(err, name);
    if (!status && rz_path_exists(path) && !rz_path_is_folder(path)) status = copy_file(j->host, path, copy, err);
    rz_free(j->host, path);
    rz_free(j->host, copy);
    return status;
}

/* What other readers are to see: transformers refuses a method that it does not know, where it would take integers for
 * the numbers themselves. */
static radz_status write_config(const job *j, const char *from, const char *to, radz_error *err)
{
    char *path = rz_path_join(j->host, from, "config.json"), *text = NULL;
    json_t *root = NULL;
    radz_status status =
        path ? rz_json_load(j->host, path, (size_t)64 << 20, &root, err) : RZ_NO_MEMORY(err, "config.json");
    rz_free(j->host, path);
    RZ_TRY(status);
    json_t *how = json_pack("{s:s, s:i, s:i}", "quant_method", "libradz", "bits",
                            j->o->precision.type == RZ_WEIGHTS_INT8 ? 8 : 4, "group_size", (int)j->o->precision.group);
    if (!how || json_object_set_new(root, "quantization_config", how) ||
        !(text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17))))
        status = RZ_NO_MEMORY(err, "config.json");
    else
        status = rz_modeldir_put(j->host, to, "config.json", text, strlen(text), err);
    free(text);
    json_decref(root);
    return status;
}

static radz_status copy_settings(const job *j, const char *from, const char *to, radz_error *err)
{
    const bool integers = j->o->precision.group != 0, own_radz = strcmp(j->m->radz_dir, j->m->base_dir) != 0;
    static const char *const of_adapter[] = {"radz.json", "anchors.safetensors"};
    char **names = NULL;
    size_t n = 0;
    RZ_TRY(rz_folder_names(j->host, from, "", &names, &n, err));
    radz_status status = RADZ_OK;
    for (size_t i = 0; i < n && !status; i++) {
        if (!is_copied(names[i]) || (integers && !strcmp(names[i], "config.json"))) continue;
        if (own_radz && (!strcmp(names[i], of_adapter[0]) || !strcmp(names[i], of_adapter[1]))) continue;
        status = copy_member(j, from, to, names[i], err);
    }
    rz_folder_free(j->host, names, n);
    if (!status && integers) status = write_config(j, from, to, err);
    return status;
}

/* What a run that was killed has left under its temporary name. */
static radz_status sweep(const job *j, const char *dir, radz_error *err)
{
    char **names = NULL;
    size_t n = 0;
    RZ_TRY(rz_folder_names(j->host, dir, ".tmp", &names, &n, err));
    radz_status status = RADZ_OK;
    for (size_t i = 0; i < n && !status; i++) {
        if (strncmp(names[i], ".radz-", 6)) continue;
        char *path = rz_path_join(j->host, dir, names[i]);
        status = path ? rz_file_remove(j->host, path, err) : RZ_NO_MEMORY(err, names[i]);
        rz_free(j->host, path);
    }
    rz_folder_free(j->host, names, n);
    return status;
}

/* ---- All of it ------------------------------------------------------------------------------------------- */

static radz_status write_index(const job *j, radz_error *err)
{
    json_t *root =
        json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)j->n_written, "weight_map", j->map);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    const radz_status status =
        text ? rz_modeldir_put(j->host, j->to, INDEX_NAME, text, strlen(text), err) : RZ_NO_MEMORY(err, INDEX_NAME);
    free(text);
    json_decref(root);
    return status;
}

/* The tower's own directory moves in. */
static radz_status convert_tower(job *j, radz_error *err)
{
    char *dir = rz_path_join(j->host, j->to, "vision_tower");
    radz_status status = dir ? rz_mkdir_p(dir, err) : RZ_NO_MEMORY(err, "vision_tower");
    if (!status) status = sweep(j, dir, err);
    if (!status) status = copy_member(j, j->m->cfg.vision_dir, dir, "config.json", err);
    if (!status) status = copy_member(j, j->m->cfg.vision_dir, dir, "preprocessor_config.json", err);
    if (!status) status = copy_member(j, j->m->cfg.vision_dir, dir, "processor_config.json", err);
    if (!status) status = convert_files(j, j->m->tower_files, dir, true, false, err);
    rz_free(j->host, dir);
    return status;
}

static radz_status check_room(const job *j, radz_error *err)
{
    static const double share[] = {1, 2, 1, .6, .35}; /* of bf16 weights that types take, at most */
    const double copies = has_inputs(j->o) ? 2 : 1, room = (double)rz_path_room(j->to);
    const double want = (double)j->progress.n_bytes * share[j->o->precision.type] * copies;
    if (want * .9 <= room || j->progress.n_reused_bytes) return RADZ_OK;
    return rz_fail(err, RADZ_E_IO, "%s: about %.0f MB will be written, %.0f MB are free", j->to, want / 1e6,
                   room / 1e6);
}

static void count_bytes(job *j)
{
    rz_weights *const all[] = {j->m->files, j->m->radz_files, j->m->tower_files};
    const rz_st *st;
    const char *name;
    for (size_t k = 0; k < RZ_COUNT(all); k++)
        for (size_t i = 0; all[k] && (st = rz_weights_file(all[k], i, &name)); i++)
            if (k || strcmp(name, "radz.safetensors") != 0 || !j->m->radz_files) j->progress.n_bytes += bytes_of(st);
}

static radz_status convert_model(job *j, radz_error *err)
{
    rz_model *m = j->m;
    const char *name;
    const rz_st *first = rz_weights_file(m->files, 0, &name);
    const bool sharded = first && strcmp(name, "model.safetensors") != 0;
    count_bytes(j);
    RZ_TRY(rz_mkdir_p(j->to, err));
    if (rz_path_same(m->base_dir, j->to))
        return rz_fail(err, RADZ_E_ARGUMENT, "%s: a model cannot be written over itself: take another folder", j->to);
    RZ_TRY(check_room(j, err));
    RZ_TRY(sweep(j, j->to, err));
    RZ_TRY(copy_settings(j, m->base_dir, j->to, err));
    if (strcmp(m->radz_dir, m->base_dir) != 0) {
        RZ_TRY(copy_member(j, m->radz_dir, j->to, "radz.json", err));
        RZ_TRY(copy_member(j, m->radz_dir, j->to, "anchors.safetensors", err));
    }
    RZ_TRY(rz_model_settings_hash(j->host, j->to, m->tok_is_json, j->settings, err));
    j->started = rz_seconds();
    if (m->tower_files) RZ_TRY(convert_tower(j, err));
    if (m->radz_files) RZ_TRY(convert_files(j, m->radz_files, j->to, true, false, err));
    RZ_TRY(convert_files(j, m->files, j->to, !m->radz_files, sharded, err));
    if (!j->fit) RZ_TRY(rz_tensors_of_adapter(m, err)); /* else the model that the films passed has been asked */
    return sharded ? write_index(j, err) : RADZ_OK;
}

static radz_status open_job(job *j, radz_error *err)
{
    j->source = (rz_source){
        .dir = j->from, .vision_dir = j->o->vision_dir, .adapter_dir = j->o->adapter_dir, .tower = j->o->tower};
    rz_source listed = j->source;
    listed.list_only = true;
    RZ_TRY(rz_model_load_from(j->host, j->dev, &listed, RZ_MODEL_INFER, 0, &j->m, err));
    if (j->m->lora && j->m->cfg.text.tied && j->m->lm_head)
        return rz_fail(err, RADZ_E_UNSUPPORTED,
                       "%s: an adapter of a table that is the head too gives two tables: not written", j->from);
    rz_precision_text(&j->o->precision, &j->weights);
    RZ_TRY(open_inputs(j, err));
    if (j->weights.failed || !(j->map = json_object())) return RZ_NO_MEMORY(err, "quantizing");
    return RADZ_OK;
}

radz_status rz_quantize_model(const rz_host *host, rz_device *dev, const char *from, const char *to,
                              const rz_quantize *options, radz_error *err)
{
    job j = {.host = host, .dev = dev, .o = options, .from = from, .to = to, .weights = {.host = host}};
    j.progress.struct_size = sizeof j.progress;
    radz_status status = open_job(&j, err);
    if (!status) status = convert_model(&j, err);
    json_decref(j.map);
    rz_fit_close(j.fit);
    rz_fit_close_inputs(host, &j.inputs);
    rz_str_free(&j.weights);
    rz_model_unload(j.m);
    return status;
}
