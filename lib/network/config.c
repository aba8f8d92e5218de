/* config.c - config.json, preprocessor_config.json and radz.json together; missing keys take transformers' class
 * defaults. SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <stdio.h>

#include "classes.h"
#include "config_read.h"

/* ---- config.json ---- */

static radz_status read_select(const json_t *root, const char *key, bool *keep_class_row, radz_error *err)
{
    const char *select = NULL;
    RZ_TRY(rz_json_string(root, "config.json", key, &select, err));
    if (!select) return RADZ_OK;
    *keep_class_row = !strcmp(select, "full") || !strcmp(select, "cls_patch");
    if (!*keep_class_row && strcmp(select, "default") && strcmp(select, "patch"))
        return rz_fail(err, RADZ_E_UNSUPPORTED, "config.json: %s: '%s' is not known (default, full)", key, select);
    return RADZ_OK;
}

/* An index, or a list of them. */
static radz_status read_layers(const json_t *root, const char *key, rz_config *cfg, radz_error *err)
{
    const int64_t n = (int64_t)cfg->vision.layers;
    const json_t *list = json_object_get(root, key);
    int64_t layer = -2;
    cfg->n_feature_layers = 1;
    if (!json_is_array(list)) {
        RZ_TRY(rz_json_int(root, "config.json", key, -n - 1, n, &layer, err));
        cfg->feature_layers[0] = (int)layer;
        return RADZ_OK;
    }
    cfg->n_feature_layers = json_array_size(list);
    if (cfg->n_feature_layers < 1 || cfg->n_feature_layers > RZ_MAX_FEATURE_LAYERS)
        return rz_fail(err, RADZ_E_FORMAT, "config.json: %s: expected 1 to %d layers", key, RZ_MAX_FEATURE_LAYERS);
    for (size_t i = 0; i < cfg->n_feature_layers; i++) {
        const json_t *v = json_array_get(list, i);
        layer = json_is_integer(v) ? json_integer_value(v) : INT64_MAX;
        if (layer < -n - 1 || layer > n)
            return rz_fail(err, RADZ_E_FORMAT, "config.json: %s: expected integers in %d..%d", key, (int)(-n - 1),
                           (int)n);
        cfg->feature_layers[i] = (int)layer;
    }
    return RADZ_OK;
}

/* The keys that only LLaVA has; `original` is the authors' own layout, with other names. */
static radz_status read_llava(const json_t *root, bool original, rz_config *cfg, radz_error *err)
{
    const json_t *vision = json_object_get(root, "vision_config");
    if (json_is_null(vision)) vision = NULL;
    if (cfg->vision_dir) vision = NULL;
    if (vision && !json_is_object(vision))
        return rz_fail(err, RADZ_E_FORMAT, "config.json: vision_config: expected an object");
    cfg->has_vision = true;
    cfg->projector_act = RZ_ACT_GELU;
    cfg->projector_bias = true;
    if (!cfg->vision.hidden)
        cfg->vision = (rz_vision_config){.hidden = 1024,
                                         .intermediate = 4096,
                                         .layers = 24,
                                         .heads = 16,
                                         .image_size = 336,
                                         .patch = 14,
                                         .channels = 3,
                                         .eps = 1e-5f,
                                         .act = RZ_ACT_QUICK_GELU};
    if (vision) RZ_TRY(rz_read_vision(vision, "config.json: vision_config", &cfg->vision, err));
    RZ_TRY(rz_read_act(root, "config.json", "projector_hidden_act", &cfg->projector_act, err));
    RZ_TRY(rz_json_bool(root, "config.json", "multimodal_projector_bias", &cfg->projector_bias, err));
    RZ_TRY(read_layers(root, original ? "mm_vision_select_layer" : "vision_feature_layer", cfg, err));
    RZ_TRY(read_select(root, original ? "mm_vision_select_feature" : "vision_feature_select_strategy",
                       &cfg->keep_class_row, err));
    const char *projector = NULL, *aspect = NULL;
    RZ_TRY(rz_json_string(root, "config.json", "mm_projector_type", &projector, err));
    if (projector && strcmp(projector, "mlp2x_gelu"))
        return rz_fail(err, RADZ_E_UNSUPPORTED,
                       "config.json: mm_projector_type '%s' is not supported, only 'mlp2x_gelu'", projector);
    RZ_TRY(rz_json_string(root, "config.json", "image_aspect_ratio", &aspect, err));
    if (aspect && strcmp(aspect, "pad") && strcmp(aspect, "square")) /* LLaVA 1.6: parts of the film beside the whole */
        return rz_fail(err, RADZ_E_UNSUPPORTED, "config.json: image_aspect_ratio '%s' is not supported (square, pad)",
                       aspect);
    cfg->preprocess.pad_to_square = aspect && !strcmp(aspect, "pad");
    size_t side = cfg->vision.image_size / cfg->vision.patch;
    cfg->image_rows = side * side + cfg->keep_class_row;
    return RADZ_OK;
}

static radz_status read_config(const json_t *root, rz_config *cfg, radz_error *err)
{
    const char *type = NULL, *text_type = NULL;
    RZ_TRY(rz_json_string(root, "config.json", "model_type", &type, err));
    if (!type) return rz_fail(err, RADZ_E_FORMAT, "config.json: model_type is missing");
    if (!strcmp(type, "llama") || !strcmp(type, "mistral"))
        return rz_read_text(root, "config.json", !strcmp(type, "mistral"), &cfg->text, err);
    if (!strcmp(type, "llava_llama") || !strcmp(type, "llava_mistral")) {
        RZ_TRY(rz_read_text(root, "config.json", !strcmp(type, "llava_mistral"), &cfg->text, err));
        return read_llava(root, true, cfg, err);
    }
    if (strcmp(type, "llava"))
        return rz_fail(
            err, RADZ_E_UNSUPPORTED,
            "config.json: model_type '%s' is not supported (llava, llava_llama, llava_mistral, llama, mistral)", type);
    const json_t *text = json_object_get(root, "text_config");
    if (!text) { /* LLaVA's first conversions keep the text keys at the top */
        RZ_TRY(rz_read_text(root, "config.json", false, &cfg->text, err));
        return read_llava(root, cfg->original, cfg, err);
    }
    if (!json_is_object(text)) return rz_fail(err, RADZ_E_FORMAT, "config.json: text_config: expected an object");
    RZ_TRY(rz_json_string(text, "config.json: text_config", "model_type", &text_type, err));
    if (text_type && strcmp(text_type, "llama") && strcmp(text_type, "mistral"))
        return rz_fail(err, RADZ_E_UNSUPPORTED,
                       "config.json: text_config: model_type '%s' is not supported (llama, mistral)", text_type);
    RZ_TRY(rz_read_text(text, "config.json: text_config", text_type && !strcmp(text_type, "mistral"), &cfg->text, err));
    bool tied = false; /* either place ties */
    RZ_TRY(rz_json_bool(root, "config.json", "tie_word_embeddings", &tied, err));
    cfg->text.tied |= tied;
    return read_llava(root, false, cfg, err);
}

static radz_status read_quantised(const json_t *root, rz_config *cfg, radz_error *err)
{
    const json_t *how = json_object_get(root, "quantization_config");
    const char *method = "another program";
    if (!json_is_object(how)) return RADZ_OK;
    RZ_TRY(rz_json_string(how, "config.json: quantization_config", "quant_method", &method, err));
    if (strcmp(method, "libradz")) snprintf(cfg->quantised_by, sizeof cfg->quantised_by, "%s", method);
    return RADZ_OK;
}

/* What read_config reads the rest with. */
static radz_status read_names(const json_t *root, rz_config *cfg, radz_error *err)
{
    const char *type = "";
    RZ_TRY(rz_json_string(root, "config.json", "model_type", &type, err));
    bool first = !json_object_get(root, "text_config") && json_object_get(root, "mm_vision_select_layer");
    cfg->has_vision = !strncmp(type, "llava", 5);
    cfg->describes_tower = json_is_object(json_object_get(root, "vision_config"));
    RZ_TRY(read_quantised(root, cfg, err));
    cfg->original = !strncmp(type, "llava_", 6) || (cfg->has_vision && first);
    return cfg->original ? rz_read_copy(cfg->host, root, "config.json", "mm_vision_tower", &cfg->tower_name, err)
                         : RADZ_OK;
}

/* ---- The directory ---- */

static radz_status set_defaults(rz_config *cfg, radz_error *err)
{
    rz_radz_config *r = &cfg->radz;
    r->layer = -2, r->tau = 0.05, r->lambda = 0.5;
    r->image_prompt = rz_strdup(cfg->host, "<image>\nWhat disease is indicated by the chest X-ray?");
    r->text_prompt = rz_strdup(cfg->host, "{text}\nWhat disease is described in this text?");
    r->label_text = rz_strdup(cfg->host, "This is a chest X-ray showing {labels}.");
    cfg->preprocess = (rz_preprocess_config){.resize = true,
                                             .crop = true,
                                             .rescale = 1.0f / 255.0f,
                                             .mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                             .std = {0.26862954f, 0.26130258f, 0.27577711f}};
    return r->image_prompt && r->text_prompt && r->label_text ? RADZ_OK : RZ_NO_MEMORY(err, "configuration");
}

/* Settings of the films: beside the model, else beside its tower. */
static radz_status read_films(rz_config *cfg, const char *dir, radz_error *err)
{
    rz_preprocess_config *p = &cfg->preprocess;
    p->shortest_edge = p->crop_width = p->crop_height = cfg->vision.image_size;
    if (!cfg->has_vision) return RADZ_OK;
    RZ_TRY(rz_read_films(cfg, dir, err));
    return cfg->films_from || !cfg->vision_dir ? RADZ_OK : rz_read_films(cfg, cfg->vision_dir, err);
}

radz_status rz_config_file(const rz_host *host, const char *dir, const char *name, char **path, radz_error *err)
{
    *path = rz_path_join(host, dir, name);
    if (!*path) return RZ_NO_MEMORY(err, name);
    if (rz_path_exists(*path)) return RADZ_OK;
    rz_free(host, *path);
    *path = NULL;
    return RADZ_OK;
}

static radz_status load_radz(const rz_source *src, rz_config *cfg, radz_error *err)
{
    const char *dir = src->dir;
    char *own = NULL;
    if (src->settings) return rz_read_json_file(cfg, "", src->settings, true, rz_read_radz, err);
    if (src->adapter_dir) RZ_TRY(rz_config_file(cfg->host, src->adapter_dir, "radz.json", &own, err));
    if (own) dir = src->adapter_dir;
    rz_free(cfg->host, own);
    RZ_TRY(rz_read_json_file(cfg, dir, "radz.json", false, rz_read_radz, err));
    if (src->new_radz && !cfg->radz.n_image_tokens) cfg->radz.n_image_tokens = 4, cfg->radz.n_text_tokens = 8;
    return RADZ_OK;
}

static radz_status load(const rz_source *src, rz_config *cfg, radz_error *err)
{
    RZ_TRY(set_defaults(cfg, err));
    RZ_TRY(rz_read_json_file(cfg, src->dir, "config.json", true, read_names, err));
    RZ_TRY(rz_find_tower(src, cfg, err));
    RZ_TRY(rz_describe_tower(src, cfg, err));
    RZ_TRY(rz_read_json_file(cfg, src->dir, "config.json", true, read_config, err));
    RZ_TRY(rz_read_json_file(cfg, src->dir, "config.json", true, rz_read_ends, err));
    RZ_TRY(rz_read_json_file(cfg, src->dir, "generation_config.json", false, rz_read_generation, err));
    RZ_TRY(read_films(cfg, src->dir, err));
    cfg->radz.dim = cfg->text.hidden;
    RZ_TRY(load_radz(src, cfg, err));
    if (src->vectors) rz_config_choose(&cfg->radz, !strcmp(src->vectors, "refcode"));
    return src->classes ? rz_classes_choose(cfg, src->classes, err) : RADZ_OK;
}

radz_status rz_config_load_from(const rz_host *host, const rz_source *source, rz_config *cfg, radz_error *err)
{
    *cfg = (rz_config){.host = host};
    radz_status status = load(source, cfg, err);
    if (status) rz_config_free(cfg);
    return status;
}

radz_status rz_config_load(const rz_host *host, const char *dir, rz_config *cfg, radz_error *err)
{
    return rz_config_load_from(host, &(rz_source){.dir = dir, .tower = RZ_TOWER_CHECKPOINT}, cfg, err);
}

void rz_config_free(rz_config *cfg)
{
    rz_free(cfg->host, cfg->radz.image_prompt);
    rz_free(cfg->host, cfg->radz.text_prompt);
    rz_free(cfg->host, cfg->radz.label_text);
    rz_free(cfg->host, cfg->tower_name);
    rz_free(cfg->host, cfg->vision_dir);
    rz_classes_free(cfg);
    *cfg = (rz_config){0};
}

/* hidden_states has one entry more than there are blocks; [i] is the input of block i. */
static size_t blocks_before(int layer, size_t n_layers)
{
    return layer >= 0 ? (size_t)layer : n_layers + 1 - (size_t)-layer;
}

size_t rz_config_decoder_blocks(const rz_config *cfg)
{
    return blocks_before(cfg->radz.layer, cfg->text.layers);
}

size_t rz_config_feature_blocks(const rz_config *cfg, size_t i)
{
    return blocks_before(cfg->feature_layers[i], cfg->vision.layers);
}

size_t rz_config_tower_blocks(const rz_config *cfg)
{
    size_t most = 0;
    for (size_t i = 0; i < cfg->n_feature_layers; i++) {
        size_t n = rz_config_feature_blocks(cfg, i);
        most = n > most ? n : most;
    }
    return most;
}
