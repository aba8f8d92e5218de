/* test_compute_device.c - choosing a device, streams, arenas, failures, fork, the host's floating-point state.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#include <cmocka.h>

#include "compute_help.h"
#include "failing_host.h"
#include "sanitized.h"

static void expect_refused(rz_device_options o, radz_status status, const char *words)
{
    rz_device *dev = (rz_device *)&o;
    radz_error err = {0};
    assert_int_equal(rz_device_open(NULL, &o, &dev, &err), status);
    assert_null(dev);
    assert_int_equal(err.code, status);
    if (!strstr(err.message, words)) fail_msg("'%s' does not say '%s'", err.message, words);
}

static void refuses_what_is_not_there(void **state)
{
    (void)state;
    expect_refused((rz_device_options){.device = "tpu"}, RADZ_E_ARGUMENT, "'tpu'");
    expect_refused((rz_device_options){.device = "cuda:1000"}, RADZ_E_DEVICE, ""); /* why depends on what is here */
    expect_refused((rz_device_options){.device = "cuda:x"}, RADZ_E_ARGUMENT, "'cuda:x'");
    expect_refused((rz_device_options){.device = "cuda", .gemm = "own"}, RADZ_E_ARGUMENT, "for the CPU");
    expect_refused((rz_device_options){.kernels = "sse"}, RADZ_E_ARGUMENT, "'sse'");
    expect_refused((rz_device_options){.gemm = "mkl"}, RADZ_E_ARGUMENT, "'mkl'");
    expect_refused((rz_device_options){.n_threads = -1}, RADZ_E_ARGUMENT, "-1");
    expect_refused((rz_device_options){.n_threads = 1025}, RADZ_E_ARGUMENT, "1025");
    rz_device *dev = NULL;
    rz_device_options o = {.kernels = "avx512"};
    if (rz_device_open(NULL, &o, &dev, NULL) != RADZ_OK) expect_refused(o, RADZ_E_DEVICE, "avx512");
    rz_device_close(dev);
    rz_device_close(NULL);
}

static void names_what_it_chose(void **state)
{
    (void)state;
    rz_device *dev;
    rz_device_options o = {"", "portable", "", 1};
    assert_int_equal(rz_device_open(NULL, &o, &dev, NULL), RADZ_OK);
    assert_string_equal(rz_device_name(dev), "cpu (portable, own gemm, 1 thread)");
    assert_true(rz_device_is_host(dev));
    rz_device_close(dev);
    o = (rz_device_options){"auto", "auto", "own", 3};
    assert_int_equal(rz_device_open(NULL, &o, &dev, NULL), RADZ_OK);
    assert_non_null(strstr(rz_device_name(dev), "own gemm, 3 threads)"));
    assert_int_equal(rz_pool_threads(rz_device_pool(dev)), 3);
    rz_device_close(dev);
    assert_int_equal(rz_device_open(NULL, NULL, &dev, NULL), RADZ_OK);
    rz_device_close(dev);
}

static void memory_is_aligned(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, "portable", 1);
    rz_device *dev = rz_stream_device(s);
    for (size_t n = 0; n < 200; n += 67) {
        void *p;
        assert_int_equal(rz_device_alloc(dev, n, &p, NULL), RADZ_OK);
        memset(p, 1, n);
        assert_int_equal((uintptr_t)p % 64, 0);
        rz_device_free(dev, p);
    }
    void *p;
    radz_error err = {0};
    assert_int_equal(rz_device_alloc(dev, SIZE_MAX - 8, &p, &err), RADZ_E_MEMORY);
    assert_null(p);
    rz_device_free(dev, NULL);
    compute_close(s);
}

static void arena_keeps_and_reuses_memory(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, "portable", 1);
    rz_mark start = rz_arena_mark(s);
    size_t held = 0;
    for (int round = 0; round < 3; round++) {
        float *a = rz_arena_f32(s, 3, 5), *b = rz_arena_zeros(s, 700, 1000), *c = rz_arena_f32(s, 0, 7);
        rz_mark inner = rz_arena_mark(s);
        int32_t *ids = rz_arena_i32(s, (int32_t[]){4, 5}, 2), *host = rz_arena_host(s, 3, sizeof *host);
        assert_true(a && b && c && ids && host && ids[1] == 5 && host[2] == 0 && b[699999] == 0);
        assert_int_equal(((uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)ids) % 64, 0);
        for (int i = 0; i < 15; i++) a[i] = 1;
        rz_arena_release(s, inner);
        assert_ptr_equal(rz_arena_bytes(s, 8), ids);
        rz_arena_release(s, start);
        if (round) assert_int_equal(rz_arena_peak(s), held);
        held = rz_arena_peak(s);
    }
    assert_true(held >= 700 * 1000 * 4 && held < 8 << 20);
    compute_close(s);
}

static void failures_stick_until_sync(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, "portable", 1);
    float y[2] = {1, 2};
    radz_error err = {0};
    assert_null(rz_arena_f32(s, SIZE_MAX / 2, 3));
    assert_true(rz_stream_failed(s));
    rz_stream_fail(s, RADZ_E_INTERNAL, "second");
    assert_null(rz_arena_f32(s, 1, 1)); /* and ops do nothing, whatever they are given */
    rz_scale(s, y, 2, 2);
    rz_layernorm(s, NULL, NULL, NULL, NULL, NULL, 0, 5, 5);
    rz_gemm(s, false, false, 4, 4, 4, 1, rz_mat_f32(NULL, 4), rz_mat_f32(NULL, 4), 0, NULL, 4);
    assert_true(isnan(rz_sumsq(s, NULL, 3)));
    assert_true(y[0] == 1);
    assert_int_equal(rz_stream_sync(s, &err), RADZ_E_LIMIT);
    assert_int_equal(err.code, RADZ_E_LIMIT);
    assert_int_equal(rz_stream_sync(s, &err), RADZ_OK);
    rz_scale(s, y, 2, 2);
    assert_true(y[0] == 2);
    rz_stream_fail(s, RADZ_E_FORMAT, "%s: line %d", "x", 7);
    assert_int_equal(rz_stream_sync(s, &err), RADZ_E_FORMAT);
    assert_string_equal(err.message, "x: line 7");
    compute_close(s);
}

/* Some of everything that takes scratch memory. */
static radz_status small_pass(const rz_host *host, void *arg)
{
    rz_device_options o = {.n_threads = 2, .kernels = arg};
    rz_device *dev;
    rz_stream *s;
    radz_error err;
    RZ_TRY(rz_device_open(host, &o, &dev, &err));
    radz_status status = rz_stream_open(dev, &s, &err);
    if (status == RADZ_OK) {
        enum { N = 90, HD = 12 };
        rz_mark start = rz_arena_mark(s);
        float *x = rz_arena_zeros(s, N, 1000), *y = rz_arena_zeros(s, N, N), *lse = rz_arena_f32(s, N, 1);
        int32_t *pos = rz_arena_i32(s, (int32_t[N]){0}, N);
        int32_t *at = rz_arena_host(s, 2, sizeof *at);
        rz_gemm(s, false, true, N, N, 1000, 1, rz_mat_f32(x, 1000), rz_mat_f32(x, 1000), 0, y, N);
        rz_gemm(s, false, true, 3, N, 1000, 1, rz_mat_f32(x, 1000), rz_mat_f32(x, 1000), 0, y, N);
        rz_rope(s, x, HD, pos, x, 1, N, 1, HD, false);
        if (at) at[1] = N;
        rz_attn a = {{1, at, at}, {1, at, at}, 1, 1, HD, HD, HD, HD, 1, true, 0};
        rz_attention(s, &a, y, lse, x, x, x);
        rz_attention_bwd(s, &a, y, y, y, x, y, lse, x, x, x);
        rz_sumsq(s, x, 1000);
        status = rz_stream_sync(s, &err);
        rz_arena_release(s, start);
        float ones[2] = {1, 1};
        assert_true(rz_stream_sync(s, NULL) == RADZ_OK);
        rz_scale(s, ones, 3, 2); /* usable afterwards */
        assert_true(ones[1] == 3);
        rz_stream_close(s);
    }
    rz_device_close(dev);
    return status;
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    for (const char *const *set = compute_sets(); *set; set++)
        if (strcmp(*set, "wide") != 0) failing_host_try_all(small_pass, (void *)(uintptr_t)*set);
}

static void refuses_to_work_in_a_forked_child(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, "portable", 2);
    float y[2] = {1, 1};
    pid_t child = fork();
    if (child == 0) {
        radz_error err = {0};
        rz_scale(s, y, 2, 2);
        bool ok = rz_stream_sync(s, &err) == RADZ_E_STATE && strstr(err.message, "fork") && y[0] == 1;
        ok = ok && !rz_arena_f32(s, 1, 1) && rz_stream_failed(s);
        _exit(ok ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    rz_scale(s, y, 2, 2);
    assert_true(y[0] == 2);
    compute_close(s);
}

enum { SIDE = 160, N_FORKS = 30 };

static void *multiply_until_told(void *arg)
{
    static float x[SIDE * SIDE], y[SIDE * SIDE];
    rz_device_options o = {.gemm = "openblas", .n_threads = 2};
    rz_device *dev;
    rz_stream *s;
    assert_int_equal(rz_device_open(NULL, &o, &dev, NULL), RADZ_OK);
    assert_int_equal(rz_stream_open(dev, &s, NULL), RADZ_OK);
    for (bool first = true; first || !atomic_load((atomic_bool *)arg); first = false)
        rz_gemm(s, false, true, SIDE, SIDE, SIDE, 1, rz_mat_f32(x, SIDE), rz_mat_f32(x, SIDE), 0, y, SIDE);
    assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
    compute_close(s);
    return NULL;
}

/* OpenBLAS frees its buffers where the process forks. */
static void forks_while_openblas_multiplies(void **state)
{
    (void)state;
    rz_device_options o = {.gemm = "openblas", .n_threads = 1};
    rz_device *dev;
    if (SANITIZED || rz_device_open(NULL, &o, &dev, NULL) != RADZ_OK) skip();
    rz_device_close(dev);
    atomic_bool stop = false;
    pthread_t t;
    alarm(120); /* it hangs, or crashes */
    assert_int_equal(pthread_create(&t, NULL, multiply_until_told, &stop), 0);
    for (int i = 0; i < N_FORKS; i++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0) _exit(0);
        assert_true(child > 0 && waitpid(child, &status, 0) == child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    atomic_store(&stop, true);
    pthread_join(t, NULL);
    alarm(0);
}

static void leaves_the_floating_point_state(void **state)
{
    (void)state;
#ifdef __x86_64__
    unsigned before = _mm_getcsr() & ~0x3fu; /* without the sticky exception flags */
    failing_host f = {0};
    rz_host host = failing_hooks(&f);
    assert_int_equal(small_pass(&host, (void *)"auto"), RADZ_OK);
    assert_int_equal(_mm_getcsr() & ~0x3fu, before);
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_not_there),
        cmocka_unit_test(names_what_it_chose),
        cmocka_unit_test(memory_is_aligned),
        cmocka_unit_test(arena_keeps_and_reuses_memory),
        cmocka_unit_test(failures_stick_until_sync),
        cmocka_unit_test(every_failed_allocation_is_reported),
        cmocka_unit_test(refuses_to_work_in_a_forked_child),
        cmocka_unit_test(forks_while_openblas_multiplies),
        cmocka_unit_test(leaves_the_floating_point_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
