/* config.json, preprocessor_config.json and radz.json, one after another with a NUL between them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "fuzz.h"

static const char *const names[] = {"config.json", "preprocessor_config.json", "radz.json"};

/* What the network relies on without asking again. */
static void check(const rz_config *c)
{
    fuzz_require(c->text.hidden && c->text.heads && c->text.kv_heads && c->text.heads % c->text.kv_heads == 0 &&
                     c->text.vocab && c->text.layers && c->text.max_positions && c->text.head_dim <= RZ_MAX_HEAD_DIM,
                 "a text configuration can be computed");
    fuzz_require(rz_config_decoder_blocks(c) <= c->text.layers, "the layer exists");
    if (!c->has_vision) return;
    fuzz_require(c->vision.patch && c->vision.heads && c->vision.hidden % c->vision.heads == 0 &&
                     c->vision.patch <= c->vision.image_size && rz_config_tower_blocks(c) <= c->vision.layers,
                 "a tower can be computed");
    fuzz_require(c->radz.dim > 0, "vectors have a length");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < RZ_COUNT(names); i++) {
        const uint8_t *end = size ? memchr(data, 0, size) : NULL;
        const size_t n = end ? (size_t)(end - data) : size;
        if (n)
            fuzz_write(names[i], data, n);
        else
            unlink(fuzz_path(names[i]));
        data += n + !!end, size -= n + !!end;
    }
    rz_config cfg;
    radz_error err;
    radz_status status = rz_config_load(NULL, fuzz_dir(), &cfg, &err);
    fuzz_check(status, &err);
    if (status) return 0;
    check(&cfg);
    rz_config_free(&cfg);
    return 0;
}
