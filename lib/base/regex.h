/* regex.h - regular expressions as adapter configurations use them. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_REGEX_H
#define RZ_REGEX_H

#include "base.h"

/* *matches: text[0..n) as a whole fits the pattern (Python's re.fullmatch); with any_part also the text after any '.'.
 * Literals, . [] \d \s \w \b, groups, |, repetition, ^ and $; look-around, back-references and flags are
 * RADZ_E_UNSUPPORTED. Time is linear in the text and in the pattern; *steps is what the caller's matches may still cost
 * together, each some hundreds and one per state and byte; RADZ_E_LIMIT when they are spent. */
radz_status rz_regex_match(const rz_host *host, const char *pattern, const char *text, size_t n, bool any_part,
                           uint64_t *steps, bool *matches, radz_error *err) RZ_CHECK;

#endif
