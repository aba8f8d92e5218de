/* jpeg_write.c - pixels to JPEG, in memory: small pictures for reports. SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>
#include <jerror.h>

#include "formats.h"

/* Everything that must survive a jump out of libjpeg lives here, outside run(). */
typedef struct jpeg_out {
    struct jpeg_compress_struct cinfo;
    struct jpeg_error_mgr errors;
    const rz_pixels *film;
    int quality;
    unsigned char *bytes; /* from libjpeg's malloc */
    unsigned long n;
    radz_error *err;
    radz_status status;
    jmp_buf jump;
} jpeg_out;

static _Noreturn void on_error(j_common_ptr cinfo)
{
    jpeg_out *o = cinfo->client_data;
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    o->status = cinfo->err->msg_code == JERR_OUT_OF_MEMORY ? RZ_NO_MEMORY(o->err, "writing a JPEG file")
                                                           : rz_fail(o->err, RADZ_E_INTERNAL, "jpeg: %s", text);
    longjmp(o->jump, 1);
}

static void say_nothing(j_common_ptr cinfo)
{
    (void)cinfo;
}

/* Apart from rz_jpeg_encode so that no local variable changes between setjmp and the jump back. */
static void run(jpeg_out *o)
{
    const rz_pixels *film = o->film;
    if (setjmp(o->jump)) return;
    o->cinfo.err = jpeg_std_error(&o->errors);
    o->errors.error_exit = on_error;
    o->errors.output_message = say_nothing;
    o->cinfo.client_data = o;
    jpeg_create_compress(&o->cinfo);
    jpeg_mem_dest(&o->cinfo, &o->bytes, &o->n);
    o->cinfo.image_width = (JDIMENSION)film->width_px, o->cinfo.image_height = (JDIMENSION)film->height_px;
    o->cinfo.input_components = film->channels;
    o->cinfo.in_color_space = film->channels == 3 ? JCS_RGB : JCS_GRAYSCALE;
    jpeg_set_defaults(&o->cinfo);
    jpeg_set_quality(&o->cinfo, o->quality, TRUE);
    o->cinfo.dct_method = JDCT_ISLOW; /* the same bits with and without SIMD */
    jpeg_start_compress(&o->cinfo, TRUE);
    while (o->cinfo.next_scanline < o->cinfo.image_height) {
        uint8_t *row = (uint8_t *)film->data + o->cinfo.next_scanline * film->width_px * (size_t)film->channels;
        jpeg_write_scanlines(&o->cinfo, &row, 1);
    }
    jpeg_finish_compress(&o->cinfo);
}

radz_status rz_jpeg_encode(const rz_pixels *film, int quality, rz_str *out, radz_error *err)
{
    jpeg_out o = {.film = film, .quality = quality, .err = err};
    if (film->bits != 8) return rz_fail(err, RADZ_E_INTERNAL, "jpeg: expected 8 bits");
    run(&o);
    if (o.status == RADZ_OK) rz_str_put(out, o.bytes, o.n);
    jpeg_destroy_compress(&o.cinfo);
    free(o.bytes);
    if (o.status == RADZ_OK && out->failed) return RZ_NO_MEMORY(err, "writing a JPEG file");
    return o.status;
}
