/* chat.h - chat templates: how a model of a family was taught to be asked. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_CHAT_H
#define RZ_CHAT_H

#include "prompt.h"

typedef struct rz_chat {
    const char *name;   /* of the template; NULL or "auto": what fits the model */
    const char *system; /* NULL or "": none */
    const char *text;   /* with a film: "<image>" says where it goes, else it comes first */
    bool film;
} rz_chat;

/* The prompt, ready for an answer, and the token that ends one besides the model's own; -1: none. A name that is not
 * known, or a template whose tokens the model lacks, is RADZ_E_ARGUMENT. */
radz_status rz_chat_prompt(const rz_model *m, const rz_chat *chat, rz_prompt *out, int32_t *end,
                           radz_error *err) RZ_CHECK;

/* The same with an answer behind it, tokenised apart, and the token that ends it. *n_answer: ids of both. */
radz_status rz_chat_answer(const rz_model *m, const rz_chat *chat, const char *answer, rz_prompt *out, size_t *n_answer,
                           radz_error *err) RZ_CHECK;

#endif
