/* modeldir.h - the files of a model directory beside its weights. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_MODELDIR_H
#define RZ_MODELDIR_H

#include "base.h"

radz_status rz_file_hash(const rz_host *host, const char *path, char hex[65], radz_error *err) RZ_CHECK;
/* sha256 over everything in `dir` that training from it depends on: settings, tokenizer, weights. */
radz_status rz_modeldir_hash(const rz_host *host, const char *dir, char hex[65], radz_error *err) RZ_CHECK;
/* Copies config.json, preprocessor_config.json or processor_config.json and the tokenizer from one directory to
 * another, for weights that are written as floats whatever they were. tower (NULL: none): a vision tower in a directory
 * of its own that moves in: config.json gets its vision_config, and where `from` has no preprocessor_config.json its
 * own is taken. */
radz_status rz_modeldir_copy(const rz_host *host, const char *from, const char *tower, const char *to,
                             radz_error *err) RZ_CHECK;
/* Writes text as dir/name. */
radz_status rz_modeldir_put(const rz_host *host, const char *dir, const char *name, const char *text, size_t n,
                            radz_error *err) RZ_CHECK;
bool rz_modeldir_has(const rz_host *host, const char *dir, const char *name);

#endif
