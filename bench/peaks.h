/* peaks.h - what the processor can do at most, measured: loops of nothing but independent chains of one instruction, on
 * any number of threads, and reading memory. SPDX-License-Identifier: Apache-2.0 */
#ifndef RADZ_BENCH_PEAKS_H
#define RADZ_BENCH_PEAKS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef double peak_fn(size_t n); /* operations done in n turns of the loop */

typedef struct peak {
    const char *key, *what;
    peak_fn *fn;
    bool (*supported)(void);
} peak;

#ifdef __x86_64__
#include <immintrin.h>

#define PEAK_CHAINS(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9)
#define PEAK_KEEP(x) __asm__ volatile("" : "+v"(x));
/* clang-format off */
#define PEAK_LOOP(NAME, TARGET, TYPE, IN, ZERO, IN_ZERO, STEP, OPS)                                                    \
    __attribute__((target(TARGET))) static inline double NAME(size_t n)                                                \
    {                                                                                                                  \
        IN a = IN_ZERO, b = IN_ZERO;                                                                                   \
        TYPE x0 = ZERO, x1 = x0, x2 = x0, x3 = x0, x4 = x0, x5 = x0, x6 = x0, x7 = x0, x8 = x0, x9 = x0;               \
        PEAK_KEEP(a) PEAK_KEEP(b)                                                                                      \
        for (size_t i = 0; i < n; i++) {                                                                               \
            PEAK_CHAINS(STEP)                                                                                          \
        }                                                                                                              \
        PEAK_KEEP(x0) PEAK_KEEP(x1) PEAK_KEEP(x2) PEAK_KEEP(x3) PEAK_KEEP(x4)                                          \
        PEAK_KEEP(x5) PEAK_KEEP(x6) PEAK_KEEP(x7) PEAK_KEEP(x8) PEAK_KEEP(x9)                                          \
        return (double)n * 10 * (OPS);                                                                                 \
    }
/* clang-format on */
#define PEAK_STEP(i, VALUE)                                                                                            \
    PEAK_KEEP(a) x##i = VALUE;                                                                                         \
    PEAK_KEEP(x##i)
#define PEAK_FMA8(i) PEAK_STEP(i, _mm256_fmadd_ps(a, b, x##i))
#define PEAK_FMA16(i) PEAK_STEP(i, _mm512_fmadd_ps(a, b, x##i))
#define PEAK_PAIRS8(i) PEAK_STEP(i, _mm256_add_epi32(x##i, _mm256_madd_epi16(a, b)))
#define PEAK_SIGNS8(i)                                                                                                 \
    PEAK_STEP(i, _mm256_add_epi32(x##i, _mm256_madd_epi16(_mm256_maddubs_epi16(b, _mm256_sign_epi8(a, b)), b)))
#define PEAK_NARROW8(i) PEAK_STEP(i, _mm256_add_epi16(x##i, _mm256_maddubs_epi16(a, b)))
#define PEAK_DOT16(i) PEAK_STEP(i, _mm512_dpbusd_epi32(x##i, a, b))
#define PEAK_BF16(i) PEAK_STEP(i, _mm512_dpbf16_ps(x##i, (__m512bh)a, (__m512bh)b))
#define PEAK_M8 __m256, __m256, _mm256_setzero_ps(), _mm256_setzero_ps()
#define PEAK_I8 __m256i, __m256i, _mm256_setzero_si256(), _mm256_setzero_si256()
#define PEAK_M16 __m512, __m512, _mm512_setzero_ps(), _mm512_setzero_ps()
#define PEAK_I16 __m512i, __m512i, _mm512_setzero_si512(), _mm512_setzero_si512()
#define PEAK_MI16 __m512, __m512i, _mm512_setzero_ps(), _mm512_setzero_si512()
#define PEAK_DEFINE(NAME, TARGET, TYPES, STEP, OPS) PEAK_DEFINE_(NAME, TARGET, TYPES, STEP, OPS)
#define PEAK_DEFINE_(NAME, TARGET, A, B, ZA, ZB, STEP, OPS) PEAK_LOOP(NAME, TARGET, A, B, ZA, ZB, STEP, OPS)
PEAK_DEFINE(peak_fma8, "avx2,fma", PEAK_M8, PEAK_FMA8, 16)
PEAK_DEFINE(peak_pairs8, "avx2", PEAK_I8, PEAK_PAIRS8, 32)
PEAK_DEFINE(peak_signs8, "avx2", PEAK_I8, PEAK_SIGNS8, 64)
PEAK_DEFINE(peak_narrow8, "avx2", PEAK_I8, PEAK_NARROW8, 64)
PEAK_DEFINE(peak_fma16, "avx512f", PEAK_M16, PEAK_FMA16, 32)
PEAK_DEFINE(peak_bf16, "avx512f,avx512bf16", PEAK_MI16, PEAK_BF16, 64)
PEAK_DEFINE(peak_dot16, "avx512f,avx512vnni", PEAK_I16, PEAK_DOT16, 128)

static inline bool peak_has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static inline bool peak_has_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f");
}
static inline bool peak_has_vnni(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512vnni");
}
static inline bool peak_has_bf16(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16");
}

/* Of a type, the widest last. */
static const peak peaks[] = {
    {"fp32", "fp32: vfmadd, 256 bit", peak_fma8, peak_has_avx2},
    {"int8", "int: vpmaddwd + vpaddd, 256 bit", peak_pairs8, peak_has_avx2},
    {"int8", "int: vpsignb, vpmaddubsw, vpmaddwd, vpaddd, 256 bit", peak_signs8, peak_has_avx2},
    {"int4", "int: vpmaddubsw + vpaddw, 256 bit (4-bit weights)", peak_narrow8, peak_has_avx2},
    {"fp32", "fp32: vfmadd, 512 bit", peak_fma16, peak_has_avx512},
    {"bf16", "bf16: vdpbf16ps, 512 bit", peak_bf16, peak_has_bf16},
    {"int8", "int: vpdpbusd, 512 bit", peak_dot16, peak_has_vnni},
};
enum { N_PEAKS = 7 };
#else
static const peak peaks[] = {{0}};
enum { N_PEAKS = 0 };
#endif

static inline double peak_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct peak_work {
    const peak *p;
    const uint64_t *words; /* without p: reads these */
    size_t n_words;
    double done;
} peak_work;

static inline void *peak_thread(void *user)
{
    peak_work *w = user;
    uint64_t sum[8] = {0};
    for (size_t i = 0; i + 8 <= w->n_words; i += 8)
        for (size_t j = 0; j < 8; j++) sum[j] += w->words[i + j];
    for (size_t j = 1; j < 8; j++) sum[0] += sum[j];
    w->done = w->p ? w->p->fn(6000000) : 8 * (double)w->n_words + (sum[0] == 1);
    return NULL;
}

/* 1e9 operations (bytes) per second of `threads` threads side by side. */
static inline double peak_run(const peak *p, const uint64_t *words, size_t n_words, int threads)
{
    enum { MAX_THREADS = 64 };
    peak_work work[MAX_THREADS];
    pthread_t ids[MAX_THREADS];
    const int n = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
    double done = 0;
    const double begin = peak_seconds();
    for (int i = 0; i < n; i++) {
        work[i] = (peak_work){p, words ? words + n_words / (size_t)n * (size_t)i : NULL, n_words / (size_t)n, 0};
        if (!i || pthread_create(&ids[i], NULL, peak_thread, &work[i])) ids[i] = pthread_self();
    }
    for (int i = 0; i < n; i++) {
        if (pthread_equal(ids[i], pthread_self()))
            peak_thread(&work[i]);
        else
            pthread_join(ids[i], NULL);
        done += work[i].done;
    }
    return done / (peak_seconds() - begin) * 1e-9;
}

/* Gop/s. */
static inline double peak_gops(const peak *p, int threads)
{
    return p->supported() ? peak_run(p, NULL, 0, threads) : 0;
}

/* GB/s of reading memory that no cache holds; 0 without memory for it. */
static inline double peak_memory(int threads)
{
    const size_t n = (size_t)1 << 26; /* 512 MiB */
    uint64_t *words = malloc(n * sizeof *words);
    if (!words) return 0;
    memset(words, 1, n * sizeof *words);
    double best = 0;
    for (int i = 0; i < 3; i++) {
        const double v = peak_run(NULL, words, n, threads);
        if (v > best) best = v;
    }
    free(words);
    return best;
}

#endif
