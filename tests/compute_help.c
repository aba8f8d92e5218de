/* compute_help.c - see compute_help.h. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "compute_help.h"
#include "fixture.h"
#include "formats.h"
#include "host_ops.h"

const char *const *compute_sets(void)
{
    static const char *names[5];
    static const char *const all[] = {"portable", "wide", "avx2", "avx512"};
    size_t n = 0;
    if (!fixture_on_cpu()) {
        names[0] = "auto", names[1] = NULL;
        return names;
    }
    for (size_t i = 0; i < RZ_COUNT(all); i++) {
        rz_device_options o = {.kernels = all[i], .n_threads = 1};
        rz_device *dev = NULL;
        if (strcmp(all[i], "wide") != 0 && rz_device_open(NULL, &o, &dev, NULL) != RADZ_OK) continue;
        rz_device_close(dev);
        names[n++] = all[i];
    }
    names[n] = NULL;
    return names;
}

rz_stream *compute_open(const rz_host *host, const char *set, int n_threads)
{
    const bool wide = !strcmp(set, "wide");
    rz_device_options o = {.device = fixture_device(), .kernels = wide ? "portable" : set, .n_threads = n_threads};
    if (!fixture_on_cpu()) o.kernels = "auto";
    rz_device *dev;
    rz_stream *s;
    radz_error err = {0};
    if (rz_device_open(host, &o, &dev, &err) != RADZ_OK) fail_msg("%s: %s", set, err.message);
    host_ops(dev);
    if (wide) {
        dev->kernels = &rz_kernels_wide;
        dev->int8 = &rz_kernels_wide.int8, dev->int4 = &rz_kernels_wide.int4;
    }
    if (rz_stream_open(dev, &s, &err) != RADZ_OK) fail_msg("%s: %s", set, err.message);
    return s;
}

void compute_close(rz_stream *s)
{
    rz_device *dev = rz_stream_device(s);
    radz_error err = {0};
    if (rz_stream_sync(s, &err) != RADZ_OK) fail_msg("%s", err.message);
    rz_stream_close(s);
    rz_device_close(dev);
}

float *random_floats(size_t n, uint64_t seed)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    rz_rng r;
    rz_rng_seed(&r, seed, n);
    for (size_t i = 0; i < n; i++) x[i] = (float)(2 * rz_rng_uniform(&r) - 1);
    return x;
}

uint16_t *random_half(size_t n, uint64_t seed, float scale)
{
    float *x = random_floats(n, seed);
    uint16_t *y = malloc((n ? n : 1) * sizeof *y);
    for (size_t i = 0; i < n; i++) y[i] = rz_f32_to_bf16(scale * x[i]);
    free(x);
    return y;
}

float *zero_floats(size_t n)
{
    return calloc(n ? n : 1, sizeof(float));
}

double *to_double(const float *x, size_t n)
{
    double *y = malloc((n ? n : 1) * sizeof *y);
    for (size_t i = 0; i < n; i++) y[i] = (double)x[i];
    return y;
}

double act_ref(int kind, double x)
{
    switch (kind) {
    case RZ_ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case RZ_ACT_GELU:
        return x * 0.5 * erfc(-x / sqrt(2));
    case RZ_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case RZ_ACT_SILU:
        return x / (1 + exp(-x));
    default:
        return x > 0 ? x : 0;
    }
}

void assert_near(const char *what, const float *got, const double *want, size_t n, double tolerance, double floor)
{
    double scale = floor;
    for (size_t i = 0; i < n; i++)
        if (fabs(want[i]) > scale) scale = fabs(want[i]);
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= tolerance * scale))
            fail_msg("%s: element %zu of %zu is %.9g, expected %.9g (tolerance %g)", what, i, n, (double)got[i],
                     want[i], tolerance * scale);
}

void assert_same_bits(const char *what, const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            fail_msg("%s: element %zu of %zu is %.9g, expected the same bits as %.9g", what, i, n, (double)got[i],
                     (double)want[i]);
}

void assert_same_products(const char *what, const float *got, const float *want, size_t n)
{
    if (fixture_on_cpu()) {
        assert_same_bits(what, got, want, n);
        return;
    }
    double *exact = to_double(want, n);
    assert_near(what, got, exact, n, 1e-5, 1);
    free(exact);
}

void assert_gradient(const char *what, double (*loss)(void *arg), void *arg, double *param, const float *grad, size_t n)
{
    const double h = 1e-5;
    double *want = malloc((n ? n : 1) * sizeof *want);
    for (size_t i = 0; i < n; i++) {
        double keep = param[i];
        param[i] = keep + h;
        double up = loss(arg);
        param[i] = keep - h;
        want[i] = (up - loss(arg)) / (2 * h);
        param[i] = keep;
    }
    assert_near(what, grad, want, n, 2e-5, 1e-2);
    free(want);
}
