/* Preprocessing against transformers' image processors and PIL's resize (tests/data/images, make_images.py).
 * SPDX-License-Identifier: Apache-2.0 */
#include "preprocess.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "failing_host.h"
#include "fixture.h"

#define DIR "tests/data/images"

static const rz_preprocess_config clip = {.resize = true,
                                          .crop = true,
                                          .rescale = 1 / 255.f,
                                          .mean = {.48145466f, .4578275f, .40821073f},
                                          .std = {.26862954f, .26130258f, .27577711f}};

static rz_preprocess_config config_of(size_t edge, size_t size, bool pad)
{
    rz_preprocess_config cfg = clip;
    cfg.shortest_edge = edge;
    cfg.crop_width = cfg.crop_height = size;
    cfg.pad_to_square = pad;
    return cfg;
}

/* Sharp and smooth at once; make_images.py has the same formula. */
static int noise(size_t x, size_t y, size_t c)
{
    return (int)(((x * 37) ^ (y * 91) ^ (c * 53) ^ (x * y >> 2)) & 255);
}

static rz_pixels noise_film(size_t w, size_t h, int channels, int bits)
{
    rz_pixels p;
    assert_int_equal(rz_pixels_alloc(NULL, w, h, channels, bits, "raw", "noise", &p, NULL), RADZ_OK);
    for (size_t y = 0; y < h; y++)
        for (size_t x = 0; x < w; x++)
            for (size_t c = 0; c < (size_t)channels; c++) {
                const size_t at = (y * w + x) * (size_t)channels + c;
                if (bits == 8)
                    ((uint8_t *)p.data)[at] = (uint8_t)noise(x, y, c);
                else
                    ((uint16_t *)p.data)[at] = (uint16_t)(noise(x, y, c) * 256 + noise(x, h - 1 - y, c));
            }
    return p;
}

/* ---- Against the references ------------------------------------------------------------------- */

static void for_lines(const char *table, size_t n_expected, void (*fn)(const char *line))
{
    size_t n_bytes, n = 0;
    char *text = fixture_read(fixture_path(DIR, table), &n_bytes), *rest = text, *line;
    while ((line = strsep(&rest, "\n")))
        if (*line && *line != '#') fn(line), n++;
    free(text);
    assert_int_equal(n, n_expected);
}

static uint8_t *golden;

static float grey_level(float v, size_t c)
{
    return (v * clip.std[c] + clip.mean[c]) * 255;
}

static void same_with_threads(const rz_preprocess_config *cfg, size_t size, const rz_pixels *film, const float *want)
{
    rz_pool *pool;
    const size_t n = 3 * size * size;
    float *out = malloc(n * sizeof *out);
    assert_int_equal(rz_pool_create(NULL, 3, &pool, NULL), RADZ_OK);
    assert_int_equal(rz_preprocess_on(pool, NULL, cfg, size, film, 3, out, NULL), RADZ_OK);
    assert_memory_equal(out, want, n * sizeof *out);
    out[n / 3] = -99; /* what lies behind the first plane stays */
    assert_int_equal(rz_preprocess_on(pool, NULL, cfg, size, film, 1, out, NULL), RADZ_OK);
    assert_memory_equal(out, want, n / 3 * sizeof *out);
    assert_true(out[n / 3] == -99);
    rz_pool_destroy(pool);
    free(out);
}

static void check_shape(const char *line)
{
    size_t w, h, edge, size, offset;
    int channels, pad;
    if (sscanf(line, "%zu %zu %d %d %zu %zu %zu", &w, &h, &channels, &pad, &edge, &size, &offset) != 7)
        fail_msg("preprocess.tsv: %s", line);
    const rz_preprocess_config cfg = config_of(edge, size, pad);
    rz_pixels film = noise_film(w, h, channels, 8);
    float *out = malloc(3 * size * size * sizeof *out);
    radz_error err;
    if (rz_preprocess(NULL, &cfg, size, &film, out, &err)) fail_msg("%s", err.message);
    same_with_threads(&cfg, size, &film, out);
    for (size_t i = 0; i < 3 * size * size; i++) {
        const float got = grey_level(out[i], i / (size * size));
        if (!(fabsf(got - golden[offset + i]) < .01f))
            fail_msg("%s: value %zu is %d / 1000, transformers has %d", line, i, (int)(1000 * got), golden[offset + i]);
    }
    free(out);
    rz_pixels_free(NULL, &film);
}

static void test_equals_transformers(void **state)
{
    (void)state;
    size_t n;
    golden = (uint8_t *)fixture_read(DIR "/preprocess.bin", &n);
    for_lines("preprocess.tsv", 16, check_shape);
    free(golden);
}

static void check_resize(const char *line)
{
    size_t w, h, new_w, new_h, offset;
    int bits;
    if (sscanf(line, "%zu %zu %d %zu %zu %zu", &w, &h, &bits, &new_w, &new_h, &offset) != 6)
        fail_msg("resize.tsv: %s", line);
    rz_pixels film = noise_film(w, h, 1, bits), out;
    assert_int_equal(rz_resize_bicubic(NULL, &film, new_w, new_h, &out, NULL), RADZ_OK);
    assert_int_equal(out.width_px, new_w);
    assert_int_equal(out.height_px, new_h);
    for (size_t i = 0; i < new_w * new_h; i++) {
        const int want = golden[offset + 2 * i] | golden[offset + 2 * i + 1] << 8;
        const int got = bits == 8 ? ((uint8_t *)out.data)[i] : ((uint16_t *)out.data)[i];
        if (abs(got - want) > (bits == 16)) fail_msg("%s: pixel %zu is %d, PIL has %d", line, i, got, want);
    }
    rz_pixels_free(NULL, &film);
    rz_pixels_free(NULL, &out);
}

static void test_resize_equals_pil(void **state)
{
    (void)state;
    size_t n;
    golden = (uint8_t *)fixture_read(DIR "/resize.bin", &n);
    for_lines("resize.tsv", 5, check_resize);
    free(golden);
}

/* ---- Against the plain way: pad, resize all of it, crop --------------------------------------------- */

static rz_pixels pad_plainly(const rz_pixels *film)
{
    const size_t side = film->width_px > film->height_px ? film->width_px : film->height_px;
    const size_t x0 = (side - film->width_px) / 2, y0 = (side - film->height_px) / 2;
    rz_pixels p;
    assert_int_equal(rz_pixels_alloc(NULL, side, side, 3, 8, "raw", "padded", &p, NULL), RADZ_OK);
    for (size_t i = 0; i < side * side; i++)
        for (size_t c = 0; c < 3; c++) {
            const size_t x = i % side - x0, y = i / side - y0; /* wraps below zero */
            const bool inside = x < film->width_px && y < film->height_px;
            ((uint8_t *)p.data)[3 * i + c] = inside ? (uint8_t)noise(x, y, c) : (uint8_t)(255 * clip.mean[c]);
        }
    return p;
}

static void check_plain(size_t w, size_t h, bool pad, size_t size)
{
    const rz_preprocess_config cfg = config_of(size, size, pad);
    rz_pixels film = noise_film(w, h, 3, 8), padded = {0}, all;
    const rz_pixels *from = &film;
    if (pad) {
        padded = pad_plainly(&film);
        from = &padded;
    }
    const size_t fw = from->width_px, fh = from->height_px;
    const size_t rw = fw <= fh ? size : size * fw / fh, rh = fw <= fh ? size * fh / fw : size;
    float *out = malloc(3 * size * size * sizeof *out);
    assert_int_equal(rz_preprocess(NULL, &cfg, size, &film, out, NULL), RADZ_OK);
    assert_int_equal(rz_resize_bicubic(NULL, from, rw, rh, &all, NULL), RADZ_OK);
    for (size_t i = 0; i < 3 * size * size; i++) {
        const size_t c = i / size / size, y = i / size % size + (rh - size) / 2, x = i % size + (rw - size) / 2;
        const int want = ((uint8_t *)all.data)[(y * rw + x) * 3 + c];
        if (fabsf(grey_level(out[i], c) - (float)want) > .01f) fail_msg("%zu x %zu: value %zu", w, h, i);
    }
    free(out);
    rz_pixels_free(NULL, &film);
    rz_pixels_free(NULL, &padded);
    rz_pixels_free(NULL, &all);
}

static void test_shortcuts_change_nothing(void **state)
{
    (void)state;
    for (int pad = 0; pad < 2; pad++) {
        check_plain(700, 90, pad, 40);
        check_plain(90, 700, pad, 40);
        check_plain(300, 301, pad, 57);
        check_plain(9, 200, pad, 33);
        check_plain(200, 9, pad, 33);
        check_plain(2, 700, pad, 16);
    }
}

/* Resized whole, the first would be 336 x 22 million pixels; padded, both would be 65500 x 65500. */
static void test_long_strips_are_cheap(void **state)
{
    (void)state;
    static float out[3 * 336 * 336];
    for (int turn = 0; turn < 4; turn++) {
        const rz_preprocess_config cfg = config_of(336, 336, turn & 1);
        rz_pixels film = noise_film(turn & 2 ? 1 : 65500, turn & 2 ? 65500 : 1, 1, 8);
        radz_error err;
        if (rz_preprocess(NULL, &cfg, 336, &film, out, &err)) fail_msg("%s", err.message);
        for (size_t i = 0; i < RZ_COUNT(out); i++) assert_true(isfinite(out[i]));
        rz_pixels_free(NULL, &film);
    }
}

/* ---- Depth, channels, errors ---------------------------------------------------------------------------- */

static void test_sixteen_bits_keep_their_depth(void **state)
{
    (void)state;
    static float deep[3 * 24 * 24], shallow[3 * 24 * 24];
    for (int pad = 0; pad < 2; pad++) {
        const rz_preprocess_config cfg = config_of(24, 24, pad);
        rz_pixels film8 = noise_film(61, 40, 1, 8), film16 = noise_film(61, 40, 1, 16);
        bool finer = false;
        for (size_t i = 0; i < 61 * 40; i++) ((uint16_t *)film16.data)[i] = ((uint8_t *)film8.data)[i] * 257;
        assert_int_equal(rz_preprocess(NULL, &cfg, 24, &film8, shallow, NULL), RADZ_OK);
        assert_int_equal(rz_preprocess(NULL, &cfg, 24, &film16, deep, NULL), RADZ_OK);
        for (size_t i = 0; i < RZ_COUNT(deep); i++) {
            const float level = grey_level(deep[i], i / (24 * 24));
            assert_true(fabsf(level - grey_level(shallow[i], i / (24 * 24))) < 1.5f);
            finer |= fabsf(level - roundf(level)) > .2f;
        }
        assert_true(finer);
        rz_pixels_free(NULL, &film8);
        rz_pixels_free(NULL, &film16);
    }
}

static void test_gray_is_rgb_with_equal_channels(void **state)
{
    (void)state;
    static float one[3 * 24 * 24], three[3 * 24 * 24];
    for (int pad = 0; pad < 2; pad++) {
        const rz_preprocess_config cfg = config_of(30, 24, pad);
        rz_pixels gray = noise_film(61, 90, 1, 8), rgb = noise_film(61, 90, 3, 8);
        for (size_t i = 0; i < 3 * 61 * 90; i++) ((uint8_t *)rgb.data)[i] = ((uint8_t *)gray.data)[i / 3];
        assert_int_equal(rz_preprocess(NULL, &cfg, 24, &gray, one, NULL), RADZ_OK);
        assert_int_equal(rz_preprocess(NULL, &cfg, 24, &rgb, three, NULL), RADZ_OK);
        assert_memory_equal(one, three, sizeof one);
        assert_true(rz_preprocess_is_gray(&cfg, &gray) == !pad); /* CLIP's padding is of a colour */
        assert_false(rz_preprocess_is_gray(&cfg, &rgb));
        rz_pixels_free(NULL, &gray);
        rz_pixels_free(NULL, &rgb);
    }
}

static void test_no_resize_and_no_crop(void **state)
{
    (void)state;
    static float out[3 * 24 * 24];
    rz_preprocess_config cfg = config_of(24, 24, false);
    rz_pixels film = noise_film(24, 24, 3, 8);
    cfg.resize = cfg.crop = false;
    assert_int_equal(rz_preprocess(NULL, &cfg, 24, &film, out, NULL), RADZ_OK);
    for (size_t i = 0; i < RZ_COUNT(out); i++) {
        const size_t c = i / 24 / 24;
        const float want = ((float)noise(i % 24, i / 24 % 24, c) / 255 - clip.mean[c]) / clip.std[c];
        assert_true(fabsf(out[i] - want) < 1e-5f);
    }
    rz_pixels_free(NULL, &film);
}

static void test_wrong_sizes_are_refused(void **state)
{
    (void)state;
    static float out[3 * 24 * 24];
    rz_pixels film = noise_film(30, 20, 1, 8);
    radz_error err;
    rz_preprocess_config cfg = config_of(24, 20, false);
    assert_int_equal(rz_preprocess(NULL, &cfg, 24, &film, out, &err), RADZ_E_MISMATCH);
    assert_non_null(strstr(err.message, "20 x 20"));
    assert_non_null(strstr(err.message, "24 x 24"));
    cfg = config_of(24, 24, false);
    cfg.crop = false;
    assert_int_equal(rz_preprocess(NULL, &cfg, 24, &film, out, NULL), RADZ_E_MISMATCH);
    cfg = config_of(0, 24, false);
    assert_int_equal(rz_preprocess(NULL, &cfg, 24, &film, out, NULL), RADZ_E_LIMIT);
    cfg = config_of(SIZE_MAX, 24, false);
    assert_int_equal(rz_preprocess(NULL, &cfg, 24, &film, out, NULL), RADZ_E_LIMIT);
    rz_pixels resized;
    assert_int_equal(rz_resize_bicubic(NULL, &film, 0, 5, &resized, NULL), RADZ_E_FORMAT);
    assert_int_equal(rz_resize_bicubic(NULL, &film, 65000, 65000, &resized, NULL), RADZ_E_LIMIT);
    rz_pixels_free(NULL, &film);
}

static radz_status preprocess_with(const rz_host *host, void *arg)
{
    static float out[3 * 24 * 24];
    const rz_preprocess_config cfg = config_of(24, 24, true);
    return rz_preprocess(host, &cfg, 24, arg, out, NULL);
}

static radz_status resize_with(const rz_host *host, void *arg)
{
    rz_pixels out;
    const radz_status status = rz_resize_bicubic(host, arg, 9, 31, &out, NULL);
    if (status == RADZ_OK) rz_pixels_free(host, &out);
    return status;
}

static void test_no_memory_is_an_error(void **state)
{
    (void)state;
    for (int bits = 8; bits <= 16; bits += 8) {
        rz_pixels film = noise_film(31, 20, 3, bits);
        failing_host_try_all(preprocess_with, &film);
        failing_host_try_all(resize_with, &film);
        rz_pixels_free(NULL, &film);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_transformers),           cmocka_unit_test(test_resize_equals_pil),
        cmocka_unit_test(test_shortcuts_change_nothing),      cmocka_unit_test(test_long_strips_are_cheap),
        cmocka_unit_test(test_sixteen_bits_keep_their_depth), cmocka_unit_test(test_gray_is_rgb_with_equal_channels),
        cmocka_unit_test(test_no_resize_and_no_crop),         cmocka_unit_test(test_wrong_sizes_are_refused),
        cmocka_unit_test(test_no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
