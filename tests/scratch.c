/* scratch.c - one temporary model directory, made of changed copies. SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "device.h"
#include "fixture.h"

struct rz_device *scratch_device;

static char *dir;

const char *scratch_make(void)
{
    free(dir); /* one that a failed test left behind stays on disk, to be looked at */
    return dir = fixture_temp_dir();
}

const char *scratch_dir(void)
{
    return dir;
}

void scratch_remove(void)
{
    fixture_remove(dir);
    free(dir);
    dir = NULL;
}

void scratch_write(const char *name, const void *bytes, size_t n)
{
    fixture_write(fixture_path(dir, name), bytes, n);
}

void scratch_copy(const char *from_dir, const char *name, const char *from, const char *to)
{
    size_t n;
    rz_str s = {0};
    char *text = fixture_read(fixture_path(from_dir, name), &n),
         *at = from ? memmem(text, n, from, strlen(from)) : NULL;
    if (from && !at) fail_msg("%s/%s has no '%s'", from_dir, name, from);
    rz_str_put(&s, text, at ? (size_t)(at - text) : n);
    if (at) {
        rz_str_puts(&s, to);
        rz_str_put(&s, at + strlen(from), n - (size_t)(at - text) - strlen(from));
    }
    scratch_write(name, s.data, s.len);
    rz_str_free(&s);
    free(text);
}

int scratch_open_device(void **state)
{
    (void)state;
    rz_device_options o = {"cpu", "auto", "own", 1};
    return rz_device_open(NULL, &o, &scratch_device, NULL) != RADZ_OK;
}

int scratch_close_device(void **state)
{
    (void)state;
    rz_device_close(scratch_device);
    return 0;
}
