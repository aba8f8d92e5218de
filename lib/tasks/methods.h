/* methods.h - what a model says of a film without vectors of its own: the other rows of the paper's Table 1.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_METHODS_H
#define RZ_METHODS_H

#include "embed.h"

radz_method_options rz_method_defaults(void);
/* scores (n). text: what the model wrote, "" for methods that write nothing; an empty string with host set, which the
 * caller frees whatever happens. film NULL: none, not for HIDDEN. */
radz_status rz_method_scores(const rz_net *net, const rz_film *film, const char *const *labels, size_t n,
                             const radz_method_options *options, double *scores, rz_str *text,
                             radz_error *err) RZ_CHECK;
/* The same for a film as the tower takes it (pixels NULL: none), all methods but HIDDEN. n_tokens: NULL, or room for
 * the tokens (n) that LIKELIHOOD's sums are over. */
radz_status rz_method_scores_pixels(const rz_net *net, const rz_item *film, const char *const *labels, size_t n,
                                    const radz_method_options *options, double *scores, size_t *n_tokens, rz_str *text,
                                    radz_error *err) RZ_CHECK;
/* The question that is asked, "{classes}" for their names; the words before a name: as options say, or ours. */
const char *rz_method_question(const radz_method_options *options);
const char *rz_method_prefix(const radz_method_options *options);
int rz_method_max_tokens(const radz_method_options *options); /* of an answer; 0: the method writes none */
/* sums[i]: log-probability of all tokens of answers[i] behind `shared`, which runs once. Answers have no film. */
radz_status rz_answer_likelihoods(const rz_net *net, const rz_item *shared, const rz_prompt *answers, size_t n,
                                  double *sums, radz_error *err) RZ_CHECK;
/* found[i]: labels[i] is named in text: whole words, whatever the case, '_' for a space; what a longer name takes is
 * gone for a shorter one in it. */
radz_status rz_find_names(const rz_host *host, const char *text, const char *const *labels, size_t n, double *found,
                          radz_error *err) RZ_CHECK;

#endif
