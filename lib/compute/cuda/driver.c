/* driver.c - opens the driver and cuBLAS. SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <unistd.h>

#include "driver.h"

/* CUDA 12.0: the oldest driver that a cuBLAS works with that we open. */
enum { OLDEST_DRIVER = 12000, BLAS_13_DRIVER = 13000 };

static struct {
    pthread_mutex_t lock;
    pid_t pid; /* that started the driver; 0: nobody yet */
    struct rz_cu cu;
    bool has_blas;
    struct rz_cublas blas;
} lib = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Into a function pointer of any type: the portable way. NULL: not there. */
static bool find(void *so, const char *symbol, void *function)
{
    void *p = dlsym(so, symbol);
    memcpy(function, &p, sizeof p);
    return p != NULL;
}

#define FIND(name, symbol, args)                                                                                       \
    if (!find(so, #symbol, &table->name)) return #symbol;
/* The symbol that is missing, or NULL. */
static const char *fill_driver(void *so, struct rz_cu *table)
{
    RZ_CU_FUNCTIONS(FIND)
    return NULL;
}
static const char *fill_blas(void *so, struct rz_cublas *table)
{
    RZ_CUBLAS_FUNCTIONS(FIND)
    return NULL;
}

static radz_status start_driver(struct rz_cu *cu, radz_error *err)
{
    void *so = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!so) return rz_fail(err, RADZ_E_DEVICE, "no NVIDIA driver: %s", dlerror());
    const char *missing = fill_driver(so, cu);
    if (missing) return rz_fail(err, RADZ_E_DEVICE, "the NVIDIA driver is too old: it has no %s", missing);
    const int wanted = rz_cuda_image_version > OLDEST_DRIVER ? rz_cuda_image_version / 1000 * 1000 : OLDEST_DRIVER;
    const cu_result r = cu->driver_version(&cu->version);
    if (r == 0 && cu->version < wanted)
        return rz_fail(err, RADZ_E_DEVICE, "the NVIDIA driver is too old: it knows CUDA %d.%d, wanted is %d.%d",
                       cu->version / 1000, cu->version % 1000 / 10, wanted / 1000, wanted % 1000 / 10);
    const cu_result started = r ? r : cu->init(0);
    if (started == CU_NO_DEVICE) return rz_fail(err, RADZ_E_DEVICE, "the NVIDIA driver finds no GPU");
    if (started == 0) return RADZ_OK;
    const char *name = NULL, *text = NULL;
    cu->error_name(started, &name);
    cu->error_text(started, &text);
    return rz_fail(err, RADZ_E_DEVICE, "the NVIDIA driver does not start: %s (%s)", name ? name : "unknown error",
                   text ? text : "no text");
}

radz_status rz_cu_open(const struct rz_cu **cu, radz_error *err)
{
    radz_status status = RADZ_OK;
    pthread_mutex_lock(&lib.lock);
    if (!lib.pid) {
        status = start_driver(&lib.cu, err);
        if (status == RADZ_OK) lib.pid = getpid();
    } else if (lib.pid != getpid()) {
        status = rz_fail(err, RADZ_E_DEVICE, "the NVIDIA driver was started before fork(): a child cannot use it");
    }
    pthread_mutex_unlock(&lib.lock);
    *cu = &lib.cu;
    return status;
}

/* The first that loads, newest first; one of CUDA 13 does not run on an older driver. names: what was tried. */
static void *load_blas(int driver, rz_str *names)
{
    static const char *const known[] = {"libcublas.so.13", "/usr/local/cuda/lib64/libcublas.so.13", "libcublas.so.12",
                                        "/usr/local/cuda/lib64/libcublas.so.12"};
    for (size_t i = driver >= BLAS_13_DRIVER ? 0 : 2; i < RZ_COUNT(known); i++) {
        void *so = dlopen(known[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (so) return so;
        rz_str_printf(names, "%s%s", names->len ? ", " : "", known[i]);
    }
    return NULL;
}

static radz_status start_blas(const struct rz_cu *cu, struct rz_cublas *blas, radz_error *err)
{
    rz_str names = {0};
    void *so = load_blas(cu->version, &names);
    const char *missing = so ? fill_blas(so, blas) : NULL;
    radz_status status = RADZ_OK;
    if (!so)
        status = rz_fail(err, RADZ_E_DEVICE, "no cuBLAS for CUDA %d.%d: tried %s", cu->version / 1000,
                         cu->version % 1000 / 10, names.failed ? "all names" : names.data);
    else if (missing)
        status = rz_fail(err, RADZ_E_DEVICE, "cuBLAS has no %s", missing);
    rz_str_free(&names);
    return status;
}

radz_status rz_cublas_open(const struct rz_cu *cu, const struct rz_cublas **blas, radz_error *err)
{
    radz_status status = RADZ_OK;
    pthread_mutex_lock(&lib.lock);
    if (!lib.has_blas) status = start_blas(cu, &lib.blas, err);
    lib.has_blas = status == RADZ_OK;
    pthread_mutex_unlock(&lib.lock);
    *blas = &lib.blas;
    return status;
}
