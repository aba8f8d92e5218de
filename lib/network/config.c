/* config.c - config.json, preprocessor_config.json and radz.json, checked; missing keys take transformers' class
 * defaults. SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "classes.h"

#include <stdio.h>

#include "tower_shape.h"
#include "weights.h"

#define JSON_MAX_BYTES (16u << 20)
#define MAX_WIDTH (1 << 20) /* hidden sizes */
#define MAX_LAYERS 1024
#define MAX_VOCAB (1 << 24)

/* ---- Small readers ------------------------------------------------------------- */

static radz_status get_size(const json_t *obj, const char *where, const char *key, int64_t min, int64_t max,
                            size_t *out, radz_error *err)
{
    int64_t v = (int64_t)*out;
    RZ_TRY(rz_json_int(obj, where, key, min, max, &v, err));
    *out = (size_t)v;
    return RADZ_OK;
}

static radz_status get_float(const json_t *obj, const char *where, const char *key, double min, double max, float *out,
                             radz_error *err)
{
    double v = (double)*out;
    RZ_TRY(rz_json_double(obj, where, key, min, max, &v, err));
    *out = (float)v;
    return RADZ_OK;
}

static radz_status get_act(const json_t *obj, const char *where, const char *key, rz_act_kind *out, radz_error *err)
{
    static const struct {
        const char *name;
        rz_act_kind kind;
    } known[] = {{"quick_gelu", RZ_ACT_QUICK_GELU},
                 {"gelu", RZ_ACT_GELU},
                 {"gelu_new", RZ_ACT_GELU_TANH},
                 {"gelu_pytorch_tanh", RZ_ACT_GELU_TANH},
                 {"silu", RZ_ACT_SILU},
                 {"swish", RZ_ACT_SILU},
                 {"relu", RZ_ACT_RELU}};
    const char *name = NULL;
    RZ_TRY(rz_json_string(obj, where, key, &name, err));
    if (!name) return RADZ_OK;
    for (size_t i = 0; i < RZ_COUNT(known); i++)
        if (!strcmp(name, known[i].name)) {
            *out = known[i].kind;
            return RADZ_OK;
        }
    return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: %s: activation '%s' is not known", where, key, name);
}

static radz_status get_copy(const rz_host *host, const json_t *obj, const char *where, const char *key, char **out,
                            radz_error *err)
{
    const char *v = NULL;
    RZ_TRY(rz_json_string(obj, where, key, &v, err));
    if (!v) return RADZ_OK;
    char *copy = rz_strdup(host, v);
    if (!copy) return RZ_NO_MEMORY(err, where);
    rz_free(host, *out);
    *out = copy;
    return RADZ_OK;
}

/* ---- Text decoder ------------------------------------------------------------------ */

static radz_status rope_kind(const json_t *r, const char *where, rz_rope_kind *kind, radz_error *err)
{
    static const char *const names[] = {[RZ_ROPE_DEFAULT] = "default",
                                        [RZ_ROPE_LINEAR] = "linear",
                                        [RZ_ROPE_DYNAMIC] = "dynamic",
                                        [RZ_ROPE_LLAMA3] = "llama3"};
    const char *type = "default";
    RZ_TRY(rz_json_string(r, where, "type", &type, err));
    RZ_TRY(rz_json_string(r, where, "rope_type", &type, err));
    for (size_t i = 0; i < RZ_COUNT(names); i++)
        if (!strcmp(type, names[i])) {
            *kind = (rz_rope_kind)i;
            return RADZ_OK;
        }
    return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: rope type '%s' is not supported (default, linear, dynamic, llama3)",
                   where, type);
}

/* A number that this rope type cannot do without. */
static radz_status rope_number(const json_t *r, const char *where, const char *key, double *out, radz_error *err)
{
    *out = 0;
    RZ_TRY(rz_json_double(r, where, key, 1e-6, 1e6, out, err));
    return *out > 0 ? RADZ_OK : rz_fail(err, RADZ_E_FORMAT, "%s: %s is missing", where, key);
}

static radz_status read_scaling(const json_t *root, const json_t *r, const char *where, rz_text_config *t,
                                radz_error *err)
{
    rz_rope_config *c = &t->rope;
    double partial = 1.0;
    RZ_TRY(rz_json_double(r, where, "rope_theta", 1.0, 1e12, &c->theta, err));
    RZ_TRY(rope_kind(r, where, &c->kind, err));
    RZ_TRY(rz_json_double(r, where, "partial_rotary_factor", 0.0, 1.0, &partial, err));
    if (partial < 1.0)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: partial_rotary_factor is not supported, only 1", where);
    if (c->kind == RZ_ROPE_DEFAULT) return RADZ_OK;
    RZ_TRY(rope_number(r, where, "factor", &c->factor, err));
    if (c->kind != RZ_ROPE_LLAMA3) return RADZ_OK;
    RZ_TRY(rope_number(r, where, "low_freq_factor", &c->low, err));
    RZ_TRY(rope_number(r, where, "high_freq_factor", &c->high, err));
    if (c->low >= c->high)
        return rz_fail(err, RADZ_E_FORMAT, "%s: low_freq_factor: expected less than high_freq_factor", where);
    RZ_TRY(get_size(r, where, "original_max_position_embeddings", 1, INT32_MAX, &c->trained, err));
    return get_size(root, where, "original_max_position_embeddings", 1, INT32_MAX, &c->trained, err);
}

/* transformers 5 keeps these in rope_parameters, transformers 4 beside the other keys and in rope_scaling, which wins
 * where both are there. */
static radz_status read_rope(const json_t *obj, const char *where, rz_text_config *t, radz_error *err)
{
    static const char *const places[] = {"rope_parameters", "rope_scaling"};
    rz_rope_config *c = &t->rope;
    c->trained = t->max_positions;
    RZ_TRY(rz_json_double(obj, where, "rope_theta", 1.0, 1e12, &c->theta, err));
    const double theta = c->theta;
    for (size_t i = 0; i < RZ_COUNT(places); i++) {
        const json_t *r = json_object_get(obj, places[i]);
        if (!r || json_is_null(r)) continue;
        if (!json_is_object(r)) return rz_fail(err, RADZ_E_FORMAT, "%s: %s: expected an object", where, places[i]);
        if (!json_object_size(r)) continue;
        char at[128];
        snprintf(at, sizeof at, "%s: %s", where, places[i]);
        *c = (rz_rope_config){.theta = theta, .trained = t->max_positions};
        RZ_TRY(read_scaling(obj, r, at, t, err));
    }
    if (c->kind == RZ_ROPE_DYNAMIC && t->head_dim < 4)
        return rz_fail(err, RADZ_E_FORMAT, "%s: head_dim %zu is too small for rope type 'dynamic'", where, t->head_dim);
    if (c->kind == RZ_ROPE_LINEAR || c->kind == RZ_ROPE_DYNAMIC) { /* max_position_embeddings is that before scaling */
        double longest = (double)t->max_positions * c->factor;
        t->max_positions = longest < INT32_MAX ? (size_t)longest : INT32_MAX;
    }
    return RADZ_OK;
}

static radz_status read_window(const json_t *obj, const char *where, bool mistral, rz_text_config *t, radz_error *err)
{
    const json_t *w = json_object_get(obj, "sliding_window");
    t->window = mistral && !w ? 4096 : 0; /* absent: Mistral's class default; null: none */
    return mistral ? get_size(obj, where, "sliding_window", 1, INT32_MAX, &t->window, err) : RADZ_OK;
}

static radz_status check_text(const rz_text_config *t, const char *where, radz_error *err)
{
    if (t->heads % t->kv_heads)
        return rz_fail(err, RADZ_E_FORMAT, "%s: num_attention_heads %zu is no multiple of num_key_value_heads %zu",
                       where, t->heads, t->kv_heads);
    if (t->head_dim % 2 || t->head_dim > RZ_MAX_HEAD_DIM)
        return rz_fail(err, RADZ_E_FORMAT, "%s: head_dim %zu: expected an even number in 2..%d", where, t->head_dim,
                       RZ_MAX_HEAD_DIM);
    return RADZ_OK;
}

static radz_status read_text(const json_t *obj, const char *where, bool mistral, rz_text_config *t, radz_error *err)
{
    *t = (rz_text_config){.hidden = 4096,
                          .intermediate = mistral ? 14336 : 11008,
                          .layers = 32,
                          .heads = 32,
                          .vocab = 32000,
                          .max_positions = mistral ? 131072 : 2048,
                          .eps = 1e-6f,
                          .rope.theta = 10000.0,
                          .act = RZ_ACT_SILU,
                          .mistral = mistral};
    RZ_TRY(get_size(obj, where, "hidden_size", 1, MAX_WIDTH, &t->hidden, err));
    RZ_TRY(get_size(obj, where, "intermediate_size", 1, MAX_WIDTH, &t->intermediate, err));
    RZ_TRY(get_size(obj, where, "num_hidden_layers", 1, MAX_LAYERS, &t->layers, err));
    RZ_TRY(get_size(obj, where, "num_attention_heads", 1, MAX_WIDTH, &t->heads, err));
    t->kv_heads = mistral && !json_object_get(obj, "num_key_value_heads") ? 8 : t->heads; /* null: as many as heads */
    RZ_TRY(get_size(obj, where, "num_key_value_heads", 1, MAX_WIDTH, &t->kv_heads, err));
    t->head_dim = t->hidden / t->heads;
    RZ_TRY(get_size(obj, where, "head_dim", 1, RZ_MAX_HEAD_DIM, &t->head_dim, err));
    const json_t *explicit_dim = json_object_get(obj, "head_dim");
    if ((!explicit_dim || json_is_null(explicit_dim)) && t->hidden % t->heads)
        return rz_fail(err, RADZ_E_FORMAT, "%s: hidden_size %zu is no multiple of num_attention_heads %zu", where,
                       t->hidden, t->heads);
    RZ_TRY(get_size(obj, where, "vocab_size", 1, MAX_VOCAB, &t->vocab, err));
    RZ_TRY(get_size(obj, where, "max_position_embeddings", 1, INT32_MAX, &t->max_positions, err));
    RZ_TRY(get_float(obj, where, "rms_norm_eps", 0.0, 1.0, &t->eps, err));
    RZ_TRY(get_act(obj, where, "hidden_act", &t->act, err));
    RZ_TRY(rz_json_bool(obj, where, "tie_word_embeddings", &t->tied, err));
    if (!mistral) { /* Mistral has neither */
        RZ_TRY(rz_json_bool(obj, where, "attention_bias", &t->attention_bias, err));
        RZ_TRY(rz_json_bool(obj, where, "mlp_bias", &t->mlp_bias, err));
    }
    RZ_TRY(read_rope(obj, where, t, err));
    RZ_TRY(read_window(obj, where, mistral, t, err));
    return check_text(t, where, err);
}

/* An id or a list of them, added to those that are known. */
static radz_status add_ends(const json_t *v, const char *where, rz_text_config *t, radz_error *err)
{
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;
    for (size_t i = 0; v && !json_is_null(v) && i < n; i++) {
        const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX ||
            t->n_eos == RZ_MAX_EOS)
            return rz_fail(err, RADZ_E_FORMAT, "%s: eos_token_id: expected a token or up to %d of them", where,
                           RZ_MAX_EOS);
        t->eos[t->n_eos++] = (int32_t)json_integer_value(id);
    }
    return RADZ_OK;
}

/* transformers' class default is 2, for a file that does not say. */
static radz_status read_ends(const json_t *root, rz_config *cfg, radz_error *err)
{
    const json_t *text = json_object_get(root, "text_config"), *own = json_object_get(text, "eos_token_id");
    const json_t *top = json_object_get(root, "eos_token_id");
    if (!own && !top) cfg->text.eos[cfg->text.n_eos++] = 2;
    RZ_TRY(add_ends(own, "config.json: text_config", &cfg->text, err));
    return add_ends(top, "config.json", &cfg->text, err);
}

static radz_status read_generation(const json_t *root, rz_config *cfg, radz_error *err)
{
    return add_ends(json_object_get(root, "eos_token_id"), "generation_config.json", &cfg->text, err);
}

/* ---- Vision tower --------------------------------------------------------------------- */

static radz_status read_vision(const json_t *obj, const char *where, rz_vision_config *v, radz_error *err)
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
    RZ_TRY(get_size(obj, where, "hidden_size", 1, MAX_WIDTH, &v->hidden, err));
    RZ_TRY(get_size(obj, where, "intermediate_size", 1, MAX_WIDTH, &v->intermediate, err));
    RZ_TRY(get_size(obj, where, "num_hidden_layers", 1, MAX_LAYERS, &v->layers, err));
    RZ_TRY(get_size(obj, where, "num_attention_heads", 1, MAX_WIDTH, &v->heads, err));
    RZ_TRY(get_size(obj, where, "image_size", 1, 8192, &v->image_size, err));
    RZ_TRY(get_size(obj, where, "patch_size", 1, 8192, &v->patch, err));
    RZ_TRY(get_size(obj, where, "num_channels", 3, 3, &v->channels, err));
    RZ_TRY(get_float(obj, where, "layer_norm_eps", 0.0, 1.0, &v->eps, err));
    RZ_TRY(get_act(obj, where, "hidden_act", &v->act, err));
    if (v->hidden % v->heads)
        return rz_fail(err, RADZ_E_FORMAT, "%s: hidden_size %zu is no multiple of num_attention_heads %zu", where,
                       v->hidden, v->heads);
    if (v->patch > v->image_size)
        return rz_fail(err, RADZ_E_FORMAT, "%s: patch_size %zu is larger than image_size %zu", where, v->patch,
                       v->image_size);
    return RADZ_OK;
}

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
    if (vision) RZ_TRY(read_vision(vision, "config.json: vision_config", &cfg->vision, err));
    RZ_TRY(get_act(root, "config.json", "projector_hidden_act", &cfg->projector_act, err));
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
        return read_text(root, "config.json", !strcmp(type, "mistral"), &cfg->text, err);
    if (!strcmp(type, "llava_llama") || !strcmp(type, "llava_mistral")) {
        RZ_TRY(read_text(root, "config.json", !strcmp(type, "llava_mistral"), &cfg->text, err));
        return read_llava(root, true, cfg, err);
    }
    if (strcmp(type, "llava"))
        return rz_fail(
            err, RADZ_E_UNSUPPORTED,
            "config.json: model_type '%s' is not supported (llava, llava_llama, llava_mistral, llama, mistral)", type);
    const json_t *text = json_object_get(root, "text_config");
    if (!text) { /* LLaVA's first conversions keep the text keys at the top */
        RZ_TRY(read_text(root, "config.json", false, &cfg->text, err));
        return read_llava(root, cfg->original, cfg, err);
    }
    if (!json_is_object(text)) return rz_fail(err, RADZ_E_FORMAT, "config.json: text_config: expected an object");
    RZ_TRY(rz_json_string(text, "config.json: text_config", "model_type", &text_type, err));
    if (text_type && strcmp(text_type, "llama") && strcmp(text_type, "mistral"))
        return rz_fail(err, RADZ_E_UNSUPPORTED,
                       "config.json: text_config: model_type '%s' is not supported (llama, mistral)", text_type);
    RZ_TRY(read_text(text, "config.json: text_config", text_type && !strcmp(text_type, "mistral"), &cfg->text, err));
    bool tied = false; /* either place ties */
    RZ_TRY(rz_json_bool(root, "config.json", "tie_word_embeddings", &tied, err));
    cfg->text.tied |= tied;
    return read_llava(root, false, cfg, err);
}

/* ---- Preprocessing ---------------------------------------------------------------------- */

static radz_status read_means(const json_t *obj, const char *key, float out[3], radz_error *err)
{
    const json_t *a = json_object_get(obj, key);
    if (!a || json_is_null(a)) return RADZ_OK;
    for (size_t i = 0; i < 3; i++) {
        const json_t *v = json_array_get(a, i);
        double x = json_is_number(v) ? json_number_value(v) : NAN;
        if (json_array_size(a) != 3 || !(x >= -1e6 && x <= 1e6))
            return rz_fail(err, RADZ_E_FORMAT, "preprocessor_config.json: %s: expected three numbers", key);
        out[i] = (float)x;
    }
    return RADZ_OK;
}

/* "size": 336, {"shortest_edge": 336} or {"height": 336, "width": 336} */
static radz_status read_sides(const json_t *obj, const char *key, size_t *width, size_t *height, radz_error *err)
{
    const char *where = "preprocessor_config.json";
    const json_t *v = json_object_get(obj, key);
    if (!v || json_is_null(v)) return RADZ_OK;
    if (json_is_object(v)) {
        *width = *height = 0;
        RZ_TRY(get_size(v, where, "shortest_edge", 1, 8192, width, err));
        *height = *width;
        RZ_TRY(get_size(v, where, "width", 1, 8192, width, err));
        RZ_TRY(get_size(v, where, "height", 1, 8192, height, err));
    } else {
        RZ_TRY(get_size(obj, where, key, 1, 8192, width, err));
        *height = *width;
    }
    if (!*width || !*height)
        return rz_fail(err, RADZ_E_FORMAT, "%s: %s: expected shortest_edge, or width and height", where, key);
    return RADZ_OK;
}

static radz_status check_preprocess(const rz_config *cfg, size_t size_w, size_t size_h, bool exact, radz_error *err)
{
    const rz_preprocess_config *p = &cfg->preprocess;
    const char *where = "preprocessor_config.json";
    size_t want = cfg->vision.image_size, w = p->crop ? p->crop_width : size_w, h = p->crop ? p->crop_height : size_h;
    if (w != want || h != want)
        return rz_fail(err, RADZ_E_MISMATCH, "%s: films become %zu x %zu, the tower takes %zu x %zu", where, w, h, want,
                       want);
    if (size_w < want)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: size: shortest_edge %zu is smaller than the tower's %zu", where,
                       size_w, want);
    if (!p->resize || !(p->crop || p->pad_to_square))
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: expected do_resize, and do_center_crop or padding to a square",
                       where);
    if (exact && !p->pad_to_square)
        return rz_fail(err, RADZ_E_UNSUPPORTED,
                       "%s: size: width and height would distort the film; "
                       "expected shortest_edge",
                       where);
    for (int c = 0; c < 3; c++)
        if (!(p->std[c] > 0)) return rz_fail(err, RADZ_E_FORMAT, "%s: image_std: expected numbers above 0", where);
    return RADZ_OK;
}

static radz_status read_preprocess(const json_t *root, rz_config *cfg, radz_error *err)
{
    const char *where = "preprocessor_config.json";
    rz_preprocess_config *p = &cfg->preprocess;
    size_t w = p->shortest_edge, h = w;
    bool normalise = true, rescale = true;
    int64_t resample = 3;
    const json_t *size = json_object_get(root, "size");
    bool exact = json_is_object(size) && !json_object_get(size, "shortest_edge");
    RZ_TRY(rz_json_bool(root, where, "do_pad", &p->pad_to_square, err));
    RZ_TRY(rz_json_bool(root, where, "do_resize", &p->resize, err));
    RZ_TRY(rz_json_bool(root, where, "do_center_crop", &p->crop, err));
    RZ_TRY(rz_json_bool(root, where, "do_rescale", &rescale, err));
    RZ_TRY(rz_json_bool(root, where, "do_normalize", &normalise, err));
    RZ_TRY(rz_json_int(root, where, "resample", 0, 5, &resample, err));
    if (resample != 3)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: resample %d is not supported, only 3 (bicubic)", where,
                       (int)resample);
    RZ_TRY(read_sides(root, "size", &w, &h, err));
    if (w != h) return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: size %zu x %zu is not square", where, w, h);
    p->shortest_edge = w;
    RZ_TRY(read_sides(root, "crop_size", &p->crop_width, &p->crop_height, err));
    RZ_TRY(get_float(root, where, "rescale_factor", 0.0, 1e6, &p->rescale, err));
    if (!rescale) p->rescale = 1.0f;
    RZ_TRY(read_means(root, "image_mean", p->mean, err));
    RZ_TRY(read_means(root, "image_std", p->std, err));
    for (int c = 0; c < 3 && !normalise; c++) p->mean[c] = 0.0f, p->std[c] = 1.0f;
    return check_preprocess(cfg, w, h, exact, err);
}

/* ---- radz.json ----------------------------------------------------------------------------- */

static radz_status count_tokens(const json_t *tokens, const char *key, size_t *n, radz_error *err)
{
    const json_t *list = json_object_get(tokens, key);
    size_t count = json_array_size(list);
    if (!count || count > 1024)
        return rz_fail(err, RADZ_E_FORMAT, "radz.json: special_tokens.%s: expected a list of 1 to 1024 names", key);
    for (size_t i = 0; i < count; i++)
        if (!json_is_string(json_array_get(list, i)))
            return rz_fail(err, RADZ_E_FORMAT, "radz.json: special_tokens.%s: expected names", key);
    *n = count;
    return RADZ_OK;
}

static radz_status read_gamma(const json_t *root, rz_config *cfg, radz_error *err)
{
    rz_radz_config *r = &cfg->radz;
    const json_t *gamma = json_object_get(root, "gamma");
    const char *type = "identity", *pool = "mean_then_mlp", *where = "radz.json: gamma";
    r->dim = cfg->text.hidden;
    if (gamma && !json_is_null(gamma)) {
        if (!json_is_object(gamma)) return rz_fail(err, RADZ_E_FORMAT, "%s: expected an object", where);
        RZ_TRY(rz_json_string(gamma, where, "type", &type, err));
        if (!strcmp(type, "mlp")) {
            r->gamma = RZ_GAMMA_MLP;
            r->gamma_hidden = r->dim;
            RZ_TRY(get_size(gamma, where, "hidden", 1, MAX_WIDTH, &r->gamma_hidden, err));
            RZ_TRY(get_size(gamma, where, "dim", 1, MAX_WIDTH, &r->dim, err));
        } else if (strcmp(type, "identity"))
            return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: type '%s' is not known (identity, mlp)", where, type);
    }
    RZ_TRY(rz_json_string(root, "radz.json", "pool", &pool, err));
    r->mlp_then_mean = !strcmp(pool, "mlp_then_mean");
    if (!r->mlp_then_mean && strcmp(pool, "mean_then_mlp"))
        return rz_fail(err, RADZ_E_UNSUPPORTED, "radz.json: pool '%s' is not known (mean_then_mlp, mlp_then_mean)",
                       pool);
    return RADZ_OK;
}

static const struct {
    const char *key, *paper, *other;
    size_t at; /* a bool of rz_radz_config: other */
} choices[] = {{"rows", "tokens", "last", offsetof(rz_radz_config, last_rows)},
               {"append", "always", "training", offsetof(rz_radz_config, append_to_train)},
               {"anchors", "text", "embedding", offsetof(rz_radz_config, embedding_anchors)},
               {"score", "img_anchor", "fused", offsetof(rz_radz_config, fused_score)}};

const char *rz_config_choice(const rz_radz_config *r, size_t i, const char **other)
{
    if (i >= RZ_COUNT(choices)) return NULL;
    *other = *(const bool *)((const char *)r + choices[i].at) ? choices[i].other : NULL;
    return choices[i].key;
}

void rz_config_choose(rz_radz_config *r, bool as_authors_code)
{
    for (size_t i = 0; i < RZ_COUNT(choices); i++) *(bool *)((char *)r + choices[i].at) = as_authors_code;
}

static radz_status read_choices(const json_t *root, rz_radz_config *r, radz_error *err)
{
    for (size_t i = 0; i < RZ_COUNT(choices); i++) {
        const char *word = choices[i].paper;
        RZ_TRY(rz_json_string(root, "radz.json", choices[i].key, &word, err));
        bool other = !strcmp(word, choices[i].other);
        if (!other && strcmp(word, choices[i].paper))
            return rz_fail(err, RADZ_E_UNSUPPORTED, "radz.json: %s '%s' is not known (%s, %s)", choices[i].key, word,
                           choices[i].paper, choices[i].other);
        *(bool *)((char *)r + choices[i].at) = other;
    }
    if (r->append_to_train && !r->last_rows)
        return rz_fail(err, RADZ_E_FORMAT,
                       "radz.json: append 'training' leaves no special token to read: it needs "
                       "rows 'last'");
    return RADZ_OK;
}

static radz_status read_prompts(const json_t *root, const rz_host *host, rz_radz_config *r, radz_error *err)
{
    const json_t *p = json_object_get(root, "prompts");
    const char *where = "radz.json: prompts";
    if (!p || json_is_null(p)) return RADZ_OK;
    RZ_TRY(get_copy(host, p, where, "image", &r->image_prompt, err));
    RZ_TRY(get_copy(host, p, where, "text", &r->text_prompt, err));
    RZ_TRY(get_copy(host, p, where, "labels", &r->label_text, err));
    const char *const need[3][2] = {
        {r->image_prompt, "<image>"}, {r->text_prompt, "{text}"}, {r->label_text, "{labels}"}};
    for (int i = 0; i < 3; i++) {
        const char *at = strstr(need[i][0], need[i][1]);
        if (!at || strstr(at + 1, need[i][1]))
            return rz_fail(err, RADZ_E_FORMAT, "%s: expected %s once in each prompt that takes it", where, need[i][1]);
    }
    return RADZ_OK;
}

static radz_status read_radz(const json_t *root, rz_config *cfg, radz_error *err)
{
    rz_radz_config *r = &cfg->radz;
    const char *schema = NULL;
    int64_t layer = r->layer, n = (int64_t)cfg->text.layers;
    RZ_TRY(rz_json_string(root, "radz.json", "schema", &schema, err));
    if (!schema || strcmp(schema, "radz.model/1"))
        return rz_fail(err, RADZ_E_UNSUPPORTED, "radz.json: schema '%s', expected 'radz.model/1'",
                       schema ? schema : "(none)");
    const json_t *tokens = json_object_get(root, "special_tokens");
    RZ_TRY(count_tokens(tokens, "image", &r->n_image_tokens, err));
    RZ_TRY(count_tokens(tokens, "text", &r->n_text_tokens, err));
    RZ_TRY(rz_json_int(root, "radz.json", "layer", -n - 1, n, &layer, err));
    r->layer = (int)layer;
    if (rz_config_decoder_blocks(cfg) == cfg->text.layers)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "radz.json: layer %d is after the final norm; expected %d..-2",
                       r->layer, (int)(-n - 1));
    RZ_TRY(read_gamma(root, cfg, err));
    RZ_TRY(read_choices(root, r, err));
    bool can_write = true;
    RZ_TRY(rz_json_bool(root, "radz.json", "can_write", &can_write, err));
    r->cannot_write = !can_write;
    RZ_TRY(rz_json_double(root, "radz.json", "tau", 1e-4, 100.0, &r->tau, err));
    RZ_TRY(rz_json_double(root, "radz.json", "lambda", 0.0, 1.0, &r->lambda, err));
    RZ_TRY(rz_classes_read(root, cfg, err));
    return read_prompts(root, cfg->host, r, err);
}

/* ---- The directory -------------------------------------------------------------------------- */

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

typedef radz_status (*reader)(const json_t *root, rz_config *cfg, radz_error *err);

/* Reads dir/name; a file that is absent is fine unless it is required. */
static radz_status read_json_file(rz_config *cfg, const char *dir, const char *name, bool required, reader read,
                                  radz_error *err)
{
    char *path = rz_path_join(cfg->host, dir, name);
    if (!path) return RZ_NO_MEMORY(err, name);
    json_t *root = NULL;
    radz_status status = RADZ_OK;
    if (required || rz_path_exists(path)) {
        status = rz_json_load(cfg->host, path, JSON_MAX_BYTES, &root, err);
        if (!status && !json_is_object(root))
            status = rz_fail(err, RADZ_E_FORMAT, "%s: expected a JSON object", path);
        else if (!status && (status = read(root, cfg, err)))
            rz_fail_prefix(err, status, "%s", *dir ? dir : name);
        json_decref(root);
    }
    rz_free(cfg->host, path);
    return status;
}

/* ---- Where the tower is ---- */

/* What read_config reads the rest with. */
static radz_status read_names(const json_t *root, rz_config *cfg, radz_error *err)
{
    const char *type = "";
    RZ_TRY(rz_json_string(root, "config.json", "model_type", &type, err));
    bool first = !json_object_get(root, "text_config") && json_object_get(root, "mm_vision_select_layer");
    cfg->has_vision = !strncmp(type, "llava", 5);
    cfg->describes_tower = json_is_object(json_object_get(root, "vision_config"));
    cfg->original = !strncmp(type, "llava_", 6) || (cfg->has_vision && first);
    return cfg->original ? get_copy(cfg->host, root, "config.json", "mm_vision_tower", &cfg->tower_name, err) : RADZ_OK;
}

/* A CLIP model's configuration, of the tower alone or of both halves. */
static radz_status read_tower(const json_t *root, rz_config *cfg, radz_error *err)
{
    const json_t *vision = json_object_get(root, "vision_config");
    if (json_is_object(vision)) return read_vision(vision, "config.json: vision_config", &cfg->vision, err);
    return read_vision(root, "config.json", &cfg->vision, err);
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

static radz_status find_tower(const rz_source *src, rz_config *cfg, radz_error *err)
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

/* What the tower is: its own configuration, or its tensors where nothing describes it. */
static radz_status describe_tower(const rz_source *src, rz_config *cfg, radz_error *err)
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
    return read_json_file(cfg, cfg->vision_dir, "config.json", true, read_tower, err);
}

/* Settings of the films: beside the model, else beside its tower. */
static radz_status read_films(rz_config *cfg, const char *dir, radz_error *err)
{
    rz_preprocess_config *p = &cfg->preprocess;
    p->shortest_edge = p->crop_width = p->crop_height = cfg->vision.image_size;
    if (!cfg->has_vision) return RADZ_OK;
    char *path = rz_path_join(cfg->host, dir, "preprocessor_config.json");
    if (!path) return RZ_NO_MEMORY(err, "preprocessor_config.json");
    bool own = rz_path_exists(path) || !cfg->vision_dir;
    rz_free(cfg->host, path);
    return read_json_file(cfg, own ? dir : cfg->vision_dir, "preprocessor_config.json", false, read_preprocess, err);
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
    if (src->settings) return read_json_file(cfg, "", src->settings, true, read_radz, err);
    if (src->adapter_dir) RZ_TRY(rz_config_file(cfg->host, src->adapter_dir, "radz.json", &own, err));
    if (own) dir = src->adapter_dir;
    rz_free(cfg->host, own);
    RZ_TRY(read_json_file(cfg, dir, "radz.json", false, read_radz, err));
    if (src->new_radz && !cfg->radz.n_image_tokens) cfg->radz.n_image_tokens = 4, cfg->radz.n_text_tokens = 8;
    return RADZ_OK;
}

static void put_text(rz_str *s, const char *before, const char *text)
{
    rz_str_puts(s, before);
    rz_str_put_json(s, text, strlen(text));
}

static void put_tokens(rz_str *s, const char *key, const char *name, size_t n)
{
    rz_str_printf(s, "\"%s\": [", key);
    for (size_t i = 0; i < n; i++) rz_str_printf(s, "%s\"<%s%zu>\"", i ? ", " : "", name, i);
    rz_str_puts(s, "]");
}

void rz_config_put_radz(const rz_config *cfg, rz_str *s)
{
    const rz_radz_config *r = &cfg->radz;
    rz_str_puts(s, "{\n  \"schema\": \"radz.model/1\",\n  \"special_tokens\": {");
    put_tokens(s, "image", "ImgCls", r->n_image_tokens);
    rz_str_puts(s, ", ");
    put_tokens(s, "text", "TxtCls", r->n_text_tokens);
    rz_str_printf(s, "},\n  \"layer\": %d,\n  \"gamma\": {\"type\": ", r->layer);
    if (r->gamma == RZ_GAMMA_MLP)
        rz_str_printf(s, "\"mlp\", \"hidden\": %zu, \"dim\": %zu}", r->gamma_hidden, r->dim);
    else
        rz_str_puts(s, "\"identity\"}");
    rz_str_printf(s, ",\n  \"pool\": \"%s\"", r->mlp_then_mean ? "mlp_then_mean" : "mean_then_mlp");
    const char *key, *other;
    for (size_t i = 0; (key = rz_config_choice(r, i, &other)); i++)
        if (other) rz_str_printf(s, ",\n  \"%s\": \"%s\"", key, other);
    rz_str_puts(s, ",\n  \"tau\": ");
    rz_str_put_double(s, r->tau);
    rz_str_puts(s, ",\n  \"lambda\": ");
    rz_str_put_double(s, r->lambda);
    put_text(s, ",\n  \"prompts\": {\n    \"image\": ", r->image_prompt);
    put_text(s, ",\n    \"text\": ", r->text_prompt);
    put_text(s, ",\n    \"labels\": ", r->label_text);
    rz_str_puts(s, "\n  }\n}\n");
}

static radz_status load(const rz_source *src, rz_config *cfg, radz_error *err)
{
    RZ_TRY(set_defaults(cfg, err));
    RZ_TRY(read_json_file(cfg, src->dir, "config.json", true, read_names, err));
    RZ_TRY(find_tower(src, cfg, err));
    RZ_TRY(describe_tower(src, cfg, err));
    RZ_TRY(read_json_file(cfg, src->dir, "config.json", true, read_config, err));
    RZ_TRY(read_json_file(cfg, src->dir, "config.json", true, read_ends, err));
    RZ_TRY(read_json_file(cfg, src->dir, "generation_config.json", false, read_generation, err));
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
