/* kernels_vnni.h - integer products where one instruction multiplies and adds four bytes. Included like kernels.h, with
 * RZ_KERNELS for the name of the pair of tables. SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"
#include "vec.h"

#include "kernels_tile.h"
#include "kernels_int.h"

ALL_ROWS(EACH_QUADS)
TILE_TABLE(quads)
INT_BLOCK(quads)

const struct rz_int_kernels RZ_KERNELS[2] = {
    {RZ_KERNELS_NAME " vpdpbusd", MR, NR, 4, 128, pack_weights_quads, pack_rows_quads, quads_block},
    {RZ_KERNELS_NAME " vpdpbusd", MR, NR, 4, 8, pack_weights_quads, pack_rows_quads, quads_block},
};
