/* file.c - reading regular files and writing whole files or nothing. SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

double rz_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- Reading ------------------------------------------------------------------------ */

/* Opens without ever waiting for a FIFO's writer, then refuses whatever is not a regular file. */
static radz_status open_regular(const char *path, int *fd, size_t *size, radz_error *err)
{
    struct stat st;
    do *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    while (*fd < 0 && errno == EINTR);
    if (*fd < 0) return rz_fail_errno(err, errno, "cannot open", path);
    if (fstat(*fd, &st)) {
        rz_fail_errno(err, errno, "cannot look at", path);
        goto refuse_io;
    }
    if (!S_ISREG(st.st_mode)) {
        rz_fail(err, RADZ_E_IO, "%s: %s, expected a regular file", path,
                S_ISDIR(st.st_mode) ? "is a directory" : "is a pipe or device");
        goto refuse_io;
    }
    if ((uintmax_t)st.st_size > PTRDIFF_MAX) {
        close(*fd);
        return rz_fail(err, RADZ_E_LIMIT, "%s: does not fit in memory", path);
    }
    *size = (size_t)st.st_size;
    return RADZ_OK;
refuse_io:
    close(*fd);
    return RADZ_E_IO;
}

static radz_status read_all(int fd, const char *path, rz_file *f, radz_error *err)
{
    uint8_t *data = rz_malloc(f->host, f->size);
    if (!data) return RZ_NO_MEMORY(err, path);
    f->data = f->priv = data;
    for (size_t have = 0; have < f->size;) {
        ssize_t n = read(fd, data + have, f->size - have);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return rz_fail_errno(err, errno, "cannot read", path);
        if (n == 0)
            return rz_fail(err, RADZ_E_IO, "%s: became shorter while it was read: %zu of %zu bytes", path, have,
                           f->size);
        have += (size_t)n;
    }
    return RADZ_OK;
}

static radz_status map_all(int fd, const char *path, rz_file *f, radz_error *err)
{
    void *p = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) return rz_fail_errno(err, errno, "cannot map", path);
    f->data = p;
    return RADZ_OK;
}

/* What git leaves in place of large files where git-lfs is not installed: some lines of text about them. */
static radz_status refuse_pointer(const rz_file *f, const char *path, radz_error *err)
{
    static const char begin[] = "version https://git-lfs.github.com/spec/";
    if (f->size > 1024 || f->size < strlen(begin) || memcmp(f->data, begin, strlen(begin))) return RADZ_OK;
    return rz_fail(err, RADZ_E_FORMAT, "%s: a Git LFS pointer and not the file: fetch it with 'git lfs pull'", path);
}

radz_status rz_file_open(const rz_host *host, const char *path, rz_file_mode mode, size_t max_bytes, rz_file *out,
                         radz_error *err)
{
    static const uint8_t nothing[1];
    int fd;
    *out = (rz_file){.host = host};
    RZ_TRY(open_regular(path, &fd, &out->size, err));
    radz_status status;
    if (out->size > max_bytes)
        status = rz_fail(err, RADZ_E_LIMIT, "%s: %zu bytes, at most %zu are taken", path, out->size, max_bytes);
    else if (!out->size)
        status = RADZ_OK, out->data = nothing;
    else
        status = mode == RZ_FILE_MAP ? map_all(fd, path, out, err) : read_all(fd, path, out, err);
    close(fd);
    if (!status && (status = refuse_pointer(out, path, err))) rz_file_close(out);
    if (status) {
        rz_free(host, out->priv);
        *out = (rz_file){0};
    }
    return status;
}

/* Whole pages; those that are wanted hold the bytes, those that go hold nothing else. */
static void advise(const rz_file *f, size_t at, size_t n, int advice, bool outward)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), end = at + n;
    const size_t first = (outward || !at ? at : at + page - 1) / page * page;
    const size_t last = (outward || end == f->size ? end + page - 1 : end) / page * page;
    if (f->data && !f->priv && f->size && last > first)
        madvise((void *)(uintptr_t)(f->data + first), last - first, advice);
}

void rz_file_soon(const rz_file *f, size_t at, size_t n)
{
    advise(f, at, n, MADV_WILLNEED, true);
}

void rz_file_forget(const rz_file *f, size_t at, size_t n)
{
    advise(f, at, n, MADV_DONTNEED, false);
}

void rz_file_close(rz_file *f)
{
    if (f->priv)
        rz_free(f->host, f->priv);
    else if (f->size)
        munmap((void *)(uintptr_t)f->data, f->size);
    *f = (rz_file){0};
}

/* ---- Paths -------------------------------------------------------------------------- */

bool rz_path_exists(const char *path)
{
    struct stat st;
    return !stat(path, &st);
}

bool rz_path_same(const char *a, const char *b)
{
    struct stat s, t;
    return !stat(a, &s) && !stat(b, &t) && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

uint64_t rz_path_room(const char *path)
{
    struct statvfs v;
    return statvfs(path, &v) ? UINT64_MAX : (uint64_t)v.f_bavail * v.f_frsize;
}

bool rz_path_is_folder(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

/* "/a/b" holds "/a/b/c" and not "/a/bc". */
static bool holds(const char *folder, const char *path)
{
    size_t n = strlen(folder);
    while (n && folder[n - 1] == '/') n--;
    return !strncmp(folder, path, n) && path[n] == '/';
}

bool rz_path_stays(const char *dir, const char *path)
{
    char folder[PATH_MAX], blobs[PATH_MAX + 16], real[PATH_MAX];
    if (!realpath(dir[0] ? dir : ".", folder) || !realpath(path, real)) return false;
    if (holds(folder, real)) return true;
    /* Two levels up by name: the folder itself has no links left in it. */
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(folder, '/');
        if (!slash || slash == folder) return false;
        *slash = 0;
    }
    snprintf(blobs, sizeof blobs, "%s/blobs", folder);
    return holds(blobs, real);
}

radz_status rz_mkdir_p(const char *path, radz_error *err)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (!n) return rz_fail(err, RADZ_E_ARGUMENT, "empty folder name");
    if (n >= sizeof part) return rz_fail_errno(err, ENAMETOOLONG, "cannot create folder", path);
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i]) continue;
        char kept = part[i];
        part[i] = 0;
        /* Asking first: mkdir of an existing folder may be refused for other reasons than EEXIST. */
        if (!rz_path_is_folder(part) && mkdir(part, 0777) && !(errno == EEXIST && rz_path_is_folder(part)))
            return rz_fail_errno(err, errno == EEXIST ? ENOTDIR : errno, "cannot create folder", part);
        part[i] = kept;
    }
    return RADZ_OK;
}

char *rz_path_join(const rz_host *host, const char *dir, const char *name)
{
    if (name[0] == '/' || !dir || !dir[0]) return rz_strdup(host, name);
    size_t a = strlen(dir), b = strlen(name), slash = dir[a - 1] != '/';
    char *path = rz_malloc(host, a + slash + b + 1);
    if (!path) return NULL;
    memcpy(path, dir, a);
    if (slash) path[a] = '/';
    memcpy(path + a + slash, name, b + 1);
    return path;
}

/* ---- Writing ------------------------------------------------------------------------ */

struct rz_writer {
    const rz_host *host;
    int fd;
    bool failed; /* some bytes are lost: the file can only be thrown away */
    size_t n_buffered;
    uint64_t n_bytes;  /* put so far */
    char *path, *temp; /* both point into this block */
    uint8_t buffer[1 << 16];
};

/* Length of the folder part with its slash, 0 where there is none. */
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* A lock that ends with its process tells rz_folder_tidy that the file has a writer. False: a tidier was first. Where a
 * file system has no locks nobody tidies either. */
static bool claim(int fd)
{
    struct stat st;
    if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) return false;
    return fstat(fd, &st) || st.st_nlink > 0;
}

/* Creates path's folder + a fresh hidden name. The mode leaves the umask to the kernel. */
static int create_temp(rz_writer *w)
{
    static atomic_uint counter;
    size_t folder = folder_length(w->path);
    memcpy(w->temp, w->path, folder);
    for (int tries = 0; tries < 100; tries++) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        rz_rng r;
        rz_rng_seed(&r, (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec,
                    (uint64_t)getpid() << 32 | atomic_fetch_add(&counter, 1));
        snprintf(w->temp + folder, 32, ".radz-%016llx.tmp", (unsigned long long)rz_rng_u64(&r));
        int fd = open(w->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0666);
        if (fd >= 0 && !claim(fd)) {
            close(fd);
            continue;
        }
        if (fd >= 0 || (errno != EEXIST && errno != EINTR)) return fd;
    }
    return -1;
}

radz_status rz_writer_open(const rz_host *host, const char *path, rz_writer **out, radz_error *err)
{
    struct stat st;
    *out = NULL;
    if (!stat(path, &st) && !S_ISREG(st.st_mode))
        return rz_fail(err, RADZ_E_IO, "%s: %s, expected a regular file or none", path,
                       S_ISDIR(st.st_mode) ? "is a directory" : "is a pipe or device");
    size_t n = strlen(path);
    rz_writer *w = rz_malloc(host, sizeof *w + n + 1 + folder_length(path) + 32);
    if (!w) return RZ_NO_MEMORY(err, path);
    w->host = host;
    w->failed = false;
    w->n_buffered = 0;
    w->n_bytes = 0;
    w->path = (char *)(w + 1);
    w->temp = w->path + n + 1;
    memcpy(w->path, path, n + 1);
    w->fd = create_temp(w);
    if (w->fd < 0) {
        rz_fail_errno(err, errno, "cannot create a file in its folder", path);
        rz_free(host, w);
        return RADZ_E_IO;
    }
    *out = w;
    return RADZ_OK;
}

static radz_status write_all(rz_writer *w, const uint8_t *p, size_t n, radz_error *err)
{
    while (n) {
        ssize_t done = write(w->fd, p, n);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) {
            w->failed = true;
            return rz_fail_errno(err, done ? errno : EIO, "cannot write", w->path);
        }
        p += done;
        n -= (size_t)done;
    }
    return RADZ_OK;
}

static radz_status flush(rz_writer *w, radz_error *err)
{
    size_t n = w->n_buffered;
    w->n_buffered = 0;
    return write_all(w, w->buffer, n, err);
}

radz_status rz_writer_put(rz_writer *w, const void *bytes, size_t n, radz_error *err)
{
    if (w->failed) return rz_fail(err, RADZ_E_IO, "%s: an earlier write failed", w->path);
    w->n_bytes += n;
    if (n > sizeof w->buffer - w->n_buffered) RZ_TRY(flush(w, err));
    if (n > sizeof w->buffer) return write_all(w, bytes, n, err);
    if (n) memcpy(w->buffer + w->n_buffered, bytes, n);
    w->n_buffered += n;
    return RADZ_OK;
}

uint64_t rz_writer_bytes(const rz_writer *w)
{
    return w->n_bytes;
}

void rz_writer_abort(rz_writer *w)
{
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    unlink(w->temp);
    rz_free(w->host, w);
}

/* A rename is on the disk once its folder is. File systems that cannot sync a folder answer EINVAL. */
static radz_status sync_folder(const char *path, char *scratch /* of folder_length(path) + 2 */, const char *done,
                               radz_error *err)
{
    size_t folder = folder_length(path);
    memcpy(scratch, folder ? path : ".", folder ? folder : 1);
    scratch[folder ? folder : 1] = 0;
    int fd = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC), failed = 0;
    if (fd < 0) return RADZ_OK; /* a folder we may write to but not read */
    if (fsync(fd) && errno != EINVAL && errno != EROFS) failed = errno;
    close(fd);
    return failed ? rz_fail_errno(err, failed, done, path) : RADZ_OK;
}

radz_status rz_file_remove(const rz_host *host, const char *path, radz_error *err)
{
    if (unlink(path)) return errno == ENOENT ? RADZ_OK : rz_fail_errno(err, errno, "cannot remove", path);
    char *scratch = rz_malloc(host, folder_length(path) + 2);
    radz_status status =
        scratch ? sync_folder(path, scratch, "removed, but its folder cannot be synced", err) : RZ_NO_MEMORY(err, path);
    rz_free(host, scratch);
    return status;
}

static radz_status finish(rz_writer *w, radz_error *err)
{
    if (w->failed) return rz_fail(err, RADZ_E_IO, "%s: an earlier write failed", w->path);
    RZ_TRY(flush(w, err));
    if (fsync(w->fd)) return rz_fail_errno(err, errno, "cannot sync", w->path);
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) && errno != EINTR) return rz_fail_errno(err, errno, "cannot write", w->path);
    if (rename(w->temp, w->path)) return rz_fail_errno(err, errno, "cannot replace", w->path);
    return RADZ_OK;
}

radz_status rz_writer_commit(rz_writer *w, radz_error *err)
{
    radz_status status = finish(w, err);
    if (status) {
        rz_writer_abort(w);
        return status;
    }
    status = sync_folder(w->path, w->temp, "written, but its folder cannot be synced", err);
    rz_free(w->host, w);
    return status;
}

radz_status rz_write_file(const rz_host *host, const char *path, const void *bytes, size_t n, radz_error *err)
{
    rz_writer *w;
    RZ_TRY(rz_writer_open(host, path, &w, err));
    radz_status status = rz_writer_put(w, bytes, n, err);
    if (status) {
        rz_writer_abort(w);
        return status;
    }
    return rz_writer_commit(w, err);
}
