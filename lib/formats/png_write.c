/* png_write.c - pixels to PNG, in memory. SPDX-License-Identifier: Apache-2.0 */
#include <png.h>
#include <setjmp.h>

#include "formats.h"

/* Everything that must survive a jump out of libpng lives here, outside run(). */
typedef struct png_out {
    const rz_host *host;
    const rz_pixels *film;
    const char *const *text;
    rz_str *out;
    radz_error *err;
    radz_status status;
    bool no_memory;
    png_structp png;
    png_infop info;
    jmp_buf jump;
} png_out;

static _Noreturn void on_error(png_structp png, png_const_charp message)
{
    png_out *o = png_get_error_ptr(png);
    o->status = o->no_memory ? RZ_NO_MEMORY(o->err, "writing a PNG file")
                             : rz_fail(o->err, RADZ_E_INTERNAL, "png: %s", message);
    longjmp(o->jump, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png, (void)message;
}

static png_voidp take_memory(png_structp png, png_alloc_size_t n)
{
    png_out *o = png_get_mem_ptr(png);
    void *p = rz_malloc(o->host, n);
    if (!p) o->no_memory = true;
    return p;
}

static void return_memory(png_structp png, png_voidp p)
{
    png_out *o = png_get_mem_ptr(png);
    rz_free(o->host, p);
}

static void put_bytes(png_structp png, png_bytep bytes, size_t n)
{
    png_out *o = png_get_io_ptr(png);
    rz_str_put(o->out, bytes, n);
    if (!o->out->failed) return;
    o->no_memory = true;
    png_error(png, "out of memory");
}

static void flush_nothing(png_structp png)
{
    (void)png;
}

/* UTF-8, uncompressed. libpng wants the value writable but leaves it as it is. */
static void put_text(png_out *o)
{
    for (size_t i = 0; o->text && o->text[i]; i += 2) {
        png_text t = {.compression = PNG_ITXT_COMPRESSION_NONE};
        t.key = (png_charp)(uintptr_t)o->text[i];
        t.text = (png_charp)(uintptr_t)o->text[i + 1];
        t.itxt_length = strlen(o->text[i + 1]);
        png_set_text(o->png, o->info, &t, 1);
    }
}

static void encode(png_out *o)
{
    const rz_pixels *film = o->film;
    const size_t row_bytes = film->width_px * (size_t)film->channels * (size_t)(film->bits / 8);
    const uint16_t one = 1;
    png_set_write_fn(o->png, o, put_bytes, flush_nothing);
    png_set_user_limits(o->png, 0x7fffffff, 0x7fffffff);
    png_set_IHDR(o->png, o->info, (png_uint_32)film->width_px, (png_uint_32)film->height_px, film->bits,
                 film->channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    put_text(o);
    png_write_info(o->png, o->info);
    if (film->bits == 16 && *(const uint8_t *)&one) png_set_swap(o->png);
    for (size_t y = 0; y < film->height_px; y++) png_write_row(o->png, (png_const_bytep)film->data + y * row_bytes);
    png_write_end(o->png, NULL);
}

/* Apart from rz_png_encode so that no local variable changes between setjmp and the jump back. */
static void run(png_out *o)
{
    if (setjmp(o->jump)) return;
    o->png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, o, on_error, on_warning, o, take_memory, return_memory);
    if (o->png) o->info = png_create_info_struct(o->png);
    if (o->info)
        encode(o);
    else if (o->no_memory)
        o->status = RZ_NO_MEMORY(o->err, "writing a PNG file");
    else if (o->status == RADZ_OK)
        o->status = rz_fail(o->err, RADZ_E_INTERNAL, "png: libpng is not version " PNG_LIBPNG_VER_STRING);
}

radz_status rz_png_encode(const rz_host *host, const rz_pixels *film, const char *const *text, rz_str *out,
                          radz_error *err)
{
    png_out o = {.host = host, .film = film, .text = text, .out = out, .err = err};
    run(&o);
    png_destroy_write_struct(&o.png, &o.info);
    return o.status;
}
