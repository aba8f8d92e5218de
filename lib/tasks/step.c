/* step.c - one step of training: batches forward, their loss, back, and the optimiser; in one pass or, for a batch
 * larger than memory, part by part. SPDX-License-Identifier: Apache-2.0 */
#include "trainer.h"

#define DROPOUT_SEED UINT64_C(0x64726f706f757421)

/* Items first .. first + n - 1 of the batch go through the network at once. */
typedef struct part {
    size_t first, n;
} part;

enum { MAX_RANGES = 2 }; /* this process's films, and its other items */

typedef struct pass {
    rz_trainer *t;
    rz_net net;
    const rz_batch *batch;
    part ranges[MAX_RANGES]; /* this process's items */
    size_t n_ranges, per_part;
    bool once; /* every range is one part: activations stay from the forward pass to the backward pass */
    rz_vectors v;
    float *global, *local; /* v's, to be written */
    rz_encoding *acts[MAX_RANGES];
} pass;

/* The items behind the films are split by the rows that go through the decoder. */
static part share_of_rest(const rz_trainer *t, const rz_batch *b)
{
    size_t n_rows = 0, n, first = rz_comm_share(&t->comm, 0, &n), done = 0, last = t->b;
    for (size_t i = t->b; i < b->n_items; i++) n_rows += b->items[i].prompt->n;
    size_t begin = rz_comm_share(&t->comm, n_rows, &n), end = begin + n;
    first = t->b;
    for (size_t i = t->b; i < b->n_items; done += b->items[i++].prompt->n) {
        if (done < begin) first = i + 1;
        if (done < end) last = i + 1;
    }
    return (part){first, last > first ? last - first : 0};
}

static void plan_pass(pass *p)
{
    size_t micro = (size_t)p->t->o.micro_batch;
    const rz_comm *c = &p->t->comm;
    part films, rest = share_of_rest(p->t, p->batch);
    films.first = rz_comm_share(c, p->t->b, &films.n);
    if (c->size == 1)
        p->ranges[p->n_ranges++] = (part){0, p->batch->n_items};
    else if (films.n)
        p->ranges[p->n_ranges++] = films;
    if (c->size > 1 && rest.n) p->ranges[p->n_ranges++] = rest;
    p->per_part = micro ? micro : SIZE_MAX;
    p->once = true;
    for (size_t r = 0; r < p->n_ranges; r++) p->once = p->once && p->ranges[r].n <= p->per_part;
}

/* The part of a range that begins `done` items after its start. */
static part part_at(const pass *p, size_t range, size_t done)
{
    size_t left = p->ranges[range].n - done;
    return (part){p->ranges[range].first + done, left < p->per_part ? left : p->per_part};
}

/* ---- Vectors ---------------------------------------------------------------------------------- */

/* Vectors of a part into their rows; with `acts` they can go back through the network. */
static void encode_part(pass *p, part x, rz_encoding **acts)
{
    rz_stream *s = p->t->s;
    size_t k = p->v.k;
    float *global, *local;
    p->net.keep = acts != NULL;
    rz_encode(&p->net, p->batch->items + x.first, x.n, &global, &local, acts);
    if (rz_stream_failed(s)) return;
    rz_copy(s, p->global + x.first * k, global, x.n * k * sizeof *global);
    rz_copy(s, p->local + x.first * k, local, x.n * k * sizeof *local);
}

static void back_part(pass *p, part x, rz_encoding *acts)
{
    if (rz_stream_failed(p->t->s)) return;
    rz_encode_backward(&p->net, acts, p->v.dglobal + x.first * p->v.k, p->v.dlocal + x.first * p->v.k);
}

/* Without `back` the vectors of all parts; with it their way back. */
static void run_parts(pass *p, bool back)
{
    rz_stream *s = p->t->s;
    for (size_t r = 0; r < p->n_ranges; r++)
        for (size_t done = 0; done < p->ranges[r].n && !rz_stream_failed(s); done += part_at(p, r, done).n) {
            part x = part_at(p, r, done);
            rz_mark mark = rz_arena_mark(s);
            rz_encoding *acts = NULL;
            encode_part(p, x, back ? &acts : NULL);
            if (back) back_part(p, x, acts); /* an item's vectors do not depend on its neighbours */
            rz_arena_release(s, mark);
        }
}

static void open_vectors(pass *p)
{
    rz_stream *s = p->t->s;
    size_t n = p->batch->n_items, k = p->t->model->cfg.radz.dim;
    p->global = rz_arena_zeros(s, n, k), p->local = rz_arena_zeros(s, n, k);
    p->v = (rz_vectors){.n = n, .k = k, .global = p->global, .local = p->local, .main = p->t->comm.rank == 0};
    p->v.dglobal = rz_arena_zeros(s, n, k), p->v.dlocal = rz_arena_zeros(s, n, k);
}

static radz_status vectors_there_and_back(pass *p, rz_loss_output *out, radz_error *err)
{
    rz_trainer *t = p->t;
    open_vectors(p);
    if (!p->once) run_parts(p, false);
    for (size_t r = 0; r < p->n_ranges && p->once && !rz_stream_failed(t->s); r++)
        encode_part(p, p->ranges[r], &p->acts[r]);
    RZ_TRY(rz_stream_sync(t->s, err));
    RZ_TRY(rz_comm_agree(&t->comm, err));
    RZ_TRY(rz_comm_sum(&t->comm, t->s, p->global, p->v.n * p->v.k, err)); /* zeros where another has the item */
    RZ_TRY(rz_comm_agree(&t->comm, err));
    RZ_TRY(rz_comm_sum(&t->comm, t->s, p->local, p->v.n * p->v.k, err));
    RZ_TRY(t->objective->loss(t, p->batch, &p->v, out, err));
    if (!isfinite(out->loss)) return RADZ_OK;
    if (!p->once) run_parts(p, true);
    for (size_t r = 0; r < p->n_ranges && p->once; r++) back_part(p, p->ranges[r], p->acts[r]);
    return rz_stream_sync(t->s, err);
}

/* ---- Losses that are sums over items ------------------------------------------------------------- */

static radz_status sum_parts(pass *p, rz_loss_output *out, radz_error *err)
{
    rz_trainer *t = p->t;
    radz_status st = RADZ_OK;
    p->net.keep = true;
    for (size_t r = 0; r < p->n_ranges; r++)
        for (size_t done = 0; done < p->ranges[r].n && !st; done += part_at(p, r, done).n) {
            part x = part_at(p, r, done);
            rz_mark mark = rz_arena_mark(t->s);
            st = t->objective->part(t, &p->net, p->batch, x.first, x.n, out, err);
            rz_arena_release(t->s, mark);
        }
    RZ_TRY(st);
    double sums[] = {out->loss, out->ca, out->cg};
    RZ_TRY(rz_comm_agree(&t->comm, err));
    RZ_TRY(rz_comm_sum_doubles(&t->comm, sums, RZ_COUNT(sums), err));
    *out = (rz_loss_output){sums[0], sums[1], sums[2]};
    return RADZ_OK;
}

/* ---- The step --------------------------------------------------------------------------------------- */

/* One number per batch; masks of another item, row or module are the network's business. */
static uint64_t dropout_seed(const rz_trainer *t)
{
    rz_rng r;
    rz_rng_seed(&r, t->o.seed ^ DROPOUT_SEED, (uint64_t)t->state.draw);
    return rz_rng_u64(&r) | 1;
}

/* Adds the gradients of the next batch. */
static radz_status add_batch(rz_trainer *t, bool more, rz_loss_output *sum, radz_error *err)
{
    RZ_TRY(rz_batch_next(t, more, err));
    pass p = {.t = t, .net = {.model = t->model, .s = t->s}, .batch = &t->batch};
    p.net.dropout_seed = dropout_seed(t), p.net.recompute = t->o.recompute != 0;
    p.net.drop_path = t->o.drop_path;
    plan_pass(&p);
    rz_loss_output out = {0};
    rz_mark mark = rz_arena_mark(t->s);
    radz_status st = t->objective->loss ? vectors_there_and_back(&p, &out, err) : sum_parts(&p, &out, err);
    radz_status left = rz_stream_sync(t->s, st ? NULL : err); /* the stream's error must not outlive the step */
    rz_arena_release(t->s, mark);
    RZ_TRY(st);
    RZ_TRY(left);
    if (!isfinite(out.loss))
        return rz_fail(err, RADZ_E_STATE, "step %lld: the loss is not finite: the training diverged",
                       (long long)t->state.step + 1);
    sum->loss += out.loss, sum->ca += out.ca, sum->cg += out.cg;
    return RADZ_OK;
}

static radz_status update(rz_trainer *t, radz_train_progress *progress, radz_error *err)
{
    progress->lr = rz_learning_rate(t->o.lr, t->o.warmup_fraction, t->state.step + 1, t->n_steps);
    rz_adamw adam = {.lr = (float)progress->lr,
                     .beta1 = (float)t->o.beta1,
                     .beta2 = (float)t->o.beta2,
                     .eps = (float)t->o.eps,
                     .weight_decay = (float)t->o.weight_decay,
                     .step = t->state.step + 1};
    radz_status st = rz_optimizer_step(&t->optimizer, t->s, adam, t->o.clip_norm, &progress->grad_norm, err);
    if (!st) rz_optimizer_average(&t->optimizer, t->s, t->o.ema, adam.step);
    radz_status left = rz_stream_sync(t->s, st ? NULL : err);
    return st ? st : left;
}

/* The mean of the gradients of the step's batches, over all processes; its losses. */
static radz_status gradients(rz_trainer *t, bool last, rz_loss_output *mean, radz_error *err)
{
    int k = t->o.accumulate;
    rz_loss_output sum = {0};
    rz_optimizer_zero(&t->optimizer, t->s);
    for (int i = 0; i < k; i++) RZ_TRY(add_batch(t, !last || i + 1 < k, &sum, err));
    RZ_TRY(rz_comm_agree(&t->comm, err));
    RZ_TRY(rz_comm_sum(&t->comm, t->s, t->optimizer.grad, t->optimizer.n_floats, err));
    if (k > 1) rz_scale(t->s, t->optimizer.grad, 1.0f / (float)k, t->optimizer.n_floats);
    *mean = (rz_loss_output){sum.loss / k, sum.ca / k, sum.cg / k};
    return RADZ_OK;
}

radz_status rz_train_gradients(rz_trainer *t, radz_error *err)
{
    rz_loss_output mean;
    return gradients(t, true, &mean, err);
}

radz_status rz_train_step(rz_trainer *t, radz_train_progress *progress, radz_error *err)
{
    double start = rz_seconds();
    rz_loss_output mean;
    RZ_TRY(gradients(t, t->state.step + 1 >= t->n_steps || t->state.step + 1 == t->o.stop_after_steps, &mean, err));
    progress->loss = mean.loss, progress->loss_ca = mean.ca, progress->loss_cg = mean.cg;
    RZ_TRY(update(t, progress, err));
    t->state.step++;
    double seconds = rz_seconds() - start;
    t->state.seconds += seconds;
    t->seconds_per_step = t->seconds_per_step > 0 ? 0.9 * t->seconds_per_step + 0.1 * seconds : seconds;
    return RADZ_OK;
}
