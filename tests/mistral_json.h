/* mistral_json.h - Mistral's tokenizer.model as a tokenizer.json. SPDX-License-Identifier: Apache-2.0 */
#ifndef MISTRAL_JSON_H
#define MISTRAL_JSON_H

#include "formats.h"

/* `text` with its "vocab":null and "merges":null filled from the pieces of `model`, whose pieces from 259 on are in
 * order of their scores. merges as transformers' generate_merges makes them. */
rz_str mistral_json(const rz_tokenizer *model, const char *text);

#endif
