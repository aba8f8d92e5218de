/* config_radz.c - radz.json, read and written.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config_read.h"

#include "classes.h"

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
            RZ_TRY(rz_read_size(gamma, where, "hidden", 1, RZ_MAX_WIDTH, &r->gamma_hidden, err));
            RZ_TRY(rz_read_size(gamma, where, "dim", 1, RZ_MAX_WIDTH, &r->dim, err));
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
    RZ_TRY(rz_read_copy(host, p, where, "image", &r->image_prompt, err));
    RZ_TRY(rz_read_copy(host, p, where, "text", &r->text_prompt, err));
    RZ_TRY(rz_read_copy(host, p, where, "labels", &r->label_text, err));
    const char *const need[3][2] = {
        {r->image_prompt, "<image>"}, {r->text_prompt, "{text}"}, {r->label_text, "{labels}"}};
    for (int i = 0; i < 3; i++) {
        const char *at = strstr(need[i][0], need[i][1]);
        if (!at || strstr(at + 1, need[i][1]))
            return rz_fail(err, RADZ_E_FORMAT, "%s: expected %s once in each prompt that takes it", where, need[i][1]);
    }
    return RADZ_OK;
}

radz_status rz_read_radz(const json_t *root, rz_config *cfg, radz_error *err)
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
    rz_str_put_number(s, ",\n  \"tau\": ", r->tau);
    rz_str_put_number(s, ",\n  \"lambda\": ", r->lambda);
    rz_str_put_text(s, ",\n  \"prompts\": {\n    \"image\": ", r->image_prompt);
    rz_str_put_text(s, ",\n    \"text\": ", r->text_prompt);
    rz_str_put_text(s, ",\n    \"labels\": ", r->label_text);
    rz_str_puts(s, "\n  }\n}\n");
}
