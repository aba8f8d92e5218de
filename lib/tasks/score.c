/* A film's vector against a bank: cosines, probabilities, order.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "score.h"

/* Both vectors have unit length to float accuracy; dividing by the lengths makes cos(x, x) exactly <= 1. */
static double cosine(const float *a, const float *b, size_t dim)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < dim; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    double c = ab / sqrt(aa * bb);
    return c > 1 ? 1 : c < -1 ? -1 : c;
}

radz_status rz_score_cosines(const rz_bank *bank, const float *vector, double *out, radz_error *err)
{
    for (size_t i = 0; i < bank->n; i++) {
        out[i] = cosine(vector, bank->anchors + i * bank->dim, bank->dim);
        if (!isfinite(out[i]))
            return rz_fail(err, RADZ_E_ARGUMENT, "expected a vector of finite numbers that are not all zero");
    }
    return RADZ_OK;
}

/* The sentence of class c and the film, both seen through the anchors. */
static double fused(const rz_bank *bank, const float *film, size_t c)
{
    const float *text = bank->texts + c * bank->dim;
    double sum = 0;
    for (size_t d = 0; d < bank->n; d++) {
        const float *anchor = bank->anchors + d * bank->dim;
        sum += cosine(film, anchor, bank->dim) * cosine(text, anchor, bank->dim);
    }
    return sum / (double)bank->n;
}

/* Probabilities := softmax of similarity / tau. */
static void softmax(rz_score *s, size_t n, double tau)
{
    double top = s[0].similarity, sum = 0;
    for (size_t i = 1; i < n; i++)
        if (s[i].similarity > top) top = s[i].similarity;
    for (size_t i = 0; i < n; i++) {
        s[i].probability = exp((s[i].similarity - top) / tau);
        sum += s[i].probability;
    }
    for (size_t i = 0; i < n; i++) s[i].probability /= sum;
}

static int by_score(const void *pa, const void *pb)
{
    const rz_score *a = pa, *b = pb;
    if (a->probability != b->probability) return a->probability > b->probability ? -1 : 1;
    if (a->similarity > b->similarity) return -1; /* both are NaN where a head scored */
    if (a->similarity < b->similarity) return 1;
    return a->i < b->i ? -1 : a->i > b->i;
}

radz_status rz_score_logits(const float *logits, size_t n, rz_score *out, radz_error *err)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = (rz_score){i, NAN, rz_sigmoid((double)logits[i]), (double)logits[i], NAN};
        if (!isfinite(logits[i]))
            return rz_fail(err, RADZ_E_INTERNAL, "class %zu: the score is not a finite number", i);
    }
    qsort(out, n, sizeof *out, by_score);
    return RADZ_OK;
}

/* ---- Margins ---- */

/* Log-odds of a softmax share: its logit against the sum of the others. */
static double share_margin(const rz_score *s, size_t n, double scale, size_t c)
{
    double top = -INFINITY, sum = 0;
    if (n == 1) return INFINITY;
    for (size_t i = 0; i < n; i++)
        if (i != c && s[i].similarity > top) top = s[i].similarity;
    for (size_t i = 0; i < n; i++)
        if (i != c) sum += exp((s[i].similarity - top) * scale);
    return (s[c].similarity - top) * scale - log(sum);
}

void rz_score_margins(rz_score *s, size_t n, radz_score_classes classes, size_t reference, double scale)
{
    for (size_t c = 0; c < n; c++) {
        if (classes == RADZ_CLASSES_INDEPENDENT)
            s[c].margin = s[c].similarity * scale;
        else if (classes == RADZ_CLASSES_REFERENCE && c != reference)
            s[c].margin = (s[c].similarity - s[reference].similarity) * scale;
        else
            s[c].margin = share_margin(s, n, scale, c);
    }
}

/* ---- A film ---- */

/* What similarities are multiplied with to become logits. */
static double scale_of(const rz_bank *bank, double tau)
{
    return bank->fused ? (double)bank->n / (tau * tau) : 1 / tau;
}

static void fill_cosines(const rz_bank *bank, const float *film, rz_score *out)
{
    for (size_t i = 0; i < bank->n; i++)
        out[i] =
            (rz_score){i, bank->fused ? fused(bank, film, i) : cosine(film, bank->anchors + i * bank->dim, bank->dim),
                       0, NAN, NAN};
}

static radz_status sort_finite(const rz_bank *bank, rz_score *out, radz_error *err)
{
    for (size_t i = 0; i < bank->n; i++)
        if (!isfinite(out[i].similarity) || !isfinite(out[i].probability))
            return rz_fail(err, RADZ_E_INTERNAL, "class '%s': the score is not a finite number", bank->labels[i]);
    qsort(out, bank->n, sizeof *out, by_score);
    return RADZ_OK;
}

radz_status rz_score_film(const rz_bank *bank, const float *film, double tau, rz_score *out, radz_error *err)
{
    if (!(tau > 0) || !isfinite(tau)) return rz_fail(err, RADZ_E_FORMAT, "tau: expected a positive number");
    fill_cosines(bank, film, out);
    softmax(out, bank->n, 1 / scale_of(bank, tau));
    if (bank->fused && bank->n == 1) out[0].probability = rz_sigmoid(out[0].similarity * scale_of(bank, tau));
    if (bank->reference < bank->n && !bank->fused)
        for (size_t i = 0; i < bank->n; i++)
            if (i != bank->reference)
                out[i].probability = rz_sigmoid((out[i].similarity - out[bank->reference].similarity) / tau);
    return sort_finite(bank, out, err);
}

radz_status rz_score_calibrated(const rz_bank *bank, const float *film, rz_score *out, radz_error *err)
{
    const rz_calibration *c = bank->calibration;
    fill_cosines(bank, film, out);
    rz_score_margins(out, bank->n, c->classes, bank->reference, scale_of(bank, c->tau));
    for (size_t i = 0; i < bank->n; i++) {
        out[i].probability = rz_calibrated(&c->of[i], out[i].margin);
        out[i].threshold = c->of[i].threshold;
    }
    return sort_finite(bank, out, err);
}
