/* ops.h - what a device is made of: memory functions and one table of ops, the same list for every device.
 * The functions of device.h check the stream and call through it. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_OPS_H
#define RZ_OPS_H

#include <sys/types.h>

#include "device.h"

/* Same arguments and meaning as the rz_ function of that name in device.h. The stream has not failed. */
struct rz_ops {
    void (*close)(rz_device *dev);
    void *(*alloc)(rz_device *dev, size_t n_bytes); /* 64-byte aligned, NULL on failure */
    void (*free)(rz_device *dev, void *p);
    void (*memory)(rz_device *dev, size_t *n_free, size_t *n_all); /* bytes; 0: not known. NULL: host memory */
    bool (*open_stream)(rz_stream *s, radz_error *err);            /* fills s->impl; NULL: there is nothing to fill */
    void (*close_stream)(rz_stream *s);                            /* after the last op; s->impl may be NULL */
    void (*sync)(rz_stream *s);
    void (*upload)(rz_stream *s, void *dst, const void *host, size_t n_bytes);
    void (*download)(rz_stream *s, void *host, const void *src, size_t n_bytes);
    void (*copy)(rz_stream *s, void *dst, const void *src, size_t n_bytes);
    void (*fill)(rz_stream *s, float *y, float value, size_t n);
    size_t (*pack)(rz_device *dev, rz_mat w, size_t rows, void *to); /* NULL: nothing is gained by it */
    void (*gemm)(rz_stream *s, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b,
                 float beta, float *c, size_t ldc);
    void (*sum)(rz_stream *s, float *y, const float *a, const float *b, size_t n);
    void (*scale)(rz_stream *s, float *y, float a, size_t n);
    void (*add_bias)(rz_stream *s, float *y, const float *b, size_t rows, size_t cols);
    void (*add_bias_bwd)(rz_stream *s, float *db, const float *dy, size_t rows, size_t cols);
    void (*dropout)(rz_stream *s, float *y, const float *x, float p, uint64_t seed, const uint64_t *keys, size_t rows,
                    size_t cols);
    void (*to_bf16)(rz_stream *s, uint16_t *y, const float *x, size_t n);
    void (*gather)(rz_stream *s, float *y, rz_mat table, const int32_t *ids, size_t rows, size_t cols);
    void (*copy_rows)(rz_stream *s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
                      const int32_t *src_rows, size_t n, size_t cols);
    void (*add_rows)(rz_stream *s, float *dst, size_t dst_ld, const int32_t *dst_rows, const float *src, size_t src_ld,
                     const int32_t *src_rows, size_t n, size_t cols);
    void (*pool_mean)(rz_stream *s, float *y, const float *x, const int32_t *rows, const int32_t *start,
                      size_t n_groups, size_t cols);
    void (*pool_mean_bwd)(rz_stream *s, float *dx, const float *dy, const int32_t *rows, const int32_t *start,
                          size_t n_groups, size_t cols);
    void (*l2norm)(rz_stream *s, float *y, float *norm, const float *x, size_t rows, size_t cols);
    void (*l2norm_bwd)(rz_stream *s, float *dx, const float *dy, const float *y, const float *norm, size_t rows,
                       size_t cols);
    void (*layernorm)(rz_stream *s, float *y, float *stats, const float *x, const float *w, const float *b, float eps,
                      size_t rows, size_t cols);
    void (*layernorm_bwd)(rz_stream *s, float *dx, float *dw, float *db, const float *dy, const float *x,
                          const float *stats, const float *w, size_t rows, size_t cols);
    void (*rmsnorm)(rz_stream *s, float *y, float *rstd, const float *x, const float *w, float eps, size_t rows,
                    size_t cols);
    void (*rmsnorm_bwd)(rz_stream *s, float *dx, float *dw, const float *dy, const float *x, const float *rstd,
                        const float *w, size_t rows, size_t cols);
    void (*act)(rz_stream *s, rz_act_kind kind, float *y, const float *x, size_t n);
    void (*act_bwd)(rz_stream *s, rz_act_kind kind, float *dx, const float *dy, const float *x, size_t n);
    void (*gated)(rz_stream *s, rz_act_kind kind, float *y, const float *gate, const float *up, size_t n);
    void (*gated_bwd)(rz_stream *s, rz_act_kind kind, float *dgate, float *dup, const float *dy, const float *gate,
                      const float *up, size_t n);
    void (*rope)(rz_stream *s, float *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale, size_t rows,
                 size_t n_heads, size_t head_dim, bool inverse);
    void (*attention)(rz_stream *s, const rz_attn *a, float *out, float *lse, const float *q, const float *k,
                      const float *v);
    void (*attention_bwd)(rz_stream *s, const rz_attn *a, float *dq, float *dk, float *dv, const float *dout,
                          const float *out, const float *lse, const float *q, const float *k, const float *v);
    void (*half_linear)(rz_stream *s, uint16_t *y, size_t ldy, const uint16_t *x, size_t ldx, rz_mat w,
                        const float *bias, size_t m, size_t n, size_t k);
    void (*half_linear_add)(rz_stream *s, float *h, size_t ldh, const uint16_t *x, size_t ldx, rz_mat w,
                            const float *bias, size_t m, size_t n, size_t k);
    void (*half_norm)(rz_stream *s, uint16_t *y, const float *x, const float *w, const float *b, float eps, size_t rows,
                      size_t cols);
    void (*half_rope)(rz_stream *s, uint16_t *x, size_t ld, const int32_t *pos, const float *inv_freq, float scale,
                      size_t rows, size_t n_heads, size_t head_dim);
    void (*half_attention)(rz_stream *s, const rz_attn *a, uint16_t *out, const uint16_t *q, const uint16_t *k,
                           const uint16_t *v);
    void (*half_act)(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *x, size_t n);
    void (*half_gated)(rz_stream *s, rz_act_kind kind, uint16_t *y, const uint16_t *gate, const uint16_t *up, size_t ld,
                       size_t rows, size_t cols);
    void (*half_to_f32)(rz_stream *s, float *y, const uint16_t *x, size_t n);
    void (*patchify)(rz_stream *s, float *y, const float *pixels, size_t n, size_t channels, size_t size, size_t patch);
    void (*softmax_xent)(rz_stream *s, float *loss, float *dlogits, const float *logits, const float *targets,
                         const float *keep, float weight, size_t rows, size_t cols);
    double (*dot)(rz_stream *s, const float *x, const float *y, size_t n);
    void (*adamw_step)(rz_stream *s, const rz_adamw *o, const rz_adamw_slot *slots, size_t n_slots);
};

struct rz_kernels;
struct rz_gemm_kernels;
struct rz_int_kernels; /* cpu/cpu.h */

struct rz_device {
    const rz_host *host;
    rz_host host_copy;
    struct rz_ops ops;
    void *impl; /* what the device keeps for itself; NULL: nothing */
    bool is_host, is_half;
    rz_pool *pool;
    const struct rz_kernels *kernels; /* CPU: the kernel set */
    const struct rz_int_kernels *int8, *int4;
    const struct rz_gemm_kernels *bf16; /* NULL: rounded numbers through those for floats */
    bool openblas;                      /* CPU: the GEMM provider */
    char name[128], products[224];
};

struct rz_chunk {
    uint8_t *data;
    size_t size, most; /* bytes; the most of them that were in use at once */
};

struct rz_arena {
    struct rz_chunk *chunks;
    size_t n_chunks, current, used; /* bump pointer: chunk `current`, `used` bytes of it */
    bool on_host;
};

struct rz_stream {
    rz_device *dev;
    void *impl;     /* what the device keeps for it; NULL: nothing */
    pid_t pid;      /* the process that opened it */
    radz_error err; /* err.code: RADZ_OK while all is well */
    struct rz_arena device, host;
    rz_stream **beside; /* of rz_stream_beside */
    size_t n_beside;
};

/* Fills name, ops, kernels of a CPU device (cpu/cpu.c). */
radz_status rz_cpu_open(rz_device *dev, const rz_device_options *o, radz_error *err) RZ_CHECK;
/* The same of an NVIDIA GPU (cuda/cuda.c). RADZ_E_DEVICE says in one line why there is none: no driver, too old, no
 * GPU, no cuBLAS, built without nvcc. */
radz_status rz_cuda_open(rz_device *dev, const rz_device_options *o, radz_error *err) RZ_CHECK;

#endif
