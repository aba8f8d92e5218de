/* plugin.c - what Orthanc calls: start, changes, end. Whatever is wrong with the model, the server starts.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#include "plugin.h"

#define VISIBLE __attribute__((visibility("default")))

static void refresh_metrics(void)
{
    counts c = count_read();
    OrthancPluginSetMetricsValue(orthanc, "radz_films", (float)c.films, OrthancPluginMetricsType_Default);
    OrthancPluginSetMetricsValue(orthanc, "radz_films_failed", (float)c.failed, OrthancPluginMetricsType_Default);
    OrthancPluginSetMetricsValue(orthanc, "radz_findings", (float)c.findings, OrthancPluginMetricsType_Default);
    OrthancPluginSetMetricsValue(orthanc, "radz_jobs", (float)job_count(), OrthancPluginMetricsType_Default);
    OrthancPluginSetMetricsValue(orthanc, "radz_last_seconds", (float)c.last_seconds, OrthancPluginMetricsType_Default);
}

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
