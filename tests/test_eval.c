/* test_eval.c - scores, calibration against scikit-learn, and radz-eval as its users meet it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "calibrate.h"
#include "calibration_golden.h"
#include "eval.h"
#include "failing_host.h"
#include "fixture.h"
#include "formats.h"
#include "metrics.h"
#include "run_program.h"

enum { N_FILMS = 12, N_CLASSES = 3, K = 8 };

static radz_error err;
static char *dir, *model_dir, *data, *eval;
static radz_model *model;
static radz_session *session;
static radz_bank *bank;
static radz_image *films[N_FILMS];

static void ok(radz_status status)
{
    if (status != RADZ_OK) fail_msg("%s: %s", radz_status_name(status), err.message);
}

static const char *file(const char *name)
{
    return fixture_path(dir, name);
}

#define CLASSES "--classes", "No Finding,Edema,Mass"
#define RUN(...) run_program((const char *const[]){eval, "--data", data, CLASSES, __VA_ARGS__, NULL}, NULL, TO_FILE)

/* Films 0..5 are tested, 6..11 give thresholds; the last row names a film that is not there. */
static void write_data(void)
{
    static const char *const labels[] = {"No Finding", "Edema", "Mass", "Edema|Mass", "No Finding", "Swelling|Device"};
    FILE *f = fopen(data, "w");
    assert_non_null(f);
    fputs("path,patient,set,split,labels\n", f);
    for (int i = 0; i < N_FILMS; i++)
        fprintf(f, "%d.png,p%d,%s,%s,%s\n", i, i / 2, i % 2 ? "nih64" : "other", i < 6 ? "test" : "val", labels[i % 6]);
    fputs("gone.png,p0,other,test,Edema\n", f);
    assert_int_equal(fclose(f), 0);
    fixture_write_text(file("map.csv"), "from,to\nSwelling,Edema\n");
}

static int setup(void **state)
{
    (void)state;
    const radz_bank_entry classes[] = {{"No Finding", NULL}, {"Edema", NULL}, {"Mass", NULL}};
    run_folder = dir = fixture_temp_dir();
    eval = strdup(fixture_program("radz-eval"));
    model_dir = strdup(file("model")), data = strdup(file("data.csv"));
    assert_int_equal(mkdir(model_dir, 0700), 0);
    fixture_model(model_dir, 3);
    for (int i = 0; i < N_FILMS; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.png", i);
        fixture_png(file(name), 40, 30, 1, (uint64_t)i);
    }
    write_data();
    setenv("RADZ_MODEL", model_dir, 1);
    setenv("LC_ALL", "C", 1);
    ok(radz_model_open(NULL, model_dir, NULL, &model, &err));
    ok(radz_session_open(model, NULL, &session, &err));
    ok(radz_bank_build(session, classes, N_CLASSES, &bank, &err));
    for (int i = 0; i < N_FILMS; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.png", i);
        ok(radz_image_open(NULL, file(name), &films[i], &err));
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < N_FILMS; i++) radz_image_close(films[i]);
    radz_bank_close(bank);
    radz_session_close(session);
    radz_model_close(model);
    fixture_remove(dir);
    free(dir), free(model_dir), free(data), free(eval);
    return 0;
}

/* ---- Calibration ---- */

/* What stands for a slope that falls: Platt's mean target. */
static double share_of_positives(const rz_calibrator *c)
{
    const double p = (double)c->n_positive, n = (double)c->n_negative;
    return (p * (p + 1) / (p + 2) + n / (n + 2)) / (p + n);
}

static void calibration_equals_scikit_learn(void **state)
{
    (void)state;
    size_t n_falling = 0;
    for (size_t i = 0; i < RZ_COUNT(calibration_cases); i++) {
        const struct calibration_case *c = &calibration_cases[i];
        rz_calibrator platt, isotonic;
        ok(rz_calibrate(NULL, RZ_CALIBRATE_PLATT, c->x, c->truth, c->n, &platt, &err));
        ok(rz_calibrate(NULL, RZ_CALIBRATE_ISOTONIC, c->x, c->truth, c->n, &isotonic, &err));
        const bool falls = c->platt[RZ_COUNT(c->at) - 1] < c->platt[0];
        n_falling += falls;
        for (size_t k = 0; k < RZ_COUNT(c->at); k++) {
            double p = rz_calibrated(&platt, c->at[k]), q = rz_calibrated(&isotonic, c->at[k]);
            double want = falls ? share_of_positives(&platt) : c->platt[k];
            if (fabs(p - want) > 1e-6) fail_msg("case %zu: Platt %.9g, expected %.9g", i, p, want);
            if (fabs(q - c->isotonic[k]) > 1e-9) fail_msg("case %zu: isotonic %.9g, not %.9g", i, q, c->isotonic[k]);
        }
        rz_calibrator_free(NULL, &platt);
        rz_calibrator_free(NULL, &isotonic);
    }
    assert_true(n_falling > 0 && n_falling < RZ_COUNT(calibration_cases));
}

static void one_outcome_is_not_calibrated(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3};
    const signed char truth[] = {1, -1, 1};
    rz_calibrator c;
    ok(rz_calibrate(NULL, RZ_CALIBRATE_PLATT, x, truth, 3, &c, &err));
    assert_int_equal(c.kind, RZ_CALIBRATE_NONE);
    assert_int_equal(c.n_positive, 2);
    assert_true(rz_calibrated(&c, 0) == 0.5);
}

/* ---- Scores ---- */

static double dot(const float *a, const float *b)
{
    double sum = 0;
    for (int i = 0; i < K; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static void film_vectors(radz_feature feature, float *out)
{
    radz_embed_options o;
    radz_embed_options_init(&o);
    o.feature = feature;
    ok(radz_embed_images(session, (const radz_image *const *)films, N_FILMS, &o, out, &err));
}

static void texts(const char *a, const char *b, const char *c, float *out)
{
    ok(radz_embed_texts(session, (const char *const[]){a, b, c}, 3, NULL, out, &err));
}

static void score(const radz_score_options *o, const float *global, const float *local, double *similarity,
                  double *probability)
{
    radz_scorer *s;
    ok(radz_scorer_open(session, bank, o, &s, &err));
    assert_int_equal(radz_scorer_count(s), N_CLASSES);
    assert_string_equal(radz_scorer_label(s, 1), "Edema");
    ok(radz_scorer_score(s, global, local, N_FILMS, similarity, probability, &err));
    radz_scorer_close(s);
}

static void near(double a, double b)
{
    if (!(fabs(a - b) < 2e-6)) fail_msg("%.12g, expected %.12g", a, b);
}

static void img_anchor_is_what_classify_says(void **state)
{
    (void)state;
    float x[N_FILMS * K];
    double sim[N_FILMS * N_CLASSES], p[N_FILMS * N_CLASSES];
    radz_score_options o;
    radz_score_options_init(&o);
    film_vectors(RADZ_FEATURE_GLOBAL, x);
    score(&o, x, NULL, sim, p);
    for (size_t i = 0; i < N_FILMS; i++) {
        radz_result *r;
        ok(radz_classify(session, bank, films[i], &r, &err));
        for (size_t k = 0; k < N_CLASSES; k++)
            for (size_t c = 0; c < N_CLASSES; c++) {
                if (strcmp(radz_result_label(r, k), radz_bank_label(bank, c)) != 0) continue;
                assert_true(fabs(radz_result_similarity(r, k) - sim[i * N_CLASSES + c]) == 0);
                assert_true(fabs(radz_result_probability(r, k) - p[i * N_CLASSES + c]) < 1e-14);
            }
        radz_result_close(r);
    }
}

static void scores_by_hand(void **state)
{
    (void)state;
    static const char *const templates[] = {"{c}", "a film of {c}."}, *const one[] = {"{c}"};
    float x[N_FILMS * K], l[N_FILMS * K], a[3 * K], b[3 * K], yes[3 * K], no[3 * K];
    double sim[N_FILMS * N_CLASSES], p[N_FILMS * N_CLASSES];
    radz_score_options o;
    radz_score_options_init(&o);
    film_vectors(RADZ_FEATURE_GLOBAL, x);
    film_vectors(RADZ_FEATURE_LOCAL, l);

    texts("No Finding", "Edema", "Mass", a), texts("a film of No Finding.", "a film of Edema.", "a film of Mass.", b);
    o.score = RADZ_SCORE_IMG_TEXT, o.templates = templates, o.n_templates = 2, o.tau = 0.1;
    o.feature = RADZ_SCORE_BOTH, o.classes = RADZ_CLASSES_EXCLUSIVE;
    score(&o, x, l, sim, p);
    for (int i = 0; i < N_FILMS; i++) {
        double e[3], sum = 0;
        for (int c = 0; c < 3; c++) {
            float m[K];
            for (int k = 0; k < K; k++) m[k] = a[c * K + k] + b[c * K + k];
            e[c] = (dot(x + i * K, m) + dot(l + i * K, m)) / 2 / sqrt(dot(m, m));
            near(sim[i * 3 + c], e[c]);
        }
        for (int c = 0; c < 3; c++) sum += exp(e[c] / 0.1);
        for (int c = 0; c < 3; c++) assert_true(fabs(p[i * 3 + c] - exp(e[c] / 0.1) / sum) < 1e-5);
    }

    texts("No Finding", "Edema", "Mass", yes), texts("no No Finding", "no Edema", "no Mass", no);
    o = (radz_score_options){.struct_size = sizeof o, .score = RADZ_SCORE_POS_NEG, .templates = one, .n_templates = 1};
    o.tau = 1;
    score(&o, x, NULL, sim, p);
    for (int i = 0; i < N_FILMS; i++)
        for (int c = 0; c < 3; c++) {
            double s1 = dot(x + i * K, yes + c * K), s0 = dot(x + i * K, no + c * K);
            near(sim[i * 3 + c], s1 - s0);
            near(p[i * 3 + c], exp(s1) / (exp(s1) + exp(s0)));
        }

    o.score = RADZ_SCORE_FUSED, o.feature = RADZ_SCORE_LOCAL;
    score(&o, NULL, l, sim, NULL);
    for (int i = 0; i < N_FILMS; i++)
        for (int c = 0; c < 3; c++) {
            double sum = 0;
            for (size_t d = 0; d < 3; d++)
                sum += dot(l + i * K, radz_bank_anchor(bank, d)) * dot(yes + c * K, radz_bank_anchor(bank, d));
            near(sim[i * 3 + c], sum / 3);
        }
}

static void wrong_scores(void **state)
{
    (void)state;
    static const char *const bad[] = {"no place for it"};
    radz_score_options o;
    radz_scorer *s;
    double p[3];
    radz_score_options_init(&o);
    o.score = RADZ_SCORE_IMG_TEXT, o.templates = bad, o.n_templates = 1;
    assert_int_equal(radz_scorer_open(session, bank, &o, &s, &err), RADZ_E_ARGUMENT);
    assert_null(s);
    o.score = (radz_score_kind)9;
    assert_int_equal(radz_scorer_open(session, bank, &o, &s, &err), RADZ_E_ARGUMENT);
    static const double taus[] = {(double)NAN, (double)INFINITY, 1e-300, 9e-5, 101};
    for (size_t i = 0; i < RZ_COUNT(taus); i++) {
        radz_score_options_init(&o);
        o.score = RADZ_SCORE_FUSED, o.tau = taus[i];
        assert_int_equal(radz_scorer_open(session, bank, &o, &s, &err), RADZ_E_ARGUMENT);
        assert_non_null(strstr(err.message, "tau: expected 0.0001 to 100"));
    }
    radz_score_options_init(&o);
    o.calibration = data;
    assert_int_equal(radz_scorer_open(session, bank, &o, &s, &err), RADZ_E_FORMAT);
    ok(radz_scorer_open(session, bank, NULL, &s, &err));
    assert_int_equal(radz_scorer_score(s, NULL, NULL, 1, NULL, p, &err), RADZ_E_ARGUMENT);
    assert_true(isnan(p[0]) && isnan(radz_scorer_threshold(s, 0)));
    radz_scorer_close(s);
}

/* ---- radz-eval ---- */

static char *report(const char *out, const char *name)
{
    char path[300];
    size_t n;
    snprintf(path, sizeof path, "%s/%s", out, name);
    return fixture_read(file(path), &n);
}

static void same_report(const char *a, const char *b)
{
    static const char *const names[] = {"report.json", "report.csv", "report.html"};
    for (size_t i = 0; i < RZ_COUNT(names); i++) {
        char *x = report(a, names[i]), *y = report(b, names[i]);
        if (strcmp(x, y) != 0) fail_msg("%s of %s and %s differ", names[i], a, b);
        free(x), free(y);
    }
}

static void a_report_names_what_it_did(void **state)
{
    (void)state;
    char out[300];
    snprintf(out, sizeof out, "%s", file("first"));
    run r = RUN("--out", out, "--label-map", file("map.csv"), "--method", "img_anchor,img_text,hidden", "--scores",
                "--bootstrap", "20");
    run_expect(&r, 1, "report.html", "1 films could not be read");
    run_done(&r);
    char *json = report("first", "report.json"), *csv = report("first", "report.csv");
    const char *const words[] = {"\"schema\":\"radz.eval/1\"",
                                 "\"threshold_source\":\"validation-max-f1\"",
                                 "\"line\":14",
                                 "gone.png",
                                 "\"Device\":1",
                                 "\"n_patients_shared_with_evaluated\":0",
                                 "\"method\":\"hidden\"",
                                 "\"disclaimer\""};
    for (size_t i = 0; i < RZ_COUNT(words); i++)
        if (!strstr(json, words[i])) fail_msg("report.json: no %s", words[i]);
    json_t *root = NULL;
    ok(rz_json_parse(json, strlen(json), "report.json", &root, &err));
    assert_int_equal(json_array_size(json_object_get(root, "methods")), 3);
    json_decref(root);
    assert_non_null(strstr(csv, "img_anchor,nih64,Edema,3,3,"));
    free(json), free(csv);
}

static void the_figures_are_those_of_the_scores(void **state)
{
    (void)state;
    float x[N_FILMS * K];
    double p[N_FILMS * N_CLASSES], edema[6];
    const signed char truth[] = {0, 1, 0, 1, 0, 1};
    radz_metrics m;
    radz_score_options o;
    radz_score_options_init(&o), radz_metrics_init(&m);
    film_vectors(RADZ_FEATURE_GLOBAL, x);
    score(&o, x, NULL, NULL, p);
    for (size_t i = 0; i < 6; i++) edema[i] = p[i * N_CLASSES + 1];
    ok(radz_metrics_measure(edema, truth, 6, NULL, &m, &err));
    char *csv = report("first", "report.csv"), *row = strstr(csv, "img_anchor,(all),Edema,6,3,3,3,");
    assert_non_null(row);
    double auc;
    row += strlen("img_anchor,(all),Edema,6,3,3,3,");
    assert_true(rz_parse_double(row, strcspn(row, ","), &auc));
    assert_true(fabs(auc - m.auc) < 1e-12);
    free(csv);
}

static void cache_threads_and_shards_change_nothing(void **state)
{
    (void)state;
    char map[300], cache[300];
    snprintf(map, sizeof map, "%s", file("map.csv"));
    snprintf(cache, sizeof cache, "%s", file("cache"));
#define SAME "--label-map", map, "--bootstrap", "20", "--method", "img_anchor,fused", "--feature", "both", "--quiet"
    run r = RUN("--out", file("plain"), SAME, "--no-cache", "--threads", "1");
    run_expect(&r, 1, "report.html", NULL);
    run_done(&r);
    for (int i = 0; i < 2; i++) { /* fills the cache, then reads it */
        r = RUN("--out", file("again"), SAME, "--cache", cache, "--threads", "3");
        run_expect(&r, 1, "report.html", NULL);
        run_done(&r);
        same_report("plain", "again");
    }
    r = RUN("--out", file("merged"), SAME, "--merge", "2");
    run_expect(&r, 2, NULL, "shard-1-of-2.json");
    run_done(&r);
    for (int i = 1; i <= 2; i++) {
        r = RUN("--out", file("merged"), SAME, "--shard", i == 1 ? "1/2" : "2/2");
        run_expect(&r, i == 1, "is done", NULL);
        run_done(&r);
    }
    r = RUN("--out", file("merged"), SAME, "--merge", "2");
    run_expect(&r, 1, "report.html", "1 films could not be read");
    run_done(&r);
    same_report("plain", "merged");
}

static void calibration_is_written_and_used(void **state)
{
    (void)state;
    char map[300], out[300], file_name[400];
    snprintf(map, sizeof map, "%s", file("map.csv"));
    snprintf(out, sizeof out, "%s", file("fitted"));
    snprintf(file_name, sizeof file_name, "%s/calibration-img_anchor.json", out);
    for (int i = 0; i < 2; i++) {
        run r = RUN("--out", out, "--label-map", map, "--calibrate", i ? "isotonic" : "platt", "--scores",
                    "--bootstrap", "0");
        run_expect(&r, 1, "report.html", NULL);
        run_done(&r);
        r = RUN("--out", file("used"), "--label-map", map, "--calibration", file_name, "--threshold", "calibration",
                "--scores", "--bootstrap", "0");
        run_expect(&r, 1, "report.html", NULL);
        run_done(&r);
        char *a = report("fitted", "scores.csv"), *b = report("used", "scores.csv");
        assert_string_equal(a, b);
        free(a), free(b);
    }
    run r = RUN("--out", file("used"), "--calibration", file_name, "--tau", "0.5");
    run_expect(&r, 2, NULL, "tau: fitted for another temperature");
    run_done(&r);
    r = RUN("--out", file("used"), "--calibration", file_name, "--method", "img_text");
    run_expect(&r, 2, NULL, "score: fitted for img_anchor");
    run_done(&r);
}

/* Column `k` of the row of scores.csv that begins with method and film and has the class. */
static double score_in(const char *csv, const char *method, int line, const char *label, int column)
{
    char begin[64], middle[64];
    snprintf(begin, sizeof begin, "\nmodel,%s,%d,", method, line);
    snprintf(middle, sizeof middle, ",%s,", label);
    for (const char *row = strstr(csv, begin); row; row = strstr(row + 1, begin)) {
        const char *end = strchr(row + 1, '\n'), *at = strstr(row, middle);
        if (!at || !end || at > end) continue;
        at = strchr(at + strlen(middle), ',') + 1; /* behind the truth */
        for (int i = 0; i < column; i++) at = strchr(at, ',') + 1;
        double v;
        assert_true(rz_parse_double(at, strcspn(at, ",\r"), &v));
        return v;
    }
    fail_msg("scores.csv: no %s, line %d, %s", method, line, label);
    return NAN;
}

static void methods_are_those_of_the_public_function(void **state)
{
    (void)state;
    static const char *const labels[] = {"No Finding", "Edema", "Mass"};
    run r = RUN("--out", file("said"), "--method", "likelihood,likelihood_mean,hidden,img_anchor", "--scores",
                "--bootstrap", "0", "--quiet", "--examples", "0", "--class-kind", "exclusive");
    run_expect(&r, 1, "report.html", NULL);
    run_done(&r);
    char *csv = report("said", "scores.csv");
    for (int i = 0; i < N_FILMS; i += 5) {
        double want[3], mean[3], hidden[3], sum = 0;
        radz_method_options o;
        radz_method_options_init(&o);
        ok(radz_method_scores(session, films[i], labels, 3, &o, want, NULL, &err));
        o.per_token = 1;
        ok(radz_method_scores(session, films[i], labels, 3, &o, mean, NULL, &err));
        o.per_token = 0, o.method = RADZ_METHOD_HIDDEN;
        ok(radz_method_scores(session, films[i], labels, 3, &o, hidden, NULL, &err));
        for (int c = 0; c < 3; c++) sum += exp(want[c] - want[0]);
        for (int c = 0; c < 3; c++) {
            near(score_in(csv, "likelihood", i + 2, labels[c], 0) / 100, want[c] / 100);
            near(score_in(csv, "likelihood", i + 2, labels[c], 1), exp(want[c] - want[0]) / sum);
            near(score_in(csv, "likelihood_mean", i + 2, labels[c], 0), mean[c]);
            near(score_in(csv, "hidden", i + 2, labels[c], 0), hidden[c]); /* one name, one meaning */
        }
    }
    free(csv);
    r = RUN("--out", file("said2"), "--method", "likelihood,likelihood_mean,hidden,img_anchor", "--scores",
            "--bootstrap", "0", "--cache", file("said/cache"), "--examples", "0", "--class-kind", "exclusive",
            "--threads", "1");
    run_expect(&r, 1, "report.html", NULL);
    run_done(&r);
    same_report("said", "said2");
    r = RUN("--out", file("said2"), "--method", "options");
    run_expect(&r, 2, NULL, "method options: the model cannot write");
    run_done(&r);
    r = RUN("--out", file("said2"), "--method", "head");
    run_expect(&r, 2, NULL, "method head: the model has no linear head");
    run_done(&r);
}

static void a_preset_names_what_it_leaves_out(void **state)
{
    (void)state;
    run r = RUN("--out", file("table1"), "--preset", "paper-table1", "--bootstrap", "0", "--cache", file("said/cache"));
    run_expect(&r, 1, "report.html", NULL);
    run_done(&r);
    char *json = report("table1", "report.json"), *html = report("table1", "report.html");
    const char *left =
        strstr(json, "\"left_out\":[{\"method\":\"options\",\"model\":\"model\",\"reason\":\"the model cannot write");
    assert_non_null(left);
    assert_non_null(strstr(left, "{\"method\":\"cot\""));
    static const char *const run_ones[] = {"likelihood", "likelihood_mean", "hidden",
                                           "img_text",   "img_anchor",      "fused"};
    for (size_t i = 0; i < RZ_COUNT(run_ones); i++) {
        char words[64];
        snprintf(words, sizeof words, "{\"method\":\"%s\",\"model\":\"model\",\"feature\"", run_ones[i]);
        assert_non_null(strstr(json, words));
    }
    free(json), free(html);
}

/* ---- What is kept of a run that is cut off ---- */

typedef struct counted {
    size_t stop_at, n_done, n_cached;
} counted;

static int count_films(const radz_eval_progress *p, void *user)
{
    counted *c = user;
    c->n_done = p->n_done, c->n_cached = p->n_cached;
    return c->stop_at && p->n_done >= c->stop_at;
}

static void a_run_that_is_cut_off_goes_on(void **state)
{
    (void)state;
    char out[300];
    counted c = {.stop_at = 1};
    radz_eval_options o;
    snprintf(out, sizeof out, "%s", file("cut"));
    radz_eval_options_init(&o);
    o.manifest = data, o.out_dir = out, o.methods = "likelihood,img_text", o.progress_fn = count_films, o.user = &c;
    o.n_rounds = 0;
    assert_int_equal(radz_evaluate(session, bank, &o, &err), RADZ_E_CANCELLED);
    assert_true(c.n_done >= 1 && c.n_cached == 0);
    size_t before = c.n_done;
    c.stop_at = 0;
    ok(radz_evaluate(session, bank, &o, &err));
    assert_int_equal(c.n_done, N_FILMS + 1);
    assert_true(c.n_cached >= before && c.n_cached <= N_FILMS);
    ok(radz_evaluate(session, bank, &o, &err));
    assert_int_equal(c.n_cached, N_FILMS);
    o.methods = "likelihood,hidden"; /* one of them is there */
    ok(radz_evaluate(session, bank, &o, &err));
    assert_int_equal(c.n_cached, 0);
    o.methods = "hidden,img_text,likelihood_mean";
    ok(radz_evaluate(session, bank, &o, &err));
    assert_int_equal(c.n_cached, N_FILMS);
    radz_method_options asked;
    radz_method_options_init(&asked);
    asked.prompt = "What is it?";
    o.writing = &asked; /* another question */
    ok(radz_evaluate(session, bank, &o, &err));
    assert_int_equal(c.n_cached, 0);
}

/* ---- Answers, asked of a model that babbles ---- */

typedef struct heard {
    char *text[2 * N_FILMS];
    float named[2 * N_FILMS][N_CLASSES];
    size_t n;
} heard;

static radz_status hear(void *arg, size_t row, const rz_eval_values *v, radz_error *why)
{
    heard *h = arg;
    (void)row, (void)why;
    for (int k = RZ_VALUE_OPTIONS; k <= RZ_VALUE_COT; k++) {
        h->text[h->n] = strdup(v->text[k].data);
        memcpy(h->named[h->n++], v->v[k], sizeof *h->named);
    }
    return RADZ_OK;
}

static void ask_all(const rz_net *net, const rz_bank *classes, heard *h, size_t n_cached)
{
    char out[300];
    radz_eval_options o;
    radz_method_options writing = rz_method_defaults();
    rz_eval_data d;
    rz_eval_wanted w;
    rz_eval_films f;
    const rz_eval_taker taker = {hear, h};
    snprintf(out, sizeof out, "%s", file("asked"));
    radz_eval_options_init(&o);
    o.manifest = data, o.out_dir = out, o.split = "test";
    writing.max_tokens = 5;
    *h = (heard){.n = 0};
    ok(rz_eval_data_open(NULL, &o, classes, &d, &err));
    ok(rz_eval_wanted_open(net->model, classes, &writing, 1u << RZ_VALUE_OPTIONS | 1u << RZ_VALUE_COT, &w, &err));
    ok(rz_eval_films_open(NULL, d.n, &f, &err));
    ok(rz_eval_films_run(net, &o, &d, &w, &taker, &f, &err));
    assert_int_equal(f.n_cached, n_cached);
    rz_eval_films_close(&f);
    rz_eval_wanted_close(&w);
    rz_eval_data_close(&d);
}

static void answers_are_kept(void **state)
{
    (void)state;
    static char *labels[] = {(char *)"No Finding", (char *)"Edema", (char *)"Pleural_Thickening"};
    static const char *const spoken[] = {"No Finding", "Edema", "Pleural Thickening"};
    const rz_bank classes = {.n = 3, .labels = labels};
    const rz_device_options device = {"cpu", "auto", "own", 2};
    rz_device *dev;
    rz_net net = {.keep = false};
    rz_model *m;
    heard first, again;
    radz_method_options o;
    ok(rz_device_open(NULL, &device, &dev, &err));
    ok(rz_stream_open(dev, &net.s, &err));
    ok(rz_model_load(NULL, dev, model_dir, RZ_MODEL_INFER, 0, &m, &err));
    net.model = m;
    ask_all(&net, &classes, &first, 0);
    ask_all(&net, &classes, &again, N_FILMS);
    assert_int_equal(first.n, 2 * N_FILMS);
    radz_method_options_init(&o);
    o.max_tokens = 5;
    for (size_t i = 0; i < first.n; i++) {
        double named[3];
        char *text;
        o.method = i % 2 ? RADZ_METHOD_COT : RADZ_METHOD_OPTIONS;
        ok(radz_method_scores(session, films[i / 2], spoken, 3, &o, named, &text, &err));
        assert_string_equal(first.text[i], text);
        assert_string_equal(again.text[i], text);
        for (int c = 0; c < 3; c++) assert_true(first.named[i][c] == (float)named[c]);
        assert_memory_equal(first.named[i], again.named[i], sizeof first.named[i]);
        radz_text_free(text);
        free(first.text[i]), free(again.text[i]);
    }
    rz_model_unload(m);
    rz_stream_close(net.s);
    rz_device_close(dev);
}

static void columns_per_class(void **state)
{
    (void)state;
    fixture_write_text(file("wide.csv"), "Path,Edema,Mass,No Finding\n0.png,1.0,,0\n1.png,0,-1,1\n2.png,-1.0,1,0\n");
    run r = run_program((const char *const[]){eval, "--data", file("wide.csv"), CLASSES, "--out", file("wide"),
                                              "--scores", "--uncertain", "positive", "--preset", "medklip", NULL},
                        NULL, TO_FILE);
    run_expect(&r, 0, "report.html", NULL);
    run_done(&r);
    char *csv = report("wide", "report.csv"), *json = report("wide", "report.json");
    assert_non_null(strstr(csv, "pos_neg_pair,(all),Edema,3,3,2,1,"));
    assert_non_null(strstr(csv, "pos_neg_pair,(all),Mass,3,3,2,0,"));
    assert_non_null(strstr(csv, "no negative film: AUC is undefined"));
    assert_non_null(strstr(json, "\"threshold_source\":\"test-max-f1\",\"comparison\":\">\""));
    free(csv), free(json);
}

static void wrong_usage(void **state)
{
    (void)state;
    const struct {
        const char *args[12], *words;
    } cases[] = {
        {{eval}, "--data"},
        {{eval, "--data", data, "--out", "x", "stray"}, "unexpected argument"},
        {{eval, "--data", data, "--out", "x", "--preset", "best"}, "preset 'best'"},
        {{eval, "--data", data, "--out", "x", "--shard", "3/2"}, "--shard"},
        {{eval, "--data", data, "--out", "x", "--shard", "1/2", "--merge", "2"}, "--merge"},
        {{eval, "--data", "/nowhere", "--out", "x", CLASSES}, "/nowhere"},
        {{eval, "--data", data, "--out", "x", CLASSES, "--split", "dev"}, "no row to evaluate"},
        {{eval, "--data", data, "--out", "x", CLASSES, "--threshold", "best"}, "threshold: 'best'"},
        {{eval, "--data", data, "--out", "x", CLASSES, "--method", "guess"}, "method 'guess'"},
        {{eval, "--data", data, "--out", "x", CLASSES, "--split", "val", "--calibrate", "platt"}, "validation films"},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        run r = run_program(cases[i].args, NULL, TO_FILE);
        run_expect(&r, 2, NULL, cases[i].words);
        run_done(&r);
    }
    run r = run_program((const char *const[]){eval, "--help", NULL}, NULL, TO_FILE);
    run_expect(&r, 0, "NOT FOR DIAGNOSIS", NULL);
    run_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calibration_equals_scikit_learn),
        cmocka_unit_test(one_outcome_is_not_calibrated),
        cmocka_unit_test(img_anchor_is_what_classify_says),
        cmocka_unit_test(scores_by_hand),
        cmocka_unit_test(wrong_scores),
        cmocka_unit_test(a_report_names_what_it_did),
        cmocka_unit_test(the_figures_are_those_of_the_scores),
        cmocka_unit_test(cache_threads_and_shards_change_nothing),
        cmocka_unit_test(calibration_is_written_and_used),
        cmocka_unit_test(methods_are_those_of_the_public_function),
        cmocka_unit_test(a_preset_names_what_it_leaves_out),
        cmocka_unit_test(a_run_that_is_cut_off_goes_on),
        cmocka_unit_test(answers_are_kept),
        cmocka_unit_test(columns_per_class),
        cmocka_unit_test(wrong_usage),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
