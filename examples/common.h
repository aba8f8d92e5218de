/* common.h - what the programs share: command line, lists of films, the model that ships, output that is safe to read.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RADZ_EXAMPLES_COMMON_H
#define RADZ_EXAMPLES_COMMON_H

#include <radz.h>
#include <stdbool.h>
#include <stdio.h>

/* Exit statuses of every program; 0 is all done. */
enum { EXIT_FILM = 1 /* an input failed, or output could not be written */, EXIT_USAGE = 2 };

/* ---- The program ---- */

/* Set once, first thing in main; both are static. usage_lines ends with a newline. */
extern const char *program_name, *program_usage;

/* Sees to open standard files and the locale's characters. 0 or an exit status. */
int begin_program(void);
/* --help or --version to standard output; the exit status. */
int print_help(const char *text);
int print_version(void);
/* Flushes standard output; false, with a message, when it could not be written. */
bool output_done(void);

void *need(void *p); /* p, or the end of the program */
/* One line to standard error, control characters made visible. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with the usage after it; EXIT_USAGE. */
int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- Command line ---- */

typedef struct text_list {
    const char **items;
    size_t n;
} text_list;
void add_text(text_list *l, const char *text); /* not copied */

/* An option "--name"; exactly one of the others says what it sets. */
typedef struct option_entry {
    const char *name;
    const char **value;
    bool *flag;
    text_list *list; /* may be given several times */
} option_entry;

/* Fills the options; what is no option is gathered at the front of argv. 0 or an exit status. */
int parse_command_line(const option_entry *known, size_t n_known, int argc, char **argv, int *n_inputs);
/* A whole number in min..max from an option's text, NULL leaves *out. 0 or an exit status. */
int parse_number(const char *option, const char *text, long min, long max, int *out);
/* "a, b,c" for radz_bank_build; the list is cut in place. 0 or an exit status. */
int split_classes(char *list, radz_bank_entry **entries, size_t *n);

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

/* dir NULL: $RADZ_MODEL, else the model that ships. device NULL: any. 0 or an exit status, with a message. */
int open_engine(engine *e, const char *dir, const char *device, int n_threads);
void close_engine(engine *e);

#endif
