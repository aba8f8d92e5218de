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

/* How well scale s does: the sum of squared errors over n numbers. top: the largest integer; low: the smallest. Lanes
 * of their own, so that a compiler may add several at once. */
static float error_of(const float *x, size_t n, float s, float low, float top)
{
    enum { LANES = 8 };
    const float inv = s != 0 ? 1.0f / s : 0;
    float sum[LANES] = {0}, total = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++) {
            float q = x[i + k] * inv, e;
            q = q < low ? low : q > top ? top : q;
            e = x[i + k] - round_near(q) * s;
            sum[k] += e * e;
        }
    for (; i < n; i++) {
        float q = x[i] * inv, e;
        q = q < low ? low : q > top ? top : q;
        e = x[i] - round_near(q) * s;
        total += e * e;
    }
    for (size_t k = 0; k < LANES; k++) total += sum[k];
    return total;
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
 * be cut where that serves the others. */
static float scale4(const float *x, size_t n)
{
    enum { STEPS = 9 };
    const float m = extreme(x, n);
    float best = bf16(m / -8), least = error_of(x, n, best, -8, 7);
    for (int i = 0; i < STEPS; i++) {
        const float divisor = 7.0f + 0.35f * (float)i;
        for (int sign = -1; sign <= 1; sign += 2) {
            const float s = bf16((float)sign * m / divisor), e = error_of(x, n, s, -8, 7);
            if (e < least) least = e, best = s;
        }
    }
    return best;
}

static float scale8(const float *x, size_t n)
{
    return bf16(fabsf(extreme(x, n)) / 127);
}

static int to_integer(float x, float inv, int low, int top)
{
    const float q = x * inv;
    /* NaN: 0; the scale says NaN */
    return q <= (float)low ? low : q >= (float)top ? top : q == q ? (int)round_near(q) : 0;
}

void rz_quantise_row(const float *x, size_t n, int bits, size_t group, uint8_t *q, uint16_t *scale)
{
    for (size_t g = 0; g < n; g += group) {
        const size_t end = n - g < group ? n : g + group;
        const float s = bits == 8 ? scale8(x + g, end - g) : scale4(x + g, end - g), inv = s != 0 ? 1.0f / s : 0;
        scale[g / group] = rz_f32_to_bf16(s);
        if (bits == 8)
            for (size_t i = g; i < end; i++) q[i] = (uint8_t)to_integer(x[i], inv, -127, 127);
        else
            for (size_t i = g; i < end; i += 2)
                q[i / 2] = (uint8_t)((to_integer(x[i], inv, -8, 7) + 8) | (to_integer(x[i + 1], inv, -8, 7) + 8) << 4);
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
