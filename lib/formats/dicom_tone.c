/* dicom_tone.c - gray: stored bits, Modality LUT, VOI, polarity, in this order (PS3.3 C.11, PS3.14), through a table
 * with a place for every word that can be stored. SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

enum { N_WORDS = 65536 };

typedef enum voi_kind { VOI_RANGE, VOI_LINEAR, VOI_EXACT, VOI_SIGMOID, VOI_TABLE } voi_kind;

typedef struct tone {
    const rz_dicom *d;
    rz_dicom_header *h;
    bool has_table; /* Modality LUT in place of a line */
    rz_dicom_lut table, voi_table;
    bool signed_voi;
    double slope, intercept;
    voi_kind voi;
    double center, width;
    double low, high; /* VOI_RANGE: modality values shown black and white */
} tone;

/* ---- Modality LUT ----------------------------------------------------------------------------- */

static radz_status read_modality(tone *t, radz_error *err)
{
    const rz_dicom *d = t->d;
    const uint32_t seq = RZ_TAG(0x0028, 0x3000);
    const rz_dicom_element *data = rz_dicom_find_in(d, seq, RZ_TAG(0x0028, 0x3006));
    bool found;
    t->slope = 1;
    if (data) {
        t->has_table = true;
        return rz_dicom_lut_read(d, rz_dicom_find_in(d, seq, RZ_TAG(0x0028, 0x3002)), data, t->h->is_signed,
                                 "Modality LUT", &t->table, err);
    }
    RZ_TRY(rz_dicom_get_decimal(d, RZ_TAG(0x0028, 0x1052), "RescaleIntercept", &t->intercept, &found, err));
    RZ_TRY(rz_dicom_get_decimal(d, RZ_TAG(0x0028, 0x1053), "RescaleSlope", &t->slope, &found, err));
    if (!(fabs(t->slope) < 1e15 && fabs(t->intercept) < 1e15))
        return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: RescaleSlope or RescaleIntercept is out of range", d->what);
    if (t->slope != 0) return RADZ_OK;
    return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: RescaleSlope (0028,1053) is 0: every pixel would be the same",
                   d->what);
}

static double stored_value(const rz_dicom_header *h, unsigned word)
{
    const unsigned v = word >> (h->high + 1 - h->stored) & ((1u << h->stored) - 1);
    return h->is_signed && v >> (h->stored - 1) ? (double)v - (double)(1u << h->stored) : v;
}

static double modality_value(const tone *t, unsigned word)
{
    const double v = stored_value(t->h, word);
    return t->has_table ? rz_dicom_lut_at(&t->table, v) : v * t->slope + t->intercept;
}

/* ---- VOI ---------------------------------------------------------------------------------------- */

static voi_kind window_kind(const rz_dicom *d)
{
    char code[17];
    rz_dicom_code(d, RZ_TAG(0x0028, 0x1056), code);
    return !strcmp(code, "SIGMOID") ? VOI_SIGMOID : !strcmp(code, "LINEAR_EXACT") ? VOI_EXACT : VOI_LINEAR;
}

/* A table where there is one, since a maker who writes both means the window for those who cannot do better; else the
 * first window. */
static radz_status read_voi(tone *t, radz_error *err)
{
    const rz_dicom *d = t->d;
    const uint32_t seq = RZ_TAG(0x0028, 0x3010);
    const rz_dicom_element *data = rz_dicom_find_in(d, seq, RZ_TAG(0x0028, 0x3006));
    bool has_center, has_width;
    if (data) {
        t->signed_voi = !t->has_table && (t->h->is_signed || t->intercept < 0);
        t->voi = VOI_TABLE;
        return rz_dicom_lut_read(d, rz_dicom_find_in(d, seq, RZ_TAG(0x0028, 0x3002)), data, t->signed_voi, "VOI LUT",
                                 &t->voi_table, err);
    }
    RZ_TRY(rz_dicom_get_decimal(d, RZ_TAG(0x0028, 0x1050), "WindowCenter", &t->center, &has_center, err));
    RZ_TRY(rz_dicom_get_decimal(d, RZ_TAG(0x0028, 0x1051), "WindowWidth", &t->width, &has_width, err));
    if (!has_center || !has_width) return RADZ_OK;
    const voi_kind kind = window_kind(d);
    if (t->width >= (kind == VOI_LINEAR ? 1 : 1e-9) && t->width < 1e12 && fabs(t->center) < 1e12)
        t->voi = kind;
    else
        t->h->notes |= RZ_NOTE_WINDOW;
    return RADZ_OK;
}

static double clamp(double v)
{
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

/* 0 black, 1 white. */
static double voi_value(const tone *t, double v)
{
    switch (t->voi) {
    case VOI_LINEAR:
        if (t->width == 1) return v > t->center - .5;
        return clamp((v - (t->center - .5)) / (t->width - 1) + .5);
    case VOI_EXACT:
        return clamp((v - t->center) / t->width + .5);
    case VOI_SIGMOID:
        return 1 / (1 + exp(-4 * (v - t->center) / t->width));
    case VOI_TABLE:
        return clamp(rz_dicom_lut_at(&t->voi_table, v) / (double)((1u << t->voi_table.bits) - 1));
    default:
        return t->high > t->low ? clamp((v - t->low) / (t->high - t->low)) : 0;
    }
}

/* ---- Without VOI ------------------------------------------------------------------------------------ */

/* Words that are the border of the detector's field and no part of a film: PixelPaddingValue, to the end of a range. */
static void find_padding(const tone *t, double *from, double *to)
{
    const rz_dicom_element *value = rz_dicom_find(t->d, RZ_TAG(0x0028, 0x0120));
    const rz_dicom_element *limit = rz_dicom_find(t->d, RZ_TAG(0x0028, 0x0121));
    *from = 1, *to = 0;
    if (!value || value->length != 2) return;
    const unsigned a = rz_dicom_u16(t->d, value, 0);
    const unsigned b = limit && limit->length == 2 ? rz_dicom_u16(t->d, limit, 0) : a;
    *from = t->h->is_signed ? (int16_t)a : (int)a;
    *to = t->h->is_signed ? (int16_t)b : (int)b;
    if (*from <= *to) return;
    const double swap = *from;
    *from = *to, *to = swap;
}

/* A film of up to 8 bits uses all of them; in a deeper one nobody knows how many are used, so its own least and
 * greatest value are black and white. */
static radz_status find_range(tone *t, const rz_pixels *film, radz_error *err)
{
    const rz_host *host = t->d->host;
    const uint16_t *p = film->data;
    double from, to;
    bool *seen = rz_calloc(host, N_WORDS, sizeof *seen);
    if (!seen) return RZ_NO_MEMORY(err, "values of a DICOM file");
    const bool all = t->h->stored <= 8 && !t->has_table;
    for (size_t i = 0; i < film->width_px * film->height_px && !all; i++) seen[p[i]] = true;
    for (size_t w = 0; all && w < (size_t)1 << t->h->stored; w++) seen[w << (t->h->high + 1 - t->h->stored)] = true;
    find_padding(t, &from, &to);
    t->low = INFINITY, t->high = -INFINITY;
    for (unsigned w = 0; w < N_WORDS; w++) {
        const double stored = stored_value(t->h, w), v = modality_value(t, w);
        if (!seen[w] || (!all && stored >= from && stored <= to)) continue;
        t->low = v < t->low ? v : t->low;
        t->high = v > t->high ? v : t->high;
    }
    rz_free(host, seen);
    return RADZ_OK;
}

/* ---- The table ----------------------------------------------------------------------------------------- */

static void look_up(const uint16_t *table, rz_pixels *film, bool narrow)
{
    const size_t n = film->width_px * film->height_px;
    uint16_t *p = film->data;
    uint8_t *bytes = film->data; /* written behind what is read */
    if (narrow)
        for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)table[p[i]];
    else
        for (size_t i = 0; i < n; i++) p[i] = table[p[i]];
    film->bits = narrow ? 8 : 16;
}

radz_status rz_dicom_tone(const rz_dicom *d, rz_dicom_header *h, rz_pixels *film, radz_error *err)
{
    tone t = {.d = d, .h = h};
    RZ_TRY(read_modality(&t, err));
    RZ_TRY(read_voi(&t, err));
    if (t.voi == VOI_RANGE) RZ_TRY(find_range(&t, film, err));
    /* What was 8 bits stays so: the same film as a PNG gives the same numbers. */
    const bool narrow = t.voi == VOI_RANGE && h->stored <= 8 && !t.has_table;
    uint16_t *table = rz_calloc(d->host, N_WORDS, sizeof *table);
    if (!table) return RZ_NO_MEMORY(err, "the gray table of a DICOM file");
    for (unsigned w = 0; w < N_WORDS; w++) {
        const double v = voi_value(&t, modality_value(&t, w));
        const double shown = h->photometric == RZ_MONOCHROME1 ? 1 - v : v;
        table[w] = (uint16_t)(shown * (narrow ? 255 : 65535) + .5);
    }
    look_up(table, film, narrow);
    film->shown = narrow ? RZ_SHOWN_AS_IT_IS : t.voi == VOI_RANGE ? RZ_SHOWN_RANGE : RZ_SHOWN_VOI;
    film->signed_table = t.signed_voi;
    film->low = t.low, film->high = t.high;
    rz_free(d->host, table);
    return RADZ_OK;
}
