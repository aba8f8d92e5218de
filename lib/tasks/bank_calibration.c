/* bank_calibration.c - probabilities that hold, kept in the bank whose anchors they are of.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bank_parts.h"
#include "scorer.h"

#define MAX_FILMS_BYTES 1000 /* of the words that say which films */

static radz_status read_classes(const rz_bank *b, const json_t *o, const char *what, radz_score_classes *classes,
                                radz_error *err)
{
    const char *name = "";
    RZ_TRY(rz_json_string(o, what, "classes", &name, err));
    for (int k = RADZ_CLASSES_REFERENCE; k <= RADZ_CLASSES_INDEPENDENT; k++)
        if (strcmp(name, rz_classes_name((radz_score_classes)k)) == 0) *classes = (radz_score_classes)k;
    if (*classes != RADZ_CLASSES_AUTO && (*classes != RADZ_CLASSES_REFERENCE || b->reference < b->n)) return RADZ_OK;
    return rz_fail(err, RADZ_E_FORMAT, "%s: classes: '%.40s' does not fit the bank", what, name);
}

/* A scorer as radz_classify would have it: to compare the file with, and to be filled from it. */
static radz_status read_scorer(const rz_bank *b, const json_t *o, const char *what, rz_scorer *s, radz_error *err)
{
    double tau = NAN;
    *s = (rz_scorer){.host = b->host, .n = b->n, .labels = b->labels};
    s->kind = b->fused ? RADZ_SCORE_FUSED : RADZ_SCORE_IMG_ANCHOR;
    memcpy(s->model_hash, b->family, sizeof s->model_hash);
    memcpy(s->bank_hash, b->base_hash, sizeof s->bank_hash);
    RZ_TRY(read_classes(b, o, what, &s->classes, err));
    RZ_TRY(rz_json_double(o, what, "tau", 0, 1e300, &tau, err));
    if (!(tau > 0)) return rz_fail(err, RADZ_E_FORMAT, "%s: tau: expected a positive number", what);
    s->tau = tau;
    return rz_calibration_take(s, o, what, err);
}

/* Words that a file may hold; NULL: it has none. */
typedef struct words {
    const char *source, *films, *rule;
} words;

static radz_status read_words(const json_t *o, const char *what, words *w, radz_error *err)
{
    *w = (words){NULL, NULL, NULL};
    RZ_TRY(rz_json_string(o, what, "source", &w->source, err));
    RZ_TRY(rz_json_string(o, what, "films", &w->films, err));
    return rz_json_string(o, what, "threshold_rule", &w->rule, err);
}

static radz_status keep(rz_bank *b, const rz_scorer *s, const char *text, const char *films, radz_error *err)
{
    b->calibration = rz_calloc(b->host, 1, sizeof *b->calibration);
    if (!b->calibration) return RZ_NO_MEMORY(err, "calibration");
    rz_calibration *c = b->calibration;
    c->kind = s->calibration, c->classes = s->classes, c->tau = s->tau, c->n = s->n;
    c->text = rz_strdup(b->host, text);
    c->films = rz_strdup(b->host, films);
    return c->text && c->films ? RADZ_OK : RZ_NO_MEMORY(err, "calibration");
}

/* text NULL: written anew. The calibrators go over to the bank. */
static radz_status take(rz_bank *b, const json_t *o, const char *text, const char *films, const char *what,
                        radz_error *err)
{
    rz_scorer s;
    words w;
    rz_str own = {.host = b->host};
    RZ_TRY(read_words(o, what, &w, err));
    if (!films) films = w.films ? w.films : "films that its file does not name";
    if (strlen(films) > MAX_FILMS_BYTES) return rz_fail(err, RADZ_E_LIMIT, "%s: films: over 1000 bytes", what);
    radz_status status = read_scorer(b, o, what, &s, err);
    if (!status && !text) rz_calibration_put_json(&own, &s, w.source ? w.source : "", films, w.rule ? w.rule : "");
    if (own.failed) status = RZ_NO_MEMORY(err, "calibration");
    if (!status) status = keep(b, &s, text ? text : own.data, films, err);
    rz_str_free(&own);
    if (b->calibration) {
        b->calibration->of = s.calibrators;
        s.calibrators = NULL;
    }
    rz_scorer_uncalibrate(&s);
    return status;
}

radz_status rz_bank_read_calibration(rz_bank *b, const char *text, const char *what, radz_error *err)
{
    const char *hash = "";
    json_t *o = NULL;
    RZ_TRY(rz_json_parse(text, strlen(text), what, &o, err));
    radz_status status = rz_json_string(o, what, "bank", &hash, err);
    if (!status && (strlen(hash) != 64 || hash[strspn(hash, "0123456789abcdef")]))
        status = rz_fail(err, RADZ_E_FORMAT, "%s: calibration: bank: expected 64 hex digits", what);
    if (!status) memcpy(b->base_hash, hash, sizeof b->base_hash);
    if (!status) status = take(b, o, text, NULL, what, err);
    json_decref(o);
    return status;
}

radz_status rz_bank_calibrate(const rz_bank *bank, const char *path, const char *films, rz_bank **out, radz_error *err)
{
    json_t *o = NULL;
    rz_bank *b = NULL;
    *out = NULL;
    RZ_TRY(rz_json_load(bank->host, path, RZ_CALIBRATION_MAX_BYTES, &o, err));
    radz_status status = rz_bank_copy(bank, &b, err);
    if (!status) status = take(b, o, NULL, films, path, err);
    if (!status) status = rz_bank_seal(b, err);
    json_decref(o);
    return b ? rz_bank_done(b, status, out) : status;
}
