/* tokenizer.model: the protobuf, then text through whatever vocabulary it holds. SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"
#include "fuzz.h"

static const char text[] = "No Finding. <s>  the\tthe\n12 <0x0A>\xff\xe2\x96\x81\xf0\x9f\xab\x81\0x";

static void round_trip(const rz_tokenizer *tok, const char *bytes, size_t n)
{
    radz_error err;
    int32_t *ids;
    size_t n_ids;
    rz_str back = {0};
    radz_status status = rz_tokenizer_encode(tok, bytes, n, &ids, &n_ids, &err);
    fuzz_check(status, &err);
    if (status) return;
    for (size_t i = 0; i < n_ids; i++)
        fuzz_require(ids[i] >= 0 && (size_t)ids[i] < rz_tokenizer_size(tok) && rz_tokenizer_piece(tok, ids[i]),
                     "ids are in the vocabulary");
    fuzz_check(rz_tokenizer_decode(tok, ids, n_ids, &back, &err), &err);
    rz_str_free(&back);
    rz_free(NULL, ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rz_tokenizer *tok;
    radz_error err;
    radz_status status = rz_tokenizer_parse(NULL, data, size, "tokenizer.model", &tok, &err);
    fuzz_check(status, &err);
    fuzz_require(!status == !!tok, "a handle or a failure");
    if (status) return 0;
    const size_t n = size < 300 ? size : 300;
    round_trip(tok, text, sizeof text - 1);
    round_trip(tok, (const char *)data + size - n, n);
    rz_tokenizer_close(tok);
    return 0;
}
