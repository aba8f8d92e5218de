/* kernels_avx512.c - kernels for x86-64 with AVX-512 F, BW, DQ and VL.
 * SPDX-License-Identifier: Apache-2.0 */
#ifdef __x86_64__
#define RZ_W 16
#define RZ_MR 12
#define RZ_KERNELS rz_kernels_avx512
#define RZ_KERNELS_NAME "avx512"
#include "kernels.h"
#else
typedef int rz_kernels_avx512_unused;
#endif
