/* projector.c - LLaVA's two-layer MLP between tower and decoder.
 * SPDX-License-Identifier: Apache-2.0 */
#include "projector.h"

float *rz_projector_forward(const rz_net *net, float *x, size_t rows, rz_projector_acts *a)
{
    const rz_linear *l = net->model->projector;
    size_t n = rows * l[0].w->dims[0];
    *a = (rz_projector_acts){.rows = rows, .x = x};
    a->l1 = rz_linear_forward(net, &l[0], x, rows);
    a->act = rz_arena_f32(net->s, 1, n);
    rz_act(net->s, net->model->cfg.projector_act, a->act, a->l1, n);
    return rz_linear_forward(net, &l[1], a->act, rows);
}

float *rz_projector_backward(const rz_net *net, const rz_projector_acts *a, const float *dy)
{
    const rz_linear *l = net->model->projector;
    size_t wide = l[0].w->dims[0];
    float *dact = rz_arena_f32(net->s, a->rows, wide);
    float *dx = rz_arena_f32(net->s, a->rows, l[0].w->dims[1]);
    rz_linear_backward(net, &l[1], 0.0f, dact, dy, a->act, a->rows);
    rz_act_bwd(net->s, net->model->cfg.projector_act, dact, dact, a->l1, a->rows * wide);
    rz_linear_backward(net, &l[0], 0.0f, dx, dact, a->x, a->rows);
    return dx;
}
