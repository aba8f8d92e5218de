/* test_dicom_cli.c - radz-classify with films from an archive: reports and heat maps beside them, --strict, and that no
 * name of a patient gets into anything that is printed. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "dicom_fixture.h"
#include "fixture.h"
#include "run_program.h"

static char *dir, *classify, *film, *lateral, *png, *out;

#define RUN(...)                                                                                                       \
    run_program((const char *const[]){classify, "--classes", "No Finding,Edema", __VA_ARGS__, NULL}, NULL, TO_FILE)

static char *write_film(const char *name, dicom_film m)
{
    char *path = strdup(fixture_path(dir, name));
    m.identified = true;
    const dicom_file f = dicom_make(m);
    fixture_write(path, f.bytes, f.n);
    return path;
}

static int setup(void **state)
{
    (void)state;
    run_folder = dir = fixture_temp_dir();
    classify = strdup(fixture_program("radz-classify"));
    char *model = strdup(fixture_path(dir, "model"));
    assert_int_equal(mkdir(model, 0700), 0);
    fixture_model(model, 3);
    film = write_film("film.dcm", (dicom_film){.part = "CHEST"});
    lateral = write_film("lateral.dcm", (dicom_film){.view = "LL", .study = "1.2.8"});
    png = strdup(fixture_path(dir, "film.png"));
    fixture_png(png, 40, 30, 1, 1);
    out = strdup(fixture_path(dir, "out"));
    assert_int_equal(mkdir(out, 0700), 0);
    setenv("RADZ_MODEL", model, 1);
    free(model);
    setenv("LC_ALL", "C", 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(dir);
    free(dir), free(classify), free(film), free(lateral), free(png), free(out);
    return 0;
}

static void test_three_objects(void **state)
{
    (void)state;
    char *paths[3];
    static const char *const names[] = {"a.dcm", "b.dcm", "c.dcm"};
    for (size_t i = 0; i < 3; i++) paths[i] = strdup(fixture_path(dir, names[i]));
    run r = RUN("--quiet", "--sr", paths[0], "--sc", paths[1], "--gsps", paths[2], film);
    run_expect(&r, 0, "Edema", "");
    run_done(&r);
    for (size_t i = 0; i < 3; i++) {
        size_t n;
        rz_dicom d;
        char *bytes = fixture_read(paths[i], &n);
        assert_int_equal(rz_dicom_parse(NULL, (uint8_t *)bytes, n, "object", &d, NULL), RADZ_OK);
        rz_dicom_free(&d);
        free(bytes), free(paths[i]);
    }
}

/* Several films into a folder; again, they replace themselves. */
static void test_folder(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        run r = RUN("--quiet", "--sr", out, "--sc", out, film, lateral);
        run_expect(&r, 0, NULL, "");
        run_done(&r);
        assert_int_equal(fixture_count_files(out), 4);
    }
    run r = RUN("--quiet", "--sr", out, "--sc", out, "--heatmap-class", "Edema", "--heatmap-class", "No Finding", film);
    run_expect(&r, 0, NULL, "");
    run_done(&r);
    assert_int_equal(fixture_count_files(out), 5); /* one of the two classes was the best and is there */
}

static void test_wrong_usage(void **state)
{
    (void)state;
    run r = RUN("--sr", fixture_path(dir, "x.dcm"), film, lateral);
    run_expect(&r, 2, NULL, "folder");
    run_done(&r);
    r = RUN("--sc", fixture_path(dir, "x.dcm"), "--heatmap-class", "Edema", "--heatmap-class", "No Finding", film);
    run_expect(&r, 2, NULL, "folder");
    run_done(&r);
    r = RUN("--threshold", ".5", film);
    run_expect(&r, 2, NULL, "--sr");
    run_done(&r);
    r = RUN("--threshold", "2", "--sr", out, film);
    run_expect(&r, 2, NULL, "--threshold");
    run_done(&r);
}

static void test_no_dicom_no_object(void **state)
{
    (void)state;
    const char *path = fixture_path(dir, "none.dcm");
    run r = RUN("--sr", path, png);
    run_expect(&r, 1, NULL, "no DICOM file");
    run_done(&r);
    assert_int_not_equal(access(path, F_OK), 0);
    r = RUN("--sr", fixture_path(dir, "nowhere/a.dcm"), film);
    run_expect(&r, 1, NULL, "nowhere");
    run_done(&r);
}

static void test_strict(void **state)
{
    (void)state;
    run r = RUN("--quiet", lateral);
    run_expect(&r, 0, "Warning: film is a lateral view", NULL);
    run_done(&r);
    r = RUN("--quiet", "--strict", lateral, film);
    run_expect(&r, 1, "film.dcm", "refused (strict): film is a lateral view");
    assert_null(strstr(r.out, "lateral.dcm"));
    run_done(&r);
    static const dicom_film others[] = {
        {.intent = "FOR PROCESSING"}, {.burned = "YES"}, {.modality = "MR"}, {.part = "HAND"}};
    for (size_t i = 0; i < RZ_COUNT(others); i++) {
        char *path = write_film("other.dcm", others[i]);
        r = RUN("--quiet", "--strict", path);
        run_expect(&r, 1, NULL, "refused (strict)");
        run_done(&r);
        r = run_program((const char *const[]){classify, "--quiet", "--strict", "--classes", "Edema", "-", NULL}, path,
                        TO_FILE);
        run_expect(&r, 1, NULL, "refused (strict)");
        run_done(&r);
        free(path);
    }
}

/* What every film of these tests says of its patient. */
static void expect_no_patient(const char *text)
{
    static const char *const planted[] = {"Doe",   "Jane",   "PID-42",  "19500102",
                                          "ACC77", "Erring", "1.2.3.4", "Chest PA"};
    for (size_t i = 0; i < RZ_COUNT(planted); i++)
        if (strstr(text, planted[i])) fail_msg("%s in: %s", planted[i], text);
}

static void test_no_patient_in_any_output(void **state)
{
    (void)state;
    static const char *const forms[] = {"--json", "--csv", "--strict"};
    static const dicom_film films[] = {
        {.view = "LL"},        {.slope = NAME},     {.syntax = NAME},   {.center = NAME, .width = NAME},
        {.photometric = NAME}, {.no_pixels = true}, {.frames = NAME},   {.study = NAME},
        {.charset = NAME},     {.modality = NAME},  {.part = NAME},     {.burned = NAME},
        {.age = NAME},         {.zone = NAME},      {.function = NAME}, {.voi_table = true},
        {.intent = NAME},      {.rows = 9}};
    for (size_t i = 0; i < RZ_COUNT(films); i++) {
        char *path = write_film("p.dcm", films[i]);
        for (size_t k = 0; k < RZ_COUNT(forms); k++) {
            run r =
                RUN(forms[k], "--sr", fixture_path(dir, "p-sr.dcm"), "--gsps", fixture_path(dir, "p-gsps.dcm"), path);
            expect_no_patient(r.out), expect_no_patient(r.err);
            run_done(&r);
        }
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_objects), cmocka_unit_test(test_folder),
        cmocka_unit_test(test_wrong_usage),   cmocka_unit_test(test_no_dicom_no_object),
        cmocka_unit_test(test_strict),        cmocka_unit_test(test_no_patient_in_any_output),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
