/* test_hostile.c - model folders that somebody prepared: every file of a model as something else, shards that lead
 * elsewhere, weights that are no numbers; and a system that gives no threads. SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "fixture.h"
#include "formats.h"
#include "scratch.h"

static radz_error err;
static radz_runtime *runtime;
static char *film;

static void good(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

static const char *path_of(const char *name)
{
    return fixture_path(scratch_dir(), name);
}

/* A fresh model with its own bank. */
static void make_model(void)
{
    static const radz_bank_entry entries[] = {{"Edema", "Fluid."}, {"No Finding", NULL}};
    radz_model *m;
    radz_session *s;
    radz_bank *b;
    scratch_make();
    fixture_model(scratch_dir(), 3);
    good(radz_model_open(runtime, scratch_dir(), NULL, &m, &err));
    good(radz_session_open(m, NULL, &s, &err));
    good(radz_bank_build(s, entries, 2, &b, &err));
    good(radz_bank_save(b, path_of("anchors.safetensors"), &err));
    radz_bank_close(b), radz_session_close(s), radz_model_close(m);
}

/* Opens the model and classifies a film with its own bank. */
static radz_status classify(int use_mmap)
{
    radz_model *m = NULL;
    radz_session *s = NULL;
    radz_result *r = NULL;
    radz_model_options o;
    radz_model_options_init(&o);
    o.use_mmap = use_mmap;
    radz_status status = radz_model_open(runtime, scratch_dir(), &o, &m, &err);
    if (!status) status = radz_session_open(m, NULL, &s, &err);
    if (!status) status = radz_classify_file(s, NULL, film, &r, &err);
    assert_true(!status == !!r);
    radz_result_close(r), radz_session_close(s), radz_model_close(m);
    return status;
}

static void refused(const char *what, radz_status status, const char *says)
{
    for (int use_mmap = 0; use_mmap < 2; use_mmap++) {
        radz_status got = classify(use_mmap);
        if (got != status || (status && (err.code != status || !strstr(err.message, says))))
            fail_msg("%s: status %d '%s', expected %d '%s'", what, (int)got, got ? err.message : "", (int)status, says);
    }
}

static int setup(void **state)
{
    (void)state;
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = 1;
    good(radz_runtime_create(&o, &runtime, &err));
    film = malloc(64);
    strcpy(film, "/tmp/radz-film-XXXXXX");
    int fd = mkstemp(film);
    assert_true(fd >= 0);
    close(fd);
    fixture_png(film, 40, 30, 1, 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(film);
    free(film);
    radz_runtime_close(runtime);
    return 0;
}

/* ---- Files that are none ------------------------------------------------------------------------------- */

static void as_folder(const char *path)
{
    assert_int_equal(mkdir(path, 0700), 0);
}
static void as_fifo(const char *path)
{
    assert_int_equal(mkfifo(path, 0600), 0);
}
static void as_zero(const char *path)
{
    assert_int_equal(symlink("/dev/zero", path), 0);
}
static void as_loop(const char *path)
{
    assert_int_equal(symlink(path, path), 0);
}
static void as_empty(const char *path)
{
    fixture_write(path, "", 0);
}
static void as_noise(const char *path)
{
    fixture_write(path, "\xff\xfe{", 3);
}

static void test_not_files(void **state)
{
    (void)state;
    static const char *const files[] = {"config.json",        "preprocessor_config.json", "radz.json",
                                        "tokenizer.model",    "model.safetensors",        "radz.safetensors",
                                        "anchors.safetensors"};
    static const struct {
        const char *name;
        void (*make)(const char *path);
        radz_status status;
    } kinds[] = {{"folder", as_folder, RADZ_E_IO},
                 {"FIFO", as_fifo, RADZ_E_IO},
                 {"/dev/zero", as_zero, RADZ_E_IO},
                 {"empty", as_empty, RADZ_E_FORMAT},
                 {"noise", as_noise, RADZ_E_FORMAT}};
    for (size_t f = 0; f < RZ_COUNT(files); f++)
        for (size_t k = 0; k < RZ_COUNT(kinds); k++) {
            make_model();
            const char *path = path_of(files[f]);
            assert_int_equal(unlink(path), 0);
            kinds[k].make(path);
            refused(kinds[k].name, kinds[k].status, files[f]);
            scratch_remove();
        }
    static const char *const required[] = {"config.json", "model.safetensors", "anchors.safetensors"};
    for (size_t f = 0; f < RZ_COUNT(required); f++) { /* a link to itself is there for nobody */
        make_model();
        unlink(path_of(required[f]));
        as_loop(path_of(required[f]));
        refused("loop", RADZ_E_IO, required[f]);
        scratch_remove();
    }
}

/* ---- Numbers that are none ---------------------------------------------------------------------------------- */

/* Writes value over the first number of a tensor, in place. */
static void poison(const char *file, const char *tensor, float value)
{
    rz_st *st;
    char *path = strdup(path_of(file));
    good(rz_st_open(NULL, path, RZ_FILE_READ, &st, &err));
    const rz_st_tensor *t = rz_st_find(st, tensor);
    if (!t) fail_msg("%s has no %s", file, tensor);
    size_t n;
    off_t at = t->data - rz_st_bytes(st, &n);
    rz_st_close(st);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, &value, sizeof value, at), sizeof value);
    close(fd);
    free(path);
}

/* The policy: weights are not read through when a model is opened (that would cost the time of reading 14 GB), but no
 * vector leaves the library that is not finite and of length 1. */
static void test_weights_that_are_no_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *file, *tensor;
    } places[] = {
        {"model.safetensors", "vision_tower.vision_model.embeddings.class_embedding"},
        {"model.safetensors", "multi_modal_projector.linear_1.weight"},
        {"model.safetensors", "language_model.model.layers.0.input_layernorm.weight"},
        {"radz.safetensors", "special_tokens.weight"},
    };
    static const float values[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < RZ_COUNT(places); i++)
        for (size_t k = 0; k < RZ_COUNT(values); k++) {
            make_model();
            poison(places[i].file, places[i].tensor, values[k]);
            unlink(path_of("anchors.safetensors")); /* it was another model's now */
            radz_model *m;
            radz_session *s;
            radz_image *image;
            float v[8] = {0};
            good(radz_model_open(runtime, scratch_dir(), NULL, &m, &err));
            good(radz_session_open(m, NULL, &s, &err));
            good(radz_image_open(runtime, film, &image, &err));
            const radz_image *images[] = {image};
            radz_status status = radz_embed_images(s, images, 1, 0, v, &err);
            if (status != RADZ_E_FORMAT || !strstr(err.message, "weights are damaged"))
                fail_msg("%s %g: status %d '%s'", places[i].tensor, (double)values[k], (int)status, err.message);
            for (size_t j = 0; j < 8; j++) assert_true(isnan(v[j]));
            radz_image_close(image), radz_session_close(s), radz_model_close(m);
            scratch_remove();
        }
}

/* ---- Shards --------------------------------------------------------------------------------------------------- */

static void write_index(const char *shard)
{
    rz_str s = {0};
    rz_str_printf(&s, "{\"weight_map\":{\"a\":\"%s\"}}", shard);
    scratch_write("model.safetensors.index.json", s.data, s.len);
    rz_str_free(&s);
}

/* The one file of the model becomes a shard that lies, or seems to lie, somewhere else. */
static void test_shards_elsewhere(void **state)
{
    (void)state;
    static const struct {
        const char *name, *shard, *target; /* target: where the link `shard` leads; NULL: no link */
        radz_status status;
        const char *says;
    } cases[] = {
        {"a plain shard", "s.safetensors", NULL, RADZ_OK, ""},
        {"a link inside", "s.safetensors", "real.safetensors", RADZ_OK, ""},
        {"a link out", "s.safetensors", "../real.safetensors", RADZ_E_FORMAT, "leads out of"},
        {"a link to nothing", "s.safetensors", "nothing", RADZ_E_IO, "s.safetensors"},
        {"a link to a device", "s.safetensors", "/dev/zero", RADZ_E_FORMAT, "leads out of"},
        {"a link to a secret", "s.safetensors", "/etc/passwd", RADZ_E_FORMAT, "leads out of"},
        {"a way up", "../real.safetensors", NULL, RADZ_E_FORMAT, "no plain file name"},
        {"absolute", "/etc/passwd", NULL, RADZ_E_FORMAT, "no plain file name"},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        make_model();
        char *top = strdup(scratch_dir()), *out = malloc(strlen(top) + 32);
        sprintf(out, "%s.real.safetensors", top);
        bool leads_up = cases[i].target && !strncmp(cases[i].target, "../", 3);
        const char *to = !cases[i].target ? path_of("s.safetensors") : leads_up ? out : path_of("real.safetensors");
        assert_int_equal(rename(path_of("model.safetensors"), to), 0);
        if (cases[i].target) assert_int_equal(symlink(leads_up ? out : cases[i].target, path_of("s.safetensors")), 0);
        write_index(cases[i].shard);
        if (cases[i].status) {
            refused(cases[i].name, cases[i].status, cases[i].says);
        } else {
            radz_model *m; /* the bank belongs to the hash of the same bytes */
            good(radz_model_open(runtime, scratch_dir(), NULL, &m, &err));
            radz_model_close(m);
        }
        unlink(out);
        free(top), free(out);
        scratch_remove();
    }
}

/* What the Hugging Face cache makes of a download: snapshots/<revision>/ full of links to ../../blobs. */
static void test_shards_in_the_hub_cache(void **state)
{
    (void)state;
    radz_model *m;
    make_model();
    char *snapshot = strdup(path_of("snapshots/0123abcd")), *blob = strdup(path_of("blobs/feed"));
    good(rz_mkdir_p(snapshot, &err));
    good(rz_mkdir_p(path_of("blobs"), &err));
    static const char *const files[] = {"config.json", "preprocessor_config.json", "radz.json", "tokenizer.model",
                                        "radz.safetensors"};
    for (size_t i = 0; i < RZ_COUNT(files); i++)
        assert_int_equal(rename(path_of(files[i]), fixture_path(snapshot, files[i])), 0);
    assert_int_equal(rename(path_of("model.safetensors"), blob), 0);
    assert_int_equal(symlink("../../blobs/feed", fixture_path(snapshot, "s.safetensors")), 0);
    write_index("s.safetensors");
    assert_int_equal(
        rename(path_of("model.safetensors.index.json"), fixture_path(snapshot, "model.safetensors.index.json")), 0);
    good(radz_model_open(runtime, snapshot, NULL, &m, &err));
    radz_model_close(m);
    free(snapshot), free(blob);
    scratch_remove();
}

static void put_many(rz_str *s, unsigned n, bool many_files)
{
    rz_str_puts(s, "{\"weight_map\":{");
    for (unsigned i = 0; i < n; i++)
        if (many_files)
            rz_str_printf(s, "%s\"t%u\":\"s%u.safetensors\"", i ? "," : "", i, i);
        else
            rz_str_printf(s, "%s\"t%u\":\"s.safetensors\"", i ? "," : "", i);
    rz_str_puts(s, "}}");
    assert_false(s->failed);
}

/* 10^5 names cost no more than reading them; 10^5 files are refused at the first that is not there. */
static void test_many_names(void **state)
{
    (void)state;
    make_model();
    assert_int_equal(rename(path_of("model.safetensors"), path_of("s.safetensors")), 0);
    for (int many_files = 0; many_files < 2; many_files++) {
        rz_str s = {0};
        radz_model *m;
        put_many(&s, 100000, many_files);
        scratch_write("model.safetensors.index.json", s.data, s.len);
        rz_str_free(&s);
        radz_status status = radz_model_open(runtime, scratch_dir(), NULL, &m, &err);
        assert_int_equal(status, many_files ? RADZ_E_IO : RADZ_OK);
        if (many_files) assert_non_null(strstr(err.message, "s0.safetensors"));
        radz_model_close(m);
    }
    scratch_remove();
}

/* ---- A poor and a strict host -------------------------------------------------------------------------------- */

static atomic_int threads_left = 1 << 30;

/* This program's pthread_create is asked first. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return atomic_fetch_sub(&threads_left, 1) > 0 ? real(thread, attr, start, arg) : EAGAIN;
}

static void embed(int n_threads, float v[8])
{
    radz_runtime *rt;
    radz_model *m;
    radz_session *s;
    radz_image *image;
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = n_threads;
    good(radz_runtime_create(&o, &rt, &err));
    good(radz_model_open(rt, scratch_dir(), NULL, &m, &err));
    good(radz_session_open(m, NULL, &s, &err));
    good(radz_image_open(rt, film, &image, &err));
    const radz_image *images[] = {image};
    good(radz_embed_images(s, images, 1, 0, v, &err));
    radz_image_close(image), radz_session_close(s), radz_model_close(m), radz_runtime_close(rt);
}

static void test_no_thread_to_be_had(void **state)
{
    (void)state;
    float one[8], few[8];
    make_model();
    embed(1, one);
    for (int left = 0; left < 4; left++) {
        threads_left = left;
        embed(8, few);
        assert_true(threads_left < 0);
        threads_left = 1 << 30;
        assert_memory_equal(one, few, sizeof one);
    }
    scratch_remove();
}

/* A host that traps invalid operations and divisions by zero is not killed by ours. */
static void test_trapping_host(void **state)
{
    (void)state;
    float v[8];
    make_model();
    feclearexcept(FE_ALL_EXCEPT);
    feenableexcept(FE_DIVBYZERO | FE_INVALID);
    embed(2, v);
    fedisableexcept(FE_ALL_EXCEPT);
    for (int i = 0; i < 8; i++) assert_true(isfinite(v[i]));
    scratch_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_files),        cmocka_unit_test(test_weights_that_are_no_numbers),
        cmocka_unit_test(test_shards_elsewhere), cmocka_unit_test(test_shards_in_the_hub_cache),
        cmocka_unit_test(test_many_names),       cmocka_unit_test(test_no_thread_to_be_had),
        cmocka_unit_test(test_trapping_host),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
