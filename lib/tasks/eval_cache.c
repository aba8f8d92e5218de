/* eval_cache.c - vectors of films on disk, found by the film's own hash: a folder of small safetensors files, each
 * written whole, so that runs that are cut off or run side by side lose and damage nothing.
 *
 * Tensors "global", "local" (n, K) and "hidden" (n, width), each where it was asked for; metadata: schema
 * "radz.vectors/1", model, kernels, films: a JSON array of sha256.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "eval.h"

#define SCHEMA "radz.vectors/1"
static const char *const kind_names[RZ_VECTOR_KINDS] = {"global", "local", "hidden"};

typedef struct entry {
    char sha256[65];
    uint32_t part, row;
} entry;

struct rz_store {
    const rz_host *host;
    const rz_model *model;
    char *dir; /* NULL: nothing is kept */
    rz_st **parts;
    size_t n_parts;
    entry *entries; /* sorted by hash */
    size_t n, cap;
};

static int by_hash(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->sha256, ((const entry *)b)->sha256);
}

static radz_status add_entries(rz_store *c, const json_t *films, size_t part, radz_error *err)
{
    const size_t n = json_array_size(films);
    if (c->n + n > c->cap) {
        size_t cap = 2 * (c->n + n);
        entry *p = rz_realloc(c->host, c->entries, cap, sizeof *p);
        if (!p) return RZ_NO_MEMORY(err, "vectors on disk");
        c->entries = p, c->cap = cap;
    }
    for (size_t i = 0; i < n; i++) {
        entry *e = &c->entries[c->n];
        const char *hash = json_string_value(json_array_get(films, i));
        if (!hash || strlen(hash) != 64) return rz_fail(err, RADZ_E_FORMAT, "films: expected hashes");
        memcpy(e->sha256, hash, 65);
        e->part = (uint32_t)part, e->row = (uint32_t)i;
        c->n++;
    }
    return RADZ_OK;
}

static bool is(const rz_st *st, const char *key, const char *value)
{
    const char *text = rz_st_metadata(st, key);
    return text && strcmp(text, value) == 0;
}

static radz_status check_tensors(const rz_st *st, size_t n, radz_error *err)
{
    for (size_t i = 0; i < rz_st_count(st); i++) {
        const rz_st_tensor *t = rz_st_at(st, i);
        if (strcmp(t->dtype, "F32") != 0 || t->n_dims != 2 || t->dims[0] != n)
            return rz_fail(err, RADZ_E_FORMAT, "%s: expected F32, %zu rows", t->name, n);
    }
    return RADZ_OK;
}

/* Takes the part in where it is of this model and kernels. */
static radz_status read_part(rz_store *c, const char *path, radz_error *err)
{
    rz_st *st = NULL;
    json_t *films = NULL;
    RZ_TRY(rz_st_open(c->host, path, RZ_FILE_MAP, &st, err));
    if (!is(st, "schema", SCHEMA) || !is(st, "model", c->model->hash) ||
        !is(st, "kernels", rz_device_kernels(c->model->dev))) {
        rz_st_close(st);
        return RADZ_OK;
    }
    const char *text = rz_st_metadata(st, "films");
    radz_status status = text ? rz_json_parse(text, strlen(text), path, &films, err)
                              : rz_fail(err, RADZ_E_FORMAT, "%s: no films in its header", path);
    if (!status) status = check_tensors(st, json_array_size(films), err);
    size_t before = c->n;
    if (!status) status = add_entries(c, films, c->n_parts, err);
    json_decref(films);
    if (status) {
        c->n = before;
        rz_st_close(st);
        return status;
    }
    c->parts[c->n_parts++] = st;
    return RADZ_OK;
}

static radz_status read_parts(rz_store *c, char *const *names, size_t n, radz_error *err)
{
    c->parts = rz_calloc(c->host, n ? n : 1, sizeof(rz_st *));
    if (!c->parts) return RZ_NO_MEMORY(err, "vectors on disk");
    for (size_t i = 0; i < n; i++) {
        radz_error why = {RADZ_OK, ""};
        char *path = rz_path_join(c->host, c->dir, names[i]);
        radz_status status = path ? read_part(c, path, &why) : RZ_NO_MEMORY(&why, "vectors on disk");
        rz_free(c->host, path);
        if (status == RADZ_E_MEMORY) {
            if (err) *err = why;
            return status;
        }
        if (status) rz_log(c->host, RADZ_LOG_WARNING, "cache: left out: %s", why.message);
    }
    if (c->n) qsort(c->entries, c->n, sizeof *c->entries, by_hash);
    return RADZ_OK;
}

static radz_status open_dir(rz_store *c, const char *dir, radz_error *err)
{
    char **names;
    size_t n;
    if (!dir) return RADZ_OK;
    if (!(c->dir = rz_strdup(c->host, dir))) return RZ_NO_MEMORY(err, "path of the cache");
    RZ_TRY(rz_mkdir_p(dir, err));
    RZ_TRY(rz_folder_names(c->host, dir, ".safetensors", &names, &n, err));
    radz_status status = read_parts(c, names, n, err);
    rz_folder_free(c->host, names, n);
    return status;
}

radz_status rz_store_open(const rz_model *m, const char *dir, rz_store **out, radz_error *err)
{
    rz_store *c = rz_calloc(m->cfg.host, 1, sizeof *c);
    *out = NULL;
    if (!c) return RZ_NO_MEMORY(err, "vectors on disk");
    c->host = m->cfg.host, c->model = m;
    radz_status status = open_dir(c, dir, err);
    if (status)
        rz_store_close(c);
    else
        *out = c;
    return status;
}

void rz_store_close(rz_store *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->n_parts; i++) rz_st_close(c->parts[i]);
    rz_free(c->host, c->parts);
    rz_free(c->host, c->entries);
    rz_free(c->host, c->dir);
    rz_free(c->host, c);
}

/* A vector that is no unit vector was not written by us. */
static bool copy_vector(const rz_st *st, int kind, size_t row, float *to, size_t dim)
{
    const rz_st_tensor *t = rz_st_find(st, kind_names[kind]);
    double sum = 0;
    if (!t || t->dims[1] != dim) return false;
    memcpy(to, t->data + row * dim * sizeof *to, dim * sizeof *to);
    for (size_t i = 0; i < dim; i++) sum += (double)to[i] * to[i];
    return fabs(sum - 1) < 1e-3;
}

bool rz_store_get(const rz_store *c, rz_eval_films *f, size_t i)
{
    size_t low = 0, high = c->n;
    unsigned missing = 0;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(c->entries[middle].sha256, f->sha256[i]) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (int k = 0; k < RZ_VECTOR_KINDS; k++) missing |= f->vectors[k] ? 1u << k : 0;
    for (; low < c->n && missing && strcmp(c->entries[low].sha256, f->sha256[i]) == 0; low++)
        for (int k = 0; k < RZ_VECTOR_KINDS; k++)
            if (missing >> k & 1 && copy_vector(c->parts[c->entries[low].part], k, c->entries[low].row,
                                                f->vectors[k] + i * f->dim[k], f->dim[k]))
                missing &= ~(1u << k);
    return !missing;
}

/* ---- Writing ---- */

static radz_status put_part(const rz_store *c, const rz_eval_films *f, const size_t *rows, size_t n, float **copies,
                            radz_error *err)
{
    rz_st_out tensors[RZ_VECTOR_KINDS];
    size_t n_tensors = 0;
    rz_str films = {.host = c->host}, path = {.host = c->host};
    char hash[65];
    rz_sha256 h;
    for (int k = 0; k < RZ_VECTOR_KINDS; k++) {
        if (!f->vectors[k]) continue;
        for (size_t i = 0; i < n; i++)
            memcpy(copies[k] + i * f->dim[k], f->vectors[k] + rows[i] * f->dim[k], f->dim[k] * sizeof(float));
        tensors[n_tensors++] = (rz_st_out){kind_names[k], "F32", 2, {n, f->dim[k]}, copies[k]};
    }
    for (size_t i = 0; i < n; i++) rz_str_printf(&films, "%s\"%s\"", i ? "," : "[", f->sha256[rows[i]]);
    rz_str_puts(&films, "]");
    rz_sha256_init(&h);
    rz_sha256_put(&h, c->model->hash, 64);
    if (!films.failed) rz_sha256_put(&h, films.data, films.len);
    for (size_t i = 0; i < n_tensors; i++) rz_sha256_put(&h, tensors[i].name, strlen(tensors[i].name));
    rz_sha256_hex(&h, hash);
    rz_str_printf(&path, "%s/%.24s.safetensors", c->dir, hash);
    const char *const metadata[] = {"schema",       SCHEMA,     "model",
                                    c->model->hash, "kernels",  rz_device_kernels(c->model->dev),
                                    "films",        films.data, NULL};
    radz_status status = films.failed || path.failed
                             ? RZ_NO_MEMORY(err, "vectors on disk")
                             : rz_st_write(c->host, path.data, tensors, n_tensors, metadata, err);
    rz_str_free(&films);
    rz_str_free(&path);
    return status;
}

radz_status rz_store_put(const rz_store *c, const rz_eval_films *f, const size_t *rows, size_t n, radz_error *err)
{
    float *copies[RZ_VECTOR_KINDS] = {0};
    radz_status status = RADZ_OK;
    if (!c->dir || !n) return RADZ_OK;
    for (int k = 0; k < RZ_VECTOR_KINDS && !status; k++) {
        if (!f->vectors[k]) continue;
        copies[k] = rz_calloc(c->host, n, f->dim[k] * sizeof(float));
        if (!copies[k]) status = RZ_NO_MEMORY(err, "vectors on disk");
    }
    if (!status) status = put_part(c, f, rows, n, copies, err);
    for (int k = 0; k < RZ_VECTOR_KINDS; k++) rz_free(c->host, copies[k]);
    return status;
}
