/* dicom_write.c - DICOM objects in memory, explicit little endian. SPDX-License-Identifier: Apache-2.0 */
#include "dicom_write.h"

#include <stdlib.h>

/* Registered under no one's root: derived from its own name, as rz_dicom_make_uid does. */
#define IMPLEMENTATION_NAME "LIBRADZ"

/* ---- Bytes ---------------------------------------------------------------------------------- */

static void put_le(rz_str *s, uint64_t v, size_t n)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)(v >> 8 * i);
    rz_str_put(s, bytes, n);
}

static bool is_one_of(const char *vr, const char *list)
{
    for (; *list; list += 2)
        if (vr[0] == list[0] && vr[1] == list[1]) return true;
    return false;
}

static void put_head(rz_str *s, uint32_t tag, const char *vr, size_t n)
{
    const bool is_long = is_one_of(vr, "OBODOFOLOVOWSQSVUCUNURUTUV");
    put_le(s, tag >> 16, 2);
    put_le(s, tag & 0xffff, 2);
    rz_str_put(s, vr, 2);
    if (is_long) put_le(s, 0, 2);
    put_le(s, n, is_long ? 4 : 2);
}

static size_t longest(const char *vr)
{
    return is_one_of(vr, "OBODOFOLOVOWSQSVUCUNURUTUV") ? 0xfffffffe : 0xfffe;
}

/* Notes where an element of the data set itself begins. */
static void begin_place(rz_dicom_out *o, uint32_t tag)
{
    if (o->depth) return;
    if (o->n_places == RZ_DICOM_OUT_ELEMENTS)
        o->too_large = true;
    else
        o->places[o->n_places++] = (struct rz_dicom_place){tag, o->bytes.len, 0};
}

static void end_place(rz_dicom_out *o)
{
    if (!o->depth && o->n_places) o->places[o->n_places - 1].n = o->bytes.len - o->places[o->n_places - 1].at;
}

static void put_padded(rz_str *s, uint32_t tag, const char *vr, const void *value, size_t n)
{
    put_head(s, tag, vr, n + n % 2);
    rz_str_put(s, value, n);
    if (n % 2) rz_str_put(s, is_one_of(vr, "UIOBUN") ? "" : " ", 1);
}

void rz_dicom_put(rz_dicom_out *o, uint32_t tag, const char *vr, const void *value, size_t n)
{
    if (n > longest(vr)) {
        o->too_large = true;
        return;
    }
    begin_place(o, tag);
    put_padded(&o->bytes, tag, vr, value, n);
    end_place(o);
}

/* ---- Texts ------------------------------------------------------------------------------------- */

static size_t most_characters(const char *vr)
{
    return is_one_of(vr, "LO") ? 64 : is_one_of(vr, "SHCS") ? 16 : is_one_of(vr, "ST") ? 1024 : SIZE_MAX;
}

static void put_character(rz_str *s, rz_dicom_charset charset, bool single, const char *p, size_t n, uint32_t c)
{
    if (c < 0x20 || c == 0x7f)
        rz_str_put(s, !single && c == '\n' ? "\r\n" : " ", !single && c == '\n' ? 2 : 1);
    else if (c < 0x7f)
        rz_str_put(s, single && c == '\\' ? "/" : p, 1);
    else if (charset == RZ_CHARSET_UTF8)
        rz_str_put(s, p, n);
    else if (charset == RZ_CHARSET_LATIN1 && c >= 0xa0 && c <= 0xff)
        put_le(s, c, 1);
    else
        rz_str_put(s, "?", 1);
}

void rz_dicom_put_text(rz_dicom_out *o, uint32_t tag, const char *vr, const char *text)
{
    rz_str s = {.host = o->bytes.host};
    const size_t n = text ? strlen(text) : 0;
    const bool single = !is_one_of(vr, "STLTUT");
    size_t left = most_characters(vr);
    for (size_t i = 0; i < n && left; left--) {
        uint32_t c = '?';
        const size_t step = rz_utf8_next(text + i, n - i, &c);
        o->beyond_ascii = o->beyond_ascii || c >= 0x80;
        put_character(&s, o->charset, single, step ? text + i : "?", step ? step : 1, step ? c : '?');
        i += step ? step : 1;
    }
    rz_dicom_put(o, tag, vr, s.len ? s.data : "", s.len);
    o->bytes.failed = o->bytes.failed || s.failed;
    rz_str_free(&s);
}

/* ---- Numbers ------------------------------------------------------------------------------------ */

void rz_dicom_put_u16(rz_dicom_out *o, uint32_t tag, unsigned v)
{
    const uint8_t bytes[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
    rz_dicom_put(o, tag, "US", bytes, 2);
}

static void put_words(rz_dicom_out *o, uint32_t tag, const char *vr, const void *v, size_t n)
{
    rz_str s = {.host = o->bytes.host};
    for (size_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, (const uint8_t *)v + 4 * i, 4);
        put_le(&s, word, 4);
    }
    rz_dicom_put(o, tag, vr, s.len ? s.data : "", s.len);
    o->bytes.failed = o->bytes.failed || s.failed;
    rz_str_free(&s);
}

void rz_dicom_put_i32s(rz_dicom_out *o, uint32_t tag, const int32_t *v, size_t n)
{
    put_words(o, tag, "SL", v, n);
}

void rz_dicom_put_floats(rz_dicom_out *o, uint32_t tag, const float *v, size_t n)
{
    put_words(o, tag, "FL", v, n);
}

void rz_dicom_put_double(rz_dicom_out *o, uint32_t tag, double v)
{
    uint64_t word;
    uint8_t bytes[8];
    memcpy(&word, &v, 8);
    for (size_t i = 0; i < 8; i++) bytes[i] = (uint8_t)(word >> 8 * i);
    rz_dicom_put(o, tag, "FD", bytes, 8);
}

/* The shortest digits that read back to the same number are at times too long: then the nearest that fit. */
void rz_dicom_put_decimal(rz_dicom_out *o, uint32_t tag, double v)
{
    rz_str s = {.host = o->bytes.host};
    rz_str_put_double(&s, v);
    for (double scale = 1e12; s.len > 16 && scale >= 1; scale /= 10) {
        s.len = 0;
        rz_str_put_double(&s, round(v * scale) / scale);
    }
    rz_dicom_put(o, tag, "DS", s.len ? s.data : "", s.len < 16 ? s.len : 16);
    o->bytes.failed = o->bytes.failed || s.failed;
    rz_str_free(&s);
}

void rz_dicom_put_integer(rz_dicom_out *o, uint32_t tag, long long v)
{
    rz_str s = {.host = o->bytes.host};
    rz_str_printf(&s, "%lld", v);
    rz_dicom_put(o, tag, "IS", s.len ? s.data : "", s.len < 12 ? s.len : 12);
    o->bytes.failed = o->bytes.failed || s.failed;
    rz_str_free(&s);
}

/* ---- Sequences ------------------------------------------------------------------------------------ */

static void open_length(rz_dicom_out *o)
{
    if (o->depth == RZ_DICOM_OUT_DEPTH)
        o->too_large = true;
    else
        o->open[o->depth++] = o->bytes.len - 4;
}

void rz_dicom_begin(rz_dicom_out *o, uint32_t tag)
{
    begin_place(o, tag);
    put_head(&o->bytes, tag, "SQ", 0);
    open_length(o);
}

void rz_dicom_begin_item(rz_dicom_out *o)
{
    put_le(&o->bytes, RZ_TAG_ITEM >> 16, 2);
    put_le(&o->bytes, RZ_TAG_ITEM & 0xffff, 2);
    put_le(&o->bytes, 0, 4);
    open_length(o);
}

void rz_dicom_end(rz_dicom_out *o)
{
    if (!o->depth) return;
    const size_t at = o->open[--o->depth], n = o->bytes.len - at - 4;
    for (size_t i = 0; i < 4 && !o->bytes.failed; i++) o->bytes.data[at + i] = (char)(uint8_t)(n >> 8 * i);
    if (n > 0xfffffffe) o->too_large = true;
    end_place(o);
}

/* ---- The file ------------------------------------------------------------------------------------- */

static int by_tag(const void *a, const void *b)
{
    const struct rz_dicom_place *x = a, *y = b;
    return (x->tag > y->tag) - (x->tag < y->tag);
}

static void put_meta(rz_str *file, const char *class_uid, const char *instance_uid)
{
    rz_str meta = {.host = file->host};
    char implementation[65];
    rz_dicom_make_uid(IMPLEMENTATION_NAME, strlen(IMPLEMENTATION_NAME), implementation);
    put_padded(&meta, RZ_TAG(0x0002, 0x0001), "OB", "\0\1", 2);
    put_padded(&meta, RZ_TAG(0x0002, 0x0002), "UI", class_uid, strlen(class_uid));
    put_padded(&meta, RZ_TAG(0x0002, 0x0003), "UI", instance_uid, strlen(instance_uid));
    put_padded(&meta, RZ_TAG(0x0002, 0x0010), "UI", "1.2.840.10008.1.2.1", 19);
    put_padded(&meta, RZ_TAG(0x0002, 0x0012), "UI", implementation, strlen(implementation));
    put_padded(&meta, RZ_TAG(0x0002, 0x0013), "SH", IMPLEMENTATION_NAME, strlen(IMPLEMENTATION_NAME));
    put_head(file, RZ_TAG(0x0002, 0x0000), "UL", 4);
    put_le(file, meta.len, 4);
    rz_str_put(file, meta.data ? meta.data : "", meta.len);
    file->failed = file->failed || meta.failed;
    rz_str_free(&meta);
}

radz_status rz_dicom_finish(rz_dicom_out *o, const char *class_uid, const char *instance_uid, rz_str *file,
                            radz_error *err)
{
    static const char preamble[128];
    *file = (rz_str){.host = o->bytes.host};
    rz_str_put(file, preamble, sizeof preamble);
    rz_str_puts(file, "DICM");
    put_meta(file, class_uid, instance_uid);
    qsort(o->places, o->n_places, sizeof *o->places, by_tag);
    for (size_t i = 0; i < o->n_places && !o->bytes.failed; i++)
        rz_str_put(file, o->bytes.data + o->places[i].at, o->places[i].n);
    const bool no_memory = o->bytes.failed || file->failed, defect = o->too_large || o->depth;
    rz_str_free(&o->bytes);
    if (!no_memory && !defect) return RADZ_OK;
    rz_str_free(file);
    return no_memory ? RZ_NO_MEMORY(err, "a DICOM object")
                     : rz_fail(err, RADZ_E_INTERNAL, "dicom: an object with more elements than its writer takes");
}

/* ---- UIDs ---------------------------------------------------------------------------------------------- */

static unsigned hex_digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

void rz_dicom_make_uid(const char *text, size_t n, char uid[65])
{
    rz_sha256 hash;
    char hex[65], digits[40];
    uint8_t id[16];
    size_t n_digits = 0;
    rz_sha256_init(&hash);
    rz_sha256_put(&hash, text, n);
    rz_sha256_hex(&hash, hex);
    for (size_t i = 0; i < 16; i++) id[i] = (uint8_t)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
    id[6] = (uint8_t)((id[6] & 0x0f) | 0x80); /* kind 8: made in a way of our own */
    id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
    for (bool any = true; any;) { /* divides the 128 bits by ten until nothing is left */
        unsigned rest = 0;
        any = false;
        for (size_t i = 0; i < 16; i++) {
            rest = rest << 8 | id[i];
            id[i] = (uint8_t)(rest / 10);
            any = any || id[i];
            rest %= 10;
        }
        digits[n_digits++] = (char)('0' + rest);
    }
    memcpy(uid, "2.25.", 5);
    for (size_t i = 0; i < n_digits; i++) uid[5 + i] = digits[n_digits - 1 - i];
    uid[5 + n_digits] = 0;
}
