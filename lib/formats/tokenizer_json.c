/* tokenizer_json.c - reads tokenizer.json. What it does not know, it refuses by name. SPDX-License-Identifier:
 * Apache-2.0 */
#include "tokenizer_json.h"

#define MAX_VALUES ((size_t)3000000) /* of the JSON: bounds the memory that its tree takes */
#define MAX_ADDED_BYTES 256u         /* of an added token: bounds the time that a search takes */
#define MAX_STEP_BYTES 64u           /* of what a step puts or looks for */
#define CONFIG_MAX_BYTES ((size_t)16 << 20)

/* The file and where in it. */
typedef struct reader {
    rz_jtok *t;
    const char *what;  /* the file */
    const char *where; /* "file: normalizer" */
    radz_error *err;
} reader;

static radz_status no_memory(const reader *r)
{
    return RZ_NO_MEMORY(r->err, r->what);
}

static radz_status unsupported(const reader *r, const char *name)
{
    return rz_fail(r->err, RADZ_E_UNSUPPORTED, "%s: '%.200s' is not supported", r->where, name);
}

static radz_status expected(const reader *r, const char *what)
{
    return rz_fail(r->err, RADZ_E_FORMAT, "%s: expected %s", r->where, what);
}

/* ---- The vocabulary ----------------------------------------------------------------------------------- */

int32_t rz_jtok_find(const rz_jtok *t, const char *text, size_t n)
{
    for (size_t i = rz_tokenizer_hash_text(t->seed, text, n);; i++) {
        int32_t id = t->table[i & t->table_mask];
        if (id < 0 || (t->pieces[id].len == n && memcmp(t->pieces[id].text, text, n) == 0)) return id;
    }
}

const rz_merge_rule *rz_jtok_merge(const rz_jtok *t, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key = (key ^ t->seed) * 0x9E3779B97F4A7C15u;
    key = (key ^ key >> 29) * 0xBF58476D1CE4E5B9u;
    for (size_t i = (size_t)(key >> 16);; i++) {
        const rz_merge_rule *m = &t->merges[i & t->merge_mask];
        if (m->left < 0 || (m->left == left && m->right == right)) return m;
    }
}

/* The arena holds the file's strings: each is shorter there than in the file, quotes included. */
static const char *keep(rz_jtok *t, const char *text, size_t n)
{
    char *p = t->arena + t->arena_len;
    memcpy(p, text, n + 1);
    t->arena_len += n + 1;
    return p;
}

static size_t table_size(size_t n)
{
    size_t size = 16;
    while (size < n * 2) size *= 2;
    return size;
}

static radz_status read_vocab(reader *r, json_t *vocab, size_t n_added)
{
    rz_jtok *t = r->t;
    const char *key;
    json_t *v;
    size_t size = table_size(json_object_size(vocab));
    if (!json_is_object(vocab) || !json_object_size(vocab)) return expected(r, "an object of tokens in 'vocab'");
    t->n_model = json_object_size(vocab);
    t->pieces = rz_calloc(t->host, t->n_model + n_added, sizeof *t->pieces);
    t->table = rz_calloc(t->host, size, sizeof *t->table);
    if (!t->pieces || !t->table) return no_memory(r);
    memset(t->table, 0xFF, size * sizeof *t->table);
    t->table_mask = size - 1;
    json_object_foreach(vocab, key, v)
    {
        size_t n = strlen(key), at = rz_tokenizer_hash_text(t->seed, key, n);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || (size_t)id >= t->n_model)
            return rz_fail(r->err, RADZ_E_FORMAT, "%s.vocab: a token's id is %lld, expected an integer in 0..%zu",
                           r->where, json_is_integer(v) ? (long long)id : -1, t->n_model - 1);
        if (t->pieces[id].text)
            return rz_fail(r->err, RADZ_E_FORMAT, "%s.vocab: two tokens have the id %lld", r->where, (long long)id);
        t->pieces[id] = (rz_vocab_piece){keep(t, key, n), n};
        while (t->table[at & t->table_mask] >= 0) at++;
        t->table[at & t->table_mask] = (int32_t)id;
    }
    t->n_pieces = t->n_model;
    return RADZ_OK;
}

/* The halves of a merge: an array of two, or a string with one space between them. */
static bool split_merge(const json_t *v, const char **a, size_t *n_a, const char **b, size_t *n_b)
{
    const char *space;
    if (json_is_array(v) && json_array_size(v) == 2) {
        *a = json_string_value(json_array_get(v, 0));
        *b = json_string_value(json_array_get(v, 1));
        if (!*a || !*b) return false;
        *n_a = strlen(*a);
    } else {
        *a = json_string_value(v);
        if (!*a || !(space = strchr(*a, ' ')) || strchr(space + 1, ' ')) return false;
        *n_a = (size_t)(space - *a);
        *b = space + 1;
    }
    *n_b = strlen(*b);
    return *n_a && *n_b;
}

static radz_status read_merge(reader *r, const json_t *v, uint32_t rank, size_t i, rz_str *whole)
{
    const char *a, *b;
    size_t n_a, n_b;
    if (!split_merge(v, &a, &n_a, &b, &n_b))
        return rz_fail(r->err, RADZ_E_FORMAT, "%s.merges[%zu]: expected two tokens", r->where, i);
    whole->len = 0;
    rz_str_put(whole, a, n_a);
    rz_str_put(whole, b, n_b);
    if (whole->failed) return no_memory(r);
    rz_merge_rule m = {rz_jtok_find(r->t, a, n_a), rz_jtok_find(r->t, b, n_b),
                       rz_jtok_find(r->t, whole->data, whole->len), rank};
    if (m.left < 0 || m.right < 0 || m.merged < 0)
        return rz_fail(r->err, RADZ_E_FORMAT, "%s.merges[%zu]: %s is not in the vocabulary", r->where, i,
                       m.left < 0    ? "its left token"
                       : m.right < 0 ? "its right token"
                                     : "what it makes");
    r->t->merges[rz_jtok_merge(r->t, m.left, m.right) - r->t->merges] = m; /* the last of two stays */
    return RADZ_OK;
}

static radz_status read_merges(reader *r, const json_t *merges)
{
    rz_str whole = {.host = r->t->host};
    size_t size = table_size(json_array_size(merges)), i;
    radz_status status = RADZ_OK;
    uint32_t rank = 0;
    json_t *v;
    if (!json_is_array(merges)) return expected(r, "an array in 'merges'");
    if (!(r->t->merges = rz_calloc(r->t->host, size, sizeof *r->t->merges))) return no_memory(r);
    for (size_t k = 0; k < size; k++) r->t->merges[k].left = -1;
    r->t->merge_mask = size - 1;
    json_array_foreach(merges, i, v)
    {
        if (json_is_string(v) && strncmp(json_string_value(v), "#version", 8) == 0) continue;
        if ((status = read_merge(r, v, rank++, i, &whole))) break;
    }
    rz_str_free(&whole);
    return status;
}

static radz_status refuse_text(reader *r, const json_t *model, const char *key)
{
    const char *text = NULL;
    RZ_TRY(rz_json_string(model, r->where, key, &text, r->err));
    return text && *text ? unsupported(r, key) : RADZ_OK;
}

static radz_status read_options(reader *r, const json_t *model)
{
    rz_jtok *t = r->t;
    const char *unk = NULL;
    double dropout = 0;
    RZ_TRY(refuse_text(r, model, "continuing_subword_prefix"));
    RZ_TRY(refuse_text(r, model, "end_of_word_suffix"));
    RZ_TRY(rz_json_double(model, r->where, "dropout", 0, 1, &dropout, r->err));
    if (dropout > 0) return unsupported(r, "dropout");
    RZ_TRY(rz_json_bool(model, r->where, "fuse_unk", &t->fuse_unk, r->err));
    RZ_TRY(rz_json_bool(model, r->where, "byte_fallback", &t->byte_fallback, r->err));
    RZ_TRY(rz_json_bool(model, r->where, "ignore_merges", &t->ignore_merges, r->err));
    RZ_TRY(rz_json_string(model, r->where, "unk_token", &unk, r->err));
    t->unk = unk ? rz_jtok_find(t, unk, strlen(unk)) : -1;
    if (unk && t->unk < 0) return expected(r, "'unk_token' to be in the vocabulary");
    for (unsigned b = 0; b < 256; b++) {
        const char name[] = {'<', '0', 'x', "0123456789ABCDEF"[b >> 4], "0123456789ABCDEF"[b & 15], '>'};
        t->byte_id[b] = rz_jtok_find(t, name, sizeof name);
    }
    return RADZ_OK;
}

static radz_status read_model(reader *r, const json_t *root, size_t n_added)
{
    const json_t *model = json_object_get(root, "model");
    const char *type = "BPE";
    r->where = "model";
    if (!json_is_object(model)) return expected(r, "an object");
    RZ_TRY(rz_json_string(model, r->where, "type", &type, r->err));
    if (strcmp(type, "BPE") != 0) return unsupported(r, type);
    RZ_TRY(read_vocab(r, json_object_get(model, "vocab"), n_added));
    RZ_TRY(read_merges(r, json_object_get(model, "merges")));
    return read_options(r, model);
}

/* ---- Chains of steps -------------------------------------------------------------------------------------- */

static radz_status add_step(reader *r, rz_chain *chain, rz_step step, const char *from, const char *to)
{
    if (chain->n == RZ_CHAIN_MAX)
        return rz_fail(r->err, RADZ_E_LIMIT, "%s: more than %d steps", r->where, RZ_CHAIN_MAX);
    rz_step *s = &chain->steps[chain->n++];
    *s = step;
    if ((from && strlen(from) > MAX_STEP_BYTES) || (to && strlen(to) > MAX_STEP_BYTES))
        return rz_fail(r->err, RADZ_E_LIMIT, "%s: a text of more than %u bytes", r->where, MAX_STEP_BYTES);
    if (from && !(s->from = rz_strdup(r->t->host, from))) return no_memory(r);
    if (to && !(s->to = rz_strdup(r->t->host, to))) return no_memory(r);
    s->n_from = from ? strlen(from) : 0;
    s->n_to = to ? strlen(to) : 0;
    return RADZ_OK;
}

static radz_status add_plain(reader *r, rz_chain *chain, rz_step_kind kind)
{
    return add_step(r, chain, (rz_step){.kind = kind}, NULL, NULL);
}

/* {"String": "..."} or {"Regex": "..."}; a regular expression without operators is a string. */
static radz_status read_pattern(reader *r, const json_t *v, const char **text, bool *regex)
{
    const json_t *pattern = json_object_get(v, "pattern");
    *text = NULL;
    *regex = false;
    RZ_TRY(rz_json_string(pattern, r->where, "String", text, r->err));
    if (!*text) {
        RZ_TRY(rz_json_string(pattern, r->where, "Regex", text, r->err));
        *regex = *text && strpbrk(*text, "\\^$.|?*+()[]{}");
    }
    return *text && **text ? RADZ_OK : expected(r, "a 'String' or 'Regex' in 'pattern'");
}

static radz_status read_replace(reader *r, const json_t *v, rz_chain *chain)
{
    const char *pattern, *content = NULL;
    bool regex;
    RZ_TRY(read_pattern(r, v, &pattern, &regex));
    RZ_TRY(rz_json_string(v, r->where, "content", &content, r->err));
    if (regex) return unsupported(r, pattern);
    if (!content) return expected(r, "'content'");
    return add_step(r, chain, (rz_step){.kind = RZ_STEP_REPLACE}, pattern, content);
}

static radz_status read_normalizer(reader *r, const json_t *v, const char *type, rz_chain *chain)
{
    const char *text = NULL;
    if (strcmp(type, "NFC") == 0) return add_plain(r, chain, RZ_STEP_NFC);
    if (strcmp(type, "Replace") == 0) return read_replace(r, v, chain);
    if (strcmp(type, "Prepend") != 0) return unsupported(r, type);
    RZ_TRY(rz_json_string(v, r->where, "prepend", &text, r->err));
    if (!text) return expected(r, "'prepend'");
    return add_step(r, chain, (rz_step){.kind = RZ_STEP_PREPEND}, NULL, text);
}

static radz_status read_meta(reader *r, const json_t *v, rz_chain *chain, bool decoder)
{
    rz_step step = {.kind = decoder ? RZ_STEP_UNMETA : RZ_STEP_META};
    const char *to = NULL, *scheme = "always";
    bool prefix = true, split = true;
    RZ_TRY(rz_json_string(v, r->where, "replacement", &to, r->err));
    RZ_TRY(rz_json_string(v, r->where, "prepend_scheme", &scheme, r->err));
    RZ_TRY(rz_json_bool(v, r->where, "add_prefix_space", &prefix, r->err));
    RZ_TRY(rz_json_bool(v, r->where, "split", &split, r->err));
    if (!to || !*to || rz_utf8_next(to, strlen(to), NULL) != strlen(to))
        return expected(r, "one character in 'replacement'");
    if (strcmp(scheme, "first") == 0)
        step.when = RZ_META_FIRST;
    else if (strcmp(scheme, "never") == 0 || (!prefix && !json_object_get(v, "prepend_scheme")))
        step.when = RZ_META_NEVER;
    else if (strcmp(scheme, "always") != 0)
        return unsupported(r, scheme);
    if (!prefix && step.when != RZ_META_NEVER) return expected(r, "'add_prefix_space' to go with 'prepend_scheme'");
    RZ_TRY(add_step(r, chain, step, NULL, to));
    return split && !decoder ? add_step(r, chain, (rz_step){.kind = RZ_STEP_META_SPLIT}, NULL, to) : RADZ_OK;
}

static radz_status read_split(reader *r, const json_t *v, rz_chain *chain)
{
    const char *pattern, *behavior = "";
    bool regex, invert = false;
    RZ_TRY(read_pattern(r, v, &pattern, &regex));
    RZ_TRY(rz_json_string(v, r->where, "behavior", &behavior, r->err));
    RZ_TRY(rz_json_bool(v, r->where, "invert", &invert, r->err));
    const rz_split_rule *rule = rz_split_find(pattern);
    if (!rule || !regex) return unsupported(r, pattern);
    /* The rules leave nothing between matches: to isolate matches is to remove what is none. */
    if (strcmp(behavior, "Isolated") != 0 && !(invert && strcmp(behavior, "Removed") == 0))
        return unsupported(r, behavior);
    return add_step(r, chain, (rz_step){.kind = RZ_STEP_SPLIT, .rule = rule}, NULL, NULL);
}

static radz_status read_pre_tokenizer(reader *r, const json_t *v, const char *type, rz_chain *chain)
{
    bool space = true, regex = true, each = false;
    if (strcmp(type, "Split") == 0) return read_split(r, v, chain);
    if (strcmp(type, "Metaspace") == 0) return read_meta(r, v, chain, false);
    if (strcmp(type, "Digits") == 0) {
        RZ_TRY(rz_json_bool(v, r->where, "individual_digits", &each, r->err));
        return add_step(r, chain, (rz_step){.kind = RZ_STEP_DIGITS, .each = each}, NULL, NULL);
    }
    if (strcmp(type, "ByteLevel") != 0) return unsupported(r, type);
    RZ_TRY(rz_json_bool(v, r->where, "add_prefix_space", &space, r->err));
    RZ_TRY(rz_json_bool(v, r->where, "use_regex", &regex, r->err));
    if (space) RZ_TRY(add_plain(r, chain, RZ_STEP_SPACE));
    if (regex) RZ_TRY(add_step(r, chain, (rz_step){.kind = RZ_STEP_SPLIT, .rule = rz_split_gpt2}, NULL, NULL));
    return add_plain(r, chain, RZ_STEP_BYTES);
}

static radz_status read_strip(reader *r, const json_t *v, rz_chain *chain)
{
    const char *content = NULL;
    int64_t start = 0, stop = 0;
    RZ_TRY(rz_json_string(v, r->where, "content", &content, r->err));
    RZ_TRY(rz_json_int(v, r->where, "start", 0, INT32_MAX, &start, r->err));
    RZ_TRY(rz_json_int(v, r->where, "stop", 0, INT32_MAX, &stop, r->err));
    if (!content || !*content || rz_utf8_next(content, strlen(content), NULL) != strlen(content))
        return expected(r, "one character in 'content'");
    rz_step step = {.kind = RZ_STEP_STRIP, .start = (size_t)start, .stop = (size_t)stop};
    return add_step(r, chain, step, NULL, content);
}

static radz_status read_decoder(reader *r, const json_t *v, const char *type, rz_chain *chain)
{
    if (strcmp(type, "Replace") == 0) return read_replace(r, v, chain);
    if (strcmp(type, "ByteFallback") == 0) return add_plain(r, chain, RZ_STEP_FALLBACK);
    if (strcmp(type, "Fuse") == 0) return add_plain(r, chain, RZ_STEP_FUSE);
    if (strcmp(type, "Strip") == 0) return read_strip(r, v, chain);
    if (strcmp(type, "Metaspace") == 0) return read_meta(r, v, chain, true);
    return strcmp(type, "ByteLevel") == 0 ? add_plain(r, chain, RZ_STEP_UNBYTES) : unsupported(r, type);
}

typedef radz_status (*step_reader)(reader *r, const json_t *v, const char *type, rz_chain *chain);

/* One step or a sequence of such, `list` names its member. */
static radz_status read_chain(reader *r, const json_t *v, const char *list, step_reader read, rz_chain *chain)
{
    const char *type = NULL;
    const json_t *steps, *step;
    size_t i;
    RZ_TRY(rz_json_string(v, r->where, "type", &type, r->err));
    if (!type) return expected(r, "a 'type'");
    if (strcmp(type, "Sequence") != 0) return read(r, v, type, chain);
    steps = json_object_get(v, list);
    if (!json_is_array(steps)) return expected(r, "an array of steps");
    json_array_foreach(steps, i, step) RZ_TRY(read_chain(r, step, list, read, chain));
    return RADZ_OK;
}

static radz_status read_chains(reader *r, const json_t *root)
{
    const json_t *v;
    r->where = "normalizer";
    if ((v = json_object_get(root, r->where)) && !json_is_null(v))
        RZ_TRY(read_chain(r, v, "normalizers", read_normalizer, &r->t->normalizer));
    r->where = "pre_tokenizer";
    if ((v = json_object_get(root, r->where)) && !json_is_null(v))
        RZ_TRY(read_chain(r, v, "pretokenizers", read_pre_tokenizer, &r->t->pre_tokenizer));
    r->where = "decoder";
    r->t->has_decoder = (v = json_object_get(root, r->where)) && !json_is_null(v);
    return r->t->has_decoder ? read_chain(r, v, "decoders", read_decoder, &r->t->decoder) : RADZ_OK;
}

/* ---- Added tokens ----------------------------------------------------------------------------------------- */

/* The token as the normalizer makes it, where that is something else. */
static radz_status normalize_added(reader *r, rz_added *a)
{
    rz_spans s = {.text = {.host = r->t->host}};
    rz_str_puts(&s.text, a->text);
    rz_spans_end(&s);
    radz_status status = s.failed || s.text.failed ? no_memory(r) : rz_chain_run(&r->t->normalizer, &s, true, r->err);
    if (status == RADZ_OK && (!s.text.len || s.text.len > MAX_ADDED_BYTES))
        status = rz_fail(r->err, RADZ_E_LIMIT, "%s: token %d is of %zu bytes when normalized, expected 1 to %u",
                         r->where, (int)a->id, s.text.len, MAX_ADDED_BYTES);
    if (status == RADZ_OK && strcmp(s.text.data, a->text) != 0 && !(a->normal = rz_strdup(r->t->host, s.text.data)))
        status = no_memory(r);
    rz_spans_free(&s);
    return status;
}

static radz_status read_added(reader *r, const json_t *v, int32_t *next_id, bool *normalized)
{
    rz_jtok *t = r->t;
    rz_added *a = &t->added[t->n_added];
    const char *content = NULL;
    int64_t id = -1;
    RZ_TRY(rz_json_string(v, r->where, "content", &content, r->err));
    RZ_TRY(rz_json_int(v, r->where, "id", 0, INT32_MAX, &id, r->err));
    RZ_TRY(rz_json_bool(v, r->where, "special", &a->special, r->err));
    RZ_TRY(rz_json_bool(v, r->where, "single_word", &a->single_word, r->err));
    RZ_TRY(rz_json_bool(v, r->where, "lstrip", &a->lstrip, r->err));
    RZ_TRY(rz_json_bool(v, r->where, "rstrip", &a->rstrip, r->err));
    *normalized = !a->special;
    RZ_TRY(rz_json_bool(v, r->where, "normalized", normalized, r->err));
    if (!content || !*content || strlen(content) > MAX_ADDED_BYTES)
        return rz_fail(r->err, RADZ_E_FORMAT, "%s: token %zu: expected 'content' of 1 to %u bytes", r->where,
                       t->n_added, MAX_ADDED_BYTES);
    a->id = rz_jtok_find(t, content, strlen(content));
    if (a->id < 0) a->id = (*next_id)++; /* the reference counts too, whatever the file says */
    if (a->id != id)
        return rz_fail(r->err, RADZ_E_FORMAT, "%s: token %zu has the id %lld, its place is %d", r->where, t->n_added,
                       (long long)id, (int)a->id);
    if ((size_t)a->id < t->n_pieces && t->added_at[a->id] >= 0)
        return rz_fail(r->err, RADZ_E_FORMAT, "%s: two tokens have the id %lld", r->where, (long long)id);
    a->text = (size_t)a->id < t->n_model ? t->pieces[a->id].text : keep(t, content, strlen(content));
    if ((size_t)a->id >= t->n_model) t->pieces[t->n_pieces++] = (rz_vocab_piece){a->text, strlen(content)};
    t->added_at[a->id] = (int32_t)t->n_added++;
    return RADZ_OK;
}

static radz_status finish_set(reader *r, rz_text_set *set)
{
    rz_text_set_sort(set);
    for (size_t i = 1; i < set->n; i++)
        if (set->items[i].len == set->items[i - 1].len &&
            memcmp(set->items[i].text, set->items[i - 1].text, set->items[i].len) == 0)
            return rz_fail(r->err, RADZ_E_FORMAT, "%s: tokens %d and %d have the same text", r->where,
                           (int)r->t->added[set->items[i - 1].value].id, (int)r->t->added[set->items[i].value].id);
    return RADZ_OK;
}

static radz_status read_all_added(reader *r, const json_t *list)
{
    rz_jtok *t = r->t;
    size_t n = json_array_size(list), i;
    int32_t next_id = (int32_t)t->n_model;
    const json_t *v;
    r->where = "added_tokens";
    t->added = rz_calloc(t->host, n, sizeof *t->added);
    t->added_at = rz_calloc(t->host, t->n_model + n, sizeof *t->added_at);
    t->raw.items = rz_calloc(t->host, n, sizeof *t->raw.items);
    t->normal.items = rz_calloc(t->host, n, sizeof *t->normal.items);
    if (!t->added || !t->added_at || !t->raw.items || !t->normal.items) return no_memory(r);
    memset(t->added_at, 0xFF, (t->n_model + n) * sizeof *t->added_at);
    json_array_foreach(list, i, v)
    {
        rz_added *a = &t->added[t->n_added];
        bool normalized;
        RZ_TRY(read_added(r, v, &next_id, &normalized));
        if (normalized && t->normalizer.n) RZ_TRY(normalize_added(r, a));
        rz_text_set *set = normalized ? &t->normal : &t->raw;
        const char *text = a->normal ? a->normal : a->text;
        set->items[set->n++] = (rz_text_item){text, (uint32_t)strlen(text), (int32_t)i};
    }
    RZ_TRY(finish_set(r, &t->raw));
    return finish_set(r, &t->normal);
}

/* ---- Beginning and end of a text ---------------------------------------------------------------------------- */

/* Id of a token, added or not; -1: none. */
static int32_t id_of(const rz_jtok *t, const char *text)
{
    for (size_t i = 0; i < t->n_added; i++)
        if (strcmp(t->added[i].text, text) == 0) return t->added[i].id;
    return rz_jtok_find(t, text, strlen(text));
}

/* The one token that a template's special token stands for. */
static radz_status template_token(reader *r, const json_t *post, const char *name, int32_t *id)
{
    const json_t *ids = json_object_get(json_object_get(json_object_get(post, "special_tokens"), name), "ids");
    const json_t *v = json_array_get(ids, 0);
    if (*id >= 0 || json_array_size(ids) > 1)
        return unsupported(r, "TemplateProcessing with several tokens at one end");
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (size_t)json_integer_value(v) >= r->t->n_pieces)
        return rz_fail(r->err, RADZ_E_FORMAT, "%s.special_tokens: expected an id in 0..%zu", r->where,
                       r->t->n_pieces - 1);
    *id = (int32_t)json_integer_value(v);
    return RADZ_OK;
}

static radz_status read_template(reader *r, rz_tokenizer *tok, const json_t *post)
{
    const json_t *single = json_object_get(post, "single"), *v;
    bool after = false;
    size_t i;
    if (!json_is_array(single)) return expected(r, "an array in 'single'");
    json_array_foreach(single, i, v)
    {
        const char *name = json_string_value(json_object_get(json_object_get(v, "SpecialToken"), "id"));
        if (name)
            RZ_TRY(template_token(r, post, name, after ? &tok->eos : &tok->bos));
        else
            after = true;
    }
    return RADZ_OK;
}

/* BERT's and RoBERTa's: {"cls": ["<s>", 0], "sep": ["</s>", 2]}. */
static radz_status read_frame(reader *r, rz_tokenizer *tok, const json_t *post)
{
    static const char *const keys[] = {"cls", "sep"};
    int32_t *ids[] = {&tok->bos, &tok->eos};
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_array_get(json_object_get(post, keys[i]), 1);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || (size_t)json_integer_value(v) >= r->t->n_pieces)
            return expected(r, "a token and its id in 'cls' and 'sep'");
        *ids[i] = (int32_t)json_integer_value(v);
    }
    return RADZ_OK;
}

static radz_status read_post(reader *r, rz_tokenizer *tok, const json_t *post)
{
    const char *type = NULL;
    const json_t *v;
    size_t i;
    RZ_TRY(rz_json_string(post, r->where, "type", &type, r->err));
    if (!type) return expected(r, "a 'type'");
    if (strcmp(type, "ByteLevel") == 0) return RADZ_OK;
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(r, tok, post);
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0) return read_frame(r, tok, post);
    if (strcmp(type, "Sequence") != 0) return unsupported(r, type);
    json_array_foreach(json_object_get(post, "processors"), i, v) RZ_TRY(read_post(r, tok, v));
    return RADZ_OK;
}

/* A file that says nothing of BOS has the one of LLaMA, if its model is of that kind. */
static radz_status read_ends(reader *r, rz_tokenizer *tok, const json_t *root)
{
    static const char *const ends[] = {"</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>"};
    const json_t *post = json_object_get(root, "post_processor");
    r->where = "post_processor";
    if (post && !json_is_null(post))
        RZ_TRY(read_post(r, tok, post));
    else if (r->t->byte_fallback)
        tok->bos = id_of(r->t, "<s>");
    for (size_t i = 0; i < RZ_COUNT(ends) && tok->eos < 0; i++) tok->eos = id_of(r->t, ends[i]);
    return RADZ_OK;
}

/* A token as a string or as an object with its content. */
static const char *config_token(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

static radz_status apply_config(rz_tokenizer *tok, const json_t *config, const char *what, radz_error *err)
{
    const rz_jtok *t = tok->impl;
    const char *bos = config_token(config, "bos_token"), *eos = config_token(config, "eos_token");
    bool add = tok->bos >= 0;
    RZ_TRY(rz_json_bool(config, what, "add_bos_token", &add, err));
    if (!add) {
        tok->bos = -1;
    } else if (json_is_true(json_object_get(config, "add_bos_token")) && bos) {
        tok->bos = id_of(t, bos);
        if (tok->bos < 0) return rz_fail(err, RADZ_E_FORMAT, "%s: bos_token: the tokenizer has no such token", what);
    }
    if (eos && id_of(t, eos) >= 0) tok->eos = id_of(t, eos);
    return RADZ_OK;
}

radz_status rz_tokenizer_read_config(rz_tokenizer *tok, const char *path, radz_error *err)
{
    const char *slash = strrchr(path, '/');
    char *dir = rz_strndup(tok->host, path, slash ? (size_t)(slash - path) + 1 : 0);
    char *config_path = dir ? rz_path_join(tok->host, dir, "tokenizer_config.json") : NULL;
    json_t *config = NULL;
    radz_status status = config_path ? RADZ_OK : RZ_NO_MEMORY(err, path);
    if (!status && rz_path_exists(config_path)) {
        status = rz_json_load(tok->host, config_path, CONFIG_MAX_BYTES, &config, err);
        if (!status) status = apply_config(tok, config, config_path, err);
        json_decref(config);
    }
    rz_free(tok->host, config_path);
    rz_free(tok->host, dir);
    return status;
}

/* ---- The file --------------------------------------------------------------------------------------------------- */

static void free_chain(const rz_host *host, rz_chain *chain)
{
    for (size_t i = 0; i < chain->n; i++) {
        rz_free(host, chain->steps[i].from);
        rz_free(host, chain->steps[i].to);
    }
}

static void close_json(rz_tokenizer *tok)
{
    rz_jtok *t = tok->impl;
    for (size_t i = 0; t->added && i < t->n_added; i++) rz_free(t->host, t->added[i].normal);
    rz_free(t->host, t->arena);
    rz_free(t->host, t->pieces);
    rz_free(t->host, t->table);
    rz_free(t->host, t->merges);
    rz_free(t->host, t->added);
    rz_free(t->host, t->added_at);
    rz_free(t->host, t->raw.items);
    rz_free(t->host, t->normal.items);
    free_chain(t->host, &t->normalizer);
    free_chain(t->host, &t->pre_tokenizer);
    free_chain(t->host, &t->decoder);
    rz_free(t->host, t);
}

static const char *piece_of(const rz_tokenizer *tok, int32_t id)
{
    const rz_jtok *t = tok->impl;
    return t->pieces[id].text;
}

static bool is_control(const rz_tokenizer *tok, int32_t id)
{
    const rz_jtok *t = tok->impl;
    return t->added_at[id] >= 0 && t->added[t->added_at[id]].special;
}

static radz_status read_root(reader *r, rz_tokenizer *tok, const json_t *root)
{
    const json_t *added = json_object_get(root, "added_tokens");
    const char *version = "1.0";
    r->where = "tokenizer";
    RZ_TRY(rz_json_string(root, r->where, "version", &version, r->err));
    if (strcmp(version, "1.0") != 0) return unsupported(r, version);
    if (added && !json_is_null(added) && !json_is_array(added)) return expected(r, "an array in 'added_tokens'");
    RZ_TRY(read_model(r, root, json_array_size(added)));
    RZ_TRY(read_chains(r, root));
    RZ_TRY(read_all_added(r, added));
    tok->size = r->t->n_pieces;
    return read_ends(r, tok, root);
}

static bool too_many_values(const uint8_t *bytes, size_t n)
{
    size_t count = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '"') in_string = !in_string;
        if (bytes[i] == '\\' && in_string) i++;
        if (!in_string) count += bytes[i] == ',' || bytes[i] == '[' || bytes[i] == '{';
    }
    return count > MAX_VALUES;
}

radz_status rz_tokenizer_build_json(rz_tokenizer *tok, const uint8_t *bytes, size_t n, const char *what,
                                    radz_error *err)
{
    static const rz_tokenizer_kind kind = {"tokenizer.json", close_json, rz_jtok_encode,
                                           rz_jtok_decode,   piece_of,   is_control};
    rz_jtok *t;
    json_t *root;
    if (too_many_values(bytes, n)) return rz_fail(err, RADZ_E_LIMIT, "%s: more than %zu JSON values", what, MAX_VALUES);
    if (!(t = rz_calloc(tok->host, 1, sizeof *t))) return RZ_NO_MEMORY(err, what);
    tok->impl = t;
    tok->kind = &kind;
    t->host = tok->host;
    t->seed = rz_tokenizer_seed(tok);
    if (!(t->arena = rz_malloc(t->host, n))) return RZ_NO_MEMORY(err, what);
    RZ_TRY(rz_json_parse((const char *)bytes, n, what, &root, err));
    reader r = {t, what, what, err};
    radz_status status = read_root(&r, tok, root);
    if (status && status != RADZ_E_MEMORY) rz_fail_prefix(err, status, "%s", what);
    json_decref(root);
    return status;
}
