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
/* Every class, the writer, the base hash; not the calibration. */
radz_status rz_bank_copy(const rz_bank *bank, rz_bank **out, radz_error *err) RZ_CHECK;
/* From a bank's own file; fills base_hash too. */
radz_status rz_bank_read_calibration(rz_bank *b, const char *text, const char *what, radz_error *err) RZ_CHECK;
/* Room for n classes; model, layer, size of vectors and writer are those of `like`, calibrated it is not. */
radz_status rz_bank_new_like(const rz_bank *like, size_t n, rz_bank **out, radz_error *err) RZ_CHECK;
/* Labels that a class of `bank` has. n: none. */
size_t rz_bank_find_label(const rz_bank *bank, const char *label);
/* Classes first.. of the bank from entries: texts, then their anchors. RZ_ITEM_TEXT: of the labels' plain sentences. */
radz_status rz_bank_fill(rz_bank *b, size_t first, const rz_net *net, const radz_bank_entry *entries, rz_item_kind kind,
                         radz_error *err) RZ_CHECK;
/* The bank's own hash, once every class is set. */
radz_status rz_bank_seal(rz_bank *b, radz_error *err) RZ_CHECK;
/* *out = b, or frees it where status is a failure; status. */
radz_status rz_bank_done(rz_bank *b, radz_status status, rz_bank **out) RZ_CHECK;

#endif
