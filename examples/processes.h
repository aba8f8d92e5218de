/* processes.h - the processes that mpirun has started, by way of radz-mpi.so. SPDX-License-Identifier: Apache-2.0 */
#ifndef RADZ_EXAMPLES_PROCESSES_H
#define RADZ_EXAMPLES_PROCESSES_H

#include <radz.h>

typedef struct processes {
    radz_comm comm; /* alone: struct_size 0, rank 0, size 0 */
    int n_local;    /* of them on this machine */
    void (*close)(int broken);
} processes;

/* Alone unless mpirun has started several. 0, or an exit status after a message: then this process must end, and MPI
 * ends the others. */
int join_processes(processes *p);
/* broken: an exit status when this process leaves without the others' knowing; else 0. Does not return then. */
void leave_processes(processes *p, int broken);
/* This process's share of the cores that it may use. */
int share_cores(const processes *p);

#endif
