/* formats.h - bytes <-> memory. Everything in this folder reads untrusted input: sizes are checked
 * before memory is asked for, nothing is trusted twice, every refusal says what, where and what was
 * expected. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_FORMATS_H
#define RZ_FORMATS_H

#include "base.h"

/* ---- JSON (json.c): jansson with our allocator's limits and error grammar ------------- */

#include <jansson.h>
/* Parses UTF-8 text; duplicate keys, NaN literals, trailing text, depth over 64 and NUL are refused. `what` begins
 * the message (a path). The caller frees with json_decref. */
radz_status rz_json_parse(const char *text, size_t n, const char *what, json_t **out, radz_error *err) RZ_CHECK;
radz_status rz_json_load(const rz_host *host, const char *path, size_t max_bytes, json_t **out,
                         radz_error *err) RZ_CHECK;
/* Typed members. A key that is absent or null leaves *out untouched and is fine; of another type is RADZ_E_FORMAT:
 * "config.json: text_config.hidden_size: expected an integer in 1..65536, found a string". `where` names the object:
 * "config.json" for the whole file, "config.json: text_config" for what is inside. */
radz_status rz_json_int(const json_t *obj, const char *where, const char *key, int64_t min, int64_t max, int64_t *out,
                        radz_error *err) RZ_CHECK;
radz_status rz_json_double(const json_t *obj, const char *where, const char *key, double min, double max, double *out,
                           radz_error *err) RZ_CHECK;
radz_status rz_json_bool(const json_t *obj, const char *where, const char *key, bool *out, radz_error *err) RZ_CHECK;
/* *out points into obj. */
radz_status rz_json_string(const json_t *obj, const char *where, const char *key, const char **out,
                           radz_error *err) RZ_CHECK;

/* ---- safetensors (safetensors.c, safetensors_write.c) --------------------------------------- */

typedef struct rz_st_tensor {
    const char *name;
    char dtype[8]; /* "F32", "F16", "BF16", "I64", ... as written */
    size_t n_dims;
    uint64_t dims[8];
    size_t n_elements, n_bytes;
    const uint8_t *data; /* into the file; NOT necessarily aligned */
} rz_st_tensor;
/* A checked file: header parsed, spans in order without overlap, holes or trailing bytes, shape x dtype = span. */
typedef struct rz_st rz_st;
radz_status rz_st_open(const rz_host *host, const char *path, rz_file_mode mode, rz_st **st, radz_error *err) RZ_CHECK;
/* From memory that outlives the handle; `what` names it in messages. */
radz_status rz_st_parse(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_st **st,
                        radz_error *err) RZ_CHECK;
void rz_st_close(rz_st *st);
size_t rz_st_count(const rz_st *st);
const rz_st_tensor *rz_st_at(const rz_st *st, size_t i);           /* in file order */
const rz_st_tensor *rz_st_find(const rz_st *st, const char *name); /* NULL: not there. O(log n) or better */
const char *rz_st_metadata(const rz_st *st, const char *key);      /* NULL: not there */
size_t rz_st_metadata_count(const rz_st *st);
const char *rz_st_metadata_at(const rz_st *st, size_t i, const char **value); /* key, in file order */
/* The whole file's bytes, for hashing. */
const uint8_t *rz_st_bytes(const rz_st *st, size_t *n);
/* Of a mapped file: these bytes will be read soon; they have been, and their memory is wanted elsewhere (whoever reads
 * them again gets them from the disk). Else nothing. */
void rz_st_soon(const rz_st *st, const uint8_t *p, size_t n);
void rz_st_forget(const rz_st *st, const uint8_t *p, size_t n);

/* Writing. Readable by the Python package: data begins at a multiple of 64, tensors follow as declared; where that
 * would not align each to its element, those with wider elements first. What rz_st_parse would refuse is
 * RADZ_E_ARGUMENT. */
typedef struct rz_st_out {
    const char *name;
    const char *dtype; /* "F32", "F16", "BF16", "I32", "I64", "I8", "U8" */
    size_t n_dims;
    uint64_t dims[8];
    const void *data; /* host memory, dtype's bytes, little endian */
} rz_st_out;
radz_status rz_st_write(const rz_host *host, const char *path, const rz_st_out *tensors, size_t n,
                        const char *const *metadata /* key, value, key, value, ..., NULL; or NULL */,
                        radz_error *err) RZ_CHECK;
/* The same without having the numbers at once: the tensors' data is not looked at; put(user, i, w) writes the bytes of
 * tensors[i], no more and no fewer, when its turn comes. */
typedef radz_status (*rz_st_put)(void *user, size_t i, rz_writer *w, radz_error *err);
radz_status rz_st_write_with(const rz_host *host, const char *path, const rz_st_out *tensors, size_t n,
                             const char *const *metadata, rz_st_put put, void *user, radz_error *err) RZ_CHECK;
/* The bytes rz_st_write would write, into s. */
radz_status rz_st_encode(rz_str *s, const rz_st_out *tensors, size_t n, const char *const *metadata,
                         radz_error *err) RZ_CHECK;

/* ---- Quantised matrices (quantise.c) ---- *
 * "x" of dtype I8 (rows, cols), or U8 (rows, cols / 2): two to a byte, the even column in the low half, each plus 8.
 * Beside it "x_scale" (rows, groups), F32 or BF16: a number is its integer times the scale of its row and group of 128,
 * 64 or 32 columns, the last one of which may be short. */
typedef struct rz_quantised {
    const rz_st_tensor *q, *scale;
    int bits; /* 8 or 4 */
    size_t rows, cols, group;
} rz_quantised;
bool rz_st_is_quantised(const rz_st_tensor *t); /* its dtype says so */
/* scale NULL: the files have none, which is an error like any other that a file may have. */
radz_status rz_quantised_of(const rz_st_tensor *t, const rz_st_tensor *scale, rz_quantised *out,
                            radz_error *err) RZ_CHECK;
void rz_quantised_row(const rz_quantised *q, size_t row, float *out);
/* A row of n numbers (even with 4 bits) to integers and bfloat16 scales, one per group: NaN where a number of it is not
 * finite. */
void rz_quantise_row(const float *x, size_t n, int bits, size_t group, uint8_t *q, uint16_t *scale);
/* Its parts, for who rounds numbers one by one: the scale of a group in four bits, a number that bfloat16 holds, and
 * the integer of -8 .. 7 nearest to x / scale; 0 where there is none. */
float rz_quantise_scale4(const float *x, size_t n);
int rz_quantise_nibble(float x, float scale);

/* What stands before the numbers of a .npy file of little-endian float32 (rows, cols), C order. */
void rz_npy_header(rz_str *s, size_t rows, size_t cols);

/* ---- Numbers of two bytes (element.c) ---- */

float rz_bf16_to_f32(uint16_t v);
float rz_f16_to_f32(uint16_t v);
uint16_t rz_f32_to_bf16(float v); /* round to nearest even, NaN stays NaN */
uint16_t rz_f32_to_f16(float v);
/* dtype "F32" | "F16" | "BF16" (else RADZ_E_UNSUPPORTED naming the tensor) -> out[n_elements]. */
radz_status rz_st_to_f32(const rz_st_tensor *t, float *out, radz_error *err) RZ_CHECK;
/* Rows [first, first + n) of it, the first dimension's. */
radz_status rz_st_rows_f32(const rz_st_tensor *t, size_t first, size_t n, float *out, radz_error *err) RZ_CHECK;

/* ---- Tokenizer (tokenizer.c): tokenizer.model (tokenizer_spm.c) or tokenizer.json (tokenizer_json.c), by content ----
 */

typedef struct rz_tokenizer rz_tokenizer; /* immutable, shared by threads */
/* tokenizer.json: BPE of the byte-fallback and the byte-level kind, ids as the tokenizers package with
 * encode_special_tokens; what is not known is RADZ_E_UNSUPPORTED by name. rz_tokenizer_open also reads
 * tokenizer_config.json beside it (BOS, EOS). tokenizer.model: the protobuf of a SentencePiece model of type BPE:
 * pieces with scores and types, byte fallback, normaliser settings (add_dummy_prefix, remove_extra_whitespaces,
 * escape_whitespaces; charsmap "identity" or none, nfkc-like maps are RADZ_E_UNSUPPORTED by name), user-defined
 * symbols. */
radz_status rz_tokenizer_open(const rz_host *host, const char *path, rz_tokenizer **tok, radz_error *err) RZ_CHECK;
radz_status rz_tokenizer_parse(const rz_host *host, const uint8_t *bytes, size_t n, const char *what,
                               rz_tokenizer **tok, radz_error *err) RZ_CHECK;
void rz_tokenizer_close(rz_tokenizer *tok);
size_t rz_tokenizer_size(const rz_tokenizer *tok);
int32_t rz_tokenizer_bos(const rz_tokenizer *tok); /* -1: none */
int32_t rz_tokenizer_eos(const rz_tokenizer *tok);
/* sha256 of the file, 64 hex digits. */
const char *rz_tokenizer_hash(const rz_tokenizer *tok);
const char *rz_tokenizer_name(const rz_tokenizer *tok); /* "sentencepiece-bpe", "tokenizer.json": the kind of file */
/* Ids of text[0..n), equal to the sentencepiece package's encode (no BOS, no EOS); any bytes are accepted, invalid
 * UTF-8 as the reference treats it. Control pieces written in the text (<s>) are plain text. *ids is from
 * rz_malloc(host). Near-linear time in n; more than 64 MB are RADZ_E_LIMIT. */
radz_status rz_tokenizer_encode(const rz_tokenizer *tok, const char *text, size_t n, int32_t **ids, size_t *n_ids,
                                radz_error *err) RZ_CHECK;
/* Text of ids, as sentencepiece's decode; appended to s. */
radz_status rz_tokenizer_decode(const rz_tokenizer *tok, const int32_t *ids, size_t n, rz_str *s,
                                radz_error *err) RZ_CHECK;
/* The piece as written in the model ("_the" with U+2581); NULL when out of range. */
const char *rz_tokenizer_piece(const rz_tokenizer *tok, int32_t id);
/* The token that is written so, be it a control token; -1: none. */
int32_t rz_tokenizer_find(const rz_tokenizer *tok, const char *piece);
/* A control token, which is no part of a text: <s>, <|im_end|>. */
bool rz_tokenizer_is_control(const rz_tokenizer *tok, int32_t id);

/* ---- Images (image.c, pixels.c, png.c, jpeg.c, dicom*.c) --------------------------------------------------- */

#define RZ_IMAGE_MAX_PIXELS 100000000u
#define RZ_IMAGE_MAX_SIDE 65500u

typedef enum rz_shown { RZ_SHOWN_AS_IT_IS, RZ_SHOWN_VOI /* its own window or table */, RZ_SHOWN_RANGE } rz_shown;

/* Decoded film: interleaved samples, row after row, no padding. 16-bit samples in native byte order. Alpha is
 * dropped as PIL's convert("RGB") drops it, palettes expanded, gray below 8 bits scaled to 8. */
typedef struct rz_pixels {
    size_t width_px, height_px;
    int channels;       /* 1 gray or 3 RGB */
    int bits;           /* 8 or 16 */
    void *data;         /* uint8_t or uint16_t, from rz_malloc(host) */
    const char *format; /* "png", "jpeg", "dicom", "raw"; static */
    unsigned notes;     /* RZ_NOTE_...: what a DICOM file, or what is seen, speaks against using it */
    rz_shown shown;     /* of a gray DICOM film: what made its levels */
    bool signed_table;  /* of its VOI LUT the first number is signed */
    double low, high;   /* RZ_SHOWN_RANGE: its numbers that became black and white */
} rz_pixels;
/* Static texts stand for them, so that nothing of a file can get into a result with them. */
enum {
    RZ_NOTE_LATERAL = 1,
    RZ_NOTE_FOR_PROCESSING = 2,
    RZ_NOTE_BURNED_IN = 4,
    RZ_NOTE_MODALITY = 8,
    RZ_NOTE_BODY_PART = 16,
    RZ_NOTE_FRAMES = 32,
    RZ_NOTE_WINDOW = 64,
    RZ_NOTE_BLANK = 128, /* by rz_pixels_notes, as the next */
    RZ_NOTE_DARK = 256,
    RZ_NOTE_STRICT = 31, /* those that `strict` refuses */
};
const char *rz_note_text(size_t i); /* of bit i; NULL past the last */
/* RADZ_E_MISMATCH with the first text where the notes have one that `strict` refuses. */
radz_status rz_notes_check(unsigned notes, const char *what, radz_error *err) RZ_CHECK;
/* PNG, JPEG or DICOM by content; other known kinds (WEBP, TIFF, GIF, BMP, PDF) are RADZ_E_UNSUPPORTED by name, the
 * rest RADZ_E_FORMAT. `what` begins messages (a path or "memory"). EXIF orientation is applied. */
radz_status rz_pixels_decode(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_pixels *out,
                             radz_error *err) RZ_CHECK;
/* Room for a film of that shape, samples not set. The limits above are checked before memory is asked for. */
radz_status rz_pixels_alloc(const rz_host *host, size_t width_px, size_t height_px, int channels, int bits,
                            const char *format, const char *what, rz_pixels *out, radz_error *err) RZ_CHECK;
/* What the pixels say: RZ_NOTE_BLANK, RZ_NOTE_DARK. rz_pixels_decode has asked. */
unsigned rz_pixels_notes(const rz_pixels *p);
void rz_pixels_free(const rz_host *host, rz_pixels *p);
radz_status rz_png_decode(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_pixels *out,
                          radz_error *err) RZ_CHECK;
/* The film as a PNG file, appended to out; text: keyword, value, keyword, value, ..., NULL; or NULL. */
radz_status rz_png_encode(const rz_host *host, const rz_pixels *film, const char *const *text, rz_str *out,
                          radz_error *err) RZ_CHECK;
/* 8 bits, gray or RGB; quality 1..100; appended to out. */
radz_status rz_jpeg_encode(const rz_pixels *film, int quality, rz_str *out, radz_error *err) RZ_CHECK;
radz_status rz_jpeg_decode(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_pixels *out,
                           radz_error *err) RZ_CHECK;
/* A frame of a DICOM file: as it lies, its three components RGB or YCbCr, whatever its own markers say. */
radz_status rz_jpeg_decode_stored(const rz_host *host, const uint8_t *bytes, size_t n, bool is_rgb, const char *what,
                                  rz_pixels *out, radz_error *err) RZ_CHECK;
/* The first frame of a DICOM file, gray as it is to be shown (16 bits where more than 8 are stored or a window is
 * given), or in colour. */
radz_status rz_dicom_decode(const rz_host *host, const uint8_t *bytes, size_t n, const char *what, rz_pixels *out,
                            radz_error *err) RZ_CHECK;

/* ---- CSV (csv.c): RFC 4180 plus what people really send -------------------------------------------- */

/* A whole table: BOM skipped, CRLF or LF, quoted fields with doubled quotes and line breaks, ';' or tab as separator
 * when the header has no ',' but has them. Empty lines are skipped. A ragged row, NUL and invalid UTF-8 are
 * RADZ_E_FORMAT with their line number. */
typedef struct rz_csv rz_csv;
radz_status rz_csv_open(const rz_host *host, const char *path, size_t max_bytes, rz_csv **csv,
                        radz_error *err) RZ_CHECK;
/* Rows with too few or too many fields are told to `bad`, and left out; with NULL they are an error. */
typedef void (*rz_csv_bad)(void *user, size_t line, const char *why);
radz_status rz_csv_open_rows(const rz_host *host, const char *path, size_t max_bytes, rz_csv_bad bad, void *user,
                             rz_csv **csv, radz_error *err) RZ_CHECK;
radz_status rz_csv_parse(const rz_host *host, const char *text, size_t n, const char *what, rz_csv **csv,
                         radz_error *err) RZ_CHECK;
void rz_csv_close(rz_csv *csv);
size_t rz_csv_rows(const rz_csv *csv);                             /* without the header */
int rz_csv_column(const rz_csv *csv, const char *name);            /* -1: no such column */
const char *rz_csv_get(const rz_csv *csv, size_t row, int column); /* "" when column is -1; NUL-terminated */
size_t rz_csv_line(const rz_csv *csv, size_t row);                 /* line number in the file, from 1 */

#endif
