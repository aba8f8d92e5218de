/* kernels_vnni.h - integer products where one instruction multiplies and adds four bytes. Included like kernels.h, with
 * RZ_KERNELS for the name of the pair of tables. SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"
#include "vec.h"

#include "kernels_tile.h"
#include "kernels_int.h"

#if W < 16
ALL_ROWS(EACH_QUADS)
TILE_TABLE(quads)
INT_BLOCK(quads)
#else

/* Registers for the sums in float too: all groups of a tile at once. */
#define SUM_LOAD(r) vf e##r = v_load(c + r * ldc), f##r = v_load(c + r * ldc + W);
#define SUM_START(r) vi x##r = v_set_int(start[r]), y##r = x##r;
#define SUM_ADD(r)                                                                                                     \
    {                                                                                                                  \
        const vf s = v_set(a[r]);                                                                                      \
        e##r += v_from_int(x##r) * (s * w0);                                                                           \
        f##r += v_from_int(y##r) * (s * w1);                                                                           \
    }
#define SUM_STORE(r)                                                                                                   \
    v_store(c + r * ldc, e##r);                                                                                        \
    v_store(c + r * ldc + W, f##r);

#define SUM_TILE(ROWS)                                                                                                 \
    static void sum_##ROWS(const struct rz_int_block *t, const float *restrict a, float *restrict c, size_t ldc)       \
    {                                                                                                                  \
        const float *w = t->b, *bp = w + t->groups * NR;                                                               \
        ROWS_##ROWS(SUM_LOAD) FORGET(ldc);                                                                             \
        for (size_t g = t->groups; g > 0; g--, a += t->a_group, w += NR) {                                             \
            const lane_mem *start = (const lane_mem *)a + MR, *lane = start + MR;                                      \
            const float *end = bp + NR * (g > 1 ? t->lanes : t->last_lanes);                                           \
            ROWS_##ROWS(SUM_START) for (; bp < end; lane += MR, bp += NR)                                              \
            {                                                                                                          \
                const vi b0 = v_load_int(bp), b1 = v_load_int(bp + W);                                                 \
                ROWS_##ROWS(INT_QUADS)                                                                                 \
            }                                                                                                          \
            const vf w0 = v_load(w), w1 = v_load(w + W);                                                               \
            ROWS_##ROWS(SUM_ADD)                                                                                       \
        }                                                                                                              \
        ROWS_##ROWS(SUM_STORE)                                                                                         \
    }
SUM_TILE(1)
SUM_TILE(2)
SUM_TILE(3)
SUM_TILE(4)
SUM_TILE(5)
SUM_TILE(6)

static void quads_block(const struct rz_int_block *t)
{
    static void (*const tile[])(const struct rz_int_block *, const float *, float *,
                                size_t) = {NULL, sum_1, sum_2, sum_3, sum_4, sum_5, sum_6};
    float edge[MR * NR];
    for (size_t i = 0; i < t->m; i += MR) {
        const size_t rows = t->m - i < MR ? t->m - i : MR;
        float *c = t->c + i * t->ldc;
        start_tile(t, rows, c, edge);
        tile[rows](t, t->a + i / MR * t->a_stride, t->n < NR ? edge : c, t->n < NR ? NR : t->ldc);
        end_tile(t, rows, c, edge);
    }
}
#endif

const struct rz_int_kernels RZ_KERNELS[2] = {
    {RZ_KERNELS_NAME " vpdpbusd", MR, NR, 4, 128, pack_weights_quads, pack_rows_quads8, quads_block},
    {RZ_KERNELS_NAME " vpdpbusd", MR, NR, 4, 8, pack_weights_quads, pack_rows_quads4, quads_block},
};
