/* names.h - strings numbered from 0 in order of first appearance. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_NAMES_H
#define RZ_NAMES_H

#include "base.h"

typedef struct rz_names {
    char **items;
    size_t n, cap, n_slots;
    uint32_t *slots;
} rz_names;
/* *id: the number of s, a new one where it is not there yet. */
radz_status rz_names_add(const rz_host *host, rz_names *t, const char *s, size_t *id, radz_error *err) RZ_CHECK;
/* The same without adding; t->n: not there. */
size_t rz_names_find(const rz_names *t, const char *s);
void rz_names_free(const rz_host *host, rz_names *t); /* safe on a zeroed one */

#endif
