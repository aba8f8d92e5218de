/* rng.c - xoshiro256** seeded by splitmix64. Only +, *, / and shifts on doubles, so that every machine and
 * every libm gives the same numbers. SPDX-License-Identifier: Apache-2.0 */
#include "base.h"

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void rz_rng_seed(rz_rng *r, uint64_t seed, uint64_t stream)
{
    uint64_t a = seed, b = stream ^ 0x6a09e667f3bcc909u;
    for (int i = 0; i < 4; i++) {
        uint64_t y = splitmix64(&b);
        uint64_t mixed = splitmix64(&a) ^ (y << 1 | y >> 63);
        r->s[i] = splitmix64(&mixed);
    }
    if (!(r->s[0] | r->s[1] | r->s[2] | r->s[3])) r->s[0] = 1; /* the one state it never leaves */
}

static inline uint64_t rol(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

uint64_t rz_rng_u64(rz_rng *r)
{
    uint64_t *s = r->s, result = rol(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rol(s[3], 45);
    return result;
}

uint64_t rz_rng_below(rz_rng *r, uint64_t n)
{
    /* Throws away the first 2^64 mod n values: the rest are a whole number of turns. */
    uint64_t skip = (0 - n) % n, x;
    do x = rz_rng_u64(r);
    while (x < skip);
    return x % n;
}

double rz_rng_uniform(rz_rng *r)
{
    return (double)(rz_rng_u64(r) >> 11) * 0x1p-53;
}

/* log(x) for 0 < x <= 1, error below 1e-15. */
static double plain_log(double x)
{
    int e;
    double m = frexp(x, &e), sum = 0;
    if (m < 0.70710678118654752) m *= 2, e--;
    double s = (m - 1) / (m + 1), s2 = s * s;
    for (int k = 25; k > 0; k -= 2) sum = sum * s2 + 1.0 / k;
    return e * 0.69314718055994531 + 2 * s * sum;
}

/* cos(2 pi v) for 0 <= v < 1, error below 1e-15. */
static double plain_cos_turn(double v)
{
    double y = fabs(v - 0.5), sign = -1; /* cos(2 pi v) = -cos(2 pi y) */
    if (y > 0.25) y = 0.5 - y, sign = 1;
    double x = y * 6.2831853071795865, x2 = x * x, sum = 1;
    for (int k = 24; k > 0; k -= 2) sum = 1 - sum * x2 / (k * (k - 1));
    return sign * sum;
}

double rz_rng_normal(rz_rng *r)
{
    double u = 1 - rz_rng_uniform(r); /* (0, 1] */
    double v = rz_rng_uniform(r);
    return sqrt(-2 * plain_log(u)) * plain_cos_turn(v);
}
