/* bpe.c - merges neighbours, best pair first, in near-linear time; finds the longest symbol that a text begins with.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "bpe.h"

/* Two neighbours that merge; stale once one of them has changed its length. */
struct rz_bpe_pair {
    uint32_t rank;
    int32_t left, right, merged;
    uint32_t len;
};

static bool better(const rz_bpe_pair *a, const rz_bpe_pair *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->left < b->left);
}

static void push_pair(rz_bpe *b, rz_bpe_pair p)
{
    size_t i = b->n_heap;
    if (i == b->cap_heap) {
        size_t cap = i ? i * 2 : 256;
        rz_bpe_pair *heap = rz_realloc(b->host, b->heap, cap, sizeof *heap);
        if (!heap) {
            b->no_memory = true;
            return;
        }
        b->heap = heap;
        b->cap_heap = cap;
    }
    b->n_heap++;
    for (; i && better(&p, &b->heap[(i - 1) / 2]); i = (i - 1) / 2) b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = p;
}

static rz_bpe_pair pop_pair(rz_bpe *b)
{
    rz_bpe_pair top = b->heap[0], last = b->heap[--b->n_heap];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < b->n_heap) {
        if (child + 1 < b->n_heap && better(&b->heap[child + 1], &b->heap[child])) child++;
        if (!better(&b->heap[child], &last)) break;
        b->heap[i] = b->heap[child];
        i = child;
    }
    b->heap[i] = last;
    return top;
}

static void offer_pair(rz_bpe *b, int32_t left, int32_t right)
{
    rz_bpe_pair p = {.left = left, .right = right};
    if (left < 0 || right < 0) return;
    const rz_bpe_symbol *x = &b->symbols[left], *y = &b->symbols[right];
    if (!b->look(b->ctx, x, y, &p.rank, &p.merged)) return;
    p.len = x->len + y->len;
    push_pair(b, p);
}

void rz_bpe_clear(rz_bpe *b)
{
    b->n_symbols = b->n_heap = 0;
}

void rz_bpe_add(rz_bpe *b, uint32_t pos, uint32_t len, int32_t id)
{
    size_t i = b->n_symbols;
    if (i == b->cap_symbols) {
        size_t cap = i ? i * 2 : 64;
        rz_bpe_symbol *symbols = rz_realloc(b->host, b->symbols, cap, sizeof *symbols);
        if (!symbols) {
            b->no_memory = true;
            return;
        }
        b->symbols = symbols;
        b->cap_symbols = cap;
    }
    if (i) b->symbols[i - 1].next = (int32_t)i;
    b->symbols[i] = (rz_bpe_symbol){pos, len, (int32_t)i - 1, -1, id};
    b->n_symbols++;
}

void rz_bpe_merge(rz_bpe *b)
{
    for (size_t i = 1; i < b->n_symbols; i++) offer_pair(b, (int32_t)i - 1, (int32_t)i);
    while (b->n_heap && !b->no_memory) {
        rz_bpe_pair p = pop_pair(b);
        rz_bpe_symbol *x = &b->symbols[p.left], *y = &b->symbols[p.right];
        if (!x->len || !y->len || x->len + y->len != p.len) continue;
        x->len = p.len;
        x->id = p.merged;
        x->next = y->next;
        if (y->next >= 0) b->symbols[y->next].prev = p.left;
        y->len = 0;
        offer_pair(b, x->prev, p.left);
        offer_pair(b, p.left, x->next);
    }
}

void rz_bpe_free(rz_bpe *b)
{
    rz_free(b->host, b->symbols);
    rz_free(b->host, b->heap);
}

void rz_ids_put(rz_ids *ids, int32_t id)
{
    if (ids->failed) return;
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64;
        int32_t *data = rz_realloc(ids->host, ids->data, cap, sizeof *data);
        if (!data) {
            ids->failed = true;
            return;
        }
        ids->data = data;
        ids->cap = cap;
    }
    ids->data[ids->n++] = id;
}

/* ---- Symbol sets ------------------------------------------------------------------------------------ */

static int compare_items(const void *a, const void *b)
{
    const rz_text_item *x = a, *y = b;
    int c = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
    return c ? c : (x->len > y->len) - (x->len < y->len);
}

void rz_text_set_sort(rz_text_set *set)
{
    if (set->n) qsort(set->items, set->n, sizeof *set->items, compare_items);
    for (size_t i = 0; i < set->n; i++)
        if (set->items[i].len) set->first[(uint8_t)set->items[i].text[0]] = true;
}

/* First of items[lo..hi) whose byte at depth is not below c. */
static size_t lower_bound(const rz_text_set *set, size_t lo, size_t hi, size_t depth, unsigned c)
{
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((uint8_t)set->items[mid].text[depth] < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Narrows the sorted list byte by byte. */
const rz_text_item *rz_text_set_longest(const rz_text_set *set, const char *s, size_t n)
{
    size_t lo = 0, hi = set->n;
    const rz_text_item *longest = NULL;
    if (!n || !set->first[(uint8_t)*s]) return NULL;
    for (size_t depth = 0; lo < hi; depth++) {
        if (set->items[lo].len == depth) {
            if (depth) longest = &set->items[lo];
            if (++lo == hi) break;
        }
        if (depth == n) break;
        lo = lower_bound(set, lo, hi, depth, (uint8_t)s[depth]);
        hi = lower_bound(set, lo, hi, depth, (uint8_t)s[depth] + 1u);
    }
    return longest;
}
