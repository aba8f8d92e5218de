/* kernels_int.h - integer products with scales: packing, rounding of activations, tiles. Part of kernels.h, and of the
 * files that have nothing else. Every sum of a group is an exact 32-bit integer, and what is done to it in float is
 * the same multiply and add everywhere: all kernel sets give the same bits.
 *
 * A panel is a matrix of 32-bit lanes, row p of it `tile` lanes wide; a lane holds neighbours along K of one row or
 * column. "pairs": two 16-bit integers a lane, multiplied and added by one instruction (pmaddwd). "quads": four bytes,
 * weights unsigned (the integer + offset), activations signed; the offset's part is taken off by the sum that each
 * group starts with. SPDX-License-Identifier: Apache-2.0 */

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

/* Group g of a row of integers as lanes, zeros after its end. */
static void expand_pairs(int16_t *y, rz_mat x, size_t at, size_t n)
{
    const int8_t *q8 = (const int8_t *)x.data + at;
    const uint8_t *q4 = (const uint8_t *)x.data + at / 2;
    if (x.dtype == RZ_I8)
        for (size_t i = 0; i < n; i++) y[i] = q8[i];
    else
        for (size_t i = 0; i < n / 2; i++) {
            y[2 * i] = (int16_t)((q4[i] & 15) - 8);
            y[2 * i + 1] = (int16_t)((q4[i] >> 4) - 8);
        }
    for (size_t i = n; i % 2; i++) y[i] = 0;
}

static void expand_quads(uint8_t *y, rz_mat x, size_t at, size_t n)
{
    const uint8_t *q8 = (const uint8_t *)x.data + at, *q4 = (const uint8_t *)x.data + at / 2;
    if (x.dtype == RZ_I8)
        for (size_t i = 0; i < n; i++) y[i] = q8[i] ^ 0x80;
    else
        for (size_t i = 0; i < n / 2; i++) {
            y[2 * i] = q4[i] & 15;
            y[2 * i + 1] = q4[i] >> 4;
        }
    for (size_t i = n; i % 4; i++) y[i] = 0; /* the activations are zero there */
}

/* Bytes of whole lanes as they lie, then signed to unsigned. */
INLINE void pack_bytes(float *dst, const void *bytes, size_t ld, size_t cols, size_t lanes)
{
    interleave(dst, NR, bytes, ld / 4, cols, lanes);
    for (size_t i = 0; i < NR * lanes; i += W) {
        vi_mem *v = (vi_mem *)(dst + i);
        *v = *v ^ v_set_int(-0x7f7f7f80); /* 0x80808080 */
    }
}

/* Group g of `cols` rows of x, from row j on: NR scales, then lanes. */
INLINE void pack_weights(float *dst, rz_mat x, size_t j, size_t cols, size_t g, bool pairs)
{
    const size_t groups = rz_mat_groups(x), at = g * x.group, n = x.ld - at < x.group ? x.ld - at : x.group;
    const size_t lanes = pairs ? (n + 1) / 2 : (n + 3) / 4;
    const char *bytes = (const char *)x.data + j * x.ld + at;
    float row[NR * INT_LANES];
    for (size_t i = 0; i < NR; i++) dst[i] = i < cols ? int_scale(x, (j + i) * groups + g) : 0;
    if (!pairs && x.dtype == RZ_I8 && lanes >= LINE && n % 4 == 0 && x.ld % 4 == 0 && (uintptr_t)bytes % 4 == 0) {
        pack_bytes(dst + NR, bytes, x.ld, cols, lanes);
        return;
    }
    for (size_t i = 0; i < cols; i++) {
        __builtin_prefetch((const char *)x.data + rz_dtype_bytes(x.dtype, (j + i) * x.ld + at + 2 * x.group));
        if (pairs)
            expand_pairs((int16_t *)(void *)(row + i * INT_LANES), x, (j + i) * x.ld + at, n);
        else
            expand_quads((uint8_t *)(row + i * INT_LANES), x, (j + i) * x.ld + at, n);
    }
    interleave(dst + NR, NR, row, INT_LANES, cols, lanes);
}

MAYBE static void pack_weights_pairs(float *dst, rz_mat x, size_t j, size_t cols, size_t g)
{
    pack_weights(dst, x, j, cols, g, true);
}
MAYBE static void pack_weights_quads(float *dst, rz_mat x, size_t j, size_t cols, size_t g)
{
    pack_weights(dst, x, j, cols, g, false);
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

/* `rows` rows of x (ld floats apart), n long, as a panel: MR scales, MR sums to start with, lanes. */
INLINE void pack_rows(float *dst, const float *x, size_t ld, size_t rows, size_t n, float alpha, int32_t offset,
                      bool pairs)
{
    const size_t lanes = pairs ? (n + 1) / 2 : (n + 3) / 4;
    float row[MR * INT_LANES];
    int32_t q[RZ_GROUP_MAX + 16], start[MR] = {0};
    for (size_t i = 0; i < rows; i++, x += ld) {
        int16_t *pair = (int16_t *)(void *)(row + i * INT_LANES);
        int8_t *quad = (int8_t *)(row + i * INT_LANES);
        int32_t sum = 0;
        dst[i] = alpha * round_group(q, x, n);
        q[n] = q[n + 1] = q[n + 2] = 0;
        for (size_t p = 0; p < n; p++) sum += q[p];
        start[i] = -offset * sum;
        if (pairs)
            for (size_t p = 0; p < 2 * lanes; p++) pair[p] = (int16_t)q[p];
        else
            for (size_t p = 0; p < 4 * lanes; p++) quad[p] = (int8_t)q[p];
    }
    for (size_t i = rows; i < MR; i++) dst[i] = 0;
    memcpy(dst + MR, start, sizeof start);
    interleave(dst + 2 * MR, MR, row, INT_LANES, rows, lanes);
}

MAYBE static void pack_rows_pairs(float *dst, const float *x, size_t ld, size_t rows, size_t n, float alpha,
                                  int32_t offset)
{
    pack_rows(dst, x, ld, rows, n, alpha, offset, true);
}
MAYBE static void pack_rows_quads(float *dst, const float *x, size_t ld, size_t rows, size_t n, float alpha,
                                  int32_t offset)
{
    pack_rows(dst, x, ld, rows, n, alpha, offset, false);
}

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

/* One group of one tile. a: scales, starting sums, lanes; b: scales, lanes. c is a whole tile. */
#define INT_TILE(NAME, ROWS, STEP)                                                                                     \
    static void NAME##_##ROWS(size_t lanes, const float *restrict a, const float *restrict b, float *restrict c,       \
                              size_t ldc)                                                                              \
    {                                                                                                                  \
        const lane_mem *start = (const lane_mem *)a + MR, *lane = start + MR;                                          \
        const float *bp = b + NR;                                                                                      \
        ROWS_##ROWS(INT_START) for (size_t p = 0; p < lanes; p++, lane += MR, bp += NR)                                \
        {                                                                                                              \
            const vi b0 = v_load_int(bp), b1 = v_load_int(bp + W);                                                     \
            ROWS_##ROWS(STEP)                                                                                          \
        }                                                                                                              \
        const vf w0 = v_load(b), w1 = v_load(b + W);                                                                   \
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
    static void NAME##_##ROWS(size_t lanes, const float *restrict a, const float *restrict b, float *restrict c,       \
                              size_t ldc)                                                                              \
    {                                                                                                                  \
        const lane_mem *start = (const lane_mem *)a + MR, *lane = start + MR;                                          \
        const float *bp = b + NR;                                                                                      \
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
        const vf w0 = v_load(b), w1 = v_load(b + W);                                                                   \
        ROWS_##ROWS(NARROW_ADD)                                                                                        \
    }

#if MR == 12
#define ALL_ROWS(F) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12)
#else
#define ALL_ROWS(F) F(1) F(2) F(3) F(4) F(5) F(6)
#endif
typedef void int_tile_fn(size_t lanes, const float *a, const float *b, float *c, size_t ldc);

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
            tile[rows](g + 1 < t->groups ? t->lanes : t->last_lanes, a + g * t->a_group, t->b + g * t->b_group,
                       t->n < NR ? edge : c, t->n < NR ? NR : t->ldc);
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
