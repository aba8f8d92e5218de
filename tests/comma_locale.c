/* comma_locale.c - a locale that writes 0,5. SPDX-License-Identifier: Apache-2.0 */
#include "comma_locale.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool has_comma(void)
{
    char text[16];
    snprintf(text, sizeof text, "%.1f", 0.5);
    return !strcmp(text, "0,5");
}

/* Its own character map too: a bare system has none. localedef complains of the categories that are left out, and
 * makes the locale. */
static const char make_locale[] = "cd %s && printf 'CHARMAP\\n<U0000>..<U007F> /x00 x\\nEND CHARMAP\\n' >charmap && "
                                  "printf 'LC_NUMERIC\\ndecimal_point \",\"\\nthousands_sep \".\"\\n"
                                  "grouping 3;3\\nEND LC_NUMERIC\\n' >source && "
                                  "localedef -c -f ./charmap -i ./source ./comma >/dev/null 2>&1";

bool comma_locale_enter(void)
{
    char dir[] = "/tmp/radz-locale-XXXXXX", command[sizeof make_locale + sizeof dir];
    if (!mkdtemp(dir)) return false;
    snprintf(command, sizeof command, make_locale, dir);
    if (system(command) == -1) return false;
    setenv("LOCPATH", dir, 1);
    setlocale(LC_NUMERIC, "comma");
    unsetenv("LOCPATH");
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) == 0 && has_comma();
}

void comma_locale_leave(void)
{
    setlocale(LC_ALL, "C");
}
