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

/* The film's prompt of Eq. 1: radz.image_prompt with image_rows places for the image, then <ImgCls0..>. */
radz_status rz_prompt_image(const rz_host *host, const rz_model *m, rz_prompt *out, radz_error *err) RZ_CHECK;
/* The text's prompt of Eq. 2: radz.text_prompt around `text`, then <TxtCls0..>. Longer than max_positions:
 * RADZ_E_LIMIT, never cut. */
radz_status rz_prompt_text(const rz_host *host, const rz_model *m, const char *text, rz_prompt *out,
                           radz_error *err) RZ_CHECK;
/* "This is a chest X-ray showing a, b." from n labels: radz.label_text. */
char *rz_prompt_label_text(const rz_host *host, const rz_model *m, const char *const *labels, size_t n);
void rz_prompt_free(const rz_host *host, rz_prompt *p);

#endif
