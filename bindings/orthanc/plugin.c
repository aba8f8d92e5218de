/* plugin.c - what Orthanc calls: start, changes, end. Whatever is wrong with the model, the server starts.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#include "plugin.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define VISIBLE __attribute__((visibility("default")))

OrthancPluginContext *orthanc;

/* ---- Text --------------------------------------------------------------------------------------------- */

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

static void refresh_metrics(void)
{
    counts c = count_read();
    OrthancPluginSetMetricsValue(orthanc, "radz_films", (float)c.films, OrthancPluginMetricsType_Default);
    OrthancPluginSetMetricsValue(orthanc, "radz_films_failed", (float)c.failed, OrthancPluginMetricsType_Default);
    OrthancPluginSetMetricsValue(orthanc, "radz_findings", (float)c.findings, OrthancPluginMetricsType_Default);
    OrthancPluginSetMetricsValue(orthanc, "radz_jobs", (float)job_count(), OrthancPluginMetricsType_Default);
    OrthancPluginSetMetricsValue(orthanc, "radz_last_seconds", (float)c.last_seconds, OrthancPluginMetricsType_Default);
}

/* ---- Entry points ------------------------------------------------------------------------------------------ */

/* Called in order, one at a time. No REST call may be made before OrthancStarted. */
static OrthancPluginErrorCode on_change(OrthancPluginChangeType type, OrthancPluginResourceType resource,
                                        const char *id)
{
    (void)resource, (void)id;
    if (type == OrthancPluginChangeType_OrthancStarted) watch_start();
    if (type == OrthancPluginChangeType_OrthancStopped) engine_stop(), watch_stop();
    if (type == OrthancPluginChangeType_NewInstance) watch_wake();
    return OrthancPluginErrorCode_Success;
}

VISIBLE int32_t OrthancPluginInitialize(OrthancPluginContext *context)
{
    orthanc = context;
    if (!OrthancPluginCheckVersion(context)) {
        log_error("radz: needs Orthanc %d.%d.%d or newer; the plugin does nothing",
                  ORTHANC_PLUGINS_MINIMAL_MAJOR_NUMBER, ORTHANC_PLUGINS_MINIMAL_MINOR_NUMBER,
                  ORTHANC_PLUGINS_MINIMAL_REVISION_NUMBER);
        return 0;
    }
    OrthancPluginSetDescription(context, "Findings on chest X-rays by libradz. Research use only, not for diagnosis.");
    char *problem;
    if (config_read(&problem)) {
        engine_open();
    } else {
        engine.error = problem ? problem : print("out of memory");
        log_error("radz: films are not classified: %s", engine.error);
    }
    job_register();
    routes_register();
    OrthancPluginRegisterOnChangeCallback(context, on_change);
    OrthancPluginRegisterRefreshMetricsCallback(context, refresh_metrics);
    return 0;
}

VISIBLE void OrthancPluginFinalize(void)
{
    engine_stop();
    watch_stop();
    job_end_all();
    engine_close();
    config_free();
}

VISIBLE const char *OrthancPluginGetName(void)
{
    return "radz";
}

VISIBLE const char *OrthancPluginGetVersion(void)
{
    return radz_version();
}
