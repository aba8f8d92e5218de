/* score.h - a film's vector against a bank. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_SCORE_H
#define RZ_SCORE_H

#include "bank.h"

typedef struct rz_score {
    size_t i;          /* class, in bank order */
    double similarity; /* cosine; NaN: a head scored */
    double probability;
    double margin;    /* log-odds before calibration, where somebody asked for them */
    double threshold; /* of the probability, from the bank's calibration; NaN: none */
} rz_score;

/* Cosines of a vector (dim) of any length with every anchor; RADZ_E_ARGUMENT when it is zero or not finite. */
radz_status rz_score_cosines(const rz_bank *bank, const float *vector, double *out, radz_error *err) RZ_CHECK;
/* out (bank->n), best probability first, ties in bank order. With a reference class r: sigmoid((cos_c - cos_r) / tau)
 * for a finding and the softmax share for r; without: softmax over cos / tau. A bank with texts: the fused score, mean
 * over the anchors of cos(film, D) cos(text, D), and softmax over its sum / tau^2 (one class: sigmoid). A number that
 * is not finite is RADZ_E_INTERNAL, never a score. */
radz_status rz_score_film(const rz_bank *bank, const float *film, double tau, rz_score *out, radz_error *err) RZ_CHECK;
/* The same where the bank has a calibration: its temperature, its probabilities and thresholds. */
radz_status rz_score_calibrated(const rz_bank *bank, const float *film, rz_score *out, radz_error *err) RZ_CHECK;
/* Margins of scores in bank order, from similarities times `scale`. classes: never AUTO; reference: n where there is
 * none. */
void rz_score_margins(rz_score *scores, size_t n, radz_score_classes classes, size_t reference, double scale);
/* Of a linear head: sigmoid of each logit, best first. */
radz_status rz_score_logits(const float *logits, size_t n, rz_score *out, radz_error *err) RZ_CHECK;

#endif
