/* model_hash.c - a model by the bytes that change its vectors.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model_hash.h"

#include "lora.h"
#include "precision.h"
#include "weights.h"

static radz_status hash_small_file(const rz_host *host, const char *dir, const char *name, rz_sha256 *h,
                                   radz_error *err)
{
    char *path = rz_path_join(host, dir, name);
    rz_file f = {0};
    radz_status status = path ? RADZ_OK : RZ_NO_MEMORY(err, name);
    if (!status && rz_path_exists(path)) status = rz_file_open(host, path, RZ_FILE_READ, 64u << 20, &f, err);
    if (!status) {
        uint64_t size = f.data ? f.size : UINT64_MAX; /* an absent file is not an empty one */
        rz_sha256_put(h, &size, sizeof size);
        if (f.data) rz_sha256_put(h, f.data, f.size);
        rz_file_close(&f);
    }
    rz_free(host, path);
    return status;
}

/* Where it is there: models without it keep the hash that their banks have. */
static radz_status hash_processor(const rz_host *host, const char *dir, rz_sha256 *h, radz_error *err)
{
    static const char *const name = "processor_config.json";
    char *path = NULL;
    RZ_TRY(rz_config_file(host, dir, name, &path, err));
    if (!path) return RADZ_OK;
    rz_free(host, path);
    rz_sha256_put(h, name, strlen(name));
    return hash_small_file(host, dir, name, h, err);
}

/* Whatever of a directory changes a vector and is no weight. */
static radz_status hash_settings(const rz_host *host, const char *dir, bool tok_is_json, rz_sha256 *h, radz_error *err)
{
    static const char *const files[] = {"config.json",     "preprocessor_config.json", "radz.json",
                                        "tokenizer.model", "tokenizer.json",           "tokenizer_config.json"};
    const size_t n = RZ_COUNT(files) - (tok_is_json ? 0 : 2);
    for (size_t i = 0; i < n; i++) RZ_TRY(hash_small_file(host, dir, files[i], h, err));
    return hash_processor(host, dir, h, err);
}

radz_status rz_model_settings_hash(const rz_host *host, const char *dir, bool tok_is_json, char hex[65],
                                   radz_error *err)
{
    rz_sha256 h;
    rz_sha256_init(&h);
    RZ_TRY(hash_settings(host, dir, tok_is_json, &h, err));
    rz_sha256_hex(&h, hex);
    return RADZ_OK;
}

/* The files say which model they were made from, and nothing else has been changed since. */
static radz_status find_family(rz_model *m, const char *dir, radz_error *err)
{
    const char *source = rz_weights_metadata(m->files, RZ_SOURCE_HASH),
               *settings = rz_weights_metadata(m->files, RZ_SOURCE_SETTINGS);
    char now[65];
    memcpy(m->family, m->hash, sizeof m->family);
    if (!source || !settings || strlen(source) != 64 || m->lora) return RADZ_OK;
    if (m->tower_files) {
        const char *tower = rz_weights_metadata(m->tower_files, RZ_SOURCE_HASH);
        if (!tower || strcmp(tower, source)) return RADZ_OK;
    }
    RZ_TRY(rz_model_settings_hash(m->cfg.host, dir, m->tok_is_json, now, err));
    if (!strcmp(now, settings)) memcpy(m->family, source, 65);
    return RADZ_OK;
}

/* Other numbers are another model. */
static radz_status hash_precision(rz_model *m, radz_error *err)
{
    rz_str text = {.host = m->cfg.host};
    rz_sha256 h;
    if (m->precision.type == RZ_WEIGHTS_STORED) return RADZ_OK;
    rz_precision_text(&m->precision, &text);
    rz_sha256_init(&h);
    rz_sha256_put(&h, m->hash, 64);
    if (!text.failed) rz_sha256_put(&h, text.data, text.len);
    const radz_status status = text.failed ? RZ_NO_MEMORY(err, "hash") : RADZ_OK;
    rz_str_free(&text);
    if (!status) rz_sha256_hex(&h, m->hash);
    return status;
}

radz_status rz_model_hash(rz_model *m, const char *dir, radz_error *err)
{
    const rz_host *host = m->cfg.host;
    rz_sha256 h;
    rz_sha256_init(&h);
    RZ_TRY(hash_settings(host, dir, m->tok_is_json, &h, err));
    rz_weights_hash(m->files, &h);
    if (m->radz_files) {
        rz_sha256_put(&h, "radz", 4);
        RZ_TRY(hash_small_file(host, m->radz_dir, "radz.json", &h, err));
        rz_weights_hash(m->radz_files, &h);
    }
    if (m->tower_files) {
        rz_sha256_put(&h, "tower", 5);
        RZ_TRY(hash_small_file(host, m->cfg.vision_dir, "config.json", &h, err));
        RZ_TRY(hash_small_file(host, m->cfg.vision_dir, "preprocessor_config.json", &h, err));
        RZ_TRY(hash_processor(host, m->cfg.vision_dir, &h, err));
        rz_weights_hash(m->tower_files, &h);
    }
    if (m->lora) {
        rz_sha256_put(&h, "adapter", 7);
        rz_lora_hash(m->lora, &h);
    }
    rz_sha256_hex(&h, m->hash);
    RZ_TRY(find_family(m, dir, err));
    return hash_precision(m, err);
}
