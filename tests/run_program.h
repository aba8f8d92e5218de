/* run_program.h - a program as its users meet it: arguments in, output and exit status out.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RUN_PROGRAM_H
#define RUN_PROGRAM_H

#include <stddef.h>

/* Where standard output goes. */
enum { TO_FILE, TO_FULL, TO_NOTHING };

typedef struct run {
    int status;
    char *out, *err;
    size_t n_out;
} run;

extern const char *run_folder; /* where its output is kept meanwhile: set it first */

/* argv ends with NULL; input: a file, NULL for none. */
run run_program(const char *const *argv, const char *input, int output);
void run_done(run *r);
/* Lets mpirun start here: root, a container, fewer cores than processes. */
void run_allow_mpi(void);
/* Words that must be there may be NULL. */
void run_expect(const run *r, int status, const char *out_words, const char *err_words);

#endif
