/* dataset.h - a manifest of films and what is said about them. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_DATASET_H
#define RZ_DATASET_H

#include "names.h"
#include "prompt.h"

#define RZ_NO_SET ((size_t)-1)

typedef struct rz_row {
    char *path;
    size_t line;                   /* in the manifest */
    size_t set;                    /* index into sets, or RZ_NO_SET */
    size_t group;                  /* index into groups, or RZ_NO_SET */
    size_t label_set;              /* equal numbers: equal sets of labels */
    size_t text;                   /* index into texts */
    size_t question;               /* index into questions, or RZ_NO_SET: the model's own */
    bool has_labels;               /* false: only a report text */
    size_t class_start, n_classes; /* its classes: class_list[class_start ..] */
} rz_row;

/* What can be used of a manifest. The text of a row is its report where it has one, else the label sentence.
 * Sets that differ only in what follows the first digit (nih512, nih64) are one group. A group knows the
 * classes that occur in its training rows; what it never mentions, nobody asked about. */
typedef struct rz_dataset {
    const rz_host *host;
    rz_row *rows; /* training rows first, then validation rows, each in manifest order */
    size_t n_train, n_val;
    size_t n_classes;
    uint32_t *class_list;
    size_t n_class_list, cap_class_list;
    rz_names texts, questions, sets, groups, labels, label_sets;
    uint8_t *known; /* (groups.n, n_classes): the group's training rows mention the class */
    size_t n_manifest, n_left_out, n_other_split, n_bad, n_thinned; /* n_bad: malformed; n_thinned: by
                                                                       label_fraction */
    char manifest_hash[65], map_hash[65];                           /* sha256 of the files; map_hash "" without a map */
} rz_dataset;

typedef struct rz_dataset_options {
    const char *manifest;   /* CSV: path, labels ('|' between them); optional split, set, text */
    const char *image_root; /* NULL: the manifest's folder */
    const char *label_map;  /* CSV: from, to; may be NULL */
    const char *const *classes;
    size_t n_classes;
    const rz_model *model; /* its label sentence */
    bool stop_on_bad_row;  /* a malformed row is an error; else it is logged with its line, counted, left out */
    double label_fraction; /* share of the training rows that is kept ; 0 or 1: all */
    uint64_t seed;
    bool answers; /* columns prompt and answer count: a row's text is its answer where it has one */
} rz_dataset_options;

/* label_fraction keeps, of the training rows of every set of labels, that share, rounded, but at least one. Which ones
 * is a function of the seed; a smaller share is part of a larger one. What the groups know stays what all rows said. */
radz_status rz_dataset_open(const rz_host *host, const rz_dataset_options *options, rz_dataset *out,
                            radz_error *err) RZ_CHECK;
void rz_dataset_close(rz_dataset *ds); /* safe on a zeroed one */

/* The training rows' wiring, all for `n` rows given by index. `reference`: the class that means "none of the
 * others", or -1. */
/* targets (n, n_classes): uniform over the row's classes, zeros where it has none. */
void rz_dataset_targets(const rz_dataset *ds, const size_t *rows, size_t n, float *targets);
/* keep (n, n): 0 where two rows say the same (label set or text) and so are no negatives of each other. */
void rz_dataset_keep_pairs(const rz_dataset *ds, const size_t *rows, size_t n, float *keep);
/* keep (n, n_classes): 1 where the row's group knows the class, the row has it, or it is the reference. A group that
 * has the reference and nothing else knows that all other classes are absent. */
void rz_dataset_keep_classes(const rz_dataset *ds, const size_t *rows, size_t n, int reference, float *keep);
/* True when the row counts in the evaluation of the class: its group mentions it (or it has no group). */
bool rz_dataset_knows(const rz_dataset *ds, const rz_row *row, size_t class_index);
bool rz_dataset_has_class(const rz_dataset *ds, const rz_row *row, size_t class_index);

#endif
