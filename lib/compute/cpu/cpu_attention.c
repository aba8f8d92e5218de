/* cpu_attention.c - rotary positions, and attention spread over sequences and heads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"

/* ---- RoPE -------------------------------------------------------------------------------- */

struct rope {
    float *x;
    size_t ld, n_heads, half;
    const int32_t *pos;
    const float *inv_freq, *table; /* table: cos and sin of every position, or NULL */
    float scale, sign;
};

static void rope_angles(const struct rope *j, int32_t pos, float *cos_sin)
{
    for (size_t i = 0; i < j->half; i++) {
        float angle = (float)pos * j->inv_freq[i];
        cos_sin[i] = cosf(angle) * j->scale;
        cos_sin[j->half + i] = sinf(angle) * j->scale * j->sign;
    }
}

static void rope_table_part(void *arg, size_t begin, size_t end)
{
    const struct rope *j = arg;
    for (size_t p = begin; p < end; p++) rope_angles(j, (int32_t)p, j->x + p * 2 * j->half);
}

static void rope_row(float *restrict x, const float *restrict cos_sin, size_t n_heads, size_t half)
{
    const float *c = cos_sin, *s = cos_sin + half;
    for (size_t h = 0; h < n_heads; h++, x += 2 * half)
        for (size_t i = 0; i < half; i++) {
            float a = x[i], b = x[half + i];
            x[i] = a * c[i] - b * s[i];
            x[half + i] = b * c[i] + a * s[i];
        }
}

/* Row by row with the table, else with angles computed on the spot into this task's scratch. */
static void rope_part(void *arg, size_t begin, size_t end)
{
    const struct rope *j = arg;
    for (size_t r = begin; r < end; r++)
        rope_row(j->x + r * j->ld, j->table + (size_t)j->pos[r] * 2 * j->half, j->n_heads, j->half);
}

static void rope_task(void *arg, size_t row, float *scratch)
{
    const struct rope *j = arg;
    rope_angles(j, j->pos[row], scratch);
    rope_row(j->x + row * j->ld, scratch, j->n_heads, j->half);
}

/* Largest position plus one when every position is in a table no longer than the rows, else 0. */
static size_t table_rows(const int32_t *pos, size_t rows)
{
    int32_t max = 0;
    for (size_t r = 0; r < rows; r++) {
        if (pos[r] < 0) return 0;
        if (pos[r] > max) max = pos[r];
    }
    return (size_t)max < rows ? (size_t)max + 1 : 0;
}

void rz_cpu_rope(rz_stream *s, float *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale, size_t rows,
                 size_t n_heads, size_t head_dim, bool inverse)
{
    struct rope j = {x, ld, n_heads, head_dim / 2, pos, inv_freq, NULL, scale, inverse ? -1.0f : 1.0f};
    const size_t n = table_rows(pos, rows);
    if (n == 0) {
        size_t threads = rz_cpu_threads_for(s, (double)rows * (double)head_dim * (double)(n_heads + 32));
        rz_cpu_tasks(s, rows, threads, 2 * j.half, rope_task, &j);
        return;
    }
    rz_mark mark = rz_arena_mark(s);
    struct rope t = j;
    t.x = rz_arena_f32(s, n, 2 * j.half);
    if (!t.x) return;
    rz_cpu_split(s, n, 32 * head_dim, rope_table_part, &t);
    j.table = t.x;
    rz_cpu_split(s, rows, 2 * n_heads * head_dim, rope_part, &j);
    rz_arena_release(s, mark);
}

/* ---- Attention ------------------------------------------------------------------------------ */

struct attn {
    const rz_attn *a;
    const struct rz_kernels *kernels;
    struct rz_attn_task base; /* pointers to row 0 */
    size_t n_parts, part;     /* queries of a sequence are cut into n_parts pieces of `part` */
    bool backward;
};

static void attn_task(void *arg, size_t i, float *scratch)
{
    const struct attn *j = arg;
    const rz_attn *a = j->a;
    const size_t piece = i % j->n_parts, kv_head = i / j->n_parts % a->n_kv_heads;
    const size_t seq = i / j->n_parts / a->n_kv_heads;
    const size_t q0 = (size_t)a->q_seq.start[seq], kv0 = (size_t)a->kv_seq.start[seq];
    struct rz_attn_task t = j->base;
    t.n_q = (size_t)a->q_seq.start[seq + 1] - q0;
    t.n_kv = (size_t)a->kv_seq.start[seq + 1] - kv0;
    t.kv_head = kv_head;
    t.q_begin = piece * j->part;
    t.q_end = t.q_begin + j->part < t.n_q ? t.q_begin + j->part : t.n_q;
    if (t.q_begin >= t.n_q) return;
    t.q += q0 * a->q_ld;
    t.k += kv0 * a->kv_ld;
    t.v += kv0 * a->kv_ld;
    if (!j->backward) {
        t.y += q0 * a->out_ld;
        if (t.y_lse) t.y_lse += q0 * a->n_heads;
        j->kernels->attention(&t, scratch);
        return;
    }
    t.out += q0 * a->out_ld;
    t.dout += q0 * a->out_ld;
    t.lse += q0 * a->n_heads;
    t.dq += q0 * a->q_ld;
    t.dk += kv0 * a->kv_ld;
    t.dv += kv0 * a->kv_ld;
    j->kernels->attention_bwd(&t, scratch);
}

static void run_attention(rz_stream *s, struct attn *j)
{
    const rz_attn *a = j->a;
    size_t max_q = 0, scratch = 0;
    double work = 0;
    for (size_t i = 0; i < a->q_seq.n; i++) {
        size_t n_q = (size_t)(a->q_seq.start[i + 1] - a->q_seq.start[i]);
        size_t n_kv = (size_t)(a->kv_seq.start[i + 1] - a->kv_seq.start[i]);
        size_t need = j->kernels->attention_scratch(a, n_q, n_kv, j->backward);
        max_q = n_q > max_q ? n_q : max_q;
        scratch = need > scratch ? need : scratch;
        work += (double)n_q * (double)n_kv;
    }
    if (max_q == 0) return;
    work *= (double)a->n_heads * (double)(a->head_dim + 8) / 4;
    const size_t threads = rz_cpu_threads_for(s, work), tasks = a->q_seq.n * a->n_kv_heads, mr = j->kernels->f32.mr;
    /* Few sequences and heads: cut the queries too (the backward adds into keys: one task per head). */
    j->n_parts = j->backward || tasks >= 2 * threads ? 1 : (2 * threads + tasks - 1) / tasks;
    j->part = (max_q + j->n_parts - 1) / j->n_parts;
    j->part = (j->part + mr - 1) / mr * mr;
    rz_cpu_tasks(s, tasks * j->n_parts, threads, scratch, attn_task, j);
}

void rz_cpu_attention(rz_stream *s, const rz_attn *a, float *out, float *lse, const float *q, const float *k,
                      const float *v)
{
    struct attn j = {.a = a, .kernels = s->dev->kernels};
    j.base = (struct rz_attn_task){.a = a, .q = q, .k = k, .v = v, .y = out, .y_lse = lse};
    run_attention(s, &j);
}

void rz_cpu_attention_bwd(rz_stream *s, const rz_attn *a, float *dq, float *dk, float *dv, const float *dout,
                          const float *out, const float *lse, const float *q, const float *k, const float *v)
{
    struct attn j = {.a = a, .kernels = s->dev->kernels, .backward = true};
    j.base = (struct rz_attn_task){
        .a = a, .q = q, .k = k, .v = v, .out = out, .lse = lse, .dout = dout, .dq = dq, .dk = dk, .dv = dv};
    run_attention(s, &j);
}
