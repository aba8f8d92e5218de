/* radz-mpi - radz_comm over MPI, for radz-train and radz-eval to load: neither they nor the library link MPI.
 * SPDX-License-Identifier: Apache-2.0 */
#include "radz-mpi.h"

#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#define MOST ((size_t)1 << 30) /* elements of one call: MPI counts with int */

static MPI_Comm all = MPI_COMM_NULL;
static int n_processes, lost; /* lost: a call failed, the others may be anywhere */

static int sum_f32(float *values, size_t n, void *user)
{
    (void)user;
    for (size_t i = 0; i < n && !lost; i += MOST) {
        size_t k = n - i < MOST ? n - i : MOST;
        lost = MPI_Allreduce(MPI_IN_PLACE, values + i, (int)k, MPI_FLOAT, MPI_SUM, all) != MPI_SUCCESS;
    }
    return lost;
}

/* In rounds, as `all` is in order of rank: one round gathers the same piece of every process. */
static int gather_piece(const char *mine, size_t k, size_t at, size_t n_bytes, char *out)
{
    char *pieces = malloc((size_t)n_processes * k);
    if (!pieces) return 1;
    int failed = MPI_Allgather(mine + at, (int)k, MPI_BYTE, pieces, (int)k, MPI_BYTE, all) != MPI_SUCCESS;
    for (size_t r = 0; r < (size_t)n_processes && !failed; r++) memcpy(out + r * n_bytes + at, pieces + r * k, k);
    free(pieces);
    return failed;
}

static int gather(const void *mine, size_t n_bytes, void *out, void *user)
{
    (void)user;
    if (!lost && n_bytes <= MOST)
        lost = MPI_Allgather(mine, (int)n_bytes, MPI_BYTE, out, (int)n_bytes, MPI_BYTE, all) != MPI_SUCCESS;
    else
        for (size_t i = 0; i < n_bytes && !lost; i += MOST)
            lost = gather_piece(mine, n_bytes - i < MOST ? n_bytes - i : MOST, i, n_bytes, out);
    return lost;
}

static int count_local(int *n)
{
    MPI_Comm local;
    if (MPI_Comm_split_type(all, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local) != MPI_SUCCESS) return 1;
    int failed = MPI_Comm_size(local, n) != MPI_SUCCESS;
    MPI_Comm_free(&local);
    return failed;
}

static int join(radz_comm *comm, int *n_local)
{
    int level;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS) return 1;
    if (level < MPI_THREAD_SERIALIZED || MPI_Comm_dup(MPI_COMM_WORLD, &all) != MPI_SUCCESS) return 1;
    MPI_Comm_set_errhandler(all, MPI_ERRORS_RETURN);
    memset(comm, 0, sizeof *comm);
    comm->struct_size = sizeof *comm;
    comm->sum_f32 = sum_f32, comm->gather = gather;
    if (MPI_Comm_rank(all, &comm->rank) || MPI_Comm_size(all, &comm->size)) return 1;
    n_processes = comm->size;
    return count_local(n_local);
}

static void leave(int broken)
{
    if (broken || lost) MPI_Abort(MPI_COMM_WORLD, broken ? broken : 1);
    MPI_Comm_free(&all);
    MPI_Finalize();
}

/* A visible const struct, so that one dlsym finds everything. */
extern __attribute__((visibility("default"))) const radz_mpi_plug radz_mpi;
const radz_mpi_plug radz_mpi = {RADZ_MPI_VERSION, join, leave};
