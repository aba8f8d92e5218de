/* radz-classify - names the findings on chest X-rays. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <langinfo.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common.h"
#include "dicom_files.h"
#include "heatmap_files.h"
#include "progress.h"

static const char usage_line[] =
    "usage: radz-classify [--model DIR] [--bank FILE | --classes A,B,C] [--json | --csv] [--quiet]\n"
    "                     [OPTION]... FILE|DIR...\n";

static const char help_text[] =
    "\n"
    "Scores chest X-ray films (PNG, JPEG or DICOM) against a list of findings.\n"
    "RESEARCH USE ONLY. NOT FOR DIAGNOSIS.\n"
    "\n"
    "  FILE            a film; '-' reads one from standard input\n"
    "  DIR             every *.png, *.jpg, *.jpeg, *.dcm and DICOM file of another name\n"
    "                  in it and below, sorted\n"
    "  --bank FILE     anchor bank; else the model's own\n"
    "  --classes LIST  findings to look for, by name: --classes 'No Finding,Edema'\n" ENGINE_HELP HEATMAP_HELP
        DICOM_HELP "  --strict        refuse films whose DICOM file speaks against them: lateral view,\n"
    "                  FOR PROCESSING, burnt-in annotation, no chest film\n"
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
    dicom_settings dicom;
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
    if (!s->heat.dir && !wants_map(&s->dicom) && s->heat.classes.n)
        return usage("--heatmap-class goes with --heatmap, --sc or --gsps");
    if (s->n_inputs == 0) return usage("no film given");
    for (int i = 0; i < s->n_inputs; i++) n_stdin += strcmp(s->inputs[i], "-") == 0;
    if (n_stdin > 1) return usage("standard input ('-') can be read only once");
    s->form = s->json ? AS_JSON : s->csv ? AS_CSV : AS_TABLE;
    return 0;
}

/* 0 or an exit status. */
static int parse_settings(settings *s, int argc, char **argv)
{
    option_entry known[] = {
        ENGINE_OPTIONS(s->engine),  {"bank", .text = &s->bank}, {"classes", .text = &s->classes},
        {"json", .flag = &s->json}, {"csv", .flag = &s->csv},   {"quiet", .flag = &s->quiet},
        HEATMAP_OPTIONS(s->heat),   DICOM_OPTIONS(s->dicom),    {"strict", .flag = &s->engine.strict}};
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
    bool utf8, thresholds; /* the bank has a calibration */
    char **notes;          /* warnings about the bank: said once, at the end */
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
    bool head, optional = needs_no_bank(r->e.model, &head);
    if (r->s->classes) return build_classes(r->e.session, r->s->classes, &r->bank);
    if (head && !r->s->bank) return 0;
    radz_status status = radz_bank_open(r->e.model, r->s->bank, &r->bank, &err);
    if (status == RADZ_OK || (status == RADZ_E_IO && !r->s->bank && optional)) return 0;
    complain("%s", err.message);
    return EXIT_USAGE;
}

static int open_all(reader *r)
{
    int status = open_engine(&r->e, &r->s->engine);
    if (!status) status = open_bank(r);
    r->thresholds = radz_bank_calibration(r->bank) != NULL;
    if (!status) status = begin_heatmaps(&r->s->heat, r->bank);
    return status;
}

static void close_all(reader *r)
{
    for (size_t i = 0; i < r->n_notes; i++) free(r->notes[i]);
    free(r->notes);
    radz_bank_close(r->bank);
    close_engine(&r->e);
}

/* ---- Output: table ---- */

enum { BAR = 26, SHORT_BAR = 14, MIN_LABEL = 8, MAX_LABEL = 28 };

/* Lines stay within 80 columns. */
static int bar_width(const reader *r)
{
    return r->thresholds ? SHORT_BAR : BAR;
}

static void print_bar(const reader *r, double probability)
{
    const int width = bar_width(r), full = (int)(probability * width + 0.5);
    for (int i = 0; i < width; i++)
        fputs(i < full ? (r->utf8 ? "\xe2\x96\x88" : "#") : (r->utf8 ? "\xc2\xb7" : "."), stdout);
}

/* " >=  31.0 %": at or above it; " <   31.0 %": below. */
static void print_threshold(double probability, double threshold)
{
    if (isnan(threshold))
        printf("  %10s", "-");
    else
        printf("  %-2s %5.1f %%", probability >= threshold ? ">=" : "<", 100 * threshold);
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
    if (r->thresholds) print_threshold(radz_result_probability(result, i), radz_result_threshold(result, i));
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

static void print_table(reader *r, const char *path, const radz_result *result, const heatmap_list *maps)
{
    size_t width = MIN_LABEL, n = radz_result_count(result);
    for (size_t i = 0; i < n; i++) {
        size_t w = columns(radz_result_label(result, i));
        if (w > width) width = w > MAX_LABEL ? MAX_LABEL : w;
    }
    show(stdout, strcmp(path, "-") == 0 ? "standard input" : path);
    printf("   %zu x %zu pixels\n", radz_result_width(result), radz_result_height(result));
    printf("  %-*s  %-*s%9s%s  %10s\n", (int)width, "Finding", bar_width(r), "Probability", "",
           r->thresholds ? "   Threshold" : "", "Similarity");
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

static void print_csv(const reader *r, const char *path, const radz_result *result, const heatmap_list *maps)
{
    for (size_t i = 0; i < radz_result_count(result); i++) {
        csv_text(path);
        printf(",%s,%zu,%zu,", radz_result_sha256(result), radz_result_width(result), radz_result_height(result));
        csv_text(radz_result_label(result, i));
        putchar(',');
        print_number(radz_result_probability(result, i));
        putchar(',');
        if (!isnan(radz_result_similarity(result, i))) print_number(radz_result_similarity(result, i));
        putchar(',');
        if (!isnan(radz_result_threshold(result, i))) print_number(radz_result_threshold(result, i));
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
    printf(",,,,,,,,%s,", radz_status_name(error->code));
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

/* Heat maps and DICOM files. A film that came by path is read again for them: the result has let it go. */
static radz_status write_files(const reader *r, const char *path, const radz_image *image, const radz_result *result,
                               heatmap_list *maps, radz_error *err)
{
    radz_image *own = NULL;
    radz_status status = image ? RADZ_OK : radz_image_open(r->e.runtime, path, &own, err);
    if (!image) image = own;
    if (!status && wants_dicom(&r->s->dicom))
        status = write_dicom(&r->s->dicom, &r->s->heat, r->e.session, r->bank, image, result, err);
    if (!status && r->s->heat.dir)
        status = write_heatmaps(&r->s->heat, r->e.session, r->bank, image, path, result, maps, err);
    radz_image_close(own);
    return status;
}

/* image: NULL where it came by path. */
static void report_result(reader *r, const char *path, const radz_image *image, const radz_result *result)
{
    radz_error err;
    heatmap_list maps = {.n = 0};
    radz_status status = RADZ_OK;
    char *json;
    if (r->s->heat.dir || wants_dicom(&r->s->dicom)) status = write_files(r, path, image, result, &maps, &err);
    if (status != RADZ_OK)
        report_failure(r, path, &err);
    else if (r->s->form == AS_TABLE)
        print_table(r, path, result, &maps);
    else if (r->s->form == AS_CSV)
        print_csv(r, path, result, &maps);
    else if (radz_result_json(result, path, &json, &err) == RADZ_OK)
        print_json_result(r, json, &maps);
    else
        report_failure(r, path, &err);
    free_heatmaps(&maps);
}

static void show_progress(const reader *r)
{
    if (r->s->quiet || r->n_films <= 3 || !on_terminal()) return;
    fprintf(stderr, "\r\033[K%zu/%zu", r->n_done, r->n_films);
    fflush(stderr);
}

static void clear_progress(const reader *r)
{
    if (!r->s->quiet && r->n_films > 3 && on_terminal()) fputs("\r\033[K", stderr);
}

/* ---- Films ---- */

/* A film's result, or NULL and why. False when standard output is broken. */
static bool film_done(reader *r, const char *path, const radz_image *image, const radz_result *result,
                      const radz_error *why)
{
    clear_progress(r);
    if (result)
        report_result(r, path, image, result);
    else
        report_failure(r, path, why);
    r->n_done++;
    bool good = !fflush(stdout) && !ferror(stdout);
    if (r->n_done < r->n_films) show_progress(r);
    return good;
}

typedef struct listener {
    reader *r;
    const char *const *paths;
} listener;

static int on_film(size_t i, radz_result *result, const radz_error *why, void *user)
{
    const listener *l = user;
    bool good = film_done(l->r, l->paths[i], NULL, result, why);
    radz_result_close(result);
    return !good;
}

/* Standard input, or what is known to be bad. */
static bool classify_one(reader *r, const film_place *place)
{
    radz_image *image = NULL;
    radz_result *result = NULL;
    radz_error err;
    if (!open_film(r->e.runtime, place, &image, &err))
        (void)!radz_classify(r->e.session, r->bank, image, &result, &err);
    bool good = film_done(r, place->path, image, result, &err);
    radz_result_close(result);
    radz_image_close(image);
    return good;
}

/* Films by path from place i on, as many as follow each other; *n: how many. False when standard output is broken. */
static bool classify_paths(reader *r, const film_list *l, size_t i, const char **paths, size_t *n)
{
    radz_error err;
    const listener to = {r, paths};
    const size_t before = r->n_done;
    for (*n = 0; i + *n < l->n && !l->places[i + *n].why && strcmp(l->places[i + *n].path, "-"); ++*n)
        paths[*n] = l->places[i + *n].path;
    radz_status status = radz_classify_files(r->e.session, r->bank, paths, *n, on_film, (void *)&to, &err);
    bool good = !ferror(stdout);
    while (status && good && r->n_done < before + *n) /* what fails for all of them */
        good = film_done(r, paths[r->n_done - before], NULL, NULL, &err);
    return good;
}

/* False when standard output is broken. */
static bool classify_films(reader *r, const film_list *l)
{
    const char **paths = need(calloc(l->n + 1, sizeof *paths));
    bool good = true;
    show_progress(r);
    for (size_t i = 0; i < l->n && good;) {
        const film_place *place = &l->places[i];
        size_t n = 1;
        if (place->why || strcmp(place->path, "-") == 0)
            good = classify_one(r, place);
        else
            good = classify_paths(r, l, i, paths, &n);
        i += n;
    }
    free(paths);
    return good;
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
        printf("path,sha256,width_px,height_px,label,probability,similarity,threshold,error,message%s\r\n",
               r->s->heat.dir ? ",heatmap" : "");
    bool written = classify_films(r, l);
    if (written && r->s->form == AS_TABLE && r->n_failed < l->n) print_footer(r);
    written = output_done() && written;
    if (r->n_failed && !r->s->quiet) complain("%zu of %zu inputs failed", r->n_failed, l->n);
    return written && !r->n_failed ? 0 : EXIT_FILM;
}

int main(int argc, char **argv)
{
    settings s = {.form = AS_TABLE, .heat.method = RADZ_HEATMAP_GRADIENT, .dicom.threshold = (double)NAN};
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
    status = check_dicom(&s.dicom, &s.heat, films.n);
    if (!status) status = run(&r, &films);
    close_all(&r);
    free_films(&films);
    free(s.heat.classes.items);
    return status;
}
