/* What is said about one film: scores, warnings, provenance, and the JSON line.
 * SPDX-License-Identifier: Apache-2.0 */
#include "result.h"

#include "classes.h"
#include "precision.h"

#define SMALL_SIDE 64   /* pixels */
#define LONG_ASPECT 3.0 /* a chest film is nearly square */
#define COLOURED 0.04   /* mean spread of R, G and B, of full scale; JPEG noise on gray is below 0.01 */

/* ---- Warnings ---- */

static radz_status warn(rz_result *r, const char *text, radz_error *err)
{
    char **list = rz_realloc(r->host, r->warnings, r->n_warnings + 1, sizeof *list);
    if (list) r->warnings = list;
    char *copy = list ? rz_strdup(r->host, text) : NULL;
    if (!copy) return RZ_NO_MEMORY(err, "warning");
    r->warnings[r->n_warnings++] = copy;
    return RADZ_OK;
}

static radz_status warn_film(rz_result *r, const rz_film *film, radz_error *err)
{
    const rz_pixels *p = &film->pixels;
    const double w = (double)p->width_px, h = (double)p->height_px;
    const rz_film_look look = film->input ? film->look : rz_film_look_at(film);
    for (size_t i = 0; rz_note_text(i); i++)
        if (p->notes >> i & 1) RZ_TRY(warn(r, rz_note_text(i), err));
    if (p->width_px < SMALL_SIDE || p->height_px < SMALL_SIDE)
        RZ_TRY(warn(r, "film is very small: fewer than 64 pixels on a side", err));
    if (w > LONG_ASPECT * h || h > LONG_ASPECT * w)
        RZ_TRY(warn(r, "film is more than three times as long as wide: not a chest X-ray?", err));
    if (look.spread > COLOURED) RZ_TRY(warn(r, "film is in colour: not a chest X-ray?", err));
    if (look.high == look.low) RZ_TRY(warn(r, "film is blank: every pixel has the same value", err));
    return RADZ_OK;
}

/* What was fitted, on which films; classes that were not. */
static radz_status warn_calibrated(rz_result *r, const rz_bank *bank, radz_error *err)
{
    const rz_calibration *c = bank->calibration;
    rz_str s = {.host = r->host};
    rz_str_printf(&s,
                  "probabilities are calibrated (%s) and hold for films like these: ", rz_calibration_name(c->kind));
    rz_str_puts(&s, c->films);
    radz_status status = s.failed ? RZ_NO_MEMORY(err, "warning") : warn(r, s.data, err);
    s.len = 0;
    for (size_t i = 0; i < bank->n; i++) {
        if (c->of[i].kind != RZ_CALIBRATE_NONE) continue;
        rz_str_puts(&s, s.len ? ", " : "probabilities are not calibrated for ");
        rz_str_puts(&s, bank->labels[i]);
    }
    if (s.failed) status = RZ_NO_MEMORY(err, "warning");
    if (!status && s.len) status = warn(r, s.data, err);
    rz_str_free(&s);
    return status;
}

static radz_status warn_bank(rz_result *r, const rz_bank *bank, radz_error *err)
{
    if (bank && bank->calibration) return warn_calibrated(r, bank, err);
    RZ_TRY(warn(r, "probabilities are not calibrated", err));
    if (!bank) return RADZ_OK;
    if (bank->reference < bank->n && bank->n > 1) return RADZ_OK;
    if (bank->n == 1)
        return warn(r, "probabilities say nothing with a single class: it always gets 1, read the similarity", err);
    return warn(r, "probabilities are shares among the classes: there is no reference class such as 'No Finding'", err);
}

/* ---- Provenance ---- */

/* The shortest decimal that is this float: 0.48145466, not the 17 digits of its value as a double. */
static double short_decimal(float v)
{
    for (double scale = 10; scale <= 1e9; scale *= 10) {
        double d = round(v * scale) / scale;
        if ((float)d == v) return d;
    }
    return v;
}

static void put_floats(rz_str *s, const char *before, const float *v, size_t n)
{
    rz_str_puts(s, before);
    for (size_t i = 0; i < n; i++) {
        rz_str_put_number(s, i ? "," : "[", short_decimal(v[i]));
    }
    rz_str_puts(s, "]");
}

void rz_preprocess_put_json(rz_str *s, const rz_config *cfg)
{
    const rz_preprocess_config *p = &cfg->preprocess;
    rz_str_printf(s, "{\"image_size_px\":%zu,\"pad_to_square\":%s", cfg->vision.image_size,
                  p->pad_to_square ? "true" : "false");
    if (p->resize) rz_str_printf(s, ",\"shortest_edge_px\":%zu", p->shortest_edge);
    if (p->crop) rz_str_printf(s, ",\"crop_px\":[%zu,%zu]", p->crop_width, p->crop_height);
    put_floats(s, ",\"mean\":", p->mean, 3);
    put_floats(s, ",\"std\":", p->std, 3);
    rz_str_puts(s, "}");
}

void rz_precision_put_json(rz_str *s, const rz_model *m)
{
    rz_str text = {.host = m->cfg.host};
    rz_precision_text(&m->precision, &text);
    if (text.len) rz_str_put_text(s, ",\"weights\":", text.data);
    if (strcmp(m->family, m->hash)) rz_str_put_text(s, ",\"family\":", m->family);
    s->failed |= text.failed;
    rz_str_free(&text);
}

static char *provenance(const rz_model *m, const char *model_name, const rz_bank *bank, radz_error *err)
{
    rz_str s = {.host = m->cfg.host};
    rz_str_put_text(&s, "{\"library\":\"libradz\",\"version\":", radz_version());
    rz_str_put_text(&s, ",\"device\":", rz_device_name(m->dev));
    rz_str_put_text(&s, ",\"model\":{\"name\":", model_name);
    rz_str_put_text(&s, ",\"hash\":", m->hash);
    rz_precision_put_json(&s, m);
    rz_str_put_text(&s, ",\"tower\":", m->cfg.vision_dir ? "external" : "checkpoint");
    rz_str_put_text(&s, "},\"tokenizer\":{\"hash\":", m->tok ? rz_tokenizer_hash(m->tok) : NULL);
    rz_str_put_text(&s, "},\"bank\":{\"hash\":", bank ? bank->hash : NULL);
    if (bank && !rz_bank_made_by(bank, m)) rz_str_put_text(&s, ",\"made_with\":", bank->model_hash);
    rz_str_put_text(&s, "},\"score\":", !bank ? "linear-head" : bank->fused ? "fused" : "img_anchor");
    rz_str_put_number(&s, ",\"tau\":",
                      !bank               ? NAN
                      : bank->calibration ? bank->calibration->tau
                                          : rz_model_tau(m, NULL));
    rz_str_put_text(
        &s, ",\"calibration\":", bank && bank->calibration ? rz_calibration_name(bank->calibration->kind) : NULL);
    const bool reference = bank && bank->reference < bank->n && !bank->fused;
    rz_str_put_text(&s, ",\"reference\":", reference ? bank->labels[bank->reference] : NULL);
    rz_str_printf(&s, ",\"layer\":%d", m->cfg.radz.layer);
    rz_str_puts(&s, ",\"preprocess\":");
    rz_preprocess_put_json(&s, &m->cfg);
    rz_str_put_text(&s, ",\"disclaimer\":", radz_disclaimer());
    rz_str_puts(&s, "}");
    if (!s.failed) return s.data;
    rz_str_free(&s);
    (void)RZ_NO_MEMORY(err, "provenance");
    return NULL;
}

/* ---- Results ---- */

void rz_result_free(rz_result *r)
{
    if (!r) return;
    for (size_t i = 0; r->labels && i < r->n; i++) rz_free(r->host, r->labels[i]);
    for (size_t i = 0; i < r->n_warnings; i++) rz_free(r->host, r->warnings[i]);
    rz_free(r->host, r->labels);
    rz_free(r->host, r->warnings);
    rz_free(r->host, r->scores);
    rz_free(r->host, r->path);
    rz_free(r->host, r->provenance);
    rz_free(r->host, r->model_name);
    rz_free(r->host, r);
}

/* What n films are scored with: a bank, or else the model's linear head. */
typedef struct scorer {
    const rz_net *net;
    const char *model_name;
    const rz_bank *bank; /* NULL: the head */
    char *const *labels;
    size_t n, dim;
    float *vectors, *logits; /* (films, dim); (films, n) where the head scores */
} scorer;

static radz_status fill_scores(rz_result *r, const scorer *by, size_t film, radz_error *err)
{
    r->scores = rz_calloc(r->host, by->n, sizeof *r->scores);
    r->labels = rz_calloc(r->host, by->n, sizeof *r->labels);
    if (!r->scores || !r->labels) return RZ_NO_MEMORY(err, "scores");
    r->n = by->n;
    if (by->bank && by->bank->calibration)
        RZ_TRY(rz_score_calibrated(by->bank, by->vectors + film * by->dim, r->scores, err));
    else if (by->bank)
        RZ_TRY(rz_score_film(by->bank, by->vectors + film * by->dim, rz_model_tau(by->net->model, by->net->s),
                             r->scores, err));
    else
        RZ_TRY(rz_score_logits(by->logits + film * by->n, by->n, r->scores, err));
    for (size_t i = 0; i < r->n; i++) {
        r->labels[i] = rz_strdup(r->host, by->labels[r->scores[i].i]);
        if (!r->labels[i]) return RZ_NO_MEMORY(err, "labels of a result");
    }
    return RADZ_OK;
}

static radz_status fill_result(rz_result *r, const scorer *by, const rz_film *film, size_t i, radz_error *err)
{
    const rz_model *m = by->net->model;
    RZ_TRY(fill_scores(r, by, i, err));
    memcpy(r->sha256, film->sha256, sizeof r->sha256);
    r->width_px = film->pixels.width_px;
    r->height_px = film->pixels.height_px;
    if (film->path && !(r->path = rz_strdup(r->host, film->path))) return RZ_NO_MEMORY(err, "path of a result");
    if (!(r->model_name = rz_strdup(r->host, by->model_name))) return RZ_NO_MEMORY(err, "name of a model");
    memcpy(r->model_hash, m->hash, sizeof r->model_hash);
    if (by->bank) memcpy(r->bank_hash, by->bank->hash, sizeof r->bank_hash);
    r->provenance = provenance(m, by->model_name, by->bank, err);
    if (!r->provenance) return RADZ_E_MEMORY;
    if (!m->special) RZ_TRY(warn(r, "model is not trained as a LLaVA-RadZ: scores mean little", err));
    RZ_TRY(warn_bank(r, by->bank, err));
    return warn_film(r, film, err);
}

static radz_status make_results(const scorer *by, const rz_film *const *films, size_t n, rz_result **results,
                                radz_error *err)
{
    const rz_host *host = by->net->model->cfg.host;
    for (size_t i = 0; i < n; i++) {
        results[i] = rz_calloc(host, 1, sizeof **results);
        if (!results[i]) return RZ_NO_MEMORY(err, "result");
        results[i]->host = host;
        RZ_TRY(fill_result(results[i], by, films[i], i, err));
    }
    return RADZ_OK;
}

static radz_status head_logits(scorer *by, size_t n, radz_error *err)
{
    rz_stream *s = by->net->s;
    rz_net net = *by->net;
    net.keep = false;
    by->logits = rz_calloc(by->net->model->cfg.host, n, by->n * sizeof *by->logits);
    if (!by->logits) return RZ_NO_MEMORY(err, "scores");
    rz_mark mark = rz_arena_mark(s);
    float *x = rz_arena_f32(s, n, by->dim);
    if (x) rz_upload(s, x, by->vectors, n * by->dim * sizeof *x);
    float *logits = rz_classes_forward(&net, x, n);
    rz_download(s, by->logits, logits, n * by->n * sizeof *logits);
    radz_status status = rz_stream_sync(s, err);
    rz_arena_release(s, mark);
    return status;
}

static radz_status score_films(scorer *by, const rz_film *const *films, size_t n, rz_result **results, radz_error *err)
{
    const rz_config *cfg = &by->net->model->cfg;
    const rz_pick own = rz_embed_own(cfg);
    by->vectors = rz_calloc(cfg->host, n, by->dim * sizeof *by->vectors);
    if (!by->vectors) return RZ_NO_MEMORY(err, "vectors");
    RZ_TRY(rz_embed_films(by->net, films, n, &own, by->vectors, err));
    if (!by->bank) RZ_TRY(head_logits(by, n, err));
    return make_results(by, films, n, results, err);
}

radz_status rz_classify(const rz_net *net, const char *model_name, const rz_bank *bank, const rz_film *const *films,
                        size_t n, rz_result **results, radz_error *err)
{
    const rz_config *cfg = &net->model->cfg;
    for (size_t i = 0; i < n; i++) results[i] = NULL;
    if (bank) RZ_TRY(rz_bank_require_model(bank, net->model, err));
    scorer by = {net, model_name, bank, cfg->radz.classes, cfg->radz.n_classes, cfg->radz.dim, NULL, NULL};
    if (bank) by.labels = bank->labels, by.n = bank->n, by.dim = bank->dim;
    radz_status status = by.n ? score_films(&by, films, n, results, err)
                              : rz_fail(err, RADZ_E_ARGUMENT, "no bank given, and the model has no linear head");
    rz_free(cfg->host, by.vectors);
    rz_free(cfg->host, by.logits);
    if (status == RADZ_OK) return RADZ_OK;
    for (size_t i = 0; i < n; i++) {
        rz_result_free(results[i]);
        results[i] = NULL;
    }
    return status;
}

/* ---- JSON ---- */

static void put_input(rz_str *s, const char *path, const char *sha256, size_t width_px, size_t height_px)
{
    rz_str_put_text(s, "{\"schema\":\"" RZ_RESULT_SCHEMA "\",\"input\":{\"path\":", path);
    rz_str_put_text(s, ",\"sha256\":", sha256);
    if (sha256)
        rz_str_printf(s, ",\"width_px\":%zu,\"height_px\":%zu}", width_px, height_px);
    else
        rz_str_puts(s, ",\"width_px\":null,\"height_px\":null}");
}

void rz_result_put_json(rz_str *s, const rz_result *r, const char *path)
{
    put_input(s, path ? path : r->path, r->sha256, r->width_px, r->height_px);
    rz_str_puts(s, ",\"scores\":[");
    for (size_t i = 0; i < r->n; i++) {
        rz_str_put_text(s, i ? ",{\"label\":" : "{\"label\":", r->labels[i]);
        rz_str_put_number(s, ",\"probability\":", r->scores[i].probability);
        rz_str_put_number(s, ",\"similarity\":", r->scores[i].similarity);
        rz_str_put_number(s, ",\"threshold\":", r->scores[i].threshold);
        rz_str_puts(s, "}");
    }
    rz_str_puts(s, "],\"provenance\":");
    rz_str_puts(s, r->provenance);
    rz_str_puts(s, ",\"warnings\":[");
    for (size_t i = 0; i < r->n_warnings; i++) rz_str_put_text(s, i ? "," : "", r->warnings[i]);
    rz_str_puts(s, "]}");
}

void rz_error_put_json(rz_str *s, const radz_error *error, const char *path)
{
    put_input(s, path, NULL, 0, 0);
    rz_str_put_text(s, ",\"error\":{\"code\":", radz_status_name(error->code));
    rz_str_put_text(s, ",\"message\":", error->message);
    rz_str_put_text(s, "},\"provenance\":{\"library\":\"libradz\",\"version\":", radz_version());
    rz_str_put_text(s, ",\"disclaimer\":", radz_disclaimer());
    rz_str_puts(s, "},\"warnings\":[]}");
}
