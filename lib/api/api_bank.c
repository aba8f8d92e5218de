/* Public: anchor banks.
 * SPDX-License-Identifier: Apache-2.0 */
#include "describe.h"
#include "handles.h"

static radz_status bank_new(radz_runtime *runtime, radz_bank **bank, radz_error *err)
{
    radz_bank *b = rz_calloc(&runtime->host, 1, sizeof *b);
    if (!b) return RZ_NO_MEMORY(err, "anchor bank");
    rz_handle_init(&b->h);
    rz_handle_hold(&runtime->h);
    b->runtime = runtime;
    *bank = b;
    return RADZ_OK;
}

static radz_status bank_done(radz_bank *b, radz_status status, radz_bank **bank)
{
    if (status == RADZ_OK)
        *bank = b;
    else
        radz_bank_close(b);
    return status;
}

radz_status radz_bank_build(radz_session *session, const radz_bank_entry *entries, size_t n, radz_bank **bank,
                            radz_error *err)
{
    if (bank) *bank = NULL;
    RZ_NEED(bank);
    RZ_LIVE(session);
    RZ_NEED(entries);
    radz_bank *b = NULL;
    RZ_TRY(bank_new(session->model->runtime, &b, err));
    return bank_done(b, rz_bank_build(&session->net, entries, n, &b->bank, err), bank);
}

radz_status radz_bank_build_file(radz_session *session, const char *path, radz_bank **bank, radz_error *err)
{
    if (bank) *bank = NULL;
    RZ_NEED(bank);
    RZ_LIVE(session);
    RZ_NEED(path);
    const rz_host *host = &session->model->runtime->host;
    rz_bank_list list;
    RZ_TRY(rz_bank_list_open(host, path, &list, err));
    radz_status status = radz_bank_build(session, list.entries, list.n, bank, err);
    rz_bank_list_free(host, &list);
    return status;
}

/* The bank that lies in the model's directory. */
static radz_status model_bank(const radz_model *model, rz_bank **bank, radz_error *err)
{
    *bank = NULL;
    const rz_host *host = &model->runtime->host;
    char *path = rz_path_join(host, model->net->radz_dir, RZ_BANK_FILE);
    if (!path) return RZ_NO_MEMORY(err, "path of the anchor bank");
    radz_status status =
        rz_path_exists(path)
            ? rz_bank_open(model->net, path, bank, err)
            : rz_fail(err, RADZ_E_IO,
                      "%s: no such file: the model has no bank of its own; build one (radz-bank build) "
                      "or name the classes",
                      path);
    rz_free(host, path);
    return status;
}

static radz_status open_own_bank(radz_session *session, radz_error *err)
{
    radz_error why;
    radz_status status = model_bank(session->model, &session->own_bank, &why);
    if (status == RADZ_E_IO && !session->model->net->special)
        return rz_bank_build_common(&session->net, &session->own_bank, err);
    if (status && err) *err = why;
    return status;
}

radz_status rz_session_bank(radz_session *session, const radz_bank *bank, const rz_bank **used, radz_error *err)
{
    *used = NULL;
    if (!bank && !session->own_bank) RZ_TRY(open_own_bank(session, err));
    *used = bank ? bank->bank : session->own_bank;
    return RADZ_OK;
}

radz_status radz_bank_open(radz_model *model, const char *path, radz_bank **bank, radz_error *err)
{
    if (bank) *bank = NULL;
    RZ_NEED(bank);
    RZ_LIVE(model);
    radz_bank *b = NULL;
    RZ_TRY(bank_new(model->runtime, &b, err));
    return bank_done(b, path ? rz_bank_open(model->net, path, &b->bank, err) : model_bank(model, &b->bank, err), bank);
}

radz_status radz_bank_save(const radz_bank *bank, const char *path, radz_error *err)
{
    RZ_LIVE(bank);
    RZ_NEED(path);
    return rz_bank_save(bank->bank, path, err);
}

radz_status radz_bank_with(radz_session *session, const radz_bank *bank, const radz_bank_entry *entries, size_t n,
                           radz_bank **out, radz_error *err)
{
    if (out) *out = NULL;
    RZ_NEED(out);
    RZ_LIVE(session);
    RZ_LIVE(bank);
    RZ_NEED(entries);
    radz_bank *b = NULL;
    RZ_TRY(bank_new(session->model->runtime, &b, err));
    return bank_done(b, rz_bank_with(&session->net, bank->bank, entries, n, &b->bank, err), out);
}

radz_status radz_bank_without(const radz_bank *bank, const char *const *labels, size_t n, radz_bank **out,
                              radz_error *err)
{
    if (out) *out = NULL;
    RZ_NEED(out);
    RZ_LIVE(bank);
    RZ_NEED(labels);
    radz_bank *b = NULL;
    RZ_TRY(bank_new(bank->runtime, &b, err));
    return bank_done(b, rz_bank_without(bank->bank, labels, n, &b->bank, err), out);
}

void radz_describe_options_init_sized(radz_describe_options *options, size_t struct_size)
{
    const radz_describe_options defaults = rz_describe_defaults();
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

radz_status radz_bank_describe(radz_session *session, const radz_bank_entry *entries, size_t n,
                               const radz_describe_options *options, radz_bank **bank, radz_error *err)
{
    if (bank) *bank = NULL;
    RZ_NEED(bank);
    RZ_LIVE(session);
    RZ_NEED(entries);
    radz_describe_options o = rz_describe_defaults();
    RZ_TRY(rz_options_take(&o, sizeof o, options, __func__, err));
    radz_bank *b = NULL;
    RZ_TRY(bank_new(session->model->runtime, &b, err));
    return bank_done(b, rz_bank_describe(&session->net, entries, n, &o, &b->bank, err), bank);
}

radz_status radz_bank_describe_file(radz_session *session, const char *path, const radz_describe_options *options,
                                    radz_bank **bank, radz_error *err)
{
    if (bank) *bank = NULL;
    RZ_NEED(bank);
    RZ_LIVE(session);
    RZ_NEED(path);
    const rz_host *host = &session->model->runtime->host;
    rz_bank_list list;
    RZ_TRY(rz_bank_names_open(host, path, &list, err));
    radz_status status = radz_bank_describe(session, list.entries, list.n, options, bank, err);
    rz_bank_list_free(host, &list);
    return status;
}

radz_status radz_bank_edit(radz_session *session, const radz_bank *bank, const char *label, const char *description,
                           radz_bank **out, radz_error *err)
{
    if (out) *out = NULL;
    RZ_NEED(out);
    RZ_LIVE(session);
    RZ_LIVE(bank);
    RZ_NEED(label);
    RZ_NEED(description);
    radz_bank *b = NULL;
    RZ_TRY(bank_new(session->model->runtime, &b, err));
    return bank_done(b, rz_bank_edit(&session->net, bank->bank, label, description, &b->bank, err), out);
}

radz_status radz_bank_calibrate(const radz_bank *bank, const char *path, const char *films, radz_bank **out,
                                radz_error *err)
{
    if (out) *out = NULL;
    RZ_NEED(out);
    RZ_LIVE(bank);
    RZ_NEED(path);
    radz_bank *b = NULL;
    RZ_TRY(bank_new(bank->runtime, &b, err));
    return bank_done(b, rz_bank_calibrate(bank->bank, path, films, &b->bank, err), out);
}

static radz_status score(const rz_bank *bank, const float *vectors, size_t n, double *out, radz_error *err)
{
    for (size_t i = 0; i < n; i++) {
        radz_status status = rz_score_cosines(bank, vectors + i * bank->dim, out + i * bank->n, err);
        if (status) return rz_fail_prefix(err, status, "radz_bank_score: vector %zu", i);
    }
    return RADZ_OK;
}

radz_status radz_bank_score(const radz_bank *bank, const float *vectors, size_t n, double *out, radz_error *err)
{
    const size_t n_out = n * radz_bank_count(bank);
    for (size_t i = 0; out && i < n_out; i++) out[i] = NAN;
    RZ_LIVE(bank);
    if (!n) return RADZ_OK;
    RZ_NEED(vectors);
    RZ_NEED(out);
    radz_status status = score(bank->bank, vectors, n, out, err);
    for (size_t i = 0; status && i < n_out; i++) out[i] = NAN;
    return status;
}

void radz_bank_close(radz_bank *bank)
{
    if (!bank || !rz_handle_drop(&bank->h)) return;
    radz_runtime *rt = bank->runtime;
    rz_bank_free(bank->bank);
    rz_free(&rt->host, bank);
    radz_runtime_close(rt);
}

size_t radz_bank_count(const radz_bank *bank)
{
    return bank ? bank->bank->n : 0;
}

const char *radz_bank_label(const radz_bank *bank, size_t i)
{
    return i < radz_bank_count(bank) ? bank->bank->labels[i] : NULL;
}

const char *radz_bank_description(const radz_bank *bank, size_t i)
{
    return i < radz_bank_count(bank) ? bank->bank->descriptions[i] : NULL;
}

const float *radz_bank_anchor(const radz_bank *bank, size_t i)
{
    return i < radz_bank_count(bank) ? bank->bank->anchors + i * bank->bank->dim : NULL;
}

const char *radz_bank_hash(const radz_bank *bank)
{
    return bank ? bank->bank->hash : NULL;
}

const char *radz_bank_model_hash(const radz_bank *bank)
{
    return bank ? bank->bank->model_hash : NULL;
}

int radz_bank_is_written(const radz_bank *bank, size_t i)
{
    return i < radz_bank_count(bank) && bank->bank->written[i];
}

const char *radz_bank_writer(const radz_bank *bank)
{
    return bank ? bank->bank->writer : NULL;
}

const char *radz_bank_calibration(const radz_bank *bank)
{
    return bank && bank->bank->calibration ? bank->bank->calibration->text : NULL;
}

double radz_bank_threshold(const radz_bank *bank, size_t i)
{
    return i < radz_bank_count(bank) && bank->bank->calibration ? bank->bank->calibration->of[i].threshold : NAN;
}

size_t radz_bank_dim(const radz_bank *bank)
{
    return bank ? bank->bank->dim : 0;
}

size_t radz_bank_reference(const radz_bank *bank)
{
    return bank ? bank->bank->reference : 0;
}
