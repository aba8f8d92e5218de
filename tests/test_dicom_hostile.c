/* test_dicom_hostile.c - DICOM films that somebody prepared: lengths, shapes, tables and offsets that lie.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "comma_locale.h"
#include "dicom_fixture.h"

static radz_error err;

static radz_status read_bytes(const uint8_t *bytes, size_t n)
{
    rz_pixels p;
    /* A copy of its exact size: ASan sees one byte too far. */
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, bytes, n);
    const radz_status status = rz_pixels_decode(NULL, copy, n, "film.dcm", &p, &err);
    if (status == RADZ_OK) rz_pixels_free(NULL, &p);
    free(copy);
    return status;
}

static radz_status read_file(const dicom_file *f)
{
    return read_bytes(f->bytes, f->n);
}

static void expect(radz_status got, radz_status want, const char *words)
{
    if (got != want || (got && !strstr(err.message, words)))
        fail_msg("%d \"%s\", expected %d \"%s\"", (int)got, got ? err.message : "", (int)want, words);
}

/* Where an explicit little-endian element of the data set begins. */
static uint8_t *find(dicom_file *f, unsigned group, unsigned tag)
{
    const uint8_t head[4] = {(uint8_t)group, (uint8_t)(group >> 8), (uint8_t)tag, (uint8_t)(tag >> 8)};
    uint8_t *p = memmem(f->bytes, f->n, head, 4);
    assert_non_null(p);
    return p;
}

static dicom_file plain(void)
{
    return dicom_make((dicom_film){0});
}

/* Puts n bytes in the place of an element of `old` bytes. */
static void replace(dicom_file *f, uint8_t *at, size_t old, const void *bytes, size_t n)
{
    const size_t rest = f->n - (size_t)(at - f->bytes) - old;
    memmove(at + n, at + old, rest);
    memcpy(at, bytes, n);
    f->n = f->n - old + n;
}

static void test_shape_of_other_types(void **state)
{
    (void)state;
    dicom_file f = plain();
    replace(&f, find(&f, 0x28, 0x10), 10, "\x28\0\x10\0UL\4\0\3\0\0\0", 12); /* Rows as UL */
    expect(read_file(&f), RADZ_E_FORMAT, "Rows");
    f = plain();
    replace(&f, find(&f, 0x28, 0x10), 10, "\x28\0\x10\0US\0\0", 8); /* no value */
    expect(read_file(&f), RADZ_E_FORMAT, "Rows");
    f = plain();
    replace(&f, find(&f, 0x28, 0x11), 10, "\x28\0\x11\0US\4\0\4\0\4\0", 12); /* two */
    expect(read_file(&f), RADZ_E_FORMAT, "Columns");
    f = plain();
    replace(&f, find(&f, 0x28, 0x11), 10, "\x28\0\x11\0US\6\0\4\0\4\0\4\0", 14); /* three */
    expect(read_file(&f), RADZ_E_FORMAT, "Columns");
    f = plain();
    replace(&f, find(&f, 0x28, 0x10), 10, "\x28\0\x10\0US\2\0\0\0", 10); /* no row */
    expect(read_file(&f), RADZ_E_FORMAT, "no content");
}

static void test_products_of_sizes(void **state)
{
    (void)state;
    dicom_file f = dicom_make((dicom_film){.rows = 65535});
    replace(&f, find(&f, 0x28, 0x11), 10, "\x28\0\x11\0US\2\0\xff\xff", 10);
    expect(read_file(&f), RADZ_E_LIMIT, "65535 x 65535");
    static const char *const frames[] = {"999999999999", "1e400", "-1", "4294967296"};
    for (size_t i = 0; i < RZ_COUNT(frames); i++) {
        f = dicom_make((dicom_film){.frames = frames[i]});
        const radz_status status = read_file(&f); /* the first frame is there, however many are claimed */
        assert_true(status == RADZ_OK || status == RADZ_E_FORMAT);
    }
}

static void test_lengths(void **state)
{
    (void)state;
    dicom_file f = plain();
    memcpy(find(&f, 0x7fe0, 0x10) + 8, "\xfe\xff\xff\xff", 4);
    expect(read_file(&f), RADZ_E_FORMAT, "longer than its place");
    f = plain();
    memcpy(find(&f, 0x7fe0, 0x10) + 8, "\xff\xff\xff\xff", 4); /* fragments that are none */
    expect(read_file(&f), RADZ_E_FORMAT, "expected an item");
    f = plain();
    replace(&f, find(&f, 0x10, 0x10), 16, "\x10\0\x10\0PN\7\0Doe^Jan", 15); /* odd: read all the same */
    expect(read_file(&f), RADZ_OK, "");
    f = plain();
    replace(&f, find(&f, 0x10, 0x10), 16,
            "\x10\0\x10\0PN\xff\xff"
            "Doe^Jane",
            16);
    expect(read_file(&f), RADZ_E_FORMAT, "longer than its place");
    assert_null(strstr(err.message, "Doe"));
}

static void test_nesting(void **state)
{
    (void)state;
    enum { DEEP = 100000 };
    static uint8_t bytes[10 + 20 * DEEP];
    memcpy(bytes, "\x08\0\x60\0CS\2\0DX", 10);
    for (size_t i = 0; i < DEEP; i++)
        memcpy(bytes + 10 + 20 * i, "\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff", 20);
    expect(read_bytes(bytes, sizeof bytes), RADZ_E_LIMIT, "nest deeper");
}

static void test_palette_past_its_table(void **state)
{
    (void)state;
    dicom_file f = dicom_make((dicom_film){.photometric = "PALETTE COLOR", .no_pixels = true});
    static const uint8_t descriptor[6] = {2, 0, 0, 0, 16, 0}, entries[4] = {0, 0, 0xff, 0xff};
    for (unsigned c = 0; c < 3; c++) dicom_element(&f, RZ_TAG(0x0028, 0x1101u + c), "US", descriptor, 6);
    for (unsigned c = 0; c < 3; c++) dicom_element(&f, RZ_TAG(0x0028, 0x1201u + c), "OW", entries, 4);
    dicom_element(&f, RZ_TAG_PIXEL_DATA, "OW", dicom_ramp, 24);
    rz_pixels p;
    assert_int_equal(rz_pixels_decode(NULL, f.bytes, f.n, "film", &p, &err), RADZ_OK);
    assert_int_equal(((uint8_t *)p.data)[0], 0);
    assert_int_equal(((uint8_t *)p.data)[3 * 11], 255); /* 4095: the last entry holds beyond the end */
    rz_pixels_free(NULL, &p);
    uint8_t *bits = find(&f, 0x28, 0x1101) + 8;
    bits[4] = 77;
    expect(read_file(&f), RADZ_E_FORMAT, "77 bits");
    bits[0] = 0; /* 65536 entries */
    bits[4] = 16;
    expect(read_file(&f), RADZ_E_FORMAT, "65536 entries");
}

static void test_rle_offsets(void **state)
{
    (void)state;
    const dicom_file good = dicom_make((dicom_film){.syntax = RLE, .rle = true});
    static const uint32_t offsets[] = {0, 1, 63, 65, 92, 93, 1000, 0x7fffffff, 0xffffffff};
    for (size_t segment = 0; segment < 2; segment++)
        for (size_t i = 0; i < RZ_COUNT(offsets); i++) {
            dicom_file f = good;
            uint8_t *frame = memmem(f.bytes, f.n, "\2\0\0\0\100\0\0\0", 8);
            assert_non_null(frame);
            for (size_t k = 0; k < 4; k++) frame[4 + 4 * segment + k] = (uint8_t)(offsets[i] >> 8 * k);
            const radz_status status = read_file(&f);
            assert_true(status == RADZ_OK || status == RADZ_E_FORMAT);
            if (offsets[i] > 92) assert_int_equal(status, RADZ_E_FORMAT);
        }
    dicom_file f = good;
    uint8_t *frame = memmem(f.bytes, f.n, "\2\0\0\0\100\0\0\0", 8);
    memcpy(frame, "\xff\xff\xff\xff", 4); /* segments */
    expect(read_file(&f), RADZ_E_FORMAT, "RLE");
}

/* Of two frames: an offset table that points at itself, backwards, past the end. */
static void test_offset_tables(void **state)
{
    (void)state;
    static const uint32_t second[] = {0, 1, 0xfffffff8, 0x1000, 0x7fffffff};
    for (size_t i = 0; i < RZ_COUNT(second); i++) {
        dicom_file f = dicom_make((dicom_film){.syntax = RLE, .rle = true, .frames = "3"});
        uint8_t *table = memmem(f.bytes, f.n, "\xfe\xff\x00\xe0\0\0\0\0", 8);
        assert_non_null(table);
        uint8_t filled[16] = {0xfe, 0xff, 0, 0xe0, 8};
        for (size_t k = 0; k < 4; k++) filled[12 + k] = (uint8_t)(second[i] >> 8 * k);
        replace(&f, table, 8, filled, 16);
        expect(read_file(&f), RADZ_OK, "");
    }
}

static void test_numbers_in_a_comma_locale(void **state)
{
    (void)state;
    if (!comma_locale_enter()) skip();
    dicom_file f = dicom_make((dicom_film){.slope = "1,5"});
    expect(read_file(&f), RADZ_E_FORMAT, "RescaleSlope");
    f = dicom_make((dicom_film){.slope = "1.5", .intercept = "-0.5", .center = "500.5", .width = "1e3"});
    expect(read_file(&f), RADZ_OK, "");
    comma_locale_leave();
}

/* A PNG's signature in the preamble, and a film without preamble that begins like one. */
static void test_polyglot(void **state)
{
    (void)state;
    dicom_file f = plain();
    memcpy(f.bytes, "\x89PNG\r\n\x1a\n", 8);
    rz_pixels p;
    assert_int_equal(rz_pixels_decode(NULL, f.bytes, f.n, "film", &p, &err), RADZ_OK);
    assert_string_equal(p.format, "dicom");
    rz_pixels_free(NULL, &p);
    f.n = 140;
    expect(read_file(&f), RADZ_E_FORMAT, "dicom");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shape_of_other_types),
        cmocka_unit_test(test_products_of_sizes),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_palette_past_its_table),
        cmocka_unit_test(test_rle_offsets),
        cmocka_unit_test(test_offset_tables),
        cmocka_unit_test(test_numbers_in_a_comma_locale),
        cmocka_unit_test(test_polyglot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
