/* test_compute_attention.c - attention and RoPE of every kernel set: forward against the definition in double
 * precision, backward against central differences of it; the same bits alone, in a batch and for any number of
 * threads. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "compute_help.h"

enum { MAX_SEQ = 4, PAD = 3 };

struct problem {
    size_t n, q_len[MAX_SEQ], kv_len[MAX_SEQ];
    size_t heads, kv_heads, head_dim;
    bool causal;
    size_t window;
};

static const struct problem PROBLEMS[] = {
    {1, {1}, {1}, 1, 1, 1, false, 0},
    {2, {7, 16}, {7, 16}, 2, 2, 5, false, 0},
    {3, {5, 0, 33}, {5, 0, 33}, 2, 1, 8, true, 0},
    {2, {3, 1}, {40, 17}, 4, 2, 16, true, 0}, /* fewer queries than keys: a cache */
    {2, {50, 9}, {50, 9}, 2, 1, 7, true, 6},  /* window */
    {1, {13}, {70}, 1, 1, 17, true, 20},      /* window and cache */
    {2, {6, 4}, {4, 4}, 1, 1, 4, true, 0},    /* the first two queries see nothing */
    {1, {20}, {35}, 3, 1, 6, false, 0},       /* cross attention */
    {1, {101}, {101}, 1, 1, 3, true, 0},      /* several blocks of the backward */
};

/* Several tiles of every size of head; too large for a difference in each number. */
static const struct problem LARGE[] = {
    {2, {70, 130}, {70, 130}, 2, 1, 64, true, 0}, {1, {66}, {140}, 2, 1, 100, true, 40},
    {1, {90}, {10}, 1, 1, 128, true, 0},          {1, {65}, {65}, 2, 2, 160, false, 0},
    {1, {70}, {70}, 1, 1, 40, true, 2}, /* one query of the second tile sees one key of the first */
};
enum { MAX_HEAD = 160 };

struct data {
    rz_attn a;
    int32_t q_start[MAX_SEQ + 1], kv_start[MAX_SEQ + 1];
    size_t n_q, n_kv, q_size, kv_size, out_size;
    float *q, *k, *v, *dout, *out, *lse;
    double *dq, *dk, *dv, *ddout; /* the same in double */
};

static void data_make(struct data *d, const struct problem *p, uint64_t seed)
{
    memset(d, 0, sizeof *d);
    for (size_t i = 0; i < p->n; i++) {
        d->q_start[i + 1] = d->q_start[i] + (int32_t)p->q_len[i];
        d->kv_start[i + 1] = d->kv_start[i] + (int32_t)p->kv_len[i];
    }
    d->n_q = (size_t)d->q_start[p->n];
    d->n_kv = (size_t)d->kv_start[p->n];
    rz_attn *a = &d->a;
    *a = (rz_attn){{p->n, d->q_start, d->q_start},
                   {p->n, d->kv_start, d->kv_start},
                   p->heads,
                   p->kv_heads,
                   p->head_dim,
                   p->heads * p->head_dim + PAD,
                   p->kv_heads * p->head_dim + 1,
                   p->heads * p->head_dim + 2,
                   0.7f,
                   p->causal,
                   p->window};
    d->q_size = d->n_q * a->q_ld;
    d->kv_size = d->n_kv * a->kv_ld;
    d->out_size = d->n_q * a->out_ld;
    d->q = random_floats(d->q_size, seed);
    d->k = random_floats(d->kv_size, seed + 1);
    d->v = random_floats(d->kv_size, seed + 2);
    d->dout = random_floats(d->out_size, seed + 3);
    d->out = zero_floats(d->out_size);
    d->lse = zero_floats(d->n_q * p->heads);
    for (size_t i = 0; i < d->q_size; i++) d->q[i] *= 3;
    d->dq = to_double(d->q, d->q_size);
    d->dk = to_double(d->k, d->kv_size);
    d->dv = to_double(d->v, d->kv_size);
    d->ddout = to_double(d->dout, d->out_size);
}
static void data_free(struct data *d)
{
    free(d->q), free(d->k), free(d->v), free(d->dout), free(d->out), free(d->lse);
    free(d->dq), free(d->dk), free(d->dv), free(d->ddout);
}

/* One query, one head: out[head_dim], *lse. j: the query within its sequence. */
static void query_ref(const struct data *d, size_t seq, size_t i, size_t h, double *out, double *lse)
{
    const rz_attn *a = &d->a;
    const size_t hd = a->head_dim, kv0 = (size_t)d->kv_start[seq], kvh = h / (a->n_heads / a->n_kv_heads);
    const long t = d->kv_start[seq + 1] - d->kv_start[seq], n_q = d->q_start[seq + 1] - d->q_start[seq];
    const long last = a->causal ? (long)i + t - n_q : t - 1;
    const long first = a->causal && a->window && last + 1 > (long)a->window ? last + 1 - (long)a->window : 0;
    const double *q = d->dq + ((size_t)d->q_start[seq] + i) * a->q_ld + h * hd;
    double sum = 0;
    for (size_t c = 0; c < hd; c++) out[c] = 0;
    for (long j = first; j <= last; j++) {
        const size_t at = (kv0 + (size_t)j) * a->kv_ld + kvh * hd;
        double score = 0;
        for (size_t c = 0; c < hd; c++) score += q[c] * d->dk[at + c];
        double e = exp((double)a->scale * score);
        sum += e;
        for (size_t c = 0; c < hd; c++) out[c] += e * d->dv[at + c];
    }
    for (size_t c = 0; c < hd && sum > 0; c++) out[c] /= sum;
    *lse = log(sum);
}

static double attention_loss(void *arg)
{
    const struct data *d = arg;
    const rz_attn *a = &d->a;
    double sum = 0, out[MAX_HEAD], lse;
    for (size_t seq = 0; seq < a->q_seq.n; seq++)
        for (size_t i = 0; i < (size_t)(d->q_start[seq + 1] - d->q_start[seq]); i++)
            for (size_t h = 0; h < a->n_heads; h++) {
                query_ref(d, seq, i, h, out, &lse);
                const double *g = d->ddout + ((size_t)d->q_start[seq] + i) * a->out_ld + h * a->head_dim;
                for (size_t c = 0; c < a->head_dim; c++) sum += g[c] * out[c];
            }
    return sum;
}

static void check_forward(const char *set, const struct data *d)
{
    const rz_attn *a = &d->a;
    for (size_t seq = 0; seq < a->q_seq.n; seq++)
        for (size_t i = 0; i < (size_t)(d->q_start[seq + 1] - d->q_start[seq]); i++)
            for (size_t h = 0; h < a->n_heads; h++) {
                double want[MAX_HEAD], lse;
                const size_t row = (size_t)d->q_start[seq] + i;
                query_ref(d, seq, i, h, want, &lse);
                assert_near(set, d->out + row * a->out_ld + h * a->head_dim, want, a->head_dim,
                            a->head_dim > 32 ? 1e-5 : 3e-6, 1);
                const float got = d->lse[row * a->n_heads + h];
                assert_true(isinf(lse) ? got == -INFINITY : fabs((double)got - lse) < 1e-5 + 5e-7 * fabs(lse));
            }
    for (size_t row = 0; row < d->n_q; row++) /* the padding was not written */
        for (size_t c = a->n_heads * a->head_dim; c < a->out_ld; c++) assert_true(d->out[row * a->out_ld + c] == 0);
}

static void forward_matches_double(void **state)
{
    (void)state;
    for (const char *const *set = compute_sets(); *set; set++)
        for (size_t i = 0; i < RZ_COUNT(PROBLEMS) + RZ_COUNT(LARGE); i++) {
            rz_stream *s = compute_open(NULL, *set, 2);
            struct data d;
            data_make(&d, i < RZ_COUNT(PROBLEMS) ? &PROBLEMS[i] : &LARGE[i - RZ_COUNT(PROBLEMS)], 1);
            rz_attention(s, &d.a, d.out, d.lse, d.q, d.k, d.v);
            check_forward(*set, &d);
            rz_attention(s, &d.a, d.dout, NULL, d.q, d.k, d.v);
            for (size_t r = 0; r < d.n_q; r++)
                assert_same_bits("without lse", d.dout + r * d.a.out_ld, d.out + r * d.a.out_ld,
                                 d.a.n_heads * d.a.head_dim);
            data_free(&d);
            compute_close(s);
        }
}

static void backward(rz_stream *s, const struct data *d, float *dq, float *dk, float *dv)
{
    rz_attention(s, &d->a, d->out, d->lse, d->q, d->k, d->v);
    rz_attention_bwd(s, &d->a, dq, dk, dv, d->dout, d->out, d->lse, d->q, d->k, d->v);
}

static void backward_matches_differences(void **state)
{
    (void)state;
    for (const char *const *set = compute_sets(); *set; set++)
        for (size_t i = 0; i < RZ_COUNT(PROBLEMS); i++) {
            if (i >= RZ_COUNT(PROBLEMS) - 1 && set != compute_sets()) continue; /* the long one, once below */
            rz_stream *s = compute_open(NULL, *set, 2);
            struct data d;
            data_make(&d, &PROBLEMS[i], 5);
            float *dq = zero_floats(d.q_size), *dk = zero_floats(d.kv_size), *dv = zero_floats(d.kv_size);
            backward(s, &d, dq, dk, dv);
            assert_gradient(*set, attention_loss, &d, d.dq, dq, d.q_size);
            assert_gradient(*set, attention_loss, &d, d.dk, dk, d.kv_size);
            assert_gradient(*set, attention_loss, &d, d.dv, dv, d.kv_size);
            /* Gradients are added to: once more gives twice as much. */
            float *dq2 = zero_floats(d.q_size);
            memcpy(dq2, dq, d.q_size * sizeof *dq);
            backward(s, &d, dq2, dk, dv);
            double *twice = to_double(dq, d.q_size);
            for (size_t j = 0; j < d.q_size; j++) twice[j] *= 2;
            assert_near("added", dq2, twice, d.q_size, 1e-5, 1e-3);
            free(dq), free(dk), free(dv), free(dq2), free(twice);
            data_free(&d);
            compute_close(s);
        }
}

/* How the loss grows along `way` from x, of which x is changed: grad . way, by a central difference. */
static void check_direction(const char *set, struct data *d, double *x, const float *grad, const float *way, size_t n)
{
    const double h = 1e-5;
    double got = 0, size = 0, want;
    for (size_t i = 0; i < n; i++) {
        got += (double)grad[i] * (double)way[i], size += fabs((double)grad[i] * (double)way[i]);
        x[i] += h * (double)way[i];
    }
    want = attention_loss(d);
    for (size_t i = 0; i < n; i++) x[i] -= 2 * h * (double)way[i];
    want = (want - attention_loss(d)) / (2 * h);
    for (size_t i = 0; i < n; i++) x[i] += h * (double)way[i];
    if (!(fabs(got - want) <= 1e-5 * (size + 1)))
        fail_msg("%s: head dim %zu: %.9g, expected %.9g", set, d->a.head_dim, got, want);
}

static void backward_matches_directions(void **state)
{
    (void)state;
    for (const char *const *set = compute_sets(); *set; set++)
        for (size_t i = 0; i < RZ_COUNT(LARGE); i++) {
            rz_stream *s = compute_open(NULL, *set, 2);
            struct data d;
            data_make(&d, &LARGE[i], 11);
            float *g[3];
            double *const x[3] = {d.dq, d.dk, d.dv};
            for (int j = 0; j < 3; j++) g[j] = zero_floats(j ? d.kv_size : d.q_size);
            backward(s, &d, g[0], g[1], g[2]);
            for (int j = 0; j < 3; j++)
                for (size_t part = 0; part < 4; part++) { /* all of it, and every third row */
                    const size_t n = j ? d.kv_size : d.q_size, ld = j ? d.a.kv_ld : d.a.q_ld;
                    float *way = random_floats(n, part + 20);
                    for (size_t k = 0; part < 3 && k < n; k++) way[k] *= k / ld % 3 == part;
                    check_direction(*set, &d, x[j], g[j], way, n);
                    free(way);
                }
            for (int j = 0; j < 3; j++) free(g[j]);
            data_free(&d);
            compute_close(s);
        }
}

/* Sequence by sequence gives the bits of the batch, and so do other numbers of threads. */
static void bits_do_not_depend_on_batch_or_threads(void **state)
{
    (void)state;
    static const struct problem p = {3, {70, 130, 9}, {70, 130, 9}, 4, 2, 32, true, 0};
    for (const char *const *set = compute_sets(); *set; set++)
        for (int threads = 1; threads <= 8; threads += threads < 3 ? 1 : 5) {
            struct data d;
            data_make(&d, &p, 9);
            rz_stream *one = compute_open(NULL, *set, 1), *many = compute_open(NULL, *set, threads);
            float *g[6];
            for (int i = 0; i < 6; i++) g[i] = zero_floats(i % 3 ? d.kv_size : d.q_size);
            float *out = zero_floats(d.out_size);
            backward(many, &d, g[0], g[1], g[2]);
            memcpy(out, d.out, d.out_size * sizeof *out);
            for (size_t i = 0; i < p.n; i++) {
                const size_t r = (size_t)d.q_start[i];
                const int32_t start[2] = {0, d.q_start[i + 1] - d.q_start[i]};
                struct data part = d;
                part.a.q_seq = part.a.kv_seq = (rz_ragged){1, start, start};
                part.q += r * d.a.q_ld, part.k += r * d.a.kv_ld, part.v += r * d.a.kv_ld;
                part.out += r * d.a.out_ld, part.dout += r * d.a.out_ld, part.lse += r * d.a.n_heads;
                backward(one, &part, g[3] + r * d.a.q_ld, g[4] + r * d.a.kv_ld, g[5] + r * d.a.kv_ld);
            }
            assert_same_bits(*set, d.out, out, d.out_size);
            for (int i = 0; i < 3; i++) assert_same_bits(*set, g[i + 3], g[i], i ? d.kv_size : d.q_size);
            for (int i = 0; i < 6; i++) free(g[i]);
            free(out);
            data_free(&d);
            compute_close(one);
            compute_close(many);
        }
}

/* A query at the end of a sequence whose earlier queries are not asked for has the bits it has among them. */
static void bits_do_not_depend_on_the_cache(void **state)
{
    (void)state;
    static const struct problem whole = {1, {67}, {67}, 2, 1, 16, true, 0}, last = {1, {1}, {67}, 2, 1, 16, true, 0};
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 1);
        struct data d, e;
        data_make(&d, &whole, 3);
        data_make(&e, &last, 3);
        rz_attention(s, &d.a, d.out, d.lse, d.q, d.k, d.v);
        rz_attention(s, &e.a, e.out, e.lse, d.q + 66 * d.a.q_ld, d.k, d.v);
        assert_same_bits(*set, e.out, d.out + 66 * d.a.out_ld, 32);
        data_free(&d);
        data_free(&e);
        compute_close(s);
    }
}

static void nan_stays_in_its_sequence(void **state)
{
    (void)state;
    for (const char *const *set = compute_sets(); *set; set++) {
        rz_stream *s = compute_open(NULL, *set, 1);
        struct data d;
        data_make(&d, &PROBLEMS[1], 1);
        d.k[2 * d.a.kv_ld] = NAN; /* first sequence, head 0 */
        rz_attention(s, &d.a, d.out, d.lse, d.q, d.k, d.v);
        for (size_t r = 0; r < d.n_q; r++)
            for (size_t c = 0; c < 10; c++) assert_int_equal(isnan(d.out[r * d.a.out_ld + c]) != 0, r < 7 && c < 5);
        data_free(&d);
        compute_close(s);
    }
}

/* ---- RoPE ---------------------------------------------------------------------------------- */

static void check_rope(const char *set, size_t rows, size_t heads, size_t hd, int32_t stride)
{
    const size_t ld = heads * hd + 3, n = rows * ld;
    float *x = random_floats(n, 1), *y = random_floats(n, 1), inv_freq[32];
    int32_t *pos = malloc(rows * sizeof *pos);
    for (size_t i = 0; i < hd / 2; i++) inv_freq[i] = (float)pow(10000, -2 * (double)i / (double)hd);
    for (size_t r = 0; r < rows; r++) pos[r] = (int32_t)(r / 2) * stride;
    rz_stream *s = compute_open(NULL, set, 2);
    rz_rope(s, y, ld, pos, inv_freq, 1.25f, rows, heads, hd, false);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < ld; c++) {
            double want = (double)x[r * ld + c];
            if (c < heads * hd) {
                size_t i = c % hd % (hd / 2);
                double angle = (double)((float)pos[r] * inv_freq[i]), a = (double)x[r * ld + c - c % hd + i];
                double b = (double)x[r * ld + c - c % hd + i + hd / 2];
                want = 1.25 * (c % hd < hd / 2 ? a * cos(angle) - b * sin(angle) : b * cos(angle) + a * sin(angle));
            }
            assert_near(set, &y[r * ld + c], &want, 1, 1e-6, 1);
        }
    rz_rope(s, y, ld, pos, inv_freq, 1 / 1.25f, rows, heads, hd, true);
    double *back = to_double(x, n);
    assert_near("inverse", y, back, n, 1e-6, 1);
    compute_close(s);
    free(x), free(y), free(pos), free(back);
}

static void rope(void **state)
{
    (void)state;
    check_rope("portable", 1, 1, 2, 5);
    check_rope("portable", 7, 3, 16, 1);
    check_rope("portable", 33, 2, 6, 1000); /* positions past the rows: no table */
    check_rope("portable", 5, 2, 64, -1);
}

/* With and without the table of angles: the same bits. */
static void rope_bits_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    enum { ROWS = 100, HD = 32 };
    float *x = random_floats(ROWS * HD, 1), *y = random_floats(ROWS * HD, 1), inv_freq[HD / 2];
    int32_t pos[ROWS];
    for (int i = 0; i < HD / 2; i++) inv_freq[i] = 1.0f / (float)(i + 1);
    for (int i = 0; i < ROWS; i++) pos[i] = ROWS - 1 - i;
    rz_stream *s = compute_open(NULL, "portable", 3);
    rz_rope(s, x, HD, pos, inv_freq, 1, ROWS, 1, HD, false);
    for (size_t i = 0; i < ROWS; i++) rz_rope(s, y + i * HD, HD, pos + i, inv_freq, 1, 1, 1, HD, false);
    assert_same_bits("rope", y, x, ROWS * HD);
    compute_close(s);
    free(x), free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_double),
        cmocka_unit_test(backward_matches_differences),
        cmocka_unit_test(backward_matches_directions),
        cmocka_unit_test(bits_do_not_depend_on_batch_or_threads),
        cmocka_unit_test(bits_do_not_depend_on_the_cache),
        cmocka_unit_test(nan_stays_in_its_sequence),
        cmocka_unit_test(rope),
        cmocka_unit_test(rope_bits_do_not_depend_on_the_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
