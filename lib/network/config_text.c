/* config_text.c - the text decoder of config.json, and the tokens that end a text.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config_read.h"

#include <stdio.h>

#define MAX_VOCAB (1 << 24)

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
    RZ_TRY(rz_read_size(r, where, "original_max_position_embeddings", 1, INT32_MAX, &c->trained, err));
    return rz_read_size(root, where, "original_max_position_embeddings", 1, INT32_MAX, &c->trained, err);
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
    return mistral ? rz_read_size(obj, where, "sliding_window", 1, INT32_MAX, &t->window, err) : RADZ_OK;
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

radz_status rz_read_text(const json_t *obj, const char *where, bool mistral, rz_text_config *t, radz_error *err)
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
    RZ_TRY(rz_read_size(obj, where, "hidden_size", 1, RZ_MAX_WIDTH, &t->hidden, err));
    RZ_TRY(rz_read_size(obj, where, "intermediate_size", 1, RZ_MAX_WIDTH, &t->intermediate, err));
    RZ_TRY(rz_read_size(obj, where, "num_hidden_layers", 1, RZ_MAX_LAYERS, &t->layers, err));
    RZ_TRY(rz_read_size(obj, where, "num_attention_heads", 1, RZ_MAX_WIDTH, &t->heads, err));
    t->kv_heads = mistral && !json_object_get(obj, "num_key_value_heads") ? 8 : t->heads; /* null: as many as heads */
    RZ_TRY(rz_read_size(obj, where, "num_key_value_heads", 1, RZ_MAX_WIDTH, &t->kv_heads, err));
    t->head_dim = t->hidden / t->heads;
    RZ_TRY(rz_read_size(obj, where, "head_dim", 1, RZ_MAX_HEAD_DIM, &t->head_dim, err));
    const json_t *explicit_dim = json_object_get(obj, "head_dim");
    if ((!explicit_dim || json_is_null(explicit_dim)) && t->hidden % t->heads)
        return rz_fail(err, RADZ_E_FORMAT, "%s: hidden_size %zu is no multiple of num_attention_heads %zu", where,
                       t->hidden, t->heads);
    RZ_TRY(rz_read_size(obj, where, "vocab_size", 1, MAX_VOCAB, &t->vocab, err));
    RZ_TRY(rz_read_size(obj, where, "max_position_embeddings", 1, INT32_MAX, &t->max_positions, err));
    RZ_TRY(rz_read_float(obj, where, "rms_norm_eps", 0.0, 1.0, &t->eps, err));
    RZ_TRY(rz_read_act(obj, where, "hidden_act", &t->act, err));
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
radz_status rz_read_ends(const json_t *root, rz_config *cfg, radz_error *err)
{
    const json_t *text = json_object_get(root, "text_config"), *own = json_object_get(text, "eos_token_id");
    const json_t *top = json_object_get(root, "eos_token_id");
    if (!own && !top) cfg->text.eos[cfg->text.n_eos++] = 2;
    RZ_TRY(add_ends(own, "config.json: text_config", &cfg->text, err));
    return add_ends(top, "config.json", &cfg->text, err);
}

radz_status rz_read_generation(const json_t *root, rz_config *cfg, radz_error *err)
{
    return add_ends(json_object_get(root, "eos_token_id"), "generation_config.json", &cfg->text, err);
}
