/* json.c - jansson behind our limits and our error grammar. Locale-free as jansson is; the tree is jansson's own.
 * SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"

#define JSON_MAX_DEPTH 64

/* jansson recurses up to 2048 levels and reports a NUL as a syntax error: look first, then parse. */
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

/* jansson quotes the offending text after "near": a message holds no file content, so that part goes. */
static radz_status fail_syntax(radz_error *err, const char *what, const json_error_t *je)
{
    const char *near = strstr(je->text, " near ");
    int n = near ? (int)(near - je->text) : (int)strlen(je->text);
    if (json_error_code(je) == json_error_out_of_memory) return RZ_NO_MEMORY(err, what);
    return rz_fail(err, RADZ_E_FORMAT, "%s: line %d, column %d: %.*s, expected valid JSON", what, je->line, je->column,
                   n, je->text);
}

radz_status rz_json_parse(const char *text, size_t n, const char *what, json_t **out, radz_error *err)
{
    json_error_t je;
    *out = NULL;
    RZ_TRY(check_shape(text, n, what, err));
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    return *out ? RADZ_OK : fail_syntax(err, what, &je);
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
    rz_str_puts(&s, "expected a number in ");
    rz_str_put_double(&s, min);
    rz_str_puts(&s, "..");
    rz_str_put_double(&s, max);
    rz_str_puts(&s, ", found ");
    rz_str_put_double(&s, v);
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
