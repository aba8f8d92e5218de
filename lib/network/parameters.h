/* parameters.h - the list of a model's parameters. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_PARAMETERS_H
#define RZ_PARAMETERS_H

#include "initial.h"

/* What only loading asks of a parameter, in the order of m->params. */
typedef struct rz_param_notes {
    rz_init_kind *init;
    bool *optional; /* the files may lack it */
} rz_param_notes;

/* Fills m->params and everything of m that points into it, as m->cfg, m->setup and m->lora say; no numbers yet.
 * rz_param_notes_free, also after a failure. */
radz_status rz_params_list(rz_model *m, rz_param_notes *notes, radz_error *err) RZ_CHECK;
void rz_param_notes_free(const rz_host *host, rz_param_notes *notes);

#endif
