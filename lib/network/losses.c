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

/* What all pairs leave on the device, one after another: it is read once, at the end. */
typedef struct results {
    float *loss, *logits, *dlogits;
    size_t n_rows, n_logits;
} results;

static results room(rz_stream *s, const pair *pairs, size_t n)
{
    results r = {0};
    for (size_t i = 0; i < n; i++) r.n_rows += pairs[i].rows, r.n_logits += pairs[i].rows * pairs[i].cols;
    r.loss = rz_arena_zeros(s, r.n_rows, 1);
    r.logits = rz_arena_f32(s, r.n_logits, 1), r.dlogits = rz_arena_f32(s, r.n_logits, 1);
    return r;
}

static void pair_loss(rz_stream *s, const rz_loss_input *in, const pair *p, float *loss, float *logits, float *dlogits)
{
    const size_t n = p->rows, m = p->cols, k = in->dim;
    const float inv_tau = (float)(1.0 / in->tau);
    if (n == 0 || m == 0) return;
    rz_gemm(s, false, true, n, m, k, inv_tau, rz_mat_f32(p->a, k), rz_mat_f32(p->b, k), 0, logits, m);
    rz_softmax_xent(s, loss, dlogits, logits, p->targets, p->keep, (float)p->weight, n, m);
    if (!p->da) return;
    rz_gemm(s, false, false, n, k, m, inv_tau, rz_mat_f32(dlogits, m), rz_mat_f32(p->b, k), 1, p->da, k);
    rz_gemm(s, true, false, m, k, n, inv_tau, rz_mat_f32(dlogits, m), rz_mat_f32(p->a, k), 1, p->db, k);
}

/* Every pair's loss; d loss / d log tau returned: d(s / tau) / d log tau = -s / tau. */
static double pair_losses(rz_stream *s, const rz_loss_input *in, const pair *pairs, size_t n)
{
    const results r = room(s, pairs, n);
    float *host = rz_arena_host(s, r.n_rows, sizeof *host);
    if (rz_stream_failed(s)) return 0;
    for (size_t i = 0, row = 0, at = 0; i < n; row += pairs[i].rows, at += pairs[i].rows * pairs[i].cols, i++)
        pair_loss(s, in, &pairs[i], r.loss + row, r.logits + at, r.dlogits + at);
    rz_download(s, host, r.loss, r.n_rows * sizeof *host);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < pairs[i].rows; k++) *pairs[i].loss += pairs[i].loss_weight * (double)*host++;
    return pairs->da ? -rz_dot(s, r.dlogits, r.logits, r.n_logits) : 0;
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
    double wa = in->lambda * per_ca, wg = (1.0 - in->lambda) * per_cg;
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
    g->dlog_tau = pair_losses(s, in, pairs, RZ_COUNT(pairs));
    rz_arena_release(s, mark);
    *out = (rz_loss_output){in->lambda * ca + (1.0 - in->lambda) * cg, ca, cg};
    radz_status status = rz_stream_sync(s, err);
    if (status) *out = (rz_loss_output){NAN, NAN, NAN};
    return status;
}
