/* radz-classify - names the findings on chest X-rays. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <langinfo.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common.h"
#include "heatmap_files.h"

enum { BATCH = 8, MAX_BATCH_PX = 32 * 1024 * 1024 };

static const char usage_line[] =
    "usage: radz-classify [--model DIR] [--bank FILE | --classes A,B,C] [--json | --csv] [--quiet]\n"
    "                     [OPTION]... FILE|DIR...\n";

static const char help_text[] =
    "\n"
    "Scores chest X-ray films (PNG or JPEG) against a list of findings.\n"
    "RESEARCH USE ONLY. NOT FOR DIAGNOSIS.\n"
    "\n"
    "  FILE            a film; '-' reads one from standard input\n"
    "  DIR             every *.png, *.jpg and *.jpeg in it and below, sorted\n"
    "  --bank FILE     anchor bank; else the model's own\n"
    "  --classes LIST  findings to look for, by name: --classes 'No Finding,Edema'\n" ENGINE_HELP HEATMAP_HELP
    "  --json          one JSON object per film and line (schema radz.result/1)\n"
    "  --csv           one row per film and finding\n"
    "  --quiet         results only: no notes and no progress on standard error\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 all films done; 1 a film failed (the others are done) or the\n"
    "output could not be written; 2 wrong usage, or no such model or bank.\n";

static void spaces(size_t n)
{
    printf("%*s", (int)n, "");
}

/* ---- Command line ---- */

typedef enum { AS_TABLE, AS_JSON, AS_CSV } output_form;

typedef struct settings {
    engine_options engine;
    const char *bank, *classes;
    heatmap_settings heat;
    bool json, csv, quiet;
    output_form form;
    char **inputs; /* into argv */
    int n_inputs;
} settings;

static int check_settings(settings *s)
{
    int n_stdin = 0;
    if (s->json && s->csv) return usage("--json and --csv exclude each other");
    if (s->bank && s->classes) return usage("--bank and --classes exclude each other");
    if (!s->heat.dir && s->heat.classes.n) return usage("--heatmap-class goes with --heatmap");
    if (s->n_inputs == 0) return usage("no film given");
    for (int i = 0; i < s->n_inputs; i++) n_stdin += strcmp(s->inputs[i], "-") == 0;
    if (n_stdin > 1) return usage("standard input ('-') can be read only once");
    s->form = s->json ? AS_JSON : s->csv ? AS_CSV : AS_TABLE;
    return 0;
}

/* 0 or an exit status. */
static int parse_settings(settings *s, int argc, char **argv)
{
    option_entry known[] = {ENGINE_OPTIONS(s->engine),  {"bank", .text = &s->bank}, {"classes", .text = &s->classes},
                            {"json", .flag = &s->json}, {"csv", .flag = &s->csv},   {"quiet", .flag = &s->quiet},
                            HEATMAP_OPTIONS(s->heat)};
    s->inputs = argv;
    int status = parse_command_line(known, COUNT(known), argc, argv, &s->n_inputs);
    return status ? status : check_settings(s);
}

/* ---- The library's side ---- */

typedef struct reader {
    const settings *s;
    engine e;
    radz_bank *bank;
    size_t n_done, n_failed, n_films;
    bool utf8, any_warning;
    char **notes; /* warnings about the bank: said once, at the end */
    size_t n_notes;
} reader;

/* The library has a list of findings for models that come without one, and uses a model's own linear head. */
static bool needs_no_bank(const radz_model *model, bool *head)
{
    radz_model_info info;
    radz_model_info_init(&info);
    bool known = radz_model_get_info(model, &info, NULL) == RADZ_OK;
    *head = known && info.n_head_classes > 0;
    return known && (*head || info.n_image_tokens == 0);
}

static int open_bank(reader *r)
{
    radz_error err;
    radz_status status;
    bool head, optional = needs_no_bank(r->e.model, &head);
    if (head && !r->s->bank && !r->s->classes) return 0;
    if (r->s->classes) {
        char *list = need(strdup(r->s->classes));
        radz_bank_entry *entries;
        size_t n;
        int bad = split_classes(list, &entries, &n);
        status = bad ? RADZ_OK : radz_bank_build(r->e.session, entries, n, &r->bank, &err);
        free(entries);
        free(list);
        if (bad) return bad;
    } else {
        status = radz_bank_open(r->e.model, r->s->bank, &r->bank, &err);
    }
    if (status == RADZ_OK || (status == RADZ_E_IO && !r->s->bank && optional)) return 0;
    complain("%s", err.message);
    return EXIT_USAGE;
}

static int open_all(reader *r)
{
    int status = open_engine(&r->e, &r->s->engine);
    if (!status) status = open_bank(r);
    return status ? status : begin_heatmaps(&r->s->heat, r->bank);
}

static void close_all(reader *r)
{
    for (size_t i = 0; i < r->n_notes; i++) free(r->notes[i]);
    free(r->notes);
    radz_bank_close(r->bank);
    close_engine(&r->e);
}

/* ---- Output: table ---- */

enum { BAR = 26, MIN_LABEL = 8, MAX_LABEL = 28 };

static void print_bar(const reader *r, double probability)
{
    int full = (int)(probability * BAR + 0.5);
    for (int i = 0; i < BAR; i++)
        fputs(i < full ? (r->utf8 ? "\xe2\x96\x88" : "#") : (r->utf8 ? "\xc2\xb7" : "."), stdout);
}

/* A label that is wider than its column stands on a line of its own. */
static void print_row(const reader *r, const radz_result *result, size_t i, size_t width)
{
    const char *label = radz_result_label(result, i);
    size_t n = columns(label);
    fputs("  ", stdout);
    show(stdout, label);
    if (n > width) {
        fputs("\n  ", stdout);
        n = 0;
    }
    spaces(width - n + 2);
    print_bar(r, radz_result_probability(result, i));
    printf("  %5.1f %%", 100 * radz_result_probability(result, i));
    if (isnan(radz_result_similarity(result, i)))
        printf("  %10s\n", "-");
    else
        printf("  %10.3f\n", radz_result_similarity(result, i));
}

/* Warnings that begin so speak of the bank and hold for every film: once, at the end. */
static bool is_note(const char *warning)
{
    return strncmp(warning, "probabilities ", 14) == 0;
}

static void keep_note(reader *r, const char *warning)
{
    for (size_t i = 0; i < r->n_notes; i++)
        if (strcmp(r->notes[i], warning) == 0) return;
    r->notes = need(realloc(r->notes, (r->n_notes + 1) * sizeof *r->notes));
    r->notes[r->n_notes++] = need(strdup(warning));
}

static void print_table(reader *r, const char *path, const radz_image *image, const radz_result *result,
                        const heatmap_list *maps)
{
    size_t width = MIN_LABEL, n = radz_result_count(result);
    for (size_t i = 0; i < n; i++) {
        size_t w = columns(radz_result_label(result, i));
        if (w > width) width = w > MAX_LABEL ? MAX_LABEL : w;
    }
    show(stdout, strcmp(path, "-") == 0 ? "standard input" : path);
    printf("   %zu x %zu pixels\n", radz_image_width(image), radz_image_height(image));
    printf("  %-*s  %-*s%9s  %10s\n", (int)width, "Finding", BAR, "Probability", "", "Similarity");
    for (size_t i = 0; i < n; i++) print_row(r, result, i, width);
    for (size_t i = 0; i < radz_result_warning_count(result); i++) {
        const char *warning = radz_result_warning(result, i);
        if (is_note(warning))
            keep_note(r, warning);
        else
            printf("  Warning: %s\n", warning);
    }
    for (size_t i = 0; i < maps->n; i++) {
        fputs("  Heat map: ", stdout);
        show(stdout, maps->files[i].path);
        putchar('\n');
    }
    putchar('\n');
}

static void print_footer(const reader *r)
{
    for (size_t i = 0; i < r->n_notes; i++) printf("Note: %s.\n", r->notes[i]);
    puts(radz_disclaimer());
}

/* ---- Output: CSV ---- */

static void csv_text(const char *s)
{
    if (!s[strcspn(s, ",\"\r\n")]) {
        fputs(s, stdout);
        return;
    }
    putchar('"');
    for (; *s; s++) {
        if (*s == '"') putchar('"');
        putchar(*s);
    }
    putchar('"');
}

static void print_csv(const reader *r, const char *path, const radz_image *image, const radz_result *result,
                      const heatmap_list *maps)
{
    for (size_t i = 0; i < radz_result_count(result); i++) {
        csv_text(path);
        printf(",%s,%zu,%zu,", radz_image_sha256(image), radz_image_width(image), radz_image_height(image));
        csv_text(radz_result_label(result, i));
        putchar(',');
        print_number(radz_result_probability(result, i));
        putchar(',');
        print_number(radz_result_similarity(result, i));
        fputs(",,", stdout);
        if (r->s->heat.dir) putchar(',');
        for (size_t k = 0; k < maps->n; k++)
            if (strcasecmp(maps->files[k].label, radz_result_label(result, i)) == 0) csv_text(maps->files[k].path);
        fputs("\r\n", stdout);
    }
}

static void print_csv_error(const reader *r, const char *path, const radz_error *error)
{
    csv_text(path);
    printf(",,,,,,,%s,", radz_status_name(error->code));
    csv_text(error->message);
    fputs(r->s->heat.dir ? ",\r\n" : "\r\n", stdout);
}

/* ---- Output: any ---- */

static void print_json(char *json)
{
    puts(json);
    radz_text_free(json);
}

/* The library's line, with one member more. */
static void print_json_result(const reader *r, char *json, const heatmap_list *maps)
{
    const size_t n = strlen(json);
    if (!maps->n || !n) {
        print_json(json);
        return;
    }
    fwrite(json, 1, n - 1, stdout);
    fputs(",\"heatmaps\":", stdout);
    print_heatmaps_json(&r->s->heat, maps);
    puts("}");
    radz_text_free(json);
}

static void report_failure(reader *r, const char *path, const radz_error *error)
{
    char *json;
    r->n_failed++;
    if (r->s->form == AS_JSON && radz_error_json(error, path, &json, NULL) == RADZ_OK) {
        print_json(json);
        return;
    }
    if (r->s->form == AS_CSV) print_csv_error(r, path, error);
    bool named = strcmp(path, "-") != 0 && strstr(error->message, path);
    complain("%s%s%s", named ? "" : strcmp(path, "-") ? path : "standard input", named ? "" : ": ", error->message);
}

static void report_result(reader *r, const char *path, const radz_image *image, const radz_result *result)
{
    radz_error err;
    heatmap_list maps = {.n = 0};
    radz_status status = RADZ_OK;
    char *json;
    if (r->s->heat.dir) status = write_heatmaps(&r->s->heat, r->e.session, r->bank, image, path, result, &maps, &err);
    if (status != RADZ_OK)
        report_failure(r, path, &err);
    else if (r->s->form == AS_TABLE)
        print_table(r, path, image, result, &maps);
    else if (r->s->form == AS_CSV)
        print_csv(r, path, image, result, &maps);
    else if (radz_result_json(result, path, &json, &err) == RADZ_OK)
        print_json_result(r, json, &maps);
    else
        report_failure(r, path, &err);
    free_heatmaps(&maps);
}

static void show_progress(const reader *r, const char *path)
{
    if (r->s->quiet || r->n_films <= 3 || !isatty(STDERR_FILENO)) return;
    char text[60];
    const char *slash = strrchr(path, '/');
    snprintf(text, sizeof text, "%s", slash ? slash + 1 : path);
    fprintf(stderr, "\r\033[K%zu/%zu ", r->n_done + 1, r->n_films);
    show(stderr, text);
    fflush(stderr);
}

static void clear_progress(const reader *r)
{
    if (!r->s->quiet && r->n_films > 3 && isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
}

/* ---- Films ---- */

typedef struct batch {
    const char *paths[BATCH];
    radz_image *images[BATCH];
    size_t n, n_px;
} batch;

/* One film after another: only the bad one fails. */
static void classify_singly(reader *r, const batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        radz_error err;
        radz_result *result;
        if (radz_classify(r->e.session, r->bank, b->images[i], &result, &err) != RADZ_OK)
            report_failure(r, b->paths[i], &err);
        else
            report_result(r, b->paths[i], b->images[i], result);
        radz_result_close(result);
    }
}

static void classify_batch(reader *r, batch *b)
{
    radz_result *results[BATCH];
    radz_status status =
        radz_classify_batch(r->e.session, r->bank, (const radz_image *const *)b->images, b->n, results, NULL);
    clear_progress(r);
    if (status != RADZ_OK) classify_singly(r, b);
    for (size_t i = 0; i < b->n; i++) {
        if (status == RADZ_OK) report_result(r, b->paths[i], b->images[i], results[i]);
        radz_result_close(results[i]);
        radz_image_close(b->images[i]);
    }
    b->n = b->n_px = 0;
}

/* False when standard output is broken. */
static bool classify_films(reader *r, const film_list *l)
{
    batch b = {.n = 0};
    for (size_t i = 0; i < l->n; i++, r->n_done++) {
        const char *path = l->places[i].path;
        radz_image *image;
        radz_error err;
        show_progress(r, path);
        radz_status status = open_film(r->e.runtime, &l->places[i], &image, &err);
        if (status == RADZ_OK) {
            b.paths[b.n] = path;
            b.images[b.n++] = image;
            b.n_px += radz_image_width(image) * radz_image_height(image);
        }
        if (b.n && (status != RADZ_OK || b.n == BATCH || b.n_px > MAX_BATCH_PX || i + 1 == l->n)) classify_batch(r, &b);
        if (status != RADZ_OK) {
            clear_progress(r);
            report_failure(r, path, &err);
        }
        if (fflush(stdout) || ferror(stdout)) break;
    }
    for (size_t i = 0; i < b.n; i++) radz_image_close(b.images[i]);
    return !ferror(stdout);
}

/* ---- Main ---- */

static int run(reader *r, const film_list *l)
{
    int status = open_all(r);
    if (status) return status;
    if (!r->s->quiet)
        fprintf(stderr, "libradz %s, model %s, %s\n", radz_version(), radz_model_name(r->e.model),
                radz_model_device(r->e.model));
    if (!r->s->quiet && r->s->form != AS_TABLE) fprintf(stderr, "%s\n", radz_disclaimer());
    if (r->s->form == AS_CSV)
        printf("path,sha256,width_px,height_px,label,probability,similarity,error,message%s\r\n",
               r->s->heat.dir ? ",heatmap" : "");
    bool written = classify_films(r, l);
    if (written && r->s->form == AS_TABLE && r->n_failed < l->n) print_footer(r);
    written = output_done() && written;
    if (r->n_failed && !r->s->quiet) complain("%zu of %zu inputs failed", r->n_failed, l->n);
    return written && !r->n_failed ? 0 : EXIT_FILM;
}

int main(int argc, char **argv)
{
    settings s = {.form = AS_TABLE, .heat.method = RADZ_HEATMAP_GRADIENT};
    film_list films = {.n = 0};
    reader r = {.s = &s};
    program_name = "radz-classify", program_usage = usage_line, program_help = help_text;
    int status = begin_program();
    if (status) return status;
    r.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    status = parse_settings(&s, argc, argv);
    if (status) return status;
    for (int i = 0; i < s.n_inputs; i++) add_input(&films, s.inputs[i]);
    r.n_films = films.n;
    status = run(&r, &films);
    close_all(&r);
    free_films(&films);
    free(s.heat.classes.items);
    return status;
}
