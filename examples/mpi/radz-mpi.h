/* radz-mpi.h - what radz-train and radz-eval find in radz-mpi.so. SPDX-License-Identifier: Apache-2.0 */
#ifndef RADZ_MPI_H
#define RADZ_MPI_H

#include <radz.h>

#define RADZ_MPI_VERSION 1

/* The only symbol: radz_mpi. */
typedef struct radz_mpi_plug {
    int version;
    /* Joins the processes that mpirun has started. n_local: how many of them are on this machine. 0: done. */
    int (*open)(radz_comm *comm, int *n_local);
    /* Waits for the others, or, with broken (they may not come any more), ends them all with that status. */
    void (*close)(int broken);
} radz_mpi_plug;

#endif
