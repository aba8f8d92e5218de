/* comma_locale.h - a locale that writes 0,5. SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMA_LOCALE_H
#define COMMA_LOCALE_H

#include <stdbool.h>

/* Makes such a locale out of nothing (no locale of the system is needed), sets LC_NUMERIC to it and checks that the C
 * library's own numbers have a comma now. False where localedef is missing: skip() then. */
bool comma_locale_enter(void);
/* Back to "C". */
void comma_locale_leave(void);

#endif
