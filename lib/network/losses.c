/* losses.c - Eq. 6 to 15 on unit vectors, forward and backward.
 * SPDX-License-Identifier: Apache-2.0 */
#include "losses.h"

/* One cross-entropy of rows of `a` against rows of `b`: logits = a b^T / tau. */
typedef struct pair {
    const float *a, *b, *targets, *keep;
    float *da, *db;
    size_t rows, cols;
    double weight;      /* of the sum over rows */
    double *loss;       /* the weighted sum goes here */
    double loss_weight; /* with this weight */
} pair;

static void pair_loss(rz_stream *s, const rz_loss_input *in, const pair *p, double *dlog_tau)
{
    size_t n = p->rows, m = p->cols;
    float *logits = rz_arena_f32(s, n, m), *dlogits = rz_arena_f32(s, n, m), *loss = rz_arena_f32(s, n, 1);
    float *host = rz_arena_host(s, n, sizeof *host), inv_tau = (float)(1.0 / in->tau);
    rz_gemm(s, false, true, n, m, in->dim, inv_tau, rz_mat_f32(p->a, in->dim), rz_mat_f32(p->b, in->dim), 0, logits, m);
    rz_softmax_xent(s, loss, dlogits, logits, p->targets, p->keep, (float)p->weight, n, m);
    if (host) rz_download(s, host, loss, n * sizeof *loss);
    for (size_t i = 0; host && i < n; i++) *p->loss += p->loss_weight * (double)host[i];
    if (!p->da) return;
    rz_gemm(s, false, false, n, in->dim, m, inv_tau, rz_mat_f32(dlogits, m), rz_mat_f32(p->b, in->dim), 1, p->da,
            in->dim);
    rz_gemm(s, true, false, m, in->dim, n, inv_tau, rz_mat_f32(dlogits, m), rz_mat_f32(p->a, in->dim), 1, p->db,
            in->dim);
    *dlog_tau -= rz_dot(s, dlogits, logits, n * m); /* d(s / tau) / d log tau = -s / tau */
}

static float *identity(rz_stream *s, size_t n)
{
    float *host = rz_arena_host(s, n * n, sizeof *host), *eye = rz_arena_f32(s, n, n);
    for (size_t i = 0; host && i < n; i++) host[i * n + i] = 1.0f;
    if (host) rz_upload(s, eye, host, n * n * sizeof *eye);
    return eye;
}

/* Rows that have a class: the others are no part of the mean. */
static size_t count_labelled(rz_stream *s, const rz_loss_input *in)
{
    size_t n = in->b * in->n_classes, labelled = 0;
    float *t = rz_arena_host(s, n, sizeof *t);
    if (!t) return 0;
    rz_download(s, t, in->targets, n * sizeof *t);
    for (size_t i = 0; i < in->b; i++) {
        bool any = false;
        for (size_t c = 0; c < in->n_classes; c++) any |= t[i * in->n_classes + c] != 0.0f;
        labelled += any;
    }
    return labelled;
}

radz_status rz_losses(rz_stream *s, const rz_loss_input *in, rz_loss_grads *grads, rz_loss_output *out, radz_error *err)
{
    rz_mark mark = rz_arena_mark(s);
    rz_loss_grads none = {0}, *g = grads ? grads : &none;
    float *eye = identity(s, in->b);
    size_t labelled = in->n_classes ? count_labelled(s, in) : 0;
    double ca = 0, cg = 0, per_ca = (in->features ? 0.5 : 0.25) / (double)in->b;
    double per_cg = labelled ? 0.5 / (double)labelled : 0;
    double wa = in->lambda * per_ca, wg = (1.0 - in->lambda) * per_cg, dlog_tau = 0;
    size_t b = in->b, nc = in->n_classes;
    bool local = in->features == RZ_FEATURES_LOCAL; /* of the images, in the first crossing */
    bool other = in->features == RZ_FEATURES_GLOBAL;
    const float *x = local ? in->xl : in->xg, *y = other ? in->yg : in->yl;
    float *dx = local ? g->dxl : g->dxg, *dy = other ? g->dyg : g->dyl;
    size_t second = in->features ? 0 : b; /* rows of the second crossing */
    const pair pairs[] = {
        {x, y, eye, in->keep, dx, dy, b, b, wa, &ca, per_ca}, /* Eq. 7 */
        {y, x, eye, in->keep, dy, dx, b, b, wa, &ca, per_ca},
        {in->xl, in->yg, eye, in->keep, g->dxl, g->dyg, second, b, wa, &ca, per_ca}, /* Eq. 8 */
        {in->yg, in->xl, eye, in->keep, g->dyg, g->dxl, second, b, wa, &ca, per_ca},
        {in->xg, in->d, in->targets, in->keep_classes, g->dxg, g->dd, b, nc, wg, &cg, per_cg}, /* Eq. 13 */
        {in->yg, in->d, in->targets, in->keep_classes, g->dyg, g->dd, b, nc, wg, &cg, per_cg},
    };
    for (size_t i = 0; i < RZ_COUNT(pairs); i++)
        if (pairs[i].rows && pairs[i].cols) pair_loss(s, in, &pairs[i], &dlog_tau);
    rz_arena_release(s, mark);
    g->dlog_tau = dlog_tau;
    *out = (rz_loss_output){in->lambda * ca + (1.0 - in->lambda) * cg, ca, cg};
    radz_status status = rz_stream_sync(s, err);
    if (status) *out = (rz_loss_output){NAN, NAN, NAN};
    return status;
}
