/* processes.c - the processes that mpirun has started, by way of radz-mpi.so. SPDX-License-Identifier: Apache-2.0 */
#include "processes.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "mpi/radz-mpi.h"

#define PLUG "radz-mpi.so" /* found where the library is: dlopen follows the program's run path */

/* What OpenMPI, and MPICH with its relatives, tell the processes that they start. */
static int started_several(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < COUNT(names); i++) {
        const char *n = getenv(names[i]);
        if (n && strtol(n, NULL, 10) > 1) return 1;
    }
    return 0;
}

int join_processes(processes *p)
{
    memset(p, 0, sizeof *p);
    if (!started_several()) return 0;
    /* GLOBAL: MPI loads parts of itself that look for its symbols. Never closed: it leaves threads and handlers. */
    void *plug = dlopen(PLUG, RTLD_NOW | RTLD_GLOBAL);
    const radz_mpi_plug *mpi = plug ? dlsym(plug, "radz_mpi") : NULL;
    if (!mpi) {
        complain("started by mpirun, but %s; built where mpicc is, it lets several processes work together", dlerror());
        return EXIT_FILM;
    }
    if (mpi->version != RADZ_MPI_VERSION) {
        complain("%s: version %d, this program needs %d", PLUG, mpi->version, RADZ_MPI_VERSION);
        return EXIT_FILM;
    }
    if (mpi->open(&p->comm, &p->n_local)) {
        complain("%s: MPI does not start", PLUG);
        return EXIT_FILM;
    }
    p->close = mpi->close;
    if (p->comm.size > 1) return 0;
    complain("started by mpirun as one of several, but %s finds this process alone: another MPI's?", PLUG);
    leave_processes(p, EXIT_FILM);
    return EXIT_FILM;
}

void leave_processes(processes *p, int broken)
{
    if (p->close) p->close(broken);
    p->close = NULL;
}

int share_cores(const processes *p)
{
    cpu_set_t set;
    long n = sysconf(_SC_NPROCESSORS_ONLN), mine = n;
    if (sched_getaffinity(0, sizeof set, &set) == 0) mine = CPU_COUNT(&set);
    if (p->n_local > 1 && mine >= n) mine = n / p->n_local; /* else mpirun has dealt them out */
    return mine < 1 ? 1 : (int)mine;
}
