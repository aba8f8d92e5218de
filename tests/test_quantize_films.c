/* test_quantize_films.c - a model directory rounded for films and texts: vectors nearer to the float model's than
 * without, the same bytes for any number of threads, what is refused, interruptions, memory that runs out.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk_faults.h"
#include "embed.h"
#include "failing_host.h"
#include "fixture.h"
#include "precision.h"
#include "quantize.h"

#define TINY "models/radz-tiny"
#define SMALL "tests/parity/llava_tiny"

static const char *const films[] = {"examples/data/nih_00002301_000.jpg", "examples/data/nih_00008691_005.jpg",
                                    "examples/data/kermany_person1086_bacteria_3026.jpg"};
static const char *const texts[] = {"Pneumonia of the right lower lobe.",
                                    "The heart is enlarged.",
                                    "No finding",
                                    "Fluid around the right lung, with a blunted angle.",
                                    "Air between the lung and the chest wall.",
                                    "A small round opacity on the left, a nodule.",
                                    "Both lungs are clear and well expanded.",
                                    "Atelectasis"};

static radz_error err;
static rz_device *dev;
static char *dir;

static void ok(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

static void refused(radz_status got, radz_status status, const char *says)
{
    if (got != status || !strstr(err.message, says) || strchr(err.message, '\n'))
        fail_msg("status %d '%s', expected %d '%s'", (int)got, err.message, (int)status, says);
}

static int setup(void **state)
{
    (void)state;
    dir = fixture_temp_dir();
    ok(rz_device_open(NULL, &(rz_device_options){.device = "cpu", .n_threads = 2}, &dev, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rz_device_close(dev);
    fixture_remove(dir);
    free(dir);
    return 0;
}

static char *place(const char *name)
{
    char *p = strdup(fixture_path(dir, name));
    assert_non_null(p);
    return p;
}

/* Four bits wherever it can be. */
static rz_quantize everything(const char *type, size_t n_films, size_t n_texts)
{
    rz_quantize q = {.films = films, .texts = texts, .n_films = n_films, .n_texts = n_texts};
    ok(rz_precision_parse(type, 0, "embeddings,heads", &q.precision, &err));
    return q;
}

static radz_status quantize(const char *from, const char *to, const char *type, size_t n_films, size_t n_texts)
{
    const rz_quantize q = everything(type, n_films, n_texts);
    return rz_quantize_model(NULL, dev, from, to, &q, &err);
}

static rz_model *load(const char *from)
{
    rz_model *m;
    ok(rz_model_load_from(NULL, dev, &(rz_source){.dir = from}, RZ_MODEL_INFER, 0, &m, &err));
    return m;
}

/* A film's vector and then a text's, of dim numbers each; malloc'ed. */
static float *vectors(const char *model, const char *film, const char *text, size_t *dim)
{
    rz_model *m = load(model);
    rz_stream *s;
    ok(rz_stream_open(dev, &s, &err));
    const rz_net net = {.model = m, .s = s};
    const rz_pick pick = rz_embed_own(&m->cfg);
    rz_film f;
    const rz_film *list = &f;
    *dim = rz_embed_dim(&m->cfg, &pick);
    float *v = malloc(2 * *dim * sizeof *v);
    ok(rz_film_open(NULL, film, &f, &err));
    ok(rz_embed_films(&net, &list, 1, &pick, v, &err));
    ok(rz_embed_texts(&net, RZ_ITEM_TEXT, &text, 1, &pick, v + *dim, &err));
    rz_film_free(NULL, &f);
    rz_stream_close(s);
    rz_model_unload(m);
    return v;
}

/* 1 - cosine of the film's vectors and of the text's */
static void losses(const char *model, double loss[2])
{
    size_t dim;
    float *exact = vectors(TINY, "examples/data/nih_00006759_001.jpg", "A large effusion on the left.", &dim);
    float *v = vectors(model, "examples/data/nih_00006759_001.jpg", "A large effusion on the left.", &dim);
    for (size_t k = 0; k < 2; k++) {
        double cosine = 0;
        for (size_t i = 0; i < dim; i++) cosine += (double)exact[k * dim + i] * v[k * dim + i];
        loss[k] = 1 - cosine;
    }
    free(exact), free(v);
}

/* ---- What is written -------------------------------------------------------------------------------- */

/* A film and a text that were not among them. */
static void vectors_are_nearer(void **state)
{
    (void)state;
    char *plain = place("plain"), *fitted = place("fitted");
    double before[2], after[2];
    ok(quantize(TINY, plain, "int4", 0, 0));
    ok(quantize(TINY, fitted, "int4", RZ_COUNT(films), RZ_COUNT(texts)));
    losses(plain, before), losses(fitted, after);
    if (!(after[0] < .7 * before[0])) fail_msg("film: loss %g, without films %g", after[0], before[0]);
    if (!(after[1] < before[1])) fail_msg("text: loss %g, without texts %g", after[1], before[1]);
    fixture_remove(plain), fixture_remove(fitted);
    free(plain), free(fitted);
}

/* As much of p's integers as of q's differ. */
static size_t n_other_bytes(const rz_param *p, const rz_param *q)
{
    size_t n = 0;
    const uint8_t *a = p->w.data, *b = q->w.data;
    assert_true(p->w.dtype == q->w.dtype && p->w.group == q->w.group);
    for (size_t i = 0; i < rz_dtype_bytes(p->w.dtype, p->n); i++) n += a[i] != b[i];
    return n;
}

static bool begins(const char *s, const char *with)
{
    return !strncmp(s, with, strlen(with));
}

/* Every matrix of four bits that rows pass has other integers, and no number else; the first block stays in eight. */
static void four_bits_alone_are_others(void **state)
{
    (void)state;
    char *plain = place("plain_integers"), *fitted = place("fitted_integers");
    rz_quantize q = everything("int4/32", 2, 2);
    ok(rz_precision_parse("int4/32", 0, "embeddings,heads,first=int8", &q.precision, &err));
    ok(rz_quantize_model(NULL, dev, SMALL, fitted, &q, &err));
    q.n_films = q.n_texts = 0;
    ok(rz_quantize_model(NULL, dev, SMALL, plain, &q, &err));
    rz_model *a = load(plain), *b = load(fitted);
    size_t n_fitted = 0;
    for (size_t i = 0; i < a->n_params; i++) {
        const rz_param *p = &a->params[i];
        const size_t n = n_other_bytes(p, &b->params[i]);
        const bool fit = p->w.dtype == RZ_I4 && !begins(p->name, "language_model.lm_head");
        if (n && !fit) fail_msg("%s has changed", p->name);
        n_fitted += n > 0;
        if (!n && fit && begins(p->name, "language_model.model.layers.1."))
            fail_msg("%s has not been rounded for anything", p->name);
    }
    assert_true(n_fitted >= 7);
    assert_string_equal(a->family, b->family);
    assert_string_not_equal(a->hash, b->hash);
    rz_model_unload(a), rz_model_unload(b);
    fixture_remove(plain), fixture_remove(fitted);
    free(plain), free(fitted);
}

static char *wanted;
static size_t wanted_n;

static void check_file(const char *to)
{
    size_t n;
    char *bytes = fixture_read(fixture_path(to, "model.safetensors"), &n);
    if (n != wanted_n || memcmp(bytes, wanted, n)) fail_msg("model.safetensors differs");
    free(bytes);
}

static void same_bytes_for_any_threads(void **state)
{
    (void)state;
    char *to = place("threads");
    const rz_quantize q = everything("int4/32", 2, 1);
    for (int threads = 1; threads <= 5; threads += 2) {
        rz_device *own;
        ok(rz_device_open(NULL, &(rz_device_options){.device = "cpu", .n_threads = threads}, &own, &err));
        ok(rz_quantize_model(NULL, own, SMALL, to, &q, &err));
        if (wanted)
            check_file(to);
        else
            wanted = fixture_read(fixture_path(to, "model.safetensors"), &wanted_n);
        assert_int_equal(access(fixture_path(to, ".radz-fitted.tmp"), F_OK), -1);
        fixture_remove(to);
        rz_device_close(own);
    }
    free(to);
}

#define CHANGED "language_model.model.layers.1.mlp.up_proj"

/* An adapter that changes one matrix (40, 24) of SMALL by more than what is there. */
static void write_adapter(const char *to)
{
    static float a[2 * 24], b[40 * 2];
    rz_rng r;
    rz_rng_seed(&r, 5, 0);
    for (size_t i = 0; i < RZ_COUNT(a); i++) a[i] = (float)rz_rng_normal(&r);
    for (size_t i = 0; i < RZ_COUNT(b); i++) b[i] = (float)rz_rng_normal(&r);
    const rz_st_out out[] = {{"base_model.model." CHANGED ".lora_A.weight", "F32", 2, {2, 24}, a},
                             {"base_model.model." CHANGED ".lora_B.weight", "F32", 2, {40, 2}, b}};
    ok(rz_mkdir_p(to, &err));
    ok(rz_st_write(NULL, fixture_path(to, "adapter_model.safetensors"), out, RZ_COUNT(out), NULL, &err));
    fixture_write_text(fixture_path(to, "adapter_config.json"),
                       "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4, \"target_modules\": [\"up_proj\"]}");
}

static const rz_param *param(const rz_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_params; i++)
        if (!strcmp(m->params[i].name, name)) return &m->params[i];
    fail_msg("no %s", name);
    return NULL;
}

/* It is added in before the matrix is rounded: what the integers say is near the sum, not near the matrix alone. */
static void with_an_adapter(void **state)
{
    (void)state;
    char *to = place("with_adapter"), *adapter = place("adapter");
    rz_quantize q = everything("int4/32", 2, 2);
    q.adapter_dir = adapter;
    write_adapter(adapter);
    ok(rz_quantize_model(NULL, dev, SMALL, to, &q, &err));
    rz_model *made = load(to), *sum;
    const rz_source source = {.dir = SMALL, .adapter_dir = adapter};
    ok(rz_model_load_from(NULL, dev, &source, RZ_MODEL_INFER, 0, &sum, &err));
    const rz_param *integers = param(made, CHANGED ".weight"), *floats = param(sum, CHANGED ".weight");
    assert_true(integers->w.dtype == RZ_I4 && floats->w.dtype == RZ_F32);
    double error = 0, all = 0;
    for (size_t i = 0; i < floats->n; i++) {
        const uint8_t code = ((const uint8_t *)integers->w.data)[i / 2] >> (i % 2 ? 4 : 0) & 15;
        const float scale = rz_bf16_to_f32(((const uint16_t *)integers->w.scale)[i / 24]);
        const double exact = ((const float *)floats->w.data)[i], d = exact - (code - 8) * (double)scale;
        error += d * d, all += exact * exact;
    }
    if (!(error < .1 * all)) fail_msg("squares: %g of %g", error, all);
    rz_model_unload(made), rz_model_unload(sum);
    fixture_remove(to), fixture_remove(adapter);
    free(to), free(adapter);
}

static void refusals(void **state)
{
    (void)state;
    char *to = place("refused");
    rz_quantize q = everything("int4/32", 1, 0);
    const char *const missing = "no/such/film.png", *const no_film = "README.md";
    ok(rz_quantize_model(NULL, dev, SMALL, to, &q, &err));
    refused(quantize(SMALL, to, "int4/32", 0, 0), RADZ_E_STATE, "made from another model or otherwise");
    refused(quantize(SMALL, to, "int4/32", 2, 0), RADZ_E_STATE, "made from another model or otherwise");
    refused(quantize(SMALL, to, "int4/32", 1, 1), RADZ_E_STATE, "made from another model or otherwise");
    ok(quantize(SMALL, to, "int4/32", 1, 0));
    fixture_remove(to);
    refused(quantize(SMALL, to, "int8", 1, 0), RADZ_E_ARGUMENT, "int4 alone");
    q.films = &missing;
    refused(rz_quantize_model(NULL, dev, SMALL, to, &q, &err), RADZ_E_IO, "no/such/film.png");
    q.films = &no_film;
    refused(rz_quantize_model(NULL, dev, SMALL, to, &q, &err), RADZ_E_FORMAT, "README.md");
    refused(quantize("tests/parity/variants/text_llama", to, "int4/32", 1, 0), RADZ_E_MISMATCH, "cannot make vectors");
    assert_false(rz_path_exists(to));
    free(to);
}

/* ---- Interruptions ------------------------------------------------------------------------------------ */

static int stop_later(const radz_quantize_progress *p, void *user)
{
    int *left = user;
    assert_true(p->n_done_bytes <= p->n_bytes);
    return --*left == 0;
}

static void cancelled(void **state)
{
    (void)state;
    char *to = place("cancelled");
    rz_quantize q = everything("int4/32", 2, 1);
    int left = 0;
    q.progress_fn = stop_later, q.user = &left;
    for (int after = 1; left <= 0; after += 5) { /* until it is not called that often */
        left = after;
        const radz_status status = rz_quantize_model(NULL, dev, SMALL, to, &q, &err);
        if (left > 0) break;
        refused(status, RADZ_E_CANCELLED, "cancelled");
        fixture_remove(to);
        assert_true(after < 1000);
    }
    check_file(to);
    fixture_remove(to);
    free(to);
}

/* Killed at file calls: the next run ends with the same bytes. */
static void killed_goes_on(void **state)
{
    (void)state;
    char *to = place("killed");
    const rz_quantize q = everything("int4/32", 2, 1);
    for (int at = 1, dead = 1; dead; at += 13) {
        int status;
        fflush(NULL);
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (!pid) {
            rz_device *own;
            if (rz_device_open(NULL, &(rz_device_options){.device = "cpu", .n_threads = 1}, &own, &err)) _exit(2);
            plan.what = KILL_BEFORE, plan.at = at, plan.calls = 0;
            _exit(rz_quantize_model(NULL, own, SMALL, to, &q, &err) ? 1 : 0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        dead = WIFSIGNALED(status);
        assert_true(dead ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
        ok(rz_quantize_model(NULL, dev, SMALL, to, &q, &err));
        check_file(to);
        assert_int_equal(access(fixture_path(to, ".radz-fitted.tmp"), F_OK), -1);
        fixture_remove(to);
    }
    free(to);
}

static void full_disk(void **state)
{
    (void)state;
    char *to = place("full");
    bool hit_one = true;
    for (int at = 1; hit_one; at += 7) {
        plan.what = ERROR, plan.at = at, plan.calls = 0, plan.errnum = ENOSPC, plan.hit = NULL;
        const radz_status status = quantize(SMALL, to, "int4/32", 2, 1);
        plan.what = NONE;
        hit_one = plan.hit != NULL;
        if (status && status != RADZ_E_IO) fail_msg("call %d: status %d '%s'", at, (int)status, err.message);
        ok(quantize(SMALL, to, "int4/32", 2, 1));
        check_file(to);
        fixture_remove(to);
    }
    free(to);
}

static radz_status work(const rz_host *host, void *to)
{
    rz_device *own;
    const rz_quantize q = everything("int4/32", 1, 1);
    RZ_TRY(rz_device_open(host, &(rz_device_options){.device = "cpu", .n_threads = 1}, &own, &err));
    if (rz_path_exists(to)) fixture_remove(to); /* or there is nothing to be done */
    const radz_status status = rz_quantize_model(host, own, SMALL, to, &q, &err);
    rz_device_close(own);
    return status;
}

static void memory_runs_out(void **state)
{
    (void)state;
    char *to = place("memory");
    failing_host_try_all(work, to);
    if (rz_path_exists(to)) fixture_remove(to);
    free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_nearer),
        cmocka_unit_test(four_bits_alone_are_others),
        cmocka_unit_test(same_bytes_for_any_threads),
        cmocka_unit_test(with_an_adapter),
        cmocka_unit_test(refusals),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(killed_goes_on),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(memory_runs_out),
    };
    const int failed = cmocka_run_group_tests(tests, setup, teardown);
    free(wanted);
    return failed;
}
