/* test_train_integers.c - training that starts from weights of integers: LoRA beside them, whole weights in their
 * place; and what cannot be trained. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fixture.h"
#include "formats.h"
#include "run_program.h"
#include "train_fixture.h"

enum { MAX_STEPS = 12 };

static radz_error err;

/* What a run showed, by step. */
typedef struct seen {
    int n;
    double loss[MAX_STEPS], norm[MAX_STEPS];
} seen;

typedef struct env {
    train_env t;
    char *plain, *integers, *floats; /* the model; its integers; the same numbers as bfloat16 */
} env;

static void ok(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

static int on_progress(const radz_train_progress *p, void *user)
{
    seen *s = user;
    if (s->n < MAX_STEPS) s->loss[s->n] = p->loss, s->norm[s->n++] = p->grad_norm;
    return 0;
}

static radz_status train(const radz_train_options *o)
{
    radz_trainer *t = NULL;
    radz_status status = radz_trainer_open(NULL, o, &t, &err);
    if (!status) status = radz_trainer_run(t, &err);
    radz_trainer_close(t);
    return status;
}

static void quantize(const char *from, const char *to, const char *type)
{
    radz_quantize_options o;
    radz_quantize_options_init(&o);
    o.type = type, o.keep = "";
    ok(radz_model_quantize(NULL, from, to, &o, &err));
}

static int set_up(void **state)
{
    env *e = calloc(1, sizeof *e);
    train_env_open(&e->t);
    run_folder = e->t.dir;
    e->plain = strdup(fixture_path(e->t.dir, "plain"));
    e->integers = strdup(fixture_path(e->t.dir, "integers"));
    e->floats = strdup(fixture_path(e->t.dir, "floats"));
    assert_int_equal(mkdir(e->plain, 0700), 0);
    fixture_model(e->plain, 7);
    quantize(e->plain, e->integers, "int8");
    quantize(e->integers, e->floats, "bf16");
    *state = e;
    return 0;
}

static int tear_down(void **state)
{
    env *e = *state;
    train_env_close(&e->t);
    free(e->plain), free(e->integers), free(e->floats), free(e);
    return 0;
}

/* ---- LoRA ---- */

/* The gradients run through the numbers that the integers stand for. */
static void lora_beside_integers(void **state)
{
    env *e = *state;
    radz_train_options o = e->t.o;
    seen got = {0}, want = {0};
    radz_model *m;
    o.lora_rank = 4, o.lora_alpha = 8, o.lora_dropout = 0, o.progress_fn = on_progress;
    o.model_dir = e->floats, o.user = &want, o.out_dir = fixture_path(e->t.dir, "of-floats");
    ok(train(&o));
    o.model_dir = e->integers, o.user = &got, o.out_dir = e->t.o.out_dir;
    ok(train(&o));
    assert_int_equal(got.n, want.n);
    for (int i = 0; i < got.n; i++)
        if (fabs(got.loss[i] - want.loss[i]) > .02 * fabs(want.loss[i]) ||
            fabs(got.norm[i] - want.norm[i]) > .05 * want.norm[i])
            fail_msg("step %d: loss %.9g, norm %.9g; without integers %.9g, %.9g", i, got.loss[i], got.norm[i],
                     want.loss[i], want.norm[i]);
    assert_true(got.loss[got.n - 1] < got.loss[0]);
    ok(radz_model_open(NULL, o.out_dir, NULL, &m, &err)); /* an adapter, with the integers for a base */
    radz_model_close(m);
}

/* ---- Whole weights ---- */

static bool says_integers(const char *dir)
{
    json_t *config;
    ok(rz_json_load(NULL, fixture_path(dir, "config.json"), 1 << 20, &config, &err));
    const bool says = json_object_get(config, "quantization_config") != NULL;
    json_decref(config);
    return says;
}

/* Whole weights are floats, and the directory says so: no reader takes them for integers. */
static void whole_weights(void **state)
{
    env *e = *state;
    assert_true(says_integers(e->integers));
    for (int merge = 0; merge < 2; merge++) {
        radz_train_options o = e->t.o;
        radz_model_info info;
        radz_model *m;
        o.model_dir = e->integers, o.out_dir = fixture_path(e->t.dir, merge ? "merged" : "whole");
        o.lora_rank = merge ? 4 : 0, o.merge_lora = merge, o.epochs = 1;
        ok(train(&o));
        assert_false(says_integers(o.out_dir));
        ok(radz_model_open(NULL, o.out_dir, NULL, &m, &err));
        radz_model_info_init(&info);
        ok(radz_model_get_info(m, &info, &err));
        assert_string_equal(info.dtype, "f32");
        radz_model_close(m);
    }
}

/* ---- What cannot be ---- */

static void refusals(void **state)
{
    env *e = *state;
    static const char *const types[] = {"int8", "int4", "int8/64"};
    for (size_t i = 0; i < RZ_COUNT(types); i++) {
        radz_train_options o = e->t.o;
        o.weights = types[i];
        assert_int_equal(train(&o), RADZ_E_ARGUMENT);
        assert_non_null(strstr(err.message, "integers cannot be trained"));
        assert_non_null(strstr(err.message, "radz-quantize"));
    }
    const char *program = fixture_program("radz-train");
    const char *const argv[] = {program,       "--model", e->plain,       "--manifest", e->t.manifest, "--diseases",
                                e->t.diseases, "--out",   e->t.o.out_dir, "--memory",   "1G",          NULL};
    run r = run_program(argv, NULL, TO_FILE);
    run_expect(&r, 2, NULL, "--memory: weights that are read as they are needed cannot be trained");
    run_expect(&r, 2, NULL, "--micro-batch");
    run_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lora_beside_integers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(whole_weights, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refusals, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
