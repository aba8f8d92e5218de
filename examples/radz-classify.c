/* radz-classify - names the findings on chest X-rays. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <radz.h>

enum { EXIT_FILM = 1, EXIT_USAGE = 2 };
enum { BATCH = 8, MAX_BATCH_PX = 32 * 1024 * 1024, MAX_DEPTH = 32 };
#define MAX_STDIN_BYTES ((size_t)512 << 20)

static const char usage_line[] =
    "usage: radz-classify [--model DIR] [--bank FILE | --classes A,B,C] [--threads N]\n"
    "                     [--device auto|cpu|cuda] [--json | --csv] [--quiet] FILE|DIR...\n";

static const char help_text[] = "\n"
                                "Scores chest X-ray films (PNG or JPEG) against a list of findings.\n"
                                "RESEARCH USE ONLY. NOT FOR DIAGNOSIS.\n"
                                "\n"
                                "  FILE            a film; '-' reads one from standard input\n"
                                "  DIR             every *.png, *.jpg and *.jpeg in it and below, sorted\n"
                                "  --model DIR     model directory; else $RADZ_MODEL, else the model that ships\n"
                                "  --bank FILE     anchor bank; else the model's own\n"
                                "  --classes LIST  findings to look for, by name: --classes 'No Finding,Edema'\n"
                                "  --threads N     worker threads, 0 = one per core (default)\n"
                                "  --device NAME   auto (default), cpu or cuda\n"
                                "  --json          one JSON object per film and line (schema radz.result/1)\n"
                                "  --csv           one row per film and finding\n"
                                "  --quiet         results only: no notes and no progress on standard error\n"
                                "  --help, --version\n"
                                "\n"
                                "Exit status: 0 all films done; 1 a film failed (the others are done) or the\n"
                                "output could not be written; 2 wrong usage, or no such model or bank.\n";

/* ---- Small things ---- */

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void show(FILE *out, const char *text);

/* To standard error, control characters made visible. */
static void complain(const char *format, ...)
{
    char text[4600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fputs("radz-classify: ", stderr);
    show(stderr, text);
    fputc('\n', stderr);
}

static void *need(void *p)
{
    if (p) return p;
    fputs("radz-classify: out of memory\n", stderr);
    exit(EXIT_FILM);
}

/* Bytes of the UTF-8 character at s that is safe to print, 0 when there is none. */
static size_t printable(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t n = u[0] < 0x80 ? 1 : (u[0] & 0xe0) == 0xc0 ? 2 : (u[0] & 0xf0) == 0xe0 ? 3 : (u[0] & 0xf8) == 0xf0 ? 4 : 0;
    unsigned long code = n == 1 ? u[0] : u[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((u[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (u[i] & 0x3f);
    }
    static const unsigned long smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (n == 0 || code < smallest[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return 0;
    if (code < 0x20 || (code >= 0x7f && code < 0xa0)) return 0; /* controls */
    if ((code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
        (code >= 0x2060 && code <= 0x2069) || code == 0xfeff)
        return 0; /* invisible, or turns the direction of writing */
    return n;
}

/* Columns that show() takes. */
static size_t columns(const char *s)
{
    size_t width = 0;
    while (*s) {
        size_t n = printable(s);
        width += n ? 1 : 4;
        s += n ? n : 1;
    }
    return width;
}

static void show(FILE *out, const char *s)
{
    while (*s) {
        size_t n = printable(s);
        if (n)
            fwrite(s, 1, n, out);
        else
            fprintf(out, "\\x%02x", (unsigned char)*s);
        s += n ? n : 1;
    }
}

static void spaces(size_t n)
{
    printf("%*s", (int)n, "");
}

/* ---- Command line ---- */

typedef enum { AS_TABLE, AS_JSON, AS_CSV } output_form;

typedef struct settings {
    const char *model, *bank, *classes, *threads, *device;
    bool json, csv, quiet, help, version;
    output_form form;
    int n_threads;
    char **inputs; /* into argv */
    int n_inputs;
} settings;

static int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int usage(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    complain("%s", text);
    fputs(usage_line, stderr);
    fputs("Try 'radz-classify --help'.\n", stderr);
    return EXIT_USAGE;
}

/* Takes argv[*i], an option, and its value where it has one. 0 or an exit status. */
static int take_option(settings *s, char **argv, int argc, int *i)
{
    const struct {
        const char *name;
        const char **value;
        bool *flag;
    } known[] = {{"model", &s->model, NULL},     {"bank", &s->bank, NULL},     {"classes", &s->classes, NULL},
                 {"threads", &s->threads, NULL}, {"device", &s->device, NULL}, {"json", NULL, &s->json},
                 {"csv", NULL, &s->csv},         {"quiet", NULL, &s->quiet},   {"help", NULL, &s->help},
                 {"version", NULL, &s->version}};
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t n = equals ? (size_t)(equals - name) : strlen(name), k = 0, n_known = sizeof known / sizeof *known;
    while (k < n_known && (strlen(known[k].name) != n || strncmp(known[k].name, name, n) != 0)) k++;
    if (argv[*i][1] != '-' || k == n_known) return usage("unknown option %s", argv[*i]);
    if (known[k].flag ? *known[k].flag : *known[k].value != NULL) return usage("--%s is given twice", known[k].name);
    if (known[k].flag) {
        if (equals) return usage("--%s takes no value", known[k].name);
        *known[k].flag = true;
        return 0;
    }
    if (!equals && *i + 1 == argc) return usage("--%s needs a value", known[k].name);
    *known[k].value = equals ? equals + 1 : argv[++*i];
    if (**known[k].value == 0) return usage("--%s needs a value", known[k].name);
    return 0;
}

static int parse_threads(settings *s)
{
    const char *t = s->threads;
    if (!t) return 0;
    for (const char *p = t; *p; p++) {
        if (*p < '0' || *p > '9' || s->n_threads > 1024)
            return usage("--threads: expected a number from 0 to 1024, got %s", t);
        s->n_threads = s->n_threads * 10 + (*p - '0');
    }
    if (s->n_threads > 1024) return usage("--threads: expected a number from 0 to 1024, got %s", t);
    return 0;
}

static int check_settings(settings *s)
{
    int n_stdin = 0;
    if (s->json && s->csv) return usage("--json and --csv exclude each other");
    if (s->bank && s->classes) return usage("--bank and --classes exclude each other");
    if (s->device && strcmp(s->device, "auto") && strcmp(s->device, "cpu") && strcmp(s->device, "cuda"))
        return usage("--device: expected auto, cpu or cuda, got %s", s->device);
    int status = parse_threads(s);
    if (status) return status;
    if (s->n_inputs == 0) return usage("no film given");
    for (int i = 0; i < s->n_inputs; i++) n_stdin += strcmp(s->inputs[i], "-") == 0;
    if (n_stdin > 1) return usage("standard input ('-') can be read only once");
    s->form = s->json ? AS_JSON : s->csv ? AS_CSV : AS_TABLE;
    return 0;
}

/* Fills s; inputs are gathered at the front of argv. 0 or an exit status. */
static int parse_settings(settings *s, int argc, char **argv)
{
    bool options = true;
    s->inputs = argv;
    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (options && argv[i][0] == '-' && argv[i][1]) {
            int status = take_option(s, argv, argc, &i);
            if (status) return status;
        } else {
            s->inputs[s->n_inputs++] = argv[i];
        }
    }
    return s->help || s->version ? 0 : check_settings(s);
}

/* ---- The list of films ---- */

typedef struct film_place {
    char *path;
    radz_error *why; /* a folder that could not be read or holds no film; NULL: a film */
} film_place;

typedef struct film_list {
    film_place *places;
    size_t n, cap;
} film_list;

static film_place *add_path(film_list *l, const char *path)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->places = need(realloc(l->places, l->cap * sizeof *l->places));
    }
    l->places[l->n] = (film_place){need(strdup(path)), NULL};
    return &l->places[l->n++];
}

/* A folder without films: reported in its turn, like a film that cannot be read. */
static void add_failure(film_list *l, const char *dir, radz_status code, const char *why)
{
    radz_error *e = need(malloc(sizeof *e));
    e->code = code;
    snprintf(e->message, sizeof e->message, "%.300s: %s", dir, why);
    add_path(l, dir)->why = e;
}

static bool is_film_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && dot != name && (!strcasecmp(dot, ".png") || !strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg"));
}

static void add_folder(film_list *l, const char *dir, int depth);

static void add_entry(film_list *l, const char *dir, const char *name, int depth)
{
    struct stat st;
    size_t n = strlen(dir);
    char *path = need(malloc(n + strlen(name) + 2));
    sprintf(path, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    /* Links to folders are not followed: they may lead back here. */
    if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
        add_folder(l, path, depth + 1);
    else if (is_film_name(name))
        add_path(l, path);
    free(path);
}

static void add_folder(film_list *l, const char *dir, int depth)
{
    struct dirent **entries;
    int n = depth < MAX_DEPTH ? scandir(dir, &entries, NULL, NULL) : -1;
    if (n < 0) {
        const char *why = strerror(errno);
        add_failure(l, dir, RADZ_E_IO, depth < MAX_DEPTH ? why : "folders lie too deep");
        return;
    }
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) add_entry(l, dir, name, depth);
        free(entries[i]);
    }
    free(entries);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const film_place *)a)->path, ((const film_place *)b)->path);
}

static void add_input(film_list *l, const char *input)
{
    struct stat st;
    if (strcmp(input, "-") == 0 || stat(input, &st) != 0 || !S_ISDIR(st.st_mode)) {
        add_path(l, input);
        return;
    }
    const size_t before = l->n;
    add_folder(l, input, 0);
    if (l->n > before)
        qsort(l->places + before, l->n - before, sizeof *l->places, by_path);
    else
        add_failure(l, input, RADZ_E_IO, "no *.png, *.jpg or *.jpeg in this folder");
}

/* ---- The model that ships ---- */

/* dir of the running program + suffix, when a model is there. */
static bool model_at(const char *suffix, char *out, size_t size)
{
    char exe[3072], config[4160];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) return false;
    exe[n] = 0;
    *strrchr(exe, '/') = 0;
    snprintf(out, size, "%s/%s", exe, suffix);
    snprintf(config, sizeof config, "%s/config.json", out);
    return access(config, R_OK) == 0;
}

static const char *find_model(const settings *s, char *buffer, size_t size)
{
    static const char *const places[] = {"../share/radz/models/radz-tiny", "../../../models/radz-tiny"};
    const char *from_env = getenv("RADZ_MODEL");
    if (s->model) return s->model;
    if (from_env && *from_env) return from_env;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (model_at(places[i], buffer, size)) return buffer;
    complain("no model: give one with --model DIR or in the environment as RADZ_MODEL. Looked in:");
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        model_at(places[i], buffer, size);
        fputs("  ", stderr);
        show(stderr, buffer);
        fputc('\n', stderr);
    }
    return NULL;
}

/* ---- The library's side ---- */

typedef struct reader {
    const settings *s;
    radz_runtime *runtime;
    radz_model *model;
    radz_session *session;
    radz_bank *bank;
    size_t n_done, n_failed, n_films;
    bool utf8, any_warning;
    char **notes; /* warnings about the bank: said once, at the end */
    size_t n_notes;
} reader;

/* "a, b,c" -> entries; the list is cut in place. */
static int split_classes(char *list, radz_bank_entry **entries, size_t *n)
{
    size_t cap = 1;
    for (const char *p = list; *p; p++) cap += *p == ',';
    *entries = need(calloc(cap, sizeof **entries));
    *n = 0;
    for (char *name = list; name;) {
        char *comma = strchr(name, ',');
        if (comma) *comma = 0;
        name += strspn(name, " \t");
        size_t len = strlen(name);
        while (len && (name[len - 1] == ' ' || name[len - 1] == '\t')) name[--len] = 0;
        if (!len) return usage("--classes: a name is empty");
        for (size_t i = 0; i < *n; i++)
            if (strcasecmp((*entries)[i].label, name) == 0) return usage("--classes: %s comes twice", name);
        (*entries)[(*n)++].label = name;
        name = comma ? comma + 1 : NULL;
    }
    return 0;
}

static int open_bank(reader *r)
{
    radz_error err;
    radz_status status;
    if (r->s->classes) {
        char *list = need(strdup(r->s->classes));
        radz_bank_entry *entries;
        size_t n;
        int bad = split_classes(list, &entries, &n);
        status = bad ? RADZ_OK : radz_bank_build(r->session, entries, n, &r->bank, &err);
        free(entries);
        free(list);
        if (bad) return bad;
    } else {
        status = radz_bank_open(r->model, r->s->bank, &r->bank, &err);
    }
    if (status == RADZ_OK) return 0;
    complain("%s", err.message);
    return EXIT_USAGE;
}

static int open_all(reader *r)
{
    char place[4096];
    radz_error err;
    radz_runtime_options o;
    const char *dir = find_model(r->s, place, sizeof place);
    if (!dir) return EXIT_USAGE;
    radz_runtime_options_init(&o);
    if (r->s->device) o.device = r->s->device;
    o.n_threads = r->s->n_threads;
    if (radz_runtime_create(&o, &r->runtime, &err) || radz_model_open(r->runtime, dir, NULL, &r->model, &err) ||
        radz_session_open(r->model, NULL, &r->session, &err)) {
        complain("%s", err.message);
        return EXIT_USAGE;
    }
    return open_bank(r);
}

static void close_all(reader *r)
{
    for (size_t i = 0; i < r->n_notes; i++) free(r->notes[i]);
    free(r->notes);
    radz_bank_close(r->bank);
    radz_session_close(r->session);
    radz_model_close(r->model);
    radz_runtime_close(r->runtime);
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
    printf("  %5.1f %%  %10.3f\n", 100 * radz_result_probability(result, i), radz_result_similarity(result, i));
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

static void print_table(reader *r, const char *path, const radz_image *image, const radz_result *result)
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

/* Shortest digits that read back to the same number; LC_NUMERIC stays "C". */
static void csv_number(double v)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    fputs(text, stdout);
}

static void print_csv(const char *path, const radz_image *image, const radz_result *result)
{
    for (size_t i = 0; i < radz_result_count(result); i++) {
        csv_text(path);
        printf(",%s,%zu,%zu,", radz_image_sha256(image), radz_image_width(image), radz_image_height(image));
        csv_text(radz_result_label(result, i));
        putchar(',');
        csv_number(radz_result_probability(result, i));
        putchar(',');
        csv_number(radz_result_similarity(result, i));
        fputs(",,\r\n", stdout);
    }
}

static void print_csv_error(const char *path, const radz_error *error)
{
    csv_text(path);
    printf(",,,,,,,%s,", radz_status_name(error->code));
    csv_text(error->message);
    fputs("\r\n", stdout);
}

/* ---- Output: any ---- */

static void print_json(char *json)
{
    puts(json);
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
    if (r->s->form == AS_CSV) print_csv_error(path, error);
    bool named = strcmp(path, "-") != 0 && strstr(error->message, path);
    complain("%s%s%s", named ? "" : strcmp(path, "-") ? path : "standard input", named ? "" : ": ", error->message);
}

static void report_result(reader *r, const char *path, const radz_image *image, const radz_result *result)
{
    radz_error err;
    char *json;
    if (r->s->form == AS_TABLE)
        print_table(r, path, image, result);
    else if (r->s->form == AS_CSV)
        print_csv(path, image, result);
    else if (radz_result_json(result, path, &json, &err) == RADZ_OK)
        print_json(json);
    else
        report_failure(r, path, &err);
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

static radz_status open_stdin(radz_runtime *runtime, radz_image **image, radz_error *err)
{
    size_t n = 0, cap = 1 << 16, got;
    unsigned char *bytes = need(malloc(cap));
    while ((got = fread(bytes + n, 1, cap - n, stdin)) > 0 && n <= MAX_STDIN_BYTES) {
        n += got;
        if (n == cap) bytes = need(realloc(bytes, cap *= 2));
    }
    radz_status status = radz_image_open_memory(runtime, bytes, n, image, err);
    free(bytes);
    return status;
}

static radz_status open_film(radz_runtime *runtime, const film_place *place, radz_image **image, radz_error *err)
{
    if (strcmp(place->path, "-") == 0) return open_stdin(runtime, image, err);
    if (!place->why) return radz_image_open(runtime, place->path, image, err);
    *err = *place->why;
    return err->code;
}

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
        if (radz_classify(r->session, r->bank, b->images[i], &result, &err) != RADZ_OK)
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
        radz_classify_batch(r->session, r->bank, (const radz_image *const *)b->images, b->n, results, NULL);
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
        radz_status status = open_film(r->runtime, &l->places[i], &image, &err);
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
        fprintf(stderr, "libradz %s, model %s, %s\n", radz_version(), radz_model_name(r->model),
                radz_model_device(r->model));
    if (!r->s->quiet && r->s->form != AS_TABLE) fprintf(stderr, "%s\n", radz_disclaimer());
    if (r->s->form == AS_CSV)
        fputs("path,sha256,width_px,height_px,label,probability,similarity,error,message\r\n", stdout);
    bool written = classify_films(r, l);
    if (written && r->s->form == AS_TABLE && r->n_failed < l->n) print_footer(r);
    if (fflush(stdout) || ferror(stdout)) written = false;
    if (!written) complain("cannot write to standard output: %s", strerror(errno));
    if (r->n_failed && !r->s->quiet) complain("%zu of %zu inputs failed", r->n_failed, l->n);
    return written && !r->n_failed ? 0 : EXIT_FILM;
}

static int print_and_exit(const char *first, const char *second)
{
    fputs(first, stdout);
    fputs(second, stdout);
    if (fflush(stdout) == 0) return 0;
    complain("cannot write to standard output: %s", strerror(errno));
    return EXIT_FILM;
}

/* A closed standard descriptor would be given to the next file that is opened. */
static bool standard_files(void)
{
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) != -1) continue;
        int null = open("/dev/null", fd ? O_WRONLY : O_RDONLY);
        if (null != fd) return false;
        if (fd == 1) return complain("standard output is closed"), false;
    }
    return true;
}

int main(int argc, char **argv)
{
    settings s = {.form = AS_TABLE};
    film_list films = {.n = 0};
    reader r = {.s = &s};
    if (!standard_files()) return EXIT_FILM;
    setlocale(LC_CTYPE, "");
    r.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    int status = parse_settings(&s, argc, argv);
    if (status) return status;
    if (s.help) return print_and_exit(usage_line, help_text);
    if (s.version) {
        char line[64];
        snprintf(line, sizeof line, "radz-classify %s\n", radz_version());
        return print_and_exit(line, radz_disclaimer()) || putchar('\n') == EOF || fflush(stdout);
    }
    for (int i = 0; i < s.n_inputs; i++) add_input(&films, s.inputs[i]);
    r.n_films = films.n;
    status = run(&r, &films);
    close_all(&r);
    for (size_t i = 0; i < films.n; i++) {
        free(films.places[i].path);
        free(films.places[i].why);
    }
    free(films.places);
    return status;
}
