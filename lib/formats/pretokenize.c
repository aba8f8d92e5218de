/* pretokenize.c - hand-written matchers for the split patterns of byte-level tokenizers. All are one pattern with four
 * settings: contractions, letters, numbers, other characters, white space. SPDX-License-Identifier: Apache-2.0 */
#include "pretokenize.h"
#include "unicode.h"

struct rz_split_rule {
    const char *regex;
    bool any_case;     /* of contractions */
    bool any_prefix;   /* before letters: any one character but a line break, letter or number; else one space */
    size_t max_digits; /* numbers in one piece, without prefix; 0: any number after an optional space */
    bool line_breaks;  /* follow other characters, and end a piece of white space */
};

static const rz_split_rule rules[] = {
    /* GPT-2, SmolLM */
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", false, false, 0, false},
    /* LLaMA 3 */
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     true, true, 3, true},
    /* Qwen 2 */
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     true, true, 1, true},
    /* cl100k as tiktoken writes it */
    {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|"
     "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
     true, true, 3, true},
};

const rz_split_rule *const rz_split_gpt2 = &rules[0];

const rz_split_rule *rz_split_find(const char *regex)
{
    for (size_t i = 0; i < RZ_COUNT(rules); i++)
        if (strcmp(rules[i].regex, regex) == 0) return &rules[i];
    return NULL;
}

/* The kind of the character at s[at] and its length, 0 at the end. */
static size_t look_at(const char *s, size_t n, size_t at, rz_char_kind *kind)
{
    uint32_t c = 0;
    size_t len = at < n ? rz_utf8_next(s + at, n - at, &c) : 0;
    *kind = rz_char_kind_of(c);
    return at < n && !len ? 1 : len;
}

/* End of the run of at most `most` characters of this kind that begins at s[at]. */
static size_t run_end(const char *s, size_t n, size_t at, rz_char_kind want, size_t most)
{
    rz_char_kind kind;
    for (size_t len; most-- && (len = look_at(s, n, at, &kind)) && kind == want;) at += len;
    return at;
}

static size_t match_contraction(const char *s, size_t n, bool any_case)
{
    char a, b;
    if (n < 2 || s[0] != '\'') return 0;
    a = s[1];
    b = n > 2 ? s[2] : 0;
    if (any_case && a == '\xc5' && b == '\xbf') return 3; /* a long s is an s */
    if (any_case && a >= 'A' && a <= 'Z') a |= 32;
    if (any_case && b >= 'A' && b <= 'Z') b |= 32;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

static bool is_break(char c)
{
    return c == '\r' || c == '\n';
}

/* Up to the last line break in it, or to its end, or to before the last character where a word follows. */
static size_t match_space(const rz_split_rule *rule, const char *s, size_t n)
{
    size_t end = 0, before = 0, after_break = 0, len;
    rz_char_kind kind;
    while ((len = look_at(s, n, end, &kind)) && kind == RZ_CHAR_SPACE) {
        before = end;
        end += len;
        if (is_break(s[before])) after_break = end;
    }
    if (rule->line_breaks && after_break) return after_break;
    return end < n && before ? before : end;
}

size_t rz_split_next(const rz_split_rule *rule, const char *s, size_t n)
{
    rz_char_kind kind, next;
    size_t len = match_contraction(s, n, rule->any_case), first, at, end;
    if (len || !n) return len;
    first = look_at(s, n, 0, &kind);
    look_at(s, n, first, &next);
    if (rule->any_prefix) {
        if (kind == RZ_CHAR_LETTER) return run_end(s, n, 0, RZ_CHAR_LETTER, SIZE_MAX);
        if (kind != RZ_CHAR_NUMBER && !is_break(*s) && first < n && next == RZ_CHAR_LETTER)
            return run_end(s, n, first, RZ_CHAR_LETTER, SIZE_MAX);
        if (kind == RZ_CHAR_NUMBER) return run_end(s, n, 0, RZ_CHAR_NUMBER, rule->max_digits);
    }
    at = *s == ' ' && first < n && next != RZ_CHAR_SPACE && (!rule->any_prefix || next == RZ_CHAR_OTHER) ? 1 : 0;
    if (at) kind = next;
    if (kind == RZ_CHAR_SPACE) return match_space(rule, s, n);
    end = run_end(s, n, at, kind, SIZE_MAX);
    while (rule->line_breaks && kind == RZ_CHAR_OTHER && end < n && is_break(s[end])) end++;
    return end;
}
