/* random_model.c - a LLaVA of any shape with random weights, as a Hugging Face directory in shards or as
 * GGUF, to measure with where the real weights cannot be had. The same numbers for the same seed; memory for a few
 * thousand of them. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "formats.h"

enum { MAX_TENSORS = 8192, MAX_SHARDS = 99, BUFFER = 1 << 16, IMAGE_TOKENS = 4, TEXT_TOKENS = 8 };

typedef struct shape {
    const char *name;
    /* tower */
    size_t v_hidden, v_intermediate, v_layers, v_heads, image, patch;
    /* decoder */
    size_t hidden, intermediate, layers, heads, kv_heads, vocab;
} shape;

static const shape shapes[] = {
    {"7b", 1024, 4096, 24, 16, 336, 14, 4096, 14336, 32, 32, 8, 32000}, /* LLaVA-Med 1.5: Mistral 7B */
    {"1b", 1024, 4096, 24, 16, 336, 14, 2048, 5632, 22, 32, 4, 32000},  /* TinyLlama's decoder */
    {"tiny", 32, 64, 3, 2, 28, 14, 64, 128, 4, 4, 2, 512},
};

typedef struct tensor {
    char name[128];
    size_t n_dims;
    uint64_t dims[4], n, n_bytes;
    float std; /* 0: all ones */
    const char *dtype;
    size_t file;
} tensor;

typedef struct maker {
    const char *out;
    shape s;
    uint64_t seed, shard_bytes;
    const char *dtype; /* of matrices: "BF16", "F16", "F32" */
    tensor tensors[MAX_TENSORS];
    size_t n, n_files;
    uint64_t file_bytes[MAX_SHARDS + 1];
    uint8_t table[4 << 16]; /* 65536 numbers from a normal distribution, in the type being written */
    float normal[1 << 16];
} maker;

static void stop(const char *message)
{
    fprintf(stderr, "random_model: %s\n", message);
    exit(1);
}

static void check(radz_status status, const radz_error *err)
{
    if (status) stop(err->message);
}

/* ---- Numbers -------------------------------------------------------------------------------------- */

static size_t element_size(const char *dtype)
{
    return !strcmp(dtype, "F32") ? 4 : 2;
}

static void put_number(uint8_t *out, const char *dtype, float v)
{
    uint16_t half = !strcmp(dtype, "BF16") ? rz_f32_to_bf16(v) : rz_f32_to_f16(v);
    if (!strcmp(dtype, "F32"))
        memcpy(out, &v, 4);
    else
        memcpy(out, &half, 2);
}

static void fill_table(maker *m, const tensor *t)
{
    const size_t size = element_size(t->dtype);
    for (size_t i = 0; i < RZ_COUNT(m->normal); i++)
        put_number(m->table + i * size, t->dtype, t->std > 0 ? t->std * m->normal[i] : 1.0f);
}

typedef radz_status (*put_fn)(void *to, const void *bytes, size_t n, radz_error *err);

/* Sixteen bits of a random number choose one of the table. */
static radz_status write_tensor(maker *m, size_t i, put_fn put, void *to, radz_error *err)
{
    static uint8_t buffer[4 * BUFFER];
    const tensor *t = &m->tensors[i];
    const size_t size = element_size(t->dtype);
    rz_rng r;
    rz_rng_seed(&r, m->seed, i);
    fill_table(m, t);
    for (uint64_t done = 0; done < t->n; done += BUFFER) {
        const size_t n = t->n - done < BUFFER ? (size_t)(t->n - done) : BUFFER;
        for (size_t k = 0; k < n; k += 4) {
            const uint64_t u = rz_rng_u64(&r);
            for (size_t j = 0; j < 4; j++)
                memcpy(buffer + (k + j) * size, m->table + (u >> 16 * j & 65535) * size, size);
        }
        RZ_TRY(put(to, buffer, n * size, err));
    }
    return RADZ_OK;
}

/* ---- Tensors ----------------------------------------------------------------------------------------- */

static void add(maker *m, const char *name, float std, uint64_t rows, uint64_t cols)
{
    if (m->n == MAX_TENSORS) stop("too many tensors");
    tensor *t = &m->tensors[m->n++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->n_dims = cols ? 2 : 1;
    t->dims[0] = rows, t->dims[1] = cols;
    t->n = cols ? rows * cols : rows;
    t->std = std;
    t->dtype = m->dtype;
    t->n_bytes = t->n * element_size(t->dtype);
    if (m->file_bytes[m->n_files] && m->file_bytes[m->n_files] + t->n_bytes > m->shard_bytes) m->n_files++;
    if (m->n_files >= MAX_SHARDS) stop("too many shards: make them larger");
    t->file = m->n_files;
    m->file_bytes[m->n_files] += t->n_bytes;
}

static void add_at(maker *m, const char *prefix, const char *name, float std, uint64_t rows, uint64_t cols)
{
    char full[128];
    if (snprintf(full, sizeof full, "%s%s", prefix, name) >= (int)sizeof full) stop("a name too long");
    add(m, full, std, rows, cols);
}

static void add_linear(maker *m, const char *prefix, const char *name, float std, uint64_t out, uint64_t in)
{
    char full[128];
    snprintf(full, sizeof full, "%s.weight", name);
    add_at(m, prefix, full, std, out, in);
    snprintf(full, sizeof full, "%s.bias", name);
    add_at(m, prefix, full, std, out, 0);
}

static void add_layernorm(maker *m, const char *prefix, const char *name, uint64_t n)
{
    char full[128];
    snprintf(full, sizeof full, "%s.weight", name);
    add_at(m, prefix, full, 0, n, 0);
    snprintf(full, sizeof full, "%s.bias", name);
    add_at(m, prefix, full, .02f, n, 0);
}

/* Names of a tower's tensors, and of the projector's, in Hugging Face files and in GGUF. */
typedef struct tower_names {
    const char *prefix, *class_row, *patch, *position, *pre, *block, *ln_1, *ln_2, *q, *k, *v, *o, *up, *down, *post;
    const char *projector, *linear_1, *linear_2;
} tower_names;
static const tower_names hf_tower = {"vision_tower.vision_model.",
                                     "embeddings.class_embedding",
                                     "embeddings.patch_embedding.weight",
                                     "embeddings.position_embedding.weight",
                                     "pre_layrnorm",
                                     "encoder.layers.",
                                     "layer_norm1",
                                     "layer_norm2",
                                     "self_attn.q_proj",
                                     "self_attn.k_proj",
                                     "self_attn.v_proj",
                                     "self_attn.out_proj",
                                     "mlp.fc1",
                                     "mlp.fc2",
                                     "post_layernorm",
                                     "multi_modal_projector.",
                                     "linear_1",
                                     "linear_2"};
static const tower_names gguf_tower = {"v.",
                                       "class_embd",
                                       "patch_embd.weight",
                                       "position_embd.weight",
                                       "pre_ln",
                                       "blk.",
                                       "ln1",
                                       "ln2",
                                       "attn_q",
                                       "attn_k",
                                       "attn_v",
                                       "attn_out",
                                       "ffn_up",
                                       "ffn_down",
                                       "post_ln",
                                       "mm.",
                                       "0",
                                       "2"};

static void add_patches(maker *m, const tower_names *to, float std)
{
    add_at(m, to->prefix, to->patch, std, m->s.v_hidden, 3);
    tensor *t = &m->tensors[m->n - 1];
    const uint64_t more = t->n * (m->s.patch * m->s.patch - 1);
    t->n_dims = 4, t->dims[2] = t->dims[3] = m->s.patch, t->n += more;
    t->n_bytes += more * element_size(t->dtype), m->file_bytes[t->file] += more * element_size(t->dtype);
}

static void list_tower(maker *m, const tower_names *to)
{
    const shape *s = &m->s;
    const uint64_t side = s->image / s->patch, c = s->v_hidden;
    const float std = 1 / sqrtf((float)c), out = std / sqrtf(2 * (float)s->v_layers);
    char prefix[64];
    add_at(m, to->prefix, to->class_row, std, c, 0);
    add_patches(m, to, std);
    add_at(m, to->prefix, to->position, std, side * side + 1, c);
    add_layernorm(m, to->prefix, to->pre, c);
    for (size_t i = 0; i < s->v_layers; i++) {
        snprintf(prefix, sizeof prefix, "%s%s%zu.", to->prefix, to->block, i);
        add_layernorm(m, prefix, to->ln_1, c);
        add_layernorm(m, prefix, to->ln_2, c);
        add_linear(m, prefix, to->q, std, c, c);
        add_linear(m, prefix, to->k, std, c, c);
        add_linear(m, prefix, to->v, std, c, c);
        add_linear(m, prefix, to->o, out, c, c);
        add_linear(m, prefix, to->up, std, s->v_intermediate, c);
        add_linear(m, prefix, to->down, out, c, s->v_intermediate);
    }
    add_layernorm(m, to->prefix, to->post, c);
    add_linear(m, to->projector, to->linear_1, std, s->hidden, c);
    add_linear(m, to->projector, to->linear_2, 1 / sqrtf((float)s->hidden), s->hidden, s->hidden);
}

/* Names of a decoder's tensors in Hugging Face files and in GGUF. */
typedef struct names {
    const char *embed, *in, *q, *k, *v, *o, *post, *gate, *up, *down, *norm, *head;
} names;
static const names hf = {"language_model.model.embed_tokens.weight",
                         "input_layernorm.weight",
                         "self_attn.q_proj.weight",
                         "self_attn.k_proj.weight",
                         "self_attn.v_proj.weight",
                         "self_attn.o_proj.weight",
                         "post_attention_layernorm.weight",
                         "mlp.gate_proj.weight",
                         "mlp.up_proj.weight",
                         "mlp.down_proj.weight",
                         "language_model.model.norm.weight",
                         "language_model.lm_head.weight"};
static const names gguf = {"token_embd.weight", "attn_norm.weight",   "attn_q.weight",      "attn_k.weight",
                           "attn_v.weight",     "attn_output.weight", "ffn_norm.weight",    "ffn_gate.weight",
                           "ffn_up.weight",     "ffn_down.weight",    "output_norm.weight", "output.weight"};

/* Spread as in trained models of this width; what goes into the residual stream shrinks with the depth. */
static void list_decoder(maker *m, const names *to)
{
    const shape *s = &m->s;
    const uint64_t c = s->hidden, kv = c / s->heads * s->kv_heads;
    const float std = .02f, out = std / sqrtf(2 * (float)s->layers);
    add(m, to->embed, std, s->vocab, c);
    for (size_t i = 0; i < s->layers; i++) {
        char prefix[64];
        if (to == &hf)
            snprintf(prefix, sizeof prefix, "language_model.model.layers.%zu.", i);
        else
            snprintf(prefix, sizeof prefix, "blk.%zu.", i);
        add_at(m, prefix, to->in, 0, c, 0);
        add_at(m, prefix, to->q, std, c, c);
        add_at(m, prefix, to->k, std, kv, c);
        add_at(m, prefix, to->v, std, kv, c);
        add_at(m, prefix, to->o, out, c, c);
        add_at(m, prefix, to->post, 0, c, 0);
        add_at(m, prefix, to->gate, std, s->intermediate, c);
        add_at(m, prefix, to->up, std, s->intermediate, c);
        add_at(m, prefix, to->down, out, c, s->intermediate);
    }
    add(m, to->norm, 0, c, 0);
    add(m, to->head, std, s->vocab, c);
}

/* ---- Hugging Face directory ----------------------------------------------------------------------------- */

static radz_status put_writer(void *to, const void *bytes, size_t n, radz_error *err)
{
    return rz_writer_put(to, bytes, n, err);
}

typedef struct shard {
    maker *m;
    size_t first;
} shard;

static radz_status put_tensor(void *user, size_t i, rz_writer *w, radz_error *err)
{
    const shard *s = user;
    return write_tensor(s->m, s->first + i, put_writer, w, err);
}

static void shard_name(const maker *m, size_t file, char *out, size_t size)
{
    if (m->n_files)
        snprintf(out, size, "model-%05zu-of-%05zu.safetensors", file + 1, m->n_files + 1);
    else
        snprintf(out, size, "model.safetensors");
}

static void write_safetensors(maker *m, size_t first, size_t n, const char *name)
{
    static rz_st_out outs[MAX_TENSORS];
    static const char *const metadata[] = {"format", "pt", NULL};
    radz_error err;
    shard s = {m, first};
    char *path = rz_path_join(NULL, m->out, name);
    for (size_t i = 0; i < n; i++) {
        const tensor *t = &m->tensors[first + i];
        outs[i] = (rz_st_out){.name = t->name, .dtype = t->dtype, .n_dims = t->n_dims};
        for (size_t d = 0; d < t->n_dims; d++) outs[i].dims[d] = t->dims[d];
    }
    printf("%s/%s\n", m->out, name);
    check(path ? rz_st_write_with(NULL, path, outs, n, metadata, put_tensor, &s, &err) : RZ_NO_MEMORY(&err, name),
          &err);
    free(path);
}

static void write_text(const maker *m, const char *name, rz_str *s)
{
    radz_error err;
    char *path = rz_path_join(NULL, m->out, name);
    check(path && !s->failed ? rz_write_file(NULL, path, s->data, s->len, &err) : RZ_NO_MEMORY(&err, name), &err);
    free(path);
    rz_str_free(s);
}

static void write_index(const maker *m)
{
    rz_str s = {0};
    char file[64];
    if (!m->n_files) return;
    uint64_t all = 0;
    for (size_t i = 0; i <= m->n_files; i++) all += m->file_bytes[i];
    rz_str_printf(&s, "{\"metadata\": {\"total_size\": %llu},\n\"weight_map\": {\n", (unsigned long long)all);
    for (size_t i = 0; i < m->n; i++) {
        shard_name(m, m->tensors[i].file, file, sizeof file);
        rz_str_printf(&s, "  \"%s\": \"%s\"%s\n", m->tensors[i].name, file, i + 1 < m->n ? "," : "");
    }
    rz_str_puts(&s, "}}\n");
    write_text(m, "model.safetensors.index.json", &s);
}

static void write_weights(maker *m)
{
    char file[64];
    list_tower(m, &hf_tower);
    list_decoder(m, &hf);
    for (size_t i = 0, n; i < m->n; i += n) {
        for (n = 1; i + n < m->n && m->tensors[i + n].file == m->tensors[i].file;) n++;
        shard_name(m, m->tensors[i].file, file, sizeof file);
        write_safetensors(m, i, n, file);
    }
    write_index(m);
    const size_t first = m->n;
    m->dtype = "F32";
    add(m, "special_tokens.weight", .02f, IMAGE_TOKENS + TEXT_TOKENS, m->s.hidden);
    write_safetensors(m, first, 1, "radz.safetensors");
}

static void write_config(const maker *m)
{
    const shape *s = &m->s;
    rz_str j = {0};
    rz_str_printf(
        &j,
        "{\n  \"architectures\": [\"LlavaForConditionalGeneration\"],\n  \"model_type\": \"llava\",\n"
        "  \"image_token_index\": %zu,\n  \"projector_hidden_act\": \"gelu\",\n  \"vision_feature_layer\": -2,\n"
        "  \"vision_feature_select_strategy\": \"default\",\n  \"image_aspect_ratio\": \"pad\",\n",
        s->vocab - 1);
    rz_str_printf(&j,
                  "  \"tie_word_embeddings\": false,\n  \"vision_config\": {\"model_type\": \"clip_vision_model\", "
                  "\"hidden_size\": %zu, \"intermediate_size\": %zu,\n    \"num_hidden_layers\": %zu, "
                  "\"num_attention_heads\": %zu, \"image_size\": %zu, \"patch_size\": %zu,\n    \"num_channels\": 3, "
                  "\"hidden_act\": \"quick_gelu\", \"layer_norm_eps\": 1e-05, \"projection_dim\": %zu},\n",
                  s->v_hidden, s->v_intermediate, s->v_layers, s->v_heads, s->image, s->patch, s->v_hidden);
    rz_str_printf(&j,
                  "  \"text_config\": {\"model_type\": \"mistral\", \"hidden_size\": %zu, \"intermediate_size\": %zu,\n"
                  "    \"num_hidden_layers\": %zu, \"num_attention_heads\": %zu, \"num_key_value_heads\": %zu, "
                  "\"head_dim\": %zu,\n    \"vocab_size\": %zu, \"max_position_embeddings\": 32768, \"rms_norm_eps\": "
                  "1e-05, \"rope_theta\": 1000000.0,\n    \"sliding_window\": null, \"hidden_act\": \"silu\", "
                  "\"tie_word_embeddings\": false, \"bos_token_id\": 1, \"eos_token_id\": 2}\n}\n",
                  s->hidden, s->intermediate, s->layers, s->heads, s->kv_heads, s->hidden / s->heads, s->vocab);
    write_text(m, "config.json", &j);
    rz_str_printf(&j,
                  "{\n  \"image_processor_type\": \"CLIPImageProcessor\", \"do_resize\": true, \"size\": "
                  "{\"shortest_edge\": %zu},\n  \"resample\": 3, \"do_center_crop\": true, \"crop_size\": {\"height\": "
                  "%zu, \"width\": %zu},\n  \"do_rescale\": true, \"rescale_factor\": 0.00392156862745098, "
                  "\"do_normalize\": true, \"do_convert_rgb\": true,\n  \"image_mean\": [0.48145466, 0.4578275, "
                  "0.40821073], \"image_std\": [0.26862954, 0.26130258, 0.27577711]\n}\n",
                  s->image, s->image, s->image);
    write_text(m, "preprocessor_config.json", &j);
}

/* The prompt has as many rows with the tokenizer below (a token per byte) as the paper's has with Mistral's: 621. */
static void write_radz(const maker *m)
{
    rz_str j = {0};
    rz_str_printf(&j, "{\n  \"schema\": \"radz.model/1\",\n  \"special_tokens\": {\"image\": [");
    for (int i = 0; i < IMAGE_TOKENS; i++) rz_str_printf(&j, "%s\"<ImgCls%d>\"", i ? ", " : "", i);
    rz_str_puts(&j, "], \"text\": [");
    for (int i = 0; i < TEXT_TOKENS; i++) rz_str_printf(&j, "%s\"<TxtCls%d>\"", i ? ", " : "", i);
    rz_str_printf(&j,
                  "]},\n  \"layer\": -2,\n  \"gamma\": {\"type\": \"identity\", \"dim\": %zu},\n"
                  "  \"pool\": \"mean_then_mlp\",\n  \"tau\": 0.05,\n  \"lambda\": 0.5,\n  \"prompts\": {\n"
                  "    \"image\": \"<image>\\nWhat disease is indicated in the X-ray?\",\n"
                  "    \"text\": \"{text}\\nWhat disease is described in this text?\",\n"
                  "    \"labels\": \"This is a chest X-ray showing {labels}.\"\n  }\n}\n",
                  m->s.hidden);
    write_text(m, "radz.json", &j);
}

/* SentencePiece model: field 1 of each piece is its text, 2 its score, 3 its type. */
static void put_piece(rz_str *s, const char *text, int type)
{
    const size_t n = strlen(text);
    const uint8_t head[] = {0x0a, (uint8_t)(n + 9), 0x0a, (uint8_t)n}, tail[] = {0x15, 0, 0, 0, 0, 0x18, (uint8_t)type};
    rz_str_put(s, head, sizeof head);
    rz_str_put(s, text, n);
    rz_str_put(s, tail, sizeof tail);
}

/* Bytes alone: no words to learn, any text. */
static void write_tokenizer(const maker *m)
{
    /* trainer: type BPE, byte_fallback; normaliser: no space put in front, none removed, U+2581 for a space */
    static const uint8_t rest[] = {0x12, 5, 0x18, 2, 0x98, 2, 1, 0x1a, 6, 0x18, 0, 0x20, 0, 0x28, 0};
    rz_str s = {0};
    put_piece(&s, "<unk>", 2);
    put_piece(&s, "<s>", 3);
    put_piece(&s, "</s>", 3);
    for (unsigned b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        put_piece(&s, text, 6);
    }
    rz_str_put(&s, rest, sizeof rest);
    write_text(m, "tokenizer.model", &s);
}

static void write_directory(maker *m)
{
    radz_error err;
    check(rz_mkdir_p(m->out, &err), &err);
    write_config(m);
    write_radz(m);
    write_tokenizer(m);
    write_weights(m);
}

/* ---- GGUF ------------------------------------------------------------------------------------------------- */

enum { GGUF_U32 = 4, GGUF_F32 = 6, GGUF_BOOL = 7, GGUF_STRING = 8, GGUF_ARRAY = 9, GGUF_ALIGN = 32 };

/* What ggml calls a type, in blocks of so many numbers and bytes. */
typedef struct gguf_type {
    const char *name;
    uint32_t type, file_type;
    size_t numbers, bytes;
} gguf_type;
static const gguf_type gguf_types[] = {
    {"bf16", 30, 32, 1, 2}, {"f32", 0, 0, 1, 4}, {"f16", 1, 1, 1, 2}, {"q8_0", 8, 7, 32, 34}, {"q4_0", 2, 2, 32, 18}};

static void put_u32(rz_str *s, uint32_t v)
{
    rz_str_put(s, &v, sizeof v);
}
static void put_u64(rz_str *s, uint64_t v)
{
    rz_str_put(s, &v, sizeof v);
}
static void put_text(rz_str *s, const char *text)
{
    put_u64(s, strlen(text));
    rz_str_puts(s, text);
}
static void put_key(rz_str *s, const char *key, uint32_t type)
{
    put_text(s, key);
    put_u32(s, type);
}
static void put_number_key(rz_str *s, const char *key, size_t v)
{
    put_key(s, key, GGUF_U32);
    put_u32(s, (uint32_t)v);
}
static void put_float_key(rz_str *s, const char *key, float v)
{
    put_key(s, key, GGUF_F32);
    rz_str_put(s, &v, sizeof v);
}

static void put_string_key(rz_str *s, const char *key, const char *v)
{
    put_key(s, key, GGUF_STRING);
    put_text(s, v);
}
static void put_bool_key(rz_str *s, const char *key, uint8_t v)
{
    put_key(s, key, GGUF_BOOL);
    rz_str_put(s, &v, 1);
}
static void put_floats_key(rz_str *s, const char *key, const float *v, size_t n)
{
    put_key(s, key, GGUF_ARRAY);
    put_u32(s, GGUF_F32);
    put_u64(s, n);
    rz_str_put(s, v, n * sizeof *v);
}

static void put_head(const maker *m, const gguf_type *type, const char *architecture, rz_str *s, uint64_t n_keys)
{
    rz_str_puts(s, "GGUF");
    put_u32(s, 3);
    put_u64(s, m->n);
    put_u64(s, n_keys);
    put_string_key(s, "general.architecture", architecture);
    put_number_key(s, "general.file_type", type->file_type);
}

static void put_decoder_keys(const maker *m, const gguf_type *type, rz_str *s)
{
    const shape *h = &m->s;
    put_head(m, type, "llama", s, 13);
    put_number_key(s, "llama.block_count", h->layers);
    put_number_key(s, "llama.context_length", 32768);
    put_number_key(s, "llama.embedding_length", h->hidden);
    put_number_key(s, "llama.feed_forward_length", h->intermediate);
    put_number_key(s, "llama.attention.head_count", h->heads);
    put_number_key(s, "llama.attention.head_count_kv", h->kv_heads);
    put_number_key(s, "llama.rope.dimension_count", h->hidden / h->heads);
    put_float_key(s, "llama.rope.freq_base", 1e6f);
    put_float_key(s, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    put_number_key(s, "llama.vocab_size", h->vocab);
    put_string_key(s, "tokenizer.ggml.model", "no_vocab");
}

static void put_tower_keys(const maker *m, const gguf_type *type, rz_str *s)
{
    static const float mean[] = {.48145466f, .4578275f, .40821073f}, std[] = {.26862954f, .26130258f, .27577711f};
    const shape *h = &m->s;
    put_head(m, type, "clip", s, 14);
    put_bool_key(s, "clip.has_vision_encoder", 1);
    put_string_key(s, "clip.projector_type", "mlp");
    put_number_key(s, "clip.vision.image_size", h->image);
    put_number_key(s, "clip.vision.patch_size", h->patch);
    put_number_key(s, "clip.vision.embedding_length", h->v_hidden);
    put_number_key(s, "clip.vision.feed_forward_length", h->v_intermediate);
    put_number_key(s, "clip.vision.block_count", h->v_layers);
    put_number_key(s, "clip.vision.attention.head_count", h->v_heads);
    put_number_key(s, "clip.vision.projection_dim", h->hidden);
    put_float_key(s, "clip.vision.attention.layer_norm_epsilon", 1e-5f);
    put_floats_key(s, "clip.vision.image_mean", mean, RZ_COUNT(mean));
    put_floats_key(s, "clip.vision.image_std", std, RZ_COUNT(std));
}

/* Only matrices come in the type asked for; of patches and positions GGUF's readers want floats. */
static bool is_float(const tensor *t)
{
    return t->n_dims != 2 || !strcmp(t->name, "v.position_embd.weight");
}

static uint64_t gguf_bytes(const tensor *t, const gguf_type *type)
{
    return is_float(t) ? 4 * t->n : t->n / type->numbers * type->bytes;
}

static uint64_t aligned(uint64_t n)
{
    return (n + GGUF_ALIGN - 1) / GGUF_ALIGN * GGUF_ALIGN;
}

static void put_tensor_list(const maker *m, const gguf_type *type, rz_str *s)
{
    uint64_t at = 0;
    for (size_t i = 0; i < m->n; i++) {
        const tensor *t = &m->tensors[i];
        put_text(s, t->name);
        put_u32(s, (uint32_t)t->n_dims);
        for (size_t d = t->n_dims; d--;) put_u64(s, t->dims[d]); /* the fastest first */
        put_u32(s, is_float(t) ? 0 : type->type);
        put_u64(s, at);
        at = aligned(at + gguf_bytes(t, type));
    }
    while (s->len % GGUF_ALIGN) rz_str_put(s, "", 1);
}

/* Blocks of any bits, but for the scale in front. */
static radz_status write_blocks(maker *m, size_t i, const gguf_type *type, rz_writer *w, radz_error *err)
{
    static uint8_t buffer[64 * BUFFER];
    const tensor *t = &m->tensors[i];
    const uint16_t scale = rz_f32_to_f16(t->std / (type->bytes == 34 ? 73.0f : 4.6f)); /* spread of the bits' numbers */
    const uint64_t n_blocks = t->n / type->numbers;
    rz_rng r;
    rz_rng_seed(&r, m->seed, i);
    for (uint64_t done = 0; done < n_blocks; done += BUFFER) {
        const size_t n = n_blocks - done < BUFFER ? (size_t)(n_blocks - done) : BUFFER;
        for (size_t k = 0; k < n * type->bytes; k += 8) {
            const uint64_t u = rz_rng_u64(&r);
            memcpy(buffer + k, &u, 8);
        }
        for (size_t k = 0; k < n; k++) memcpy(buffer + k * type->bytes, &scale, 2);
        RZ_TRY(rz_writer_put(w, buffer, n * type->bytes, err));
    }
    return RADZ_OK;
}

static radz_status write_gguf_tensors(maker *m, const gguf_type *type, rz_writer *w, radz_error *err)
{
    static const uint8_t zeros[GGUF_ALIGN];
    for (size_t i = 0; i < m->n; i++) {
        tensor *t = &m->tensors[i];
        const uint64_t n_bytes = gguf_bytes(t, type);
        t->dtype = is_float(t) || !strcmp(type->name, "f32") ? "F32" : !strcmp(type->name, "f16") ? "F16" : "BF16";
        if (is_float(t) || type->numbers == 1)
            RZ_TRY(write_tensor(m, i, put_writer, w, err));
        else
            RZ_TRY(write_blocks(m, i, type, w, err));
        RZ_TRY(rz_writer_put(w, zeros, (size_t)(aligned(n_bytes) - n_bytes), err));
    }
    return RADZ_OK;
}

static void write_gguf(maker *m, const char *name, bool tower)
{
    const gguf_type *type = NULL;
    rz_str head = {0};
    rz_writer *w = NULL;
    radz_error err;
    for (size_t i = 0; i < RZ_COUNT(gguf_types); i++)
        if (!strcmp(gguf_types[i].name, name)) type = &gguf_types[i];
    if (!type) stop("--gguf, --mmproj: expected bf16, f16, f32, q8_0 or q4_0");
    if (tower)
        list_tower(m, &gguf_tower), put_tower_keys(m, type, &head);
    else
        list_decoder(m, &gguf), put_decoder_keys(m, type, &head);
    put_tensor_list(m, type, &head);
    if (head.failed) stop("out of memory");
    printf("%s\n", m->out);
    check(rz_writer_open(NULL, m->out, &w, &err), &err);
    check(rz_writer_put(w, head.data, head.len, &err), &err);
    check(write_gguf_tensors(m, type, w, &err), &err);
    check(rz_writer_commit(w, &err), &err);
    rz_str_free(&head);
}

/* ---- The program -------------------------------------------------------------------------------------------- */

static const char usage[] =
    "usage: random_model [--shape 7b|1b|tiny] [--type bf16|f16|f32] [--seed N] [--layers N] [--shard-bytes N] DIR\n"
    "       random_model [--shape 7b|1b|tiny] --gguf bf16|f16|f32|q8_0|q4_0 [--seed N] [--layers N] FILE\n"
    "       random_model [--shape 7b|1b|tiny] --mmproj bf16|f16|f32|q8_0|q4_0 [--seed N] FILE\n"
    "--gguf writes the decoder, --mmproj the tower and the projector, as llama.cpp reads them.\n";

static uint64_t number(const char *text)
{
    int64_t v = 0;
    if (!rz_parse_int64(text, strlen(text), &v) || v < 0) stop("expected a number");
    return (uint64_t)v;
}

static void take_shape(maker *m, const char *name)
{
    for (size_t i = 0; i < RZ_COUNT(shapes); i++)
        if (!strcmp(shapes[i].name, name)) m->s = shapes[i];
    if (!m->s.name || strcmp(m->s.name, name)) stop("--shape: expected 7b, 1b or tiny");
}

static const char *type_name(const char *name)
{
    static const char *const known[][2] = {{"bf16", "BF16"}, {"f16", "F16"}, {"f32", "F32"}};
    for (size_t i = 0; i < RZ_COUNT(known); i++)
        if (!strcmp(known[i][0], name)) return known[i][1];
    stop("--type: expected bf16, f16 or f32");
    return NULL;
}

int main(int argc, char **argv)
{
    static maker m = {.seed = 1, .shard_bytes = UINT64_C(4900000000), .dtype = "BF16"};
    const char *to_gguf = NULL;
    uint64_t layers = 0;
    bool tower = false;
    take_shape(&m, "7b");
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (argv[i][0] != '-') {
            if (m.out) stop(usage);
            m.out = argv[i];
            continue;
        }
        if (!strcmp(argv[i], "--shape"))
            take_shape(&m, value);
        else if (!strcmp(argv[i], "--type"))
            m.dtype = type_name(value);
        else if (!strcmp(argv[i], "--gguf") || !strcmp(argv[i], "--mmproj"))
            to_gguf = value, tower = argv[i][2] == 'm';
        else if (!strcmp(argv[i], "--seed"))
            m.seed = number(value);
        else if (!strcmp(argv[i], "--layers"))
            layers = number(value);
        else if (!strcmp(argv[i], "--shard-bytes"))
            m.shard_bytes = number(value);
        else
            stop(usage);
        i++;
    }
    if (!m.out) stop(usage);
    if (layers) m.s.layers = (size_t)layers;
    rz_rng r;
    rz_rng_seed(&r, m.seed, UINT64_MAX);
    for (size_t i = 0; i < RZ_COUNT(m.normal); i++) m.normal[i] = (float)rz_rng_normal(&r);
    if (to_gguf)
        write_gguf(&m, to_gguf, tower);
    else
        write_directory(&m);
    return 0;
}
