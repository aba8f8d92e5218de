/* A saved anchor bank whose check sum is right, as a hostile writer would make it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bank.h"
#include "fuzz.h"
#include "tokenizer.h"

static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";

/* Fills in the check sum of the first entry that has the shape of one. */
static void mend(uint8_t *bytes, size_t n)
{
    static const char key[] = "\"sha256\":\"";
    uint8_t *at = memmem(bytes, n, key, sizeof key - 1);
    if (!at || (size_t)(bytes + n - at) < sizeof key - 1 + 65) return;
    at += sizeof key - 1;
    char digits[65];
    rz_sha256 h;
    rz_sha256_init(&h);
    memcpy(at, zeros, 64);
    rz_sha256_put(&h, bytes, n);
    rz_sha256_hex(&h, digits);
    memcpy(at, digits, 64);
}

static void use(const rz_bank *b)
{
    for (size_t i = 0; i < b->n; i++) {
        fuzz_require(b->labels[i] && b->descriptions[i], "a class has its texts");
        for (size_t k = 0; k < b->dim; k++)
            fuzz_require(fabsf(b->anchors[i * b->dim + k]) <= 1.001f, "an anchor is a unit vector");
    }
    fuzz_require(b->reference <= b->n && strlen(b->hash) == 64, "a bank is whole");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Just enough of a model for a bank to belong to it. */
    static rz_param special;
    static rz_tokenizer tokenizer; /* its hash is all that is looked at */
    static rz_model model = {.special = &special, .tok = &tokenizer};
    model.cfg.has_vision = true;
    model.cfg.radz.dim = 8;
    memset(model.hash, 'a', 64);
    rz_bank *bank;
    radz_error err;
    uint8_t *copy = malloc(size + 1);
    memcpy(copy, data, size);
    mend(copy, size);
    fuzz_write("bank", copy, size);
    free(copy);
    radz_status status = rz_bank_open(&model, fuzz_path("bank"), &bank, &err);
    fuzz_check(status, &err);
    fuzz_require(!status == !!bank, "a handle or a failure");
    if (bank) use(bank);
    rz_bank_free(bank);
    return 0;
}
