/* driver.h - NVIDIA's driver and cuBLAS as far as they are used, opened at run time: nothing links them, nothing of
 * CUDA is needed to compile this. And what the CUDA device keeps for itself. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_CUDA_DRIVER_H
#define RZ_CUDA_DRIVER_H

#include <pthread.h>

#include "cuda.h"

typedef int cu_result; /* 0: success */
typedef int cu_device;
typedef struct cu_context_t *cu_context;
typedef struct cu_module_t *cu_module;
typedef struct cu_function_t *cu_function;
typedef struct cu_stream_t *cu_stream;
typedef struct cu_event_t *cu_event;
typedef unsigned long long cu_address; /* of device memory */

enum {
    CU_OUT_OF_MEMORY = 2, /* results */
    CU_NO_DEVICE = 100,
    CU_NOT_FOUND = 500,
    CU_MULTIPROCESSORS = 16, /* attributes of a device */
    CU_CAPABILITY_MAJOR = 75,
    CU_CAPABILITY_MINOR = 76,
    CU_MAX_SHARED = 97,
    CU_FUNCTION_SHARED = 8, /* attribute of a function: bytes of dynamic shared memory that it may ask for */
    CU_STREAM_NON_BLOCKING = 1,
    CU_EVENT_NO_TIMING = 2,
};

/* A function of the driver: name here, symbol, arguments. _v2: the ABI of 64-bit addresses. */
/* clang-format off */
#define RZ_CU_FUNCTIONS(X) \
    X(init, cuInit, (unsigned flags)) \
    X(driver_version, cuDriverGetVersion, (int *version)) \
    X(device_get, cuDeviceGet, (cu_device *device, int ordinal)) \
    X(device_count, cuDeviceGetCount, (int *n)) \
    X(device_name, cuDeviceGetName, (char *name, int size, cu_device device)) \
    X(device_attribute, cuDeviceGetAttribute, (int *value, int attribute, cu_device device)) \
    X(device_memory, cuDeviceTotalMem_v2, (size_t *n_bytes, cu_device device)) \
    X(context_retain, cuDevicePrimaryCtxRetain, (cu_context *context, cu_device device)) \
    X(context_release, cuDevicePrimaryCtxRelease_v2, (cu_device device)) \
    X(context_push, cuCtxPushCurrent_v2, (cu_context context)) \
    X(context_pop, cuCtxPopCurrent_v2, (cu_context *context)) \
    X(context_sync, cuCtxSynchronize, (void)) \
    X(memory_info, cuMemGetInfo_v2, (size_t *free, size_t *total)) \
    X(alloc, cuMemAlloc_v2, (cu_address *p, size_t n_bytes)) \
    X(free, cuMemFree_v2, (cu_address p)) \
    X(alloc_host, cuMemAllocHost_v2, (void **p, size_t n_bytes)) \
    X(free_host, cuMemFreeHost, (void *p)) \
    X(to_device, cuMemcpyHtoDAsync_v2, (cu_address dst, const void *src, size_t n_bytes, cu_stream stream)) \
    X(to_host, cuMemcpyDtoHAsync_v2, (void *dst, cu_address src, size_t n_bytes, cu_stream stream)) \
    X(copy, cuMemcpyDtoDAsync_v2, (cu_address dst, cu_address src, size_t n_bytes, cu_stream stream)) \
    X(stream_create, cuStreamCreate, (cu_stream *stream, unsigned flags)) \
    X(stream_destroy, cuStreamDestroy_v2, (cu_stream stream)) \
    X(stream_sync, cuStreamSynchronize, (cu_stream stream)) \
    X(event_create, cuEventCreate, (cu_event *event, unsigned flags)) \
    X(event_destroy, cuEventDestroy_v2, (cu_event event)) \
    X(event_record, cuEventRecord, (cu_event event, cu_stream stream)) \
    X(event_sync, cuEventSynchronize, (cu_event event)) \
    X(module_load, cuModuleLoadData, (cu_module *module, const void *image)) \
    X(module_unload, cuModuleUnload, (cu_module module)) \
    X(module_function, cuModuleGetFunction, (cu_function *function, cu_module module, const char *name)) \
    X(function_set, cuFuncSetAttribute, (cu_function function, int attribute, int value)) \
    X(launch, cuLaunchKernel, (cu_function function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, \
                               unsigned bz, unsigned shared_bytes, cu_stream stream, void **args, void **extra)) \
    X(error_name, cuGetErrorName, (cu_result result, const char **name)) \
    X(error_text, cuGetErrorString, (cu_result result, const char **text))

typedef struct cublas_t *cublas_handle;
enum {
    CUBLAS_OP_N = 0,
    CUBLAS_OP_T = 1,
    CUBLAS_F32 = 0, /* types of data */
    CUBLAS_F16 = 2,
    CUBLAS_BF16 = 14,
    CUBLAS_COMPUTE_32F = 68,
    CUBLAS_ALGORITHM_DEFAULT = -1,
    CUBLAS_REDUCE_IN_COMPUTE_TYPE = 16, /* math mode: partial sums are never rounded to the type of the result */
};
#define RZ_CUBLAS_FUNCTIONS(X) \
    X(create, cublasCreate_v2, (cublas_handle *handle)) \
    X(destroy, cublasDestroy_v2, (cublas_handle handle)) \
    X(version, cublasGetVersion_v2, (cublas_handle handle, int *version)) \
    X(set_stream, cublasSetStream_v2, (cublas_handle handle, cu_stream stream)) \
    X(set_workspace, cublasSetWorkspace_v2, (cublas_handle handle, void *p, size_t n_bytes)) \
    X(set_math, cublasSetMathMode, (cublas_handle handle, int mode)) \
    X(gemm, cublasGemmEx, (cublas_handle handle, int ta, int tb, int m, int n, int k, const void *alpha, \
                           const void *a, int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, \
                           void *c, int c_type, int ldc, int compute, int algorithm))
/* clang-format on */

#define RZ_CU_MEMBER(name, symbol, args) int(*name) args;
struct rz_cu {
    RZ_CU_FUNCTIONS(RZ_CU_MEMBER)
    int version; /* 13000: the driver knows CUDA 13.0 */
};
struct rz_cublas {
    RZ_CUBLAS_FUNCTIONS(RZ_CU_MEMBER)
};

/* The one driver of this process; started at the first call. */
radz_status rz_cu_open(const struct rz_cu **cu, radz_error *err) RZ_CHECK;
/* The one cuBLAS; it must suit the driver. */
radz_status rz_cublas_open(const struct rz_cu *cu, const struct rz_cublas **blas, radz_error *err) RZ_CHECK;

/* cuda_image.c: the fatbin of kernels_<area>.cu. NULL: built without nvcc. */
const void *rz_cuda_image(const char *area);
extern const int rz_cuda_image_version; /* 13000: made by the compiler of CUDA 13.0 */

/* ---- What a device and a stream keep (impl) ---------------------------------------------------------------- */

enum { RZ_CUDA_AREAS = 4 };
struct rz_cuda {
    const struct rz_cu *cu;
    const struct rz_cublas *blas;
    pid_t pid; /* that opened it: a forked child has no driver */
    cu_device device;
    cu_context context; /* the device's primary one, shared with the host program */
    int capability, multiprocessors;
    size_t max_shared;
    cu_module modules[RZ_CUDA_AREAS];
    cu_function kernels[RZ_N_CUDA_KERNELS];
    pthread_mutex_t lock;             /* of: */
    size_t shared[RZ_N_CUDA_KERNELS]; /* what each kernel may ask for by now */
};

/* Page-locked memory that uploads pass through: two halves in turn. */
struct rz_cuda_ring {
    uint8_t *data;
    cu_event done[2];
    size_t half_size, used; /* used: of the half in work */
    int half;
    bool full[2]; /* waits for its event */
};

struct rz_cuda_stream {
    cu_stream stream;
    cublas_handle blas;       /* NULL until the first product */
    void *workspace;          /* its */
    enum rz_cuda_kernel last; /* put in; RZ_N_CUDA_KERNELS: a product */
    struct rz_cuda_ring small, large;
};

static inline struct rz_cuda *rz_cuda_of(const rz_stream *s)
{
    return s->dev->impl;
}
/* The device's context for the calling thread, and back to what the host had there. */
void rz_cuda_enter(const struct rz_cuda *c);
void rz_cuda_leave(const struct rz_cuda *c);
/* Records a failure of the driver: "what: CUDA_ERROR_...: text". True if there was none. */
bool rz_cuda_check(rz_stream *s, cu_result result, const char *what);

#endif
