/* image_radz.c - one film to one vector with libradz, then another question about the same film. Uses the public header
 * only, as image_llama.c does for llama.cpp.
 * Usage: image_radz [-w WEIGHTS] [-k KEEP] [-m BYTES] [-j THREADS] [-f] [-n CALLS [-b FILMS]] MODEL_DIR FILM
 * prints "KEY VALUE" lines; told_mib is the memory that the library says it will take, all in all. -f: the first vector
 * only, nothing kept for a second question. -n: then CALLS calls with FILMS films each (the same film), the median.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "radz.h"

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check(radz_status status, const radz_error *err)
{
    if (!status) return;
    fprintf(stderr, "image_radz: %s\n", err->message);
    exit(1);
}

enum { MAX_CALLS = 1000, MAX_FILMS = 64 };

typedef struct settings {
    int n_calls, n_films;
    radz_runtime_options runtime;
    radz_model_options model;
    radz_session_options session;
} settings;

static void parse(settings *s, int argc, char **argv)
{
    radz_runtime_options_init(&s->runtime);
    radz_model_options_init(&s->model);
    radz_session_options_init(&s->session);
    s->session.keep_film = 1;
    s->n_films = 1, s->n_calls = 0;
    for (int c; (c = getopt(argc, argv, "w:k:m:j:fn:b:")) != -1;) {
        if (c == 'w') s->model.weights = optarg;
        if (c == 'k') s->model.keep_weights = optarg;
        if (c == 'm') s->model.memory_bytes = strtoull(optarg, NULL, 10);
        if (c == 'j') s->runtime.n_threads = atoi(optarg);
        if (c == 'f') s->session.keep_film = 0;
        if (c == 'n') s->n_calls = atoi(optarg);
        if (c == 'b') s->n_films = atoi(optarg);
        if (c == '?') exit(2);
    }
    if (argc - optind == 2 && s->n_calls <= MAX_CALLS && s->n_films > 0 && s->n_films <= MAX_FILMS) return;
    fputs(
        "usage: image_radz [-w WEIGHTS] [-k KEEP] [-m BYTES] [-j THREADS] [-f] [-n CALLS [-b FILMS]] MODEL_DIR FILM\n",
        stderr);
    exit(2);
}

/* The film's vector; how long it took. */
static double embed(radz_session *session, const radz_image *film, const char *prompt, float *vector)
{
    radz_embed_options o;
    radz_error err;
    radz_embed_options_init(&o);
    o.image_prompt = prompt;
    const double begin = seconds();
    check(radz_embed_images(session, &film, 1, &o, vector, &err), &err);
    return seconds() - begin;
}

static void tell_memory(const radz_model *model)
{
    radz_model_info info;
    radz_error err;
    radz_model_info_init(&info);
    check(radz_model_get_info(model, &info, &err), &err);
    printf("told_mib %.1f\n", (double)info.peak_bytes / (1 << 20));
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void repeat(const settings *s, radz_session *session, const radz_image *film, size_t dim)
{
    const radz_image *films[MAX_FILMS];
    static double ms[MAX_CALLS];
    radz_error err;
    float *vectors = malloc((size_t)s->n_films * dim * sizeof *vectors);
    for (int i = 0; i < s->n_films; i++) films[i] = film;
    for (int i = 0; vectors && i < s->n_calls; i++) {
        const double begin = seconds();
        check(radz_embed_images(session, films, (size_t)s->n_films, NULL, vectors, &err), &err);
        ms[i] = 1e3 * (seconds() - begin) / s->n_films;
    }
    qsort(ms, (size_t)s->n_calls, sizeof *ms, by_value);
    printf("film_ms %.3f\n", ms[s->n_calls / 2]);
    free(vectors);
}

int main(int argc, char **argv)
{
    const double begin = seconds();
    settings s;
    radz_error err;
    radz_runtime *runtime;
    radz_model *model;
    radz_session *session;
    radz_image *film;
    parse(&s, argc, argv);
    check(radz_runtime_create(&s.runtime, &runtime, &err), &err);
    check(radz_model_open(runtime, argv[optind], &s.model, &model, &err), &err);
    check(radz_session_open(model, &s.session, &session, &err), &err);
    printf("load_s %.3f\n", seconds() - begin);
    tell_memory(model);
    check(radz_image_open(runtime, argv[optind + 1], &film, &err), &err);
    const size_t dim = radz_model_embedding_dim(model);
    float *vector = malloc(dim * sizeof *vector);
    if (!vector) return 1;
    printf("image_s %.3f\n", embed(session, film, NULL, vector));
    if (s.n_calls)
        repeat(&s, session, film, dim);
    else if (s.session.keep_film)
        printf("second_s %.3f\n", embed(session, film, "<image>\nIs the heart of this patient enlarged?", vector));
    printf("%s: first number %.6f\n", radz_model_device(model), (double)vector[0]);
    free(vector);
    radz_image_close(film);
    radz_session_close(session);
    radz_model_close(model);
    radz_runtime_close(runtime);
    return 0;
}
