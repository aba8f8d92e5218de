/* device.c - choosing a device, and its memory.
 * SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include <unistd.h>

#include "ops.h"

enum { MAX_THREADS = 1024, MAX_GPU = 1023 };

static int count_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int)n;
}

static const char *or_auto(const char *s)
{
    return s && *s ? s : "auto";
}

/* "cuda", "cuda:1" */
static bool is_cuda(const char *s)
{
    int64_t n;
    if (strncmp(s, "cuda", 4) != 0) return false;
    return s[4] == 0 ||
           (s[4] == ':' && s[5] >= '0' && s[5] <= '9' && rz_parse_int64(s + 5, strlen(s + 5), &n) && n <= MAX_GPU);
}

static radz_status check_options(rz_device_options *o, radz_error *err)
{
    o->device = or_auto(o->device);
    o->kernels = or_auto(o->kernels);
    o->gemm = or_auto(o->gemm);
    if (o->n_threads < 0 || o->n_threads > MAX_THREADS)
        return rz_fail(err, RADZ_E_ARGUMENT, "n_threads: %d is not in 0..%d", o->n_threads, MAX_THREADS);
    if (o->n_threads == 0) o->n_threads = count_cpus();
    if (!strcmp(o->device, "auto") || !strcmp(o->device, "cpu") || is_cuda(o->device)) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT, "device '%s' is not one of auto, cpu, cuda, cuda:0, cuda:1, ...", o->device);
}

/* auto: a GPU where there is one that can be used, else the CPU. Kernels by name are the CPU's. */
static radz_status open_kind(rz_device *d, const rz_device_options *o, radz_error *err)
{
    radz_error why = {0};
    const bool for_cpu = strcmp(o->kernels, "auto") != 0 || strcmp(o->gemm, "auto") != 0;
    if (is_cuda(o->device)) return rz_cuda_open(d, o, err);
    if (!strcmp(o->device, "auto") && !for_cpu && rz_cuda_open(d, o, &why) == RADZ_OK) return RADZ_OK;
    if (why.code) rz_log(d->host, RADZ_LOG_INFO, "no GPU: %s", why.message);
    return rz_cpu_open(d, o, err);
}

radz_status rz_device_open(const rz_host *host, const rz_device_options *options, rz_device **dev, radz_error *err)
{
    rz_device_options o = {0};
    *dev = NULL;
    if (options) o = *options;
    RZ_TRY(check_options(&o, err));
    rz_device *d = rz_calloc(host, 1, sizeof *d);
    if (!d) return RZ_NO_MEMORY(err, "device");
    if (host) {
        d->host_copy = *host;
        d->host = &d->host_copy;
    }
    radz_status status = rz_pool_create(d->host, o.n_threads, &d->pool, err);
    if (status == RADZ_OK) status = open_kind(d, &o, err);
    if (status != RADZ_OK) {
        rz_device_close(d);
        return status;
    }
    *dev = d;
    return RADZ_OK;
}

void rz_device_close(rz_device *dev)
{
    if (!dev) return;
    if (dev->ops.close) dev->ops.close(dev);
    if (dev->pool) rz_pool_destroy(dev->pool);
    rz_host host = dev->host_copy; /* the struct goes away with its own hooks */
    rz_free(dev->host ? &host : NULL, dev);
}

const char *rz_device_name(const rz_device *dev)
{
    return dev->name;
}
rz_pool *rz_device_pool(rz_device *dev)
{
    return dev->pool;
}
bool rz_device_is_host(const rz_device *dev)
{
    return dev->is_host;
}
bool rz_device_is_half(const rz_device *dev)
{
    return dev->is_half;
}

radz_status rz_device_alloc(rz_device *dev, size_t n_bytes, void **p, radz_error *err)
{
    *p = dev->ops.alloc(dev, n_bytes);
    if (*p) return RADZ_OK;
    size_t n_free, n_all;
    if (!rz_device_memory(dev, &n_free, &n_all))
        return rz_fail(err, RADZ_E_MEMORY, "out of memory: %zu bytes of device memory", n_bytes);
    return rz_fail(err, RADZ_E_MEMORY, "out of memory: %zu bytes on the GPU, %zu of %zu are free", n_bytes, n_free,
                   n_all);
}

bool rz_device_memory(rz_device *dev, size_t *n_free, size_t *n_all)
{
    *n_free = *n_all = 0;
    if (dev->ops.memory) dev->ops.memory(dev, n_free, n_all);
    return *n_all != 0;
}

size_t rz_mat_pack(rz_device *dev, rz_mat w, size_t rows, void *to)
{
    return dev->ops.pack ? dev->ops.pack(dev, w, rows, to) : 0;
}

void rz_device_free(rz_device *dev, void *p)
{
    if (p) dev->ops.free(dev, p);
}
