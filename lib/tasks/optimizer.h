/* optimizer.h - AdamW over the parameters that the vectors depend on. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_OPTIMIZER_H
#define RZ_OPTIMIZER_H

#include "model.h"

typedef struct rz_slot {
    rz_param *p;
    float *old_grad; /* what p->grad was before */
    float *w;        /* what is trained: the parameter itself, or the float copy of one that is bf16 */
    bool half;       /* the parameter is w rounded to bf16 */
    size_t offset;   /* floats, into grad, m and v */
    bool decay;      /* weight decay applies: matrices, but no positions or special rows */
} rz_slot;

typedef struct rz_optimizer {
    const rz_host *host;
    rz_device *dev;
    rz_slot *slots;
    size_t n_slots, n_floats;
    float *grad, *m, *v; /* device, one after another in one allocation */
    float *average;      /* device (n_floats): the weights' moving average; NULL: none is kept */
    rz_param *log_tau;   /* NULL: tau is not trained */
} rz_optimizer;

/* Gives every trained parameter of `model` that the loss depends on a gradient. bf16: matrices that are neither LoRA
 * nor of radz.safetensors become bf16, beside a float copy that the steps change. What no vector depends on (blocks
 * past radz.layer, lm_head) has none and stays as it is. m and v are zero. Closing gives the gradients back, not the
 * floats. */
radz_status rz_optimizer_open(const rz_host *host, rz_model *model, rz_stream *s, bool learn_tau, bool bf16,
                              rz_optimizer *out, radz_error *err) RZ_CHECK;
/* Starts a moving average of the weights at what they are now. */
radz_status rz_optimizer_average_open(rz_optimizer *o, rz_stream *s, radz_error *err) RZ_CHECK;
/* After step `step` (counted from 1): average = a average + (1 - a) weights, every RZ_AVERAGE_EVERY steps, with a =
 * min(decay^RZ_AVERAGE_EVERY, (1 + n) / (10 + n)) for the n-th time, so that an early average is a young one. */
#define RZ_AVERAGE_EVERY 8
void rz_optimizer_average(rz_optimizer *o, rz_stream *s, double decay, int64_t step);
/* Weights and average change places; twice leaves all bits as they were. Nothing where there is no average. */
void rz_optimizer_swap(rz_optimizer *o, rz_stream *s);
/* After the slots' floats changed by other means: rounds them into the parameters that are bf16. */
void rz_optimizer_put(rz_optimizer *o, rz_stream *s);
void rz_optimizer_close(rz_optimizer *o); /* safe on a zeroed one; the model must still be there */
void rz_optimizer_zero(rz_optimizer *o, rz_stream *s);
/* One step; the gradient's norm before clipping goes to *norm. clip_norm <= 0: no clipping. A norm that is not finite
 * leaves the weights as they were: RADZ_E_STATE. */
radz_status rz_optimizer_step(rz_optimizer *o, rz_stream *s, rz_adamw adam, double clip_norm, double *norm,
                              radz_error *err) RZ_CHECK;

/* Linear warm-up, then half a cosine to 0. step counts from 1. */
double rz_learning_rate(double lr, double warmup_fraction, int64_t step, int64_t n_steps);

#define RZ_TAU_MIN 0.01
#define RZ_TAU_MAX 0.5
void rz_set_tau(rz_param *log_tau, rz_stream *s, double tau);

#endif
