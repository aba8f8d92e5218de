/* config_read.c - values and files of JSON that the configuration is made of, checked.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config_read.h"

#define JSON_MAX_BYTES (16u << 20)

radz_status rz_read_size(const json_t *obj, const char *where, const char *key, int64_t min, int64_t max, size_t *out,
                         radz_error *err)
{
    int64_t v = (int64_t)*out;
    RZ_TRY(rz_json_int(obj, where, key, min, max, &v, err));
    *out = (size_t)v;
    return RADZ_OK;
}

radz_status rz_read_float(const json_t *obj, const char *where, const char *key, double min, double max, float *out,
                          radz_error *err)
{
    double v = (double)*out;
    RZ_TRY(rz_json_double(obj, where, key, min, max, &v, err));
    *out = (float)v;
    return RADZ_OK;
}

radz_status rz_read_act(const json_t *obj, const char *where, const char *key, rz_act_kind *out, radz_error *err)
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

radz_status rz_read_copy(const rz_host *host, const json_t *obj, const char *where, const char *key, char **out,
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

radz_status rz_read_json_file(rz_config *cfg, const char *dir, const char *name, bool required, rz_json_reader *read,
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
