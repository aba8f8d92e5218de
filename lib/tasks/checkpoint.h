/* checkpoint.h - a training run in one file, written whole or not at all. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_CHECKPOINT_H
#define RZ_CHECKPOINT_H

#include "optimizer.h"

/* Where a run stands, besides its tensors. */
typedef struct rz_run_state {
    int64_t step, draw; /* optimiser steps done; rows drawn */
    int64_t best_step;  /* 0: no validation yet */
    double best_value;
    double seconds; /* spent training */
    uint8_t *bad;   /* (n_rows) rows found unusable */
    size_t n_rows;
} rz_run_state;

/* safetensors: per trained parameter P "P" (weight), "P/m", "P/v" and, where one is kept, "P/average", all F32;
 * "rows.bad" U8; metadata "state" and "options", both JSON. options: an object of strings, what must be the same when
 * the run goes on. */
radz_status rz_checkpoint_save(const char *path, const rz_optimizer *o, rz_stream *s, const rz_run_state *state,
                               const char *options, radz_error *err) RZ_CHECK;
/* RADZ_E_MISMATCH names the first option that differs. On failure weights may be half loaded: give up. */
radz_status rz_checkpoint_load(const char *path, rz_optimizer *o, rz_stream *s, rz_run_state *state,
                               const char *options, radz_error *err) RZ_CHECK;

#endif
