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

bool comma_locale_enter(void)
{
    char dir[] = "/tmp/radz-locale-XXXXXX", command[400];
    if (!mkdtemp(dir)) return false;
    snprintf(command, sizeof command,
             "cd %s && printf 'LC_NUMERIC\\ndecimal_point \",\"\\nthousands_sep \".\"\\ngrouping 3;3\\nEND "
             "LC_NUMERIC\\n' >source "
             "&& localedef -c -i ./source ./comma >/dev/null 2>&1",
             dir);
    /* localedef complains of the categories that the source leaves out, and makes the locale. */
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
