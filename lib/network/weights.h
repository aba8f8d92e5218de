/* weights.h - the safetensors files of a model directory as one collection of tensors, whichever of the three layouts
 * of a LLaVA checkpoint they are named in. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_WEIGHTS_H
#define RZ_WEIGHTS_H

#include "formats.h"

typedef struct rz_weights rz_weights;

/* model.safetensors, or the shards of model.safetensors.index.json, and radz.safetensors where it exists. */
radz_status rz_weights_open(const rz_host *host, const char *dir, rz_file_mode mode, rz_weights **w,
                            radz_error *err) RZ_CHECK;
/* One file of dir. */
radz_status rz_weights_open_file(const rz_host *host, const char *dir, const char *name, rz_file_mode mode,
                                 rz_weights **w, radz_error *err) RZ_CHECK;
void rz_weights_close(rz_weights *w);
/* Metadata entry that all files of one save have in common (rz_model_save). */
#define RZ_SAVE_ID "save_id"
/* RADZ_E_MISMATCH where the one has another RZ_SAVE_ID than the first of the others' files that has one; a file without
 * belongs to any. path: of the one. */
radz_status rz_weights_same_save(const rz_weights *w, const rz_st *one, const char *path, radz_error *err) RZ_CHECK;
/* The tensor that our name (the layout of Hugging Face <= 4.51) has in these files; NULL: not there. */
const rz_st_tensor *rz_weights_find(rz_weights *w, const char *name);
/* t lies in these files. */
bool rz_weights_holds(const rz_weights *w, const rz_st_tensor *t);
/* The i-th name (0: our own) that the tensor may have; false: there are no more, or size is too small. */
bool rz_weights_alias(const char *name, size_t i, char *out, size_t size);
/* *there: the files of dir hold the tensor. */
radz_status rz_weights_hold(const rz_host *host, const char *dir, const char *name, bool *there,
                            radz_error *err) RZ_CHECK;
/* How many tensors nobody asked for, buffers such as inv_freq left out; the first max of their names go to names. */
size_t rz_weights_unused(const rz_weights *w, const char **names, size_t max);
/* Puts every file's fingerprint into the hash: all bytes of files up to 32 MiB; of larger ones the header (every
 * tensor's name, type, shape and place, the file's metadata) and the first, middle and last 4 KiB of every tensor, so
 * that opening a 7B model reads a few MB and not 14 GB. Training, merging and converting move all of a tensor's
 * numbers; a change of some numbers in the middle of a large tensor goes unseen. */
void rz_weights_hash(const rz_weights *w, rz_sha256 *hash);
/* Metadata of weights that were made from another model's (lib/tasks/quantize.c): that model's hash; the settings hash
 * (rz_model_settings_hash) of the directory they were written into. */
#define RZ_SOURCE_HASH "source_hash"
#define RZ_SOURCE_SETTINGS "source_settings"
/* Of the first file that has it; NULL: none. */
const char *rz_weights_metadata(const rz_weights *w, const char *key);
/* The i-th file and its name in the directory; NULL: there are no more. */
const rz_st *rz_weights_file(const rz_weights *w, size_t i, const char **name);
const char *rz_weights_path(const rz_weights *w, size_t i); /* of an i that it has */
/* Mapped pages that have been read are given back. */
void rz_weights_forget(const rz_weights *w);
uint64_t rz_weights_bytes(const rz_weights *w); /* of all files */
/* As rz_weights_exist, for which a failed allocation means no. */
radz_status rz_weights_there(const rz_host *host, const char *dir, bool *there, radz_error *err) RZ_CHECK;
bool rz_weights_exist(const rz_host *host, const char *dir);
/* Where there are none: an error if there are some of another kind, or shards without their index. */
radz_status rz_weights_refuse_others(const rz_host *host, const char *dir, radz_error *err) RZ_CHECK;

#endif
