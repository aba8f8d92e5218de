/* radz-embed - films and texts to vectors in a file. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

enum { BATCH = 8, MAX_BATCH_PX = 32 * 1024 * 1024 };

static const char usage_lines[] =
    "usage: radz-embed --out FILE.npy|FILE.safetensors [--model DIR] [--text TEXT]... [--texts FILE]\n"
    "                  [--feature global|local|last|all] [--layer N] [--raw] [--quiet] [OPTION]...\n"
    "                  [FILE|DIR...]\n";

static const char help_text[] =
    "\n"
    "Turns chest X-ray films (PNG, JPEG or DICOM) and texts into unit vectors.\n"
    "RESEARCH USE ONLY. NOT FOR DIAGNOSIS.\n"
    "\n"
    "  FILE            a film; '-' reads one from standard input\n"
    "  DIR             every *.png, *.jpg, *.jpeg, *.dcm and DICOM file of another name\n"
    "                  in it and below, sorted\n"
    "  --text TEXT     a text; may be given several times\n"
    "  --texts FILE    a text per line; empty lines are left out\n"
    "  --out FILE      x.npy: float32 (n, K), names in x.names.json; x.safetensors: tensor\n"
    "                  \"embeddings\", names in its metadata. Films first, then texts. What failed is\n"
    "                  left out; the names say what is there\n"
    "  --feature NAME  rows that are averaged: global (default: the special tokens), local (all\n"
    "                  others), last, all\n"
    "  --layer N       index into the hidden states, -1 the last; default: the model's own\n"
    "  --raw           the mean row itself, without the trained head\n" ENGINE_HELP
    "  --quiet         nothing on standard error but failures\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 all inputs done; 1 an input failed (the others are done) or nothing could be\n"
    "written; 2 wrong usage, or no such model.\n";

typedef struct settings {
    engine_options engine;
    const char *texts_file, *out;
    int feature;
    text_list texts;
    bool quiet;
    char **inputs;
    int n_inputs;
    radz_embed_options embed;
} settings;

/* ---- Command line ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n > k && strcmp(s + n - k, end) == 0;
}

static int check_settings(settings *s)
{
    int n_stdin = 0;
    s->embed.feature = (radz_feature)s->feature;
    for (int i = 0; i < s->n_inputs; i++) n_stdin += strcmp(s->inputs[i], "-") == 0;
    if (n_stdin > 1) return usage("standard input ('-') can be read only once");
    if (!ends_with(s->out, ".npy") && !ends_with(s->out, ".safetensors"))
        return usage("--out: expected a name that ends in .npy or .safetensors, got %s", s->out);
    if (!s->n_inputs && !s->texts.n && !s->texts_file) return usage("no film and no text given");
    return 0;
}

static int parse_settings(settings *s, int argc, char **argv)
{
    option_entry known[] = {ENGINE_OPTIONS(s->engine),
                            {"out", .text = &s->out, .required = true},
                            {"text", .texts = &s->texts},
                            {"texts", .text = &s->texts_file},
                            {"feature", .choice = &s->feature, .words = "global|local|last|all"},
                            {"layer", .integer = &s->embed.layer, .min = -10000, .max = 10000},
                            {"raw", .on = &s->embed.raw},
                            {"quiet", .flag = &s->quiet}};
    radz_embed_options_init(&s->embed);
    s->inputs = argv;
    int status = parse_command_line(known, COUNT(known), argc, argv, &s->n_inputs);
    return status ? status : check_settings(s);
}

/* ---- Vectors and their names ---- */

typedef struct table {
    engine e;
    const settings *s;
    size_t dim, n, cap, n_failed;
    float *vectors;
    const char **names; /* not owned */
} table;

/* Room for n more rows; the first of them. */
static float *room(table *t, size_t n)
{
    if (t->n + n > t->cap) {
        t->cap = 2 * (t->n + n) + 64;
        t->vectors = need(realloc(t->vectors, t->cap * t->dim * sizeof *t->vectors));
        t->names = need(realloc(t->names, t->cap * sizeof *t->names));
    }
    return t->vectors + t->n * t->dim;
}

static void fail_input(table *t, const char *name, const radz_error *error)
{
    bool named = strstr(error->message, name) != NULL;
    t->n_failed++;
    complain("%s%s%s", named ? "" : name, named ? "" : ": ", error->message);
}

/* ---- Films ---- */

typedef struct batch {
    const char *names[BATCH];
    radz_image *images[BATCH];
    size_t n, n_px;
} batch;

static bool embed_films(table *t, const batch *b, size_t first, size_t n, radz_error *err)
{
    float *out = room(t, n);
    if (radz_embed_images(t->e.session, (const radz_image *const *)b->images + first, n, &t->s->embed, out, err))
        return false;
    memcpy(t->names + t->n, b->names + first, n * sizeof *b->names);
    t->n += n;
    return true;
}

static void embed_batch(table *t, batch *b)
{
    radz_error err;
    if (!embed_films(t, b, 0, b->n, &err)) /* one film after another: only the bad one fails */
        for (size_t i = 0; i < b->n; i++)
            if (!embed_films(t, b, i, 1, &err)) fail_input(t, b->names[i], &err);
    for (size_t i = 0; i < b->n; i++) radz_image_close(b->images[i]);
    b->n = b->n_px = 0;
}

static void embed_all_films(table *t, const film_list *films)
{
    batch b = {.n = 0};
    for (size_t i = 0; i < films->n; i++) {
        radz_error err;
        radz_image *image;
        if (open_film(t->e.runtime, &films->places[i], &image, &err)) {
            fail_input(t, films->places[i].path, &err);
        } else {
            b.names[b.n] = films->places[i].path;
            b.images[b.n++] = image;
            b.n_px += radz_image_width(image) * radz_image_height(image);
        }
        if (b.n && (b.n == BATCH || b.n_px > MAX_BATCH_PX || i + 1 == films->n)) embed_batch(t, &b);
    }
}

/* ---- Texts ---- */

static bool embed_texts(table *t, const char *const *texts, size_t n, radz_error *err)
{
    float *out = room(t, n);
    if (radz_embed_texts(t->e.session, texts, n, &t->s->embed, out, err)) return false;
    memcpy(t->names + t->n, texts, n * sizeof *texts);
    t->n += n;
    return true;
}

static void embed_all_texts(table *t, const text_list *l)
{
    radz_error err;
    for (size_t i = 0; i < l->n; i += BATCH) {
        size_t n = l->n - i < BATCH ? l->n - i : BATCH;
        if (embed_texts(t, l->items + i, n, &err)) continue;
        for (size_t k = i; k < i + n; k++)
            if (!embed_texts(t, l->items + k, 1, &err)) fail_input(t, "a text", &err);
    }
}

/* ---- Main ---- */

static int save(table *t)
{
    radz_error err;
    if (!t->n) return complain("nothing to write: every input failed"), EXIT_FILM;
    if (radz_vectors_save(t->s->out, t->names, t->vectors, t->n, t->dim, &err))
        return complain("%s", err.message), EXIT_FILM;
    if (!t->s->quiet) fprintf(stderr, "%zu vectors of %zu numbers. %s\n", t->n, t->dim, radz_disclaimer());
    return t->n_failed ? EXIT_FILM : 0;
}

static int run(table *t, const film_list *films)
{
    radz_error err;
    const settings *s = t->s;
    int status = open_engine(&t->e, &s->engine);
    if (status) return status;
    t->dim = radz_embed_dim(t->e.model, &s->embed);
    if (!t->dim) { /* the message comes from the call that would have used the options */
        if (radz_embed_texts(t->e.session, NULL, 0, &s->embed, NULL, &err)) complain("%s", err.message);
        return EXIT_USAGE;
    }
    if (!s->quiet)
        fprintf(stderr, "libradz %s, model %s, %s\n", radz_version(), radz_model_name(t->e.model),
                radz_model_device(t->e.model));
    embed_all_films(t, films);
    embed_all_texts(t, &s->texts);
    return save(t);
}

int main(int argc, char **argv)
{
    settings s = {0};
    film_list films = {0};
    table t = {.s = &s};
    char *text = NULL;
    program_name = "radz-embed", program_usage = usage_lines, program_help = help_text;
    int status = begin_program();
    if (!status) status = parse_settings(&s, argc, argv);
    if (!status && s.texts_file) status = read_lines(s.texts_file, &s.texts, &text);
    for (int i = 0; i < s.n_inputs && !status; i++) add_input(&films, s.inputs[i]);
    if (!status) status = run(&t, &films);
    close_engine(&t.e);
    free_films(&films);
    free(t.vectors);
    free(t.names);
    free(s.texts.items);
    free(text);
    return status;
}
