/* Text tables: CSV, and the lines of an anchor file. SPDX-License-Identifier: Apache-2.0 */
#include "bank.h"
#include "fuzz.h"

static void csv(const char *text, size_t n)
{
    rz_csv *csv;
    radz_error err;
    radz_status status = rz_csv_parse(NULL, text, n, "table", &csv, &err);
    fuzz_check(status, &err);
    fuzz_require(!status == !!csv, "a handle or a failure");
    if (status) return;
    size_t sum = 0;
    int column = rz_csv_column(csv, "path");
    for (size_t i = 0; i < rz_csv_rows(csv); i++) {
        sum += strlen(rz_csv_get(csv, i, 0)) + strlen(rz_csv_get(csv, i, column));
        fuzz_require(rz_csv_line(csv, i) > 1 && (!i || rz_csv_line(csv, i) > rz_csv_line(csv, i - 1)), "lines go up");
    }
    fuzz_require(sum <= 2 * n, "fields are no longer than the text");
    rz_csv_close(csv);
}

static void anchors(const char *text, size_t n)
{
    rz_bank_list list;
    radz_error err;
    radz_status status = rz_bank_list_parse(NULL, text, n, "anchors", &list, &err);
    fuzz_check(status, &err);
    if (status) return;
    for (size_t i = 0; i < list.n; i++)
        fuzz_require(list.entries[i].label[0] && list.entries[i].description[0], "a line has both parts");
    rz_bank_list_free(NULL, &list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    csv((const char *)data, size);
    anchors((const char *)data, size);
    return 0;
}
