/* bench_kernels.c - the matrix product of a large decoder's MLP with weights of every type, as a share of what the
 * processor's own instructions could do, measured in the same run in turn.
 * Usage: bench_kernels [threads] [rounds] [M N K]. Speeds are per second of processor time, times the threads: on a
 * machine that others use too, seconds on the clock say little. Links the static library, as bench_compute does.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "device.h"
#include "formats.h"

enum { MAX_ROUNDS = 51 };

static int threads = 1, rounds = 5;

static double processor_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- Peaks: independent chains of one instruction ---- */

typedef double peak_fn(size_t n); /* operations done */

#ifdef __x86_64__
#include <immintrin.h>

#define CHAINS(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9)
#define KEEP(x) __asm__ volatile("" : "+v"(x));

#define PEAK(NAME, TARGET, TYPE, ZERO, STEP, OPS)                                                                      \
    __attribute__((target(TARGET))) static double NAME(size_t n)                                                       \
    {                                                                                                                  \
        TYPE a = ZERO, b = ZERO;                                                                                       \
        TYPE x0 = a, x1 = a, x2 = a, x3 = a, x4 = a, x5 = a, x6 = a, x7 = a, x8 = a, x9 = a;                           \
        KEEP(a)                                                                                                        \
        KEEP(b)                                                                                                        \
        for (size_t i = 0; i < n; i++) {                                                                               \
            CHAINS(STEP)                                                                                               \
        }                                                                                                              \
        KEEP(x0)                                                                                                       \
        KEEP(x1)                                                                                                       \
        KEEP(x2) KEEP(x3) KEEP(x4) KEEP(x5) KEEP(x6) KEEP(x7) KEEP(x8) KEEP(x9) return (double)n * 10 * (OPS);         \
    }
#define FMA8(i)                                                                                                        \
    KEEP(a) x##i = _mm256_fmadd_ps(a, b, x##i);                                                                        \
    KEEP(x##i)
#define FMA16(i)                                                                                                       \
    KEEP(a) x##i = _mm512_fmadd_ps(a, b, x##i);                                                                        \
    KEEP(x##i)
#define PAIRS8(i)                                                                                                      \
    KEEP(a) x##i = _mm256_add_epi32(x##i, _mm256_madd_epi16(a, b));                                                    \
    KEEP(x##i)
#define SIGNS8(i)                                                                                                      \
    KEEP(a) x##i = _mm256_add_epi32(x##i, _mm256_madd_epi16(_mm256_maddubs_epi16(b, _mm256_sign_epi8(a, b)), b));      \
    KEEP(x##i)
#define NARROW8(i)                                                                                                     \
    KEEP(a) x##i = _mm256_add_epi16(x##i, _mm256_maddubs_epi16(a, b));                                                 \
    KEEP(x##i)
#define DOT16(i)                                                                                                       \
    KEEP(a) x##i = _mm512_dpbusd_epi32(x##i, a, b);                                                                    \
    KEEP(x##i)
PEAK(peak_fma8, "avx2,fma", __m256, _mm256_setzero_ps(), FMA8, 16)
PEAK(peak_pairs8, "avx2", __m256i, _mm256_setzero_si256(), PAIRS8, 32)
PEAK(peak_signs8, "avx2", __m256i, _mm256_setzero_si256(), SIGNS8, 64)
PEAK(peak_narrow8, "avx2", __m256i, _mm256_setzero_si256(), NARROW8, 64)
PEAK(peak_fma16, "avx512f", __m512, _mm512_setzero_ps(), FMA16, 32)
PEAK(peak_dot16, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), DOT16, 128)

static bool has(const char *what)
{
    __builtin_cpu_init();
    if (!strcmp(what, "fma")) return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
    if (!strcmp(what, "avx512")) return __builtin_cpu_supports("avx512f");
    return __builtin_cpu_supports("avx512vnni");
}

static const struct peak {
    const char *what, *needs;
    peak_fn *fn;
} peaks[] = {
    {"fp32: vfmadd, 256 bit", "fma", peak_fma8},
    {"int: vpmaddwd + vpaddd, 256 bit", "fma", peak_pairs8},
    {"int: vpsignb, vpmaddubsw, vpmaddwd, vpaddd, 256 bit", "fma", peak_signs8},
    {"int: vpmaddubsw + vpaddw, 256 bit (4-bit weights)", "fma", peak_narrow8},
    {"fp32: vfmadd, 512 bit", "avx512", peak_fma16},
    {"int: vpdpbusd, 512 bit", "vnni", peak_dot16},
};

/* Gop/s of one thread. */
static double peak_speed(const struct peak *p)
{
    const double start = processor_seconds(), ops = p->fn(10000000);
    return ops / (processor_seconds() - start) * 1e-9;
}
#endif

/* ---- Products ---- */

enum { N_KINDS = 7 };
static const struct kind {
    const char *what, *gemm;
    rz_dtype type;
    size_t group;
} kinds[N_KINDS] = {
    {"f32", "own", RZ_F32, 0},
    {"f32, OpenBLAS", "openblas", RZ_F32, 0},
    {"bf16", "own", RZ_BF16, 0},
    {"int8, groups of 128", "own", RZ_I8, 128},
    {"int8, groups of 32", "own", RZ_I8, 32},
    {"int4, groups of 128", "own", RZ_I4, 128},
    {"int4, groups of 32", "own", RZ_I4, 32},
};

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
    rz_mat m = {.dtype = k->type, .ld = cols, .scale_dtype = RZ_BF16, .group = k->group};
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

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *x)
{
    qsort(x, (size_t)rounds, sizeof *x, by_value);
    return x[rounds / 2];
}

static double gemm_speed(rz_stream *s, rz_mat w, const float *x, float *y, const size_t size[3])
{
    const double ops = 2.0 * (double)size[0] * (double)size[1] * (double)size[2], start = processor_seconds();
    rz_gemm(s, false, true, size[0], size[1], size[2], 1, rz_mat_f32(x, size[2]), w, 0, y, size[1]);
    return ops / (processor_seconds() - start) * 1e-9 * threads;
}

int main(int argc, char **argv)
{
    size_t size[3] = {621, 14336, 4096};
    if (argc > 1 && atoi(argv[1]) > 0) threads = atoi(argv[1]);
    if (argc > 2 && atoi(argv[2]) > 0 && atoi(argv[2]) <= MAX_ROUNDS) rounds = atoi(argv[2]);
    for (int i = 0; i < 3 && argc > 5; i++) size[i] = (size_t)strtoul(argv[3 + i], NULL, 10);
    float *x = numbers(size[0] * size[2]), *w = numbers(size[1] * size[2]), *y = numbers(size[0] * size[1]);
    rz_stream *streams[N_KINDS];
    rz_mat mats[N_KINDS];
    static double speed[N_KINDS][MAX_ROUNDS], peak[8][MAX_ROUNDS];
    for (int i = 0; i < N_KINDS; i++) {
        streams[i] = open_stream(&kinds[i]);
        mats[i] = weights(&kinds[i], w, size[1], size[2]);
    }
    for (int r = 0; r < rounds; r++) {
#ifdef __x86_64__
        for (size_t i = 0; i < RZ_COUNT(peaks); i++) peak[i][r] = has(peaks[i].needs) ? peak_speed(&peaks[i]) : 0;
#endif
        for (int i = 0; i < N_KINDS; i++) speed[i][r] = streams[i] ? gemm_speed(streams[i], mats[i], x, y, size) : 0;
    }
    printf("peaks of one core, Gop/s of processor time, medians of %d rounds\n", rounds);
    double fma = 0;
#ifdef __x86_64__
    for (size_t i = 0; i < RZ_COUNT(peaks); i++) {
        const double p = median(peak[i]);
        if (p > 0) printf("  %-52s %8.1f\n", peaks[i].what, p);
        if (!strncmp(peaks[i].what, "fp32", 4) && p > fma) fma = p;
    }
#endif
    printf("%zu x %zu x %zu, %d thread%s: Gop/s, share of the fp32 peak\n", size[0], size[1], size[2], threads,
           threads == 1 ? "" : "s");
    for (int i = 0; i < N_KINDS; i++) {
        const double v = median(speed[i]);
        if (streams[i]) printf("  %-22s %8.1f  %5.1f %%\n", kinds[i].what, v, fma > 0 ? 100 * v / fma / threads : 0);
    }
    return 0;
}
