/* initial.c - numbers of parameters that no file holds: seeded, the same on every machine.
 * SPDX-License-Identifier: Apache-2.0 */
#include "initial.h"

#include "tensors.h"

#define PART_SEED UINT64_C(0x6e65772070617274)

static float standard_deviation(const rz_model *m, const rz_param *p, rz_init_kind kind)
{
    double fan_in = (double)(p->n / p->dims[0]), layers = (double)(m->cfg.text.layers + m->cfg.vision.layers);
    if (kind == RZ_INIT_ROWS) return 0.1f;
    double std = 0.6 / sqrt(fan_in);
    return (float)(kind == RZ_INIT_RESIDUAL ? std / sqrt(layers) : std);
}

void rz_initial_random(const rz_model *m, const rz_param *p, rz_init_kind kind, uint64_t seed, float *out)
{
    rz_rng r;
    rz_rng_seed(&r, seed, (uint64_t)(p - m->params));
    float std = standard_deviation(m, p, kind), fixed = kind == RZ_INIT_ONE ? 1.0f : 0.0f;
    if (p == m->log_tau) fixed = (float)log(m->cfg.radz.tau);
    for (size_t i = 0; i < p->n; i++)
        out[i] = kind == RZ_INIT_ZERO || kind == RZ_INIT_ONE ? fixed : std * (float)rz_rng_normal(&r);
}

/* One stream of numbers for each name: a part is the same whatever else is new. */
static void seed_by_name(rz_rng *r, uint64_t seed, const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++) h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    rz_rng_seed(r, seed ^ PART_SEED, h);
}

/* Mean and standard deviation of each column of the embedding table: moments[c], moments[cols + c]. */
static radz_status table_moments(const rz_model *m, double *moments, radz_error *err)
{
    const rz_st_tensor *t = rz_tensor_of(m, m->embed);
    size_t rows = m->embed->dims[0], cols = m->embed->dims[1];
    float *row = rz_malloc(m->cfg.host, cols * sizeof *row);
    if (!row) return RZ_NO_MEMORY(err, "special tokens");
    radz_status status = RADZ_OK;
    for (size_t i = 0; i < rows && !status; i++) {
        rz_st_tensor view = *t;
        view.n_elements = cols, view.n_bytes = t->n_bytes / rows, view.data = t->data + i * view.n_bytes;
        status = rz_st_to_f32(&view, row, err);
        for (size_t c = 0; c < cols && !status; c++) {
            moments[c] += (double)row[c];
            moments[cols + c] += (double)row[c] * (double)row[c];
        }
    }
    rz_free(m->cfg.host, row);
    for (size_t c = 0; c < cols; c++) {
        double mean = moments[c] / (double)rows, var = moments[cols + c] / (double)rows - mean * mean;
        moments[c] = mean, moments[cols + c] = var > 0 ? sqrt(var) : 0;
    }
    return status;
}

static radz_status draw_rows(const rz_model *m, const rz_param *p, rz_rng *r, float *out, radz_error *err)
{
    size_t cols = p->dims[1];
    double *moments = rz_calloc(m->cfg.host, 2 * cols, sizeof *moments);
    if (!moments) return RZ_NO_MEMORY(err, "special tokens");
    radz_status status = table_moments(m, moments, err);
    for (size_t i = 0; i < p->n && !status; i++)
        out[i] = (float)(moments[i % cols] + moments[cols + i % cols] * rz_rng_normal(r));
    rz_free(m->cfg.host, moments);
    return status;
}

/* Inputs of the layer that a weight or a bias of a head belongs to. */
static size_t inputs_of(const rz_model *m, const rz_param *p)
{
    const rz_head *heads[] = {&m->gamma_img, &m->gamma_txt, &m->gamma_dis};
    for (size_t i = 0; i < RZ_COUNT(heads); i++) {
        if (p == heads[i]->l1.b) return heads[i]->l1.w->dims[1];
        if (p == heads[i]->l2.b) return heads[i]->l2.w->dims[1];
    }
    return p->n_dims == 2 && p != m->classifier.w ? p->dims[1] : 0; /* a linear head starts at zero */
}

static bool is_lora_b(const rz_model *m, const rz_param *p)
{
    for (size_t i = 0; i < m->n_pairs; i++)
        if (m->pairs[i].b == p) return true;
    return false;
}

static bool is_norm_weight(const rz_model *m, const rz_param *p)
{
    return p == m->gamma_img.norm.w || p == m->gamma_txt.norm.w || p == m->gamma_dis.norm.w;
}

radz_status rz_initial_part(const rz_model *m, const rz_param *p, uint64_t seed, float *out, radz_error *err)
{
    rz_rng r;
    seed_by_name(&r, seed, p->name);
    if (p == m->special) return draw_rows(m, p, &r, out, err);
    size_t fan_in = is_lora_b(m, p) ? 0 : inputs_of(m, p);
    double bound = fan_in ? 1 / sqrt((double)fan_in) : 0;
    float fixed = p == m->log_tau ? (float)log(m->cfg.radz.tau) : is_norm_weight(m, p) ? 1.0f : 0.0f;
    for (size_t i = 0; i < p->n; i++) out[i] = fan_in ? (float)(bound * (2 * rz_rng_uniform(&r) - 1)) : fixed;
    return RADZ_OK;
}
