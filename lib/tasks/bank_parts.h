/* bank_parts.h - what the files of the anchor bank share: bank.c, bank_list.c, bank_file.c.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_BANK_PARTS_H
#define RZ_BANK_PARTS_H

#include "bank.h"

/* strcmp that does not tell a from A; locale-free. */
int rz_label_compare(const char *a, const char *b);
/* Labels and descriptions that a bank may have; faults are `code`, said of `what`. */
radz_status rz_bank_check(const rz_host *host, const radz_bank_entry *entries, size_t n, const char *what,
                          radz_status code, radz_error *err) RZ_CHECK;

/* An empty bank with room for n classes of this model. */
radz_status rz_bank_new(const rz_model *m, size_t n, rz_bank **out, radz_error *err) RZ_CHECK;
/* description: from rz_malloc, taken whatever happens; NULL: memory ran out. */
radz_status rz_bank_set_class(rz_bank *b, size_t i, const char *label, char *description, radz_error *err) RZ_CHECK;
/* The bank's own hash, once every class is set. */
radz_status rz_bank_seal(rz_bank *b, radz_error *err) RZ_CHECK;
/* *out = b, or frees it where status is a failure; status. */
radz_status rz_bank_done(rz_bank *b, radz_status status, rz_bank **out) RZ_CHECK;

#endif
