/* compute_help.h - devices of every kernel set, random data, comparisons and finite differences for the compute
 * tests. SPDX-License-Identifier: Apache-2.0 */
#ifndef COMPUTE_HELP_H
#define COMPUTE_HELP_H

#include "cpu.h"

extern const struct rz_kernels rz_kernels_wide;             /* kernels_wide.c */
extern const struct rz_int_kernels rz_kernels_wide_vnni[2]; /* kernels_wide_vnni.c */

/* Names of the kernel sets that can run here, NULL at the end: portable, wide, avx2, avx512. */
const char *const *compute_sets(void);
/* A stream on a CPU device of that set. Fails the test when it cannot be had. */
rz_stream *compute_open(const rz_host *host, const char *set, int n_threads);
/* Syncs (the test fails unless all is well), closes stream and device. */
void compute_close(rz_stream *s);

/* n numbers between -1 and 1; the caller frees. Same seed, same numbers. */
float *random_floats(size_t n, uint64_t seed);
float *zero_floats(size_t n);
/* The numbers of random_floats times scale, as bfloat16. */
uint16_t *random_half(size_t n, uint64_t seed, float scale);
double *to_double(const float *x, size_t n);
/* An rz_act_kind's definition in double precision. */
double act_ref(int kind, double x);

/* Every |got - want| <= tolerance * (largest |want|, at least `floor`). */
void assert_near(const char *what, const float *got, const double *want, size_t n, double tolerance, double floor);
void assert_same_bits(const char *what, const float *got, const float *want, size_t n);
/* Of products with other rows and columns beside them: the same bits, but where a library (cuBLAS) multiplies, which
 * may sum in another order. */
void assert_same_products(const char *what, const float *got, const float *want, size_t n);

/* grad[i] = d loss / d param[i], by central differences of a loss in double precision. */
void assert_gradient(const char *what, double (*loss)(void *arg), void *arg, double *param, const float *grad,
                     size_t n);

#endif
