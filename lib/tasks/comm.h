/* comm.h - what the processes of one training run tell each other. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_COMM_H
#define RZ_COMM_H

#include "device.h"

/* One process: everything here is a no-op. The rule that keeps several from waiting for each other for ever: every
 * exchange comes right after rz_comm_agree, and whoever fails anywhere calls rz_comm_fail once, which answers the
 * others' next rz_comm_agree. */
typedef struct rz_comm {
    const rz_host *host;
    radz_comm c;
    int rank, size; /* 0, 1: alone */
    size_t max_bytes;
    void *buffer; /* size * max_bytes: what is gathered; taken at the start, so that no exchange can fail for memory */
    bool over;    /* all know that one failed: no exchange any more */
} rz_comm;

/* max_bytes: what one process tells the others at most. */
radz_status rz_comm_open(const rz_host *host, const radz_comm *c, size_t max_bytes, rz_comm *out,
                         radz_error *err) RZ_CHECK;
void rz_comm_close(rz_comm *c); /* safe on a zeroed one */
/* Returns when every process is here; the first failure, by rank, is everyone's. */
radz_status rz_comm_agree(rz_comm *c, radz_error *err) RZ_CHECK;
/* Tells the others of this process's failure unless they know; returns it. RADZ_OK: does nothing. */
radz_status rz_comm_fail(rz_comm *c, radz_status mine, const radz_error *err);

/* Device memory: every process gets the sum. */
radz_status rz_comm_sum(rz_comm *c, rz_stream *s, float *values, size_t n, radz_error *err) RZ_CHECK;
radz_status rz_comm_sum_doubles(rz_comm *c, double *values, size_t n, radz_error *err) RZ_CHECK;
/* flags[i]: 1 where any process had 1. */
radz_status rz_comm_any(rz_comm *c, uint8_t *flags, size_t n, radz_error *err) RZ_CHECK;
/* RADZ_E_MISMATCH unless every process has the same text. */
radz_status rz_comm_same(rz_comm *c, const char *text, const char *what, radz_error *err) RZ_CHECK;

/* This process's share of n things: first .. first + *count - 1. */
size_t rz_comm_share(const rz_comm *c, size_t n, size_t *count);

#endif
