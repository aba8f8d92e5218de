/* generate.h - the model writes: answers to questions, films included. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_GENERATE_H
#define RZ_GENERATE_H

#include "embed.h"

typedef struct rz_question {
    const rz_film *film; /* NULL: none */
    const char *text;
    const float *pixels; /* the film as the tower takes it, where it is at hand; film is NULL then */
    bool gray;           /* the first plane of them alone */
} rz_question;

radz_generate_options rz_generate_defaults(void);
/* n answers, each the text it would be alone; `answers` are empty strings with host set, which the caller frees
 * whatever happens. All run at once: memory grows with n. token_fn hears of the first. Each draws its own random
 * numbers, the same for all. */
radz_status rz_generate(const rz_net *net, const rz_question *questions, size_t n, const radz_generate_options *options,
                        rz_str *answers, radz_error *err) RZ_CHECK;

#endif
