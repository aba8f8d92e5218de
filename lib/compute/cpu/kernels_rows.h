/* kernels_rows.h - activations, norms and the softmax loss, vector by vector. Part of kernels.h.
 * SPDX-License-Identifier: Apache-2.0 */

/* ---- Activations ------------------------------------------------------------------------- */

#define TANH_A 1.5957691216f /* 2 sqrt(2 / pi): gelu_tanh(x) = x sigmoid(A (x + B x^3)) */
#define TANH_B 0.044715f
#define QUICK 1.702f
#define INV_SQRT_2PI 0.39894228040f

/* The activation of x to *y and its derivative to *d; `kind` is a constant where this is inlined. */
INLINE void act_both(rz_act_kind kind, vf x, vf *y, vf *d)
{
    vf u = x, du = v_set(1.0f), s;
    switch (kind) {
    case RZ_ACT_RELU:
        *y = v_select(x < (vf){0}, (vf){0}, x);
        *d = v_select(x > (vf){0}, v_set(1.0f), (vf){0} * x); /* NaN stays */
        return;
    case RZ_ACT_GELU:
        s = v_normal_cdf(x, &u);
        *y = x * s;
        *d = v_fma(x * u, v_set(INV_SQRT_2PI), s);
        return;
    case RZ_ACT_GELU_TANH:
        u = TANH_A * (x * v_fma(TANH_B * x, x, v_set(1.0f)));
        du = TANH_A * v_fma(3 * TANH_B * x, x, v_set(1.0f));
        break;
    case RZ_ACT_QUICK_GELU:
        u = QUICK * x;
        du = v_set(QUICK);
        break;
    case RZ_ACT_SILU:
        break;
    }
    s = v_sigmoid(u);
    *y = x * s;
    *d = s + x * du * (s * (1.0f - s));
}

/* Calls F(kind, ...) with a constant kind. */
#define EACH_KIND(kind, F, ...)                                                                                        \
    switch (kind) {                                                                                                    \
    case RZ_ACT_QUICK_GELU:                                                                                            \
        F(RZ_ACT_QUICK_GELU, __VA_ARGS__);                                                                             \
        break;                                                                                                         \
    case RZ_ACT_GELU:                                                                                                  \
        F(RZ_ACT_GELU, __VA_ARGS__);                                                                                   \
        break;                                                                                                         \
    case RZ_ACT_GELU_TANH:                                                                                             \
        F(RZ_ACT_GELU_TANH, __VA_ARGS__);                                                                              \
        break;                                                                                                         \
    case RZ_ACT_SILU:                                                                                                  \
        F(RZ_ACT_SILU, __VA_ARGS__);                                                                                   \
        break;                                                                                                         \
    case RZ_ACT_RELU:                                                                                                  \
        F(RZ_ACT_RELU, __VA_ARGS__);                                                                                   \
        break;                                                                                                         \
    }

INLINE void act_loop(rz_act_kind kind, float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += W) {
        vf v, d;
        act_both(kind, v_load_n(x + i, n - i), &v, &d);
        v_store_n(y + i, v, n - i);
    }
}
static void act(rz_act_kind kind, float *y, const float *x, size_t n){EACH_KIND(kind, act_loop, y, x, n)}

INLINE void act_bwd_loop(rz_act_kind kind, float *dx, const float *dy, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += W) {
        vf v, d;
        act_both(kind, v_load_n(x + i, n - i), &v, &d);
        v_store_n(dx + i, d * v_load_n(dy + i, n - i), n - i);
    }
}
static void act_bwd(rz_act_kind kind, float *dx, const float *dy, const float *x,
                    size_t n){EACH_KIND(kind, act_bwd_loop, dx, dy, x, n)}

INLINE void gated_loop(rz_act_kind kind, float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += W) {
        vf v, d;
        act_both(kind, v_load_n(gate + i, n - i), &v, &d);
        v_store_n(y + i, v * v_load_n(up + i, n - i), n - i);
    }
}
static void gated(rz_act_kind kind, float *y, const float *gate, const float *up,
                  size_t n){EACH_KIND(kind, gated_loop, y, gate, up, n)}

INLINE void gated_bwd_loop(rz_act_kind kind, float *dgate, float *dup, const float *dy, const float *gate,
                           const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += W) {
        vf v, d, g = v_load_n(dy + i, n - i), u = v_load_n(up + i, n - i);
        act_both(kind, v_load_n(gate + i, n - i), &v, &d);
        v_store_n(dgate + i, g * u * d, n - i);
        v_store_n(dup + i, g * v, n - i);
    }
}
static void gated_bwd(rz_act_kind kind, float *dgate, float *dup, const float *dy, const float *gate, const float *up,
                      size_t n)
{
    EACH_KIND(kind, gated_bwd_loop, dgate, dup, dy, gate, up, n)
}

/* ---- Norms ---------------------------------------------------------------------------------- */

static void layernorm(float *y, float *stats, const float *x, const float *w, const float *b, float eps, size_t rows,
                      size_t cols)
{
    for (size_t r = 0; r < rows; r++, x += cols, y += cols) {
        vf sum = {0}, squares = {0};
        for (size_t c = 0; c < cols; c += W) sum += v_load_n(x + c, cols - c);
        const float mean = v_sum(sum) / (float)cols;
        for (size_t c = 0; c < cols; c += W) {
            vf d = v_keep(v_load_n(x + c, cols - c) - v_set(mean), cols - c);
            squares = v_fma(d, d, squares);
        }
        const float rstd = 1.0f / sqrtf(v_sum(squares) / (float)cols + eps);
        for (size_t c = 0; c < cols; c += W) {
            vf d = (v_load_n(x + c, cols - c) - v_set(mean)) * v_set(rstd);
            v_store_n(y + c, v_fma(d, v_load_n(w + c, cols - c), v_load_n(b + c, cols - c)), cols - c);
        }
        if (!stats) continue;
        stats[2 * r] = mean;
        stats[2 * r + 1] = rstd;
    }
}

/* With g = dy w and xhat = (x - mean) rstd: dx += rstd (g - mean(g) - xhat mean(g xhat)). */
static void layernorm_dx(float *dx, const float *dy, const float *x, const float *stats, const float *w, size_t rows,
                         size_t cols)
{
    for (size_t r = 0; r < rows; r++, x += cols, dy += cols, dx += cols) {
        const vf mean = v_set(stats[2 * r]), rstd = v_set(stats[2 * r + 1]);
        vf sum = {0}, dot = {0};
        for (size_t c = 0; c < cols; c += W) {
            vf g = v_load_n(dy + c, cols - c) * v_load_n(w + c, cols - c);
            sum += g;
            dot = v_fma(g, (v_load_n(x + c, cols - c) - mean) * rstd, dot);
        }
        const vf mean_g = v_set(v_sum(sum) / (float)cols), mean_gx = v_set(v_sum(dot) / (float)cols);
        for (size_t c = 0; c < cols; c += W) {
            vf g = v_load_n(dy + c, cols - c) * v_load_n(w + c, cols - c);
            vf xhat = (v_load_n(x + c, cols - c) - mean) * rstd;
            v_store_n(dx + c, v_load_n(dx + c, cols - c) + rstd * (g - mean_g - xhat * mean_gx), cols - c);
        }
    }
}

static void rmsnorm(float *y, float *rstd, const float *x, const float *w, float eps, size_t rows, size_t cols)
{
    for (size_t r = 0; r < rows; r++, x += cols, y += cols) {
        vf squares = {0};
        for (size_t c = 0; c < cols; c += W) {
            vf v = v_load_n(x + c, cols - c);
            squares = v_fma(v, v, squares);
        }
        const float scale = 1.0f / sqrtf(v_sum(squares) / (float)cols + eps);
        for (size_t c = 0; c < cols; c += W)
            v_store_n(y + c, v_load_n(x + c, cols - c) * v_set(scale) * v_load_n(w + c, cols - c), cols - c);
        if (rstd) rstd[r] = scale;
    }
}

static void rmsnorm_dx(float *dx, const float *dy, const float *x, const float *rstd, const float *w, size_t rows,
                       size_t cols)
{
    for (size_t r = 0; r < rows; r++, x += cols, dy += cols, dx += cols) {
        const vf scale = v_set(rstd[r]);
        vf dot = {0};
        for (size_t c = 0; c < cols; c += W)
            dot = v_fma(v_load_n(dy + c, cols - c) * v_load_n(w + c, cols - c), v_load_n(x + c, cols - c) * scale, dot);
        const vf mean = v_set(v_sum(dot) / (float)cols);
        for (size_t c = 0; c < cols; c += W) {
            vf g = v_load_n(dy + c, cols - c) * v_load_n(w + c, cols - c);
            vf xhat = v_load_n(x + c, cols - c) * scale;
            v_store_n(dx + c, v_load_n(dx + c, cols - c) + scale * (g - xhat * mean), cols - c);
        }
    }
}

enum { SUM_VECTORS = RZ_SUM_COLS / W, SUM_AHEAD = 8 };

/* The sums stay in registers. */
INLINE void norm_sums_wide(float *sum_w, float *sum_b, const float *dy, const float *x, const float *stats,
                           bool centered, size_t rows, size_t cols)
{
    vf w[SUM_VECTORS] = {{0}}, b[SUM_VECTORS] = {{0}};
    for (int v = 0; v < SUM_VECTORS; v++) w[v] = v_load(sum_w + v * W), b[v] = v_load(sum_b + v * W);
    for (size_t r = 0; r < rows; r++, dy += cols, x += cols) {
        const vf mean = v_set(centered ? stats[2 * r] : 0), rstd = v_set(stats[centered ? 2 * r + 1 : r]);
        for (int c = 0; c < RZ_SUM_COLS; c += LINE) {
            __builtin_prefetch(dy + SUM_AHEAD * cols + c);
            __builtin_prefetch(x + SUM_AHEAD * cols + c);
        }
        for (int v = 0; v < SUM_VECTORS; v++) {
            vf g = v_load(dy + v * W);
            w[v] += g * ((v_load(x + v * W) - mean) * rstd);
            b[v] += g;
        }
    }
    for (int v = 0; v < SUM_VECTORS; v++) v_store(sum_w + v * W, w[v]), v_store(sum_b + v * W, b[v]);
}

static void norm_sums(float *sum_w, float *sum_b, const float *dy, const float *x, const float *stats, bool centered,
                      size_t rows, size_t cols, size_t n)
{
    if (n == RZ_SUM_COLS && centered) {
        norm_sums_wide(sum_w, sum_b, dy, x, stats, true, rows, cols);
        return;
    }
    if (n == RZ_SUM_COLS) {
        norm_sums_wide(sum_w, sum_b, dy, x, stats, false, rows, cols);
        return;
    }
    for (size_t r = 0; r < rows; r++, dy += cols, x += cols) {
        const float mean = centered ? stats[2 * r] : 0, rstd = stats[centered ? 2 * r + 1 : r];
        for (size_t c = 0; c < n; c++) {
            sum_w[c] += dy[c] * ((x[c] - mean) * rstd);
            sum_b[c] += dy[c];
        }
    }
}

/* ---- Softmax cross-entropy -------------------------------------------------------------------- */

/* Logits with -infinity where the column is out of this row's softmax or past its end. */
INLINE vf kept_logits(const float *logits, const float *keep, size_t n)
{
    vi in = v_lanes() < (int32_t)(n < W ? n : W);
    if (keep) in &= v_load_n(keep, n) != (vf){0};
    return v_select(in, v_load_n(logits, n), v_set(-INFINITY));
}

static float xent_row(float *dlogits, const float *logits, const float *targets, const float *keep, float weight,
                      size_t cols)
{
    vf m = v_set(-INFINITY), sum = {0}, mass = {0}, loss = {0};
    for (size_t c = 0; c < cols; c += W) {
        m = v_max(kept_logits(logits + c, keep ? keep + c : NULL, cols - c), m);
        mass += v_load_n(targets + c, cols - c);
    }
    const float max = v_max1(m), total = v_sum(mass);
    if (total == 0) {
        if (dlogits) memset(dlogits, 0, cols * sizeof *dlogits);
        return 0;
    }
    for (size_t c = 0; c < cols; c += W)
        sum += v_exp(kept_logits(logits + c, keep ? keep + c : NULL, cols - c) - v_set(max));
    const float denominator = v_sum(sum), log_z = logf(denominator);
    const vf scale = v_set(1.0f / denominator);
    for (size_t c = 0; c < cols; c += W) {
        vf x = kept_logits(logits + c, keep ? keep + c : NULL, cols - c) - v_set(max);
        vf t = v_load_n(targets + c, cols - c);
        loss += v_select(t == (vf){0}, (vf){0}, t * (v_set(log_z) - x)); /* a column left out: 0, not 0 * inf */
        if (dlogits) v_store_n(dlogits + c, weight * (v_exp(x) * scale - t), cols - c);
    }
    return v_sum(loss);
}

static void softmax_xent(float *loss, float *dlogits, const float *logits, const float *targets, const float *keep,
                         float weight, size_t rows, size_t cols)
{
    for (size_t r = 0; r < rows; r++) {
        size_t at = r * cols;
        loss[r] =
            xent_row(dlogits ? dlogits + at : NULL, logits + at, targets + at, keep ? keep + at : NULL, weight, cols);
    }
}

/* ---- Optimiser ---------------------------------------------------------------------------------- */

static void adamw(const struct rz_adamw_task *t, size_t begin, size_t end)
{
    const vf scale = v_set(t->grad_scale), beta2 = v_set(t->beta2), rest1 = v_set(1 - t->beta1);
    const vf rest2 = v_set(1 - t->beta2), eps = v_set(t->eps), decay = v_set(t->decay);
    const vf step_size = v_set(t->step_size), root = v_set(t->inv_root_c2);
    for (size_t i = begin; i < end; i += W) {
        const size_t n = end - i;
        vf g = v_load_n(t->g + i, n) * scale, m = v_load_n(t->m + i, n), v = v_load_n(t->v + i, n);
        m += (g - m) * rest1;
        v = v * beta2 + g * g * rest2;
        v_store_n(t->m + i, m, n);
        v_store_n(t->v + i, v, n);
        v_store_n(t->w + i, v_load_n(t->w + i, n) * decay - step_size * (m / (v_sqrt(v) * root + eps)), n);
    }
}
