/* csv.c - a table of text. Fields are decoded in place in one copy of the file, cells are offsets into it. Empty lines
 * are skipped. SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"

#define MAX_COLUMNS 4096u

struct rz_csv {
    const rz_host *host;
    char *text;      /* decoded fields, each NUL-terminated */
    uint32_t *cells; /* offsets into text, header first, n_columns per row */
    size_t n_cells, cap_cells, n_columns;
    uint32_t *lines; /* where each row begins, header first */
    size_t n_rows, cap_rows;
};

typedef struct scan {
    rz_csv *csv;
    const char *what;
    char *p, *end; /* what is still to be read */
    char *to;      /* where decoded text goes; never past p */
    char separator;
    uint32_t line;
    radz_error *err;
    rz_csv_bad bad_fn; /* told of rows that are left out; NULL: none are */
    void *user;
} scan;

static radz_status fail_line(const scan *c, uint32_t line, const char *problem)
{
    return rz_fail(c->err, RADZ_E_FORMAT, "%s: line %u: %s", c->what, (unsigned)line, problem);
}

/* Refuses what is not text before anything is taken apart. */
static radz_status check_text(const scan *c)
{
    uint32_t line = 1, cp;
    size_t n;
    for (const char *p = c->p; p < c->end; p += n) {
        n = rz_utf8_next(p, (size_t)(c->end - p), &cp);
        if (!n) return fail_line(c, line, "not UTF-8 text");
        if (cp == 0) return fail_line(c, line, "NUL byte, expected text");
        if (cp == '\n') line++;
    }
    return RADZ_OK;
}

/* ',' unless the header has none outside of quotes but a ';' or a tab. */
static char find_separator(const scan *c)
{
    bool quoted = false, semicolon = false, tab = false;
    for (const char *p = c->p; p < c->end && (quoted || (*p != '\n' && *p != '\r')); p++) {
        if (*p == '"') quoted = !quoted;
        if (quoted) continue;
        if (*p == ',') return ',';
        semicolon = semicolon || *p == ';';
        tab = tab || *p == '\t';
    }
    return semicolon ? ';' : tab ? '\t' : ',';
}

static radz_status put_number(const scan *c, uint32_t **items, size_t *n, size_t *cap, uint32_t v)
{
    if (*n == *cap) {
        size_t want = *cap ? *cap * 2 : 256;
        uint32_t *p = rz_realloc(c->csv->host, *items, want, sizeof *p);
        if (!p) return RZ_NO_MEMORY(c->err, c->what);
        *items = p;
        *cap = want;
    }
    (*items)[(*n)++] = v;
    return RADZ_OK;
}

/* The inside of a quoted field; p stands after the opening quote, then after the closing one. */
static radz_status take_quoted(scan *c)
{
    uint32_t begin = c->line;
    for (; c->p < c->end; c->p++) {
        if (*c->p == '"' && (c->p + 1 == c->end || c->p[1] != '"')) break;
        if (*c->p == '"') c->p++;
        if (*c->p == '\n') c->line++;
        *c->to++ = *c->p;
    }
    if (c->p == c->end) return fail_line(c, begin, "a quoted field is never closed");
    c->p++;
    if (c->p < c->end && *c->p != c->separator && *c->p != '\n' && *c->p != '\r')
        return fail_line(c, c->line, "text after a closing quote, expected a separator");
    return RADZ_OK;
}

/* One field and what ends it; *last: it was the row's last. */
static radz_status take_field(scan *c, bool *last)
{
    rz_csv *csv = c->csv;
    char *start = c->to, ending;
    if (c->p < c->end && *c->p == '"') {
        c->p++;
        RZ_TRY(take_quoted(c));
    } else {
        while (c->p < c->end && *c->p != c->separator && *c->p != '\n' && *c->p != '\r') *c->to++ = *c->p++;
    }
    *last = true;
    if (c->p < c->end) {
        ending = *c->p++;
        *last = ending != c->separator;
        if (ending == '\r' && c->p < c->end && *c->p++ != '\n')
            return fail_line(c, c->line, "carriage return without a line feed");
        if (*last) c->line++;
    }
    *c->to++ = '\0';
    return put_number(c, &csv->cells, &csv->n_cells, &csv->cap_cells, (uint32_t)(start - csv->text));
}

/* A row with too few or too many of them. */
static radz_status refuse_row(scan *c, size_t line, size_t n)
{
    rz_csv *csv = c->csv;
    radz_error why;
    radz_status st = rz_fail(&why, RADZ_E_FORMAT, "%s: line %zu: %zu fields, expected %zu as in the header", c->what,
                             line, n, csv->n_columns);
    if (!c->bad_fn) return rz_fail(c->err, st, "%s", why.message);
    csv->n_cells -= n;
    c->bad_fn(c->user, line, why.message);
    return RADZ_OK;
}

static radz_status take_row(scan *c)
{
    rz_csv *csv = c->csv;
    uint32_t line = c->line;
    size_t n = 0;
    bool last = false;
    for (; !last; n++) {
        if (n == MAX_COLUMNS)
            return rz_fail(c->err, RADZ_E_LIMIT, "%s: line %u: more than %u fields", c->what, (unsigned)line,
                           MAX_COLUMNS);
        RZ_TRY(take_field(c, &last));
    }
    if (csv->n_rows && n != csv->n_columns) return refuse_row(c, line, n);
    csv->n_columns = n;
    return put_number(c, &csv->lines, &csv->n_rows, &csv->cap_rows, line);
}

/* Spaces around a column's name do not count; the same name twice would be read as one. */
static radz_status check_header(const scan *c)
{
    rz_csv *csv = c->csv;
    for (size_t i = 0; i < csv->n_columns; i++) {
        char *name = csv->text + csv->cells[i];
        size_t n = strlen(name);
        while (n && (name[n - 1] == ' ' || name[n - 1] == '\t')) name[--n] = '\0';
        while (*name == ' ' || *name == '\t') name++, csv->cells[i]++;
        for (size_t j = 0; j < i && *name; j++)
            if (strcmp(name, csv->text + csv->cells[j]) == 0)
                return rz_fail(c->err, RADZ_E_FORMAT, "%s: line %u: columns %zu and %zu have the same name", c->what,
                               (unsigned)csv->lines[0], j + 1, i + 1);
    }
    return RADZ_OK;
}

static radz_status read_table(rz_csv *csv, const char *text, size_t n, const char *what, rz_csv_bad bad, void *user,
                              radz_error *err)
{
    scan c = {.csv = csv, .what = what, .line = 1, .err = err, .bad_fn = bad, .user = user};
    if (n >= UINT32_MAX) return rz_fail(err, RADZ_E_LIMIT, "%s: a table of %zu bytes, at most 4 GB are read", what, n);
    if (!(csv->text = rz_malloc(csv->host, n + 1))) return RZ_NO_MEMORY(err, what);
    if (n) memcpy(csv->text, text, n);
    c.p = c.to = csv->text;
    c.end = csv->text + n;
    RZ_TRY(check_text(&c));
    if (n >= 3 && memcmp(csv->text, "\xef\xbb\xbf", 3) == 0) c.p += 3;
    while (c.p < c.end) {
        if (*c.p == '\n' || (*c.p == '\r' && c.p + 1 < c.end && c.p[1] == '\n')) {
            c.p += *c.p == '\r' ? 2 : 1;
            c.line++;
            continue;
        }
        if (!csv->n_rows) c.separator = find_separator(&c);
        RZ_TRY(take_row(&c));
    }
    if (!csv->n_rows) return rz_fail(err, RADZ_E_FORMAT, "%s: empty, expected a table with a header line", what);
    return check_header(&c);
}

static radz_status parse(const rz_host *host, const char *text, size_t n, const char *what, rz_csv_bad bad, void *user,
                         rz_csv **out, radz_error *err)
{
    radz_status status;
    rz_csv *csv = rz_calloc(host, 1, sizeof *csv);
    *out = NULL;
    if (!csv) return RZ_NO_MEMORY(err, what);
    csv->host = host;
    status = read_table(csv, text, n, what, bad, user, err);
    if (status == RADZ_OK)
        *out = csv;
    else
        rz_csv_close(csv);
    return status;
}

radz_status rz_csv_parse(const rz_host *host, const char *text, size_t n, const char *what, rz_csv **csv,
                         radz_error *err)
{
    return parse(host, text, n, what, NULL, NULL, csv, err);
}

radz_status rz_csv_open(const rz_host *host, const char *path, size_t max_bytes, rz_csv **csv, radz_error *err)
{
    return rz_csv_open_rows(host, path, max_bytes, NULL, NULL, csv, err);
}

radz_status rz_csv_open_rows(const rz_host *host, const char *path, size_t max_bytes, rz_csv_bad bad, void *user,
                             rz_csv **csv, radz_error *err)
{
    rz_file file;
    radz_status status;
    *csv = NULL;
    RZ_TRY(rz_file_open(host, path, RZ_FILE_READ, max_bytes, &file, err));
    status = parse(host, (const char *)file.data, file.size, path, bad, user, csv, err);
    rz_file_close(&file);
    return status;
}

void rz_csv_close(rz_csv *csv)
{
    if (!csv) return;
    rz_free(csv->host, csv->text);
    rz_free(csv->host, csv->cells);
    rz_free(csv->host, csv->lines);
    rz_free(csv->host, csv);
}

size_t rz_csv_rows(const rz_csv *csv)
{
    return csv->n_rows - 1;
}

int rz_csv_column(const rz_csv *csv, const char *name)
{
    for (size_t i = 0; i < csv->n_columns; i++)
        if (strcmp(csv->text + csv->cells[i], name) == 0) return (int)i;
    return -1;
}

const char *rz_csv_get(const rz_csv *csv, size_t row, int column)
{
    if (column < 0 || (size_t)column >= csv->n_columns || row >= csv->n_rows - 1) return "";
    return csv->text + csv->cells[(row + 1) * csv->n_columns + (size_t)column];
}

size_t rz_csv_line(const rz_csv *csv, size_t row)
{
    return row < csv->n_rows - 1 ? csv->lines[row + 1] : 0;
}
