/* test_report.c - radz-eval's report: models and methods beside each other, heat maps against boxes, the page, which a
 * browser opens where there is one, and processes under mpirun. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "eval.h"
#include "fixture.h"
#include "formats.h"
#include "metrics.h"
#include "run_program.h"
#include "sanitized.h"

enum { N_FILMS = 16, WIDTH = 40, HEIGHT = 30 };

static radz_error err;
static char *dir, *data, *eval, *first_model, *second_model;

static void ok(radz_status status)
{
    if (status != RADZ_OK) fail_msg("%s: %s", radz_status_name(status), err.message);
}

static const char *file(const char *name)
{
    return fixture_path(dir, name);
}

#define CLASSES "--classes", "No Finding,Edema,Mass"
#define ALWAYS "--data", data, CLASSES, "--split", "all", "--quiet"
#define RUN(...) run_program((const char *const[]){eval, ALWAYS, __VA_ARGS__, NULL}, NULL, TO_FILE)

static void good(run r)
{
    run_expect(&r, 0, "report.html", NULL);
    run_done(&r);
}

static void refused(run r, const char *words)
{
    run_expect(&r, 2, NULL, words);
    run_done(&r);
}

/* A path with markup in it: nothing of it may get through to the page. */
static const char *film_name(int i)
{
    static char name[32];
    snprintf(name, sizeof name, i == 3 ? "<b>&\"%d.png" : "%d.png", i);
    return name;
}

static void write_data(void)
{
    static const char *const labels[] = {"No Finding", "Edema", "Mass", "Edema|Mass"};
    FILE *f = fopen(data, "w");
    assert_non_null(f);
    fputs("path,patient,set,labels\n", f);
    for (int i = 0; i < N_FILMS; i++)
        fprintf(f, i == 3 ? "\"<b>&\"\"%d.png\",p%d,%s,%s\n" : "%d.png,p%d,%s,%s\n", i, i / 2, i % 3 ? "east" : "west",
                labels[(i * 7 + i / 4) % 4]);
    assert_int_equal(fclose(f), 0);
}

static int set_up(void **state)
{
    (void)state;
    run_folder = dir = fixture_temp_dir();
    eval = strdup(fixture_program("radz-eval"));
    first_model = strdup(file("one")), second_model = strdup(file("two")), data = strdup(file("data.csv"));
    assert_int_equal(mkdir(first_model, 0700) + mkdir(second_model, 0700), 0);
    fixture_model(first_model, 3);
    fixture_model(second_model, 4);
    for (int i = 0; i < N_FILMS; i++) fixture_png(file(film_name(i)), WIDTH, HEIGHT, 1, (uint64_t)i);
    write_data();
    setenv("RADZ_MODEL", first_model, 1);
    setenv("LC_ALL", "C", 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fixture_remove(dir);
    free(dir), free(data), free(eval), free(first_model), free(second_model);
    return 0;
}

static char *report(const char *out, const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", out, name);
    return fixture_read(file(path), NULL);
}

static void same_reports(const char *a, const char *b)
{
    static const char *const names[] = {"report.json", "report.csv", "report.html"};
    for (size_t i = 0; i < RZ_COUNT(names); i++) {
        char *x = report(a, names[i]), *y = report(b, names[i]);
        if (strcmp(x, y) != 0) fail_msg("%s of %s and %s differ", names[i], a, b);
        free(x), free(y);
    }
}

static json_t *read_json(const char *out)
{
    char *text = report(out, "report.json");
    json_t *o = NULL;
    ok(rz_json_parse(text, strlen(text), "report.json", &o, &err));
    free(text);
    return o;
}

static json_t *table_of(const json_t *o, size_t method)
{
    json_t *tables = json_object_get(json_array_get(json_object_get(o, "methods"), method), "tables");
    return json_array_get(tables, json_array_size(tables) - 1);
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("%s is no number", key);
    return json_number_value(v);
}

/* ---- Differences ---- */

/* AUC of films of which some count several times, pair by pair. */
static double auc_by_hand(const double *score, const signed char *truth, const uint32_t *times, size_t n)
{
    double won = 0, all = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) {
            const double w = truth[i] == 1 && truth[k] == 0 ? (double)times[i] * times[k] : 0;
            won += w * (score[i] > score[k] ? 1 : score[i] < score[k] ? 0 : 0.5);
            all += w;
        }
    return all > 0 ? won / all : (double)NAN;
}

enum { N = 24, ROUNDS = 40, PATIENTS = 9 };

static void draw_by_hand(size_t round, const size_t *groups, uint32_t *times)
{
    uint32_t drawn[PATIENTS] = {0};
    rz_rng rng;
    rz_rng_seed(&rng, 5, round);
    for (size_t i = 0; i < PATIENTS; i++) drawn[rz_rng_below(&rng, PATIENTS)]++;
    for (size_t i = 0; i < N; i++) times[i] = drawn[groups[i]];
}

static void bootstrap(const double *score, const signed char *truth, const size_t *groups, rz_rounds *kept)
{
    const uint8_t counts = 1;
    const double threshold = 0.5;
    const radz_metrics_options o = {sizeof o, 0.5, 0, 0, 10, ROUNDS, 0.9, 5};
    radz_metrics low[2], high[2];
    rz_ranked r;
    ok(rz_rank(NULL, score, truth, N, &r, &err));
    const rz_bootstrap b = {.ranked = &r,
                            .thresholds = &threshold,
                            .in_macro = &counts,
                            .n_classes = 1,
                            .groups = groups,
                            .n_films = N,
                            .n_groups = PATIENTS,
                            .options = &o};
    ok(rz_bootstrap_run(&b, low, high, kept, &err));
    rz_ranked_free(&r);
}

static void differences_are_drawn_in_pairs(void **state)
{
    (void)state;
    double a[N], b[N], scratch[ROUNDS], above = 0;
    signed char truth[N];
    size_t groups[N];
    rz_rounds x, y;
    rz_difference d;
    rz_rng rng;
    rz_rng_seed(&rng, 8, 0);
    for (size_t i = 0; i < N; i++) {
        truth[i] = i % 3 == 0, groups[i] = i * PATIENTS / N;
        a[i] = (double)rz_rng_below(&rng, 8) / 8, b[i] = (a[i] + (double)rz_rng_below(&rng, 8) / 8) / 2;
    }
    bootstrap(a, truth, groups, &x), bootstrap(b, truth, groups, &y);
    for (size_t round = 0; round < ROUNDS; round++) {
        uint32_t times[N];
        draw_by_hand(round, groups, times);
        assert_true(fabs(x.auc[round] - auc_by_hand(a, truth, times, N)) < 1e-12);
        assert_true(fabs(y.auc[round] - auc_by_hand(b, truth, times, N)) < 1e-12);
        assert_true(fabs(x.macro[round] - x.auc[round]) < 1e-15);
        scratch[round] = y.auc[round] - x.auc[round];
        above += scratch[round] > 0 ? 1 : scratch[round] < 0 ? 0 : 0.5;
    }
    double low, high, work[ROUNDS];
    rz_interval(scratch, ROUNDS, 0.9, &low, &high);
    rz_difference_of(y.auc, x.auc, ROUNDS, 0.9, work, &d);
    assert_true(fabs(d.low - low) < 1e-15 && fabs(d.high - high) < 1e-15 && fabs(d.above - above / ROUNDS) < 1e-15);
    assert_true(d.low < d.high);
    rz_difference_of(x.auc, x.auc, ROUNDS, 0.9, work, &d);
    assert_true(!(d.low < 0) && !(d.high > 0) && fabs(d.above - 0.5) < 1e-15);
    x.auc[3] = (double)NAN; /* a round without both outcomes is left out of both */
    rz_difference_of(y.auc, x.auc, ROUNDS, 0.9, work, &d);
    assert_true(isfinite(d.low) && isfinite(d.high));
    rz_rounds_free(&x), rz_rounds_free(&y);
}

/* ---- Models ---- */

#define SAME "--method", "img_anchor,img_text", "--bootstrap", "50", "--tsne", "20"

/* A row of report.csv without its model and without what compares it with the first row. */
static void row_of(const char *out, const char *model, const char *rest, char *figures, size_t size)
{
    char begin[100], *csv = report(out, "report.csv");
    snprintf(begin, sizeof begin, "\n%s,%s,", model, rest);
    const char *at = strstr(csv, begin);
    if (!at) fail_msg("report.csv of %s: no row %s,%s", out, model, rest);
    at += strlen(begin);
    int columns = 0;
    size_t n = 0;
    for (; *at != '\r' && n + 1 < size && columns < 34;
         at++) { /* n_films, n_patients, two counts, ten figures of three */
        columns += *at == ',';
        figures[n++] = *at;
    }
    figures[n] = 0;
    free(csv);
}

static void models_stand_beside_each_other(void **state)
{
    (void)state;
    good(RUN("--out", file("alone1"), SAME));
    good(RUN("--out", file("alone2"), SAME, "--model", second_model));
    good(RUN("--out", file("both"), SAME, "--model", first_model, "--model", second_model, "--cache", file("c1")));
    static const char *const rows[] = {"img_anchor,(all),Edema", "img_text,east,Mass", "img_text,(all),(macro)"};
    for (size_t i = 0; i < RZ_COUNT(rows); i++)
        for (int k = 0; k < 2; k++) {
            char a[2000], b[2000];
            row_of(k ? "alone2" : "alone1", k ? "two" : "one", rows[i], a, sizeof a);
            row_of("both", k ? "two" : "one", rows[i], b, sizeof b);
            assert_string_equal(a, b);
        }
    json_t *o = read_json("both");
    assert_int_equal(json_array_size(json_object_get(o, "methods")), 4);
    const double first = number(json_object_get(table_of(o, 0), "macro"), "auc");
    assert_null(json_object_get(table_of(o, 0), "less_first"));
    for (size_t i = 1; i < 4; i++) {
        const json_t *less = json_object_get(json_object_get(table_of(o, i), "less_first"), "macro");
        const json_t *d = json_object_get(less, "auc");
        assert_true(fabs(number(d, "value") - (number(json_object_get(table_of(o, i), "macro"), "auc") - first)) <
                    1e-12);
        assert_int_equal(json_array_size(json_object_get(d, "interval")), 2);
    }
    const json_t *others = json_object_get(o, "others");
    assert_int_equal(json_array_size(others), 1);
    const json_t *hash = json_object_get(json_object_get(json_array_get(others, 0), "model"), "hash");
    json_t *alone = read_json("alone2");
    assert_string_equal(json_string_value(hash),
                        json_string_value(json_object_get(json_object_get(alone, "model"), "hash")));
    json_decref(alone), json_decref(o);
}

static void models_in_shards(void **state)
{
    (void)state;
#define BOTH SAME, "--model", first_model, "--model", second_model, "--cache", file("c1")
    for (int i = 1; i <= 3; i++) {
        char shard[8];
        snprintf(shard, sizeof shard, "%d/3", i);
        run r = RUN("--out", file("shards"), BOTH, "--shard", shard);
        run_expect(&r, 0, "is done", NULL);
        run_done(&r);
    }
    good(RUN("--out", file("shards"), BOTH, "--merge", "3"));
    same_reports("both", "shards");
    refused(RUN("--out", file("shards"), SAME, "--merge", "3", "--cache", file("c1")), "of another model");
}

static void models_have_names(void **state)
{
    (void)state;
    refused(RUN("--out", file("x"), "--model", first_model, "--model", first_model), "two models are called one");
    good(RUN("--out", file("named"), SAME, "--model", first_model, "--model", second_model, "--name", "1 %", "--name",
             "<10>"));
    char *csv = report("named", "report.csv"), *html = report("named", "report.html");
    assert_non_null(strstr(csv, "\n1 %,img_anchor,"));
    assert_non_null(strstr(csv, "\n<10>,img_text,"));
    assert_null(strstr(html, "<10>"));
    assert_non_null(strstr(html, "&lt;10&gt;"));
    free(csv), free(html);
}

static void other_models_through_the_library(void **state)
{
    (void)state;
    radz_model *models[2];
    radz_session *sessions[2];
    radz_bank *banks[2];
    radz_eval_options o;
    char out[300];
    static const radz_bank_entry classes[] = {{"Edema", NULL}, {"Mass", NULL}, {"No Finding", NULL}};
    for (int i = 0; i < 2; i++) {
        ok(radz_model_open(NULL, i ? second_model : first_model, NULL, &models[i], &err));
        ok(radz_session_open(models[i], NULL, &sessions[i], &err));
        ok(radz_bank_build(sessions[i], classes + i, 2, &banks[i], &err));
    }
    radz_eval_options_init(&o);
    snprintf(out, sizeof out, "%s", file("x"));
    radz_eval_model other = {sessions[1], banks[1], NULL};
    o.manifest = data, o.out_dir = out, o.others = &other, o.n_others = 1, o.split = "all";
    assert_int_equal(radz_evaluate(sessions[0], banks[0], &o, &err), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "other classes"));
    other = (radz_eval_model){sessions[0], banks[0], "again"};
    assert_int_equal(radz_evaluate(sessions[0], banks[0], &o, &err), RADZ_E_ARGUMENT);
    assert_non_null(strstr(err.message, "comes twice"));
    o.others = NULL;
    assert_int_equal(radz_evaluate(sessions[0], banks[0], &o, &err), RADZ_E_ARGUMENT);
    for (int i = 0; i < 2; i++) {
        radz_bank_close(banks[i]);
        radz_session_close(sessions[i]);
        radz_model_close(models[i]);
    }
}

/* ---- What a killed run leaves ---- */

/* The cache of a run, of which one part was cut off, one overwritten, and one never finished. */
static void damage_cache(const char *folder)
{
    char **names;
    size_t n, size;
    ok(rz_folder_names(NULL, folder, ".safetensors", &names, &n, &err));
    assert_true(n >= 2); /* one per model */
    for (size_t i = 0; i < n; i++) {
        char *bytes = fixture_read(fixture_path(folder, names[i]), &size);
        fixture_write(fixture_path(folder, names[i]), bytes, i % 2 ? size : size - size / 3);
        if (i == 0) fixture_write(fixture_path(folder, ".radz-1-1.tmp"), bytes, size / 2);
        free(bytes);
    }
    fixture_write_text(fixture_path(folder, "zero.safetensors"), "");
    fixture_write_text(fixture_path(folder, "words.safetensors"), "these are no vectors at all, and never were");
    rz_folder_free(NULL, names, n);
}

static void a_damaged_cache_costs_time_only(void **state)
{
    (void)state;
    char cache[300];
    snprintf(cache, sizeof cache, "%s", file("c1"));
    damage_cache(cache);
    good(RUN("--out", file("mended"), BOTH));
    same_reports("both", "mended");
}

/* ---- Stages ---- */

typedef struct stages {
    char seen[200];
    const char *stop_at;
} stages;

static int see(const radz_eval_progress *p, void *user)
{
    stages *s = user;
    assert_true(p->stage_done <= p->stage_n);
    if (!strstr(s->seen, p->stage)) {
        const size_t n = strlen(s->seen);
        snprintf(s->seen + n, sizeof s->seen - n, "%s ", p->stage);
    }
    return s->stop_at && strcmp(p->stage, s->stop_at) == 0;
}

static void every_stage_can_be_cancelled(void **state)
{
    (void)state;
    radz_model *model;
    radz_session *session;
    radz_eval_options o;
    stages s = {.stop_at = NULL};
    char out[300], boxes[300];
    snprintf(out, sizeof out, "%s", file("staged"));
    snprintf(boxes, sizeof boxes, "%s", file("staged.csv"));
    fixture_write_text(boxes, "path,class,x,y,width,height\n1.png,Edema,1,1,5,5\n");
    ok(radz_model_open(NULL, first_model, NULL, &model, &err));
    ok(radz_session_open(model, NULL, &session, &err));
    static const radz_bank_entry classes[] = {{"No Finding", NULL}, {"Edema", NULL}, {"Mass", NULL}};
    radz_bank *bank;
    ok(radz_bank_build(session, classes, 3, &bank, &err));
    radz_eval_options_init(&o);
    o.manifest = data, o.out_dir = out, o.split = "all", o.boxes = boxes, o.n_rounds = 10;
    o.progress_fn = see, o.user = &s;
    ok(radz_evaluate(session, bank, &o, &err));
    assert_string_equal(s.seen, "films figures boxes pictures ");
    static const char *const names[] = {"films", "figures", "boxes", "pictures"};
    for (size_t i = 0; i < RZ_COUNT(names); i++) {
        char page[320];
        snprintf(page, sizeof page, "%s/report.json", out);
        remove(page);
        s = (stages){.stop_at = names[i]};
        assert_int_equal(radz_evaluate(session, bank, &o, &err), RADZ_E_CANCELLED);
        assert_int_not_equal(access(page, F_OK), 0);
    }
    radz_bank_close(bank);
    radz_session_close(session);
    radz_model_close(model);
}

/* ---- Boxes ---- */

typedef struct measured {
    radz_model *model;
    radz_session *session;
    radz_bank *bank;
} measured;

static void open_measured(measured *m)
{
    static const radz_bank_entry classes[] = {{"No Finding", NULL}, {"Edema", NULL}, {"Mass", NULL}};
    ok(radz_model_open(NULL, first_model, NULL, &m->model, &err));
    ok(radz_session_open(m->model, NULL, &m->session, &err));
    ok(radz_bank_build(m->session, classes, 3, &m->bank, &err));
}

static void close_measured(measured *m)
{
    radz_bank_close(m->bank);
    radz_session_close(m->session);
    radz_model_close(m->model);
}

/* hit, chance, deletion, insertion of one film as the public functions have them. */
static void measure_by_hand(const measured *m, int film, const char *label, radz_heatmap_method method,
                            const radz_box *boxes, size_t n, double figures[4])
{
    radz_image *image;
    radz_heatmap_options o;
    radz_heatmap_score score;
    float patches[4], map[WIDTH * HEIGHT];
    int hit;
    radz_heatmap_options_init(&o);
    o.method = method;
    radz_heatmap_score_init(&score);
    assert_int_equal(radz_heatmap_side(m->model), 2);
    ok(radz_image_open(NULL, file(film_name(film)), &image, &err));
    ok(radz_heatmap_patches(m->session, m->bank, image, label, &o, patches, &err));
    ok(radz_heatmap_expand(m->model, image, patches, map, &err));
    ok(radz_heatmap_pointing(map, WIDTH, HEIGHT, boxes, n, &hit, &figures[1], &err));
    ok(radz_heatmap_measure(m->session, m->bank, image, label, patches, 4, &score, NULL, &err));
    figures[0] = hit, figures[2] = score.deletion, figures[3] = score.insertion;
    radz_image_close(image);
}

static void a_film_is(const char *csv, const char *map, const char *label, int film, const double want[4])
{
    char begin[100];
    snprintf(begin, sizeof begin, "\none,%s,%s,%d,", map, label, film + 2);
    const char *at = strstr(csv, begin);
    if (!at) fail_msg("heatmaps-films.csv: no row%s", begin);
    at += strlen(begin);
    for (int i = 0; i < 4; i++) at = strchr(at, ',') + 1; /* path, boxes, two probabilities */
    for (int i = 0; i < 4; i++) {
        double v;
        assert_true(rz_parse_double(at, strcspn(at, ","), &v));
        if (!(fabs(v - want[i]) < 1e-12))
            fail_msg("%s %s %d, figure %d: %.9g, expected %.9g", map, label, film, i, v, want[i]);
        at = strchr(at, ',') + 1;
    }
}

static void boxes_are_measured_as_the_library_measures(void **state)
{
    (void)state;
    static const radz_heatmap_method methods[] = {RADZ_HEATMAP_SIMILARITY, RADZ_HEATMAP_ATTENTION,
                                                  RADZ_HEATMAP_GRADIENT};
    static const char *const names[] = {"similarity", "attention", "gradient"};
    const radz_box boxes[3] = {{0, 0, 20, 15}, {20, 15, 20, 15}, {4.5, 2, 30, 9}};
    measured m;
    fixture_write_text(file("boxes.csv"), "path,class,x,y,width,height\n1.png,edema,0,0,20,15\n2.png,Mass,4.5,2,30,9\n"
                                          "1.png,Edema,20,15,20,15\n99.png,Mass,1,1,1,1\n2.png,Scar,1,1,1,1\n");
    good(RUN("--out", file("boxed"), "--boxes", file("boxes.csv"), "--bootstrap", "30", "--tsne", "0"));
    char *csv = report("boxed", "heatmaps-films.csv");
    double sum[3][4] = {{0}};
    open_measured(&m);
    for (int k = 0; k < 3; k++) {
        double a[4], b[4];
        measure_by_hand(&m, 1, "Edema", methods[k], boxes, 2, a);
        measure_by_hand(&m, 2, "Mass", methods[k], boxes + 2, 1, b);
        a_film_is(csv, names[k], "Edema", 1, a);
        a_film_is(csv, names[k], "Mass", 2, b);
        for (int i = 0; i < 4; i++) sum[k][i] = (a[i] + b[i]) / 2;
    }
    close_measured(&m);
    free(csv);
    json_t *o = read_json("boxed"), *heat = json_array_get(json_object_get(o, "heatmaps"), 0);
    assert_int_equal(json_integer_value(json_object_get(heat, "n_boxes")), 3);
    assert_int_equal(json_integer_value(json_object_get(heat, "n_boxes_of_other_films")), 1);
    assert_int_equal(json_integer_value(json_object_get(heat, "n_boxes_of_other_classes")), 1);
    const json_t *maps = json_object_get(heat, "maps");
    assert_int_equal(json_array_size(maps), 4);
    for (size_t k = 0; k < 3; k++) {
        const json_t *all = json_object_get(json_array_get(maps, k), "all");
        static const char *const keys[] = {"hit", "chance", "deletion", "insertion"};
        for (int i = 0; i < 4; i++) assert_true(fabs(number(all, keys[i]) - sum[k][i]) < 1e-12);
        assert_int_equal(json_array_size(json_object_get(all, "hit_interval")), 2);
    }
    json_decref(o);
}

static char *boxed_csv(const char *text)
{
    fixture_write_text(file("b.csv"), text);
    good(RUN("--out", file("boxed2"), "--boxes", file("b.csv"), "--bootstrap", "0", "--tsne", "0", "--examples", "0",
             "--box-steps", "0"));
    return report("boxed2", "heatmaps-films.csv");
}

static void boxes_of_other_shapes(void **state)
{
    (void)state;
    char *a = boxed_csv("path,class,x,y,width,height\n1.png,Edema,10,3,20,12\n");
    char *b = boxed_csv("path,class,x,y,width,height,film_width,film_height\n1.png,Edema,100,20,200,80,400,200\n");
    char *c = boxed_csv("Image Index,Finding Label,Bbox [x,y,w,h],,,\n1.png,Edema,10,3,20,12,,,\n");
    assert_string_equal(a, b);
    assert_string_equal(a, c);
    free(a), free(b), free(c);
    a = boxed_csv("path,class,x,y,width,height\n1.png,Edema,10,3,20,12\n2.png,Mass,30,10,20,5\n");
    assert_non_null(strstr(a, "reaches out of the film's 40 x 30 pixels"));
    free(a);
    json_t *o = read_json("boxed2"), *heat = json_array_get(json_object_get(o, "heatmaps"), 0);
    assert_int_equal(json_integer_value(json_object_get(heat, "n_failed")), 1);
    json_decref(o);
}

static void boxes_that_are_none(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"path,class,x,y,width\n", "expected a header"},
        {"path,class,x,y,width,height\n1.png,Edema,1,1,0,5\n", "line 2: expected numbers"},
        {"path,class,x,y,width,height\n1.png,Edema,1,nan,5,5\n", "line 2: expected numbers"},
        {"path,class,x,y,width,height\n9999.png,Edema,1,1,5,5\n", "no box of a film that is evaluated"},
        {"", "b.csv"},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        fixture_write_text(file("b.csv"), cases[i][0]);
        refused(RUN("--out", file("x"), "--boxes", file("b.csv")), cases[i][1]);
    }
}

/* ---- The page ---- */

static void count(const char *html, const char *words, size_t least)
{
    size_t n = 0;
    for (const char *p = html; (p = strstr(p, words)); p++) n++;
    if (n < least) fail_msg("report.html: %zu times %s, expected %zu", n, words, least);
}

static void make_page(void)
{
    fixture_write_text(file("boxes.csv"), "path,class,x,y,width,height\n1.png,Edema,0,0,20,15\n");
    good(RUN("--out", file("page"), SAME, "--model", first_model, "--model", second_model, "--boxes",
             file("boxes.csv")));
}

static void the_page_is_whole(void **state)
{
    (void)state;
    static const char *const ids[] = {"comparison", "m0", "m1", "m2", "m3", "boxes", "films", "vectors", "protocol"};
    static const char *const never[] = {"<script", "http:", "https:", "<link", "@import",
                                        "url(",    "<b>&",  ">NaN",   " NaN",  "nan<"};
    make_page();
    char *html = report("page", "report.html");
    for (size_t i = 0; i < RZ_COUNT(ids); i++) {
        char quoted[40], bare[40];
        snprintf(quoted, sizeof quoted, "href=\"#%s\"", ids[i]), snprintf(bare, sizeof bare, " id=%s>", ids[i]);
        count(html, quoted, 1), count(html, bare, 1);
    }
    for (size_t i = 0; i < RZ_COUNT(never); i++)
        if (strstr(html, never[i])) fail_msg("report.html has %s in it", never[i]);
    count(html, "&lt;b&gt;&amp;&quot;3.png", 1);
    count(html, "class=box", 4); /* on the film and its three maps, for one model */
    count(html, "aria-label=\"heat map\"", 12);
    count(html, "<polyline", 4 * 3 * 3); /* methods, plots, classes */
    count(html, "<circle", 2 * N_FILMS);
    free(html);
    good(RUN("--out", file("plain"), SAME, "--no-heatmaps"));
    html = report("plain", "report.html");
    count(html, "aria-label=\"film\"", 3);
    assert_null(strstr(html, "aria-label=\"heat map\""));
    free(html);
}

#define BROWSER "/usr/bin/chromium"

/* Opens a page in frames of two widths. What it finds: "1280 1280 0;390 390 0;" - frame, content, resources fetched. */
static run look_at(const char *page)
{
    rz_str s = {.host = NULL};
    rz_str_printf(&s,
                  "<!doctype html><body><iframe src=\"%s\" style=\"width:1280px;height:900px;border:0\"></iframe>"
                  "<iframe src=\"%s\" style=\"width:390px;height:900px;border:0\"></iframe><pre></pre><script>"
                  "onload=()=>{let t='';for(const f of document.querySelectorAll('iframe')){const w=f.contentWindow,"
                  "r=w.document.documentElement;for(const d of w.document.querySelectorAll('details'))d.open=true;"
                  "t+=r.clientWidth+' '+r.scrollWidth+' '+w.performance.getEntriesByType('resource').length+';'}"
                  "document.querySelector('pre').textContent='found '+t}</script></body>",
                  page, page);
    assert_false(s.failed);
    fixture_write_text(file("frames.html"), s.data);
    rz_str_free(&s);
    char profile[300], url[300];
    snprintf(profile, sizeof profile, "--user-data-dir=%s", file("profile"));
    snprintf(url, sizeof url, "file://%s", file("frames.html"));
    return run_program((const char *const[]){BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu",
                                             "--hide-scrollbars", profile, "--disable-dev-shm-usage",
                                             "--allow-file-access-from-files", "--disable-background-networking",
                                             "--disable-component-update", "--no-first-run", "--enable-logging=stderr",
                                             "--window-size=1400,2000", "--dump-dom", url, NULL},
                       NULL, TO_FILE);
}

static void a_browser_has_no_complaints(void **state)
{
    (void)state;
    if (access(BROWSER, X_OK)) skip();
    run r = look_at("page/report.html");
    run_expect(&r, 0, "found 1280 1280 0;390 390 0;", NULL);
    if (strstr(r.err, "CONSOLE")) fail_msg("console: %s", strstr(r.err, "CONSOLE"));
    run_done(&r);
    fixture_write_text(file("bad.html"),
                       "<!doctype html><meta charset=utf-8><img src=\"http://127.0.0.1:9/gone.png\"><div "
                       "style=\"width:500px\">wide</div><script>nothing.is()</script>");
    r = look_at("bad.html"); /* and it would say so */
    run_expect(&r, 0, "found 1280 1280 1;390 508 1;", "CONSOLE");
    run_done(&r);
}

/* ---- Processes ---- */

/* An MPI keeps memory and talks from threads that sanitizers do not know. */
static bool have_mpi(void)
{
#if SANITIZED
    return false;
#endif
    return !system("command -v mpirun >/dev/null 2>&1") && !access(fixture_program("../radz-mpi.so"), R_OK);
}

static run mpirun(int n, const char *out, const char *more)
{
    rz_str s = {.host = NULL};
    rz_str_printf(
        &s,
        "exec mpirun -n %d '%s' --data '%s' --classes 'No Finding,Edema,Mass' --split all --quiet --threads 1 "
        "--method img_anchor,img_text --bootstrap 50 --tsne 20 --out '%s/%s' %s",
        n, eval, data, dir, out, more);
    assert_false(s.failed);
    run r = run_program((const char *const[]){"/bin/sh", "-c", s.data, NULL}, NULL, TO_FILE);
    rz_str_free(&s);
    return r;
}

static void processes_write_one_report(void **state)
{
    (void)state;
    if (!have_mpi()) skip();
    good(RUN("--out", file("single"), SAME));
    good(mpirun(2, "double", ""));
    same_reports("single", "double");
    run r = mpirun(2, "double", "--shard 1/2");
    assert_int_not_equal(r.status, 0);
    assert_non_null(strstr(r.err, "dealt out"));
    run_done(&r);
    r = mpirun(2, "double", "--no-cache");
    assert_int_not_equal(r.status, 0);
    assert_non_null(strstr(r.err, "shards meet in the cache"));
    run_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(differences_are_drawn_in_pairs),
        cmocka_unit_test(models_stand_beside_each_other),
        cmocka_unit_test(models_in_shards),
        cmocka_unit_test(a_damaged_cache_costs_time_only),
        cmocka_unit_test(models_have_names),
        cmocka_unit_test(other_models_through_the_library),
        cmocka_unit_test(every_stage_can_be_cancelled),
        cmocka_unit_test(boxes_are_measured_as_the_library_measures),
        cmocka_unit_test(boxes_of_other_shapes),
        cmocka_unit_test(boxes_that_are_none),
        cmocka_unit_test(the_page_is_whole),
        cmocka_unit_test(a_browser_has_no_complaints),
        cmocka_unit_test(processes_write_one_report),
    };
    run_allow_mpi();
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
