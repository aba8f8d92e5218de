/* The checks every public function starts with: handles, shared ownership, options.
 * SPDX-License-Identifier: Apache-2.0 */
#include "handles.h"

void rz_handle_init(rz_handle *h)
{
    atomic_init(&h->refs, 1);
    h->pid = rz_process_id();
}

void rz_handle_hold(rz_handle *h)
{
    atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
}

bool rz_handle_drop(rz_handle *h)
{
    if (h->pid != rz_process_id()) return false;
    return atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) == 1;
}

radz_status rz_handle_check(const rz_handle *h, const char *function, const char *name, radz_error *err)
{
    if (!h) return rz_fail(err, RADZ_E_ARGUMENT, "%s: %s is NULL", function, name);
    if (h->pid != rz_process_id())
        return rz_fail(err, RADZ_E_STATE, "%s: %s was made before fork(): open it again in this process", function,
                       name);
    return RADZ_OK;
}

/* No options struct will ever be larger: a larger number is memory that was never initialised. */
#define MAX_OPTIONS 4096

radz_status rz_struct_size_check(size_t given, const char *function, const char *name, radz_error *err)
{
    if (given >= sizeof given && given <= MAX_OPTIONS && given % sizeof given == 0) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT, "%s: %s->struct_size is %zu: fill the struct with its _init function",
                   function, name, given);
}

void rz_options_give(void *options, size_t struct_size, const void *defaults, size_t known_size)
{
    if (!options || struct_size < sizeof struct_size) return;
    memset(options, 0, struct_size);
    memcpy(options, defaults, struct_size < known_size ? struct_size : known_size);
    memcpy(options, &struct_size, sizeof struct_size);
}

radz_status rz_options_take(void *known, size_t known_size, const void *options, const char *function, radz_error *err)
{
    size_t given;
    if (!options) return RADZ_OK;
    memcpy(&given, options, sizeof given);
    RZ_TRY(rz_struct_size_check(given, function, "options", err));
    const unsigned char *bytes = options;
    for (size_t i = known_size; i < given; i++)
        if (bytes[i])
            return rz_fail(err, RADZ_E_UNSUPPORTED,
                           "%s: options uses a field that libradz %s does not know (struct_size %zu, known %zu)",
                           function, radz_version(), given, known_size);
    memcpy(known, options, given < known_size ? given : known_size);
    memcpy(known, &known_size, sizeof known_size);
    return RADZ_OK;
}
