/* model_hash.h - a model by the bytes that change its vectors. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_MODEL_HASH_H
#define RZ_MODEL_HASH_H

#include "model.h"

/* Fills m->hash and m->family from the open files of m and the settings of dir. */
radz_status rz_model_hash(rz_model *m, const char *dir, radz_error *err) RZ_CHECK;
/* sha256 over what of a directory changes a vector and is no weight. */
radz_status rz_model_settings_hash(const rz_host *host, const char *dir, bool tok_is_json, char hex[65],
                                   radz_error *err) RZ_CHECK;

#endif
