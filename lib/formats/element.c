/* element.c - numbers of two bytes as float and back. SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"

static float bits_to_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t float_to_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

float rz_bf16_to_f32(uint16_t v)
{
    return bits_to_float((uint32_t)v << 16);
}

float rz_f16_to_f32(uint16_t v)
{
    uint32_t sign = (uint32_t)(v & 0x8000) << 16, exp = v >> 10 & 31, man = v & 1023;
    if (exp == 31) return bits_to_float(sign | 0x7F800000u | man << 13);
    if (exp) return bits_to_float(sign | (exp + 112) << 23 | man << 13);
    /* Subnormal: man * 2^-24 is exact in float. */
    return bits_to_float(sign | float_to_bits((float)man * 0x1p-24f));
}

uint16_t rz_f32_to_bf16(float f)
{
    uint32_t u = float_to_bits(f);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

uint16_t rz_f32_to_f16(float f)
{
    uint32_t u = float_to_bits(f), a = u & 0x7FFFFFFFu, rest, half;
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    unsigned shift;
    if (a > 0x7F800000u) return (uint16_t)(sign | 0x7E00 | (a >> 13 & 0x3FF));
    if (a >= 0x477FF000u) return sign | 0x7C00; /* 65520 and more round to infinity */
    if (a >= 0x38800000u) return (uint16_t)(sign | ((a - 0x38000000u + 0xFFF + (a >> 13 & 1)) >> 13));
    if (a < 0x33000000u) return sign; /* below half of the smallest subnormal */
    shift = 126 - (a >> 23);          /* 14..24: subnormal = mantissa >> shift, to nearest even */
    a = (a & 0x7FFFFFu) | 0x800000u;
    rest = a & ((1u << shift) - 1);
    half = 1u << (shift - 1);
    a >>= shift;
    if (rest > half || (rest == half && (a & 1))) a++;
    return (uint16_t)(sign | a);
}

radz_status rz_st_rows_f32(const rz_st_tensor *t, size_t first, size_t n, float *out, radz_error *err)
{
    const size_t n_rows = t->n_dims ? (size_t)t->dims[0] : 1, cols = n_rows ? t->n_elements / n_rows : 0;
    const bool f16 = !strcmp(t->dtype, "F16"), f32 = !strcmp(t->dtype, "F32");
    const uint8_t *p = t->data + first * cols * (f32 ? 4 : 2);
    if (!f32 && !f16 && strcmp(t->dtype, "BF16") != 0)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "tensor '%s': dtype %s, expected F32, F16 or BF16", t->name, t->dtype);
    if (f32 && n && cols) memcpy(out, p, n * cols * sizeof *out);
    for (size_t i = 0; !f32 && i < n * cols; i++, p += 2) {
        const uint16_t v = (uint16_t)(p[0] | p[1] << 8);
        out[i] = f16 ? rz_f16_to_f32(v) : rz_bf16_to_f32(v);
    }
    return RADZ_OK;
}

radz_status rz_st_to_f32(const rz_st_tensor *t, float *out, radz_error *err)
{
    return rz_st_rows_f32(t, 0, t->n_dims ? (size_t)t->dims[0] : 1, out, err);
}
