/* half.h - layers whose activations are bfloat16: forward only, on devices that gain from it, where the weights ask for
 * products of bfloat16. What lies between two products of a block is rounded; the residual stream stays float.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_HALF_H
#define RZ_HALF_H

#include "layers.h"

/* A block of these layers runs so: nothing is kept for a backward pass, every matrix is in memory and asks for products
 * of bfloat16 (or is of integers, which such devices multiply so), none has LoRA beside it. */
bool rz_half_fits(const rz_net *net, const rz_linear *const *layers, size_t n);
/* rows x cols, in the arena. */
uint16_t *rz_half_rows(const rz_net *net, size_t rows, size_t cols);
/* LayerNorm or RMSNorm of x (rows, n->w->n). */
uint16_t *rz_half_norm_forward(const rz_net *net, const rz_norm *n, float eps, const float *x, size_t rows);
/* x W^T + b of layers that read the same rows x (rows, in), their columns side by side: (rows, sum of outs). One
 * product where the weights, and biases, lie one behind the other. */
uint16_t *rz_half_linears(const rz_net *net, const rz_linear *const *layers, size_t n, const uint16_t *x, size_t rows);
/* cols of each row, an even number: y (rows, ldy) = x (rows, ldx). */
void rz_half_columns(const rz_net *net, uint16_t *y, size_t ldy, const uint16_t *x, size_t ldx, size_t rows,
                     size_t cols);
/* h (rows, out) += x W^T + b. */
void rz_half_residual(const rz_net *net, const rz_linear *l, float *h, const uint16_t *x, size_t rows);

#endif
