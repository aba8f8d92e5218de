/* Public: evaluation.
 * SPDX-License-Identifier: Apache-2.0 */
#include "eval.h"
#include "handles.h"

enum { MAX_OTHERS = 99 };

void radz_eval_options_init_sized(radz_eval_options *options, size_t struct_size)
{
    const radz_eval_options defaults = {.struct_size = sizeof defaults,
                                        .validation_split = "val",
                                        .methods = "embed",
                                        .score = {.struct_size = sizeof defaults.score},
                                        .threshold = "validation",
                                        .fixed_threshold = 0.5,
                                        .calibrate = "none",
                                        .uncertain = "ignore",
                                        .n_bins = 10,
                                        .n_rounds = 1000,
                                        .confidence = 0.95,
                                        .n_tsne = 1000,
                                        .n_examples = 3,
                                        .n_box_steps = 10};
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

/* The published protocol: one softmax over all classes, thresholds from the test films. */
static void like_the_paper(radz_eval_options *o, const char *methods)
{
    o->score.score = RADZ_SCORE_IMG_TEXT;
    o->score.classes = RADZ_CLASSES_EXCLUSIVE;
    o->score.tau = 0.05;
    o->threshold = "test-max-f1";
    o->macro_reference = 1;
    o->leave_out = 1;
    o->methods = methods;
}

static void like_medklip(radz_eval_options *o)
{
    o->score.score = RADZ_SCORE_POS_NEG;
    o->threshold = "test-max-f1";
    o->strict = 1;
}

static void like_chexzero(radz_eval_options *o)
{
    static const char *const positive[] = {"{c}"}, *const negative[] = {"no {c}"};
    o->score.score = RADZ_SCORE_POS_NEG;
    o->score.tau = 1;
    o->score.templates = positive, o->score.n_templates = 1;
    o->score.negatives = negative, o->score.n_negatives = 1;
    o->n_rounds = 1000;
}

radz_status radz_eval_options_preset(radz_eval_options *options, const char *name, radz_error *err)
{
    RZ_NEED(options);
    RZ_NEED(name);
    radz_eval_options o;
    radz_eval_options_init(&o);
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    if (strcmp(name, "paper-table1") == 0)
        like_the_paper(&o, "options,cot,likelihood,likelihood_mean,hidden,img_text,img_anchor,fused");
    else if (strcmp(name, "paper-table2") == 0)
        like_the_paper(&o, "img_text,img_anchor,fused");
    else if (strcmp(name, "paper-table3") == 0)
        like_the_paper(&o, "head,img_text");
    else if (strcmp(name, "medklip") == 0)
        like_medklip(&o);
    else if (strcmp(name, "chexzero") == 0)
        like_chexzero(&o);
    else
        return rz_fail(err, RADZ_E_ARGUMENT,
                       "preset '%s': expected paper-table1, paper-table2, paper-table3, medklip or chexzero", name);
    rz_options_give(options, options->struct_size, &o, sizeof o);
    return RADZ_OK;
}

static radz_status check_options(const radz_eval_options *o, radz_error *err)
{
    if (!o->manifest || !o->out_dir) return rz_fail(err, RADZ_E_ARGUMENT, "radz_evaluate: manifest or out_dir is NULL");
    if (!o->methods || !o->threshold || !o->calibrate || !o->uncertain || !o->validation_split)
        return rz_fail(err, RADZ_E_ARGUMENT,
                       "radz_evaluate: methods, threshold, calibrate, uncertain or "
                       "validation_split is NULL");
    if (strcmp(o->uncertain, "ignore") && strcmp(o->uncertain, "positive") && strcmp(o->uncertain, "negative"))
        return rz_fail(err, RADZ_E_ARGUMENT, "uncertain: '%s': expected ignore, positive or negative", o->uncertain);
    if (o->n_bins < 1 || o->n_bins > 1000)
        return rz_fail(err, RADZ_E_ARGUMENT, "n_bins: expected 1..1000, got %zu", o->n_bins);
    if (o->n_rounds > 1000000 || !(o->confidence > 0 && o->confidence < 1))
        return rz_fail(err, RADZ_E_ARGUMENT, "bootstrap: at most 1000000 rounds, confidence between 0 and 1");
    if (o->n_tsne > 1000 || o->n_examples > 100)
        return rz_fail(err, RADZ_E_ARGUMENT, "at most 1000 points and 100 examples");
    if (o->leave_out != 0 && o->leave_out != 1) return rz_fail(err, RADZ_E_ARGUMENT, "leave_out: expected 0 or 1");
    if (o->no_heatmaps != 0 && o->no_heatmaps != 1)
        return rz_fail(err, RADZ_E_ARGUMENT, "no_heatmaps: expected 0 or 1");
    if (o->n_others > MAX_OTHERS || (o->n_others && !o->others))
        return rz_fail(err, RADZ_E_ARGUMENT, "others: expected at most %d models", MAX_OTHERS);
    return RADZ_OK;
}

/* The caller's options with everything filled in that an older header lacks. */
static radz_status take_writing(const radz_eval_options *o, radz_method_options *writing, radz_error *err)
{
    *writing = rz_method_defaults();
    return o->writing ? rz_options_take(writing, sizeof *writing, o->writing, "radz_evaluate: writing", err) : RADZ_OK;
}

static radz_status take_model(radz_session *session, const radz_bank *bank, const char *name, rz_eval_model *out,
                              radz_error *err)
{
    const rz_bank *used;
    RZ_TRY(rz_session_bank(session, bank, &used, err));
    *out = (rz_eval_model){&session->net, used, name && *name ? name : session->model->name};
    return RADZ_OK;
}

static radz_status take_others(const radz_session *first, const radz_eval_options *o, rz_eval_model *out,
                               radz_error *err)
{
    for (size_t i = 0; i < o->n_others; i++) {
        radz_session *session = o->others[i].session;
        const radz_bank *bank = o->others[i].bank;
        RZ_LIVE(session);
        RZ_LIVE_OR_NULL(bank);
        bool twice = session == first;
        for (size_t k = 0; k < i; k++) twice = twice || session == o->others[k].session;
        if (twice) return rz_fail(err, RADZ_E_ARGUMENT, "radz_evaluate: others[%zu]: this session comes twice", i);
        RZ_TRY(take_model(session, bank, o->others[i].name, &out[i], err));
    }
    return RADZ_OK;
}

radz_status radz_evaluate(radz_session *session, const radz_bank *bank, const radz_eval_options *options,
                          radz_error *err)
{
    RZ_LIVE(session);
    RZ_LIVE_OR_NULL(bank);
    RZ_NEED(options);
    radz_eval_options o;
    radz_eval_options_init(&o);
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    RZ_TRY(check_options(&o, err));
    radz_method_options writing;
    RZ_TRY(take_writing(&o, &writing, err));
    o.writing = &writing;
    const rz_host *host = &session->model->runtime->host;
    rz_eval_model *models = rz_calloc(host, o.n_others + 1, sizeof *models);
    if (!models) return RZ_NO_MEMORY(err, "models");
    radz_status status = take_model(session, bank, o.name, &models[0], err);
    if (status == RADZ_OK) status = take_others(session, &o, models + 1, err);
    if (status == RADZ_OK) status = rz_evaluate(models, o.n_others + 1, &o, err);
    rz_free(host, models);
    return status;
}
