/* radz-train - trains a LLaVA-RadZ on films listed in a CSV file. Uses radz.h only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

enum { EXIT_FAILED = 1, EXIT_INTERRUPTED = 130 };

static const char usage_text[] = "usage: radz-train --model DIR --manifest CSV --out DIR --diseases FILE [options]\n";

static const char help_text[] =
    "\n"
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
    bool quiet;
} settings;

/* 0, or the exit status. */
static int read_command_line(int argc, char **argv, settings *s)
{
    radz_train_options *t = &s->train;
    radz_train_options_init(t);
    radz_runtime_options_init(&s->runtime);
    option_entry options[] = {
        {"model", .text = &t->model_dir, .required = true},
        {"manifest", .text = &t->manifest, .required = true},
        {"images", .text = &t->image_root},
        {"out", .text = &t->out_dir, .required = true},
        {"diseases", .text = &t->diseases, .required = true},
        {"label-map", .text = &t->label_map},
        {"epochs", .real = &t->epochs, .min = 1e-6},
        {"batch", .integer = &t->batch_size, .min = 1, .max = 1000000},
        {"lr", .real = &t->lr},
        {"weight-decay", .real = &t->weight_decay},
        {"warmup", .real = &t->warmup_fraction, .max = 1},
        {"clip", .real = &t->clip_norm},
        {"lambda", .real = &t->lambda},
        {"tau", .real = &t->tau, .min = 0.01},
        {"learn-tau", .on = &t->learn_tau},
        {"no-mask", .off = &t->mask_false_negatives},
        {"no-balance", .off = &t->balance_sets},
        {"no-augment", .off = &t->augment},
        {"seed", .unsigned64 = &t->seed},
        {"dtype", .text = &t->dtype, .words = "f32|bf16"},
        {"validate-every", .integer64 = &t->validate_every},
        {"monitor", .text = &t->monitor},
        {"monitor-set", .text = &t->monitor_set},
        {"checkpoint-every", .integer64 = &t->checkpoint_every},
        {"resume", .on = &t->resume},
        {"stop-after", .integer64 = &t->stop_after_steps, .min = 1},
        {"threads", .integer = &s->runtime.n_threads, .max = 1024},
        {"device", .text = &s->runtime.device, .words = "auto|cpu|cuda"},
        {"quiet", .flag = &s->quiet},
    };
    int n_inputs, status = parse_command_line(options, COUNT(options), argc, argv, &n_inputs);
    if (!status && n_inputs) return usage("films come from the manifest: what is %s?", argv[0]);
    return status;
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
    complain("%s", message);
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
    complain("%s", err->message);
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
        complain("%s", err.message);
        fputs("The same command with --resume goes on from there.\n", stderr);
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
    program_name = "radz-train", program_usage = usage_text, program_help = help_text;
    int status = begin_program();
    if (!status) status = read_command_line(argc, argv, &s);
    if (status) return status;
    display d = {.quiet = s.quiet, .terminal = isatty(STDERR_FILENO), .last = -1e9};
    s.train.progress_fn = on_progress;
    s.train.user = &d;
    s.runtime.log_fn = on_log;
    s.runtime.user = &d;
    return train(&s, &d);
}
