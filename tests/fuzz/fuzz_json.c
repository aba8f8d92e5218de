/* JSON: what we read and refuse is what jansson's own reader does. SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *ours, *theirs;
    radz_error err;
    radz_status status = rz_json_parse((const char *)data, size, "text", &ours, &err);
    fuzz_check(status, &err);
    fuzz_require(!status == !!ours, "a tree or a failure");
    /* NUL bytes, byte-order marks and depth are ours to refuse; jansson takes some of them. */
    bool stricter =
        status == RADZ_E_LIMIT || !size || memchr(data, 0, size) || (size > 2 && !memcmp(data, "\xef\xbb\xbf", 3));
    theirs = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (!ours && !stricter) fuzz_require(!theirs, "both take it or neither does");
    if (ours && theirs) fuzz_require(json_equal(ours, theirs), "both read the same");
    if (ours && !theirs) { /* an integer of more than 64 bits: jansson takes it when it may be real */
        theirs = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, NULL);
        fuzz_require(theirs != NULL, "what we take is JSON");
    }
    json_decref(ours);
    json_decref(theirs);
    return 0;
}
