/* calibrate.h - from margins (log-odds) to probabilities that hold, class by class, fitted on films with labels.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_CALIBRATE_H
#define RZ_CALIBRATE_H

#include "base.h"

typedef enum rz_calibration_kind { RZ_CALIBRATE_NONE, RZ_CALIBRATE_PLATT, RZ_CALIBRATE_ISOTONIC } rz_calibration_kind;

/* Of one class. */
typedef struct rz_calibrator {
    rz_calibration_kind kind;
    double a, b;      /* Platt: 1 / (1 + exp(-(a x + b))) */
    double *x, *y;    /* isotonic: straight lines between these points, flat outside */
    size_t n;         /* points */
    double threshold; /* of the calibrated probability, chosen on the same films; NaN: none */
    size_t n_positive, n_negative;
} rz_calibrator;

#define RZ_CALIBRATION_MAX_BYTES ((size_t)64 << 20) /* of the file */

/* Of every class of a bank, kept in it. */
typedef struct rz_calibration {
    rz_calibration_kind kind;
    radz_score_classes classes; /* that margins are made with; never AUTO */
    double tau;
    size_t n;
    rz_calibrator *of; /* (n), in bank order */
    char *text;        /* the file radz.calibration/1 that it was read from */
    char *films;       /* which films it was fitted on, in words */
} rz_calibration;

/* margins (n) and truth (n; below 0: left out). NONE where there are no both outcomes. Platt: smoothed targets of his
 * paper, the exact minimum among slopes that do not fall: where a class's margins fall with the truth, every film gets
 * the share of positives. Isotonic: pool adjacent violators, films of one margin together. */
radz_status rz_calibrate(const rz_host *host, rz_calibration_kind kind, const double *margins, const signed char *truth,
                         size_t n, rz_calibrator *out, radz_error *err) RZ_CHECK;
double rz_calibrated(const rz_calibrator *c, double margin);
bool rz_calibrator_is_flat(const rz_calibrator *c); /* the same for every film */
void rz_calibrator_free(const rz_host *host, rz_calibrator *c);
void rz_calibration_free(const rz_host *host, rz_calibration *c); /* and c itself; NULL is fine */
double rz_sigmoid(double x);
const char *rz_calibration_name(rz_calibration_kind kind); /* "platt" */

#endif
