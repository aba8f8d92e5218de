/* kernels_int.h - integer products with scales: packing, rounding of activations, tiles. Part of kernels.h, and of the
 * files that have nothing else. Every sum of a group is an exact 32-bit integer, and what is done to it in float is
 * the same multiply and add everywhere: all kernel sets give the same bits.
 *
 * A panel is a matrix of 32-bit lanes, row p of it `tile` lanes wide; a lane holds some numbers along K of one row or
 * column. "pairs": two 16-bit integers a lane, multiplied and added by one instruction (pmaddwd). "quads": four bytes,
 * weights unsigned (the integer + offset), activations signed; the offset's part is taken off by the sum that each
 * group starts with. A word of weights as they lie (four of 8 bits or eight of 4) is split into `split` lanes by shifts
 * and masks, so that number i of it is in lane i % split, place i / split; activations are put likewise.
 * SPDX-License-Identifier: Apache-2.0 */

/* Not every kernel set needs both kinds of lanes. */
#define MAYBE __attribute__((unused))

typedef int16_t vh __attribute__((vector_size(4 * W)));
typedef int32_t vi_mem __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t lane_mem __attribute__((may_alias));

INLINE vi v_set_int(int32_t x)
{
    return x - (vi){0};
}
INLINE vi v_load_int(const float *p)
{
    return *(const vi_mem *)p;
}
INLINE vf v_from_int(vi x)
{
    return __builtin_convertvector(x, vf);
}

/* Lane by lane: the sum of two products of 16-bit integers. */
INLINE vi v_madd(vi a, vi b)
{
#if W == 16 && defined(__AVX512BW__)
    return (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif W == 8 && defined(__AVX2__)
    return (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif W == 4 && defined(__SSE2__)
    return (vi)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    return (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

/* c + the sum of four products of an unsigned and a signed byte. */
INLINE vi v_dot4(vi c, vi u, vi s)
{
#if W == 16 && defined(__AVX512VNNI__)
    return (vi)_mm512_dpbusd_epi32((__m512i)c, (__m512i)u, (__m512i)s);
#elif W == 8 && defined(__AVXVNNI__)
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)c, (__m256i)u, (__m256i)s);
#else
    for (int i = 0; i < 4; i++) c += (vi)((vu)u << (24 - 8 * i) >> 24) * (s << (24 - 8 * i) >> 24);
    return c;
#endif
}

/* Neighbouring bytes, unsigned and signed, multiplied; sums of two, which must fit 16 bits. */
INLINE vh v_dot2(vi u, vi s)
{
#if W == 16 && defined(__AVX512BW__)
    return (vh)_mm512_maddubs_epi16((__m512i)u, (__m512i)s);
#elif W == 8 && defined(__AVX2__)
    return (vh)_mm256_maddubs_epi16((__m256i)u, (__m256i)s);
#else
    const vi low = (u & 255) * (s << 24 >> 24) + (u >> 8 & 255) * (s << 16 >> 24);
    const vi high = (u >> 16 & 255) * (s << 8 >> 24) + (u >> 24 & 255) * (s >> 24);
    return (vh)((low & 0xffff) | high << 16);
#endif
}

/* ---- Packing ------------------------------------------------------------------------------- */

enum { INT_LANES = RZ_GROUP_MAX / 2 }; /* of a group, at most */

/* Words of `cols` rows, n bytes of each, as a panel; zeros after a row's end. */
static void pack_words(float *dst, const uint8_t *bytes, size_t ld, size_t cols, size_t n)
{
    float row[NR * LINE];
    const size_t step = LINE * sizeof *row;
    if (n % 4 == 0 && ld % 4 == 0 && (uintptr_t)bytes % 4 == 0) {
        interleave(dst, NR, (const float *)(const void *)bytes, ld / 4, cols, n / 4, NR * ld / 4);
        return;
    }
    for (size_t p = 0; p < n; p += step, dst += NR * LINE) {
        const size_t part = n - p < step ? n - p : step;
        memset(row, 0, sizeof row);
        for (size_t i = 0; i < cols; i++) memcpy(row + i * LINE, bytes + i * ld + p, part);
        interleave(dst, NR, row, LINE, cols, (part + 3) / 4, 0);
    }
}

/* The word's numbers that lane k of `split` holds, as 16-bit integers; as bytes, the offset added. */
INLINE vi pair_of(vi word, size_t k, size_t split)
{
    const vh halves = (vh)word;
    if (split == 2) return (vi)(k ? halves >> 8 : halves << 8 >> 8);
    return (vi)((halves >> (int)(4 * k) & 15) - 8);
}
INLINE vi quad_of(vi word, size_t k, size_t split)
{
    if (split == 1) return word ^ v_set_int(-0x7f7f7f80); /* 0x80808080 */
    return (word >> (int)(4 * k)) & v_set_int(0x0f0f0f0f);
}

/* n rows of words to `split` times as many rows of lanes. */
INLINE void split_words(float *lanes, const float *words, size_t n, size_t split, bool pairs)
{
    for (size_t i = 0; i < n * NR; i += W) {
        const vi word = v_load_int(words + i);
        float *to = lanes + i / NR * split * NR + i % NR;
        for (size_t k = 0; k < split; k++)
            *(vi_mem *)(to + k * NR) = pairs ? pair_of(word, k, split) : quad_of(word, k, split);
    }
}

/* Groups [g, g + n) of `cols` rows of x, from row j on: NR scales of each group, then the lanes of all of them. */
INLINE void pack_weights(float *dst, rz_mat x, size_t j, size_t cols, size_t g, size_t n, bool pairs)
{
    enum { WORDS = 16 };
    const size_t groups = rz_mat_groups(x), at = g * x.group, end = at + n * x.group < x.ld ? at + n * x.group : x.ld;
    const size_t bytes = rz_dtype_bytes(x.dtype, end - at), split = (x.dtype == RZ_I8 ? 1 : 2) * (pairs ? 2 : 1);
    const uint8_t *from = (const uint8_t *)x.data + rz_dtype_bytes(x.dtype, j * x.ld + at);
    float words[NR * WORDS];
    for (size_t i = 0; i < NR; i++)
        for (size_t q = 0; q < n; q++) dst[q * NR + i] = i < cols ? int_scale(x, (j + i) * groups + g + q) : 0;
    dst += n * NR;
    for (size_t p = 0; p < bytes; p += 4 * WORDS, dst += split * NR * WORDS) {
        const size_t part = bytes - p < 4 * WORDS ? bytes - p : 4 * WORDS;
        pack_words(words, from + p, rz_dtype_bytes(x.dtype, x.ld), cols, part);
        if (split == 1)
            split_words(dst, words, (part + 3) / 4, 1, pairs);
        else if (split == 2)
            split_words(dst, words, (part + 3) / 4, 2, pairs);
        else
            split_words(dst, words, (part + 3) / 4, 4, pairs);
    }
}

MAYBE static void pack_weights_pairs(float *dst, rz_mat x, size_t j, size_t cols, size_t g, size_t n)
{
    pack_weights(dst, x, j, cols, g, n, true);
}
MAYBE static void pack_weights_quads(float *dst, rz_mat x, size_t j, size_t cols, size_t g, size_t n)
{
    pack_weights(dst, x, j, cols, g, n, false);
}

/* n floats to integers -127 .. 127, `scale` apart; returned. NaN when a number is not finite; no FMA, so that every
 * kernel set rounds alike. q has room for whole vectors. */
INLINE float round_group(int32_t *q, const float *x, size_t n)
{
    const vf magic = v_set(12582912.0f); /* 1.5 * 2^23 */
    vf most = {0}, odd = {0};
    for (size_t i = 0; i < n; i += W) {
        const vf v = v_load_n(x + i, n - i);
        most = v_max(v_abs(v), most);
        odd += v * 0.0f; /* NaN from NaN and infinity */
    }
    const float top = v_max1(most), inv = top > 1e-30f ? 127.0f / top : 0, bad = v_sum(odd);
    for (size_t i = 0; i < n; i += W)
        *(vi_mem *)(q + i) = (vi)(v_load_n(x + i, n - i) * v_set(inv) + magic) - (vi)magic;
    if (bad != 0) memset(q, 0, n * sizeof *q);
    return inv > 0 ? top / 127.0f + bad : bad;
}

/* n integers as lanes of words that are split, zeros after them: y[(word * split + k) * per_lane + s] = q[word *
 * per_word
 * + s * split + k]. */
INLINE void put_pairs(int16_t *restrict y, const int32_t *restrict q, size_t n, size_t split)
{
    for (size_t w = 0; w < n; w += 2 * split)
        for (size_t k = 0; k < split; k++, y += 2) y[0] = (int16_t)q[w + k], y[1] = (int16_t)q[w + split + k];
}
INLINE void put_quads(int8_t *restrict y, const int32_t *restrict q, size_t n, size_t split)
{
    for (size_t w = 0; w < n; w += 4 * split)
        for (size_t k = 0; k < split; k++, y += 4)
            for (size_t i = 0; i < 4; i++) y[i] = (int8_t)q[w + i * split + k];
}

/* `rows` rows of x (ld floats apart), n long, as a panel: MR scales, MR sums to start with, lanes. */
INLINE void pack_rows(float *dst, const float *x, size_t ld, size_t rows, size_t n, float alpha, int32_t offset,
                      size_t split, bool pairs)
{
    const size_t per_lane = pairs ? 2 : 4, words = (n + split * per_lane - 1) / (split * per_lane);
    float row[MR * INT_LANES];
    int32_t q[RZ_GROUP_MAX + 16], start[MR] = {0};
    for (size_t i = 0; i < rows; i++, x += ld) {
        int32_t sum = 0;
        dst[i] = alpha * round_group(q, x, n);
        for (size_t p = n; p < words * split * per_lane; p++) q[p] = 0;
        for (size_t p = 0; p < n; p++) sum += q[p];
        start[i] = -offset * sum;
        if (pairs)
            put_pairs((int16_t *)(void *)(row + i * INT_LANES), q, n, split);
        else
            put_quads((int8_t *)(row + i * INT_LANES), q, n, split);
    }
    for (size_t i = rows; i < MR; i++) dst[i] = 0;
    memcpy(dst + MR, start, sizeof start);
    interleave(dst + 2 * MR, MR, row, INT_LANES, rows, words * split, 0);
}

#define PACK_ROWS(NAME, PAIRS, SPLIT)                                                                                  \
    MAYBE static void NAME(float *dst, const float *x, size_t ld, size_t rows, size_t n, float alpha, int32_t offset)  \
    {                                                                                                                  \
        pack_rows(dst, x, ld, rows, n, alpha, offset, SPLIT, PAIRS);                                                   \
    }
PACK_ROWS(pack_rows_pairs8, true, 2)
PACK_ROWS(pack_rows_pairs4, true, 4)
PACK_ROWS(pack_rows_quads8, false, 1)
PACK_ROWS(pack_rows_quads4, false, 2)

/* ---- Tiles --------------------------------------------------------------------------------- */

/* c += float(x) * (activation's scale * weights' scales) */
INLINE void add_scaled(float *c, vi x, float a, vf w)
{
    v_store(c, v_load(c) + v_from_int(x) * (v_set(a) * w));
}

/* Row r of a panel is a[r] of the lanes; x and y are the tile's sums of it. */
#define INT_START(r) vi x##r = v_set_int(start[r]), y##r = x##r;
#define INT_PAIRS(r)                                                                                                   \
    {                                                                                                                  \
        const vi ar = v_set_int(lane[r]);                                                                              \
        x##r += v_madd(ar, b0);                                                                                        \
        y##r += v_madd(ar, b1);                                                                                        \
    }
#define INT_QUADS(r)                                                                                                   \
    {                                                                                                                  \
        const vi ar = v_set_int(lane[r]);                                                                              \
        x##r = v_dot4(x##r, b0, ar);                                                                                   \
        y##r = v_dot4(y##r, b1, ar);                                                                                   \
    }
#define INT_ADD(r)                                                                                                     \
    add_scaled(c + r * ldc, x##r, a[r], w0);                                                                           \
    add_scaled(c + r * ldc + W, y##r, a[r], w1);

/* One group of one tile. a: scales, starting sums, lanes; b: lanes; w: scales. c is a whole tile. */
#define INT_TILE(NAME, ROWS, STEP)                                                                                     \
    static void NAME##_##ROWS(size_t lanes, const float *restrict a, const float *restrict b, const float *restrict w, \
                              float *restrict c, size_t ldc)                                                           \
    {                                                                                                                  \
        const lane_mem *start = (const lane_mem *)a + MR, *lane = start + MR;                                          \
        const float *bp = b;                                                                                           \
        ROWS_##ROWS(INT_START) for (size_t p = 0; p < lanes; p++, lane += MR, bp += NR)                                \
        {                                                                                                              \
            const vi b0 = v_load_int(bp), b1 = v_load_int(bp + W);                                                     \
            ROWS_##ROWS(STEP)                                                                                          \
        }                                                                                                              \
        const vf w0 = v_load(w), w1 = v_load(w + W);                                                                   \
        ROWS_##ROWS(INT_ADD)                                                                                           \
    }

/* Four bits times eight: sums of two products stay below 2 * 15 * 127, so that eight of them fit 16 bits. */
enum { NARROW_STEPS = 8 };
#define NARROW_ZERO(r) vh x##r = {0}, y##r = {0};
#define NARROW_STEP(r)                                                                                                 \
    {                                                                                                                  \
        const vi ar = v_set_int(lane[r]);                                                                              \
        x##r += v_dot2(b0, ar);                                                                                        \
        y##r += v_dot2(b1, ar);                                                                                        \
    }
#define NARROW_START(r) sum[2 * r] = sum[2 * r + 1] = v_set_int(start[r]);
#define NARROW_FLUSH(r)                                                                                                \
    sum[2 * r] += v_madd((vi)x##r, ones);                                                                              \
    sum[2 * r + 1] += v_madd((vi)y##r, ones);
#define NARROW_ADD(r)                                                                                                  \
    add_scaled(c + r * ldc, sum[2 * r], a[r], w0);                                                                     \
    add_scaled(c + r * ldc + W, sum[2 * r + 1], a[r], w1);

#define NARROW_TILE(NAME, ROWS)                                                                                        \
    static void NAME##_##ROWS(size_t lanes, const float *restrict a, const float *restrict b, const float *restrict w, \
                              float *restrict c, size_t ldc)                                                           \
    {                                                                                                                  \
        const lane_mem *start = (const lane_mem *)a + MR, *lane = start + MR;                                          \
        const float *bp = b;                                                                                           \
        const vi ones = v_set_int(0x10001);                                                                            \
        vi sum[2 * ROWS];                                                                                              \
        ROWS_##ROWS(NARROW_START) while (lanes)                                                                        \
        {                                                                                                              \
            const size_t steps = lanes < NARROW_STEPS ? lanes : NARROW_STEPS;                                          \
            ROWS_##ROWS(NARROW_ZERO) for (size_t p = 0; p < steps; p++, lane += MR, bp += NR)                          \
            {                                                                                                          \
                const vi b0 = v_load_int(bp), b1 = v_load_int(bp + W);                                                 \
                ROWS_##ROWS(NARROW_STEP)                                                                               \
            }                                                                                                          \
            ROWS_##ROWS(NARROW_FLUSH) lanes -= steps;                                                                  \
        }                                                                                                              \
        const vf w0 = v_load(w), w1 = v_load(w + W);                                                                   \
        ROWS_##ROWS(NARROW_ADD)                                                                                        \
    }

#if MR == 12
#define ALL_ROWS(F) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12)
#else
#define ALL_ROWS(F) F(1) F(2) F(3) F(4) F(5) F(6)
#endif
typedef void int_tile_fn(size_t lanes, const float *a, const float *b, const float *w, float *c, size_t ldc);

/* A tile of C before its sums are added: beta C, in C itself or, over the right edge, in `edge`. */
INLINE void start_tile(const struct rz_int_block *t, size_t rows, float *c, float *edge)
{
    const bool inside = t->n >= NR;
    for (size_t r = 0; r < rows && (!inside || t->beta != 1); r++) {
        float *to = inside ? c + r * t->ldc : edge + r * NR;
        for (size_t j = 0; j < NR; j += W) {
            const size_t n = j < t->n ? t->n - j : 0;
            v_store(to + j, t->beta == 0 ? (vf){0} : v_load_n(c + r * t->ldc + j, n) * v_set(t->beta));
        }
    }
}
INLINE void end_tile(const struct rz_int_block *t, size_t rows, float *c, const float *edge)
{
    for (size_t r = 0; t->n < NR && r < rows; r++) memcpy(c + r * t->ldc, edge + r * NR, t->n * sizeof *c);
}

/* Tiles, group by group. */
INLINE void int_block(int_tile_fn *const *tile, const struct rz_int_block *t)
{
    for (size_t i = 0; i < t->m; i += MR) {
        const size_t rows = t->m - i < MR ? t->m - i : MR;
        float *c = t->c + i * t->ldc, edge[MR * NR];
        const float *a = t->a + i / MR * t->a_stride;
        for (size_t r = 0; r < rows; r++) __builtin_prefetch(c + r * t->ldc);
        start_tile(t, rows, c, edge);
        for (size_t g = 0; g < t->groups; g++)
            tile[rows](g + 1 < t->groups ? t->lanes : t->last_lanes, a + g * t->a_group,
                       t->b + (t->groups + g * t->lanes) * NR, t->b + g * NR, t->n < NR ? edge : c,
                       t->n < NR ? NR : t->ldc);
        end_tile(t, rows, c, edge);
    }
}

#define INT_BLOCK(NAME)                                                                                                \
    static void NAME##_block(const struct rz_int_block *t)                                                             \
    {                                                                                                                  \
        int_block(NAME##_tiles, t);                                                                                    \
    }
#define TILE_NAME(NAME) NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6
#define TILE_NAME_12(NAME) NAME##_7, NAME##_8, NAME##_9, NAME##_10, NAME##_11, NAME##_12
#if MR == 12
#define TILE_TABLE(NAME) static int_tile_fn *const NAME##_tiles[] = {NULL, TILE_NAME(NAME), TILE_NAME_12(NAME)};
#else
#define TILE_TABLE(NAME) static int_tile_fn *const NAME##_tiles[] = {NULL, TILE_NAME(NAME)};
#endif

#define EACH_PAIRS(ROWS) INT_TILE(pairs, ROWS, INT_PAIRS)
#define EACH_QUADS(ROWS) INT_TILE(quads, ROWS, INT_QUADS)
#define EACH_NARROW(ROWS) NARROW_TILE(narrow, ROWS)
