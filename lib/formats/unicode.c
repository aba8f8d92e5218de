/* unicode.c - kinds of characters, NFC, damaged UTF-8. SPDX-License-Identifier: Apache-2.0 */
#include "unicode.h"

typedef struct range {
    uint32_t lo, hi;
} range;
typedef struct class_range {
    uint32_t lo, hi;
    uint8_t value;
} class_range;
typedef struct decomposition {
    uint32_t c, first, second; /* second 0: there is none */
} decomposition;
typedef struct composition {
    uint32_t first, second, c;
} composition;

#include "unicode_tables.h"

/* ---- Kinds ------------------------------------------------------------------------------------- */

static bool in_ranges(const range *r, size_t n, uint32_t c)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (r[mid].hi < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && r[lo].lo <= c;
}
#define IN(table, c) in_ranges(table, RZ_COUNT(table), c)

static bool is_space(uint32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

rz_char_kind rz_char_kind_of(uint32_t c)
{
    if (c < 0x80) {
        if ((c | 32) >= 'a' && (c | 32) <= 'z') return RZ_CHAR_LETTER;
        if (c >= '0' && c <= '9') return RZ_CHAR_NUMBER;
        return is_space(c) ? RZ_CHAR_SPACE : RZ_CHAR_OTHER;
    }
    if (IN(letters, c)) return RZ_CHAR_LETTER;
    if (IN(numbers, c)) return RZ_CHAR_NUMBER;
    return is_space(c) ? RZ_CHAR_SPACE : RZ_CHAR_OTHER;
}

bool rz_char_is_word(uint32_t c)
{
    return IN(words, c);
}
bool rz_char_is_numeric(uint32_t c)
{
    return IN(numbers, c) || IN(new_numbers, c);
}

/* ---- UTF-8 --------------------------------------------------------------------------------------- */

/* Length of the damaged sequence that s begins with: as far as it could have become a character. */
static size_t damaged_length(const uint8_t *s, size_t n)
{
    uint8_t lo = 0x80, hi = 0xBF;
    size_t want = s[0] >= 0xF0 && s[0] <= 0xF4 ? 3 : s[0] >= 0xE0 && s[0] <= 0xEF ? 2 : 1, k = 1;
    if (s[0] == 0xE0) lo = 0xA0;
    if (s[0] == 0xF0) lo = 0x90;
    if (s[0] == 0xED) hi = 0x9F;
    if (s[0] == 0xF4) hi = 0x8F;
    for (; k < want && k < n && s[k] >= lo && s[k] <= hi; k++) lo = 0x80, hi = 0xBF;
    return k;
}

void rz_utf8_put_lossy(rz_str *s, const char *text, size_t n)
{
    size_t good = 0;
    for (size_t i = 0; i < n;) {
        size_t len = rz_utf8_next(text + i, n - i, NULL);
        if (!len) {
            rz_str_put(s, text + good, i - good);
            rz_str_puts(s, RZ_REPLACEMENT);
            len = damaged_length((const uint8_t *)text + i, n - i);
            good = i + len;
        }
        i += len;
    }
    rz_str_put(s, text + good, n - good);
}

void rz_utf8_put_char(rz_str *s, uint32_t c)
{
    char b[4];
    if (c < 0x80) {
        b[0] = (char)c;
        rz_str_put(s, b, 1);
    } else if (c < 0x800) {
        b[0] = (char)(0xC0 | c >> 6), b[1] = (char)(0x80 | (c & 63));
        rz_str_put(s, b, 2);
    } else if (c < 0x10000) {
        b[0] = (char)(0xE0 | c >> 12), b[1] = (char)(0x80 | (c >> 6 & 63)), b[2] = (char)(0x80 | (c & 63));
        rz_str_put(s, b, 3);
    } else {
        b[0] = (char)(0xF0 | c >> 18), b[1] = (char)(0x80 | (c >> 12 & 63)), b[2] = (char)(0x80 | (c >> 6 & 63));
        b[3] = (char)(0x80 | (c & 63));
        rz_str_put(s, b, 4);
    }
}

/* ---- NFC ------------------------------------------------------------------------------------------- */

enum { HANGUL = 0xAC00, HANGUL_L = 0x1100, HANGUL_V = 0x1161, HANGUL_T = 0x11A7, N_L = 19, N_V = 21, N_T = 28 };

static uint8_t combining_class(uint32_t c)
{
    size_t lo = 0, hi = RZ_COUNT(classes);
    if (c < classes[0].lo) return 0;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (classes[mid].hi < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < RZ_COUNT(classes) && classes[lo].lo <= c ? classes[lo].value : 0;
}

/* The character that two make, 0: none. */
static uint32_t compose(uint32_t a, uint32_t b)
{
    size_t lo = 0, hi = RZ_COUNT(compositions);
    if (b < 0x300) return 0;
    if (a >= HANGUL_L && a < HANGUL_L + N_L && b >= HANGUL_V && b < HANGUL_V + N_V)
        return HANGUL + ((a - HANGUL_L) * N_V + (b - HANGUL_V)) * N_T;
    if (a >= HANGUL && a < HANGUL + N_L * N_V * N_T && (a - HANGUL) % N_T == 0 && b > HANGUL_T && b < HANGUL_T + N_T)
        return a + (b - HANGUL_T);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const composition *c = &compositions[mid];
        if (c->first < a || (c->first == a && c->second < b))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < RZ_COUNT(compositions) && compositions[lo].first == a && compositions[lo].second == b
               ? compositions[lo].c
               : 0;
}

/* A starter and the marks that wait behind it. */
typedef struct nfc {
    rz_str *out;
    const rz_host *host;
    uint32_t starter;
    bool has_starter, no_memory;
    uint32_t *marks; /* class in the upper byte */
    size_t n_marks, cap_marks;
} nfc;

/* Stable, by class: insertion for the few marks that real text has, counting for what an attacker writes. */
static void sort_marks(nfc *s)
{
    size_t at[257] = {0};
    uint32_t *sorted;
    if (s->n_marks <= 32) {
        for (size_t i = 1; i < s->n_marks; i++) {
            uint32_t m = s->marks[i];
            size_t k = i;
            for (; k && s->marks[k - 1] >> 24 > m >> 24; k--) s->marks[k] = s->marks[k - 1];
            s->marks[k] = m;
        }
        return;
    }
    if (!(sorted = rz_calloc(s->host, s->n_marks, sizeof *sorted))) {
        s->no_memory = true;
        return;
    }
    for (size_t i = 0; i < s->n_marks; i++) at[(s->marks[i] >> 24) + 1]++;
    for (size_t k = 1; k < RZ_COUNT(at); k++) at[k] += at[k - 1];
    for (size_t i = 0; i < s->n_marks; i++) sorted[at[s->marks[i] >> 24]++] = s->marks[i];
    memcpy(s->marks, sorted, s->n_marks * sizeof *sorted);
    rz_free(s->host, sorted);
}

/* Puts the marks in order and joins the starter with those that it reaches. */
static void settle(nfc *s)
{
    size_t kept = 0;
    uint32_t last = 0;
    sort_marks(s);
    for (size_t i = 0; i < s->n_marks; i++) {
        uint32_t mark = s->marks[i], c = 0;
        if (s->has_starter && last != mark >> 24) c = compose(s->starter, mark & 0xFFFFFF);
        if (c) {
            s->starter = c;
            continue;
        }
        last = mark >> 24;
        s->marks[kept++] = mark;
    }
    s->n_marks = kept;
}

static void flush(nfc *s)
{
    if (s->has_starter) rz_utf8_put_char(s->out, s->starter);
    for (size_t i = 0; i < s->n_marks; i++) rz_utf8_put_char(s->out, s->marks[i] & 0xFFFFFF);
    s->n_marks = 0;
}

static void push_mark(nfc *s, uint32_t c, uint8_t k)
{
    if (s->n_marks == s->cap_marks) {
        size_t cap = s->cap_marks ? s->cap_marks * 2 : 64;
        uint32_t *marks = rz_realloc(s->host, s->marks, cap, sizeof *marks);
        if (!marks) {
            s->no_memory = true;
            return;
        }
        s->marks = marks;
        s->cap_marks = cap;
    }
    s->marks[s->n_marks++] = (uint32_t)k << 24 | c;
}

static void push(nfc *s, uint32_t c)
{
    uint8_t k = combining_class(c);
    uint32_t joined = 0;
    if (k) {
        push_mark(s, c, k);
        return;
    }
    if (s->n_marks) settle(s);
    if (s->has_starter && s->n_marks == 0) joined = compose(s->starter, c);
    if (!joined) flush(s);
    s->starter = joined ? joined : c;
    s->has_starter = true;
}

/* Pushes the full decomposition of c. Hangul syllables decompose by arithmetic, the rest by table. */
static void push_decomposed(nfc *s, uint32_t c)
{
    size_t lo = 0, hi = RZ_COUNT(decompositions);
    if (c >= HANGUL && c < HANGUL + N_L * N_V * N_T) {
        uint32_t i = c - HANGUL;
        push(s, HANGUL_L + i / (N_V * N_T));
        push(s, HANGUL_V + i % (N_V * N_T) / N_T);
        if (i % N_T) push(s, HANGUL_T + i % N_T);
        return;
    }
    while (lo < hi && c >= decompositions[0].c) {
        size_t mid = lo + (hi - lo) / 2;
        if (decompositions[mid].c < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < RZ_COUNT(decompositions) && decompositions[lo].c == c) {
        push_decomposed(s, decompositions[lo].first);
        if (decompositions[lo].second) push_decomposed(s, decompositions[lo].second);
    } else {
        push(s, c);
    }
}

radz_status rz_nfc_put(rz_str *out, const char *text, size_t n, radz_error *err)
{
    nfc s = {.out = out, .host = out->host};
    for (size_t i = 0; i < n && !s.no_memory && !out->failed;) {
        uint32_t c = 0;
        size_t len = rz_utf8_next(text + i, n - i, &c);
        push_decomposed(&s, c);
        i += len ? len : 1;
    }
    if (s.n_marks) settle(&s);
    flush(&s);
    rz_free(s.host, s.marks);
    return s.no_memory || out->failed ? RZ_NO_MEMORY(err, "text") : RADZ_OK;
}
