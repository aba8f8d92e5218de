/* pager.h - a model larger than memory: big matrices are read from the files while others are at work. A reader thread
 * fills a ring of rows in the order in which they were asked for the last time. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_PAGER_H
#define RZ_PAGER_H

#include "model.h"

/* Where the matrices lie in the files; of the model. */
typedef struct rz_paging rz_paging;
/* Once every parameter has been filled: those that lie in the mapped files as they are used are read from them from now
 * on. memory_bytes: of one session with all that it needs. RADZ_E_LIMIT: too little. */
radz_status rz_paging_open(rz_model *m, uint64_t memory_bytes, radz_error *err) RZ_CHECK;
void rz_paging_close(rz_paging *p); /* NULL is fine */
/* Bytes of the matrices that a film's pass reads. */
uint64_t rz_paging_film_bytes(const rz_paging *p);
uint64_t rz_paging_ring_bytes(const rz_paging *p);
bool rz_paging_has(const rz_paging *p, const rz_param *param);

/* Memory of a process that reads films one by one with one session, about. */
uint64_t rz_model_peak_bytes(const rz_model *m);

/* The ring and its reader; of one stream. */
typedef struct rz_pager rz_pager;
radz_status rz_pager_open(const rz_model *m, rz_pager **pager, radz_error *err) RZ_CHECK;
void rz_pager_close(rz_pager *pager); /* NULL is fine */
/* Rows of a matrix from `first` on: as many as lie in memory at once, all where the model is resident. *w is good until
 * the next call. 0: failed, which s knows. pager NULL: the parameter's own. */
size_t rz_pager_rows(rz_pager *pager, rz_stream *s, const rz_param *p, size_t first, rz_mat *w);
/* A table of the rows ids[0, n) of p, in the arena of s, in that order. */
rz_mat rz_pager_pick(rz_pager *pager, rz_stream *s, const rz_param *p, const int32_t *ids, size_t n);

#endif
