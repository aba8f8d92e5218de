/* rounding.h - a matrix in four bits for the rows that it is multiplied with: columns are rounded in order, and each
 * makes up for what those before it have done to the products (GPTQ, Frantar et al. 2022). SPDX-License-Identifier:
 * Apache-2.0 */
#ifndef RZ_ROUNDING_H
#define RZ_ROUNDING_H

#include "device.h"

/* On the CPU, whatever the number of threads the same bits. Failures go to the stream. */

/* r (n, n): the upper triangle R of x^T x + a hundredth of its mean diagonal = R R^T, of x (rows, n); rows may be fewer
 * than n, columns may be zero. Below it lies nothing that means anything. */
void rz_rounding_factor(rz_stream *s, float *r, const float *x, size_t rows, size_t n);
/* w (rows, n), n even, to integers as rz_quantise_row makes them: codes (rows, n / 2), scale (rows, groups). w becomes
 * what the integers leave of it. r: of the rows that w will be multiplied with. */
void rz_rounding_apply(rz_stream *s, float *w, const float *r, size_t rows, size_t n, size_t group, uint8_t *codes,
                       uint16_t *scale);

#endif
