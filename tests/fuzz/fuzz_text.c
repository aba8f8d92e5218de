/* Text through the vocabulary of tests/data/stories260K. SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"
#include "fuzz.h"

#define MODEL "tests/data/stories260K/tokenizer.model"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static rz_tokenizer *tok;
    radz_error err;
    int32_t *ids;
    size_t n_ids;
    rz_str back = {0};
    if (!tok) fuzz_require(!rz_tokenizer_open(NULL, MODEL, &tok, &err), MODEL " (run from the repository's root)");
    radz_status status = rz_tokenizer_encode(tok, (const char *)data, size, &ids, &n_ids, &err);
    fuzz_check(status, &err);
    if (status) return 0;
    fuzz_check(rz_tokenizer_decode(tok, ids, n_ids, &back, &err), &err);
    /* Byte fallback keeps valid text as it is; only bytes that are no UTF-8 come back as others. */
    if (rz_utf8_valid((const char *)data, size) && !memmem(data, size, "\xe2\x96\x81", 3))
        fuzz_require(back.len == size && !memcmp(back.len ? back.data : "", data, size),
                     "text survives the round trip");
    rz_str_free(&back);
    rz_free(NULL, ids);
    return 0;
}
