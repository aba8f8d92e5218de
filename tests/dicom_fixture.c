/* DICOM films of 4 x 3 pixels. SPDX-License-Identifier: Apache-2.0 */
#include "dicom_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <zlib.h>
#include <cmocka.h>

void dicom_put(dicom_file *f, const void *p, size_t n)
{
    assert_true(f->n + n <= sizeof f->bytes);
    memcpy(f->bytes + f->n, p, n);
    f->n += n;
}

void dicom_put_number(dicom_file *f, uint32_t v, size_t n)
{
    for (size_t i = 0; i < n; i++) dicom_put(f, &(uint8_t){(uint8_t)(v >> 8 * (f->big ? n - 1 - i : i))}, 1);
}

void dicom_element(dicom_file *f, uint32_t tag, const char *vr, const void *value, size_t n)
{
    const bool wide = !strcmp(vr, "OB") || !strcmp(vr, "OW") || !strcmp(vr, "SQ");
    dicom_put_number(f, tag >> 16, 2);
    dicom_put_number(f, tag & 0xffff, 2);
    if (!f->implicit) dicom_put(f, vr, 2);
    if (!f->implicit && wide) dicom_put_number(f, 0, 2);
    dicom_put_number(f, (uint32_t)n, f->implicit || wide ? 4 : 2);
    dicom_put(f, value, n);
}

void dicom_text(dicom_file *f, uint32_t tag, const char *vr, const char *value)
{
    char padded[80];
    const size_t n = (size_t)snprintf(padded, sizeof padded, "%s%s", value, strlen(value) % 2 ? " " : "");
    dicom_element(f, tag, vr, padded, n);
}

void dicom_number(dicom_file *f, uint32_t tag, unsigned v)
{
    const uint8_t le[2] = {(uint8_t)v, (uint8_t)(v >> 8)}, be[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    dicom_element(f, tag, "US", f->big ? be : le, 2);
}

const uint16_t dicom_ramp[12] = {0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 4095};

static void optional(dicom_file *f, uint32_t tag, const char *vr, const char *value)
{
    if (value) dicom_text(f, tag, vr, value);
}

/* Both bytes of 12 words as two segments of literal runs. */
static void put_rle(dicom_file *f, const uint16_t *words)
{
    uint8_t frame[64 + 2 * 14] = {2, 0, 0, 0, 64, 0, 0, 0, 78};
    for (size_t part = 0; part < 2; part++) {
        uint8_t *p = frame + 64 + 14 * part;
        *p++ = 11;
        for (size_t i = 0; i < 12; i++) *p++ = (uint8_t)(part ? words[i] : words[i] >> 8);
        *p = 128;
    }
    dicom_put_number(f, 0x00107fe0, 4);
    dicom_put(f, "OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0", 20);
    dicom_put_number(f, sizeof frame, 4);
    dicom_put(f, frame, sizeof frame);
    dicom_put(f, "\xfe\xff\xdd\xe0\0\0\0\0", 8);
}

static void put_pixels(dicom_file *f, const dicom_film *m)
{
    uint8_t bytes[64];
    const uint16_t *words = m->words ? m->words : dicom_ramp;
    const size_t n = m->words ? m->n_words : 12;
    if (m->rle) {
        put_rle(f, words);
        return;
    }
    if (m->rgb) {
        for (size_t i = 0; i < 36; i++) bytes[i] = (uint8_t)(7 * i);
        dicom_element(f, RZ_TAG_PIXEL_DATA, "OB", bytes, 36);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        bytes[2 * i + (f->big ? 1 : 0)] = (uint8_t)words[i];
        bytes[2 * i + (f->big ? 0 : 1)] = (uint8_t)(words[i] >> 8);
    }
    dicom_element(f, RZ_TAG_PIXEL_DATA, "OW", bytes, 2 * n);
}

static void deflate_set(dicom_file *f, size_t from)
{
    uint8_t out[8192];
    z_stream z = {
        .next_in = f->bytes + from, .avail_in = (uInt)(f->n - from), .next_out = out, .avail_out = sizeof out};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    f->n = from;
    dicom_put(f, out, z.total_out);
    deflateEnd(&z);
}

/* An element that the film has when `value` is not NULL and that it is not to lack. */
static void some(dicom_file *f, const dicom_film *m, uint32_t tag, const char *vr, const char *value)
{
    if (tag != m->without) optional(f, tag, vr, value);
}

static void put_identity(dicom_file *f, const dicom_film *m)
{
    some(f, m, RZ_TAG(0x0008, 0x0005), "CS", m->charset);
    some(f, m, RZ_TAG(0x0008, 0x0016), "UI", "1.2.840.10008.5.1.4.1.1.1.1");
    some(f, m, RZ_TAG(0x0008, 0x0018), "UI", "1.2.3.4.5");
    some(f, m, RZ_TAG(0x0008, 0x0020), "DA", "20240131");
    some(f, m, RZ_TAG(0x0008, 0x0030), "TM", "101112.5");
    some(f, m, RZ_TAG(0x0008, 0x0050), "SH", "ACC77");
}

static void put_patient(dicom_file *f, const dicom_film *m)
{
    some(f, m, RZ_TAG(0x0008, 0x0090), "PN", m->identified ? "Ref^Erring" : NULL);
    some(f, m, RZ_TAG(0x0008, 0x0201), "SH", m->zone);
    some(f, m, RZ_TAG(0x0008, 0x1030), "LO", m->identified ? "Chest PA" : NULL);
    dicom_text(f, RZ_TAG(0x0010, 0x0010), "PN", m->name ? m->name : NAME);
    if (!m->identified) return;
    some(f, m, RZ_TAG(0x0010, 0x0020), "LO", "PID-42");
    some(f, m, RZ_TAG(0x0010, 0x0030), "DA", "19500102");
    some(f, m, RZ_TAG(0x0010, 0x0040), "CS", "F");
    some(f, m, RZ_TAG(0x0010, 0x1010), "AS", m->age ? m->age : "074Y");
}

static void put_study(dicom_file *f, const dicom_film *m)
{
    if (!m->identified) return;
    some(f, m, RZ_TAG(0x0020, 0x000d), "UI", m->study ? m->study : "1.2.3");
    some(f, m, RZ_TAG(0x0020, 0x000e), "UI", "1.2.3.4");
    some(f, m, RZ_TAG(0x0020, 0x0010), "SH", "S1");
}

static void put_voi_table(dicom_file *f)
{
    static uint8_t entries[2 * 4096];
    uint8_t descriptor[6] = {0, 16, 0, 0, 12, 0}; /* 4096, 0, 12 */
    for (unsigned i = 0; i < 4096; i++)
        entries[2 * i] = (uint8_t)(4095 - i), entries[2 * i + 1] = (uint8_t)((4095 - i) >> 8);
    dicom_put_number(f, 0x30100028, 4);
    dicom_put(f, "SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff", 16);
    dicom_element(f, RZ_TAG(0x0028, 0x3002), "US", descriptor, 6);
    dicom_element(f, RZ_TAG(0x0028, 0x3006), "OW", entries, sizeof entries);
    dicom_put(f, "\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0", 16);
}

static void put_shape(dicom_file *f, const dicom_film *m)
{
    if (m->rgb) dicom_number(f, RZ_TAG(0x0028, 0x0002), 3);
    dicom_text(f, RZ_TAG(0x0028, 0x0004), "CS", m->rgb ? "RGB" : m->photometric ? m->photometric : "MONOCHROME2");
    if (m->rgb) dicom_number(f, RZ_TAG(0x0028, 0x0006), 0);
    optional(f, RZ_TAG(0x0028, 0x0008), "IS", m->frames);
    dicom_number(f, RZ_TAG(0x0028, 0x0010), m->rows ? m->rows : 3);
    dicom_number(f, RZ_TAG(0x0028, 0x0011), 4);
    dicom_number(f, RZ_TAG(0x0028, 0x0100), m->rgb ? 8 : 16);
    dicom_number(f, RZ_TAG(0x0028, 0x0101), m->stored ? m->stored : m->rgb ? 8 : 12);
    dicom_number(f, RZ_TAG(0x0028, 0x0102), m->high ? m->high : m->rgb ? 7 : 11);
    dicom_number(f, RZ_TAG(0x0028, 0x0103), m->is_signed);
}

dicom_file dicom_make(dicom_film m)
{
    dicom_file f = {.n = 128};
    const char *syntax = m.syntax ? m.syntax : EXPLICIT;
    dicom_put(&f, "DICM", 4);
    dicom_text(&f, RZ_TAG(0x0002, 0x0010), "UI", syntax);
    const size_t from = f.n;
    f.implicit = !strcmp(syntax, IMPLICIT), f.big = !strcmp(syntax, BIG);
    if (m.identified) put_identity(&f, &m);
    dicom_text(&f, RZ_TAG(0x0008, 0x0060), "CS", m.modality ? m.modality : "DX");
    optional(&f, RZ_TAG(0x0008, 0x0068), "CS", m.intent);
    put_patient(&f, &m);
    optional(&f, RZ_TAG(0x0018, 0x0015), "CS", m.part);
    optional(&f, RZ_TAG(0x0018, 0x5101), "CS", m.view);
    put_study(&f, &m);
    put_shape(&f, &m);
    optional(&f, RZ_TAG(0x0028, 0x0301), "CS", m.burned);
    optional(&f, RZ_TAG(0x0028, 0x1050), "DS", m.center);
    optional(&f, RZ_TAG(0x0028, 0x1051), "DS", m.width);
    optional(&f, RZ_TAG(0x0028, 0x1052), "DS", m.intercept);
    optional(&f, RZ_TAG(0x0028, 0x1053), "DS", m.slope);
    optional(&f, RZ_TAG(0x0028, 0x1056), "CS", m.function);
    if (m.voi_table) put_voi_table(&f);
    if (!m.no_pixels) put_pixels(&f, &m);
    if (!strcmp(syntax, DEFLATED)) deflate_set(&f, from);
    return f;
}
