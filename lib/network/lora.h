/* lora.h - a PEFT adapter (LoRA): what it changes in which parameter. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_LORA_H
#define RZ_LORA_H

#include "model.h"
#include "weights.h"

typedef struct rz_lora rz_lora;

/* adapter_config.json and adapter_model.safetensors of dir. A setting that changes results and is not known here is
 * RADZ_E_UNSUPPORTED by name. */
radz_status rz_lora_open(const rz_host *host, const char *dir, rz_file_mode mode, rz_lora **lora,
                         radz_error *err) RZ_CHECK;
/* Directory of the model that the adapter in dir belongs to, by base_model_name_or_path: absolute, or relative to dir
 * or to the working directory. RADZ_E_IO where no model is there. */
radz_status rz_lora_base(const rz_host *host, const char *dir, char **base, radz_error *err) RZ_CHECK;
void rz_lora_close(rz_lora *lora);
/* The tensor that takes the whole place of the checkpoint's; NULL: none. */
const rz_st_tensor *rz_lora_replacement(rz_lora *lora, const char *name);
/* True when rz_lora_merge would change the parameter; `name` as in the model, of the
 * embedding table for a tied head. */
bool rz_lora_changes(rz_lora *lora, const char *name);
/* w, p's numbers in plain memory: W + scale B A, or rows of a table replaced. Merged once, at loading: inference costs
 * nothing more than without. */
radz_status rz_lora_merge(rz_lora *lora, rz_pool *pool, const rz_param *p, const char *name, float *w,
                          radz_error *err) RZ_CHECK;
/* New rows of the embedding table are new rows of a head tied to it; its LoRA is not the head's. */
radz_status rz_lora_merge_tied(rz_lora *lora, const rz_param *head, const char *table, float *w,
                               radz_error *err) RZ_CHECK;
/* The next tensor, from *i = 0 on, that has found no place; NULL: no more. */
const char *rz_lora_unused(const rz_lora *lora, size_t *i);
bool rz_lora_ties(const rz_lora *lora); /* ensure_weight_tying */
/* RADZ_E_MISMATCH where its weights and the radz.safetensors beside them are of different saves. */
radz_status rz_lora_same_save(const rz_lora *lora, const rz_weights *radz, radz_error *err) RZ_CHECK;
const char *rz_lora_dir(const rz_lora *lora);
size_t rz_lora_rank(const rz_lora *lora);    /* r of adapter_config.json */
uint64_t rz_lora_bytes(const rz_lora *lora); /* of its weight file */
void rz_lora_hash(const rz_lora *lora, rz_sha256 *hash);

#endif
