/* dicom_source.c - what objects about a film need of the film's own file. SPDX-License-Identifier: Apache-2.0 */
#include "dicom_write.h"

enum { MAX_VALUE = 4096, MAX_TABLE = 131072 };

typedef enum need { REFERENCE, COPIED, MUST } need; /* MUST: empty where the source has none */

static const struct {
    uint32_t tag;
    const char *vr;
    need need;
} kept[] = {
    {RZ_TAG(0x0008, 0x0005), "CS", REFERENCE}, /* SpecificCharacterSet */
    {RZ_TAG(0x0008, 0x0016), "UI", REFERENCE}, /* SOPClassUID */
    {RZ_TAG(0x0008, 0x0018), "UI", REFERENCE}, /* SOPInstanceUID */
    {RZ_TAG(0x0008, 0x0020), "DA", MUST},      /* StudyDate */
    {RZ_TAG(0x0008, 0x0030), "TM", MUST},      /* StudyTime */
    {RZ_TAG(0x0008, 0x0050), "SH", MUST},      /* AccessionNumber */
    {RZ_TAG(0x0008, 0x0060), "CS", REFERENCE}, /* Modality */
    {RZ_TAG(0x0008, 0x0090), "PN", MUST},      /* ReferringPhysicianName */
    {RZ_TAG(0x0008, 0x0201), "SH", COPIED},    /* TimezoneOffsetFromUTC */
    {RZ_TAG(0x0008, 0x1030), "LO", COPIED},    /* StudyDescription */
    {RZ_TAG(0x0010, 0x0010), "PN", MUST},      /* PatientName */
    {RZ_TAG(0x0010, 0x0020), "LO", MUST},      /* PatientID */
    {RZ_TAG(0x0010, 0x0021), "LO", COPIED},    /* IssuerOfPatientID */
    {RZ_TAG(0x0010, 0x0030), "DA", MUST},      /* PatientBirthDate */
    {RZ_TAG(0x0010, 0x0040), "CS", MUST},      /* PatientSex */
    {RZ_TAG(0x0010, 0x1010), "AS", COPIED},    /* PatientAge */
    {RZ_TAG(0x0010, 0x1020), "DS", COPIED},    /* PatientSize */
    {RZ_TAG(0x0010, 0x1030), "DS", COPIED},    /* PatientWeight */
    {RZ_TAG(0x0012, 0x0062), "CS", COPIED},    /* PatientIdentityRemoved */
    {RZ_TAG(0x0012, 0x0063), "LO", COPIED},    /* DeidentificationMethod */
    {RZ_TAG(0x0018, 0x0015), "CS", REFERENCE}, /* BodyPartExamined */
    {RZ_TAG(0x0020, 0x000d), "UI", REFERENCE}, /* StudyInstanceUID */
    {RZ_TAG(0x0020, 0x000e), "UI", REFERENCE}, /* SeriesInstanceUID */
    {RZ_TAG(0x0020, 0x0010), "SH", MUST},      /* StudyID */
    {RZ_TAG(0x0028, 0x0004), "CS", REFERENCE}, /* PhotometricInterpretation */
    {RZ_TAG(0x0028, 0x0008), "IS", REFERENCE}, /* NumberOfFrames */
    {RZ_TAG(0x0028, 0x0010), "US", REFERENCE}, /* Rows */
    {RZ_TAG(0x0028, 0x0011), "US", REFERENCE}, /* Columns */
    {RZ_TAG(0x0028, 0x0030), "DS", REFERENCE}, /* PixelSpacing */
    {RZ_TAG(0x0028, 0x0034), "IS", REFERENCE}, /* PixelAspectRatio */
    {RZ_TAG(0x0028, 0x0301), "CS", REFERENCE}, /* BurnedInAnnotation */
    {RZ_TAG(0x0028, 0x1050), "DS", REFERENCE}, /* WindowCenter */
    {RZ_TAG(0x0028, 0x1051), "DS", REFERENCE}, /* WindowWidth */
    {RZ_TAG(0x0028, 0x1052), "DS", REFERENCE}, /* RescaleIntercept */
    {RZ_TAG(0x0028, 0x1053), "DS", REFERENCE}, /* RescaleSlope */
    {RZ_TAG(0x0028, 0x1054), "LO", REFERENCE}, /* RescaleType */
    {RZ_TAG(0x0028, 0x1056), "CS", REFERENCE}, /* VOILUTFunction */
    {RZ_TAG(0x0028, 0x2110), "CS", REFERENCE}, /* LossyImageCompression */
    {RZ_TAG(0x0028, 0x2112), "DS", REFERENCE}, /* LossyImageCompressionRatio */
    {RZ_TAG(0x0028, 0x2114), "CS", REFERENCE}, /* LossyImageCompressionMethod */
    {RZ_TAG(0x0028, 0x3000), "SQ", REFERENCE}, /* ModalityLUTSequence, its first item */
    {RZ_TAG(0x0028, 0x3002), "US", REFERENCE}, /* LUTDescriptor */
    {RZ_TAG(0x0028, 0x3004), "LO", REFERENCE}, /* ModalityLUTType */
    {RZ_TAG(0x0028, 0x3006), "OW", REFERENCE}, /* LUTData */
    {RZ_TAG(0x0028, 0x3010), "SQ", REFERENCE}, /* VOILUTSequence, its first item */
};

const char *rz_dicom_source_vr(uint32_t tag)
{
    for (size_t i = 0; i < RZ_COUNT(kept); i++)
        if (kept[i].tag == tag) return kept[i].vr;
    return NULL;
}

/* Elements of the data set, and of the first items of the two sequences of tables. */
static bool is_kept(const rz_dicom *d, size_t i, size_t *sequence, size_t *n_items)
{
    const rz_dicom_element *e = &d->elements[i];
    const char *vr = rz_dicom_source_vr(e->tag);
    const bool table = e->tag == RZ_TAG(0x0028, 0x3006);
    if (e->depth == 0) {
        *sequence = vr && !strcmp(vr, "SQ") ? i : SIZE_MAX;
        *n_items = 0;
        return vr && e->length <= MAX_VALUE && e->tag != RZ_TAG(0x0028, 0x3006);
    }
    if (*sequence == SIZE_MAX || e->depth > 2) return false;
    *n_items += e->depth == 1;
    return *n_items == 1 && (e->depth == 1 || (vr && e->length <= (table ? MAX_TABLE : MAX_VALUE)));
}

static size_t count_kept(const rz_dicom *d, size_t *n_bytes)
{
    size_t sequence = SIZE_MAX, n_items = 0, n = 0;
    *n_bytes = 0;
    for (size_t i = 0; i < d->n; i++)
        if (is_kept(d, i, &sequence, &n_items)) n++, *n_bytes += d->elements[i].length;
    return n;
}

static radz_status keep(const rz_dicom *d, rz_dicom *out, radz_error *err)
{
    size_t n_bytes, sequence = SIZE_MAX, n_items = 0, at = 0;
    const size_t n = count_kept(d, &n_bytes);
    *out = (rz_dicom){.host = d->host, .what = "DICOM source", .big = d->big};
    out->elements = rz_calloc(d->host, n, sizeof *out->elements);
    out->inflated = rz_malloc(d->host, n_bytes);
    if (!out->elements || !out->inflated) {
        rz_dicom_free(out);
        return RZ_NO_MEMORY(err, "the identification of a film");
    }
    for (size_t i = 0; i < d->n; i++) {
        if (!is_kept(d, i, &sequence, &n_items)) continue;
        rz_dicom_element *e = &out->elements[out->n++];
        *e = d->elements[i];
        if (e->length) memcpy(out->inflated + at, e->value, e->length);
        e->value = out->inflated + at;
        at += e->length;
    }
    out->cap = out->n;
    return RADZ_OK;
}

radz_status rz_dicom_source_read(const rz_host *host, const uint8_t *bytes, size_t n, rz_dicom *out, radz_error *err)
{
    rz_dicom d;
    *out = (rz_dicom){0};
    RZ_TRY(rz_dicom_parse(host, bytes, n, "DICOM source", &d, err));
    const radz_status status = keep(&d, out, err);
    rz_dicom_free(&d);
    return status;
}

/* ---- Values that are what they say ------------------------------------------------------------------- */

static bool is_number_text(const char *s)
{
    double v;
    return rz_parse_double(s, strlen(s), &v);
}

static bool is_age(const char *s)
{
    return strlen(s) == 4 && strspn(s, "0123456789") == 3 && strchr("DWMY", s[3]);
}

/* hh, hhmm, hhmmss or hhmmss.f */
static bool is_time(const char *s)
{
    static const char digits[] = "0123456789";
    const size_t n = strspn(s, digits);
    if (n == 6 && s[6] == '.') return s[7] && strlen(s) <= 13 && !s[7 + strspn(s + 7, digits)];
    return (n == 2 || n == 4 || n == 6) && !s[n];
}

/* A wrong date or age of the film would make the object wrong: better none. Names and ids are taken as they are. */
static bool is_valid(const rz_dicom_element *e, const char *vr)
{
    char text[80];
    if (!strchr("DTAC", vr[0]) || !e->length) return true;
    if (!rz_dicom_text(e, 0, text, sizeof text)) return false;
    if (!text[0]) return true;
    if (!strcmp(vr, "DA")) return strlen(text) == 8 && strspn(text, "0123456789") == 8;
    if (!strcmp(vr, "TM")) return is_time(text);
    if (!strcmp(vr, "AS")) return is_age(text);
    if (!strcmp(vr, "DS")) return strlen(text) <= 16 && is_number_text(text);
    return strlen(text) <= 16 && !text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _")];
}

/* ---- Into an object ---------------------------------------------------------------------------------- */

static bool is_binary(const char *vr)
{
    return !strcmp(vr, "US") || !strcmp(vr, "OW");
}

static void put_value(rz_dicom_out *o, const rz_dicom *source, const rz_dicom_element *e, const char *vr)
{
    size_t n = e->length;
    if (!source->big || !is_binary(vr)) {
        while (n && !is_binary(vr) && !e->value[n - 1]) n--; /* texts that were padded with 0 */
        rz_dicom_put(o, e->tag, vr, e->value, n);
        return;
    }
    rz_str s = {.host = o->bytes.host};
    for (size_t i = 0; i + 1 < n; i += 2) rz_str_put(&s, (const uint8_t[2]){e->value[i + 1], e->value[i]}, 2);
    rz_dicom_put(o, e->tag, vr, s.len ? s.data : "", s.len);
    o->bytes.failed = o->bytes.failed || s.failed;
    rz_str_free(&s);
}

void rz_dicom_put_copy(rz_dicom_out *o, const rz_dicom *source, uint32_t tag)
{
    const rz_dicom_element *e = rz_dicom_find(source, tag), *end = source->elements + source->n;
    const char *vr = rz_dicom_source_vr(tag);
    if (!e || !vr) return;
    if (strcmp(vr, "SQ")) {
        put_value(o, source, e, vr);
        return;
    }
    if (e + 1 == end || e[1].depth != 1) return; /* no item */
    rz_dicom_begin(o, tag);
    rz_dicom_begin_item(o);
    for (const rz_dicom_element *in = e + 2; in < end && in->depth == 2; in++)
        put_value(o, source, in, rz_dicom_source_vr(in->tag));
    rz_dicom_end(o);
    rz_dicom_end(o);
}

void rz_dicom_source_put(const rz_dicom *source, rz_dicom_out *o)
{
    for (size_t i = 0; i < RZ_COUNT(kept); i++) {
        const rz_dicom_element *e = rz_dicom_find(source, kept[i].tag);
        if (kept[i].need == REFERENCE) continue;
        if (e && is_valid(e, kept[i].vr))
            rz_dicom_put_copy(o, source, kept[i].tag);
        else if (kept[i].need == MUST)
            rz_dicom_put(o, kept[i].tag, kept[i].vr, "", 0);
    }
}

/* With several values texts switch by escape sequences and begin in the first, which is ASCII in all of them. */
rz_dicom_charset rz_dicom_source_charset(const rz_dicom *source)
{
    const rz_dicom_element *e = rz_dicom_find(source, RZ_TAG(0x0008, 0x0005));
    char name[17], more[17];
    if (!e || !rz_dicom_text(e, 0, name, sizeof name) || rz_dicom_text(e, 1, more, sizeof more))
        return RZ_CHARSET_ASCII;
    return !strcmp(name, "ISO_IR 192")   ? RZ_CHARSET_UTF8
           : !strcmp(name, "ISO_IR 100") ? RZ_CHARSET_LATIN1
                                         : RZ_CHARSET_ASCII;
}
