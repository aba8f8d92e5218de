/* objective_classify.c - the objective "classify" (Table 3): a linear head over X_g, sigmoid per class.
 * SPDX-License-Identifier: Apache-2.0 */
#include "classes.h"
#include "trainer.h"

static radz_status open(rz_trainer *t, radz_error *err)
{
    (void)err;
    t->validator.head = true;
    return RADZ_OK;
}

static void list_items(rz_trainer *t, rz_batch *b)
{
    b->n_items = t->b;
    rz_dataset_targets(&t->ds, b->rows, t->b, b->targets); /* not zero: the film has the class */
    rz_dataset_keep_classes(&t->ds, b->rows, t->b, t->reference, b->keep_classes);
}

static radz_status loss(rz_trainer *t, const rz_batch *b, const rz_vectors *v, rz_loss_output *out, radz_error *err)
{
    const rz_net net = {.model = t->model, .s = t->s, .keep = true};
    const rz_classes_input in = {v->global, t->b, b->targets, b->keep_classes, v->main};
    return rz_classes_loss(&net, &in, v->dglobal, &out->loss, err);
}

const rz_objective rz_objective_classify = {.name = "classify", .open = open, .items = list_items, .loss = loss};
