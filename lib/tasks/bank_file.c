/* bank_file.c - the file of an anchor bank, its check sum, and which model it belongs to.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bank_parts.h"

#define SCHEMA "radz.bank/1"
#define SCHEMA_FAMILY "radz.bank/"
#define MAX_BANK_BYTES ((size_t)1 << 30)
#define HASH_DIGITS 64
static const char zero_hash[] = "0000000000000000000000000000000000000000000000000000000000000000";

/* ---- Writing ---- */

/* A JSON array of strings. */
static void put_strings(rz_str *s, char *const *strings, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        rz_str_put_text(s, i ? "," : "[", strings[i]);
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

static const char *pool_name(bool mlp_then_mean)
{
    return mlp_then_mean ? "mlp_then_mean" : "mean_then_mlp";
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

enum { MAX_METADATA = 28 }; /* keys and values */

static radz_status encode_bank(const rz_bank *b, rz_str *s, radz_error *err)
{
    rz_str labels = {.host = b->host}, descriptions = {.host = b->host}, layer = {.host = b->host};
    rz_str written = {.host = b->host};
    put_strings(&labels, b->labels, b->n);
    put_strings(&descriptions, b->descriptions, b->n);
    rz_str_printf(&layer, "%d", b->layer);
    put_flags(&written, b->written, b->n);
    const char *metadata[] = {"schema",
                              SCHEMA,
                              "library",
                              radz_version(),
                              "model",
                              b->model_hash,
                              "layer",
                              layer.data,
                              "pool",
                              pool_name(b->mlp_then_mean),
                              "tokenizer",
                              b->tokenizer_hash,
                              "labels",
                              labels.data,
                              "descriptions",
                              descriptions.data,
                              [MAX_METADATA] = NULL};
    size_t n = 16; /* what a bank lacks changes nothing in its file, nor its hash */
    if (any_written(b)) {
        metadata[n++] = "writer", metadata[n++] = b->writer;
        metadata[n++] = "written", metadata[n++] = written.data;
    }
    if (b->calibration) metadata[n++] = "calibration", metadata[n++] = b->calibration->text;
    if (strcmp(b->family, b->model_hash) != 0) metadata[n++] = "family", metadata[n++] = b->family;
    metadata[n++] = "sha256", metadata[n++] = zero_hash;
    const rz_st_out t[2] = {
        {.name = "anchors", .dtype = "F32", .n_dims = 2, .dims = {b->n, b->dim}, .data = b->anchors},
        {.name = "texts", .dtype = "F32", .n_dims = 2, .dims = {b->n, b->dim}, .data = b->texts}};
    radz_status status;
    if (labels.failed || descriptions.failed || layer.failed || written.failed)
        status = RZ_NO_MEMORY(err, "anchor bank");
    else
        status = rz_st_encode(s, t, b->fused ? 2 : 1, metadata, err);
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

/* The bank's own hash, once every class is set. */
radz_status rz_bank_seal(rz_bank *b, radz_error *err)
{
    rz_str s = {.host = b->host};
    radz_status status = encode_bank(b, &s, err);
    if (status == RADZ_OK) hash_of(s.data, s.len, b->hash);
    if (!b->calibration) memcpy(b->base_hash, b->hash, sizeof b->base_hash);
    rz_str_free(&s);
    return status;
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

/* ---- Whose it is ---- */

enum { N_TRAITS = 4, TRAIT_BYTES = 72 };

/* Who made a bank, and what a reader wants to hear when it was another model. */
typedef struct origin {
    const char *model_hash, *family;
    char traits[N_TRAITS][TRAIT_BYTES]; /* "": not known */
} origin;

static void fill_origin(origin *o, const char *model_hash, size_t dim, int layer, const char *pool,
                        const char *tokenizer)
{
    o->model_hash = model_hash;
    snprintf(o->traits[0], TRAIT_BYTES, "%zu", dim);
    snprintf(o->traits[1], TRAIT_BYTES, "%d", layer);
    snprintf(o->traits[2], TRAIT_BYTES, "%s", pool);
    snprintf(o->traits[3], TRAIT_BYTES, "%.12s", tokenizer);
}

static radz_status require_origin(const origin *theirs, const rz_model *m, const char *what, radz_error *err)
{
    static const char *const names[N_TRAITS] = {"numbers per anchor", "layer", "pooling", "tokenizer"};
    const rz_radz_config *radz = &m->cfg.radz;
    origin ours;
    rz_str s = {.host = m->cfg.host};
    if (strcmp(theirs->model_hash, m->hash) == 0) return RADZ_OK;
    if (theirs->family && m->family[0] && strcmp(theirs->family, m->family) == 0) return RADZ_OK;
    fill_origin(&ours, m->hash, radz->dim, radz->layer, pool_name(radz->mlp_then_mean),
                m->tok ? rz_tokenizer_hash(m->tok) : "");
    for (size_t i = 0; i < N_TRAITS; i++)
        if (*theirs->traits[i] && strcmp(theirs->traits[i], ours.traits[i]) != 0)
            rz_str_printf(&s, "; %s %s, not %s", names[i], theirs->traits[i],
                          *ours.traits[i] ? ours.traits[i] : "none");
    radz_status status = rz_fail(
        err, RADZ_E_MISMATCH, "%s made by another model: hash %.12s, this model has %.12s%s: build the bank again",
        what, theirs->model_hash, m->hash, s.failed || !s.len ? "; other weights or settings" : s.data);
    rz_str_free(&s);
    return status;
}

radz_status rz_bank_require_model(const rz_bank *b, const rz_model *m, radz_error *err)
{
    origin made_by;
    made_by.family = b->family;
    fill_origin(&made_by, b->model_hash, b->dim, b->layer, pool_name(b->mlp_then_mean), b->tokenizer_hash);
    return require_origin(&made_by, m, "the bank was", err);
}

bool rz_bank_made_by(const rz_bank *b, const rz_model *m)
{
    return !strcmp(b->model_hash, m->hash);
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
    static const char *const keys[N_TRAITS] = {NULL, "layer", "pool", "tokenizer"}; /* older files lack some */
    const char *made_by = rz_st_metadata(st, "model"), *family = rz_st_metadata(st, "family");
    const rz_st_tensor *t = rz_st_find(st, "anchors");
    origin o = {.model_hash = made_by, .family = family ? family : made_by};
    char what[400];
    if (!made_by) return rz_fail(err, RADZ_E_FORMAT, "%s: does not say which model made it", path);
    if (t && t->n_dims == 2) snprintf(o.traits[0], TRAIT_BYTES, "%llu", (unsigned long long)t->dims[1]);
    for (size_t i = 1; i < N_TRAITS; i++) {
        const char *text = rz_st_metadata(st, keys[i]);
        bool plain = text && !text[strspn(text, "-_0123456789abcdefghijklmnopqrstuvwxyz")];
        if (plain) snprintf(o.traits[i], TRAIT_BYTES, i == 3 ? "%.12s" : "%.40s", text);
    }
    snprintf(what, sizeof what, "%s:", path);
    return require_origin(&o, m, what, err);
}

/* One unit vector per class; `what` they are. */
static radz_status check_vectors(const rz_bank *b, const float *vectors, const char *what, const char *path,
                                 radz_error *err)
{
    for (size_t i = 0; vectors && i < b->n; i++) {
        double sum = 0;
        for (size_t j = 0; j < b->dim; j++) sum += (double)vectors[i * b->dim + j] * vectors[i * b->dim + j];
        if (!(fabs(sum - 1) < 1e-3))
            return rz_fail(err, RADZ_E_FORMAT, "%s: %s '%s': expected a finite vector of length 1", path, what,
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
        status = rz_bank_set_class(b, i, entries[i].label, rz_strdup(b->host, entries[i].description), err);
    }
    if (status == RADZ_OK) status = rz_bank_check(b->host, entries, b->n, path, RADZ_E_FORMAT, err);
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

static radz_status load_bank(rz_bank *b, const rz_st *st, const char *path, radz_error *err)
{
    json_t *labels = NULL, *descriptions = NULL;
    radz_status status = load_strings(st, path, "labels", b->n, &labels, err);
    if (status == RADZ_OK) status = load_strings(st, path, "descriptions", b->n, &descriptions, err);
    if (status == RADZ_OK) status = load_classes(b, labels, descriptions, path, err);
    json_decref(labels);
    json_decref(descriptions);
    RZ_TRY(status);
    RZ_TRY(load_writer(b, st, path, err));
    const char *calibration = rz_st_metadata(st, "calibration");
    if (calibration) RZ_TRY(rz_bank_read_calibration(b, calibration, path, err));
    RZ_TRY(rz_st_to_f32(rz_st_find(st, "anchors"), b->anchors, err));
    if (b->fused) RZ_TRY(rz_st_to_f32(rz_st_find(st, "texts"), b->texts, err));
    RZ_TRY(check_vectors(b, b->anchors, "anchor", path, err));
    return check_vectors(b, b->texts, "text", path, err);
}

/* n: how many classes, 0: as many as it has. */
static bool holds_vectors(const rz_st_tensor *t, const rz_model *m, uint64_t n)
{
    return t && strcmp(t->dtype, "F32") == 0 && t->n_dims == 2 && t->dims[1] == m->cfg.radz.dim && t->dims[0] >= 1 &&
           t->dims[0] <= RZ_BANK_MAX_CLASSES && (!n || t->dims[0] == n);
}

static radz_status parse_bank(const rz_model *m, const rz_st *st, const char *path, rz_bank **bank, radz_error *err)
{
    RZ_TRY(check_schema(st, path, err));
    RZ_TRY(check_model(st, m, path, err));
    const rz_st_tensor *t = rz_st_find(st, "anchors");
    const bool texts = m->cfg.radz.fused_score;
    if (!holds_vectors(t, m, 0) || rz_st_count(st) != (texts ? 2 : 1) ||
        (texts && !holds_vectors(rz_st_find(st, "texts"), m, t->dims[0])))
        return rz_fail(err, RADZ_E_FORMAT, "%s: expected %s, F32, 1..%u x %zu", path,
                       texts ? "two tensors 'anchors' and 'texts'" : "one tensor 'anchors'", RZ_BANK_MAX_CLASSES,
                       m->cfg.radz.dim);
    rz_bank *b = NULL;
    RZ_TRY(rz_bank_new(m, (size_t)t->dims[0], &b, err));
    snprintf(b->model_hash, sizeof b->model_hash, "%.64s", rz_st_metadata(st, "model"));
    return rz_bank_done(b, load_bank(b, st, path, err), bank);
}

static radz_status open_bank(const rz_model *m, const rz_file *file, const char *path, rz_bank **bank, radz_error *err)
{
    RZ_TRY(check_sum((const char *)file->data, file->size, path, err));
    rz_st *st = NULL;
    RZ_TRY(rz_st_parse(m->cfg.host, file->data, file->size, path, &st, err));
    radz_status status = parse_bank(m, st, path, bank, err);
    rz_st_close(st);
    if (status != RADZ_OK) return status;
    hash_of((const char *)file->data, file->size, (*bank)->hash);
    if (!(*bank)->calibration) memcpy((*bank)->base_hash, (*bank)->hash, sizeof(*bank)->hash);
    if (!rz_bank_made_by(*bank, m))
        rz_log(m->cfg.host, RADZ_LOG_WARNING,
               "%s: made with other weights of this model (hash %.12s, these have %.12s): similarities move a little",
               path, (*bank)->model_hash, m->hash);
    return RADZ_OK;
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
