/* answers.c - next-token cross-entropy of the answers in prompts, forward and backward.
 *
 * Only the rows that predict an answer's token go through the final norm and the head, and those a few at a time: a
 * row of logits is as long as the vocabulary.
 * SPDX-License-Identifier: Apache-2.0 */
#include "answers.h"

/* Rows that predict: where each lies among all rows, what it should say, whose answer that is. */
typedef struct predictions {
    size_t n;
    int32_t *rows, *ids, *owner; /* host */
    int32_t *rows_dev;
} predictions;

/* Activations between the last block and the logits. */
typedef struct readout {
    float *h, *normed, *stats; /* (predictions, hidden) */
    float *dnormed;            /* NULL: forward only */
    rz_linear head;
    size_t rows_at_once;
} readout;

static bool check_answer(const rz_net *net, const rz_answer *a, size_t i)
{
    size_t vocab = net->model->cfg.text.vocab, n = a->item.prompt->n;
    bool good = a->n_tokens && a->n_tokens < n;
    for (size_t t = good ? n - a->n_tokens : n; t < n; t++)
        good = good && a->item.prompt->ids[t] >= 0 && (size_t)a->item.prompt->ids[t] < vocab;
    if (!good) rz_stream_fail(net->s, RADZ_E_INTERNAL, "answer %zu: expected tokens behind a prompt", i);
    return good;
}

static bool list_predictions(const rz_net *net, const rz_answer *answers, size_t n, predictions *p)
{
    size_t total = 0, row = 0;
    for (size_t i = 0; i < n; i++) {
        if (!check_answer(net, &answers[i], i)) return false;
        total += answers[i].n_tokens;
    }
    p->rows = rz_arena_host(net->s, total, sizeof *p->rows);
    p->ids = rz_arena_host(net->s, total, sizeof *p->ids);
    p->owner = rz_arena_host(net->s, total, sizeof *p->owner);
    if (rz_stream_failed(net->s)) return false;
    for (size_t i = 0; i < n; i++) {
        const rz_prompt *prompt = answers[i].item.prompt;
        for (size_t t = prompt->n - answers[i].n_tokens; t < prompt->n; t++, p->n++) {
            p->rows[p->n] = (int32_t)(row + t - 1);
            p->ids[p->n] = prompt->ids[t];
            p->owner[p->n] = (int32_t)i;
        }
        row += prompt->n;
    }
    p->rows_dev = rz_arena_i32(net->s, p->rows, p->n);
    return !rz_stream_failed(net->s);
}

/* One-hot rows. */
static float *targets_of(const rz_net *net, const int32_t *ids, size_t rows, size_t vocab)
{
    float *targets = rz_arena_zeros(net->s, rows, vocab), *ones = rz_arena_f32(net->s, rows, 1);
    int32_t *at = rz_arena_host(net->s, rows, sizeof *at);
    for (size_t i = 0; at && i < rows; i++) at[i] = (int32_t)(i * vocab) + ids[i];
    if (rz_stream_failed(net->s)) return NULL;
    rz_fill(net->s, ones, 1.0f, rows);
    rz_copy_rows(net->s, targets, 1, rz_arena_i32(net->s, at, rows), ones, 1, NULL, rows, 1);
    return targets;
}

/* Predictions first .. first + rows - 1. */
static void chunk_loss(const rz_net *net, const predictions *p, const readout *r, size_t first, size_t rows,
                       float weight, double *loss)
{
    size_t vocab = net->model->cfg.text.vocab, c = net->model->cfg.text.hidden;
    rz_mark m = rz_arena_mark(net->s);
    float *host = rz_arena_host(net->s, rows, sizeof *host), *losses = rz_arena_f32(net->s, rows, 1);
    float *targets = targets_of(net, p->ids + first, rows, vocab);
    float *logits = rz_linear_forward(net, &r->head, r->normed + first * c, rows);
    rz_softmax_xent(net->s, losses, r->dnormed ? logits : NULL, logits, targets, NULL, weight, rows, vocab);
    if (host) rz_download(net->s, host, losses, rows * sizeof *host);
    if (!rz_stream_failed(net->s)) {
        for (size_t i = 0; i < rows; i++) loss[p->owner[first + i]] += (double)host[i];
        if (r->dnormed)
            rz_linear_backward(net, &r->head, 0.0f, r->dnormed + first * c, logits, r->normed + first * c, rows);
    }
    rz_arena_release(net->s, m);
}

static void read_out(const rz_net *net, const float *h, const predictions *p, float weight, readout *r, double *loss)
{
    const rz_model *m = net->model;
    size_t c = m->cfg.text.hidden, rows = r->rows_at_once;
    r->head = (rz_linear){m->cfg.text.tied ? m->embed : m->lm_head, NULL, NULL};
    r->h = rz_arena_f32(net->s, p->n, c);
    rz_copy_rows(net->s, r->h, c, NULL, h, c, p->rows_dev, p->n, c);
    r->normed = rz_norm_forward(net, &m->decoder_norm, m->cfg.text.eps, r->h, p->n, &r->stats);
    r->dnormed = net->keep ? rz_arena_f32(net->s, p->n, c) : NULL;
    for (size_t first = 0; first < p->n && !rz_stream_failed(net->s); first += rows)
        chunk_loss(net, p, r, first, p->n - first < rows ? p->n - first : rows, weight, loss);
}

/* The gradient of all hidden rows: zero but for those that predict. */
static float *read_out_backward(const rz_net *net, const predictions *p, const readout *r, size_t n_rows)
{
    size_t c = net->model->cfg.text.hidden;
    float *dh = rz_arena_zeros(net->s, n_rows, c), *drows = rz_arena_zeros(net->s, p->n, c);
    rz_norm_backward(net, &net->model->decoder_norm, drows, r->dnormed, r->h, r->stats, p->n);
    rz_copy_rows(net->s, dh, c, p->rows_dev, drows, c, NULL, p->n, c);
    return dh;
}

void rz_answers_loss(const rz_net *net, const rz_answer *answers, size_t n, double weight, size_t max_logits,
                     double *loss)
{
    size_t vocab = net->model->cfg.text.vocab;
    predictions p = {0};
    readout r = {.rows_at_once = max_logits > vocab ? max_logits / vocab : 1};
    rz_encoding *acts = NULL;
    size_t n_rows = 0;
    for (size_t i = 0; i < n; i++) loss[i] = 0;
    rz_mark mark = rz_arena_mark(net->s);
    rz_item *items = rz_arena_host(net->s, n, sizeof *items);
    if (items && list_predictions(net, answers, n, &p)) {
        for (size_t i = 0; i < n; i++) items[i] = answers[i].item, n_rows += answers[i].item.prompt->n;
        float *h = rz_encode_rows(net, items, n, net->model->cfg.text.layers, &acts);
        if (h) read_out(net, h, &p, (float)weight, &r, loss);
        if (h && net->keep && !rz_stream_failed(net->s))
            rz_encode_rows_backward(net, acts, read_out_backward(net, &p, &r, n_rows));
    }
    rz_arena_release(net->s, mark);
}
