/* fuzz.h - what the fuzz targets share. SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What every refusal promises: its code in the error, one line, not empty. Anything else stops the fuzzer. */
static inline void fuzz_check(radz_status status, const radz_error *err)
{
    if (status == RADZ_OK) return;
    if (err->code != status || !err->message[0] || strchr(err->message, '\n') || status == RADZ_E_INTERNAL) {
        fprintf(stderr, "status %d, code %d: '%s'\n", (int)status, (int)err->code, err->message);
        abort();
    }
}

static inline void fuzz_require(bool holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

/* A folder for targets that read files: RADZ_FUZZ_DIR, or a fresh one that stays. */
static inline const char *fuzz_dir(void)
{
    static char made[] = "/tmp/radz-fuzz-XXXXXX";
    static const char *dir;
    if (!dir) dir = getenv("RADZ_FUZZ_DIR");
    if (!dir) dir = mkdtemp(made);
    fuzz_require(dir != NULL, "a temporary folder");
    return dir;
}

static inline const char *fuzz_path(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
    return path;
}

static inline void fuzz_write(const char *name, const void *bytes, size_t n)
{
    FILE *f = fopen(fuzz_path(name), "wb");
    fuzz_require(f && fwrite(bytes, 1, n, f) == n && !fclose(f), "a temporary file");
}

#endif
