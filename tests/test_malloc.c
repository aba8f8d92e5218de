/* test_malloc.c - malloc itself fails, at every one of its calls: also those of libpng, libjpeg, zlib and jansson,
 * which know nothing of the host's hooks. malloc and its kin are replaced in this program. Without RADZ_FULL_SWEEP=1 in
 * the environment only some of the later calls are tried. SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base.h"
#include "fixture.h"
#include "sanitized.h"
#include "scratch.h"

/* ---- malloc ---------------------------------------------------------------------------------------- */

static struct {
    atomic_bool armed;
    atomic_long calls, live;
    long fail_at; /* this call fails, counted from 1 */
    bool from_then_on;
} plan;

static bool refuses(void)
{
    if (!atomic_load(&plan.armed)) return false;
    long call = atomic_fetch_add(&plan.calls, 1) + 1;
    bool now = plan.fail_at && (plan.from_then_on ? call >= plan.fail_at : call == plan.fail_at);
    if (now) errno = ENOMEM;
    return now;
}

static void *count(void *p)
{
    if (p && atomic_load(&plan.armed)) atomic_fetch_add(&plan.live, 1);
    return p;
}

static void *(*real_malloc)(size_t), *(*real_calloc)(size_t, size_t), *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);

/* dlsym may want memory before there is any. */
static _Alignas(16) char early[65536];
static size_t n_early;

static void *take_early(size_t n)
{
    char *p = early + n_early;
    n_early += (n + 15) / 16 * 16;
    return n_early <= sizeof early ? p : NULL;
}

static bool is_early(const void *p)
{
    return (const char *)p >= early && (const char *)p < early + sizeof early;
}

static bool ready(void)
{
    static bool resolving;
    if (real_free) return true;
    if (resolving) return false;
    resolving = true;
    *(void **)&real_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **)&real_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)&real_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)&real_free = dlsym(RTLD_NEXT, "free");
    resolving = false;
    return true;
}

/* The shared libraries must see these too; a sanitizer does not bear it, there only our own calls fail. */
#if SANITIZED
#pragma GCC visibility push(hidden)
#else
#pragma GCC visibility push(default)
#endif
void *malloc(size_t n)
{
    if (!ready()) return take_early(n);
    return refuses() ? NULL : count(real_malloc(n));
}

void *calloc(size_t n, size_t size)
{
    if (!ready()) return take_early(n * size);
    return refuses() ? NULL : count(real_calloc(n, size));
}

void *realloc(void *p, size_t n)
{
    if (!ready() || is_early(p)) return take_early(n); /* grows before main only; the content is not needed */
    if (refuses()) return NULL;
    return p ? real_realloc(p, n) : count(real_realloc(p, n));
}

void free(void *p)
{
    if (!p || is_early(p)) return;
    if (atomic_load(&plan.armed)) atomic_fetch_sub(&plan.live, 1);
    if (ready()) real_free(p);
}
#pragma GCC visibility pop

/* ---- The whole way ------------------------------------------------------------------------------------ */

static radz_error err;
static char *model_dir, *saved, *films[2], *anchors;
static const radz_bank_entry entries[] = {{"Edema", "Fluid in the lung."}, {"No Finding", NULL}};

static int next_descriptor(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

typedef struct handles {
    radz_runtime *rt;
    radz_model *m;
    radz_session *s;
    radz_bank *built, *loaded, *listed;
    radz_image *image;
    radz_result *r[2];
    char *json;
} handles;

/* Load, embed, bank, score. */
static radz_status use(handles *h, float *vector)
{
    static const char *const texts[] = {"This is a chest X-ray showing edema."};
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = 1;
    RZ_TRY(radz_runtime_create(&o, &h->rt, &err));
    RZ_TRY(radz_model_open(h->rt, model_dir, NULL, &h->m, &err));
    RZ_TRY(radz_session_open(h->m, NULL, &h->s, &err));
    RZ_TRY(radz_embed_texts(h->s, texts, 1, 0, vector, &err));
    RZ_TRY(radz_image_open(h->rt, films[0], &h->image, &err));
    const radz_image *images[] = {h->image};
    RZ_TRY(radz_embed_images(h->s, images, 1, 0, vector, &err));
    RZ_TRY(radz_bank_build(h->s, entries, 2, &h->built, &err));
    RZ_TRY(radz_bank_save(h->built, saved, &err));
    RZ_TRY(radz_bank_open(h->m, saved, &h->loaded, &err));
    RZ_TRY(radz_bank_build_file(h->s, anchors, &h->listed, &err));
    for (int i = 0; i < 2; i++) RZ_TRY(radz_classify_file(h->s, h->loaded, films[i], &h->r[i], &err));
    return radz_result_json(h->r[0], NULL, &h->json, &err);
}

static void close_all(handles *h)
{
    radz_text_free(h->json);
    for (int i = 0; i < 2; i++) radz_result_close(h->r[i]);
    radz_image_close(h->image);
    radz_bank_close(h->listed), radz_bank_close(h->loaded), radz_bank_close(h->built);
    radz_session_close(h->s), radz_model_close(h->m), radz_runtime_close(h->rt);
}

static radz_status whole_way(void)
{
    handles h = {0};
    float vector[8];
    for (int i = 0; i < 8; i++) vector[i] = 0;
    radz_status status = use(&h, vector);
    close_all(&h);
    return status;
}

/* Returns how often memory was asked for. */
static long try_once(long fail_at, bool from_then_on)
{
    int descriptor = next_descriptor();
    plan.fail_at = fail_at, plan.from_then_on = from_then_on;
    plan.calls = 0;
    plan.live = 0;
    plan.armed = true;
    radz_status status = whole_way();
    plan.armed = false;
    long calls = plan.calls;
    if (status && (!fail_at || status != RADZ_E_MEMORY || err.code != status))
        fail_msg("call %ld fails%s: status %d, %s", fail_at, from_then_on ? " and all after it" : "", (int)status,
                 err.message);
    /* What the C library keeps for itself (its first use of stdio, say) is kept once. */
    if (plan.live > 0) fail_msg("call %ld fails: %ld blocks are left (%s)", fail_at, (long)plan.live, err.message);
    if (next_descriptor() != descriptor) fail_msg("call %ld fails: a descriptor is left (%s)", fail_at, err.message);
    return calls;
}

static void test_every_call(void **state)
{
    (void)state;
    const char *all = getenv("RADZ_FULL_SWEEP");
    whole_way(); /* what is made once is made now */
    const long n = try_once(0, false);
    print_message("%ld calls\n", n);
    assert_true(n > 300);
    for (long i = 1, step = 1; i <= n; i += step) {
        try_once(i, false);
        try_once(i, true);
        if (!(all && *all == '1') && i > 100) step = 1 + (i * 7) % 13; /* uneven, so that no pattern is missed */
    }
}

static int setup(void **state)
{
    (void)state;
    size_t n;
    scratch_make();
    model_dir = strdup(fixture_path(scratch_dir(), "model"));
    saved = strdup(fixture_path(scratch_dir(), "bank"));
    films[0] = strdup(fixture_path(scratch_dir(), "film.png"));
    films[1] = strdup(fixture_path(scratch_dir(), "film.jpg"));
    anchors = strdup(fixture_path(scratch_dir(), "anchors.txt"));
    assert_int_equal(mkdir(model_dir, 0700), 0);
    fixture_model(model_dir, 3);
    fixture_png(films[0], 40, 30, 3, 1);
    char *jpeg = fixture_read("tests/data/images/rgb_420_progressive.jpg", &n);
    fixture_write(films[1], jpeg, n);
    free(jpeg);
    fixture_write_text(anchors, "Mass: a mass\nNormal: nothing\n");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(model_dir), free(saved), free(films[0]), free(films[1]), free(anchors);
    scratch_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_call)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
