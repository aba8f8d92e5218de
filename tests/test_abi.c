/* test_abi.c - sizes, offsets and numbers of radz.h that programs already built have compiled in (LP64).
 * A struct may grow at its end (then only its SIZE changes here); nothing else may change.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "radz.h"

#define SIZE(type, n) assert_int_equal(sizeof(type), n)
#define AT(type, field, n) assert_int_equal(offsetof(type, field), n)

static void numbers(void **state)
{
    (void)state;
    assert_int_equal(RADZ_OK, 0);
    assert_int_equal(RADZ_E_ARGUMENT, 1);
    assert_int_equal(RADZ_E_MEMORY, 2);
    assert_int_equal(RADZ_E_IO, 3);
    assert_int_equal(RADZ_E_FORMAT, 4);
    assert_int_equal(RADZ_E_UNSUPPORTED, 5);
    assert_int_equal(RADZ_E_LIMIT, 6);
    assert_int_equal(RADZ_E_MISMATCH, 7);
    assert_int_equal(RADZ_E_DEVICE, 8);
    assert_int_equal(RADZ_E_CANCELLED, 9);
    assert_int_equal(RADZ_E_STATE, 10);
    assert_int_equal(RADZ_E_INTERNAL, 11);
    SIZE(radz_status, 4);
    assert_int_equal(RADZ_LOG_DEBUG, 0);
    assert_int_equal(RADZ_LOG_INFO, 1);
    assert_int_equal(RADZ_LOG_WARNING, 2);
    SIZE(radz_log_level, 4);
    assert_int_equal(RADZ_VISION_AUTO, 0);
    assert_int_equal(RADZ_VISION_CHECKPOINT, 1);
    assert_int_equal(RADZ_VISION_EXTERNAL, 2);
    SIZE(radz_vision_source, 4);
    assert_int_equal(RADZ_PIXELS_GRAY8, 0);
    assert_int_equal(RADZ_PIXELS_GRAY16, 1);
    assert_int_equal(RADZ_PIXELS_RGB8, 2);
    SIZE(radz_pixel_format, 4);
    assert_int_equal(RADZ_FEATURE_GLOBAL, 0);
    assert_int_equal(RADZ_FEATURE_LOCAL, 1);
    assert_int_equal(RADZ_FEATURE_LAST, 2);
    assert_int_equal(RADZ_FEATURE_ALL, 3);
    SIZE(radz_feature, 4);
    assert_int_equal(RADZ_THRESHOLD_FIXED, 0);
    assert_int_equal(RADZ_THRESHOLD_MAX_F1, 1);
    assert_int_equal(RADZ_THRESHOLD_YOUDEN, 2);
    assert_int_equal(RADZ_THRESHOLD_MCC, 3);
    SIZE(radz_threshold_rule, 4);
    assert_int_equal(RADZ_CURVE_ROC, 0);
    assert_int_equal(RADZ_CURVE_PR, 1);
    SIZE(radz_curve, 4);
    assert_int_equal(RADZ_SCORE_IMG_ANCHOR, 0);
    assert_int_equal(RADZ_SCORE_IMG_TEXT, 1);
    assert_int_equal(RADZ_SCORE_FUSED, 2);
    assert_int_equal(RADZ_SCORE_POS_NEG, 3);
    assert_int_equal(RADZ_SCORE_HIDDEN, 4);
    SIZE(radz_score_kind, 4);
    assert_int_equal(RADZ_SCORE_GLOBAL, 0);
    assert_int_equal(RADZ_SCORE_LOCAL, 1);
    assert_int_equal(RADZ_SCORE_BOTH, 2);
    SIZE(radz_score_feature, 4);
    assert_int_equal(RADZ_CLASSES_AUTO, 0);
    assert_int_equal(RADZ_CLASSES_REFERENCE, 1);
    assert_int_equal(RADZ_CLASSES_EXCLUSIVE, 2);
    assert_int_equal(RADZ_CLASSES_INDEPENDENT, 3);
    SIZE(radz_score_classes, 4);
}

static void error(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_error, 512);
    AT(radz_error, code, 0);
    AT(radz_error, message, 4);
}

static void runtime_options(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_runtime_options, 80);
    AT(radz_runtime_options, struct_size, 0);
    AT(radz_runtime_options, device, 8);
    AT(radz_runtime_options, kernels, 16);
    AT(radz_runtime_options, gemm, 24);
    AT(radz_runtime_options, n_threads, 32);
    AT(radz_runtime_options, malloc_fn, 40);
    AT(radz_runtime_options, realloc_fn, 48);
    AT(radz_runtime_options, free_fn, 56);
    AT(radz_runtime_options, log_fn, 64);
    AT(radz_runtime_options, user, 72);
}

static void model_options(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_model_options, 56);
    AT(radz_model_options, struct_size, 0);
    AT(radz_model_options, use_mmap, 8);
    AT(radz_model_options, vision_source, 12);
    AT(radz_model_options, vision_dir, 16);
    AT(radz_model_options, adapter_dir, 24);
    AT(radz_model_options, weights, 32);
    AT(radz_model_options, keep_weights, 40);
    AT(radz_model_options, memory_bytes, 48);
}

static void quantize(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_quantize_progress, 48);
    AT(radz_quantize_progress, file, 8);
    AT(radz_quantize_progress, n_done_bytes, 16);
    AT(radz_quantize_progress, n_bytes, 24);
    AT(radz_quantize_progress, n_reused_bytes, 32);
    AT(radz_quantize_progress, seconds_left, 40);
    SIZE(radz_quantize_options, 96);
    AT(radz_quantize_options, type, 8);
    AT(radz_quantize_options, keep, 16);
    AT(radz_quantize_options, vision_dir, 24);
    AT(radz_quantize_options, adapter_dir, 32);
    AT(radz_quantize_options, vision_source, 40);
    AT(radz_quantize_options, progress_fn, 48);
    AT(radz_quantize_options, user, 56);
    AT(radz_quantize_options, films, 64);
    AT(radz_quantize_options, n_films, 72);
    AT(radz_quantize_options, texts, 80);
    AT(radz_quantize_options, n_texts, 88);
}

static void model_info(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_model_info, 320);
    AT(radz_model_info, struct_size, 0);
    AT(radz_model_info, dtype, 8);
    AT(radz_model_info, tower_source, 16);
    AT(radz_model_info, tokenizer, 24);
    AT(radz_model_info, tokenizer_hash, 32);
    AT(radz_model_info, missing, 40);
    AT(radz_model_info, unused_tensor, 48);
    AT(radz_model_info, n_unused_tensors, 56);
    AT(radz_model_info, n_parameters, 64);
    AT(radz_model_info, file_bytes, 72);
    AT(radz_model_info, weight_bytes, 80);
    AT(radz_model_info, film_bytes, 88);
    AT(radz_model_info, vision_hidden, 96);
    AT(radz_model_info, vision_intermediate, 104);
    AT(radz_model_info, vision_layers, 112);
    AT(radz_model_info, vision_heads, 120);
    AT(radz_model_info, image_size_px, 128);
    AT(radz_model_info, patch_px, 136);
    AT(radz_model_info, image_rows, 144);
    AT(radz_model_info, text_hidden, 152);
    AT(radz_model_info, text_intermediate, 160);
    AT(radz_model_info, text_layers, 168);
    AT(radz_model_info, text_heads, 176);
    AT(radz_model_info, text_kv_heads, 184);
    AT(radz_model_info, head_dim, 192);
    AT(radz_model_info, vocab, 200);
    AT(radz_model_info, max_positions, 208);
    AT(radz_model_info, window, 216);
    AT(radz_model_info, embedding_dim, 224);
    AT(radz_model_info, n_image_tokens, 232);
    AT(radz_model_info, n_text_tokens, 240);
    AT(radz_model_info, layer, 248);
    AT(radz_model_info, feature_layer, 252);
    AT(radz_model_info, tau, 256);
    AT(radz_model_info, adapter, 264);
    AT(radz_model_info, adapter_hash, 272);
    AT(radz_model_info, adapter_rank, 280);
    AT(radz_model_info, n_head_classes, 288);
    AT(radz_model_info, weights, 296);
    AT(radz_model_info, streamed_bytes, 304);
    AT(radz_model_info, peak_bytes, 312);
}

static void dicom_options(void **state)
{
    (void)state;
    SIZE(radz_dicom_options, 112);
    AT(radz_dicom_options, struct_size, 0);
    AT(radz_dicom_options, labels, 8);
    AT(radz_dicom_options, threshold, 16);
    AT(radz_dicom_options, threshold_labels, 24);
    AT(radz_dicom_options, thresholds, 32);
    AT(radz_dicom_options, n_thresholds, 40);
    AT(radz_dicom_options, institution, 48);
    AT(radz_dicom_options, manufacturer, 56);
    AT(radz_dicom_options, map_method, 64);
    AT(radz_dicom_options, outline, 72);
    AT(radz_dicom_options, date_time, 80);
    AT(radz_dicom_options, key, 88);
    AT(radz_dicom_options, series_uid, 96);
    AT(radz_dicom_options, instance_uid, 104);
}

static void session_options(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_session_options, 32);
    AT(radz_session_options, struct_size, 0);
    AT(radz_session_options, cancel_fn, 8);
    AT(radz_session_options, user, 16);
    AT(radz_session_options, keep_film, 24);
    AT(radz_session_options, strict, 28);
}

static void embed_options(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_embed_options, 32);
    AT(radz_embed_options, struct_size, 0);
    AT(radz_embed_options, feature, 8);
    AT(radz_embed_options, layer, 12);
    AT(radz_embed_options, raw, 16);
    AT(radz_embed_options, image_prompt, 24);
}

static void method_options(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_method_options, 56);
    AT(radz_method_options, struct_size, 0);
    AT(radz_method_options, method, 8);
    AT(radz_method_options, per_token, 12);
    AT(radz_method_options, prompt, 16);
    AT(radz_method_options, prefix, 24);
    AT(radz_method_options, chat_template, 32);
    AT(radz_method_options, system, 40);
    AT(radz_method_options, max_tokens, 48);
    assert_int_equal(RADZ_METHOD_LIKELIHOOD, 0);
    assert_int_equal(RADZ_METHOD_COT, 3);
}

static void generate_options(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_generate_options, 88);
    AT(radz_generate_options, struct_size, 0);
    AT(radz_generate_options, max_tokens, 8);
    AT(radz_generate_options, temperature, 16);
    AT(radz_generate_options, top_p, 24);
    AT(radz_generate_options, seed, 32);
    AT(radz_generate_options, stop, 40);
    AT(radz_generate_options, n_stop, 48);
    AT(radz_generate_options, chat_template, 56);
    AT(radz_generate_options, system, 64);
    AT(radz_generate_options, token_fn, 72);
    AT(radz_generate_options, user, 80);
    SIZE(radz_generate_progress, 48);
    AT(radz_generate_progress, struct_size, 0);
    AT(radz_generate_progress, text, 8);
    AT(radz_generate_progress, token, 16);
    AT(radz_generate_progress, n_tokens, 24);
    AT(radz_generate_progress, n_prompt, 32);
    AT(radz_generate_progress, finished, 40);
}

static void describe_options(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_describe_options, 80);
    AT(radz_describe_options, struct_size, 0);
    AT(radz_describe_options, prompt, 8);
    AT(radz_describe_options, max_tokens, 16);
    AT(radz_describe_options, temperature, 24);
    AT(radz_describe_options, top_p, 32);
    AT(radz_describe_options, seed, 40);
    AT(radz_describe_options, chat_template, 48);
    AT(radz_describe_options, system, 56);
    AT(radz_describe_options, done_fn, 64);
    AT(radz_describe_options, user, 72);
}

static void bank_entry(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_bank_entry, 16);
    AT(radz_bank_entry, label, 0);
    AT(radz_bank_entry, description, 8);
}

static void train_progress(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_train_progress, 136);
    AT(radz_train_progress, struct_size, 0);
    AT(radz_train_progress, step, 8);
    AT(radz_train_progress, n_steps, 16);
    AT(radz_train_progress, epoch, 24);
    AT(radz_train_progress, loss, 32);
    AT(radz_train_progress, loss_ca, 40);
    AT(radz_train_progress, loss_cg, 48);
    AT(radz_train_progress, grad_norm, 56);
    AT(radz_train_progress, lr, 64);
    AT(radz_train_progress, tau, 72);
    AT(radz_train_progress, items_per_second, 80);
    AT(radz_train_progress, seconds_left, 88);
    AT(radz_train_progress, n_bad_rows, 96);
    AT(radz_train_progress, has_validation, 104);
    AT(radz_train_progress, val_auc, 112);
    AT(radz_train_progress, val_macro_auc, 120);
    AT(radz_train_progress, checkpoint, 128);
}

static void train_options(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_train_options, 424);
    AT(radz_train_options, struct_size, 0);
    AT(radz_train_options, model_dir, 8);
    AT(radz_train_options, manifest, 16);
    AT(radz_train_options, image_root, 24);
    AT(radz_train_options, out_dir, 32);
    AT(radz_train_options, diseases, 40);
    AT(radz_train_options, label_map, 48);
    AT(radz_train_options, resume, 56);
    AT(radz_train_options, seed, 64);
    AT(radz_train_options, epochs, 72);
    AT(radz_train_options, stop_after_steps, 80);
    AT(radz_train_options, batch_size, 88);
    AT(radz_train_options, lr, 96);
    AT(radz_train_options, weight_decay, 104);
    AT(radz_train_options, beta1, 112);
    AT(radz_train_options, beta2, 120);
    AT(radz_train_options, eps, 128);
    AT(radz_train_options, warmup_fraction, 136);
    AT(radz_train_options, clip_norm, 144);
    AT(radz_train_options, lambda, 152);
    AT(radz_train_options, tau, 160);
    AT(radz_train_options, learn_tau, 168);
    AT(radz_train_options, mask_false_negatives, 172);
    AT(radz_train_options, balance_sets, 176);
    AT(radz_train_options, augment, 180);
    AT(radz_train_options, checkpoint_every, 184);
    AT(radz_train_options, validate_every, 192);
    AT(radz_train_options, monitor, 200);
    AT(radz_train_options, monitor_set, 208);
    AT(radz_train_options, progress_fn, 216);
    AT(radz_train_options, user, 224);
    AT(radz_train_options, dtype, 232);
    AT(radz_train_options, objective, 240);
    AT(radz_train_options, settings, 248);
    AT(radz_train_options, train, 256);
    AT(radz_train_options, lora_rank, 264);
    AT(radz_train_options, lora_alpha, 272);
    AT(radz_train_options, lora_dropout, 280);
    AT(radz_train_options, lora_rslora, 288);
    AT(radz_train_options, lora_targets, 296);
    AT(radz_train_options, merge_lora, 304);
    AT(radz_train_options, label_fraction, 312);
    AT(radz_train_options, features, 320);
    AT(radz_train_options, targets, 328);
    AT(radz_train_options, micro_batch, 336);
    AT(radz_train_options, accumulate, 340);
    AT(radz_train_options, recompute, 344);
    AT(radz_train_options, weights, 352);
    AT(radz_train_options, stop_on_bad_row, 360);
    AT(radz_train_options, comm, 368);
    AT(radz_train_options, vectors, 376);
    AT(radz_train_options, ema, 384);
    AT(radz_train_options, keep, 392);
    AT(radz_train_options, set_weights, 400);
    AT(radz_train_options, drop_path, 408);
    AT(radz_train_options, film_cache_bytes, 416);
}

static void metrics_options(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_metrics_options, 56);
    AT(radz_metrics_options, struct_size, 0);
    AT(radz_metrics_options, threshold, 8);
    AT(radz_metrics_options, strict, 16);
    AT(radz_metrics_options, both_classes, 20);
    AT(radz_metrics_options, n_bins, 24);
    AT(radz_metrics_options, n_rounds, 32);
    AT(radz_metrics_options, confidence, 40);
    AT(radz_metrics_options, seed, 48);
}

static void metrics(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_metrics, 144);
    AT(radz_metrics, struct_size, 0);
    AT(radz_metrics, n_positive, 8);
    AT(radz_metrics, n_negative, 16);
    AT(radz_metrics, tp, 24);
    AT(radz_metrics, fp, 32);
    AT(radz_metrics, tn, 40);
    AT(radz_metrics, fn, 48);
    AT(radz_metrics, auc, 56);
    AT(radz_metrics, auprc, 64);
    AT(radz_metrics, threshold, 72);
    AT(radz_metrics, f1, 80);
    AT(radz_metrics, accuracy, 88);
    AT(radz_metrics, mcc, 96);
    AT(radz_metrics, sensitivity, 104);
    AT(radz_metrics, specificity, 112);
    AT(radz_metrics, precision, 120);
    AT(radz_metrics, brier, 128);
    AT(radz_metrics, ece, 136);
}

static void heatmaps(void **state)
{
    (void)state;
    assert_int_equal(RADZ_HEATMAP_SIMILARITY, 0);
    assert_int_equal(RADZ_HEATMAP_ATTENTION, 1);
    assert_int_equal(RADZ_HEATMAP_GRADIENT, 2);
    SIZE(radz_heatmap_method, 4);
    if (sizeof(void *) != 8) skip();
    SIZE(radz_heatmap_options, 32);
    AT(radz_heatmap_options, method, 8);
    AT(radz_heatmap_options, layer, 12);
    AT(radz_heatmap_options, contrast, 16);
    AT(radz_heatmap_options, first_block, 20);
    AT(radz_heatmap_options, mean, 24);
    SIZE(radz_heatmap_picture, 40);
    AT(radz_heatmap_picture, low, 8);
    AT(radz_heatmap_picture, high, 16);
    AT(radz_heatmap_picture, opacity, 24);
    AT(radz_heatmap_picture, title, 32);
    SIZE(radz_box, 32);
    AT(radz_box, x, 0);
    AT(radz_box, y, 8);
    AT(radz_box, width, 16);
    AT(radz_box, height, 24);
    SIZE(radz_heatmap_score, 40);
    AT(radz_heatmap_score, deletion, 8);
    AT(radz_heatmap_score, insertion, 16);
    AT(radz_heatmap_score, film, 24);
    AT(radz_heatmap_score, painted, 32);
}

static void score_options(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_score_options, 72);
    AT(radz_score_options, struct_size, 0);
    AT(radz_score_options, score, 8);
    AT(radz_score_options, feature, 12);
    AT(radz_score_options, classes, 16);
    AT(radz_score_options, tau, 24);
    AT(radz_score_options, templates, 32);
    AT(radz_score_options, n_templates, 40);
    AT(radz_score_options, negatives, 48);
    AT(radz_score_options, n_negatives, 56);
    AT(radz_score_options, calibration, 64);
}

static void eval_progress(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_eval_progress, 72);
    AT(radz_eval_progress, struct_size, 0);
    AT(radz_eval_progress, n_done, 8);
    AT(radz_eval_progress, n_films, 16);
    AT(radz_eval_progress, n_failed, 24);
    AT(radz_eval_progress, n_cached, 32);
    AT(radz_eval_progress, seconds_left, 40);
    AT(radz_eval_progress, stage, 48);
    AT(radz_eval_progress, stage_done, 56);
    AT(radz_eval_progress, stage_n, 64);
}

static void eval_options(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) skip();
    SIZE(radz_eval_options, 360);
    AT(radz_eval_options, struct_size, 0);
    AT(radz_eval_options, manifest, 8);
    AT(radz_eval_options, image_root, 16);
    AT(radz_eval_options, label_map, 24);
    AT(radz_eval_options, out_dir, 32);
    AT(radz_eval_options, cache_dir, 40);
    AT(radz_eval_options, split, 48);
    AT(radz_eval_options, sets, 56);
    AT(radz_eval_options, validation, 64);
    AT(radz_eval_options, validation_split, 72);
    AT(radz_eval_options, methods, 80);
    AT(radz_eval_options, score, 88);
    AT(radz_eval_options, threshold, 160);
    AT(radz_eval_options, fixed_threshold, 168);
    AT(radz_eval_options, strict, 176);
    AT(radz_eval_options, both_classes, 180);
    AT(radz_eval_options, macro_reference, 184);
    AT(radz_eval_options, calibrate, 192);
    AT(radz_eval_options, uncertain, 200);
    AT(radz_eval_options, n_bins, 208);
    AT(radz_eval_options, n_rounds, 216);
    AT(radz_eval_options, confidence, 224);
    AT(radz_eval_options, seed, 232);
    AT(radz_eval_options, shard, 240);
    AT(radz_eval_options, n_shards, 244);
    AT(radz_eval_options, merge, 248);
    AT(radz_eval_options, n_tsne, 256);
    AT(radz_eval_options, n_examples, 264);
    AT(radz_eval_options, write_scores, 272);
    AT(radz_eval_options, progress_fn, 280);
    AT(radz_eval_options, user, 288);
    AT(radz_eval_options, writing, 296);
    AT(radz_eval_options, leave_out, 304);
    AT(radz_eval_options, name, 312);
    AT(radz_eval_options, others, 320);
    AT(radz_eval_options, n_others, 328);
    AT(radz_eval_options, boxes, 336);
    AT(radz_eval_options, n_box_steps, 344);
    AT(radz_eval_options, no_heatmaps, 352);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),          cmocka_unit_test(error),
        cmocka_unit_test(runtime_options),  cmocka_unit_test(model_options),
        cmocka_unit_test(quantize),         cmocka_unit_test(model_info),
        cmocka_unit_test(session_options),  cmocka_unit_test(dicom_options),
        cmocka_unit_test(embed_options),    cmocka_unit_test(bank_entry),
        cmocka_unit_test(train_progress),   cmocka_unit_test(train_options),
        cmocka_unit_test(metrics_options),  cmocka_unit_test(generate_options),
        cmocka_unit_test(metrics),          cmocka_unit_test(heatmaps),
        cmocka_unit_test(describe_options), cmocka_unit_test(score_options),
        cmocka_unit_test(eval_progress),    cmocka_unit_test(eval_options),
        cmocka_unit_test(method_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
