/* metrics.c - how good the scores of one class are, from films sorted by score.
 * SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include <stdlib.h>

#define MAX_BINS 1000

static int by_score(const void *a, const void *b)
{
    const rz_scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? 1 : -1;
    return (x->film > y->film) - (x->film < y->film);
}

radz_status rz_rank(const rz_host *host, const double *scores, const signed char *truth, size_t n, rz_ranked *out,
                    radz_error *err)
{
    *out = (rz_ranked){.host = host};
    if (n > UINT32_MAX) return rz_fail(err, RADZ_E_LIMIT, "metrics: more than %u films", UINT32_MAX);
    out->items = rz_calloc(host, n, sizeof *out->items);
    if (!out->items) return RZ_NO_MEMORY(err, "scores of a class");
    for (size_t i = 0; i < n; i++) {
        if (truth[i] < 0) continue;
        if (isnan(scores[i])) {
            rz_ranked_free(out);
            return rz_fail(err, RADZ_E_ARGUMENT, "metrics: score %zu is not a number", i);
        }
        out->items[out->n++] = (rz_scored){scores[i], (uint32_t)i, truth[i] > 0};
        out->n_pos += truth[i] > 0;
    }
    qsort(out->items, out->n, sizeof *out->items, by_score);
    return RADZ_OK;
}

void rz_ranked_free(rz_ranked *r)
{
    rz_free(r->host, r->items);
    *r = (rz_ranked){0};
}

static double weight_of(const uint32_t *weights, const rz_scored *s)
{
    return weights ? weights[s->film] : 1;
}

/* Films of one score: from *i on (and one past it after), how many positives and negatives. */
typedef struct ties {
    double score, pos, neg;
} ties;

static ties ties_up(const rz_ranked *r, const uint32_t *weights, size_t *i)
{
    ties t = {r->items[*i].score, 0, 0};
    for (; *i < r->n && r->items[*i].score == t.score; ++*i) {
        double w = weight_of(weights, &r->items[*i]);
        *(r->items[*i].truth ? &t.pos : &t.neg) += w;
    }
    return t;
}

/* The same downwards; *i is one past the first film. */
static ties ties_down(const rz_ranked *r, const uint32_t *weights, size_t *i)
{
    ties t = {r->items[*i - 1].score, 0, 0};
    for (; *i && r->items[*i - 1].score == t.score; --*i) {
        double w = weight_of(weights, &r->items[*i - 1]);
        *(r->items[*i - 1].truth ? &t.pos : &t.neg) += w;
    }
    return t;
}

/* Twice the sum of the positives' average ranks (from 1): whole numbers, so nothing is lost to rounding. */
static double doubled_rank_sum(const rz_ranked *r, const uint32_t *weights)
{
    double sum = 0, below = 0;
    for (size_t i = 0; i < r->n;) {
        ties t = ties_up(r, weights, &i);
        sum += t.pos * (2 * below + 1 + t.pos + t.neg);
        below += t.pos + t.neg;
    }
    return sum;
}

static double average_precision(const rz_ranked *r, const uint32_t *weights, double n_pos)
{
    double tp = 0, all = 0, sum = 0;
    for (size_t i = r->n; i;) {
        ties t = ties_down(r, weights, &i);
        tp += t.pos;
        all += t.pos + t.neg;
        if (all) sum += t.pos / n_pos * (tp / all);
    }
    return sum;
}

static double ratio(double a, double b, double otherwise)
{
    return b ? a / b : otherwise;
}

static double f1_of(double tp, double fp, double fn)
{
    return ratio(2 * tp, 2 * tp + fp + fn, 0);
}

static double mcc_of(double tp, double fp, double tn, double fn)
{
    double d = sqrt((tp + fp) * (tp + fn)) * sqrt((tn + fp) * (tn + fn)); /* exact where all are right */
    return ratio(tp * tn - fp * fn, d, 0);
}

static void at_threshold(const rz_ranked *r, const uint32_t *weights, const radz_metrics_options *o, radz_metrics *m)
{
    double n[2][2] = {{0}}; /* [truth][called] */
    for (size_t i = 0; i < r->n; i++) {
        double s = r->items[i].score;
        n[r->items[i].truth][o->strict ? s > o->threshold : s >= o->threshold] += weight_of(weights, &r->items[i]);
    }
    double tp = n[1][1], fp = n[0][1], tn = n[0][0], fn = n[1][0];
    m->tp = (size_t)tp, m->fp = (size_t)fp, m->tn = (size_t)tn, m->fn = (size_t)fn;
    m->threshold = o->threshold;
    m->f1 = f1_of(tp, fp, fn);
    if (o->both_classes) m->f1 = (m->f1 + f1_of(tn, fn, fp)) / 2;
    m->accuracy = ratio(tp + tn, tp + fp + tn + fn, NAN);
    m->mcc = mcc_of(tp, fp, tn, fn);
    m->sensitivity = ratio(tp, tp + fn, NAN);
    m->specificity = ratio(tn, tn + fp, NAN);
    m->precision = ratio(tp, tp + fp, 0);
    if (tp + fp + tn + fn == 0 || isnan(o->threshold)) m->f1 = m->accuracy = m->mcc = m->precision = NAN;
    if (isnan(o->threshold)) m->sensitivity = m->specificity = NAN;
}

/* Bins are closed above, as scikit-learn's calibration_curve has them; scores ascend, so the bin only moves up. */
static void calibration(const rz_ranked *r, const uint32_t *weights, size_t n_bins, radz_metrics *m)
{
    double all = 0, brier = 0, ece = 0, sum_p = 0, sum_y = 0, width = 1.0 / (double)n_bins;
    size_t bin = 0;
    m->brier = m->ece = NAN;
    if (!r->n || r->items[0].score < 0 || r->items[r->n - 1].score > 1) return;
    for (size_t i = 0; i < r->n; i++) {
        double p = r->items[i].score, y = r->items[i].truth, w = weight_of(weights, &r->items[i]);
        while (bin + 1 < n_bins && p > (double)(bin + 1) * width) {
            ece += fabs(sum_p - sum_y);
            sum_p = sum_y = 0;
            bin++;
        }
        sum_p += w * p, sum_y += w * y;
        brier += w * (p - y) * (p - y);
        all += w;
    }
    if (!all) return;
    m->brier = brier / all;
    m->ece = (ece + fabs(sum_p - sum_y)) / all;
}

void rz_measure(const rz_ranked *r, const uint32_t *weights, const radz_metrics_options *o, radz_metrics *m)
{
    *m = (radz_metrics){.struct_size = sizeof *m};
    at_threshold(r, weights, o, m);
    calibration(r, weights, o->n_bins < 1 ? 1 : o->n_bins > MAX_BINS ? MAX_BINS : o->n_bins, m);
    m->n_positive = m->tp + m->fn, m->n_negative = m->fp + m->tn;
    double n_pos = (double)m->n_positive, n_neg = (double)m->n_negative;
    m->auprc = n_pos ? average_precision(r, weights, n_pos) : NAN;
    m->auc = n_pos && n_neg ? (doubled_rank_sum(r, weights) - n_pos * (n_pos + 1)) / (2 * n_pos * n_neg) : NAN;
}

radz_status rz_auc(const rz_host *host, const double *scores, const uint8_t *truth, size_t n, double *auc,
                   radz_error *err)
{
    rz_ranked r = {.host = host};
    *auc = NAN;
    for (size_t i = 0; i < n; i++)
        if (isnan(scores[i])) return RADZ_OK;
    RZ_TRY(rz_rank(host, scores, (const signed char *)truth, n, &r, err));
    double n_pos = (double)r.n_pos, n_neg = (double)(r.n - r.n_pos);
    if (rz_ranked_both(&r)) *auc = (doubled_rank_sum(&r, NULL) - n_pos * (n_pos + 1)) / (2 * n_pos * n_neg);
    rz_ranked_free(&r);
    return RADZ_OK;
}

/* ---- Thresholds and curves ---- */

static double merit(radz_threshold_rule rule, double tp, double fp, double n_pos, double n_neg)
{
    switch (rule) {
    case RADZ_THRESHOLD_MAX_F1:
        return f1_of(tp, fp, n_pos - tp);
    case RADZ_THRESHOLD_YOUDEN:
        return tp * n_neg - fp * n_pos; /* whole numbers: ties are ties */
    case RADZ_THRESHOLD_MCC:
        return mcc_of(tp, fp, n_neg - fp, n_pos - tp);
    case RADZ_THRESHOLD_FIXED:
        break;
    }
    return 0;
}

double rz_find_threshold(const rz_ranked *r, radz_threshold_rule rule)
{
    double tp = 0, fp = 0, n_pos = (double)r->n_pos, n_neg = (double)(r->n - r->n_pos), best = -INFINITY, at = NAN;
    if (!rz_ranked_both(r) || rule == RADZ_THRESHOLD_FIXED) return NAN;
    for (size_t i = r->n; i;) {
        ties t = ties_down(r, NULL, &i);
        tp += t.pos, fp += t.neg;
        double v = merit(rule, tp, fp, n_pos, n_neg);
        if (v >= best) best = v, at = t.score;
    }
    return at;
}

size_t rz_curve(const rz_ranked *r, radz_curve curve, double *x, double *y, double *thresholds)
{
    double tp = 0, fp = 0, n_pos = (double)r->n_pos, n_neg = (double)(r->n - r->n_pos);
    size_t n = 0;
    if (!rz_ranked_both(r)) return 0;
    if (curve == RADZ_CURVE_ROC) x[n] = y[n] = 0, thresholds[n++] = INFINITY;
    for (size_t i = r->n; i; n++) {
        ties t = ties_down(r, NULL, &i);
        tp += t.pos, fp += t.neg;
        thresholds[n] = t.score;
        x[n] = curve == RADZ_CURVE_ROC ? fp / n_neg : tp / n_pos;
        y[n] = curve == RADZ_CURVE_ROC ? tp / n_pos : tp / (tp + fp);
    }
    return n;
}
