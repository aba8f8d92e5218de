/* Public: the other rows of the paper's Table 1.
 * SPDX-License-Identifier: Apache-2.0 */
#include "handles.h"
#include "methods.h"

void radz_method_options_init_sized(radz_method_options *options, size_t struct_size)
{
    const radz_method_options defaults = rz_method_defaults();
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

radz_status radz_method_scores(radz_session *session, const radz_image *image, const char *const *labels, size_t n,
                               const radz_method_options *options, double *scores, char **text, radz_error *err)
{
    if (text) *text = NULL;
    for (size_t i = 0; scores && i < n; i++) scores[i] = NAN;
    RZ_LIVE(session);
    RZ_LIVE_OR_NULL(image);
    RZ_NEED(labels);
    RZ_NEED(scores);
    radz_method_options o = rz_method_defaults();
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    rz_str said = {.host = &session->model->runtime->host};
    radz_status status =
        rz_method_scores(&session->net, image ? &image->film : NULL, labels, n, &o, scores, &said, err);
    if (!status && text) return rz_text_out(said.host, &said, text, err);
    rz_str_free(&said);
    return status;
}
