/* The command line of the programs. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

void add_text(text_list *l, const char *text)
{
    l->items = need(realloc(l->items, (l->n + 1) * sizeof *l->items));
    l->items[l->n++] = text;
}

/* ---- Values ---- */

/* Not empty, and of allowed characters: strtod and strtoll take more than we want. */
static bool made_of(const char *text, const char *allowed)
{
    return *text && text[strspn(text, allowed)] == 0;
}

/* Is text that word of k characters? N at its end: digits. */
static bool is_word(const char *word, size_t k, const char *text)
{
    const size_t n = strlen(text);
    if (word[k - 1] != 'N') return k == n && strncmp(word, text, n) == 0;
    return n >= k && strncmp(word, text, k - 1) == 0 && made_of(text + k - 1, "0123456789");
}

/* Index of text in "one|two|three", -1: not there. */
static int find_word(const char *words, const char *text)
{
    for (int i = 0; *words; i++) {
        size_t k = strcspn(words, "|");
        if (is_word(words, k, text)) return i;
        words += k + (words[k] == '|');
    }
    return -1;
}

static int refuse_number(const option_entry *o, const char *kind, const char *text)
{
    if (o->max != 0) return usage("--%s: expected %s from %.10g to %.10g, got %s", o->name, kind, o->min, o->max, text);
    return usage("--%s: expected %s of at least %.10g, got %s", o->name, kind, o->min, text);
}

static int set_integer(const option_entry *o, const char *text)
{
    char *end = NULL;
    errno = 0;
    long long v = made_of(text, "0123456789-") ? strtoll(text, &end, 10) : (errno = EINVAL);
    const double max = o->max != 0 ? o->max : o->integer ? INT_MAX : 1e15;
    if (errno || *end || (double)v < o->min || (double)v > max) return refuse_number(o, "a whole number", text);
    if (o->integer)
        *o->integer = (int)v;
    else
        *o->integer64 = v;
    return 0;
}

static int set_unsigned(const option_entry *o, const char *text)
{
    errno = 0;
    unsigned long long v = made_of(text, "0123456789") ? strtoull(text, NULL, 10) : (errno = EINVAL);
    if (errno) return usage("--%s: expected a whole number from 0 to 2^64 - 1, got %s", o->name, text);
    *o->unsigned64 = v;
    return 0;
}

static int set_real(const option_entry *o, const char *text)
{
    char *end = NULL;
    double v = made_of(text, "0123456789+-.eE") ? strtod(text, &end) : NAN; /* LC_NUMERIC stays "C" */
    if (!isfinite(v) || *end || v < o->min || (o->max != 0 && v > o->max)) return refuse_number(o, "a number", text);
    *o->real = v;
    return 0;
}

static int set_word(const option_entry *o, const char *text)
{
    int i = find_word(o->words, text);
    if (i < 0) return usage("--%s: expected one of %s, got %s", o->name, o->words, text);
    if (o->choice)
        *o->choice = i;
    else
        *o->text = text;
    return 0;
}

static int set_value(const option_entry *o, const char *text)
{
    if (*text == 0) return usage("--%s needs a value", o->name);
    if (o->words) return set_word(o, text);
    if (o->integer || o->integer64) return set_integer(o, text);
    if (o->unsigned64) return set_unsigned(o, text);
    if (o->real) return set_real(o, text);
    if (o->texts)
        add_text(o->texts, text);
    else
        *o->text = text;
    return 0;
}

static void set_flag(const option_entry *o)
{
    if (o->flag)
        *o->flag = true;
    else
        *(o->on ? o->on : o->off) = o->on != NULL;
}

/* ---- Options ---- */

static bool named(const char *name, const char *text, size_t n)
{
    return strlen(name) == n && strncmp(name, text, n) == 0;
}

/* The only option whose name begins so: what somebody meant who wrote --thread. */
static int refuse_option(const option_entry *known, size_t n_known, const char *given)
{
    const char *text = given + strspn(given, "-"), *meant = NULL;
    size_t n = strcspn(text, "="), n_meant = 0;
    for (size_t i = 0; i < n_known && n; i++)
        if (strncmp(known[i].name, text, n) == 0 || strncmp(known[i].name, text, strlen(known[i].name)) == 0)
            meant = known[i].name, n_meant++;
    if (n_meant == 1) return usage("unknown option %s; there is --%s", given, meant);
    return usage("unknown option %s", given);
}

/* Takes argv[*i], an option, and its value where it has one. 0 or an exit status. */
static int take_option(option_entry *known, size_t n_known, int argc, char **argv, int *i)
{
    const char *given = argv[*i], *name = given + 2, *equals = given[1] == '-' ? strchr(name, '=') : NULL;
    if (strcmp(given, "-h") == 0) exit(print_help());
    if (given[1] != '-') return refuse_option(known, n_known, given);
    size_t n = equals ? (size_t)(equals - name) : strlen(name), k = 0;
    if (!equals && named("help", name, n)) exit(print_help());
    if (!equals && named("version", name, n)) exit(print_version());
    while (k < n_known && !named(known[k].name, name, n)) k++;
    if (k == n_known) return refuse_option(known, n_known, given);
    option_entry *o = &known[k];
    if (o->given && !o->texts) return usage("--%s is given twice", o->name);
    o->given = true;
    if (o->flag || o->on || o->off) {
        if (equals) return usage("--%s takes no value", o->name);
        set_flag(o);
        return 0;
    }
    if (!equals && *i + 1 == argc) return usage("--%s needs a value", o->name);
    return set_value(o, equals ? equals + 1 : argv[++*i]);
}

int parse_command_line(option_entry *known, size_t n_known, int argc, char **argv, int *n_inputs)
{
    bool options = true;
    *n_inputs = 0;
    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (options && argv[i][0] == '-' && argv[i][1]) {
            int status = take_option(known, n_known, argc, argv, &i);
            if (status) return status;
        } else {
            argv[(*n_inputs)++] = argv[i];
        }
    }
    for (size_t k = 0; k < n_known; k++)
        if (known[k].required && !known[k].given) return usage("--%s is missing", known[k].name);
    return 0;
}

const char *early_value(int argc, char **argv, const char *name)
{
    const size_t n = strlen(name);
    const char *value = NULL;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "--", 2) != 0 || strncmp(argv[i] + 2, name, n) != 0) continue;
        if (argv[i][2 + n] == '=') value = argv[i] + 3 + n;
        if (!argv[i][2 + n] && i + 1 < argc) value = argv[i + 1];
    }
    return value;
}
