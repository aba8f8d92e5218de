/* test_train_safe.c - training that is killed, refused a write or asked to go on with something else: no bit is lost.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk_faults.h"
#include "fixture.h"
#include "train_fixture.h"

static train_env e;
static radz_error err;
static double last_loss;

static int on_progress(const radz_train_progress *p, void *user)
{
    (void)user;
    last_loss = p->loss;
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    train_env_open(&e);
    fixture_model(e.model, 5);
    e.o.progress_fn = on_progress;
    e.o.epochs = 2, e.o.batch_size = 4, e.o.accumulate = 2, e.o.micro_batch = 3, e.o.weights = "bf16"; /* 4 steps */
    e.o.lora_rank = 2, e.o.lora_alpha = 4, e.o.lora_dropout = 0.3, e.o.learn_tau = 1;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    train_env_close(&e);
    return 0;
}

static radz_status open_run(rz_device **dev, rz_trainer **t)
{
    rz_device_options cpu = {.device = "cpu", .n_threads = 1};
    *dev = NULL, *t = NULL;
    radz_status st = rz_device_open(NULL, &cpu, dev, &err);
    return st ? st : rz_trainer_open(NULL, *dev, &e.o, t, &err);
}

static radz_status run(void)
{
    rz_device *dev;
    rz_trainer *t;
    radz_status st = open_run(&dev, &t);
    if (!st) st = rz_trainer_run(t, &err);
    rz_trainer_close(t);
    rz_device_close(dev);
    return st;
}

static void good(radz_status st)
{
    if (st) fail_msg("%s", err.message);
}

static void again(const char *out)
{
    free((char *)(uintptr_t)e.o.out_dir);
    e.o.out_dir = strdup(fixture_path(e.dir, out));
    e.o.resume = 0, e.o.stop_after_steps = 0;
}

static void same(const char *a, const char *b)
{
    size_t n, m;
    char *x = fixture_read(fixture_path(e.dir, a), &n), *y = fixture_read(fixture_path(e.dir, b), &m);
    if (n != m || memcmp(x, y, n) != 0) fail_msg("%s and %s differ", a, b);
    free(x), free(y);
}

static void same_run(const char *a, const char *b)
{
    static const char *const files[] = {"adapter_model.safetensors", "radz.safetensors", "anchors.safetensors",
                                        "radz.json"};
    for (size_t i = 0; i < RZ_COUNT(files); i++) {
        char x[64], y[64];
        snprintf(x, sizeof x, "%s/%s", a, files[i]), snprintf(y, sizeof y, "%s/%s", b, files[i]);
        same(x, y);
    }
}

/* ---- Going on ------------------------------------------------------------------------------------------- */

static void everything_at_once_resumes_to_the_same_bits(void **state)
{
    (void)state;
    good(run());
    for (int stop = 1; stop < 4; stop++) {
        again(stop == 1 ? "p1" : stop == 2 ? "p2" : "p3");
        e.o.stop_after_steps = stop;
        good(run());
        e.o.stop_after_steps = 0, e.o.resume = 1;
        good(run());
        same_run("out", strrchr(e.o.out_dir, '/') + 1);
    }
}

static void other_settings_cannot_go_on(void **state)
{
    (void)state;
    char *settings = strdup(fixture_path(e.dir, "settings.json"));
    char *text = fixture_read(fixture_path(e.model, "radz.json"), NULL);
    rz_str s = {0};
    rz_str_printf(&s, "%s\n", text);
    fixture_write_text(settings, text);
    e.o.settings = settings, e.o.stop_after_steps = 1;
    good(run());
    e.o.resume = 1, e.o.stop_after_steps = 2;
    good(run());
    fixture_write_text(settings, s.data);
    assert_int_equal(run(), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "cannot go on: 'settings_sha256' was '"));
    e.o.settings = NULL;
    assert_int_equal(run(), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "'settings_sha256'"));
    e.o.settings = settings, e.o.lora_dropout = 0.2;
    fixture_write_text(settings, text);
    assert_int_equal(run(), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "'lora_dropout' was '0.3' and is '0.2' now"));
    e.o.settings = NULL;
    rz_str_free(&s);
    free(text), free(settings);
}

/* ---- Files of one save ----------------------------------------------------------------------------------- */

static radz_status open_out(const char *name)
{
    radz_model *model;
    radz_status st = radz_model_open(NULL, fixture_path(e.dir, name), NULL, &model, &err);
    radz_model_close(model);
    return st;
}

static void copy(const char *from, const char *to, const char *name)
{
    size_t n;
    char *bytes = fixture_read(fixture_path(fixture_path(e.dir, from), name), &n);
    fixture_write(fixture_path(fixture_path(e.dir, to), name), bytes, n);
    free(bytes);
}

/* A file of another save with the same shapes must not pass for one of this; one that is of no save may. */
static void mixed(const char *weights)
{
    good(run());
    again("other");
    e.o.seed++;
    good(run());
    good(open_out("out")), good(open_out("other"));
    copy("other", "out", "radz.safetensors");
    assert_int_equal(open_out("out"), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "is of another save than the files beside it"));
    copy("other", "out", weights);
    good(open_out("out"));
    copy("model", "out", "radz.safetensors");
    good(open_out("out"));
}

static void files_of_two_adapters_do_not_mix(void **state)
{
    (void)state;
    mixed("adapter_model.safetensors");
}

static void files_of_two_models_do_not_mix(void **state)
{
    (void)state;
    e.o.merge_lora = 1;
    mixed("model.safetensors");
}

/* Alpha is in the configuration alone: the old one must not meet the new weights. */
static void a_configuration_of_before_goes_first(void **state)
{
    (void)state;
    good(run());
    fixture_remove(fixture_path(e.o.out_dir, "checkpoint"));
    e.o.lora_alpha = 8, e.o.resume = 1;
    rz_device *dev;
    rz_trainer *t;
    good(open_run(&dev, &t));
    char *path = strdup(fixture_path(e.o.out_dir, "adapter_model.safetensors"));
    fixture_remove(path);
    assert_int_equal(mkdir(path, 0777), 0); /* in the way */
    assert_int_equal(rz_train_export(t, &err), RADZ_E_IO);
    assert_false(rz_path_exists(fixture_path(e.o.out_dir, "adapter_config.json")));
    rz_trainer_close(t);
    rz_device_close(dev);
    free(path);
}

/* ---- Dropout belongs to the item, not to the part of the batch it is in --------------------------------- */

static float *gradients(int micro_batch, size_t *n)
{
    rz_device *dev;
    rz_trainer *t;
    radz_train_progress p = {0};
    e.o.micro_batch = micro_batch;
    good(open_run(&dev, &t));
    good(rz_train_step(t, &p, &err)); /* B of LoRA starts at 0: only after a step does A have gradients */
    good(rz_train_step(t, &p, &err));
    *n = t->optimizer.n_floats;
    float *g = calloc(*n, sizeof *g);
    rz_download(t->s, g, t->optimizer.grad, *n * sizeof *g);
    good(rz_stream_sync(t->s, &err));
    rz_trainer_close(t);
    rz_device_close(dev);
    return g;
}

static double distance(const float *a, const float *b, size_t n)
{
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) diff += pow((double)a[i] - b[i], 2), norm += pow(a[i], 2);
    assert_true(norm > 0);
    return sqrt(diff / norm);
}

static void micro_batches_drop_the_same(void **state)
{
    (void)state;
    size_t n, m;
    e.o.weights = "f32", e.o.lr = 1e-4;
    float *one = gradients(0, &n);
    static const int sizes[] = {1, 3, 5};
    for (size_t i = 0; i < RZ_COUNT(sizes); i++) {
        float *parts = gradients(sizes[i], &m);
        assert_int_equal(n, m);
        double d = distance(one, parts, n);
        if (!(d <= 1e-5)) fail_msg("micro batches of %d: %g", sizes[i], d);
        free(parts);
    }
    e.o.lora_dropout = 0;
    float *dry = gradients(0, &m);
    assert_true(distance(one, dry, n) > 1e-3); /* there was dropout */
    free(dry), free(one);
}

/* ---- Killed at every call of a save ----------------------------------------------------------------------- */

typedef radz_status saver(rz_trainer *t);

static radz_status save_checkpoint(rz_trainer *t)
{
    return rz_checkpoint_save(t->checkpoint_path, &t->optimizer, t->s, &t->state, t->options_json, &err);
}

static radz_status save_best(rz_trainer *t)
{
    return rz_train_export(t, &err);
}

/* Takes the run from its checkpoint one step on and saves, in a child that dies at call `at`; false when the save had
 * no such call. */
static bool die_at(saver *save, fault what, int at)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        rz_device *dev; /* devices do not outlive a fork */
        rz_trainer *t;
        radz_train_progress p = {0};
        bool failed = open_run(&dev, &t) || rz_train_step(t, &p, &err);
        plan.what = what, plan.at = at, plan.calls = 0;
        failed = failed || save(t) != RADZ_OK;
        if (failed) dprintf(STDERR_FILENO, "call %d: %s\n", at, err.message);
        _exit(failed);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return true;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return false;
}

static void stop_at_step_2(void)
{
    fixture_remove(e.o.out_dir);
    e.o.resume = 0, e.o.stop_after_steps = 2;
    good(run());
    e.o.resume = 1, e.o.stop_after_steps = 0;
}

static int64_t checkpoint_step(int at)
{
    rz_device *dev;
    rz_trainer *t;
    if (open_run(&dev, &t)) fail_msg("killed at call %d: %s", at, err.message);
    int64_t step = t->state.step;
    rz_trainer_close(t);
    rz_device_close(dev);
    return step;
}

/* After every kill the checkpoint is of step 2 or of step 3, and the run ends as if nothing had been. */
static void kill_everywhere(saver *save)
{
    good(run());
    again("late");
    int at = 1, n_old = 0;
    stop_at_step_2();
    for (; die_at(save, at % 2 ? KILL_BEFORE : KILL_AFTER, at); at++) {
        int64_t step = checkpoint_step(at);
        if (step != 2 && step != 3) fail_msg("killed at call %d: step %d", at, (int)step);
        n_old += step == 2;
        good(run());
        same_run("out", "late");
        stop_at_step_2();
    }
    assert_true(at > 5 && n_old > 2);
}

static void a_killed_checkpoint_is_the_old_or_the_new(void **state)
{
    (void)state;
    kill_everywhere(save_checkpoint);
}

static void a_killed_export_is_written_again(void **state)
{
    (void)state;
    kill_everywhere(save_best);
}

static void a_checkpoint_that_cannot_be_written_leaves_the_old(void **state)
{
    (void)state;
    static const int errors[] = {ENOSPC, EIO};
    rz_device *dev;
    rz_trainer *t;
    radz_train_progress p = {0};
    stop_at_step_2();
    good(open_run(&dev, &t));
    good(rz_train_step(t, &p, &err));
    size_t n, m;
    char *path = strdup(t->checkpoint_path), *old = fixture_read(path, &n);
    for (size_t k = 0; k < RZ_COUNT(errors); k++) {
        int n_refused = 0;
        for (plan.at = 1;; plan.at++) {
            fixture_write(path, old, n);
            plan.what = ERROR, plan.errnum = errors[k], plan.calls = 0, plan.hit = NULL;
            radz_status st = save_checkpoint(t);
            plan.what = NONE;
            if (!plan.hit) break;
            if (!st || !strcmp(plan.hit, "fsync")) continue; /* the folder's own fsync comes after the new file */
            assert_int_equal(st, RADZ_E_IO);
            assert_true(err.message[0] && !strchr(err.message, '\n'));
            char *now = fixture_read(path, &m);
            assert_int_equal(n, m);
            assert_memory_equal(now, old, n);
            free(now);
            n_refused++;
        }
        assert_true(n_refused > 2);
    }
    fixture_write(path, old, n);
    plan.what = SHORT, plan.at = 2, plan.calls = 0, plan.hit = NULL;
    good(save_checkpoint(t));
    plan.what = NONE;
    assert_non_null(plan.hit);
    char *now = fixture_read(path, &m);
    assert_int_equal(n, m);
    assert_true(memcmp(now, old, n) != 0);
    rz_trainer_close(t), rz_device_close(dev);
    good(run());
    free(now), free(old), free(path);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(everything_at_once_resumes_to_the_same_bits),
        TEST(other_settings_cannot_go_on),
        TEST(files_of_two_adapters_do_not_mix),
        TEST(files_of_two_models_do_not_mix),
        TEST(a_configuration_of_before_goes_first),
        TEST(micro_batches_drop_the_same),
        TEST(a_killed_checkpoint_is_the_old_or_the_new),
        TEST(a_killed_export_is_written_again),
        TEST(a_checkpoint_that_cannot_be_written_leaves_the_old),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
