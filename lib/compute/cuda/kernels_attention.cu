/* kernels_attention.cu - attention without a matrix of queries by keys in memory: a block takes a tile of rows and
 * walks over the tiles of the other side, the softmax kept up on the way. Tiles of keys begin at multiples of the tile,
 * so that a row's bits do not depend on the queries beside it. First the plain kernels (float, forward and backward;
 * bfloat16 where the matrix units cannot), then the forward of bfloat16 on matrix units.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels.cuh"

#include "attention_args.h"

/* ---- What a block works on --------------------------------------------------------------------- */

struct place {
    size_t q0, kv0; /* first rows of the sequence */
    int n_q, n_kv;
    unsigned head;
};

/* Blocks with neighbouring numbers share a sequence and, of grouped heads, keys and values. */
RZ_DEVICE place place_of(const rz_attention_args &a, size_t n_heads)
{
    const unsigned seq = blockIdx.x / (unsigned)n_heads;
    place p;
    p.head = blockIdx.x % (unsigned)n_heads;
    p.q0 = (size_t)a.q_start[seq];
    p.kv0 = (size_t)a.kv_start[seq];
    p.n_q = (int)(a.q_start[seq + 1] - a.q_start[seq]);
    p.n_kv = (int)(a.kv_start[seq + 1] - a.kv_start[seq]);
    return p;
}

/* Heads that read the same keys and values. */
RZ_DEVICE unsigned group_of(const rz_attention_args &a)
{
    return (unsigned)a.n_heads / (unsigned)a.n_kv_heads;
}

/* Keys that query i may see: [lo, hi). */
struct span {
    int lo, hi;
};
RZ_DEVICE span visible(const rz_attention_args &a, const place &p, int i)
{
    span v = {0, p.n_kv};
    if (!a.causal) return v;
    v.hi = min(max(i + 1 + p.n_kv - p.n_q, 0), p.n_kv);
    if (a.window && (size_t)v.hi > a.window) v.lo = v.hi - (int)a.window;
    return v;
}

/* The last tiles of a causal sequence have the most keys: they come first. */
RZ_DEVICE int last_first(int n_rows, int tile)
{
    return (n_rows + tile - 1) / tile - 1 - (int)blockIdx.y;
}

/* ---- Plain kernels: products of tiles of 64 rows in shared memory ------------------------------------- */

/* Thread (ty, tx) of 16 x 16 holds rows 4 ty + i of a tile and, of what it multiplies by, rows tx + 16 j or the columns
 * of column_of. A warp holds 8 rows and does nothing where none of them exists. Pitches count float4. */
enum { TILE = RZ_TILE, THREADS = RZ_TILE_THREADS, DEPTH = 32, PITCH = DEPTH / 4 + 1, TILE_PITCH = TILE / 4 + 1 };

struct tile_memory {
    float4 space[2][2 * TILE * PITCH]; /* one is computed with, the other fetched into: */
                                       /* DEPTH columns of both sides of scores, or rows of up to 128 columns */
    float4 tile[TILE * TILE_PITCH];    /* what products multiplies by */
};
static_assert(sizeof(tile_memory) == RZ_TILE_SHARED, "the host asks for it");

template <typename T> struct rows {
    const T *p; /* the first one */
    size_t ld;
    int n, cols; /* what exists: zeros follow */
    bool fours;  /* can be read 16 bytes at a time */
};
template <typename T> RZ_DEVICE rows<T> rows_of(const void *p, size_t ld, size_t first, int n, size_t column, int cols)
{
    const T *const at = (const T *)p + first * ld + column;
    rows<T> r = {at, ld, n, cols, rz_in_sixteens(at, ld, sizeof(T)) && cols % 4 == 0};
    return r;
}

RZ_DEVICE void narrow(float *y, float x)
{
    *y = x;
}
RZ_DEVICE void narrow(uint16_t *y, float x)
{
    *y = rz_float_to_bf16(x);
}

/* Columns c .. c + 3 of a row, there after rz_async_wait and a barrier. */
RZ_DEVICE void fetch_four(float4 *to, const rows<float> &x, int row, int c)
{
    const float *const p = x.p + (size_t)row * x.ld + c;
    if (x.fours)
        rz_async<16>(to, p, row < x.n && c < x.cols);
    else
#pragma unroll
        for (int i = 0; i < 4; i++) rz_async<4>((float *)to + i, p + i, row < x.n && c + i < x.cols);
}
RZ_DEVICE void fetch_four(float4 *to, const rows<uint16_t> &x, int row, int c)
{
    const uint16_t *const p = x.p + (size_t)row * x.ld + c;
#pragma unroll
    for (int i = 0; i < 4; i++) ((float *)to)[i] = row < x.n && c + i < x.cols ? rz_bf16_to_float(p[i]) : 0;
}

/* N rows from `row` on, W times four columns from `column` on. */
template <int N, int W, int P, typename T> RZ_DEVICE void fetch_rows(float4 *to, const rows<T> &x, int row, int column)
{
    const int r = (int)threadIdx.x / W, c = (int)threadIdx.x % W;
#pragma unroll
    for (int i = 0; i < N; i += THREADS / W) fetch_four(to + (r + i) * P + c, x, row + r + i, column + 4 * c);
}

/* The next step: what it computes with (returned) has come, and nobody needs what the step before it had; there goes
 * what `fetch` brings for the step after it. */
template <typename Fetch> RZ_DEVICE const float4 *next_step(tile_memory &m, int &side, Fetch fetch)
{
    rz_async_wait();
    __syncthreads();
    const float4 *const here = m.space[side];
    side ^= 1;
    fetch(m.space[side]);
    return here;
}

/* The steps of scores, and of products with tiles of COLS columns: */
template <typename T> RZ_DEVICE void fetch_scores(float4 *to, const rows<T> &x, const rows<T> &y, int step)
{
    fetch_rows<TILE, DEPTH / 4, PITCH>(to, x, 0, step * DEPTH);
    fetch_rows<TILE, DEPTH / 4, PITCH>(to + TILE * PITCH, y, 0, step * DEPTH);
}
template <int COLS> struct part {
    enum { ROWS = COLS > 64 ? 32 : TILE, STEPS = TILE / ROWS };
};
template <int COLS, typename T> RZ_DEVICE void fetch_products(float4 *to, const rows<T> &y, int step, int column)
{
    fetch_rows<part<COLS>::ROWS, COLS / 4, COLS / 4>(to, y, step * part<COLS>::ROWS, column);
}

RZ_DEVICE float fma4(float4 a, float4 b, float sum)
{
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

/* s[i][j] += sum over DEPTH columns of x[4 ty + i] y[tx + 16 j], for the first J of the four j. */
template <int J> RZ_DEVICE void scores_of(float s[4][4], const float4 *xs)
{
    const float4 *const ys = xs + TILE * PITCH;
    const int tx = (int)threadIdx.x % 16, ty = (int)threadIdx.x / 16;
#pragma unroll 2
    for (int k = 0; k < DEPTH / 4; k++) {
        float4 a[4];
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = xs[(4 * ty + i) * PITCH + k];
#pragma unroll
        for (int j = 0; j < J; j++) {
            const float4 b = ys[(tx + 16 * j) * PITCH + k];
#pragma unroll
            for (int i = 0; i < 4; i++) s[i][j] = fma4(a[i], b, s[i][j]);
        }
    }
}
/* n: rows of y that exist. */
RZ_DEVICE void scores(float s[4][4], const float4 *xs, int n)
{
    if (n > 16)
        scores_of<4>(s, xs);
    else
        scores_of<1>(s, xs); /* the end of a sequence that is a little longer than a tile */
}

/* Four, or with 32 columns two, neighbours of every 64 (32): read in one piece. */
template <int COLS> RZ_DEVICE int column_of(int j)
{
    enum { WIDE = COLS < 64 ? 2 : 4 };
    return (int)threadIdx.x % 16 * WIDE + j % WIDE + 16 * WIDE * (j / WIDE);
}

template <int COLS> RZ_DEVICE void read_columns(float y[COLS / 16], const float *row)
{
    if constexpr (COLS == 32) {
        const float2 v = *(const float2 *)(row + column_of<COLS>(0));
        y[0] = v.x, y[1] = v.y;
    } else {
#pragma unroll
        for (int j = 0; j < COLS / 16; j += 4) {
            const float4 v = *(const float4 *)(row + column_of<COLS>(j));
            y[j] = v.x, y[j + 1] = v.y, y[j + 2] = v.z, y[j + 3] = v.w;
        }
    }
}

/* acc[i][j] += sum over rows k of a step of tile[4 ty + i][k] y[k][column_of(j)]; n: rows of y that exist. */
template <int COLS>
RZ_DEVICE void products(float acc[4][COLS / 16], const tile_memory &m, const float4 *y, int step, int n)
{
    const float *const ys = (const float *)y;
    const int ty = (int)threadIdx.x / 16, k0 = step * part<COLS>::ROWS, depth = min((int)part<COLS>::ROWS, n - k0);
#pragma unroll 2
    for (int k = 0; k < depth; k += 4) {
        float4 p[4];
#pragma unroll
        for (int i = 0; i < 4; i++) p[i] = m.tile[(4 * ty + i) * TILE_PITCH + (k0 + k) / 4];
#pragma unroll
        for (int d = 0; d < 4; d++) {
            float v[COLS / 16];
            read_columns<COLS>(v, ys + (k + d) * COLS);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float w = d == 0 ? p[i].x : d == 1 ? p[i].y : d == 2 ? p[i].z : p[i].w;
#pragma unroll
                for (int j = 0; j < COLS / 16; j++) acc[i][j] = fmaf(w, v[j], acc[i][j]);
            }
        }
    }
}

/* A warp writes and reads its own rows of the tile alone. */
RZ_DEVICE void write_tile(tile_memory &m, const float s[4][4])
{
    float *const tile = (float *)m.tile;
    const int tx = (int)threadIdx.x % 16, ty = (int)threadIdx.x / 16;
    __syncwarp(); /* what is there has been read */
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) tile[(4 * ty + i) * 4 * TILE_PITCH + tx + 16 * j] = s[i][j];
    __syncwarp();
}

template <int COLS> RZ_DEVICE void clear(float acc[4][COLS / 16])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < COLS / 16; j++) acc[i][j] = 0;
}

/* The 16 threads of a row. */
RZ_DEVICE float row_max(float x)
{
#pragma unroll
    for (int i = 8; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(RZ_ALL_LANES, x, i));
    return x;
}
RZ_DEVICE float row_sum(float x)
{
#pragma unroll
    for (int i = 8; i > 0; i /= 2) x += __shfl_xor_sync(RZ_ALL_LANES, x, i);
    return x;
}

/* Scores of a row become e^(s - max) of the keys it sees; what is there so far is scaled to the new max. */
template <int COLS>
RZ_DEVICE void soften(float s[4], span see, int key, float scale, float *top, float *sum, float acc[COLS / 16])
{
    float most = -INFINITY, part = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int at = key + 16 * j;
        s[j] = at >= see.lo && at < see.hi ? s[j] * scale : -INFINITY;
        most = fmaxf(most, s[j]);
    }
    most = fmaxf(*top, row_max(most));
    const float base = fmaxf(most, -0x1p127f), shrink = expf(*top - base); /* finite where nothing is seen yet */
#pragma unroll
    for (int j = 0; j < 4; j++) {
        s[j] = expf(s[j] - base);
        part += s[j];
    }
    *sum = fmaf(*sum, shrink, part); /* of this thread's keys */
    *top = most;
#pragma unroll
    for (int j = 0; j < COLS / 16; j++) acc[j] *= shrink;
}

template <typename T, int COLS> RZ_DEVICE void attention(const rz_attention_args &a)
{
    RZ_SHARED(tile_memory, memory);
    tile_memory &m = *memory;
    const place p = place_of(a, a.n_heads);
    const int i0 = last_first(p.n_q, TILE) * TILE, ty = (int)threadIdx.x / 16, tx = (int)threadIdx.x % 16;
    if (i0 < 0) return;
    const int n = min(TILE, p.n_q - i0), hd = (int)a.head_dim, first = (int)blockIdx.z * COLS;
    const bool live = ty / 2 * 8 < n;
    const size_t column = (size_t)p.head * hd, kv_column = (size_t)(p.head / group_of(a)) * hd;
    const int begin = visible(a, p, i0).lo / TILE * TILE, end = visible(a, p, i0 + n - 1).hi;
    const int n_scores = (hd + DEPTH - 1) / DEPTH, n_steps = n_scores + part<COLS>::STEPS;
    const rows<T> q = rows_of<T>(a.q, a.q_ld, p.q0 + i0, n, column, hd);
    const auto fetch = [&](float4 *to, int j0, int step) {
        if (step == n_steps) j0 += TILE, step = 0;
        if (j0 >= end) return;
        const rows<T> kv = rows_of<T>(step < n_scores ? a.k : a.v, a.kv_ld, p.kv0 + j0, p.n_kv - j0, kv_column, hd);
        if (step < n_scores)
            fetch_scores(to, q, kv, step);
        else
            fetch_products<COLS>(to, kv, step - n_scores, first);
    };
    float s[4][4], acc[4][COLS / 16], top[4], sum[4];
    clear<COLS>(acc);
#pragma unroll
    for (int i = 0; i < 4; i++) top[i] = -INFINITY, sum[i] = 0;
    int side = 0;
    fetch(m.space[0], begin, 0);
    for (int j0 = begin; j0 < end; j0 += TILE) {
        clear<64>(s);
        for (int step = 0; step < n_steps; step++) {
            const float4 *const x = next_step(m, side, [&](float4 *to) { fetch(to, j0, step + 1); });
            if (!live) continue;
            if (step < n_scores) {
                scores(s, x, p.n_kv - j0);
                continue;
            }
            if (step == n_scores) {
#pragma unroll
                for (int i = 0; i < 4; i++)
                    soften<COLS>(s[i], visible(a, p, i0 + 4 * ty + i), j0 + tx, a.scale, &top[i], &sum[i], acc[i]);
                write_tile(m, s);
            }
            products<COLS>(acc, m, x, step - n_scores, p.n_kv - j0);
        }
    }
    if (!live) return;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float total = row_sum(sum[i]), scale = total == 0 ? 0 : 1 / total; /* 0: no key is visible */
        const size_t row = p.q0 + i0 + 4 * ty + i;
        if (4 * ty + i >= n) continue;
        T *const y = (T *)a.out + row * a.out_ld + column;
#pragma unroll
        for (int j = 0; j < COLS / 16; j++)
            if (first + column_of<COLS>(j) < hd) narrow(&y[first + column_of<COLS>(j)], acc[i][j] * scale);
        if (a.lse && first == 0 && tx == 0) a.lse[row * a.n_heads + p.head] = top[i] + logf(total);
    }
}

/* ---- Backward --------------------------------------------------------------------------------------
 * P = exp(scale q k^T - lse);  dV = P^T dO;  dP = dO V^T;  dS = scale P (dP - delta);  dQ = dS K;  dK = dS^T Q.
 * One kernel goes over queries, finds delta and adds to dQ; the next goes over keys and adds to dK and dV: no two
 * blocks add to the same place. */

template <int COLS>
RZ_DEVICE void add_rows(float *y, size_t ld, int head_dim, int first, int n, const float acc[4][COLS / 16])
{
    const int ty = (int)threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < COLS / 16; j++) {
            const int c = first + column_of<COLS>(j);
            if (4 * ty + i < n && c < head_dim) y[(size_t)(4 * ty + i) * ld + c] += acc[i][j];
        }
}

/* This thread's part of a row's sum of x y. */
RZ_DEVICE float dot_part(const float *x, const float *y, int n)
{
    float sum = 0;
    for (int c = (int)threadIdx.x % 16; c < n; c += 16) sum = fmaf(x[c], y[c], sum);
    return sum;
}

/* Scores of a row become dS. */
RZ_DEVICE void score_gradient(float s[4], const float dp[4], span see, int key, float scale, float lse, float delta)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int at = key + 16 * j;
        const float e = expf(s[j] * scale - lse) * (dp[j] - delta) * scale;
        s[j] = at >= see.lo && at < see.hi ? e : 0;
    }
}

template <int COLS> RZ_DEVICE void backward_queries(const rz_attention_args &a)
{
    RZ_SHARED(tile_memory, memory);
    tile_memory &m = *memory;
    const place p = place_of(a, a.n_heads);
    const int i0 = last_first(p.n_q, TILE) * TILE, ty = (int)threadIdx.x / 16, tx = (int)threadIdx.x % 16;
    if (i0 < 0) return;
    const int n = min(TILE, p.n_q - i0), hd = (int)a.head_dim, first = (int)blockIdx.z * COLS;
    const bool live = ty / 2 * 8 < n;
    const size_t column = (size_t)p.head * hd, kv_column = (size_t)(p.head / group_of(a)) * hd;
    const int begin = visible(a, p, i0).lo / TILE * TILE, end = visible(a, p, i0 + n - 1).hi;
    const int n_scores = (hd + DEPTH - 1) / DEPTH, n_steps = 2 * n_scores + part<COLS>::STEPS;
    const rows<float> q = rows_of<float>(a.q, a.q_ld, p.q0 + i0, n, column, hd);
    const rows<float> out = rows_of<float>(a.out, a.out_ld, p.q0 + i0, n, column, hd);
    const rows<float> dout = rows_of<float>(a.dout, a.out_ld, p.q0 + i0, n, column, hd);
    const auto fetch = [&](float4 *to, int j0, int step) {
        if (step == n_steps) j0 += TILE, step = 0;
        if (j0 >= end) return;
        const bool second = step >= n_scores && step < 2 * n_scores;
        const rows<float> kv = rows_of<float>(second ? a.v : a.k, a.kv_ld, p.kv0 + j0, p.n_kv - j0, kv_column, hd);
        if (step < 2 * n_scores)
            fetch_scores(to, second ? dout : q, kv, second ? step - n_scores : step);
        else
            fetch_products<COLS>(to, kv, step - 2 * n_scores, first);
    };
    float s[4][4], dp[4][4], acc[4][COLS / 16], lse[4], delta[4];
    clear<COLS>(acc);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const size_t at = (p.q0 + i0 + 4 * ty + i) * a.n_heads + p.head;
        const bool exists = 4 * ty + i < n;
        lse[i] = exists ? a.lse[at] : 0;
        delta[i] = exists ? dot_part(out.p + (4 * ty + i) * out.ld, dout.p + (4 * ty + i) * dout.ld, hd) : 0;
        delta[i] = row_sum(delta[i]);
        if (exists && tx == 0 && first == 0) a.delta[at] = delta[i]; /* for the kernel over keys */
    }
    int side = 0;
    fetch(m.space[0], begin, 0);
    for (int j0 = begin; j0 < end; j0 += TILE) {
        clear<64>(s);
        clear<64>(dp);
        for (int step = 0; step < n_steps; step++) {
            const float4 *const x = next_step(m, side, [&](float4 *to) { fetch(to, j0, step + 1); });
            if (!live) continue;
            if (step < n_scores) {
                scores(s, x, p.n_kv - j0);
            } else if (step < 2 * n_scores) {
                scores(dp, x, p.n_kv - j0);
            } else {
                if (step == 2 * n_scores) {
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        score_gradient(s[i], dp[i], visible(a, p, i0 + 4 * ty + i), j0 + tx, a.scale, lse[i], delta[i]);
                    write_tile(m, s);
                }
                products<COLS>(acc, m, x, step - 2 * n_scores, p.n_kv - j0);
            }
        }
    }
    add_rows<COLS>(a.dq + (p.q0 + i0) * a.q_ld + column, a.q_ld, hd, first, n, acc);
}

/* Queries that see a key of [j, j + n): [lo, hi), lo at a tile's beginning. */
RZ_DEVICE span seen_by(const rz_attention_args &a, const place &p, int j, int n)
{
    span v = {0, p.n_q};
    if (!a.causal) return v;
    v.lo = max(j + p.n_q - p.n_kv, 0) / TILE * TILE;
    if (a.window && a.window < (size_t)p.n_kv) v.hi = min(max(j + n - 1 + (int)a.window + p.n_q - p.n_kv, 0), p.n_q);
    return v;
}

/* P and dS of a tile, keys as rows; n: queries from i0 on. */
RZ_DEVICE void backward_tile(const rz_attention_args &a, const place &p, unsigned head, int j0, int i0, int n,
                             float s[4][4], float dp[4][4])
{
    const int ty = (int)threadIdx.x / 16, tx = (int)threadIdx.x % 16;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int query = tx + 16 * j;
        const size_t at = (p.q0 + i0 + query) * a.n_heads + head;
        const float lse = query < n ? a.lse[at] : 0, delta = query < n ? a.delta[at] : 0;
        const span see = visible(a, p, i0 + query);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int key = j0 + 4 * ty + i;
            const bool seen = query < n && key >= see.lo && key < see.hi;
            const float e = expf(s[i][j] * a.scale - lse);
            dp[i][j] = seen ? e * (dp[i][j] - delta) * a.scale : 0;
            s[i][j] = seen ? e : 0;
        }
    }
}

template <int COLS> RZ_DEVICE void backward_keys(const rz_attention_args &a)
{
    RZ_SHARED(tile_memory, memory);
    tile_memory &m = *memory;
    const place p = place_of(a, a.n_kv_heads);
    const int j0 = (int)blockIdx.y * TILE, n = min(TILE, p.n_kv - j0), hd = (int)a.head_dim;
    if (n <= 0) return;
    const bool live = (int)threadIdx.x / 32 * 8 < n;
    const int first = (int)blockIdx.z * COLS, n_scores = (hd + DEPTH - 1) / DEPTH;
    enum { STEPS = part<COLS>::STEPS };
    const int n_steps = 2 * n_scores + 2 * STEPS;
    const unsigned group = group_of(a), last_head = (p.head + 1) * group;
    const size_t column = (size_t)p.head * hd;
    const rows<float> k = rows_of<float>(a.k, a.kv_ld, p.kv0 + j0, n, column, hd);
    const rows<float> v = rows_of<float>(a.v, a.kv_ld, p.kv0 + j0, n, column, hd);
    const span by = seen_by(a, p, j0, n);
    const auto fetch = [&](float4 *to, unsigned head, int i0, int step) {
        if (step == n_steps) i0 += TILE, step = 0;
        if (i0 >= by.hi) i0 = by.lo, head++;
        if (i0 >= by.hi || head >= last_head) return;
        const bool second = step >= n_scores && step < 2 * n_scores + STEPS; /* dout for dP, and then for dV */
        const rows<float> x = rows_of<float>(second ? a.dout : a.q, second ? a.out_ld : a.q_ld, p.q0 + i0, p.n_q - i0,
                                             (size_t)head * hd, hd);
        if (step < 2 * n_scores)
            fetch_scores(to, second ? v : k, x, second ? step - n_scores : step);
        else
            fetch_products<COLS>(to, x, (step - 2 * n_scores) % STEPS, first);
    };
    float s[4][4], dp[4][4], dk[4][COLS / 16], dv[4][COLS / 16];
    clear<COLS>(dk);
    clear<COLS>(dv);
    int side = 0;
    fetch(m.space[0], p.head * group, by.lo, 0);
    for (unsigned head = p.head * group; head < last_head; head++)
        for (int i0 = by.lo; i0 < by.hi; i0 += TILE) {
            clear<64>(s);
            clear<64>(dp);
            for (int step = 0; step < n_steps; step++) {
                const float4 *const x = next_step(m, side, [&](float4 *to) { fetch(to, head, i0, step + 1); });
                const int sums = step - 2 * n_scores;
                if (!live) continue;
                if (step < n_scores) scores(s, x, p.n_q - i0);
                if (step >= n_scores && sums < 0) scores(dp, x, p.n_q - i0);
                if (sums == 0) {
                    backward_tile(a, p, head, j0, i0, p.n_q - i0, s, dp);
                    write_tile(m, s);
                }
                if (sums == STEPS) write_tile(m, dp);
                if (sums >= 0 && sums < STEPS) products<COLS>(dv, m, x, sums, p.n_q - i0);
                if (sums >= STEPS) products<COLS>(dk, m, x, sums - STEPS, p.n_q - i0);
            }
        }
    const size_t at = (p.kv0 + j0) * a.kv_ld + column;
    add_rows<COLS>(a.dk + at, a.kv_ld, hd, first, n, dk);
    add_rows<COLS>(a.dv + at, a.kv_ld, hd, first, n, dv);
}

#define RZ_PLAIN(name, call)                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) rz_k_##name(rz_attention_args a)                          \
    {                                                                                                                  \
        call(a);                                                                                                       \
    }
RZ_PLAIN(attention_32, (attention<float, 32>))
RZ_PLAIN(attention_64, (attention<float, 64>))
RZ_PLAIN(attention_128, (attention<float, 128>))
RZ_PLAIN(attention_half, (attention<uint16_t, RZ_HALF_COLUMNS>))
RZ_PLAIN(attention_queries_32, backward_queries<32>)
RZ_PLAIN(attention_queries_64, backward_queries<64>)
RZ_PLAIN(attention_queries_128, backward_queries<128>)
RZ_PLAIN(attention_keys_32, backward_keys<32>)
RZ_PLAIN(attention_keys_64, backward_keys<64>)
RZ_PLAIN(attention_keys_128, backward_keys<128>)

/* ---- Forward of bfloat16 on matrix units -----------------------------------------------------------------
 * Four warps, each with M times 16 queries of the tile (a query's bits are the same for any M); scores, softmax and
 * sums of a query stay in the registers of its warp. The next keys and values are fetched meanwhile. */

#if RZ_HAS_MMA

enum { MMA_KEYS = RZ_MMA_KEYS, MMA_WARPS = RZ_MMA_THREADS / RZ_WARP };

/* Where a row's 16 bytes number `piece` are: 8 rows below one another use all banks. */
template <unsigned COLS> RZ_DEVICE uint32_t piece_at(unsigned row, unsigned piece)
{
    const unsigned turn = COLS == 32 ? row / 2 % 4 : row % 8;
    return row * COLS * 2 + (piece ^ turn) * 16;
}

/* Rows of a head into shared memory, all threads together; zeros behind the n that exist and past head_dim. */
template <unsigned COLS, unsigned ROWS>
RZ_DEVICE void fetch(uint32_t to, const uint16_t *from, size_t ld, int n, size_t head_dim)
{
    const unsigned pieces = COLS / 8, step = RZ_MMA_THREADS / pieces;
    const unsigned row = threadIdx.x / pieces, piece = threadIdx.x % pieces;
    const int last = piece * 8 < head_dim ? n - (int)row : 0;
    from += row * ld + piece * 8;
#pragma unroll
    for (unsigned r = 0; r < ROWS; r += step, from += step * ld)
        rz_async_16(to + piece_at<COLS>(row + r, piece), from, (int)r < last);
}

/* Of a warp: M times 16 queries. Columns of scores are keys, 8 to a block. */
template <unsigned COLS, unsigned M> struct queries {
    float score[M][MMA_KEYS / 8][4], out[M][COLS / 8][4];
    /* Of rows l / 4 and l / 4 + 8 of lane l: factor times the largest score; the sum of this lane's keys. */
    float top[M][2], sum[M][2];
};

/* q, k: this lane's places in the first 16 columns of queries and of keys (see rz_load_matrices). */
template <unsigned COLS, unsigned M> RZ_DEVICE void mma_scores(queries<COLS, M> &w, uint32_t q, uint32_t k)
{
#pragma unroll
    for (unsigned m = 0; m < M; m++)
#pragma unroll
        for (unsigned j = 0; j < MMA_KEYS / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) w.score[m][j][i] = 0;
#pragma unroll
    for (unsigned c = 0; c < COLS / 16; c++) {
        uint32_t a[M][4];
#pragma unroll
        for (unsigned m = 0; m < M; m++) rz_load_matrices<false>(a[m], (q ^ c * 32) + m * 16 * COLS * 2);
#pragma unroll
        for (unsigned j = 0; j < MMA_KEYS / 16; j++) {
            uint32_t b[4];
            rz_load_matrices<false>(b, (k ^ c * 32) + j * 16 * COLS * 2);
#pragma unroll
            for (unsigned m = 0; m < M; m++) {
                rz_mma_bf16(w.score[m][2 * j], a[m], b);
                rz_mma_bf16(w.score[m][2 * j + 1], a[m], b + 2);
            }
        }
    }
}

/* v: this lane's place in the first 16 columns of values. */
template <unsigned COLS, unsigned M> RZ_DEVICE void mma_sum(queries<COLS, M> &w, uint32_t v)
{
#pragma unroll
    for (unsigned j = 0; j < MMA_KEYS / 16; j++) {
        uint32_t a[M][4]; /* a block of scores lies in the registers as one of the left factor does */
#pragma unroll
        for (unsigned m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[m][i] = rz_pack_bf16(w.score[m][2 * j + i / 2][i % 2 * 2], w.score[m][2 * j + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (unsigned c = 0; c < COLS / 16; c++) {
            uint32_t b[4];
            rz_load_matrices<true>(b, (v ^ c * 32) + j * 16 * COLS * 2);
#pragma unroll
            for (unsigned m = 0; m < M; m++) {
                rz_mma_bf16(w.out[m][2 * c], a[m], b);
                rz_mma_bf16(w.out[m][2 * c + 1], a[m], b + 2);
            }
        }
    }
}

/* Keys from j0 on that row `query` and those below it do not see get -infinity. */
template <unsigned COLS, unsigned M>
RZ_DEVICE void mma_mask(const rz_attention_args &a, const place &p, queries<COLS, M> &w, int query, int j0)
{
    const unsigned lane = threadIdx.x % RZ_WARP;
#pragma unroll
    for (unsigned m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const span see = visible(a, p, query + (int)(16 * m + 8 * half + lane / 4));
#pragma unroll
            for (unsigned j = 0; j < MMA_KEYS / 8; j++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int key = j0 + (int)(8 * j + lane % 4 * 2) + i;
                    if (key < see.lo || key >= see.hi) w.score[m][j][2 * half + i] = -INFINITY;
                }
        }
}

/* Scores become 2^(factor s - top); what is there so far is scaled to the new top. A row is in four lanes. */
template <unsigned COLS, unsigned M> RZ_DEVICE void mma_soften(queries<COLS, M> &w, float factor)
{
#pragma unroll
    for (unsigned m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = -INFINITY, part = 0;
#pragma unroll
            for (unsigned j = 0; j < MMA_KEYS / 8; j++)
                most = fmaxf(most, fmaxf(w.score[m][j][2 * half], w.score[m][j][2 * half + 1]));
            most = fmaxf(most, __shfl_xor_sync(RZ_ALL_LANES, most, 1));
            most = fmaxf(most, __shfl_xor_sync(RZ_ALL_LANES, most, 2));
            most = fmaxf(w.top[m][half], most * factor); /* the old one has its bits still: it is scaled by 1 */
            const float base = fmaxf(most, -0x1p127f);   /* finite where nothing is seen yet */
            const float shrink = rz_exp2(w.top[m][half] - base);
            w.top[m][half] = most;
#pragma unroll
            for (unsigned j = 0; j < MMA_KEYS / 8; j++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float *const s = &w.score[m][j][2 * half + i];
                    *s = rz_exp2(fmaf(*s, factor, -base));
                    part += *s;
                }
            w.sum[m][half] = fmaf(w.sum[m][half], shrink, part);
#pragma unroll
            for (unsigned c = 0; c < COLS / 8; c++) {
                w.out[m][c][2 * half] *= shrink;
                w.out[m][c][2 * half + 1] *= shrink;
            }
        }
}

/* Results of a warp to where its queries were in shared memory (`at`: of row 0 of the tile), from there to y. */
template <unsigned COLS, unsigned M>
RZ_DEVICE void mma_write(queries<COLS, M> &w, unsigned char *at, unsigned first, uint16_t *y, size_t ld, unsigned n,
                         size_t head_dim)
{
    const unsigned pieces = COLS / 8, lane = threadIdx.x % RZ_WARP;
#pragma unroll
    for (unsigned m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = w.sum[m][half];
            sum += __shfl_xor_sync(RZ_ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(RZ_ALL_LANES, sum, 2);
            const float scale = sum == 0 ? 0 : 1 / sum; /* 0: no key is visible */
            const unsigned row = first + 16 * m + 8 * half + lane / 4;
#pragma unroll
            for (unsigned c = 0; c < pieces; c++)
                *(uint32_t *)(at + piece_at<COLS>(row, c) + lane % 4 * 4) =
                    rz_pack_bf16(w.out[m][c][2 * half] * scale, w.out[m][c][2 * half + 1] * scale);
        }
    __syncwarp();
    for (unsigned i = lane; i < 16 * M * pieces; i += RZ_WARP) {
        const unsigned row = first + i / pieces, piece = i % pieces;
        if (row < n && piece * 8 < head_dim)
            *(uint4 *)(y + row * ld + piece * 8) = *(const uint4 *)(at + piece_at<COLS>(row, piece));
    }
}

template <unsigned COLS, unsigned M> RZ_DEVICE void mma_attention(const rz_attention_args &a)
{
    const int QUERIES = MMA_WARPS * 16 * M, ROW = COLS * 2;
    RZ_SHARED(unsigned char, memory);
    const place p = place_of(a, a.n_heads);
    const int i0 = last_first(p.n_q, QUERIES) * QUERIES;
    if (i0 < 0) return;
    const unsigned lane = threadIdx.x % RZ_WARP, first = threadIdx.x / RZ_WARP * 16 * M; /* of this warp's rows */
    const int n = min(QUERIES, p.n_q - i0);
    const uint32_t skip = (0 - rz_shared_at(memory)) % RZ_MMA_ALIGN, q_at = rz_shared_at(memory) + skip;
    const uint32_t k_at = q_at + QUERIES * ROW, v_at = k_at + MMA_KEYS * ROW, other = 2 * MMA_KEYS * ROW;
    const uint32_t q_lane = q_at + piece_at<COLS>(first + lane % 16, lane / 16);
    const uint32_t k_lane = k_at + piece_at<COLS>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    const uint32_t v_lane = v_at + piece_at<COLS>(lane % 16, lane / 16);
    const size_t hd = a.head_dim, kv = p.kv0 * a.kv_ld + p.head / group_of(a) * hd;
    const uint16_t *const k = (const uint16_t *)a.k + kv, *const v = (const uint16_t *)a.v + kv;
    const int begin = visible(a, p, i0).lo / MMA_KEYS * MMA_KEYS, end = visible(a, p, i0 + n - 1).hi;
    const span top_row = visible(a, p, i0 + (int)first),
               last_row = visible(a, p, i0 + min((int)first + 16 * (int)M, n) - 1);
    queries<COLS, M> w;
#pragma unroll
    for (unsigned m = 0; m < M; m++) {
        w.top[m][0] = w.top[m][1] = -INFINITY;
        w.sum[m][0] = w.sum[m][1] = 0;
#pragma unroll
        for (unsigned c = 0; c < COLS / 8; c++) w.out[m][c][0] = w.out[m][c][1] = w.out[m][c][2] = w.out[m][c][3] = 0;
    }
    fetch<COLS, QUERIES>(q_at, (const uint16_t *)a.q + (p.q0 + i0) * a.q_ld + p.head * hd, a.q_ld, n, hd);
    const auto fetch_keys = [&](int j0, uint32_t side) {
        if (j0 >= end) return;
        fetch<COLS, MMA_KEYS>(k_at + side, k + (size_t)j0 * a.kv_ld, a.kv_ld, p.n_kv - j0, hd);
        fetch<COLS, MMA_KEYS>(v_at + side, v + (size_t)j0 * a.kv_ld, a.kv_ld, p.n_kv - j0, hd);
    };
    fetch_keys(begin, 0);
    uint32_t side = 0;
    for (int j0 = begin; j0 < end; j0 += MMA_KEYS, side ^= other) {
        rz_async_wait();
        __syncthreads(); /* these keys and values are there, and all have done with those before */
        fetch_keys(j0 + MMA_KEYS, side ^ other);
        if ((int)first >= n || j0 >= last_row.hi || j0 + MMA_KEYS <= top_row.lo) continue;
        mma_scores(w, q_lane, k_lane + side);
        if (j0 < last_row.lo || j0 + MMA_KEYS > top_row.hi) mma_mask(a, p, w, i0 + (int)first, j0);
        mma_soften(w, a.scale * 1.44269504f); /* log2(e) */
        mma_sum(w, v_lane + side);
    }
    rz_async_wait();
    __syncthreads(); /* where no key is seen the queries may only now have come */
    uint16_t *const y = (uint16_t *)a.out + (p.q0 + i0) * a.out_ld + p.head * hd;
    mma_write(w, memory + skip, first, y, a.out_ld, (unsigned)n, hd);
}

#define RZ_MMA(cols, m) mma_attention<cols, m>(a)
#else
#define RZ_MMA(cols, m) (void)a
#endif

/* blocks: that a multiprocessor is to hold. */
#define RZ_MMA_KERNEL(name, cols, m, blocks)                                                                           \
    extern "C" __global__ void __launch_bounds__(RZ_MMA_THREADS, blocks) rz_k_##name(rz_attention_args a)              \
    {                                                                                                                  \
        RZ_MMA(cols, m);                                                                                               \
    }
RZ_MMA_KERNEL(attention_mma_32, 32, 2, 3)
RZ_MMA_KERNEL(attention_mma_64, 64, 2, 3)
RZ_MMA_KERNEL(attention_mma_128, 128, 2, 2)
RZ_MMA_KERNEL(attention_mma_32_few, 32, 1, 4)
RZ_MMA_KERNEL(attention_mma_64_few, 64, 1, 4)
RZ_MMA_KERNEL(attention_mma_128_few, 128, 1, 3)
RZ_MMA_KERNEL(attention_mma_256_few, 256, 1, 2)
