/* fixture.h - what many tests need: a temporary folder, a tiny random model on disk, films.
 * Failures end the test through cmocka. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_FIXTURE_H
#define RZ_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A new empty folder; the caller frees the path and calls fixture_remove. */
char *fixture_temp_dir(void);
void fixture_remove(const char *path); /* file or folder with all that is in it */
/* dir/name in static storage; the last eight stay valid. */
const char *fixture_path(const char *dir, const char *name);
void fixture_write(const char *path, const void *bytes, size_t n);
void fixture_write_text(const char *path, const char *text);
size_t fixture_count_files(const char *dir); /* whose names do not begin with a dot */
/* malloc'ed bytes, NUL-terminated. */
char *fixture_read(const char *path, size_t *n);

/* config.json, preprocessor_config.json, radz.json and tokenizer.model of a tiny LLaVA-RadZ into an existing folder:
 * 16 x 16 pixels, 4 image rows, 2 + 2 special tokens, K = 8. */
void fixture_model_files(const char *dir);
/* The same with random weights from seed. */
void fixture_model(const char *dir, uint64_t seed);
/* The same, so wide between that matrices are cut into pieces when they are read as they are needed. */
void fixture_wide_model(const char *dir, uint64_t seed);
/* Random weights for the configuration that lies in dir. */
void fixture_weights(const char *dir, uint64_t seed);

/* A PNG: channels 1 or 3, 8 bits, seeded smooth noise. */
void fixture_png(const char *path, size_t width, size_t height, int channels, uint64_t seed);
/* Such a PNG in memory, malloc'ed. */
uint8_t *fixture_png_bytes(size_t width, size_t height, int channels, uint64_t seed, size_t *n);

/* Where tests run: RADZ_TEST_DEVICE, else "cpu". */
const char *fixture_device(void);
bool fixture_on_cpu(void);
/* RADZ_TEST_QUICK: leave out what takes longest. */
bool fixture_quick(void);

/* The program build/<flavour>/bin/name that was built beside this test. */
const char *fixture_program(const char *name);

#endif
