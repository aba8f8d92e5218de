/* dicom_sr.c - Comprehensive 3D SR: template 1500 (measurement report), a measurement group (1501) for every class with
 * the algorithm (4019) and the probability. SPDX-License-Identifier: Apache-2.0 */
#include "dicom_report.h"

#define RELATION RZ_TAG(0x0040, 0xa010)
#define VALUE_TYPE RZ_TAG(0x0040, 0xa040)
#define CONCEPT RZ_TAG(0x0040, 0xa043)
#define CONTENT RZ_TAG(0x0040, 0xa730)

/* Begins an item up to its value. */
static void begin(rz_object_work *w, const char *relation, const char *type, rz_code concept)
{
    rz_dicom_begin_item(&w->out);
    rz_dicom_put_text(&w->out, RELATION, "CS", relation);
    rz_dicom_put_text(&w->out, VALUE_TYPE, "CS", type);
    rz_put_code(&w->out, CONCEPT, concept);
}

static void text_item(rz_object_work *w, const char *relation, rz_code concept, const char *text)
{
    begin(w, relation, "TEXT", concept);
    rz_dicom_put_text(&w->out, RZ_TAG(0x0040, 0xa160), "UT", text);
    rz_dicom_end(&w->out);
}

static void code_item(rz_object_work *w, const char *relation, rz_code concept, rz_code value)
{
    begin(w, relation, "CODE", concept);
    rz_put_code(&w->out, RZ_TAG(0x0040, 0xa168), value);
    rz_dicom_end(&w->out);
}

static void uid_item(rz_object_work *w, const char *relation, rz_code concept, const char *uid)
{
    begin(w, relation, "UIDREF", concept);
    rz_dicom_put(&w->out, RZ_TAG(0x0040, 0xa124), "UI", uid, strlen(uid));
    rz_dicom_end(&w->out);
}

static void begin_container(rz_object_work *w, rz_code concept)
{
    begin(w, "CONTAINS", "CONTAINER", concept);
    rz_dicom_put_text(&w->out, RZ_TAG(0x0040, 0xa050), "CS", "SEPARATE");
    rz_dicom_begin(&w->out, CONTENT);
}

static void end_container(rz_object_work *w)
{
    rz_dicom_end(&w->out);
    rz_dicom_end(&w->out);
}

/* concept NULL: an image of the library has no name. */
static void image_item(rz_object_work *w, const char *relation, const rz_code *concept)
{
    rz_dicom_begin_item(&w->out);
    rz_put_film(w, RZ_TAG(0x0008, 0x1199), NULL);
    rz_dicom_put_text(&w->out, RELATION, "CS", relation);
    rz_dicom_put_text(&w->out, VALUE_TYPE, "CS", "IMAGE");
    if (concept) rz_put_code(&w->out, CONCEPT, *concept);
    rz_dicom_end(&w->out);
}

/* ---- Who and what ---- */

/* UID of the observer: the model. */
static void observer_uid(const rz_object_work *w, char uid[65])
{
    rz_dicom_make_uid(w->ask->result->model_hash, strlen(w->ask->result->model_hash), uid);
}

static void put_observer(rz_object_work *w)
{
    const char *relation = "HAS OBS CONTEXT";
    char uid[65];
    observer_uid(w, uid);
    code_item(w, relation, (rz_code){"121005", "DCM", "Observer Type"}, (rz_code){"121007", "DCM", "Device"});
    uid_item(w, relation, (rz_code){"121012", "DCM", "Device Observer UID"}, uid);
    text_item(w, relation, (rz_code){"121013", "DCM", "Device Observer Name"}, w->ask->result->model_name);
    text_item(w, relation, (rz_code){"121014", "DCM", "Device Observer Manufacturer"}, rz_manufacturer(w));
    text_item(w, relation, (rz_code){"121015", "DCM", "Device Observer Model Name"}, "libradz");
    text_item(w, relation, (rz_code){"121016", "DCM", "Device Observer Serial Number"}, w->ask->result->model_hash);
}

static void put_library(rz_object_work *w)
{
    begin_container(w, (rz_code){"111028", "DCM", "Image Library"});
    begin_container(w, (rz_code){"126200", "DCM", "Image Library Group"});
    image_item(w, "CONTAINS", NULL);
    end_container(w);
    end_container(w);
}

/* Name, version, and what makes it this algorithm and no other. */
static void put_algorithm(rz_object_work *w)
{
    const rz_result *r = w->ask->result;
    const char *relation = "HAS CONCEPT MOD";
    const rz_code parameters = {"111002", "DCM", "Algorithm Parameters"};
    rz_str s = {.host = w->ask->host};
    rz_str_printf(&s, "libradz (%s)", r->model_name);
    text_item(w, relation, (rz_code){"111001", "DCM", "Algorithm Name"}, s.data);
    s.len = 0;
    rz_str_printf(&s, "libradz %s, model %.16s", radz_version(), r->model_hash);
    text_item(w, relation, (rz_code){"111003", "DCM", "Algorithm Version"}, s.data);
    s.len = 0;
    rz_str_printf(&s, "model sha256 %s", r->model_hash);
    text_item(w, relation, parameters, s.data);
    s.len = 0;
    rz_str_printf(&s, "anchor bank sha256 %s", r->bank_hash[0] ? r->bank_hash : "none: linear head");
    text_item(w, relation, parameters, s.data);
    w->out.bytes.failed = w->out.bytes.failed || s.failed;
    rz_str_free(&s);
}

/* ---- Findings ---- */

static void put_probability(rz_object_work *w, double probability)
{
    const rz_code source = {"121112", "DCM", "Source of Measurement"};
    rz_dicom_out *o = &w->out;
    begin(w, "CONTAINS", "NUM", (rz_code){"111012", "DCM", "Certainty of Finding"});
    rz_dicom_begin(o, RZ_TAG(0x0040, 0xa300));
    rz_dicom_begin_item(o);
    rz_put_code(o, RZ_TAG(0x0040, 0x08ea), (rz_code){"%", "UCUM", "Percent"});
    rz_dicom_put_double(o, RZ_TAG(0x0040, 0xa161), 100 * probability);
    rz_dicom_put_decimal(o, RZ_TAG(0x0040, 0xa30a), round(probability * 1e6) / 1e4);
    rz_dicom_end(o);
    rz_dicom_end(o);
    rz_dicom_begin(o, CONTENT);
    image_item(w, "INFERRED FROM", &source);
    rz_dicom_end(o);
    rz_dicom_end(o);
}

/* Present or absent, where a threshold says so. */
static void put_presence(rz_object_work *w, size_t class)
{
    const double threshold = rz_class_threshold(w, class);
    if (isnan(threshold)) return;
    const bool present = w->ask->result->scores[class].probability >= threshold;
    code_item(w, "CONTAINS", (rz_code){"705057003", "SCT", "Presence"},
              present ? (rz_code){"52101004", "SCT", "Present"} : (rz_code){"272519000", "SCT", "Absent"});
}

static void put_finding(rz_object_work *w, size_t i)
{
    const rz_result *r = w->ask->result;
    const char *label = r->labels[i];
    char own[17], uid[65];
    rz_str name = {.host = w->ask->host};
    rz_str_printf(&name, "%s %s", w->object->instance_uid, label);
    rz_dicom_make_uid(name.data ? name.data : "", name.len, uid);
    w->out.bytes.failed = w->out.bytes.failed || name.failed;
    rz_str_free(&name);
    begin_container(w, (rz_code){"125007", "DCM", "Measurement Group"});
    text_item(w, "HAS OBS CONTEXT", (rz_code){"112039", "DCM", "Tracking Identifier"}, label);
    uid_item(w, "HAS OBS CONTEXT", (rz_code){"112040", "DCM", "Tracking Unique Identifier"}, uid);
    code_item(w, "CONTAINS", (rz_code){"121071", "DCM", "Finding"}, rz_class_code(w, label, own));
    put_algorithm(w);
    put_probability(w, r->scores[i].probability);
    put_presence(w, i);
    end_container(w);
}

/* ---- The document ---- */

static void put_content(rz_object_work *w)
{
    const rz_result *r = w->ask->result;
    const rz_code comment = {"121106", "DCM", "Comment"};
    rz_dicom_begin(&w->out, CONTENT);
    code_item(w, "HAS CONCEPT MOD", (rz_code){"121049", "DCM", "Language of Content Item and Descendants"},
              (rz_code){"en", "RFC5646", "English"});
    put_observer(w);
    code_item(w, "HAS CONCEPT MOD", (rz_code){"121058", "DCM", "Procedure reported"},
              (rz_code){"363679005", "SCT", "Imaging procedure"});
    put_library(w);
    begin_container(w, (rz_code){"126010", "DCM", "Imaging Measurements"});
    for (size_t i = 0; i < r->n; i++) put_finding(w, i);
    end_container(w);
    text_item(w, "CONTAINS", comment, radz_disclaimer());
    for (size_t i = 0; i < r->n_warnings; i++) text_item(w, "CONTAINS", comment, r->warnings[i]);
    rz_dicom_end(&w->out);
}

static void put_evidence(rz_object_work *w)
{
    rz_dicom_out *o = &w->out;
    rz_dicom_begin(o, RZ_TAG(0x0040, 0xa375));
    rz_dicom_begin_item(o);
    rz_dicom_begin(o, RZ_TAG(0x0008, 0x1115));
    rz_dicom_begin_item(o);
    rz_dicom_begin(o, RZ_TAG(0x0008, 0x1199));
    rz_dicom_begin_item(o);
    rz_dicom_put(o, RZ_TAG(0x0008, 0x1150), "UI", w->class_uid, strlen(w->class_uid));
    rz_dicom_put(o, RZ_TAG(0x0008, 0x1155), "UI", w->instance_uid, strlen(w->instance_uid));
    rz_dicom_end(o);
    rz_dicom_end(o);
    rz_dicom_put(o, RZ_TAG(0x0020, 0x000e), "UI", w->series_uid, strlen(w->series_uid));
    rz_dicom_end(o);
    rz_dicom_end(o);
    rz_dicom_put(o, RZ_TAG(0x0020, 0x000d), "UI", w->study_uid, strlen(w->study_uid));
    rz_dicom_end(o);
    rz_dicom_end(o);
}

void rz_sr_put(rz_object_work *w)
{
    rz_dicom_out *o = &w->out;
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0023), "DA", w->date);
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0033), "TM", w->time);
    rz_dicom_begin(o, RZ_TAG(0x0008, 0x1111));
    rz_dicom_end(o);
    rz_dicom_put_text(o, VALUE_TYPE, "CS", "CONTAINER");
    rz_put_code(o, CONCEPT, (rz_code){"126000", "DCM", "Imaging Measurement Report"});
    rz_dicom_put_text(o, RZ_TAG(0x0040, 0xa050), "CS", "SEPARATE");
    rz_dicom_begin(o, RZ_TAG(0x0040, 0xa372)); /* PerformedProcedureCodeSequence: not known */
    rz_dicom_end(o);
    put_evidence(w);
    rz_dicom_put_text(o, RZ_TAG(0x0040, 0xa491), "CS", "COMPLETE");
    rz_dicom_put_text(o, RZ_TAG(0x0040, 0xa493), "CS", "UNVERIFIED");
    rz_dicom_put_text(o, RZ_TAG(0x0040, 0xa496), "CS", "PRELIMINARY");
    rz_dicom_begin(o, RZ_TAG(0x0040, 0xa504));
    rz_dicom_begin_item(o);
    rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0105), "CS", "DCMR");
    rz_dicom_put_text(o, RZ_TAG(0x0040, 0xdb00), "CS", "1500");
    rz_dicom_end(o);
    rz_dicom_end(o);
    put_content(w);
}
