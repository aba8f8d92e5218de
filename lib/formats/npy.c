/* npy.c - NumPy's file of one array, version 1.0: writing only.
 * SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"

#define MAGIC "\x93NUMPY\x01\x00"
#define ALIGNMENT 64 /* of the data, as NumPy itself writes it */

void rz_npy_header(rz_str *s, size_t rows, size_t cols)
{
    rz_str dict = {.host = s->host};
    rz_str_printf(&dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", rows, cols);
    const size_t fixed = sizeof MAGIC - 1 + 2;
    const size_t total = (fixed + dict.len + 1 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, n = total - fixed;
    while (dict.len + 1 < n && !dict.failed) rz_str_puts(&dict, " ");
    rz_str_puts(&dict, "\n");
    s->failed |= dict.failed;
    rz_str_put(s, MAGIC, sizeof MAGIC - 1);
    rz_str_put(s, (uint8_t[]){(uint8_t)(n & 0xff), (uint8_t)(n >> 8)}, 2);
    if (!dict.failed) rz_str_put(s, dict.data, dict.len);
    rz_str_free(&dict);
}
