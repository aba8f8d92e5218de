/* test_quantize.c - a model directory with other weights: the bits of the same weights made at loading, shards and
 * index, an adapter added in, going on after every interruption, every file call that fails.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk_faults.h"
#include "failing_host.h"
#include "fixture.h"
#include "handles.h"
#include "precision.h"
#include "quantize.h"

#define TEXTS "tests/parity/variants/text_llama" /* three shards */
#define LORA "tests/parity/variants/lora_base"

static radz_error err;
static rz_device *dev;
static char *dir;

static void ok(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

static void refused(radz_status got, radz_status status, const char *says)
{
    if (got != status || !strstr(err.message, says))
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

static const char *keep; /* NULL: the type's default */

static radz_status quantize(const char *from, const char *to, const char *type, const char *adapter)
{
    rz_quantize q = {.adapter_dir = adapter};
    RZ_TRY(rz_precision_parse(type, 0, keep, &q.precision, &err));
    return rz_quantize_model(NULL, dev, from, to, &q, &err);
}

static rz_model *load(const char *from, const char *weights, const char *adapter)
{
    rz_source src = {.dir = from, .adapter_dir = adapter};
    rz_model *m;
    ok(rz_precision_parse(weights, 0, weights ? keep : NULL, &src.precision, &err));
    ok(rz_model_load_from(NULL, dev, &src, RZ_MODEL_INFER, 0, &m, &err));
    return m;
}

/* Every weight has the same type, numbers and scales. */
static void same_weights(const rz_model *a, const rz_model *b)
{
    assert_int_equal(a->n_params, b->n_params);
    for (size_t i = 0; i < a->n_params; i++) {
        const rz_param *p = &a->params[i], *q = &b->params[i];
        const size_t n_scale = rz_dtype_bytes(p->w.scale_dtype, p->n / p->w.ld * rz_mat_groups(p->w));
        if (p->w.dtype != q->w.dtype || memcmp(p->w.data, q->w.data, rz_dtype_bytes(p->w.dtype, p->n)) ||
            (p->w.scale && memcmp(p->w.scale, q->w.scale, n_scale)))
            fail_msg("%s: type %d and %d, or other numbers", p->name, (int)p->w.dtype, (int)q->w.dtype);
    }
}

/* ---- What is written -------------------------------------------------------------------------------- */

static void written_is_loaded(void **state)
{
    (void)state;
    static const struct {
        const char *from, *adapter;
    } models[] = {{"tests/parity/llava_tiny", NULL}, {TEXTS, NULL}, {LORA, LORA "/patterns"}};
    static const char *const types[] = {"int8", "int4/32", "bf16"};
    for (size_t i = 0; i < RZ_COUNT(models) * RZ_COUNT(types); i++) {
        const char *from = models[i / RZ_COUNT(types)].from, *adapter = models[i / RZ_COUNT(types)].adapter,
                   *type = types[i % RZ_COUNT(types)];
        char *to = place("out");
        ok(quantize(from, to, type, adapter));
        rz_model *exact = load(from, NULL, adapter), *made = load(from, type, adapter), *written = load(to, NULL, NULL);
        if (!adapter) same_weights(made, written);
        if (adapter && strcmp(type, "bf16")) same_weights(made, written); /* bf16: what is kept was float */
        assert_string_equal(written->family, exact->hash);
        assert_string_equal(made->family, exact->hash);
        assert_string_not_equal(written->hash, exact->hash);
        rz_model_unload(exact), rz_model_unload(made), rz_model_unload(written);
        fixture_remove(to);
        free(to);
    }
}

static rz_dtype type_of(const rz_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_params; i++)
        if (!strcmp(m->params[i].name, name)) return m->params[i].w.dtype;
    fail_msg("no %s", name);
    return RZ_F32;
}

/* Four bits and eight in one directory. */
static void bits_may_be_mixed(void **state)
{
    (void)state;
    char *to = place("mixed");
    keep = "embeddings,heads,first=int8";
    ok(quantize(TEXTS, to, "int4/32", NULL));
    rz_model *made = load(TEXTS, "int4/32", NULL), *written = load(to, NULL, NULL);
    keep = NULL;
    rz_model *plain = load(TEXTS, "int4/32", NULL);
    same_weights(made, written);
    assert_int_equal(type_of(written, "language_model.model.layers.0.mlp.up_proj.weight"), RZ_I8);
    assert_int_equal(type_of(written, "language_model.model.layers.1.mlp.up_proj.weight"), RZ_I4);
    assert_string_not_equal(made->hash, plain->hash);
    refused(quantize(TEXTS, to, "int4/32", NULL), RADZ_E_STATE, "made from another model or otherwise");
    rz_model_unload(made), rz_model_unload(written), rz_model_unload(plain);
    fixture_remove(to);
    free(to);
}

/* Three shards stay three, and the index knows the scales. */
static void index_is_whole(void **state)
{
    (void)state;
    char *to = place("shards");
    json_t *root;
    ok(quantize(TEXTS, to, "int8", NULL));
    ok(rz_json_load(NULL, fixture_path(to, "model.safetensors.index.json"), 1 << 20, &root, &err));
    const json_t *map = json_object_get(root, "weight_map");
    size_t n = 0, n_bytes = 0;
    for (int i = 1; i <= 3; i++) {
        char name[64];
        rz_st *st;
        snprintf(name, sizeof name, "model-%05d-of-00003.safetensors", i);
        ok(rz_st_open(NULL, fixture_path(to, name), RZ_FILE_MAP, &st, &err));
        for (size_t k = 0; k < rz_st_count(st); k++, n++) {
            const char *in = json_string_value(json_object_get(map, rz_st_at(st, k)->name));
            assert_true(in && !strcmp(in, name));
            n_bytes += rz_st_at(st, k)->n_bytes;
        }
        rz_st_close(st);
    }
    assert_int_equal(json_object_size(map), n);
    const json_t *metadata = json_object_get(root, "metadata");
    assert_int_equal(json_integer_value(json_object_get(metadata, "total_size")), n_bytes);
    json_decref(root);
    ok(rz_json_load(NULL, fixture_path(to, "config.json"), 1 << 20, &root, &err));
    const json_t *how = json_object_get(root, "quantization_config");
    assert_string_equal(json_string_value(json_object_get(how, "quant_method")), "libradz");
    assert_int_equal(json_integer_value(json_object_get(how, "bits")), 8);
    json_decref(root);
    fixture_remove(to);
    free(to);
}

/* Settings that are changed afterwards make another model, of no family. */
static void changed_settings_leave_the_family(void **state)
{
    (void)state;
    char *to = place("changed");
    size_t n;
    ok(quantize("tests/parity/llava_tiny", to, "int8", NULL));
    char *text = fixture_read(fixture_path(to, "radz.json"), &n);
    char *at = strstr(text, "\"layer\": -2");
    assert_non_null(at);
    at[10] = '3';
    fixture_write(fixture_path(to, "radz.json"), text, n);
    rz_model *m = load(to, NULL, NULL);
    assert_string_equal(m->family, m->hash);
    rz_model_unload(m);
    free(text);
    fixture_remove(to);
    free(to);
}

static void refusals(void **state)
{
    (void)state;
    char *to = place("refused"), *again = place("again");
    ok(quantize(TEXTS, to, "int8", NULL));
    refused(quantize(TEXTS, to, "int4", NULL), RADZ_E_STATE, "made from another model or otherwise");
    refused(quantize(to, again, "int4", NULL), RADZ_E_MISMATCH, "int4 cannot be made of it: start from bf16");
    refused(quantize(to, to, "int8", NULL), RADZ_E_ARGUMENT, "over itself");
    refused(quantize(dir, again, "int8", NULL), RADZ_E_IO, "");
    radz_quantize_options o;
    radz_quantize_options_init(&o);
    o.type = "f32";
    refused(radz_model_quantize(NULL, TEXTS, again, &o, &err), RADZ_E_ARGUMENT, "expected int8, int4 or bf16");
    o.type = "int4", o.n_films = 1;
    refused(radz_model_quantize(NULL, TEXTS, again, &o, &err), RADZ_E_ARGUMENT, "films[0] is NULL");
    refused(radz_model_quantize(NULL, NULL, again, NULL, &err), RADZ_E_ARGUMENT, "from is NULL");
    fixture_remove(to), fixture_remove(again);
    free(to), free(again);
}

/* ---- Interruptions ------------------------------------------------------------------------------------ */

static const char *const files[] = {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                    "model-00003-of-00003.safetensors", "model.safetensors.index.json", "config.json"};
static char *wanted[RZ_COUNT(files)];
static size_t wanted_n[RZ_COUNT(files)];

static void read_wanted(const char *to)
{
    for (size_t i = 0; i < RZ_COUNT(files); i++) wanted[i] = fixture_read(fixture_path(to, files[i]), &wanted_n[i]);
}

/* Each file is whole or not there; no temporary file where `clean`. */
static void check_left(const char *to, bool clean, bool all)
{
    size_t n;
    for (size_t i = 0; i < RZ_COUNT(files); i++) {
        const char *path = fixture_path(to, files[i]);
        if (!all && !rz_path_exists(path)) continue;
        char *bytes = fixture_read(path, &n);
        if (n != wanted_n[i] || memcmp(bytes, wanted[i], n)) fail_msg("%s differs", files[i]);
        free(bytes);
    }
    DIR *d = opendir(to);
    for (struct dirent *e; clean && d && (e = readdir(d));)
        if (!strncmp(e->d_name, ".radz-", 6)) fail_msg("%s is left", e->d_name);
    if (d) closedir(d);
}

static int count_done(const radz_quantize_progress *p, void *user)
{
    *(uint64_t *)user = p->n_reused_bytes;
    return 0;
}

/* Killed at every file call in turn: the next run ends with the same bytes, and does not do again what was done. */
static void killed_goes_on(void **state)
{
    (void)state;
    char *to = place("killed");
    ok(quantize(TEXTS, to, "int8", NULL));
    read_wanted(to);
    fixture_remove(to);
    uint64_t most = 0;
    for (int at = 1, dead = 1; dead; at += 2) {
        int status;
        fflush(NULL);
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (!pid) {
            rz_device *own;
            rz_quantize q = {0};
            if (rz_device_open(NULL, &(rz_device_options){.device = "cpu", .n_threads = 1}, &own, &err) ||
                rz_precision_parse("int8", 0, NULL, &q.precision, &err))
                _exit(2);
            plan.what = KILL_BEFORE, plan.at = at, plan.calls = 0;
            _exit(rz_quantize_model(NULL, own, TEXTS, to, &q, &err) ? 1 : 0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        dead = WIFSIGNALED(status);
        assert_true(dead ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
        check_left(to, false, false);
        uint64_t reused = 0;
        rz_quantize q = {.progress_fn = count_done, .user = &reused};
        ok(rz_precision_parse("int8", 0, NULL, &q.precision, &err));
        ok(rz_quantize_model(NULL, dev, TEXTS, to, &q, &err));
        check_left(to, true, true);
        if (dead && reused > most) most = reused;
        if (rz_path_exists(to)) fixture_remove(to);
    }
    assert_true(most > 10000); /* two shards at least, the last time */
    free(to);
}

/* Every call that fails for want of room: said, nothing half written, and the next run makes good. */
static void full_disk(void **state)
{
    (void)state;
    char *to = place("full");
    bool hit_one = true;
    for (int at = 1; hit_one; at += 3) {
        plan.what = ERROR, plan.at = at, plan.calls = 0, plan.errnum = ENOSPC, plan.hit = NULL;
        const radz_status status = quantize(TEXTS, to, "int8", NULL);
        plan.what = NONE;
        hit_one = plan.hit != NULL;
        if (status && status != RADZ_E_IO) fail_msg("call %d: status %d '%s'", at, (int)status, err.message);
        if (rz_path_exists(to)) check_left(to, true, false);
        ok(quantize(TEXTS, to, "int8", NULL));
        check_left(to, true, true);
        fixture_remove(to);
    }
    for (size_t i = 0; i < RZ_COUNT(files); i++) free(wanted[i]);
    free(to);
}

static int stop_at_once(const radz_quantize_progress *p, void *user)
{
    (void)user;
    return p->n_done_bytes > 0;
}

static void cancelled(void **state)
{
    (void)state;
    char *to = place("cancelled");
    radz_quantize_options o;
    radz_quantize_options_init(&o);
    o.progress_fn = stop_at_once;
    refused(radz_model_quantize(NULL, TEXTS, to, &o, &err), RADZ_E_CANCELLED, "cancelled");
    o.progress_fn = NULL;
    ok(radz_model_quantize(NULL, TEXTS, to, &o, &err));
    fixture_remove(to);
    free(to);
}

static radz_status work(const rz_host *host, void *to)
{
    rz_device *own;
    rz_quantize q = {0};
    RZ_TRY(rz_precision_parse("int4", 0, NULL, &q.precision, &err));
    RZ_TRY(rz_device_open(host, &(rz_device_options){.device = "cpu", .n_threads = 1}, &own, &err));
    const radz_status status = rz_quantize_model(host, own, TEXTS, to, &q, &err);
    rz_device_close(own);
    return status;
}

static void memory_runs_out(void **state)
{
    (void)state;
    char *to = place("memory");
    failing_host_try_all(work, to);
    fixture_remove(to);
    free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_is_loaded), cmocka_unit_test(bits_may_be_mixed),
        cmocka_unit_test(index_is_whole),    cmocka_unit_test(changed_settings_leave_the_family),
        cmocka_unit_test(refusals),          cmocka_unit_test(killed_goes_on),
        cmocka_unit_test(full_disk),         cmocka_unit_test(cancelled),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
