/* error.c - typed errors with one clean line of text. SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

/* Ends text that was cut at `size` with "...", never in the middle of a UTF-8 sequence. */
static void mark_cut(char *text, size_t size)
{
    size_t end = size - 4;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80) end--;
    memcpy(text + end, "...", 4);
}

static void clean_line(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7F) *text = '?';
}

static void format_line(char *out, size_t size, const char *fmt, va_list ap)
{
    int n = vsnprintf(out, size, fmt, ap);
    if (n < 0)
        memcpy(out, "?", 2);
    else if ((size_t)n >= size)
        mark_cut(out, size);
    clean_line(out);
}

radz_status rz_fail(radz_error *err, radz_status code, const char *fmt, ...)
{
    if (!err) return code;
    /* The arguments may point into err->message itself. */
    char line[sizeof err->message];
    va_list ap;
    va_start(ap, fmt);
    format_line(line, sizeof line, fmt, ap);
    va_end(ap);
    err->code = code;
    memcpy(err->message, line, sizeof line);
    return code;
}

/* strerror() speaks the host's language and is not thread-safe everywhere: own words for what file calls return. */
static const char *errno_text(int errnum)
{
    static const struct {
        int num;
        const char *text;
    } known[] = {
        {EACCES, "permission denied"},
        {EBADF, "bad file descriptor"},
        {EBUSY, "busy"},
        {EDQUOT, "disk quota exceeded"},
        {EEXIST, "exists already"},
        {EFBIG, "file too large"},
        {EINVAL, "invalid argument"},
        {EIO, "input/output error"},
        {EISDIR, "is a directory"},
        {ELOOP, "too many symbolic links"},
        {EMFILE, "too many open files in this process"},
        {ENAMETOOLONG, "name too long"},
        {ENFILE, "too many open files in the system"},
        {ENODEV, "not supported by this file system"},
        {ENOENT, "no such file or directory"},
        {ENOMEM, "out of memory"},
        {ENOSPC, "no space left on device"},
        {ENOTDIR, "a component of the path is not a directory"},
        {ENOTEMPTY, "directory not empty"},
        {ENXIO, "no such device or a socket"},
        {EOVERFLOW, "file too large"},
        {EPERM, "operation not permitted"},
        {EROFS, "read-only file system"},
        {ESTALE, "stale file handle"},
        {ETXTBSY, "file is being executed"},
        {EXDEV, "on another file system"},
    };
    for (size_t i = 0; i < RZ_COUNT(known); i++)
        if (known[i].num == errnum) return known[i].text;
    return NULL;
}

radz_status rz_fail_errno(radz_error *err, int errnum, const char *what, const char *path)
{
    const char *text = errno_text(errnum);
    radz_status code = errnum == ENOMEM ? RADZ_E_MEMORY : RADZ_E_IO;
    if (text) return rz_fail(err, code, "%s: %s: %s", path, what, text);
    return rz_fail(err, code, "%s: %s: system error %d", path, what, errnum);
}

radz_status rz_fail_prefix(radz_error *err, radz_status code, const char *fmt, ...)
{
    if (!err) return code;
    char prefix[sizeof err->message];
    va_list ap;
    va_start(ap, fmt);
    format_line(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    return rz_fail(err, err->code, "%s: %s", prefix, err->message);
}
