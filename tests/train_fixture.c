/* train_fixture.c - a data set to train on: bright films are ill, dark ones are well. SPDX-License-Identifier:
 * Apache-2.0 */
#include "train_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>
#include <png.h>

#include "fixture.h"

void train_env_film(const char *path, bool bright, uint64_t seed)
{
    uint8_t pixels[TRAIN_SIDE * TRAIN_SIDE];
    rz_rng rng;
    rz_rng_seed(&rng, seed, 1);
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)((bright ? 170 : 40) + rz_rng_below(&rng, 50));
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = TRAIN_SIDE, .height = TRAIN_SIDE, .format = PNG_FORMAT_GRAY};
    assert_true(png_image_write_to_file(&image, path, 0, pixels, TRAIN_SIDE, NULL));
}

static char *keep_path(const train_env *e, const char *name)
{
    char *path = strdup(fixture_path(e->dir, name));
    assert_non_null(path);
    return path;
}

void train_env_open(train_env *e)
{
    memset(e, 0, sizeof *e);
    e->dir = fixture_temp_dir();
    e->model = keep_path(e, "model"), e->manifest = keep_path(e, "index.csv");
    e->diseases = keep_path(e, "diseases.txt"), e->label_map = keep_path(e, "map.csv");
    assert_int_equal(mkdir(e->model, 0777), 0);
    fixture_model_files(e->model); /* no weights: the trainer makes them */
    rz_str s = {0};
    rz_str_puts(&s, "path,labels,split,set\n");
    for (int i = 0; i < TRAIN_FILMS; i++) {
        char name[32];
        snprintf(name, sizeof name, "film%d.png", i);
        train_env_film(fixture_path(e->dir, name), i % 2, (uint64_t)i);
        rz_str_printf(&s, "%s,%s,%s,toy\n", name, i % 2 ? "Ill" : "Normal", i < 16 ? "train" : "val");
    }
    fixture_write_text(e->manifest, s.data);
    rz_str_free(&s);
    fixture_write_text(e->label_map, "from,to\nNormal,No Finding\n");
    fixture_write_text(e->diseases, "No Finding: a dark film, nothing to see\nIll: a bright film, shadows all over\n");
    radz_train_options_init(&e->o);
    e->o.model_dir = e->model, e->o.manifest = e->manifest, e->o.diseases = e->diseases, e->o.label_map = e->label_map;
    e->o.out_dir = keep_path(e, "out");
    e->o.epochs = 6, e->o.batch_size = 8, e->o.lr = 5e-3, e->o.seed = 3;
}

void train_env_close(train_env *e)
{
    fixture_remove(e->dir);
    free((char *)(uintptr_t)e->o.out_dir);
    char *const parts[] = {e->dir, e->model, e->manifest, e->diseases, e->label_map};
    for (size_t i = 0; i < RZ_COUNT(parts); i++) free(parts[i]);
}
