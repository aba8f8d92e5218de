/* hash_shani.c - SHA-256 with the processor's own instructions (x86-64, SHA extensions).
 * SPDX-License-Identifier: Apache-2.0 */
#include "hash_blocks.h"

#ifdef __x86_64__
#include <immintrin.h>

/* Four words of the message, which is big-endian. */
static __m128i load_words(const uint8_t *p)
{
    const __m128i swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), swap);
}

void rz_sha256_shani(uint32_t h[8], const uint8_t *p, size_t n)
{
    /* the instructions want the state as two quarters: a b e f and c d g h, the first in the highest place */
    __m128i abef = _mm_set_epi32((int)h[0], (int)h[1], (int)h[4], (int)h[5]);
    __m128i cdgh = _mm_set_epi32((int)h[2], (int)h[3], (int)h[6], (int)h[7]);
    for (; n > 0; n--, p += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
        for (int i = 0; i < 4; i++) w[i] = load_words(p + 16 * i);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) { /* four rounds each */
            const __m128i k = _mm_loadu_si128((const __m128i *)(const void *)(rz_sha256_k + 4 * i));
            const __m128i wk = _mm_add_epi32(w[i % 4], k);
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(wk, 0x0e));
            if (i >= 12) continue;
            const __m128i next = w[(i + 1) % 4], last = w[(i + 3) % 4];
            const __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[i % 4], next),
                                              _mm_alignr_epi8(last, w[(i + 2) % 4], 4)); /* words 9 to 12 of 16 */
            w[i % 4] = _mm_sha256msg2_epu32(sum, last);
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    uint32_t x[4], y[4];
    _mm_storeu_si128((__m128i *)(void *)x, abef);
    _mm_storeu_si128((__m128i *)(void *)y, cdgh);
    h[0] = x[3], h[1] = x[2], h[4] = x[1], h[5] = x[0];
    h[2] = y[3], h[3] = y[2], h[6] = y[1], h[7] = y[0];
}
#else
typedef int rz_sha256_shani_unused;
#endif
