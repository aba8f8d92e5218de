/* trainer.h - what the files of a training run share. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_TRAINER_H
#define RZ_TRAINER_H

#include "bank.h"
#include "checkpoint.h"
#include "comm.h"
#include "losses.h"
#include "sampler.h"
#include "train.h"
#include "validate.h"
#include "worker.h"

/* Host memory of one batch of B rows, and what goes through the network with them. */
typedef struct rz_batch {
    size_t *rows;   /* (B) rows of the dataset */
    int64_t *draws; /* (B) draw numbers: they seed the augmentation */
    uint8_t *bad;   /* (B) film cannot be read */
    float *pixels;  /* (this process's films, 3, size, size) */
    rz_item *items; /* films first, one per row; at most 2 B + N */
    size_t n_items;
    /* of the objective "radz": U different texts and N diseases follow the films */
    size_t n_texts;                       /* U */
    int32_t *text_rows;                   /* (B) which item is the row's text */
    int32_t *text_item;                   /* (dataset texts) item of a text, 0: not in this batch */
    float *targets, *keep, *keep_classes; /* (B, N), (B, B), (B, N) */
} rz_batch;

/* Films of the batch to come, being prepared by a thread; touched by nobody else before rz_batch_wait. */
typedef struct rz_ahead {
    rz_worker *worker;
    size_t n, *rows; /* what will probably be drawn */
    int64_t *draws;
    uint8_t *done; /* its pixels are there */
    float *pixels;
} rz_ahead;

/* The vectors of all items of a batch and their gradients: device memory, (n, k) each. */
typedef struct rz_vectors {
    size_t n, k;
    const float *global, *local;
    float *dglobal, *dlocal; /* zero at first: a loss adds into them */
    bool main; /* this process adds the gradients of the loss's own parameters (tau, a head): one of several does */
} rz_vectors;

/* What is learned. A step of training (step.c) is, `accumulate` times:
 *   the batch is drawn; items() lists what goes through the network;
 *   with `loss`: every item becomes its two vectors, loss() turns all vectors into their gradients, and these go back
 *   through the network. In micro batches the vectors are made without activations and once more, part by part, with
 *   them (gradient caching), so a loss may couple all items.
 *   with `part` instead: a loss that is a sum over items; part() takes some items forward and back.
 * Then the gradients' mean makes one optimiser step. Everything is a function of the batch and the weights: with
 * several processes each one runs loss() on the same vectors, and network passes over its own items only. */
typedef struct rz_objective {
    const char *name;
    radz_status (*open)(rz_trainer *t, radz_error *err); /* after model, data set, and prompts; NULL: nothing */
    void (*close)(rz_trainer *t);                        /* also after a failed open; NULL: nothing */
    void (*items)(rz_trainer *t, rz_batch *b);           /* sets b->items and n_items; any thread */
    radz_status (*loss)(rz_trainer *t, const rz_batch *b, const rz_vectors *v, rz_loss_output *out, radz_error *err);
    /* Forward, loss, backward of b->items[first .. first + n - 1]; adds its share of the batch's loss to *out.
     * net->keep is set. */
    radz_status (*part)(rz_trainer *t, const rz_net *net, const rz_batch *b, size_t first, size_t n,
                        rz_loss_output *out, radz_error *err);
    radz_status (*validate)(rz_trainer *t, rz_validation *out, radz_error *err); /* NULL: films against diseases */
    radz_status (*finish)(rz_trainer *t, radz_error *err); /* after the model was written to out_dir; NULL: its bank */
} rz_objective;
extern const rz_objective rz_objective_radz, rz_objective_classify, rz_objective_generate;

struct rz_trainer {
    const rz_host *host;
    rz_device *dev;
    rz_stream *s;
    radz_train_options o; /* strings are copies */
    rz_model *model;
    rz_bank_list diseases;
    rz_dataset ds;
    rz_sampler sampler;
    rz_films films;
    rz_prompt image_prompt, *text_prompts, *disease_prompts; /* one per dataset text, one per disease */
    /* As films, classes and, for the fused score, their sentences are read afterwards. */
    rz_prompt asked_prompt, *class_prompts, *sentence_prompts;
    rz_optimizer optimizer;
    rz_validator validator;
    rz_validation validation; /* the latest */
    const rz_objective *objective;
    uint32_t *answer_tokens; /* objective "generate": tokens of each row's answer */
    rz_batch batch;
    rz_ahead ahead;
    rz_comm comm;
    size_t b, n_classes; /* batch size, diseases */
    size_t n_anchors;    /* n_classes; 0: no loss needs anchors (lambda = 1), the classes' sentences score films */
    int reference;       /* class for "none of the others", or -1 */
    int64_t n_steps;
    char *options_json; /* what a checkpoint must agree with */
    char *checkpoint_dir, *checkpoint_path;
    rz_run_state state;
    double seconds_per_step; /* smoothed; 0: no step yet */
};

/* The options that decide what a run computes, and the hashes of its inputs, as a JSON object of strings. */
radz_status rz_train_identity(rz_trainer *t, radz_error *err) RZ_CHECK;

/* Draws the next batch and fills t->batch; more: another will follow, so its films are prepared meanwhile. */
radz_status rz_batch_open(rz_trainer *t, radz_error *err) RZ_CHECK;
void rz_batch_close(rz_trainer *t);
radz_status rz_batch_next(rz_trainer *t, bool more, radz_error *err) RZ_CHECK;
/* Until then t->films belong to the thread that prepares them. */
void rz_batch_wait(rz_trainer *t);

/* The gradients of the next step without the step. */
radz_status rz_train_gradients(rz_trainer *t, radz_error *err) RZ_CHECK;
/* One optimiser step: loss, gradient's norm and learning rate go to *progress. */
radz_status rz_train_step(rz_trainer *t, radz_train_progress *progress, radz_error *err) RZ_CHECK;

/* Stream, model and optimiser as the options say; what these left open (lora_rank -1, merge_lora) is decided there. */
radz_status rz_train_open_model(rz_trainer *t, radz_error *err) RZ_CHECK;
/* Writes the files of out_dir that do not change while training. */
radz_status rz_train_put_settings(const rz_trainer *t, radz_error *err) RZ_CHECK;
/* Writes the model as it is now to out_dir, with its bank: whole weights, or a PEFT adapter of model_dir. */
radz_status rz_train_export(rz_trainer *t, radz_error *err) RZ_CHECK;
/* Measures the model in out_dir as it will be loaded and writes train.json beside it. */
radz_status rz_train_report(rz_trainer *t, radz_error *err) RZ_CHECK;

#endif
