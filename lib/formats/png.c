/* png.c - PNG to pixels, through libpng's row interface, turned as EXIF asks. SPDX-License-Identifier: Apache-2.0 */
#include <png.h>
#include <setjmp.h>

#include "exif.h"
#include "formats.h"

/* Everything that must survive a jump out of libpng lives here, outside run(). */
typedef struct png_job {
    const rz_host *host;
    const uint8_t *bytes;
    size_t n, at;
    const char *what;
    radz_error *err;
    radz_status status;
    bool no_memory, corrupt;
    png_structp png;
    png_infop info;
    rz_pixels film;
    bool palette;
    jmp_buf jump;
} png_job;

static _Noreturn void on_error(png_structp png, png_const_charp message)
{
    png_job *job = png_get_error_ptr(png);
    if (job->status == RADZ_OK)
        job->status = job->no_memory ? RZ_NO_MEMORY(job->err, "reading a PNG file")
                                     : rz_fail(job->err, RADZ_E_FORMAT, "%s: png: %s", job->what, message);
    longjmp(job->jump, 1);
}

/* libpng only warns about a wrong checksum at the end of the pixel data; for a film that is damage. */
static void on_warning(png_structp png, png_const_charp message)
{
    png_job *job = png_get_error_ptr(png);
    if (strstr(message, "incorrect data check")) job->corrupt = true;
}

/* Leaves through on_error with a status of its own. */
static _Noreturn void give_up(png_job *job, radz_status status)
{
    job->status = status;
    longjmp(job->jump, 1);
}

static png_voidp take_memory(png_structp png, png_alloc_size_t n)
{
    png_job *job = png_get_mem_ptr(png);
    void *p = rz_malloc(job->host, n);
    if (!p) job->no_memory = true;
    return p;
}

static void return_memory(png_structp png, png_voidp p)
{
    png_job *job = png_get_mem_ptr(png);
    rz_free(job->host, p);
}

static void read_bytes(png_structp png, png_bytep to, size_t n)
{
    png_job *job = png_get_io_ptr(png);
    if (n > job->n - job->at) {
        give_up(job, rz_fail(job->err, RADZ_E_FORMAT, "%s: png: truncated: the file ends after %zu bytes", job->what,
                             job->n));
    }
    memcpy(to, job->bytes + job->at, n);
    job->at += n;
}

static void read_header(png_job *job)
{
    png_structp png = job->png;
    png_set_read_fn(png, job, read_bytes);
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff); /* ours are checked below, with a better message */
    png_set_chunk_cache_max(png, 16);
    png_set_chunk_malloc_max(png, 1u << 20);
    png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    /* Text, profiles and gamma are skipped unread: pixels do not depend on them, and zipped ones may be bombs. */
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(png, job->info);
}

/* Asks libpng for gray or RGB of 8 or 16 bits; palettes come as indices, one a byte. */
static void set_transforms(png_job *job, int *channels, int *bits)
{
    png_structp png = job->png;
    const int color = png_get_color_type(png, job->info), depth = png_get_bit_depth(png, job->info);
    job->palette = color == PNG_COLOR_TYPE_PALETTE;
    *channels = color & PNG_COLOR_MASK_COLOR ? 3 : 1;
    *bits = depth == 16 ? 16 : 8;
    if (job->palette) png_set_packing(png);
    if (color == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
    if (color & PNG_COLOR_MASK_ALPHA) png_set_strip_alpha(png);
    const uint16_t one = 1;
    if (depth == 16 && *(const uint8_t *)&one) png_set_swap(png);
}

/* Deflate shrinks at most 1032 to 1, so a short file cannot hold a large picture: say so before taking memory. */
static void check_plausible(png_job *job, size_t width, size_t height)
{
    /* Past the limit rz_pixels_alloc refuses; here it only keeps the product small. */
    if (width > RZ_IMAGE_MAX_SIDE || height > RZ_IMAGE_MAX_SIDE || width * height > RZ_IMAGE_MAX_PIXELS) return;
    const size_t row_bits = width * png_get_bit_depth(job->png, job->info) * png_get_channels(job->png, job->info);
    const size_t n_bytes = height * (row_bits / 8 + 1);
    if (n_bytes / 1032 > job->n)
        give_up(job, rz_fail(job->err, RADZ_E_FORMAT, "%s: png: truncated: %zu bytes cannot hold %zu x %zu pixels",
                             job->what, job->n, width, height));
}

/* Indices lie in the last third of the pixels; expanding forward never overtakes them. */
static void expand_palette(png_job *job)
{
    png_colorp colors = NULL;
    int n_colors = 0;
    png_get_PLTE(job->png, job->info, &colors, &n_colors);
    const size_t n = job->film.width_px * job->film.height_px;
    uint8_t *rgb = job->film.data;
    const uint8_t *index = rgb + 2 * n;
    for (size_t i = 0; i < n; i++) {
        const int k = index[i];
        if (k >= n_colors)
            give_up(job, rz_fail(job->err, RADZ_E_FORMAT, "%s: png: color %d at pixel %zu, the palette has %d",
                                 job->what, k, i, n_colors));
        rgb[3 * i] = colors[k].red;
        rgb[3 * i + 1] = colors[k].green;
        rgb[3 * i + 2] = colors[k].blue;
    }
}

static void read_rows(png_job *job)
{
    const size_t w = job->film.width_px, h = job->film.height_px;
    const size_t row_bytes = job->palette ? w : w * (size_t)job->film.channels * (size_t)(job->film.bits / 8);
    uint8_t *rows = (uint8_t *)job->film.data + (job->palette ? 2 * w * h : 0);
    if (png_get_rowbytes(job->png, job->info) != row_bytes)
        give_up(job, rz_fail(job->err, RADZ_E_INTERNAL, "%s: png: rows of %zu bytes, expected %zu", job->what,
                             png_get_rowbytes(job->png, job->info), row_bytes));
    const int n_passes = png_get_interlace_type(job->png, job->info) == PNG_INTERLACE_ADAM7 ? 7 : 1;
    for (int pass = 0; pass < n_passes; pass++)
        for (size_t y = 0; y < h; y++) png_read_row(job->png, rows + y * row_bytes, NULL);
}

/* Of the eXIf chunk, wherever it stands; libpng has checked all sums on its way. */
static int find_orientation(const png_job *job)
{
    for (size_t at = 8; job->at - at >= 12;) {
        const size_t length = png_get_uint_32(job->bytes + at);
        if (length > job->at - at - 12) break;
        if (!memcmp(job->bytes + at + 4, "eXIf", 4)) return rz_exif_orientation(job->bytes + at + 8, length);
        at += 12 + length;
    }
    return 1;
}

static void turn(png_job *job, int orientation)
{
    const size_t w = job->film.width_px, h = job->film.height_px;
    const size_t size = (size_t)job->film.channels * (size_t)(job->film.bits / 8);
    const rz_placement p = rz_exif_place(orientation, w, h);
    rz_pixels upright;
    const radz_status status = rz_pixels_alloc(job->host, p.swap ? h : w, p.swap ? w : h, job->film.channels,
                                               job->film.bits, "png", job->what, &upright, job->err);
    if (status != RADZ_OK) give_up(job, status);
    const uint8_t *from = job->film.data;
    for (size_t y = 0; y < h; y++)
        for (size_t x = 0; x < w; x++, from += size) {
            const ptrdiff_t at = p.first + (ptrdiff_t)x * p.dx + (ptrdiff_t)y * p.dy;
            memcpy((uint8_t *)upright.data + (size_t)at * size, from, size);
        }
    rz_pixels_free(job->host, &job->film);
    job->film = upright;
}

/* Runs with job->jump armed: anything below may leave by longjmp. */
static void decode(png_job *job)
{
    read_header(job);
    const size_t width = png_get_image_width(job->png, job->info);
    const size_t height = png_get_image_height(job->png, job->info);
    int channels, bits;
    set_transforms(job, &channels, &bits);
    check_plausible(job, width, height);
    const radz_status status =
        rz_pixels_alloc(job->host, width, height, channels, bits, "png", job->what, &job->film, job->err);
    if (status != RADZ_OK) give_up(job, status);
    png_set_interlace_handling(job->png);
    png_read_update_info(job->png, job->info);
    read_rows(job);
    png_read_end(job->png, NULL);
    if (job->corrupt)
        give_up(job, rz_fail(job->err, RADZ_E_FORMAT, "%s: png: corrupt: the checksum of the pixel data is wrong",
                             job->what));
    if (job->palette) expand_palette(job);
    const int orientation = find_orientation(job);
    if (orientation != 1) turn(job, orientation);
}

/* Apart from rz_png_decode so that no local variable changes between setjmp and the jump back. */
static void run(png_job *job)
{
    if (setjmp(job->jump)) return;
    job->png =
        png_create_read_struct_2(PNG_LIBPNG_VER_STRING, job, on_error, on_warning, job, take_memory, return_memory);
    if (job->png) job->info = png_create_info_struct(job->png);
    if (job->info)
        decode(job);
    else if (job->no_memory)
        job->status = RZ_NO_MEMORY(job->err, "reading a PNG file");
    else
        job->status =
            rz_fail(job->err, RADZ_E_INTERNAL, "%s: png: libpng is not version " PNG_LIBPNG_VER_STRING, job->what);
}

radz_status rz_png_decode(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_pixels *out,
                          radz_error *err)
{
    png_job job = {.host = host, .bytes = bytes, .n = n, .what = what, .err = err};
    memset(out, 0, sizeof *out);
    run(&job);
    png_destroy_read_struct(&job.png, &job.info, NULL);
    if (job.status != RADZ_OK)
        rz_pixels_free(host, &job.film);
    else
        *out = job.film;
    return job.status;
}
