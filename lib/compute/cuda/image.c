/* image.c - the compiled kernels, as the Makefile has them from nvcc: RZ_CUDA_FILES(X) lists them, RZ_CUDA_FATBINS is
 * the folder they lie in, RZ_CUDA_VERSION the compiler's. Not defined where there is no nvcc.
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

#define ADDRESS(name) SYMBOL(name),
const void *rz_cuda_image(size_t i)
{
    static const void *const images[] = {RZ_CUDA_FILES(ADDRESS)};
    return i < RZ_COUNT(images) ? images[i] : NULL;
}
const int rz_cuda_image_version = RZ_CUDA_VERSION;

#else

const void *rz_cuda_image(size_t i)
{
    (void)i;
    return NULL;
}
const int rz_cuda_image_version = 0;

#endif
