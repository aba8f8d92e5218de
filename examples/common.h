/* common.h - what the programs share: lists of films, the model that ships, output that is safe to read.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RADZ_EXAMPLES_COMMON_H
#define RADZ_EXAMPLES_COMMON_H

#include <radz.h>
#include <stdbool.h>
#include <stdio.h>

#include "options.h"

/* Exit statuses of every program; 0 is all done. */
enum { EXIT_FILM = 1 /* an input failed, or output could not be written */, EXIT_USAGE = 2 };

/* ---- The program ---- */

/* Set once, first thing in main; static texts that end with a newline. The help comes after the usage. */
extern const char *program_name, *program_usage, *program_help;

/* Sees to open standard files and the locale's characters. 0 or an exit status. */
int begin_program(void);
/* --help or --version to standard output; the exit status. */
int print_help(void);
int print_version(void);
/* Flushes standard output; false, with a message, when it could not be written. */
bool output_done(void);

void *need(void *p); /* p, or the end of the program */
/* One line to standard error, control characters made visible. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with the usage after it; EXIT_USAGE. */
int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Lines of a file that are not empty, added to the list, which points into *text. 0 or an exit status. */
int read_lines(const char *path, text_list *l, char **text);
/* "600M" in bytes; 0: it is no size. */
uint64_t parse_size(const char *text);

/* ---- Text that is safe to print ---- */

/* Control and invisible characters and bytes that are not UTF-8 as \xNN. */
void show(FILE *out, const char *text);
size_t columns(const char *text);       /* that show() takes */
void print_json_text(const char *text); /* quoted, or null */
/* Shortest digits that read back to the same number; LC_NUMERIC stays "C". */
void print_number(double v);

/* ---- Films ---- */

typedef struct film_place {
    char *path;
    radz_error *why; /* a folder that could not be read or holds no film; NULL: a film */
} film_place;

typedef struct film_list {
    film_place *places;
    size_t n, cap;
} film_list;

/* A film, or every film in and below a folder, sorted. "-" is standard input. */
void add_input(film_list *l, const char *input);
void free_films(film_list *l);
radz_status open_film(radz_runtime *runtime, const film_place *place, radz_image **image, radz_error *err);

/* ---- Runtime, model, session ---- */

typedef struct engine {
    radz_runtime *runtime;
    radz_model *model;
    radz_session *session;
} engine;

typedef struct engine_options {
    const char *model;                         /* NULL: $RADZ_MODEL, else the model that ships */
    const char *adapter, *vision_dir, *device; /* NULL: none, none, any */
    int vision_source;                         /* radz_vision_source */
    int n_threads;
    bool read_weights;                  /* do not map them */
    const char *weights, *keep_weights; /* as radz_model_options */
    const char *memory;                 /* "1G", "600M", bytes; NULL: weights stay in memory */
    bool strict;                        /* refuse films that are no frontal chest films by their own file */
} engine_options;

/* Entries of an option table that fill an engine_options, and their lines of the help. */
#define ENGINE_OPTIONS(o) {"model", .text = &(o).model}, {"adapter", .text = &(o).adapter}, ENGINE_REST(o)
/* The same for a program that takes several models. */
#define ENGINE_REST(o)                                                                                                 \
    {"vision-dir", .text = &(o).vision_dir},                                                                           \
        {"vision-source", .choice = &(o).vision_source, .words = "auto|checkpoint|external"},                          \
        {"read-weights", .flag = &(o).read_weights}, {"weights", .text = &(o).weights},                                \
        {"keep-weights", .text = &(o).keep_weights}, {"memory", .text = &(o).memory},                                  \
        {"threads", .integer = &(o).n_threads, .max = 1024},                                                           \
    {                                                                                                                  \
        "device", .text = &(o).device, .words = "auto|cpu|cuda|cuda:N"                                                 \
    }
#define ENGINE_HELP                                                                                                    \
    "  --model DIR     model directory; else $RADZ_MODEL, else the model that ships\n"                                 \
    "  --adapter DIR   LoRA adapter as PEFT writes it, merged into the model's weights\n"                              \
    "  --vision-dir DIR\n"                                                                                             \
    "                  CLIP model whose vision tower is used\n"                                                        \
    "  --vision-source NAME\n"                                                                                         \
    "                  auto (default), checkpoint: the tower in the model's files,\n"                                  \
    "                  external: --vision-dir, else the one the model names\n"                                         \
    "  --read-weights  read the weights into memory instead of mapping their files\n"                                  \
    "  --weights TYPE  numbers of the weights: f32, bf16 (products of bf16 too), int8 or int4\n"                       \
    "                  (int8/32: groups of 32 in place of 128), made when they are loaded;\n"                          \
    "                  default: as the files have them\n"                                                              \
    "  --keep-weights LIST\n"                                                                                          \
    "                  what --weights leaves as stored: embeddings, tower, projector, heads,\n"                        \
    "                  lm_head, first, last, or patterns of tensor names; 'none': nothing\n"                           \
    "  --memory SIZE   read the weights as they are needed, in about so much memory in all: 1G,\n"                     \
    "                  600M; the same results. Default: they stay in memory\n"                                         \
    "  --threads N     worker threads, 0 = one per core (default)\n"                                                   \
    "  --device NAME   auto (default: a GPU, else the CPU), cpu, cuda, cuda:1: the second GPU\n"

/* 0 or an exit status, with a message. e->runtime is made unless there is one. */
int open_engine(engine *e, const engine_options *o);
void close_engine(engine *e);
/* A bank of the classes in "a, b,c". 0 or an exit status, with a message. */
int build_classes(radz_session *session, const char *list, radz_bank **bank);

#endif
