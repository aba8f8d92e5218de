/* eval_html.h - parts of report.html. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_EVAL_HTML_H
#define RZ_EVAL_HTML_H

#include "eval.h"

enum { RZ_HTML_COLORS = 14 };
const char *rz_html_color(size_t i);                     /* again from the first one after the last */
void rz_html_put_safe(rz_str *s, const char *text);      /* anything from files: no markup gets through */
void rz_html_put_fixed(rz_str *s, double v, int digits); /* so many digits after the point; a dash for no number */

/* "img_text", or "model: img_text" where there are several models. */
void rz_html_put_row_name(rz_str *s, const rz_eval_method *m);

/* Arrays for the films of one class. */
typedef struct rz_html_scratch {
    const rz_host *host;
    double *scores, *x, *y, *t;
    signed char *truth;
    rz_ranked ranked; /* of rz_html_rank, to be freed */
} rz_html_scratch;
radz_status rz_html_rank(const rz_eval *e, const rz_eval_method *m, const rz_eval_table *t, size_t c,
                         rz_html_scratch *w, radz_error *err) RZ_CHECK;

/* Methods beside each other: figures, sets, classes. */
void rz_html_put_comparison(rz_str *s, const rz_eval *e);
/* One method, e->methods[i]: its tables and plots. */
radz_status rz_html_put_method(rz_str *s, const rz_eval *e, size_t i, rz_html_scratch *w, radz_error *err) RZ_CHECK;
/* Heat maps against boxes; nothing where there are none. */
radz_status rz_html_put_boxes(rz_str *s, const rz_eval *e, radz_error *err) RZ_CHECK;
/* ROC, precision and recall, reliability of every class. */
radz_status rz_html_put_plots(rz_str *s, const rz_eval *e, const rz_eval_method *m, const rz_eval_table *t,
                              rz_html_scratch *w, radz_error *err) RZ_CHECK;
/* t-SNE of one model's image vectors; nothing where it has none. */
radz_status rz_html_put_cloud(rz_str *s, const rz_eval_arm *arm, radz_error *err) RZ_CHECK;
/* Best and worst films of every class by this method, with heat maps where it has a direction. */
radz_status rz_html_put_examples(rz_str *s, const rz_eval *e, const rz_eval_method *m, rz_html_scratch *w,
                                 radz_error *err) RZ_CHECK;
/* Films with boxes and every heat map of them. */
radz_status rz_html_put_boxed(rz_str *s, const rz_eval_arm *arm, radz_error *err) RZ_CHECK;

#endif
