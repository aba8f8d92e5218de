/* dicom_value.c - values of DICOM elements: numbers, texts, look-up tables. SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

const rz_dicom_element *rz_dicom_find(const rz_dicom *d, uint32_t tag)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->elements[i].tag == tag && !d->elements[i].depth) return &d->elements[i];
    return NULL;
}

const rz_dicom_element *rz_dicom_find_in(const rz_dicom *d, uint32_t sequence, uint32_t tag)
{
    const rz_dicom_element *seq = rz_dicom_find(d, sequence), *end = d->elements + d->n;
    if (!seq) return NULL;
    size_t n_items = 0;
    for (const rz_dicom_element *e = seq + 1; e < end && e->depth && n_items < 2; e++) {
        n_items += e->depth == 1;
        if (e->depth == 2 && e->tag == tag && n_items == 1) return e;
    }
    return NULL;
}

unsigned rz_dicom_u16(const rz_dicom *d, const rz_dicom_element *e, size_t i)
{
    const uint8_t *p = e->value + 2 * i;
    return d->big ? (unsigned)p[0] << 8 | p[1] : (unsigned)p[1] << 8 | p[0];
}

bool rz_dicom_text(const rz_dicom_element *e, size_t i, char *to, size_t cap)
{
    const char *p = (const char *)e->value, *end = p + e->length;
    for (; i; i--) {
        p = memchr(p, '\\', (size_t)(end - p));
        if (!p) return false;
        p++;
    }
    const char *stop = memchr(p, '\\', (size_t)(end - p));
    if (stop) end = stop;
    while (p < end && *p == ' ') p++;
    while (p < end && (end[-1] == ' ' || !end[-1])) end--;
    if ((size_t)(end - p) >= cap) return false;
    memcpy(to, p, (size_t)(end - p));
    to[end - p] = 0;
    return memchr(to, 0, (size_t)(end - p)) == NULL;
}

static bool holds_only(const char *s, const char *allowed)
{
    return s[strspn(s, allowed)] == 0;
}

void rz_dicom_code(const rz_dicom *d, uint32_t tag, char to[17])
{
    const rz_dicom_element *e = rz_dicom_find(d, tag);
    const bool there = e && rz_dicom_text(e, 0, to, 17);
    for (char *c = to; there && *c; c++) *c = *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c;
    if (!there || !holds_only(to, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _")) to[0] = 0;
}

void rz_dicom_uid(const rz_dicom *d, uint32_t tag, char to[65])
{
    const rz_dicom_element *e = rz_dicom_find(d, tag);
    if (!e || !rz_dicom_text(e, 0, to, 65) || !holds_only(to, "0123456789.")) to[0] = 0;
}

static radz_status bad_value(const rz_dicom *d, uint32_t tag, const char *name, const char *expected, radz_error *err)
{
    return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: %s (%04x,%04x): expected %s", d->what, name, (unsigned)(tag >> 16),
                   (unsigned)(tag & 0xffff), expected);
}

radz_status rz_dicom_get_u16(const rz_dicom *d, uint32_t tag, const char *name, bool required, unsigned *out,
                             radz_error *err)
{
    const rz_dicom_element *e = rz_dicom_find(d, tag);
    if (e && !e->length) e = NULL;
    const bool typed = !e || !e->vr[0] || !memcmp(e->vr, "US", 2) || !memcmp(e->vr, "SS", 2) || !memcmp(e->vr, "UN", 2);
    if ((e && (e->length != 2 || !typed)) || (!e && required)) return bad_value(d, tag, name, "one 16-bit number", err);
    if (e) *out = rz_dicom_u16(d, e, 0);
    return RADZ_OK;
}

radz_status rz_dicom_get_decimal(const rz_dicom *d, uint32_t tag, const char *name, double *out, bool *found,
                                 radz_error *err)
{
    const rz_dicom_element *e = rz_dicom_find(d, tag);
    char text[72];
    *found = e && e->length;
    if (!*found) return RADZ_OK;
    if (!rz_dicom_text(e, 0, text, sizeof text)) return bad_value(d, tag, name, "a decimal number", err);
    *found = text[0] != 0;
    if (*found && !rz_parse_double(text, strlen(text), out)) return bad_value(d, tag, name, "a decimal number", err);
    return RADZ_OK;
}

/* ---- Look-up tables ------------------------------------------------------------------------- */

radz_status rz_dicom_lut_read(const rz_dicom *d, const rz_dicom_element *descriptor, const rz_dicom_element *data,
                              bool is_signed, const char *name, rz_dicom_lut *lut, radz_error *err)
{
    if (!descriptor || descriptor->length != 6 || !data)
        return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: %s: expected a descriptor of three numbers and data", d->what,
                       name);
    *lut = (rz_dicom_lut){.n = rz_dicom_u16(d, descriptor, 0), .data = data->value, .big = d->big};
    const unsigned first = rz_dicom_u16(d, descriptor, 1);
    if (lut->n == 0) lut->n = 65536;
    lut->first = is_signed ? (int16_t)first : (int)first;
    lut->bits = rz_dicom_u16(d, descriptor, 2);
    if (lut->bits < 8 || lut->bits > 16)
        return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: %s: %u bits, expected 8..16", d->what, name, lut->bits);
    /* Entries of 8 bits come packed, two to a word, or in a word each. */
    lut->wide = data->length >= 2 * lut->n;
    if (data->length < lut->n || (lut->bits > 8 && !lut->wide))
        return rz_fail(err, RADZ_E_FORMAT, "%s: dicom: %s: %zu bytes for %zu entries", d->what, name, data->length,
                       lut->n);
    return RADZ_OK;
}

unsigned rz_dicom_lut_at(const rz_dicom_lut *lut, double index)
{
    const double from = index - lut->first;
    size_t i = !(from > 0) ? 0 : from >= (double)(lut->n - 1) ? lut->n - 1 : (size_t)from;
    /* Two to a word: which is first depends on the byte order. */
    if (!lut->wide) return lut->data[lut->big && (i ^ 1) < lut->n ? i ^ 1 : i];
    const uint8_t *p = lut->data + 2 * i;
    return lut->big ? (unsigned)p[0] << 8 | p[1] : (unsigned)p[1] << 8 | p[0];
}
