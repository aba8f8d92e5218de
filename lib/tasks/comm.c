/* comm.c - what the processes of one training run tell each other. SPDX-License-Identifier: Apache-2.0 */
#include "comm.h"

#define MAX_PROCESSES 65536
#define SUM_FLOATS ((size_t)1 << 24) /* at once: 64 MiB */

/* What rz_comm_agree exchanges. */
typedef struct notice {
    int32_t status;
    char message[sizeof(((radz_error *)NULL)->message)];
} notice;

radz_status rz_comm_open(const rz_host *host, const radz_comm *c, size_t max_bytes, rz_comm *out, radz_error *err)
{
    *out = (rz_comm){.host = host, .size = 1};
    if (!c) return RADZ_OK;
    if (c->struct_size < sizeof *c || !c->sum_f32 || !c->gather || c->size < 1 || c->size > MAX_PROCESSES ||
        c->rank < 0 || c->rank >= c->size)
        return rz_fail(err, RADZ_E_ARGUMENT,
                       "training options: comm: expected struct_size, both functions, and a rank of 0..size-1");
    out->c = *c;
    out->rank = c->rank, out->size = c->size;
    out->max_bytes = max_bytes > sizeof(notice) ? max_bytes : sizeof(notice);
    out->buffer = rz_calloc(host, (size_t)c->size, out->max_bytes);
    return out->buffer ? RADZ_OK : RZ_NO_MEMORY(err, "exchange between processes");
}

void rz_comm_close(rz_comm *c)
{
    rz_free(c->host, c->buffer);
    c->buffer = NULL;
}

static radz_status failed(rz_comm *c, radz_error *err)
{
    c->over = true;
    return rz_fail(err, RADZ_E_IO, "process %d of %d: lost the others", c->rank, c->size);
}

/* What each process gave goes to c->buffer, by rank. */
static radz_status gather(rz_comm *c, const void *mine, size_t n_bytes, radz_error *err)
{
    if (n_bytes > c->max_bytes)
        return rz_fail(err, RADZ_E_INTERNAL, "%zu bytes to exchange, at most %zu were foreseen", n_bytes, c->max_bytes);
    return c->c.gather(mine, n_bytes, c->buffer, c->c.user) ? failed(c, err) : RADZ_OK;
}

static radz_status exchange(rz_comm *c, radz_status mine, const radz_error *why, radz_error *err)
{
    notice n = {.status = mine}, *all;
    if (mine && why) memcpy(n.message, why->message, sizeof n.message);
    RZ_TRY(gather(c, &n, sizeof n, err));
    all = c->buffer;
    radz_status st = RADZ_OK;
    for (int r = 0; r < c->size && !st; r++) {
        if (!all[r].status) continue;
        c->over = true;
        all[r].message[sizeof n.message - 1] = '\0';
        st = (radz_status)all[r].status;
        if (err && r == c->rank && why)
            *err = *why;
        else
            rz_fail(err, st, "process %d of %d: %s", r, c->size, all[r].message);
    }
    return st;
}

radz_status rz_comm_agree(rz_comm *c, radz_error *err)
{
    return c->size > 1 ? exchange(c, RADZ_OK, NULL, err) : RADZ_OK;
}

radz_status rz_comm_fail(rz_comm *c, radz_status mine, const radz_error *err)
{
    radz_error ignored;
    if (mine && c->size > 1 && !c->over) exchange(c, mine, err, &ignored);
    return mine;
}

radz_status rz_comm_sum(rz_comm *c, rz_stream *s, float *values, size_t n, radz_error *err)
{
    if (c->size == 1 || !n) return RADZ_OK;
    bool direct = rz_device_is_host(rz_stream_device(s));
    size_t chunk = n < SUM_FLOATS ? n : SUM_FLOATS;
    RZ_TRY(rz_stream_sync(s, err));
    float *copy = direct ? NULL : rz_calloc(c->host, chunk, sizeof *copy);
    if (!direct && !copy) return RZ_NO_MEMORY(err, "exchange between processes");
    radz_status st = RADZ_OK;
    for (size_t i = 0; i < n && !st; i += chunk) {
        size_t k = n - i < chunk ? n - i : chunk;
        float *p = direct ? values + i : copy;
        if (!direct) rz_download(s, p, values + i, k * sizeof *p);
        if (c->c.sum_f32(p, k, c->c.user)) st = failed(c, err);
        if (!direct) rz_upload(s, values + i, p, k * sizeof *p);
    }
    rz_free(c->host, copy);
    return st ? st : rz_stream_sync(s, err);
}

radz_status rz_comm_sum_doubles(rz_comm *c, double *values, size_t n, radz_error *err)
{
    if (c->size == 1) return RADZ_OK;
    RZ_TRY(gather(c, values, n * sizeof *values, err));
    const double *all = c->buffer;
    for (size_t i = 0; i < n; i++) {
        values[i] = 0;
        for (size_t r = 0; r < (size_t)c->size; r++) values[i] += all[r * n + i];
    }
    return RADZ_OK;
}

radz_status rz_comm_any(rz_comm *c, uint8_t *flags, size_t n, radz_error *err)
{
    if (c->size == 1) return RADZ_OK;
    RZ_TRY(gather(c, flags, n, err));
    const uint8_t *all = c->buffer;
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < (size_t)c->size; r++) flags[i] |= all[r * n + i];
    return RADZ_OK;
}

radz_status rz_comm_same(rz_comm *c, const char *text, const char *what, radz_error *err)
{
    if (c->size == 1) return RADZ_OK;
    char hex[65];
    rz_sha256 h;
    rz_sha256_init(&h);
    rz_sha256_put(&h, text, strlen(text));
    rz_sha256_hex(&h, hex);
    RZ_TRY(gather(c, hex, sizeof hex, err));
    radz_status st = RADZ_OK;
    for (int r = 1; r < c->size && !st; r++)
        if (memcmp(c->buffer, (char *)c->buffer + (size_t)r * sizeof hex, sizeof hex) != 0)
            st = rz_fail(err, RADZ_E_MISMATCH, "processes 0 and %d have not the same %s", r, what);
    if (st) c->over = true; /* everyone sees it */
    return st;
}

size_t rz_comm_share(const rz_comm *c, size_t n, size_t *count)
{
    size_t size = (size_t)c->size, rank = (size_t)c->rank, each = n / size, more = n % size;
    *count = each + (rank < more);
    return rank * each + (rank < more ? rank : more);
}
