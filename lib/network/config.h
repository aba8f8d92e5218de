/* config.h - what a model directory says about the network, checked and with defaults filled in.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_CONFIG_H
#define RZ_CONFIG_H

#include "device.h"
#include "formats.h"

#define RZ_MAX_HEAD_DIM 4096
#define RZ_MAX_FEATURE_LAYERS 64
#define RZ_MAX_EOS 32

typedef struct rz_vision_config {
    size_t hidden, intermediate, layers, heads, image_size, patch, channels;
    float eps;
    rz_act_kind act;
} rz_vision_config;

typedef enum rz_rope_kind { RZ_ROPE_DEFAULT, RZ_ROPE_LINEAR, RZ_ROPE_DYNAMIC, RZ_ROPE_LLAMA3 } rz_rope_kind;
typedef struct rz_rope_config {
    rz_rope_kind kind;
    double theta, factor, low, high; /* low, high: Llama 3's frequency factors */
    size_t trained;                  /* rows the model has seen in training: what dynamic and Llama 3 compare with */
} rz_rope_config;

typedef struct rz_text_config {
    size_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab;
    size_t max_positions; /* longest prompt, in rows */
    size_t window;        /* sliding window; 0: none */
    float eps;
    rz_rope_config rope;
    rz_act_kind act;
    bool tied; /* lm_head is the embedding table */
    bool attention_bias, mlp_bias;
    bool mistral;
    int32_t eos[RZ_MAX_EOS]; /* tokens that end a text, of config.json and generation_config.json */
    size_t n_eos;
} rz_text_config;

/* gamma of Eq. 4, 5 and 11 */
typedef enum rz_gamma { RZ_GAMMA_IDENTITY, RZ_GAMMA_MLP /* LayerNorm, Linear, GELU, Linear */ } rz_gamma;

/* Names that belong together. */
typedef struct rz_name_list {
    const char *const *names;
    size_t n;
} rz_name_list;

typedef struct rz_radz_config {
    size_t n_image_tokens, n_text_tokens; /* 4 and 8; 0: the directory has no radz.json */
    int layer;                            /* hidden_states index: -2 = input of the last block */
    rz_gamma gamma;
    size_t gamma_hidden, dim; /* dim = K, the length of a vector */
    bool mlp_then_mean;       /* false (the paper): mean, then MLP */
    /* What the authors' code does in place of the paper (rz_config_choice): */
    bool last_rows;         /* X_g, Y_g: the last n_..._tokens rows, whatever they are; else the special tokens by id */
    bool append_to_train;   /* special tokens stand behind prompts in training only, and are not trained */
    bool embedding_anchors; /* D: mean of the embedding rows of a description, which never runs through the decoder */
    bool fused_score;       /* (X D^T)(Y D^T)^T / tau^2, Y the classes' sentences, scores films; else X D^T / tau */
    double tau, lambda;
    bool cannot_write;  /* "can_write": false; its decoder was never trained to write text */
    char *image_prompt; /* "<image>\nWhat disease is indicated by the chest X-ray?" */
    char *text_prompt;  /* "{text}\nWhat disease is described in this text?" */
    char *label_text;   /* "This is a chest X-ray showing {labels}." */
    char **classes;     /* of the linear head over X_g */
    size_t n_classes;   /* 0: it has no head */
    bool new_head;      /* the weights on disk are for other classes: start at zero */
} rz_radz_config;

/* CLIPImageProcessor's settings */
typedef struct rz_preprocess_config {
    bool pad_to_square; /* LLaVA's image_aspect_ratio "pad" */
    bool resize, crop;
    size_t shortest_edge, crop_width, crop_height;
    float rescale, mean[3], std[3];
} rz_preprocess_config;

/* Where the vision tower is: where the checkpoint has it, in the checkpoint; from the files beside it; from elsewhere.
 */
typedef enum rz_tower_source { RZ_TOWER_AUTO, RZ_TOWER_CHECKPOINT, RZ_TOWER_EXTERNAL } rz_tower_source;

/* What weights are turned into when they are loaded (precision.h). */
typedef enum rz_weights_type {
    RZ_WEIGHTS_STORED = 0,
    RZ_WEIGHTS_F32,
    RZ_WEIGHTS_BF16, /* products of bfloat16 too */
    RZ_WEIGHTS_INT8,
    RZ_WEIGHTS_INT4
} rz_weights_type;
typedef struct rz_precision {
    rz_weights_type type;
    size_t group;     /* of integers */
    const char *keep; /* what stays as stored, or in more bits */
} rz_precision;

/* What a model is put together from. */
typedef struct rz_source {
    const char *dir;
    const char *vision_dir;  /* a CLIP model; NULL: what config.json names, in dir */
    const char *adapter_dir; /* PEFT; NULL: none */
    const char *settings;    /* a file in place of radz.json; NULL: the adapter's own, else the model's */
    bool new_radz;           /* for training: no radz.json means the paper's settings */
    rz_tower_source tower;
    const char *vectors;         /* "paper" or "refcode": rz_config_choose; NULL: what radz.json says */
    const rz_name_list *classes; /* of a linear head to be trained (n = 0: no head); NULL: what radz.json says */
    rz_precision precision;
    uint64_t memory_bytes; /* 0: weights stay in memory; else see pager.h */
    bool list_only;        /* no weight is read: for who reads them from the files himself */
} rz_source;

typedef struct rz_config {
    const rz_host *host;
    bool has_vision;        /* false: a bare text decoder */
    bool original;          /* the LLaVA authors' own layout */
    bool describes_tower;   /* it has a vision_config */
    char quantised_by[32];  /* method of another program's quantization_config: "gptq"; "": none */
    char *tower_name;       /* mm_vision_tower of that layout; NULL: none */
    char *vision_dir;       /* the tower's own directory; NULL: it is in the checkpoint */
    const char *films_from; /* where in the files `preprocess` stands; NULL: nowhere, it is the default */
    rz_vision_config vision;
    rz_text_config text;
    rz_radz_config radz;
    rz_preprocess_config preprocess;
    rz_act_kind projector_act;
    bool projector_bias;
    int feature_layers[RZ_MAX_FEATURE_LAYERS]; /* tower hidden_states indices; {-2}: before the last block */
    size_t n_feature_layers;                   /* more than one: their rows side by side */
    bool keep_class_row;                       /* select strategy "full" */
    size_t image_rows;                         /* rows one image takes in the decoder */
} rz_config;

/* dir/name in a new string, NULL where there is no such file. */
radz_status rz_config_file(const rz_host *host, const char *dir, const char *name, char **path,
                           radz_error *err) RZ_CHECK;
/* Where cfg->radz leaves the paper for the authors' code, word for word in radz.json: the i-th such key, NULL past the
 * last; *other is its value, NULL where the paper is followed. */
const char *rz_config_choice(const rz_radz_config *r, size_t i, const char **other);
/* All of them at once. */
void rz_config_choose(rz_radz_config *r, bool as_authors_code);
/* Text of a radz.json that says what cfg->radz does. */
void rz_config_put_radz(const rz_config *cfg, rz_str *s);
/* Reads config.json, preprocessor_config.json (or processor_config.json) and radz.json of dir. */
radz_status rz_config_load(const rz_host *host, const char *dir, rz_config *cfg, radz_error *err) RZ_CHECK;
radz_status rz_config_load_from(const rz_host *host, const rz_source *source, rz_config *cfg, radz_error *err) RZ_CHECK;
void rz_config_free(rz_config *cfg);
/* Decoder blocks that run for cfg->radz.layer; tower blocks that run for the i-th of cfg->feature_layers, and for all
 * of them. */
size_t rz_config_decoder_blocks(const rz_config *cfg);
size_t rz_config_feature_blocks(const rz_config *cfg, size_t i);
size_t rz_config_tower_blocks(const rz_config *cfg);

#endif
