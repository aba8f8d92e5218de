/* test_chat.c - chat templates by ids, and answers about films, against sentencepiece and transformers (chat.json, made
 * by tests/parity/make_chat.py). SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "chat.h"
#include "fixture.h"

#define GOLDEN "tests/parity/chat.json"
#define TINY "tests/parity/llava_tiny"

static radz_error err;
static json_t *golden;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

static int setup(void **state)
{
    (void)state;
    return rz_json_load(NULL, GOLDEN, (size_t)1 << 20, &golden, &err);
}

static int teardown(void **state)
{
    (void)state;
    json_decref(golden);
    return 0;
}

static const char *text_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

/* ---- Prompts ---- */

/* As much of a model as a prompt needs. */
static rz_model reader(rz_tokenizer *tok)
{
    rz_model m = {.tok = tok};
    m.cfg.text.vocab = rz_tokenizer_size(tok), m.cfg.text.max_positions = 4096;
    m.cfg.has_vision = true;
    m.cfg.image_rows = (size_t)json_integer_value(json_object_get(golden, "image_rows"));
    return m;
}

static void check_prompt(const rz_model *m, const json_t *o)
{
    const rz_chat chat = {text_of(o, "template"), text_of(o, "system"), text_of(o, "text"),
                          json_is_true(json_object_get(o, "film"))};
    const json_t *want = json_object_get(o, "ids");
    rz_prompt p;
    int32_t end;
    ok(rz_chat_prompt(m, &chat, &p, &end, &err));
    assert_int_equal(end, -1);
    bool same = p.n == json_array_size(want);
    for (size_t i = 0; same && i < p.n; i++) same = p.ids[i] == json_integer_value(json_array_get(want, i));
    if (!same) fail_msg("%s: '%s': other ids than sentencepiece's", chat.name, chat.text);
    rz_prompt_free(NULL, &p);
}

static void test_prompts(void **state)
{
    (void)state;
    static const struct {
        const char *name, *path;
    } tokenizers[] = {{"mistral", "tests/data/mistral_v1/tokenizer.model"}, {"tiny", TINY "/tokenizer.model"}};
    size_t n = 0, i;
    json_t *o;
    for (size_t k = 0; k < RZ_COUNT(tokenizers); k++) {
        rz_tokenizer *tok;
        ok(rz_tokenizer_open(NULL, tokenizers[k].path, &tok, &err));
        const rz_model m = reader(tok);
        json_array_foreach(json_object_get(golden, "prompts"), i, o)
        {
            if (strcmp(text_of(o, "tokenizer"), tokenizers[k].name) != 0) continue;
            check_prompt(&m, o);
            n++;
        }
        rz_tokenizer_close(tok);
    }
    assert_int_equal(n, 112);
}

/* Which template a model gets that names none, by what it prints of its prompt. */
static void test_fitting(void **state)
{
    (void)state;
    static const char *const want[] = {"plain", "vicuna_v1", "mistral_instruct"};
    rz_tokenizer *tok;
    ok(rz_tokenizer_open(NULL, TINY "/tokenizer.model", &tok, &err));
    for (size_t i = 0; i < RZ_COUNT(want); i++) {
        rz_model m = reader(tok);
        m.cfg.has_vision = i > 0, m.cfg.text.mistral = i == 2;
        rz_chat chat = {NULL, NULL, "What is seen?", false};
        rz_prompt automatic, named;
        int32_t end;
        ok(rz_chat_prompt(&m, &chat, &automatic, &end, &err));
        chat.name = want[i];
        ok(rz_chat_prompt(&m, &chat, &named, &end, &err));
        assert_int_equal(automatic.n, named.n);
        assert_memory_equal(automatic.ids, named.ids, named.n * sizeof *named.ids);
        rz_prompt_free(NULL, &automatic);
        rz_prompt_free(NULL, &named);
    }
    rz_tokenizer_close(tok);
}

/* ---- Answers ---- */

/* make_chat.py's film(). */
static radz_image *film(size_t width, size_t height)
{
    uint8_t *rgb = malloc(width * height * 3);
    radz_image *image;
    assert_non_null(rgb);
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++)
            for (size_t c = 0; c < 3; c++)
                rgb[(y * width + x) * 3 + c] = (uint8_t)(x * 7 + y * 13 + c * 29 + x * y % 11 * 5);
    ok(radz_image_from_pixels(NULL, rgb, RADZ_PIXELS_RGB8, width, height, width * 3, &image, &err));
    free(rgb);
    return image;
}

typedef struct heard {
    int32_t tokens[16];
    size_t n;
    bool finished;
} heard;

static int hear(const radz_generate_progress *p, void *user)
{
    heard *h = user;
    assert_true(h->n < RZ_COUNT(h->tokens) && !h->finished);
    h->tokens[h->n++] = p->token;
    h->finished = p->finished != NULL;
    return 0;
}

static void check_answer(radz_session *s, const json_t *o, bool last)
{
    const json_t *size = json_object_get(o, "film"), *want = json_object_get(o, "tokens");
    size_t width = (size_t)json_integer_value(json_array_get(size, 0));
    size_t height = (size_t)json_integer_value(json_array_get(size, 1));
    radz_image *image = width ? film(width, height) : NULL;
    radz_generate_options ask;
    heard h = {.n = 0};
    char *text;
    radz_generate_options_init(&ask);
    ask.max_tokens = 12, ask.chat_template = text_of(o, "template"), ask.system = text_of(o, "system");
    ask.token_fn = hear, ask.user = &h;
    ok(radz_generate(s, image, text_of(o, "text"), &ask, &text, &err));
    assert_true(h.finished && h.n == json_array_size(want));
    for (size_t i = 0; i < h.n; i++)
        if (h.tokens[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("%s, film of %zu x %zu: '%s': token %zu: %d, transformers has %d", ask.chat_template, width,
                     height, text_of(o, "text"), i, (int)h.tokens[i], (int)json_integer_value(json_array_get(want, i)));
    assert_string_equal(text, text_of(o, "answer"));
    radz_text_free(text);
    if (last && image) { /* it is the film that was answered about */
        h = (heard){.n = 0};
        ok(radz_generate(s, NULL, text_of(o, "text"), &ask, &text, &err));
        assert_true(h.n != json_array_size(want) || h.tokens[0] != json_integer_value(json_array_get(want, 0)));
        radz_text_free(text);
    }
    radz_image_close(image);
}

static void test_answers(void **state)
{
    (void)state;
    const json_t *answers = json_object_get(golden, "answers");
    const size_t n = json_array_size(answers);
    assert_true(n > 40);
    for (int n_threads = 1; n_threads <= 2; n_threads++) {
        radz_runtime_options o;
        radz_runtime *rt;
        radz_model *m;
        radz_session *s;
        radz_runtime_options_init(&o);
        o.n_threads = n_threads;
        ok(radz_runtime_create(&o, &rt, &err));
        ok(radz_model_open(rt, TINY, NULL, &m, &err));
        ok(radz_session_open(m, NULL, &s, &err));
        for (size_t i = 0; i < n; i++) check_answer(s, json_array_get(answers, i), i + 1 == n);
        radz_session_close(s);
        radz_model_close(m);
        radz_runtime_close(rt);
    }
}

/* Two films in a prompt, or one where none is given. */
static void test_marks(void **state)
{
    (void)state;
    rz_tokenizer *tok;
    ok(rz_tokenizer_open(NULL, TINY "/tokenizer.model", &tok, &err));
    const rz_model m = reader(tok);
    const rz_chat one = {"plain", NULL, "<image> and <image>", true}, none = {"plain", NULL, "<image>?", false};
    rz_prompt p;
    int32_t end;
    size_t n = 0;
    ok(rz_chat_prompt(&m, &one, &p, &end, &err));
    for (size_t i = 0; i < p.n; i++) n += p.ids[i] == RZ_ID_IMAGE;
    assert_int_equal(n, m.cfg.image_rows); /* the second mark is text */
    rz_prompt_free(NULL, &p);
    ok(rz_chat_prompt(&m, &none, &p, &end, &err));
    for (size_t i = 0; i < p.n; i++) assert_int_not_equal(p.ids[i], RZ_ID_IMAGE);
    rz_prompt_free(NULL, &p);
    rz_tokenizer_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prompts), cmocka_unit_test(test_fitting),
                                       cmocka_unit_test(test_answers), cmocka_unit_test(test_marks)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
