/* Temporary folders, a tiny random model, films: shared by the tests.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <dirent.h>
#include <ftw.h>
#include <unistd.h>
#include <zlib.h>
#include <cmocka.h>

#include "fixture.h"
#include "model.h"

/* ---- Files ---- */

char *fixture_temp_dir(void)
{
    const char *root = getenv("TMPDIR");
    char *path = malloc(4096);
    assert_non_null(path);
    snprintf(path, 4096, "%s/radz-test-XXXXXX", root && *root ? root : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void fixture_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *fixture_path(const char *dir, const char *name)
{
    static char paths[8][4096];
    static unsigned next;
    char *p = paths[next++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", dir, name);
    return p;
}

void fixture_write(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f) fail_msg("cannot write %s", path);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

void fixture_write_text(const char *path, const char *text)
{
    fixture_write(path, text, strlen(text));
}

size_t fixture_count_files(const char *dir)
{
    size_t n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

char *fixture_read(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot read %s", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long size = ftell(f);
    rewind(f);
    char *bytes = malloc((size_t)size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)size, f), size);
    bytes[size] = 0;
    fclose(f);
    if (n) *n = (size_t)size;
    return bytes;
}

/* ---- A SentencePiece model, its protobuf written by hand ---- */

static void put_varint(rz_str *s, uint64_t v)
{
    for (; v > 0x7f; v >>= 7) rz_str_put(s, &(uint8_t){(uint8_t)(v | 0x80)}, 1);
    rz_str_put(s, &(uint8_t){(uint8_t)v}, 1);
}

static void put_bytes(rz_str *s, unsigned field, const void *bytes, size_t n)
{
    put_varint(s, field << 3 | 2);
    put_varint(s, n);
    rz_str_put(s, bytes, n);
}

static void put_int(rz_str *s, unsigned field, uint64_t v)
{
    put_varint(s, field << 3);
    put_varint(s, v);
}

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, BYTE = 6 };

static void put_piece(rz_str *model, const char *text, float score, int type)
{
    rz_str piece = {0};
    put_bytes(&piece, 1, text, strlen(text));
    put_varint(&piece, 2 << 3 | 5);
    rz_str_put(&piece, &score, 4);
    if (type != NORMAL) put_int(&piece, 3, (uint64_t)type);
    put_bytes(model, 1, piece.data, piece.len);
    rz_str_free(&piece);
}

static void put_pieces(rz_str *model)
{
    static const char *const merges[] = {
        "th", "he", "in", "is", "ch", "\xe2\x96\x81t", "\xe2\x96\x81the", "\xe2\x96\x81is"};
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:-?";
    char text[8];
    put_piece(model, "<unk>", 0, UNKNOWN);
    put_piece(model, "<s>", 0, CONTROL);
    put_piece(model, "</s>", 0, CONTROL);
    for (unsigned b = 0; b < 256; b++) {
        snprintf(text, sizeof text, "<0x%02X>", b);
        put_piece(model, text, 0, BYTE);
    }
    for (size_t i = 0; i < RZ_COUNT(merges); i++) put_piece(model, merges[i], -(float)i, NORMAL);
    put_piece(model, "\xe2\x96\x81", -100, NORMAL);
    for (size_t i = 0; letters[i]; i++) put_piece(model, (char[]){letters[i], 0}, -101 - (float)i, NORMAL);
}

static void write_tokenizer(const char *path)
{
    rz_str model = {0}, trainer = {0}, normalizer = {0};
    put_pieces(&model);
    put_int(&trainer, 3, 2);  /* BPE */
    put_int(&trainer, 35, 1); /* byte fallback */
    put_int(&trainer, 40, 0), put_int(&trainer, 41, 1), put_int(&trainer, 42, 2);
    put_bytes(&model, 2, trainer.data, trainer.len);
    put_bytes(&normalizer, 1, "identity", 8);
    put_int(&normalizer, 3, 1), put_int(&normalizer, 4, 0), put_int(&normalizer, 5, 1);
    put_bytes(&model, 3, normalizer.data, normalizer.len);
    assert_false(model.failed);
    fixture_write(path, model.data, model.len);
    rz_str_free(&model), rz_str_free(&trainer), rz_str_free(&normalizer);
}

/* ---- A model ---- */

static const char config[] =
    "{\"model_type\":\"llava\",\"image_token_index\":327,\"vision_feature_layer\":-2,"
    "\"vision_feature_select_strategy\":\"default\",\"projector_hidden_act\":\"gelu\",\"tie_word_embeddings\":false,"
    "\"text_config\":{\"model_type\":\"mistral\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":4,\"vocab_size\":328,"
    "\"max_position_embeddings\":512,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"sliding_window\":null},"
    "\"vision_config\":{\"model_type\":\"clip_vision_model\",\"hidden_size\":16,\"intermediate_size\":24,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"image_size\":16,\"patch_size\":8,"
    "\"hidden_act\":\"quick_gelu\"}}\n";
static const char preprocessor[] =
    "{\"do_resize\":true,\"size\":{\"shortest_edge\":16},\"resample\":3,\"do_center_crop\":true,"
    "\"crop_size\":{\"height\":16,\"width\":16},\"do_rescale\":true,\"rescale_factor\":0.00392156862745098,"
    "\"do_normalize\":true,\"image_mean\":[0.5,0.5,0.5],\"image_std\":[0.25,0.25,0.25]}\n";
static const char radz[] =
    "{\"schema\":\"radz.model/1\",\"special_tokens\":{\"image\":[\"<ImgCls0>\",\"<ImgCls1>\"],"
    "\"text\":[\"<TxtCls0>\",\"<TxtCls1>\"]},\"layer\":-2,\"gamma\":{\"type\":\"mlp\",\"hidden\":12,\"dim\":8},"
    "\"pool\":\"mean_then_mlp\",\"tau\":0.05,\"lambda\":0.5,\"prompts\":{\"image\":\"<image>\\nWhat is it?\","
    "\"text\":\"{text}\\nWhat is it?\",\"labels\":\"This is a chest X-ray showing {labels}.\"}}\n";

void fixture_model_files(const char *dir)
{
    fixture_write_text(fixture_path(dir, "config.json"), config);
    fixture_write_text(fixture_path(dir, "preprocessor_config.json"), preprocessor);
    fixture_write_text(fixture_path(dir, "radz.json"), radz);
    write_tokenizer(fixture_path(dir, "tokenizer.model"));
}

static void good(radz_status status, const radz_error *err)
{
    if (status != RADZ_OK) fail_msg("%s", err->message);
}

void fixture_model(const char *dir, uint64_t seed)
{
    fixture_model_files(dir);
    fixture_weights(dir, seed);
}

void fixture_weights(const char *dir, uint64_t seed)
{
    radz_error err;
    rz_device *dev;
    rz_model *model;
    rz_device_options cpu = {.device = "cpu", .n_threads = 1};
    good(rz_device_open(NULL, &cpu, &dev, &err), &err);
    good(rz_model_load(NULL, dev, dir, RZ_MODEL_INIT, seed, &model, &err), &err);
    good(rz_model_save(model, dir, "F32", NULL, &err), &err);
    rz_model_unload(model);
    rz_device_close(dev);
}

static void replace_all(const char *path, const char *from, const char *to)
{
    char *text = fixture_read(path, NULL);
    for (char *at; (at = strstr(text, from));) {
        char *other = calloc(1, strlen(text) + strlen(to) + 1);
        assert_non_null(other);
        memcpy(other, text, (size_t)(at - text));
        strcat(strcat(other, to), at + strlen(from));
        free(text);
        text = other;
    }
    fixture_write_text(path, text);
    free(text);
}

void fixture_wide_model(const char *dir, uint64_t seed)
{
    fixture_model_files(dir);
    replace_all(fixture_path(dir, "config.json"), "\"intermediate_size\":24", "\"intermediate_size\":3000");
    fixture_weights(dir, seed);
}

/* ---- Films ---- */

static void put_be32(rz_str *s, size_t v)
{
    uint8_t b[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    rz_str_put(s, b, 4);
}

static void put_chunk(rz_str *s, const char *type, const void *bytes, size_t n)
{
    put_be32(s, n);
    size_t start = s->len;
    rz_str_puts(s, type);
    rz_str_put(s, bytes, n);
    put_be32(s, crc32(0, (const uint8_t *)s->data + start, (uInt)(n + 4)));
}

/* Rows with their filter byte: a gradient with blobs of noise, so that films differ from each other. */
static uint8_t *film_rows(size_t width, size_t height, int channels, uint64_t seed, size_t *n)
{
    const size_t row = 1 + width * (size_t)channels;
    uint8_t *rows = calloc(height, row);
    assert_non_null(rows);
    rz_rng rng;
    rz_rng_seed(&rng, seed, 0);
    double a = rz_rng_uniform(&rng), b = rz_rng_uniform(&rng), f = 1 + 9 * rz_rng_uniform(&rng);
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++)
            for (int c = 0; c < channels; c++) {
                double u = (double)x / (double)width, v = (double)y / (double)height;
                double value = 0.5 + 0.3 * sin(f * (u + a * c)) * cos(f * (v + b)) + 0.1 * rz_rng_uniform(&rng);
                rows[y * row + 1 + x * (size_t)channels + (size_t)c] = (uint8_t)(255 * value);
            }
    *n = row * height;
    return rows;
}

uint8_t *fixture_png_bytes(size_t width, size_t height, int channels, uint64_t seed, size_t *n)
{
    size_t n_rows;
    uint8_t *rows = film_rows(width, height, channels, seed, &n_rows);
    uLongf packed = compressBound(n_rows);
    uint8_t *data = malloc(packed);
    assert_non_null(data);
    assert_int_equal(compress(data, &packed, rows, n_rows), Z_OK);
    rz_str header = {0}, png = {0};
    put_be32(&header, width);
    put_be32(&header, height);
    rz_str_put(&header, (uint8_t[]){8, channels == 3 ? 2 : 0, 0, 0, 0}, 5);
    rz_str_put(&png, "\x89PNG\r\n\x1a\n", 8);
    put_chunk(&png, "IHDR", header.data, header.len);
    put_chunk(&png, "IDAT", data, packed);
    put_chunk(&png, "IEND", "", 0);
    assert_false(png.failed);
    rz_str_free(&header);
    free(data);
    free(rows);
    *n = png.len;
    return (uint8_t *)png.data;
}

void fixture_png(const char *path, size_t width, size_t height, int channels, uint64_t seed)
{
    size_t n;
    uint8_t *bytes = fixture_png_bytes(width, height, channels, seed, &n);
    fixture_write(path, bytes, n);
    free(bytes);
}

/* ---- Devices and programs ---- */

const char *fixture_device(void)
{
    const char *name = getenv("RADZ_TEST_DEVICE");
    return name && *name ? name : "cpu";
}

bool fixture_quick(void)
{
    return getenv("RADZ_TEST_QUICK") != NULL;
}

bool fixture_on_cpu(void)
{
    return strcmp(fixture_device(), "cpu") == 0;
}

const char *fixture_program(const char *name)
{
    static char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 256);
    assert_true(n > 0);
    path[n] = 0;
    for (int up = 0; up < 2; up++) *strrchr(path, '/') = 0; /* build/<flavour>/tests/test_x */
    size_t len = strlen(path);
    snprintf(path + len, sizeof path - len, "/bin/%s", name);
    return path;
}
