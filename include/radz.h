/* radz.h - zero-shot recognition of findings on chest X-rays with a multimodal
 * language model (the method of the paper "LLaVA-RadZ").
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * RESEARCH USE ONLY. NOT FOR DIAGNOSIS.
 *
 * A whole program
 * ---------------
 *
 *     #include <radz.h>
 *     #include <stdio.h>
 *
 *     int main(int argc, char **argv)
 *     {
 *         radz_error err;
 *         radz_model *model; radz_session *session; radz_result *result = NULL;
 *         if (argc != 3) return 2;
 *         if (radz_model_open(NULL, argv[1], NULL, &model, &err) ||
 *             radz_session_open(model, NULL, &session, &err) ||
 *             radz_classify_file(session, NULL, argv[2], &result, &err))
 *             return fprintf(stderr, "%s\n", err.message), 1;
 *         for (size_t i = 0; i < radz_result_count(result); i++)
 *             printf("%-24s %.3f\n", radz_result_label(result, i), radz_result_probability(result, i));
 *         radz_result_close(result); radz_session_close(session); radz_model_close(model);
 *     }
 *
 * Order of this header: version; status and errors; runtime; model; session;
 * images; embeddings; anchor bank; classification and results; heat maps; DICOM;
 * scores; metrics; writing; other methods; evaluation; training.
 *
 * Rules that hold for every function
 * ----------------------------------
 * Errors.    A function that can fail returns radz_status (RADZ_OK is 0) and takes
 *            a caller-owned radz_error, which may be NULL. Nothing is sticky: no
 *            global and no thread-local error state. The message is one line:
 *            what, where, what was expected. It never holds pixels or file content.
 *            On failure every output handle is set to NULL and every output float
 *            to NaN (a 0.0 would read as "normal"); the handles passed in stay usable.
 *            Functions that return a value and no status take NULL for a handle and
 *            any index: they answer 0, NULL or NaN.
 * Ownership. Every radz_x that a function gives out is the caller's, who releases it with
 *            radz_x_close, which accepts NULL. Handles may be closed in any order: a
 *            session keeps its model alive, a model its runtime. Pointers that a handle
 *            answers with (texts, pixels, anchors) belong to it and live as long as it
 *            does. What is passed in stays the caller's and is not needed after the call;
 *            but hooks, callbacks and their `user` live as long as the handle made with them.
 * Threads.   radz_runtime, radz_model, radz_bank, radz_image, radz_result, radz_scorer and
 *            radz_dicom are immutable once made and may be shared by any number of
 *            threads. radz_session and radz_trainer belong to one thread at a time: make
 *            one session per thread. Closing a handle is the last use of it by any thread.
 * Callbacks. Run on the thread that made the call, before it returns; but memory and log
 *            hooks on any thread. They must not throw or longjmp through the library.
 * Fork.      A handle made before fork() answers RADZ_E_STATE in the child, where closing
 *            it does nothing.
 * Host.      The library never exits, prints, installs signal handlers or changes the
 *            locale, the FPU state, the working directory or the environment.
 * Options.   Options structs start with `struct_size`; fill them with their
 *            radz_x_options_init macro, then change what you need. NULL options mean
 *            the defaults. Structs grow at the end only; so does radz_model_info, which the
 *            library fills. The macro tells the library how long the caller's struct is: a
 *            program built against an older header runs with a newer library.
 * Strings.   UTF-8, NUL-terminated, paths as the operating system has them.
 *
 * "Since" is 0.1 unless a declaration says otherwise.
 */
#ifndef RADZ_H
#define RADZ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) || defined(__clang__)
#define RADZ_API __attribute__((visibility("default")))
#define RADZ_CHECK __attribute__((warn_unused_result))
#else
#define RADZ_API
#define RADZ_CHECK
#endif

/* ---- Version --------------------------------------------------------------- */

#define RADZ_VERSION_MAJOR 0
#define RADZ_VERSION_MINOR 1
#define RADZ_VERSION_PATCH 0

/* Version of the library that is loaded, such as "0.1.0". Static storage. */
RADZ_API const char *radz_version(void);

/* The sentence every result carries: research use only. Static storage. */
RADZ_API const char *radz_disclaimer(void);

/* ---- Status and errors ----------------------------------------------------- */

/* Numbers are part of the ABI: new ones are added at the end. */
typedef enum radz_status {
    RADZ_OK = 0,
    RADZ_E_ARGUMENT = 1,    /* the caller passed something this function does not take */
    RADZ_E_MEMORY = 2,      /* an allocation failed */
    RADZ_E_IO = 3,          /* the operating system refused to open, read or write */
    RADZ_E_FORMAT = 4,      /* a file or buffer is not what it says it is */
    RADZ_E_UNSUPPORTED = 5, /* valid, but this build or version cannot do it */
    RADZ_E_LIMIT = 6,       /* larger than a stated limit; nothing was allocated */
    RADZ_E_MISMATCH = 7,    /* two things do not belong together (bank and model, config and weights) */
    RADZ_E_DEVICE = 8,      /* the compute device or its libraries are missing or failed */
    RADZ_E_CANCELLED = 9,   /* a callback asked to stop */
    RADZ_E_STATE = 10,      /* the handle cannot do this now (used after fork(), say) */
    RADZ_E_INTERNAL = 11    /* a defect of libradz: please report it */
} radz_status;

/* Short stable name, "format" for RADZ_E_FORMAT, as used in JSON; "unknown" for
 * other numbers. Static storage. */
RADZ_API const char *radz_status_name(radz_status status);

/* Filled on failure only; message is always NUL-terminated, without a newline. */
typedef struct radz_error {
    radz_status code;
    char message[508];
} radz_error;

/* ---- Runtime: device, threads, memory, log --------------------------------- */

typedef struct radz_runtime radz_runtime;

typedef enum radz_log_level { RADZ_LOG_DEBUG = 0, RADZ_LOG_INFO = 1, RADZ_LOG_WARNING = 2 } radz_log_level;

typedef struct radz_runtime_options {
    size_t struct_size;
    /* "auto" (default): an NVIDIA GPU where there is one that can be used, for every model that fits into its memory;
     * else the CPU (the log says why). "cpu". "cuda": the first GPU, and nothing else will do; "cuda:1": the second. A
     * GPU wants a library built where nvcc was, a driver for that CUDA, compute capability 7.5, and cuBLAS
     * (libcublas.so.13 or .12, found by the dynamic linker or in /usr/local/cuda/lib64). Kernels or gemm by name: the
     * CPU. */
    const char *device;
    const char *kernels; /* CPU kernel set: "auto" (default), "portable", "avx2", "avx512" */
    const char *gemm;    /* CPU matrix product: "auto" (default: own), "own", "openblas" */
    int n_threads;       /* worker threads incl. the caller; 0 (default) = online cores; at most 1024 */
    /* Memory hooks; all three or none. `realloc_fn(NULL, n)` allocates. Must be thread-safe. */
    void *(*malloc_fn)(size_t n_bytes, void *user);
    void *(*realloc_fn)(void *p, size_t n_bytes, void *user);
    void (*free_fn)(void *p, void *user);
    /* Log hook; may be called from any thread. NULL (default): silence. */
    void (*log_fn)(radz_log_level level, const char *message, void *user);
    void *user;
} radz_runtime_options;

RADZ_API void radz_runtime_options_init_sized(radz_runtime_options *options, size_t struct_size);
#define radz_runtime_options_init(options) radz_runtime_options_init_sized((options), sizeof *(options))

/* Starts the worker threads and picks the device and its kernels, once. */
RADZ_API RADZ_CHECK radz_status radz_runtime_create(const radz_runtime_options *options, radz_runtime **runtime,
                                                    radz_error *err);
RADZ_API void radz_runtime_close(radz_runtime *runtime);

/* What runs the network, for people and logs: "cpu (avx2, own gemm, 2 threads)". */
RADZ_API const char *radz_runtime_device(const radz_runtime *runtime);
/* The CPU kernel set in use: "portable", "avx2", "avx512"; "cuda" on a GPU. */
RADZ_API const char *radz_runtime_kernels(const radz_runtime *runtime);
/* Which matrix product each type of weights gets, for people and logs, with its tile (rows x columns):
 * "f32 avx512 vfmadd 12x32, bf16 avx512 vdpbf16ps 12x32, int8 avx512 vpdpbusd 6x32, int4 ..."; bf16: where weights are
 * asked for in it, see radz_model_options.weights. */
RADZ_API const char *radz_runtime_products(const radz_runtime *runtime);
/* The i-th kernel set that this CPU can run, best first; NULL past the last. Static storage. */
RADZ_API const char *radz_kernels_available(size_t i);

/* ---- Model ------------------------------------------------------------------ */

/* A Hugging Face directory of the LLaVA family: config.json, *.safetensors,
 * tokenizer.model (or tokenizer.json), preprocessor_config.json (or the
 * processor_config.json of transformers 5), and, where the model has been trained
 * as a LLaVA-RadZ, radz.json + radz.safetensors (special-token rows, heads, tau)
 * and anchors.safetensors (its own anchor bank). Weights are mapped, not copied. */
typedef struct radz_model radz_model;

/* LLaVA-Med's own code takes the vision tower from OpenAI's CLIP, a conversion the one inside the checkpoint. Every
 * result says which it was: provenance "tower" is "checkpoint" or "external". */
typedef enum radz_vision_source {
    RADZ_VISION_AUTO = 0, /* vision_dir where it is given; else the checkpoint's where it has one; else external */
    RADZ_VISION_CHECKPOINT = 1, /* the tower inside the checkpoint */
    RADZ_VISION_EXTERNAL = 2    /* vision_dir; NULL: the directory that config.json's mm_vision_tower names, relative to
                                   the model's, or vision_tower/ in it */
} radz_vision_source;

typedef struct radz_model_options {
    size_t struct_size;
    int use_mmap; /* 1 (default): map the weights; 0: read them (a file truncated later cannot hurt) */
    radz_vision_source vision_source;
    const char *vision_dir;  /* directory of a CLIP model: config.json and *.safetensors; NULL: none */
    const char *adapter_dir; /* directory of a PEFT LoRA adapter, merged into the weights; NULL: none */
    /* Numbers of the weights. NULL (default): as the files have them, products exact to float. "f32"; "bf16": products
     * of bfloat16 too; "int8", "int4", also "int8/64" or "int8/32": symmetric integers with a scale per row and group
     * of 128, 64 or 32 columns. On a GPU that multiplies bfloat16, "bf16" and integers also round what lies between two
     * products of a block to bfloat16 (the sum along the blocks stays float); heat maps and generated text do not. What
     * the files have otherwise is converted in memory, by all threads: for a start without that, see
     * radz_model_quantize. Integers of the files become no other integers (RADZ_E_MISMATCH). */
    const char *weights;
    /* Matrices that `weights` leaves as stored: a list with commas of parts ("embeddings", "tower", "projector",
     * "lm_head", "heads", "first", "last": that decoder block of those a vector depends on) and patterns of Hugging
     * Face names with '*' ("language_model.model.layers.*.down_proj.weight"). With "int4" a word may end in "=int8"
     * ("first=int8"): those become int8. The first word that fits decides. NULL (default): what has been measured to
     * matter for the type; "": nothing. Vectors (norms, biases), the special tokens' rows and tables of positions
     * always stay. */
    const char *keep_weights;
    /* 0 (default): the weights stay in memory. Else a model larger than memory runs in about so many bytes, library,
     * weights and scratch of one session together: big matrices are read from the files while others are at work. The
     * same bits, as fast as the disk allows. Weights must be in the files as they are used: `weights` may ask for
     * nothing but "bf16" of bf16 or integers, no adapter (RADZ_E_UNSUPPORTED, see radz_model_quantize). Too few bytes
     * is RADZ_E_LIMIT, with how many it takes. A file that fails or changes under way is RADZ_E_IO from the call. Of
     * the CPU alone: a GPU holds all weights (RADZ_E_UNSUPPORTED). */
    uint64_t memory_bytes;
} radz_model_options;

RADZ_API void radz_model_options_init_sized(radz_model_options *options, size_t struct_size);
#define radz_model_options_init(options) radz_model_options_init_sized((options), sizeof *(options))

/* `runtime` NULL: a private one with default options. */
RADZ_API RADZ_CHECK radz_status radz_model_open(radz_runtime *runtime, const char *dir,
                                                const radz_model_options *options, radz_model **model, radz_error *err);
RADZ_API void radz_model_close(radz_model *model);

RADZ_API size_t radz_model_embedding_dim(const radz_model *model); /* K, floats per vector */
/* sha256, 64 hex digits, over everything that changes a vector: settings, tokenizer, adapter, `weights` as asked for,
 * and the weight files: all bytes of those up to 32 MiB, of larger ones the header and three samples of every tensor.
 */
RADZ_API const char *radz_model_hash(const radz_model *model);
/* The same of the model that these weights were made from, by `weights` or radz_model_quantize; its own hash where
 * there is none. A bank made by any member of a family may be used with any other; results then say so in their
 * provenance. */
RADZ_API const char *radz_model_family(const radz_model *model);
RADZ_API const char *radz_model_name(const radz_model *model);   /* last component of the directory */
RADZ_API const char *radz_model_device(const radz_model *model); /* as radz_runtime_device; what runs this model */

/* What a model is. Texts belong to the model. Layers are indices as in radz_embed_options. */
typedef struct radz_model_info {
    size_t struct_size;
    const char *dtype;          /* of most weights: "f32", "f16", "bf16", "int8", "int4" */
    const char *tower_source;   /* where the vision tower's weights come from: "model", a directory; NULL: no tower */
    const char *tokenizer;      /* "sentencepiece-bpe", "tokenizer.json"; NULL: none */
    const char *tokenizer_hash; /* sha256, 64 hex digits; NULL: none */
    const char *missing;        /* what it lacks to read films as a trained LLaVA-RadZ, in a few words; NULL: nothing */
    const char *unused_tensor;  /* the first tensor of the files that the network has no place for; NULL: none */
    size_t n_unused_tensors;
    uint64_t n_parameters; /* numbers in all weights in use */
    uint64_t file_bytes;   /* of the weight files */
    uint64_t weight_bytes; /* memory of the weights: mapped, shared with other processes, or read */
    uint64_t film_bytes;   /* memory a session needs for one film, about; a text of n rows needs less */
    size_t vision_hidden, vision_intermediate, vision_layers, vision_heads; /* 0 where there is no tower */
    size_t image_size_px, patch_px;
    size_t image_rows; /* rows that a film takes in the decoder */
    size_t text_hidden, text_intermediate, text_layers, text_heads, text_kv_heads, head_dim;
    size_t vocab, max_positions;
    size_t window;                        /* sliding window, rows; 0: none */
    size_t embedding_dim;                 /* K */
    size_t n_image_tokens, n_text_tokens; /* special tokens; 0: not trained as a LLaVA-RadZ */
    int layer, feature_layer;             /* of the decoder (Eq. 3); of the tower, the first where it takes several */
    double tau;                           /* temperature */
    const char *adapter;                  /* directory of the PEFT adapter; NULL: none */
    const char *adapter_hash;             /* sha256 of its config and weights, 64 hex digits; NULL: none */
    size_t adapter_rank;                  /* r of its config; single modules may have others */
    size_t n_head_classes;                /* of the linear head that radz_classify uses; 0: it has none */
    const char *weights; /* what options.weights made of them, "int8, groups of 128; as stored: ..."; NULL: as the files
                            have them */
    uint64_t streamed_bytes; /* of weight_bytes, what a film's pass reads from the files (memory_bytes); 0: resident */
    uint64_t peak_bytes;     /* memory of a process that reads films one by one, all in all, about */
} radz_model_info;

RADZ_API void radz_model_info_init_sized(radz_model_info *info, size_t struct_size);
#define radz_model_info_init(info) radz_model_info_init_sized((info), sizeof *(info))
/* Fills as much of the struct as info->struct_size says the caller knows; the rest of a longer one becomes zero. */
RADZ_API RADZ_CHECK radz_status radz_model_get_info(const radz_model *model, radz_model_info *info, radz_error *err);

/* Name of the i-th of info.n_unused_tensors, in the order of the files; NULL past the last. */
RADZ_API const char *radz_model_unused_tensor(const radz_model *model, size_t i);

/* What radz_model_quantize has done. Texts live during the call only. */
typedef struct radz_quantize_progress {
    size_t struct_size;
    const char *file;               /* that is being written */
    uint64_t n_done_bytes, n_bytes; /* of the model's weights read so far, and in all */
    uint64_t n_reused_bytes;        /* of n_done_bytes, what an earlier run had left */
    double seconds_left;            /* NaN: not known yet */
} radz_quantize_progress;

typedef struct radz_quantize_options {
    size_t struct_size;
    const char *type;                     /* "int8" (default), "int4", also "int4/32"; "bf16" */
    const char *keep;                     /* as radz_model_options.keep_weights */
    const char *vision_dir, *adapter_dir; /* as in radz_model_options: the adapter is added in; NULL: none */
    radz_vision_source vision_source;
    /* Called every few MB; non-zero stops with RADZ_E_CANCELLED. */
    int (*progress_fn)(const radz_quantize_progress *progress, void *user);
    void *user;
    /* Of "int4": files of films like those to come, and texts (in radz.json's prompt) like those that will be asked
     * for. They are sent through the model, and every matrix that becomes four bits is rounded for the rows that reach
     * it: vectors like theirs come out closer, others may not. NULL, 0: every number for itself. */
    const char *const *films;
    size_t n_films;
    const char *const *texts;
    size_t n_texts;
} radz_quantize_options;

RADZ_API void radz_quantize_options_init_sized(radz_quantize_options *options, size_t struct_size);
#define radz_quantize_options_init(options) radz_quantize_options_init_sized((options), sizeof *(options))
/* Writes the model of `from` with other weights into the folder `to`, a whole model directory: settings, tokenizer and
 * bank are copied, a tower of its own goes to to/vision_tower. Integers lie as "x" of I8, or U8 with two to a byte (the
 * even column in the low half, each plus 8), and "x_scale" (rows, groups) of BF16; config.json then says so, for other
 * readers. Takes little memory: some rows of a tensor, with an adapter one whole tensor; with films or texts
 * the widest layer's activations of all of them, and its columns squared in floats. Every file is written whole
 * or not at all, and the same bytes for any number of threads. After an interruption the same call goes on with the
 * file that was under way. A file that is there and was made otherwise is RADZ_E_STATE. */
RADZ_API RADZ_CHECK radz_status radz_model_quantize(radz_runtime *runtime, const char *from, const char *to,
                                                    const radz_quantize_options *options, radz_error *err);

/* ---- Session ----------------------------------------------------------------- */

/* Scratch memory for one caller of one model. One thread at a time. */
typedef struct radz_session radz_session;

typedef struct radz_session_options {
    size_t struct_size;
    /* Asked between layers; non-zero cancels the call with RADZ_E_CANCELLED. */
    int (*cancel_fn)(void *user);
    void *user;
    /* 1: what the decoder made of a film that comes alone stays until the next: another prompt on the same film costs
     * its own words alone. Takes 2 * n_layers * n_kv_heads * head_dim floats per row (158 MB for 7B); the same bits. */
    int keep_film;
    int strict; /* 1: radz_classify and its kin answer RADZ_E_MISMATCH for a film whose own DICOM file speaks against
                   it: lateral view, FOR PROCESSING, burnt-in annotation, modality or body part that is no chest film */
} radz_session_options;

RADZ_API void radz_session_options_init_sized(radz_session_options *options, size_t struct_size);
#define radz_session_options_init(options) radz_session_options_init_sized((options), sizeof *(options))
RADZ_API RADZ_CHECK radz_status radz_session_open(radz_model *model, const radz_session_options *options,
                                                  radz_session **session, radz_error *err);
RADZ_API void radz_session_close(radz_session *session);
/* Bytes of scratch memory held now: it grows with the largest call and stays for the next. */
RADZ_API size_t radz_session_bytes(const radz_session *session);

/* ---- Images -------------------------------------------------------------------- */

/* A decoded film: RGB or gray, 8 or 16 bits per sample, any size up to 100 Mpixel. */
typedef struct radz_image radz_image;

typedef enum radz_pixel_format {
    RADZ_PIXELS_GRAY8 = 0,
    RADZ_PIXELS_GRAY16 = 1, /* native byte order, 0 = black, 65535 = white */
    RADZ_PIXELS_RGB8 = 2
} radz_pixel_format;

/* PNG, JPEG or DICOM (its first frame, as it is to be shown), told apart by content, never by name. What a DICOM file
 * says against using it (lateral view, FOR PROCESSING, ...) is a warning of the result. `runtime` may be NULL. */
RADZ_API RADZ_CHECK radz_status radz_image_open(radz_runtime *runtime, const char *path, radz_image **image,
                                                radz_error *err);
/* The same from memory; the bytes are not kept. */
RADZ_API RADZ_CHECK radz_status radz_image_open_memory(radz_runtime *runtime, const void *bytes, size_t n_bytes,
                                                       radz_image **image, radz_error *err);
/* From pixels, row after row, `stride_bytes` apart (>= width * bytes per pixel); copied. */
RADZ_API RADZ_CHECK radz_status radz_image_from_pixels(radz_runtime *runtime, const void *pixels,
                                                       radz_pixel_format format, size_t width_px, size_t height_px,
                                                       size_t stride_bytes, radz_image **image, radz_error *err);
RADZ_API void radz_image_close(radz_image *image);
RADZ_API size_t radz_image_width(const radz_image *image);       /* pixels */
RADZ_API size_t radz_image_height(const radz_image *image);      /* pixels */
RADZ_API const char *radz_image_sha256(const radz_image *image); /* of the file's bytes, or of the pixels given */
/* The decoded samples as (height, width, channels), rows without gaps, 16 bits in native byte order: what one would
 * draw. They belong to the image and live as long as it does. */
RADZ_API const void *radz_image_pixels(const radz_image *image);
RADZ_API int radz_image_channels(const radz_image *image); /* 1: gray, 3: RGB */
RADZ_API int radz_image_bits(const radz_image *image);     /* per sample: 8 or 16 */
RADZ_API int radz_image_is_dicom(const radz_image *image); /* 1: from a DICOM file. It keeps patient and study of it for
                                                              the objects below; they never get into anything else */
/* What the film's DICOM file, or what is to be seen on any film (nothing; almost black), says against using it, as
 * every result says too. Static texts; NULL past the last. */
RADZ_API size_t radz_image_warning_count(const radz_image *image);
RADZ_API const char *radz_image_warning(const radz_image *image, size_t i);

/* ---- Embeddings ---------------------------------------------------------------- */

/* Which rows of the hidden layer are averaged (the paper's Eq. 4 and 5). */
typedef enum radz_feature {
    RADZ_FEATURE_GLOBAL = 0, /* the special tokens: X_g, Y_g; the last row where a model has no special tokens */
    RADZ_FEATURE_LOCAL = 1,  /* every other row:    X_l, Y_l */
    RADZ_FEATURE_LAST = 2,   /* the last row of the prompt */
    RADZ_FEATURE_ALL = 3     /* every row */
} radz_feature;

typedef struct radz_embed_options {
    size_t struct_size;
    radz_feature feature; /* GLOBAL (default) */
    int layer;            /* index into hidden_states as transformers counts: -1 is after the last block and the final
                             norm, -2 the input of the last block, -(n_layers + 1) the input embeddings. 0 (default):
                             the model's own layer */
    int raw;              /* 1: the mean row as it is, scaled to length 1; 0 (default): through gamma (Eq. 5) */
    const char *image_prompt; /* asked of films, with <image> in it once; NULL (default): the model's own */
} radz_embed_options;

RADZ_API void radz_embed_options_init_sized(radz_embed_options *options, size_t struct_size);
#define radz_embed_options_init(options) radz_embed_options_init_sized((options), sizeof *(options))
/* Floats per vector with these options (NULL: defaults): radz_model_embedding_dim, or with `raw` the width of the
 * decoder. 0 when model is NULL or the options are not valid. */
RADZ_API size_t radz_embed_dim(const radz_model *model, const radz_embed_options *options);

/* Unit vectors of n films or texts, row by row: out is (n, radz_embed_dim), owned by the caller. A vector has the
 * same bits alone or in a batch, and with any number of threads. Options that are not valid leave `out` as it is: 0
 * floats. Texts are report sentences ("This is a chest X-ray showing ..."): special tokens written in them are plain
 * text. Films need a vision tower, texts only a decoder. */
RADZ_API RADZ_CHECK radz_status radz_embed_images(radz_session *session, const radz_image *const *images, size_t n,
                                                  const radz_embed_options *options, float *out, radz_error *err);
RADZ_API RADZ_CHECK radz_status radz_embed_texts(radz_session *session, const char *const *texts, size_t n,
                                                 const radz_embed_options *options, float *out, radz_error *err);

/* Writes vectors (n, dim) as float32, whole or not at all. The end of `path` says how:
 *   .npy          NumPy, C order; names go to the same path with .names.json for .npy: a JSON array of strings
 *   .safetensors  tensor "embeddings"; metadata "names": a JSON array of strings
 * names: n strings, or NULL for none. Bytes that are not UTF-8 are written as U+FFFD. */
RADZ_API RADZ_CHECK radz_status radz_vectors_save(const char *path, const char *const *names, const float *vectors,
                                                  size_t n, size_t dim, radz_error *err);

/* ---- Anchor bank (DKAM, Eq. 10 and 11) ------------------------------------------ */

/* One anchor vector per disease: its description, read by the model, mapped by gamma_dis.
 * A bank belongs to the model that made it; another model refuses it. */
typedef struct radz_bank radz_bank;

typedef struct radz_bank_entry {
    const char *label;       /* what results call it */
    const char *description; /* what the model reads; NULL: the label in a plain sentence */
} radz_bank_entry;

/* One anchor per entry, in their order: 1 to 65536 of them. A label that is empty, has control characters or comes
 * twice, in whatever case, is RADZ_E_ARGUMENT. "No Finding", where it is among them, is the reference class: it stands
 * for "none of the others" in scores of several findings at once. */
RADZ_API RADZ_CHECK radz_status radz_bank_build(radz_session *session, const radz_bank_entry *entries, size_t n,
                                                radz_bank **bank, radz_error *err);
/* Description file: UTF-8 text, one "label: description" per line, '#' starts a comment line. What is wrong in it is
 * RADZ_E_FORMAT, with the line. */
RADZ_API RADZ_CHECK radz_status radz_bank_build_file(radz_session *session, const char *path, radz_bank **bank,
                                                     radz_error *err);
/* A saved bank; `path` NULL: the model's own anchors.safetensors (RADZ_E_IO where it has none). RADZ_E_MISMATCH:
 * another model made it, and none of the same family. */
RADZ_API RADZ_CHECK radz_status radz_bank_open(radz_model *model, const char *path, radz_bank **bank, radz_error *err);
/* Whole or not at all. */
RADZ_API RADZ_CHECK radz_status radz_bank_save(const radz_bank *bank, const char *path, radz_error *err);
/* A new bank: the classes of `bank`, then n more, of which only the new ones are read by the model. A bank never
 * changes once made, because other threads may be scoring with it: who adds a class gets another bank with another
 * hash and closes the old one when it likes. A label that is there already is RADZ_E_ARGUMENT. */
RADZ_API RADZ_CHECK radz_status radz_bank_with(radz_session *session, const radz_bank *bank,
                                               const radz_bank_entry *entries, size_t n, radz_bank **out,
                                               radz_error *err);
/* A new bank without the n classes named; case does not matter. A label that is not there, or nothing left, is
 * RADZ_E_ARGUMENT. */
RADZ_API RADZ_CHECK radz_status radz_bank_without(const radz_bank *bank, const char *const *labels, size_t n,
                                                  radz_bank **out, radz_error *err);
/* A new bank: the same classes with the calibration of a file that radz_evaluate has written for this bank, method
 * img_anchor, feature global. It scores as its file says: temperature, kind of classes, Platt or isotonic per class.
 * radz_bank_with, _without and _edit give banks without one: it was fitted for the classes as they were. films: which
 * films it was fitted on, in words that every result repeats, at most 1000 bytes; NULL: as the file has it. A file for
 * another model, bank or score is RADZ_E_MISMATCH. */
RADZ_API RADZ_CHECK radz_status radz_bank_calibrate(const radz_bank *bank, const char *path, const char *films,
                                                    radz_bank **out, radz_error *err);
/* Cosines of n vectors (n, K) with every anchor, in bank order: out is (n, radz_bank_count), owned by the caller,
 * -1..1. The vectors need no length of 1; one that is zero or not finite is RADZ_E_ARGUMENT. They must come from the
 * bank's model with default options to mean what radz_result_similarity means. */
RADZ_API RADZ_CHECK radz_status radz_bank_score(const radz_bank *bank, const float *vectors, size_t n, double *out,
                                                radz_error *err);
RADZ_API void radz_bank_close(radz_bank *bank);
RADZ_API size_t radz_bank_count(const radz_bank *bank);
RADZ_API size_t radz_bank_dim(const radz_bank *bank);       /* K, floats per anchor */
RADZ_API size_t radz_bank_reference(const radz_bank *bank); /* index of the reference class; count: there is none */
RADZ_API const char *radz_bank_label(const radz_bank *bank, size_t i);       /* NULL when i is out of range */
RADZ_API const char *radz_bank_description(const radz_bank *bank, size_t i); /* NULL when i is out of range */
RADZ_API const float *radz_bank_anchor(const radz_bank *bank, size_t i);     /* K floats, unit length; NULL likewise */
RADZ_API const char *radz_bank_calibration(const radz_bank *bank);           /* JSON radz.calibration/1; NULL: none */
RADZ_API double radz_bank_threshold(const radz_bank *bank, size_t i); /* the calibration's of a class; NaN: none */
RADZ_API const char *radz_bank_hash(const radz_bank *bank);           /* sha256 of the saved form, 64 hex digits */
RADZ_API const char *radz_bank_model_hash(const radz_bank *bank);     /* radz_model_hash of the model that made it */

/* ---- Classification and results --------------------------------------------------- */

typedef struct radz_result radz_result;

/* Scores one film against a bank. bank NULL: with the model's linear head where it was trained with one (objective
 * "classify": probability is the sigmoid of the class's logit, similarity NaN, null in JSON, and the provenance's
 * "score" is "linear-head"), else against the model's own bank (where a checkpoint was never trained as a LLaVA-RadZ
 * and has none, fourteen common findings by name, and every result warns). similarity is cos(X_g, D);
 * probability is sigmoid((cos_c - cos_reference) / tau) for a finding and the softmax
 * share for the reference class itself; a bank without a reference class is read as
 * exclusive classes: softmax over cos / tau. These are not calibrated: a bank that was given a calibration has
 * probabilities, and a threshold per class, that were fitted on films with labels; every result says on which.
 * A model that was trained with `vectors` "refcode" (radz_train_options) scores as its authors do: similarity is that
 * of RADZ_SCORE_FUSED, over exclusive classes. */
RADZ_API RADZ_CHECK radz_status radz_classify(radz_session *session, const radz_bank *bank, const radz_image *image,
                                              radz_result **result, radz_error *err);
/* radz_image_open + radz_classify; `path` goes into the result. */
RADZ_API RADZ_CHECK radz_status radz_classify_file(radz_session *session, const radz_bank *bank, const char *path,
                                                   radz_result **result, radz_error *err);
/* n films in one batch: results has n places, all set or, on failure, all NULL. */
RADZ_API RADZ_CHECK radz_status radz_classify_batch(radz_session *session, const radz_bank *bank,
                                                    const radz_image *const *images, size_t n, radz_result **results,
                                                    radz_error *err);
/* n films by path, for whole folders: while the network works on some, the next ones are read and preprocessed on one
 * thread more and on workers that are idle. film_fn hears of each film in the order of the paths: of its result, which
 * is the caller's to close, or NULL and the error, which lives during the call. A film that fails stops nothing, and
 * each result has the bits of radz_classify_file. film_fn may use the session; non-zero from it is RADZ_E_CANCELLED. */
RADZ_API RADZ_CHECK radz_status radz_classify_files(
    radz_session *session, const radz_bank *bank, const char *const *paths, size_t n,
    int (*film_fn)(size_t i, radz_result *result, const radz_error *error, void *user), void *user, radz_error *err);
RADZ_API void radz_result_close(radz_result *result);

/* Classes best first, 0 <= i < count; out of range: NULL / NaN. */
RADZ_API size_t radz_result_count(const radz_result *result);
RADZ_API const char *radz_result_label(const radz_result *result, size_t i);
RADZ_API double radz_result_probability(const radz_result *result, size_t i); /* 0..1 */
RADZ_API double radz_result_similarity(const radz_result *result, size_t i);  /* -1..1; NaN of a head */
/* Of the probability, at or above which a film counts as positive: the calibration's of the bank; NaN: none. */
RADZ_API double radz_result_threshold(const radz_result *result, size_t i);
RADZ_API size_t radz_result_width(const radz_result *result);       /* pixels of the film */
RADZ_API size_t radz_result_height(const radz_result *result);      /* pixels of the film */
RADZ_API const char *radz_result_sha256(const radz_result *result); /* as radz_image_sha256 */
RADZ_API size_t radz_result_warning_count(const radz_result *result);
RADZ_API const char *radz_result_warning(const radz_result *result, size_t i);

/* The result as one line of JSON, schema "radz.result/1":
 * {"schema","input":{"path","sha256","width_px","height_px"},"scores":[{"label",
 * "probability","similarity","threshold"}...],"provenance":{...},"warnings":[...]};
 * threshold is null where the bank has none.
 * `path` may be NULL (then the path the film was opened from, or null where it came from memory). The
 * text belongs to the caller: radz_text_free. */
RADZ_API RADZ_CHECK radz_status radz_result_json(const radz_result *result, const char *path, char **json,
                                                 radz_error *err);
/* The line for an input that failed: the same schema with "error":{"code","message"} in place of scores. */
RADZ_API RADZ_CHECK radz_status radz_error_json(const radz_error *error, const char *path, char **json,
                                                radz_error *err);
RADZ_API void radz_text_free(char *text); /* NULL is fine */

/* ---- Heat maps ------------------------------------------------------------------------- */

/* Where on a film a class is seen, patch by patch. A picture of a model's workings, not of a disease: ask the scores
 * below before believing one. Maps and patches are arrays of the caller's. */
typedef enum radz_heatmap_method {
    RADZ_HEATMAP_SIMILARITY = 0, /* cosine of each patch's row, read as if it were pooled alone, with the anchor */
    RADZ_HEATMAP_ATTENTION = 1,  /* attention of the special tokens to the patches, heads averaged; the same for every
                                    class */
    RADZ_HEATMAP_GRADIENT = 2    /* gradient of the film's cosine with the anchor at the decoder's input rows, times
                                    these rows, summed over channels; below 0: 0 */
} radz_heatmap_method;

typedef struct radz_heatmap_options {
    size_t struct_size;
    radz_heatmap_method method; /* GRADIENT (default) */
    int layer;    /* hidden states that are read, as in radz_embed_options; 0 (default): the model's own */
    int contrast; /* 1 (default): in a bank with a reference class, cos_class - cos_reference takes the cosine's place
                     for every other class: that is what probabilities are made of. 0: the cosine alone */
    int first_block; /* ATTENTION: decoder blocks from this one (0, the default, is the first) to that of `layer` */
    int mean;        /* ATTENTION: 1: mean over the blocks; 0 (default): rollout, the product of (A + I) / 2 */
} radz_heatmap_options;
RADZ_API void radz_heatmap_options_init_sized(radz_heatmap_options *options, size_t struct_size);
#define radz_heatmap_options_init(options) radz_heatmap_options_init_sized((options), sizeof *(options))

/* Patches along a side of the square that the model sees; 0: it takes no films. */
RADZ_API size_t radz_heatmap_side(const radz_model *model);
/* One number per patch: patches is (side, side). label: a class of the bank, in any case; bank NULL: as in
 * radz_classify. */
RADZ_API RADZ_CHECK radz_status radz_heatmap_patches(radz_session *session, const radz_bank *bank,
                                                     const radz_image *image, const char *label,
                                                     const radz_heatmap_options *options, float *patches,
                                                     radz_error *err);
/* From patches to the film's own pixels: map is (height, width), bilinear between the patches' centres. Padding is left
 * out; what preprocessing crops away is NaN. */
RADZ_API RADZ_CHECK radz_status radz_heatmap_expand(const radz_model *model, const radz_image *image,
                                                    const float *patches, float *map, radz_error *err);
/* Both: map is (height, width). */
RADZ_API RADZ_CHECK radz_status radz_heatmap(radz_session *session, const radz_bank *bank, const radz_image *image,
                                             const char *label, const radz_heatmap_options *options, float *map,
                                             radz_error *err);

typedef struct radz_heatmap_picture {
    size_t struct_size;
    double low, high;  /* numbers at the ends of the colours; NaN (default): the map's least and greatest */
    double opacity;    /* of the hottest colour over the film, 0..1 (.6); colder ones are more transparent */
    const char *title; /* kept in the file as PNG text; NULL: none */
} radz_heatmap_picture;
RADZ_API void radz_heatmap_picture_init_sized(radz_heatmap_picture *picture, size_t struct_size);
#define radz_heatmap_picture_init(picture) radz_heatmap_picture_init_sized((picture), sizeof *(picture))
/* The map (height, width) in colours over the gray film, with a scale beside it: a PNG, whole or not at all. Small
 * films are drawn larger. NaN stays gray. */
RADZ_API RADZ_CHECK radz_status radz_heatmap_save_png(const char *path, const radz_image *image, const float *map,
                                                      const radz_heatmap_picture *picture, radz_error *err);

/* Pixels x .. x + width - 1, y .. y + height - 1 of a film; fractions are fine. */
typedef struct radz_box {
    double x, y, width, height;
} radz_box;
/* Pointing game: *hit is 1 where the map's greatest pixel, or one of several, lies in one of the boxes, else 0. *share
 * (may be NULL): the part of the film's area that the boxes cover, which is a random guess's chance. */
RADZ_API RADZ_CHECK radz_status radz_heatmap_pointing(const float *map, size_t width_px, size_t height_px,
                                                      const radz_box *boxes, size_t n_boxes, int *hit, double *share,
                                                      radz_error *err);

/* Does the map know what the model looks at? Patches are painted over, the hottest first, with the film's mean colour,
 * in n_steps equal steps; the class's probability (before calibration) falls fast under a good map. Insertion starts
 * from the painted film and puts them back. */
typedef struct radz_heatmap_score {
    size_t struct_size;
    double deletion, insertion; /* mean of the probability over the steps, ends counted half: area under the curve */
    double film, painted;       /* probability with all patches, and with none */
} radz_heatmap_score;
RADZ_API void radz_heatmap_score_init_sized(radz_heatmap_score *score, size_t struct_size);
#define radz_heatmap_score_init(score) radz_heatmap_score_init_sized((score), sizeof *(score))
/* patches (side, side), NaN last, ties in order. n_steps: 1 .. side * side. curves: NULL, or room for deletion's and
 * then insertion's n_steps + 1 probabilities each. */
RADZ_API RADZ_CHECK radz_status radz_heatmap_measure(radz_session *session, const radz_bank *bank,
                                                     const radz_image *image, const char *label, const float *patches,
                                                     size_t n_steps, radz_heatmap_score *score, double *curves,
                                                     radz_error *err);

/* ---- DICOM: results for the archive ------------------------------------------------------ */

/* A DICOM object in memory (part 10 file, explicit VR little endian), for the archive that the film came from: in the
 * film's own study, in a series of its own, under the film's own patient. The film must come from a DICOM file with
 * patient and study (RADZ_E_ARGUMENT for a PNG or pixels, RADZ_E_FORMAT where they are missing), and the result from
 * this film (RADZ_E_MISMATCH). Every object says that it is unverified, by which algorithm, and for research only. */
typedef struct radz_dicom radz_dicom;

typedef struct radz_dicom_options {
    size_t struct_size;
    const char *labels; /* JSON file "radz.labels/1": code, and optional threshold, of classes (docs/dicom.md); a class
                           that it has not: the table that ships. NULL (default): that table alone */
    double threshold;   /* report: a probability of at least this much is called present, else absent; NaN (default):
                           radz_result_threshold, and where that is NaN too the probability stands alone */
    const char *const *threshold_labels; /* n_thresholds classes with a threshold of their own, which goes first */
    const double *thresholds;
    size_t n_thresholds;
    const char *institution;  /* that runs the algorithm; NULL (default): not said */
    const char *manufacturer; /* of the algorithm; NULL (default): "libradz" */
    const char *map_method;   /* how the map was made: "gradient"; NULL (default): not said */
    double outline;           /* presentation state: runs at this share of the way from the map's least to its greatest
                                 number (.5) */
    const char *date_time;    /* of the objects, "YYYYMMDDhhmmss"; NULL (default): now */
    const char *key;          /* any text: another one gives other UIDs to what is made with another configuration; NULL
                                 (default): "" */
    const char *series_uid, *instance_uid; /* NULL (default): 2.25.N that follows from the film's own UIDs, the hashes
                                              of model and bank, kind, class, labels, thresholds and key: made again, an
                                              object replaces itself. All objects of a kind share a series in a study */
} radz_dicom_options;
RADZ_API void radz_dicom_options_init_sized(radz_dicom_options *options, size_t struct_size);
#define radz_dicom_options_init(options) radz_dicom_options_init_sized((options), sizeof *(options))

/* Comprehensive 3D SR, template 1500: every class with its code and probability. */
RADZ_API RADZ_CHECK radz_status radz_dicom_build_sr(const radz_image *image, const radz_result *result,
                                                    const radz_dicom_options *options, radz_dicom **dicom,
                                                    radz_error *err);
/* Secondary Capture in colour: the map (height, width) of a class of the result over the film, with a scale and a line
 * that says what it is; films are made smaller to 2048 pixels. */
RADZ_API RADZ_CHECK radz_status radz_dicom_build_sc(const radz_image *image, const radz_result *result,
                                                    const char *label, const float *map,
                                                    const radz_dicom_options *options, radz_dicom **dicom,
                                                    radz_error *err);
/* Grayscale Softcopy Presentation State: the film as it is, with the outline of the map's hot area. Gray films only:
 * RADZ_E_UNSUPPORTED for others. */
RADZ_API RADZ_CHECK radz_status radz_dicom_build_gsps(const radz_image *image, const radz_result *result,
                                                      const char *label, const float *map,
                                                      const radz_dicom_options *options, radz_dicom **dicom,
                                                      radz_error *err);
RADZ_API void radz_dicom_close(radz_dicom *dicom);
RADZ_API const void *radz_dicom_bytes(const radz_dicom *dicom); /* of the whole file */
RADZ_API size_t radz_dicom_size(const radz_dicom *dicom);       /* bytes */
RADZ_API const char *radz_dicom_class_uid(const radz_dicom *dicom);
RADZ_API const char *radz_dicom_series_uid(const radz_dicom *dicom);
RADZ_API const char *radz_dicom_instance_uid(const radz_dicom *dicom);
/* Whole or not at all. */
RADZ_API RADZ_CHECK radz_status radz_dicom_save(const radz_dicom *dicom, const char *path, radz_error *err);

/* ---- Scores ------------------------------------------------------------------------------ */

/* What a film's vector X is compared with. A class text is its label in every template, mean of the unit vectors. */
typedef enum radz_score_kind {
    RADZ_SCORE_IMG_ANCHOR = 0, /* the anchor: what radz_classify does */
    RADZ_SCORE_IMG_TEXT = 1,   /* the class text */
    RADZ_SCORE_FUSED = 2,      /* both through the anchors, (X D^T)(T D^T)^T / tau^2: the authors' code */
    RADZ_SCORE_POS_NEG = 3,    /* the class text against "no {c}": cos(X, T+) - cos(X, T-) */
    RADZ_SCORE_HIDDEN = 4      /* the class text, means of all rows without special tokens or gamma on both sides */
} radz_score_kind;

typedef enum radz_score_feature {
    RADZ_SCORE_GLOBAL = 0, /* X_g (default) */
    RADZ_SCORE_LOCAL = 1,  /* X_l */
    RADZ_SCORE_BOTH = 2    /* the mean of both similarities */
} radz_score_feature;

typedef enum radz_score_classes {
    RADZ_CLASSES_AUTO = 0,       /* POS_NEG and a single class: INDEPENDENT; with a reference class: REFERENCE; else
                                    EXCLUSIVE */
    RADZ_CLASSES_REFERENCE = 1,  /* several at once: each against the reference class, as radz_classify */
    RADZ_CLASSES_EXCLUSIVE = 2,  /* one of them: softmax */
    RADZ_CLASSES_INDEPENDENT = 3 /* each for itself: sigmoid(similarity / tau) */
} radz_score_classes;

typedef struct radz_score_options {
    size_t struct_size;
    radz_score_kind score;
    radz_score_feature feature;
    radz_score_classes classes;
    double tau;                   /* .0001 to 100; <= 0 (default): the model's own */
    const char *const *templates; /* with {c} for the class; none (default): the model's label sentence */
    size_t n_templates;
    const char *const *negatives; /* of POS_NEG; none (default): the templates with "no " before the class */
    size_t n_negatives;
    const char *calibration; /* file that radz_evaluate has written for the same model, bank and score; NULL: the
                                bank's own, where these options leave open or say what it was fitted for; else none */
} radz_score_options;
RADZ_API void radz_score_options_init_sized(radz_score_options *options, size_t struct_size);
#define radz_score_options_init(options) radz_score_options_init_sized((options), sizeof *(options))

/* Immutable once made, may be shared by any number of threads. Keeps what it needs of the bank. */
typedef struct radz_scorer radz_scorer;
/* bank NULL: the model's own. The session reads the class texts now and is not needed afterwards. */
RADZ_API RADZ_CHECK radz_status radz_scorer_open(radz_session *session, const radz_bank *bank,
                                                 const radz_score_options *options, radz_scorer **scorer,
                                                 radz_error *err);
RADZ_API void radz_scorer_close(radz_scorer *scorer);
RADZ_API size_t radz_scorer_count(const radz_scorer *scorer);                /* classes, in bank order */
RADZ_API const char *radz_scorer_label(const radz_scorer *scorer, size_t i); /* NULL when i is out of range */
/* The calibration's threshold of a class; NaN: none. */
RADZ_API double radz_scorer_threshold(const radz_scorer *scorer, size_t i);
/* n films. global (n, K) and local (n, K): from radz_embed_images with features GLOBAL and LOCAL; the one that the
 * scorer's feature does not need may be NULL. HIDDEN takes in place of global vectors of feature LOCAL with raw = 1:
 * (n, text_hidden of radz_model_info), which is not K. similarity and probability (n, count), owned by the caller;
 * either may be NULL. */
RADZ_API RADZ_CHECK radz_status radz_scorer_score(const radz_scorer *scorer, const float *global, const float *local,
                                                  size_t n, double *similarity, double *probability, radz_error *err);

/* ---- Metrics -------------------------------------------------------------------------- */

/* How the threshold between "no" and "yes" is found: the score that does best, the lowest where several do. */
typedef enum radz_threshold_rule {
    RADZ_THRESHOLD_FIXED = 0, /* as given */
    RADZ_THRESHOLD_MAX_F1 = 1,
    RADZ_THRESHOLD_YOUDEN = 2, /* sensitivity + specificity */
    RADZ_THRESHOLD_MCC = 3
} radz_threshold_rule;

typedef struct radz_metrics_options {
    size_t struct_size;
    double threshold;  /* 0.5 */
    int strict;        /* 0 (default): a film is called positive at score >= threshold; 1: only above it */
    int both_classes;  /* 1: f1 is the mean over positives and negatives; 0 (default): that of the positives */
    size_t n_bins;     /* of the calibration error, equal width over 0..1 (10) */
    size_t n_rounds;   /* of the bootstrap (1000) */
    double confidence; /* of its intervals (.95) */
    uint64_t seed;
} radz_metrics_options;
RADZ_API void radz_metrics_options_init_sized(radz_metrics_options *options, size_t struct_size);
#define radz_metrics_options_init(options) radz_metrics_options_init_sized((options), sizeof *(options))

/* Of one class. Same numbers as scikit-learn; NaN where a metric is undefined: AUC without both outcomes, AUPRC and
 * sensitivity without a positive, specificity without a negative, Brier score and calibration error where a score is
 * no probability. */
typedef struct radz_metrics {
    size_t struct_size;
    size_t n_positive, n_negative;
    size_t tp, fp, tn, fn;
    double auc;   /* area under the ROC curve, ties count half */
    double auprc; /* average precision */
    double threshold;
    double f1, accuracy, mcc, sensitivity, specificity, precision; /* at the threshold */
    double brier;
    double ece; /* expected calibration error: mean over bins of |mean score - share of positives|, weighted by films */
} radz_metrics;
RADZ_API void radz_metrics_init_sized(radz_metrics *metrics, size_t struct_size);
#define radz_metrics_init(metrics) radz_metrics_init_sized((metrics), sizeof *(metrics))

/* truth: 1 positive, 0 negative, below 0 not known: left out. A score that is NaN is RADZ_E_ARGUMENT.
 * metrics: made with radz_metrics_init; as much of it is filled as the caller's struct has room for. */
RADZ_API RADZ_CHECK radz_status radz_metrics_measure(const double *scores, const signed char *truth, size_t n,
                                                     const radz_metrics_options *options, radz_metrics *metrics,
                                                     radz_error *err);
/* NaN where there are no both outcomes. */
RADZ_API RADZ_CHECK radz_status radz_metrics_find_threshold(const double *scores, const signed char *truth, size_t n,
                                                            radz_threshold_rule rule, double *threshold,
                                                            radz_error *err);
/* Intervals of every metric: percentiles over n_rounds draws of whole groups (patients) with replacement. groups: one
 * number per film, NULL: every film for itself. low, high: made with radz_metrics_init. The counts in both are
 * those of the data. */
RADZ_API RADZ_CHECK radz_status radz_metrics_bootstrap(const double *scores, const signed char *truth,
                                                       const size_t *groups, size_t n,
                                                       const radz_metrics_options *options, radz_metrics *low,
                                                       radz_metrics *high, radz_error *err);

typedef enum radz_curve {
    RADZ_CURVE_ROC = 0, /* x: 1 - specificity, y: sensitivity; starts at (0, 0) with threshold infinity */
    RADZ_CURVE_PR = 1   /* x: recall, y: precision */
} radz_curve;
/* One point per distinct score, from the highest down. x, y, thresholds: room for n + 1 each; *n_points says how many
 * were written: 0 without both outcomes. */
RADZ_API RADZ_CHECK radz_status radz_metrics_curve(const double *scores, const signed char *truth, size_t n,
                                                   radz_curve curve, double *x, double *y, double *thresholds,
                                                   size_t *n_points, radz_error *err);

/* ---- Writing ------------------------------------------------------------------------- */

/* Told after every token. Texts live during the call only. */
typedef struct radz_generate_progress {
    size_t struct_size;
    const char *text;     /* what is new, in whole characters; "" while a character or a stop string may be under way */
    int32_t token;        /* the one just chosen */
    int64_t n_tokens;     /* chosen so far */
    int64_t n_prompt;     /* rows of the prompt, the film's included */
    const char *finished; /* NULL: it goes on; "end": the model ended, "stop": a stop string came, "length": max_tokens
                             or the longest text that the model takes */
} radz_generate_progress;

typedef struct radz_generate_options {
    size_t struct_size;
    int max_tokens;          /* 256 */
    double temperature;      /* 0 (default): always the most likely token; else drawn from softmax(logits / it) */
    double top_p;            /* 1 (default): of the fewest most likely tokens whose probabilities add up to this */
    uint64_t seed;           /* of the drawing: the same text for the same seed, with any number of threads */
    const char *const *stop; /* texts that end the answer; they are not part of it */
    size_t n_stop;
    const char *chat_template; /* how the model was taught to be asked: "plain", "vicuna_v1", "llava_v1",
                                  "mistral_instruct", "chatml"; NULL or "auto" (default): what fits the model */
    const char *system;        /* instructions before the prompt; NULL (default): none */
    int (*token_fn)(const radz_generate_progress *progress, void *user); /* non-zero: RADZ_E_CANCELLED */
    void *user;
} radz_generate_options;

RADZ_API void radz_generate_options_init_sized(radz_generate_options *options, size_t struct_size);
#define radz_generate_options_init(options) radz_generate_options_init_sized((options), sizeof *(options))
/* The model's answer to a prompt, about a film or (image NULL) about nothing but the prompt, which may say with
 * "<image>" where the film goes; else it comes first. Control tokens written in the prompt are plain text. What is
 * no character in the answer, NUL too, is U+FFFD. The text belongs to the caller: radz_text_free. A model that was
 * trained for vectors only writes nothing of use. */
RADZ_API RADZ_CHECK radz_status radz_generate(radz_session *session, const radz_image *image, const char *prompt,
                                              const radz_generate_options *options, char **text, radz_error *err);

/* DKAM: the model describes a disease in its own words. */
typedef struct radz_describe_options {
    size_t struct_size;
    const char *prompt; /* K_prompt; "{disease}" is where the name goes. NULL (default): what the disease is, how it
                           looks on a film, how the patient presents */
    int max_tokens;     /* 256; a description that is cut ends with its last whole sentence */
    double temperature; /* .2 */
    double top_p;       /* 1 */
    uint64_t seed;
    const char *chat_template, *system;                                     /* as in radz_generate_options */
    int (*done_fn)(const char *label, const char *description, void *user); /* of each one written; non-zero:
                                                                               RADZ_E_CANCELLED */
    void *user;
} radz_describe_options;

RADZ_API void radz_describe_options_init_sized(radz_describe_options *options, size_t struct_size);
#define radz_describe_options_init(options) radz_describe_options_init_sized((options), sizeof *(options))
/* radz_bank_build, but an entry without a description is described by the model. The bank keeps the text and how it was
 * asked for. A description depends on its own label alone. A model that cannot write is RADZ_E_MISMATCH: it predicts a
 * plain sentence no better than chance, or what it writes is no text. */
RADZ_API RADZ_CHECK radz_status radz_bank_describe(radz_session *session, const radz_bank_entry *entries, size_t n,
                                                   const radz_describe_options *options, radz_bank **bank,
                                                   radz_error *err);
/* The same from a description file, where a line may be a label alone. */
RADZ_API RADZ_CHECK radz_status radz_bank_describe_file(radz_session *session, const char *path,
                                                        const radz_describe_options *options, radz_bank **bank,
                                                        radz_error *err);
/* A new bank: the classes of `bank`, with another description for one of them, which alone is read by the model. */
RADZ_API RADZ_CHECK radz_status radz_bank_edit(radz_session *session, const radz_bank *bank, const char *label,
                                               const char *description, radz_bank **out, radz_error *err);
RADZ_API int radz_bank_is_written(const radz_bank *bank, size_t i); /* 1: by the model itself */
/* JSON: prompt, temperature, top_p, seed, max_tokens, template, system; NULL: no description is the model's own. */
RADZ_API const char *radz_bank_writer(const radz_bank *bank);

/* ---- Other methods: what the same model says without vectors of its own ------------------ */

/* The rows of the paper's Table 1 that LLaVA-RadZ is compared with. */
typedef enum radz_method {
    RADZ_METHOD_LIKELIHOOD = 0, /* log-probability of each class name behind a prefix, the film in the prompt */
    RADZ_METHOD_HIDDEN = 1,     /* what RADZ_SCORE_HIDDEN is with the model's own label sentence: cosine of the means of
                                   the hidden states of class text and film at the model's own layer (-2 where radz.json
                                   says nothing else), without special tokens and gamma */
    RADZ_METHOD_OPTIONS = 2,    /* the model chooses from the classes; 1 for those its answer names, else 0 */
    RADZ_METHOD_COT = 3         /* the same, thinking step by step */
} radz_method;
typedef struct radz_method_options {
    size_t struct_size;
    radz_method method;
    int per_token;      /* LIKELIHOOD: 0 (default): sum over the tokens of a name; 1: their mean */
    const char *prompt; /* the question; OPTIONS and COT put the classes at "{classes}"; NULL (default): ours. HIDDEN:
                           the model's own prompts */
    const char *prefix; /* LIKELIHOOD: what the answer begins with; NULL (default): "This is a chest X-ray showing" */
    const char *chat_template, *system; /* as in radz_generate_options */
    int max_tokens;                     /* of the answer; 0 (default): 64, COT 256 */
} radz_method_options;
RADZ_API void radz_method_options_init_sized(radz_method_options *options, size_t struct_size);
#define radz_method_options_init(options) radz_method_options_init_sized((options), sizeof *(options))
/* One score per class for a film; image NULL: the question alone (not HIDDEN). Scores of different methods do not
 * compare. text (may be NULL): what the model wrote, "" where it writes nothing; radz_text_free. A name counts as named
 * wherever it stands as whole words, whatever the case and also after "no"; the longest name goes first. A model that
 * cannot write is RADZ_E_MISMATCH for OPTIONS and COT. scores (n), owned by the caller. */
RADZ_API RADZ_CHECK radz_status radz_method_scores(radz_session *session, const radz_image *image,
                                                   const char *const *labels, size_t n,
                                                   const radz_method_options *options, double *scores, char **text,
                                                   radz_error *err);

/* ---- Evaluation ------------------------------------------------------------------------- */

typedef struct radz_eval_progress {
    size_t struct_size;
    size_t n_done, n_films, n_failed, n_cached; /* with several models, every film counts once for each */
    double seconds_left;
    const char *stage;          /* "films", then "figures", "boxes", "pictures" */
    size_t stage_done, stage_n; /* parts of it */
} radz_eval_progress;

/* A further model of an evaluation. This struct never grows. */
typedef struct radz_eval_model {
    radz_session *session; /* not the one that is passed itself; no thread may use it meanwhile */
    const radz_bank *bank; /* the same classes in the same order as the first model's; NULL: the model's own */
    const char *name;      /* what its rows are called; NULL: the name of its directory */
} radz_eval_model;

typedef struct radz_eval_options {
    size_t struct_size;
    const char *manifest;   /* CSV with a header: path; labels ('|' between them) or one column per class (1, 0, -1 not
                               sure, empty not known); optional patient, set, split */
    const char *image_root; /* paths in the manifest are relative to this; NULL: the manifest's folder */
    const char *label_map;  /* CSV "from,to", optional "set": label of the manifest -> class of the bank; empty `to`
                               drops the label; NULL: none */
    const char *out_dir;    /* report.json, report.csv, report.html, calibration files */
    const char *cache_dir;  /* vectors by film and model; NULL: out_dir/cache; "": none */
    const char *split;      /* rows that are evaluated; NULL: "test" where the manifest has it, else "val", else all */
    const char *sets;       /* sets that are evaluated, commas between them ("nih" stands for nih512 too); NULL: all */
    const char *validation; /* another manifest, whose rows give thresholds and calibration; NULL: rows of
                               validation_split in the first */
    const char *validation_split; /* "val" */
    const char *methods;          /* commas between them: "img_anchor", "img_text", "fused", "pos_neg_pair", "hidden";
                                     "likelihood" (sum over the tokens of a name), "likelihood_mean", "options", "cot";
                                     "head": the model's linear head; "embed" (default): as score says, where that
                                     is IMG_ANCHOR as radz_classify does */
    radz_score_options score;     /* feature, classes, tau, templates; its score is what "embed" means */
    const char *threshold;  /* "validation" (default; rule max-f1), "validation-youden", "validation-mcc", "fixed",
                               "test-max-f1" (the published protocol), "test-youden", "test-mcc" (also "youden", "mcc"):
                               per class (options and cot have none: an answer is yes or no); "calibration": those of
                               score.calibration, or of the bank */
    double fixed_threshold; /* 0.5 */
    int strict;             /* 1: positive only above the threshold; 0 (default): at it too */
    int both_classes;       /* 1: F1 is the mean over positives and negatives */
    int macro_reference;    /* 1: the reference class counts in the macro mean; 0 (default): only findings */
    /* "none" (default), "platt", "isotonic": fitted on the validation rows, written to out_dir */
    const char *calibrate;
    const char *uncertain;   /* labels of -1: "ignore" (default), "positive", "negative" */
    size_t n_bins, n_rounds; /* of the calibration error (10); of the bootstrap by patient (1000), 0: none */
    double confidence;       /* .95 */
    uint64_t seed;
    int shard, n_shards; /* n_shards > 0: embed only rows i with i % n_shards == shard - 1 and write their shard */
    int merge;           /* 1: read the n_shards shards of out_dir in place of films */
    size_t n_tsne;       /* points of the t-SNE (1000 at most), 0: none */
    size_t n_examples;   /* best and worst films per class (3) */
    int write_scores;    /* 1: scores.csv, one row per film, method and class */
    /* Called now and then; non-zero stops with RADZ_E_CANCELLED. What was embedded is in the cache. */
    int (*progress_fn)(const radz_eval_progress *progress, void *user);
    void *user;
    const radz_method_options *writing; /* questions of likelihood, options and cot; its method and per_token are not
                                           read; NULL: the defaults */
    int leave_out;    /* 1: a method that this model cannot run is named in the report, with the reason; 0 (default):
                         RADZ_E_MISMATCH. One must be left */
    const char *name; /* what the model's rows are called beside others; NULL: the name of its directory */
    const radz_eval_model *others; /* further models for the same films, each with rows of its own (Table 3); names are
                                      told apart */
    size_t n_others;
    const char *boxes;  /* CSV path, class, x, y, width, height in the film's own pixels; optional film_width,
                           film_height: the size the boxes were drawn at; "BBox_List_2017.csv" of ChestX-ray14 as it is.
                           Heat maps are measured on these films. NULL: none */
    size_t n_box_steps; /* of deletion and insertion (10); 0: the pointing game alone */
    int no_heatmaps;    /* 1: films in report.html have no heat map beside them (a 7B model takes long) */
} radz_eval_options;
RADZ_API void radz_eval_options_init_sized(radz_eval_options *options, size_t struct_size);
#define radz_eval_options_init(options) radz_eval_options_init_sized((options), sizeof *(options))
/* Methods, threshold rule, score and averaging of published tables: "paper-table1", "paper-table2", "paper-table3",
 * "medklip", "chexzero". */
RADZ_API RADZ_CHECK radz_status radz_eval_options_preset(radz_eval_options *options, const char *name, radz_error *err);
/* A film that cannot be read is reported with its line and never stops the rest. The same bits for any number of
 * threads, with or without a cache, in one piece or in shards. bank NULL: the model's own. Rows of the report are the
 * methods of each model; all but the first have their difference to the first, drawn in pairs. */
RADZ_API RADZ_CHECK radz_status radz_evaluate(radz_session *session, const radz_bank *bank,
                                              const radz_eval_options *options, radz_error *err);

/* ---- Training ------------------------------------------------------------------------ */

/* Trains a LLaVA-RadZ: L = lambda L_CA + (1 - lambda) L_CG (Eq. 6 to 15).
 * One thread at a time. Everything it writes is written whole or not at all. */
typedef struct radz_trainer radz_trainer;

typedef struct radz_train_progress {
    size_t struct_size;
    int64_t step, n_steps; /* optimiser steps done, and in all */
    double epoch;          /* passes over the training films so far */
    double loss, loss_ca, loss_cg, grad_norm, lr, tau;
    double items_per_second;
    double seconds_left;
    int64_t n_bad_rows;     /* manifest rows whose film could not be read, so far */
    int has_validation;     /* 1: the two fields below were measured at this step */
    double val_auc;         /* the monitored AUC on the validation split, NaN where undefined; objective "generate":
                               exp(-mean loss of the validation answers' tokens) */
    double val_macro_auc;   /* mean AUC over labels that have both outcomes, NaN where none */
    const char *checkpoint; /* directory that is written at this step, right after this call; or NULL */
} radz_train_progress;

typedef struct radz_train_options {
    size_t struct_size;
    const char *model_dir;  /* start from here; without *.safetensors it is initialised at random from `seed` */
    const char *manifest;   /* CSV with a header: path, labels; optional split, patient, set, text */
    const char *image_root; /* paths in the manifest are relative to this; NULL: the manifest's folder */
    const char *out_dir;    /* the trained model, and checkpoint/ while training */
    const char *diseases;   /* description file as for radz_bank_build_file: the anchors of L_CG */
    const char *label_map;  /* CSV "from,to" applied to manifest labels; NULL: none; empty `to` drops the label */
    int resume;             /* 1: go on from out_dir/checkpoint where there is one */
    uint64_t seed;
    double epochs;
    int64_t stop_after_steps; /* 0: never; else save a checkpoint and return after so many steps in all */
    int batch_size;
    double lr, weight_decay, beta1, beta2, eps, warmup_fraction, clip_norm;
    double lambda;            /* weight of L_CA (Eq. 15) */
    double tau;               /* <= 0: the model's own */
    int learn_tau;            /* 1: tau is trained, clamped to [.01, .5] */
    int mask_false_negatives; /* 1 (default): pairs of one label set are no negatives of each other in L_CA */
    int balance_sets;         /* 1 (default): rows are drawn so that sets and label sets weigh sqrt(count) */
    int augment; /* 1 (default): seeded shift, scale, rotation, contrast; 2: larger, and parts covered; 0: none */
    int64_t checkpoint_every; /* steps; 0: only at the end */
    int64_t validate_every;   /* steps; 0: only at the end */
    const char *monitor;      /* label whose AUC picks the best model; NULL: macro AUC */
    const char *monitor_set;  /* rows of this set only; NULL: all */
    /* Called after every step; non-zero saves a checkpoint and returns RADZ_E_CANCELLED. */
    int (*progress_fn)(const radz_train_progress *progress, void *user);
    void *user;
    const char *dtype; /* of the weights written: "f32" (default) or "bf16" */

    /* What is trained. */
    /* "radz" (default): L of Eq. 15. "generate": next-token loss on the manifest's answers (columns prompt and answer;
     * a row without: its report or label sentence, asked the model's own question; the paper's "FT"). "classify": a
     * linear head over X_g, sigmoid per class (Table 3). */
    const char *objective;
    const char *settings; /* file in the format of radz.json: layer, special tokens, heads, prompts. NULL: the model's
                             own radz.json; where it has none, the paper's values */
    const char *train;    /* parts whose own weights change, of "tower,projector,decoder", or "none". NULL: with LoRA
                             none, else all. Special-token rows and heads always change. */
    int lora_rank;        /* -1 (default): 128 for a model with weights, else 0. 0: no LoRA */
    double lora_alpha, lora_dropout; /* 256, .05; alpha / rank, or with lora_rslora alpha / sqrt(rank), scales B A */
    int lora_rslora;
    const char *lora_targets; /* NULL (default): all of "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj" of
                                 every decoder block that the vectors depend on */
    int merge_lora;           /* 1: write whole weights with B A added in; 0 (default): a PEFT adapter */
    double label_fraction; /* 1 (default): share of the training rows, drawn by seed in proportion of the label sets */
    const char *features;  /* what L_CA pairs: "cross" (default, Eq. 7 and 8), "global", "local" */
    const char *targets;   /* of L_CG: "labels" (default), "batch_index": the authors' code, row number mod classes */

    /* How it is computed. The vectors' gradients are the same, but for rounding, whatever is chosen here. */
    int micro_batch;     /* items that go through the network at once; 0 (default): the whole batch. Smaller takes a
                            second forward pass and little memory (gradient caching). */
    int accumulate;      /* batches per optimiser step (1) */
    int recompute;       /* 1: activations of a block are computed again in the backward pass */
    const char *weights; /* while training: "f32" (default), or "bf16": trained weights beside a float copy of them, and
                            products of bfloat16 with those that stay as they are */
    int stop_on_bad_row; /* 1: a film that cannot be read ends the run with its line; 0 (default): counted, left out */
    const struct radz_comm *comm; /* several processes work on each batch; NULL (default): one */
    const char *vectors; /* how vectors are made and scored, in training and ever after (it goes into radz.json). NULL
                            (default): as the settings say. "paper". "refcode": as the authors' code does, for studies
                            against published numbers: X_g and Y_g are the last rows of a prompt, whatever they are;
                            special tokens stand there in training only and are never trained; anchors are means of
                            embedding rows; scores are fused (RADZ_SCORE_FUSED) */

    /* For small data. The defaults leave all as it was. */
    double ema; /* 0 (default): none; else the decay per step of a moving average of the weights, say .999: the average
                   is what is validated and written. Taken every 8 steps, younger at first. */
    /* What a validation writes: "best" (default) by monitor, "last": the model as it is, good or bad. */
    const char *keep;
    const char *set_weights;  /* "nih=2,toy=0.5": rows of a set, or of the sets nih64, nih512 and so on, are drawn so
                                 many times as often, beside balance_sets; NULL (default): no */
    double drop_path;         /* 0 (default) to .9: share of films for which a branch of the tower's last block is left
                                 out; less towards the first (stochastic depth) */
    int64_t film_cache_bytes; /* memory for decoded films (1 GiB); what does not fit is decoded again at every draw */
} radz_train_options;

/* What several processes of one training run need of MPI or the like. Called by one thread at a time, in the same order
 * in every process; 0: done, else the run ends with RADZ_E_IO. */
typedef struct radz_comm {
    size_t struct_size;
    int rank, size;
    int (*sum_f32)(float *values, size_t n, void *user);                    /* every process gets the sum */
    int (*gather)(const void *mine, size_t n_bytes, void *all, void *user); /* all: size * n_bytes, by rank */
    void *user;
} radz_comm;

/* What a run will take, before it starts. */
typedef struct radz_train_plan {
    size_t struct_size;
    int64_t n_steps, n_train, n_val, n_left_out, n_bad_rows;
    uint64_t n_parameters, n_trained; /* numbers in the model, and those that change */
    uint64_t weight_bytes, optimizer_bytes, activation_bytes, film_bytes; /* memory; activations of one step, about */
    double seconds_per_step;                                              /* measured, NaN where it was not */
    uint64_t process_bytes; /* program, libraries, stacks: all five together are what a process on a CPU takes */
} radz_train_plan;

RADZ_API void radz_train_options_init_sized(radz_train_options *options, size_t struct_size);
#define radz_train_options_init(options) radz_train_options_init_sized((options), sizeof *(options))
/* Reads the model, the manifest and, with `resume`, the checkpoint. options: not NULL; model_dir,
 * manifest, out_dir and diseases are needed. runtime NULL: a private one with default options. */
RADZ_API RADZ_CHECK radz_status radz_trainer_open(radz_runtime *runtime, const radz_train_options *options,
                                                  radz_trainer **trainer, radz_error *err);
/* "paper" or "refcode": the authors' training options and their `vectors`. Paths, the seed and how it is computed stay
 * as they are. */
RADZ_API RADZ_CHECK radz_status radz_train_options_preset(radz_train_options *options, const char *name,
                                                          radz_error *err);
/* plan->struct_size is set by the caller. measure: runs one step forward and back to time it; nothing is changed or
 * written. */
RADZ_API RADZ_CHECK radz_status radz_trainer_plan(radz_trainer *trainer, int measure, radz_train_plan *plan,
                                                  radz_error *err);
/* Until all epochs are done, or stop_after_steps. RADZ_E_CANCELLED: progress_fn said so; the checkpoint is there. */
RADZ_API RADZ_CHECK radz_status radz_trainer_run(radz_trainer *trainer, radz_error *err);
RADZ_API void radz_trainer_close(radz_trainer *trainer);

#ifdef __cplusplus
}
#endif
#endif /* RADZ_H */
