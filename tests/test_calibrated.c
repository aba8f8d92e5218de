/* test_calibrated.c - probabilities fitted by radz-eval, kept in a bank by radz-bank, printed by radz-classify.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "failing_host.h"
#include "fixture.h"
#include "formats.h"
#include "run_program.h"
#include "scorer.h"

enum { N_FILMS = 16, N_CLASSES = 4 }; /* the first half gives the calibration */

static radz_error err;
static char *dir, *model_dir, *data, *plain, *calibrated, *fitted, *eval, *bank, *classify;
static radz_model *model;
static radz_session *session;
static const char *const labels[N_CLASSES] = {"No Finding", "Edema", "Mass", "Hernia"};

static void ok(radz_status status)
{
    if (status != RADZ_OK) fail_msg("%s: %s", radz_status_name(status), err.message);
}

static void refused(radz_status status, radz_status want, const char *words)
{
    if (status != want) fail_msg("status %d, not %d: %s", (int)status, (int)want, status ? err.message : "");
    if (!strstr(err.message, words)) fail_msg("'%s' not in '%s'", words, err.message);
}

static const char *file(const char *name)
{
    return fixture_path(dir, name);
}

#define RUN(program, ...) run_program((const char *const[]){program, __VA_ARGS__, NULL}, NULL, TO_FILE)

static void run_good(run r, const char *words)
{
    run_expect(&r, 0, words, NULL);
    run_done(&r);
}

/* Hernia is on no validation film: it stays as it is. */
static void write_data(void)
{
    static const char *const findings[] = {"No Finding", "Edema", "Mass", "Edema|Mass",
                                           "Mass",       "Edema", "",     "No Finding"};
    FILE *f = fopen(data, "w");
    assert_non_null(f);
    fputs("path,patient,split,labels\n", f);
    for (int i = 0; i < N_FILMS; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.png", i);
        fixture_png(file(name), 40, 30, 1, (uint64_t)i);
        fprintf(f, "%s,p%d,%s,%s\n", name, i, i < N_FILMS / 2 ? "val" : "test", findings[i % 8]);
    }
    assert_int_equal(fclose(f), 0);
}

/* calibration-img_anchor.json of this kind, in static storage. */
static const char *fit(const char *kind, const char *with_bank, const char *more, const char *value)
{
    run r = RUN(eval, "--data", data, "--bank", with_bank, "--out", fitted, "--calibrate", kind, "--bootstrap", "0",
                "--scores", "--quiet", more, value);
    run_expect(&r, 0, "report.html", NULL);
    run_done(&r);
    return fixture_path(fitted, "calibration-img_anchor.json");
}

static int setup(void **state)
{
    (void)state;
    run_folder = dir = fixture_temp_dir();
    eval = strdup(fixture_program("radz-eval"));
    bank = strdup(fixture_program("radz-bank"));
    classify = strdup(fixture_program("radz-classify"));
    model_dir = strdup(file("model")), data = strdup(file("data.csv")), fitted = strdup(file("fitted"));
    plain = strdup(file("plain.safetensors")), calibrated = strdup(file("calibrated.safetensors"));
    assert_int_equal(mkdir(model_dir, 0700), 0);
    fixture_model(model_dir, 5);
    write_data();
    setenv("RADZ_MODEL", model_dir, 1);
    setenv("LC_ALL", "C", 1);
    run_good(RUN(bank, "build", "--out", plain, labels[0], labels[1], labels[2], labels[3]), "4 classes");
    ok(radz_model_open(NULL, model_dir, NULL, &model, &err));
    ok(radz_session_open(model, NULL, &session, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    radz_session_close(session);
    radz_model_close(model);
    fixture_remove(dir);
    char *const all[] = {dir, model_dir, data, plain, calibrated, fitted, eval, bank, classify};
    for (size_t i = 0; i < RZ_COUNT(all); i++) free(all[i]);
    return 0;
}

/* ---- The numbers ---- */

static const json_t *class_of(const json_t *calibration, const char *label)
{
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(calibration, "labels"), i, o)
    {
        if (strcmp(json_string_value(json_object_get(o, "label")), label) == 0) return o;
    }
    fail_msg("no class %s", label);
    return NULL;
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* By hand from the file: Platt's sigmoid or a line between points, of the log-odds. */
static double by_hand(const json_t *o, double margin)
{
    const char *kind = json_string_value(json_object_get(o, "kind"));
    if (!strcmp(kind, "none")) return 1 / (1 + exp(-margin));
    if (!strcmp(kind, "platt")) return 1 / (1 + exp(-(number(o, "a") * margin + number(o, "b"))));
    const json_t *x = json_object_get(o, "x"), *y = json_object_get(o, "y");
    const size_t n = json_array_size(x);
    size_t i = 0;
    while (i < n && json_number_value(json_array_get(x, i)) < margin) i++;
    if (i == 0) return json_number_value(json_array_get(y, 0));
    if (i == n) return json_number_value(json_array_get(y, n - 1));
    double x0 = json_number_value(json_array_get(x, i - 1)), x1 = json_number_value(json_array_get(x, i));
    double y0 = json_number_value(json_array_get(y, i - 1)), y1 = json_number_value(json_array_get(y, i));
    return y0 + (y1 - y0) * (margin - x0) / (x1 - x0);
}

static size_t place(const radz_result *r, const char *label)
{
    size_t i = 0;
    while (i < radz_result_count(r) && strcmp(radz_result_label(r, i), label) != 0) i++;
    assert_true(i < radz_result_count(r));
    return i;
}

/* Log-odds of a class from a film's similarities, as radz_classify has them before calibration. */
static double margin_of(const radz_result *r, const char *label, double tau)
{
    const double self = radz_result_similarity(r, place(r, label));
    double sum = 0;
    if (strcmp(label, labels[0]) != 0) return (self - radz_result_similarity(r, place(r, labels[0]))) / tau;
    for (int c = 1; c < N_CLASSES; c++) sum += exp(radz_result_similarity(r, place(r, labels[c])) / tau);
    return self / tau - log(sum);
}

static void check_film(const radz_bank *with, const char *name, const json_t *calibration, double tau)
{
    radz_result *r;
    ok(radz_classify_file(session, with, file(name), &r, &err));
    for (int c = 0; c < N_CLASSES; c++) {
        const json_t *o = class_of(calibration, labels[c]);
        const size_t i = place(r, labels[c]);
        double want = by_hand(o, margin_of(r, labels[c], tau)), got = radz_result_probability(r, i);
        if (!(fabs(got - want) < 1e-9)) fail_msg("%s: %s: %.12g, expected %.12g", name, labels[c], got, want);
        if (json_is_null(json_object_get(o, "threshold")))
            assert_true(isnan(radz_result_threshold(r, i)));
        else
            assert_true(radz_result_threshold(r, i) == number(o, "threshold"));
        assert_true(i == 0 || got <= radz_result_probability(r, i - 1));
    }
    radz_result_close(r);
}

static json_t *load(const char *path)
{
    json_t *o;
    ok(rz_json_load(NULL, path, 1 << 20, &o, &err));
    return o;
}

/* radz-eval --calibrate, radz-bank calibrate, radz_classify: Platt, isotonic, and another temperature. */
static void test_end_to_end(void **state)
{
    (void)state;
    const struct {
        const char *kind, *more, *value;
    } cases[] = {{"platt", "--tau", "0.2"}, {"isotonic", NULL, NULL}, {"platt", NULL, NULL}};
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        radz_bank *b;
        json_t *o = load(fit(cases[i].kind, plain, cases[i].more, cases[i].value));
        run_good(RUN(bank, "calibrate", "--bank", plain, "--out", calibrated, "--calibration",
                     fixture_path(fitted, "calibration-img_anchor.json")),
                 "4 classes");
        ok(radz_bank_open(model, calibrated, &b, &err));
        assert_true(isnan(radz_bank_threshold(b, 3)) && isnan(radz_bank_threshold(b, 4)));
        assert_non_null(strstr(radz_bank_calibration(b), "\"films\":\"8 films: val of data.csv\""));
        assert_non_null(strstr(radz_bank_calibration(b), "\"threshold_rule\":\"max-f1\""));
        for (int k = 0; k < N_FILMS; k++) {
            char name[32];
            snprintf(name, sizeof name, "%d.png", k);
            check_film(b, name, o, number(o, "tau"));
        }
        radz_bank_close(b);
        json_decref(o);
    }
}

/* radz-eval's own scores are what radz-classify prints; the table marks what lies above its threshold. */
static void test_printed(void **state)
{
    (void)state;
    radz_bank *b;
    rz_csv *printed, *scores;
    run_good(
        RUN(bank, "calibrate", "--bank", plain, "--out", calibrated, "--calibration", fit("platt", plain, NULL, NULL)),
        NULL);
    run r = RUN(classify, "--bank", calibrated, "--csv", "--quiet", file("9.png"));
    run_expect(&r, 0, ",threshold,error,message", NULL);
    ok(rz_csv_parse(NULL, r.out, r.n_out, "stdout", &printed, &err));
    size_t n;
    char *text = fixture_read(fixture_path(fitted, "scores.csv"), &n);
    ok(rz_csv_parse(NULL, text, n, "scores.csv", &scores, &err));
    size_t n_same = 0;
    for (size_t i = 0; i < rz_csv_rows(printed); i++)
        for (size_t k = 0; k < rz_csv_rows(scores); k++) {
            if (strcmp(rz_csv_get(scores, k, rz_csv_column(scores, "path")), "9.png") != 0) continue;
            if (strcmp(rz_csv_get(scores, k, rz_csv_column(scores, "class")),
                       rz_csv_get(printed, i, rz_csv_column(printed, "label"))) != 0)
                continue;
            double a, c = 0;
            const char *x = rz_csv_get(printed, i, rz_csv_column(printed, "probability"));
            const char *y = rz_csv_get(scores, k, rz_csv_column(scores, "probability"));
            assert_true(rz_parse_double(x, strlen(x), &a) && rz_parse_double(y, strlen(y), &c));
            assert_true(a == c);
            n_same++;
        }
    assert_int_equal(n_same, N_CLASSES);
    rz_csv_close(printed), rz_csv_close(scores);
    free(text);
    run_done(&r);

    r = RUN(classify, "--bank", calibrated, "--quiet", file("9.png"));
    run_expect(&r, 0, "Threshold", NULL);
    run_expect(&r, 0,
               "Note: probabilities are calibrated (platt) and hold for films like these: 8 films: val of data.csv.",
               NULL);
    run_expect(&r, 0, "Note: probabilities are not calibrated for Hernia.", NULL);
    const char *line = strchr(r.out, '\n') + 1;
    for (const char *end; (end = strchr(line, '\n')); line = end + 1)
        if (end - line > 80 && strncmp(line, "Note: ", 6) != 0) fail_msg("too wide: %.*s", (int)(end - line), line);
    run_done(&r);
    ok(radz_bank_open(model, calibrated, &b, &err));
    radz_result *result;
    ok(radz_classify_file(session, b, file("9.png"), &result, &err));
    char *json;
    ok(radz_result_json(result, NULL, &json, &err));
    assert_non_null(strstr(json, "\"calibration\":\"platt\""));
    assert_non_null(strstr(json, "\"threshold\":0."));
    radz_text_free(json);
    radz_result_close(result);
    radz_bank_close(b);
    r = RUN(bank, "list", "--bank", calibrated);
    run_expect(&r, 0, "Threshold", NULL);
    run_done(&r);
    r = RUN(bank, "list", "--bank", calibrated, "--json");
    run_expect(&r, 0, "\"calibration\":{\"schema\":\"radz.calibration/1\"", NULL);
    assert_ptr_equal(strchr(r.out, '\n'), r.out + r.n_out - 1);
    run_done(&r);
}

/* ---- The bank ---- */

static radz_bank *open_calibrated(const char *films)
{
    radz_bank *b, *c;
    ok(radz_bank_open(model, plain, &b, &err));
    ok(radz_bank_calibrate(b, fit("platt", plain, NULL, NULL), films, &c, &err));
    radz_bank_close(b);
    return c;
}

/* Saved and opened it is the same; what is made from it has no calibration. */
static void test_bank(void **state)
{
    (void)state;
    radz_bank *c = open_calibrated("films of \"two\" hospitals"), *again, *b, *derived;
    ok(radz_bank_open(model, plain, &b, &err));
    assert_null(radz_bank_calibration(b));
    assert_true(isnan(radz_bank_threshold(b, 0)));
    assert_string_not_equal(radz_bank_hash(b), radz_bank_hash(c));
    ok(radz_bank_save(c, calibrated, &err));
    ok(radz_bank_open(model, calibrated, &again, &err));
    assert_string_equal(radz_bank_hash(again), radz_bank_hash(c));
    assert_string_equal(radz_bank_calibration(again), radz_bank_calibration(c));
    assert_non_null(strstr(radz_bank_calibration(c), "films of \\\"two\\\" hospitals"));
    for (size_t i = 0; i < N_CLASSES; i++) {
        const double x = radz_bank_threshold(c, i), y = radz_bank_threshold(again, i);
        assert_true(x == y || (isnan(x) && isnan(y)));
        assert_memory_equal(radz_bank_anchor(again, i), radz_bank_anchor(b, i), radz_bank_dim(b) * sizeof(float));
    }
    const radz_bank_entry more = {"Nodule", NULL};
    ok(radz_bank_with(session, again, &more, 1, &derived, &err));
    assert_null(radz_bank_calibration(derived));
    radz_bank_close(derived);
    ok(radz_bank_edit(session, again, "Mass", "A dense spot.", &derived, &err));
    assert_null(radz_bank_calibration(derived));
    radz_bank_close(derived);
    ok(radz_bank_without(again, (const char *const[]){"Mass"}, 1, &derived, &err));
    assert_null(radz_bank_calibration(derived));
    radz_bank_close(derived);

    /* fitted for the calibrated bank is fitted for the plain one, and takes the other's place */
    ok(radz_bank_calibrate(again, fit("isotonic", calibrated, NULL, NULL), NULL, &derived, &err));
    assert_non_null(strstr(radz_bank_calibration(derived), "isotonic"));
    assert_null(strstr(radz_bank_calibration(derived), "platt"));
    radz_bank_close(derived);
    ok(radz_bank_calibrate(b, fixture_path(fitted, "calibration-img_anchor.json"), NULL, &derived, &err));
    radz_bank_close(derived);
    radz_bank_close(again), radz_bank_close(b), radz_bank_close(c);
}

/* A scorer with nothing said scores as radz_classify does; one with another temperature is not calibrated. */
static void test_scorer(void **state)
{
    (void)state;
    radz_bank *b = open_calibrated(NULL);
    radz_scorer *own, *other;
    radz_score_options o;
    radz_image *image;
    radz_result *r;
    float x[64];
    double p[N_CLASSES], q[N_CLASSES];
    radz_score_options_init(&o);
    ok(radz_scorer_open(session, b, &o, &own, &err));
    o.tau = 0.5;
    ok(radz_scorer_open(session, b, &o, &other, &err));
    ok(radz_image_open(NULL, file("3.png"), &image, &err));
    assert_true(radz_model_embedding_dim(model) <= RZ_COUNT(x));
    const radz_image *const images[] = {image};
    ok(radz_embed_images(session, images, 1, NULL, x, &err));
    ok(radz_classify(session, b, image, &r, &err));
    ok(radz_scorer_score(own, x, NULL, 1, NULL, p, &err));
    ok(radz_scorer_score(other, x, NULL, 1, NULL, q, &err));
    for (size_t c = 0; c < N_CLASSES; c++) {
        const size_t i = place(r, labels[c]);
        assert_true(radz_result_probability(r, i) == p[c]);
        assert_true(isnan(radz_bank_threshold(b, c)) || radz_scorer_threshold(own, c) == radz_bank_threshold(b, c));
        assert_true(isnan(radz_scorer_threshold(other, c)));
        double raw = 1 / (1 + exp(-margin_of(r, labels[c], 0.5)));
        assert_true(fabs(q[c] - raw) < 1e-9);
    }
    radz_result_close(r);
    radz_image_close(image);
    radz_scorer_close(own), radz_scorer_close(other);
    radz_bank_close(b);
}

/* ---- Refused ---- */

static void with_file(const char *text, radz_status want, const char *words)
{
    radz_bank *b, *c = (radz_bank *)&b;
    ok(radz_bank_open(model, plain, &b, &err));
    fixture_write_text(file("bad.json"), text);
    refused(radz_bank_calibrate(b, file("bad.json"), NULL, &c, &err), want, words);
    assert_null(c);
    radz_bank_close(b);
}

/* The good file with `from` in it become `to`. */
static char *changed(const char *good, const char *from, const char *to)
{
    const char *at = strstr(good, from);
    if (!at) fail_msg("no '%s'", from);
    rz_str s = {0};
    rz_str_put(&s, good, (size_t)(at - good));
    rz_str_puts(&s, to);
    rz_str_puts(&s, at + strlen(from));
    return s.data;
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *words;
        radz_status status;
    } cases[] = {
        {"radz.calibration/1", "radz.calibration/9", "expected schema", RADZ_E_FORMAT},
        {"\"model\":\"", "\"model\":\"0", "model: fitted for", RADZ_E_MISMATCH},
        {"\"bank\":\"", "\"bank\":\"0", "bank: fitted for", RADZ_E_MISMATCH},
        {"img_anchor", "img_text", "score: fitted for img_text", RADZ_E_MISMATCH},
        {"\"global\"", "\"local\"", "feature: fitted for local", RADZ_E_MISMATCH},
        {"\"reference\"", "\"auto\"", "classes: 'auto'", RADZ_E_FORMAT},
        {"\"tau\":", "\"tau\":-", "tau", RADZ_E_FORMAT},
        {"\"tau\":", "\"no\":", "tau: expected a positive", RADZ_E_FORMAT},
        {"\"Edema\"", "\"Oedema\"", "label: fitted for Oedema", RADZ_E_MISMATCH},
        {"\"kind\":\"platt\"", "\"kind\":\"beta\"", "none, platt or isotonic", RADZ_E_FORMAT},
        {"\"a\":", "\"A\":", "no a or b", RADZ_E_FORMAT},
        {"\"threshold\":0.", "\"threshold\":7.", "threshold", RADZ_E_FORMAT},
        {"\"films\":\"", "\"films\":7,\"x\":\"", "films", RADZ_E_FORMAT},
    };
    char *good = fixture_read(fit("platt", plain, NULL, NULL), NULL);
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        char *bad = changed(good, cases[i].from, cases[i].to);
        with_file(bad, cases[i].status, cases[i].words);
        free(bad);
    }
    for (size_t n = 0; n + 3 < strlen(good); n += 7) {
        char *cut = strndup(good, n);
        with_file(cut, RADZ_E_FORMAT, "bad.json");
        free(cut);
    }
    free(good);

    char words[1100];
    radz_bank *b, *c;
    memset(words, 'x', sizeof words - 1), words[sizeof words - 1] = 0;
    ok(radz_bank_open(model, plain, &b, &err));
    refused(radz_bank_calibrate(b, fixture_path(fitted, "calibration-img_anchor.json"), words, &c, &err), RADZ_E_LIMIT,
            "1000 bytes");
    refused(radz_bank_calibrate(b, file("none.json"), NULL, &c, &err), RADZ_E_IO, "none.json");
    refused(radz_bank_calibrate(NULL, file("none.json"), NULL, &c, &err), RADZ_E_ARGUMENT, "bank is NULL");
    assert_null(c);
    radz_bank_close(b);

    const struct {
        const char *args[8], *words;
        int status;
    } usages[] = {{{"calibrate", "--bank", plain}, "--calibration is missing", 2},
                  {{"calibrate", "--calibration", "x"}, "--out or --bank is missing", 2},
                  {{"list", "--films", "x"}, "go with calibrate", 2},
                  {{"calibrate", "--bank", plain, "--calibration", "/nowhere"}, "/nowhere", 2}};
    for (size_t i = 0; i < RZ_COUNT(usages); i++) {
        const char *argv[10] = {bank};
        for (size_t k = 0; k < 8 && usages[i].args[k]; k++) argv[k + 1] = usages[i].args[k];
        run r = run_program(argv, NULL, TO_FILE);
        run_expect(&r, usages[i].status, NULL, usages[i].words);
        run_done(&r);
    }
}

/* A slope that falls would call the films positive that look least like it. */
static void test_never_falls(void **state)
{
    (void)state;
    const double x[] = {0, 1, 2, 3, 4, 5};
    const signed char truth[] = {1, 1, 1, 0, 0, 0}, mixed[] = {1, 0, 1, 0, 1, 1};
    rz_calibrator c;
    ok(rz_calibrate(NULL, RZ_CALIBRATE_PLATT, x, truth, 6, &c, &err));
    assert_true(c.a == 0 && rz_calibrator_is_flat(&c));
    assert_true(fabs(rz_calibrated(&c, 1) - 0.5) < 1e-12 && rz_calibrated(&c, INFINITY) == rz_calibrated(&c, -3));
    rz_calibrator_free(NULL, &c);
    ok(rz_calibrate(NULL, RZ_CALIBRATE_ISOTONIC, x, truth, 6, &c, &err));
    assert_true(rz_calibrator_is_flat(&c) && rz_calibrated(&c, 9) == 0.5);
    rz_calibrator_free(NULL, &c);
    ok(rz_calibrate(NULL, RZ_CALIBRATE_PLATT, x, mixed, 6, &c, &err));
    assert_true(c.a > 0 && !rz_calibrator_is_flat(&c));
    rz_calibrator_free(NULL, &c);
}

/* ---- Memory ---- */

static radz_status calibrate_on(const rz_host *host, void *arg)
{
    radz_runtime_options o;
    radz_runtime *rt = NULL;
    radz_model *m = NULL;
    radz_bank *b = NULL, *c = NULL;
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = 1;
    o.malloc_fn = host->malloc_fn, o.realloc_fn = host->realloc_fn, o.free_fn = host->free_fn, o.user = host->user;
    radz_status status = radz_runtime_create(&o, &rt, &err);
    if (!status) status = radz_model_open(rt, model_dir, NULL, &m, &err);
    if (!status) status = radz_bank_open(m, calibrated, &b, &err);
    if (!status) status = radz_bank_calibrate(b, arg, NULL, &c, &err);
    radz_bank_close(c), radz_bank_close(b), radz_model_close(m), radz_runtime_close(rt);
    return status;
}

static void test_memory(void **state)
{
    (void)state;
    radz_bank *b = open_calibrated(NULL);
    ok(radz_bank_save(b, calibrated, &err));
    radz_bank_close(b);
    failing_host_try_all(calibrate_on, (void *)(uintptr_t)fit("isotonic", plain, NULL, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_to_end), cmocka_unit_test(test_printed), cmocka_unit_test(test_bank),
        cmocka_unit_test(test_scorer),     cmocka_unit_test(test_refused), cmocka_unit_test(test_never_falls),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
