/* safetensors: header, spans, every element. SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"
#include "fuzz.h"

static void read_tensor(const rz_st *st, size_t i)
{
    const rz_st_tensor *t = rz_st_at(st, i);
    radz_error err;
    fuzz_require(rz_st_find(st, t->name) == t, "a tensor is found by its name");
    volatile uint8_t sum = 0;
    for (size_t k = 0; k < t->n_bytes; k++) sum = (uint8_t)(sum + t->data[k]);
    float *out = malloc(t->n_elements * sizeof *out + 1);
    if (out) fuzz_check(rz_st_to_f32(t, out, &err), &err);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rz_st *st;
    radz_error err;
    radz_status status = rz_st_parse(NULL, data, size, "file", &st, &err);
    fuzz_check(status, &err);
    if (status) {
        fuzz_require(!st, "no handle after a failure");
        return 0;
    }
    for (size_t i = 0; i < rz_st_count(st); i++) read_tensor(st, i);
    for (size_t i = 0; i < rz_st_metadata_count(st); i++) {
        const char *value, *key = rz_st_metadata_at(st, i, &value);
        fuzz_require(rz_st_metadata(st, key) == value, "metadata is found by its key");
    }
    rz_st_close(st);
    return 0;
}
