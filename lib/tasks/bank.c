/* The anchor bank: description files, building, saving, loading.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "bank.h"
#include "embed.h"

#define SCHEMA "radz.bank/1"
#define SCHEMA_FAMILY "radz.bank/"
#define MAX_LIST_BYTES ((size_t)16 << 20)
#define MAX_BANK_BYTES ((size_t)1 << 30)
#define MAX_LABEL_BYTES 512
#define HASH_DIGITS 64
static const char zero_hash[] = "0000000000000000000000000000000000000000000000000000000000000000";

/* ---- Labels ---- */

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* strcmp that does not tell a from A; locale-free. */
static int compare_folded(const char *a, const char *b)
{
    while (*a && fold(*a) == fold(*b)) a++, b++;
    return (unsigned char)fold(*a) - (unsigned char)fold(*b);
}

bool rz_label_is_reference(const char *label)
{
    return compare_folded(label, "No Finding") == 0 || compare_folded(label, "Normal") == 0;
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
    int c = compare_folded(a->label, b->label);
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
        if (compare_folded(refs[i - 1].label, refs[i].label) == 0 && refs[i].i < *second) *second = refs[i].i;
    rz_free(host, refs);
    return RADZ_OK;
}

static radz_status check_entries(const rz_host *host, const radz_bank_entry *entries, size_t n, const char *what,
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
    return check_entries(host, entries, n, "anchor bank", RADZ_E_ARGUMENT, err);
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

/* ---- The file ---- */

/* A JSON array of strings. */
static void put_strings(rz_str *s, char *const *strings, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        rz_str_puts(s, i ? "," : "[");
        rz_str_put_json(s, strings[i], strlen(strings[i]));
    }
    rz_str_puts(s, "]");
}

static void put_flags(rz_str *s, const bool *flags, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        rz_str_puts(s, i ? "," : "[");
        rz_str_puts(s, flags[i] ? "true" : "false");
    }
    rz_str_puts(s, "]");
}

static bool any_written(const rz_bank *b)
{
    bool any = false;
    for (size_t i = 0; i < b->n; i++) any |= b->written[i];
    return any && b->writer;
}

static void hash_of(const char *bytes, size_t n, char out[65])
{
    rz_sha256 h;
    rz_sha256_init(&h);
    rz_sha256_put(&h, bytes, n);
    rz_sha256_hex(&h, out);
}

static size_t skip_spaces(const char *s, size_t n, size_t i)
{
    while (i < n && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r')) i++;
    return i;
}

/* Where the 64 digits of the metadata entry "sha256" lie; n: nowhere. A quote inside a JSON string is escaped, so the
 * key can not be found inside a label. */
static size_t find_hash(const char *s, size_t n)
{
    static const char key[] = "\"sha256\"";
    for (const char *p = s; (p = memmem(p, n - (size_t)(p - s), key, sizeof key - 1)); p++) {
        size_t i = skip_spaces(s, n, (size_t)(p - s) + sizeof key - 1);
        if (i == n || s[i] != ':') continue;
        i = skip_spaces(s, n, i + 1);
        if (n - i < HASH_DIGITS + 2 || s[i] != '"' || s[i + 1 + HASH_DIGITS] != '"') continue;
        return i + 1;
    }
    return n;
}

/* The file's bytes into s, its check sum filled in. */
static radz_status encode_bank(const rz_bank *b, rz_str *s, radz_error *err)
{
    rz_str labels = {.host = b->host}, descriptions = {.host = b->host}, layer = {.host = b->host};
    rz_str written = {.host = b->host};
    put_strings(&labels, b->labels, b->n);
    put_strings(&descriptions, b->descriptions, b->n);
    rz_str_printf(&layer, "%d", b->layer);
    put_flags(&written, b->written, b->n);
    const char *metadata[] = {"schema", SCHEMA,     "library", radz_version(), "model",        b->model_hash,
                              "layer",  layer.data, "labels",  labels.data,    "descriptions", descriptions.data,
                              "sha256", zero_hash,  NULL,      NULL,           NULL,           NULL,
                              NULL};
    if (any_written(b)) { /* nothing changes for other banks, nor does their hash */
        const char *const more[] = {"writer", b->writer, "written", written.data, "sha256", zero_hash};
        memcpy(metadata + 12, more, sizeof more);
    }
    rz_st_out t = {.name = "anchors", .dtype = "F32", .n_dims = 2, .dims = {b->n, b->dim}, .data = b->anchors};
    radz_status status;
    if (labels.failed || descriptions.failed || layer.failed || written.failed)
        status = RZ_NO_MEMORY(err, "anchor bank");
    else
        status = rz_st_encode(s, &t, 1, metadata, err);
    rz_str_free(&labels);
    rz_str_free(&descriptions);
    rz_str_free(&layer);
    rz_str_free(&written);
    if (status != RADZ_OK) return status;
    if (s->failed) return RZ_NO_MEMORY(err, "anchor bank");
    size_t at = find_hash(s->data, s->len);
    if (at == s->len) return rz_fail(err, RADZ_E_INTERNAL, "anchor bank: no place for the check sum");
    char digits[65];
    hash_of(s->data, s->len, digits);
    memcpy(s->data + at, digits, HASH_DIGITS);
    return RADZ_OK;
}

/* Any change of any bit makes this fail, so nothing after it sees a damaged file. */
static radz_status check_sum(const char *bytes, size_t n, const char *path, radz_error *err)
{
    size_t at = find_hash(bytes, n);
    if (at == n) return rz_fail(err, RADZ_E_FORMAT, "%s: not an anchor bank: no sha256 entry in its header", path);
    rz_sha256 h;
    char digits[65];
    rz_sha256_init(&h);
    rz_sha256_put(&h, bytes, at);
    rz_sha256_put(&h, zero_hash, HASH_DIGITS);
    rz_sha256_put(&h, bytes + at + HASH_DIGITS, n - at - HASH_DIGITS);
    rz_sha256_hex(&h, digits);
    if (memcmp(digits, bytes + at, HASH_DIGITS) != 0)
        return rz_fail(err, RADZ_E_FORMAT, "%s: damaged: its check sum does not match its contents", path);
    return RADZ_OK;
}

radz_status rz_bank_require_model(const rz_bank *bank, const rz_model *m, radz_error *err)
{
    if (strcmp(bank->model_hash, m->hash) == 0) return RADZ_OK;
    return rz_fail(err, RADZ_E_MISMATCH, "the bank was made by another model: hash %.12s, this model has %.12s",
                   bank->model_hash, m->hash);
}

radz_status rz_bank_save(const rz_bank *bank, const char *path, radz_error *err)
{
    if (!bank->model_hash[0])
        return rz_fail(err, RADZ_E_STATE, "%s: the model has not been saved yet, so no bank can belong to it", path);
    rz_str s = {.host = bank->host};
    radz_status status = encode_bank(bank, &s, err);
    if (status == RADZ_OK) status = rz_write_file(bank->host, path, s.data, s.len, err);
    rz_str_free(&s);
    return status;
}

/* ---- Building ---- */

void rz_bank_free(rz_bank *b)
{
    if (!b) return;
    for (size_t i = 0; i < b->n; i++) {
        if (b->labels) rz_free(b->host, b->labels[i]);
        if (b->descriptions) rz_free(b->host, b->descriptions[i]);
    }
    rz_free(b->host, b->labels);
    rz_free(b->host, b->descriptions);
    rz_free(b->host, b->anchors);
    rz_free(b->host, b->written);
    rz_free(b->host, b->writer);
    rz_free(b->host, b);
}

/* Room for n classes; model, layer and size of vectors are those of `like`. */
static radz_status new_bank_like(const rz_bank *like, size_t n, rz_bank **out, radz_error *err)
{
    rz_bank *b = rz_calloc(like->host, 1, sizeof *b);
    if (!b) return RZ_NO_MEMORY(err, "anchor bank");
    b->host = like->host;
    b->n = b->reference = n;
    b->dim = like->dim;
    b->layer = like->layer;
    memcpy(b->model_hash, like->model_hash, sizeof b->model_hash);
    b->labels = rz_calloc(b->host, n, sizeof *b->labels);
    b->descriptions = rz_calloc(b->host, n, sizeof *b->descriptions);
    b->anchors = rz_calloc(b->host, n, b->dim * sizeof *b->anchors);
    b->written = rz_calloc(b->host, n, sizeof *b->written);
    b->writer = like->writer ? rz_strdup(b->host, like->writer) : NULL;
    if (b->labels && b->descriptions && b->anchors && b->written && (b->writer || !like->writer)) {
        *out = b;
        return RADZ_OK;
    }
    rz_bank_free(b);
    return RZ_NO_MEMORY(err, "anchor bank");
}

static radz_status new_bank(const rz_model *m, size_t n, rz_bank **out, radz_error *err)
{
    rz_bank like = {.host = m->cfg.host, .dim = m->cfg.radz.dim, .layer = m->cfg.radz.layer};
    memcpy(like.model_hash, m->hash, sizeof like.model_hash);
    return new_bank_like(&like, n, out, err);
}

static radz_status set_class(rz_bank *b, size_t i, const char *label, char *description, radz_error *err)
{
    b->labels[i] = rz_strdup(b->host, label);
    b->descriptions[i] = description;
    if (!b->labels[i] || !description) return RZ_NO_MEMORY(err, "class of an anchor bank");
    if (b->reference == b->n && rz_label_is_reference(label)) b->reference = i;
    return RADZ_OK;
}

/* The bank's own hash, once every class is set. */
static radz_status seal(rz_bank *b, radz_error *err)
{
    rz_str s = {.host = b->host};
    radz_status status = encode_bank(b, &s, err);
    if (status == RADZ_OK) hash_of(s.data, s.len, b->hash);
    rz_str_free(&s);
    return status;
}

/* Classes first.. of the bank from entries: texts, then their anchors. RZ_ITEM_TEXT: of the labels' plain sentences. */
static radz_status fill_bank(rz_bank *b, size_t first, const rz_net *net, const radz_bank_entry *entries,
                             rz_item_kind kind, radz_error *err)
{
    const size_t n = b->n - first;
    const rz_pick own = rz_embed_own(&net->model->cfg);
    for (size_t i = 0; i < n; i++) {
        const char *label = entries[i].label, *given = kind == RZ_ITEM_TEXT ? NULL : entries[i].description;
        char *description = given ? rz_strdup(b->host, given) : rz_prompt_label_text(b->host, net->model, &label, 1);
        RZ_TRY(set_class(b, first + i, label, description, err));
    }
    RZ_TRY(rz_embed_texts(net, kind, (const char *const *)b->descriptions + first, n, &own, b->anchors + first * b->dim,
                          err));
    return seal(b, err);
}

static radz_status bank_done(rz_bank *b, radz_status status, rz_bank **out)
{
    if (status == RADZ_OK)
        *out = b;
    else
        rz_bank_free(b);
    return status;
}

static radz_status build(const rz_net *net, const radz_bank_entry *entries, size_t n, rz_item_kind kind, rz_bank **bank,
                         radz_error *err)
{
    *bank = NULL;
    RZ_TRY(rz_model_require_texts(net->model, err));
    RZ_TRY(check_entries(net->model->cfg.host, entries, n, "anchor bank", RADZ_E_ARGUMENT, err));
    rz_bank *b = NULL;
    RZ_TRY(new_bank(net->model, n, &b, err));
    return bank_done(b, fill_bank(b, 0, net, entries, kind, err), bank);
}

radz_status rz_bank_build(const rz_net *net, const radz_bank_entry *entries, size_t n, rz_bank **bank, radz_error *err)
{
    return build(net, entries, n, RZ_ITEM_DISEASE, bank, err);
}

radz_status rz_bank_build_common(const rz_net *net, rz_bank **bank, radz_error *err)
{
    static const radz_bank_entry common[] = {
        {"No Finding", NULL},   {"Atelectasis", NULL}, {"Cardiomegaly", NULL}, {"Consolidation", NULL},
        {"Edema", NULL},        {"Effusion", NULL},    {"Emphysema", NULL},    {"Fibrosis", NULL},
        {"Infiltration", NULL}, {"Mass", NULL},        {"Nodule", NULL},       {"Pleural Thickening", NULL},
        {"Pneumonia", NULL},    {"Pneumothorax", NULL}};
    return rz_bank_build(net, common, RZ_COUNT(common), bank, err);
}

/* ---- Another bank from this one ---- */

static radz_status copy_class(rz_bank *to, size_t k, const rz_bank *from, size_t i, radz_error *err)
{
    to->written[k] = from->written[i];
    memcpy(to->anchors + k * to->dim, from->anchors + i * from->dim, to->dim * sizeof *to->anchors);
    return set_class(to, k, from->labels[i], rz_strdup(to->host, from->descriptions[i]), err);
}

/* Labels of the old and the new classes together must be good. */
static radz_status check_with(const rz_bank *bank, const radz_bank_entry *entries, size_t n, radz_error *err)
{
    if (n > RZ_BANK_MAX_CLASSES - bank->n)
        return rz_fail(err, RADZ_E_LIMIT, "anchor bank: at most %u classes, got %zu and %zu more", RZ_BANK_MAX_CLASSES,
                       bank->n, n);
    radz_bank_entry *all = rz_malloc(bank->host, (bank->n + n) * sizeof *all);
    if (!all) return RZ_NO_MEMORY(err, "classes of an anchor bank");
    for (size_t i = 0; i < bank->n; i++) all[i] = (radz_bank_entry){bank->labels[i], bank->descriptions[i]};
    memcpy(all + bank->n, entries, n * sizeof *entries);
    radz_status status = check_entries(bank->host, all, bank->n + n, "anchor bank", RADZ_E_ARGUMENT, err);
    rz_free(bank->host, all);
    return status;
}

static radz_status fill_with(rz_bank *b, const rz_net *net, const rz_bank *bank, const radz_bank_entry *entries,
                             radz_error *err)
{
    for (size_t i = 0; i < bank->n; i++) RZ_TRY(copy_class(b, i, bank, i, err));
    return fill_bank(b, bank->n, net, entries, RZ_ITEM_DISEASE, err);
}

radz_status rz_bank_with(const rz_net *net, const rz_bank *bank, const radz_bank_entry *entries, size_t n,
                         rz_bank **out, radz_error *err)
{
    *out = NULL;
    RZ_TRY(rz_bank_require_model(bank, net->model, err));
    RZ_TRY(rz_model_require_texts(net->model, err));
    if (!n) return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: no class to add");
    RZ_TRY(check_with(bank, entries, n, err));
    rz_bank *b = NULL;
    RZ_TRY(new_bank_like(bank, bank->n + n, &b, err));
    return bank_done(b, fill_with(b, net, bank, entries, err), out);
}

static size_t find_label(const rz_bank *bank, const char *label)
{
    size_t i = 0;
    while (i < bank->n && compare_folded(bank->labels[i], label) != 0) i++;
    return i;
}

radz_status rz_bank_find(const rz_bank *bank, const char *label, size_t *class_index, radz_error *err)
{
    *class_index = find_label(bank, label);
    if (*class_index < bank->n) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: there is no class '%s'", label);
}

static radz_status fill_without(rz_bank *b, const rz_bank *bank, const bool *gone, radz_error *err)
{
    for (size_t i = 0, k = 0; i < bank->n; i++)
        if (!gone[i]) RZ_TRY(copy_class(b, k++, bank, i, err));
    return seal(b, err);
}

static radz_status without(const rz_bank *bank, const char *const *labels, size_t n, bool *gone, rz_bank **out,
                           radz_error *err)
{
    size_t left = bank->n;
    for (size_t k = 0; k < n; k++) {
        size_t i = labels[k] ? find_label(bank, labels[k]) : bank->n;
        if (i == bank->n)
            return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: no class '%s'", labels[k] ? labels[k] : "(NULL)");
        left -= !gone[i];
        gone[i] = true;
    }
    if (!left) return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: no class would be left");
    rz_bank *b = NULL;
    RZ_TRY(new_bank_like(bank, left, &b, err));
    return bank_done(b, fill_without(b, bank, gone, err), out);
}

radz_status rz_bank_without(const rz_bank *bank, const char *const *labels, size_t n, rz_bank **out, radz_error *err)
{
    *out = NULL;
    bool *gone = rz_calloc(bank->host, bank->n, sizeof *gone);
    if (!gone) return RZ_NO_MEMORY(err, "classes of an anchor bank");
    radz_status status = without(bank, labels, n, gone, out, err);
    rz_free(bank->host, gone);
    return status;
}

static radz_status fill_edited(rz_bank *b, const rz_net *net, const rz_bank *bank, size_t at, const char *description,
                               radz_error *err)
{
    const rz_pick own = rz_embed_own(&net->model->cfg);
    for (size_t i = 0; i < bank->n; i++)
        if (i != at) RZ_TRY(copy_class(b, i, bank, i, err));
    RZ_TRY(set_class(b, at, bank->labels[at], rz_strdup(b->host, description), err));
    RZ_TRY(rz_embed_texts(net, RZ_ITEM_DISEASE, &description, 1, &own, b->anchors + at * b->dim, err));
    return seal(b, err);
}

radz_status rz_bank_edit(const rz_net *net, const rz_bank *bank, const char *label, const char *description,
                         rz_bank **out, radz_error *err)
{
    const size_t at = find_label(bank, label);
    const radz_bank_entry entry = {label, description};
    *out = NULL;
    RZ_TRY(rz_bank_require_model(bank, net->model, err));
    if (at == bank->n) return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: no class '%s'", label);
    RZ_TRY(check_entries(bank->host, &entry, 1, "anchor bank", RADZ_E_ARGUMENT, err));
    rz_bank *b = NULL;
    RZ_TRY(new_bank_like(bank, bank->n, &b, err));
    return bank_done(b, fill_edited(b, net, bank, at, description, err), out);
}

radz_status rz_bank_set_writer(rz_bank *b, const char *writer, const bool *written, radz_error *err)
{
    char *copy = rz_strdup(b->host, writer);
    if (!copy) return RZ_NO_MEMORY(err, "anchor bank");
    rz_free(b->host, b->writer);
    b->writer = copy;
    memcpy(b->written, written, b->n * sizeof *written);
    return seal(b, err);
}

/* ---- A bank in the model's own directory ---- */

static radz_status save_own(const rz_net *net, const rz_host *host, const char *dir, const radz_bank_entry *entries,
                            size_t n, rz_item_kind kind, radz_error *err)
{
    rz_bank *bank = NULL;
    RZ_TRY(build(net, entries, n, kind, &bank, err));
    char *path = rz_path_join(host, dir, RZ_BANK_FILE);
    radz_status status = path ? rz_bank_save(bank, path, err) : RZ_NO_MEMORY(err, "path of an anchor bank");
    rz_free(host, path);
    rz_bank_free(bank);
    return status;
}

static radz_status write_own(const rz_host *host, rz_device *dev, const char *dir, const radz_bank_entry *entries,
                             size_t n, rz_item_kind kind, radz_error *err)
{
    rz_model *model = NULL;
    RZ_TRY(rz_model_load(host, dev, dir, RZ_MODEL_INFER, 0, &model, err));
    rz_net net = {.model = model};
    radz_status status = rz_stream_open(dev, &net.s, err);
    if (status == RADZ_OK) {
        status = save_own(&net, host, dir, entries, n, kind, err);
        rz_stream_close(net.s);
    }
    rz_model_unload(model);
    return status;
}

radz_status rz_bank_write_own(const rz_host *host, rz_device *dev, const char *dir, const radz_bank_entry *entries,
                              size_t n, radz_error *err)
{
    return write_own(host, dev, dir, entries, n, RZ_ITEM_DISEASE, err);
}

radz_status rz_bank_write_sentences(const rz_host *host, rz_device *dev, const char *dir,
                                    const radz_bank_entry *entries, size_t n, radz_error *err)
{
    return write_own(host, dev, dir, entries, n, RZ_ITEM_TEXT, err);
}

/* ---- Loading ---- */

static radz_status check_schema(const rz_st *st, const char *path, radz_error *err)
{
    const char *schema = rz_st_metadata(st, "schema");
    if (schema && strcmp(schema, SCHEMA) == 0) return RADZ_OK;
    if (schema && strncmp(schema, SCHEMA_FAMILY, sizeof SCHEMA_FAMILY - 1) == 0)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: schema %s: this libradz (%s) reads %s only", path, schema,
                       radz_version(), SCHEMA);
    return rz_fail(err, RADZ_E_FORMAT, "%s: not an anchor bank: expected schema %s", path, SCHEMA);
}

static radz_status check_model(const rz_st *st, const rz_model *m, const char *path, radz_error *err)
{
    const char *made_by = rz_st_metadata(st, "model");
    if (!made_by) return rz_fail(err, RADZ_E_FORMAT, "%s: does not say which model made it", path);
    if (strcmp(made_by, m->hash) == 0) return RADZ_OK;
    const rz_st_tensor *t = rz_st_find(st, "anchors");
    if (t && t->n_dims == 2 && t->dims[1] != m->cfg.radz.dim)
        return rz_fail(err, RADZ_E_MISMATCH,
                       "%s: made by another model: anchors of %llu numbers, this model has %zu (hash %.12s, not %.12s)",
                       path, (unsigned long long)t->dims[1], m->cfg.radz.dim, made_by, m->hash);
    return rz_fail(err, RADZ_E_MISMATCH,
                   "%s: made by another model: hash %.12s, this model has %.12s: build the bank again", path, made_by,
                   m->hash);
}

static radz_status check_anchors(const rz_bank *b, const char *path, radz_error *err)
{
    for (size_t i = 0; i < b->n; i++) {
        double sum = 0;
        for (size_t j = 0; j < b->dim; j++) sum += (double)b->anchors[i * b->dim + j] * b->anchors[i * b->dim + j];
        if (!(fabs(sum - 1) < 1e-3))
            return rz_fail(err, RADZ_E_FORMAT, "%s: anchor '%s': expected a finite vector of length 1", path,
                           b->labels[i]);
    }
    return RADZ_OK;
}

/* Metadata `key`: a JSON array of n strings. */
static radz_status load_strings(const rz_st *st, const char *path, const char *key, size_t n, json_t **out,
                                radz_error *err)
{
    const char *text = rz_st_metadata(st, key);
    if (!text) return rz_fail(err, RADZ_E_FORMAT, "%s: no %s in its header", path, key);
    RZ_TRY(rz_json_parse(text, strlen(text), path, out, err));
    bool good = json_is_array(*out) && json_array_size(*out) == n;
    for (size_t i = 0; good && i < n; i++) good = json_is_string(json_array_get(*out, i));
    if (good) return RADZ_OK;
    json_decref(*out);
    *out = NULL;
    return rz_fail(err, RADZ_E_FORMAT, "%s: %s: expected %zu strings", path, key, n);
}

static radz_status load_classes(rz_bank *b, json_t *labels, json_t *descriptions, const char *path, radz_error *err)
{
    radz_bank_entry *entries = rz_calloc(b->host, b->n, sizeof *entries);
    if (!entries) return RZ_NO_MEMORY(err, "classes of an anchor bank");
    radz_status status = RADZ_OK;
    for (size_t i = 0; i < b->n && status == RADZ_OK; i++) {
        entries[i].label = json_string_value(json_array_get(labels, i));
        entries[i].description = json_string_value(json_array_get(descriptions, i));
        status = set_class(b, i, entries[i].label, rz_strdup(b->host, entries[i].description), err);
    }
    if (status == RADZ_OK) status = check_entries(b->host, entries, b->n, path, RADZ_E_FORMAT, err);
    rz_free(b->host, entries);
    return status;
}

static radz_status check_writer(const rz_bank *b, const json_t *writer, const json_t *flags, const char *path,
                                radz_error *err)
{
    bool good = json_is_object(writer) && json_is_array(flags) && json_array_size(flags) == b->n;
    for (size_t i = 0; good && i < b->n; i++) good = json_is_boolean(json_array_get(flags, i));
    return good ? RADZ_OK
                : rz_fail(err, RADZ_E_FORMAT, "%s: writer, written: expected an object, %zu flags", path, b->n);
}

/* What the model wrote itself, where it did. */
static radz_status load_writer(rz_bank *b, const rz_st *st, const char *path, radz_error *err)
{
    const char *text = rz_st_metadata(st, "writer"), *which = rz_st_metadata(st, "written");
    json_t *writer = NULL, *flags = NULL;
    if (!text && !which) return RADZ_OK;
    if (!text || !which) return rz_fail(err, RADZ_E_FORMAT, "%s: writer and written go together", path);
    radz_status status = rz_json_parse(text, strlen(text), path, &writer, err);
    if (!status) status = rz_json_parse(which, strlen(which), path, &flags, err);
    if (!status) status = check_writer(b, writer, flags, path, err);
    for (size_t i = 0; !status && i < b->n; i++) b->written[i] = json_is_true(json_array_get(flags, i));
    if (!status && !(b->writer = rz_strdup(b->host, text))) status = RZ_NO_MEMORY(err, "anchor bank");
    json_decref(writer);
    json_decref(flags);
    return status;
}

static radz_status load_bank(rz_bank *b, const rz_st *st, const rz_st_tensor *t, const char *path, radz_error *err)
{
    json_t *labels = NULL, *descriptions = NULL;
    radz_status status = load_strings(st, path, "labels", b->n, &labels, err);
    if (status == RADZ_OK) status = load_strings(st, path, "descriptions", b->n, &descriptions, err);
    if (status == RADZ_OK) status = load_classes(b, labels, descriptions, path, err);
    json_decref(labels);
    json_decref(descriptions);
    RZ_TRY(status);
    RZ_TRY(load_writer(b, st, path, err));
    RZ_TRY(rz_st_to_f32(t, b->anchors, err));
    return check_anchors(b, path, err);
}

static radz_status parse_bank(const rz_model *m, const rz_st *st, const char *path, rz_bank **bank, radz_error *err)
{
    RZ_TRY(check_schema(st, path, err));
    RZ_TRY(check_model(st, m, path, err));
    const rz_st_tensor *t = rz_st_find(st, "anchors");
    if (!t || rz_st_count(st) != 1 || strcmp(t->dtype, "F32") != 0 || t->n_dims != 2 || t->dims[1] != m->cfg.radz.dim ||
        t->dims[0] < 1 || t->dims[0] > RZ_BANK_MAX_CLASSES)
        return rz_fail(err, RADZ_E_FORMAT, "%s: expected one tensor 'anchors', F32, 1..%u x %zu", path,
                       RZ_BANK_MAX_CLASSES, m->cfg.radz.dim);
    rz_bank *b = NULL;
    RZ_TRY(new_bank(m, (size_t)t->dims[0], &b, err));
    return bank_done(b, load_bank(b, st, t, path, err), bank);
}

static radz_status open_bank(const rz_model *m, const rz_file *file, const char *path, rz_bank **bank, radz_error *err)
{
    RZ_TRY(check_sum((const char *)file->data, file->size, path, err));
    rz_st *st = NULL;
    RZ_TRY(rz_st_parse(m->cfg.host, file->data, file->size, path, &st, err));
    radz_status status = parse_bank(m, st, path, bank, err);
    rz_st_close(st);
    if (status == RADZ_OK) hash_of((const char *)file->data, file->size, (*bank)->hash);
    return status;
}

radz_status rz_bank_open(const rz_model *model, const char *path, rz_bank **bank, radz_error *err)
{
    rz_file file;
    *bank = NULL;
    RZ_TRY(rz_file_open(model->cfg.host, path, RZ_FILE_READ, MAX_BANK_BYTES, &file, err));
    radz_status status = open_bank(model, &file, path, bank, err);
    rz_file_close(&file);
    return status;
}
