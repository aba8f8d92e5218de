/* dicom.c - a DICOM file as a film, and what its header says against using it. SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

static radz_status film_of(const rz_dicom *d, rz_pixels *out, radz_error *err)
{
    rz_dicom_header h;
    bool is_rgb = false;
    RZ_TRY(rz_dicom_header_read(d, &h, err));
    RZ_TRY(rz_dicom_frame(d, &h, out, &is_rgb, err));
    const bool gray = h.photometric == RZ_MONOCHROME1 || h.photometric == RZ_MONOCHROME2;
    const radz_status status = gray ? rz_dicom_tone(d, &h, out, err) : rz_dicom_color(d, &h, is_rgb, out, err);
    out->notes = h.notes;
    if (status != RADZ_OK) rz_pixels_free(d->host, out);
    return status;
}

radz_status rz_dicom_decode(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_pixels *out,
                            radz_error *err)
{
    rz_dicom d;
    memset(out, 0, sizeof *out);
    RZ_TRY(rz_dicom_parse(host, bytes, n, what, &d, err));
    const radz_status status = film_of(&d, out, err);
    rz_dicom_free(&d);
    return status;
}

const char *rz_note_text(size_t i)
{
    static const char *const texts[] = {
        "film is a lateral view: the model knows frontal ones",
        "film is FOR PROCESSING: raw detector values, not meant to be looked at",
        "film has burnt-in annotation, which may name a patient and mislead the model",
        "film is of another modality than CR or DX: not a chest X-ray?",
        "film is of another body part than the chest",
        "film has several frames: only the first is used",
        "film has a window that is not valid: shown from its least to its greatest value",
        "film is one gray from edge to edge: there is nothing to see",
        "film has 16 bits and uses less than a sixteenth of their range, so that it is all but black: 12-bit values "
        "that "
        "nobody scaled?",
    };
    return i < RZ_COUNT(texts) ? texts[i] : NULL;
}

radz_status rz_notes_check(unsigned notes, const char *what, radz_error *err)
{
    for (size_t i = 0; rz_note_text(i); i++)
        if (notes & RZ_NOTE_STRICT & 1u << i)
            return rz_fail(err, RADZ_E_MISMATCH, "%s: refused (strict): %s", what, rz_note_text(i));
    return RADZ_OK;
}
