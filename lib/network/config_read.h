/* config_read.h - the parts that config.c puts together. `where` names the JSON object for errors; a key that is
 * missing leaves *out as it is. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_CONFIG_READ_H
#define RZ_CONFIG_READ_H

#include "config.h"

#define RZ_MAX_WIDTH (1 << 20) /* hidden sizes */
#define RZ_MAX_LAYERS 1024

/* ---- Values and files (config_read.c) ---- */

radz_status rz_read_size(const json_t *obj, const char *where, const char *key, int64_t min, int64_t max, size_t *out,
                         radz_error *err) RZ_CHECK;
radz_status rz_read_float(const json_t *obj, const char *where, const char *key, double min, double max, float *out,
                          radz_error *err) RZ_CHECK;
radz_status rz_read_act(const json_t *obj, const char *where, const char *key, rz_act_kind *out,
                        radz_error *err) RZ_CHECK;
/* In place of *out, which is freed. */
radz_status rz_read_copy(const rz_host *host, const json_t *obj, const char *where, const char *key, char **out,
                         radz_error *err) RZ_CHECK;
typedef radz_status rz_json_reader(const json_t *root, rz_config *cfg, radz_error *err);
/* Reads dir/name; a file that is absent is fine unless it is required. */
radz_status rz_read_json_file(rz_config *cfg, const char *dir, const char *name, bool required, rz_json_reader *read,
                              radz_error *err) RZ_CHECK;

/* ---- The text decoder (config_text.c) ---- */

radz_status rz_read_text(const json_t *obj, const char *where, bool mistral, rz_text_config *t,
                         radz_error *err) RZ_CHECK;
/* Tokens that end a text: of config.json, of generation_config.json. */
rz_json_reader rz_read_ends, rz_read_generation;

/* ---- The vision tower (config_tower.c) ---- */

radz_status rz_read_vision(const json_t *obj, const char *where, rz_vision_config *v, radz_error *err) RZ_CHECK;
/* Fills cfg->vision_dir, where the tower is not in the checkpoint. */
radz_status rz_find_tower(const rz_source *src, rz_config *cfg, radz_error *err) RZ_CHECK;
/* What the tower is: its own configuration, or its tensors where nothing describes it. */
radz_status rz_describe_tower(const rz_source *src, rz_config *cfg, radz_error *err) RZ_CHECK;

/* ---- Films (config_films.c), radz.json (config_radz.c) ---- */

/* Of dir, as transformers 5 looks for them: image_processor in processor_config.json, else preprocessor_config.json.
 * cfg->films_from stays NULL where neither is there. */
radz_status rz_read_films(rz_config *cfg, const char *dir, radz_error *err) RZ_CHECK;
rz_json_reader rz_read_radz;

#endif
