/* regex.c - does a regular expression, in Python's spelling, match a whole text? The pattern becomes a small automaton
 * that reads each byte once, so that no pattern of a stranger takes exponential time.
 * SPDX-License-Identifier: Apache-2.0 */
#include "regex.h"

#define MAX_CODE 4000
#define MAX_DEPTH 64
#define MAX_REPEAT 1000
#define START_STEPS 500 /* memory and the like, beside what the text costs */

enum op { OP_SET, OP_SPLIT, OP_JUMP, OP_START, OP_END, OP_WORD_EDGE, OP_NOT_WORD_EDGE, OP_MATCH };

/* Jumps are relative, so that a finished piece can be moved and copied. */
typedef struct ins {
    enum op op;
    int x, y;
    uint8_t set[32]; /* OP_SET: one bit per byte */
} ins;

typedef struct parser {
    const rz_host *host;
    const char *s, *whole;
    size_t left;
    ins *code;
    size_t n;
    int depth;
    radz_status status;
    radz_error *err;
} parser;

static void refuse(parser *p, radz_status status, const char *why)
{
    if (!p->status) p->status = rz_fail(p->err, status, "regular expression '%.200s': %s", p->whole, why);
}

static bool more(const parser *p, char c)
{
    return !p->status && p->left && *p->s == c;
}

static void skip(parser *p, size_t n)
{
    p->s += n;
    p->left -= n;
}

static ins *emit(parser *p, enum op op)
{
    if (p->n >= MAX_CODE) refuse(p, RADZ_E_LIMIT, "too long");
    if (p->status) return NULL;
    p->code[p->n] = (ins){.op = op};
    return &p->code[p->n++];
}

/* Makes room for k instructions at `at`. */
static void insert(parser *p, size_t at, size_t k)
{
    if (p->n + k > MAX_CODE) refuse(p, RADZ_E_LIMIT, "too long");
    if (p->status) return;
    memmove(p->code + at + k, p->code + at, (p->n - at) * sizeof *p->code);
    p->n += k;
}

/* ---- Sets of bytes ---- */

static void put(uint8_t *set, unsigned c)
{
    set[c / 8] |= (uint8_t)(1u << c % 8);
}
static bool has(const uint8_t *set, unsigned c)
{
    return set[c / 8] >> c % 8 & 1;
}

static bool is_word(unsigned c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 128;
}

static bool in_kind(char kind, unsigned c)
{
    if (kind == 'd') return c >= '0' && c <= '9';
    if (kind == 's') return c == ' ' || (c >= 9 && c <= 13);
    return is_word(c);
}

/* After a backslash: a kind such as \d, or the byte itself. */
static void put_escape(parser *p, uint8_t *set)
{
    char c = *p->s, low = (char)(c | 32);
    bool letter = low >= 'a' && low <= 'z';
    if (low == 'd' || low == 's' || low == 'w') {
        for (unsigned b = 0; b < 256; b++)
            if (in_kind(low, b) == (c == low)) put(set, b);
    } else if (c == 'n')
        put(set, '\n');
    else if (c == 't')
        put(set, '\t');
    else if (letter || (c >= '0' && c <= '9'))
        refuse(p, RADZ_E_UNSUPPORTED, "an escape that is not supported");
    else
        put(set, (uint8_t)c);
    skip(p, 1);
}

static void put_range(parser *p, uint8_t *set)
{
    unsigned from = (uint8_t)*p->s, to = from;
    skip(p, 1);
    if (p->left > 1 && p->s[0] == '-' && p->s[1] != ']') {
        to = (uint8_t)p->s[1];
        skip(p, 2);
        if (to == '\\') refuse(p, RADZ_E_UNSUPPORTED, "a range that ends in an escape");
    }
    if (to < from) refuse(p, RADZ_E_FORMAT, "a range that runs backwards");
    for (unsigned c = from; c <= to; c++) put(set, c);
}

static void parse_class(parser *p)
{
    uint8_t set[32] = {0};
    bool negated = more(p, '^'), first = true;
    if (negated) skip(p, 1);
    for (; !p->status && p->left && (first || *p->s != ']'); first = false) {
        if (*p->s == '\\' && p->left > 1) {
            skip(p, 1);
            put_escape(p, set);
        } else
            put_range(p, set);
    }
    if (!more(p, ']')) {
        refuse(p, RADZ_E_FORMAT, "expected ']'");
        return;
    }
    skip(p, 1);
    ins *i = emit(p, OP_SET);
    for (unsigned k = 0; i && k < 32; k++) i->set[k] = negated ? (uint8_t)~set[k] : set[k];
}

/* ---- The grammar ---- */

static void parse_choice(parser *p);

static void parse_group(parser *p)
{
    if (more(p, '?')) {
        if (p->left > 1 && p->s[1] == ':')
            skip(p, 2);
        else if (p->left > 2 && p->s[1] == 'P' && p->s[2] == '<') {
            while (p->left && *p->s != '>') skip(p, 1);
            if (p->left) skip(p, 1);
        } else
            refuse(p, RADZ_E_UNSUPPORTED, "(?...) is not supported, only (?:...) and (?P<name>...)");
    }
    parse_choice(p);
    if (more(p, ')'))
        skip(p, 1);
    else
        refuse(p, RADZ_E_FORMAT, "expected ')'");
}

static void parse_escape(parser *p)
{
    if (!p->left) {
        refuse(p, RADZ_E_FORMAT, "ends in a backslash");
        return;
    }
    if (*p->s == 'b' || *p->s == 'B' || *p->s == 'A' || *p->s == 'Z') {
        char c = *p->s;
        skip(p, 1);
        emit(p, c == 'b' ? OP_WORD_EDGE : c == 'B' ? OP_NOT_WORD_EDGE : c == 'A' ? OP_START : OP_END);
        return;
    }
    ins *i = emit(p, OP_SET);
    if (i) put_escape(p, i->set);
}

static void parse_atom(parser *p)
{
    char c = *p->s;
    skip(p, 1);
    if (c == '(')
        parse_group(p);
    else if (c == '[')
        parse_class(p);
    else if (c == '\\')
        parse_escape(p);
    else if (c == '^')
        emit(p, OP_START);
    else if (c == '$')
        emit(p, OP_END);
    else if (c == '*' || c == '+' || c == '?')
        refuse(p, RADZ_E_FORMAT, "nothing to repeat");
    else {
        ins *i = emit(p, OP_SET);
        for (unsigned b = 0; i && b < 256; b++)
            if (c == '.' ? b != '\n' : b == (uint8_t)c) put(i->set, b);
    }
}

static bool parse_number(parser *p, int *out)
{
    int v = 0;
    bool any = false;
    for (; p->left && *p->s >= '0' && *p->s <= '9' && v <= MAX_REPEAT; any = true) {
        v = 10 * v + (*p->s - '0');
        skip(p, 1);
    }
    if (v > MAX_REPEAT) refuse(p, RADZ_E_LIMIT, "more than 1000 repetitions");
    if (any) *out = v;
    return any;
}

/* {2}, {2,}, {,3}, {2,3}; false: the brace is an ordinary character, as Python has it. */
static bool parse_braces(parser *p, int *min, int *max)
{
    const parser before = *p;
    skip(p, 1);
    *min = 0, *max = -1;
    bool from = parse_number(p, min), to = from;
    if (from) *max = *min;
    if (more(p, ',')) {
        skip(p, 1);
        *max = -1;
        to = parse_number(p, max) || from;
    }
    if (!p->status && to && more(p, '}')) {
        skip(p, 1);
        return true;
    }
    if (!p->status) *p = before;
    return false;
}

/* Appends a copy of the `len` instructions at `at`. */
static void repeat(parser *p, size_t at, size_t len)
{
    size_t end = p->n;
    insert(p, end, len);
    if (!p->status) memcpy(p->code + end, p->code + at, len * sizeof *p->code);
}

/* The piece from `at` on, `len` long, becomes optional (max 1) or repeated without end (max -1). */
static void loosen(parser *p, size_t at, size_t len, int max)
{
    insert(p, at, 1);
    if (p->status) return;
    p->code[at] = (ins){.op = OP_SPLIT, .x = 1, .y = (int)len + (max < 0 ? 2 : 1)};
    ins *jump = max < 0 ? emit(p, OP_JUMP) : NULL;
    if (jump) jump->x = -(int)len - 1;
}

/* The last piece, from `at` on, min to max times (max < 0: without end). */
static void quantify(parser *p, size_t at, int min, int max)
{
    size_t len = p->n - at;
    if (max >= 0 && max < min) refuse(p, RADZ_E_FORMAT, "fewer at most than at least");
    for (int k = 1; k < min && !p->status; k++) repeat(p, at, len);
    if (min > 0 && (max < 0 || max > min)) repeat(p, at, len);
    if (p->status) return;
    if (max == 0) {
        p->n = at;
        return;
    }
    if (max == min) return;
    loosen(p, p->n - len, len, max < 0 ? -1 : 1);
    size_t loose = max < 0 ? 0 : len + 1;
    for (int k = min + 1; k < max && !p->status; k++) repeat(p, p->n - loose, loose);
}

static void parse_piece(parser *p)
{
    size_t at = p->n;
    parse_atom(p);
    if (p->status || !p->left) return;
    int min = 0, max = -1;
    char c = *p->s;
    if (c == '*' || c == '+' || c == '?') {
        skip(p, 1);
        min = c == '+', max = c == '?' ? 1 : -1;
    } else if (c != '{' || !parse_braces(p, &min, &max))
        return;
    if (more(p, '?')) skip(p, 1); /* lazy: the same texts match */
    if (p->left && (*p->s == '*' || *p->s == '+')) refuse(p, RADZ_E_UNSUPPORTED, "a repetition of a repetition");
    quantify(p, at, min, max);
}

static void parse_choice(parser *p)
{
    if (++p->depth > MAX_DEPTH) refuse(p, RADZ_E_LIMIT, "nested too deeply");
    size_t at = p->n;
    while (!p->status && p->left && *p->s != '|' && *p->s != ')') parse_piece(p);
    if (more(p, '|')) {
        size_t len = p->n - at;
        skip(p, 1);
        insert(p, at, 1);
        if (!p->status) p->code[at] = (ins){.op = OP_SPLIT, .x = 1, .y = (int)len + 2};
        size_t jump = p->n;
        emit(p, OP_JUMP);
        parse_choice(p);
        if (!p->status) p->code[jump].x = (int)(p->n - jump);
    }
    p->depth--;
}

/* ---- Running it ---- */

typedef struct states {
    size_t n;
    uint16_t at[MAX_CODE + 1];
    bool on[MAX_CODE + 1];
} states;

static bool edge(const char *text, size_t n, size_t i)
{
    bool before = i > 0 && is_word((uint8_t)text[i - 1]), after = i < n && is_word((uint8_t)text[i]);
    return before != after;
}

static bool holds(enum op op, const char *text, size_t n, size_t i)
{
    if (op == OP_START) return i == 0;
    if (op == OP_END) return i == n;
    return edge(text, n, i) == (op == OP_WORD_EDGE);
}

/* Adds a state and all that can be reached from it without reading; `stack` has room for every instruction. */
static void reach(const ins *code, states *to, uint16_t *stack, size_t start, const char *text, size_t n, size_t i)
{
    size_t depth = 0;
    if (to->on[start]) return;
    to->on[start] = true;
    stack[depth++] = (uint16_t)start;
    while (depth) {
        size_t at = stack[--depth], next[2], n_next = 0;
        const ins *c = &code[at];
        to->at[to->n++] = (uint16_t)at;
        if (c->op == OP_SPLIT) next[n_next++] = at + (size_t)c->y;
        if (c->op == OP_SPLIT || c->op == OP_JUMP) next[n_next++] = (size_t)((long)at + c->x);
        if (c->op >= OP_START && c->op <= OP_NOT_WORD_EDGE && holds(c->op, text, n, i)) next[n_next++] = at + 1;
        while (n_next--) {
            if (to->on[next[n_next]]) continue;
            to->on[next[n_next]] = true;
            stack[depth++] = (uint16_t)next[n_next];
        }
    }
}

static void clear(states *s, size_t n_code)
{
    s->n = 0;
    memset(s->on, 0, n_code + 1);
}

/* Takes n of the steps that are left. */
static bool spend(uint64_t *steps, uint64_t n)
{
    const bool enough = *steps >= n;
    *steps = enough ? *steps - n : 0;
    return enough;
}

/* True when code matches text[first..n) as a whole, or the steps are spent. */
static bool run(const ins *code, size_t n_code, states *now, states *then, uint16_t *stack, const char *text,
                size_t first, size_t n, uint64_t *steps)
{
    clear(now, n_code);
    reach(code, now, stack, 0, text, n, first);
    for (size_t i = first; i < n && now->n; i++) {
        if (!spend(steps, 1 + n_code / 32 + now->n)) return true;
        clear(then, n_code);
        for (size_t k = 0; k < now->n; k++) {
            const ins *c = &code[now->at[k]];
            if (c->op == OP_SET && has(c->set, (uint8_t)text[i]))
                reach(code, then, stack, now->at[k] + 1u, text, n, i + 1);
        }
        states *swap = now;
        now = then, then = swap;
    }
    for (size_t k = 0; k < now->n; k++)
        if (code[now->at[k]].op == OP_MATCH) return true;
    return false;
}

radz_status rz_regex_match(const rz_host *host, const char *pattern, const char *text, size_t n, bool any_part,
                           uint64_t *steps, bool *matches, radz_error *err)
{
    struct work {
        ins code[MAX_CODE + 1];
        states a, b;
        uint16_t stack[MAX_CODE + 1];
    } *w = rz_malloc(host, sizeof *w);
    *matches = false;
    if (!w) return RZ_NO_MEMORY(err, "regular expression");
    parser p = {.host = host, .s = pattern, .whole = pattern, .left = strlen(pattern), .code = w->code, .err = err};
    if (!spend(steps, START_STEPS + p.left)) refuse(&p, RADZ_E_LIMIT, "the patterns together take too much work");
    if (!p.status) parse_choice(&p);
    if (!p.status && p.left) refuse(&p, RADZ_E_FORMAT, "a ')' too many");
    if (!p.status) {
        w->code[p.n] = (ins){.op = OP_MATCH};
        for (size_t i = 0; i <= n && !*matches; i++)
            if (i == 0 || (any_part && text[i - 1] == '.'))
                *matches = run(w->code, p.n, &w->a, &w->b, w->stack, text, i, n, steps);
        if (!*steps) refuse(&p, RADZ_E_LIMIT, "the patterns together take too much work");
        *matches &= !p.status;
    }
    rz_free(host, w);
    return p.status;
}
