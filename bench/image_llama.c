/* image_llama.c - one image to one vector with llama.cpp: its tower (mtmd) and decoder, from GGUF files, then another
 * question about the same image, whose keys and values it keeps too.
 * Usage: image_llama [-f] [-j THREADS] MODEL.gguf MMPROJ.gguf     prints "KEY SECONDS" lines
 *        image_llama -q IN.gguf OUT.gguf                         makes Q4_K_M of it
 * -f: the first vector only.
 * What suits llama.cpp best: all ROWS (the image's and made-up ones for the words) in one batch, one row asked for,
 * fused attention, weights repacked for the processor where it can. Asked for embeddings it runs the last block and the
 * head for every row; so it is asked for the last row's logits, which need one row of either, and whose last step, the
 * head, is 0.3 of 8,600 Gop. Linked with what bench/peers has built.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "llama.h"
#include "mtmd.h"

enum { SIDE = 640, ROWS = 621, NEW_ROWS = 45 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void stop(const char *message)
{
    fprintf(stderr, "image_llama: %s\n", message);
    exit(1);
}

static void silent(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level >= GGML_LOG_LEVEL_ERROR && level != GGML_LOG_LEVEL_CONT) fputs(text, stderr);
}

static int quantise(const char *in, const char *out)
{
    llama_model_quantize_params p = llama_model_quantize_default_params();
    p.ftype = LLAMA_FTYPE_MOSTLY_Q4_K_M;
    p.allow_requantize = true;
    return llama_model_quantize(in, out, &p) ? 1 : 0;
}

static struct llama_context *open_context(struct llama_model *model, int threads)
{
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = p.n_batch = p.n_ubatch = 1024;
    p.n_threads = p.n_threads_batch = threads;
    p.pooling_type = LLAMA_POOLING_TYPE_NONE;
    struct llama_context *ctx = llama_init_from_model(model, p);
    if (!ctx) stop("no context");
    return ctx;
}

/* The image's rows, (n, width); they belong to the tower's context. */
static const float *encode_image(mtmd_context *tower, size_t *n)
{
    static unsigned char pixels[SIDE * SIDE * 3];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (unsigned char)(i * 2654435761u >> 24);
    mtmd_bitmap *image = mtmd_bitmap_init(SIDE, SIDE, pixels);
    const struct mtmd_input_part part = {.bitmap = image}, *parts[] = {&part};
    mtmd_input_chunks *chunks = mtmd_input_chunks_init();
    if (mtmd_tokenize_from_parts(tower, chunks, parts, 1, false)) stop("the image was refused");
    const mtmd_input_chunk *chunk = mtmd_input_chunks_get(chunks, mtmd_input_chunks_size(chunks) - 1);
    *n = mtmd_input_chunk_get_n_tokens(chunk);
    if (mtmd_encode_chunk(tower, chunk)) stop("the tower failed");
    return mtmd_get_output_embd(tower);
}

/* Rows [first, first + n); what comes out at the last. */
static double decode(struct llama_context *ctx, float *rows, size_t first, size_t n)
{
    struct llama_batch batch = llama_batch_init((int32_t)n, 1, 1); /* for its other arrays */
    free(batch.embd);
    batch.embd = rows;
    batch.n_tokens = (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        batch.pos[i] = (llama_pos)(first + i);
        batch.n_seq_id[i] = 1, batch.seq_id[i][0] = 0;
        batch.logits[i] = i + 1 == n;
    }
    const double begin = seconds();
    if (llama_decode(ctx, batch)) stop("the decoder failed");
    const float *v = llama_get_logits_ith(ctx, (int32_t)n - 1);
    if (!v || !(v[0] == v[0])) stop("no numbers");
    batch.embd = NULL;
    llama_batch_free(batch);
    return seconds() - begin;
}

static void fill(float *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) rows[i] = .02f * (float)((int)(i * 2654435761u >> 22 & 255) - 128) / 74;
}

int main(int argc, char **argv)
{
    const double begin = seconds();
    llama_log_set(silent, NULL);
    mtmd_log_set(silent, NULL);
    int threads = 2;
    bool first_only = false, to_quantise = false;
    for (int c; (c = getopt(argc, argv, "fqj:")) != -1;) {
        if (c == 'f') first_only = true;
        if (c == 'q') to_quantise = true;
        if (c == 'j') threads = atoi(optarg);
        if (c == '?') return 2;
    }
    if (argc - optind != 2) stop("expected two files");
    if (to_quantise) return quantise(argv[optind], argv[optind + 1]);
    struct llama_model *model = llama_model_load_from_file(argv[optind], llama_model_default_params());
    struct mtmd_context_params tower_params = mtmd_context_params_default();
    tower_params.n_threads = threads, tower_params.warmup = false, tower_params.use_gpu = false;
    mtmd_context *tower = model ? mtmd_init_from_file(argv[optind + 1], model, tower_params) : NULL;
    if (!tower) stop("cannot load");
    struct llama_context *ctx = open_context(model, threads);
    const size_t width = (size_t)llama_model_n_embd(model);
    const double loaded = seconds();
    size_t n_image = 0;
    const float *image = encode_image(tower, &n_image);
    const double seen = seconds();
    float *rows = malloc(ROWS * width * sizeof *rows);
    if (!rows || n_image + NEW_ROWS > ROWS) stop("too few rows, or no memory");
    fill(rows, ROWS * width);
    memcpy(rows, image, n_image * width * sizeof *rows);
    const double decoder = decode(ctx, rows, 0, ROWS);
    printf("load_s %.3f\ntower_s %.3f\n", loaded - begin, seen - loaded);
    printf("image_s %.3f\n", seen - loaded + decoder);
    if (!first_only) {
        llama_memory_seq_rm(llama_get_memory(ctx), 0, ROWS - NEW_ROWS, -1);
        printf("second_s %.3f\n", decode(ctx, rows + (ROWS - NEW_ROWS) * width, ROWS - NEW_ROWS, NEW_ROWS));
    }
    fflush(stdout);
    _Exit(0); /* taking it all down is no part of a vector */
}
