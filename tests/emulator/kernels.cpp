/* kernels.cpp - the kernels of one .cu file: SOURCE is its name, KERNELS(X) lists them (from cuda.h). An argument that
 * is an address must lie in device memory when the kernel runs. SPDX-License-Identifier: Apache-2.0 */
#include "kernels.h"

#include <tuple>
#include <utility>

#include "machine.h"
#include SOURCE

#include "lists.h"

namespace
{

template <class T> void check_argument(size_t i, T x)
{
    if constexpr (std::is_pointer<T>::value) {
        if (!x || emulator_is_device((const void *)x, 0)) return;
        emulator_say("argument %zu is not an address in device memory: %p", i, (const void *)x);
        rz_emulator_abort("bad argument");
    }
}

template <class... A, size_t... I>
std::function<void()> bind_arguments(void (*f)(A...), void **args, std::index_sequence<I...>)
{
    std::tuple<A...> copy(*(A *)args[I]...);
    return [=] {
        if (threadIdx.x + threadIdx.y + threadIdx.z + blockIdx.x + blockIdx.y + blockIdx.z == 0)
            (check_argument(I, std::get<I>(copy)), ...);
        std::apply(f, copy);
    };
}
template <class... A> std::function<void()> bind(void (*f)(A...), void **args)
{
    return bind_arguments(f, args, std::index_sequence_for<A...>());
}

} // namespace

#define ENTRY(kernel) {"rz_k_" #kernel, [](void **args) { return bind(rz_k_##kernel, args); }},
static const emulated_kernel TABLE[] = {KERNELS(ENTRY)};
static const bool ADDED = emulated_kernels_add(TABLE, sizeof TABLE / sizeof *TABLE);
