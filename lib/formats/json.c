/* json.c - strict JSON with our limits and our error grammar, into the tree of jansson. Locale-free.
 * SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"

#define JSON_MAX_DEPTH 64

/* What bounds the recursion of the parser, and lets it take NUL for the end. */
static radz_status check_shape(const char *text, size_t n, const char *what, radz_error *err)
{
    size_t depth = 0;
    bool in_string = false;
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        return rz_fail(err, RADZ_E_FORMAT, "%s: starts with a byte-order mark, expected plain UTF-8 JSON", what);
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '\0') return rz_fail(err, RADZ_E_FORMAT, "%s: NUL byte at offset %zu, expected JSON text", what, i);
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > JSON_MAX_DEPTH)
                return rz_fail(err, RADZ_E_LIMIT, "%s: JSON nested deeper than %d levels", what, JSON_MAX_DEPTH);
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return RADZ_OK;
}

/* ---- Parsing: jansson has the tree, the text is read here. Its own reader, when an allocation fails inside a string,
 * goes on with the string cut short and then writes past its end. ---- */

typedef struct parser {
    const char *text, *what;
    size_t n, at;
    rz_str string; /* the last string read */
    radz_error *err;
} parser;

/* A message holds no file content: the place says enough. */
static radz_status fail_at(const parser *p, size_t at, const char *reason)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at && i < p->n; i++) {
        column = p->text[i] == '\n' ? 1 : column + 1;
        line += p->text[i] == '\n';
    }
    return rz_fail(p->err, RADZ_E_FORMAT, "%s: line %zu, column %zu: %s, expected valid JSON", p->what, line, column,
                   reason);
}

static char peek(const parser *p)
{
    return p->at < p->n ? p->text[p->at] : '\0'; /* the text holds no NUL */
}

static char skip_spaces(parser *p)
{
    while (p->at < p->n && strchr(" \t\n\r", p->text[p->at])) p->at++;
    return peek(p);
}

static bool take(parser *p, char c)
{
    if (skip_spaces(p) != c) return false;
    p->at++;
    return true;
}

static bool read_hex(parser *p, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        char c = peek(p);
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return false;
        *out = *out << 4 | (uint32_t)digit;
    }
    return true;
}

static void put_utf8(rz_str *s, uint32_t c)
{
    if (c < 0x80) {
        rz_str_put(s, &(char){(char)c}, 1);
        return;
    }
    char bytes[4];
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6) bytes[i] = (char)(0x80 | (c & 0x3f));
    bytes[0] = (char)((0xf00 >> n & 0xff) | c);
    rz_str_put(s, bytes, (size_t)n);
}

/* Four digits after "\u", and the second half of a pair. */
static radz_status read_unicode(parser *p)
{
    const size_t start = p->at - 2;
    uint32_t c, low;
    if (!read_hex(p, &c)) return fail_at(p, start, "invalid escape");
    if (c >= 0xd800 && c < 0xdc00) {
        if (peek(p) != '\\' || (p->at++, peek(p)) != 'u' || (p->at++, !read_hex(p, &low)) || low < 0xdc00 ||
            low > 0xdfff)
            return fail_at(p, start, "half of a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10 | (low - 0xdc00));
    }
    if (c >= 0xdc00 && c < 0xe000) return fail_at(p, start, "half of a surrogate pair");
    if (!c) return fail_at(p, start, "\\u0000 in a string");
    put_utf8(&p->string, c);
    return RADZ_OK;
}

static radz_status read_escape(parser *p)
{
    static const char codes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char c = (p->at++, peek(p)), *code = c ? strchr(codes, c) : NULL;
    p->at++;
    if (c == 'u') return read_unicode(p);
    if (!code) return fail_at(p, p->at - 2, "invalid escape");
    rz_str_put(&p->string, &meanings[code - codes], 1);
    return RADZ_OK;
}

/* A string, its opening quote first, into p->string. */
static radz_status read_string(parser *p)
{
    const size_t start = p->at++;
    p->string.len = 0;
    rz_str_put(&p->string, "", 0);
    for (;;) {
        size_t from = p->at;
        while (p->at < p->n && p->text[p->at] != '"' && p->text[p->at] != '\\') {
            uint32_t c;
            size_t len = rz_utf8_next(p->text + p->at, p->n - p->at, &c);
            if (!len) return fail_at(p, p->at, "invalid UTF-8");
            if (c < 0x20) return fail_at(p, p->at, "control character in a string");
            p->at += len;
        }
        rz_str_put(&p->string, p->text + from, p->at - from);
        if (p->at == p->n) return fail_at(p, start, "a string that never ends");
        if (p->text[p->at] == '"') break;
        RZ_TRY(read_escape(p));
    }
    p->at++;
    return p->string.failed ? RZ_NO_MEMORY(p->err, p->what) : RADZ_OK;
}

static size_t skip_digits(parser *p)
{
    size_t start = p->at;
    while (peek(p) >= '0' && peek(p) <= '9') p->at++;
    return p->at - start;
}

static radz_status read_number(parser *p, json_t **out)
{
    const size_t start = p->at;
    int64_t whole;
    double value;
    bool real = false;
    if (peek(p) == '-') p->at++;
    if (peek(p) == '0')
        p->at++;
    else if (!skip_digits(p))
        return fail_at(p, start, "invalid token");
    if (peek(p) == '.') {
        real = true, p->at++;
        if (!skip_digits(p)) return fail_at(p, start, "invalid number");
    }
    if (peek(p) == 'e' || peek(p) == 'E') {
        real = true, p->at++;
        if (peek(p) == '+' || peek(p) == '-') p->at++;
        if (!skip_digits(p)) return fail_at(p, start, "invalid number");
    }
    /* An integer of more than 64 bits is a number all the same: tokenizers without a limit say 10^30. */
    if (!real && rz_parse_int64(p->text + start, p->at - start, &whole))
        *out = json_integer(whole);
    else if (rz_parse_double(p->text + start, p->at - start, &value))
        *out = json_real(value);
    else
        return fail_at(p, start, "number overflow");
    return *out ? RADZ_OK : RZ_NO_MEMORY(p->err, p->what);
}

static radz_status read_word(parser *p, json_t **out)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < RZ_COUNT(words); i++) {
        size_t n = strlen(words[i]);
        if (p->n - p->at < n || memcmp(p->text + p->at, words[i], n)) continue;
        p->at += n;
        *out = i == 0 ? json_true() : i == 1 ? json_false() : json_null();
        return RADZ_OK;
    }
    return fail_at(p, p->at, "invalid token");
}

static radz_status read_value(parser *p, json_t **out);

/* One member behind '{' or ','. */
static radz_status read_member(parser *p, json_t *object)
{
    json_t *value = NULL;
    if (skip_spaces(p) != '"') return fail_at(p, p->at, "string or '}' expected");
    const size_t start = p->at;
    RZ_TRY(read_string(p));
    if (json_object_get(object, p->string.data)) return fail_at(p, start, "duplicate object key");
    char *key = rz_strdup(NULL, p->string.data); /* the value may be a string too */
    if (!key) return RZ_NO_MEMORY(p->err, p->what);
    radz_status status = take(p, ':') ? read_value(p, &value) : fail_at(p, p->at, "':' expected");
    if (!status && json_object_set_new_nocheck(object, key, value)) status = RZ_NO_MEMORY(p->err, p->what);
    rz_free(NULL, key);
    return status;
}

static radz_status read_element(parser *p, json_t *array)
{
    json_t *value = NULL;
    RZ_TRY(read_value(p, &value));
    return json_array_append_new(array, value) ? RZ_NO_MEMORY(p->err, p->what) : RADZ_OK;
}

/* An object or array, its bracket first. Depth was checked before. */
static radz_status read_group(parser *p, json_t **out)
{
    const bool object = p->text[p->at++] == '{';
    const char end = object ? '}' : ']';
    json_t *group = object ? json_object() : json_array();
    radz_status status = group ? RADZ_OK : RZ_NO_MEMORY(p->err, p->what);
    bool more = !status && !take(p, end);
    while (more) {
        status = object ? read_member(p, group) : read_element(p, group);
        more = !status && take(p, ',');
        if (!status && !more && !take(p, end))
            status = fail_at(p, p->at, object ? "',' or '}' expected" : "',' or ']' expected");
    }
    if (status)
        json_decref(group);
    else
        *out = group;
    return status;
}

/* On success *out is a new reference, on failure it stays as it was. */
static radz_status read_value(parser *p, json_t **out)
{
    char c = skip_spaces(p);
    if (c == '{' || c == '[') return read_group(p, out);
    if (c == '-' || (c >= '0' && c <= '9')) return read_number(p, out);
    if (c != '"') return read_word(p, out);
    RZ_TRY(read_string(p));
    *out = json_stringn_nocheck(p->string.data, p->string.len);
    return *out ? RADZ_OK : RZ_NO_MEMORY(p->err, p->what);
}

radz_status rz_json_parse(const char *text, size_t n, const char *what, json_t **out, radz_error *err)
{
    parser p = {.text = text, .what = what, .n = n, .err = err};
    json_t *root = NULL;
    *out = NULL;
    RZ_TRY(check_shape(text, n, what, err));
    char c = skip_spaces(&p);
    radz_status status = c == '{' || c == '[' ? read_group(&p, &root) : fail_at(&p, p.at, "'[' or '{' expected");
    if (!status && skip_spaces(&p)) status = fail_at(&p, p.at, "text after the end");
    rz_str_free(&p.string);
    if (status) {
        json_decref(root);
        return status;
    }
    *out = root;
    return RADZ_OK;
}

radz_status rz_json_load(const rz_host *host, const char *path, size_t max_bytes, json_t **out, radz_error *err)
{
    rz_file file;
    radz_status status;
    *out = NULL;
    RZ_TRY(rz_file_open(host, path, RZ_FILE_READ, max_bytes, &file, err));
    status = rz_json_parse((const char *)file.data, file.size, path, out, err);
    rz_file_close(&file);
    return status;
}

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {"an object", "an array", "a string", "an integer",
                                        "a number",  "true",     "false",    "null"};
    return (size_t)json_typeof(v) < RZ_COUNT(names) ? names[json_typeof(v)] : "something else";
}

/* "config.json" + key is "config.json: key"; "config.json: text_config" + key is "config.json: text_config.key". */
static const char *separator(const char *where)
{
    return strstr(where, ": ") ? "." : ": ";
}

static radz_status fail_type(radz_error *err, const char *where, const char *key, const char *expected, const json_t *v)
{
    return rz_fail(err, RADZ_E_FORMAT, "%s%s%s: expected %s, found %s", where, separator(where), key, expected,
                   type_name(v));
}

/* The member, or NULL where the caller's default stands (absent or null). Not an object is an error. */
static radz_status member(const json_t *obj, const char *where, const char *key, const json_t **v, radz_error *err)
{
    *v = NULL;
    if (!json_is_object(obj))
        return rz_fail(err, RADZ_E_FORMAT, "%s: expected an object, found %s", where, obj ? type_name(obj) : "nothing");
    *v = json_object_get(obj, key);
    if (json_is_null(*v)) *v = NULL;
    return RADZ_OK;
}

radz_status rz_json_int(const json_t *obj, const char *where, const char *key, int64_t min, int64_t max, int64_t *out,
                        radz_error *err)
{
    const json_t *v;
    int64_t i;
    RZ_TRY(member(obj, where, key, &v, err));
    if (!v) return RADZ_OK;
    if (!json_is_integer(v))
        return rz_fail(err, RADZ_E_FORMAT, "%s%s%s: expected an integer in %lld..%lld, found %s", where,
                       separator(where), key, (long long)min, (long long)max, type_name(v));
    i = json_integer_value(v);
    if (i < min || i > max)
        return rz_fail(err, RADZ_E_FORMAT, "%s%s%s: expected an integer in %lld..%lld, found %lld", where,
                       separator(where), key, (long long)min, (long long)max, (long long)i);
    *out = i;
    return RADZ_OK;
}

static radz_status fail_range(radz_error *err, const char *where, const char *key, double min, double max, double v)
{
    rz_str s = {0};
    radz_status status;
    rz_str_put_number(&s, "expected a number in ", min);
    rz_str_put_number(&s, "..", max);
    rz_str_put_number(&s, ", found ", v);
    status = rz_fail(err, RADZ_E_FORMAT, "%s%s%s: %s", where, separator(where), key,
                     s.failed || !s.data ? "number out of range" : s.data);
    rz_str_free(&s);
    return status;
}

radz_status rz_json_double(const json_t *obj, const char *where, const char *key, double min, double max, double *out,
                           radz_error *err)
{
    const json_t *v;
    double d;
    RZ_TRY(member(obj, where, key, &v, err));
    if (!v) return RADZ_OK;
    if (!json_is_number(v)) return fail_type(err, where, key, "a number", v);
    d = json_number_value(v);
    if (!(d >= min && d <= max)) return fail_range(err, where, key, min, max, d);
    *out = d;
    return RADZ_OK;
}

radz_status rz_json_bool(const json_t *obj, const char *where, const char *key, bool *out, radz_error *err)
{
    const json_t *v;
    RZ_TRY(member(obj, where, key, &v, err));
    if (!v) return RADZ_OK;
    if (!json_is_boolean(v)) return fail_type(err, where, key, "true or false", v);
    *out = json_is_true(v);
    return RADZ_OK;
}

radz_status rz_json_string(const json_t *obj, const char *where, const char *key, const char **out, radz_error *err)
{
    const json_t *v;
    RZ_TRY(member(obj, where, key, &v, err));
    if (!v) return RADZ_OK;
    if (!json_is_string(v)) return fail_type(err, where, key, "a string", v);
    *out = json_string_value(v);
    return RADZ_OK;
}
