/* kernels_avx2.c - kernels for x86-64 with AVX2 and FMA.
 * SPDX-License-Identifier: Apache-2.0 */
#ifdef __x86_64__
#define RZ_W 8
#define RZ_MR 6
#define RZ_KERNELS rz_kernels_avx2
#define RZ_KERNELS_NAME "avx2"
#include "kernels.h"
#else
typedef int rz_kernels_avx2_unused;
#endif
