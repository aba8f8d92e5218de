/* say.c - what every part of the plugin says and counts: log lines, text, films that were done.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#include "plugin.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

OrthancPluginContext *orthanc;

#define FORMAT_LINE(line, format)                                                                                      \
    char line[1024];                                                                                                   \
    va_list args;                                                                                                      \
    va_start(args, format);                                                                                            \
    vsnprintf(line, sizeof line, format, args);                                                                        \
    va_end(args)

void log_error(const char *format, ...)
{
    FORMAT_LINE(line, format);
    OrthancPluginLogError(orthanc, line);
}

void log_warning(const char *format, ...)
{
    FORMAT_LINE(line, format);
    OrthancPluginLogWarning(orthanc, line);
}

char *print(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0) text = NULL;
    va_end(args);
    return text;
}

/* ---- Counts --------------------------------------------------------------------------------------------- */

static counts total;
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;

void count_film(int failed, unsigned long findings, double seconds)
{
    pthread_mutex_lock(&counting);
    total.films++, total.failed += failed != 0, total.findings += findings;
    if (!failed) total.last_seconds = seconds;
    pthread_mutex_unlock(&counting);
}

counts count_read(void)
{
    pthread_mutex_lock(&counting);
    counts c = total;
    pthread_mutex_unlock(&counting);
    return c;
}
