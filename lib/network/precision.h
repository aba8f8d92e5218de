/* precision.h - in what numbers a model's weights are kept and multiplied: as the files have them, or converted when
 * they are loaded or written anew. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_PRECISION_H
#define RZ_PRECISION_H

#include "model.h"

/* type: NULL: as stored; "f32", "bf16", "int8", "int4", the last two also with their group ("int4/32").
 * group: 0: 128 where the type says none. keep: NULL: what has been measured to matter for the type. The strings are
 * the caller's and outlive *out. RADZ_E_ARGUMENT for what is not known. */
radz_status rz_precision_parse(const char *type, int group, const char *keep, rz_precision *out,
                               radz_error *err) RZ_CHECK;
/* What it says where the caller says nothing; "" for none. */
const char *rz_precision_default_keep(rz_weights_type type);
/* What matrix `name` (a parameter's) becomes: RZ_WEIGHTS_STORED where it is one of keep's: commas between parts of the
 * network ("embeddings", "tower", "projector", "lm_head", "heads", "first", "last": that decoder block of those that
 * vectors depend on) and patterns of names, where '*' stands for anything. Behind either "=int8" keeps it in eight bits
 * where the rest becomes four. The first word that fits decides. */
rz_weights_type rz_precision_becomes(const rz_precision *precision, const rz_config *cfg, const char *name);
/* "int8, groups of 128", "bf16, products of bf16"; "": as stored. */
void rz_precision_text(const rz_precision *precision, rz_str *s);

/* A matrix (rows, cols) that is to become other numbers, from a tensor of the files (whatever it holds) or from floats.
 */
typedef struct rz_matrix_source {
    const char *name;
    size_t rows, cols;
    const rz_st_tensor *tensor; /* NULL: floats */
    const rz_quantised *q;      /* of a tensor of integers */
    const float *floats;
} rz_matrix_source;
/* Rows [first, first + n) as dtype into data, and with I8 and I4 scales (bf16, one per row and group) into scale, both
 * of which are for row `first`; pool NULL: on this thread. The same bits for any number of threads. RADZ_E_FORMAT, with
 * the row, where a number is not finite. */
radz_status rz_precision_convert(const rz_host *host, rz_pool *pool, const rz_matrix_source *from, size_t first,
                                 size_t n, rz_dtype dtype, size_t group, void *data, uint16_t *scale,
                                 radz_error *err) RZ_CHECK;
/* What tensor t becomes as parameter `name`: its own type where it stays. *dtype is of what lies in memory, *compute of
 * the products. merged: it is floats, an adapter having been added. RADZ_E_MISMATCH where integers would become other
 * integers. */
radz_status rz_precision_of(const rz_precision *precision, const rz_config *cfg, const char *name,
                            const rz_st_tensor *t, bool merged, rz_dtype *dtype, rz_dtype *compute, bool *converts,
                            radz_error *err) RZ_CHECK;

#endif
