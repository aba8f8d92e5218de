/* background.c - one piece of work beside the caller's own. SPDX-License-Identifier: Apache-2.0 */
#include "background.h"

#include <signal.h>

static void *run(void *p)
{
    rz_background *b = p;
    b->fn(b->arg);
    return NULL;
}

void rz_background_start(rz_background *b, void (*fn)(void *arg), void *arg)
{
    sigset_t all, before;
    b->fn = fn, b->arg = arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    b->started = pthread_create(&b->thread, NULL, run, b) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!b->started) fn(arg);
}

void rz_background_wait(rz_background *b)
{
    if (b->started) pthread_join(b->thread, NULL);
    b->started = false;
}
