/* radz-info - says what a model directory is. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "common.h"

static const char usage_lines[] = "usage: radz-info [--json] [OPTION]... [DIR]\n";

static const char help_text[] =
    "\n"
    "Says what a model is: sizes, number format, hashes, where its vision tower comes from, the memory it\n"
    "needs, and which device and kernels would run it. RESEARCH USE ONLY. NOT FOR DIAGNOSIS.\n"
    "\n"
    "  DIR             model directory; else $RADZ_MODEL, else the model that ships\n"
    "  --json          one JSON object (schema radz.info/1)\n" ENGINE_HELP "  --help, --version\n"
    "\n"
    "Exit status: 0 done; 1 the output could not be written; 2 wrong usage, or not a model.\n";

typedef struct settings {
    engine_options engine;
    bool json;
} settings;

typedef struct facts {
    engine e;
    radz_model_info m;
    radz_bank *bank;
    radz_error no_bank; /* why bank is NULL */
} facts;

/* ---- For people ---- */

static void row(const char *name, const char *text)
{
    printf("%-12s", name);
    show(stdout, text);
    putchar('\n');
}

static void bytes_text(char *out, size_t n, uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    size_t unit = 0;
    for (; v >= 1024 && unit < 4; unit++) v /= 1024;
    snprintf(out, n, unit ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

static void print_network(const radz_model_info *m)
{
    char text[400];
    if (m->vision_layers) {
        snprintf(text, sizeof text, "%zu x %zu pixels, patches of %zu, %zu layers of %zu, %zu heads; layer %d",
                 m->image_size_px, m->image_size_px, m->patch_px, m->vision_layers, m->vision_hidden, m->vision_heads,
                 m->feature_layer);
        row("tower", text);
        row("  from", m->tower_source);
    } else {
        row("tower", "none: texts only");
    }
    snprintf(text, sizeof text, "%zu layers of %zu, %zu heads (%zu for keys) of %zu, MLP %zu; layer %d", m->text_layers,
             m->text_hidden, m->text_heads, m->text_kv_heads, m->head_dim, m->text_intermediate, m->layer);
    row("decoder", text);
    snprintf(text, sizeof text, "%zu rows at most%s, %zu of them for a film", m->max_positions,
             m->window ? ", sliding window" : "", m->image_rows);
    row("  prompt", text);
    snprintf(text, sizeof text, "%zu numbers; %zu + %zu special tokens; tau %.4g", m->embedding_dim, m->n_image_tokens,
             m->n_text_tokens, m->tau);
    row("vectors", text);
    snprintf(text, sizeof text, "linear, %zu classes", m->n_head_classes);
    if (m->n_head_classes) row("head", text);
    snprintf(text, sizeof text, "%s, vocabulary of %zu", m->tokenizer ? m->tokenizer : "none", m->vocab);
    row("tokenizer", text);
}

static void print_adapter(const radz_model_info *m)
{
    char text[40];
    if (!m->adapter) return;
    row("adapter", m->adapter);
    snprintf(text, sizeof text, "%zu", m->adapter_rank);
    row("  rank", text);
    row("  hash", m->adapter_hash);
}

static void print_memory(const radz_model_info *m)
{
    char files[32], weights[32], film[32], text[200];
    bytes_text(files, sizeof files, m->file_bytes);
    bytes_text(weights, sizeof weights, m->weight_bytes);
    bytes_text(film, sizeof film, m->film_bytes);
    snprintf(text, sizeof text, "%" PRIu64 " in %s, %s of files", m->n_parameters, m->dtype, files);
    row("parameters", text);
    snprintf(text, sizeof text, "%s of weights, shared by all sessions; about %s for a film in each", weights, film);
    row("memory", text);
    bytes_text(weights, sizeof weights, m->streamed_bytes);
    bytes_text(film, sizeof film, m->peak_bytes);
    snprintf(text, sizeof text, "about %s for one film after another%s%s%s", film, m->streamed_bytes ? ", " : "",
             m->streamed_bytes ? weights : "", m->streamed_bytes ? " read for each" : "");
    row("  process", text);
    if (m->weights) row("  weights", m->weights);
}

/* Why there is no bank; NULL: the directory simply has none. */
static const char *bank_problem(const facts *f)
{
    bool absent = f->no_bank.code == RADZ_E_IO && strstr(f->no_bank.message, "no such file");
    return f->bank || absent ? NULL : f->no_bank.message;
}

static void print_bank(const facts *f)
{
    char text[120];
    if (!f->bank) {
        row("bank", bank_problem(f) ? bank_problem(f) : "none");
        return;
    }
    snprintf(text, sizeof text, "%zu classes, %s", radz_bank_count(f->bank), radz_bank_hash(f->bank));
    row("bank", text);
}

static void print_runtime(const facts *f)
{
    char text[200];
    size_t used = 0;
    for (size_t i = 0; radz_kernels_available(i) && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i ? ", " : "", radz_kernels_available(i));
    row("runs on", radz_model_device(f->e.model));
    row("kernels", text);
    row("products", radz_runtime_products(f->e.runtime));
}

static void print_unused(const facts *f)
{
    const char *name;
    if (f->m.n_unused_tensors) printf("%-12s%zu tensors\n", "left over", f->m.n_unused_tensors);
    for (size_t i = 0; (name = radz_model_unused_tensor(f->e.model, i)); i++) row("", name);
}

static void print_text(const facts *f)
{
    const radz_model_info *m = &f->m;
    row("model", radz_model_name(f->e.model));
    row("hash", radz_model_hash(f->e.model));
    print_network(m);
    if (m->tokenizer_hash) row("  hash", m->tokenizer_hash);
    print_adapter(m);
    print_memory(m);
    print_bank(f);
    print_runtime(f);
    if (m->missing) printf("%-12s%s\n", "missing", m->missing);
    print_unused(f);
    puts(radz_disclaimer());
}

/* ---- JSON ---- */

static void member(const char *before, const char *text)
{
    fputs(before, stdout);
    print_json_text(text);
}

static void json_network(const radz_model_info *m)
{
    member(",\"tower\":{\"source\":", m->tower_source);
    printf(",\"hidden\":%zu,\"intermediate\":%zu,\"layers\":%zu,\"heads\":%zu,\"image_size_px\":%zu,\"patch_px\":%zu,"
           "\"image_rows\":%zu,\"layer\":%d}",
           m->vision_hidden, m->vision_intermediate, m->vision_layers, m->vision_heads, m->image_size_px, m->patch_px,
           m->image_rows, m->feature_layer);
    printf(",\"decoder\":{\"hidden\":%zu,\"intermediate\":%zu,\"layers\":%zu,\"heads\":%zu,\"kv_heads\":%zu,\"head_"
           "dim\":%zu,"
           "\"vocab\":%zu,\"max_positions\":%zu,\"window\":%zu,\"layer\":%d}",
           m->text_hidden, m->text_intermediate, m->text_layers, m->text_heads, m->text_kv_heads, m->head_dim, m->vocab,
           m->max_positions, m->window, m->layer);
    printf(",\"embedding_dim\":%zu,\"image_tokens\":%zu,\"text_tokens\":%zu,\"tau\":", m->embedding_dim,
           m->n_image_tokens, m->n_text_tokens);
    print_number(m->tau);
    printf(",\"head_classes\":%zu", m->n_head_classes);
}

static void print_json(const facts *f)
{
    const radz_model_info *m = &f->m;
    member("{\"schema\":\"radz.info/1\",\"library\":", radz_version());
    member(",\"name\":", radz_model_name(f->e.model));
    member(",\"hash\":", radz_model_hash(f->e.model));
    json_network(m);
    member(",\"tokenizer\":{\"kind\":", m->tokenizer);
    member(",\"hash\":", m->tokenizer_hash);
    printf("},\"parameters\":%" PRIu64 ",\"file_bytes\":%" PRIu64 ",\"weight_bytes\":%" PRIu64
           ",\"film_bytes\":%" PRIu64 ",\"streamed_bytes\":%" PRIu64 ",\"peak_bytes\":%" PRIu64,
           m->n_parameters, m->file_bytes, m->weight_bytes, m->film_bytes, m->streamed_bytes, m->peak_bytes);
    member(",\"weights\":", m->weights);
    member(",\"family\":", radz_model_family(f->e.model));
    member(",\"dtype\":", m->dtype);
    if (m->adapter) {
        member(",\"adapter\":{\"path\":", m->adapter);
        member(",\"hash\":", m->adapter_hash);
        printf(",\"rank\":%zu}", m->adapter_rank);
    } else {
        fputs(",\"adapter\":null", stdout);
    }
    printf(",\"bank\":{\"classes\":%zu", radz_bank_count(f->bank));
    member(",\"hash\":", radz_bank_hash(f->bank));
    member(",\"problem\":", bank_problem(f));
    member("},\"device\":", radz_model_device(f->e.model));
    member(",\"kernels\":", radz_runtime_kernels(f->e.runtime));
    member(",\"products\":", radz_runtime_products(f->e.runtime));
    fputs(",\"kernels_available\":[", stdout);
    for (size_t i = 0; radz_kernels_available(i); i++) member(i ? "," : "", radz_kernels_available(i));
    member("],\"missing\":", m->missing);
    printf(",\"unused_tensors\":%zu", m->n_unused_tensors);
    member(",\"unused_tensor\":", m->unused_tensor);
    fputs(",\"unused_tensor_names\":[", stdout);
    for (size_t i = 0; i < m->n_unused_tensors; i++) member(i ? "," : "", radz_model_unused_tensor(f->e.model, i));
    putchar(']');
    member(",\"disclaimer\":", radz_disclaimer());
    puts("}");
}

/* ---- Main ---- */

static int parse_settings(settings *s, int argc, char **argv)
{
    option_entry known[] = {ENGINE_OPTIONS(s->engine), {"json", .flag = &s->json}};
    int n = 0, status = parse_command_line(known, COUNT(known), argc, argv, &n);
    if (status) return status;
    if (n + (s->engine.model != NULL) > 1) return usage("one directory at a time, got %s too", argv[n - 1]);
    if (n) s->engine.model = argv[0];
    return 0;
}

static int run(facts *f, const settings *s)
{
    radz_error err;
    int status = open_engine(&f->e, &s->engine);
    if (status) return status;
    radz_model_info_init(&f->m);
    if (radz_model_get_info(f->e.model, &f->m, &err)) return complain("%s", err.message), EXIT_USAGE;
    if (radz_bank_open(f->e.model, NULL, &f->bank, &f->no_bank)) f->bank = NULL;
    if (s->json)
        print_json(f);
    else
        print_text(f);
    return output_done() ? 0 : EXIT_FILM;
}

int main(int argc, char **argv)
{
    settings s = {0};
    facts f;
    memset(&f, 0, sizeof f);
    program_name = "radz-info", program_usage = usage_lines, program_help = help_text;
    int status = begin_program();
    if (!status) status = parse_settings(&s, argc, argv);
    if (!status) status = run(&f, &s);
    radz_bank_close(f.bank);
    close_engine(&f.e);
    return status;
}
