/* plan.c - what a training run will take, before it starts. SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"
#include "trainer.h"

#define PROCESS_BYTES ((uint64_t)10 << 20)

/* Mapped weights that no pass looks at stay on the disk. */
static bool is_resident(const rz_model *m, const rz_param *p)
{
    return p->owned || m->setup.all_blocks || rz_net_reads(m, p);
}

static uint64_t weight_bytes(const rz_trainer *t, uint64_t *n_parameters)
{
    uint64_t n_bytes = 0;
    *n_parameters = 0;
    for (size_t i = 0; i < t->model->n_params; i++) {
        const rz_param *p = &t->model->params[i];
        if (!p->w.data) continue;
        *n_parameters += p->n;
        if (is_resident(t->model, p)) n_bytes += rz_mat_bytes(p->w, p->n / p->w.ld);
    }
    return n_bytes;
}

/* A step without its update; draws, films found bad and gradients are put back. */
static radz_status measure_step(rz_trainer *t, double *seconds, radz_error *err)
{
    rz_run_state state = t->state;
    size_t n_bad = t->films.n_bad;
    uint8_t *bad = rz_malloc(t->host, t->films.n);
    if (!bad) return RZ_NO_MEMORY(err, "plan");
    memcpy(bad, t->films.bad, t->films.n);
    double start = rz_seconds();
    radz_status st = rz_train_gradients(t, err);
    *seconds = rz_seconds() - start;
    rz_batch_wait(t);
    rz_optimizer_zero(&t->optimizer, t->s);
    radz_status left = rz_stream_sync(t->s, st ? NULL : err);
    memcpy(t->films.bad, bad, t->films.n);
    t->films.n_bad = n_bad, t->state = state;
    rz_free(t->host, bad);
    return st ? st : left;
}

/* Rows of the texts of a batch, each of them once: as many different ones as so many draws find. */
static double text_rows(const rz_trainer *t)
{
    const double n = (double)t->ds.texts.n;
    size_t rows = 0;
    for (size_t i = 0; i < t->ds.texts.n; i++) rows += t->text_prompts[i].n;
    return n > 0 ? (double)rows * (1 - pow(1 - 1 / n, (double)t->b)) : 0;
}

/* Without a measurement: as the layers would ask for memory, with texts of the mean length. */
static uint64_t guess_activations(const rz_trainer *t)
{
    const bool pairs = t->objective == &rz_objective_radz;
    size_t rows = t->b * t->image_prompt.n, items = t->b;
    if (t->objective != &rz_objective_classify) rows += (size_t)text_rows(t);
    if (pairs) items += t->b + t->n_anchors;
    for (size_t c = 0; pairs && c < t->n_anchors && !t->model->cfg.radz.embedding_anchors; c++)
        rows += t->disease_prompts[c].n;
    size_t micro = (size_t)t->o.micro_batch, films = t->b;
    if (micro && micro < items) rows = micro * t->image_prompt.n, films = micro < films ? micro : films;
    return rz_net_step_bytes(t->model, films, rows, t->o.recompute != 0);
}

static radz_status plan(rz_trainer *t, bool measure, radz_train_plan *p, radz_error *err)
{
    p->n_steps = t->n_steps, p->n_train = (int64_t)t->ds.n_train, p->n_val = (int64_t)t->ds.n_val;
    p->n_left_out = (int64_t)t->ds.n_left_out, p->n_bad_rows = (int64_t)(t->ds.n_bad + t->films.n_bad);
    p->weight_bytes = weight_bytes(t, &p->n_parameters);
    for (size_t i = 0; i < t->optimizer.n_slots; i++) p->n_trained += t->optimizer.slots[i].p->n;
    p->optimizer_bytes = (uint64_t)t->optimizer.n_floats * (t->optimizer.average ? 4 : 3) * sizeof(float);
    for (size_t i = 0; i < t->optimizer.n_slots; i++)
        if (t->optimizer.slots[i].half) p->optimizer_bytes += t->optimizer.slots[i].p->n * sizeof(float);
    uint64_t film = (uint64_t)t->films.size * t->films.size, kept = film * t->films.n;
    p->film_bytes = (kept < t->films.max_bytes ? kept : t->films.max_bytes) + 2 * 3 * film * t->b * sizeof(float);
    p->seconds_per_step = NAN;
    if (measure) RZ_TRY(measure_step(t, &p->seconds_per_step, err));
    const uint64_t held = rz_device_is_host(t->dev) ? rz_arena_touched(t->s) : rz_arena_peak(t->s);
    p->activation_bytes = measure ? held : guess_activations(t);
    p->process_bytes = PROCESS_BYTES;
    return RADZ_OK;
}

radz_status rz_trainer_plan(rz_trainer *t, bool measure, radz_train_plan *p, radz_error *err)
{
    radz_error why = {0};
    *p = (radz_train_plan){.struct_size = sizeof *p};
    radz_status st = plan(t, measure, p, &why);
    if (st && err) *err = why;
    return rz_comm_fail(&t->comm, st, &why);
}
