/* kernels_pack.h - panels of floats for the GEMM tile, from rows or columns of any type. Part of kernels.h.
 * SPDX-License-Identifier: Apache-2.0 */

enum {
    PACK_STEP = 64,  /* half-precision rows are widened this many elements at a time */
    PACK_GROUP = 8,  /* panels that are packed side by side, so that rows are read in whole cache lines */
    ROWS_AHEAD = 12, /* how far ahead such rows are fetched: strides defeat the processor's own prefetching */
};

/* n numbers of x from `offset` on. */
INLINE void widen(float *restrict y, rz_mat x, size_t offset, size_t n)
{
    const uint16_t *restrict h = (const uint16_t *)x.data + offset;
    size_t i = 0;
    if (x.dtype == RZ_BF16) {
        for (; i < n; i++) {
            const uint32_t bits = (uint32_t)h[i] << 16;
            memcpy(&y[i], &bits, 4);
        }
        return;
    }
#ifdef __F16C__
    for (; x.dtype == RZ_F16 && i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(h + i))));
#endif
    if (i < n) rz_cpu_widen(y + i, x, offset + i, n - i);
}

/* One panel from rows of bfloat16, two to a word as they lie. */
INLINE void interleave_bf16(float *restrict y, size_t tile, rz_mat x, size_t offset, size_t n, size_t kc)
{
    const float *from = (const float *)(const void *)((const uint16_t *)x.data + offset);
    float words[NR * LINE];
    for (size_t p = 0; p < kc; p += 2 * LINE, from += LINE, y += 2 * LINE * tile) {
        const size_t step = kc - p < 2 * LINE ? (kc - p) / 2 : LINE;
        interleave(words, tile, from, x.ld / 2, n, step, tile * x.ld / 2);
        for (size_t i = 0; i < step; i++)
            for (size_t j = 0; j < tile; j++) {
                uint32_t word;
                memcpy(&word, words + i * tile + j, 4);
                const uint32_t low = word << 16, high = word & 0xffff0000;
                memcpy(y + 2 * i * tile + j, &low, 4);
                memcpy(y + (2 * i + 1) * tile + j, &high, 4);
            }
    }
}

/* One panel from rows of another type than float. */
static void interleave_wide(float *y, size_t tile, rz_mat x, size_t offset, size_t n, size_t kc)
{
    float row[NR * PACK_STEP];
    if (x.dtype == RZ_BF16 && tile == NR && !((kc | x.ld | offset) & 1) && !((uintptr_t)x.data & 3)) {
        interleave_bf16(y, NR, x, offset, n, kc);
        return;
    }
    for (size_t p = 0; p < kc; p += PACK_STEP) {
        size_t step = kc - p < PACK_STEP ? kc - p : PACK_STEP;
        for (size_t i = 0; i < n; i++) {
            fetch(x, offset + (i + tile) * x.ld + p, step); /* the next panel's */
            widen(row + i * PACK_STEP, x, offset + i * x.ld + p, step);
        }
        interleave(y + p * tile, tile, row, PACK_STEP, n, step, 0);
    }
}

/* One panel from columns of x: y[p * tile + i] = x[p * ld + i]. */
INLINE void gather_columns(float *restrict y, size_t tile, rz_mat x, size_t offset, size_t n, size_t kc)
{
    const float *f = x.dtype == RZ_F32 ? (const float *)x.data + offset : NULL;
    for (size_t p = 0; p < kc; p++, y += tile) {
        if (!f)
            widen(y, x, offset + p * x.ld, n);
        else if (n == tile)
            memcpy(y, f + p * x.ld, tile * sizeof *y);
        else
            memcpy(y, f + p * x.ld, n * sizeof *y);
        if (n < tile) memset(y + n, 0, (tile - n) * sizeof *y);
    }
}

/* Full panels side by side from columns of x, row by row. A store may reach past its row of a panel: the next row's
 * store, which follows, puts that right. */
INLINE void gather_panels(float *restrict y, size_t tile, const float *restrict x, size_t ld, size_t panels, size_t kc)
{
    const size_t step = tile * kc;
    for (size_t p = 0; p + 1 < kc; p++, x += ld, y += tile) {
        for (size_t c = 0; c < panels * tile; c += LINE) __builtin_prefetch(x + ROWS_AHEAD * ld + c);
        for (size_t i = 0; i < panels; i++)
            for (size_t c = 0; c < tile; c += W) v_store(y + i * step + c, v_load(x + i * tile + c));
    }
    for (size_t i = 0; i < panels; i++) memcpy(y + i * step, x + i * tile, tile * sizeof *y);
}

INLINE void pack_columns(float *dst, size_t tile, rz_mat x, size_t offset, size_t count, size_t kc)
{
    for (size_t i = 0, n; i < count; i += n) {
        size_t panels = (count - i) / tile;
        if (x.dtype == RZ_F32 && panels) {
            panels = panels < PACK_GROUP ? panels : PACK_GROUP;
            gather_panels(dst + i * kc, tile, (const float *)x.data + offset + i, x.ld, panels, kc);
            n = panels * tile;
        } else {
            n = count - i < tile ? count - i : tile;
            gather_columns(dst + i * kc, tile, x, offset + i, n, kc);
        }
    }
}

static void pack(float *dst, size_t tile, rz_mat x, bool by_k, size_t offset, size_t count, size_t kc)
{
    if (by_k && tile == NR) {
        pack_columns(dst, NR, x, offset, count, kc);
        return;
    }
    if (by_k && tile == MR) {
        pack_columns(dst, MR, x, offset, count, kc);
        return;
    }
    for (size_t i = 0; i < count; i += tile, dst += tile * kc) {
        size_t n = count - i < tile ? count - i : tile;
        if (x.dtype == RZ_F32)
            interleave(dst, tile, (const float *)x.data + offset + i * x.ld, x.ld, n, kc, tile * x.ld);
        else
            interleave_wide(dst, tile, x, offset + i * x.ld, n, kc);
    }
}
