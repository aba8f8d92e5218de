/* progress.h - programs that run for long: what time it is, how long it takes, and how to stop them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RADZ_EXAMPLES_PROGRESS_H
#define RADZ_EXAMPLES_PROGRESS_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

extern volatile sig_atomic_t interrupted; /* 1: Ctrl-C or SIGTERM came; progress functions return it */
/* From now on. several: of the processes that mpirun has started. */
void catch_interrupts(bool several);

/* Standard error is one on which a line can be drawn over: not a file, a pipe or Emacs's shell. */
bool on_terminal(void);
double now(void); /* seconds, only differences mean something */
/* "2 h 05 min", "3 min 04 s", "12 s"; "?" where it is not known. */
void format_time(char *out, size_t n, double seconds);

#endif
