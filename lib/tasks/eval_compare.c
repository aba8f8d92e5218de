/* eval_compare.c - methods and models against the first one, on the same draws of patients.
 * SPDX-License-Identifier: Apache-2.0 */
#include "eval.h"

static radz_status open_differences(const rz_eval *e, rz_eval_table *t, double **scratch, radz_error *err)
{
    *scratch = rz_calloc(e->host, t->rounds.n, sizeof **scratch);
    t->macro = rz_calloc(e->host, RZ_N_FIGURES, sizeof *t->macro);
    t->auc = rz_calloc(e->host, e->data.n_classes, sizeof *t->auc);
    return *scratch && t->macro && t->auc ? RADZ_OK : RZ_NO_MEMORY(err, "differences");
}

static radz_status compare(const rz_eval *e, rz_eval_table *t, const rz_eval_table *first, radz_error *err)
{
    const size_t n = t->rounds.n, n_classes = e->data.n_classes;
    const double confidence = e->o->confidence;
    double *scratch = NULL;
    radz_status status = open_differences(e, t, &scratch, err);
    for (size_t k = 0; k < RZ_N_FIGURES && !status; k++) {
        rz_difference_of(t->rounds.macro + k * n, first->rounds.macro + k * n, n, confidence, scratch, &t->macro[k]);
        t->macro[k].value = rz_figure_of(&t->cells[n_classes].m, k) - rz_figure_of(&first->cells[n_classes].m, k);
    }
    for (size_t c = 0; c < n_classes && !status; c++) {
        rz_difference_of(t->rounds.auc + c * n, first->rounds.auc + c * n, n, confidence, scratch, &t->auc[c]);
        t->auc[c].value = t->cells[c].m.auc - first->cells[c].m.auc;
    }
    rz_free(e->host, scratch);
    return status;
}

radz_status rz_eval_compare(rz_eval *e, size_t i, radz_error *err)
{
    rz_eval_method *m = &e->methods[i], *first = &e->methods[0];
    for (size_t t = 0; t < m->n_tables && i; t++) {
        if (m->tables[t].rounds.n) RZ_TRY(compare(e, &m->tables[t], &first->tables[t], err));
        rz_rounds_free(&m->tables[t].rounds);
    }
    for (size_t t = 0; t < first->n_tables && i + 1 == e->n_methods; t++) rz_rounds_free(&first->tables[t].rounds);
    return RADZ_OK;
}
