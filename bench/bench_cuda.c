/* bench_cuda.c - what a GPU does with the library's ops alone: matrix products and attention of bfloat16, attention of
 * floats and its backward, a copy. Usage: bench_cuda [rounds]. Medians; a round is as many calls as take some
 * milliseconds, waited for once. Links the static library, as bench_kernels does. SPDX-License-Identifier: Apache-2.0
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "device.h"
#include "measure.h"

enum { MAX_ROUNDS = 101 };

static int rounds = 20;
static rz_device *dev;
static rz_stream *s;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void wait_for_all(void)
{
    radz_error err;
    check(rz_stream_sync(s, &err), &err);
}

static void *memory(size_t n_bytes)
{
    void *p;
    radz_error err;
    check(rz_device_alloc(dev, n_bytes, &p, &err), &err);
    return p;
}

/* n numbers between -1 and 1. */
static float *floats(size_t n)
{
    float *host = malloc(n * sizeof *host), *p = memory(n * sizeof *p);
    uint32_t r = 1;
    for (size_t i = 0; host && i < n; i++) r = r * 1664525 + 1013904223, host[i] = (float)(r >> 8) * 0x1p-23f - 1;
    rz_upload(s, p, host, n * sizeof *p);
    wait_for_all();
    free(host);
    return p;
}
static uint16_t *halves(size_t n)
{
    float *x = floats(n);
    uint16_t *y = memory(n * sizeof *y);
    rz_to_bf16(s, y, x, n);
    wait_for_all();
    rz_device_free(dev, x);
    return y;
}

/* Seconds of a call. */
static double seconds(void (*call)(void *arg), void *arg)
{
    double took[MAX_ROUNDS];
    for (int i = 0; i < 3; i++) call(arg);
    wait_for_all();
    double start = now();
    call(arg);
    wait_for_all();
    const int calls = 1 + (int)fmin(100, 5e-3 / (now() - start));
    for (int r = 0; r < rounds; r++) {
        start = now();
        for (int i = 0; i < calls; i++) call(arg);
        wait_for_all();
        took[r] = (now() - start) / calls;
    }
    return median(took, rounds);
}

/* ---- Copies and products ---- */

struct copy {
    void *to, *from;
    size_t n;
};
static void copy_once(void *arg)
{
    const struct copy *c = arg;
    rz_copy(s, c->to, c->from, c->n);
}
static void copy_speed(size_t n)
{
    struct copy c = {memory(n), memory(n), n};
    const double t = seconds(copy_once, &c);
    printf("copy of %4zu MiB                              %9.3f ms  %7.2f TB/s read and written\n", n >> 20, t * 1e3,
           2e-12 * (double)n / t);
    rz_device_free(dev, c.to), rz_device_free(dev, c.from);
}

struct product {
    uint16_t *y, *x, *w;
    size_t m, n, k;
};
static void product_once(void *arg)
{
    const struct product *p = arg;
    const rz_mat w = {.data = p->w, .dtype = RZ_BF16, .ld = p->k, .compute = RZ_BF16};
    rz_half_linear(s, p->y, p->n, p->x, p->k, w, NULL, p->m, p->n, p->k);
}
static void product_speed(size_t m, size_t n, size_t k)
{
    struct product p = {memory(2 * m * n), halves(m * k), halves(n * k), m, n, k};
    const double t = seconds(product_once, &p);
    printf("bf16 product %5zu x %5zu x %5zu             %9.3f ms  %7.1f TFLOP/s\n", m, n, k, t * 1e3,
           2e-12 * (double)m * (double)n * (double)k / t);
    rz_device_free(dev, p.y), rz_device_free(dev, p.x), rz_device_free(dev, p.w);
}

/* ---- Attention ---- */

struct shape {
    const char *what;
    size_t n, length, heads, kv_heads, head_dim;
    bool causal;
};

struct attention {
    rz_attn a;
    void *q, *k, *v, *out;
    float *lse, *dout, *dq, *dk, *dv;
};
static void half_once(void *arg)
{
    const struct attention *t = arg;
    rz_half_attention(s, &t->a, t->out, t->q, t->k, t->v);
}
static void float_once(void *arg)
{
    const struct attention *t = arg;
    rz_attention(s, &t->a, t->out, t->lse, t->q, t->k, t->v);
}
static void backward_once(void *arg)
{
    const struct attention *t = arg;
    rz_attention_bwd(s, &t->a, t->dq, t->dk, t->dv, t->dout, t->out, t->lse, t->q, t->k, t->v);
}

/* products: of queries by keys by columns, twice in the forward, five times in the backward. */
static void report(const struct shape *w, const char *what, double products, double t)
{
    const double pairs = (double)w->length * (double)(w->causal ? w->length + 1 : 2 * w->length) / 2;
    const double ops = 2 * products * pairs * (double)(w->n * w->heads * w->head_dim);
    printf("%-8s %-9s %3zu x %4zu, %2zu heads of %3zu %-6s %9.3f ms  %7.1f TFLOP/s\n", w->what, what, w->n, w->length,
           w->heads, w->head_dim, w->causal ? "causal" : "", t * 1e3, 1e-12 * ops / t);
}

static rz_attn attn_of(const struct shape *w)
{
    int32_t *start = calloc(w->n + 1, sizeof *start), *start_dev = memory((w->n + 1) * sizeof *start);
    for (size_t i = 0; i < w->n; i++) start[i + 1] = start[i] + (int32_t)w->length;
    rz_upload(s, start_dev, start, (w->n + 1) * sizeof *start);
    const rz_ragged seq = {w->n, start, start_dev};
    return (rz_attn){seq,
                     seq,
                     w->heads,
                     w->kv_heads,
                     w->head_dim,
                     w->heads * w->head_dim,
                     w->kv_heads * w->head_dim,
                     w->heads * w->head_dim,
                     1.0f / sqrtf((float)w->head_dim),
                     w->causal,
                     0};
}

static void half_speed(const struct shape *w)
{
    struct attention t = {.a = attn_of(w)};
    const size_t rows = w->n * w->length;
    t.q = halves(rows * t.a.q_ld), t.k = halves(rows * t.a.kv_ld), t.v = halves(rows * t.a.kv_ld);
    t.out = memory(2 * rows * t.a.out_ld);
    report(w, "bf16", 2, seconds(half_once, &t));
    rz_device_free(dev, t.q), rz_device_free(dev, t.k), rz_device_free(dev, t.v), rz_device_free(dev, t.out);
    rz_device_free(dev, (void *)t.a.q_seq.start_dev);
    free((void *)t.a.q_seq.start);
}

static void float_speed(const struct shape *w)
{
    struct attention t = {.a = attn_of(w)};
    const size_t rows = w->n * w->length;
    float *const to_free[] = {
        t.q = floats(rows * t.a.q_ld),     t.k = floats(rows * t.a.kv_ld),  t.v = floats(rows * t.a.kv_ld),
        t.out = floats(rows * t.a.out_ld), t.lse = floats(rows * w->heads), t.dout = floats(rows * t.a.out_ld),
        t.dq = floats(rows * t.a.q_ld),    t.dk = floats(rows * t.a.kv_ld), t.dv = floats(rows * t.a.kv_ld)};
    report(w, "f32", 2, seconds(float_once, &t));
    report(w, "backward", 5, seconds(backward_once, &t));
    for (size_t i = 0; i < RZ_COUNT(to_free); i++) rz_device_free(dev, to_free[i]);
    rz_device_free(dev, (void *)t.a.q_seq.start_dev);
    free((void *)t.a.q_seq.start);
}

static const struct shape shapes[] = {
    {"7B", 1, 640, 32, 8, 128, true},  {"7B", 8, 640, 32, 8, 128, true},     {"7B", 8, 1024, 32, 8, 128, true},
    {"7B", 8, 4096, 32, 8, 128, true}, {"tower", 8, 577, 16, 16, 64, false}, {"tiny", 64, 65, 6, 6, 32, false},
    {"tiny", 64, 90, 6, 6, 32, true},
};

int main(int argc, char **argv)
{
    const rz_device_options o = {.device = "cuda"};
    radz_error err;
    if (argc > 1) rounds = atoi(argv[1]);
    if (rounds < 1 || rounds > MAX_ROUNDS) return fprintf(stderr, "usage: bench_cuda [rounds]\n"), 2;
    check(rz_device_open(NULL, &o, &dev, &err), &err);
    check(rz_stream_open(dev, &s, &err), &err);
    printf("%s\n", rz_device_name(dev));
    copy_speed((size_t)1 << 30);
    product_speed(8192, 8192, 8192);
    product_speed(8 * 640, 14336, 4096);
    product_speed(640, 14336, 4096);
    for (size_t i = 0; i < RZ_COUNT(shapes); i++) half_speed(&shapes[i]);
    for (size_t i = 0; i < RZ_COUNT(shapes); i++)
        if (shapes[i].length < 4096) float_speed(&shapes[i]);
    rz_stream_close(s);
    rz_device_close(dev);
    return 0;
}
