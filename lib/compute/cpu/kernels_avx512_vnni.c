/* kernels_avx512_vnni.c - integer products for x86-64 with AVX-512 with VNNI. SPDX-License-Identifier: Apache-2.0 */
#ifdef __x86_64__
#define RZ_W 16
#define RZ_MR 6
#define RZ_KERNELS rz_kernels_avx512_vnni
#define RZ_KERNELS_NAME "avx512"
#include "kernels_vnni.h"
#else
typedef int rz_kernels_avx512_vnni_unused;
#endif
