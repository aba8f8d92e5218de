/* test_stories.c - a real LLaMA: stories260K (karpathy's tinyllamas, MIT) tells the story that llama2.c's own program
 * tells, token by token. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "fixture.h"
#include "next_token.h"

#define DIR_STORIES "tests/data/stories260K"

enum { N_TOKENS = 256, BOS = 1 };

static radz_error err;

static void ok(radz_status status)
{
    if (status) fail_msg("status %d: %s", (int)status, err.message);
}

/* The most likely token after those in the cache and this one. */
static int32_t next_token(const rz_net *net, rz_cache *cache, int32_t id)
{
    size_t vocab = net->model->cfg.text.vocab, best = 0;
    float logits[512];
    assert_true(vocab <= RZ_COUNT(logits));
    rz_mark mark = rz_arena_mark(net->s);
    rz_prompt one = {&id, 1};
    rz_item item = {.prompt = &one};
    rz_download(net->s, logits, rz_next_logits(net, &item, 1, cache, false), vocab * sizeof *logits);
    ok(rz_stream_sync(net->s, &err));
    rz_arena_release(net->s, mark);
    for (size_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

/* greedy256.ids.txt: numbers with spaces between them, BOS first. */
static void check_ids(const int32_t *ids, size_t n)
{
    char *text = fixture_read(DIR_STORIES "/greedy256.ids.txt", NULL), *at = text;
    assert_int_equal(n, N_TOKENS + 1);
    for (size_t i = 0; i < n; i++) assert_int_equal(ids[i], strtol(at, &at, 10));
    free(text);
}

static void test_story(void **state)
{
    rz_device_options o = {"cpu", *state, "own", 2};
    rz_device *dev;
    rz_stream *s;
    rz_model *m;
    rz_file want;
    radz_status status = rz_device_open(NULL, &o, &dev, &err);
    if (status == RADZ_E_DEVICE) skip();
    ok(status);
    ok(rz_stream_open(dev, &s, &err));
    ok(rz_model_load(NULL, dev, DIR_STORIES, RZ_MODEL_INFER, 0, &m, &err));
    ok(rz_file_open(NULL, DIR_STORIES "/greedy256.txt", RZ_FILE_READ, 1 << 16, &want, &err));

    rz_net net = {.model = m, .s = s};
    rz_cache *cache;
    ok(rz_cache_open(m, 1, N_TOKENS, &cache, &err));
    int32_t ids[N_TOKENS + 1] = {BOS};
    size_t n = 1;
    for (; n <= N_TOKENS; n++)
        if ((ids[n] = next_token(&net, cache, ids[n - 1])) == BOS) break;
    check_ids(ids, n);
    rz_str text = {0};
    ok(rz_tokenizer_decode(m->tok, ids + 1, n - 1, &text, &err));
    rz_str_puts(&text, "\n");
    if (text.len != want.size || memcmp(text.data, want.data, want.size)) fail_msg("another story: %s", text.data);
    rz_str_free(&text);

    rz_cache_close(cache);
    rz_file_close(&want);
    rz_model_unload(m);
    rz_stream_close(s);
    rz_device_close(dev);
}

#define ON(kernels)                                                                                                    \
    {                                                                                                                  \
        "story, " kernels, test_story, NULL, NULL, (void *)(uintptr_t)kernels                                          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {ON("portable"), ON("avx2"), ON("avx512")};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
