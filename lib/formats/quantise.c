/* quantise.c - matrices as symmetric integers of 8 or 4 bits, with one scale per row and group of columns.
 * SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"

enum { GROUP_MIN = 32, GROUP_MAX = 128 };

/* ---- Rounding ----------------------------------------------------------------------------- */

/* Adding and taking away 1.5 * 2^23 rounds what is below 2^22 to the nearest even, four or more at a time. */
static inline float round_near(float x)
{
    const float big = 12582912.0f;
    return (x + big) - big;
}

/* x at 1 / scale inv as an integer of -8 .. 7. No comparisons, which would keep a compiler from doing several at once:
 * on whole numbers the means below are exact. */
static inline float to_nibble(float x, float inv)
{
    float q = round_near(x * inv);
    q = 0.5f * (q + 7 - fabsf(q - 7));
    return 0.5f * (q - 8 + fabsf(q + 8));
}

enum { LANES = 8 };

/* Of n numbers x and their integers q at 1 / scale inv: the sums of x q and of q q. */
static void fit(const float *x, size_t n, float inv, float *xq, float *qq)
{
    float a[LANES] = {0}, b[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++) {
            const float q = to_nibble(x[i + k], inv);
            a[k] += x[i + k] * q, b[k] += q * q;
        }
    for (size_t k = 0; i < n; i++, k++) {
        const float q = to_nibble(x[i], inv);
        a[k] += x[i] * q, b[k] += q * q;
    }
    *xq = *qq = 0;
    for (size_t k = 0; k < LANES; k++) *xq += a[k], *qq += b[k];
}

static float bf16(float x)
{
    return rz_bf16_to_f32(rz_f32_to_bf16(x));
}

/* The number farthest from zero. */
static float extreme(const float *x, size_t n)
{
    float m = 0;
    for (size_t i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(m)) m = x[i];
    return m;
}

/* 4 bits have one level more below zero than above: a negative scale puts it where it is needed. The extreme itself may
 * be cut where that serves the others. Of the integers that some scales give, those are taken that lie best along x,
 * and with them the scale that brings them closest (least squares). */
float rz_quantise_scale4(const float *x, size_t n)
{
    static const float tops[] = {-8, 7.2f, -8.9f, 8.3f, 9.5f, -10};
    const float m = extreme(x, n);
    float best = 0, most = 0;
    if (m == 0) return 0;
    for (size_t i = 0; i < RZ_COUNT(tops); i++) {
        float xq, qq;
        fit(x, n, tops[i] / m, &xq, &qq);
        if (qq > 0 && xq * xq > most * qq) most = xq * xq / qq, best = xq / qq;
    }
    return bf16(best);
}

static float inverse(float scale)
{
    return fabsf(scale) > 1e-37f ? 1.0f / scale : 0;
}

int rz_quantise_nibble(float x, float scale)
{
    const float v = x * inverse(scale);
    if (fabsf(v) < 16) return (int)to_nibble(v, 1);
    return v > 0 ? 7 : v < 0 ? -8 : 0;
}

static float scale8(const float *x, size_t n)
{
    return bf16(fabsf(extreme(x, n)) / 127);
}

/* One group, n of at most GROUP_MAX numbers. */
static void round_group(const float *x, size_t n, int bits, float s, uint8_t *q)
{
    const float inv = inverse(s);
    int v[GROUP_MAX + 1];
    if (bits == 8)
        for (size_t i = 0; i < n; i++) v[i] = (int)round_near(x[i] * inv);
    else
        for (size_t i = 0; i < n; i++) v[i] = (int)to_nibble(x[i], inv) + 8;
    for (size_t i = 0; i < n && bits == 8; i++) q[i] = (uint8_t)(v[i] < -127 ? -127 : v[i] > 127 ? 127 : v[i]);
    for (size_t i = 0; i < n && bits == 4; i += 2) q[i / 2] = (uint8_t)(v[i] | v[i + 1] << 4);
}

static bool all_finite(const float *x, size_t n)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * 0;
    return sum == 0;
}

void rz_quantise_row(const float *x, size_t n, int bits, size_t group, uint8_t *q, uint16_t *scale)
{
    static const float zeros[GROUP_MAX];
    for (size_t g = 0; g < n; g += group) {
        const size_t size = n - g < group ? n - g : group;
        const bool finite = all_finite(x + g, size);
        const float s = !finite ? NAN : bits == 8 ? scale8(x + g, size) : rz_quantise_scale4(x + g, size);
        scale[g / group] = rz_f32_to_bf16(s);
        round_group(finite ? x + g : zeros, size, bits, finite ? s : 0, q + (bits == 8 ? g : g / 2));
    }
}

/* ---- Reading ------------------------------------------------------------------------------- */

bool rz_st_is_quantised(const rz_st_tensor *t)
{
    return !strcmp(t->dtype, "I8") || !strcmp(t->dtype, "U8");
}

/* Groups are a power of two long. Where several fit, they are the same groups. */
static size_t find_group(size_t cols, uint64_t n_groups)
{
    for (size_t g = GROUP_MAX; g >= GROUP_MIN; g /= 2)
        if ((cols + g - 1) / g == n_groups) return g;
    return 0;
}

radz_status rz_quantised_of(const rz_st_tensor *t, const rz_st_tensor *scale, rz_quantised *out, radz_error *err)
{
    const bool packed = !strcmp(t->dtype, "U8");
    if (t->n_dims != 2 || !t->n_elements)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "tensor '%s': integers (%s) are supported in matrices only", t->name,
                       t->dtype);
    if (!scale)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "tensor '%s': integers (%s), but there is no tensor '%s_scale'",
                       t->name, t->dtype, t->name);
    *out = (rz_quantised){.q = t, .scale = scale, .bits = packed ? 4 : 8};
    out->rows = (size_t)t->dims[0], out->cols = (size_t)t->dims[1] * (packed ? 2 : 1);
    if (strcmp(scale->dtype, "F32") && strcmp(scale->dtype, "BF16"))
        return rz_fail(err, RADZ_E_UNSUPPORTED, "tensor '%s': dtype %s, expected F32 or BF16", scale->name,
                       scale->dtype);
    if (scale->n_dims == 2 && scale->dims[0] == out->rows) out->group = find_group(out->cols, scale->dims[1]);
    if (!out->group)
        return rz_fail(err, RADZ_E_MISMATCH,
                       "tensor '%s': expected shape %zux%zu, %zux%zu or %zux%zu: a scale per group of 128, 64 or 32",
                       scale->name, out->rows, (out->cols + 127) / 128, out->rows, (out->cols + 63) / 64, out->rows,
                       (out->cols + 31) / 32);
    return RADZ_OK;
}

static float scale_at(const rz_st_tensor *scale, size_t i)
{
    float f;
    uint16_t half;
    if (scale->dtype[0] == 'F') {
        memcpy(&f, scale->data + 4 * i, sizeof f);
        return f;
    }
    memcpy(&half, scale->data + 2 * i, sizeof half);
    return rz_bf16_to_f32(half);
}

void rz_quantised_row(const rz_quantised *q, size_t row, float *out)
{
    const size_t groups = (q->cols + q->group - 1) / q->group;
    const uint8_t *data = q->q->data + row * (q->bits == 8 ? q->cols : q->cols / 2);
    for (size_t c = 0; c < q->cols; c++) {
        const int v = q->bits == 8 ? (int8_t)data[c] : (data[c / 2] >> (c & 1 ? 4 : 0) & 15) - 8;
        out[c] = (float)v * scale_at(q->scale, row * groups + c / q->group);
    }
}
