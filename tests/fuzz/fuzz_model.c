/* config.json, a NUL, and the header of model.safetensors; the data are zeros. Sizes that the
 * configuration asks for and the file does not have must be refused before memory is taken for them. What opens is
 * opened as other numbers and streamed too. SPDX-License-Identifier: Apache-2.0 */
#include <sys/stat.h>

#include "fuzz.h"
#include "model.h"

#define MAX_DATA ((uint64_t)1 << 20)

static rz_device *dev;

static void prepare(void)
{
    rz_device_options o = {"cpu", "auto", "own", 1};
    radz_error err;
    if (dev) return;
    fuzz_require(rz_device_open(NULL, &o, &dev, &err) == RADZ_OK, "a device");
}

/* Where the data of the last tensor end, so that most headers fit their file. */
static uint64_t data_bytes(const char *header)
{
    static const char key[] = "\"data_offsets\":[";
    uint64_t most = 0;
    for (const char *at = strstr(header, key); at; at = strstr(at + 1, key)) {
        const char *comma = at + strlen(key);
        comma += strspn(comma, "0123456789");
        uint64_t end = *comma == ',' ? strtoull(comma + 1, NULL, 10) : 0;
        if (end > most && end <= MAX_DATA) most = end;
    }
    return most;
}

static void write_weights(const uint8_t *header, size_t n)
{
    static uint8_t file[(1 << 16) + 1];
    if (n > sizeof file - 9) n = sizeof file - 9;
    for (size_t i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)n >> 8 * i);
    if (n) memcpy(file + 8, header, n);
    file[8 + n] = 0;
    fuzz_write("model.safetensors", file, 8 + n);
    const uint64_t size = 8 + n + data_bytes((const char *)file + 8);
    fuzz_require(!truncate(fuzz_path("model.safetensors"), (off_t)size), "a temporary file");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    const size_t n = end ? (size_t)(end - data) : size;
    rz_model *model;
    radz_error err;
    prepare();
    const rz_source others[] = {{.dir = fuzz_dir(), .precision = {RZ_WEIGHTS_F32, 128, ""}},
                                {.dir = fuzz_dir(), .precision = {RZ_WEIGHTS_INT4, 32, ""}},
                                {.dir = fuzz_dir(), .memory_bytes = (uint64_t)64 << 20}};
    fuzz_write("config.json", data, n);
    write_weights(end ? end + 1 : NULL, end ? size - n - 1 : 0);
    radz_status status = rz_model_load(NULL, dev, fuzz_dir(), RZ_MODEL_READ, 0, &model, &err);
    fuzz_check(status, &err);
    fuzz_require(!status == !!model, "a model or a failure");
    rz_model_unload(model);
    for (size_t i = 0; !status && i < RZ_COUNT(others); i++) {
        const radz_status as_other = rz_model_load_from(NULL, dev, &others[i], RZ_MODEL_INFER, 0, &model, &err);
        fuzz_check(as_other, &err);
        fuzz_require(!as_other == !!model, "a model or a failure");
        rz_model_unload(model);
    }
    return 0;
}
