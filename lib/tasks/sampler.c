/* sampler.c - which training row comes next. SPDX-License-Identifier: Apache-2.0 */
#include "sampler.h"

#include <stdlib.h>

typedef struct group_of_row {
    size_t set, label_set;
    uint32_t row;
} group_of_row;

static int by_group(const void *a, const void *b)
{
    const group_of_row *x = a, *y = b;
    if (x->set != y->set) return x->set < y->set ? -1 : 1;
    return (x->label_set > y->label_set) - (x->label_set < y->label_set);
}

/* The mean becomes 1. */
static radz_status scale_to_mean(rz_sampler *s, radz_error *err)
{
    double sum = 0;
    for (size_t i = 0; i < s->n; i++) sum += s->weights[i];
    if (!(sum > 0)) return rz_fail(err, RADZ_E_ARGUMENT, "training options: set_weights: no training row is left");
    for (size_t i = 0; i < s->n; i++) s->weights[i] *= (double)s->n / sum;
    return RADZ_OK;
}

static bool named(const rz_names *names, size_t id, const char *name, size_t n)
{
    return id != RZ_NO_SET && strlen(names->items[id]) == n && !memcmp(names->items[id], name, n);
}

/* "NAME=WEIGHT": a set, or a group of them. */
static radz_status weigh_set(rz_sampler *s, const rz_dataset *ds, const char *item, size_t n, radz_error *err)
{
    const char *equals = memchr(item, '=', n);
    double weight;
    size_t n_name = equals ? (size_t)(equals - item) : 0, n_rows = 0;
    if (!n_name || !rz_parse_double(equals + 1, n - n_name - 1, &weight) || !(weight >= 0 && weight <= 1e6))
        return rz_fail(err, RADZ_E_ARGUMENT, "training options: set_weights '%.*s': expected SET=NUMBER, 0..1e6",
                       (int)n, item);
    for (size_t i = 0; i < s->n; i++) {
        const rz_row *row = &ds->rows[i];
        if (!named(&ds->sets, row->set, item, n_name) && !named(&ds->groups, row->group, item, n_name)) continue;
        s->weights[i] *= weight;
        n_rows++;
    }
    return n_rows ? RADZ_OK
                  : rz_fail(err, RADZ_E_ARGUMENT, "training options: set_weights '%.*s': no training row of such a set",
                            (int)n, item);
}

static radz_status weigh_sets(rz_sampler *s, const rz_dataset *ds, const char *list, radz_error *err)
{
    for (const char *at = list; at; at = *at ? at + 1 : NULL) {
        size_t n = strcspn(at, ",");
        RZ_TRY(weigh_set(s, ds, at, n, err));
        at += n;
    }
    return scale_to_mean(s, err);
}

static radz_status balance_sets(rz_sampler *s, const rz_dataset *ds, radz_error *err)
{
    group_of_row *g = rz_calloc(s->host, s->n, sizeof *g);
    if (!g) return RZ_NO_MEMORY(err, "sampler");
    for (size_t i = 0; i < s->n; i++) g[i] = (group_of_row){ds->rows[i].set, ds->rows[i].label_set, (uint32_t)i};
    qsort(g, s->n, sizeof *g, by_group);
    double sum = 0;
    for (size_t i = 0, j; i < s->n; i = j) {
        for (j = i; j < s->n && by_group(&g[i], &g[j]) == 0; j++) {}
        double root = sqrt((double)(j - i));
        for (size_t k = i; k < j; k++) s->weights[g[k].row] = 1 / root;
        sum += root;
    }
    rz_free(s->host, g);
    for (size_t i = 0; i < s->n; i++) s->weights[i] *= (double)s->n / sum;
    return RADZ_OK;
}

static radz_status weigh(rz_sampler *s, const rz_dataset *ds, bool balance, const char *set_weights, radz_error *err)
{
    for (size_t i = 0; i < s->n; i++) s->weights[i] = 1;
    if (balance) RZ_TRY(balance_sets(s, ds, err));
    return set_weights ? weigh_sets(s, ds, set_weights, err) : RADZ_OK;
}

radz_status rz_sampler_init(const rz_host *host, const rz_dataset *ds, bool balance, const char *set_weights,
                            uint64_t seed, rz_sampler *out, radz_error *err)
{
    *out = (rz_sampler){.host = host, .n = ds->n_train, .seed = seed, .epoch = -1};
    if (!out->n) return rz_fail(err, RADZ_E_ARGUMENT, "no training rows");
    if (out->n > UINT32_MAX) return rz_fail(err, RADZ_E_LIMIT, "more than %u training rows", UINT32_MAX);
    out->order = rz_calloc(host, out->n, sizeof *out->order);
    out->shuffle = rz_calloc(host, out->n, sizeof *out->shuffle);
    out->weights = rz_calloc(host, out->n, sizeof *out->weights);
    radz_status st = out->order && out->shuffle && out->weights ? weigh(out, ds, balance, set_weights, err)
                                                                : RZ_NO_MEMORY(err, "sampler");
    if (st) rz_sampler_free(out);
    return st;
}

void rz_sampler_free(rz_sampler *s)
{
    rz_free(s->host, s->order);
    rz_free(s->host, s->shuffle);
    rz_free(s->host, s->weights);
    memset(s, 0, sizeof *s);
}

static void shuffle(rz_rng *rng, uint32_t *a, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)rz_rng_below(rng, i);
        uint32_t t = a[i - 1];
        a[i - 1] = a[j], a[j] = t;
    }
}

/* Systematic sampling: one random offset, then a comb of n equal teeth over the rows laid end to end. */
static void draw_epoch(rz_sampler *s, int64_t epoch)
{
    rz_rng rng;
    rz_rng_seed(&rng, s->seed, (uint64_t)epoch);
    for (size_t i = 0; i < s->n; i++) s->shuffle[i] = (uint32_t)i;
    shuffle(&rng, s->shuffle, s->n);
    double tooth = rz_rng_uniform(&rng), end = 0;
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        for (end += s->weights[s->shuffle[i]]; n < s->n && (double)n + tooth < end; n++) s->order[n] = s->shuffle[i];
    for (; n < s->n; n++) s->order[n] = s->shuffle[s->n - 1]; /* rounding of the sum */
    shuffle(&rng, s->order, s->n);
    s->epoch = epoch;
}

size_t rz_sampler_draw(rz_sampler *s, int64_t draw)
{
    int64_t epoch = draw / (int64_t)s->n;
    if (epoch != s->epoch) draw_epoch(s, epoch);
    return s->order[draw % (int64_t)s->n];
}
