/* bank.c - the anchor bank: built from descriptions, made from another bank.
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
    rz_free(b->host, b->written);
    rz_free(b->host, b->writer);
    rz_free(b->host, b);
}

/* Room for n classes; model, layer and size of vectors are those of `like`. */
static radz_status new_bank_like(const rz_bank *like, size_t n, rz_bank **out, radz_error *err)
{
    rz_bank *b = rz_calloc(like->host, 1, sizeof *b);
    if (!b) return RZ_NO_MEMORY(err, "anchor bank");
    b->host = like->host;
    b->n = b->reference = n;
    b->dim = like->dim;
    b->layer = like->layer, b->mlp_then_mean = like->mlp_then_mean;
    memcpy(b->tokenizer_hash, like->tokenizer_hash, sizeof b->tokenizer_hash);
    memcpy(b->model_hash, like->model_hash, sizeof b->model_hash);
    b->labels = rz_calloc(b->host, n, sizeof *b->labels);
    b->descriptions = rz_calloc(b->host, n, sizeof *b->descriptions);
    b->anchors = rz_calloc(b->host, n, b->dim * sizeof *b->anchors);
    b->written = rz_calloc(b->host, n, sizeof *b->written);
    b->writer = like->writer ? rz_strdup(b->host, like->writer) : NULL;
    if (b->labels && b->descriptions && b->anchors && b->written && (b->writer || !like->writer)) {
        *out = b;
        return RADZ_OK;
    }
    rz_bank_free(b);
    return RZ_NO_MEMORY(err, "anchor bank");
}

radz_status rz_bank_new(const rz_model *m, size_t n, rz_bank **out, radz_error *err)
{
    const rz_radz_config *radz = &m->cfg.radz;
    rz_bank like = {.host = m->cfg.host, .dim = radz->dim, .layer = radz->layer, .mlp_then_mean = radz->mlp_then_mean};
    memcpy(like.model_hash, m->hash, sizeof like.model_hash);
    if (m->tok) memcpy(like.tokenizer_hash, rz_tokenizer_hash(m->tok), sizeof like.tokenizer_hash);
    return new_bank_like(&like, n, out, err);
}

radz_status rz_bank_set_class(rz_bank *b, size_t i, const char *label, char *description, radz_error *err)
{
    b->labels[i] = rz_strdup(b->host, label);
    b->descriptions[i] = description;
    if (!b->labels[i] || !description) return RZ_NO_MEMORY(err, "class of an anchor bank");
    if (b->reference == b->n && rz_label_is_reference(label)) b->reference = i;
    return RADZ_OK;
}

/* Classes first.. of the bank from entries: texts, then their anchors. RZ_ITEM_TEXT: of the labels' plain sentences. */
static radz_status fill_bank(rz_bank *b, size_t first, const rz_net *net, const radz_bank_entry *entries,
                             rz_item_kind kind, radz_error *err)
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

static radz_status build(const rz_net *net, const radz_bank_entry *entries, size_t n, rz_item_kind kind, rz_bank **bank,
                         radz_error *err)
{
    *bank = NULL;
    RZ_TRY(rz_model_require_texts(net->model, err));
    RZ_TRY(rz_bank_check(net->model->cfg.host, entries, n, "anchor bank", RADZ_E_ARGUMENT, err));
    rz_bank *b = NULL;
    RZ_TRY(rz_bank_new(net->model, n, &b, err));
    return rz_bank_done(b, fill_bank(b, 0, net, entries, kind, err), bank);
}

radz_status rz_bank_build(const rz_net *net, const radz_bank_entry *entries, size_t n, rz_bank **bank, radz_error *err)
{
    return build(net, entries, n, RZ_ITEM_DISEASE, bank, err);
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

/* ---- Another bank from this one ---- */

static radz_status copy_class(rz_bank *to, size_t k, const rz_bank *from, size_t i, radz_error *err)
{
    to->written[k] = from->written[i];
    memcpy(to->anchors + k * to->dim, from->anchors + i * from->dim, to->dim * sizeof *to->anchors);
    return rz_bank_set_class(to, k, from->labels[i], rz_strdup(to->host, from->descriptions[i]), err);
}

/* Labels of the old and the new classes together must be good. */
static radz_status check_with(const rz_bank *bank, const radz_bank_entry *entries, size_t n, radz_error *err)
{
    if (n > RZ_BANK_MAX_CLASSES - bank->n)
        return rz_fail(err, RADZ_E_LIMIT, "anchor bank: at most %u classes, got %zu and %zu more", RZ_BANK_MAX_CLASSES,
                       bank->n, n);
    radz_bank_entry *all = rz_malloc(bank->host, (bank->n + n) * sizeof *all);
    if (!all) return RZ_NO_MEMORY(err, "classes of an anchor bank");
    for (size_t i = 0; i < bank->n; i++) all[i] = (radz_bank_entry){bank->labels[i], bank->descriptions[i]};
    memcpy(all + bank->n, entries, n * sizeof *entries);
    radz_status status = rz_bank_check(bank->host, all, bank->n + n, "anchor bank", RADZ_E_ARGUMENT, err);
    rz_free(bank->host, all);
    return status;
}

static radz_status fill_with(rz_bank *b, const rz_net *net, const rz_bank *bank, const radz_bank_entry *entries,
                             radz_error *err)
{
    for (size_t i = 0; i < bank->n; i++) RZ_TRY(copy_class(b, i, bank, i, err));
    return fill_bank(b, bank->n, net, entries, RZ_ITEM_DISEASE, err);
}

radz_status rz_bank_with(const rz_net *net, const rz_bank *bank, const radz_bank_entry *entries, size_t n,
                         rz_bank **out, radz_error *err)
{
    *out = NULL;
    RZ_TRY(rz_bank_require_model(bank, net->model, err));
    RZ_TRY(rz_model_require_texts(net->model, err));
    if (!n) return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: no class to add");
    RZ_TRY(check_with(bank, entries, n, err));
    rz_bank *b = NULL;
    RZ_TRY(new_bank_like(bank, bank->n + n, &b, err));
    return rz_bank_done(b, fill_with(b, net, bank, entries, err), out);
}

static size_t find_label(const rz_bank *bank, const char *label)
{
    size_t i = 0;
    while (i < bank->n && rz_label_compare(bank->labels[i], label) != 0) i++;
    return i;
}

radz_status rz_bank_find(const rz_bank *bank, const char *label, size_t *class_index, radz_error *err)
{
    *class_index = find_label(bank, label);
    if (*class_index < bank->n) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: there is no class '%s'", label);
}

static radz_status fill_without(rz_bank *b, const rz_bank *bank, const bool *gone, radz_error *err)
{
    for (size_t i = 0, k = 0; i < bank->n; i++)
        if (!gone[i]) RZ_TRY(copy_class(b, k++, bank, i, err));
    return rz_bank_seal(b, err);
}

static radz_status without(const rz_bank *bank, const char *const *labels, size_t n, bool *gone, rz_bank **out,
                           radz_error *err)
{
    size_t left = bank->n;
    for (size_t k = 0; k < n; k++) {
        size_t i = labels[k] ? find_label(bank, labels[k]) : bank->n;
        if (i == bank->n)
            return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: no class '%s'", labels[k] ? labels[k] : "(NULL)");
        left -= !gone[i];
        gone[i] = true;
    }
    if (!left) return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: no class would be left");
    rz_bank *b = NULL;
    RZ_TRY(new_bank_like(bank, left, &b, err));
    return rz_bank_done(b, fill_without(b, bank, gone, err), out);
}

radz_status rz_bank_without(const rz_bank *bank, const char *const *labels, size_t n, rz_bank **out, radz_error *err)
{
    *out = NULL;
    bool *gone = rz_calloc(bank->host, bank->n, sizeof *gone);
    if (!gone) return RZ_NO_MEMORY(err, "classes of an anchor bank");
    radz_status status = without(bank, labels, n, gone, out, err);
    rz_free(bank->host, gone);
    return status;
}

static radz_status fill_edited(rz_bank *b, const rz_net *net, const rz_bank *bank, size_t at, const char *description,
                               radz_error *err)
{
    const rz_pick own = rz_embed_own(&net->model->cfg);
    for (size_t i = 0; i < bank->n; i++)
        if (i != at) RZ_TRY(copy_class(b, i, bank, i, err));
    RZ_TRY(rz_bank_set_class(b, at, bank->labels[at], rz_strdup(b->host, description), err));
    RZ_TRY(rz_embed_texts(net, RZ_ITEM_DISEASE, &description, 1, &own, b->anchors + at * b->dim, err));
    return rz_bank_seal(b, err);
}

radz_status rz_bank_edit(const rz_net *net, const rz_bank *bank, const char *label, const char *description,
                         rz_bank **out, radz_error *err)
{
    const size_t at = find_label(bank, label);
    const radz_bank_entry entry = {label, description};
    *out = NULL;
    RZ_TRY(rz_bank_require_model(bank, net->model, err));
    if (at == bank->n) return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: no class '%s'", label);
    RZ_TRY(rz_bank_check(bank->host, &entry, 1, "anchor bank", RADZ_E_ARGUMENT, err));
    rz_bank *b = NULL;
    RZ_TRY(new_bank_like(bank, bank->n, &b, err));
    return rz_bank_done(b, fill_edited(b, net, bank, at, description, err), out);
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

static radz_status save_own(const rz_net *net, const rz_host *host, const char *dir, const radz_bank_entry *entries,
                            size_t n, rz_item_kind kind, radz_error *err)
{
    rz_bank *bank = NULL;
    RZ_TRY(build(net, entries, n, kind, &bank, err));
    char *path = rz_path_join(host, dir, RZ_BANK_FILE);
    radz_status status = path ? rz_bank_save(bank, path, err) : RZ_NO_MEMORY(err, "path of an anchor bank");
    rz_free(host, path);
    rz_bank_free(bank);
    return status;
}

static radz_status write_own(const rz_host *host, rz_device *dev, const char *dir, const radz_bank_entry *entries,
                             size_t n, rz_item_kind kind, radz_error *err)
{
    rz_model *model = NULL;
    RZ_TRY(rz_model_load(host, dev, dir, RZ_MODEL_INFER, 0, &model, err));
    rz_net net = {.model = model};
    radz_status status = rz_stream_open(dev, &net.s, err);
    if (status == RADZ_OK) {
        status = save_own(&net, host, dir, entries, n, kind, err);
        rz_stream_close(net.s);
    }
    rz_model_unload(model);
    return status;
}

radz_status rz_bank_write_own(const rz_host *host, rz_device *dev, const char *dir, const radz_bank_entry *entries,
                              size_t n, radz_error *err)
{
    return write_own(host, dev, dir, entries, n, RZ_ITEM_DISEASE, err);
}

radz_status rz_bank_write_sentences(const rz_host *host, rz_device *dev, const char *dir,
                                    const radz_bank_entry *entries, size_t n, radz_error *err)
{
    return write_own(host, dev, dir, entries, n, RZ_ITEM_TEXT, err);
}
