/* dicom_header.c - what a DICOM file says of its film: shape, depth, colour, and whether it is a frontal chest film.
 * SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

/* ---- Shape ------------------------------------------------------------------------------- */

static radz_status unsupported(const rz_dicom *d, const char *name, unsigned value, const char *expected,
                               radz_error *err)
{
    return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: dicom: %s %u, expected %s", d->what, name, value, expected);
}

static radz_status read_depth(const rz_dicom *d, rz_dicom_header *h, radz_error *err)
{
    unsigned is_signed = 0, planar = 0;
    h->channels = 1;
    RZ_TRY(rz_dicom_get_u16(d, RZ_TAG(0x0028, 0x0002), "SamplesPerPixel", false, &h->channels, err));
    RZ_TRY(rz_dicom_get_u16(d, RZ_TAG(0x0028, 0x0100), "BitsAllocated", true, &h->allocated, err));
    h->stored = h->allocated;
    RZ_TRY(rz_dicom_get_u16(d, RZ_TAG(0x0028, 0x0101), "BitsStored", false, &h->stored, err));
    h->high = h->stored - 1;
    RZ_TRY(rz_dicom_get_u16(d, RZ_TAG(0x0028, 0x0102), "HighBit", false, &h->high, err));
    RZ_TRY(rz_dicom_get_u16(d, RZ_TAG(0x0028, 0x0103), "PixelRepresentation", false, &is_signed, err));
    RZ_TRY(rz_dicom_get_u16(d, RZ_TAG(0x0028, 0x0006), "PlanarConfiguration", false, &planar, err));
    if (h->channels != 1 && h->channels != 3) return unsupported(d, "SamplesPerPixel", h->channels, "1 or 3", err);
    if (h->allocated != 8 && h->allocated != 16) return unsupported(d, "BitsAllocated", h->allocated, "8 or 16", err);
    if (h->stored == 0 || h->stored > h->allocated || h->high >= h->allocated || h->high + 1 < h->stored)
        return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: BitsStored %u and HighBit %u do not fit in %u bits", d->what,
                       h->stored, h->high, h->allocated);
    if (is_signed > 1 || planar > 1)
        return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: PixelRepresentation and PlanarConfiguration: expected 0 or 1",
                       d->what);
    h->is_signed = is_signed;
    h->planar = planar && h->channels > 1;
    return RADZ_OK;
}

static radz_status read_photometric(const rz_dicom *d, rz_dicom_header *h, radz_error *err)
{
    static const struct {
        const char *name;
        rz_photometric value;
        unsigned channels;
    } known[] = {{"MONOCHROME2", RZ_MONOCHROME2, 1}, {"MONOCHROME1", RZ_MONOCHROME1, 1},
                 {"PALETTE COLOR", RZ_PALETTE, 1},   {"RGB", RZ_RGB, 3},
                 {"YBR_FULL", RZ_YBR_FULL, 3},       {"YBR_FULL_422", RZ_YBR_FULL_422, 3},
                 {"YBR_ICT", RZ_YBR_TRANSFORMED, 3}, {"YBR_RCT", RZ_YBR_TRANSFORMED, 3}};
    char code[17];
    rz_dicom_code(d, RZ_TAG(0x0028, 0x0004), code);
    for (size_t i = 0; i < RZ_COUNT(known); i++) {
        if (strcmp(code, known[i].name)) continue;
        h->photometric = known[i].value;
        if (h->channels == known[i].channels) return RADZ_OK;
        return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: %u samples per pixel, expected %u for %s", d->what, h->channels,
                       known[i].channels, code);
    }
    return rz_fail(
        err, code[0] ? RADZ_E_UNSUPPORTED : RADZ_E_FORMAT,
        "%s: dicom: PhotometricInterpretation '%s', expected MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB or "
        "YBR_FULL",
        d->what, code);
}

static radz_status read_shape(const rz_dicom *d, rz_dicom_header *h, radz_error *err)
{
    unsigned rows = 0, columns = 0;
    double n_frames = 1;
    bool found;
    RZ_TRY(rz_dicom_get_u16(d, RZ_TAG(0x0028, 0x0010), "Rows", true, &rows, err));
    RZ_TRY(rz_dicom_get_u16(d, RZ_TAG(0x0028, 0x0011), "Columns", true, &columns, err));
    RZ_TRY(rz_dicom_get_decimal(d, RZ_TAG(0x0028, 0x0008), "NumberOfFrames", &n_frames, &found, err));
    h->height = rows;
    h->width = columns;
    h->n_frames = n_frames >= 1 && n_frames <= 1e9 ? (size_t)n_frames : 1;
    if (h->n_frames > 1) h->notes |= RZ_NOTE_FRAMES;
    return RADZ_OK;
}

/* ---- Is it a frontal chest film? ----------------------------------------------------------- */

static bool is_one_of(const char *code, const char *const *words)
{
    for (; *words; words++)
        if (!strcmp(code, *words)) return true;
    return false;
}

static bool holds_one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strstr(text, *words)) return true;
    return false;
}

static void text_in(const rz_dicom *d, uint32_t sequence, uint32_t tag, char to[65])
{
    const rz_dicom_element *e = rz_dicom_find_in(d, sequence, tag);
    if (!e || !rz_dicom_text(e, 0, to, 65)) to[0] = 0;
    for (; *to; to++)
        if (*to >= 'A' && *to <= 'Z') *to = (char)(*to - 'A' + 'a');
}

/* The view by name, by code, or by the direction in which the rows run: along the front of the body or across it. */
static bool is_lateral(const rz_dicom *d)
{
    static const char *const names[] = {"LATERAL", "LAT", "LL", "RL", "LEFT LATERAL", "RIGHT LATERAL", NULL};
    static const char *const codes[] = {"399067008", "399173006", "399198007", "r-10228", "r-10232", "r-10236", NULL};
    static const char *const but[] = {"oblique", "decubitus", "medio", "postero", "antero", NULL};
    const uint32_t view = RZ_TAG(0x0054, 0x0220);
    char text[65];
    rz_dicom_code(d, RZ_TAG(0x0018, 0x5101), text);
    if (is_one_of(text, names)) return true;
    text_in(d, view, RZ_TAG(0x0008, 0x0100), text);
    if (is_one_of(text, codes)) return true;
    text_in(d, view, RZ_TAG(0x0008, 0x0104), text);
    if (strstr(text, "lateral") && !holds_one_of(text, but)) return true;
    rz_dicom_code(d, RZ_TAG(0x0020, 0x0020), text);
    return text[0] == 'A' || text[0] == 'P';
}

static bool is_chest(const rz_dicom *d)
{
    static const char *const parts[] = {"CHEST", "THORA", "TORAX", "LUNG", NULL};
    static const char *const codes[] = {"51185008",  "816094009", "39607008", "43799004",
                                        "302551006", "t-d3000",   "t-28000",  NULL};
    const uint32_t region = RZ_TAG(0x0008, 0x2218);
    char text[65];
    rz_dicom_code(d, RZ_TAG(0x0018, 0x0015), text);
    if (text[0]) return holds_one_of(text, parts);
    text_in(d, region, RZ_TAG(0x0008, 0x0100), text);
    return !text[0] || is_one_of(text, codes);
}

static void look_around(const rz_dicom *d, rz_dicom_header *h)
{
    static const char *const modalities[] = {"CR", "DX", "DR", "RG", NULL};
    char text[17];
    if (is_lateral(d)) h->notes |= RZ_NOTE_LATERAL;
    if (!is_chest(d)) h->notes |= RZ_NOTE_BODY_PART;
    rz_dicom_code(d, RZ_TAG(0x0008, 0x0068), text);
    if (!strcmp(text, "FOR PROCESSING")) h->notes |= RZ_NOTE_FOR_PROCESSING;
    rz_dicom_code(d, RZ_TAG(0x0028, 0x0301), text);
    if (!strcmp(text, "YES")) h->notes |= RZ_NOTE_BURNED_IN;
    rz_dicom_code(d, RZ_TAG(0x0008, 0x0060), text);
    if (!is_one_of(text, modalities)) h->notes |= RZ_NOTE_MODALITY;
}

radz_status rz_dicom_header_read(const rz_dicom *d, rz_dicom_header *h, radz_error *err)
{
    *h = (rz_dicom_header){0};
    RZ_TRY(read_shape(d, h, err));
    RZ_TRY(read_depth(d, h, err));
    RZ_TRY(read_photometric(d, h, err));
    look_around(d, h);
    return RADZ_OK;
}
