/* test_plan.c - what a training run is said to take, guessed and after one step, against what its process took.
 * SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base.h"
#include "fixture.h"
#include "trainer.h"

#define MODEL "models/radz-tiny"
#define TOLERANCE 0.15

static radz_error err;
static char *dir, *manifest, *out;

static void ok(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

/* Films of a few sizes, two texts. */
static int setup(void **state)
{
    (void)state;
    dir = fixture_temp_dir();
    manifest = strdup(fixture_path(dir, "films.csv")), out = strdup(fixture_path(dir, "out"));
    rz_str s = {0};
    rz_str_puts(&s, "path,labels,split\n");
    for (size_t i = 0; i < 16; i++) {
        char name[32];
        snprintf(name, sizeof name, "film%zu.png", i);
        fixture_png(fixture_path(dir, name), 200 + 10 * i, 240, 1, i);
        rz_str_printf(&s, "%s,%s,train\n", name, i % 2 ? "Edema" : "Mass|Nodule");
    }
    fixture_write_text(manifest, s.data);
    rz_str_free(&s);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(dir);
    free(dir), free(manifest), free(out);
    return 0;
}

typedef struct setting {
    const char *name, *args[8]; /* of radz-train */
    int lora_rank, micro_batch, recompute;
    const char *weights, *objective;
} setting;

static const setting settings[] = {
    {"everything", {"--lora-rank", "0"}, 0, 0, 0, NULL, NULL},
    {"LoRA", {"--lora-rank", "16"}, 16, 0, 0, NULL, NULL},
    {"micro-batches", {"--lora-rank", "0", "--micro-batch", "3"}, 0, 3, 0, NULL, NULL},
    {"recomputed", {"--lora-rank", "0", "--recompute"}, 0, 0, 1, NULL, NULL},
    {"bf16", {"--lora-rank", "0", "--weights", "bf16"}, 0, 0, 0, "bf16", NULL},
    {"a linear head", {"--lora-rank", "0", "--objective", "classify"}, 0, 0, 0, NULL, "classify"},
    {"little", {"--lora-rank", "16", "--micro-batch", "2", "--recompute"}, 16, 2, 1, NULL, NULL},
};

static double in_all(const radz_train_plan *p)
{
    return (double)(p->process_bytes + p->weight_bytes + p->optimizer_bytes + p->film_bytes + p->activation_bytes);
}

static void plan(const setting *x, double *guessed, double *measured)
{
    radz_train_options o;
    radz_train_plan p = {.struct_size = sizeof p};
    radz_trainer *t;
    radz_train_options_init(&o);
    o.model_dir = MODEL, o.manifest = manifest, o.diseases = "models/diseases.txt", o.out_dir = out;
    o.batch_size = 8, o.epochs = 1, o.lora_rank = x->lora_rank, o.micro_batch = x->micro_batch;
    o.recompute = x->recompute, o.weights = x->weights;
    if (x->objective) o.objective = x->objective;
    ok(radz_trainer_open(NULL, &o, &t, &err));
    ok(radz_trainer_plan(t, 0, &p, &err));
    *guessed = in_all(&p);
    ok(radz_trainer_plan(t, 1, &p, &err));
    *measured = in_all(&p);
    radz_trainer_close(t);
}

/* The most memory that radz-train has resident while it trains. */
static double run(const setting *x)
{
    const char *argv[32] = {fixture_program("radz-train"),
                            "--model",
                            MODEL,
                            "--manifest",
                            manifest,
                            "--diseases",
                            "models/diseases.txt",
                            "--out",
                            out,
                            "--batch",
                            "8",
                            "--epochs",
                            "2",
                            "--stop-after",
                            "2",
                            "--quiet"};
    size_t n = 0;
    while (argv[n]) n++;
    for (size_t i = 0; x->args[i]; i++) argv[n++] = x->args[i];
    struct rusage used;
    int status;
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        const int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, 2);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert_int_equal(wait4(pid, &status, 0, &used), pid);
    if (status) fail_msg("%s: radz-train ended with %d", x->name, status);
    fixture_remove(out);
    return (double)used.ru_maxrss * 1024;
}

/* All runs come first: what this process has had resident counts for the programs that it starts. */
static void memory_is_as_planned(void **state)
{
    (void)state;
    double took[RZ_COUNT(settings)];
    for (size_t i = 0; i < RZ_COUNT(settings); i++) took[i] = run(&settings[i]);
    for (size_t i = 0; i < RZ_COUNT(settings); i++) {
        double guessed, measured;
        plan(&settings[i], &guessed, &measured);
        if (fabs(guessed / took[i] - 1) > TOLERANCE || fabs(measured / took[i] - 1) > TOLERANCE)
            fail_msg("%s: guessed %.1f MB, after a step %.1f MB; it took %.1f MB", settings[i].name, guessed / 1e6,
                     measured / 1e6, took[i] / 1e6);
    }
}

int main(void)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    puts("1..0 # skipped: a sanitizer takes memory of its own");
    return 0;
#else
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_is_as_planned)};
    return cmocka_run_group_tests(tests, setup, teardown);
#endif
}
