/* scorer.h - film vectors to one similarity, margin and probability per class, by any of the scores of the papers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_SCORER_H
#define RZ_SCORER_H

#include "embed.h"
#include "score.h"

/* Similarities that come from elsewhere, for radz_evaluate alone: values of radz_score_kind that nobody else may use.
 */
enum {
    RZ_SCORE_LIKELIHOOD = RADZ_SCORE_HIDDEN + 1, /* log-probability of a class's name */
    RZ_SCORE_LIKELIHOOD_MEAN,                    /* the same, mean over its tokens */
    RZ_SCORE_OPTIONS,                            /* 1: the answer names the class */
    RZ_SCORE_COT,
    RZ_SCORE_HEAD, /* logit of the linear head */
    RZ_SCORE_KINDS
};

typedef struct rz_scorer {
    const rz_host *host;
    unsigned kind; /* radz_score_kind, or one of those above */
    radz_score_feature feature;
    radz_score_classes classes; /* never AUTO */
    double tau;
    size_t n, dim;    /* classes; floats of a film's vector */
    size_t reference; /* n: none */
    char **labels;
    float *anchors;             /* (n, dim); IMG_ANCHOR, FUSED */
    float *texts, *negatives;   /* (n, dim); all but IMG_ANCHOR; POS_NEG only */
    double *text_anchors;       /* (n, n) cosines of text c with anchor d; FUSED */
    rz_calibrator *calibrators; /* (n); NULL: none */
    rz_calibration_kind calibration;
    char **templates, **negative_templates; /* as used */
    size_t n_templates, n_negatives;
    char model_hash[65], bank_hash[65]; /* whatever precision; of the bank without its own calibration */
} rz_scorer;

radz_status rz_scorer_open(const rz_net *net, const rz_bank *bank, const radz_score_options *options, rz_scorer **out,
                           radz_error *err) RZ_CHECK;
/* For kinds from LIKELIHOOD on: no anchors, no texts, tau 1. Of options, classes and calibration are read. */
radz_status rz_scorer_open_given(const rz_net *net, const rz_bank *bank, unsigned kind,
                                 const radz_score_options *options, rz_scorer **out, radz_error *err) RZ_CHECK;
void rz_scorer_close(rz_scorer *s);
void rz_scorer_uncalibrate(rz_scorer *s); /* for who fits another calibration */
bool rz_scorer_needs_local(const rz_scorer *s);
bool rz_scorer_needs_global(const rz_scorer *s);
/* One film; the vector that the feature does not need may be NULL. out (n), in bank order. Changes nothing in s.
 * similarity: cosine; FUSED: mean product of cosines; POS_NEG: difference of cosines. */
radz_status rz_scorer_film(const rz_scorer *s, const float *global, const float *local, rz_score *out,
                           radz_error *err) RZ_CHECK;
/* The same from out[].similarity, which the caller has filled. */
radz_status rz_scorer_given(const rz_scorer *s, rz_score *out, radz_error *err) RZ_CHECK;

static inline bool rz_score_is_answer(unsigned kind)
{
    return kind == RZ_SCORE_OPTIONS || kind == RZ_SCORE_COT;
}
const char *rz_score_name(unsigned kind);                /* "img_anchor"; NULL: there is none */
const char *rz_feature_name(radz_score_feature feature); /* "global" */
const char *rz_classes_name(radz_score_classes classes); /* "reference" */

/* The file radz.calibration/1: what was fitted, for which model, bank and score. source: hash of the manifest whose
 * films it was fitted on; films: the same in words; rule: how thresholds were chosen. */
void rz_calibration_put_json(rz_str *out, const rz_scorer *s, const char *source, const char *films, const char *rule);
radz_status rz_calibration_load(rz_scorer *s, const char *path, radz_error *err) RZ_CHECK;
/* The same from its text; `what` is how errors call it. */
radz_status rz_calibration_parse(rz_scorer *s, const char *text, const char *what, radz_error *err) RZ_CHECK;
radz_status rz_calibration_take(rz_scorer *s, const json_t *o, const char *what, radz_error *err) RZ_CHECK;

#endif
