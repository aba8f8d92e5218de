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

uint16_t *rz_half_linear_forward(const rz_net *net, const rz_linear *l, const uint16_t *x, size_t rows)
{
    const size_t out = l->w->dims[0], in = l->w->n / out;
    uint16_t *y = rz_half_rows(net, rows, out);
    rz_half_linear(net->s, y, out, x, in, l->w->w, l->b ? l->b->w.data : NULL, rows, out, in);
    return y;
}

void rz_half_residual(const rz_net *net, const rz_linear *l, float *h, const uint16_t *x, size_t rows)
{
    const size_t out = l->w->dims[0], in = l->w->n / out;
    rz_half_linear_add(net->s, h, out, x, in, l->w->w, l->b ? l->b->w.data : NULL, rows, out, in);
}
