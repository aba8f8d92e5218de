/* driver.cpp - the functions of NVIDIA's driver that libradz asks for, on the emulated GPU. Environment:
 *   EMULATOR_VERSION (13000)  EMULATOR_DEVICES (1)  EMULATOR_CAPABILITY (90)  EMULATOR_MEMORY (8 GiB)
 *   EMULATOR_MULTIPROCESSORS (4)  EMULATOR_ORDER (mixed; forward, backward)
 *   EMULATOR_FAIL=name:n[:result]  the n-th call of that function fails; a launch: when it runs
 *   EMULATOR_EAGER=1  work is done where it is asked for, so that a debugger sees who asked
 *   EMULATOR_LEAKS=0  what is left when the context goes is no error
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine.h"
#include "kernels.h"
#include "machine.h"

#define API extern "C" EMULATOR_EXPORT int
#define ENTER(context)                                                                                                 \
    std::lock_guard<std::recursive_mutex> hold(everything);                                                            \
    if (int result = enter(__func__, context)) return result

namespace
{

enum { ANYWHERE, IN_CONTEXT };

struct stream {
    std::deque<std::function<int()>> work;
};
struct event {
    bool pending;
    stream *in;
};
struct function {
    const emulated_kernel *kernel;
    size_t shared; /* dynamic bytes that it may ask for */
};
struct module {
    std::map<std::string, function> functions;
};

std::recursive_mutex everything;
pid_t started;    /* by cuInit, in this process */
int broken;       /* the result of every call from now on */
int references;   /* to the primary context */
char the_context; /* its address is the context */
std::map<std::thread::id, std::vector<void *>> current;
stream default_stream;
std::set<stream *> streams = {&default_stream};
std::set<event *> events;
std::set<module *> modules;
std::string wish; /* EMULATOR_FAIL when the count began */
int seen;

int setting(const char *name, int otherwise)
{
    const char *s = getenv(name);
    return s ? atoi(s) : otherwise;
}

int enter(const char *name, int where)
{
    const bool init = !strcmp(name, "cuInit");
    if (!init && started != getpid()) return EMULATED_NOT_INITIALIZED;
    if (broken) return broken;
    if (where == IN_CONTEXT &&
        (current[std::this_thread::get_id()].empty() || !current[std::this_thread::get_id()].back()))
        return EMULATED_INVALID_CONTEXT;
    return strcmp(name, "cuLaunchKernel") != 0 ? emulator_injected(name, 999) : EMULATED_OK;
}

stream *stream_of(void *s)
{
    return s ? (stream *)s : &default_stream;
}

/* Does the work of a stream, all of it or until an event. */
int drain(stream *s, const event *until)
{
    if (broken || s->work.empty()) return broken;
    emulator_unlock();
    while (!broken && !s->work.empty() && (!until || until->pending)) {
        std::function<int()> work = std::move(s->work.front());
        s->work.pop_front();
        broken = work();
    }
    if (broken)
        for (stream *x : streams) x->work.clear();
    emulator_lock();
    return broken;
}

int drain_all()
{
    for (stream *s : streams) drain(s, nullptr);
    return broken;
}

/* The context has gone, and all that belonged to it. */
int check_leaks()
{
    size_t n_bytes, n = emulator_allocated(&n_bytes), deep = 0;
    for (const auto &c : current) deep += c.second.size();
    if (deep) emulator_say("%zu contexts are still pushed when the last reference goes", deep);
    if (n) emulator_say("%zu allocations of %zu bytes are left when the context goes", n, n_bytes);
    if (emulator_pinned()) emulator_say("%zu pieces of page-locked memory are left", emulator_pinned());
    if (streams.size() > 1) emulator_say("%zu streams are left", streams.size() - 1);
    if (events.size()) emulator_say("%zu events are left", events.size());
    if (modules.size()) emulator_say("%zu modules are left", modules.size());
    const bool bad = deep || n || emulator_pinned() || streams.size() > 1 || events.size() || modules.size();
    if (bad && setting("EMULATOR_LEAKS", 1)) abort();
    return EMULATED_OK;
}

int refuse(const char *what)
{
    emulator_say("%s", what);
    return EMULATED_INVALID_VALUE;
}

/* Filled while the library is loaded, whatever comes first. */
std::map<std::string, const emulated_kernel *> &all_kernels()
{
    static std::map<std::string, const emulated_kernel *> all;
    return all;
}

} // namespace

bool emulated_kernels_add(const emulated_kernel *table, size_t n)
{
    for (size_t i = 0; i < n; i++) all_kernels()[table[i].name] = &table[i];
    return true;
}

const emulated_kernel *emulated_kernel_find(const char *name)
{
    auto it = all_kernels().find(name);
    return it == all_kernels().end() ? nullptr : it->second;
}

int emulator_injected(const char *name, int result)
{
    const char *now = getenv("EMULATOR_FAIL");
    if (!now) now = "";
    if (wish != now) wish = now, seen = 0;
    char which[64] = "";
    int n = 0, code = result;
    if (sscanf(now, "%63[^:]:%d:%d", which, &n, &code) < 2 || strcmp(which, name) != 0) return 0;
    return ++seen == n ? code : 0;
}

bool emulator_is_stream(const void *s)
{
    return !s || streams.count((stream *)s);
}

int emulator_enqueue(void *s, std::function<int()> work)
{
    std::lock_guard<std::recursive_mutex> hold(everything);
    if (broken) return broken;
    if (!emulator_is_stream(s)) return refuse("a stream that is not there");
    stream_of(s)->work.push_back(std::move(work));
    return setting("EMULATOR_EAGER", 0) ? drain(stream_of(s), nullptr) : EMULATED_OK;
}

/* ---- The driver, the device, its context ----------------------------------------------------------- */

API cuInit(unsigned flags)
{
    ENTER(ANYWHERE);
    if (flags) return EMULATED_INVALID_VALUE;
    if (setting("EMULATOR_DEVICES", 1) == 0) return EMULATED_NO_DEVICE;
    if (started && started != getpid()) return EMULATED_NOT_INITIALIZED;
    started = getpid();
    return EMULATED_OK;
}
API cuDriverGetVersion(int *version)
{
    *version = setting("EMULATOR_VERSION", 13000);
    return EMULATED_OK;
}
API cuDeviceGetCount(int *n)
{
    ENTER(ANYWHERE);
    *n = setting("EMULATOR_DEVICES", 1);
    return EMULATED_OK;
}
API cuDeviceGet(int *device, int ordinal)
{
    ENTER(ANYWHERE);
    if (ordinal < 0 || ordinal >= setting("EMULATOR_DEVICES", 1)) return EMULATED_INVALID_DEVICE;
    *device = ordinal;
    return EMULATED_OK;
}
API cuDeviceGetName(char *name, int size, int)
{
    ENTER(ANYWHERE);
    snprintf(name, (size_t)size, "emulated GPU");
    return EMULATED_OK;
}
API cuDeviceGetAttribute(int *value, int attribute, int)
{
    ENTER(ANYWHERE);
    const int capability = setting("EMULATOR_CAPABILITY", 90);
    switch (attribute) {
    case 16:
        *value = setting("EMULATOR_MULTIPROCESSORS", 4);
        return EMULATED_OK;
    case 75:
        *value = capability / 10;
        return EMULATED_OK;
    case 76:
        *value = capability % 10;
        return EMULATED_OK;
    case 97:
        *value = capability >= 90 ? 232448 : 65536;
        return EMULATED_OK;
    default:
        return refuse("cuDeviceGetAttribute: an attribute that the emulator does not know");
    }
}
API cuDeviceTotalMem_v2(size_t *n_bytes, int)
{
    ENTER(ANYWHERE);
    const char *limit = getenv("EMULATOR_MEMORY");
    *n_bytes = limit ? strtoull(limit, NULL, 10) : (size_t)8 << 30;
    return EMULATED_OK;
}
API cuDevicePrimaryCtxRetain(void **context, int)
{
    ENTER(ANYWHERE);
    references++;
    *context = &the_context;
    return EMULATED_OK;
}
API cuDevicePrimaryCtxRelease_v2(int)
{
    std::lock_guard<std::recursive_mutex> hold(everything);
    if (started != getpid()) return EMULATED_NOT_INITIALIZED;
    if (references == 0) return refuse("cuDevicePrimaryCtxRelease: no reference is left");
    if (--references) return EMULATED_OK;
    broken = EMULATED_OK; /* another context may be made */
    return check_leaks();
}
API cuCtxPushCurrent_v2(void *context)
{
    ENTER(ANYWHERE);
    if (context != &the_context || references == 0) return EMULATED_INVALID_CONTEXT;
    current[std::this_thread::get_id()].push_back(context);
    return EMULATED_OK;
}
API cuCtxPopCurrent_v2(void **context)
{
    std::lock_guard<std::recursive_mutex> hold(everything);
    auto &mine = current[std::this_thread::get_id()];
    if (mine.empty()) return EMULATED_INVALID_CONTEXT;
    if (context) *context = mine.back();
    mine.pop_back();
    return EMULATED_OK;
}
API cuCtxSynchronize(void)
{
    ENTER(IN_CONTEXT);
    return drain_all();
}

/* ---- Memory ------------------------------------------------------------------------------------------ */

API cuMemGetInfo_v2(size_t *free, size_t *total)
{
    ENTER(IN_CONTEXT);
    size_t used;
    emulator_allocated(&used);
    cuDeviceTotalMem_v2(total, 0);
    *free = *total - used;
    return EMULATED_OK;
}
API cuMemAlloc_v2(void **p, size_t n)
{
    ENTER(IN_CONTEXT);
    return emulator_alloc(n, p);
}
API cuMemFree_v2(void *p)
{
    std::lock_guard<std::recursive_mutex> hold(everything);
    if (int result = enter(__func__, IN_CONTEXT)) {
        if (broken) emulator_free(p);
        return result;
    }
    const int result = drain_all();
    return emulator_free(p) ? refuse("cuMemFree: not the start of an allocation") : result;
}
API cuMemAllocHost_v2(void **p, size_t n)
{
    ENTER(IN_CONTEXT);
    return emulator_alloc_host(n, p);
}
API cuMemFreeHost(void *p)
{
    std::lock_guard<std::recursive_mutex> hold(everything);
    const int result = broken ? broken : drain_all();
    return emulator_free_host(p) ? refuse("cuMemFreeHost: not the start of page-locked memory") : result;
}

static int copy_later(void *s, void *dst, const void *src, size_t n)
{
    return emulator_enqueue(s, [=] { return memcpy(dst, src, n), EMULATED_OK; });
}

/* Ordinary memory is read at once, and written before the call returns; page-locked memory when the work is done. */
API cuMemcpyHtoDAsync_v2(void *dst, const void *src, size_t n, void *s)
{
    ENTER(IN_CONTEXT);
    if (!emulator_is_device(dst, n)) return refuse("cuMemcpyHtoDAsync: the target is not device memory");
    if (emulator_is_device(src, 0)) return refuse("cuMemcpyHtoDAsync: the source is device memory");
    if (emulator_is_pinned(src, n)) return copy_later(s, dst, src, n);
    std::vector<char> bytes((const char *)src, (const char *)src + n);
    return emulator_enqueue(s, [=] { return memcpy(dst, bytes.data(), n), EMULATED_OK; });
}
API cuMemcpyDtoHAsync_v2(void *dst, const void *src, size_t n, void *s)
{
    ENTER(IN_CONTEXT);
    if (!emulator_is_device(src, n)) return refuse("cuMemcpyDtoHAsync: the source is not device memory");
    if (emulator_is_device(dst, 0)) return refuse("cuMemcpyDtoHAsync: the target is device memory");
    const int result = copy_later(s, dst, src, n);
    return result || emulator_is_pinned(dst, n) ? result : drain(stream_of(s), nullptr);
}
API cuMemcpyDtoDAsync_v2(void *dst, const void *src, size_t n, void *s)
{
    ENTER(IN_CONTEXT);
    if (!emulator_is_device(dst, n) || !emulator_is_device(src, n))
        return refuse("cuMemcpyDtoDAsync: source or target is not device memory");
    if (dst != src && (char *)dst < (const char *)src + n && (const char *)src < (char *)dst + n)
        return refuse("cuMemcpyDtoDAsync: source and target overlap");
    return emulator_enqueue(s, [=] { return memmove(dst, src, n), EMULATED_OK; });
}

/* ---- Streams and events ---------------------------------------------------------------------------------- */

API cuStreamCreate(void **s, unsigned)
{
    ENTER(IN_CONTEXT);
    stream *made = new stream;
    streams.insert(made);
    *s = made;
    return EMULATED_OK;
}
API cuStreamDestroy_v2(void *s)
{
    std::lock_guard<std::recursive_mutex> hold(everything);
    if (!s || !emulator_is_stream(s)) return refuse("cuStreamDestroy: no such stream");
    const int result = broken ? broken : drain((stream *)s, nullptr);
    streams.erase((stream *)s);
    delete (stream *)s;
    return result;
}
API cuStreamSynchronize(void *s)
{
    ENTER(IN_CONTEXT);
    return emulator_is_stream(s) ? drain(stream_of(s), nullptr) : refuse("cuStreamSynchronize: no such stream");
}
API cuEventCreate(void **e, unsigned)
{
    ENTER(IN_CONTEXT);
    event *made = new event{false, nullptr};
    events.insert(made);
    *e = made;
    return EMULATED_OK;
}
API cuEventDestroy_v2(void *e)
{
    std::lock_guard<std::recursive_mutex> hold(everything);
    if (!events.count((event *)e)) return refuse("cuEventDestroy: no such event");
    event *x = (event *)e;
    const int result = broken || !x->pending ? broken : drain(x->in, x);
    events.erase(x);
    delete x;
    return result;
}
API cuEventRecord(void *e, void *s)
{
    ENTER(IN_CONTEXT);
    if (!events.count((event *)e)) return refuse("cuEventRecord: no such event");
    event *x = (event *)e;
    if (x->pending) drain(x->in, x); /* an older mark */
    *x = {true, stream_of(s)};
    return emulator_enqueue(s, [=] { return x->pending = false, EMULATED_OK; });
}
API cuEventSynchronize(void *e)
{
    ENTER(IN_CONTEXT);
    if (!events.count((event *)e)) return refuse("cuEventSynchronize: no such event");
    event *x = (event *)e;
    return x->pending ? drain(x->in, x) : EMULATED_OK;
}

/* ---- Kernels ------------------------------------------------------------------------------------------------ */

API cuModuleLoadData(void **m, const void *image)
{
    ENTER(IN_CONTEXT);
    const uint32_t FATBIN = 0xba55ed50u;
    if (!image || memcmp(image, &FATBIN, sizeof FATBIN)) return EMULATED_INVALID_IMAGE;
    if (setting("EMULATOR_CAPABILITY", 90) < 75) return EMULATED_NO_BINARY;
    module *made = new module;
    modules.insert(made);
    *m = made;
    return EMULATED_OK;
}
API cuModuleUnload(void *m)
{
    std::lock_guard<std::recursive_mutex> hold(everything);
    if (!modules.count((module *)m)) return refuse("cuModuleUnload: no such module");
    const int result = broken ? broken : drain_all();
    modules.erase((module *)m);
    delete (module *)m;
    return result;
}
API cuModuleGetFunction(void **f, void *m, const char *name)
{
    ENTER(IN_CONTEXT);
    if (!modules.count((module *)m)) return refuse("cuModuleGetFunction: no such module");
    const emulated_kernel *kernel = emulated_kernel_find(name);
    if (!kernel) return EMULATED_NOT_FOUND;
    *f = &(((module *)m)->functions[name] = {kernel, 48 << 10});
    return EMULATED_OK;
}
API cuFuncSetAttribute(void *f, int attribute, int value)
{
    ENTER(IN_CONTEXT);
    int most = 0;
    cuDeviceGetAttribute(&most, 97, 0);
    if (attribute != 8 || value < 0 || value > most) return refuse("cuFuncSetAttribute: too much shared memory");
    ((function *)f)->shared = (size_t)value;
    return EMULATED_OK;
}
API cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *s, void **args, void **extra)
{
    ENTER(IN_CONTEXT);
    const function *fn = (const function *)f;
    const uint64_t threads = (uint64_t)bx * by * bz;
    if (!fn || extra || threads == 0 || threads > 1024 || bz > 64 || gx == 0 || gy == 0 || gz == 0 ||
        gx > 0x7fffffffu || gy > 65535 || gz > 65535 || shared > fn->shared) {
        emulator_say("cuLaunchKernel: %s: grid %u %u %u, block %u %u %u, %u bytes of shared memory",
                     fn ? fn->kernel->name : "no function", gx, gy, gz, bx, by, bz, shared);
        return EMULATED_INVALID_VALUE;
    }
    if (int result = emulator_injected("cuLaunchKernel", EMULATED_ILLEGAL_ADDRESS))
        return result < EMULATED_ILLEGAL_ADDRESS ? result : emulator_enqueue(s, [=] { return result; });
    const emulated_launch launch = {fn->kernel->name, {gx, gy, gz}, {bx, by, bz}, shared, fn->kernel->bind(args)};
    return emulator_enqueue(s, [=] { return emulator_run(launch), EMULATED_OK; });
}

/* ---- Errors ----------------------------------------------------------------------------------------------------- */

static const struct {
    int result;
    const char *name, *text;
} ERRORS[] = {
    {EMULATED_OK, "CUDA_SUCCESS", "no error"},
    {EMULATED_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {EMULATED_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {EMULATED_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {EMULATED_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {EMULATED_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {EMULATED_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {EMULATED_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {EMULATED_NO_BINARY, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {EMULATED_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {EMULATED_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};
API cuGetErrorName(int result, const char **name)
{
    for (const auto &e : ERRORS)
        if (e.result == result) return *name = e.name, EMULATED_OK;
    return *name = NULL, EMULATED_INVALID_VALUE;
}
API cuGetErrorString(int result, const char **text)
{
    for (const auto &e : ERRORS)
        if (e.result == result) return *text = e.text, EMULATED_OK;
    return *text = NULL, EMULATED_INVALID_VALUE;
}
