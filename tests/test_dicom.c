/* DICOM films made here, byte by byte: the gray pipeline, every way of writing native pixels, RLE, what speaks against
 * a film, damage of every kind, and that no value of a file gets into a message. SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>
#include <cmocka.h>

#include "failing_host.h"
#include "mutate.h"

#define NAME "Doe^Jane"
#define IMPLICIT "1.2.840.10008.1.2"
#define EXPLICIT "1.2.840.10008.1.2.1"
#define DEFLATED "1.2.840.10008.1.2.1.99"
#define BIG "1.2.840.10008.1.2.2"
#define RLE "1.2.840.10008.1.2.5"

/* ---- A tiny writer ---- */

typedef struct file {
    uint8_t bytes[8192];
    size_t n;
    bool implicit, big;
} file;

static void put(file *f, const void *p, size_t n)
{
    assert_true(f->n + n <= sizeof f->bytes);
    memcpy(f->bytes + f->n, p, n);
    f->n += n;
}

static void put_number(file *f, uint32_t v, size_t n)
{
    for (size_t i = 0; i < n; i++) put(f, &(uint8_t){(uint8_t)(v >> 8 * (f->big ? n - 1 - i : i))}, 1);
}

static void element(file *f, uint32_t tag, const char *vr, const void *value, size_t n)
{
    const bool wide = !strcmp(vr, "OB") || !strcmp(vr, "OW") || !strcmp(vr, "SQ");
    put_number(f, tag >> 16, 2);
    put_number(f, tag & 0xffff, 2);
    if (!f->implicit) put(f, vr, 2);
    if (!f->implicit && wide) put_number(f, 0, 2);
    put_number(f, (uint32_t)n, f->implicit || wide ? 4 : 2);
    put(f, value, n);
}

static void text(file *f, uint32_t tag, const char *vr, const char *value)
{
    char padded[80];
    const size_t n = (size_t)snprintf(padded, sizeof padded, "%s%s", value, strlen(value) % 2 ? " " : "");
    element(f, tag, vr, padded, n);
}

static void number(file *f, uint32_t tag, unsigned v)
{
    const uint8_t le[2] = {(uint8_t)v, (uint8_t)(v >> 8)}, be[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    element(f, tag, "US", f->big ? be : le, 2);
}

/* What a test changes about a film of 4 x 3 pixels of 12 bits. */
typedef struct film {
    const char *syntax, *photometric, *view, *intent, *burned, *modality, *part, *slope, *intercept, *center, *width,
        *function, *frames;
    unsigned stored, high, is_signed, rows;
    const uint16_t *words;
    size_t n_words;
    bool no_pixels, rle;
} film;

static const uint16_t ramp[12] = {0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 4095};

static void optional(file *f, uint32_t tag, const char *vr, const char *value)
{
    if (value) text(f, tag, vr, value);
}

/* Both bytes of 12 words as two segments of literal runs. */
static void put_rle(file *f, const uint16_t *words)
{
    uint8_t frame[64 + 2 * 14] = {2, 0, 0, 0, 64, 0, 0, 0, 78};
    for (size_t part = 0; part < 2; part++) {
        uint8_t *p = frame + 64 + 14 * part;
        *p++ = 11;
        for (size_t i = 0; i < 12; i++) *p++ = (uint8_t)(part ? words[i] : words[i] >> 8);
        *p = 128;
    }
    put_number(f, 0x00107fe0, 4);
    put(f, "OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0", 20);
    put_number(f, sizeof frame, 4);
    put(f, frame, sizeof frame);
    put(f, "\xfe\xff\xdd\xe0\0\0\0\0", 8);
}

static void put_pixels(file *f, const film *m)
{
    uint8_t bytes[64];
    const uint16_t *words = m->words ? m->words : ramp;
    const size_t n = m->words ? m->n_words : 12;
    if (m->rle) {
        put_rle(f, words);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        bytes[2 * i + (f->big ? 1 : 0)] = (uint8_t)words[i];
        bytes[2 * i + (f->big ? 0 : 1)] = (uint8_t)(words[i] >> 8);
    }
    element(f, RZ_TAG_PIXEL_DATA, "OW", bytes, 2 * n);
}

static void deflate_set(file *f, size_t from)
{
    uint8_t out[4096];
    z_stream z = {
        .next_in = f->bytes + from, .avail_in = (uInt)(f->n - from), .next_out = out, .avail_out = sizeof out};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    f->n = from;
    put(f, out, z.total_out);
    deflateEnd(&z);
}

static file make(film m)
{
    file f = {.n = 128};
    const char *syntax = m.syntax ? m.syntax : EXPLICIT;
    put(&f, "DICM", 4);
    text(&f, RZ_TAG(0x0002, 0x0010), "UI", syntax);
    const size_t from = f.n;
    f.implicit = !strcmp(syntax, IMPLICIT), f.big = !strcmp(syntax, BIG);
    text(&f, RZ_TAG(0x0008, 0x0060), "CS", m.modality ? m.modality : "DX");
    optional(&f, RZ_TAG(0x0008, 0x0068), "CS", m.intent);
    text(&f, RZ_TAG(0x0010, 0x0010), "PN", NAME);
    optional(&f, RZ_TAG(0x0018, 0x0015), "CS", m.part);
    optional(&f, RZ_TAG(0x0018, 0x5101), "CS", m.view);
    text(&f, RZ_TAG(0x0028, 0x0004), "CS", m.photometric ? m.photometric : "MONOCHROME2");
    optional(&f, RZ_TAG(0x0028, 0x0008), "IS", m.frames);
    number(&f, RZ_TAG(0x0028, 0x0010), m.rows ? m.rows : 3);
    number(&f, RZ_TAG(0x0028, 0x0011), 4);
    number(&f, RZ_TAG(0x0028, 0x0100), 16);
    number(&f, RZ_TAG(0x0028, 0x0101), m.stored ? m.stored : 12);
    number(&f, RZ_TAG(0x0028, 0x0102), m.high ? m.high : 11);
    number(&f, RZ_TAG(0x0028, 0x0103), m.is_signed);
    optional(&f, RZ_TAG(0x0028, 0x0301), "CS", m.burned);
    optional(&f, RZ_TAG(0x0028, 0x1050), "DS", m.center);
    optional(&f, RZ_TAG(0x0028, 0x1051), "DS", m.width);
    optional(&f, RZ_TAG(0x0028, 0x1052), "DS", m.intercept);
    optional(&f, RZ_TAG(0x0028, 0x1053), "DS", m.slope);
    optional(&f, RZ_TAG(0x0028, 0x1056), "CS", m.function);
    if (!m.no_pixels) put_pixels(&f, &m);
    if (!strcmp(syntax, DEFLATED)) deflate_set(&f, from);
    return f;
}

static radz_status read_film(const file *f, rz_pixels *p, radz_error *err)
{
    return rz_pixels_decode(NULL, f->bytes, f->n, "film.dcm", p, err);
}

/* ---- Gray ---- */

/* want: 0..1 for each of the ramp's pixels. */
static unsigned expect(film m, double (*want)(double stored))
{
    const file f = make(m);
    rz_pixels p;
    radz_error err;
    if (read_film(&f, &p, &err)) fail_msg("%s", err.message);
    assert_int_equal(p.width_px, 4);
    assert_int_equal(p.height_px, 3);
    assert_int_equal(p.channels, 1);
    assert_int_equal(p.bits, 16);
    assert_string_equal(p.format, "dicom");
    for (size_t i = 0; i < 12; i++) {
        const double w = fmin(1, fmax(0, want(ramp[i]))) * 65535, got = ((const uint16_t *)p.data)[i];
        if (fabs(got - w) > .5001) fail_msg("%g: %g, expected %g", ramp[i] * 1., got, w);
    }
    const unsigned notes = p.notes;
    rz_pixels_free(NULL, &p);
    return notes;
}

static double own_range(double v)
{
    return v / 4095;
}
static double own_range_inverted(double v)
{
    return 1 - v / 4095;
}
static double linear(double v)
{
    return (v - 499.5) / 999 + .5;
}
static double linear_inverted(double v)
{
    return 1 - fmin(1, fmax(0, linear(v)));
}
static double exact(double v)
{
    return (v - 500) / 1000 + .5;
}
static double sigmoid(double v)
{
    return 1 / (1 + exp(-4 * (v - 500) / 1000));
}
static double rescaled(double v)
{
    return (-2 * v + 1000 - 499.5) / 999 + .5;
}

static void test_gray_pipeline(void **state)
{
    (void)state;
    expect((film){0}, own_range);
    expect((film){.photometric = "MONOCHROME1"}, own_range_inverted);
    expect((film){.center = "500", .width = "1000"}, linear);
    expect((film){.center = "500\\7", .width = "1e3\\9"}, linear); /* the first of two */
    expect((film){.center = "500", .width = "1000", .photometric = "MONOCHROME1"}, linear_inverted);
    expect((film){.center = "500", .width = "1000", .function = "LINEAR_EXACT"}, exact);
    expect((film){.center = "500", .width = "1000", .function = "SIGMOID"}, sigmoid);
    expect((film){.slope = "-2", .intercept = "1000", .center = "500", .width = "1000"}, rescaled);
    assert_int_equal(expect((film){.center = "500", .width = "0"}, own_range), RZ_NOTE_WINDOW);
}

static void test_every_native_syntax(void **state)
{
    (void)state;
    const char *const syntaxes[] = {IMPLICIT, EXPLICIT, BIG, DEFLATED};
    for (size_t i = 0; i < RZ_COUNT(syntaxes); i++) expect((film){.syntax = syntaxes[i]}, own_range);
    expect((film){.syntax = RLE, .rle = true}, own_range);
    file f = make((film){0});
    memmove(f.bytes, f.bytes + 132, f.n - 132); /* no preamble */
    f.n -= 132;
    rz_pixels p;
    assert_int_equal(read_film(&f, &p, NULL), RADZ_OK);
    rz_pixels_free(NULL, &p);
}

static void test_signed_and_high_bits(void **state)
{
    (void)state;
    const uint16_t words[12] = {0xfff0 & 0xffff, 0, 0x0010, 0x8000, 0x7ff0, 0x800f};
    const file f = make((film){.words = words, .n_words = 12, .high = 15, .is_signed = 1});
    rz_pixels p;
    assert_int_equal(read_film(&f, &p, NULL), RADZ_OK);
    const uint16_t *v = p.data;
    assert_int_equal(v[3], 0);     /* -2048 */
    assert_int_equal(v[4], 65535); /* 2047 */
    assert_int_equal(v[5], 0);     /* what lies below the stored bits does not count */
    assert_int_equal(v[1], (int)(2048 / 4095. * 65535 + .5));
    assert_int_equal(v[0], (int)(2047 / 4095. * 65535 + .5));
    rz_pixels_free(NULL, &p);
}

/* ---- What speaks against a film ---- */

static void test_notes(void **state)
{
    (void)state;
    assert_int_equal(expect((film){.part = "CHEST", .view = "PA"}, own_range), 0);
    assert_int_equal(expect((film){.view = "LL"}, own_range), RZ_NOTE_LATERAL);
    assert_int_equal(expect((film){.view = "LATERAL"}, own_range), RZ_NOTE_LATERAL);
    assert_int_equal(expect((film){.intent = "FOR PROCESSING"}, own_range), RZ_NOTE_FOR_PROCESSING);
    assert_int_equal(expect((film){.burned = "YES"}, own_range), RZ_NOTE_BURNED_IN);
    assert_int_equal(expect((film){.modality = "MR"}, own_range), RZ_NOTE_MODALITY);
    assert_int_equal(expect((film){.part = "HAND"}, own_range), RZ_NOTE_BODY_PART);
    const uint16_t two[24] = {0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 4095, 9};
    assert_int_equal(expect((film){.frames = "2", .words = two, .n_words = 24}, own_range), RZ_NOTE_FRAMES);
    radz_error err;
    assert_int_equal(rz_notes_check(RZ_NOTE_LATERAL, "f", &err), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "lateral"));
    assert_int_equal(rz_notes_check(RZ_NOTE_FRAMES | RZ_NOTE_WINDOW, "f", &err), RADZ_OK);
}

/* ---- Damage ---- */

static void refuse(film m, radz_status status, const char *words)
{
    const file f = make(m);
    rz_pixels p;
    radz_error err;
    const radz_status got = read_film(&f, &p, &err);
    if (got != status || !strstr(err.message, words)) fail_msg("%s: %d, \"%s\"", words, (int)got, err.message);
    assert_null(strstr(err.message, "Doe"));
    assert_null(p.data);
}

static void test_bad_values(void **state)
{
    (void)state;
    refuse((film){.slope = "NaN"}, RADZ_E_FORMAT, "RescaleSlope");
    refuse((film){.slope = "0"}, RADZ_E_FORMAT, "RescaleSlope");
    refuse((film){.slope = "1,5"}, RADZ_E_FORMAT, "RescaleSlope");
    refuse((film){.slope = NAME}, RADZ_E_FORMAT, "RescaleSlope");
    refuse((film){.center = NAME, .width = "1"}, RADZ_E_FORMAT, "WindowCenter");
    refuse((film){.photometric = NAME}, RADZ_E_FORMAT, "PhotometricInterpretation");
    refuse((film){.photometric = "HSV"}, RADZ_E_UNSUPPORTED, "HSV");
    refuse((film){.stored = 17}, RADZ_E_FORMAT, "BitsStored");
    refuse((film){.stored = 12, .high = 5}, RADZ_E_FORMAT, "HighBit");
    refuse((film){.rows = 4}, RADZ_E_FORMAT, "24 of 32 bytes");
    refuse((film){.rows = 65535}, RADZ_E_FORMAT, "too short");
    refuse((film){.no_pixels = true}, RADZ_E_FORMAT, "no pixel data");
    refuse((film){.syntax = RLE}, RADZ_E_FORMAT, "transfer syntax");
    refuse((film){.syntax = "1.2.840.10008.1.2.4.102"}, RADZ_E_UNSUPPORTED, "gdcmconv --raw");
    refuse((film){.syntax = "1.2.840.10008.1.2.4.55"}, RADZ_E_UNSUPPORTED, "dcmdjpeg");
    refuse((film){.syntax = NAME}, RADZ_E_FORMAT, "transfer syntax");
}

static void test_deep_sequences(void **state)
{
    (void)state;
    file f = {.n = 0};
    radz_error err;
    rz_pixels p;
    text(&f, RZ_TAG(0x0008, 0x0060), "CS", "DX");
    for (int i = 0; i < 65; i++) put(&f, "\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff", 20);
    assert_int_equal(read_film(&f, &p, &err), RADZ_E_LIMIT);
    assert_non_null(strstr(err.message, "nest deeper"));
}

static void test_an_inflation_bomb(void **state)
{
    (void)state;
    enum { ZEROS = 300 << 20 };
    static uint8_t zeros[1 << 16], out[1 << 20];
    z_stream z = {.next_out = out + 200, .avail_out = sizeof out - 200};
    const file f = make((film){0});
    memcpy(out, f.bytes, 132);
    file head = {.n = 0};
    text(&head, RZ_TAG(0x0002, 0x0010), "UI", DEFLATED);
    memcpy(out + 132, head.bytes, head.n);
    z.next_out = out + 132 + head.n;
    z.avail_out = (uInt)(sizeof out - 132 - head.n);
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    for (size_t i = 0; i < ZEROS / sizeof zeros; i++) {
        z.next_in = zeros, z.avail_in = sizeof zeros;
        assert_int_equal(deflate(&z, Z_NO_FLUSH), Z_OK);
    }
    deflate(&z, Z_FINISH);
    const size_t n = (size_t)(z.next_out - out);
    deflateEnd(&z);
    rz_pixels p;
    radz_error err;
    assert_int_equal(rz_pixels_decode(NULL, out, n, "bomb", &p, &err), RADZ_E_LIMIT);
}

static radz_status reader(const uint8_t *bytes, size_t n, radz_error *err)
{
    rz_pixels p;
    const radz_status status = rz_pixels_decode(NULL, bytes, n, "film.dcm", &p, err);
    if (status == RADZ_OK) rz_pixels_free(NULL, &p);
    return status;
}

static void test_every_truncation_and_damage(void **state)
{
    (void)state;
    const film films[] = {
        {0}, {.syntax = IMPLICIT}, {.syntax = BIG}, {.syntax = DEFLATED}, {.syntax = RLE, .rle = true}};
    for (size_t i = 0; i < RZ_COUNT(films); i++) {
        const file f = make(films[i]);
        for (size_t n = 0; n < f.n; n++)
            if (reader(f.bytes, n, NULL) == RADZ_OK) fail_msg("film %zu: %zu of %zu bytes are taken", i, n, f.n);
        mutate_all(f.bytes, f.n, f.n, reader);
    }
}

static radz_status read_with(const rz_host *host, void *arg)
{
    const file *f = arg;
    rz_pixels p;
    radz_error err;
    const radz_status status = rz_pixels_decode(host, f->bytes, f->n, "film.dcm", &p, &err);
    if (status == RADZ_OK) rz_pixels_free(host, &p);
    return status;
}

static void test_no_memory(void **state)
{
    (void)state;
    const film films[] = {{0}, {.syntax = RLE, .rle = true}, {.center = "500", .width = "1000"}};
    for (size_t i = 0; i < RZ_COUNT(films); i++) {
        file f = make(films[i]);
        failing_host_try_all(read_with, &f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gray_pipeline),
        cmocka_unit_test(test_every_native_syntax),
        cmocka_unit_test(test_signed_and_high_bits),
        cmocka_unit_test(test_notes),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_deep_sequences),
        cmocka_unit_test(test_an_inflation_bomb),
        cmocka_unit_test(test_every_truncation_and_damage),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
