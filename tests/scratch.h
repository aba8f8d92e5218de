/* scratch.h - one temporary model directory, made of changed copies. SPDX-License-Identifier: Apache-2.0 */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <stddef.h>

/* A new empty directory; the path is valid until the next call. */
const char *scratch_make(void);
/* Its path, as scratch_make returned it. */
const char *scratch_dir(void);
/* Removes the directory and the files in it. */
void scratch_remove(void);
/* Writes a file. */
void scratch_write(const char *name, const void *bytes, size_t n);
/* Copies from_dir/name, with the first `from` replaced by `to` where given; no such text is a failed test. */
void scratch_copy(const char *from_dir, const char *name, const char *from, const char *to);

/* A CPU device with one thread: group setup and teardown of tests that load models of such a directory. */
extern struct rz_device *scratch_device;
int scratch_open_device(void **state);
int scratch_close_device(void **state);

#endif
