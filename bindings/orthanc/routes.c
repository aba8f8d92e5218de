/* routes.c - HTTP: state, results, heat maps, and the page. Called by several threads at once.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "outputs.h"
#include "plugin.h"

enum { MAX_WAITING = 1000, MAP_SIDE = 512 };

/* ---- Answers ----------------------------------------------------------------------------------------------- */

static OrthancPluginErrorCode answer_json(OrthancPluginRestOutput *out, int status, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    if (!text) return OrthancPluginErrorCode_NotEnoughMemory;
    OrthancPluginSetHttpHeader(orthanc, out, "Cache-Control", "no-store");
    if (status == 200) {
        OrthancPluginAnswerBuffer(orthanc, out, text, (uint32_t)strlen(text), "application/json");
    } else {
        OrthancPluginSetHttpHeader(orthanc, out, "Content-Type", "application/json");
        if (status == 503) OrthancPluginSetHttpHeader(orthanc, out, "Retry-After", "30");
        OrthancPluginSendHttpStatus(orthanc, out, (uint16_t)status, text, (uint32_t)strlen(text));
    }
    free(text);
    return OrthancPluginErrorCode_Success;
}

static OrthancPluginErrorCode answer_error(OrthancPluginRestOutput *out, int status, const char *message)
{
    return answer_json(out, status, json_pack("{s:s}", "error", message));
}

static int wrong_method(OrthancPluginRestOutput *out, const OrthancPluginHttpRequest *r, OrthancPluginHttpMethod wanted)
{
    if (r->method == wanted) return 0;
    OrthancPluginSendMethodNotAllowed(orthanc, out, wanted == OrthancPluginHttpMethod_Get ? "GET" : "POST");
    return 1;
}

static const char *query(const OrthancPluginHttpRequest *r, const char *name)
{
    for (uint32_t i = 0; i < r->getCount; i++)
        if (strcmp(r->getKeys[i], name) == 0) return r->getValues[i];
    return NULL;
}

/* ---- State ---------------------------------------------------------------------------------------------------- */

static OrthancPluginErrorCode get_version(OrthancPluginRestOutput *out, const char *url,
                                          const OrthancPluginHttpRequest *r)
{
    (void)url;
    if (wrong_method(out, r, OrthancPluginHttpMethod_Get)) return OrthancPluginErrorCode_Success;
    return answer_json(out, 200, json_pack("{s:s, s:s}", "version", radz_version(), "notice", radz_disclaimer()));
}

static json_t *describe_classes(void)
{
    json_t *list = json_array();
    for (size_t i = 0; i < radz_bank_count(engine.bank); i++) {
        const char *label = radz_bank_label(engine.bank, i), *text = radz_bank_description(engine.bank, i);
        json_array_append_new(list, json_pack("{s:s, s:s, s:f, s:b}", "label", label, "description", text ? text : "",
                                              "threshold", config_threshold(label, NAN), "reference",
                                              i == radz_bank_reference(engine.bank)));
    }
    return list;
}

static OrthancPluginErrorCode get_status(OrthancPluginRestOutput *out, const char *url,
                                         const OrthancPluginHttpRequest *r)
{
    (void)url;
    if (wrong_method(out, r, OrthancPluginHttpMethod_Get)) return OrthancPluginErrorCode_Success;
    if (engine.error)
        return answer_json(out, 503,
                           json_pack("{s:b, s:s, s:s}", "ready", 0, "error", engine.error, "version", radz_version()));
    counts c = count_read();
    return answer_json(out, 200,
                       json_pack("{s:b, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:o, s:s}", "ready", 1, "version",
                                 radz_version(), "device", radz_model_device(engine.model), "model",
                                 radz_model_hash(engine.model), "bank", radz_bank_hash(engine.bank), "automatic",
                                 config.automatic, "jobs", (json_int_t)job_count(), "films", (json_int_t)c.films,
                                 "failed", (json_int_t)c.failed, "classes", describe_classes(), "notice",
                                 radz_disclaimer()));
}

/* ---- Films ------------------------------------------------------------------------------------------------------ */

static int is_instance(const char *id)
{
    if (strlen(id) > 60 || id[strspn(id, "0123456789abcdef-")]) return 0;
    json_t *there = rest_get("/instances/%s", id);
    json_decref(there);
    return there != NULL;
}

static OrthancPluginErrorCode post_classify(OrthancPluginRestOutput *out, const char *url,
                                            const OrthancPluginHttpRequest *r)
{
    (void)url;
    if (wrong_method(out, r, OrthancPluginHttpMethod_Post)) return OrthancPluginErrorCode_Success;
    if (engine.error) return answer_error(out, 503, engine.error);
    const char *instance = r->groups[0];
    char id[JOB_ID];
    if (!is_instance(instance)) return answer_error(out, 404, "no such instance");
    if (film_is_output(instance)) return answer_error(out, 409, "this is an output of radz, no film");
    if (job_count() >= MAX_WAITING) return answer_error(out, 503, "too many films are waiting");
    if (!job_ask(instance, 0, 0, id)) return answer_error(out, 500, "no job could be made");
    char *path = print("/jobs/%s", id);
    json_t *json = json_pack("{s:s, s:s}", "ID", id, "Path", path ? path : "");
    free(path);
    return answer_json(out, 200, json);
}

static OrthancPluginErrorCode get_result(OrthancPluginRestOutput *out, const char *url,
                                         const OrthancPluginHttpRequest *r)
{
    int current;
    (void)url;
    if (wrong_method(out, r, OrthancPluginHttpMethod_Get)) return OrthancPluginErrorCode_Success;
    if (!is_instance(r->groups[0])) return answer_error(out, 404, "no such instance");
    json_t *result = film_result(r->groups[0], &current);
    if (!result) return answer_error(out, 404, "no result yet: POST .../radz/classify makes one");
    json_object_set_new(result, "current", json_boolean(current));
    return answer_json(out, 200, result);
}

/* ---- Heat maps ------------------------------------------------------------------------------------------------- */

/* An empty film of the stored one's shape, small: a map is smooth, the page draws it larger. */
static radz_image *shape_of(json_t *result, uint32_t *width, uint32_t *height)
{
    json_t *input = json_object_get(json_object_get(result, "result"), "input");
    double w = (double)json_integer_value(json_object_get(input, "width_px"));
    double h = (double)json_integer_value(json_object_get(input, "height_px")), long_side = w > h ? w : h;
    if (!(w >= 1 && h >= 1 && long_side <= 1e6)) return NULL;
    double scale = long_side > MAP_SIDE ? MAP_SIDE / long_side : 1;
    *width = (uint32_t)fmax(1, lround(w * scale)), *height = (uint32_t)fmax(1, lround(h * scale));
    void *black = calloc((size_t)*width * *height, 1);
    radz_image *image = NULL;
    if (black && radz_image_from_pixels(NULL, black, RADZ_PIXELS_GRAY8, *width, *height, *width, &image, NULL))
        image = NULL;
    free(black);
    return image;
}

/* 0..255 between the map's least and greatest number; what the model has not seen is 0. */
static unsigned char *to_gray(const float *map, size_t n)
{
    unsigned char *gray = calloc(n, 1);
    float low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (map[i] < low) low = map[i];
        if (map[i] > high) high = map[i];
    }
    for (size_t i = 0; gray && high > low && i < n; i++)
        if (isfinite(map[i])) gray[i] = (unsigned char)lroundf(255 * (map[i] - low) / (high - low));
    return gray;
}

static OrthancPluginErrorCode send_map(OrthancPluginRestOutput *out, json_t *result, const float *patches)
{
    uint32_t w = 0, h = 0;
    radz_image *image = shape_of(result, &w, &h);
    float *map = calloc((size_t)w * h + 1, sizeof *map);
    unsigned char *gray = NULL;
    if (image && map && !radz_heatmap_expand(engine.model, image, patches, map, NULL))
        gray = to_gray(map, (size_t)w * h);
    if (gray) OrthancPluginCompressAndAnswerPngImage(orthanc, out, OrthancPluginPixelFormat_Grayscale8, w, h, w, gray);
    radz_image_close(image);
    free(gray), free(map);
    return gray ? OrthancPluginErrorCode_Success : answer_error(out, 500, "the heat map cannot be drawn");
}

static int status_of(radz_status code)
{
    return code == RADZ_E_CANCELLED ? 503 : code == RADZ_E_ARGUMENT ? 404 : 500;
}

/* The stored map, or one made now: only the findings that were over their threshold have one that is kept. */
static OrthancPluginErrorCode answer_map(OrthancPluginRestOutput *out, const char *instance, json_t *result,
                                         const char *label)
{
    const size_t side = radz_heatmap_side(engine.model);
    radz_error err = {RADZ_E_MEMORY, "out of memory"};
    float *patches = calloc(side * side + 1, sizeof *patches);
    json_t *kept = json_object_get(json_object_get(result, "heatmaps"), "patches");
    radz_status code = patches ? RADZ_OK : RADZ_E_MEMORY;
    if (!code && !outputs_read_patches(kept, label, patches, side * side))
        code = film_map(instance, label, patches, &err);
    const OrthancPluginErrorCode answer =
        code ? answer_error(out, status_of(code), err.message) : send_map(out, result, patches);
    free(patches);
    return answer;
}

static OrthancPluginErrorCode get_heatmap(OrthancPluginRestOutput *out, const char *url,
                                          const OrthancPluginHttpRequest *r)
{
    int current;
    (void)url;
    if (wrong_method(out, r, OrthancPluginHttpMethod_Get)) return OrthancPluginErrorCode_Success;
    if (engine.error) return answer_error(out, 503, engine.error);
    const char *label = query(r, "label");
    if (!label) return answer_error(out, 400, "?label= is missing: the name of a finding");
    if (!is_instance(r->groups[0])) return answer_error(out, 404, "no such instance");
    json_t *result = film_result(r->groups[0], &current);
    if (!result) return answer_error(out, 404, "no result yet: POST .../radz/classify makes one");
    OrthancPluginErrorCode code = current ? answer_map(out, r->groups[0], result, label)
                                          : answer_error(out, 409, "the result is of another model or configuration");
    json_decref(result);
    return code;
}

/* ---- The page -------------------------------------------------------------------------------------------------- */

/* Put into the plugin by page.S. */
extern const char page_html[], page_html_end[], page_js[], page_js_end[], page_css[], page_css_end[];
extern const char explorer_js[], explorer_js_end[];

static const struct {
    const char *name, *type, *start, *end;
} files[] = {{"index.html", "text/html; charset=utf-8", page_html, page_html_end},
             {"radz.js", "text/javascript; charset=utf-8", page_js, page_js_end},
             {"radz.css", "text/css; charset=utf-8", page_css, page_css_end}};

static OrthancPluginErrorCode get_page(OrthancPluginRestOutput *out, const char *url, const OrthancPluginHttpRequest *r)
{
    (void)url;
    if (wrong_method(out, r, OrthancPluginHttpMethod_Get)) return OrthancPluginErrorCode_Success;
    for (size_t i = 0; i < COUNT(files); i++) {
        if (strcmp(r->groups[0], files[i].name) != 0) continue;
        OrthancPluginSetHttpHeader(orthanc, out, "Content-Security-Policy",
                                   "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
                                   "connect-src 'self'; base-uri 'none'; form-action 'none'");
        OrthancPluginSetHttpHeader(orthanc, out, "X-Content-Type-Options", "nosniff");
        OrthancPluginSetHttpHeader(orthanc, out, "Cache-Control", "no-cache");
        OrthancPluginAnswerBuffer(orthanc, out, files[i].start, (uint32_t)(files[i].end - files[i].start),
                                  files[i].type);
        return OrthancPluginErrorCode_Success;
    }
    OrthancPluginSendHttpStatusCode(orthanc, out, 404);
    return OrthancPluginErrorCode_Success;
}

static void extend_explorer(void)
{
    char *js = print("%.*s", (int)(explorer_js_end - explorer_js), explorer_js);
    if (js) OrthancPluginExtendOrthancExplorer(orthanc, js);
    free(js);
}

void routes_register(void)
{
    static const struct {
        const char *path;
        OrthancPluginRestCallback answer;
    } routes[] = {{"/radz/version", get_version},
                  {"/radz/status", get_status},
                  {"/radz/app/([a-z.]+)", get_page},
                  {"/instances/([^/]+)/radz/classify", post_classify},
                  {"/instances/([^/]+)/radz/result", get_result},
                  {"/instances/([^/]+)/radz/heatmap", get_heatmap}};
    for (size_t i = 0; i < COUNT(routes); i++)
        OrthancPluginRegisterRestCallbackNoLock(orthanc, routes[i].path, routes[i].answer);
    extend_explorer();
}
