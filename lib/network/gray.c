/* gray.c - channel c of a gray film is (u - mean[c]) / std[c] of the same u, so a times channel 0 plus b with
 * a = std[0] / std[c] and b = (mean[0] - mean[c]) / std[c]. A patch's product with W[c] summed over c is then one with
 * the sum of a W[c], a third as long, plus the sum of b times all numbers of W[c].
 * SPDX-License-Identifier: Apache-2.0 */
#include "gray.h"

#include "preprocess.h"

enum { CHANNELS = 3 };

/* One output: `row` are its weights, n of each channel. Returns what is added to its products. */
static float sum_channels(const rz_preprocess_config *p, const float *row, size_t n, float *w)
{
    double bias = 0;
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t c = 0; c < CHANNELS; c++) {
            const double x = (double)row[c * n + i], std = (double)p->std[c];
            sum += x * (double)p->std[0] / std;
            bias += x * ((double)p->mean[0] - (double)p->mean[c]) / std;
        }
        w[i] = (float)sum;
    }
    return (float)bias;
}

static radz_status add(rz_model *m, rz_stream *s, radz_error *err)
{
    const rz_param *patch = m->patch;
    const size_t out = patch->dims[0], in = patch->n / out, n = in / CHANNELS;
    int32_t *ids = rz_arena_host(s, out, sizeof *ids);
    float *rows = rz_arena_f32(s, out, in), *w = rz_arena_f32(s, out, n);
    rz_param *gray = m->gray_params;
    for (size_t i = 0; ids && i < out; i++) ids[i] = (int32_t)i;
    rz_gather(s, rows, patch->w, ids, out, in);
    RZ_TRY(rz_stream_sync(s, err));
    gray[0] = (rz_param){.n_dims = 2, .dims = {out, n}, .n = out * n, .w = rz_mat_f32(NULL, n)};
    gray[1] = (rz_param){.n_dims = 1, .dims = {out}, .n = out, .w = rz_mat_f32(NULL, out)};
    for (size_t i = 0; i < RZ_COUNT(m->gray_params); i++) {
        void *data = NULL;
        RZ_TRY(rz_device_alloc(m->dev, gray[i].n * sizeof(float), &data, err));
        gray[i].w.data = data, gray[i].owned = true;
    }
    float *bias = (float *)(uintptr_t)gray[1].w.data;
    for (size_t i = 0; i < out; i++) bias[i] = sum_channels(&m->cfg.preprocess, rows + i * in, n, w + i * n);
    gray[0].w.compute = patch->w.compute;
    if (patch->w.compute == RZ_BF16) {
        gray[0].w.dtype = RZ_BF16;
        rz_to_bf16(s, (uint16_t *)(uintptr_t)gray[0].w.data, w, out * n);
    } else
        rz_copy(s, (float *)(uintptr_t)gray[0].w.data, w, out * n * sizeof *w);
    m->gray = (rz_linear){&gray[0], &gray[1], NULL};
    return rz_stream_sync(s, err);
}

radz_status rz_model_add_gray(rz_model *m, radz_error *err)
{
    rz_stream *s;
    if (!m->cfg.has_vision || m->cfg.vision.channels != CHANNELS || !rz_device_is_host(m->dev)) return RADZ_OK;
    RZ_TRY(rz_stream_open(m->dev, &s, err));
    const radz_status status = add(m, s, err);
    rz_stream_close(s);
    return status;
}

void rz_model_free_gray(rz_model *m)
{
    for (size_t i = 0; i < RZ_COUNT(m->gray_params); i++)
        if (m->gray_params[i].owned) rz_device_free(m->dev, (void *)(uintptr_t)m->gray_params[i].w.data);
}

size_t rz_model_gray_bytes(const rz_model *m)
{
    return m->gray.w ? m->gray.w->n * sizeof(float) + m->gray.b->n * sizeof(float) : 0;
}

size_t rz_model_planes(const rz_model *m, const rz_pixels *film)
{
    return m->gray.w && rz_preprocess_is_gray(&m->cfg.preprocess, film) ? 1 : CHANNELS;
}

radz_status rz_model_preprocess(const rz_model *m, rz_pool *pool, const rz_pixels *film, float *out, radz_error *err)
{
    const rz_config *cfg = &m->cfg;
    return rz_preprocess_on(pool, cfg->host, &cfg->preprocess, cfg->vision.image_size, film, rz_model_planes(m, film),
                            out, err);
}
