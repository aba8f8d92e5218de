/* saliency.h - which patches of a film speak for a class. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_SALIENCY_H
#define RZ_SALIENCY_H

#include "encode.h"

/* With h the decoder's rows after n_blocks, x its input rows, S the rows that make the film's vector, p the row of a
 * patch, d the direction, and heads averaged in A_b, the attention of block b:
 *   SIMILARITY  unit(gamma_img(h_p)) . d: the patch's row read as if it were pooled alone
 *   ATTENTION   mean over s in S of R[s, p]. R = B_last ... B_first with B = (A + I) / 2 (rollout), or the mean of A
 *   GRADIENT    sum over channels of x_p * d(score) / d(x_p), score = unit(gamma_img(mean over S of h_s)) . d */
typedef enum rz_saliency_method {
    RZ_SALIENCY_SIMILARITY,
    RZ_SALIENCY_ATTENTION,
    RZ_SALIENCY_GRADIENT
} rz_saliency_method;

typedef struct rz_saliency {
    rz_saliency_method method;
    rz_rows rows;           /* S: RZ_ROWS_SPECIAL or RZ_ROWS_LAST */
    size_t n_blocks;        /* as in rz_pick: all blocks, then the final norm too */
    size_t first_block;     /* ATTENTION: blocks first_block .. n_blocks - 1 */
    bool mean;              /* ATTENTION: the blocks' mean */
    const float *direction; /* (radz.dim): an anchor, or an anchor minus another one; not read by ATTENTION */
} rz_saliency;

/* Patches along a side of the tower's square. */
size_t rz_patch_side(const rz_config *cfg);
/* map (side * side), host memory, row by row; complete on return unless the stream failed. Same bits for any number of
 * threads. For attention and gradient the activations of all decoder blocks are kept. */
void rz_saliency_map(const rz_net *net, const rz_item *film, const rz_saliency *heat, float *map);

#endif
