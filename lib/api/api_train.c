/* Public: training.
 * SPDX-License-Identifier: Apache-2.0 */
#include "handles.h"
#include "train.h"

struct radz_trainer {
    rz_handle h;
    radz_runtime *runtime; /* held */
    rz_trainer *trainer;
};

void radz_train_options_init_sized(radz_train_options *options, size_t struct_size)
{
    const radz_train_options defaults = {
        .struct_size = sizeof defaults,
        .epochs = 2,
        .batch_size = 64,
        .lr = 2e-5,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .warmup_fraction = 0.03,
        .clip_norm = 1.0,
        .lambda = 0.5,
        .mask_false_negatives = 1,
        .balance_sets = 1,
        .augment = 1,
        .dtype = "f32",
        .objective = "radz",
        .lora_rank = -1,
        .lora_alpha = 256,
        .lora_dropout = 0.05,
        .label_fraction = 1,
        .features = "cross",
        .targets = "labels",
        .accumulate = 1,
        .weights = "f32",
    };
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

radz_status radz_trainer_open(radz_runtime *runtime, const radz_train_options *options, radz_trainer **trainer,
                              radz_error *err)
{
    if (trainer) *trainer = NULL;
    RZ_NEED(trainer);
    RZ_NEED(options);
    RZ_LIVE_OR_NULL(runtime);
    radz_train_options o;
    radz_train_options_init(&o);
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    radz_runtime *rt = NULL;
    RZ_TRY(rz_runtime_share(runtime, &rt, err));
    radz_trainer *t = rz_calloc(&rt->host, 1, sizeof *t);
    radz_status status = t ? RADZ_OK : RZ_NO_MEMORY(err, "trainer");
    if (!status) status = rz_trainer_open(&rt->host, rt->dev, &o, &t->trainer, err);
    if (status) {
        rz_free(&rt->host, t);
        radz_runtime_close(rt);
        return status;
    }
    rz_handle_init(&t->h);
    t->runtime = rt;
    *trainer = t;
    return RADZ_OK;
}

radz_status radz_trainer_run(radz_trainer *trainer, radz_error *err)
{
    RZ_LIVE(trainer);
    return rz_trainer_run(trainer->trainer, err);
}

void radz_trainer_close(radz_trainer *trainer)
{
    if (!trainer || !rz_handle_drop(&trainer->h)) return;
    radz_runtime *rt = trainer->runtime;
    rz_trainer_close(trainer->trainer);
    rz_free(&rt->host, trainer);
    radz_runtime_close(rt);
}
