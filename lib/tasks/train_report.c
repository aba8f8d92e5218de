/* train_report.c - what a training run says about itself: its identity, its model, train.json.
 * SPDX-License-Identifier: Apache-2.0 */
#include "modeldir.h"
#include "trainer.h"

/* ---- Identity ------------------------------------------------------------------------------- */

static void put_key(rz_str *s, const char *key)
{
    rz_str_puts(s, s->len > 1 ? ",\"" : "\"");
    rz_str_puts(s, key);
    rz_str_puts(s, "\":");
}

static void put_text(rz_str *s, const char *key, const char *value)
{
    put_key(s, key);
    rz_str_put_json(s, value ? value : "", value ? strlen(value) : 0);
}

static void put_number(rz_str *s, const char *key, double value)
{
    put_key(s, key);
    rz_str_put_number(s, "\"", value);
    rz_str_puts(s, "\"");
}

static void put_integer(rz_str *s, const char *key, int64_t value)
{
    put_key(s, key);
    rz_str_printf(s, "\"%lld\"", (long long)value);
}

/* What came later than checkpoints that are still about is there only where it differs from the default. */
static void put_new_options(rz_str *s, const radz_train_options *o)
{
    if (o->objective && strcmp(o->objective, "radz") != 0) put_text(s, "objective", o->objective);
    if (o->features && strcmp(o->features, "cross") != 0) put_text(s, "features", o->features);
    if (o->targets && strcmp(o->targets, "labels") != 0) put_text(s, "targets", o->targets);
    if (o->vectors) put_text(s, "vectors", o->vectors);
    if (o->label_fraction != 1) put_number(s, "label_fraction", o->label_fraction);
    if (o->accumulate != 1) put_integer(s, "accumulate", o->accumulate);
    if (o->train) put_text(s, "train", o->train);
    if (o->weights && strcmp(o->weights, "f32") != 0) put_text(s, "weights", o->weights);
    if (o->ema > 0) put_number(s, "ema", o->ema);
    if (o->keep && strcmp(o->keep, "best") != 0) put_text(s, "keep", o->keep);
    if (o->set_weights) put_text(s, "set_weights", o->set_weights);
    if (o->drop_path > 0) put_number(s, "drop_path", o->drop_path);
    if (!o->lora_rank) return;
    put_integer(s, "lora_rank", o->lora_rank);
    put_number(s, "lora_alpha", o->lora_alpha);
    put_number(s, "lora_dropout", o->lora_dropout);
    put_integer(s, "lora_rslora", o->lora_rslora != 0);
    put_text(s, "lora_targets", o->lora_targets);
}

static void put_options(rz_str *s, const radz_train_options *o)
{
    put_key(s, "seed");
    rz_str_printf(s, "\"%llu\"", (unsigned long long)o->seed);
    put_number(s, "epochs", o->epochs);
    put_integer(s, "batch_size", o->batch_size);
    put_number(s, "lr", o->lr);
    put_number(s, "weight_decay", o->weight_decay);
    put_number(s, "beta1", o->beta1);
    put_number(s, "beta2", o->beta2);
    put_number(s, "eps", o->eps);
    put_number(s, "warmup_fraction", o->warmup_fraction);
    put_number(s, "clip_norm", o->clip_norm);
    put_number(s, "lambda", o->lambda);
    put_number(s, "tau", o->tau);
    put_integer(s, "learn_tau", o->learn_tau != 0);
    put_integer(s, "mask_false_negatives", o->mask_false_negatives != 0);
    put_integer(s, "balance_sets", o->balance_sets != 0);
    put_integer(s, "augment", o->augment);
    put_integer(s, "validate_every", o->validate_every);
    put_text(s, "monitor", o->monitor);
    put_text(s, "monitor_set", o->monitor_set);
    put_text(s, "dtype", o->dtype);
}

radz_status rz_train_identity(rz_trainer *t, radz_error *err)
{
    char diseases[65], model[65], settings[65];
    if (t->o.settings) RZ_TRY(rz_file_hash(t->host, t->o.settings, settings, err));
    RZ_TRY(rz_file_hash(t->host, t->o.diseases, diseases, err));
    RZ_TRY(rz_modeldir_hash(t->host, t->o.model_dir, model, err));
    rz_str s = {.host = t->host};
    rz_str_puts(&s, "{");
    put_options(&s, &t->o);
    put_new_options(&s, &t->o);
    put_text(&s, "manifest_sha256", t->ds.manifest_hash);
    put_text(&s, "label_map_sha256", t->ds.map_hash);
    put_text(&s, "diseases_sha256", diseases);
    put_text(&s, "model_sha256", model);
    if (t->o.settings) put_text(&s, "settings_sha256", settings);
    rz_str_puts(&s, "}");
    t->options_json = s.data;
    return s.failed ? RZ_NO_MEMORY(err, "options") : RADZ_OK;
}

/* ---- train.json ---------------------------------------------------------------------------------- */

static void put_result(rz_str *s, const rz_label_result *r)
{
    rz_str_put_number(s, "\"auc\":", r->auc);
    rz_str_printf(s, ",\"n_pos\":%zu,\"n_neg\":%zu", r->n_pos, r->n_neg);
}

/* One label: over all sets, then on each set where both outcomes occur. */
static radz_status put_label(rz_str *s, const rz_trainer *t, const double *scores, size_t c, radz_error *err)
{
    rz_label_result r;
    const char *label = t->diseases.entries[c].label;
    RZ_TRY(rz_validate_label(&t->validator, scores, c, RZ_NO_SET, &r, err));
    rz_str_put_text(s, c ? ",\n    {\"label\":" : "\n    {\"label\":", label);
    rz_str_puts(s, ",");
    put_result(s, &r);
    rz_str_puts(s, ",\"sets\":{");
    bool first = true;
    for (size_t set = 0; set < t->ds.sets.n; set++) {
        RZ_TRY(rz_validate_label(&t->validator, scores, c, set, &r, err));
        if (!r.n_pos || !r.n_neg) continue;
        rz_str_put_text(s, first ? "" : ",", t->ds.sets.items[set]);
        rz_str_puts(s, ":{");
        put_result(s, &r);
        rz_str_puts(s, "}");
        first = false;
    }
    rz_str_puts(s, "}}");
    return RADZ_OK;
}

static void put_counts(rz_str *s, const rz_trainer *t)
{
    rz_str_printf(s, "  \"rows\":{\"manifest\":%zu,\"train\":%zu,\"validation\":%zu,\"left_out\":%zu,",
                  t->ds.n_manifest, t->ds.n_train, t->ds.n_val, t->ds.n_left_out);
    rz_str_printf(s, "\"other_splits\":%zu,\"unreadable\":%zu,\"malformed\":%zu,", t->ds.n_other_split, t->films.n_bad,
                  t->ds.n_bad);
    rz_str_printf(s, "\"not_drawn\":%zu},\n", t->ds.n_thinned);
    rz_str_printf(s, "  \"steps\":%lld,\n  \"best_step\":%lld,\n  \"seconds\":", (long long)t->state.step,
                  (long long)t->state.best_step);
    rz_str_put_double(s, floor(t->state.seconds));
    rz_str_puts(s, ",\n");
}

static radz_status put_report(rz_str *s, const rz_trainer *t, const rz_model *model, const rz_validation *v,
                              const double *scores, radz_error *err)
{
    rz_str_printf(s, "{\n  \"schema\":\"radz.train/1\",\n  \"library\":\"%s\",\n  \"device\":", radz_version());
    rz_str_put_json(s, rz_device_name(t->dev), strlen(rz_device_name(t->dev)));
    rz_str_printf(s, ",\n  \"notice\":\"%s\",\n  \"model\":\"%s\",\n  \"options\":%s,\n", radz_disclaimer(),
                  model->hash, t->options_json);
    rz_str_puts(s, "  \"anchors\":");
    rz_str_puts(s, t->n_anchors ? "\"descriptions\",\n" : "\"class sentences\",\n");
    put_counts(s, t);
    rz_str_put_number(s, "  \"tau\":", rz_model_tau(model, NULL));
    if (t->objective->validate) {
        rz_str_put_number(s, ",\n  \"validation\":{\"loss\":", -log(t->state.best_value));
        rz_str_puts(s, "}\n}\n");
        return s->failed ? RZ_NO_MEMORY(err, "train.json") : RADZ_OK;
    }
    rz_str_put_number(s, ",\n  \"validation\":{\"monitored_auc\":", v->monitored);
    rz_str_put_number(s, ",\"macro_auc\":", v->macro);
    rz_str_puts(s, ",\"labels\":[");
    for (size_t c = 0; c < t->n_classes && t->ds.n_val; c++) RZ_TRY(put_label(s, t, scores, c, err));
    rz_str_puts(s, "]}\n}\n");
    return s->failed ? RZ_NO_MEMORY(err, "train.json") : RADZ_OK;
}

static radz_status report_model(rz_trainer *t, const rz_model *model, double *scores, radz_error *err)
{
    rz_net net = {.model = model, .s = t->s};
    rz_validation v = {.monitored = NAN, .macro = NAN, .labels = t->validation.labels};
    if (t->ds.n_val && !t->objective->validate) {
        RZ_TRY(rz_validate_scores(&net, &t->validator, scores, err));
        RZ_TRY(rz_validate_summary(&t->validator, scores, &v, err));
    }
    rz_str s = {.host = t->host};
    radz_status st = put_report(&s, t, model, &v, scores, err);
    if (!st) st = rz_modeldir_put(t->host, t->o.out_dir, "train.json", s.data, s.len, err);
    rz_str_free(&s);
    return st;
}

radz_status rz_train_report(rz_trainer *t, radz_error *err)
{
    size_t n;
    double *scores = rz_size_mul(t->ds.n_val, t->n_classes, &n) ? rz_calloc(t->host, n, sizeof *scores) : NULL;
    if (!scores) return RZ_NO_MEMORY(err, "validation");
    rz_model *model = NULL;
    radz_status st = rz_model_load(t->host, t->dev, t->o.out_dir, RZ_MODEL_INFER, 0, &model, err);
    if (!st) st = report_model(t, model, scores, err);
    rz_model_unload(model);
    rz_free(t->host, scores);
    return st;
}
