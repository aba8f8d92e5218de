/* metrics.h - how good scores are. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_METRICS_H
#define RZ_METRICS_H

#include "pool.h"

/* Area under the ROC curve: the chance that a positive outscores a negative, ties counting half (as scikit-learn's
 * roc_auc_score). NaN unless both outcomes are there and every score is a number. truth: 0 or 1. */
radz_status rz_auc(const rz_host *host, const double *scores, const uint8_t *truth, size_t n, double *auc,
                   radz_error *err) RZ_CHECK;

/* One scored film of one class. */
typedef struct rz_scored {
    double score;
    uint32_t film; /* index in the arrays it came from */
    uint8_t truth;
} rz_scored;

/* The films of one class whose outcome is known, lowest score first: sorted once, measured often. */
typedef struct rz_ranked {
    const rz_host *host;
    rz_scored *items;
    size_t n, n_pos;
} rz_ranked;
/* truth below 0: not known, left out. A score that is NaN is RADZ_E_ARGUMENT. */
radz_status rz_rank(const rz_host *host, const double *scores, const signed char *truth, size_t n, rz_ranked *out,
                    radz_error *err) RZ_CHECK;
void rz_ranked_free(rz_ranked *r);
static inline bool rz_ranked_both(const rz_ranked *r)
{
    return r->n_pos > 0 && r->n_pos < r->n;
}

/* The figures of radz_metrics that are means or shares: everything but counts and the threshold. */
enum { RZ_N_FIGURES = 10 };
const char *rz_figure_name(size_t k); /* "auc" */
double rz_figure_of(const radz_metrics *m, size_t k);

/* weights: how often each film counts, by rz_scored.film; NULL: once. */
void rz_measure(const rz_ranked *r, const uint32_t *weights, const radz_metrics_options *o, radz_metrics *out);
double rz_find_threshold(const rz_ranked *r, radz_threshold_rule rule); /* NaN unless both outcomes are there */
/* Points as radz_metrics_curve gives them; arrays of r->n + 1. */
size_t rz_curve(const rz_ranked *r, radz_curve curve, double *x, double *y, double *thresholds);

/* The mean over classes, each metric over those that have both outcomes; counts are sums over the same. *n_defined:
 * how many those are. */
void rz_macro(const radz_metrics *classes, size_t n, radz_metrics *out, size_t *n_defined);

/* One round: n_groups draws of a group with replacement, as a weight for each of n films. drawn: scratch (n_groups). */
void rz_draw_films(uint64_t seed, size_t round, const size_t *groups, size_t n, uint32_t *drawn, size_t n_groups,
                   uint32_t *weights);
/* What the bootstrap draws from: films of one set, in n_groups groups (patients). */
typedef struct rz_bootstrap {
    const rz_host *host;
    rz_pool *pool;           /* NULL: this thread alone */
    const rz_ranked *ranked; /* (n_classes) */
    const double *thresholds;
    const uint8_t *in_macro; /* (n_classes): 1 counts in the mean */
    size_t n_classes;
    const size_t *groups; /* by film */
    size_t n_films, n_groups;
    const radz_metrics_options *options; /* threshold is not read */
} rz_bootstrap;
/* What was drawn, for differences between two scores of the same films: the same seed draws the same patients. */
typedef struct rz_rounds {
    const rz_host *host;
    size_t n;      /* rounds; 0: none were kept */
    double *macro; /* (RZ_N_FIGURES, n) */
    double *auc;   /* (n_classes, n) */
} rz_rounds;
void rz_rounds_free(rz_rounds *r); /* safe on a zeroed one */

/* low, high: (n_classes + 1), the last one the macro mean of the classes that count. kept: NULL, or to be freed. The
 * same bits for any number of threads. */
radz_status rz_bootstrap_run(const rz_bootstrap *b, radz_metrics *low, radz_metrics *high, rz_rounds *kept,
                             radz_error *err) RZ_CHECK;

/* The interval of n drawn values, between the two nearest as numpy's percentile; those that are NaN are left out. Moves
 * the values. */
void rz_interval(double *v, size_t n, double confidence, double *low, double *high);

/* A figure of one score less that of another one, drawn in pairs. NaN where it is undefined. */
typedef struct rz_difference {
    double value, low, high;
    double above; /* share of the rounds in which it is above 0, a tie counting half */
} rz_difference;
/* of, than: (n) of the same rounds; those where one is NaN are left out. scratch (n). Does not set value. */
void rz_difference_of(const double *of, const double *than, size_t n, double confidence, double *scratch,
                      rz_difference *out);
/* groups (n) to numbers 0 .. *n_groups - 1, in order of first appearance; NULL: every film for itself.
 * numbered may be groups itself. */
radz_status rz_number_groups(const rz_host *host, const size_t *groups, size_t n, size_t *numbered, size_t *n_groups,
                             radz_error *err) RZ_CHECK;

#endif
