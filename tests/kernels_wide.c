/* kernels_wide.c - the AVX-512 kernels' source and tile at their width, 16 floats, for any CPU: so that their logic
 * is tested where there is no AVX-512. SPDX-License-Identifier: Apache-2.0 */
#define RZ_W 16
#define RZ_MR 12
#define RZ_KERNELS rz_kernels_wide
#define RZ_KERNELS_NAME "wide"
#include "compute_help.h"
#include "kernels.h"
