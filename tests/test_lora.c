/* test_lora.c - training a few numbers beside a checkpoint that stays as it is: LoRA, frozen parts, settings, and what
 * is written. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "model.h"
#include "optimizer.h"
#include "trainer.h"

#define N_FILMS 12

typedef struct env {
    char *dir;
    radz_train_options o;
    double first_loss, last_loss;
} env;

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

static char *keep_path(const env *e, const char *name)
{
    return strdup(fixture_path(e->dir, name));
}

static int on_progress(const radz_train_progress *p, void *user)
{
    env *e = user;
    if (p->step == 1) e->first_loss = p->loss;
    e->last_loss = p->loss;
    return 0;
}

static void write_data(const env *e)
{
    rz_str s = {0};
    rz_str_puts(&s, "path,labels,split\n");
    for (int i = 0; i < N_FILMS; i++) {
        char name[32];
        snprintf(name, sizeof name, "film%d.png", i);
        fixture_png(fixture_path(e->dir, name), 16, 16, 1, (uint64_t)i);
        rz_str_printf(&s, "%s,%s,%s\n", name, i % 2 ? "Ill" : "No Finding", i < 8 ? "train" : "val");
    }
    fixture_write_text(fixture_path(e->dir, "index.csv"), s.data);
    rz_str_free(&s);
    fixture_write_text(fixture_path(e->dir, "diseases.txt"), "No Finding: nothing to see\nIll: shadows all over\n");
}

static int set_up(void **state)
{
    env *e = calloc(1, sizeof *e);
    e->dir = fixture_temp_dir();
    char *model = keep_path(e, "model");
    assert_int_equal(mkdir(model, 0777), 0);
    fixture_model(model, 5);
    write_data(e);
    radz_train_options_init(&e->o);
    e->o.model_dir = model, e->o.manifest = keep_path(e, "index.csv"), e->o.diseases = keep_path(e, "diseases.txt");
    e->o.out_dir = keep_path(e, "out");
    e->o.epochs = 4, e->o.batch_size = 4, e->o.lr = 5e-3, e->o.seed = 3, e->o.lora_rank = 4, e->o.lora_alpha = 8;
    e->o.progress_fn = on_progress, e->o.user = e;
    *state = e;
    return 0;
}

static int tear_down(void **state)
{
    env *e = *state;
    fixture_remove(e->dir);
    const char *const paths[] = {e->o.model_dir, e->o.manifest, e->o.diseases, e->o.out_dir};
    for (size_t i = 0; i < RZ_COUNT(paths); i++) free((char *)(uintptr_t)paths[i]);
    free(e->dir);
    free(e);
    return 0;
}

static radz_status run(env *e)
{
    radz_runtime_options r;
    radz_runtime *runtime;
    radz_trainer *trainer = NULL;
    radz_runtime_options_init(&r);
    r.device = "cpu", r.n_threads = 2;
    ok(radz_runtime_create(&r, &runtime, &err));
    radz_status st = radz_trainer_open(runtime, &e->o, &trainer, &err);
    if (!st) st = radz_trainer_run(trainer, &err);
    radz_trainer_close(trainer);
    radz_runtime_close(runtime);
    return st;
}

static void set_out(env *e, const char *name)
{
    free((char *)(uintptr_t)e->o.out_dir);
    e->o.out_dir = keep_path(e, name);
}

static bool exists(const env *e, const char *name)
{
    return access(fixture_path(e->dir, name), F_OK) == 0;
}

/* The vector of a film; *model stays open where it is asked for. */
static void film_vector(const char *dir, const char *adapter, const char *film, float *v, radz_model **model)
{
    radz_model_options o;
    radz_model *m;
    radz_session *s;
    radz_image *image;
    radz_model_options_init(&o);
    o.adapter_dir = adapter;
    ok(radz_model_open(NULL, dir, &o, &m, &err));
    ok(radz_session_open(m, NULL, &s, &err));
    ok(radz_image_open(NULL, film, &image, &err));
    ok(radz_embed_images(s, (const radz_image *const *)&image, 1, NULL, v, &err));
    radz_image_close(image);
    radz_session_close(s);
    if (model)
        *model = m;
    else
        radz_model_close(m);
}

static void near(const float *a, const float *b, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= tolerance)) fail_msg("[%zu] %g, %g", i, (double)a[i], (double)b[i]);
}

/* ---- Tests ------------------------------------------------------------------------------------------ */

static void writes_an_adapter_that_opens(void **state)
{
    env *e = *state;
    float alone[8], with_base[8], base[8];
    radz_model *model;
    radz_bank *bank;
    ok(run(e));
    assert_true(e->last_loss < e->first_loss);
    assert_true(exists(e, "out/adapter_model.safetensors") && exists(e, "out/adapter_config.json"));
    assert_true(exists(e, "out/radz.json") && exists(e, "out/radz.safetensors") &&
                exists(e, "out/anchors.safetensors"));
    assert_false(exists(e, "out/model.safetensors") || exists(e, "out/config.json"));
    const char *film = strdup(fixture_path(e->dir, "film3.png"));
    film_vector(e->o.out_dir, NULL, film, alone, &model);
    ok(radz_bank_open(model, NULL, &bank, &err)); /* the bank belongs to base and adapter together */
    radz_bank_close(bank);
    radz_model_close(model);
    film_vector(e->o.model_dir, e->o.out_dir, film, with_base, NULL);
    film_vector(e->o.model_dir, NULL, film, base, NULL);
    assert_memory_equal(alone, with_base, sizeof alone);
    assert_true(memcmp(alone, base, sizeof base) != 0);
    free((char *)(uintptr_t)film);
}

/* Merged weights give the adapter's vectors, but for rounding. */
static void merges(void **state)
{
    env *e = *state;
    float adapter[8], merged[8];
    ok(run(e));
    char *first = strdup(e->o.out_dir), *film = strdup(fixture_path(e->dir, "film2.png"));
    set_out(e, "merged");
    e->o.merge_lora = 1;
    ok(run(e));
    assert_true(exists(e, "merged/model.safetensors") && exists(e, "merged/config.json"));
    assert_false(exists(e, "merged/adapter_config.json"));
    film_vector(first, NULL, film, adapter, NULL);
    film_vector(e->o.out_dir, NULL, film, merged, NULL);
    near(adapter, merged, 8, 1e-6);
    free(first), free(film);
}

static void same_file(const env *e, const char *a, const char *b)
{
    size_t n, k;
    char *x = fixture_read(fixture_path(e->dir, a), &n), *y = fixture_read(fixture_path(e->dir, b), &k);
    if (n != k || memcmp(x, y, n)) fail_msg("%s and %s differ", a, b);
    free(x), free(y);
}

/* Recomputed activations and small parts of a batch change no bit, dropout or not: masks belong to items. */
static void recomputed_runs_have_the_same_bits(void **state)
{
    env *e = *state;
    e->o.lora_dropout = 0.3, e->o.epochs = 2;
    ok(run(e));
    set_out(e, "again");
    e->o.recompute = 1;
    ok(run(e));
    same_file(e, "out/adapter_model.safetensors", "again/adapter_model.safetensors");
    same_file(e, "out/radz.safetensors", "again/radz.safetensors");
    set_out(e, "dry");
    e->o.lora_dropout = 0;
    ok(run(e));
    size_t n, k;
    char *x = fixture_read(fixture_path(e->dir, "out/adapter_model.safetensors"), &n);
    char *y = fixture_read(fixture_path(e->dir, "dry/adapter_model.safetensors"), &k);
    assert_true(n == k && memcmp(x, y, n) != 0); /* there was dropout */
    free(x), free(y);
}

/* A checkpoint that knows nothing of this library becomes a LLaVA-RadZ with the paper's settings. */
static void trains_a_plain_checkpoint(void **state)
{
    env *e = *state;
    float v[16];
    radz_model *m;
    radz_model_info info;
    remove(fixture_path(e->dir, "model/radz.json"));
    remove(fixture_path(e->dir, "model/radz.safetensors"));
    ok(run(e));
    film_vector(e->o.out_dir, NULL, fixture_path(e->dir, "film1.png"), v, &m);
    radz_model_info_init(&info);
    ok(radz_model_get_info(m, &info, &err));
    assert_int_equal(info.n_image_tokens, 4);
    assert_int_equal(info.n_text_tokens, 8);
    assert_int_equal(info.layer, -2);
    assert_int_equal(info.embedding_dim, 16);
    assert_true(fabs(info.tau - 0.05) < 1e-6);
    radz_model_close(m);
}

/* Settings over a model that has its own: what no longer fits is new, the rest stays. */
static void settings_replace_the_models(void **state)
{
    env *e = *state;
    float v[6];
    radz_model *m;
    radz_model_info info;
    char *settings = keep_path(e, "settings.json");
    fixture_write_text(settings,
                       "{\"schema\":\"radz.model/1\",\"special_tokens\":{\"image\":[\"<A>\",\"<B>\",\"<C>\"],"
                       "\"text\":[\"<D>\"]},\"layer\":-3,\"gamma\":{\"type\":\"mlp\",\"hidden\":12,\"dim\":6},"
                       "\"pool\":\"mlp_then_mean\"}");
    e->o.settings = settings, e->o.train = "decoder,projector";
    ok(run(e));
    assert_true(exists(e, "out/model.safetensors")); /* an adapter has no place for the decoder's own weights */
    film_vector(e->o.out_dir, NULL, fixture_path(e->dir, "film1.png"), v, &m);
    radz_model_info_init(&info);
    ok(radz_model_get_info(m, &info, &err));
    assert_int_equal(info.n_image_tokens, 3);
    assert_int_equal(info.n_text_tokens, 1);
    assert_int_equal(info.layer, -3);
    assert_int_equal(info.embedding_dim, 6);
    radz_model_close(m);
    free(settings);
}

static void refuses_bad_options(void **state)
{
    env *e = *state;
    e->o.train = "tower,head";
    assert_int_equal(run(e), RADZ_E_ARGUMENT);
    assert_non_null(strstr(err.message, "'head'"));
    e->o.train = NULL, e->o.lora_targets = "q_proj,fc1";
    assert_int_equal(run(e), RADZ_E_ARGUMENT);
    assert_non_null(strstr(err.message, "'fc1'"));
    e->o.lora_targets = NULL, e->o.weights = "f16";
    assert_int_equal(run(e), RADZ_E_ARGUMENT);
    e->o.weights = "f32", e->o.lora_dropout = 1;
    assert_int_equal(run(e), RADZ_E_ARGUMENT);
}

/* An adapter whose base has gone says so. */
static void a_base_that_is_not_there(void **state)
{
    env *e = *state;
    radz_model *m;
    ok(run(e));
    assert_int_equal(rename(e->o.model_dir, fixture_path(e->dir, "elsewhere")), 0);
    assert_int_equal(radz_model_open(NULL, e->o.out_dir, NULL, &m, &err), RADZ_E_IO);
    assert_non_null(strstr(err.message, "there is no model of that name here"));
    assert_null(m);
}

static void half_weights_learn(void **state)
{
    env *e = *state;
    e->o.lora_rank = 0, e->o.weights = "bf16", e->o.epochs = 10;
    ok(run(e));
    assert_true(e->last_loss < e->first_loss);
    assert_true(exists(e, "out/model.safetensors"));
}

/* LoRA beside matrices that stay as the files have them and multiply as bfloat16. */
static void lora_beside_half_products_learns(void **state)
{
    env *e = *state;
    rz_device_options o = {.device = fixture_device()};
    rz_device *dev;
    rz_trainer *t;
    e->o.weights = "bf16", e->o.epochs = 10;
    ok(rz_device_open(NULL, &o, &dev, &err));
    ok(rz_trainer_open(NULL, dev, &e->o, &t, &err));
    const rz_decoder_block *b = t->model->decoder;
    assert_int_equal(b->q.w->w.compute, RZ_BF16);
    assert_int_equal(b->q.w->w.dtype, RZ_F32);
    assert_int_equal(b->q.lora->a->w.compute, RZ_F32);
    assert_int_equal(t->model->tower->fc1.w->w.compute, RZ_BF16);
    ok(rz_trainer_run(t, &err));
    rz_trainer_close(t);
    rz_device_close(dev);
    assert_true(e->last_loss < e->first_loss);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writes_an_adapter_that_opens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(merges, set_up, tear_down),
        cmocka_unit_test_setup_teardown(recomputed_runs_have_the_same_bits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(trains_a_plain_checkpoint, set_up, tear_down),
        cmocka_unit_test_setup_teardown(settings_replace_the_models, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_bad_options, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_base_that_is_not_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(half_weights_learn, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lora_beside_half_products_learns, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
