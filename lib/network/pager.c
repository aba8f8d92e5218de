/* pager.c - matrices from the files while others are at work. SPDX-License-Identifier: Apache-2.0 */
#include "pager.h"

#include <pthread.h>
#include <signal.h>

#include "encode.h"
#include "gray.h"
#include "memory.h"
#include "reader.h"
#include "weights.h"

enum {
    MAX_ENTRIES = 64,
    PIECES = 3,      /* that fit into the ring: at work, ready, being read */
    ROW_STEP = 1024, /* pieces end at such rows, where products along rows may be cut without a change of bits */
    NONE = -1
};
#define PROCESS_BYTES ((uint64_t)24 << 20) /* program, libraries, stacks, films */

/* ---- Where matrices lie ------------------------------------------------------------------------- */

typedef struct place {
    rz_reader *data, *scale; /* data NULL: in memory */
    uint64_t data_at, scale_at;
} place;

struct rz_paging {
    const rz_model *m;
    rz_reader **readers;
    size_t n_readers;
    place *places; /* of each parameter */
    size_t ring_bytes, piece_bytes;
};

static const place *place_of(const rz_paging *p, const rz_param *param)
{
    return &p->places[param - p->m->params];
}

bool rz_paging_has(const rz_paging *p, const rz_param *param)
{
    return p && !param->owned && place_of(p, param)->data; /* of those that are owned, not all are listed */
}

uint64_t rz_paging_ring_bytes(const rz_paging *p)
{
    return p ? p->ring_bytes : 0;
}

/* The reader of the file that a mapped address lies in, and where. */
static rz_reader *locate(const rz_paging *p, const void *data, uint64_t *at)
{
    rz_weights *const all[] = {p->m->files, p->m->radz_files, p->m->tower_files};
    const rz_st *st;
    const char *name;
    size_t k = 0;
    for (size_t c = 0; c < RZ_COUNT(all); c++)
        for (size_t i = 0; all[c] && (st = rz_weights_file(all[c], i, &name)); i++, k++) {
            size_t size;
            const uint8_t *bytes = rz_st_bytes(st, &size), *want = data;
            if (want < bytes || want >= bytes + size) continue;
            *at = (uint64_t)(want - bytes);
            return p->readers[k];
        }
    return NULL;
}

static radz_status open_readers(rz_paging *p, radz_error *err)
{
    rz_weights *const all[] = {p->m->files, p->m->radz_files, p->m->tower_files};
    const char *name;
    size_t n = 0;
    for (size_t c = 0; c < RZ_COUNT(all); c++)
        for (size_t i = 0; all[c] && rz_weights_file(all[c], i, &name); i++) n++;
    if (!(p->readers = rz_calloc(p->m->cfg.host, n + 1, sizeof *p->readers))) return RZ_NO_MEMORY(err, "streaming");
    for (size_t c = 0; c < RZ_COUNT(all); c++)
        for (size_t i = 0; all[c] && rz_weights_file(all[c], i, &name); i++, p->n_readers++)
            RZ_TRY(rz_reader_open(p->m->cfg.host, rz_weights_path(all[c], i), &p->readers[p->n_readers], err));
    return RADZ_OK;
}

static size_t rows_of(const rz_param *p)
{
    return p->n / p->w.ld;
}

/* Ring memory that rows of a matrix take. */
static size_t room_of(const rz_param *p, size_t rows)
{
    const size_t scale = p->w.scale ? rz_dtype_bytes(p->w.scale_dtype, rows * rz_mat_groups(p->w)) : 0;
    return rz_reader_room(rz_dtype_bytes(p->w.dtype, rows * p->w.ld)) + (scale ? rz_reader_room(scale) : 0);
}

static void find_places(rz_paging *p)
{
    for (size_t i = 0; i < p->m->n_params; i++) {
        const rz_param *param = &p->m->params[i];
        place *at = &p->places[i];
        if (param->owned || param->n_dims < 2 || !param->w.data) continue;
        if (param->w.scale && !param->scale_owned) at->scale = locate(p, param->w.scale, &at->scale_at);
        if (!param->w.scale || param->scale_owned || at->scale) at->data = locate(p, param->w.data, &at->data_at);
    }
}

/* The largest of the smallest pieces. */
static size_t least_piece(const rz_paging *p)
{
    size_t least = 1 << 16;
    for (size_t i = 0; i < p->m->n_params; i++) {
        const rz_param *param = &p->m->params[i];
        const size_t rows = rows_of(param) < ROW_STEP ? rows_of(param) : ROW_STEP;
        if (p->places[i].data && room_of(param, rows) > least) least = room_of(param, rows);
    }
    return least;
}

static uint64_t resident_bytes(const rz_paging *p)
{
    uint64_t n = PROCESS_BYTES + rz_net_film_bytes(p->m) + rz_model_gray_bytes(p->m);
    for (size_t i = 0; i < p->m->n_params; i++)
        if (p->m->params[i].owned) n += rz_mat_bytes(p->m->params[i].w, rows_of(&p->m->params[i]));
    return n;
}

static radz_status share_memory(rz_paging *p, uint64_t memory, radz_error *err)
{
    const uint64_t rest = resident_bytes(p), least = rest + PIECES * (uint64_t)least_piece(p);
    if (memory < least)
        return rz_fail(err, RADZ_E_LIMIT, "memory_bytes: %llu bytes, this model takes %llu at least",
                       (unsigned long long)memory, (unsigned long long)least);
    uint64_t ring = memory - rest, all = 0;
    for (size_t i = 0; i < p->m->n_params; i++)
        if (p->places[i].data && &p->m->params[i] != p->m->embed)
            all += room_of(&p->m->params[i], rows_of(&p->m->params[i]));
    if (ring > PIECES * all) ring = PIECES * all;
    p->piece_bytes = (size_t)(ring / PIECES) / RZ_READER_ALIGN * RZ_READER_ALIGN;
    p->ring_bytes = PIECES * p->piece_bytes;
    return RADZ_OK;
}

radz_status rz_paging_open(rz_model *m, uint64_t memory_bytes, radz_error *err)
{
    rz_weights *const all[] = {m->files, m->radz_files, m->tower_files};
    rz_paging *p = rz_calloc(m->cfg.host, 1, sizeof *p);
    if (!p) return RZ_NO_MEMORY(err, "streaming");
    m->paging = p, p->m = m;
    if (!(p->places = rz_calloc(m->cfg.host, m->n_params, sizeof *p->places))) return RZ_NO_MEMORY(err, "streaming");
    RZ_TRY(open_readers(p, err));
    find_places(p);
    RZ_TRY(share_memory(p, memory_bytes, err));
    for (size_t c = 0; c < RZ_COUNT(all); c++)
        if (all[c]) rz_weights_forget(all[c]);
    return RADZ_OK;
}

void rz_paging_close(rz_paging *p)
{
    if (!p) return;
    const rz_host *host = p->m->cfg.host;
    for (size_t i = 0; i <= p->n_readers && p->readers; i++) rz_reader_close(p->readers[i]);
    rz_free(host, p->readers);
    rz_free(host, p->places);
    rz_free(host, p);
}

/* ---- The ring ------------------------------------------------------------------------------------- */

/* Rows [first, first + n) of a parameter. */
typedef struct entry {
    int param;
    size_t first, n;
    size_t at, room; /* in the ring */
    const uint8_t *data, *scale;
    bool ready;
    radz_error err; /* code RADZ_OK: they are there */
} entry;

struct rz_pager {
    const rz_model *m;
    const rz_paging *paging;
    uint8_t *block, *ring;
    int *next; /* parameter that came after this one */
    int last;  /* asked for last */
    entry entries[MAX_ENTRIES];
    size_t head, tail; /* entries [head, tail), by number mod MAX_ENTRIES; the one at head is in use */
    size_t end;        /* of the newest entry in the ring */
    int cursor;        /* what is read next; NONE: nothing */
    size_t cursor_row;
    bool stop, drop, has_thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread;
};

static entry *nth(rz_pager *g, size_t i)
{
    return &g->entries[i % MAX_ENTRIES];
}

static size_t piece_rows(const rz_pager *g, const rz_param *p, size_t first)
{
    const size_t left = rows_of(p) - first;
    if (room_of(p, left) <= g->paging->piece_bytes) return left;
    size_t n = ROW_STEP;
    while (n + ROW_STEP < left && room_of(p, n + ROW_STEP) <= g->paging->piece_bytes) n += ROW_STEP;
    return n < left ? n : left;
}

/* A place of that size behind the newest entry; false: there is none now. */
static bool find_room(rz_pager *g, size_t room, size_t *at)
{
    const size_t size = g->paging->ring_bytes;
    if (g->head == g->tail) {
        *at = 0;
        return true;
    }
    const size_t front = nth(g, g->head)->at;
    if (g->end > front) {
        *at = size - g->end >= room ? g->end : 0;
        return *at || front >= room;
    }
    *at = g->end;
    return front - g->end >= room;
}

/* The next piece gets its place; NULL: not now. */
static entry *place_next(rz_pager *g)
{
    size_t at;
    if (g->cursor == NONE || g->tail - g->head == MAX_ENTRIES) return NULL;
    const rz_param *p = &g->m->params[g->cursor];
    const size_t n = piece_rows(g, p, g->cursor_row), room = room_of(p, n);
    if (!find_room(g, room, &at)) return NULL;
    entry *e = nth(g, g->tail++);
    *e = (entry){.param = g->cursor, .first = g->cursor_row, .n = n, .at = at, .room = room};
    g->end = at + room;
    g->cursor_row += n;
    if (g->cursor_row >= rows_of(p)) g->cursor = g->next[g->cursor], g->cursor_row = 0;
    return e;
}

static bool unwanted(void *user)
{
    rz_pager *g = user;
    pthread_mutex_lock(&g->mutex);
    const bool yes = g->drop || g->stop;
    pthread_mutex_unlock(&g->mutex);
    return yes;
}

static void read_entry(rz_pager *g, entry *e)
{
    const rz_param *p = &g->m->params[e->param];
    const place *at = place_of(g->paging, p);
    const size_t row = rz_dtype_bytes(p->w.dtype, p->w.ld);
    const size_t groups = rz_mat_groups(p->w), scale = groups ? rz_dtype_bytes(p->w.scale_dtype, groups) : 0;
    uint8_t *room = g->ring + e->at;
    radz_status status =
        rz_reader_get(at->data, at->data_at + e->first * row, e->n * row, room, &e->data, unwanted, g, &e->err);
    if (!status && at->scale)
        status = rz_reader_get(at->scale, at->scale_at + e->first * scale, e->n * scale,
                               room + rz_reader_room(e->n * row), &e->scale, unwanted, g, &e->err);
    if (!status) e->err.code = RADZ_OK;
    if (!at->scale && p->w.scale) e->scale = (const uint8_t *)p->w.scale + e->first * scale;
}

static void *read_ahead(void *arg)
{
    rz_pager *g = arg;
    pthread_mutex_lock(&g->mutex);
    while (!g->stop) {
        g->drop = false; /* nothing is being read */
        entry *e = place_next(g);
        if (!e) {
            pthread_cond_wait(&g->changed, &g->mutex);
            continue;
        }
        pthread_mutex_unlock(&g->mutex);
        read_entry(g, e);
        pthread_mutex_lock(&g->mutex);
        e->ready = true;
        pthread_cond_broadcast(&g->changed);
    }
    pthread_mutex_unlock(&g->mutex);
    return NULL;
}

/* ---- What comes after what: a film's pass, until it has been seen --------------------------------------- */

typedef struct chain {
    rz_pager *g;
    int first, last;
} chain;

static void link_param(chain *c, const rz_param *p)
{
    if (!p || !rz_paging_has(c->g->paging, p)) return;
    const int i = (int)(p - c->g->m->params);
    if (c->last != NONE) c->g->next[c->last] = i;
    if (c->first == NONE) c->first = i;
    c->last = i;
}

static void guess_order(rz_pager *g)
{
    const rz_model *m = g->m;
    chain c = {g, NONE, NONE};
    for (size_t i = 0; i < m->n_params; i++) g->next[i] = NONE;
    if (!m->gray.w) link_param(&c, m->patch);
    for (size_t i = 0; m->cfg.has_vision && i < rz_config_tower_blocks(&m->cfg); i++) {
        const rz_tower_block *b = &m->tower[i];
        const rz_linear *const order[] = {&b->q, &b->k, &b->v, &b->o, &b->fc1, &b->fc2};
        for (size_t k = 0; k < RZ_COUNT(order); k++) link_param(&c, order[k]->w);
    }
    link_param(&c, m->projector[0].w);
    link_param(&c, m->projector[1].w);
    for (size_t i = 0; i < rz_config_decoder_blocks(&m->cfg); i++) {
        const rz_decoder_block *b = &m->decoder[i];
        const rz_linear *const order[] = {&b->k, &b->v, &b->q, &b->o, &b->gate, &b->up, &b->down};
        for (size_t k = 0; k < RZ_COUNT(order); k++) link_param(&c, order[k]->w);
    }
    link_param(&c, m->gamma_img.l1.w);
    link_param(&c, m->gamma_img.l2.w);
    if (c.last != NONE) g->next[c.last] = c.first;
}

/* ---- What a film's pass takes ---- */

static uint64_t bytes_of(const rz_param *p)
{
    return p && p->w.data ? rz_mat_bytes(p->w, rows_of(p)) : 0;
}

uint64_t rz_paging_film_bytes(const rz_paging *p)
{
    uint64_t n = 0;
    for (size_t i = 0; p && i < p->m->n_params; i++)
        if (p->places[i].data && rz_net_reads(p->m, &p->m->params[i])) n += bytes_of(&p->m->params[i]);
    return n;
}

/* What lies idle at the ring's end, where the next matrix does not fit: half of the largest on the average. */
static uint64_t idle_bytes(const rz_paging *p)
{
    size_t most = 0;
    for (size_t i = 0; p && i < p->m->n_params; i++) {
        const rz_param *param = &p->m->params[i];
        if (!p->places[i].data || !rz_net_reads(p->m, param)) continue;
        const size_t room = room_of(param, rows_of(param));
        if (room > most && room <= p->piece_bytes) most = room;
    }
    return most / 2;
}

uint64_t rz_model_peak_bytes(const rz_model *m)
{
    uint64_t n = PROCESS_BYTES / 2 + rz_net_film_bytes(m) + rz_paging_ring_bytes(m->paging) - idle_bytes(m->paging);
    n += m->packed_bytes + rz_model_gray_bytes(m);
    for (size_t i = 0; i < m->n_params; i++) {
        const rz_param *p = &m->params[i];
        if (p->owned || (!rz_paging_has(m->paging, p) && rz_net_reads(m, p))) n += bytes_of(p);
    }
    return n;
}

/* ---- The handle ------------------------------------------------------------------------------------------ */

static bool start_thread(rz_pager *g)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&g->thread, NULL, read_ahead, g);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed;
}

radz_status rz_pager_open(const rz_model *m, rz_pager **pager, radz_error *err)
{
    *pager = NULL;
    if (!m->paging) return RADZ_OK;
    rz_pager *g = rz_calloc(m->cfg.host, 1, sizeof *g);
    if (!g) return RZ_NO_MEMORY(err, "streaming");
    g->m = m, g->paging = m->paging, g->cursor = g->last = NONE;
    g->next = rz_calloc(m->cfg.host, m->n_params, sizeof *g->next);
    g->block = rz_malloc(m->cfg.host, g->paging->ring_bytes + RZ_READER_ALIGN);
    if (!g->next || !g->block) {
        rz_free(m->cfg.host, g->next);
        rz_free(m->cfg.host, g->block);
        rz_free(m->cfg.host, g);
        return RZ_NO_MEMORY(err, "streaming");
    }
    g->ring = g->block + (RZ_READER_ALIGN - (uintptr_t)g->block % RZ_READER_ALIGN) % RZ_READER_ALIGN;
    guess_order(g);
    pthread_mutex_init(&g->mutex, NULL);
    pthread_cond_init(&g->changed, NULL);
    g->has_thread = start_thread(g);
    *pager = g;
    return RADZ_OK;
}

void rz_pager_close(rz_pager *g)
{
    if (!g) return;
    const rz_host *host = g->m->cfg.host;
    pthread_mutex_lock(&g->mutex);
    g->stop = true;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
    if (g->has_thread) pthread_join(g->thread, NULL);
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->mutex);
    rz_free(host, g->next);
    rz_free(host, g->block);
    rz_free(host, g);
}

/* ---- Asking ------------------------------------------------------------------------------------------------ */

/* Everything that was read is forgotten; reading starts again at these rows. What is being read now is given up. */
static void restart(rz_pager *g, int param, size_t first)
{
    g->head = g->tail;
    g->cursor = param, g->cursor_row = first;
    g->drop = true;
    pthread_cond_broadcast(&g->changed);
}

/* The entry of these rows, which is at the head then; what lies before it was not wanted, or has been used. */
static entry *find(rz_pager *g, int param, size_t first)
{
    for (size_t i = g->head; i < g->tail; i++) {
        const entry *e = nth(g, i);
        if (e->param != param || e->first != first) continue;
        if (i > g->head) pthread_cond_broadcast(&g->changed);
        g->head = i;
        return nth(g, i);
    }
    return NULL;
}

/* Reads the next piece on the caller's own thread, where no other could be had. */
static void read_here(rz_pager *g)
{
    entry *e = place_next(g);
    g->drop = false;
    pthread_mutex_unlock(&g->mutex);
    if (e) read_entry(g, e), e->ready = true;
    pthread_mutex_lock(&g->mutex);
}

/* Waits until these rows are there. The entry that was at the head has been used: its place is free. */
static entry *fetch(rz_pager *g, int param, size_t first)
{
    if (g->head < g->tail && nth(g, g->head)->ready && nth(g, g->head)->err.code) restart(g, param, first);
    for (;;) {
        entry *e = find(g, param, first);
        if (e && e->ready) return e;
        if (!e && (g->cursor != param || g->cursor_row != first)) restart(g, param, first);
        if (!e && g->head < g->tail) { /* it comes next, and wants the place of what lies before it */
            g->head = g->tail;
            pthread_cond_broadcast(&g->changed);
        }
        if (g->has_thread)
            pthread_cond_wait(&g->changed, &g->mutex);
        else
            read_here(g);
    }
}

size_t rz_pager_rows(rz_pager *g, rz_stream *s, const rz_param *p, size_t first, rz_mat *w)
{
    *w = p->w;
    if (!g || !rz_paging_has(g->paging, p)) return rows_of(p);
    if (rz_stream_failed(s)) return 0;
    const int i = (int)(p - g->m->params);
    pthread_mutex_lock(&g->mutex);
    if (!first && g->last != NONE && g->last != i) g->next[g->last] = i;
    g->last = i;
    const entry e = *fetch(g, i, first);
    pthread_mutex_unlock(&g->mutex);
    if (e.err.code) {
        rz_stream_fail(s, e.err.code, "%s", e.err.message);
        return 0;
    }
    w->data = e.data, w->scale = e.scale;
    return e.n;
}

rz_mat rz_pager_pick(rz_pager *g, rz_stream *s, const rz_param *p, const int32_t *ids, size_t n)
{
    rz_mat w = p->w;
    const place *at = place_of(g->paging, p);
    const size_t row = rz_dtype_bytes(w.dtype, w.ld), groups = rz_mat_groups(w),
                 scale = groups ? rz_dtype_bytes(w.scale_dtype, groups) : 0;
    uint8_t *data = rz_arena_bytes(s, n * row), *scales = scale ? rz_arena_bytes(s, n * scale) : NULL;
    radz_error err;
    for (size_t i = 0; i < n && !rz_stream_failed(s); i++) {
        radz_status status = rz_reader_small(at->data, at->data_at + (size_t)ids[i] * row, row, data + i * row, &err);
        if (!status && at->scale)
            status = rz_reader_small(at->scale, at->scale_at + (size_t)ids[i] * scale, scale, scales + i * scale, &err);
        else if (!status && scale)
            memcpy(scales + i * scale, (const uint8_t *)w.scale + (size_t)ids[i] * scale, scale);
        if (status) rz_stream_fail(s, status, "%s", err.message);
    }
    w.data = data, w.scale = scales;
    return w;
}
