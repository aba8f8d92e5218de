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

/* margins (n) and truth (n; below 0: left out). NONE where there are no both outcomes. Platt: smoothed targets of his
 * paper, the exact minimum. Isotonic: pool adjacent violators, films of one margin together. */
radz_status rz_calibrate(const rz_host *host, rz_calibration_kind kind, const double *margins, const signed char *truth,
                         size_t n, rz_calibrator *out, radz_error *err) RZ_CHECK;
double rz_calibrated(const rz_calibrator *c, double margin);
void rz_calibrator_free(const rz_host *host, rz_calibrator *c);
double rz_sigmoid(double x);

#endif
