/* radz-quantize - writes a model directory with smaller weights. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "progress.h"

static const char usage_lines[] = "usage: radz-quantize [OPTION]... IN OUT\n";

static const char help_text[] =
    "\n"
    "Writes the model in directory IN into directory OUT with smaller weights: a whole model directory that\n"
    "opens as IN does. Takes little memory. What was interrupted goes on where it was when run again.\n"
    "RESEARCH USE ONLY. NOT FOR DIAGNOSIS.\n"
    "\n"
    "  --type TYPE     int8 (default), int4, bf16; also with the columns that share a scale: int4/32\n"
    "  --group N       those columns: 128 (default), 64 or 32\n"
    "  --keep LIST     what stays as it is: commas between embeddings, tower, projector, lm_head, heads,\n"
    "                  first, last (decoder blocks) and patterns of tensor names with '*'; 'none': nothing;\n"
    "                  of int4, first=int8 and the like take eight bits;\n"
    "                  default: what has been measured to matter for the type\n"
    "  --films PATH    of int4: round for what this film, or every film in and below this folder, makes of the\n"
    "                  model's layers; may be given several times. Better weights, in the time and memory that\n"
    "                  it takes to embed these films all at once, several times over; 8 to 32 are enough\n"
    "  --texts FILE    likewise for a text per line: texts are others' rows, give some where they matter\n"
    "  --adapter DIR   LoRA adapter as PEFT writes it, added into the weights\n"
    "  --vision-dir DIR, --vision-source NAME\n"
    "                  as in the other programs; a tower of its own goes to OUT/vision_tower\n"
    "  --threads N     worker threads, 0 = one per core (default)\n"
    "  --quiet         no progress\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 done; 1 it failed or was interrupted; 2 wrong usage.\n";

typedef struct settings {
    radz_quantize_options o;
    radz_runtime_options runtime;
    const char *type;
    text_list film_paths, texts;
    film_list films;
    const char *texts_file;
    char *text; /* that texts point into */
    int group, vision_source;
    bool quiet, terminal;
    double next; /* when progress is told next */
    char spelled[40];
} settings;

static void show_bar(double share, const char *left)
{
    enum { WIDTH = 30 };
    const int full = (int)(share * WIDTH);
    fprintf(stderr, "\r[%.*s%*s] %3.0f %%  %s left ", full, "##############################", WIDTH - full, "",
            share * 100, left);
}

/* A bar on a terminal, else a line now and then. */
static int on_progress(const radz_quantize_progress *p, void *user)
{
    settings *s = user;
    const double share = p->n_bytes ? (double)p->n_done_bytes / (double)p->n_bytes : 1;
    char left[32];
    if (s->quiet || now() < s->next) return interrupted;
    format_time(left, sizeof left, p->seconds_left);
    if (s->terminal)
        show_bar(share, left);
    else
        fprintf(stderr, "%s: %.0f of %.0f MB, %s left\n", program_name, (double)p->n_done_bytes / 1e6,
                (double)p->n_bytes / 1e6, left);
    s->next = now() + (s->terminal ? .2 : 10);
    return interrupted;
}

/* --group is a part of the type in the library. */
static int spell_type(settings *s)
{
    const char *type = s->type ? s->type : "int8";
    if (s->group && strchr(type, '/')) return usage("--group: --type %s says it already", type);
    if (s->group && s->group != 32 && s->group != 64 && s->group != 128)
        return usage("--group: expected 128, 64 or 32, got %d", s->group);
    snprintf(s->spelled, sizeof s->spelled, s->group ? "%.20s/%d" : "%.30s", type, s->group);
    s->o.type = s->spelled;
    return 0;
}

static int parse_settings(settings *s, int argc, char **argv)
{
    int n = 0;
    option_entry known[] = {{"type", .text = &s->type},
                            {"group", .integer = &s->group},
                            {"keep", .text = &s->o.keep},
                            {"films", .texts = &s->film_paths},
                            {"texts", .text = &s->texts_file},
                            {"adapter", .text = &s->o.adapter_dir},
                            {"vision-dir", .text = &s->o.vision_dir},
                            {"vision-source", .choice = &s->vision_source, .words = "auto|checkpoint|external"},
                            {"threads", .integer = &s->runtime.n_threads, .max = 1024},
                            {"quiet", .flag = &s->quiet}};
    int status = parse_command_line(known, COUNT(known), argc, argv, &n);
    if (status) return status;
    if (n != 2) return usage("expected two directories, IN and OUT, got %d", n);
    if (s->o.keep && strcmp(s->o.keep, "none") == 0) s->o.keep = "";
    s->o.vision_source = (radz_vision_source)s->vision_source;
    s->o.progress_fn = on_progress, s->o.user = s;
    s->terminal = on_terminal();
    s->next = s->terminal ? 0 : now() + 10;
    return spell_type(s);
}

/* What --films and --texts stand for, into s->o. 0 or an exit status. */
static int list_inputs(settings *s)
{
    for (size_t i = 0; i < s->film_paths.n; i++) add_input(&s->films, s->film_paths.items[i]);
    const char **paths = need(calloc(s->films.n + 1, sizeof *paths));
    s->o.films = paths, s->o.n_films = s->films.n;
    for (size_t i = 0; i < s->films.n; i++) {
        const film_place *p = &s->films.places[i];
        if (p->why) return complain("%s", p->why->message), EXIT_FILM;
        paths[i] = p->path;
    }
    const int status = s->texts_file ? read_lines(s->texts_file, &s->texts, &s->text) : 0;
    s->o.texts = s->texts.items, s->o.n_texts = s->texts.n;
    return status;
}

static void free_inputs(settings *s)
{
    free((void *)s->o.films);
    free((void *)s->film_paths.items);
    free((void *)s->texts.items);
    free(s->text);
    free_films(&s->films);
}

static int run(settings *s, const char *from, const char *to)
{
    radz_runtime *runtime = NULL;
    radz_error err;
    catch_interrupts(false);
    radz_status status = radz_runtime_create(&s->runtime, &runtime, &err);
    if (!status) status = radz_model_quantize(runtime, from, to, &s->o, &err);
    radz_runtime_close(runtime);
    if (s->terminal && !s->quiet) fputs("\r\033[K", stderr);
    if (status == RADZ_E_CANCELLED) return complain("interrupted; the same command goes on"), EXIT_FILM;
    if (status) return complain("%s", err.message), status == RADZ_E_ARGUMENT ? EXIT_USAGE : EXIT_FILM;
    return 0;
}

int main(int argc, char **argv)
{
    settings s;
    memset(&s, 0, sizeof s);
    program_name = "radz-quantize", program_usage = usage_lines, program_help = help_text;
    radz_quantize_options_init(&s.o);
    radz_runtime_options_init(&s.runtime);
    int status = begin_program();
    if (!status) status = parse_settings(&s, argc, argv);
    if (!status) status = list_inputs(&s);
    if (!status) status = run(&s, argv[0], argv[1]);
    free_inputs(&s);
    return status;
}
