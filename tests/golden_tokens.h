/* golden_tokens.h - the files of tests/data/make_tokenizer_golden.py and make_json_golden.py. SPDX-License-Identifier:
 * Apache-2.0 */
#ifndef GOLDEN_TOKENS_H
#define GOLDEN_TOKENS_H

#include <stddef.h>

/* Checks every text and every list of ids of every model in the gzip file at path. A model that the file does not
 * hold is read from model_path (NULL: the file holds them all). Returns how many cases were checked. */
size_t golden_tokens_check(const char *path, const char *model_path);

/* Checks every model in the gzip file at path over every line of the corpus. Mistral's pieces are read from
 * mistral_path. Returns how many models were checked. */
size_t golden_tokens_check_corpus(const char *path, const char *corpus_path, const char *mistral_path, size_t *n_lines);

#endif
