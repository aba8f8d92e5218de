/* half.c - layers whose activations are bfloat16. SPDX-License-Identifier: Apache-2.0 */
#include "half.h"

static bool multiplies_half(const rz_param *w)
{
    return w->w.compute == RZ_BF16 || !rz_dtype_is_float(w->w.dtype);
}

bool rz_half_fits(const rz_net *net, const rz_linear *const *layers, size_t n)
{
    bool fits = rz_device_is_half(net->model->dev) && !net->keep && !net->pager;
    for (size_t i = 0; i < n && fits; i++) fits = !layers[i]->lora && multiplies_half(layers[i]->w);
    return fits;
}

uint16_t *rz_half_rows(const rz_net *net, size_t rows, size_t cols)
{
    size_t n;
    if (rz_size_mul(rows, cols, &n) && rz_size_mul(n, sizeof(uint16_t), &n)) return rz_arena_bytes(net->s, n);
    rz_stream_fail(net->s, RADZ_E_LIMIT, "scratch memory: %zu x %zu activations overflow", rows, cols);
    return NULL;
}

uint16_t *rz_half_norm_forward(const rz_net *net, const rz_norm *n, float eps, const float *x, size_t rows)
{
    uint16_t *y = rz_half_rows(net, rows, n->w->n);
    rz_half_norm(net->s, y, x, n->w->w.data, n->b ? n->b->w.data : NULL, eps, rows, n->w->n);
    return y;
}

static const void *bias_of(const rz_linear *l)
{
    return l->b ? l->b->w.data : NULL;
}

/* b's numbers lie behind a's, as rows of one matrix. */
static bool follows(const rz_linear *a, const rz_linear *b)
{
    const rz_mat *x = &a->w->w, *y = &b->w->w;
    const size_t n_bytes = rz_dtype_bytes(x->dtype, a->w->n);
    if (x->dtype != y->dtype || x->ld != y->ld || x->scale || (const uint8_t *)x->data + n_bytes != y->data)
        return false;
    return a->b && b->b ? (const float *)a->b->w.data + a->b->n == b->b->w.data : !a->b && !b->b;
}

uint16_t *rz_half_linears(const rz_net *net, const rz_linear *const *layers, size_t n, const uint16_t *x, size_t rows)
{
    size_t ld = 0;
    for (size_t i = 0; i < n; i++) ld += layers[i]->w->dims[0];
    uint16_t *y = rz_half_rows(net, rows, ld);
    for (size_t i = 0, at = 0, out; i < n && y; at += out) {
        const rz_linear *first = layers[i];
        out = first->w->dims[0];
        while (++i < n && follows(layers[i - 1], layers[i])) out += layers[i]->w->dims[0];
        const size_t in = first->w->n / first->w->dims[0];
        rz_half_linear(net->s, y + at, ld, x, in, first->w->w, bias_of(first), rows, out, in);
    }
    return y;
}

void rz_half_columns(const rz_net *net, uint16_t *y, size_t ldy, const uint16_t *x, size_t ldx, size_t rows,
                     size_t cols)
{
    if (rz_stream_failed(net->s)) return;
    /* two numbers have the room of a float */
    rz_copy_rows(net->s, (float *)(void *)y, ldy / 2, NULL, (const float *)(const void *)x, ldx / 2, NULL, rows,
                 cols / 2);
}

void rz_half_residual(const rz_net *net, const rz_linear *l, float *h, const uint16_t *x, size_t rows)
{
    const size_t out = l->w->dims[0], in = l->w->n / out;
    rz_half_linear_add(net->s, h, out, x, in, l->w->w, bias_of(l), rows, out, in);
}
