/* validate.c - how well a model ranks the films of the validation split. SPDX-License-Identifier: Apache-2.0 */
#include "validate.h"

#include "metrics.h"

/* ---- Scores ------------------------------------------------------------------------------- */

typedef struct pass {
    const rz_net *net;
    const rz_validator *v;
    size_t n_classes, dim, n_pixels;   /* n_pixels: of one film, 3 planes */
    float *pixels, *vectors, *anchors; /* anchors (n_classes, dim): what a film's vector is multiplied with */
    rz_item *items;
    size_t *rows;
    double tau;
} pass;

static void pass_free(pass *p)
{
    rz_free(p->v->host, p->pixels);
    rz_free(p->v->host, p->vectors);
    rz_free(p->v->host, p->anchors);
    rz_free(p->v->host, p->items);
    rz_free(p->v->host, p->rows);
}

static radz_status pass_open(pass *p, radz_error *err)
{
    const rz_host *host = p->v->host;
    size_t batch = p->v->batch, most = batch > p->n_classes ? batch : p->n_classes;
    p->pixels = rz_calloc(host, batch, p->n_pixels * sizeof *p->pixels);
    p->vectors = rz_calloc(host, batch, p->dim * sizeof *p->vectors);
    p->anchors = rz_calloc(host, p->n_classes, p->dim * sizeof *p->anchors);
    p->items = rz_calloc(host, most, sizeof *p->items);
    p->rows = rz_calloc(host, batch, sizeof *p->rows);
    return p->pixels && p->vectors && p->anchors && p->items && p->rows ? RADZ_OK : RZ_NO_MEMORY(err, "validation");
}

static radz_status encode_items(const pass *p, size_t n, float *out, radz_error *err)
{
    rz_stream *s = p->net->s;
    rz_mark mark = rz_arena_mark(s);
    float *global = NULL;
    rz_encode(p->net, p->items, n, &global, NULL, NULL);
    if (!rz_stream_failed(s)) rz_download(s, out, global, n * p->dim * sizeof *out);
    radz_status st = rz_stream_sync(s, err);
    rz_arena_release(s, mark);
    return st;
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

/* Log-odds of the softmax share of class c: films rank as by the share, which would round to 1 for many. */
static double share_odds(const double *cosines, size_t n, double tau, size_t c)
{
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        if (i != c && cosines[i] > top) top = cosines[i];
    for (size_t i = 0; i < n; i++)
        if (i != c) sum += exp((cosines[i] - top) / tau);
    return n > 1 ? (cosines[c] - top) / tau - log(sum) : cosines[c];
}

static void score_film(const pass *p, const float *vector, double *scores)
{
    int reference = p->v->reference;
    double tau = p->tau, *cosines = scores + p->n_classes; /* scratch behind the row */
    for (size_t c = 0; c < p->n_classes; c++) cosines[c] = dot(vector, p->anchors + c * p->dim, p->dim);
    if (p->v->head) { /* films rank alike with the bias and without */
        memcpy(scores, cosines, p->n_classes * sizeof *scores);
        return;
    }
    if (p->v->class_texts) reference = -1, tau *= tau;
    for (size_t c = 0; c < p->n_classes; c++)
        scores[c] = reference >= 0 && (int)c != reference ? cosines[c] - cosines[reference]
                                                          : share_odds(cosines, p->n_classes, tau, c);
}

static void fill_pixels(void *arg, size_t i)
{
    const pass *p = arg;
    rz_films *f = p->v->films;
    rz_thumb_pixels(f->cfg, &f->thumbs[p->rows[i]], p->pixels + i * p->n_pixels);
}

/* Films first .. first + n - 1 of the validation split. */
static radz_status score_batch(pass *p, size_t first, size_t n, double *scores, radz_error *err)
{
    rz_films *f = p->v->films;
    for (size_t i = 0; i < n; i++) p->rows[i] = f->ds->n_train + first + i;
    RZ_TRY(rz_films_load(f, p->rows, n, err));
    size_t n_good = 0;
    for (size_t i = 0; i < n; i++)
        if (!f->bad[p->rows[i]]) p->rows[n_good++] = p->rows[i];
    rz_pool_run(f->pool, n_good, fill_pixels, p);
    for (size_t i = 0; i < n_good; i++)
        p->items[i] =
            (rz_item){.kind = RZ_ITEM_IMAGE, .pixels = p->pixels + i * p->n_pixels, .prompt = p->v->image_prompt};
    RZ_TRY(encode_items(p, n_good, p->vectors, err));
    double *row_scores = rz_calloc(p->v->host, 2 * p->n_classes, sizeof *row_scores);
    if (!row_scores) return RZ_NO_MEMORY(err, "validation");
    for (size_t i = 0; i < n_good; i++) {
        score_film(p, p->vectors + i * p->dim, row_scores);
        memcpy(scores + (p->rows[i] - f->ds->n_train) * p->n_classes, row_scores, p->n_classes * sizeof *scores);
    }
    rz_free(p->v->host, row_scores);
    rz_films_trim(f, p->rows, n_good);
    return RADZ_OK;
}

/* What a film's vector is multiplied with: descriptions, or the rows of the linear head. */
static radz_status class_rows(pass *p, rz_item_kind kind, const rz_prompt *prompts, float *out, radz_error *err)
{
    for (size_t c = 0; c < p->n_classes; c++) p->items[c] = (rz_item){.kind = kind, .prompt = &prompts[c]};
    return encode_items(p, p->n_classes, out, err);
}

/* x D^T (Y D^T)^T = x (Y D^T D)^T: anchors := Y D^T D. */
static void fuse(const pass *p, const float *texts, const float *d)
{
    for (size_t c = 0; c < p->n_classes; c++)
        for (size_t k = 0; k < p->n_classes; k++) {
            double w = dot(texts + c * p->dim, d + k * p->dim, p->dim);
            for (size_t i = 0; i < p->dim; i++) p->anchors[c * p->dim + i] += (float)(w * (double)d[k * p->dim + i]);
        }
}

static radz_status fused_rows(pass *p, radz_error *err)
{
    size_t n = p->n_classes * p->dim;
    float *texts = rz_calloc(p->v->host, 2 * n, sizeof *texts), *d = texts ? texts + n : NULL;
    if (!texts) return RZ_NO_MEMORY(err, "validation");
    radz_status st = class_rows(p, RZ_ITEM_TEXT, p->v->class_texts, texts, err);
    if (!st) st = class_rows(p, p->v->class_kind, p->v->disease_prompts, d, err);
    if (!st) fuse(p, texts, d);
    rz_free(p->v->host, texts);
    return st;
}

static radz_status anchor_rows(pass *p, radz_error *err)
{
    if (p->v->class_texts) return fused_rows(p, err);
    return class_rows(p, p->v->class_kind, p->v->disease_prompts, p->anchors, err);
}

static radz_status head_rows(pass *p, radz_error *err)
{
    const rz_linear *head = &p->net->model->classifier;
    if (!head->w || head->w->dims[0] != p->n_classes)
        return rz_fail(err, RADZ_E_INTERNAL, "validation: the model has no head for %zu classes", p->n_classes);
    rz_download(p->net->s, p->anchors, head->w->w.data, head->w->n * sizeof *p->anchors);
    return rz_stream_sync(p->net->s, err);
}

static radz_status score_all(pass *p, double *scores, radz_error *err)
{
    RZ_TRY(pass_open(p, err));
    RZ_TRY(p->v->head ? head_rows(p, err) : anchor_rows(p, err));
    p->tau = rz_model_tau(p->net->model, p->net->s);
    size_t n_val = p->v->films->ds->n_val;
    for (size_t i = 0; i < n_val * p->n_classes; i++) scores[i] = NAN;
    for (size_t i = 0; i < n_val; i += p->v->batch) {
        size_t n = n_val - i < p->v->batch ? n_val - i : p->v->batch;
        RZ_TRY(score_batch(p, i, n, scores, err));
    }
    return RADZ_OK;
}

radz_status rz_validate_scores(const rz_net *net, const rz_validator *v, double *scores, radz_error *err)
{
    rz_net forward = *net;
    forward.keep = false;
    pass p = {.net = &forward, .v = v, .n_classes = v->films->ds->n_classes, .dim = net->model->cfg.radz.dim};
    p.n_pixels = 3 * v->films->size * v->films->size;
    radz_status st = score_all(&p, scores, err);
    pass_free(&p);
    return st;
}

/* ---- Figures --------------------------------------------------------------------------------- */

static radz_status label_auc(const rz_validator *v, const double *scores, size_t c, size_t set, double *score,
                             uint8_t *truth, rz_label_result *out, radz_error *err)
{
    const rz_dataset *ds = v->films->ds;
    size_t n = 0;
    for (size_t i = 0; i < ds->n_val; i++) {
        const rz_row *row = &ds->rows[ds->n_train + i];
        if (isnan(scores[i * ds->n_classes + c]) || !rz_dataset_knows(ds, row, c)) continue;
        if (set != RZ_NO_SET && row->set != set) continue;
        score[n] = scores[i * ds->n_classes + c];
        truth[n] = rz_dataset_has_class(ds, row, c);
        out->n_pos += truth[n++];
    }
    out->n_neg = n - out->n_pos;
    return rz_auc(v->host, score, truth, n, &out->auc, err);
}

radz_status rz_validate_label(const rz_validator *v, const double *scores, size_t class_index, size_t set,
                              rz_label_result *out, radz_error *err)
{
    *out = (rz_label_result){.auc = NAN};
    size_t n_val = v->films->ds->n_val;
    double *score = rz_calloc(v->host, n_val, sizeof *score);
    uint8_t *truth = rz_calloc(v->host, n_val, 1);
    radz_status st = score && truth ? label_auc(v, scores, class_index, set, score, truth, out, err)
                                    : RZ_NO_MEMORY(err, "validation");
    rz_free(v->host, score);
    rz_free(v->host, truth);
    return st;
}

radz_status rz_validate_summary(const rz_validator *v, const double *scores, rz_validation *out, radz_error *err)
{
    size_t n_classes = v->films->ds->n_classes, n_defined = 0;
    double sum = 0;
    for (size_t c = 0; c < n_classes; c++) {
        RZ_TRY(rz_validate_label(v, scores, c, RZ_NO_SET, &out->labels[c], err));
        if (isnan(out->labels[c].auc)) continue;
        sum += out->labels[c].auc;
        n_defined++;
    }
    out->macro = out->monitored = n_defined ? sum / (double)n_defined : NAN;
    if (v->monitor < 0) return RADZ_OK;
    rz_label_result monitored;
    RZ_TRY(rz_validate_label(v, scores, (size_t)v->monitor, v->monitor_set, &monitored, err));
    out->monitored = monitored.auc;
    return RADZ_OK;
}

radz_status rz_validate(const rz_net *net, const rz_validator *v, rz_validation *out, radz_error *err)
{
    const rz_dataset *ds = v->films->ds;
    out->monitored = out->macro = NAN;
    size_t n;
    double *scores = rz_size_mul(ds->n_val, ds->n_classes, &n) ? rz_calloc(v->host, n, sizeof *scores) : NULL;
    if (!scores) return RZ_NO_MEMORY(err, "validation");
    radz_status st = rz_validate_scores(net, v, scores, err);
    if (!st) st = rz_validate_summary(v, scores, out, err);
    rz_free(v->host, scores);
    return st;
}
