"""radz.h in ctypes: enumerations, structs and prototypes, in the order of the header and under its names.

tests/test_abi.py holds every line of this file against the header and the C compiler.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_byte,
    c_char,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from enum import IntEnum
from typing import Any

# The names are those of C.
# ruff: noqa: N801


class radz_status(IntEnum):
    RADZ_OK = 0
    RADZ_E_ARGUMENT = 1
    RADZ_E_MEMORY = 2
    RADZ_E_IO = 3
    RADZ_E_FORMAT = 4
    RADZ_E_UNSUPPORTED = 5
    RADZ_E_LIMIT = 6
    RADZ_E_MISMATCH = 7
    RADZ_E_DEVICE = 8
    RADZ_E_CANCELLED = 9
    RADZ_E_STATE = 10
    RADZ_E_INTERNAL = 11


class radz_log_level(IntEnum):
    RADZ_LOG_DEBUG = 0
    RADZ_LOG_INFO = 1
    RADZ_LOG_WARNING = 2


class radz_vision_source(IntEnum):
    RADZ_VISION_AUTO = 0
    RADZ_VISION_CHECKPOINT = 1
    RADZ_VISION_EXTERNAL = 2


class radz_pixel_format(IntEnum):
    RADZ_PIXELS_GRAY8 = 0
    RADZ_PIXELS_GRAY16 = 1
    RADZ_PIXELS_RGB8 = 2


class radz_feature(IntEnum):
    RADZ_FEATURE_GLOBAL = 0
    RADZ_FEATURE_LOCAL = 1
    RADZ_FEATURE_LAST = 2
    RADZ_FEATURE_ALL = 3


class radz_heatmap_method(IntEnum):
    RADZ_HEATMAP_SIMILARITY = 0
    RADZ_HEATMAP_ATTENTION = 1
    RADZ_HEATMAP_GRADIENT = 2


class radz_score_kind(IntEnum):
    RADZ_SCORE_IMG_ANCHOR = 0
    RADZ_SCORE_IMG_TEXT = 1
    RADZ_SCORE_FUSED = 2
    RADZ_SCORE_POS_NEG = 3
    RADZ_SCORE_HIDDEN = 4


class radz_score_feature(IntEnum):
    RADZ_SCORE_GLOBAL = 0
    RADZ_SCORE_LOCAL = 1
    RADZ_SCORE_BOTH = 2


class radz_score_classes(IntEnum):
    RADZ_CLASSES_AUTO = 0
    RADZ_CLASSES_REFERENCE = 1
    RADZ_CLASSES_EXCLUSIVE = 2
    RADZ_CLASSES_INDEPENDENT = 3


class radz_threshold_rule(IntEnum):
    RADZ_THRESHOLD_FIXED = 0
    RADZ_THRESHOLD_MAX_F1 = 1
    RADZ_THRESHOLD_YOUDEN = 2
    RADZ_THRESHOLD_MCC = 3


class radz_curve(IntEnum):
    RADZ_CURVE_ROC = 0
    RADZ_CURVE_PR = 1


class radz_method(IntEnum):
    RADZ_METHOD_LIKELIHOOD = 0
    RADZ_METHOD_HIDDEN = 1
    RADZ_METHOD_OPTIONS = 2
    RADZ_METHOD_COT = 3


class radz_runtime(Structure):
    pass


class radz_model(Structure):
    pass


class radz_session(Structure):
    pass


class radz_image(Structure):
    pass


class radz_bank(Structure):
    pass


class radz_result(Structure):
    pass


class radz_scorer(Structure):
    pass


class radz_trainer(Structure):
    pass


class radz_error(Structure):
    _fields_ = (
        ("code", c_int),
        ("message", c_char * 508),
    )


malloc_fn = CFUNCTYPE(c_void_p, c_size_t, c_void_p)
realloc_fn = CFUNCTYPE(c_void_p, c_void_p, c_size_t, c_void_p)
free_fn = CFUNCTYPE(None, c_void_p, c_void_p)
log_fn = CFUNCTYPE(None, c_int, c_char_p, c_void_p)


class radz_runtime_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("device", c_char_p),
        ("kernels", c_char_p),
        ("gemm", c_char_p),
        ("n_threads", c_int),
        ("malloc_fn", malloc_fn),
        ("realloc_fn", realloc_fn),
        ("free_fn", free_fn),
        ("log_fn", log_fn),
        ("user", c_void_p),
    )


class radz_model_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("use_mmap", c_int),
        ("vision_source", c_int),
        ("vision_dir", c_char_p),
        ("adapter_dir", c_char_p),
        ("weights", c_char_p),
        ("keep_weights", c_char_p),
        ("memory_bytes", c_uint64),
    )


class radz_model_info(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("dtype", c_char_p),
        ("tower_source", c_char_p),
        ("tokenizer", c_char_p),
        ("tokenizer_hash", c_char_p),
        ("missing", c_char_p),
        ("unused_tensor", c_char_p),
        ("n_unused_tensors", c_size_t),
        ("n_parameters", c_uint64),
        ("file_bytes", c_uint64),
        ("weight_bytes", c_uint64),
        ("film_bytes", c_uint64),
        ("vision_hidden", c_size_t),
        ("vision_intermediate", c_size_t),
        ("vision_layers", c_size_t),
        ("vision_heads", c_size_t),
        ("image_size_px", c_size_t),
        ("patch_px", c_size_t),
        ("image_rows", c_size_t),
        ("text_hidden", c_size_t),
        ("text_intermediate", c_size_t),
        ("text_layers", c_size_t),
        ("text_heads", c_size_t),
        ("text_kv_heads", c_size_t),
        ("head_dim", c_size_t),
        ("vocab", c_size_t),
        ("max_positions", c_size_t),
        ("window", c_size_t),
        ("embedding_dim", c_size_t),
        ("n_image_tokens", c_size_t),
        ("n_text_tokens", c_size_t),
        ("layer", c_int),
        ("feature_layer", c_int),
        ("tau", c_double),
        ("adapter", c_char_p),
        ("adapter_hash", c_char_p),
        ("adapter_rank", c_size_t),
        ("n_head_classes", c_size_t),
        ("weights", c_char_p),
        ("streamed_bytes", c_uint64),
        ("peak_bytes", c_uint64),
    )


class radz_quantize_progress(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("file", c_char_p),
        ("n_done_bytes", c_uint64),
        ("n_bytes", c_uint64),
        ("n_reused_bytes", c_uint64),
        ("seconds_left", c_double),
    )


quantize_progress_fn = CFUNCTYPE(c_int, POINTER(radz_quantize_progress), c_void_p)


class radz_quantize_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("type", c_char_p),
        ("keep", c_char_p),
        ("vision_dir", c_char_p),
        ("adapter_dir", c_char_p),
        ("vision_source", c_int),
        ("progress_fn", quantize_progress_fn),
        ("user", c_void_p),
        ("films", POINTER(c_char_p)),
        ("n_films", c_size_t),
        ("texts", POINTER(c_char_p)),
        ("n_texts", c_size_t),
    )


cancel_fn = CFUNCTYPE(c_int, c_void_p)


class radz_session_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("cancel_fn", cancel_fn),
        ("user", c_void_p),
        ("keep_film", c_int),
        ("strict", c_int),
    )


class radz_embed_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("feature", c_int),
        ("layer", c_int),
        ("raw", c_int),
        ("image_prompt", c_char_p),
    )


class radz_bank_entry(Structure):
    _fields_ = (
        ("label", c_char_p),
        ("description", c_char_p),
    )


class radz_heatmap_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("method", c_int),
        ("layer", c_int),
        ("contrast", c_int),
        ("first_block", c_int),
        ("mean", c_int),
    )


class radz_heatmap_picture(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("low", c_double),
        ("high", c_double),
        ("opacity", c_double),
        ("title", c_char_p),
    )


class radz_box(Structure):
    _fields_ = (
        ("x", c_double),
        ("y", c_double),
        ("width", c_double),
        ("height", c_double),
    )


class radz_heatmap_score(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("deletion", c_double),
        ("insertion", c_double),
        ("film", c_double),
        ("painted", c_double),
    )


class radz_dicom(Structure):
    pass


class radz_dicom_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("labels", c_char_p),
        ("threshold", c_double),
        ("threshold_labels", POINTER(c_char_p)),
        ("thresholds", POINTER(c_double)),
        ("n_thresholds", c_size_t),
        ("institution", c_char_p),
        ("manufacturer", c_char_p),
        ("map_method", c_char_p),
        ("outline", c_double),
        ("date_time", c_char_p),
        ("key", c_char_p),
        ("series_uid", c_char_p),
        ("instance_uid", c_char_p),
    )


class radz_score_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("score", c_int),
        ("feature", c_int),
        ("classes", c_int),
        ("tau", c_double),
        ("templates", POINTER(c_char_p)),
        ("n_templates", c_size_t),
        ("negatives", POINTER(c_char_p)),
        ("n_negatives", c_size_t),
        ("calibration", c_char_p),
    )


class radz_metrics_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("threshold", c_double),
        ("strict", c_int),
        ("both_classes", c_int),
        ("n_bins", c_size_t),
        ("n_rounds", c_size_t),
        ("confidence", c_double),
        ("seed", c_uint64),
    )


class radz_metrics(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("n_positive", c_size_t),
        ("n_negative", c_size_t),
        ("tp", c_size_t),
        ("fp", c_size_t),
        ("tn", c_size_t),
        ("fn", c_size_t),
        ("auc", c_double),
        ("auprc", c_double),
        ("threshold", c_double),
        ("f1", c_double),
        ("accuracy", c_double),
        ("mcc", c_double),
        ("sensitivity", c_double),
        ("specificity", c_double),
        ("precision", c_double),
        ("brier", c_double),
        ("ece", c_double),
    )


class radz_generate_progress(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("text", c_char_p),
        ("token", c_int32),
        ("n_tokens", c_int64),
        ("n_prompt", c_int64),
        ("finished", c_char_p),
    )


film_fn = CFUNCTYPE(c_int, c_size_t, POINTER(radz_result), POINTER(radz_error), c_void_p)
token_fn = CFUNCTYPE(c_int, POINTER(radz_generate_progress), c_void_p)


class radz_generate_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("max_tokens", c_int),
        ("temperature", c_double),
        ("top_p", c_double),
        ("seed", c_uint64),
        ("stop", POINTER(c_char_p)),
        ("n_stop", c_size_t),
        ("chat_template", c_char_p),
        ("system", c_char_p),
        ("token_fn", token_fn),
        ("user", c_void_p),
    )


done_fn = CFUNCTYPE(c_int, c_char_p, c_char_p, c_void_p)


class radz_describe_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("prompt", c_char_p),
        ("max_tokens", c_int),
        ("temperature", c_double),
        ("top_p", c_double),
        ("seed", c_uint64),
        ("chat_template", c_char_p),
        ("system", c_char_p),
        ("done_fn", done_fn),
        ("user", c_void_p),
    )


class radz_eval_progress(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("n_done", c_size_t),
        ("n_films", c_size_t),
        ("n_failed", c_size_t),
        ("n_cached", c_size_t),
        ("seconds_left", c_double),
        ("stage", c_char_p),
        ("stage_done", c_size_t),
        ("stage_n", c_size_t),
    )


eval_progress_fn = CFUNCTYPE(c_int, POINTER(radz_eval_progress), c_void_p)


class radz_method_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("method", c_int),
        ("per_token", c_int),
        ("prompt", c_char_p),
        ("prefix", c_char_p),
        ("chat_template", c_char_p),
        ("system", c_char_p),
        ("max_tokens", c_int),
    )


class radz_eval_model(Structure):
    _fields_ = (
        ("session", POINTER(radz_session)),
        ("bank", POINTER(radz_bank)),
        ("name", c_char_p),
    )


class radz_eval_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("manifest", c_char_p),
        ("image_root", c_char_p),
        ("label_map", c_char_p),
        ("out_dir", c_char_p),
        ("cache_dir", c_char_p),
        ("split", c_char_p),
        ("sets", c_char_p),
        ("validation", c_char_p),
        ("validation_split", c_char_p),
        ("methods", c_char_p),
        ("score", radz_score_options),
        ("threshold", c_char_p),
        ("fixed_threshold", c_double),
        ("strict", c_int),
        ("both_classes", c_int),
        ("macro_reference", c_int),
        ("calibrate", c_char_p),
        ("uncertain", c_char_p),
        ("n_bins", c_size_t),
        ("n_rounds", c_size_t),
        ("confidence", c_double),
        ("seed", c_uint64),
        ("shard", c_int),
        ("n_shards", c_int),
        ("merge", c_int),
        ("n_tsne", c_size_t),
        ("n_examples", c_size_t),
        ("write_scores", c_int),
        ("progress_fn", eval_progress_fn),
        ("user", c_void_p),
        ("writing", POINTER(radz_method_options)),
        ("leave_out", c_int),
        ("name", c_char_p),
        ("others", POINTER(radz_eval_model)),
        ("n_others", c_size_t),
        ("boxes", c_char_p),
        ("n_box_steps", c_size_t),
        ("no_heatmaps", c_int),
    )


class radz_train_progress(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("step", c_int64),
        ("n_steps", c_int64),
        ("epoch", c_double),
        ("loss", c_double),
        ("loss_ca", c_double),
        ("loss_cg", c_double),
        ("grad_norm", c_double),
        ("lr", c_double),
        ("tau", c_double),
        ("items_per_second", c_double),
        ("seconds_left", c_double),
        ("n_bad_rows", c_int64),
        ("has_validation", c_int),
        ("val_auc", c_double),
        ("val_macro_auc", c_double),
        ("checkpoint", c_char_p),
    )


train_progress_fn = CFUNCTYPE(c_int, POINTER(radz_train_progress), c_void_p)


sum_f32 = CFUNCTYPE(c_int, POINTER(c_float), c_size_t, c_void_p)
gather = CFUNCTYPE(c_int, c_void_p, c_size_t, c_void_p, c_void_p)


class radz_comm(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("rank", c_int),
        ("size", c_int),
        ("sum_f32", sum_f32),
        ("gather", gather),
        ("user", c_void_p),
    )


class radz_train_options(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("model_dir", c_char_p),
        ("manifest", c_char_p),
        ("image_root", c_char_p),
        ("out_dir", c_char_p),
        ("diseases", c_char_p),
        ("label_map", c_char_p),
        ("resume", c_int),
        ("seed", c_uint64),
        ("epochs", c_double),
        ("stop_after_steps", c_int64),
        ("batch_size", c_int),
        ("lr", c_double),
        ("weight_decay", c_double),
        ("beta1", c_double),
        ("beta2", c_double),
        ("eps", c_double),
        ("warmup_fraction", c_double),
        ("clip_norm", c_double),
        ("lambda", c_double),
        ("tau", c_double),
        ("learn_tau", c_int),
        ("mask_false_negatives", c_int),
        ("balance_sets", c_int),
        ("augment", c_int),
        ("checkpoint_every", c_int64),
        ("validate_every", c_int64),
        ("monitor", c_char_p),
        ("monitor_set", c_char_p),
        ("progress_fn", train_progress_fn),
        ("user", c_void_p),
        ("dtype", c_char_p),
        ("objective", c_char_p),
        ("settings", c_char_p),
        ("train", c_char_p),
        ("lora_rank", c_int),
        ("lora_alpha", c_double),
        ("lora_dropout", c_double),
        ("lora_rslora", c_int),
        ("lora_targets", c_char_p),
        ("merge_lora", c_int),
        ("label_fraction", c_double),
        ("features", c_char_p),
        ("targets", c_char_p),
        ("micro_batch", c_int),
        ("accumulate", c_int),
        ("recompute", c_int),
        ("weights", c_char_p),
        ("stop_on_bad_row", c_int),
        ("comm", POINTER(radz_comm)),
        ("vectors", c_char_p),
        ("ema", c_double),
        ("keep", c_char_p),
        ("set_weights", c_char_p),
        ("drop_path", c_double),
        ("film_cache_bytes", c_int64),
    )


class radz_train_plan(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("n_steps", c_int64),
        ("n_train", c_int64),
        ("n_val", c_int64),
        ("n_left_out", c_int64),
        ("n_bad_rows", c_int64),
        ("n_parameters", c_uint64),
        ("n_trained", c_uint64),
        ("weight_bytes", c_uint64),
        ("optimizer_bytes", c_uint64),
        ("activation_bytes", c_uint64),
        ("film_bytes", c_uint64),
        ("seconds_per_step", c_double),
        ("process_bytes", c_uint64),
    )


# Result, then parameters. radz_status as a result stands for: an error here is an exception.
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "radz_version": (c_char_p,),
    "radz_disclaimer": (c_char_p,),
    "radz_status_name": (c_char_p, c_int),
    "radz_runtime_options_init_sized": (None, POINTER(radz_runtime_options), c_size_t),
    "radz_runtime_create": (
        radz_status,
        POINTER(radz_runtime_options),
        POINTER(POINTER(radz_runtime)),
        POINTER(radz_error),
    ),
    "radz_runtime_close": (None, POINTER(radz_runtime)),
    "radz_runtime_device": (c_char_p, POINTER(radz_runtime)),
    "radz_runtime_kernels": (c_char_p, POINTER(radz_runtime)),
    "radz_runtime_products": (c_char_p, POINTER(radz_runtime)),
    "radz_kernels_available": (c_char_p, c_size_t),
    "radz_model_options_init_sized": (None, POINTER(radz_model_options), c_size_t),
    "radz_model_open": (
        radz_status,
        POINTER(radz_runtime),
        c_char_p,
        POINTER(radz_model_options),
        POINTER(POINTER(radz_model)),
        POINTER(radz_error),
    ),
    "radz_model_close": (None, POINTER(radz_model)),
    "radz_model_embedding_dim": (c_size_t, POINTER(radz_model)),
    "radz_model_hash": (c_char_p, POINTER(radz_model)),
    "radz_model_family": (c_char_p, POINTER(radz_model)),
    "radz_model_name": (c_char_p, POINTER(radz_model)),
    "radz_model_device": (c_char_p, POINTER(radz_model)),
    "radz_model_info_init_sized": (None, POINTER(radz_model_info), c_size_t),
    "radz_model_get_info": (radz_status, POINTER(radz_model), POINTER(radz_model_info), POINTER(radz_error)),
    "radz_model_unused_tensor": (c_char_p, POINTER(radz_model), c_size_t),
    "radz_quantize_options_init_sized": (None, POINTER(radz_quantize_options), c_size_t),
    "radz_model_quantize": (
        radz_status,
        POINTER(radz_runtime),
        c_char_p,
        c_char_p,
        POINTER(radz_quantize_options),
        POINTER(radz_error),
    ),
    "radz_session_options_init_sized": (None, POINTER(radz_session_options), c_size_t),
    "radz_session_open": (
        radz_status,
        POINTER(radz_model),
        POINTER(radz_session_options),
        POINTER(POINTER(radz_session)),
        POINTER(radz_error),
    ),
    "radz_session_close": (None, POINTER(radz_session)),
    "radz_session_bytes": (c_size_t, POINTER(radz_session)),
    "radz_image_open": (
        radz_status,
        POINTER(radz_runtime),
        c_char_p,
        POINTER(POINTER(radz_image)),
        POINTER(radz_error),
    ),
    "radz_image_open_memory": (
        radz_status,
        POINTER(radz_runtime),
        c_void_p,
        c_size_t,
        POINTER(POINTER(radz_image)),
        POINTER(radz_error),
    ),
    "radz_image_from_pixels": (
        radz_status,
        POINTER(radz_runtime),
        c_void_p,
        c_int,
        c_size_t,
        c_size_t,
        c_size_t,
        POINTER(POINTER(radz_image)),
        POINTER(radz_error),
    ),
    "radz_image_close": (None, POINTER(radz_image)),
    "radz_image_width": (c_size_t, POINTER(radz_image)),
    "radz_image_height": (c_size_t, POINTER(radz_image)),
    "radz_image_sha256": (c_char_p, POINTER(radz_image)),
    "radz_image_pixels": (c_void_p, POINTER(radz_image)),
    "radz_image_channels": (c_int, POINTER(radz_image)),
    "radz_image_bits": (c_int, POINTER(radz_image)),
    "radz_image_is_dicom": (c_int, POINTER(radz_image)),
    "radz_image_warning_count": (c_size_t, POINTER(radz_image)),
    "radz_image_warning": (c_char_p, POINTER(radz_image), c_size_t),
    "radz_embed_options_init_sized": (None, POINTER(radz_embed_options), c_size_t),
    "radz_embed_dim": (c_size_t, POINTER(radz_model), POINTER(radz_embed_options)),
    "radz_embed_images": (
        radz_status,
        POINTER(radz_session),
        POINTER(POINTER(radz_image)),
        c_size_t,
        POINTER(radz_embed_options),
        POINTER(c_float),
        POINTER(radz_error),
    ),
    "radz_embed_texts": (
        radz_status,
        POINTER(radz_session),
        POINTER(c_char_p),
        c_size_t,
        POINTER(radz_embed_options),
        POINTER(c_float),
        POINTER(radz_error),
    ),
    "radz_vectors_save": (
        radz_status,
        c_char_p,
        POINTER(c_char_p),
        POINTER(c_float),
        c_size_t,
        c_size_t,
        POINTER(radz_error),
    ),
    "radz_bank_build": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank_entry),
        c_size_t,
        POINTER(POINTER(radz_bank)),
        POINTER(radz_error),
    ),
    "radz_bank_build_file": (
        radz_status,
        POINTER(radz_session),
        c_char_p,
        POINTER(POINTER(radz_bank)),
        POINTER(radz_error),
    ),
    "radz_bank_open": (radz_status, POINTER(radz_model), c_char_p, POINTER(POINTER(radz_bank)), POINTER(radz_error)),
    "radz_bank_save": (radz_status, POINTER(radz_bank), c_char_p, POINTER(radz_error)),
    "radz_bank_with": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank),
        POINTER(radz_bank_entry),
        c_size_t,
        POINTER(POINTER(radz_bank)),
        POINTER(radz_error),
    ),
    "radz_bank_without": (
        radz_status,
        POINTER(radz_bank),
        POINTER(c_char_p),
        c_size_t,
        POINTER(POINTER(radz_bank)),
        POINTER(radz_error),
    ),
    "radz_bank_score": (
        radz_status,
        POINTER(radz_bank),
        POINTER(c_float),
        c_size_t,
        POINTER(c_double),
        POINTER(radz_error),
    ),
    "radz_bank_close": (None, POINTER(radz_bank)),
    "radz_bank_count": (c_size_t, POINTER(radz_bank)),
    "radz_bank_dim": (c_size_t, POINTER(radz_bank)),
    "radz_bank_reference": (c_size_t, POINTER(radz_bank)),
    "radz_bank_label": (c_char_p, POINTER(radz_bank), c_size_t),
    "radz_bank_description": (c_char_p, POINTER(radz_bank), c_size_t),
    "radz_bank_anchor": (POINTER(c_float), POINTER(radz_bank), c_size_t),
    "radz_bank_calibrate": (
        radz_status,
        POINTER(radz_bank),
        c_char_p,
        c_char_p,
        POINTER(POINTER(radz_bank)),
        POINTER(radz_error),
    ),
    "radz_bank_calibration": (c_char_p, POINTER(radz_bank)),
    "radz_bank_threshold": (c_double, POINTER(radz_bank), c_size_t),
    "radz_bank_hash": (c_char_p, POINTER(radz_bank)),
    "radz_bank_model_hash": (c_char_p, POINTER(radz_bank)),
    "radz_classify": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank),
        POINTER(radz_image),
        POINTER(POINTER(radz_result)),
        POINTER(radz_error),
    ),
    "radz_classify_file": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank),
        c_char_p,
        POINTER(POINTER(radz_result)),
        POINTER(radz_error),
    ),
    "radz_classify_batch": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank),
        POINTER(POINTER(radz_image)),
        c_size_t,
        POINTER(POINTER(radz_result)),
        POINTER(radz_error),
    ),
    "radz_classify_files": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank),
        POINTER(c_char_p),
        c_size_t,
        film_fn,
        c_void_p,
        POINTER(radz_error),
    ),
    "radz_result_close": (None, POINTER(radz_result)),
    "radz_result_count": (c_size_t, POINTER(radz_result)),
    "radz_result_label": (c_char_p, POINTER(radz_result), c_size_t),
    "radz_result_probability": (c_double, POINTER(radz_result), c_size_t),
    "radz_result_similarity": (c_double, POINTER(radz_result), c_size_t),
    "radz_result_threshold": (c_double, POINTER(radz_result), c_size_t),
    "radz_result_width": (c_size_t, POINTER(radz_result)),
    "radz_result_height": (c_size_t, POINTER(radz_result)),
    "radz_result_sha256": (c_char_p, POINTER(radz_result)),
    "radz_result_warning_count": (c_size_t, POINTER(radz_result)),
    "radz_result_warning": (c_char_p, POINTER(radz_result), c_size_t),
    "radz_result_json": (radz_status, POINTER(radz_result), c_char_p, POINTER(POINTER(c_char)), POINTER(radz_error)),
    "radz_error_json": (radz_status, POINTER(radz_error), c_char_p, POINTER(POINTER(c_char)), POINTER(radz_error)),
    "radz_text_free": (None, POINTER(c_char)),
    "radz_heatmap_options_init_sized": (None, POINTER(radz_heatmap_options), c_size_t),
    "radz_heatmap_side": (c_size_t, POINTER(radz_model)),
    "radz_heatmap_patches": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank),
        POINTER(radz_image),
        c_char_p,
        POINTER(radz_heatmap_options),
        POINTER(c_float),
        POINTER(radz_error),
    ),
    "radz_heatmap_expand": (
        radz_status,
        POINTER(radz_model),
        POINTER(radz_image),
        POINTER(c_float),
        POINTER(c_float),
        POINTER(radz_error),
    ),
    "radz_heatmap": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank),
        POINTER(radz_image),
        c_char_p,
        POINTER(radz_heatmap_options),
        POINTER(c_float),
        POINTER(radz_error),
    ),
    "radz_heatmap_picture_init_sized": (None, POINTER(radz_heatmap_picture), c_size_t),
    "radz_heatmap_save_png": (
        radz_status,
        c_char_p,
        POINTER(radz_image),
        POINTER(c_float),
        POINTER(radz_heatmap_picture),
        POINTER(radz_error),
    ),
    "radz_heatmap_pointing": (
        radz_status,
        POINTER(c_float),
        c_size_t,
        c_size_t,
        POINTER(radz_box),
        c_size_t,
        POINTER(c_int),
        POINTER(c_double),
        POINTER(radz_error),
    ),
    "radz_heatmap_score_init_sized": (None, POINTER(radz_heatmap_score), c_size_t),
    "radz_heatmap_measure": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank),
        POINTER(radz_image),
        c_char_p,
        POINTER(c_float),
        c_size_t,
        POINTER(radz_heatmap_score),
        POINTER(c_double),
        POINTER(radz_error),
    ),
    "radz_dicom_options_init_sized": (None, POINTER(radz_dicom_options), c_size_t),
    "radz_dicom_build_sr": (
        radz_status,
        POINTER(radz_image),
        POINTER(radz_result),
        POINTER(radz_dicom_options),
        POINTER(POINTER(radz_dicom)),
        POINTER(radz_error),
    ),
    "radz_dicom_build_sc": (
        radz_status,
        POINTER(radz_image),
        POINTER(radz_result),
        c_char_p,
        POINTER(c_float),
        POINTER(radz_dicom_options),
        POINTER(POINTER(radz_dicom)),
        POINTER(radz_error),
    ),
    "radz_dicom_build_gsps": (
        radz_status,
        POINTER(radz_image),
        POINTER(radz_result),
        c_char_p,
        POINTER(c_float),
        POINTER(radz_dicom_options),
        POINTER(POINTER(radz_dicom)),
        POINTER(radz_error),
    ),
    "radz_dicom_close": (None, POINTER(radz_dicom)),
    "radz_dicom_bytes": (c_void_p, POINTER(radz_dicom)),
    "radz_dicom_size": (c_size_t, POINTER(radz_dicom)),
    "radz_dicom_class_uid": (c_char_p, POINTER(radz_dicom)),
    "radz_dicom_series_uid": (c_char_p, POINTER(radz_dicom)),
    "radz_dicom_instance_uid": (c_char_p, POINTER(radz_dicom)),
    "radz_dicom_save": (radz_status, POINTER(radz_dicom), c_char_p, POINTER(radz_error)),
    "radz_score_options_init_sized": (None, POINTER(radz_score_options), c_size_t),
    "radz_scorer_open": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank),
        POINTER(radz_score_options),
        POINTER(POINTER(radz_scorer)),
        POINTER(radz_error),
    ),
    "radz_scorer_close": (None, POINTER(radz_scorer)),
    "radz_scorer_count": (c_size_t, POINTER(radz_scorer)),
    "radz_scorer_label": (c_char_p, POINTER(radz_scorer), c_size_t),
    "radz_scorer_threshold": (c_double, POINTER(radz_scorer), c_size_t),
    "radz_scorer_score": (
        radz_status,
        POINTER(radz_scorer),
        POINTER(c_float),
        POINTER(c_float),
        c_size_t,
        POINTER(c_double),
        POINTER(c_double),
        POINTER(radz_error),
    ),
    "radz_metrics_options_init_sized": (None, POINTER(radz_metrics_options), c_size_t),
    "radz_metrics_init_sized": (None, POINTER(radz_metrics), c_size_t),
    "radz_metrics_measure": (
        radz_status,
        POINTER(c_double),
        POINTER(c_byte),
        c_size_t,
        POINTER(radz_metrics_options),
        POINTER(radz_metrics),
        POINTER(radz_error),
    ),
    "radz_metrics_find_threshold": (
        radz_status,
        POINTER(c_double),
        POINTER(c_byte),
        c_size_t,
        c_int,
        POINTER(c_double),
        POINTER(radz_error),
    ),
    "radz_metrics_bootstrap": (
        radz_status,
        POINTER(c_double),
        POINTER(c_byte),
        POINTER(c_size_t),
        c_size_t,
        POINTER(radz_metrics_options),
        POINTER(radz_metrics),
        POINTER(radz_metrics),
        POINTER(radz_error),
    ),
    "radz_metrics_curve": (
        radz_status,
        POINTER(c_double),
        POINTER(c_byte),
        c_size_t,
        c_int,
        POINTER(c_double),
        POINTER(c_double),
        POINTER(c_double),
        POINTER(c_size_t),
        POINTER(radz_error),
    ),
    "radz_generate_options_init_sized": (None, POINTER(radz_generate_options), c_size_t),
    "radz_generate": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_image),
        c_char_p,
        POINTER(radz_generate_options),
        POINTER(POINTER(c_char)),
        POINTER(radz_error),
    ),
    "radz_describe_options_init_sized": (None, POINTER(radz_describe_options), c_size_t),
    "radz_bank_describe": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank_entry),
        c_size_t,
        POINTER(radz_describe_options),
        POINTER(POINTER(radz_bank)),
        POINTER(radz_error),
    ),
    "radz_bank_describe_file": (
        radz_status,
        POINTER(radz_session),
        c_char_p,
        POINTER(radz_describe_options),
        POINTER(POINTER(radz_bank)),
        POINTER(radz_error),
    ),
    "radz_bank_edit": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank),
        c_char_p,
        c_char_p,
        POINTER(POINTER(radz_bank)),
        POINTER(radz_error),
    ),
    "radz_bank_is_written": (c_int, POINTER(radz_bank), c_size_t),
    "radz_bank_writer": (c_char_p, POINTER(radz_bank)),
    "radz_eval_options_init_sized": (None, POINTER(radz_eval_options), c_size_t),
    "radz_eval_options_preset": (radz_status, POINTER(radz_eval_options), c_char_p, POINTER(radz_error)),
    "radz_evaluate": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_bank),
        POINTER(radz_eval_options),
        POINTER(radz_error),
    ),
    "radz_train_options_init_sized": (None, POINTER(radz_train_options), c_size_t),
    "radz_trainer_open": (
        radz_status,
        POINTER(radz_runtime),
        POINTER(radz_train_options),
        POINTER(POINTER(radz_trainer)),
        POINTER(radz_error),
    ),
    "radz_train_options_preset": (radz_status, POINTER(radz_train_options), c_char_p, POINTER(radz_error)),
    "radz_trainer_plan": (radz_status, POINTER(radz_trainer), c_int, POINTER(radz_train_plan), POINTER(radz_error)),
    "radz_trainer_run": (radz_status, POINTER(radz_trainer), POINTER(radz_error)),
    "radz_trainer_close": (None, POINTER(radz_trainer)),
    "radz_method_options_init_sized": (None, POINTER(radz_method_options), c_size_t),
    "radz_method_scores": (
        radz_status,
        POINTER(radz_session),
        POINTER(radz_image),
        POINTER(c_char_p),
        c_size_t,
        POINTER(radz_method_options),
        POINTER(c_double),
        POINTER(POINTER(c_char)),
        POINTER(radz_error),
    ),
}
