/* eval_data.c - which films are evaluated and what is known about them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "eval.h"

#include "modeldir.h"

#define MAX_CSV_BYTES ((size_t)1 << 30)

typedef struct manifest {
    const rz_host *host;
    const radz_eval_options *o;
    const rz_bank *bank;
    rz_eval_data *d;
    const char *path;
    rz_csv *csv, *map;
    char *root;
    bool second;
    int c_path, c_labels, c_set, c_split, c_patient;
    int *class_column; /* (n_classes); -1: none */
    uint8_t *known;    /* (groups, n_classes): rows of the group mention the class */
    size_t row;
} manifest;

/* ---- Names ---- */

static char fold(char c)
{
    return c == '_' ? ' ' : c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* The same label, whatever the case, '_' for ' '. */
static bool same_label(const char *a, const char *b)
{
    while (*a && fold(*a) == fold(*b)) a++, b++;
    return !*a && !*b;
}

size_t rz_eval_class(const rz_bank *bank, const char *label)
{
    for (size_t c = 0; c < bank->n; c++)
        if (same_label(bank->labels[c], label)) return c;
    return RZ_EVAL_NONE;
}

static const char *field(const manifest *m, int column)
{
    return rz_csv_get(m->csv, m->row, column);
}

/* Sets that differ only in what follows the first digit (nih512, nih64) are one group. */
static radz_status group_of(manifest *m, size_t *group, radz_error *err)
{
    const char *set = field(m, m->c_set);
    size_t n = strcspn(set, "0123456789");
    char *name = rz_strndup(m->host, set, n ? n : strlen(set));
    if (!name) return RZ_NO_MEMORY(err, "set name");
    radz_status status = rz_names_add(m->host, &m->d->groups, name, group, err);
    rz_free(m->host, name);
    return status;
}

/* A line of the map for this set goes before one for any. */
const char *rz_eval_mapped(const rz_csv *map, const char *label, const char *set)
{
    const char *any = NULL;
    if (!map) return label;
    const int from = rz_csv_column(map, "from"), to = rz_csv_column(map, "to"), c_set = rz_csv_column(map, "set");
    for (size_t i = 0; i < rz_csv_rows(map); i++) {
        if (strcmp(rz_csv_get(map, i, from), label) != 0) continue;
        const char *where = rz_csv_get(map, i, c_set);
        if (*where && strcmp(where, set) == 0) return rz_csv_get(map, i, to);
        if (!*where && !any) any = rz_csv_get(map, i, to);
    }
    return any ? any : label;
}

/* ---- Labels of a row ---- */

static radz_status count_foreign(manifest *m, const char *label, radz_error *err)
{
    rz_eval_data *d = m->d;
    size_t id;
    RZ_TRY(rz_names_add(m->host, &d->labels, label, &id, err));
    if (id >= d->cap_labels) {
        size_t cap = 2 * id + 16;
        size_t *p = rz_realloc(m->host, d->label_rows, cap, sizeof *p);
        if (!p) return RZ_NO_MEMORY(err, "labels of a manifest");
        memset(p + d->cap_labels, 0, (cap - d->cap_labels) * sizeof *p);
        d->label_rows = p, d->cap_labels = cap;
    }
    d->label_rows[id]++;
    return RADZ_OK;
}

/* truth[c] = 1 for each label of the column that is a class; others are counted where `count` says so. */
static radz_status take_label_list(manifest *m, signed char *truth, bool count, radz_error *err)
{
    for (const char *s = field(m, m->c_labels); *s;) {
        size_t n = strcspn(s, "|"), end = n, begin = 0;
        while (begin < end && s[begin] == ' ') begin++;
        while (end > begin && s[end - 1] == ' ') end--;
        char *raw = rz_strndup(m->host, s + begin, end - begin);
        if (!raw) return RZ_NO_MEMORY(err, "label");
        const char *label = *raw ? rz_eval_mapped(m->map, raw, field(m, m->c_set)) : "";
        size_t c = *label ? rz_eval_class(m->bank, label) : RZ_EVAL_NONE;
        radz_status status = RADZ_OK;
        if (c != RZ_EVAL_NONE)
            truth[c] = 1;
        else if (*label && count)
            status = count_foreign(m, label, err);
        rz_free(m->host, raw);
        RZ_TRY(status);
        s += s[n] ? n + 1 : n;
    }
    return RADZ_OK;
}

static radz_status take_cell(const manifest *m, size_t c, signed char *truth, radz_error *err)
{
    const char *text = field(m, m->class_column[c]);
    double v;
    if (!*text) return RADZ_OK;
    if (!rz_parse_double(text, strlen(text), &v) || (v != 0 && v != 1 && v != -1))
        return rz_fail(err, RADZ_E_FORMAT, "%s: line %zu: '%s': expected 1, 0, -1 or nothing", m->path,
                       rz_csv_line(m->csv, m->row), m->bank->labels[c]);
    if (v == -1)
        *truth = strcmp(m->o->uncertain, "ignore") == 0 ? -1 : strcmp(m->o->uncertain, "positive") == 0;
    else
        *truth = v == 1;
    return RADZ_OK;
}

/* ---- Columns ---- */

static int column_of(const rz_csv *csv, const char *const *names)
{
    int c = -1;
    for (; *names && c < 0; names++) c = rz_csv_column(csv, *names);
    return c;
}

static radz_status find_columns(manifest *m, radz_error *err)
{
    static const char *const path[] = {"path", "Path", "Image Index", NULL};
    static const char *const labels[] = {"labels", "Finding Labels", NULL};
    static const char *const patient[] = {"patient", "Patient ID", NULL};
    m->c_path = column_of(m->csv, path), m->c_labels = column_of(m->csv, labels);
    m->c_patient = column_of(m->csv, patient);
    m->c_set = rz_csv_column(m->csv, "set"), m->c_split = rz_csv_column(m->csv, "split");
    m->class_column = rz_calloc(m->host, m->bank->n, sizeof *m->class_column);
    if (!m->class_column) return RZ_NO_MEMORY(err, "columns of a manifest");
    bool any = m->c_labels >= 0;
    for (size_t c = 0; c < m->bank->n; c++) {
        m->class_column[c] = rz_csv_column(m->csv, m->bank->labels[c]);
        for (size_t i = 0; m->map && m->class_column[c] < 0 && i < rz_csv_rows(m->map); i++)
            if (same_label(rz_csv_get(m->map, i, rz_csv_column(m->map, "to")), m->bank->labels[c]))
                m->class_column[c] = rz_csv_column(m->csv, rz_csv_get(m->map, i, rz_csv_column(m->map, "from")));
        any = any || m->class_column[c] >= 0;
    }
    if (m->c_path < 0 || !any)
        return rz_fail(err, RADZ_E_FORMAT, "%s: expected a header with the columns path and labels, or one per class",
                       m->path);
    return RADZ_OK;
}

radz_status rz_eval_map_open(const rz_host *host, const radz_eval_options *o, rz_csv **map, radz_error *err)
{
    *map = NULL;
    if (!o->label_map) return RADZ_OK;
    RZ_TRY(rz_csv_open(host, o->label_map, MAX_CSV_BYTES, map, err));
    if (rz_csv_column(*map, "from") >= 0 && rz_csv_column(*map, "to") >= 0) return RADZ_OK;
    rz_csv_close(*map);
    *map = NULL;
    return rz_fail(err, RADZ_E_FORMAT, "%s: expected a header with the columns from and to", o->label_map);
}

static radz_status open_manifest(manifest *m, radz_error *err)
{
    char *hash = m->second ? m->d->validation_hash : m->d->manifest_hash;
    const char *slash = strrchr(m->path, '/');
    RZ_TRY(rz_file_hash(m->host, m->path, hash, err));
    RZ_TRY(rz_csv_open(m->host, m->path, MAX_CSV_BYTES, &m->csv, err));
    if (m->o->label_map) RZ_TRY(rz_file_hash(m->host, m->o->label_map, m->d->map_hash, err));
    RZ_TRY(rz_eval_map_open(m->host, m->o, &m->map, err));
    m->root = m->o->image_root ? rz_strdup(m->host, m->o->image_root)
              : slash          ? rz_strndup(m->host, m->path, slash == m->path ? 1 : (size_t)(slash - m->path))
                               : rz_strdup(m->host, "");
    if (!m->root) return RZ_NO_MEMORY(err, "path of the films");
    return find_columns(m, err);
}

static void close_manifest(manifest *m)
{
    if (m->csv) rz_csv_close(m->csv);
    if (m->map) rz_csv_close(m->map);
    rz_free(m->host, m->root);
    rz_free(m->host, m->class_column);
    rz_free(m->host, m->known);
}

/* ---- Which rows ---- */

static bool same_split(const char *a, const char *b)
{
    static const char *const val[] = {"val", "valid", "validation"};
    bool va = false, vb = false;
    for (size_t i = 0; i < RZ_COUNT(val); i++) va = va || !strcmp(a, val[i]), vb = vb || !strcmp(b, val[i]);
    return strcmp(a, b) == 0 || (va && vb);
}

static bool has_split(manifest *m, const char *split)
{
    for (m->row = 0; m->row < rz_csv_rows(m->csv); m->row++)
        if (same_split(field(m, m->c_split), split)) return true;
    return false;
}

/* Is one of `list` (commas) the set or its group? NULL: any is. */
static bool in_sets(const char *list, const char *set, const char *group)
{
    for (const char *s = list; s && *s;) {
        size_t n = strcspn(s, ",");
        if ((strlen(set) == n && !strncmp(s, set, n)) || (strlen(group) == n && !strncmp(s, group, n))) return true;
        s += s[n] ? n + 1 : n;
    }
    return !list;
}

static radz_status mark_known(manifest *m, radz_error *err)
{
    const size_t n = m->bank->n;
    signed char *truth = rz_calloc(m->host, n, 1);
    if (!truth) return RZ_NO_MEMORY(err, "labels of a manifest");
    size_t group = 0;
    radz_status status = RADZ_OK;
    for (m->row = 0; m->row < rz_csv_rows(m->csv) && !status; m->row++) status = group_of(m, &group, err);
    m->known = rz_calloc(m->host, m->d->groups.n ? m->d->groups.n : 1, n);
    if (!status && !m->known) status = RZ_NO_MEMORY(err, "labels of a manifest");
    for (m->row = 0; m->row < rz_csv_rows(m->csv) && !status; m->row++) {
        memset(truth, 0, n);
        status = group_of(m, &group, err);
        if (!status) status = take_label_list(m, truth, false, err);
        for (size_t c = 0; c < n && !status; c++) m->known[group * n + c] |= truth[c] > 0;
    }
    rz_free(m->host, truth);
    return status;
}

static radz_status room_for_row(rz_eval_data *d, radz_error *err)
{
    if (d->n < d->cap) return RADZ_OK;
    size_t cap = d->cap ? 2 * d->cap : 256, bytes;
    rz_eval_row *rows = rz_realloc(d->host, d->rows, cap, sizeof *rows);
    if (rows) d->rows = rows;
    signed char *truth =
        rows && rz_size_mul(cap, d->n_classes, &bytes) ? rz_realloc(d->host, d->truth, bytes, 1) : NULL;
    if (truth) d->truth = truth;
    if (!truth) return RZ_NO_MEMORY(err, "rows of a manifest");
    d->cap = cap;
    return RADZ_OK;
}

static radz_status take_truth(manifest *m, size_t group, signed char *truth, bool count, radz_error *err)
{
    const size_t n = m->bank->n;
    memset(truth, 0, n);
    RZ_TRY(take_label_list(m, truth, count, err));
    for (size_t c = 0; c < n; c++)
        if (!truth[c] && (m->c_labels < 0 || !*field(m, m->c_labels) || !m->known[group * n + c])) truth[c] = -1;
    for (size_t c = 0; c < n; c++)
        if (m->class_column[c] >= 0) RZ_TRY(take_cell(m, c, &truth[c], err));
    return RADZ_OK;
}

/* A patient of no name is one film. */
static radz_status take_patient(manifest *m, size_t *patient, radz_error *err)
{
    const char *name = field(m, m->c_patient);
    rz_str s = {.host = m->host};
    if (*name)
        rz_str_printf(&s, "p%s", name);
    else
        rz_str_printf(&s, "f%d:%zu", m->second, m->row);
    radz_status status =
        s.failed ? RZ_NO_MEMORY(err, "patient") : rz_names_add(m->host, &m->d->patients, s.data, patient, err);
    rz_str_free(&s);
    return status;
}

static radz_status take_row(manifest *m, bool validation, radz_error *err)
{
    rz_eval_data *d = m->d;
    size_t group;
    RZ_TRY(group_of(m, &group, err));
    if (!in_sets(m->o->sets, field(m, m->c_set), d->groups.items[group])) return RADZ_OK;
    RZ_TRY(room_for_row(d, err));
    rz_eval_row row = {.line = rz_csv_line(m->csv, m->row), .validation = validation, .second_file = m->second};
    RZ_TRY(rz_names_add(m->host, &d->sets, field(m, m->c_set), &row.set, err));
    RZ_TRY(take_patient(m, &row.patient, err));
    RZ_TRY(take_truth(m, group, d->truth + d->n * d->n_classes, !validation, err));
    const char *path = field(m, m->c_path);
    if (!(row.path = rz_path_join(m->host, m->root, path))) return RZ_NO_MEMORY(err, "path of a film");
    size_t all = strlen(row.path), n = strlen(path);
    row.shown = row.path + (n <= all ? all - n : 0);
    d->rows[d->n++] = row;
    d->n_evaluated += !validation;
    return RADZ_OK;
}

/* Rows of the evaluated split, and of the validation split where it is another one. */
static radz_status take_rows(manifest *m, radz_error *err)
{
    const char *split = m->d->split, *other = m->o->validation_split;
    for (m->row = 0; m->row < rz_csv_rows(m->csv); m->row++) {
        const char *s = field(m, m->c_split);
        if (m->second)
            RZ_TRY(take_row(m, true, err));
        else if (!split || same_split(s, split))
            RZ_TRY(take_row(m, false, err));
        else if (!m->o->validation && same_split(s, other))
            RZ_TRY(take_row(m, true, err));
    }
    return RADZ_OK;
}

static void pick_split(manifest *m)
{
    const char *asked = m->o->split;
    if (asked)
        m->d->split = strcmp(asked, "all") == 0 ? NULL : asked;
    else
        m->d->split = has_split(m, "test") ? "test" : has_split(m, "val") ? "val" : NULL;
}

static radz_status read_manifest(const rz_host *host, const radz_eval_options *o, const rz_bank *bank, const char *path,
                                 bool second, rz_eval_data *d, radz_error *err)
{
    manifest m = {.host = host, .o = o, .bank = bank, .d = d, .path = path, .second = second};
    radz_status status = open_manifest(&m, err);
    if (!status && !second) pick_split(&m);
    if (!status) status = mark_known(&m, err);
    if (!status) status = take_rows(&m, err);
    close_manifest(&m);
    return status;
}

static radz_status count_shared(rz_eval_data *d, radz_error *err)
{
    uint8_t *seen = rz_calloc(d->host, d->patients.n ? d->patients.n : 1, 1);
    if (!seen) return RZ_NO_MEMORY(err, "patients");
    for (size_t i = 0; i < d->n; i++) seen[d->rows[i].patient] |= d->rows[i].validation ? 2 : 1;
    for (size_t i = 0; i < d->patients.n; i++) d->n_shared_patients += seen[i] == 3;
    rz_free(d->host, seen);
    return RADZ_OK;
}

radz_status rz_eval_data_open(const rz_host *host, const radz_eval_options *o, const rz_bank *bank, rz_eval_data *out,
                              radz_error *err)
{
    *out = (rz_eval_data){.host = host, .n_classes = bank->n};
    radz_status status = read_manifest(host, o, bank, o->manifest, false, out, err);
    if (!status && o->validation) status = read_manifest(host, o, bank, o->validation, true, out, err);
    if (!status) status = count_shared(out, err);
    if (!status && !out->n_evaluated)
        status = rz_fail(err, RADZ_E_FORMAT, "%s: no row to evaluate: split %s, sets %s", o->manifest,
                         out->split ? out->split : "all", o->sets ? o->sets : "all");
    if (status) rz_eval_data_close(out);
    return status;
}

void rz_eval_data_close(rz_eval_data *d)
{
    for (size_t i = 0; i < d->n; i++) rz_free(d->host, d->rows[i].path);
    rz_free(d->host, d->rows);
    rz_free(d->host, d->truth);
    rz_free(d->host, d->label_rows);
    rz_names_free(d->host, &d->sets);
    rz_names_free(d->host, &d->groups);
    rz_names_free(d->host, &d->patients);
    rz_names_free(d->host, &d->labels);
    *d = (rz_eval_data){0};
}
