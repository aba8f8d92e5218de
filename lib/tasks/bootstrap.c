/* bootstrap.c - macro means, and intervals from drawing patients again and again.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdlib.h>

#include "metrics.h"

static const struct {
    const char *name;
    size_t at;
} figures[RZ_N_FIGURES] = {
    {"auc", offsetof(radz_metrics, auc)},
    {"auprc", offsetof(radz_metrics, auprc)},
    {"f1", offsetof(radz_metrics, f1)},
    {"accuracy", offsetof(radz_metrics, accuracy)},
    {"mcc", offsetof(radz_metrics, mcc)},
    {"sensitivity", offsetof(radz_metrics, sensitivity)},
    {"specificity", offsetof(radz_metrics, specificity)},
    {"precision", offsetof(radz_metrics, precision)},
    {"brier", offsetof(radz_metrics, brier)},
    {"ece", offsetof(radz_metrics, ece)},
};

const char *rz_figure_name(size_t k)
{
    return figures[k].name;
}

static double *figure(radz_metrics *m, size_t k)
{
    return (double *)(void *)((char *)m + figures[k].at);
}

double rz_figure_of(const radz_metrics *m, size_t k)
{
    return *(const double *)(const void *)((const char *)m + figures[k].at);
}

void rz_macro(const radz_metrics *classes, size_t n, radz_metrics *out, size_t *n_defined)
{
    *out = (radz_metrics){.struct_size = sizeof *out, .threshold = NAN};
    *n_defined = 0;
    for (size_t c = 0; c < n; c++) {
        const radz_metrics *m = &classes[c];
        if (!m->n_positive || !m->n_negative) continue;
        ++*n_defined;
        out->n_positive += m->n_positive, out->n_negative += m->n_negative;
        out->tp += m->tp, out->fp += m->fp, out->tn += m->tn, out->fn += m->fn;
        for (size_t k = 0; k < RZ_N_FIGURES; k++) *figure(out, k) += rz_figure_of(m, k);
    }
    for (size_t k = 0; k < RZ_N_FIGURES; k++) *figure(out, k) = *n_defined ? *figure(out, k) / (double)*n_defined : NAN;
}

/* ---- Groups ---- */

typedef struct numbered {
    size_t group, i;
} numbered;

static int by_group(const void *a, const void *b)
{
    const numbered *x = a, *y = b;
    if (x->group != y->group) return x->group > y->group ? 1 : -1;
    return (x->i > y->i) - (x->i < y->i);
}

radz_status rz_number_groups(const rz_host *host, const size_t *groups, size_t n, size_t *out, size_t *n_groups,
                             radz_error *err)
{
    *n_groups = 0;
    numbered *s = rz_calloc(host, n, sizeof *s);
    if (!s) return RZ_NO_MEMORY(err, "groups of films");
    for (size_t i = 0; i < n; i++) s[i] = (numbered){groups ? groups[i] : i, i};
    qsort(s, n, sizeof *s, by_group);
    for (size_t i = 0; i < n; i++) out[s[i].i] = i && s[i].group == s[i - 1].group ? out[s[i - 1].i] : s[i].i;
    /* out holds each group's first film; films in order give the numbers */
    for (size_t i = 0; i < n; i++) {
        size_t first = out[i];
        if (first == i)
            s[i].i = (*n_groups)++;
        else
            s[i].i = s[first].i;
    }
    for (size_t i = 0; i < n; i++) out[i] = s[i].i;
    rz_free(host, s);
    return RADZ_OK;
}

/* ---- Drawing ---- */

enum { N_LANES = 16 }; /* rounds i, i + 16, ... share their scratch */

typedef struct lane {
    uint32_t *drawn;   /* by group */
    uint32_t *weights; /* by film */
    radz_metrics *classes, *counted;
} lane;

typedef struct draw {
    const rz_bootstrap *b;
    lane lanes[N_LANES];
    double *values; /* (n_classes + 1, RZ_N_FIGURES, n_rounds) */
} draw;

static double *values_of(const draw *d, size_t c, size_t k)
{
    return d->values + (c * RZ_N_FIGURES + k) * d->b->options->n_rounds;
}

void rz_draw_films(uint64_t seed, size_t round, const size_t *groups, size_t n, uint32_t *drawn, size_t n_groups,
                   uint32_t *weights)
{
    rz_rng rng;
    rz_rng_seed(&rng, seed, round);
    memset(drawn, 0, n_groups * sizeof *drawn);
    for (size_t i = 0; i < n_groups; i++) drawn[rz_rng_below(&rng, n_groups)]++;
    for (size_t i = 0; i < n; i++) weights[i] = drawn[groups[i]];
}

static void run_round(const draw *d, const lane *l, size_t round)
{
    const rz_bootstrap *b = d->b;
    radz_metrics macro;
    size_t n_defined, n_counted = 0;
    rz_draw_films(b->options->seed, round, b->groups, b->n_films, l->drawn, b->n_groups, l->weights);
    for (size_t c = 0; c < b->n_classes; c++) {
        radz_metrics_options o = *b->options;
        o.threshold = b->thresholds[c];
        rz_measure(&b->ranked[c], l->weights, &o, &l->classes[c]);
        if (b->in_macro[c]) l->counted[n_counted++] = l->classes[c];
        for (size_t k = 0; k < RZ_N_FIGURES; k++) values_of(d, c, k)[round] = rz_figure_of(&l->classes[c], k);
    }
    rz_macro(l->counted, n_counted, &macro, &n_defined);
    for (size_t k = 0; k < RZ_N_FIGURES; k++) values_of(d, b->n_classes, k)[round] = rz_figure_of(&macro, k);
}

static void run_lane(void *arg, size_t i)
{
    const draw *d = arg;
    for (size_t round = i; round < d->b->options->n_rounds; round += N_LANES) run_round(d, &d->lanes[i], round);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between the two nearest, as numpy's percentile. */
static double quantile(const double *v, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;
    return i + 1 < n ? v[i] + (v[i + 1] - v[i]) * (at - (double)i) : v[n - 1];
}

void rz_interval(double *v, size_t n, double confidence, double *low, double *high)
{
    size_t n_good = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(v[i])) v[n_good++] = v[i];
    *low = *high = NAN;
    if (!n_good) return;
    qsort(v, n_good, sizeof *v, by_value);
    *low = quantile(v, n_good, (1 - confidence) / 2);
    *high = quantile(v, n_good, (1 + confidence) / 2);
}

static radz_status open_lanes(draw *d, radz_error *err)
{
    const rz_bootstrap *b = d->b;
    size_t n;
    if (!rz_size_mul((b->n_classes + 1) * RZ_N_FIGURES, b->options->n_rounds, &n))
        return rz_fail(err, RADZ_E_LIMIT, "bootstrap: too many rounds");
    d->values = rz_calloc(b->host, n, sizeof *d->values);
    bool good = d->values != NULL;
    for (size_t i = 0; i < N_LANES && good; i++) {
        lane *l = &d->lanes[i];
        l->drawn = rz_calloc(b->host, b->n_groups, sizeof *l->drawn);
        l->weights = rz_calloc(b->host, b->n_films, sizeof *l->weights);
        l->classes = rz_calloc(b->host, b->n_classes, sizeof *l->classes);
        l->counted = rz_calloc(b->host, b->n_classes, sizeof *l->counted);
        good = l->drawn && l->weights && l->classes && l->counted;
    }
    return good ? RADZ_OK : RZ_NO_MEMORY(err, "bootstrap");
}

static void close_lanes(draw *d)
{
    for (size_t i = 0; i < N_LANES; i++) {
        rz_free(d->b->host, d->lanes[i].drawn);
        rz_free(d->b->host, d->lanes[i].weights);
        rz_free(d->b->host, d->lanes[i].classes);
        rz_free(d->b->host, d->lanes[i].counted);
    }
    rz_free(d->b->host, d->values);
}

static void fill_intervals(const draw *d, radz_metrics *low, radz_metrics *high)
{
    const rz_bootstrap *b = d->b;
    for (size_t c = 0; c <= b->n_classes; c++)
        for (size_t k = 0; k < RZ_N_FIGURES; k++)
            rz_interval(values_of(d, c, k), b->options->n_rounds, b->options->confidence, figure(&low[c], k),
                        figure(&high[c], k));
}

/* Before intervals are taken, which sorts the values. */
static radz_status keep_rounds(const draw *d, rz_rounds *out, radz_error *err)
{
    const size_t n = d->b->options->n_rounds, n_classes = d->b->n_classes;
    *out = (rz_rounds){.host = d->b->host, .n = n};
    out->macro = rz_calloc(out->host, n, RZ_N_FIGURES * sizeof *out->macro);
    out->auc = rz_calloc(out->host, n, n_classes * sizeof *out->auc);
    if (!out->macro || !out->auc) {
        rz_rounds_free(out);
        return RZ_NO_MEMORY(err, "rounds of the bootstrap");
    }
    memcpy(out->macro, values_of(d, n_classes, 0), n * RZ_N_FIGURES * sizeof *out->macro);
    for (size_t c = 0; c < n_classes; c++) memcpy(out->auc + c * n, values_of(d, c, 0), n * sizeof *out->auc);
    return RADZ_OK;
}

void rz_rounds_free(rz_rounds *r)
{
    rz_free(r->host, r->macro);
    rz_free(r->host, r->auc);
    *r = (rz_rounds){0};
}

void rz_difference_of(const double *of, const double *than, size_t n, double confidence, double *scratch,
                      rz_difference *out)
{
    double above = 0;
    size_t n_good = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = of[i] - than[i];
        if (isnan(x)) continue;
        above += x > 0 ? 1 : x < 0 ? 0 : 0.5;
        scratch[n_good++] = x;
    }
    rz_interval(scratch, n_good, confidence, &out->low, &out->high);
    out->above = n_good ? above / (double)n_good : NAN;
}

radz_status rz_bootstrap_run(const rz_bootstrap *b, radz_metrics *low, radz_metrics *high, rz_rounds *kept,
                             radz_error *err)
{
    draw *d = rz_calloc(b->host, 1, sizeof *d);
    if (!d) return RZ_NO_MEMORY(err, "bootstrap");
    d->b = b;
    radz_status status = open_lanes(d, err);
    if (status == RADZ_OK && b->pool) rz_pool_run(b->pool, N_LANES, run_lane, d);
    for (size_t i = 0; status == RADZ_OK && !b->pool && i < N_LANES; i++) run_lane(d, i);
    if (status == RADZ_OK && kept) status = keep_rounds(d, kept, err);
    if (status == RADZ_OK) fill_intervals(d, low, high);
    close_lanes(d);
    rz_free(b->host, d);
    return status;
}
