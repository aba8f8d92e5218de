/* Public: a model with other weights.
 * SPDX-License-Identifier: Apache-2.0 */
#include "handles.h"
#include "precision.h"
#include "quantize.h"

void radz_quantize_options_init_sized(radz_quantize_options *options, size_t struct_size)
{
    const radz_quantize_options defaults = {.struct_size = sizeof defaults, .type = "int8"};
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

static radz_status check_list(const char *name, const char *const *list, size_t n, radz_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!list || !list[i]) return rz_fail(err, RADZ_E_ARGUMENT, "radz_model_quantize: %s[%zu] is NULL", name, i);
    return RADZ_OK;
}

/* On the CPU, where the files' weights are read in place. */
static radz_status quantize(radz_runtime *rt, const char *from, const char *to, const radz_quantize_options *o,
                            radz_error *err)
{
    rz_quantize q = {.vision_dir = o->vision_dir, .adapter_dir = o->adapter_dir};
    RZ_TRY(check_list("films", o->films, o->n_films, err));
    RZ_TRY(check_list("texts", o->texts, o->n_texts, err));
    q.films = o->films, q.n_films = o->n_films, q.texts = o->texts, q.n_texts = o->n_texts;
    RZ_TRY(rz_tower_source_of(o->vision_source, "radz_model_quantize", &q.tower, err));
    RZ_TRY(rz_precision_parse(o->type && *o->type ? o->type : "int8", 0, o->keep, &q.precision, err));
    if (q.precision.type == RZ_WEIGHTS_F32)
        return rz_fail(err, RADZ_E_ARGUMENT, "radz_model_quantize: type: expected int8, int4 or bf16, got f32");
    q.progress_fn = o->progress_fn, q.user = o->user;
    rz_device *cpu;
    RZ_TRY(rz_runtime_cpu(rt, &cpu, err));
    return rz_quantize_model(&rt->host, cpu, from, to, &q, err);
}

radz_status radz_model_quantize(radz_runtime *runtime, const char *from, const char *to,
                                const radz_quantize_options *options, radz_error *err)
{
    RZ_NEED(from);
    RZ_NEED(to);
    RZ_LIVE_OR_NULL(runtime);
    radz_quantize_options o;
    radz_quantize_options_init(&o);
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    radz_runtime *rt = NULL;
    RZ_TRY(rz_runtime_share(runtime, &rt, err));
    const radz_status status = quantize(rt, from, to, &o, err);
    radz_runtime_close(rt);
    return status;
}
