/* reader.h - parts of a large file, read past the page cache where the file system can. SPDX-License-Identifier:
 * Apache-2.0
 */
#ifndef RZ_READER_H
#define RZ_READER_H

#include "base.h"

#define RZ_READER_ALIGN ((size_t)4096)

typedef struct rz_reader rz_reader; /* may be shared by threads */
radz_status rz_reader_open(const rz_host *host, const char *path, rz_reader **r, radz_error *err) RZ_CHECK;
void rz_reader_close(rz_reader *r); /* NULL is fine */
/* Room that rz_reader_get wants for n bytes from any place. */
static inline size_t rz_reader_room(size_t n)
{
    return (n + 2 * RZ_READER_ALIGN - 1) / RZ_READER_ALIGN * RZ_READER_ALIGN;
}
/* Bytes [at, at + n) of the file: *where, in room, which is aligned. stop (may be NULL): asked now and then; true ends
 * it with RADZ_E_CANCELLED. RADZ_E_IO where the file has changed since it was opened. */
radz_status rz_reader_get(rz_reader *r, uint64_t at, size_t n, uint8_t *room, const uint8_t **where,
                          bool (*stop)(void *user), void *user, radz_error *err) RZ_CHECK;
/* The same of a few bytes, through the page cache. */
radz_status rz_reader_small(rz_reader *r, uint64_t at, size_t n, void *to, radz_error *err) RZ_CHECK;

#endif
