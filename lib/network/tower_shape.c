/* tower_shape.c - LLaVA's own layout names its tower and does not describe it: the sizes from the tensors.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tower_shape.h"

#include <stdio.h>

#include "weights.h"

#define ROOT "vision_tower.vision_model."
#define HEAD_DIM 64 /* of every CLIP vision transformer */
#define MAX_LAYERS 1024
#define MAX_SIDE 8192

/* The tensor when it has n dimensions, none of them larger than any network's. */
static const rz_st_tensor *tensor(rz_weights *w, const char *name, size_t n)
{
    const rz_st_tensor *t = rz_weights_find(w, name);
    if (!t || t->n_dims != n) return NULL;
    for (size_t i = 0; i < n; i++)
        if (!t->dims[i] || t->dims[i] > 1u << 24) return NULL;
    return t;
}

static size_t count_layers(rz_weights *w)
{
    size_t n = 0;
    for (; n < MAX_LAYERS; n++) {
        char name[100];
        snprintf(name, sizeof name, ROOT "encoder.layers.%zu.layer_norm1.weight", n);
        if (!rz_weights_find(w, name)) break;
    }
    return n;
}

static radz_status read_sizes(rz_weights *w, const char *dir, rz_vision_config *v, radz_error *err)
{
    const rz_st_tensor *patch = tensor(w, ROOT "embeddings.patch_embedding.weight", 4),
                       *rows = tensor(w, ROOT "embeddings.position_embedding.weight", 2),
                       *fc1 = tensor(w, ROOT "encoder.layers.0.mlp.fc1.weight", 2);
    const size_t layers = count_layers(w);
    size_t side = 0;
    while (rows && side < MAX_SIDE && side * side + 1 < rows->dims[0]) side++;
    if (!patch || !rows || !fc1 || !layers || !side || side * side + 1 != rows->dims[0] ||
        patch->dims[2] != patch->dims[3] || patch->dims[2] > MAX_SIDE / side || patch->dims[1] != 3)
        return rz_fail(err, RADZ_E_MISMATCH,
                       "%s: the vision tower's tensors are not those of a CLIP model; expected vision_config", dir);
    if (patch->dims[0] % HEAD_DIM)
        return rz_fail(err, RADZ_E_MISMATCH,
                       "%s: a vision tower %zu wide is no multiple of CLIP's %d per head; expected vision_config", dir,
                       (size_t)patch->dims[0], HEAD_DIM);
    v->hidden = patch->dims[0], v->heads = v->hidden / HEAD_DIM;
    v->intermediate = fc1->dims[0], v->layers = layers;
    v->patch = patch->dims[2], v->image_size = side * v->patch;
    v->channels = 3, v->eps = 1e-5f, v->act = RZ_ACT_QUICK_GELU;
    return RADZ_OK;
}

radz_status rz_tower_shape(const rz_host *host, const char *dir, rz_vision_config *v, radz_error *err)
{
    rz_weights *w = NULL;
    bool there = false;
    RZ_TRY(rz_weights_there(host, dir, &there, err));
    if (!there) return RADZ_OK;
    RZ_TRY(rz_weights_open(host, dir, RZ_FILE_MAP, &w, err));
    radz_status status = RADZ_OK;
    if (rz_weights_find(w, ROOT "embeddings.class_embedding")) status = read_sizes(w, dir, v, err);
    rz_weights_close(w);
    return status;
}
