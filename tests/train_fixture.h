/* train_fixture.h - a data set to train on: bright films are ill, dark ones are well. SPDX-License-Identifier:
 * Apache-2.0 */
#ifndef TRAIN_FIXTURE_H
#define TRAIN_FIXTURE_H

#include "trainer.h"

enum { TRAIN_FILMS = 24, TRAIN_SIDE = 16 };

/* Everything of a run in one temporary folder. */
typedef struct train_env {
    char *dir, *model, *manifest, *diseases, *label_map;
    radz_train_options o; /* epochs 6, batch 8: 12 steps of 16 training films; 8 for validation */
} train_env;

void train_env_open(train_env *e);
void train_env_close(train_env *e);
/* A PNG of TRAIN_SIDE x TRAIN_SIDE pixels. */
void train_env_film(const char *path, bool bright, uint64_t seed);

#endif
