/* bank.h - the anchor bank (DKAM, Eq. 10 and 11): one unit vector per disease, and its file.
 *
 * anchors.safetensors: tensor "anchors" F32 (N, K) and, where the model's score is "fused", "texts" of the same shape,
 * the classes' sentences; metadata, all strings: schema "radz.bank/1"; labels and
 * descriptions, JSON arrays; model, the hash of the model that made it; library, layer, pool and
 * tokenizer (its hash), to say what differs where it is another's; where the model wrote
 * descriptions itself: writer, a JSON object that says how it was asked, and written, a JSON array that says which;
 * where probabilities were fitted: calibration, the JSON of radz.calibration/1 for the bank without it;
 * sha256, of the whole file with these 64 digits written as zeros.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_BANK_H
#define RZ_BANK_H

#include "calibrate.h"
#include "encode.h"

#define RZ_BANK_FILE "anchors.safetensors"
#define RZ_BANK_MAX_CLASSES 65536u

typedef struct rz_bank {
    const rz_host *host;
    size_t n, dim;
    char **labels, **descriptions;
    float *anchors;   /* (n, dim), host memory */
    bool fused;       /* so is the model's own score */
    float *texts;     /* (n, dim): the classes' sentences, for the fused score; else NULL */
    size_t reference; /* the class that means "none of the others"; n: there is none */
    bool *written;    /* descriptions that are the model's own */
    char *writer;     /* JSON: how it was asked for them; NULL: none is */
    int layer;
    bool mlp_then_mean;
    char tokenizer_hash[65];     /* "": no tokenizer */
    char model_hash[65];         /* rz_model.hash of the model that made it */
    char family[65];             /* its rz_model.family */
    char hash[65];               /* sha256 of the file */
    char base_hash[65];          /* the same without the calibration: what calibrations are fitted for */
    rz_calibration *calibration; /* NULL: none */
} rz_bank;

/* Entries from elsewhere, owned: the lines of a description file, or names given by the caller. */
typedef struct rz_bank_list {
    radz_bank_entry *entries;
    size_t n;
    char *text; /* what the entries point into */
} rz_bank_list;
/* "label: description" per line, '#' comments, blank lines. A label that comes twice, is empty or has no
 * description is an error with its line number. */
radz_status rz_bank_list_open(const rz_host *host, const char *path, rz_bank_list *out, radz_error *err) RZ_CHECK;
/* The same, where a line may be a label alone: its entry has no description. */
radz_status rz_bank_names_open(const rz_host *host, const char *path, rz_bank_list *out, radz_error *err) RZ_CHECK;
radz_status rz_bank_list_parse(const rz_host *host, const char *text, size_t n, const char *what, rz_bank_list *out,
                               radz_error *err) RZ_CHECK;
void rz_bank_list_free(const rz_host *host, rz_bank_list *list);

/* Labels and descriptions that a bank may have. */
radz_status rz_bank_check_entries(const rz_host *host, const radz_bank_entry *entries, size_t n,
                                  radz_error *err) RZ_CHECK;
/* Runs the descriptions (NULL: the label in the model's plain sentence) through the text path and gamma_dis. */
radz_status rz_bank_build(const rz_net *net, const radz_bank_entry *entries, size_t n, rz_bank **bank,
                          radz_error *err) RZ_CHECK;
/* Fourteen common findings by name, for models that come without a bank. */
radz_status rz_bank_build_common(const rz_net *net, rz_bank **bank, radz_error *err) RZ_CHECK;
/* The classes of `bank` and n more, of which only these are run; RADZ_E_MISMATCH when a model of another family made
 * `bank`. */
radz_status rz_bank_with(const rz_net *net, const rz_bank *bank, const radz_bank_entry *entries, size_t n,
                         rz_bank **out, radz_error *err) RZ_CHECK;
/* The classes of `bank` but for those named, in any case; each must be there, and one must be left. */
radz_status rz_bank_without(const rz_bank *bank, const char *const *labels, size_t n, rz_bank **out,
                            radz_error *err) RZ_CHECK;
/* The same classes, with another description for one of them, which alone is run again. */
radz_status rz_bank_edit(const rz_net *net, const rz_bank *bank, const char *label, const char *description,
                         rz_bank **out, radz_error *err) RZ_CHECK;
/* The same bank with the calibration of a file that was fitted for it, for radz_classify's score. films: which films
 * that was, in words; NULL: as the file says. */
radz_status rz_bank_calibrate(const rz_bank *bank, const char *path, const char *films, rz_bank **out,
                              radz_error *err) RZ_CHECK;
/* Of a bank that nobody else has seen yet: `written` (bank->n) descriptions are the model's own. */
radz_status rz_bank_set_writer(rz_bank *bank, const char *writer, const bool *written, radz_error *err) RZ_CHECK;
/* A saved bank, refused with RADZ_E_MISMATCH unless `model` or one of its family made it. */
radz_status rz_bank_open(const rz_model *model, const char *path, rz_bank **bank, radz_error *err) RZ_CHECK;
/* Index of a class by name, in any case; RADZ_E_ARGUMENT: there is none. */
radz_status rz_bank_find(const rz_bank *bank, const char *label, size_t *class_index, radz_error *err) RZ_CHECK;
/* RADZ_E_MISMATCH unless `model` made the bank, or the same model with weights of other numbers. */
radz_status rz_bank_require_model(const rz_bank *bank, const rz_model *model, radz_error *err) RZ_CHECK;
/* `model` itself made the bank, with the very weights it has now. */
bool rz_bank_made_by(const rz_bank *bank, const rz_model *model);
radz_status rz_bank_save(const rz_bank *bank, const char *path, radz_error *err) RZ_CHECK;
void rz_bank_free(rz_bank *bank);

/* After training: the bank of `entries` by the network as it is, written to dir/anchors.safetensors. The hash in it is
 * that of the model in dir, which must be the same network, and final. */
radz_status rz_bank_write_own(const rz_net *net, const char *dir, const radz_bank_entry *entries, size_t n,
                              radz_error *err) RZ_CHECK;
/* The same of the labels in the model's plain sentence, through gamma_txt: for a model trained without anchors. */
radz_status rz_bank_write_sentences(const rz_net *net, const char *dir, const radz_bank_entry *entries, size_t n,
                                    radz_error *err) RZ_CHECK;

/* True for "No Finding", "Normal", any case. */
bool rz_label_is_reference(const char *label);

#endif
