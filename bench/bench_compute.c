/* bench_compute.c - speed of the matrix product beside OpenBLAS's, measured in turn, and of attention.
 * Usage: bench_compute [threads] [rounds]. Links the static library: it uses the compute seam, not the public API.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "device.h"
#include "measure.h"

enum { MAX_ROUNDS = 101 };

static int rounds = 11;

static rz_stream *open_stream(const char *gemm, int threads)
{
    rz_device_options o = {.gemm = gemm, .n_threads = threads};
    rz_device *dev;
    rz_stream *s;
    radz_error err;
    if (rz_device_open(NULL, &o, &dev, &err) != RADZ_OK || rz_stream_open(dev, &s, &err) != RADZ_OK) {
        fprintf(stderr, "%s\n", err.message);
        return NULL;
    }
    printf("%s\n", rz_device_name(dev));
    return s;
}

static float *numbers(size_t n)
{
    float *x = malloc(n * sizeof *x);
    rz_rng r;
    rz_rng_seed(&r, 1, n);
    for (size_t i = 0; i < n; i++) x[i] = (float)(rz_rng_uniform(&r) - 0.5);
    return x;
}

struct shape {
    size_t m, n, k;
    bool ta, tb;
    const char *what;
};

/* Gflop/s of one product. */
static double gemm_speed(rz_stream *s, const struct shape *p, const float *a, const float *b, float *c)
{
    double flop = 2.0 * (double)p->m * (double)p->n * (double)p->k;
    int repeat = 1 + (int)(2e8 / flop);
    double start = rz_seconds();
    for (int i = 0; i < repeat; i++)
        rz_gemm(s, p->ta, p->tb, p->m, p->n, p->k, 1, rz_mat_f32(a, p->ta ? p->m : p->k),
                rz_mat_f32(b, p->tb ? p->k : p->n), 0, c, p->n);
    return flop * repeat / (rz_seconds() - start) * 1e-9;
}

static void bench_gemm(rz_stream *own, rz_stream *blas, const struct shape *p)
{
    float *a = numbers(p->m * p->k), *b = numbers(p->n * p->k), *c = numbers(p->m * p->n);
    double x[MAX_ROUNDS], y[MAX_ROUNDS], ratio[MAX_ROUNDS];
    gemm_speed(own, p, a, b, c);
    for (int i = 0; i < rounds; i++) {
        x[i] = gemm_speed(own, p, a, b, c);
        y[i] = blas ? gemm_speed(blas, p, a, b, c) : 0;
        if (blas) nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* its idle threads spin for a while */
        ratio[i] = blas ? x[i] / y[i] : 0;
    }
    printf("%5zu x %5zu x %5zu %-12s own %7.1f  openblas %7.1f Gflop/s  ratio %.2f\n", p->m, p->n, p->k, p->what,
           median(x, rounds), median(y, rounds), median(ratio, rounds));
    free(a);
    free(b);
    free(c);
}

/* n sequences of t rows, `heads` heads of size hd. Counted: the products a causal mask leaves. */
static void bench_attention(rz_stream *s, size_t n, size_t t, size_t heads, size_t hd, bool causal)
{
    const size_t ld = heads * hd, size = n * t * ld;
    int32_t *start = malloc((n + 1) * sizeof *start);
    for (size_t i = 0; i <= n; i++) start[i] = (int32_t)(i * t);
    rz_attn a = {{n, start, start}, {n, start, start}, heads, heads, hd, ld, ld, ld, 0.2f, causal, 0};
    float *q = numbers(size), *k = numbers(size), *v = numbers(size), *out = numbers(size), *g = numbers(size);
    float *dq = numbers(size), *dk = numbers(size), *dv = numbers(size), *lse = numbers(n * t * heads);
    double forward[MAX_ROUNDS], backward[MAX_ROUNDS];
    double flop = 4.0 * (double)(n * heads * hd) * (double)t * (double)t * (causal ? 0.5 : 1);
    for (int i = 0; i < rounds; i++) {
        double begin = rz_seconds();
        rz_attention(s, &a, out, lse, q, k, v);
        double middle = rz_seconds();
        rz_attention_bwd(s, &a, dq, dk, dv, g, out, lse, q, k, v);
        forward[i] = flop / (middle - begin) * 1e-9;
        backward[i] = 2.5 * flop / (rz_seconds() - middle) * 1e-9;
    }
    printf("attention %zu x %zu rows, %zu heads of %zu%s: forward %.1f, backward %.1f Gflop/s\n", n, t, heads, hd,
           causal ? ", causal" : "", median(forward, rounds), median(backward, rounds));
    free(start), free(q), free(k), free(v), free(out), free(g), free(dq), free(dk), free(dv), free(lse);
}

int main(int argc, char **argv)
{
    static const struct shape shapes[] = {
        {6400, 192, 192, false, true, "x W^T"},   {6400, 768, 192, false, true, "x W^T"},
        {6400, 192, 768, false, true, "x W^T"},   {6400, 192, 768, false, false, "dy W"},
        {768, 192, 6400, true, false, "dy^T x"},  {1024, 1024, 1024, false, false, ""},
        {260, 576, 192, false, true, "one film"}, {1, 768, 192, false, true, "one row"},
    };
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (argc > 2 && atoi(argv[2]) > 0 && atoi(argv[2]) <= MAX_ROUNDS) rounds = atoi(argv[2]);
    rz_stream *own = open_stream("own", threads), *blas = open_stream("openblas", threads);
    if (!own) return 1;
    for (size_t i = 0; i < RZ_COUNT(shapes); i++) bench_gemm(own, blas, &shapes[i]);
    bench_attention(own, 24, 260, 6, 32, true);
    bench_attention(own, 24, 197, 3, 64, false);
    bench_attention(own, 1, 620, 6, 32, true);
    if (blas) {
        rz_device *dev = rz_stream_device(blas);
        rz_stream_close(blas);
        rz_device_close(dev);
    }
    rz_device *dev = rz_stream_device(own);
    rz_stream_close(own);
    rz_device_close(dev);
    return 0;
}
