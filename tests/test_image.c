/* Pictures: every kind against PIL's pixels, every way of being broken against its error, recognition by content.
 * Fixtures: tests/data/images, made by tests/data/make_images.py. SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "failing_host.h"
#include "fixture.h"

#define DIR "tests/data/images"

typedef struct good_case {
    char file[64];
    size_t width, height, offset;
    int channels, bits, tolerance;
} good_case;

/* Calls fn for every line of a table; returns how many. */
static size_t for_lines(const char *table, void (*fn)(const char *line))
{
    size_t n_bytes, n = 0;
    char *text = fixture_read(fixture_path(DIR, table), &n_bytes), *rest = text, *line;
    while ((line = strsep(&rest, "\n")))
        if (*line && *line != '#') fn(line), n++;
    free(text);
    return n;
}

static good_case parse_good(const char *line)
{
    good_case c;
    if (sscanf(line, "%63s %zu %zu %d %d %d %zu", c.file, &c.width, &c.height, &c.channels, &c.bits, &c.tolerance,
               &c.offset) != 7)
        fail_msg("good.tsv: %s", line);
    return c;
}

static int sample_of(const rz_pixels *p, size_t i)
{
    return p->bits == 8 ? ((const uint8_t *)p->data)[i] : ((const uint16_t *)p->data)[i];
}

static void compare(const good_case *c, const rz_pixels *p, const uint8_t *want)
{
    const size_t n_want = c->bits == 8 ? 3 : (size_t)c->channels;
    for (size_t i = 0; i < c->width * c->height; i++)
        for (size_t k = 0; k < n_want; k++) {
            const size_t at = i * n_want + k;
            const int w = c->bits == 8 ? want[at] : want[2 * at] | want[2 * at + 1] << 8;
            const int got = sample_of(p, i * (size_t)c->channels + (c->channels == 1 ? 0 : k));
            if (abs(got - w) > c->tolerance)
                fail_msg("%s: pixel %zu channel %zu is %d, PIL has %d", c->file, i, k, got, w);
        }
}

static uint8_t *pil_pixels;

static void check_good(const char *line)
{
    const good_case c = parse_good(line);
    size_t n;
    char *bytes = fixture_read(fixture_path(DIR, c.file), &n);
    rz_pixels p;
    radz_error err;
    if (rz_pixels_decode(NULL, (uint8_t *)bytes, n, c.file, &p, &err)) fail_msg("%s", err.message);
    assert_int_equal(p.width_px, c.width);
    assert_int_equal(p.height_px, c.height);
    assert_int_equal(p.channels, c.channels);
    assert_int_equal(p.bits, c.bits);
    assert_string_equal(p.format, strstr(c.file, ".png") ? "png" : "jpeg");
    compare(&c, &p, pil_pixels + c.offset);
    rz_pixels_free(NULL, &p);
    assert_null(p.data);
    free(bytes);
}

static void test_pixels_are_pils(void **state)
{
    (void)state;
    size_t n;
    pil_pixels = (uint8_t *)fixture_read(DIR "/pixels.bin", &n);
    assert_int_equal(for_lines("good.tsv", check_good), 79);
    free(pil_pixels);
}

static void check_bad(const char *line)
{
    char file[64], status[32], words[128];
    if (sscanf(line, "%63s %31s %127[^\n]", file, status, words) != 3) fail_msg("bad.tsv: %s", line);
    size_t n;
    char *bytes = fixture_read(fixture_path(DIR, file), &n);
    failing_host f = {0};
    const rz_host host = failing_hooks(&f);
    rz_pixels p = {.data = bytes};
    radz_error err;
    const radz_status got = rz_pixels_decode(&host, (uint8_t *)bytes, n, file, &p, &err);
    if (strcmp(radz_status_name(got), status)) fail_msg("%s: %s, expected %s", file, radz_status_name(got), status);
    if (!strstr(err.message, words)) fail_msg("%s: message \"%s\" lacks \"%s\"", file, err.message, words);
    if (strncmp(err.message, file, strlen(file))) fail_msg("%s: message \"%s\" names no file", file, err.message);
    assert_null(p.data);
    assert_int_equal(f.live, 0);
    free(bytes);
}

static void test_broken_files_are_refused(void **state)
{
    (void)state;
    assert_int_equal(for_lines("bad.tsv", check_bad), 38);
}

/* A copy of exactly n bytes, so that a sanitizer sees the first byte read too far. */
static radz_status decode_exact(const uint8_t *bytes, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    rz_pixels p;
    radz_error err;
    memcpy(copy, bytes, n);
    const radz_status status = rz_pixels_decode(NULL, copy, n, "cut", &p, &err);
    if (status == RADZ_OK)
        rz_pixels_free(NULL, &p);
    else if (!err.message[0] || p.data)
        fail_msg("an error without a message or with pixels");
    free(copy);
    return status;
}

static void check_truncations(const char *line)
{
    const good_case c = parse_good(line);
    size_t n;
    char *bytes = fixture_read(fixture_path(DIR, c.file), &n);
    const size_t step = n > 3000 ? 37 : 1, end = strstr(c.file, "trailing") ? n - 14 : n;
    for (size_t i = 0; i < end; i += step)
        if (decode_exact((uint8_t *)bytes, i) != RADZ_E_FORMAT)
            fail_msg("%s: %zu of %zu bytes are not refused as a bad format", c.file, i, n);
    free(bytes);
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    for_lines("good.tsv", check_truncations);
}

/* Checksums cover every bit of a PNG behind its signature. */
static void test_every_bit_flip_of_a_png_is_refused(void **state)
{
    (void)state;
    static const char *const files[] = {"rgba8_i.png", "palette4_trns.png", "gray8_gamma_trns.png", "gray16.png"};
    for (size_t f = 0; f < RZ_COUNT(files); f++) {
        size_t n;
        char *bytes = fixture_read(fixture_path(DIR, files[f]), &n);
        for (size_t bit = 0; bit < 8 * n; bit++) {
            bytes[bit / 8] ^= (char)(1 << bit % 8);
            if (decode_exact((uint8_t *)bytes, n) == RADZ_OK) fail_msg("%s: flipped bit %zu passes", files[f], bit);
            bytes[bit / 8] ^= (char)(1 << bit % 8);
        }
        free(bytes);
    }
}

/* A JPEG has no checksums: any outcome is right that is a picture or an error. */
static void test_flipped_bits_of_a_jpeg_do_no_harm(void **state)
{
    (void)state;
    static const char *const files[] = {"rgb_420_progressive.jpg", "cmyk_adobe.jpg", "orientation_6.jpg",
                                        "arithmetic.jpg", "gray_restart.jpg"};
    size_t n_refused = 0;
    for (size_t f = 0; f < RZ_COUNT(files); f++) {
        size_t n;
        char *bytes = fixture_read(fixture_path(DIR, files[f]), &n);
        for (size_t bit = 0; bit < 8 * n; bit += 3) {
            bytes[bit / 8] ^= (char)(1 << bit % 8);
            n_refused += decode_exact((uint8_t *)bytes, n) != RADZ_OK;
            bytes[bit / 8] ^= (char)(1 << bit % 8);
        }
        free(bytes);
    }
    assert_true(n_refused > 500);
}

static void test_a_million_text_chunks_do_no_harm(void **state)
{
    (void)state;
    static const uint8_t chunk[12] = {0, 0, 0, 0, 't', 'E', 'X', 't', 0x96, 0x42, 0xc5, 0x85};
    const size_t head = 33, n_chunks = 1000000;
    size_t n;
    char *png = fixture_read(DIR "/gray8.png", &n);
    uint8_t *bytes = malloc(n + n_chunks * sizeof chunk);
    memcpy(bytes, png, head);
    for (size_t i = 0; i < n_chunks; i++) memcpy(bytes + head + i * sizeof chunk, chunk, sizeof chunk);
    memcpy(bytes + head + n_chunks * sizeof chunk, png + head, n - head);
    assert_int_equal(decode_exact(bytes, n + n_chunks * sizeof chunk), RADZ_OK);
    free(bytes);
    free(png);
}

typedef struct kind_case {
    const char *head;
    size_t n_head, at;
    radz_status status;
    const char *words;
} kind_case;

#define KIND(head, at, status, words)                                                                                  \
    {                                                                                                                  \
        head, sizeof(head) - 1, at, status, words                                                                      \
    }
static const kind_case kinds[] = {
    KIND("DICM", 128, RADZ_E_FORMAT, "dicom: "),
    KIND("RIFF\x10\0\0\0WEBPVP8 ", 0, RADZ_E_UNSUPPORTED, "WEBP"),
    KIND("II*\0\x08\0\0\0", 0, RADZ_E_UNSUPPORTED, "TIFF"),
    KIND("MM\0*\0\0\0\x08", 0, RADZ_E_UNSUPPORTED, "TIFF"),
    KIND("GIF87a", 0, RADZ_E_UNSUPPORTED, "GIF"),
    KIND("GIF89a", 0, RADZ_E_UNSUPPORTED, "GIF"),
    KIND("BM\x36\0\0\0\0\0\0\0\x36\0\0\0", 0, RADZ_E_UNSUPPORTED, "BMP"),
    KIND("%PDF-1.7\n", 0, RADZ_E_UNSUPPORTED, "PDF"),
    KIND("\0\0\0\x0cjP  \r\n\x87\n", 0, RADZ_E_UNSUPPORTED, "JPEG 2000"),
    KIND("\xff\x4f\xff\x51\0", 0, RADZ_E_UNSUPPORTED, "JPEG 2000"),
    KIND("\xff\xd8\xff\xf7\0", 0, RADZ_E_UNSUPPORTED, "JPEG-LS"),
    KIND("\0\0\0\x18"
         "ftypheic",
         0, RADZ_E_UNSUPPORTED, "HEIF"),
    KIND("\0\0\0\x18"
         "ftypmif1",
         0, RADZ_E_UNSUPPORTED, "HEIF"),
    KIND("path,labels\n", 0, RADZ_E_FORMAT, "expected PNG, JPEG or DICOM"),
    KIND("\x89PNG\n\n", 0, RADZ_E_FORMAT, "expected PNG, JPEG or DICOM"),
    KIND("\x89PNG\r\n\x1a\n", 0, RADZ_E_FORMAT, "png: "),
    KIND("\xff\xd8\xff", 0, RADZ_E_FORMAT, "jpeg: "),
};

static void test_kinds_are_told_by_content(void **state)
{
    (void)state;
    for (size_t i = 0; i < RZ_COUNT(kinds); i++) {
        uint8_t bytes[256] = {0};
        rz_pixels p;
        radz_error err;
        memcpy(bytes + kinds[i].at, kinds[i].head, kinds[i].n_head);
        const radz_status got = rz_pixels_decode(NULL, bytes, sizeof bytes, "memory", &p, &err);
        if (got != kinds[i].status || !strstr(err.message, kinds[i].words))
            fail_msg("%s: %s, \"%s\"", kinds[i].words, radz_status_name(got), err.message);
    }
}

/* A DICOM file may start with another format's signature: the preamble is free. */
static void test_a_polyglot_is_dicom(void **state)
{
    (void)state;
    uint8_t bytes[256] = "\x89PNG\r\n\x1a\n";
    rz_pixels p;
    radz_error err;
    memcpy(bytes + 128, "DICM", 4);
    assert_int_equal(rz_pixels_decode(NULL, bytes, sizeof bytes, "memory", &p, &err), RADZ_E_FORMAT);
    assert_non_null(strstr(err.message, "dicom"));
}

static void test_empty_and_one_byte(void **state)
{
    (void)state;
    rz_pixels p;
    radz_error err;
    assert_int_equal(rz_pixels_decode(NULL, (const uint8_t *)"", 0, "memory", &p, &err), RADZ_E_FORMAT);
    assert_non_null(strstr(err.message, "empty"));
    for (int b = 0; b < 256; b++) {
        const uint8_t byte = (uint8_t)b;
        assert_int_equal(rz_pixels_decode(NULL, &byte, 1, "memory", &p, NULL), RADZ_E_FORMAT);
    }
}

static void test_limits_come_before_memory(void **state)
{
    (void)state;
    failing_host f = {.fail_at = 1, .from_then_on = true};
    const rz_host host = failing_hooks(&f);
    rz_pixels p;
    assert_int_equal(rz_pixels_alloc(&host, 65501, 1, 1, 8, "raw", "x", &p, NULL), RADZ_E_LIMIT);
    assert_int_equal(rz_pixels_alloc(&host, 10001, 10000, 1, 8, "raw", "x", &p, NULL), RADZ_E_LIMIT);
    assert_int_equal(rz_pixels_alloc(&host, SIZE_MAX, SIZE_MAX, 3, 16, "raw", "x", &p, NULL), RADZ_E_LIMIT);
    assert_int_equal(rz_pixels_alloc(&host, 0, 5, 1, 8, "raw", "x", &p, NULL), RADZ_E_FORMAT);
    assert_int_equal(f.calls, 0);
    assert_int_equal(rz_pixels_alloc(&host, 10000, 10000, 1, 8, "raw", "x", &p, NULL), RADZ_E_MEMORY);
}

typedef struct span_of_bytes {
    const uint8_t *bytes;
    size_t n;
} span_of_bytes;

static radz_status decode_with(const rz_host *host, void *arg)
{
    const span_of_bytes *b = arg;
    rz_pixels p;
    const radz_status status = rz_pixels_decode(host, b->bytes, b->n, "memory", &p, NULL);
    if (status == RADZ_OK) rz_pixels_free(host, &p);
    return status;
}

static void test_no_memory_is_an_error(void **state)
{
    (void)state;
    static const char *const files[] = {"rgba16_i.png", "palette8.png", "rgb_420_progressive.jpg", "ycck_adobe.jpg"};
    for (size_t i = 0; i < RZ_COUNT(files); i++) {
        span_of_bytes b;
        char *bytes = fixture_read(fixture_path(DIR, files[i]), &b.n);
        b.bytes = (uint8_t *)bytes;
        failing_host_try_all(decode_with, &b);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pixels_are_pils),
        cmocka_unit_test(test_broken_files_are_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_every_bit_flip_of_a_png_is_refused),
        cmocka_unit_test(test_flipped_bits_of_a_jpeg_do_no_harm),
        cmocka_unit_test(test_a_million_text_chunks_do_no_harm),
        cmocka_unit_test(test_kinds_are_told_by_content),
        cmocka_unit_test(test_a_polyglot_is_dicom),
        cmocka_unit_test(test_empty_and_one_byte),
        cmocka_unit_test(test_limits_come_before_memory),
        cmocka_unit_test(test_no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
