/* engine.h - runs the blocks of a kernel, one after another, its threads as fibers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_ENGINE_H
#define RZ_ENGINE_H

#include <functional>
#include <string>

#include "emulator.h"

enum { EMULATOR_SHARED = 229376 }; /* bytes of shared memory that a block may have, a multiple of the page size */

struct emulated_launch {
    std::string kernel;
    uint3 grid, block;
    size_t shared_bytes; /* dynamic */
    std::function<void()> thread;
};

/* Order of blocks, warps and lanes: EMULATOR_ORDER=forward, backward, or mixed (the default: another one each time). */
void emulator_run(const emulated_launch &launch);
/* In a kernel at this moment: writes kernel, block and thread to text. False outside of kernels. */
bool emulator_where(char *text, size_t size);

#endif
