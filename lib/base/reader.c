/* reader.c - parts of a large file. SPDX-License-Identifier: Apache-2.0 */
#include "reader.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 8 << 20 };

struct rz_reader {
    const rz_host *host;
    int plain, direct; /* direct -1: the file system cannot */
    struct stat was;
    char path[];
};

radz_status rz_reader_open(const rz_host *host, const char *path, rz_reader **out, radz_error *err)
{
    const size_t n = strlen(path) + 1;
    rz_reader *r = *out = rz_calloc(host, 1, sizeof *r + n);
    if (!r) return RZ_NO_MEMORY(err, path);
    r->host = host, r->direct = -1;
    memcpy(r->path, path, n);
    r->plain = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    radz_status status = RADZ_OK;
    if (r->plain < 0 || fstat(r->plain, &r->was))
        status = rz_fail_errno(err, errno, "cannot open", path);
    else if (!S_ISREG(r->was.st_mode))
        status = rz_fail(err, RADZ_E_IO, "%s: expected a regular file", path);
    else
        r->direct = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (!status) return RADZ_OK;
    rz_reader_close(r);
    *out = NULL;
    return status;
}

void rz_reader_close(rz_reader *r)
{
    if (!r) return;
    if (r->plain >= 0) close(r->plain);
    if (r->direct >= 0) close(r->direct);
    rz_free(r->host, r);
}

static radz_status check_same(const rz_reader *r, radz_error *err)
{
    struct stat now;
    if (fstat(r->plain, &now)) return rz_fail_errno(err, errno, "cannot look at", r->path);
    if (now.st_size == r->was.st_size && now.st_mtim.tv_sec == r->was.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == r->was.st_mtim.tv_nsec)
        return RADZ_OK;
    return rz_fail(err, RADZ_E_IO, "%s: has been changed while it is in use (%lld bytes, %lld when it was opened)",
                   r->path, (long long)now.st_size, (long long)r->was.st_size);
}

/* Up to n bytes; fewer at the file's end alone. *got: how many. */
static radz_status read_part(const rz_reader *r, int fd, uint64_t at, size_t n, uint8_t *to, size_t *got,
                             radz_error *err)
{
    for (*got = 0; *got < n;) {
        const ssize_t k = pread(fd, to + *got, n - *got, (off_t)(at + *got));
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return rz_fail_errno(err, errno, "cannot read", r->path);
        if (!k) break;
        *got += (size_t)k;
        if (fd == r->direct && *got % RZ_READER_ALIGN) break; /* the end, or no place to go on from */
    }
    return RADZ_OK;
}

static radz_status ended(const rz_reader *r, radz_error *err)
{
    RZ_TRY(check_same(r, err));
    return rz_fail(err, RADZ_E_IO, "%s: ends before its last tensor", r->path);
}

radz_status rz_reader_small(rz_reader *r, uint64_t at, size_t n, void *to, radz_error *err)
{
    size_t got;
    RZ_TRY(read_part(r, r->plain, at, n, to, &got, err));
    return got == n ? RADZ_OK : ended(r, err);
}

radz_status rz_reader_get(rz_reader *r, uint64_t at, size_t n, uint8_t *room, const uint8_t **where,
                          bool (*stop)(void *user), void *user, radz_error *err)
{
    const uint64_t first = at / RZ_READER_ALIGN * RZ_READER_ALIGN;
    const size_t skip = (size_t)(at - first),
                 all = (skip + n + RZ_READER_ALIGN - 1) / RZ_READER_ALIGN * RZ_READER_ALIGN;
    RZ_TRY(check_same(r, err));
    *where = room + skip;
    for (size_t have = 0, got; have < all; have += got) {
        const size_t want = all - have < CHUNK ? all - have : CHUNK;
        if (stop && stop(user)) return rz_fail(err, RADZ_E_CANCELLED, "%s: not wanted any more", r->path);
        got = 0;
        /* not all file systems that open for direct reading do it, or do it to the end */
        if (r->direct < 0 || read_part(r, r->direct, first + have, want, room + have, &got, NULL) || got < want) {
            const uint64_t from = first + have + got;
            size_t more;
            RZ_TRY(read_part(r, r->plain, from, want - got, room + have + got, &more, err));
            posix_fadvise(r->plain, (off_t)from, (off_t)more, POSIX_FADV_DONTNEED);
            got += more;
        }
        if (got < want) return have + got >= skip + n ? RADZ_OK : ended(r, err);
    }
    return RADZ_OK;
}
