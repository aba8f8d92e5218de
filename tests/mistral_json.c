/* mistral_json.c - Mistral's tokenizer.model as a tokenizer.json. SPDX-License-Identifier: Apache-2.0 */
#include "mistral_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

enum { FIRST_PLAIN = 259 };

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void put_vocab(const rz_tokenizer *model, rz_str *s)
{
    for (size_t i = 0; i < rz_tokenizer_size(model); i++) {
        const char *piece = rz_tokenizer_piece(model, (int32_t)i);
        rz_str_puts(s, i ? "," : "{");
        rz_str_put_json(s, piece, strlen(piece));
        rz_str_printf(s, ":%zu", i);
    }
    rz_str_puts(s, "}");
}

static bool is_piece(const char **sorted, size_t n, const char *p, size_t len)
{
    char text[256], *key = text;
    memcpy(text, p, len);
    text[len] = 0;
    return bsearch(&key, sorted, n, sizeof *sorted, compare) != NULL;
}

static void put_merges(const rz_tokenizer *model, rz_str *s)
{
    size_t n = rz_tokenizer_size(model), count = 0;
    const char **sorted = malloc(n * sizeof *sorted);
    assert_non_null(sorted);
    for (size_t i = 0; i < n; i++) sorted[i] = rz_tokenizer_piece(model, (int32_t)i);
    qsort(sorted, n, sizeof *sorted, compare);
    rz_str_puts(s, "[");
    for (size_t i = FIRST_PLAIN; i < n; i++) {
        const char *p = rz_tokenizer_piece(model, (int32_t)i);
        size_t len = strlen(p);
        for (size_t k = len - 1; len && k > 0; k--) { /* the longest left half first */
            if (((uint8_t)p[k] & 0xC0) == 0x80) continue;
            if (!is_piece(sorted, n, p, k) || !is_piece(sorted, n, p + k, len - k)) continue;
            rz_str_puts(s, count++ ? ",[" : "[");
            rz_str_put_json(s, p, k);
            rz_str_puts(s, ",");
            rz_str_put_json(s, p + k, len - k);
            rz_str_puts(s, "]");
        }
    }
    rz_str_puts(s, "]");
    free(sorted);
    assert_int_equal(count, 58980); /* as many as transformers makes */
}

rz_str mistral_json(const rz_tokenizer *model, const char *text)
{
    static const char vocab[] = "\"vocab\":null", merges[] = "\"merges\":null";
    const char *at = strstr(text, vocab), *then = strstr(text, merges);
    rz_str s = {0};
    assert_true(at && then > at);
    rz_str_put(&s, text, (size_t)(at - text) + sizeof vocab - 5);
    put_vocab(model, &s);
    rz_str_put(&s, at + sizeof vocab - 1, (size_t)(then - at) - (sizeof vocab - 1) + sizeof merges - 5);
    put_merges(model, &s);
    rz_str_puts(&s, then + sizeof merges - 1);
    assert_false(s.failed);
    return s;
}
