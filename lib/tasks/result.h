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
    char *model_name;
    char model_hash[65], bank_hash[65]; /* bank_hash "": the linear head */
    char *provenance;                   /* a JSON object */
    char **warnings;
    size_t n_warnings;
} rz_result;

/* Scores n films in one batch, with the model's linear head where bank is NULL; results are all set or, on failure, all
 * NULL. model_name goes into the provenance. */
radz_status rz_classify(const rz_net *net, const char *model_name, const rz_bank *bank, const rz_film *const *films,
                        size_t n, rz_result **results, radz_error *err) RZ_CHECK;
/* What films are scored with. */
typedef struct rz_classifier {
    const rz_net *net;
    const char *model_name;
    const rz_bank *bank; /* NULL: the model's linear head */
    bool strict;         /* films that their own file speaks against are refused */
} rz_classifier;
/* Called for each film in the order of the paths: its result, which is the callee's, or NULL and why. Non-zero stops
 * with RADZ_E_CANCELLED. The stream of the net is free meanwhile. */
typedef int (*rz_result_fn)(size_t i, rz_result *result, const radz_error *why, void *user);
/* Reads ahead on one thread more, with the pool's help; results have the bits they have alone. A film that fails stops
 * nothing. */
radz_status rz_classify_files(const rz_classifier *by, const char *const *paths, size_t n, rz_result_fn fn, void *user,
                              radz_error *err) RZ_CHECK;
void rz_result_free(rz_result *r);
/* One line without the newline, appended to s; path NULL: the result's own. */
void rz_result_put_json(rz_str *s, const rz_result *r, const char *path);
/* Members of an object that say what weights were made into (,"weights":...,"family":...), where they were. */
void rz_precision_put_json(rz_str *s, const rz_model *m);
/* How films become pixels: an object. */
void rz_preprocess_put_json(rz_str *s, const rz_config *cfg);
void rz_error_put_json(rz_str *s, const radz_error *error, const char *path);

#endif
