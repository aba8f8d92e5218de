/* eval.h - how good a model is on films with labels: the films' vectors, the scores, the tables, the report.
 *
 *   manifest -> eval_data -> eval_embed (cache, shards) -> eval_run (scores, thresholds, tables) -> eval_report
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_EVAL_H
#define RZ_EVAL_H

#include "metrics.h"
#include "names.h"
#include "scorer.h"

#define RZ_EVAL_NONE ((size_t)-1)

/* ---- What is known about the films (eval_data.c) ---- */

typedef struct rz_eval_row {
    char *path;        /* to open it */
    const char *shown; /* as the manifest has it; in `path` or its end */
    size_t line;       /* in its manifest */
    size_t set, patient;
    bool validation;  /* gives thresholds and calibration, is in no table */
    bool second_file; /* from options.validation */
} rz_eval_row;

typedef struct rz_eval_data {
    const rz_host *host;
    rz_eval_row *rows; /* every row of the two splits, in manifest order */
    size_t n, cap, n_evaluated;
    size_t n_classes;
    signed char *truth; /* (n, n_classes): 1, 0, -1 not known */
    rz_names sets, groups, patients, labels;
    size_t *label_rows; /* by label of the manifest that is no class: rows that have it */
    size_t cap_labels;
    size_t n_shared_patients; /* with films both evaluated and in the validation rows */
    char manifest_hash[65], validation_hash[65], map_hash[65]; /* "": no such file */
    const char *split;                                         /* that is evaluated; NULL: all rows */
} rz_eval_data;

radz_status rz_eval_data_open(const rz_host *host, const radz_eval_options *o, const rz_bank *bank, rz_eval_data *out,
                              radz_error *err) RZ_CHECK;
void rz_eval_data_close(rz_eval_data *d); /* safe on a zeroed one */

/* ---- Their vectors (eval_embed.c, eval_cache.c) ---- */

typedef enum rz_eval_state { RZ_FILM_TODO, RZ_FILM_DONE, RZ_FILM_FAILED } rz_eval_state;

enum { RZ_VECTOR_GLOBAL, RZ_VECTOR_LOCAL, RZ_VECTOR_HIDDEN, RZ_VECTOR_KINDS };

typedef struct rz_eval_films {
    const rz_host *host;
    size_t n;
    uint8_t *state;
    char (*sha256)[65];
    char **why;                      /* message of a film that failed */
    float *vectors[RZ_VECTOR_KINDS]; /* (n, dim); NULL: not wanted */
    size_t dim[RZ_VECTOR_KINDS];
    size_t n_failed, n_cached, n_embedded;
} rz_eval_films;

typedef struct rz_store rz_store;
/* Reads what lies in dir for this model and kernels; damaged parts are logged and left out. dir NULL: an empty one
 * that nothing is written to. */
radz_status rz_store_open(const rz_model *m, const char *dir, rz_store **out, radz_error *err) RZ_CHECK;
void rz_store_close(rz_store *c);
/* Copies what films wants of a film with this hash to place i; false where something is missing. */
bool rz_store_get(const rz_store *c, rz_eval_films *films, size_t i);
/* Writes the vectors of films at places rows[0..n) as one more part. */
radz_status rz_store_put(const rz_store *c, const rz_eval_films *films, const size_t *rows, size_t n,
                         radz_error *err) RZ_CHECK;

/* wanted: bit k for rz_eval_films.vectors[k]. Only rows with index % n_shards == shard - 1 where n_shards is not 0;
 * the others stay TODO. */
radz_status rz_eval_films_open(const rz_net *net, const radz_eval_options *o, const rz_eval_data *data, unsigned wanted,
                               rz_eval_films *out, radz_error *err) RZ_CHECK;
void rz_eval_films_close(rz_eval_films *f);
radz_status rz_eval_shard_save(const rz_eval_films *f, const rz_model *m, const radz_eval_options *o,
                               const rz_eval_data *data, radz_error *err) RZ_CHECK;
/* All shards of o->out_dir into one; refuses what is missing or of another run. */
radz_status rz_eval_shards_load(const rz_model *m, const radz_eval_options *o, const rz_eval_data *data,
                                unsigned wanted, rz_eval_films *out, radz_error *err) RZ_CHECK;

/* ---- The figures (eval_run.c) ---- */

/* One class, or the mean of all, on one set. */
typedef struct rz_eval_cell {
    radz_metrics m, low, high;
    const char *note; /* why something is undefined; NULL: nothing is */
} rz_eval_cell;

typedef struct rz_eval_table {
    const char *set; /* NULL: all sets together */
    size_t n_films, n_patients;
    rz_eval_cell *cells; /* (n_classes + 1), the last the macro mean */
    size_t n_defined;    /* classes in the mean */
    size_t *rows;        /* of the films, into rz_eval_data.rows */
} rz_eval_table;

typedef struct rz_eval_method {
    const char *name; /* "img_anchor" */
    rz_scorer *scorer;
    double *probability, *similarity, *margin; /* (n rows, n_classes); NaN where a film failed */
    double *thresholds;                        /* (n_classes); NaN: chosen per set, in the cells */
    rz_eval_table *tables;
    size_t n_tables;
} rz_eval_method;

typedef struct rz_eval {
    const rz_host *host;
    const rz_net *net;
    const rz_bank *bank;
    const char *model_name;
    const radz_eval_options *o;
    rz_eval_data data;
    rz_eval_films films;
    rz_eval_method *methods;
    size_t n_methods;
    uint8_t *in_macro;           /* by class */
    const char *threshold_where; /* "fixed", "validation", "test" */
    radz_threshold_rule rule;
    const char *threshold_note; /* NULL, or why it is not what the options ask for */
    rz_calibration_kind calibrate;
} rz_eval;

radz_status rz_evaluate(const rz_net *net, const char *model_name, const rz_bank *bank, const radz_eval_options *o,
                        radz_error *err) RZ_CHECK;
const char *rz_eval_threshold_name(const rz_eval *e); /* "test-max-f1" */

/* ---- The report (eval_report.c, eval_html.c) ---- */

radz_status rz_eval_write(const rz_eval *e, radz_error *err) RZ_CHECK;
radz_status rz_eval_put_html(rz_str *s, const rz_eval *e, radz_error *err) RZ_CHECK;

#endif
