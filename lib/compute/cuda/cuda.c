/* cuda.c - the CUDA device: opening it, its memory, copies, launches. What may fail names the driver's own error.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <unistd.h>

#include "driver.h"

enum {
    OLDEST_CAPABILITY = 75, /* that the kernels are compiled for */
    HALF_CAPABILITY = 80,   /* from here on tensor cores multiply bfloat16 */
    FREE_SHARED = 48 << 10, /* that every kernel may have */
    ALIGN = 64,
    SMALL_UPLOAD = 256 << 10,
    SMALL_HALF = 1 << 20, /* of the ring for small uploads; large ones: */
    LARGE_HALF = 16 << 20,
    COPY_PART = 1 << 20, /* that one thread copies at a time */
};

#define NAME(name) #name,
static const char *const kernel_names[] = {RZ_CUDA_KERNELS(NAME) "product"};

/* Where each is: kernels_<area>.cu. */
static const char *const areas[RZ_CUDA_AREAS] = {"rows", "attention", "half", "gemm"};
#define IN_ROWS(name) 0,
#define IN_ATTENTION(name) 1,
#define IN_HALF(name) 2,
#define IN_GEMM(name) 3,
static const uint8_t area_of[] = {RZ_CUDA_ROWS(IN_ROWS) RZ_CUDA_ATTENTION(IN_ATTENTION) RZ_CUDA_HALF(IN_HALF)
                                      RZ_CUDA_GEMM(IN_GEMM)};

void rz_cuda_enter(const struct rz_cuda *c)
{
    c->cu->context_push(c->context);
}
void rz_cuda_leave(const struct rz_cuda *c)
{
    cu_context own = NULL;
    c->cu->context_pop(&own);
    if (own && own != c->context) c->cu->context_push(own); /* ours never came on top: it is gone, that is the host's */
}

/* "what: CUDA_ERROR_NAME (its text)" */
static radz_status fail(const struct rz_cu *cu, cu_result result, const char *what, radz_error *err)
{
    const char *name = NULL, *text = NULL;
    cu->error_name(result, &name);
    cu->error_text(result, &text);
    return rz_fail(err, result == CU_OUT_OF_MEMORY ? RADZ_E_MEMORY : RADZ_E_DEVICE, "%s: %s (%s)", what,
                   name ? name : "unknown error", text ? text : "no text");
}

bool rz_cuda_check(rz_stream *s, cu_result result, const char *what)
{
    radz_error err;
    if (result == 0) return true;
    fail(rz_cuda_of(s)->cu, result, what, &err);
    rz_stream_fail(s, err.code, "GPU: %s", err.message);
    return false;
}

/* ---- Launching -------------------------------------------------------------------------- */

int rz_cuda_capability(const rz_stream *s)
{
    return rz_cuda_of(s)->capability;
}
int rz_cuda_multiprocessors(const rz_stream *s)
{
    return rz_cuda_of(s)->multiprocessors;
}
size_t rz_cuda_max_shared(const rz_stream *s)
{
    return rz_cuda_of(s)->max_shared;
}

/* More shared memory than every kernel may have is asked for once. */
static bool allow_shared(rz_stream *s, enum rz_cuda_kernel k, size_t n_bytes)
{
    struct rz_cuda *c = rz_cuda_of(s);
    if (n_bytes <= FREE_SHARED) return true;
    pthread_mutex_lock(&c->lock);
    cu_result r = 0;
    if (n_bytes > c->shared[k]) r = c->cu->function_set(c->kernels[k], CU_FUNCTION_SHARED, (int)n_bytes);
    if (r == 0 && n_bytes > c->shared[k]) c->shared[k] = n_bytes;
    pthread_mutex_unlock(&c->lock);
    return rz_cuda_check(s, r, kernel_names[k]);
}

void rz_cuda_launch(rz_stream *s, enum rz_cuda_kernel k, rz_cuda_dim grid, rz_cuda_dim block, size_t shared_bytes,
                    void **args)
{
    const struct rz_cuda *c = rz_cuda_of(s);
    struct rz_cuda_stream *q = s->impl;
    if (rz_stream_failed(s)) return;
    rz_cuda_enter(c);
    if (allow_shared(s, k, shared_bytes)) {
        q->last = k;
        rz_cuda_check(s,
                      c->cu->launch(c->kernels[k], grid.x, grid.y, grid.z, block.x, block.y, block.z,
                                    (unsigned)shared_bytes, q->stream, args, NULL),
                      kernel_names[k]);
    }
    rz_cuda_leave(c);
}

/* ---- Memory --------------------------------------------------------------------------------- */

static void *cuda_alloc(rz_device *dev, size_t n_bytes)
{
    const struct rz_cuda *c = dev->impl;
    cu_address p = 0;
    if (c->pid != getpid()) return NULL;
    rz_cuda_enter(c);
    const cu_result r = c->cu->alloc(&p, n_bytes ? n_bytes : 1);
    rz_cuda_leave(c);
    return r == 0 ? (void *)(uintptr_t)p : NULL;
}

/* Waits first: whatever stream still works on it, its next owner has it alone. */
static void cuda_free(rz_device *dev, void *p)
{
    const struct rz_cuda *c = dev->impl;
    if (c->pid != getpid()) return;
    rz_cuda_enter(c);
    c->cu->context_sync();
    c->cu->free((uintptr_t)p);
    rz_cuda_leave(c);
}

static void cuda_memory(rz_device *dev, size_t *n_free, size_t *n_all)
{
    const struct rz_cuda *c = dev->impl;
    *n_free = *n_all = 0;
    if (c->pid != getpid()) return;
    rz_cuda_enter(c);
    if (c->cu->memory_info(n_free, n_all) != 0) *n_free = *n_all = 0;
    rz_cuda_leave(c);
}

/* ---- Copies ------------------------------------------------------------------------------------ */

static void ring_close(const struct rz_cuda *c, struct rz_cuda_ring *r)
{
    for (int i = 0; i < 2; i++)
        if (r->done[i]) c->cu->event_destroy(r->done[i]);
    if (r->data) c->cu->free_host(r->data);
    *r = (struct rz_cuda_ring){0};
}

static bool ring_open(rz_stream *s, struct rz_cuda_ring *r, size_t half_size)
{
    const struct rz_cuda *c = rz_cuda_of(s);
    void *data = NULL;
    if (r->data) return true;
    bool ok = rz_cuda_check(s, c->cu->alloc_host(&data, 2 * half_size), "page-locked memory");
    r->data = data;
    r->half_size = half_size;
    for (int i = 0; i < 2 && ok; i++)
        ok = rz_cuda_check(s, c->cu->event_create(&r->done[i], CU_EVENT_NO_TIMING), "event");
    if (!ok) ring_close(c, r);
    return ok;
}

/* Room for n bytes, at most half of the ring; waits for what the GPU still reads there. */
static uint8_t *ring_take(rz_stream *s, struct rz_cuda_ring *r, size_t n)
{
    const struct rz_cuda *c = rz_cuda_of(s);
    if (r->used + n > r->half_size) {
        const struct rz_cuda_stream *q = s->impl;
        if (!rz_cuda_check(s, c->cu->event_record(r->done[r->half], q->stream), "upload")) return NULL;
        r->full[r->half] = true;
        r->half = !r->half;
        r->used = 0;
        if (r->full[r->half] && !rz_cuda_check(s, c->cu->event_sync(r->done[r->half]), "upload")) return NULL;
        r->full[r->half] = false;
    }
    uint8_t *p = r->data + (size_t)r->half * r->half_size + r->used;
    r->used += (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    return p;
}

struct copy {
    uint8_t *dst;
    const uint8_t *src;
    size_t n_bytes;
};
static void copy_part(void *arg, size_t i)
{
    const struct copy *c = arg;
    const size_t at = i * COPY_PART, n = c->n_bytes - at < COPY_PART ? c->n_bytes - at : COPY_PART;
    memcpy(c->dst + at, c->src + at, n);
}

/* Through the ring, so that the caller's memory is free again; threads share the copying of what is large. */
static void cuda_upload(rz_stream *s, void *dst, const void *host, size_t n_bytes)
{
    const struct rz_cuda *c = rz_cuda_of(s);
    struct rz_cuda_stream *q = s->impl;
    const bool is_small = n_bytes <= SMALL_UPLOAD;
    struct rz_cuda_ring *ring = is_small ? &q->small : &q->large;
    rz_cuda_enter(c);
    bool ok = ring_open(s, ring, is_small ? SMALL_HALF : LARGE_HALF);
    for (size_t at = 0; ok && at < n_bytes; at += ring->half_size) {
        const size_t n = n_bytes - at < ring->half_size ? n_bytes - at : ring->half_size;
        struct copy part = {ring_take(s, ring, n), (const uint8_t *)host + at, n};
        ok = part.dst != NULL;
        if (!ok) break;
        rz_pool_run(s->dev->pool, (n + COPY_PART - 1) / COPY_PART, copy_part, &part);
        ok = rz_cuda_check(s, c->cu->to_device((uintptr_t)dst + at, part.dst, n, q->stream), "upload");
    }
    rz_cuda_leave(c);
}

/* A failure of a kernel is seen when something waits for it, at this one or before. */
static void wait_for(rz_stream *s)
{
    const struct rz_cuda_stream *q = s->impl;
    char what[64];
    snprintf(what, sizeof what, "%s or what ran before it", kernel_names[q->last]);
    rz_cuda_check(s, rz_cuda_of(s)->cu->stream_sync(q->stream), what);
}

static void cuda_sync(rz_stream *s)
{
    rz_cuda_enter(rz_cuda_of(s));
    wait_for(s);
    rz_cuda_leave(rz_cuda_of(s));
}

static void cuda_download(rz_stream *s, void *host, const void *src, size_t n_bytes)
{
    const struct rz_cuda *c = rz_cuda_of(s);
    const struct rz_cuda_stream *q = s->impl;
    rz_cuda_enter(c);
    const cu_result r = c->cu->to_host(host, (uintptr_t)src, n_bytes, q->stream);
    wait_for(s); /* first: a kernel's failure has a better name than the copy's */
    rz_cuda_check(s, r, "download");
    rz_cuda_leave(c);
}

static void cuda_copy(rz_stream *s, void *dst, const void *src, size_t n_bytes)
{
    const struct rz_cuda *c = rz_cuda_of(s);
    const struct rz_cuda_stream *q = s->impl;
    rz_cuda_enter(c);
    rz_cuda_check(s, c->cu->copy((uintptr_t)dst, (uintptr_t)src, n_bytes, q->stream), "copy");
    rz_cuda_leave(c);
}

/* ---- Streams ------------------------------------------------------------------------------------- */

static bool cuda_open_stream(rz_stream *s, radz_error *err)
{
    const struct rz_cuda *c = rz_cuda_of(s);
    struct rz_cuda_stream *q = rz_calloc(s->dev->host, 1, sizeof *q);
    if (!q) return RZ_NO_MEMORY(err, "stream"), false;
    q->last = RZ_N_CUDA_KERNELS;
    s->impl = q;
    rz_cuda_enter(c);
    const cu_result r = c->cu->stream_create(&q->stream, CU_STREAM_NON_BLOCKING);
    rz_cuda_leave(c);
    if (r != 0) fail(c->cu, r, "GPU: stream", err);
    return r == 0;
}

static void cuda_close_stream(rz_stream *s)
{
    const struct rz_cuda *c = rz_cuda_of(s);
    struct rz_cuda_stream *q = s->impl;
    if (q && c->pid == getpid()) {
        rz_cuda_enter(c);
        if (q->stream) c->cu->stream_sync(q->stream);
        if (q->blas) c->blas->destroy(q->blas);
        ring_close(c, &q->small);
        ring_close(c, &q->large);
        if (q->stream) c->cu->stream_destroy(q->stream);
        rz_cuda_leave(c);
        rz_device_free(s->dev, q->workspace);
    }
    rz_free(s->dev->host, q);
    s->impl = NULL;
}

/* ---- Opening ------------------------------------------------------------------------------------------ */

static void cuda_close(rz_device *dev)
{
    struct rz_cuda *c = dev->impl;
    if (c->context && c->pid == getpid()) {
        rz_cuda_enter(c);
        for (size_t i = 0; i < RZ_COUNT(c->modules); i++)
            if (c->modules[i]) c->cu->module_unload(c->modules[i]);
        rz_cuda_leave(c);
        c->cu->context_release(c->device);
    }
    pthread_mutex_destroy(&c->lock);
    rz_free(dev->host, c);
    dev->impl = NULL;
}

/* "cuda:1": 1. */
static int ordinal_of(const char *device)
{
    int64_t n = 0;
    const char *colon = strchr(device, ':');
    return colon && rz_parse_int64(colon + 1, strlen(colon + 1), &n) ? (int)n : 0;
}

struct gpu {
    int ordinal;
    char name[64];
    size_t n_bytes;
};

static radz_status choose_gpu(struct rz_cuda *c, struct gpu *gpu, radz_error *err)
{
    int n = 0, major = 0, minor = 0, shared = 0;
    cu_result r = c->cu->device_count(&n);
    if (r == 0 && n == 0) return rz_fail(err, RADZ_E_DEVICE, "the NVIDIA driver finds no GPU");
    if (r == 0 && gpu->ordinal >= n)
        return rz_fail(err, RADZ_E_DEVICE, "there is no GPU %d: the driver finds %d", gpu->ordinal, n);
    if (r == 0) r = c->cu->device_get(&c->device, gpu->ordinal);
    if (r == 0) r = c->cu->device_name(gpu->name, sizeof gpu->name, c->device);
    if (r == 0) r = c->cu->device_memory(&gpu->n_bytes, c->device);
    if (r == 0) r = c->cu->device_attribute(&major, CU_CAPABILITY_MAJOR, c->device);
    if (r == 0) r = c->cu->device_attribute(&minor, CU_CAPABILITY_MINOR, c->device);
    if (r == 0) r = c->cu->device_attribute(&c->multiprocessors, CU_MULTIPROCESSORS, c->device);
    if (r == 0) r = c->cu->device_attribute(&shared, CU_MAX_SHARED, c->device);
    if (r != 0) return fail(c->cu, r, "GPU", err);
    c->capability = 10 * major + minor;
    c->max_shared = (size_t)shared;
    if (c->capability < OLDEST_CAPABILITY)
        return rz_fail(err, RADZ_E_DEVICE, "GPU %d (%s) has compute capability %d.%d, wanted is %d.%d", gpu->ordinal,
                       gpu->name, major, minor, OLDEST_CAPABILITY / 10, OLDEST_CAPABILITY % 10);
    return RADZ_OK;
}

static radz_status load_module(struct rz_cuda *c, int area, radz_error *err)
{
    char what[64];
    const cu_result r = c->cu->module_load(&c->modules[area], rz_cuda_image(areas[area]));
    if (r == 0) return RADZ_OK;
    c->modules[area] = NULL;
    snprintf(what, sizeof what, "kernels made by CUDA %d.%d, a driver of %d.%d", rz_cuda_image_version / 1000,
             rz_cuda_image_version % 1000 / 10, c->cu->version / 1000, c->cu->version % 1000 / 10);
    return fail(c->cu, r, what, err);
}

static radz_status load_kernels(struct rz_cuda *c, radz_error *err)
{
    for (int area = 0; area < RZ_CUDA_AREAS; area++) RZ_TRY(load_module(c, area, err));
    for (int k = 0; k < RZ_N_CUDA_KERNELS; k++) {
        char symbol[64];
        snprintf(symbol, sizeof symbol, "rz_k_%s", kernel_names[k]);
        const cu_result r = c->cu->module_function(&c->kernels[k], c->modules[area_of[k]], symbol);
        if (r != 0) return fail(c->cu, r, symbol, err);
    }
    return RADZ_OK;
}

/* Everything that can fail, into *c; what it holds then is cuda_close's to give back. */
static radz_status start(struct rz_cuda *c, struct gpu *gpu, radz_error *err)
{
    for (int area = 0; area < RZ_CUDA_AREAS; area++)
        if (!rz_cuda_image(areas[area]))
            return rz_fail(err, RADZ_E_DEVICE, "this build has no kernels for a GPU: it was made without nvcc");
    RZ_TRY(rz_cu_open(&c->cu, err));
    c->pid = getpid();
    RZ_TRY(choose_gpu(c, gpu, err));
    RZ_TRY(rz_cublas_open(c->cu, &c->blas, err));
    const cu_result r = c->cu->context_retain(&c->context, c->device);
    if (r != 0) {
        c->context = NULL;
        return fail(c->cu, r, gpu->name, err);
    }
    rz_cuda_enter(c);
    radz_status status = load_kernels(c, err);
    rz_cuda_leave(c);
    return status;
}

static struct rz_ops cuda_ops(void)
{
    struct rz_ops ops = {.close = cuda_close,
                         .alloc = cuda_alloc,
                         .free = cuda_free,
                         .memory = cuda_memory,
                         .open_stream = cuda_open_stream,
                         .close_stream = cuda_close_stream,
                         .sync = cuda_sync,
                         .upload = cuda_upload,
                         .download = cuda_download,
                         .copy = cuda_copy};
    rz_cuda_rows_ops(&ops);
    rz_cuda_attention_ops(&ops);
    rz_cuda_gemm_ops(&ops);
    rz_cuda_half_ops(&ops);
    return ops;
}

static void name_it(rz_device *dev, const struct gpu *gpu)
{
    const struct rz_cuda *c = dev->impl;
    char number[16] = "";
    if (gpu->ordinal) snprintf(number, sizeof number, ":%d", gpu->ordinal);
    snprintf(dev->name, sizeof dev->name, "cuda%s (%s, %d.%d, %zu GiB)", number, gpu->name, c->capability / 10,
             c->capability % 10, gpu->n_bytes >> 30);
    snprintf(dev->products, sizeof dev->products, "f32 cublas, bf16 cublas%s, int8 and int4 as %s",
             dev->is_half ? " tensor cores" : " as f32", dev->is_half ? "bf16" : "f32");
}

radz_status rz_cuda_open(rz_device *dev, const rz_device_options *o, radz_error *err)
{
    struct gpu gpu = {.ordinal = ordinal_of(o->device)};
    if (strcmp(o->kernels, "auto") != 0 || strcmp(o->gemm, "auto") != 0)
        return rz_fail(err, RADZ_E_ARGUMENT, "kernels '%s' and gemm '%s' are for the CPU", o->kernels, o->gemm);
    struct rz_cuda *c = rz_calloc(dev->host, 1, sizeof *c);
    if (!c) return RZ_NO_MEMORY(err, "CUDA device");
    pthread_mutex_init(&c->lock, NULL);
    radz_status status = start(c, &gpu, err);
    if (status != RADZ_OK) {
        cuda_close(&(rz_device){.host = dev->host, .impl = c});
        return status;
    }
    dev->impl = c;
    dev->ops = cuda_ops();
    dev->is_half = c->capability >= HALF_CAPABILITY;
    name_it(dev, &gpu);
    return RADZ_OK;
}
