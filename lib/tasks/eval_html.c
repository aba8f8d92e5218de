/* eval_html.c - report.html: one file, no network. SPDX-License-Identifier: Apache-2.0 */
#include "eval.h"

radz_status rz_eval_put_html(rz_str *s, const rz_eval *e, radz_error *err)
{
    (void)e, (void)err;
    rz_str_puts(s, "<!doctype html>\n");
    return RADZ_OK;
}
