/* pretokenize.h - the regular expressions that byte-level tokenizers split text with, written out by hand.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_PRETOKENIZE_H
#define RZ_PRETOKENIZE_H

#include "base.h"

typedef struct rz_split_rule rz_split_rule;
extern const rz_split_rule *const rz_split_gpt2; /* of ByteLevel's use_regex */
/* The rule of this very text, NULL: we know none. */
const rz_split_rule *rz_split_find(const char *regex);
/* Length of the first match in valid UTF-8; the known rules match everywhere, so it is not 0 unless n is. */
size_t rz_split_next(const rz_split_rule *rule, const char *s, size_t n);

#endif
