/* lora.c - PEFT's LoRA adapters, merged into the weights when a model is loaded.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lora.h"

#include <stdio.h>

#include "regex.h"
#include "weights.h"

#define CONFIG "adapter_config.json"
#define NAME_MAX_BYTES 320
#define MAX_PATTERNS 1024
/* Every pattern and every name is tried on every module: a stranger's file must not cost hours. */
#define MAX_STEPS ((uint64_t)1 << 29)
#define BAND 4 /* rows of a product that a thread makes at a time, BLOCK columns by BLOCK */
#define BLOCK 256

struct rz_lora {
    const rz_host *host;
    char *dir;
    json_t *cfg;
    rz_file text; /* of the configuration, for the hash */
    rz_st *st;
    bool *used;
    int64_t r;
    double alpha;
    bool rslora, ties;
    uint64_t steps; /* that looking for names may still take */
};

/* ---- Configuration ------------------------------------------------------------------- */

/* null, false, 0, "", [] and {} */
static bool is_off(const json_t *v)
{
    return !v || json_is_null(v) || json_is_false(v) || (json_is_string(v) && !*json_string_value(v)) ||
           (json_is_array(v) && !json_array_size(v)) || (json_is_object(v) && !json_object_size(v));
}

static bool is_one_of(const char *s, const char *const *list)
{
    while (*list && strcmp(s, *list)) list++;
    return *list != NULL;
}

/* PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change the base weights too. */
static radz_status check_init(const json_t *v, radz_error *err)
{
    static const char *const fine[] = {"gaussian", "eva", "orthogonal", NULL};
    if (!json_is_string(v) || is_one_of(json_string_value(v), fine)) return RADZ_OK;
    return rz_fail(err, RADZ_E_UNSUPPORTED,
                   CONFIG ": init_lora_weights '%s' changes the base weights, which is not supported",
                   json_string_value(v));
}

static radz_status check_keys(const json_t *cfg, radz_error *err)
{
    static const char *const read_here[] = {"peft_type",
                                            "r",
                                            "lora_alpha",
                                            "use_rslora",
                                            "target_modules",
                                            "exclude_modules",
                                            "rank_pattern",
                                            "alpha_pattern",
                                            "layers_to_transform",
                                            "layers_pattern",
                                            "trainable_token_indices",
                                            "ensure_weight_tying",
                                            "init_lora_weights",
                                            NULL};
    static const char *const harmless[] = {/* of training, of bookkeeping, or said by the tensors themselves */
                                           "auto_mapping",   "base_model_name_or_path",
                                           "revision",       "task_type",
                                           "inference_mode", "peft_version",
                                           "lora_dropout",   "fan_in_fan_out",
                                           "bias",           "modules_to_save",
                                           "loftq_config",   "eva_config",
                                           "corda_config",   "lora_ga_config",
                                           "megatron_core",  "qalora_group_size",
                                           "runtime_config", NULL};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)cfg, key, v)
    {
        if (is_off(v) || is_one_of(key, read_here) || is_one_of(key, harmless)) continue;
        return rz_fail(err, RADZ_E_UNSUPPORTED, CONFIG ": %s is not supported", key);
    }
    return check_init(json_object_get(cfg, "init_lora_weights"), err);
}

static radz_status read_config(rz_lora *l, radz_error *err)
{
    const char *type = "", *bias = "none";
    l->r = 8, l->alpha = 8;
    if (!json_is_object(l->cfg)) return rz_fail(err, RADZ_E_FORMAT, CONFIG ": expected an object");
    RZ_TRY(rz_json_string(l->cfg, CONFIG, "peft_type", &type, err));
    if (strcmp(type, "LORA"))
        return rz_fail(err, RADZ_E_UNSUPPORTED, CONFIG ": peft_type '%s' is not supported, only 'LORA'", type);
    RZ_TRY(check_keys(l->cfg, err));
    RZ_TRY(rz_json_int(l->cfg, CONFIG, "r", 1, 65536, &l->r, err));
    RZ_TRY(rz_json_double(l->cfg, CONFIG, "lora_alpha", -1e9, 1e9, &l->alpha, err));
    RZ_TRY(rz_json_bool(l->cfg, CONFIG, "use_rslora", &l->rslora, err));
    RZ_TRY(rz_json_bool(l->cfg, CONFIG, "ensure_weight_tying", &l->ties, err));
    RZ_TRY(rz_json_string(l->cfg, CONFIG, "bias", &bias, err));
    if (!strcmp(bias, "none") || !strcmp(bias, "all") || !strcmp(bias, "lora_only")) return RADZ_OK;
    return rz_fail(err, RADZ_E_UNSUPPORTED, CONFIG ": bias '%s' is not known (none, all, lora_only)", bias);
}

/* ---- Which modules, with which rank --------------------------------------------------- */

/* path is name, or ends in .name */
static bool ends_in(const char *path, const char *name)
{
    size_t n = strlen(path), k = strlen(name);
    return n >= k && !strcmp(path + n - k, name) && (n == k || path[n - k - 1] == '.');
}

/* Before a list of n is gone through. */
static radz_status spend(rz_lora *l, size_t n, radz_error *err)
{
    if (n > l->steps) return rz_fail(err, RADZ_E_LIMIT, CONFIG ": the lists of names take too much work");
    l->steps -= n;
    return RADZ_OK;
}

/* A regular expression for the whole path, or a list of names that it may end in. */
static radz_status is_named(rz_lora *l, const json_t *v, const char *path, bool *yes, radz_error *err)
{
    *yes = false;
    if (json_is_string(v))
        return rz_regex_match(l->host, json_string_value(v), path, strlen(path), false, &l->steps, yes, err);
    RZ_TRY(spend(l, json_array_size(v), err));
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *name = json_string_value(json_array_get(v, i));
        if (name && ends_in(path, name)) *yes = true;
    }
    return RADZ_OK;
}

/* Number of the layer in "...layers.7.mlp...": the first number that stands between dots after the pattern, or, where
 * there is none, after any two names. -1: no layer. */
static radz_status layer_of(rz_lora *l, const char *path, int64_t *layer, radz_error *err)
{
    const json_t *pattern = json_object_get(l->cfg, "layers_pattern");
    const json_t *one = json_is_array(pattern) ? NULL : is_off(pattern) ? NULL : pattern;
    size_t names = 0, n_patterns = one ? 1 : json_array_size(pattern);
    *layer = -1;
    for (const char *dot = strchr(path, '.'); dot && *layer < 0; dot = strchr(dot + 1, '.')) {
        size_t digits = strspn(dot + 1, "0123456789");
        bool fits = !n_patterns && ++names >= 2;
        for (size_t i = 0; i < n_patterns && !fits; i++) {
            const char *p = json_string_value(one ? one : json_array_get(pattern, i));
            for (const char *at = path; p && at && at < dot && !fits; at = strchr(at, '.'), at = at ? at + 1 : NULL)
                RZ_TRY(rz_regex_match(l->host, p, at, (size_t)(dot - at), false, &l->steps, &fits, err));
        }
        if (digits && dot[1 + digits] == '.' && fits && !rz_parse_int64(dot + 1, digits, layer)) *layer = -1;
    }
    return RADZ_OK;
}

static radz_status in_layers(rz_lora *l, const char *path, bool *yes, radz_error *err)
{
    const json_t *want = json_object_get(l->cfg, "layers_to_transform");
    int64_t layer;
    if (is_off(want) || !json_is_array(json_object_get(l->cfg, "target_modules"))) return RADZ_OK;
    RZ_TRY(layer_of(l, path, &layer, err));
    RZ_TRY(spend(l, json_array_size(want), err));
    *yes = json_is_integer(want) && json_integer_value(want) == layer;
    for (size_t i = 0; i < json_array_size(want); i++)
        *yes = *yes || json_integer_value(json_array_get(want, i)) == layer;
    *yes = *yes && layer >= 0;
    return RADZ_OK;
}

static radz_status is_target(rz_lora *l, const char *path, bool *yes, radz_error *err)
{
    const json_t *target = json_object_get(l->cfg, "target_modules");
    const json_t *exclude = json_object_get(l->cfg, "exclude_modules");
    bool out = false;
    if (!is_off(exclude)) RZ_TRY(is_named(l, exclude, path, &out, err));
    *yes = false;
    if (out) return RADZ_OK;
    const char *all = json_string_value(target);
    if (all && (!strcmp(all, "all-linear") || !strcmp(all, "ALL-LINEAR"))) {
        *yes = !ends_in(path, "lm_head");
        return RADZ_OK;
    }
    RZ_TRY(is_named(l, target, path, yes, err));
    return *yes ? in_layers(l, path, yes, err) : RADZ_OK;
}

/* The value of the first key that fits the end of the path. */
static radz_status by_pattern(rz_lora *l, const char *key, const char *path, double *out, radz_error *err)
{
    const char *pattern;
    json_t *v, *all = json_object_get(l->cfg, key);
    if (json_object_size(all) > MAX_PATTERNS)
        return rz_fail(err, RADZ_E_LIMIT, CONFIG ": %s: more than %d patterns", key, MAX_PATTERNS);
    json_object_foreach(all, pattern, v)
    {
        bool fits = false;
        RZ_TRY(rz_regex_match(l->host, pattern, path, strlen(path), true, &l->steps, &fits, err));
        if (!fits) continue;
        if (!json_is_number(v)) return rz_fail(err, RADZ_E_FORMAT, CONFIG ": %s: expected numbers", key);
        *out = json_number_value(v);
        return RADZ_OK;
    }
    return RADZ_OK;
}

/* ---- Tensors ------------------------------------------------------------------------------ */

static const rz_st_tensor *take(rz_lora *l, const char *path, const char *suffix)
{
    char name[NAME_MAX_BYTES];
    int len = snprintf(name, sizeof name, "base_model.model.%s%s", path, suffix);
    const rz_st_tensor *t = len > 0 && (size_t)len < sizeof name ? rz_st_find(l->st, name) : NULL;
    if (t) l->used[t - rz_st_at(l->st, 0)] = true;
    return t;
}

/* The i-th path of the module of parameter `name`; *tail is what comes after it: ".weight", ".bias" or "". */
static bool module_path(const char *name, size_t i, char *path, const char **tail)
{
    if (!rz_weights_alias(name, i, path, NAME_MAX_BYTES)) return false;
    *tail = ends_in(name, "weight") ? ".weight" : ends_in(name, "bias") ? ".bias" : "";
    path[strlen(path) - strlen(*tail)] = 0;
    return true;
}

const rz_st_tensor *rz_lora_replacement(rz_lora *l, const char *name)
{
    static const char *const wraps[] = {"", ".base_layer", ".modules_to_save"};
    char path[NAME_MAX_BYTES], suffix[64];
    const char *tail;
    for (size_t i = 0; module_path(name, i, path, &tail); i++)
        for (size_t k = 0; k < RZ_COUNT(wraps) && *path; k++) {
            snprintf(suffix, sizeof suffix, "%s%s", wraps[k], tail);
            const rz_st_tensor *t = take(l, path, suffix);
            if (t) return t;
        }
    return NULL;
}

/* What the adapter holds for one module. */
typedef struct change {
    char path[NAME_MAX_BYTES];
    const rz_st_tensor *a, *b, *rows;
    bool table; /* an embedding: A (r, rows), B (cols, r) */
} change;

static bool find_change(rz_lora *l, const char *name, change *c)
{
    const char *tail;
    for (size_t i = 0; module_path(name, i, c->path, &tail); i++) {
        if (strcmp(tail, ".weight")) return false;
        c->a = take(l, c->path, ".lora_A.weight");
        c->b = take(l, c->path, ".lora_B.weight");
        c->table = !c->a && !c->b;
        if (c->table) {
            c->a = take(l, c->path, ".lora_embedding_A");
            c->b = take(l, c->path, ".lora_embedding_B");
        }
        c->rows = take(l, c->path, ".token_adapter.trainable_tokens_delta");
        if (c->a || c->b || c->rows) return true;
    }
    return false;
}

bool rz_lora_changes(rz_lora *l, const char *name)
{
    change c;
    return find_change(l, name, &c);
}

static radz_status read_floats(const rz_lora *l, const rz_st_tensor *t, float **out, radz_error *err)
{
    *out = rz_malloc(l->host, t->n_elements * sizeof **out);
    return *out ? rz_st_to_f32(t, *out, err) : RZ_NO_MEMORY(err, t->name);
}

static radz_status check_factors(const rz_param *p, const change *c, size_t r, radz_error *err)
{
    size_t rows = p->dims[0], cols = p->n / rows;
    const rz_st_tensor *bad = NULL;
    if (c->a->n_elements != r * (c->table ? rows : cols) || c->a->dims[0] != r) bad = c->a;
    if (c->b->n_elements != r * (c->table ? cols : rows) || c->b->dims[0] == 0) bad = c->b;
    return bad ? rz_fail(err, RADZ_E_MISMATCH, "tensor '%s': its shape does not fit rank %zu and %zu x %zu weights",
                         bad->name, r, rows, cols)
               : RADZ_OK;
}

/* W += scale B A. Sums are double and each weight is rounded once: a rounding here is an error of every pass. */
typedef struct product {
    float *w;
    const float *a, *b;
    size_t rows, cols, r;
    double scale;
    bool table; /* A (r, rows), B (cols, r): W += scale (B A)^T */
} product;

/* BLOCK columns of n rows. */
static void add_block(const product *p, size_t row, size_t n, size_t col, size_t n_cols)
{
    double sum[BAND][BLOCK] = {{0}};
    for (size_t k = 0; k < p->r; k++)
        for (size_t i = 0; i < n; i++) {
            const double left = p->table ? p->a[k * p->rows + row + i] : p->b[(row + i) * p->r + k];
            const float *right = p->table ? p->b + col * p->r + k : p->a + k * p->cols + col;
            if (p->table)
                for (size_t j = 0; j < n_cols; j++) sum[i][j] += left * (double)right[j * p->r];
            else
                for (size_t j = 0; j < n_cols; j++) sum[i][j] += left * (double)right[j];
        }
    for (size_t i = 0; i < n; i++) {
        float *w = p->w + (row + i) * p->cols + col;
        for (size_t j = 0; j < n_cols; j++) w[j] = (float)((double)w[j] + p->scale * sum[i][j]);
    }
}

static void add_band(void *arg, size_t band)
{
    const product *p = arg;
    const size_t row = band * BAND, n = p->rows - row < BAND ? p->rows - row : BAND;
    for (size_t col = 0; col < p->cols; col += BLOCK)
        add_block(p, row, n, col, p->cols - col < BLOCK ? p->cols - col : BLOCK);
}

static radz_status add_product(rz_lora *l, rz_pool *pool, const rz_param *p, const change *c, float *w, radz_error *err)
{
    double r = (double)l->r, alpha = l->alpha;
    float *a = NULL, *b = NULL;
    if (!c->a || !c->b) return rz_fail(err, RADZ_E_MISMATCH, "module '%s' has one of lora_A and lora_B only", c->path);
    RZ_TRY(by_pattern(l, "rank_pattern", c->path, &r, err));
    RZ_TRY(by_pattern(l, "alpha_pattern", c->path, &alpha, err));
    if (!(r >= 1 && r <= 65536)) return rz_fail(err, RADZ_E_FORMAT, CONFIG ": rank_pattern: expected 1..65536");
    RZ_TRY(check_factors(p, c, (size_t)r, err));
    radz_status status = read_floats(l, c->a, &a, err);
    if (!status) status = read_floats(l, c->b, &b, err);
    if (!status) {
        product job = {w, a, b, p->dims[0], p->n / p->dims[0], (size_t)r, alpha / (l->rslora ? sqrt(r) : r), c->table};
        rz_pool_run(pool, (job.rows + BAND - 1) / BAND, add_band, &job);
    }
    rz_free(l->host, a);
    rz_free(l->host, b);
    return status;
}

/* The rows' numbers: a list for the embedding table, or lists by module. */
static const json_t *token_list(const rz_lora *l, const char *path)
{
    json_t *v = json_object_get(l->cfg, "trainable_token_indices"), *list;
    const char *module;
    if (json_is_array(v)) return v;
    json_object_foreach(v, module, list) if (ends_in(path, module)) return list;
    return NULL;
}

static radz_status put_rows(const rz_lora *l, const rz_param *p, const change *c, float *w, radz_error *err)
{
    const json_t *list = token_list(l, c->path);
    size_t cols = p->n / p->dims[0], n = json_array_size(list);
    float *rows = NULL;
    if (!n || c->rows->n_elements != n * cols)
        return rz_fail(err, RADZ_E_MISMATCH, "tensor '%s': expected %zu rows, as trainable_token_indices has, of %zu",
                       c->rows->name, n, cols);
    radz_status status = read_floats(l, c->rows, &rows, err);
    for (size_t i = 0; i < n && !status; i++) {
        json_int_t id = json_is_integer(json_array_get(list, i)) ? json_integer_value(json_array_get(list, i)) : -1;
        if (id < 0 || (uint64_t)id >= p->dims[0])
            status = rz_fail(err, RADZ_E_MISMATCH, CONFIG ": trainable_token_indices: expected 0..%zu", p->dims[0] - 1);
        else
            memcpy(w + (size_t)id * cols, rows + i * cols, cols * sizeof *w);
    }
    rz_free(l->host, rows);
    return status;
}

radz_status rz_lora_merge(rz_lora *l, rz_pool *pool, const rz_param *p, const char *name, float *w, radz_error *err)
{
    change c;
    if (!find_change(l, name, &c)) return RADZ_OK;
    bool target = false;
    if (c.a || c.b) RZ_TRY(is_target(l, c.path, &target, err));
    if (target) RZ_TRY(add_product(l, pool, p, &c, w, err));
    if (!target && (c.a || c.b))
        rz_log(l->host, RADZ_LOG_WARNING, "%s: target_modules leaves out '%s': its tensors are not used", l->dir,
               c.path);
    return c.rows ? put_rows(l, p, &c, w, err) : RADZ_OK;
}

radz_status rz_lora_merge_tied(rz_lora *l, const rz_param *head, const char *table, float *w, radz_error *err)
{
    change c;
    return find_change(l, table, &c) && c.rows ? put_rows(l, head, &c, w, err) : RADZ_OK;
}

/* Copies that PEFT writes of what it has written already. */
static bool is_copy(const rz_lora *l, const char *name)
{
    static const char *const mark = ".modules_to_save.default.";
    const char *at = strstr(name, mark);
    char plain[NAME_MAX_BYTES];
    if (strstr(name, ".original_module.")) return true;
    if (!at) return false;
    int len = snprintf(plain, sizeof plain, "%.*s.%s", (int)(at - name), name, at + strlen(mark));
    return len > 0 && (size_t)len < sizeof plain && rz_st_find(l->st, plain);
}

const char *rz_lora_unused(const rz_lora *l, size_t *i)
{
    while (*i < rz_st_count(l->st)) {
        const char *name = rz_st_at(l->st, *i)->name;
        if (!l->used[(*i)++] && !is_copy(l, name)) return name;
    }
    return NULL;
}

bool rz_lora_ties(const rz_lora *l)
{
    return l->ties;
}

void rz_lora_hash(const rz_lora *l, rz_sha256 *hash)
{
    size_t size = 0;
    const uint8_t *bytes = rz_st_bytes(l->st, &size);
    rz_sha256_put(hash, l->text.data, l->text.size);
    rz_sha256_put(hash, bytes, size);
}

const char *rz_lora_dir(const rz_lora *l)
{
    return l->dir;
}

size_t rz_lora_rank(const rz_lora *l)
{
    return (size_t)l->r;
}

uint64_t rz_lora_bytes(const rz_lora *l)
{
    size_t size = 0;
    rz_st_bytes(l->st, &size);
    return size;
}

radz_status rz_lora_same_save(const rz_lora *l, const rz_weights *radz, radz_error *err)
{
    char *path = rz_path_join(l->host, l->dir, "adapter_model.safetensors");
    if (!path) return RZ_NO_MEMORY(err, "adapter");
    radz_status status = rz_weights_same_save(radz, l->st, path, err);
    rz_free(l->host, path);
    return status;
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static radz_status open_files(rz_lora *l, rz_file_mode mode, radz_error *err)
{
    char *config = rz_path_join(l->host, l->dir, CONFIG);
    char *weights = rz_path_join(l->host, l->dir, "adapter_model.safetensors");
    radz_status status = config && weights ? RADZ_OK : RZ_NO_MEMORY(err, "adapter");
    if (!status) status = rz_file_open(l->host, config, RZ_FILE_READ, 16u << 20, &l->text, err);
    if (!status) status = rz_json_parse((const char *)l->text.data, l->text.size, config, &l->cfg, err);
    if (!status && (status = read_config(l, err))) rz_fail_prefix(err, status, "%s", l->dir);
    if (!status) status = rz_st_open(l->host, weights, mode, &l->st, err);
    if (!status && !(l->used = rz_calloc(l->host, rz_st_count(l->st) + 1, sizeof *l->used)))
        status = RZ_NO_MEMORY(err, "adapter");
    rz_free(l->host, config);
    rz_free(l->host, weights);
    return status;
}

radz_status rz_lora_open(const rz_host *host, const char *dir, rz_file_mode mode, rz_lora **lora, radz_error *err)
{
    *lora = NULL;
    rz_lora *l = rz_calloc(host, 1, sizeof *l);
    if (!l) return RZ_NO_MEMORY(err, "adapter");
    l->host = host, l->steps = MAX_STEPS;
    l->dir = rz_strdup(host, dir);
    radz_status status = l->dir ? open_files(l, mode, err) : RZ_NO_MEMORY(err, "adapter");
    if (status)
        rz_lora_close(l);
    else
        *lora = l;
    return status;
}

void rz_lora_close(rz_lora *l)
{
    if (!l) return;
    rz_st_close(l->st);
    rz_file_close(&l->text);
    json_decref(l->cfg);
    rz_free(l->host, l->used);
    rz_free(l->host, l->dir);
    rz_free(l->host, l);
}

/* ---- The base model --------------------------------------------------------------------------- */

/* dir/name where that is a model's directory; *out NULL: it is none. */
static radz_status try_base(const rz_host *host, const char *dir, const char *name, char **out, radz_error *err)
{
    char *config = NULL, *path = rz_path_join(host, dir, name);
    *out = NULL;
    if (!path) return RZ_NO_MEMORY(err, CONFIG);
    radz_status status = rz_config_file(host, path, "config.json", &config, err);
    rz_free(host, config);
    if (!status && config)
        *out = path;
    else
        rz_free(host, path);
    return status;
}

static radz_status find_base(const rz_host *host, const char *dir, const json_t *cfg, char **base, radz_error *err)
{
    const char *name = NULL;
    if (!json_is_object(cfg)) return rz_fail(err, RADZ_E_FORMAT, "%s: " CONFIG ": expected an object", dir);
    RZ_TRY(rz_json_string(cfg, CONFIG, "base_model_name_or_path", &name, err));
    if (!name || !*name)
        return rz_fail(
            err, RADZ_E_MISMATCH,
            "%s: an adapter that does not say which model it belongs to (base_model_name_or_path): open that "
            "model with this adapter",
            dir);
    RZ_TRY(try_base(host, dir, name, base, err));
    if (!*base) RZ_TRY(try_base(host, "", name, base, err));
    if (*base) return RADZ_OK;
    return rz_fail(err, RADZ_E_IO,
                   "%s: an adapter of '%s', and there is no model of that name here: open the model with this adapter",
                   dir, name);
}

radz_status rz_lora_base(const rz_host *host, const char *dir, char **base, radz_error *err)
{
    json_t *cfg = NULL;
    char *path = rz_path_join(host, dir, CONFIG);
    *base = NULL;
    if (!path) return RZ_NO_MEMORY(err, CONFIG);
    radz_status status = rz_json_load(host, path, 16u << 20, &cfg, err);
    rz_free(host, path);
    if (!status) status = find_base(host, dir, cfg, base, err);
    json_decref(cfg);
    return status;
}
