/* safetensors_write.c - writing of safetensors files. SPDX-License-Identifier: Apache-2.0 */
#include "safetensors.h"

#define ST_ALIGN 64u

static radz_status out_size(const rz_st_out *t, size_t *n_bytes, radz_error *err)
{
    size_t size = rz_st_dtype_size(t->dtype);
    *n_bytes = 0;
    if (!t->name || !rz_utf8_valid(t->name, strlen(t->name)))
        return rz_fail(err, RADZ_E_ARGUMENT, "safetensors: a tensor's name is not UTF-8");
    if (!size || t->n_dims > RZ_COUNT(t->dims))
        return rz_fail(err, RADZ_E_ARGUMENT, "safetensors: tensor '%s': cannot write dtype '%.16s' with %zu dimensions",
                       t->name, t->dtype, t->n_dims);
    *n_bytes = size;
    for (size_t i = 0; i < t->n_dims; i++)
        if (!rz_size_mul(*n_bytes, t->dims[i], n_bytes))
            return rz_fail(err, RADZ_E_ARGUMENT, "safetensors: tensor '%s': shape overflows", t->name);
    return RADZ_OK;
}

static radz_status check_data(const rz_st_out *tensors, size_t n, radz_error *err)
{
    for (size_t i = 0; i < n; i++) {
        size_t n_bytes;
        RZ_TRY(out_size(&tensors[i], &n_bytes, err));
        if (n_bytes && !tensors[i].data)
            return rz_fail(err, RADZ_E_ARGUMENT, "safetensors: tensor '%s': no data given", tensors[i].name);
    }
    return RADZ_OK;
}

static void put_metadata(rz_str *s, const char *const *metadata)
{
    rz_str_puts(s, "\"__metadata__\":{");
    for (size_t i = 0; metadata[i] && metadata[i + 1]; i += 2) {
        if (i) rz_str_puts(s, ",");
        rz_str_put_json(s, metadata[i], strlen(metadata[i]));
        rz_str_put_text(s, ":", metadata[i + 1]);
    }
    rz_str_puts(s, "}");
}

static void put_entry(rz_str *s, const rz_st_out *t, uint64_t begin, uint64_t end)
{
    rz_str_put_json(s, t->name, strlen(t->name));
    rz_str_printf(s, ":{\"dtype\":\"%s\",\"shape\":[", t->dtype);
    for (size_t i = 0; i < t->n_dims; i++) rz_str_printf(s, "%s%llu", i ? "," : "", (unsigned long long)t->dims[i]);
    rz_str_printf(s, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin, (unsigned long long)end);
}

/* Every tensor is aligned to its element size where they lie as declared. */
static bool aligned_as_declared(const rz_st_out *tensors, size_t n)
{
    size_t at = 0, n_bytes;
    for (size_t i = 0; i < n; i++) {
        if (out_size(&tensors[i], &n_bytes, NULL) || at % rz_st_dtype_size(tensors[i].dtype)) return false;
        at += n_bytes;
    }
    return true;
}

/* Calls for every tensor in the order of the data: as declared where each is then aligned to its element size (torch
 * refuses others), else the widest elements first. */
#define FOR_EACH_OUT(t, tensors, n)                                                                                    \
    for (size_t any_ = aligned_as_declared((tensors), (n)), width_ = any_ ? 1 : 8; width_; width_ /= 2)                \
        for (const rz_st_out *t = (tensors), *end_ = (n) ? t + (n) : t; t < end_; t++)                                 \
            if (any_ || rz_st_dtype_size(t->dtype) == width_)

/* What we write must pass our own reading: duplicate names, reserved names and the like are found there. */
static radz_status check_written(const rz_str *s, size_t start, uint64_t n_data, radz_error *err)
{
    radz_error e;
    radz_status status = rz_st_check_header(s->host, s->data + start + 8, s->len - start - 8, n_data, &e);
    if (status == RADZ_OK) return RADZ_OK;
    return rz_fail(err, status == RADZ_E_MEMORY ? status : RADZ_E_ARGUMENT, "cannot write %s", e.message);
}

/* Length, JSON, spaces up to ST_ALIGN. */
static radz_status put_header(rz_str *s, const rz_st_out *tensors, size_t n, const char *const *metadata,
                              radz_error *err)
{
    size_t start = s->len, n_bytes, end = 0;
    const char *comma = "";
    uint64_t len;
    for (size_t i = 0; i < n; i++) RZ_TRY(out_size(&tensors[i], &n_bytes, err));
    rz_str_put(s, "\0\0\0\0\0\0\0\0{", 9);
    if (metadata && metadata[0]) {
        put_metadata(s, metadata);
        comma = ",";
    }
    FOR_EACH_OUT(t, tensors, n)
    {
        size_t begin = end;
        RZ_TRY(out_size(t, &n_bytes, err));
        if (!rz_size_add(begin, n_bytes, &end)) return rz_fail(err, RADZ_E_ARGUMENT, "safetensors: too much data");
        rz_str_puts(s, comma);
        put_entry(s, t, begin, end);
        comma = ",";
    }
    rz_str_puts(s, "}");
    while (!s->failed && (s->len - start) % ST_ALIGN) rz_str_puts(s, " ");
    if (s->failed) return RZ_NO_MEMORY(err, "safetensors header");
    len = s->len - start - 8;
    for (int i = 0; i < 8; i++) s->data[start + (size_t)i] = (char)(len >> 8 * i);
    return check_written(s, start, end, err);
}

radz_status rz_st_encode(rz_str *s, const rz_st_out *tensors, size_t n, const char *const *metadata, radz_error *err)
{
    RZ_TRY(check_data(tensors, n, err));
    RZ_TRY(put_header(s, tensors, n, metadata, err));
    FOR_EACH_OUT(t, tensors, n)
    {
        size_t n_bytes;
        RZ_TRY(out_size(t, &n_bytes, err));
        if (n_bytes) rz_str_put(s, t->data, n_bytes);
    }
    return s->failed ? RZ_NO_MEMORY(err, "safetensors data") : RADZ_OK;
}

static radz_status write_all(rz_writer *w, const rz_str *header, const rz_st_out *tensors, size_t n, rz_st_put put,
                             void *user, radz_error *err)
{
    RZ_TRY(rz_writer_put(w, header->data, header->len, err));
    FOR_EACH_OUT(t, tensors, n)
    {
        size_t n_bytes;
        uint64_t before = rz_writer_bytes(w);
        RZ_TRY(out_size(t, &n_bytes, err));
        RZ_TRY(put(user, (size_t)(t - tensors), w, err));
        if (rz_writer_bytes(w) - before != n_bytes)
            return rz_fail(err, RADZ_E_INTERNAL, "safetensors: tensor '%s': %llu bytes were written, expected %zu",
                           t->name, (unsigned long long)(rz_writer_bytes(w) - before), n_bytes);
    }
    return RADZ_OK;
}

radz_status rz_st_write_with(const rz_host *host, const char *path, const rz_st_out *tensors, size_t n,
                             const char *const *metadata, rz_st_put put, void *user, radz_error *err)
{
    rz_str header = {.host = host};
    rz_writer *w = NULL;
    radz_status status = put_header(&header, tensors, n, metadata, err);
    if (status == RADZ_OK) status = rz_writer_open(host, path, &w, err);
    if (status == RADZ_OK) {
        status = write_all(w, &header, tensors, n, put, user, err);
        if (status == RADZ_OK)
            status = rz_writer_commit(w, err);
        else
            rz_writer_abort(w);
    }
    rz_str_free(&header);
    return status;
}

/* user: the tensors. */
static radz_status put_data(void *user, size_t i, rz_writer *w, radz_error *err)
{
    const rz_st_out *t = (const rz_st_out *)user + i;
    size_t n_bytes;
    RZ_TRY(out_size(t, &n_bytes, err));
    return n_bytes ? rz_writer_put(w, t->data, n_bytes, err) : RADZ_OK;
}

radz_status rz_st_write(const rz_host *host, const char *path, const rz_st_out *tensors, size_t n,
                        const char *const *metadata, radz_error *err)
{
    RZ_TRY(check_data(tensors, n, err));
    return rz_st_write_with(host, path, tensors, n, metadata, put_data, (void *)(uintptr_t)tensors, err);
}
