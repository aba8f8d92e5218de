/* worker.h - one thread that does one job at a time beside its owner. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_WORKER_H
#define RZ_WORKER_H

#include "base.h"

typedef struct rz_worker rz_worker;

/* Signals are blocked in the thread. Where the system refuses one, a job is done when its owner waits for it. */
radz_status rz_worker_open(const rz_host *host, void (*fn)(void *arg), void *arg, rz_worker **w,
                           radz_error *err) RZ_CHECK;
void rz_worker_close(rz_worker *w); /* waits; NULL is fine */
/* Calls fn(arg) once, soon; the job before must have been waited for. */
void rz_worker_start(rz_worker *w);
/* Returns when no job is left. NULL is fine. */
void rz_worker_wait(rz_worker *w);

#endif
