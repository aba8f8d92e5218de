/* tsne.c - exact t-SNE for the few hundred points of a figure. SPDX-License-Identifier: Apache-2.0 */
#include "tsne.h"

enum { STEPS = 500, EXAGGERATED = 120, SEARCH = 50 };

static double distance(const float *a, const float *b, size_t dim)
{
    double sum = 0;
    for (size_t i = 0; i < dim; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum;
}

/* Row i of p from squared distances: the Gaussian whose entropy is that of `perplexity` equal neighbours. */
static void fill_row(double *p, size_t n, size_t i, double perplexity)
{
    double low = 0, high = INFINITY, beta = 1, want = log(perplexity), nearest = INFINITY;
    for (size_t j = 0; j < n; j++)
        if (j != i && p[j] < nearest) nearest = p[j];
    for (int k = 0; k < SEARCH; k++) {
        double sum = 0, mean = 0;
        for (size_t j = 0; j < n; j++) {
            double w = j == i ? 0 : exp(-(p[j] - nearest) * beta);
            sum += w, mean += w * (p[j] - nearest);
        }
        // cppcheck-suppress invalidFunctionArg ; the sum has the largest term, exp(0), in it
        double entropy = log(sum) + beta * mean / sum;
        if (entropy > want)
            low = beta, beta = isinf(high) ? 2 * beta : (beta + high) / 2;
        else
            high = beta, beta = (beta + low) / 2;
    }
    double sum = 0;
    for (size_t j = 0; j < n; j++) sum += p[j] = j == i ? 0 : exp(-(p[j] - nearest) * beta);
    for (size_t j = 0; j < n; j++) p[j] /= sum;
}

static void fill_affinities(double *p, const float *v, size_t dim, const size_t *rows, size_t n)
{
    const double third = ((double)n - 1) / 3, perplexity = third < 30 ? (third < 1 ? 1 : third) : 30;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) p[i * n + j] = distance(v + rows[i] * dim, v + rows[j] * dim, dim);
        fill_row(p + i * n, n, i, perplexity);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) p[i * n + j] = p[j * n + i] = (p[i * n + j] + p[j * n + i]) / (2 * (double)n);
}

static void step(const double *p, size_t n, int t, double *xy, double *speed, double *gain, double *force)
{
    double sum = 0, exaggerate = t < EXAGGERATED ? 12 : 1, momentum = t < EXAGGERATED ? 0.5 : 0.8;
    const double rate = (double)n / 12 > 50 ? (double)n / 12 : 50;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) {
            double dx = xy[2 * i] - xy[2 * j], dy = xy[2 * i + 1] - xy[2 * j + 1];
            sum += 2 / (1 + dx * dx + dy * dy);
        }
    memset(force, 0, 2 * n * sizeof *force);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) {
            double dx = xy[2 * i] - xy[2 * j], dy = xy[2 * i + 1] - xy[2 * j + 1];
            double q = 1 / (1 + dx * dx + dy * dy), f = 4 * (exaggerate * p[i * n + j] - q / sum) * q;
            force[2 * i] += f * dx, force[2 * i + 1] += f * dy;
            force[2 * j] -= f * dx, force[2 * j + 1] -= f * dy;
        }
    for (size_t k = 0; k < 2 * n; k++) {
        gain[k] = (force[k] > 0) != (speed[k] > 0) ? gain[k] + 0.2 : gain[k] * 0.8;
        if (gain[k] < 0.01) gain[k] = 0.01;
        speed[k] = momentum * speed[k] - rate * gain[k] * force[k];
        xy[k] += speed[k];
    }
}

radz_status rz_tsne(const rz_host *host, const float *vectors, size_t dim, const size_t *rows, size_t n, uint64_t seed,
                    double *xy, radz_error *err)
{
    rz_rng rng;
    double *p = rz_calloc(host, n, n * sizeof *p), *state = rz_calloc(host, n, 6 * sizeof *state);
    radz_status status = p && state ? RADZ_OK : RZ_NO_MEMORY(err, "t-SNE");
    rz_rng_seed(&rng, seed, 0x75E);
    for (size_t k = 0; k < 2 * n; k++) xy[k] = 1e-4 * rz_rng_normal(&rng);
    if (!status && n > 2) {
        fill_affinities(p, vectors, dim, rows, n);
        for (size_t k = 0; k < 2 * n; k++) state[2 * n + k] = 1;
        for (int t = 0; t < STEPS; t++) step(p, n, t, xy, state, state + 2 * n, state + 4 * n);
    }
    rz_free(host, p);
    rz_free(host, state);
    return status;
}
