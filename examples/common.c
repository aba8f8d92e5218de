/* What the programs share. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include "common.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DEPTH = 32 };
#define MAX_STDIN_BYTES ((size_t)512 << 20)

const char *program_name = "radz", *program_usage = "", *program_help = "";

/* ---- The program ---- */

static void complain_args(const char *format, va_list args)
{
    char text[4600];
    vsnprintf(text, sizeof text, format, args);
    fprintf(stderr, "%s: ", program_name);
    show(stderr, text);
    fputc('\n', stderr);
}

void complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain_args(format, args);
    va_end(args);
}

int usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain_args(format, args);
    va_end(args);
    fprintf(stderr, "%sTry '%s --help'.\n", program_usage, program_name);
    return EXIT_USAGE;
}

void *need(void *p)
{
    if (p) return p;
    fprintf(stderr, "%s: out of memory\n", program_name);
    exit(EXIT_FILM);
}

bool output_done(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return true;
    complain("cannot write to standard output: %s", strerror(errno));
    return false;
}

int print_help(void)
{
    fputs(program_usage, stdout);
    fputs(program_help, stdout);
    return output_done() ? 0 : EXIT_FILM;
}

int print_version(void)
{
    printf("%s %s\n%s\n", program_name, radz_version(), radz_disclaimer());
    return output_done() ? 0 : EXIT_FILM;
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

int begin_program(void)
{
    if (!standard_files()) return EXIT_FILM;
    setlocale(LC_CTYPE, "");
    return 0;
}

/* ---- Text that is safe to print ---- */

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
size_t columns(const char *s)
{
    size_t width = 0;
    while (*s) {
        size_t n = printable(s);
        width += n ? 1 : 4;
        s += n ? n : 1;
    }
    return width;
}

void show(FILE *out, const char *s)
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

void print_json_text(const char *s)
{
    if (!s) {
        fputs("null", stdout);
        return;
    }
    putchar('"');
    while (*s) {
        size_t n = printable(s);
        if (n == 1 && (*s == '"' || *s == '\\')) putchar('\\');
        if (n)
            fwrite(s, 1, n, stdout);
        else if ((unsigned char)*s < 0x80)
            printf("\\u%04x", (unsigned char)*s);
        else
            fputs("\\ufffd", stdout);
        s += n ? n : 1;
    }
    putchar('"');
}

/* Shortest digits that read back to the same number; LC_NUMERIC stays "C". */
void print_number(double v)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    fputs(text, stdout);
}

/* ---- Films ---- */

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
    static const char *const ends[] = {".png", ".jpg", ".jpeg", ".dcm"};
    const char *dot = strrchr(name, '.');
    bool is = false;
    for (size_t i = 0; dot && dot != name && i < sizeof ends / sizeof *ends; i++) is |= !strcasecmp(dot, ends[i]);
    return is;
}

/* What archives export has numbers for names, or none that end in .dcm. Their table of contents is no film. */
static bool is_dicom_file(const char *path, const char *name)
{
    char magic[4] = "";
    struct stat st;
    if (*name == '.' || strcasecmp(name, "DICOMDIR") == 0 || stat(path, &st) != 0 || !S_ISREG(st.st_mode)) return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const bool is = fd >= 0 && pread(fd, magic, sizeof magic, 128) == 4 && memcmp(magic, "DICM", 4) == 0;
    if (fd >= 0) close(fd);
    return is;
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
    else if (is_film_name(name) || is_dicom_file(path, name))
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

void add_input(film_list *l, const char *input)
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
        add_failure(l, input, RADZ_E_IO, "no *.png, *.jpg, *.jpeg, *.dcm or other DICOM file in this folder");
}

void free_films(film_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->places[i].path);
        free(l->places[i].why);
    }
    free(l->places);
    *l = (film_list){0};
}

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

radz_status open_film(radz_runtime *runtime, const film_place *place, radz_image **image, radz_error *err)
{
    if (strcmp(place->path, "-") == 0) return open_stdin(runtime, image, err);
    if (!place->why) return radz_image_open(runtime, place->path, image, err);
    *err = *place->why;
    return err->code;
}

/* ---- Runtime, model, session ---- */

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

static const char *find_model(const char *given, char *buffer, size_t size)
{
    static const char *const places[] = {"../share/radz/models/radz-tiny", "../../../models/radz-tiny"};
    const char *from_env = getenv("RADZ_MODEL");
    if (given) return given;
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

uint64_t parse_size(const char *text)
{
    char *end;
    errno = 0;
    const double v = strtod(text, &end);
    const char *const units = "kKmMgGtT", *at = *end ? strchr(units, *end) : NULL;
    if (at) end++;
    if (end[0] == 'B' || (at && end[0] == 'i' && end[1] == 'B')) end += end[0] == 'i' ? 2 : 1;
    if (errno || *end || !(v > 0)) return 0;
    const double bytes = v * (at ? pow(1024, (double)((at - units) / 2 + 1)) : 1);
    return bytes >= 1 && bytes < 1e18 ? (uint64_t)bytes : 0;
}

int open_engine(engine *e, const engine_options *o)
{
    char place[4096];
    radz_error err;
    radz_runtime_options runtime;
    radz_model_options model;
    radz_session_options session;
    const char *dir = find_model(o->model, place, sizeof place);
    if (!dir) return EXIT_USAGE;
    radz_runtime_options_init(&runtime);
    runtime.device = o->device ? o->device : runtime.device;
    runtime.n_threads = o->n_threads;
    radz_session_options_init(&session);
    session.strict = o->strict;
    radz_model_options_init(&model);
    model.use_mmap = !o->read_weights;
    model.vision_source = (radz_vision_source)o->vision_source;
    model.vision_dir = o->vision_dir;
    model.adapter_dir = o->adapter;
    model.weights = o->weights;
    if (o->memory && !(model.memory_bytes = parse_size(o->memory)))
        return usage("--memory: expected a size such as 1G or 600M, got %s", o->memory);
    model.keep_weights = o->keep_weights && strcmp(o->keep_weights, "none") == 0 ? "" : o->keep_weights;
    if ((!e->runtime && radz_runtime_create(&runtime, &e->runtime, &err)) ||
        radz_model_open(e->runtime, dir, &model, &e->model, &err) ||
        radz_session_open(e->model, &session, &e->session, &err)) {
        complain("%s", err.message);
        return EXIT_USAGE;
    }
    return 0;
}

void close_engine(engine *e)
{
    radz_session_close(e->session);
    radz_model_close(e->model);
    radz_runtime_close(e->runtime);
}

/* ---- Lists of classes ---- */

/* The list is cut in place. 0 or an exit status. */
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

int build_classes(radz_session *session, const char *list, radz_bank **bank)
{
    radz_error err;
    radz_bank_entry *entries;
    size_t n;
    char *names = need(strdup(list));
    int status = split_classes(names, &entries, &n);
    if (!status && radz_bank_build(session, entries, n, bank, &err)) {
        complain("%s", err.message);
        status = EXIT_USAGE;
    }
    free(entries);
    free(names);
    return status;
}

int read_lines(const char *path, text_list *l, char **text)
{
    FILE *f = fopen(path, "rb");
    size_t n = 0, cap = 1 << 16, got;
    if (!f) return complain("%s: %s", path, strerror(errno)), EXIT_USAGE;
    *text = need(malloc(cap));
    while ((got = fread(*text + n, 1, cap - n - 1, f)) > 0)
        if ((n += got) == cap - 1) *text = need(realloc(*text, cap *= 2));
    bool bad = ferror(f);
    fclose(f);
    if (bad) return complain("%s: %s", path, strerror(errno)), EXIT_USAGE;
    (*text)[n] = 0;
    if (memchr(*text, 0, n)) return complain("%s: holds a NUL byte, expected text", path), EXIT_USAGE;
    for (char *line = *text, *end; *line; line = end) {
        end = line + strcspn(line, "\n");
        if (*end) *end++ = 0;
        size_t len = strlen(line);
        if (len && line[len - 1] == '\r') line[len - 1] = 0;
        if (*line) add_text(l, line);
    }
    return 0;
}
