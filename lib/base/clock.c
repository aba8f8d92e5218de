/* The time of day, for what is dated. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <time.h>

#include "base.h"

void rz_clock_text(const int *minutes_east, char out[15])
{
    struct tm t = {0};
    char text[80]; /* a year of ten digits fits */
    const time_t now = time(NULL) + (minutes_east ? (time_t)*minutes_east * 60 : 0);
    (void)(minutes_east ? gmtime_r(&now, &t) : localtime_r(&now, &t));
    snprintf(text, sizeof text, "%04d%02d%02d%02d%02d%02d", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour,
             t.tm_min, t.tm_sec > 59 ? 59 : t.tm_sec);
    memcpy(out, text, 14);
    out[14] = 0;
}
