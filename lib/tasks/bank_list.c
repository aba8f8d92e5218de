/* bank_list.c - what classes may be called, and description files. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "bank_parts.h"

#define MAX_LIST_BYTES ((size_t)16 << 20)
#define MAX_LABEL_BYTES 512

/* ---- Labels ---- */

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

int rz_label_compare(const char *a, const char *b)
{
    while (*a && fold(*a) == fold(*b)) a++, b++;
    return (unsigned char)fold(*a) - (unsigned char)fold(*b);
}

bool rz_label_is_reference(const char *label)
{
    return rz_label_compare(label, "No Finding") == 0 || rz_label_compare(label, "Normal") == 0;
}

/* What is wrong with one label, or NULL. */
static const char *label_fault(const char *s)
{
    size_t n = strlen(s), spaces = strspn(s, " ");
    if (spaces == n) return "label is empty";
    if (n > MAX_LABEL_BYTES) return "label is longer than 512 bytes";
    if (!rz_utf8_valid(s, n)) return "label is not UTF-8";
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f) return "label holds a control character";
    return NULL;
}

typedef struct label_ref {
    const char *label;
    size_t i;
} label_ref;

static int by_label(const void *pa, const void *pb)
{
    const label_ref *a = pa, *b = pb;
    int c = rz_label_compare(a->label, b->label);
    return c ? c : a->i < b->i ? -1 : a->i > b->i;
}

/* *second: the first entry (in order) whose label an earlier entry has, or n. */
static radz_status find_repeat(const rz_host *host, const radz_bank_entry *entries, size_t n, size_t *second,
                               radz_error *err)
{
    *second = n;
    label_ref *refs = rz_malloc(host, n * sizeof *refs);
    if (!refs) return RZ_NO_MEMORY(err, "labels");
    for (size_t i = 0; i < n; i++) refs[i] = (label_ref){entries[i].label, i};
    qsort(refs, n, sizeof *refs, by_label);
    for (size_t i = 1; i < n; i++)
        if (rz_label_compare(refs[i - 1].label, refs[i].label) == 0 && refs[i].i < *second) *second = refs[i].i;
    rz_free(host, refs);
    return RADZ_OK;
}

radz_status rz_bank_check(const rz_host *host, const radz_bank_entry *entries, size_t n, const char *what,
                          radz_status code, radz_error *err)
{
    if (n < 1 || n > RZ_BANK_MAX_CLASSES)
        return rz_fail(err, n ? RADZ_E_LIMIT : code, "%s: expected 1..%u classes, got %zu", what, RZ_BANK_MAX_CLASSES,
                       n);
    for (size_t i = 0; i < n; i++) {
        const char *fault = entries[i].label ? label_fault(entries[i].label) : "label is NULL";
        if (fault) return rz_fail(err, code, "%s: entry %zu: %s", what, i + 1, fault);
        if (entries[i].description && entries[i].description[strspn(entries[i].description, " \t")] == 0)
            return rz_fail(err, code, "%s: '%s': description is empty", what, entries[i].label);
    }
    size_t second;
    RZ_TRY(find_repeat(host, entries, n, &second, err));
    if (second < n) return rz_fail(err, code, "%s: label '%s' comes twice", what, entries[second].label);
    return RADZ_OK;
}

radz_status rz_bank_check_entries(const rz_host *host, const radz_bank_entry *entries, size_t n, radz_error *err)
{
    return rz_bank_check(host, entries, n, "anchor bank", RADZ_E_ARGUMENT, err);
}

/* ---- Description files ---- */

void rz_bank_list_free(const rz_host *host, rz_bank_list *list)
{
    rz_free(host, list->entries);
    rz_free(host, list->text);
    memset(list, 0, sizeof *list);
}

/* Cuts spaces at both ends, in place. */
static char *trim(char *s)
{
    while (*s == ' ' || *s == '\t') s++;
    size_t n = strlen(s);
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r')) s[--n] = 0;
    return s;
}

/* One line, NUL-terminated in place. A comment or blank line leaves entry->label NULL. */
static radz_status parse_line(char *line, bool names, const char *what, size_t number, radz_bank_entry *entry,
                              radz_error *err)
{
    *entry = (radz_bank_entry){0};
    line = trim(line);
    if (*line == 0 || *line == '#') return RADZ_OK;
    char *colon = strchr(line, ':');
    if (!colon && !names)
        return rz_fail(err, RADZ_E_FORMAT, "%s: line %zu: expected 'label: description'", what, number);
    if (colon) *colon = 0;
    char *label = trim(line), *description = colon ? trim(colon + 1) : NULL;
    const char *fault = label_fault(label);
    if (!fault && description && !*description) fault = "description is empty";
    if (fault) return rz_fail(err, RADZ_E_FORMAT, "%s: line %zu: %s", what, number, fault);
    *entry = (radz_bank_entry){label, description};
    return RADZ_OK;
}

static radz_status parse_lines(char *text, bool names, const char *what, rz_bank_list *out, radz_error *err)
{
    size_t number = 1;
    for (char *line = text; line; number++) {
        char *end = strchr(line, '\n');
        if (end) *end = 0;
        if (out->n == RZ_BANK_MAX_CLASSES)
            return rz_fail(err, RADZ_E_LIMIT, "%s: more than %u classes", what, RZ_BANK_MAX_CLASSES);
        RZ_TRY(parse_line(line, names, what, number, &out->entries[out->n], err));
        if (out->entries[out->n].label) out->n++;
        line = end ? end + 1 : NULL;
    }
    if (out->n == 0) return rz_fail(err, RADZ_E_FORMAT, "%s: no 'label: description' line", what);
    return RADZ_OK;
}

static size_t count_lines(const char *text, size_t n)
{
    size_t lines = 1;
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    return lines;
}

static radz_status check_text(const char *text, size_t n, const char *what, radz_error *err)
{
    if (n > MAX_LIST_BYTES) return rz_fail(err, RADZ_E_LIMIT, "%s: larger than %zu bytes", what, MAX_LIST_BYTES);
    if (memchr(text, 0, n)) return rz_fail(err, RADZ_E_FORMAT, "%s: holds a NUL byte: expected UTF-8 text", what);
    for (size_t i = 0; i < n;) {
        uint32_t code;
        size_t len = rz_utf8_next(text + i, n - i, &code);
        if (!len) return rz_fail(err, RADZ_E_FORMAT, "%s: line %zu: not UTF-8", what, count_lines(text, i));
        i += len;
    }
    return RADZ_OK;
}

static radz_status parse_list(const rz_host *host, const char *text, size_t n, bool names, const char *what,
                              rz_bank_list *out, radz_error *err)
{
    RZ_TRY(check_text(text, n, what, err));
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3, n -= 3;
    size_t lines = count_lines(text, n);
    out->text = rz_strndup(host, text, n);
    out->entries = rz_calloc(host, lines < RZ_BANK_MAX_CLASSES ? lines : RZ_BANK_MAX_CLASSES, sizeof *out->entries);
    if (!out->text || !out->entries) return RZ_NO_MEMORY(err, "descriptions");
    RZ_TRY(parse_lines(out->text, names, what, out, err));
    size_t second;
    RZ_TRY(find_repeat(host, out->entries, out->n, &second, err));
    if (second == out->n) return RADZ_OK;
    const char *label = out->entries[second].label;
    return rz_fail(err, RADZ_E_FORMAT, "%s: line %zu: label '%s' comes twice", what,
                   count_lines(text, (size_t)(label - out->text)), label);
}

static radz_status list_parse(const rz_host *host, const char *text, size_t n, bool names, const char *what,
                              rz_bank_list *out, radz_error *err)
{
    memset(out, 0, sizeof *out);
    radz_status status = parse_list(host, text, n, names, what, out, err);
    if (status != RADZ_OK) rz_bank_list_free(host, out);
    return status;
}

radz_status rz_bank_list_parse(const rz_host *host, const char *text, size_t n, const char *what, rz_bank_list *out,
                               radz_error *err)
{
    return list_parse(host, text, n, false, what, out, err);
}

static radz_status list_open(const rz_host *host, const char *path, bool names, rz_bank_list *out, radz_error *err)
{
    rz_file file;
    memset(out, 0, sizeof *out);
    RZ_TRY(rz_file_open(host, path, RZ_FILE_READ, MAX_LIST_BYTES, &file, err));
    radz_status status = list_parse(host, (const char *)file.data, file.size, names, path, out, err);
    rz_file_close(&file);
    return status;
}

radz_status rz_bank_list_open(const rz_host *host, const char *path, rz_bank_list *out, radz_error *err)
{
    return list_open(host, path, false, out, err);
}

radz_status rz_bank_names_open(const rz_host *host, const char *path, rz_bank_list *out, radz_error *err)
{
    return list_open(host, path, true, out, err);
}
