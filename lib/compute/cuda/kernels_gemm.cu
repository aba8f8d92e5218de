/* kernels_gemm.cu - what matrix products need around cuBLAS: numbers of other types, beta alone, a bias.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels.cuh"

/* C (m,n) = beta C; beta 0: C is not read. */
extern "C" __global__ void rz_k_gemm_beta(float *c, size_t ldc, float beta, size_t m, size_t n)
{
    const size_t j = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= n) return;
    for (size_t i = blockIdx.y; i < m; i += gridDim.y) c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
}
