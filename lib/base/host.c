/* host.c - memory and log hooks of the embedding program. SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

void *rz_malloc(const rz_host *host, size_t n_bytes)
{
    size_t n = n_bytes ? n_bytes : 1;
    if (n > PTRDIFF_MAX) return NULL;
    return host && host->malloc_fn ? host->malloc_fn(n, host->user) : malloc(n);
}

void rz_want_huge_pages(void *p, size_t n_bytes)
{
#ifdef MADV_HUGEPAGE
    const uintptr_t page = 2 << 20, first = ((uintptr_t)p + page - 1) & ~(page - 1);
    const uintptr_t last = ((uintptr_t)p + n_bytes) & ~(page - 1);
    if (n_bytes >= 4 * page && first < last) (void)madvise((void *)first, last - first, MADV_HUGEPAGE);
#else
    (void)p, (void)n_bytes;
#endif
}

void *rz_calloc(const rz_host *host, size_t n, size_t item_size)
{
    size_t bytes;
    if (!rz_size_mul(n, item_size, &bytes) || bytes > PTRDIFF_MAX) return NULL;
    /* The system's calloc gives zero pages without touching them. */
    if (!host || !host->malloc_fn) return calloc(bytes ? bytes : 1, 1);
    void *p = rz_malloc(host, bytes);
    if (p) memset(p, 0, bytes);
    return p;
}

void *rz_realloc(const rz_host *host, void *p, size_t n, size_t item_size)
{
    size_t bytes;
    if (!rz_size_mul(n, item_size, &bytes) || bytes > PTRDIFF_MAX) return NULL;
    if (!bytes) bytes = 1;
    return host && host->realloc_fn ? host->realloc_fn(p, bytes, host->user) : realloc(p, bytes);
}

void rz_free(const rz_host *host, void *p)
{
    if (!p) return;
    if (host && host->free_fn)
        host->free_fn(p, host->user);
    else
        free(p);
}

char *rz_strdup(const rz_host *host, const char *s)
{
    return rz_strndup(host, s, strlen(s));
}

char *rz_strndup(const rz_host *host, const char *s, size_t n)
{
    const char *end = memchr(s, 0, n);
    size_t len = end ? (size_t)(end - s) : n;
    char *copy = len < SIZE_MAX ? rz_malloc(host, len + 1) : NULL;
    if (!copy) return NULL;
    memcpy(copy, s, len);
    copy[len] = 0;
    return copy;
}

void rz_log(const rz_host *host, radz_log_level level, const char *fmt, ...)
{
    if (!host || !host->log_fn) return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (n < 0) return;
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20) *c = '?';
    host->log_fn(level, line, host->user);
}
