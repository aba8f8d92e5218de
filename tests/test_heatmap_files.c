/* test_heatmap_files.c - radz-classify --heatmap as its users meet it. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "fixture.h"
#include "formats.h"
#include "run_program.h"

static radz_error err;
static char *dir, *classify, *film, *twin, *out;

#define CLASSES "No Finding,Edema,Mass/left,Mass left"
#define RUN(...)                                                                                                       \
    run_program((const char *const[]){classify, "--quiet", "--classes", CLASSES, __VA_ARGS__, NULL}, NULL, TO_FILE)

static int setup(void **state)
{
    (void)state;
    run_folder = dir = fixture_temp_dir();
    classify = strdup(fixture_program("radz-classify"));
    char *model = strdup(fixture_path(dir, "model"));
    assert_int_equal(mkdir(model, 0700), 0);
    fixture_model(model, 3);
    assert_int_equal(mkdir(fixture_path(dir, "films"), 0700), 0);
    film = strdup(fixture_path(dir, "films/a b.png"));
    twin = strdup(fixture_path(dir, "films/a-b.png")); /* other content, nearly the same name */
    out = strdup(fixture_path(dir, "maps"));
    fixture_png(film, 120, 100, 1, 1);
    fixture_png(twin, 120, 100, 1, 2);
    setenv("RADZ_MODEL", model, 1);
    free(model);
    setenv("LC_ALL", "C", 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(dir);
    free(dir), free(classify), free(film), free(twin), free(out);
    return 0;
}

static void test_json(void **state)
{
    (void)state;
    fixture_remove(out);
    run r = RUN("--json", "--heatmap", out, "--heatmap-class", "mass/LEFT", "--heatmap-class", "Mass left", film, twin);
    run_expect(&r, 0, "radz.result/1", NULL);
    assert_int_equal(fixture_count_files(out), 4); /* two films, two classes that differ in one sign */
    char *line = r.out;
    for (int i = 0; i < 2; i++) {
        char *end = strchr(line, '\n');
        json_t *whole;
        assert_non_null(end);
        assert_int_equal(rz_json_parse(line, (size_t)(end - line), "line", &whole, &err), RADZ_OK);
        const json_t *maps = json_object_get(whole, "heatmaps");
        assert_int_equal(json_array_size(maps), 2);
        for (size_t k = 0; k < 2; k++) {
            const json_t *m = json_array_get(maps, k);
            size_t n;
            rz_pixels picture;
            char *bytes = fixture_read(json_string_value(json_object_get(m, "path")), &n);
            assert_int_equal(rz_png_decode(NULL, (uint8_t *)bytes, n, "map", &picture, &err), RADZ_OK);
            assert_int_equal(picture.channels, 3);
            rz_pixels_free(NULL, &picture);
            free(bytes);
            assert_string_equal(json_string_value(json_object_get(m, "label")), k ? "Mass left" : "mass/LEFT");
            assert_string_equal(json_string_value(json_object_get(m, "method")), "gradient");
            assert_true(json_number_value(json_object_get(m, "low")) <= json_number_value(json_object_get(m, "high")));
        }
        json_decref(whole);
        line = end + 1;
    }
    run_done(&r);
}

static void test_methods(void **state)
{
    static const char *const methods[] = {"similarity", "attention", "gradient"};
    (void)state;
    fixture_remove(out);
    for (size_t i = 0; i < RZ_COUNT(methods); i++) {
        run r = RUN("--heatmap", out, "--heatmap-method", methods[i], film);
        run_expect(&r, 0, "Heat map: ", NULL);
        run_expect(&r, 0, methods[i], NULL);
        run_done(&r);
        assert_int_equal(fixture_count_files(out), i + 1); /* the best class only, a name per method */
    }
    run r = RUN("--csv", "--heatmap", out, "--heatmap-class", "Edema", film);
    run_expect(&r, 0, ",message,heatmap\r\n", NULL);
    run_expect(&r, 0, "Edema.gradient.png\r\n", NULL);
    run_done(&r);
}

static void test_no_heatmap_no_change(void **state)
{
    (void)state;
    run r = RUN("--json", film);
    run_expect(&r, 0, "radz.result/1", NULL);
    assert_null(strstr(r.out, "heatmap"));
    run_done(&r);
    r = RUN("--csv", film);
    run_expect(&r, 0, ",error,message\r\n", NULL);
    run_done(&r);
}

static void test_wrong_usage(void **state)
{
    (void)state;
    run r = RUN("--heatmap-class", "Edema", film);
    run_expect(&r, 2, NULL, "--heatmap-class goes with --heatmap");
    run_done(&r);
    r = RUN("--heatmap", out, "--heatmap-class", "Gout", film);
    run_expect(&r, 2, NULL, "the bank has no class Gout");
    run_done(&r);
    r = RUN("--heatmap", out, "--heatmap-method", "guess", film);
    run_expect(&r, 2, NULL, "similarity|attention|gradient");
    run_done(&r);
    r = RUN("--heatmap", film, film);
    run_expect(&r, 2, NULL, "cannot make this folder");
    run_done(&r);
    r = RUN("--heatmap", fixture_path(dir, "no/such/folder"), film);
    run_expect(&r, 2, NULL, "cannot make this folder");
    run_done(&r);
}

/* A heat map that cannot be written is a failed film; the others are done. */
static void test_unwritable(void **state)
{
    (void)state;
    fixture_remove(out);
    run r = RUN("--heatmap", out, "--heatmap-class", "Edema", film);
    run_expect(&r, 0, "Heat map: ", NULL);
    char *path = strdup(strstr(r.out, "Heat map: ") + 10);
    *strchr(path, '\n') = 0;
    run_done(&r);
    fixture_remove(path);
    assert_int_equal(mkdir(path, 0700), 0); /* in the way */
    r = RUN("--json", "--heatmap", out, "--heatmap-class", "Edema", film, twin);
    run_expect(&r, 1, "\"error\":{\"code\":\"io\"", NULL);
    run_expect(&r, 1, "\"heatmaps\":[{\"label\":\"Edema\"", NULL);
    run_done(&r);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_no_heatmap_no_change),
        cmocka_unit_test(test_wrong_usage),
        cmocka_unit_test(test_unwritable),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
