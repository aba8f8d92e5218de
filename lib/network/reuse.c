/* reuse.c - which first rows of prompts are known from an earlier pass. SPDX-License-Identifier: Apache-2.0 */
#include "reuse.h"

#include "rope.h"

/* Fewer rows are not worth a copy; more words than that are no constant beginning. */
enum { MIN_ROWS = 8, MAX_WORDS = 256 };

typedef struct slot {
    rz_cache *cache;
    rz_prompt prompt; /* ids of the rows it holds; n 0: none */
    size_t n_blocks;
    char film[65];
} slot;

struct rz_reuse {
    const rz_model *m;
    bool films;
    slot film, words;
    rz_prompt last; /* beginning of the last prompt */
    slot *filling;  /* NULL: none */
    rz_prompt pending;
    size_t pending_blocks;
    char pending_film[65];
};

radz_status rz_reuse_open(const rz_model *m, bool films, rz_reuse **reuse, radz_error *err)
{
    rz_reuse *r = *reuse = rz_calloc(m->cfg.host, 1, sizeof *r);
    if (!r) return RZ_NO_MEMORY(err, "session");
    r->m = m, r->films = films;
    return RADZ_OK;
}

static void slot_clear(const rz_reuse *r, slot *s)
{
    rz_prompt_free(r->m->cfg.host, &s->prompt);
    rz_cache_close(s->cache);
    *s = (slot){0};
}

void rz_reuse_close(rz_reuse *r)
{
    if (!r) return;
    const rz_host *host = r->m->cfg.host;
    slot_clear(r, &r->film);
    slot_clear(r, &r->words);
    rz_prompt_free(host, &r->last);
    rz_prompt_free(host, &r->pending);
    rz_free(host, r);
}

static size_t slot_bytes(const slot *s)
{
    return s->cache ? 2 * s->cache->layers * s->cache->room * s->cache->ld * sizeof(float) : 0;
}

size_t rz_reuse_bytes(const rz_reuse *r)
{
    return r ? slot_bytes(&r->film) + slot_bytes(&r->words) : 0;
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t common_rows(const rz_prompt *a, const rz_prompt *b)
{
    const size_t most = min_size(a->n, b->n);
    size_t n = 0;
    while (n < most && a->ids[n] == b->ids[n]) n++;
    return n;
}

/* Rows before the first of a film; all, where there is none. */
static size_t rows_of_words(const rz_prompt *p)
{
    size_t n = 0;
    while (n < p->n && p->ids[n] != RZ_ID_IMAGE) n++;
    return n;
}

/* Rows up to the last of the film. */
static size_t rows_to_film(const rz_prompt *p)
{
    size_t n = p->n;
    while (n && p->ids[n - 1] != RZ_ID_IMAGE) n--;
    return n;
}

static void hash_film(const rz_reuse_prompt *p, char out[65])
{
    rz_sha256 h;
    rz_sha256_init(&h);
    rz_sha256_put(&h, p->pixels, p->n_floats * sizeof *p->pixels);
    rz_sha256_hex(&h, out);
}

/* Rows of the slot that every prompt begins with. A prompt's rows of a film are either all known or none of them. */
static size_t known_rows(const slot *s, const rz_reuse_prompt *prompts, size_t n, size_t n_blocks, const char *film)
{
    size_t known = s->n_blocks >= n_blocks ? s->prompt.n : 0;
    for (size_t i = 0; i < n; i++) {
        const rz_prompt *p = prompts[i].prompt;
        const size_t words = rows_of_words(p), to_film = rows_to_film(p);
        known = min_size(known, common_rows(&s->prompt, p));
        if (known > words && (!film || strcmp(film, s->film) || known < to_film)) known = words;
        known = min_size(known, p->n - prompts[i].n_wanted);
        if (known > words && known < to_film) known = words;
    }
    return known < MIN_ROWS ? 0 : known;
}

/* Words that all these prompts and the one before them begin with. */
static size_t constant_words(const rz_reuse *r, const rz_reuse_prompt *prompts, size_t n)
{
    const rz_prompt *first = prompts[0].prompt;
    size_t words = min_size(MAX_WORDS, rows_of_words(first));
    if (n == 1) words = min_size(words, common_rows(&r->last, first));
    for (size_t i = 0; i < n; i++) {
        words = min_size(words, common_rows(first, prompts[i].prompt));
        words = min_size(words, prompts[i].prompt->n - prompts[i].n_wanted);
    }
    return words < MIN_ROWS ? 0 : words;
}

static bool copy_ids(const rz_reuse *r, rz_prompt *to, const rz_prompt *from, size_t n)
{
    int32_t *ids = rz_malloc(r->m->cfg.host, n * sizeof *ids);
    if (ids && n) memcpy(ids, from->ids, n * sizeof *ids);
    rz_prompt_free(r->m->cfg.host, to);
    *to = ids ? (rz_prompt){ids, n} : (rz_prompt){0};
    return ids != NULL;
}

/* Makes room in the slot; what it held is gone. Without memory nothing is kept, which changes no result. */
static void start_filling(rz_reuse *r, slot *s, rz_reuse_plan *plan, const rz_prompt *p, size_t rows, size_t n_blocks,
                          const char *film)
{
    if (!s->cache || s->cache->room < rows) {
        slot_clear(r, s);
        if (rz_cache_open(r->m, 1, rows, &s->cache, NULL)) return;
    }
    rz_prompt_free(r->m->cfg.host, &s->prompt);
    if (!copy_ids(r, &r->pending, p, rows)) return;
    r->filling = s, r->pending_blocks = n_blocks;
    memcpy(r->pending_film, film ? film : "", film ? 65 : 1);
    plan->store = s->cache, plan->n_store = rows;
}

static bool rope_depends(const rz_reuse *r, const rz_reuse_prompt *prompts, size_t n)
{
    bool depends = false;
    for (size_t i = 0; i < n; i++) depends |= rz_rope_depends(&r->m->cfg.text, prompts[i].prompt->n);
    return depends;
}

rz_reuse_plan rz_reuse_begin(rz_reuse *r, const rz_reuse_prompt *prompts, size_t n, size_t n_blocks)
{
    rz_reuse_plan plan = {0};
    char hash[65], *film = NULL;
    r->filling = NULL;
    if (!n || !n_blocks || rope_depends(r, prompts, n)) return plan;
    if (r->films && n == 1 && prompts[0].pixels) hash_film(&prompts[0], film = hash);
    const size_t by_film = known_rows(&r->film, prompts, n, n_blocks, film);
    const size_t by_words = known_rows(&r->words, prompts, n, n_blocks, NULL);
    const slot *best = by_film > by_words ? &r->film : &r->words;
    const size_t words = constant_words(r, prompts, n), to_film = rows_to_film(prompts[0].prompt);
    plan.n_before = by_film > by_words ? by_film : by_words;
    if (film && by_film < to_film && prompts[0].prompt->n - prompts[0].n_wanted >= to_film) {
        plan.n_before = 0;
        start_filling(r, &r->film, &plan, prompts[0].prompt, to_film, n_blocks, film);
    } else if (words > plan.n_before && words > r->words.prompt.n) {
        plan.n_before = 0;
        start_filling(r, &r->words, &plan, prompts[0].prompt, words, n_blocks, NULL);
    }
    if (plan.n_before) plan.before = best->cache;
    copy_ids(r, &r->last, prompts[0].prompt, min_size(MAX_WORDS, rows_of_words(prompts[0].prompt)));
    return plan;
}

void rz_reuse_end(rz_reuse *r, bool done)
{
    slot *s = r->filling;
    if (!s) return;
    rz_prompt_free(r->m->cfg.host, &s->prompt);
    if (done) {
        s->prompt = r->pending;
        s->n_blocks = r->pending_blocks;
        memcpy(s->film, r->pending_film, sizeof s->film);
        r->pending = (rz_prompt){0};
    }
    rz_prompt_free(r->m->cfg.host, &r->pending);
    r->filling = NULL;
}
