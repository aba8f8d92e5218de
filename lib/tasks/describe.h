/* describe.h - DKAM: the model describes diseases in its own words (K_prompt, Eq. 10).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_DESCRIBE_H
#define RZ_DESCRIBE_H

#include "bank.h"

radz_describe_options rz_describe_defaults(void);
/* RADZ_E_MISMATCH: the model was never trained to write, or predicts the words of a plain sentence no better than a
 * die. */
radz_status rz_check_writing(const rz_net *net, radz_error *err) RZ_CHECK;
/* rz_bank_build, where the model writes the descriptions that are missing. */
radz_status rz_bank_describe(const rz_net *net, const radz_bank_entry *entries, size_t n,
                             const radz_describe_options *options, rz_bank **bank, radz_error *err) RZ_CHECK;
/* A description on one line that ends with a sentence, in place. */
void rz_description_tidy(rz_str *text);
/* What is wrong with a text that should describe something; NULL: nothing is. */
const char *rz_description_fault(const char *text);

#endif
