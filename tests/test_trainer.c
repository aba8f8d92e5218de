/* test_trainer.c - the trainer's machinery: parts of a batch, several processes, what is left out, what is paired.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "train_fixture.h"

static train_env e;

static int set_up(void **state)
{
    (void)state;
    train_env_open(&e);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    train_env_close(&e);
    return 0;
}

/* ---- One process's part of a run ------------------------------------------------------------------- */

typedef struct job {
    radz_train_options o;
    radz_error err;
    radz_status status;
    double loss; /* of the last step */
    int64_t n_steps, cancel_at, n_bad;
    float *gradients; /* of the last step; the caller frees */
    size_t n;
} job;

static int on_progress(const radz_train_progress *p, void *user)
{
    job *x = user;
    x->loss = p->loss;
    x->n_bad = p->n_bad_rows;
    x->n_steps++;
    return x->cancel_at && p->step >= x->cancel_at;
}

static void take_gradients(job *x, rz_trainer *t)
{
    x->n = t->optimizer.n_floats;
    x->gradients = calloc(x->n, sizeof *x->gradients);
    rz_download(t->s, x->gradients, t->optimizer.grad, x->n * sizeof *x->gradients);
    if (rz_stream_sync(t->s, &x->err)) x->status = RADZ_E_INTERNAL;
}

static void *run_job(void *arg)
{
    job *x = arg;
    rz_device_options cpu = {.device = "cpu", .n_threads = 1};
    rz_device *dev = NULL;
    rz_trainer *t = NULL;
    x->o.progress_fn = on_progress, x->o.user = x;
    x->status = rz_device_open(NULL, &cpu, &dev, &x->err);
    if (!x->status) x->status = rz_trainer_open(NULL, dev, &x->o, &t, &x->err);
    if (!x->status) x->status = rz_trainer_run(t, &x->err);
    if (!x->status && x->n_steps) take_gradients(x, t);
    rz_trainer_close(t);
    rz_device_close(dev);
    return NULL;
}

static void good(const job *x)
{
    if (x->status) fail_msg("%s", x->err.message);
}

static job run_alone(void)
{
    job x = {.o = e.o};
    run_job(&x);
    return x;
}

static void expect(radz_status status, const char *says)
{
    job x = run_alone();
    free(x.gradients);
    if (x.status != status || !strstr(x.err.message, says)) fail_msg("%d: %s", x.status, x.err.message);
}

/* ---- Processes, played by threads --------------------------------------------------------------------- */

typedef struct meeting {
    pthread_barrier_t barrier;
    int size;
    const void *mine[4];
} meeting;

typedef struct seat {
    meeting *m;
    int rank;
    radz_comm comm;
} seat;

static int sum_f32(float *values, size_t n, void *user)
{
    seat *s = user;
    float *sum = calloc(n, sizeof *sum);
    s->m->mine[s->rank] = values;
    pthread_barrier_wait(&s->m->barrier);
    for (int r = 0; r < s->m->size; r++)
        for (size_t i = 0; i < n; i++) sum[i] += ((const float *)s->m->mine[r])[i];
    pthread_barrier_wait(&s->m->barrier);
    memcpy(values, sum, n * sizeof *sum);
    free(sum);
    return 0;
}

static int gather(const void *mine, size_t n_bytes, void *all, void *user)
{
    seat *s = user;
    s->m->mine[s->rank] = mine;
    pthread_barrier_wait(&s->m->barrier);
    for (int r = 0; r < s->m->size; r++) memcpy((char *)all + (size_t)r * n_bytes, s->m->mine[r], n_bytes);
    pthread_barrier_wait(&s->m->barrier);
    return 0;
}

/* jobs[0 .. n - 1]: the options of each process. */
static void run_together(job *jobs, int n)
{
    meeting m = {.size = n};
    seat seats[4];
    pthread_t threads[4];
    assert_int_equal(pthread_barrier_init(&m.barrier, NULL, (unsigned)n), 0);
    for (int r = 0; r < n; r++) {
        seats[r] = (seat){&m, r, {sizeof(radz_comm), r, n, sum_f32, gather, &seats[r]}};
        jobs[r].o.comm = &seats[r].comm;
        assert_int_equal(pthread_create(&threads[r], NULL, run_job, &jobs[r]), 0);
    }
    for (int r = 0; r < n; r++) pthread_join(threads[r], NULL);
    pthread_barrier_destroy(&m.barrier);
}

static void close_to(const float *a, const float *b, size_t n, double tolerance)
{
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) diff += pow((double)a[i] - b[i], 2), norm += pow(a[i], 2);
    if (!(sqrt(diff) <= tolerance * sqrt(norm)) || !(norm > 0)) fail_msg("%g of %g", sqrt(diff), sqrt(norm));
}

static void some_processes_are_as_good_as_one(int n, int micro_batch, int accumulate)
{
    e.o.stop_after_steps = 1, e.o.learn_tau = 1, e.o.accumulate = accumulate;
    fixture_remove(e.o.out_dir);
    job one = run_alone(), many[4];
    good(&one);
    fixture_remove(e.o.out_dir);
    for (int r = 0; r < n; r++) many[r] = (job){.o = e.o};
    for (int r = 0; r < n; r++) many[r].o.micro_batch = micro_batch;
    run_together(many, n);
    for (int r = 0; r < n; r++) {
        good(&many[r]);
        assert_true(fabs(many[r].loss - one.loss) < 1e-5 * fabs(one.loss));
        assert_int_equal(many[r].n, one.n);
        close_to(one.gradients, many[r].gradients, one.n, 1e-5);
        free(many[r].gradients);
    }
    free(one.gradients);
}

static void processes_share_a_batch(void **state)
{
    (void)state;
    some_processes_are_as_good_as_one(2, 0, 1);
    some_processes_are_as_good_as_one(3, 2, 2);
}

static void more_processes_than_films(void **state)
{
    (void)state;
    e.o.batch_size = 3;
    some_processes_are_as_good_as_one(4, 0, 1);
}

static double last_loss_of_two(int64_t stop_after, int resume)
{
    job two[2];
    for (int r = 0; r < 2; r++) {
        two[r] = (job){.o = e.o};
        two[r].o.stop_after_steps = stop_after, two[r].o.resume = resume;
    }
    run_together(two, 2);
    for (int r = 0; r < 2; r++) {
        good(&two[r]);
        free(two[r].gradients);
    }
    assert_true(two[0].loss == two[1].loss);
    return two[0].loss;
}

static void several_processes_go_on_from_a_checkpoint(void **state)
{
    (void)state;
    e.o.epochs = 2;
    fixture_write_text(fixture_path(e.dir, "film2.png"), "no film"); /* of one of the two */
    job one = run_alone();
    good(&one);
    free(one.gradients);
    fixture_remove(e.o.out_dir);
    double whole = last_loss_of_two(0, 0);
    assert_true(fabs(whole - one.loss) < 1e-3 * fabs(one.loss));
    fixture_remove(e.o.out_dir);
    last_loss_of_two(2, 0);
    assert_true(last_loss_of_two(0, 1) == whole);
}

/* Nobody waits for a process that has failed. */
static void one_failure_ends_all(void **state)
{
    (void)state;
    job two[2] = {{.o = e.o}, {.o = e.o}};
    two[1].o.manifest = "/nowhere.csv";
    run_together(two, 2);
    for (int r = 0; r < 2; r++) assert_int_equal(two[r].status, RADZ_E_IO);
    assert_non_null(strstr(two[0].err.message, "process 1 of 2: /nowhere.csv"));
    two[0] = two[1] = (job){.o = e.o};
    two[1].o.lr = 1;
    run_together(two, 2);
    for (int r = 0; r < 2; r++) assert_int_equal(two[r].status, RADZ_E_MISMATCH);
    two[0] = two[1] = (job){.o = e.o};
    two[1].cancel_at = 3;
    run_together(two, 2);
    for (int r = 0; r < 2; r++) assert_int_equal(two[r].status, RADZ_E_CANCELLED);
    assert_int_equal(two[0].n_steps, 3);
    fixture_remove(e.o.out_dir);
    fixture_write_text(fixture_path(e.dir, "file"), "in the way");
    two[0] = two[1] = (job){.o = e.o};
    two[0].o.out_dir = two[1].o.out_dir = fixture_path(e.dir, "file/out");
    run_together(two, 2);
    for (int r = 0; r < 2; r++) assert_int_equal(two[r].status, RADZ_E_IO);
}

/* ---- Accumulation ----------------------------------------------------------------------------------------- */

static void accumulated_gradients_are_averaged(void **state)
{
    (void)state;
    e.o.stop_after_steps = 1, e.o.augment = 0, e.o.lr = 0;
    e.o.accumulate = 2;
    job both = run_alone();
    good(&both);
    fixture_remove(e.o.out_dir);
    e.o.accumulate = 1;
    job first = run_alone();
    fixture_remove(e.o.out_dir);
    e.o.stop_after_steps = 2; /* with a learning rate of 0 the weights stay */
    job second = run_alone();
    good(&first), good(&second);
    for (size_t i = 0; i < first.n; i++) first.gradients[i] = 0.5f * (first.gradients[i] + second.gradients[i]);
    close_to(both.gradients, first.gradients, both.n, 1e-6);
    assert_true(fabs(both.loss - 0.5 * (first.loss + second.loss)) < 1e-9);
    free(first.gradients), free(second.gradients), free(both.gradients);
}

/* ---- Settings ------------------------------------------------------------------------------------------------ */

static char *report(void)
{
    return fixture_read(fixture_path(e.o.out_dir, "train.json"), NULL);
}

/* Its hash. */
static char *keep_file(const char *name)
{
    size_t n;
    rz_sha256 h;
    char *bytes = fixture_read(fixture_path(e.o.out_dir, name), &n), hex[65];
    rz_sha256_init(&h);
    rz_sha256_put(&h, bytes, n);
    rz_sha256_hex(&h, hex);
    free(bytes);
    return strdup(hex);
}

static void without_anchors_sentences_score(void **state)
{
    (void)state;
    e.o.lambda = 1, e.o.epochs = 20;
    job x = run_alone();
    good(&x);
    free(x.gradients);
    char *json = report();
    assert_non_null(strstr(json, "\"anchors\":\"class sentences\""));
    const char *auc = strstr(json, "\"macro_auc\":");
    assert_non_null(auc);
    assert_true(atof(auc + strlen("\"macro_auc\":")) > 0.95);
    free(json);
}

static void every_setting_trains(void **state)
{
    (void)state;
    static const char *const features[] = {"cross", "global", "local"}, *const targets[] = {"labels", "batch_index"};
    double seen[6];
    size_t n = 0;
    e.o.stop_after_steps = 1;
    for (size_t f = 0; f < 3; f++)
        for (size_t k = 0; k < 2; k++) {
            e.o.features = features[f], e.o.targets = targets[k];
            fixture_remove(e.o.out_dir);
            job x = run_alone();
            good(&x);
            free(x.gradients);
            for (size_t i = 0; i < n; i++) assert_true(seen[i] != x.loss);
            seen[n++] = x.loss;
        }
    fixture_remove(e.o.out_dir);
    e.o.features = "sideways";
    expect(RADZ_E_ARGUMENT, "features 'sideways': expected one of cross, global, local");
    e.o.features = NULL, e.o.targets = "none";
    expect(RADZ_E_ARGUMENT, "targets 'none'");
}

/* ---- Rows ------------------------------------------------------------------------------------------------------ */

static void open_rows(double fraction, uint64_t seed, rz_dataset *ds)
{
    static const char *const classes[] = {"No Finding", "Ill", "Rare"};
    static rz_model model;
    model.cfg.radz.label_text = (char *)(uintptr_t) "{labels}";
    rz_dataset_options o = {.manifest = e.manifest,
                            .classes = classes,
                            .n_classes = 3,
                            .model = &model,
                            .label_fraction = fraction,
                            .seed = seed};
    radz_error err;
    if (rz_dataset_open(NULL, &o, ds, &err)) fail_msg("%s", err.message);
}

static bool has_line(const rz_dataset *ds, size_t line)
{
    for (size_t i = 0; i < ds->n_train; i++)
        if (ds->rows[i].line == line) return true;
    return false;
}

static size_t count_class(const rz_dataset *ds, size_t c)
{
    size_t n = 0;
    for (size_t i = 0; i < ds->n_train; i++) n += rz_dataset_has_class(ds, &ds->rows[i], c);
    return n;
}

static void shares_of_the_labels_are_stratified_and_nested(void **state)
{
    (void)state;
    rz_str s = {0};
    rz_str_puts(&s, "path,labels,split\n");
    for (int i = 0; i < 200; i++) rz_str_printf(&s, "a%d.png,%s,train\n", i, i % 4 ? "No Finding" : "Ill");
    rz_str_puts(&s, "b.png,Rare,train\nc.png,Ill,val\n");
    fixture_write_text(e.manifest, s.data);
    rz_str_free(&s);
    rz_dataset small, large, other, all;
    open_rows(0.1, 5, &small), open_rows(0.4, 5, &large), open_rows(0.1, 6, &other), open_rows(1, 5, &all);
    assert_int_equal(all.n_train, 201);
    assert_int_equal(all.n_thinned, 0);
    assert_int_equal(count_class(&small, 0), 15);
    assert_int_equal(count_class(&small, 1), 5);
    assert_int_equal(count_class(&small, 2), 1); /* at least one */
    assert_int_equal(small.n_thinned, 180);
    assert_int_equal(count_class(&large, 0), 60);
    assert_int_equal(small.n_val, 1);
    size_t n_same = 0;
    for (size_t i = 0; i < small.n_train; i++) {
        assert_true(has_line(&large, small.rows[i].line));
        n_same += has_line(&other, small.rows[i].line);
    }
    assert_true(n_same < small.n_train);
    rz_dataset_close(&small), rz_dataset_close(&large), rz_dataset_close(&other), rz_dataset_close(&all);
}

static void malformed_rows_are_counted_or_stop(void **state)
{
    (void)state;
    fixture_write_text(e.manifest, "path,labels\nfilm0.png,Normal\nfilm1.png\n,Ill\nfilm3.png,Ill\nfilm5.png,Ill,x\n");
    e.o.batch_size = 2, e.o.epochs = 1;
    job x = run_alone();
    good(&x);
    free(x.gradients);
    char *json = report();
    assert_non_null(strstr(json, "{\"manifest\":5,\"train\":2,"));
    assert_non_null(strstr(json, "\"malformed\":3"));
    free(json);
    fixture_remove(e.o.out_dir);
    e.o.stop_on_bad_row = 1;
    expect(RADZ_E_FORMAT, "line 3: 1 fields, expected 2");
    fixture_write_text(e.manifest, "path,labels\nfilm0.png,Normal\n,Ill\n");
    expect(RADZ_E_FORMAT, "index.csv:3: empty path");
    fixture_write_text(e.manifest, "path,labels\nfilm0.png,Normal\nnothing.png,Ill\n");
    expect(RADZ_E_FORMAT, "manifest line 3: ");
}

/* ---- The public side ------------------------------------------------------------------------------------------- */

static void a_plan_changes_nothing(void **state)
{
    (void)state;
    radz_error err;
    radz_trainer *trainer;
    radz_train_plan plan = {.struct_size = sizeof plan};
    radz_runtime_options on_cpu;
    radz_runtime *runtime;
    radz_runtime_options_init(&on_cpu);
    on_cpu.device = "cpu"; /* as run_alone */
    if (radz_runtime_create(&on_cpu, &runtime, &err)) fail_msg("%s", err.message);
    if (radz_trainer_open(runtime, &e.o, &trainer, &err)) fail_msg("%s", err.message);
    if (radz_trainer_plan(trainer, 1, &plan, &err)) fail_msg("%s", err.message);
    assert_int_equal(plan.n_steps, 12);
    assert_int_equal(plan.n_train, 16);
    assert_true(plan.n_trained > 0 && plan.n_trained < plan.n_parameters);
    assert_true(plan.activation_bytes > 0 && plan.seconds_per_step > 0);
    assert_int_not_equal(access(e.o.out_dir, F_OK), 0);
    if (radz_trainer_run(trainer, &err)) fail_msg("%s", err.message);
    radz_trainer_close(trainer);
    radz_runtime_close(runtime);
    char *planned = keep_file("model.safetensors");
    fixture_remove(e.o.out_dir);
    job x = run_alone();
    good(&x);
    free(x.gradients);
    char *plain = keep_file("model.safetensors");
    assert_string_equal(planned, plain);
    free(planned), free(plain);
}

static void presets(void **state)
{
    (void)state;
    radz_error err;
    e.o.features = "local";
    assert_int_equal(radz_train_options_preset(&e.o, "refcode", &err), RADZ_OK);
    assert_string_equal(e.o.targets, "batch_index");
    assert_false(e.o.augment || e.o.mask_false_negatives);
    assert_int_equal(e.o.lora_rank, 128);
    assert_int_equal(e.o.accumulate, 2);
    assert_int_equal(radz_train_options_preset(&e.o, "paper", &err), RADZ_OK);
    assert_string_equal(e.o.targets, "labels");
    assert_true(e.o.augment && e.o.mask_false_negatives);
    assert_int_equal(radz_train_options_preset(&e.o, "best", &err), RADZ_E_ARGUMENT);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(processes_share_a_batch),
        TEST(more_processes_than_films),
        TEST(several_processes_go_on_from_a_checkpoint),
        TEST(one_failure_ends_all),
        TEST(accumulated_gradients_are_averaged),
        TEST(without_anchors_sentences_score),
        TEST(every_setting_trains),
        TEST(shares_of_the_labels_are_stratified_and_nested),
        TEST(malformed_rows_are_counted_or_stop),
        TEST(a_plan_changes_nothing),
        TEST(presets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
