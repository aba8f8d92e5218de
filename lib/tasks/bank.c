/* bank.c - the anchor bank: built from descriptions, in memory and in a model's directory.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bank_parts.h"
#include "embed.h"

/* ---- Building ---- */

void rz_bank_free(rz_bank *b)
{
    if (!b) return;
    for (size_t i = 0; i < b->n; i++) {
        if (b->labels) rz_free(b->host, b->labels[i]);
        if (b->descriptions) rz_free(b->host, b->descriptions[i]);
    }
    rz_free(b->host, b->labels);
    rz_free(b->host, b->descriptions);
    rz_free(b->host, b->anchors);
    rz_free(b->host, b->texts);
    rz_free(b->host, b->written);
    rz_free(b->host, b->writer);
    rz_calibration_free(b->host, b->calibration);
    rz_free(b->host, b);
}

radz_status rz_bank_new_like(const rz_bank *like, size_t n, rz_bank **out, radz_error *err)
{
    rz_bank *b = rz_calloc(like->host, 1, sizeof *b);
    if (!b) return RZ_NO_MEMORY(err, "anchor bank");
    b->host = like->host;
    b->n = b->reference = n;
    b->dim = like->dim;
    b->layer = like->layer, b->mlp_then_mean = like->mlp_then_mean;
    memcpy(b->tokenizer_hash, like->tokenizer_hash, sizeof b->tokenizer_hash);
    memcpy(b->model_hash, like->model_hash, sizeof b->model_hash);
    memcpy(b->family, like->family, sizeof b->family);
    b->labels = rz_calloc(b->host, n, sizeof *b->labels);
    b->descriptions = rz_calloc(b->host, n, sizeof *b->descriptions);
    b->anchors = rz_calloc(b->host, n, b->dim * sizeof *b->anchors);
    b->fused = like->fused;
    b->texts = b->fused ? rz_calloc(b->host, n, b->dim * sizeof *b->texts) : NULL;
    b->written = rz_calloc(b->host, n, sizeof *b->written);
    b->writer = like->writer ? rz_strdup(b->host, like->writer) : NULL;
    if (b->labels && b->descriptions && b->anchors && b->written && (b->writer || !like->writer) &&
        (b->texts || !b->fused)) {
        *out = b;
        return RADZ_OK;
    }
    rz_bank_free(b);
    return RZ_NO_MEMORY(err, "anchor bank");
}

radz_status rz_bank_new(const rz_model *m, size_t n, rz_bank **out, radz_error *err)
{
    const rz_radz_config *radz = &m->cfg.radz;
    rz_bank like = {.host = m->cfg.host,
                    .dim = radz->dim,
                    .layer = radz->layer,
                    .mlp_then_mean = radz->mlp_then_mean,
                    .fused = radz->fused_score};
    memcpy(like.model_hash, m->hash, sizeof like.model_hash);
    memcpy(like.family, m->family, sizeof like.family);
    if (m->tok) memcpy(like.tokenizer_hash, rz_tokenizer_hash(m->tok), sizeof like.tokenizer_hash);
    return rz_bank_new_like(&like, n, out, err);
}

radz_status rz_bank_set_class(rz_bank *b, size_t i, const char *label, char *description, radz_error *err)
{
    b->labels[i] = rz_strdup(b->host, label);
    b->descriptions[i] = description;
    if (!b->labels[i] || !description) return RZ_NO_MEMORY(err, "class of an anchor bank");
    if (b->reference == b->n && rz_label_is_reference(label)) b->reference = i;
    return RADZ_OK;
}

/* The sentences of classes first.., for the fused score. */
static radz_status fill_texts(rz_bank *b, size_t first, const rz_net *net, radz_error *err)
{
    const rz_pick own = rz_embed_own(&net->model->cfg);
    for (size_t i = first; b->fused && i < b->n; i++) {
        const char *label = b->labels[i];
        char *sentence = rz_prompt_label_text(b->host, net->model, &label, 1);
        if (!sentence) return RZ_NO_MEMORY(err, "label sentence");
        radz_status status =
            rz_embed_texts(net, RZ_ITEM_TEXT, (const char *const *)&sentence, 1, &own, b->texts + i * b->dim, err);
        rz_free(b->host, sentence);
        RZ_TRY(status);
    }
    return RADZ_OK;
}

radz_status rz_bank_fill(rz_bank *b, size_t first, const rz_net *net, const radz_bank_entry *entries, rz_item_kind kind,
                         radz_error *err)
{
    const size_t n = b->n - first;
    const rz_pick own = rz_embed_own(&net->model->cfg);
    for (size_t i = 0; i < n; i++) {
        const char *label = entries[i].label, *given = kind == RZ_ITEM_TEXT ? NULL : entries[i].description;
        char *description = given ? rz_strdup(b->host, given) : rz_prompt_label_text(b->host, net->model, &label, 1);
        RZ_TRY(rz_bank_set_class(b, first + i, label, description, err));
    }
    RZ_TRY(rz_embed_texts(net, kind, (const char *const *)b->descriptions + first, n, &own, b->anchors + first * b->dim,
                          err));
    RZ_TRY(fill_texts(b, first, net, err));
    return rz_bank_seal(b, err);
}

radz_status rz_bank_done(rz_bank *b, radz_status status, rz_bank **out)
{
    if (status == RADZ_OK)
        *out = b;
    else
        rz_bank_free(b);
    return status;
}

radz_status rz_bank_build(const rz_net *net, const radz_bank_entry *entries, size_t n, rz_bank **bank, radz_error *err)
{
    *bank = NULL;
    RZ_TRY(rz_model_require_texts(net->model, err));
    RZ_TRY(rz_bank_check(net->model->cfg.host, entries, n, "anchor bank", RADZ_E_ARGUMENT, err));
    rz_bank *b = NULL;
    RZ_TRY(rz_bank_new(net->model, n, &b, err));
    return rz_bank_done(b, rz_bank_fill(b, 0, net, entries, RZ_ITEM_DISEASE, err), bank);
}

radz_status rz_bank_build_common(const rz_net *net, rz_bank **bank, radz_error *err)
{
    static const radz_bank_entry common[] = {
        {"No Finding", NULL},   {"Atelectasis", NULL}, {"Cardiomegaly", NULL}, {"Consolidation", NULL},
        {"Edema", NULL},        {"Effusion", NULL},    {"Emphysema", NULL},    {"Fibrosis", NULL},
        {"Infiltration", NULL}, {"Mass", NULL},        {"Nodule", NULL},       {"Pleural Thickening", NULL},
        {"Pneumonia", NULL},    {"Pneumothorax", NULL}};
    return rz_bank_build(net, common, RZ_COUNT(common), bank, err);
}

size_t rz_bank_find_label(const rz_bank *bank, const char *label)
{
    size_t i = 0;
    while (i < bank->n && rz_label_compare(bank->labels[i], label) != 0) i++;
    return i;
}

radz_status rz_bank_find(const rz_bank *bank, const char *label, size_t *class_index, radz_error *err)
{
    *class_index = rz_bank_find_label(bank, label);
    if (*class_index < bank->n) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: there is no class '%s'", label);
}

radz_status rz_bank_set_writer(rz_bank *b, const char *writer, const bool *written, radz_error *err)
{
    char *copy = rz_strdup(b->host, writer);
    if (!copy) return RZ_NO_MEMORY(err, "anchor bank");
    rz_free(b->host, b->writer);
    b->writer = copy;
    memcpy(b->written, written, b->n * sizeof *written);
    return rz_bank_seal(b, err);
}

/* ---- A bank in the model's own directory ---- */

/* As the model in dir would make it, of which names and hashes alone are read: a second set of weights might have no
 * room. */
static radz_status new_own(const rz_net *net, const char *dir, size_t n, rz_bank **bank, radz_error *err)
{
    const rz_source files = {.dir = dir, .list_only = true};
    rz_model *written = NULL;
    RZ_TRY(rz_model_load_from(net->model->cfg.host, net->model->dev, &files, RZ_MODEL_INFER, 0, &written, err));
    radz_status status = rz_bank_new(written, n, bank, err);
    rz_model_unload(written);
    return status;
}

static radz_status write_own(const rz_net *net, const char *dir, const radz_bank_entry *entries, size_t n,
                             rz_item_kind kind, radz_error *err)
{
    const rz_host *host = net->model->cfg.host;
    rz_bank *b = NULL;
    RZ_TRY(rz_model_require_texts(net->model, err));
    RZ_TRY(rz_bank_check(host, entries, n, "anchor bank", RADZ_E_ARGUMENT, err));
    char *path = rz_path_join(host, dir, RZ_BANK_FILE);
    radz_status status = path ? new_own(net, dir, n, &b, err) : RZ_NO_MEMORY(err, "path of an anchor bank");
    if (!status) status = rz_bank_fill(b, 0, net, entries, kind, err);
    if (!status) status = rz_bank_save(b, path, err);
    rz_free(host, path);
    rz_bank_free(b);
    return status;
}

radz_status rz_bank_write_own(const rz_net *net, const char *dir, const radz_bank_entry *entries, size_t n,
                              radz_error *err)
{
    return write_own(net, dir, entries, n, RZ_ITEM_DISEASE, err);
}

radz_status rz_bank_write_sentences(const rz_net *net, const char *dir, const radz_bank_entry *entries, size_t n,
                                    radz_error *err)
{
    return write_own(net, dir, entries, n, RZ_ITEM_TEXT, err);
}
