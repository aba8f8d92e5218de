/* Which process this is, to notice a fork.
 * SPDX-License-Identifier: Apache-2.0 */
#include <unistd.h>

#include "base.h"

long rz_process_id(void)
{
    return (long)getpid();
}
