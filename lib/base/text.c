/* text.c - growing strings, JSON text and UTF-8; nothing here asks the locale. Numbers are in number.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- UTF-8 ---------------------------------------------------------------------------- */

size_t rz_utf8_next(const char *text, size_t n, uint32_t *code_point)
{
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *s = (const uint8_t *)text;
    if (!n) return 0;
    size_t len = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
    if (!len || len > n) return 0;
    uint32_t c = len == 1 ? s[0] : s[0] & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3F);
    }
    if (c < smallest[len] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return 0;
    if (code_point) *code_point = c;
    return len;
}

bool rz_utf8_valid(const char *s, size_t n)
{
    while (n) {
        size_t k = rz_utf8_next(s, n, NULL);
        if (!k) return false;
        s += k;
        n -= k;
    }
    return true;
}

/* ---- Growing strings ------------------------------------------------------------------- */

/* Room for n more bytes and the NUL. */
static bool grow(rz_str *s, size_t n)
{
    size_t need;
    if (s->failed) return false;
    if (!rz_size_add(s->len, n, &need) || !rz_size_add(need, 1, &need)) goto fail;
    if (need <= s->cap) return true;
    size_t cap = s->cap < 64 ? 64 : s->cap;
    while (cap < need)
        if (!rz_size_mul(cap, 2, &cap)) goto fail;
    char *data = rz_realloc(s->host, s->data, cap, 1);
    if (!data) goto fail;
    if (!s->data) data[0] = 0;
    s->data = data;
    s->cap = cap;
    return true;
fail:
    s->failed = true;
    return false;
}

void rz_str_put(rz_str *s, const void *bytes, size_t n)
{
    if (!grow(s, n)) return;
    if (n) memcpy(s->data + s->len, bytes, n);
    s->len += n;
    s->data[s->len] = 0;
}

void rz_str_puts(rz_str *s, const char *text)
{
    rz_str_put(s, text, strlen(text));
}

void rz_str_printf(rz_str *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) s->failed = true;
    if (n < 0 || !grow(s, (size_t)n)) return;
    va_start(ap, fmt);
    vsnprintf(s->data + s->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    s->len += (size_t)n;
}

static void put_json_ascii(rz_str *s, char c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *at = c ? strchr(from, c) : NULL;
    if (at) {
        char escaped[2] = {'\\', to[at - from]};
        rz_str_put(s, escaped, 2);
    } else if ((unsigned char)c < 0x20 || c == 0x7F) {
        rz_str_printf(s, "\\u%04x", (unsigned)c);
    } else {
        rz_str_put(s, &c, 1);
    }
}

void rz_str_put_json(rz_str *s, const char *text, size_t n)
{
    rz_str_put(s, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t len = rz_utf8_next(text + i, n - i, NULL);
        if (len == 1)
            put_json_ascii(s, text[i]);
        else if (len)
            rz_str_put(s, text + i, len);
        else
            rz_str_put(s, "\xEF\xBF\xBD", 3);
        i += len ? len : 1;
    }
    rz_str_put(s, "\"", 1);
}

void rz_str_put_text(rz_str *s, const char *before, const char *text)
{
    rz_str_puts(s, before);
    if (text)
        rz_str_put_json(s, text, strlen(text));
    else
        rz_str_puts(s, "null");
}

void rz_str_put_number(rz_str *s, const char *before, double v)
{
    rz_str_puts(s, before);
    rz_str_put_double(s, v);
}

void rz_str_free(rz_str *s)
{
    rz_free(s->host, s->data);
    *s = (rz_str){.host = s->host};
}
