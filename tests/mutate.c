/* mutate.c - damaged copies of a valid file. SPDX-License-Identifier: Apache-2.0 */
#include "mutate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static size_t try_copy(const uint8_t *bytes, size_t n, size_t at, uint8_t value, mutate_reader reader)
{
    radz_error err = {RADZ_OK, ""};
    uint8_t *copy = malloc(n + !n);
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    if (at < n) copy[at] = value;
    radz_status status = reader(copy, n, &err);
    free(copy);
    if (status == RADZ_OK) return 0;
    if (status != RADZ_E_FORMAT && status != RADZ_E_LIMIT && status != RADZ_E_UNSUPPORTED)
        fail_msg("%zu bytes, %02x at %zu: status %d: %s", n, value, at, (int)status, err.message);
    assert_int_equal(err.code, status);
    assert_true(err.message[0] && !strchr(err.message, '\n'));
    return 1;
}

size_t mutate_all(const uint8_t *bytes, size_t n, size_t most, mutate_reader reader)
{
    size_t refused = 0;
    for (size_t i = 0; i < n && i < most; i++) {
        const uint8_t values[] = {0, 0xFF, bytes[i] ^ 1, bytes[i] ^ 0x80, (uint8_t)(bytes[i] + 1), '"', ' '};
        refused += try_copy(bytes, i, i, 0, reader);
        for (size_t k = 0; k < sizeof values; k++)
            if (values[k] != bytes[i]) refused += try_copy(bytes, n, i, values[k], reader);
    }
    return refused;
}
