/* kernels_portable.c - kernels for any CPU: the compiler turns 4-float vectors into what there is.
 * SPDX-License-Identifier: Apache-2.0 */
#define RZ_W 4
#define RZ_MR 6
#define RZ_KERNELS rz_kernels_portable
#define RZ_KERNELS_NAME "portable"
#include "kernels.h"
