/* kernels_resample.h - one pass of a resize, several lines of samples side by side. Integers: all kernel sets give the
 * same. Part of kernels.h. SPDX-License-Identifier: Apache-2.0 */

typedef uint16_t v_samples __attribute__((vector_size(2 * W)));
typedef uint16_t v_samples_mem __attribute__((vector_size(2 * W), aligned(2), may_alias));

/* Lines [l, l + W), output o. A lane holds two neighbours, of x and of the weights. */
INLINE vi resample_lanes(const rz_resample *r, const int16_t *x, size_t o, size_t l)
{
    const lane_mem *high = (const lane_mem *)(const void *)(r->high + o * r->n_taps);
    const lane_mem *low = (const lane_mem *)(const void *)(r->low + o * r->n_taps);
    vi h = {0}, s = {0};
    x += r->start[o] * RZ_RESAMPLE_LINES + 2 * l;
    for (size_t p = 0; p < r->n_taps / 2; p++, x += 2 * RZ_RESAMPLE_LINES) {
        const vi v = *(const vi_mem *)(const void *)x;
        h += v_madd(v, v_set_int(high[p]));
        s += v_madd(v, v_set_int(low[p]));
    }
    const vu pad = (vu) * (const vi_mem *)(const void *)(r->pad + l) * (uint32_t)r->total[o];
    s = (vi)((vu)s + ((vu)h << RZ_RESAMPLE_SPLIT) + pad + (1u << (RZ_RESAMPLE_BITS - 1))) >> RZ_RESAMPLE_BITS;
    s &= ~(s >> 31); /* below 0: 0 */
    const vi over = s > 255;
    return (over & 255) | (~over & s);
}

static void resample(const rz_resample *r, const int16_t *x, size_t o0, size_t o1, uint16_t *out, size_t stride)
{
    for (size_t o = o0; o < o1; o++, out += stride)
        for (size_t l = 0; l < RZ_RESAMPLE_LINES; l += W)
            *(v_samples_mem *)(void *)(out + l) = __builtin_convertvector(resample_lanes(r, x, o, l), v_samples);
}
