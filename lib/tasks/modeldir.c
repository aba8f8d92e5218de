/* modeldir.c - the files of a model directory beside its weights. SPDX-License-Identifier: Apache-2.0 */
#include "modeldir.h"

#include <stdlib.h>

#include "formats.h"

#define SETTINGS_MAX_BYTES ((size_t)64 << 20)

static const char *const settings[] = {"config.json", "preprocessor_config.json", "tokenizer.model", "radz.json"};
/* How films are prepared; the second, of transformers 5, may be in place of the first: */
static const char *const films[] = {"preprocessor_config.json", "processor_config.json"};
/* Where there is no tokenizer.model: */
static const char *const json_tokenizer[] = {"tokenizer.json", "tokenizer_config.json"};
static const char *const weights[] = {"model.safetensors", "model.safetensors.index.json", "radz.safetensors"};
/* Where there is an adapter: */
static const char *const adapter[] = {"adapter_config.json", "adapter_model.safetensors"};

static radz_status hash_put(const rz_host *host, const char *path, rz_sha256 *h, radz_error *err)
{
    rz_file f = {0};
    RZ_TRY(rz_file_open(host, path, RZ_FILE_MAP, SIZE_MAX, &f, err));
    rz_sha256_put(h, f.data, f.size);
    rz_file_close(&f);
    return RADZ_OK;
}

radz_status rz_file_hash(const rz_host *host, const char *path, char hex[65], radz_error *err)
{
    rz_sha256 h;
    rz_sha256_init(&h);
    RZ_TRY(hash_put(host, path, &h, err));
    rz_sha256_hex(&h, hex);
    return RADZ_OK;
}

static radz_status hash_member(const rz_host *host, const char *dir, const char *name, rz_sha256 *h, radz_error *err)
{
    char *path = rz_path_join(host, dir, name);
    if (!path) return RZ_NO_MEMORY(err, "path");
    rz_sha256_put(h, name, strlen(name) + 1);
    radz_status st = rz_path_exists(path) ? hash_put(host, path, h, err) : RADZ_OK;
    rz_free(host, path);
    return st;
}

static bool uses_json_tokenizer(const rz_host *host, const char *dir)
{
    return !rz_modeldir_has(host, dir, "tokenizer.model") && rz_modeldir_has(host, dir, "tokenizer.json");
}

radz_status rz_modeldir_hash(const rz_host *host, const char *dir, char hex[65], radz_error *err)
{
    rz_sha256 h;
    rz_sha256_init(&h);
    for (size_t i = 0; i < RZ_COUNT(settings); i++) RZ_TRY(hash_member(host, dir, settings[i], &h, err));
    if (rz_modeldir_has(host, dir, films[1])) RZ_TRY(hash_member(host, dir, films[1], &h, err));
    for (size_t i = 0; i < RZ_COUNT(json_tokenizer) && uses_json_tokenizer(host, dir); i++)
        RZ_TRY(hash_member(host, dir, json_tokenizer[i], &h, err));
    for (size_t i = 0; i < RZ_COUNT(weights); i++) RZ_TRY(hash_member(host, dir, weights[i], &h, err));
    for (size_t i = 0; i < RZ_COUNT(adapter) && rz_modeldir_has(host, dir, adapter[0]); i++)
        RZ_TRY(hash_member(host, dir, adapter[i], &h, err));
    rz_sha256_hex(&h, hex);
    return RADZ_OK;
}

radz_status rz_modeldir_put(const rz_host *host, const char *dir, const char *name, const char *text, size_t n,
                            radz_error *err)
{
    char *path = rz_path_join(host, dir, name);
    if (!path) return RZ_NO_MEMORY(err, "path");
    radz_status st = rz_write_file(host, path, text, n, err);
    rz_free(host, path);
    return st;
}

bool rz_modeldir_has(const rz_host *host, const char *dir, const char *name)
{
    char *path = rz_path_join(host, dir, name);
    bool has = path && rz_path_exists(path);
    rz_free(host, path);
    return has;
}

static radz_status copy_file(const rz_host *host, const char *from, const char *to, const char *name, radz_error *err)
{
    if (!rz_modeldir_has(host, from, name)) return RADZ_OK;
    char *path = rz_path_join(host, from, name);
    if (!path) return RZ_NO_MEMORY(err, "path");
    rz_file f = {0};
    radz_status st = rz_file_open(host, path, RZ_FILE_READ, SETTINGS_MAX_BYTES, &f, err);
    if (!st) st = rz_modeldir_put(host, to, name, (const char *)f.data, f.size, err);
    rz_file_close(&f);
    rz_free(host, path);
    return st;
}

/* ---- config.json ------------------------------------------------------------------------------ */

static radz_status load_config(const rz_host *host, const char *dir, json_t **out, radz_error *err)
{
    char *path = rz_path_join(host, dir, "config.json");
    if (!path) return RZ_NO_MEMORY(err, "path");
    radz_status st = rz_json_load(host, path, SETTINGS_MAX_BYTES, out, err);
    rz_free(host, path);
    return st;
}

/* The tower's configuration, which moves in. */
static radz_status take_tower(const rz_host *host, json_t *config, const char *tower, radz_error *err)
{
    json_t *own = NULL;
    RZ_TRY(load_config(host, tower, &own, err));
    json_t *vision = json_object_get(own, "vision_config");
    const int failed = json_object_set(config, "vision_config", vision ? vision : own);
    json_decref(own);
    return failed ? RZ_NO_MEMORY(err, "config.json") : RADZ_OK;
}

static radz_status put_config(const rz_host *host, const json_t *config, const char *to, radz_error *err)
{
    char *text = json_dumps(config, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    if (!text) return RZ_NO_MEMORY(err, "config.json");
    radz_status st = rz_modeldir_put(host, to, "config.json", text, strlen(text), err);
    free(text);
    return st;
}

/* Byte by byte where nothing changes. Weights that were integers are written as floats. */
static radz_status copy_config(const rz_host *host, const char *from, const char *tower, const char *to,
                               radz_error *err)
{
    json_t *config = NULL;
    RZ_TRY(load_config(host, from, &config, err));
    const bool changed = json_object_del(config, "quantization_config") == 0 || tower;
    radz_status st = tower ? take_tower(host, config, tower, err) : RADZ_OK;
    if (!st) st = changed ? put_config(host, config, to, err) : copy_file(host, from, to, "config.json", err);
    json_decref(config);
    return st;
}

/* Every file once, as it will be: a copy that is edited where it lies can be met half done. */
radz_status rz_modeldir_copy(const rz_host *host, const char *from, const char *tower, const char *to, radz_error *err)
{
    const bool own = rz_modeldir_has(host, from, films[0]) || rz_modeldir_has(host, from, films[1]);
    RZ_TRY(copy_config(host, from, tower, to, err));
    for (size_t i = 0; i < RZ_COUNT(films); i++)
        RZ_TRY(copy_file(host, own || !tower ? from : tower, to, films[i], err));
    RZ_TRY(copy_file(host, from, to, "tokenizer.model", err));
    for (size_t i = 0; i < RZ_COUNT(json_tokenizer) && uses_json_tokenizer(host, from); i++)
        RZ_TRY(copy_file(host, from, to, json_tokenizer[i], err));
    return RADZ_OK;
}
