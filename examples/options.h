/* options.h - the command line of the programs: one table of options each, filled by parse_command_line.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RADZ_EXAMPLES_OPTIONS_H
#define RADZ_EXAMPLES_OPTIONS_H

#include <radz.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct text_list {
    const char **items;
    size_t n;
} text_list;
void add_text(text_list *l, const char *text); /* not copied */

/* The option "--name". One pointer says what it sets, and with it how its value is written:
 *     {"out", .text = &s.out, .required = true},
 *     {"device", .text = &s.device, .words = "auto|cpu|cuda|cuda:N"},
 *     {"lr", .real = &o->lr, .min = 0},
 *     {"learn-tau", .on = &o->learn_tau},
 * The variables hold the defaults before. */
typedef struct option_entry {
    const char *name;
    const char **text;    /* as it is; with words, one of them */
    text_list *texts;     /* may be given several times */
    bool *flag;           /* no value: true */
    int *on, *off;        /* no value: 1, 0 */
    int *choice;          /* index of one of words */
    int *integer;         /* in min..max */
    int64_t *integer64;   /* in min..max */
    uint64_t *unsigned64; /* any */
    double *real;         /* in min..max, finite */
    const char *words;    /* "cpu|cuda|cuda:N"; N: digits */
    double min, max;      /* of a number; max 0: none */
    bool required, given; /* given: set by parse_command_line */
} option_entry;

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Fills the options; what is no option is gathered at the front of argv. 0 or an exit status.
 * --help and --version need no entry: they end the program. */
int parse_command_line(option_entry *known, size_t n_known, int argc, char **argv, int *n_inputs);

/* The value of "--name" before the options are read, for what the others are laid over: a preset. NULL: not given. */
const char *early_value(int argc, char **argv, const char *name);

#endif
