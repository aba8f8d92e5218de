/* objective_radz.c - the objective of LLaVA-RadZ: L = lambda L_CA + (1 - lambda) L_CG over films, texts and diseases.
 * SPDX-License-Identifier: Apache-2.0 */
#include "trainer.h"

static bool is(const char *value, const char *name)
{
    return value && strcmp(value, name) == 0;
}

/* "batch_index" is what the authors' code does: a defect, for comparison. */
static void list_targets(const rz_trainer *t, rz_batch *b)
{
    if (!is(t->o.targets, "batch_index")) {
        rz_dataset_targets(&t->ds, b->rows, t->b, b->targets);
        rz_dataset_keep_classes(&t->ds, b->rows, t->b, t->reference, b->keep_classes);
        return;
    }
    for (size_t i = 0; i < t->b; i++)
        for (size_t c = 0; c < t->n_classes; c++) {
            b->targets[i * t->n_classes + c] = c == i % t->n_classes ? 1.0f : 0.0f;
            b->keep_classes[i * t->n_classes + c] = 1.0f;
        }
}

/* Films, then each text once, then the diseases. */
static void list_items(rz_trainer *t, rz_batch *b)
{
    b->n_texts = 0;
    for (size_t i = 0; i < t->b; i++) {
        size_t text = t->ds.rows[b->rows[i]].text;
        if (!b->text_item[text]) {
            b->text_item[text] = (int32_t)(t->b + b->n_texts);
            b->items[t->b + b->n_texts++] = (rz_item){.kind = RZ_ITEM_TEXT, .prompt = &t->text_prompts[text]};
        }
        b->text_rows[i] = b->text_item[text];
    }
    for (size_t i = 0; i < t->b; i++) b->text_item[t->ds.rows[b->rows[i]].text] = 0;
    b->n_items = t->b + b->n_texts + t->n_anchors;
    for (size_t c = 0; c < t->n_anchors; c++)
        b->items[t->b + b->n_texts + c] = (rz_item){.kind = RZ_ITEM_DISEASE, .prompt = &t->disease_prompts[c]};
    list_targets(t, b);
    rz_dataset_keep_pairs(&t->ds, b->rows, t->b, b->keep);
}

static float *uploaded(rz_stream *s, const float *host, size_t rows, size_t cols)
{
    float *p = rz_arena_f32(s, rows, cols);
    if (p) rz_upload(s, p, host, rows * cols * sizeof *p);
    return p;
}

/* (B, k): the vectors of the rows' texts. */
static float *texts_of(rz_stream *s, const float *vectors, const int32_t *items, size_t b, size_t k)
{
    float *y = rz_arena_f32(s, b, k);
    if (y) rz_copy_rows(s, y, k, NULL, vectors, k, items, b, k);
    return y;
}

static void add_tau(const rz_trainer *t, double dlog_tau)
{
    float g = (float)dlog_tau, *device = rz_arena_f32(t->s, 1, 1);
    if (!device) return;
    rz_upload(t->s, device, &g, sizeof g);
    rz_add(t->s, t->optimizer.log_tau->grad, device, 1);
}

static radz_status loss(rz_trainer *t, const rz_batch *b, const rz_vectors *v, rz_loss_output *out, radz_error *err)
{
    rz_stream *s = t->s;
    size_t k = v->k, diseases = (t->b + b->n_texts) * k;
    const int32_t *texts = rz_arena_i32(s, b->text_rows, t->b);
    float *dyg = rz_arena_zeros(s, t->b, k), *dyl = rz_arena_zeros(s, t->b, k);
    rz_loss_input in = {.b = t->b,
                        .n_classes = t->n_anchors,
                        .dim = k,
                        .xg = v->global,
                        .xl = v->local,
                        .yg = texts_of(s, v->global, texts, t->b, k),
                        .yl = texts_of(s, v->local, texts, t->b, k),
                        .d = v->global + diseases,
                        .tau = rz_model_tau(t->model, s),
                        .lambda = t->o.lambda,
                        .features = is(t->o.features, "global")  ? RZ_FEATURES_GLOBAL
                                    : is(t->o.features, "local") ? RZ_FEATURES_LOCAL
                                                                 : RZ_FEATURES_CROSS};
    in.targets = uploaded(s, b->targets, t->b, t->n_classes);
    in.keep_classes = uploaded(s, b->keep_classes, t->b, t->n_classes);
    in.keep = t->o.mask_false_negatives ? uploaded(s, b->keep, t->b, t->b) : NULL;
    if (rz_stream_failed(s)) return rz_stream_sync(s, err);
    rz_loss_grads g = {.dxg = v->dglobal, .dxl = v->dlocal, .dyg = dyg, .dyl = dyl, .dd = v->dglobal + diseases};
    RZ_TRY(rz_losses(s, &in, &g, out, err));
    rz_add_rows(s, v->dglobal, k, texts, dyg, k, NULL, t->b, k);
    rz_add_rows(s, v->dlocal, k, texts, dyl, k, NULL, t->b, k);
    if (t->optimizer.log_tau && v->main) add_tau(t, g.dlog_tau);
    return rz_stream_sync(s, err);
}

const rz_objective rz_objective_radz = {.name = "radz", .items = list_items, .loss = loss};
