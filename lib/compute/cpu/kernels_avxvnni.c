/* kernels_avxvnni.c - integer products for x86-64 with AVX2 with VNNI. SPDX-License-Identifier: Apache-2.0 */
#ifdef __x86_64__
#define RZ_W 8
#define RZ_MR 6
#define RZ_KERNELS rz_kernels_avxvnni
#define RZ_KERNELS_NAME "avx2"
#include "kernels_vnni.h"
#else
typedef int rz_kernels_avxvnni_unused;
#endif
