/* Programs that run for long. SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

volatile sig_atomic_t interrupted;

static void on_signal(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

void catch_interrupts(bool several)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    /* A second Ctrl-C ends the program at once; mpirun may pass one on twice, and ends it by other means. */
    action.sa_flags = several ? SA_RESTART : SA_RESTART | (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (several) sigaction(SIGUSR1, &action, NULL); /* mpirun passes it on and lets everyone finish */
}

bool on_terminal(void)
{
    const char *kind = getenv("TERM");
    return isatty(STDERR_FILENO) && kind && *kind && strcmp(kind, "dumb") != 0;
}

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void format_time(char *out, size_t n, double seconds)
{
    const long s = seconds >= 0 && seconds < 1e9 ? lround(seconds) : -1;
    if (s < 0)
        snprintf(out, n, "?");
    else if (s >= 3600)
        snprintf(out, n, "%ld h %02ld min", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(out, n, "%ld min %02ld s", s / 60, s % 60);
    else
        snprintf(out, n, "%ld s", s);
}
