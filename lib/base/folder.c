/* folder.c - the names in a folder, and files that nobody will finish. SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "base.h"

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool ends_with(const char *s, const char *ending)
{
    size_t n = strlen(s), k = strlen(ending);
    return n >= k && strcmp(s + n - k, ending) == 0;
}

void rz_folder_free(const rz_host *host, char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) rz_free(host, names[i]);
    rz_free(host, names);
}

static radz_status add_name(const rz_host *host, const char *name, char ***names, size_t *n, size_t *cap,
                            radz_error *err)
{
    if (*n == *cap) {
        size_t want = *cap ? 2 * *cap : 64;
        char **p = rz_realloc(host, *names, want, sizeof *p);
        if (!p) return RZ_NO_MEMORY(err, "names in a folder");
        *names = p, *cap = want;
    }
    (*names)[*n] = rz_strdup(host, name);
    if (!(*names)[*n]) return RZ_NO_MEMORY(err, "names in a folder");
    ++*n;
    return RADZ_OK;
}

radz_status rz_folder_names(const rz_host *host, const char *path, const char *ending, char ***names, size_t *n,
                            radz_error *err)
{
    size_t cap = 0;
    radz_status status = RADZ_OK;
    *names = NULL, *n = 0;
    DIR *dir = opendir(path);
    if (!dir) return rz_fail_errno(err, errno, "cannot open", path);
    for (struct dirent *e; !status && (e = readdir(dir));)
        if (ends_with(e->d_name, ending)) status = add_name(host, e->d_name, names, n, &cap, err);
    closedir(dir);
    if (status == RADZ_OK && *n) qsort(*names, *n, sizeof **names, by_text);
    if (status == RADZ_OK) return RADZ_OK;
    rz_folder_free(host, *names, *n);
    *names = NULL, *n = 0;
    return status;
}

/* ".radz-0123456789abcdef.tmp", as rz_writer names them. */
static bool is_temp(const char *name)
{
    return strlen(name) == 26 && !memcmp(name, ".radz-", 6) && strspn(name + 6, "0123456789abcdef") == 16 &&
           !strcmp(name + 22, ".tmp");
}

/* Whoever still writes it holds its lock. */
static bool remove_unclaimed(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return false;
    bool gone = !flock(fd, LOCK_EX | LOCK_NB) && !unlink(path);
    close(fd);
    return gone;
}

size_t rz_folder_tidy(const rz_host *host, const char *path)
{
    char **names;
    size_t n, n_removed = 0;
    if (rz_folder_names(host, path, ".tmp", &names, &n, NULL)) return 0;
    for (size_t i = 0; i < n; i++) {
        char *file = is_temp(names[i]) ? rz_path_join(host, path, names[i]) : NULL;
        n_removed += file && remove_unclaimed(file);
        rz_free(host, file);
    }
    rz_folder_free(host, names, n);
    return n_removed;
}
