/* dataset.c - a manifest of films and what is said about them. SPDX-License-Identifier: Apache-2.0 */
#include "dataset.h"

#include "modeldir.h"

#include <stdlib.h>

#define MANIFEST_MAX_BYTES ((size_t)1 << 30)
#define PATH_MAX_BYTES 4095
#define ROW_MAX_LABELS 256
#define FRACTION_SEED UINT64_C(0x6672616374696f6e)

/* ---- Reading the manifest -------------------------------------------------------------- */

typedef struct reader {
    rz_dataset *ds;
    const rz_dataset_options *o;
    rz_csv *csv, *map;
    char *root; /* folder of the films */
    int c_path, c_labels, c_split, c_set, c_text, c_prompt, c_answer, c_from, c_to;
    size_t row;
    /* the row's labels after the map, in manifest order, each once */
    size_t labels[ROW_MAX_LABELS], n_labels;
} reader;

static const char *field(const reader *r, int column)
{
    return rz_csv_get(r->csv, r->row, column);
}
static size_t line_of(const reader *r)
{
    return rz_csv_line(r->csv, r->row);
}

static radz_status open_columns(reader *r, radz_error *err)
{
    r->c_path = rz_csv_column(r->csv, "path"), r->c_labels = rz_csv_column(r->csv, "labels");
    r->c_split = rz_csv_column(r->csv, "split"), r->c_set = rz_csv_column(r->csv, "set");
    r->c_text = rz_csv_column(r->csv, "text");
    r->c_prompt = r->o->answers ? rz_csv_column(r->csv, "prompt") : -1;
    r->c_answer = r->o->answers ? rz_csv_column(r->csv, "answer") : -1;
    if (r->c_prompt >= 0 && r->c_answer < 0)
        return rz_fail(err, RADZ_E_FORMAT, "%s: a column prompt, but none of answers", r->o->manifest);
    if (r->c_path < 0 || (r->c_labels < 0 && r->c_text < 0 && r->c_answer < 0))
        return rz_fail(err, RADZ_E_FORMAT, "%s: expected a header with the columns path and labels", r->o->manifest);
    if (!r->map) return RADZ_OK;
    r->c_from = rz_csv_column(r->map, "from"), r->c_to = rz_csv_column(r->map, "to");
    if (r->c_from < 0 || r->c_to < 0)
        return rz_fail(err, RADZ_E_FORMAT, "%s: expected a header with the columns from and to", r->o->label_map);
    return RADZ_OK;
}

static const char *mapped(const reader *r, const char *label)
{
    for (size_t i = 0; r->map && i < rz_csv_rows(r->map); i++)
        if (strcmp(rz_csv_get(r->map, i, r->c_from), label) == 0) return rz_csv_get(r->map, i, r->c_to);
    return label;
}

static radz_status add_label(reader *r, const char *s, size_t n, radz_error *err)
{
    while (n && *s == ' ') s++, n--;
    while (n && s[n - 1] == ' ') n--;
    if (!n) return RADZ_OK;
    char *raw = rz_strndup(r->ds->host, s, n);
    if (!raw) return RZ_NO_MEMORY(err, "label");
    const char *label = mapped(r, raw);
    size_t id = 0;
    radz_status st = *label ? rz_names_add(r->ds->host, &r->ds->labels, label, &id, err) : RADZ_OK;
    bool drop = !*label;
    rz_free(r->ds->host, raw);
    if (st || drop) return st;
    for (size_t i = 0; i < r->n_labels; i++)
        if (r->labels[i] == id) return RADZ_OK;
    if (r->n_labels == ROW_MAX_LABELS)
        return rz_fail(err, RADZ_E_LIMIT, "%s:%zu: more than %d labels", r->o->manifest, line_of(r), ROW_MAX_LABELS);
    r->labels[r->n_labels++] = id;
    return RADZ_OK;
}

static radz_status read_labels(reader *r, radz_error *err)
{
    r->n_labels = 0;
    for (const char *s = field(r, r->c_labels);;) {
        size_t n = strcspn(s, "|");
        RZ_TRY(add_label(r, s, n, err));
        if (!s[n]) return RADZ_OK;
        s += n + 1;
    }
}

static int class_of(const reader *r, size_t label)
{
    for (size_t c = 0; c < r->o->n_classes; c++)
        if (strcmp(r->o->classes[c], r->ds->labels.items[label]) == 0) return (int)c;
    return -1;
}

static radz_status read_classes(reader *r, rz_row *row, radz_error *err)
{
    rz_dataset *ds = r->ds;
    row->class_start = ds->n_class_list;
    for (size_t i = 0; i < r->n_labels; i++) {
        int c = class_of(r, r->labels[i]);
        if (c < 0) continue;
        if (ds->n_class_list == ds->cap_class_list) {
            size_t cap = ds->cap_class_list ? 2 * ds->cap_class_list : 1024;
            uint32_t *list = rz_realloc(ds->host, ds->class_list, cap, sizeof *list);
            if (!list) return RZ_NO_MEMORY(err, "labels of a manifest");
            ds->class_list = list, ds->cap_class_list = cap;
        }
        ds->class_list[ds->n_class_list++] = (uint32_t)c;
    }
    row->n_classes = ds->n_class_list - row->class_start;
    return RADZ_OK;
}

static int by_number(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

static radz_status read_label_set(reader *r, rz_row *row, radz_error *err)
{
    size_t sorted[ROW_MAX_LABELS];
    memcpy(sorted, r->labels, r->n_labels * sizeof *sorted);
    qsort(sorted, r->n_labels, sizeof *sorted, by_number);
    rz_str key = {.host = r->ds->host};
    for (size_t i = 0; i < r->n_labels; i++) rz_str_printf(&key, "%zu ", sorted[i]);
    radz_status st =
        key.failed ? RZ_NO_MEMORY(err, "labels of a manifest")
                   : rz_names_add(r->ds->host, &r->ds->label_sets, key.data ? key.data : "", &row->label_set, err);
    rz_str_free(&key);
    return st;
}

/* What the row says in words: its answer, its report. */
static const char *words_of(const reader *r)
{
    const char *answer = field(r, r->c_answer);
    return *answer ? answer : field(r, r->c_text);
}

static radz_status read_question(reader *r, rz_row *row, radz_error *err)
{
    const char *question = field(r, r->c_prompt);
    row->question = RZ_NO_SET;
    if (!*question) return RADZ_OK;
    if (!*field(r, r->c_answer))
        return rz_fail(err, RADZ_E_FORMAT, "%s:%zu: a prompt without an answer", r->o->manifest, line_of(r));
    return rz_names_add(r->ds->host, &r->ds->questions, question, &row->question, err);
}

static radz_status read_text(reader *r, rz_row *row, radz_error *err)
{
    rz_dataset *ds = r->ds;
    const char *text = words_of(r);
    if (*text) return rz_names_add(ds->host, &ds->texts, text, &row->text, err);
    const char *labels[ROW_MAX_LABELS];
    for (size_t i = 0; i < r->n_labels; i++) labels[i] = ds->labels.items[r->labels[i]];
    char *sentence = rz_prompt_label_text(ds->host, r->o->model, labels, r->n_labels);
    if (!sentence) return RZ_NO_MEMORY(err, "label sentence");
    radz_status st = rz_names_add(ds->host, &ds->texts, sentence, &row->text, err);
    rz_free(ds->host, sentence);
    return st;
}

static radz_status read_set(reader *r, rz_row *row, radz_error *err)
{
    rz_dataset *ds = r->ds;
    const char *set = field(r, r->c_set);
    row->set = row->group = RZ_NO_SET;
    if (!*set) return RADZ_OK;
    RZ_TRY(rz_names_add(ds->host, &ds->sets, set, &row->set, err));
    size_t n = strcspn(set, "0123456789");
    char *group = rz_strndup(ds->host, set, n ? n : strlen(set));
    if (!group) return RZ_NO_MEMORY(err, "set name");
    radz_status st = rz_names_add(ds->host, &ds->groups, group, &row->group, err);
    rz_free(ds->host, group);
    return st;
}

static radz_status read_path(reader *r, rz_row *row, radz_error *err)
{
    const char *path = field(r, r->c_path);
    if (!*path) return rz_fail(err, RADZ_E_FORMAT, "%s:%zu: empty path", r->o->manifest, line_of(r));
    row->path = rz_path_join(r->ds->host, r->root, path);
    if (!row->path) return RZ_NO_MEMORY(err, "path of a film");
    if (strlen(row->path) > PATH_MAX_BYTES)
        return rz_fail(err, RADZ_E_LIMIT, "%s:%zu: path longer than %d bytes", r->o->manifest, line_of(r),
                       PATH_MAX_BYTES);
    return RADZ_OK;
}

/* Which split: 0 training, 1 validation, -1 neither. */
static int split_of(const reader *r)
{
    const char *s = field(r, r->c_split);
    if (!*s || strcmp(s, "train") == 0) return 0;
    return strcmp(s, "val") == 0 || strcmp(s, "valid") == 0 || strcmp(s, "validation") == 0 ? 1 : -1;
}

/* Fills *row where the manifest's row is of this split and says something; *used tells. */
static radz_status read_row(reader *r, int split, rz_row *row, bool *used, radz_error *err)
{
    *used = false;
    if (split_of(r) != split) return RADZ_OK;
    *row = (rz_row){.line = line_of(r)};
    RZ_TRY(read_labels(r, err));
    RZ_TRY(read_classes(r, row, err));
    RZ_TRY(read_question(r, row, err));
    if (!row->n_classes && !*words_of(r)) {
        r->ds->n_left_out++;
        return RADZ_OK;
    }
    *used = true; /* from here on row->path may need freeing */
    row->has_labels = r->n_labels > 0;
    RZ_TRY(read_label_set(r, row, err));
    RZ_TRY(read_set(r, row, err));
    RZ_TRY(read_text(r, row, err));
    return read_path(r, row, err);
}

/* A malformed row ends the run, or is logged, counted and left out. */
static radz_status bad_row(reader *r, radz_status code, const char *why, radz_error *err)
{
    if (r->o->stop_on_bad_row) return rz_fail(err, code, "%s", why);
    r->ds->n_bad++;
    rz_log(r->ds->host, RADZ_LOG_WARNING, "manifest row left out: %s", why);
    return RADZ_OK;
}

static void bad_fields(void *user, size_t line, const char *why)
{
    (void)line;
    radz_error ignored;
    if (bad_row(user, RADZ_E_FORMAT, why, &ignored)) return; /* a reader that stops is not called */
}

static radz_status read_split(reader *r, int split, size_t *count, radz_error *err)
{
    rz_dataset *ds = r->ds;
    for (r->row = 0; r->row < rz_csv_rows(r->csv); r->row++) {
        bool used;
        radz_error why;
        rz_row *row = &ds->rows[ds->n_train + ds->n_val];
        radz_status st = read_row(r, split, row, &used, &why);
        if (st && used) rz_free(ds->host, row->path);
        if (st == RADZ_E_FORMAT || st == RADZ_E_LIMIT)
            RZ_TRY(bad_row(r, st, why.message, err));
        else if (st)
            return rz_fail(err, st, "%s", why.message);
        else
            *count += used;
    }
    return RADZ_OK;
}

static radz_status find_known(rz_dataset *ds, radz_error *err)
{
    ds->known = rz_calloc(ds->host, ds->groups.n ? ds->groups.n : 1, ds->n_classes ? ds->n_classes : 1);
    if (!ds->known) return RZ_NO_MEMORY(err, "classes of the sets");
    for (size_t i = 0; i < ds->n_train; i++) {
        const rz_row *row = &ds->rows[i];
        for (size_t k = 0; row->group != RZ_NO_SET && k < row->n_classes; k++)
            ds->known[row->group * ds->n_classes + ds->class_list[row->class_start + k]] = 1;
    }
    return RADZ_OK;
}

/* A training row and where chance puts it among those of its set of labels. */
typedef struct lot {
    size_t label_set, row;
    uint64_t key;
} lot;

static int by_lot(const void *a, const void *b)
{
    const lot *x = a, *y = b;
    if (x->label_set != y->label_set) return x->label_set < y->label_set ? -1 : 1;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* Marks the rows to keep: the first ones of every set of labels, so that a smaller fraction is part of a larger one. */
static void draw_lots(const rz_dataset *ds, double fraction, uint64_t seed, lot *lots, uint8_t *keep)
{
    for (size_t i = 0; i < ds->n_train; i++) {
        rz_rng rng;
        rz_rng_seed(&rng, seed ^ FRACTION_SEED, ds->rows[i].line);
        lots[i] = (lot){ds->rows[i].label_set, i, rz_rng_u64(&rng)};
    }
    qsort(lots, ds->n_train, sizeof *lots, by_lot);
    for (size_t i = 0, j; i < ds->n_train; i = j) {
        for (j = i; j < ds->n_train && lots[j].label_set == lots[i].label_set; j++) {}
        size_t n = (size_t)floor(fraction * (double)(j - i) + 0.5);
        for (size_t k = i; k < i + (n ? n : 1); k++) keep[lots[k].row] = 1;
    }
}

static radz_status thin(rz_dataset *ds, double fraction, uint64_t seed, radz_error *err)
{
    if (!(fraction > 0 && fraction < 1)) return RADZ_OK;
    lot *lots = rz_calloc(ds->host, ds->n_train, sizeof *lots);
    uint8_t *keep = rz_calloc(ds->host, ds->n_train, 1);
    if (lots && keep) {
        draw_lots(ds, fraction, seed, lots, keep);
        size_t n = 0, n_all = ds->n_train + ds->n_val, n_kept = 0;
        for (size_t i = 0; i < n_all; i++)
            if (i >= ds->n_train || keep[i]) {
                n_kept += i < ds->n_train;
                ds->rows[n++] = ds->rows[i];
            } else
                rz_free(ds->host, ds->rows[i].path);
        ds->n_thinned = ds->n_train - n_kept, ds->n_train = n_kept;
    }
    radz_status st = lots && keep ? RADZ_OK : RZ_NO_MEMORY(err, "share of the labels");
    rz_free(ds->host, lots);
    rz_free(ds->host, keep);
    return st;
}

static radz_status open_files(reader *r, radz_error *err)
{
    rz_dataset *ds = r->ds;
    const rz_dataset_options *o = r->o;
    RZ_TRY(rz_file_hash(ds->host, o->manifest, ds->manifest_hash, err));
    RZ_TRY(rz_csv_open_rows(ds->host, o->manifest, MANIFEST_MAX_BYTES, o->stop_on_bad_row ? NULL : bad_fields, r,
                            &r->csv, err));
    if (o->label_map) {
        RZ_TRY(rz_file_hash(ds->host, o->label_map, ds->map_hash, err));
        RZ_TRY(rz_csv_open(ds->host, o->label_map, MANIFEST_MAX_BYTES, &r->map, err));
    }
    const char *slash = strrchr(o->manifest, '/');
    if (o->image_root)
        r->root = rz_strdup(ds->host, o->image_root);
    else
        r->root = slash ? rz_strndup(ds->host, o->manifest, slash == o->manifest ? 1 : (size_t)(slash - o->manifest))
                        : rz_strdup(ds->host, "");
    if (!r->root) return RZ_NO_MEMORY(err, "path of the films");
    return open_columns(r, err);
}

static radz_status read_all(reader *r, radz_error *err)
{
    rz_dataset *ds = r->ds;
    RZ_TRY(open_files(r, err));
    ds->n_manifest = rz_csv_rows(r->csv) + ds->n_bad; /* bad ones: of too many fields or too few, so far */
    ds->rows = rz_calloc(ds->host, ds->n_manifest ? ds->n_manifest : 1, sizeof *ds->rows);
    if (!ds->rows) return RZ_NO_MEMORY(err, "rows of the manifest");
    RZ_TRY(read_split(r, 0, &ds->n_train, err));
    RZ_TRY(read_split(r, 1, &ds->n_val, err));
    ds->n_other_split = ds->n_manifest - ds->n_train - ds->n_val - ds->n_left_out - ds->n_bad;
    if (!ds->n_train)
        return rz_fail(err, RADZ_E_FORMAT, "%s: no training row has a label of the disease list or a text",
                       r->o->manifest);
    RZ_TRY(find_known(ds, err));
    return thin(ds, r->o->label_fraction, r->o->seed, err);
}

radz_status rz_dataset_open(const rz_host *host, const rz_dataset_options *options, rz_dataset *out, radz_error *err)
{
    memset(out, 0, sizeof *out);
    out->host = host;
    out->n_classes = options->n_classes;
    reader *r = rz_calloc(host, 1, sizeof *r);
    if (!r) return RZ_NO_MEMORY(err, "manifest");
    r->ds = out, r->o = options;
    radz_status st = read_all(r, err);
    if (r->csv) rz_csv_close(r->csv);
    if (r->map) rz_csv_close(r->map);
    rz_free(host, r->root);
    rz_free(host, r);
    if (st) rz_dataset_close(out);
    return st;
}

void rz_dataset_close(rz_dataset *ds)
{
    for (size_t i = 0; ds->rows && i < ds->n_train + ds->n_val; i++) rz_free(ds->host, ds->rows[i].path);
    rz_free(ds->host, ds->rows);
    rz_free(ds->host, ds->class_list);
    rz_free(ds->host, ds->known);
    rz_names_free(ds->host, &ds->texts);
    rz_names_free(ds->host, &ds->questions);
    rz_names_free(ds->host, &ds->sets);
    rz_names_free(ds->host, &ds->groups);
    rz_names_free(ds->host, &ds->labels);
    rz_names_free(ds->host, &ds->label_sets);
    memset(ds, 0, sizeof *ds);
}

/* ---- What a batch's losses need -------------------------------------------------------------- */

bool rz_dataset_has_class(const rz_dataset *ds, const rz_row *row, size_t class_index)
{
    for (size_t k = 0; k < row->n_classes; k++)
        if (ds->class_list[row->class_start + k] == class_index) return true;
    return false;
}

bool rz_dataset_knows(const rz_dataset *ds, const rz_row *row, size_t class_index)
{
    return row->group == RZ_NO_SET ? row->has_labels : ds->known[row->group * ds->n_classes + class_index] != 0;
}

void rz_dataset_targets(const rz_dataset *ds, const size_t *rows, size_t n, float *targets)
{
    memset(targets, 0, n * ds->n_classes * sizeof *targets);
    for (size_t i = 0; i < n; i++) {
        const rz_row *row = &ds->rows[rows[i]];
        for (size_t k = 0; k < row->n_classes; k++)
            targets[i * ds->n_classes + ds->class_list[row->class_start + k]] = 1.0f / (float)row->n_classes;
    }
}

static bool same_pair(const rz_row *a, const rz_row *b)
{
    return a->text == b->text || (a->has_labels && b->has_labels && a->label_set == b->label_set);
}

void rz_dataset_keep_pairs(const rz_dataset *ds, const size_t *rows, size_t n, float *keep)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            keep[i * n + j] = i == j || !same_pair(&ds->rows[rows[i]], &ds->rows[rows[j]]) ? 1.0f : 0.0f;
}

static bool only_reference(const rz_dataset *ds, const rz_row *row, int reference)
{
    if (reference < 0 || !rz_dataset_has_class(ds, row, (size_t)reference)) return false;
    size_t n_known = 0;
    for (size_t c = 0; c < ds->n_classes; c++) n_known += rz_dataset_knows(ds, row, c);
    return n_known <= 1;
}

void rz_dataset_keep_classes(const rz_dataset *ds, const size_t *rows, size_t n, int reference, float *keep)
{
    for (size_t i = 0; i < n; i++) {
        const rz_row *row = &ds->rows[rows[i]];
        bool all = only_reference(ds, row, reference);
        for (size_t c = 0; c < ds->n_classes; c++)
            keep[i * ds->n_classes + c] =
                all || (int)c == reference || rz_dataset_knows(ds, row, c) || rz_dataset_has_class(ds, row, c);
    }
}
