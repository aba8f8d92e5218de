/* metrics.c - how good scores are. SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include <stdlib.h>

typedef struct scored {
    double score;
    uint8_t truth;
} scored;

static int by_score(const void *a, const void *b)
{
    double x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return (x > y) - (x < y);
}

/* Twice the sum of the positives' average ranks (from 1): whole numbers, so nothing is lost to rounding. */
static double doubled_rank_sum(const scored *s, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n;) {
        size_t j = i, positives = 0;
        for (; j < n && s[j].score == s[i].score; j++) positives += s[j].truth != 0;
        sum += (double)positives * (double)(i + 1 + j); /* ranks i+1 .. j */
        i = j;
    }
    return sum;
}

radz_status rz_auc(const rz_host *host, const double *scores, const uint8_t *truth, size_t n, double *auc,
                   radz_error *err)
{
    *auc = NAN;
    double n_pos = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(scores[i])) return RADZ_OK;
        n_pos += truth[i] != 0;
    }
    double n_neg = (double)n - n_pos;
    if (n_pos == 0 || n_neg == 0) return RADZ_OK;

    scored *s = rz_calloc(host, n, sizeof *s);
    if (!s) return RZ_NO_MEMORY(err, "scores of an AUC");
    for (size_t i = 0; i < n; i++) s[i] = (scored){scores[i], truth[i]};
    qsort(s, n, sizeof *s, by_score);
    *auc = (doubled_rank_sum(s, n) - n_pos * (n_pos + 1)) / (2 * n_pos * n_neg);
    rz_free(host, s);
    return RADZ_OK;
}
