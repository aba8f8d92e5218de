/* classes.c - the linear head: its names, its logits, its loss. SPDX-License-Identifier: Apache-2.0 */
#include "classes.h"

#define MAX_CLASSES 65536

/* ---- Names ---------------------------------------------------------------------------------- */

void rz_classes_free(rz_config *cfg)
{
    for (size_t i = 0; cfg->radz.classes && i < cfg->radz.n_classes; i++) rz_free(cfg->host, cfg->radz.classes[i]);
    rz_free(cfg->host, cfg->radz.classes);
    cfg->radz.classes = NULL, cfg->radz.n_classes = 0;
}

static radz_status take_classes(rz_config *cfg, const rz_name_list *list, radz_error *err)
{
    rz_classes_free(cfg);
    if (!list->n) return RADZ_OK;
    cfg->radz.classes = rz_calloc(cfg->host, list->n, sizeof *cfg->radz.classes);
    if (!cfg->radz.classes) return RZ_NO_MEMORY(err, "classes");
    for (; cfg->radz.n_classes < list->n; cfg->radz.n_classes++) {
        char *name = rz_strdup(cfg->host, list->names[cfg->radz.n_classes]);
        if (!name) return RZ_NO_MEMORY(err, "classes");
        cfg->radz.classes[cfg->radz.n_classes] = name;
    }
    return RADZ_OK;
}

static radz_status check_classes(const rz_name_list *list, radz_error *err)
{
    for (size_t i = 0; i < list->n; i++) {
        if (!list->names[i] || !*list->names[i])
            return rz_fail(err, RADZ_E_FORMAT, "radz.json: classes: expected a list of names");
        for (size_t k = 0; k < i; k++)
            if (!strcmp(list->names[i], list->names[k]))
                return rz_fail(err, RADZ_E_FORMAT, "radz.json: classes: '%.100s' is there twice", list->names[i]);
    }
    return RADZ_OK;
}

radz_status rz_classes_read(const json_t *root, rz_config *cfg, radz_error *err)
{
    const json_t *list = json_object_get(root, "classes");
    size_t n = json_array_size(list);
    if (!list || json_is_null(list)) return RADZ_OK;
    if (!json_is_array(list) || !n || n > MAX_CLASSES)
        return rz_fail(err, RADZ_E_FORMAT, "radz.json: classes: expected a list of 1 to %d names", MAX_CLASSES);
    const char **names = rz_calloc(cfg->host, n, sizeof *names);
    if (!names) return RZ_NO_MEMORY(err, "classes");
    for (size_t i = 0; i < n; i++) names[i] = json_string_value(json_array_get(list, i));
    const rz_name_list given = {names, n};
    radz_status status = check_classes(&given, err);
    if (!status) status = take_classes(cfg, &given, err);
    rz_free(cfg->host, names);
    return status;
}

radz_status rz_classes_choose(rz_config *cfg, const rz_name_list *wanted, radz_error *err)
{
    bool same = wanted->n == cfg->radz.n_classes;
    for (size_t i = 0; same && i < wanted->n; i++) same = !strcmp(wanted->names[i], cfg->radz.classes[i]);
    if (same) return RADZ_OK;
    cfg->radz.new_head = true;
    return take_classes(cfg, wanted, err);
}

/* ---- Logits and loss ------------------------------------------------------------------------ */

float *rz_classes_forward(const rz_net *net, const float *x, size_t n)
{
    return rz_linear_forward(net, &net->model->classifier, x, n);
}

/* sigmoid(z) is the softmax of (z, 0): one row of two for every film and class. What is not known has targets of zero
 * and so neither loss nor gradient. */
typedef struct pairs {
    size_t n;
    float *logits, *targets, *losses; /* (n, 2), (n, 2), (n) */
    size_t n_known;
} pairs;

static void make_pairs(const rz_net *net, const rz_classes_input *in, const float *logits, pairs *p)
{
    float *host = rz_arena_host(net->s, 2 * p->n, sizeof *host);
    p->logits = rz_arena_zeros(net->s, p->n, 2);
    p->targets = rz_arena_f32(net->s, p->n, 2);
    p->losses = rz_arena_f32(net->s, p->n, 1);
    if (rz_stream_failed(net->s)) return;
    for (size_t i = 0; i < p->n; i++) {
        if (in->keep[i] == 0) continue;
        host[2 * i] = in->truth[i] != 0 ? 1.0f : 0.0f;
        host[2 * i + 1] = 1.0f - host[2 * i];
        p->n_known++;
    }
    rz_upload(net->s, p->targets, host, 2 * p->n * sizeof *host);
    rz_copy_rows(net->s, p->logits, 2, NULL, logits, 1, NULL, p->n, 1);
}

static double sum_of(const rz_net *net, const float *values, size_t n)
{
    double sum = 0;
    float *host = rz_arena_host(net->s, n, sizeof *host);
    if (host) rz_download(net->s, host, values, n * sizeof *host);
    for (size_t i = 0; host && i < n; i++) sum += (double)host[i];
    return sum;
}

static void pairs_backward(const rz_net *net, const rz_classes_input *in, const pairs *p, float *dx)
{
    const rz_model *m = net->model;
    rz_param w = *m->classifier.w, b = *m->classifier.b;
    if (!in->train_head) w.grad = b.grad = NULL;
    rz_linear head = m->classifier;
    head.w = &w, head.b = &b;
    float *dlogits = rz_arena_f32(net->s, p->n, 1);
    rz_copy_rows(net->s, dlogits, 1, NULL, p->logits, 2, NULL, p->n, 1);
    rz_linear_backward(net, &head, 1.0f, dx, dlogits, in->x, in->n);
}

radz_status rz_classes_loss(const rz_net *net, const rz_classes_input *in, float *dx, double *loss, radz_error *err)
{
    rz_mark mark = rz_arena_mark(net->s);
    pairs p = {.n = in->n * net->model->cfg.radz.n_classes};
    const float *logits = rz_classes_forward(net, in->x, in->n);
    make_pairs(net, in, logits, &p);
    double share = p.n_known ? 1.0 / (double)p.n_known : 0;
    rz_softmax_xent(net->s, p.losses, dx ? p.logits : NULL, p.logits, p.targets, NULL, (float)share, p.n, 2);
    *loss = share * sum_of(net, p.losses, p.n);
    if (dx && !rz_stream_failed(net->s)) pairs_backward(net, in, &p, dx);
    radz_status status = rz_stream_sync(net->s, err);
    rz_arena_release(net->s, mark);
    if (status) *loss = NAN;
    return status;
}
