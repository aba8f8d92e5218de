/* scratch.c - a temporary model directory for a test. SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "base.h"

static char dir[64];

const char *scratch_make(void)
{
    strcpy(dir, "/tmp/radz-test-XXXXXX");
    if (!mkdtemp(dir)) fail_msg("cannot make %s", dir);
    return dir;
}

const char *scratch_dir(void)
{
    return dir;
}

void scratch_remove(void)
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char *path = rz_path_join(NULL, dir, e->d_name);
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) unlink(path);
        rz_free(NULL, path);
    }
    closedir(d);
    assert_int_equal(rmdir(dir), 0);
}

void scratch_write(const char *name, const void *bytes, size_t n)
{
    radz_error err;
    char *path = rz_path_join(NULL, dir, name);
    if (rz_write_file(NULL, path, bytes, n, &err)) fail_msg("%s", err.message);
    rz_free(NULL, path);
}

void scratch_copy(const char *from_dir, const char *name, const char *from, const char *to)
{
    radz_error err;
    rz_file f;
    rz_str s = {0};
    char *src = rz_path_join(NULL, from_dir, name);
    if (rz_file_open(NULL, src, RZ_FILE_READ, 1 << 20, &f, &err)) fail_msg("%s", err.message);
    const char *text = (const char *)f.data, *at = from ? memmem(text, f.size, from, strlen(from)) : NULL;
    if (from && !at) fail_msg("%s has no '%s'", src, from);
    rz_str_put(&s, text, at ? (size_t)(at - text) : f.size);
    if (at) {
        rz_str_puts(&s, to);
        rz_str_put(&s, at + strlen(from), f.size - (size_t)(at - text) - strlen(from));
    }
    scratch_write(name, s.data, s.len);
    rz_str_free(&s);
    rz_file_close(&f);
    rz_free(NULL, src);
}
