/* checkpoint.c - a training run in one file, written whole or not at all. SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint.h"

enum { MAX_PARTS = 4 }; /* weight, m, v, average */
#define SCHEMA "radz.checkpoint/1"

static const char *const part_suffix[MAX_PARTS] = {"", "/m", "/v", "/average"};

static int n_parts(const rz_optimizer *o)
{
    return o->average ? MAX_PARTS : MAX_PARTS - 1;
}

static float *part_data(const rz_optimizer *o, const rz_slot *slot, int part)
{
    float *const parts[MAX_PARTS] = {NULL, o->m, o->v, o->average};
    return part == 0 ? slot->w : parts[part] + slot->offset;
}

static char *part_name(const rz_host *host, const rz_slot *slot, int part)
{
    rz_str s = {.host = host};
    rz_str_puts(&s, slot->p->name);
    rz_str_puts(&s, part_suffix[part]);
    if (!s.failed) return s.data;
    rz_str_free(&s);
    return NULL;
}

static char *state_json(const rz_host *host, const rz_run_state *state)
{
    rz_str s = {.host = host};
    rz_str_printf(&s, "{\"schema\":\"" SCHEMA "\",\"step\":%lld,\"draw\":%lld,\"best_step\":%lld,\"best_value\":",
                  (long long)state->step, (long long)state->draw, (long long)state->best_step);
    rz_str_put_double(&s, state->best_value);
    rz_str_put_number(&s, ",\"seconds\":", state->seconds);
    rz_str_puts(&s, "}");
    if (!s.failed) return s.data;
    rz_str_free(&s);
    return NULL;
}

/* ---- Saving ------------------------------------------------------------------------------- */

/* The tensors of a checkpoint, in host memory. */
typedef struct snapshot {
    const rz_host *host;
    rz_st_out *out;
    size_t n;
    char **names;
    float *copy; /* where device memory is no host memory */
} snapshot;

static void snapshot_free(snapshot *x)
{
    for (size_t i = 0; x->names && i < x->n; i++) rz_free(x->host, x->names[i]);
    rz_free(x->host, x->names);
    rz_free(x->host, x->out);
    rz_free(x->host, x->copy);
}

static radz_status add_part(snapshot *x, const rz_optimizer *o, rz_stream *s, const rz_slot *slot, int part,
                            radz_error *err)
{
    const float *data = part_data(o, slot, part);
    if (x->copy) {
        float *to = x->copy + (size_t)part * o->n_floats + slot->offset;
        rz_download(s, to, data, slot->p->n * sizeof *to);
        data = to;
    }
    x->names[x->n] = part_name(x->host, slot, part);
    if (!x->names[x->n]) return RZ_NO_MEMORY(err, "checkpoint");
    rz_st_out *out = &x->out[x->n];
    *out = (rz_st_out){.name = x->names[x->n], .dtype = "F32", .n_dims = slot->p->n_dims, .data = data};
    for (size_t d = 0; d < slot->p->n_dims; d++) out->dims[d] = slot->p->dims[d];
    x->n++;
    return RADZ_OK;
}

static radz_status take_snapshot(snapshot *x, const rz_optimizer *o, rz_stream *s, const rz_run_state *state,
                                 radz_error *err)
{
    const int parts = n_parts(o);
    size_t n_max = (size_t)parts * o->n_slots + 1;
    x->out = rz_calloc(x->host, n_max, sizeof *x->out);
    x->names = rz_calloc(x->host, n_max, sizeof *x->names);
    if (!rz_device_is_host(o->dev)) x->copy = rz_calloc(x->host, o->n_floats, (size_t)parts * sizeof *x->copy);
    if (!x->out || !x->names || (!x->copy && !rz_device_is_host(o->dev))) return RZ_NO_MEMORY(err, "checkpoint");
    for (size_t i = 0; i < o->n_slots; i++)
        for (int part = 0; part < parts; part++) RZ_TRY(add_part(x, o, s, &o->slots[i], part, err));
    x->names[x->n] = rz_strdup(x->host, "rows.bad");
    if (!x->names[x->n]) return RZ_NO_MEMORY(err, "checkpoint");
    x->out[x->n] = (rz_st_out){.name = x->names[x->n], .dtype = "U8", .n_dims = 1, .data = state->bad};
    x->out[x->n++].dims[0] = state->n_rows;
    return rz_stream_sync(s, err);
}

radz_status rz_checkpoint_save(const char *path, const rz_optimizer *o, rz_stream *s, const rz_run_state *state,
                               const char *options, radz_error *err)
{
    snapshot x = {.host = o->host};
    char *json = state_json(o->host, state);
    radz_status st = json ? take_snapshot(&x, o, s, state, err) : RZ_NO_MEMORY(err, "checkpoint");
    const char *const metadata[] = {"state", json, "options", options, NULL};
    if (!st) st = rz_st_write(o->host, path, x.out, x.n, metadata, err);
    rz_free(o->host, json);
    snapshot_free(&x);
    return st;
}

/* ---- Loading ----------------------------------------------------------------------------------- */

static radz_status compare_options(const char *path, const json_t *saved, const json_t *now, radz_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)now, key, value)
    {
        const char *was = json_string_value(json_object_get(saved, key)), *is = json_string_value(value);
        if (!was || strcmp(was, is) != 0)
            return rz_fail(err, RADZ_E_MISMATCH, "%s: cannot go on: '%s' was '%s' and is '%s' now", path, key,
                           was ? was : "not there", is);
    }
    json_object_foreach((json_t *)saved, key, value)
    {
        if (!json_object_get(now, key))
            return rz_fail(err, RADZ_E_MISMATCH, "%s: cannot go on: '%s' was '%s' and is the default now", path, key,
                           json_is_string(value) ? json_string_value(value) : "something");
    }
    return RADZ_OK;
}

static radz_status check_options(const rz_st *st, const char *path, const char *options, radz_error *err)
{
    const char *text = rz_st_metadata(st, "options");
    if (!text) return rz_fail(err, RADZ_E_FORMAT, "%s: not a checkpoint: no metadata 'options'", path);
    json_t *saved = NULL, *now = NULL;
    radz_status status = rz_json_parse(text, strlen(text), path, &saved, err);
    if (!status) status = rz_json_parse(options, strlen(options), "options", &now, err);
    if (!status) status = compare_options(path, saved, now, err);
    json_decref(saved);
    json_decref(now);
    return status;
}

static radz_status parse_state(const json_t *obj, const char *path, rz_run_state *state, radz_error *err)
{
    const char *schema = "";
    RZ_TRY(rz_json_string(obj, path, "schema", &schema, err));
    if (strcmp(schema, SCHEMA) != 0)
        return rz_fail(err, RADZ_E_UNSUPPORTED, "%s: checkpoint schema '%s', expected '" SCHEMA "'", path, schema);
    int64_t max = INT64_C(1) << 53;
    RZ_TRY(rz_json_int(obj, path, "step", 0, max, &state->step, err));
    RZ_TRY(rz_json_int(obj, path, "draw", 0, max, &state->draw, err));
    RZ_TRY(rz_json_int(obj, path, "best_step", 0, max, &state->best_step, err));
    state->best_value = NAN;
    RZ_TRY(rz_json_double(obj, path, "best_value", -1, 1, &state->best_value, err));
    return rz_json_double(obj, path, "seconds", 0, 1e18, &state->seconds, err);
}

static radz_status load_state(const rz_st *st, const char *path, rz_run_state *state, radz_error *err)
{
    const char *text = rz_st_metadata(st, "state");
    if (!text) return rz_fail(err, RADZ_E_FORMAT, "%s: not a checkpoint: no metadata 'state'", path);
    json_t *obj;
    RZ_TRY(rz_json_parse(text, strlen(text), path, &obj, err));
    radz_status status = parse_state(obj, path, state, err);
    json_decref(obj);
    RZ_TRY(status);
    const rz_st_tensor *bad = rz_st_find(st, "rows.bad");
    if (!bad || strcmp(bad->dtype, "U8") != 0 || bad->n_bytes != state->n_rows)
        return rz_fail(err, RADZ_E_MISMATCH, "%s: tensor 'rows.bad': expected U8 of %zu rows", path, state->n_rows);
    for (size_t i = 0; i < state->n_rows; i++) state->bad[i] = bad->data[i] != 0;
    return RADZ_OK;
}

static bool same_shape(const rz_st_tensor *t, const rz_param *p)
{
    if (t->n_dims != p->n_dims || strcmp(t->dtype, "F32") != 0) return false;
    for (size_t d = 0; d < p->n_dims; d++)
        if (t->dims[d] != p->dims[d]) return false;
    return true;
}

static radz_status load_part(const rz_st *st, const char *path, const rz_optimizer *o, rz_stream *s,
                             const rz_slot *slot, int part, radz_error *err)
{
    char *name = part_name(o->host, slot, part);
    float *values = rz_calloc(o->host, slot->p->n, sizeof *values);
    radz_status status = name && values ? RADZ_OK : RZ_NO_MEMORY(err, "checkpoint");
    const rz_st_tensor *t = status ? NULL : rz_st_find(st, name);
    if (!status && (!t || !same_shape(t, slot->p)))
        status = rz_fail(err, RADZ_E_MISMATCH, "%s: tensor '%s': %s", path, name,
                         t ? "another shape or type than the model's" : "not there");
    if (!status) status = rz_st_to_f32(t, values, err);
    if (!status) rz_upload(s, part_data(o, slot, part), values, slot->p->n * sizeof *values);
    rz_free(o->host, values);
    rz_free(o->host, name);
    return status;
}

static radz_status load_all(const rz_st *st, const char *path, rz_optimizer *o, rz_stream *s, rz_run_state *state,
                            const char *options, radz_error *err)
{
    RZ_TRY(check_options(st, path, options, err));
    RZ_TRY(load_state(st, path, state, err));
    const size_t expected = (size_t)n_parts(o) * o->n_slots + 1;
    if (rz_st_count(st) != expected)
        return rz_fail(err, RADZ_E_MISMATCH, "%s: %zu tensors, expected %zu", path, rz_st_count(st), expected);
    for (size_t i = 0; i < o->n_slots; i++)
        for (int part = 0; part < n_parts(o); part++) RZ_TRY(load_part(st, path, o, s, &o->slots[i], part, err));
    rz_optimizer_put(o, s);
    return rz_stream_sync(s, err);
}

radz_status rz_checkpoint_load(const char *path, rz_optimizer *o, rz_stream *s, rz_run_state *state,
                               const char *options, radz_error *err)
{
    rz_st *st;
    RZ_TRY(rz_st_open(o->host, path, RZ_FILE_READ, &st, err));
    radz_status status = load_all(st, path, o, s, state, options, err);
    rz_st_close(st);
    return status;
}
