/* test_dataset.c - manifests, label maps, what films of one batch know about each other, sampling.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataset.h"
#include "fixture.h"
#include "sampler.h"

static const char *const classes[] = {"No Finding", "Pneumonia", "Effusion", "COVID-19"};
enum { NONE, PNEUMONIA, EFFUSION, COVID, N_CLASSES };

static const char manifest[] = "path,patient,set,split,labels,text\n"
                               "a.png,1,kids224,train,Pneumonia|Bacterial pneumonia,\n"
                               "b.png,2,kids224,train,Normal,\n"
                               "c.png,3,nih512,train,Effusion|Pneumonia,\n"
                               "d.png,4,nih512,train,Unheard of,\n" /* line 5: left out */
                               "e.png,5,nih64,val,No Finding,\n"
                               "f.png,6,clean8,train,Normal,\n"
                               "/films/g.png,7,covid,train,COVID-19,\n"
                               "h.png,8,reports,train,,\"Is it clear? Yes.\"\n"
                               "i.png,9,kids224,test,Pneumonia,\n" /* another split */
                               "j.png,10,,train,Pneumonia| Effusion |Pneumonia,\n"
                               "k.png,11,kids224,val,Viral pneumonia|Pneumonia,\n"
                               "l.png,12,nih64,train,Pneumonia|Effusion,\n";
static const char label_map[] = "from,to\nNormal,No Finding\nBacterial pneumonia,\nViral pneumonia,\n";

typedef struct env {
    char *dir;
    rz_model model; /* only its label sentence is used */
    rz_dataset ds;
} env;

static radz_status open_text(env *e, const char *csv, const char *map, radz_error *err)
{
    const char *path = fixture_path(e->dir, "index.csv"), *map_path = fixture_path(e->dir, "map.csv");
    fixture_write_text(path, csv);
    if (map) fixture_write_text(map_path, map);
    e->model.cfg.radz.label_text = (char *)(uintptr_t) "Showing {labels}.";
    rz_dataset_options o = {.manifest = path,
                            .label_map = map ? map_path : NULL,
                            .classes = classes,
                            .n_classes = N_CLASSES,
                            .model = &e->model,
                            .stop_on_bad_row = true};
    return rz_dataset_open(NULL, &o, &e->ds, err);
}

static int set_up(void **state)
{
    env *e = calloc(1, sizeof *e);
    e->dir = fixture_temp_dir();
    *state = e;
    return 0;
}

static int tear_down(void **state)
{
    env *e = *state;
    rz_dataset_close(&e->ds);
    fixture_remove(e->dir);
    free(e->dir);
    free(e);
    return 0;
}

static const char *text_of(const rz_dataset *ds, size_t row)
{
    return ds->texts.items[ds->rows[row].text];
}

/* Training rows are, in order: a b c f g h j l. */
enum { A, B, C, F, G, H, J, L };

static void reads_a_manifest(void **state)
{
    env *e = *state;
    assert_int_equal(open_text(e, manifest, label_map, NULL), RADZ_OK);
    const rz_dataset *ds = &e->ds;
    assert_int_equal(ds->n_train, 8);
    assert_int_equal(ds->n_val, 2);
    assert_int_equal(ds->n_left_out, 1);
    assert_int_equal(ds->n_other_split, 1);
    assert_int_equal(ds->rows[C].line, 4);
    assert_string_equal(ds->rows[A].path, fixture_path(e->dir, "a.png"));
    assert_string_equal(ds->rows[G].path, "/films/g.png");
    assert_string_equal(text_of(ds, A), "Showing Pneumonia.");
    assert_string_equal(text_of(ds, B), "Showing No Finding.");
    assert_string_equal(text_of(ds, C), "Showing Effusion, Pneumonia."); /* the manifest's order */
    assert_string_equal(text_of(ds, H), "Is it clear? Yes.");
    assert_string_equal(text_of(ds, J), "Showing Pneumonia, Effusion.");
    assert_int_equal(ds->rows[B].text, ds->rows[F].text);
    assert_int_equal(ds->rows[C].label_set, ds->rows[J].label_set);
    assert_int_equal(ds->rows[C].group, ds->rows[L].group); /* nih512, nih64 */
    assert_int_not_equal(ds->rows[C].set, ds->rows[L].set);
    assert_int_equal(strlen(ds->manifest_hash), 64);
}

static void without_splits_all_rows_train(void **state)
{
    env *e = *state;
    assert_int_equal(open_text(e, "labels;path\nPneumonia;a.png\nEffusion;b.png\n", NULL, NULL), RADZ_OK);
    assert_int_equal(e->ds.n_train, 2);
    assert_int_equal(e->ds.n_val, 0);
    assert_true(rz_dataset_knows(&e->ds, &e->ds.rows[0], COVID)); /* no sets: everything was asked */
}

static void targets_are_uniform_over_the_labels(void **state)
{
    env *e = *state;
    assert_int_equal(open_text(e, manifest, label_map, NULL), RADZ_OK);
    size_t rows[] = {C, H, G};
    float t[3 * N_CLASSES];
    const float expected[] = {0, 0.5f, 0.5f, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    rz_dataset_targets(&e->ds, rows, 3, t);
    assert_memory_equal(t, expected, sizeof t);
}

static void same_words_are_no_negatives(void **state)
{
    env *e = *state;
    assert_int_equal(open_text(e, manifest, label_map, NULL), RADZ_OK);
    size_t rows[] = {B, F, C, J, H};
    float keep[25];
    const float expected[] = {1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1};
    rz_dataset_keep_pairs(&e->ds, rows, 5, keep);
    assert_memory_equal(keep, expected, sizeof keep);
}

static void sets_know_what_they_mention(void **state)
{
    env *e = *state;
    assert_int_equal(open_text(e, manifest, label_map, NULL), RADZ_OK);
    const rz_dataset *ds = &e->ds;
    size_t rows[] = {A, L, F, G, J};
    float keep[5 * N_CLASSES];
    const float expected[] = {
        1, 1, 0, 0, /* kids: normal or pneumonia */
        1, 1, 1, 0, /* nih: pneumonia, effusion; the reference always */
        1, 1, 1, 1, /* nothing but normal films: all else is absent */
        1, 0, 0, 1, /* covid only */
        1, 1, 1, 1, /* no set */
    };
    rz_dataset_keep_classes(ds, rows, 5, NONE, keep);
    assert_memory_equal(keep, expected, sizeof keep);
    const rz_row *val = &ds->rows[ds->n_train]; /* nih64 */
    assert_true(rz_dataset_knows(ds, val, EFFUSION));
    assert_false(rz_dataset_knows(ds, val, COVID));
    assert_false(rz_dataset_knows(ds, &ds->rows[F], PNEUMONIA)); /* for figures: not asked there */
}

static void bad_manifests_are_refused(void **state)
{
    env *e = *state;
    static const struct {
        const char *csv, *map;
        radz_status code;
        const char *says;
    } cases[] = {
        {"file,labels\na.png,Pneumonia\n", NULL, RADZ_E_FORMAT, "columns path and labels"},
        {"path,labels\na.png,Unheard of\n", NULL, RADZ_E_FORMAT, "no training row"},
        {"path,labels\na.png,Pneumonia\n,Pneumonia\n", NULL, RADZ_E_FORMAT, "index.csv:3: empty path"},
        {"path,labels\na.png,Pneumonia,x\n", NULL, RADZ_E_FORMAT, ""},
        {"path,labels\na.png,Pneumonia\n", "a,b\nx,y\n", RADZ_E_FORMAT, "columns from and to"},
        {"", NULL, RADZ_E_FORMAT, ""},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        radz_error err = {0};
        radz_status code = open_text(e, cases[i].csv, cases[i].map, &err);
        if (code != cases[i].code || !strstr(err.message, cases[i].says)) fail_msg("case %zu: %s", i, err.message);
        assert_null(e->ds.rows);
    }
}

static void long_paths_are_refused(void **state)
{
    env *e = *state;
    rz_str s = {0};
    radz_error err;
    rz_str_puts(&s, "path,labels\n");
    for (int i = 0; i < 500; i++) rz_str_puts(&s, "0123456789");
    rz_str_puts(&s, ",Pneumonia\n");
    assert_int_equal(open_text(e, s.data, NULL, &err), RADZ_E_LIMIT);
    assert_non_null(strstr(err.message, ":2: path longer"));
    rz_str_free(&s);
}

/* ---- Sampling ---- */

/* 64 rows of one label set, 4 of another. */
static void open_uneven(env *e)
{
    rz_str s = {0};
    rz_str_puts(&s, "path,labels,set\n");
    for (int i = 0; i < 68; i++) rz_str_printf(&s, "%d.png,%s,x\n", i, i < 64 ? "Pneumonia" : "Effusion");
    assert_int_equal(open_text(e, s.data, NULL, NULL), RADZ_OK);
    rz_str_free(&s);
}

static void count_draws(rz_sampler *s, int64_t first, size_t n, size_t counts[68])
{
    memset(counts, 0, 68 * sizeof *counts);
    for (size_t i = 0; i < n; i++) counts[rz_sampler_draw(s, first + (int64_t)i)]++;
}

static void unbalanced_epochs_show_every_row_once(void **state)
{
    env *e = *state;
    rz_sampler s;
    size_t counts[68];
    open_uneven(e);
    assert_int_equal(rz_sampler_init(NULL, &e->ds, false, NULL, 5, &s, NULL), RADZ_OK);
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        count_draws(&s, 68 * epoch, 68, counts);
        for (size_t i = 0; i < 68; i++) assert_int_equal(counts[i], 1);
    }
    rz_sampler_free(&s);
}

static void balanced_groups_weigh_their_root(void **state)
{
    env *e = *state;
    rz_sampler s;
    size_t counts[68], rare = 0;
    open_uneven(e);
    assert_int_equal(rz_sampler_init(NULL, &e->ds, true, NULL, 5, &s, NULL), RADZ_OK);
    count_draws(&s, 0, 68 * 100, counts);
    for (size_t i = 64; i < 68; i++) rare += counts[i];
    /* sqrt(4) : sqrt(64) = 2 : 8, so 1360 of 6800; every epoch is within one of its expectation per row */
    assert_in_range(rare, 1300, 1420);
    for (size_t i = 0; i < 64; i++) assert_in_range(counts[i], 50, 120);
    rz_sampler_free(&s);
}

static void sets_are_drawn_as_often_as_asked(void **state)
{
    env *e = *state;
    rz_sampler s;
    radz_error err;
    size_t counts[68];
    static const char csv[] = "path,labels,set\na,Pneumonia,nih64\nb,Pneumonia,nih512\nc,Pneumonia,nih512\n"
                              "d,Pneumonia,toy\ne,Pneumonia,toy\nf,Pneumonia,\n";
    assert_int_equal(open_text(e, csv, NULL, NULL), RADZ_OK);
    assert_int_equal(e->ds.n_train, 6);
    assert_int_equal(rz_sampler_init(NULL, &e->ds, false, "nih=2,nih64=3,toy=0", 5, &s, NULL), RADZ_OK);
    count_draws(&s, 0, 6 * 1100, counts); /* weights 6, 2, 2, 0, 0, 1 */
    const size_t want[] = {3600, 1200, 1200, 0, 0, 600};
    for (size_t i = 0; i < 6; i++) assert_in_range(counts[i] + 30, want[i], want[i] + 60);
    rz_sampler_free(&s);
    static const char *const wrong[] = {"nih", "nih=", "=2", "nih=x", "nih=-1", "nih=nan", "nih=2,", "hospital=2", ""};
    for (size_t i = 0; i < RZ_COUNT(wrong); i++)
        assert_int_equal(rz_sampler_init(NULL, &e->ds, false, wrong[i], 5, &s, &err), RADZ_E_ARGUMENT);
    assert_int_equal(rz_sampler_init(NULL, &e->ds, true, "nih=0,toy=0", 5, &s, &err), RADZ_OK);
    rz_sampler_free(&s);
}

static void draws_depend_on_nothing_but_their_number(void **state)
{
    env *e = *state;
    rz_sampler a, b;
    open_uneven(e);
    assert_int_equal(rz_sampler_init(NULL, &e->ds, true, NULL, 5, &a, NULL), RADZ_OK);
    assert_int_equal(rz_sampler_init(NULL, &e->ds, true, NULL, 5, &b, NULL), RADZ_OK);
    size_t order[200], differ = 0;
    for (int64_t i = 0; i < 200; i++) order[i] = rz_sampler_draw(&a, i);
    for (int64_t i = 199; i >= 0; i--) assert_int_equal(rz_sampler_draw(&b, i), order[i]);
    rz_sampler_free(&b);
    assert_int_equal(rz_sampler_init(NULL, &e->ds, true, NULL, 6, &b, NULL), RADZ_OK);
    for (int64_t i = 0; i < 200; i++) differ += rz_sampler_draw(&b, i) != order[i];
    assert_true(differ > 100);
    rz_sampler_free(&a);
    rz_sampler_free(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(reads_a_manifest),
        TEST(without_splits_all_rows_train),
        TEST(targets_are_uniform_over_the_labels),
        TEST(same_words_are_no_negatives),
        TEST(sets_know_what_they_mention),
        TEST(bad_manifests_are_refused),
        TEST(long_paths_are_refused),
        TEST(unbalanced_epochs_show_every_row_once),
        TEST(balanced_groups_weigh_their_root),
        TEST(sets_are_drawn_as_often_as_asked),
        TEST(draws_depend_on_nothing_but_their_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
