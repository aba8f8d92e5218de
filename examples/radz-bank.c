/* radz-bank - anchor banks: build, describe, list, add, edit, remove, calibrate, verify. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const char usage_lines[] =
    "usage: radz-bank build  --out FILE (--diseases FILE | NAME[: DESCRIPTION]...)\n"
    "       radz-bank describe [--out FILE] NAME...\n"
    "       radz-bank edit   [--bank FILE] [--out FILE] --label NAME --description TEXT\n"
    "       radz-bank list   [--bank FILE] [--json]\n"
    "       radz-bank add    [--bank FILE] [--out FILE] NAME[: DESCRIPTION]...\n"
    "       radz-bank remove [--bank FILE] [--out FILE] NAME...\n"
    "       radz-bank calibrate [--bank FILE] [--out FILE] --calibration FILE [--films TEXT]\n"
    "       radz-bank verify [--bank FILE] [--rebuild]\n";

static const char help_text[] =
    "\n"
    "An anchor bank holds one vector per finding: its description, read by the model. It belongs to the\n"
    "model that made it. RESEARCH USE ONLY. NOT FOR DIAGNOSIS.\n"
    "\n"
    "  NAME: DESCRIPTION\n"
    "                  a finding and what the model reads; without a description the name in a sentence\n"
    "  --diseases FILE \"label: description\" per line, '#' starts a comment; where a line is a label\n"
    "                  alone, the model writes the description itself\n"
    "  describe        the model's own descriptions, as such lines; --out keeps them as a bank too\n"
    "  --prompt TEXT   what the model is asked for; {disease} stands for the name\n"
    "  --temperature T of the writing (0.2); 0: always the most likely word\n"
    "  --top-p P       (1)\n"
    "  --seed N        (0)\n"
    "  --max-tokens N  longest description (256)\n"
    "  --template NAME chat template: auto (default), plain, vicuna_v1, llava_v1, mistral_instruct,\n"
    "                  chatml\n"
    "  --system TEXT   instructions before the prompt\n"
    "  --label NAME, --description TEXT\n"
    "                  edit: the class, and what the model is to read for it from now on\n"
    "  --calibration FILE\n"
    "                  calibrate: what radz-eval --calibrate has written for this bank (method img_anchor);\n"
    "                  radz-classify then prints probabilities and thresholds as fitted\n"
    "  --films TEXT    calibrate: which films it was fitted on, said with every result; else as the file has it\n"
    "  --bank FILE     the bank; else the model's own\n"
    "  --out FILE      where the new bank goes; add, edit, remove, calibrate: else over --bank\n"
    "  --rebuild       verify: read every description again and compare the vectors too\n"
    "  --json          list: one JSON object\n" ENGINE_HELP "  --help, --version\n"
    "\n"
    "Exit status: 0 done; 1 a bank is damaged, belongs to another model or could not be written; 2 wrong\n"
    "usage, or no such model, bank, file or class.\n";

typedef struct settings {
    engine_options engine;
    const char *bank, *out, *diseases, *label, *description, *calibration, *films;
    radz_describe_options o;
    bool json, rebuild;
    char **names;
    int n_names;
} settings;

typedef struct work {
    settings s;
    engine e;
    radz_bank *bank, *made;
} work;

/* ---- Small things ---- */

static int fail(const radz_error *err)
{
    complain("%s", err->message);
    return err->code == RADZ_E_ARGUMENT || err->code == RADZ_E_IO ? EXIT_USAGE : EXIT_FILM;
}

static int open_bank(work *w)
{
    radz_error err;
    return radz_bank_open(w->e.model, w->s.bank, &w->bank, &err) ? fail(&err) : 0;
}

static int save_made(work *w, const char *path)
{
    radz_error err;
    if (radz_bank_save(w->made, path, &err)) return complain("%s", err.message), EXIT_FILM;
    printf("%zu classes, bank %.12s\n", radz_bank_count(w->made), radz_bank_hash(w->made));
    return output_done() ? 0 : EXIT_FILM;
}

/* "NAME: DESCRIPTION" or "NAME", cut in place. */
static radz_bank_entry *entries_of(char **names, int n)
{
    radz_bank_entry *entries = need(calloc((size_t)n + 1, sizeof *entries));
    for (int i = 0; i < n; i++) {
        char *colon = strchr(names[i], ':');
        entries[i].label = names[i];
        if (!colon) continue;
        *colon = 0;
        entries[i].description = colon + 1 + strspn(colon + 1, " \t");
    }
    return entries;
}

/* ---- build, describe, add, edit, remove ---- */

/* A line of a description file. */
static int on_description(const char *label, const char *description, void *user)
{
    FILE *to = user;
    show(to, label);
    fputs(": ", to);
    show(to, description);
    return fputc('\n', to) == EOF || fflush(to) != 0;
}

static int build(work *w)
{
    radz_error err;
    radz_status status;
    if (w->s.diseases) {
        w->s.o.done_fn = on_description, w->s.o.user = stderr;
        status = radz_bank_describe_file(w->e.session, w->s.diseases, &w->s.o, &w->made, &err);
    } else {
        radz_bank_entry *entries = entries_of(w->s.names, w->s.n_names);
        status = radz_bank_build(w->e.session, entries, (size_t)w->s.n_names, &w->made, &err);
        free(entries);
    }
    return status ? fail(&err) : save_made(w, w->s.out);
}

static int describe(work *w)
{
    radz_error err;
    radz_bank_entry *entries = need(calloc((size_t)w->s.n_names + 1, sizeof *entries));
    for (int i = 0; i < w->s.n_names; i++) entries[i].label = w->s.names[i];
    w->s.o.done_fn = on_description, w->s.o.user = stdout;
    radz_status status = radz_bank_describe(w->e.session, entries, (size_t)w->s.n_names, &w->s.o, &w->made, &err);
    free(entries);
    if (status) return fail(&err);
    if (w->s.out && radz_bank_save(w->made, w->s.out, &err)) return complain("%s", err.message), EXIT_FILM;
    return output_done() ? 0 : EXIT_FILM;
}

static int edit(work *w)
{
    radz_error err;
    int bad = open_bank(w);
    if (bad) return bad;
    if (radz_bank_edit(w->e.session, w->bank, w->s.label, w->s.description, &w->made, &err)) return fail(&err);
    return save_made(w, w->s.out ? w->s.out : w->s.bank);
}

static int add(work *w)
{
    radz_error err;
    int bad = open_bank(w);
    if (bad) return bad;
    radz_bank_entry *entries = entries_of(w->s.names, w->s.n_names);
    radz_status status = radz_bank_with(w->e.session, w->bank, entries, (size_t)w->s.n_names, &w->made, &err);
    free(entries);
    return status ? fail(&err) : save_made(w, w->s.out ? w->s.out : w->s.bank);
}

static int take_away(work *w)
{
    radz_error err;
    int bad = open_bank(w);
    if (bad) return bad;
    if (radz_bank_without(w->bank, (const char *const *)w->s.names, (size_t)w->s.n_names, &w->made, &err))
        return fail(&err);
    return save_made(w, w->s.out ? w->s.out : w->s.bank);
}

static int calibrate(work *w)
{
    radz_error err;
    int bad = open_bank(w);
    if (bad) return bad;
    if (radz_bank_calibrate(w->bank, w->s.calibration, w->s.films, &w->made, &err)) return fail(&err);
    return save_made(w, w->s.out ? w->s.out : w->s.bank);
}

/* ---- list ---- */

enum { MAX_LABEL = 28, MAX_WORDS = 40 };

/* Whole words of a description, at most MAX_WORDS bytes of them. */
static void show_first_words(const char *text)
{
    char words[MAX_WORDS + 1];
    size_t n = strlen(text);
    if (n <= MAX_WORDS) {
        show(stdout, text);
        return;
    }
    n = MAX_WORDS;
    while (n && text[n] != ' ') n--;
    if (!n) n = MAX_WORDS;
    memcpy(words, text, n);
    words[n] = 0;
    show(stdout, words);
    fputs(" ...", stdout);
}

static void show_threshold(double threshold)
{
    if (threshold == threshold)
        printf("%9.3f  ", threshold);
    else
        printf("%9s  ", "-");
}

static void list_table(const radz_bank *b, const double *cosines)
{
    const bool calibrated = radz_bank_calibration(b) != NULL;
    size_t n = radz_bank_count(b), reference = radz_bank_reference(b), width = 5;
    for (size_t i = 0; i < n; i++) {
        size_t w = columns(radz_bank_label(b, i));
        if (w > width) width = w > MAX_LABEL ? MAX_LABEL : w;
    }
    printf("%-*s  %9s  %sDescription\n", (int)width, "Class", "Cosine", calibrated ? "Threshold  " : "");
    for (size_t i = 0; i < n; i++) {
        size_t w = columns(radz_bank_label(b, i));
        show(stdout, radz_bank_label(b, i));
        printf("%*s  ", w < width ? (int)(width - w) : 0, "");
        if (reference == n)
            printf("%9s  ", "-");
        else
            printf("%9.3f  ", cosines[i]);
        if (calibrated) show_threshold(radz_bank_threshold(b, i));
        show_first_words(radz_bank_description(b, i));
        putchar('\n');
    }
    printf("%zu classes, bank %.12s, model %.12s; ", n, radz_bank_hash(b), radz_bank_model_hash(b));
    if (reference == n) {
        puts("no reference class.");
    } else {
        fputs("cosine to the anchor of ", stdout);
        show(stdout, radz_bank_label(b, reference));
        puts(".");
    }
}

static void list_json(const radz_bank *b, const double *cosines)
{
    size_t n = radz_bank_count(b), reference = radz_bank_reference(b);
    printf("{\"schema\":\"radz.bank-list/1\",\"hash\":\"%s\",\"model\":\"%s\",\"reference\":", radz_bank_hash(b),
           radz_bank_model_hash(b));
    print_json_text(radz_bank_label(b, reference));
    fputs(",\"classes\":[", stdout);
    for (size_t i = 0; i < n; i++) {
        fputs(i ? ",{\"label\":" : "{\"label\":", stdout);
        print_json_text(radz_bank_label(b, i));
        fputs(",\"description\":", stdout);
        print_json_text(radz_bank_description(b, i));
        printf(",\"written\":%s", radz_bank_is_written(b, i) ? "true" : "false");
        fputs(",\"cosine_to_reference\":", stdout);
        if (reference < n)
            print_number(cosines[i]);
        else
            fputs("null", stdout);
        putchar('}');
    }
    printf("],\"writer\":%s,\"calibration\":", radz_bank_writer(b) ? radz_bank_writer(b) : "null");
    for (const char *p = radz_bank_calibration(b); p && *p; p++)
        if (*p != '\n') putchar(*p); /* strings in JSON have none */
    puts(radz_bank_calibration(b) ? "}" : "null}");
}

static int list(work *w)
{
    radz_error err;
    int bad = open_bank(w);
    if (bad) return bad;
    const float *anchor = radz_bank_anchor(w->bank, radz_bank_reference(w->bank));
    double *cosines = need(calloc(radz_bank_count(w->bank), sizeof *cosines));
    radz_status status = anchor ? radz_bank_score(w->bank, anchor, 1, cosines, &err) : RADZ_OK;
    if (status)
        bad = fail(&err);
    else if (w->s.json)
        list_json(w->bank, cosines);
    else
        list_table(w->bank, cosines);
    free(cosines);
    return bad ? bad : output_done() ? 0 : EXIT_FILM;
}

/* ---- verify ---- */

/* The smallest cosine between an anchor and what the model makes of its description now. */
static int compare_rebuilt(work *w)
{
    radz_error err;
    size_t n = radz_bank_count(w->bank);
    double least = 1, *cosines = need(calloc(n, sizeof *cosines));
    radz_bank_entry *entries = need(calloc(n, sizeof *entries));
    for (size_t i = 0; i < n; i++)
        entries[i] = (radz_bank_entry){radz_bank_label(w->bank, i), radz_bank_description(w->bank, i)};
    radz_status status = radz_bank_build(w->e.session, entries, n, &w->made, &err);
    for (size_t i = 0; i < n && !status; i++) {
        status = radz_bank_score(w->bank, radz_bank_anchor(w->made, i), 1, cosines, &err);
        if (!status && cosines[i] < least) least = cosines[i];
    }
    free(entries);
    free(cosines);
    if (status) return fail(&err);
    if (least < 0.9999) return complain("the anchors are not what this model makes of the descriptions"), EXIT_FILM;
    puts("anchors: as this model makes them from the descriptions");
    return 0;
}

static int verify(work *w)
{
    int bad = open_bank(w);
    if (bad) return bad;
    fputs("bank ", stdout);
    printf("%s: whole, %zu classes of %zu numbers, made by this model (", radz_bank_hash(w->bank),
           radz_bank_count(w->bank), radz_bank_dim(w->bank));
    show(stdout, radz_model_name(w->e.model));
    puts(")");
    if (w->s.rebuild) bad = compare_rebuilt(w);
    return bad ? bad : output_done() ? 0 : EXIT_FILM;
}

/* ---- Main ---- */

typedef struct command {
    const char *name;
    int (*run)(work *w);
    bool names, changes; /* takes names; changes a bank */
} command;

static const command commands[] = {{"build", build, true, false},    {"list", list, false, false},
                                   {"add", add, true, true},         {"describe", describe, true, false},
                                   {"edit", edit, false, true},      {"remove", take_away, true, true},
                                   {"verify", verify, false, false}, {"calibrate", calibrate, false, true}};

static int check_settings(const command *c, settings *s)
{
    bool builds = c->run == build, edits = c->run == edit;
    if (!c->names && s->n_names) return usage("%s takes no names", c->name);
    if (s->diseases && (!builds || s->n_names)) return usage("--diseases goes with build and without names");
    if (c->names && !s->n_names && !s->diseases) return usage("no class given");
    if (builds && s->bank) return usage("--bank does not go with build");
    if (builds && !s->out) return usage("--out is missing");
    if (c->changes && !s->out && !s->bank) return usage("--out or --bank is missing: the model's own bank is kept");
    if (edits != (s->label || s->description)) return usage("--label and --description go with edit");
    if (edits && !(s->label && s->description)) return usage("edit takes --label and --description");
    if (c->run == calibrate && !s->calibration) return usage("--calibration is missing");
    if (c->run != calibrate && (s->calibration || s->films))
        return usage("--calibration and --films go with calibrate");
    if ((c->run == list || c->run == verify) && s->out) return usage("--out does not go with %s", c->name);
    if (s->rebuild && c->run != verify) return usage("--rebuild does not go with %s", c->name);
    if (s->json && c->run != list) return usage("--json does not go with %s", c->name);
    return 0;
}

/* The command is the first input. 0 or an exit status. */
static int parse_settings(settings *s, int argc, char **argv, const command **c)
{
    option_entry known[] = {
        ENGINE_OPTIONS(s->engine),
        {"bank", .text = &s->bank},
        {"out", .text = &s->out},
        {"diseases", .text = &s->diseases},
        {"json", .flag = &s->json},
        {"rebuild", .flag = &s->rebuild},
        {"label", .text = &s->label},
        {"description", .text = &s->description},
        {"calibration", .text = &s->calibration},
        {"films", .text = &s->films},
        {"prompt", .text = &s->o.prompt},
        {"temperature", .real = &s->o.temperature, .min = 0, .max = 1000},
        {"top-p", .real = &s->o.top_p, .min = 0, .max = 1},
        {"seed", .unsigned64 = &s->o.seed},
        {"max-tokens", .integer = &s->o.max_tokens, .min = 1, .max = 1 << 20},
        {"system", .text = &s->o.system},
        {"template", .text = &s->o.chat_template, .words = "auto|plain|vicuna_v1|llava_v1|mistral_instruct|chatml"}};
    radz_describe_options_init(&s->o);
    int n = 0, status = parse_command_line(known, COUNT(known), argc, argv, &n);
    if (status) return status;
    if (!n) return usage("no command given");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[0], commands[i].name) == 0) *c = &commands[i];
    if (!*c) return usage("unknown command %s", argv[0]);
    s->names = argv + 1, s->n_names = n - 1;
    return check_settings(*c, s);
}

int main(int argc, char **argv)
{
    work w = {0};
    const command *c = NULL;
    program_name = "radz-bank", program_usage = usage_lines, program_help = help_text;
    int status = begin_program();
    if (!status) status = parse_settings(&w.s, argc, argv, &c);
    if (!status) status = open_engine(&w.e, &w.s.engine);
    if (!status) status = c->run(&w);
    radz_bank_close(w.bank);
    radz_bank_close(w.made);
    close_engine(&w.e);
    return status;
}
