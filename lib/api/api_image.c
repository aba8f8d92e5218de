/* Public: images and embeddings.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "handles.h"
#include "vectors.h"

/* ---- Images ---- */

static radz_status image_new(radz_runtime *runtime, radz_image **image, radz_error *err)
{
    radz_image *im = rz_calloc(rz_runtime_host(runtime), 1, sizeof *im);
    if (!im) return RZ_NO_MEMORY(err, "image");
    rz_handle_init(&im->h);
    if (runtime) rz_handle_hold(&runtime->h);
    im->runtime = runtime;
    *image = im;
    return RADZ_OK;
}

/* Hands the image out, or closes it when it could not be filled. */
static radz_status image_done(radz_image *im, radz_status status, radz_image **image)
{
    if (status == RADZ_OK)
        *image = im;
    else
        radz_image_close(im);
    return status;
}

radz_status radz_image_open(radz_runtime *runtime, const char *path, radz_image **image, radz_error *err)
{
    if (image) *image = NULL;
    RZ_NEED(image);
    RZ_NEED(path);
    RZ_LIVE_OR_NULL(runtime);
    radz_image *im = NULL;
    RZ_TRY(image_new(runtime, &im, err));
    return image_done(im, rz_film_open(rz_runtime_host(runtime), path, &im->film, err), image);
}

radz_status radz_image_open_memory(radz_runtime *runtime, const void *bytes, size_t n_bytes, radz_image **image,
                                   radz_error *err)
{
    if (image) *image = NULL;
    RZ_NEED(image);
    RZ_NEED(bytes);
    RZ_LIVE_OR_NULL(runtime);
    radz_image *im = NULL;
    RZ_TRY(image_new(runtime, &im, err));
    return image_done(im, rz_film_decode(rz_runtime_host(runtime), bytes, n_bytes, "memory", &im->film, err), image);
}

radz_status radz_image_from_pixels(radz_runtime *runtime, const void *pixels, radz_pixel_format format, size_t width_px,
                                   size_t height_px, size_t stride_bytes, radz_image **image, radz_error *err)
{
    if (image) *image = NULL;
    RZ_NEED(image);
    RZ_NEED(pixels);
    RZ_LIVE_OR_NULL(runtime);
    radz_image *im = NULL;
    RZ_TRY(image_new(runtime, &im, err));
    return image_done(im,
                      rz_film_from_pixels(rz_runtime_host(runtime), pixels, format, width_px, height_px, stride_bytes,
                                          &im->film, err),
                      image);
}

void radz_image_close(radz_image *image)
{
    if (!image || !rz_handle_drop(&image->h)) return;
    radz_runtime *rt = image->runtime;
    rz_film_free(rz_runtime_host(rt), &image->film);
    rz_free(rz_runtime_host(rt), image);
    radz_runtime_close(rt);
}

size_t radz_image_width(const radz_image *image)
{
    return image ? image->film.pixels.width_px : 0;
}
size_t radz_image_height(const radz_image *image)
{
    return image ? image->film.pixels.height_px : 0;
}
const char *radz_image_sha256(const radz_image *image)
{
    return image ? image->film.sha256 : NULL;
}
const void *radz_image_pixels(const radz_image *image)
{
    return image ? image->film.pixels.data : NULL;
}
int radz_image_channels(const radz_image *image)
{
    return image ? image->film.pixels.channels : 0;
}
int radz_image_bits(const radz_image *image)
{
    return image ? image->film.pixels.bits : 0;
}

int radz_image_is_dicom(const radz_image *image)
{
    return image && image->film.source;
}

/* The i-th note that the image has; NULL past the last. */
static const char *note_text(const radz_image *image, size_t i)
{
    for (size_t bit = 0; image && rz_note_text(bit); bit++)
        if (image->film.pixels.notes >> bit & 1 && i-- == 0) return rz_note_text(bit);
    return NULL;
}

size_t radz_image_warning_count(const radz_image *image)
{
    size_t n = 0;
    while (note_text(image, n)) n++;
    return n;
}

const char *radz_image_warning(const radz_image *image, size_t i)
{
    return note_text(image, i);
}

/* ---- Embeddings ---- */

void radz_embed_options_init_sized(radz_embed_options *options, size_t struct_size)
{
    const radz_embed_options defaults = {.struct_size = sizeof defaults};
    rz_options_give(options, struct_size, &defaults, sizeof defaults);
}

/* What the caller's options ask of this model. */
static radz_status take_pick(const radz_model *model, const radz_embed_options *options, const char *function,
                             rz_pick *pick, radz_error *err)
{
    radz_embed_options o;
    radz_embed_options_init(&o);
    RZ_TRY(rz_options_take(&o, sizeof o, options, function, err));
    radz_status status = rz_embed_pick(&model->net->cfg, &o, pick, err);
    return status ? rz_fail_prefix(err, status, "%s", function) : RADZ_OK;
}

size_t radz_embed_dim(const radz_model *model, const radz_embed_options *options)
{
    rz_pick pick;
    if (!model || take_pick(model, options, __func__, &pick, NULL)) return 0;
    return rz_embed_dim(&model->net->cfg, &pick);
}

/* out = NaN: what a caller who forgets the status reads must not look like a vector. By radz_embed_dim, as its caller
 * has measured it: with bad options there is no room in it. */
static void no_vectors(const radz_session *session, size_t n, const radz_embed_options *options, float *out)
{
    size_t n_floats, dim = session ? radz_embed_dim(session->model, options) : 0;
    if (!out || !rz_size_mul(n, dim, &n_floats)) return;
    for (size_t i = 0; i < n_floats; i++) out[i] = NAN;
}

static radz_status check_embed(const radz_session *session, const void *items, size_t n,
                               const radz_embed_options *options, const float *out, const char *function,
                               const char *name, rz_pick *pick, radz_error *err)
{
    RZ_TRY(rz_handle_check(session ? &session->h : NULL, function, "session", err));
    RZ_TRY(take_pick(session->model, options, function, pick, err));
    if (n && !items) return rz_fail(err, RADZ_E_ARGUMENT, "%s: %s is NULL", function, name);
    if (n && !out) return rz_fail(err, RADZ_E_ARGUMENT, "%s: out is NULL", function);
    return RADZ_OK;
}

radz_status rz_images_films(const rz_host *host, const radz_image *const *images, size_t n, const char *function,
                            const rz_film ***films, radz_error *err)
{
    *films = NULL;
    for (size_t i = 0; i < n; i++) {
        char name[40];
        snprintf(name, sizeof name, "images[%zu]", i);
        RZ_TRY(rz_handle_check(images[i] ? &images[i]->h : NULL, function, name, err));
    }
    const rz_film **list = rz_calloc(host, n, sizeof *list);
    if (!list) return RZ_NO_MEMORY(err, "list of films");
    for (size_t i = 0; i < n; i++) list[i] = &images[i]->film;
    *films = list;
    return RADZ_OK;
}

static radz_status embed_images(radz_session *session, const radz_image *const *images, size_t n, const rz_pick *pick,
                                float *out, radz_error *err)
{
    const rz_host *host = &session->model->runtime->host;
    const rz_film **films = NULL;
    RZ_TRY(rz_images_films(host, images, n, "radz_embed_images", &films, err));
    radz_status status = rz_embed_films(&session->net, films, n, pick, out, err);
    rz_free(host, films);
    return status;
}

radz_status radz_embed_images(radz_session *session, const radz_image *const *images, size_t n,
                              const radz_embed_options *options, float *out, radz_error *err)
{
    rz_pick pick;
    no_vectors(session, n, options, out);
    RZ_TRY(check_embed(session, images, n, options, out, __func__, "images", &pick, err));
    return embed_images(session, images, n, &pick, out, err);
}

radz_status radz_embed_texts(radz_session *session, const char *const *texts, size_t n,
                             const radz_embed_options *options, float *out, radz_error *err)
{
    rz_pick pick;
    no_vectors(session, n, options, out);
    RZ_TRY(check_embed(session, texts, n, options, out, __func__, "texts", &pick, err));
    for (size_t i = 0; i < n; i++)
        if (!texts[i]) return rz_fail(err, RADZ_E_ARGUMENT, "%s: texts[%zu] is NULL", __func__, i);
    return rz_embed_texts(&session->net, RZ_ITEM_TEXT, texts, n, &pick, out, err);
}

radz_status radz_vectors_save(const char *path, const char *const *names, const float *vectors, size_t n, size_t dim,
                              radz_error *err)
{
    RZ_NEED(path);
    RZ_NEED(vectors);
    for (size_t i = 0; names && i < n; i++)
        if (!names[i]) return rz_fail(err, RADZ_E_ARGUMENT, "%s: names[%zu] is NULL", __func__, i);
    return rz_vectors_save(NULL, path, names, vectors, n, dim, err);
}
