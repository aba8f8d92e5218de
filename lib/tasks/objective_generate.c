/* objective_generate.c - the objective "generate" (the paper's "FT"): the next token of the manifest's answers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "answers.h"
#include "chat.h"
#include "trainer.h"

#define AT_ONCE 8 /* rows of a validation pass */

/* The row's question, as the model's family is asked, and its answer. */
static radz_status row_prompt(const rz_trainer *t, const rz_row *row, rz_prompt *out, size_t *n_answer, radz_error *err)
{
    const char *question = t->model->cfg.radz.image_prompt;
    if (row->question != RZ_NO_SET) question = t->ds.questions.items[row->question];
    const rz_chat chat = {.text = question, .film = true};
    return rz_chat_answer(t->model, &chat, t->ds.texts.items[row->text], out, n_answer, err);
}

/* How many tokens each answer has: what is too long is known before it is needed. */
static radz_status open(rz_trainer *t, radz_error *err)
{
    size_t n = t->ds.n_train + t->ds.n_val;
    t->answer_tokens = rz_calloc(t->host, n, sizeof *t->answer_tokens);
    if (!t->answer_tokens) return RZ_NO_MEMORY(err, "answers");
    for (size_t i = 0; i < n; i++) {
        rz_prompt prompt;
        size_t n_answer = 0;
        radz_error why;
        radz_status st = row_prompt(t, &t->ds.rows[i], &prompt, &n_answer, &why);
        rz_prompt_free(t->host, &prompt);
        if (st == RADZ_E_LIMIT)
            RZ_TRY(rz_films_mark_bad(&t->films, i, why.message, err));
        else if (st)
            return rz_fail(err, st, "%s:%zu: %s", t->o.manifest, t->ds.rows[i].line, why.message);
        t->answer_tokens[i] = (uint32_t)n_answer;
    }
    return RADZ_OK;
}

static void close(rz_trainer *t)
{
    rz_free(t->host, t->answer_tokens);
    t->answer_tokens = NULL;
}

static void list_items(rz_trainer *t, rz_batch *b)
{
    b->n_items = t->b;
}

/* Losses of n rows with their films. */
static radz_status rows_loss(const rz_trainer *t, const rz_net *net, const size_t *rows, const float *pixels, size_t n,
                             double weight, double *sum, radz_error *err)
{
    size_t n_pixels = 3 * t->films.size * t->films.size;
    rz_answer *answers = rz_calloc(t->host, n, sizeof *answers);
    rz_prompt *prompts = rz_calloc(t->host, n, sizeof *prompts);
    double *loss = rz_calloc(t->host, n, sizeof *loss);
    radz_status st = answers && prompts && loss ? RADZ_OK : RZ_NO_MEMORY(err, "answers");
    for (size_t i = 0; i < n && !st; i++) {
        answers[i].item = (rz_item){.kind = RZ_ITEM_IMAGE, .pixels = pixels + i * n_pixels, .prompt = &prompts[i]};
        st = row_prompt(t, &t->ds.rows[rows[i]], &prompts[i], &answers[i].n_tokens, err);
    }
    if (!st) rz_answers_loss(net, answers, n, weight, RZ_MAX_LOGITS, loss);
    if (!st) st = rz_stream_sync(net->s, err);
    for (size_t i = 0; i < n && !st; i++) *sum += weight * loss[i];
    for (size_t i = 0; prompts && i < n; i++) rz_prompt_free(t->host, &prompts[i]);
    rz_free(t->host, answers);
    rz_free(t->host, prompts);
    rz_free(t->host, loss);
    return st;
}

/* The mean over the answer tokens of the whole batch, part by part. */
static radz_status part(rz_trainer *t, const rz_net *net, const rz_batch *b, size_t first, size_t n,
                        rz_loss_output *out, radz_error *err)
{
    size_t total = 0, n_pixels = 3 * t->films.size * t->films.size;
    for (size_t i = 0; i < t->b; i++) total += t->answer_tokens[b->rows[i]];
    return rows_loss(t, net, b->rows + first, b->pixels + first * n_pixels, n, 1.0 / (double)total, &out->loss, err);
}

/* Adds the losses and answer tokens of validation rows first .. first + n - 1. */
static radz_status validate_rows(rz_trainer *t, size_t first, size_t n, float *pixels, double *sum, size_t *n_tokens,
                                 radz_error *err)
{
    const rz_net net = {.model = t->model, .s = t->s};
    size_t rows[AT_ONCE], n_good = 0;
    for (size_t i = 0; i < n; i++) rows[i] = t->ds.n_train + first + i;
    RZ_TRY(rz_films_load(&t->films, rows, n, err));
    for (size_t i = 0; i < n; i++)
        if (!t->films.bad[rows[i]]) rows[n_good++] = rows[i];
    for (size_t i = 0; i < n_good; i++) {
        rz_thumb_pixels(t->films.cfg, &t->films.thumbs[rows[i]], pixels + i * 3 * t->films.size * t->films.size);
        *n_tokens += t->answer_tokens[rows[i]];
    }
    rz_films_trim(&t->films, rows, n_good);
    return n_good ? rows_loss(t, &net, rows, pixels, n_good, 1.0, sum, err) : RADZ_OK;
}

/* exp(-mean loss) stands where other objectives have an AUC: in 0..1, and more is better. */
static radz_status validate(rz_trainer *t, rz_validation *out, radz_error *err)
{
    double sum = 0;
    size_t n_tokens = 0;
    float *pixels = rz_calloc(t->host, AT_ONCE, 3 * t->films.size * t->films.size * sizeof *pixels);
    radz_status st = pixels ? RADZ_OK : RZ_NO_MEMORY(err, "validation");
    for (size_t i = 0; i < t->ds.n_val && !st; i += AT_ONCE)
        st = validate_rows(t, i, t->ds.n_val - i < AT_ONCE ? t->ds.n_val - i : AT_ONCE, pixels, &sum, &n_tokens, err);
    rz_free(t->host, pixels);
    double loss = n_tokens ? sum / (double)n_tokens : NAN;
    out->macro = NAN, out->monitored = exp(-loss);
    if (!st) rz_log(t->host, RADZ_LOG_INFO, "step %lld: validation loss %.6f", (long long)t->state.step, loss);
    return st;
}

/* A model that had a bank gets one of its new self. */
static radz_status finish(rz_trainer *t, radz_error *err)
{
    if (!t->model->special) return RADZ_OK;
    const rz_net net = {.model = t->model, .s = t->s};
    return rz_bank_write_own(&net, t->o.out_dir, t->diseases.entries, t->diseases.n, err);
}

const rz_objective rz_objective_generate = {.name = "generate",
                                            .open = open,
                                            .close = close,
                                            .items = list_items,
                                            .part = part,
                                            .validate = validate,
                                            .finish = finish};
