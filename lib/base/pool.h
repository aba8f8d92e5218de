/* pool.h - the library's own threads. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_POOL_H
#define RZ_POOL_H

#include "base.h"

/* A fixed set of workers shared by every session of a runtime. Several threads may call
 * rz_pool_run at once: each caller works on its own job, idle workers help whoever came first. */
typedef struct rz_pool rz_pool;

/* n_threads counts the caller: n_threads - 1 workers are started, signals blocked in them.
 * Where the system refuses a thread, fewer run and the pool still works: n_threads says how many. */
radz_status rz_pool_create(const rz_host *host, int n_threads, rz_pool **pool, radz_error *err) RZ_CHECK;
void rz_pool_destroy(rz_pool *pool);
int rz_pool_threads(const rz_pool *pool);
bool rz_pool_inside(void); /* is the calling thread in a task? */

/* Calls fn(arg, i) for every 0 <= i < n, in any order and on any thread; returns when all are done.
 * The caller takes part. Never allocates, never fails. Runs serially in a forked child and
 * when called from inside a task. n == 1 or one thread: direct calls. */
void rz_pool_run(rz_pool *pool, size_t n, void (*fn)(void *arg, size_t i), void *arg);

#endif
