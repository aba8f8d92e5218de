/* scorer.c - film vectors to similarities and probabilities.
 * SPDX-License-Identifier: Apache-2.0 */
#include "scorer.h"

#define MAX_TEMPLATES 1000

const char *rz_score_name(unsigned kind)
{
    static const char *const names[RZ_SCORE_KINDS] = {"img_anchor", "img_text",   "fused",           "pos_neg_pair",
                                                      "hidden",     "likelihood", "likelihood_mean", "options",
                                                      "cot",        "head"};
    return kind < RZ_COUNT(names) ? names[kind] : NULL;
}

const char *rz_feature_name(radz_score_feature feature)
{
    static const char *const names[] = {"global", "local", "both"};
    return (unsigned)feature < RZ_COUNT(names) ? names[feature] : NULL;
}

const char *rz_classes_name(radz_score_classes classes)
{
    static const char *const names[] = {"auto", "reference", "exclusive", "independent"};
    return (unsigned)classes < RZ_COUNT(names) ? names[classes] : NULL;
}

/* ---- Texts of the classes ---- */

/* "{c}" in a template becomes the label, its underscores spaces; `no`: "no " before it. */
static char *fill(const rz_host *host, const char *template, const char *label, bool no)
{
    rz_str s = {.host = host};
    for (const char *p = template; *p;) {
        if (strncmp(p, "{c}", 3) != 0) {
            rz_str_put(&s, p++, 1);
            continue;
        }
        if (no) rz_str_puts(&s, "no ");
        for (const char *l = label; *l; l++) rz_str_put(&s, *l == '_' ? " " : l, 1);
        p += 3;
    }
    if (!s.failed) return s.data;
    rz_str_free(&s);
    return NULL;
}

static radz_status embed_filled(const rz_net *net, const rz_bank *bank, const rz_pick *pick, const char *template,
                                bool no, float *out, radz_error *err)
{
    const rz_host *host = bank->host;
    char **texts = rz_calloc(host, bank->n, sizeof *texts);
    bool good = texts != NULL;
    for (size_t i = 0; good && i < bank->n; i++) good = (texts[i] = fill(host, template, bank->labels[i], no)) != NULL;
    radz_status status = good ? rz_embed_texts(net, RZ_ITEM_TEXT, (const char *const *)texts, bank->n, pick, out, err)
                              : RZ_NO_MEMORY(err, "texts of the classes");
    for (size_t i = 0; texts && i < bank->n; i++) rz_free(host, texts[i]);
    rz_free(host, texts);
    return status;
}

static double length_of(const double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += v[i] * v[i];
    return sqrt(sum);
}

/* The direction of the mean of unit vectors, one per template. */
static radz_status embed_ensemble(const rz_net *net, const rz_bank *bank, const rz_pick *pick, char *const *templates,
                                  size_t n_templates, bool no, float **out, radz_error *err)
{
    const size_t dim = rz_embed_dim(&net->model->cfg, pick), n = bank->n * dim;
    double *sum = rz_calloc(bank->host, n, sizeof *sum);
    *out = rz_calloc(bank->host, n, sizeof **out);
    radz_status status = sum && *out ? RADZ_OK : RZ_NO_MEMORY(err, "texts of the classes");
    for (size_t t = 0; t < n_templates && !status; t++) {
        status = embed_filled(net, bank, pick, templates[t], no, *out, err);
        for (size_t i = 0; i < n && !status; i++) sum[i] += (double)(*out)[i];
    }
    for (size_t c = 0; c < bank->n && !status; c++) {
        double length = length_of(sum + c * dim, dim);
        if (!(length > 0)) status = rz_fail(err, RADZ_E_FORMAT, "'%s': its templates cancel out", bank->labels[c]);
        for (size_t i = 0; i < dim; i++) (*out)[c * dim + i] = (float)(sum[c * dim + i] / length);
    }
    rz_free(bank->host, sum);
    return status;
}

static radz_status copy_templates(rz_scorer *s, const char *const *from, size_t n, const char *otherwise, char ***to,
                                  radz_error *err)
{
    if (n > MAX_TEMPLATES) return rz_fail(err, RADZ_E_LIMIT, "templates: at most %d", MAX_TEMPLATES);
    *to = rz_calloc(s->host, n ? n : 1, sizeof **to);
    bool good = *to != NULL;
    for (size_t i = 0; good && i < (n ? n : 1); i++) {
        const char *text = n ? from[i] : otherwise;
        if (!text || !strstr(text, "{c}"))
            return rz_fail(err, RADZ_E_ARGUMENT, "template '%s': expected {c} where the class goes",
                           text ? text : "(NULL)");
        good = ((*to)[i] = rz_strdup(s->host, text)) != NULL;
    }
    return good ? RADZ_OK : RZ_NO_MEMORY(err, "templates");
}

static radz_status take_templates(rz_scorer *s, const rz_net *net, const radz_score_options *o, radz_error *err)
{
    const char *place = "{c}";
    char *sentence = rz_prompt_label_text(s->host, net->model, &place, 1);
    if (!sentence) return RZ_NO_MEMORY(err, "label sentence");
    radz_status status = copy_templates(s, o->templates, o->n_templates, sentence, &s->templates, err);
    rz_free(s->host, sentence);
    RZ_TRY(status);
    s->n_templates = o->n_templates ? o->n_templates : 1;
    if (!o->n_negatives) return RADZ_OK;
    RZ_TRY(copy_templates(s, o->negatives, o->n_negatives, "", &s->negative_templates, err));
    s->n_negatives = o->n_negatives;
    return RADZ_OK;
}

/* ---- Opening ---- */

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

static radz_status fill_texts(rz_scorer *s, const rz_net *net, const rz_bank *bank, const rz_pick *pick,
                              radz_error *err)
{
    RZ_TRY(embed_ensemble(net, bank, pick, s->templates, s->n_templates, false, &s->texts, err));
    if (s->kind == RADZ_SCORE_POS_NEG && s->n_negatives)
        return embed_ensemble(net, bank, pick, s->negative_templates, s->n_negatives, false, &s->negatives, err);
    if (s->kind == RADZ_SCORE_POS_NEG)
        return embed_ensemble(net, bank, pick, s->templates, s->n_templates, true, &s->negatives, err);
    if (s->kind != RADZ_SCORE_FUSED) return RADZ_OK;
    s->text_anchors = rz_calloc(s->host, s->n, s->n * sizeof *s->text_anchors);
    if (!s->text_anchors) return RZ_NO_MEMORY(err, "scorer");
    for (size_t c = 0; c < s->n; c++)
        for (size_t d = 0; d < s->n; d++)
            s->text_anchors[c * s->n + d] = dot(s->texts + c * s->dim, s->anchors + d * s->dim, s->dim);
    return RADZ_OK;
}

static radz_status check_options(const radz_score_options *o, radz_error *err)
{
    if ((unsigned)o->score > RADZ_SCORE_HIDDEN || !rz_feature_name(o->feature) || !rz_classes_name(o->classes))
        return rz_fail(err, RADZ_E_ARGUMENT, "score options: score, feature or classes is out of range");
    if (o->score == RADZ_SCORE_HIDDEN && o->feature != RADZ_SCORE_GLOBAL)
        return rz_fail(err, RADZ_E_ARGUMENT, "score hidden: has one feature, the mean of all rows");
    if (!(o->tau <= 0 || (o->tau >= 1e-4 && o->tau <= 100))) /* as a model's own; beyond, 1 / tau^2 leaves numbers */
        return rz_fail(err, RADZ_E_ARGUMENT, "tau: expected 0.0001 to 100, or 0 for the model's own");
    return RADZ_OK;
}

/* own: the model's own score is the fused one, whose classes exclude each other. */
static radz_score_classes how(const rz_scorer *s, bool own, radz_score_classes asked)
{
    if (asked != RADZ_CLASSES_AUTO) return asked;
    if (s->kind == RADZ_SCORE_POS_NEG || s->n == 1) return RADZ_CLASSES_INDEPENDENT;
    if (s->kind == RADZ_SCORE_FUSED && own) return RADZ_CLASSES_EXCLUSIVE;
    return s->reference < s->n ? RADZ_CLASSES_REFERENCE : RADZ_CLASSES_EXCLUSIVE;
}

/* What every scorer knows of its classes. */
static radz_status name_classes(rz_scorer *s, const rz_model *m, const rz_bank *bank, const radz_score_options *o,
                                radz_error *err)
{
    s->n = bank->n, s->reference = bank->reference;
    s->classes = how(s, m->cfg.radz.fused_score, o->classes);
    if (s->classes == RADZ_CLASSES_REFERENCE && s->reference == s->n)
        return rz_fail(err, RADZ_E_ARGUMENT, "classes reference: the bank has no reference class such as 'No Finding'");
    memcpy(s->model_hash, m->family, sizeof s->model_hash);
    memcpy(s->bank_hash, bank->base_hash, sizeof s->bank_hash);
    s->labels = rz_calloc(s->host, s->n, sizeof *s->labels);
    for (size_t i = 0; i < s->n; i++)
        if (!s->labels || !(s->labels[i] = rz_strdup(s->host, bank->labels[i]))) return RZ_NO_MEMORY(err, "scorer");
    return RADZ_OK;
}

static radz_status fill_scorer(rz_scorer *s, const rz_net *net, const rz_bank *bank, const radz_score_options *o,
                               radz_error *err)
{
    const rz_config *cfg = &net->model->cfg;
    rz_pick pick = rz_embed_own(cfg);
    radz_embed_options hidden = {.struct_size = sizeof hidden, .feature = RADZ_FEATURE_LOCAL, .raw = 1};
    if (o->score == RADZ_SCORE_HIDDEN) RZ_TRY(rz_embed_pick(cfg, &hidden, &pick, err));
    s->kind = o->score, s->feature = o->feature;
    s->dim = rz_embed_dim(cfg, &pick);
    s->tau = o->tau > 0 ? o->tau : rz_model_tau(net->model, net->s);
    RZ_TRY(name_classes(s, net->model, bank, o, err));
    if (s->kind == RADZ_SCORE_IMG_ANCHOR || s->kind == RADZ_SCORE_FUSED) {
        s->anchors = rz_calloc(s->host, s->n, s->dim * sizeof *s->anchors);
        if (!s->anchors) return RZ_NO_MEMORY(err, "scorer");
        memcpy(s->anchors, bank->anchors, s->n * s->dim * sizeof *s->anchors);
    }
    if (s->kind == RADZ_SCORE_IMG_ANCHOR) return RADZ_OK;
    RZ_TRY(take_templates(s, net, o, err));
    return fill_texts(s, net, bank, &pick, err);
}

/* The bank's own calibration, where it was fitted for these options; what they leave open is as it has it. */
static const rz_calibration *own_calibration(const rz_bank *bank, radz_score_options *o)
{
    const rz_calibration *own = bank->calibration;
    if (!own || o->calibration || o->score != RADZ_SCORE_IMG_ANCHOR || o->feature != RADZ_SCORE_GLOBAL) return NULL;
    if (o->classes == RADZ_CLASSES_AUTO) o->classes = own->classes;
    if (!(o->tau > 0)) o->tau = own->tau;
    return o->classes == own->classes && o->tau == own->tau ? own : NULL;
}

radz_status rz_scorer_open(const rz_net *net, const rz_bank *bank, const radz_score_options *options, rz_scorer **out,
                           radz_error *err)
{
    radz_score_options o = *options;
    *out = NULL;
    RZ_TRY(check_options(&o, err));
    RZ_TRY(rz_bank_require_model(bank, net->model, err));
    rz_scorer *s = rz_calloc(bank->host, 1, sizeof *s);
    if (!s) return RZ_NO_MEMORY(err, "scorer");
    s->host = bank->host;
    const rz_calibration *own = own_calibration(bank, &o);
    radz_status status = fill_scorer(s, net, bank, &o, err);
    if (status == RADZ_OK && o.calibration) status = rz_calibration_load(s, o.calibration, err);
    if (status == RADZ_OK && own) status = rz_calibration_parse(s, own->text, "calibration of the bank", err);
    if (status == RADZ_OK)
        *out = s;
    else
        rz_scorer_close(s);
    return status;
}

radz_status rz_scorer_open_given(const rz_net *net, const rz_bank *bank, unsigned kind,
                                 const radz_score_options *options, rz_scorer **out, radz_error *err)
{
    radz_score_options o = *options;
    rz_scorer *s = rz_calloc(bank->host, 1, sizeof *s);
    *out = NULL;
    if (!s) return RZ_NO_MEMORY(err, "scorer");
    s->host = bank->host, s->kind = kind, s->tau = 1;
    if (kind != RZ_SCORE_LIKELIHOOD && kind != RZ_SCORE_LIKELIHOOD_MEAN) o.classes = RADZ_CLASSES_INDEPENDENT;
    radz_status status = name_classes(s, net->model, bank, &o, err);
    if (status == RADZ_OK && o.calibration) status = rz_calibration_load(s, o.calibration, err);
    if (status == RADZ_OK)
        *out = s;
    else
        rz_scorer_close(s);
    return status;
}

static void free_texts(const rz_host *host, char **texts, size_t n)
{
    for (size_t i = 0; texts && i < n; i++) rz_free(host, texts[i]);
    rz_free(host, texts);
}

void rz_scorer_uncalibrate(rz_scorer *s)
{
    for (size_t i = 0; s->calibrators && i < s->n; i++) rz_calibrator_free(s->host, &s->calibrators[i]);
    rz_free(s->host, s->calibrators);
    s->calibrators = NULL;
    s->calibration = RZ_CALIBRATE_NONE;
}

void rz_scorer_close(rz_scorer *s)
{
    if (!s) return;
    rz_scorer_uncalibrate(s);
    free_texts(s->host, s->labels, s->n);
    free_texts(s->host, s->templates, s->n_templates ? s->n_templates : 1);
    free_texts(s->host, s->negative_templates, s->n_negatives);
    rz_free(s->host, s->anchors);
    rz_free(s->host, s->texts);
    rz_free(s->host, s->negatives);
    rz_free(s->host, s->text_anchors);
    rz_free(s->host, s);
}

bool rz_scorer_needs_local(const rz_scorer *s)
{
    return s->feature != RADZ_SCORE_GLOBAL;
}

bool rz_scorer_needs_global(const rz_scorer *s)
{
    return s->feature != RADZ_SCORE_LOCAL;
}

/* ---- Scoring ---- */

static void add_similarities(const rz_scorer *s, const float *v, double weight, rz_score *out)
{
    const double vv = dot(v, v, s->dim), scale = weight / sqrt(vv);
    for (size_t c = 0; c < s->n; c++) {
        const size_t at = c * s->dim;
        double sum = 0;
        if (s->kind == RADZ_SCORE_IMG_ANCHOR) { /* to the bit what radz_classify says */
            const float *d = s->anchors + at;
            double cosine = dot(v, d, s->dim) / sqrt(vv * dot(d, d, s->dim));
            out[c].similarity += weight * (cosine > 1 ? 1 : cosine < -1 ? -1 : cosine);
            continue;
        }
        if (s->kind == RADZ_SCORE_IMG_TEXT || s->kind == RADZ_SCORE_HIDDEN) sum = dot(v, s->texts + at, s->dim);
        if (s->kind == RADZ_SCORE_POS_NEG) sum = dot(v, s->texts + at, s->dim) - dot(v, s->negatives + at, s->dim);
        out[c].similarity += scale * sum;
    }
}

/* (X D^T)(T D^T)^T of the authors' code, over the number of anchors. */
static void add_fused(const rz_scorer *s, const float *v, double weight, rz_score *out)
{
    const double scale = weight / sqrt(dot(v, v, s->dim)) / (double)s->n;
    for (size_t d = 0; d < s->n; d++) {
        double x = scale * dot(v, s->anchors + d * s->dim, s->dim);
        for (size_t c = 0; c < s->n; c++) out[c].similarity += x * s->text_anchors[c * s->n + d];
    }
}

static void fill_margins(const rz_scorer *s, rz_score *out)
{
    const double scale = s->kind == RADZ_SCORE_FUSED ? (double)s->n / (s->tau * s->tau) : 1 / s->tau;
    const bool logs = s->kind == RZ_SCORE_LIKELIHOOD || s->kind == RZ_SCORE_LIKELIHOOD_MEAN;
    rz_score_margins(out, s->n, s->classes, s->reference, scale);
    for (size_t c = 0; c < s->n; c++)
        if (rz_score_is_answer(s->kind))
            out[c].margin = 2 * out[c].similarity - 1; /* yes or no: its odds are not known */
        else if (logs && s->classes == RADZ_CLASSES_INDEPENDENT)
            out[c].margin = out[c].similarity - log(-expm1(fmin(out[c].similarity, -1e-300)));
}

static void put_probabilities(const rz_scorer *s, rz_score *out)
{
    for (size_t c = 0; c < s->n; c++)
        out[c].probability = s->calibrators                ? rz_calibrated(&s->calibrators[c], out[c].margin)
                             : rz_score_is_answer(s->kind) ? out[c].similarity
                                                           : rz_sigmoid(out[c].margin);
}

radz_status rz_scorer_film(const rz_scorer *s, const float *global, const float *local, rz_score *out, radz_error *err)
{
    const float *vectors[2] = {rz_scorer_needs_global(s) ? global : NULL, rz_scorer_needs_local(s) ? local : NULL};
    const double weight = s->feature == RADZ_SCORE_BOTH ? 0.5 : 1;
    for (size_t c = 0; c < s->n; c++) out[c] = (rz_score){.i = c, .threshold = NAN};
    for (size_t k = 0; k < 2; k++) {
        if (!vectors[k]) continue;
        if (s->kind == RADZ_SCORE_FUSED)
            add_fused(s, vectors[k], weight, out);
        else
            add_similarities(s, vectors[k], weight, out);
    }
    return rz_scorer_given(s, out, err);
}

radz_status rz_scorer_given(const rz_scorer *s, rz_score *out, radz_error *err)
{
    for (size_t c = 0; c < s->n; c++)
        if (!isfinite(out[c].similarity))
            return rz_fail(err, RADZ_E_ARGUMENT, "expected a vector of finite numbers that are not all zero");
    fill_margins(s, out);
    put_probabilities(s, out);
    return RADZ_OK;
}
