/* adapter_config.json, with the tensors of a real adapter, looked up for and merged into the parameters of the tiny
 * model of tests/parity/variants, which is loaded once; run from the repository's root. SPDX-License-Identifier:
 * Apache-2.0 */
#include "fuzz.h"
#include "lora.h"

#define BASE "tests/parity/variants/lora_base"
#define WEIGHTS "adapter_model.safetensors"

static rz_device *dev;
static rz_model *model;

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
    fuzz_require(rz_model_load(NULL, dev, BASE, RZ_MODEL_READ, 0, &model, &err) == RADZ_OK, "a model");
    copy_weights();
}

/* What loading a model does with each parameter. */
static radz_status merge_all(rz_lora *lora, radz_error *err)
{
    radz_status status = RADZ_OK;
    for (size_t i = 0; i < model->n_params && !status; i++) {
        const rz_param *p = &model->params[i];
        rz_lora_replacement(lora, p->name);
        if (!rz_lora_changes(lora, p->name)) continue;
        float *w = calloc(p->n, sizeof *w); /* exact sizes: ASan sees one number too far */
        status = rz_lora_merge(lora, rz_device_pool(dev), p, p->name, w, err);
        if (!status) status = rz_lora_merge_tied(lora, p, p->name, w, err);
        free(w);
    }
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rz_lora *lora;
    radz_error err;
    prepare();
    fuzz_write("adapter_config.json", data, size);
    radz_status status = rz_lora_open(NULL, fuzz_dir(), RZ_FILE_READ, &lora, &err);
    fuzz_require(!status == !!lora, "an adapter or a failure");
    if (!status) status = merge_all(lora, &err);
    fuzz_check(status, &err);
    size_t n = 0;
    while (!status && rz_lora_unused(lora, &n)) continue;
    rz_lora_close(lora);
    return 0;
}
