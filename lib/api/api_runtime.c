/* Public: version, status names, runtime.
 * SPDX-License-Identifier: Apache-2.0 */
#include "handles.h"

#define TEXT_OF_(x) #x
#define TEXT_OF(x) TEXT_OF_(x)
#define MAX_THREADS 1024

const char *radz_version(void)
{
    return TEXT_OF(RADZ_VERSION_MAJOR) "." TEXT_OF(RADZ_VERSION_MINOR) "." TEXT_OF(RADZ_VERSION_PATCH);
}

const char *radz_disclaimer(void)
{
    return "Research use only. Not for diagnosis.";
}

const char *radz_status_name(radz_status status)
{
    static const char *const names[] = {"ok",    "argument", "memory", "io",        "format", "unsupported",
                                        "limit", "mismatch", "device", "cancelled", "state",  "internal"};
    return (unsigned)status < RZ_COUNT(names) ? names[status] : "unknown";
}

void radz_runtime_options_init_sized(radz_runtime_options *options, size_t struct_size)
{
    const radz_runtime_options defaults = {
        .struct_size = sizeof defaults, .device = "auto", .kernels = "auto", .gemm = "auto"};
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

static radz_status check_options(const radz_runtime_options *o, radz_error *err)
{
    int n_hooks = !!o->malloc_fn + !!o->realloc_fn + !!o->free_fn;
    if (n_hooks != 0 && n_hooks != 3)
        return rz_fail(err, RADZ_E_ARGUMENT,
                       "radz_runtime_create: malloc_fn, realloc_fn and free_fn: expected all three or none, got %d",
                       n_hooks);
    if (o->n_threads < 0 || o->n_threads > MAX_THREADS)
        return rz_fail(err, RADZ_E_ARGUMENT, "radz_runtime_create: n_threads: expected 0..%d, got %d", MAX_THREADS,
                       o->n_threads);
    return RADZ_OK;
}

radz_status radz_runtime_create(const radz_runtime_options *options, radz_runtime **runtime, radz_error *err)
{
    if (runtime) *runtime = NULL;
    RZ_NEED(runtime);
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    RZ_TRY(check_options(&o, err));
    rz_host host = {o.malloc_fn, o.realloc_fn, o.free_fn, o.log_fn, o.user};
    radz_runtime *r = rz_calloc(&host, 1, sizeof *r);
    if (!r) return RZ_NO_MEMORY(err, "runtime");
    rz_handle_init(&r->h);
    r->host = host;
    r->any_device = !o.device || !*o.device || !strcmp(o.device, "auto");
    r->n_threads = o.n_threads;
    pthread_mutex_init(&r->lock, NULL);
    rz_device_options d = {o.device, o.kernels, o.gemm, o.n_threads};
    radz_status status = rz_device_open(&r->host, &d, &r->dev, err);
    if (status != RADZ_OK) {
        rz_free(&host, r);
        return status;
    }
    rz_log(&r->host, RADZ_LOG_INFO, "libradz %s on %s", radz_version(), rz_device_name(r->dev));
    *runtime = r;
    return RADZ_OK;
}

void radz_runtime_close(radz_runtime *runtime)
{
    if (!runtime || !rz_handle_drop(&runtime->h)) return;
    rz_host host = runtime->host;
    rz_device_close(runtime->cpu);
    rz_device_close(runtime->dev);
    pthread_mutex_destroy(&runtime->lock);
    rz_free(&host, runtime);
}

radz_status rz_runtime_share(radz_runtime *runtime, radz_runtime **out, radz_error *err)
{
    if (!runtime) return radz_runtime_create(NULL, out, err);
    rz_handle_hold(&runtime->h);
    *out = runtime;
    return RADZ_OK;
}

radz_status rz_runtime_cpu(radz_runtime *r, rz_device **cpu, radz_error *err)
{
    const rz_device_options d = {.device = "cpu", .n_threads = r->n_threads};
    radz_status status = RADZ_OK;
    *cpu = r->dev;
    if (rz_device_is_host(r->dev)) return RADZ_OK;
    pthread_mutex_lock(&r->lock);
    if (!r->cpu) status = rz_device_open(&r->host, &d, &r->cpu, err);
    *cpu = r->cpu;
    pthread_mutex_unlock(&r->lock);
    return status;
}

bool rz_runtime_fall_back(radz_runtime *r, const char *why, rz_device **cpu)
{
    if (!r->any_device || rz_device_is_host(r->dev) || rz_runtime_cpu(r, cpu, NULL) != RADZ_OK) return false;
    rz_log(&r->host, RADZ_LOG_INFO, "on the CPU instead of %s: %s", rz_device_name(r->dev), why);
    return true;
}

const char *radz_runtime_device(const radz_runtime *runtime)
{
    return runtime ? rz_device_name(runtime->dev) : NULL;
}

const char *radz_runtime_kernels(const radz_runtime *runtime)
{
    return runtime ? rz_device_kernels(runtime->dev) : NULL;
}

const char *radz_runtime_products(const radz_runtime *runtime)
{
    return runtime ? rz_device_products(runtime->dev) : NULL;
}

const char *radz_kernels_available(size_t i)
{
    return rz_kernels_available(i);
}
