/* dicom_gsps.c - Grayscale Softcopy Presentation State: the film as its own file says, with the outline of a map's hot
 * area. SPDX-License-Identifier: Apache-2.0 */
#include "dicom_report.h"
#include "outline.h"

enum { MAX_LINES = 32 };

static void put_floats(rz_dicom_out *o, uint32_t tag, float a, float b)
{
    rz_dicom_put_floats(o, tag, (const float[2]){a, b}, 2);
}

/* ---- The film as it is shown ---- */

static void put_relationship(rz_object_work *w)
{
    rz_dicom_out *o = &w->out;
    rz_dicom_begin(o, RZ_TAG(0x0008, 0x1115));
    rz_dicom_begin_item(o);
    rz_put_film(w, RZ_TAG(0x0008, 0x1140), NULL);
    rz_dicom_put(o, RZ_TAG(0x0020, 0x000e), "UI", w->series_uid, strlen(w->series_uid));
    rz_dicom_end(o);
    rz_dicom_end(o);
}

/* Two numbers above 0 that '\' parts. */
static bool is_pair(const rz_dicom_element *e)
{
    char text[20];
    double v;
    for (size_t i = 0; i < 2; i++)
        if (!e || !rz_dicom_text(e, i, text, sizeof text) || !rz_parse_double(text, strlen(text), &v) || !(v > 0))
            return false;
    return !rz_dicom_text(e, 2, text, sizeof text) && e->length <= 34;
}

static void put_area(rz_object_work *w)
{
    rz_dicom_out *o = &w->out;
    const rz_pixels *film = &w->ask->film->pixels;
    const int32_t first[2] = {1, 1}, last[2] = {(int32_t)film->width_px, (int32_t)film->height_px};
    const rz_dicom_element *spacing = rz_dicom_find(w->source, RZ_TAG(0x0028, 0x0030));
    const rz_dicom_element *aspect = rz_dicom_find(w->source, RZ_TAG(0x0028, 0x0034));
    rz_dicom_begin(o, RZ_TAG(0x0070, 0x005a));
    rz_dicom_begin_item(o);
    rz_dicom_put_i32s(o, RZ_TAG(0x0070, 0x0052), first, 2);
    rz_dicom_put_i32s(o, RZ_TAG(0x0070, 0x0053), last, 2);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0100), "CS", "SCALE TO FIT");
    if (is_pair(spacing))
        rz_dicom_put(o, RZ_TAG(0x0070, 0x0101), "DS", spacing->value, spacing->length);
    else if (is_pair(aspect))
        rz_dicom_put(o, RZ_TAG(0x0070, 0x0102), "IS", aspect->value, aspect->length);
    else
        rz_dicom_put(o, RZ_TAG(0x0070, 0x0102), "IS", "1\\1", 3);
    rz_dicom_end(o);
    rz_dicom_end(o);
}

static void put_modality(rz_object_work *w)
{
    const rz_dicom_element *slope = rz_dicom_find(w->source, RZ_TAG(0x0028, 0x1053));
    const rz_dicom_element *intercept = rz_dicom_find(w->source, RZ_TAG(0x0028, 0x1052));
    if (rz_dicom_find_in(w->source, RZ_TAG(0x0028, 0x3000), RZ_TAG(0x0028, 0x3006))) {
        rz_dicom_put_copy(&w->out, w->source, RZ_TAG(0x0028, 0x3000));
        return;
    }
    if (!slope || !slope->length || !intercept || !intercept->length) return;
    rz_dicom_put_copy(&w->out, w->source, RZ_TAG(0x0028, 0x1052));
    rz_dicom_put_copy(&w->out, w->source, RZ_TAG(0x0028, 0x1053));
    const rz_dicom_element *type = rz_dicom_find(w->source, RZ_TAG(0x0028, 0x1054));
    if (type && type->length)
        rz_dicom_put_copy(&w->out, w->source, RZ_TAG(0x0028, 0x1054));
    else
        rz_dicom_put_text(&w->out, RZ_TAG(0x0028, 0x1054), "LO", "US");
}

/* The film's VOI LUT with entries of 16 bits, which every reader of states takes; brightness is the same. */
static void put_voi_table(rz_dicom_out *o, const rz_dicom_lut *lut)
{
    const double most = (double)((1u << lut->bits) - 1);
    rz_str entries = {.host = o->bytes.host};
    for (size_t i = 0; i < lut->n; i++) {
        const double v = (double)rz_dicom_lut_at(lut, (double)lut->first + (double)i) / most;
        const unsigned w = (unsigned)((v > 1 ? 1 : v) * 65535 + .5);
        rz_str_put(&entries, (const uint8_t[2]){(uint8_t)w, (uint8_t)(w >> 8)}, 2);
    }
    const uint16_t first = (uint16_t)lut->first, n = (uint16_t)lut->n; /* 65536 is written as 0 */
    const uint8_t descriptor[6] = {(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)first, (uint8_t)(first >> 8), 16, 0};
    rz_dicom_begin(o, RZ_TAG(0x0028, 0x3010));
    rz_dicom_begin_item(o);
    rz_dicom_put(o, RZ_TAG(0x0028, 0x3002), lut->first < 0 ? "SS" : "US", descriptor, 6);
    rz_dicom_put(o, RZ_TAG(0x0028, 0x3006), "OW", entries.len ? entries.data : "", entries.len);
    rz_dicom_end(o);
    rz_dicom_end(o);
    o->bytes.failed = o->bytes.failed || entries.failed;
    rz_str_free(&entries);
}

/* A state replaces what the film says of its window, so it repeats it; where the film says none, what we showed. */
static radz_status put_voi(rz_object_work *w, radz_error *err)
{
    const uint32_t sequence = RZ_TAG(0x0028, 0x3010);
    rz_dicom_out *o = &w->out;
    const rz_pixels *film = &w->ask->film->pixels;
    const rz_dicom_element *data = rz_dicom_find_in(w->source, sequence, RZ_TAG(0x0028, 0x3006));
    rz_dicom_lut lut;
    if (film->shown == RZ_SHOWN_AS_IT_IS) return RADZ_OK;
    if (film->shown == RZ_SHOWN_VOI && data)
        RZ_TRY(rz_dicom_lut_read(w->source, rz_dicom_find_in(w->source, sequence, RZ_TAG(0x0028, 0x3002)), data,
                                 film->signed_table, "VOI LUT", &lut, err));
    rz_dicom_begin(o, RZ_TAG(0x0028, 0x3110));
    rz_dicom_begin_item(o);
    if (film->shown == RZ_SHOWN_RANGE) {
        rz_dicom_put_decimal(o, RZ_TAG(0x0028, 0x1050), (film->low + film->high + 1) / 2);
        rz_dicom_put_decimal(o, RZ_TAG(0x0028, 0x1051), film->high - film->low + 1);
    } else if (data) {
        put_voi_table(o, &lut);
    } else {
        rz_dicom_put_copy(o, w->source, RZ_TAG(0x0028, 0x1050));
        rz_dicom_put_copy(o, w->source, RZ_TAG(0x0028, 0x1051));
        rz_dicom_put_copy(o, w->source, RZ_TAG(0x0028, 0x1056));
    }
    rz_dicom_end(o);
    rz_dicom_end(o);
    return RADZ_OK;
}

static void put_polarity(rz_object_work *w)
{
    char photometric[17];
    rz_dicom_code(w->source, RZ_TAG(0x0028, 0x0004), photometric);
    rz_dicom_put_text(&w->out, RZ_TAG(0x2050, 0x0020), "CS",
                      strcmp(photometric, "MONOCHROME1") ? "IDENTITY" : "INVERSE");
}

/* ---- The drawing ---- */

static void put_line(rz_dicom_out *o, const rz_line *line)
{
    rz_dicom_begin_item(o);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0005), "CS", "PIXEL");
    rz_dicom_put_u16(o, RZ_TAG(0x0070, 0x0020), 2);
    rz_dicom_put_u16(o, RZ_TAG(0x0070, 0x0021), (unsigned)line->n);
    rz_dicom_put_floats(o, RZ_TAG(0x0070, 0x0022), line->xy, 2 * line->n);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0023), "CS", "POLYLINE");
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0024), "CS", "N");
    rz_dicom_end(o);
}

static void put_words(rz_object_work *w)
{
    rz_dicom_out *o = &w->out;
    rz_str s = {.host = w->ask->host};
    rz_str_puts(&s, "AI result, research use only, not for diagnosis.\n");
    rz_put_finding(w, &s);
    rz_dicom_begin(o, RZ_TAG(0x0070, 0x0008));
    rz_dicom_begin_item(o);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0003), "CS", "DISPLAY");
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0006), "ST", s.data);
    put_floats(o, RZ_TAG(0x0070, 0x0010), .02f, .90f);
    put_floats(o, RZ_TAG(0x0070, 0x0011), .98f, .98f);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0012), "CS", "LEFT");
    rz_dicom_end(o);
    rz_dicom_end(o);
    o->bytes.failed = o->bytes.failed || s.failed;
    rz_str_free(&s);
}

static void put_drawing(rz_object_work *w, const rz_outline *outline)
{
    rz_dicom_out *o = &w->out;
    rz_dicom_begin(o, RZ_TAG(0x0070, 0x0001));
    rz_dicom_begin_item(o);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0002), "CS", "AI");
    put_words(w);
    if (outline->n) {
        rz_dicom_begin(o, RZ_TAG(0x0070, 0x0009));
        for (size_t i = 0; i < outline->n; i++) put_line(o, &outline->lines[i]);
        rz_dicom_end(o);
    }
    rz_dicom_end(o);
    rz_dicom_end(o);
    rz_dicom_begin(o, RZ_TAG(0x0070, 0x0060));
    rz_dicom_begin_item(o);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0002), "CS", "AI");
    rz_dicom_put_integer(o, RZ_TAG(0x0070, 0x0062), 1);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0068), "LO", "AI result, research use only");
    rz_dicom_end(o);
    rz_dicom_end(o);
}

/* ---- The state ---- */

static radz_status find_level(const rz_object_work *w, double *level, radz_error *err)
{
    const rz_pixels *film = &w->ask->film->pixels;
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < film->width_px * film->height_px; i++) {
        const double v = (double)w->ask->map[i];
        if (!isfinite(v)) continue;
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    if (low > high) return rz_fail(err, RADZ_E_ARGUMENT, "heat map: expected finite numbers");
    /* A map with the same number everywhere has no hot area. */
    *level = low < high ? low + w->ask->options->outline * (high - low) : INFINITY;
    return RADZ_OK;
}

static void put_identification(rz_object_work *w)
{
    rz_dicom_out *o = &w->out;
    rz_str s = {.host = w->ask->host};
    rz_put_finding(w, &s);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0080), "CS", "AI_OUTLINE");
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0081), "LO", s.data);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0082), "DA", w->date);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0083), "TM", w->time);
    rz_dicom_put_text(o, RZ_TAG(0x0070, 0x0084), "PN", "");
    o->bytes.failed = o->bytes.failed || s.failed;
    rz_str_free(&s);
}

radz_status rz_gsps_put(rz_object_work *w, radz_error *err)
{
    const rz_pixels *film = &w->ask->film->pixels;
    rz_outline outline = {0};
    double level = INFINITY;
    if (film->channels != 1)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "dicom: a presentation state is for gray films, this one is in colour");
    RZ_TRY(find_level(w, &level, err));
    RZ_TRY(put_voi(w, err));
    RZ_TRY(
        rz_outline_trace(w->ask->host, w->ask->map, film->width_px, film->height_px, level, MAX_LINES, &outline, err));
    put_identification(w);
    put_relationship(w);
    put_area(w);
    put_modality(w);
    put_polarity(w);
    put_drawing(w, &outline);
    rz_outline_free(&outline);
    return RADZ_OK;
}
