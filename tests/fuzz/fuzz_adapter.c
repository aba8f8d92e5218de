/* adapter_config.json, merged into the tiny model of tests/parity/variants; run from the repository's root.
 * SPDX-License-Identifier: Apache-2.0 */
#include "fuzz.h"
#include "model.h"

#define BASE "tests/parity/variants/lora_base"
#define WEIGHTS "adapter_model.safetensors"

static rz_device *dev;

/* The tensors of the adapter that has the most of what a configuration can speak of. */
static void copy_weights(void)
{
    static uint8_t bytes[1 << 16];
    FILE *f = fopen(BASE "/everything/" WEIGHTS, "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    fuzz_require(n > 0 && !fclose(f), "the repository's root to run from");
    fuzz_write(WEIGHTS, bytes, n);
}

static void prepare(void)
{
    rz_device_options o = {"cpu", "auto", "own", 1};
    radz_error err;
    if (dev) return;
    fuzz_require(rz_device_open(NULL, &o, &dev, &err) == RADZ_OK, "a device");
    copy_weights();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rz_source source = {.dir = BASE, .adapter_dir = fuzz_dir()};
    rz_model *model;
    radz_error err;
    prepare();
    fuzz_write("adapter_config.json", data, size);
    radz_status status = rz_model_load_from(NULL, dev, &source, RZ_MODEL_READ, 0, &model, &err);
    fuzz_check(status, &err);
    fuzz_require(!status == !!model, "a model or a failure");
    rz_model_unload(model);
    return 0;
}
