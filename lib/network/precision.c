/* precision.c - weights as other numbers. SPDX-License-Identifier: Apache-2.0 */
#include "precision.h"

#include <stdatomic.h>
#include <stdio.h>

#define WIDE "=int8" /* behind what int4 leaves in eight bits */
enum { DEFAULT_GROUP = 128 };

/* ---- What is asked for ------------------------------------------------------------------------- */

static const char *const type_names[] = {NULL, "f32", "bf16", "int8", "int4"};

static bool is_integers(rz_weights_type t)
{
    return t == RZ_WEIGHTS_INT8 || t == RZ_WEIGHTS_INT4;
}

static bool known_group(int group)
{
    return group == 32 || group == 64 || group == 128;
}

const char *rz_precision_default_keep(rz_weights_type type)
{
    if (type == RZ_WEIGHTS_INT4) return "embeddings,heads,tower=int8,projector=int8,first=int8";
    return type == RZ_WEIGHTS_INT8 ? "embeddings,heads" : "";
}

/* "int4/32" */
static radz_status parse_type(const char *type, rz_precision *out, int *group, radz_error *err)
{
    const char *slash = strchr(type, '/');
    const size_t n = slash ? (size_t)(slash - type) : strlen(type);
    int64_t v = 0;
    for (size_t i = 1; i < RZ_COUNT(type_names); i++)
        if (strlen(type_names[i]) == n && !strncmp(type, type_names[i], n)) out->type = (rz_weights_type)i;
    bool good = out->type != RZ_WEIGHTS_STORED;
    if (slash) {
        good = good && is_integers(out->type) && rz_parse_int64(slash + 1, strlen(slash + 1), &v) && v < 1000;
        *group = (int)v;
    }
    if (good) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT, "weights '%.40s': expected f32, bf16, int8 or int4, or int8/64 and the like",
                   type);
}

/* A word of the list at *next, of n characters; *wide: it ends in "=int8", which n leaves out. NULL: the list ends. */
static const char *next_word(const char **next, size_t *n, bool *wide)
{
    const char *word = *next;
    if (!word || !*word) return NULL;
    const size_t len = strcspn(word, ","), k = sizeof WIDE - 1;
    *wide = len >= k && !strncmp(word + len - k, WIDE, k);
    *n = *wide ? len - k : len;
    *next = word + len + (word[len] == ',');
    return word;
}

static radz_status check_keep(const rz_precision *p, radz_error *err)
{
    const char *next = p->keep, *word;
    size_t n;
    bool wide;
    while ((word = next_word(&next, &n, &wide))) {
        if (memchr(word, '=', n))
            return rz_fail(err, RADZ_E_ARGUMENT, "kept weights '%.*s': expected a name, or a name and =int8",
                           (int)strcspn(word, ","), word);
        if (wide && p->type != RZ_WEIGHTS_INT4)
            return rz_fail(err, RADZ_E_ARGUMENT, "kept weights '%.*s=int8': =int8 is for weights of int4", (int)n,
                           word);
    }
    return RADZ_OK;
}

radz_status rz_precision_parse(const char *type, int group, const char *keep, rz_precision *out, radz_error *err)
{
    *out = (rz_precision){.keep = ""};
    if (!type || !*type) return RADZ_OK;
    RZ_TRY(parse_type(type, out, &group, err));
    if (group && !known_group(group))
        return rz_fail(err, RADZ_E_ARGUMENT, "groups of %d weights: expected 128, 64 or 32", group);
    if (is_integers(out->type)) out->group = group ? (size_t)group : DEFAULT_GROUP;
    out->keep = keep ? keep : rz_precision_default_keep(out->type);
    return check_keep(out, err);
}

void rz_precision_text(const rz_precision *p, rz_str *s)
{
    if (p->type == RZ_WEIGHTS_STORED) return;
    rz_str_puts(s, type_names[p->type]);
    if (p->group) rz_str_printf(s, ", groups of %zu", p->group);
    if (p->type == RZ_WEIGHTS_BF16) rz_str_puts(s, ", products of bf16");
    if (!*p->keep) return;
    rz_str_puts(s, strchr(p->keep, '=') ? "; kept: " : "; as stored: ");
    rz_str_puts(s, p->keep); /* whole: the hash is over it */
}

/* ---- What stays ---------------------------------------------------------------------------------- */

/* pattern[0, n) fits the whole name; '*' is anything. */
static bool fits(const char *pattern, size_t n, const char *name)
{
    size_t star = SIZE_MAX, mark = 0, p = 0;
    for (size_t i = 0; name[i];) {
        if (p < n && pattern[p] == '*')
            star = p++, mark = i;
        else if (p < n && pattern[p] == name[i])
            p++, i++;
        else if (star != SIZE_MAX)
            p = star + 1, i = ++mark;
        else
            return false;
    }
    while (p < n && pattern[p] == '*') p++;
    return p == n;
}

static bool begins(const char *name, const char *with)
{
    return !strncmp(name, with, strlen(with));
}

static bool in_block(const char *name, size_t block)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "language_model.model.layers.%zu.", block);
    return begins(name, prefix);
}

/* word[0, n): a part of the network, or a pattern. */
static bool word_keeps(const char *word, size_t n, const rz_config *cfg, const char *name)
{
    const struct {
        const char *word;
        bool fits;
    } parts[] = {
        {"embeddings", strstr(name, "embed_tokens") != NULL},
        {"tower", begins(name, "vision_tower.")},
        {"projector", begins(name, "multi_modal_projector.")},
        {"lm_head", begins(name, "language_model.lm_head.")},
        {"heads", begins(name, "gamma_") || begins(name, "classifier.")},
        {"first", in_block(name, 0)},
        {"last", in_block(name, rz_config_decoder_blocks(cfg) - 1)},
    };
    for (size_t i = 0; i < RZ_COUNT(parts); i++)
        if (strlen(parts[i].word) == n && !strncmp(parts[i].word, word, n)) return parts[i].fits;
    return fits(word, n, name);
}

rz_weights_type rz_precision_becomes(const rz_precision *p, const rz_config *cfg, const char *name)
{
    const char *next = p->keep, *word;
    size_t n;
    bool wide;
    while ((word = next_word(&next, &n, &wide)))
        if (n && word_keeps(word, n, cfg, name)) return wide ? RZ_WEIGHTS_INT8 : RZ_WEIGHTS_STORED;
    return p->type;
}

static bool stored_as(const rz_st_tensor *t, rz_dtype *dtype)
{
    static const char *const names[] = {
        [RZ_F32] = "F32", [RZ_F16] = "F16", [RZ_BF16] = "BF16", [RZ_I8] = "I8", [RZ_I4] = "U8"};
    for (size_t i = 0; i < RZ_COUNT(names); i++)
        if (!strcmp(t->dtype, names[i])) return *dtype = (rz_dtype)i, true;
    return false;
}

radz_status rz_precision_of(const rz_precision *p, const rz_config *cfg, const char *name, const rz_st_tensor *t,
                            bool merged, rz_dtype *dtype, rz_dtype *compute, bool *converts, radz_error *err)
{
    static const rz_dtype wanted[] = {RZ_F32, RZ_F32, RZ_BF16, RZ_I8, RZ_I4};
    const rz_weights_type type = rz_precision_becomes(p, cfg, name);
    const rz_dtype want = wanted[type];
    *compute = RZ_F32, *converts = false;
    if (!stored_as(t, dtype) || type == RZ_WEIGHTS_STORED || t->n_dims != 2) return RADZ_OK;
    if (merged) *dtype = RZ_F32;
    if (type == RZ_WEIGHTS_BF16) *compute = RZ_BF16;
    if (*dtype == want) return RADZ_OK;
    if (want == RZ_I4 && rz_dtype_is_float(*dtype) && t->dims[1] % 2) return RADZ_OK; /* two to a byte: odd rows stay */
    if (rz_dtype_is_float(*dtype) || want == RZ_F32) {
        *dtype = want, *converts = true;
        return RADZ_OK;
    }
    if (want == RZ_BF16) return RADZ_OK; /* integers are widened as they are used */
    return rz_fail(err, RADZ_E_MISMATCH, "tensor '%s': is of %s in the files, %s cannot be made of it: start from bf16",
                   t->name, *dtype == RZ_I8 ? "int8" : "int4", type_names[type]);
}

/* ---- Converting ------------------------------------------------------------------------------------ */

typedef struct conversion {
    const rz_host *host;
    const rz_matrix_source *from;
    size_t first, n, step, group;
    rz_dtype dtype;
    uint8_t *data;
    uint16_t *scale;
    atomic_size_t bad_row; /* SIZE_MAX: none */
    atomic_bool no_memory;
} conversion;

static void read_row(const rz_matrix_source *from, size_t row, float *out)
{
    if (from->q)
        rz_quantised_row(from->q, row, out);
    else if (rz_st_rows_f32(from->tensor, row, 1, out, NULL))
        memset(out, 0, from->cols * sizeof *out); /* the type has been checked */
}

static bool is_finite(const float *x, size_t n)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * 0;
    return sum == 0;
}

static void note_bad(conversion *c, size_t row)
{
    size_t seen = atomic_load(&c->bad_row);
    while (row < seen && !atomic_compare_exchange_weak(&c->bad_row, &seen, row)) {}
}

static void put_row(conversion *c, size_t row, const float *x)
{
    const size_t cols = c->from->cols, at = row - c->first;
    uint8_t *to = c->data + at * rz_dtype_bytes(c->dtype, cols);
    if (c->dtype == RZ_F32)
        memcpy(to, x, cols * sizeof *x);
    else if (c->dtype == RZ_BF16)
        for (size_t i = 0; i < cols; i++) {
            const uint16_t half = rz_f32_to_bf16(x[i]);
            memcpy(to + 2 * i, &half, sizeof half);
        }
    else
        rz_quantise_row(x, cols, c->dtype == RZ_I8 ? 8 : 4, c->group, to,
                        c->scale + at * ((cols + c->group - 1) / c->group));
}

static void convert_rows(void *arg, size_t i)
{
    conversion *c = arg;
    const size_t begin = c->first + i * c->step, left = c->first + c->n - begin;
    const rz_matrix_source *from = c->from;
    float *own = from->floats ? NULL : rz_malloc(c->host, from->cols * sizeof *own);
    if (!from->floats && !own) {
        atomic_store(&c->no_memory, true);
        return;
    }
    for (size_t r = begin; r < begin + (left < c->step ? left : c->step); r++) {
        if (own) read_row(from, r, own);
        const float *x = own ? own : from->floats + r * from->cols;
        if (!is_finite(x, from->cols)) note_bad(c, r);
        put_row(c, r, x);
    }
    rz_free(c->host, own);
}

radz_status rz_precision_convert(const rz_host *host, rz_pool *pool, const rz_matrix_source *from, size_t first,
                                 size_t n, rz_dtype dtype, size_t group, void *data, uint16_t *scale, radz_error *err)
{
    const size_t step = 1 + (1 << 16) / (from->cols + 1);
    conversion c = {.host = host, .from = from, .first = first, .n = n, .step = step, .group = group, .dtype = dtype};
    c.data = data, c.scale = scale;
    atomic_init(&c.bad_row, SIZE_MAX);
    atomic_init(&c.no_memory, false);
    const size_t n_tasks = (n + step - 1) / step;
    if (pool)
        rz_pool_run(pool, n_tasks, convert_rows, &c);
    else
        for (size_t i = 0; i < n_tasks; i++) convert_rows(&c, i);
    if (atomic_load(&c.no_memory)) return RZ_NO_MEMORY(err, from->name);
    const size_t bad = atomic_load(&c.bad_row);
    if (bad == SIZE_MAX) return RADZ_OK;
    return rz_fail(err, RADZ_E_FORMAT, "tensor '%s': row %zu has a number that is not finite", from->name, bad);
}
