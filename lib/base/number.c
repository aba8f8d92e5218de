/* number.c - decimal text to numbers and back, exact and without a locale. SPDX-License-Identifier: Apache-2.0
 *
 * Both directions work on big integers: printing by the Steele-White / Dragon4 digit loop (the shortest digits
 * that read back), parsing by long division of digits * 5^k, rounded once. */
#include "base.h"

/* ---- Unsigned big integers -------------------------------------------------------------- */

enum {
    BIG_WORDS = 136,  /* 4352 bits; the largest value met is 10^1112 */
    MAX_DIGITS = 780, /* more than 768 digits never decide a rounding, only whether something follows */
};

typedef struct big {
    int n; /* words in use, no leading zero words */
    uint32_t w[BIG_WORDS];
} big;

static void big_set(big *b, uint64_t v)
{
    b->n = 0;
    for (; v; v >>= 32) b->w[b->n++] = (uint32_t)v;
}

/* b = b * m + add */
static void big_mul_add(big *b, uint32_t m, uint32_t add)
{
    uint64_t carry = add;
    for (int i = 0; i < b->n; i++) {
        carry += (uint64_t)b->w[i] * m;
        b->w[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry && b->n < BIG_WORDS) b->w[b->n++] = (uint32_t)carry;
}

static void big_mul_pow5(big *b, int k)
{
    for (; k >= 13; k -= 13) big_mul_add(b, 1220703125u, 0); /* 5^13 */
    for (; k > 0; k--) big_mul_add(b, 5, 0);
}

static void big_shift_left(big *b, int bits)
{
    int words = bits / 32, rest = bits % 32;
    if (!b->n || b->n + words + 1 > BIG_WORDS) return;
    b->w[b->n] = 0;
    for (int i = b->n; i >= 0; i--) {
        uint32_t low = i && rest ? b->w[i - 1] >> (32 - rest) : 0;
        b->w[i + words] = b->w[i] << rest | low;
    }
    memset(b->w, 0, (size_t)words * sizeof *b->w);
    b->n += words + 1;
    while (b->n && !b->w[b->n - 1]) b->n--;
}

static void big_mul_pow10(big *b, int k)
{
    big_mul_pow5(b, k);
    big_shift_left(b, k);
}

static int big_bits(const big *b)
{
    return b->n ? 32 * b->n - __builtin_clz(b->w[b->n - 1]) : 0;
}

static int big_compare(const big *a, const big *b)
{
    if (a->n != b->n) return a->n < b->n ? -1 : 1;
    for (int i = a->n - 1; i >= 0; i--)
        if (a->w[i] != b->w[i]) return a->w[i] < b->w[i] ? -1 : 1;
    return 0;
}

/* a -= b, where a >= b */
static void big_subtract(big *a, const big *b)
{
    int64_t borrow = 0;
    for (int i = 0; i < a->n; i++) {
        borrow += (int64_t)a->w[i] - (i < b->n ? b->w[i] : 0);
        a->w[i] = (uint32_t)borrow;
        borrow >>= 32;
    }
    while (a->n && !a->w[a->n - 1]) a->n--;
}

static void big_add(big *a, const big *b)
{
    uint64_t carry = 0;
    int n = a->n > b->n ? a->n : b->n;
    for (int i = 0; i < n; i++) {
        carry += (uint64_t)(i < a->n ? a->w[i] : 0) + (i < b->n ? b->w[i] : 0);
        a->w[i] = (uint32_t)carry;
        carry >>= 32;
    }
    a->n = n;
    if (carry && n < BIG_WORDS) a->w[a->n++] = (uint32_t)carry;
}

/* ---- Printing --------------------------------------------------------------------------- */

/* The value is r / s; everything within (low, high) around it reads back to the same double. */
typedef struct digits_state {
    big r, s, low, high;
    bool closed; /* the ends of the interval read back too: even significand */
} digits_state;

static void digits_start(digits_state *d, uint64_t significand, int exp2, bool narrow_below)
{
    int up = exp2 > 0 ? exp2 : 0, down = exp2 < 0 ? -exp2 : 0;
    big_set(&d->r, significand);
    big_shift_left(&d->r, up + 1 + narrow_below);
    big_set(&d->s, 1);
    big_shift_left(&d->s, down + 1 + narrow_below);
    big_set(&d->low, 1);
    big_shift_left(&d->low, up);
    big_set(&d->high, 1);
    big_shift_left(&d->high, up + narrow_below);
    d->closed = !(significand & 1);
}

/* Does r + high reach s? */
static bool digits_reach(const digits_state *d)
{
    big sum = d->r;
    big_add(&sum, &d->high);
    int c = big_compare(&sum, &d->s);
    return d->closed ? c >= 0 : c > 0;
}

static void digits_times_ten(digits_state *d)
{
    big_mul_add(&d->r, 10, 0);
    big_mul_add(&d->low, 10, 0);
    big_mul_add(&d->high, 10, 0);
}

/* Scales so that 1/10 <= value < 1 of a power of ten; returns that power. */
static int digits_scale(digits_state *d, int bits)
{
    int k = bits * 30103 / 100000 - (bits < 0) - 1; /* a little below log10 of the value, so that the loop ends it */
    if (k > 0) {
        big_mul_pow10(&d->s, k);
    } else {
        big_mul_pow10(&d->r, -k);
        big_mul_pow10(&d->low, -k);
        big_mul_pow10(&d->high, -k);
    }
    for (; digits_reach(d); k++) big_mul_add(&d->s, 10, 0);
    return k;
}

static int digits_make(digits_state *d, char *out)
{
    int n = 0;
    for (;;) {
        digits_times_ten(d);
        char digit = '0';
        for (; big_compare(&d->r, &d->s) >= 0; digit++) big_subtract(&d->r, &d->s);
        int c = big_compare(&d->r, &d->low);
        bool low = d->closed ? c <= 0 : c < 0, high = digits_reach(d);
        if (!low && !high) {
            out[n++] = digit;
            continue;
        }
        big twice = d->r;
        big_shift_left(&twice, 1);
        if (high && (!low || big_compare(&twice, &d->s) >= 0)) digit++;
        out[n++] = digit;
        return n;
    }
}

/* Shortest digits of a positive finite v = 0.d1d2d3... * 10^*exp10. */
static int shortest_digits(double v, char *out, int *exp10)
{
    uint64_t bits;
    memcpy(&bits, &v, 8);
    uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    int e = (int)(bits >> 52 & 0x7FF);
    uint64_t significand = e ? fraction | UINT64_C(1) << 52 : fraction;
    int exp2 = (e ? e : 1) - 1075;
    digits_state d;
    digits_start(&d, significand, exp2, !fraction && e > 1);
    *exp10 = digits_scale(&d, exp2 + 64 - __builtin_clzll(significand) - 1);
    return digits_make(&d, out);
}

static void put_zeros(rz_str *s, int n)
{
    for (; n > 0; n--) rz_str_put(s, "0", 1);
}

void rz_str_put_double(rz_str *s, double v)
{
    char digits[24];
    int point;
    if (!isfinite(v)) {
        rz_str_puts(s, "null");
        return;
    }
    if (signbit(v)) rz_str_puts(s, "-");
    if (v == 0) {
        rz_str_puts(s, signbit(v) ? "0.0" : "0"); /* JSON readers drop the sign of "-0" */
        return;
    }
    int n = shortest_digits(fabs(v), digits, &point);
    if (point < -4 || point > 17) {
        rz_str_put(s, digits, 1);
        if (n > 1) rz_str_puts(s, ".");
        rz_str_put(s, digits + 1, (size_t)n - 1);
        rz_str_printf(s, "e%d", point - 1);
    } else if (point <= 0) {
        rz_str_puts(s, "0.");
        put_zeros(s, -point);
        rz_str_put(s, digits, (size_t)n);
    } else {
        int whole = n < point ? n : point;
        rz_str_put(s, digits, (size_t)whole);
        put_zeros(s, point - n);
        if (n > point) rz_str_puts(s, ".");
        rz_str_put(s, digits + whole, (size_t)(n - whole));
    }
}

/* ---- Parsing ---------------------------------------------------------------------------- */

typedef struct decimal {
    bool negative;
    int n_digits;  /* kept, without leading zeros */
    int64_t exp10; /* value = digits * 10^exp10 */
    bool more;     /* non-zero digits were left out */
    char digits[MAX_DIGITS];
} decimal;

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void take_digit(decimal *d, char c, bool after_point)
{
    if (after_point) d->exp10--;
    if (!d->n_digits && c == '0') return;
    if (d->n_digits == MAX_DIGITS) {
        d->more |= c != '0';
        d->exp10++;
        return;
    }
    d->digits[d->n_digits++] = c;
}

static bool scan_exponent(const char *s, size_t n, int64_t *exponent)
{
    size_t i = 0;
    bool negative = n && s[0] == '-';
    int64_t e = 0;
    if (n && (s[0] == '-' || s[0] == '+')) i++;
    if (i == n) return false;
    for (; i < n; i++) {
        if (!is_digit(s[i])) return false;
        if (e < INT64_MAX / 100) e = e * 10 + (s[i] - '0');
    }
    *exponent = negative ? -e : e;
    return true;
}

static bool scan_decimal(const char *s, size_t n, decimal *d)
{
    size_t i = 0, seen = 0;
    bool point = false;
    d->negative = n && s[0] == '-';
    d->n_digits = 0, d->exp10 = 0, d->more = false;
    if (n && (s[0] == '-' || s[0] == '+')) i++;
    for (; i < n && (is_digit(s[i]) || (s[i] == '.' && !point)); i++) {
        if (s[i] == '.') {
            point = true;
            continue;
        }
        take_digit(d, s[i], point);
        seen++;
    }
    if (!seen) return false;
    if (i == n) return true;
    int64_t exponent;
    if ((s[i] != 'e' && s[i] != 'E') || !scan_exponent(s + i + 1, n - i - 1, &exponent)) return false;
    d->exp10 += exponent;
    return true;
}

/* Quotient of two big integers as top * 2^(*exp2 - 63), top with its highest bit set; *rest: something follows. */
static uint64_t divide(big *num, big *den, int *exp2, bool *rest)
{
    uint64_t top = 0;
    int e = big_bits(num) - big_bits(den);
    big_shift_left(e > 0 ? den : num, e > 0 ? e : -e);
    if (big_compare(num, den) < 0) big_shift_left(num, 1), e--;
    for (int i = 0; i < 64; i++) {
        top <<= 1;
        if (big_compare(num, den) >= 0) big_subtract(num, den), top |= 1;
        big_shift_left(num, 1);
    }
    *exp2 = e;
    *rest = num->n > 0;
    return top;
}

/* The double nearest to top * 2^(exp2 - 63), ties to even. */
static bool round_to_double(uint64_t top, int exp2, bool rest, uint64_t *bits)
{
    if (exp2 > 1023) return false;
    int keep = exp2 >= -1022 ? 53 : 53 - (-1022 - exp2);
    *bits = 0;
    if (keep < 0) return true;
    uint64_t m = keep ? top >> (64 - keep) : 0, lost = keep ? top << keep : top, half = UINT64_C(1) << 63;
    if (lost > half || (lost == half && (rest || m & 1))) m++;
    /* The hidden bit adds one to the exponent field, and so does a carry out of the rounding. */
    *bits = (exp2 >= -1022 ? (uint64_t)(exp2 + 1022) << 52 : 0) + m;
    return *bits >> 52 < 0x7FF;
}

static bool decimal_to_bits(const decimal *d, uint64_t *bits)
{
    big num, den;
    int k = (int)d->exp10, exp2;
    bool rest;
    big_set(&num, 0);
    big_set(&den, 1);
    for (int i = 0; i < d->n_digits; i++) big_mul_add(&num, 10, (uint32_t)(d->digits[i] - '0'));
    big_mul_pow5(k < 0 ? &den : &num, k < 0 ? -k : k);
    uint64_t top = divide(&num, &den, &exp2, &rest);
    return round_to_double(top, exp2 + k, rest || d->more, bits);
}

bool rz_parse_double(const char *s, size_t n, double *out)
{
    decimal d;
    uint64_t bits = 0;
    if (!scan_decimal(s, n, &d)) return false;
    int64_t magnitude = d.exp10 + d.n_digits;
    if (d.n_digits && magnitude > 310) return false;
    if (d.n_digits && magnitude > -330 && !decimal_to_bits(&d, &bits)) return false;
    bits |= (uint64_t)d.negative << 63;
    memcpy(out, &bits, 8);
    return true;
}

bool rz_parse_int64(const char *s, size_t n, int64_t *out)
{
    size_t i = 0;
    int64_t v = 0;
    bool negative = n && s[0] == '-';
    if (n && (s[0] == '-' || s[0] == '+')) i++;
    if (i == n) return false;
    for (; i < n; i++) {
        int digit = s[i] - '0';
        if (!is_digit(s[i]) || __builtin_mul_overflow(v, 10, &v)) return false;
        if (negative ? __builtin_sub_overflow(v, digit, &v) : __builtin_add_overflow(v, digit, &v)) return false;
    }
    *out = v;
    return true;
}
