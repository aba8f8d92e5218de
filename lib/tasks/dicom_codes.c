/* dicom_codes.c - codes of classes: the table that ships and a user's file. SPDX-License-Identifier: Apache-2.0 */
#include "bank_parts.h"
#include "dicom_report.h"

#define MAX_FILE ((size_t)4 << 20)
#define NO_THRESHOLD ((double)NAN)

/* The same as models/labels.json: tests/test_dicom_write.c compares them. */
static const rz_code_entry built_in[] = {
    {"No Finding", {"281900007", "SCT", "No abnormality detected"}, NO_THRESHOLD},
    {"Normal", {"281900007", "SCT", "No abnormality detected"}, NO_THRESHOLD},
    {"Atelectasis", {"46621007", "SCT", "Atelectasis"}, NO_THRESHOLD},
    {"Cardiomegaly", {"8186001", "SCT", "Cardiomegaly"}, NO_THRESHOLD},
    {"Effusion", {"60046008", "SCT", "Pleural effusion"}, NO_THRESHOLD},
    {"Pleural Effusion", {"60046008", "SCT", "Pleural effusion"}, NO_THRESHOLD},
    {"Infiltration", {"409609008", "SCT", "Radiologic infiltrate of lung"}, NO_THRESHOLD},
    {"Mass", {"309529002", "SCT", "Lung mass"}, NO_THRESHOLD},
    {"Nodule", {"786838002", "SCT", "Pulmonary nodule"}, NO_THRESHOLD},
    {"Pneumonia", {"233604007", "SCT", "Pneumonia"}, NO_THRESHOLD},
    {"Pneumothorax", {"36118008", "SCT", "Pneumothorax"}, NO_THRESHOLD},
    {"Consolidation", {"95436008", "SCT", "Lung consolidation"}, NO_THRESHOLD},
    {"Edema", {"19242006", "SCT", "Pulmonary edema"}, NO_THRESHOLD},
    {"Emphysema", {"87433001", "SCT", "Pulmonary emphysema"}, NO_THRESHOLD},
    {"Fibrosis", {"51615001", "SCT", "Fibrosis of lung"}, NO_THRESHOLD},
    {"Pleural Thickening", {"PLEURAL-THICK", "99RADZ", "Pleural thickening"}, NO_THRESHOLD},
    {"Pleural_Thickening", {"PLEURAL-THICK", "99RADZ", "Pleural thickening"}, NO_THRESHOLD},
    {"Hernia", {"39839004", "SCT", "Diaphragmatic hernia"}, NO_THRESHOLD},
};

const rz_code_entry *rz_codes_built_in(size_t i)
{
    return i < RZ_COUNT(built_in) ? &built_in[i] : NULL;
}

/* ---- The file ---- */

static radz_status check_text(const json_t *entry, const char *path, const char *label, const char *key, size_t longest,
                              radz_error *err)
{
    const char *text = json_string_value(json_object_get(entry, key));
    if (text && text[0] && strlen(text) <= longest) return RADZ_OK;
    return rz_fail(err, RADZ_E_FORMAT, "%s: labels: '%s': %s: expected a text of 1..%zu bytes", path, label, key,
                   longest);
}

static radz_status check_entry(const json_t *entry, const char *path, const char *label, radz_error *err)
{
    double threshold = NO_THRESHOLD;
    if (!json_is_object(entry))
        return rz_fail(err, RADZ_E_FORMAT, "%s: labels: '%s': expected an object with code, scheme and meaning", path,
                       label);
    RZ_TRY(check_text(entry, path, label, "code", 16, err));
    RZ_TRY(check_text(entry, path, label, "scheme", 16, err));
    RZ_TRY(check_text(entry, path, label, "meaning", 64, err));
    const json_t *t = json_object_get(entry, "threshold");
    if (t && json_is_number(t)) threshold = json_number_value(t);
    if (!t || (threshold >= 0 && threshold <= 1)) return RADZ_OK;
    return rz_fail(err, RADZ_E_FORMAT, "%s: labels: '%s': threshold: expected a number in 0..1", path, label);
}

static radz_status check_file(const json_t *file, const char *path, radz_error *err)
{
    const char *schema = json_string_value(json_object_get(file, "schema")), *label;
    json_t *labels = json_object_get(file, "labels"), *entry;
    if (!schema || strcmp(schema, "radz.labels/1"))
        return rz_fail(err, RADZ_E_FORMAT, "%s: schema: expected \"radz.labels/1\"", path);
    if (!json_is_object(labels)) return rz_fail(err, RADZ_E_FORMAT, "%s: labels: expected an object", path);
    json_object_foreach(labels, label, entry) RZ_TRY(check_entry(entry, path, label, err));
    return RADZ_OK;
}

radz_status rz_codes_open(const rz_host *host, const char *path, rz_codes *codes, radz_error *err)
{
    *codes = (rz_codes){0};
    if (!path) return RADZ_OK;
    RZ_TRY(rz_json_load(host, path, MAX_FILE, &codes->file, err));
    const radz_status status = check_file(codes->file, path, err);
    if (status != RADZ_OK) rz_codes_close(codes);
    return status;
}

void rz_codes_close(rz_codes *codes)
{
    json_decref(codes->file);
    codes->file = NULL;
}

/* ---- Looking up ---- */

static const char *text_of(const json_t *entry, const char *key)
{
    return json_string_value(json_object_get(entry, key));
}

bool rz_codes_find(const rz_codes *codes, const char *label, rz_code_entry *out)
{
    json_t *labels = json_object_get(codes->file, "labels"), *entry;
    const char *name;
    json_object_foreach(labels, name, entry)
    {
        if (rz_label_compare(name, label)) continue;
        const json_t *t = json_object_get(entry, "threshold");
        *out = (rz_code_entry){name,
                               {text_of(entry, "code"), text_of(entry, "scheme"), text_of(entry, "meaning")},
                               t ? json_number_value(t) : NO_THRESHOLD};
        return true;
    }
    for (size_t i = 0; i < RZ_COUNT(built_in); i++)
        if (!rz_label_compare(built_in[i].label, label)) {
            *out = built_in[i];
            return true;
        }
    return false;
}
