/* unicode.h - what tokenizers must know of Unicode: kinds of characters, NFC, damaged UTF-8.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_UNICODE_H
#define RZ_UNICODE_H

#include "base.h"

#define RZ_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* The kinds that split patterns tell apart: \p{L}, \p{N}, \s, the rest. */
typedef enum rz_char_kind { RZ_CHAR_OTHER, RZ_CHAR_LETTER, RZ_CHAR_NUMBER, RZ_CHAR_SPACE } rz_char_kind;
rz_char_kind rz_char_kind_of(uint32_t c);
bool rz_char_is_word(uint32_t c);    /* \w */
bool rz_char_is_numeric(uint32_t c); /* \p{N} of a newer Unicode, as Rust's char::is_numeric */

/* Appends text with each longest damaged sequence as one U+FFFD, as Python's and Rust's lossy decoders. */
void rz_utf8_put_lossy(rz_str *s, const char *text, size_t n);
void rz_utf8_put_char(rz_str *s, uint32_t c);

/* Appends the NFC of valid UTF-8. Linear time. */
radz_status rz_nfc_put(rz_str *s, const char *text, size_t n, radz_error *err) RZ_CHECK;

#endif
