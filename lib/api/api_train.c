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
        .keep = "best",
        .film_cache_bytes = INT64_C(1) << 30,
    };
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

static radz_status open_on_any(radz_runtime *rt, const radz_train_options *o, rz_trainer **trainer, radz_error *err)
{
    rz_device *cpu;
    radz_error why = {0};
    radz_status status = rz_trainer_open(&rt->host, rt->dev, o, trainer, &why);
    if (status == RADZ_E_MEMORY && rz_runtime_fall_back(rt, why.message, &cpu))
        status = rz_trainer_open(&rt->host, cpu, o, trainer, &why);
    if (status && err) *err = why;
    return status;
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
    if (!status) status = open_on_any(rt, &o, &t->trainer, err);
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

radz_status radz_train_options_preset(radz_train_options *options, const char *name, radz_error *err)
{
    RZ_NEED(options);
    RZ_NEED(name);
    radz_train_options o, paper;
    radz_train_options_init(&o);
    radz_train_options_init(&paper);
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    bool refcode = strcmp(name, "refcode") == 0;
    if (!refcode && strcmp(name, "paper") != 0)
        return rz_fail(err, RADZ_E_ARGUMENT, "preset '%s': expected paper or refcode", name);
    o.epochs = paper.epochs, o.batch_size = paper.batch_size;
    o.accumulate = refcode ? 2 : paper.accumulate; /* two GPUs, negatives within each one only */
    o.lr = paper.lr, o.weight_decay = paper.weight_decay, o.warmup_fraction = paper.warmup_fraction;
    o.lambda = paper.lambda, o.features = paper.features, o.learn_tau = paper.learn_tau;
    o.tau = refcode ? 0.05 : paper.tau;
    o.targets = refcode ? "batch_index" : paper.targets;
    o.vectors = refcode ? "refcode" : "paper";
    o.mask_false_negatives = o.balance_sets = o.augment = !refcode;
    o.lora_rank = refcode ? 128 : paper.lora_rank;
    o.ema = paper.ema, o.drop_path = paper.drop_path, o.set_weights = paper.set_weights;
    o.lora_alpha = paper.lora_alpha, o.lora_dropout = paper.lora_dropout, o.lora_rslora = paper.lora_rslora;
    rz_options_give(options, options->struct_size, &o, sizeof o);
    return RADZ_OK;
}

radz_status radz_trainer_plan(radz_trainer *trainer, int measure, radz_train_plan *plan, radz_error *err)
{
    RZ_LIVE(trainer);
    RZ_NEED(plan);
    RZ_TRY(rz_struct_size_check(plan->struct_size, __func__, "plan", err));
    radz_train_plan p;
    RZ_TRY(rz_trainer_plan(trainer->trainer, measure != 0, &p, err));
    rz_options_give(plan, plan->struct_size, &p, sizeof p);
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
