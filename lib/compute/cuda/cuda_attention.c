/* cuda_attention.c - attention on the GPU: which kernel, and how many blocks of it. SPDX-License-Identifier: Apache-2.0
 */
#include "attention_args.h"
#include "cuda.h"

static struct rz_attention_args args_of(const rz_attn *a, const void *q, const void *k, const void *v, void *out)
{
    return (struct rz_attention_args){
        .q_start = a->q_seq.start_dev,
        .kv_start = a->kv_seq.start_dev,
        .n_heads = a->n_heads,
        .n_kv_heads = a->n_kv_heads,
        .head_dim = a->head_dim,
        .q_ld = a->q_ld,
        .kv_ld = a->kv_ld,
        .out_ld = a->out_ld,
        .window = a->window,
        .scale = a->scale,
        .causal = a->causal,
        .q = q,
        .k = k,
        .v = v,
        .out = out,
    };
}

static size_t tiles(size_t n, size_t tile)
{
    return (n + tile - 1) / tile;
}

/* Of the longest sequence. */
static size_t most_tiles(rz_ragged seq, size_t tile)
{
    size_t most = 0;
    for (size_t i = 0; i < seq.n; i++) {
        const size_t n = tiles((size_t)(seq.start[i + 1] - seq.start[i]), tile);
        most = n > most ? n : most;
    }
    return most;
}

/* One block per head of a sequence, tile of its rows, and part of a head's columns. */
static void launch(rz_stream *s, enum rz_cuda_kernel k, struct rz_attention_args *args, rz_ragged seq, size_t heads,
                   size_t tile, size_t columns, unsigned threads, size_t shared)
{
    const rz_cuda_dim grid = {(unsigned)(seq.n * heads), (unsigned)most_tiles(seq, tile),
                              (unsigned)tiles(args->head_dim, columns)};
    if (grid.y) rz_cuda_launch(s, k, grid, (rz_cuda_dim){threads, 1, 1}, shared, RZ_CUDA_ARGS(args));
}

/* The plain kernels hold 32, 64 or 128 columns of a head. */
static void launch_plain(rz_stream *s, const enum rz_cuda_kernel kernels[3], struct rz_attention_args *args,
                         rz_ragged seq, size_t heads)
{
    const size_t i = args->head_dim <= 32 ? 0 : args->head_dim <= 64 ? 1 : 2;
    launch(s, kernels[i], args, seq, heads, RZ_TILE, (size_t)32 << i, RZ_TILE_THREADS, RZ_TILE_SHARED);
}

static void attention(rz_stream *s, const rz_attn *a, float *out, float *lse, const float *q, const float *k,
                      const float *v)
{
    static const enum rz_cuda_kernel kernels[] = {RZ_K_attention_32, RZ_K_attention_64, RZ_K_attention_128};
    struct rz_attention_args args = args_of(a, q, k, v, out);
    args.lse = lse;
    launch_plain(s, kernels, &args, a->q_seq, a->n_heads);
}

static void attention_bwd(rz_stream *s, const rz_attn *a, float *dq, float *dk, float *dv, const float *dout,
                          const float *out, const float *lse, const float *q, const float *k, const float *v)
{
    static const enum rz_cuda_kernel queries[] = {RZ_K_attention_queries_32, RZ_K_attention_queries_64,
                                                  RZ_K_attention_queries_128},
                                     keys[] = {RZ_K_attention_keys_32, RZ_K_attention_keys_64, RZ_K_attention_keys_128};
    const rz_mark mark = rz_arena_mark(s);
    struct rz_attention_args args = args_of(a, q, k, v, (void *)out);
    args.lse = (float *)lse;
    args.dout = dout, args.dq = dq, args.dk = dk, args.dv = dv;
    args.delta = rz_arena_f32(s, (size_t)a->q_seq.start[a->q_seq.n], a->n_heads);
    if (!args.delta) return;
    launch_plain(s, queries, &args, a->q_seq, a->n_heads);
    launch_plain(s, keys, &args, a->kv_seq, a->n_kv_heads);
    rz_arena_release(s, mark);
}

/* A tile of queries, and two of keys and values. */
static size_t mma_shared(size_t tile, size_t columns)
{
    return RZ_MMA_ALIGN + (tile + 4 * RZ_MMA_KEYS) * columns * sizeof(uint16_t);
}

/* Can the matrix units take it? They read 16 bytes at a time, and know the largest score before the scale. */
static bool fits_mma(const rz_stream *s, const rz_attn *a, const struct rz_attention_args *args)
{
    const size_t places = (size_t)args->q | (size_t)args->k | (size_t)args->v | (size_t)args->out;
    const size_t widest = mma_shared(64, 256) <= rz_cuda_max_shared(s) ? 256 : 128;
    return rz_cuda_capability(s) >= 80 && a->head_dim % 16 == 0 && a->head_dim <= widest && a->scale > 0 &&
           places % 16 == 0 && (a->q_ld | a->kv_ld | a->out_ld) % 8 == 0;
}

/* Tiles of 128 queries, or of 64 where those would leave multiprocessors idle or alone with one block. */
static void launch_mma(rz_stream *s, struct rz_attention_args *args, rz_ragged seq)
{
    static const enum rz_cuda_kernel many[] = {RZ_K_attention_mma_32, RZ_K_attention_mma_64, RZ_K_attention_mma_128},
                                     few[] = {RZ_K_attention_mma_32_few, RZ_K_attention_mma_64_few,
                                              RZ_K_attention_mma_128_few, RZ_K_attention_mma_256_few};
    const size_t i = args->head_dim <= 32 ? 0 : args->head_dim <= 64 ? 1 : args->head_dim <= 128 ? 2 : 3;
    const size_t blocks = seq.n * args->n_heads * most_tiles(seq, 128);
    const bool enough = i < RZ_COUNT(many) && blocks >= 2 * (size_t)rz_cuda_multiprocessors(s);
    const size_t columns = (size_t)32 << i, tile = enough ? 128 : 64;
    launch(s, enough ? many[i] : few[i], args, seq, args->n_heads, tile, columns, RZ_MMA_THREADS,
           mma_shared(tile, columns));
}

static void half_attention(rz_stream *s, const rz_attn *a, uint16_t *out, const uint16_t *q, const uint16_t *k,
                           const uint16_t *v)
{
    struct rz_attention_args args = args_of(a, q, k, v, out);
    if (!fits_mma(s, a, &args)) {
        launch(s, RZ_K_attention_half, &args, a->q_seq, a->n_heads, RZ_TILE, RZ_HALF_COLUMNS, RZ_TILE_THREADS,
               RZ_TILE_SHARED);
        return;
    }
    launch_mma(s, &args, a->q_seq);
}

void rz_cuda_attention_ops(struct rz_ops *ops)
{
    ops->attention = attention;
    ops->attention_bwd = attention_bwd;
    ops->half_attention = half_attention;
}
