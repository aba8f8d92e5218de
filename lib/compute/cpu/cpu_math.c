/* cpu_math.c - activations, norms, losses and the optimiser: the kernels of the chosen set over threads, and the
 * column sums of the norms' gradients. SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"

/* Arguments of one op, for the functions that work on a part of it. */
struct job {
    const struct rz_kernels *k;
    rz_act_kind kind;
    float *y, *y2;
    const float *x, *x2, *x3, *w;
    float a;
    size_t n, cols;
    bool centered; /* the norm subtracts the mean: stats are pairs */
};

/* ---- Activations --------------------------------------------------------------------- */

enum { ACT_WORK = 8 }; /* simple operations per element */

static void act_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    j->k->act(j->kind, j->y + begin, j->x + begin, end - begin);
}
static void cpu_act(rz_stream *s, rz_act_kind kind, float *y, const float *x, size_t n)
{
    rz_cpu_split(s, n, ACT_WORK, act_part, &(struct job){.k = s->dev->kernels, .kind = kind, .y = y, .x = x});
}

static void act_bwd_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    j->k->act_bwd(j->kind, j->y + begin, j->x + begin, j->x2 + begin, end - begin);
}
static void cpu_act_bwd(rz_stream *s, rz_act_kind kind, float *dx, const float *dy, const float *x, size_t n)
{
    rz_cpu_split(s, n, ACT_WORK, act_bwd_part,
                 &(struct job){.k = s->dev->kernels, .kind = kind, .y = dx, .x = dy, .x2 = x});
}

static void gated_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    j->k->gated(j->kind, j->y + begin, j->x + begin, j->x2 + begin, end - begin);
}
static void cpu_gated(rz_stream *s, rz_act_kind kind, float *y, const float *gate, const float *up, size_t n)
{
    rz_cpu_split(s, n, ACT_WORK, gated_part,
                 &(struct job){.k = s->dev->kernels, .kind = kind, .y = y, .x = gate, .x2 = up});
}

static void gated_bwd_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    j->k->gated_bwd(j->kind, j->y + begin, j->y2 + begin, j->x + begin, j->x2 + begin, j->x3 + begin, end - begin);
}
static void cpu_gated_bwd(rz_stream *s, rz_act_kind kind, float *dgate, float *dup, const float *dy, const float *gate,
                          const float *up, size_t n)
{
    rz_cpu_split(
        s, n, ACT_WORK, gated_bwd_part,
        &(struct job){.k = s->dev->kernels, .kind = kind, .y = dgate, .y2 = dup, .x = dy, .x2 = gate, .x3 = up});
}

/* ---- Norms ------------------------------------------------------------------------------ */

static void layernorm_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    j->k->layernorm(j->y + begin * j->cols, j->y2 ? j->y2 + 2 * begin : NULL, j->x + begin * j->cols, j->w, j->x2, j->a,
                    end - begin, j->cols);
}
static void cpu_layernorm(rz_stream *s, float *y, float *stats, const float *x, const float *w, const float *b,
                          float eps, size_t rows, size_t cols)
{
    rz_cpu_split(
        s, rows, 2 * cols, layernorm_part,
        &(struct job){.k = s->dev->kernels, .y = y, .y2 = stats, .x = x, .w = w, .x2 = b, .a = eps, .cols = cols});
}

static void rmsnorm_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    j->k->rmsnorm(j->y + begin * j->cols, j->y2 ? j->y2 + begin : NULL, j->x + begin * j->cols, j->w, j->a, end - begin,
                  j->cols);
}
static void cpu_rmsnorm(rz_stream *s, float *y, float *rstd, const float *x, const float *w, float eps, size_t rows,
                        size_t cols)
{
    rz_cpu_split(s, rows, 2 * cols, rmsnorm_part,
                 &(struct job){.k = s->dev->kernels, .y = y, .y2 = rstd, .x = x, .w = w, .a = eps, .cols = cols});
}

enum { SUM_COLS = RZ_SUM_COLS, SUM_ROWS = 64 };

/* dw and db of column blocks [begin, end): SUM_ROWS rows in float, those in double. */
static void norm_sums_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    for (size_t c0 = begin * SUM_COLS; c0 < end * SUM_COLS && c0 < j->cols; c0 += SUM_COLS) {
        size_t n = j->cols - c0 < SUM_COLS ? j->cols - c0 : SUM_COLS;
        double dw[SUM_COLS] = {0}, db[SUM_COLS] = {0};
        for (size_t r = 0; r < j->n; r += SUM_ROWS) {
            float sum_w[SUM_COLS] = {0}, sum_b[SUM_COLS] = {0};
            size_t rows = j->n - r < SUM_ROWS ? j->n - r : SUM_ROWS, at = r * j->cols + c0;
            j->k->norm_sums(sum_w, sum_b, j->x + at, j->x2 + at, j->x3 + (j->centered ? 2 * r : r), j->centered, rows,
                            j->cols, n);
            for (size_t c = 0; c < n; c++) {
                dw[c] += (double)sum_w[c];
                db[c] += (double)sum_b[c];
            }
        }
        for (size_t c = 0; j->y && c < n; c++) j->y[c0 + c] += (float)dw[c];
        for (size_t c = 0; j->y2 && c < n; c++) j->y2[c0 + c] += (float)db[c];
    }
}

static void layernorm_dx_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    size_t at = begin * j->cols;
    j->k->layernorm_dx(j->y + at, j->x + at, j->x2 + at, j->x3 + 2 * begin, j->w, end - begin, j->cols);
}
static void cpu_layernorm_bwd(rz_stream *s, float *dx, float *dw, float *db, const float *dy, const float *x,
                              const float *stats, const float *w, size_t rows, size_t cols)
{
    struct job j = {.k = s->dev->kernels, .y = dx, .x = dy, .x2 = x, .x3 = stats, .w = w, .n = rows, .cols = cols};
    rz_cpu_split(s, rows, 3 * cols, layernorm_dx_part, &j);
    if (!dw && !db) return;
    j.y = dw;
    j.y2 = db;
    j.centered = true;
    rz_cpu_split(s, (cols + SUM_COLS - 1) / SUM_COLS, rows * SUM_COLS, norm_sums_part, &j);
}

static void rmsnorm_dx_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    size_t at = begin * j->cols;
    j->k->rmsnorm_dx(j->y + at, j->x + at, j->x2 + at, j->x3 + begin, j->w, end - begin, j->cols);
}
static void cpu_rmsnorm_bwd(rz_stream *s, float *dx, float *dw, const float *dy, const float *x, const float *rstd,
                            const float *w, size_t rows, size_t cols)
{
    struct job j = {.k = s->dev->kernels, .y = dx, .x = dy, .x2 = x, .x3 = rstd, .w = w, .n = rows, .cols = cols};
    rz_cpu_split(s, rows, 3 * cols, rmsnorm_dx_part, &j);
    if (!dw) return;
    j.y = dw;
    rz_cpu_split(s, (cols + SUM_COLS - 1) / SUM_COLS, rows * SUM_COLS, norm_sums_part, &j);
}

/* ---- Patches ------------------------------------------------------------------------------- */

struct patches {
    float *y;
    const float *pixels;
    size_t channels, size, patch;
};

/* Rows [begin, end) of the result: one patch each. */
static void patchify_part(void *arg, size_t begin, size_t end)
{
    const struct patches *j = arg;
    const size_t side = j->size / j->patch, p = j->patch;
    float *y = j->y + begin * j->channels * p * p;
    for (size_t i = begin; i < end; i++) {
        const size_t image = i / (side * side), row = i / side % side, col = i % side;
        for (size_t c = 0; c < j->channels; c++)
            for (size_t r = 0; r < p; r++, y += p) {
                const float *x = j->pixels + ((image * j->channels + c) * j->size + row * p + r) * j->size + col * p;
                memcpy(y, x, p * sizeof *y);
            }
    }
}
static void cpu_patchify(rz_stream *s, float *y, const float *pixels, size_t n, size_t channels, size_t size,
                         size_t patch)
{
    const size_t side = size / patch;
    rz_cpu_split(s, n * side * side, channels * patch * patch, patchify_part,
                 &(struct patches){y, pixels, channels, size, patch});
}

/* ---- Loss, sums, optimiser -------------------------------------------------------------------- */

static void xent_part(void *arg, size_t begin, size_t end)
{
    const struct job *j = arg;
    size_t at = begin * j->cols;
    j->k->softmax_xent(j->y + begin, j->y2 ? j->y2 + at : NULL, j->x + at, j->x2 + at, j->x3 ? j->x3 + at : NULL, j->a,
                       end - begin, j->cols);
}
static void cpu_softmax_xent(rz_stream *s, float *loss, float *dlogits, const float *logits, const float *targets,
                             const float *keep, float weight, size_t rows, size_t cols)
{
    struct job j = {.k = s->dev->kernels, .y = loss, .y2 = dlogits, .x = logits, .x2 = targets, .x3 = keep};
    j.a = weight;
    j.cols = cols;
    rz_cpu_split(s, rows, 16 * cols, xent_part, &j);
}

enum { DOT_CHUNK = 4096, DOT_LANES = 8 };

struct dot {
    const float *x, *y;
    size_t n;
    double *sums; /* one per chunk */
};

static void dot_part(void *arg, size_t begin, size_t end)
{
    const struct dot *j = arg;
    for (size_t chunk = begin; chunk < end; chunk++) {
        double lane[DOT_LANES] = {0};
        size_t i = chunk * DOT_CHUNK, last = j->n - i < DOT_CHUNK ? j->n : i + DOT_CHUNK;
        for (; i + DOT_LANES <= last; i += DOT_LANES)
            for (size_t l = 0; l < DOT_LANES; l++) lane[l] += (double)j->x[i + l] * (double)j->y[i + l];
        for (; i < last; i++) lane[0] += (double)j->x[i] * (double)j->y[i];
        for (size_t l = 1; l < DOT_LANES; l++) lane[0] += lane[l];
        j->sums[chunk] = lane[0];
    }
}
static double cpu_dot(rz_stream *s, const float *x, const float *y, size_t n)
{
    size_t chunks = (n + DOT_CHUNK - 1) / DOT_CHUNK;
    rz_mark mark = rz_arena_mark(s);
    struct dot j = {x, y, n, rz_arena_bytes(s, chunks * sizeof(double))};
    if (!j.sums) return (double)NAN;
    rz_cpu_split(s, chunks, DOT_CHUNK, dot_part, &j);
    double sum = 0;
    for (size_t i = 0; i < chunks; i++) sum += j.sums[i];
    rz_arena_release(s, mark);
    return sum;
}

struct adamw {
    const struct rz_kernels *k;
    struct rz_adamw_task task;
};

static void adamw_part(void *arg, size_t begin, size_t end)
{
    const struct adamw *j = arg;
    j->k->adamw(&j->task, begin, end);
}
static void cpu_adamw_step(rz_stream *s, const rz_adamw *o, const rz_adamw_slot *slots, size_t n_slots)
{
    const double c1 = 1 - pow((double)o->beta1, (double)o->step), c2 = 1 - pow((double)o->beta2, (double)o->step);
    const float decay = (float)(1 - (double)o->lr * (double)o->weight_decay);
    struct adamw j = {s->dev->kernels, {.grad_scale = o->grad_scale}};
    j.task.beta1 = o->beta1, j.task.beta2 = o->beta2, j.task.eps = o->eps;
    j.task.step_size = (float)((double)o->lr / c1);
    j.task.inv_root_c2 = (float)(1 / sqrt(c2));
    for (const rz_adamw_slot *x = slots; x < slots + n_slots; x++) {
        j.task.w = x->w, j.task.m = x->m, j.task.v = x->v, j.task.g = x->g;
        j.task.decay = x->decay ? decay : 1.0f;
        rz_cpu_split(s, x->n, 8, adamw_part, &j);
        if (x->half) s->dev->ops.to_bf16(s, x->half, x->w, x->n);
    }
}

void rz_cpu_math_ops(struct rz_ops *ops)
{
    ops->act = cpu_act;
    ops->act_bwd = cpu_act_bwd;
    ops->gated = cpu_gated;
    ops->gated_bwd = cpu_gated_bwd;
    ops->layernorm = cpu_layernorm;
    ops->layernorm_bwd = cpu_layernorm_bwd;
    ops->rmsnorm = cpu_rmsnorm;
    ops->rmsnorm_bwd = cpu_rmsnorm_bwd;
    ops->patchify = cpu_patchify;
    ops->softmax_xent = cpu_softmax_xent;
    ops->dot = cpu_dot;
    ops->adamw_step = cpu_adamw_step;
}
