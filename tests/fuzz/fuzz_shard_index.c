/* model.safetensors.index.json beside two shards that are as they should be. SPDX-License-Identifier: Apache-2.0 */
#include "fuzz.h"
#include "weights.h"

static void write_shard(const char *file, const char *tensor)
{
    static const float values[4] = {1, 2, 3, 4};
    radz_error err;
    rz_st_out t = {.name = tensor, .dtype = "F32", .n_dims = 2, .dims = {2, 2}, .data = values};
    fuzz_require(!rz_st_write(NULL, fuzz_path(file), &t, 1, NULL, &err), "a shard");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    if (!ready) {
        write_shard("a.safetensors", "model.norm.weight");
        write_shard("b.safetensors", "lm_head.weight");
        ready = true;
    }
    rz_weights *w;
    radz_error err;
    fuzz_write("model.safetensors.index.json", data, size);
    radz_status status = rz_weights_open(NULL, fuzz_dir(), RZ_FILE_READ, &w, &err);
    fuzz_check(status, &err);
    fuzz_require(!status == !!w, "a handle or a failure");
    if (status) return 0;
    rz_sha256 hash;
    rz_sha256_init(&hash);
    rz_weights_hash(w, &hash);
    (void)rz_weights_find(w, "language_model.model.norm.weight");
    const char *left;
    (void)rz_weights_unused(w, &left, 1);
    rz_weights_close(w);
    return 0;
}
