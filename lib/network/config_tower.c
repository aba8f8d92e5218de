/* config_tower.c - the vision tower: what it is, and where.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config_read.h"

#include "tower_shape.h"
#include "weights.h"

radz_status rz_read_vision(const json_t *obj, const char *where, rz_vision_config *v, radz_error *err)
{
    const char *type = "clip_vision_model";
    *v = (rz_vision_config){.hidden = 768,
                            .intermediate = 3072,
                            .layers = 12,
                            .heads = 12,
                            .image_size = 224,
                            .patch = 32,
                            .channels = 3,
                            .eps = 1e-5f,
                            .act = RZ_ACT_QUICK_GELU};
    RZ_TRY(rz_json_string(obj, where, "model_type", &type, err));
    if (strcmp(type, "clip_vision_model"))
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: model_type '%s' is not supported, only 'clip_vision_model'", where,
                       type);
    RZ_TRY(rz_read_size(obj, where, "hidden_size", 1, RZ_MAX_WIDTH, &v->hidden, err));
    RZ_TRY(rz_read_size(obj, where, "intermediate_size", 1, RZ_MAX_WIDTH, &v->intermediate, err));
    RZ_TRY(rz_read_size(obj, where, "num_hidden_layers", 1, RZ_MAX_LAYERS, &v->layers, err));
    RZ_TRY(rz_read_size(obj, where, "num_attention_heads", 1, RZ_MAX_WIDTH, &v->heads, err));
    RZ_TRY(rz_read_size(obj, where, "image_size", 1, 8192, &v->image_size, err));
    RZ_TRY(rz_read_size(obj, where, "patch_size", 1, 8192, &v->patch, err));
    RZ_TRY(rz_read_size(obj, where, "num_channels", 3, 3, &v->channels, err));
    RZ_TRY(rz_read_float(obj, where, "layer_norm_eps", 0.0, 1.0, &v->eps, err));
    RZ_TRY(rz_read_act(obj, where, "hidden_act", &v->act, err));
    if (v->hidden % v->heads)
        return rz_fail(err, RADZ_E_FORMAT, "%s: hidden_size %zu is no multiple of num_attention_heads %zu", where,
                       v->hidden, v->heads);
    if (v->patch > v->image_size)
        return rz_fail(err, RADZ_E_FORMAT, "%s: patch_size %zu is larger than image_size %zu", where, v->patch,
                       v->image_size);
    return RADZ_OK;
}

/* A CLIP model's configuration, of the tower alone or of both halves. */
static radz_status read_tower(const json_t *root, rz_config *cfg, radz_error *err)
{
    const json_t *vision = json_object_get(root, "vision_config");
    if (json_is_object(vision)) return rz_read_vision(vision, "config.json: vision_config", &cfg->vision, err);
    return rz_read_vision(root, "config.json", &cfg->vision, err);
}

/* dir/name when it holds a config.json; *out NULL: it does not. A name may not lead out of the model's directory. */
static radz_status tower_in(const rz_host *host, const char *dir, const char *name, char **out, radz_error *err)
{
    *out = NULL;
    if (!name || !*name || name[0] == '/' || strstr(name, "..")) return RADZ_OK;
    char *path = rz_path_join(host, dir, name), *config = path ? rz_path_join(host, path, "config.json") : NULL;
    radz_status status = config ? RADZ_OK : RZ_NO_MEMORY(err, "vision tower");
    bool weights = false;
    if (!status) status = rz_weights_there(host, path, &weights, err);
    if (!status && (weights || rz_path_exists(config)))
        *out = path;
    else
        rz_free(host, path);
    rz_free(host, config);
    return status;
}

radz_status rz_find_tower(const rz_source *src, rz_config *cfg, radz_error *err)
{
    static const char *const probe = "vision_tower.vision_model.embeddings.class_embedding";
    const rz_host *host = cfg->host;
    if (src->tower == RZ_TOWER_CHECKPOINT || (!cfg->has_vision && !src->vision_dir)) return RADZ_OK;
    if (!cfg->has_vision)
        return rz_fail(err, RADZ_E_ARGUMENT, "%s: a text model, it has no place for a vision tower", src->dir);
    if (src->vision_dir)
        return (cfg->vision_dir = rz_strdup(host, src->vision_dir)) ? RADZ_OK : RZ_NO_MEMORY(err, "vision tower");
    if (src->tower == RZ_TOWER_AUTO) {
        bool there = true;
        if (cfg->original) RZ_TRY(rz_weights_hold(host, src->dir, probe, &there, err));
        if (there) return RADZ_OK;
    }
    RZ_TRY(tower_in(host, src->dir, cfg->tower_name, &cfg->vision_dir, err));
    if (!cfg->vision_dir) RZ_TRY(tower_in(host, src->dir, "vision_tower", &cfg->vision_dir, err));
    if (cfg->vision_dir) return RADZ_OK;
    return rz_fail(err, RADZ_E_MISMATCH,
                   "%s: no vision tower: put config.json and model.safetensors of '%s' into %s/vision_tower, or give "
                   "its directory as vision_dir",
                   src->dir, cfg->tower_name ? cfg->tower_name : "the CLIP model", src->dir);
}

radz_status rz_describe_tower(const rz_source *src, rz_config *cfg, radz_error *err)
{
    if (!cfg->vision_dir)
        return cfg->original && !cfg->describes_tower ? rz_tower_shape(cfg->host, src->dir, &cfg->vision, err)
                                                      : RADZ_OK;
    char *path = rz_path_join(cfg->host, cfg->vision_dir, "config.json");
    if (!path) return RZ_NO_MEMORY(err, "vision tower");
    const bool described = rz_path_exists(path);
    rz_free(cfg->host, path);
    if (!described) RZ_TRY(rz_tower_shape(cfg->host, cfg->vision_dir, &cfg->vision, err));
    if (!described && cfg->vision.hidden) return RADZ_OK;
    return rz_read_json_file(cfg, cfg->vision_dir, "config.json", true, read_tower, err);
}
