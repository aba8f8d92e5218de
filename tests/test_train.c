/* test_train.c - training runs on films made here: bright ones are ill, dark ones are well.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "augment.h"
#include "failing_host.h"
#include "fixture.h"
#include "optimizer.h"
#include "train_fixture.h"

#define N_FILMS 24
#define SIDE TRAIN_SIDE

/* What a run showed. */
typedef struct seen {
    size_t n_steps, n_checkpoints, n_validations, cancel_at, die_at;
    double first_loss, last_loss, val_auc, largest_norm;
    int64_t n_bad;
} seen;

typedef struct env {
    char *dir;
    const char *out;
    radz_train_options o;
    seen seen;
    int n_threads;
    size_t n_warnings;
    char warning[512];
} env;

/* ---- Films and runs --------------------------------------------------------------------------- */

static void write_data(const env *e)
{
    rz_str s = {0};
    rz_str_puts(&s, "path,labels,split,set\n");
    for (int i = 0; i < N_FILMS; i++) {
        char name[32];
        snprintf(name, sizeof name, "film%d.png", i);
        train_env_film(fixture_path(e->dir, name), i % 2, (uint64_t)i);
        rz_str_printf(&s, "%s,%s,%s,toy\n", name, i % 2 ? "Ill" : "Normal", i < 16 ? "train" : "val");
    }
    fixture_write_text(fixture_path(e->dir, "index.csv"), s.data);
    rz_str_free(&s);
    fixture_write_text(fixture_path(e->dir, "map.csv"), "from,to\nNormal,No Finding\n");
    fixture_write_text(fixture_path(e->dir, "diseases.txt"),
                       "No Finding: a dark film, nothing to see\nIll: a bright film, shadows all over\n");
}

static int on_progress(const radz_train_progress *p, void *user)
{
    env *e = user;
    seen *x = &e->seen;
    if (!x->n_steps++) x->first_loss = p->loss;
    x->last_loss = p->loss;
    x->n_bad = p->n_bad_rows;
    x->n_checkpoints += p->checkpoint != NULL;
    if (p->grad_norm > x->largest_norm) x->largest_norm = p->grad_norm;
    if (p->has_validation) x->n_validations++, x->val_auc = p->val_auc;
    if (x->die_at && (size_t)p->step >= x->die_at) raise(SIGKILL);
    return x->cancel_at && (size_t)p->step >= x->cancel_at;
}

static void on_log(radz_log_level level, const char *message, void *user)
{
    env *e = user;
    if (level != RADZ_LOG_WARNING) return;
    e->n_warnings++;
    snprintf(e->warning, sizeof e->warning, "%s", message);
}

static char *keep_path(const env *e, const char *name)
{
    return strdup(fixture_path(e->dir, name));
}

static int set_up(void **state)
{
    env *e = calloc(1, sizeof *e);
    e->dir = fixture_temp_dir();
    e->n_threads = 1;
    char *model = keep_path(e, "model");
    assert_int_equal(mkdir(model, 0777), 0);
    fixture_model_files(model); /* no weights: the trainer makes them */
    write_data(e);
    radz_train_options_init(&e->o);
    e->o.model_dir = model, e->o.manifest = keep_path(e, "index.csv"), e->o.diseases = keep_path(e, "diseases.txt");
    e->o.label_map = keep_path(e, "map.csv"), e->o.out_dir = keep_path(e, "out");
    e->o.epochs = 6, e->o.batch_size = 8, e->o.lr = 5e-3, e->o.seed = 3;
    e->o.monitor = "Ill", e->o.monitor_set = "toy";
    e->o.progress_fn = on_progress, e->o.user = e;
    *state = e;
    return 0;
}

static int tear_down(void **state)
{
    env *e = *state;
    fixture_remove(e->dir);
    const char *const paths[] = {e->o.model_dir, e->o.manifest, e->o.diseases, e->o.label_map, e->o.out_dir};
    for (size_t i = 0; i < RZ_COUNT(paths); i++) free((char *)(uintptr_t)paths[i]);
    free(e->dir);
    free(e);
    return 0;
}

static void set_out(env *e, const char *name)
{
    free((char *)(uintptr_t)e->o.out_dir);
    e->o.out_dir = keep_path(e, name);
}

static radz_status run(env *e, radz_error *err)
{
    radz_runtime_options r;
    radz_runtime_options_init(&r);
    r.device = "cpu", r.n_threads = e->n_threads, r.log_fn = on_log, r.user = e;
    radz_runtime *runtime;
    radz_trainer *trainer = NULL;
    e->seen = (seen){.cancel_at = e->seen.cancel_at, .die_at = e->seen.die_at, .val_auc = NAN};
    assert_int_equal(radz_runtime_create(&r, &runtime, err), RADZ_OK);
    radz_status st = radz_trainer_open(runtime, &e->o, &trainer, err);
    if (!st) st = radz_trainer_run(trainer, err);
    radz_trainer_close(trainer);
    radz_runtime_close(runtime);
    return st;
}

static void run_well(env *e)
{
    radz_error err;
    if (run(e, &err)) fail_msg("%s", err.message);
}

static void same_file(const env *e, const char *a, const char *b, const char *name)
{
    char path[64];
    size_t n, m;
    snprintf(path, sizeof path, "%s/%s", a, name);
    char *x = fixture_read(fixture_path(e->dir, path), &n);
    snprintf(path, sizeof path, "%s/%s", b, name);
    char *y = fixture_read(fixture_path(e->dir, path), &m);
    if (n != m || memcmp(x, y, n) != 0) fail_msg("%s/%s and %s/%s differ", a, name, b, name);
    free(x);
    free(y);
}

static void same_model(const env *e, const char *a, const char *b)
{
    same_file(e, a, b, "model.safetensors");
    same_file(e, a, b, "radz.safetensors");
    same_file(e, a, b, "anchors.safetensors");
}

static bool exists(const env *e, const char *name)
{
    return access(fixture_path(e->dir, name), F_OK) == 0;
}

/* ---- Learning --------------------------------------------------------------------------------- */

static void learns_bright_from_dark(void **state)
{
    env *e = *state;
    e->o.epochs = 20, e->o.learn_tau = 1, e->o.validate_every = 10;
    run_well(e);
    assert_int_equal(e->seen.n_steps, 40);
    assert_int_equal(e->seen.n_validations, 4);
    assert_true(e->seen.last_loss < 0.5 * e->seen.first_loss);
    assert_true(e->seen.val_auc > 0.95);
}

static void writes_a_model_that_classifies(void **state)
{
    env *e = *state;
    e->o.epochs = 20, e->o.dtype = "bf16";
    run_well(e);
    radz_error err;
    radz_model *model;
    radz_session *session;
    radz_result *result = NULL;
    if (radz_model_open(NULL, e->o.out_dir, NULL, &model, &err)) fail_msg("%s", err.message);
    assert_int_equal(radz_session_open(model, NULL, &session, &err), RADZ_OK);
    if (radz_classify_file(session, NULL, fixture_path(e->dir, "film23.png"), &result, &err))
        fail_msg("%s", err.message);
    assert_string_equal(radz_result_label(result, 0), "Ill");
    radz_result_close(result);
    radz_session_close(session);
    radz_model_close(model);
    char *report = fixture_read(fixture_path(e->dir, "out/train.json"), NULL);
    assert_non_null(strstr(report, "\"schema\":\"radz.train/1\""));
    assert_non_null(strstr(report, "{\"label\":\"Ill\",\"auc\":"));
    assert_null(strstr(report, e->dir)); /* no paths */
    free(report);
}

/* Trained as the authors' code does it, a model says so and scores so by itself, alone as by radz_scorer. */
static void refcode_trains_and_classifies(void **state)
{
    env *e = *state;
    radz_error err;
    radz_model *model;
    radz_session *session;
    radz_bank *bank;
    radz_scorer *scorer;
    radz_image *film;
    radz_result *result = NULL;
    e->o.epochs = 20, e->o.vectors = "refcode";
    run_well(e);
    assert_true(e->seen.val_auc > 0.9);
    char *settings = fixture_read(fixture_path(e->dir, "out/radz.json"), NULL);
    assert_non_null(strstr(settings, "\"rows\": \"last\"") && strstr(settings, "\"append\": \"training\"") &&
                            strstr(settings, "\"anchors\": \"embedding\"") && strstr(settings, "\"score\": \"fused\"")
                        ? settings
                        : NULL);
    free(settings);
    if (radz_model_open(NULL, e->o.out_dir, NULL, &model, &err)) fail_msg("%s", err.message);
    if (radz_session_open(model, NULL, &session, &err)) fail_msg("%s", err.message);
    if (radz_image_open(NULL, fixture_path(e->dir, "film23.png"), &film, &err)) fail_msg("%s", err.message);
    if (radz_classify(session, NULL, film, &result, &err)) fail_msg("%s", err.message);
    assert_string_equal(radz_result_label(result, 0), "Ill");
    assert_true(fabs(radz_result_probability(result, 0) + radz_result_probability(result, 1) - 1) < 1e-12);
    char *json;
    assert_int_equal(radz_result_json(result, NULL, &json, &err), RADZ_OK);
    assert_non_null(strstr(json, "\"score\":\"fused\""));
    radz_text_free(json);

    if (radz_bank_open(model, NULL, &bank, &err)) fail_msg("%s", err.message);
    radz_score_options o;
    radz_score_options_init(&o);
    o.score = RADZ_SCORE_FUSED;
    if (radz_scorer_open(session, bank, &o, &scorer, &err)) fail_msg("%s", err.message);
    const radz_image *films[] = {film};
    float *v = malloc(radz_model_embedding_dim(model) * sizeof *v);
    double probability[2];
    if (radz_embed_images(session, films, 1, NULL, v, &err)) fail_msg("%s", err.message);
    if (radz_scorer_score(scorer, v, NULL, 1, NULL, probability, &err)) fail_msg("%s", err.message);
    assert_true(fabs(probability[1] - radz_result_probability(result, 0)) < 1e-6);
    free(v);
    radz_scorer_close(scorer), radz_bank_close(bank), radz_result_close(result), radz_image_close(film);
    radz_session_close(session), radz_model_close(model);
}

static void without_validation_rows_the_last_model_is_kept(void **state)
{
    env *e = *state;
    fixture_write_text(e->o.manifest, "path,labels\nfilm0.png,Normal\nfilm1.png,Ill\n");
    e->o.monitor = e->o.monitor_set = NULL, e->o.batch_size = 2, e->o.epochs = 3;
    run_well(e);
    assert_int_equal(e->seen.n_validations, 0);
    assert_true(exists(e, "out/model.safetensors") && exists(e, "out/anchors.safetensors"));
}

static void report_texts_are_learned_without_labels(void **state)
{
    env *e = *state;
    fixture_write_text(e->o.manifest, "path,labels,text\nfilm0.png,,Is it dark? Yes.\nfilm1.png,,Is it dark? No.\n"
                                      "film2.png,Normal,\nfilm3.png,Ill,\n");
    e->o.monitor = e->o.monitor_set = NULL, e->o.batch_size = 4;
    run_well(e);
    assert_true(isfinite(e->seen.last_loss));
}

/* ---- Same bytes --------------------------------------------------------------------------------- */

static void resumed_runs_are_bit_identical(void **state)
{
    env *e = *state;
    radz_error err;
    e->o.validate_every = 4, e->o.learn_tau = 1, e->o.weight_decay = 0.01;
    run_well(e); /* 12 steps */
    set_out(e, "parts");
    e->o.stop_after_steps = 5;
    run_well(e);
    assert_int_equal(e->seen.n_steps, 5);
    e->o.resume = 1, e->o.stop_after_steps = 0, e->seen.cancel_at = 9;
    assert_int_equal(run(e, &err), RADZ_E_CANCELLED);
    assert_int_equal(e->seen.n_steps, 4);
    assert_non_null(strstr(err.message, "step 9 of 12"));
    e->seen.cancel_at = 0;
    run_well(e);
    assert_int_equal(e->seen.n_steps, 3);
    same_model(e, "out", "parts");
    run_well(e); /* nothing left to do */
    assert_int_equal(e->seen.n_steps, 0);
    same_model(e, "out", "parts");
}

static void bad_films_do_not_break_resuming(void **state)
{
    env *e = *state;
    fixture_write_text(fixture_path(e->dir, "film2.png"), "no film");
    run_well(e);
    set_out(e, "parts");
    e->o.stop_after_steps = 5;
    run_well(e);
    e->o.resume = 1, e->o.stop_after_steps = 0;
    run_well(e);
    assert_int_equal(e->seen.n_bad, 1);
    same_model(e, "out", "parts");
}

static void killed_runs_go_on_from_their_checkpoint(void **state)
{
    env *e = *state;
    e->o.validate_every = 4;
    run_well(e);
    set_out(e, "parts");
    e->o.checkpoint_every = 3;
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        e->seen.die_at = 8; /* two steps after the last checkpoint, a validation in between */
        _exit(run(e, NULL));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    e->o.resume = 1;
    run_well(e);
    assert_int_equal(e->seen.n_steps, 6);
    same_model(e, "out", "parts");
}

static void thread_counts_change_nothing(void **state)
{
    env *e = *state;
    run_well(e);
    set_out(e, "threads");
    e->n_threads = 3;
    run_well(e);
    same_model(e, "out", "threads");
}

/* Gradients of a batch whose vectors were made part by part, and of one pass; the largest memory of each. */
static float *gradients_of(env *e, int micro_batch, size_t *n, size_t *bytes)
{
    radz_error err;
    rz_device_options cpu = {.device = "cpu", .n_threads = 1};
    rz_device *dev;
    rz_trainer *t;
    radz_train_progress progress = {0};
    e->o.micro_batch = micro_batch;
    fixture_remove(e->o.out_dir);
    assert_int_equal(rz_device_open(NULL, &cpu, &dev, &err), RADZ_OK);
    if (rz_trainer_open(NULL, dev, &e->o, &t, &err) || rz_train_step(t, &progress, &err)) fail_msg("%s", err.message);
    e->seen.last_loss = progress.loss;
    *n = t->optimizer.n_floats, *bytes = rz_arena_peak(t->s);
    float *g = calloc(*n, sizeof *g);
    rz_download(t->s, g, t->optimizer.grad, *n * sizeof *g);
    assert_int_equal(rz_stream_sync(t->s, &err), RADZ_OK);
    rz_trainer_close(t);
    rz_device_close(dev);
    return g;
}

static void same_gradients(const float *a, const float *b, size_t n, double tolerance)
{
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) diff += pow((double)a[i] - b[i], 2), norm += pow(a[i], 2);
    if (!(sqrt(diff) <= tolerance * sqrt(norm)) || !(norm > 0)) fail_msg("%g of %g", sqrt(diff), sqrt(norm));
}

static void micro_batches_give_the_gradients_of_one(void **state)
{
    env *e = *state;
    size_t n, m, bytes, fewer;
    e->o.batch_size = 16, e->o.learn_tau = 1;
    float *one = gradients_of(e, 0, &n, &bytes);
    double loss = e->seen.last_loss;
    static const int sizes[] = {1, 3, 16, 100};
    for (size_t i = 0; i < RZ_COUNT(sizes); i++) {
        float *parts = gradients_of(e, sizes[i], &m, &fewer);
        assert_int_equal(n, m);
        same_gradients(one, parts, n, 1e-6);
        assert_true(loss == e->seen.last_loss); /* the vectors have the same bits */
        assert_true(sizes[i] == 100 ? fewer == bytes : fewer < 0.6 * (double)bytes);
        if (sizes[i] == 100) assert_memory_equal(one, parts, n * sizeof *one);
        free(parts);
    }
    free(one);
}

/* ---- Small data: an average of the weights, stochastic depth, sets, memory ---------------------------- */

static float *tensor_of(const env *e, const char *dir, const char *file, const char *name, size_t *n)
{
    char path[96];
    rz_st *st;
    radz_error err;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    if (rz_st_open(NULL, fixture_path(e->dir, path), RZ_FILE_READ, &st, &err)) fail_msg("%s", err.message);
    const rz_st_tensor *t = rz_st_find(st, name);
    assert_non_null(t);
    *n = t->n_elements;
    float *values = calloc(*n, sizeof *values);
    assert_int_equal(rz_st_to_f32(t, values, &err), RADZ_OK);
    rz_st_close(st);
    return values;
}

static void the_average_is_what_is_written(void **state)
{
    static const char name[] = "vision_model.encoder.layers.0.mlp.fc1.weight",
                      checkpoint[] = "checkpoint/state.safetensors";
    char of_tower[128], of_average[160];
    env *e = *state;
    size_t n;
    e->o.epochs = 10, e->o.ema = 0.9; /* 20 steps: averages after 8 and 16 */
    run_well(e);
    snprintf(of_tower, sizeof of_tower, "vision_tower.%s", name);
    snprintf(of_average, sizeof of_average, "%s/average", of_tower);
    float *written = tensor_of(e, "out", "model.safetensors", of_tower, &n),
          *weights = tensor_of(e, "out", checkpoint, of_tower, &n),
          *average = tensor_of(e, "out", checkpoint, of_average, &n);
    assert_memory_equal(written, average, n * sizeof *written);
    assert_memory_not_equal(written, weights, n * sizeof *written);
    free(written), free(weights), free(average);
}

/* All of it at once, stopped and resumed; decoded films kept or not. */
static void small_data_runs_are_bit_identical(void **state)
{
    env *e = *state;
    radz_error err;
    e->o.validate_every = 4, e->o.epochs = 10, e->o.augment = 2;
    e->o.ema = 0.9, e->o.keep = "last", e->o.set_weights = "toy=3", e->o.drop_path = 0.5;
    run_well(e);
    set_out(e, "parts");
    e->o.stop_after_steps = 9, e->o.film_cache_bytes = 0;
    run_well(e);
    e->o.resume = 1, e->o.stop_after_steps = 17, e->n_threads = 3, e->o.film_cache_bytes = 2000;
    run_well(e);
    e->o.stop_after_steps = 0;
    run_well(e);
    same_model(e, "out", "parts");
    e->o.drop_path = 0.4;
    assert_int_equal(run(e, &err), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "drop_path"));
    e->o.drop_path = 0.5, e->o.ema = 0;
    assert_int_equal(run(e, &err), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "ema"));
}

static long best_step(const env *e, const char *path)
{
    char *json = fixture_read(fixture_path(e->dir, path), NULL), *at = strstr(json, "\"best_step\":");
    assert_non_null(at);
    long step = strtol(at + strlen("\"best_step\":"), NULL, 10);
    free(json);
    return step;
}

static void the_last_model_is_kept_where_asked(void **state)
{
    env *e = *state;
    e->o.validate_every = 1, e->o.epochs = 10;
    run_well(e);
    assert_in_range(best_step(e, "out/train.json"), 1, 19); /* all films in order, and then no better */
    set_out(e, "last");
    e->o.keep = "last";
    run_well(e);
    assert_int_equal(best_step(e, "last/train.json"), 20);
}

/* The loss of the first batch, its weights moved by `far` along the gradient's direction. */
static double loss_at(rz_trainer *t, const float *g, double norm, double far)
{
    radz_error err;
    radz_train_progress progress = {0};
    for (int back = 0; back < 2; back++) {
        for (size_t i = 0; i < t->optimizer.n_slots; i++) {
            const rz_slot *slot = &t->optimizer.slots[i];
            for (size_t k = 0; k < slot->p->n; k++)
                slot->w[k] += (float)((back ? -far : far) * g[slot->offset + k] / norm);
        }
        if (back) break;
        rz_batch_wait(t);
        t->state.step = t->state.draw = 0;
        if (rz_train_step(t, &progress, &err)) fail_msg("%s", err.message);
    }
    return progress.loss;
}

/* The gradients of the tower's blocks; zero elsewhere. */
static void take_tower(const rz_optimizer *o, float *g)
{
    for (size_t i = 0; i < o->n_slots; i++) {
        const rz_slot *slot = &o->slots[i];
        if (strstr(slot->p->name, "vision_model.encoder"))
            memcpy(g + slot->offset, o->grad + slot->offset, slot->p->n * sizeof *g);
    }
}

static void shorter_paths_have_the_gradients_of_their_loss(void **state)
{
    env *e = *state;
    radz_error err;
    rz_device_options cpu = {.device = "cpu", .n_threads = 1};
    rz_device *dev;
    rz_trainer *t;
    double whole = 0;
    e->o.lr = 0, e->o.clip_norm = 0, e->o.augment = 0;
    for (int i = 0; i < 3; i++) {
        e->o.drop_path = 0.3 * i, e->o.recompute = i == 2;
        assert_int_equal(rz_device_open(NULL, &cpu, &dev, &err), RADZ_OK);
        if (rz_trainer_open(NULL, dev, &e->o, &t, &err)) fail_msg("%s", err.message);
        size_t n = t->optimizer.n_floats;
        float *g = calloc(n, sizeof *g);
        double norm = 0, loss = loss_at(t, g, 1, 0), far = 5e-4;
        take_tower(&t->optimizer, g);
        for (size_t k = 0; k < n; k++) norm += (double)g[k] * g[k];
        norm = sqrt(norm);
        double slope = (loss_at(t, g, norm, far) - loss_at(t, g, norm, -far)) / (2 * far);
        if (!(fabs(slope - norm) < 0.02 * norm))
            fail_msg("drop %g: %g, differences say %g", e->o.drop_path, norm, slope);
        if (i)
            assert_true(loss != whole);
        else
            whole = loss;
        free(g);
        rz_trainer_close(t);
        rz_device_close(dev);
    }
}

static void micro_batches_take_the_same_paths(void **state)
{
    env *e = *state;
    size_t n, m, bytes;
    e->o.batch_size = 16, e->o.drop_path = 0.6;
    float *one = gradients_of(e, 0, &n, &bytes), *parts = gradients_of(e, 3, &m, &bytes);
    same_gradients(one, parts, n, 1e-6);
    free(one), free(parts);
}

static void seeds_matter(void **state)
{
    env *e = *state;
    e->o.epochs = 1;
    run_well(e);
    double first = e->seen.first_loss;
    set_out(e, "other");
    e->o.seed = 4;
    run_well(e);
    assert_true(first != e->seen.first_loss);
}

/* ---- What goes wrong --------------------------------------------------------------------------------- */

static void expect(env *e, radz_status code, const char *says)
{
    radz_error err = {0};
    radz_status st = run(e, &err);
    if (st != code || !strstr(err.message, says)) fail_msg("%d, not %d: %s", st, code, err.message);
}

static void bad_films_are_counted_and_skipped(void **state)
{
    env *e = *state;
    fixture_write_text(fixture_path(e->dir, "film3.png"), "no film");
    assert_int_equal(unlink(fixture_path(e->dir, "film20.png")), 0); /* of the validation split */
    run_well(e);
    assert_int_equal(e->seen.n_bad, 2);
    assert_int_equal(e->n_warnings, 2);
    assert_non_null(strstr(e->warning, "manifest line 22"));
    assert_int_equal(e->seen.n_steps, 12);
}

static void no_readable_film_is_an_error(void **state)
{
    env *e = *state;
    for (int i = 0; i < N_FILMS; i++) {
        char name[32];
        snprintf(name, sizeof name, "film%d.png", i);
        fixture_write_text(fixture_path(e->dir, name), "no film");
    }
    expect(e, RADZ_E_IO, "none of the 16 training films");
}

static void long_texts_cost_their_rows_only(void **state)
{
    env *e = *state;
    rz_str s = {0};
    rz_str_puts(&s, "path,labels,text\nfilm0.png,Normal,\nfilm1.png,Ill,\nfilm2.png,Ill,");
    for (int i = 0; i < 600; i++) rz_str_puts(&s, "Zq ");
    rz_str_puts(&s, "\n");
    fixture_write_text(e->o.manifest, s.data);
    rz_str_free(&s);
    e->o.monitor = e->o.monitor_set = NULL, e->o.batch_size = 2;
    run_well(e);
    assert_int_equal(e->seen.n_bad, 1);
    assert_non_null(strstr(e->warning, "manifest line 4"));
}

static void other_options_cannot_go_on(void **state)
{
    env *e = *state;
    e->o.stop_after_steps = 2;
    run_well(e);
    e->o.stop_after_steps = 0;
    expect(e, RADZ_E_STATE, "holds a training run");
    e->o.resume = 1, e->o.lr = 1e-3;
    expect(e, RADZ_E_MISMATCH, "'lr' was '0.005' and is '0.001' now");
    e->o.lr = 5e-3;
    fixture_write_text(e->o.diseases, "No Finding: dark\nIll: bright\n");
    expect(e, RADZ_E_MISMATCH, "'diseases_sha256'");
}

static void broken_checkpoints_are_refused(void **state)
{
    env *e = *state;
    e->o.stop_after_steps = 2;
    run_well(e);
    char *path = keep_path(e, "out/checkpoint/state.safetensors");
    size_t n;
    char *bytes = fixture_read(path, &n);
    fixture_write(path, bytes, n - 1);
    e->o.resume = 1;
    expect(e, RADZ_E_FORMAT, "state.safetensors");
    fixture_write(path, bytes, 4);
    expect(e, RADZ_E_FORMAT, "state.safetensors");
    free(bytes);
    free(path);
}

/* A file-size limit stands for a full disk. */
static void a_full_disk_leaves_the_old_checkpoint(void **state)
{
    env *e = *state;
    struct rlimit full = {16384, 0}, before;
    e->o.stop_after_steps = 2;
    run_well(e);
    char *path = keep_path(e, "out/checkpoint/state.safetensors");
    size_t n, m;
    char *old = fixture_read(path, &n);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    full.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
    e->o.resume = 1, e->o.stop_after_steps = 4;
    radz_error err = {0};
    radz_status st = run(e, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    if (st != RADZ_E_IO || !strstr(err.message, "state.safetensors")) fail_msg("%d: %s", st, err.message);
    char *now = fixture_read(path, &m);
    assert_int_equal(n, m);
    assert_memory_equal(old, now, n);
    run_well(e);
    assert_int_equal(e->seen.n_steps, 2);
    free(old);
    free(now);
    free(path);
}

static void trained_models_are_not_overwritten(void **state)
{
    env *e = *state;
    e->o.epochs = 1;
    run_well(e);
    fixture_remove(fixture_path(e->dir, "out/checkpoint"));
    expect(e, RADZ_E_STATE, "holds a model already");
}

static void bad_options_are_refused(void **state)
{
    env *e = *state;
    radz_train_options good = e->o;
    e->o.batch_size = 0;
    expect(e, RADZ_E_ARGUMENT, "batch_size");
    e->o = good, e->o.lr = NAN;
    expect(e, RADZ_E_ARGUMENT, "lr");
    e->o = good, e->o.epochs = 0;
    expect(e, RADZ_E_ARGUMENT, "epochs");
    e->o = good, e->o.diseases = NULL;
    expect(e, RADZ_E_ARGUMENT, "diseases");
    e->o = good, e->o.monitor = "Gout";
    expect(e, RADZ_E_ARGUMENT, "'Gout'");
    e->o = good, e->o.monitor_set = "moon";
    expect(e, RADZ_E_ARGUMENT, "'moon'");
    e->o = good, e->o.dtype = "int3";
    expect(e, RADZ_E_ARGUMENT, "'int3'");
    e->o = good, e->o.model_dir = "/nowhere";
    expect(e, RADZ_E_IO, "/nowhere");
    e->o = good;
    assert_false(exists(e, "out"));
}

static void an_output_that_cannot_be_written_is_an_error(void **state)
{
    env *e = *state;
    fixture_write_text(fixture_path(e->dir, "file"), "in the way");
    set_out(e, "file/out");
    expect(e, RADZ_E_IO, "file");
}

static radz_status train_once(const rz_host *host, void *arg)
{
    env *e = arg;
    rz_device_options cpu = {.device = "cpu", .n_threads = 1};
    rz_device *dev;
    rz_trainer *t = NULL;
    radz_error err;
    fixture_remove(e->o.out_dir);
    RZ_TRY(rz_device_open(host, &cpu, &dev, &err));
    radz_status st = rz_trainer_open(host, dev, &e->o, &t, &err);
    if (!st) st = rz_trainer_run(t, &err);
    rz_trainer_close(t);
    rz_device_close(dev);
    if (st && st != RADZ_E_MEMORY) print_message("%s\n", err.message);
    return st;
}

static void memory_may_run_out_anywhere(void **state)
{
    env *e = *state;
    fixture_write_text(e->o.manifest, "path,labels,split\nfilm0.png,Normal,train\nfilm1.png,Ill,train\n"
                                      "film3.png,Ill,val\n");
    e->o.monitor = e->o.monitor_set = NULL, e->o.batch_size = 2, e->o.epochs = 1, e->o.progress_fn = NULL;
    /* Thousands of allocations, and each run syncs a dozen files: every 61st, or all of them when asked for. */
    long step = getenv("RADZ_EVERY_ALLOCATION") ? 1 : 61, n = 1;
    for (long i = 0; i <= n; i += step)
        for (int mode = 0; mode < 2; mode++) {
            failing_host f = {.fail_at = i, .from_then_on = mode};
            rz_host host = failing_hooks(&f);
            radz_status st = train_once(&host, e);
            if (st != RADZ_OK && (!i || st != RADZ_E_MEMORY)) fail_msg("allocation %ld: %d", i, st);
            if (st == RADZ_OK && i && mode && f.calls >= i) fail_msg("allocation %ld: not noticed", i);
            if (f.live) fail_msg("allocation %ld fails: %ld blocks are left", i, (long)f.live);
            if (!i) n = f.calls;
        }
}

/* ---- The program ---------------------------------------------------------------------------------------- */

static int shell(const env *e, const char *options)
{
    rz_str s = {0};
    rz_str_printf(&s, "%s %s >'%s/output' 2>&1", fixture_program("radz-train"), options, e->dir);
    int status = system(s.data);
    rz_str_free(&s);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static bool printed(const env *e, const char *text)
{
    char *output = fixture_read(fixture_path(e->dir, "output"), NULL);
    bool found = strstr(output, text) != NULL;
    free(output);
    return found;
}

static void the_program_refuses_wrong_usage(void **state)
{
    env *e = *state;
    static const char *const wrong[] = {
        "",           "--frobnicate", "--model",      "--model a --model b", "--threads -1",   "--lr 1e99x",
        "--lr 1e999", "--batch 0",    "--epochs nan", "--seed -1",           "--stop-after 0", "file"};
    for (size_t i = 0; i < RZ_COUNT(wrong); i++) {
        if (shell(e, wrong[i]) != 2) fail_msg("radz-train %s", wrong[i]);
        assert_true(printed(e, "usage: radz-train"));
    }
    assert_int_equal(shell(e, "--help"), 0);
    assert_int_equal(shell(e, "--version"), 0);
    assert_int_equal(shell(e, "--help >/dev/full; exit $?; true"), 1);
}

static void the_program_trains(void **state)
{
    env *e = *state;
    rz_str s = {0};
    rz_str_printf(&s, "--model '%s' --manifest '%s' --diseases '%s' --label-map '%s' --out '%s' --threads 1 --batch 8",
                  e->o.model_dir, e->o.manifest, e->o.diseases, e->o.label_map, e->o.out_dir);
    size_t n = s.len;
    rz_str_puts(&s, " --stop-after 1");
    assert_int_equal(shell(e, s.data), 0);
    assert_true(printed(e, "step 1/4"));
    assert_false(exists(e, "out/model.safetensors"));
    s.len = n, s.data[n] = '\0';
    rz_str_puts(&s, " --resume");
    assert_int_equal(shell(e, s.data), 0);
    assert_true(printed(e, "step 4: validation AUC") && printed(e, "esearch use only"));
    assert_true(exists(e, "out/model.safetensors") && exists(e, "out/train.json"));
    s.len = n, s.data[n] = '\0';
    assert_int_equal(shell(e, s.data), 1); /* there is a run already */
    rz_str_free(&s);
}

/* ---- Parts --------------------------------------------------------------------------------------------- */

static void the_learning_rate_rises_and_falls(void **state)
{
    (void)state;
    assert_true(fabs(rz_learning_rate(2, 0.1, 1, 100) - 0.2) < 1e-12);
    assert_true(fabs(rz_learning_rate(2, 0.1, 10, 100) - 2) < 1e-12);
    assert_true(fabs(rz_learning_rate(2, 0.1, 11, 100) - 2) < 1e-12);
    assert_true(fabs(rz_learning_rate(2, 0.1, 56, 100) - 1) < 1e-12);
    assert_true(rz_learning_rate(2, 0.1, 100, 100) < 0.001);
    assert_true(rz_learning_rate(2, 0, 1, 1) == 2);
    assert_true(rz_learning_rate(2, 1, 7, 7) == 2);
}

/* What a step is made of, alone. */
typedef struct parts {
    rz_device *dev;
    rz_stream *s;
    rz_model *m;
    rz_optimizer o;
} parts;

static void open_parts(const env *e, bool learn_tau, bool bf16, parts *p)
{
    const rz_device_options cpu = {.device = "cpu", .n_threads = 1};
    radz_error err;
    assert_int_equal(rz_device_open(NULL, &cpu, &p->dev, &err), RADZ_OK);
    assert_int_equal(rz_stream_open(p->dev, &p->s, &err), RADZ_OK);
    assert_int_equal(rz_model_load(NULL, p->dev, e->o.model_dir, RZ_MODEL_INIT, 1, &p->m, &err), RADZ_OK);
    assert_int_equal(rz_optimizer_open(NULL, p->m, p->s, learn_tau, bf16, &p->o, &err), RADZ_OK);
}

static void close_parts(parts *p)
{
    rz_optimizer_close(&p->o);
    rz_model_unload(p->m);
    rz_stream_close(p->s);
    rz_device_close(p->dev);
}

/* With Adam, whose step does not depend on the gradient's size, clipping shows in m. */
static void gradients_are_clipped(void **state)
{
    radz_error err;
    parts p;
    double norm;
    open_parts(*state, true, false, &p);
    assert_null(p.m->lm_head->grad); /* no vector depends on these */
    assert_null(p.m->decoder[1].q.w->grad);
    assert_non_null(p.m->decoder[0].q.w->grad);
    float g[2] = {30, 40};
    rz_upload(p.s, p.m->gamma_img.l2.b->grad, g, sizeof g);
    rz_adamw adam = {.lr = 0.1f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .step = 1};
    assert_int_equal(rz_optimizer_step(&p.o, p.s, adam, 1.0, &norm, &err), RADZ_OK);
    assert_true(fabs(norm - 50) < 1e-6);
    float *moment = p.o.m + (p.m->gamma_img.l2.b->grad - p.o.grad);
    assert_true(fabsf(moment[0] - 0.06f) < 1e-6f && fabsf(moment[1] - 0.08f) < 1e-6f);
    g[0] = NAN;
    rz_upload(p.s, p.m->gamma_img.l2.b->grad, g, sizeof g);
    assert_int_equal(rz_optimizer_step(&p.o, p.s, adam, 1.0, &norm, &err), RADZ_E_STATE);
    close_parts(&p);
}

/* One parameter's average by hand, and weights that are bf16. */
static void averages_follow_their_formula(void **state)
{
    radz_error err;
    parts p;
    open_parts(*state, false, true, &p);
    assert_int_equal(rz_optimizer_average_open(&p.o, p.s, &err), RADZ_OK);
    const rz_slot *slot = &p.o.slots[0];
    for (size_t i = 0; i < p.o.n_slots && !slot->half; i++) slot = &p.o.slots[i];
    assert_true(slot->half);
    const uint16_t *half = slot->p->w.data;
    float *average = p.o.average + slot->offset, *w = slot->w, first = *w;
    double want = first, a[] = {2 / 11.0, 3 / 12.0, pow(0.8, 8)}; /* n = 1, 2, and so late that 0.8^8 is less */
    const int64_t steps[] = {8, 16, 8000};
    assert_memory_equal(average, w, slot->p->n * sizeof *w);
    for (size_t i = 0; i < RZ_COUNT(a); i++) {
        if (a[i] > pow(0.8, 8)) a[i] = pow(0.8, 8);
        *w = (float)(i + 1);
        rz_optimizer_average(&p.o, p.s, 0.8, steps[i] - 1); /* not due */
        rz_optimizer_average(&p.o, p.s, 0.8, steps[i]);
        want = a[i] * want + (1 - a[i]) * (double)*w;
        assert_true(fabs((double)*average - want) < 1e-6);
    }
    *w = 1;
    rz_optimizer_swap(&p.o, p.s);
    uint16_t rounded;
    rz_to_bf16(p.s, &rounded, w, 1);
    assert_true(fabs((double)*w - want) < 1e-6 && *average == 1 && *half == rounded);
    rz_optimizer_swap(&p.o, p.s);
    assert_true(*w == 1 && *half == 0x3f80);
    assert_int_equal(rz_stream_sync(p.s, &err), RADZ_OK);
    close_parts(&p);
}

static void films_keep_their_levels(void **state)
{
    env *e = *state;
    rz_preprocess_config cfg = {.resize = true,
                                .crop = true,
                                .shortest_edge = SIDE,
                                .crop_width = SIDE,
                                .crop_height = SIDE,
                                .rescale = 1 / 255.0f,
                                .mean = {0.48f, 0.45f, 0.4f},
                                .std = {0.26f, 0.26f, 0.27f}};
    rz_thumb thumb;
    rz_file f;
    rz_pixels film;
    float through[3 * SIDE * SIDE], direct[3 * SIDE * SIDE];
    const char *path = fixture_path(e->dir, "film1.png");
    assert_int_equal(rz_thumb_open(NULL, &cfg, SIDE, path, &thumb, NULL), RADZ_OK);
    assert_int_equal(thumb.planes, 1);
    rz_thumb_pixels(&cfg, &thumb, through);
    assert_int_equal(rz_file_open(NULL, path, RZ_FILE_READ, 1 << 20, &f, NULL), RADZ_OK);
    assert_int_equal(rz_pixels_decode(NULL, f.data, f.size, path, &film, NULL), RADZ_OK);
    assert_int_equal(rz_preprocess(NULL, &cfg, SIDE, &film, direct, NULL), RADZ_OK);
    assert_memory_equal(through, direct, sizeof direct);
    rz_pixels_free(NULL, &film);
    rz_file_close(&f);
    rz_thumb_free(NULL, &thumb);
}

static void augmentation_is_small_and_seeded(void **state)
{
    (void)state;
    rz_preprocess_config cfg = {.rescale = 1 / 255.0f, .std = {1, 1, 1}};
    uint8_t levels[64 * 64];
    float a[3 * 64 * 64], b[3 * 64 * 64];
    for (size_t i = 0; i < sizeof levels; i++) levels[i] = i % 64 < 32 ? 220 : 60; /* left half bright */
    rz_thumb thumb = {64, 1, levels};
    for (uint64_t seed = 0; seed < 20; seed++) {
        rz_rng rng;
        rz_rng_seed(&rng, seed, 0);
        rz_augment(&cfg, &thumb, false, &rng, a);
        rz_rng_seed(&rng, seed, 0);
        rz_augment(&cfg, &thumb, false, &rng, b);
        assert_memory_equal(a, b, sizeof a);
        assert_memory_equal(a, a + 2 * 64 * 64, 64 * 64 * sizeof *a);
        for (size_t i = 0; i < 3 * 64 * 64; i++) assert_true(a[i] >= 0 && a[i] <= 1);
        assert_true(a[32 * 64 + 16] > a[32 * 64 + 48] + 0.2f); /* left is still left */
        rz_rng_seed(&rng, seed, 0);
        rz_augment(&cfg, &thumb, true, &rng, b);
        assert_memory_not_equal(a, b, sizeof a);
        for (size_t i = 0; i < 3 * 64 * 64; i++) assert_true(b[i] >= 0 && b[i] <= 1);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(learns_bright_from_dark),
        TEST(writes_a_model_that_classifies),
        TEST(refcode_trains_and_classifies),
        TEST(without_validation_rows_the_last_model_is_kept),
        TEST(report_texts_are_learned_without_labels),
        TEST(resumed_runs_are_bit_identical),
        TEST(bad_films_do_not_break_resuming),
        TEST(killed_runs_go_on_from_their_checkpoint),
        TEST(thread_counts_change_nothing),
        TEST(micro_batches_give_the_gradients_of_one),
        TEST(seeds_matter),
        TEST(bad_films_are_counted_and_skipped),
        TEST(no_readable_film_is_an_error),
        TEST(long_texts_cost_their_rows_only),
        TEST(other_options_cannot_go_on),
        TEST(broken_checkpoints_are_refused),
        TEST(a_full_disk_leaves_the_old_checkpoint),
        TEST(trained_models_are_not_overwritten),
        TEST(bad_options_are_refused),
        TEST(an_output_that_cannot_be_written_is_an_error),
        TEST(memory_may_run_out_anywhere),
        TEST(the_program_refuses_wrong_usage),
        TEST(the_program_trains),
        TEST(the_learning_rate_rises_and_falls),
        TEST(gradients_are_clipped),
        TEST(films_keep_their_levels),
        TEST(augmentation_is_small_and_seeded),
        TEST(the_average_is_what_is_written),
        TEST(small_data_runs_are_bit_identical),
        TEST(the_last_model_is_kept_where_asked),
        TEST(shorter_paths_have_the_gradients_of_their_loss),
        TEST(micro_batches_take_the_same_paths),
        TEST(averages_follow_their_formula),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
