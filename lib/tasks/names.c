/* names.c - strings numbered from 0 in order of first appearance. SPDX-License-Identifier: Apache-2.0 */
#include "names.h"

static uint32_t name_hash(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 16777619u;
    return h;
}

/* Slot that holds s, or the free one where it belongs. Slots hold number + 1. */
static size_t names_slot(const rz_names *t, const char *s)
{
    size_t i = name_hash(s) & (t->n_slots - 1);
    while (t->slots[i] && strcmp(t->items[t->slots[i] - 1], s) != 0) i = (i + 1) & (t->n_slots - 1);
    return i;
}

static bool names_grow(const rz_host *host, rz_names *t)
{
    size_t cap = t->cap ? 2 * t->cap : 64;
    if (cap > UINT32_MAX / 4) return false;
    char **items = rz_realloc(host, t->items, cap, sizeof *items);
    if (!items) return false;
    t->items = items;
    uint32_t *slots = rz_calloc(host, 2 * cap, sizeof *slots);
    if (!slots) return false;
    rz_free(host, t->slots);
    t->cap = cap, t->slots = slots, t->n_slots = 2 * cap;
    for (size_t i = 0; i < t->n; i++) slots[names_slot(t, t->items[i])] = (uint32_t)i + 1;
    return true;
}

radz_status rz_names_add(const rz_host *host, rz_names *t, const char *s, size_t *id, radz_error *err)
{
    if (t->n == t->cap && !names_grow(host, t)) return RZ_NO_MEMORY(err, "names");
    size_t slot = names_slot(t, s);
    if (!t->slots[slot]) {
        char *copy = rz_strdup(host, s);
        if (!copy) return RZ_NO_MEMORY(err, "names");
        t->items[t->n++] = copy;
        t->slots[slot] = (uint32_t)t->n;
    }
    *id = t->slots[slot] - 1;
    return RADZ_OK;
}

size_t rz_names_find(const rz_names *t, const char *s)
{
    size_t slot = t->n_slots ? t->slots[names_slot(t, s)] : 0;
    return slot ? slot - 1 : t->n;
}

void rz_names_free(const rz_host *host, rz_names *t)
{
    for (size_t i = 0; i < t->n; i++) rz_free(host, t->items[i]);
    rz_free(host, t->items);
    rz_free(host, t->slots);
    memset(t, 0, sizeof *t);
}
