/* DICOM films made here, byte by byte: the gray pipeline, every way of writing native pixels, RLE, what speaks against
 * a film, damage of every kind, and that no value of a file gets into a message. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>
#include <cmocka.h>

#include "dicom_fixture.h"
#include "failing_host.h"
#include "mutate.h"

static radz_status read_film(const dicom_file *f, rz_pixels *p, radz_error *err)
{
    return rz_pixels_decode(NULL, f->bytes, f->n, "film.dcm", p, err);
}

/* ---- Gray ---- */

/* want: 0..1 for each of the dicom_ramp's pixels. */
static unsigned expect(dicom_film m, double (*want)(double stored))
{
    const dicom_file f = dicom_make(m);
    rz_pixels p;
    radz_error err;
    if (read_film(&f, &p, &err)) fail_msg("%s", err.message);
    assert_int_equal(p.width_px, 4);
    assert_int_equal(p.height_px, 3);
    assert_int_equal(p.channels, 1);
    assert_int_equal(p.bits, 16);
    assert_string_equal(p.format, "dicom");
    for (size_t i = 0; i < 12; i++) {
        const double w = fmin(1, fmax(0, want(dicom_ramp[i]))) * 65535, got = ((const uint16_t *)p.data)[i];
        if (fabs(got - w) > .5001) fail_msg("%g: %g, expected %g", dicom_ramp[i] * 1., got, w);
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
    expect((dicom_film){0}, own_range);
    expect((dicom_film){.photometric = "MONOCHROME1"}, own_range_inverted);
    expect((dicom_film){.center = "500", .width = "1000"}, linear);
    expect((dicom_film){.center = "500\\7", .width = "1e3\\9"}, linear); /* the first of two */
    expect((dicom_film){.center = "500", .width = "1000", .photometric = "MONOCHROME1"}, linear_inverted);
    expect((dicom_film){.center = "500", .width = "1000", .function = "LINEAR_EXACT"}, exact);
    expect((dicom_film){.center = "500", .width = "1000", .function = "SIGMOID"}, sigmoid);
    expect((dicom_film){.slope = "-2", .intercept = "1000", .center = "500", .width = "1000"}, rescaled);
    assert_int_equal(expect((dicom_film){.center = "500", .width = "0"}, own_range), RZ_NOTE_WINDOW);
}

static void test_every_native_syntax(void **state)
{
    (void)state;
    const char *const syntaxes[] = {IMPLICIT, EXPLICIT, BIG, DEFLATED};
    for (size_t i = 0; i < RZ_COUNT(syntaxes); i++) expect((dicom_film){.syntax = syntaxes[i]}, own_range);
    expect((dicom_film){.syntax = RLE, .rle = true}, own_range);
    dicom_file f = dicom_make((dicom_film){0});
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
    const dicom_file f = dicom_make((dicom_film){.words = words, .n_words = 12, .high = 15, .is_signed = 1});
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
    assert_int_equal(expect((dicom_film){.part = "CHEST", .view = "PA"}, own_range), 0);
    assert_int_equal(expect((dicom_film){.view = "LL"}, own_range), RZ_NOTE_LATERAL);
    assert_int_equal(expect((dicom_film){.view = "LATERAL"}, own_range), RZ_NOTE_LATERAL);
    assert_int_equal(expect((dicom_film){.intent = "FOR PROCESSING"}, own_range), RZ_NOTE_FOR_PROCESSING);
    assert_int_equal(expect((dicom_film){.burned = "YES"}, own_range), RZ_NOTE_BURNED_IN);
    assert_int_equal(expect((dicom_film){.modality = "MR"}, own_range), RZ_NOTE_MODALITY);
    assert_int_equal(expect((dicom_film){.part = "HAND"}, own_range), RZ_NOTE_BODY_PART);
    assert_int_equal(expect((dicom_film){.view = "Lat"}, own_range), RZ_NOTE_LATERAL); /* not by the book */
    assert_int_equal(expect((dicom_film){.part = "Abdomen"}, own_range), RZ_NOTE_BODY_PART);
    assert_int_equal(expect((dicom_film){.part = "Chest", .photometric = "Monochrome2"}, own_range), 0);
    const uint16_t two[24] = {0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 4095, 9};
    assert_int_equal(expect((dicom_film){.frames = "2", .words = two, .n_words = 24}, own_range), RZ_NOTE_FRAMES);
    radz_error err;
    assert_int_equal(rz_notes_check(RZ_NOTE_LATERAL, "f", &err), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "lateral"));
    assert_int_equal(rz_notes_check(RZ_NOTE_FRAMES | RZ_NOTE_WINDOW, "f", &err), RADZ_OK);
}

/* Numbers that a maker left empty are as those that are not there. */
static void test_empty_numbers(void **state)
{
    (void)state;
    const uint32_t tags[] = {RZ_TAG(0x0028, 0x0006), RZ_TAG(0x0028, 0x0103)};
    for (size_t i = 0; i < RZ_COUNT(tags); i++) {
        dicom_file f = dicom_make((dicom_film){.no_pixels = true}), g = {.n = 0};
        const uint8_t number[] = {0x28, 0, (uint8_t)tags[i], (uint8_t)(tags[i] >> 8), 'U', 'S', 0, 0};
        const uint8_t *behind = memmem(f.bytes, f.n, "\x28\0\x00\x01US", 6); /* BitsAllocated */
        uint8_t *old = memmem(f.bytes, f.n, number, 6);
        assert_non_null(behind);
        const size_t n = (size_t)((old ? old : behind) - f.bytes);
        dicom_put(&g, f.bytes, n);
        dicom_put(&g, number, sizeof number);
        dicom_put(&g, f.bytes + n + (old ? 10 : 0), f.n - n - (old ? 10 : 0));
        dicom_element(&g, RZ_TAG_PIXEL_DATA, "OW", dicom_ramp, sizeof dicom_ramp);
        rz_pixels p;
        radz_error err;
        if (read_film(&g, &p, &err)) fail_msg("%s", err.message);
        assert_int_equal(((const uint16_t *)p.data)[11], 65535);
        rz_pixels_free(NULL, &p);
    }
}

static void test_nothing_to_see(void **state)
{
    (void)state;
    const uint16_t same[12] = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};
    const dicom_file f = dicom_make((dicom_film){.words = same, .n_words = 12});
    rz_pixels p;
    assert_int_equal(read_film(&f, &p, NULL), RADZ_OK);
    assert_int_equal(p.notes, RZ_NOTE_BLANK);
    rz_pixels_free(NULL, &p);
    /* White under a window that lies below all that is stored. */
    const dicom_file g = dicom_make((dicom_film){.center = "-50", .width = "10"});
    assert_int_equal(read_film(&g, &p, NULL), RADZ_OK);
    assert_int_equal(p.notes, RZ_NOTE_BLANK);
    rz_pixels_free(NULL, &p);
}

/* ---- Damage ---- */

static void refuse(dicom_film m, radz_status status, const char *words)
{
    const dicom_file f = dicom_make(m);
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
    refuse((dicom_film){.slope = "NaN"}, RADZ_E_FORMAT, "RescaleSlope");
    refuse((dicom_film){.slope = "0"}, RADZ_E_FORMAT, "RescaleSlope");
    refuse((dicom_film){.slope = "1,5"}, RADZ_E_FORMAT, "RescaleSlope");
    refuse((dicom_film){.slope = NAME}, RADZ_E_FORMAT, "RescaleSlope");
    refuse((dicom_film){.center = NAME, .width = "1"}, RADZ_E_FORMAT, "WindowCenter");
    refuse((dicom_film){.photometric = NAME}, RADZ_E_FORMAT, "PhotometricInterpretation");
    refuse((dicom_film){.photometric = "HSV"}, RADZ_E_UNSUPPORTED, "HSV");
    refuse((dicom_film){.stored = 17}, RADZ_E_FORMAT, "BitsStored");
    refuse((dicom_film){.stored = 12, .high = 5}, RADZ_E_FORMAT, "HighBit");
    refuse((dicom_film){.rows = 4}, RADZ_E_FORMAT, "24 of 32 bytes");
    refuse((dicom_film){.rows = 65535}, RADZ_E_FORMAT, "too short");
    refuse((dicom_film){.no_pixels = true}, RADZ_E_FORMAT, "no pixel data");
    refuse((dicom_film){.syntax = RLE}, RADZ_E_FORMAT, "transfer syntax");
    refuse((dicom_film){.syntax = "1.2.840.10008.1.2.4.102"}, RADZ_E_UNSUPPORTED, "gdcmconv --raw");
    refuse((dicom_film){.syntax = "1.2.840.10008.1.2.4.55"}, RADZ_E_UNSUPPORTED, "dcmdjpeg");
    refuse((dicom_film){.syntax = NAME}, RADZ_E_FORMAT, "transfer syntax");
}

static void test_deep_sequences(void **state)
{
    (void)state;
    dicom_file f = {.n = 0};
    radz_error err;
    rz_pixels p;
    dicom_text(&f, RZ_TAG(0x0008, 0x0060), "CS", "DX");
    for (int i = 0; i < 65; i++)
        dicom_put(&f, "\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff", 20);
    assert_int_equal(read_film(&f, &p, &err), RADZ_E_LIMIT);
    assert_non_null(strstr(err.message, "nest deeper"));
}

static void test_an_inflation_bomb(void **state)
{
    (void)state;
    enum { ZEROS = 300 << 20 };
    static uint8_t zeros[1 << 16], out[1 << 20];
    z_stream z = {.next_out = out + 200, .avail_out = sizeof out - 200};
    const dicom_file f = dicom_make((dicom_film){0});
    memcpy(out, f.bytes, 132);
    dicom_file head = {.n = 0};
    dicom_text(&head, RZ_TAG(0x0002, 0x0010), "UI", DEFLATED);
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
    const dicom_film films[] = {
        {0}, {.syntax = IMPLICIT}, {.syntax = BIG}, {.syntax = DEFLATED}, {.syntax = RLE, .rle = true}};
    for (size_t i = 0; i < RZ_COUNT(films); i++) {
        const dicom_file f = dicom_make(films[i]);
        for (size_t n = 0; n < f.n; n++)
            if (reader(f.bytes, n, NULL) == RADZ_OK) fail_msg("film %zu: %zu of %zu bytes are taken", i, n, f.n);
        mutate_all(f.bytes, f.n, f.n, reader);
    }
}

static radz_status read_with(const rz_host *host, void *arg)
{
    const dicom_file *f = arg;
    rz_pixels p;
    radz_error err;
    const radz_status status = rz_pixels_decode(host, f->bytes, f->n, "film.dcm", &p, &err);
    if (status == RADZ_OK) rz_pixels_free(host, &p);
    return status;
}

static void test_no_memory(void **state)
{
    (void)state;
    const dicom_film films[] = {{0}, {.syntax = RLE, .rle = true}, {.center = "500", .width = "1000"}};
    for (size_t i = 0; i < RZ_COUNT(films); i++) {
        dicom_file f = dicom_make(films[i]);
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
        cmocka_unit_test(test_empty_numbers),
        cmocka_unit_test(test_nothing_to_see),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_deep_sequences),
        cmocka_unit_test(test_an_inflation_bomb),
        cmocka_unit_test(test_every_truncation_and_damage),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
