/* dicom_sc.c - Secondary Capture: a heat map over its film. SPDX-License-Identifier: Apache-2.0 */
#include "dicom_report.h"

enum { MAX_SIDE = 2048 };
#define BANNER "AI result, research use only, not for diagnosis"

/* ---- Smaller films ---- */

static double sample_at(const rz_pixels *p, size_t i)
{
    return p->bits == 16 ? ((const uint16_t *)p->data)[i] : ((const uint8_t *)p->data)[i];
}

/* Mean of k x k pixels; what is left over at the right and the bottom is cut off. */
static void shrink_pixels(const rz_pixels *from, size_t k, rz_pixels *to)
{
    const size_t c = (size_t)from->channels;
    for (size_t i = 0; i < to->width_px * to->height_px * c; i++) {
        const size_t x = i / c % to->width_px * k, y = i / c / to->width_px * k;
        double sum = 0;
        for (size_t n = 0; n < k * k; n++)
            sum += sample_at(from, ((y + n / k) * from->width_px + x + n % k) * c + i % c);
        const double mean = sum / (double)(k * k) + .5;
        if (to->bits == 16)
            ((uint16_t *)to->data)[i] = (uint16_t)mean;
        else
            ((uint8_t *)to->data)[i] = (uint8_t)mean;
    }
}

/* The number in the middle: maps are smooth, and what was cropped away (NaN) stays so. */
static void shrink_map(const float *from, size_t from_width, size_t k, size_t width, size_t height, float *to)
{
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++) to[y * width + x] = from[(y * k + k / 2) * from_width + x * k + k / 2];
}

static radz_status draw_smaller(const rz_object_work *w, size_t k, const radz_heatmap_picture *picture,
                                const char *banner, rz_pixels *drawn, radz_error *err)
{
    const rz_host *host = w->ask->host;
    const rz_pixels *film = &w->ask->film->pixels;
    const size_t width = film->width_px / k, height = film->height_px / k;
    rz_pixels small;
    RZ_TRY(rz_pixels_alloc(host, width, height, film->channels, film->bits, "raw", "heat map", &small, err));
    float *map = rz_calloc(host, width * height, sizeof *map);
    radz_status status = map ? RADZ_OK : RZ_NO_MEMORY(err, "heat map");
    if (map) {
        shrink_pixels(film, k, &small);
        shrink_map(w->ask->map, film->width_px, k, width, height, map);
        status = rz_heatmap_draw(host, &small, map, picture, banner, drawn, err);
    }
    rz_free(host, map);
    rz_pixels_free(host, &small);
    return status;
}

/* ---- The picture ---- */

/* What the map is of, and by which model. */
static void describe(rz_object_work *w, rz_str *s)
{
    const rz_result *r = w->ask->result;
    rz_put_finding(w, s);
    rz_str_printf(s, ", model %s %.8s, libradz %s", r->model_name, r->model_hash, radz_version());
}

static radz_status draw(const rz_object_work *w, const char *what, rz_pixels *drawn, radz_error *err)
{
    const rz_pixels *film = &w->ask->film->pixels;
    const size_t longest = film->width_px > film->height_px ? film->width_px : film->height_px;
    const size_t shortest = film->width_px < film->height_px ? film->width_px : film->height_px;
    const size_t wanted = (longest + MAX_SIDE - 1) / MAX_SIDE, k = wanted < shortest ? wanted : shortest;
    radz_heatmap_picture picture = {sizeof picture, (double)NAN, (double)NAN, .6, NULL};
    rz_str banner = {.host = w->ask->host};
    rz_str_printf(&banner, "%s.\n%s", BANNER, what);
    radz_status status = banner.failed ? RZ_NO_MEMORY(err, "heat map") : RADZ_OK;
    if (status == RADZ_OK && k < 2)
        status = rz_heatmap_draw(w->ask->host, film, w->ask->map, &picture, banner.data, drawn, err);
    else if (status == RADZ_OK)
        status = draw_smaller(w, k, &picture, banner.data, drawn, err);
    rz_str_free(&banner);
    return status;
}

static void put_pixels(rz_dicom_out *o, const rz_pixels *p)
{
    rz_dicom_put_u16(o, RZ_TAG(0x0028, 0x0002), 3);
    rz_dicom_put_text(o, RZ_TAG(0x0028, 0x0004), "CS", "RGB");
    rz_dicom_put_u16(o, RZ_TAG(0x0028, 0x0006), 0);
    rz_dicom_put_u16(o, RZ_TAG(0x0028, 0x0010), (unsigned)p->height_px);
    rz_dicom_put_u16(o, RZ_TAG(0x0028, 0x0011), (unsigned)p->width_px);
    rz_dicom_put_u16(o, RZ_TAG(0x0028, 0x0100), 8);
    rz_dicom_put_u16(o, RZ_TAG(0x0028, 0x0101), 8);
    rz_dicom_put_u16(o, RZ_TAG(0x0028, 0x0102), 7);
    rz_dicom_put_u16(o, RZ_TAG(0x0028, 0x0103), 0);
    rz_dicom_put(o, RZ_TAG_PIXEL_DATA, "OB", p->data, p->width_px * p->height_px * 3);
}

/* What the film's pixels went through, and whether they name a patient, holds for the picture too. */
static void put_inherited(rz_object_work *w)
{
    static const uint32_t tags[] = {RZ_TAG(0x0028, 0x0301), RZ_TAG(0x0028, 0x2110), RZ_TAG(0x0028, 0x2112),
                                    RZ_TAG(0x0028, 0x2114)};
    for (size_t i = 0; i < RZ_COUNT(tags); i++) rz_dicom_put_copy(&w->out, w->source, tags[i]);
}

radz_status rz_sc_put(rz_object_work *w, radz_error *err)
{
    static const char image_type[] = "DERIVED\\SECONDARY";
    static const rz_code purpose = {"121322", "DCM", "Source image for image processing operation"};
    rz_dicom_out *o = &w->out;
    rz_pixels drawn = {0};
    rz_str what = {.host = w->ask->host};
    describe(w, &what);
    const radz_status status = what.failed ? RZ_NO_MEMORY(err, "heat map") : draw(w, what.data, &drawn, err);
    if (status == RADZ_OK) {
        rz_dicom_put(o, RZ_TAG(0x0008, 0x0008), "CS", image_type, strlen(image_type));
        rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0023), "DA", w->date);
        rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0033), "TM", w->time);
        rz_dicom_put_text(o, RZ_TAG(0x0008, 0x0064), "CS", "WSD");
        rz_dicom_put_text(o, RZ_TAG(0x0008, 0x2111), "ST", what.data);
        rz_put_film(w, RZ_TAG(0x0008, 0x2112), &purpose);
        rz_dicom_put_text(o, RZ_TAG(0x0020, 0x0020), "CS", "");
        rz_dicom_put_text(o, RZ_TAG(0x0020, 0x4000), "LT", radz_disclaimer());
        put_inherited(w);
        put_pixels(o, &drawn);
    }
    rz_pixels_free(w->ask->host, &drawn);
    rz_str_free(&what);
    return status;
}
