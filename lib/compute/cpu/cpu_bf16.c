/* cpu_bf16.c - linear layers as products of bfloat16: the activations are rounded once, the weights (unless they are
 * bfloat16) a few columns at a time, and the product of the rounded numbers is the one for floats.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"

enum { PART_BYTES = 8 << 20 }; /* of rounded weights at once */

struct rounding {
    rz_mat x;
    uint16_t *y;
    size_t row0, cols;
};

static void round_part(void *arg, size_t begin, size_t end)
{
    const struct rounding *j = arg;
    float row[256];
    for (size_t r = begin; r < end; r++)
        for (size_t c = 0, n; c < j->cols; c += n) {
            n = j->cols - c < RZ_COUNT(row) ? j->cols - c : RZ_COUNT(row);
            rz_cpu_widen(row, j->x, (j->row0 + r) * j->x.ld + c, n);
            rz_cpu_round_bf16(j->y + r * j->cols + c, row, n);
        }
}

/* `rows` rows of x from row0 on, in the arena. Data NULL: no memory, recorded. */
static rz_mat rounded(rz_stream *s, rz_mat x, size_t row0, size_t rows, size_t cols)
{
    struct rounding j = {.x = x, .y = rz_arena_bytes(s, 2 * rows * cols), .row0 = row0, .cols = cols};
    if (j.y) rz_cpu_split(s, rows, 2 * cols, round_part, &j);
    return (rz_mat){.data = j.y, .dtype = RZ_BF16, .ld = cols};
}

void rz_cpu_gemm_bf16(rz_stream *s, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b, float beta, float *c,
                      size_t ldc)
{
    size_t n_bytes;
    if (s->dev->bf16 && !s->dev->openblas) {
        rz_cpu_gemm_packed(s, s->dev->bf16, false, true, (const size_t[]){m, n, k}, alpha, a, b, beta, c, ldc);
        return;
    }
    if (!rz_size_mul(m, k, &n_bytes) || !rz_size_mul(n_bytes, 2, &n_bytes)) {
        rz_stream_fail(s, RADZ_E_LIMIT, "matrix product: %zu x %zu activations overflow", m, k);
        return;
    }
    const size_t most = PART_BYTES / 2 / k ? PART_BYTES / 2 / k : 1, step = b.dtype == RZ_BF16 ? n : most;
    rz_mark mark = rz_arena_mark(s);
    const rz_mat x = rounded(s, a, 0, m, k);
    for (size_t j = 0, cols; x.data && j < n; j += cols) {
        cols = n - j < step ? n - j : step;
        rz_mark part = rz_arena_mark(s);
        rz_mat w = b;
        if (b.dtype != RZ_BF16) w = rounded(s, b, j, cols, k);
        w.compute = RZ_F32;
        if (!w.data) return;
        s->dev->ops.gemm(s, false, true, m, cols, k, alpha, x, w, beta, c + j, ldc);
        if (rz_stream_failed(s)) return;
        rz_arena_release(s, part);
    }
    if (x.data) rz_arena_release(s, mark);
}
