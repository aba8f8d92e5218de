/* DICOM films beside dcmtk: every file of $SHARED/dicom and of python3-pydicom's test files that both read is within
 * one grey level of 255. Says how many, and why the others are not compared. SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "fixture.h"

enum { MAX_FILES = 512 };

static char *files[MAX_FILES], *folder;
static size_t n_files;

static int keep(const char *path, const struct stat *st, int kind)
{
    (void)st;
    const char *dot = strrchr(path, '.');
    if (kind == FTW_F && dot && !strcmp(dot, ".dcm") && n_files < MAX_FILES) files[n_files++] = strdup(path);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* How dcmtk is asked for what the header says: it shows no window unless told to. */
static const char *window_option(const rz_dicom *d, const rz_dicom_header *h)
{
    if (rz_dicom_find_in(d, RZ_TAG(0x0028, 0x3010), RZ_TAG(0x0028, 0x3006))) return "+Wl 1";
    const rz_dicom_element *center = rz_dicom_find(d, RZ_TAG(0x0028, 0x1050));
    if (center && center->length) return "+Wi 1";
    return h->stored > 8 ? "+Wm" : "";
}

/* Its pixels, 8 bits, or NULL. */
static char *reference(const char *path, const char *window, size_t *w, size_t *h, int *channels, char **pixels)
{
    char command[2048];
    const char *out = fixture_path(folder, "out.pnm");
    size_t n;
    int kind, at = 0, white;
    const char *programs[] = {"dcm2pnm", "dcmj2pnm", "dcml2pnm"};
    for (size_t i = 0; i < RZ_COUNT(programs); i++) {
        snprintf(command, sizeof command, "%s -q -O %s +F 1 '%s' '%s' >'%s' 2>&1", programs[i], window, path, out,
                 fixture_path(folder, "log"));
        unlink(out);
        if (system(command) || access(out, R_OK)) continue;
        char *text = fixture_read(out, &n);
        if (sscanf(text, "P%d%*[ \n]%n", &kind, &at) == 1 && (kind == 5 || kind == 6)) {
            while (text[at] == '#') at += (int)strcspn(text + at, "\n") + 1;
            if (sscanf(text + at, "%zu %zu %d", w, h, &white) == 3 && white == 255) {
                *channels = kind == 5 ? 1 : 3;
                *pixels = text + n - *w * *h * (size_t)*channels;
                return text;
            }
        }
        free(text);
    }
    return NULL;
}

static double sample(const rz_pixels *p, size_t i)
{
    return p->bits == 8 ? ((const uint8_t *)p->data)[i] : ((const uint16_t *)p->data)[i] / 257.;
}

static double worst(const rz_pixels *p, const char *pixels, int channels)
{
    double most = 0;
    for (size_t i = 0; i < p->width_px * p->height_px; i++)
        for (int c = 0; c < 3; c++) {
            const double ours = sample(p, i * (size_t)p->channels + (size_t)(p->channels == 3 ? c : 0));
            const double theirs = (uint8_t)pixels[i * (size_t)channels + (size_t)(channels == 3 ? c : 0)];
            most = fmax(most, fabs(ours - theirs));
        }
    return most;
}

typedef struct counts {
    size_t compared, apart, ours, theirs, neither;
} counts;

static void compare(const char *path, counts *c)
{
    size_t n, w = 0, h = 0;
    char *bytes = fixture_read(path, &n), *pixels = NULL;
    const char *slash = strrchr(path, '/');
    int channels = 0;
    rz_pixels film = {0};
    rz_dicom d;
    rz_dicom_header header = {0};
    radz_error err = {0};
    const char *window = "";
    if (rz_dicom_parse(NULL, (uint8_t *)bytes, n, "file", &d, NULL) == RADZ_OK) {
        if (rz_dicom_header_read(&d, &header, NULL) == RADZ_OK) window = window_option(&d, &header);
        rz_dicom_free(&d);
    }
    const bool read = rz_pixels_decode(NULL, (uint8_t *)bytes, n, "file", &film, &err) == RADZ_OK;
    char *text = reference(path, window, &w, &h, &channels, &pixels);
    if (read && text) {
        const double most = w == film.width_px && h == film.height_px ? worst(&film, pixels, channels) : 999;
        c->compared++;
        c->apart += most > 1;
        printf("%-44s %-8s %7.3f%s\n", slash + 1, window, most, most > 1 ? "  APART" : "");
    } else {
        printf("%-44s %s\n", slash + 1, read ? "only libradz reads it" : err.message);
        c->ours += read;
        c->theirs += !read && text;
        c->neither += !read && !text;
        if (text) printf("%-44s   dcmtk reads it\n", "");
    }
    rz_pixels_free(NULL, &film);
    free(text);
    free(bytes);
}

static void test_films_are_dcmtks(void **state)
{
    (void)state;
    const char *shared = getenv("SHARED"), *pydicom = getenv("PYDICOM");
    if (system("dcm2pnm --version >/dev/null 2>&1")) skip();
    folder = fixture_temp_dir();
    ftw(fixture_path(shared ? shared : "../shared", "data/dicom"), keep, 16);
    ftw(pydicom ? pydicom : "/usr/lib/python3/dist-packages/pydicom/data", keep, 16);
    qsort(files, n_files, sizeof *files, by_name);
    counts c = {0};
    for (size_t i = 0; i < n_files; i++) compare(files[i], &c);
    printf("%zu files: %zu compared, %zu of them apart; %zu only read by libradz, %zu only by dcmtk, %zu by neither\n",
           n_files, c.compared, c.apart, c.ours, c.theirs, c.neither);
    for (size_t i = 0; i < n_files; i++) free(files[i]);
    fixture_remove(folder);
    free(folder);
    assert_int_equal(c.apart, 0);
    assert_true(c.compared > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_films_are_dcmtks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
