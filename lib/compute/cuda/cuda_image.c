/* cuda_image.c - the compiled kernels, as the Makefile has them from nvcc: RZ_CUDA_FILES(X) lists them, RZ_CUDA_FATBINS
 * is the folder they lie in, RZ_CUDA_VERSION the compiler's. Not defined where there is no nvcc.
 * SPDX-License-Identifier: Apache-2.0 */
#include "driver.h"

#ifdef RZ_CUDA_FILES

#define SYMBOL(name) rz_cuda_image_##name
#define INCLUDE(name)                                                                                                  \
    __asm__(".pushsection .rodata\n.balign 64\n"                                                                       \
            ".hidden rz_cuda_image_" #name "\n.globl rz_cuda_image_" #name "\nrz_cuda_image_" #name ":\n"              \
            ".incbin \"" RZ_CUDA_FATBINS "/kernels_" #name ".fatbin\"\n.balign 8\n.popsection\n");                     \
    extern const unsigned char SYMBOL(name)[];
RZ_CUDA_FILES(INCLUDE)

#define GIVE(name)                                                                                                     \
    if (!strcmp(area, #name)) return SYMBOL(name);
const void *rz_cuda_image(const char *area)
{
    RZ_CUDA_FILES(GIVE)
    return NULL;
}
const int rz_cuda_image_version = RZ_CUDA_VERSION;

#else

const void *rz_cuda_image(const char *area)
{
    (void)area;
    return NULL;
}
const int rz_cuda_image_version = 0;

#endif
