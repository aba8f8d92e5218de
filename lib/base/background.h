/* background.h - one piece of work beside the caller's own. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_BACKGROUND_H
#define RZ_BACKGROUND_H

#include <pthread.h>

#include "base.h"

typedef struct rz_background {
    void (*fn)(void *arg);
    void *arg;
    pthread_t thread;
    bool started;
} rz_background;

/* fn(arg) runs on a thread of its own, signals blocked; where none can be had, at once on this one. */
void rz_background_start(rz_background *b, void (*fn)(void *arg), void *arg);
/* Returns when it is done; nothing where nothing was started. */
void rz_background_wait(rz_background *b);

#endif
