/* jpeg.c - JPEG to pixels, through libjpeg: gray, YCbCr, Adobe RGB, CMYK and YCCK, turned as EXIF asks.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>
#include <jerror.h>

#include "exif.h"
#include "formats.h"

#define MAX_SCANS 100
#define MAX_SCANNED_PIXELS 2500000000u /* pixels times scans: 25 scans of the largest film */
#define MAX_LIBJPEG_BYTES (1L << 30)

/* Everything that must survive a jump out of libjpeg lives here, outside run(). */
typedef struct jpeg_job {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    struct jpeg_source_mgr source;
    const rz_host *host;
    const uint8_t *bytes;
    size_t n;
    const char *what;
    radz_error *err;
    radz_status status;
    bool in_data; /* past the headers */
    bool stored;  /* a DICOM frame: not turned, components as they are where is_rgb says so */
    bool is_rgb;
    int max_scans;
    uint8_t *row;
    rz_pixels film;
    jmp_buf jump;
} jpeg_job;

/* ---- Errors: libjpeg never prints and never exits --------------------------------------- */

static _Noreturn void give_up(jpeg_job *job, radz_status status)
{
    job->status = status;
    longjmp(job->jump, 1);
}

static _Noreturn void refuse_damage(jpeg_job *job, const char *why)
{
    give_up(job, rz_fail(job->err, RADZ_E_FORMAT, "%s: jpeg: truncated or corrupt: %s", job->what, why));
}

/* What libjpeg calls an error is mostly damage; a few codes mean something else. */
static radz_status status_of(int code)
{
    switch (code) {
    case JERR_OUT_OF_MEMORY:
        return RADZ_E_MEMORY;
    case JERR_IMAGE_TOO_BIG:
    case JERR_NO_BACKING_STORE:
        return RADZ_E_LIMIT;
    case JERR_SOF_UNSUPPORTED:
    case JERR_ARITH_NOTIMPL:
    case JERR_NOT_COMPILED:
    case JERR_BAD_PRECISION:
    case JERR_CONVERSION_NOTIMPL:
        return RADZ_E_UNSUPPORTED;
    default:
        return RADZ_E_FORMAT;
    }
}

static _Noreturn void on_error(j_common_ptr cinfo)
{
    jpeg_job *job = cinfo->client_data;
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    const radz_status status = status_of(cinfo->err->msg_code);
    switch (cinfo->err->msg_code) {
    case JERR_OUT_OF_MEMORY:
        give_up(job, RZ_NO_MEMORY(job->err, "reading a JPEG file"));
    case JERR_NO_BACKING_STORE:
        give_up(job,
                rz_fail(job->err, status, "%s: jpeg: needs over %ld bytes to decode", job->what, MAX_LIBJPEG_BYTES));
    case JERR_BAD_PRECISION:
        give_up(job, rz_fail(job->err, status, "%s: jpeg: %d-bit samples, expected 8-bit ones", job->what,
                             cinfo->err->msg_parm.i[0]));
    default:
        give_up(job, rz_fail(job->err, status, "%s: jpeg: %s", job->what, text));
    }
}

/* libjpeg goes on after a warning and fills what is missing with gray: half a film is worse than none. Stray bytes
 * between headers and unknown Adobe or JFIF versions are harmless. */
static void on_message(j_common_ptr cinfo, int level)
{
    jpeg_job *job = cinfo->client_data;
    const int code = cinfo->err->msg_code;
    char text[JMSG_LENGTH_MAX];
    if (level >= 0 || code == JWRN_ADOBE_XFORM || code == JWRN_JFIF_MAJOR) return;
    if (code == JWRN_EXTRANEOUS_DATA && !job->in_data) return;
    cinfo->err->format_message(cinfo, text);
    refuse_damage(job, text);
}

static void on_output(j_common_ptr cinfo)
{
    (void)cinfo;
}

/* Called per row of blocks: a short file may ask for a thousand passes over a large picture. */
static void on_progress(j_common_ptr cinfo)
{
    jpeg_job *job = cinfo->client_data;
    if (job->max_scans && job->cinfo.input_scan_number > job->max_scans)
        give_up(job, rz_fail(job->err, RADZ_E_LIMIT, "%s: jpeg: more than %d scans", job->what, job->max_scans));
}

/* ---- Source: a span of memory that ends ----------------------------------------------------- */

static void start_source(j_decompress_ptr cinfo)
{
    (void)cinfo;
}

static boolean refill_source(j_decompress_ptr cinfo)
{
    refuse_damage(cinfo->client_data, "the file ends too early");
}

static void skip_source(j_decompress_ptr cinfo, long n)
{
    if (n <= 0) return;
    if ((unsigned long)n > cinfo->src->bytes_in_buffer) refuse_damage(cinfo->client_data, "the file ends too early");
    cinfo->src->next_input_byte += n;
    cinfo->src->bytes_in_buffer -= (size_t)n;
}

static void set_up(jpeg_job *job)
{
    struct jpeg_decompress_struct *cinfo = &job->cinfo;
    cinfo->err = jpeg_std_error(&job->errors);
    job->errors.error_exit = on_error;
    job->errors.emit_message = on_message;
    job->errors.output_message = on_output;
    cinfo->client_data = job;
    jpeg_create_decompress(cinfo);
    cinfo->mem->max_memory_to_use = MAX_LIBJPEG_BYTES;
    job->progress.progress_monitor = on_progress;
    cinfo->progress = &job->progress;
    job->source = (struct jpeg_source_mgr){.next_input_byte = job->bytes,
                                           .bytes_in_buffer = job->n,
                                           .init_source = start_source,
                                           .fill_input_buffer = refill_source,
                                           .skip_input_data = skip_source,
                                           .resync_to_restart = jpeg_resync_to_restart,
                                           .term_source = start_source};
    cinfo->src = &job->source;
}

/* ---- EXIF orientation --------------------------------------------------------------------------- */

/* Walks the segments before the first scan to the first EXIF block. */
static int find_orientation(const uint8_t *bytes, size_t n)
{
    size_t at = 2;
    while (n - at >= 4 && bytes[at] == 0xff) {
        const unsigned marker = bytes[at + 1];
        if (marker == 0xff) { /* a fill byte */
            at++;
            continue;
        }
        const size_t length = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (marker == 0xda || marker == 0xd9 || length < 2 || length > n - at - 2) return 1;
        if (marker == 0xe1 && length >= 8 && !memcmp(bytes + at + 4, "Exif\0\0", 6))
            return rz_exif_orientation(bytes + at + 10, length - 8);
        at += 2 + length;
    }
    return 1;
}

/* ---- Rows ------------------------------------------------------------------------------------------ */

/* CMYK as Adobe writes it (0 = full ink), which is how every reader takes it, in place to RGB: PIL's arithmetic. */
static void cmyk_to_rgb(uint8_t *row, size_t width)
{
    uint8_t *rgb = row;
    for (size_t x = 0; x < width; x++, row += 4, rgb += 3) {
        const unsigned light = row[3];
        for (int c = 0; c < 3; c++) {
            const unsigned t = (255u - row[c]) * light + 128;
            const unsigned ink = (t + (t >> 8)) >> 8;
            rgb[c] = (uint8_t)(light > ink ? light - ink : 0);
        }
    }
}

static void put_row(rz_pixels *film, const uint8_t *row, size_t width, size_t y, const rz_placement *p)
{
    uint8_t *out = film->data;
    if (p->dx == 1) {
        const size_t row_bytes = width * (size_t)film->channels;
        memcpy(out + (p->first + (ptrdiff_t)y * p->dy) * film->channels, row, row_bytes);
        return;
    }
    for (size_t x = 0; x < width; x++) {
        uint8_t *to = out + (p->first + (ptrdiff_t)x * p->dx + (ptrdiff_t)y * p->dy) * film->channels;
        for (int c = 0; c < film->channels; c++) to[c] = row[x * (size_t)film->channels + (size_t)c];
    }
}

static void read_rows(jpeg_job *job, const rz_placement *p)
{
    struct jpeg_decompress_struct *cinfo = &job->cinfo;
    const size_t width = cinfo->output_width;
    job->row = rz_malloc(job->host, width * (size_t)cinfo->output_components);
    if (!job->row) give_up(job, RZ_NO_MEMORY(job->err, "a row of a JPEG file"));
    while (cinfo->output_scanline < cinfo->output_height) {
        const size_t y = cinfo->output_scanline;
        if (jpeg_read_scanlines(cinfo, &job->row, 1) != 1) refuse_damage(job, "a row is missing");
        if (cinfo->out_color_space == JCS_CMYK) cmyk_to_rgb(job->row, width);
        put_row(&job->film, job->row, width, y, p);
    }
}

/* ---- The whole ---------------------------------------------------------------------------------------- */

/* libjpeg-turbo falls back on the tables of the standard when a file brings none; they need not be the right ones. */
static void check_tables(jpeg_job *job)
{
    struct jpeg_decompress_struct *cinfo = &job->cinfo;
    if (cinfo->arith_code || cinfo->progressive_mode) return;
    for (int i = 0; i < cinfo->comps_in_scan; i++) {
        const jpeg_component_info *comp = cinfo->cur_comp_info[i];
        const int dc = comp->dc_tbl_no, ac = comp->ac_tbl_no;
        if (dc < 0 || dc >= NUM_HUFF_TBLS || ac < 0 || ac >= NUM_HUFF_TBLS || !cinfo->dc_huff_tbl_ptrs[dc] ||
            !cinfo->ac_huff_tbl_ptrs[ac])
            refuse_damage(job, "no Huffman table (DHT)");
    }
}

static void check_header(jpeg_job *job)
{
    struct jpeg_decompress_struct *cinfo = &job->cinfo;
    const int n = cinfo->num_components;
    if (cinfo->data_precision != 8)
        give_up(job, rz_fail(job->err, RADZ_E_UNSUPPORTED, "%s: jpeg: %d-bit samples, expected 8-bit ones", job->what,
                             cinfo->data_precision));
    if (n != 1 && n != 3 && n != 4)
        give_up(job,
                rz_fail(job->err, RADZ_E_UNSUPPORTED, "%s: jpeg: %d components, expected 1, 3 or 4", job->what, n));
    /* A block of 8 x 8 samples takes a bit at least, one of four with subsampling. Arithmetic coding could do with
     * less, but then a few hundred bytes would buy seconds of decoding. */
    const size_t n_pixels = (size_t)cinfo->image_width * cinfo->image_height;
    if (n_pixels <= RZ_IMAGE_MAX_PIXELS && n_pixels / 64 / 4 / 8 > job->n) refuse_damage(job, "too short for its size");
    const size_t n_scans = MAX_SCANNED_PIXELS / n_pixels;
    job->max_scans = n_scans < MAX_SCANS ? (int)n_scans : MAX_SCANS;
    check_tables(job);
}

/* Apart from rz_jpeg_decode so that no local variable changes between setjmp and the jump back. */
static void run(jpeg_job *job)
{
    struct jpeg_decompress_struct *cinfo = &job->cinfo;
    if (setjmp(job->jump)) return;
    set_up(job);
    jpeg_read_header(cinfo, TRUE);
    check_header(job);
    if (job->stored && cinfo->num_components == 3) cinfo->jpeg_color_space = job->is_rgb ? JCS_RGB : JCS_YCbCr;
    cinfo->out_color_space = cinfo->num_components == 1   ? JCS_GRAYSCALE
                             : cinfo->num_components == 3 ? JCS_RGB
                                                          : JCS_CMYK;
    const int orientation = job->stored ? 1 : find_orientation(job->bytes, job->n);
    const rz_placement p = rz_exif_place(orientation, cinfo->image_width, cinfo->image_height);
    const size_t width = p.swap ? cinfo->image_height : cinfo->image_width;
    const size_t height = p.swap ? cinfo->image_width : cinfo->image_height;
    const radz_status status = rz_pixels_alloc(job->host, width, height, cinfo->num_components == 1 ? 1 : 3, 8, "jpeg",
                                               job->what, &job->film, job->err);
    if (status != RADZ_OK) give_up(job, status);
    job->in_data = true;
    jpeg_start_decompress(cinfo);
    read_rows(job, &p);
    jpeg_finish_decompress(cinfo);
}

static radz_status decode(jpeg_job *job, rz_pixels *out)
{
    memset(out, 0, sizeof *out);
    if (job->n < 4)
        return rz_fail(job->err, RADZ_E_FORMAT, "%s: jpeg: truncated or corrupt: only %zu bytes", job->what, job->n);
    run(job);
    jpeg_destroy_decompress(&job->cinfo);
    rz_free(job->host, job->row);
    if (job->status != RADZ_OK)
        rz_pixels_free(job->host, &job->film);
    else
        *out = job->film;
    return job->status;
}

radz_status rz_jpeg_decode(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_pixels *out,
                           radz_error *err)
{
    jpeg_job job = {.host = host, .bytes = bytes, .n = n, .what = what, .err = err};
    return decode(&job, out);
}

radz_status rz_jpeg_decode_stored(const rz_host *host, const uint8_t *bytes, size_t n, bool is_rgb, const char *what,
                                  rz_pixels *out, radz_error *err)
{
    jpeg_job job = {.host = host, .bytes = bytes, .n = n, .what = what, .err = err, .stored = true, .is_rgb = is_rgb};
    return decode(&job, out);
}
