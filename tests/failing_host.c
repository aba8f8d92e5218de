/* failing_host.c - a host whose memory runs out when a test says so. SPDX-License-Identifier: Apache-2.0 */
#include "failing_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static bool refuses(failing_host *f)
{
    long call = atomic_fetch_add(&f->calls, 1) + 1;
    return f->fail_at && (f->from_then_on ? call >= f->fail_at : call == f->fail_at);
}

void *failing_realloc(void *p, size_t n, void *user)
{
    failing_host *f = user;
    void *q = refuses(f) ? NULL : realloc(p, n);
    if (q && !p) atomic_fetch_add(&f->live, 1);
    return q;
}

void *failing_malloc(size_t n, void *user)
{
    return failing_realloc(NULL, n, user);
}

void failing_free(void *p, void *user)
{
    failing_host *f = user;
    if (p) atomic_fetch_sub(&f->live, 1);
    free(p);
}

rz_host failing_hooks(failing_host *f)
{
    return (rz_host){failing_malloc, failing_realloc, failing_free, NULL, f};
}

/* Returns how many allocations were asked for. */
static long try_once(radz_status (*work)(const rz_host *, void *), void *arg, long fail_at, bool from_then_on)
{
    failing_host f = {.fail_at = fail_at, .from_then_on = from_then_on};
    rz_host host = failing_hooks(&f);
    radz_status status = work(&host, arg);
    if (status != RADZ_OK && (!fail_at || status != RADZ_E_MEMORY)) fail_msg("allocation %ld: %d", fail_at, status);
    if (status == RADZ_OK && from_then_on && f.calls >= fail_at) fail_msg("allocation %ld: not noticed", fail_at);
    if (f.live) fail_msg("allocation %ld fails: %ld blocks are left", fail_at, (long)f.live);
    return f.calls;
}

void failing_host_try_all(radz_status (*work)(const rz_host *host, void *arg), void *arg)
{
    long n = try_once(work, arg, 0, false);
    for (long i = 1; i <= n; i++) {
        try_once(work, arg, i, false);
        try_once(work, arg, i, true);
    }
}
