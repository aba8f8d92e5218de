/* memory.cpp - see machine.h. SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>

#include "engine.h"
#include "machine.h"

namespace
{

const size_t SPACE = (size_t)1 << 40, PAGE = 4096, ALIGN = 256, PATTERN = 4 << 20;

struct allocation {
    size_t size, mapped;
};

char *space, *next_address;
std::map<uintptr_t, allocation> allocations; /* by their first byte */
std::map<uintptr_t, size_t> pinned;
bool unlocked;

size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}
uintptr_t page_of(uintptr_t p)
{
    return p / PAGE * PAGE;
}

template <class V> typename std::map<uintptr_t, V>::iterator find(std::map<uintptr_t, V> &in, const void *p)
{
    auto it = in.upper_bound((uintptr_t)p);
    return it == in.begin() ? in.end() : --it;
}

/* ---- Signals: says who touched what, then leaves it to whoever was asked before ------------------ */

const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
struct sigaction before[4];

void on_signal(int number, siginfo_t *info, void *)
{
    char where[512];
    const char *at = (const char *)info->si_addr;
    const bool inside = space && at >= space && at < space + SPACE;
    auto it = find(allocations, at);
    const size_t off = it == allocations.end() ? 0 : (size_t)((uintptr_t)at - it->first);
    const size_t size = it == allocations.end() ? 0 : it->second.size;
    const char *what = number == SIGILL   ? "misaligned access, array index or shift out of range"
                       : number == SIGFPE ? "division by zero"
                                          : "access to memory that is not there";
    if (emulator_where(where, sizeof where))
        emulator_say("%s: %s: %p, byte %zu of an allocation of %zu", where, what, (const void *)at, off, size);
    else if (inside)
        emulator_say("the host touches device memory: %p, byte %zu of an allocation of %zu", (const void *)at, off,
                     size);
    for (size_t i = 0; i < 4; i++) sigaction(SIGNALS[i], &before[i], NULL); /* it happens again */
}

/* Test frameworks set their own handlers before each test. */
void watch_signals()
{
    struct sigaction mine = {}, old;
    mine.sa_sigaction = on_signal;
    mine.sa_flags = SA_SIGINFO | SA_NODEFER;
    for (size_t i = 0; i < 4; i++) {
        sigaction(SIGNALS[i], NULL, &old);
        if (old.sa_sigaction == on_signal) continue;
        before[i] = old;
        sigaction(SIGNALS[i], &mine, NULL);
    }
}

/* A file of 0xff. Allocations are private views of it: pages that nobody touches cost nothing. */
int pattern_file()
{
    static int fd = -1;
    if (fd >= 0) return fd;
    fd = memfd_create("emulator", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)PATTERN)) abort();
    void *p = mmap(NULL, PATTERN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) abort();
    memset(p, 0xff, PATTERN);
    munmap(p, PATTERN);
    return fd;
}

bool map_pattern(char *start, size_t n)
{
    const int protection = unlocked ? PROT_READ | PROT_WRITE : PROT_NONE;
    for (size_t at = 0; at < n; at += PATTERN) {
        const size_t part = n - at < PATTERN ? n - at : PATTERN;
        if (mmap(start + at, part, protection, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, pattern_file(), 0) ==
            MAP_FAILED)
            return false;
    }
    return true;
}

void protect(int how)
{
    for (const auto &a : allocations)
        if (mprotect((void *)page_of(a.first), a.second.mapped, how)) abort();
}

} // namespace

void emulator_say(const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "emulator: %s\n", text);
}

void emulator_unlock(void)
{
    watch_signals();
    if (!unlocked) protect(PROT_READ | PROT_WRITE);
    unlocked = true;
}
void emulator_lock(void)
{
    if (unlocked) protect(PROT_NONE);
    unlocked = false;
}

int emulator_alloc(size_t n, void **p)
{
    if (!space) {
        void *at = mmap(NULL, SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) abort();
        space = next_address = (char *)at;
    }
    const char *limit = getenv("EMULATOR_MEMORY");
    size_t used;
    emulator_allocated(&used);
    if (n == 0) return EMULATED_INVALID_VALUE;
    const size_t most = limit ? strtoull(limit, NULL, 10) : (size_t)8 << 30;
    if (n > most || used > most - n || n > SPACE / 2) return EMULATED_OUT_OF_MEMORY;
    const size_t mapped = round_up(n, PAGE);
    if (next_address + mapped + PAGE > space + SPACE) return EMULATED_OUT_OF_MEMORY;
    char *start = next_address;
    next_address += mapped + PAGE;
    if (!map_pattern(start, mapped)) return EMULATED_OUT_OF_MEMORY;
    *p = start + mapped - round_up(n, ALIGN);
    allocations[(uintptr_t)*p] = {n, mapped};
    watch_signals();
    return EMULATED_OK;
}

int emulator_free(void *p)
{
    auto it = allocations.find((uintptr_t)p);
    if (it == allocations.end()) return EMULATED_INVALID_VALUE;
    void *start = (void *)page_of(it->first);
    if (mmap(start, it->second.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) !=
        start)
        abort();
    allocations.erase(it);
    return EMULATED_OK;
}

size_t emulator_allocated(size_t *n_bytes)
{
    *n_bytes = 0;
    for (const auto &a : allocations) *n_bytes += a.second.size;
    return allocations.size();
}

bool emulator_is_device(const void *p, size_t n)
{
    auto it = find(allocations, p);
    if (it == allocations.end()) return false;
    const size_t off = (size_t)((uintptr_t)p - it->first);
    return off <= it->second.size && n <= it->second.size - off;
}

int emulator_alloc_host(size_t n, void **p)
{
    if (n == 0) return EMULATED_INVALID_VALUE;
    if (posix_memalign(p, PAGE, n)) return EMULATED_OUT_OF_MEMORY;
    memset(*p, 0xff, n);
    pinned[(uintptr_t)*p] = n;
    return EMULATED_OK;
}

int emulator_free_host(void *p)
{
    if (!pinned.erase((uintptr_t)p)) return EMULATED_INVALID_VALUE;
    free(p);
    return EMULATED_OK;
}

bool emulator_is_pinned(const void *p, size_t n)
{
    auto it = find(pinned, p);
    return it != pinned.end() && (uintptr_t)p - it->first + n <= it->second;
}

size_t emulator_pinned(void)
{
    return pinned.size();
}
