/* test_classes.c - the linear head: its loss, gradients and ten steps of AdamW against PyTorch
 * (tests/parity/make_head.py), its names in radz.json, and results that it scores. SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "classes.h"
#include "fixture.h"
#include "run_program.h"

#define DIR_TINY "tests/parity/llava_tiny"
#define FIXTURE "tests/parity/answers/head.safetensors"
#define TOLERANCE 1e-5

enum { FILMS = 7, CLASSES = 3, DIM = 16 };

typedef struct world {
    rz_device *dev;
    rz_stream *s;
    rz_model *m;
    rz_st *want;
    rz_net net;
    float *grads; /* of the head: weight, bias */
} world;

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

static float *floats(const world *w, const char *name, size_t n)
{
    const rz_st_tensor *t = rz_st_find(w->want, name);
    float *f = malloc(n * sizeof *f);
    assert_true(t && f && t->n_elements == n);
    ok(rz_st_to_f32(t, f, &err));
    return f;
}

static float *upload(const world *w, const char *name, size_t n)
{
    float *host = floats(w, name, n), *p = rz_arena_f32(w->s, 1, n);
    rz_upload(w->s, p, host, n * sizeof *p);
    free(host);
    return p;
}

static void near_values(const char *name, const float *got, const float *want, size_t n)
{
    double scale = 0;
    for (size_t i = 0; i < n; i++) scale = fmax(scale, fabs((double)want[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= TOLERANCE * scale))
            fail_msg("%s[%zu]: %.9g, expected %.9g", name, i, (double)got[i], (double)want[i]);
}

static void near(const world *w, const char *name, const float *got, size_t n)
{
    float *want = floats(w, name, n), *host = malloc(n * sizeof *host);
    assert_non_null(host);
    rz_download(w->s, host, got, n * sizeof *host);
    ok(rz_stream_sync(w->s, &err));
    near_values(name, host, want, n);
    free(want);
    free(host);
}

static void set_param(const world *w, rz_param *p, const char *name, float *grad)
{
    float *values = floats(w, name, p->n);
    rz_upload(w->s, (void *)(uintptr_t)p->w.data, values, p->n * sizeof *values);
    free(values);
    p->grad = grad;
}

static void open_world(world *w)
{
    static const char *const names[CLASSES] = {"Ill", "Well", "Odd"};
    const rz_name_list classes = {names, CLASSES};
    const rz_source source = {.dir = DIR_TINY, .classes = &classes};
    const rz_device_options o = {.device = fixture_device(), .n_threads = 2};
    void *grads;
    *w = (world){0};
    ok(rz_device_open(NULL, &o, &w->dev, &err));
    ok(rz_stream_open(w->dev, &w->s, &err));
    ok(rz_model_load_from(NULL, w->dev, &source, RZ_MODEL_TRAIN, 1, &w->m, &err));
    ok(rz_st_open(NULL, FIXTURE, RZ_FILE_READ, &w->want, &err));
    w->net = (rz_net){.model = w->m, .s = w->s, .keep = true};
    ok(rz_device_alloc(w->dev, CLASSES * (DIM + 1) * sizeof(float), &grads, &err));
    w->grads = grads;
    set_param(w, w->m->classifier.w, "weight", w->grads);
    set_param(w, w->m->classifier.b, "bias", w->grads + CLASSES * DIM);
}

static void close_world(world *w)
{
    w->m->classifier.w->grad = w->m->classifier.b->grad = NULL;
    rz_device_free(w->dev, w->grads);
    rz_st_close(w->want);
    rz_model_unload(w->m);
    rz_stream_close(w->s);
    rz_device_close(w->dev);
}

/* ---- The oracle's numbers ------------------------------------------------------------------------- */

static void adamw(const world *w, float *moments, int64_t step)
{
    const rz_adamw o = {.lr = 0.05f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .grad_scale = 1, .step = step};
    const rz_linear *l = &w->m->classifier;
    size_t n = l->w->n, m = l->b->n;
    const rz_adamw_slot slots[] = {
        {(float *)(uintptr_t)l->w->w.data, moments, moments + n, l->w->grad, NULL, n, true},
        {(float *)(uintptr_t)l->b->w.data, moments + 2 * n, moments + 2 * n + m, l->b->grad, NULL, m, true},
    };
    rz_adamw_step(w->s, &o, slots, RZ_COUNT(slots));
}

static void equals_pytorch(void **state)
{
    (void)state;
    world w;
    open_world(&w);
    float *truth = floats(&w, "truth", FILMS * CLASSES), *keep = floats(&w, "keep", FILMS * CLASSES);
    float *want = floats(&w, "losses", 10), *dx = rz_arena_zeros(w.s, FILMS, DIM);
    float *moments = rz_arena_zeros(w.s, 2, CLASSES * (DIM + 1));
    const rz_classes_input in = {upload(&w, "x", FILMS * DIM), FILMS, truth, keep, true};
    near(&w, "logits", rz_classes_forward(&w.net, in.x, FILMS), FILMS * CLASSES);
    for (int64_t step = 0; step < 10; step++) {
        double loss;
        rz_fill(w.s, w.grads, 0, CLASSES * (DIM + 1));
        ok(rz_classes_loss(&w.net, &in, dx, &loss, &err));
        near_values("loss", &(float){(float)loss}, &want[step], 1);
        if (!step) {
            near(&w, "dx", dx, FILMS * DIM);
            near(&w, "dweight", w.m->classifier.w->grad, CLASSES * DIM);
            near(&w, "dbias", w.m->classifier.b->grad, CLASSES);
        }
        adamw(&w, moments, step + 1);
    }
    near(&w, "after.weight", w.m->classifier.w->w.data, CLASSES * DIM);
    near(&w, "after.bias", w.m->classifier.b->w.data, CLASSES);
    free(truth);
    free(keep);
    free(want);
    close_world(&w);
}

static void other_processes_leave_the_head_alone(void **state)
{
    (void)state;
    world w;
    double loss;
    open_world(&w);
    float *truth = floats(&w, "truth", FILMS * CLASSES), *keep = floats(&w, "keep", FILMS * CLASSES);
    float *dx = rz_arena_zeros(w.s, FILMS, DIM);
    const rz_classes_input in = {upload(&w, "x", FILMS * DIM), FILMS, truth, keep, false};
    rz_fill(w.s, w.grads, 0, CLASSES * (DIM + 1));
    ok(rz_classes_loss(&w.net, &in, dx, &loss, &err));
    near(&w, "dx", dx, FILMS * DIM);
    assert_true(rz_sumsq(w.s, w.grads, CLASSES * (DIM + 1)) == 0);
    memset(keep, 0, FILMS * CLASSES * sizeof *keep); /* nothing known: no loss, no gradient, no division by zero */
    rz_fill(w.s, dx, 0, FILMS * DIM);
    ok(rz_classes_loss(&w.net, &in, dx, &loss, &err));
    assert_true(loss == 0 && rz_sumsq(w.s, dx, FILMS * DIM) == 0);
    free(truth);
    free(keep);
    close_world(&w);
}

/* ---- In a directory ------------------------------------------------------------------------------------ */

/* radz.json with a list of classes, and the head's weights: class k of 3 has logit k - 1 on any film. */
static void write_head(const char *dir, const char *classes)
{
    size_t n;
    char *text = fixture_read(fixture_path(dir, "radz.json"), &n), *open = strchr(text, '{');
    rz_str s = {0};
    rz_str_puts(&s, "{\"classes\": ");
    rz_str_puts(&s, classes);
    rz_str_puts(&s, ",");
    rz_str_puts(&s, open + 1);
    fixture_write_text(fixture_path(dir, "radz.json"), s.data);
    rz_str_free(&s);
    free(text);
}

static char *made_dir(const char *classes)
{
    static const char *const names[CLASSES] = {"Ill", "Well", "Odd"};
    const rz_name_list list = {names, CLASSES};
    char *dir = fixture_temp_dir();
    const rz_source source = {.dir = dir, .classes = &list};
    const float bias[CLASSES] = {-1, 0, 1};
    const rz_device_options cpu = {.device = "cpu"};
    rz_device *dev;
    rz_model *m;
    fixture_model(dir, 4);
    ok(rz_device_open(NULL, &cpu, &dev, &err));
    ok(rz_model_load_from(NULL, dev, &source, RZ_MODEL_TRAIN, 1, &m, &err));
    memcpy((void *)(uintptr_t)m->classifier.b->w.data, bias, sizeof bias);
    ok(rz_model_save(m, dir, "F32", NULL, &err));
    rz_model_unload(m);
    rz_device_close(dev);
    write_head(dir, classes);
    return dir;
}

static void done_dir(char *dir)
{
    fixture_remove(dir);
    free(dir);
}

static void a_head_scores_where_no_bank_is_named(void **state)
{
    (void)state;
    char *dir = made_dir("[\"Ill\", \"Well\", \"Odd\"]"), *json;
    radz_model *model;
    radz_session *session;
    radz_result *result;
    radz_model_info info;
    fixture_png(fixture_path(dir, "film.png"), 70, 80, 1, 3);
    ok(radz_model_open(NULL, dir, NULL, &model, &err));
    ok(radz_session_open(model, NULL, &session, &err));
    radz_model_info_init(&info);
    ok(radz_model_get_info(model, &info, &err));
    assert_int_equal(info.n_head_classes, CLASSES);
    ok(radz_classify_file(session, NULL, fixture_path(dir, "film.png"), &result, &err));
    assert_int_equal(radz_result_count(result), CLASSES);
    assert_string_equal(radz_result_label(result, 0), "Odd");
    assert_string_equal(radz_result_label(result, 2), "Ill");
    assert_true(fabs(radz_result_probability(result, 0) - 1 / (1 + exp(-1))) < 1e-9);
    assert_true(radz_result_probability(result, 1) == 0.5 && isnan(radz_result_similarity(result, 1)));
    ok(radz_result_json(result, NULL, &json, &err));
    assert_non_null(strstr(json, "\"score\":\"linear-head\",\"tau\":null,\"calibration\":null,\"reference\":null"));
    assert_non_null(strstr(json, "\"similarity\":null"));
    radz_text_free(json);
    radz_result_close(result);
    radz_session_close(session);
    radz_model_close(model);
    done_dir(dir);
}

/* A linear head has no similarities: null in JSON, nothing in CSV. */
static void a_head_in_csv(void **state)
{
    (void)state;
    char *dir = made_dir("[\"Ill\", \"Well\", \"Odd\"]");
    char film[512];
    snprintf(film, sizeof film, "%s", fixture_path(dir, "film.png"));
    fixture_png(film, 70, 80, 1, 3);
    run_folder = dir;
    const char *const argv[] = {fixture_program("radz-classify"), "--csv", "--quiet", "--model", dir, film, NULL};
    run r = run_program(argv, NULL, TO_FILE);
    run_expect(&r, 0, ",Well,0.5,,,,", NULL);
    run_done(&r);
    done_dir(dir);
}

static void a_bank_that_is_named_is_used(void **state)
{
    (void)state;
    char *dir = made_dir("[\"Ill\", \"Well\", \"Odd\"]");
    radz_model *model;
    radz_session *session;
    radz_result *result;
    radz_bank *bank;
    const radz_bank_entry entry = {"Mass", NULL};
    fixture_png(fixture_path(dir, "film.png"), 70, 80, 1, 3);
    ok(radz_model_open(NULL, dir, NULL, &model, &err));
    ok(radz_session_open(model, NULL, &session, &err));
    ok(radz_bank_build(session, &entry, 1, &bank, &err));
    ok(radz_classify_file(session, bank, fixture_path(dir, "film.png"), &result, &err));
    assert_int_equal(radz_result_count(result), 1);
    assert_string_equal(radz_result_label(result, 0), "Mass");
    radz_result_close(result);
    radz_bank_close(bank);
    radz_session_close(session);
    radz_model_close(model);
    done_dir(dir);
}

static void bad_lists_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {{"[\"a\", \"b\"]", "3x"},   {"[]", "1 to 65536"},
                                         {"7", "1 to 65536"},        {"[\"a\", \"a\", \"b\"]", "'a'"},
                                         {"[\"a\", 1, 2]", "names"}, {"[\"a\", \"\", \"b\"]", "names"}};
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        char *dir = made_dir(bad[i][0]);
        radz_model *model;
        assert_true(radz_model_open(NULL, dir, NULL, &model, &err) != RADZ_OK);
        if (!strstr(err.message, bad[i][1])) fail_msg("%s: %s", bad[i][0], err.message);
        done_dir(dir);
    }
}

/* Training other classes starts at zero; the same ones go on; none drops the head. */
static void training_chooses_its_classes(void **state)
{
    (void)state;
    static const char *const same[] = {"Ill", "Well", "Odd"}, *const other[] = {"Ill", "Odd", "Well"};
    char *dir = made_dir("[\"Ill\", \"Well\", \"Odd\"]");
    const rz_name_list lists[] = {{same, 3}, {other, 3}, {other, 1}, {NULL, 0}};
    const rz_device_options cpu = {.device = "cpu"};
    rz_device *dev;
    ok(rz_device_open(NULL, &cpu, &dev, &err));
    for (size_t i = 0; i < RZ_COUNT(lists); i++) {
        rz_model *m;
        const rz_source source = {.dir = dir, .classes = &lists[i]};
        ok(rz_model_load_from(NULL, dev, &source, RZ_MODEL_TRAIN, 1, &m, &err));
        assert_int_equal(m->cfg.radz.n_classes, lists[i].n);
        assert_true((m->classifier.w != NULL) == (lists[i].n > 0));
        const float *bias = m->classifier.b ? m->classifier.b->w.data : NULL;
        if (bias) assert_true(bias[0] == (i ? 0.0f : -1.0f));
        rz_model_unload(m);
    }
    rz_device_close(dev);
    done_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_pytorch),
        cmocka_unit_test(other_processes_leave_the_head_alone),
        cmocka_unit_test(a_head_scores_where_no_bank_is_named),
        cmocka_unit_test(a_head_in_csv),
        cmocka_unit_test(a_bank_that_is_named_is_used),
        cmocka_unit_test(bad_lists_are_refused),
        cmocka_unit_test(training_chooses_its_classes),
    };
    return cmocka_run_group_tests_name("classes", tests, NULL, NULL);
}
