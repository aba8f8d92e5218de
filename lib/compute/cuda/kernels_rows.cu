/* kernels_rows.cu - the ops of cuda_rows.c: flat arrays, tables of rows, norms, losses, the optimiser. The CPU's ops
 * say what they compute; sums have an order that neither the grid nor the rows beside decide.
 *
 * Shapes of launches, of 256 threads:
 *   flat    a grid of one dimension; threads take four elements at a time, with the grid's stride
 *   table   blocks (x, y): threads of x take four columns each, threads of y a row
 *   rows    blocks (32, 8): a warp has a row; or (256, 1): the block has one
 *   entries a block for each entry of a list
 *   columns a block of 512 for some columns; where there are rows too, these have blocks (32, 16) or (512, 1)
 * SPDX-License-Identifier: Apache-2.0 */
#include "adamw_args.h"
#include "kernels.cuh"

enum { THREADS = 256 };

/* f<true>(...) where 16 bytes can be read at a time, else f<false>(...). */
#define EITHER(wide, f, ...)                                                                                           \
    do {                                                                                                               \
        if (wide)                                                                                                      \
            f<true>(__VA_ARGS__);                                                                                      \
        else                                                                                                           \
            f<false>(__VA_ARGS__);                                                                                     \
    } while (0)

RZ_DEVICE bool aligned(const void *a, const void *b = NULL, const void *c = NULL, const void *d = NULL)
{
    return (((size_t)a | (size_t)b | (size_t)c | (size_t)d) & 15) == 0;
}

/* ---- Flat arrays ------------------------------------------------------------------------------------------ */

/* f(i, n, width) for every four elements, i being the first and n what is left from there on. */
template <bool WIDE> struct rz_width {
    static const bool wide = WIDE;
};
template <typename F> RZ_DEVICE void each_four(size_t n, bool wide, F f)
{
    const size_t first = 4 * ((size_t)blockIdx.x * blockDim.x + threadIdx.x), step = 4 * (size_t)gridDim.x * blockDim.x;
    const size_t whole = wide ? n / 4 * 4 : 0;
    for (size_t i = first; i < whole; i += step) f(i, (size_t)4, rz_width<true>());
    for (size_t i = whole + first; i < n; i += step) f(i, n - i, rz_width<false>());
}
#define LOAD(p, width) rz_load4<decltype(width)::wide>((p) + i, left)
#define STORE(p, q, width) rz_store4<decltype(width)::wide>((p) + i, q, left)

extern "C" __global__ void rz_k_fill(float *y, float value, size_t n)
{
    each_four(n, aligned(y), [=](size_t i, size_t left, auto w) {
        const rz_quad q = {{value, value, value, value}};
        STORE(y, q, w);
    });
}

extern "C" __global__ void rz_k_sum(float *y, const float *a, const float *b, size_t n)
{
    each_four(n, aligned(y, a, b), [=](size_t i, size_t left, auto w) {
        const rz_quad x = LOAD(b, w);
        rz_quad q = LOAD(a, w);
        for (int k = 0; k < 4; k++) q.v[k] += x.v[k];
        STORE(y, q, w);
    });
}

extern "C" __global__ void rz_k_scale(float *y, float a, size_t n)
{
    each_four(n, aligned(y), [=](size_t i, size_t left, auto w) {
        rz_quad q = LOAD(y, w);
        for (int k = 0; k < 4; k++) q.v[k] *= a;
        STORE(y, q, w);
    });
}

extern "C" __global__ void rz_k_to_bf16(uint16_t *y, const float *x, size_t n)
{
    each_four(n, aligned(y, x), [=](size_t i, size_t left, auto w) {
        const rz_quad q = LOAD(x, w);
        uint16_t h[4];
        for (int k = 0; k < 4; k++) h[k] = rz_float_to_bf16(q.v[k]);
        if (decltype(w)::wide)
            *(uint2 *)(y + i) = make_uint2(h[0] | (uint32_t)h[1] << 16, h[2] | (uint32_t)h[3] << 16);
        else
            for (size_t k = 0; k < 4 && k < left; k++) y[i + k] = h[k];
    });
}

/* ---- Activations ---------------------------------------------------------------------------------------------- */

/* f<kind>(...) with a constant kind. */
#define EACH_KIND(kind, f, ...)                                                                                        \
    do {                                                                                                               \
        if (kind == RZ_KIND_QUICK_GELU) f<RZ_KIND_QUICK_GELU>(__VA_ARGS__);                                            \
        if (kind == RZ_KIND_GELU) f<RZ_KIND_GELU>(__VA_ARGS__);                                                        \
        if (kind == RZ_KIND_GELU_TANH) f<RZ_KIND_GELU_TANH>(__VA_ARGS__);                                              \
        if (kind == RZ_KIND_SILU) f<RZ_KIND_SILU>(__VA_ARGS__);                                                        \
        if (kind == RZ_KIND_RELU) f<RZ_KIND_RELU>(__VA_ARGS__);                                                        \
    } while (0)

template <int KIND> RZ_DEVICE void act(float *y, const float *x, size_t n)
{
    each_four(n, aligned(y, x), [=](size_t i, size_t left, auto w) {
        rz_quad q = LOAD(x, w);
        for (int k = 0; k < 4; k++) q.v[k] = rz_act_of(KIND, q.v[k]);
        STORE(y, q, w);
    });
}
extern "C" __global__ void rz_k_act(int kind, float *y, const float *x, size_t n)
{
    EACH_KIND(kind, act, y, x, n);
}

template <int KIND> RZ_DEVICE void act_bwd(float *dx, const float *dy, const float *x, size_t n)
{
    each_four(n, aligned(dx, dy, x), [=](size_t i, size_t left, auto w) {
        const rz_quad q = LOAD(x, w);
        rz_quad g = LOAD(dy, w);
        for (int k = 0; k < 4; k++) {
            float d;
            rz_act_both(KIND, q.v[k], &d);
            g.v[k] *= d;
        }
        STORE(dx, g, w);
    });
}
extern "C" __global__ void rz_k_act_bwd(int kind, float *dx, const float *dy, const float *x, size_t n)
{
    EACH_KIND(kind, act_bwd, dx, dy, x, n);
}

template <int KIND> RZ_DEVICE void gated(float *y, const float *gate, const float *up, size_t n)
{
    each_four(n, aligned(y, gate, up), [=](size_t i, size_t left, auto w) {
        const rz_quad u = LOAD(up, w);
        rz_quad q = LOAD(gate, w);
        for (int k = 0; k < 4; k++) q.v[k] = rz_act_of(KIND, q.v[k]) * u.v[k];
        STORE(y, q, w);
    });
}
extern "C" __global__ void rz_k_gated(int kind, float *y, const float *gate, const float *up, size_t n)
{
    EACH_KIND(kind, gated, y, gate, up, n);
}

template <int KIND>
RZ_DEVICE void gated_bwd(float *dgate, float *dup, const float *dy, const float *gate, const float *up, size_t n)
{
    each_four(n, aligned(dgate, dup, dy) && aligned(gate, up), [=](size_t i, size_t left, auto w) {
        const rz_quad g = LOAD(dy, w), u = LOAD(up, w), x = LOAD(gate, w);
        rz_quad dg, du;
        for (int k = 0; k < 4; k++) {
            float d;
            du.v[k] = g.v[k] * rz_act_both(KIND, x.v[k], &d);
            dg.v[k] = g.v[k] * u.v[k] * d;
        }
        STORE(dgate, dg, w);
        STORE(dup, du, w);
    });
}
extern "C" __global__ void rz_k_gated_bwd(int kind, float *dgate, float *dup, const float *dy, const float *gate,
                                          const float *up, size_t n)
{
    EACH_KIND(kind, gated_bwd, dgate, dup, dy, gate, up, n);
}

/* ---- Tables: every element by itself ------------------------------------------------------------------------------
 */

/* f(r, c) for every row and every fourth column. */
template <typename F> RZ_DEVICE void each_place(size_t rows, size_t cols, F f)
{
    const size_t first = 4 * ((size_t)blockIdx.x * blockDim.x + threadIdx.x), step = 4 * (size_t)gridDim.x * blockDim.x;
    for (size_t r = (size_t)blockIdx.y * blockDim.y + threadIdx.y; r < rows; r += (size_t)gridDim.y * blockDim.y)
        for (size_t c = first; c < cols; c += step) f(r, c);
}

template <bool WIDE> RZ_DEVICE void add_bias(float *y, const float *b, size_t rows, size_t cols)
{
    each_place(rows, cols, [=](size_t r, size_t c) {
        const rz_quad bias = rz_load4<WIDE>(b + c, cols - c);
        rz_quad q = rz_load4<WIDE>(y + r * cols + c, cols - c);
        for (int k = 0; k < 4; k++) q.v[k] += bias.v[k];
        rz_store4<WIDE>(y + r * cols + c, q, cols - c);
    });
}
extern "C" __global__ void rz_k_add_bias(float *y, const float *b, size_t rows, size_t cols)
{
    EITHER(aligned(y, b) && cols % 4 == 0, add_bias, y, b, rows, cols);
}

RZ_DEVICE uint64_t mix64(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

template <bool WIDE>
RZ_DEVICE void dropout(float *y, const float *x, uint32_t drop_below, float keep, uint64_t seed, const uint64_t *keys,
                       size_t rows, size_t cols)
{
    const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);
    each_place(rows, cols, [=](size_t r, size_t c) {
        const uint64_t row = mix64(seed + step) ^ mix64(keys[r] + 2 * step);
        rz_quad q = rz_load4<WIDE>(x + r * cols + c, cols - c);
        for (unsigned k = 0; k < 4; k += 2) { /* one number decides on two columns */
            const uint64_t h = mix64(row + (c + k + 1) * step);
            q.v[k] = (uint32_t)h < drop_below ? 0 : q.v[k] * keep;
            q.v[k + 1] = (uint32_t)(h >> 32) < drop_below ? 0 : q.v[k + 1] * keep;
        }
        rz_store4<WIDE>(y + r * cols + c, q, cols - c);
    });
}
extern "C" __global__ void rz_k_dropout(float *y, const float *x, uint32_t drop_below, float keep, uint64_t seed,
                                        const uint64_t *keys, size_t rows, size_t cols)
{
    EITHER(aligned(y, x) && cols % 4 == 0, dropout, y, x, drop_below, keep, seed, keys, rows, cols);
}

/* ---- Rows by index
 * --------------------------------------------------------------------------------------------------- */

RZ_DEVICE size_t row_at(const int32_t *rows, size_t i)
{
    return rows ? (size_t)rows[i] : i;
}

/* The numbers of rz_dtype. */
enum { F32, F16, BF16, I8, I4 };

RZ_DEVICE float scale_of(const void *scale, int dtype, size_t i)
{
    return dtype == F32 ? ((const float *)scale)[i] : rz_bf16_to_float(((const uint16_t *)scale)[i]);
}

/* An element of the table; `by` scales an integer. */
RZ_DEVICE float element(const void *table, int dtype, size_t at, float by)
{
    if (dtype == F16) return rz_f16_to_float(((const uint16_t *)table)[at]);
    if (dtype == BF16) return rz_bf16_to_float(((const uint16_t *)table)[at]);
    if (dtype == I8) return (float)((const int8_t *)table)[at] * by;
    return (float)((((const uint8_t *)table)[at / 2] >> (at & 1 ? 4 : 0) & 15) - 8) * by;
}

/* y[r] = table[ids[r]]. WIDE speaks of y, and of a table of floats. */
template <bool WIDE>
RZ_DEVICE void gather(float *y, const void *table, int dtype, size_t ld, const void *scale, int scale_dtype,
                      size_t group, const int32_t *ids, size_t rows, size_t cols)
{
    const size_t groups = group ? (ld + group - 1) / group : 0;
    each_place(rows, cols, [=](size_t r, size_t c) {
        const size_t id = (size_t)ids[r], at = id * ld + c, left = cols - c;
        rz_quad q = {{0, 0, 0, 0}};
        if (dtype == F32) {
            q = rz_load4<WIDE>((const float *)table + at, left);
        } else {
            const float by = dtype < I8 ? 1 : scale_of(scale, scale_dtype, id * groups + c / group);
            for (size_t k = 0; k < 4 && k < left; k++) q.v[k] = element(table, dtype, at + k, by);
        }
        rz_store4<WIDE>(y + r * cols + c, q, left);
    });
}
extern "C" __global__ void rz_k_gather(float *y, const void *table, int dtype, size_t ld, const void *scale,
                                       int scale_dtype, size_t group, const int32_t *ids, size_t rows, size_t cols)
{
    EITHER(aligned(y) && cols % 4 == 0 && (dtype != F32 || (aligned(table) && ld % 4 == 0)), gather, y, table, dtype,
           ld, scale, scale_dtype, group, ids, rows, cols);
}

/* dst[dst_rows[i]] = src[src_rows[i]]; no rows: i itself. */
template <bool WIDE>
RZ_DEVICE void copy_rows(float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
                         const int32_t *src_rows, size_t n, size_t cols)
{
    each_place(n, cols, [=](size_t i, size_t c) {
        const rz_quad q = rz_load4<WIDE>(src + row_at(src_rows, i) * src_ld + c, cols - c);
        rz_store4<WIDE>(dst + row_at(dst_rows, i) * dst_ld + c, q, cols - c);
    });
}
extern "C" __global__ void rz_k_copy_rows(float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src,
                                          size_t src_ld, const int32_t *src_rows, size_t n, size_t cols)
{
    EITHER(aligned(dst, src) && (dst_ld | src_ld | cols) % 4 == 0, copy_rows, dst, dst_ld, dst_rows, src, src_ld,
           src_rows, n, cols);
}

/* ---- Adding rows where several may go to one
 * ---------------------------------------------------------------------------- */

/* Entry j of a list adds a row to destination to[j]. A block looks at one entry: if an earlier one has the same
 * destination, that one's block does the work; else this block finds all entries of the destination and adds their rows
 * in order, a piece of the list at a time. */
enum { PIECE = 4 * THREADS };

struct found {
    uint32_t flags[THREADS / 4]; /* four bits in a byte for each thread */
    uint32_t entry[PIECE];
    unsigned n;
};

/* The entries of the piece that begins at `start`, of those in [first, last), that go to row `id`: bit k of the result
 * says that entry start + 4 * thread + k does. */
RZ_DEVICE unsigned matches(const int32_t *to, int32_t id, size_t start, size_t first, size_t last)
{
    unsigned bits = 0;
    for (unsigned k = 0; k < 4; k++) {
        const size_t j = start + 4 * threadIdx.x + k;
        if (j >= first && j < last && to[j] == id) bits |= 1u << k;
    }
    return bits;
}

/* Writes the entries of a piece into f->entry, in order. */
RZ_DEVICE void list_matches(struct found *f, unsigned bits, size_t start)
{
    ((uint8_t *)f->flags)[threadIdx.x] = (uint8_t)bits;
    __syncthreads();
    const unsigned word = threadIdx.x / 4;
    unsigned before = 0;
    if (bits || threadIdx.x == THREADS - 1) {
        for (unsigned i = 0; i < word; i++) before += rz_popcount(f->flags[i]);
        before += rz_popcount(f->flags[word] & ((1u << threadIdx.x % 4 * 8) - 1));
        for (unsigned k = 0; k < 4; k++)
            if (bits >> k & 1) f->entry[before++] = (uint32_t)(start + 4 * threadIdx.x + k);
    }
    if (threadIdx.x == THREADS - 1) f->n = before;
    __syncthreads();
}

/* y += the listed rows, in order; eight reads are under way at once. */
template <bool WIDE, typename Source>
RZ_DEVICE void add_listed(float *y, const struct found *f, Source source, size_t cols)
{
    for (size_t c = 4 * threadIdx.x; c < cols; c += PIECE) {
        rz_quad sum = rz_load4<WIDE>(y + c, cols - c);
        for (unsigned at = 0; at < f->n; at += 8) {
            rz_quad x[8];
            for (unsigned l = 0; l < 8; l++)
                if (at + l < f->n) x[l] = source.template load<WIDE>(f->entry[at + l], c, cols - c);
            for (unsigned l = 0; l < 8; l++)
                for (int k = 0; k < 4; k++)
                    if (at + l < f->n) sum.v[k] += x[l].v[k];
        }
        rz_store4<WIDE>(y + c, sum, cols - c);
    }
}

template <bool WIDE, typename Source>
RZ_DEVICE void add_entries(float *dst, size_t dst_ld, const int32_t *to, size_t first, size_t last, Source source,
                           size_t cols)
{
    __shared__ struct found f;
    for (size_t i = first + blockIdx.x; i < last; i += gridDim.x) {
        const int32_t id = to[i];
        bool earlier = false;
        for (size_t start = first; start < i && !earlier; start += PIECE)
            earlier = rz_block_any(matches(to, id, start, start, i) != 0);
        if (earlier) continue;
        for (size_t start = i; start < last; start += PIECE) {
            const unsigned bits = matches(to, id, start, start, last);
            if (!rz_block_any(bits != 0)) continue;
            list_matches(&f, bits, start);
            add_listed<WIDE>(dst + (size_t)id * dst_ld, &f, source, cols); /* the list stays until the next barrier */
        }
    }
}

struct from_rows {
    const float *src;
    size_t ld;
    const int32_t *rows;
    template <bool WIDE> __device__ __forceinline__ rz_quad load(size_t entry, size_t c, size_t left) const
    {
        return rz_load4<WIDE>(src + row_at(rows, entry) * ld + c, left);
    }
};

template <bool WIDE>
RZ_DEVICE void add_rows(float *dst, size_t dst_ld, const float *src, size_t src_ld, const int32_t *src_rows, size_t n,
                        size_t cols)
{
    each_place(n, cols, [=](size_t i, size_t c) {
        const rz_quad x = rz_load4<WIDE>(src + row_at(src_rows, i) * src_ld + c, cols - c);
        rz_quad q = rz_load4<WIDE>(dst + i * dst_ld + c, cols - c);
        for (int k = 0; k < 4; k++) q.v[k] += x.v[k];
        rz_store4<WIDE>(dst + i * dst_ld + c, q, cols - c);
    });
}
/* Destinations in order: a table. */
extern "C" __global__ void rz_k_add_rows(float *dst, size_t dst_ld, const float *src, size_t src_ld,
                                         const int32_t *src_rows, size_t n, size_t cols)
{
    EITHER(aligned(dst, src) && (dst_ld | src_ld | cols) % 4 == 0, add_rows, dst, dst_ld, src, src_ld, src_rows, n,
           cols);
}
/* Destinations of a list: entries. */
extern "C" __global__ void rz_k_add_rows_to(float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src,
                                            size_t src_ld, const int32_t *src_rows, size_t n, size_t cols)
{
    const struct from_rows source = {src, src_ld, src_rows};
    EITHER(aligned(dst, src) && (dst_ld | src_ld | cols) % 4 == 0, add_entries, dst, dst_ld, dst_rows, 0, n, source,
           cols);
}

/* ---- Pooling
 * -------------------------------------------------------------------------------------------------------------- */

/* y[g] = mean of the group's rows, added in order, eight reads under way at once. */
template <bool WIDE>
RZ_DEVICE void pool_mean(float *y, const float *x, const int32_t *rows, const int32_t *start, size_t n_groups,
                         size_t cols)
{
    each_place(n_groups, cols, [=](size_t g, size_t c) {
        const int32_t first = start[g], last = start[g + 1];
        rz_quad sum = {{0, 0, 0, 0}};
        for (int32_t i = first; i < last; i += 8) {
            rz_quad q[8];
            for (int l = 0; l < 8; l++)
                if (i + l < last) q[l] = rz_load4<WIDE>(x + (size_t)rows[i + l] * cols + c, cols - c);
            for (int l = 0; l < 8; l++)
                for (int k = 0; k < 4; k++)
                    if (i + l < last) sum.v[k] += q[l].v[k];
        }
        for (int k = 0; k < 4; k++)
            if (last > first) sum.v[k] /= (float)(last - first);
        rz_store4<WIDE>(y + g * cols + c, sum, cols - c);
    });
}
extern "C" __global__ void rz_k_pool_mean(float *y, const float *x, const int32_t *rows, const int32_t *start,
                                          size_t n_groups, size_t cols)
{
    EITHER(aligned(y, x) && cols % 4 == 0, pool_mean, y, x, rows, start, n_groups, cols);
}

/* A group's gradient, shared out among its rows. */
struct from_groups {
    const float *dy;
    const int32_t *start;
    size_t n_groups, ld;
    /* The group that holds the entry: the last that starts at or before it. */
    __device__ __forceinline__ size_t group(int32_t entry) const
    {
        size_t low = 0, high = n_groups;
        while (high - low > 1) {
            const size_t middle = low + (high - low) / 2;
            if (start[middle] <= entry)
                low = middle;
            else
                high = middle;
        }
        return low;
    }
    template <bool WIDE> __device__ __forceinline__ rz_quad load(size_t entry, size_t c, size_t left) const
    {
        const size_t g = group((int32_t)entry);
        const float share = 1.0f / (float)(start[g + 1] - start[g]);
        rz_quad q = rz_load4<WIDE>(dy + g * ld + c, left);
        for (int k = 0; k < 4; k++) q.v[k] *= share;
        return q;
    }
};
extern "C" __global__ void rz_k_pool_mean_bwd(float *dx, const float *dy, const int32_t *rows, const int32_t *start,
                                              size_t n_groups, size_t cols)
{
    const struct from_groups source = {dy, start, n_groups, cols};
    EITHER(aligned(dx, dy) && cols % 4 == 0, add_entries, dx, cols, rows, (size_t)start[0], (size_t)start[n_groups],
           source, cols);
}

/* ---- Images, rotary positions
 * ----------------------------------------------------------------------------------------------- */

/* A row is a patch; neighbours in it lie in one line of the image as long as the patch is wide. */
extern "C" __global__ void rz_k_patchify(float *y, const float *pixels, size_t n, uint32_t channels, uint32_t size,
                                         uint32_t patch)
{
    const uint32_t side = size / patch, cols = channels * patch * patch;
    each_place(n * side * side, cols, [=](size_t i, size_t first) {
        const size_t image = i / ((size_t)side * side);
        const uint32_t place = (uint32_t)(i % ((size_t)side * side)), top = place / side * patch;
        const uint32_t left = place % side * patch;
        rz_quad q;
        for (uint32_t k = 0; k < 4; k++) {
            const uint32_t c = (uint32_t)first + k < cols ? (uint32_t)first + k : cols - 1;
            const uint32_t line = c / patch, channel = line / patch;
            q.v[k] = pixels[((image * channels + channel) * size + top + line % patch) * size + left + c % patch];
        }
        rz_store4<false>(y + i * cols + first, q, cols - first);
    });
}

/* Pairs (i, i + half) of every head turned by an angle of row and i: threads of x take four pairs, threads of y heads.
 */
template <bool WIDE>
RZ_DEVICE void rope(float *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale, float sign,
                    size_t rows, size_t n_heads, size_t half)
{
    const size_t i = 4 * ((size_t)blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= half) return;
    const rz_quad freq = rz_load4<false>(inv_freq + i, half - i);
    for (size_t r = blockIdx.y; r < rows; r += gridDim.y) {
        rz_quad c, s;
        for (int k = 0; k < 4; k++) {
            sincosf((float)pos[r] * freq.v[k], &s.v[k], &c.v[k]);
            c.v[k] *= scale;
            s.v[k] = s.v[k] * scale * sign;
        }
        for (size_t h = (size_t)blockIdx.z * blockDim.y + threadIdx.y; h < n_heads;
             h += (size_t)gridDim.z * blockDim.y) {
            float *p = x + r * ld + h * 2 * half + i;
            rz_quad a = rz_load4<WIDE>(p, half - i), b = rz_load4<WIDE>(p + half, half - i);
            for (int k = 0; k < 4; k++) {
                const float low = a.v[k], high = b.v[k];
                a.v[k] = low * c.v[k] - high * s.v[k];
                b.v[k] = high * c.v[k] + low * s.v[k];
            }
            rz_store4<WIDE>(p, a, half - i);
            rz_store4<WIDE>(p + half, b, half - i);
        }
    }
}
extern "C" __global__ void rz_k_rope(float *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale,
                                     float sign, size_t rows, size_t n_heads, size_t half)
{
    EITHER(aligned(x) && (ld | half) % 4 == 0, rope, x, ld, pos, inv_freq, scale, sign, rows, n_heads, half);
}

/* ---- Sums over columns: gradients of biases and of the norms' weights
 * --------------------------------------------------------- */

/* A block has SUM_COLS columns: SUM_LANES pairs of threads share the rows; each sums about SUM_ROWS of its rows
 * at a time and then those sums, in float; the threads' sums are added in double. */
enum { SUM_THREADS = 512, SUM_COLS = 8, SUM_LANES = 4 * SUM_THREADS / SUM_COLS, SUM_ROWS = 64 };

enum norm_kind { NO_NORM, RMS, LAYER }; /* how x is normalised, from stats */

/* Four columns of row r of x, normalised. */
template <bool WIDE, norm_kind NORM>
RZ_DEVICE rz_quad normalised(const float *x, const float *stats, size_t r, size_t c, size_t cols)
{
    const float mean = NORM == LAYER ? stats[2 * r] : 0, rstd = NORM == LAYER ? stats[2 * r + 1] : stats[r];
    rz_quad q = rz_load4<WIDE>(x + r * cols + c, cols - c);
    for (int k = 0; k < 4; k++) q.v[k] = NORM == LAYER ? (q.v[k] - mean) * rstd : q.v[k] * rstd;
    return q;
}

/* For column c0 on: db[c] += sum of dy, dw[c] += sum of dy times the normalised x. Either may be NULL. */
template <bool WIDE, norm_kind NORM>
RZ_DEVICE void column_sums(float *dw, float *db, const float *dy, const float *x, const float *stats, size_t rows,
                           size_t cols, size_t c0)
{
    const int ahead = NORM == NO_NORM ? 8 : 3; /* rows whose reads are under way at once */
    __shared__ double part[SUM_THREADS / RZ_WARP][2][8];
    const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x, quad = thread % 2;
    const size_t c = c0 + 4 * quad, left = c < cols ? cols - c : 0;
    float total[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (size_t r = left ? thread / 2 : rows; r < rows;) {
        float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        for (int n = 0; n < SUM_ROWS && r < rows; n += ahead, r += ahead * SUM_LANES) {
            rz_quad g[ahead], q[ahead];
            for (int l = 0; l < ahead; l++) {
                const size_t at = r + l * SUM_LANES;
                if (at < rows) g[l] = rz_load4<WIDE>(dy + at * cols + c, left);
                if (at < rows && NORM != NO_NORM) q[l] = normalised<WIDE, NORM>(x, stats, at, c, cols);
            }
            for (int l = 0; l < ahead; l++)
                for (int k = 0; k < 4; k++) {
                    if (r + l * SUM_LANES >= rows) continue;
                    sum[k] += g[l].v[k];
                    if (NORM != NO_NORM) sum[4 + k] += g[l].v[k] * q[l].v[k];
                }
        }
        for (int k = 0; k < 8; k++) total[k] += sum[k];
    }
    for (int k = 0; k < 8; k++) {
        double whole = (double)total[k];
        for (int i = RZ_WARP / 2; i > 1; i /= 2) whole += __shfl_xor_sync(RZ_ALL_LANES, whole, i);
        if (thread % RZ_WARP < 2) part[thread / RZ_WARP][quad][k] = whole;
    }
    __syncthreads();
    if (thread >= 16 || c0 + thread / 8 * 4 + thread % 4 >= cols) return;
    double sum = 0;
    for (int i = 0; i < SUM_THREADS / RZ_WARP; i++) sum += part[i][thread / 8][thread % 8];
    float *to = thread % 8 < 4 ? db : dw;
    if (to) to[c0 + thread / 8 * 4 + thread % 4] += (float)sum;
}

/* A block for SUM_COLS columns. */
extern "C" __global__ void rz_k_add_bias_bwd(float *db, const float *dy, size_t rows, size_t cols)
{
    const size_t c0 = (size_t)blockIdx.x * SUM_COLS;
    if (aligned(dy) && cols % 4 == 0)
        column_sums<true, NO_NORM>(NULL, db, dy, NULL, NULL, rows, cols, c0);
    else
        column_sums<false, NO_NORM>(NULL, db, dy, NULL, NULL, rows, cols, c0);
}

/* ---- Rows: a warp or a block for each. A thread reads again what it has read before, from the cache, and nobody
 * else's elements, so that results may take the place of what they come from.
 * ------------------------------------------------- */

/* use(c, load(c)) for every four columns c of this thread; N reads are under way at once. */
template <int N, typename Load, typename Use> RZ_DEVICE void each_quad(size_t cols, Load load, Use use)
{
    const size_t step = 4 * blockDim.x;
    for (size_t first = 4 * threadIdx.x; first < cols; first += N * step) {
        decltype(load(first)) x[N];
        for (int l = 0; l < N; l++)
            if (first + l * step < cols) x[l] = load(first + l * step);
        for (int l = 0; l < N; l++)
            if (first + l * step < cols) use(first + l * step, x[l]);
    }
}
struct rz_two_quads {
    rz_quad a, b;
};
struct rz_three_quads {
    rz_quad a, b, c;
};
#define ROW_OF(p) rz_load4<WIDE>((p) + c, cols - c)

/* The row of this thread, counted from block `first_block` on. */
RZ_DEVICE size_t own_row(size_t first_block)
{
    return (blockIdx.x - first_block) * blockDim.y + threadIdx.y;
}

RZ_DEVICE float sum_of(rz_quad q)
{
    return (q.v[0] + q.v[1]) + (q.v[2] + q.v[3]);
}

template <bool WIDE>
RZ_DEVICE void layernorm(float *y, float *stats, const float *x, const float *w, const float *b, float eps, size_t cols)
{
    __shared__ float part[RZ_WARP];
    float sum = 0, squares = 0;
    const auto row = [=](size_t c) { return ROW_OF(x); };
    each_quad<4>(cols, row, [&](size_t, const rz_quad &q) { sum += sum_of(q); });
    const float mean = rz_block_sum(sum, part) / (float)cols;
    each_quad<4>(cols, row, [&](size_t c, rz_quad q) {
        for (size_t k = 0; k < 4; k++) {
            const float d = WIDE || k < cols - c ? q.v[k] - mean : 0;
            q.v[k] = d * d;
        }
        squares += sum_of(q);
    });
    const float rstd = 1.0f / sqrtf(rz_block_sum(squares, part) / (float)cols + eps);
    each_quad<2>(
        cols,
        [=](size_t c) {
            return rz_three_quads{ROW_OF(x), ROW_OF(w), ROW_OF(b)};
        },
        [=](size_t c, const rz_three_quads &in) {
            rz_quad q;
            for (int k = 0; k < 4; k++) q.v[k] = fmaf((in.a.v[k] - mean) * rstd, in.b.v[k], in.c.v[k]);
            rz_store4<WIDE>(y + c, q, cols - c);
        });
    if (stats && threadIdx.x == 0) stats[0] = mean, stats[1] = rstd;
}
extern "C" __global__ void rz_k_layernorm(float *y, float *stats, const float *x, const float *w, const float *b,
                                          float eps, size_t rows, size_t cols)
{
    const size_t r = own_row(0), at = r * cols;
    if (r >= rows) return;
    EITHER(aligned(y, x, w, b) && cols % 4 == 0, layernorm, y + at, stats ? stats + 2 * r : NULL, x + at, w, b, eps,
           cols);
}

template <bool WIDE>
RZ_DEVICE void rmsnorm(float *y, float *rstd, const float *x, const float *w, float eps, size_t cols)
{
    __shared__ float part[RZ_WARP];
    float squares = 0;
    each_quad<4>(
        cols, [=](size_t c) { return ROW_OF(x); },
        [&](size_t, rz_quad q) {
            for (int k = 0; k < 4; k++) q.v[k] *= q.v[k];
            squares += sum_of(q);
        });
    const float scale = 1.0f / sqrtf(rz_block_sum(squares, part) / (float)cols + eps);
    each_quad<4>(
        cols,
        [=](size_t c) {
            return rz_two_quads{ROW_OF(x), ROW_OF(w)};
        },
        [=](size_t c, const rz_two_quads &in) {
            rz_quad q;
            for (int k = 0; k < 4; k++) q.v[k] = in.a.v[k] * scale * in.b.v[k];
            rz_store4<WIDE>(y + c, q, cols - c);
        });
    if (rstd && threadIdx.x == 0) *rstd = scale;
}
extern "C" __global__ void rz_k_rmsnorm(float *y, float *rstd, const float *x, const float *w, float eps, size_t rows,
                                        size_t cols)
{
    const size_t r = own_row(0), at = r * cols;
    if (r >= rows) return;
    EITHER(aligned(y, x, w) && cols % 4 == 0, rmsnorm, y + at, rstd ? rstd + r : NULL, x + at, w, eps, cols);
}

/* With g = dy w and xhat the normalised x: dx += rstd (g - mean(g) - xhat mean(g xhat)); RMSNorm: without mean(g). */
template <bool WIDE, norm_kind NORM>
RZ_DEVICE void norm_dx(float *dx, const float *dy, const float *x, const float *stats, const float *w, size_t r,
                       size_t cols)
{
    __shared__ float part[RZ_WARP];
    const float rstd = NORM == LAYER ? stats[2 * r + 1] : stats[r];
    float sum = 0, dot = 0;
    dx += r * cols, dy += r * cols;
    const auto both = [=](size_t c) { /* g and xhat */
                                      const rz_quad weight = ROW_OF(w);
                                      rz_quad g = ROW_OF(dy);
                                      for (int k = 0; k < 4; k++) g.v[k] *= weight.v[k];
                                      return rz_two_quads{g, normalised<WIDE, NORM>(x, stats, r, c, cols)};
    };
    each_quad<2>(cols, both, [&](size_t, const rz_two_quads &in) {
        rz_quad gx;
        for (int k = 0; k < 4; k++) gx.v[k] = in.a.v[k] * in.b.v[k];
        sum += sum_of(in.a);
        dot += sum_of(gx);
    });
    const float mean_g = NORM == LAYER ? rz_block_sum(sum, part) / (float)cols : 0;
    const float mean_gx = rz_block_sum(dot, part) / (float)cols;
    each_quad<2>(
        cols,
        [=](size_t c) {
            const rz_two_quads in = both(c);
            return rz_three_quads{in.a, in.b, ROW_OF(dx)};
        },
        [=](size_t c, const rz_three_quads &in) {
            rz_quad d = in.c;
            for (int k = 0; k < 4; k++) d.v[k] += rstd * (in.a.v[k] - mean_g - in.b.v[k] * mean_gx);
            rz_store4<WIDE>(dx + c, d, cols - c);
        });
}

/* The first sum_blocks blocks sum columns, the others have rows. */
template <bool WIDE, norm_kind NORM>
RZ_DEVICE void norm_bwd(float *dx, float *dw, float *db, const float *dy, const float *x, const float *stats,
                        const float *w, size_t sum_blocks, size_t rows, size_t cols)
{
    if (blockIdx.x < sum_blocks) {
        column_sums<WIDE, NORM>(dw, db, dy, x, stats, rows, cols, (size_t)blockIdx.x * SUM_COLS);
        return;
    }
    const size_t r = own_row(sum_blocks);
    if (r < rows) norm_dx<WIDE, NORM>(dx, dy, x, stats, w, r, cols);
}
extern "C" __global__ void __launch_bounds__(SUM_THREADS, 2)
    rz_k_layernorm_bwd(float *dx, float *dw, float *db, const float *dy, const float *x, const float *stats,
                       const float *w, size_t sum_blocks, size_t rows, size_t cols)
{
    if (aligned(dx, dy, x, w) && cols % 4 == 0)
        norm_bwd<true, LAYER>(dx, dw, db, dy, x, stats, w, sum_blocks, rows, cols);
    else
        norm_bwd<false, LAYER>(dx, dw, db, dy, x, stats, w, sum_blocks, rows, cols);
}
extern "C" __global__ void __launch_bounds__(SUM_THREADS, 2)
    rz_k_rmsnorm_bwd(float *dx, float *dw, const float *dy, const float *x, const float *rstd, const float *w,
                     size_t sum_blocks, size_t rows, size_t cols)
{
    if (aligned(dx, dy, x, w) && cols % 4 == 0)
        norm_bwd<true, RMS>(dx, dw, NULL, dy, x, rstd, w, sum_blocks, rows, cols);
    else
        norm_bwd<false, RMS>(dx, dw, NULL, dy, x, rstd, w, sum_blocks, rows, cols);
}

/* ---- Unit vectors
 * ------------------------------------------------------------------------------------------------------- */

#define MIN_NORM 1e-12f

template <bool WIDE> RZ_DEVICE void l2norm(float *y, float *norm, const float *x, size_t cols)
{
    __shared__ double part[RZ_WARP];
    double sum = 0;
    const auto row = [=](size_t c) { return ROW_OF(x); };
    each_quad<4>(cols, row, [&](size_t, const rz_quad &q) {
        for (int k = 0; k < 4; k++) sum += (double)q.v[k] * (double)q.v[k];
    });
    const float length = (float)sqrt(rz_block_sum(sum, part)), by = length < MIN_NORM ? MIN_NORM : length;
    each_quad<4>(cols, row, [=](size_t c, rz_quad q) {
        for (int k = 0; k < 4; k++) q.v[k] /= by;
        rz_store4<WIDE>(y + c, q, cols - c);
    });
    if (norm && threadIdx.x == 0) *norm = length;
}
extern "C" __global__ void rz_k_l2norm(float *y, float *norm, const float *x, size_t rows, size_t cols)
{
    const size_t r = own_row(0), at = r * cols;
    if (r >= rows) return;
    EITHER(aligned(y, x) && cols % 4 == 0, l2norm, y + at, norm ? norm + r : NULL, x + at, cols);
}

/* dx += (dy - y (y . dy)) / |x|; a vector shorter than MIN_NORM was divided by a constant. */
template <bool WIDE> RZ_DEVICE void l2norm_bwd(float *dx, const float *dy, const float *y, float length, size_t cols)
{
    __shared__ double part[RZ_WARP];
    const bool tiny = length < MIN_NORM;
    const float inverse = 1.0f / (tiny ? MIN_NORM : length);
    double dot = 0;
    each_quad<4>(
        cols,
        [=](size_t c) {
            return rz_two_quads{ROW_OF(y), ROW_OF(dy)};
        },
        [&](size_t, const rz_two_quads &in) {
            for (int k = 0; k < 4; k++) dot += (double)in.a.v[k] * (double)in.b.v[k];
        });
    dot = rz_block_sum(dot, part);
    const float along = tiny ? 0 : (float)dot;
    each_quad<2>(
        cols,
        [=](size_t c) {
            return rz_three_quads{ROW_OF(y), ROW_OF(dy), ROW_OF(dx)};
        },
        [=](size_t c, const rz_three_quads &in) {
            rz_quad d = in.c;
            for (int k = 0; k < 4; k++) d.v[k] += (in.b.v[k] - in.a.v[k] * along) * inverse;
            rz_store4<WIDE>(dx + c, d, cols - c);
        });
}
extern "C" __global__ void rz_k_l2norm_bwd(float *dx, const float *dy, const float *y, const float *norm, size_t rows,
                                           size_t cols)
{
    const size_t r = own_row(0), at = r * cols;
    if (r >= rows) return;
    EITHER(aligned(dx, dy, y) && cols % 4 == 0, l2norm_bwd, dx + at, dy + at, y + at, norm[r], cols);
}

/* ---- Softmax cross-entropy, dot product
 * ------------------------------------------------------------------------------------ */

/* Logits with -infinity where the column is out of this row's softmax or past its end. */
template <bool WIDE> RZ_DEVICE rz_quad kept_logits(const float *logits, const float *keep, size_t c, size_t left)
{
    rz_quad q = rz_load4<WIDE>(logits + c, left);
    if (keep) {
        const rz_quad in = rz_load4<WIDE>(keep + c, left);
        for (int k = 0; k < 4; k++)
            if (in.v[k] == 0) q.v[k] = -INFINITY;
    }
    for (size_t k = 0; !WIDE && k < 4; k++)
        if (k >= left) q.v[k] = -INFINITY;
    return q;
}

template <bool WIDE>
RZ_DEVICE void softmax_xent(float *loss, float *dlogits, const float *logits, const float *targets, const float *keep,
                            float weight, size_t cols)
{
    __shared__ float part[RZ_WARP];
    float max = -INFINITY, mass = 0, sum = 0, own = 0;
    const auto kept = [=](size_t c) { return kept_logits<WIDE>(logits, keep, c, cols - c); };
    const auto both = [=](size_t c) { return rz_two_quads{kept(c), ROW_OF(targets)}; };
    each_quad<4>(cols, both, [&](size_t, const rz_two_quads &in) {
        max = fmaxf(max, fmaxf(fmaxf(in.a.v[0], in.a.v[1]), fmaxf(in.a.v[2], in.a.v[3])));
        mass += sum_of(in.b);
    });
    max = rz_block_max(max, part);
    if (rz_block_sum(mass, part) == 0) { /* the same in every thread of the row */
        const rz_quad zero = {{0, 0, 0, 0}};
        for (size_t c = 4 * threadIdx.x; dlogits && c < cols; c += 4 * blockDim.x)
            rz_store4<WIDE>(dlogits + c, zero, cols - c);
        if (threadIdx.x == 0) *loss = 0;
        return;
    }
    each_quad<4>(cols, kept, [&](size_t, rz_quad x) {
        for (int k = 0; k < 4; k++) x.v[k] = expf(x.v[k] - max);
        sum += sum_of(x);
    });
    const float denominator = rz_block_sum(sum, part), log_z = logf(denominator), scale = 1.0f / denominator;
    each_quad<2>(cols, both, [&](size_t c, const rz_two_quads &in) {
        rz_quad x;
        for (int k = 0; k < 4; k++) {
            const float d = in.a.v[k] - max, t = in.b.v[k];
            own += t == 0 ? 0 : t * (log_z - d); /* a column left out: 0, not 0 * inf */
            x.v[k] = weight * (expf(d) * scale - t);
        }
        if (dlogits) rz_store4<WIDE>(dlogits + c, x, cols - c);
    });
    own = rz_block_sum(own, part);
    if (threadIdx.x == 0) *loss = own;
}
extern "C" __global__ void rz_k_softmax_xent(float *loss, float *dlogits, const float *logits, const float *targets,
                                             const float *keep, float weight, size_t rows, size_t cols)
{
    const size_t r = own_row(0), at = r * cols;
    if (r >= rows) return;
    EITHER(aligned(dlogits, logits, targets, keep) && cols % 4 == 0, softmax_xent, loss + r,
           dlogits ? dlogits + at : NULL, logits + at, targets + at, keep ? keep + at : NULL, weight, cols);
}

/* Flat: each block's share of the dot product to sums. The grid follows from n alone. */
extern "C" __global__ void rz_k_dot(double *sums, const float *x, const float *y, size_t n)
{
    __shared__ double part[RZ_WARP];
    double sum = 0;
    const bool wide = aligned(x, y);
    for (size_t i = 4 * ((size_t)blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += 4 * (size_t)gridDim.x * blockDim.x) {
        const bool four = wide && n - i >= 4;
        const rz_quad a = four ? rz_load4<true>(x + i, 4) : rz_load4<false>(x + i, n - i);
        const rz_quad b = four ? rz_load4<true>(y + i, 4) : rz_load4<false>(y + i, n - i);
        for (int k = 0; k < 4; k++) sum += (double)a.v[k] * (double)b.v[k];
    }
    sum = rz_block_sum(sum, part);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

/* ---- Optimiser
 * -------------------------------------------------------------------------------------------------------------- */

template <bool WIDE>
RZ_DEVICE void adamw(const rz_adamw_args &a, const rz_adamw_args::rz_adamw_array &x, size_t i, size_t left)
{
    const rz_quad g = rz_load4<WIDE>(x.g + i, left);
    rz_quad m = rz_load4<WIDE>(x.m + i, left), v = rz_load4<WIDE>(x.v + i, left), w = rz_load4<WIDE>(x.w + i, left);
    for (int k = 0; k < 4; k++) {
        const float d = g.v[k] * a.grad_scale;
        m.v[k] += (d - m.v[k]) * (1 - a.beta1);
        v.v[k] = v.v[k] * a.beta2 + d * d * (1 - a.beta2);
        w.v[k] = w.v[k] * x.decay - a.step_size * (m.v[k] / (sqrtf(v.v[k]) * a.inv_root_c2 + a.eps));
    }
    rz_store4<WIDE>(x.m + i, m, left);
    rz_store4<WIDE>(x.v + i, v, left);
    rz_store4<WIDE>(x.w + i, w, left);
    for (size_t k = 0; x.half && k < 4 && k < left; k++) x.half[i + k] = rz_float_to_bf16(w.v[k]);
}

/* A block for each tile of each slot. */
extern "C" __global__ void rz_k_adamw_step(const __grid_constant__ rz_adamw_args a)
{
    unsigned slot = 0;
    for (unsigned step = RZ_ADAMW_SLOTS / 2; step; step /= 2) /* the last slot that begins at or before this block */
        if (slot + step < a.n_slots && a.first_block[slot + step] <= blockIdx.x) slot += step;
    const rz_adamw_args::rz_adamw_array &x = a.slots[slot];
    const size_t first = (size_t)(blockIdx.x - a.first_block[slot]) * RZ_ADAMW_TILE;
    const size_t last = x.n - first < RZ_ADAMW_TILE ? x.n : first + RZ_ADAMW_TILE;
    const bool wide = aligned(x.w, x.m, x.v, x.g);
    for (size_t i = first + 4 * threadIdx.x; i < last; i += 4 * RZ_ADAMW_THREADS)
        if (wide && last - i >= 4)
            adamw<true>(a, x, i, 4);
        else
            adamw<false>(a, x, i, last - i);
}
