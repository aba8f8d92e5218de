/* kernels_wide_vnni.c - the source of the kernels for VNNI at the width of AVX-512, for any CPU.
 * SPDX-License-Identifier: Apache-2.0 */
#define RZ_W 16
#define RZ_MR 6
#define RZ_KERNELS rz_kernels_wide_vnni
#define RZ_KERNELS_NAME "wide"
#include "compute_help.h"
#include "kernels_vnni.h"
