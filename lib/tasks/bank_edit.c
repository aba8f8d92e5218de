/* bank_edit.c - an anchor bank from another: with more classes, with fewer, with another description. A calibration is
 * not taken over: it was fitted for the classes as they were.
 * SPDX-License-Identifier: Apache-2.0 */
#include "bank_parts.h"
#include "embed.h"

static radz_status copy_class(rz_bank *to, size_t k, const rz_bank *from, size_t i, radz_error *err)
{
    to->written[k] = from->written[i];
    memcpy(to->anchors + k * to->dim, from->anchors + i * from->dim, to->dim * sizeof *to->anchors);
    if (to->fused) memcpy(to->texts + k * to->dim, from->texts + i * from->dim, to->dim * sizeof *to->texts);
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
    return rz_bank_fill(b, bank->n, net, entries, RZ_ITEM_DISEASE, err);
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
    RZ_TRY(rz_bank_new_like(bank, bank->n + n, &b, err));
    return rz_bank_done(b, fill_with(b, net, bank, entries, err), out);
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
        size_t i = labels[k] ? rz_bank_find_label(bank, labels[k]) : bank->n;
        if (i == bank->n)
            return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: no class '%s'", labels[k] ? labels[k] : "(NULL)");
        left -= !gone[i];
        gone[i] = true;
    }
    if (!left) return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: no class would be left");
    rz_bank *b = NULL;
    RZ_TRY(rz_bank_new_like(bank, left, &b, err));
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
    if (b->fused) memcpy(b->texts + at * b->dim, bank->texts + at * b->dim, b->dim * sizeof *b->texts);
    RZ_TRY(rz_embed_texts(net, RZ_ITEM_DISEASE, &description, 1, &own, b->anchors + at * b->dim, err));
    return rz_bank_seal(b, err);
}

radz_status rz_bank_edit(const rz_net *net, const rz_bank *bank, const char *label, const char *description,
                         rz_bank **out, radz_error *err)
{
    const size_t at = rz_bank_find_label(bank, label);
    const radz_bank_entry entry = {label, description};
    *out = NULL;
    RZ_TRY(rz_bank_require_model(bank, net->model, err));
    if (at == bank->n) return rz_fail(err, RADZ_E_ARGUMENT, "anchor bank: no class '%s'", label);
    RZ_TRY(rz_bank_check(bank->host, &entry, 1, "anchor bank", RADZ_E_ARGUMENT, err));
    rz_bank *b = NULL;
    RZ_TRY(rz_bank_new_like(bank, bank->n, &b, err));
    return rz_bank_done(b, fill_edited(b, net, bank, at, description, err), out);
}

static radz_status fill_copy(rz_bank *b, const rz_bank *bank, radz_error *err)
{
    for (size_t i = 0; i < bank->n; i++) RZ_TRY(copy_class(b, i, bank, i, err));
    memcpy(b->base_hash, bank->base_hash, sizeof b->base_hash);
    return RADZ_OK;
}

radz_status rz_bank_copy(const rz_bank *bank, rz_bank **out, radz_error *err)
{
    rz_bank *b = NULL;
    *out = NULL;
    RZ_TRY(rz_bank_new_like(bank, bank->n, &b, err));
    return rz_bank_done(b, fill_copy(b, bank, err), out);
}
