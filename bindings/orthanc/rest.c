/* rest.c - JSON to and from Orthanc's own REST interface. SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "plugin.h"

json_t *rest_get(const char *format, ...)
{
    char uri[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(uri, sizeof uri, format, args);
    va_end(args);
    OrthancPluginMemoryBuffer answer = {0};
    if (n < 0 || (size_t)n >= sizeof uri || OrthancPluginRestApiGet(orthanc, &answer, uri)) return NULL;
    json_t *json = json_loadb(answer.data, answer.size, 0, NULL);
    OrthancPluginFreeMemoryBuffer(orthanc, &answer);
    return json;
}

int rest_post(const char *uri, const void *body, size_t n, json_t **answer)
{
    OrthancPluginMemoryBuffer text = {0};
    if (answer) *answer = NULL;
    if (n > UINT32_MAX || OrthancPluginRestApiPost(orthanc, &text, uri, body, (uint32_t)n)) return 1;
    if (answer) *answer = json_loadb(text.data, text.size, 0, NULL);
    OrthancPluginFreeMemoryBuffer(orthanc, &text);
    return answer && !*answer;
}

int rest_put(const char *uri, const void *body, size_t n)
{
    OrthancPluginMemoryBuffer text = {0};
    if (n > UINT32_MAX || OrthancPluginRestApiPut(orthanc, &text, uri, body, (uint32_t)n)) return 1;
    OrthancPluginFreeMemoryBuffer(orthanc, &text);
    return 0;
}
