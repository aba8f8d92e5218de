/* eval.h - how good models are on films with labels: the films' vectors, the scores, the tables, the report.
 *
 *   manifest -> eval_data -> eval_embed (cache, shards) -> eval_method (scores) -> eval_run (thresholds, tables) ->
 *   eval_compare (differences), eval_boxes (heat maps against boxes) -> eval_report, eval_html
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_EVAL_H
#define RZ_EVAL_H

#include "methods.h"
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

/* o->label_map; *map NULL: there is none. */
radz_status rz_eval_map_open(const rz_host *host, const radz_eval_options *o, rz_csv **map, radz_error *err) RZ_CHECK;
/* What the map makes of a label of this set: "" drops it; the label itself where no line says anything. */
const char *rz_eval_mapped(const rz_csv *map, const char *label, const char *set);
/* Whatever the case, '_' for ' '; RZ_EVAL_NONE: no such class. */
size_t rz_eval_class(const rz_bank *bank, const char *label);

/* ---- What the model says of a film (eval_values.c) ---- */

enum {
    RZ_VALUE_GLOBAL, /* vectors of length 1 */
    RZ_VALUE_LOCAL,
    RZ_VALUE_HIDDEN,
    RZ_VALUE_HEAD,       /* logits of the linear head, one per class of the head */
    RZ_VALUE_LIKELIHOOD, /* (n_classes) log-probabilities and then the tokens that each is a sum over */
    RZ_VALUE_OPTIONS,    /* (n_classes) 1: named in the answer */
    RZ_VALUE_COT,
    RZ_VALUE_KINDS
};

/* What every film is asked for. */
typedef struct rz_eval_wanted {
    const rz_host *host;
    const rz_model *model;
    unsigned kinds; /* bit k: RZ_VALUE k */
    size_t dim[RZ_VALUE_KINDS];
    char name[RZ_VALUE_KINDS][48]; /* in the cache: what else they depend on is in it */
    char **labels;                 /* of the classes, as they stand in a question */
    size_t n_classes;
    radz_method_options question[RZ_VALUE_KINDS]; /* LIKELIHOOD and on */
} rz_eval_wanted;

radz_status rz_eval_wanted_open(const rz_model *m, const rz_bank *bank, const radz_method_options *writing,
                                unsigned kinds, rz_eval_wanted *out, radz_error *err) RZ_CHECK;
void rz_eval_wanted_close(rz_eval_wanted *w); /* safe on a zeroed one */

/* The same of one film. */
typedef struct rz_eval_values {
    float *v[RZ_VALUE_KINDS];    /* NULL: not wanted */
    rz_str text[RZ_VALUE_KINDS]; /* the answers */
    unsigned have;               /* bit k: v[k] is filled */
    char sha256[65];             /* of the film */
} rz_eval_values;

radz_status rz_eval_values_open(const rz_eval_wanted *w, rz_eval_values *out, radz_error *err) RZ_CHECK;
void rz_eval_values_close(const rz_host *host, rz_eval_values *v); /* safe on a zeroed one */
/* Numbers that no working model gives are not there. */
bool rz_eval_values_good(const rz_eval_wanted *w, const rz_eval_values *v, int kind);
/* Puts the question of this kind (LIKELIHOOD, OPTIONS, COT); the film as the tower takes it. */
radz_status rz_eval_ask(const rz_net *net, const rz_eval_wanted *w, const rz_item *film, int kind, rz_eval_values *v,
                        radz_error *err) RZ_CHECK;
/* What computes: the device without its number of threads, which changes no bit. */
void rz_eval_device(const rz_model *m, char out[64]);

/* ---- Of all films, in memory that does not grow with them (eval_embed.c, eval_cache.c, eval_shard.c) ---- */

typedef enum rz_eval_state { RZ_FILM_TODO, RZ_FILM_DONE, RZ_FILM_FAILED } rz_eval_state;

typedef struct rz_eval_films {
    const rz_host *host;
    size_t n;
    uint8_t *state;
    char (*sha256)[65];
    char **why; /* message of a film that failed */
    size_t n_failed, n_cached;
    size_t pass, n_passes; /* of the models, which see the films one after another */
} rz_eval_films;

/* Told of every film that could be read, in the order of the rows; v lives during the call. */
typedef struct rz_eval_taker {
    radz_status (*take)(void *arg, size_t row, const rz_eval_values *v, radz_error *err);
    void *arg;
} rz_eval_taker;

typedef struct rz_store rz_store;
/* Reads what lies in o->cache_dir for this model and device; damaged parts are logged and left out. None: an empty one
 * that nothing is written to. */
radz_status rz_store_open(const rz_model *m, const radz_eval_options *o, rz_store **out, radz_error *err) RZ_CHECK;
void rz_store_close(rz_store *c);
/* Fills what is there of the film v->sha256 and wanted, and says so in v->have. */
radz_status rz_store_get(const rz_store *c, const rz_eval_wanted *w, rz_eval_values *v, radz_error *err) RZ_CHECK;
/* Writes these kinds of n films as one more part. */
radz_status rz_store_put(const rz_store *c, const rz_eval_wanted *w, unsigned kinds, const rz_eval_values *films,
                         size_t n, radz_error *err) RZ_CHECK;

radz_status rz_eval_films_open(const rz_host *host, size_t n, rz_eval_films *out, radz_error *err) RZ_CHECK;
void rz_eval_films_close(rz_eval_films *f); /* safe on a zeroed one */
radz_status rz_eval_films_fail(rz_eval_films *f, size_t row, const char *why, radz_error *err) RZ_CHECK;
/* Only rows with index % n_shards == shard - 1 where n_shards is not 0; the others stay TODO. Films that have failed
 * are passed over. taker NULL: nobody asks. */
radz_status rz_eval_films_run(const rz_net *net, const radz_eval_options *o, const rz_eval_data *data,
                              const rz_eval_wanted *w, const rz_eval_taker *taker, rz_eval_films *f,
                              radz_error *err) RZ_CHECK;
/* wanted: what every film was asked for, one per model. */
radz_status rz_eval_shard_save(const rz_eval_films *f, const rz_eval_wanted *const *wanted, size_t n,
                               const radz_eval_options *o, const rz_eval_data *data, radz_error *err) RZ_CHECK;
/* The films of all shards of o->out_dir as if they were one run; refuses what is missing or of another. */
radz_status rz_eval_shards_list(const rz_eval_wanted *const *wanted, size_t n, const radz_eval_options *o,
                                const rz_eval_data *data, rz_eval_films *f, radz_error *err) RZ_CHECK;
/* What one model said of them, from the cache. */
radz_status rz_eval_shards_take(const rz_eval_wanted *w, const radz_eval_options *o, const rz_eval_taker *taker,
                                const rz_eval_films *f, radz_error *err) RZ_CHECK;

/* ---- The figures (eval_method.c, eval_run.c, eval_compare.c) ---- */

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
    rz_rounds rounds;    /* of the bootstrap, until the differences are taken */
    /* less the first method's, on the same draws; NULL: the first, or no bootstrap */
    rz_difference *macro; /* (RZ_N_FIGURES) */
    rz_difference *auc;   /* (n_classes) */
} rz_eval_table;

typedef struct rz_eval_arm rz_eval_arm;

typedef struct rz_eval_method {
    const rz_eval_arm *arm;
    const char *name; /* "img_anchor" */
    rz_scorer *scorer;
    double *probability, *margin; /* (n rows, n_classes); NaN where a film failed */
    double *similarity;           /* the same; NULL where nobody asks for scores */
    double *thresholds;           /* (n_classes); NaN: chosen per set, in the cells */
    rz_eval_table *tables;        /* the last one is of all sets */
    size_t n_tables;
} rz_eval_method;

/* A method that a model cannot run. */
typedef struct rz_eval_absent {
    const rz_eval_arm *arm;
    char *name, *why;
} rz_eval_absent;

/* Heat maps of films with boxes (eval_boxes.c): how often they point into them, and what the model loses without the
 * hottest patches. */
enum { RZ_MAP_SIMILARITY, RZ_MAP_ATTENTION, RZ_MAP_GRADIENT, RZ_MAP_RANDOM /* patches in random order */, RZ_MAPS };
enum {
    RZ_MAP_HIT,
    RZ_MAP_SHARE /* of the film that the boxes cover */,
    RZ_MAP_DELETION,
    RZ_MAP_INSERTION,
    RZ_MAP_FIGURES
};
const char *rz_map_name(int map); /* "gradient" */

/* One film and class. */
typedef struct rz_eval_place {
    size_t row, c;
    radz_box *boxes; /* in the film's own pixels, once it was open */
    size_t n_boxes;
    double film_width, film_height;          /* the boxes' own measure; 0: the film's pixels */
    double figures[RZ_MAPS][RZ_MAP_FIGURES]; /* NaN: not measured */
    double film, painted;                    /* probability with all patches, and with none */
    char *why;                               /* it could not be measured; NULL: it was */
} rz_eval_place;

typedef struct rz_eval_mean {
    size_t n, n_patients; /* films, and classes on them */
    double value[RZ_MAPS][RZ_MAP_FIGURES], low[RZ_MAPS][RZ_MAP_FIGURES], high[RZ_MAPS][RZ_MAP_FIGURES];
} rz_eval_mean;

typedef struct rz_eval_boxes {
    rz_eval_place *places; /* by row, then by class */
    size_t n, n_failed, n_boxes;
    size_t n_other_films, n_other_classes; /* boxes of films that are not evaluated, of classes that nobody knows */
    rz_eval_mean *means;                   /* (n_classes + 1), the last of all classes */
    char hash[65];                         /* of the file */
} rz_eval_boxes;

/* One model of the report, with its methods. */
typedef struct rz_eval_model {
    const rz_net *net;
    const rz_bank *bank;
    const char *name;
} rz_eval_model;

struct rz_eval_arm {
    struct rz_eval *e;
    rz_eval_model of;
    rz_eval_wanted wanted;
    size_t first_method, n_methods; /* in rz_eval.methods */
    size_t *head_class;             /* (n_classes): of the linear head; RZ_EVAL_NONE: it has no such class */
    /* vectors for a picture: of some of the films that are evaluated, fewer where films fail */
    int picture_kind;     /* RZ_VALUE; RZ_VALUE_KINDS: no vectors are wanted */
    uint8_t *in_picture;  /* by row; NULL: no picture */
    size_t n_picture;     /* films that are in it by now */
    size_t *picture_rows; /* (n_picture) */
    float *picture;       /* (n_picture, dim) */
    rz_eval_boxes boxes;  /* n 0: there are none */
};

typedef struct rz_eval {
    const rz_host *host;
    const radz_eval_options *o;
    rz_eval_data data;
    rz_eval_films films;
    rz_eval_arm *arms; /* (n_arms): at least one */
    size_t n_arms;
    const rz_bank *bank; /* the first model's: its labels are every model's */
    rz_eval_method *methods;
    rz_eval_absent *absent;
    size_t n_methods, n_absent;
    uint8_t *in_macro;           /* by class */
    const char *threshold_where; /* "fixed", "validation", "test" */
    radz_threshold_rule rule;
    const char *threshold_note; /* NULL, or why it is not what the options ask for */
    rz_calibration_kind calibrate;
    rz_str answers; /* answers.csv that is not written yet */
    rz_writer *answers_file;
} rz_eval;

/* n models, the first of which the others are compared with. */
radz_status rz_evaluate(const rz_eval_model *models, size_t n, const radz_eval_options *o, radz_error *err) RZ_CHECK;
const char *rz_eval_threshold_name(const rz_eval *e); /* "test-max-f1" */
/* Tells the caller that `done` of `n` parts of a later stage are done; RADZ_E_CANCELLED where he has had enough. */
radz_status rz_eval_tell(const rz_eval *e, const char *stage, size_t done, size_t n, radz_error *err) RZ_CHECK;

/* What the options name; methods that the model cannot run are left out where they may be. */
radz_status rz_eval_methods_open(rz_eval *e, radz_error *err) RZ_CHECK;
void rz_eval_methods_close(rz_eval *e);
/* Every film's scores by every method, into e->methods. */
radz_status rz_eval_score(rz_eval *e, radz_error *err) RZ_CHECK;
/* The tables of method i less those of the first. Frees the rounds that are not needed any more. */
radz_status rz_eval_compare(rz_eval *e, size_t i, radz_error *err) RZ_CHECK;
/* Reads o->boxes and measures heat maps on the films. No file: nothing. */
radz_status rz_eval_boxes_run(rz_eval *e, rz_eval_arm *arm, radz_error *err) RZ_CHECK;
void rz_eval_boxes_close(const rz_host *host, rz_eval_boxes *b); /* safe on a zeroed one */

/* ---- The report (eval_report.c, eval_html.c, eval_tables.c, eval_plots.c, eval_pictures.c) ---- */

radz_status rz_eval_write(const rz_eval *e, radz_error *err) RZ_CHECK;
const char *rz_eval_feature(const rz_scorer *s);        /* what a method looks at, in words */
void rz_eval_put_csv_text(rz_str *s, const char *text); /* quoted where it must be */
void rz_eval_put_csv_number(rz_str *s, double v);       /* a comma and the number; NaN: nothing */
/* Of all arms. */
void rz_eval_boxes_put_json(rz_str *s, const rz_eval *e);
void rz_eval_boxes_put_csv(rz_str *s, const rz_eval *e);       /* means */
void rz_eval_boxes_put_films_csv(rz_str *s, const rz_eval *e); /* every film */
radz_status rz_eval_put_html(rz_str *s, const rz_eval *e, radz_error *err) RZ_CHECK;

#endif
