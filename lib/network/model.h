/* model.h - the weights of a LLaVA-RadZ by name: immutable once opened, shared by all threads.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_MODEL_H
#define RZ_MODEL_H

#include "config.h"

typedef struct rz_param {
    char *name; /* Hugging Face name in the layout we write: "language_model.model.layers.0...." */
    size_t n_dims, dims[4], n;
    rz_mat w;         /* device; ld = dims[1] * ... (a matrix), data NULL: the model has no such tensor */
    float *grad;      /* device, n floats; NULL: frozen */
    bool owned;       /* w.data was allocated (not mapped) */
    bool scale_owned; /* so was w.scale */
    bool radz;        /* belongs to radz.safetensors */
    bool adapter;     /* A or B of a rz_lowrank */
    bool trained;     /* an own float copy; the others are as the files have them */
    bool fresh;       /* made anew, whatever the files hold */
    bool as_float;    /* a vector, or a table that is added or copied: floats in memory, whatever the files hold */
    /* Of layers that read the same rows, so that one product can serve them (half.h): whose numbers these belong
     * behind, how many numbers belong behind these, and the bytes that were kept for them. */
    const struct rz_param *behind;
    size_t n_behind, room;
} rz_param;

/* LoRA beside a linear layer: y += scale * dropout(x) A^T B^T. */
typedef struct rz_lowrank {
    rz_param *base;  /* the layer's weight */
    rz_param *a, *b; /* (r, in), (out, r) */
    float scale, dropout;
    uint64_t module; /* its number among all: each has masks of its own */
} rz_lowrank;
typedef struct rz_linear {
    rz_param *w, *b;  /* (out, in); (out) or NULL */
    rz_lowrank *lora; /* NULL: none */
} rz_linear;
typedef struct rz_norm {
    rz_param *w, *b;
} rz_norm;

typedef struct rz_tower_block {
    rz_norm ln1, ln2;
    rz_linear q, k, v, o, fc1, fc2;
} rz_tower_block;
typedef struct rz_decoder_block {
    rz_norm in, post;
    rz_linear q, k, v, o, gate, up, down;
} rz_decoder_block;
typedef struct rz_head {
    rz_norm norm;
    rz_linear l1, l2;
} rz_head; /* all NULL: identity */

/* What training changes. Special rows, heads and LoRA always; tau where it is learned. */
typedef struct rz_train_setup {
    bool tower, projector, decoder; /* their own weights */
    size_t lora_rank;               /* 0: no LoRA */
    double lora_alpha, lora_dropout;
    bool lora_rslora;         /* scale alpha / sqrt(rank), not alpha / rank */
    const char *lora_targets; /* "q_proj,v_proj"; NULL: every linear layer of a decoder block; read while loading */
    bool classes;             /* the loss depends on X_g and the linear head alone */
    bool all_blocks;          /* the loss depends on every decoder block and the head, not on radz.layer alone */
    bool half_products;       /* matrices that stay as they are multiply as numbers of bfloat16 */
} rz_train_setup;

typedef struct rz_model {
    rz_config cfg;
    rz_device *dev;
    bool tok_is_json;  /* tokenizer.json, there being no tokenizer.model */
    rz_tokenizer *tok; /* NULL where the directory has none (weights only) */
    char hash[65];     /* sha256 over everything that changes a vector; "" for a model being trained */
    char family[65];   /* hash of the model that these weights were made from: the same for every precision */
    /* tower */
    rz_param *class_row, *patch, *positions;
    rz_norm tower_pre, tower_post;
    rz_tower_block *tower;
    rz_linear projector[2];
    /* decoder */
    rz_param *embed, *lm_head;
    rz_decoder_block *decoder;
    rz_norm decoder_norm;
    /* RadZ: rows of the special tokens, ids vocab .. vocab + n - 1 (image tokens first), and the heads */
    rz_param *special;
    rz_head gamma_img, gamma_txt, gamma_dis;
    rz_param *log_tau;    /* (1); NULL: cfg.radz.tau */
    rz_linear classifier; /* linear head over X_g (classes.h); w NULL: none */

    rz_linear gray; /* the patches of gray films, of their first plane alone (gray.h); w NULL: all three are needed */
    rz_param gray_params[2];
    float *inv_freq; /* device, head_dim / 2 */
    void *packed;    /* device: where params' w.packed point (packed.h); NULL: nowhere */
    size_t packed_bytes;
    rz_param *params; /* every parameter above, in the order it is written */
    size_t n_params;
    struct rz_paging *paging;  /* matrices that are read as they are needed (pager.h); NULL: all are in memory */
    void *files;               /* open weight files */
    void *tower_files;         /* those of a tower of its own; NULL: it is in `files` */
    void *lora;                /* open adapter; NULL: none */
    void *radz_files;          /* the adapter's radz.safetensors; NULL: it is in `files` */
    char *base_dir, *radz_dir; /* of config.json and the tokenizer; of radz.json and the bank */
    rz_train_setup setup;      /* of a model being trained */
    rz_lowrank *pairs;         /* its LoRA */
    size_t n_pairs;
    rz_stream *filling;     /* while its numbers are being read; else NULL */
    double tau;             /* as it was loaded */
    bool streamed;          /* paging is or will be */
    bool lora_merged;       /* an adapter has been added into the weights */
    rz_precision precision; /* as the weights were asked for; its keep is owned */
    const char **unused;    /* tensors of `files` that no parameter took, see rz_weights_unused */
    size_t n_unused;
} rz_model;

typedef enum rz_model_mode {
    RZ_MODEL_INFER, /* mapped where possible, any dtype */
    RZ_MODEL_READ,  /* as INFER, but the files are read, not mapped */
    RZ_MODEL_TRAIN, /* every parameter an own float copy */
    RZ_MODEL_INIT   /* as TRAIN, but no weight file is read: random from seed */
} rz_model_mode;

radz_status rz_model_load(const rz_host *host, rz_device *dev, const char *dir, rz_model_mode mode, uint64_t seed,
                          rz_model **model, radz_error *err) RZ_CHECK;
radz_status rz_model_load_from(const rz_host *host, rz_device *dev, const rz_source *source, rz_model_mode mode,
                               uint64_t seed, rz_model **model, radz_error *err) RZ_CHECK;
/* For training as setup says: what it leaves alone stays as the files have it, mapped, in its own type. A directory
 * without weights is made at random from seed; special rows and heads are where no file has them, or src->settings asks
 * for other shapes. */
radz_status rz_model_load_train(const rz_host *host, rz_device *dev, const rz_source *src, const rz_train_setup *setup,
                                uint64_t seed, rz_model **model, radz_error *err) RZ_CHECK;
void rz_model_unload(rz_model *model);
/* True when dir holds weights (model.safetensors or its index). */
bool rz_model_has_weights(const char *dir);
/* Writes model.safetensors + radz.safetensors (each atomically) with dtype "F32" or "BF16"; norms and
 * biases likewise. LoRA is added into the weights. The JSON files and the tokenizer are copied by the caller.
 * save_id: of all files of one save, in their metadata: files that were left beside those of another save by a writer
 * that was interrupted do not open (RADZ_E_MISMATCH). NULL: none, and they do. */
radz_status rz_model_save(const rz_model *model, const char *dir, const char *dtype, const char *save_id,
                          radz_error *err) RZ_CHECK;
/* Writes LoRA as peft does, adapter_model.safetensors and, last, adapter_config.json, with radz.safetensors beside
 * them. base: the model that it belongs to. */
radz_status rz_model_save_adapter(const rz_model *model, const char *dir, const char *base, const char *dtype,
                                  const char *save_id, radz_error *err) RZ_CHECK;
/* s may be NULL for a model that is not being trained. */
double rz_model_tau(const rz_model *model, rz_stream *s);
/* RADZ_E_MISMATCH unless the model is a whole LLaVA-RadZ: tower, tokenizer, radz.json and its rows are there. */
radz_status rz_model_require_radz(const rz_model *model, radz_error *err) RZ_CHECK;
/* RADZ_E_MISMATCH unless it can make vectors of texts (a tokenizer) or of films (a tower too), trained for it or not.
 */
radz_status rz_model_require_texts(const rz_model *model, radz_error *err) RZ_CHECK;
radz_status rz_model_require_films(const rz_model *model, radz_error *err) RZ_CHECK;
/* RADZ_E_MISMATCH unless it can write text: a tokenizer, and not one that says it never learned to. */
radz_status rz_model_require_writing(const rz_model *model, radz_error *err) RZ_CHECK;
/* What it lacks to be a whole LLaVA-RadZ; NULL: nothing. */
const char *rz_model_missing(const rz_model *model);
/* Bytes of the weight files, those of a tower of its own and of an adapter too. */
uint64_t rz_model_file_bytes(const rz_model *model);

#endif
