/* test_compute_half_attention.c - attention of bfloat16 against the definition in double precision on the same numbers;
 * the same bits alone, in a batch and behind a cache. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "compute_help.h"
#include "formats.h"

enum { MAX_SEQ = 4 };

struct problem {
    size_t n, q_len[MAX_SEQ], kv_len[MAX_SEQ];
    size_t heads, kv_heads, head_dim, pad; /* pad: elements between rows */
    bool causal;
    size_t window;
};

static const struct problem PROBLEMS[] = {
    {1, {1}, {1}, 1, 1, 16, 0, false, 0},
    {2, {65, 65}, {65, 65}, 6, 6, 32, 0, false, 0}, /* the tower of radz-tiny */
    {2, {150, 40}, {150, 40}, 4, 2, 32, 8, true, 0},
    {2, {129, 3}, {129, 3}, 2, 2, 64, 0, false, 0},
    {3, {70, 0, 130}, {70, 0, 130}, 2, 1, 64, 16, true, 0},
    {2, {200, 64}, {200, 64}, 4, 1, 128, 0, true, 0},
    {3, {3, 1, 60}, {140, 17, 189}, 2, 1, 128, 0, true, 0}, /* fewer queries than keys: a cache */
    {2, {190, 9}, {190, 9}, 2, 1, 128, 0, true, 30},        /* window */
    {1, {13}, {300}, 1, 1, 64, 0, true, 100},               /* window and cache */
    {1, {40}, {102}, 1, 1, 64, 0, true, 0},                 /* the first query sees all but one of 64 keys, */
    {1, {40}, {132}, 1, 1, 64, 0, true, 30},                /* and only the last of 64 */
    {2, {150, 20}, {10, 20}, 1, 1, 32, 0, true, 0},         /* the first 140 queries see nothing */
    {2, {20, 70}, {135, 0}, 2, 1, 64, 0, false, 0},         /* cross attention; no keys */
    {1, {70}, {70}, 2, 1, 256, 0, true, 0},
    {1, {66}, {66}, 1, 1, 48, 0, true, 0},
    {1, {66}, {66}, 2, 2, 80, 0, false, 0},
    {1, {66}, {130}, 1, 1, 144, 0, true, 0},
    {1, {20}, {20}, 2, 1, 288, 0, true, 0}, /* what matrix units may not take: too wide, */
    {2, {66, 5}, {66, 5}, 3, 1, 8, 0, true, 0},
    {1, {66}, {66}, 2, 1, 24, 0, false, 0}, /* no multiple of 16, */
    {1, {17}, {90}, 2, 1, 5, 0, true, 20},
    {1, {70}, {70}, 2, 1, 64, 1, true, 0}, /* odd strides */
};

struct data {
    rz_attn a;
    int32_t q_start[MAX_SEQ + 1], kv_start[MAX_SEQ + 1];
    size_t n_q, out_size;
    uint16_t *q, *k, *v, *out;
};

static void data_make(struct data *d, const struct problem *p, uint64_t seed)
{
    memset(d, 0, sizeof *d);
    for (size_t i = 0; i < p->n; i++) {
        d->q_start[i + 1] = d->q_start[i] + (int32_t)p->q_len[i];
        d->kv_start[i + 1] = d->kv_start[i] + (int32_t)p->kv_len[i];
    }
    d->n_q = (size_t)d->q_start[p->n];
    d->a = (rz_attn){.q_seq = {p->n, d->q_start, d->q_start},
                     .kv_seq = {p->n, d->kv_start, d->kv_start},
                     .n_heads = p->heads,
                     .n_kv_heads = p->kv_heads,
                     .head_dim = p->head_dim,
                     .q_ld = p->heads * p->head_dim + p->pad,
                     .kv_ld = p->kv_heads * p->head_dim + 2 * p->pad,
                     .out_ld = p->heads * p->head_dim + 3 * p->pad,
                     .scale = 2.0f / sqrtf((float)p->head_dim),
                     .causal = p->causal,
                     .window = p->window};
    const size_t n_kv = (size_t)d->kv_start[p->n];
    d->out_size = d->n_q * d->a.out_ld;
    d->q = random_half(d->n_q * d->a.q_ld, seed, 3);
    d->k = random_half(n_kv * d->a.kv_ld, seed + 1, 1);
    d->v = random_half(n_kv * d->a.kv_ld, seed + 2, 1);
    d->out = calloc(d->out_size ? d->out_size : 1, sizeof *d->out);
}
static void data_free(struct data *d)
{
    free(d->q), free(d->k), free(d->v), free(d->out);
}

static double wide(uint16_t x)
{
    return (double)rz_bf16_to_f32(x);
}

static double dot(const uint16_t *x, const uint16_t *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += wide(x[i]) * wide(y[i]);
    return sum;
}

/* A probability is rounded to bfloat16, and so is the result: each changes by 2^-8 of itself at most. What sums of
 * float and the exponential function lose is less than 2^-16 of the values' largest, which is 1. */
static void check_query(const char *set, const struct data *d, size_t seq, size_t i, size_t h)
{
    const rz_attn *a = &d->a;
    const size_t hd = a->head_dim, kv0 = (size_t)d->kv_start[seq], kvh = h / (a->n_heads / a->n_kv_heads);
    const long t = d->kv_start[seq + 1] - d->kv_start[seq], n_q = d->q_start[seq + 1] - d->q_start[seq];
    const long last = a->causal ? (long)i + t - n_q : t - 1;
    const long first = a->causal && a->window && last + 1 > (long)a->window ? last + 1 - (long)a->window : 0;
    const size_t row = (size_t)d->q_start[seq] + i;
    const uint16_t *q = d->q + row * a->q_ld + h * hd, *out = d->out + row * a->out_ld + h * hd;
    double want[288] = {0}, size[288] = {0}, sum = 0;
    for (long j = first; j <= last; j++) {
        const size_t at = (kv0 + (size_t)j) * a->kv_ld + kvh * hd;
        const double e = exp((double)a->scale * dot(q, d->k + at, hd));
        sum += e;
        for (size_t c = 0; c < hd; c++) want[c] += e * wide(d->v[at + c]), size[c] += e * fabs(wide(d->v[at + c]));
    }
    for (size_t c = 0; c < hd; c++) {
        const double w = sum > 0 ? want[c] / sum : 0, s = sum > 0 ? size[c] / sum : 0, got = wide(out[c]);
        if (!(fabs(got - w) <= 0x1p-8 * (fabs(w) + s) + 0x1p-16))
            fail_msg("%s: head dim %zu, query %zu of sequence %zu, head %zu, column %zu: %.9g, expected %.9g", set, hd,
                     i, seq, h, c, got, w);
    }
}

static void matches_double(void **state)
{
    (void)state;
    const char *set = compute_sets()[0];
    rz_stream *s = compute_open(NULL, set, 2);
    for (size_t p = 0; p < RZ_COUNT(PROBLEMS); p++) {
        struct data d;
        data_make(&d, &PROBLEMS[p], p);
        rz_half_attention(s, &d.a, d.out, d.q, d.k, d.v);
        assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
        for (size_t seq = 0; seq < PROBLEMS[p].n; seq++)
            for (size_t i = 0; i < PROBLEMS[p].q_len[seq]; i++)
                for (size_t h = 0; h < PROBLEMS[p].heads; h++) check_query(set, &d, seq, i, h);
        for (size_t row = 0; row < d.n_q; row++) /* the padding was not written */
            for (size_t c = d.a.n_heads * d.a.head_dim; c < d.a.out_ld; c++)
                assert_int_equal(d.out[row * d.a.out_ld + c], 0);
        data_free(&d);
    }
    compute_close(s);
}

/* Queries [from, end) of sequence i have the bits they have among all. */
static void check_part(rz_stream *s, const struct data *d, size_t i, size_t from)
{
    const size_t row = (size_t)d->q_start[i] + from, at = row * d->a.out_ld;
    const int32_t q_start[2] = {0, d->q_start[i + 1] - (int32_t)row};
    const int32_t kv_start[2] = {0, d->kv_start[i + 1] - d->kv_start[i]};
    const size_t kv = (size_t)d->kv_start[i] * d->a.kv_ld, n = (size_t)q_start[1] * d->a.out_ld;
    rz_attn part = d->a;
    part.q_seq = (rz_ragged){1, q_start, q_start};
    part.kv_seq = (rz_ragged){1, kv_start, kv_start};
    uint16_t *out = calloc(n, sizeof *out);
    rz_half_attention(s, &part, out, d->q + row * d->a.q_ld, d->k + kv, d->v + kv);
    assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
    assert_memory_equal(out, d->out + at, n * sizeof *out);
    free(out);
}

static void bits_do_not_depend_on_batch_or_cache(void **state)
{
    (void)state;
    static const struct problem problems[] = {
        {3, {70, 200, 9}, {70, 200, 9}, 4, 2, 32, 0, true, 0},
        {2, {70, 140}, {70, 140}, 2, 1, 64, 0, true, 50},
        {2, {30, 50}, {30, 50}, 2, 1, 12, 0, true, 0},
        {2, {140, 70}, {140, 70}, 72, 8, 64, 0, true, 0}, /* so many that a large GPU takes larger tiles */
    };
    rz_stream *s = compute_open(NULL, compute_sets()[0], 2);
    for (size_t p = 0; p < RZ_COUNT(problems); p++) {
        struct data d;
        data_make(&d, &problems[p], 7);
        rz_half_attention(s, &d.a, d.out, d.q, d.k, d.v);
        assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
        for (size_t i = 0; i < problems[p].n; i++) {
            check_part(s, &d, i, 0);
            check_part(s, &d, i, problems[p].q_len[i] - 1);
            check_part(s, &d, i, problems[p].q_len[i] / 3);
        }
        data_free(&d);
    }
    compute_close(s);
}

static void nan_stays_in_its_sequence(void **state)
{
    (void)state;
    rz_stream *s = compute_open(NULL, compute_sets()[0], 1);
    static const struct problem p = {2, {70, 66}, {70, 66}, 2, 2, 32, 0, false, 0};
    struct data d;
    data_make(&d, &p, 1);
    d.k[2 * d.a.kv_ld] = 0x7fc0; /* first sequence, head 0 */
    rz_half_attention(s, &d.a, d.out, d.q, d.k, d.v);
    assert_int_equal(rz_stream_sync(s, NULL), RADZ_OK);
    for (size_t r = 0; r < d.n_q; r++)
        for (size_t c = 0; c < 64; c++) assert_int_equal(isnan(wide(d.out[r * d.a.out_ld + c])) != 0, r < 70 && c < 32);
    data_free(&d);
    compute_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_double),
        cmocka_unit_test(bits_do_not_depend_on_batch_or_cache),
        cmocka_unit_test(nan_stays_in_its_sequence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
