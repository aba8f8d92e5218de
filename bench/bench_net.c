/* bench_net.c - films to vectors on any device, several at a time, beside the device's own limits: the bf16 matrix
 * peak through the library's own product, and the bandwidth of its memory. Films are prepared beforehand; what is timed
 * is what a session does with them: upload, tower, projector, decoder, head, download. Links the static library.
 * Usage: bench_net [-d DEVICE] [-w WEIGHTS] [-j THREADS] [-n CALLS] [-p] MODEL_DIR [FILMS...]
 * -p: then one more call, every op waited for: where the time goes.
 * llava_torch.py prints the same lines for transformers. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "embed.h"
#include "measure.h"
#include "op_times.h"
#include "precision.h"

enum { MAX_CALLS = 200, MAX_FILMS = 64 };

typedef struct bench {
    bool profile;
    rz_device_options device;
    const char *weights, *dir;
    int n_calls;
    rz_device *dev;
    rz_stream *s;
    rz_model *model;
    rz_film film;
} bench;

static void finish(bench *b)
{
    radz_error err;
    check(rz_stream_sync(b->s, &err), &err);
}

/* ---- Limits --------------------------------------------------------------------------------------- */

/* Numbers of both signs: zeros would flatter the matrix units. */
static uint16_t *random_half(bench *b, size_t n)
{
    uint16_t *host = malloc(n * sizeof *host), *dev = rz_arena_bytes(b->s, n * sizeof *dev);
    uint64_t x = 88172645463325252u;
    if (!host || !dev) stop("out of memory");
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        host[i] = (uint16_t)(0x3f00 | (x & 0x80ff)); /* +-0.5 .. 2 */
    }
    rz_upload(b->s, dev, host, n * sizeof *dev);
    finish(b);
    free(host);
    return dev;
}

static double product_peak(bench *b)
{
    const size_t n = rz_device_is_host(b->dev) ? 1024 : 8192;
    const int calls = 10;
    double seconds[5];
    rz_mark mark = rz_arena_mark(b->s);
    uint16_t *x = random_half(b, n * n), *w = random_half(b, n * n), *y = rz_arena_bytes(b->s, n * n * sizeof *y);
    const rz_mat mat = {.data = w, .dtype = RZ_BF16, .ld = n, .compute = RZ_BF16};
    for (size_t i = 0; i < RZ_COUNT(seconds); i++) {
        const double begin = rz_seconds();
        for (int c = 0; c < calls; c++) rz_half_linear(b->s, y, n, x, n, mat, NULL, n, n, n);
        finish(b);
        seconds[i] = (rz_seconds() - begin) / calls;
    }
    rz_arena_release(b->s, mark);
    return 2e-12 * (double)(n * n * n) / median(seconds, RZ_COUNT(seconds));
}

static double copy_bandwidth(bench *b)
{
    const size_t n_bytes = rz_device_is_host(b->dev) ? (size_t)256 << 20 : (size_t)2 << 30;
    double seconds[5];
    rz_mark mark = rz_arena_mark(b->s);
    uint8_t *p = rz_arena_bytes(b->s, 2 * n_bytes);
    for (size_t i = 0; p && i < RZ_COUNT(seconds); i++) {
        const double begin = rz_seconds();
        rz_copy(b->s, p + n_bytes, p, n_bytes);
        finish(b);
        seconds[i] = rz_seconds() - begin;
    }
    rz_arena_release(b->s, mark);
    return p ? 2e-9 * (double)n_bytes / median(seconds, RZ_COUNT(seconds)) : 0;
}

/* ---- Films ----------------------------------------------------------------------------------------- */

/* Multiplications and additions for one film's vector: of the rows and blocks that the vector depends on; the last
 * block's rows other than the special ones need their keys and values alone. */
static double operations(const rz_model *m, size_t rows)
{
    const rz_config *c = &m->cfg;
    const double v = (double)c->vision.hidden, vi = (double)c->vision.intermediate, h = (double)c->text.hidden;
    const double kv = (double)(c->text.kv_heads * c->text.head_dim), q = (double)(c->text.heads * c->text.head_dim);
    const double patches = (double)c->image_rows + 1, r = (double)rows, special = (double)c->radz.n_image_tokens;
    const double tower = 2 * patches * (4 * v * v + 2 * v * vi) + 4 * patches * patches * v;
    const double projector = 2 * (patches - 1) * (v * h + h * h);
    const double rest = 2 * (2 * q * h + 3 * h * (double)c->text.intermediate); /* of a block, for a row */
    const double block = r * (rest + 4 * kv * h) + 2 * r * r * q;
    const double last = r * 4 * kv * h + special * rest + 4 * special * r * q;
    const double n_blocks = (double)rz_config_decoder_blocks(c);
    return tower * (double)rz_config_tower_blocks(c) + projector + block * (n_blocks - 1) + last;
}

/* A film like any other: speed does not depend on what it shows. */
static void make_film(bench *b)
{
    static uint8_t pixels[512 * 512];
    radz_error err;
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 2654435761u >> 24);
    check(rz_film_from_pixels(NULL, pixels, RADZ_PIXELS_GRAY8, 512, 512, 512, &b->film, &err), &err);
    check(rz_film_prepare(b->model, &b->film, &err), &err);
}

static size_t prompt_rows(const bench *b)
{
    rz_prompt p = {0};
    radz_error err;
    check(rz_prompt_image_as(NULL, b->model, NULL, &p, &err), &err);
    const size_t n = p.n;
    rz_prompt_free(NULL, &p);
    return n;
}

static void time_films(bench *b, size_t n, double peak)
{
    static double seconds[MAX_CALLS];
    const rz_film *films[MAX_FILMS];
    const rz_pick pick = rz_embed_own(&b->model->cfg);
    const size_t rows = prompt_rows(b);
    const int calls = n > 8 ? (b->n_calls + 1) / 2 : b->n_calls;
    const rz_net net = {.model = b->model, .s = b->s};
    radz_error err;
    float *out = malloc(n * rz_embed_dim(&b->model->cfg, &pick) * sizeof *out);
    if (!out) stop("out of memory");
    for (size_t i = 0; i < n; i++) films[i] = &b->film;
    for (int i = -2; i < calls; i++) { /* the first two warm up */
        const double begin = rz_seconds();
        check(rz_embed_films(&net, films, n, &pick, out, &err), &err);
        if (i >= 0) seconds[i] = rz_seconds() - begin;
    }
    const double t = median(seconds, calls), flops = 1e-12 * operations(b->model, rows) * (double)n / t;
    printf("radz %-5s batch %2zu: %9.3f ms a call (fastest %.3f), %8.2f films/s, %7.2f Tflop/s, %.1f %% of the peak\n",
           b->weights, n, 1e3 * t, 1e3 * seconds[0], (double)n / t, flops, 100 * flops / peak);
    if (b->profile) {
        op_times_watch(b->dev);
        const double begin = rz_seconds();
        check(rz_embed_films(&net, films, n, &pick, out, &err), &err);
        op_times_tell(b->dev, rz_seconds() - begin);
    }
    fflush(stdout);
    free(out);
}

static void parse(bench *b, int argc, char **argv)
{
    *b = (bench){.weights = "bf16", .n_calls = 20};
    for (int c; (c = getopt(argc, argv, "d:w:j:n:p")) != -1;) {
        if (c == 'd') b->device.device = optarg;
        if (c == 'w') b->weights = optarg;
        if (c == 'j') b->device.n_threads = atoi(optarg);
        if (c == 'n') b->n_calls = atoi(optarg);
        if (c == 'p') b->profile = true;
        if (c == '?') exit(2);
    }
    if (optind >= argc || b->n_calls < 1 || b->n_calls > MAX_CALLS)
        stop("usage: bench_net [-d DEVICE] [-w WEIGHTS] [-j THREADS] [-n CALLS] [-p] MODEL_DIR [FILMS...]");
    b->dir = argv[optind];
}

int main(int argc, char **argv)
{
    bench b;
    radz_error err;
    parse(&b, argc, argv);
    rz_source source = {.dir = b.dir};
    check(rz_device_open(NULL, &b.device, &b.dev, &err), &err);
    check(rz_stream_open(b.dev, &b.s, &err), &err);
    printf("%s\n", rz_device_name(b.dev));
    const double peak = product_peak(&b), bandwidth = copy_bandwidth(&b);
    printf("limits: %.1f Tflop/s of bf16, %.0f GB/s copied (read and written)\n", peak, bandwidth);
    fflush(stdout);
    if (strcmp(b.weights, "files") != 0) check(rz_precision_parse(b.weights, 0, NULL, &source.precision, &err), &err);
    const double begin = rz_seconds();
    check(rz_model_load_from(NULL, b.dev, &source, RZ_MODEL_INFER, 0, &b.model, &err), &err);
    printf("loaded in %.2f s; %.1f Gflop for one film of %zu rows\n", rz_seconds() - begin,
           1e-9 * operations(b.model, prompt_rows(&b)), prompt_rows(&b));
    make_film(&b);
    for (int i = optind + 1; i < argc; i++) {
        const int n = atoi(argv[i]);
        if (n < 1 || n > MAX_FILMS) stop("films at a time: 1 to 64");
        time_films(&b, (size_t)n, peak);
    }
    rz_film_free(NULL, &b.film);
    rz_model_unload(b.model);
    rz_stream_close(b.s);
    rz_device_close(b.dev);
    return 0;
}
