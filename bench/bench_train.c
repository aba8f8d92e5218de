/* bench_train.c - speed and memory of a training step: forward, loss, backward, clipping, AdamW, on made-up films and
 * texts whose numbers train_torch.py makes too. Links the static library: it uses the parts, not the public API.
 * Usage: bench_train [-d DEVICE] [-l RANK] [-r] [-p] MODEL_DIR [films [threads [steps [SAVE_DIR]]]]. SAVE_DIR gets the
 * weights of before the first step. -l: LoRA on every linear layer of the decoder beside the weights of the files in
 * bfloat16, tower frozen; without it all weights from random numbers. -r: recomputation. -p: then one more step, every
 * op waited for: where the time goes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "encode.h"
#include "losses.h"
#include "measure.h"
#include "op_times.h"
#include "optimizer.h"

enum { WORDS = 16, TEXT_ROWS = 40, DISEASES = 15, MAX_STEPS = 1000 };

typedef struct bench {
    rz_device_options device;
    size_t lora_rank;
    bool recompute, profile;
    rz_device *dev;
    rz_stream *s;
    rz_model *model;
    rz_optimizer optimizer;
    size_t films, n; /* items: films, as many texts, diseases */
    rz_item *items;
    rz_prompt *prompts;
    float *pixels, *targets;
} bench;

static void *must(void *p)
{
    if (!p) stop("out of memory");
    return p;
}

/* ---- Inputs -------------------------------------------------------------------------------------- */

/* Any token of the vocabulary: number `row` of item i. */
static int32_t word(const bench *b, size_t i, size_t row)
{
    return (int32_t)(3 + (7 * i + 13 * row) % (b->model->cfg.text.vocab - 8));
}

/* n_image places for image rows, then words, then special tokens. */
static void make_prompt(const bench *b, size_t i, size_t n_image, size_t n_words, size_t first, size_t n_special)
{
    rz_prompt *p = &b->prompts[i];
    p->n = n_image + n_words + n_special;
    p->ids = must(malloc(p->n * sizeof *p->ids));
    for (size_t r = 0; r < n_image; r++) p->ids[r] = RZ_ID_IMAGE;
    for (size_t r = 0; r < n_words; r++) p->ids[n_image + r] = word(b, i, r);
    for (size_t r = 0; r < n_special; r++)
        p->ids[n_image + n_words + r] = (int32_t)(b->model->cfg.text.vocab + first + r);
}

static void make_items(bench *b)
{
    const rz_config *cfg = &b->model->cfg;
    size_t side = cfg->vision.image_size, n_pixels = 3 * side * side;
    size_t n_img = cfg->radz.n_image_tokens, n_txt = cfg->radz.n_text_tokens;
    b->n = 2 * b->films + DISEASES;
    b->items = must(calloc(b->n, sizeof *b->items));
    b->prompts = must(calloc(b->n, sizeof *b->prompts));
    b->pixels = must(malloc(b->films * n_pixels * sizeof *b->pixels));
    b->targets = must(calloc(b->films * DISEASES, sizeof *b->targets));
    for (size_t i = 0; i < b->films * n_pixels; i++)
        b->pixels[i] = (float)((uint32_t)i * 2654435761u >> 8) * 0x1p-23f - 1.0f;
    for (size_t i = 0; i < b->n; i++) {
        bool film = i < b->films;
        if (film)
            make_prompt(b, i, cfg->image_rows, WORDS, 0, n_img);
        else
            make_prompt(b, i, 0, TEXT_ROWS - n_txt, n_img, n_txt);
        rz_item_kind kind = film ? RZ_ITEM_IMAGE : i < 2 * b->films ? RZ_ITEM_TEXT : RZ_ITEM_DISEASE;
        b->items[i] = (rz_item){.kind = kind, .prompt = &b->prompts[i]};
        if (film) b->items[i].pixels = b->pixels + i * n_pixels;
        if (film) b->targets[i * DISEASES + i % DISEASES] = 1;
    }
}

static void close_all(bench *b)
{
    for (size_t i = 0; i < b->n; i++) free(b->prompts[i].ids);
    free(b->items);
    free(b->prompts);
    free(b->pixels);
    free(b->targets);
    rz_optimizer_close(&b->optimizer);
    rz_model_unload(b->model);
    rz_stream_close(b->s);
    rz_device_close(b->dev);
}

/* ---- A step ---------------------------------------------------------------------------------------- */

static double step(bench *b, int64_t number)
{
    rz_stream *s = b->s;
    rz_mark mark = rz_arena_mark(s);
    rz_net net = {.model = b->model, .s = s, .keep = true, .recompute = b->recompute};
    rz_encoding *acts;
    rz_loss_output out;
    radz_error err;
    float *global, *local;
    size_t k = b->model->cfg.radz.dim, texts = b->films * k, diseases = 2 * texts;
    rz_optimizer_zero(&b->optimizer, s);
    rz_encode(&net, b->items, b->n, &global, &local, &acts);
    float *dglobal = rz_arena_zeros(s, b->n, k), *dlocal = rz_arena_zeros(s, b->n, k);
    float *targets = must(rz_arena_f32(s, b->films, DISEASES));
    rz_upload(s, targets, b->targets, b->films * DISEASES * sizeof *targets);
    rz_loss_input in = {.b = b->films,
                        .n_classes = DISEASES,
                        .dim = k,
                        .xg = global,
                        .xl = local,
                        .yg = global + texts,
                        .yl = local + texts,
                        .d = global + diseases,
                        .targets = targets,
                        .tau = rz_model_tau(b->model, s),
                        .lambda = 0.5};
    rz_loss_grads g = {dglobal, dlocal, dglobal + texts, dlocal + texts, dglobal + diseases, 0};
    check(rz_losses(s, &in, &g, &out, &err), &err);
    rz_encode_backward(&net, acts, dglobal, dlocal);
    rz_adamw adam = {.lr = 1e-4f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.01f, .step = number};
    double norm;
    check(rz_optimizer_step(&b->optimizer, s, adam, 1.0, &norm, &err), &err);
    rz_arena_release(s, mark);
    return out.loss;
}

/* Each row's share of the tower and of the decoder: what both programs call tokens. */
static size_t count_tokens(const bench *b)
{
    size_t side = b->model->cfg.vision.image_size / b->model->cfg.vision.patch, n = b->films * (side * side + 1);
    for (size_t i = 0; i < b->n; i++) n += b->prompts[i].n;
    return n;
}

static double processor_seconds(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           1e-6 * (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

/* train_torch.py prints the same line; compare_train reads it. */
static void report(const bench *b, int threads, double wall, double processor, double first, double last)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    printf(
        "radz  %d threads %9.1f ms/step %9.1f ms processor %8.0f tokens/s %7.1f films/s %6.0f MiB  loss %.5f -> %.5f\n",
        threads, 1e3 * wall, 1e3 * processor, (double)count_tokens(b) / wall, (double)b->films / wall,
        (double)use.ru_maxrss / 1024, first, last);
    size_t left, all;
    if (rz_device_is_host(b->dev)) return;
    rz_device_memory(b->dev, &left, &all);
    printf("%s: %.1f GiB in use\n", rz_device_name(b->dev), (double)(all - left) / (1 << 30));
}

static void profile(bench *b, int64_t number)
{
    op_times_watch(b->dev);
    const double begin = rz_seconds();
    step(b, number);
    op_times_tell(b->dev, rz_seconds() - begin);
}

static void load(bench *b, const char *dir)
{
    const rz_source source = {.dir = dir, .precision = {.type = RZ_WEIGHTS_BF16, .keep = ""}};
    const rz_train_setup setup = {.projector = true, .lora_rank = b->lora_rank, .lora_alpha = 2 * (double)b->lora_rank};
    radz_error err;
    if (b->lora_rank)
        check(rz_model_load_train(NULL, b->dev, &source, &setup, 1, &b->model, &err), &err);
    else
        check(rz_model_load(NULL, b->dev, dir, RZ_MODEL_INIT, 1, &b->model, &err), &err);
}

static void parse_options(bench *b, int *argc, char ***argv)
{
    for (int c; (c = getopt(*argc, *argv, "+d:l:rp")) != -1;) {
        if (c == 'd') b->device.device = optarg;
        if (c == 'l') b->lora_rank = (size_t)atoi(optarg);
        if (c == 'r') b->recompute = true;
        if (c == 'p') b->profile = true;
        if (c == '?') exit(2);
    }
    *argc -= optind - 1, *argv += optind - 1;
}

int main(int argc, char **argv)
{
    static double wall[MAX_STEPS], processor[MAX_STEPS];
    bench b = {.device.device = "cpu"};
    radz_error err;
    parse_options(&b, &argc, &argv);
    int threads = argc > 3 ? atoi(argv[3]) : 1, steps = argc > 4 ? atoi(argv[4]) : 5;
    b.films = argc > 2 ? (size_t)atoi(argv[2]) : 32;
    b.device.n_threads = threads;
    if (argc < 2 || steps < 1 || steps > MAX_STEPS || b.films < 1 || b.films > 4096) stop("wrong arguments");
    check(rz_device_open(NULL, &b.device, &b.dev, &err), &err);
    check(rz_stream_open(b.dev, &b.s, &err), &err);
    load(&b, argv[1]);
    if (argc > 5) check(rz_model_save(b.model, argv[5], "F32", NULL, &err), &err);
    check(rz_optimizer_open(NULL, b.model, b.s, false, false, &b.optimizer, &err), &err);
    make_items(&b);
    double first = step(&b, 1), last = first;
    for (int i = 0; i < steps; i++) {
        double start = rz_seconds(), start_processor = processor_seconds();
        last = step(&b, i + 2);
        wall[i] = rz_seconds() - start;
        processor[i] = processor_seconds() - start_processor;
    }
    report(&b, threads, median(wall, steps), median(processor, steps), first, last);
    if (b.profile) profile(&b, steps + 2);
    close_all(&b);
    return 0;
}
