/* measure.h - what the programs that link the static library share: giving up, and medians.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RADZ_BENCH_MEASURE_H
#define RADZ_BENCH_MEASURE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "radz.h"

static inline void stop(const char *message)
{
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, message);
    exit(1);
}
static inline void check(radz_status status, const radz_error *err)
{
    if (status) stop(err->message);
}

static inline int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
/* Sorts x. */
static inline double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return x[n / 2];
}

#endif
