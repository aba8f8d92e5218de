/* DICOM films, and the objects that are written about those that can be read. SPDX-License-Identifier: Apache-2.0 */
#include "dicom_report.h"
#include "fuzz.h"

static float map[4096];

/* What is written must be read again, and its last element be where the file ends. */
static void check_object(const rz_object *o)
{
    rz_dicom d;
    radz_error err;
    const radz_status status = rz_dicom_parse(NULL, (uint8_t *)o->file.data, o->file.len, "object", &d, &err);
    fuzz_require(status == RADZ_OK, "an object of ours can be read");
    const rz_dicom_element *uid = rz_dicom_find(&d, RZ_TAG(0x0008, 0x0018));
    char text[65];
    fuzz_require(uid && rz_dicom_text(uid, 0, text, sizeof text) && !strcmp(text, o->instance_uid), "its UID");
    rz_dicom_free(&d);
}

static void write_objects(const rz_film *film, size_t seed)
{
    static char label[] = "Effusion", other[] = "Gro\xc3\x9f\\e", name[] = "model";
    static char warning[] = "probabilities are not calibrated";
    char *labels[] = {label, other}, *warnings[] = {warning};
    rz_score scores[] = {{.probability = .75, .threshold = .5},
                         {.i = 1, .probability = 1e-9, .threshold = (double)NAN}};
    rz_result result = {
        .n = 2, .scores = scores, .labels = labels, .model_name = name, .warnings = warnings, .n_warnings = 1};
    memcpy(result.sha256, film->sha256, sizeof result.sha256);
    for (size_t i = 0; i < RZ_COUNT(map); i++) map[i] = i * 2654435761u * (seed + 1) >> 28 & 1 ? (float)(i % 97) : NAN;
    const radz_dicom_options o = {.struct_size = sizeof o, .threshold = (double)NAN, .outline = .5, .key = "k"};
    for (int kind = RZ_OBJECT_SR; kind <= RZ_OBJECT_GSPS; kind++) {
        const rz_object_ask ask = {NULL, film, &result, kind ? label : NULL, kind ? map : NULL, &o};
        rz_object object;
        radz_error err;
        const radz_status status = rz_object_build(&ask, (rz_object_kind)kind, &object, &err);
        fuzz_check(status, &err);
        if (status == RADZ_OK) check_object(&object);
        rz_object_free(&object);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rz_film film;
    radz_error err;
    const radz_status status = rz_film_decode(NULL, data, size, "film", &film, &err);
    fuzz_check(status, &err);
    if (status) {
        fuzz_require(!film.pixels.data && !film.source, "nothing after a failure");
        return 0;
    }
    if (film.source && film.pixels.width_px * film.pixels.height_px <= RZ_COUNT(map)) write_objects(&film, size);
    rz_film_free(NULL, &film);
    return 0;
}
