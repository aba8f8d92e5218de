/* eval_cache.c - what the model said of films, on disk, found by the film's own hash: a folder of small safetensors
 * files, each written whole, so that runs that are cut off or run side by side lose and damage nothing.
 *
 * Tensors F32 (n, numbers) by name: "global", "local", "hidden", "head", and "likelihood-", "options-", "cot-" with the
 * hash of the question. Answers: U8 "NAME.text", one text with its zero byte after another, and I64 "NAME.at" (n),
 * where each begins. Metadata: schema "radz.vectors/1", model, device, films: a JSON array of sha256.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "eval.h"

#define SCHEMA "radz.vectors/1"

typedef struct entry {
    char sha256[65];
    uint32_t part, row;
} entry;

struct rz_store {
    const rz_host *host;
    const rz_model *model;
    char *dir; /* NULL: nothing is kept */
    char device[64];
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
        if (strchr(t->name, '.')) continue; /* of an answer: looked at when it is read */
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
    if (!is(st, "schema", SCHEMA) || !is(st, "model", c->model->hash) || !is(st, "device", c->device)) {
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

/* "" for no folder; from rz_malloc. */
static char *folder_of(const rz_host *host, const radz_eval_options *o)
{
    return o->cache_dir ? rz_strdup(host, o->cache_dir) : rz_path_join(host, o->out_dir, "cache");
}

radz_status rz_store_open(const rz_model *m, const radz_eval_options *o, rz_store **out, radz_error *err)
{
    rz_store *c = rz_calloc(m->cfg.host, 1, sizeof *c);
    char *dir = folder_of(m->cfg.host, o);
    radz_status status = c && dir ? RADZ_OK : RZ_NO_MEMORY(err, "what is on disk of the films");
    *out = NULL;
    if (c) c->host = m->cfg.host, c->model = m;
    if (!status) {
        rz_eval_device(m, c->device);
        status = open_dir(c, *dir ? dir : NULL, err);
    }
    rz_free(m->cfg.host, dir);
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

/* ---- One film ---- */

/* The answer in row `row`; false where there is none, or the file is not as we write it. */
static bool copy_text(const rz_st *st, const char *name, size_t row, rz_str *to)
{
    char key[64];
    int64_t at;
    const size_t n = strlen(name);
    memcpy(key, name, n);
    memcpy(key + n, ".text", 6);
    const rz_st_tensor *text = rz_st_find(st, key);
    memcpy(key + n, ".at", 4);
    const rz_st_tensor *starts = rz_st_find(st, key);
    if (!text || !starts || strcmp(text->dtype, "U8") != 0 || strcmp(starts->dtype, "I64") != 0) return false;
    if (row >= starts->n_elements) return false;
    memcpy(&at, starts->data + row * sizeof at, sizeof at);
    if (at < 0 || (uint64_t)at >= text->n_bytes) return false;
    const char *begin = (const char *)text->data + at, *end = memchr(begin, 0, text->n_bytes - (size_t)at);
    if (!end || !rz_utf8_valid(begin, (size_t)(end - begin))) return false;
    to->len = 0;
    rz_str_put(to, begin, (size_t)(end - begin));
    rz_str_puts(to, "");
    return true;
}

static bool copy_kind(const rz_st *st, const rz_eval_wanted *w, int kind, size_t row, rz_eval_values *v)
{
    const rz_st_tensor *t = rz_st_find(st, w->name[kind]);
    const size_t dim = w->dim[kind];
    if (!t || t->dims[1] != dim) return false;
    memcpy(v->v[kind], t->data + row * dim * sizeof(float), dim * sizeof(float));
    if (!rz_eval_values_good(w, v, kind)) return false; /* not written by us */
    bool answered = kind == RZ_VALUE_OPTIONS || kind == RZ_VALUE_COT;
    return !answered || copy_text(st, w->name[kind], row, &v->text[kind]);
}

radz_status rz_store_get(const rz_store *c, const rz_eval_wanted *w, rz_eval_values *v, radz_error *err)
{
    size_t low = 0, high = c->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(c->entries[middle].sha256, v->sha256) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    v->have = 0;
    for (; low < c->n && v->have != w->kinds && strcmp(c->entries[low].sha256, v->sha256) == 0; low++)
        for (int k = 0; k < RZ_VALUE_KINDS; k++)
            if ((w->kinds & ~v->have) >> k & 1 &&
                copy_kind(c->parts[c->entries[low].part], w, k, c->entries[low].row, v))
                v->have |= 1u << k;
    for (int k = 0; k < RZ_VALUE_KINDS; k++)
        if (v->text[k].failed) return RZ_NO_MEMORY(err, "answer");
    return RADZ_OK;
}

/* ---- Writing ---- */

/* A part that is being put together. */
typedef struct part {
    rz_st_out tensors[3 * RZ_VALUE_KINDS];
    size_t n_tensors;
    float *numbers[RZ_VALUE_KINDS];
    int64_t *starts[RZ_VALUE_KINDS];
    rz_str texts[RZ_VALUE_KINDS];
    char names[RZ_VALUE_KINDS][2][64];
} part;

static radz_status add_answers(const rz_store *c, const rz_eval_wanted *w, int k, const rz_eval_values *films, size_t n,
                               part *p, radz_error *err)
{
    const size_t len = strlen(w->name[k]);
    p->texts[k].host = c->host;
    if (!(p->starts[k] = rz_calloc(c->host, n, sizeof(int64_t)))) return RZ_NO_MEMORY(err, "answers on disk");
    for (size_t i = 0; i < n; i++) {
        p->starts[k][i] = (int64_t)p->texts[k].len;
        const rz_str *text = &films[i].text[k];
        rz_str_put(&p->texts[k], text->data ? text->data : "", (text->data ? text->len : 0) + 1);
    }
    if (p->texts[k].failed) return RZ_NO_MEMORY(err, "answers on disk");
    for (int i = 0; i < 2; i++) {
        memcpy(p->names[k][i], w->name[k], len);
        memcpy(p->names[k][i] + len, i ? ".at" : ".text", i ? 4 : 6);
    }
    p->tensors[p->n_tensors++] = (rz_st_out){p->names[k][0], "U8", 1, {p->texts[k].len}, p->texts[k].data};
    p->tensors[p->n_tensors++] = (rz_st_out){p->names[k][1], "I64", 1, {n}, p->starts[k]};
    return RADZ_OK;
}

static radz_status add_kind(const rz_store *c, const rz_eval_wanted *w, int k, const rz_eval_values *films, size_t n,
                            part *p, radz_error *err)
{
    const size_t dim = w->dim[k];
    if (!(p->numbers[k] = rz_calloc(c->host, n, dim * sizeof(float)))) return RZ_NO_MEMORY(err, "vectors on disk");
    for (size_t i = 0; i < n; i++) memcpy(p->numbers[k] + i * dim, films[i].v[k], dim * sizeof(float));
    p->tensors[p->n_tensors++] = (rz_st_out){w->name[k], "F32", 2, {n, dim}, p->numbers[k]};
    return k > RZ_VALUE_LIKELIHOOD ? add_answers(c, w, k, films, n, p, err) : RADZ_OK;
}

static radz_status write_part(const rz_store *c, const part *p, const rz_eval_values *rows, size_t n, radz_error *err)
{
    rz_str films = {.host = c->host}, path = {.host = c->host};
    char hash[65];
    rz_sha256 h;
    for (size_t i = 0; i < n; i++) rz_str_printf(&films, "%s\"%s\"", i ? "," : "[", rows[i].sha256);
    rz_str_puts(&films, "]");
    rz_sha256_init(&h);
    rz_sha256_put(&h, c->model->hash, 64);
    rz_sha256_put(&h, c->device, strlen(c->device));
    if (!films.failed) rz_sha256_put(&h, films.data, films.len);
    for (size_t i = 0; i < p->n_tensors; i++) rz_sha256_put(&h, p->tensors[i].name, strlen(p->tensors[i].name) + 1);
    rz_sha256_hex(&h, hash);
    rz_str_printf(&path, "%s/%.24s.safetensors", c->dir, hash);
    const char *const metadata[] = {"schema", SCHEMA,     "model", c->model->hash, "device", c->device,
                                    "films",  films.data, NULL};
    radz_status status = films.failed || path.failed
                             ? RZ_NO_MEMORY(err, "vectors on disk")
                             : rz_st_write(c->host, path.data, p->tensors, p->n_tensors, metadata, err);
    rz_str_free(&films);
    rz_str_free(&path);
    return status;
}

radz_status rz_store_put(const rz_store *c, const rz_eval_wanted *w, unsigned kinds, const rz_eval_values *films,
                         size_t n, radz_error *err)
{
    part p = {.n_tensors = 0};
    radz_status status = RADZ_OK;
    if (!c->dir || !n || !kinds) return RADZ_OK;
    for (int k = 0; k < RZ_VALUE_KINDS && !status; k++)
        if (kinds >> k & 1) status = add_kind(c, w, k, films, n, &p, err);
    if (!status) status = write_part(c, &p, films, n, err);
    for (int k = 0; k < RZ_VALUE_KINDS; k++) {
        rz_free(c->host, p.numbers[k]);
        rz_free(c->host, p.starts[k]);
        rz_str_free(&p.texts[k]);
    }
    return status;
}
