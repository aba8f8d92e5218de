/* next_token.h - what comes next: logits after prompts, a step at a time. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_NEXT_TOKEN_H
#define RZ_NEXT_TOKEN_H

#include "cache.h"
#include "encode.h"

/* Runs n prompts, films included, each behind what the cache holds of its sequence, and adds them to it: first whole
 * prompts, then a token at a time. Result: logits (n, vocab) of the token after each prompt, zeros after an empty one;
 * every_row: (all rows, vocab), of the token after each row. Device memory in the arena. A prompt's logits are the same
 * bits whatever runs beside it and however it is cut (but for dynamic RoPE, where cached keys stay as they were turned,
 * as transformers has it). On failure the cache is of no use any more. */
float *rz_next_logits(const rz_net *net, const rz_item *items, size_t n, rz_cache *cache, bool every_row);

#endif
