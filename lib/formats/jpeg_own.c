/* jpeg_own.c - the JPEG kinds of DICOM that libjpeg refuses: lossless (process 14, ITU T.81 Annex H) with 2 to 16 bits,
 * and sequential with 12 bits, gray. SPDX-License-Identifier: Apache-2.0 */
#include "dicom.h"

enum { MAX_COMPONENTS = 3, LOOK = 8 };

typedef struct table {
    bool set;
    uint8_t symbols[256];
    int32_t first[17]; /* code of a length that comes first */
    int32_t end[17];   /* one past the last code of that length; -1: none */
    int32_t at[17];    /* where its symbols begin */
} table;

typedef struct component {
    uint8_t id, dc, ac, quant;
} component;

typedef struct job {
    rz_frame *f;
    radz_error *err;
    const uint8_t *bytes;
    size_t n, at;
    uint32_t bits; /* the n_bits lowest are not used yet */
    int n_bits;
    bool ended; /* a marker was met; zeros follow */
    size_t n_missing;
    int sof; /* 0xc1 or 0xc3 */
    unsigned precision;
    component components[MAX_COMPONENTS];
    size_t n_components;
    size_t scan[MAX_COMPONENTS], n_scan; /* indices of the components in this scan */
    size_t n_seen;
    size_t restart; /* MCUs between restart markers; 0: none */
    unsigned predictor, shift;
    table dc[4], ac[4];
    bool quant_set[4];
    uint16_t quant[4][64];
} job;

static radz_status damaged(job *j, const char *why)
{
    return rz_frame_damaged(j->f, "JPEG", why, j->err);
}

/* ---- Bits ----------------------------------------------------------------------------------- */

static void fill(job *j)
{
    while (j->n_bits <= 24) {
        uint32_t byte = 0;
        if (!j->ended && j->at < j->n && j->bytes[j->at] != 0xff) {
            byte = j->bytes[j->at++];
        } else if (!j->ended && j->n - j->at >= 2 && j->bytes[j->at + 1] == 0) {
            byte = 0xff;
            j->at += 2;
        } else {
            j->ended = true;
            j->n_missing += 8;
        }
        j->bits = j->bits << 8 | byte;
        j->n_bits += 8;
    }
}

/* 0..16 bits; missing ones read as zeros and are noticed by is_short. */
static int32_t take_bits(job *j, int n)
{
    if (n == 0) return 0;
    if (j->n_bits < n) fill(j);
    j->n_bits -= n;
    return (int32_t)(j->bits >> j->n_bits & ((1u << n) - 1));
}

/* True when bits were used that were never there. */
static bool is_short(const job *j)
{
    return j->n_missing > (size_t)j->n_bits;
}

/* -1: no such code. */
static int take_symbol(job *j, const table *t)
{
    int32_t code = 0;
    for (int length = 1; length <= 16; length++) {
        code = code << 1 | take_bits(j, 1);
        if (t->end[length] >= 0 && code < t->end[length] && code >= t->first[length])
            return t->symbols[t->at[length] + code - t->first[length]];
    }
    return -1;
}

/* A difference of that many bits (T.81 F.2.2.1). */
static int32_t take_difference(job *j, int size)
{
    if (size == 16) return 32768;
    const int32_t v = take_bits(j, size);
    return size && v < 1 << (size - 1) ? v - (1 << size) + 1 : v;
}

/* Byte-aligns and steps over RSTn. */
static bool take_restart(job *j)
{
    j->n_bits = 0, j->bits = 0, j->n_missing = 0;
    j->ended = false;
    while (j->n - j->at >= 2 && j->bytes[j->at] == 0xff && j->bytes[j->at + 1] == 0xff) j->at++;
    if (j->n - j->at < 2 || j->bytes[j->at] != 0xff || (j->bytes[j->at + 1] & 0xf8) != 0xd0) return false;
    j->at += 2;
    return true;
}

/* ---- Segments ---------------------------------------------------------------------------------- */

static bool take_huffman(job *j, const uint8_t *p, size_t n)
{
    while (n >= 17) {
        const unsigned kind = p[0] >> 4, id = p[0] & 15;
        size_t count = 0;
        int32_t code = 0;
        if (kind > 1 || id > 3) return false;
        table *t = kind ? &j->ac[id] : &j->dc[id];
        for (int length = 1; length <= 16; length++, code <<= 1) {
            t->first[length] = code;
            t->at[length] = (int32_t)count;
            count += p[length];
            code += p[length];
            t->end[length] = p[length] ? code : -1;
            if (code > 1 << length) return false;
        }
        if (count > 256 || count > n - 17) return false;
        memcpy(t->symbols, p + 17, count);
        t->set = true;
        p += 17 + count, n -= 17 + count;
    }
    return n == 0;
}

static bool take_quant(job *j, const uint8_t *p, size_t n)
{
    while (n) {
        const unsigned wide = p[0] >> 4, id = p[0] & 15;
        if (wide > 1 || id > 3 || n < 65 + 64 * wide) return false;
        for (size_t i = 0; i < 64; i++)
            j->quant[id][i] = wide ? (uint16_t)(p[1 + 2 * i] << 8 | p[2 + 2 * i]) : p[1 + i];
        j->quant_set[id] = true;
        p += 65 + 64 * wide, n -= 65 + 64 * wide;
    }
    return true;
}

static radz_status take_frame(job *j, int marker, const uint8_t *p, size_t n)
{
    const rz_dicom_header *h = j->f->header;
    if (j->sof || n < 6 || n != 6 + 3u * p[5]) return damaged(j, "frame header");
    j->sof = marker;
    j->precision = p[0];
    j->n_components = p[5];
    if ((size_t)(p[1] << 8 | p[2]) != h->height || (size_t)(p[3] << 8 | p[4]) != h->width)
        return damaged(j, "another size than Rows and Columns");
    if (j->n_components != h->channels) return damaged(j, "another number of components than SamplesPerPixel");
    if (j->precision < 2 || j->precision > h->allocated || (marker != 0xc3 && j->precision != 12))
        return damaged(j, "number of bits");
    if (marker != 0xc3 && j->n_components != 1)
        return rz_fail(j->err, RADZ_E_UNSUPPORTED,
                       "%s: dicom: JPEG of 12 bits in colour; convert the file with: dcmdjpeg FILE NEW.dcm",
                       j->f->what);
    for (size_t i = 0; i < j->n_components; i++) {
        j->components[i] = (component){.id = p[6 + 3 * i], .quant = p[8 + 3 * i]};
        if (p[7 + 3 * i] != 0x11 && j->n_components > 1)
            return rz_fail(j->err, RADZ_E_UNSUPPORTED,
                           "%s: dicom: lossless JPEG with subsampling; convert the file with: dcmdjpeg FILE NEW.dcm",
                           j->f->what);
    }
    return RADZ_OK;
}

static bool take_scan(job *j, const uint8_t *p, size_t n)
{
    if (!j->sof || n < 1 || p[0] < 1 || p[0] > j->n_components || n != 4 + 2u * p[0]) return false;
    j->n_scan = p[0];
    for (size_t k = 0; k < j->n_scan; k++) {
        size_t i = 0;
        while (i < j->n_components && j->components[i].id != p[1 + 2 * k]) i++;
        if (i == j->n_components) return false;
        component *c = &j->components[i];
        c->dc = p[2 + 2 * k] >> 4, c->ac = p[2 + 2 * k] & 15;
        if (c->dc > 3 || c->ac > 3 || !j->dc[c->dc].set) return false;
        if (j->sof != 0xc3 && (!j->ac[c->ac].set || c->quant > 3 || !j->quant_set[c->quant])) return false;
        j->scan[k] = i;
    }
    const uint8_t *end = p + 1 + 2 * j->n_scan;
    j->predictor = end[0];
    j->shift = end[2] & 15;
    if (j->sof != 0xc3) return end[0] == 0 && end[2] == 0; /* some writers leave out the 63 between */
    return j->predictor >= 1 && j->predictor <= 7 && j->shift < j->precision;
}

/* ---- Lossless --------------------------------------------------------------------------------------- */

static int32_t predict(unsigned predictor, int32_t a, int32_t b, int32_t c)
{
    switch (predictor) {
    case 1:
        return a;
    case 2:
        return b;
    case 3:
        return c;
    case 4:
        return a + b - c;
    case 5:
        return a + ((b - c) >> 1);
    case 6:
        return b + ((a - c) >> 1);
    default:
        return (a + b) >> 1;
    }
}

/* One row; the first after a start has nothing above. */
static bool lossless_row(job *j, size_t y, bool is_first)
{
    const size_t width = j->f->header->width, step = j->n_components, stride = width * step;
    uint16_t *row = j->f->samples + y * stride;
    for (size_t x = 0; x < width; x++)
        for (size_t k = 0; k < j->n_scan; k++) {
            const size_t i = j->scan[k];
            uint16_t *p = row + x * step + i;
            const int size = take_symbol(j, &j->dc[j->components[i].dc]);
            if (size < 0 || size > 16) return false;
            const int32_t difference = take_difference(j, size);
            int32_t from;
            if (is_first)
                from = x ? p[-(ptrdiff_t)step] : 1 << (j->precision - j->shift - 1);
            else if (!x)
                from = p[-(ptrdiff_t)stride];
            else
                from =
                    predict(j->predictor, p[-(ptrdiff_t)step], p[-(ptrdiff_t)stride], p[-(ptrdiff_t)(stride + step)]);
            *p = (uint16_t)(from + difference);
        }
    return !is_short(j);
}

static radz_status lossless_scan(job *j)
{
    const size_t width = j->f->header->width, height = j->f->header->height, step = j->n_components;
    if (j->restart % width)
        return rz_fail(j->err, RADZ_E_UNSUPPORTED,
                       "%s: dicom: lossless JPEG with restarts inside of rows; convert the file with: dcmdjpeg FILE "
                       "NEW.dcm",
                       j->f->what);
    const size_t rows = j->restart / width;
    for (size_t y = 0; y < height; y++) {
        const bool starts = y && rows && y % rows == 0;
        if (starts && !take_restart(j)) return damaged(j, "a restart marker is missing");
        if (!lossless_row(j, y, !y || starts)) return damaged(j, "coded data");
    }
    if (j->shift)
        for (size_t k = 0; k < j->n_scan; k++)
            for (size_t i = j->scan[k]; i < width * height * step; i += step)
                j->f->samples[i] = (uint16_t)(j->f->samples[i] << j->shift);
    return RADZ_OK;
}

/* ---- Sequential, 12 bits ------------------------------------------------------------------------------ */

static const uint8_t zigzag[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                   12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                   35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                   58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

static bool take_block(job *j, const component *c, int32_t *dc, int64_t block[64])
{
    const uint16_t *quant = j->quant[c->quant];
    const int size = take_symbol(j, &j->dc[c->dc]);
    if (size < 0 || size > 15) return false;
    *dc += take_difference(j, size);
    if (*dc < -65536 || *dc > 65536) return false;
    memset(block, 0, 64 * sizeof *block);
    block[0] = (int64_t)*dc * quant[0];
    for (int k = 1; k < 64; k++) {
        const int code = take_symbol(j, &j->ac[c->ac]);
        if (code < 0) return false;
        if (code == 0) break;
        k += code >> 4;
        if ((code & 15) == 0 && code != 0xf0) return false;
        if (k > 63) return false;
        if (code & 15) block[zigzag[k]] = (int64_t)take_difference(j, code & 15) * quant[k];
    }
    return !is_short(j);
}

/* One dimension of the inverse transform after Loeffler, Ligtenberg and Moschytz, in fixed point of 13 bits, with the
 * rounding that the decoders of other DICOM tools have: a film of 12 bits must not look a level brighter here than
 * there. x[0], x[step], ... in place; `down`: bits that go away. */
static void inverse_row(int64_t *x, size_t step, int down)
{
    const int64_t x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x5 = x[5 * step], x6 = x[6 * step],
                  x7 = x[7 * step];
    const int64_t half = (int64_t)1 << (down - 1), turn = (x2 + x6) * 4433;
    const int64_t sum = (x[0] + x[4 * step]) * 8192, rest = (x[0] - x[4 * step]) * 8192;
    const int64_t low = turn + x2 * 6270, high = turn - x6 * 15137;
    const int64_t even[4] = {sum + low, rest + high, rest - high, sum - low};
    const int64_t all = (x7 + x3 + x5 + x1) * 9633;
    const int64_t a = (x7 + x1) * -7373, b = (x5 + x3) * -20995;
    const int64_t c = (x7 + x3) * -16069 + all, d = (x5 + x1) * -3196 + all;
    const int64_t odd[4] = {x1 * 12299 + a + d, x3 * 25172 + b + c, x5 * 16819 + b + d, x7 * 2446 + a + c};
    for (size_t i = 0; i < 4; i++) {
        x[i * step] = (even[i] + odd[i] + half) >> down;
        x[(7 - i) * step] = (even[i] - odd[i] + half) >> down;
    }
}

/* Columns keep one bit more than they need; rows take it away with the factor of 8 of the transform. */
static void inverse_dct(int64_t block[64])
{
    for (size_t i = 0; i < 8; i++) inverse_row(block + i, 8, 12);
    for (size_t i = 0; i < 8; i++) inverse_row(block + 8 * i, 1, 17);
}

static void put_block(job *j, size_t x0, size_t y0, const int64_t block[64])
{
    const size_t width = j->f->header->width, height = j->f->header->height;
    for (size_t y = y0; y < y0 + 8 && y < height; y++)
        for (size_t x = x0; x < x0 + 8 && x < width; x++) {
            const int64_t v = block[8 * (y - y0) + x - x0] + 2048;
            j->f->samples[y * width + x] = (uint16_t)(v < 0 ? 0 : v > 4095 ? 4095 : v);
        }
}

static radz_status sequential_scan(job *j)
{
    const component *c = &j->components[j->scan[0]];
    const size_t wide = (j->f->header->width + 7) / 8, high = (j->f->header->height + 7) / 8;
    int64_t block[64];
    int32_t dc = 0;
    for (size_t i = 0; i < wide * high; i++) {
        if (i && j->restart && i % j->restart == 0) {
            if (!take_restart(j)) return damaged(j, "a restart marker is missing");
            dc = 0;
        }
        if (!take_block(j, c, &dc, block)) return damaged(j, "coded data");
        inverse_dct(block);
        put_block(j, i % wide * 8, i / wide * 8, block);
    }
    return RADZ_OK;
}

/* ---- The whole -------------------------------------------------------------------------------------------- */

static radz_status take_segment(job *j, int marker, const uint8_t *p, size_t n)
{
    if (marker == 0xc4) return take_huffman(j, p, n) ? RADZ_OK : damaged(j, "Huffman table");
    if (marker == 0xdb) return take_quant(j, p, n) ? RADZ_OK : damaged(j, "quantisation table");
    if (marker == 0xc1 || marker == 0xc3) return take_frame(j, marker, p, n);
    if (marker == 0xdd) {
        if (n != 2) return damaged(j, "restart interval");
        j->restart = (size_t)(p[0] << 8 | p[1]);
        return RADZ_OK;
    }
    if (marker != 0xda) return RADZ_OK;
    if (!take_scan(j, p, n)) return damaged(j, "scan header");
    j->n_bits = 0, j->bits = 0, j->n_missing = 0;
    j->ended = false;
    j->n_seen += j->n_scan;
    return j->sof == 0xc3 ? lossless_scan(j) : sequential_scan(j);
}

/* *marker: the next one, with *n bytes of its segment at j->at. */
static bool next_segment(job *j, int *marker, size_t *n)
{
    while (j->at < j->n && j->bytes[j->at] != 0xff) j->at++;
    while (j->at < j->n && j->bytes[j->at] == 0xff) j->at++;
    if (j->at >= j->n) return false;
    *marker = j->bytes[j->at++];
    *n = 0;
    if (*marker == 0 || *marker == 1 || (*marker >= 0xd0 && *marker <= 0xd9)) return true;
    if (j->n - j->at < 2) return false;
    const size_t length = (size_t)(j->bytes[j->at] << 8 | j->bytes[j->at + 1]);
    if (length < 2 || length > j->n - j->at) return false;
    j->at += 2;
    *n = length - 2;
    return true;
}

radz_status rz_jpeg_own_decode(const uint8_t *bytes, size_t n, rz_frame *f, radz_error *err)
{
    job j = {.f = f, .err = err, .bytes = bytes, .n = n};
    const size_t n_samples = f->header->width * f->header->height * f->header->channels;
    int marker;
    size_t length;
    memset(f->samples, 0, n_samples * sizeof *f->samples);
    while (j.n_seen < f->header->channels) {
        if (!next_segment(&j, &marker, &length)) return damaged(&j, "the data end too early");
        const uint8_t *p = bytes + j.at;
        j.at += length;
        RZ_TRY(take_segment(&j, marker, p, length));
    }
    return RADZ_OK;
}

bool rz_jpeg_is_own(const uint8_t *bytes, size_t n)
{
    job j = {.bytes = bytes, .n = n};
    int marker;
    size_t length;
    while (next_segment(&j, &marker, &length) && marker != 0xda) {
        if (marker == 0xc3 || (marker == 0xc1 && length && bytes[j.at] > 8)) return true;
        j.at += length;
    }
    return false;
}
