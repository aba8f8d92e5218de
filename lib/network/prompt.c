/* prompt.c - films and texts to rows of ids (Eq. 1 and 2).
 * SPDX-License-Identifier: Apache-2.0 */
#include "prompt.h"

radz_status rz_prompt_put(rz_prompt_list *l, const int32_t *id, size_t n, radz_error *err)
{
    if (l->p.n + n > l->cap) {
        size_t cap = 2 * (l->p.n + n) + 16;
        int32_t *grown = rz_realloc(l->host, l->p.ids, cap, sizeof *grown);
        if (!grown) return RZ_NO_MEMORY(err, "prompt");
        l->p.ids = grown, l->cap = cap;
    }
    if (n) memcpy(l->p.ids + l->p.n, id, n * sizeof *id);
    l->p.n += n;
    return RADZ_OK;
}

radz_status rz_prompt_put_text(rz_prompt_list *l, const char *text, size_t n, radz_error *err)
{
    int32_t *id = NULL;
    size_t n_ids = 0;
    if (!n) return RADZ_OK;
    RZ_TRY(rz_tokenizer_encode(l->m->tok, text, n, &id, &n_ids, err));
    radz_status status = RADZ_OK;
    for (size_t i = 0; i < n_ids && !status; i++)
        if (id[i] < 0 || (size_t)id[i] >= l->m->cfg.text.vocab)
            status = rz_fail(err, RADZ_E_MISMATCH, "tokenizer.model: token id %d, but the model has %zu rows",
                             (int)id[i], l->m->cfg.text.vocab);
    if (!status) status = rz_prompt_put(l, id, n_ids, err);
    rz_free(l->host, id);
    return status;
}

radz_status rz_prompt_put_bos(rz_prompt_list *l, radz_error *err)
{
    int32_t bos = rz_tokenizer_bos(l->m->tok);
    return bos >= 0 ? rz_prompt_put(l, &bos, 1, err) : RADZ_OK;
}

radz_status rz_prompt_put_image(rz_prompt_list *l, radz_error *err)
{
    const int32_t place = RZ_ID_IMAGE;
    for (size_t i = 0; i < l->m->cfg.image_rows; i++) RZ_TRY(rz_prompt_put(l, &place, 1, err));
    return RADZ_OK;
}

/* n special tokens from the first-th on. */
static radz_status put_special(rz_prompt_list *l, size_t first, size_t n, radz_error *err)
{
    if (l->m->cfg.radz.append_to_train && !l->training) return RADZ_OK;
    for (size_t i = 0; i < n; i++) {
        int32_t id = (int32_t)(l->m->cfg.text.vocab + first + i);
        RZ_TRY(rz_prompt_put(l, &id, 1, err));
    }
    return RADZ_OK;
}

radz_status rz_prompt_finish(rz_prompt_list *l, radz_status status, const char *what, rz_prompt *out, radz_error *err)
{
    size_t max = l->m->cfg.text.max_positions;
    if (!status && l->p.n > max)
        status = rz_fail(err, RADZ_E_LIMIT, "%s: %zu rows, the model takes at most %zu", what, l->p.n, max);
    if (status) rz_prompt_free(l->host, &l->p);
    *out = l->p;
    return status;
}

static radz_status image_rows(rz_prompt_list *l, const char *prompt, radz_error *err)
{
    const char *mark = "<image>", *at = strstr(prompt, mark);
    RZ_TRY(rz_prompt_put_bos(l, err));
    RZ_TRY(rz_prompt_put_text(l, prompt, (size_t)(at - prompt), err));
    RZ_TRY(rz_prompt_put_image(l, err));
    RZ_TRY(rz_prompt_put_text(l, at + strlen(mark), strlen(at + strlen(mark)), err));
    return put_special(l, 0, l->m->cfg.radz.n_image_tokens, err);
}

static radz_status image_prompt(const rz_host *host, const rz_model *m, const char *prompt, bool training,
                                rz_prompt *out, radz_error *err)
{
    *out = (rz_prompt){0};
    RZ_TRY(rz_model_require_films(m, err));
    const char *text = prompt ? prompt : m->cfg.radz.image_prompt, *at = strstr(text, "<image>");
    if (!at || strstr(at + 1, "<image>") || !rz_utf8_valid(text, strlen(text)))
        return rz_fail(err, RADZ_E_ARGUMENT, "image_prompt: expected a text in UTF-8 with <image> in it, once");
    rz_prompt_list l = {.host = host, .m = m, .training = training};
    return rz_prompt_finish(&l, image_rows(&l, text, err), "image prompt", out, err);
}

radz_status rz_prompt_image_as(const rz_host *host, const rz_model *m, const char *prompt, rz_prompt *out,
                               radz_error *err)
{
    return image_prompt(host, m, prompt, false, out, err);
}

radz_status rz_prompt_image(const rz_host *host, const rz_model *m, rz_prompt *out, radz_error *err)
{
    return image_prompt(host, m, NULL, false, out, err);
}

radz_status rz_prompt_image_train(const rz_host *host, const rz_model *m, rz_prompt *out, radz_error *err)
{
    return image_prompt(host, m, NULL, true, out, err);
}

/* `pattern` with `key` replaced by text. */
static char *substitute(const rz_host *host, const char *pattern, const char *key, const char *text, size_t n)
{
    rz_str s = {.host = host};
    const char *at = strstr(pattern, key);
    rz_str_put(&s, pattern, at ? (size_t)(at - pattern) : strlen(pattern));
    if (at) {
        rz_str_put(&s, text, n);
        rz_str_puts(&s, at + strlen(key));
    }
    if (s.failed) rz_str_free(&s);
    return s.data;
}

static radz_status text_rows(rz_prompt_list *l, const char *whole, radz_error *err)
{
    RZ_TRY(rz_prompt_put_bos(l, err));
    RZ_TRY(rz_prompt_put_text(l, whole, strlen(whole), err));
    return put_special(l, l->m->cfg.radz.n_image_tokens, l->m->cfg.radz.n_text_tokens, err);
}

static radz_status text_prompt(const rz_host *host, const rz_model *m, const char *text, bool training, rz_prompt *out,
                               radz_error *err)
{
    *out = (rz_prompt){0};
    RZ_TRY(rz_model_require_texts(m, err));
    char *whole = substitute(host, m->cfg.radz.text_prompt, "{text}", text, strlen(text));
    if (!whole) return RZ_NO_MEMORY(err, "text prompt");
    rz_prompt_list l = {.host = host, .m = m, .training = training};
    radz_status status = rz_prompt_finish(&l, text_rows(&l, whole, err), "text prompt", out, err);
    rz_free(host, whole);
    return status;
}

radz_status rz_prompt_text(const rz_host *host, const rz_model *m, const char *text, rz_prompt *out, radz_error *err)
{
    return text_prompt(host, m, text, false, out, err);
}

radz_status rz_prompt_text_train(const rz_host *host, const rz_model *m, const char *text, rz_prompt *out,
                                 radz_error *err)
{
    return text_prompt(host, m, text, true, out, err);
}

radz_status rz_prompt_disease(const rz_host *host, const rz_model *m, const char *description, bool training,
                              rz_prompt *out, radz_error *err)
{
    if (!m->cfg.radz.embedding_anchors) return text_prompt(host, m, description, training, out, err);
    *out = (rz_prompt){0};
    RZ_TRY(rz_model_require_texts(m, err));
    rz_prompt_list l = {.host = host, .m = m};
    radz_status status = rz_prompt_put_bos(&l, err);
    if (!status) status = rz_prompt_put_text(&l, description, strlen(description), err);
    return rz_prompt_finish(&l, status, "description", out, err);
}

bool rz_prompt_is_global(const rz_model *m, const rz_prompt *p, bool film, size_t t)
{
    const rz_radz_config *r = &m->cfg.radz;
    if (r->last_rows) return t + (film ? r->n_image_tokens : r->n_text_tokens) >= p->n;
    return p->ids[t] >= 0 && (size_t)p->ids[t] >= m->cfg.text.vocab;
}

char *rz_prompt_label_text(const rz_host *host, const rz_model *m, const char *const *labels, size_t n)
{
    rz_str list = {.host = host};
    for (size_t i = 0; i < n; i++) {
        if (i) rz_str_puts(&list, ", ");
        rz_str_puts(&list, labels[i]);
    }
    rz_str_puts(&list, "");
    char *text = list.failed ? NULL : substitute(host, m->cfg.radz.label_text, "{labels}", list.data, list.len);
    rz_str_free(&list);
    return text;
}

void rz_prompt_free(const rz_host *host, rz_prompt *p)
{
    rz_free(host, p->ids);
    *p = (rz_prompt){0};
}
