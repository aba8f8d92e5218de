/* engine.cpp - see engine.h. SPDX-License-Identifier: Apache-2.0 */
#include "engine.h"

#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <vector>

#ifndef __x86_64__
#include <ucontext.h>
#endif

uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace
{

enum {
    LANES = 32,
    MOST_THREADS = 1024,
    STACK = 128 << 10,
    STRIDE = STACK + 17 * 64,
    SLOT = 128,
    MOST_SHARED = EMULATOR_SHARED,
    GUARD = 64 << 10
};
/* STRIDE: from stack to stack, so that they do not meet in the same places of a cache. */
const uint64_t CANARY = 0x5afe57ac5afe57acu;

enum state { FRESH, READY, AT_WARP, AT_BLOCK, DONE };

/* ---- Fibers: a stack, and the registers that a call must keep ------------------------------ */

#ifdef __x86_64__
typedef void *context;
extern "C" void rz_emulator_switch(context *from, context *to);
asm(R"(
.text
.globl rz_emulator_switch
.hidden rz_emulator_switch
.type rz_emulator_switch, @function
rz_emulator_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov (%rsi), %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size rz_emulator_switch, .-rz_emulator_switch
)");
void prepare(context *c, char *stack, void (*entry)())
{
    void **top = (void **)(stack + STACK) - 1; /* at entry the stack is 8 off from a multiple of 16 */
    *top = nullptr;
    *--top = (void *)entry;
    *c = top - 6;
}
#else
typedef ucontext_t context;
void rz_emulator_switch(context *from, context *to)
{
    swapcontext(from, to);
}
void prepare(context *c, char *stack, void (*entry)())
{
    getcontext(c);
    c->uc_stack.ss_sp = stack;
    c->uc_stack.ss_size = STACK;
    c->uc_link = nullptr;
    makecontext(c, entry, 0);
}
#endif

struct later {
    void *dst;
    const void *src;
    size_t present, size;
};

struct fiber {
    context at;
    state is;
    uint3 index;
    unsigned parity; /* which of the two sets of slots it uses */
    size_t bytes;    /* of the collective that it waits in */
    std::vector<later> copies;
};

const emulated_launch *running;
fiber fibers[MOST_THREADS];
fiber *current;
context scheduler;
char *stacks;
alignas(16) unsigned char slots[2][MOST_THREADS][SLOT];
/* Ends where memory that nobody may touch begins. */
unsigned char *dynamic_end, *dynamic_start;
thread_local char first_shared; /* so that there is one */

void fiber_main()
{
    running->thread();
    if (!current->copies.empty()) rz_emulator_abort("ends without waiting for its copies");
    current->is = DONE;
    rz_emulator_switch(&current->at, &scheduler);
}

void resume(unsigned i)
{
    fiber *f = &fibers[i];
    char *stack = stacks + (size_t)i * STRIDE;
    if (f->is == FRESH) {
        prepare(&f->at, stack, fiber_main);
        *(uint64_t *)stack = CANARY;
    }
    f->is = READY;
    current = f;
    threadIdx = f->index;
    rz_emulator_switch(&scheduler, &f->at);
    if (f->is == DONE && *(uint64_t *)stack != CANARY) rz_emulator_abort("its stack of 128 KiB is too small");
}

void wait(state where, size_t bytes)
{
    current->is = where;
    current->bytes = bytes;
    rz_emulator_switch(&current->at, &scheduler);
}

/* ---- Order: every i of n once, from a start with a stride that has no factor in common with n ------ */

struct order {
    unsigned n, start, stride;
    unsigned operator[](unsigned i) const { return (unsigned)((start + (uint64_t)i * stride) % n); }
};

unsigned common_factor(unsigned a, unsigned b)
{
    return b ? common_factor(b, a % b) : a;
}

uint64_t random_state = 1;
unsigned random_below(unsigned n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((random_state >> 33) % n);
}

order make_order(unsigned n)
{
    const char *wish = getenv("EMULATOR_ORDER");
    if (wish && !strcmp(wish, "forward")) return {n, 0, 1};
    if (wish && !strcmp(wish, "backward")) return {n, n - 1, n - 1 ? n - 1 : 1};
    order o = {n, random_below(n), 1 + random_below(n)};
    while (common_factor(o.stride, n) != 1) o.stride++;
    return o;
}

void list_order(unsigned char *list, unsigned n)
{
    const order o = make_order(n);
    for (unsigned i = 0; i < n; i++) list[i] = (unsigned char)o[i];
}

/* ---- A block ------------------------------------------------------------------------------------------ */

struct region {
    void *start;
    size_t size;
};

/* The thread-local variables of this library: what the kernels call __shared__, and nothing else. */
int find_shared(struct dl_phdr_info *info, size_t, void *found)
{
    bool here = false;
    size_t size = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &p = info->dlpi_phdr[i];
        const uintptr_t start = info->dlpi_addr + p.p_vaddr, self = (uintptr_t)&find_shared;
        here |= p.p_type == PT_LOAD && self >= start && self < start + p.p_memsz;
        if (p.p_type == PT_TLS) size = p.p_memsz;
    }
    if (here && info->dlpi_tls_data) *(region *)found = {info->dlpi_tls_data, size};
    return here;
}

void fail_at(unsigned i, const char *what)
{
    threadIdx = fibers[i].index;
    rz_emulator_abort(what);
}

/* Runs a warp until every lane waits for the block or is done. */
void run_warp(unsigned first, unsigned n, const unsigned char *lanes)
{
    for (;;) {
        unsigned at_warp = 0, example = first;
        for (unsigned i = 0; i < LANES; i++) {
            const unsigned lane = lanes[i], f = first + lane;
            if (lane >= n) continue;
            if (fibers[f].is == FRESH || fibers[f].is == READY) resume(f);
            if (fibers[f].is == AT_WARP) at_warp++, example = f;
        }
        if (at_warp == 0) return;
        for (unsigned f = first; f < first + n; f++)
            if (fibers[f].is != AT_WARP || fibers[f].bytes != fibers[example].bytes)
                fail_at(f, fibers[f].is == DONE ? "is done, while others of its warp wait in a collective"
                           : fibers[f].is == AT_BLOCK
                               ? "waits for the block, while others of its warp wait for the warp"
                               : "waits in another collective than others of its warp");
        if (n < LANES) fail_at(example, "a warp collective in a warp of fewer than 32 threads");
        for (unsigned f = first; f < first + n; f++) fibers[f].is = READY;
    }
}

void run_block(unsigned n, const unsigned char *warps, const unsigned char *lanes)
{
    const unsigned n_warps = (n + LANES - 1) / LANES;
    for (unsigned i = 0; i < n; i++) {
        const unsigned x = i % blockDim.x, y = i / blockDim.x % blockDim.y, z = i / blockDim.x / blockDim.y;
        fibers[i].is = FRESH;
        fibers[i].index = {x, y, z};
        fibers[i].parity = 0;
    }
    for (;;) {
        unsigned done = 0, odd = 0;
        for (unsigned w = 0; w < n_warps; w++) {
            const unsigned first = warps[w] * LANES;
            run_warp(first, n - first < LANES ? n - first : (unsigned)LANES, lanes);
        }
        for (unsigned i = 0; i < n; i++)
            if (fibers[i].is == DONE) done++, odd = i;
        if (done == n) return;
        if (done) fail_at(odd, "is done, while other threads wait in __syncthreads");
        for (unsigned i = 0; i < n; i++) fibers[i].is = READY;
    }
}

char *reserve(size_t size, size_t guard)
{
    char *p =
        (char *)mmap(nullptr, size + guard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || (guard && mprotect(p + size, guard, PROT_NONE))) abort();
    return p;
}

} // namespace

void *rz_emulator_shared(void)
{
    return dynamic_start;
}

void __syncthreads(void)
{
    wait(AT_BLOCK, 0);
}

unsigned rz_emulator_lane_id(void)
{
    return (unsigned)(current - fibers) % LANES;
}

void rz_emulator_exchange(const void *mine, size_t bytes)
{
    if (bytes > SLOT) rz_emulator_abort("exchanges more than 128 bytes");
    current->parity ^= 1;
    if (bytes) memcpy(slots[current->parity][current - fibers], mine, bytes);
    wait(AT_WARP, bytes);
}

const void *rz_emulator_lane(unsigned lane)
{
    const size_t first = (size_t)(current - fibers) / LANES * LANES;
    return slots[current->parity][first + lane];
}

void rz_emulator_copy_later(void *dst, const void *src, size_t present, size_t size)
{
    if (((uintptr_t)dst | (uintptr_t)src) % size) rz_emulator_abort("an asynchronous copy that is not aligned");
    current->copies.push_back({dst, src, present, size});
}

void rz_emulator_copy_now(void)
{
    for (const later &c : current->copies) {
        memcpy(c.dst, c.src, c.present);
        memset((char *)c.dst + c.present, 0, c.size - c.present);
    }
    current->copies.clear();
}

bool emulator_where(char *text, size_t size)
{
    if (!running) return false;
    snprintf(text, size, "%s, block (%u, %u, %u) of (%u, %u, %u), thread (%u, %u, %u) of (%u, %u, %u)",
             running->kernel.c_str(), blockIdx.x, blockIdx.y, blockIdx.z, gridDim.x, gridDim.y, gridDim.z, threadIdx.x,
             threadIdx.y, threadIdx.z, blockDim.x, blockDim.y, blockDim.z);
    return true;
}

void rz_emulator_abort(const char *what)
{
    char where[512] = "no kernel";
    emulator_where(where, sizeof where);
    fprintf(stderr, "emulator: %s: %s\n", where, what);
    abort();
}

void emulator_run(const emulated_launch &launch)
{
    if (!stacks) stacks = reserve((size_t)MOST_THREADS * STRIDE, 0);
    if (!dynamic_end) dynamic_end = (unsigned char *)reserve(MOST_SHARED, GUARD) + MOST_SHARED;
    dynamic_start = dynamic_end - (launch.shared_bytes + 15) / 16 * 16;
    region shared = {nullptr, 0};
    *(volatile char *)&first_shared = 1;
    dl_iterate_phdr(find_shared, &shared);
    running = &launch;
    gridDim = launch.grid, blockDim = launch.block;
    const unsigned n = blockDim.x * blockDim.y * blockDim.z, n_blocks = gridDim.x * gridDim.y * gridDim.z;
    const order blocks = make_order(n_blocks);
    unsigned char warps[MOST_THREADS / LANES], lanes[LANES];
    list_order(warps, (n + LANES - 1) / LANES);
    list_order(lanes, LANES);
    for (unsigned b = 0; b < n_blocks; b++) {
        const unsigned i = blocks[b];
        blockIdx = {i % gridDim.x, i / gridDim.x % gridDim.y, i / gridDim.x / gridDim.y};
        if (shared.size) memset(shared.start, 0xff, shared.size);
        memset(dynamic_start, 0xff, (size_t)(dynamic_end - dynamic_start));
        run_block(n, warps, lanes);
    }
    running = nullptr;
}
