/* packed.c - a product with few hundred rows spends a fifth of its time on packing weights: a small model can afford to
 * have that done once. SPDX-License-Identifier: Apache-2.0 */
#include "packed.h"

#define MOST_BYTES ((size_t)64 << 20) /* of all packed matrices together */

/* Tables that rows are taken from are no linear layers, and the head is for writing alone. */
static bool is_packed(const rz_model *m, const rz_param *p)
{
    return p->n_dims >= 2 && p->w.data && !p->as_float && p != m->embed && p != m->lm_head;
}

/* The i-th matrix that films go through, in the files or made of those. */
static rz_param *nth(rz_model *m, size_t i)
{
    return i < m->n_params ? &m->params[i] : m->gray.w;
}

static size_t pack(const rz_model *m, const rz_param *p, void *to)
{
    return (rz_mat_pack(m->dev, p->w, p->dims[0], to) + 63) & ~(size_t)63;
}

radz_status rz_model_pack(rz_model *m, radz_error *err)
{
    size_t all = 0;
    const size_t n_matrices = m->n_params + (m->gray.w != NULL);
    if (rz_device_is_half(m->dev)) return RADZ_OK; /* matrices that lie side by side are multiplied as one: fill.c */
    for (size_t i = 0; i < n_matrices && all <= MOST_BYTES; i++)
        if (is_packed(m, nth(m, i))) all += pack(m, nth(m, i), NULL);
    if (!all || all > MOST_BYTES) return RADZ_OK;
    RZ_TRY(rz_device_alloc(m->dev, all, &m->packed, err));
    m->packed_bytes = all;
    uint8_t *to = m->packed;
    for (size_t i = 0; i < n_matrices; i++) {
        rz_param *p = nth(m, i);
        if (!is_packed(m, p)) continue;
        const size_t n = pack(m, p, to);
        if (n) p->w.packed = to;
        to += n;
    }
    return RADZ_OK;
}
