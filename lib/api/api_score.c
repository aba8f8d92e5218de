/* Public: scores.
 * SPDX-License-Identifier: Apache-2.0 */
#include "handles.h"
#include "scorer.h"

struct radz_scorer {
    rz_handle h;
    radz_runtime *runtime; /* held */
    rz_scorer *scorer;
};

void radz_score_options_init_sized(radz_score_options *options, size_t struct_size)
{
    const radz_score_options defaults = {.struct_size = sizeof defaults};
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

radz_status radz_scorer_open(radz_session *session, const radz_bank *bank, const radz_score_options *options,
                             radz_scorer **scorer, radz_error *err)
{
    if (scorer) *scorer = NULL;
    RZ_NEED(scorer);
    RZ_LIVE(session);
    RZ_LIVE_OR_NULL(bank);
    radz_score_options o;
    radz_score_options_init(&o);
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    const rz_bank *used;
    RZ_TRY(rz_session_bank(session, bank, &used, err));
    radz_runtime *rt = session->model->runtime;
    radz_scorer *s = rz_calloc(&rt->host, 1, sizeof *s);
    if (!s) return RZ_NO_MEMORY(err, "scorer");
    radz_status status = rz_scorer_open(&session->net, used, &o, &s->scorer, err);
    if (status) {
        rz_free(&rt->host, s);
        return status;
    }
    rz_handle_init(&s->h);
    rz_handle_hold(&rt->h);
    s->runtime = rt;
    *scorer = s;
    return RADZ_OK;
}

void radz_scorer_close(radz_scorer *scorer)
{
    if (!scorer || !rz_handle_drop(&scorer->h)) return;
    radz_runtime *rt = scorer->runtime;
    rz_scorer_close(scorer->scorer);
    rz_free(&rt->host, scorer);
    radz_runtime_close(rt);
}

size_t radz_scorer_count(const radz_scorer *scorer)
{
    return scorer ? scorer->scorer->n : 0;
}

const char *radz_scorer_label(const radz_scorer *scorer, size_t i)
{
    return i < radz_scorer_count(scorer) ? scorer->scorer->labels[i] : NULL;
}

double radz_scorer_threshold(const radz_scorer *scorer, size_t i)
{
    return i < radz_scorer_count(scorer) && scorer->scorer->calibrators ? scorer->scorer->calibrators[i].threshold
                                                                        : NAN;
}

static radz_status score(const rz_scorer *s, const float *global, const float *local, size_t n, double *similarity,
                         double *probability, radz_error *err)
{
    rz_score *out = rz_calloc(s->host, s->n, sizeof *out);
    radz_status status = out ? RADZ_OK : RZ_NO_MEMORY(err, "scores");
    for (size_t i = 0; i < n && !status; i++) {
        status = rz_scorer_film(s, global ? global + i * s->dim : NULL, local ? local + i * s->dim : NULL, out, err);
        for (size_t c = 0; c < s->n && !status; c++) {
            if (similarity) similarity[i * s->n + c] = out[c].similarity;
            if (probability) probability[i * s->n + c] = out[c].probability;
        }
    }
    rz_free(s->host, out);
    return status;
}

radz_status radz_scorer_score(const radz_scorer *scorer, const float *global, const float *local, size_t n,
                              double *similarity, double *probability, radz_error *err)
{
    const size_t n_out = n * radz_scorer_count(scorer);
    for (size_t i = 0; similarity && i < n_out; i++) similarity[i] = NAN;
    for (size_t i = 0; probability && i < n_out; i++) probability[i] = NAN;
    RZ_LIVE(scorer);
    const rz_scorer *s = scorer->scorer;
    if (!n) return RADZ_OK;
    if (rz_scorer_needs_global(s)) RZ_NEED(global);
    if (rz_scorer_needs_local(s)) RZ_NEED(local);
    radz_status status = score(s, global, local, n, similarity, probability, err);
    for (size_t i = 0; status && similarity && i < n_out; i++) similarity[i] = NAN;
    for (size_t i = 0; status && probability && i < n_out; i++) probability[i] = NAN;
    return status;
}
