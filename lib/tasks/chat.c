/* chat.c - chat templates. SPDX-License-Identifier: Apache-2.0 */
#include "chat.h"

#define IMAGE "<image>"

typedef struct chat_template {
    const char *name;
    const char *with_system, *without; /* "{system}" and "{text}"; <|...|> is a control token */
    const char *end;                   /* control token; NULL: none */
} chat_template;

static const chat_template templates[] = {
    {"plain", "{system}\n{text}", "{text}", NULL},
    {"vicuna_v1", "{system} USER: {text} ASSISTANT:", "USER: {text} ASSISTANT:", NULL},
    {"llava_v1", "{system} USER: {text} ASSISTANT:", "USER: {text} ASSISTANT:", NULL},
    {"mistral_instruct", "[INST] {system}\n\n{text} [/INST]", "[INST] {text} [/INST]", NULL},
    {"chatml", "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n",
     "<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"}};

static const chat_template *find(const char *name)
{
    for (size_t i = 0; i < RZ_COUNT(templates); i++)
        if (strcmp(templates[i].name, name) == 0) return &templates[i];
    return NULL;
}

/* A text model may never have been taught a template; LLaVA always was. */
static const char *fitting(const rz_model *m)
{
    if (rz_tokenizer_find(m->tok, "<|im_start|>") >= 0 && rz_tokenizer_find(m->tok, "<|im_end|>") >= 0) return "chatml";
    if (!m->cfg.has_vision) return "plain";
    return m->cfg.text.mistral ? "mistral_instruct" : "vicuna_v1";
}

/* What is being put together: text that is tokenized as one, up to the next control token or film. */
typedef struct builder {
    rz_prompt_list list;
    rz_str text;
} builder;

static radz_status flush(builder *b, radz_error *err)
{
    if (b->text.failed) return RZ_NO_MEMORY(err, "prompt");
    if (b->text.len) RZ_TRY(rz_prompt_put_text(&b->list, b->text.data, b->text.len, err));
    b->text.len = 0;
    return RADZ_OK;
}

/* The caller's text, with the film before it or at its mark. */
static radz_status put_request(builder *b, const rz_chat *chat, radz_error *err)
{
    const char *mark = chat->film ? strstr(chat->text, IMAGE) : NULL;
    if (!chat->film) {
        rz_str_puts(&b->text, chat->text);
        return RADZ_OK;
    }
    if (mark) rz_str_put(&b->text, chat->text, (size_t)(mark - chat->text));
    RZ_TRY(flush(b, err));
    RZ_TRY(rz_prompt_put_image(&b->list, err));
    if (!mark) rz_str_puts(&b->text, "\n");
    rz_str_puts(&b->text, mark ? mark + strlen(IMAGE) : chat->text);
    return RADZ_OK;
}

static radz_status control_token(const rz_model *m, const chat_template *t, const char *piece, int32_t *id,
                                 radz_error *err)
{
    *id = rz_tokenizer_find(m->tok, piece);
    if (*id >= 0 && (size_t)*id < m->cfg.text.vocab) return RADZ_OK;
    return rz_fail(err, RADZ_E_ARGUMENT, "chat template %s: the model's tokenizer has no %s", t->name, piece);
}

static radz_status put_control(builder *b, const chat_template *t, const char *at, const char *end, radz_error *err)
{
    char piece[32] = "";
    int32_t id;
    if ((size_t)(end - at) < sizeof piece) memcpy(piece, at, (size_t)(end - at));
    RZ_TRY(flush(b, err));
    RZ_TRY(control_token(b->list.m, t, piece, &id, err));
    return rz_prompt_put(&b->list, &id, 1, err);
}

static radz_status fill(builder *b, const chat_template *t, const rz_chat *chat, radz_error *err)
{
    const char *at = chat->system && *chat->system ? t->with_system : t->without;
    RZ_TRY(rz_prompt_put_bos(&b->list, err));
    while (*at) {
        const char *end = at + 1;
        if (strncmp(at, "{system}", 8) == 0) {
            rz_str_puts(&b->text, chat->system);
            end = at + 8;
        } else if (strncmp(at, "{text}", 6) == 0) {
            RZ_TRY(put_request(b, chat, err));
            end = at + 6;
        } else if (strncmp(at, "<|", 2) == 0) {
            end = strstr(at, "|>") + 2;
            RZ_TRY(put_control(b, t, at, end, err));
        } else
            rz_str_put(&b->text, at, 1);
        at = end;
    }
    return flush(b, err);
}

radz_status rz_chat_prompt(const rz_model *m, const rz_chat *chat, rz_prompt *out, int32_t *end, radz_error *err)
{
    const bool automatic = !chat->name || strcmp(chat->name, "auto") == 0;
    const chat_template *t = find(automatic ? fitting(m) : chat->name);
    *out = (rz_prompt){0};
    *end = -1;
    if (!t)
        return rz_fail(
            err, RADZ_E_ARGUMENT,
            "chat template '%s' is not known: expected auto, plain, vicuna_v1, llava_v1, mistral_instruct or "
            "chatml",
            chat->name);
    if (t->end) RZ_TRY(control_token(m, t, t->end, end, err));
    builder b = {.list = {.host = m->cfg.host, .m = m}, .text = {.host = m->cfg.host}};
    radz_status status = rz_prompt_finish(&b.list, fill(&b, t, chat, err), "prompt", out, err);
    rz_str_free(&b.text);
    if (!status && !out->n) status = rz_fail(err, RADZ_E_ARGUMENT, "the prompt is empty");
    if (status) rz_prompt_free(m->cfg.host, out);
    return status;
}

radz_status rz_chat_answer(const rz_model *m, const rz_chat *chat, const char *answer, rz_prompt *out, size_t *n_answer,
                           radz_error *err)
{
    int32_t end;
    RZ_TRY(rz_chat_prompt(m, chat, out, &end, err));
    rz_prompt_list l = {.host = m->cfg.host, .m = m, .p = *out, .cap = out->n};
    if (end < 0) end = rz_tokenizer_eos(m->tok);
    radz_status status = rz_prompt_put_text(&l, answer, strlen(answer), err);
    if (!status && end >= 0) status = rz_prompt_put(&l, &end, 1, err);
    *n_answer = l.p.n - out->n;
    if (!status && !*n_answer) status = rz_fail(err, RADZ_E_FORMAT, "the answer has no token");
    return rz_prompt_finish(&l, status, "prompt and answer", out, err);
}
