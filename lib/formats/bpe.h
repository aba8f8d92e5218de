/* bpe.h - the merge loop and the symbol sets that all kinds of BPE share. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_BPE_H
#define RZ_BPE_H

#include "base.h"

/* A run of bytes that is one piece so far; a list in order of the text. len 0: swallowed by its left neighbour. */
typedef struct rz_bpe_symbol {
    uint32_t pos, len;
    int32_t prev, next, id;
} rz_bpe_symbol;

typedef struct rz_bpe_pair rz_bpe_pair;

/* Zero-initialise with host, look and ctx set; use it for many words; free it at the end. */
typedef struct rz_bpe {
    const rz_host *host;
    /* Whether two neighbours merge, how soon (smaller ranks first, then from left to right) and what they become. What
     * merges must depend on nothing but the two, and no two texts of different length may give the same id. */
    bool (*look)(void *ctx, const rz_bpe_symbol *a, const rz_bpe_symbol *b, uint32_t *rank, int32_t *merged);
    void *ctx;
    rz_bpe_symbol *symbols; /* the first is 0 */
    size_t n_symbols, cap_symbols;
    rz_bpe_pair *heap;
    size_t n_heap, cap_heap;
    bool no_memory; /* check once at the end */
} rz_bpe;
void rz_bpe_clear(rz_bpe *b);
void rz_bpe_add(rz_bpe *b, uint32_t pos, uint32_t len, int32_t id); /* len > 0 */
void rz_bpe_merge(rz_bpe *b);
void rz_bpe_free(rz_bpe *b);

/* Growing ids. */
typedef struct rz_ids {
    const rz_host *host;
    int32_t *data;
    size_t n, cap;
    bool failed;
} rz_ids;
void rz_ids_put(rz_ids *ids, int32_t id);

/* A set of texts, for the longest one that a text begins with. */
typedef struct rz_text_item {
    const char *text; /* borrowed */
    uint32_t len;
    int32_t value;
} rz_text_item;
typedef struct rz_text_set {
    rz_text_item *items; /* sorted by rz_text_set_sort */
    size_t n;
    bool first[256]; /* bytes that some item begins with */
} rz_text_set;
void rz_text_set_sort(rz_text_set *set);
const rz_text_item *rz_text_set_longest(const rz_text_set *set, const char *s, size_t n); /* NULL: none */

#endif
