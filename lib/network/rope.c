/* rope.c - rotation frequencies of rotary positions: default, linear, dynamic (NTK) and Llama 3's. Rounded to float
 * where transformers rounds: position 1000 turns an error of one bit into a thousand.
 * SPDX-License-Identifier: Apache-2.0 */
#include "rope.h"

static void plain(float theta, size_t head_dim, float *freq)
{
    for (size_t i = 0; i < head_dim / 2; i++)
        freq[i] = 1.0f / (float)pow((double)theta, (double)((float)(2 * i) / (float)head_dim));
}

/* Short waves stay, long ones are stretched by `factor`, those between are blended. */
static float llama3(const rz_rope_config *r, float f)
{
    const float pi2 = 6.283185307179586f, trained = (float)r->trained;
    float low = (float)r->low, high = (float)r->high, factor = (float)r->factor, wave = pi2 / f;
    if (wave < trained / high) return f;
    if (wave > trained / low) return f / factor;
    float smooth = (trained / wave - low) / (high - low);
    return (1.0f - smooth) * f / factor + smooth * f;
}

bool rz_rope_depends(const rz_text_config *t, size_t n_rows)
{
    return t->rope.kind == RZ_ROPE_DYNAMIC && n_rows > t->rope.trained;
}

void rz_rope_frequencies(const rz_text_config *t, size_t n_rows, float *freq)
{
    const rz_rope_config *r = &t->rope;
    float theta = (float)r->theta;
    if (rz_rope_depends(t, n_rows)) {
        float grown = (float)r->factor * (float)n_rows / (float)r->trained - (float)(r->factor - 1.0);
        theta *= powf(grown, (float)((double)t->head_dim / (double)(t->head_dim - 2)));
    }
    plain(theta, t->head_dim, freq);
    for (size_t i = 0; i < t->head_dim / 2; i++) {
        if (r->kind == RZ_ROPE_LINEAR) freq[i] /= (float)r->factor;
        if (r->kind == RZ_ROPE_LLAMA3) freq[i] = llama3(r, freq[i]);
    }
}
