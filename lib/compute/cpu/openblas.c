/* openblas.c - OpenBLAS as the matrix product, loaded only when it was asked for by name.
 * It is never a link-time dependency: it starts threads, and may raise signals, while it loads.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <unistd.h>

#include "cpu.h"

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 }; /* of the CBLAS interface */

typedef void sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);
typedef void set_threads_fn(int n);

/* One library per process, one call at a time: concurrent callers make OpenBLAS run out of buffers. */
static struct {
    pthread_mutex_t lock;
    pid_t pid; /* that loaded it; 0: nobody yet */
    sgemm_fn *sgemm;
    set_threads_fn *set_threads;
    int n_threads;
} lib = {.lock = PTHREAD_MUTEX_INITIALIZER};

static radz_status load(radz_error *err)
{
    if (lib.pid)
        return lib.pid == getpid() ? RADZ_OK : rz_fail(err, RADZ_E_STATE, "OpenBLAS cannot be used after fork()");
    void *so = dlopen("libopenblas.so.0", RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
    if (!so) return rz_fail(err, RADZ_E_DEVICE, "libopenblas.so.0 cannot be loaded: %s", dlerror());
    void *sgemm = dlsym(so, "cblas_sgemm"), *set_threads = dlsym(so, "openblas_set_num_threads");
    if (!sgemm) return rz_fail(err, RADZ_E_DEVICE, "libopenblas.so.0 has no cblas_sgemm");
    memcpy(&lib.sgemm, &sgemm, sizeof sgemm); /* the portable way from object to function pointer */
    memcpy(&lib.set_threads, &set_threads, sizeof set_threads);
    lib.pid = getpid();
    return RADZ_OK;
}

radz_status rz_openblas_load(radz_error *err)
{
    pthread_mutex_lock(&lib.lock);
    radz_status status = load(err);
    pthread_mutex_unlock(&lib.lock);
    return status;
}

/* OpenBLAS prints when a size is wrong, so none may be. */
static bool sizes_ok(size_t rows, size_t cols, size_t ld)
{
    return rows <= INT_MAX && cols <= INT_MAX && ld <= INT_MAX && ld >= cols;
}

radz_status rz_openblas_sgemm(bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                              const float *b, size_t ldb, float beta, float *c, size_t ldc, int n_threads,
                              radz_error *err)
{
    if (!sizes_ok(ta ? k : m, ta ? m : k, lda) || !sizes_ok(tb ? n : k, tb ? k : n, ldb) || !sizes_ok(m, n, ldc))
        return rz_fail(err, RADZ_E_LIMIT, "matrix product %zu x %zu x %zu: a size does not suit OpenBLAS", m, n, k);
    pthread_mutex_lock(&lib.lock);
    radz_status status = load(err);
    if (status == RADZ_OK) {
        if (lib.set_threads && lib.n_threads != n_threads) lib.set_threads(n_threads);
        lib.n_threads = n_threads;
        lib.sgemm(ROW_MAJOR, ta ? TRANS : NO_TRANS, tb ? TRANS : NO_TRANS, (int)m, (int)n, (int)k, alpha, a, (int)lda,
                  b, (int)ldb, beta, c, (int)ldc);
    }
    pthread_mutex_unlock(&lib.lock);
    return status;
}

/* F32 as it is; half precision widened into the arena. NULL: no memory, recorded. */
static const float *as_f32(rz_stream *s, rz_mat x, size_t rows, size_t cols, size_t *ld)
{
    *ld = x.ld;
    if (x.dtype == RZ_F32) return x.data;
    float *y = rz_arena_f32(s, rows, cols);
    *ld = cols;
    for (size_t r = 0; y && r < rows; r++) rz_cpu_widen(y + r * cols, x, r * x.ld, cols);
    return y;
}

void rz_cpu_gemm_openblas(rz_stream *s, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, rz_mat a, rz_mat b,
                          float beta, float *c, size_t ldc)
{
    const bool to_round = b.compute == RZ_BF16 && !ta && tb && a.dtype == RZ_F32; /* comes back here rounded */
    /* C = beta C is the same everywhere; of integers it knows nothing */
    if (k == 0 || to_round || !rz_dtype_is_float(a.dtype) || !rz_dtype_is_float(b.dtype)) {
        rz_cpu_gemm(s, ta, tb, m, n, k, alpha, a, b, beta, c, ldc);
        return;
    }
    rz_mark mark = rz_arena_mark(s);
    size_t lda, ldb;
    const float *fa = as_f32(s, a, ta ? k : m, ta ? m : k, &lda);
    const float *fb = fa ? as_f32(s, b, tb ? n : k, tb ? k : n, &ldb) : NULL;
    radz_error err;
    if (fb && rz_openblas_sgemm(ta, tb, m, n, k, alpha, fa, lda, fb, ldb, beta, c, ldc, rz_pool_threads(s->dev->pool),
                                &err) != RADZ_OK)
        rz_stream_fail(s, err.code, "%s", err.message);
    if (fb) rz_arena_release(s, mark);
}
