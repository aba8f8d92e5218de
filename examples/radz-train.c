/* radz-train - trains a LLaVA-RadZ on films listed in a CSV file. Uses radz.h only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <radz.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

static const char usage_text[] = "usage: radz-train --model DIR --manifest CSV --out DIR --diseases FILE [options]\n";

static const char help_text[] =
    "Trains a LLaVA-RadZ. A model directory without weights is initialised at random from --seed.\n"
    "\n"
    "  --model DIR            where to start: config.json, tokenizer.model, radz.json, weights if any\n"
    "  --manifest CSV         films: columns path, labels ('|' between them); optional split, set, text\n"
    "  --images DIR           folder that the paths are relative to (default: the manifest's)\n"
    "  --out DIR              the best model so far; checkpoint/ while training\n"
    "  --diseases FILE        \"label: description\" per line: the anchors\n"
    "  --label-map CSV        columns from,to: renames labels; an empty `to` drops one\n"
    "\n"
    "  --epochs N             passes over the films (2)\n"
    "  --batch N              films of one step (64)\n"
    "  --lr X                 highest learning rate (2e-5)\n"
    "  --weight-decay X       (0)\n"
    "  --warmup X             fraction of the steps with a rising learning rate (0.03)\n"
    "  --clip X               largest norm of the gradient, 0: any (1)\n"
    "  --lambda X             weight of L_CA against L_CG (0.5)\n"
    "  --tau X                temperature (the model's own)\n"
    "  --learn-tau            train the temperature\n"
    "  --no-mask              films with the same labels are negatives of each other\n"
    "  --no-balance           draw every film equally often\n"
    "  --no-augment           show films as they are\n"
    "  --seed N               (0)\n"
    "  --dtype f32|bf16       of the weights written (f32)\n"
    "\n"
    "  --validate-every N     steps between validations (only at the end)\n"
    "  --monitor LABEL        label whose AUC picks the best model (mean over the labels)\n"
    "  --monitor-set SET      on this set's films only\n"
    "  --checkpoint-every N   steps between checkpoints (only at the end)\n"
    "  --resume               go on from the checkpoint in --out, if there is one\n"
    "  --stop-after N         save a checkpoint and stop after so many steps in all\n"
    "\n"
    "  --threads N            (all cores)\n"
    "  --device auto|cpu|cuda\n"
    "  --quiet                no progress\n"
    "  --help, --version\n"
    "\n"
    "Ctrl-C saves a checkpoint. Exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n";

/* ---- Command line -------------------------------------------------------------------------- */

typedef struct settings {
    radz_train_options train;
    radz_runtime_options runtime;
    int quiet, no_mask, no_balance, no_augment, help, version;
} settings;

typedef enum kind { TEXT, REAL, INT, INT64, UINT64, FLAG } kind;

typedef struct option {
    const char *name;
    kind kind;
    void *to;
    double min; /* of a number */
} option;

/* Digits and what goes with them: no spaces, no hexadecimal, no inf or nan. */
static int plain(const char *s, const char *allowed)
{
    return *s && s[strspn(s, allowed)] == '\0';
}

static int parse_real(const char *s, double min, double *out)
{
    char *end;
    errno = 0;
    *out = plain(s, "0123456789+-.eE") ? strtod(s, &end) : NAN;
    return isfinite(*out) && *end == '\0' && errno == 0 && *out >= min;
}

static int parse_int(const char *s, double min, double max, int64_t *out)
{
    char *end;
    errno = 0;
    if (!plain(s, "0123456789-")) return 0;
    *out = strtoll(s, &end, 10);
    return *end == '\0' && errno == 0 && (double)*out >= min && (double)*out <= max;
}

static int parse_uint(const char *s, uint64_t *out)
{
    char *end;
    errno = 0;
    if (!plain(s, "0123456789")) return 0;
    *out = strtoull(s, &end, 10);
    return *end == '\0' && errno == 0;
}

static int set_option(const option *o, const char *value)
{
    int64_t n = 0;
    switch (o->kind) {
    case TEXT:
        *(const char **)o->to = value;
        return 1;
    case REAL:
        return parse_real(value, o->min, o->to);
    case UINT64:
        return parse_uint(value, o->to);
    case INT:
        if (!parse_int(value, o->min, 1000000, &n)) return 0;
        *(int *)o->to = (int)n;
        return 1;
    case INT64:
        return parse_int(value, o->min, 1e15, o->to);
    default:
        *(int *)o->to = 1;
        return 1;
    }
}

static int usage(const char *what, const char *name)
{
    fprintf(stderr, "radz-train: %s%s\n%sTry radz-train --help.\n", what, name, usage_text);
    return EXIT_USAGE;
}

static int required_missing(const settings *s)
{
    const char *const values[] = {s->train.model_dir, s->train.manifest, s->train.out_dir, s->train.diseases};
    const char *const names[] = {"--model", "--manifest", "--out", "--diseases"};
    for (int i = 0; i < 4; i++)
        if (!values[i]) return usage("missing option ", names[i]);
    return 0;
}

/* 0, or the exit status. */
static int parse_options(int argc, char **argv, option *options, size_t n)
{
    unsigned char seen[64] = {0};
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        while (k < n && strcmp(options[k].name, argv[i]) != 0) k++;
        if (k == n) return usage("unknown option: ", argv[i]);
        if (seen[k]++) return usage("option given twice: ", argv[i]);
        int flag = options[k].kind == FLAG;
        if (!flag && i + 1 == argc) return usage("option without its value: ", argv[i]);
        if (!set_option(&options[k], flag ? NULL : argv[i + 1])) {
            fprintf(stderr, "radz-train: %s: not a valid value: %s\n%s", argv[i], argv[i + 1], usage_text);
            return EXIT_USAGE;
        }
        i += !flag;
    }
    return 0;
}

static int read_command_line(int argc, char **argv, settings *s)
{
    radz_train_options *t = &s->train;
    radz_train_options_init(t);
    radz_runtime_options_init(&s->runtime);
    option options[] = {
        {"--model", TEXT, &t->model_dir, 0},
        {"--manifest", TEXT, &t->manifest, 0},
        {"--images", TEXT, &t->image_root, 0},
        {"--out", TEXT, &t->out_dir, 0},
        {"--diseases", TEXT, &t->diseases, 0},
        {"--label-map", TEXT, &t->label_map, 0},
        {"--epochs", REAL, &t->epochs, 1e-6},
        {"--batch", INT, &t->batch_size, 1},
        {"--lr", REAL, &t->lr, 0},
        {"--weight-decay", REAL, &t->weight_decay, 0},
        {"--warmup", REAL, &t->warmup_fraction, 0},
        {"--clip", REAL, &t->clip_norm, 0},
        {"--lambda", REAL, &t->lambda, 0},
        {"--tau", REAL, &t->tau, 0.01},
        {"--learn-tau", FLAG, &t->learn_tau, 0},
        {"--no-mask", FLAG, &s->no_mask, 0},
        {"--no-balance", FLAG, &s->no_balance, 0},
        {"--no-augment", FLAG, &s->no_augment, 0},
        {"--seed", UINT64, &t->seed, 0},
        {"--dtype", TEXT, &t->dtype, 0},
        {"--validate-every", INT64, &t->validate_every, 0},
        {"--monitor", TEXT, &t->monitor, 0},
        {"--monitor-set", TEXT, &t->monitor_set, 0},
        {"--checkpoint-every", INT64, &t->checkpoint_every, 0},
        {"--resume", FLAG, &t->resume, 0},
        {"--stop-after", INT64, &t->stop_after_steps, 1},
        {"--threads", INT, &s->runtime.n_threads, 1},
        {"--device", TEXT, &s->runtime.device, 0},
        {"--quiet", FLAG, &s->quiet, 0},
        {"--help", FLAG, &s->help, 0},
        {"--version", FLAG, &s->version, 0},
    };
    int status = parse_options(argc, argv, options, sizeof options / sizeof *options);
    t->mask_false_negatives = !s->no_mask, t->balance_sets = !s->no_balance, t->augment = !s->no_augment;
    return status || s->help || s->version ? status : required_missing(s);
}

/* ---- Progress --------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_signal(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

typedef struct display {
    int quiet, terminal, line_open; /* line_open: the bar stands on the current line */
    double last;                    /* when something was shown */
} display;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void format_time(char *out, size_t n, double seconds)
{
    long s = seconds < 0 ? 0 : seconds > 1e9 ? 1000000000L : (long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, n, "%ld h %02ld min", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(out, n, "%ld min %02ld s", s / 60, s % 60);
    else
        snprintf(out, n, "%ld s", s);
}

static void end_line(display *d)
{
    if (d->line_open) fputc('\n', stderr);
    d->line_open = 0;
}

static void show_figures(const radz_train_progress *p)
{
    char left[32];
    format_time(left, sizeof left, p->seconds_left);
    fprintf(stderr,
            "step %lld/%lld  epoch %.2f  loss %.4f (CA %.4f, CG %.4f)  tau %.3f  lr %.2e  %.1f films/s  %s left",
            (long long)p->step, (long long)p->n_steps, p->epoch, p->loss, p->loss_ca, p->loss_cg, p->tau, p->lr,
            p->items_per_second, left);
}

static void show_bar(display *d, const radz_train_progress *p)
{
    char bar[21];
    int done = (int)(20 * p->step / p->n_steps);
    for (int i = 0; i < 20; i++) bar[i] = i < done ? '#' : '.';
    bar[20] = '\0';
    fprintf(stderr, "\r\033[K[%s] ", bar);
    show_figures(p);
    fflush(stderr);
    d->line_open = 1;
}

static void show_validation(display *d, const radz_train_progress *p)
{
    end_line(d);
    fprintf(stderr, "step %lld: validation AUC %.4f, mean over labels %.4f", (long long)p->step, p->val_auc,
            p->val_macro_auc);
    if (p->n_bad_rows) fprintf(stderr, " (%lld films could not be read)", (long long)p->n_bad_rows);
    fputc('\n', stderr);
}

static int on_progress(const radz_train_progress *p, void *user)
{
    display *d = user;
    double t = now();
    int due = t - d->last >= (d->terminal ? 0.2 : 10.0) || p->step == 1 || p->step == p->n_steps;
    if (!d->quiet && (due || p->has_validation)) {
        if (d->terminal) {
            show_bar(d, p);
        } else {
            show_figures(p);
            fputc('\n', stderr);
        }
        d->last = t;
    }
    if (!d->quiet && p->has_validation) show_validation(d, p);
    return interrupted;
}

static void on_log(radz_log_level level, const char *message, void *user)
{
    display *d = user;
    if (level < RADZ_LOG_INFO || (d->quiet && level < RADZ_LOG_WARNING)) return;
    end_line(d);
    fprintf(stderr, "radz-train: %s\n", message);
}

/* ---- Main ------------------------------------------------------------------------------------------ */

static void catch_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESETHAND; /* a second Ctrl-C ends the program at once */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static int fail(display *d, const radz_error *err)
{
    end_line(d);
    fprintf(stderr, "radz-train: %s\n", err->message);
    return EXIT_FAILED;
}

static int train(settings *s, display *d)
{
    radz_error err;
    radz_runtime *runtime;
    radz_trainer *trainer = NULL;
    if (radz_runtime_create(&s->runtime, &runtime, &err)) return fail(d, &err);
    int status = 0;
    catch_signals();
    radz_status code = radz_trainer_open(runtime, &s->train, &trainer, &err);
    if (!code) code = radz_trainer_run(trainer, &err);
    if (code == RADZ_E_CANCELLED) {
        end_line(d);
        fprintf(stderr, "radz-train: %s\nThe same command with --resume goes on from there.\n", err.message);
        status = EXIT_INTERRUPTED;
    } else if (code) {
        status = fail(d, &err);
    } else {
        end_line(d);
        if (!d->quiet) fprintf(stderr, "Model: %s\n%s\n", s->train.out_dir, radz_disclaimer());
    }
    radz_trainer_close(trainer);
    radz_runtime_close(runtime);
    return status;
}

int main(int argc, char **argv)
{
    settings s;
    memset(&s, 0, sizeof s);
    int status = read_command_line(argc, argv, &s);
    if (status) return status;
    if (s.help || s.version) {
        if (s.help) printf("%s\n%s", usage_text, help_text);
        if (s.version) printf("radz-train %s\n%s\n", radz_version(), radz_disclaimer());
        return fflush(stdout) || ferror(stdout) ? EXIT_FAILED : 0;
    }
    display d = {.quiet = s.quiet, .terminal = isatty(STDERR_FILENO), .last = -1e9};
    s.train.progress_fn = on_progress;
    s.train.user = &d;
    s.runtime.log_fn = on_log;
    s.runtime.user = &d;
    return train(&s, &d);
}
