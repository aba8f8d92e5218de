/* metrics.h - how good scores are. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_METRICS_H
#define RZ_METRICS_H

#include "base.h"

/* Area under the ROC curve: the chance that a positive outscores a negative, ties counting half (as scikit-learn's
 * roc_auc_score). NaN unless both outcomes are there and every score is a number. truth: 0 or 1. */
radz_status rz_auc(const rz_host *host, const double *scores, const uint8_t *truth, size_t n, double *auc,
                   radz_error *err) RZ_CHECK;

#endif
