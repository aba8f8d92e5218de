/* test_dicom_kinds.c - one film stored in every way that the reader takes (tests/data/make_dicom.py): like the same
 * pixels uncompressed, and like dcmtk shows it. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "dicom.h"
#include "fixture.h"

#define DATA "tests/data/dicom"

typedef struct row {
    char name[64], native[64];
    double most; /* difference to the native film, levels of 255 */
} row;

static row rows[128];
static size_t n_rows;

static int setup(void **state)
{
    (void)state;
    size_t n;
    char *list = fixture_read(DATA "/films.tsv", &n);
    for (char *line = strtok(list, "\n"); line && n_rows < RZ_COUNT(rows); line = strtok(NULL, "\n")) {
        row *r = &rows[n_rows++];
        assert_int_equal(sscanf(line, "%63[^\t]\t%63[^\t]\t%lf", r->name, r->native, &r->most), 3);
    }
    free(list);
    assert_true(n_rows > 50);
    return 0;
}

/* Builds without JPEG-LS or JPEG 2000 say so of such films. */
static bool is_left_out(const char *name)
{
    bool left = false;
#ifndef RZ_HAVE_CHARLS
    left = left || strstr(name, "jpegls") || strstr(name, "near");
#endif
#ifndef RZ_HAVE_OPENJP2
    left = left || strstr(name, "j2k");
#endif
    return left && name;
}

static rz_pixels read_film(const char *name)
{
    char path[256];
    size_t n;
    radz_error err;
    rz_pixels p;
    snprintf(path, sizeof path, DATA "/%.99s.dcm", name);
    char *bytes = fixture_read(path, &n);
    if (rz_pixels_decode(NULL, (uint8_t *)bytes, n, name, &p, &err)) fail_msg("%s", err.message);
    free(bytes);
    return p;
}

/* 0..255 */
static double sample(const rz_pixels *p, size_t i)
{
    return p->bits == 8 ? ((const uint8_t *)p->data)[i] : ((const uint16_t *)p->data)[i] / 257.;
}

static void test_like_the_native_film(void **state)
{
    (void)state;
    for (size_t k = 0; k < n_rows; k++) {
        if (rows[k].native[0] == '-' || is_left_out(rows[k].name)) continue;
        rz_pixels a = read_film(rows[k].name), b = read_film(rows[k].native);
        double most = 0;
        assert_int_equal(a.width_px, b.width_px);
        assert_int_equal(a.height_px, b.height_px);
        assert_int_equal(a.channels, b.channels);
        assert_int_equal(a.bits, b.bits);
        for (size_t i = 0; i < a.width_px * a.height_px * (size_t)a.channels; i++)
            most = fmax(most, fabs(sample(&a, i) - sample(&b, i)));
        if (most > rows[k].most) fail_msg("%s: %g levels of 255 off, expected %g", rows[k].name, most, rows[k].most);
        rz_pixels_free(NULL, &a), rz_pixels_free(NULL, &b);
    }
}

/* Pixels of a PGM or PPM of 255 levels, malloc'ed text behind *text; NULL: there is none. */
static const uint8_t *shown(const char *name, size_t *channels, char **text)
{
    char path[256];
    size_t n;
    int kind, at;
    snprintf(path, sizeof path, DATA "/%.99s.pnm", name);
    if (!rz_path_exists(path)) return NULL;
    *text = fixture_read(path, &n);
    assert_int_equal(sscanf(*text, "P%d %n", &kind, &at), 1);
    *channels = kind == 5 ? 1 : 3;
    return (uint8_t *)*text + n - 24 * 16 * *channels;
}

static void test_like_dcmtk(void **state)
{
    (void)state;
    size_t n_compared = 0;
    for (size_t k = 0; k < n_rows; k++) {
        size_t channels = 1;
        char *text = NULL;
        const uint8_t *theirs = is_left_out(rows[k].name) ? NULL : shown(rows[k].name, &channels, &text);
        if (!theirs) continue;
        rz_pixels p = read_film(rows[k].name);
        assert_int_equal(p.channels, channels);
        for (size_t i = 0; i < p.width_px * p.height_px * channels; i++)
            if (fabs(sample(&p, i) - theirs[i]) > 1.001)
                fail_msg("%s: sample %zu: %g, dcmtk %u", rows[k].name, i, sample(&p, i), theirs[i]);
        rz_pixels_free(NULL, &p);
        free(text);
        n_compared++;
    }
    assert_true(n_compared > 45);
}

/* Depth stays until the resize; of several frames the first is read, and said so. */
static void test_depth_and_frames(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int bits, channels;
        unsigned notes;
    } want[] = {{"gray8", 8, 1, 0},   {"gray12", 16, 1, 0}, {"signed16", 16, 1, 0},          {"linear", 16, 1, 0},
                {"palette", 8, 3, 0}, {"rgb", 8, 3, 0},     {"frames", 8, 1, RZ_NOTE_FRAMES}};
    for (size_t i = 0; i < RZ_COUNT(want); i++) {
        rz_pixels p = read_film(want[i].name);
        assert_int_equal(p.bits, want[i].bits);
        assert_int_equal(p.channels, want[i].channels);
        assert_int_equal(p.notes, want[i].notes);
        rz_pixels_free(NULL, &p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_like_the_native_film),
        cmocka_unit_test(test_like_dcmtk),
        cmocka_unit_test(test_depth_and_frames),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
