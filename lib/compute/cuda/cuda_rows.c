/* cuda_rows.c - ops on flat arrays and rows: the launches of kernels_rows.cu, which says what shapes there are.
 * SPDX-License-Identifier: Apache-2.0 */
#include "adamw_args.h"
#include "cuda.h"

/* As in kernels_rows.cu. */
enum { THREADS = 256, FOUR = 4, WARP = 32, SUM_THREADS = 512, SUM_COLS = 8 };
enum { NARROW = 1024 };  /* columns of a row that is a warp's */
enum { GRID_Y = 65535 }; /* most blocks in y */
enum { RESIDENT = 8 };   /* blocks of 256 threads that a multiprocessor holds */
enum { DOT_BLOCKS = 1024 };

static size_t pieces(size_t n, size_t piece)
{
    return n / piece + (n % piece != 0);
}
static size_t at_most(size_t n, size_t limit)
{
    return n < limit ? n : limit;
}
/* The smallest power of two that is n or more, at most THREADS. */
static unsigned power_of_two(size_t n)
{
    unsigned p = 1;
    while (p < n && p < THREADS) p *= 2;
    return p;
}
/* Blocks that fill the device a few times over: more would not be faster. */
static size_t plenty(const rz_stream *s)
{
    return (size_t)rz_cuda_multiprocessors(s) * RESIDENT * 2;
}

static void launch(rz_stream *s, enum rz_cuda_kernel k, size_t blocks, rz_cuda_dim block, void **args)
{
    if (blocks > INT32_MAX)
        rz_stream_fail(s, RADZ_E_LIMIT, "cuda: %zu blocks are too many for one launch", blocks);
    else
        rz_cuda_launch(s, k, (rz_cuda_dim){(unsigned)blocks, 1, 1}, block, 0, args);
}

/* n elements, four to a thread. */
static void launch_flat(rz_stream *s, enum rz_cuda_kernel k, size_t n, void **args)
{
    launch(s, k, at_most(pieces(n, FOUR * THREADS), plenty(s)), (rz_cuda_dim){THREADS, 1, 1}, args);
}

static void launch_table(rz_stream *s, enum rz_cuda_kernel k, size_t rows, size_t cols, void **args)
{
    const unsigned x = power_of_two(pieces(cols, FOUR)), y = THREADS / x;
    const size_t across = at_most(pieces(cols, (size_t)FOUR * x), plenty(s)), most = pieces(plenty(s), across);
    const size_t down = at_most(at_most(pieces(rows, y), most), GRID_Y);
    rz_cuda_launch(s, k, (rz_cuda_dim){(unsigned)across, (unsigned)down, 1}, (rz_cuda_dim){x, y, 1}, 0, args);
}

/* A warp or a block for each row. The shape follows from the columns alone. */
static void launch_rows(rz_stream *s, enum rz_cuda_kernel k, size_t rows, size_t cols, void **args)
{
    const rz_cuda_dim narrow = {WARP, THREADS / WARP, 1}, wide = {THREADS, 1, 1};
    const rz_cuda_dim block = cols <= NARROW ? narrow : wide;
    launch(s, k, pieces(rows, block.y), block, args);
}
/* The same after sum_blocks blocks that sum columns. */
static void launch_norm_bwd(rz_stream *s, enum rz_cuda_kernel k, size_t sum_blocks, size_t rows, size_t cols,
                            void **args)
{
    const rz_cuda_dim narrow = {WARP, SUM_THREADS / WARP, 1}, wide = {SUM_THREADS, 1, 1};
    const rz_cuda_dim block = cols <= NARROW ? narrow : wide;
    launch(s, k, sum_blocks + pieces(rows, block.y), block, args);
}

/* ---- Flat arrays --------------------------------------------------------------------------------- */

static void fill(rz_stream *s, float *y, float value, size_t n)
{
    launch_flat(s, RZ_K_fill, n, RZ_CUDA_ARGS(&y, &value, &n));
}
static void sum(rz_stream *s, float *y, const float *a, const float *b, size_t n)
{
    launch_flat(s, RZ_K_sum, n, RZ_CUDA_ARGS(&y, &a, &b, &n));
}
static void scale(rz_stream *s, float *y, float a, size_t n)
{
    launch_flat(s, RZ_K_scale, n, RZ_CUDA_ARGS(&y, &a, &n));
}
static void to_bf16(rz_stream *s, uint16_t *y, const float *x, size_t n)
{
    launch_flat(s, RZ_K_to_bf16, n, RZ_CUDA_ARGS(&y, &x, &n));
}

static void act(rz_stream *s, rz_act_kind kind, float *y, const float *x, size_t n)
{
    int k = (int)kind;
    launch_flat(s, RZ_K_act, n, RZ_CUDA_ARGS(&k, &y, &x, &n));
}
static void act_bwd(rz_stream *s, rz_act_kind kind, float *dx, const float *dy, const float *x, size_t n)
{
    int k = (int)kind;
    launch_flat(s, RZ_K_act_bwd, n, RZ_CUDA_ARGS(&k, &dx, &dy, &x, &n));
}
static void gated(rz_stream *s, rz_act_kind kind, float *y, const float *gate, const float *up, size_t n)
{
    int k = (int)kind;
    launch_flat(s, RZ_K_gated, n, RZ_CUDA_ARGS(&k, &y, &gate, &up, &n));
}
static void gated_bwd(rz_stream *s, rz_act_kind kind, float *dgate, float *dup, const float *dy, const float *gate,
                      const float *up, size_t n)
{
    int k = (int)kind;
    launch_flat(s, RZ_K_gated_bwd, n, RZ_CUDA_ARGS(&k, &dgate, &dup, &dy, &gate, &up, &n));
}

/* Puts slots from the first on into the arguments, as many as find room; their blocks and their number. */
static size_t fill_adamw(struct rz_adamw_args *a, const rz_adamw_slot *slots, size_t n, float decay, size_t *blocks)
{
    size_t i = 0;
    *blocks = 0;
    for (a->n_slots = 0; i < n && a->n_slots < RZ_ADAMW_SLOTS && *blocks < INT32_MAX / 2; i++) {
        const rz_adamw_slot *x = &slots[i];
        if (x->n == 0) continue;
        a->first_block[a->n_slots] = (unsigned)*blocks;
        a->slots[a->n_slots++] =
            (struct rz_adamw_array){x->w, x->m, x->v, x->g, x->half, x->n, x->decay ? decay : 1.0f};
        *blocks += pieces(x->n, RZ_ADAMW_TILE);
    }
    return i;
}

static void adamw_step(rz_stream *s, const rz_adamw *o, const rz_adamw_slot *slots, size_t n_slots)
{
    const double c1 = 1 - pow((double)o->beta1, (double)o->step), c2 = 1 - pow((double)o->beta2, (double)o->step);
    const float decay = (float)(1 - (double)o->lr * (double)o->weight_decay);
    struct rz_adamw_args a = {.grad_scale = o->grad_scale, .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps};
    a.step_size = (float)((double)o->lr / c1);
    a.inv_root_c2 = (float)(1 / sqrt(c2));
    for (size_t i = 0, blocks; i < n_slots;) {
        i += fill_adamw(&a, slots + i, n_slots - i, decay, &blocks);
        if (blocks) launch(s, RZ_K_adamw_step, blocks, (rz_cuda_dim){RZ_ADAMW_THREADS, 1, 1}, RZ_CUDA_ARGS(&a));
    }
}

/* A grid that depends on n alone, so that the order of the sum does too. */
static double dot(rz_stream *s, const float *x, const float *y, size_t n)
{
    double host[DOT_BLOCKS], total = 0;
    const size_t blocks = at_most(pieces(n, FOUR * THREADS), DOT_BLOCKS);
    const rz_mark mark = rz_arena_mark(s);
    double *sums = rz_arena_bytes(s, blocks * sizeof *sums);
    if (!sums) return (double)NAN;
    launch(s, RZ_K_dot, blocks, (rz_cuda_dim){THREADS, 1, 1}, RZ_CUDA_ARGS(&sums, &x, &y, &n));
    rz_download(s, host, sums, blocks * sizeof *sums);
    rz_arena_release(s, mark);
    if (rz_stream_failed(s)) return (double)NAN;
    for (size_t i = 0; i < blocks; i++) total += host[i];
    return total;
}

/* ---- Tables ---------------------------------------------------------------------------------------- */

static void add_bias(rz_stream *s, float *y, const float *b, size_t rows, size_t cols)
{
    launch_table(s, RZ_K_add_bias, rows, cols, RZ_CUDA_ARGS(&y, &b, &rows, &cols));
}
static void add_bias_bwd(rz_stream *s, float *db, const float *dy, size_t rows, size_t cols)
{
    launch(s, RZ_K_add_bias_bwd, pieces(cols, SUM_COLS), (rz_cuda_dim){SUM_THREADS, 1, 1},
           RZ_CUDA_ARGS(&db, &dy, &rows, &cols));
}
static void dropout(rz_stream *s, float *y, const float *x, float p, uint64_t seed, const uint64_t *keys, size_t rows,
                    size_t cols)
{
    uint32_t drop_below = (uint32_t)((double)p * 4294967296.0);
    float keep = 1.0f / (1.0f - p);
    launch_table(s, RZ_K_dropout, rows, cols, RZ_CUDA_ARGS(&y, &x, &drop_below, &keep, &seed, &keys, &rows, &cols));
}

static void gather(rz_stream *s, float *y, rz_mat table, const int32_t *ids, size_t rows, size_t cols)
{
    int dtype = (int)table.dtype, scale_dtype = (int)table.scale_dtype;
    launch_table(
        s, RZ_K_gather, rows, cols,
        RZ_CUDA_ARGS(&y, &table.data, &dtype, &table.ld, &table.scale, &scale_dtype, &table.group, &ids, &rows, &cols));
}
static void copy_rows(rz_stream *s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
                      const int32_t *src_rows, size_t n, size_t cols)
{
    launch_table(s, RZ_K_copy_rows, n, cols,
                 RZ_CUDA_ARGS(&dst, &dst_ld, &dst_rows, &src, &src_ld, &src_rows, &n, &cols));
}
static void add_rows(rz_stream *s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
                     const int32_t *src_rows, size_t n, size_t cols)
{
    if (dst_rows)
        launch(s, RZ_K_add_rows_to, at_most(n, INT32_MAX), (rz_cuda_dim){THREADS, 1, 1},
               RZ_CUDA_ARGS(&dst, &dst_ld, &dst_rows, &src, &src_ld, &src_rows, &n, &cols));
    else
        launch_table(s, RZ_K_add_rows, n, cols, RZ_CUDA_ARGS(&dst, &dst_ld, &src, &src_ld, &src_rows, &n, &cols));
}

static void pool_mean(rz_stream *s, float *y, const float *x, const int32_t *rows, const int32_t *start,
                      size_t n_groups, size_t cols)
{
    launch_table(s, RZ_K_pool_mean, n_groups, cols, RZ_CUDA_ARGS(&y, &x, &rows, &start, &n_groups, &cols));
}
/* How many rows the groups have is known to the device alone. */
static void pool_mean_bwd(rz_stream *s, float *dx, const float *dy, const int32_t *rows, const int32_t *start,
                          size_t n_groups, size_t cols)
{
    launch(s, RZ_K_pool_mean_bwd, plenty(s), (rz_cuda_dim){THREADS, 1, 1},
           RZ_CUDA_ARGS(&dx, &dy, &rows, &start, &n_groups, &cols));
}

static void patchify(rz_stream *s, float *y, const float *pixels, size_t n, size_t channels, size_t size, size_t patch)
{
    const size_t side = size / patch;
    size_t cols;
    if (!rz_size_mul(channels, patch * patch, &cols) || size > UINT16_MAX || cols > INT32_MAX) {
        rz_stream_fail(s, RADZ_E_LIMIT, "cuda: patches of %zu x %zu x %zu in %zu are too large", channels, patch, patch,
                       size);
        return;
    }
    uint32_t c = (uint32_t)channels, whole = (uint32_t)size, part = (uint32_t)patch;
    launch_table(s, RZ_K_patchify, n * side * side, cols, RZ_CUDA_ARGS(&y, &pixels, &n, &c, &whole, &part));
}

/* Few rows: a thread has one head, so that the device has enough to do. */
static void rope(rz_stream *s, float *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale, size_t rows,
                 size_t n_heads, size_t head_dim, bool inverse)
{
    enum { MANY_ROWS = 512 };
    size_t half = head_dim / 2;
    float sign = inverse ? -1.0f : 1.0f;
    const unsigned lanes = power_of_two(pieces(half, FOUR)), room = THREADS / lanes, wish = power_of_two(n_heads);
    const unsigned heads = wish < room ? wish : room;
    const size_t across = pieces(half, (size_t)FOUR * lanes), deep = rows < MANY_ROWS ? pieces(n_heads, heads) : 1;
    if (half == 0) return;
    rz_cuda_launch(s, RZ_K_rope, (rz_cuda_dim){(unsigned)across, (unsigned)at_most(rows, GRID_Y), (unsigned)deep},
                   (rz_cuda_dim){lanes, heads, 1}, 0,
                   RZ_CUDA_ARGS(&x, &ld, &pos, &inv_freq, &scale, &sign, &rows, &n_heads, &half));
}

/* ---- Rows -------------------------------------------------------------------------------------------- */

static void layernorm(rz_stream *s, float *y, float *stats, const float *x, const float *w, const float *b, float eps,
                      size_t rows, size_t cols)
{
    launch_rows(s, RZ_K_layernorm, rows, cols, RZ_CUDA_ARGS(&y, &stats, &x, &w, &b, &eps, &rows, &cols));
}
static void rmsnorm(rz_stream *s, float *y, float *rstd, const float *x, const float *w, float eps, size_t rows,
                    size_t cols)
{
    launch_rows(s, RZ_K_rmsnorm, rows, cols, RZ_CUDA_ARGS(&y, &rstd, &x, &w, &eps, &rows, &cols));
}
static void layernorm_bwd(rz_stream *s, float *dx, float *dw, float *db, const float *dy, const float *x,
                          const float *stats, const float *w, size_t rows, size_t cols)
{
    size_t sums = dw || db ? pieces(cols, SUM_COLS) : 0;
    launch_norm_bwd(s, RZ_K_layernorm_bwd, sums, rows, cols,
                    RZ_CUDA_ARGS(&dx, &dw, &db, &dy, &x, &stats, &w, &sums, &rows, &cols));
}
static void rmsnorm_bwd(rz_stream *s, float *dx, float *dw, const float *dy, const float *x, const float *rstd,
                        const float *w, size_t rows, size_t cols)
{
    size_t sums = dw ? pieces(cols, SUM_COLS) : 0;
    launch_norm_bwd(s, RZ_K_rmsnorm_bwd, sums, rows, cols,
                    RZ_CUDA_ARGS(&dx, &dw, &dy, &x, &rstd, &w, &sums, &rows, &cols));
}

static void l2norm(rz_stream *s, float *y, float *norm, const float *x, size_t rows, size_t cols)
{
    launch_rows(s, RZ_K_l2norm, rows, cols, RZ_CUDA_ARGS(&y, &norm, &x, &rows, &cols));
}
static void l2norm_bwd(rz_stream *s, float *dx, const float *dy, const float *y, const float *norm, size_t rows,
                       size_t cols)
{
    launch_rows(s, RZ_K_l2norm_bwd, rows, cols, RZ_CUDA_ARGS(&dx, &dy, &y, &norm, &rows, &cols));
}

static void softmax_xent(rz_stream *s, float *loss, float *dlogits, const float *logits, const float *targets,
                         const float *keep, float weight, size_t rows, size_t cols)
{
    launch_rows(s, RZ_K_softmax_xent, rows, cols,
                RZ_CUDA_ARGS(&loss, &dlogits, &logits, &targets, &keep, &weight, &rows, &cols));
}

void rz_cuda_rows_ops(struct rz_ops *ops)
{
    ops->fill = fill;
    ops->sum = sum;
    ops->scale = scale;
    ops->add_bias = add_bias;
    ops->add_bias_bwd = add_bias_bwd;
    ops->dropout = dropout;
    ops->to_bf16 = to_bf16;
    ops->gather = gather;
    ops->copy_rows = copy_rows;
    ops->add_rows = add_rows;
    ops->pool_mean = pool_mean;
    ops->pool_mean_bwd = pool_mean_bwd;
    ops->l2norm = l2norm;
    ops->l2norm_bwd = l2norm_bwd;
    ops->layernorm = layernorm;
    ops->layernorm_bwd = layernorm_bwd;
    ops->rmsnorm = rmsnorm;
    ops->rmsnorm_bwd = rmsnorm_bwd;
    ops->act = act;
    ops->act_bwd = act_bwd;
    ops->gated = gated;
    ops->gated_bwd = gated_bwd;
    ops->rope = rope;
    ops->patchify = patchify;
    ops->softmax_xent = softmax_xent;
    ops->dot = dot;
    ops->adamw_step = adamw_step;
}
