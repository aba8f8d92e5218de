/* Regular expressions of adapters: a pattern, a NUL, the text. SPDX-License-Identifier: Apache-2.0 */
#include "fuzz.h"
#include "regex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    const size_t n = end ? (size_t)(end - data) : size, n_text = end ? size - n - 1 : 0;
    char *pattern = malloc(n + 1), *text = malloc(n_text + !n_text); /* exact sizes: ASan sees one byte too far */
    memcpy(pattern, data, n);
    pattern[n] = 0;
    if (n_text) memcpy(text, end + 1, n_text);
    radz_error err;
    bool whole, part;
    uint64_t steps = UINT64_MAX;
    if (n_text > 300) text = realloc(text, 300);
    const size_t used = n_text > 300 ? 300 : n_text;
    radz_status status = rz_regex_match(NULL, pattern, text, used, false, &steps, &whole, &err);
    fuzz_check(status, &err);
    fuzz_require(rz_regex_match(NULL, pattern, text, used, true, &steps, &part, &err) == status,
                 "one answer for one pattern");
    fuzz_require(!whole || part, "the whole is a part");
    free(pattern);
    free(text);
    return 0;
}
