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
/* A and B of bfloat16; newer ones have it. */
typedef void sbgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const uint16_t *a, int lda,
                       const uint16_t *b, int ldb, float beta, float *c, int ldc);
typedef void set_threads_fn(int n);

/* One library per process, one call at a time: concurrent callers make OpenBLAS run out of buffers. */
static struct {
    pthread_mutex_t lock;
    pid_t pid; /* that loaded it; 0: nobody yet */
    sgemm_fn *sgemm;
    sbgemm_fn *sbgemm; /* or NULL */
    set_threads_fn *set_threads;
    int n_threads;
} lib = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lock(void)
{
    pthread_mutex_lock(&lib.lock);
}

static void unlock(void)
{
    pthread_mutex_unlock(&lib.lock);
}

static radz_status load(radz_error *err)
{
    if (lib.pid)
        return lib.pid == getpid() ? RADZ_OK : rz_fail(err, RADZ_E_STATE, "OpenBLAS cannot be used after fork()");
    void *so = dlopen("libopenblas.so.0", RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
    if (!so) return rz_fail(err, RADZ_E_DEVICE, "libopenblas.so.0 cannot be loaded: %s", dlerror());
    /* OpenBLAS's own handler frees its buffers under a product that another thread is at: forks wait for the product.
     * Handlers that came last are asked first. */
    if (pthread_atfork(lock, unlock, unlock)) return RZ_NO_MEMORY(err, "libopenblas.so.0");
    void *sgemm = dlsym(so, "cblas_sgemm"), *sbgemm = dlsym(so, "cblas_sbgemm");
    void *set_threads = dlsym(so, "openblas_set_num_threads");
    if (!sgemm) return rz_fail(err, RADZ_E_DEVICE, "libopenblas.so.0 has no cblas_sgemm");
    memcpy(&lib.sgemm, &sgemm, sizeof sgemm); /* the portable way from object to function pointer */
    memcpy(&lib.sbgemm, &sbgemm, sizeof sbgemm);
    memcpy(&lib.set_threads, &set_threads, sizeof set_threads);
    lib.pid = getpid();
    return RADZ_OK;
}

radz_status rz_openblas_load(radz_error *err)
{
    lock();
    radz_status status = load(err);
    unlock();
    return status;
}

bool rz_openblas_has_bf16(void)
{
    return lib.sbgemm;
}

/* OpenBLAS prints when a size is wrong, so none may be. */
static bool sizes_ok(size_t rows, size_t cols, size_t ld)
{
    return rows <= INT_MAX && cols <= INT_MAX && ld <= INT_MAX && ld >= cols;
}

/* A product in OpenBLAS's terms: both operands F32, or both BF16 where it has that. */
struct product {
    bool ta, tb;
    size_t m, n, k;
    float alpha, beta;
    rz_mat a, b;
    float *c;
    size_t ldc;
};

static void call(const struct product *p)
{
    const int ta = p->ta ? TRANS : NO_TRANS, tb = p->tb ? TRANS : NO_TRANS, m = (int)p->m, n = (int)p->n, k = (int)p->k;
    if (p->a.dtype == RZ_BF16)
        lib.sbgemm(ROW_MAJOR, ta, tb, m, n, k, p->alpha, p->a.data, (int)p->a.ld, p->b.data, (int)p->b.ld, p->beta,
                   p->c, (int)p->ldc);
    else
        lib.sgemm(ROW_MAJOR, ta, tb, m, n, k, p->alpha, p->a.data, (int)p->a.ld, p->b.data, (int)p->b.ld, p->beta, p->c,
                  (int)p->ldc);
}

static radz_status multiply(const struct product *p, int n_threads, radz_error *err)
{
    const size_t m = p->m, n = p->n, k = p->k;
    if (!sizes_ok(p->ta ? k : m, p->ta ? m : k, p->a.ld) || !sizes_ok(p->tb ? n : k, p->tb ? k : n, p->b.ld) ||
        !sizes_ok(m, n, p->ldc))
        return rz_fail(err, RADZ_E_LIMIT, "matrix product %zu x %zu x %zu: a size does not suit OpenBLAS", m, n, k);
    lock();
    radz_status status = load(err);
    if (status == RADZ_OK) {
        if (lib.set_threads && lib.n_threads != n_threads) lib.set_threads(n_threads);
        lib.n_threads = n_threads;
        call(p);
    }
    unlock();
    return status;
}

/* F32 as it is; half precision widened into the arena. Data NULL: no memory, recorded. */
static rz_mat as_f32(rz_stream *s, rz_mat x, size_t rows, size_t cols)
{
    if (x.dtype == RZ_F32) return x;
    float *y = rz_arena_f32(s, rows, cols);
    for (size_t r = 0; y && r < rows; r++) rz_cpu_widen(y + r * cols, x, r * x.ld, cols);
    return rz_mat_f32(y, cols);
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
    struct product p = {ta, tb, m, n, k, alpha, beta, a, b, c, ldc};
    rz_mark mark = rz_arena_mark(s);
    if (!(lib.sbgemm && a.dtype == RZ_BF16 && b.dtype == RZ_BF16)) {
        p.a = as_f32(s, a, ta ? k : m, ta ? m : k);
        if (p.a.data) p.b = as_f32(s, b, tb ? n : k, tb ? k : n);
    }
    if (!p.a.data || !p.b.data) return;
    radz_error err;
    if (multiply(&p, rz_pool_threads(s->dev->pool), &err) != RADZ_OK) rz_stream_fail(s, err.code, "%s", err.message);
    rz_arena_release(s, mark);
}
