/* test_answers.c - the next-token loss of answers and all its gradients against transformers
 * (tests/parity/make_answers.py), in one piece and in several. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "answers.h"
#include "failing_host.h"

#define TOLERANCE 1e-4 /* of the largest magnitude in the tensor */
#define N_ITEMS 3

typedef struct world {
    rz_device *dev;
    rz_stream *s;
    rz_model *m;
    rz_st *want;
    rz_net net;
    float *pixels;
    rz_prompt prompts[N_ITEMS];
    rz_answer answers[N_ITEMS];
    size_t n_tokens;
} world;

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

__attribute__((format(printf, 2, 3))) static const rz_st_tensor *tensor(const world *w, const char *fmt, ...)
{
    char name[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const rz_st_tensor *t = rz_st_find(w->want, name);
    if (!t) fail_msg("the fixture has no tensor '%s'", name);
    return t;
}

static float *floats(const rz_st_tensor *t)
{
    float *f = malloc(t->n_elements * sizeof *f);
    assert_non_null(f);
    ok(rz_st_to_f32(t, f, &err));
    return f;
}

static float number(const rz_st_tensor *t)
{
    float *f = floats(t), x = f[0];
    free(f);
    return x;
}

/* The fixture's prompts; the first two have a film each. */
static void read_answers(world *w)
{
    const rz_vision_config *v = &w->m->cfg.vision;
    w->pixels = floats(tensor(w, "pixels"));
    for (size_t i = 0; i < N_ITEMS; i++) {
        const rz_st_tensor *ids = tensor(w, "%zu.ids", i);
        int32_t n, *copy = malloc(ids->n_bytes);
        assert_non_null(copy);
        memcpy(copy, ids->data, ids->n_bytes);
        memcpy(&n, tensor(w, "%zu.answer", i)->data, sizeof n);
        w->prompts[i] = (rz_prompt){copy, ids->n_elements};
        const float *film = i < 2 ? w->pixels + i * 3 * v->image_size * v->image_size : NULL;
        w->answers[i] = (rz_answer){.item = {.kind = RZ_ITEM_IMAGE, .pixels = film, .prompt = &w->prompts[i]},
                                    .n_tokens = (size_t)n};
        w->n_tokens += (size_t)n;
    }
}

static void open_world(world *w, const char *variant)
{
    char dir[200], want[200];
    rz_device_options o = {"cpu", "auto", "own", 2};
    *w = (world){0};
    snprintf(dir, sizeof dir, "tests/parity/variants/%s", variant);
    snprintf(want, sizeof want, "tests/parity/answers/%s.safetensors", variant);
    ok(rz_device_open(NULL, &o, &w->dev, &err));
    ok(rz_stream_open(w->dev, &w->s, &err));
    ok(rz_model_load(NULL, w->dev, dir, RZ_MODEL_TRAIN, 1, &w->m, &err));
    ok(rz_st_open(NULL, want, RZ_FILE_READ, &w->want, &err));
    w->net = (rz_net){.model = w->m, .s = w->s, .keep = true};
    for (size_t i = 0; i < w->m->n_params; i++) {
        rz_param *p = &w->m->params[i];
        void *grad;
        ok(rz_device_alloc(w->dev, p->n * sizeof *p->grad, &grad, &err));
        p->grad = grad; /* freed with the model */
        rz_fill(w->s, p->grad, 0.0f, p->n);
    }
    read_answers(w);
}

static void close_world(world *w)
{
    for (size_t i = 0; i < N_ITEMS; i++) free(w->prompts[i].ids);
    free(w->pixels);
    rz_model_unload(w->m);
    rz_st_close(w->want);
    rz_stream_close(w->s);
    rz_device_close(w->dev);
}

static void near_number(double got, double want)
{
    if (!(fabs(got - want) <= 1e-5 * fabs(want))) fail_msg("loss %.9g, expected %.9g", got, want);
}

/* A parameter that PyTorch has no gradient for must have none here; a key bias has one that is rounding only. */
static void near_gradient(const world *w, const rz_param *p)
{
    char name[200];
    snprintf(name, sizeof name, "grad.%s", p->name);
    const rz_st_tensor *t = rz_st_find(w->want, name);
    float *want = t ? floats(t) : calloc(p->n, sizeof *want), *got = malloc(p->n * sizeof *got);
    double scale = 0;
    assert_true(want && got && (!t || t->n_elements == p->n));
    rz_download(w->s, got, p->grad, p->n * sizeof *got);
    for (size_t i = 0; i < p->n; i++) scale = fmax(scale, fabs((double)want[i]));
    bool rounding = strstr(p->name, "k_proj.bias") != NULL;
    for (size_t i = 0; i < p->n; i++) {
        double off = fabs((double)got[i] - (double)want[i]);
        if (!(off <= (rounding ? 1e-6 : TOLERANCE * scale)))
            fail_msg("%s[%zu]: %.9g, expected %.9g", name, i, (double)got[i], (double)want[i]);
    }
    free(want);
    free(got);
}

static void near_all_gradients(const world *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->m->n_params; i++) near_gradient(w, &w->m->params[i]);
    for (size_t i = 0; i < rz_st_count(w->want); i++) n += !strncmp(rz_st_at(w->want, i)->name, "grad.", 5);
    assert_true(n > 50); /* the fixture has them all: names that differ would be zeros, and fail above */
}

static void near_losses(const world *w, const double *loss)
{
    double sum = 0;
    for (size_t i = 0; i < N_ITEMS; i++) {
        near_number(loss[i], (double)number(tensor(w, "%zu.loss", i)));
        sum += loss[i];
    }
    near_number(sum / (double)w->n_tokens, (double)number(tensor(w, "loss")));
}

/* ---- Tests --------------------------------------------------------------------------------- */

static void equals_transformers(void **state)
{
    world w;
    double loss[N_ITEMS];
    open_world(&w, *state);
    rz_answers_loss(&w.net, w.answers, N_ITEMS, 1.0 / (double)w.n_tokens, RZ_MAX_LOGITS, loss);
    ok(rz_stream_sync(w.s, &err));
    near_losses(&w, loss);
    near_all_gradients(&w);
    close_world(&w);
}

/* One item at a time, and three rows of logits at a time. */
static void comes_in_pieces(void **state)
{
    world w;
    double loss[N_ITEMS];
    open_world(&w, *state);
    for (size_t i = 0; i < N_ITEMS; i++)
        rz_answers_loss(&w.net, &w.answers[i], 1, 1.0 / (double)w.n_tokens, 3 * w.m->cfg.text.vocab, &loss[i]);
    ok(rz_stream_sync(w.s, &err));
    near_losses(&w, loss);
    near_all_gradients(&w);
    close_world(&w);
}

static void forward_alone_leaves_no_gradient(void **state)
{
    world w;
    double loss[N_ITEMS], alone;
    open_world(&w, *state);
    w.net.keep = false;
    rz_answers_loss(&w.net, w.answers, N_ITEMS, 1, 1, loss); /* one row at a time */
    ok(rz_stream_sync(w.s, &err));
    near_losses(&w, loss);
    rz_answers_loss(&w.net, &w.answers[1], 1, 1, RZ_MAX_LOGITS, &alone);
    ok(rz_stream_sync(w.s, &err));
    assert_true(alone == loss[1]); /* bits */
    for (size_t i = 0; i < w.m->n_params; i++) assert_true(rz_sumsq(w.s, w.m->params[i].grad, w.m->params[i].n) == 0);
    close_world(&w);
}

static void refuses_what_is_no_answer(void **state)
{
    world w;
    double loss;
    open_world(&w, *state);
    rz_answer a = w.answers[2];
    const size_t bad[] = {0, a.item.prompt->n};
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        a.n_tokens = bad[i];
        rz_answers_loss(&w.net, &a, 1, 1, RZ_MAX_LOGITS, &loss);
        assert_int_equal(rz_stream_sync(w.s, &err), RADZ_E_INTERNAL);
    }
    a = w.answers[0], a.n_tokens = a.item.prompt->n - 1; /* image rows in it */
    rz_answers_loss(&w.net, &a, 1, 1, RZ_MAX_LOGITS, &loss);
    assert_int_equal(rz_stream_sync(w.s, &err), RADZ_E_INTERNAL);
    close_world(&w);
}

static radz_status loss_once(const rz_host *host, void *arg)
{
    world *w = arg;
    double loss[N_ITEMS];
    rz_device_options o = {"cpu", "auto", "own", 1};
    rz_device *dev = NULL;
    rz_stream *s = NULL;
    radz_status status = rz_device_open(host, &o, &dev, &err);
    if (!status) status = rz_stream_open(dev, &s, &err);
    rz_net net = {.model = w->m, .s = s, .keep = true};
    if (!status) {
        rz_answers_loss(&net, w->answers, N_ITEMS, 1, 128, loss);
        status = rz_stream_sync(s, &err);
    }
    if (s) rz_stream_close(s);
    rz_device_close(dev);
    return status;
}

static void memory_may_run_out(void **state)
{
    world w;
    open_world(&w, *state);
    failing_host_try_all(loss_once, &w);
    close_world(&w);
}

#define TEST(function, variant)                                                                                        \
    {                                                                                                                  \
#function ", " variant, function, NULL, NULL, (void *)(uintptr_t)variant                                       \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(equals_transformers, "window"),
        TEST(equals_transformers, "defaults_mistral"),
        TEST(comes_in_pieces, "window"),
        TEST(comes_in_pieces, "defaults_mistral"),
        TEST(forward_alone_leaves_no_gradient, "window"),
        TEST(refuses_what_is_no_answer, "window"),
        TEST(memory_may_run_out, "defaults_mistral"),
    };
    return cmocka_run_group_tests_name("answers", tests, NULL, NULL);
}
