/* test_install.c - an installed library, as users build against it: tests/install-test has the steps.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "fixture.h"

/* No run_program: compilers take longer than its alarm on a busy machine, and what they say belongs in the log. */
static void install_test(const char *step)
{
    char build[4096];
    snprintf(build, sizeof build, "%s", fixture_program(""));
    *strstr(build, "/bin/") = 0;
    char *dir = fixture_temp_dir();
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(2, 1);
        execl("tests/install-test", "install-test", build, step, dir, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    fixture_remove(dir);
    free(dir);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void pkg_config(void **state)
{
    (void)state;
    install_test("pkg-config");
}

static void cmake(void **state)
{
    (void)state;
    install_test("cmake");
}

static void destdir_pkg_config(void **state)
{
    (void)state;
    install_test("destdir-pkg-config");
}

static void destdir_cmake(void **state)
{
    (void)state;
    install_test("destdir-cmake");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pkg_config),
        cmocka_unit_test(cmake),
        cmocka_unit_test(destdir_pkg_config),
        cmocka_unit_test(destdir_cmake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
