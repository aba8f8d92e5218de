/* dicom_report.c - what the objects of a result have in common: patient and study of the film, who made them, their
 * UIDs. SPDX-License-Identifier: Apache-2.0 */
#include "dicom_report.h"

#include "bank_parts.h"

static const struct {
    const char *class_uid, *modality, *name;
    const char *series_description;
    int series_number;
} kinds[] = {
    [RZ_OBJECT_SR] = {"1.2.840.10008.5.1.4.1.1.88.34", "SR", "sr", "AI report, research use only", 9901},
    [RZ_OBJECT_SC] = {"1.2.840.10008.5.1.4.1.1.7", "OT", "sc", "AI heat maps, research use only", 9902},
    [RZ_OBJECT_GSPS] = {"1.2.840.10008.5.1.4.1.1.11.1", "PR", "gsps", "AI outlines, research use only", 9903},
};

void rz_object_free(rz_object *o)
{
    rz_str_free(&o->file);
    *o = (rz_object){0};
}

/* ---- Parts ---- */

void rz_put_code(rz_dicom_out *o, uint32_t tag, rz_code code)
{
    rz_dicom_begin(o, tag);
    rz_dicom_begin_item(o);
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0100), "SH", code.value);
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0102), "SH", code.scheme);
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0104), "LO", code.meaning);
    rz_dicom_end(o);
    rz_dicom_end(o);
}

static void put_uid(rz_dicom_out *o, uint32_t tag, const char *uid)
{
    rz_dicom_put(o, tag, "UI", uid, strlen(uid));
}

static bool has_frames(const rz_dicom *source)
{
    const rz_dicom_element *e = rz_dicom_find(source, RZ_TAG(0x0028, 0x0008));
    char text[16];
    return e && rz_dicom_text(e, 0, text, sizeof text) && text[0] && strcmp(text, "1");
}

void rz_put_film(rz_object_work *w, uint32_t sequence, const rz_code *purpose)
{
    rz_dicom_out *o = &w->out;
    rz_dicom_begin(o, sequence);
    rz_dicom_begin_item(o);
    put_uid(o, RZ_TAG(0x0008, 0x1150), w->class_uid);
    put_uid(o, RZ_TAG(0x0008, 0x1155), w->instance_uid);
    if (has_frames(w->source)) rz_dicom_put_text(o, RZ_TAG(0x0008, 0x1160), "IS", "1");
    if (purpose) rz_put_code(o, RZ_TAG(0x0040, 0xa170), *purpose);
    rz_dicom_end(o);
    rz_dicom_end(o);
}

static void class_key(const char *label, char key[17])
{
    rz_sha256 hash;
    char hex[65];
    rz_sha256_init(&hash);
    rz_sha256_put(&hash, label, strlen(label));
    rz_sha256_hex(&hash, hex);
    memcpy(key, hex, 16);
    key[16] = 0;
}

rz_code rz_class_code(const rz_object_work *w, const char *label, char own[17])
{
    rz_code_entry entry;
    if (rz_codes_find(&w->codes, label, &entry)) return entry.code;
    class_key(label, own);
    return (rz_code){own, "99RADZ", label};
}

double rz_class_threshold(const rz_object_work *w, size_t class)
{
    const radz_dicom_options *o = w->ask->options;
    const char *label = w->ask->result->labels[class];
    rz_code_entry entry;
    for (size_t i = 0; i < o->n_thresholds; i++)
        if (!rz_label_compare(o->threshold_labels[i], label)) return o->thresholds[i];
    if (rz_codes_find(&w->codes, label, &entry) && !isnan(entry.threshold)) return entry.threshold;
    return isnan(o->threshold) ? w->ask->result->scores[class].threshold : o->threshold;
}

void rz_put_finding(const rz_object_work *w, rz_str *s)
{
    const rz_result *r = w->ask->result;
    rz_str_printf(s, "%s ", r->labels[w->shown]);
    rz_str_put_double(s, round(r->scores[w->shown].probability * 1000) / 10);
    rz_str_puts(s, " %");
    if (w->ask->options->map_method) rz_str_printf(s, ", %s map", w->ask->options->map_method);
}

const char *rz_manufacturer(const rz_object_work *w)
{
    return w->ask->options->manufacturer ? w->ask->options->manufacturer : "libradz";
}

/* "libradz (radz-tiny)": what begins so is one of ours. */
static void put_equipment(rz_object_work *w)
{
    rz_dicom_out *o = &w->out;
    const radz_dicom_options *ask = w->ask->options;
    rz_str model = {.host = w->ask->host}, software = {.host = w->ask->host};
    rz_str_printf(&model, "libradz (%s)", w->ask->result->model_name);
    rz_str_printf(&software, "libradz %s", radz_version());
    o->bytes.failed = o->bytes.failed || model.failed || software.failed;
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0070), "LO", rz_manufacturer(w));
    if (ask->institution) rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0080), "LO", ask->institution);
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x1090), "LO", model.data);
    rz_dicom_put_text(o, RZ_TAG(0x0018, 0x1000), "LO", w->ask->result->model_hash);
    rz_dicom_put_text(o, RZ_TAG(0x0018, 0x1020), "LO", software.data);
    rz_str_free(&model);
    rz_str_free(&software);
}

static void put_contribution(rz_object_work *w)
{
    rz_dicom_out *o = &w->out;
    rz_dicom_begin(o, RZ_TAG(0x0018, 0xa001));
    rz_dicom_begin_item(o);
    put_equipment(w);
    rz_dicom_put_text(o, RZ_TAG(0x0018, 0xa003), "ST", radz_disclaimer());
    rz_put_code(o, RZ_TAG(0x0040, 0xa170), (rz_code){"109102", "DCM", "Processing Equipment"});
    rz_dicom_end(o);
    rz_dicom_end(o);
}

/* Of the chest there is one. Of anything else the side is not known. */
static void put_body_part(rz_object_work *w)
{
    char part[17];
    rz_dicom_code(w->source, RZ_TAG(0x0018, 0x0015), part);
    if (part[0]) rz_dicom_put_text(&w->out, RZ_TAG(0x0018, 0x0015), "CS", part);
    if (strcmp(part, "CHEST")) rz_dicom_put_text(&w->out, RZ_TAG(0x0020, 0x0060), "CS", "");
}

static void put_common(rz_object_work *w, rz_object_kind kind)
{
    rz_dicom_out *o = &w->out;
    rz_dicom_source_put(w->source, o);
    put_uid(o, RZ_TAG(0x0008, 0x0016), kinds[kind].class_uid);
    put_uid(o, RZ_TAG(0x0008, 0x0018), w->object->instance_uid);
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0012), "DA", w->date);
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0013), "TM", w->time);
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0060), "CS", kinds[kind].modality);
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x103e), "LO", kinds[kind].series_description);
    put_uid(o, RZ_TAG(0x0020, 0x000d), w->study_uid); /* padded rightly, which films' own are not always */
    put_uid(o, RZ_TAG(0x0020, 0x000e), w->object->series_uid);
    rz_dicom_put_integer(o, RZ_TAG(0x0020, 0x0011), kinds[kind].series_number);
    rz_dicom_put_integer(o, RZ_TAG(0x0020, 0x0013), (long long)(w->shown % w->ask->result->n) + 1);
    if (kind != RZ_OBJECT_SR) put_body_part(w);
    put_equipment(w);
    put_contribution(w);
}

/* Characters are the film's. Where it has none but ASCII, UTF-8 holds that too, and is said where more is written. */
static void begin_texts(rz_object_work *w)
{
    const rz_dicom *s = w->source;
    bool ascii = !rz_dicom_find(s, RZ_TAG(0x0008, 0x0005));
    for (size_t i = 0; i < s->n && ascii; i++)
        for (size_t k = 0; k < s->elements[i].length && s->elements[i].depth == 0; k++)
            if (s->elements[i].value[k] >= 0x80 && memcmp(rz_dicom_source_vr(s->elements[i].tag), "US", 2))
                ascii = false;
    w->out.charset = ascii ? RZ_CHARSET_UTF8 : rz_dicom_source_charset(s);
}

static void put_charset(rz_object_work *w)
{
    if (rz_dicom_find(w->source, RZ_TAG(0x0008, 0x0005)))
        rz_dicom_put_copy(&w->out, w->source, RZ_TAG(0x0008, 0x0005));
    else if (w->out.charset == RZ_CHARSET_UTF8 && w->out.beyond_ascii)
        rz_dicom_put_text(&w->out, RZ_TAG(0x0008, 0x0005), "CS", "ISO_IR 192");
}

/* ---- UIDs ---- */

static void put_part(rz_str *s, const char *text)
{
    rz_str_puts(s, text ? text : "");
    rz_str_put(s, "\n", 1);
}

/* What two objects of a kind about the same film differ in. */
static void put_configuration(const rz_object_work *w, rz_str *s)
{
    const rz_result *r = w->ask->result;
    for (size_t i = 0; i < r->n && !w->ask->label; i++) {
        char own[17];
        const rz_code code = rz_class_code(w, r->labels[i], own);
        const double threshold = rz_class_threshold(w, i);
        put_part(s, code.value);
        put_part(s, code.scheme);
        rz_str_put_double(s, threshold);
        put_part(s, "");
    }
    put_part(s, w->ask->label);
    put_part(s, w->ask->label ? w->ask->options->map_method : NULL);
    put_part(s, w->ask->options->key);
}

static void name_object(rz_object_work *w, rz_object_kind kind)
{
    const radz_dicom_options *o = w->ask->options;
    rz_str s = {.host = w->ask->host};
    put_part(&s, "radz.dicom/1");
    put_part(&s, kinds[kind].name);
    put_part(&s, w->study_uid);
    put_part(&s, w->ask->result->model_hash);
    put_part(&s, w->ask->result->bank_hash);
    rz_dicom_make_uid(s.data ? s.data : "", s.len, w->object->series_uid);
    put_part(&s, w->instance_uid);
    put_configuration(w, &s);
    rz_dicom_make_uid(s.data ? s.data : "", s.len, w->object->instance_uid);
    if (o->series_uid) memcpy(w->object->series_uid, o->series_uid, strlen(o->series_uid) + 1);
    if (o->instance_uid) memcpy(w->object->instance_uid, o->instance_uid, strlen(o->instance_uid) + 1);
    w->out.bytes.failed = w->out.bytes.failed || s.failed;
    rz_str_free(&s);
}

/* ---- Before anything is built ---- */

static radz_status bad_option(const char *name, const char *expected, radz_error *err)
{
    return rz_fail(err, RADZ_E_ARGUMENT, "dicom: %s: expected %s", name, expected);
}

static bool is_uid(const char *s)
{
    const size_t n = strlen(s);
    return n >= 1 && n <= 64 && s[strspn(s, "0123456789.")] == 0 && s[0] != '.' && s[n - 1] != '.' && !strstr(s, "..");
}

static radz_status check_options(const radz_dicom_options *o, radz_error *err)
{
    if (o->n_thresholds && (!o->thresholds || !o->threshold_labels))
        return bad_option("n_thresholds", "threshold_labels and thresholds", err);
    for (size_t i = 0; i < o->n_thresholds; i++)
        if (!o->threshold_labels[i] || !(o->thresholds[i] >= 0 && o->thresholds[i] <= 1))
            return bad_option("thresholds", "a label and a number in 0..1 each", err);
    if (!isnan(o->threshold) && !(o->threshold >= 0 && o->threshold <= 1))
        return bad_option("threshold", "a number in 0..1, or NaN", err);
    if (!(o->outline > 0 && o->outline < 1)) return bad_option("outline", "a number between 0 and 1", err);
    if (o->date_time && (strlen(o->date_time) != 14 || o->date_time[strspn(o->date_time, "0123456789")]))
        return bad_option("date_time", "14 digits: YYYYMMDDhhmmss", err);
    if ((o->series_uid && !is_uid(o->series_uid)) || (o->instance_uid && !is_uid(o->instance_uid)))
        return bad_option("series_uid, instance_uid", "1..64 digits and dots", err);
    return RADZ_OK;
}

static radz_status take_uid(const rz_dicom *source, uint32_t tag, const char *name, char uid[65], radz_error *err)
{
    rz_dicom_uid(source, tag, uid);
    if (is_uid(uid)) return RADZ_OK;
    return rz_fail(err, RADZ_E_FORMAT, "dicom: the film's file has no %s (%04x,%04x): no object can refer to it", name,
                   (unsigned)(tag >> 16), (unsigned)(tag & 0xffff));
}

static radz_status take_source(rz_object_work *w, radz_error *err)
{
    const rz_object_ask *ask = w->ask;
    w->source = ask->film->source;
    if (!w->source)
        return rz_fail(err, RADZ_E_ARGUMENT,
                       "dicom: the film is no DICOM file: without its patient and study there is nothing to refer to");
    if (strcmp(ask->film->sha256, ask->result->sha256))
        return rz_fail(err, RADZ_E_MISMATCH, "dicom: the result is of another film");
    RZ_TRY(take_uid(w->source, RZ_TAG(0x0020, 0x000d), "StudyInstanceUID", w->study_uid, err));
    RZ_TRY(take_uid(w->source, RZ_TAG(0x0020, 0x000e), "SeriesInstanceUID", w->series_uid, err));
    RZ_TRY(take_uid(w->source, RZ_TAG(0x0008, 0x0018), "SOPInstanceUID", w->instance_uid, err));
    return take_uid(w->source, RZ_TAG(0x0008, 0x0016), "SOPClassUID", w->class_uid, err);
}

static radz_status find_class(rz_object_work *w, radz_error *err)
{
    const rz_result *r = w->ask->result;
    w->shown = r->n;
    if (!w->ask->label) return RADZ_OK;
    for (w->shown = 0; w->shown < r->n; w->shown++)
        if (!rz_label_compare(r->labels[w->shown], w->ask->label)) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT, "dicom: the result has no class '%s'", w->ask->label);
}

/* Minutes east of Greenwich that the film says; false: it does not. */
static bool film_zone(const rz_dicom *source, int *minutes)
{
    const rz_dicom_element *e = rz_dicom_find(source, RZ_TAG(0x0008, 0x0201));
    char t[8];
    if (!e || !rz_dicom_text(e, 0, t, sizeof t) || strlen(t) != 5 || (t[0] != '+' && t[0] != '-') ||
        t[1 + strspn(t + 1, "0123456789")])
        return false;
    *minutes = ((t[1] - '0') * 10 + t[2] - '0') * 60 + (t[3] - '0') * 10 + t[4] - '0';
    if (t[0] == '-') *minutes = -*minutes;
    return true;
}

static void take_time(rz_object_work *w)
{
    char now[15];
    int minutes = 0;
    const bool zoned = film_zone(w->source, &minutes);
    rz_clock_text(zoned ? &minutes : NULL, now);
    if (w->ask->options->date_time) memcpy(now, w->ask->options->date_time, sizeof now);
    memcpy(w->date, now, 8);
    memcpy(w->time, now + 8, 6);
}

/* ---- The whole ---- */

static radz_status put_object(rz_object_work *w, rz_object_kind kind, radz_error *err)
{
    begin_texts(w);
    name_object(w, kind);
    put_common(w, kind);
    if (kind == RZ_OBJECT_SC) RZ_TRY(rz_sc_put(w, err));
    if (kind == RZ_OBJECT_GSPS) RZ_TRY(rz_gsps_put(w, err));
    if (kind == RZ_OBJECT_SR) rz_sr_put(w);
    put_charset(w);
    return RADZ_OK;
}

radz_status rz_object_build(const rz_object_ask *ask, rz_object_kind kind, rz_object *out, radz_error *err)
{
    *out = (rz_object){.class_uid = kinds[kind].class_uid};
    rz_object_work w = {.ask = ask, .object = out, .out.bytes.host = ask->host};
    RZ_TRY(check_options(ask->options, err));
    RZ_TRY(take_source(&w, err));
    RZ_TRY(find_class(&w, err));
    take_time(&w);
    RZ_TRY(rz_codes_open(ask->host, ask->options->labels, &w.codes, err));
    radz_status status = put_object(&w, kind, err);
    rz_codes_close(&w.codes);
    if (status == RADZ_OK) return rz_dicom_finish(&w.out, out->class_uid, out->instance_uid, &out->file, err);
    rz_str_free(&w.out.bytes);
    return status;
}
