/* test_supervised.c - the objectives "classify" and "generate" on films made here: bright ones are ill, dark ones are
 * well. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "fixture.h"
#include "train_fixture.h"

enum { FILMS = 24, MAX_STEPS = 64 };

typedef struct env {
    char *dir, *model, *manifest, *diseases, *out;
    radz_train_options o;
    size_t n_steps;
    double losses[MAX_STEPS], values[MAX_STEPS]; /* of the validations: NaN where there was none */
} env;

static radz_error err;

/* Every third row has neither prompt nor answer: it is asked the model's own question about its labels. */
static void write_data(const env *e)
{
    rz_str s = {0};
    rz_str_puts(&s, "path,labels,split,set,prompt,answer\n");
    for (int i = 0; i < FILMS; i++) {
        char name[32];
        bool ill = i % 2;
        snprintf(name, sizeof name, "film%d.png", i);
        train_env_film(fixture_path(e->dir, name), ill, (uint64_t)i);
        rz_str_printf(&s, "%s,%s,%s,toy,", name, ill ? "Ill" : "No Finding", i < 16 ? "train" : "val");
        rz_str_puts(&s, i % 3 ? (ill ? "Is it bright?,yes it is\n" : "Is it bright?,no\n") : ",\n");
    }
    fixture_write_text(e->manifest, s.data);
    rz_str_free(&s);
    fixture_write_text(e->diseases, "No Finding: a dark film, nothing to see\nIll: a bright film, shadows all over\n");
}

static int on_progress(const radz_train_progress *p, void *user)
{
    env *e = user;
    assert_true(e->n_steps < MAX_STEPS);
    e->losses[e->n_steps] = p->loss;
    e->values[e->n_steps++] = p->has_validation ? p->val_auc : NAN;
    return 0;
}

static int set_up(void **state)
{
    env *e = calloc(1, sizeof *e);
    e->dir = fixture_temp_dir();
    e->model = strdup(fixture_path(e->dir, "model")), e->manifest = strdup(fixture_path(e->dir, "index.csv"));
    e->diseases = strdup(fixture_path(e->dir, "diseases.txt")), e->out = strdup(fixture_path(e->dir, "out"));
    assert_int_equal(mkdir(e->model, 0777), 0);
    fixture_model(e->model, 7);
    write_data(e);
    radz_train_options_init(&e->o);
    e->o.model_dir = e->model, e->o.manifest = e->manifest, e->o.diseases = e->diseases, e->o.out_dir = e->out;
    e->o.epochs = 10, e->o.batch_size = 8, e->o.seed = 3, e->o.validate_every = 5, e->o.lora_rank = 0;
    e->o.progress_fn = on_progress, e->o.user = e;
    *state = e;
    return 0;
}

static int tear_down(void **state)
{
    env *e = *state;
    fixture_remove(e->dir);
    char *const paths[] = {e->dir, e->model, e->manifest, e->diseases, e->out};
    for (size_t i = 0; i < RZ_COUNT(paths); i++) free(paths[i]);
    free(e);
    return 0;
}

static radz_status run(env *e)
{
    radz_trainer *trainer = NULL;
    e->n_steps = 0;
    radz_status st = radz_trainer_open(NULL, &e->o, &trainer, &err);
    if (!st) st = radz_trainer_run(trainer, &err);
    radz_trainer_close(trainer);
    return st;
}

static void run_well(env *e)
{
    if (run(e)) fail_msg("%s", err.message);
}

static double last_value(const env *e)
{
    return e->values[e->n_steps - 1];
}

static void same_files(const env *e, const char *a, const char *b)
{
    static const char *const names[] = {"model.safetensors", "radz.safetensors", "radz.json"};
    for (size_t i = 0; i < RZ_COUNT(names); i++) {
        size_t n, m;
        char path[64];
        snprintf(path, sizeof path, "%s/%s", a, names[i]);
        char *x = fixture_read(fixture_path(e->dir, path), &n);
        snprintf(path, sizeof path, "%s/%s", b, names[i]);
        char *y = fixture_read(fixture_path(e->dir, path), &m);
        if (n != m || memcmp(x, y, n) != 0) fail_msg("%s of %s and %s differ", names[i], a, b);
        free(x);
        free(y);
    }
}

/* A tensor of a safetensors file; the caller frees. */
static float *read_tensor(const env *e, const char *file, const char *name, size_t *n)
{
    rz_st *st;
    if (rz_st_open(NULL, fixture_path(e->dir, file), RZ_FILE_READ, &st, &err)) fail_msg("%s", err.message);
    const rz_st_tensor *t = rz_st_find(st, name);
    if (!t) fail_msg("%s: no '%s'", file, name);
    float *f = malloc(t->n_elements * sizeof *f);
    assert_int_equal(rz_st_to_f32(t, f, &err), RADZ_OK);
    *n = t->n_elements;
    rz_st_close(st);
    return f;
}

static bool same_tensor(const env *e, const char *file, const char *name)
{
    size_t n, m;
    char a[64], b[64];
    snprintf(a, sizeof a, "model/%s", file);
    snprintf(b, sizeof b, "out/%s", file);
    float *x = read_tensor(e, a, name, &n), *y = read_tensor(e, b, name, &m);
    bool same = n == m && !memcmp(x, y, n * sizeof *x);
    free(x);
    free(y);
    return same;
}

/* ---- Classes ------------------------------------------------------------------------------------ */

static void classify_head_only(env *e)
{
    e->o.objective = "classify", e->o.train = "none", e->o.lr = 0.5, e->o.epochs = 20;
}

static void a_head_alone_is_learned(void **state)
{
    env *e = *state;
    classify_head_only(e);
    run_well(e);
    assert_true(fabs(e->losses[0] - log(2)) < 1e-6); /* a head of zeros knows nothing */
    assert_true(e->losses[e->n_steps - 1] < 0.7 * e->losses[0]);
    assert_true(last_value(e) > 0.9);
    assert_true(same_tensor(e, "model.safetensors", "language_model.model.layers.0.mlp.up_proj.weight"));
    assert_true(same_tensor(e, "radz.safetensors", "special_tokens.weight"));
    assert_true(same_tensor(e, "radz.safetensors", "gamma_img.linear_1.weight"));
    char *json = fixture_read(fixture_path(e->dir, "out/radz.json"), NULL);
    assert_non_null(strstr(json, "\"classes\""));
    free(json);
}

static void a_trained_head_classifies(void **state)
{
    env *e = *state;
    radz_model *model;
    radz_session *session;
    radz_result *result;
    classify_head_only(e);
    run_well(e);
    assert_int_equal(radz_model_open(NULL, e->out, NULL, &model, &err), RADZ_OK);
    assert_int_equal(radz_session_open(model, NULL, &session, &err), RADZ_OK);
    assert_int_equal(radz_classify_file(session, NULL, fixture_path(e->dir, "film23.png"), &result, &err), RADZ_OK);
    assert_string_equal(radz_result_label(result, 0), "Ill");
    assert_true(isnan(radz_result_similarity(result, 0)));
    radz_result_close(result);
    radz_session_close(session);
    radz_model_close(model);
}

static void the_rest_may_learn_too(void **state)
{
    env *e = *state;
    e->o.objective = "classify", e->o.lr = 2e-2, e->o.epochs = 15;
    run_well(e);
    assert_true(e->losses[e->n_steps - 1] < 0.8 * e->losses[0]);
    assert_true(last_value(e) > 0.95);
    assert_false(same_tensor(e, "model.safetensors", "language_model.model.layers.0.mlp.up_proj.weight"));
    assert_false(same_tensor(e, "radz.safetensors", "gamma_img.linear_1.weight"));
    assert_true(same_tensor(e, "radz.safetensors", "gamma_txt.linear_1.weight")); /* no text is read */
}

static void another_objective_drops_the_head(void **state)
{
    env *e = *state;
    classify_head_only(e);
    run_well(e);
    char *again = strdup(fixture_path(e->dir, "again"));
    e->o.objective = "radz", e->o.model_dir = e->out, e->o.out_dir = again, e->o.train = NULL, e->o.epochs = 0.5;
    run_well(e);
    char *json = fixture_read(fixture_path(again, "radz.json"), NULL);
    assert_null(strstr(json, "\"classes\""));
    assert_null(strstr(json, "\"can_write\"")); /* it began with weights that may have been taught */
    free(json);
    free(again);
}

/* Vectors learned from nothing: a decoder that no text has taught says so. */
static void without_weights_it_cannot_write(void **state)
{
    env *e = *state;
    fixture_remove(fixture_path(e->model, "model.safetensors"));
    fixture_remove(fixture_path(e->model, "radz.safetensors"));
    e->o.objective = "radz", e->o.epochs = 0.5;
    run_well(e);
    radz_model *model;
    radz_session *session;
    char *text, *json = fixture_read(fixture_path(e->dir, "out/radz.json"), NULL);
    assert_non_null(strstr(json, "\"can_write\": false"));
    free(json);
    assert_int_equal(radz_model_open(NULL, e->out, NULL, &model, &err), RADZ_OK);
    assert_int_equal(radz_session_open(model, NULL, &session, &err), RADZ_OK);
    assert_int_equal(radz_generate(session, NULL, "a", NULL, &text, &err), RADZ_E_MISMATCH);
    radz_session_close(session);
    radz_model_close(model);
}

/* ---- Answers --------------------------------------------------------------------------------------- */

static void generate(env *e)
{
    e->o.objective = "generate", e->o.lr = 5e-3;
}

static void answers_become_likely(void **state)
{
    env *e = *state;
    generate(e);
    run_well(e);
    double first = NAN;
    for (size_t i = e->n_steps; i-- > 0;)
        if (!isnan(e->values[i])) first = e->values[i];
    assert_true(e->losses[e->n_steps - 1] < 0.75 * e->losses[0]);
    assert_true(last_value(e) > first); /* exp(-validation loss) */
    assert_false(same_tensor(e, "model.safetensors", "language_model.model.norm.weight"));
    assert_false(same_tensor(e, "model.safetensors", "language_model.lm_head.weight"));
    assert_true(same_tensor(e, "radz.safetensors", "gamma_img.linear_1.weight"));
    char *report = fixture_read(fixture_path(e->dir, "out/train.json"), NULL);
    assert_non_null(strstr(report, "\"validation\":{\"loss\":"));
    free(report);
}

static void parts_of_a_batch_make_the_same_step(void **state)
{
    env *e = *state;
    double whole[3];
    generate(e);
    e->o.epochs = 1.5;
    run_well(e);
    memcpy(whole, e->losses, sizeof whole);
    char *parts = strdup(fixture_path(e->dir, "parts"));
    e->o.out_dir = parts, e->o.micro_batch = 3;
    run_well(e);
    for (size_t i = 0; i < 3; i++) assert_true(fabs(whole[i] - e->losses[i]) < 1e-4 * whole[i]);
    free(parts);
}

static void resumed_runs_are_bit_identical(void **state)
{
    env *e = *state;
    static const char *const objectives[] = {"classify", "generate"};
    for (size_t i = 0; i < RZ_COUNT(objectives); i++) {
        char a[16], b[16];
        snprintf(a, sizeof a, "whole%zu", i);
        snprintf(b, sizeof b, "parts%zu", i);
        char *whole = strdup(fixture_path(e->dir, a)), *parts = strdup(fixture_path(e->dir, b));
        e->o.objective = objectives[i], e->o.lr = 5e-3, e->o.epochs = 4, e->o.out_dir = whole;
        e->o.resume = 0, e->o.stop_after_steps = 0;
        run_well(e);
        e->o.out_dir = parts, e->o.stop_after_steps = 3;
        run_well(e);
        e->o.resume = 1, e->o.stop_after_steps = 0;
        run_well(e);
        same_files(e, a, b);
        free(whole);
        free(parts);
    }
}

/* ---- What goes wrong ------------------------------------------------------------------------------------- */

static void bad_manifests_are_refused(void **state)
{
    env *e = *state;
    static const char *const bad[][2] = {{"path,labels,prompt\nfilm0.png,Ill,Is it?\n", "a column prompt"},
                                         {"path,prompt,answer\nfilm0.png,Is it?,\n", "without an answer"},
                                         {"path,prompt\nfilm0.png,Is it?\n", "a column prompt"}};
    generate(e);
    e->o.stop_on_bad_row = 1;
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        fixture_write_text(e->manifest, bad[i][0]);
        if (!run(e) || !strstr(err.message, bad[i][1])) fail_msg("%zu: %s", i, err.message);
    }
    e->o.objective = "gradz";
    assert_int_equal(run(e), RADZ_E_ARGUMENT);
    assert_non_null(strstr(err.message, "gradz"));
}

static void answers_alone_are_enough(void **state)
{
    env *e = *state;
    generate(e);
    e->o.batch_size = 2, e->o.epochs = 2;
    fixture_write_text(e->manifest, "path,prompt,answer\nfilm0.png,Is it bright?,no\nfilm1.png,<image> bright?,yes\n");
    run_well(e);
    assert_true(e->n_steps == 2 && isfinite(e->losses[1]));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_head_alone_is_learned),
        TEST(a_trained_head_classifies),
        TEST(the_rest_may_learn_too),
        TEST(another_objective_drops_the_head),
        TEST(without_weights_it_cannot_write),
        TEST(answers_become_likely),
        TEST(parts_of_a_batch_make_the_same_step),
        TEST(resumed_runs_are_bit_identical),
        TEST(bad_manifests_are_refused),
        TEST(answers_alone_are_enough),
    };
    return cmocka_run_group_tests_name("supervised", tests, NULL, NULL);
}
