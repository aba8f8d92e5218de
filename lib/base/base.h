/* base.h - what every folder of libradz stands on: errors, memory, checked sizes, text,
 * files, hashes, random numbers. The only place with operating-system calls.
 * Threads are in pool.h. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_BASE_H
#define RZ_BASE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "radz.h"

#define RZ_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define RZ_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define RZ_CHECK __attribute__((warn_unused_result))
/* Returns from the enclosing function when a status is not RADZ_OK. */
#define RZ_TRY(call)                                                                                                   \
    do {                                                                                                               \
        radz_status rz_try_ = (call);                                                                                  \
        if (rz_try_ != RADZ_OK) return rz_try_;                                                                        \
    } while (0)

/* ---- Errors (error.c) --------------------------------------------------------- */

/* Fills *err (may be NULL) and returns code: `return rz_fail(err, RADZ_E_FORMAT, "%s: ...", path);`
 * One line: control characters become '?', a message that is too long ends in "...". Locale-free. */
radz_status rz_fail(radz_error *err, radz_status code, const char *fmt, ...) RZ_PRINTF(3, 4);
/* As rz_fail for a failed system call: "path: cannot open: No such file or directory". */
radz_status rz_fail_errno(radz_error *err, int errnum, const char *what, const char *path);
/* Puts "prefix: " before the message that is there, returns err->code (or code when err is NULL). */
radz_status rz_fail_prefix(radz_error *err, radz_status code, const char *fmt, ...) RZ_PRINTF(3, 4);

/* ---- Host: memory and log hooks (host.c) --------------------------------------- */

/* What the embedding program lent us. NULL means malloc and silence. Sizes of 0 are
 * allowed and give a pointer that can be freed. */
typedef struct rz_host {
    void *(*malloc_fn)(size_t, void *);
    void *(*realloc_fn)(void *, size_t, void *);
    void (*free_fn)(void *, void *);
    void (*log_fn)(radz_log_level, const char *, void *);
    void *user;
} rz_host;

void *rz_malloc(const rz_host *host, size_t n_bytes); /* NULL on failure, never zeroed */
/* A hint: large memory (many MB) that will be used all over is best mapped in large pages. */
void rz_want_huge_pages(void *p, size_t n_bytes);
void *rz_calloc(const rz_host *host, size_t n, size_t item_size); /* zeroed; NULL on overflow too */
void *rz_realloc(const rz_host *host, void *p, size_t n, size_t item_size);
void rz_free(const rz_host *host, void *p);
char *rz_strdup(const rz_host *host, const char *s);
char *rz_strndup(const rz_host *host, const char *s, size_t n);
void rz_log(const rz_host *host, radz_log_level level, const char *fmt, ...) RZ_PRINTF(3, 4);
#define RZ_NO_MEMORY(err, what) rz_fail((err), RADZ_E_MEMORY, "out of memory: %s", (what))

/* ---- Checked sizes -------------------------------------------------------------- */

static inline bool rz_size_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool rz_size_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* ---- Text (text.c): no locale anywhere ------------------------------------------- */

/* A growing byte string, always NUL-terminated. After a failed allocation `failed` is set
 * and later appends do nothing: check once at the end. Zero-initialise with host set. */
typedef struct rz_str {
    const rz_host *host;
    char *data;
    size_t len, cap;
    bool failed;
} rz_str;
void rz_str_put(rz_str *s, const void *bytes, size_t n);
void rz_str_puts(rz_str *s, const char *text);
void rz_str_printf(rz_str *s, const char *fmt, ...) RZ_PRINTF(2, 3); /* %s %d %zu %lld %02x and the like, no %f */
void rz_str_put_double(rz_str *s, double v); /* shortest form that reads back to the same bits; NaN/inf: null */
void rz_str_put_json(rz_str *s, const char *text, size_t n); /* quoted and escaped; invalid UTF-8 bytes as U+FFFD */
void rz_str_put_text(rz_str *s, const char *before, const char *text); /* before, then text as JSON; NULL: null */
void rz_str_put_number(rz_str *s, const char *before, double v);       /* before, then v */
void rz_str_free(rz_str *s);

/* Strict parsers of a whole string: optional sign, digits, '.', exponent; no spaces, no hex, no inf/nan.
 * False when the text is not a number or out of range. */
bool rz_parse_double(const char *s, size_t n, double *out);
bool rz_parse_int64(const char *s, size_t n, int64_t *out);
/* Length in bytes (1..4) of the UTF-8 sequence at s and its code point, 0 when invalid. */
size_t rz_utf8_next(const char *s, size_t n, uint32_t *code_point);
bool rz_utf8_valid(const char *s, size_t n);

/* ---- Files (file.c) --------------------------------------------------------------- */

/* A file's bytes, mapped or read. Only regular files: a FIFO, device or directory is refused
 * (path "-" is not special here). */
typedef struct rz_file {
    const uint8_t *data;
    size_t size;
    void *priv; /* how it was obtained */
    const rz_host *host;
} rz_file;
typedef enum rz_file_mode { RZ_FILE_READ, RZ_FILE_MAP } rz_file_mode;
radz_status rz_file_open(const rz_host *host, const char *path, rz_file_mode mode, size_t max_bytes, rz_file *out,
                         radz_error *err) RZ_CHECK;
/* Of a mapped file: bytes that will be read soon; that have been read and need not stay in memory. Else nothing. */
void rz_file_soon(const rz_file *f, size_t at, size_t n);
void rz_file_forget(const rz_file *f, size_t at, size_t n);
void rz_file_close(rz_file *f); /* zeroes the struct; safe on a zeroed one */
bool rz_path_exists(const char *path);
bool rz_path_is_folder(const char *path);
bool rz_path_same(const char *a, const char *b); /* both are there and one and the same */
uint64_t rz_path_room(const char *path); /* bytes that may still be written in this folder; UINT64_MAX: not known */
radz_status rz_mkdir_p(const char *path, radz_error *err) RZ_CHECK; /* existing directory is fine */
/* True when path, all links followed, lies in dir or in its ../../blobs: that is where the Hugging Face cache keeps the
 * files that its snapshot folders link to. False too where path leads nowhere. */
bool rz_path_stays(const char *dir, const char *path);
/* Names in a folder that end so, sorted (folder.c). */
radz_status rz_folder_names(const rz_host *host, const char *path, const char *ending, char ***names, size_t *n,
                            radz_error *err) RZ_CHECK;
void rz_folder_free(const rz_host *host, char **names, size_t n);
/* Removes the temporary files (rz_writer) in a folder whose writer was killed; how many. Those that somebody still
 * writes, and all that cannot be removed, stay. */
size_t rz_folder_tidy(const rz_host *host, const char *path);
/* dir + "/" + name (or name alone when it is absolute or dir is empty). NULL: no memory. */
char *rz_path_join(const rz_host *host, const char *dir, const char *name);

/* Atomic writing: bytes go to a temporary file in the same folder; commit = fsync, rename, fsync of the
 * folder. Abort (or a failed commit) removes the temporary file and leaves the old one as it was. */
typedef struct rz_writer rz_writer;
radz_status rz_writer_open(const rz_host *host, const char *path, rz_writer **w, radz_error *err) RZ_CHECK;
radz_status rz_writer_put(rz_writer *w, const void *bytes, size_t n, radz_error *err) RZ_CHECK;
uint64_t rz_writer_bytes(const rz_writer *w);                         /* put so far */
radz_status rz_writer_commit(rz_writer *w, radz_error *err) RZ_CHECK; /* frees w, also on failure */
void rz_writer_abort(rz_writer *w);                                   /* NULL is fine */
radz_status rz_file_remove(const rz_host *host, const char *path, radz_error *err) RZ_CHECK; /* none there is fine */
/* The three in one. */
radz_status rz_write_file(const rz_host *host, const char *path, const void *bytes, size_t n, radz_error *err) RZ_CHECK;
double rz_seconds(void); /* monotonic clock */
/* Now as YYYYMMDDhhmmss, in local time or so many minutes east of Greenwich. */
void rz_clock_text(const int *minutes_east, char out[15]);
long rz_process_id(void); /* changes in a forked child */

/* ---- Hashes (hash.c) ---------------------------------------------------------------- */

typedef struct rz_sha256 {
    uint32_t h[8];
    uint64_t n_bytes;
    uint8_t block[64];
} rz_sha256;
void rz_sha256_init(rz_sha256 *s);
void rz_sha256_put(rz_sha256 *s, const void *bytes, size_t n);
void rz_sha256_hex(rz_sha256 *s, char out[65]); /* finishes */

/* ---- Random numbers (rng.c): xoshiro256**, same numbers on every machine -------------- */

typedef struct rz_rng {
    uint64_t s[4];
} rz_rng;
void rz_rng_seed(rz_rng *r, uint64_t seed, uint64_t stream); /* splitmix64 of both */
uint64_t rz_rng_u64(rz_rng *r);
uint64_t rz_rng_below(rz_rng *r, uint64_t n); /* unbiased; n > 0 */
double rz_rng_uniform(rz_rng *r);             /* [0, 1), 53 bits */
double rz_rng_normal(rz_rng *r);              /* mean 0, variance 1; uses two draws, keeps none */

#endif
