/* golden_tokens.h - the files of tests/data/make_tokenizer_golden.py. SPDX-License-Identifier: Apache-2.0 */
#ifndef GOLDEN_TOKENS_H
#define GOLDEN_TOKENS_H

#include <stddef.h>

/* Checks every text and every list of ids of every model in the gzip file at path. A model that the file does not
 * hold is read from model_path (NULL: the file holds them all). Returns how many cases were checked. */
size_t golden_tokens_check(const char *path, const char *model_path);

#endif
