/* adamw_args.h - what the host gives the optimiser's kernel. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_ADAMW_ARGS_H
#define RZ_ADAMW_ARGS_H

#include <stddef.h>
#include <stdint.h>

/* A block moves RZ_ADAMW_TILE weights of one slot. A kernel's arguments may be 4 KiB long. */
enum { RZ_ADAMW_SLOTS = 64, RZ_ADAMW_TILE = 4096, RZ_ADAMW_THREADS = 256 };

struct rz_adamw_args {
    float grad_scale, beta1, beta2, eps;
    float step_size, inv_root_c2; /* lr / (1 - beta1^t); 1 / sqrt(1 - beta2^t) */
    unsigned n_slots;
    unsigned first_block[RZ_ADAMW_SLOTS]; /* of each slot */
    struct rz_adamw_array {
        float *w, *m, *v;
        const float *g;
        uint16_t *half;
        size_t n;
        float decay; /* 1 - lr wd */
    } slots[RZ_ADAMW_SLOTS];
};

#endif
