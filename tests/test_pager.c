/* test_pager.c - weights that are read as they are needed: the bits of a resident model, in any amount of memory, for
 * films, texts, writing and heat maps; files that fail under way. SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "failing_host.h"
#include "fixture.h"
#include "handles.h"
#include "pager.h"
#include "precision.h"

enum { DIM = 8, SIDE = 2 };

static radz_error err;
static char *dir; /* wide enough for matrices to be cut into pieces */

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
    fixture_wide_model(dir, 11);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(dir);
    free(dir);
    return 0;
}

static radz_status try_open(const char *from, uint64_t memory, const char *weights, radz_model **m)
{
    radz_model_options o;
    radz_model_options_init(&o);
    o.memory_bytes = memory, o.weights = weights;
    return radz_model_open(NULL, from, &o, m, &err);
}

/* The least memory that a model runs in, as its refusal says. */
static uint64_t least_memory(const char *from)
{
    radz_model *m;
    refused(try_open(from, 1, NULL, &m), RADZ_E_LIMIT, "this model takes");
    assert_null(m);
    return strtoull(strstr(err.message, "takes") + 5, NULL, 10);
}

/* Everything that a session can be asked, twice over. */
typedef struct answers {
    float film[DIM], texts[3 * DIM], maps[3][SIDE * SIDE];
    char *written;
} answers;

static void ask(radz_model *m, answers *a)
{
    static const char *const texts[] = {"Effusion.", "This is a chest X-ray showing a mass.", "Nothing"};
    radz_session *s;
    radz_image *film;
    radz_bank *bank;
    radz_generate_options g;
    size_t n;
    uint8_t *png = fixture_png_bytes(40, 30, 1, 3, &n);
    ok(radz_image_open_memory(NULL, png, n, &film, &err));
    free(png);
    ok(radz_session_open(m, NULL, &s, &err));
    for (int i = 0; i < 2; i++) {
        const radz_image *films[] = {film};
        ok(radz_embed_images(s, films, 1, NULL, a->film, &err));
        ok(radz_embed_texts(s, texts, 3, NULL, a->texts, &err));
    }
    radz_generate_options_init(&g);
    g.max_tokens = 5;
    ok(radz_generate(s, film, "What is there?", &g, &a->written, &err));
    ok(radz_bank_build(s, (radz_bank_entry[]){{"Mass", "A mass."}, {"Normal", "Nothing."}}, 2, &bank, &err));
    for (int method = 0; method < 3; method++) {
        radz_heatmap_options h;
        radz_heatmap_options_init(&h);
        h.method = (radz_heatmap_method)method;
        ok(radz_heatmap_patches(s, bank, film, "Mass", &h, a->maps[method], &err));
    }
    radz_bank_close(bank), radz_session_close(s), radz_image_close(film);
}

static void same(const answers *got, const answers *want)
{
    assert_memory_equal(got->film, want->film, sizeof want->film);
    assert_memory_equal(got->texts, want->texts, sizeof want->texts);
    assert_memory_equal(got->maps, want->maps, sizeof want->maps);
    assert_string_equal(got->written, want->written);
}

static void same_bits_in_any_memory(void **state)
{
    (void)state;
    const uint64_t least = least_memory(dir);
    answers want = {.written = NULL}, got = {.written = NULL};
    radz_model *m;
    ok(radz_model_open(NULL, dir, NULL, &m, &err));
    ask(m, &want);
    radz_model_close(m);
    for (size_t i = 0; i < 5; i++) {
        ok(try_open(dir, least + (i * i * i << 17), NULL, &m));
        radz_model_info info;
        radz_model_info_init(&info);
        ok(radz_model_get_info(m, &info, &err));
        assert_true(info.streamed_bytes > 0 && info.streamed_bytes < info.weight_bytes);
        ask(m, &got);
        radz_model_close(m);
        same(&got, &want);
        radz_text_free(got.written);
    }
    radz_text_free(want.written);
}

/* Integers have their scales somewhere else in the file. */
static void quantised_too(void **state)
{
    (void)state;
    char *to = strdup(fixture_path(dir, "int8"));
    radz_quantize_options o;
    radz_quantize_options_init(&o);
    answers want = {.written = NULL}, got = {.written = NULL};
    radz_model *m;
    for (int i = 0; i < 2; i++) {
        o.type = i ? "int4/32" : "int8", o.keep = "";
        ok(radz_model_quantize(NULL, dir, to, &o, &err));
        ok(radz_model_open(NULL, to, NULL, &m, &err));
        ask(m, &want);
        radz_model_close(m);
        ok(try_open(to, least_memory(to), NULL, &m));
        ask(m, &got);
        radz_model_close(m);
        same(&got, &want);
        radz_text_free(got.written), radz_text_free(want.written);
        fixture_remove(to);
    }
    free(to);
}

static void what_cannot_be_streamed(void **state)
{
    (void)state;
    radz_model *m;
    refused(try_open(dir, UINT64_C(1) << 30, "int8", &m), RADZ_E_UNSUPPORTED, "radz-quantize");
    refused(try_open("tests/parity/variants/lora_base", 1, NULL, &m), RADZ_E_LIMIT, "at least");
    radz_model_options o;
    radz_model_options_init(&o);
    o.memory_bytes = UINT64_C(1) << 30, o.use_mmap = 0;
    refused(radz_model_open(NULL, dir, &o, &m, &err), RADZ_E_ARGUMENT, "do not go together");
}

/* A file that is cut while it is in use: an error each time, and the session goes on once the file is whole. */
static void truncated_under_way(void **state)
{
    (void)state;
    radz_model *m;
    radz_session *s;
    float v[DIM], want[DIM];
    const char *const text = "Effusion.";
    const char *path = fixture_path(dir, "model.safetensors");
    struct stat st;
    size_t n;
    char *whole = fixture_read(path, &n);
    ok(try_open(dir, least_memory(dir), NULL, &m));
    ok(radz_session_open(m, NULL, &s, &err));
    ok(radz_embed_texts(s, &text, 1, NULL, want, &err));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, (off_t)(n / 3)), 0);
    for (int i = 0; i < 3; i++) {
        memset(v, 0, sizeof v);
        refused(radz_embed_texts(s, &text, 1, NULL, v, &err), RADZ_E_IO, "model.safetensors: ");
        for (size_t k = 0; k < DIM; k++) assert_true(isnan(v[k]));
    }
    /* the same file again: its bytes and its time */
    FILE *f = fopen(path, "r+b");
    assert_true(f && fwrite(whole, 1, n, f) == n && !fclose(f));
    assert_int_equal(utimensat(AT_FDCWD, path, (struct timespec[2]){st.st_atim, st.st_mtim}, 0), 0);
    ok(radz_embed_texts(s, &text, 1, NULL, v, &err));
    assert_memory_equal(v, want, sizeof v);
    free(whole);
    radz_session_close(s), radz_model_close(m);
}

static int at_once(void *user)
{
    return --*(int *)user < 0;
}

static void cancelled(void **state)
{
    (void)state;
    radz_model *m;
    radz_session *s;
    radz_session_options o;
    int polls = 0;
    float v[DIM];
    const char *const text = "Effusion.";
    ok(try_open(dir, least_memory(dir), NULL, &m));
    radz_session_options_init(&o);
    o.cancel_fn = at_once, o.user = &polls;
    ok(radz_session_open(m, &o, &s, &err));
    refused(radz_embed_texts(s, &text, 1, NULL, v, &err), RADZ_E_CANCELLED, "cancelled");
    polls = 1000;
    ok(radz_embed_texts(s, &text, 1, NULL, v, &err));
    radz_session_close(s), radz_model_close(m);
}

static radz_status work(const rz_host *host, void *memory)
{
    rz_device *dev;
    rz_model *m = NULL;
    rz_pager *g = NULL;
    const rz_source from = {.dir = dir, .memory_bytes = *(uint64_t *)memory};
    RZ_TRY(rz_device_open(host, &(rz_device_options){.device = "cpu", .n_threads = 1}, &dev, &err));
    radz_status status = rz_model_load_from(host, dev, &from, RZ_MODEL_INFER, 0, &m, &err);
    if (!status) status = rz_pager_open(m, &g, &err);
    rz_pager_close(g);
    rz_model_unload(m);
    rz_device_close(dev);
    return status;
}

static void memory_runs_out(void **state)
{
    (void)state;
    uint64_t least = least_memory(dir);
    failing_host_try_all(work, &least);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_in_any_memory), cmocka_unit_test(quantised_too),
        cmocka_unit_test(what_cannot_be_streamed), cmocka_unit_test(cancelled),
        cmocka_unit_test(memory_runs_out),         cmocka_unit_test(truncated_under_way),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
