/* hash_blocks.h - the inner loop of SHA-256, once for any processor and once for those that have instructions for it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_HASH_BLOCKS_H
#define RZ_HASH_BLOCKS_H

#include "base.h"

extern const uint32_t rz_sha256_k[64];

/* n blocks of 64 bytes into the state. */
void rz_sha256_plain(uint32_t h[8], const uint8_t *p, size_t n);
#ifdef __x86_64__
void rz_sha256_shani(uint32_t h[8], const uint8_t *p, size_t n); /* hash_shani.c */
#endif
bool rz_has_shani(void);

#endif
