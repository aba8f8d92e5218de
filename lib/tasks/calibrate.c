/* calibrate.c - Platt's sigmoid and isotonic regression.
 * SPDX-License-Identifier: Apache-2.0 */
#include "calibrate.h"

#include <stdlib.h>

#define MAX_STEPS 200

double rz_sigmoid(double x)
{
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

const char *rz_calibration_name(rz_calibration_kind kind)
{
    static const char *const names[] = {"none", "platt", "isotonic"};
    return names[kind];
}

typedef struct sample {
    double x, y, weight;
} sample;

/* ---- Platt ---- */

/* Cross entropy of targets y with sigmoid(a x + b): log(1 + e^f) - y f. */
static double loss(const sample *s, size_t n, double a, double b)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double f = a * s[i].x + b;
        sum += (f > 0 ? f + log1p(exp(-f)) : log1p(exp(f))) - s[i].y * f;
    }
    return sum;
}

/* One Newton step, halved until the loss no longer rises; false when there is nothing left to gain. */
static bool newton_step(const sample *s, size_t n, double *a, double *b)
{
    double ga = 0, gb = 0, haa = 1e-12, hab = 0, hbb = 1e-12;
    for (size_t i = 0; i < n; i++) {
        double p = rz_sigmoid(*a * s[i].x + *b), w = p * (1 - p);
        ga += (p - s[i].y) * s[i].x, gb += p - s[i].y;
        haa += w * s[i].x * s[i].x, hab += w * s[i].x, hbb += w;
    }
    double det = haa * hbb - hab * hab;
    if (!(det > 0) || fabs(ga) + fabs(gb) < 1e-13 * (double)n) return false;
    double da = (hbb * ga - hab * gb) / det, db = (haa * gb - hab * ga) / det, before = loss(s, n, *a, *b);
    for (double step = 1; step > 1e-10; step /= 2) {
        if (loss(s, n, *a - step * da, *b - step * db) > before) continue;
        *a -= step * da, *b -= step * db;
        return fabs(da) + fabs(db) > 1e-14 * (fabs(*a) + fabs(*b));
    }
    return false;
}

static void fit_platt(sample *s, size_t n, rz_calibrator *c)
{
    double mean = 0, spread = 0, high = ((double)c->n_positive + 1) / ((double)c->n_positive + 2),
           low = 1 / ((double)c->n_negative + 2);
    for (size_t i = 0; i < n; i++) mean += s[i].x / (double)n;
    for (size_t i = 0; i < n; i++) spread += (s[i].x - mean) * (s[i].x - mean) / (double)n;
    spread = spread > 0 ? sqrt(spread) : 1;
    for (size_t i = 0; i < n; i++) s[i].x = (s[i].x - mean) / spread, s[i].y = s[i].y > 0 ? high : low;
    double a = 0, b = log(((double)c->n_positive + 1) / ((double)c->n_negative + 1));
    for (int i = 0; i < MAX_STEPS && newton_step(s, n, &a, &b); i++) continue;
    if (a < 0) { /* the loss is convex: the best of the slopes allowed is 0, the best constant the mean target */
        double p = 0;
        for (size_t i = 0; i < n; i++) p += s[i].y / (double)n;
        a = 0, b = log(p / (1 - p));
    }
    c->a = a / spread;
    c->b = b - a * mean / spread;
}

/* ---- Isotonic ---- */

static int by_x(const void *a, const void *b)
{
    double x = ((const sample *)a)->x, y = ((const sample *)b)->x;
    return (x > y) - (x < y);
}

static size_t join_equal(sample *s, size_t n)
{
    size_t k = 0;
    qsort(s, n, sizeof *s, by_x);
    for (size_t i = 0; i < n; k++) {
        sample sum = {s[i].x, 0, 0};
        for (; i < n && s[i].x == sum.x; i++) sum.y += s[i].y, sum.weight++;
        sum.y /= sum.weight;
        s[k] = sum;
    }
    return k;
}

/* Blocks of equal value: start holds where each begins, the mean is kept at its first sample. */
static size_t pool_violators(sample *s, size_t n, size_t *start)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        double y = s[i].y, w = s[i].weight;
        size_t at = i;
        while (k && s[start[k - 1]].y >= y) {
            at = start[--k];
            y = (y * w + s[at].y * s[at].weight) / (w + s[at].weight);
            w += s[at].weight;
        }
        s[at].y = y, s[at].weight = w;
        start[k++] = at;
    }
    return k;
}

static radz_status fit_isotonic(const rz_host *host, sample *s, size_t n, rz_calibrator *c, radz_error *err)
{
    n = join_equal(s, n);
    size_t *start = rz_calloc(host, n, sizeof *start);
    c->x = rz_calloc(host, 2 * n, sizeof *c->x);
    c->y = rz_calloc(host, 2 * n, sizeof *c->y);
    if (!start || !c->x || !c->y) {
        rz_free(host, start);
        return RZ_NO_MEMORY(err, "isotonic regression");
    }
    size_t n_blocks = pool_violators(s, n, start);
    for (size_t k = 0; k < n_blocks; k++) {
        size_t last = (k + 1 < n_blocks ? start[k + 1] : n) - 1;
        c->x[c->n] = s[start[k]].x, c->y[c->n++] = s[start[k]].y;
        if (last != start[k]) c->x[c->n] = s[last].x, c->y[c->n++] = s[start[k]].y;
    }
    rz_free(host, start);
    return RADZ_OK;
}

static double between(const rz_calibrator *c, double x)
{
    size_t low = 0, high = c->n - 1;
    if (x <= c->x[0]) return c->y[0];
    if (x >= c->x[high]) return c->y[high];
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        *(c->x[middle] <= x ? &low : &high) = middle;
    }
    return c->y[low] + (c->y[high] - c->y[low]) * ((x - c->x[low]) / (c->x[high] - c->x[low]));
}

/* ---- Both ---- */

bool rz_calibrator_is_flat(const rz_calibrator *c)
{
    return (c->kind == RZ_CALIBRATE_PLATT && c->a == 0) ||
           (c->kind == RZ_CALIBRATE_ISOTONIC && c->y[0] == c->y[c->n - 1]);
}

void rz_calibration_free(const rz_host *host, rz_calibration *c)
{
    if (!c) return;
    for (size_t i = 0; c->of && i < c->n; i++) rz_calibrator_free(host, &c->of[i]);
    rz_free(host, c->of);
    rz_free(host, c->text);
    rz_free(host, c->films);
    rz_free(host, c);
}

void rz_calibrator_free(const rz_host *host, rz_calibrator *c)
{
    rz_free(host, c->x);
    rz_free(host, c->y);
    *c = (rz_calibrator){0};
}

radz_status rz_calibrate(const rz_host *host, rz_calibration_kind kind, const double *margins, const signed char *truth,
                         size_t n, rz_calibrator *out, radz_error *err)
{
    size_t k = 0;
    *out = (rz_calibrator){.threshold = NAN};
    sample *s = rz_calloc(host, n, sizeof *s);
    if (!s) return RZ_NO_MEMORY(err, "calibration");
    for (size_t i = 0; i < n; i++) {
        if (truth[i] < 0) continue;
        s[k++] = (sample){margins[i], truth[i] > 0, 1};
        ++*(truth[i] > 0 ? &out->n_positive : &out->n_negative);
    }
    radz_status status = RADZ_OK;
    if (out->n_positive && out->n_negative) out->kind = kind;
    if (out->kind == RZ_CALIBRATE_PLATT) fit_platt(s, k, out);
    if (out->kind == RZ_CALIBRATE_ISOTONIC) status = fit_isotonic(host, s, k, out, err);
    rz_free(host, s);
    if (status) rz_calibrator_free(host, out);
    return status;
}

double rz_calibrated(const rz_calibrator *c, double margin)
{
    switch (c->kind) {
    case RZ_CALIBRATE_PLATT:
        return c->a == 0 ? rz_sigmoid(c->b) : rz_sigmoid(c->a * margin + c->b); /* margins may be infinite */
    case RZ_CALIBRATE_ISOTONIC:
        return between(c, margin);
    case RZ_CALIBRATE_NONE:
        break;
    }
    return rz_sigmoid(margin);
}
