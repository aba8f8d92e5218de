/* result.h - what is said about one film, and its JSON line "radz.result/1".
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_RESULT_H
#define RZ_RESULT_H

#include "embed.h"
#include "score.h"

#define RZ_RESULT_SCHEMA "radz.result/1"

/* Needs nothing but its host once made. */
typedef struct rz_result {
    const rz_host *host;
    size_t n;
    rz_score *scores; /* best first */
    char **labels;    /* in the order of scores */
    char *path;       /* NULL: from memory */
    char sha256[65];
    size_t width_px, height_px;
    char *provenance; /* a JSON object */
    char **warnings;
    size_t n_warnings;
} rz_result;

/* Scores n films in one batch, with the model's linear head where bank is NULL; results are all set or, on failure, all
 * NULL. model_name goes into the provenance. */
radz_status rz_classify(const rz_net *net, const char *model_name, const rz_bank *bank, const rz_film *const *films,
                        size_t n, rz_result **results, radz_error *err) RZ_CHECK;
void rz_result_free(rz_result *r);
/* One line without the newline, appended to s; path NULL: the result's own. */
void rz_result_put_json(rz_str *s, const rz_result *r, const char *path);
/* How films become pixels: an object. */
void rz_preprocess_put_json(rz_str *s, const rz_config *cfg);
void rz_error_put_json(rz_str *s, const radz_error *error, const char *path);

#endif
