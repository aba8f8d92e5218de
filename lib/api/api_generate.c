/* Public: writing.
 * SPDX-License-Identifier: Apache-2.0 */
#include "generate.h"
#include "handles.h"

void radz_generate_options_init_sized(radz_generate_options *options, size_t struct_size)
{
    const radz_generate_options defaults = rz_generate_defaults();
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

radz_status radz_generate(radz_session *session, const radz_image *image, const char *prompt,
                          const radz_generate_options *options, char **text, radz_error *err)
{
    if (text) *text = NULL;
    RZ_NEED(text);
    RZ_LIVE(session);
    RZ_LIVE_OR_NULL(image);
    RZ_NEED(prompt);
    radz_generate_options o = rz_generate_defaults();
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    const rz_question question = {.film = image ? &image->film : NULL, .text = prompt};
    rz_str answer = {.host = &session->model->runtime->host};
    radz_status status = rz_generate(&session->net, &question, 1, &o, &answer, err);
    if (!status) return rz_text_out(answer.host, &answer, text, err);
    rz_str_free(&answer);
    return status;
}
