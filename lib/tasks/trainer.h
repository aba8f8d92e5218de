/* trainer.h - what the files of a training run share. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_TRAINER_H
#define RZ_TRAINER_H

#include "bank.h"
#include "checkpoint.h"
#include "losses.h"
#include "sampler.h"
#include "train.h"
#include "validate.h"

/* Host memory of one batch of B rows; U different texts and N diseases go through the network with them. */
typedef struct rz_batch {
    size_t *rows;                         /* (B) rows of the dataset */
    int64_t *draws;                       /* (B) draw numbers: they seed the augmentation */
    float *pixels;                        /* (B, 3, size, size) */
    rz_item *items;                       /* films, texts, diseases: at most 2 B + N */
    size_t n_texts;                       /* U */
    int32_t *text_rows;                   /* (B) which item is the row's text */
    int32_t *text_item;                   /* (dataset texts) item of a text, 0: not in this batch */
    float *targets, *keep, *keep_classes; /* (B, N), (B, B), (B, N) */
} rz_batch;

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
    rz_optimizer optimizer;
    rz_validator validator;
    rz_validation validation; /* the latest */
    rz_batch batch;
    size_t b, n_classes; /* batch size, diseases */
    int reference;       /* class for "none of the others", or -1 */
    int64_t n_steps;
    char *options_json; /* what a checkpoint must agree with */
    char *checkpoint_dir, *checkpoint_path;
    rz_run_state state;
    double seconds_per_step; /* smoothed; 0: no step yet */
};

/* The options that decide what a run computes, and the hashes of its inputs, as a JSON object of strings. */
radz_status rz_train_identity(rz_trainer *t, radz_error *err) RZ_CHECK;

/* Draws the next batch and fills everything that t->batch holds. */
radz_status rz_batch_open(rz_trainer *t, radz_error *err) RZ_CHECK;
void rz_batch_close(rz_trainer *t);
radz_status rz_batch_next(rz_trainer *t, radz_error *err) RZ_CHECK;

/* Writes the model as it is now to out_dir, with its bank. */
radz_status rz_train_export(rz_trainer *t, radz_error *err) RZ_CHECK;
/* Measures the model in out_dir as it will be loaded and writes train.json beside it. */
radz_status rz_train_report(rz_trainer *t, radz_error *err) RZ_CHECK;

#endif
