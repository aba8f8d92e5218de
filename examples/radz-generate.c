/* radz-generate - the model answers a prompt, about a film or not. Uses the public header only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const char usage_lines[] =
    "usage: radz-generate [--prompt TEXT] [--image FILE] [--system TEXT] [--template NAME]\n"
    "                     [--max-tokens N] [--temperature T] [--top-p P] [--seed N] [--stop TEXT]...\n"
    "                     [--quiet] [OPTION]...\n";

static const char help_text[] =
    "\n"
    "Writes the model's answer to a prompt as it comes. RESEARCH USE ONLY. NOT FOR DIAGNOSIS.\n"
    "A model that was trained for vectors only, such as the one that ships, writes nothing of use.\n"
    "\n"
    "  --prompt TEXT   else it is read from standard input\n"
    "  --image FILE    a film (PNG, JPEG or DICOM); \"<image>\" in the prompt says where it goes, else it\n"
    "                  comes first\n"
    "  --system TEXT   instructions before the prompt\n"
    "  --template NAME how the model was taught to be asked: auto (default), plain, vicuna_v1,\n"
    "                  llava_v1, mistral_instruct, chatml\n"
    "  --max-tokens N  longest answer (256)\n"
    "  --temperature T 0 (default): always the most likely token; else drawn, the more freely the\n"
    "                  higher it is\n"
    "  --top-p P       drawn from the fewest most likely tokens that have this share (1)\n"
    "  --seed N        of the drawing (0)\n"
    "  --stop TEXT     ends the answer; may be given several times\n" ENGINE_HELP
    "  --quiet         nothing on standard error but failures\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 done; 1 the film could not be read or the model cannot write; 2 wrong usage, or\n"
    "no such model.\n";

typedef struct settings {
    engine_options engine;
    const char *prompt, *image;
    text_list stop;
    radz_generate_options o;
    bool quiet;
} settings;

static int parse_settings(settings *s, int argc, char **argv)
{
    int n_inputs = 0;
    option_entry known[] = {
        ENGINE_OPTIONS(s->engine),
        {"prompt", .text = &s->prompt},
        {"image", .text = &s->image},
        {"system", .text = &s->o.system},
        {"template", .text = &s->o.chat_template, .words = "auto|plain|vicuna_v1|llava_v1|mistral_instruct|chatml"},
        {"max-tokens", .integer = &s->o.max_tokens, .min = 1, .max = 1 << 20},
        {"temperature", .real = &s->o.temperature, .min = 0, .max = 1000},
        {"top-p", .real = &s->o.top_p, .min = 0, .max = 1},
        {"seed", .unsigned64 = &s->o.seed},
        {"stop", .texts = &s->stop},
        {"quiet", .flag = &s->quiet}};
    radz_generate_options_init(&s->o);
    int status = parse_command_line(known, COUNT(known), argc, argv, &n_inputs);
    if (status) return status;
    if (n_inputs) return usage("unexpected argument %s: the prompt goes after --prompt", argv[0]);
    s->o.stop = s->stop.items, s->o.n_stop = s->stop.n;
    return 0;
}

/* Standard input without the line breaks at its end, malloc'ed; NULL: not read, with a message. */
static char *read_prompt(void)
{
    size_t n = 0, cap = 1 << 16, got;
    char *text = need(malloc(cap));
    while ((got = fread(text + n, 1, cap - n - 1, stdin)) > 0)
        if ((n += got) == cap - 1) text = need(realloc(text, cap *= 2));
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r')) n--;
    text[n] = 0;
    if (!ferror(stdin) && !memchr(text, 0, n)) return text;
    complain("standard input: %s", ferror(stdin) ? strerror(errno) : "holds a NUL byte, expected text");
    free(text);
    return NULL;
}

/* Lines and tabs as they are, other control characters made visible. */
static void show_lines(const char *text)
{
    char part[256];
    while (*text) {
        size_t n = strcspn(text, "\n\t");
        if (!n) {
            putchar(*text++);
            continue;
        }
        if (n >= sizeof part) n = sizeof part - 1;
        while (n > 1 && ((unsigned char)text[n] & 0xc0) == 0x80) n--; /* no character is cut */
        memcpy(part, text, n);
        part[n] = 0;
        show(stdout, part);
        text += n;
    }
}

typedef struct listener {
    bool quiet;
    int64_t n_tokens, n_prompt;
    const char *finished;
} listener;

static int on_token(const radz_generate_progress *p, void *user)
{
    listener *l = user;
    show_lines(p->text);
    l->n_tokens = p->n_tokens, l->n_prompt = p->n_prompt;
    if (p->finished) l->finished = strcmp(p->finished, "length") ? "" : ", cut at the longest length";
    return fflush(stdout) != 0;
}

static int run(const engine *e, const settings *s, const char *prompt)
{
    radz_error err;
    radz_image *image = NULL;
    radz_generate_options o = s->o;
    listener l = {.quiet = s->quiet, .finished = ""};
    char *text = NULL;
    if (s->image && radz_image_open(e->runtime, s->image, &image, &err)) return complain("%s", err.message), EXIT_FILM;
    o.token_fn = on_token, o.user = &l;
    radz_status status = radz_generate(e->session, image, prompt, &o, &text, &err);
    radz_image_close(image);
    radz_text_free(text);
    if (status && status != RADZ_E_CANCELLED) {
        complain("%s", err.message);
        return status == RADZ_E_ARGUMENT || status == RADZ_E_LIMIT ? EXIT_USAGE : EXIT_FILM;
    }
    putchar('\n');
    if (!output_done()) return EXIT_FILM;
    if (!s->quiet)
        fprintf(stderr, "%lld tokens after a prompt of %lld%s. %s\n", (long long)l.n_tokens, (long long)l.n_prompt,
                l.finished, radz_disclaimer());
    return 0;
}

int main(int argc, char **argv)
{
    settings s = {0};
    engine e = {0};
    char *from_stdin = NULL;
    program_name = "radz-generate", program_usage = usage_lines, program_help = help_text;
    int status = begin_program();
    if (!status) status = parse_settings(&s, argc, argv);
    if (!status && !s.prompt) status = (s.prompt = from_stdin = read_prompt()) ? 0 : EXIT_USAGE;
    if (!status) status = open_engine(&e, &s.engine);
    if (!status && !s.quiet)
        fprintf(stderr, "libradz %s, model %s, %s\n", radz_version(), radz_model_name(e.model),
                radz_model_device(e.model));
    if (!status) status = run(&e, &s, s.prompt);
    close_engine(&e);
    free(s.stop.items);
    free(from_stdin);
    return status;
}
