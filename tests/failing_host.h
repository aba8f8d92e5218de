/* failing_host.h - a host whose memory runs out when a test says so. SPDX-License-Identifier: Apache-2.0 */
#ifndef FAILING_HOST_H
#define FAILING_HOST_H

#include <stdatomic.h>

#include "base.h"

typedef struct failing_host {
    atomic_long calls; /* allocations asked for */
    atomic_long live;  /* blocks not yet freed: 0 at the end or something leaks */
    long fail_at;      /* this call fails, counted from 1; 0: none */
    bool from_then_on; /* and every later one */
} failing_host;

/* Hooks for a runtime or an rz_host; `user` is the failing_host. */
void *failing_malloc(size_t n, void *user);
void *failing_realloc(void *p, size_t n, void *user);
void failing_free(void *p, void *user);
rz_host failing_hooks(failing_host *f);

/* Runs work(host, arg) with no failure, then with allocation 1, 2, 3... failing, once and from then on, until it
 * succeeds all the same. Work returns its status; the test fails when a failure is anything but RADZ_E_MEMORY or a
 * block is left. */
void failing_host_try_all(radz_status (*work)(const rz_host *host, void *arg), void *arg);

#endif
