/* tokenizer_json.h - a tokenizer.json in memory: a BPE model between chains of steps. SPDX-License-Identifier:
 * Apache-2.0 */
#ifndef RZ_TOKENIZER_JSON_H
#define RZ_TOKENIZER_JSON_H

#include "pretokenize.h"
#include "tokenizer.h"
#include "unicode.h"

/* Texts in a row, dividing one text. */
typedef struct rz_spans {
    rz_str text;
    size_t *end; /* of each */
    size_t n, cap;
    bool failed;
} rz_spans;
void rz_spans_end(rz_spans *s); /* what was put since the last end is one more */
void rz_spans_free(rz_spans *s);
static inline size_t rz_spans_begin(const rz_spans *s, size_t i)
{
    return i ? s->end[i - 1] : 0;
}

typedef enum rz_step_kind {
    RZ_STEP_PREPEND,    /* to, before a text that is not empty */
    RZ_STEP_REPLACE,    /* from by to */
    RZ_STEP_NFC,        /* the normal form */
    RZ_STEP_SPLIT,      /* by rule */
    RZ_STEP_DIGITS,     /* numbers apart; `each`: one by one */
    RZ_STEP_META,       /* spaces become to, which begins a text too as `when` says */
    RZ_STEP_META_SPLIT, /* before each to */
    RZ_STEP_SPACE,      /* a space before a text that does not begin with one */
    RZ_STEP_BYTES,      /* each byte a printable character */
    RZ_STEP_UNBYTES,    /* back; all become one text */
    RZ_STEP_UNMETA,     /* to becomes a space, but in the first text it goes unless `when` is never */
    RZ_STEP_FALLBACK,   /* <0x41> become bytes */
    RZ_STEP_FUSE,       /* all become one text */
    RZ_STEP_STRIP       /* at most `start` and `stop` characters `to` at the ends */
} rz_step_kind;
typedef enum rz_meta_when { RZ_META_ALWAYS, RZ_META_FIRST, RZ_META_NEVER } rz_meta_when;

typedef struct rz_step {
    rz_step_kind kind;
    char *from, *to; /* owned */
    size_t n_from, n_to, start, stop;
    const rz_split_rule *rule;
    rz_meta_when when;
    bool each;
} rz_step;

#define RZ_CHAIN_MAX 16
typedef struct rz_chain {
    rz_step steps[RZ_CHAIN_MAX];
    size_t n;
} rz_chain;
/* What the chain makes of *s, in its place. first: the text of s begins where the whole text does. */
radz_status rz_chain_run(const rz_chain *chain, rz_spans *s, bool first, radz_error *err) RZ_CHECK;

typedef struct rz_added {
    const char *text; /* in the arena */
    char *normal;     /* owned: as the normalizer makes it, NULL where that is the text or is not looked for */
    int32_t id;
    bool special, single_word, lstrip, rstrip;
} rz_added;

typedef struct rz_merge_rule {
    int32_t left, right, merged; /* left -1: empty */
    uint32_t rank;
} rz_merge_rule;

typedef struct rz_vocab_piece {
    const char *text; /* in the arena, NUL-terminated; NULL: no such id yet */
    size_t len;
} rz_vocab_piece;

typedef struct rz_jtok {
    const rz_host *host;
    uint64_t seed;
    char *arena;
    size_t arena_len;
    rz_vocab_piece *pieces; /* by id: the model's n_model, then added ones */
    size_t n_model, n_pieces;
    int32_t *table; /* open addressing over the model's pieces, -1 where empty */
    size_t table_mask;
    rz_merge_rule *merges; /* likewise */
    size_t merge_mask;
    rz_added *added;
    size_t n_added;
    int32_t *added_at;       /* by id: index into added, -1 where it is no added token */
    rz_text_set raw, normal; /* added tokens to find before and after normalizing; values are indexes into added */
    rz_chain normalizer, pre_tokenizer, decoder;
    bool has_decoder, byte_fallback, fuse_unk, ignore_merges;
    int32_t unk, byte_id[256];
} rz_jtok;

int32_t rz_jtok_find(const rz_jtok *t, const char *text, size_t n); /* id in the model's vocabulary, -1: none */
const rz_merge_rule *rz_jtok_merge(const rz_jtok *t, int32_t left, int32_t right); /* the rule, or where it would be */

radz_status rz_jtok_encode(const rz_tokenizer *tok, const char *text, size_t n, rz_ids *ids, radz_error *err) RZ_CHECK;
radz_status rz_jtok_decode(const rz_tokenizer *tok, const int32_t *ids, size_t n, rz_str *s, radz_error *err) RZ_CHECK;

#endif
