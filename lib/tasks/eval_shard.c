/* eval_shard.c - an evaluation in pieces: each writes the list of its films, what the model said of them is in the
 * cache. SPDX-License-Identifier: Apache-2.0 */
#include "eval.h"

static char *shard_path(const rz_host *host, const radz_eval_options *o, int shard)
{
    rz_str s = {.host = host};
    rz_str_printf(&s, "%s/shard-%d-of-%d.json", o->out_dir, shard, o->n_shards);
    if (!s.failed) return s.data;
    rz_str_free(&s);
    return NULL;
}

/* Which run a shard is part of: all of it must be the same in every shard. */
static radz_status run_hash(const rz_eval_wanted *const *wanted, size_t n, const radz_eval_options *o,
                            const rz_eval_data *d, char hash[65], radz_error *err)
{
    rz_str s = {.host = d->host};
    rz_sha256 h;
    rz_str_printf(&s, "%s %s %d %zu %zu ", d->manifest_hash, d->validation_hash, o->n_shards, d->n, d->n_evaluated);
    for (size_t i = 0; i < n; i++) {
        char device[64];
        rz_eval_device(wanted[i]->model, device);
        rz_str_printf(&s, "%s %s ", wanted[i]->model->hash, device);
        for (int k = 0; k < RZ_VALUE_KINDS; k++)
            if (wanted[i]->kinds >> k & 1) rz_str_printf(&s, "%s ", wanted[i]->name[k]);
    }
    for (size_t i = 0; i < d->n; i++) rz_str_printf(&s, "%zu%s", d->rows[i].line, d->rows[i].validation ? "v" : " ");
    if (s.failed) {
        rz_str_free(&s);
        return RZ_NO_MEMORY(err, "shard");
    }
    rz_sha256_init(&h);
    rz_sha256_put(&h, s.data, s.len);
    rz_sha256_hex(&h, hash);
    rz_str_free(&s);
    return RADZ_OK;
}

radz_status rz_eval_shard_save(const rz_eval_films *f, const rz_eval_wanted *const *wanted, size_t n,
                               const radz_eval_options *o, const rz_eval_data *data, radz_error *err)
{
    rz_str s = {.host = f->host};
    char run_of[65];
    RZ_TRY(run_hash(wanted, n, o, data, run_of, err));
    rz_str_printf(&s, "{\"schema\":\"radz.shard/1\",\"run\":\"%s\",\"films\":[\n", run_of);
    const char *between = "";
    for (size_t i = 0; i < f->n; i++) {
        if (f->state[i] == RZ_FILM_TODO) continue;
        rz_str_printf(&s, "%s[%zu,\"%s\",", between, i, f->sha256[i]);
        if (f->why[i])
            rz_str_put_json(&s, f->why[i], strlen(f->why[i]));
        else
            rz_str_puts(&s, "null");
        rz_str_puts(&s, "]");
        between = ",\n";
    }
    rz_str_puts(&s, "]}\n");
    char *path = shard_path(f->host, o, o->shard);
    radz_status status =
        s.failed || !path ? RZ_NO_MEMORY(err, "shard") : rz_write_file(f->host, path, s.data, s.len, err);
    rz_free(f->host, path);
    rz_str_free(&s);
    return status;
}

/* ---- All of them ---- */

static radz_status list_film(const json_t *item, rz_eval_films *f, const char *path, radz_error *err)
{
    size_t i = (size_t)json_integer_value(json_array_get(item, 0));
    const char *hash = json_string_value(json_array_get(item, 1)), *why = json_string_value(json_array_get(item, 2));
    if (!json_is_integer(json_array_get(item, 0)) || i >= f->n || !hash || strlen(hash) > 64)
        return rz_fail(err, RADZ_E_FORMAT, "%s: expected [row, hash, message]", path);
    if (f->state[i] != RZ_FILM_TODO) return rz_fail(err, RADZ_E_FORMAT, "%s: row %zu comes twice", path, i);
    memcpy(f->sha256[i], hash, strlen(hash) + 1);
    if (why) return rz_eval_films_fail(f, i, why, err);
    f->state[i] = RZ_FILM_DONE;
    f->n_cached++;
    return RADZ_OK;
}

static radz_status load_shard(const char *path, const char *run_of, rz_eval_films *f, radz_error *err)
{
    json_t *o = NULL;
    const char *run_text = "";
    RZ_TRY(rz_json_load(f->host, path, (size_t)1 << 30, &o, err));
    radz_status status = rz_json_string(o, path, "run", &run_text, err);
    if (!status && strcmp(run_text, run_of) != 0)
        status = rz_fail(err, RADZ_E_MISMATCH, "%s: of another model, manifest, methods or number of shards", path);
    const json_t *films = json_object_get(o, "films");
    for (size_t k = 0; k < json_array_size(films) && !status; k++)
        status = list_film(json_array_get(films, k), f, path, err);
    json_decref(o);
    return status;
}

radz_status rz_eval_shards_list(const rz_eval_wanted *const *wanted, size_t n, const radz_eval_options *o,
                                const rz_eval_data *data, rz_eval_films *f, radz_error *err)
{
    char run_of[65];
    RZ_TRY(run_hash(wanted, n, o, data, run_of, err));
    for (int shard = 1; shard <= o->n_shards; shard++) {
        char *path = shard_path(f->host, o, shard);
        radz_status status = path ? load_shard(path, run_of, f, err) : RZ_NO_MEMORY(err, "shard");
        rz_free(f->host, path);
        RZ_TRY(status);
    }
    for (size_t i = 0; i < f->n; i++)
        if (f->state[i] == RZ_FILM_TODO)
            return rz_fail(err, RADZ_E_FORMAT, "%s: the shards lack row %zu", o->out_dir, i);
    return RADZ_OK;
}

static radz_status take_films(const rz_store *cache, const rz_eval_wanted *w, const rz_eval_taker *taker,
                              const rz_eval_films *f, rz_eval_values *v, radz_error *err)
{
    for (size_t i = 0; i < f->n; i++) {
        if (f->state[i] != RZ_FILM_DONE) continue;
        memcpy(v->sha256, f->sha256[i], sizeof v->sha256);
        RZ_TRY(rz_store_get(cache, w, v, err));
        if (v->have != w->kinds)
            return rz_fail(err, RADZ_E_MISMATCH, "shards: the cache has not all that was said of film %.12s",
                           v->sha256);
        RZ_TRY(taker->take(taker->arg, i, v, err));
    }
    return RADZ_OK;
}

radz_status rz_eval_shards_take(const rz_eval_wanted *w, const radz_eval_options *o, const rz_eval_taker *taker,
                                const rz_eval_films *f, radz_error *err)
{
    rz_store *cache = NULL;
    rz_eval_values v = {0};
    radz_status status = rz_store_open(w->model, o, &cache, err);
    if (!status) status = rz_eval_values_open(w, &v, err);
    if (!status) status = take_films(cache, w, taker, f, &v, err);
    rz_eval_values_close(w->host, &v);
    rz_store_close(cache);
    return status;
}
