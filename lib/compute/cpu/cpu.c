/* cpu.c - the CPU device: which kernel set, the table of ops, and how work is spread over threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>
#include <stdlib.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "cpu.h"

/* ---- Threads ---------------------------------------------------------------------- */

/* Work, in simple operations, that pays for waking one more thread. */
#define WORK_PER_THREAD 65536.0

size_t rz_cpu_threads_for(const rz_stream *s, double work)
{
    size_t n = rz_pool_inside() ? 1 : (size_t)rz_pool_threads(s->dev->pool);
    double worth = work / WORK_PER_THREAD;
    return worth < 2 ? 1 : worth < (double)n ? (size_t)worth : n;
}

struct split {
    void (*fn)(void *, size_t, size_t);
    void *arg;
    size_t n, step;
};

static void run_split(void *arg, size_t i)
{
    const struct split *j = arg;
    size_t begin = i * j->step, end = j->n - begin < j->step ? j->n : begin + j->step;
    j->fn(j->arg, begin, end);
}

void rz_cpu_split(rz_stream *s, size_t n, size_t unit_work, void (*fn)(void *arg, size_t begin, size_t end), void *arg)
{
    size_t threads = rz_cpu_threads_for(s, (double)n * (double)unit_work);
    if (threads == 1) {
        fn(arg, 0, n);
        return;
    }
    size_t step = (n + 4 * threads - 1) / (4 * threads); /* some slack for threads that start late */
    if (step > 16) step = (step + 15) & ~(size_t)15;
    struct split j = {fn, arg, n, step};
    rz_pool_run(s->dev->pool, (n + step - 1) / step, run_split, &j);
}

struct tasks {
    void (*fn)(void *, size_t, float *);
    void *arg;
    size_t n, stride;
    float *scratch;
    atomic_size_t next;
};

static void run_tasks(void *arg, size_t worker)
{
    struct tasks *j = arg;
    for (size_t i; (i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->n;)
        j->fn(j->arg, i, j->scratch + worker * j->stride);
}

void rz_cpu_tasks(rz_stream *s, size_t n, size_t threads, size_t scratch_floats,
                  void (*fn)(void *arg, size_t i, float *scratch), void *arg)
{
    if (threads > n) threads = n;
    struct tasks j = {.fn = fn, .arg = arg, .n = n, .stride = (scratch_floats + 15) & ~(size_t)15};
    rz_mark mark = rz_arena_mark(s);
    j.scratch = rz_arena_f32(s, threads, j.stride);
    if (!j.scratch) return;
    rz_pool_run(s->dev->pool, threads, run_tasks, &j);
    rz_arena_release(s, mark);
}

/* ---- Memory ------------------------------------------------------------------------- */

/* The pointer that malloc gave lies just before the aligned block. */
static void *cpu_alloc(rz_device *dev, size_t n_bytes)
{
    size_t n;
    if (!rz_size_add(n_bytes, 64 + sizeof(void *), &n)) return NULL;
    char *raw = rz_malloc(dev->host, n);
    if (!raw) return NULL;
    char *p = raw + sizeof(void *);
    p += -(uintptr_t)p & 63;
    memcpy(p - sizeof raw, &raw, sizeof raw);
    rz_want_huge_pages(p, n_bytes);
    return p;
}

static void cpu_free(rz_device *dev, void *p)
{
    void *raw;
    memcpy(&raw, (char *)p - sizeof raw, sizeof raw);
    rz_free(dev->host, raw);
}

static void cpu_sync(rz_stream *s)
{
    (void)s;
}
static void cpu_copy(rz_stream *s, void *dst, const void *src, size_t n_bytes)
{
    (void)s;
    memmove(dst, src, n_bytes);
}

/* ---- Opening -------------------------------------------------------------------------- */

#ifdef __x86_64__
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}
#endif

static bool cpu_has(const struct rz_kernels *k)
{
#ifdef __x86_64__
    __builtin_cpu_init(); /* these ask the operating system's support too */
    if (k == &rz_kernels_avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (k == &rz_kernels_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
#endif
    return k == &rz_kernels_portable;
}

static const struct rz_kernels *const sets[] = {
#ifdef __x86_64__
    &rz_kernels_avx512, &rz_kernels_avx2,
#endif
    &rz_kernels_portable}; /* best first */

const char *rz_kernels_available(size_t i)
{
    for (size_t k = 0; k < RZ_COUNT(sets); k++)
        if (cpu_has(sets[k]) && i-- == 0) return sets[k]->name;
    return NULL;
}

const char *rz_device_kernels(const rz_device *dev)
{
    return dev->kernels ? dev->kernels->name : "cuda";
}

const char *rz_device_products(const rz_device *dev)
{
    return dev->products;
}

static radz_status choose_kernels(const char *name, const struct rz_kernels **kernels, radz_error *err)
{
    for (size_t i = 0; i < RZ_COUNT(sets); i++) {
        bool wanted = !strcmp(name, sets[i]->name), has = cpu_has(sets[i]);
        if (wanted && !has) return rz_fail(err, RADZ_E_DEVICE, "this CPU cannot run the %s kernels", name);
        if (!has || (!wanted && strcmp(name, "auto") != 0)) continue;
        *kernels = sets[i];
        return RADZ_OK;
    }
    if (!strcmp(name, "avx2") || !strcmp(name, "avx512"))
        return rz_fail(err, RADZ_E_DEVICE, "this build has no %s kernels", name);
    return rz_fail(err, RADZ_E_ARGUMENT, "kernels '%s' are not one of auto, portable, avx2, avx512", name);
}

void rz_resample_lines(const rz_resample *r, const int16_t *x, size_t o0, size_t o1, uint16_t *out, size_t stride)
{
    static _Atomic(const struct rz_kernels *) best; /* asking the processor takes longer than a line */
    const struct rz_kernels *k = atomic_load_explicit(&best, memory_order_relaxed);
    if (!k && !choose_kernels("auto", &k, NULL)) atomic_store_explicit(&best, k, memory_order_relaxed);
    k->resample(r, x, o0, o1, out, stride);
}

#ifdef __x86_64__
/* Leaf 7.1; the operating system's support is that of AVX2. */
static bool has_avxvnni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}
#endif

/* Extensions of a set come with it. */
static void choose_extensions(rz_device *dev)
{
    dev->int8 = &dev->kernels->int8, dev->int4 = &dev->kernels->int4;
#ifdef __x86_64__
    const struct rz_int_kernels *vnni = NULL;
    if (dev->kernels == &rz_kernels_avx512 && __builtin_cpu_supports("avx512vnni")) vnni = rz_kernels_avx512_vnni;
    if (dev->kernels == &rz_kernels_avx2 && has_avxvnni()) vnni = rz_kernels_avxvnni;
    if (vnni) dev->int8 = &vnni[0], dev->int4 = &vnni[1];
    if (dev->kernels == &rz_kernels_avx512 && __builtin_cpu_supports("avx512bf16")) dev->bf16 = &rz_kernels_avx512_bf16;
#endif
}

static radz_status choose_gemm(const char *name, bool *openblas, radz_error *err)
{
    *openblas = !strcmp(name, "openblas");
    if (*openblas) return rz_openblas_load(err);
    if (!strcmp(name, "auto") || !strcmp(name, "own")) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT, "gemm '%s' is not one of auto, own, openblas", name);
}

static struct rz_ops cpu_ops(bool openblas)
{
    struct rz_ops ops = {.alloc = cpu_alloc,
                         .free = cpu_free,
                         .sync = cpu_sync,
                         .upload = cpu_copy,
                         .download = cpu_copy,
                         .copy = cpu_copy,
                         .pack = openblas ? NULL : rz_cpu_pack,
                         .gemm = openblas ? rz_cpu_gemm_openblas : rz_cpu_gemm,
                         .rope = rz_cpu_rope,
                         .attention = rz_cpu_attention,
                         .attention_bwd = rz_cpu_attention_bwd};
    rz_cpu_rows_ops(&ops);
    rz_cpu_math_ops(&ops);
    rz_cpu_half_ops(&ops);
    return ops;
}

/* The table of what was chosen. */
static bool name_products(rz_device *dev)
{
    const struct rz_gemm_kernels *f32 = &dev->kernels->f32, *bf16 = dev->bf16 ? dev->bf16 : f32;
    rz_str t = {.host = dev->host};
    if (dev->openblas)
        rz_str_printf(&t, "f32 openblas, bf16 openblas %s", rz_openblas_has_bf16() ? "sbgemm" : "sgemm");
    else
        rz_str_printf(&t, "f32 %s %zux%zu, bf16 %s %zux%zu", f32->name, f32->mr, f32->nr, bf16->name, bf16->mr,
                      bf16->nr);
    rz_str_printf(&t, ", int8 %s %zux%zu, int4 %s %zux%zu", dev->int8->name, dev->int8->mr, dev->int8->nr,
                  dev->int4->name, dev->int4->mr, dev->int4->nr);
    const bool named = !t.failed && t.len < sizeof dev->products;
    if (named) memcpy(dev->products, t.data, t.len + 1);
    rz_str_free(&t);
    return named;
}

radz_status rz_cpu_open(rz_device *dev, const rz_device_options *o, radz_error *err)
{
    RZ_TRY(choose_kernels(o->kernels, &dev->kernels, err));
    RZ_TRY(choose_gemm(o->gemm, &dev->openblas, err));
    choose_extensions(dev);
    dev->ops = cpu_ops(dev->openblas);
    dev->is_host = true;
    int n = rz_pool_threads(dev->pool);
    rz_str name = {.host = dev->host};
    rz_str_printf(&name, "cpu (%s, %s gemm, %d thread%s)", dev->kernels->name, dev->openblas ? "openblas" : "own", n,
                  n == 1 ? "" : "s");
    if (!name.failed) memcpy(dev->name, name.data, name.len < sizeof dev->name ? name.len + 1 : sizeof dev->name - 1);
    bool failed = name.failed || !name_products(dev);
    rz_str_free(&name);
    return failed ? RZ_NO_MEMORY(err, "device name") : RADZ_OK;
}
