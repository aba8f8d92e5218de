/* train.c - training a LLaVA-RadZ: L = lambda L_CA + (1 - lambda) L_CG over batches of films and texts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "trainer.h"

#define SAMPLER_SEED UINT64_C(0x73616d706c657221)
#define VALIDATION_BATCH 16

/* ---- Options --------------------------------------------------------------------------------- */

static radz_status check_range(const char *name, double value, double low, double high, radz_error *err)
{
    if (value >= low && value <= high) return RADZ_OK; /* false for NaN */
    rz_str s = {0};
    rz_str_put_double(&s, low);
    rz_str_put_number(&s, "..", high);
    radz_status st = rz_fail(err, RADZ_E_ARGUMENT, "training options: %s: expected %s", name, s.data ? s.data : "less");
    rz_str_free(&s);
    return st;
}

static radz_status check_word(const char *name, const char *value, const char *const words[], radz_error *err)
{
    rz_str s = {0};
    for (size_t i = 0; words[i]; i++) {
        if (!value || strcmp(value, words[i]) == 0) {
            rz_str_free(&s);
            return RADZ_OK;
        }
        rz_str_printf(&s, "%s%s", i ? ", " : "", words[i]);
    }
    radz_status st = rz_fail(err, RADZ_E_ARGUMENT, "training options: %s '%s': expected one of %s", name, value,
                             s.data ? s.data : "others");
    rz_str_free(&s);
    return st;
}

static radz_status check_words(const radz_train_options *o, radz_error *err)
{
    static const char *const dtypes[] = {"f32", "bf16", NULL}, *const features[] = {"cross", "global", "local", NULL},
                             *const targets[] = {"labels", "batch_index", NULL},
                             *const vectors[] = {"paper", "refcode", NULL}, *const keeps[] = {"best", "last", NULL};
    RZ_TRY(check_word("keep", o->keep, keeps, err));
    RZ_TRY(check_word("vectors", o->vectors, vectors, err));
    RZ_TRY(check_word("dtype", o->dtype, dtypes, err));
    if (o->weights && !strncmp(o->weights, "int", 3))
        return rz_fail(err, RADZ_E_ARGUMENT,
                       "training options: weights '%s': integers cannot be trained; LoRA can beside them: write the "
                       "model with radz-quantize and train that",
                       o->weights);
    RZ_TRY(check_word("weights", o->weights, dtypes, err));
    RZ_TRY(check_word("features", o->features, features, err));
    return check_word("targets", o->targets, targets, err);
}

static radz_status check_options(const radz_train_options *o, radz_error *err)
{
    if (!o->model_dir || !o->manifest || !o->out_dir || !o->diseases)
        return rz_fail(err, RADZ_E_ARGUMENT,
                       "training options: model_dir, manifest, out_dir and diseases are required");
    RZ_TRY(check_words(o, err));
    if (o->monitor_set && !o->monitor)
        return rz_fail(err, RADZ_E_ARGUMENT, "training options: monitor_set needs monitor");
    RZ_TRY(check_range("epochs", o->epochs, 1e-6, 1e6, err));
    RZ_TRY(check_range("augment", o->augment, 0, 2, err));
    RZ_TRY(check_range("batch_size", o->batch_size, 1, 65536, err));
    RZ_TRY(check_range("lr", o->lr, 0, 10, err));
    RZ_TRY(check_range("weight_decay", o->weight_decay, 0, 10, err));
    RZ_TRY(check_range("beta1", o->beta1, 0, 0.999999, err));
    RZ_TRY(check_range("beta2", o->beta2, 0, 0.999999, err));
    RZ_TRY(check_range("eps", o->eps, 1e-30, 1, err));
    RZ_TRY(check_range("warmup_fraction", o->warmup_fraction, 0, 1, err));
    RZ_TRY(check_range("clip_norm", o->clip_norm, 0, 1e9, err));
    RZ_TRY(check_range("lambda", o->lambda, 0, 1, err));
    RZ_TRY(check_range("stop_after_steps", (double)o->stop_after_steps, 0, 1e15, err));
    RZ_TRY(check_range("checkpoint_every", (double)o->checkpoint_every, 0, 1e15, err));
    RZ_TRY(check_range("validate_every", (double)o->validate_every, 0, 1e15, err));
    RZ_TRY(check_range("micro_batch", o->micro_batch, 0, 1000000, err));
    RZ_TRY(check_range("label_fraction", o->label_fraction, 1e-9, 1, err));
    RZ_TRY(check_range("accumulate", o->accumulate, 1, 1000000, err));
    RZ_TRY(check_range("ema", o->ema, 0, 0.9999999, err));
    RZ_TRY(check_range("drop_path", o->drop_path, 0, 0.9, err));
    RZ_TRY(check_range("film_cache_bytes", (double)o->film_cache_bytes, 0, 1e15, err));
    return o->tau > 0 ? check_range("tau", o->tau, RZ_TAU_MIN, RZ_TAU_MAX, err) : RADZ_OK;
}

static const rz_objective *const objectives[] = {&rz_objective_radz, &rz_objective_classify, &rz_objective_generate};

static radz_status find_objective(rz_trainer *t, const char *name, radz_error *err)
{
    for (size_t i = 0; i < RZ_COUNT(objectives) && !t->objective; i++)
        if (!name || strcmp(objectives[i]->name, name) == 0) t->objective = objectives[i];
    return t->objective ? RADZ_OK : rz_fail(err, RADZ_E_ARGUMENT, "training options: objective '%s': unknown", name);
}

/* The strings of the options, as a list. */
#define N_STRINGS 19
static void option_strings(radz_train_options *o, const char **out[N_STRINGS])
{
    const char **all[N_STRINGS] = {&o->model_dir, &o->manifest, &o->image_root,  &o->out_dir,      &o->diseases,
                                   &o->label_map, &o->monitor,  &o->monitor_set, &o->dtype,        &o->objective,
                                   &o->settings,  &o->train,    &o->features,    &o->lora_targets, &o->targets,
                                   &o->weights,   &o->vectors,  &o->keep,        &o->set_weights};
    memcpy(out, all, sizeof all);
}

static radz_status take_options(rz_trainer *t, const radz_train_options *o, radz_error *err)
{
    const char **strings[N_STRINGS];
    bool ok = true;
    t->o = *o;
    if (!t->o.dtype) t->o.dtype = "f32";
    if (!(t->o.tau > 0)) t->o.tau = 0;
    option_strings(&t->o, strings);
    for (size_t i = 0; i < N_STRINGS; i++) {
        if (!*strings[i]) continue;
        *strings[i] = rz_strdup(t->host, *strings[i]);
        ok = ok && *strings[i];
    }
    return ok ? RADZ_OK : RZ_NO_MEMORY(err, "training options");
}

static void free_options(rz_trainer *t)
{
    const char **strings[N_STRINGS];
    option_strings(&t->o, strings);
    for (size_t i = 0; i < N_STRINGS; i++) rz_free(t->host, (void *)(uintptr_t)*strings[i]);
}

/* ---- Opening ------------------------------------------------------------------------------------ */

static radz_status open_dataset(rz_trainer *t, radz_error *err)
{
    RZ_TRY(rz_bank_list_open(t->host, t->o.diseases, &t->diseases, err));
    t->n_classes = t->diseases.n;
    t->n_anchors = t->o.lambda < 1 ? t->n_classes : 0;
    t->reference = -1;
    const char **labels = rz_calloc(t->host, t->n_classes, sizeof *labels);
    if (!labels) return RZ_NO_MEMORY(err, "diseases");
    for (size_t c = 0; c < t->n_classes; c++) {
        labels[c] = t->diseases.entries[c].label;
        if (t->reference < 0 && rz_label_is_reference(labels[c])) t->reference = (int)c;
    }
    rz_dataset_options o = {.manifest = t->o.manifest,
                            .image_root = t->o.image_root,
                            .label_map = t->o.label_map,
                            .classes = labels,
                            .n_classes = t->n_classes,
                            .model = t->model,
                            .stop_on_bad_row = t->o.stop_on_bad_row != 0,
                            .label_fraction = t->o.label_fraction,
                            .seed = t->o.seed,
                            .answers = t->objective == &rz_objective_generate};
    radz_status st = rz_dataset_open(t->host, &o, &t->ds, err);
    rz_free(t->host, labels);
    RZ_TRY(st);
    rz_log(t->host, RADZ_LOG_INFO,
           "manifest: %zu rows to train on, %zu to validate on, %zu without a known label, %zu malformed",
           t->ds.n_train, t->ds.n_val, t->ds.n_left_out, t->ds.n_bad);
    RZ_TRY(rz_films_open(t->host, &t->ds, t->model, &t->films, err));
    t->films.stop_on_bad = t->o.stop_on_bad_row != 0;
    t->films.max_bytes = (size_t)t->o.film_cache_bytes;
    return rz_sampler_init(t->host, &t->ds, t->o.balance_sets != 0, t->o.set_weights, t->o.seed ^ SAMPLER_SEED,
                           &t->sampler, err);
}

/* A text that is too long for the model costs its rows, nothing else. */
static radz_status open_text(rz_trainer *t, size_t text, radz_error *err)
{
    radz_error why;
    radz_status st = rz_prompt_text_train(t->host, t->model, t->ds.texts.items[text], &t->text_prompts[text], &why);
    if (!st) return RADZ_OK;
    if (st != RADZ_E_LIMIT) return rz_fail(err, st, "%s", why.message);
    for (size_t r = 0; r < t->ds.n_train; r++)
        if (t->ds.rows[r].text == text) RZ_TRY(rz_films_mark_bad(&t->films, r, why.message, err));
    return RADZ_OK;
}

/* What stands for a class: its description or, where no loss trains the way of descriptions, its sentence. */
static radz_status open_class(rz_trainer *t, size_t c, const char *sentence, radz_error *err)
{
    const char *text = t->diseases.entries[c].description;
    if (t->n_anchors) {
        RZ_TRY(rz_prompt_disease(t->host, t->model, text, true, &t->disease_prompts[c], err));
        RZ_TRY(rz_prompt_disease(t->host, t->model, text, false, &t->class_prompts[c], err));
    } else
        RZ_TRY(rz_prompt_text(t->host, t->model, sentence, &t->class_prompts[c], err));
    return rz_prompt_text(t->host, t->model, sentence, &t->sentence_prompts[c], err);
}

static radz_status open_classes(rz_trainer *t, radz_error *err)
{
    for (size_t c = 0; c < t->n_classes; c++) {
        const char *label = t->diseases.entries[c].label;
        char *sentence = rz_prompt_label_text(t->host, t->model, &label, 1);
        if (!sentence) return RZ_NO_MEMORY(err, "label sentence");
        radz_status st = open_class(t, c, sentence, err);
        rz_free(t->host, sentence);
        RZ_TRY(st);
    }
    return RADZ_OK;
}

static radz_status open_prompts(rz_trainer *t, radz_error *err)
{
    t->text_prompts = rz_calloc(t->host, t->ds.texts.n, sizeof *t->text_prompts);
    t->disease_prompts = rz_calloc(t->host, t->n_classes, sizeof *t->disease_prompts);
    t->class_prompts = rz_calloc(t->host, t->n_classes, sizeof *t->class_prompts);
    t->sentence_prompts = rz_calloc(t->host, t->n_classes, sizeof *t->sentence_prompts);
    if (!t->text_prompts || !t->disease_prompts || !t->class_prompts || !t->sentence_prompts)
        return RZ_NO_MEMORY(err, "prompts");
    RZ_TRY(rz_prompt_image_train(t->host, t->model, &t->image_prompt, err));
    RZ_TRY(rz_prompt_image(t->host, t->model, &t->asked_prompt, err));
    for (size_t i = 0; i < t->ds.texts.n; i++) RZ_TRY(open_text(t, i, err));
    return open_classes(t, err);
}

static radz_status find_monitor(rz_trainer *t, radz_error *err)
{
    rz_validator *v = &t->validator;
    *v = (rz_validator){.host = t->host,
                        .films = &t->films,
                        .image_prompt = &t->asked_prompt,
                        .disease_prompts = t->class_prompts,
                        .class_texts = t->model->cfg.radz.fused_score ? t->sentence_prompts : NULL,
                        .class_kind = t->n_anchors ? RZ_ITEM_DISEASE : RZ_ITEM_TEXT,
                        .reference = t->reference,
                        .monitor = -1,
                        .monitor_set = RZ_NO_SET,
                        .batch = VALIDATION_BATCH};
    for (size_t c = 0; t->o.monitor && c < t->n_classes; c++)
        if (strcmp(t->diseases.entries[c].label, t->o.monitor) == 0) v->monitor = (int)c;
    if (t->o.monitor && v->monitor < 0)
        return rz_fail(err, RADZ_E_ARGUMENT, "monitor '%s': no such label in %s", t->o.monitor, t->o.diseases);
    for (size_t s = 0; t->o.monitor_set && s < t->ds.sets.n; s++)
        if (strcmp(t->ds.sets.items[s], t->o.monitor_set) == 0) v->monitor_set = s;
    if (t->o.monitor_set && v->monitor_set == RZ_NO_SET)
        return rz_fail(err, RADZ_E_ARGUMENT, "monitor_set '%s': no such set in %s", t->o.monitor_set, t->o.manifest);
    t->validation.labels = rz_calloc(t->host, t->n_classes, sizeof *t->validation.labels);
    return t->validation.labels ? RADZ_OK : RZ_NO_MEMORY(err, "validation");
}

static radz_status open_checkpoint(rz_trainer *t, radz_error *err)
{
    t->checkpoint_dir = rz_path_join(t->host, t->o.out_dir, "checkpoint");
    if (!t->checkpoint_dir) return RZ_NO_MEMORY(err, "path");
    t->checkpoint_path = rz_path_join(t->host, t->checkpoint_dir, "state.safetensors");
    if (!t->checkpoint_path) return RZ_NO_MEMORY(err, "path");
    t->state = (rz_run_state){.best_value = NAN, .bad = t->films.bad, .n_rows = t->films.n};
    bool there = rz_path_exists(t->checkpoint_path);
    if (!t->o.resume && (there || rz_model_has_weights(t->o.out_dir)))
        return rz_fail(err, RADZ_E_STATE, "%s: holds a %s already: resume it, or choose another directory",
                       t->o.out_dir, there ? "training run" : "model");
    if (t->o.resume && there) {
        RZ_TRY(rz_checkpoint_load(t->checkpoint_path, &t->optimizer, t->s, &t->state, t->options_json, err));
        t->films.n_bad = 0;
        for (size_t i = 0; i < t->films.n; i++) t->films.n_bad += t->films.bad[i];
    }
    return RADZ_OK;
}

/* The processes of a run must do the same, from the same step on. */
static radz_status compare_processes(rz_trainer *t, radz_error *err)
{
    rz_str s = {.host = t->host};
    rz_str_printf(&s, "%s %lld %lld %lld", t->options_json, (long long)t->state.step, (long long)t->state.draw,
                  (long long)t->o.stop_after_steps);
    radz_status st = s.failed ? RZ_NO_MEMORY(err, "options") : rz_comm_agree(&t->comm, err);
    if (!st) st = rz_comm_same(&t->comm, s.data, "options, files and checkpoint", err);
    rz_str_free(&s);
    return st;
}

static radz_status open_all(rz_trainer *t, const radz_train_options *o, radz_error *err)
{
    RZ_TRY(take_options(t, o, err));
    RZ_TRY(find_objective(t, o->objective, err));
    RZ_TRY(rz_train_open_model(t, err));
    RZ_TRY(open_dataset(t, err));
    RZ_TRY(open_prompts(t, err));
    RZ_TRY(find_monitor(t, err));
    t->b = (size_t)t->o.batch_size;
    t->n_steps = (int64_t)ceil(t->o.epochs * (double)t->ds.n_train / ((double)t->b * t->o.accumulate));
    if (t->n_steps < 1) t->n_steps = 1;
    RZ_TRY(rz_batch_open(t, err));
    if (t->objective->open) RZ_TRY(t->objective->open(t, err));
    RZ_TRY(rz_train_identity(t, err));
    RZ_TRY(open_checkpoint(t, err));
    return compare_processes(t, err);
}

radz_status rz_trainer_open(const rz_host *host, rz_device *dev, const radz_train_options *options, rz_trainer **out,
                            radz_error *err)
{
    *out = NULL;
    RZ_TRY(check_options(options, err));
    rz_trainer *t = rz_calloc(host, 1, sizeof *t);
    if (!t) return RZ_NO_MEMORY(err, "trainer");
    t->host = host, t->dev = dev;
    radz_error why = {0};
    radz_status st = rz_comm_open(host, options->comm, (size_t)options->batch_size, &t->comm, &why);
    if (!st) st = rz_comm_fail(&t->comm, open_all(t, options, &why), &why);
    if (st) {
        if (err) *err = why;
        rz_trainer_close(t);
        return st;
    }
    *out = t;
    return RADZ_OK;
}

void rz_trainer_close(rz_trainer *t)
{
    if (!t) return;
    if (t->objective && t->objective->close) t->objective->close(t);
    rz_batch_close(t);
    for (size_t i = 0; t->text_prompts && i < t->ds.texts.n; i++) rz_prompt_free(t->host, &t->text_prompts[i]);
    rz_prompt *const of_classes[] = {t->disease_prompts, t->class_prompts, t->sentence_prompts};
    for (size_t k = 0; k < RZ_COUNT(of_classes); k++)
        for (size_t c = 0; of_classes[k] && c < t->n_classes; c++) rz_prompt_free(t->host, &of_classes[k][c]);
    rz_prompt_free(t->host, &t->image_prompt);
    rz_prompt_free(t->host, &t->asked_prompt);
    void *const parts[] = {t->text_prompts,      t->disease_prompts, t->class_prompts,  t->sentence_prompts,
                           t->validation.labels, t->options_json,    t->checkpoint_dir, t->checkpoint_path};
    for (size_t i = 0; i < RZ_COUNT(parts); i++) rz_free(t->host, parts[i]);
    rz_sampler_free(&t->sampler);
    rz_films_close(&t->films);
    rz_dataset_close(&t->ds);
    rz_bank_list_free(t->host, &t->diseases);
    rz_optimizer_close(&t->optimizer);
    rz_model_unload(t->model);
    if (t->s) rz_stream_close(t->s);
    free_options(t);
    rz_comm_close(&t->comm);
    rz_free(t->host, t);
}

/* ---- The run -------------------------------------------------------------------------------------------- */

static bool due(int64_t every, int64_t step)
{
    return every > 0 && step % every == 0;
}

/* Validates and, where the model is to be kept, writes it out. */
static radz_status validate_weights(rz_trainer *t, radz_train_progress *progress, radz_error *err)
{
    rz_net net = {.model = t->model, .s = t->s};
    rz_batch_wait(t);
    RZ_TRY(t->objective->validate ? t->objective->validate(t, &t->validation, err)
                                  : rz_validate(&net, &t->validator, &t->validation, err));
    double value = t->validation.monitored;
    progress->has_validation = 1, progress->val_auc = value, progress->val_macro_auc = t->validation.macro;
    const bool last = t->o.keep && !strcmp(t->o.keep, "last");
    if (!last && t->state.best_step && !isnan(t->state.best_value) && !(value > t->state.best_value)) return RADZ_OK;
    t->state.best_step = t->state.step, t->state.best_value = value;
    return rz_train_export(t, err);
}

/* The weights' average, where there is one, in their place. */
static radz_status with_average(rz_trainer *t,
                                radz_status (*fn)(rz_trainer *t, radz_train_progress *p, radz_error *err),
                                radz_train_progress *progress, radz_error *err)
{
    double start = rz_seconds();
    rz_optimizer_swap(&t->optimizer, t->s);
    radz_status st = fn(t, progress, err);
    rz_optimizer_swap(&t->optimizer, t->s);
    radz_status back = rz_stream_sync(t->s, st ? NULL : err);
    t->state.seconds += rz_seconds() - start;
    return st ? st : back;
}

static radz_status export(rz_trainer *t, radz_train_progress *progress, radz_error *err)
{
    (void)progress;
    return rz_train_export(t, err);
}

static void fill_progress(const rz_trainer *t, radz_train_progress *p)
{
    p->struct_size = sizeof *p;
    p->step = t->state.step, p->n_steps = t->n_steps;
    p->epoch = (double)t->state.draw / (double)t->ds.n_train;
    p->tau = rz_model_tau(t->model, t->s);
    p->items_per_second = t->seconds_per_step > 0 ? (double)t->b * t->o.accumulate / t->seconds_per_step : 0;
    p->seconds_left = (double)(t->n_steps - t->state.step) * t->seconds_per_step;
    p->n_bad_rows = (int64_t)t->films.n_bad;
}

/* The first process alone validates and writes. The checkpoint comes last: whatever the caller keeps of a step, a log
 * say, is then never behind the checkpoint that a later run goes on from. */
static radz_status run_step(rz_trainer *t, bool *stop, radz_error *err)
{
    radz_train_progress progress = {.val_auc = NAN, .val_macro_auc = NAN};
    RZ_TRY(rz_train_step(t, &progress, err));
    int64_t step = t->state.step;
    const bool first = !t->comm.rank;
    *stop = step == t->n_steps || (t->o.stop_after_steps && step >= t->o.stop_after_steps);
    bool save = *stop || due(t->o.checkpoint_every, step);
    if (first && t->ds.n_val && (step == t->n_steps || due(t->o.validate_every, step)))
        RZ_TRY(with_average(t, validate_weights, &progress, err));
    fill_progress(t, &progress);
    if (first && save) progress.checkpoint = t->checkpoint_dir;
    uint8_t cancel = t->o.progress_fn && t->o.progress_fn(&progress, t->o.user);
    RZ_TRY(rz_comm_agree(&t->comm, err));
    RZ_TRY(rz_comm_any(&t->comm, &cancel, 1, err));
    if (first && (save || cancel))
        RZ_TRY(rz_checkpoint_save(t->checkpoint_path, &t->optimizer, t->s, &t->state, t->options_json, err));
    if (!cancel || *stop) return RADZ_OK;
    return rz_fail(err, RADZ_E_CANCELLED, "stopped after step %lld of %lld; checkpoint in %s", (long long)step,
                   (long long)t->n_steps, t->checkpoint_dir);
}

static radz_status finish(rz_trainer *t, radz_error *err)
{
    if (t->comm.rank || t->state.step < t->n_steps) return RADZ_OK; /* the latter: stop_after_steps */
    if (!t->ds.n_val) RZ_TRY(with_average(t, export, NULL, err));
    return rz_train_report(t, err);
}

static radz_status run(rz_trainer *t, radz_error *err)
{
    bool stop = t->state.step >= t->n_steps || (t->o.stop_after_steps && t->state.step >= t->o.stop_after_steps);
    if (!t->comm.rank) {
        RZ_TRY(rz_mkdir_p(t->checkpoint_dir, err));
        size_t n = rz_folder_tidy(t->host, t->o.out_dir) + rz_folder_tidy(t->host, t->checkpoint_dir);
        if (n) rz_log(t->host, RADZ_LOG_INFO, "%s: %zu half-written files of a killed run removed", t->o.out_dir, n);
        RZ_TRY(rz_train_put_settings(t, err));
    }
    while (!stop) RZ_TRY(run_step(t, &stop, err));
    RZ_TRY(finish(t, err));
    return rz_comm_agree(&t->comm, err);
}

radz_status rz_trainer_run(rz_trainer *t, radz_error *err)
{
    radz_error why = {0};
    radz_status st = run(t, &why);
    rz_batch_wait(t);
    if (st && err) *err = why;
    return rz_comm_fail(&t->comm, st, &why);
}
