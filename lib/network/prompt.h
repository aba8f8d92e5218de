/* prompt.h - films and texts to rows of ids. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_PROMPT_H
#define RZ_PROMPT_H

#include "model.h"

#define RZ_ID_IMAGE (-1) /* a place that an image row fills */

/* Ids: 0..vocab-1 a token, vocab..vocab+n_special-1 a special token, RZ_ID_IMAGE an image row. */
typedef struct rz_prompt {
    int32_t *ids;
    size_t n;
} rz_prompt;

/* A prompt put together from parts: zero-initialise with host and m set. */
typedef struct rz_prompt_list {
    const rz_host *host;
    const rz_model *m;
    rz_prompt p;
    size_t cap;
    bool training; /* as in training: rz_prompt_image_train */
} rz_prompt_list;
radz_status rz_prompt_put(rz_prompt_list *l, const int32_t *ids, size_t n, radz_error *err) RZ_CHECK;
/* Tokens of a text by itself; control tokens written in it are plain text. */
radz_status rz_prompt_put_text(rz_prompt_list *l, const char *text, size_t n, radz_error *err) RZ_CHECK;
radz_status rz_prompt_put_bos(rz_prompt_list *l, radz_error *err) RZ_CHECK;   /* where the tokenizer begins with one */
radz_status rz_prompt_put_image(rz_prompt_list *l, radz_error *err) RZ_CHECK; /* places of one film */
/* *out takes the ids; on failure (of what came before, too) they are freed. `what` begins the message when they are
 * more than the model takes. */
radz_status rz_prompt_finish(rz_prompt_list *l, radz_status status, const char *what, rz_prompt *out,
                             radz_error *err) RZ_CHECK;

/* The film's prompt of Eq. 1: radz.image_prompt with image_rows places for the image, then <ImgCls0..>. */
radz_status rz_prompt_image(const rz_host *host, const rz_model *m, rz_prompt *out, radz_error *err) RZ_CHECK;
/* The same with a prompt of the caller's, in which <image> stands once; NULL: the model's own. */
radz_status rz_prompt_image_as(const rz_host *host, const rz_model *m, const char *prompt, rz_prompt *out,
                               radz_error *err) RZ_CHECK;
/* As the films of a batch are asked: the same, but with special tokens where radz.append leaves them to training. */
radz_status rz_prompt_image_train(const rz_host *host, const rz_model *m, rz_prompt *out, radz_error *err) RZ_CHECK;
/* The text's prompt of Eq. 2: radz.text_prompt around `text`, then <TxtCls0..>. Longer than max_positions:
 * RADZ_E_LIMIT, never cut. */
radz_status rz_prompt_text(const rz_host *host, const rz_model *m, const char *text, rz_prompt *out,
                           radz_error *err) RZ_CHECK;
radz_status rz_prompt_text_train(const rz_host *host, const rz_model *m, const char *text, rz_prompt *out,
                                 radz_error *err) RZ_CHECK;
/* What stands for a disease: rz_prompt_text of its description or, with radz.anchors "embedding", its own tokens. */
radz_status rz_prompt_disease(const rz_host *host, const rz_model *m, const char *description, bool training,
                              rz_prompt *out, radz_error *err) RZ_CHECK;
/* Is row t of a prompt one of those whose mean is X_g (a film's) or Y_g? A special token or, with radz.rows "last", one
 * of as many at the end. */
bool rz_prompt_is_global(const rz_model *m, const rz_prompt *p, bool film, size_t t);
/* "This is a chest X-ray showing a, b." from n labels: radz.label_text. */
char *rz_prompt_label_text(const rz_host *host, const rz_model *m, const char *const *labels, size_t n);
void rz_prompt_free(const rz_host *host, rz_prompt *p);

#endif
