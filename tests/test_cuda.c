/* test_cuda.c - the CUDA device as its host program meets it: every piece that may be missing or fail, named in one
 * line; memory, copies, threads, forks. On the emulated GPU of tests/emulator, each case in a process of its own: this
 * program calls itself. SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "device.h"
#include "fixture.h"
#include "run_program.h"

/* ---- What the child does: "status: message" or what it found, to stdout ------------------------------------------ */

static int say(radz_status status, const radz_error *err)
{
    printf("%s: %s\n", radz_status_name(status), status ? err->message : "fine");
    return 0;
}

static rz_device *open_device(const char *name)
{
    rz_device *dev;
    radz_error err;
    const rz_device_options o = {.device = name, .n_threads = 2};
    if (rz_device_open(NULL, &o, &dev, &err) == RADZ_OK) return dev;
    say(err.code, &err);
    exit(0);
}
static rz_stream *open_stream(rz_device *dev)
{
    rz_stream *s;
    radz_error err;
    if (rz_stream_open(dev, &s, &err) == RADZ_OK) return s;
    say(err.code, &err);
    exit(0);
}

static int child_open(const char *name)
{
    rz_device *dev = open_device(name);
    printf("%s | %s | %s\n", rz_device_name(dev), rz_device_products(dev), rz_device_kernels(dev));
    rz_device_close(dev);
    return 0;
}

static int child_alloc(const char *size)
{
    rz_device *dev = open_device("cuda");
    void *p = NULL;
    radz_error err;
    const radz_status status = rz_device_alloc(dev, strtoull(size, NULL, 10), &p, &err);
    rz_device_free(dev, p);
    rz_device_close(dev);
    return say(status, &err);
}

/* Two kernels; the second status: is the stream as good as new? */
static int child_fill(const char *name)
{
    rz_device *dev = open_device(name);
    rz_stream *s = open_stream(dev);
    radz_error err;
    for (int round = 0; round < 2; round++) {
        const rz_mark mark = rz_arena_mark(s);
        float *x = rz_arena_zeros(s, 10, 10);
        rz_fill(s, x, 1, 100);
        say(rz_stream_sync(s, &err), &err);
        rz_arena_release(s, mark);
    }
    rz_stream_close(s);
    rz_device_close(dev);
    return 0;
}

/* A product and scratch memory of so many floats. */
static int child_gemm(const char *floats)
{
    rz_device *dev = open_device("cuda");
    rz_stream *s = open_stream(dev);
    radz_error err;
    float *x = rz_arena_zeros(s, 8, 8), *y = rz_arena_f32(s, 1, strtoull(floats, NULL, 10));
    rz_gemm(s, false, false, 8, 8, 8, 1, rz_mat_f32(x, 8), rz_mat_f32(x, 8), 0, y, 8);
    say(rz_stream_sync(s, &err), &err);
    rz_stream_close(s);
    rz_device_close(dev);
    return 0;
}

/* Sizes around those of the staging rings; host memory is overwritten as soon as it may be. */
static void copies(rz_stream *s, uint8_t *host, uint8_t *back, size_t n, unsigned seed)
{
    uint8_t *to = rz_arena_bytes(s, n), *again = rz_arena_bytes(s, n);
    for (size_t i = 0; i < n; i++) host[i] = (uint8_t)(i * 7 + i / 251 + seed);
    rz_upload(s, to, host, n);
    memset(host, 0, n);
    rz_copy(s, again, to, n);
    memset(back, 0xff, n);
    rz_download(s, back, again, n);
    for (size_t i = 0; i < n && !rz_stream_failed(s); i++)
        if (back[i] != (uint8_t)(i * 7 + i / 251 + seed)) {
            rz_stream_fail(s, RADZ_E_INTERNAL, "byte %zu of %zu", i, n);
        }
}

static void *copy_all(void *arg)
{
    static const size_t sizes[] = {1, 63, 4096, 262144, 262145, 1048576, 16777216, 16777217, 40000000};
    rz_stream *s = open_stream(arg);
    radz_error err;
    uint8_t *host = malloc(sizes[RZ_COUNT(sizes) - 1]), *back = malloc(sizes[RZ_COUNT(sizes) - 1]);
    for (unsigned i = 0; i < RZ_COUNT(sizes); i++) {
        const rz_mark mark = rz_arena_mark(s);
        copies(s, host, back, sizes[i], i);
        rz_arena_release(s, mark);
    }
    int32_t many[200][100];
    for (int i = 0; i < 200; i++) /* more than the ring for small uploads holds, without a wait */
        for (int k = 0; k < 20; k++) {
            for (int j = 0; j < 100; j++) many[i][j] = i * 1000 + j;
            rz_arena_i32(s, many[i], 100);
        }
    const int32_t *last = rz_arena_i32(s, many[7], 100);
    memset(many, 0, sizeof many);
    rz_download(s, many[0], last, sizeof many[0]);
    if (many[0][99] != 7099) rz_stream_fail(s, RADZ_E_INTERNAL, "indices");
    say(rz_stream_sync(s, &err), &err);
    rz_stream_close(s);
    free(host);
    free(back);
    return NULL;
}

static int child_copies(const char *unused)
{
    (void)unused;
    rz_device *dev = open_device("cuda");
    pthread_t other;
    if (pthread_create(&other, NULL, copy_all, dev) != 0) return 1;
    copy_all(dev);
    pthread_join(other, NULL);
    rz_device_close(dev);
    return 0;
}

/* What was opened before a fork says so in the child, and can be closed there. */
static int child_fork(const char *unused)
{
    (void)unused;
    rz_device *dev = open_device("cuda");
    rz_stream *s = open_stream(dev);
    radz_error err;
    int status;
    fflush(stdout);
    if (fork() == 0) {
        void *p;
        rz_fill(s, NULL, 0, 4);
        say(rz_stream_sync(s, &err), &err);
        say(rz_device_alloc(dev, 100, &p, &err), &err);
        rz_stream_close(s);
        rz_device_close(dev);
        open_device("cuda");
    }
    wait(&status);
    rz_stream_close(s);
    rz_device_close(dev);
    return 0;
}

static void log_line(radz_log_level level, const char *message, void *user)
{
    (void)level, (void)user;
    printf("log %s\n", message);
}

/* "cuda:DIR", "auto:DIR": opens that model, embeds nothing. */
static int child_model(const char *what)
{
    char device[8] = "";
    radz_runtime_options o;
    radz_runtime *rt;
    radz_model *model = NULL;
    radz_session *session = NULL;
    radz_error err = {0};
    memcpy(device, what, 4);
    radz_runtime_options_init(&o);
    o.device = device, o.log_fn = log_line;
    radz_status status = radz_runtime_create(&o, &rt, &err);
    if (!status) status = radz_model_open(rt, what + 5, NULL, &model, &err);
    if (!status) status = radz_session_open(model, NULL, &session, &err);
    if (!status) printf("runs on %s\n", radz_model_device(model));
    radz_session_close(session);
    radz_model_close(model);
    radz_runtime_close(rt);
    return say(status, &err);
}

/* Into a folder beside it: needs no memory of the GPU. */
static int child_quantize(const char *from)
{
    char to[4200];
    radz_runtime_options o;
    radz_runtime *rt;
    radz_error err = {0};
    snprintf(to, sizeof to, "%s/int8", from);
    radz_runtime_options_init(&o);
    o.device = "cuda";
    radz_status status = radz_runtime_create(&o, &rt, &err);
    if (!status) status = radz_model_quantize(rt, from, to, NULL, &err);
    radz_runtime_close(rt);
    return say(status, &err);
}

static const struct {
    const char *name;
    int (*run)(const char *arg);
} children[] = {{"open", child_open},     {"alloc", child_alloc}, {"fill", child_fill},   {"gemm", child_gemm},
                {"copies", child_copies}, {"fork", child_fork},   {"model", child_model}, {"quantize", child_quantize}};

/* ---- The cases ------------------------------------------------------------------------------------------------------
 */

static char emulator[4096], *dir;

static int set_up(void **state)
{
    (void)state;
    snprintf(emulator, sizeof emulator, "%s", fixture_program("x")); /* build/<flavour>/bin/x */
    for (int up = 0; up < 2; up++) *strrchr(emulator, '/') = 0;
    strcat(emulator, "/tests/emulator");
    run_folder = dir = fixture_temp_dir();
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    fixture_remove(dir);
    free(dir);
    return 0;
}

static run start(const char *folder, const char *setting, const char *child, const char *arg)
{
    static char self[4096];
    char path[4200];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    snprintf(path, sizeof path, "%s/libcuda.so.1", emulator);
    if (access(path, R_OK) != 0) skip(); /* not built: make emulator */
    snprintf(path, sizeof path, "%s%s", emulator, folder);
    setenv("LD_LIBRARY_PATH", path, 1);
    char *copy = strdup(setting ? setting : "EMULATOR_NOTHING=0");
    *strchr(copy, '=') = 0;
    setenv(copy, copy + strlen(copy) + 1, 1);
    run r = run_program((const char *const[]){self, child, arg, NULL}, NULL, TO_FILE);
    unsetenv(copy);
    unsetenv("LD_LIBRARY_PATH");
    free(copy);
    return r;
}

/* A case: setting of the emulator, what to do, all the words that must be said. */
static void expect(const char *setting, const char *child, const char *arg, const char *words)
{
    run r = start("", setting, child, arg);
    run_expect(&r, 0, words, NULL);
    run_done(&r);
}
static void expect_not(const char *setting, const char *child, const char *arg, const char *words)
{
    run r = start("", setting, child, arg);
    run_expect(&r, 0, NULL, NULL);
    if (strstr(r.out, words)) fail_msg("'%s' in: %s", words, r.out);
    run_done(&r);
}

static void says_what_it_is(void **state)
{
    (void)state;
    expect(NULL, "open", "cuda",
           "cuda (emulated GPU, 9.0, 8 GiB) | f32 cublas, bf16 cublas tensor cores, int8 and int4 as "
           "bf16 | cuda\n");
    expect(NULL, "open", "auto", "cuda (emulated GPU");
    expect("EMULATOR_DEVICES=2", "open", "cuda:1", "cuda:1 (emulated GPU");
    expect("EMULATOR_CAPABILITY=75", "open", "cuda",
           "7.5, 8 GiB) | f32 cublas, bf16 cublas as f32, int8 and int4 as f32");
    expect(NULL, "open", "cpu", "cpu (");
    run r = run_program((const char *const[]){fixture_program("radz-info"), "--device", "cuda", NULL}, NULL, TO_FILE);
    run_done(&r); /* a real GPU or none: no crash */
}

/* With a driver and libraries of the machine itself this cannot be seen. */
static bool loads(const char *library)
{
    void *so = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
    if (so) dlclose(so);
    return so != NULL;
}

static void names_the_missing_library(void **state)
{
    (void)state;
    run r = start("/empty", NULL, "open", "cuda");
    run_expect(&r, 0, "device: the NVIDIA driver is too old: it has no cuInit", NULL);
    run_done(&r);
    if (!loads("libcuda.so.1")) {
        r = start("/nowhere", NULL, "open", "cuda");
        run_expect(&r, 0, "device: no NVIDIA driver: libcuda.so.1: ", NULL);
        run_done(&r);
        r = start("/nowhere", NULL, "open", "auto");
        run_expect(&r, 0, "cpu (", NULL);
        run_done(&r);
    }
    if (loads("libcublas.so.13") || loads("libcublas.so.12") || loads("/usr/local/cuda/lib64/libcublas.so.13") ||
        loads("/usr/local/cuda/lib64/libcublas.so.12"))
        return;
    r = start("/only-driver", NULL, "open", "cuda");
    run_expect(&r, 0,
               "device: no cuBLAS for CUDA 13.0: tried libcublas.so.13, /usr/local/cuda/lib64/libcublas.so.13, "
               "libcublas.so.12, /usr/local/cuda/lib64/libcublas.so.12\n",
               NULL);
    run_done(&r);
}

static void names_what_does_not_suit(void **state)
{
    (void)state;
    expect("EMULATOR_VERSION=11080", "open", "cuda",
           "device: the NVIDIA driver is too old: it knows CUDA 11.8, wanted is 1");
    expect("EMULATOR_VERSION=11080", "open", "auto", "cpu (");
    expect("EMULATOR_DEVICES=0", "open", "cuda", "device: the NVIDIA driver finds no GPU\n");
    expect(NULL, "open", "cuda:1", "device: there is no GPU 1: the driver finds 1\n");
    expect("EMULATOR_CAPABILITY=70", "open", "cuda",
           "device: GPU 0 (emulated GPU) has compute capability 7.0, wanted is 7.5\n");
    expect("EMULATOR_FAIL=cuInit:1:999", "open", "cuda",
           "device: the NVIDIA driver does not start: CUDA_ERROR_UNKNOWN (");
    expect("EMULATOR_FAIL=cuDevicePrimaryCtxRetain:1:2", "open", "cuda",
           "memory: emulated GPU: CUDA_ERROR_OUT_OF_MEMORY (out of memory)\n");
    expect("EMULATOR_FAIL=cuModuleLoadData:1:209", "open", "cuda", "device: kernels made by CUDA 1");
    expect("EMULATOR_FAIL=cuModuleLoadData:1:209", "open", "cuda", "a driver of 13.0: CUDA_ERROR_NO_BINARY_FOR_GPU (");
    expect("EMULATOR_FAIL=cuModuleGetFunction:2:2", "open", "cuda", "CUDA_ERROR_OUT_OF_MEMORY");
    expect("EMULATOR_FAIL=cuStreamCreate:1:2", "fill", "cuda", "memory: GPU: stream: CUDA_ERROR_OUT_OF_MEMORY");
}

static void says_how_much_memory_is_free(void **state)
{
    (void)state;
    expect("EMULATOR_MEMORY=1000000", "alloc", "2000000",
           "memory: out of memory: 2000000 bytes on the GPU, 1000000 of 1000000 are free\n");
    expect("EMULATOR_MEMORY=1000000", "alloc", "900000", "ok: fine\n");
    expect("EMULATOR_MEMORY=40000000", "gemm", "10000000",
           "memory: out of memory: 40000000 bytes of scratch memory on the GPU, 6");
    expect("EMULATOR_MEMORY=40000000", "gemm", "64",
           "memory: workspace of cuBLAS: out of memory: 33554432 bytes on the GPU");
}

static void names_failures_of_kernels(void **state)
{
    (void)state;
    expect(NULL, "fill", "cuda", "ok: fine\nok: fine\n");
    expect("EMULATOR_FAIL=cuLaunchKernel:2:2", "fill", "cuda",
           "memory: GPU: fill: CUDA_ERROR_OUT_OF_MEMORY (out of memory)\nok: fine\n");
    expect("EMULATOR_FAIL=cuLaunchKernel:1:700", "fill", "cuda",
           "device: GPU: fill or what ran before it: CUDA_ERROR_ILLEGAL_ADDRESS (");
    expect_not("EMULATOR_FAIL=cuLaunchKernel:1:700", "fill", "cuda", "fine"); /* the context is lost */
    expect(NULL, "gemm", "64", "ok: fine\n");
    expect("EMULATOR_FAIL=cublasCreate_v2:1:3", "gemm", "64", "memory: GPU: cuBLAS, start: out of memory (3)\n");
    expect("EMULATOR_FAIL=cublasGemmEx:1:13", "gemm", "64", "device: GPU: cuBLAS, product: execution failed (13)\n");
}

static void copies_through_the_rings(void **state)
{
    (void)state;
    expect(NULL, "copies", NULL, "ok: fine\nok: fine\n");
    expect("EMULATOR_FAIL=cuMemAllocHost_v2:1:2", "copies", NULL,
           "memory: GPU: page-locked memory: CUDA_ERROR_OUT_OF_MEMORY");
}

static void a_forked_child_has_no_device(void **state)
{
    (void)state;
    expect(
        NULL, "fork", NULL,
        "state: opened before fork(): open it again in the child\nmemory: out of memory: 100 bytes of device memory\n"
        "device: the NVIDIA driver was started before fork(): a child cannot use it\n");
}

static void a_model_without_room_runs_on_the_cpu(void **state)
{
    (void)state;
    char on_gpu[4200], on_any[4200];
    fixture_model(dir, 1);
    snprintf(on_gpu, sizeof on_gpu, "cuda:%s", dir);
    snprintf(on_any, sizeof on_any, "auto:%s", dir);
    expect(NULL, "model", on_any, "runs on cuda (emulated GPU");
    expect("EMULATOR_MEMORY=30000", "model", on_gpu, "memory: ");
    expect("EMULATOR_MEMORY=30000", "model", on_gpu, "bytes on the GPU, ");
    expect("EMULATOR_MEMORY=30000", "model", on_any, "log on the CPU instead of cuda (emulated GPU, 9.0, 0 GiB): ");
    expect("EMULATOR_MEMORY=30000", "model", on_any, "runs on cpu (");
    expect("EMULATOR_MEMORY=60000000", "model", on_gpu, "memory: out of memory: the model leaves 5");
    expect("EMULATOR_MEMORY=60000000", "model", on_any, "runs on cpu (");
    expect("EMULATOR_MEMORY=30000", "quantize", dir, "ok: fine\n");
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < RZ_COUNT(children); i++)
        if (!strcmp(argv[1], children[i].name)) return children[i].run(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_it_is),
        cmocka_unit_test(names_the_missing_library),
        cmocka_unit_test(names_what_does_not_suit),
        cmocka_unit_test(says_how_much_memory_is_free),
        cmocka_unit_test(names_failures_of_kernels),
        cmocka_unit_test(copies_through_the_rings),
        cmocka_unit_test(a_forked_child_has_no_device),
        cmocka_unit_test(a_model_without_room_runs_on_the_cpu),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
