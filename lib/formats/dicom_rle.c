/* dicom_rle.c - DICOM's run lengths (PS3.5 Annex G): a segment per byte of a pixel, the high bytes first.
 * SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

enum { HEADER_BYTES = 64, MAX_SEGMENTS = 15 };

static uint32_t read_u32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

/* Puts n_out bytes, each shifted, into every stride-th sample. False: the segment ends before. */
static bool unpack(const uint8_t *p, const uint8_t *end, uint16_t *to, size_t stride, size_t n_out, unsigned shift)
{
    size_t k = 0;
    while (k < n_out) {
        if (p == end) return false;
        const uint8_t code = *p++;
        if (code == 128) continue;
        const bool run = code > 128;
        size_t n = run ? 257u - code : code + 1u;
        if ((size_t)(end - p) < (run ? 1 : n)) return false;
        const size_t used = run ? 1 : n;
        if (n > n_out - k) n = n_out - k;
        for (size_t i = 0; i < n; i++, k++) to[k * stride] |= (uint16_t)(p[run ? 0 : i] << shift);
        p += used;
    }
    return true;
}

radz_status rz_rle_decode(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err)
{
    const rz_dicom_header *h = f->header;
    const size_t n_pixels = h->width * h->height, n_parts = h->allocated / 8, n_segments = h->channels * n_parts;
    if (n < HEADER_BYTES || read_u32(bytes) != n_segments || n_segments > MAX_SEGMENTS)
        return rz_frame_damaged(f, "RLE", "number of segments", err);
    memset(f->samples, 0, n_pixels * h->channels * sizeof *f->samples);
    for (size_t s = 0; s < n_segments; s++) {
        const size_t start = read_u32(bytes + 4 + 4 * s), next = s + 1 < n_segments ? read_u32(bytes + 8 + 4 * s) : n;
        if (start < HEADER_BYTES || start > next || next > n)
            return rz_frame_damaged(f, "RLE", "a segment's place", err);
        const unsigned shift = (unsigned)(8 * (n_parts - 1 - s % n_parts));
        if (!unpack(bytes + start, bytes + next, f->samples + s / n_parts, h->channels, n_pixels, shift))
            return rz_frame_damaged(f, "RLE", "a segment ends too early", err);
    }
    return RADZ_OK;
}
