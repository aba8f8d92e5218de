/* kernels.h - the kernels by name. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_EMULATED_KERNELS_H
#define RZ_EMULATED_KERNELS_H

#include <stddef.h>

#include <functional>

struct emulated_kernel {
    const char *name;
    std::function<void()> (*bind)(void **args); /* copies the arguments; what one thread runs */
};

bool emulated_kernels_add(const emulated_kernel *table, size_t n);
/* NULL: there is none. */
const emulated_kernel *emulated_kernel_find(const char *name);

#endif
