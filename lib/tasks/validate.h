/* validate.h - how well a model ranks the films of the validation split. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_VALIDATE_H
#define RZ_VALIDATE_H

#include "encode.h"
#include "films.h"

typedef struct rz_label_result {
    double auc; /* NaN: one outcome is missing */
    size_t n_pos, n_neg;
} rz_label_result;

typedef struct rz_validation {
    double monitored, macro; /* NaN where undefined */
    rz_label_result *labels; /* (n_classes), over all sets that know the class; owned by the caller */
} rz_validation;

typedef struct rz_validator {
    const rz_host *host;
    rz_films *films;
    const rz_prompt *image_prompt, *disease_prompts; /* disease_prompts: n_classes */
    const rz_prompt *class_texts; /* n_classes sentences: the score is the fused one; NULL: it is not */
    rz_item_kind class_kind;      /* of disease_prompts: RZ_ITEM_DISEASE, or RZ_ITEM_TEXT for sentences */
    int reference;                /* class that means "none of the others", or -1 */
    int monitor;                  /* class, or -1: macro AUC */
    size_t monitor_set;           /* set, or RZ_NO_SET: all */
    size_t batch;
    bool head; /* the model's linear head scores, not the descriptions */
} rz_validator;

/* Scores as radz_classify ranks: cos_c - cos_reference for a finding, the softmax share for the reference, where there
 * is none, and of the fused score. Films that cannot be read are left out. */
radz_status rz_validate(const rz_net *net, const rz_validator *v, rz_validation *out, radz_error *err) RZ_CHECK;
/* Its parts: scores (n_val, n_classes), a row of NaN where a film could not be read; all of them; one class on one set
 * (RZ_NO_SET: all). */
radz_status rz_validate_scores(const rz_net *net, const rz_validator *v, double *scores, radz_error *err) RZ_CHECK;
radz_status rz_validate_summary(const rz_validator *v, const double *scores, rz_validation *out,
                                radz_error *err) RZ_CHECK;
radz_status rz_validate_label(const rz_validator *v, const double *scores, size_t class_index, size_t set,
                              rz_label_result *out, radz_error *err) RZ_CHECK;

#endif
