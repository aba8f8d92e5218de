/* answers.h - how likely a model finds the answers in its prompts: next-token cross-entropy, and its gradient.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_ANSWERS_H
#define RZ_ANSWERS_H

#include "encode.h"

/* A prompt whose last n_tokens ids are the answer, its end token included: all are tokens of the vocabulary, and
 * something stands before them. */
typedef struct rz_answer {
    rz_item item;
    size_t n_tokens;
} rz_answer;

/* loss (host, n): the sum over the answer's tokens of -log p(token | all before it). With net->keep the gradient of
 * weight * (sum of all losses) is added to the parameters that have one: the mean over a batch that comes in several
 * parts is a weight of 1 / (answer tokens of the whole batch). Runs all decoder blocks; about max_logits logits exist
 * at a time, at least one row of them. Errors as in rz_encode; nothing stays in the arena. */
void rz_answers_loss(const rz_net *net, const rz_answer *answers, size_t n, double weight, size_t max_logits,
                     double *loss);

#define RZ_MAX_LOGITS ((size_t)4 << 20) /* floats: little beside what a block keeps, and products of a good size */

#endif
