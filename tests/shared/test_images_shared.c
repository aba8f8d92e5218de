/* test_images_shared.c - real films in odd encodings, which may not lie in this repository: each is classified by the
 * model that ships. SHARED names the folder, ../shared by default. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <dirent.h>
#include <radz.h>
#include <string.h>

#include "fixture.h"

static radz_error err;

static void classify(radz_session *session, const char *path)
{
    radz_result *result;
    if (radz_classify_file(session, NULL, path, &result, &err)) fail_msg("%s", err.message);
    assert_int_equal(radz_result_count(result), 15);
    print_message("%-32s %-20s %.3f\n", strrchr(path, '/') + 1, radz_result_label(result, 0),
                  radz_result_probability(result, 0));
    radz_result_close(result);
}

static void test_every_image(void **state)
{
    const char *root = getenv("SHARED");
    char *dir = strdup(fixture_path(root ? root : "../shared", "data/images"));
    radz_model *model;
    radz_session *session;
    size_t n = 0;
    (void)state;
    DIR *d = opendir(dir);
    if (!d) fail_msg("%s: no such folder", dir);
    if (radz_model_open(NULL, "models/radz-tiny", NULL, &model, &err)) fail_msg("%s", err.message);
    if (radz_session_open(model, NULL, &session, &err)) fail_msg("%s", err.message);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        classify(session, fixture_path(dir, e->d_name));
        n++;
    }
    assert_true(n > 0);
    closedir(d);
    radz_session_close(session);
    radz_model_close(model);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_image)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
