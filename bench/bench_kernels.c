/* bench_kernels.c - the matrix product of a large decoder's MLP with weights of every type, as a share of what the
 * processor's own instructions could do, measured in the same run in turn.
 * Usage: bench_kernels [threads] [rounds] [M N K | all]; all: every shape of a 7B model with one film. Speeds are per
 * second of processor time, times the threads (on a machine that others use too, seconds on the clock say little), and
 * on the clock. Links the static library, as bench_compute does. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "device.h"
#include "formats.h"
#include "measure.h"
#include "peaks.h"

enum { MAX_ROUNDS = 51 };

static int threads = 1, rounds = 5;

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- Peaks ---- */

/* Gop/s of one thread. */
static double peak_speed(const peak *p)
{
    const double start = seconds_of(CLOCK_PROCESS_CPUTIME_ID), ops = p->fn(10000000);
    return ops / (seconds_of(CLOCK_PROCESS_CPUTIME_ID) - start) * 1e-9;
}

/* ---- Products ---- */

enum { N_KINDS = 10 };
static const struct kind {
    const char *what, *gemm;
    rz_dtype type;
    size_t group;
    rz_dtype compute;
    const char *peak; /* what its peaks begin with */
} kinds[N_KINDS] = {
    {"f32", "own", RZ_F32, 0, RZ_F32, "fp32"},
    {"f32, OpenBLAS", "openblas", RZ_F32, 0, RZ_F32, "fp32"},
    {"bf16 weights, f32", "own", RZ_BF16, 0, RZ_F32, "fp32"},
    {"bf16", "own", RZ_BF16, 0, RZ_BF16, "bf16"},
    {"bf16, OpenBLAS", "openblas", RZ_BF16, 0, RZ_BF16, "bf16"},
    {"int4 weights, bf16", "own", RZ_I4, 128, RZ_BF16, "bf16"},
    {"int8, groups of 128", "own", RZ_I8, 128, RZ_F32, "int"},
    {"int8, groups of 32", "own", RZ_I8, 32, RZ_F32, "int"},
    {"int4, groups of 128", "own", RZ_I4, 128, RZ_F32, "int"},
    {"int4, groups of 32", "own", RZ_I4, 32, RZ_F32, "int"},
};

/* M, N, K of a decoder's layer behind 621 rows: gate and up, down, q and o, k and v; of the tower: mlp, mlp, q k v o.
 */
static const size_t shapes[][3] = {{621, 14336, 4096}, {621, 4096, 14336}, {621, 4096, 4096}, {621, 1024, 4096},
                                   {577, 4096, 1024},  {577, 1024, 4096},  {577, 1024, 1024}};

static float *numbers(size_t n)
{
    float *x = malloc(n * sizeof *x);
    uint32_t r = 1;
    for (size_t i = 0; x && i < n; i++) r = r * 1664525 + 1013904223, x[i] = (float)(r >> 8) * 0x1p-24f - 0.5f;
    return x;
}

static rz_mat weights(const struct kind *k, const float *w, size_t rows, size_t cols)
{
    const size_t groups = k->group ? (cols + k->group - 1) / k->group : 0;
    rz_mat m = {.dtype = k->type, .ld = cols, .scale_dtype = RZ_BF16, .group = k->group, .compute = k->compute};
    if (k->type == RZ_F32) return rz_mat_f32(w, cols);
    uint8_t *data = malloc(rz_dtype_bytes(k->type, rows * cols));
    uint16_t *scale = malloc(2 * rows * groups + 1);
    for (size_t i = 0; k->type == RZ_BF16 && i < rows * cols; i++) ((uint16_t *)data)[i] = rz_f32_to_bf16(w[i]);
    for (size_t r = 0; k->group && r < rows; r++) /* any bytes do: those of a type take the same time */
        for (size_t i = 0; i < cols; i++) {
            data[rz_dtype_bytes(k->type, r * cols + (i & ~(size_t)1))] = (uint8_t)(16 * w[r * cols + i]);
            scale[r * groups + i / k->group] = 0x3c00;
        }
    m.data = data, m.scale = scale;
    return m;
}

static rz_stream *open_stream(const struct kind *k)
{
    rz_device_options o = {.gemm = k->gemm, .n_threads = threads};
    rz_device *dev;
    rz_stream *s;
    radz_error err;
    if (!rz_device_open(NULL, &o, &dev, &err) && !rz_stream_open(dev, &s, &err)) return s;
    printf("%s: left out: %s\n", k->what, err.message);
    return NULL;
}

/* Gop/s by processor time and by the clock. */
struct speed {
    double processor[MAX_ROUNDS], clock[MAX_ROUNDS];
};

static void gemm_speed(rz_stream *s, rz_mat w, const float *x, float *y, const size_t size[3], struct speed *to, int r)
{
    const double ops = 2e-9 * (double)size[0] * (double)size[1] * (double)size[2];
    const double start = seconds_of(CLOCK_MONOTONIC), busy = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    int n = 0;
    do { /* small ones often enough to be timed */
        rz_gemm(s, false, true, size[0], size[1], size[2], 1, rz_mat_f32(x, size[2]), w, 0, y, size[1]);
        n++;
    } while (seconds_of(CLOCK_MONOTONIC) - start < 0.05);
    to->clock[r] = n * ops / (seconds_of(CLOCK_MONOTONIC) - start);
    to->processor[r] = n * ops / (seconds_of(CLOCK_PROCESS_CPUTIME_ID) - busy) * threads;
}

static double measure_peak(const char *type)
{
    double best = 0, speed[MAX_ROUNDS];
    for (int i = 0; i < N_PEAKS; i++) {
        if (strncmp(peaks[i].what, type, strlen(type)) != 0 || !peaks[i].supported()) continue;
        for (int r = 0; r < rounds; r++) speed[r] = peak_speed(&peaks[i]);
        const double p = median(speed, rounds);
        printf("  %-52s %8.1f\n", peaks[i].what, p);
        best = p > best ? p : best;
    }
    return best;
}

static void measure_shape(rz_stream *const streams[N_KINDS], const size_t size[3], double fma, const double *limit)
{
    static struct speed speed[N_KINDS];
    float *x = numbers(size[0] * size[2]), *w = numbers(size[1] * size[2]), *y = numbers(size[0] * size[1]);
    rz_mat mats[N_KINDS];
    for (int i = 0; i < N_KINDS; i++) mats[i] = weights(&kinds[i], w, size[1], size[2]);
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < N_KINDS; i++)
            if (streams[i]) gemm_speed(streams[i], mats[i], x, y, size, &speed[i], r);
    printf("%zu x %zu x %zu, %d thread%s: Gop/s, of the fp32 peak, of the type's; by the clock\n", size[0], size[1],
           size[2], threads, threads == 1 ? "" : "s");
    for (int i = 0; i < N_KINDS; i++) {
        const double v = median(speed[i].processor, rounds);
        if (streams[i])
            printf("  %-22s %8.1f  %5.1f %%  %5.1f %%  %8.1f\n", kinds[i].what, v, 100 * v / fma / threads,
                   100 * v / limit[i] / threads, median(speed[i].clock, rounds));
        if (kinds[i].type != RZ_F32) free((void *)(uintptr_t)mats[i].data), free((void *)(uintptr_t)mats[i].scale);
    }
    free(x);
    free(w);
    free(y);
}

int main(int argc, char **argv)
{
    size_t size[3];
    if (argc > 1 && atoi(argv[1]) > 0) threads = atoi(argv[1]);
    if (argc > 2 && atoi(argv[2]) > 0 && atoi(argv[2]) <= MAX_ROUNDS) rounds = atoi(argv[2]);
    for (int i = 0; i < 3; i++) size[i] = argc > 5 ? (size_t)strtoul(argv[3 + i], NULL, 10) : shapes[0][i];
    printf("peaks of one core, Gop/s of processor time, medians of %d rounds\n", rounds);
    const double fma = measure_peak("fp32"), bf16 = measure_peak("bf16"), integers = measure_peak("int");
    double limit[N_KINDS];
    rz_stream *streams[N_KINDS];
    for (int i = 0; i < N_KINDS; i++) {
        limit[i] = !strcmp(kinds[i].peak, "int") ? integers : !strcmp(kinds[i].peak, "bf16") ? bf16 : fma;
        streams[i] = open_stream(&kinds[i]);
    }
    const bool all = argc > 3 && !strcmp(argv[3], "all");
    for (size_t i = 0; i < (all ? RZ_COUNT(shapes) : 1); i++)
        measure_shape(streams, all ? shapes[i] : size, fma, limit);
    return 0;
}
