/* train_model.c - the model of a training run: which parts change, where it starts, how it is written out.
 * SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdlib.h>

#include "modeldir.h"
#include "trainer.h"

#define DEFAULT_RANK 128
#define SETTINGS_MAX_BYTES ((size_t)16 << 20)

/* ---- Options -------------------------------------------------------------------------------- */

/* Calls put for every name of a comma-separated list; false: one is unknown, *bad and *n say which. */
static bool each_name(const char *list, bool (*put)(void *to, const char *name, size_t n), void *to, const char **bad,
                      size_t *n)
{
    for (const char *at = list; at; at = at[*n] ? at + *n + 1 : NULL) {
        *n = strcspn(at, ",");
        *bad = at;
        if (!put(to, at, *n)) return false;
    }
    return true;
}

static bool is(const char *name, size_t n, const char *word)
{
    return strlen(word) == n && !memcmp(name, word, n);
}

static bool put_part(void *to, const char *name, size_t n)
{
    rz_train_setup *x = to;
    if (is(name, n, "tower")) return x->tower = true;
    if (is(name, n, "projector")) return x->projector = true;
    return is(name, n, "decoder") ? x->decoder = true : false;
}

static bool put_target(void *to, const char *name, size_t n)
{
    static const char *const known[] = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
    (void)to;
    for (size_t i = 0; i < RZ_COUNT(known); i++)
        if (is(name, n, known[i])) return true;
    return false;
}

static radz_status read_parts(const rz_trainer *t, rz_train_setup *x, radz_error *err)
{
    const char *bad = NULL;
    size_t n = 0;
    if (!t->o.train) {
        x->tower = x->projector = x->decoder = !x->lora_rank;
        return RADZ_OK;
    }
    if (!strcmp(t->o.train, "none") || each_name(t->o.train, put_part, x, &bad, &n)) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT, "training options: train: '%.*s': expected tower, projector, decoder, or none",
                   (int)n, bad);
}

static radz_status read_lora(const rz_trainer *t, rz_train_setup *x, radz_error *err)
{
    const radz_train_options *o = &t->o;
    const char *bad = NULL;
    size_t n = 0;
    x->lora_rank = (size_t)o->lora_rank, x->lora_alpha = o->lora_alpha, x->lora_dropout = o->lora_dropout;
    x->lora_rslora = o->lora_rslora != 0, x->lora_targets = o->lora_targets;
    if (!x->lora_rank) return RADZ_OK;
    if (o->lora_rank > 65536) return rz_fail(err, RADZ_E_ARGUMENT, "training options: lora_rank: expected -1..65536");
    if (!(fabs(o->lora_alpha) <= 1e9)) /* false for NaN */
        return rz_fail(err, RADZ_E_ARGUMENT, "training options: lora_alpha: expected a number");
    if (!(o->lora_dropout >= 0 && o->lora_dropout < 1))
        return rz_fail(err, RADZ_E_ARGUMENT, "training options: lora_dropout: expected 0 to less than 1");
    if (!o->lora_targets || each_name(o->lora_targets, put_target, NULL, &bad, &n)) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT,
                   "training options: lora_targets: '%.*s': expected q_proj, k_proj, v_proj, o_proj, gate_proj, "
                   "up_proj, down_proj",
                   (int)n, bad);
}

static bool starts_from_weights(const rz_trainer *t)
{
    return rz_model_has_weights(t->o.model_dir) || rz_modeldir_has(t->host, t->o.model_dir, "adapter_config.json");
}

/* What was left to the library is decided here, so that everything later reads it from the options. */
static radz_status read_setup(rz_trainer *t, rz_train_setup *x, radz_error *err)
{
    const bool weights = starts_from_weights(t);
    if (t->o.lora_rank < 0) t->o.lora_rank = weights ? DEFAULT_RANK : 0;
    RZ_TRY(read_lora(t, x, err));
    RZ_TRY(read_parts(t, x, err));
    if (x->lora_rank && !t->o.merge_lora && (x->tower || x->projector || x->decoder)) {
        t->o.merge_lora = 1;
        rz_log(t->host, RADZ_LOG_WARNING,
               "training options: train '%s' changes weights that an adapter has no place for: whole weights will be "
               "written, with LoRA added in",
               t->o.train);
    }
    return RADZ_OK;
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static void log_size(const rz_trainer *t)
{
    uint64_t all = 0, trained = 0;
    for (size_t i = 0; i < t->model->n_params; i++) all += t->model->params[i].n;
    for (size_t i = 0; i < t->optimizer.n_slots; i++) trained += t->optimizer.slots[i].p->n;
    rz_log(t->host, RADZ_LOG_INFO, "model: %llu numbers, %llu of them are trained", (unsigned long long)all,
           (unsigned long long)trained);
}

/* With a linear head for the diseases where one is trained; a head of before does not fit what another objective
 * makes of the vectors. */
static radz_status load_model(rz_trainer *t, const rz_train_setup *setup, radz_error *err)
{
    rz_bank_list list = {0};
    if (setup->classes) RZ_TRY(rz_bank_list_open(t->host, t->o.diseases, &list, err));
    const char **names = rz_calloc(t->host, list.n + 1, sizeof *names);
    radz_status st = names ? RADZ_OK : RZ_NO_MEMORY(err, "classes");
    for (size_t i = 0; names && i < list.n; i++) names[i] = list.entries[i].label;
    const rz_name_list classes = {names, list.n};
    const rz_source source = {
        .dir = t->o.model_dir, .settings = t->o.settings, .vectors = t->o.vectors, .classes = &classes};
    if (!st) st = rz_model_load_train(t->host, t->dev, &source, setup, t->o.seed, &t->model, err);
    rz_free(t->host, names);
    rz_bank_list_free(t->host, &list);
    RZ_TRY(st);
    return setup->all_blocks ? rz_model_require_films(t->model, err) : rz_model_require_radz(t->model, err);
}

radz_status rz_train_open_model(rz_trainer *t, radz_error *err)
{
    const bool bf16 = t->o.weights && !strcmp(t->o.weights, "bf16");
    rz_train_setup setup = {.classes = t->objective == &rz_objective_classify,
                            .all_blocks = t->objective == &rz_objective_generate,
                            .half_products = bf16};
    RZ_TRY(read_setup(t, &setup, err));
    RZ_TRY(rz_stream_open(t->dev, &t->s, err));
    RZ_TRY(load_model(t, &setup, err));
    if (t->model->lora_merged && t->o.lora_rank) t->o.merge_lora = 1; /* an adapter of an adapter has no loader */
    if (t->o.tau > 0 && t->model->log_tau) rz_set_tau(t->model->log_tau, t->s, t->o.tau);
    RZ_TRY(rz_stream_sync(t->s, err));
    RZ_TRY(rz_optimizer_open(t->host, t->model, t->s, t->o.learn_tau != 0, bf16, &t->optimizer, err));
    log_size(t);
    if (t->o.ema > 0) RZ_TRY(rz_optimizer_average_open(&t->optimizer, t->s, err));
    return RADZ_OK;
}

/* ---- Writing ------------------------------------------------------------------------------------ */

static bool writes_adapter(const rz_trainer *t)
{
    return t->model->n_pairs && !t->o.merge_lora;
}

/* Sets or deletes a key (value NULL); takes the value. */
static bool edit_key(json_t *root, const char *key, json_t *value, bool *changed)
{
    const json_t *old = json_object_get(root, key);
    bool same = value ? old && json_equal(old, value) : !old;
    *changed |= !same;
    if (value) return json_object_set_new(root, key, value) == 0;
    json_object_del(root, key);
    return true;
}

static json_t *class_names(const rz_radz_config *r)
{
    json_t *list = r->n_classes ? json_array() : NULL;
    for (size_t i = 0; list && i < r->n_classes; i++)
        if (json_array_append_new(list, json_string(r->classes[i]))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* The settings as the run uses them: the file they come from, or the paper's. */
static radz_status read_settings(const rz_trainer *t, rz_str *text, radz_error *err)
{
    char *path = t->o.settings ? rz_strdup(t->host, t->o.settings) : NULL;
    rz_file f = {0};
    if (!t->o.settings) RZ_TRY(rz_config_file(t->host, t->model->radz_dir, "radz.json", &path, err));
    if (path) {
        radz_status st = rz_file_open(t->host, path, RZ_FILE_READ, SETTINGS_MAX_BYTES, &f, err);
        rz_free(t->host, path);
        RZ_TRY(st);
        rz_str_put(text, f.data, f.size);
        rz_file_close(&f);
    } else
        rz_config_put_radz(&t->model->cfg, text);
    return text->failed ? RZ_NO_MEMORY(err, "radz.json") : RADZ_OK;
}

/* What option `vectors` put in the place of what the settings said. */
static bool edit_choices(const rz_radz_config *r, json_t *root, bool *changed)
{
    const char *key, *other;
    bool good = true;
    for (size_t i = 0; good && (key = rz_config_choice(r, i, &other)); i++) {
        json_t *value = other ? json_string(other) : NULL;
        good = (value || !other) && edit_key(root, key, value, changed);
    }
    return good;
}

/* What the run makes true of the model: its head's classes; whether it can write. False: no memory. */
static bool edit_settings(const rz_trainer *t, json_t *root, bool *changed)
{
    const rz_radz_config *r = &t->model->cfg.radz;
    if (t->o.vectors && !edit_choices(r, root, changed)) return false;
    json_t *list = class_names(r);
    if (r->n_classes && !list) return false;
    if (!edit_key(root, "classes", list, changed)) return false;
    if (t->model->setup.all_blocks) return edit_key(root, "can_write", NULL, changed);
    /* a decoder that was random and saw no text to write */
    return starts_from_weights(t) || edit_key(root, "can_write", json_false(), changed);
}

static radz_status put_edited(const rz_trainer *t, const rz_str *from, radz_error *err)
{
    json_t *root = NULL;
    bool changed = false;
    RZ_TRY(rz_json_parse(from->data, from->len, "radz.json", &root, err));
    const bool good = edit_settings(t, root, &changed);
    char *text = good && changed ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(root);
    if (!good || (changed && !text)) return RZ_NO_MEMORY(err, "radz.json");
    const char *now = text ? text : from->data;
    radz_status st = rz_modeldir_put(t->host, t->o.out_dir, "radz.json", now, text ? strlen(text) : from->len, err);
    free(text);
    return st;
}

static radz_status put_radz_json(const rz_trainer *t, radz_error *err)
{
    rz_str text = {.host = t->host};
    radz_status st = read_settings(t, &text, err);
    if (!st) st = put_edited(t, &text, err);
    rz_str_free(&text);
    return st;
}

radz_status rz_train_put_settings(const rz_trainer *t, radz_error *err)
{
    if (!writes_adapter(t)) {
        RZ_TRY(rz_modeldir_copy(t->host, t->model->base_dir, t->model->cfg.vision_dir, t->o.out_dir, err));
    }
    return t->model->special ? put_radz_json(t, err) : RADZ_OK; /* else not a LLaVA-RadZ, and not made one */
}

/* The same for a resumed run as for an unbroken one, another for every step and for every other run. */
static radz_status save_id(const rz_trainer *t, char hex[65], radz_error *err)
{
    rz_sha256 h;
    rz_str s = {.host = t->host};
    rz_str_printf(&s, "%s %lld", t->options_json, (long long)t->state.step);
    if (s.failed) return RZ_NO_MEMORY(err, "save");
    rz_sha256_init(&h);
    rz_sha256_put(&h, s.data, s.len);
    rz_sha256_hex(&h, hex);
    hex[32] = '\0'; /* nobody forges it */
    rz_str_free(&s);
    return RADZ_OK;
}

radz_status rz_train_export(rz_trainer *t, radz_error *err)
{
    const char *dtype = strcmp(t->o.dtype, "bf16") == 0 ? "BF16" : "F32";
    char id[65];
    RZ_TRY(save_id(t, id, err));
    RZ_TRY(rz_train_put_settings(t, err));
    if (writes_adapter(t))
        RZ_TRY(rz_model_save_adapter(t->model, t->o.out_dir, t->o.model_dir, dtype, id, err));
    else
        RZ_TRY(rz_model_save(t->model, t->o.out_dir, dtype, id, err));
    if (t->objective->finish) return t->objective->finish(t, err);
    const rz_net net = {.model = t->model, .s = t->s};
    return (t->n_anchors ? rz_bank_write_own : rz_bank_write_sentences)(&net, t->o.out_dir, t->diseases.entries,
                                                                        t->diseases.n, err);
}
