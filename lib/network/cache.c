/* cache.c - keys and values of the rows that went through the decoder.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cache.h"

radz_status rz_cache_open(const rz_model *m, size_t n, size_t room, rz_cache **cache, radz_error *err)
{
    const rz_text_config *t = &m->cfg.text;
    const rz_host *host = m->cfg.host;
    size_t n_bytes = 2 * t->kv_heads * t->head_dim * sizeof(float);
    *cache = NULL;
    if (!rz_size_mul(n_bytes, t->layers, &n_bytes) || !rz_size_mul(n_bytes, n, &n_bytes) ||
        !rz_size_mul(n_bytes, room, &n_bytes))
        return rz_fail(err, RADZ_E_LIMIT, "keys and values of %zu sequences of %zu rows: too many", n, room);
    rz_cache *c = rz_calloc(host, 1, sizeof *c);
    if (!c) return RZ_NO_MEMORY(err, "keys and values");
    *c = (rz_cache){.dev = m->dev, .host = host, .n = n, .room = room, .layers = t->layers};
    c->ld = t->kv_heads * t->head_dim;
    c->len = rz_calloc(host, n, sizeof *c->len);
    void *rows = NULL;
    radz_status status = c->len ? rz_device_alloc(m->dev, n_bytes, &rows, err) : RZ_NO_MEMORY(err, "keys and values");
    c->rows = rows;
    if (status)
        rz_cache_close(c);
    else
        *cache = c;
    return status;
}

void rz_cache_close(rz_cache *c)
{
    if (!c) return;
    if (c->rows) rz_device_free(c->dev, c->rows);
    rz_free(c->host, c->len);
    rz_free(c->host, c);
}

float *rz_cache_keys(const rz_cache *c, size_t block, size_t sequence)
{
    return c->rows + (block * c->n + sequence) * 2 * c->room * c->ld;
}

float *rz_cache_values(const rz_cache *c, size_t block, size_t sequence)
{
    return rz_cache_keys(c, block, sequence) + c->room * c->ld;
}

void rz_cache_copy(rz_stream *s, rz_cache *c, size_t to, size_t from)
{
    const size_t n_bytes = c->len[from] * c->ld * sizeof *c->rows;
    if (to == from) return;
    for (size_t block = 0; block < c->layers; block++) {
        rz_copy(s, rz_cache_keys(c, block, to), rz_cache_keys(c, block, from), n_bytes);
        rz_copy(s, rz_cache_values(c, block, to), rz_cache_values(c, block, from), n_bytes);
    }
    c->len[to] = c->len[from];
}
