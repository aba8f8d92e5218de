/* test_beside_cpu.c - the device of RADZ_TEST_DEVICE beside the CPU: ten steps of training, a film's scores.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "fixture.h"
#include "train_fixture.h"

enum { STEPS = 10 };

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

/* ---- Training ---------------------------------------------------------------------------------------- */

typedef struct trace {
    double loss[STEPS], norm[STEPS];
    size_t n;
    float *weights;
    size_t n_weights;
} trace;

static int on_progress(const radz_train_progress *p, void *user)
{
    trace *t = user;
    if (t->n < STEPS) t->loss[t->n] = p->loss, t->norm[t->n] = p->grad_norm;
    t->n++;
    return 0;
}

static void take_weights(trace *t, rz_trainer *trainer)
{
    const rz_optimizer *o = &trainer->optimizer;
    t->weights = malloc(o->n_floats * sizeof *t->weights);
    assert_non_null(t->weights);
    for (size_t i = 0; i < o->n_slots; t->n_weights += o->slots[i++].p->n)
        rz_download(trainer->s, t->weights + t->n_weights, o->slots[i].w, o->slots[i].p->n * sizeof *t->weights);
    ok(rz_stream_sync(trainer->s, &err));
}

static void train_on(const char *device, const radz_train_options *options, trace *t)
{
    radz_train_options o = *options;
    rz_device *dev = NULL;
    rz_trainer *trainer = NULL;
    *t = (trace){.n = 0};
    o.progress_fn = on_progress, o.user = t;
    ok(rz_device_open(NULL, &(rz_device_options){.device = device, .n_threads = 2}, &dev, &err));
    ok(rz_trainer_open(NULL, dev, &o, &trainer, &err));
    ok(rz_trainer_run(trainer, &err));
    take_weights(t, trainer);
    rz_trainer_close(trainer);
    rz_device_close(dev);
    fixture_remove(o.out_dir);
}

/* Of the length of b: how far a is off. */
static double off(const float *a, const float *b, size_t n)
{
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) diff += pow((double)a[i] - b[i], 2), norm += pow(b[i], 2);
    return sqrt(diff / norm);
}

static void same_training(const radz_train_options *o, double tolerance)
{
    trace cpu, other;
    train_on("cpu", o, &cpu);
    train_on(fixture_device(), o, &other);
    assert_int_equal(cpu.n, STEPS);
    assert_int_equal(other.n, STEPS);
    for (size_t i = 0; i < STEPS; i++) {
        if (!(fabs(other.loss[i] - cpu.loss[i]) <= tolerance * fabs(cpu.loss[i])))
            fail_msg("step %zu: loss %.9g, on the CPU %.9g", i, other.loss[i], cpu.loss[i]);
        if (!(fabs(other.norm[i] - cpu.norm[i]) <= 10 * tolerance * cpu.norm[i]))
            fail_msg("step %zu: norm of the gradient %.9g, on the CPU %.9g", i, other.norm[i], cpu.norm[i]);
    }
    assert_int_equal(other.n_weights, cpu.n_weights);
    if (!(off(other.weights, cpu.weights, cpu.n_weights) <= tolerance))
        fail_msg("weights are off by %g", off(other.weights, cpu.weights, cpu.n_weights));
    free(cpu.weights), free(other.weights);
}

static void trains_alike(void **state)
{
    train_env e;
    (void)state;
    train_env_open(&e);
    e.o.stop_after_steps = STEPS, e.o.lr = 1e-3;
    same_training(&e.o, 1e-4);
    e.o.lora_rank = 4, e.o.lora_dropout = 0.1, e.o.recompute = 1;
    same_training(&e.o, 1e-4);
    train_env_close(&e);
}

/* ---- Inference ------------------------------------------------------------------------------------------- */

typedef struct scores {
    size_t n;
    char label[32][64];
    double probability[32];
} scores;

static scores score_on(const char *device, const char *film)
{
    radz_runtime_options o;
    radz_runtime *runtime;
    radz_model *model;
    radz_session *session;
    radz_result *result;
    scores s = {0};
    radz_runtime_options_init(&o);
    o.device = device, o.n_threads = 2;
    ok(radz_runtime_create(&o, &runtime, &err));
    ok(radz_model_open(runtime, "models/radz-tiny", NULL, &model, &err));
    ok(radz_session_open(model, NULL, &session, &err));
    ok(radz_classify_file(session, NULL, film, &result, &err));
    for (; s.n < radz_result_count(result) && s.n < 32; s.n++) {
        snprintf(s.label[s.n], sizeof s.label[0], "%s", radz_result_label(result, s.n));
        s.probability[s.n] = radz_result_probability(result, s.n);
    }
    radz_result_close(result);
    radz_session_close(session);
    radz_model_close(model);
    radz_runtime_close(runtime);
    return s;
}

static double of_label(const scores *s, const char *label)
{
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->label[i], label)) return s->probability[i];
    return -1;
}

/* The model that ships; a GPU may multiply its weights of bfloat16 as such. */
static void scores_alike(void **state)
{
    (void)state;
    const char *const film = "examples/data/nih_00006759_001.jpg";
    const scores cpu = score_on("cpu", film), other = score_on(fixture_device(), film);
    assert_true(cpu.n > 10 && other.n == cpu.n);
    for (size_t i = 0; i < cpu.n; i++)
        if (!(fabs(of_label(&other, cpu.label[i]) - cpu.probability[i]) <= 0.01))
            fail_msg("%s: %.4f, on the CPU %.4f", cpu.label[i], of_label(&other, cpu.label[i]), cpu.probability[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(trains_alike), cmocka_unit_test(scores_alike)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
