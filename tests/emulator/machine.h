/* machine.h - the emulated GPU's memory and streams, which libcuda and libcublas share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_MACHINE_H
#define RZ_MACHINE_H

#include <stddef.h>
#include <stdint.h>

#include <functional>

/* Results of the driver. */
enum {
    EMULATED_OK = 0,
    EMULATED_INVALID_VALUE = 1,
    EMULATED_OUT_OF_MEMORY = 2,
    EMULATED_NOT_INITIALIZED = 3,
    EMULATED_NO_DEVICE = 100,
    EMULATED_INVALID_DEVICE = 101,
    EMULATED_INVALID_IMAGE = 200,
    EMULATED_INVALID_CONTEXT = 201,
    EMULATED_NO_BINARY = 209,
    EMULATED_NOT_FOUND = 500,
    EMULATED_ILLEGAL_ADDRESS = 700
};

#define EMULATOR_EXPORT __attribute__((visibility("default")))

/* ---- Memory (memory.cpp): addresses that nobody can read outside of emulated work ------------- */

/* n bytes of 0xff, which is NaN; after their last 256 comes memory that never can be touched. Addresses are never
 * used again. */
int emulator_alloc(size_t n, void **p);
int emulator_free(void *p);
size_t emulator_allocated(size_t *n_bytes); /* how many; how much */
/* Are these bytes all in one allocation? */
EMULATOR_EXPORT bool emulator_is_device(const void *p, size_t n);
/* Page-locked host memory: copies to and from it happen later. */
int emulator_alloc_host(size_t n, void **p);
int emulator_free_host(void *p);
bool emulator_is_pinned(const void *p, size_t n);
size_t emulator_pinned(void);
/* Between these device memory can be touched. */
void emulator_unlock(void);
void emulator_lock(void);

/* ---- Streams (driver.cpp): work waits until somebody waits for it -------------------------------- */

/* NULL: the default stream. What fails ends the device, as an illegal address does. */
EMULATOR_EXPORT int emulator_enqueue(void *stream, std::function<int()> work);
EMULATOR_EXPORT bool emulator_is_stream(const void *stream);
/* EMULATOR_FAIL=name:n[:result]: is this the n-th call of `name`? Then result, else 0. */
EMULATOR_EXPORT int emulator_injected(const char *name, int result);
/* One line to standard error. */
EMULATOR_EXPORT void emulator_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
