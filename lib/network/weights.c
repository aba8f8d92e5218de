/* weights.c - finding a tensor in the files of a model directory.
 * SPDX-License-Identifier: Apache-2.0 */
#include "weights.h"

#include <stdio.h>

#define MAX_SHARDS 1000
#define HASH_WHOLE_BYTES ((size_t)32 << 20)
#define SAMPLE_BYTES ((size_t)4096)
#define INDEX_MAX_BYTES ((size_t)64 << 20)

struct rz_weights {
    const rz_host *host;
    rz_st *files[MAX_SHARDS + 1];
    size_t n_files;
    bool *used[MAX_SHARDS + 1]; /* per tensor of each file */
    char *names[MAX_SHARDS + 1], *paths[MAX_SHARDS + 1];
};

/* Our prefix, and what the same part is called elsewhere. The first that fits is taken. */
static const struct {
    const char *ours, *theirs[8];
} renamed[] = {
    {"language_model.model.", {"model.language_model.", "model."}},
    {"language_model.lm_head.", {"lm_head."}},
    {"multi_modal_projector.linear_1.", {"model.multi_modal_projector.linear_1.", "model.mm_projector.0."}},
    {"multi_modal_projector.linear_2.", {"model.multi_modal_projector.linear_2.", "model.mm_projector.2."}},
    {"vision_tower.vision_model.",
     {"model.vision_tower.vision_model.", "model.vision_tower.", "model.vision_tower.vision_tower.vision_model.",
      "vision_tower.",       /* transformers 5 */
      "vision_model.", ""}}, /* a CLIP model in a directory of its own */
};

static const rz_st_tensor *find_exact(rz_weights *w, const char *name)
{
    for (size_t f = 0; f < w->n_files; f++) {
        const rz_st_tensor *t = rz_st_find(w->files[f], name);
        if (!t) continue;
        w->used[f][t - rz_st_at(w->files[f], 0)] = true;
        return t;
    }
    return NULL;
}

bool rz_weights_alias(const char *name, size_t i, char *out, size_t size)
{
    int len = -1;
    if (!i--) len = snprintf(out, size, "%s", name);
    for (size_t k = 0; k < RZ_COUNT(renamed) && len < 0; k++) {
        size_t n = strlen(renamed[k].ours);
        if (strncmp(name, renamed[k].ours, n)) continue;
        if (i >= RZ_COUNT(renamed[k].theirs) || !renamed[k].theirs[i]) return false;
        len = snprintf(out, size, "%s%s", renamed[k].theirs[i], name + n);
    }
    return len > 0 && (size_t)len < size;
}

const rz_st_tensor *rz_weights_find(rz_weights *w, const char *name)
{
    const rz_st_tensor *t = NULL;
    char other[256];
    for (size_t i = 0; !t && rz_weights_alias(name, i, other, sizeof other); i++) t = find_exact(w, other);
    return t;
}

bool rz_weights_holds(const rz_weights *w, const rz_st_tensor *t)
{
    for (size_t f = 0; f < w->n_files; f++) {
        const size_t n = rz_st_count(w->files[f]);
        const rz_st_tensor *first = n ? rz_st_at(w->files[f], 0) : NULL;
        if (first && t >= first && t < first + n) return true;
    }
    return false;
}

radz_status rz_weights_hold(const rz_host *host, const char *dir, const char *name, bool *there, radz_error *err)
{
    rz_weights *w = NULL;
    RZ_TRY(rz_weights_open(host, dir, RZ_FILE_MAP, &w, err));
    *there = rz_weights_find(w, name) != NULL;
    rz_weights_close(w);
    return RADZ_OK;
}

/* Two tensors of one name would leave it to chance which one is meant. */
static radz_status check_twice(const rz_weights *w, const char *path, radz_error *err)
{
    const rz_st *last = w->files[w->n_files];
    for (size_t i = 0; i < rz_st_count(last); i++)
        for (size_t f = 0; f < w->n_files; f++)
            if (rz_st_find(w->files[f], rz_st_at(last, i)->name))
                return rz_fail(err, RADZ_E_FORMAT, "%s: tensor '%s' is in another file of the model too", path,
                               rz_st_at(last, i)->name);
    return RADZ_OK;
}

radz_status rz_weights_same_save(const rz_weights *w, const rz_st *one, const char *path, radz_error *err)
{
    const char *mine = rz_st_metadata(one, RZ_SAVE_ID), *theirs = NULL;
    for (size_t f = 0; f < w->n_files && !theirs; f++) theirs = rz_st_metadata(w->files[f], RZ_SAVE_ID);
    if (!mine || !theirs || !strcmp(mine, theirs)) return RADZ_OK;
    return rz_fail(err, RADZ_E_MISMATCH,
                   "%s: is of another save than the files beside it: writing them was interrupted; go on with that "
                   "run, or take all files from one save",
                   path);
}

static radz_status add_file(rz_weights *w, const char *dir, const char *name, rz_file_mode mode, radz_error *err)
{
    char *path = rz_path_join(w->host, dir, name);
    if (!path) return RZ_NO_MEMORY(err, "weights");
    radz_status status = rz_st_open(w->host, path, mode, &w->files[w->n_files], err);
    bool *used = NULL;
    if (!status) status = check_twice(w, path, err);
    if (!status) status = rz_weights_same_save(w, w->files[w->n_files], path, err);
    if (!status && !(used = rz_calloc(w->host, rz_st_count(w->files[w->n_files]) + 1, sizeof *used)))
        status = RZ_NO_MEMORY(err, "weights");
    if (!status && !(w->names[w->n_files] = rz_strdup(w->host, name))) status = RZ_NO_MEMORY(err, "weights");
    w->used[w->n_files++] = used; /* closed with the others, also after a failure */
    w->paths[w->n_files - 1] = path;
    return status;
}

/* A shard lies in the directory itself: anything else could read files it has no business with. */
static radz_status check_shard_name(const char *index, const char *name, radz_error *err)
{
    if (!name || !*name || strchr(name, '/') || name[0] == '.')
        return rz_fail(err, RADZ_E_FORMAT, "%s: weight_map: '%s' is no plain file name", index, name ? name : "");
    return RADZ_OK;
}

/* A link in the folder may lead elsewhere as well as a name can. What leads nowhere is for the opening to report. */
static radz_status check_shard_place(const rz_weights *w, const char *dir, const char *name, radz_error *err)
{
    char *path = rz_path_join(w->host, dir, name);
    if (!path) return RZ_NO_MEMORY(err, "weights");
    radz_status status = RADZ_OK;
    if (rz_path_exists(path) && !rz_path_stays(dir, path))
        status =
            rz_fail(err, RADZ_E_FORMAT, "%s: a link that leads out of the model's folder, expected a file in it", path);
    rz_free(w->host, path);
    return status;
}

/* Opens every file that the index names, once, in order of first mention. */
static radz_status add_shards(rz_weights *w, const char *dir, const char *index, const json_t *root, rz_file_mode mode,
                              radz_error *err)
{
    const json_t *map = json_object_get(root, "weight_map");
    const char *seen[MAX_SHARDS], *tensor;
    json_t *value;
    size_t n = 0, last = 0;
    if (!json_is_object(map)) return rz_fail(err, RADZ_E_FORMAT, "%s: weight_map: expected an object", index);
    json_object_foreach((json_t *)map, tensor, value)
    {
        const char *name = json_string_value(value);
        RZ_TRY(check_shard_name(index, name, err));
        if (n && !strcmp(seen[last], name)) continue;
        for (last = 0; last < n && strcmp(seen[last], name); last++) {}
        if (last < n) continue;
        if (n == MAX_SHARDS) return rz_fail(err, RADZ_E_LIMIT, "%s: more than %d shards", index, MAX_SHARDS);
        seen[n++] = name;
        RZ_TRY(check_shard_place(w, dir, name, err));
        RZ_TRY(add_file(w, dir, name, mode, err));
    }
    return RADZ_OK;
}

static radz_status add_index(rz_weights *w, const char *dir, const char *index, rz_file_mode mode, radz_error *err)
{
    json_t *root = NULL;
    RZ_TRY(rz_json_load(w->host, index, INDEX_MAX_BYTES, &root, err));
    radz_status status = add_shards(w, dir, index, root, mode, err);
    json_decref(root);
    return status;
}

static radz_status in_dir(const rz_host *host, const char *dir, const char *name, bool *there, radz_error *err)
{
    char *path = rz_path_join(host, dir, name);
    if (!path) return RZ_NO_MEMORY(err, "weights");
    *there = rz_path_exists(path);
    rz_free(host, path);
    return RADZ_OK;
}

radz_status rz_weights_there(const rz_host *host, const char *dir, bool *there, radz_error *err)
{
    bool whole = false, index = false;
    RZ_TRY(in_dir(host, dir, "model.safetensors", &whole, err));
    RZ_TRY(in_dir(host, dir, "model.safetensors.index.json", &index, err));
    *there = whole || index;
    return RADZ_OK;
}

bool rz_weights_exist(const rz_host *host, const char *dir)
{
    bool there = false;
    return !rz_weights_there(host, dir, &there, NULL) && there;
}

/* Weights of older models: to unpickle them is to run a program of whoever made them. */
static radz_status refuse_pickle(const rz_host *host, const char *dir, radz_error *err)
{
    static const char *const names[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    bool there = false;
    for (size_t i = 0; i < RZ_COUNT(names) && !there; i++) RZ_TRY(in_dir(host, dir, names[i], &there, err));
    if (!there) return RADZ_OK;
    return rz_fail(
        err, RADZ_E_UNSUPPORTED,
        "%s: weights in pytorch_model.bin are not supported, only model.safetensors: load and save the model "
        "once with transformers (save_pretrained)",
        dir);
}

static radz_status refuse_gguf(const rz_host *host, const char *dir, radz_error *err)
{
    char **names = NULL;
    size_t n = 0;
    const radz_status status = rz_folder_names(host, dir, ".gguf", &names, &n, err);
    if (status) return status == RADZ_E_MEMORY ? status : RADZ_OK; /* what is wrong with the folder, others say */
    if (n) rz_fail(err, RADZ_E_UNSUPPORTED, "%s/%s: GGUF is not supported, only model.safetensors", dir, names[0]);
    rz_folder_free(host, names, n);
    return n ? RADZ_E_UNSUPPORTED : RADZ_OK;
}

radz_status rz_weights_refuse_others(const rz_host *host, const char *dir, radz_error *err)
{
    char **names = NULL;
    size_t n = 0;
    RZ_TRY(refuse_pickle(host, dir, err));
    RZ_TRY(refuse_gguf(host, dir, err));
    radz_status status = rz_folder_names(host, dir, ".safetensors", &names, &n, err);
    if (status) return status == RADZ_E_MEMORY ? status : RADZ_OK; /* what is wrong with it, others say */
    for (size_t i = 0; i < n && !status; i++)
        if (!strncmp(names[i], "model-", 6))
            status = rz_fail(err, RADZ_E_FORMAT,
                             "%s/%s: a part of a model, but model.safetensors.index.json is missing", dir, names[i]);
    rz_folder_free(host, names, n);
    return status;
}

static radz_status add_all(rz_weights *w, const char *dir, const char *index, rz_file_mode mode, radz_error *err)
{
    bool whole = false, radz = false;
    RZ_TRY(in_dir(w->host, dir, "model.safetensors", &whole, err));
    if (!whole && rz_path_exists(index))
        RZ_TRY(add_index(w, dir, index, mode, err));
    else {
        if (!whole) RZ_TRY(rz_weights_refuse_others(w->host, dir, err));
        RZ_TRY(add_file(w, dir, "model.safetensors", mode, err));
    }
    RZ_TRY(in_dir(w->host, dir, "radz.safetensors", &radz, err));
    return radz ? add_file(w, dir, "radz.safetensors", mode, err) : RADZ_OK;
}

static radz_status open_dir(rz_weights *w, const char *dir, rz_file_mode mode, radz_error *err)
{
    char *index = rz_path_join(w->host, dir, "model.safetensors.index.json");
    radz_status status = index ? add_all(w, dir, index, mode, err) : RZ_NO_MEMORY(err, "weights");
    rz_free(w->host, index);
    return status;
}

/* name NULL: the files of a model. */
static radz_status open_weights(const rz_host *host, const char *dir, const char *name, rz_file_mode mode,
                                rz_weights **out, radz_error *err)
{
    *out = NULL;
    rz_weights *w = rz_calloc(host, 1, sizeof *w);
    if (!w) return RZ_NO_MEMORY(err, "weights");
    w->host = host;
    radz_status status = name ? add_file(w, dir, name, mode, err) : open_dir(w, dir, mode, err);
    if (status)
        rz_weights_close(w);
    else
        *out = w;
    return status;
}

radz_status rz_weights_open(const rz_host *host, const char *dir, rz_file_mode mode, rz_weights **w, radz_error *err)
{
    return open_weights(host, dir, NULL, mode, w, err);
}

radz_status rz_weights_open_file(const rz_host *host, const char *dir, const char *name, rz_file_mode mode,
                                 rz_weights **w, radz_error *err)
{
    return open_weights(host, dir, name, mode, w, err);
}

void rz_weights_close(rz_weights *w)
{
    if (!w) return;
    for (size_t f = 0; f < w->n_files; f++) {
        rz_st_close(w->files[f]);
        rz_free(w->host, w->used[f]);
        rz_free(w->host, w->names[f]);
        rz_free(w->host, w->paths[f]);
    }
    rz_free(w->host, w);
}

/* Buffers and rows that transformers and LLaVA write and nobody needs. */
static bool is_buffer(const char *name)
{
    static const char *const known[] = {"inv_freq", "position_ids", "image_newline"};
    for (size_t i = 0; i < RZ_COUNT(known); i++)
        if (strstr(name, known[i])) return true;
    return false;
}

size_t rz_weights_unused(const rz_weights *w, const char **names, size_t max)
{
    size_t n = 0;
    for (size_t f = 0; f < w->n_files; f++)
        for (size_t i = 0; i < rz_st_count(w->files[f]); i++) {
            const char *name = rz_st_at(w->files[f], i)->name;
            if (w->used[f][i] || is_buffer(name)) continue;
            if (n < max) names[n] = name;
            n++;
        }
    return n;
}

/* Calls fn for the blocks of a tensor that its hash is of. */
static void each_sample(const rz_st *st, const rz_st_tensor *t, rz_sha256 *hash,
                        void (*fn)(const rz_st *st, const uint8_t *p, size_t n, rz_sha256 *hash))
{
    const size_t places[] = {0, t->n_bytes / 2, t->n_bytes - SAMPLE_BYTES};
    if (t->n_bytes <= RZ_COUNT(places) * SAMPLE_BYTES) {
        fn(st, t->data, t->n_bytes, hash);
        return;
    }
    for (size_t i = 0; i < RZ_COUNT(places); i++) fn(st, t->data + places[i], SAMPLE_BYTES, hash);
}

static void ask_for(const rz_st *st, const uint8_t *p, size_t n, rz_sha256 *hash)
{
    (void)hash;
    rz_st_soon(st, p, n);
}

static void hash_bytes(const rz_st *st, const uint8_t *p, size_t n, rz_sha256 *hash)
{
    (void)st;
    rz_sha256_put(hash, p, n);
}

static void hash_file(const rz_st *st, rz_sha256 *hash)
{
    size_t size = 0;
    const uint8_t *bytes = rz_st_bytes(st, &size);
    const rz_st_tensor *first = rz_st_count(st) ? rz_st_at(st, 0) : NULL;
    if (size <= HASH_WHOLE_BYTES || !first) {
        rz_sha256_put(hash, bytes, size);
        return;
    }
    rz_sha256_put(hash, bytes, (size_t)(first->data - bytes));
    for (size_t i = 0; i < rz_st_count(st); i++) each_sample(st, rz_st_at(st, i), hash, hash_bytes);
}

void rz_weights_hash(const rz_weights *w, rz_sha256 *hash)
{
    for (size_t f = 0; f < w->n_files; f++) { /* all at once: a disk serves many requests as fast as one */
        size_t size = 0;
        rz_st_bytes(w->files[f], &size);
        for (size_t i = 0; i < rz_st_count(w->files[f]) && size > HASH_WHOLE_BYTES; i++)
            each_sample(w->files[f], rz_st_at(w->files[f], i), hash, ask_for);
    }
    for (size_t f = 0; f < w->n_files; f++) hash_file(w->files[f], hash);
}

const char *rz_weights_metadata(const rz_weights *w, const char *key)
{
    const char *value = NULL;
    for (size_t f = 0; f < w->n_files && !value; f++) value = rz_st_metadata(w->files[f], key);
    return value;
}

const rz_st *rz_weights_file(const rz_weights *w, size_t i, const char **name)
{
    if (i >= w->n_files) return NULL;
    *name = w->names[i];
    return w->files[i];
}

const char *rz_weights_path(const rz_weights *w, size_t i)
{
    return w->paths[i];
}

void rz_weights_forget(const rz_weights *w)
{
    for (size_t f = 0; f < w->n_files; f++) {
        size_t size;
        const uint8_t *bytes = rz_st_bytes(w->files[f], &size);
        rz_st_forget(w->files[f], bytes, size);
    }
}

uint64_t rz_weights_bytes(const rz_weights *w)
{
    uint64_t sum = 0;
    for (size_t f = 0; f < w->n_files; f++) {
        size_t size = 0;
        rz_st_bytes(w->files[f], &size);
        sum += size;
    }
    return sum;
}
