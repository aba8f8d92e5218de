/* config.c - "Radz" of Orthanc's configuration, checked word by word: a misspelt entry is said, not ignored.
 * SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <string.h>

#include "plugin.h"

settings config;

static const char *const known[] = {"Model",      "Bank",      "Labels",     "Threads", "Jobs",
                                    "Automatic",  "Backlog",   "Modalities", "Outputs", "HeatMaps",
                                    "Thresholds", "Threshold", "Strict",     "Weights", "Memory"};

static int is_known(const char *name)
{
    for (size_t i = 0; i < COUNT(known); i++)
        if (strcmp(name, known[i]) == 0) return 1;
    return 0;
}

static int take_text(const char *name, const char **text, char **problem)
{
    json_t *v = json_object_get(config.all, name);
    if (!v) return 1;
    *text = json_string_value(v);
    if (!*text) *problem = print("\"Radz\": \"%s\" must be a text", name);
    return *text != NULL;
}

static int take_int(const char *name, int low, int high, int *value, char **problem)
{
    json_t *v = json_object_get(config.all, name);
    if (!v) return 1;
    json_int_t i = json_integer_value(v);
    if (!json_is_integer(v) || i < low || i > high) {
        *problem = print("\"Radz\": \"%s\" must be a whole number from %d to %d", name, low, high);
        return 0;
    }
    *value = (int)i;
    return 1;
}

static int take_bool(const char *name, int *value, char **problem)
{
    json_t *v = json_object_get(config.all, name);
    if (!v) return 1;
    *value = json_is_true(v);
    if (!json_is_boolean(v)) *problem = print("\"Radz\": \"%s\" must be true or false", name);
    return json_is_boolean(v);
}

static int is_probability(const json_t *v)
{
    return json_is_number(v) && json_number_value(v) >= 0 && json_number_value(v) <= 1;
}

static int take_thresholds(char **problem)
{
    json_t *v = json_object_get(config.all, "Threshold"), *each;
    const char *label;
    if (v && !is_probability(v)) *problem = print("\"Radz\": \"Threshold\" must be a number from 0 to 1");
    if (v) config.threshold = json_number_value(v);
    config.thresholds = json_object_get(config.all, "Thresholds");
    if (config.thresholds && !json_is_object(config.thresholds))
        *problem = print("\"Radz\": \"Thresholds\" must be an object of numbers");
    json_object_foreach(config.thresholds, label, each) if (!is_probability(each)) *problem =
        print("\"Radz\": the threshold of \"%s\" must be a number from 0 to 1", label);
    return !*problem;
}

/* Codes and thresholds of findings, as the library reads them too: "radz.labels/1". */
static int take_labels(char **problem)
{
    json_error_t error;
    if (!config.labels) return 1;
    config.table = json_load_file(config.labels, 0, &error);
    if (!json_is_object(json_object_get(config.table, "labels")))
        *problem = print("\"Radz\": \"Labels\": %s: %s", config.labels,
                         config.table ? "no object \"labels\" in it" : error.text);
    return !*problem;
}

static int take_outputs(char **problem)
{
    json_t *list = json_object_get(config.all, "Outputs"), *each;
    size_t i;
    if (!list) return 1;
    config.sr = config.sc = config.gsps = 0;
    json_array_foreach(list, i, each)
    {
        const char *name = json_string_value(each);
        int *on = !name ? NULL : !strcmp(name, "SR") ? &config.sr : !strcmp(name, "SC") ? &config.sc : NULL;
        if (!on && name && !strcmp(name, "GSPS")) on = &config.gsps;
        if (on) *on = 1;
        if (!on && !*problem) *problem = print("\"Radz\": \"Outputs\" may have \"SR\", \"SC\" and \"GSPS\"");
    }
    if (!json_is_array(list)) *problem = print("\"Radz\": \"Outputs\" must be a list");
    return !*problem;
}

static int take_modalities(char **problem)
{
    json_t *each;
    size_t i;
    config.modalities = json_object_get(config.all, "Modalities");
    if (!config.modalities) return 1;
    if (!json_is_array(config.modalities)) *problem = print("\"Radz\": \"Modalities\" must be a list of texts");
    json_array_foreach(config.modalities, i, each) if (!json_is_string(each) && !*problem) *problem =
        print("\"Radz\": \"Modalities\" must be a list of texts");
    return !*problem;
}

int config_read(char **problem)
{
    memset(&config, 0, sizeof config);
    config.jobs = 1, config.automatic = 1, config.sr = config.sc = 1, config.heatmaps = 1, config.threshold = NAN;
    *problem = NULL;
    char *text = OrthancPluginGetConfiguration(orthanc);
    json_t *whole = text ? json_loads(text, 0, NULL) : NULL;
    OrthancPluginFreeString(orthanc, text);
    config.all = json_incref(json_object_get(whole, "Radz"));
    json_decref(whole);
    const char *name;
    json_t *each;
    if (config.all && !json_is_object(config.all)) *problem = print("\"Radz\" must be an object");
    json_object_foreach(config.all, name, each) if (!is_known(name) && !*problem) *problem =
        print("\"Radz\": nothing is called \"%s\"", name);
    return !*problem && take_text("Model", &config.model, problem) && take_text("Bank", &config.bank, problem) &&
           take_text("Labels", &config.labels, problem) && take_text("Weights", &config.weights, problem) &&
           take_int("Memory", 0, 1 << 30, &config.memory, problem) &&
           take_int("Threads", 0, 1024, &config.threads, problem) && take_int("Jobs", 1, 64, &config.jobs, problem) &&
           take_bool("Automatic", &config.automatic, problem) && take_bool("Backlog", &config.backlog, problem) &&
           take_bool("Strict", &config.strict, problem) && take_int("HeatMaps", 0, 100, &config.heatmaps, problem) &&
           take_labels(problem) && take_thresholds(problem) && take_outputs(problem) && take_modalities(problem);
}

char *config_text(void)
{
    json_t *what =
        json_pack("{s:O?, s:O?, s:o, s:[b,b,b], s:i, s:b}", "table", config.table, "thresholds", config.thresholds,
                  "threshold", isnan(config.threshold) ? json_null() : json_real(config.threshold), "outputs",
                  config.sr, config.sc, config.gsps, "heatmaps", config.heatmaps, "strict", config.strict);
    char *text = json_dumps(what, JSON_SORT_KEYS | JSON_COMPACT);
    json_decref(what);
    return text;
}

void config_free(void)
{
    json_decref(config.all);
    json_decref(config.table);
    memset(&config, 0, sizeof config);
}

double config_threshold(const char *label, double calibrated)
{
    json_t *own = json_object_get(config.thresholds, label);
    if (!own) own = json_object_get(json_object_get(json_object_get(config.table, "labels"), label), "threshold");
    if (own) return json_number_value(own);
    return !isnan(config.threshold) ? config.threshold : !isnan(calibrated) ? calibrated : 0.5;
}
