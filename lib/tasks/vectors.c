/* Vectors with names to .npy or .safetensors.
 * SPDX-License-Identifier: Apache-2.0 */
#include "vectors.h"

#include "formats.h"

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n > k && strcmp(s + n - k, end) == 0;
}

static void put_names(rz_str *s, const char *const *names, size_t n)
{
    rz_str_puts(s, "[");
    for (size_t i = 0; i < n; i++) {
        if (i) rz_str_puts(s, ",");
        rz_str_put_json(s, names[i], strlen(names[i]));
    }
    rz_str_puts(s, "]");
}

/* Writes s, whose bytes may have failed to fit in memory. */
static radz_status write_str(const rz_host *host, const char *path, const rz_str *s, radz_error *err)
{
    if (s->failed) return RZ_NO_MEMORY(err, "vectors");
    return rz_write_file(host, path, s->data, s->len, err);
}

static radz_status save_names(const rz_host *host, const char *path, const rz_str *names, radz_error *err)
{
    rz_str where = {.host = host}, text = {.host = host};
    rz_str_put(&where, path, strlen(path) - strlen(".npy"));
    rz_str_puts(&where, ".names.json");
    rz_str_put(&text, names->data, names->len);
    rz_str_puts(&text, "\n");
    radz_status status = where.failed ? RZ_NO_MEMORY(err, "names of vectors") : write_str(host, where.data, &text, err);
    rz_str_free(&where);
    rz_str_free(&text);
    return status;
}

static radz_status put_npy(rz_writer *w, const rz_host *host, const float *vectors, size_t n, size_t dim,
                           radz_error *err)
{
    rz_str header = {.host = host};
    rz_npy_header(&header, n, dim);
    radz_status status = header.failed ? RZ_NO_MEMORY(err, "vectors") : rz_writer_put(w, header.data, header.len, err);
    rz_str_free(&header);
    return status ? status : rz_writer_put(w, vectors, n * dim * sizeof *vectors, err);
}

static radz_status save_npy(const rz_host *host, const char *path, const float *vectors, size_t n, size_t dim,
                            radz_error *err)
{
    rz_writer *w = NULL;
    RZ_TRY(rz_writer_open(host, path, &w, err));
    radz_status status = put_npy(w, host, vectors, n, dim, err);
    if (status == RADZ_OK) return rz_writer_commit(w, err);
    rz_writer_abort(w);
    return status;
}

static radz_status save_safetensors(const rz_host *host, const char *path, const rz_str *names, const float *vectors,
                                    size_t n, size_t dim, radz_error *err)
{
    const rz_st_out t = {.name = "embeddings", .dtype = "F32", .n_dims = 2, .dims = {n, dim}, .data = vectors};
    const char *metadata[] = {"library", radz_version(), names ? "names" : NULL, names ? names->data : NULL, NULL};
    return rz_st_write(host, path, &t, 1, metadata, err);
}

static radz_status save(const rz_host *host, const char *path, bool npy, const rz_str *names, const float *vectors,
                        size_t n, size_t dim, radz_error *err)
{
    if (!npy) return save_safetensors(host, path, names, vectors, n, dim, err);
    /* The names first: vectors that are there always have theirs. */
    if (names) RZ_TRY(save_names(host, path, names, err));
    return save_npy(host, path, vectors, n, dim, err);
}

radz_status rz_vectors_save(const rz_host *host, const char *path, const char *const *names, const float *vectors,
                            size_t n, size_t dim, radz_error *err)
{
    const bool npy = ends_with(path, ".npy");
    size_t floats, bytes;
    if (!npy && !ends_with(path, ".safetensors"))
        return rz_fail(err, RADZ_E_ARGUMENT, "%s: expected a name that ends in .npy or .safetensors", path);
    if (!n || !dim || !rz_size_mul(n, dim, &floats) || !rz_size_mul(floats, sizeof *vectors, &bytes))
        return rz_fail(err, RADZ_E_ARGUMENT, "%s: cannot write %zu vectors of %zu numbers", path, n, dim);
    rz_str list = {.host = host};
    if (names) put_names(&list, names, n);
    radz_status status = list.failed ? RZ_NO_MEMORY(err, "names of vectors")
                                     : save(host, path, npy, names ? &list : NULL, vectors, n, dim, err);
    rz_str_free(&list);
    return status;
}
