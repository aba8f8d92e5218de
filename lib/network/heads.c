/* heads.c - pooling, gamma and the unit sphere, forward and backward.
 * SPDX-License-Identifier: Apache-2.0 */
#include "heads.h"

#define GAMMA_EPS 1e-5f

/* Linear(GELU(Linear(LayerNorm(x)))), or x itself. */
static float *gamma_forward(const rz_net *net, const rz_head *head, size_t rows, rz_head_acts *a)
{
    if (!head->l1.w) return a->x;
    size_t n = rows * head->l1.w->dims[0];
    a->n = rz_norm_forward(net, &head->norm, GAMMA_EPS, a->x, rows, &a->stats);
    a->l1 = rz_linear_forward(net, &head->l1, a->n, rows);
    a->act = rz_arena_f32(net->s, 1, n);
    rz_act(net->s, RZ_ACT_GELU, a->act, a->l1, n);
    return rz_linear_forward(net, &head->l2, a->act, rows);
}

static float *gamma_backward(const rz_net *net, const rz_head_acts *a, size_t rows, float *dout)
{
    const rz_head *head = a->head;
    if (!head->l1.w) return dout;
    size_t wide = head->l1.w->dims[0], in = net->model->cfg.text.hidden;
    float *dact = rz_arena_f32(net->s, rows, wide), *dn = rz_arena_f32(net->s, rows, in);
    float *dx = rz_arena_zeros(net->s, rows, in);
    rz_linear_backward(net, &head->l2, 0.0f, dact, dout, a->act, rows);
    rz_act_bwd(net->s, RZ_ACT_GELU, dact, dact, a->l1, rows * wide);
    rz_linear_backward(net, &head->l1, 0.0f, dn, dact, a->n, rows);
    rz_norm_backward(net, &head->norm, dx, dn, a->x, a->stats, rows);
    return dx;
}

static int32_t *iota(const rz_net *net, size_t n)
{
    int32_t *idx = rz_arena_host(net->s, n, sizeof *idx);
    for (size_t i = 0; idx && i < n; i++) idx[i] = (int32_t)i;
    return idx ? rz_arena_i32(net->s, idx, n) : NULL;
}

float *rz_head_forward(const rz_net *net, const rz_head *head, const float *h, rz_groups g, rz_head_acts *a)
{
    const rz_radz_config *r = &net->model->cfg.radz;
    size_t c = net->model->cfg.text.hidden;
    *a = (rz_head_acts){.head = head, .groups = g};
    if (r->mlp_then_mean) {
        a->x = rz_arena_f32(net->s, g.n_rows, c);
        rz_copy_rows(net->s, a->x, c, NULL, h, c, g.rows, g.n_rows, c);
        float *each = gamma_forward(net, head, g.n_rows, a);
        a->iota = iota(net, g.n_rows);
        a->out = rz_arena_f32(net->s, g.n, r->dim);
        rz_pool_mean(net->s, a->out, each, a->iota, g.start, g.n, r->dim);
    } else {
        a->x = rz_arena_f32(net->s, g.n, c);
        rz_pool_mean(net->s, a->x, h, g.rows, g.start, g.n, c);
        a->out = gamma_forward(net, head, g.n, a);
    }
    a->unit = rz_arena_f32(net->s, g.n, r->dim);
    a->norm = rz_arena_f32(net->s, g.n, 1);
    rz_l2norm(net->s, a->unit, a->norm, a->out, g.n, r->dim);
    return a->unit;
}

void rz_head_backward(const rz_net *net, const rz_head_acts *a, float *dh, const float *dunit)
{
    const rz_radz_config *r = &net->model->cfg.radz;
    size_t c = net->model->cfg.text.hidden;
    rz_groups g = a->groups;
    float *dout = rz_arena_zeros(net->s, g.n, r->dim);
    rz_l2norm_bwd(net->s, dout, dunit, a->unit, a->norm, g.n, r->dim);
    if (r->mlp_then_mean) {
        float *deach = rz_arena_zeros(net->s, g.n_rows, r->dim);
        rz_pool_mean_bwd(net->s, deach, dout, a->iota, g.start, g.n, r->dim);
        float *dx = gamma_backward(net, a, g.n_rows, deach);
        rz_add_rows(net->s, dh, c, g.rows, dx, c, NULL, g.n_rows, c);
    } else {
        float *dx = gamma_backward(net, a, g.n, dout);
        rz_pool_mean_bwd(net->s, dh, dx, g.rows, g.start, g.n, c);
    }
}
